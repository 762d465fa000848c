//! Threads with thread-locals of their own: what std promises of a thread holds for them.
// A test forks.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenling::thread::{Builder, JoinHandle, own_thread_locals_supported};
use greenling::{Greenlet, sleep, spawn, thread, yield_now};

thread_local! {
    static CONST: Cell<u32> = const { Cell::new(7) };
    static LAZY: RefCell<Vec<u32>> = RefCell::new(vec![1, 2, 3]);
}

/// Spawns a thread with thread-locals of its own.
#[track_caller]
fn own<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().own_thread_locals().spawn(f).unwrap()
}

/// Waits until `value` is `wanted`.
fn wait_for(value: &AtomicUsize, wanted: usize) {
    while value.load(Ordering::Relaxed) != wanted {
        sleep(Duration::from_millis(1));
    }
}

/// Reports, once for each test, that there is nothing to test.
fn unsupported() -> bool {
    own_thread_locals_supported().inspect_err(|error| eprintln!("skipped: {error}")).is_err()
}

/// Runs the test of this name in a process of its own. Returns false there.
fn ran_in_own_process(name: &str) -> bool {
    let here = std::env::var_os("OWN_PROCESS").is_some();
    if !here {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = child.args(["--exact", name, "--nocapture"]).env("OWN_PROCESS", "1").status().unwrap();
        assert!(ended.success());
    }
    !here
}

#[test]
fn c_is_told_the_stack_on_which_a_thread_runs() {
    if unsupported() {
        return;
    }
    let inside = own(|| {
        let local = 0_u8;
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: takes nothing.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: a place for the attributes, which are filled on success (pthread_getattr_np(3)).
        assert_eq!(unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) }, 0);
        let (mut low, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: filled above; places for the results.
        assert_eq!(unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut size) }, 0);
        // SAFETY: filled above, and not used again.
        unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
        (low.addr()..low.addr() + size).contains(&(&raw const local).addr()) && size < 1 << 30
    });
    assert!(inside.join().unwrap());
}

