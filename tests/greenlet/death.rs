//! Greenlets: death and parents. What a greenlet leaves goes to its first live ancestor; the parent may change at any
//! time, but never in a circle.
//!
//! Not here: 17 (argument mismatch) and 22 (parents of wrong types) cannot compile, see `Greenlet::set_parent`; 18
//! (an ancestor that cannot start) is in `start_failure.rs`.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;

use greenling::{Greenlet, ParentError};

type G = Greenlet<i64>;

/// What the tests raise.
#[derive(Debug, PartialEq)]
struct SomeError(u32);

/// Raises without a message on stderr.
fn raise(n: u32) -> ! {
    resume_unwind(Box::new(SomeError(n)))
}

/// What `f` raised.
fn raised<T>(f: impl FnOnce() -> T) -> Option<SomeError> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => None,
        Err(payload) => payload.downcast().ok().map(|error| *error),
    }
}

/// Waits once; notes what is raised in it and lets it pass; if it is switched to, it raises on its own.
fn waiter(seen: &Rc<RefCell<Vec<SomeError>>>) -> G {
    let seen = seen.clone();
    G::new(move |_| match catch_unwind(|| G::switch_to_parent(0)) {
        Ok(_) => raise(1),
        Err(payload) => {
            seen.borrow_mut().push(SomeError(payload.downcast_ref::<SomeError>().unwrap().0));
            resume_unwind(payload)
        }
    })
}

/// Case 14: exception
#[test]
fn an_error_passes_through_the_new_parents_switch_and_then_to_main() {
    let seen = Rc::default();
    let (g1, g2) = (waiter(&seen), waiter(&seen));
    g1.switch(0);
    g2.switch(0);
    g2.set_parent(&g1).unwrap();
    assert!(seen.borrow().is_empty());
    assert_eq!(raised(|| g2.switch(0)), Some(SomeError(1)));
    assert_eq!(*seen.borrow(), [SomeError(1)]);
    assert!(g1.is_dead() && g2.is_dead());
    // The dead chain ends in main, which is the caller (C10).
    assert_eq!(g2.switch(0), 0);
    assert_eq!(g2.switch(25), 25);
    assert_eq!(*seen.borrow(), [SomeError(1)]);
}

/// Case 15: send_exception
#[test]
fn the_error_of_a_suspended_greenlets_child_is_raised_in_it_and_then_in_main() {
    let seen = Rc::default();
    let g1 = waiter(&seen);
    g1.switch(0);
    let crasher = G::with_parent(|n| raise(n as u32), &g1);
    assert_eq!(raised(|| crasher.switch(9)), Some(SomeError(9)));
    assert_eq!(*seen.borrow(), [SomeError(9)]);
}

/// Case 16: falling_off_end_switches_to_unstarted_parent_works
#[test]
fn an_unstarted_parent_is_started_with_the_childs_result() {
    let parent = Greenlet::<(i64, i64)>::new(|(x, _)| (x, 24));
    let child = Greenlet::with_parent(|_| (42, 0), &parent);
    assert_eq!(child.switch((0, 0)), (42, 24));
    assert!(parent.is_dead() && child.is_dead());
}

/// Case 19: switch_to_dead_greenlet_reparent
#[test]
fn a_switch_to_a_dead_greenlet_starts_its_new_parent() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let noting = |n| {
        let seen = seen.clone();
        G::new(move |_| {
            seen.borrow_mut().push(n);
            n
        })
    };
    let (parent, child) = (noting(24), noting(42));
    assert_eq!(child.switch(0), 42);
    child.set_parent(&parent).unwrap();
    assert_eq!(child.switch(0), 24);
    assert_eq!(*seen.borrow(), [42, 24]);
}

/// Case 23: main_greenlet_parent_is_none, trivial_cycle_main
#[test]
fn main_has_no_parent_and_gets_none() {
    let main = G::main();
    assert_eq!(main.parent(), None);
    assert_eq!(main.set_parent(&main), Err(ParentError::Guest));
    assert_eq!(main.set_parent(&G::new(|n| n)), Err(ParentError::Guest));
}

/// Case 24: trivial_cycle
#[test]
fn a_greenlet_is_not_its_own_parent() {
    let g = G::new(|n| n);
    assert_eq!(g.set_parent(&g), Err(ParentError::Cycle));
    assert_eq!(g.parent(), Some(G::main()));
}

/// Case 25: deeper_cycle
#[test]
fn no_ring_of_parents_can_be_closed() {
    let (g1, g2, g3) = (G::new(|n| n), G::new(|n| n), G::new(|n| n));
    g1.set_parent(&g2).unwrap();
    g2.set_parent(&g3).unwrap();
    assert_eq!(g3.set_parent(&g1), Err(ParentError::Cycle));
    assert_eq!(ParentError::Cycle.to_string(), "a greenlet cannot be its own ancestor");
    assert_eq!(g1.switch(5), 5, "through all three, to main");
}

