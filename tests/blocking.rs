//! The properties of `common/five`, five of them from gevent.md 5.7, over all blocking calls of this crate.
#![forbid(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use common::{Primitive, Subject, Wakes, due_properties, five_properties};
use greenling::group::{Group, Pool, join_all, wait_any};
use greenling::hub::sync as shared;
use greenling::io::{Registered, pipe};
use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::offload::ThreadPool;
use greenling::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use greenling::process::Command;
use greenling::server::{ServerHandle, TcpServer};
use greenling::sync::{self, AsyncResult, Barrier, Condvar, Event, Mutex, Once, OnceLock, RwLock, WaitGroup};
use greenling::thread::{
    self, JoinHandle, Thread, current, park, park_timeout, scope, sleep, spawn, try_scope, yield_now,
};
use greenling::time::{Instant, interval_at};
use greenling::{Greenlet, GreenletExit, Select, block_on, channel, hub, select, timeout};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[test]
fn sleep_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "sleep",
        wakes: Wakes::None,
        make: || {
            Subject::new(|| sleep(Duration::from_secs(3600)), || {}).or_for(|limit| {
                sleep(limit);
                false
            })
        },
    });
}

/// A condition that a looping waiter looks at.
fn flag() -> (Rc<Cell<bool>>, Rc<Cell<bool>>) {
    let flag = Rc::new(Cell::new(false));
    (Rc::clone(&flag), flag)
}

#[test]
fn yield_now_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "yield_now",
        wakes: Wakes::All,
        make: || {
            let (seen, set) = flag();
            let wait = move || {
                while !seen.get() {
                    yield_now();
                }
            };
            Subject::new(wait, move || set.set(true))
        },
    });
}

#[test]
fn park_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "park",
        wakes: Wakes::Only,
        make: || {
            let waiter: Rc<RefCell<Option<Thread>>> = Rc::default();
            let (a, b, c) = (Rc::clone(&waiter), Rc::clone(&waiter), waiter);
            let woken = Rc::new(Cell::new(false));
            let (seen, set) = (Rc::clone(&woken), woken);
            let wait = move || {
                *a.borrow_mut() = Some(current());
                park();
            };
            let wake = move || {
                set.set(true);
                c.borrow().as_ref().expect("a thread waits").unpark();
            };
            Subject::new(wait, wake).or_for(move |limit| {
                *b.borrow_mut() = Some(current());
                park_timeout(limit);
                seen.get()
            })
        },
    });
}

/// A thread that ends when it is told.
struct Ender {
    /// It.
    thread: RefCell<Option<JoinHandle<()>>>,
    /// To tell it.
    handle: Thread,
}

#[test]
fn join_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "join",
        wakes: Wakes::Only,
        make: || {
            let thread = spawn(park);
            let handle = thread.thread().clone();
            let ender = Rc::new(Ender { thread: RefCell::new(Some(thread)), handle });
            let (a, b) = (Rc::clone(&ender), ender);
            let wait = move || {
                let thread = a.thread.borrow_mut().take().expect("one waiter");
                thread.join().expect("it only parks");
            };
            Subject::new(wait, move || b.handle.unpark())
        },
    });
}

#[test]
fn the_end_of_a_server_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "join of a server",
        wakes: Wakes::Only,
        make: || {
            let server = TcpServer::bind("127.0.0.1:0").expect("a free port").start(|_, _| ()).expect("a stack");
            let handle = server.handle().clone();
            let server = RefCell::new(Some(server));
            let wait = move || {
                let server = server.borrow_mut().take().expect("one waiter");
                server.join().expect("it was drained");
            };
            Subject::new(wait, move || handle.drain())
        },
    });
    five_properties(&Primitive {
        name: "run of a server",
        wakes: Wakes::Only,
        make: || {
            let handle = ServerHandle::new();
            let server = TcpServer::bind("127.0.0.1:0").expect("a free port").handle(&handle);
            let server = RefCell::new(Some(server));
            let wait = move || {
                let server = server.borrow_mut().take().expect("one waiter");
                server.run(|_, _| ()).expect("it was drained");
            };
            Subject::new(wait, move || handle.drain())
        },
    });
}

/// A scope with one thread that parks; joined or left to the scope.
fn scoped(join: bool) -> Subject {
    let inside: Rc<RefCell<Option<Thread>>> = Rc::default();
    let (a, b) = (Rc::clone(&inside), inside);
    let wait = move || {
        let borrowed = a.as_ref();
        scope(|s| {
            let thread = s.spawn(|| {
                *borrowed.borrow_mut() = Some(current());
                park();
            });
            if join {
                thread.join().expect("it only parks");
            }
        });
    };
    Subject::new(wait, move || b.borrow().as_ref().expect("it has started").unpark())
}

#[test]
fn scoped_join_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive { name: "scoped join", wakes: Wakes::Only, make: || scoped(true) });
}

#[test]
fn the_end_of_a_scope_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive { name: "scope", wakes: Wakes::Only, make: || scoped(false) });
}

#[test]
fn a_greenlet_switch_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "switch",
        wakes: Wakes::Only,
        make: || {
            let inside: Rc<RefCell<Option<Thread>>> = Rc::default();
            let (a, b) = (Rc::clone(&inside), inside);
            let wait = move || {
                let inside = Rc::clone(&a);
                let greenlet = Greenlet::new(move |number: u32| {
                    *inside.borrow_mut() = Some(current());
                    park();
                    number + 1
                });
                assert_eq!(greenlet.switch(1), 2);
            };
            Subject::new(wait, move || b.borrow().as_ref().expect("it has started").unpark())
        },
    });
}

/// A semaphore of green threads made of park and unpark, as a program might write it; `broken` forgets that a thread that was
/// woken may have been killed, and lets latecomers overtake.
struct Semaphore {
    /// Permits that no thread has.
    free: Cell<usize>,
    /// Who waits, with a mark whether it got a permit.
    queue: RefCell<VecDeque<(Thread, Rc<Cell<bool>>)>>,
    /// See above.
    broken: bool,
}

impl Semaphore {
    /// Without permits.
    fn new(broken: bool) -> Rc<Semaphore> {
        Rc::new(Semaphore { free: Cell::new(0), queue: RefCell::default(), broken })
    }

    /// Gives a permit to the thread that waits longest.
    fn release(&self) {
        match self.queue.borrow_mut().pop_front() {
            Some((thread, got)) => {
                got.set(true);
                thread.unpark();
            }
            None => self.free.set(self.free.get() + 1),
        }
    }

