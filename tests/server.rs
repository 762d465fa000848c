//! What a server promises: a limit that holds, nobody lost, nobody harmed by others, and an end that accounts for all.
#![allow(unsafe_code)] // to signal one's own OS thread, and to lower the limit on descriptors

mod common;
#[path = "common/drained.rs"]
mod drained;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Log, OnDrop, hog_until, settle};
use drained::{adds_up, drain, refuses};
use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::server::{Datagram, Limit, Server, ServerHandle, TcpServer, UdpServer, listen_fds};
use greenling::signal::SIGTERM;
use greenling::sync::Event;
use greenling::{Hubs, TimeoutError, hub, no_switch, shield, sleep, spawn, timeout, yield_now};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(50);

/// Lets green threads run until `done`.
#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < patience, "never: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// A server on a free port.
fn bind() -> TcpServer {
    TcpServer::bind(common::free_address()).expect("a free port").grace(LONG)
}

/// A client whose connection waits in the kernel's queue, whoever runs meanwhile.
fn std_client(addr: SocketAddr) -> StdStream {
    let stream = StdStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("not zero");
    stream
}

/// A client that has sent `bytes`.
fn client(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    // Past the hub, so that the server does not run meanwhile.
    let mut stream = std_client(addr);
    stream.write_all(bytes).expect("there is room");
    TcpStream::from(stream)
}

/// Answers requests of four bytes, until the end of the stream.
fn answer(mut stream: TcpStream, _: SocketAddr) -> io::Result<()> {
    let mut request = [0; 4];
    loop {
        match stream.read(&mut request)? {
            0 => return Ok(()),
            len => stream.read_exact(&mut request[len..])?,
        }
        stream.write_all(&request)?;
    }
}

/// Sends a request and gets the answer.
#[track_caller]
fn ask(client: &mut TcpStream) {
    client.write_all(b"ask!").expect("somebody listens");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"ask!");
}

/// Whether the connection was closed.
fn is_closed(client: &mut TcpStream) -> bool {
    matches!(client.read(&mut [0]), Ok(0) | Err(_))
}

/// Returns how many sockets listen on an IPv4 address: as proc(5) has it, in a list of all sockets. A connection that finds
/// this out would be a client.
fn listeners(addr: SocketAddr) -> usize {
    let SocketAddr::V4(addr) = addr else { panic!("{addr} is not of IPv4") };
    // In the order of the bytes in memory.
    let local = format!(" {:08X}:{:04X} 00000000:0000 0A ", u32::from_le_bytes(addr.ip().octets()), addr.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the list of sockets");
    sockets.lines().filter(|line| line.contains(&local)).count()
}

// ---- serving --------------------------------------------------------------------------------------------------------

#[test]
fn every_connection_gets_its_handler_and_its_peer() {
    let _guard = common::guard();
    let peers = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&peers);
    let serve = move |stream, peer| {
        seen.borrow_mut().push(peer);
        answer(stream, peer)
    };
    let server = bind().start(serve).unwrap();
    let mut clients: Vec<_> = (0..20).map(|_| client(server.local_addr(), b"")).collect();
    clients.iter_mut().for_each(ask);
    assert_eq!(server.counters().active(), 20);
    assert!(
        peers.borrow().iter().eq(clients.iter().map(|client| client.local_addr().unwrap()).collect::<Vec<_>>().iter())
    );
    drop(clients);
    until("all have ended", || server.counters().completed == 20);
    let report = drain(server);
    assert_eq!((report.counters.accepted, report.active_at_start, report.from_backlog), (20, 0, 0));
}

#[test]
fn the_limit_holds_and_the_others_wait_in_line() {
    let _guard = common::guard();
    let now = Rc::new(Cell::new(0));
    let most = Rc::new(Cell::new(0));
    let (theirs, theirs_too) = (Rc::clone(&now), Rc::clone(&most));
    let serve = move |stream, peer| {
        theirs.set(theirs.get() + 1);
        theirs_too.set(theirs_too.get().max(theirs.get()));
        let _leave = OnDrop::new(|| theirs.set(theirs.get() - 1));
        answer(stream, peer)
    };
    let server = bind().max_connections(3).start(serve).unwrap();
    let mut clients: Vec<_> = (0..10).map(|_| client(server.local_addr(), b"")).collect();
    for served in 0..10 {
        // Who is first in line is served, in order.
        ask(&mut clients[0]);
        until("the room is used", || now.get() == clients.len().min(3));
        sleep(Duration::from_millis(2));
        assert_eq!(server.counters().accepted, (served + 3).min(10));
        drop(clients.remove(0));
    }
    assert_eq!(most.get(), 3);
    assert_eq!(drain(server).counters.completed, 10);
}

#[test]
fn a_limit_is_shared_by_the_servers_it_is_given_to() {
    let _guard = common::guard();
    let (limit, handle) = (Limit::new(2), ServerHandle::new());
    let servers = [(); 2].map(|()| bind().limit(&limit).handle(&handle).start(answer).unwrap());
    let mut first: Vec<_> = servers.iter().map(|server| client(server.local_addr(), b"")).collect();
    first.iter_mut().for_each(ask);
    let mut second: Vec<_> = servers.iter().map(|server| client(server.local_addr(), b"")).collect();
    sleep(Duration::from_millis(5));
    assert_eq!((limit.in_use(), handle.counters().accepted), (2, 2));
    // One leaves the first server, and either may use the room, or both later.
    drop(first.remove(0));
    drop(first);
    second.iter_mut().for_each(ask);
    assert_eq!((limit.in_use(), handle.counters().accepted), (2, 4));
    for server in servers {
        drain(server);
    }
    assert_eq!(limit.in_use(), 0);
}

