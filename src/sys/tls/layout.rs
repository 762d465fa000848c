//! Where everything lies in a thread's block, found out once in each process.
//!
//! * Invariant tls-layout-1: each offset is a descriptor's, of a field as large as the code takes it for, or was seen
//!   in the probe's photographs; and a test has passed that makes a block and runs in it, before the first caller gets
//!   the layout. Upheld by [`Layout::find`] and [`layout`](super::layout).

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ops::Range;

use super::develop::{Seen, WORD};
use super::live::Tail;
use super::memory::read;
use super::modules::Table;
use super::pointer::thread_pointer;
use super::probe::{self, Frame};
use super::symbols::Library;
use super::unsupported::Unsupported;

/// The bytes of an rseq area that the kernel has had from the start (linux/rseq.h).
pub(super) const RSEQ_SIZE: usize = 32;

/// How often the probe is tried.
const PROBES: usize = 5;

/// Where what lies in a thread's block, and the functions of the C library that make and end one.
///
/// Distances that begin at the thread pointer are signed; those inside `struct pthread` are not.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The bytes of a block, with this project's own words at its end.
    pub(super) size: usize,
    pub(super) align: usize,
    /// From the start of the memory to the thread pointer.
    pub(super) before: usize,
    /// From the thread pointer to the end of what is the C library's.
    pub(super) after: usize,
    /// From `struct pthread` to the thread pointer.
    pub(super) below: usize,
    /// Fields of `struct pthread`: the pointer to the table of modules' blocks.
    pub(super) dtv: usize,
    /// The link in the list of all threads.
    pub(super) list: usize,
    pub(super) tid: usize,
    /// The pointers to tables of values of pthread keys, and how many there are.
    pub(super) specific: usize,
    pub(super) tables: usize,
    pub(super) keys: Keys,
    /// From the thread pointer to the area that the kernel keeps for a thread that asked it to.
    pub(super) rseq: isize,
    /// AddressSanitizer's pthread key, in a build with it.
    pub(super) sanitizer_key: Option<usize>,
    pub(super) seen: Seen,
    pub(super) modules: Table,
    /// The bytes of an element of the dtv, and two fields: where a module's thread-locals are; in the element before
    /// the first, how many there are.
    pub(super) dtv_element: usize,
    pub(super) dtv_value: usize,
    pub(super) dtv_counter: usize,
    pub(super) call: Functions,
}

/// The table of all pthread keys, and what a value looks like.
#[derive(Debug)]
pub(super) struct Keys {
    /// The address of the table.
    pub(super) table: usize,
    /// The bytes of an entry of it, and two fields: which life of the key this is, and the destructor.
    pub(super) entry: usize,
    pub(super) sequence: usize,
    pub(super) destructor: usize,
    /// The values in one table, the bytes of a value, and the same two fields there.
    pub(super) per_table: usize,
    pub(super) value: usize,
    pub(super) value_sequence: usize,
    pub(super) value_data: usize,
}

/// Functions of the C library and the dynamic linker.
#[derive(Debug)]
pub(super) struct Functions {
    /// Puts the modules' thread-locals and a dtv into a block.
    pub(super) allocate: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    /// Frees the dtv and what hangs on it.
    pub(super) deallocate: unsafe extern "C" fn(*mut c_void, bool),
    /// Runs destructors of thread-locals.
    pub(super) destructors: unsafe extern "C" fn(),
    /// Its own malloc, whatever the program has in front of it.
    pub(super) malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    pub(super) free: unsafe extern "C" fn(*mut c_void),
    pub(super) dlerror: unsafe extern "C" fn() -> *mut c_void,
    /// Frees what a resolver's state has allocated.
    pub(super) close_resolver: unsafe extern "C" fn(*mut c_void),
}

impl Layout {
    /// Returns the bytes of memory that a block takes.
    pub(crate) fn block_size(&self) -> usize {
        self.size
    }

    /// Returns how many bytes from the start of a block are a thread's. The rest links blocks with each other and may
    /// change at any time.
    pub(crate) fn thread_size(&self) -> usize {
        self.before + self.after
    }

    /// Returns the alignment of the memory of a block.
    pub(crate) fn block_align(&self) -> usize {
        self.align
    }

    /// Returns what `pthread_self` returns in a thread with this thread pointer: the address of its `struct pthread`.
    #[cfg(feature = "monkey")]
    pub(crate) fn pthread_self(&self, pointer: usize) -> usize {
        pointer - self.below
    }

