//! The test at the start: a block is made, code runs in it and beside it in turns, and it behaves as a thread's.
//!
//! * Invariant tls-self-test-1: what runs under the block's pointer is a closure of
//!   [`with_thread_pointer`](super::with_thread_pointer), so no address of a thread-local crosses a write. Upheld by
//!   [`run`].

#![allow(unsafe_code)]

use std::alloc::{alloc, dealloc};
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::errno::{errno, set_errno};
use super::layout::Layout;
use super::pointer::{thread_pointer, with_thread_pointer};
use super::unsupported::Unsupported;

/// What a thread-local begins with, what each side sets it to, and what `errno` is set to.
const FRESH: u64 = 7;
const OUTSIDE: u64 = 8;
const INSIDE: u64 = 9;

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(FRESH) };
    static TEXT: RefCell<String> = RefCell::new(String::from("fresh"));
    static LOUD: Loud = const { Loud };
}

/// Destructors that ran, of thread-locals and of values of a pthread key. One test runs in a process.
static DESTROYED: AtomicUsize = AtomicUsize::new(0);

/// A thread-local with a destructor.
struct Loud;

impl Drop for Loud {
    fn drop(&mut self) {
        // Relaxed: read by the same OS thread.
        DESTROYED.fetch_add(1, Ordering::Relaxed);
    }
}

/// The destructor of a value, which points to what is to be counted.
unsafe extern "C" fn count(value: *mut c_void) {
    // Relaxed: read by the same OS thread.
    DESTROYED.fetch_add(value.addr(), Ordering::Relaxed);
}

/// Makes a block, runs in it, makes it fresh again, and says which step failed.
pub(super) fn run(layout: &Layout) -> Result<(), Unsupported> {
    let failed = Unsupported::SelfTest;
    let size = std::alloc::Layout::from_size_align(layout.block_size(), layout.block_align())
        .map_err(|_| failed("the size of a block"))?;
    let mut key = 0;
    // SAFETY: a place for the key, and a destructor for its values (pthread_key_create(3)).
    if unsafe { libc::pthread_key_create(&raw mut key, Some(count)) } != 0 {
        return Err(failed("a pthread key is made"));
    }
    // SAFETY: the size is not 0.
    let memory = unsafe { alloc(size) };
    if memory.is_null() {
        return Err(failed("memory for a block"));
    }
    // SAFETY: the memory is as large; nothing may rest on what was in it.
    unsafe { memory.write_bytes(0xA5, size.size()) };
    // SAFETY: the memory is the test's own; the pointer is the OS thread's: this is the first block of the process.
    let made = unsafe { layout.create(memory, thread_pointer()) };
    let result = match made {
        Ok(pointer) => {
            // SAFETY: a live block's pointer.
            let result = unsafe { turns(layout, pointer, key) };
            // SAFETY: nothing runs in the block.
            unsafe { layout.destroy(pointer) };
            result
        }
        Err(_) => Err("a block is made"),
    };
    // SAFETY: allocated above, with the same layout.
    unsafe { dealloc(memory, size) };
    // SAFETY: made above; the OS thread has no value for it.
    unsafe { libc::pthread_key_delete(key) };
    result.map_err(failed)
}

/// Runs inside and outside in turns.
///
/// # Safety
///
/// `pointer` is a fresh block's.
unsafe fn turns(layout: &Layout, pointer: usize, key: libc::pthread_key_t) -> Result<(), &'static str> {
    NUMBER.set(OUTSIDE);
    set_errno(1);
    // SAFETY: a live block's pointer.
    unsafe { with_thread_pointer(pointer, || begin(layout, key)) }?;
    if NUMBER.get() != OUTSIDE || errno() != 1 || !value(key).is_null() {
        return Err("the OS thread keeps its thread-locals");
    }
    // SAFETY: the same.
    unsafe { with_thread_pointer(pointer, || end(layout, key)) }?;
    // SAFETY: the block's thread has ended.
    if !unsafe { layout.recycle(pointer, thread_pointer()) } {
        return Err("a block can be made fresh again");
    }
    // SAFETY: the same.
    unsafe { with_thread_pointer(pointer, || begin(layout, key).and_then(|()| end(layout, key))) }
}

