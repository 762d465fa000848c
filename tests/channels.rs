//! What channels promise: order, hand-over, closing, and that nothing is lost.
#![forbid(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use common::{Log, OnDrop, in_virtual_time, settle};
use greenling::channel::{
    self, BroadcastError, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError,
};
use greenling::sync::mpsc;
use greenling::{no_switch, sim, sleep, spawn, thread, timeout, yield_now};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn values_come_out_in_the_order_of_their_channel() {
    let _guard = common::guard();
    let order = |(send, receive): (Sender<i32>, Receiver<i32>)| {
        [2, 3, 1].into_iter().for_each(|n| send.send(n).unwrap());
        drop(send);
        receive.iter().collect::<Vec<_>>()
    };
    assert_eq!(order(channel::unbounded()), [2, 3, 1]);
    assert_eq!(order(channel::bounded(3)), [2, 3, 1]);
    assert_eq!(order(channel::lifo()), [1, 3, 2]);
    assert_eq!(order(channel::priority()), [3, 2, 1]);
}

#[test]
fn a_full_channel_makes_senders_wait_and_serves_them_in_order() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded(2);
    let log = Log::default();
    let senders: Vec<_> = (0..5)
        .map(|n| {
            let (send, log) = (send.clone(), log.clone());
            spawn(move || {
                send.send(n).unwrap();
                log.say(n);
            })
        })
        .collect();
    settle();
    assert_eq!(log.sorted(), "0 1");
    assert!(send.is_full() && receive.is_full());
    assert_eq!((send.len(), send.capacity()), (2, Some(2)));
    assert_eq!(send.try_send(9), Err(TrySendError::Full(9)));
    assert_eq!(receive.recv(), Ok(0));
    // The room belongs to the first waiter, although that one has not run.
    assert_eq!(send.try_send(9), Err(TrySendError::Full(9)));
    assert_eq!(receive.len(), 2);
    settle();
    assert_eq!(log.sorted(), "0 1 2");
    assert!(receive.try_iter().eq(1..5), "a receive lets the next one in");
    assert_eq!(receive.try_recv(), Err(TryRecvError::Empty));
    senders.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_value_is_handed_to_the_longest_waiter_and_none_overtakes() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let got = Rc::new(RefCell::new(Vec::new()));
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let (receive, got) = (receive.clone(), Rc::clone(&got));
            spawn(move || {
                let value = receive.recv().unwrap();
                got.borrow_mut().push((thread, value));
            })
        })
        .collect();
    settle();
    (0..4).for_each(|n| send.send(n).unwrap());
    // Three are reserved; a receiver that comes now gets the fourth.
    assert_eq!((send.len(), receive.len()), (1, 1));
    assert_eq!(receive.try_recv(), Ok(3));
    assert_eq!(receive.try_recv(), Err(TryRecvError::Empty));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*got.borrow(), [(0, 0), (1, 1), (2, 2)]);
}

#[test]
fn a_rendezvous_is_over_when_the_value_was_taken() {
    let _guard = common::guard();
    let (send, receive) = channel::rendezvous();
    assert!(send.is_full() && send.is_empty() && send.capacity() == Some(0));
    assert_eq!(send.try_send(1), Err(TrySendError::Full(1)));
    let log = Log::default();
    let theirs = log.clone();
    let giver = spawn(move || {
        for n in 1..=2 {
            send.send(n).unwrap();
            theirs.say(format_args!("sent{n}"));
        }
    });
    settle();
    assert_eq!(log.text(), "");
    log.say(receive.recv().unwrap());
    settle();
    assert_eq!(log.text(), "1 sent1");
    log.say(receive.try_recv().unwrap());
    giver.join().unwrap();
    assert_eq!(log.text(), "1 sent1 2 sent2");
    assert_eq!(receive.recv(), Err(RecvError));
}

