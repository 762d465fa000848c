//! Functions of the C library for which there is no system call, found behind the program's own of the same names.
//!
//! With the feature `monkey` this crate defines the program's `getnameinfo` and the like. The C library's are found
//! through `dlsym(RTLD_NEXT)`, that is, as the next definition after the program's, once each:
//!
//! ```text
//!   C code --> getnameinfo (monkey/names.rs) --> c_library::getnameinfo --> [NEXT] --> libc.so: getnameinfo
//! ```
//!
//! Invariant c-library-1: arguments go to the C library as they came, and the caller of a function here guarantees what
//! the manual page demands of them. Upheld by the callers, which have them from C code, or made them.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use libc::{
    NI_NUMERICHOST, PTHREAD_CREATE_DETACHED, PTHREAD_EXPLICIT_SCHED, hostent, pthread_attr_t, pthread_t,
};

use libc::{
    clockid_t, pthread_barrier_t, pthread_cond_t, pthread_mutex_t, pthread_once_t, pthread_rwlock_t, sem_t, timespec,
};

use super::raw::{sockaddr, socklen_t};

/// A start routine of a thread.
type Routine = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// The codes of h_errno that are used here (netdb.h).
pub(crate) mod host_error {
    use std::ffi::c_int;

    /// The lookup did not take place: errno says why.
    pub(crate) const NETDB_INTERNAL: c_int = -1;
}

/// Defines one function for each of the C library's, with its manual page.
macro_rules! functions {
    ($($page:literal $abi:literal $name:ident($($arg:ident: $kind:ty),*) -> $result:ty;)*) => {$(
        #[doc = concat!("Calls the C library's ", $page, ".")]
        ///
        /// # Safety
        /// Invariant c-library-1.
        #[inline]
        #[allow(clippy::too_many_arguments)] // as many as the C library's has
        pub(crate) unsafe fn $name($($arg: $kind),*) -> $result {
            static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
            type Function = unsafe extern $abi fn($($kind),*) -> $result;
            const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("a name has no zero inside"),
            };
            let function = next(&NEXT, NAME);
            // SAFETY: the C library's function of this name has this type (its manual page).
            let function = unsafe { std::mem::transmute::<*mut c_void, Function>(function) };
            // SAFETY: the caller's promise (Invariant c-library-1).
            unsafe { function($($arg),*) }
        }
    )*};
}

