//! The words inside the C library's locks that say what kind of lock one is, and which thread has it.
//!
//! Programs have locks compiled in (`PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP` and the like), so a mutex cannot change:
//!
//! ```text
//!   pthread_mutex_t   | lock | count | owner | users | kind | ..      count and owner: of the kinds that have an owner
//!                     0      4       8       12      16
//! ```
//!
//! Of the other locks, the words are found by experiment: two locks are made that differ in one property, and compared.
//! (The condition variable of glibc 2.41 is another one than that of 2.36, for example.) At the end each lock is tried:
//! does the C library itself obey what is written there? A lock of which the words are not as expected is never
//! touched, and its waits stay as they are: [`Words`] says which are known.
//!
//! Invariant pthread-1: a pointer to a lock is that of a lock which was initialised and not destroyed. Its words are
//! read and written by atomic operations, as the C library does. Upheld by the callers of the functions here, which
//! have the pointer from C code.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::{MaybeUninit, size_of};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use libc::{
    PTHREAD_BARRIER_SERIAL_THREAD, clockid_t, pthread_barrier_t, pthread_cond_t, pthread_mutex_t, pthread_once_t,
    pthread_rwlock_t, sem_t,
};

use super::c_library;
use super::raw::{CLOCK_MONOTONIC, EBUSY, EPERM, timespec};

/// Where a mutex has its count of locks.
const MUTEX_COUNT: usize = 4;
/// Where a mutex has the id of its owner.
const MUTEX_OWNER: usize = 8;
/// Where a mutex has its kind.
const MUTEX_KIND: usize = 16;

/// The bits of the kind of a mutex that only the C library serves: robust, priority inheritance and protection, shared
/// with other processes.
const MUTEX_FOREIGN: u32 = 16 | 32 | 64 | 128;

/// A pattern of bits in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    /// Where the word is, in bytes.
    at: usize,
    /// Which bits of the word.
    bits: u32,
}

/// The words that are known; none of a lock that is not as expected.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words {
    /// The kind, owner and count of a mutex are where they should be, and obeyed.
    pub(crate) mutex: bool,
    /// What a condition variable was made with.
    condvar: Option<CondvarWords>,
    /// What a lock of readers and writers was made with.
    rwlock: Option<RwlockWords>,
    /// Whether a semaphore is shared with other processes.
    semaphore: Option<Field>,
    /// The number of threads that meet at a barrier, and whether it is shared.
    barrier: Option<[Field; 2]>,
    /// A `pthread_once_t` says in the known way whether it runs or is done.
    pub(crate) once: bool,
}

/// The words of a condition variable.
#[derive(Clone, Copy, Debug)]
struct CondvarWords {
    /// Set if times are those of the monotonic clock.
    monotonic: Field,
    /// Set if it is shared with other processes.
    shared: Field,
}

/// The words of a lock of readers and writers.
#[derive(Clone, Copy, Debug)]
struct RwlockWords {
    /// Not zero if it is shared with other processes.
    shared: Field,
    /// Where the id of the writer is.
    writer: usize,
}

/// The kind of a mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MutexKind {
    /// Any thread may unlock it, and it does not know its owner.
    Plain,
    /// Its owner may lock it again.
    Recursive,
    /// Its owner is told that it has the lock.
    ErrorCheck,
    /// One for the C library alone, or one that is not understood.
    Foreign,
}

/// Returns what is known, found out at the first call.
pub(crate) fn words() -> &'static Words {
    static WORDS: OnceLock<Words> = OnceLock::new();
    WORDS.get_or_init(|| Words {
        mutex: mutex_is_as_expected(),
        condvar: condvar_words(),
        rwlock: rwlock_words(),
        semaphore: semaphore_word(),
        barrier: barrier_words(),
        once: once_is_as_expected(),
    })
}

/// Returns a word of a lock.
///
/// # Safety
/// Invariant pthread-1, and the word is inside.
#[inline]
unsafe fn word<'a, T>(lock: *mut T, at: usize) -> &'a AtomicU32 {
    // SAFETY: the caller's promise; the words are aligned.
    unsafe { AtomicU32::from_ptr(lock.wrapping_byte_add(at).cast()) }
}

