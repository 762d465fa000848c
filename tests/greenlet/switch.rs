//! Greenlets: switching. Values go in both directions, any greenlet may switch to any other, every type may travel.
//!
//! Case numbers are those of the project's list of greenlet's own tests. Not here:
//! * 9, 10, 12, 17 (a body runs once, cannot be missing, cannot be copied, takes one argument of one type): enforced
//!   by `FnOnce(M) -> M`; the compile-fail doctests are on `Greenlet`.
//! * 11 (values stored on a greenlet): there are no greenlet locals yet; what a body shares it shares by capture.
//! * 20, 21 (other threads): handles are neither `Send` nor `Sync`; the compile-fail doctests are on `Greenlet`. What
//!   is left of them, many OS threads at once, is case 5 below.
//! * 22 (the parent cannot be deleted or be of a wrong type): compile-fail doctests on `Greenlet::set_parent`.
//! * 55 (contexts) is not part of the contract yet; 63 (C API) needs a C API.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::time::Duration;

use greenling::{Greenlet, GreenletState, SwitchErrorKind};

type G = Greenlet<i64>;

/// A list that several greenlets write.
type Log<T> = Rc<RefCell<Vec<T>>>;

fn log<T>() -> Log<T> {
    Rc::default()
}

/// Main and child fill one list in turn.
fn ping_pong() -> Vec<i64> {
    let seen = log();
    let inside = seen.clone();
    let g = G::new(move |_| {
        inside.borrow_mut().push(1);
        G::switch_to_parent(0);
        inside.borrow_mut().push(3);
        0
    });
    seen.borrow_mut().push(0);
    g.switch(0);
    seen.borrow_mut().push(2);
    g.switch(0);
    seen.borrow_mut().push(4);
    seen.take()
}

/// Case 1: simple
#[test]
fn main_and_child_take_turns() {
    assert_eq!(ping_pong(), [0, 1, 2, 3, 4]);
}

/// Case 2: parent default
#[test]
fn the_parent_is_its_creator() {
    let g = G::new(|_| 0);
    assert_eq!(g.parent(), Some(G::current()));
    let outer = G::new(|_| {
        let inner = G::new(|_| 0);
        i64::from(inner.parent() == Some(G::current()))
    });
    assert_eq!(outer.switch(0), 1);
}

/// Case 3: two_children
#[test]
fn two_suspended_children_go_on_independently() {
    let seen = log();
    let child = || {
        let seen = seen.clone();
        G::new(move |_| {
            seen.borrow_mut().push(1);
            G::switch_to_parent(0);
            seen.borrow_mut().extend([1, 1]);
            0
        })
    };
    let (g, h) = (child(), child());
    let len = || seen.borrow().len();
    g.switch(0);
    assert_eq!(len(), 1);
    h.switch(0);
    assert_eq!(len(), 2);
    h.switch(0);
    assert_eq!(len(), 4);
    assert!(h.is_dead() && !g.is_dead() && g.is_active());
    g.switch(0);
    assert_eq!(len(), 6);
    assert!(g.is_dead());
}

/// Case 4: two_recursive_children
#[test]
fn a_greenlet_makes_and_runs_another_and_keeps_nothing_alive() {
    let seen: Log<char> = log();
    let inside = seen.clone();
    let g = G::new(move |_| {
        inside.borrow_mut().push('a');
        let innermost = inside.clone();
        let f = G::new(move |_| {
            innermost.borrow_mut().push('b');
            G::switch_to_parent(0)
        });
        f.switch(0);
        inside.borrow_mut().push('c');
        0
    });
    g.switch(0);
    assert_eq!(*seen.borrow(), ['a', 'b', 'c']);
    assert_eq!(Rc::strong_count(&seen), 1, "both bodies and their captures are gone");
    assert_eq!(greenling::hub::live_threads(), 0);
}

