//! Greenlets: tracing. The tracer sees every explicit switch, in the target, before it goes on; it may panic and may
//! itself switch.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use greenling::{Greenlet, GreenletId, TraceKind, settrace};

type G = Greenlet<i64>;
type S = Greenlet<&'static str>;

/// What a tracer saw.
type Seen = Rc<RefCell<Vec<(TraceKind, GreenletId, GreenletId)>>>;

/// Notes every event from now on.
fn note() -> Seen {
    let seen = Seen::default();
    let notes = seen.clone();
    settrace(Some(Box::new(move |event| notes.borrow_mut().push((event.kind, event.origin, event.target)))));
    seen
}

use TraceKind::{Switch, Throw};

/// Case 49: a_greenlet_tracing
#[test]
fn every_switch_and_every_death_is_one_event() {
    let main = G::main().id();
    let seen = note();
    let g1 = G::new(|n| n);
    g1.switch(0);
    let g2 = G::new(|_| resume_unwind(Box::new("some error")));
    assert!(catch_unwind(AssertUnwindSafe(|| g2.switch(0))).is_err());
    settrace(None);
    g1.switch(0);
    let (g1, g2) = (g1.id(), g2.id());
    assert_eq!(*seen.borrow(), [(Switch, main, g1), (Switch, g1, main), (Switch, main, g2), (Throw, g2, main)]);
}

#[test]
fn throw_kill_and_drop_are_seen_and_a_switch_to_oneself_is_not() {
    let main = G::main().id();
    let waiting = || {
        let g = G::new(|_| {
            let caught = catch_unwind(|| G::switch_to_parent(0));
            caught.unwrap_or(1)
        });
        g.switch(0);
        g
    };
    let (thrown, killed, dropped) = (waiting(), waiting(), G::new(|_| G::switch_to_parent(0)));
    dropped.switch(0);
    let ids = [thrown.id(), killed.id(), dropped.id()];
    let seen = note();
    thrown.throw(Box::new(()));
    killed.kill(0);
    drop(dropped);
    G::current().switch(0);
    killed.switch(0);
    settrace(None);
    let expected = [
        (Throw, main, ids[0]),
        (Switch, ids[0], main),
        (Throw, main, ids[1]),
        (Switch, ids[1], main),
        (Throw, main, ids[2]),
        (Throw, ids[2], main),
    ];
    assert_eq!(*seen.borrow(), expected);
}

/// Case 50: b_exception_disables_tracing
#[test]
fn a_tracer_that_panics_is_removed_and_the_panic_is_the_targets() {
    let g = S::new(|_| S::main().switch("ready"));
    g.switch("");
    let calls = Rc::new(Cell::new(0));
    let count = calls.clone();
    settrace(Some(Box::new(move |_| {
        count.set(count.get() + 1);
        resume_unwind(Box::new("from the tracer"))
    })));
    let caught = catch_unwind(AssertUnwindSafe(|| g.switch("")));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"from the tracer"));
    assert!(g.is_dead(), "it was raised in g, and so killed it");
    assert_eq!(calls.get(), 1, "the death of g is not traced any more");
    assert!(settrace(None).is_none());
}

/// Case 51: set_same_tracer_twice
#[test]
fn a_tracer_that_was_replaced_can_be_set_again() {
    let seen = note();
    let first = settrace(None).unwrap();
    assert!(settrace(Some(first)).is_none());
    let first = settrace(None);
    assert!(settrace(first).is_none());
    G::new(|n| n).switch(0);
    assert_eq!(seen.borrow().len(), 2);
    assert!(settrace(None).is_some());
    assert_eq!(Rc::strong_count(&seen), 1);
}

#[test]
fn a_tracer_may_remove_or_replace_itself() {
    let calls = Rc::new(Cell::new(0));
    let count = calls.clone();
    settrace(Some(Box::new(move |_| {
        count.set(count.get() + 1);
        settrace(None);
    })));
    G::new(|n| n).switch(0);
    assert_eq!(calls.get(), 1);
    let (seen, next) = (Seen::default(), Rc::new(Cell::new(None)));
    let (notes, slot) = (seen.clone(), next.clone());
    let then: Box<dyn FnMut(greenling::TraceEvent)> =
        Box::new(move |event| notes.borrow_mut().push((event.kind, event.origin, event.target)));
    slot.set(Some(then));
    settrace(Some(Box::new(move |_| {
        if let Some(then) = next.take() {
            settrace(Some(then));
        }
    })));
    G::new(|n| n).switch(0);
    assert_eq!(seen.borrow().len(), 1, "the replacement saw the second event");
    assert!(settrace(None).is_some());
}

/// A tracer that switches to `to` with `value` when it is armed; it tells how many events it saw.
fn detour(to: &S, value: &'static str) -> (Rc<Cell<bool>>, Rc<Cell<u32>>) {
    let (armed, events) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let (arm, count, to) = (armed.clone(), events.clone(), to.clone());
    settrace(Some(Box::new(move |_| {
        count.set(count.get() + 1);
        if arm.replace(false) {
            to.switch(value);
        }
    })));
    (armed, events)
}

