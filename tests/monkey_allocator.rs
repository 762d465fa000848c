//! An allocator with locks of C, as jemalloc is: refused by `patch_locks`, unless it is declared as an `Allocator`; then
//! its waits let nothing else run, also at the end of a thread and before a fork.
#![allow(unsafe_code)]

mod common;
#[path = "common/own.rs"]
mod own_threads;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use greenling::monkey::{self, Allocator, Part, PatchError};
use greenling::yield_now;
use libc::{pthread_key_t, pthread_mutex_t};
use own_threads::{own, patched_locks};

/// The allocator has no locks.
const CALM: u32 = 0;
/// The allocator has locks, and is not declared.
const BARE: u32 = 1;
/// The allocator has locks, and is declared.
const DECLARED: u32 = 2;
/// C's malloc has locks, too.
const MALLOC: u32 = 3;

/// Which of these it is.
static MODE: AtomicU32 = AtomicU32::new(CALM);

/// A mutex of C.
struct Mutex(UnsafeCell<pthread_mutex_t>);

// SAFETY: made to be used by several threads.
unsafe impl Sync for Mutex {}

impl Mutex {
    const fn new() -> Mutex {
        Mutex(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER))
    }

    /// Locks as jemalloc does: by a try, then by a wait. Counts the waits.
    fn lock(&self) {
        // SAFETY: a mutex that lives for ever.
        if unsafe { libc::pthread_mutex_trylock(self.0.get()) } != 0 {
            WAITS.fetch_add(1, SeqCst);
            // SAFETY: as above.
            unsafe { libc::pthread_mutex_lock(self.0.get()) };
        }
    }

    fn unlock(&self) {
        // SAFETY: as above.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
    }
}

/// What each allocation locks, in this order.
static OUTER: Mutex = Mutex::new();
static INNER: Mutex = Mutex::new();

/// How many calls found a lock held.
static WAITS: AtomicU32 = AtomicU32::new(0);

/// The turns that another green thread has had.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// The turns that it had during the allocator's last wait at the end of a thread, and before a fork.
static TURNS_AT_END: AtomicU64 = AtomicU64::new(u64::MAX);
static TURNS_AT_FORK: AtomicU64 = AtomicU64::new(u64::MAX);

/// Whether a fork locks.
static LOCKS_AT_FORK: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether the end of this thread locks.
    static LOCKS_AT_END: Cell<bool> = const { Cell::new(false) };
}

/// The allocator's pthread key, plus one.
static KEY: AtomicU32 = AtomicU32::new(0);

/// Locks and unlocks both mutexes. Returns the turns meanwhile.
fn pass_locks() -> u64 {
    let before = TURNS.load(SeqCst);
    OUTER.lock();
    INNER.lock();
    let turns = TURNS.load(SeqCst) - before;
    INNER.unlock();
    OUTER.unlock();
    turns
}

/// The end of what the allocator has for a thread.
extern "C" fn give_up(_: *mut c_void) {
    if LOCKS_AT_END.get() {
        TURNS_AT_END.store(pass_locks(), SeqCst);
    }
}

/// The allocator's preparation of a fork.
extern "C" fn before_fork() {
    if LOCKS_AT_FORK.load(SeqCst) {
        TURNS_AT_FORK.store(pass_locks(), SeqCst);
    }
}

/// An allocator with two locks, and a value for each thread.
#[derive(Default)]
struct Locking;

// SAFETY: the memory is that of `System`.
unsafe impl GlobalAlloc for Locking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(key) = KEY.load(SeqCst).checked_sub(1) {
            // SAFETY: the key is never deleted.
            unsafe { libc::pthread_setspecific(key as pthread_key_t, ptr::dangling::<c_void>()) };
        }
        pass_locks();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The allocator of this program, by mode.
struct Switchable;

#[global_allocator]
static ALLOCATOR: Switchable = Switchable;

// SAFETY: the memory is that of `System` in each mode.
unsafe impl GlobalAlloc for Switchable {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match MODE.load(SeqCst) {
            // SAFETY: the caller's promise.
            CALM => unsafe { System.alloc(layout) },
            // SAFETY: as above.
            BARE => unsafe { Locking.alloc(layout) },
            // SAFETY: as above.
            _ => unsafe { Allocator(Locking).alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { Allocator(Locking).dealloc(memory, layout) }
    }
}

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
}

/// Stands in for C's malloc in this program. (AddressSanitizer has one of its own.)
#[cfg_attr(not(feature = "sanitizer"), unsafe(no_mangle))]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    if MODE.load(SeqCst) == MALLOC {
        pass_locks();
    }
    // SAFETY: any size may be asked for.
    unsafe { __libc_malloc(size) }
}

/// What `patch_locks` said to an allocator with locks: not declared, and declared with C's malloc having some, too.
fn refusals() -> [Option<PatchError>; 2] {
    static REFUSALS: OnceLock<[Option<PatchError>; 2]> = OnceLock::new();
    *REFUSALS.get_or_init(|| {
        // As an allocator does it, before the runtime's own.
        // SAFETY: functions of the program.
        assert_eq!(unsafe { libc::pthread_atfork(Some(before_fork), None, None) }, 0);
        let mut key: pthread_key_t = 0;
        // SAFETY: a place for the key, and a function of the program.
        assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(give_up)) }, 0);
        KEY.store(key + 1, SeqCst);
        let answers = [BARE, MALLOC].map(|mode| {
            MODE.store(mode, SeqCst);
            // SAFETY: the code of the tests relies on nothing over a wait.
            let answer = unsafe { monkey::patch_locks() };
            MODE.store(CALM, SeqCst);
            assert!(!monkey::is_patched(Part::Locks) || answer.is_ok());
            answer.err()
        });
        MODE.store(DECLARED, SeqCst);
        answers
    })
}

