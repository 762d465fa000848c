//! What a `Select` promises: the guarantees of `select!`, for sets of any size that are known when the program runs.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::{self, Log, OnDrop, settle};
use greenling::channel::{self, BroadcastError, RecvError, SendError, TryRecvError};
use greenling::io::{Registered, pipe};
use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::os::unix::net::UnixStream;
use greenling::process::Command;
use greenling::signal::{SIGUSR2, Signals};
use greenling::sim::advance;
use greenling::sync::{AsyncResult, Event, Semaphore, WaitGroup, mpsc};
use greenling::thread;
use greenling::{Select, hub, no_switch, select, sleep, spawn, timeout};
use nix::sys::signal::{Signal, raise};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(3);

#[test]
fn one_arm_goes_on_and_leaves_the_set_and_the_others_have_done_nothing() {
    let _guard = common::guard();
    let (a, b, full) = (channel::unbounded(), channel::unbounded(), channel::rendezvous());
    let mut slot = Some("mine");
    let mut select = Select::new();
    select.recv(&a.1, |value| value.map(|n: i32| n.to_string()).unwrap());
    select.recv(&b.1, |value: Result<String, RecvError>| value.unwrap());
    select.send_from(&full.0, &mut slot, |_| unreachable!("no receiver waits"));
    assert_eq!((select.try_select(), select.len()), (None, 3));
    b.0.send("b".to_owned()).unwrap();
    assert_eq!((select.select().as_str(), select.len()), ("b", 2));
    b.0.send("again".to_owned()).unwrap();
    assert_eq!(select.try_select(), None, "it is waited for once");
    a.0.send(7).unwrap();
    assert_eq!((select.try_select().as_deref(), select.len()), (Some("7"), 1));
    assert_eq!(full.1.try_recv(), Err(TryRecvError::Empty), "the line is empty");
    drop(select);
    assert_eq!((slot, b.1.try_recv().as_deref()), (Some("mine"), Ok("again")));
}

