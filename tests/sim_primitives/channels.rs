//! What channels and `select!` promise.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use greenling::channel::BroadcastError;
use greenling::sync::{Event, mpsc};
use greenling::{Select, channel, select, sleep, spawn, time, timeout, yield_now};

use super::{SOON, TICK, join_all, threads};

/// Values come out in the order in which each sender has sent them, each once.
pub(crate) fn bounded_channel() {
    let (send, receive) = channel::bounded(1);
    let senders = threads(2, {
        move |number| {
            for value in 0..3 {
                if send.send((number, value)).is_err() {
                    break;
                }
            }
        }
    });
    let receiver = spawn(move || receive.iter().collect::<Vec<_>>());
    let sent = join_all(senders).len();
    if let Ok(got) = receiver.join() {
        for number in 0..2 {
            let own: Vec<_> = got.iter().filter(|(from, _)| *from == number).map(|(_, value)| *value).collect();
            assert!(own.iter().copied().eq(0..own.len()), "{got:?}");
        }
        assert!(got.len() >= 3 * sent, "{got:?}");
    }
}

/// A value that was handed over is there, and one that was not is given back.
pub(crate) fn rendezvous() {
    let (send, receive) = channel::bounded(0);
    let given = Rc::new(Cell::new(0));
    let given2 = Rc::clone(&given);
    let sender = spawn(move || {
        for value in 0..4 {
            match send.send_timeout(value, Duration::from_micros(2)) {
                Ok(()) => given2.set(given2.get() + 1),
                Err(error) => assert_eq!(error.into_inner(), value),
            }
        }
    });
    let receiver = spawn(move || {
        let mut got = Vec::new();
        while got.len() < 4 {
            match receive.recv_timeout(Duration::from_micros(3)) {
                Ok(value) => got.push(value),
                Err(_) => break,
            }
        }
        got
    });
    let sent = sender.join();
    if let (Ok(()), Ok(got)) = (sent, receiver.join()) {
        assert_eq!(got.len(), given.get());
        assert!(got.is_sorted());
    }
}

/// The greatest first, and the newest first, of what is there.
pub(crate) fn sorted_channels() {
    let (priority, lifo) = (channel::priority(), channel::lifo());
    let (sends, receives) = ((priority.0, lifo.0), (priority.1, lifo.1));
    let sender = spawn(move || {
        for value in [2, 3, 1] {
            sends.0.send(value).unwrap();
            sends.1.send(value).unwrap();
            yield_now();
        }
    });
    let receiver = spawn(move || {
        let mut got = (Vec::new(), Vec::new());
        loop {
            sleep(TICK);
            got.0.extend(receives.0.try_iter());
            got.1.extend(receives.1.try_iter());
            if receives.0.recv().map(|value| got.0.push(value)).is_err() {
                got.1.extend(receives.1.iter());
                return got;
            }
        }
    });
    if let (true, Ok(mut got)) = (sender.join().is_ok(), receiver.join()) {
        got.0.sort_unstable();
        got.1.sort_unstable();
        assert_eq!(got, (vec![1, 2, 3], vec![1, 2, 3]));
    }
}

/// Each receiver gets each value, in order, or learns how many it has missed.
pub(crate) fn broadcast() {
    let (send, receive) = channel::broadcast(2);
    let receivers = threads(2, {
        let each = RefCell::new(vec![send.subscribe(), receive]);
        move |number| {
            let receiver = each.borrow_mut().pop().unwrap();
            let (mut next, mut looks) = (0, 0);
            loop {
                looks += 1;
                let got = match (number, looks % 2) {
                    (0, _) => receiver.recv(),
                    (_, 0) => receiver.try_recv(),
                    (_, _) => receiver.recv_timeout(TICK),
                };
                match got {
                    Ok(value) => {
                        assert_eq!(value, next);
                        next += 1;
                    }
                    Err(BroadcastError::Lagged(missed)) => next += missed,
                    Err(BroadcastError::Empty) => {}
                    Err(BroadcastError::Disconnected) => return next,
                }
            }
        }
    });
    let sender = spawn(move || {
        for value in 0..5_u64 {
            if value == 3 {
                sleep(TICK);
            }
            let _ = send.send(value);
        }
    });
    let is_whole = sender.join().is_ok();
    assert!(join_all(receivers).into_iter().all(|next| next == 5 || !is_whole));
}

/// std's names for channels: what was sent comes out, and the ends learn of each other's end.
pub(crate) fn channels_of_std() {
    let (send, receive) = mpsc::sync_channel(1);
    let (send_any, receive_any) = mpsc::channel();
    let senders = threads(2, move |number| {
        for value in 0..2 {
            if number == 0 && send.send(value).is_err() || number == 1 && send.try_send(9).is_err() {
                break;
            }
            send_any.send(value).unwrap();
        }
    });
    let receiver = spawn(move || {
        // Not for long: a sender may have been killed.
        let first = receive.recv_timeout(TICK);
        first.into_iter().chain(&receive).filter(|value| *value < 9).collect::<Vec<_>>()
    });
    let ended = join_all(senders).len();
    let sent = receive_any.try_iter().count() + usize::from(receive_any.recv().is_ok());
    assert!((ended..=4).contains(&(sent + 2 - ended)) || ended == 0, "{sent}");
    if let Ok(got) = receiver.join() {
        assert!(got.is_sorted(), "{got:?}");
    }
}

