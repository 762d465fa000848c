//! Intervals against the clock. Which tick comes when is computed by functions with tests of their own in `src/time.rs`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use crate::common::{Log, OnDrop, guard, hog_until, in_virtual_time};
use greenling::time::{Duration, Instant, MissedTicks, interval, interval_at, now, sleep_until};
use greenling::{TimeoutError, no_switch, remaining, shield, sleep, spawn, timeout, timeout_at, yield_now};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_tick_never_comes_early_and_none_is_lost() {
    let _guard = guard();
    in_virtual_time(|| {
        let mut ticks = interval_at(now() + 3 * MS, 2 * MS);
        let first = ticks.next_tick();
        for n in 0..10 {
            assert_eq!(ticks.tick(), first + n * 2 * MS);
            assert_eq!(now(), first + n * 2 * MS);
        }
    });
}

#[test]
fn the_first_tick_comes_at_once_and_others_run_between_ticks() {
    let _guard = guard();
    in_virtual_time(|| {
        let log = Log::default();
        let mut ticks = interval(5 * MS);
        let began = now();
        assert!(ticks.tick() <= began);
        let theirs = log.clone();
        let other = spawn(move || theirs.say("other"));
        ticks.tick();
        log.say("tick");
        other.join().unwrap();
        assert_eq!(log.text(), "other tick");
    });
}

#[test]
fn each_policy_answers_to_missed_ticks_in_its_way() {
    let _guard = guard();
    let busy = |missed| {
        let mut ticks = interval(50 * MS).on_missed(missed);
        let first = ticks.tick();
        hog_until(first + 120 * MS); // the tick of 100 is missed when that of 50 is seen
        assert_eq!(ticks.tick(), first + 50 * MS);
        (first, Instant::now(), ticks.next_tick())
    };
    let (first, _, next) = busy(MissedTicks::Burst);
    assert_eq!(next, first + 100 * MS);
    let (first, seen, next) = busy(MissedTicks::Skip);
    assert!(next > first + 120 * MS && next <= seen + 50 * MS);
    assert_eq!((next - first).as_nanos() % (50 * MS).as_nanos(), 0);
    let (first, seen, next) = busy(MissedTicks::Delay);
    assert!(next >= first + 170 * MS && next <= seen + 50 * MS);
}

#[test]
fn a_loop_that_is_late_for_every_tick_lets_others_run_and_can_be_ended() {
    let _guard = guard();
    let nanosecond = Duration::from_nanos(1);
    let rounds = Rc::new(Cell::new(0));
    let count = Rc::clone(&rounds);
    let other = spawn(move || {
        for _ in 0..100 {
            count.set(count.get() + 1);
            yield_now();
        }
    });
    let mut ticks = interval(nanosecond);
    for _ in 0..100 {
        ticks.tick();
    }
    assert_eq!(rounds.get(), 100, "one turn for each tick");
    other.join().unwrap();
    let late = spawn(move || {
        loop {
            interval(nanosecond).tick();
        }
    });
    yield_now();
    assert!(late.kill());
    assert!(late.join().map(|never: ()| never).unwrap_err().is_killed());
    let past = Instant::now();
    let endless = timeout(5 * MS, || {
        loop {
            sleep_until(past);
        }
    });
    assert_eq!(endless.map(|never: ()| never), Err(TimeoutError::Elapsed));
    no_switch(|| ticks.tick()); // it is due, so it need not wait
}

