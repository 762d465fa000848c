//! Green locals: whose a value is, what is inherited, and when it is destroyed.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{Log, OnDrop, guard};
use greenling::thread::{AccessError, Builder, park, scope, sleep, spawn, yield_now};
use greenling::{Greenlet, green_local, hub};

const LONG: Duration = Duration::from_secs(3600);

/// Does something when it is dropped.
type Mark = OnDrop<Box<dyn FnOnce()>>;

green_local! {
    static NUMBER: Cell<u32> = Cell::new(7);
    static NAME: RefCell<String> = RefCell::new("nobody".into());
    pub(crate) static COPIED: RefCell<Vec<u32>> = RefCell::default(), inherit = clone;
    static COUNTED: Cell<u32> = Cell::new(0), inherit = with(|parent| Cell::new(parent.get() + 1));
    static EXPLICIT: Cell<u32> = Cell::new(1), inherit = none
}

#[test]
fn each_thread_has_a_value_of_its_own() {
    let _guard = guard();
    NUMBER.set(1);
    let threads: Vec<_> = (10..20)
        .map(|n| {
            spawn(move || {
                assert_eq!(NUMBER.get(), 7, "fresh");
                NUMBER.set(n);
                yield_now();
                NUMBER.get()
            })
        })
        .collect();
    assert!(threads.into_iter().map(|thread| thread.join().unwrap()).eq(10..20));
    assert_eq!(NUMBER.get(), 1);
}

#[test]
fn the_helpers_do_what_std_does() {
    let _guard = guard();
    assert_eq!((NUMBER.replace(3), NUMBER.take(), NUMBER.get()), (7, 3, 0));
    NAME.with_borrow_mut(|name| name.push_str("'s"));
    assert_eq!(NAME.replace("x".into()), "nobody's");
    NAME.set("y".into());
    assert_eq!((NAME.take(), NAME.with_borrow(String::len)), ("y".to_owned(), 0));
    assert_eq!(EXPLICIT.try_with(Cell::get), Ok(1));
    green_local!(static UNUSED: Cell<u32> = panic!("the initialiser runs"));
    UNUSED.set(5);
    assert_eq!(UNUSED.get(), 5);
}

#[test]
fn a_panic_in_the_initialiser_leaves_no_value() {
    let _guard = guard();
    thread_local!(static TRIES: Cell<u32> = const { Cell::new(0) });
    green_local!(static FRAGILE: u32 = { TRIES.set(TRIES.get() + 1); assert!(TRIES.get() > 1, "first try"); 9 });
    assert!(catch_unwind(|| FRAGILE.with(|value| *value)).is_err());
    assert_eq!(FRAGILE.with(|value| *value), 9);
}

#[test]
fn an_initialiser_may_use_its_own_key_and_the_first_value_stays() {
    let _guard = guard();
    thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });
    green_local!(static SELF: u32 = {
        DEPTH.set(DEPTH.get() + 1);
        let depth = DEPTH.get();
        if depth < 3 { SELF.with(|_| ()); }
        depth
    });
    assert_eq!(SELF.with(|value| *value), 3);
    assert_eq!(SELF.with(|value| *value), 3);
}

#[test]
fn each_key_has_its_own_policy_of_inheritance() {
    let _guard = guard();
    let child = |what: fn() -> u32| spawn(what).join().unwrap();
    // What the spawner has not used is not inherited.
    assert_eq!(child(|| COUNTED.get()), 0);
    NUMBER.set(50);
    COUNTED.set(60);
    EXPLICIT.set(70);
    COPIED.set(vec![80]);
    assert_eq!((child(|| NUMBER.get()), child(|| COUNTED.get()), child(|| EXPLICIT.get())), (7, 61, 1));
    assert_eq!(child(|| spawn(|| COUNTED.get()).join().unwrap()), 62, "and so on");
    // As it is at the spawn, and a copy.
    let copies = spawn(|| {
        COPIED.with_borrow_mut(|copied| copied.push(81));
        COPIED.take()
    });
    COPIED.with_borrow_mut(|copied| copied.push(82));
    assert_eq!((copies.join().unwrap(), COPIED.take()), (vec![80, 81], vec![80, 82]));
    // Every way to spawn here.
    let built = Builder::new().name("named".into()).spawn(|| COUNTED.get()).unwrap();
    assert_eq!(built.join().unwrap(), 61);
    assert_eq!(scope(|s| s.spawn(|| COUNTED.get()).join().unwrap()), 61);
}