/// Case 52: reentrant_switch_two_greenlets
#[test]
fn a_switch_made_by_the_tracer_does_not_disturb_two_greenlets() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let g2 = S::new(|_| S::switch_to_parent("from g2"));
    let (armed, _) = detour(&g2, "to g2");
    let (log, arm) = (seen.clone(), armed.clone());
    let g1 = S::new(move |first| {
        log.borrow_mut().push(("g1 first", first));
        arm.set(true);
        // The tracer switches away from main while this value is on its way to main.
        let next = S::switch_to_parent("from g1");
        log.borrow_mut().push(("g1 next", next));
        "g1 done"
    });
    let note = |what, value| seen.borrow_mut().push((what, value));
    note("main", g1.switch("one"));
    note("main", g1.switch("two"));
    settrace(None);
    assert_eq!(*seen.borrow(), [("g1 first", "one"), ("main", "from g1"), ("g1 next", "two"), ("main", "g1 done")]);
}

/// Case 52: reentrant_switch_three_greenlets
#[test]
fn a_switch_made_by_the_tracer_in_a_greenlet_that_has_not_begun() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let g2 = S::new(|_| S::main().switch("g2 to main"));
    let (armed, _) = detour(&g2, "to g2");
    let log = seen.clone();
    let g1 = S::new(move |first| {
        log.borrow_mut().push(("g1 first", first));
        "g1 done"
    });
    armed.set(true);
    let note = |what, value| seen.borrow_mut().push((what, value));
    // g1 is in its tracer, g2 answers main.
    note("main", g1.switch("one"));
    // This is the answer to the tracer's switch; then g1 begins, with its own first value.
    note("main", g1.switch("two"));
    settrace(None);
    assert_eq!(*seen.borrow(), [("main", "g2 to main"), ("g1 first", "one"), ("main", "g1 done")]);
}

/// Case 52: reentrant_switch_three_greenlets2, with its exact list of values
#[test]
fn values_are_not_mixed_up_by_a_tracer_that_switches() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    let g2 = S::new(move |arg| {
        log.borrow_mut().push(("g2 arg", arg));
        let value = S::switch_to_parent("from g2_run");
        log.borrow_mut().push(("g2 from parent", value));
        "g2 done"
    });
    let log = seen.clone();
    let g1 = S::new(move |arg| {
        log.borrow_mut().push(("g1 arg", arg));
        let value = S::switch_to_parent("from g1_run");
        log.borrow_mut().push(("g1 from parent", value));
        "g1 done"
    });
    let (armed, events) = detour(&g2, "g2 from tracefunc");
    armed.set(true);
    let note = |what, value| seen.borrow_mut().push((what, value));
    note("main g1", g1.switch("g1 from main"));
    note("main g2", g1.switch("g2 from main"));
    note("main g1.2", g1.switch("g1 from main 2"));
    note("main g2.2", g2.switch("g2 from main 2"));
    settrace(None);
    let expected = [
        ("g2 arg", "g2 from tracefunc"),
        ("main g1", "from g2_run"),
        ("g1 arg", "g1 from main"),
        ("main g2", "from g1_run"),
        ("g1 from parent", "g1 from main 2"),
        ("main g1.2", "g1 done"),
        ("g2 from parent", "g2 from main 2"),
        ("main g2.2", "g2 done"),
    ];
    assert_eq!(*seen.borrow(), expected);
    // Unlike greenlet's, this tracer is off from its call to its return, and so sees none of the switches between.
    assert_eq!(events.get(), 6);
}

/// Case 53: reentrant_switch_run_callable_has_del
#[test]
fn the_destructor_of_a_body_that_never_runs_may_switch() {
    struct SwitchOnDrop(S, Rc<Cell<&'static str>>);
    impl Drop for SwitchOnDrop {
        fn drop(&mut self) {
            self.1.set(self.0.switch("from the destructor"));
        }
    }
    let answers = S::new(|s| S::switch_to_parent(s));
    let got = Rc::new(Cell::new(""));
    let on_drop = SwitchOnDrop(answers.clone(), got.clone());
    let g = S::new(move |s| {
        let _on_drop = on_drop;
        s
    });
    assert_eq!(g.kill("exit"), "exit");
    assert_eq!(got.get(), "from the destructor");
    // And of one that runs: the destructor switches to main when the body is over, before its value is passed on.
    let on_drop = SwitchOnDrop(S::main(), got.clone());
    let g = S::new(move |s| {
        let _on_drop = on_drop;
        s
    });
    assert_eq!(g.switch("value"), "from the destructor");
    assert!(!g.is_dead());
    assert_eq!(g.switch("answer"), "value");
    assert_eq!((g.is_dead(), got.get()), (true, "answer"));
}
