//! What `select!` promises: one arm and no other, fair or in order, nothing left behind, nothing lost.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::{self, Log, OnDrop, settle};
use greenling::channel::{self, BroadcastError, RecvError, SendError, TryRecvError, TrySendError};
use greenling::io::pipe;
use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::os::unix::net::UnixStream;
use greenling::sim::advance;
use greenling::sync::{Event, Semaphore, mpsc};
use greenling::{Greenlet, no_switch, select, sleep, spawn, thread, timeout, yield_now};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// A connected pair.
fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

#[test]
fn the_arm_that_can_go_on_is_taken_and_yields_its_result() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded(1);
    let (late, nothing) = channel::unbounded::<i32>();
    let event = Event::new();
    let which = |text: &'static str| text;
    let got = select! {
        recv(nothing) -> _ => which("recv"),
        wait(event) => which("wait"),
        send(send, 7) -> sent => { sent.unwrap(); which("send") }
        after(LONG) => which("after"),
    };
    assert_eq!((got, receive.try_recv()), ("send", Ok(7)));
    late.send(5).unwrap();
    let got = select! {
        recv(receive) -> value => value,
        recv(nothing) -> value => value,
    };
    assert_eq!(got, Ok(5));
    event.set();
    let got = select! { recv(receive) -> _ => 1, wait(event) => 2 };
    assert_eq!(got, 2);
}

#[test]
fn an_end_of_a_channel_is_something_to_go_on_with() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded::<i32>();
    let never = Event::new();
    let waits = {
        let receive = receive.clone();
        spawn(move || select! { recv(receive) -> value => value, wait(never) => Ok(0) })
    };
    settle();
    drop(send);
    assert_eq!(waits.join().unwrap(), Err(RecvError));
    assert_eq!(select! { recv(receive) -> value => value }, Err(RecvError));

    let (send, receive) = channel::bounded(1);
    send.send(0).unwrap();
    let theirs = send.clone();
    let waits = spawn(move || select! { send(theirs, 1) -> sent => sent, after(LONG) => Ok(()) });
    settle();
    drop(receive);
    assert_eq!(waits.join().unwrap(), Err(SendError(1)));
    assert_eq!(select! { send(send, 2) -> sent => sent }, Err(SendError(2)));

    let (send, receive) = channel::broadcast::<i32>(1);
    let waits = spawn(move || select! { recv(receive) -> value => value, after(LONG) => Ok(0) });
    settle();
    send.close();
    assert_eq!(waits.join().unwrap(), Err(BroadcastError::Disconnected));
}

#[test]
fn default_is_taken_only_if_nothing_else_can_go_on() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded(1);
    let poll = || {
        no_switch(|| {
            select! {
                recv(receive) -> value => value.ok(),
                default => None,
            }
        })
    };
    assert_eq!(poll(), None);
    send.send(1).unwrap();
    assert_eq!((poll(), poll()), (Some(1), None));
    send.send(2).unwrap();
    let sent = select! { default => false, send(send, 3) -> sent => sent.is_ok() };
    assert!(!sent);
    assert_eq!(receive.try_iter().collect::<Vec<_>>(), [2]);
}

#[test]
fn biased_takes_the_first_that_is_written_and_fair_takes_all_about_as_often() {
    let _guard = common::guard();
    let ready: Vec<_> = (0..3).map(|_| channel::unbounded()).collect();
    for (send, _) in &ready {
        (0..3000).for_each(|n| send.send(n).unwrap());
    }
    let (mut biased, mut fair) = ([0; 3], [0; 3]);
    for _ in 0..900 {
        let number = select! {
            biased;
            recv(ready[0].1) -> _ => 0,
            recv(ready[1].1) -> _ => 1,
            recv(ready[2].1) -> _ => 2,
        };
        biased[number] += 1;
        let number = select! {
            recv(ready[0].1) -> _ => 0,
            recv(ready[1].1) -> _ => 1,
            recv(ready[2].1) -> _ => 2,
        };
        fair[number] += 1;
    }
    assert_eq!(biased, [900, 0, 0]);
    // Each is drawn with a chance of one in three: 300, give or take 14.
    assert!(fair.iter().all(|&count: &i32| (200..400).contains(&count)), "{fair:?}");
}

