//! Greenlets: the end of the last handle. A suspended greenlet is unwound on the spot and control returns to the
//! dropper; nothing is leaked, and nothing runs twice.
//!
//! Not here: 34 and 42 (drop in another OS thread) cannot compile, since handles are not `Send`; what is left of them,
//! threads that end with suspended greenlets, is in `shutdown.rs`, with 41 and 45.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::in_child;
use greenling::{Greenlet, GreenletExit, GreenletState, WeakGreenlet, hub};

type G = Greenlet<i64>;
type Log<T> = Rc<RefCell<Vec<T>>>;

/// Writes its name when it is dropped.
struct Mark(&'static str, Log<&'static str>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

/// Suspended, with a mark on its stack.
fn suspended(name: &'static str, log: &Log<&'static str>) -> G {
    let mark = Mark(name, log.clone());
    let g = G::new(move |_| {
        let _mark = mark;
        G::switch_to_parent(0)
    });
    g.switch(0);
    g
}

/// Case 32: dealloc
#[test]
fn dropped_handles_unwind_at_once_in_the_order_of_the_drops() {
    let log = Log::default();
    let (a, b, c) = (suspended("a", &log), suspended("b", &log), suspended("c", &log));
    let another = b.clone();
    drop(a);
    assert_eq!(*log.borrow(), ["a"]);
    drop(b);
    assert_eq!(*log.borrow(), ["a"], "another handle of b is left");
    drop(c);
    drop(another);
    assert_eq!(*log.borrow(), ["a", "c", "b"]);
    assert_eq!(hub::live_threads(), 0);
}

#[test]
fn the_payload_of_a_drop_is_an_exit() {
    let seen = Rc::new(Cell::new(false));
    let inside = seen.clone();
    let g = G::new(move |_| {
        let payload = catch_unwind(|| G::switch_to_parent(0)).unwrap_err();
        inside.set(payload.is::<GreenletExit>());
        resume_unwind(payload)
    });
    g.switch(0);
    drop(g);
    assert!(seen.get());
}

/// Case 33: dealloc_catches_GreenletExit_throws_other
#[test]
fn a_panic_during_a_drop_is_not_the_droppers() {
    let g = G::new(|_| {
        let _ = catch_unwind(|| G::switch_to_parent(0));
        panic!("expected in the output: thrown while being dropped")
    });
    g.switch(0);
    drop(g);
    assert_eq!((hub::live_threads(), std::thread::panicking()), (0, false));
}

#[test]
fn a_result_after_a_drop_is_nobodys() {
    let log = Log::default();
    let mark = Mark("result", log.clone());
    let g = Greenlet::<Option<Mark>>::new(move |_| {
        let _ = catch_unwind(|| Greenlet::<Option<Mark>>::switch_to_parent(None));
        Some(mark)
    });
    g.switch(None);
    drop(g);
    assert_eq!(*log.borrow(), ["result"]);
}

/// Case 35: parent_restored_on_kill
#[test]
fn the_dropper_is_the_parent_until_control_is_back() {
    let seen: Log<Option<G>> = Log::default();
    let started = Rc::new(Cell::new(0));
    let mark = started.clone();
    let other = G::new(move |n| {
        mark.set(n);
        n
    });
    let (inside, to) = (seen.clone(), other.clone());
    let worker = G::with_parent(
        move |_| {
            let exit = catch_unwind(|| G::main().switch(0)).unwrap_err();
            assert!(exit.is::<GreenletExit>());
            let me = G::current();
            inside.borrow_mut().extend([me.parent(), Some(me)]);
            // Starts it; it returns to its parent, main, who is the dropper.
            to.switch(7)
        },
        &other,
    );
    worker.switch(0);
    drop(worker);
    assert_eq!(started.get(), 7);
    let seen = seen.take();
    assert_eq!(seen[0], Some(G::main()), "the dropper");
    let resurrected = seen[1].clone().unwrap();
    assert_eq!(resurrected.parent(), Some(other), "the old parent again");
    assert_eq!(resurrected.state(), GreenletState::Suspended);
    drop(seen);
    assert_eq!(resurrected.switch(3), 3, "it lives as before: value to the dead parent's parent");
    assert!(resurrected.is_dead());
}

/// Case 36: dealloc_switch_args_not_lost
#[test]
fn a_value_in_flight_survives_its_senders_end() {
    let log = Log::default();
    let own = Rc::new(RefCell::new(None::<G>));
    let initiator = Rc::new(RefCell::new(None::<G>));
    let (slot, child, mark) = (own.clone(), initiator.clone(), Mark("sender", log.clone()));
    let worker = G::new(move |_| {
        let _mark = mark;
        let value = G::switch_to_parent(0);
        drop(slot.take());
        // That was the last but one handle; this is the last.
        child.borrow().as_ref().unwrap().set_parent(&G::main()).unwrap();
        G::main().switch(value)
    });
    worker.switch(0);
    let leaf = G::with_parent(|_| 42, &worker);
    *own.borrow_mut() = Some(worker);
    *initiator.borrow_mut() = Some(leaf.clone());
    assert_eq!(leaf.switch(0), 42);
    assert!(log.borrow().is_empty());
    greenling::yield_now();
    assert_eq!(*log.borrow(), ["sender"], "it ends at its next turn");
    assert_eq!(hub::live_threads(), 0);
}

/// Case 37: dead_weakref, inactive_weakref, dealloc_weakref
#[test]
fn a_weak_handle_is_dead_before_the_unwinding_can_upgrade_it() {
    let unstarted = G::new(|n| n);
    let weak = unstarted.downgrade();
    assert_eq!(weak.upgrade(), Some(unstarted.clone()));
    drop(unstarted);
    assert!(weak.upgrade().is_none());

    let dead = G::new(|n| n);
    dead.switch(0);
    let weak = dead.downgrade();
    drop(dead);
    assert!(weak.upgrade().is_none());

    struct Upgrade(Rc<RefCell<Option<WeakGreenlet<i64>>>>, Rc<Cell<u32>>);
    impl Drop for Upgrade {
        fn drop(&mut self) {
            let gone = self.0.borrow().as_ref().unwrap().upgrade().is_none();
            self.1.set(if gone { 1 } else { 2 });
        }
    }
    let (weak, seen) = (Rc::new(RefCell::new(None)), Rc::new(Cell::new(0)));
    let on_drop = Upgrade(weak.clone(), seen.clone());
    let g = G::new(move |_| {
        let _on_drop = on_drop;
        G::switch_to_parent(0)
    });
    g.switch(0);
    *weak.borrow_mut() = Some(g.downgrade());
    drop(g);
    assert_eq!(seen.get(), 1);
    assert_eq!(format!("{:?}", weak.borrow().as_ref().unwrap()), "Weak(gone)");
}

/// Case 38: dead_circular_ref, inactive_ref; a handle in the own body (circular_greenlet) is a documented leak until
/// the OS thread ends, or until the body gives it up.
#[test]
fn no_registry_keeps_the_dead_and_the_unstarted() {
    let held = Rc::new(());
    let in_body = held.clone();
    drop(G::new(move |n| n + Rc::strong_count(&in_body) as i64));
    assert_eq!(Rc::strong_count(&held), 1);
    // Its own handle comes back as its result: nothing is left once that is dropped.
    type Own = Greenlet<Option<Box<dyn std::any::Any>>>;
    let g = Own::new(|_| Some(Box::new(Own::current())));
    let weak = g.downgrade();
    let result = g.switch(None);
    drop(g);
    assert!(weak.upgrade().is_some());
    drop(result);
    assert!(weak.upgrade().is_none());
}

/// Case 39: finalizer_crash, greenlet_trash
#[test]
fn destructors_that_switch_in_mid_teardown_run_once_each() {
    /// What the destructors tell.
    #[derive(Default)]
    struct Told {
        dropped: Cell<u32>,
        in_background: Cell<u32>,
        spawned: Cell<bool>,
        exit_seen: Cell<bool>,
        background: RefCell<Option<G>>,
    }
    struct Node(u32, Rc<Told>, #[expect(dead_code, reason = "held to be dropped")] Option<Box<Node>>);
    impl Drop for Node {
        fn drop(&mut self) {
            let told = &self.1;
            if self.0 == 500 && !told.spawned.replace(true) {
                let list = nested(told);
                let background = G::with_stack_size(
                    move |_| {
                        drop(list);
                        0
                    },
                    1 << 20,
                );
                *told.background.borrow_mut() = Some(background.clone());
                assert_eq!(background.switch(0), 42);
            } else if self.0 == 40 && !G::current().is_main() {
                let exit = catch_unwind(|| G::main().switch(42)).unwrap_err();
                told.exit_seen.set(exit.is::<GreenletExit>());
            }
            told.dropped.set(told.dropped.get() + 1);
            if !G::current().is_main() {
                told.in_background.set(told.in_background.get() + 1);
            }
        }
    }
    fn nested(told: &Rc<Told>) -> Option<Box<Node>> {
        (0..1000).rev().fold(None, |rest, i| Some(Box::new(Node(i, told.clone(), rest))))
    }
    for _ in 0..30 {
        let told = Rc::<Told>::default();
        drop(nested(&told));
        assert_eq!((told.dropped.get(), told.in_background.get()), (1040, 40));
        let background = told.background.take();
        drop(background);
        assert!(told.exit_seen.get());
        assert_eq!((told.dropped.get(), told.in_background.get()), (2000, 1000));
        assert_eq!(Rc::strong_count(&told), 1);
    }
}

/// Case 40: arg_refs, kwarg_refs
#[test]
fn switches_change_no_reference_count() {
    let g = Greenlet::<Option<Rc<()>>>::new(|_| {
        loop {
            let _value = Greenlet::switch_to_parent(None::<Rc<()>>);
        }
    });
    g.switch(None);
    let value = Rc::new(());
    for _ in 0..100 {
        assert!(g.switch(Some(value.clone())).is_none());
        assert_eq!(Rc::strong_count(&value), 1);
    }
}

/// Pages in memory.
fn resident_pages() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Case 43: untracked_memory. In a child: the other tests of this binary need memory, too.
#[test]
fn memory_reaches_a_plateau_over_runs() {
    if let Some(output) = in_child("drop::memory_reaches_a_plateau_over_runs") {
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let round = || {
        for n in 0..10_000 {
            let g = G::new(|n| G::switch_to_parent(n + 1));
            assert_eq!(g.switch(n), n + 1);
            if n % 2 == 0 {
                assert_eq!(g.switch(n), n);
            }
        }
    };
    round();
    let before = resident_pages();
    round();
    let grown = resident_pages() - before;
    // One leaked stack each would be 20 000 pages. AddressSanitizer keeps for a while what was freed.
    let most = if cfg!(feature = "sanitizer") { 8_000 } else { 1_000 };
    assert!(grown < most, "{grown} pages more");
    assert_eq!(hub::live_threads(), 0);
    assert!(hub::stack_stats().made < 10, "{:?}", hub::stack_stats());
}

#[test]
fn a_hundred_thousand_greenlets_come_and_go() {
    let log: Vec<G> = (0..100_000).map(|_| G::new(|n| n)).collect();
    assert_eq!(hub::stack_stats().made, 0, "an unstarted greenlet has no stack");
    drop(log);
    for n in 0..100_000 {
        assert_eq!(G::new(|n| n + 1).switch(n), n + 1);
    }
    assert_eq!(hub::stack_stats().made, 1, "one stack serves all");
}

#[test]
fn a_greenlet_that_holds_another_takes_it_along() {
    let log = Log::default();
    let (deepest, mark) = (suspended("deepest", &log), Mark("inner", log.clone()));
    let inner = G::new(move |_| {
        let _held = (mark, deepest);
        G::switch_to_parent(0)
    });
    inner.switch(0);
    let mark = Mark("outer", log.clone());
    let outer = G::new(move |_| {
        let _held = (mark, inner);
        G::switch_to_parent(0)
    });
    outer.switch(0);
    drop(outer);
    assert_eq!(*log.borrow(), ["outer", "inner", "deepest"], "all before the drop returned");
    assert_eq!(hub::live_threads(), 0);
}

#[test]
fn a_drop_while_unwinding_takes_effect_at_the_next_turn() {
    let log = Log::default();
    let g = suspended("g", &log);
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _g = g;
        resume_unwind(Box::new(1))
    }));
    assert!(unwound.is_err());
    assert!(log.borrow().is_empty());
    greenling::yield_now();
    assert_eq!(*log.borrow(), ["g"]);
    assert_eq!(hub::live_threads(), 0);
}

