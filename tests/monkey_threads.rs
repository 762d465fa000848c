//! Threads of `std` and C that are green threads: what `std` and pthreads(7) promise of a thread holds for them.
#![allow(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::{c_int, c_void};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::thread::JoinHandleExt;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, Builder};
use std::time::Duration;

use greenling::monkey::{self, Choice, NewThread, Part, is_patched};
use greenling::{hub, yield_now};

thread_local! {
    /// Whether threads that the current thread starts are OS threads.
    static OS_THREADS: Cell<bool> = const { Cell::new(false) };
    static VALUE: Cell<u32> = const { Cell::new(7) };
}

/// Patches everything; none where threads cannot have thread-locals of their own.
fn patched() -> Option<common::Guard> {
    greenling::thread::own_thread_locals_supported().inspect_err(|error| eprintln!("skipped: {error}")).ok()?;
    let guard = on_os_thread(common::guard);
    let choose = |_: &NewThread| if OS_THREADS.get() { Choice::OsThread } else { Choice::Green };
    // SAFETY: the tests hold nothing over a blocking call that other green threads could disturb.
    unsafe { monkey::patch_all() }.unwrap();
    // SAFETY: the same.
    unsafe { monkey::patch_locks() }.unwrap();
    // SAFETY: the same.
    unsafe { monkey::patch_threads(choose) }.unwrap();
    Some(guard)
}

/// Runs `f`, with the threads that it starts as OS threads.
fn on_os_thread<T>(f: impl FnOnce() -> T) -> T {
    OS_THREADS.set(true);
    let result = f();
    OS_THREADS.set(false);
    result
}

/// The kernel's number of the OS thread.
fn tid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// The number of the thread.
fn this() -> libc::pthread_t {
    // SAFETY: takes nothing.
    unsafe { libc::pthread_self() }
}

#[test]
fn a_thread_of_std_runs_on_the_os_thread_of_its_creator() {
    let Some(_guard) = patched() else { return };
    assert!(is_patched(Part::Threads));
    let before = hub::live_threads();
    let threads: Vec<_> = (0..100).map(|n| thread::spawn(move || (tid(), thread::current().id(), n))).collect();
    assert_eq!(hub::live_threads(), before + 100);
    let mut ids = HashSet::from([thread::current().id()]);
    for (n, thread) in threads.into_iter().enumerate() {
        let id = thread.thread().id();
        let (on, known, number) = thread.join().unwrap();
        assert_eq!((on, known, number), (tid(), id, n));
        ids.insert(id);
    }
    assert_eq!(ids.len(), 101);
    assert_eq!(hub::live_threads(), before);
}

#[test]
fn a_new_thread_never_runs_before_its_creator_waits() {
    let Some(_guard) = patched() else { return };
    let ran = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&ran);
    let thread = thread::spawn(move || theirs.fetch_add(1, Ordering::Relaxed));
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    assert!(!thread.is_finished());
    thread.join().unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn a_panic_is_the_error_of_the_join() {
    let Some(_guard) = patched() else { return };
    let thread: thread::JoinHandle<()> =
        Builder::new().name("fails".into()).spawn(|| panic!("as the test wants")).unwrap();
    let payload = thread.join().unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"as the test wants"));
    assert!(!thread::panicking());
}

#[test]
fn others_run_while_one_joins() {
    let Some(_guard) = patched() else { return };
    let ticks = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&ticks);
    let ticker = thread::spawn(move || {
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(1));
            theirs.fetch_add(1, Ordering::Relaxed);
        }
    });
    let middle = thread::spawn(move || ticker.join().unwrap());
    middle.join().unwrap();
    assert_eq!(ticks.load(Ordering::Relaxed), 20);
}

/// Destroyed at the end of its thread, slowly.
struct Slow(Arc<AtomicUsize>);

impl Drop for Slow {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(3));
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local!(static SLOW: RefCell<Option<Slow>> = const { RefCell::new(None) });

