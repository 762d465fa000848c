//! `timeout` (docs/book, chapter 12): which one fires, which scope catches it, what it leaves alone.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::common::{self, Log, hog_until, in_virtual_time};
use greenling::sim::advance;
use greenling::thread::{park, park_timeout, scope, sleep_until, spawn, yield_now};
use greenling::time::now;
use greenling::{Greenlet, TimeoutError, sleep, timeout, timeout_at};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);
/// A moment.
const SHORT: Duration = Duration::from_millis(4);

/// Long enough that what is inside has begun, also on a machine that is slow.
const BEGUN: Duration = Duration::from_millis(60);

/// What a timeout says.
const ELAPSED: Result<(), TimeoutError> = Err(TimeoutError::Elapsed);

#[test]
fn the_earliest_of_nested_timeouts_fires_and_only_its_own_call_catches_it() {
    let _guard = common::guard();
    in_virtual_time(|| {
        // The inner one.
        let outer = timeout(LONG, || {
            assert_eq!(timeout(SHORT, park), ELAPSED);
            "outer goes on"
        });
        assert_eq!(outer, Ok("outer goes on"));
        // The outer one.
        let inner_returned = Cell::new(false);
        let outer = timeout(SHORT, || {
            let _ = timeout(LONG, park);
            inner_returned.set(true);
        });
        assert_eq!(outer, ELAPSED);
        assert!(!inner_returned.get());
        // The middle one of three.
        let log = Log::default();
        let outer = timeout(LONG, || {
            let middle = timeout(SHORT, || {
                let _ = timeout(LONG, park);
                log.say("never");
            });
            log.say(format_args!("{middle:?}"));
        });
        assert_eq!((outer, log.text().as_str()), (Ok(()), "Err(Elapsed)"));
    });
}

#[test]
fn the_outer_timeout_keeps_counting_while_the_inner_one_fires() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let began = now();
        let fired = Cell::new(0);
        let outer = timeout(Duration::from_millis(30), || {
            loop {
                assert_eq!(timeout(SHORT, park), ELAPSED);
                fired.set(fired.get() + 1);
            }
        });
        assert_eq!(outer, Err::<(), _>(TimeoutError::Elapsed));
        assert_eq!(now() - began, Duration::from_millis(30));
        assert_eq!(fired.get(), 7, "every 4 ms, and not at 32");
    });
}

#[test]
fn of_two_that_expire_together_the_outer_one_wins_or_the_inner_one_but_never_both() {
    let _guard = common::guard();
    let inner = Cell::new(None);
    let outer = timeout(SHORT, || {
        inner.set(Some(timeout(SHORT, || hog_until(Instant::now() + 2 * SHORT))));
        inner.set(Some(timeout(SHORT, park)));
        park();
    });
    assert_eq!(outer, ELAPSED);
    assert_eq!(inner.get(), Some(Ok(())), "the first never blocked, the second belongs to the outer one");
}

#[test]
fn leaving_a_timeout_cancels_it() {
    let _guard = common::guard();
    in_virtual_time(|| {
        assert_eq!(timeout(SHORT, || 7), Ok(7));
        sleep(3 * SHORT);
        let panicked = catch_unwind(|| timeout(SHORT, || std::panic::resume_unwind(Box::new("out"))));
        assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "out");
        park_timeout(3 * SHORT);
        assert_eq!(timeout(SHORT, || timeout(LONG, || 1)), Ok(Ok(1)));
        yield_now();
    });
}

#[test]
fn code_that_never_blocks_is_not_interrupted() {
    let _guard = common::guard();
    let late = timeout(SHORT, || {
        hog_until(Instant::now() + 2 * SHORT);
        "late"
    });
    assert_eq!(late, Ok("late"));
}

#[test]
fn no_time_at_all_ends_the_first_wait() {
    let _guard = common::guard();
    in_virtual_time(|| {
        assert_eq!(timeout(Duration::ZERO, || 1), Ok(1));
        assert_eq!(timeout(Duration::ZERO, park), ELAPSED);
        assert_eq!(timeout(Duration::ZERO, || sleep(Duration::from_nanos(1))), ELAPSED);
        assert_eq!(timeout(Duration::ZERO, yield_now), ELAPSED);
        // What need not wait is not interrupted.
        let ended = spawn(|| ());
        yield_now();
        assert_eq!(timeout(Duration::ZERO, || ended.join().is_ok()), Ok(true));
        assert_eq!(timeout(Duration::ZERO, || spawn(park).join().is_ok()), Err(TimeoutError::Elapsed));
    });
}

#[test]
fn for_ever_is_a_long_time() {
    let _guard = common::guard();
    in_virtual_time(|| {
        assert_eq!(timeout(Duration::MAX, || sleep(SHORT)), Ok(()));
        assert_eq!(timeout(Duration::MAX, || timeout(SHORT, park)), Ok(ELAPSED));
        assert_eq!(timeout(SHORT, || timeout(Duration::MAX, park)), Err(TimeoutError::Elapsed));
        assert_eq!(timeout(SHORT, || sleep(Duration::MAX)), ELAPSED);
        assert_eq!(timeout(SHORT, || park_timeout(Duration::MAX)), ELAPSED);
    });
}

