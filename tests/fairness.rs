//! Fairness (design 5.2): threads that never stop yielding do not keep timers or letters of other OS threads waiting.
#![forbid(unsafe_code)]

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::thread::{JoinHandle, park, spawn, yield_now};
use greenling::{sleep, timeout};

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
                    yield_now();
                    yields.set(yields.get() + 1);
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
fn a_letter_arrives_while_others_yield_all_the_time() {
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

/// Within one round of the queue everybody runs once.
#[test]
fn everybody_gets_the_same_number_of_turns() {
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
    common::hog_until(until);
    let mut seen = Vec::new();
    while woken.get() < 5000 {
        yield_now();
        seen.push(woken.get());
    }
    seen.dedup();
    assert!(seen.len() > 2, "main ran between the batches: {seen:?}");
    sleepers.into_iter().for_each(|thread| thread.join().unwrap());
}
