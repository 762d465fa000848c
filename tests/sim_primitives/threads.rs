//! What threads promise each other: park, join, sleep, limits, scopes; and futures in threads, and greenlets.

use std::cell::{Cell, RefCell};
use std::future::{IntoFuture, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use greenling::thread::{self, Thread, park, park_timeout, scope, try_scope};
use greenling::{Greenlet, block_on, green_local, shield, sim, sleep, spawn, time, timeout, timeout_at, yield_now};

use super::{Count, SOON, TICK, join_all, threads};

/// An unpark before or during a park ends it, and is not lost.
pub(crate) fn park_and_unpark() {
    let ready = Rc::new(Cell::new(false));
    let ready2 = Rc::clone(&ready);
    let parked = threads(2, move |number| {
        while !ready2.get() {
            if number == 0 { park() } else { park_timeout(SOON) }
        }
    });
    yield_now();
    ready.set(true);
    parked.iter().for_each(|thread| thread.thread().unpark());
    join_all(parked);
    assert!(sim::elapsed() < SOON, "an unpark was lost");
}

/// A join gives the result, however late, and a join with a limit gives the handle back.
pub(crate) fn joins() {
    let slow = spawn(|| {
        sleep(TICK * 2);
        5
    });
    let joiner = spawn(move || match slow.join_timeout(TICK) {
        Ok(ended) => ended,
        Err(slow) => {
            assert!(!slow.is_finished());
            slow.join()
        }
    });
    if let Ok(Ok(value)) = joiner.join() {
        assert_eq!((value, sim::elapsed()), (5, TICK * 2));
    }
}

/// Sleeps end in the order of their ends, and never early; ticks come when they are due.
pub(crate) fn sleeps() {
    let ends = Rc::new(RefCell::new(Vec::new()));
    let ends2 = Rc::clone(&ends);
    join_all(threads(3, move |number| {
        let (began, length) = (time::now(), TICK * (3 - number as u32));
        if number == 0 {
            time::sleep_until(began + length)
        } else {
            sleep(length)
        }
        assert_eq!(time::now() - began, length);
        ends2.borrow_mut().push(number);
        let mut ticks = time::interval_at(began + length, TICK);
        ticks.tick();
        assert_eq!((ticks.tick(), time::now()), (began + length + TICK, began + length + TICK));
    }));
    assert!(ends.borrow().is_sorted_by(|a, b| a > b), "{ends:?}");
}

/// Of limits inside of each other the earlier one ends the wait, and only its own call says so.
pub(crate) fn limits() {
    let thread = spawn(|| {
        let began = time::now();
        let outer = timeout(TICK * 2, || {
            assert!(timeout_at(began + TICK, park).is_err());
            assert_eq!(time::now() - began, TICK);
            timeout(SOON, park)
        });
        assert!(outer.is_err());
        assert_eq!(time::now() - began, TICK * 2);
        assert_eq!(timeout(TICK, || shield(|| sleep(TICK * 2))), Ok(()));
    });
    assert!(thread.join().map_or_else(|error| error.is_killed(), |()| true));
}

/// No thread of a scope is left when the scope ends, however it ends.
pub(crate) fn scope_outlives_its_threads() {
    let alive = Cell::new(0);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            for number in 0..3_u64 {
                let alive = &alive;
                s.spawn(move || {
                    let _count = Count::of(alive);
                    sleep(Duration::from_micros(number));
                    yield_now();
                });
            }
        });
    }));
    assert_eq!(alive.get(), 0);
    drop(ended);
}

/// A thread that was killed in a shield ends the scope that it opens next, at once.
pub(crate) fn scope_sees_a_kill_that_is_due() {
    let thread = spawn(|| {
        shield(|| sleep(TICK));
        scope(|s| {
            s.spawn(|| sleep(SOON));
        });
    });
    let is_killed = thread.join().is_err();
    // Whichever of the two was killed, and wherever.
    assert!(sim::elapsed() < SOON || !is_killed, "the scope waited for {:?}", sim::elapsed());
}