/// Two servers share one place, and both find it free: the second one's client is accepted, but is held back.
#[test]
fn a_client_that_waits_to_be_accepted_is_served() {
    let _guard = common::guard();
    let (limit, handle) = (Limit::new(1), ServerHandle::new());
    let servers = [(); 2].map(|()| bind().limit(&limit).handle(&handle).start(answer).unwrap());
    // Both acceptors wait for a client by now, and not for room.
    settle();
    let mut clients = [client(servers[0].local_addr(), b"ask!"), client(servers[1].local_addr(), b"ask!")];
    until("one is served", || handle.counters().accepted == 1);
    sleep(Duration::from_millis(5));
    assert_eq!((limit.in_use(), handle.counters().accepted), (1, 1));
    handle.drain();
    let reports = servers.map(|server| server.join().unwrap());
    reports.iter().for_each(adds_up);
    assert_eq!(reports.map(|report| (report.active_at_start, report.from_backlog, report.closed_idle)), [(1, 0, 1); 2]);
    for client in &mut clients {
        client.read_exact(&mut [0; 4]).expect("an answer");
    }
}

#[test]
fn others_have_their_turn_after_the_accept_budget() {
    let _guard = common::guard();
    let handle = ServerHandle::new();
    let (seen, counters) = (Rc::new(RefCell::new(Vec::new())), handle.clone());
    let theirs = Rc::clone(&seen);
    let serve = move |_: TcpStream, _| theirs.borrow_mut().push(counters.counters().accepted);
    let server = bind().accept_budget(4).handle(&handle).start(serve).unwrap();
    let _clients: Vec<_> = (0..12).map(|_| std_client(server.local_addr())).collect();
    until("all are served", || seen.borrow().len() == 12);
    // Fewer, if the acceptor's share of the CPU was used up first.
    let ahead = |(served, accepted): (usize, &u64)| *accepted - served as u64;
    let most = seen.borrow().iter().enumerate().map(ahead).max();
    assert!(most <= Some(4), "{seen:?}");
    drain(server);
}

#[test]
fn a_panicking_handler_is_counted_and_harms_no_other() {
    let _guard = common::guard();
    let serve = |mut stream: TcpStream, peer| {
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        match kind[0] {
            b'p' => panic!("a handler that panics, as the test wants"),
            b'e' => Err(ErrorKind::Other.into()),
            _ => answer(stream, peer),
        }
    };
    let server = bind().max_connections(2).start(serve).unwrap();
    let mut good = client(server.local_addr(), b"g");
    ask(&mut good);
    for bad in [b"p", b"e", b"p"] {
        // With room for one: each gives its place back.
        assert!(is_closed(&mut client(server.local_addr(), bad)));
    }
    ask(&mut good);
    let counters = server.counters();
    assert_eq!((counters.panicked, counters.failed, counters.active()), (2, 1, 1));
    drop(good);
    assert_eq!(drain(server).counters.completed, 1);
}

#[test]
fn handlers_get_the_stack_size_that_was_asked_for() {
    let _guard = common::guard();
    fn deep(bytes: usize) -> usize {
        let frame = std::hint::black_box([1_u8; 4096]);
        if bytes < frame.len() { 1 } else { deep(bytes - frame.len()) + usize::from(frame[bytes % 4096]) }
    }
    let server = bind().stack_size(8 << 20).start(|_, _| assert!(deep(4 << 20) > 100)).unwrap();
    let _client = std_client(server.local_addr());
    until("it has ended", || server.counters().completed == 1);
    drain(server);
    let server = bind().stack_size(usize::MAX).start(answer).unwrap();
    // There is no such stack: the connection is closed, and counted.
    assert!(is_closed(&mut client(server.local_addr(), b"")));
    assert_eq!(server.counters().refused, 1);
    drain(server);
}

// ---- time limits ----------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_sends_nothing_never_meets_the_handler() {
    let _guard = common::guard();
    let called = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&called);
    let serve = move |stream, peer| {
        theirs.set(theirs.get() + 1);
        answer(stream, peer)
    };
    let server = bind().first_byte_timeout(SHORT).start(serve).unwrap();
    let began = Instant::now();
    let mut silent = client(server.local_addr(), b"");
    let mut quick = client(server.local_addr(), b"ask!");
    assert!(is_closed(&mut silent));
    assert!(began.elapsed() >= SHORT, "not early");
    quick.read_exact(&mut [0; 4]).unwrap();
    // The limit is for the first byte only.
    sleep(2 * SHORT);
    ask(&mut quick);
    assert_eq!((called.get(), server.counters().timed_out), (1, 1));
    drain(server);
}

#[test]
fn an_idle_connection_is_closed_after_the_idle_limit() {
    let _guard = common::guard();
    let server = bind().idle_timeout(Duration::from_millis(400)).start(answer).unwrap();
    let mut silent = client(server.local_addr(), b"");
    let mut busy = client(server.local_addr(), b"");
    let began = Instant::now();
    ask(&mut silent);
    let watcher = spawn(move || {
        assert!(is_closed(&mut silent));
        Instant::now()
    });
    while !watcher.is_finished() {
        ask(&mut busy);
        sleep(Duration::from_millis(5));
    }
    assert!(watcher.join().unwrap() - began >= Duration::from_millis(400), "not early");
    assert_eq!((server.counters().timed_out, server.counters().active()), (1, 1));
    drain(server);
}

#[test]
fn a_connection_that_lasts_too_long_is_unwound() {
    let _guard = common::guard();
    let log = Log::default();
    let theirs = log.clone();
    let serve = move |stream, peer| {
        let _dropped = theirs.on_drop("unwound");
        answer(stream, peer)
    };
    let server = bind().total_timeout(SHORT).start(serve).unwrap();
    let began = Instant::now();
    let mut client = client(server.local_addr(), b"");
    ask(&mut client);
    assert!(is_closed(&mut client));
    assert!(began.elapsed() >= SHORT, "not early");
    assert_eq!((log.text().as_str(), server.counters().timed_out), ("unwound", 1));
    drain(server);
}

#[test]
fn limits_of_zero_are_refused() {
    let zero = Duration::ZERO;
    for server in [bind().first_byte_timeout(zero), bind().idle_timeout(zero), bind().total_timeout(zero)] {
        assert_eq!(server.start(answer).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(catch_unwind(|| Limit::new(0)).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| bind().accept_budget(0))).is_err());
    assert_eq!(bind().drain_on([9]).start(answer).unwrap_err().kind(), ErrorKind::InvalidInput);
}

