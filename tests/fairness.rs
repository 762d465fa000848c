//! Fairness: what waits for a timer, a packet or another OS thread waits for one slice of another thread's, not for many.
#![forbid(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::os::unix::net::UnixStream;
use greenling::sync::{AsyncResult, Event, Mutex, OnceLock, RwLock, Semaphore};
use greenling::thread::{JoinHandle, park, spawn, yield_now};
use greenling::{channel, select, sleep, timeout};

/// Threads that yield until they are told to stop, how to tell them, and how often they did.
type Yielders = (Vec<JoinHandle<()>>, Rc<Cell<bool>>, Rc<Cell<u64>>);

/// See [`Yielders`].
fn yielders(number: usize) -> Yielders {
    let (stop, yields) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let threads = (0..number)
        .map(|_| {
            let (stop, yields) = (Rc::clone(&stop), Rc::clone(&yields));
            spawn(move || {
                while !stop.get() {
                    yields.set(yields.get() + 1);
                    yield_now();
                }
            })
        })
        .collect();
    (threads, stop, yields)
}

#[test]
fn a_timer_fires_while_others_yield_all_the_time() {
    let _guard = common::guard();
    for number in [1, 2, 60, 61, 1000] {
        let (threads, stop, yields) = yielders(number);
        for _ in 0..5 {
            sleep(Duration::from_millis(2));
        }
        assert_eq!(timeout(Duration::from_millis(2), park).ok(), None);
        assert!(yields.get() > 0);
        stop.set(true);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_wake_up_from_outside_arrives_while_others_yield_all_the_time() {
    let _guard = common::guard();
    let (threads, stop, _) = yielders(10);
    let main = greenling::thread::current();
    let os = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        main.unpark();
    });
    park();
    stop.set(true);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    os.join().unwrap();
}

