//! Timers: never early, in order, cancelled without a trace, and no burden to anybody else.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::{self, hog_until, in_virtual_time};
use greenling::sim::advance;
use greenling::thread::{park, park_timeout, sleep_until, spawn, yield_now};
use greenling::time::now;
use greenling::{sleep, timeout};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// Design 5.3.
#[test]
fn a_timer_never_fires_early() {
    let _guard = common::guard();
    let mut random = common::Random::new();
    let mut spans: Vec<Duration> = vec![
        Duration::from_nanos(1),
        Duration::from_nanos(999),
        // One tick of the wheel is 16 384 ns, one slot of its second level 1 048 576.
        Duration::from_nanos(16_383),
        Duration::from_nanos(16_384),
        Duration::from_nanos(16_385),
        Duration::from_micros(100),
        Duration::from_nanos(1_048_575),
        Duration::from_nanos(1_048_577),
        Duration::from_millis(5),
        Duration::from_millis(70),
    ];
    spans.extend((0..300).map(|_| Duration::from_nanos(random.below(20_000_000))));
    let threads: Vec<_> = spans
        .into_iter()
        .map(|span| {
            spawn(move || {
                for way in 0..4 {
                    let began = Instant::now();
                    match way {
                        0 => sleep(span),
                        1 => park_timeout(span),
                        2 => drop(timeout(span, park).unwrap_err()),
                        _ => sleep_until(began + span),
                    }
                    let took = began.elapsed();
                    assert!(took >= span, "way {way}: {took:?} instead of {span:?}");
                }
            })
        })
        .collect();
    // Alone as well, when the hub sleeps in the kernel.
    for span in [1, 50, 1000, 20_000].map(Duration::from_micros) {
        let began = Instant::now();
        sleep(span);
        assert!(began.elapsed() >= span);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    let _guard = common::guard();
    let mut random = common::Random::new();
    let spans: Vec<_> = (0..500).map(|_| Duration::from_micros(1 + random.below(30_000))).collect();
    let (starts, order) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
    let threads: Vec<_> = (0..spans.len())
        .map(|number| {
            let (starts, order, span) = (Rc::clone(&starts), Rc::clone(&order), spans[number]);
            spawn(move || {
                starts.borrow_mut().push(Instant::now());
                sleep(span);
                order.borrow_mut().push(number);
            })
        })
        .collect();
    yield_now();
    starts.borrow_mut().push(Instant::now());
    // All are over when the hub looks: the order must come from the deadlines, not from the looks.
    hog_until(Instant::now() + Duration::from_millis(40));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    // Each read the clock between its own start and the next one's.
    let (starts, order) = (starts.borrow(), order.borrow());
    for pair in order.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        assert!(starts[first] + spans[first] <= starts[second + 1] + spans[second], "{first} before {second}");
    }
}

/// A thread keeps one wheel entry, and an earlier one from an earlier wait does not put it before its turn.
#[test]
fn an_entry_left_over_from_an_earlier_wait_does_not_change_the_order() {
    let _guard = common::guard();
    let order = in_virtual_time(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let sleeper = |name: &'static str, before: Option<u64>, millis: u64| {
            let order = Rc::clone(&order);
            spawn(move || {
                if let Some(before) = before {
                    // Main ends this wait at once, and its entry stays in the wheel.
                    let _ = timeout(Duration::from_millis(before), park);
                }
                sleep(Duration::from_millis(millis));
                order.borrow_mut().push(name);
            })
        };
        let threads = [sleeper("third", Some(50), 400), sleeper("first", None, 250), sleeper("second", Some(100), 300)];
        yield_now();
        threads.iter().for_each(|thread| thread.thread().unpark());
        yield_now();
        advance(Duration::from_millis(450));
        // Main stays runnable, so that the hub looks at the timers that are over, and does not prepare to sleep.
        while order.borrow().len() < 3 {
            yield_now();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        order.take()
    });
    assert_eq!(order, ["first", "second", "third"]);
}

#[test]
fn a_wait_that_ends_in_time_leaves_no_timer_that_wakes_a_thread() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let thread = spawn(|| {
            for _ in 0..100 {
                let me = greenling::thread::current();
                me.unpark();
                park_timeout(Duration::from_millis(1));
            }
            let began = now();
            park_timeout(Duration::from_millis(20));
            now() - began
        });
        assert!(thread.join().unwrap() >= Duration::from_millis(20));
    });
}