#[test]
fn a_receiver_that_waits_at_a_rendezvous_is_given_the_value_at_once() {
    let _guard = common::guard();
    let (send, receive) = channel::rendezvous();
    let taker = spawn(move || receive.recv());
    settle();
    assert!(!send.is_full());
    assert_eq!(send.try_send(7), Ok(()));
    assert_eq!(taker.join().unwrap(), Ok(7));
}

#[test]
fn a_value_handed_to_a_dead_receiver_goes_to_the_next_or_stays_in_front() {
    let _guard = common::guard();
    for next_waits in [true, false] {
        for make in [channel::rendezvous, channel::unbounded] {
            let (send, receive) = make();
            let theirs = receive.clone();
            let first = spawn(move || theirs.recv());
            settle();
            let theirs = receive.clone();
            let second = next_waits.then(|| spawn(move || theirs.recv()));
            settle();
            // At once, so that the first has no turn before it is killed.
            no_switch(|| send.try_send(1)).unwrap();
            first.kill();
            if send.capacity().is_none() && !next_waits {
                send.send(2).unwrap();
            }
            assert!(first.join().expect_err("killed").is_killed());
            match second {
                Some(second) => assert_eq!(second.join().unwrap(), Ok(1)),
                None => assert_eq!(receive.try_recv(), Ok(1)),
            }
        }
    }
}

#[test]
fn a_send_that_is_killed_before_its_value_was_taken_has_not_happened_and_after_it_has() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded(1);
    send.send((0, None)).unwrap();
    let dropped = Rc::new(Cell::new(0));
    let sender = |number| {
        let (send, dropped) = (send.clone(), Rc::clone(&dropped));
        let thread = spawn(move || {
            let mark = OnDrop::new(move || dropped.set(number));
            let _ = send.send((number, Some(mark)));
        });
        settle();
        thread
    };
    let (before, after) = (sender(1), sender(2));
    before.kill();
    assert!(before.join().expect_err("killed").is_killed());
    assert_eq!(dropped.get(), 1, "its value went with it");
    assert_eq!(receive.recv().unwrap().0, 0);
    after.kill();
    assert!(after.join().expect_err("killed").is_killed());
    assert_eq!(dropped.get(), 1);
    let value = receive.try_recv().expect("it had been taken in");
    assert_eq!((value.0, receive.len()), (2, 0));
}

#[test]
fn time_limits_give_the_value_back_and_leave_nothing_behind() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded(1);
    let begin = Instant::now();
    assert_eq!(receive.recv_timeout(Duration::from_millis(3)), Err(RecvTimeoutError::Timeout));
    assert_eq!(send.send_timeout(1, Duration::from_millis(3)), Ok(()));
    assert_eq!(send.send_timeout(2, Duration::from_millis(3)), Err(SendTimeoutError::Timeout(2)));
    assert!(begin.elapsed() >= Duration::from_millis(6));
    assert_eq!(receive.recv(), Ok(1));
    assert!(receive.is_empty(), "2 is not there");
    assert_eq!(timeout(Duration::from_millis(1), || receive.recv()), Err(greenling::TimeoutError::Elapsed));
    send.send(3).unwrap();
    assert_eq!(receive.recv_timeout(Duration::ZERO), Ok(3), "no wait, no time");
    drop(send);
    assert_eq!(receive.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn a_value_that_comes_when_the_time_is_over_but_not_yet_noticed_is_received() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let (send, receive) = channel::unbounded();
        let limit = Duration::from_millis(2);
        let thread = spawn(move || receive.recv_timeout(limit));
        yield_now();
        sim::advance(3 * limit);
        send.send(1).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(1));
    });
}

#[test]
fn the_last_sender_ends_it_for_receivers_that_wait_and_what_is_in_it_comes_first() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let (other, theirs) = (send.clone(), receive.clone());
    let waits = spawn(move || (theirs.recv(), theirs.recv()));
    settle();
    send.send(1).unwrap();
    drop(send);
    settle();
    assert!(!waits.is_finished(), "one is left");
    drop(other);
    assert_eq!(waits.join().unwrap(), (Ok(1), Err(RecvError)));
    assert_eq!(receive.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(receive.into_iter().count(), 0);
}

