//! Virtual time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::sync::{Condvar, Event, Mutex, Semaphore};
use greenling::time::{interval, now};
use greenling::{channel, select, sim, sleep, spawn, thread, timeout, timeout_at};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_hour_passes_in_no_time_and_to_the_nanosecond() {
    let began = Instant::now();
    let waited = sim::run(1, || {
        let start = now();
        for _ in 0..1000 {
            sleep(HOUR);
        }
        assert_eq!(now() - start, 1000 * HOUR);
        sim::elapsed()
    });
    assert_eq!(waited, 1000 * HOUR);
    assert!(began.elapsed() < HOUR);
}

#[test]
fn a_thread_may_compute_to_the_end_of_time() {
    let passed = sim::run(1, || {
        let waits = spawn(|| timeout(HOUR, thread::park));
        thread::yield_now();
        sim::advance(Duration::MAX);
        sim::advance(Duration::MAX);
        assert!(waits.join().unwrap().is_err());
        sim::elapsed()
    });
    assert!(passed > HOUR, "{passed:?}");
    let outside = std::panic::catch_unwind(|| sim::advance(HOUR)).unwrap_err();
    let text = outside.downcast_ref::<&str>().copied().or(outside.downcast_ref::<String>().map(String::as_str));
    assert!(text.is_some_and(|text| text.contains("for a simulation")), "{text:?}");
}

#[test]
fn every_run_starts_at_the_same_moment() {
    let start = || (now(), sim::elapsed());
    assert_eq!(sim::run(1, start), sim::run(2, start));
    assert_eq!(sim::run(3, start).1, Duration::ZERO);
}

#[test]
fn all_limits_follow_the_virtual_clock() {
    sim::run(1, || {
        let start = now();
        let passed = |hours: u32| assert_eq!(now() - start, hours * HOUR);
        assert!(timeout(HOUR, || sleep(2 * HOUR)).is_err());
        passed(1);
        assert!(timeout_at(now() + HOUR, thread::park).is_err());
        passed(2);
        thread::park_timeout(HOUR);
        passed(3);
        greenling::time::sleep_until(now() + HOUR);
        passed(4);
        assert!(!Event::new().wait_timeout(HOUR));
        passed(5);
        let (_send, receive) = channel::unbounded::<()>();
        assert!(receive.recv_timeout(HOUR).is_err());
        passed(6);
        let (lock, changed) = (Mutex::new(()), Condvar::new());
        assert!(changed.wait_timeout(lock.lock().unwrap(), HOUR).unwrap().1.timed_out());
        passed(7);
        select! { recv(receive) -> _got => unreachable!(), after(HOUR) => passed(8) }
        let mut ticks = interval(HOUR);
        for _ in 0..3 {
            ticks.tick();
        }
        passed(10);
        assert!(Semaphore::new(0).acquire_timeout(HOUR).is_none());
        passed(11);
    });
}

#[test]
fn timers_fire_in_the_order_of_their_deadlines() {
    let order = sim::run(7, || {
        let order = Rc::new(RefCell::new(Vec::new()));
        let threads: Vec<_> = [50, 3, 1_000_000, 20, 4, 3600]
            .into_iter()
            .map(|seconds| {
                let order = Rc::clone(&order);
                spawn(move || {
                    sleep(Duration::from_secs(seconds));
                    assert_eq!(sim::elapsed(), Duration::from_secs(seconds));
                    order.borrow_mut().push(seconds);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        order.take()
    });
    assert_eq!(order, [3, 4, 20, 50, 3600, 1_000_000]);
}

#[test]
fn time_stands_still_while_a_thread_can_run() {
    sim::run(1, || {
        let other = spawn(|| sleep(HOUR));
        (0..1000).for_each(|_| greenling::yield_now());
        assert_eq!(sim::elapsed(), Duration::ZERO);
        other.join().unwrap();
        assert_eq!(sim::elapsed(), HOUR);
    });
}

#[test]
fn threads_with_thread_locals_of_their_own_have_the_same_time() {
    sim::run(1, || {
        sleep(HOUR);
        let own = thread::Builder::new().own_thread_locals().spawn(|| {
            sleep(HOUR);
            sim::elapsed()
        });
        // Not every system can have them.
        if let Ok(own) = own {
            assert_eq!(own.join().unwrap(), 2 * HOUR);
        }
    });
}

#[test]
fn outside_of_a_simulation_the_time_is_the_kernels() {
    assert!(!sim::is_simulated());
    assert_eq!((sim::elapsed(), sim::seed()), (Duration::ZERO, None));
    let (before, here, after) = (Instant::now(), now(), Instant::now());
    assert!(before <= here && here <= after);
    sim::run(5, || assert_eq!((sim::is_simulated(), sim::seed()), (true, Some(5))));
}

#[test]
fn a_condition_is_waited_for_in_virtual_time() {
    sim::run(1, || {
        sim::assert_eventually(2 * HOUR, || sim::elapsed() >= HOUR);
    });
    let failed = sim::Config::new().schedules(1).check(|| sim::assert_eventually(HOUR, || false)).unwrap_err();
    assert!(failed.message().starts_with("it did not become true in 3600s"), "{failed}");
}
