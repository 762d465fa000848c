//! The end (docs/book, chapter 12): of main, of an OS thread, of a hub; of handles that outlive it; thread-locals, fork, exit.
#![allow(unsafe_code)] // fork, waitpid, _exit

mod common;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::OnDrop;
use greenling::thread::{Builder, JoinHandle, Thread, current, park, scope, spawn, yield_now};
use greenling::{Greenlet, TimeoutError, hub, no_switch, shield, sleep, timeout};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// Counts one up when it is dropped.
fn counter(count: &Arc<AtomicUsize>) -> OnDrop<impl FnOnce() + use<>> {
    let count = Arc::clone(count);
    OnDrop::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    })
}

/// Runs `body` in an OS thread of its own to the end of its hub, and says how often the counter was dropped.
fn in_os_thread(body: impl FnOnce(&Arc<AtomicUsize>) + Send + 'static) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let inner = Arc::clone(&count);
    std::thread::spawn(move || body(&inner)).join().unwrap();
    count.load(Ordering::SeqCst)
}

/// Threads in every kind of wait, each with a counter in its frame, and one that has not started.
fn everything_suspended(count: &Arc<AtomicUsize>) {
    let waits: Vec<Box<dyn FnOnce()>> = vec![
        Box::new(park),
        Box::new(|| sleep(LONG)),
        Box::new(|| drop(spawn(park).join())),
        Box::new(|| scope(|s| drop(s.spawn(park)))),
        Box::new(|| {
            let _ = timeout(LONG, park);
        }),
        Box::new(|| shield(park)),
        Box::new(|| {
            Greenlet::new(|n: u32| {
                park();
                n
            })
            .switch(1);
        }),
        Box::new(|| {
            // Swallows a few kills and then ends.
            for _ in 0..5 {
                let _ = catch_unwind(|| sleep(LONG));
            }
        }),
        Box::new(|| {
            loop {
                yield_now();
            }
        }),
    ];
    for wait in waits {
        let mark = counter(count);
        drop(spawn(move || {
            let _mark = mark;
            wait();
        }));
    }
    for _ in 0..5 {
        yield_now();
    }
    let unstarted = counter(count);
    drop(spawn(move || drop(unstarted)));
}

/// What is suspended may borrow from thread-locals that are gone by then. Nine threads, a joined one, one of a scope, and the
/// greenlet's fiber.
#[test]
fn the_end_of_an_os_thread_gives_up_what_is_suspended_and_drops_what_never_ran() {
    let output = common::child("the_end_of_an_os_thread_gives_up_what_is_suspended_and_drops_what_never_ran", || {
        assert_eq!(in_os_thread(everything_suspended), 1);
        assert_eq!(hub::stack_stats().leaked, 12);
        // A panic is an end like any other.
        let count = Arc::new(AtomicUsize::new(0));
        let inner = Arc::clone(&count);
        let os = std::thread::spawn(move || {
            everything_suspended(&inner);
            std::panic::resume_unwind(Box::new("main panics"));
        });
        assert!(os.join().is_err());
        assert_eq!((count.load(Ordering::SeqCst), hub::stack_stats().leaked), (1, 24));
        // Main has a time for the destructors: before it returns.
        let dropped = in_os_thread(|count| {
            everything_suspended(count);
            assert_eq!(hub::shutdown(), 0);
        });
        assert_eq!((dropped, hub::stack_stats().leaked), (10, 24));
    });
    assert!(output.status.success(), "{output:?}");
}