    /// Takes a permit; waits as `wait` does.
    fn acquire(&self, wait: impl Fn()) -> bool {
        if self.free.get() > 0 {
            self.free.set(self.free.get() - 1);
            return true;
        }
        let got = Rc::new(Cell::new(false));
        self.queue.borrow_mut().push_back((current(), Rc::clone(&got)));
        let place = Rc::clone(&got);
        let taken = Cell::new(false);
        let leave = common::OnDrop::new(|| {
            if self.broken {
                return;
            }
            self.queue.borrow_mut().retain(|(_, theirs)| !Rc::ptr_eq(theirs, &place));
            if got.get() && !taken.get() {
                self.release();
            }
        });
        wait();
        taken.set(place.get());
        drop(leave);
        taken.get()
    }

    /// As a subject of the harness.
    fn subject(broken: bool) -> Subject {
        let semaphore = Semaphore::new(broken);
        let (a, b, c) = (Rc::clone(&semaphore), Rc::clone(&semaphore), semaphore);
        let wait = move || assert!(a.acquire(park), "woken with a permit");
        Subject::new(wait, move || c.release()).or_for(move |limit| b.acquire(|| park_timeout(limit)))
    }
}

#[test]
fn a_semaphore_of_park_and_unpark_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive { name: "semaphore", wakes: Wakes::One, make: || Semaphore::subject(false) });
}

/// The harness would notice.
#[test]
#[should_panic(expected = "does not have property")]
fn a_semaphore_that_forgets_the_dead_does_not_have_them() {
    let _guard = common::guard();
    five_properties(&Primitive { name: "broken semaphore", wakes: Wakes::One, make: || Semaphore::subject(true) });
}

#[test]
fn a_killed_switch_leaves_no_greenlet_behind() {
    let _guard = common::guard();
    let before = greenling::hub::live_threads();
    let unwound = Rc::new(Cell::new(false));
    let seen = Rc::clone(&unwound);
    let thread = spawn(move || {
        let greenlet = Greenlet::new(move |number: u32| {
            let _mark = common::OnDrop::new(|| seen.set(true));
            thread::sleep(Duration::from_secs(3600));
            number
        });
        greenlet.switch(1)
    });
    yield_now();
    yield_now();
    thread.kill();
    assert!(thread.join().expect_err("killed").is_killed());
    for _ in 0..5 {
        yield_now();
    }
    assert!(unwound.get(), "the greenlet lost its last handle and was unwound");
    assert_eq!(greenling::hub::live_threads(), before);
    let _: fn(GreenletExit) = drop;
}

/// A connected pair: the waiter reads, the waker writes a byte.
#[test]
fn a_read_of_a_tcp_stream_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "TcpStream::read",
        wakes: Wakes::One,
        make: || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
            let theirs = Rc::new(listener.accept().expect("accept").0);
            let (a, b) = (Rc::clone(&theirs), theirs);
            // Its handle of the peer is a blocking one, so that a wake-up does not switch.
            let ours = std::net::TcpStream::from(ours);
            let wait = move || {
                let mut byte = [0];
                assert_eq!((&*a).read(&mut byte).expect("a byte"), 1);
            };
            Subject::new(wait, move || {
                assert_eq!((&ours).write(&[1]).expect("room"), 1);
                // So that the next look finds it.
                std::thread::sleep(Duration::from_millis(1));
            })
            .or_for(move |limit| {
                b.set_read_timeout(Some(limit.max(Duration::from_nanos(1)))).expect("not zero");
                let mut byte = [0];
                let read = (&*b).read(&mut byte);
                b.set_read_timeout(None).expect("none");
                read.is_ok()
            })
        },
    });
}

#[test]
fn a_permit_of_a_semaphore_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "sync::Semaphore",
        wakes: Wakes::One,
        make: || {
            let semaphore = Rc::new(sync::Semaphore::new(0));
            let (a, b, c) = (Rc::clone(&semaphore), Rc::clone(&semaphore), semaphore);
            Subject::new(move || a.acquire().forget(), move || c.release().expect("no bound"))
                .or_for(move |limit| b.acquire_timeout(limit).map(sync::SemaphorePermit::forget).is_some())
        },
    });
}

/// A value that stays until the process ends, so that guards of it can be kept.
fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A guard of a thread that has ended: a thread that takes over the guard and locks again is told so, and does not wait.
fn of_another<G: 'static>(lock: impl FnOnce() -> G + 'static) -> G {
    spawn(lock).join().expect("free")
}

/// Something that is locked by a guard until it is woken; each waiter locks and unlocks.
fn locked<G: 'static>(guard: G, lock: impl Fn() + 'static, limited: impl Fn(Duration) -> bool + 'static) -> Subject {
    let guard = RefCell::new(Some(guard));
    Subject::new(lock, move || drop(guard.take())).or_for(limited)
}

#[test]
fn a_mutex_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "Mutex",
        wakes: Wakes::All,
        make: || {
            let mutex = leaked(Mutex::new(()));
            let held = of_another(|| mutex.lock().expect("fresh"));
            locked(held, || drop(mutex.lock().expect("sound")), |limit| mutex.lock_timeout(limit).is_ok())
        },
    });
}

#[test]
fn both_sides_of_a_rwlock_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "RwLock::write, behind a reader",
        wakes: Wakes::All,
        make: || {
            let lock = leaked(RwLock::new(()));
            let held = of_another(|| lock.read().expect("fresh"));
            locked(held, || drop(lock.write().expect("sound")), |limit| lock.write_timeout(limit).is_ok())
        },
    });
    five_properties(&Primitive {
        name: "RwLock::read, behind a writer",
        wakes: Wakes::All,
        make: || {
            let lock = leaked(RwLock::new(()));
            let held = of_another(|| lock.write().expect("fresh"));
            locked(held, || drop(lock.read().expect("sound")), |limit| lock.read_timeout(limit).is_ok())
        },
    });
}

/// A count that is waited for with a condvar, so that a notification that no thread waits for is not lost.
#[test]
fn a_condvar_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "Condvar",
        wakes: Wakes::One,
        make: || {
            let (count, changed) = leaked((Mutex::new(0), Condvar::new()));
            let wait = || {
                let count = count.lock().expect("sound");
                *changed.wait_while(count, |count| *count == 0).expect("sound") -= 1;
            };
            let wake = || {
                *count.lock().expect("sound") += 1;
                changed.notify_one();
            };
            Subject::new(wait, wake).or_for(|limit| {
                let count = count.lock().expect("sound");
                let (mut count, result) = changed.wait_timeout_while(count, limit, |count| *count == 0).expect("sound");
                *count -= usize::from(!result.timed_out());
                !result.timed_out()
            })
        },
    });
}

#[test]
fn both_kinds_of_events_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "Event",
        wakes: Wakes::All,
        make: || {
            let event = leaked(Event::new());
            Subject::new(|| event.wait(), || event.set()).or_for(|limit| event.wait_timeout(limit))
        },
    });
    five_properties(&Primitive {
        name: "Event::auto_reset",
        wakes: Wakes::One,
        make: || {
            let event = leaked(Event::auto_reset());
            Subject::new(|| event.wait(), || event.set()).or_for(|limit| event.wait_timeout(limit))
        },
    });
}