#[test]
fn two_fair_selects_that_take_turns_are_both_fair() {
    let _guard = common::guard();
    let ready: Vec<_> = (0..2).map(|_| channel::unbounded()).collect();
    for (send, _) in &ready {
        (0..2000).for_each(|n| send.send(n).unwrap());
    }
    let mut counts = [[0_i32; 2]; 2];
    for round in 0..1000 {
        let number = select! { recv(ready[0].1) -> _ => 0, recv(ready[1].1) -> _ => 1 };
        counts[round % 2][number] += 1;
    }
    assert!(counts.iter().flatten().all(|count| (150..350).contains(count)), "{counts:?}");
}

#[test]
fn losers_are_in_no_line_any_more_and_have_taken_nothing() {
    let _guard = common::guard();
    let (first, second) = (channel::unbounded(), channel::unbounded());
    let full = channel::bounded(1);
    full.0.send(0).unwrap();
    let (a, b, c) = (first.1.clone(), second.1.clone(), full.0.clone());
    let thread = spawn(move || {
        select! {
            recv(a) -> value => value.unwrap(),
            recv(b) -> value => value.unwrap() + 100,
            send(c, 50) -> _ => 1000,
        }
    });
    settle();
    second.0.send(1).unwrap();
    // It has not run, and is in no line already.
    first.0.send(2).unwrap();
    assert_eq!((first.1.len(), second.1.len()), (1, 0));
    assert_eq!(full.1.try_recv(), Ok(0));
    assert_eq!(full.1.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(thread.join().unwrap(), 101);
    assert_eq!(first.1.try_recv(), Ok(2));
    assert_eq!(full.1.try_recv(), Err(TryRecvError::Empty), "its value went with it");
}

#[test]
fn a_select_stands_in_line_like_any_waiter() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let log = Log::default();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let (receive, log) = (receive.clone(), log.clone());
            spawn(move || {
                let value: i32 = if number % 2 == 0 {
                    select! { recv(receive) -> value => value.unwrap(), after(LONG) => -1 }
                } else {
                    receive.recv().unwrap()
                };
                log.say(format_args!("{number}:{value}"));
            })
        })
        .collect();
    settle();
    (0..4).for_each(|n| send.send(n).unwrap());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.text(), "0:0 1:1 2:2 3:3");
}

#[test]
fn a_loser_in_the_middle_of_a_line_takes_no_turn() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let stop = Rc::new(Event::new());
    let got = Rc::new(RefCell::new(Vec::new()));
    let plain = |number| {
        let (receive, got) = (receive.clone(), Rc::clone(&got));
        let thread = spawn(move || {
            let value = receive.recv().unwrap();
            got.borrow_mut().push((number, value));
        });
        settle();
        thread
    };
    let before = plain(0);
    let (theirs, stopped) = (receive.clone(), Rc::clone(&stop));
    let both = spawn(move || select! { recv(theirs) -> _ => false, wait(stopped) => true });
    settle();
    let behind = plain(1);
    stop.set();
    send.send('a').unwrap();
    send.send('b').unwrap();
    assert!(both.join().unwrap());
    before.join().unwrap();
    behind.join().unwrap();
    assert_eq!(*got.borrow(), [(0, 'a'), (1, 'b')]);
}