#[test]
fn hundreds_of_arms_are_waited_for_and_each_value_arrives_once() {
    let _guard = common::guard();
    const CHANNELS: usize = 500;
    const EACH: usize = 4;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..CHANNELS).map(|_| channel::bounded(1)).unzip();
    let threads: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(n, send)| spawn(move || (0..EACH).for_each(|value| send.send(n * EACH + value).unwrap())))
        .collect();
    let mut select = Select::new();
    let mut got = vec![0; CHANNELS * EACH];
    for (n, receiver) in receivers.iter().enumerate() {
        select.recv(receiver, move |value| (n, value));
    }
    while !select.is_empty() {
        let (n, value) = select.select();
        if let Ok(value) = value {
            assert_eq!(value / EACH, n);
            got[value] += 1;
            select.recv(&receivers[n], move |value| (n, value));
        }
    }
    assert!(got.iter().all(|&times| times == 1));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn all_kinds_of_things_can_be_in_a_set() {
    let _guard = common::guard();
    let log = Log::default();
    let said = |word: &'static str| {
        let log = log.clone();
        move || log.say(word)
    };
    // Channels of all kinds, and signals.
    let sync = mpsc::sync_channel(2);
    let (plain, std, cast, remote) = (channel::lifo(), mpsc::channel(), channel::broadcast(1), hub::channel(None));
    let signals = Signals::new([SIGUSR2]).unwrap();
    plain.0.send(1_u8).unwrap();
    std.0.send("std").unwrap();
    cast.0.send(2.5).unwrap();
    remote.0.send('r').unwrap();
    raise(Signal::SIGUSR2).unwrap();
    let mut select = Select::biased();
    select.recv(&plain.1, |value| log.say(value.unwrap()));
    select.recv(&std.1, |value| log.say(value.unwrap()));
    select.recv(&cast.1, |value: Result<_, BroadcastError>| log.say(value.unwrap()));
    select.recv(&remote.1, |value| log.say(value.unwrap()));
    select.recv(&signals, |signal| log.say(signal.unwrap()));
    (0..5).for_each(|_| select.select_timeout(Duration::from_secs(10)).unwrap());
    assert!(select.is_empty());
    // Senders of all kinds.
    let (mut slot, mut other, mut third) = (Some(3), Some("again"), Some('s'));
    select.send(&plain.0, 2, |sent| sent.unwrap());
    select.send_from(&plain.0, &mut slot, |sent| sent.unwrap());
    select.send(&std.0, "more", |sent| sent.unwrap());
    select.send(&sync.0, "once", |sent| sent.unwrap());
    select.send_from(&sync.0, &mut other, |sent| sent.unwrap());
    select.send(&remote.0, 'q', |sent| sent.unwrap());
    select.send_from(&remote.0, &mut third, |sent| sent.unwrap());
    (0..7).for_each(|_| select.select());
    assert_eq!((plain.1.try_iter().collect::<Vec<_>>(), std.1.try_recv()), (vec![3, 2], Ok("more")));
    assert_eq!(sync.1.try_iter().collect::<Vec<_>>(), ["once", "again"]);
    assert_eq!((remote.1.try_recv(), remote.1.try_recv()), (Ok('q'), Ok('s')));
    drop(select);
    assert_eq!((slot, other, third), (None, None, None));
    // Ends, events and the like.
    let (event, group, result, semaphore) =
        (Event::new(), WaitGroup::new(), AsyncResult::<u8>::new(), Semaphore::new(1));
    event.set();
    result.set(9).unwrap();
    let thread = spawn(|| 5);
    let far = hub::handle().spawn(|| 6);
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    let handle = child.handle();
    let mut select = Select::biased();
    select.wait(&event, |()| log.say("event"));
    select.wait(&group, |()| log.say("group"));
    select.wait(&result, |value| log.say(value.unwrap()));
    select.wait(&semaphore, |permit| {
        permit.forget();
        log.say("permit");
    });
    (0..4).for_each(|_| select.select());
    select.end(&thread, |()| log.say("thread"));
    select.select();
    select.end(&far, |()| log.say("far"));
    select.select();
    select.wait(&handle, |status| log.say(status.unwrap().success()));
    select.select();
    select.wait(&child, |status| log.say(status.unwrap().success()));
    select.select();
    drop(select);
    assert_eq!((thread.join().unwrap(), far.join().unwrap(), semaphore.available_permits()), (5, 6, 0));
    assert!(child.wait().unwrap().success());
    thread::scope(|s| {
        let scoped = s.spawn(|| event.is_set());
        let mut select = Select::new();
        select.end(&scoped, |()| ());
        select.select();
        drop(select);
        assert!(scoped.join().unwrap());
    });
    let tried = thread::try_scope(|s| {
        let scoped = s.spawn(|| Ok::<_, ()>(7));
        let mut select = Select::new();
        select.end(&scoped, |()| ());
        select.select();
        Ok(())
    });
    assert_eq!(tried, Ok(()));
    // Time.
    let mut select = Select::new();
    select.after(LONG, said("never"));
    select.at(Instant::now() + SHORT, said("soon"));
    select.select();
    drop(select);
    assert_eq!(log.text(), "1 std 2.5 r SIGUSR2 event group 9 permit thread far true true soon");
}

#[test]
fn descriptors_of_all_kinds_can_be_in_a_set() {
    let _guard = common::guard();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (unix, mut peer) = UnixStream::pair().unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let near = Registered::new(near).unwrap();
    let mut select = Select::new();
    select.accept(&listener, |accepted| drop(accepted.unwrap()));
    select.readable(&udp, |ready| ready.unwrap());
    select.readable(&unix, |ready| ready.unwrap());
    select.readable(&reader, |ready| ready.unwrap());
    select.readable(&near, |ready| ready.unwrap());
    assert!(select.try_select().is_none());
    assert!(select.select_timeout(SHORT).is_none());
    let all = spawn(move || {
        let stream = TcpStream::connect(addr).unwrap();
        peer.write_all(b"u").unwrap();
        writer.write_all(b"p").unwrap();
        far.write_all(b"f").unwrap();
        (stream, peer, writer, far)
    });
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"d", udp.local_addr().unwrap()).unwrap();
    (0..5).for_each(|_| select.select_timeout(Duration::from_secs(10)).unwrap());
    assert!(select.is_empty());
    let (stream, ..) = all.join().unwrap();
    let mut select = Select::new();
    select.writable(&unix, |ready| ready.unwrap());
    select.writable(&stream, |ready| ready.unwrap_or_default());
    (0..2).for_each(|_| select.select());
}