#[test]
fn the_last_receiver_gives_senders_that_wait_their_value_back() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded(1);
    let dropped = Rc::new(Cell::new(false));
    let seen = Rc::clone(&dropped);
    send.send((0, Some(OnDrop::new(move || seen.set(true))))).unwrap();
    let theirs = send.clone();
    let waits = spawn(move || theirs.send((1, None)).map_err(|SendError((number, _))| number));
    let theirs = send.clone();
    let limited = spawn(move || theirs.send_timeout((2, None), LONG).map_err(|error| error.into_inner().0));
    settle();
    let other = receive.clone();
    drop(receive);
    settle();
    assert!(!waits.is_finished() && !dropped.get(), "one is left");
    drop(other);
    assert!(dropped.get(), "what was in it is dropped");
    assert_eq!((waits.join().unwrap(), limited.join().unwrap()), (Err(1), Err(2)));
    assert!(matches!(send.try_send((3, None)), Err(TrySendError::Disconnected((3, None)))));
    assert!(!send.is_open());
}

#[test]
fn close_lets_receivers_drain_and_refuses_senders() {
    let _guard = common::guard();
    for from_sender in [true, false] {
        let (send, receive) = channel::bounded(1);
        send.send(1).unwrap();
        let theirs = send.clone();
        let waits = spawn(move || theirs.send(2));
        settle();
        if from_sender {
            send.close()
        } else {
            receive.close()
        }
        assert_eq!(receive.try_recv(), Ok(1));
        assert_eq!(receive.recv(), Err(RecvError));
        assert_eq!(waits.join().unwrap(), Err(SendError(2)));
        assert_eq!(send.send(3), Err(SendError(3)));
        send.close();
    }
    let (send, receive) = channel::unbounded::<()>();
    let waits = spawn(move || receive.recv());
    settle();
    send.close();
    assert_eq!(waits.join().unwrap(), Err(RecvError));
}

#[test]
fn close_and_discard_drops_what_is_in_it_also_what_was_reserved() {
    let _guard = common::guard();
    for make in [channel::unbounded, channel::priority, channel::lifo] {
        let (send, receive) = make();
        let theirs = receive.clone();
        let promised = spawn(move || theirs.recv());
        settle();
        let rc = Rc::new(1);
        no_switch(|| (0..2).for_each(|_| send.send(Rc::clone(&rc)).unwrap()));
        receive.close_and_discard();
        assert_eq!(Rc::strong_count(&rc), 1);
        assert_eq!((receive.len(), receive.try_recv()), (0, Err(TryRecvError::Disconnected)));
        assert_eq!(promised.join().unwrap(), Err(RecvError));
    }
}

#[test]
fn a_promise_that_a_discard_took_back_is_no_value_of_the_next() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let theirs = receive.clone();
    let victim = spawn(move || theirs.recv());
    settle();
    no_switch(|| send.send(1)).unwrap();
    send.close_and_discard();
    victim.kill();
    assert!(victim.join().is_err());
    assert_eq!((receive.len(), receive.recv()), (0, Err(RecvError)));
}

/// A value whose destructor uses the channel it was in.
struct Nosy(Option<Sender<Nosy>>, Rc<Cell<u32>>);

impl Drop for Nosy {
    fn drop(&mut self) {
        if let Some(send) = &self.0 {
            assert!(send.try_send(Nosy(None, Rc::clone(&self.1))).is_err() || send.is_open());
            assert!(send.len() < 100);
            yield_now();
        }
        self.1.set(self.1.get() + 1);
    }
}

#[test]
fn destructors_of_values_may_use_the_channel() {
    let _guard = common::guard();
    for end in 0..3 {
        let (send, receive) = channel::unbounded();
        let count = Rc::new(Cell::new(0));
        for _ in 0..3 {
            send.send(Nosy(Some(send.clone()), Rc::clone(&count))).unwrap_or_else(|_| panic!("it is open"));
        }
        match end {
            0 => drop(receive),
            1 => receive.close_and_discard(),
            _ => {
                drop(send.clone());
                drop(receive.recv());
                receive.close_and_discard();
            }
        }
        assert!(count.get() >= 3, "{}", count.get());
    }
}

