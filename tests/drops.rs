//! Destructors of the program's values that panic, or wait and are killed, wherever the crate drops values: every value
//! is delivered or dropped, once; no second panic is an abort; nothing is leaked.
#![forbid(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{OnDrop, settle};
use greenling::channel;
use greenling::group::{Group, Pool, join_all};
use greenling::sync::{Event, mpsc};
use greenling::thread::{self, park, try_scope};
use greenling::{Select, block_on, blocking, green_local, hub, select, sleep, spawn};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// How often destructors of one test ran.
#[derive(Clone, Default)]
struct Ends(Arc<AtomicUsize>);

impl Ends {
    /// Since the last time.
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }

    /// A value whose destructor counts, and panics.
    fn bomb(&self) -> Bomb {
        Bomb(0, self.clone())
    }

    /// A value whose destructor counts.
    fn plain(&self) -> Plain {
        Plain(self.clone())
    }

    /// A value whose destructor counts, and waits for an hour.
    fn slow(&self) -> Slow {
        Slow(self.clone())
    }
}

/// See [`Ends::bomb`]. The number is only for a heap.
#[derive(Clone)]
struct Bomb(u32, Ends);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.1.0.fetch_add(1, Ordering::Relaxed);
        resume_unwind(Box::new("a destructor"));
    }
}

impl PartialEq for Bomb {
    fn eq(&self, other: &Bomb) -> bool {
        self.0 == other.0
    }
}

impl Eq for Bomb {}

impl PartialOrd for Bomb {
    fn partial_cmp(&self, other: &Bomb) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bomb {
    fn cmp(&self, other: &Bomb) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// See [`Ends::plain`].
struct Plain(Ends);

impl Drop for Plain {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// See [`Ends::slow`].
#[derive(Clone)]
struct Slow(Ends);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        sleep(LONG);
    }
}

/// Whether `f` panics as a destructor here does.
fn panics(f: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => false,
        Err(payload) => payload.is::<&str>(),
    }
}

/// Whether `f` ends quietly while its caller unwinds from something else.
fn while_unwinding(f: impl FnOnce()) -> bool {
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _late = OnDrop::new(f);
        resume_unwind(Box::new(7_i32));
    }));
    unwound.is_err_and(|payload| payload.downcast_ref() == Some(&7))
}

#[test]
fn a_channel_that_is_dropped_with_values_whose_destructors_panic_lets_the_first_panic_out() {
    let _guard = common::guard();
    let ends = Ends::default();
    for make in [channel::unbounded, channel::lifo, channel::priority, || channel::bounded(5)] {
        let fill = || {
            let (send, receive) = make();
            (0..5).for_each(|_| assert!(send.send(ends.bomb()).is_ok()));
            (send, receive)
        };
        let (send, receive) = fill();
        assert!(panics(|| drop(receive)));
        assert_eq!((ends.take(), send.len()), (5, 0));
        let (send, _receive) = fill();
        assert!(panics(|| send.close_and_discard()));
        assert_eq!(ends.take(), 5);
        let (_send, receive) = fill();
        assert!(while_unwinding(|| drop(receive)));
        assert_eq!(ends.take(), 5);
    }
    let (send, receive) = mpsc::channel();
    (0..3).for_each(|_| assert!(send.send(ends.bomb()).is_ok()));
    assert!(panics(|| drop(receive)));
    let refused = send.send(ends.bomb()).expect_err("no receiver is left");
    assert!(panics(|| drop(refused)));
    assert_eq!(ends.take(), 4);
}

#[test]
fn so_do_broadcasts_and_channels_between_hubs() {
    let _guard = common::guard();
    let ends = Ends::default();
    let fill = || {
        let (send, receive) = channel::broadcast(5);
        (0..5).for_each(|_| assert!(send.send(ends.bomb()).is_ok()));
        (send, receive)
    };
    let (_send, receive) = fill();
    assert!(panics(|| drop(receive)));
    assert_eq!(ends.take(), 5);
    let (_send, receive) = fill();
    assert!(while_unwinding(|| drop(receive)));
    assert_eq!(ends.take(), 5);
    let fill = || {
        let (send, receive) = hub::channel(None);
        (0..5).for_each(|_| assert!(send.send(ends.bomb()).is_ok()));
        (send, receive)
    };
    let (send, receive) = fill();
    assert!(panics(|| drop(receive)));
    assert_eq!((ends.take(), send.len()), (5, 0));
    let (_send, receive) = fill();
    assert!(panics(|| receive.close_and_discard()));
    assert_eq!(ends.take(), 5);
    let (_send, receive) = fill();
    assert!(while_unwinding(|| drop(receive)));
    assert_eq!(ends.take(), 5);
}

