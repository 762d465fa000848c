//! Kill (docs/book, chapter 12): when it is raised, where, in which thread, and what holds it up.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{self, Log, OnDrop};
use greenling::thread::{Builder, JoinHandle, current, park, scope, spawn, yield_now};
use greenling::{Greenlet, TimeoutError, shield, sleep, timeout};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn killed_before_it_starts_a_thread_never_runs_and_its_closure_is_dropped() {
    let _guard = common::guard();
    let log = Log::default();
    let (mark, inner) = (log.on_drop("dropped"), log.clone());
    let thread = spawn(move || {
        let _mark = mark;
        inner.say("ran");
    });
    assert!(thread.kill());
    assert_eq!(log.text(), "", "kill runs nothing");
    assert!(thread.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "dropped");
}

#[test]
fn a_closure_that_is_dropped_unrun_is_dropped_by_its_own_thread() {
    let _guard = common::guard();
    let dropper = Rc::new(Cell::new(None));
    let seen = Rc::clone(&dropper);
    let mark = OnDrop::new(move || seen.set(Some(current().id())));
    let thread = spawn(move || drop(mark));
    let id = thread.thread().id();
    thread.kill();
    assert!(thread.join().is_err());
    assert_eq!(dropper.get(), Some(id));
}

/// Kills a thread in `block` and checks what must be true of each such kill.
fn killed_in(what: &str, block: impl FnOnce() + 'static) {
    let log = Log::default();
    let (mark, inner) = (Rc::new(Cell::new(None)), log.clone());
    let seen = Rc::clone(&mark);
    let thread = spawn(move || {
        let _mark = OnDrop::new(move || seen.set(Some((current().id(), std::thread::panicking()))));
        block();
        inner.say("went on");
    });
    let id = thread.thread().id();
    for _ in 0..5 {
        yield_now();
    }
    assert!(!thread.is_finished(), "{what}: it blocks");
    assert!(thread.kill());
    assert_eq!(mark.get(), None, "{what}: it unwinds when it is its turn, not inside `kill`");
    assert!(thread.kill(), "{what}: still alive");
    assert!(thread.join().unwrap_err().is_killed(), "{what}");
    assert_eq!(mark.get(), Some((id, true)), "{what}: on its own stack, as itself");
    assert_eq!(log.text(), "", "{what}");
}

#[test]
fn a_kill_ends_every_kind_of_wait() {
    let _guard = common::guard();
    killed_in("sleep", || sleep(LONG));
    killed_in("park", park);
    killed_in("park_timeout", || greenling::thread::park_timeout(LONG));
    killed_in("yield_now", || {
        loop {
            yield_now();
        }
    });
    let other = spawn(park);
    let handle = other.thread().clone();
    killed_in("join", move || drop(other.join()));
    handle.unpark();
    killed_in("a scope's end", || {
        scope(|s| drop(s.spawn(park)));
    });
    killed_in("a scoped join", || {
        scope(|s| drop(s.spawn(park).join()));
    });
    killed_in("a switch", || {
        Greenlet::new(|n: u32| {
            park();
            n
        })
        .switch(1);
    });
    killed_in("a timeout", || assert!(timeout(LONG, park).is_ok()));
    for _ in 0..10 {
        yield_now();
    }
    assert_eq!(greenling::hub::live_threads(), 0);
}

#[test]
fn to_kill_a_finished_thread_does_nothing() {
    let _guard = common::guard();
    let thread = spawn(|| 5);
    while !thread.is_finished() {
        yield_now();
    }
    assert!(!thread.kill());
    assert_eq!(thread.join().unwrap(), 5);
}