#[test]
fn what_was_handed_to_a_select_that_dies_goes_to_the_next() {
    let _guard = common::guard();
    for by_timeout in [false, true] {
        let (send, receive) = channel::unbounded();
        let turn = Rc::new(Event::auto_reset());
        let victim = |turn: Rc<Event>, never: channel::Receiver<i32>| {
            let body = move || select! { wait(turn) => true, recv(never) -> value => value.is_ok() };
            spawn(move || if by_timeout { timeout(Duration::from_millis(1), body).is_ok() } else { body() })
        };
        let (first, second) = (victim(Rc::clone(&turn), receive.clone()), victim(Rc::clone(&turn), receive.clone()));
        yield_now();
        if by_timeout {
            common::hog_until(Instant::now() + Duration::from_millis(3));
            turn.set();
            send.send(1).unwrap();
        } else {
            turn.set();
            send.send(1).unwrap();
            first.kill();
            second.kill();
        }
        let ended = [first.join(), second.join()].map(|end| end.unwrap_or(false));
        // Whoever did not get it left it for us.
        let left = [turn.wait_timeout(Duration::ZERO), receive.try_recv().is_ok()];
        let got = ended.iter().chain(&left).filter(|&&got| got).count();
        assert_eq!(got, 2, "{ended:?} {left:?}");
    }
}

#[test]
fn an_arm_that_sends_from_a_slot_gives_the_value_back() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded(1);
    let mut slot = Some(String::from("one"));
    select! { send_from(send, slot) -> sent => sent.unwrap(), after(LONG) => () }
    assert_eq!(slot, None);
    slot = Some(String::from("two"));
    select! { send_from(send, slot) -> _ => panic!("it is full"), after(Duration::from_millis(1)) => () }
    assert_eq!(slot.as_deref(), Some("two"));
    let unwound = timeout(Duration::from_millis(1), || select! { send_from(send, slot) -> _ => () });
    assert!(unwound.is_err());
    assert_eq!(slot.as_deref(), Some("two"));
    assert_eq!(receive.try_iter().collect::<Vec<_>>(), ["one"]);
    let mut empty = None;
    select! { send_from(send, empty) -> _ => panic!("there is nothing to send"), default => () }
}

#[test]
fn one_channel_may_stand_in_several_arms() {
    let _guard = common::guard();
    for biased in [true, false] {
        let (send, receive) = channel::rendezvous();
        let sender = spawn(move || {
            if biased {
                return select! {
                    biased;
                    send(send, 1) -> sent => sent.map(|()| 1),
                    send(send, 2) -> sent => sent.map(|()| 2),
                    send(send, 3) -> sent => sent.map(|()| 3),
                };
            }
            select! {
                send(send, 1) -> sent => sent.map(|()| 1),
                send(send, 2) -> sent => sent.map(|()| 2),
                send(send, 3) -> sent => sent.map(|()| 3),
            }
        });
        settle();
        // A biased one stands in the order in which it is written, a fair one in one that is drawn.
        let value = receive.recv().unwrap();
        assert!(if biased { value == 1 } else { (1..=3).contains(&value) });
        assert_eq!(sender.join().unwrap(), Ok(value));
        assert_eq!(receive.try_recv(), Err(TryRecvError::Disconnected), "one was sent, not three");
    }

    // Both sides of one rendezvous: it cannot meet itself.
    let (send, receive) = channel::rendezvous();
    let got = select! {
        recv(receive) -> _ => "received",
        send(send, 1) -> _ => "sent",
        after(Duration::from_millis(2)) => "alone",
    };
    assert_eq!(got, "alone");
    assert_eq!((receive.len(), send.try_send(1)), (0, Err(TrySendError::Full(1))));
    // Nor when something else makes it look again.
    let (other, ends) = channel::unbounded::<i32>();
    let thread = spawn(move || {
        select! {
            biased;
            recv(receive) -> _ => "received",
            send(send, 1) -> _ => "sent",
            recv(ends) -> value => if value.is_err() { "ended" } else { "other" },
        }
    });
    settle();
    drop(other);
    assert_eq!(thread.join().unwrap(), "ended");
}