#[test]
fn ends_of_channels_are_something_to_go_on_with_and_values_come_back() {
    let _guard = common::guard();
    let (send, receive) = channel::rendezvous::<i32>();
    let mut slot = Some(1);
    drop(receive);
    let mut select = Select::new();
    select.send(&send, 2, |sent| assert_eq!(sent, Err(SendError(2))));
    select.send_from(&send, &mut slot, |sent| assert_eq!(sent, Err(SendError(1))));
    (0..2).for_each(|_| select.select());
    let (send, receive) = channel::unbounded::<i32>();
    let waits = spawn(move || {
        let mut select = Select::new();
        select.recv(&receive, |value| value);
        select.select()
    });
    settle();
    drop(send);
    assert_eq!(waits.join().unwrap(), Err(RecvError));
}

#[test]
fn time_limits_end_a_wait_and_what_is_ready_wins() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let event = Event::new();
    let begin = Instant::now();
    let mut select = Select::new();
    assert_eq!(select.select_timeout(SHORT), None);
    assert!(begin.elapsed() >= SHORT, "an empty set waits as well");
    select.recv(&receive, |value| value.unwrap());
    select.wait(&event, |()| 0);
    let begin = Instant::now();
    assert_eq!(select.select_timeout(SHORT), None);
    assert!(begin.elapsed() >= SHORT);
    assert_eq!(select.select_deadline(begin + 3 * SHORT), None);
    assert!(begin.elapsed() >= 3 * SHORT);
    assert_eq!((select.len(), send.len()), (2, 0));
    assert_eq!(
        no_switch(|| (select.try_select(), select.select_timeout(Duration::ZERO), select.select_deadline(begin))),
        (None, None, None)
    );
    // The arms are as they were: the same set goes on.
    send.send(5).unwrap();
    assert_eq!(select.select_timeout(Duration::ZERO), Some(5));
    event.set();
    assert_eq!(select.select_deadline(begin), Some(0));
    drop(select);
    common::in_virtual_time(|| {
        let (send, receive) = channel::unbounded();
        let late = spawn(move || {
            let mut select = Select::new();
            select.recv(&receive, |value| value.unwrap());
            select.select_timeout(SHORT)
        });
        settle();
        advance(2 * SHORT);
        send.send(6).unwrap();
        assert_eq!(late.join().unwrap(), Some(6), "it came in the turn in which the time was over");
    });
}

#[test]
fn a_set_is_whole_after_a_kill_and_a_timeout_and_nothing_is_lost() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let (full, theirs, event) = (channel::rendezvous(), receive.clone(), Rc::new(Event::auto_reset()));
    let (sender, waited) = (full.0.clone(), Rc::clone(&event));
    let log = Log::default();
    let notes = log.clone();
    let thread = spawn(move || {
        let mut slot = Some("sent later");
        let mut select = Select::new();
        select.recv(&theirs, |value| format!("received {}", value.unwrap()));
        select.wait(&waited, |()| "event".to_owned());
        select.send_from(&sender, &mut slot, |sent| format!("{sent:?}"));
        // Swallowed, and raised anew by the next wait; in between the set is asked without one.
        let killed = catch_unwind(AssertUnwindSafe(|| select.select())).expect_err("killed");
        notes.say(select.len());
        notes.say(no_switch(|| select.try_select()).unwrap_or_default());
        notes.say(select.len());
        resume_unwind(killed);
    });
    settle();
    // It was handed a value when the kill comes: that goes back.
    no_switch(|| send.send(1)).unwrap();
    thread.kill();
    settle();
    assert!(thread.join().is_err_and(|error| error.is_killed()));
    assert_eq!(log.text(), "3 received 1 2");
    assert_eq!((receive.try_recv(), full.1.try_recv()), (Err(TryRecvError::Empty), Err(TryRecvError::Empty)));
    event.set();
    assert!(event.is_set(), "its line is empty");
    event.clear();
    let outer = timeout(SHORT, || {
        let mut select = Select::new();
        select.recv(&receive, |value| value.unwrap());
        select.wait(&event, |()| 0);
        select.select_timeout(LONG)
    });
    assert!(outer.is_err());
    send.send(2).unwrap();
    event.set();
    assert_eq!((receive.try_recv(), event.is_set()), (Ok(2), true));
}