#[test]
fn an_async_result_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "AsyncResult",
        wakes: Wakes::All,
        make: || {
            let result = leaked(AsyncResult::<()>::new());
            let wait = || assert_eq!(result.get(), Ok(()));
            Subject::new(wait, || assert!(result.set(()).is_ok() || result.is_set()))
                .or_for(|limit| result.wait_timeout(limit).is_some())
        },
    });
}

#[test]
fn a_wait_group_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "WaitGroup",
        wakes: Wakes::All,
        make: || {
            let group = leaked(WaitGroup::new());
            group.add(1);
            let wake = || (0..group.remaining()).for_each(|_| group.done());
            Subject::new(|| group.wait(), wake).or_for(|limit| group.wait_timeout(limit))
        },
    });
}

#[test]
fn a_once_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "Once",
        wakes: Wakes::All,
        make: || {
            let once = leaked(Once::new());
            Subject::new(|| once.wait(), || once.call_once(|| ()))
        },
    });
    five_properties(&Primitive {
        name: "OnceLock",
        wakes: Wakes::All,
        make: || {
            let lock = leaked(OnceLock::new());
            Subject::new(|| *lock.wait(), || assert!(lock.set(()).is_ok() || lock.get().is_some()))
        },
    });
}

/// The locks that other OS threads share, used within one hub.
#[test]
fn shared_locks_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "hub::sync::Mutex",
        wakes: Wakes::All,
        make: || {
            let mutex = leaked(shared::Mutex::new(()));
            let held = of_another(|| mutex.lock().expect("fresh"));
            locked(held, || drop(mutex.lock().expect("sound")), |limit| mutex.lock_timeout(limit).is_ok())
        },
    });
    five_properties(&Primitive {
        name: "hub::sync::RwLock::write, behind a reader",
        wakes: Wakes::All,
        make: || {
            let lock = leaked(shared::RwLock::new(()));
            let held = of_another(|| lock.read().expect("fresh"));
            locked(held, || drop(lock.write().expect("sound")), |limit| lock.write_timeout(limit).is_ok())
        },
    });
    five_properties(&Primitive {
        name: "hub::sync::RwLock::read, behind a writer",
        wakes: Wakes::All,
        make: || {
            let lock = leaked(shared::RwLock::new(()));
            let held = of_another(|| lock.write().expect("fresh"));
            locked(held, || drop(lock.read().expect("sound")), |limit| lock.read_timeout(limit).is_ok())
        },
    });
}

#[test]
fn shared_signals_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "hub::sync::Semaphore",
        wakes: Wakes::One,
        make: || {
            let semaphore = leaked(shared::Semaphore::new(0));
            Subject::new(|| semaphore.acquire().forget(), || semaphore.release().expect("no bound"))
                .or_for(|limit| semaphore.acquire_timeout(limit).map(shared::SemaphorePermit::forget).is_some())
        },
    });
    five_properties(&Primitive {
        name: "hub::sync::Condvar",
        wakes: Wakes::One,
        make: || {
            let (count, changed) = leaked((shared::Mutex::new(0), shared::Condvar::new()));
            let wait = || {
                let count = count.lock().expect("sound");
                *changed.wait_while(count, |count| *count == 0).expect("sound") -= 1;
            };
            let wake = || {
                *count.lock().expect("sound") += 1;
                changed.notify_one();
            };
            Subject::new(wait, wake).or_for(|limit| {
                let count = count.lock().expect("sound");
                let (mut count, result) = changed.wait_timeout_while(count, limit, |count| *count == 0).expect("sound");
                *count -= usize::from(!result.timed_out());
                !result.timed_out()
            })
        },
    });
    five_properties(&Primitive {
        name: "hub::sync::Once",
        wakes: Wakes::All,
        make: || {
            let once = leaked(shared::Once::new());
            Subject::new(|| once.wait(), || once.call_once(|| ()))
        },
    });
    five_properties(&Primitive {
        name: "hub::sync::OnceLock",
        wakes: Wakes::All,
        make: || {
            let lock = leaked(shared::OnceLock::new());
            Subject::new(|| *lock.wait(), || assert!(lock.set(()).is_ok() || lock.get().is_some()))
        },
    });
}

/// The second one opens it.
#[test]
fn a_barrier_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "Barrier",
        wakes: Wakes::Only,
        make: || {
            let barrier = leaked(Barrier::new(2));
            Subject::new(|| drop(format!("{:?}", barrier.wait())), || drop(spawn(|| barrier.wait())))
        },
    });
}

/// Whether a pipe has room for a page.
fn has_room(pipe: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::ZERO).expect("a descriptor") == 1
}

#[test]
fn both_ends_of_a_pipe_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "PipeReader::read",
        wakes: Wakes::One,
        make: || {
            let (reader, writer) = pipe().expect("descriptors");
            // As std's, so that a wake-up does not switch.
            let writer = std::io::PipeWriter::from(writer);
            let wait = move || assert_eq!((&reader).read(&mut [0]).expect("a byte"), 1);
            Subject::new(wait, move || assert_eq!((&writer).write(&[1]).expect("room"), 1))
        },
    });
    five_properties(&Primitive {
        name: "PipeWriter::write",
        wakes: Wakes::One,
        make: || {
            let (reader, writer) = pipe().expect("descriptors");
            // Full, in pieces of a page as those that are written and read below.
            let piece = [0; 4096];
            while has_room(&writer) {
                assert_eq!((&writer).write(&piece).expect("a reader"), piece.len());
            }
            let reader = std::io::PipeReader::from(reader);
            let wait = move || assert_eq!((&writer).write(&piece).expect("a reader"), piece.len());
            Subject::new(wait, move || (&reader).read_exact(&mut [0; 4096]).expect("it is full"))
        },
    });
}

/// Kills the child and looks until it is dead, so that the next look of the hub finds it.
#[test]
fn a_wait_for_a_child_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "ChildHandle::wait",
        wakes: Wakes::All,
        make: || {
            let mut command = Command::new("sleep");
            let child = command.arg("3600").kill_on_drop(true).spawn().expect("sleep is everywhere");
            let (a, b) = (child.handle(), child.handle());
            let wait = move || assert!(!a.wait().expect("it is ours").success());
            let wake = move || {
                let _ = child.handle().kill();
                let stat = format!("/proc/{}/stat", child.id());
                while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            };
            Subject::new(wait, wake).or_for(move |limit| b.wait_timeout(limit).expect("it is ours").is_some())
        },
    });
}