#[test]
fn killed_sleepers_leave_the_wheel() {
    let _guard = common::guard();
    in_virtual_time(|| {
        for _ in 0..3 {
            let threads: Vec<_> = (0..1000).map(|_| spawn(|| sleep(LONG))).collect();
            yield_now();
            threads.iter().for_each(|thread| assert!(thread.kill()));
            threads.into_iter().for_each(|thread| assert!(thread.join().unwrap_err().is_killed()));
        }
        // A key that was left would now belong to a reused stack.
        let thread = spawn(|| {
            let began = now();
            sleep(Duration::from_millis(5));
            now() - began
        });
        assert!(thread.join().unwrap() >= Duration::from_millis(5));
    });
}

#[test]
fn time_that_has_passed_is_no_wait() {
    let _guard = common::guard();
    let other = spawn(|| ());
    greenling::no_switch(|| {
        sleep_until(Instant::now());
        assert!(!other.is_finished());
    });
    sleep(Duration::ZERO);
    assert!(other.is_finished(), "no time at all is a yield");
}

/// Issue 2, item 3. Counts, not a stopwatch: while two threads yield to each other, the sleepers do not run once.
#[test]
fn sleeping_threads_do_not_run() {
    let _guard = common::guard();
    // As many as an optimised build starts in a moment.
    const SLEEPERS: usize = if cfg!(debug_assertions) { 50_000 } else { 200_000 };
    let woken = Rc::new(Cell::new(0_usize));
    let sleepers: Vec<_> = (0..SLEEPERS)
        .map(|number| {
            let woken = Rc::clone(&woken);
            // Spread over all levels of the wheel.
            let span = Duration::from_secs(3600) + Duration::from_millis(number as u64 * 7919 % 86_400_000);
            greenling::thread::Builder::new().stack_size(32 * 1024).spawn(move || {
                sleep(span);
                woken.set(woken.get() + 1);
            })
        })
        .collect::<Result<_, _>>()
        .unwrap();
    yield_now();
    assert_eq!(greenling::hub::live_threads(), SLEEPERS);
    let turns = Rc::new(Cell::new(0_u64));
    let pair: Vec<_> = (0..2)
        .map(|_| {
            let turns = Rc::clone(&turns);
            spawn(move || {
                for _ in 0..50_000 {
                    yield_now();
                    turns.set(turns.get() + 1);
                }
            })
        })
        .collect();
    // A short sleep among the long ones, many times over.
    let mut short = 0;
    while short < 50 {
        sleep(Duration::from_micros(50));
        short += 1;
    }
    pair.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((turns.get(), woken.get()), (100_000, 0));
    sleepers.iter().for_each(|thread| assert!(thread.kill()));
    for thread in sleepers {
        assert!(thread.join().unwrap_err().is_killed());
    }
    assert_eq!(greenling::hub::live_threads(), 0);
}

/// As a server's read timeout: each wait moves the deadline, and the wheel entry of an earlier one stays (docs/book, chapter 8).
#[test]
fn a_deadline_that_moves_never_fires_early() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let mut random = common::Random::new();
        let over = now() + Duration::from_millis(500);
        let threads: Vec<_> = (0..50)
            .map(|_| {
                let mut random = random.fork();
                spawn(move || {
                    let (mut timed_out, mut early) = (0, 0);
                    while now() < over {
                        let (limit, began) = (Duration::from_micros(1 + random.below(8_000)), now());
                        let woken = match random.below(3) {
                            0 => {
                                park_timeout(limit);
                                (now() - began) < limit
                            }
                            1 => timeout(limit, park).is_ok(),
                            _ => timeout(LONG, || timeout(limit, park)).expect("an hour").is_ok(),
                        };
                        assert!(woken || (now() - began) >= limit, "early: {:?} instead of {limit:?}", (now() - began));
                        timed_out += u32::from(!woken);
                        early += u32::from(woken);
                    }
                    (timed_out, early)
                })
            })
            .collect();
        let handles: Vec<_> = threads.iter().map(|thread| thread.thread().clone()).collect();
        let mut unparks = 0;
        while now() < over {
            for _ in 0..random.below(10) {
                handles[random.below(50) as usize].unpark();
                unparks += 1;
            }
            if random.below(3) == 0 { sleep(Duration::from_micros(random.below(500))) } else { yield_now() }
        }
        let ends = threads.into_iter().map(|thread| thread.join().unwrap());
        let (timed_out, early) = ends.fold((0, 0), |sum, end| (sum.0 + end.0, sum.1 + end.1));
        // Whoever did not time out was unparked.
        assert!(timed_out > 0 && early > 0 && early <= unparks, "{timed_out} late, {early} early, {unparks} unparks");
    });
}