/// The descriptors of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn the_end_of_an_os_thread_with_suspended_threads_closes_what_the_hub_owns() {
    let output = common::child("the_end_of_an_os_thread_with_suspended_threads_closes_what_the_hub_owns", || {
        let before = descriptors();
        let mut theirs = 0;
        for round in 1..=20 {
            theirs += std::thread::spawn(|| {
                let (reader, writer) = greenling::io::pipe().unwrap();
                let waits = spawn(move || {
                    let _writer = writer;
                    std::io::Read::read(&mut &reader, &mut [0]).unwrap()
                });
                yield_now();
                sleep(Duration::from_micros(100));
                assert!(!waits.is_finished());
                2
            })
            .join()
            .unwrap();
            // Both ends of a pipe lie on the stack that is given up.
            assert_eq!(descriptors(), before + theirs, "round {round}");
        }
    });
    assert!(output.status.success(), "{output:?}");
}

/// Whatever a destructor calls that runs at the end, it lets nobody run who is suspended.
#[test]
fn destructors_at_the_end_of_an_os_thread_resume_no_fiber() {
    let _guard = common::guard();
    type Waits = OnDrop<Box<dyn FnOnce()>>;
    greenling::green_local! {
        static LOCAL: RefCell<Option<Waits>> = RefCell::new(None);
    }
    /// Everything that would let others run.
    fn wait_all(log: &Log) {
        yield_now();
        sleep(Duration::from_micros(10));
        park();
        assert!(Builder::new().spawn(|| ()).is_err());
        assert!(Greenlet::new(|n: u32| n).try_switch(1).is_err());
        assert_eq!(timeout(LONG, || 1), Err(TimeoutError::NoHub));
        assert_eq!(hub::shutdown(), 0);
        log.lock().unwrap().push("dropped");
    }
    type Log = Arc<Mutex<Vec<&'static str>>>;
    let log = Log::default();
    let theirs = Arc::clone(&log);
    std::thread::spawn(move || {
        let waits = |log: &Log| {
            let log = Arc::clone(log);
            OnDrop::new(Box::new(move || wait_all(&log)) as Box<dyn FnOnce()>)
        };
        let ran = Arc::clone(&theirs);
        drop(spawn(move || {
            loop {
                yield_now();
                ran.lock().unwrap().push("ran");
            }
        }));
        yield_now();
        let result = waits(&theirs);
        let finished = spawn(move || result);
        yield_now();
        assert!(finished.is_finished());
        LOCAL.with_borrow_mut(|local| *local = Some(waits(&theirs)));
        let unstarted = waits(&theirs);
        std::mem::forget((spawn(move || drop(unstarted)), finished));
        theirs.lock().unwrap().clear();
    })
    .join()
    .unwrap();
    assert_eq!(*log.lock().unwrap(), ["dropped"; 3]);
}

/// Who waits on another OS thread for work of a hub that ends is told, whether the work runs, is ready or was never started.
#[test]
fn joiners_in_other_hubs_are_told_of_the_end() {
    let _guard = common::guard();
    let (send, receive) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let os = std::thread::spawn(move || {
        send.send(hub::handle()).unwrap();
        gone.recv().unwrap();
        // Lets the first one begin and wait; the second is posted while nobody looks.
        yield_now();
        sleep(Duration::from_millis(1));
        send.send(hub::handle()).unwrap();
        gone.recv().unwrap();
    });
    let handle = receive.recv().unwrap();
    let waits = handle.spawn(park);
    go.send(()).unwrap();
    let handle = receive.recv().unwrap();
    let posted = handle.spawn(|| ());
    go.send(()).unwrap();
    os.join().unwrap();
    let late = handle.spawn(|| ());
    for (what, thread) in [("waits", waits), ("posted", posted), ("late", late)] {
        assert!(thread.join().unwrap_err().is_hub_ended(), "{what}");
    }
}

#[test]
fn shutdown_does_the_same_and_the_hub_can_be_used_again() {
    let _guard = common::guard();
    let count = Arc::new(AtomicUsize::new(0));
    for round in 1..=3 {
        everything_suspended(&count);
        assert_eq!(hub::shutdown(), 0);
        assert_eq!(count.load(Ordering::SeqCst), 10 * round);
        assert_eq!((hub::live_threads(), hub::stack_stats().in_use), (0, 0));
        assert_eq!(spawn(|| 3).join().unwrap(), 3);
        sleep(Duration::from_micros(10));
    }
}