// ---- the drain ------------------------------------------------------------------------------------------------------

#[test]
fn a_client_in_the_kernels_queue_is_served() {
    let _guard = common::guard();
    let server = bind().accept_budget(3).start(answer).unwrap();
    // The server has not run yet, so all of them wait in the kernel.
    let mut clients: Vec<_> = (0..20).map(|_| client(server.local_addr(), b"ask!")).collect();
    let report = drain(server);
    assert_eq!((report.active_at_start, report.from_backlog), (0, 20));
    assert_eq!((report.closed_idle, report.killed), (20, 0), "each was answered, and waited for more");
    for client in &mut clients {
        client.read_exact(&mut [0; 4]).expect("an answer");
        assert!(is_closed(client));
    }
}

#[test]
fn the_queue_is_served_although_there_is_room_for_one() {
    let _guard = common::guard();
    let server = bind().max_connections(1).start(answer).unwrap();
    let mut clients: Vec<_> = (0..5).map(|_| client(server.local_addr(), b"ask!")).collect();
    until("one is served", || server.counters().accepted == 1);
    let report = drain(server);
    assert_eq!((report.active_at_start, report.from_backlog, report.closed_idle), (1, 4, 5));
    for client in &mut clients {
        client.read_exact(&mut [0; 4]).expect("an answer");
    }
}

#[test]
fn a_client_that_comes_while_the_queue_is_served_gets_no_answer() {
    let _guard = common::guard();
    let server = bind().max_connections(1).close_idle(false).start(answer).unwrap();
    let addr = server.local_addr();
    let mut clients: Vec<_> = (0..4).map(|_| client(addr, b"ask!")).collect();
    until("one is served", || server.counters().accepted == 1);
    let handle = server.handle().clone();
    let report = spawn(move || drain(server));
    until("it drains", || handle.is_draining());
    settle();
    // As long as one waits in the queue, the kernel lets nobody in, and does not say no either.
    let late = TcpStream::connect_timeout(&addr, SHORT);
    assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    for mut client in clients.drain(..) {
        client.read_exact(&mut [0; 4]).expect("an answer");
    }
    let report = report.join().unwrap();
    assert_eq!((report.active_at_start, report.from_backlog, report.finished), (1, 3, 4));
}

#[test]
fn the_busy_finish_and_the_idle_are_closed_at_once() {
    let _guard = common::guard();
    let server = bind().start(answer).unwrap();
    let addr = server.local_addr();
    let mut idle = client(addr, b"");
    ask(&mut idle);
    let mut half = client(addr, b"as");
    until("both are served", || server.counters().accepted == 2);
    sleep(Duration::from_millis(2));
    let handle = server.handle().clone();
    let report = spawn(move || drain(server));
    assert!(is_closed(&mut idle));
    // The port is closed while the busy one goes on.
    assert!(refuses(addr));
    sleep(SHORT);
    assert!(!report.is_finished() && handle.is_draining());
    half.write_all(b"k!").unwrap();
    half.read_exact(&mut [0; 4]).expect("the whole answer");
    // Now it is idle, too.
    assert!(is_closed(&mut half));
    let report = report.join().unwrap();
    assert_eq!((report.active_at_start, report.closed_idle, report.killed, report.finished), (2, 2, 0, 0));
    assert!(report.took >= SHORT && !report.forced);
}

#[test]
fn a_request_that_has_reached_the_kernel_is_answered() {
    let _guard = common::guard();
    for _ in 0..20 {
        let server = bind().start(answer).unwrap();
        let mut client = client(server.local_addr(), b"");
        ask(&mut client);
        // The server waits for this, and has not looked yet.
        client.write_all(b"last").unwrap();
        let report = drain(server);
        assert_eq!(report.closed_idle, 1);
        client.read_exact(&mut [0; 4]).expect("the last answer");
    }
}

#[test]
fn a_client_that_has_just_connected_may_have_a_request_on_the_way() {
    let _guard = common::guard();
    let server = bind().start(answer).unwrap();
    let (mut late, mut never) = (client(server.local_addr(), b""), client(server.local_addr(), b""));
    until("both are served", || server.counters().accepted == 2);
    sleep(Duration::from_millis(2));
    let report = spawn(move || drain(server));
    sleep(SHORT);
    late.write_all(b"ask!").unwrap();
    late.read_exact(&mut [0; 4]).expect("an answer");
    assert!(is_closed(&mut never));
    let report = report.join().unwrap();
    assert_eq!((report.closed_idle, report.killed), (2, 0));
    assert!(report.took >= Duration::from_secs(1), "{report}");
}

#[test]
fn without_requests_no_connection_is_closed_before_the_grace_ends() {
    let _guard = common::guard();
    let server = bind().close_idle(false).grace(4 * SHORT).start(answer).unwrap();
    let mut one = client(server.local_addr(), b"");
    let mut two = client(server.local_addr(), b"");
    ask(&mut one);
    ask(&mut two);
    let report = spawn(move || drain(server));
    sleep(SHORT);
    ask(&mut one);
    drop(one);
    assert!(is_closed(&mut two));
    let report = report.join().unwrap();
    assert_eq!((report.active_at_start, report.finished, report.killed), (2, 1, 1));
    assert!(report.took >= 4 * SHORT);
}