functions! {
    "getrandom(2)" "C" getrandom(place: *mut c_void, len: usize, flags: c_uint) -> isize;
    "getnameinfo(3)" "C" getnameinfo(
        address: *const sockaddr, len: socklen_t, host: *mut c_char, host_len: socklen_t,
        service: *mut c_char, service_len: socklen_t, flags: c_int
    ) -> c_int;
    "gethostbyname(3)" "C" gethostbyname2_r(
        name: *const c_char, family: c_int, host: *mut hostent, buffer: *mut c_char, len: usize,
        result: *mut *mut hostent, error: *mut c_int
    ) -> c_int;
    "gethostbyname(3)" "C" gethostbyname_r(
        name: *const c_char, host: *mut hostent, buffer: *mut c_char, len: usize,
        result: *mut *mut hostent, error: *mut c_int
    ) -> c_int;
    "gethostbyname(3)" "C" gethostbyaddr_r(
        address: *const c_void, len: socklen_t, kind: c_int, host: *mut hostent, buffer: *mut c_char, room: usize,
        result: *mut *mut hostent, error: *mut c_int
    ) -> c_int;
    "pthread_join(3)" "C" pthread_join(thread: pthread_t, result: *mut *mut c_void) -> c_int;
    "pthread_tryjoin_np(3)" "C" pthread_tryjoin_np(thread: pthread_t, result: *mut *mut c_void) -> c_int;
    "gethostbyname(3)" "C" gethostbyname(name: *const c_char) -> *mut hostent;
    "gethostbyname(3)" "C" gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent;
    "gethostbyname(3)" "C" gethostbyaddr(address: *const c_void, len: socklen_t, kind: c_int) -> *mut hostent;
    "pthread_mutex_lock(3)" "C" pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int;
    "pthread_mutex_trylock(3)" "C" pthread_mutex_trylock(mutex: *mut pthread_mutex_t) -> c_int;
    "pthread_mutex_unlock(3)" "C" pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int;
    "pthread_mutex_timedlock(3)" "C" pthread_mutex_timedlock(
        mutex: *mut pthread_mutex_t, time: *const timespec
    ) -> c_int;
    "pthread_mutex_clocklock(3)" "C" pthread_mutex_clocklock(
        mutex: *mut pthread_mutex_t, clock: clockid_t, time: *const timespec
    ) -> c_int;
    "pthread_cond_wait(3)" "C" pthread_cond_wait(condvar: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int;
    "pthread_cond_timedwait(3)" "C" pthread_cond_timedwait(
        condvar: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, time: *const timespec
    ) -> c_int;
    "pthread_cond_clockwait(3)" "C" pthread_cond_clockwait(
        condvar: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, clock: clockid_t, time: *const timespec
    ) -> c_int;
    "pthread_cond_signal(3)" "C" pthread_cond_signal(condvar: *mut pthread_cond_t) -> c_int;
    "pthread_cond_broadcast(3)" "C" pthread_cond_broadcast(condvar: *mut pthread_cond_t) -> c_int;
    "pthread_rwlock_rdlock(3)" "C" pthread_rwlock_rdlock(rwlock: *mut pthread_rwlock_t) -> c_int;
    "pthread_rwlock_wrlock(3)" "C" pthread_rwlock_wrlock(rwlock: *mut pthread_rwlock_t) -> c_int;
    "pthread_rwlock_tryrdlock(3)" "C" pthread_rwlock_tryrdlock(rwlock: *mut pthread_rwlock_t) -> c_int;
    "pthread_rwlock_trywrlock(3)" "C" pthread_rwlock_trywrlock(rwlock: *mut pthread_rwlock_t) -> c_int;
    "pthread_rwlock_unlock(3)" "C" pthread_rwlock_unlock(rwlock: *mut pthread_rwlock_t) -> c_int;
    "pthread_rwlock_timedrdlock(3)" "C" pthread_rwlock_timedrdlock(
        rwlock: *mut pthread_rwlock_t, time: *const timespec
    ) -> c_int;
    "pthread_rwlock_timedwrlock(3)" "C" pthread_rwlock_timedwrlock(
        rwlock: *mut pthread_rwlock_t, time: *const timespec
    ) -> c_int;
    "pthread_rwlock_clockrdlock(3)" "C" pthread_rwlock_clockrdlock(
        rwlock: *mut pthread_rwlock_t, clock: clockid_t, time: *const timespec
    ) -> c_int;
    "pthread_rwlock_clockwrlock(3)" "C" pthread_rwlock_clockwrlock(
        rwlock: *mut pthread_rwlock_t, clock: clockid_t, time: *const timespec
    ) -> c_int;
    "sem_wait(3)" "C" sem_wait(semaphore: *mut sem_t) -> c_int;
    "sem_trywait(3)" "C" sem_trywait(semaphore: *mut sem_t) -> c_int;
    "sem_post(3)" "C" sem_post(semaphore: *mut sem_t) -> c_int;
    "sem_timedwait(3)" "C" sem_timedwait(semaphore: *mut sem_t, time: *const timespec) -> c_int;
    "sem_clockwait(3)" "C" sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, time: *const timespec) -> c_int;
    "pthread_barrier_wait(3)" "C" pthread_barrier_wait(barrier: *mut pthread_barrier_t) -> c_int;
    "pthread_once(3)" "C-unwind" pthread_once(control: *mut pthread_once_t, routine: extern "C-unwind" fn()) -> c_int;
    "pthread_create(3)" "C" pthread_create(
        thread: *mut pthread_t, attributes: *const pthread_attr_t, routine: Routine, argument: *mut c_void
    ) -> c_int;
    "pthread_tryjoin_np(3)" "C" pthread_timedjoin_np(
        thread: pthread_t, value: *mut *mut c_void, until: *const timespec
    ) -> c_int;
    "pthread_tryjoin_np(3)" "C" pthread_clockjoin_np(
        thread: pthread_t, value: *mut *mut c_void, clock: clockid_t, until: *const timespec
    ) -> c_int;
    "pthread_detach(3)" "C" pthread_detach(thread: pthread_t) -> c_int;
    "pthread_cancel(3)" "C" pthread_cancel(thread: pthread_t) -> c_int;
    "pthread_setname_np(3)" "C" pthread_setname_np(thread: pthread_t, name: *const c_char) -> c_int;
    "pthread_setname_np(3)" "C" pthread_getname_np(thread: pthread_t, buffer: *mut c_char, len: usize) -> c_int;
    "pthread_getattr_np(3)" "C" pthread_getattr_np(thread: pthread_t, attributes: *mut pthread_attr_t) -> c_int;
    "pthread_attr_init(3)" "C" pthread_attr_init(attributes: *mut pthread_attr_t) -> c_int;
    "pthread_attr_setstacksize(3)" "C" pthread_attr_getstacksize(
        attributes: *const pthread_attr_t, size: *mut usize
    ) -> c_int;
    "pthread_attr_setstack(3)" "C" pthread_attr_getstack(
        attributes: *const pthread_attr_t, low: *mut *mut c_void, len: *mut usize
    ) -> c_int;
    "pthread_attr_setstack(3)" "C" pthread_attr_setstack(
        attributes: *mut pthread_attr_t, low: *mut c_void, len: usize
    ) -> c_int;
    "pthread_attr_setguardsize(3)" "C" pthread_attr_setguardsize(attributes: *mut pthread_attr_t, len: usize) -> c_int;
    "pthread_attr_setdetachstate(3)" "C" pthread_attr_getdetachstate(
        attributes: *const pthread_attr_t, state: *mut c_int
    ) -> c_int;
    "pthread_attr_setdetachstate(3)" "C" pthread_attr_setdetachstate(
        attributes: *mut pthread_attr_t, state: c_int
    ) -> c_int;
    "pthread_attr_setinheritsched(3)" "C" pthread_attr_getinheritsched(
        attributes: *const pthread_attr_t, inherits: *mut c_int
    ) -> c_int;
    "pthread_exit(3)" "C-unwind" pthread_exit(value: *mut c_void) -> !;
}