#[test]
fn results_that_are_not_joined_are_all_dropped_though_their_destructors_panic() {
    let _guard = common::guard();
    let ends = Ends::default();
    let group = || {
        let group = Group::new();
        for _ in 0..4 {
            let ends = ends.clone();
            group.spawn(move || ends.bomb());
        }
        settle();
        group
    };
    let ended = group();
    assert!(panics(|| drop(ended)));
    assert_eq!(ends.take(), 4);
    let ended = group();
    assert!(while_unwinding(|| drop(ended)));
    assert_eq!(ends.take(), 4);
    let handles = || {
        let handles: Vec<_> = (0..4)
            .map(|_| {
                spawn({
                    let ends = ends.clone();
                    move || ends.bomb()
                })
            })
            .collect();
        settle();
        handles
    };
    let ended = handles();
    assert!(panics(|| drop(ended)));
    assert_eq!(ends.take(), 4);
    let ended = handles();
    assert!(while_unwinding(|| drop(ended)));
    assert_eq!(ends.take(), 4);
    // In a scope, where they may borrow.
    thread::scope(|s| {
        let handles: Vec<_> = (0..4).map(|_| s.spawn(|| ends.bomb())).collect();
        settle();
        assert!(panics(|| drop(handles)));
        assert_eq!(ends.take(), 4);
    });
    // On another hub.
    let there = hub::handle();
    let handles: Vec<_> = (0..4)
        .map(|_| {
            there.spawn({
                let ends = ends.clone();
                move || ends.bomb()
            })
        })
        .collect();
    while !handles.iter().all(hub::RemoteJoinHandle::is_finished) {
        sleep(Duration::from_millis(1));
    }
    assert!(panics(|| drop(handles)));
    assert_eq!(ends.take(), 4);
    // Of a pool whose iterator is dropped.
    let pool = Pool::new(4);
    let theirs = ends.clone();
    let mut results = pool.imap(0..8, move |_| theirs.bomb());
    let first = results.next();
    settle();
    assert!(panics(|| drop(first)));
    assert!(panics(|| drop(results)));
    assert_eq!(ends.take(), 4);
}

#[test]
fn results_that_were_joined_are_dropped_when_the_next_join_unwinds() {
    let _guard = common::guard();
    let ends = Ends::default();
    let theirs = ends.clone();
    let all = spawn(move || {
        let ready = (0..3).map(|_| {
            spawn({
                let ends = theirs.clone();
                move || ends.bomb()
            })
        });
        let never = std::iter::once(spawn({
            let ends = theirs.clone();
            move || {
                park();
                ends.bomb()
            }
        }));
        join_all(ready.chain(never)).len()
    });
    settle();
    all.kill();
    assert!(all.join().is_err_and(|error| error.is_killed()));
    assert_eq!(ends.take(), 3);
    // A map whose second job panics: the values of the others are dropped, and that panic goes on.
    let theirs = ends.clone();
    let pool = Pool::new(8);
    let failed = catch_unwind(AssertUnwindSafe(|| {
        pool.map(0..6, move |n| {
            if n == 1 {
                resume_unwind(Box::new(1_i32));
            }
            theirs.bomb()
        })
    }));
    assert!(failed.is_err_and(|payload| payload.is::<i32>()));
    assert_eq!(ends.take(), 5);
}

