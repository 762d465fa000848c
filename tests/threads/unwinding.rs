//! While a thread unwinds it does not suspend (docs/book, chapter 12), from a panic or from a kill, whatever its destructors call.
//!
//! Two things are checked each time: the destructor's call returned, and no other thread ran meanwhile: a witness, which
//! is runnable all the time, must never see `std::thread::panicking()`.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use crate::common::{self, OnDrop};
use greenling::thread::{JoinHandle, current, park, park_timeout, scope, spawn, yield_now};
use greenling::{Greenlet, TimeoutError, no_switch, shield, sleep, timeout};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// How the thread comes to unwind.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// A panic.
    Panic,
    /// A kill while it is parked.
    Kill,
    /// A timeout around it.
    Timeout,
}

/// Runs `destructor` on an unwinding stack, for each cause, in a green thread and in main.
fn while_unwinding(what: &str, destructor: impl Fn() + 'static) {
    let destructor = Rc::new(destructor);
    // A std mutex shared with the witness: it is poisoned if the witness ever drops its guard during our panic.
    let mutex = Rc::new(Mutex::new(0));
    let (stop, turns) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0_u64)));
    let witness = {
        let (mutex, stop, turns) = (Rc::clone(&mutex), Rc::clone(&stop), Rc::clone(&turns));
        spawn(move || {
            while !stop.get() {
                let guard = mutex.lock().expect("not poisoned");
                assert!(!std::thread::panicking(), "the witness sees somebody else's panic");
                drop(guard);
                turns.set(turns.get() + 1);
                yield_now();
            }
        })
    };
    for cause in [Cause::Panic, Cause::Kill, Cause::Timeout] {
        for in_main in [false, true] {
            if in_main && matches!(cause, Cause::Kill) {
                continue;
            }
            let finished = Rc::new(Cell::new(false));
            let (destructor, done, turns) = (Rc::clone(&destructor), Rc::clone(&finished), Rc::clone(&turns));
            let body = move || {
                let _check = OnDrop::new(move || {
                    assert!(std::thread::panicking());
                    let (before, me) = (turns.get(), current().id());
                    destructor();
                    assert_eq!(turns.get(), before, "nobody else ran");
                    assert_eq!(current().id(), me);
                    done.set(true);
                });
                match cause {
                    Cause::Panic => resume_unwind(Box::new("cause")),
                    Cause::Kill => park(),
                    Cause::Timeout => {
                        assert_eq!(timeout(Duration::from_millis(1), || sleep(LONG)), Err(TimeoutError::Elapsed));
                        let _ = timeout(LONG, || resume_unwind(Box::new("cause")));
                    }
                }
            };
            if in_main {
                assert!(catch_unwind(AssertUnwindSafe(body)).is_err());
            } else {
                let thread = spawn(body);
                yield_now();
                yield_now();
                thread.kill();
                assert!(thread.join().is_err());
            }
            assert!(finished.get(), "{what}, {cause:?}, in main: {in_main}");
            assert!(!std::thread::panicking());
        }
    }
    stop.set(true);
    witness.join().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(!mutex.is_poisoned());
}

#[test]
fn sleep_yield_and_park_do_nothing() {
    let _guard = common::guard();
    while_unwinding("sleep", || sleep(LONG));
    while_unwinding("sleep of nothing", || sleep(Duration::ZERO));
    while_unwinding("yield", yield_now);
    while_unwinding("park", park);
    while_unwinding("park_timeout", || park_timeout(LONG));
    while_unwinding("timeout", || assert_eq!(timeout(LONG, park), Ok(())));
    while_unwinding("shield", || shield(|| sleep(LONG)));
    while_unwinding("no_switch", || no_switch(yield_now));
}

#[test]
fn a_permit_that_is_there_is_taken() {
    let _guard = common::guard();
    while_unwinding("park with a permit", || {
        current().unpark();
        park();
    });
}

#[test]
fn join_is_an_error_unless_the_result_is_there() {
    let _guard = common::guard();
    while_unwinding("join", || {
        let error = spawn(|| ()).join().unwrap_err();
        assert!(!error.is_killed() && !error.is_panic());
        assert!(error.to_string().contains("unwinding"), "{error}");
    });
    let done: Rc<RefCell<Vec<JoinHandle<u8>>>> = Rc::default();
    for _ in 0..10 {
        done.borrow_mut().push(spawn(|| 4));
    }
    yield_now();
    while_unwinding("join of a finished thread", move || {
        let thread = done.borrow_mut().pop().unwrap();
        assert_eq!(thread.join().unwrap(), 4);
    });
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let inner = Rc::clone(&own);
    *own.borrow_mut() = Some(spawn(move || {
        let _join_myself = OnDrop::new(move || {
            let me = inner.borrow_mut().take().unwrap();
            assert!(me.join().is_err(), "an error and no second panic, which would abort");
        });
        resume_unwind(Box::new(()));
    }));
    yield_now();
    assert!(own.borrow().is_none());
}