/// A job that ends when it is told. It cannot be interrupted, so it is for one waiter.
fn job(pool: &'static ThreadPool) -> Subject {
    let (end, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    Subject::new(
        move || {
            let wait = Arc::clone(&wait);
            pool.run(move || wait.lock().expect("one waiter").recv().expect("told"));
        },
        move || end.send(()).expect("it listens"),
    )
}

#[test]
fn a_job_on_another_os_thread_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "offload",
        wakes: Wakes::Only,
        make: || job(leaked(ThreadPool::builder().max_threads(1).build())),
    });
    // In the queue, behind a job that waits for the wake-up.
    five_properties(&Primitive {
        name: "the queue of a pool",
        wakes: Wakes::Only,
        make: || {
            let pool = leaked(ThreadPool::builder().max_threads(1).build());
            let (end, wait) = mpsc::channel::<()>();
            drop(spawn(|| pool.run(move || wait.recv())));
            yield_now();
            Subject::new(|| pool.run(|| ()), move || end.send(()).expect("it listens"))
        },
    });
}

/// A flag to await; wakes in the order in which it was polled.
#[derive(Default)]
struct Awaited {
    /// Whether it is set.
    set: Cell<bool>,
    /// Who polled.
    wakers: RefCell<Vec<Waker>>,
}

#[test]
fn block_on_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "block_on",
        wakes: Wakes::All,
        make: || {
            let flag = Rc::new(Awaited::default());
            let theirs = Rc::clone(&flag);
            let wait = move || {
                block_on(std::future::poll_fn(|cx| {
                    if theirs.set.get() {
                        return Poll::Ready(());
                    }
                    theirs.wakers.borrow_mut().push(cx.waker().clone());
                    Poll::Pending
                }))
            };
            let wake = move || {
                flag.set.set(true);
                let wakers = flag.wakers.take();
                wakers.into_iter().for_each(Waker::wake);
            };
            Subject::new(wait, wake)
        },
    });
}

#[test]
fn awaiting_a_thread_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "JoinFuture",
        wakes: Wakes::Only,
        make: || {
            let thread = spawn(park);
            let handle = thread.thread().clone();
            let thread = RefCell::new(Some(thread));
            let wait = move || {
                let thread = thread.borrow_mut().take().expect("one waiter");
                block_on(thread).expect("it only parks");
            };
            Subject::new(wait, move || handle.unpark())
        },
    });
    five_properties(&Primitive {
        name: "RemoteJoinFuture",
        wakes: Wakes::Only,
        make: || {
            let told = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&told);
            let thread = hub::handle().spawn(move || {
                while !seen.load(Ordering::Relaxed) {
                    yield_now();
                }
            });
            let thread = RefCell::new(Some(thread));
            let wait = move || {
                let thread = thread.borrow_mut().take().expect("one waiter");
                block_on(thread).expect("it only sleeps");
            };
            Subject::new(wait, move || told.store(true, Ordering::Relaxed))
        },
    });
}

#[test]
fn receiving_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "channel::Receiver::recv",
        wakes: Wakes::One,
        make: || {
            let (send, receive) = leaked(channel::unbounded());
            let wait = || assert_eq!(receive.recv(), Ok(()));
            Subject::new(wait, || send.send(()).expect("open")).or_for(|limit| receive.recv_timeout(limit).is_ok())
        },
    });
    five_properties(&Primitive {
        name: "channel::Receiver::recv by priority",
        wakes: Wakes::One,
        make: || {
            let (send, receive) = leaked(channel::priority());
            let wait = || assert_eq!(receive.recv(), Ok(()));
            Subject::new(wait, || send.send(()).expect("open")).or_for(|limit| receive.recv_timeout(limit).is_ok())
        },
    });
    five_properties(&Primitive {
        name: "sync::mpsc::Receiver::recv",
        wakes: Wakes::One,
        make: || {
            let (send, receive) = leaked(sync::mpsc::channel());
            let wait = || assert_eq!(receive.recv(), Ok(()));
            Subject::new(wait, || send.send(()).expect("open")).or_for(|limit| receive.recv_timeout(limit).is_ok())
        },
    });
}

/// The waiter sends; the waker receives.
#[test]
fn sending_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "channel::Sender::send",
        wakes: Wakes::OneAtOnce,
        make: || {
            let (send, receive) = leaked(channel::bounded(1));
            send.send(()).expect("room");
            let wait = || assert_eq!(send.send(()), Ok(()));
            Subject::new(wait, || receive.recv().expect("it is full"))
                .or_for(|limit| send.send_timeout((), limit).is_ok())
        },
    });
}

#[test]
fn a_broadcast_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "channel::BroadcastReceiver::recv",
        wakes: Wakes::All,
        make: || {
            let (send, receive) = leaked(channel::broadcast(100));
            let wait = || assert_eq!(receive.clone().recv(), Ok(()));
            Subject::new(wait, || assert!(send.send(()).is_ok()))
                .or_for(|limit| receive.clone().recv_timeout(limit).is_ok())
        },
    });
}

#[test]
fn both_ends_of_a_channel_between_hubs_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "RemoteReceiver::recv",
        wakes: Wakes::One,
        make: || {
            let (send, receive) = leaked(hub::channel(None));
            Subject::new(|| receive.recv().expect("open"), || send.send(()).expect("open"))
                .or_for(|limit| receive.recv_timeout(limit).is_ok())
        },
    });
    five_properties(&Primitive {
        name: "select! recv, from another hub",
        wakes: Wakes::One,
        make: || {
            let (send, receive) = leaked(hub::channel(None));
            let never = leaked(Event::new());
            let wait = || {
                select! {
                    wait(never) => panic!("never set"),
                    recv(receive) -> value => assert_eq!(value, Ok(())),
                }
            };
            Subject::new(wait, || send.send(()).expect("open")).or_for(|limit| {
                select! {
                    recv(receive) -> value => value.is_ok(),
                    after(limit) => false,
                }
            })
        },
    });
    five_properties(&Primitive {
        name: "RemoteSender::send",
        wakes: Wakes::One,
        make: || {
            // Room for as many wake-ups in a row as there are.
            let (send, receive) = leaked(hub::channel(Some(2000)));
            (0..2000).for_each(|_| send.send(()).expect("room"));
            Subject::new(|| send.send(()).expect("open"), || receive.try_recv().expect("it is full"))
                .or_for(|limit| send.send_timeout((), limit).is_ok())
        },
    });
    five_properties(&Primitive {
        name: "RemoteJoinHandle::join",
        wakes: Wakes::Only,
        make: || {
            let event = leaked(Event::new());
            let (send, receive) = leaked(hub::channel::<()>(None));
            let thread = hub::handle().spawn(|| receive.recv().is_ok());
            let thread = RefCell::new(Some(thread));
            let wait = move || {
                let thread = thread.borrow_mut().take().expect("one waiter");
                select! {
                    wait(event) => panic!("never set"),
                    join(thread) -> ended => assert!(ended.expect("it only receives")),
                }
            };
            Subject::new(wait, || send.send(()).expect("open"))
        },
    });
}