    /// Asks the C library and the probe.
    pub(super) fn find() -> Result<Self, Unsupported> {
        let library = Library::open()?;
        let pthread_size = library.constant(c"_thread_db_sizeof_pthread")?;
        let (static_size, align) = static_tls(library)?;
        let align = align.max(64);
        // x86-64: struct pthread is the end of the static TLS. aarch64: it lies below, and does not count.
        let (below, before, after) = if cfg!(target_arch = "x86_64") {
            (0, static_size.wrapping_sub(pthread_size), pthread_size)
        } else {
            (pthread_size, pthread_size.next_multiple_of(align), static_size.next_multiple_of(WORD))
        };
        if !pthread_size.is_multiple_of(WORD) || !before.is_multiple_of(align) || before > 1 << 24 {
            return Err(Unsupported::Descriptor("_thread_db_sizeof_pthread"));
        }
        let (libc_at, libc_size) = libc_tls(library)?;
        let specific = library.descriptor(c"_thread_db_pthread_specific")?;
        let bytes = specific.bits as usize / 8;
        if specific.elements != 1 || !bytes.is_multiple_of(WORD) || specific.offset + bytes > pthread_size {
            return Err(Unsupported::Descriptor("_thread_db_pthread_specific"));
        }
        let list = library.field(c"_thread_db_pthread_list", usize::BITS * 2)?;
        let rseq = rseq_offset(library, &(-(before as isize)..after as isize))?;
        let links = list as isize - below as isize;
        let foreign = [links..links + 2 * WORD as isize, rseq..rseq + RSEQ_SIZE as isize]
            .map(|range| Frame::foreign(below, libc_at, &range));
        let frame =
            Frame { below, pthread_words: pthread_size / WORD, libc_at, libc_words: libc_size.div_ceil(WORD), foreign };
        let tables = specific.offset..specific.offset + bytes;
        let seen = see(|| {
            let roll = probe::photograph(library, &frame)?;
            let block = roll.pointer - before..roll.pointer + after;
            Seen::develop(&roll, &frame, &block, list, &tables)
        })?;
        let dtv = library.descriptor(c"_thread_db_dtv_dtv")?;
        Ok(Self {
            size: before + after + size_of::<Tail>(),
            align,
            before,
            after,
            below,
            dtv: library.word(c"_thread_db_pthread_dtvp")?,
            list,
            tid: library.field(c"_thread_db_pthread_tid", 32)?,
            specific: specific.offset,
            tables: bytes / WORD,
            keys: Keys::find(library)?,
            rseq,
            sanitizer_key: sanitizer_key(),
            seen,
            modules: Table::find(library)?,
            dtv_element: dtv.bits as usize / 8,
            dtv_value: library.word(c"_thread_db_dtv_t_pointer_val")?,
            dtv_counter: library.word(c"_thread_db_dtv_t_counter")?,
            call: Functions::find(library)?,
        })
    }
}

impl Functions {
    fn find(library: Library) -> Result<Self, Unsupported> {
        macro_rules! function {
            ($name:literal, $type:ty) => {{
                let address = library.address($name)?.as_ptr();
                // SAFETY: Invariant tls-symbols-1: the C library's function of this name has this type in every version
                // that exports the descriptors (elf/dl-tls.c, stdlib/cxa_thread_atexit_impl.c, its public headers).
                unsafe { std::mem::transmute::<*mut c_void, $type>(address) }
            }};
        }
        Ok(Self {
            allocate: function!(c"_dl_allocate_tls", unsafe extern "C" fn(*mut c_void) -> *mut c_void),
            deallocate: function!(c"_dl_deallocate_tls", unsafe extern "C" fn(*mut c_void, bool)),
            destructors: function!(c"__call_tls_dtors", unsafe extern "C" fn()),
            malloc: function!(c"malloc", unsafe extern "C" fn(usize) -> *mut c_void),
            free: function!(c"free", unsafe extern "C" fn(*mut c_void)),
            dlerror: function!(c"dlerror", unsafe extern "C" fn() -> *mut c_void),
            close_resolver: function!(c"__res_nclose", unsafe extern "C" fn(*mut c_void)),
        })
    }
}