/// Within one round of the queue each thread runs once.
#[test]
fn all_get_the_same_number_of_turns() {
    let _guard = common::guard();
    let counts: Vec<_> = (0..50).map(|_| Rc::new(Cell::new(0_u32))).collect();
    let stop = Rc::new(Cell::new(false));
    let threads: Vec<_> = counts
        .iter()
        .map(|count| {
            let (count, stop) = (Rc::clone(count), Rc::clone(&stop));
            spawn(move || {
                while !stop.get() {
                    count.set(count.get() + 1);
                    yield_now();
                }
            })
        })
        .collect();
    for round in 1..=1000 {
        yield_now();
        assert!(counts.iter().all(|count| count.get() == round), "round {round}");
    }
    stop.set(true);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// More timers than one look fires, all over at once, and a yielding thread: it has its turn in between.
#[test]
fn a_flood_of_timers_does_not_keep_the_runnable_waiting() {
    let _guard = common::guard();
    let seen = common::undisturbed(|| {
        let woken = Rc::new(Cell::new(0));
        let until = Instant::now() + Duration::from_millis(1500);
        let sleepers: Vec<_> = (0..5000)
            .map(|_| {
                let woken = Rc::clone(&woken);
                spawn(move || {
                    greenling::thread::sleep_until(until);
                    woken.set(woken.get() + 1);
                })
            })
            .collect();
        yield_now();
        let all_sleep = Instant::now() < until;
        common::hog_until(until);
        let mut seen = Vec::new();
        while woken.get() < 5000 {
            yield_now();
            seen.push(woken.get());
        }
        seen.dedup();
        sleepers.into_iter().for_each(|thread| thread.join().unwrap());
        all_sleep.then_some(seen)
    });
    assert!(seen.len() > 2, "main ran between the batches: {seen:?}");
}

/// Computes for a time that is longer than a hub's quantum, so that each slice is one of those that are counted.
fn compute() {
    common::hog_until(Instant::now() + SLICE);
}

/// See [`compute`].
const SLICE: Duration = Duration::from_millis(2);

/// Slices that may begin after an event has come and before its waiter runs: the one in which it came has begun before, and
/// one more may be another's turn.
const MOST_SLICES: u32 = 2;

/// A call that gives the CPU away, or that could have waited and need not.
type Call = Box<dyn Fn()>;

/// All of them, each with what it needs to go on at once. None waits.
fn calls() -> Vec<(&'static str, Call)> {
    let (send, receive) = channel::unbounded();
    let keep = receive.clone();
    let (empty_end, empty) = channel::unbounded::<()>();
    let (full, full_end) = channel::bounded(1);
    full.send(()).unwrap();
    let (std_send, std_receive) = greenling::sync::mpsc::channel();
    let (remote_send, remote_receive) = greenling::hub::channel(Some(1000));
    let (lock, held) = (Mutex::new(()), Rc::new(Mutex::new(())));
    std::mem::forget(held.lock().unwrap());
    let table = RwLock::new(());
    let (permits, none) = (Semaphore::new(1), Semaphore::new(0));
    let (event, unset) = (Event::new(), Event::new());
    event.set();
    let never_set = OnceLock::<()>::new();
    let forever = spawn(park);
    let result = AsyncResult::<(), ()>::new();
    let [for_select, no_permit] = [(); 2].map(|()| Semaphore::new(0));
    let (left, right) = UnixStream::pair().unwrap();
    let (udp, target) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let target_addr = target.local_addr().unwrap();
    let (pipe_read, pipe_write) = greenling::io::pipe().unwrap();
    let (readable, mut filled) = greenling::io::pipe().unwrap();
    filled.write_all(b"x").unwrap();
    let (past, closed) = (Instant::now(), closed_stream());
    vec![
        ("yield_now", Box::new(yield_now)),
        ("sleep(0)", Box::new(|| sleep(Duration::ZERO))),
        ("sleep_until", Box::new(move || greenling::thread::sleep_until(past))),
        ("park", Box::new(|| (greenling::thread::current().unpark(), park()).1)),
        ("send", Box::new(move || (send.send(()).unwrap(), keep.len()).0)),
        ("recv", {
            let (send, receive) = channel::unbounded();
            let fill = move || (0..10_000).for_each(|n| send.send(n).unwrap());
            fill();
            Box::new(move || {
                receive.recv().unwrap();
                if receive.is_empty() {
                    fill();
                }
            })
        }),
        ("try_recv", Box::new(move || (assert!(empty.try_recv().is_err()), empty_end.len()).0)),
        ("try_send", Box::new(move || (assert!(full.try_send(()).is_err()), full_end.len()).0)),
        ("mpsc", Box::new(move || (std_send.send(()).unwrap(), std_receive.try_recv().unwrap()).0)),
        ("hub::channel", Box::new(move || (remote_send.try_send(()).unwrap(), remote_receive.try_recv().unwrap()).0)),
        ("lock", Box::new(move || drop(lock.lock().unwrap()))),
        ("try_lock", Box::new(move || assert!(held.try_lock().is_err()))),
        ("read", {
            let table = Rc::new(table);
            Box::new(move || drop((table.read().unwrap(), table.try_read().unwrap())))
        }),
        ("acquire", Box::new(move || drop(permits.acquire()))),
        ("try_acquire", Box::new(move || assert!(none.try_acquire().is_none()))),
        ("Event::wait", Box::new(move || event.wait())),
        ("Event::is_set", Box::new(move || assert!(!unset.is_set()))),
        ("OnceLock::get", Box::new(move || assert!(never_set.get().is_none()))),
        ("is_finished", Box::new(move || assert!(!forever.is_finished()))),
        ("AsyncResult::try_wait", Box::new(move || assert!(result.try_wait().is_none()))),
        ("block_on", Box::new(|| greenling::block_on(async {}))),
        ("select! default", Box::new(move || select! { wait(for_select) -> _ => (), default => () })),
        ("select! after", Box::new(move || select! { wait(no_permit) -> _ => (), after(Duration::ZERO) => () })),
        ("select! readable", Box::new(move || select! { readable(readable) -> ready => ready.unwrap() })),
        (
            "unix stream",
            Box::new(move || {
                (&left).write_all(b"x").unwrap();
                (&right).read_exact(&mut [0]).unwrap();
            }),
        ),
        ("udp", Box::new(move || (udp.send_to(b"x", target_addr).unwrap(), target.local_addr().unwrap(), ()).2)),
        (
            "pipe",
            Box::new(move || {
                (&pipe_write).write_all(b"x").unwrap();
                (&pipe_read).read_exact(&mut [0]).unwrap();
            }),
        ),
        ("read, out of time", {
            let (left, right) = UnixStream::pair().unwrap();
            left.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
            Box::new(move || assert!(((&left).read(&mut [0]).is_err(), &right).0))
        }),
        ("read, closed", Box::new(move || assert!((&closed).read(&mut [0]).is_err()))),
    ]
}

/// A connection that the hub knows, since a read has waited, and that is closed.
fn closed_stream() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(None).unwrap();
    stream.close();
    stream
}

/// Runs `wait` beside `number` threads that compute and then make `call`, over and over. It returns when what it waited for
/// had come; says how many slices began after that, before it ran again.
fn slices_until_it_runs(number: usize, call: Call, wait: impl FnOnce() -> Instant) -> u32 {
    let (stop, begun) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(Vec::new())));
    let call = Rc::new(call);
    let busy: Vec<_> = (0..number)
        .map(|_| {
            let (stop, begun, call) = (Rc::clone(&stop), Rc::clone(&begun), Rc::clone(&call));
            spawn(move || {
                while !stop.get() {
                    begun.borrow_mut().push(Instant::now());
                    compute();
                    call();
                }
            })
        })
        .collect();
    yield_now();
    let came = wait();
    let slices = begun.borrow().iter().filter(|begin| **begin > came).count() as u32;
    stop.set(true);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    slices
}