/// The first failure in a scope ends the others, and comes out.
pub(crate) fn try_scope_ends_at_once() {
    let alive = Rc::new(Cell::new(0));
    let alive2 = Rc::clone(&alive);
    let thread = spawn(move || {
        try_scope(|s| {
            for number in 0..3 {
                let alive = Rc::clone(&alive2);
                s.spawn(move || {
                    let _count = Count::of(&alive);
                    if number == 1 {
                        sleep(TICK);
                        return Err("a failure");
                    }
                    sleep(SOON);
                    Ok(())
                });
            }
            Ok(())
        })
    });
    match thread.join() {
        Ok(Err(failure)) => assert_eq!((failure, sim::elapsed()), ("a failure", TICK)),
        // The one that fails was killed.
        Ok(Ok(())) => assert_eq!(sim::elapsed(), SOON),
        Err(error) => assert!(error.is_killed(), "{error}"),
    }
    assert_eq!(alive.get(), 0);
}

green_local! {
    static NUMBER: Cell<usize> = {
        yield_now();
        Cell::new(7)
    };
    static TEXT: RefCell<String> = {
        sleep(TICK);
        RefCell::default()
    };
}

/// A value of each thread is made once, also if making it waits.
pub(crate) fn locals() {
    join_all(threads(2, |number| {
        assert_eq!(NUMBER.get(), 7);
        NUMBER.set(number);
        TEXT.with_borrow_mut(|text| text.push('a'));
        yield_now();
        assert_eq!(NUMBER.with(|value| value.replace(5)), number);
        assert_eq!((NUMBER.try_with(Cell::get), NUMBER.replace(6), NUMBER.take()), (Ok(5), 5, 6));
        TEXT.with_borrow(|text| assert_eq!(text, "a"));
    }));
}

/// A greenlet goes on where it was; if the thread that switched to it is killed, its frames are dropped.
pub(crate) fn greenlets() {
    let alive = Rc::new(Cell::new(0));
    let alive2 = Rc::clone(&alive);
    join_all(threads(2, move |number| {
        let alive = Rc::clone(&alive2);
        let doubles = Greenlet::new(move |mut value: usize| {
            let _count = Count::of(&alive);
            loop {
                yield_now();
                value = Greenlet::switch_to_parent(value * 2);
            }
        });
        for value in [number, number + 5] {
            assert_eq!(doubles.switch(value), value * 2);
            yield_now();
        }
        assert!(doubles.try_switch(9).is_ok_and(|doubled| doubled == 18));
        assert_eq!(doubles.kill(3), 3);
        assert!(doubles.is_dead());
    }));
    // One that stood in the run queue when its last handle went is unwound in its turn.
    sim::assert_eventually(SOON, || alive.get() == 0);
}

/// A future is polled again when its waker is called, whenever that is.
pub(crate) fn futures() {
    let place = Rc::new((Cell::new(None::<u32>), RefCell::new(None::<Waker>)));
    let place2 = Rc::clone(&place);
    let waits = spawn(move || {
        block_on(poll_fn(|context| match place2.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                place2.1.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        }))
    });
    let gives = spawn(move || {
        yield_now();
        place.0.set(Some(5));
        let waker = place.1.take();
        waker.map(Waker::wake)
    });
    let given = gives.join().is_ok();
    if !given {
        waits.kill();
    }
    assert!(waits.join().map_or_else(|error| error.is_killed(), |value| value == 5));
    // A thread is a future, too.
    let thread = spawn(|| (yield_now(), 6).1);
    let joins = spawn(move || block_on(thread));
    drop(joins.join().map(|ended| assert!(ended.map_or_else(|error| error.is_killed(), |value| value == 6))));
}

/// Wakes its thread, and lets others run before it returns.
struct SlowWaker(Thread);

impl Wake for SlowWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
        yield_now();
    }
}

/// A task that polls a thread's end too early, while its own waker still runs, is told again.
pub(crate) fn a_task_is_told_of_an_end() {
    let ends = spawn(yield_now);
    let mut ends = pin!(ends.into_future());
    let waker = Waker::from(Arc::new(SlowWaker(thread::current())));
    let ended = timeout(SOON, || {
        loop {
            match ends.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(ended) => break ended,
                Poll::Pending => park(),
            }
        }
    });
    assert!(ended.is_ok(), "the task was not told");
}