#[test]
fn failures_callbacks_and_locals_that_panic_in_their_ends_are_no_abort() {
    let _guard = common::guard();
    let ends = Ends::default();
    // All failures of a scope but the first, and all of one that is unwound.
    let failed = try_scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                let _ = catch_unwind(AssertUnwindSafe(park));
                Err::<(), _>(ends.bomb())
            });
        }
        settle();
        Err::<(), _>(ends.bomb())
    });
    assert_eq!(ends.take(), 3, "the first one is the result");
    assert!(panics(|| drop(failed)));
    assert_eq!(ends.take(), 1);
    let theirs = ends.clone();
    let unwound = spawn(move || {
        let _ = try_scope(|s| {
            for _ in 0..3 {
                // Each fails while it is unwound.
                s.spawn(|| {
                    let _ = catch_unwind(AssertUnwindSafe(park));
                    Err::<(), _>(theirs.bomb())
                });
            }
            park();
            Ok(())
        });
    });
    settle();
    unwound.kill();
    assert!(unwound.join().is_err());
    assert_eq!(ends.take(), 3);
    // Callbacks that are dropped, and inherited values of a thread that never was.
    green_local!(static ONE: RefCell<Option<Bomb>> = RefCell::new(None), inherit = clone);
    green_local!(static TWO: RefCell<Option<Bomb>> = RefCell::new(None), inherit = clone);
    let theirs = ends.clone();
    let parent = spawn(move || {
        ONE.set(Some(theirs.bomb()));
        TWO.set(Some(theirs.bomb()));
        // Its result is too large for its stack, which shows when it has inherited.
        let too_large = thread::Builder::new().spawn(|| [0_u8; 1 << 21]);
        assert!(too_large.is_err());
    });
    assert!(parent.join().is_err_and(|error| error.is_panic()));
    assert_eq!(ends.take(), 4);
    let theirs = ends.clone();
    std::thread::spawn(move || {
        let thread = spawn(park);
        for _ in 0..3 {
            let bomb = theirs.bomb();
            thread.on_finish(move |_| drop(bomb));
        }
        settle();
        hub::shutdown();
    })
    .join()
    .unwrap();
    assert_eq!(ends.take(), 3);
}

#[test]
fn a_set_that_is_dropped_with_values_to_send_lets_the_first_panic_out() {
    let _guard = common::guard();
    let ends = Ends::default();
    let (full, _full) = channel::rendezvous();
    let fill = || {
        let mut select = Select::new();
        (0..4).for_each(|_| select.send(&full, ends.bomb(), drop));
        assert!(select.try_select().is_none());
        select
    };
    let set = fill();
    assert!(panics(|| drop(set)));
    assert_eq!(ends.take(), 4);
    let set = fill();
    assert!(while_unwinding(|| drop(set)));
    assert_eq!(ends.take(), 4);
}

// ---- nothing is leaked on the way out ------------------------------------------------------------------------------

#[test]
fn what_a_select_has_received_is_dropped_if_a_loser_waits_in_its_destructor_and_is_killed() {
    let _guard = common::guard();
    let (got, lost) = (Ends::default(), Ends::default());
    let (send, receive) = channel::unbounded();
    let (full, _full) = channel::rendezvous();
    for waits in [false, true] {
        let (value, unsent, receive, full) = (got.plain(), lost.slow(), receive.clone(), full.clone());
        let thread = spawn(move || {
            select! {
                biased;
                recv(receive) -> value => drop(value),
                send(full, unsent) -> _ => (),
            }
        });
        if waits {
            settle();
        }
        send.send(value).unwrap_or_else(|_| panic!("a receiver is there"));
        settle();
        assert_eq!((got.take(), lost.take()), (0, 1), "the destructor of the loser waits");
        thread.kill();
        assert!(thread.join().is_err_and(|error| error.is_killed()));
        assert_eq!((got.take(), lost.take()), (1, 0), "waits: {waits}");
    }
}

