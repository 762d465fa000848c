//! Greenlets: throw and kill. A payload is raised at the target's suspension point, or goes where its death would.
//!
//! Not here: 29 (wrong arguments of throw) cannot compile, see `Greenlet::throw`; 31 (a target whose OS thread is
//! gone): a handle never leaves its thread; what is left, a handle in a thread-local, is in `shutdown.rs`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use greenling::{Greenlet, GreenletExit, SwitchErrorKind};

type S = Greenlet<&'static str>;

#[derive(Debug, PartialEq)]
struct IndexError(u32);

/// Runs `f`, and returns what of type `E` it raised.
fn caught<E: 'static, T>(f: impl FnOnce() -> T) -> Option<E> {
    catch_unwind(AssertUnwindSafe(f)).err().and_then(|payload| payload.downcast().ok()).map(|error| *error)
}

/// Case 26: class, val
#[test]
fn a_thrown_payload_can_be_caught_at_the_switch_and_life_goes_on() {
    let g = S::new(|_| {
        for _ in 0..2 {
            match caught::<IndexError, _>(|| S::switch_to_parent("ready")) {
                Some(IndexError(5)) => {}
                other => panic!("{other:?}"),
            }
        }
        S::switch_to_parent("caught both");
        "normal exit"
    });
    assert_eq!(g.switch("start"), "ready");
    assert_eq!(g.throw(Box::new(IndexError(5))), "ready");
    assert_eq!(g.throw(Box::new(IndexError(5))), "caught both");
    assert_eq!(g.switch("go"), "normal exit");
}

/// Case 27: kill
#[test]
fn a_killed_greenlet_leaves_the_kills_value() {
    let g = S::new(|_| S::switch_to_parent("ready"));
    assert_eq!(g.switch("start"), "ready");
    assert_eq!(g.kill("exit"), "exit");
    assert!(g.is_dead());
    assert_eq!(g.kill("eaten"), "eaten");
    assert_eq!(g.switch("again"), "again");
}

#[test]
fn a_kill_before_the_start_never_runs_the_body() {
    let ran = Rc::new(Cell::new(false));
    let mark = ran.clone();
    let g = S::new(move |s| {
        mark.set(true);
        s
    });
    assert_eq!(g.kill("exit"), "exit");
    assert!(g.is_dead() && !ran.get());
    assert_eq!(Rc::strong_count(&ran), 1, "the body is gone");
    assert_eq!(g.switch("dead"), "dead");
}

#[test]
fn the_value_of_a_caught_kill_is_not_lent_to_a_later_one() {
    type K = Greenlet<Option<Rc<()>>>;
    let held = Rc::new(());
    let g = K::new(|_| {
        let exit = catch_unwind(|| K::switch_to_parent(None)).unwrap_err();
        assert!(exit.is::<GreenletExit>());
        K::switch_to_parent(None);
        None
    });
    g.switch(None);
    assert!(g.kill(Some(held.clone())).is_none(), "caught: what came back is the body's own");
    assert_eq!(Rc::strong_count(&held), 2, "kept, since the exit may still be passed on");
    assert!(g.kill(None).is_none() && g.is_dead(), "another kill, another value");
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn a_caught_kill_may_be_passed_on() {
    let g = S::new(|_| {
        let exit = catch_unwind(|| S::switch_to_parent("ready")).unwrap_err();
        S::switch_to_parent("cleaning up");
        resume_unwind(exit)
    });
    g.switch("");
    assert_eq!(g.kill("value"), "cleaning up");
    assert_eq!(g.switch(""), "value");
    assert!(g.is_dead());
}

#[test]
fn a_greenlet_may_kill_itself() {
    let g = S::new(|_| S::current().kill("by itself"));
    assert_eq!(g.switch(""), "by itself");
    assert!(g.is_dead());
}

/// Case 28: throw_goes_to_original_parent, in its three states
#[test]
fn what_is_thrown_goes_to_the_greenlets_own_parent() {
    let f1 = || {
        S::new(|_| match caught::<IndexError, _>(|| S::main().switch("f1 ready to catch")) {
            Some(_) => "caught",
            None => "normal exit",
        })
    };
    let f2 = |_| S::main().switch("from f2");
    let throw = || Box::new(IndexError(0));

    let g1 = f1();
    let g2 = S::with_parent(f2, &g1);
    assert_eq!(caught(|| g2.throw(throw())), Some(IndexError(0)), "both unstarted");
    assert!(g1.is_dead() && g2.is_dead());

    let g1 = f1();
    let g2 = S::with_parent(f2, &g1);
    assert_eq!(g1.switch(""), "f1 ready to catch");
    assert_eq!(g2.throw(throw()), "caught", "the parent waits, the child is unstarted");
    assert!(g1.is_dead() && g2.is_dead());

    let g1 = f1();
    let g2 = S::with_parent(f2, &g1);
    assert_eq!(g1.switch(""), "f1 ready to catch");
    assert_eq!(g2.switch(""), "from f2");
    assert_eq!(g2.throw(throw()), "caught", "both wait");
    assert!(g1.is_dead() && g2.is_dead());
}

/// Case 30: throw_exception_not_lost
#[test]
fn what_is_thrown_into_an_unstarted_greenlet_reaches_the_parent_unchanged() {
    let g = S::new(|s| s);
    assert_eq!(caught(|| g.throw(Box::new(IndexError(9)))), Some(IndexError(9)));
    assert!(g.is_dead());
}

/// C13: anything but an exit thrown into a dead greenlet is raised in its first live ancestor.
#[test]
fn what_is_thrown_into_a_dead_greenlet_is_raised_in_its_ancestor() {
    let g = S::new(|s| s);
    g.switch("");
    assert_eq!(caught(|| g.throw(Box::new(IndexError(1)))), Some(IndexError(1)));
    let parent =
        S::new(|_| if caught::<IndexError, _>(|| S::switch_to_parent("")).is_some() { "parent" } else { "no" });
    parent.switch("");
    g.set_parent(&parent).unwrap();
    assert_eq!(g.throw(Box::new(IndexError(2))), "parent");
}

#[test]
fn a_throw_into_oneself_is_raised_on_the_spot() {
    assert_eq!(caught(|| S::current().throw(Box::new(IndexError(1)))), Some(IndexError(1)));
}

#[test]
fn nothing_switches_while_the_caller_unwinds() {
    struct OnDrop(S, Rc<Cell<u32>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let error = self.0.try_switch("value").unwrap_err();
            assert!(matches!(error.kind, SwitchErrorKind::Unwinding));
            assert_eq!(error.value, "value");
            self.1.set(self.1.get() + 1);
        }
    }
    let (g, seen) = (S::new(|s| s), Rc::new(Cell::new(0)));
    let on_drop = OnDrop(g.clone(), seen.clone());
    let unwound = caught::<IndexError, _>(move || {
        let _on_drop = on_drop;
        resume_unwind(Box::new(IndexError(0)))
    });
    assert!(unwound.is_some() && seen.get() == 1);
    assert_eq!(g.switch("unharmed"), "unharmed");
}

#[test]
fn a_failed_kill_leaves_no_value_behind() {
    let held = Rc::new(());
    type K = Greenlet<Option<Rc<()>>>;
    let g = K::new(|_| {
        K::switch_to_parent(None);
        None
    });
    g.switch(None);
    let refused = catch_unwind(AssertUnwindSafe(|| drop(greenling::no_switch(|| g.kill(Some(held.clone()))))));
    assert!(refused.is_err());
    assert_eq!(Rc::strong_count(&held), 1);
    assert!(g.switch(None).is_none());
}