#[test]
fn a_panic_reaches_the_parents_switch_with_the_same_payload() {
    let payload = Rc::new(());
    let _keep = payload.clone();
    let at = Box::new(77u64);
    let address = &raw const *at as usize;
    let mut at = Some(at);
    let child = G::new(move |_| resume_unwind(at.take().unwrap()));
    let caught = catch_unwind(AssertUnwindSafe(|| child.switch(0))).unwrap_err();
    let same = caught.downcast::<u64>().unwrap();
    assert_eq!((*same, &raw const *same as usize), (77, address));
    assert!(child.is_dead());
    // One that goes through the panic hook, too.
    let child = G::new(|n| panic_any(n));
    let caught = catch_unwind(AssertUnwindSafe(|| child.switch(78))).unwrap_err();
    assert_eq!(caught.downcast_ref(), Some(&78i64));
    assert!(!std::thread::panicking());
}

#[test]
fn the_parent_can_be_changed_in_every_state() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let collector = |name: &'static str| {
        let seen = seen.clone();
        G::new(move |n| {
            seen.borrow_mut().push((name, n));
            n
        })
    };
    // Unstarted.
    let (g, p) = (G::new(|n| n), collector("unstarted"));
    g.set_parent(&p).unwrap();
    g.switch(1);
    // Suspended.
    let (g, p) = (G::new(|_| G::switch_to_parent(0)), collector("suspended"));
    g.switch(0);
    g.set_parent(&p).unwrap();
    g.switch(2);
    // Running, by itself.
    let p = collector("running");
    let to = p.clone();
    let g = G::new(move |n| {
        G::current().set_parent(&to).unwrap();
        n
    });
    g.switch(3);
    // Dead.
    let p = collector("dead");
    g.set_parent(&p).unwrap();
    g.switch(4);
    assert_eq!(*seen.borrow(), [("unstarted", 1), ("suspended", 2), ("running", 3), ("dead", 4)]);
}

#[test]
fn the_new_parent_keeps_its_place_and_the_old_one_is_let_go() {
    let old = G::new(|n| n);
    let weak = old.downgrade();
    let g = G::with_parent(|n| n, &old);
    drop(old);
    assert!(weak.upgrade().is_some(), "a parent lives as long as its children");
    g.set_parent(&G::main()).unwrap();
    assert!(weak.upgrade().is_none());
}

/// A row of `n` greenlets, each the parent of the next; the last one.
fn row(n: usize, body: impl Fn(i64) -> i64 + Clone + 'static) -> G {
    (0..n).fold(G::current(), |parent, _| G::with_parent(body.clone(), &parent))
}

#[test]
fn a_thousand_unstarted_ancestors_each_get_the_value() {
    assert_eq!(row(1000, |n| n + 1).switch(0), 1000);
}

#[test]
fn a_panic_climbs_a_thousand_suspended_ancestors() {
    let mut all = vec![G::main()];
    for _ in 0..1000 {
        let next = G::with_parent(|_| G::main().switch(0), all.last().unwrap());
        next.switch(0);
        all.push(next);
    }
    let crasher = G::with_parent(|_| raise(3), all.last().unwrap());
    assert_eq!(raised(|| crasher.switch(0)), Some(SomeError(3)));
    assert!(all[1..].iter().all(G::is_dead));
    assert_eq!(crasher.switch(4), 4, "a thousand dead ancestors are passed by");
    drop(all);
    drop(crasher);
}

#[test]
fn a_long_row_of_ancestors_is_dropped_without_recursion() {
    // On a small stack, on which one frame for each of them would not fit.
    let g = G::with_stack_size(
        |_| {
            drop(row(100_000, |n| n));
            let dead = row(20_000, |n| n);
            dead.switch(0);
            drop(dead);
            let weakly = row(20_000, |n| n);
            let weak = weakly.downgrade();
            drop(weakly);
            i64::from(weak.upgrade().is_none())
        },
        64 * 1024,
    );
    assert_eq!(g.switch(0), 1);
}

#[test]
fn a_thousand_suspended_ancestors_are_unwound_by_one_drop() {
    let ended = Rc::new(());
    let mut last = G::main();
    for _ in 0..1000 {
        let mark = ended.clone();
        last = G::with_parent(
            move |_| {
                let _mark = mark;
                G::main().switch(0)
            },
            &last,
        );
        last.switch(0);
    }
    assert_eq!(Rc::strong_count(&ended), 1001);
    drop(last);
    assert_eq!(Rc::strong_count(&ended), 1);
    assert_eq!(greenling::hub::live_threads(), 0);
}
