//! Links: callbacks at the end of a thread.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::common::{self, Log, guard};
use greenling::hub;
use greenling::thread::{JoinHandle, current, park, spawn, yield_now};

fn log_end(log: &Log, name: &'static str, thread: &JoinHandle<()>) {
    let log = log.clone();
    thread.on_finish(move |ending| log.say(format_args!("{name}:{ending:?}")));
}

#[test]
fn callbacks_run_once_in_order_and_before_the_joiner() {
    let _guard = guard();
    let log = Log::default();
    let thread = spawn(|| ());
    for name in ["a", "b", "c"] {
        log_end(&log, name, &thread);
    }
    thread.join().unwrap();
    assert_eq!(log.text(), "a:Returned b:Returned c:Returned");
    yield_now();
    assert_eq!(log.text(), "a:Returned b:Returned c:Returned");
}

#[test]
fn they_are_told_how_it_ended() {
    let _guard = guard();
    let log = Log::default();
    let panics = spawn(|| panic!("on purpose"));
    let (killed, never) = (spawn(park), spawn(|| unreachable!()));
    log_end(&log, "panics", &panics);
    log_end(&log, "killed", &killed);
    log_end(&log, "never", &never);
    never.kill();
    yield_now();
    killed.kill();
    assert!(panics.join().is_err() && killed.join().is_err() && never.join().is_err());
    assert_eq!(log.text(), "panics:Panicked never:Killed killed:Killed");
}

#[test]
fn a_thread_that_has_ended_calls_back_in_the_next_turn() {
    let _guard = guard();
    let log = Log::default();
    let (returned, panicked) = (spawn(|| ()), spawn(|| panic!("on purpose")));
    yield_now();
    assert!(returned.is_finished() && panicked.is_finished());
    log_end(&log, "returned", &returned);
    log_end(&log, "panicked", &panicked);
    assert_eq!(log.text(), "", "not before the call returns");
    yield_now();
    assert_eq!(log.text(), "returned:Returned panicked:Panicked");
}

#[test]
fn a_callback_that_panics_or_blocks_hurts_no_other_thread() {
    let _guard = guard();
    let log = Log::default();
    let thread = spawn(|| ());
    thread.on_finish(|_| panic!("this callback fails"));
    let (blocked, theirs) = (Rc::new(RefCell::new(None)), log.clone());
    let out = Rc::clone(&blocked);
    thread.on_finish(move |_| {
        *out.borrow_mut() = Some(current());
        park();
        theirs.say("unparked");
    });
    log_end(&log, "last", &thread);
    thread.join().unwrap();
    assert_eq!(log.text(), "last:Returned");
    blocked.borrow().as_ref().unwrap().unpark();
    yield_now();
    assert_eq!(log.text(), "last:Returned unparked");
}

#[test]
fn a_callback_may_register_spawn_join_and_use_the_handle() {
    let _guard = guard();
    let log = Log::default();
    let thread = Rc::new(RefCell::new(Some(spawn(|| 5))));
    let (inner, theirs) = (Rc::clone(&thread), log.clone());
    let later = log.clone();
    thread.borrow().as_ref().unwrap().on_finish(move |_| {
        let handle = inner.take().unwrap();
        assert!(handle.is_finished());
        handle.on_finish(move |_| later.say("later"));
        theirs.say(handle.join().unwrap() + spawn(|| 1).join().unwrap());
    });
    for _ in 0..5 {
        yield_now();
    }
    assert_eq!(log.text(), "later 6");
}

#[test]
fn a_detached_thread_calls_back() {
    let _guard = guard();
    let log = Log::default();
    let thread = spawn(|| ());
    log_end(&log, "detached", &thread);
    drop(thread);
    yield_now();
    yield_now();
    assert_eq!(log.text(), "detached:Returned");
}

#[test]
fn shutdown_drops_callbacks_without_calling_them() {
    let _guard = guard();
    let (log, held) = (Log::default(), Rc::new(()));
    let thread = spawn(park);
    let theirs = Rc::clone(&held);
    thread.on_finish(move |_| drop(theirs));
    log_end(&log, "never", &thread);
    yield_now();
    assert_eq!(hub::shutdown(), 0);
    assert_eq!((log.text().as_str(), Rc::strong_count(&held)), ("", 1));
}

/// The thread ends while it unwinds; the callback must not see that.
#[test]
fn a_callback_does_not_run_inside_the_panic() {
    let _guard = guard();
    let log = Log::default();
    let thread = spawn(|| panic!("on purpose"));
    let theirs = log.clone();
    thread.on_finish(move |_| theirs.say(std::thread::panicking()));
    assert!(thread.join().is_err());
    assert_eq!(log.text(), "false");
    // Nor one that is registered by who unwinds.
    let ended = spawn(|| ());
    yield_now();
    let theirs = log.clone();
    let register = common::OnDrop::new(move || ended.on_finish(move |_| theirs.say(std::thread::panicking())));
    assert!(
        catch_unwind(AssertUnwindSafe(|| {
            let _register = register;
            panic!("on purpose")
        }))
        .is_err()
    );
    yield_now();
    assert_eq!(log.text(), "false false");
}
