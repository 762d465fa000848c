//! Scoped threads (docs/book, chapter 12): borrows stay valid whatever the program forgets, panics with or kills.
//!
//! Each test that could only fail as a use after free checks a canary instead: a value on the borrowing stack that its
//! destructor overwrites, and that every thread reads as its last act.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{self, Log, OnDrop};
use greenling::thread::{Builder, Scope, ScopedJoinHandle, park, scope, spawn, yield_now};
use greenling::{Greenlet, TimeoutError, no_switch, shield, sleep, timeout};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// A value that is alive until it is dropped.
struct Canary(Cell<bool>);

impl Canary {
    /// A live one.
    fn new() -> Canary {
        Canary(Cell::new(true))
    }

    /// Sings, if it still can.
    fn sing(&self) {
        assert!(self.0.get(), "the borrow outlived what it borrowed");
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Sings when it is dropped: put into a thread's frame, it borrows to the last moment.
struct Singer<'a>(&'a Canary, &'a Cell<u32>);

impl Drop for Singer<'_> {
    fn drop(&mut self) {
        self.0.sing();
        self.1.set(self.1.get() + 1);
    }
}

#[test]
fn threads_borrow_from_the_stack_and_all_have_ended_at_the_end() {
    let _guard = common::guard();
    let mut numbers = vec![1, 2, 3];
    let seen = Cell::new(0);
    let result = scope(|s| {
        for number in &numbers {
            let seen = &seen;
            s.spawn(move || {
                sleep(Duration::from_millis(*number));
                seen.set(seen.get() + number);
            });
        }
        assert_eq!(seen.get(), 0);
        "done"
    });
    numbers.push(4);
    assert_eq!((result, seen.get()), ("done", 6));
}

#[test]
fn a_scoped_thread_may_spawn_into_its_scope() {
    let _guard = common::guard();
    let count = Cell::new(0);
    fn grow<'scope>(s: &'scope Scope<'scope, '_>, count: &'scope Cell<u32>, depth: u32) {
        count.set(count.get() + 1);
        if depth > 0 {
            s.spawn(move || {
                yield_now();
                grow(s, count, depth - 1);
            });
            s.spawn(move || grow(s, count, depth - 1));
        }
    }
    scope(|s| grow(s, &count, 5));
    assert_eq!(count.get(), 63);
}

#[test]
fn what_is_forgotten_is_waited_for_all_the_same() {
    let _guard = common::guard();
    let ends = Cell::new(0);
    {
        let canary = Canary::new();
        scope(|s| {
            forget(s.spawn(|| {
                let singer = Singer(&canary, &ends);
                sleep(Duration::from_millis(2));
                singer
            }));
            // A handle in a cycle that nobody drops.
            type Cycle<'a> = Rc<RefCell<Option<ScopedJoinHandle<'a, Singer<'a>>>>>;
            let cycle: Cycle<'_> = Rc::default();
            let thread = s.spawn(|| Singer(&canary, &ends));
            *cycle.borrow_mut() = Some(thread);
            forget(cycle);
            // A guard inside the thread.
            let _ = s.spawn(|| {
                forget(Singer(&canary, &ends));
                yield_now();
                canary.sing();
            });
        });
    }
    assert_eq!(ends.get(), 0, "forgotten results are dropped never, rather than too late");
    greenling::hub::trim_stacks();
    for _ in 0..100 {
        spawn(yield_now).join().unwrap();
    }
    assert_eq!(ends.get(), 0);
}

#[test]
fn a_result_that_is_not_taken_is_dropped_before_the_scope_ends() {
    let _guard = common::guard();
    let ends = Cell::new(0);
    {
        let canary = Canary::new();
        scope(|s| {
            drop(s.spawn(|| Singer(&canary, &ends)));
            let kept = s.spawn(|| Singer(&canary, &ends));
            s.spawn(move || {
                yield_now();
                drop(kept);
            });
            let late = s.spawn(|| Singer(&canary, &ends));
            yield_now();
            assert!(late.is_finished());
            drop(late);
        });
        assert_eq!(ends.get(), 3);
    }
}

#[test]
fn a_body_that_panics_kills_the_threads_and_waits_for_them() {
    let _guard = common::guard();
    let ends = Cell::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let canary = Canary::new();
        scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    let _singer = Singer(&canary, &ends);
                    sleep(LONG);
                });
            }
            yield_now();
            // This one has not started.
            let unstarted = Singer(&canary, &ends);
            s.spawn(move || drop(unstarted));
            resume_unwind(Box::new("body"));
        });
    }));
    assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "body");
    assert_eq!(ends.get(), 4);
    assert_eq!(greenling::hub::live_threads(), 0);
}