#[test]
fn an_interrupted_tick_is_still_to_come() {
    let _guard = guard();
    in_virtual_time(|| {
        let mut ticks = interval_at(now() + 20 * MS, 20 * MS);
        let due = ticks.next_tick();
        assert_eq!(timeout(MS, || ticks.tick()), Err(TimeoutError::Elapsed));
        assert_eq!(ticks.next_tick(), due);
        let far = interval_at(now() + LONG, LONG);
        let far = std::rc::Rc::new(std::cell::RefCell::new(far));
        let theirs = std::rc::Rc::clone(&far);
        let unwinds = catch_unwind(AssertUnwindSafe(|| {
            let _in_destructor = OnDrop::new(move || {
                let due = theirs.borrow().next_tick();
                assert_eq!(theirs.borrow_mut().tick(), due, "it does not wait");
                assert_eq!(theirs.borrow().next_tick(), due, "nor counts it");
            });
            resume_unwind(Box::new(()))
        }));
        assert!(unwinds.is_err());
        assert_eq!(ticks.tick(), due);
    });
}

#[test]
fn a_reset_begins_anew() {
    let _guard = guard();
    let mut ticks = interval(LONG);
    ticks.tick();
    assert!(ticks.next_tick() > Instant::now() + LONG / 2);
    let mut ticks = interval(2 * MS);
    hog_until(Instant::now() + 10 * MS);
    let before = Instant::now();
    ticks.reset();
    assert!(ticks.next_tick() >= before + 2 * MS);
    assert!(ticks.tick() >= before + 2 * MS);
    assert_eq!(ticks.period(), 2 * MS);
}

#[test]
#[should_panic(expected = "an interval's period must be more than zero")]
fn a_period_of_zero_is_refused() {
    interval(Duration::ZERO);
}

#[test]
fn a_deadline_in_the_past_interrupts_the_first_wait_and_nothing_else() {
    let _guard = guard();
    in_virtual_time(|| {
        let past = now() - MS;
        assert_eq!(timeout_at(past, || 5), Ok(5));
        assert_eq!(timeout_at(past, || sleep(LONG)), Err(TimeoutError::Elapsed));
        assert_eq!(timeout_at(past, yield_now), Err(TimeoutError::Elapsed));
        sleep_until(past);
    });
}

#[test]
fn one_deadline_bounds_several_steps() {
    let _guard = guard();
    in_virtual_time(|| {
        let (began, deadline) = (now(), now() + 30 * MS);
        assert_eq!(timeout_at(deadline, || sleep(10 * MS)), Ok(()));
        assert_eq!(timeout_at(deadline, || sleep(LONG)), Err(TimeoutError::Elapsed));
        assert_eq!(now() - began, 30 * MS, "not anew for each step, nor early");
        // Each is caught by its own call only.
        let outer = timeout_at(now() + 5 * MS, || {
            let inner = timeout_at(now() + LONG, || sleep(LONG));
            unreachable!("{inner:?}")
        });
        assert_eq!(outer, Err::<(), _>(TimeoutError::Elapsed));
        assert_eq!(timeout(LONG, || timeout_at(now(), || sleep(LONG))), Ok(Err(TimeoutError::Elapsed)));
    });
}

#[test]
fn remaining_is_the_time_until_the_nearest_deadline() {
    let _guard = guard();
    in_virtual_time(|| {
        let secs = Duration::from_secs;
        assert_eq!(remaining(), None);
        let nested = timeout(secs(1000), || {
            assert!((secs(900)..=secs(1000)).contains(&remaining().unwrap()));
            timeout(secs(2000), || assert!(remaining().unwrap() <= secs(1000), "the outer one is nearer")).unwrap();
            timeout(secs(500), || assert!(remaining().unwrap() <= secs(500))).unwrap();
            assert!(remaining().unwrap() > secs(900), "the inner one is over");
            assert_eq!(shield(remaining), None);
            assert_eq!(spawn(remaining).join().unwrap(), None);
            shield(|| timeout(secs(5), || assert!(remaining().unwrap() <= secs(5)))).unwrap();
        });
        assert_eq!(nested, Ok(()));
        assert_eq!(timeout(Duration::ZERO, remaining), Ok(Some(Duration::ZERO)));
        assert_eq!(remaining(), None);
        assert!(timeout(Duration::MAX, remaining).unwrap().unwrap() > LONG);
    });
}