#[test]
fn the_end_of_a_thread_is_waited_for_and_its_result_taken() {
    let _guard = common::guard();
    let never = Event::new();
    let thread = spawn(|| {
        sleep(Duration::from_millis(1));
        7
    });
    let got = select! { join(thread) -> result => result.unwrap(), wait(never) => 0 };
    assert_eq!(got, 7);
    let killed = spawn(thread::park);
    killed.kill();
    select! { end(killed) => (), wait(never) => panic!("never set") }
    assert!(killed.join().expect_err("killed").is_killed());
    let word = String::from("borrowed");
    thread::scope(|s| {
        let thread = s.spawn(|| word.len());
        let slow = s.spawn(|| sleep(Duration::from_millis(2)));
        let got = select! { join(thread) -> length => length.unwrap(), end(slow) => 0 };
        assert_eq!(got, 8);
        select! { end(slow) => (), after(LONG) => panic!("it sleeps for 2 ms") }
    });
}

#[test]
fn a_thread_that_waits_for_its_own_end_is_told_so() {
    let _guard = common::guard();
    let own: Rc<RefCell<Option<thread::JoinHandle<()>>>> = Rc::default();
    let (theirs, told) = (Rc::clone(&own), Rc::new(Cell::new(false)));
    let seen = Rc::clone(&told);
    let thread = spawn(move || {
        let handle = theirs.take().expect("left before it ran");
        let end = std::panic::AssertUnwindSafe(|| select! { end(handle) => (), after(LONG) => () });
        seen.set(std::panic::catch_unwind(end).is_err());
    });
    *own.borrow_mut() = Some(thread);
    settle();
    assert!(told.get());
}

#[test]
fn timers_go_off_in_their_order_and_never_early() {
    let _guard = common::guard();
    let begin = Instant::now();
    let (short, long) = (Duration::from_millis(4), Duration::from_millis(400));
    let got = select! { after(long) => "long", at(begin + short) => "short", after(LONG) => "never" };
    assert_eq!(got, "short");
    assert!(begin.elapsed() >= short);
    assert_eq!(select! { at(begin) => "past", after(LONG) => "never" }, "past");
    // What came in time wins over a timer that is over as well.
    common::in_virtual_time(|| {
        let (send, receive) = channel::unbounded();
        let thread = spawn(move || select! { recv(receive) -> value => value, after(short) => Err(RecvError) });
        yield_now();
        advance(2 * short);
        send.send(1).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(1));
    });
}

#[test]
fn sockets_are_waited_for_beside_channels() {
    let _guard = common::guard();
    let (ours, theirs) = sockets();
    let (send, receive) = channel::unbounded::<i32>();
    let log = Log::default();
    let notes = log.clone();
    let thread = spawn(move || {
        let mut theirs = theirs;
        loop {
            select! {
                readable(theirs) -> ready => {
                    ready.unwrap();
                    let mut buf = [0; 8];
                    match theirs.read(&mut buf).unwrap() {
                        0 => break notes.say("end"),
                        n => notes.say(String::from_utf8_lossy(&buf[..n])),
                    }
                }
                recv(receive) -> value => match value {
                    Ok(value) => notes.say(value),
                    Err(RecvError) => select! { readable(theirs) -> ready => ready.unwrap() },
                },
            }
        }
    });
    sleep(Duration::from_millis(2));
    for round in 1..=2 {
        (&ours).write_all(b"data").unwrap();
        sleep(Duration::from_millis(2));
        send.send(round).unwrap();
        settle();
    }
    assert_eq!(log.text(), "data 1 data 2");
    drop(send);
    drop(ours);
    thread.join().unwrap();
    assert_eq!(log.text(), "data 1 data 2 end");
}

#[test]
fn readable_asks_the_kernel_and_not_only_its_memory() {
    let _guard = common::guard();
    let (mut ours, mut theirs) = sockets();
    ours.write_all(b"ab").unwrap();
    // A full buffer: the hub still thinks that there may be more.
    theirs.read_exact(&mut [0; 2]).unwrap();
    let got = select! { readable(theirs) -> _ => "ready", default => "empty" };
    assert_eq!(got, "empty");
    let got = select! { readable(theirs) -> _ => "ready", after(Duration::from_millis(2)) => "empty" };
    assert_eq!(got, "empty");
    let got = select! { readable(theirs) -> _ => "ready", writable(theirs) -> ready => { ready.unwrap(); "room" } };
    assert_eq!(got, "room");
    ours.write_all(b"c").unwrap();
    sleep(Duration::from_millis(1));
    let got = select! { readable(theirs) -> ready => { ready.unwrap(); "ready" } default => "empty" };
    assert_eq!(got, "ready");
    theirs.close();
    assert!(select! { readable(theirs) -> ready => ready }.is_err());
}