#[test]
fn a_kill_during_the_wait_kills_the_threads_first() {
    let _guard = common::guard();
    let log = Log::default();
    let inner = log.clone();
    let thread = spawn(move || {
        let canary = Canary::new();
        let ends = Cell::new(0);
        let _mark = inner.on_drop("owner");
        scope(|s| {
            s.spawn(|| {
                let _mark = inner.on_drop("child");
                let _singer = Singer(&canary, &ends);
                park();
            });
        });
        inner.say("never");
    });
    yield_now();
    yield_now();
    thread.kill();
    assert!(thread.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "child owner");
}

#[test]
fn a_child_may_shield_itself_and_is_waited_for() {
    let _guard = common::guard();
    let log = Log::default();
    let inner = log.clone();
    let thread = spawn(move || {
        let canary = Canary::new();
        scope(|s| {
            s.spawn(|| {
                shield(|| sleep(Duration::from_millis(5)));
                canary.sing();
                inner.say("shielded");
            });
        });
    });
    yield_now();
    yield_now();
    thread.kill();
    assert!(thread.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "shielded");
}

#[test]
fn what_is_spawned_into_a_scope_that_unwinds_never_runs() {
    let _guard = common::guard();
    let log = Log::default();
    let inner = log.clone();
    let owner = spawn(move || {
        scope(|s| {
            let log = &inner;
            s.spawn(move || {
                let _respawn = OnDrop::new(move || {
                    let mark = log.on_drop("dropped unrun");
                    s.spawn(move || {
                        let _mark = mark;
                        log.say("never");
                        park();
                    });
                });
                park();
            });
        });
    });
    yield_now();
    yield_now();
    owner.kill();
    assert!(owner.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "dropped unrun");
}

#[test]
fn a_child_that_panics_unjoined_makes_the_scope_panic_after_all_have_ended() {
    let _guard = common::guard();
    let log = Log::default();
    let result = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            s.spawn(|| resume_unwind(Box::new("child")));
            s.spawn(|| {
                sleep(Duration::from_millis(3));
                log.say("other");
            });
        });
    }));
    assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "a scoped green thread panicked");
    assert_eq!(log.text(), "other");
    // Dropped after the end, by somebody else, or forgotten: nobody looked either, where it can be told.
    for how in ["dropped", "moved"] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                let bad = s.spawn(|| resume_unwind(Box::new("child")));
                yield_now();
                if how == "dropped" {
                    drop::<ScopedJoinHandle<'_, ()>>(bad);
                } else {
                    s.spawn(move || drop(bad));
                }
            });
        }));
        assert!(result.is_err(), "{how}");
    }
    // Joined: somebody looked.
    let joined = scope(|s| s.spawn(|| -> u32 { resume_unwind(Box::new("child")) }).join().is_err());
    assert!(joined);
    // Killed is no panic.
    scope(|s| {
        let thread = s.spawn(park);
        yield_now();
        thread.kill();
    });
}

#[test]
fn scopes_nest() {
    let _guard = common::guard();
    let log = Log::default();
    let outer_value = 1;
    scope(|outer| {
        outer.spawn(|| {
            let inner_value = 2;
            scope(|inner| {
                inner.spawn(|| {
                    sleep(Duration::from_millis(2));
                    log.say(outer_value + inner_value);
                });
            });
            log.say("inner over");
        });
        outer.spawn(|| log.say("quick"));
    });
    log.say("outer over");
    assert_eq!(log.text(), "quick 3 inner over outer over");
    // A kill goes all the way down, and the ends come from the inside out.
    let log = Log::default();
    let killed = log.clone();
    let thread = spawn(move || {
        let _a = killed.on_drop("a");
        scope(|s| {
            s.spawn(|| {
                let _b = killed.on_drop("b");
                scope(|s| {
                    s.spawn(|| {
                        let _c = killed.on_drop("c");
                        sleep(LONG);
                    });
                });
            });
        });
    });
    for _ in 0..5 {
        yield_now();
    }
    thread.kill();
    assert!(thread.join().is_err());
    assert_eq!(log.text(), "c b a");
}

#[test]
fn an_inner_scope_is_not_woken_by_an_outer_ones_threads() {
    let _guard = common::guard();
    let log = Log::default();
    scope(|outer| {
        outer.spawn(|| {
            yield_now();
            log.say("outer thread");
        });
        scope(|inner| {
            inner.spawn(|| {
                sleep(Duration::from_millis(5));
                log.say("inner thread");
            });
        });
        log.say("inner scope");
    });
    assert_eq!(log.text(), "outer thread inner thread inner scope");
}