#[test]
fn the_report_accounts_for_every_thread() {
    let _guard = common::guard();
    let stop = Rc::new(Cell::new(false));
    let stubborn = Rc::clone(&stop);
    let goes_on = Rc::new(Event::new());
    let drains = Rc::clone(&goes_on);
    let serve = move |mut stream: TcpStream, peer| {
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        match kind[0] {
            b'a' => answer(stream, peer),
            b'p' => {
                drains.wait();
                panic!("a handler that panics, as the test wants")
            }
            b'e' => {
                drains.wait();
                Err(ErrorKind::Other.into())
            }
            b'b' => {
                drains.wait();
                Ok(())
            }
            b's' => shield(|| {
                while !stubborn.get() {
                    sleep(Duration::from_millis(1));
                }
                Ok(())
            }),
            _ => {
                sleep(LONG);
                Ok(())
            }
        }
    };
    let server = bind().max_connections(8).grace(20 * SHORT).start(serve).unwrap();
    let mut idle = client(server.local_addr(), b"a");
    ask(&mut idle);
    let mut clients: Vec<_> = [b"p", b"e", b"b", b"s", b"k", b"k"].map(|kind| client(server.local_addr(), kind)).into();
    until("all are served", || server.counters().accepted == 7);
    clients.push(client(server.local_addr(), b"k"));
    until("that one as well", || server.counters().accepted == 8);
    sleep(Duration::from_millis(2));
    // Five more, for whom four places get free in time.
    clients.extend((0..5).map(|_| client(server.local_addr(), b"k")));
    let handle = server.handle().clone();
    let begun = handle.clone();
    spawn(move || {
        until("it drains", || begun.is_draining());
        settle(); // the acceptor counts
        goes_on.set();
    });
    let report = drain(server);
    assert_eq!((report.active_at_start, report.from_backlog), (8, 5));
    assert_eq!((report.finished, report.closed_idle, report.killed), (3, 1, 7));
    assert_eq!((report.stuck, report.turned_away), (1, 1));
    let counters = report.counters;
    assert_eq!((counters.panicked, counters.failed, counters.completed, counters.refused), (1, 1, 1, 1));
    assert!(report.took >= 20 * SHORT + Duration::from_secs(1), "the stuck one was waited for: {report}");
    stop.set(true);
    until("the stuck one has ended", || report.counters.accepted > 0 && hub::live_threads() == 0);
    // What was left behind is counted by the handle when it ends.
    assert_eq!((counters.active(), handle.counters().active()), (1, 0));
    assert_eq!(handle.counters().completed, counters.completed + 1);
    assert!(report.to_string().contains("3 finished, 1 were idle, 7 killed, 1 could not be killed, 1 turned away"));
}

#[test]
fn no_grace_kills_at_once_and_unwinds() {
    let _guard = common::guard();
    let log = Log::default();
    let theirs = log.clone();
    let serve = move |stream: TcpStream, _| {
        let (_stream, _dropped) = (stream, theirs.on_drop("unwound"));
        sleep(LONG);
    };
    let server = bind().grace(Duration::ZERO).start(serve).unwrap();
    let _clients = [std_client(server.local_addr()), std_client(server.local_addr())];
    until("both are served", || server.counters().accepted == 2);
    yield_now();
    let report = drain(server);
    assert_eq!((report.killed, report.forced, log.text().as_str()), (2, false, "unwound unwound"));
}

#[test]
fn a_connection_that_is_killed_before_it_was_served_is_counted() {
    let _guard = common::guard();
    let called = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&called);
    let serve = move |_stream, _| theirs.set(theirs.get() + 1);
    let server = bind().grace(Duration::ZERO).close_idle(false).start(serve).unwrap();
    let mut clients: Vec<_> = (0..5).map(|_| client(server.local_addr(), b"")).collect();
    let report = drain(server);
    // Some may have their turn, if those that accept have used up their share of the CPU. None is missing.
    assert_eq!((report.from_backlog, report.killed + called.get()), (5, 5));
    assert!(clients.iter_mut().all(is_closed));
}

#[test]
fn force_cuts_the_grace_short() {
    let _guard = common::guard();
    let server = bind().start(|_stream, _| sleep(LONG)).unwrap();
    let _client = std_client(server.local_addr());
    until("it is served", || server.counters().accepted == 1);
    let handle = server.handle().clone();
    let report = spawn(move || drain(server));
    sleep(SHORT);
    assert!(!report.is_finished());
    handle.force();
    let report = report.join().unwrap();
    assert_eq!((report.killed, report.forced), (1, true));
}

#[test]
fn a_signal_drains_and_the_second_one_forces() {
    let _guard = common::guard();
    let handle = ServerHandle::new();
    let server = bind().handle(&handle).drain_on([SIGTERM]).start(|_stream, _| sleep(LONG)).unwrap();
    let _client = std_client(server.local_addr());
    until("it is served", || handle.counters().accepted == 1);
    // SAFETY: the call takes nothing (pthread_self(3)).
    let me = unsafe { libc::pthread_self() };
    // SAFETY: `me` is this OS thread, and the server has blocked the signal in it.
    let signal = || assert_eq!(unsafe { libc::pthread_kill(me, libc::SIGTERM) }, 0);
    signal();
    until("the first is heard", || handle.is_draining());
    let addr = server.local_addr();
    until("the port is closed", || listeners(addr) == 0);
    sleep(SHORT);
    assert_eq!(handle.counters().killed, 0);
    signal();
    let report = server.join().unwrap();
    assert_eq!((report.killed, report.forced), (1, true));
}

#[test]
fn the_second_signal_is_heard_although_the_server_that_holds_it_has_ended() {
    let _guard = common::guard();
    let output = common::child("the_second_signal_is_heard_although_the_server_that_holds_it_has_ended", || {
        let handle = ServerHandle::new();
        let first = bind().handle(&handle).drain_on([SIGTERM]).start(answer).unwrap();
        let second = bind().handle(&handle).start(|_stream, _| sleep(LONG)).unwrap();
        let _client = std_client(second.local_addr());
        until("it is served", || handle.counters().accepted == 1);
        // SAFETY: the call takes nothing (pthread_self(3)).
        let me = unsafe { libc::pthread_self() };
        // SAFETY: `me` is this OS thread, and the server has blocked the signal in it.
        let signal = || assert_eq!(unsafe { libc::pthread_kill(me, libc::SIGTERM) }, 0);
        signal();
        assert_eq!(first.join().unwrap().active_at_start, 0);
        signal();
        let report = second.join().unwrap();
        assert_eq!((report.killed, report.forced), (1, true));
        // And then it is nobody's any more.
        until("the signals are let go", || hub::live_threads() == 0);
    });
    assert!(output.status.success(), "{} {}", output.status, common::stderr(&output));
}

