//! Anonymous memory for stacks: address space first, memory page by page as it is touched.
//!
//! ```text
//!   base                                                          base + len
//!    | guard |  never touched: costs nothing  |  touched: resident  |
//!            `-- a stack grows down into this <--  starts here -----'
//! ```
//!
//! There are two kinds of guard; under both, every access is a SIGSEGV:
//!
//! | [`GuardKind`] | call | Linux | VMAs per guard |
//! |---|---|---|---|
//! | `Install` | `madvise(MADV_GUARD_INSTALL)` | 6.13 | 0: a mark in the page table |
//! | `Protect` | `mprotect(PROT_NONE)` | any | 1, and the mapping around the guard is split in two |
//!
//! The VMAs of a process are limited (`vm.max_map_count`, 65530), so `Protect` ends at some 32 000 stacks and `Install`
//! at the memory. [`Mapping::discard`] and a fork leave guards of either kind in place.
//!
//! Invariant mmap-1: the pages `base .. base + len` are one anonymous private mapping, made by `reserve` and owned by
//! this value alone; both numbers are multiples of the page size, and only Drop unmaps. Upheld by the constructors: no
//! other function changes the fields.
//!
//! Invariant mmap-2: this file never makes a reference into a mapping. Code that makes one, through `base`, is
//! responsible for the reference: the functions that change or forbid content are `unsafe` and say so.

#![allow(unsafe_code)]

use std::ffi::{OsStr, c_void};
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, io, mem, ptr};

use super::cvt;
use crate::pure::lock::get_or_init;

/// `MADV_GUARD_INSTALL`, madvise(2), which the `libc` crate does not name yet.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// `MADV_GUARD_REMOVE`, madvise(2), which the `libc` crate does not name yet.
const MADV_GUARD_REMOVE: libc::c_int = 103;

/// The environment variable that overrides the detection of [`guard_kind`].
const GUARD_VARIABLE: &str = "GREENLING_GUARD";

/// How a page is made inaccessible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardKind {
    /// A mark in the page table, by `MADV_GUARD_INSTALL`.
    Install,
    /// A mapping without access rights, by `mprotect`.
    Protect,
}

/// Returns the kind of guard to use in this process: the value of the environment variable `GREENLING_GUARD` (`install`
/// or `protect`), else `Install` if the kernel knows the call. Detected once.
///
/// # Panics
///
/// If the variable has another value.
#[cfg(test)]
pub(crate) fn guard_kind() -> GuardKind {
    chosen_guard().0
}

/// Returns the kind of [`guard_kind`], and whether the environment demands that kind.
fn chosen_guard() -> (GuardKind, bool) {
    static CHOSEN: OnceLock<(GuardKind, bool)> = OnceLock::new();
    *get_or_init(&CHOSEN, || match parse_guard(env::var_os(GUARD_VARIABLE).as_deref()) {
        Some(kind) => (kind, true),
        None => (detect_guard(), false),
    })
}

/// Parses the environment variable, if set and not empty.
fn parse_guard(value: Option<&OsStr>) -> Option<GuardKind> {
    let value = value?;
    match value.to_str() {
        Some("") => None,
        Some("install") => Some(GuardKind::Install),
        Some("protect") => Some(GuardKind::Protect),
        _ => panic!("the environment variable {GUARD_VARIABLE} is {value:?}: it must be `install` or `protect`"),
    }
}

/// Tries `Install` on a scratch page. An old kernel says `EINVAL`, as does a new one under `mlockall`; whatever the
/// reason, `Protect` works.
fn detect_guard() -> GuardKind {
    let install = |scratch: Mapping| {
        // SAFETY: `scratch` is new and is dropped at the end of this line: nothing has a pointer into the mapping.
        unsafe { scratch.guard(0, scratch.len(), GuardKind::Install) }
    };
    match Mapping::reserve(page_size()).and_then(install) {
        Ok(()) => GuardKind::Install,
        Err(_) => GuardKind::Protect,
    }
}

/// Returns the size of a page in bytes, a power of two: 4096 on x86-64; 4096, 16384 or 65536 on aarch64.
pub(crate) fn page_size() -> usize {
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: every thread would write the same number.
    let known = SIZE.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: sysconf takes no pointer (sysconf(3)).
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let size = usize::try_from(size).expect("every Linux has a page size");
    SIZE.store(size, Ordering::Relaxed);
    size
}