#[test]
fn a_socket_that_is_closed_under_a_select_wakes_it_with_an_error() {
    let _guard = common::guard();
    let (_ours, theirs) = sockets();
    let theirs = Rc::new(theirs);
    let waits = Rc::clone(&theirs);
    let thread = spawn(move || select! { readable(waits) -> ready => ready, after(LONG) => Ok(()) });
    settle();
    theirs.close();
    assert_eq!(thread.join().unwrap().unwrap_err().kind(), std::io::ErrorKind::NotConnected);
}

#[test]
fn a_select_that_leaves_a_sockets_line_lets_the_next_reader_in() {
    let _guard = common::guard();
    let (ours, theirs) = sockets();
    let (theirs, stop) = (Rc::new(theirs), Rc::new(Event::new()));
    let (first, stopped) = (Rc::clone(&theirs), Rc::clone(&stop));
    let both = spawn(move || {
        select! {
            biased;
            wait(stopped) => "stopped",
            readable(first) -> _ => "readable",
        }
    });
    settle();
    let second = Rc::clone(&theirs);
    let reader = spawn(move || (&*second).read(&mut [0; 4]).unwrap());
    settle();
    let ours = std::net::TcpStream::from(ours);
    (&ours).write_all(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(2));
    stop.set();
    assert_eq!(both.join().unwrap(), "stopped");
    assert_eq!(timeout(Duration::from_secs(20), || reader.join().unwrap()), Ok(1));
}

#[test]
fn an_arm_that_accepts_yields_a_connection() {
    let _guard = common::guard();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = Rc::new(Event::new());
    let stopped = Rc::clone(&stop);
    let server = spawn(move || {
        let mut served = 0;
        loop {
            select! {
                accept(listener) -> accepted => {
                    accepted.unwrap().0.write_all(b"hi").unwrap();
                    served += 1;
                }
                wait(stopped) => return served,
            }
        }
    });
    for _ in 0..3 {
        let mut text = String::new();
        TcpStream::connect(addr).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
    }
    stop.set();
    assert_eq!(server.join().unwrap(), 3);
}

#[test]
fn bodies_may_break_return_and_use_what_other_arms_use() {
    let _guard = common::guard();
    fn first_even(receive: mpsc::Receiver<i32>) -> Result<i32, RecvError> {
        let mut odd = Vec::new();
        loop {
            select! {
                recv(receive) -> value => {
                    let value = value?;
                    if value % 2 == 0 {
                        break;
                    }
                    odd.push(value);
                    if odd.len() > 3 {
                        return Ok(-1);
                    }
                    continue;
                }
                after(LONG) => panic!("{:?}", receive.recv()),
            }
        }
        drop(receive);
        Ok(odd.into_iter().sum())
    }
    let run = |values: &[i32]| {
        let (send, receive) = mpsc::channel();
        values.iter().for_each(|value| send.send(*value).unwrap());
        drop(send);
        first_even(receive)
    };
    assert_eq!([run(&[1, 3, 4]), run(&[1, 3, 5, 7]), run(&[1])], [Ok(4), Ok(-1), Err(RecvError)]);
}