/// Reads a field of a lock.
///
/// # Safety
/// As [`word`].
#[inline]
unsafe fn field<T>(lock: *mut T, field: Field) -> u32 {
    // SAFETY: the caller's promise. Relaxed, here and below: what a lock was made with does not change; an owner
    // matters only to the thread that wrote it.
    unsafe { word(lock, field.at) }.load(Ordering::Relaxed) & field.bits
}

impl Words {
    /// Returns the kind of a mutex.
    ///
    /// # Safety
    /// Invariant pthread-1.
    #[inline]
    pub(crate) unsafe fn mutex_kind(&self, mutex: *mut pthread_mutex_t) -> MutexKind {
        if !self.mutex {
            return MutexKind::Foreign;
        }
        // SAFETY: Invariant pthread-1.
        let kind = unsafe { word(mutex, MUTEX_KIND) }.load(Ordering::Relaxed);
        match (kind & MUTEX_FOREIGN, kind as c_int & 3) {
            // The fourth kind, the adaptive one, is a plain one that spins.
            (0, libc::PTHREAD_MUTEX_NORMAL | 3) => MutexKind::Plain,
            (0, libc::PTHREAD_MUTEX_RECURSIVE) => MutexKind::Recursive,
            (0, libc::PTHREAD_MUTEX_ERRORCHECK) => MutexKind::ErrorCheck,
            _ => MutexKind::Foreign,
        }
    }

    /// Returns whether the times of a condition variable are monotonic; none for one that the C library alone serves.
    ///
    /// # Safety
    /// Invariant pthread-1.
    #[inline]
    pub(crate) unsafe fn condvar_is_monotonic(&self, condvar: *mut pthread_cond_t) -> Option<bool> {
        let words = self.condvar?;
        // SAFETY: Invariant pthread-1.
        let shared = unsafe { field(condvar, words.shared) } != 0;
        // SAFETY: Invariant pthread-1.
        (!shared).then(|| unsafe { field(condvar, words.monotonic) } != 0)
    }

    /// Reports whether a lock of readers and writers is of this process alone, and understood.
    ///
    /// # Safety
    /// Invariant pthread-1.
    #[inline]
    pub(crate) unsafe fn rwlock_is_private(&self, rwlock: *mut pthread_rwlock_t) -> bool {
        // SAFETY: Invariant pthread-1.
        self.rwlock.is_some_and(|words| unsafe { field(rwlock, words.shared) } == 0)
    }

    /// Returns the word with the id of a lock's writer.
    ///
    /// # Safety
    /// Invariant pthread-1; the lock is understood.
    #[inline]
    unsafe fn writer<'a>(&self, rwlock: *mut pthread_rwlock_t) -> Option<&'a AtomicU32> {
        // SAFETY: Invariant pthread-1.
        self.rwlock.map(|words| unsafe { word(rwlock, words.writer) })
    }

    /// Returns the id of the thread that has the lock for writing; 0 for none.
    ///
    /// # Safety
    /// Invariant pthread-1.
    #[inline]
    pub(crate) unsafe fn rwlock_writer(&self, rwlock: *mut pthread_rwlock_t) -> i32 {
        // SAFETY: Invariant pthread-1.
        unsafe { self.writer(rwlock) }.map_or(0, |writer| writer.load(Ordering::Relaxed) as i32)
    }

    /// Names another writer. The caller has the lock for writing.
    ///
    /// # Safety
    /// Invariant pthread-1.
    #[inline]
    pub(crate) unsafe fn set_rwlock_writer(&self, rwlock: *mut pthread_rwlock_t, id: i32) {
        // SAFETY: Invariant pthread-1.
        if let Some(writer) = unsafe { self.writer(rwlock) } {
            writer.store(id as u32, Ordering::Relaxed);
        }
    }

    /// Reports whether a semaphore is of this process alone, and understood.
    ///
    /// # Safety
    /// Invariant pthread-1.
    #[inline]
    pub(crate) unsafe fn semaphore_is_private(&self, semaphore: *mut sem_t) -> bool {
        // SAFETY: Invariant pthread-1.
        self.semaphore.is_some_and(|shared| unsafe { field(semaphore, shared) } == 0)
    }

    /// Returns how many threads meet at a barrier; none for one that the C library alone serves.
    ///
    /// # Safety
    /// Invariant pthread-1.
    #[inline]
    pub(crate) unsafe fn barrier_count(&self, barrier: *mut pthread_barrier_t) -> Option<u32> {
        let [count, shared] = self.barrier?;
        // SAFETY: Invariant pthread-1.
        let shared = unsafe { field(barrier, shared) } != 0;
        // SAFETY: Invariant pthread-1.
        (!shared).then(|| unsafe { field(barrier, count) })
    }
}