#[test]
fn greenlets_have_values_of_their_own_and_inherit_nothing() {
    let _guard = guard();
    COUNTED.set(5);
    NUMBER.set(6);
    let log = Log::default();
    green_local!(static MARK: RefCell<Option<Mark>> = RefCell::default());
    let theirs = log.clone();
    let greenlet = Greenlet::new(move |_: u32| {
        assert_eq!((COUNTED.get(), NUMBER.get()), (0, 7));
        NUMBER.set(8);
        MARK.set(Some(theirs.on_drop("destroyed")));
        assert_eq!(Greenlet::<u32>::main().switch(1), 2);
        assert_eq!(NUMBER.get(), 8);
        3
    });
    assert_eq!((greenlet.switch(0), NUMBER.get()), (1, 6));
    assert_eq!(log.text(), "");
    assert_eq!((greenlet.switch(2), NUMBER.get()), (3, 6));
    assert_eq!(log.text(), "destroyed", "when it died, before its value came");
    // One whose last handle is dropped.
    let theirs = log.clone();
    let greenlet = Greenlet::new(move |_: u32| {
        MARK.set(Some(theirs.on_drop("unwound")));
        Greenlet::<u32>::main().switch(1)
    });
    greenlet.switch(0);
    drop(greenlet);
    assert_eq!(log.text(), "destroyed unwound");
}

#[test]
fn another_hubs_thread_inherits_nothing() {
    let _guard = guard();
    COUNTED.set(5);
    assert_eq!(hub::handle().spawn(|| COUNTED.get()).join().unwrap(), 0);
}

#[test]
fn a_panic_in_the_inheritance_is_the_spawners() {
    let _guard = guard();
    green_local!(static BAD: u32 = 1, inherit = with(|_| panic!("no child")));
    assert_eq!(BAD.with(|value| *value), 1);
    let (live, dropped) = (hub::live_threads(), Rc::new(()));
    let theirs = Rc::clone(&dropped);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(spawn(move || drop(theirs))))).is_err());
    assert_eq!((hub::live_threads(), Rc::strong_count(&dropped)), (live, 1));
    assert!(catch_unwind(|| scope(|s| drop(s.spawn(|| ())))).is_err());
    assert_eq!(hub::live_threads(), live);
}

/// A value that says when it goes, and does something then.
struct Noisy {
    log: Log,
    name: &'static str,
    last: Box<dyn Fn()>,
}

impl Drop for Noisy {
    fn drop(&mut self) {
        self.log.say(self.name);
        (self.last)();
    }
}

green_local! {
    static FIRST: RefCell<Option<Noisy>> = RefCell::default();
    static SECOND: RefCell<Option<Noisy>> = RefCell::default();
    static THIRD: RefCell<Option<Noisy>> = RefCell::default();
}

fn noisy(log: &Log, name: &'static str, last: impl Fn() + 'static) -> Option<Noisy> {
    Some(Noisy { log: log.clone(), name, last: Box::new(last) })
}

#[test]
fn values_are_destroyed_in_reverse_on_the_own_stack_before_any_waiter_is_told() {
    let _guard = guard();
    let log = Log::default();
    let theirs = log.clone();
    let thread = spawn(move || {
        let _frame = theirs.on_drop("frame");
        let me = greenling::thread::current().id();
        FIRST.set(noisy(&theirs, "first", move || assert_eq!(greenling::thread::current().id(), me)));
        SECOND.set(noisy(&theirs, "second", || {
            yield_now(); // it may block, and nobody has been told
            yield_now();
        }));
    });
    let (joined, told) = (log.clone(), log.clone());
    thread.on_finish(move |_| told.say("told"));
    let joiner = spawn(move || {
        thread.join().unwrap();
        joined.say("joined");
    });
    joiner.join().unwrap();
    assert_eq!(log.text(), "frame second first told joined");
}

#[test]
fn a_destructor_may_use_other_keys_but_no_value_is_made_twice() {
    let _guard = guard();
    let log = Log::default();
    let theirs = log.clone();
    let thread = spawn(move || {
        let inner = theirs.clone();
        FIRST.set(noisy(&theirs, "first", move || {
            assert!(SECOND.try_with(|_| ()).is_err(), "gone");
            assert!(FIRST.try_with(|_| ()).is_err(), "going");
            THIRD.set(noisy(&inner, "third", || assert!(THIRD.try_with(|_| ()).is_err())));
        }));
        let outer = theirs.clone();
        SECOND.set(noisy(&theirs, "second", move || {
            outer.say(FIRST.with_borrow(|first| first.as_ref().map_or("none", |first| first.name)));
        }));
    });
    thread.join().unwrap();
    assert_eq!(log.text(), "second first first third");
}

#[test]
fn values_are_destroyed_after_a_panic_a_kill_and_a_kill_before_the_start() {
    let _guard = guard();
    let log = Log::default();
    let theirs = log.clone();
    let panics = spawn(move || {
        FIRST.set(noisy(&theirs, "panicked", || assert!(!std::thread::panicking(), "the panic is over")));
        panic!("on purpose");
    });
    assert_eq!(panics.join().unwrap_err().panic_message(), Some("on purpose"));
    let theirs = log.clone();
    let killed = spawn(move || {
        SECOND.set(noisy(&theirs, "killed", || ()));
        // Blocking raises the kill again, which ends this destructor only.
        FIRST.set(noisy(&theirs, "blocks", || {
            sleep(LONG);
            unreachable!();
        }));
        park();
    });
    yield_now();
    killed.kill();
    assert!(killed.join().unwrap_err().is_killed());
    green_local!(static KEPT: RefCell<Rc<()>> = RefCell::default(), inherit = clone);
    let count = Rc::new(());
    KEPT.set(Rc::clone(&count));
    let never = spawn(|| unreachable!());
    assert_eq!(Rc::strong_count(&count), 3, "it has inherited");
    never.kill();
    assert!(never.join().unwrap_err().is_killed());
    assert_eq!(Rc::strong_count(&count), 2);
    assert_eq!(log.text(), "panicked blocks killed");
}