#[test]
fn a_drop_inside_no_switch_takes_effect_at_the_next_turn() {
    let log = Log::default();
    let g = suspended("g", &log);
    greenling::no_switch(|| drop(g));
    assert!(log.borrow().is_empty());
    greenling::yield_now();
    assert_eq!(*log.borrow(), ["g"]);
}

#[test]
fn a_greenlet_dropped_while_it_is_blocked_in_the_hub_is_unwound_there() {
    let log = Log::default();
    let mark = Mark("blocked", log.clone());
    let g = G::new(move |n| {
        let _mark = mark;
        greenling::sleep(Duration::from_secs(600));
        n
    });
    // Main comes back because a green thread switches to it.
    let waker = greenling::spawn(|| G::main().switch(5));
    assert_eq!(g.switch(0), 5);
    assert_eq!(g.state(), GreenletState::Blocked);
    drop(g);
    assert!(log.borrow().is_empty());
    greenling::yield_now();
    assert_eq!(*log.borrow(), ["blocked"]);
    assert!(waker.kill());
    assert!(waker.join().unwrap_err().is_killed());
}

/// A dying greenlet's link may be its parent's last handle; the parent has its value by then, and must live on.
#[test]
fn a_parent_whose_last_handle_was_its_childs_link_gets_the_childs_result() {
    let (got, child_slot): (Rc<Cell<i64>>, Rc<Cell<Option<G>>>) = Default::default();
    let result = got.clone();
    let parent = G::new(move |_| {
        result.set(G::main().switch(0));
        0
    });
    parent.switch(0);
    let own = child_slot.clone();
    let child = G::with_parent(
        move |_| {
            greenling::sleep(Duration::from_millis(5));
            drop(own.take());
            7
        },
        &parent,
    );
    drop(parent);
    let waker = greenling::spawn(|| {
        G::main().switch(5);
    });
    assert_eq!(child.switch(0), 5, "the child sleeps");
    child_slot.set(Some(child));
    greenling::sleep(Duration::from_millis(200));
    assert_eq!(got.get(), 7);
    assert!(waker.kill());
    assert!(waker.join().is_err());
    assert_eq!(hub::live_threads(), 0);
}

