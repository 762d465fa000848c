//! Park and unpark: one permit, from this OS thread and from others, and never a lost wake-up.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::common;
use greenling::thread::{Thread, current, park, park_timeout, spawn, yield_now};
use greenling::{sim, sleep};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn there_is_one_permit_and_it_keeps() {
    let _guard = common::guard();
    let me = current();
    me.unpark();
    me.unpark();
    park();
    let began = Instant::now();
    park_timeout(Duration::from_millis(5));
    assert!(began.elapsed() >= Duration::from_millis(5), "two unparks are one permit");
    me.unpark();
    park_timeout(LONG);
}

#[test]
fn a_thread_that_is_not_parked_keeps_its_permit_through_other_waits() {
    let _guard = common::guard();
    let thread = spawn(|| {
        let began = Instant::now();
        sleep(Duration::from_millis(5));
        assert!(began.elapsed() >= Duration::from_millis(5), "an unpark does not end a sleep");
        spawn(yield_now).join().unwrap();
        park();
    });
    // Before it started, and then in its sleep.
    thread.thread().unpark();
    yield_now();
    thread.thread().unpark();
    thread.join().unwrap();
}

#[test]
fn park_timeout_ends_by_itself_and_takes_a_late_permit() {
    let _guard = common::guard();
    common::in_virtual_time(|| {
        let thread = spawn(|| {
            park_timeout(Duration::from_millis(2));
            // Unparked after its time was over but before it ran: the permit must be gone or be there, not both.
            let began = sim::elapsed();
            park_timeout(Duration::from_millis(5));
            sim::elapsed() - began
        });
        yield_now();
        sim::advance(Duration::from_millis(4));
        thread.thread().unpark();
        assert_eq!(thread.join().unwrap(), Duration::from_millis(5), "the first park took the permit");
    });
}

#[test]
fn handles_of_dead_threads_do_nothing() {
    let _guard = common::guard();
    let thread = spawn(|| ());
    let dead = thread.thread().clone();
    thread.join().unwrap();
    // The next thread has the same stack and control block.
    let next = spawn(|| {
        let began = Instant::now();
        park_timeout(Duration::from_millis(5));
        began.elapsed()
    });
    yield_now();
    dead.unpark();
    std::thread::scope(|s| drop(s.spawn(|| dead.unpark())));
    assert!(next.join().unwrap() >= Duration::from_millis(5), "an unpark went to the wrong thread");
}

#[test]
fn main_of_a_test_can_be_unparked_from_an_os_thread() {
    let _guard = common::guard();
    let main = current();
    for round in 0..100 {
        let main = main.clone();
        let os = std::thread::spawn(move || {
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            main.unpark();
        });
        park();
        os.join().unwrap();
    }
}

#[test]
fn handles_outlive_the_hub() {
    let _guard = common::guard();
    let (send, receive) = mpsc::channel();
    let os = std::thread::spawn(move || {
        let thread = spawn(park);
        send.send((thread.thread().clone(), current())).unwrap();
        let _ = thread;
    });
    let (green, main) = receive.recv().unwrap();
    os.join().unwrap();
    for _ in 0..1000 {
        green.unpark();
        main.unpark();
    }
    assert_ne!(green.id(), main.id());
    drop((green.clone(), main));
    green.unpark();
}

#[test]
fn handles_are_send_and_sync() {
    fn both<T: Send + Sync + 'static>() {}
    both::<Thread>();
    both::<greenling::thread::ThreadId>();
}

