//! Scopes whose first failure ends them.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::{Log, OnDrop, guard, in_virtual_time};
use greenling::sync::Mutex;
use greenling::thread::{Builder, current, park, scope, sleep, spawn, try_scope, yield_now};
use greenling::{Greenlet, TimeoutError, shield, timeout};

const LONG: Duration = Duration::from_secs(3600);

/// Lets the others run.
fn turns(count: u32) {
    (0..count).for_each(|_| yield_now());
}

#[test]
fn without_a_failure_it_is_a_scope() {
    let _guard = guard();
    let mut words = vec!["a"];
    let lengths = try_scope(|s| -> Result<_, ()> {
        let one = s.spawn(|| Ok(words.len()));
        let two = s.spawn_with(Builder::new().name("two".into()), || Ok(current().name().map(str::len))).unwrap();
        Ok((one.join().unwrap(), two.join().unwrap()))
    });
    words.push("b");
    assert_eq!(lengths, Ok((1, Some(3))));
}

#[test]
fn the_first_error_kills_the_siblings_and_comes_out_once() {
    let _guard = guard();
    let log = Log::default();
    let result = try_scope(|s| {
        for name in ["a", "b"] {
            let mark = log.on_drop(name);
            s.spawn(|| {
                let _mark = mark;
                sleep(LONG);
                Ok(())
            });
        }
        s.spawn(|| {
            yield_now();
            log.say("fails");
            Err::<(), _>("error")
        });
        s.spawn(|| {
            log.say("ends");
            Ok(())
        });
        s.spawn(|| -> Result<(), _> {
            yield_now();
            yield_now();
            unreachable!("killed")
        });
        Ok(())
    });
    assert_eq!(result, Err("error"));
    assert_eq!(log.text(), "ends fails a b");
}

#[test]
fn a_panic_kills_the_siblings_and_comes_out_once() {
    let _guard = guard();
    let ended = Cell::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        try_scope(|s| -> Result<(), ()> {
            for _ in 0..3 {
                s.spawn(|| {
                    let _mark = OnDrop::new(|| ended.set(ended.get() + 1));
                    sleep(LONG);
                    Ok(())
                });
            }
            let handle = s.spawn(|| -> Result<(), ()> { panic!("this thread fails") });
            assert!(handle.join().unwrap_err().is_killed(), "interrupted before it can tell");
            unreachable!()
        })
    }));
    assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "this thread fails");
    assert_eq!(ended.get(), 3);
}

#[test]
fn the_body_is_interrupted_wherever_it_waits() {
    let _guard = guard();
    type Wait = fn(&Mutex<()>);
    let waits: [(&str, Wait); 8] = [
        ("sleep", |_| sleep(LONG)),
        ("park", |_| park()),
        ("yield", |_| {
            while Cell::new(true).get() {
                yield_now()
            }
        }),
        ("join", |_| drop(spawn(|| sleep(LONG)).join())),
        ("scope", |_| scope(|s| drop(s.spawn(|| sleep(LONG))))),
        ("lock", |mutex| drop(mutex.lock())),
        ("inner timeout", |_| timeout(LONG, || sleep(LONG)).unwrap()),
        ("switch", |_| {
            Greenlet::new(|n: u32| {
                sleep(LONG);
                n
            })
            .switch(1);
        }),
    ];
    for (what, wait) in waits {
        let (mutex, unwound) = (Mutex::new(()), Cell::new(false));
        let mutex: &'static Mutex<()> = Box::leak(Box::new(mutex));
        let holder = spawn(|| {
            let _held = mutex.lock();
            park();
        });
        yield_now();
        let result = try_scope(|s| {
            s.spawn(|| {
                yield_now();
                Err::<(), _>(what)
            });
            let _mark = OnDrop::new(|| unwound.set(true));
            wait(mutex);
            unreachable!("{what}")
        });
        assert_eq!((result, unwound.get()), (Err::<(), _>(what), true));
        // Nothing of it is left.
        yield_now();
        sleep(Duration::from_millis(1));
        assert_eq!(timeout(LONG, yield_now), Ok(()));
        holder.kill();
        assert!(holder.join().is_err());
    }
}

#[test]
fn the_body_fails_like_a_thread() {
    let _guard = guard();
    let log = Log::default();
    let result: Result<(), _> = try_scope(|s| {
        s.spawn(|| {
            let _mark = log.on_drop("unwound");
            sleep(LONG);
            Ok(())
        });
        yield_now();
        Err(5)
    });
    assert_eq!(result, Err(5));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        try_scope(|s| -> Result<(), ()> {
            s.spawn(|| {
                let _mark = log.on_drop("again");
                sleep(LONG);
                Ok(())
            });
            yield_now();
            resume_unwind(Box::new("body"))
        })
    }));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "body");
    assert_eq!(log.text(), "unwound again");
}

