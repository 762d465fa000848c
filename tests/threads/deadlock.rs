//! Deadlocks (docs/book, chapter 5): reported in main, with what each thread waits for, instead of hanging.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::common;
use greenling::thread::{Builder, JoinHandle, current, park, spawn, yield_now};
use greenling::{Greenlet, sleep, timeout};

/// The report that `f` panics with.
fn report(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("main waits for ever");
    *payload.downcast::<String>().expect("a report")
}

#[test]
fn a_report_says_what_each_thread_waits_for_since_when_and_where_it_was_spawned() {
    let _guard = common::guard();
    let other: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let taken = Rc::clone(&other);
    let name = |name: &str| Builder::new().name(name.to_owned());
    let left = name("left").spawn(move || {
        let right = taken.borrow_mut().take().unwrap();
        right.join().unwrap();
    });
    let left = left.unwrap();
    let left_too = Rc::new(RefCell::new(Some(left)));
    let right = name("right").spawn(move || left_too.borrow_mut().take().unwrap().join().unwrap());
    *other.borrow_mut() = Some(right.unwrap());
    drop(spawn(park));
    let greenlet = Greenlet::new(|n: u32| {
        park();
        n
    });
    let text = report(|| assert_eq!(greenlet.switch(1), 1));
    assert!(text.starts_with("deadlock: "), "{text}");
    let line =
        |of: &str| text.lines().find(|line| line.trim_start().starts_with(of)).unwrap_or_else(|| panic!("{text}"));
    assert!(line("main").contains("waits in a switch to greenlet #"), "{text}");
    assert!(line("#2 \"left\"").contains("waits for the end of #3 \"right\""), "{text}");
    assert!(line("#3 \"right\"").contains("waits for the end of #2 \"left\""), "{text}");
    assert!(line("#4 ").contains("is parked"), "{text}");
    assert!(line("greenlet #").contains("is parked"), "{text}");
    for of in ["#2", "#3", "#4", "greenlet"] {
        assert!(line(of).contains("spawned at tests/threads/deadlock.rs:"), "{text}");
        assert!(line(of).contains(" s, "), "{text}");
    }
    assert!(line("cycle:").contains("#2 \"left\" -> #3 \"right\" -> #2 \"left\""), "{text}");
}

#[test]
fn main_may_catch_it_and_go_on() {
    let _guard = common::guard();
    for _ in 0..3 {
        let thread = spawn(park);
        let text = report(|| drop(thread.join()));
        assert!(text.contains("main waits for the end of #"), "{text}");
        assert!(report(park).contains("main is parked"));
    }
    assert_eq!(spawn(|| 1).join().unwrap(), 1);
    sleep(Duration::from_millis(1));
    assert_eq!(greenling::hub::live_threads(), 3, "those that wait are left alone");
    assert_eq!(greenling::hub::shutdown(), 0);
    assert_eq!(greenling::hub::live_threads(), 0);
}

/// In a process of its own, and as a program that catches nothing meets it.
#[test]
fn a_deadlock_that_is_not_caught_ends_the_program_with_the_report() {
    let output = common::child("deadlock::a_deadlock_that_is_not_caught_ends_the_program_with_the_report", || {
        let _ = spawn(park).join();
    });
    assert!(!output.status.success());
    let text = common::stderr(&output) + &common::stdout(&output);
    assert!(text.contains("deadlock: nothing is runnable") && text.contains("is parked"), "{text}");
}

#[test]
fn a_cycle_of_greenlets_is_named() {
    let _guard = common::guard();
    let greenlet = Greenlet::new(|n: u32| {
        // Back to itself there is no way: main waits for it, and it waits for a thread that waits for ever.
        drop(spawn(park).join());
        n
    });
    let text = report(|| assert_eq!(greenlet.switch(1), 1));
    assert!(text.contains("main waits in a switch to greenlet #2"), "{text}");
    assert!(text.contains("greenlet #2 waits for the end of #3"), "{text}");
}

#[test]
fn nothing_is_reported_while_a_timer_runs() {
    let _guard = common::guard();
    let sleeper = spawn(|| sleep(Duration::from_millis(20)));
    sleeper.join().unwrap();
    let parked = spawn(|| greenling::thread::park_timeout(Duration::from_millis(20)));
    parked.join().unwrap();
    assert!(timeout(Duration::from_millis(20), park).is_err());
    assert!(timeout(Duration::from_millis(20), || spawn(park).join().is_ok()).is_err());
}

#[test]
fn nothing_is_reported_while_another_os_thread_holds_a_handle() {
    let _guard = common::guard();
    let main = current();
    let os = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        main.unpark();
    });
    park();
    os.join().unwrap();
    let thread = spawn(park);
    let handle = thread.thread().clone();
    let os = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        handle.unpark();
    });
    thread.join().unwrap();
    os.join().unwrap();
}

/// The holder may drop it without a word. Then nobody is left, and the hub, asleep, must be told.
#[test]
fn it_is_reported_when_the_last_handle_goes() {
    let _guard = common::guard();
    for pause in [0, 1, 20] {
        let handles = [current(), current()];
        let os = handles.map(|handle| {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(pause));
                drop(handle);
            })
        });
        assert!(report(park).contains("main is parked"));
        os.into_iter().for_each(|os| os.join().unwrap());
    }
    // A handle in a channel that dies.
    let (send, receive) = mpsc::channel();
    send.send(current()).unwrap();
    let os = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        drop(receive);
    });
    assert!(report(park).contains("main is parked"));
    os.join().unwrap();
}