/// Each unpark is answered before the next one is sent, so one that is lost hangs the test.
#[test]
fn no_wake_up_from_an_os_thread_is_lost() {
    let _guard = common::guard();
    let mut random = common::Random::new();
    const GREEN: usize = 8;
    const OS: u64 = 3;
    let rounds: u64 = 2000;
    // Number of requests and answers for each green thread.
    let boxes: Arc<Vec<(AtomicU64, AtomicU64)>> = Arc::new((0..GREEN).map(|_| Default::default()).collect());
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..GREEN)
        .map(|number| {
            let (boxes, over) = (Arc::clone(&boxes), Arc::clone(&over));
            let mut random = random.fork();
            spawn(move || {
                let (requests, answers) = &boxes[number];
                let mut parks = 0_u64;
                while !over.load(Ordering::Acquire) {
                    // What the unparker wrote before it unparked is seen after the park.
                    let seen = requests.load(Ordering::Relaxed);
                    answers.store(seen, Ordering::Release);
                    match random.below(4) {
                        0 => yield_now(),
                        1 => sleep(Duration::from_micros(random.below(50))),
                        _ => {}
                    }
                    park();
                    parks += 1;
                }
                parks
            })
        })
        .collect();
    let handles: Vec<Thread> = threads.iter().map(|thread| thread.thread().clone()).collect();
    let os: Vec<_> = (0..OS)
        .map(|number| {
            let (boxes, handles) = (Arc::clone(&boxes), handles.clone());
            let mut random = random.fork();
            std::thread::spawn(move || {
                // Each has green threads of its own to ask, so that requests and answers can be compared.
                let mine: Vec<usize> = (0..GREEN).filter(|green| *green as u64 % OS == number).collect();
                for _ in 0..rounds {
                    let green = mine[random.below(mine.len() as u64) as usize];
                    let (requests, answers) = &boxes[green];
                    let request = requests.load(Ordering::Relaxed) + 1;
                    requests.store(request, Ordering::Relaxed);
                    handles[green].unpark();
                    let began = Instant::now();
                    while answers.load(Ordering::Acquire) != request {
                        std::thread::yield_now();
                        assert!(began.elapsed() < Duration::from_secs(60), "a wake-up was lost");
                    }
                    // Sometimes long enough that the hub sleeps in the kernel.
                    if random.below(16) == 0 {
                        std::thread::sleep(Duration::from_micros(random.below(200)));
                    }
                }
            })
        })
        .collect();
    // Main is a green thread like any other and lets the hub run until the OS threads are done.
    while os.iter().any(|os| !os.is_finished()) {
        sleep(Duration::from_micros(300));
    }
    os.into_iter().for_each(|os| os.join().unwrap());
    over.store(true, Ordering::Release);
    handles.iter().for_each(Thread::unpark);
    let parks: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let requests: u64 = boxes.iter().map(|(requests, _)| requests.load(Ordering::Relaxed)).sum();
    assert_eq!(requests, OS * rounds);
    assert!(parks <= requests + GREEN as u64, "{parks} parks for {requests} unparks");
}

#[test]
fn many_unparks_are_few_wake_ups() {
    let _guard = common::guard();
    let wakes = Rc::new(Cell::new(0_u64));
    let over = Arc::new(AtomicBool::new(false));
    let (counted, seen) = (Rc::clone(&wakes), Arc::clone(&over));
    let thread = spawn(move || {
        while !seen.load(Ordering::Acquire) {
            park();
            counted.set(counted.get() + 1);
        }
    });
    yield_now();
    let handle = thread.thread().clone();
    let flag = Arc::clone(&over);
    // All letters are there before the hub looks: this OS thread waits for the other one without its hub.
    std::thread::spawn(move || {
        for _ in 0..10_000 {
            handle.unpark();
        }
        flag.store(true, Ordering::Release);
        handle.unpark();
    })
    .join()
    .unwrap();
    thread.join().unwrap();
    assert_eq!(wakes.get(), 1, "10 001 letters, one permit");
}

#[test]
fn a_greenlets_fiber_can_park_and_be_unparked() {
    let _guard = common::guard();
    let (send, receive) = mpsc::channel();
    let os = std::thread::spawn(move || {
        let handle: Thread = receive.recv().unwrap();
        handle.unpark();
    });
    let greenlet = greenling::Greenlet::new(move |n: u32| {
        send.send(current()).unwrap();
        park();
        n + 1
    });
    assert_eq!(greenlet.switch(1), 2);
    os.join().unwrap();
}

/// What an OS thread has in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The letters of one hub that does not look: one for each thread, however often it is unparked, and none is lost.
#[test]
fn any_number_of_unparks_of_a_hub_that_does_not_look_fits_in_one_remote_op() {
    let output =
        common::child("parking::any_number_of_unparks_of_a_hub_that_does_not_look_fits_in_one_remote_op", || {
            let threads: Vec<_> = (0..4).map(|_| spawn(park)).collect();
            yield_now();
            let handles: Vec<_> = threads.iter().map(|thread| thread.thread().clone()).collect();
            let me = current();
            // Kills go the same way.
            let remote = greenling::hub::handle().spawn(|| {
                loop {
                    let _ = std::panic::catch_unwind(|| sleep(LONG));
                    if std::panic::catch_unwind(yield_now).is_err() {
                        return;
                    }
                }
            });
            (0..3).for_each(|_| yield_now());
            let before = resident();
            // The OS thread of this hub is blocked meanwhile.
            std::thread::spawn(move || {
                let clones: Vec<_> = handles.to_vec();
                for _ in 0..250_000 {
                    handles.iter().chain(&clones).for_each(Thread::unpark);
                    me.unpark();
                    remote.kill();
                }
            })
            .join()
            .unwrap();
            let grown = resident().saturating_sub(before);
            assert!(grown < 16 << 20, "{grown} bytes more, for five threads");
            for thread in threads {
                thread.join().unwrap();
            }
            park();
        });
    assert!(output.status.success(), "{output:?}");
}