#[test]
fn sixteen_arms_are_the_most() {
    let _guard = common::guard();
    let c: Vec<_> = (0..16).map(|_| channel::unbounded::<usize>()).collect();
    let ends: Vec<_> = c.iter().map(|(_, receive)| receive.clone()).collect();
    let thread = spawn(move || {
        let r = &ends;
        (0..16)
            .map(|_| {
                select! {
                    recv(r[0]) -> v => v, recv(r[1]) -> v => v, recv(r[2]) -> v => v, recv(r[3]) -> v => v,
                    recv(r[4]) -> v => v, recv(r[5]) -> v => v, recv(r[6]) -> v => v, recv(r[7]) -> v => v,
                    recv(r[8]) -> v => v, recv(r[9]) -> v => v, recv(r[10]) -> v => v, recv(r[11]) -> v => v,
                    recv(r[12]) -> v => v, recv(r[13]) -> v => v, recv(r[14]) -> v => v, recv(r[15]) -> v => v,
                }
            })
            .collect::<Result<Vec<_>, _>>()
    });
    for number in (0..16).rev() {
        c[number].0.send(number).unwrap();
        settle();
    }
    assert_eq!(thread.join().unwrap().unwrap(), (0..16).rev().collect::<Vec<_>>());
}

#[test]
fn a_select_does_nothing_for_other_waits_of_the_thread() {
    let _guard = common::guard();
    common::in_virtual_time(|| {
        let (send, receive) = channel::unbounded();
        let semaphore = Rc::new(Semaphore::new(0));
        let theirs = Rc::clone(&semaphore);
        let thread = spawn(move || {
            let number = select! { recv(receive) -> value => value.unwrap(), after(Duration::from_millis(1)) => 0 };
            // The timer and the channel of before must not end this wait.
            let _permit = theirs.acquire();
            number
        });
        sleep(Duration::from_millis(4));
        send.send(1).unwrap();
        settle();
        assert!(!thread.is_finished());
        semaphore.release().unwrap();
        assert_eq!(thread.join().unwrap(), 0);
    });
}

/// What a thread panicked with.
fn panic_of(f: impl FnOnce() + 'static) -> String {
    let payload = spawn(f).join().expect_err("it panics").into_panic();
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| (*payload.downcast_ref::<&str>().unwrap()).to_owned())
}

#[test]
fn while_a_thread_unwinds_a_timer_goes_off_at_once_and_without_one_it_panics() {
    let _guard = common::guard();
    let log = Log::default();
    let notes = log.clone();
    let ended = spawn(move || {
        let (send, receive) = channel::bounded(1);
        let _late = OnDrop::new(move || {
            notes.say(select! { recv(receive) -> _ => "value", after(LONG) => "late", after(LONG * 2) => "later" });
            notes.say(select! { recv(receive) -> _ => "value", send(send, 1) -> _ => "sent" });
            let nothing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                select! { send(send, 2) -> _ => "sent" }
            }));
            notes.say(nothing.unwrap_or("refused"));
        });
        std::panic::resume_unwind(Box::new("down"));
    });
    assert!(ended.join().expect_err("it panics").is_panic());
    assert_eq!(log.text(), "late sent refused");
    let message = panic_of(|| {
        let (_send, receive) = channel::bounded::<i32>(1);
        no_switch(|| select! { recv(receive) -> _ => () });
    });
    assert!(message.contains("no_switch"), "{message}");
}

#[test]
fn a_select_that_no_thread_can_end_is_reported_as_a_deadlock_and_one_on_a_socket_is_not() {
    let _guard = common::guard();
    let name = "promises::a_select_that_no_thread_can_end_is_reported_as_a_deadlock_and_one_on_a_socket_is_not";
    let out = common::child(name, || {
        let (_ours, theirs) = sockets();
        let event = Event::new();
        let reader = spawn(move || select! { readable(theirs) -> _ => (), wait(event) => () });
        sleep(Duration::from_millis(1));
        eprintln!("no deadlock yet");
        reader.kill();
        let _ = reader.join();
        let event = Event::new();
        select! { wait(event) => () }
    });
    let text = common::stderr(&out);
    assert!(text.contains("no deadlock yet"), "{text}");
    assert!(text.contains("deadlock: ") && text.contains("main waits for the first of wait(event), "), "{text}");
}