/// Returns the id of the thread that has a mutex of a kind with an owner; 0 for none.
///
/// # Safety
/// Invariant pthread-1.
#[inline]
pub(crate) unsafe fn mutex_owner(mutex: *mut pthread_mutex_t) -> i32 {
    // SAFETY: Invariant pthread-1.
    unsafe { word(mutex, MUTEX_OWNER) }.load(Ordering::Relaxed) as i32
}

/// Names another owner. The caller has the lock.
///
/// # Safety
/// Invariant pthread-1.
#[inline]
pub(crate) unsafe fn set_mutex_owner(mutex: *mut pthread_mutex_t, id: i32) {
    // SAFETY: Invariant pthread-1.
    unsafe { word(mutex, MUTEX_OWNER) }.store(id as u32, Ordering::Relaxed);
}

/// Returns how often the owner has locked a recursive mutex.
///
/// # Safety
/// Invariant pthread-1.
#[inline]
pub(crate) unsafe fn mutex_count(mutex: *mut pthread_mutex_t) -> u32 {
    // SAFETY: Invariant pthread-1.
    unsafe { word(mutex, MUTEX_COUNT) }.load(Ordering::Relaxed)
}

/// Sets how often the owner, the caller, has locked a recursive mutex.
///
/// # Safety
/// Invariant pthread-1.
#[inline]
pub(crate) unsafe fn set_mutex_count(mutex: *mut pthread_mutex_t, count: u32) {
    // SAFETY: Invariant pthread-1.
    unsafe { word(mutex, MUTEX_COUNT) }.store(count, Ordering::Relaxed);
}

/// The states of a `pthread_once_t`, besides the generation of forks in the bits above.
pub(crate) mod once {
    /// Some thread runs the routine.
    pub(crate) const RUNS: u32 = 1;
    /// The routine has returned.
    pub(crate) const DONE: u32 = 2;
}

/// Returns the word of a `pthread_once_t`.
///
/// # Safety
/// Invariant pthread-1.
#[inline]
pub(crate) unsafe fn once_word<'a>(control: *mut pthread_once_t) -> &'a AtomicU32 {
    // SAFETY: Invariant pthread-1: the type is one word.
    unsafe { word(control, 0) }
}

/// Returns the kernel's id of the OS thread.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: the call takes nothing.
    unsafe { libc::gettid() }
}

/// A lock for experiments, on the C heap so that it stays where it is.
type Sample<T> = Box<MaybeUninit<T>>;

/// Makes a lock of zeroed memory.
fn sample<T>(init: impl FnOnce(*mut T) -> c_int) -> Option<Sample<T>> {
    let mut lock = Box::new(MaybeUninit::<T>::zeroed());
    (init(lock.as_mut_ptr()) == 0).then_some(lock)
}

/// Returns the words of a lock.
fn words_of<T>(lock: &mut Sample<T>) -> Vec<u32> {
    let at = lock.as_mut_ptr();
    // SAFETY: the words are inside, and of zeroed memory, which `init` may have overwritten.
    (0..size_of::<T>() / 4).map(|index| unsafe { word(at, 4 * index) }.load(Ordering::Relaxed)).collect()
}

/// Returns the only word in which two locks differ, and the bits that differ.
fn difference<T>(one: &mut Sample<T>, other: &mut Sample<T>) -> Option<Field> {
    let (one, other) = (words_of(one), words_of(other));
    let mut differ = one.iter().zip(&other).enumerate().filter(|(_, (one, other))| one != other);
    let (index, (one, other)) = differ.next()?;
    differ.next().is_none().then_some(Field { at: 4 * index, bits: one ^ other })
}

/// Makes a mutex with one property set by `set`.
fn sample_mutex(set: impl FnOnce(*mut libc::pthread_mutexattr_t) -> c_int) -> Option<Sample<pthread_mutex_t>> {
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    // SAFETY: memory for the attributes.
    unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) };
    if set(attributes.as_mut_ptr()) != 0 {
        return None;
    }
    // SAFETY: memory for a mutex, and attributes.
    sample(|mutex| unsafe { libc::pthread_mutex_init(mutex, attributes.as_ptr()) })
}