#[test]
fn more_arms_of_select_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "select! wait, a semaphore",
        wakes: Wakes::One,
        make: || {
            let (semaphore, never) = leaked((sync::Semaphore::new(0), Event::new()));
            let wait = || {
                select! {
                    wait(never) => panic!("never set"),
                    wait(semaphore) -> permit => permit.forget(),
                }
            };
            Subject::new(wait, || semaphore.release().expect("no bound")).or_for(|limit| {
                select! {
                    wait(semaphore) -> permit => {
                        permit.forget();
                        true
                    }
                    after(limit) => false,
                }
            })
        },
    });
    five_properties(&Primitive {
        name: "select! wait, a result",
        wakes: Wakes::All,
        make: || {
            let (result, never) = leaked((AsyncResult::<()>::new(), Event::new()));
            let wait = || select! { wait(never) => panic!("never set"), wait(result) => () };
            Subject::new(wait, || _ = result.set(()))
                .or_for(|limit| select! { wait(result) => true, after(limit) => false })
        },
    });
}

/// A set, and the time limits that are no arms.
#[test]
fn sets_and_time_limits_of_select_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "select! recv, default(after:)",
        wakes: Wakes::One,
        make: || {
            let (send, receive) = leaked(channel::unbounded());
            let (never, long) = (leaked(Event::new()), Duration::from_secs(3600));
            let wait = move || {
                select! {
                    wait(never) => panic!("never set"),
                    recv(receive) -> value => assert_eq!(value, Ok(())),
                    default(after: long) => panic!("too late"),
                }
            };
            Subject::new(wait, || send.send(()).expect("open")).or_for(|limit| {
                select! { recv(receive) -> value => value.is_ok(), default(after: limit) => false }
            })
        },
    });
    five_properties(&Primitive {
        name: "Select, recv",
        wakes: Wakes::One,
        make: || {
            let (send, receive) = leaked(channel::unbounded());
            let (never, nothing) = leaked((Event::new(), channel::unbounded::<()>()));
            let set = || {
                let mut select = Select::new();
                select.wait(never, |()| panic!("never set"));
                select.recv(receive, |value| value.expect("open"));
                (0..20).for_each(|_| select.recv(&nothing.1, |_| panic!("never sent")));
                select
            };
            Subject::new(move || set().select(), || send.send(()).expect("open"))
                .or_for(move |limit| set().select_timeout(limit).is_some())
        },
    });
    five_properties(&Primitive {
        name: "Select, send",
        wakes: Wakes::OneAtOnce,
        make: || {
            let (send, receive) = leaked(channel::bounded(1));
            send.send(()).expect("room");
            let set = || {
                let mut select = Select::biased();
                select.send(send, (), |sent| sent.expect("open"));
                select
            };
            Subject::new(move || set().select(), || receive.recv().expect("it is full"))
                .or_for(move |limit| set().select_deadline(Instant::now() + limit).is_some())
        },
    });
    five_properties(&Primitive {
        name: "Select, wait",
        wakes: Wakes::All,
        make: || {
            let (event, never) = leaked((Event::new(), Event::new()));
            let set = || {
                let mut select = Select::new();
                select.wait(never, |()| panic!("never set"));
                select.wait(event, |()| ());
                select
            };
            Subject::new(move || set().select(), || event.set())
                .or_for(move |limit| set().select_timeout(limit).is_some())
        },
    });
}

/// Each kind of arm, between two that never go on.
#[test]
fn every_arm_of_select_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "select! recv",
        wakes: Wakes::One,
        make: || {
            let (send, receive) = leaked(channel::unbounded());
            let (never, nothing) = leaked((Event::new(), channel::unbounded::<()>()));
            let wait = || {
                select! {
                    wait(never) => panic!("never set"),
                    recv(receive) -> value => assert_eq!(value, Ok(())),
                    recv(nothing.1) -> _ => panic!("never sent"),
                }
            };
            Subject::new(wait, || send.send(()).expect("open")).or_for(|limit| {
                select! {
                    recv(nothing.1) -> _ => panic!("never sent"),
                    recv(receive) -> value => value.is_ok(),
                    after(limit) => false,
                }
            })
        },
    });
    five_properties(&Primitive {
        name: "select! send",
        wakes: Wakes::OneAtOnce,
        make: || {
            let (send, receive) = leaked(channel::bounded(1));
            let never = leaked(Event::new());
            send.send(()).expect("room");
            let wait = || {
                select! {
                    wait(never) => panic!("never set"),
                    send(send, ()) -> sent => assert_eq!(sent, Ok(())),
                }
            };
            Subject::new(wait, || receive.recv().expect("it is full")).or_for(|limit| {
                select! {
                    after(limit) => false,
                    send(send, ()) -> sent => sent.is_ok(),
                }
            })
        },
    });
    five_properties(&Primitive {
        name: "select! wait, manual",
        wakes: Wakes::All,
        make: || {
            let (event, never) = leaked((Event::new(), Event::new()));
            let wait = || select! { wait(never) => panic!("never set"), wait(event) => () };
            Subject::new(wait, || event.set()).or_for(|limit| select! { wait(event) => true, after(limit) => false })
        },
    });
    five_properties(&Primitive {
        name: "select! wait, auto-reset",
        wakes: Wakes::One,
        make: || {
            let (event, never) = leaked((Event::auto_reset(), Event::new()));
            let wait = || select! { wait(never) => panic!("never set"), wait(event) => () };
            Subject::new(wait, || event.set()).or_for(|limit| select! { wait(event) => true, after(limit) => false })
        },
    });
    five_properties(&Primitive {
        name: "select! broadcast",
        wakes: Wakes::All,
        make: || {
            let (send, receive) = leaked(channel::broadcast(100));
            let wait = || {
                let receive = receive.clone();
                select! { recv(receive) -> value => assert_eq!(value, Ok(())) }
            };
            Subject::new(wait, || assert!(send.send(()).is_ok())).or_for(|limit| {
                let receive = receive.clone();
                select! { recv(receive) -> value => value.is_ok(), after(limit) => false }
            })
        },
    });
    five_properties(&Primitive {
        name: "select! join",
        wakes: Wakes::Only,
        make: || {
            let thread = spawn(park);
            let handle = thread.thread().clone();
            let (thread, never) = (RefCell::new(Some(thread)), leaked(Event::new()));
            let wait = move || {
                let thread = thread.borrow_mut().take().expect("one waiter");
                select! {
                    wait(never) => panic!("never set"),
                    join(thread) -> ended => ended.expect("it only parks"),
                }
            };
            Subject::new(wait, move || handle.unpark())
        },
    });
    five_properties(&Primitive {
        name: "select! after",
        wakes: Wakes::None,
        make: || {
            let long = Duration::from_secs(3600);
            Subject::new(move || select! { after(long) => () }, || {}).or_for(move |limit| {
                select! {
                    after(long) => true,
                    after(limit) => false,
                }
            })
        },
    });
    five_properties(&Primitive {
        name: "select! readable",
        wakes: Wakes::One,
        make: || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
            let theirs = Rc::new(listener.accept().expect("accept").0);
            let (again, never) = (Rc::clone(&theirs), leaked(Event::new()));
            let ours = std::net::TcpStream::from(ours);
            let wait = move || {
                select! {
                    wait(never) => panic!("never set"),
                    readable(theirs) -> ready => ready.expect("open"),
                }
                assert_eq!((&*theirs).read(&mut [0]).expect("a byte"), 1);
            };
            Subject::new(wait, move || {
                assert_eq!((&ours).write(&[1]).expect("room"), 1);
                // So that the next look finds it.
                std::thread::sleep(Duration::from_millis(1));
            })
            .or_for(move |limit| {
                select! {
                    readable(again) -> ready => {
                        ready.expect("open");
                        (&*again).read(&mut [0]).expect("a byte") == 1
                    }
                    after(limit) => false,
                }
            })
        },
    });
    five_properties(&Primitive {
        name: "select! accept",
        wakes: Wakes::One,
        make: || {
            let listener = Rc::new(TcpListener::bind("127.0.0.1:0").expect("a port"));
            let (again, never) = (Rc::clone(&listener), leaked(Event::new()));
            let addr = listener.local_addr().expect("bound");
            let wait = move || {
                select! {
                    wait(never) => panic!("never set"),
                    accept(listener) -> accepted => drop(accepted.expect("open")),
                }
            };
            Subject::new(wait, move || {
                drop(std::net::TcpStream::connect(addr).expect("connect"));
                std::thread::sleep(Duration::from_millis(1));
            })
            .or_for(move |limit| {
                select! {
                    accept(again) -> accepted => accepted.is_ok(),
                    after(limit) => false,
                }
            })
        },
    });
}

