//! Greenlets and the hub: explicit and automatic switching in one OS thread.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::{Greenlet, GreenletState, SwitchErrorKind, TimeoutError, hub, no_switch, sleep, spawn, timeout};

type G = Greenlet<i64>;

const MOMENT: Duration = Duration::from_millis(5);
const FOR_EVER: Duration = Duration::from_secs(600);

/// What `f` panicked with, as text.
fn message<T>(f: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).err().expect("a panic");
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| payload.downcast_ref::<&str>().unwrap().to_string())
}

#[test]
fn a_greenlet_may_sleep_yield_and_join_while_main_waits_in_its_switch() {
    let g = G::new(|n| {
        sleep(MOMENT);
        greenling::yield_now();
        let joined = spawn(move || n + 1).join().unwrap();
        G::switch_to_parent(joined);
        sleep(MOMENT);
        0
    });
    assert_eq!(g.switch(1), 2);
    assert_eq!(g.switch(0), 0);
    assert!(g.is_dead());
}

#[test]
fn green_threads_run_while_a_greenlet_sleeps() {
    let order = Rc::new(RefCell::new(Vec::new()));
    let note = |what| {
        let order = order.clone();
        move || order.borrow_mut().push(what)
    };
    let (before, after) = (note("asleep"), note("awake"));
    let thread = spawn(note("thread"));
    let g = G::new(move |n| {
        before();
        sleep(MOMENT);
        after();
        n
    });
    g.switch(0);
    thread.join().unwrap();
    assert_eq!(*order.borrow(), ["asleep", "thread", "awake"]);
}

#[test]
fn a_green_thread_is_a_member_of_the_family() {
    let thread = spawn(|| {
        let me = G::current();
        assert!(me.parent().is_none() && !me.is_main());
        let g = G::new(|n| G::switch_to_parent(n + 1) + 10);
        assert_eq!(g.parent(), Some(me.clone()));
        let second = me.clone();
        let other = spawn(move || {
            assert_eq!(second.state(), GreenletState::Suspended);
            // Any green thread may answer one that waits in a switch; nobody answers this one.
            second.switch(100)
        });
        assert_eq!(g.switch(1), 2);
        assert_eq!(
            G::new(|n| {
                sleep(MOMENT);
                n
            })
            .switch(1),
            100
        );
        assert!(other.kill());
        assert!(other.join().unwrap_err().is_killed());
        g.switch(1)
    });
    assert_eq!(thread.join().unwrap(), 11);
}

#[test]
fn a_greenlet_that_is_blocked_in_the_hub_cannot_be_switched_to() {
    let g = G::new(|n| {
        sleep(MOMENT);
        n
    });
    let same = g.clone();
    let thread = spawn(move || {
        let error = same.try_switch(7).unwrap_err();
        assert!(matches!(error.kind, SwitchErrorKind::Blocked));
        assert_eq!((error.value, same.state()), (7, GreenletState::Blocked));
        message(|| same.kill(8))
    });
    assert_eq!(g.switch(1), 1, "the refused values left no trace");
    assert!(thread.join().unwrap().contains("blocked in the hub"));
}

#[test]
fn a_green_thread_that_waits_in_a_switch_can_be_killed() {
    let held = Rc::new(());
    let inside = held.clone();
    let thread = spawn(move || {
        let g = G::new(move |n| {
            let _held = inside;
            sleep(FOR_EVER);
            n
        });
        g.switch(0)
    });
    greenling::yield_now();
    assert!(thread.kill());
    assert!(thread.join().unwrap_err().is_killed());
    // The thread dropped the greenlet's last handle while it unwound.
    greenling::yield_now();
    assert_eq!((Rc::strong_count(&held), hub::live_threads()), (1, 0));
}

#[test]
fn a_timeout_ends_a_switch_that_never_comes_back() {
    let begin = Instant::now();
    let g = G::new(|n| {
        sleep(FOR_EVER);
        n
    });
    assert_eq!(timeout(MOMENT, || g.switch(1)), Err(TimeoutError::Elapsed));
    assert!(begin.elapsed() >= MOMENT && begin.elapsed() < FOR_EVER / 2);
    assert_eq!(g.state(), GreenletState::Blocked);
    drop(g);
    greenling::yield_now();
    assert_eq!(hub::live_threads(), 0);
    // One that comes back in time, and a wait of its own afterwards.
    let echo = G::new(|n| n);
    assert_eq!(timeout(FOR_EVER, || echo.switch(3)), Ok(3));
    assert_eq!(timeout(MOMENT, || sleep(FOR_EVER)), Err(TimeoutError::Elapsed));
}

#[test]
fn a_timeout_inside_a_greenlet_is_its_own() {
    let g = G::new(|_| {
        let inner = timeout(MOMENT, || sleep(FOR_EVER));
        i64::from(inner == Err(TimeoutError::Elapsed))
    });
    assert_eq!(timeout(FOR_EVER, || g.switch(0)), Ok(1));
}

#[test]
fn an_unanswered_switch_is_reported_without_a_hub() {
    let report = message(|| {
        let g = G::new(|n| {
            // Its result is for main, which waits in a switch of another family: nobody gets it, and nobody runs.
            let other = Greenlet::<String>::with_parent(|s| s, &Greenlet::main());
            other.switch(String::new());
            n
        });
        g.switch(0)
    });
    assert!(report.starts_with("deadlock: main waits in an explicit switch"), "{report}");
}

