//! `sync::{Semaphore, Event, AsyncResult, WaitGroup}`: their promises and their errors.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::{self, Log, OnDrop, settle};
use greenling::sync::{AsyncResult, Event, Semaphore, WaitGroup};
use greenling::thread::{park, spawn, yield_now};
use greenling::{TimeoutError, timeout};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(5);

// ---- Semaphore ------------------------------------------------------------------------------------------------------

#[test]
fn no_more_threads_than_permits_are_in_and_they_come_in_order() {
    let _guard = common::guard();
    common::in_virtual_time(|| {
        let (semaphore, log) = (Rc::new(Semaphore::new(3)), Log::default());
        let (inside, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let threads: Vec<_> = (0..10)
            .map(|n| {
                let (semaphore, log) = (Rc::clone(&semaphore), log.clone());
                let (inside, most) = (Rc::clone(&inside), Rc::clone(&most));
                spawn(move || {
                    let _permit = semaphore.acquire();
                    log.say(n);
                    inside.set(inside.get() + 1);
                    most.set(most.get().max(inside.get()));
                    (0..n % 3).for_each(|_| yield_now());
                    inside.set(inside.get() - 1);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((most.get(), semaphore.available_permits()), (3, 3));
        assert_eq!(log.text(), "0 1 2 3 4 5 6 7 8 9");
    });
}

#[test]
fn a_released_permit_cannot_be_stolen() {
    let _guard = common::guard();
    let semaphore = Rc::new(Semaphore::new(0));
    let theirs = Rc::clone(&semaphore);
    let waiter = spawn(move || theirs.acquire().forget());
    yield_now();
    semaphore.release().unwrap();
    assert_eq!(semaphore.available_permits(), 0);
    assert!(semaphore.try_acquire().is_none(), "it is the waiter's");
    waiter.join().unwrap();
    semaphore.release().unwrap();
    assert!(semaphore.try_acquire().is_some());
}

#[test]
fn a_permit_of_a_killed_waiter_goes_to_the_next() {
    let _guard = common::guard();
    let semaphore = Rc::new(Semaphore::bounded(1));
    let held = semaphore.acquire();
    let waiter = || {
        let semaphore = Rc::clone(&semaphore);
        spawn(move || drop(semaphore.acquire()))
    };
    let (first, second) = (waiter(), waiter());
    settle();
    drop(held);
    first.kill();
    second.join().unwrap();
    assert!(first.join().unwrap_err().is_killed());
    assert_eq!(semaphore.available_permits(), 1);
    assert!(semaphore.release().is_err(), "the count of those held is right too");
}

#[test]
fn an_over_release_of_a_bounded_semaphore_is_an_error() {
    let semaphore = Semaphore::bounded(2);
    assert!(semaphore.release().is_err());
    let permit = semaphore.acquire();
    assert!(semaphore.release().is_err(), "the guard will bring it back");
    permit.forget();
    assert_eq!(semaphore.release(), Ok(()));
    let error = semaphore.release().unwrap_err();
    assert_eq!(error.to_string(), "a semaphore was released more often than it was acquired");
    assert!(Semaphore::bounded(0).release().is_err());
    let most = Semaphore::new(usize::MAX);
    assert!(most.release().is_err(), "nor can the count overflow");
    let plain = Semaphore::new(0);
    plain.release().unwrap();
    assert_eq!(plain.available_permits(), 1);
}

#[test]
fn acquire_timeout_says_whether_it_got_one() {
    let _guard = common::guard();
    let semaphore = Rc::new(Semaphore::new(1));
    let held = semaphore.acquire_timeout(Duration::ZERO).expect("one is free");
    let began = Instant::now();
    assert!(semaphore.acquire_timeout(SHORT).is_none());
    assert!(began.elapsed() >= SHORT);
    let theirs = Rc::clone(&semaphore);
    let waiter = spawn(move || theirs.acquire_timeout(LONG).is_some());
    yield_now();
    drop(held);
    assert!(waiter.join().unwrap());
}

// ---- Event ----------------------------------------------------------------------------------------------------------

#[test]
fn a_set_that_is_cleared_at_once_still_reaches_the_waiters() {
    let _guard = common::guard();
    let (event, log) = (Rc::new(Event::new()), Log::default());
    let threads: Vec<_> = (0..3)
        .map(|n| {
            let (event, log) = (Rc::clone(&event), log.clone());
            spawn(move || log.say(format!("{n}:{}", event.wait_timeout(LONG))))
        })
        .collect();
    yield_now();
    event.set();
    event.clear();
    assert!(!event.is_set());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.text(), "0:true 1:true 2:true");
    assert!(!event.wait_timeout(SHORT), "a thread that comes later waits");
    event.set();
    event.set();
    event.wait();
    assert!(event.wait_timeout(Duration::ZERO));
}

#[test]
fn an_auto_reset_event_lets_one_through_for_each_set() {
    let _guard = common::guard();
    let (event, log) = (Rc::new(Event::auto_reset()), Log::default());
    let threads: Vec<_> = (0..3)
        .map(|n| {
            let (event, log) = (Rc::clone(&event), log.clone());
            spawn(move || {
                event.wait();
                log.say(n);
            })
        })
        .collect();
    settle();
    event.set();
    assert!(!event.is_set(), "it went to the first");
    settle();
    assert_eq!(log.text(), "0");
    // Chosen, then killed: the next one gets it.
    event.set();
    threads[1].kill();
    settle();
    assert_eq!(log.text(), "0 2");
    event.set();
    event.set();
    assert!(event.is_set() && event.wait_timeout(SHORT) && !event.wait_timeout(SHORT), "two sets are one");
}

// ---- AsyncResult ----------------------------------------------------------------------------------------------------

#[test]
fn a_result_reaches_all_waiters_and_all_that_come_later() {
    let _guard = common::guard();
    let result = Rc::new(AsyncResult::<String, i32>::new());
    assert!(result.wait_timeout(SHORT).is_none());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let result = Rc::clone(&result);
            spawn(move || result.get())
        })
        .collect();
    settle();
    result.set("done".to_owned()).unwrap();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Ok("done".to_owned()));
    }
    assert_eq!(result.wait(), Ok(&"done".to_owned()));
    assert_eq!(result.wait_timeout(Duration::ZERO), Some(Ok(&"done".to_owned())));
    assert_eq!(result.set("again".to_owned()), Err("again".to_owned()));
    assert_eq!(result.set_error(1), Err(1));
    assert_eq!(Rc::into_inner(result).unwrap().into_inner(), Some(Ok("done".to_owned())));
}

