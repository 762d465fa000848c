//! What may be written in a `select!`: any expression, evaluated once, in order, before the wait; commas; time limits.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::{self, Log, OnDrop, settle};
use greenling::channel::{self, Receiver, Sender};
use greenling::io::{PipeReader, PipeWriter, pipe};
use greenling::net::{TcpListener, TcpStream};
use greenling::process::Command;
use greenling::sim::advance;
use greenling::sync::{AsyncResult, Event, Semaphore, WaitGroup};
use greenling::thread::JoinHandle;
use greenling::time::{Interval, interval};
use greenling::{hub, no_switch, select, sleep, spawn, timeout};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(3);

/// Something with ends of channels in it, as programs have them.
struct Conn {
    /// Where it receives.
    rx: Receiver<u8>,
    /// Where it sends.
    tx: Sender<u8>,
}

impl Conn {
    /// A channel to itself.
    fn new(capacity: usize) -> Conn {
        let (tx, rx) = channel::bounded(capacity);
        Conn { rx, tx }
    }

    /// An end of its own for the caller.
    fn rx(&self) -> Receiver<u8> {
        self.rx.clone()
    }

    /// The same.
    fn tx(&self) -> Sender<u8> {
        self.tx.clone()
    }
}

#[test]
fn an_arm_takes_any_expression_and_what_it_makes_lives_for_the_whole_wait() {
    let _guard = common::guard();
    let conn = Conn::new(1);
    conn.tx.send(1).unwrap();
    assert_eq!(select! { recv(conn.rx()) -> value => value, default => Ok(0) }, Ok(1));
    let shared = Rc::new(RefCell::new(conn));
    let never = || Event::new();
    // Sent and received by temporaries, without a wait and after one.
    let sent = select! { send(shared.borrow().tx(), 1 + 1) -> sent => sent.is_ok(), wait(never()) => false };
    assert!(sent);
    let waits = Rc::clone(&shared);
    let thread = spawn(move || {
        select! {
            send(waits.borrow().tx, u8::try_from(3).unwrap()) -> sent => sent.is_ok(),
            wait(Event::new()) => false,
            after(LONG) => false,
        }
    });
    settle();
    assert!(shared.try_borrow_mut().is_err(), "it is borrowed for as long as the wait takes");
    assert_eq!(select! { recv(shared.borrow().rx) -> value => value, wait(never()) => Ok(0) }, Ok(2));
    assert!(thread.join().unwrap());
    assert!(shared.try_borrow_mut().is_ok());
    assert_eq!(
        select! { recv(shared.borrow().rx()) -> value => value, after(Duration::from_secs(1) * 60) => Ok(0) },
        Ok(3)
    );
    let (mut slots, mut none) = (vec![None, Some(9)], None);
    assert!(
        select! { send_from(shared.borrow().tx, none) => false, send_from(shared.borrow().tx(), slots[1]) => true }
    );
    assert_eq!((shared.borrow().rx.try_recv(), slots), (Ok(9), vec![None, None]));
}

#[test]
fn so_do_the_arms_of_all_kinds() {
    let _guard = common::guard();
    struct All {
        event: Event,
        group: WaitGroup,
        result: AsyncResult<u8>,
        semaphore: Semaphore,
        thread: JoinHandle<u8>,
        ticks: Interval,
    }
    let set = || {
        let event = Event::new();
        event.set();
        event
    };
    assert!(select! { wait(set()) => true, after(LONG) => false });
    assert!(select! { wait(WaitGroup::new()) => true, after(LONG) => false });
    assert!(select! { wait(Event::new()) => false, after(SHORT + SHORT) => true });
    assert!(select! { at(Instant::now() + SHORT) => true, after(LONG) => false });
    assert_eq!(select! { join(spawn(|| 5)) -> result => result.unwrap(), after(LONG) => 0 }, 5);
    assert!(select! { end(spawn(|| 5)) => true, after(LONG) => false });
    assert_eq!(select! { join(hub::handle().spawn(|| 6)) -> result => result.unwrap(), after(LONG) => 0 }, 6);
    let mut threads = vec![spawn(|| 7), spawn(|| 8)];
    assert_eq!(select! { join(threads.pop().unwrap()) -> result => result.unwrap(), wait(Event::new()) => 0 }, 8);
    assert_eq!(threads.len(), 1);
    let mut all = All {
        event: Event::new(),
        group: WaitGroup::new(),
        result: AsyncResult::new(),
        semaphore: Semaphore::new(1),
        thread: spawn(|| 9),
        ticks: interval(SHORT),
    };
    let start = all.ticks.tick();
    all.group.add(1);
    // Fields, each of which loses once: what it is stays as it was.
    assert!(select! { biased; wait(all.semaphore) => true, end(all.thread) => false, tick(all.ticks) => false });
    assert_eq!(select! { tick(all.ticks) -> due => due, wait(all.event) => start }, start + SHORT);
    let ticks = &mut all.ticks;
    assert_eq!(select! { tick(*ticks) -> due => due, wait(all.group) => start }, start + 2 * SHORT);
    all.result.set(3).unwrap();
    assert_eq!(select! { wait(all.result) -> value => *value.unwrap(), wait(all.event) => 0 }, 3);
    assert_eq!(select! { join(all.thread) -> result => result.unwrap(), wait(all.event) => 0 }, 9);
    // Descriptors.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _ours = connect();
    let handle = || &listener;
    assert!(select! { accept(handle()) -> accepted => accepted.is_ok(), after(LONG) => false });
    assert!(select! { writable(connect()) -> ready => ready.is_ok(), after(LONG) => false });
    let filled = || -> PipeReader {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        reader
    };
    assert!(select! { readable(filled()) -> ready => ready.is_ok(), after(LONG) => false });
    let pipes: (PipeReader, PipeWriter) = pipe().unwrap();
    assert!(select! { readable(pipes.0) => false, writable(pipes.1) => true });
    assert!(select! { wait(Command::new("true").spawn().unwrap()) -> status => status.unwrap().success() });
}