#[test]
fn an_unanswered_switch_is_reported_with_a_hub() {
    greenling::yield_now();
    sleep(Duration::from_millis(1));
    let report = message(|| {
        G::new(|n| {
            greenling::thread::park();
            n
        })
        .switch(0)
    });
    assert!(report.contains("deadlock") && report.contains("main waits in a switch to greenlet #"), "{report}");
    assert!(report.contains("is parked"), "{report}");
    // The greenlet was dropped by the unwinding, and the thread goes on.
    greenling::yield_now();
    assert_eq!(hub::live_threads(), 0);
}

#[test]
fn no_switch_forbids_explicit_switches_and_harms_no_other() {
    let g = G::new(|n| G::switch_to_parent(n) + 1);
    assert!(message(|| no_switch(|| g.switch(1))).contains("no_switch"));
    assert_eq!(g.state(), GreenletState::Unstarted);
    assert_eq!(g.switch(1), 1);
    assert!(message(|| no_switch(|| g.switch(2))).contains("no_switch"));
    assert!(message(|| no_switch(|| g.kill(2))).contains("no_switch"));
    assert_eq!(g.switch(5), 6, "the refused ones left no trace");
    // A section belongs to who opened it: another greenlet's is not this one's.
    let in_section = G::new(|n| {
        let refused = catch_unwind(|| no_switch(|| G::switch_to_parent(n)));
        i64::from(refused.is_err())
    });
    assert_eq!(in_section.switch(0), 1);
}

#[test]
fn the_result_for_a_parent_that_is_blocked_in_the_hub_is_dropped() {
    struct Told(Rc<Cell<bool>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let dropped = Rc::new(Cell::new(false));
    let told = Told(dropped.clone());
    type T = Greenlet<Option<Told>>;
    let g = T::new(move |_| {
        sleep(MOMENT);
        Some(told)
    });
    let waker = spawn(|| drop(T::main().switch(None)));
    assert!(g.switch(None).is_none());
    sleep(4 * MOMENT);
    assert!(g.is_dead() && dropped.get());
    waker.kill();
    assert!(waker.join().is_err());
}

#[test]
fn a_green_thread_that_ended_is_a_dead_parent_and_main_is_the_next() {
    let g = spawn(|| G::new(|n| n + 1)).join().unwrap();
    let thread = g.parent().unwrap();
    assert_eq!(thread.state(), GreenletState::Dead);
    assert_eq!(g.switch(1), 2);
    assert_eq!(thread.switch(5), 5);
    assert_eq!(thread.kill(6), 6);
}

#[test]
fn an_exit_thrown_at_a_green_thread_kills_it() {
    let handle: Rc<Cell<Option<G>>> = Rc::default();
    let slot = handle.clone();
    let thread = spawn(move || {
        slot.set(Some(G::current()));
        G::new(|n| {
            sleep(FOR_EVER);
            n
        })
        .switch(0)
    });
    greenling::yield_now();
    let member = handle.take().unwrap();
    // Main waits in the switch; when the green thread ends nobody switches back, so it must be freed by another.
    let waker = spawn(|| {
        sleep(MOMENT);
        G::main().switch(1)
    });
    assert_eq!(member.kill(0), 1);
    assert!(thread.join().unwrap_err().is_killed());
    assert!(waker.kill() && waker.join().is_err());
}

#[test]
fn a_panic_thrown_at_a_green_thread_is_its_own() {
    let handle: Rc<Cell<Option<G>>> = Rc::default();
    let slot = handle.clone();
    let thread = spawn(move || {
        slot.set(Some(G::current()));
        let caught = catch_unwind(|| {
            G::new(|n| {
                sleep(FOR_EVER);
                n
            })
            .switch(0)
        });
        // Nobody else would: main waits in its throw.
        let n = *caught.unwrap_err().downcast::<i64>().unwrap();
        drop(spawn(move || G::main().switch(n)));
        resume_unwind(Box::new("passed on"))
    });
    let _: &greenling::thread::JoinHandle<()> = &thread;
    greenling::yield_now();
    assert_eq!(handle.take().unwrap().throw(Box::new(33i64)), 33);
    assert_eq!(thread.join().unwrap_err().panic_message(), Some("passed on"));
}

/// C18, for a greenlet that is neither suspended nor parked: it has yielded, and is unwound at its next turn.
#[test]
fn a_greenlet_that_yields_for_ever_ends_when_its_last_handle_is_dropped() {
    std::thread::spawn(|| {
        let turns = Rc::new(Cell::new(0));
        let counter = Rc::clone(&turns);
        let endless = Greenlet::new(move |()| {
            loop {
                counter.set(counter.get() + 1);
                greenling::yield_now();
            }
        });
        let switcher = spawn(move || {
            // The greenlet yields, and its switcher waits; the handle goes with the kill.
            endless.switch(());
        });
        greenling::yield_now();
        assert!(turns.get() > 0, "it runs");
        switcher.kill();
        drop(switcher.join());
        let seen = turns.get();
        for _ in 0..10 {
            greenling::yield_now();
        }
        assert!(turns.get() <= seen + 1, "it went on for {} turns", turns.get() - seen);
        assert_eq!(hub::live_threads(), 0);
    })
    .join()
    .unwrap();
}