/// The same for one that has not started: the child's value starts it.
#[test]
fn an_unstarted_parent_whose_last_handle_was_its_childs_link_is_started() {
    let got = Rc::new(Cell::new(0));
    let result = got.clone();
    let parent = G::new(move |n| {
        result.set(n);
        n
    });
    let child_slot: Rc<Cell<Option<G>>> = Rc::default();
    let own = child_slot.clone();
    let child = G::with_parent(
        move |n| {
            greenling::sleep(Duration::from_millis(5));
            drop(own.take());
            n + 1
        },
        &parent,
    );
    drop(parent);
    let waker = greenling::spawn(|| {
        G::main().switch(5);
    });
    assert_eq!(child.switch(1), 5, "the child sleeps");
    child_slot.set(Some(child));
    greenling::sleep(Duration::from_millis(200));
    assert_eq!(got.get(), 2);
    assert!(waker.kill() && waker.join().is_err());
    assert_eq!(hub::live_threads(), 0);
}

#[test]
fn a_dropper_that_is_killed_by_what_it_drops_is_killed_afterwards() {
    struct KillTheDropper(Rc<RefCell<Option<greenling::thread::JoinHandle<()>>>>);
    impl Drop for KillTheDropper {
        fn drop(&mut self) {
            assert!(self.0.borrow().as_ref().unwrap().kill());
        }
    }
    let (dropper, drop_returned) = (Rc::new(RefCell::new(None)), Rc::new(Cell::new(false)));
    let (on_drop, returned) = (KillTheDropper(dropper.clone()), drop_returned.clone());
    *dropper.borrow_mut() = Some(greenling::spawn(move || {
        let g = G::new(move |_| {
            let _on_drop = on_drop;
            G::switch_to_parent(0)
        });
        g.switch(0);
        drop(g);
        returned.set(true);
        greenling::yield_now();
        unreachable!("the kill comes at the first wait after the drop");
    }));
    greenling::yield_now();
    greenling::yield_now();
    let handle = dropper.take().unwrap();
    assert!(handle.join().unwrap_err().is_killed());
    assert!(drop_returned.get());
    assert_eq!(hub::live_threads(), 0);
}