/// Returns the number of the calling thread.
#[inline]
pub(crate) fn this_pthread() -> pthread_t {
    // SAFETY: the function has no condition (pthread_self(3)).
    unsafe { libc::pthread_self() }
}

/// Returns the attributes of a thread that is created without any. Nothing of them is to be freed.
pub(crate) fn default_attributes() -> pthread_attr_t {
    let mut attributes = MaybeUninit::<pthread_attr_t>::zeroed();
    // SAFETY: a place for attributes (pthread_attr_init(3)). The function cannot fail on Linux.
    unsafe { pthread_attr_init(attributes.as_mut_ptr()) };
    // SAFETY: all bits are numbers and pointers, and zeroed bytes are some.
    unsafe { attributes.assume_init() }
}

/// Finds the next definition of `name` after the program's, and caches the address in `cell`.
#[inline]
fn next(cell: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    // Relaxed: the address guards no other data, and a second lookup finds the same.
    let known = cell.load(Ordering::Relaxed);
    if known.is_null() { find(cell, name) } else { known }
}

/// Looks `name` up for the first time.
#[cold]
#[inline(never)]
fn find(cell: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    // Of the condition variables glibc has two kinds on x86-64, and older ones find the wrong one without the version.
    let version = if name.to_bytes().starts_with(b"pthread_cond_") { c"GLIBC_2.3.2" } else { c"" };
    // SAFETY: the names are C strings; the lookup touches no memory of this crate (dlvsym(3)).
    let mut found = unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), version.as_ptr()) };
    if found.is_null() {
        // SAFETY: as above (dlsym(3)).
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    }
    // The C library has all of them; clock waits since 2.30.
    if found.is_null() {
        std::process::abort();
    }
    cell.store(found, Ordering::Relaxed);
    found
}

/// Returns the kernel's number of an OS thread; none if it has ended. The C library tells the number to nothing but the
/// thread itself; but the thread's CPU clock, which it tells, is made of that number (clock_gettime(2)).
///
/// # Safety
/// The thread has not been joined or detached.
pub(crate) unsafe fn tid_of(thread: pthread_t) -> Option<u32> {
    let mut clock = 0;
    // SAFETY: the caller's promise; the function writes one number.
    if unsafe { libc::pthread_getcpuclockid(thread, &raw mut clock) } != 0 {
        return None;
    }
    // The lowest three bits say that it is the clock of a thread.
    u32::try_from(!(clock >> 3)).ok().filter(|tid| *tid != 0)
}

/// Sets the h_errno of this OS thread.
pub(crate) fn set_host_error(error: c_int) {
    unsafe extern "C" {
        fn __h_errno_location() -> *mut c_int;
    }
    // SAFETY: the function has no condition (netdb.h).
    let at = unsafe { __h_errno_location() };
    // SAFETY: the address is good as long as the OS thread runs, and nothing holds a reference to it.
    unsafe { at.write(error) };
}