/// Returns how often the calling OS thread has touched a page that was not there yet: `ru_minflt`, or 0 where the
/// kernel does not count (getrusage(2)).
pub(crate) fn page_faults() -> u64 {
    let mut usage = mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills one struct, for which there is room (getrusage(2)).
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: all zeros is a valid value of this struct of integers, and the kernel wrote another one.
    let usage = unsafe { usage.assume_init() };
    if result == 0 { usage.ru_minflt as u64 } else { 0 }
}

/// A range of address space that reads and writes as zeroed memory, and costs memory only in the pages that were
/// touched.
///
/// Not `Send`: stacks stay on their OS thread.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// The lowest address (Invariant mmap-1).
    base: NonNull<u8>,
    /// The length in bytes (Invariant mmap-1). Never 0.
    len: usize,
}

impl Mapping {
    /// Reserves `len` bytes, rounded up to whole pages, that no limit on committed memory counts (`MAP_NORESERVE`) and
    /// no huge page fills.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `len` is 0; `ENOMEM` if the address space or the number of VMAs is used up, if `RLIMIT_AS` forbids
    /// the mapping, or if the memory is needed after all: `vm.overcommit_memory=2` and `mlockall(MCL_FUTURE)` do that.
    pub(crate) fn reserve(len: usize) -> io::Result<Mapping> {
        let len =
            len.checked_next_multiple_of(page_size()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // Address space only.
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: without MAP_FIXED the kernel takes a free place and touches no existing mapping (mmap(2)).
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("the kernel keeps page 0 to itself");
        let mapping = Mapping { base, len };
        // One touched byte must cost one page, not two megabytes. Since Linux 6.7 MAP_STACK says so too.
        // SAFETY: Invariant mmap-1: the range belongs to `mapping`; the advice changes no content (madvise(2)).
        match cvt(unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE) }) {
            // This kernel has no huge pages.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(mapping),
            result => result.map(|_| mapping),
        }
    }

    /// Reserves a range as [`Mapping::reserve`] does, at a multiple of `align` bytes.
    ///
    /// # Errors
    ///
    /// As [`Mapping::reserve`].
    ///
    /// # Panics
    ///
    /// If `align` is not a power of two.
    pub(crate) fn reserve_aligned(len: usize, align: usize) -> io::Result<Mapping> {
        assert!(align.is_power_of_two(), "an alignment of {align}");
        let page = page_size();
        if align <= page || len == 0 {
            return Mapping::reserve(len);
        }
        // A range that is longer by `align` less one page contains an aligned one; the ends go back.
        let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
        let len = len.checked_next_multiple_of(page).ok_or_else(no_memory)?;
        let mut mapping = Mapping::reserve(len.checked_add(align - page).ok_or_else(no_memory)?)?;
        // The part before the first multiple of `align`, then the part after the range.
        let front = mapping.base.as_ptr().align_offset(align);
        mapping.cut_front(front)?;
        mapping.cut_back(mapping.len - len)?;
        Ok(mapping)
    }

    /// Unmaps the first `cut` bytes, whole pages and fewer than all. Only `reserve_aligned` calls this, on a new
    /// mapping.
    fn cut_front(&mut self, cut: usize) -> io::Result<()> {
        if cut > 0 {
            let start = self.range(0, cut);
            // SAFETY: Invariant mmap-1 for the range, and afterwards for the rest: nothing has a pointer into the
            // mapping.
            cvt(unsafe { libc::munmap(start, cut) })?;
            // SAFETY: `cut` is less than `len`, so the new base is inside what was mapped.
            self.base = unsafe { self.base.add(cut) };
            self.len -= cut;
        }
        Ok(())
    }

    /// Unmaps the last `cut` bytes, as [`Mapping::cut_front`] does the first.
    fn cut_back(&mut self, cut: usize) -> io::Result<()> {
        if cut > 0 {
            let start = self.range(self.len - cut, cut);
            // SAFETY: as in `cut_front`.
            cvt(unsafe { libc::munmap(start, cut) })?;
            self.len -= cut;
        }
        Ok(())
    }

    /// Returns the lowest address.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns the length in bytes, a multiple of the page size.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Reports whether `address` is inside the mapping.
    #[inline]
    pub(crate) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base.as_ptr().addr()) < self.len
    }

    /// Makes `len` bytes from `offset` on inaccessible, for good: every access is a SIGSEGV. The content is lost.
    ///
    /// # Errors
    ///
    /// `EINVAL` for `Install` on a kernel that does not know the call or on locked memory; `ENOMEM` for `Protect` if
    /// the VMAs are used up.
    ///
    /// # Panics
    ///
    /// If the range is not whole pages of this mapping.
    ///
    /// # Safety
    ///
    /// Nothing uses those pages from now on, through a reference or as a running stack, other than to fault on them.
    pub(crate) unsafe fn guard(&self, offset: usize, len: usize, kind: GuardKind) -> io::Result<()> {
        let start = self.range(offset, len);
        match kind {
            // SAFETY: Invariant mmap-1: the range belongs to this mapping; the caller promises that nothing needs the
            // content (madvise(2)).
            GuardKind::Install => cvt(unsafe { libc::madvise(start, len, MADV_GUARD_INSTALL) })?,
            // SAFETY: the same (mprotect(2)).
            GuardKind::Protect => cvt(unsafe { libc::mprotect(start, len, libc::PROT_NONE) })?,
        };
        Ok(())
    }

    /// Makes a guard of the kind of this process, [`guard_kind`]. Where the kernel refuses to install one on these
    /// pages, because the program locked them after the kind was detected (mlockall(2)), the pages are protected
    /// instead, unless the environment demands the kind.
    ///
    /// # Errors
    ///
    /// As [`Mapping::guard`], with the kind that was tried last.
    ///
    /// # Panics
    ///
    /// As [`Mapping::guard`].
    ///
    /// # Safety
    ///
    /// As for [`Mapping::guard`].
    pub(crate) unsafe fn guard_as_usual(&self, offset: usize, len: usize) -> Result<(), (GuardKind, io::Error)> {
        // The kind of this process; on locked memory, the other one.
        let (kind, demanded) = chosen_guard();
        // SAFETY: the caller's promise.
        match unsafe { self.guard(offset, len, kind) } {
            Err(error) if kind == GuardKind::Install && !demanded && error.raw_os_error() == Some(libc::EINVAL) => {
                // SAFETY: the same.
                unsafe { self.guard(offset, len, GuardKind::Protect) }.map_err(|error| (GuardKind::Protect, error))
            }
            result => result.map_err(|error| (kind, error)),
        }
    }

    /// Takes the guards in `len` bytes from `offset` on away, which must be of the kind `Install`.
    ///
    /// # Errors
    ///
    /// `Unsupported` in a process with guards of the other kind; `EINVAL` on locked memory.
    ///
    /// # Panics
    ///
    /// If the range is not whole pages of this mapping.
    ///
    /// # Safety
    ///
    /// No stack in that range is used before it is guarded again.
    pub(crate) unsafe fn remove_guards(&self, offset: usize, len: usize) -> io::Result<()> {
        let start = self.range(offset, len);
        if chosen_guard().0 != GuardKind::Install {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: Invariant mmap-1: the range belongs to this mapping; the rest is the caller's promise (madvise(2)).
        cvt(unsafe { libc::madvise(start, len, MADV_GUARD_REMOVE) })?;
        Ok(())
    }

    /// Gives the memory of `len` bytes from `offset` on back to the kernel. The bytes read as zeros afterwards; guards
    /// stay.
    ///
    /// # Errors
    ///
    /// `EINVAL` on locked memory.
    ///
    /// # Panics
    ///
    /// If the range is not whole pages of this mapping.
    ///
    /// # Safety
    ///
    /// Nothing holds a reference into those pages or needs the content.
    pub(crate) unsafe fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        let start = self.range(offset, len);
        // SAFETY: Invariant mmap-1: the range belongs to this mapping; the caller promises that nothing needs the
        // content (madvise(2)).
        cvt(unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) })?;
        Ok(())
    }

    /// Appends to `out`, for each page of `len` bytes from `offset` on, whether the page is in memory.
    ///
    /// Guards and pages that were swapped out are not: the answer is a hint about memory, not about content.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the kernel is short of memory; errors that a sandbox makes mincore(2) return.
    ///
    /// # Panics
    ///
    /// If the range is not whole pages of this mapping.
    #[cfg(test)]
    pub(crate) fn resident(&self, offset: usize, len: usize, out: &mut Vec<bool>) -> io::Result<()> {
        self.scan(offset, len, |_, resident| {
            out.push(resident);
            ControlFlow::Continue(())
        })
    }

    /// Counts the pages of `len` bytes from `offset` on that are in memory.
    ///
    /// # Errors and panics
    ///
    /// As [`Mapping::resident`].
    #[cfg(test)]
    pub(crate) fn count_resident(&self, offset: usize, len: usize) -> io::Result<usize> {
        let mut count = 0;
        self.scan(offset, len, |_, resident| {
            count += usize::from(resident);
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Returns the offset, from `base`, of the lowest page in memory among `len` bytes from `offset` on: how far down a
    /// stack has reached since the pages were reserved or discarded. Allocates nothing.
    ///
    /// # Errors and panics
    ///
    /// As [`Mapping::resident`].
    pub(crate) fn first_resident(&self, offset: usize, len: usize) -> io::Result<Option<usize>> {
        let mut first = None;
        self.scan(offset, len, |page, resident| {
            if !resident {
                return ControlFlow::Continue(());
            }
            first = Some(page);
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// Calls `visit` with the offset of each page, upwards, and whether the page is in memory, until `visit` breaks
    /// off.
    fn scan(&self, offset: usize, len: usize, mut visit: impl FnMut(usize, bool) -> ControlFlow<()>) -> io::Result<()> {
        // Check the whole range before the first call.
        let page = page_size();
        self.range(offset, len);
        // One call for a stack of the default size; longer ranges take several.
        let mut answer = [0_u8; 128];
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let chunk = (end - at).min(answer.len() * page);
            let start = self.range(at, chunk);
            // SAFETY: Invariant mmap-1: the range is mapped; the kernel writes one byte for each page, and the range
            // has at most as many pages as `answer` is long (mincore(2)).
            cvt(unsafe { libc::mincore(start, chunk, answer.as_mut_ptr()) })?;
            for state in &answer[..chunk / page] {
                // The other seven bits are undefined.
                if visit(at, state & 1 == 1).is_break() {
                    return Ok(());
                }
                at += page;
            }
        }
        Ok(())
    }

    /// Returns the start of a range, after a check that the range is whole pages of this mapping. Every call of this
    /// file that acts on a range gets the address here.
    fn range(&self, offset: usize, len: usize) -> *mut c_void {
        // Whole pages of this mapping.
        let page = page_size();
        assert!(
            offset.is_multiple_of(page) && len.is_multiple_of(page) && offset <= self.len && len <= self.len - offset,
            "the range of {len} bytes at {offset} is not whole pages of a mapping of {} bytes",
            self.len
        );
        // SAFETY: Invariant mmap-1 and the check above: `offset` is inside the mapping or its end.
        unsafe { self.base.as_ptr().add(offset) }.cast()
    }

    /// Keeps the pages mapped until the process ends.
    pub(crate) fn leak(self) {
        mem::forget(self);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: Invariant mmap-1: the mapping belongs to this value, and nothing uses the pages later (munmap(2)).
        let result = cvt(unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) });
        // The kernel joins neighbouring mappings into one VMA, so unmapping can split one and exceed the limit. Then
        // the address space is lost, which is no reason to end the program.
        drop(result);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::in_fork;
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    /// The kinds that this kernel has.
    fn kinds() -> Vec<GuardKind> {
        match detect_guard() {
            GuardKind::Install => vec![GuardKind::Install, GuardKind::Protect],
            GuardKind::Protect => vec![GuardKind::Protect],
        }
    }

    /// Writes one byte; the page becomes resident.
    fn touch(mapping: &Mapping, offset: usize) {
        assert!(offset < mapping.len());
        // SAFETY: Invariant mmap-1 and the line above: the address is inside the mapping.
        let byte = unsafe { mapping.base().add(offset) };
        // SAFETY: the tests that touch a guard do so to die; nothing refers to any other byte.
        unsafe { byte.write_volatile(7) };
    }

    /// Reads one byte of `mapping`.
    fn read(mapping: &Mapping, offset: usize) -> u8 {
        assert!(offset < mapping.len());
        // SAFETY: Invariant mmap-1 and the line above: the address is inside the mapping.
        let byte = unsafe { mapping.base().add(offset) };
        // SAFETY: as in `touch`; fresh pages read as zeros (mmap(2)).
        unsafe { byte.read_volatile() }
    }

    /// Returns how a process ends that does `access`: by SIGSEGV on a guard, else with 0.
    fn end_of(access: impl FnOnce()) -> ExitStatus {
        in_fork(|| {
            access();
            0
        })
    }

    /// Counts the VMAs that cover a part of `mapping`.
    fn vmas(mapping: &Mapping) -> usize {
        let start = mapping.base().as_ptr().addr();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let overlaps = |line: &&str| {
            let (from, rest) = line.split_once('-').unwrap();
            let from = usize::from_str_radix(from, 16).unwrap();
            let to = usize::from_str_radix(rest.split_once(' ').unwrap().0, 16).unwrap();
            from < start + mapping.len() && to > start
        };
        maps.lines().filter(overlaps).count()
    }

    #[test]
    fn reserved_memory_is_zeroed_and_writable_to_the_last_byte() {
        let mapping = Mapping::reserve(1).unwrap();
        assert_eq!(mapping.len(), page_size());
        let last = mapping.len() - 1;
        assert_eq!(read(&mapping, last), 0);
        touch(&mapping, last);
        assert_eq!(read(&mapping, last), 7);
    }

    #[test]
    fn bad_lengths_are_errors() {
        assert_eq!(Mapping::reserve(0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(Mapping::reserve(usize::MAX).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        assert_eq!(Mapping::reserve_aligned(usize::MAX, 1 << 20).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        assert_eq!(Mapping::reserve_aligned(0, 1 << 20).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn address_space_is_free_until_it_is_touched() {
        let mapping = Mapping::reserve(64 << 30).unwrap();
        let last = mapping.len() - page_size();
        touch(&mapping, last);
        touch(&mapping, mapping.len() / 2);
        assert_eq!(mapping.count_resident(0, 1 << 20).unwrap(), 0);
        assert_eq!(mapping.count_resident(last, page_size()).unwrap(), 1);
        // A neighbour of a touched page in the middle of 64 GiB: a huge page would have come with 511 of them.
        assert_eq!(mapping.count_resident(mapping.len() / 2, 1 << 21).unwrap(), 1);
    }

    #[test]
    fn an_aligned_mapping_is_aligned_and_exactly_as_long_as_asked() {
        for align in [1, page_size(), 1 << 16, 1 << 21, 1 << 30] {
            let mapping = Mapping::reserve_aligned(3 * page_size(), align).unwrap();
            assert_eq!(mapping.base().as_ptr().addr() % align, 0);
            assert_eq!(mapping.len(), 3 * page_size());
            touch(&mapping, 0);
            touch(&mapping, mapping.len() - 1);
        }
    }

    #[test]
    fn the_inside_of_a_mapping_is_half_open() {
        let mapping = Mapping::reserve(page_size()).unwrap();
        let start = mapping.base().as_ptr().addr();
        assert!(mapping.contains(start) && mapping.contains(start + mapping.len() - 1));
        assert!(!mapping.contains(start - 1) && !mapping.contains(start + mapping.len()));
    }

    #[test]
    fn a_guard_faults_on_read_and_write_and_its_neighbours_do_not() {
        let page = page_size();
        for kind in kinds() {
            let mapping = Mapping::reserve(4 * page).unwrap();
            touch(&mapping, page); // Content under a guard does not matter.
            // SAFETY: only this test knows the mapping, and touches the guard to fault.
            unsafe { mapping.guard(page, page, kind) }.unwrap();
            assert_eq!(end_of(|| touch(&mapping, page)).signal(), Some(libc::SIGSEGV), "{kind:?}");
            assert_eq!(end_of(|| touch(&mapping, 2 * page - 1)).signal(), Some(libc::SIGSEGV), "{kind:?}");
            assert_eq!(end_of(|| assert_eq!(read(&mapping, page), 0)).signal(), Some(libc::SIGSEGV), "{kind:?}");
            assert_eq!(end_of(|| touch(&mapping, page - 1)).code(), Some(0), "{kind:?}");
            assert_eq!(end_of(|| touch(&mapping, 2 * page)).code(), Some(0), "{kind:?}");
        }
    }

    #[test]
    fn a_guard_survives_discard() {
        let page = page_size();
        for kind in kinds() {
            let mapping = Mapping::reserve(4 * page).unwrap();
            // SAFETY: only this test knows the mapping, and touches the guard to fault.
            unsafe { mapping.guard(0, page, kind) }.unwrap();
            touch(&mapping, page);
            // SAFETY: nothing needs the 7 in that page.
            unsafe { mapping.discard(0, 4 * page) }.unwrap();
            assert_eq!(read(&mapping, page), 0, "{kind:?}");
            assert_eq!(end_of(|| touch(&mapping, 0)).signal(), Some(libc::SIGSEGV), "{kind:?}");
        }
    }

    #[test]
    fn an_installed_guard_adds_no_vma_and_a_protected_one_does() {
        let page = page_size();
        for kind in kinds() {
            let mapping = Mapping::reserve(64 * page).unwrap();
            for slot in 0..8 {
                // SAFETY: only this test knows the mapping, and does not touch the guards.
                unsafe { mapping.guard((slot * 8 + 4) * page, page, kind) }.unwrap();
            }
            let expected = if kind == GuardKind::Install { 1 } else { 17 };
            assert_eq!(vmas(&mapping), expected, "{kind:?}");
        }
    }

    #[test]
    fn residence_shows_what_was_touched_and_no_guard() {
        let page = page_size();
        for kind in kinds() {
            // More pages than one call takes, touched on both sides of the seam.
            let mapping = Mapping::reserve(300 * page).unwrap();
            // SAFETY: only this test knows the mapping, and does not touch the guard.
            unsafe { mapping.guard(0, page, kind) }.unwrap();
            assert_eq!(mapping.first_resident(0, mapping.len()).unwrap(), None);
            for touched in [127, 128, 299] {
                touch(&mapping, touched * page);
            }
            assert_eq!(mapping.first_resident(0, mapping.len()).unwrap(), Some(127 * page));
            assert_eq!(mapping.first_resident(129 * page, 171 * page).unwrap(), Some(299 * page));
            assert_eq!(mapping.first_resident(129 * page, 170 * page).unwrap(), None);
            assert_eq!(mapping.count_resident(0, mapping.len()).unwrap(), 3);
            let mut map = Vec::new();
            mapping.resident(126 * page, 4 * page, &mut map).unwrap();
            assert_eq!(map, [false, true, true, false]);
            // SAFETY: nothing needs the 7s in those pages.
            unsafe { mapping.discard(0, 200 * page) }.unwrap();
            assert_eq!(mapping.first_resident(0, mapping.len()).unwrap(), Some(299 * page));
        }
    }

    #[test]
    fn a_dropped_mapping_is_gone_and_a_leaked_one_stays() {
        let reserve = || Mapping::reserve(page_size()).unwrap();
        let alias = |mapping: &Mapping| Mapping { base: mapping.base, len: mapping.len };
        // Only in a child: there no other thread takes the freed addresses meanwhile.
        let dropped = end_of(|| {
            let mapping = reserve();
            let ghost = mem::ManuallyDrop::new(alias(&mapping));
            drop(mapping);
            touch(&ghost, 0);
        });
        assert_eq!(dropped.signal(), Some(libc::SIGSEGV));
        let leaked = reserve();
        let owner = alias(&leaked);
        leaked.leak();
        touch(&owner, 0);
    }

    #[test]
    #[should_panic(expected = "is not whole pages of a mapping")]
    fn a_range_over_the_end_is_refused() {
        let page = page_size();
        let mapping = Mapping::reserve(page).unwrap();
        let _ = mapping.count_resident(page, page);
    }

    #[test]
    #[should_panic(expected = "is not whole pages of a mapping")]
    fn a_range_of_half_a_page_is_refused() {
        let page = page_size();
        let mapping = Mapping::reserve(page).unwrap();
        let _ = mapping.count_resident(page / 2, page / 2);
    }

    #[test]
    fn page_faults_count_the_pages_that_this_thread_touches() {
        let mapping = Mapping::reserve(100 * page_size()).unwrap();
        let before = page_faults();
        (0..100).for_each(|page| touch(&mapping, page * page_size()));
        assert!(page_faults() >= before + 100);
    }

    #[test]
    fn the_environment_chooses_the_guard() {
        assert_eq!(parse_guard(None), None);
        assert_eq!(parse_guard(Some(OsStr::new(""))), None);
        assert_eq!(parse_guard(Some(OsStr::new("install"))), Some(GuardKind::Install));
        assert_eq!(parse_guard(Some(OsStr::new("protect"))), Some(GuardKind::Protect));
    }

    #[test]
    #[should_panic(expected = "GREENLING_GUARD is \"none\": it must be `install` or `protect`")]
    fn a_misspelt_guard_is_one_clear_message() {
        parse_guard(Some(OsStr::new("none")));
    }
}