#[test]
fn each_thread_has_fresh_thread_locals_over_all_its_switches() {
    if unsupported() {
        return;
    }
    CONST.set(1);
    LAZY.with_borrow_mut(Vec::clear);
    let threads: Vec<_> = (0..50)
        .map(|number| {
            own(move || {
                assert_eq!(CONST.get(), 7);
                for round in 0..20 {
                    CONST.set(number * 100 + round);
                    LAZY.with_borrow_mut(|list| list.push(number));
                    yield_now();
                    assert_eq!(CONST.get(), number * 100 + round);
                }
                LAZY.with_borrow(|list| (list.len(), list[22]))
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), (23, number as u32));
    }
    assert_eq!((CONST.get(), LAZY.with_borrow(Vec::len)), (1, 0));
}

#[test]
fn threads_of_both_kinds_take_turns_and_see_their_own() {
    if unsupported() {
        return;
    }
    CONST.set(3);
    let mut threads = Vec::new();
    for number in 0..40 {
        let body = move |mine: u32| {
            for _ in 0..50 {
                assert_eq!(CONST.get(), mine);
                if number % 3 == 0 { sleep(Duration::from_micros(50)) } else { yield_now() }
            }
        };
        threads.push(if number % 2 == 0 {
            own(move || {
                CONST.set(number + 1000);
                body(number + 1000);
            })
        } else {
            spawn(move || body(3))
        });
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn std_knows_each_of_them_as_another_thread() {
    if unsupported() {
        return;
    }
    let main = std::thread::current().id();
    let ids: HashSet<_> = (0..20).map(|_| own(|| std::thread::current().id()).join().unwrap()).chain([main]).collect();
    assert_eq!(ids.len(), 21);
    let name =
        Builder::new().name("worker".into()).own_thread_locals().spawn(|| thread::current().name().map(String::from));
    assert_eq!(name.unwrap().join().unwrap().as_deref(), Some("worker"));
}

/// Counts its drop, and waits in it.
struct Slow(Arc<AtomicUsize>);

impl Drop for Slow {
    fn drop(&mut self) {
        assert!(CONST.try_with(Cell::get).is_ok(), "a value without destructor is there to the end");
        sleep(Duration::from_millis(2));
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local!(static SLOW: RefCell<Option<Slow>> = const { RefCell::new(None) });

#[test]
fn destructors_of_thread_locals_run_and_may_wait_before_the_join_returns() {
    if unsupported() {
        return;
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let counter = Arc::clone(&dropped);
            own(move || SLOW.set(Some(Slow(counter))))
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        thread.join().unwrap();
        assert!(dropped.load(Ordering::Relaxed) > number);
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 10);
}

#[test]
fn a_killed_thread_destroys_its_thread_locals_too() {
    if unsupported() {
        return;
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let thread = own(move || {
        SLOW.set(Some(Slow(counter)));
        thread::park();
    });
    yield_now();
    assert!(thread.kill());
    assert!(thread.join().unwrap_err().is_killed());
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn a_shutdown_ends_it_although_the_destructor_of_a_thread_local_would_wait() {
    if unsupported() {
        return;
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    for number in 0..3 {
        let counter = Arc::clone(&dropped);
        drop(own(move || {
            SLOW.set(Some(Slow(counter)));
            if number == 0 { sleep(Duration::from_secs(100)) } else { thread::park() }
        }));
    }
    yield_now();
    greenling::hub::shutdown();
}

#[test]
fn a_fork_leaves_it_the_only_thread_of_the_child_which_cannot_switch() {
    // The panic of the child takes locks of std, which other tests may hold when it forks.
    if unsupported() || ran_in_own_process("a_fork_leaves_it_the_only_thread_of_the_child_which_cannot_switch") {
        return;
    }
    let status = own(|| {
        CONST.set(11);
        // SAFETY: the child calls nothing but what the test is about, and `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let refused = catch_unwind(AssertUnwindSafe(|| sleep(Duration::from_millis(1)))).is_err();
            let code = if refused && CONST.get() == 11 { 42 } else { 1 };
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        CONST.set(12);
        sleep(Duration::from_millis(1));
        let mut status = 0;
        // SAFETY: the status is live for the call.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(CONST.get(), 12);
        libc::WEXITSTATUS(status)
    });
    assert_eq!(status.join().unwrap(), 42);
}

#[test]
fn a_spawn_that_fails_is_an_error_and_drops_the_closure() {
    if unsupported() {
        return;
    }
    for _ in 0..100 {
        let held = Arc::new(AtomicUsize::new(0));
        let (mine, theirs) = (Arc::clone(&held), Arc::clone(&held));
        let builder = || Builder::new().stack_size(usize::MAX).own_thread_locals();
        assert!(builder().spawn(move || drop(mine)).is_err());
        thread::scope(|scope| assert!(builder().spawn_scoped(scope, move || drop(theirs)).is_err()));
        assert_eq!(Arc::strong_count(&held), 1);
    }
    // The next one works, with fresh thread-locals.
    assert_eq!(own(|| CONST.get()).join().unwrap(), 7);
}

#[test]
fn light_threads_share_the_thread_locals_of_the_thread_that_spawned_them() {
    if unsupported() {
        return;
    }
    CONST.set(5);
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let (go, theirs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (may_go, has_seen) = (Arc::clone(&go), Arc::clone(&theirs));
    let thread = own(move || {
        CONST.set(50);
        SLOW.set(Some(Slow(counter)));
        let local = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&local);
        let child = spawn(move || {
            assert_eq!(CONST.get(), 50);
            theirs.set(1);
            wait_for(&may_go, 1);
            has_seen.store(CONST.get() as usize, Ordering::Relaxed);
        });
        yield_now();
        assert_eq!(local.get(), 1);
        drop(child);
    });
    thread.join().unwrap();
    assert_eq!(dropped.load(Ordering::Relaxed), 0, "the child still uses them");
    go.store(1, Ordering::Relaxed);
    // The last one destroys them.
    wait_for(&dropped, 1);
    assert_eq!(theirs.load(Ordering::Relaxed), 50, "they are there after the thread itself has ended");
    assert_eq!(CONST.get(), 5);
}

#[test]
fn a_greenlet_belongs_to_the_thread_that_made_it() {
    if unsupported() {
        return;
    }
    let thread = own(|| {
        CONST.set(9);
        let greenlet = Greenlet::new(|n: u32| {
            assert!(!Greenlet::<u32>::current().is_main());
            let n = Greenlet::switch_to_parent(n + CONST.get());
            yield_now();
            n + CONST.get()
        });
        assert!(Greenlet::<u32>::current().is_main());
        assert!(Greenlet::<u32>::main() == Greenlet::current());
        (greenlet.switch(1), greenlet.switch(2), greenlet.is_dead())
    });
    assert_eq!(thread.join().unwrap(), (10, 11, true));
    assert!(Greenlet::<u32>::current().is_main());
}

#[test]
fn each_counts_its_own_panics_and_may_wait_while_it_unwinds() {
    if unsupported() {
        return;
    }
    struct Waits(Arc<AtomicUsize>);
    impl Drop for Waits {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            sleep(Duration::from_millis(5));
            yield_now();
            assert!(std::thread::panicking());
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let waited = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&waited);
    let other = own(|| {
        for _ in 0..10 {
            assert!(!std::thread::panicking());
            sleep(Duration::from_millis(1));
        }
    });
    let failing = own(move || {
        let _waits = Waits(counter);
        panic!("as the test wants");
    });
    assert!(!failing.join().unwrap_err().is_killed());
    assert!(!std::thread::panicking());
    other.join().unwrap();
    assert_eq!(waited.load(Ordering::Relaxed), 1);
}

#[test]
fn a_kill_that_comes_while_it_unwinds_is_not_raised() {
    if unsupported() {
        return;
    }
    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            sleep(Duration::from_millis(10));
        }
    }
    let thread = own(|| {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _waits = Waits;
            panic!("as the test wants");
        }));
        assert!(caught.is_err());
        // Now it is.
        sleep(Duration::from_secs(10));
    });
    sleep(Duration::from_millis(3));
    assert!(thread.kill());
    assert!(thread.join().unwrap_err().is_killed());
}

#[test]
fn a_callback_runs_with_the_thread_locals_of_the_thread_that_registered_it() {
    if unsupported() {
        return;
    }
    CONST.set(21);
    let seen = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&seen);
    let thread = own(|| CONST.set(1));
    thread.on_finish(move |_| theirs.set(CONST.get()));
    thread.join().unwrap();
    yield_now();
    assert_eq!(seen.get(), 21);
    // And the other way round: registered by one with its own, on a light thread's end.
    let seen = own(|| {
        CONST.set(33);
        let seen = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&seen);
        let child = spawn(|| ());
        child.on_finish(move |_| theirs.set(CONST.get()));
        child.join().unwrap();
        yield_now();
        seen.get()
    });
    assert_eq!(seen.join().unwrap(), 33);
}

#[test]
fn scoped_threads_can_have_their_own_and_borrow_what_is_sync() {
    if unsupported() {
        return;
    }
    CONST.set(2);
    let total = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..5 {
            let total = &total;
            let thread = Builder::new().own_thread_locals().spawn_scoped(scope, move || {
                CONST.set(number);
                yield_now();
                total.fetch_add(CONST.get() as usize, Ordering::Relaxed);
            });
            drop(thread.unwrap());
        }
    });
    assert_eq!((total.into_inner(), CONST.get()), (10, 2));
}