/// Threads that park, and a way to end the next of them.
fn parked(count: usize) -> (Vec<JoinHandle<()>>, impl Fn()) {
    let threads: Vec<_> = (0..count).map(|_| spawn(park)).collect();
    let ends: Vec<Thread> = threads.iter().map(|thread| thread.thread().clone()).collect();
    let next = Cell::new(0);
    let end = move || {
        if let Some(thread) = ends.get(next.replace(next.get() + 1)) {
            thread.unpark();
        }
    };
    (threads, end)
}

#[test]
fn the_functions_for_many_handles_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "group::join_all",
        wakes: Wakes::Only,
        make: || {
            let (threads, end) = parked(1);
            let threads = RefCell::new(threads);
            Subject::new(move || assert!(join_all(threads.take()).iter().all(Result::is_ok)), end)
        },
    });
    five_properties(&Primitive {
        name: "group::wait_any",
        wakes: Wakes::Only,
        make: || {
            let (threads, end) = parked(2);
            let threads = RefCell::new(threads);
            // Taken out, since the harness has several waiters at a time.
            Subject::new(move || assert_eq!(wait_any(&mut threads.take(), 1).len(), 1), end)
        },
    });
}

#[test]
fn a_group_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "Group::wait_any",
        wakes: Wakes::One,
        make: || {
            let (threads, end) = parked(40);
            let group: Group<()> = threads.into_iter().collect();
            Subject::new(move || assert_eq!(group.wait_any(1).len(), 1), end)
        },
    });
    five_properties(&Primitive {
        name: "Group::join_all and join_timeout",
        wakes: Wakes::Only,
        make: || {
            let (threads, end) = parked(1);
            let group: Rc<Group<()>> = Rc::new(threads.into_iter().collect());
            let limited = Rc::clone(&group);
            Subject::new(move || assert_eq!(group.join_all().len(), 1), end)
                .or_for(move |limit| limited.join_timeout(limit))
        },
    });
}

#[test]
fn a_pool_has_the_five_properties() {
    let _guard = common::guard();
    // Who waits spawns into a full pool, and what it spawns stays there until the next wake-up.
    five_properties(&Primitive {
        name: "Pool::spawn",
        wakes: Wakes::One,
        make: || {
            let pool = Rc::new(Pool::new(1));
            let inside: Rc<RefCell<VecDeque<Thread>>> = Rc::default();
            let ends = Rc::clone(&inside);
            let job: Rc<dyn Fn()> = Rc::new(move || {
                inside.borrow_mut().push_back(current());
                park();
            });
            let started = Rc::clone(&job);
            drop(pool.spawn(move || started()));
            yield_now();
            let (a, b, theirs) = (Rc::clone(&pool), pool, Rc::clone(&job));
            let wait = move || {
                let job = Rc::clone(&theirs);
                drop(a.spawn(move || job()));
            };
            let wake = move || {
                // The one inside ends now, and its slot is given on before another one comes.
                let next = ends.borrow_mut().pop_front();
                match next {
                    Some(thread) => thread.unpark(),
                    None => drop(spawn({
                        let ends = Rc::clone(&ends);
                        move || {
                            while ends.borrow().is_empty() {
                                yield_now();
                            }
                            ends.borrow_mut().pop_front().expect("a thread is inside").unpark();
                        }
                    })),
                }
            };
            Subject::new(wait, wake).or_for(move |limit| {
                let job = Rc::clone(&job);
                b.spawn_timeout(limit, move || job()).map(drop).is_ok()
            })
        },
    });
    five_properties(&Primitive {
        name: "Pool::join",
        wakes: Wakes::Only,
        make: || {
            let pool = Rc::new(Pool::new(1));
            let inside = pool.spawn(park);
            let limited = Rc::clone(&pool);
            Subject::new(move || pool.join(), move || inside.thread().unpark())
                .or_for(move |limit| limited.join_timeout(limit))
        },
    });
    for (name, make) in [
        ("Pool::apply", (|| pooled(|pool, job| pool.apply(move || job()))) as fn() -> Subject),
        ("Pool::map", || pooled(|pool, job| drop(pool.map([()], move |()| job())))),
        ("Pool::imap", || pooled(|pool, job| pool.imap([()], move |()| job()).next().expect("one").expect("sound"))),
        ("Pool::imap_unordered", || {
            pooled(|pool, job| pool.imap_unordered([()], move |()| job()).next().expect("one").expect("sound"))
        }),
    ] {
        five_properties(&Primitive { name, wakes: Wakes::Only, make });
    }
}