/// Patches the locks in a program whose allocator is declared. None where there are no thread-locals of a thread's own.
/// One test at a time: all have the allocator in common.
fn patched() -> Option<(common::Guard, std::sync::MutexGuard<'static, ()>)> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    refusals();
    let guard = patched_locks()?;
    Some((guard, ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)))
}

/// Calls `wait` while an OS thread holds the inner lock, until something has waited for the lock for a while.
fn while_held<T>(wait: impl FnOnce() -> T) -> T {
    static MAY_BEGIN: AtomicBool = AtomicBool::new(false);
    static HELD: AtomicBool = AtomicBool::new(false);
    let holder = std::thread::spawn(|| {
        // The start of a thread allocates, on both sides.
        while !MAY_BEGIN.swap(false, SeqCst) {
            std::hint::spin_loop();
        }
        INNER.lock();
        let waits = WAITS.load(SeqCst);
        HELD.store(true, SeqCst);
        // Nothing is allocated here meanwhile.
        while WAITS.load(SeqCst) == waits {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_millis(20));
        HELD.store(false, SeqCst);
        INNER.unlock();
    });
    MAY_BEGIN.store(true, SeqCst);
    while !HELD.load(SeqCst) {
        std::hint::spin_loop();
    }
    let result = wait();
    holder.join().unwrap();
    result
}

/// Runs `f` while an allocation takes no locks, so that nothing waits for one in place of what is tested.
fn without_locks<T>(f: impl FnOnce() -> T) -> T {
    MODE.store(CALM, SeqCst);
    let result = f();
    MODE.store(DECLARED, SeqCst);
    result
}

/// Runs `f` while another green thread counts its turns, and lets it begin.
fn beside_counter(f: impl FnOnce()) {
    static ENDED: AtomicBool = AtomicBool::new(false);
    ENDED.store(false, SeqCst);
    let counter = own(|| {
        while !ENDED.load(SeqCst) {
            TURNS.fetch_add(1, SeqCst);
            yield_now();
        }
    });
    let begun = TURNS.load(SeqCst);
    while TURNS.load(SeqCst) == begun {
        yield_now();
    }
    f();
    ENDED.store(true, SeqCst);
    counter.join().unwrap();
}

/// Lets others run until `flag` is set.
fn yield_until(flag: &AtomicBool) {
    while !flag.load(SeqCst) {
        yield_now();
    }
}

/// Allocates. Returns the turns of the other green thread meanwhile.
fn allocate() -> u64 {
    let before = TURNS.load(SeqCst);
    let memory = black_box(Box::new([0_u64; 4]));
    let turns = TURNS.load(SeqCst) - before;
    drop(memory);
    turns
}

#[test]
fn an_allocator_with_locks_is_refused_unless_it_is_declared() {
    let malloc = if cfg!(feature = "sanitizer") { None } else { Some(PatchError::Malloc) };
    assert_eq!(refusals(), [Some(PatchError::Allocator), malloc]);
    drop(patched_locks());
    assert!(monkey::is_patched(Part::Locks));
    assert!(PatchError::Allocator.to_string().contains("greenling::monkey::Allocator"));
}

#[test]
fn a_wait_in_the_allocator_lets_nothing_else_run() {
    let Some(_guard) = patched() else { return };
    beside_counter(|| {
        for _ in 0..5 {
            assert_eq!(while_held(allocate), 0, "in main");
            assert_eq!(own(|| while_held(allocate)).join().unwrap(), 0, "in a green thread");
        }
    });
}

#[test]
fn a_thread_is_spawned_while_the_allocator_waits() {
    let Some(_guard) = patched() else { return };
    beside_counter(|| {
        for _ in 0..5 {
            let large = [1_u8; 3000]; // the closure is boxed
            assert_eq!(while_held(|| own(move || large.len())).join().unwrap(), 3000);
        }
    });
}

#[test]
fn the_end_of_the_allocators_state_of_a_thread_lets_nothing_else_run() {
    let Some(_guard) = patched() else { return };
    beside_counter(|| {
        static IS_KNOWN: AtomicBool = AtomicBool::new(false);
        static MAY_END: AtomicBool = AtomicBool::new(false);
        let thread = own(|| {
            allocate();
            LOCKS_AT_END.set(true);
            IS_KNOWN.store(true, SeqCst);
            yield_until(&MAY_END);
        });
        yield_until(&IS_KNOWN);
        let end = || {
            MAY_END.store(true, SeqCst);
            while TURNS_AT_END.load(SeqCst) == u64::MAX {
                yield_now();
            }
        };
        let waits = WAITS.load(SeqCst);
        without_locks(|| while_held(end));
        thread.join().unwrap();
        assert_eq!(WAITS.load(SeqCst) - waits, 1);
        assert_eq!(TURNS_AT_END.load(SeqCst), 0);
    });
}

#[test]
fn the_allocators_preparation_of_a_fork_lets_nothing_else_run() {
    let Some(_guard) = patched() else { return };
    beside_counter(|| {
        let fork = || {
            LOCKS_AT_FORK.store(true, SeqCst);
            // SAFETY: the child ends at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: ends the process.
                unsafe { libc::_exit(0) };
            }
            LOCKS_AT_FORK.store(false, SeqCst);
            child
        };
        let waits = WAITS.load(SeqCst);
        let child = own(move || without_locks(|| while_held(fork))).join().unwrap();
        assert_eq!(WAITS.load(SeqCst) - waits, 1);
        let mut status: c_int = -1;
        // SAFETY: a child of this process, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!((TURNS_AT_FORK.load(SeqCst), status), (0, 0));
        // The mark was taken back: this thread waits in the hub again.
        assert!(own(|| TURNS.load(SeqCst)).join().unwrap() > 0);
    });
}