#[test]
fn thread_locals_are_fresh_and_destroyed_before_the_join_returns() {
    let Some(_guard) = patched() else { return };
    VALUE.set(1);
    let dropped = Arc::new(AtomicUsize::new(0));
    for round in 1..20 {
        let theirs = Arc::clone(&dropped);
        let thread = thread::spawn(move || {
            assert_eq!(VALUE.replace(2), 7);
            SLOW.set(Some(Slow(theirs)));
        });
        thread.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), round);
    }
    assert_eq!(VALUE.get(), 1);
}

#[test]
fn a_permit_given_before_the_park_is_found_by_it() {
    let Some(_guard) = patched() else { return };
    let thread = thread::spawn(|| {
        thread::park();
        tid()
    });
    thread.thread().unpark();
    assert_eq!(thread.join().unwrap(), tid());
}

#[test]
fn threads_that_wait_for_each_other_by_park_channels_and_locks_go_on() {
    let Some(_guard) = patched() else { return };
    let (send, receive) = mpsc::sync_channel::<usize>(0);
    let total = Arc::new((Mutex::new(0), Condvar::new()));
    let theirs = Arc::clone(&total);
    let adder = thread::spawn(move || {
        for n in receive {
            *theirs.0.lock().unwrap() += n;
            theirs.1.notify_all();
        }
    });
    let senders: Vec<_> = (0..10)
        .map(|_| {
            let send = send.clone();
            thread::spawn(move || (0..100).for_each(|n| send.send(n).unwrap()))
        })
        .collect();
    drop(send);
    let sum = total.1.wait_while(total.0.lock().unwrap(), |sum| *sum < 49_500).unwrap();
    assert_eq!(*sum, 49_500);
    drop(sum);
    senders.into_iter().chain([adder]).for_each(|thread| thread.join().unwrap());
    // Each parks until the other has had its turn.
    let main = thread::current();
    let pong = thread::spawn(move || {
        for _ in 0..100 {
            thread::park();
            main.unpark();
        }
    });
    for _ in 0..100 {
        pong.thread().unpark();
        thread::park();
    }
    pong.join().unwrap();
}

#[test]
fn scoped_threads_borrow_and_are_waited_for() {
    let Some(_guard) = patched() else { return };
    let mut parts = [1_u64, 2, 3, 4];
    let all = AtomicUsize::new(0);
    let on = thread::scope(|scope| {
        for part in &mut parts {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(*part));
                *part *= 10;
                all.fetch_add(1, Ordering::Relaxed);
            });
        }
        scope.spawn(tid).join().unwrap()
    });
    assert_eq!((parts, all.into_inner(), on), ([10, 20, 30, 40], 4, tid()));
}

/// The name that the kernel has for this OS thread.
fn os_name() -> String {
    fs::read_to_string(format!("/proc/self/task/{}/comm", tid())).unwrap()
}

/// The name that pthread_getname_np(3) returns.
fn name_of(thread: libc::pthread_t) -> String {
    let mut name = [0_u8; 16];
    // SAFETY: a buffer of 16 bytes.
    assert_eq!(unsafe { libc::pthread_getname_np(thread, name.as_mut_ptr().cast(), name.len()) }, 0);
    String::from_utf8(name.split(|byte| *byte == 0).next().unwrap().to_vec()).unwrap()
}