#[test]
fn the_servers_of_several_hubs_are_drained_by_one_handle() {
    let _guard = common::guard();
    let (handle, limit) = (ServerHandle::new(), Limit::new(100));
    let first = TcpListener::bind_reuse_port("127.0.0.1:0").unwrap();
    let addr = first.local_addr().unwrap();
    let hubs = Hubs::new(3).start({
        let (handle, limit) = (handle.clone(), limit.clone());
        move |_| {
            let listener = TcpListener::bind_reuse_port(addr).unwrap();
            TcpServer::new(listener).handle(&handle).limit(&limit).run(answer).unwrap()
        }
    });
    let hubs = hubs.unwrap();
    // All of them listen before the first socket, which would keep its share of the connections, is closed.
    until("all listen", || listeners(addr) == 4);
    drop(first);
    let mut clients: Vec<_> = (0..30).map(|_| client(addr, b"")).collect();
    clients.iter_mut().for_each(ask);
    assert_eq!(limit.in_use(), handle.counters().active() as usize);
    std::thread::spawn({
        let handle = handle.clone();
        move || handle.drain()
    });
    let reports: Vec<_> = hubs.join().into_iter().map(Result::unwrap).collect();
    reports.iter().for_each(adds_up);
    assert_eq!(reports.iter().map(|report| report.closed_idle).sum::<u64>(), 30);
    assert_eq!((limit.in_use(), handle.counters().closed_idle), (0, 30));
    assert!(refuses(addr));
}

#[test]
fn a_server_that_is_started_after_the_drain_serves_the_queue_and_ends() {
    let _guard = common::guard();
    let handle = ServerHandle::new();
    handle.drain();
    let server = bind().handle(&handle);
    let mut client = client(server.local_addr().unwrap(), b"ask!");
    let report = server.run(answer).unwrap();
    adds_up(&report);
    assert_eq!((report.from_backlog, report.closed_idle), (1, 1));
    client.read_exact(&mut [0; 4]).expect("an answer");
}

#[test]
fn a_listener_that_fails_ends_the_server() {
    let _guard = common::guard();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let clone = listener.try_clone().unwrap();
    let server = TcpServer::new(listener).grace(LONG).start(answer).unwrap();
    let mut served = client(server.local_addr(), b"");
    ask(&mut served);
    clone.close();
    let report = server.join().unwrap();
    adds_up(&report);
    assert_eq!((report.accept_error, report.closed_idle), (Some(ErrorKind::InvalidInput), 1));
}

#[test]
fn on_drain_is_told_once_how_many_are_there() {
    let _guard = common::guard();
    let told = Rc::new(RefCell::new(Vec::new()));
    let theirs = Rc::clone(&told);
    let server =
        bind().max_connections(2).on_drain(move |count| theirs.borrow_mut().push(count)).start(answer).unwrap();
    let _clients: Vec<_> = (0..5).map(|_| client(server.local_addr(), b"ask!")).collect();
    until("two are served", || server.counters().accepted == 2);
    drain(server);
    assert_eq!(*told.borrow(), [2]);
}

// ---- no descriptors -------------------------------------------------------------------------------------------------

/// Uses up all descriptors but `left`, of a few.
fn exhaust(left: usize) -> Vec<File> {
    let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
    // SAFETY: `limit` is live for the call, which reads it.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    files.truncate(files.len() - left);
    files
}

/// CPU time of this OS thread; without a descriptor, which there may be none of.
fn run_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock is one that exists, and `time` is live for the call, which fills it.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn without_descriptors_accepting_is_put_off_and_no_client_is_lost() {
    let _guard = common::guard();
    let output = common::child("without_descriptors_accepting_is_put_off_and_no_client_is_lost", || {
        let told = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&told);
        let server = bind().on_accept_error(move |error| {
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            theirs.set(theirs.get() + 1);
        });
        let server = server.start(answer).unwrap();
        // The reactor, the clients, and then nothing more.
        yield_now();
        let mut clients: Vec<_> = (0..6).map(|_| client(server.local_addr(), b"ask!")).collect();
        let before = run_time();
        let files = exhaust(2);
        sleep(Duration::from_millis(700));
        let busy = run_time() - before;
        let counters = server.counters();
        assert_eq!((counters.accepted, counters.refused), (2, 0));
        // 10, 20, 40, .. ms
        assert!((1..10).contains(&counters.backoffs), "{counters:?}");
        assert!(busy < Duration::from_millis(300), "it used {busy:?} of 0.7 s");
        assert_eq!(told.get(), counters.backoffs);
        // One leaves, and the next is let in at once, not after the pause.
        clients[0].read_exact(&mut [0; 4]).unwrap();
        drop(clients.remove(0));
        let left = Instant::now();
        // Its two descriptors are for two of them.
        until("the next are served", || server.counters().accepted == 4);
        assert!(left.elapsed() < Duration::from_millis(400), "the pause would have lasted longer");
        drop(files);
        for client in &mut clients {
            client.read_exact(&mut [0; 4]).expect("an answer");
        }
        assert_eq!(drain(server).counters.accepted, 6);
    });
    assert!(output.status.success(), "{}", common::stderr(&output));
}

#[test]
fn with_a_reserve_clients_are_turned_away_orderly() {
    let _guard = common::guard();
    let output = common::child("with_a_reserve_clients_are_turned_away_orderly", || {
        let server = bind().refuse_when_exhausted(true).accept_budget(2).start(answer).unwrap();
        let mut served = client(server.local_addr(), b"");
        ask(&mut served);
        let mut clients: Vec<_> = (0..6).map(|_| client(server.local_addr(), b"")).collect();
        let files = exhaust(1);
        // One gets the last descriptor.
        let before = run_time();
        until("the others are turned away", || server.counters().refused == 5);
        sleep(Duration::from_millis(300));
        let busy = run_time() - before;
        assert!(busy < Duration::from_millis(200), "it used {busy:?} of 0.3 s");
        assert_eq!(clients.iter_mut().skip(1).filter_map(|client| client.read(&mut [0]).ok()).sum::<usize>(), 0);
        ask(&mut clients[0]);
        ask(&mut served);
        drop(files);
        ask(&mut client(server.local_addr(), b""));
        let report = drain(server);
        assert_eq!((report.counters.accepted, report.counters.refused), (8, 5));
    });
    assert!(output.status.success(), "{}", common::stderr(&output));
}