#[test]
fn each_expression_is_evaluated_once_in_order_and_before_the_wait() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded::<u8>(1);
    let (event, full) = (Event::new(), channel::rendezvous::<u8>());
    let mut slot = Some(1);
    let mut ticks = interval(LONG);
    ticks.tick();
    fn say<T>(log: &Log, word: &str, value: T) -> T {
        log.say(word);
        value
    }
    for ready in [false, true] {
        let log = Log::default();
        if ready {
            send.send(7).unwrap();
        }
        let got = select! {
            send(say(&log, "sender", &full.0), say(&log, "value", 1)) -> _ => 0,
            default(after: say(&log, "limit", SHORT)) => 1,
            recv(say(&log, "receiver", &receive)) -> value => value.unwrap(),
            send_from(say(&log, "sender", &full.0), *say(&log, "slot", &mut slot)) -> _ => 0,
            wait(say(&log, "event", &event)) => 0,
            tick(*say(&log, "ticks", &mut ticks)) => 0,
            join(say(&log, "thread", spawn(|| sleep(LONG)))) => 0,
            after(say(&log, "after", LONG)) => 0,
        };
        assert_eq!(got, if ready { 7 } else { 1 });
        assert_eq!(log.text(), "sender value limit receiver sender slot event ticks thread after");
        assert_eq!(slot, Some(1), "its arm did not win");
    }
}