/// Two threads select from two channels: no value twice, none lost.
pub(crate) fn select_takes_each_value_once() {
    let (left, right) = (channel::bounded::<u32>(1), channel::unbounded::<u32>());
    let (send_left, receive_left) = left;
    let (send_right, receive_right) = right;
    // A channel without a sender is always ready, and the other one may still have values.
    let senders_stay = (send_left.clone(), send_right.clone());
    let seen = Rc::new(RefCell::new(BTreeSet::new()));
    let seen2 = Rc::clone(&seen);
    let receivers = threads(2, move |_| {
        loop {
            let got = select! {
                recv(receive_left) -> got => got.ok(),
                recv(receive_right) -> got => got.ok(),
                after(Duration::from_millis(1)) => None,
            };
            match got {
                Some(value) => assert!(seen2.borrow_mut().insert(value), "{value} came twice"),
                None => break,
            }
        }
    });
    let senders = threads(2, move |number| {
        for value in 0..2_u32 {
            if number == 0 {
                let _ = send_left.send(value);
            } else {
                let _ = send_right.send(10 + value);
            }
        }
    });
    let (sent, received) = (join_all(senders).len(), join_all(receivers).len());
    drop(senders_stay);
    let is_whole = sent == 2 && received == 2;
    assert!(!is_whole || *seen.borrow() == BTreeSet::from([0, 1, 10, 11]), "{seen:?}");
}

/// Of two that would send to each other or receive, one does the one and one the other, or neither has the time; nothing
/// meets itself.
pub(crate) fn select_meets_others_only() {
    let (send, receive) = channel::rendezvous();
    let all = threads(2, move |number| {
        // The time of the first is up when the second comes.
        sleep(TICK * number as u32);
        select! {
            recv(receive) -> got => {
                assert_ne!(got, Ok(number), "it has received what it would send itself");
                Some(true)
            },
            send(send, number) -> sent => {
                sent.unwrap();
                Some(false)
            },
            after(TICK) => None,
        }
    });
    let mut ends = join_all(all);
    ends.sort_unstable();
    assert!(ends.len() < 2 || ends == [None, None] || ends == [Some(false), Some(true)], "{ends:?}");
}

/// A value that counts how many there are.
struct Counted(Rc<Cell<u32>>);

impl Counted {
    fn new(count: &Rc<Cell<u32>>) -> Counted {
        count.set(count.get() + 1);
        Counted(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A value that waits when it is dropped.
struct Slow;

impl Drop for Slow {
    fn drop(&mut self) {
        sleep(TICK);
    }
}

/// What an arm has received is dropped if the thread ends while what another arm would have sent is dropped.
pub(crate) fn select_drops_what_it_has() {
    let count = Rc::new(Cell::new(0));
    let (send, receive) = channel::bounded(1);
    let (send_slow, receive_slow) = channel::rendezvous();
    send.send(Counted::new(&count)).unwrap();
    let thread = spawn(move || {
        select! {
            biased;
            recv(receive) -> got => drop(got),
            send(send_slow, Slow) -> _ => unreachable!("nothing receives it"),
        }
    });
    drop(thread.join());
    drop(receive_slow);
    assert_eq!(count.get(), 0, "a value is left");
}

/// All kinds of arms, in a set and in the macro: the first that can go on does, and the others have done nothing.
pub(crate) fn select_set() {
    let (send, receive) = channel::bounded(1);
    let event = Rc::new(Event::auto_reset());
    let worker = spawn(|| sleep(TICK));
    let (event2, sends) = (Rc::clone(&event), Rc::new(Cell::new(0)));
    let sends2 = Rc::clone(&sends);
    let others = spawn(move || {
        for value in 0..2 {
            sleep(TICK);
            event2.set();
            send.send(value).unwrap();
            sends2.set(value + 1);
        }
    });
    let selects = spawn(move || {
        let (got, passed, ended, is_open) = (Cell::new(0), Cell::new(0), Cell::new(false), Cell::new(true));
        for wait in 0.. {
            let mut set = Select::new();
            if is_open.get() {
                set.recv(&receive, |value| match value {
                    Ok(_) => got.set(got.get() + 1),
                    Err(_) => is_open.set(false),
                });
            }
            set.wait(&event, |()| passed.set(passed.get() + 1));
            set.end(&worker, |()| ended.set(true));
            set.at(time::now() + SOON, || unreachable!("the worker ends before"));
            match wait % 4 {
                0 => drop(set.select_timeout(TICK / 2)),
                1 => drop(set.select_deadline(time::now() + TICK)),
                2 => drop(set.try_select()),
                _ => set.select(),
            }
            if ended.get() {
                break;
            }
        }
        assert!(passed.get() <= 2);
        let rest = receive.iter().count() as u32;
        let mut ticks = time::interval(TICK);
        select! {
            tick(ticks) -> _ => (),
            join(worker) -> ended => drop(ended),
        }
        got.get() + rest
    });
    if others.join().is_ok()
        && let Ok(got) = selects.join()
    {
        assert_eq!(got, 2);
    }
}

/// A time limit takes a value or leaves it.
pub(crate) fn timeout_loses_nothing() {
    let (send, receive) = channel::unbounded();
    let sender = spawn(move || {
        for value in 0..3 {
            sleep(Duration::from_micros(1));
            send.send(value).unwrap();
        }
    });
    let receiver = spawn(move || {
        let mut got = Vec::new();
        loop {
            match timeout(Duration::from_micros(1), || receive.recv()) {
                Ok(Ok(value)) => got.push(value),
                Ok(Err(_)) => return got,
                Err(_) => {}
            }
        }
    });
    let sent = sender.join().is_ok();
    if let Ok(got) = receiver.join() {
        assert!(got.iter().copied().eq(0..got.len()) && (!sent || got.len() == 3), "{got:?}");
    }
}