/// A pool in which one job parks, called like this.
fn pooled(call: fn(&Pool, Rc<dyn Fn()>)) -> Subject {
    let pool = Pool::new(1);
    let inside: Rc<RefCell<Option<Thread>>> = Rc::default();
    let theirs = Rc::clone(&inside);
    let job: Rc<dyn Fn()> = Rc::new(move || {
        *theirs.borrow_mut() = Some(current());
        park();
    });
    let wake = move || inside.borrow().as_ref().expect("it has started").unpark();
    Subject::new(move || call(&pool, Rc::clone(&job)), wake)
}

#[test]
fn a_try_scope_has_the_five_properties() {
    let _guard = common::guard();
    /// Waits for a thread of the scope, in the body or at the end.
    fn scoped(join: bool) -> Subject {
        let inside: Rc<RefCell<Option<Thread>>> = Rc::default();
        let (a, b) = (Rc::clone(&inside), inside);
        let wait = move || {
            let borrowed = a.as_ref();
            let result = try_scope(|s| -> Result<(), ()> {
                let thread = s.spawn(|| {
                    *borrowed.borrow_mut() = Some(current());
                    park();
                    Ok(())
                });
                if join {
                    thread.join().expect("it only parks");
                }
                Ok(())
            });
            assert_eq!(result, Ok(()));
        };
        Subject::new(wait, move || b.borrow().as_ref().expect("it has started").unpark())
    }
    five_properties(&Primitive { name: "try_scope", wakes: Wakes::Only, make: || scoped(false) });
    five_properties(&Primitive { name: "TryJoinHandle::join", wakes: Wakes::Only, make: || scoped(true) });
}

#[test]
fn an_interval_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "Interval::tick",
        wakes: Wakes::None,
        make: || {
            let hour = Duration::from_secs(3600);
            let ticks = interval_at(Instant::now() + hour, hour);
            Subject::new(move || assert!(ticks.clone().tick() > Instant::now(), "not in this test"), || {})
        },
    });
}

/// Gives the kernel time for what std's blocking end has just done, so that the next look finds it.
fn arrive() {
    std::thread::sleep(Duration::from_millis(1));
}

#[test]
fn a_receive_of_a_udp_socket_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "UdpSocket::recv",
        wakes: Wakes::One,
        make: || {
            let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").expect("a port"));
            let peer = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
            peer.connect(socket.local_addr().expect("bound")).expect("connect");
            let (a, b) = (Rc::clone(&socket), socket);
            let wait = move || assert_eq!(a.recv(&mut [0; 8]).expect("a datagram"), 1);
            Subject::new(wait, move || {
                assert_eq!(peer.send(&[1]).expect("room"), 1);
                arrive();
            })
            .or_for(move |limit| {
                b.set_read_timeout(Some(limit.max(Duration::from_nanos(1)))).expect("not zero");
                let received = b.recv_from(&mut [0; 8]);
                b.set_read_timeout(None).expect("none");
                received.is_ok()
            })
        },
    });
}

#[test]
fn unix_sockets_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "UnixStream::read",
        wakes: Wakes::One,
        make: || {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let theirs = std::os::unix::net::UnixStream::from(theirs);
            let ours = Rc::new(ours);
            let (a, b) = (Rc::clone(&ours), ours);
            let wait = move || assert_eq!((&*a).read(&mut [0]).expect("a byte"), 1);
            Subject::new(wait, move || {
                assert_eq!((&theirs).write(&[1]).expect("room"), 1);
                arrive();
            })
            .or_for(move |limit| {
                b.set_read_timeout(Some(limit.max(Duration::from_nanos(1)))).expect("not zero");
                let read = (&*b).read(&mut [0]);
                b.set_read_timeout(None).expect("none");
                read.is_ok()
            })
        },
    });
    five_properties(&Primitive {
        name: "UnixDatagram::recv",
        wakes: Wakes::One,
        make: || {
            let (ours, theirs) = UnixDatagram::pair().expect("a pair");
            let theirs = std::os::unix::net::UnixDatagram::from(theirs);
            let ours = Rc::new(ours);
            let (a, b) = (Rc::clone(&ours), ours);
            let wait = move || assert_eq!(a.recv(&mut [0; 8]).expect("a datagram"), 1);
            Subject::new(wait, move || {
                assert_eq!(theirs.send(&[1]).expect("room"), 1);
                arrive();
            })
            .or_for(move |limit| {
                b.set_read_timeout(Some(limit.max(Duration::from_nanos(1)))).expect("not zero");
                let received = b.recv_from(&mut [0; 8]);
                b.set_read_timeout(None).expect("none");
                received.is_ok()
            })
        },
    });
    five_properties(&Primitive {
        name: "UnixListener::accept",
        wakes: Wakes::One,
        make: || {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("greenling-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let addr = SocketAddr::from_abstract_name(name).expect("short");
            let listener = UnixListener::bind_addr(&addr).expect("a free name");
            Subject::new(
                move || drop(listener.accept().expect("a connection")),
                move || {
                    drop(std::os::unix::net::UnixStream::connect_addr(&addr).expect("room"));
                    arrive();
                },
            )
        },
    });
}

#[test]
fn readiness_of_any_descriptor_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "Registered::read",
        wakes: Wakes::One,
        make: || {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            let reader = Rc::new(Registered::new(reader).expect("a descriptor"));
            let (a, b) = (Rc::clone(&reader), reader);
            let wait = move || assert_eq!((&*a).read(&mut [0]).expect("a byte"), 1);
            Subject::new(wait, move || assert_eq!((&writer).write(&[1]).expect("room"), 1)).or_for(move |limit| {
                let ready = b.readable_timeout(limit).expect("a pipe");
                ready && b.get_ref().read(&mut [0]).expect("it is there") == 1
            })
        },
    });
    five_properties(&Primitive {
        name: "Registered::readable",
        wakes: Wakes::All,
        make: || {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            let reader = Rc::new(Registered::new(reader).expect("a descriptor"));
            let (a, b) = (Rc::clone(&reader), reader);
            Subject::new(
                move || a.readable().expect("a pipe"),
                move || {
                    assert_eq!((&writer).write(&[1]).expect("room"), 1);
                },
            )
            .or_for(move |limit| b.readable_timeout(limit).expect("a pipe"))
        },
    });
    five_properties(&Primitive {
        name: "Registered::writable",
        wakes: Wakes::All,
        make: || {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            let writer = Rc::new(Registered::new(writer).expect("a descriptor"));
            while writer.writable_timeout(Duration::ZERO).expect("a pipe") {
                assert_eq!(writer.get_ref().write(&[0; 4096]).expect("room"), 4096);
            }
            let (a, b, read) = (Rc::clone(&writer), writer, Cell::new(false));
            let wake = move || {
                if !read.replace(true) {
                    (&reader).read_exact(&mut [0; 4096]).expect("it is full");
                }
            };
            Subject::new(move || a.writable().expect("a pipe"), wake)
                .or_for(move |limit| b.writable_timeout(limit).expect("a pipe"))
        },
    });
    five_properties(&Primitive {
        name: "wait_readable",
        wakes: Wakes::Only,
        make: || {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            Subject::new(
                move || greenling::io::wait_readable(&reader).expect("a pipe"),
                move || {
                    assert_eq!((&writer).write(&[1]).expect("room"), 1);
                },
            )
        },
    });
}