#[test]
fn a_joiner_of_a_thread_that_was_shut_down_is_told() {
    let _guard = common::guard();
    let thread = spawn(park);
    yield_now();
    assert_eq!(hub::shutdown(), 0);
    assert!(thread.is_finished());
    assert!(thread.join().unwrap_err().is_killed());
}

#[test]
fn shutdown_is_mains_alone() {
    let _guard = common::guard();
    let error = spawn(hub::shutdown).join().unwrap_err();
    assert!(error.panic_message().unwrap().contains("must be called by main"));
}

#[test]
fn what_is_spawned_during_a_shutdown_never_runs() {
    let _guard = common::guard();
    // A chain that would never end.
    fn chain(count: Arc<AtomicUsize>, ran: Arc<AtomicUsize>) {
        let respawn = OnDrop::new({
            let (count, ran) = (Arc::clone(&count), Arc::clone(&ran));
            move || {
                let mark = counter(&count);
                drop(spawn(move || {
                    let _mark = mark;
                    ran.fetch_add(1, Ordering::SeqCst);
                    chain(Arc::clone(&count), Arc::clone(&ran));
                }));
            }
        });
        loop {
            yield_now();
            std::hint::black_box(&respawn);
        }
    }
    let ran = Arc::new(AtomicUsize::new(0));
    let inner = Arc::clone(&ran);
    let dropped = in_os_thread(move |count| {
        let (count, ran) = (Arc::clone(count), Arc::clone(&inner));
        drop(spawn(move || chain(count, ran)));
        yield_now();
        assert_eq!(hub::shutdown(), 0);
    });
    assert_eq!((dropped, ran.load(Ordering::SeqCst)), (1, 0));
}

#[test]
fn a_thread_that_swallows_kills_for_ever_is_given_up_and_leaked() {
    let _guard = common::guard();
    let output = common::child("a_thread_that_swallows_kills_for_ever_is_given_up_and_leaked", || {
        let stubborn = |block: fn()| {
            drop(spawn(move || {
                loop {
                    let _ = catch_unwind(block);
                }
            }));
        };
        stubborn(park);
        stubborn(|| sleep(LONG));
        stubborn(yield_now);
        stubborn(|| shield(park));
        yield_now();
        println!("stuck: {}, live: {}", hub::shutdown(), hub::live_threads());
        // The hub goes on, and so does the process's end.
        assert_eq!(spawn(|| 3).join().unwrap(), 3);
        assert_eq!(hub::stack_stats().leaked, 0, "still there");
        std::thread::spawn(move || {
            stubborn(park);
            stubborn(yield_now);
            yield_now();
        })
        .join()
        .unwrap();
        assert_eq!(hub::stack_stats().leaked, 2);
    });
    assert!(output.status.success(), "{output:?}");
    assert!(common::stdout(&output).contains("stuck: 4, live: 4"), "{output:?}");
}

#[test]
fn a_shutdown_unwinds_a_scope_from_the_inside_out() {
    let _guard = common::guard();
    let dropped = in_os_thread(|count| {
        let (outer, inner) = (counter(count), counter(count));
        let owner_gone = Rc::new(Cell::new(false));
        drop(spawn(move || {
            let _outer = outer;
            let gone = Rc::clone(&owner_gone);
            let _gone = OnDrop::new(move || gone.set(true));
            let borrowed = String::from("borrowed");
            scope(|s| {
                s.spawn(|| {
                    let _last = OnDrop::new(|| {
                        assert_eq!(borrowed, "borrowed");
                        assert!(!owner_gone.get(), "before the owner");
                    });
                    park();
                });
            });
        }));
        drop(spawn(move || {
            scope(|s| {
                scope(|t| {
                    s.spawn(park);
                    t.spawn(move || drop(inner));
                    park();
                })
            })
        }));
        yield_now();
        yield_now();
        assert_eq!(hub::shutdown(), 0);
    });
    assert_eq!(dropped, 2);
}