#[test]
fn a_million_bytes_of_blocks_serve_any_number_of_threads() {
    // The other tests use memory, too.
    if unsupported() || ran_in_own_process("a_million_bytes_of_blocks_serve_any_number_of_threads") {
        return;
    }
    let run = |count: usize| (0..count).for_each(|_| own(|| LAZY.with_borrow_mut(|list| list.push(1))).join().unwrap());
    run(100);
    let before = resident();
    run(if cfg!(debug_assertions) { 20_000 } else { 1_000_000 });
    let grown = resident().saturating_sub(before);
    if cfg!(feature = "sanitizer") {
        eprintln!("skipped: AddressSanitizer keeps for a while what was freed");
        return;
    }
    assert!(grown < 1 << 20, "{grown} bytes");
}

/// Returns how many bytes of this process are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A value that is not `Send`: it may be used and dropped only with the thread-locals that it was made with.
struct Bound {
    /// The mark of its thread.
    mark: u32,
    /// Counts the drops.
    drops: Arc<AtomicUsize>,
    /// Makes it so.
    local: Rc<Cell<u32>>,
}

thread_local!(static MARK: Cell<u32> = const { Cell::new(0) });

impl Bound {
    fn new(drops: &Arc<AtomicUsize>) -> Bound {
        Bound { mark: MARK.get(), drops: Arc::clone(drops), local: Rc::new(Cell::new(0)) }
    }