#[test]
fn a_timeout_that_is_swallowed_is_raised_again() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let log = Log::default();
        let result = timeout(SHORT, || {
            for _ in 0..3 {
                let caught = catch_unwind(AssertUnwindSafe(|| sleep(LONG)));
                log.say(caught.is_err());
            }
            yield_now();
            log.say("never");
        });
        assert_eq!(result, ELAPSED);
        assert_eq!(log.text(), "true true true");
    });
}

#[test]
fn a_loop_of_yields_is_interrupted() {
    let _guard = common::guard();
    let result = timeout(BEGUN, || {
        loop {
            yield_now();
        }
    });
    assert_eq!(result, Err::<(), _>(TimeoutError::Elapsed));
}

#[test]
fn each_thread_has_its_own() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let log = Log::default();
        let threads: Vec<_> = [3, 1, 2]
            .into_iter()
            .map(|n| {
                let log = log.clone();
                spawn(move || {
                    assert_eq!(timeout(n * Duration::from_millis(10), park), ELAPSED);
                    log.say(n);
                })
            })
            .collect();
        // Main's timeout is not that of the threads it spawned.
        let child = timeout(LONG, || spawn(|| sleep(SHORT)));
        assert_eq!(timeout(SHORT, || spawn(|| sleep(2 * SHORT))).map(drop), Ok(()));
        child.unwrap().join().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(log.text(), "1 2 3");
    });
}

#[test]
fn a_timeout_around_a_scope_kills_its_threads_first() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let log = Log::default();
        let borrowed = String::from("borrowed");
        let result = timeout(BEGUN, || {
            scope(|s| {
                s.spawn(|| {
                    let _mark = log.on_drop("unwound");
                    sleep(LONG);
                    log.say(&borrowed);
                });
            });
        });
        log.say("after");
        assert_eq!(result, ELAPSED);
        assert_eq!(log.text(), "unwound after");
        // Inside a scope: only the waiting thread of it.
        let sum = scope(|s| {
            let a = s.spawn(|| timeout(SHORT, park));
            let b = s.spawn(|| timeout(LONG, || 2));
            (a.join().unwrap(), b.join().unwrap())
        });
        assert_eq!(sum, (ELAPSED, Ok(2)));
    });
}

#[test]
fn a_timeout_interrupts_a_wait_for_a_greenlet_that_blocks() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let result = timeout(SHORT, || {
            Greenlet::new(|n: u32| {
                sleep(LONG);
                n
            })
            .switch(1)
        });
        assert_eq!(result, Err(TimeoutError::Elapsed));
    });
}

/// A wake-up that is there when the time is over wins (5.3: ready beats late).
#[test]
fn a_permit_that_came_in_the_same_turn_beats_the_timeout() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let thread = spawn(|| timeout(SHORT, park));
        yield_now();
        advance(2 * SHORT);
        thread.thread().unpark();
        assert_eq!(thread.join().unwrap(), Ok(()));
    });
}

#[test]
fn an_error_tells_what_it_is() {
    assert_eq!(TimeoutError::Elapsed.to_string(), "the time limit was reached");
    assert_eq!(std::io::Error::from(TimeoutError::Elapsed).kind(), std::io::ErrorKind::TimedOut);
}

/// One moment, whoever names it: the outer one gives the result, also at the border where two readings of a clock differ.
#[test]
fn of_timeouts_that_end_at_the_same_moment_the_outer_one_fires() {
    let _guard = common::guard();
    for round in 0..500 {
        let at = Instant::now() + Duration::from_micros(100 + round % 7);
        assert_eq!(timeout_at(at, || timeout_at(at, park)), Err(TimeoutError::Elapsed), "round {round}");
        let three = timeout_at(at, || timeout_at(at, || timeout_at(at, park)));
        assert_eq!(three, Err(TimeoutError::Elapsed), "it has passed, in round {round}");
        let limit = Duration::from_micros(round % 5 * 40);
        assert_eq!(timeout(limit, || timeout(limit, park)), Err(TimeoutError::Elapsed), "round {round}");
        // A limit of the call's own is the innermost.
        let at = Instant::now() + Duration::from_micros(100);
        assert_eq!(timeout_at(at, || sleep_until(at)), ELAPSED, "round {round}");
    }
    // Neither of them is far from what was asked for.
    let at = Instant::now() + SHORT;
    assert_eq!(timeout_at(at, park), ELAPSED);
    assert!(Instant::now() >= at, "not early");
    for never in [Duration::MAX, Duration::from_secs(1 << 40)] {
        assert_eq!(timeout(never, || timeout(never, || 5)), Ok(Ok(5)));
    }
}

#[test]
fn a_nearer_moment_wins_however_close_it_is() {
    let _guard = common::guard();
    in_virtual_time(|| {
        for _ in 0..200 {
            let outer = now() + Duration::from_micros(100);
            let inner = outer - Duration::from_nanos(1);
            assert_eq!(timeout_at(outer, || timeout_at(inner, park)), Ok(ELAPSED));
            assert_eq!(timeout_at(inner, || timeout_at(outer, park)), Err(TimeoutError::Elapsed));
        }
    });
}