#[test]
fn results_that_were_not_taken_are_dropped_at_the_end() {
    let _guard = common::guard();
    thread_local! {
        static KEPT: RefCell<Vec<JoinHandle<Box<dyn std::any::Any>>>> = const { RefCell::new(Vec::new()) };
    }
    let dropped = in_os_thread(|count| {
        // Made first, so that its destructor runs last: the handles outlive the hub.
        KEPT.with_borrow_mut(|kept| assert!(kept.is_empty()));
        let (plain, busy, spawning) = (counter(count), counter(count), counter(count));
        let inner = Arc::clone(count);
        let results: Vec<Box<dyn std::any::Any>> = vec![
            Box::new(plain),
            // A destructor that blocks, and one that spawns a thread: too late.
            Box::new(OnDrop::new(move || {
                let _busy = busy;
                sleep(Duration::from_millis(1));
            })),
            Box::new(OnDrop::new(move || {
                let _spawning = spawning;
                let mark = counter(&inner);
                let spawned = Builder::new().spawn(move || {
                    let _mark = mark;
                    park();
                });
                assert!(spawned.is_err());
                yield_now();
            })),
        ];
        for result in results {
            let thread = spawn(move || result);
            yield_now();
            assert!(thread.is_finished());
            KEPT.with_borrow_mut(|kept| kept.push(thread));
        }
    });
    assert_eq!(dropped, 4);
}

/// The result owns its own handle: nobody can drop it but the end.
#[test]
fn a_result_that_owns_its_own_handle_is_dropped_once() {
    let _guard = common::guard();
    type Cycle = Rc<RefCell<Option<Box<dyn std::any::Any>>>>;
    let dropped = in_os_thread(|count| {
        let cycle: Cycle = Rc::default();
        let (inner, mark) = (Rc::clone(&cycle), counter(count));
        let thread: JoinHandle<(Cycle, Box<dyn std::any::Any>)> = spawn(move || {
            let mark: Box<dyn std::any::Any> = Box::new(mark);
            (inner, mark)
        });
        yield_now();
        *cycle.borrow_mut() = Some(Box::new(thread));
        drop(cycle);
    });
    assert_eq!(dropped, 1);
}