#[test]
fn temporaries_end_after_the_wait_and_before_the_body() {
    let _guard = common::guard();
    struct Noting(Receiver<u8>, Log, &'static str);
    impl Noting {
        fn rx(&self) -> &Receiver<u8> {
            &self.0
        }
    }
    impl Drop for Noting {
        fn drop(&mut self) {
            self.1.say(self.2);
        }
    }
    let log = Log::default();
    let conn = Conn::new(1);
    let _also = OnDrop::new(settle);
    let sender = spawn({
        let (tx, log) = (conn.tx(), log.clone());
        move || {
            log.say("sent");
            tx.send(1).unwrap()
        }
    });
    let make = |name| Noting(conn.rx(), log.clone(), name);
    select! {
        recv(make("first").rx()) -> _ => log.say("body"),
        recv(make("second").rx()) -> _ => log.say("body"),
    }
    assert_eq!(log.text(), "sent second first body");
    sender.join().unwrap();
}

#[test]
fn commas_may_stand_where_rust_lets_them_stand() {
    let _guard = common::guard();
    let (send, receive) = channel::bounded::<u8>(1);
    let (event, never) = (Event::new(), Event::new());
    let mut slot = Some(2);
    let got = select! {
        recv(receive,) -> value => value.unwrap(),
        wait(never,) => 0,
        after(LONG,) => 0,
        at(Instant::now() + LONG,) => 0,
        send(send, 1,) -> sent => { sent.unwrap(); 1 },
    };
    assert_eq!(got, 1);
    assert_eq!(select! { send_from(send, slot,) => 0, recv(receive,) -> value => value.unwrap(), }, 1);
    assert_eq!(
        select! { biased; send_from(send, slot,) => { 5 } recv(receive) => 6 },
        5,
        "no comma behind an expression at the end"
    );
    let thread = spawn(|| 3);
    assert_eq!(select! { join(thread,) -> result => { result.unwrap() } default(after: LONG,) => { 0 } }, 3);
    // A block needs none, also the last and the default.
    assert_eq!(select! { wait(event) => { 1 } default => { 2 } recv(receive) -> value => { value.unwrap() } }, 2);
    assert_eq!(select! { wait(event) => 1, default() => 4 }, 4);
    assert_eq!(select! { default() => { 4 } wait(event) => 1, }, 4);
    assert_eq!(select! { wait(event) => 1, default(at: Instant::now(),) => 8, }, 8);
}

#[test]
fn an_arm_that_yields_nothing_may_have_a_pattern_and_one_that_yields_a_value_none() {
    let _guard = common::guard();
    let (event, conn) = (Event::new(), Conn::new(2));
    event.set();
    conn.tx.send(1).unwrap();
    conn.tx.send(2).unwrap();
    select! { wait(event) -> () => (), after(LONG) -> () => panic!("set") }
    select! { recv(conn.rx) => (), after(LONG) => panic!("a value is there") }
    select! { recv(conn.rx) -> Ok(2) | Ok(_) | Err(_) => (), after(LONG) => panic!("a value is there") }
    assert!(conn.rx.is_empty());
}

// ---- the time limit -------------------------------------------------------------------------------------------------

#[test]
fn a_time_limit_is_taken_only_if_nothing_else_can_go_on_when_it_is_over() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded();
    // It is over before anything is ready, and never early.
    let begin = Instant::now();
    assert!(select! { recv(receive) -> _ => false, default(after: SHORT) => true });
    assert!(begin.elapsed() >= SHORT);
    assert!(select! { recv(receive) -> _ => false, default(at: Instant::now() + SHORT) => true });
    // What is ready wins, always: also with no time at all.
    for n in 0..1000 {
        send.send(n).unwrap();
        let limit = if n % 2 == 0 { Duration::ZERO } else { LONG };
        assert_eq!(select! { default(after: limit) => None, recv(receive) -> value => value.ok() }, Some(n));
        send.send(n).unwrap();
        assert_eq!(select! { default(at: Instant::now()) => None, recv(receive) -> value => value.ok() }, Some(n));
    }
    // Also an arm whose time is over: it is an arm.
    for _ in 0..100 {
        assert!(select! { after(Duration::ZERO) => true, default(after: Duration::ZERO) => false });
        let soon = Instant::now() + Duration::from_micros(50);
        assert!(select! { at(soon) => true, default(at: soon) => false });
    }
    // And what comes while it waits.
    common::in_virtual_time(|| {
        let (send, receive) = channel::unbounded();
        let thread = spawn(move || select! { recv(receive) -> value => value.ok(), default(after: SHORT) => None });
        settle();
        advance(2 * SHORT);
        send.send(7).unwrap();
        assert_eq!(thread.join().unwrap(), Some(7), "it came in the turn in which the time was over");
    });
}

#[test]
fn a_value_from_another_os_thread_wins_at_the_end_of_the_time_limit() {
    let _guard = common::guard();
    // Another OS thread's letter comes together with the time.
    for _ in 0..20 {
        let got = common::undisturbed(|| {
            let begin = Instant::now();
            let (send, receive) = hub::channel(None);
            let thread = spawn(move || select! { recv(receive) -> value => value.ok(), default(after: SHORT) => None });
            settle();
            let is_in_time =
                std::thread::spawn(move || send.send(7).is_ok()).join().unwrap() && begin.elapsed() < SHORT;
            common::hog_until(Instant::now() + 2 * SHORT);
            let got = thread.join().unwrap();
            is_in_time.then_some(got)
        });
        assert_eq!(got, Some(7));
    }
}

#[test]
fn with_a_time_limit_of_zero_it_does_not_wait() {
    let _guard = common::guard();
    let conn = Conn::new(1);
    let zero = Duration::ZERO;
    assert!(no_switch(|| select! { recv(conn.rx) -> _ => false, default(after: zero) => true }));
    assert!(no_switch(|| select! { recv(conn.rx) -> _ => false, default(at: Instant::now()) => true }));
    let ran = Rc::new(Cell::new(false));
    let other = spawn({
        let ran = Rc::clone(&ran);
        move || ran.set(true)
    });
    assert!(no_switch(|| select! { recv(conn.rx) -> _ => false, default(after: zero) => !ran.get() }));
    other.join().unwrap();
}

