//! Greenlets: the end of OS threads and of the process. What is suspended is unwound by `hub::shutdown`, and given up without
//! it; nothing crashes, whoever is left. (Greenlet unwinds at the end itself; see DESIGN.md, rejected designs.)
//!
//! Tests that look at a whole process run in a child, where they are the only one. The end of the process's main thread
//! is in `tests/greenlet_main_thread.rs`, since a test never runs on that. What is left of case 31 and 34, which need sendable handles, is a
//! handle in a thread-local of a thread that ends. Of case 48 the part that means something here: API use in a
//! thread-local's destructor.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::in_child;
use greenling::{Greenlet, GreenletState, SwitchErrorKind, hub, settrace};

type G = Greenlet<i64>;

/// Runs `body` in a child that must end with 0 and print each of `lines`.
fn ends_well(name: &str, lines: &[&str], body: impl FnOnce()) {
    match in_child(name) {
        None => body(),
        Some(output) => {
            let text =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{:?}\n{text}", output.status);
            for line in lines {
                assert!(text.contains(line), "no {line:?} in:\n{text}");
            }
            assert!(!text.contains("panicked"), "{text}");
        }
    }
}

/// Prints when it is dropped.
struct Tell(&'static str);

impl Drop for Tell {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

/// Suspended for good: nobody but the thread's end unwinds it.
fn suspended(tell: &'static str) -> G {
    let g = G::new(move |_| {
        let _tell = Tell(tell);
        G::switch_to_parent(0)
    });
    g.switch(0);
    g
}

thread_local! {
    /// Handles that are dropped with the thread.
    static KEPT: RefCell<Vec<G>> = const { RefCell::new(Vec::new()) };
}

/// Case 46: shutdown group A: active, multiple, nested, deep
#[test]
fn the_process_ends_well_with_suspended_greenlets() {
    ends_well("shutdown::the_process_ends_well_with_suspended_greenlets", &[], || {
        std::mem::forget(suspended("unwound"));
        for _ in 0..10 {
            std::mem::forget(suspended("unwound"));
        }
        fn nested(depth: u32) -> G {
            let g = G::new(move |_| {
                let _child = (depth > 0).then(|| nested(depth - 1));
                G::main().switch(0)
            });
            g.switch(0);
            g
        }
        std::mem::forget(nested(1));
        std::mem::forget(nested(10));
    });
}

/// Case 46: 50 with cleanup, one of them while it holds a caught error
#[test]
fn fifty_cleanups_run_in_a_shutdown() {
    let name = "shutdown::fifty_cleanups_run_in_a_shutdown";
    match in_child(name) {
        None => {
            for _ in 0..50 {
                std::mem::forget(G::new(|_| {
                    let _tell = Tell("cleanup");
                    let _held = catch_unwind(|| resume_unwind(Box::new("held")));
                    G::switch_to_parent(0)
                }));
                std::mem::forget(suspended("cleanup"));
            }
            assert_eq!(hub::shutdown(), 0);
        }
        Some(output) => {
            assert!(output.status.success(), "{output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stdout).matches("cleanup\n").count(), 50);
        }
    }
}

/// Case 46: in three OS threads; case 47: shutdown group B, cleanup code runs at the thread's end
#[test]
fn cleanup_runs_in_the_shutdown_of_each_os_thread() {
    let threads: Vec<_> = ["one", "two", "three"]
        .into_iter()
        .map(|_| {
            let told = Arc::new(AtomicUsize::new(0));
            let inside = told.clone();
            let thread = std::thread::spawn(move || {
                let told = inside;
                let g = G::new(move |_| {
                    let caught = catch_unwind(|| G::switch_to_parent(0));
                    told.fetch_add(1, Relaxed);
                    resume_unwind(caught.unwrap_err())
                });
                g.switch(0);
                std::mem::forget(g);
                assert_eq!(hub::shutdown(), 0);
            });
            (thread, told)
        })
        .collect();
    for (thread, told) in threads {
        thread.join().unwrap();
        assert_eq!(told.load(Relaxed), 1);
    }
}

/// Cases 41, 42 and 45: threads that end with finished, active and dropped greenlets leave nothing behind
#[test]
fn ended_threads_leave_nothing_behind() {
    let held = Arc::new(());
    for _ in 0..5 {
        let threads: Vec<_> = (0..10)
            .map(|_| {
                let held = held.clone();
                std::thread::spawn(move || {
                    for n in 0..10 {
                        let inside = held.clone();
                        let g = G::new(move |n| {
                            let _held = inside;
                            G::switch_to_parent(n)
                        });
                        g.switch(n);
                        match n % 3 {
                            0 => drop(g),
                            1 => drop(g.switch(n)),
                            _ => KEPT.with_borrow_mut(|kept| kept.push(g)),
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    assert_eq!(Arc::strong_count(&held), 1);
}

/// Case 44: untracked_memory_unfinished_thread
#[test]
fn twenty_thousand_suspended_greenlets_are_unwound_by_shutdowns() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
    };
    ends_well("shutdown::twenty_thousand_suspended_greenlets_are_unwound_by_shutdowns", &[], || {
        let unwound = Arc::new(AtomicUsize::new(0));
        struct Count(Arc<AtomicUsize>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let round = |keep: bool| {
            let unwound = unwound.clone();
            let thread = std::thread::spawn(move || {
                for _ in 0..5_000 {
                    let count = Count(unwound.clone());
                    let g = G::new(move |_| {
                        let _count = count;
                        G::switch_to_parent(0)
                    });
                    g.switch(0);
                    if keep { KEPT.with_borrow_mut(|kept| kept.push(g)) } else { std::mem::forget(g) }
                }
                assert_eq!(hub::shutdown(), 0);
            });
            thread.join().unwrap();
        };
        round(true);
        let before = resident();
        round(false);
        round(true);
        round(false);
        assert_eq!(unwound.load(Relaxed), 20_000);
        // 5000 stacks are 10 000 pages and more.
        assert!(resident() < before + 5_000, "{before} pages grew to {}", resident());
    });
}

/// Case 48: API use in a thread-local's destructor returns an error, no abort; what is left of case 31
#[test]
fn a_thread_locals_destructor_gets_errors_and_dead_greenlets() {
    struct Late(G, G);
    impl Drop for Late {
        fn drop(&mut self) {
            let Late(suspended, unstarted) = &*self;
            for g in [suspended, unstarted] {
                assert_eq!((g.state(), g.is_active(), g.is_main()), (GreenletState::Dead, false, false));
                let error = g.try_switch(5).unwrap_err();
                assert!(matches!(error.kind, SwitchErrorKind::ThreadEnding), "{error}");
                assert_eq!(error.value, 5);
            }
            assert!(G::current().is_dead() && G::main().is_dead() && G::current().parent().is_none());
            assert!(G::new(|n| n).try_switch(6).is_err());
            assert!(settrace(Some(Box::new(drop))).is_none());
            println!("late, {:?}", suspended.parent().unwrap().state());
        }
    }
    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    ends_well("shutdown::a_thread_locals_destructor_gets_errors_and_dead_greenlets", &["late, Dead"], || {
        std::thread::spawn(|| {
            // Registered first, destroyed last.
            LATE.with(|_| {});
            let late = Late(suspended("unwound"), G::new(|n| n));
            LATE.set(Some(late));
        })
        .join()
        .unwrap();
    });
}

#[test]
fn a_thread_local_that_goes_before_the_greenlets_unwinds_its_own() {
    ends_well("shutdown::a_thread_local_that_goes_before_the_greenlets_unwinds_its_own", &["unwound"], || {
        std::thread::spawn(|| {
            let g = suspended("unwound");
            KEPT.with_borrow_mut(|kept| kept.push(g));
        })
        .join()
        .unwrap();
    });
}

#[test]
fn an_exit_inside_a_greenlet_ends_the_process_with_its_code() {
    match in_child("shutdown::an_exit_inside_a_greenlet_ends_the_process_with_its_code") {
        None => {
            std::mem::forget(suspended("other"));
            G::new(|_| std::process::exit(7)).switch(0);
        }
        Some(output) => assert_eq!(output.status.code(), Some(7), "{output:?}"),
    }
}

#[test]
fn shutdown_unwinds_suspended_greenlets_and_the_thread_goes_on() {
    let g = G::new(|_| G::switch_to_parent(0));
    g.switch(0);
    assert_eq!(hub::shutdown(), 0);
    assert!(g.is_dead());
    assert_eq!(g.switch(5), 5);
    assert_eq!(G::new(|n| n + 1).switch(1), 2);
}

#[test]
fn a_tracer_set_at_the_end_does_no_harm() {
    ends_well("shutdown::a_tracer_set_at_the_end_does_no_harm", &[], || {
        std::mem::forget(suspended("unwound"));
        settrace(Some(Box::new(drop)));
    });
}