/// Case 5: threads; what is left of 20: many OS threads, each with a main and a tree of its own
#[test]
fn every_os_thread_has_its_own_greenlets() {
    let threads: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(|| {
                for _ in 0..20 {
                    assert_eq!(ping_pong(), [0, 1, 2, 3, 4]);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Case 6: thread_bug
#[test]
fn greenlets_that_block_the_os_thread_disturb_no_other() {
    let run = |ms: u64| {
        std::thread::spawn(move || {
            let g = G::new(move |n| {
                std::thread::sleep(Duration::from_millis(ms));
                n + 1
            });
            g.switch(ms as i64)
        })
    };
    let (a, b) = (run(20), run(30));
    assert_eq!((a.join().unwrap(), b.join().unwrap()), (21, 31));
}

/// Case 7: frame (its value half); case 65: repr, a word for each state
#[test]
fn the_state_follows_the_life() {
    let word = |g: &G| format!("{g:?}").split_once('(').unwrap().1.split(',').next().unwrap().to_owned();
    let g = G::new(|_| {
        let me = G::current();
        assert_eq!(me.state(), GreenletState::Running);
        assert!(format!("{me:?}").contains("(current, made at"), "{me:?}");
        drop(me);
        G::switch_to_parent(1);
        13
    });
    assert_eq!((g.state(), g.is_active(), word(&g).as_str()), (GreenletState::Unstarted, false, "pending"));
    g.switch(0);
    assert_eq!((g.state(), g.is_active(), word(&g).as_str()), (GreenletState::Suspended, true, "suspended"));
    assert_eq!(g.switch(0), 13);
    assert_eq!((g.state(), g.is_active(), word(&g).as_str()), (GreenletState::Dead, false, "dead"));
    let main = G::main();
    assert_eq!((main.state(), word(&main).as_str()), (GreenletState::Running, "current main"));
    G::new(move |n| {
        assert_eq!(word(&G::main()), "suspended main");
        n
    })
    .switch(0);
    let blocked = G::new(|n| {
        greenling::sleep(Duration::from_millis(20));
        n
    });
    let also = blocked.clone();
    let seen = greenling::spawn(move || (also.state(), also.is_active()));
    blocked.switch(0);
    assert_eq!(seen.join().unwrap(), (GreenletState::Blocked, true));
}

/// Case 8: switch_kwargs, switch_kwargs_to_parent
#[test]
fn the_first_value_is_the_argument_and_later_ones_are_results_of_switch() {
    let g = Greenlet::<(i32, &str)>::new(|first| {
        assert_eq!(first, (1, "first"));
        let second = Greenlet::switch_to_parent((2, "out"));
        assert_eq!(second, (3, "second"));
        (4, "end")
    });
    assert_eq!(g.switch((1, "first")), (2, "out"));
    assert_eq!(g.switch((3, "second")), (4, "end"));
    assert_eq!(g.switch((5, "dead")), (5, "dead"));
}

/// Case 13: exc_state
#[test]
fn a_caught_panic_is_its_catchers_own() {
    let f = G::new(|_| {
        let caught = catch_unwind(|| panic_any("fun")).unwrap_err();
        let h = G::new(|_| {
            assert!(!std::thread::panicking());
            let own = catch_unwind(|| panic_any(String::from("h's own"))).unwrap_err();
            assert!(own.is::<String>());
            1
        });
        assert_eq!(h.switch(0), 1);
        assert_eq!(caught.downcast_ref(), Some(&"fun"));
        assert!(!std::thread::panicking());
        2
    });
    assert_eq!(f.switch(0), 2);
}

/// Case 64: stack_saved
#[test]
fn only_a_suspended_greenlet_holds_stack() {
    let g = G::new(|deep| {
        fn recurse(depth: i64) -> i64 {
            let room = std::hint::black_box([0u8; 256]);
            let result = if depth == 0 { G::switch_to_parent(0) } else { recurse(depth - 1) };
            result + i64::from(std::hint::black_box(room)[0])
        }
        assert_eq!(G::current().stack_in_use(), 0);
        recurse(0);
        recurse(deep);
        0
    });
    assert_eq!(g.stack_in_use(), 0);
    g.switch(64);
    let shallow = g.stack_in_use();
    g.switch(0);
    let deep = g.stack_in_use();
    assert!(shallow > 0 && deep > shallow + 64 * 256, "{shallow} {deep}");
    g.switch(0);
    assert_eq!((g.is_dead(), g.stack_in_use()), (true, 0));
    assert_eq!(G::main().stack_in_use(), 0);
}

/// C4: the value may come from a third greenlet; only death uses the parent.
#[test]
fn a_switch_is_symmetric() {
    let b: Rc<RefCell<Option<G>>> = Rc::default();
    let to = b.clone();
    let a = G::new(move |n| {
        let b = to.borrow().clone().unwrap();
        b.switch(n + 1)
    });
    *b.borrow_mut() = Some(G::new(|n| G::main().switch(n + 1)));
    assert_eq!(a.switch(1), 3, "main's value came from b");
    let last = b.borrow().clone().unwrap();
    assert_eq!(last.switch(9), 9, "b returned it to its parent, main");
    assert!(last.is_dead() && !a.is_dead());
    assert_eq!(a.switch(5), 5);
}

/// C5: a switch to oneself returns at once.
#[test]
fn a_switch_to_oneself_returns_its_value() {
    assert_eq!(G::current().switch(3), 3);
    assert_eq!(G::new(|n| G::current().switch(n) + 1).switch(3), 4);
}

/// C22: main exists without being made, and is one in every greenlet.
#[test]
fn main_is_always_there() {
    assert!(G::current().is_main() && G::current() == G::main());
    let g = G::new(|_| i64::from(!G::current().is_main() && G::current().parent().unwrap().is_main()));
    assert_eq!(g.switch(0), 1);
}

/// Sends `there` to a greenlet and gets `back`.
fn travels<M: PartialEq + 'static>(there: impl Fn() -> M + Clone + 'static, back: impl Fn() -> M + Clone + 'static) {
    let (t, b) = (there.clone(), back.clone());
    let body = move |first: M| {
        assert!(first == t());
        assert!(Greenlet::switch_to_parent(b()) == t());
        b()
    };
    // Without optimisation each frame of a switch holds several copies of the message.
    let g = Greenlet::with_stack_size(body, 1 << 20);
    assert!(g.switch(there()) == back());
    assert!(g.switch(there()) == back());
    assert!(g.is_dead() && g.switch(there()) == there());
}

#[test]
fn messages_of_every_shape_travel() {
    #[derive(PartialEq)]
    #[repr(align(64))]
    struct Aligned([u8; 65]);
    travels(|| (), || ());
    travels(|| String::from("there"), || String::from("back"));
    travels(|| [1u64; 512], || [2u64; 512]);
    travels(|| Box::new([3u8; 4096]), || Box::new([4u8; 4096]));
    travels(|| Some(Rc::new(1)), || None);
    travels(
        || Aligned([5; 65]),
        || {
            let value = Aligned([6; 65]);
            assert_eq!(&raw const value as usize % 64, 0);
            value
        },
    );
}

#[test]
fn a_closure_travels_and_runs_on_the_other_side() {
    type Job = Box<dyn FnOnce() -> i32>;
    let g = Greenlet::<Job>::new(|job| {
        let n = job();
        Box::new(move || n + 1)
    });
    assert_eq!(g.switch(Box::new(|| 41))(), 42);
}

#[test]
fn an_over_aligned_value_lies_aligned_in_the_other_greenlet() {
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line(u8);
    let g = Greenlet::<Line>::new(|first| {
        assert_eq!(&raw const first as usize % 64, 0);
        let second = Greenlet::switch_to_parent(Line(first.0 + 1));
        assert_eq!(&raw const second as usize % 64, 0);
        Line(second.0 + 1)
    });
    assert_eq!(g.switch(Line(1)).0, 2);
    assert_eq!(g.switch(Line(7)).0, 8);
}

#[test]
fn a_message_of_the_wrong_family_is_an_error_and_comes_back() {
    let outer = Greenlet::<String>::new(|_| {
        // Main waits in a switch of strings; this one's parent is main as a member of the numbers.
        let numbers = G::with_parent(|n| n, &G::main());
        let error = G::main().try_switch(7).unwrap_err();
        assert!(matches!(error.kind, SwitchErrorKind::OtherFamily));
        assert_eq!(error.value, 7);
        assert!(error.to_string().contains("another family"), "{error}");
        let message = catch_unwind(AssertUnwindSafe(|| G::main().switch(8))).unwrap_err();
        assert!(message.downcast_ref::<String>().unwrap().contains("another family"));
        drop(numbers);
        String::from("unharmed")
    });
    assert_eq!(outer.switch(String::new()), "unharmed");
}

#[test]
fn two_families_nest() {
    let strings = Greenlet::<String>::new(|s| {
        let numbers = G::new(|n| 2 * n);
        format!("{s}{}", numbers.switch(21))
    });
    assert_eq!(strings.switch(String::from("n=")), "n=42");
    assert!(strings.is_dead());
}

#[test]
fn a_hundred_thousand_switches_lose_nothing() {
    let g = G::new(|mut n| {
        loop {
            n = G::switch_to_parent(n + 1);
        }
    });
    let mut n = 0;
    while n < 100_000 {
        n = g.switch(n);
    }
    assert_eq!(n, 100_000);
}

#[test]
fn a_body_that_makes_its_own_handle_can_be_switched_to_by_it() {
    let handed: Rc<Cell<Option<G>>> = Rc::default();
    let slot = handed.clone();
    let g = G::new(move |n| {
        slot.set(Some(G::current()));
        G::switch_to_parent(n) + 1
    });
    assert_eq!(g.switch(1), 1);
    let by_own = handed.take().unwrap();
    assert_eq!(by_own, g);
    assert_eq!(by_own.id(), g.id());
    assert_eq!(by_own.switch(5), 6);
}