/// Reports whether the kind of a mutex is where it should be, for all kinds and properties.
fn kinds_are_as_expected() -> bool {
    let probe = Words { mutex: true, ..Words::default() };
    let kind_of = |mutex: Option<Sample<pthread_mutex_t>>| {
        // SAFETY: Invariant pthread-1: just made.
        mutex.map(|mut mutex| unsafe { probe.mutex_kind(mutex.as_mut_ptr()) })
    };
    // SAFETY: in all of these: attributes that were initialised.
    let of_type = |kind| kind_of(sample_mutex(|at| unsafe { libc::pthread_mutexattr_settype(at, kind) }));
    let shared = libc::PTHREAD_PROCESS_SHARED;
    // SAFETY: as above.
    let shared = kind_of(sample_mutex(|at| unsafe { libc::pthread_mutexattr_setpshared(at, shared) }));
    // SAFETY: as above.
    let robust = sample_mutex(|at| unsafe { libc::pthread_mutexattr_setrobust(at, libc::PTHREAD_MUTEX_ROBUST) });
    let inherit = libc::PTHREAD_PRIO_INHERIT;
    // SAFETY: as above.
    let inherit = sample_mutex(|at| unsafe { libc::pthread_mutexattr_setprotocol(at, inherit) });
    // A property that the system does not have cannot be met either.
    let foreign = |kind: Option<MutexKind>| kind.is_none_or(|kind| kind == MutexKind::Foreign);
    of_type(libc::PTHREAD_MUTEX_NORMAL) == Some(MutexKind::Plain)
        && of_type(libc::PTHREAD_MUTEX_RECURSIVE) == Some(MutexKind::Recursive)
        && of_type(libc::PTHREAD_MUTEX_ERRORCHECK) == Some(MutexKind::ErrorCheck)
        && of_type(3) == Some(MutexKind::Plain)
        && [shared, kind_of(robust), kind_of(inherit)].into_iter().all(foreign)
}

/// Reports whether a mutex is as the picture says, and whether the C library obeys an owner that is written there.
fn mutex_is_as_expected() -> bool {
    let kind = libc::PTHREAD_MUTEX_RECURSIVE;
    // SAFETY: attributes that were initialised.
    let Some(mut mutex) = sample_mutex(|at| unsafe { libc::pthread_mutexattr_settype(at, kind) }) else { return false };
    let at = mutex.as_mut_ptr();
    // SAFETY: here and below: Invariant pthread-1, a mutex of this function.
    let state = || (unsafe { mutex_owner(at) }, unsafe { mutex_count(at) });
    // SAFETY: as above.
    let lock = || unsafe { c_library::pthread_mutex_trylock(at) };
    // SAFETY: as above.
    let unlock = || unsafe { c_library::pthread_mutex_unlock(at) };
    let me = thread_id();
    if !kinds_are_as_expected() || state() != (0, 0) || (lock(), lock(), state()) != (0, 0, (me, 2)) {
        return false;
    }
    // Another owner's: neither locked again nor unlocked by this thread.
    // SAFETY: as above.
    unsafe { set_mutex_owner(at, -1) };
    let refused = (lock(), unlock(), state()) == (EBUSY, EPERM, (-1, 2));
    // A count that is written there counts.
    // SAFETY: as above.
    unsafe { set_mutex_owner(at, me) };
    // SAFETY: as above.
    unsafe { set_mutex_count(at, 1) };
    refused && (unlock(), state()) == (0, (0, 0)) && unlock() == EPERM
}

/// Finds the words of a condition variable.
fn condvar_words() -> Option<CondvarWords> {
    let made = |clock: c_int, shared: c_int| {
        let mut attributes = MaybeUninit::<libc::pthread_condattr_t>::uninit();
        let at = attributes.as_mut_ptr();
        // SAFETY: memory for the attributes.
        unsafe { libc::pthread_condattr_init(at) };
        // SAFETY: attributes that were initialised.
        unsafe { libc::pthread_condattr_setclock(at, clock) };
        // SAFETY: as above.
        unsafe { libc::pthread_condattr_setpshared(at, shared) };
        // SAFETY: memory for a condition variable, and attributes.
        sample(|condvar: *mut pthread_cond_t| unsafe { libc::pthread_cond_init(condvar, at) })
    };
    let mut plain = made(libc::CLOCK_REALTIME, libc::PTHREAD_PROCESS_PRIVATE)?;
    let mut monotonic = made(CLOCK_MONOTONIC, libc::PTHREAD_PROCESS_PRIVATE)?;
    let mut shared = made(libc::CLOCK_REALTIME, libc::PTHREAD_PROCESS_SHARED)?;
    // What is zero needs no attributes: it is what `PTHREAD_COND_INITIALIZER` says.
    if words_of(&mut plain).iter().any(|word| *word != 0) {
        return None;
    }
    let monotonic = difference(&mut plain, &mut monotonic).filter(|field| field.bits.is_power_of_two())?;
    let shared = difference(&mut plain, &mut shared).filter(|field| field.bits.is_power_of_two())?;
    (monotonic != shared).then_some(CondvarWords { monotonic, shared })
}