/// Design 5.9: blocking and other calls in a TLS destructor, before the hub's end and after it.
#[test]
fn calls_in_a_thread_locals_destructor_work_or_fail_but_never_abort() {
    let _guard = common::guard();
    /// Runs a function in its destructor.
    struct Late(Cell<Option<Box<dyn FnOnce()>>>);
    impl Drop for Late {
        fn drop(&mut self) {
            if let Some(f) = self.0.take() {
                f();
            }
        }
    }
    thread_local! {
        static FIRST: Late = const { Late(Cell::new(None)) };
        static SECOND: Late = const { Late(Cell::new(None)) };
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&log);
    std::thread::spawn(move || {
        // Destroyed last, since it is made first: after the hub.
        FIRST.with(|_| ());
        let finished = spawn(|| 1);
        let thread = spawn(park);
        let handle = thread.thread().clone();
        let id = current().id();
        let unasked = spawn(park);
        let greenlet = Greenlet::new(|n: u32| n);
        SECOND.with(|_| ());
        let log = Arc::clone(&inner);
        // Destroyed first: the hub is still there, and blocking works as always.
        SECOND.with(|late| {
            late.0.set(Some(Box::new(move || {
                sleep(Duration::from_millis(1));
                assert_eq!(spawn(|| 2).join().unwrap(), 2);
                assert_eq!(scope(|s| s.spawn(|| 3).join().unwrap()), 3);
                assert!(timeout(Duration::from_millis(1), park).is_err());
                log.lock().unwrap().push("before");
            })));
        });
        let log = inner;
        FIRST.with(|late| {
            late.0.set(Some(Box::new(move || {
                sleep(Duration::from_millis(1));
                sleep(Duration::ZERO);
                yield_now();
                park();
                greenling::thread::park_timeout(Duration::from_millis(1));
                assert!(Builder::new().spawn(|| ()).is_err());
                assert_eq!(timeout(LONG, || 1), Err(TimeoutError::NoHub));
                assert_eq!(shield(|| 2), 2);
                assert_eq!(no_switch(|| 3), 3);
                scope(|s| assert!(Builder::new().spawn_scoped(s, || ()).is_err()));
                assert_eq!(hub::shutdown(), 0);
                hub::trim_stacks();
                assert_eq!((hub::live_threads(), hub::default_stack_size()), (0, 0));
                assert_eq!(hub::stack_stats(), hub::StackStats::default());
                assert!(hub::stack_high_water().is_err() && hub::set_default_stack_size(1).is_err());
                assert_eq!(hub::report(), "");
                assert_eq!(current().id(), id);
                assert_ne!(unasked.thread().id(), id);
                unasked.thread().unpark();
                assert!(!unasked.kill());
                assert!(unasked.is_finished());
                assert!(unasked.join().is_err());
                handle.unpark();
                assert!(!thread.kill());
                drop(thread);
                assert!(finished.join().is_err());
                assert!(greenlet.try_switch(1).is_err());
                drop(greenlet);
                log.lock().unwrap().push("after");
            })));
        });
    })
    .join()
    .unwrap();
    assert_eq!(*log.lock().unwrap(), ["before", "after"]);
}

#[test]
fn a_first_call_in_a_thread_locals_destructor_makes_a_hub_that_ends_as_well() {
    let _guard = common::guard();
    struct Late(Arc<AtomicUsize>);
    impl Drop for Late {
        fn drop(&mut self) {
            let mark = counter(&self.0);
            // If there can be one: the runtime's own thread-locals may have gone before.
            drop(Builder::new().spawn(move || drop(mark)));
            sleep(Duration::from_millis(1));
        }
    }
    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    assert_eq!(in_os_thread(|count| LATE.set(Some(Late(Arc::clone(count))))), 1);
}

#[test]
fn handles_of_another_os_thread_outlive_its_hub() {
    let _guard = common::guard();
    let handle: Thread = std::thread::spawn(|| {
        let thread = spawn(park);
        thread.thread().clone()
    })
    .join()
    .unwrap();
    handle.unpark();
    assert_eq!(handle.name(), None);
    drop(handle);
}

/// Programs that end in odd ways, as a whole: run again as children with a role, from a main of their own. The end of a main
/// function's own thread is in `programs.rs`.
#[test]
fn an_exit_in_a_green_thread_unwinds_no_thread() {
    let output = common::child("an_exit_in_a_green_thread_unwinds_no_thread", || {
        let sleeper = spawn(|| {
            let _mark = OnDrop::new(|| println!("unwound"));
            park();
        });
        let exiter = spawn(|| {
            let _mark = OnDrop::new(|| println!("unwound"));
            println!("exits");
            std::process::exit(7);
        });
        let _ = exiter.join();
        drop(sleeper);
    });
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let text = common::stdout(&output);
    assert!(text.contains("exits") && !text.contains("unwound"), "{text}");
}

/// Forks; the child runs `body` and its result is its exit code, 99 if it panics.
fn forked(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the tests that call this run in a process of their own (`common::child`), whose other threads only wait.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(99);
        // Through `exit`, so that the thread-locals' destructors run as at the end of a program.
        std::process::exit(code);
    }
    let mut status = 0;
    // SAFETY: `status` is a live integer, and the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child ended with a signal: {status:#x}");
    libc::WEXITSTATUS(status)
}

/// How often something ran, in this process and its children each for itself.
static RUNS: AtomicU32 = AtomicU32::new(0);