#[test]
fn what_a_set_was_handed_goes_to_the_next_if_it_dies() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let threads: Vec<_> = (0..3)
        .map(|n| {
            let receive = receive.clone();
            spawn(move || {
                let mut select = Select::new();
                select.recv(&receive, move |value| (n, value.unwrap()));
                select.after(LONG, move || (n, -1));
                select.select()
            })
        })
        .collect();
    settle();
    no_switch(|| send.send(0)).unwrap();
    threads[0].kill();
    send.send(1).unwrap();
    settle();
    let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().ok()).collect();
    assert_eq!(ended, [None, Some((1, 0)), Some((2, 1))]);
}

#[test]
fn a_set_stands_in_line_like_any_waiter() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let log = Log::default();
    let threads: Vec<_> = (0..6)
        .map(|number| {
            let (receive, log) = (receive.clone(), log.clone());
            spawn(move || {
                let value: i32 = match number % 3 {
                    0 => {
                        let mut select = Select::new();
                        select.after(LONG, || -1);
                        select.recv(&receive, |value| value.unwrap());
                        select.select()
                    }
                    1 => select! { recv(receive) -> value => value.unwrap(), after(LONG) => -1 },
                    _ => receive.recv().unwrap(),
                };
                log.say(format_args!("{number}:{value}"));
            })
        })
        .collect();
    settle();
    (0..6).for_each(|n| send.send(n).unwrap());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.text(), "0:0 1:1 2:2 3:3 4:4 5:5");
}

#[test]
fn the_closure_runs_outside_of_the_wait_and_may_wait_itself() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    let other = channel::unbounded();
    let theirs = receive.clone();
    let thread = spawn(move || {
        let mut select = Select::new();
        let end = &other.1;
        select.recv(end, |_: Result<i32, _>| 0);
        select.recv(&theirs, |value| {
            sleep(SHORT);
            value.unwrap() + theirs.recv().unwrap()
        });
        // While the closure waits, the other arms stand in no line.
        let sum = select.select();
        (sum, select.len())
    });
    settle();
    send.send(1).unwrap();
    settle();
    send.send(2).unwrap();
    assert_eq!(thread.join().unwrap(), (3, 1));
    // A closure that panics takes its value with it, and leaves the others.
    let ended = Rc::new(Cell::new(0));
    let value = |ended: &Rc<Cell<i32>>| {
        let ended = Rc::clone(ended);
        OnDrop::new(move || ended.set(ended.get() + 1))
    };
    let values = channel::unbounded();
    values.0.send(value(&ended)).unwrap_or_else(|_| unreachable!("it is open"));
    let mut select = Select::new();
    select.recv(&values.1, |_value| resume_unwind(Box::new(())));
    select.recv(&receive, |_| ());
    assert!(catch_unwind(AssertUnwindSafe(|| select.select())).is_err());
    assert_eq!((ended.get(), select.len()), (1, 1));
}