/// A copy that ends when its reader does, which is the wake-up.
#[test]
fn copies_have_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "io::copy",
        wakes: Wakes::Only,
        make: || {
            let (from, source) = UnixStream::pair().expect("a pair");
            let (to, sink) = UnixStream::pair().expect("a pair");
            let wait = move || {
                let _sink = &sink;
                assert_eq!(greenling::io::copy(&mut &from, &mut &to).expect("no error"), 0);
            };
            Subject::new(wait, move || source.shutdown(std::net::Shutdown::Write).expect("open"))
        },
    });
    five_properties(&Primitive {
        name: "copy_bidirectional",
        wakes: Wakes::Only,
        make: || {
            let (a, client) = UnixStream::pair().expect("a pair");
            let (b, backend) = UnixStream::pair().expect("a pair");
            let wait = move || {
                assert_eq!(greenling::net::copy_bidirectional(&a, &b).expect("no error"), (0, 0));
            };
            Subject::new(wait, move || {
                client.shutdown(std::net::Shutdown::Write).expect("open");
                backend.shutdown(std::net::Shutdown::Write).expect("open");
            })
        },
    });
}

/// What to write that no buffer takes.
static MUCH: [u8; 1 << 20] = [7; 1 << 20];

/// Writes until it has to wait, and on.
fn write_on(mut to: impl Write) {
    loop {
        to.write_all(&MUCH).expect("it is open");
    }
}

/// Calls that nothing wakes here: a kill or time limit that is due when they begin is raised all the same.
#[test]
fn what_is_due_is_raised_by_calls_on_sockets() {
    let _guard = common::guard();
    due_properties("TcpListener::accept", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Subject::new(move || drop(listener.accept()), || ())
    });
    due_properties("TcpStream::write", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        let theirs = listener.accept().expect("accept").0;
        Subject::new(move || write_on(&ours), move || _ = theirs.peer_addr())
    });
    due_properties("TcpStream::read_with and peek", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        let theirs = listener.accept().expect("accept").0;
        let turn = Cell::new(0);
        let wait = move || match turn.replace(turn.get() + 1) % 2 {
            0 => drop(ours.read_with(|bytes| bytes.len())),
            _ => drop(ours.peek(&mut [0])),
        };
        Subject::new(wait, move || _ = theirs.peer_addr())
    });
    due_properties("UnixStream::write", || {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        Subject::new(move || write_on(&ours), move || _ = theirs.peer_addr())
    });
    due_properties("UnixDatagram::send", || {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair");
        let wait = move || loop {
            ours.send(&[7; 1000]).expect("it is open");
        };
        Subject::new(wait, move || _ = theirs.local_addr())
    });
}

#[test]
fn what_is_due_is_raised_by_calls_that_others_work_on() {
    let _guard = common::guard();
    due_properties("Command::output", || Subject::new(|| drop(Command::new("sleep").arg("3600").output()), || ()));
    due_properties("Command::status", || Subject::new(|| drop(Command::new("sleep").arg("3600").status()), || ()));
    due_properties("RunningHubs::join", || {
        let (end, over) = mpsc::channel::<()>();
        let over = std::sync::Mutex::new(over);
        let wait_for_end = move |_| over.lock().expect("one at a time").recv().is_ok();
        let hubs = RefCell::new(Some(greenling::Hubs::new(1).start(wait_for_end).expect("an OS thread")));
        // The hub ends when the subject is gone.
        let wait = move || {
            let _end = &end;
            drop(hubs.take().expect("one waiter").join());
        };
        Subject::new(wait, || ())
    });
    due_properties("sleep_until", || {
        let until = Instant::now() + Duration::from_secs(3600);
        Subject::new(move || thread::sleep_until(until), || ())
    });
    due_properties("timeout in timeout", || {
        Subject::new(|| timeout(Duration::from_secs(3600), park).expect("an hour is not over"), || ())
    });
    due_properties("scope in scope", || {
        Subject::new(|| scope(|s| s.spawn(|| scope(|s| drop(s.spawn(park)))).join().unwrap()), || ())
    });
}

/// Opening a FIFO for reading waits for a writer, on an OS thread of the pool.
#[test]
fn what_is_due_is_raised_by_calls_on_files() {
    let _guard = common::guard();
    let fifo = || std::env::temp_dir().join(format!("greenling-due-{}", std::process::id()));
    let made = std::process::Command::new("mkfifo").arg(fifo()).status().expect("mkfifo");
    assert!(made.success());
    due_properties("fs::File::open", move || {
        let fifo = std::env::temp_dir().join(format!("greenling-due-{}", std::process::id()));
        Subject::new(move || drop(greenling::fs::File::open(&fifo)), || ())
    });
    // Lets those go on that were left in it.
    drop(std::fs::OpenOptions::new().read(true).write(true).open(fifo()).expect("on Linux this does not wait"));
    std::fs::remove_file(fifo()).expect("it is ours");
}

/// Standard input on which nothing comes, and standard output without a reader, which only a process of its own can have.
#[test]
fn what_is_due_is_raised_by_the_standard_streams() {
    const NAME: &str = "what_is_due_is_raised_by_the_standard_streams";
    let _guard = common::guard();
    if std::env::var_os("GREENLING_TEST_CHILD").is_some_and(|role| role == NAME) {
        due_properties("Stdin::read", || Subject::new(|| drop(greenling::io::stdin().read(&mut [0])), || ()));
        due_properties("Stdin::read_line", || {
            Subject::new(|| drop(greenling::io::stdin().read_line(&mut String::new())), || ())
        });
        due_properties("Stdout::write", || Subject::new(|| write_on(greenling::io::stdout()), || ()));
        std::process::exit(17);
    }
    let mut command = std::process::Command::new(std::env::current_exe().expect("the path of the test binary"));
    command.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).env("GREENLING_TEST_CHILD", NAME);
    let piped = std::process::Stdio::piped;
    let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().expect("a child");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    let (_input, _output) = (child.stdin.take(), child.stdout.take());
    assert_eq!(child.wait().expect("its end").code(), Some(17), "{said}");
}