#[test]
fn what_is_spawned_runs_later() {
    let _guard = common::guard();
    let ran = Rc::new(Cell::new(0));
    let counted = Rc::clone(&ran);
    while_unwinding("spawn", move || {
        let counted = Rc::clone(&counted);
        drop(spawn(move || counted.set(counted.get() + 1)));
    });
    yield_now();
    assert_eq!(ran.get(), 5, "five unwindings, five threads");
}

#[test]
fn a_scope_cancels_its_threads() {
    let _guard = common::guard();
    while_unwinding("scope", || {
        let ran = Cell::new(false);
        scope(|s| {
            s.spawn(|| ran.set(true));
            let joined = s.spawn(|| ran.set(true)).join();
            assert!(joined.is_err());
        });
        assert!(!ran.get());
    });
}

#[test]
fn a_switch_is_an_error() {
    let _guard = common::guard();
    while_unwinding("switch", || {
        let greenlet = Greenlet::new(|n: u32| n);
        let error = greenlet.try_switch(3).unwrap_err();
        assert_eq!(error.value, 3);
        assert!(matches!(error.kind, greenling::SwitchErrorKind::Unwinding));
    });
    // One that is suspended: its last handle goes while nobody may wait. It is unwound later, by itself.
    let unwound = Rc::new(Cell::new(0));
    let counted = Rc::clone(&unwound);
    let stock: Rc<RefCell<Vec<Greenlet<u32>>>> = Rc::default();
    for _ in 0..5 {
        let counted = Rc::clone(&counted);
        let greenlet = Greenlet::new(move |n: u32| {
            let _mark = OnDrop::new(move || counted.set(counted.get() + 1));
            // Not in one expression: the handle of `current` would live as long as the switch, and be the last one.
            let parent = Greenlet::<u32>::current().parent().unwrap();
            parent.switch(n)
        });
        assert_eq!(greenlet.switch(1), 1);
        stock.borrow_mut().push(greenlet);
    }
    while_unwinding("drop of a greenlet", move || drop(stock.borrow_mut().pop().unwrap()));
    for _ in 0..5 {
        yield_now();
    }
    assert_eq!(unwound.get(), 5);
}

#[test]
fn kill_and_unpark_work_as_always() {
    let _guard = common::guard();
    while_unwinding("kill and unpark", || {
        let (a, b) = (spawn(park), spawn(park));
        assert!(a.kill());
        b.thread().unpark();
    });
    for _ in 0..5 {
        yield_now();
    }
    assert_eq!(greenling::hub::live_threads(), 0);
}

/// gevent.md case 61: a panic that is caught after others panicked and switched is still the right one.
#[test]
fn interleaved_panics_keep_apart() {
    let _guard = common::guard();
    let threads: Vec<_> = (0..4_u32)
        .map(|number| {
            spawn(move || {
                for round in 0..10 {
                    let payload = catch_unwind(AssertUnwindSafe(|| {
                        yield_now();
                        resume_unwind(Box::new((number, round)));
                    }))
                    .unwrap_err();
                    yield_now();
                    assert!(!std::thread::panicking());
                    assert_eq!(*payload.downcast::<(u32, i32)>().unwrap(), (number, round));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// What std lets into a `catch_unwind` as it is may go in here, too.
#[test]
fn what_std_calls_unwind_safe_is_so_here() {
    fn safe<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    use greenling::{channel, fs, io, net, os, process, sync};
    safe::<(sync::Mutex<Cell<u8>>, sync::MutexGuard<'_, Cell<u8>>, sync::RwLock<Cell<u8>>)>();
    safe::<(sync::Condvar, sync::Barrier, sync::Once, sync::OnceLock<u8>, sync::LazyLock<u8>)>();
    safe::<(sync::Event, sync::Semaphore, sync::WaitGroup, sync::AsyncResult<u8>)>();
    safe::<(channel::Sender<Cell<u8>>, channel::Receiver<u8>, sync::mpsc::Receiver<u8>)>();
    safe::<(net::TcpStream, net::TcpListener, net::UdpSocket, os::unix::net::UnixStream)>();
    safe::<(fs::File, fs::ReadDir, io::PipeReader, io::StdoutLock<'_>, io::StdinLock<'_>)>();
    safe::<(process::Child, process::ChildStdout)>();
    let stream = net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(catch_unwind(|| stream.local_addr().unwrap().ip().is_loopback()).unwrap());
}