#[test]
fn an_empty_set_and_one_that_may_not_wait_say_so() {
    let _guard = common::guard();
    let empty = catch_unwind(|| Select::<()>::new().select()).expect_err("nothing could end it");
    assert!(empty.downcast_ref::<&str>().is_some_and(|text| text.contains("without arms")));
    assert!(Select::<()>::default().try_select().is_none());
    let log = Log::default();
    let notes = log.clone();
    let ended = spawn(move || {
        let (_send, receive) = channel::unbounded::<i32>();
        let _late = OnDrop::new(move || {
            let mut select = Select::new();
            select.recv(&receive, |_| "value");
            notes.say(select.select_timeout(LONG).unwrap_or("limit"));
            let refused = catch_unwind(AssertUnwindSafe(|| select.select()));
            notes.say(refused.unwrap_or("refused"));
            select.after(LONG, || "after");
            notes.say(select.select());
        });
        resume_unwind(Box::new("down"));
    });
    assert!(ended.join().is_err());
    assert_eq!(log.text(), "limit refused after");
    let own: Rc<RefCell<Option<thread::JoinHandle<()>>>> = Rc::default();
    let (theirs, told) = (Rc::clone(&own), Rc::new(Cell::new(false)));
    let seen = Rc::clone(&told);
    let thread = spawn(move || {
        let handle = theirs.take().expect("left before it ran");
        let mut select = Select::new();
        select.end(&handle, |()| ());
        seen.set(catch_unwind(AssertUnwindSafe(|| select.select())).is_err());
    });
    *own.borrow_mut() = Some(thread);
    settle();
    assert!(told.get(), "it cannot wait for its own end");
}

#[test]
fn a_set_that_no_thread_can_end_is_reported_as_a_deadlock() {
    let _guard = common::guard();
    let out = common::child("set::a_set_that_no_thread_can_end_is_reported_as_a_deadlock", || {
        let event = Event::new();
        let mut select = Select::new();
        select.wait(&event, |()| ());
        select.select();
    });
    let text = common::stderr(&out);
    assert!(text.contains("deadlock: ") && text.contains("main waits for the first of the arms of a Select"), "{text}");
}

#[test]
fn sets_end_with_their_os_thread() {
    let _guard = common::guard();
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let inside = std::sync::Arc::clone(&ended);
    std::thread::spawn(move || {
        let (send, receive) = channel::bounded(1);
        send.send(0).unwrap();
        for _ in 0..10 {
            let (send, inside) = (send.clone(), std::sync::Arc::clone(&inside));
            let nothing = channel::unbounded::<i32>();
            drop(spawn(move || {
                let _mark = OnDrop::new(move || {
                    inside.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                });
                let mut select = Select::new();
                select.send(&send, 1, |_| ());
                select.recv(&nothing.1, |_| ());
                select.after(LONG, || ());
                select.select();
            }));
        }
        settle();
        std::mem::forget(receive);
        hub::shutdown();
    })
    .join()
    .unwrap();
    assert_eq!(ended.load(std::sync::atomic::Ordering::Relaxed), 10);
}

#[test]
fn many_arms_of_one_channel_are_a_set_too() {
    let _guard = common::guard();
    const ARMS: usize = 300;
    let (send, receive) = channel::rendezvous();
    let thread = spawn(move || {
        let mut select = Select::new();
        for n in 0..ARMS {
            select.send(&send, n, move |sent| sent.map(|()| n));
        }
        (0..ARMS).map(|_| select.select().unwrap()).collect::<Vec<_>>()
    });
    settle();
    let mut got: Vec<_> = (0..ARMS).map(|_| receive.recv().unwrap()).collect();
    assert_eq!(thread.join().unwrap(), got);
    got.sort_unstable();
    assert_eq!(got, (0..ARMS).collect::<Vec<_>>());
    assert_eq!(receive.recv(), Err(RecvError));
    // What is read is there once.
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"xy").unwrap();
    drop(writer);
    let mut text = String::new();
    let mut select = Select::new();
    (0..3).for_each(|_| select.readable(&reader, |ready| ready.unwrap()));
    select.select();
    (&reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "xy");
}