/// How a comparison misbehaves, if it does.
type Act = Rc<RefCell<Option<Box<dyn FnMut()>>>>;

/// A value whose comparison misbehaves when it is told.
struct Rude(i32, Act);

impl PartialEq for Rude {
    fn eq(&self, other: &Rude) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rude {}

impl PartialOrd for Rude {
    fn partial_cmp(&self, other: &Rude) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rude {
    fn cmp(&self, other: &Rude) -> Ordering {
        if let Some(act) = &mut *self.1.borrow_mut() {
            act();
        }
        self.0.cmp(&other.0)
    }
}

/// What a thread panicked with.
fn panic_of(f: impl FnOnce() + 'static) -> String {
    let payload = spawn(f).join().expect_err("it panics").into_panic();
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| (*payload.downcast_ref::<&str>().unwrap()).to_owned())
}

#[test]
fn a_comparison_that_switches_or_uses_the_channel_panics_and_the_values_stay() {
    let _guard = common::guard();
    let (send, receive) = channel::priority();
    let act = Act::default();
    send.send(Rude(1, Rc::clone(&act))).unwrap_or_else(|_| panic!("it is open"));
    for (number, text) in [(2, "no_switch"), (3, "uses the channel itself"), (4, "no_switch")] {
        *act.borrow_mut() = match number {
            2 => Some(Box::new(yield_now)),
            4 => Some(Box::new(|| thread::scope(|s| drop(s.spawn(|| ()))))),
            _ => {
                let receive = receive.clone();
                Some(Box::new(move || drop(receive.try_recv())))
            }
        };
        let (send, value) = (send.clone(), Rude(number, Rc::clone(&act)));
        let message = panic_of(move || drop(send.send(value)));
        assert!(message.contains(text), "{message}");
        *act.borrow_mut() = None;
    }
    let mut left: Vec<i32> = receive.try_iter().map(|value| value.0).collect();
    left.sort_unstable();
    assert_eq!(left, [1, 2, 3, 4]);
    assert!(receive.is_empty());
}

/// In main, since a shutdown is main's: it panics before any other thread runs, in the program's other uses of `no_switch` as well.
#[test]
fn a_comparison_that_shuts_the_hub_down_panics_and_the_values_stay() {
    let _guard = common::guard();
    let (send, receive) = channel::priority();
    let (act, ran) = (Act::default(), Rc::new(Cell::new(false)));
    let theirs = Rc::clone(&ran);
    send.send(Rude(1, Rc::clone(&act))).unwrap_or_else(|_| panic!("it is open"));
    let other = spawn(move || theirs.set(true));
    *act.borrow_mut() = Some(Box::new(|| assert_eq!(greenling::hub::shutdown(), 0)));
    let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| send.send(Rude(2, Rc::clone(&act)))));
    let message = *sent.expect_err("it panics").downcast::<&str>().expect("a text");
    assert!(message.contains("no_switch") && !ran.get(), "{message}");
    *act.borrow_mut() = None;
    assert_eq!(receive.try_iter().count(), 2);
    other.join().unwrap();
    assert!(ran.get(), "it was not killed either");
}

#[test]
fn calls_that_need_not_wait_do_not_switch() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded(1);
    no_switch(|| {
        send.send(1).unwrap();
        assert_eq!(receive.recv(), Ok(1));
        assert_eq!(receive.try_recv(), Err(TryRecvError::Empty));
    });
    let message = panic_of(move || no_switch(|| assert_eq!(receive.recv(), Ok(0))));
    assert!(message.contains("no_switch"), "{message}");
}

/// Calls `f` while the thread unwinds.
fn while_unwinding(f: impl FnOnce() + 'static) {
    let ended = spawn(move || {
        let _late = OnDrop::new(f);
        std::panic::resume_unwind(Box::new("down"));
    });
    assert!(ended.join().expect_err("it panics").is_panic());
}