#[test]
fn later_failures_are_dropped_when_all_have_ended() {
    let _guard = guard();
    struct Noisy(&'static str, Log);
    impl Drop for Noisy {
        fn drop(&mut self) {
            self.1.say(self.0);
        }
    }
    let log = Log::default();
    let result: Result<(), Noisy> = try_scope(|s| {
        for name in ["first", "second", "third"] {
            let log = log.clone();
            s.spawn(move || {
                shield(|| turns(2));
                Err::<(), _>(Noisy(name, log))
            });
        }
        s.spawn(|| {
            shield(|| sleep(Duration::from_millis(5)));
            log.say("shielded");
            Ok(())
        });
        Ok(())
    });
    assert_eq!(log.text(), "shielded second third");
    assert_eq!(result.err().map(|error| error.0), Some("first"));
    assert_eq!(log.text(), "shielded second third first");
}

#[test]
fn nothing_starts_in_a_scope_that_has_failed() {
    let _guard = guard();
    let result = try_scope(|s| {
        s.spawn(|| Err::<(), _>("error"));
        s.spawn(|| -> Result<(), _> { unreachable!("killed before it started") });
        s.spawn(|| {
            let _late = OnDrop::new(|| drop(s.spawn(|| -> Result<(), _> { unreachable!("too late") })));
            park();
            Ok(())
        });
        yield_now();
        Ok(())
    });
    assert_eq!(result, Err("error"));
}

#[test]
fn a_kill_is_no_failure() {
    let _guard = guard();
    let result = try_scope(|s| -> Result<_, ()> {
        let victim = s.spawn(|| {
            sleep(LONG);
            Ok(())
        });
        let other = s.spawn(|| Ok((yield_now(), yield_now(), 5).2));
        yield_now();
        assert!(victim.kill());
        assert!(victim.join().unwrap_err().is_killed());
        let value = other.join().unwrap();
        s.spawn(|| {
            park();
            Ok(())
        });
        yield_now();
        s.kill_all();
        Ok(value)
    });
    assert_eq!(result, Ok(5));
}

#[test]
fn a_kill_or_timeout_of_the_caller_comes_before_a_failure() {
    let _guard = guard();
    let log = Log::default();
    let theirs = log.clone();
    let caller = spawn(move || {
        let result: Result<(), &str> = try_scope(|s| {
            s.spawn(|| {
                let _mark = theirs.on_drop("child");
                park();
                Ok(())
            });
            park();
            Ok(())
        });
        unreachable!("{result:?}");
    });
    yield_now();
    yield_now();
    caller.kill();
    assert!(caller.join().unwrap_err().is_killed());
    assert_eq!(log.text(), "child");
    // Both at once: the scope fails, then the caller is killed, before it runs.
    for kill_first in [true, false] {
        let went_on = Rc::new(Cell::new(false));
        let seen = Rc::clone(&went_on);
        let fail = Rc::new(RefCell::new(None));
        let out = Rc::clone(&fail);
        let caller = spawn(move || {
            let result: Result<(), &str> = try_scope(|s| {
                s.spawn(|| {
                    *out.borrow_mut() = Some(current());
                    park();
                    Err::<(), _>("error")
                });
                park();
                Ok(())
            });
            seen.set(true);
            let _ = result;
            yield_now();
            unreachable!("the kill is still due");
        });
        turns(2);
        fail.borrow().as_ref().unwrap().unpark();
        if kill_first {
            caller.kill();
        } else {
            let theirs = Rc::new(caller);
            let killer = Rc::clone(&theirs);
            spawn(move || killer.kill()).join().unwrap();
            assert!(Rc::into_inner(theirs).unwrap().join().unwrap_err().is_killed());
            assert!(!went_on.get());
            continue;
        }
        assert!(caller.join().unwrap_err().is_killed());
        assert!(!went_on.get());
    }
    // And the kill stays due, whatever catches it.
    let deaf = spawn(|| {
        let swallowed = catch_unwind(AssertUnwindSafe(|| {
            try_scope(|s| -> Result<(), &str> {
                s.spawn(|| Err::<(), _>("error"));
                park();
                Ok(())
            })
        }));
        assert!(swallowed.is_err(), "the kill came first");
        park();
        unreachable!()
    });
    yield_now();
    deaf.kill();
    assert!(deaf.join().unwrap_err().is_killed());
    let late = timeout(Duration::from_millis(5), || {
        try_scope(|s| -> Result<(), &str> {
            s.spawn(|| {
                sleep(LONG);
                Ok(())
            });
            sleep(LONG);
            Ok(())
        })
    });
    assert_eq!(late, Err(TimeoutError::Elapsed));
}

#[test]
fn inside_a_shield_the_body_goes_on_and_a_shield_inside_it_puts_the_interruption_off() {
    let _guard = guard();
    in_virtual_time(|| {
        let log = Log::default();
        let fail = |log: &Log| {
            log.say("fails");
            Err::<(), _>("error")
        };
        let outer = shield(|| {
            try_scope(|s| {
                s.spawn(|| fail(&log));
                sleep(Duration::from_millis(2));
                log.say("body");
                Ok(())
            })
        });
        assert_eq!((outer, log.text().as_str()), (Err("error"), "fails body"));
        let log = Log::default();
        let inner: Result<(), _> = try_scope(|s| {
            s.spawn(|| fail(&log));
            shield(|| {
                sleep(Duration::from_millis(2));
                log.say("shielded");
            });
            sleep(LONG);
            unreachable!()
        });
        assert_eq!((inner, log.text().as_str()), (Err("error"), "fails shielded"));
        sleep(Duration::from_millis(1));
    });
}

#[test]
fn nested_scopes_fail_each_for_itself() {
    let _guard = guard();
    let log = Log::default();
    let outer: Result<u32, &str> = try_scope(|outer| {
        let waits = outer.spawn(|| Ok((sleep(Duration::from_millis(2)), 7).1));
        let inner: Result<(), &str> = try_scope(|inner| {
            inner.spawn(|| Err::<(), _>("inner"));
            sleep(LONG);
            Ok(())
        });
        assert_eq!(inner, Err("inner"));
        Ok(waits.join().unwrap())
    });
    assert_eq!(outer, Ok(7), "the outer one has not failed");
    // Both fail before the body runs again: the inner one's comes first, then the outer one's.
    let outer: Result<(), &str> = try_scope(|outer| {
        let inner: Result<(), &str> = try_scope(|inner| {
            outer.spawn(|| Err::<(), _>("outer"));
            inner.spawn(|| Err::<(), _>("inner"));
            sleep(LONG);
            Ok(())
        });
        log.say(format_args!("{inner:?}"));
        sleep(LONG);
        unreachable!()
    });
    assert_eq!((outer, log.text().as_str()), (Err("outer"), "Err(\"inner\")"));
    // The outer one fails while the inner one waits for its threads.
    let outer: Result<(), &str> = try_scope(|outer| {
        outer.spawn(|| (yield_now(), yield_now(), Err::<(), _>("outer")).2);
        let inner: Result<(), &str> = try_scope(|inner| {
            inner.spawn(|| {
                sleep(LONG);
                Ok(())
            });
            Ok(())
        });
        unreachable!("{inner:?}")
    });
    assert_eq!(outer, Err("outer"));
    yield_now();
}

#[test]
fn a_body_that_swallows_the_interruption_is_interrupted_again() {
    let _guard = guard();
    let times = Cell::new(0);
    let result = try_scope(|s| {
        s.spawn(|| Err::<(), _>("error"));
        while catch_unwind(|| sleep(LONG)).is_err() && times.get() < 3 {
            times.set(times.get() + 1);
        }
        Ok("value")
    });
    assert_eq!((result, times.get()), (Err("error"), 3));
    sleep(Duration::from_millis(1)); // and nothing is left of it
}

#[test]
fn it_can_be_used_by_a_greenlet_and_while_unwinding() {
    let _guard = guard();
    let greenlet = Greenlet::new(|n: u32| {
        let result: Result<(), u32> = try_scope(|s| {
            s.spawn(move || Err::<(), _>(n + 1));
            sleep(LONG);
            Ok(())
        });
        yield_now();
        result.unwrap_err()
    });
    assert_eq!(greenlet.switch(1), 2);
    let seen = Rc::new(Cell::new(None));
    let theirs = Rc::clone(&seen);
    let unwinds = catch_unwind(AssertUnwindSafe(|| {
        let _in_destructor = OnDrop::new(move || {
            let result: Result<u32, ()> = try_scope(|s| {
                s.spawn(|| -> Result<(), ()> { unreachable!("nobody can wait for it") });
                Ok(5)
            });
            theirs.set(Some(result));
        });
        resume_unwind(Box::new(()))
    }));
    assert!(unwinds.is_err());
    assert_eq!(seen.get(), Some(Ok(5)));
}

#[test]
fn forgotten_handles_change_nothing() {
    let _guard = guard();
    let ended = Cell::new(0);
    let result: Result<(), &str> = try_scope(|s| {
        for _ in 0..3 {
            std::mem::forget(s.spawn(|| {
                let _mark = OnDrop::new(|| ended.set(ended.get() + 1));
                sleep(LONG);
                Ok(())
            }));
        }
        std::mem::forget(s.spawn(|| (yield_now(), Err::<(), _>("error")).1));
        Ok(())
    });
    assert_eq!((result, ended.get()), (Err("error"), 3));
}

#[test]
fn a_failure_ends_hundreds_at_once() {
    let _guard = guard();
    let (began, ended) = (Instant::now(), Cell::new(0));
    let result: Result<(), usize> = try_scope(|s| {
        for n in 0..500 {
            s.spawn(move || if n == 250 { Err(n) } else { Ok(()) });
            s.spawn(|| {
                let _mark = OnDrop::new(|| ended.set(ended.get() + 1));
                sleep(LONG);
                Ok(())
            });
        }
        Ok(())
    });
    assert_eq!(result, Err(250));
    assert_eq!(ended.get(), 250, "those that had started");
    assert!(began.elapsed() < LONG);
}