/// Finds the words of a lock of readers and writers, and tries whether the C library obeys the writer.
fn rwlock_words() -> Option<RwlockWords> {
    let made = |shared: c_int| {
        let mut attributes = MaybeUninit::<libc::pthread_rwlockattr_t>::uninit();
        let at = attributes.as_mut_ptr();
        // SAFETY: memory for the attributes.
        unsafe { libc::pthread_rwlockattr_init(at) };
        // SAFETY: attributes that were initialised.
        unsafe { libc::pthread_rwlockattr_setpshared(at, shared) };
        // SAFETY: memory for a lock, and attributes.
        sample(|lock: *mut pthread_rwlock_t| unsafe { libc::pthread_rwlock_init(lock, at) })
    };
    let mut plain = made(libc::PTHREAD_PROCESS_PRIVATE)?;
    let shared = difference(&mut plain, &mut made(libc::PTHREAD_PROCESS_SHARED)?)?;
    let shared = Field { bits: u32::MAX, ..shared };
    // The word in which the writer's id appears.
    let at = plain.as_mut_ptr();
    // SAFETY: here and below: Invariant pthread-1, a lock of this function.
    let locked = unsafe { c_library::pthread_rwlock_trywrlock(at) } == 0;
    let me = thread_id() as u32;
    let mut found = words_of(&mut plain).into_iter().enumerate().filter(|(_, word)| *word == me);
    let writer = 4 * found.next().filter(|_| locked)?.0;
    if found.next().is_some() {
        return None;
    }
    let words = Words { rwlock: Some(RwlockWords { shared, writer }), ..Words::default() };
    // The writer is told that it has the lock; another thread waits, here until a time that is over.
    let past = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above.
    let read = || unsafe { c_library::pthread_rwlock_timedrdlock(at, &raw const past) };
    let told = read() == libc::EDEADLK;
    // SAFETY: as above.
    unsafe { words.set_rwlock_writer(at, -1) };
    let waits = read() == libc::ETIMEDOUT;
    // SAFETY: as above.
    unsafe { words.set_rwlock_writer(at, me as i32) };
    // SAFETY: as above.
    let unlocked = unsafe { c_library::pthread_rwlock_unlock(at) } == 0;
    // SAFETY: as above.
    let free = unlocked && unsafe { words.rwlock_writer(at) } == 0;
    // SAFETY: as above.
    let again = unsafe { c_library::pthread_rwlock_tryrdlock(at) } == 0;
    // SAFETY: as above.
    let ends = unsafe { c_library::pthread_rwlock_unlock(at) } == 0;
    (told && waits && free && again && ends).then_some(words.rwlock).flatten()
}

/// Finds the word of a semaphore that says whether it is shared.
fn semaphore_word() -> Option<Field> {
    // SAFETY: memory for a semaphore.
    let made = |shared| sample(|semaphore: *mut sem_t| unsafe { libc::sem_init(semaphore, shared, 3) });
    let shared = difference(&mut made(0)?, &mut made(1)?)?;
    let word = words_of(&mut made(0)?)[shared.at / 4];
    // Zero is private, as it is in a semaphore with a value; another convention is not understood.
    (word == 0).then_some(Field { bits: u32::MAX, ..shared })
}