#[test]
fn a_name_is_the_green_threads_and_not_the_os_threads() {
    let Some(_guard) = patched() else { return };
    let before = os_name();
    let thread = Builder::new().name("worker".into()).spawn(|| {
        assert_eq!(thread::current().name(), Some("worker"));
        assert_eq!(greenling::thread::current().name(), Some("worker"));
        assert_eq!(name_of(this()), "worker");
        thread::sleep(Duration::from_millis(5));
        // prctl(2) takes what fits; pthread_setname_np(3) refuses the rest.
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NAME, c"a name of more than 15".as_ptr()) }, 0);
        // SAFETY: the same.
        assert_eq!(unsafe { libc::pthread_setname_np(this(), c"a name of more than 15".as_ptr()) }, libc::ERANGE);
        let mut name = [1_u8; 16];
        // SAFETY: a buffer of 16 bytes.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) }, 0);
        assert_eq!(&name, b"a name of more \0");
        assert!(hub::report().contains("\"a name of more \""), "{}", hub::report());
    });
    let thread = thread.unwrap();
    let number = thread.as_pthread_t();
    thread::sleep(Duration::from_millis(2));
    assert_eq!(name_of(number), "worker");
    // SAFETY: a C string, and a thread that was not joined.
    assert_eq!(unsafe { libc::pthread_setname_np(number, c"by another".as_ptr()) }, 0);
    assert_eq!(name_of(number), "by another");
    thread.join().unwrap();
    assert_eq!(os_name(), before);
    // One without a name has that of its OS thread, as a new OS thread has its creator's.
    let mine = name_of(this());
    assert_eq!(thread::spawn(|| name_of(this())).join().unwrap(), mine);
    assert_eq!(thread::spawn(|| thread::current().name().map(String::from)).join().unwrap(), None);
}

/// The bounds of the calling thread's stack, and its guard.
fn stack_of_this() -> (usize, usize, usize) {
    let mut attributes = MaybeUninit::uninit();
    let (mut low, mut len, mut guard) = (null_mut(), 0, 0);
    // SAFETY: a place for attributes; below, they are initialised, and there are places for the answers.
    assert_eq!(unsafe { libc::pthread_getattr_np(this(), attributes.as_mut_ptr()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut len) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::pthread_attr_getguardsize(attributes.as_ptr(), &raw mut guard) }, 0);
    // SAFETY: as above.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (low as usize, len, guard)
}

#[test]
fn the_stack_is_as_large_as_was_asked_for_and_is_known() {
    let Some(_guard) = patched() else { return };
    for size in [1, 64 << 10, 300_000, 4 << 20] {
        let thread = Builder::new().stack_size(size).spawn(move || {
            let here = std::hint::black_box(0_u8);
            let (low, len, guard) = stack_of_this();
            assert!(len >= size && guard > 0, "{len}");
            assert!((low..low + len).contains(&(&raw const here).addr()));
            // All of it can be used, but for a little. AddressSanitizer's frames are larger.
            const FRAME: usize = if cfg!(feature = "sanitizer") { 4096 } else { 1400 };
            fn deep(left: usize) -> usize {
                let frame = std::hint::black_box([0_u8; 1024]);
                if left < 8192 { 0 } else { 1 + deep(left - FRAME) + usize::from(frame[7]) }
            }
            deep(size)
        });
        thread.unwrap().join().unwrap();
    }
    let error = Builder::new().stack_size(1 << 42).spawn(|| ()).map(drop).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
}

#[test]
fn numbers_are_unique_and_those_that_the_creator_got() {
    let Some(_guard) = patched() else { return };
    let threads: Vec<_> = (0..200)
        .map(|_| {
            thread::spawn(|| {
                let mine = this();
                thread::sleep(Duration::from_millis(1));
                assert_eq!(this(), mine);
                mine
            })
        })
        .collect();
    yield_now();
    let numbers: HashSet<_> = threads.iter().map(JoinHandleExt::as_pthread_t).chain([this()]).collect();
    assert_eq!(numbers.len(), 201);
    for thread in threads {
        let number = thread.as_pthread_t();
        while !thread.is_finished() {
            thread::yield_now();
        }
        // Ended threads that were not joined keep theirs.
        assert_ne!(thread::spawn(this).join().unwrap(), number);
        assert_eq!(thread.join().unwrap(), number);
    }
}