#[test]
fn a_drain_without_descriptors_ends() {
    let _guard = common::guard();
    let output = common::child("a_drain_without_descriptors_ends", || {
        let server = bind().grace(6 * SHORT).start(|_stream, _| sleep(LONG)).unwrap();
        let mut clients: Vec<_> = (0..3).map(|_| client(server.local_addr(), b"")).collect();
        yield_now();
        until("they are served", || server.counters().accepted == 3);
        clients.extend((0..3).map(|_| client(server.local_addr(), b"")));
        let files = exhaust(0);
        let report = server.drain().unwrap();
        adds_up(&report);
        drop(files);
        assert_eq!((report.active_at_start, report.from_backlog, report.killed), (3, 0, 3));
    });
    assert!(output.status.success(), "{}", common::stderr(&output));
}

// ---- the end of the server itself -----------------------------------------------------------------------------------

/// A server whose handlers write into the log when they are unwound, with two of them.
fn with_two(log: &Log) -> (Server, [StdStream; 2]) {
    let theirs = log.clone();
    let serve = move |stream: TcpStream, _| {
        let (_stream, _dropped) = (stream, theirs.on_drop("unwound"));
        sleep(LONG);
    };
    let server = bind().start(serve).unwrap();
    let clients = [std_client(server.local_addr()), std_client(server.local_addr())];
    until("both are served", || server.counters().accepted == 2);
    yield_now();
    (server, clients)
}

#[test]
fn a_server_that_is_dropped_closes_its_port_and_kills_its_handlers() {
    let _guard = common::guard();
    let log = Log::default();
    let (server, _clients) = with_two(&log);
    let (addr, handle) = (server.local_addr(), server.handle().clone());
    drop(server);
    until("all have ended", || hub::live_threads() == 0);
    assert!(refuses(addr));
    assert_eq!((log.text().as_str(), handle.counters().accepted), ("unwound unwound", 2));
}

#[test]
fn a_caller_that_is_killed_while_it_joins_takes_the_server_with_it() {
    let _guard = common::guard();
    let log = Log::default();
    let (server, _clients) = with_two(&log);
    let addr = server.local_addr();
    let joiner = spawn(move || server.join());
    yield_now();
    assert!(joiner.kill());
    assert!(joiner.join().unwrap_err().is_killed());
    until("all have ended", || hub::live_threads() == 0);
    assert!(refuses(addr));
    assert_eq!(log.text(), "unwound unwound");
}

#[test]
fn a_timeout_around_run_ends_the_server() {
    let _guard = common::guard();
    let server = bind();
    let addr = server.local_addr().unwrap();
    let _client = std_client(addr);
    let result = timeout(SHORT, || server.run(|_stream, _| sleep(LONG)).map(drop).unwrap());
    assert_eq!(result, Err(TimeoutError::Elapsed));
    until("all have ended", || hub::live_threads() == 0);
    assert!(refuses(addr));
}

#[test]
fn a_kill_in_the_middle_of_a_drain_leaves_nothing_behind() {
    let _guard = common::guard();
    let log = Log::default();
    let (server, _clients) = with_two(&log);
    let addr = server.local_addr();
    let drainer = spawn(move || server.drain().map(drop));
    sleep(SHORT);
    drainer.kill();
    assert!(drainer.join().unwrap_err().is_killed());
    until("all have ended", || hub::live_threads() == 0);
    assert!(refuses(addr));
    assert_eq!(log.text(), "unwound unwound");
}

#[test]
fn a_callback_that_panics_comes_out_and_the_server_is_gone() {
    let _guard = common::guard();
    let server = bind().on_drain(|_| panic!("a callback that panics, as the test wants")).start(answer).unwrap();
    let addr = server.local_addr();
    let mut client = client(addr, b"");
    ask(&mut client);
    assert!(server.drain().unwrap_err().is_panic());
    until("all have ended", || hub::live_threads() == 0);
    assert!(refuses(addr));
}

#[test]
fn while_unwinding_a_server_ends_with_an_error_and_no_wait() {
    let _guard = common::guard();
    let log = Log::default();
    let (server, _clients) = with_two(&log);
    let addr = server.local_addr();
    let result = Rc::new(Cell::new(None));
    let seen = Rc::clone(&result);
    let thread = spawn(move || {
        let _drain = OnDrop::new(move || {
            let drained = server.drain().is_err();
            let run = bind().run(answer).is_err();
            seen.set(Some((drained, run)));
        });
        panic!("a thread that panics, as the test wants");
    });
    assert!(thread.join().unwrap_err().is_panic());
    assert_eq!(result.take(), Some((true, true)));
    until("all have ended", || hub::live_threads() == 0);
    assert!(refuses(addr));
    assert_eq!(log.text(), "unwound unwound");
}

#[test]
fn inside_no_switch_run_panics_and_leaves_nothing_behind() {
    let _guard = common::guard();
    let server = bind();
    let addr = server.local_addr().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| no_switch(|| server.run(answer)))).is_err());
    until("all have ended", || hub::live_threads() == 0);
    assert!(refuses(addr));
}

#[test]
fn a_shutdown_ends_its_servers_and_without_one_the_listener_stays_open() {
    let _guard = common::guard();
    for shutdown in [true, false] {
        let (addr, handle) = std::thread::spawn(move || {
            let log = Log::default();
            let (server, clients) = with_two(&log);
            let told = (server.local_addr(), server.handle().clone());
            std::mem::forget(clients);
            if shutdown {
                assert_eq!(hub::shutdown(), 0);
                assert_eq!(log.text(), "unwound unwound");
                drop(server);
            } else {
                std::mem::forget(server);
            }
            told
        })
        .join()
        .unwrap();
        // Without a shutdown the listener lies on the acceptor's stack, which is given up.
        assert_eq!(refuses(addr), shutdown);
        // Asking a dead one is harmless.
        handle.drain();
        handle.force();
        assert_eq!(handle.counters().accepted, 2);
    }
}