#[test]
fn while_a_thread_unwinds_what_must_wait_returns_and_what_need_not_works() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded(1);
    let (theirs, values) = (send.clone(), receive.clone());
    while_unwinding(move || {
        assert_eq!(values.recv(), Err(RecvError));
        assert_eq!(values.recv_timeout(LONG), Err(RecvTimeoutError::Timeout));
        assert_eq!(theirs.send(1), Ok(()));
        assert_eq!(theirs.send(2), Err(SendError(2)));
        assert_eq!(theirs.send_timeout(3, LONG), Err(SendTimeoutError::Timeout(3)));
        assert_eq!(values.recv(), Ok(1));
    });
    assert_eq!((send.len(), receive.try_recv()), (0, Err(TryRecvError::Empty)));
    let (send, receive) = channel::broadcast::<i32>(1);
    while_unwinding(move || {
        assert_eq!(receive.recv(), Err(BroadcastError::Disconnected));
        assert_eq!(receive.recv_timeout(LONG), Err(BroadcastError::Empty));
    });
    assert_eq!(send.receiver_count(), 0);
}

#[test]
fn a_channel_that_no_thread_can_ever_use_is_reported_as_a_deadlock() {
    let _guard = common::guard();
    let out = common::child("a_channel_that_no_thread_can_ever_use_is_reported_as_a_deadlock", || {
        let (_send, receive) = channel::unbounded::<i32>();
        let _ = receive.recv();
    });
    let text = common::stderr(&out);
    assert!(text.contains("deadlock") && text.contains("waits for a value from a channel"), "{text}");
}

#[test]
fn threads_that_wait_at_a_channel_are_unwound_by_a_shutdown() {
    let _guard = common::guard();
    let dropped = std::thread::spawn(|| {
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let inside = std::sync::Arc::clone(&count);
        std::thread::spawn(move || {
            let (send, receive) = channel::bounded::<i32>(1);
            send.send(0).unwrap();
            let (empty, nothing) = channel::bounded::<i32>(1);
            for wait in [0, 1] {
                let (send, nothing, count) = (send.clone(), nothing.clone(), std::sync::Arc::clone(&inside));
                drop(spawn(move || {
                    let _mark = OnDrop::new(move || {
                        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    });
                    if wait == 0 { send.send(1).unwrap() } else { assert_eq!(nothing.recv(), Ok(0)) }
                }));
            }
            settle();
            drop((receive, empty).0);
            std::mem::forget(send);
            assert_eq!(greenling::hub::shutdown(), 0);
        })
        .join()
        .unwrap();
        count.load(std::sync::atomic::Ordering::Relaxed)
    });
    assert_eq!(dropped.join().unwrap(), 2);
}

#[test]
fn a_scope_may_share_a_channel_of_borrowed_values() {
    let _guard = common::guard();
    let words = [String::from("a"), String::from("b")];
    let (send, receive) = channel::rendezvous::<&str>();
    let text = thread::scope(|s| {
        s.spawn(|| words.iter().for_each(|word| send.send(word).unwrap()));
        format!("{}{}", receive.recv().unwrap(), receive.recv().unwrap())
    });
    assert_eq!(text, "ab");
}

#[test]
fn every_receiver_of_a_broadcast_gets_every_value_and_the_late_are_told() {
    let _guard = common::guard();
    let (send, first) = channel::broadcast(3);
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let receive = send.subscribe();
            spawn(move || (0..2).map(|_| receive.recv().unwrap()).collect::<Vec<_>>())
        })
        .collect();
    settle();
    assert_eq!(send.send(1), Ok(4));
    assert_eq!(send.send(2), Ok(4));
    threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), [1, 2]));
    (3..=5).for_each(|n| assert_eq!(send.send(n), Ok(1)));
    let twin = first.clone();
    assert_eq!(first.recv(), Err(BroadcastError::Lagged(2)));
    assert_eq!(first.len(), 3);
    assert_eq!([first.recv(), first.recv(), first.recv()], [Ok(3), Ok(4), Ok(5)]);
    assert_eq!((first.try_recv(), first.is_empty()), (Err(BroadcastError::Empty), true));
    assert_eq!(first.recv_timeout(Duration::from_millis(1)), Err(BroadcastError::Empty));
    assert_eq!((twin.len(), twin.try_recv()), (3, Err(BroadcastError::Lagged(2))));
    drop(twin);
    let waits = spawn(move || first.recv());
    settle();
    drop(send);
    assert_eq!(waits.join().unwrap(), Err(BroadcastError::Disconnected));
}