#[test]
fn a_detached_thread_goes_on_and_leaves_nothing() {
    let Some(_guard) = patched() else { return };
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..50 {
        let theirs = Arc::clone(&done);
        drop(thread::spawn(move || {
            thread::sleep(Duration::from_millis(1));
            theirs.fetch_add(1, Ordering::Relaxed);
        }));
    }
    while done.load(Ordering::Relaxed) < 50 {
        thread::sleep(Duration::from_millis(1));
    }
    yield_now();
    assert_eq!((hub::live_threads(), hub::stack_stats().in_use), (0, 0));
}

#[test]
fn stacks_and_blocks_are_used_again_whichever_thread_joins() {
    let Some(_guard) = patched() else { return };
    let (send, receive) = mpsc::channel::<thread::JoinHandle<()>>();
    let joiner =
        on_os_thread(|| thread::spawn(move || receive.into_iter().map(|thread| thread.join().unwrap()).count()));
    let mut numbers = HashSet::new();
    for round in 0..3000 {
        let thread = thread::spawn(|| ());
        numbers.insert(thread.as_pthread_t());
        if round % 2 == 0 {
            send.send(thread).unwrap();
        } else {
            thread.join().unwrap();
        }
    }
    // Those of the other OS thread come back when a thread is created.
    drop(send);
    while !joiner.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(joiner.join().unwrap(), 1500);
    (0..100).for_each(|_| thread::spawn(|| ()).join().unwrap());
    assert_eq!(hub::stack_stats().in_use, 0);
    assert!(hub::stack_stats().made < 1600 && numbers.len() < 1600, "{:?}, {}", hub::stack_stats(), numbers.len());
}