#[test]
fn a_select_with_a_time_limit_ends_by_a_kill_and_an_outer_timeout_all_the_same() {
    let _guard = common::guard();
    let (send, receive) = channel::unbounded::<u8>();
    let theirs = receive.clone();
    let thread = spawn(move || select! { recv(theirs) -> _ => (), default(after: LONG) => () });
    settle();
    thread.kill();
    assert!(thread.join().is_err_and(|error| error.is_killed()));
    let outer = timeout(SHORT, || select! { recv(receive) -> _ => (), default(after: LONG) => () });
    assert!(outer.is_err());
    send.send(1).unwrap();
    assert_eq!(receive.try_recv(), Ok(1), "the line is empty");
    // While the caller unwinds it does not wait at all.
    let log = Log::default();
    let notes = log.clone();
    let unwound = spawn(move || {
        let _late = OnDrop::new(move || {
            notes.say(select! { recv(receive) -> _ => "value", default(after: LONG) => "limit" });
            notes.say(
                select! { recv(receive) -> _ => "value", after(SHORT) => "after", default(after: LONG) => "limit" },
            );
            notes.say(
                select! { recv(receive) -> _ => "value", after(LONG) => "after", default(after: SHORT) => "limit" },
            );
        });
        std::panic::resume_unwind(Box::new("down"));
    });
    assert!(unwound.join().is_err());
    assert_eq!(log.text(), "limit after limit");
}

#[test]
fn arms_that_lost_to_a_time_limit_have_done_nothing() {
    let _guard = common::guard();
    let (full, empty, event) = (Conn::new(0), Conn::new(1), Rc::new(Event::auto_reset()));
    let mut slot = Some(5);
    for _ in 0..3 {
        select! {
            send_from(full.tx, slot) => panic!("no receiver waits"),
            recv(empty.rx) => panic!("no sender waits"),
            wait(event) => panic!("it is never set"),
            default(after: Duration::from_micros(100)) => (),
        }
        assert_eq!(slot, Some(5));
    }
    event.set();
    assert!(event.is_set(), "its line is empty");
    empty.tx.try_send(1).unwrap();
    assert_eq!((empty.rx.len(), full.rx.try_recv().is_err()), (1, true));
}

/// Something that selects over what it has.
struct Actor {
    /// What it is told.
    inbox: Receiver<u8>,
    /// When it works.
    ticks: Interval,
    /// The thread that works for it, with a name.
    parts: (JoinHandle<u8>, &'static str),
    /// Permits of its own.
    permits: Semaphore,
}

impl Actor {
    /// One thing.
    fn step(&mut self) -> &'static str {
        select! {
            biased;
            recv(self.inbox) -> value => if value.is_ok() { "told" } else { "ended" },
            wait(self.permits) -> permit => { permit.forget(); "permit" }
            end(self.parts.0) => self.parts.1,
            tick(self.ticks) => "tick",
        }
    }

    /// The end.
    fn finish(mut self) -> u8 {
        select! { biased; join(self.parts.0) -> result => result.unwrap(), tick(self.ticks) => 0 }
    }
}

#[test]
fn a_method_selects_over_fields_of_its_self() {
    let _guard = common::guard();
    let (send, inbox) = channel::unbounded();
    let (go, gone) = channel::unbounded::<()>();
    let thread = spawn(move || gone.recv().map_or(1, |()| 2));
    let ticks = greenling::time::interval_at(Instant::now() + SHORT, SHORT);
    let mut actor = Actor { inbox, ticks, parts: (thread, "part"), permits: Semaphore::new(1) };
    assert_eq!((actor.step(), actor.step()), ("permit", "tick"));
    send.send(1).unwrap();
    assert_eq!(actor.step(), "told");
    go.send(()).unwrap();
    settle();
    assert_eq!(actor.step(), "part");
    assert_eq!(actor.finish(), 2);
}

#[test]
fn selects_nest_in_bodies_and_in_arms() {
    let _guard = common::guard();
    let event = Event::new();
    event.set();
    let (never, conn) = (Event::new(), Conn::new(1));
    conn.tx.send(1).unwrap();
    let r = &conn.rx;
    let got = select! {
        biased;
        recv(select! { wait(never) => panic!("never set"), wait(event) => r }) -> value => value.unwrap(),
        wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0,
        wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0,
        wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0,
        after(LONG) => select! {
            wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0,
            wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0,
            wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0, wait(never) => 0,
            after(select! { wait(event) => SHORT, default => LONG }) => select! { wait(event) => 1, default => 0 },
        },
        default => 0,
    };
    assert_eq!(got, 1);
}