#[test]
fn a_panicking_destructor_is_the_outcome_of_a_thread_that_had_returned() {
    let _guard = guard();
    let log = Log::default();
    let theirs = log.clone();
    let value = log.on_drop("value");
    let thread = spawn(move || {
        FIRST.set(noisy(&theirs, "first", || ()));
        SECOND.set(noisy(&theirs, "second", || panic!("destructor")));
        value
    });
    assert_eq!(thread.join().map(drop).unwrap_err().panic_message(), Some("destructor"));
    assert_eq!(log.text(), "second value first", "the others are destroyed all the same");
    let theirs = log.clone();
    let thread = spawn(move || {
        FIRST.set(noisy(&theirs, "third", || panic!("second panic")));
        panic!("first panic");
    });
    assert_eq!(thread.join().unwrap_err().panic_message(), Some("first panic"));
}

#[test]
fn a_detached_result_is_dropped_after_the_values() {
    let _guard = guard();
    let log = Log::default();
    let (theirs, late) = (log.clone(), log.clone());
    drop(spawn(move || {
        FIRST.set(noisy(&theirs, "local", || ()));
        OnDrop::new(move || late.say(format_args!("{:?}", NUMBER.try_with(Cell::get))))
    }));
    yield_now();
    assert_eq!(log.text(), "local Err(AccessError)");
}

#[test]
fn a_value_in_use_when_its_thread_is_killed_outlives_the_use() {
    let _guard = guard();
    let log = Log::default();
    let theirs = log.clone();
    let thread = spawn(move || {
        FIRST.set(noisy(&theirs, "destroyed", || ()));
        FIRST.with(|_| {
            let _used = theirs.on_drop("used");
            park();
        });
    });
    yield_now();
    thread.kill();
    assert!(thread.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "used destroyed");
}

#[test]
fn shutdown_destroys_the_values_of_suspended_threads() {
    let _guard = guard();
    let log = Log::default();
    let theirs = log.clone();
    let thread = spawn(move || {
        FIRST.set(noisy(&theirs, "destroyed", || {
            drop(spawn(|| unreachable!("nothing new starts")));
            sleep(LONG);
        }));
        park();
    });
    yield_now();
    assert_eq!(hub::shutdown(), 0);
    assert_eq!(log.text(), "destroyed");
    assert!(thread.join().unwrap_err().is_killed());
}

/// Main's values: at the end of its OS thread, after everybody else's.
#[test]
fn the_end_of_an_os_thread_destroys_mains_values_alone_and_a_shutdown_all() {
    let _guard = guard();
    let said = |shuts_down: bool| {
        std::thread::spawn(move || {
            let (send, said) = std::sync::mpsc::channel();
            let other = send.clone();
            let of_main = OnDrop::new(Box::new(move || {
                yield_now();
                send.send("main").unwrap();
            }) as Box<dyn FnOnce()>);
            green_local!(static MARK: RefCell<Option<Mark>> = RefCell::default());
            MARK.set(Some(of_main));
            drop(spawn(move || {
                MARK.set(Some(OnDrop::new(Box::new(move || other.send("thread").unwrap()))));
                park();
            }));
            yield_now();
            if shuts_down {
                hub::shutdown();
            }
            said
        })
        .join()
        .unwrap()
    };
    // The thread is suspended, and so its values are left as they are.
    assert!(said(false).try_iter().eq(["main"]));
    assert!(said(true).try_iter().eq(["thread", "main"]));
}

#[test]
fn a_thread_whose_os_thread_is_gone_has_no_values() {
    let _guard = guard();
    struct AtTheEnd(std::sync::mpsc::Sender<Result<u32, AccessError>>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            self.0.send(NUMBER.try_with(Cell::get)).unwrap();
        }
    }
    thread_local!(static LATE: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) });
    let (send, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        LATE.set(Some(AtTheEnd(send))); // its destructor runs after the hub's, which was registered later
        spawn(|| NUMBER.set(1)).join().unwrap();
    })
    .join()
    .unwrap();
    // An error, or a value if the hub's end comes later here.
    assert!(matches!(answer.recv().unwrap(), Ok(7) | Err(_)), "no abort");
}

/// A stack slot that is used again has nothing of its former user.
#[test]
fn a_new_thread_on_an_old_stack_starts_afresh() {
    let _guard = guard();
    for n in 0..100 {
        let thread = spawn(move || (NUMBER.replace(n), NAME.replace(n.to_string())));
        assert_eq!(thread.join().unwrap(), (7, "nobody".to_owned()));
    }
}