#[test]
fn a_greenlet_that_blocks_while_it_is_dropped_holds_the_dropper_up() {
    let log = Log::default();
    let mark = Mark("slept", log.clone());
    let g = G::new(move |_| {
        let exit = catch_unwind(|| G::switch_to_parent(0)).unwrap_err();
        greenling::sleep(Duration::from_millis(5));
        drop(mark);
        resume_unwind(exit)
    });
    g.switch(0);
    drop(g);
    assert_eq!(*log.borrow(), ["slept"]);
}

#[test]
fn a_greenlet_that_never_ends_does_not_hold_the_dropper_for_ever() {
    let g = G::new(|_| {
        let _ = catch_unwind(|| G::switch_to_parent(0));
        // Nobody unparks it: a deadlock, which the drop reports and leaves behind.
        greenling::thread::park();
        0
    });
    g.switch(0);
    drop(g);
    assert_eq!(hub::live_threads(), 1);
    assert_eq!(hub::shutdown(), 0);
    assert_eq!(hub::live_threads(), 0);
}

#[test]
fn a_greenlet_without_handles_that_runs_goes_on() {
    let own: Rc<Cell<Option<G>>> = Rc::default();
    let slot = own.clone();
    let g = G::new(move |n| {
        drop(slot.take());
        greenling::yield_now();
        n + 1
    });
    let weak = g.downgrade();
    own.set(Some(g));
    let handle = own.take().unwrap();
    let by_loan = handle.clone();
    own.set(Some(handle));
    assert_eq!(G::new(move |n| by_loan.switch(n)).switch(1), 2);
    assert!(weak.upgrade().is_none_or(|g| g.is_dead()));
}