#[test]
fn a_thread_that_kills_itself_goes_on_until_it_blocks() {
    let _guard = common::guard();
    let log = Log::default();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let (inner, me) = (log.clone(), Rc::clone(&own));
    let thread = spawn(move || {
        assert!(me.borrow().as_ref().unwrap().kill());
        inner.say("goes on");
        yield_now();
        inner.say("never");
    });
    *own.borrow_mut() = Some(thread);
    yield_now();
    yield_now();
    let thread = own.borrow_mut().take().unwrap();
    assert!(thread.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "goes on");
}

#[test]
fn a_thread_that_ends_without_blocking_again_was_not_killed() {
    let _guard = common::guard();
    let thread = spawn(|| {
        let _ = catch_unwind(park);
        9
    });
    yield_now();
    assert!(thread.kill());
    assert_eq!(thread.join().unwrap(), 9, "it swallowed the kill and returned");
}

#[test]
fn a_kill_that_is_swallowed_is_raised_again() {
    let _guard = common::guard();
    let log = Log::default();
    let inner = log.clone();
    let thread = spawn(move || {
        for call in 0..3 {
            let caught = catch_unwind(AssertUnwindSafe(|| if call == 1 { yield_now() } else { sleep(LONG) }));
            inner.say(caught.is_err());
        }
        park();
        inner.say("never");
    });
    yield_now();
    thread.kill();
    assert!(thread.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "true true true");
}

/// Else one thread that swallows everything would stop all others: each of its blocking calls returns at once.
#[test]
fn a_thread_that_swallows_every_kill_does_not_starve_the_others() {
    let _guard = common::guard();
    let (rounds, stop) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
    let (counted, stopped) = (Rc::clone(&rounds), Rc::clone(&stop));
    let thread = spawn(move || {
        while !stopped.get() {
            let _ = catch_unwind(AssertUnwindSafe(|| sleep(LONG)));
            counted.set(counted.get() + 1);
        }
    });
    yield_now();
    thread.kill();
    for _ in 0..100 {
        yield_now();
    }
    sleep(Duration::from_millis(1));
    assert!(rounds.get() >= 100);
    stop.set(true);
    thread.join().unwrap();
}

#[test]
fn a_shield_defers_a_kill_until_the_next_wait_after_it() {
    let _guard = common::guard();
    let log = Log::default();
    let inner = log.clone();
    let thread = spawn(move || {
        let value = shield(|| {
            sleep(Duration::from_millis(5));
            shield(yield_now);
            yield_now();
            inner.say("shielded");
            3
        });
        inner.say(value);
        yield_now();
        inner.say("never");
    });
    yield_now();
    assert!(thread.kill());
    assert!(thread.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "shielded 3");
}

#[test]
fn a_kill_that_is_due_waits_for_a_shield_that_begins_later() {
    let _guard = common::guard();
    let log = Log::default();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let (inner, me) = (log.clone(), Rc::clone(&own));
    *own.borrow_mut() = Some(spawn(move || {
        me.borrow().as_ref().unwrap().kill();
        shield(|| {
            yield_now();
            sleep(Duration::from_micros(1));
            inner.say("shielded");
        });
        yield_now();
        inner.say("never");
    }));
    sleep(Duration::from_millis(5));
    let thread = own.borrow_mut().take().unwrap();
    assert!(thread.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "shielded");
}

#[test]
fn a_shield_that_panics_is_taken_down() {
    let _guard = common::guard();
    let thread = spawn(|| {
        let _ = catch_unwind(|| shield(|| std::panic::resume_unwind(Box::new(1))));
        park();
    });
    yield_now();
    thread.kill();
    assert!(thread.join().unwrap_err().is_killed());
}