#[test]
fn os_threads_and_other_hubs_join() {
    let Some(_guard) = patched() else { return };
    // Each ends when its joiner has come so far.
    let until = |flag: &Arc<AtomicUsize>| {
        let flag = Arc::clone(flag);
        thread::spawn(move || {
            while flag.load(Ordering::Relaxed) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            tid()
        })
    };
    let (begun, ticked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (plain, hubs, mine) = (until(&begun), until(&ticked), tid());
    let plain = on_os_thread(|| {
        thread::spawn(move || {
            begun.store(1, Ordering::Relaxed);
            (plain.join().unwrap(), tid())
        })
    });
    let hubs = on_os_thread(|| {
        thread::spawn(move || {
            // A hub, of which another thread runs during the join: the joined one waits for it.
            drop(greenling::spawn(move || ticked.store(1, Ordering::Relaxed)));
            (hubs.join().unwrap(), tid())
        })
    });
    for (seen, by) in [plain.join().unwrap(), hubs.join().unwrap()] {
        assert!(seen == mine && by != mine);
    }
}

#[test]
fn the_program_chooses_which_threads_are_green() {
    let Some(_guard) = patched() else { return };
    let os_thread = on_os_thread(|| thread::spawn(tid));
    assert_ne!(os_thread.join().unwrap(), tid());
    // An OS thread without a hub starts OS threads.
    let nested = on_os_thread(|| thread::spawn(|| (tid(), thread::spawn(tid).join().unwrap())));
    let (outer, inner) = nested.join().unwrap();
    assert!(outer != inner && inner != tid());
    // In a section that must not switch, a green thread could not be waited for.
    let apart = greenling::no_switch(|| thread::spawn(tid).join().unwrap());
    assert_ne!(apart, tid());
    // One with its own thread-locals chooses by its own.
    let chooser =
        thread::spawn(|| (thread::spawn(tid).join().unwrap(), on_os_thread(|| thread::spawn(tid)).join().unwrap()));
    let (green, os) = chooser.join().unwrap();
    assert!(green == tid() && os != tid());
}

#[test]
fn the_choice_sees_what_is_known_and_may_panic_or_start_threads() {
    let out = common::child("the_choice_sees_what_is_known_and_may_panic_or_start_threads", || {
        let Some(_guard) = patched() else { return };
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        let choose = |new: &NewThread| {
            SEEN.store(new.stack_size(), Ordering::Relaxed);
            assert!(!new.is_detached() && new.start_routine() != 0);
            match greenling::thread::current().name() {
                Some("panics") => panic!("as the test wants"),
                Some("starts") => {
                    let other = thread::spawn(tid).join().unwrap();
                    assert_ne!(other, tid());
                    Choice::Green
                }
                _ => Choice::Green,
            }
        };
        // SAFETY: as above.
        unsafe { monkey::patch_threads(choose) }.unwrap();
        assert_eq!(Builder::new().stack_size(1 << 20).spawn(tid).unwrap().join().unwrap(), tid());
        assert_eq!(SEEN.load(Ordering::Relaxed), 1 << 20);
        let by = |name: &str| {
            let creator = Builder::new().name(name.into()).spawn(|| thread::spawn(tid).join().unwrap());
            creator.unwrap().join().unwrap()
        };
        assert_eq!(by("plain"), tid());
        assert_eq!(by("starts"), tid());
        assert_ne!(by("panics"), tid());
    });
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn the_runtimes_own_threads_stay_os_threads() {
    let Some(_guard) = patched() else { return };
    assert_ne!(greenling::blocking(tid), tid());
    let others = greenling::Hubs::new(2).start(|_| tid());
    assert!(others.unwrap().join().into_iter().all(|other| other.unwrap() != tid()));
    // The name lookup is on an OS thread, too, and the monitor ticks.
    let thread = thread::spawn(|| std::net::ToSocketAddrs::to_socket_addrs("localhost:1").map(|found| found.count()));
    assert!(thread.join().unwrap().unwrap() > 0);
}

#[test]
fn as_many_processors_are_there_as_before() {
    let before = on_os_thread(|| thread::spawn(thread::available_parallelism)).join().unwrap().unwrap();
    let Some(_guard) = patched() else { return };
    assert_eq!(thread::spawn(thread::available_parallelism).join().unwrap().unwrap(), before);
}

// From here on by the C library's functions.

unsafe extern "C" {
    fn pthread_tryjoin_np(thread: libc::pthread_t, value: *mut *mut c_void) -> c_int;
    fn pthread_timedjoin_np(thread: libc::pthread_t, value: *mut *mut c_void, until: *const libc::timespec) -> c_int;
    fn pthread_cancel(thread: libc::pthread_t) -> c_int;
}

unsafe extern "C-unwind" {
    fn pthread_exit(value: *mut c_void) -> !;
}

/// A start routine.
type Routine = extern "C" fn(*mut c_void) -> *mut c_void;

/// Creates a thread as C does.
fn create(routine: Routine, argument: usize, attributes: *const libc::pthread_attr_t) -> libc::pthread_t {
    let mut thread = MaybeUninit::uninit();
    let argument = std::ptr::without_provenance_mut(argument);
    // SAFETY: a place for the number, and attributes that are null or initialised.
    assert_eq!(unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes, routine, argument) }, 0);
    // SAFETY: the call has written the number.
    unsafe { thread.assume_init() }
}

/// Joins as C does.
fn join(thread: libc::pthread_t) -> Result<usize, c_int> {
    let mut value = null_mut();
    // SAFETY: a thread that was not joined; a place for the value.
    match unsafe { libc::pthread_join(thread, &raw mut value) } {
        0 => Ok(value.addr()),
        error => Err(error),
    }
}

/// Sleeps so many milliseconds, and returns the argument and one.
extern "C" fn sleeps(argument: *mut c_void) -> *mut c_void {
    thread::sleep(Duration::from_millis(argument.addr() as u64));
    argument.wrapping_byte_add(1)
}