#[test]
fn threads_in_a_select_end_with_their_os_thread() {
    let _guard = common::guard();
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let inside = std::sync::Arc::clone(&ended);
    std::thread::spawn(move || {
        let (send, receive) = channel::bounded(1);
        send.send(0).unwrap();
        for _ in 0..10 {
            let (send, receive, inside) = (send.clone(), channel::unbounded::<i32>(), std::sync::Arc::clone(&inside));
            drop(spawn(move || {
                let _mark = OnDrop::new(move || {
                    inside.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                });
                select! { send(send, 1) -> _ => (), recv(receive.1) -> _ => (), after(LONG) => () }
            }));
        }
        settle();
        std::mem::forget(receive);
    })
    .join()
    .unwrap();
    assert_eq!(ended.load(std::sync::atomic::Ordering::Relaxed), 10);
}

#[test]
fn a_select_spawns_nothing() {
    let _guard = common::guard();
    let before = greenling::hub::live_threads();
    let (send, receive) = channel::unbounded();
    let never = Event::new();
    let thread = spawn(move || select! { recv(receive) -> value => value.unwrap(), wait(never) => 0 });
    settle();
    assert_eq!(greenling::hub::live_threads(), before + 1, "it spawns nothing");
    send.send(1).unwrap();
    assert_eq!(thread.join().unwrap(), 1);
    assert_eq!(greenling::hub::live_threads(), before);
}

#[test]
fn a_greenlet_that_is_dropped_in_a_select_leaves_its_lines() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let (theirs, never) = (receive.clone(), Rc::new(Event::new()));
    let thread = spawn(move || {
        let greenlet = Greenlet::new(move |number: i32| {
            select! {
                wait(never) => number,
                recv(theirs) -> value => value.unwrap(),
            }
        });
        greenlet.switch(1)
    });
    settle();
    // The thread goes, and the last handle with it.
    thread.kill();
    assert!(thread.join().expect_err("killed").is_killed());
    settle();
    send.send(5).unwrap();
    assert_eq!(receive.try_recv(), Ok(5));
}

/// A sender that is used when the OS thread is past its end.
struct Late(channel::Sender<i32>);

impl Drop for Late {
    fn drop(&mut self) {
        // Whoever stood in line there is given up, but still in place.
        let _ = self.0.try_send(1);
        self.0.close();
    }
}

thread_local! {
    /// Dropped by the OS thread's end, before or after the hub.
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

#[test]
fn the_nodes_of_a_thread_that_cannot_be_unwound_stay_in_place() {
    let _guard = common::guard();
    for before_the_hub in [true, false] {
        let ended = std::thread::spawn(move || {
            if before_the_hub {
                LATE.set(None);
            }
            let (send, receive) = channel::rendezvous();
            drop(spawn(move || {
                loop {
                    let wait = std::panic::AssertUnwindSafe(
                        || select! { recv(receive) -> value => if value.is_err() { thread::park() }, after(LONG) => () },
                    );
                    let _ = std::panic::catch_unwind(wait);
                }
            }));
            settle();
            LATE.set(Some(Late(send)));
        });
        ended.join().unwrap();
    }
}

#[test]
fn sockets_and_pipes_of_all_kinds_can_be_arms() {
    let _guard = common::guard();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let first = || {
        select! {
            readable(udp) -> ready => ready.map(|()| "datagram"),
            readable(stream) -> ready => ready.map(|()| "stream"),
            readable(reader) -> ready => ready.map(|()| "pipe"),
            after(LONG) => Ok("nothing"),
        }
        .unwrap()
    };
    udp.send_to(b"d", udp.local_addr().unwrap()).unwrap();
    assert_eq!(first(), "datagram");
    udp.recv(&mut [0]).unwrap();
    let late = spawn(move || {
        peer.write_all(b"s").unwrap();
        peer
    });
    assert_eq!(first(), "stream");
    drop(late.join().unwrap());
    (&stream).read_exact(&mut [0]).unwrap();
    let first = || select! { readable(udp) => "datagram", readable(reader) => "pipe", after(LONG) => "nothing" };
    let late = spawn(move || {
        writer.write_all(b"p").unwrap();
        writer
    });
    assert_eq!(first(), "pipe");
    let writer = late.join().unwrap();
    assert_eq!(select! { writable(writer) => "room", after(LONG) => "nothing" }, "room");
}