    /// Uses the value.
    fn touch(&self) {
        assert_eq!(MARK.get(), self.mark, "used by another thread");
        self.local.set(self.local.get() + 1);
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if MARK.get() != self.mark {
            // A panic in a destructor might be swallowed.
            eprintln!("a value of {} was dropped by {}", self.mark, MARK.get());
            std::process::abort();
        }
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

greenling::green_local!(static INHERITED: RefCell<Option<Bound>> = RefCell::new(None));
thread_local!(static HANDLES: RefCell<Vec<JoinHandle<Bound>>> = const { RefCell::new(Vec::new()) });

/// Fills a thread with values that are not `Send`, in all places that keep values. Returns how many it made.
fn fill(mark: u32, drops: &Arc<AtomicUsize>) -> usize {
    MARK.set(mark);
    let bound = || Bound::new(drops);
    let hold = |bound: Bound| move || bound.touch();
    // Closures: of a thread that waits, of one that never starts, and of greenlets in both states.
    let waits = hold(bound());
    drop(spawn(move || {
        waits();
        thread::park();
        waits();
    }));
    let greenlet = Greenlet::new({
        let body = hold(bound());
        move |n: u32| {
            body();
            Greenlet::switch_to_parent(n)
        }
    });
    assert_eq!(greenlet.switch(3), 3);
    let unstarted = Greenlet::new({
        let body = hold(bound());
        move |n: u32| {
            body();
            n
        }
    });
    // Results: of a thread that nothing joins, and of one whose handle lies in a thread-local.
    let (first, second) = (bound(), bound());
    std::mem::forget(spawn(move || first));
    HANDLES.with_borrow_mut(|handles| handles.push(spawn(move || second)));
    yield_now();
    let never_starts = hold(bound());
    drop(spawn(never_starts));
    // Green-local values, a tracer, a hook on the end of another thread, with its own and without.
    INHERITED.set(Some(bound()));
    let own_dies = own(thread::park);
    let light_dies = spawn(thread::park);
    for thread in [&own_dies, &light_dies] {
        let hook = hold(bound());
        thread.on_finish(move |_| hook());
    }
    let traced = hold(bound());
    drop(greenling::settrace(Some(Box::new(move |_| traced()))));
    std::mem::forget((greenlet, unstarted, own_dies, light_dies));
    9
}

#[test]
fn what_is_not_send_is_dropped_with_the_thread_locals_it_was_made_with() {
    if unsupported() {
        return;
    }
    for shut_down in [true, false] {
        let drops = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&drops);
        let os_thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for mark in 1..5 {
                let counter = Arc::clone(&counter);
                threads.push(own(move || {
                    fill(mark, &counter);
                    thread::park();
                }));
            }
            fill(100, &counter);
            for _ in 0..5 {
                yield_now();
            }
            // One ends while the threads that share its thread-locals go on, one is killed.
            threads[0].thread().unpark();
            assert!(threads[1].kill());
            for _ in 0..5 {
                yield_now();
            }
            // The hook of one that will not start.
            let hook = Bound::new(&counter);
            own(|| ()).on_finish(move |_| hook.touch());
            if shut_down {
                assert_eq!(greenling::hub::shutdown(), 0);
            }
        });
        os_thread.join().unwrap();
        assert!(drops.load(Ordering::Relaxed) > 5, "{}", drops.load(Ordering::Relaxed));
    }
}

/// Lets others run when it is dropped.
struct Yields(Arc<AtomicUsize>);