#[test]
fn joins_and_detaches_answer_as_the_c_librarys_do() {
    let Some(_guard) = patched() else { return };
    let thread = create(sleeps, 20, null());
    // SAFETY: here and below: a thread that was not joined.
    let try_join = |thread| unsafe { pthread_tryjoin_np(thread, null_mut()) };
    assert_eq!(try_join(thread), libc::EBUSY);
    let soon = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: as above; the time is long past.
    assert_eq!(unsafe { pthread_timedjoin_np(thread, null_mut(), &raw const soon) }, libc::ETIMEDOUT);
    // Of two that join, the second is refused.
    let first = greenling::spawn(move || join(thread));
    yield_now();
    assert_eq!(join(thread), Err(libc::EINVAL));
    // SAFETY: as above.
    assert_eq!(unsafe { libc::pthread_detach(thread) }, libc::EINVAL);
    assert_eq!(first.join().unwrap(), Ok(21));
    // A detached one cannot be joined, nor detached again.
    let thread = create(sleeps, 1, null());
    // SAFETY: as above.
    assert_eq!(unsafe { libc::pthread_detach(thread) }, 0);
    // SAFETY: as above.
    assert_eq!((unsafe { libc::pthread_detach(thread) }, join(thread)), (libc::EINVAL, Err(libc::EINVAL)));
    // Nothing waits for itself.
    extern "C" fn joins_itself(_: *mut c_void) -> *mut c_void {
        std::ptr::without_provenance_mut(join(this()).unwrap_err() as usize)
    }
    assert_eq!(join(create(joins_itself, 0, null())), Ok(libc::EDEADLK as usize));
    // An ended one is joined at once, also by a try.
    let thread = create(sleeps, 0, null());
    greenling::sleep(Duration::from_millis(2));
    assert_eq!(try_join(thread), 0);
    // SAFETY: as above.
    let cancel = |thread| unsafe { pthread_cancel(thread) };
    let thread = create(sleeps, 3, null());
    assert_eq!((cancel(thread), join(thread)), (libc::EOPNOTSUPP, Ok(4)));
}

#[test]
fn attributes_that_no_green_thread_can_have_make_an_os_thread() {
    let Some(_guard) = patched() else { return };
    extern "C" fn tells(_: *mut c_void) -> *mut c_void {
        std::ptr::without_provenance_mut(tid() as usize)
    }
    let with = |set: &dyn Fn(*mut libc::pthread_attr_t)| {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: a place for attributes.
        unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
        set(attributes.as_mut_ptr());
        join(create(tells, 0, attributes.as_ptr())).unwrap() as i32
    };
    assert_eq!(with(&|_| ()), tid());
    let stack = Box::leak(vec![0_u64; 1 << 16].into_boxed_slice());
    let (at, len) = (stack.as_mut_ptr().cast(), size_of_val(stack));
    assert_ne!(
        with(&|attributes| {
            // SAFETY: initialised attributes, and a stack that stays.
            assert_eq!(unsafe { libc::pthread_attr_setstack(attributes, at, len) }, 0);
        }),
        tid()
    );
}

#[test]
fn pthread_exit_unwinds_and_is_the_value() {
    let Some(_guard) = patched() else { return };
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counts;
    impl Drop for Counts {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
    unsafe extern "C-unwind" fn exits(argument: *mut c_void) -> *mut c_void {
        let _counts = Counts;
        thread::sleep(Duration::from_millis(1));
        // SAFETY: the frames of this thread can be unwound.
        unsafe { pthread_exit(argument) }
    }
    // SAFETY: the same type, but that it may unwind.
    let routine =
        unsafe { std::mem::transmute::<unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void, Routine>(exits) };
    assert_eq!(join(create(routine, 42, null())), Ok(42));
    assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
}

#[test]
fn a_signal_for_a_green_thread_goes_to_its_os_thread() {
    let Some(_guard) = patched() else { return };
    static GOT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn on_signal(_: c_int) {
        // SAFETY: takes nothing.
        GOT.store(unsafe { libc::gettid() } as usize, Ordering::Relaxed);
    }
    // SAFETY: the handler stores a number.
    unsafe { libc::signal(libc::SIGUSR2, on_signal as *const () as usize) };
    let thread = thread::spawn(|| {
        // SAFETY: the calling thread.
        assert_eq!(unsafe { libc::pthread_kill(this(), libc::SIGUSR2) }, 0);
        assert_eq!(GOT.swap(0, Ordering::Relaxed), tid() as usize);
        thread::sleep(Duration::from_millis(10));
    });
    yield_now();
    // SAFETY: a thread that was not joined.
    assert_eq!(unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR2) }, 0);
    assert_eq!(GOT.load(Ordering::Relaxed), tid() as usize);
    thread.join().unwrap();
}

