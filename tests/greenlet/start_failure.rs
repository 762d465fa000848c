//! Greenlets: no memory for a stack. A start that fails is an error, and the greenlet can still be started.
//!
//! Case 18, switch_to_dead_greenlet_with_unstarted_perverse_parent, and case 54, failed_to_initialstub. The limit on
//! address space holds for a whole process, so the test runs in a child.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::in_child;
use greenling::{Greenlet, GreenletState, SwitchErrorKind};

type G = Greenlet<i64>;

/// Sets how much address space the process may have, besides what it has.
fn limit_address_space(more: Option<u64>) {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    let most = more.map_or(libc::RLIM_INFINITY, |more| pages * 4096 + more);
    let limit = libc::rlimit { rlim_cur: most, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: setrlimit(2) reads one rlimit, which lives over the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(result, 0);
}

/// Cases 18 and 54
#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer needs address space without a limit")]
fn a_start_without_memory_is_an_error_and_works_later() {
    if let Some(output) = in_child("start_failure::a_start_without_memory_is_an_error_and_works_later") {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("the child was here"), "{text}");
        return;
    }
    // Stacks of the default size are there from now on; larger ones need a mapping of their own.
    assert_eq!(G::new(|n| n).switch(1), 1);
    limit_address_space(Some(16 << 20));

    // Case 54: the caller gets the error and the value, nothing else has happened.
    let large = G::with_stack_size(|n| n + 1, 64 << 20);
    let error = large.try_switch(5).unwrap_err();
    assert!(matches!(error.kind, SwitchErrorKind::NoStack(_)), "{error}");
    assert_eq!((error.value, large.state()), (5, GreenletState::Unstarted));
    let message = catch_unwind(AssertUnwindSafe(|| large.switch(5))).unwrap_err();
    assert!(message.downcast_ref::<String>().unwrap().contains("no stack for the greenlet"));

    // Case 18: the child dies, its parent cannot start, the error goes to the parent's parent; twice.
    let runs = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = runs.clone();
    let child = G::with_parent(
        move |n| {
            count.set(count.get() + 1);
            n
        },
        &large,
    );
    let message = catch_unwind(AssertUnwindSafe(|| child.switch(42))).unwrap_err();
    assert!(message.downcast_ref::<String>().unwrap().contains("no stack for a greenlet's parent"));
    assert_eq!((runs.get(), child.is_dead(), large.state()), (1, true, GreenletState::Unstarted));
    let error = child.try_switch(84).unwrap_err();
    assert!(matches!(error.kind, SwitchErrorKind::NoStack(_)), "{error}");
    assert_eq!(runs.get(), 1);
    // A grandparent that waits gets it instead of main.
    let waits = G::new(|_| {
        let message = catch_unwind(|| G::switch_to_parent(0)).unwrap_err();
        i64::from(message.is::<String>()) + 10
    });
    waits.switch(0);
    let orphan = G::with_stack_size(|n| n, 200 << 20);
    orphan.set_parent(&waits).unwrap();
    assert_eq!(G::with_parent(|n| n, &orphan).switch(1), 11);

    limit_address_space(None);
    assert_eq!(child.switch(42), 43, "now it starts");
    assert!(large.is_dead());
    println!("the child was here");
}