/// Only `park` listens to handles.
#[test]
fn a_handle_does_not_hide_a_deadlock_in_which_no_thread_is_parked() {
    let _guard = common::guard();
    let handle = current();
    let text = report(|| {
        greenling::thread::scope(|s| {
            let cell = Rc::new(RefCell::new(None::<greenling::thread::ScopedJoinHandle<'_, ()>>));
            let taken = Rc::clone(&cell);
            let left = s.spawn(move || taken.borrow_mut().take().unwrap().join().unwrap());
            let right = s.spawn(move || left.join().unwrap());
            *cell.borrow_mut() = Some(right);
        });
    });
    assert!(text.contains("main waits for the threads of its scope"), "{text}");
    assert!(text.contains("cycle: "), "{text}");
    drop(handle);
}

/// A timeout that was left in time leaves a wheel entry for an hour. It wakes nobody, and must not hide a deadlock.
#[test]
fn a_timeout_that_was_left_does_not_hide_a_deadlock() {
    let _guard = common::guard();
    let began = Instant::now();
    let hour = Duration::from_secs(3600);
    // Main's own, one of a thread that is parked now, one of a thread that is dead.
    let main = current();
    let waker = spawn(move || main.unpark());
    timeout(hour, park).unwrap();
    waker.join().unwrap();
    let parked = spawn(move || {
        timeout(hour, park).unwrap();
        park();
    });
    let dead = spawn(move || timeout(hour, park).unwrap());
    let handles = [parked.thread().clone(), dead.thread().clone()];
    yield_now();
    handles.iter().for_each(greenling::thread::Thread::unpark);
    drop(handles);
    dead.join().unwrap();
    yield_now();
    let text = report(|| drop(parked.join()));
    assert!(text.contains("is parked"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_thread_without_a_hub_reports_too() {
    let _guard = common::guard();
    let text = report(|| {
        let main = Greenlet::<u32>::main();
        let lost = Greenlet::new(move |n: u32| {
            let never = Greenlet::new(|n: u32| n);
            let _ = main;
            drop(never);
            n
        });
        assert_eq!(lost.switch(1), 1);
        park();
    });
    assert!(text.starts_with("deadlock"), "{text}");
}

/// The dropper cannot be interrupted, but it can be let go.
#[test]
fn a_greenlet_that_survives_the_drop_of_its_last_handle_and_blocks_does_not_hang_the_dropper() {
    let _guard = common::guard();
    let greenlet = Greenlet::new(|n: u32| {
        let parent = Greenlet::<u32>::current().parent().unwrap();
        let _ = catch_unwind(AssertUnwindSafe(|| parent.switch(n)));
        drop(parent);
        park();
        n
    });
    assert_eq!(greenlet.switch(1), 1);
    drop(greenlet);
    assert_eq!(greenling::hub::live_threads(), 1);
    assert_eq!(spawn(|| 1).join().unwrap(), 1);
    assert_eq!(greenling::hub::shutdown(), 0);
}

#[test]
fn every_thread_is_listed_on_request() {
    let _guard = common::guard();
    let name = |name: &str| Builder::new().name(name.to_owned());
    let sleeper = name("sleeper").spawn(|| sleep(Duration::from_secs(60))).unwrap();
    let asker = name("asker").spawn(greenling::hub::report).unwrap();
    let last = name("last").spawn(|| {}).unwrap();
    let text = asker.join().unwrap();
    let line = |of: &str| text.lines().find(|line| line.contains(of)).unwrap_or_else(|| panic!("{text}"));
    assert!(text.starts_with("3 green threads and greenlets, and main\n"), "{text}");
    assert!(line("main waits").contains("waits for the end of #3 \"asker\", for "), "{text}");
    assert!(line("#2 \"sleeper\"").contains("sleeps, for "), "{text}");
    assert!(line("#3 \"asker\" is").contains("is running, spawned at tests/threads/deadlock.rs:"), "{text}");
    assert!(line("#4 \"last\"").contains("can run, and waits for its turn, spawned at "), "{text}");
    last.join().unwrap();
    sleeper.kill();
    assert!(sleeper.join().unwrap_err().is_killed());
    let text = greenling::hub::report();
    assert_eq!(text, "0 green threads and greenlets, and main\n  main is running");
    // Of a crowd nobody is left out.
    let crowd: Vec<_> = (0..200).map(|_| spawn(park)).collect();
    yield_now();
    assert_eq!(greenling::hub::report().lines().count(), 202);
    crowd.iter().for_each(|thread| thread.thread().unpark());
}

#[test]
fn a_long_report_is_cut() {
    let _guard = common::guard();
    let threads: Vec<_> = (0..200).map(|_| spawn(park)).collect();
    yield_now();
    let text = report(park);
    assert!(text.contains("and 151 more"), "{text}");
    assert!(text.lines().count() < 60);
    drop(threads);
}