#[test]
fn a_server_that_has_ended_leaves_no_thread_and_no_descriptor() {
    let _guard = common::guard();
    let output = common::child("a_server_that_has_ended_leaves_no_thread_and_no_descriptor", || {
        let open = || std::fs::read_dir("/proc/self/fd").expect("procfs").count();
        yield_now();
        sleep(Duration::from_millis(1));
        let before = open();
        for round in 0..5 {
            let server = bind().refuse_when_exhausted(true).drain_on([SIGTERM]).start(answer).unwrap();
            let mut clients: Vec<_> = (0..10).map(|_| client(server.local_addr(), b"")).collect();
            clients.iter_mut().for_each(ask);
            if round % 2 == 0 {
                drain(server);
            } else {
                drop(server);
            }
            drop(clients);
            until("all have ended", || hub::live_threads() == 0);
            assert_eq!(open(), before);
        }
    });
    assert!(output.status.success(), "{}", common::stderr(&output));
}

/// Nobody runs while a handler computes, and a drain is not confused by it.
#[test]
fn a_handler_that_computes_is_busy() {
    let _guard = common::guard();
    let serve = |mut stream: TcpStream, _| {
        stream.read_exact(&mut [0; 4])?;
        hog_until(Instant::now() + SHORT);
        stream.write_all(b"done")
    };
    let server = bind().start(serve).unwrap();
    let mut client = client(server.local_addr(), b"ask!");
    let report = drain(server);
    assert_eq!((report.from_backlog, report.finished), (1, 1));
    client.read_exact(&mut [0; 4]).expect("an answer");
}

// ---- datagrams ------------------------------------------------------------------------------------------------------

/// A client of a UDP server that has sent `datagrams`.
fn udp_client(addr: SocketAddr, datagrams: &[&[u8]]) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(addr).expect("an address");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("not zero");
    datagrams.iter().for_each(|bytes| assert_eq!(socket.send(bytes).expect("sent"), bytes.len()));
    socket
}

/// What comes next.
fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut buf = [0; 70_000];
    let len = socket.recv(&mut buf).expect("an answer");
    buf[..len].to_vec()
}

#[test]
fn each_datagram_is_answered_to_its_sender() {
    let _guard = common::guard();
    let server = UdpServer::bind("127.0.0.1:0").unwrap().start(|datagram| datagram.reply(datagram.bytes())).unwrap();
    let clients: Vec<_> = (0..5_u8).map(|n| udp_client(server.local_addr(), &[&[n], b""])).collect();
    for (n, client) in (0..).zip(&clients) {
        assert_eq!((received(client), received(client)), (vec![n], vec![]));
    }
    // One alone: more of them would not fit into a receive buffer.
    let long = vec![7; 60_000];
    assert_eq!(clients[0].send(&long).unwrap(), long.len());
    assert!(received(&clients[0]) == long);
    let report = server.drain().unwrap();
    adds_up(&report);
    assert_eq!((report.counters.accepted, report.counters.completed), (11, 11));
}

#[test]
fn datagrams_wait_when_all_handlers_are_busy_and_a_drain_serves_them() {
    let _guard = common::guard();
    let go = Rc::new(Event::new());
    let (now, most, theirs) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::clone(&go));
    let (counts, peak) = (Rc::clone(&now), Rc::clone(&most));
    let serve = move |datagram: Datagram| {
        counts.set(counts.get() + 1);
        peak.set(peak.get().max(counts.get()));
        theirs.wait();
        counts.set(counts.get() - 1);
        datagram.reply(datagram.bytes())
    };
    let server = UdpServer::bind("127.0.0.1:0").unwrap().max_handlers(2).grace(LONG).start(serve).unwrap();
    let client = udp_client(server.local_addr(), &[b"1", b"2", b"3", b"4", b"5"]);
    until("two are handled", || now.get() == 2);
    sleep(Duration::from_millis(2));
    assert_eq!(server.counters().accepted, 2);
    let handle = server.handle().clone();
    let report = spawn(move || server.drain().unwrap());
    until("it drains", || handle.is_draining());
    go.set();
    let report = report.join().unwrap();
    adds_up(&report);
    assert_eq!((report.active_at_start, report.from_backlog, report.finished), (2, 3, 5));
    assert_eq!(most.get(), 2);
    for n in [b"1", b"2", b"3", b"4", b"5"] {
        assert_eq!(received(&client), n);
    }
    // The port is closed: the next datagram meets nobody, which the one after that is told.
    assert!(client.send(b"6").is_err() || client.recv(&mut [0]).is_err());
}

#[test]
fn a_datagram_handler_may_panic_fail_and_take_too_long() {
    let _guard = common::guard();
    let serve = |datagram: Datagram| match datagram.bytes() {
        b"panic" => panic!("a handler that panics, as the test wants"),
        b"fail" => Err(ErrorKind::Other.into()),
        b"sleep" => {
            sleep(LONG);
            Ok(())
        }
        bytes => datagram.reply(bytes),
    };
    let server = UdpServer::bind("127.0.0.1:0").unwrap().total_timeout(SHORT).start(serve).unwrap();
    let client = udp_client(server.local_addr(), &[b"panic", b"fail", b"sleep", b"good"]);
    assert_eq!(received(&client), b"good");
    until("the slow one has ended", || server.counters().timed_out == 1);
    let report = server.drain().unwrap();
    adds_up(&report);
    let counters = report.counters;
    assert_eq!((counters.panicked, counters.failed, counters.timed_out, counters.completed), (1, 1, 1, 1));
    assert!(UdpServer::bind("127.0.0.1:0").unwrap().total_timeout(Duration::ZERO).start(|_| ()).is_err());
}