/// Finds the words of a barrier.
fn barrier_words() -> Option<[Field; 2]> {
    let made = |count, shared| {
        let mut attributes = MaybeUninit::<libc::pthread_barrierattr_t>::uninit();
        let at = attributes.as_mut_ptr();
        // SAFETY: memory for the attributes.
        unsafe { libc::pthread_barrierattr_init(at) };
        // SAFETY: attributes that were initialised.
        unsafe { libc::pthread_barrierattr_setpshared(at, shared) };
        // SAFETY: memory for a barrier, and attributes.
        sample(|barrier: *mut pthread_barrier_t| unsafe { libc::pthread_barrier_init(barrier, at, count) })
    };
    let private = libc::PTHREAD_PROCESS_PRIVATE;
    let count = difference(&mut made(0x0155, private)?, &mut made(0x02aa, private)?)?;
    let shared = difference(&mut made(3, private)?, &mut made(3, libc::PTHREAD_PROCESS_SHARED)?)?;
    let mut plain = made(7, private)?;
    let words = words_of(&mut plain);
    let known = words[count.at / 4] == 7 && words[shared.at / 4] == 0;
    let whole = |field| Field { bits: u32::MAX, ..field };
    known.then_some([whole(count), whole(shared)])
}

thread_local! {
    /// The control word that [`note_state`] looks at. No destructor.
    static CONTROL: std::cell::Cell<*mut pthread_once_t> = const { std::cell::Cell::new(ptr::null_mut()) };
    /// What it has found there. No destructor.
    static FOUND: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Notes the state of a control word, as the routine of `pthread_once`.
extern "C-unwind" fn note_state() {
    // SAFETY: Invariant pthread-1: set by `running_state`, which has not returned.
    FOUND.set(unsafe { once_word(CONTROL.get()) }.load(Ordering::Relaxed));
}

/// Returns the word of a `pthread_once_t` of which the routine runs, in this process: it has the generation of forks in
/// it.
pub(crate) fn running_state() -> u32 {
    let mut control = libc::PTHREAD_ONCE_INIT;
    let before = CONTROL.replace(&raw mut control);
    // SAFETY: Invariant pthread-1: a control word of this function.
    unsafe { c_library::pthread_once(&raw mut control, note_state) };
    CONTROL.set(before);
    FOUND.get()
}

/// Reports whether a control word goes through the expected states.
fn once_is_as_expected() -> bool {
    let mut control = libc::PTHREAD_ONCE_INIT;
    let runs = running_state();
    // SAFETY: Invariant pthread-1: a control word of this function.
    let word = unsafe { once_word(&raw mut control) };
    let begins = word.load(Ordering::Relaxed) == 0;
    // The C library believes that the routine has run.
    word.store(once::DONE, Ordering::Relaxed);
    FOUND.set(0);
    // SAFETY: Invariant pthread-1: a control word of this function.
    let ended = unsafe { c_library::pthread_once(&raw mut control, note_state) } == 0;
    begins && runs & 3 == once::RUNS && ended && FOUND.get() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_locks_of_this_c_library_are_understood() {
        let words = words();
        assert!(words.mutex && words.once, "{words:?}");
        assert!(words.condvar.is_some() && words.rwlock.is_some(), "{words:?}");
        assert!(words.semaphore.is_some() && words.barrier.is_some(), "{words:?}");
    }

    #[test]
    fn locks_that_differ_in_two_words_are_not_understood() {
        let made = |words: [u32; 3]| {
            sample(|at: *mut [u32; 3]| {
                // SAFETY: memory of this type.
                unsafe { at.write(words) };
                0
            })
            .unwrap()
        };
        assert_eq!(difference(&mut made([1, 2, 3]), &mut made([1, 6, 3])), Some(Field { at: 4, bits: 4 }));
        assert_eq!(difference(&mut made([1, 2, 3]), &mut made([1, 6, 4])), None);
        assert_eq!(difference(&mut made([1, 2, 3]), &mut made([1, 2, 3])), None);
    }

    #[test]
    fn what_is_not_understood_is_left_to_the_c_library() {
        let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
        let mut condvar = libc::PTHREAD_COND_INITIALIZER;
        let mut rwlock = libc::PTHREAD_RWLOCK_INITIALIZER;
        let none = Words::default();
        // SAFETY: here and below: Invariant pthread-1.
        assert_eq!(unsafe { none.mutex_kind(&raw mut mutex) }, MutexKind::Foreign);
        // SAFETY: as above.
        assert_eq!(unsafe { none.condvar_is_monotonic(&raw mut condvar) }, None);
        // SAFETY: as above.
        assert!(!unsafe { none.rwlock_is_private(&raw mut rwlock) });
        // SAFETY: as above.
        assert_eq!(unsafe { words().condvar_is_monotonic(&raw mut condvar) }, Some(false));
    }
}