#[test]
fn a_scope_inside_no_switch_lets_no_other_run() {
    let _guard = common::guard();
    let ran = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&ran);
    let other = spawn(move || theirs.set(true));
    let (canary, ends) = (Canary::new(), Cell::new(0));
    let inside = |body: &dyn for<'s, 'e> Fn(&'s Scope<'s, 'e>)| {
        no_switch(|| {
            let result = catch_unwind(AssertUnwindSafe(|| {
                scope(|s| {
                    let (singer, ran) = (Singer(&canary, &ends), &ran);
                    s.spawn(move || {
                        drop(singer);
                        ran.set(true);
                    });
                    body(s);
                })
            }));
            assert!(!ran.get(), "nobody else has run inside");
            result.map_err(|payload| *payload.downcast::<&str>().unwrap())
        })
    };
    // Its threads are left when the body is done: they never run, and it panics as a wait would.
    assert!(inside(&|_| ()).unwrap_err().contains("inside `no_switch`"));
    assert_eq!(ends.get(), 1, "the closure is gone, and with it what it borrowed");
    // So does a join in the body; and the body's own panic is what comes out.
    assert!(inside(&|s| drop(s.spawn(|| ()).join())).unwrap_err().contains("inside `no_switch`"));
    assert_eq!(inside(&|_| resume_unwind(Box::new("of the body"))), Err("of the body"));
    assert_eq!(ends.get(), 3);
    // One without threads has nothing to wait for.
    assert_eq!(no_switch(|| scope(|_| 5)), 5);
    other.join().unwrap();
    assert!(ran.get());
}

/// Soundness, finding 5: who waits for a scope with a kill that came before is woken by nobody.
#[test]
fn a_scope_sees_a_kill_that_was_due_before_it_waits() {
    let _guard = common::guard();
    let waits_for = |due: fn()| {
        let thread = spawn(move || {
            due();
            scope(|s| drop(s.spawn(park)));
        });
        yield_now();
        thread.kill();
        assert!(thread.join().unwrap_err().is_killed());
    };
    waits_for(|| shield(|| sleep(Duration::from_millis(2))));
    waits_for(|| drop(catch_unwind(park)));
    // In a scope that waits already: each kill kills its threads anew, and one that is swallowed is not the last.
    let swallows = || {
        for _ in 0..3 {
            let _ = catch_unwind(|| shield(yield_now));
        }
        let _ = catch_unwind(park);
        scope(|s| drop(s.spawn(park)));
    };
    let thread = spawn(move || scope(|s| drop(s.spawn(swallows))));
    (0..3).for_each(|_| yield_now());
    thread.kill();
    assert!(thread.join().unwrap_err().is_killed());
}

/// Each thread swallows one kill, and each ends in the end: the patience of the outermost scope is for those that do not.
#[test]
fn nested_scopes_whose_threads_swallow_one_kill_each_come_to_an_end() {
    let _guard = common::guard();
    fn nest(depth: u32) {
        let _ = catch_unwind(park);
        if depth > 0 {
            scope(|s| drop(s.spawn(move || nest(depth - 1))));
        }
    }
    for depth in [3, 12, 40] {
        let thread = spawn(move || scope(|s| drop(s.spawn(move || nest(depth)))));
        yield_now();
        yield_now();
        thread.kill();
        assert!(thread.join().unwrap_err().is_killed());
    }
}

/// A scope in a destructor while its thread unwinds: it must not suspend (5.6), and must not leave threads behind.
#[test]
fn a_scope_on_an_unwinding_stack_cancels_its_threads_on_the_spot() {
    let _guard = common::guard();
    let log = Log::default();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _scope_later = OnDrop::new(|| {
            let canary = Canary::new();
            let ends = Cell::new(0);
            scope(|s| {
                for _ in 0..3 {
                    let (singer, log) = (Singer(&canary, &ends), &log);
                    s.spawn(move || {
                        let _singer = singer;
                        log.say("never");
                    });
                }
                forget(s.spawn(|| canary.sing()));
            });
            log.say(ends.get());
        });
        resume_unwind(Box::new(()));
    }));
    assert!(result.is_err());
    assert_eq!(log.text(), "3");
    for _ in 0..10 {
        yield_now();
    }
    assert_eq!(log.text(), "3");
}