impl Drop for Yields {
    fn drop(&mut self) {
        yield_now();
        sleep(Duration::from_millis(1));
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn nothing_runs_again_when_the_os_thread_has_begun_to_end() {
    if unsupported() {
        return;
    }
    let (resumed, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (theirs, first, second) = (Arc::clone(&resumed), Yields(Arc::clone(&dropped)), Yields(Arc::clone(&dropped)));
    let os_thread = std::thread::spawn(move || {
        std::mem::forget(own(move || first));
        drop(spawn(move || {
            yield_now();
            yield_now();
            theirs.fetch_add(1, Ordering::Relaxed);
        }));
        yield_now();
        // Never started.
        drop(own(move || drop(second)));
    });
    os_thread.join().unwrap();
    assert_eq!((resumed.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed)), (0, 2));
}

#[test]
fn a_shutdown_waits_for_destructors_of_thread_locals() {
    if unsupported() {
        return;
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let os_thread = std::thread::spawn(move || {
        drop(own(move || SLOW.set(Some(Slow(counter)))));
        yield_now();
        greenling::hub::shutdown()
    });
    assert_eq!(os_thread.join().unwrap(), 0);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

thread_local!(static TURN: Cell<u32> = const { Cell::new(0) });
thread_local!(static WAITS: Vec<u8> = {
    yield_now();
    TURN.set(TURN.get() + 1);
    yield_now();
    vec![b'a'; 64]
});

#[test]
fn the_initialiser_of_a_thread_local_may_wait() {
    if unsupported() {
        return;
    }
    let threads: Vec<_> = (0..3)
        .map(|_| {
            own(|| {
                WAITS.with(|bytes| {
                    for _ in 0..5 {
                        yield_now();
                        drop(vec![b'z'; 64]);
                        assert!(bytes.iter().all(|byte| *byte == b'a'));
                    }
                });
                TURN.get()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 1, "initialised once, by its own thread");
    }
}

thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });

#[test]
fn a_borrow_of_a_thread_local_may_last_over_a_wait_to_the_end_of_everything() {
    if unsupported() {
        return;
    }
    use std::io::{BufWriter, Write};
    /// Writes into the thread-local when dropped.
    struct Flushes<'a>(BufWriter<&'a mut Vec<u8>>, Arc<AtomicUsize>);
    impl Drop for Flushes<'_> {
        fn drop(&mut self) {
            self.0.flush().unwrap();
            self.1.fetch_add(self.0.get_ref().len(), Ordering::Relaxed);
        }
    }
    for shut_down in [true, false] {
        let flushed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&flushed);
        let os_thread = std::thread::spawn(move || {
            for _ in 0..4 {
                let counter = Arc::clone(&counter);
                drop(own(move || {
                    BUFFER.with_borrow_mut(|buffer| {
                        let mut out = Flushes(BufWriter::new(buffer), counter);
                        out.0.write_all(&[b'x'; 60]).unwrap();
                        thread::park();
                    });
                }));
            }
            yield_now();
            if shut_down {
                assert_eq!(greenling::hub::shutdown(), 0);
            }
        });
        os_thread.join().unwrap();
        // Without a shutdown they are leaked, and the borrows with them.
        assert_eq!(flushed.load(Ordering::Relaxed), if shut_down { 240 } else { 0 });
    }
}

/// A value in a thread-local, of which the destructor does all that a thread may do.
struct Busy {
    /// The mark of its thread.
    mark: u32,
    /// Counts what was done: at the end of the destructor, and in a callback.
    done: Arc<AtomicUsize>,
}

thread_local!(static BUSY: RefCell<Option<Busy>> = const { RefCell::new(None) });

impl Drop for Busy {
    fn drop(&mut self) {
        let mark = self.mark;
        assert_eq!(MARK.get(), mark);
        sleep(Duration::from_micros(200));
        assert_eq!(own(|| MARK.get()).join().unwrap(), 0);
        let local = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&local);
        let child = spawn(move || {
            yield_now();
            theirs.set(MARK.get());
        });
        child.join().unwrap();
        assert_eq!(local.get(), mark);
        let greenlet = Greenlet::new(move |n: u32| Greenlet::switch_to_parent(n + MARK.get()));
        assert_eq!(greenlet.switch(1), mark + 1);
        drop(greenlet);
        assert_eq!(thread::scope(|scope| scope.spawn(|| MARK.get()).join().unwrap()), mark);
        let child = spawn(|| sleep(Duration::from_micros(200)));
        let counter = Arc::clone(&self.done);
        child.on_finish(move |_| {
            assert_eq!(MARK.get(), mark);
            counter.fetch_add(1, Ordering::Relaxed);
        });
        child.join().unwrap();
        let (send, receive) = greenling::channel::bounded(1);
        drop(spawn(move || send.send(MARK.get()).unwrap()));
        let received = greenling::select! {
            recv(receive) -> value => value.unwrap(),
            default(after: Duration::from_secs(20)) => 0,
        };
        assert_eq!(received, mark);
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_destructor_of_a_thread_local_does_all_that_a_thread_may_do() {
    if unsupported() {
        return;
    }
    let done = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (1..31)
        .map(|mark| {
            let done = Arc::clone(&done);
            own(move || {
                MARK.set(mark);
                BUSY.set(Some(Busy { mark, done }));
                // However the thread ends.
                assert_ne!(mark % 3, 1, "as the test wants");
                if mark % 3 == 0 {
                    thread::park();
                }
            })
        })
        .collect();
    yield_now();
    threads.iter().skip(2).step_by(3).for_each(|thread| assert!(thread.kill()));
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().is_ok(), number % 3 == 1);
    }
    wait_for(&done, 60);
}