#[test]
fn what_a_select_has_received_is_dropped_if_a_loser_panics_in_its_destructor() {
    let _guard = common::guard();
    let (got, lost) = (Ends::default(), Ends::default());
    let (send, receive) = channel::unbounded();
    let (full, _full) = channel::rendezvous();
    assert!(send.send(got.plain()).is_ok());
    let body = Cell::new(false);
    assert!(panics(|| {
        select! {
            biased;
            recv(receive) -> value => { drop(value); body.set(true) }
            send(full, lost.bomb()) -> _ => (),
        }
    }));
    assert_eq!((got.take(), lost.take(), body.get()), (1, 1, false));
    // The destructor of a temporary: an end of a channel that has values.
    let stuffed = || {
        let (send, receive) = channel::unbounded();
        assert!(send.send(lost.bomb()).is_ok() && send.send(lost.bomb()).is_ok());
        std::mem::forget(send);
        receive
    };
    let never = Event::new();
    assert!(send.send(got.plain()).is_ok());
    assert!(panics(|| {
        select! {
            biased;
            wait(never) => (),
            recv(receive) -> value => drop(value),
            recv(stuffed()) -> _ => (),
        }
    }));
    assert_eq!((got.take(), lost.take()), (1, 2));
}

/// A future that is ready at once, with a destructor.
struct Ready(Ends, #[expect(dead_code, reason = "it has a destructor")] Slow);

impl Future for Ready {
    type Output = Plain;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Plain> {
        Poll::Ready(self.0.plain())
    }
}

#[test]
fn an_output_is_dropped_if_its_future_waits_in_its_destructor_and_is_killed() {
    let _guard = common::guard();
    let (got, lost) = (Ends::default(), Ends::default());
    let future = Ready(got.clone(), lost.slow());
    let thread = spawn(move || drop(block_on(future)));
    settle();
    assert_eq!((got.take(), lost.take()), (0, 1));
    thread.kill();
    assert!(thread.join().is_err());
    assert_eq!(got.take(), 1);
}

/// Its clone lets others run, and is told from it by having no end of its own to note.
struct Copied {
    /// Where the destructor of a clone counts.
    got: Ends,
    /// The original has one.
    original: Option<Slow>,
}

impl Clone for Copied {
    fn clone(&self) -> Copied {
        (0..2).for_each(|_| settle());
        Copied { got: self.got.clone(), original: None }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if self.original.is_none() {
            self.got.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_clone_is_dropped_if_the_original_waits_in_its_destructor_and_is_killed() {
    let _guard = common::guard();
    let (got, lost) = (Ends::default(), Ends::default());
    let (send, receive) = channel::broadcast(1);
    assert!(send.send(Copied { got: got.clone(), original: Some(lost.slow()) }).is_ok());
    let theirs = receive.clone();
    let thread = spawn(move || drop(theirs.recv()));
    settle();
    // While it clones the value leaves the channel, so that it has the last of it.
    assert!(send.send(Copied { got: Ends::default(), original: None }).is_ok());
    (0..2).for_each(|_| settle());
    assert_eq!((got.take(), lost.take()), (0, 1));
    thread.kill();
    assert!(thread.join().is_err());
    assert_eq!(got.take(), 1);
    drop(receive);
}

#[test]
fn the_values_of_a_map_are_dropped_if_its_closure_waits_in_its_destructor_and_is_killed() {
    let _guard = common::guard();
    let (got, lost) = (Ends::default(), Ends::default());
    let (theirs, slow) = (got.clone(), lost.slow());
    let thread = spawn(move || {
        let values = Pool::new(2).map(0..3, move |_| {
            let _owned = &slow;
            theirs.plain()
        });
        drop(values);
    });
    settle();
    assert_eq!((got.take(), lost.take()), (0, 1));
    thread.kill();
    assert!(thread.join().is_err());
    assert_eq!(got.take(), 3);
}

#[test]
fn a_result_that_comes_from_an_os_thread_is_never_leaked() {
    let _guard = common::guard();
    let got = Ends::default();
    let (begun, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
    let held = go.lock().unwrap();
    let (theirs, their_begun, their_go) = (got.clone(), Arc::clone(&begun), Arc::clone(&go));
    let thread = spawn(move || {
        drop(blocking(move || {
            their_begun.fetch_add(1, Ordering::SeqCst);
            drop(their_go.lock());
            theirs.plain()
        }));
    });
    while begun.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(1));
    }
    thread.kill();
    assert!(thread.join().is_err());
    drop(held);
    let done = (0..10_000).any(|_| {
        sleep(Duration::from_millis(1));
        got.0.load(Ordering::Relaxed) == 1
    });
    assert!(done, "the result of an abandoned job is dropped");
}

#[test]
fn a_value_that_goes_past_a_waiting_destructor_is_delivered_if_nothing_unwinds() {
    let _guard = common::guard();
    let (got, log) = (Ends::default(), Rc::new(Cell::new(0)));
    let (send, receive) = channel::unbounded();
    let (full, _full) = channel::rendezvous();
    assert!(send.send(got.plain()).is_ok());
    let unsent = OnDrop::new(|| sleep(Duration::from_millis(1)));
    let theirs = Rc::clone(&log);
    select! {
        biased;
        recv(receive) -> value => { theirs.set(theirs.get() + 1); drop(value) }
        send(full, unsent) -> _ => (),
    }
    assert_eq!((log.get(), got.take()), (1, 1));
}

thread_local! {
    /// What the initialiser of `TWICE` uses.
    static PARTS: RefCell<Option<(Plain, Slow)>> = const { RefCell::new(None) };
}

green_local!(static TWICE: RefCell<(Option<Plain>, Option<Slow>)> = {
    let (plain, slow) = PARTS.take().expect("set by the test");
    // There is a value by the time the initialiser has one: that one stays, and this one is dropped.
    TWICE.set((Some(plain), None));
    RefCell::new((None, Some(slow)))
});

#[test]
fn a_local_is_dropped_with_its_thread_if_a_second_one_waits_in_its_destructor_and_is_killed() {
    let _guard = common::guard();
    let (kept, second) = (Ends::default(), Ends::default());
    PARTS.set(Some((kept.plain(), second.slow())));
    let thread = spawn(|| TWICE.with(|_| ()));
    settle();
    assert_eq!((kept.take(), second.take()), (0, 1));
    thread.kill();
    assert!(thread.join().is_err());
    assert_eq!(kept.take(), 1);
}

#[test]
fn values_of_several_losers_and_the_one_that_was_received_may_all_panic_in_their_ends() {
    let _guard = common::guard();
    let ends = Ends::default();
    let (send, receive) = channel::unbounded();
    let (full, _full) = channel::rendezvous();
    let (far, far_end) = hub::channel(Some(1));
    assert!(far.send(ends.bomb()).is_ok());
    assert!(send.send(ends.bomb()).is_ok());
    let body = Cell::new(false);
    let all = || {
        select! {
            biased;
            recv(receive) -> value => { std::mem::forget(value); body.set(true) }
            send(full, ends.bomb()) -> _ => (),
            send(full.clone(), ends.bomb()) -> _ => (),
            send(far, ends.bomb()) -> _ => (),
        }
    };
    assert!(panics(all));
    assert_eq!((ends.take(), body.get()), (4, false));
    assert!(send.send(ends.bomb()).is_ok());
    // While the caller unwinds the values of the losers end quietly, and the body runs.
    assert!(while_unwinding(all));
    assert_eq!((ends.take(), body.get()), (3, true));
    assert!(panics(|| drop(far_end)));
}

#[test]
fn what_a_killed_sender_did_not_send_may_panic_in_its_end() {
    let _guard = common::guard();
    let ends = Ends::default();
    let (full, receive) = channel::rendezvous();
    let (one, two, mine) = (full.clone(), full.clone(), ends.clone());
    let sends = spawn({
        let mine = mine.clone();
        move || drop(one.send(mine.bomb()))
    });
    let (far, far_end) = hub::channel(Some(1));
    assert!(far.send(ends.bomb()).is_ok());
    let theirs = ends.clone();
    let remote = spawn(move || drop(far.send(theirs.bomb())));
    let selects = spawn(move || select! { send(two, mine.bomb()) -> _ => (), send(two, mine.bomb()) -> _ => () });
    settle();
    for thread in [sends, selects, remote] {
        thread.kill();
        assert!(thread.join().is_err_and(|error| error.is_killed()));
    }
    assert_eq!(ends.take(), 4);
    drop(receive);
    assert!(panics(|| drop(far_end)));
}