impl Keys {
    fn find(library: Library) -> Result<Self, Unsupported> {
        let entry = library.constant(c"_thread_db_sizeof_pthread_key_struct")?;
        let value = library.constant(c"_thread_db_sizeof_pthread_key_data")?;
        let all = library.descriptor(c"_thread_db___pthread_keys")?;
        let level = library.descriptor(c"_thread_db_pthread_key_data_level2_data")?;
        if all.bits as usize != entry * 8 || !entry.is_multiple_of(WORD) {
            return Err(Unsupported::Descriptor("_thread_db___pthread_keys"));
        }
        if level.bits as usize != value * 8 || level.offset != 0 || !value.is_multiple_of(WORD) {
            return Err(Unsupported::Descriptor("_thread_db_pthread_key_data_level2_data"));
        }
        Ok(Self {
            table: library.variable(c"__pthread_keys")?,
            entry,
            sequence: library.word(c"_thread_db_pthread_key_struct_seq")?,
            destructor: library.word(c"_thread_db_pthread_key_struct_destr")?,
            per_table: level.elements as usize,
            value,
            value_sequence: library.word(c"_thread_db_pthread_key_data_seq")?,
            value_data: library.word(c"_thread_db_pthread_key_data_data")?,
        })
    }
}

/// Takes the photographs, several times if need be: the C library may write a word of any thread, as for setuid, while
/// they are taken.
fn see(mut once: impl FnMut() -> Result<Seen, Unsupported>) -> Result<Seen, Unsupported> {
    let mut seen = once();
    for _ in 1..PROBES {
        if !matches!(seen, Err(Unsupported::Probe(_))) {
            break;
        }
        seen = once();
    }
    seen
}

/// Returns size and alignment of what the dynamic linker reserves for thread-locals in each thread.
fn static_tls(library: Library) -> Result<(usize, usize), Unsupported> {
    let info = library.address(c"_dl_get_tls_static_info")?.as_ptr();
    // SAFETY: Invariant tls-symbols-1: the function has this type; sanitizers use it so (elf/dl-tls.c).
    let info = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut usize, *mut usize)>(info) };
    let (mut size, mut align) = (0, 0);
    // SAFETY: the function fills the two places.
    unsafe { info(&raw mut size, &raw mut align) };
    if !align.is_power_of_two() || align > 4096 || size > 1 << 24 {
        return Err(Unsupported::Symbol("_dl_get_tls_static_info"));
    }
    Ok((size, align))
}

/// Returns where the C library's thread-locals are, from the thread pointer, and their size.
fn libc_tls(library: Library) -> Result<(isize, usize), Unsupported> {
    struct Search {
        base: usize,
        found: Option<(usize, usize)>,
    }
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: the dynamic linker passes a filled structure (dl_iterate_phdr(3)).
        let info = unsafe { &*info };
        // SAFETY: `data` is the search of the caller, which waits.
        let search = unsafe { &mut *data.cast::<Search>() };
        if info.dlpi_addr as usize != search.base {
            return 0;
        }
        // SAFETY: the structure says how many headers there are.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        if let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_TLS) {
            search.found = Some((info.dlpi_tls_data.addr(), header.p_memsz as usize));
        }
        1
    }
    let inside = library.address(c"__call_tls_dtors")?.as_ptr();
    let mut place = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is in a loaded library; the place is filled on success (dladdr(3)).
    if unsafe { libc::dladdr(inside, place.as_mut_ptr()) } == 0 {
        return Err(Unsupported::NoLibrary);
    }
    // SAFETY: zeroes are a valid value, and it was filled.
    let base = unsafe { place.assume_init() }.dli_fbase.addr();
    let mut search = Search { base, found: None };
    // SAFETY: the callback gets the search, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut search).cast()) };
    match search.found {
        Some((data, size)) if data != 0 && data.is_multiple_of(WORD) && size < 1 << 16 => {
            Ok((data.wrapping_sub(thread_pointer()) as isize, size))
        }
        _ => Err(Unsupported::Probe("the C library's thread-locals are not to be found")),
    }
}

/// Returns AddressSanitizer's pthread key: it makes the first of the process, before the program runs.
fn sanitizer_key() -> Option<usize> {
    // SAFETY: any number may be asked for; one that is no key answers null.
    let has_value = |key: &usize| !unsafe { libc::pthread_getspecific(*key as libc::pthread_key_t) }.is_null();
    (0..8).find(|key| cfg!(feature = "sanitizer") && has_value(key))
}

/// Returns where a thread's rseq area is, from the thread pointer.
fn rseq_offset(library: Library, block: &Range<isize>) -> Result<isize, Unsupported> {
    let address = library.variable(c"__rseq_offset")?;
    // SAFETY: Invariant tls-symbols-1: a public constant of type ptrdiff_t (sys/rseq.h).
    let offset: isize = unsafe { read(address) };
    if offset % 4 != 0 || offset < block.start || offset + RSEQ_SIZE as isize > block.end {
        return Err(Unsupported::Symbol("__rseq_offset"));
    }
    Ok(offset)
}