#[test]
fn a_kill_inside_a_shield_inside_a_timeout_comes_after_the_shield() {
    let _guard = common::guard();
    let log = Log::default();
    let inner = log.clone();
    let thread = spawn(move || {
        let result = timeout(Duration::from_millis(2), || {
            shield(|| {
                sleep(Duration::from_millis(10));
                inner.say("shield done");
            });
            yield_now();
            inner.say("never");
        });
        inner.say(format_args!("never {result:?}"));
    });
    yield_now();
    thread.kill();
    assert!(thread.join().unwrap_err().is_killed(), "the kill is stronger than the timeout");
    assert_eq!(log.text(), "shield done");
    // The same without the kill: the outer timeout is deferred as well, one inside works.
    let result = timeout(Duration::from_millis(2), || {
        shield(|| {
            assert_eq!(timeout(Duration::from_millis(1), || sleep(LONG)), Err(TimeoutError::Elapsed));
            sleep(Duration::from_millis(5));
        });
        sleep(LONG);
    });
    assert_eq!(result, Err(TimeoutError::Elapsed));
}

#[test]
fn a_kill_prints_nothing() {
    let output = common::child("kill::a_kill_prints_nothing", || {
        let threads = [spawn(park), spawn(|| sleep(LONG)), spawn(|| assert!(timeout(LONG, park).is_ok()))];
        yield_now();
        for thread in &threads {
            thread.kill();
        }
        for thread in threads {
            assert!(thread.join().unwrap_err().is_killed());
        }
        assert!(timeout(Duration::from_millis(1), park).is_err());
    });
    assert!(output.status.success(), "{output:?}");
    assert_eq!(common::stderr(&output), "");
}

#[test]
fn a_thread_killed_in_a_destructor_of_its_unwinding_dies_of_the_panic() {
    let _guard = common::guard();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let me = Rc::clone(&own);
    *own.borrow_mut() = Some(spawn(move || {
        let _kill = OnDrop::new(move || {
            me.borrow().as_ref().unwrap().kill();
        });
        std::panic::resume_unwind(Box::new("mine"));
    }));
    yield_now();
    let thread = own.borrow_mut().take().unwrap();
    assert_eq!(thread.join().unwrap_err().panic_message(), Some("mine"));
}

#[test]
fn a_killed_joiner_leaves_the_thread_it_waited_for_alone() {
    let _guard = common::guard();
    let log = Log::default();
    let inner = log.clone();
    let worker = Builder::new()
        .name("worker".to_owned())
        .spawn(move || {
            sleep(Duration::from_millis(5));
            inner.say("worked");
        })
        .unwrap();
    let joiner = spawn(move || worker.join());
    yield_now();
    joiner.kill();
    assert!(joiner.join().unwrap_err().is_killed());
    sleep(Duration::from_millis(30));
    assert_eq!(log.text(), "worked");
}

/// More than sixteen bits can count.
#[test]
fn a_hundred_thousand_shields_in_one_another_hold() {
    let _guard = common::guard();
    fn shields(count: u32, inside: &dyn Fn()) {
        if count == 0 { inside() } else { shield(|| shields(count - 1, inside)) }
    }
    for count in [65_535, 65_536, 65_537, 100_000] {
        let reached = Rc::new(Cell::new(0));
        let seen = Rc::clone(&reached);
        let body = move || {
            shields(count, &|| {
                seen.set(1);
                sleep(Duration::from_millis(1));
                seen.set(2);
            });
            sleep(Duration::from_secs(3600));
        };
        let thread = Builder::new().stack_size(1 << 30).spawn(body).unwrap();
        yield_now();
        thread.kill();
        assert!(thread.join().unwrap_err().is_killed());
        assert_eq!(reached.get(), 2, "{count} shields");
    }
}

#[test]
fn a_hundred_thousand_sections_in_one_another_forbid_to_switch() {
    let _guard = common::guard();
    fn sections(count: u32, inside: &dyn Fn()) {
        if count == 0 { inside() } else { greenling::no_switch(|| sections(count - 1, inside)) }
    }
    for count in [65_536, 100_000] {
        let thread = Builder::new().stack_size(1 << 30).spawn(move || {
            sections(count, &|| assert!(catch_unwind(yield_now).is_err()));
            yield_now();
        });
        thread.unwrap().join().unwrap();
    }
}