#[test]
fn the_child_of_a_fork_gets_errors_and_runs_no_other_thread() {
    let output = common::child("the_child_of_a_fork_gets_errors_and_runs_no_other_thread", || {
        let mark = || OnDrop::new(|| println!("\nunwound in {}", std::process::id()));
        drop(spawn(move || {
            let _mark = mark();
            park();
        }));
        let ready = spawn(move || {
            let _mark = mark();
            loop {
                RUNS.fetch_add(1, Ordering::SeqCst);
                yield_now();
            }
        });
        yield_now();
        let main = current();
        let runs = RUNS.load(Ordering::SeqCst);
        let code = forked(|| {
            let error = Builder::new().spawn(|| ()).unwrap_err();
            assert!(error.to_string().contains("forked"), "{error}");
            let calls: [fn(); 6] = [
                yield_now,
                park,
                || sleep(Duration::from_millis(1)),
                || scope(|_| ()),
                || drop(current()),
                || drop(spawn(|| ())),
            ];
            for (number, call) in calls.into_iter().enumerate() {
                let payload = catch_unwind(call).unwrap_err();
                let text = payload.downcast_ref::<String>().unwrap();
                assert!(text.contains("forked"), "{number}: {text}");
            }
            assert_eq!(timeout(LONG, || 1), Err(TimeoutError::NoHub));
            main.unpark();
            assert!(ready.join().unwrap_err().to_string().contains("forked"));
            assert_eq!(RUNS.load(Ordering::SeqCst), runs, "nobody ran");
            42
        });
        assert_eq!(code, 42);
        // From a green thread: the child's copy of main learns of it, and nobody else runs.
        let code = spawn(move || {
            forked(|| {
                assert!(catch_unwind(yield_now).is_err());
                assert!(catch_unwind(|| sleep(LONG)).is_err());
                43
            })
        })
        .join()
        .unwrap();
        assert_eq!(code, 43);
        assert!(RUNS.load(Ordering::SeqCst) > runs, "the parent goes on");
        // exec is fine.
        let status = std::process::Command::new("true").status().unwrap();
        assert!(status.success());
        assert_eq!(hub::shutdown(), 0);
        println!("\nparent {} done", std::process::id());
    });
    assert!(output.status.success(), "{output:?}");
    let text = common::stdout(&output);
    let parent = text.lines().find_map(|line| line.strip_prefix("parent ")?.strip_suffix(" done")).expect("it ended");
    let unwound: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("unwound in ")).collect();
    assert_eq!(unwound, [parent; 2], "children unwound copies: {text}");
}

#[test]
fn a_green_thread_that_returns_in_a_forked_child_ends_it_with_the_reason() {
    let output = common::child("a_green_thread_that_returns_in_a_forked_child_ends_it_with_the_reason", || {
        let parent = std::process::id();
        drop(spawn(|| {
            loop {
                RUNS.fetch_add(1, Ordering::SeqCst);
                yield_now();
            }
        }));
        let runs_at_fork = Rc::new(Cell::new(0));
        let note = Rc::clone(&runs_at_fork);
        let forker = spawn(move || {
            note.set(RUNS.load(Ordering::SeqCst));
            // SAFETY: as in `forked`.
            unsafe { libc::fork() }
        });
        let child = match catch_unwind(AssertUnwindSafe(|| forker.join().unwrap())) {
            Ok(child) => child,
            Err(payload) => {
                assert_ne!(std::process::id(), parent);
                assert!(payload.downcast_ref::<String>().unwrap().contains("forked"));
                assert_eq!(RUNS.load(Ordering::SeqCst), runs_at_fork.get(), "nobody else ran in the child");
                std::process::exit(44);
            }
        };
        let mut status = 0;
        // SAFETY: as in `forked`.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status >> 8, 44);
    });
    assert!(output.status.success(), "{output:?}");
}
