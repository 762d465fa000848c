//! Greenlets: panics that cross stacks, and calls that fail half-way.
//!
//! Case 54 (a failed start) is in `start_failure.rs`; its other half, a switch into a running greenlet, is
//! below as a switch into one that is not suspended: it is an error value, and a retry works.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::in_child;
use greenling::{Greenlet, SwitchErrorKind, hub};

type G = Greenlet<i64>;

/// Case 54: failed_to_switch_into_running
#[test]
fn a_switch_that_cannot_be_made_gives_the_value_back_and_can_be_retried() {
    let g = G::new(|n| {
        greenling::yield_now();
        G::switch_to_parent(n + 1)
    });
    let same = g.clone();
    let other = greenling::spawn(move || {
        let error = same.try_switch(5).unwrap_err();
        assert!(matches!(error.kind, SwitchErrorKind::Blocked), "{error}");
        error.value
    });
    assert_eq!(g.switch(1), 2);
    assert_eq!(other.join().unwrap(), 5);
    assert_eq!(g.switch(7), 7);
}

/// Case 61: cpp::exception_switch
#[test]
fn a_panic_caught_before_a_switch_is_still_the_same_after_it() {
    fn recurse(depth: i64, left: i64) -> i64 {
        if left > 0 {
            return recurse(depth, left - 1);
        }
        let caught = catch_unwind(|| resume_unwind(Box::new(depth))).unwrap_err();
        // The handler is left for another stack, on which another panic is caught.
        G::switch_to_parent(depth);
        assert!(!std::thread::panicking());
        let again = catch_unwind(AssertUnwindSafe(|| resume_unwind(caught))).unwrap_err();
        G::switch_to_parent(depth);
        *again.downcast::<i64>().unwrap()
    }
    let all: Vec<_> = (1..=4).map(|depth| (depth, G::new(|depth| recurse(depth, depth)))).collect();
    for (depth, g) in &all {
        assert_eq!(g.switch(*depth), *depth);
    }
    for (depth, g) in all.iter().rev() {
        assert_eq!(g.switch(0), *depth);
    }
    for (depth, g) in &all {
        assert_eq!((g.switch(0), g.is_dead()), (*depth, true), "each caught its own");
    }
}

/// Case 62: cpp::unhandled_*
#[test]
fn a_panic_that_meets_a_foreign_frame_ends_the_process_loudly() {
    extern "C" fn foreign() {
        panic!("must not pass");
    }
    match in_child("reentrancy::a_panic_that_meets_a_foreign_frame_ends_the_process_loudly") {
        None => {
            G::new(|n| {
                foreign();
                n
            })
            .switch(0);
        }
        Some(output) => {
            use std::os::unix::process::ExitStatusExt;
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), Some(6), "{text}");
            assert!(text.contains("must not pass") && text.contains("cannot unwind"), "{text}");
        }
    }
}

/// Case 62: cpp::leak_test
#[test]
fn a_thousand_failing_nested_greenlets_leave_nothing() {
    let held = Rc::new(());
    for n in 0..1000i64 {
        let inside = held.clone();
        let outer = G::new(move |n| {
            let inner = G::new(move |n| {
                let _held = inside;
                resume_unwind(Box::new(n))
            });
            inner.switch(n)
        });
        let caught = catch_unwind(AssertUnwindSafe(|| outer.switch(n))).unwrap_err();
        assert_eq!(caught.downcast_ref(), Some(&n));
    }
    assert_eq!(Rc::strong_count(&held), 1);
    assert_eq!((hub::live_threads(), hub::stack_stats().made), (0, 2));
}

#[test]
fn panics_on_many_stacks_reach_their_own_parents() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let all: Vec<_> = (0..100i64)
        .map(|n| {
            let seen = seen.clone();
            G::new(move |_| {
                let child = G::new(move |_| {
                    greenling::sleep(Duration::from_millis(1));
                    resume_unwind(Box::new(n))
                });
                let caught = catch_unwind(AssertUnwindSafe(|| child.switch(0))).unwrap_err();
                seen.borrow_mut().push(*caught.downcast::<i64>().unwrap());
                0
            })
        })
        .collect();
    let threads: Vec<_> = all
        .into_iter()
        .map(|g| {
            greenling::spawn(move || {
                g.set_parent(&G::current()).unwrap();
                g.switch(0)
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), 0));
    let mut seen = seen.take();
    seen.sort();
    assert!(seen.into_iter().eq(0..100i64));
}