#[test]
fn what_runs_while_one_unwinds_does_not_unwind() {
    if unsupported() {
        return;
    }
    struct Unwinds(Arc<AtomicUsize>);
    impl Drop for Unwinds {
        fn drop(&mut self) {
            sleep(Duration::from_micros(200));
            assert!(own(|| !std::thread::panicking()).join().unwrap());
            assert!(catch_unwind(|| panic!("a second one")).is_err());
            // A light thread shares the count. So its spawner waits no more, and it runs when this is over.
            let light = spawn(std::thread::panicking);
            assert!(light.join().is_err());
            drop(spawn(|| assert!(!std::thread::panicking())));
            assert!(std::thread::panicking());
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let unwound = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..20)
        .map(|number| {
            let unwinds = Unwinds(Arc::clone(&unwound));
            own(move || {
                let _unwinds = unwinds;
                assert!(number % 2 == 0, "as the test wants");
                thread::park();
            })
        })
        .collect();
    yield_now();
    threads.iter().step_by(2).for_each(|thread| assert!(thread.kill()));
    assert!(threads.into_iter().all(|thread| thread.join().is_err()));
    assert_eq!(unwound.load(Ordering::Relaxed), 20);
}

/// A connection for each thread, made when it is first used.
struct Client {
    name: [u8; 4],
    stream: greenling::net::TcpStream,
}

thread_local! {
    static ADDR: Cell<Option<std::net::SocketAddr>> = const { Cell::new(None) };
    static CLIENT: Client = {
        use std::io::Read;
        let mut stream = greenling::net::TcpStream::connect(ADDR.get().unwrap()).unwrap();
        let mut name = [0; 4];
        stream.read_exact(&mut name).unwrap();
        Client { name, stream }
    };
}

#[test]
fn a_client_in_a_thread_local_is_made_once_for_each_thread() {
    if unsupported() {
        return;
    }
    use std::io::{Read, Write};
    let listener = greenling::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Greets the first client last, and then says the names again.
    let server = spawn(move || {
        let mut streams: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        for (number, stream) in streams.iter_mut().enumerate().rev() {
            stream.write_all(&[number as u8; 4]).unwrap();
            sleep(Duration::from_millis(2));
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&[number as u8]).unwrap();
        }
    });
    let threads: Vec<_> = (0..3)
        .map(|_| {
            own(move || {
                ADDR.set(Some(addr));
                CLIENT.with(|client| {
                    let name = &client.name;
                    let mut byte = [0];
                    (&client.stream).read_exact(&mut byte).unwrap();
                    assert_eq!(*name, [byte[0]; 4]);
                    byte[0]
                })
            })
        })
        .collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u8>(), 3);
    server.join().unwrap();
}

/// What a thread leaves that nothing joins: notes, when it is dropped, whether the thread's thread-locals are there.
struct Unwanted(Arc<Mutex<Vec<&'static str>>>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        let is_there = LATE.try_with(|late| late.borrow().is_some()).unwrap_or(false);
        self.0.lock().unwrap().push(if is_there { "result" } else { "result, too late" });
    }
}

/// Notes the destruction of a thread-local.
struct Late(Arc<Mutex<Vec<&'static str>>>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("thread-local");
    }
}

thread_local!(static LATE: RefCell<Option<Late>> = const { RefCell::new(None) });

#[test]
fn a_detached_result_is_dropped_before_the_thread_locals_as_in_an_os_thread() {
    if unsupported() {
        return;
    }
    type Start = fn(Box<dyn FnOnce() -> Unwanted + Send>);
    let os_thread: (&str, Start) = ("an OS thread", |f| drop(std::thread::spawn(f)));
    let green: (&str, Start) = ("a green thread", |f| drop(own(f)));
    for ((kind, start), panics) in [(os_thread, false), (os_thread, true), (green, false), (green, true)] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (theirs, is_detached) = (Arc::clone(&log), Arc::new(AtomicBool::new(false)));
        let may_end = Arc::clone(&is_detached);
        start(Box::new(move || {
            while !may_end.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            LATE.set(Some(Late(Arc::clone(&theirs))));
            if panics {
                std::panic::resume_unwind(Box::new(Unwanted(theirs)));
            }
            Unwanted(theirs)
        }));
        is_detached.store(true, Ordering::SeqCst);
        while log.lock().unwrap().len() < 2 {
            yield_now();
            std::thread::yield_now();
        }
        assert_eq!(*log.lock().unwrap(), ["result", "thread-local"], "{kind}, panics: {panics}");
    }
}