#[test]
fn a_udp_server_that_is_dropped_kills_its_handlers_and_frees_its_port() {
    let _guard = common::guard();
    let log = Log::default();
    let theirs = log.clone();
    let serve = move |_datagram| {
        let _dropped = theirs.on_drop("unwound");
        sleep(LONG);
    };
    let server = UdpServer::bind("127.0.0.1:0").unwrap().start(serve).unwrap();
    let addr = server.local_addr();
    let _client = udp_client(addr, &[b"1", b"2"]);
    until("both are handled", || server.counters().accepted == 2);
    yield_now();
    drop(server);
    until("all have ended", || hub::live_threads() == 0);
    assert_eq!(log.text(), "unwound unwound");
    UdpSocket::bind(addr).expect("the port is free");
}

// ---- socket activation ----------------------------------------------------------------------------------------------

/// Runs the test `name` of this binary as a service manager would, with the sockets on descriptors 3 and 4.
fn activated(name: &str, names: &str, three: OwnedFd, four: OwnedFd) -> std::process::Output {
    let mut command = Command::new("sh");
    let script = "LISTEN_PID=$$ exec \"$@\" 3<&0 4<&1 0</dev/null 1>&2";
    command.args(["-c", script, "sh"]).arg(std::env::current_exe().expect("the path of the test binary"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names).env("GREENLING_TEST_CHILD", name);
    command.stdin(Stdio::from(three)).stdout(Stdio::from(four)).stderr(Stdio::piped());
    command.spawn().expect("a shell").wait_with_output().expect("its end")
}

#[test]
fn listeners_that_were_passed_are_served() {
    let _guard = common::guard();
    const NAME: &str = "listeners_that_were_passed_are_served";
    if std::env::var_os("GREENLING_TEST_CHILD").is_some() {
        let mut passed = listen_fds().unwrap();
        assert!(listen_fds().unwrap().is_empty(), "they are handed out once");
        assert_eq!(passed.iter().map(|fd| fd.name()).collect::<Vec<_>>(), [Some("echo"), None]);
        for fd in &passed {
            let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd_of(fd))).unwrap();
            let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
            assert_ne!(u32::from_str_radix(&flags, 8).unwrap() & libc::O_CLOEXEC as u32, 0);
        }
        let other = passed.pop().unwrap().into_tcp_listener().unwrap_err();
        assert_eq!(other.kind(), ErrorKind::InvalidInput);
        assert!(other.to_string().ends_with("is not a TCP listener, but a UDP socket"), "{other}");
        let listener = passed.pop().unwrap().into_tcp_listener().unwrap();
        let server = TcpServer::new(listener).max_connections(1).total_timeout(LONG);
        let handle = ServerHandle::new();
        let asked = handle.clone();
        let one_answer = move |mut stream: TcpStream, _| -> io::Result<()> {
            let mut request = [0; 4];
            stream.read_exact(&mut request)?;
            stream.write_all(&request)?;
            asked.drain();
            Ok(())
        };
        let report = server.handle(&handle).grace(LONG).run(one_answer).unwrap();
        assert_eq!((report.counters.accepted, report.from_backlog, report.turned_away), (1, 0, 0));
        std::process::exit(0);
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // It connects before the service runs.
    let mut client = std_client(listener.local_addr().unwrap());
    client.write_all(b"ask!").unwrap();
    let ours = listener.try_clone().unwrap();
    let (addr, second) = (ours.local_addr().unwrap(), std_client(ours.local_addr().unwrap()));
    let output = activated(NAME, "echo:", listener.into(), udp.into());
    assert!(output.status.success(), "{}", common::stderr(&output));
    client.read_exact(&mut [0; 4]).expect("an answer");
    // The service has drained, and left the socket to the next one: with who was in its queue, and with who comes.
    let third = std_client(addr);
    for waits in [second, third] {
        assert_eq!(ours.accept().expect("nobody was refused").1, waits.local_addr().unwrap());
    }
}

/// The number of a descriptor.
fn fd_of(fd: &impl AsFd) -> i32 {
    use std::os::fd::AsRawFd;
    fd.as_fd().as_raw_fd()
}

/// What the environment announces but nobody has passed may be what the program has opened itself.
#[test]
fn a_descriptor_that_the_program_owns_is_refused_and_stays_its_own() {
    let _guard = common::guard();
    const NAME: &str = "a_descriptor_that_the_program_owns_is_refused_and_stays_its_own";
    if std::env::var_os("GREENLING_TEST_CHILD").is_some() {
        // Until number 4 is one of them; 3 was passed.
        let files: Vec<_> = (0..64).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(files.iter().any(|file| fd_of(file) == 4), "4 was free, or somebody has it who marks it so");
        for _ in 0..2 {
            let error = listen_fds().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(error.to_string().contains("descriptor 4"), "{error}");
        }
        for file in &files {
            file.metadata().expect("still open, and still a file");
        }
        let passed = std::fs::read_link("/proc/self/fd/3").expect("it was left alone");
        assert!(passed.to_string_lossy().starts_with("socket:"), "{passed:?}");
        std::process::exit(0);
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "LISTEN_PID=$$ exec \"$@\" 3<&0 4<&- 0</dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).stdin(Stdio::from(OwnedFd::from(listener)));
    command.env("LISTEN_FDS", "2").env("GREENLING_TEST_CHILD", NAME);
    let output = command.stderr(Stdio::piped()).spawn().expect("a shell").wait_with_output().expect("its end");
    assert!(output.status.success(), "{}", common::stderr(&output));
}

#[test]
fn a_descriptor_that_is_not_open_is_an_error() {
    let _guard = common::guard();
    const NAME: &str = "a_descriptor_that_is_not_open_is_an_error";
    if std::env::var_os("GREENLING_TEST_CHILD").is_some() {
        let error = listen_fds().unwrap_err();
        assert!(error.to_string().contains("descriptor 3"), "{error}");
        std::process::exit(0);
    }
    let script = "LISTEN_PID=$$ exec \"$@\" 3<&- 4<&-";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture", "--test-threads=1"]);
    command.env("LISTEN_FDS", "2").env("GREENLING_TEST_CHILD", NAME);
    let output = common::output_of(command);
    assert!(output.status.success(), "{}", common::stderr(&output));
}