#[test]
fn a_thread_that_a_shutdown_kills_before_its_first_turn_runs_all_the_same() {
    let Some(_guard) = patched() else { return };
    let (send, receive) = mpsc::channel();
    let os_thread = on_os_thread(|| {
        thread::spawn(move || {
            greenling::spawn(|| ()).join().unwrap();
            let thread = thread::spawn(|| {
                // A call that waits fails, and the thread goes on.
                let failed = io::Read::read(&mut std::os::unix::net::UnixStream::pair().unwrap().0, &mut [0]);
                failed.unwrap_err().raw_os_error()
            });
            send.send(thread).unwrap();
            assert_eq!(hub::shutdown(), 0);
        })
    });
    os_thread.join().unwrap();
    assert_eq!(receive.recv().unwrap().join().unwrap(), Some(libc::ECANCELED));
}

#[test]
fn a_join_of_a_thread_whose_hub_has_ended_fails_and_does_not_hang() {
    let Some(_guard) = patched() else { return };
    let (send, receive) = mpsc::channel();
    let os_thread = on_os_thread(|| {
        thread::spawn(move || {
            greenling::spawn(|| ()).join().unwrap();
            let never = create(sleeps, 1_000_000, null());
            let ended = create(sleeps, 0, null());
            while hub::live_threads() > 1 {
                greenling::sleep(Duration::from_millis(1));
            }
            send.send([never, ended]).unwrap();
        })
    });
    let [never, ended] = receive.recv().unwrap();
    // One that waits when the hub ends, and one that comes too late.
    let early = on_os_thread(|| thread::spawn(move || join(never)));
    os_thread.join().unwrap();
    let early = early.join().unwrap();
    assert!(early == Err(libc::ESRCH) || early == Err(libc::EINVAL), "{early:?}");
    assert_eq!(join(ended), Ok(1));
}

#[test]
fn a_join_that_can_never_end_is_a_deadlock() {
    let out = common::child("a_join_that_can_never_end_is_a_deadlock", || {
        let Some(_guard) = patched() else { return };
        // It waits for main, which waits for it.
        extern "C" fn waits(_: *mut c_void) -> *mut c_void {
            greenling::thread::park();
            null_mut()
        }
        assert_eq!(join(create(waits, 0, null())), Err(libc::EDEADLK));
    });
    assert!(out.status.success(), "{out:?}");
    assert!(common::stderr(&out).contains("deadlock"), "{out:?}");
}

#[test]
fn threads_that_still_run_end_with_main() {
    let out = common::child("threads_that_still_run_end_with_main", || {
        let Some(_guard) = patched() else { return };
        drop(thread::spawn(|| thread::sleep(Duration::from_secs(3600))));
        yield_now();
        drop(thread::spawn(|| unreachable!("never had a turn")));
    });
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn ten_thousand_threads_of_std_wait_on_one_os_thread() {
    let Some(_guard) = patched() else { return };
    let threads: Vec<_> = (0..10_000)
        .map(|n: u64| {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                (n, tid())
            })
        })
        .collect();
    let sum: u64 =
        threads.into_iter().map(|thread| thread.join().unwrap()).map(|(n, on)| n * u64::from(on == tid())).sum();
    assert_eq!(sum, 49_995_000);
}