#[test]
fn a_broadcast_without_receivers_is_refused_and_begins_anew_with_the_next() {
    let _guard = common::guard();
    let (send, receive) = channel::broadcast(1);
    assert_eq!(send.send(1), Ok(1));
    drop(receive);
    assert_eq!(send.send(2), Err(SendError(2)));
    let receive = send.subscribe();
    assert_eq!(receive.try_recv(), Err(BroadcastError::Empty));
    let (other, watcher) = (send.clone(), receive.clone());
    assert_eq!(other.send(3), Ok(2));
    assert_eq!(other.send(4), Ok(2));
    assert_eq!((watcher.try_recv(), watcher.try_recv()), (Err(BroadcastError::Lagged(1)), Ok(4)));
    other.close();
    assert_eq!(send.send(5), Err(SendError(5)));
    assert_eq!(receive.try_recv(), Err(BroadcastError::Lagged(1)));
    assert_eq!((receive.try_recv(), receive.try_recv()), (Ok(4), Err(BroadcastError::Disconnected)));
}

#[test]
#[should_panic(expected = "room for a value")]
fn a_broadcast_without_room_is_refused() {
    let _ = channel::broadcast::<i32>(0);
}

/// The same program on std's channels and on ours.
macro_rules! mpsc_program {
    ($mpsc:ident, $spawn:path) => {{
        let mut log = Vec::new();
        let (send, receive) = $mpsc::channel();
        let more = send.clone();
        $spawn(move || (0..3).for_each(|n| more.send(n).unwrap())).join().unwrap();
        drop(send);
        log.push(format!("{:?}", receive.iter().collect::<Vec<_>>()));
        log.push(format!("{:?} {:?}", receive.recv(), receive.try_recv()));
        let (send, receive) = $mpsc::sync_channel(1);
        log.push(format!("{:?} {:?}", send.try_send(1), send.try_send(2)));
        log.push(format!("{:?} {:?}", receive.recv(), receive.try_recv()));
        log.push(format!("{:?}", receive.recv_timeout(std::time::Duration::from_millis(1))));
        log.push(format!("{:?} {:?}", send.send(3), receive.try_iter().collect::<Vec<_>>()));
        drop(receive);
        log.push(format!("{:?} {:?}", send.send(4), send.try_send(5)));
        let (send, receive) = $mpsc::sync_channel(0);
        let thread = $spawn(move || (&receive).into_iter().take(2).chain(receive.iter()).collect::<Vec<i32>>());
        (6..9).for_each(|n| send.send(n).unwrap());
        drop(send);
        log.push(format!("{:?}", thread.join().unwrap()));
        log
    }};
}

#[test]
fn mpsc_does_what_std_does() {
    let _guard = common::guard();
    let ours = mpsc_program!(mpsc, spawn);
    assert_eq!(ours, mpsc_program!(std_mpsc, std::thread::spawn));
    assert_eq!(ours.len(), 8);
}

#[test]
fn a_sleeper_is_woken_by_a_channel_only_when_it_waits_for_it() {
    let _guard = common::guard();
    in_virtual_time(|| {
        let (send, receive) = channel::unbounded();
        let thread = spawn(move || {
            let _ = receive.recv_timeout(Duration::from_millis(1));
            sleep(Duration::from_millis(10));
            receive.try_recv()
        });
        sleep(Duration::from_millis(3));
        send.send(1).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(1));
        assert_eq!(sim::elapsed(), Duration::from_millis(11));
    });
}