/// The first closure's destructor panics, and the panic is caught inside the destructor that opened the scope: the
/// threads that come after it must be cancelled all the same, or they would run with dangling borrows.
#[test]
fn a_destructor_that_panics_while_threads_are_cancelled_leaves_none_behind() {
    let _guard = common::guard();
    let log = Log::default();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _scope_later = OnDrop::new(|| {
            let scope_result = catch_unwind(AssertUnwindSafe(|| {
                let canary = Canary::new();
                scope(|s| {
                    let bomb = OnDrop::new(|| resume_unwind(Box::new("bomb")));
                    s.spawn(move || drop(bomb));
                    s.spawn(|| {
                        log.say("never");
                        canary.sing();
                    });
                });
            }));
            log.say(scope_result.is_ok());
        });
        resume_unwind(Box::new(()));
    }));
    assert!(result.is_err());
    for _ in 0..10 {
        yield_now();
    }
    assert_eq!(log.text(), "true", "the runtime swallows what a cancelled closure's destructor throws");
}

/// The destructor of a cancelled closure spawns one more into the same scope.
#[test]
fn a_thread_spawned_while_threads_are_cancelled_is_cancelled_too() {
    let _guard = common::guard();
    let log = Log::default();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _scope_later = OnDrop::new(|| {
            let canary = Canary::new();
            let (canary, log) = (&canary, &log);
            scope(|s| {
                let respawn = OnDrop::new(move || {
                    let mark = log.on_drop("unrun");
                    s.spawn(move || {
                        let _mark = mark;
                        canary.sing();
                        log.say("never");
                    });
                });
                s.spawn(move || drop(respawn));
            });
            log.say("over");
        });
        resume_unwind(Box::new(()));
    }));
    assert!(result.is_err());
    for _ in 0..10 {
        yield_now();
    }
    assert_eq!(log.text(), "unrun over");
}

#[test]
fn a_scope_inside_a_greenlet_ends_when_the_greenlet_is_dropped() {
    let _guard = common::guard();
    let log = Log::default();
    let inner = log.clone();
    let greenlet = Greenlet::new(move |n: u32| {
        let canary = Canary::new();
        let ends = Cell::new(0);
        scope(|s| {
            s.spawn(|| {
                let _mark = inner.on_drop("child");
                let _singer = Singer(&canary, &ends);
                sleep(LONG);
            });
            let back = Greenlet::<u32>::current().parent().unwrap();
            back.switch(n + 1);
        });
        n
    });
    assert_eq!(greenlet.switch(1), 2);
    yield_now();
    drop(greenlet);
    assert_eq!(log.text(), "child");
}

#[test]
fn kill_all_kills_those_that_are_there() {
    let _guard = common::guard();
    let log = Log::default();
    scope(|s| {
        s.spawn(|| {
            let _mark = log.on_drop("gone");
            park();
        });
        yield_now();
        s.kill_all();
        s.spawn(|| {
            sleep(Duration::from_millis(1));
            log.say("later");
        });
    });
    assert_eq!(log.text(), "gone later");
}

#[test]
fn a_failed_spawn_is_not_counted() {
    let _guard = common::guard();
    let log = Log::default();
    scope(|s| {
        let mark = log.on_drop("closure dropped");
        let result = Builder::new().stack_size(usize::MAX).spawn_scoped(s, move || drop(mark));
        assert!(result.is_err());
        let result = Builder::new().spawn_scoped(s, || [0_u8; 100_000]);
        assert!(result.is_err());
    });
    assert_eq!(log.text(), "closure dropped");
}

#[test]
fn a_timeout_of_the_owner_wins_over_its_value() {
    let _guard = common::guard();
    let result = timeout(Duration::from_millis(2), || {
        scope(|s| {
            s.spawn(|| shield(|| sleep(Duration::from_millis(10))));
            "value"
        })
    });
    assert_eq!(result, Err(TimeoutError::Elapsed));
}

/// The invariant scope-1 holds even if the wait can never end: main gives up the process rather than the borrow.
#[test]
fn a_scope_whose_thread_can_never_end_aborts_with_a_report() {
    let output = common::child("scope::a_scope_whose_thread_can_never_end_aborts_with_a_report", || {
        let canary = Canary::new();
        scope(|s| {
            s.spawn(|| {
                shield(park);
                canary.sing();
            });
        });
        println!("never reached");
    });
    assert!(!output.status.success());
    assert!(!common::stdout(&output).contains("never reached"));
    let text = common::stderr(&output);
    assert!(text.contains("cannot be unwound") && text.contains("is parked"), "{text}");
}

#[test]
fn main_in_a_scope_is_told_of_a_deadlock_after_its_threads_unwound() {
    let _guard = common::guard();
    let log = Log::default();
    let result = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            s.spawn(|| {
                let _mark = log.on_drop("unwound");
                park();
            });
        });
    }));
    let report = *result.unwrap_err().downcast::<String>().unwrap();
    assert!(report.contains("waits for the threads of its scope"), "{report}");
    assert_eq!(log.text(), "unwound");
}