#[test]
fn an_error_reaches_them_too() {
    let _guard = common::guard();
    let result = Rc::new(AsyncResult::<(), String>::new());
    let theirs = Rc::clone(&result);
    drop(spawn(move || theirs.set_error("no".to_owned())));
    assert_eq!(result.get(), Err("no".to_owned()));
    assert_eq!(result.try_wait(), Some(Err(&"no".to_owned())));
    assert!(result.is_set());
}

// ---- WaitGroup ------------------------------------------------------------------------------------------------------

#[test]
fn a_wait_group_waits_for_all_also_for_those_that_die() {
    let _guard = common::guard();
    let group = Rc::new(WaitGroup::new());
    group.wait();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            group.add(1);
            let group = Rc::clone(&group);
            spawn(move || {
                let _done = group.done_on_drop();
                park();
            })
        })
        .collect();
    settle();
    assert!(!group.wait_timeout(SHORT));
    assert_eq!(group.remaining(), 3);
    threads.iter().for_each(|thread| assert!(thread.kill()));
    group.wait();
    assert_eq!(group.remaining(), 0);
    group.add(2);
    group.done();
    assert_eq!(timeout(SHORT, || group.wait()), Err(TimeoutError::Elapsed));
    group.done();
    group.wait();
}

#[test]
fn too_many_dones_panic() {
    let group = WaitGroup::new();
    assert!(catch_unwind(AssertUnwindSafe(|| group.done())).is_err());
    group.add(usize::MAX);
    assert!(catch_unwind(AssertUnwindSafe(|| group.add(1))).is_err());
    assert_eq!(group.remaining(), usize::MAX);
}

// ---- all ------------------------------------------------------------------------------------------------------------

#[test]
fn while_unwinding_what_need_not_wait_works_and_the_rest_ends_at_once() {
    let _guard = common::guard();
    let over = Rc::new(Cell::new(false));
    let seen = Rc::clone(&over);
    let thread = spawn(move || {
        let _cleanup = OnDrop::new(move || {
            let (semaphore, event) = (Semaphore::new(1), Event::new());
            let permit = semaphore.acquire();
            assert!(semaphore.acquire_timeout(LONG).is_none());
            assert!(catch_unwind(AssertUnwindSafe(|| drop(semaphore.acquire()))).is_err());
            drop(permit);
            assert!(!event.wait_timeout(LONG));
            assert!(catch_unwind(AssertUnwindSafe(|| event.wait())).is_err());
            event.set();
            event.wait();
            let result = AsyncResult::<i32>::new();
            assert!(result.wait_timeout(LONG).is_none());
            assert!(catch_unwind(AssertUnwindSafe(|| result.get())).is_err());
            let group = WaitGroup::new();
            group.add(1);
            assert!(!group.wait_timeout(LONG));
            seen.set(true);
        });
        park();
    });
    yield_now();
    thread.kill();
    assert!(thread.join().unwrap_err().is_killed());
    assert!(over.get(), "all of that was as expected");
}