#[test]
fn a_timer_waits_for_one_slice_whatever_the_others_call_and_however_many_they_are() {
    let _guard = common::guard();
    let sleeper = || {
        let until = Instant::now() + 3 * SLICE;
        greenling::thread::sleep_until(until);
        until
    };
    for (name, call) in calls() {
        let slices = slices_until_it_runs(1, call, sleeper);
        assert!(slices <= MOST_SLICES, "{name}: {slices} slices after the time was over");
    }
    for number in [2, 10, 50] {
        let slices = slices_until_it_runs(number, Box::new(yield_now), sleeper);
        assert!(slices <= MOST_SLICES, "{number} threads: {slices} slices after the time was over");
    }
}

#[test]
fn a_packet_and_a_wake_up_from_outside_wait_for_one_slice() {
    let _guard = common::guard();
    for number in [1, 10] {
        let (near, far) = UnixStream::pair().unwrap();
        let far = std::os::unix::net::UnixStream::from(far);
        let packet = slices_until_it_runs(number, Box::new(yield_now), || {
            let peer = std::thread::spawn(move || {
                std::thread::sleep(3 * SLICE);
                (&far).write_all(b"x").unwrap();
                Instant::now()
            });
            (&near).read_exact(&mut [0]).unwrap();
            peer.join().unwrap()
        });
        assert!(packet <= MOST_SLICES, "{number}: {packet} slices after the packet had come");
        let main = greenling::thread::current();
        let letter = slices_until_it_runs(number, Box::new(yield_now), || {
            let peer = std::thread::spawn(move || {
                std::thread::sleep(3 * SLICE);
                main.unpark();
                Instant::now()
            });
            park();
            peer.join().unwrap()
        });
        assert!(letter <= MOST_SLICES, "{number}: {letter} slices after the unpark");
    }
}

/// Without a slice that is long: the calls themselves are all that the threads do.
#[test]
fn calls_that_never_wait_let_others_run_all_the_same() {
    let _guard = common::guard();
    for (name, call) in calls() {
        let stop = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&stop);
        let busy = spawn(move || {
            while !theirs.get() {
                call();
            }
        });
        // It hangs, if the call does not let a timer fire.
        sleep(Duration::from_millis(3));
        stop.set(true);
        busy.join().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_kill_reaches_a_loop_that_never_waits() {
    let _guard = common::guard();
    for (name, call) in calls() {
        let busy = spawn(move || -> () {
            loop {
                call();
            }
        });
        sleep(Duration::from_millis(1));
        assert!(busy.kill(), "{name}");
        assert!(busy.join().unwrap_err().is_killed(), "{name}");
        let limited = calls().into_iter().find(|it| it.0 == name).unwrap().1;
        let limit = timeout(Duration::from_millis(1), || -> () {
            loop {
                limited();
            }
        });
        assert!(limit.is_err(), "{name}");
    }
}

/// std's `mpsc::port_gone_concurrent`: the receiver takes one value and leaves, and the sender sends until it sees that.
#[test]
fn a_sender_that_never_waits_sees_that_the_receiver_has_left() {
    let _guard = common::guard();
    let (send, receive) = greenling::sync::mpsc::channel();
    drop(spawn(move || receive.recv().unwrap()));
    let mut sent = 0_u64;
    while send.send(1).is_ok() {
        sent += 1;
    }
    assert!(sent > 0);
}

/// The bytes of a turn are counted, not only its calls.
#[test]
fn a_connection_that_is_always_ready_gives_way_after_so_many_bytes() {
    let _guard = common::guard();
    const PIECE: usize = 64 * 1024;
    // A call costs a unit, and each whole piece that it moves one more. The call that gave way is free.
    const SHARE: usize = 128 + 2;
    // If the pump is slow, the reader waits. One that has done little before is woken ahead of this thread, eight times
    // at most (`INJECTED_TURNS`, `LIGHT`).
    const WAITS: usize = 8 * (16 + 2);
    let (near, far) = UnixStream::pair().unwrap();
    let far = std::os::unix::net::UnixStream::from(far);
    let pump = std::thread::spawn(move || {
        let piece = vec![0; PIECE];
        while (&far).write_all(&piece).is_ok() {}
    });
    let (units, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (counted, told) = (Rc::clone(&units), Rc::clone(&stop));
    let reader = spawn(move || {
        let mut room = vec![0; PIECE];
        while !told.get() {
            counted.set(counted.get() + 1 + (&near).read(&mut room).unwrap() / PIECE);
        }
    });
    let mut most = 0;
    while units.get() < 20 * SHARE {
        let before = units.get();
        yield_now();
        most = most.max(units.get() - before);
    }
    stop.set(true);
    reader.join().unwrap();
    pump.join().unwrap();
    assert!((1..=SHARE + WAITS).contains(&most), "{most} units in a turn");
}