/// What a thread sees first.
fn begin(layout: &Layout, key: libc::pthread_key_t) -> Result<(), &'static str> {
    // Before anything is allocated: an allocator may leave an error of its own in the first call of a thread.
    if errno() != 0 {
        return Err("errno is fresh");
    }
    modules_are_fresh(layout)?;
    if NUMBER.replace(INSIDE) != FRESH || TEXT.with_borrow(|text| text != "fresh") {
        return Err("thread-locals are fresh");
    }
    if !value(key).is_null() {
        return Err("values of pthread keys are fresh");
    }
    TEXT.set(format!("set at {INSIDE}"));
    LOUD.with(|_| ());
    set_errno(INSIDE as c_int);
    // SAFETY: the key lives; the value is a number for `count` (pthread_setspecific(3)).
    unsafe { libc::pthread_setspecific(key, ptr::without_provenance(16)) };
    Ok(())
}

/// What it sees after others have run, and its end.
fn end(layout: &Layout, key: libc::pthread_key_t) -> Result<(), &'static str> {
    let kept = NUMBER.get() == INSIDE && TEXT.with_borrow(|text| text == "set at 9");
    if !kept || errno() != INSIDE as c_int || value(key).addr() != 16 {
        return Err("a block keeps its thread-locals");
    }
    // Relaxed: only this OS thread counts.
    DESTROYED.store(0, Ordering::Relaxed);
    // SAFETY: the thread pointer is the block's, and what follows looks at the destructors' work only.
    unsafe { layout.run_destructors() };
    if DESTROYED.load(Ordering::Relaxed) != 17 || !value(key).is_null() {
        return Err("each destructor runs once");
    }
    Ok(())
}

/// Compares the thread-locals of all modules with what they begin with; those of the C library are set when a thread
/// begins, and were photographed.
fn modules_are_fresh(layout: &Layout) -> Result<(), &'static str> {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, library: *mut c_void) -> c_int {
        // SAFETY: the dynamic linker passes a filled structure (dl_iterate_phdr(3)).
        let info = unsafe { &*info };
        // SAFETY: the structure says how many headers there are.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_TLS) else { return 0 };
        // Null: not yet allocated for this thread, so made from its first values when it is.
        if info.dlpi_tls_data.is_null() || info.dlpi_addr as usize == library.addr() {
            return 0;
        }
        let (set, all) = (header.p_filesz as usize, header.p_memsz as usize);
        // SAFETY: the running thread's copy of the module's thread-locals, as the dynamic linker says.
        let mine = unsafe { std::slice::from_raw_parts(info.dlpi_tls_data.cast::<u8>(), all) };
        let first = ptr::with_exposed_provenance::<u8>((info.dlpi_addr + header.p_vaddr) as usize);
        // SAFETY: the module's segment of first values is mapped.
        let first = unsafe { std::slice::from_raw_parts(first, set) };
        c_int::from(mine[..set] != *first || mine[set..].iter().any(|byte| *byte != 0))
    }
    let mut place = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: an address in the C library; the place is filled on success (dladdr(3)).
    unsafe { libc::dladdr(layout.call.destructors as *const c_void, place.as_mut_ptr()) };
    // SAFETY: zeroes are a valid value.
    let library = unsafe { place.assume_init() }.dli_fbase;
    // SAFETY: the callback only reads.
    let differ = unsafe { libc::dl_iterate_phdr(Some(each), library) };
    if differ == 0 { Ok(()) } else { Err("thread-locals of each library are fresh") }
}

fn value(key: libc::pthread_key_t) -> *mut c_void {
    // SAFETY: the key lives (pthread_getspecific(3)).
    unsafe { libc::pthread_getspecific(key) }
}
