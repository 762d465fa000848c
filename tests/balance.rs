//! A server of several hubs (`TcpServer::hubs`): who gets which connection, what holds over all hubs together, and what
//! becomes of connections when a hub ends.
#![forbid(unsafe_code)]

mod common;
#[path = "common/drained.rs"]
mod drained;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::Random;
use drained::{adds_up, drain};
use greenling::hub::{self, HubHandle, RemoteSender};
use greenling::net::TcpStream;
use greenling::server::{Limit, ServerHandle, TcpServer};
use greenling::{shield, sleep, spawn, yield_now};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

thread_local! {
    /// The number of the hub; set by its main.
    static HUB: Cell<u8> = const { Cell::new(u8::MAX) };
}

/// An OS thread with a hub, which can be ended alone.
struct Other {
    handle: HubHandle,
    stop: RemoteSender<()>,
    os: std::thread::JoinHandle<()>,
    /// Blocks the hub's OS thread when told to, until the second end of the pair is gone; then the hub goes on. Or
    /// until it gets a message; then its main ends, and nothing on the hub has run meanwhile.
    block: mpsc::Sender<(mpsc::Sender<()>, mpsc::Receiver<()>)>,
}

/// How the main of a hub ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// With `hub::shutdown`, as under `Hubs`.
    Unwinds,
    /// Its green threads are given up.
    GivesUp,
}

impl Other {
    fn start(number: u8, end: End) -> Other {
        let (stop, stopped) = hub::channel::<()>(None);
        let (block, blocked) = mpsc::channel::<(mpsc::Sender<()>, mpsc::Receiver<()>)>();
        let (send, receive) = mpsc::channel();
        let os = std::thread::spawn(move || {
            HUB.set(number);
            send.send(hub::handle()).unwrap();
            // Either the hub turns, or its OS thread waits in a call of std.
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                if let Ok((tell, until)) = blocked.try_recv() {
                    tell.send(()).unwrap();
                    if until.recv().is_ok() {
                        break;
                    }
                }
                sleep(Duration::from_millis(1));
            }
            if end == End::Unwinds {
                hub::shutdown();
            }
        });
        Other { handle: receive.recv().unwrap(), stop, os, block }
    }

    /// Blocks the OS thread, until the result is dropped; with a message main ends.
    fn block(&self) -> mpsc::Sender<()> {
        let (tell, told) = mpsc::channel();
        let (go_on, until) = mpsc::channel();
        self.block.send((tell, until)).unwrap();
        greenling::blocking(move || told.recv().unwrap());
        go_on
    }

    fn end(self) {
        drop((self.stop, self.handle));
        greenling::blocking(move || self.os.join().unwrap());
    }
}

/// Hubs with the numbers from 0 on.
fn others(count: u8) -> Vec<Other> {
    (0..count).map(|number| Other::start(number, End::Unwinds)).collect()
}

fn handles(hubs: &[Other]) -> Vec<HubHandle> {
    hubs.iter().map(|hub| hub.handle.clone()).collect()
}

/// Lets green threads run until `done`.
#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < patience, "never: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// A server on a free port.
fn bind() -> TcpServer {
    TcpServer::bind(common::free_address()).expect("a free port").grace(LONG)
}

/// Tells the number of the hub, then answers each byte until the end of the stream; a `p` with a panic, an `e` with an
/// error.
fn serve(mut stream: TcpStream, _: SocketAddr) -> io::Result<()> {
    stream.write_all(&[HUB.get()])?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        match byte[0] {
            b'p' => panic!("asked to"),
            b'e' => return Err(ErrorKind::InvalidData.into()),
            _ => stream.write_all(&byte)?,
        }
    }
    Ok(())
}

/// A connection, and the number of the hub that serves it.
struct Client {
    stream: TcpStream,
    hub: u8,
}

/// Connects, and does not wait for the server.
fn connect(addr: SocketAddr) -> TcpStream {
    let stream = StdStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(120))).expect("not zero");
    TcpStream::from(stream)
}

impl Client {
    /// Waits until a hub has begun.
    #[track_caller]
    fn of(mut stream: TcpStream) -> Client {
        let mut hub = [0];
        stream.read_exact(&mut hub).expect("a hub that serves");
        Client { stream, hub: hub[0] }
    }

    fn connect(addr: SocketAddr) -> Client {
        Client::of(connect(addr))
    }

    #[track_caller]
    fn ask(&mut self) {
        let mut answer = [0];
        self.stream.write_all(b"?").expect("it is served");
        self.stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"?");
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// Connects `count` clients, one after the other.
fn connect_all(addr: SocketAddr, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::connect(addr)).collect()
}

/// How many of the clients each of the first `hubs` hubs has.
fn shares(clients: &[Client], hubs: u8) -> Vec<usize> {
    (0..hubs).map(|hub| clients.iter().filter(|client| client.hub == hub).count()).collect()
}

// ---- which hub ------------------------------------------------------------------------------------------------------

#[test]
fn of_thirty_long_connections_each_of_three_hubs_has_ten() {
    let _guard = common::guard();
    let hubs = others(3);
    let limit = Limit::new(100);
    let server = bind().limit(&limit).hubs(handles(&hubs)).start(serve).unwrap();
    // Together, so that many are in the kernel's queue at once.
    let streams: Vec<_> = (0..30).map(|_| connect(server.local_addr())).collect();
    let mut clients: Vec<_> = streams.into_iter().map(Client::of).collect();
    assert_eq!(shares(&clients, 3), [10, 10, 10]);
    clients.iter_mut().for_each(Client::ask);
    assert_eq!((server.counters().active(), limit.in_use()), (30, 30));
    let report = drain(server);
    assert_eq!((report.active_at_start, report.closed_idle, report.lost_hubs), (30, 30, 0));
    assert!(clients.iter_mut().all(Client::is_closed));
    assert_eq!(limit.in_use(), 0);
    hubs.into_iter().for_each(Other::end);
}

#[test]
fn a_hub_of_which_connections_have_ended_gets_the_next_ones_however_they_ended() {
    let _guard = common::guard();
    let hubs = others(3);
    let limit = Limit::new(100);
    let server = bind().limit(&limit).hubs(handles(&hubs)).start(serve).unwrap();
    let mut clients = connect_all(server.local_addr(), 30);
    // By the end of the stream, by a panic, by an error.
    for (round, last) in [b"", b"p" as &[u8], b"e"].into_iter().enumerate() {
        let hub = round as u8;
        let mut gone = 0;
        clients.retain_mut(|client| {
            let ends = client.hub == hub && gone < 5;
            if ends {
                gone += 1;
                client.stream.write_all(last).unwrap();
                client.stream.shutdown(Shutdown::Write).unwrap();
            }
            !ends
        });
        until("the places are free", || limit.in_use() == 25);
        let next = connect_all(server.local_addr(), 5);
        assert_eq!(shares(&next, 3)[usize::from(hub)], 5, "all to the hub with the fewest");
        clients.extend(next);
        assert_eq!(shares(&clients, 3), [10, 10, 10]);
    }
    let report = drain(server);
    let counters = report.counters;
    assert_eq!((counters.completed, counters.panicked, counters.failed, counters.closed_idle), (5, 5, 5, 30));
    hubs.into_iter().for_each(Other::end);
}

#[test]
fn the_hub_that_accepts_may_serve_too_and_one_that_is_named_twice_has_two_shares() {
    let _guard = common::guard();
    HUB.set(1);
    let hubs = others(1);
    let three = [hub::handle(), hubs[0].handle.clone(), hub::handle()];
    let server = bind().hubs(three).start(serve).unwrap();
    let clients = connect_all(server.local_addr(), 9);
    assert_eq!(shares(&clients, 2), [3, 6]);
    assert_eq!(drain(server).closed_idle, 9);
    hubs.into_iter().for_each(Other::end);
    until("nothing is left", || hub::live_threads() == 0);
}

#[test]
fn a_kill_ends_a_server_that_serves_on_its_own_hub_and_all_its_handlers() {
    let _guard = common::guard();
    HUB.set(1);
    let limit = Limit::new(100);
    let server = bind().limit(&limit).hubs([hub::handle(), hub::handle()]);
    let addr = server.local_addr().unwrap();
    let runs = spawn(move || server.run(serve));
    let mut clients = connect_all(addr, 4);
    assert_eq!((shares(&clients, 2), limit.in_use()), (vec![0, 4], 4));
    runs.kill();
    assert!(runs.join().unwrap_err().is_killed());
    assert!(clients.iter_mut().all(Client::is_closed));
    until("nothing is left", || hub::live_threads() == 0);
    assert_eq!(limit.in_use(), 0);
}

#[test]
fn a_server_of_no_hubs_is_refused() {
    let error = bind().hubs([]).start(serve).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(bind().hubs([]).run(serve).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn handlers_on_other_hubs_may_have_thread_locals_of_their_own() {
    let _guard = common::guard();
    if greenling::thread::own_thread_locals_supported().is_err() {
        return;
    }
    let hubs = others(2);
    let server = bind().hubs(handles(&hubs)).start_own(|mut stream, _peer| {
        assert_eq!(HUB.get(), u8::MAX, "not those of the hub's main");
        HUB.set(7);
        stream.write_all(&[HUB.get()])
    });
    let server = server.unwrap();
    assert!(connect_all(server.local_addr(), 6).iter().all(|client| client.hub == 7));
    assert_eq!(drain(server).counters.completed, 6);
    hubs.into_iter().for_each(Other::end);
}

#[test]
fn reports_name_the_handlers_by_server_and_client_on_every_hub() {
    let _guard = common::guard();
    let hubs = others(2);
    let server = bind().hubs(handles(&hubs)).start(serve).unwrap();
    let clients = connect_all(server.local_addr(), 4);
    let report = format!("{:#}", hub::all_threads(Duration::from_secs(60)));
    for client in &clients {
        let name = format!("tcp {} <- {}", server.local_addr(), client.stream.local_addr().unwrap());
        assert!(report.contains(&name), "{name} is not in\n{report}");
    }
    assert!(report.contains("a connection that another hub accepts"), "{report}");
    assert_eq!(drain(server).closed_idle, 4);
    hubs.into_iter().for_each(Other::end);
}

// ---- limits ---------------------------------------------------------------------------------------------------------

#[test]
fn the_limit_holds_over_all_hubs_and_the_others_wait_in_the_kernels_queue() {
    let _guard = common::guard();
    let hubs = others(3);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        move |stream: TcpStream, peer| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let result = serve(stream, peer);
            now.fetch_sub(1, Ordering::SeqCst);
            result
        }
    };
    let server = bind().max_connections(5).hubs(handles(&hubs)).start(counted).unwrap();
    let mut waiting: Vec<_> = (0..20).map(|_| connect(server.local_addr())).collect();
    // In turns: the oldest ends, and the next one is served.
    let mut served: Vec<_> = waiting.drain(..5).map(Client::of).collect();
    assert_eq!(server.counters().active(), 5);
    for stream in waiting {
        drop(served.remove(0));
        served.push(Client::of(stream));
    }
    assert_eq!(most.load(Ordering::SeqCst), 5);
    assert_eq!(drain(server).counters.accepted, 20);
    hubs.into_iter().for_each(Other::end);
}

#[test]
fn a_drain_serves_the_queue_although_there_is_room_for_one() {
    let _guard = common::guard();
    let hubs = others(2);
    let server = bind().max_connections(1).hubs(handles(&hubs)).start(serve).unwrap();
    let mut clients: Vec<_> = (0..5).map(|_| connect(server.local_addr())).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"?").unwrap());
    // Each is answered, and says nothing more: idle.
    let until_closed = |stream| {
        move || {
            let mut client = Client::of(stream);
            while !client.is_closed() {}
            client.hub
        }
    };
    let clients: Vec<_> = clients.into_iter().map(|stream| spawn(until_closed(stream))).collect();
    let report = drain(server);
    assert_eq!(report.active_at_start + report.from_backlog, 5);
    assert_eq!((report.turned_away, report.counters.closed_idle), (0, 5));
    clients.into_iter().for_each(|client| assert!(client.join().unwrap() < 2));
    hubs.into_iter().for_each(Other::end);
}

#[test]
fn a_stack_that_cannot_be_had_elsewhere_is_told_here() {
    let _guard = common::guard();
    let hubs = others(2);
    let (told, me) = (std::rc::Rc::new(Cell::new(0)), std::thread::current().id());
    let theirs = std::rc::Rc::clone(&told);
    let tell = move |error: &io::Error| {
        assert_eq!((error.kind(), std::thread::current().id()), (ErrorKind::InvalidInput, me));
        theirs.set(theirs.get() + 1);
    };
    let server = bind().stack_size(1 << 40).on_accept_error(tell).hubs(handles(&hubs)).start(serve).unwrap();
    let mut refused: Vec<_> = (0..4).map(|_| connect(server.local_addr())).collect();
    assert!(refused.iter_mut().all(|client| client.read(&mut [0]).is_ok_and(|len| len == 0)));
    until("it is told four times", || told.get() == 4);
    let report = drain(server);
    assert_eq!((report.counters.accepted, report.counters.refused, report.counters.backoffs), (4, 4, 4));
    hubs.into_iter().for_each(Other::end);
}

// ---- ends -----------------------------------------------------------------------------------------------------------

#[test]
fn a_drain_waits_for_the_busy_handlers_of_all_hubs() {
    let _guard = common::guard();
    let hubs = others(3);
    let ended = Arc::new(AtomicUsize::new(0));
    let (go_on, wait) = hub::channel::<()>(None);
    let busy = {
        let ended = Arc::clone(&ended);
        move |mut stream: TcpStream, _| {
            stream.write_all(&[HUB.get()]).unwrap();
            let _ = wait.recv();
            ended.fetch_add(1, Ordering::SeqCst);
        }
    };
    let told = Arc::new(AtomicUsize::new(0));
    let tell = {
        let told = Arc::clone(&told);
        move |count| told.store(count, Ordering::SeqCst)
    };
    let server = bind().on_drain(tell).hubs(handles(&hubs)).start(busy).unwrap();
    let clients = connect_all(server.local_addr(), 6);
    assert_eq!(shares(&clients, 3), [2, 2, 2]);
    let handle = server.handle().clone();
    let waits = spawn(move || drain(server));
    until("it is told how many there are", || told.load(Ordering::SeqCst) == 6);
    assert!(handle.is_draining());
    assert!(!waits.is_finished());
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    drop(go_on);
    let report = waits.join().unwrap();
    // Those of a hub that has not heard of the drain yet have ended before it, for the report.
    assert_eq!((ended.load(Ordering::SeqCst), report.counters.completed), (6, 6));
    hubs.into_iter().for_each(Other::end);
}

/// A handler that waits for ever, and counts itself when it is unwound.
fn for_ever(unwound: &Arc<AtomicUsize>) -> impl Fn(TcpStream, SocketAddr) + Send + Sync + use<> {
    let unwound = Arc::clone(unwound);
    move |mut stream, _| {
        let counts = Arc::clone(&unwound);
        let _counts = common::OnDrop::new(move || _ = counts.fetch_add(1, Ordering::SeqCst));
        stream.write_all(&[HUB.get()]).unwrap();
        sleep(LONG);
    }
}

#[test]
fn no_grace_and_force_kill_the_handlers_of_all_hubs() {
    let _guard = common::guard();
    for force in [false, true] {
        let hubs = others(2);
        let unwound = Arc::new(AtomicUsize::new(0));
        let server = if force { bind() } else { bind().grace(Duration::ZERO) };
        let server = server.hubs(handles(&hubs)).start(for_ever(&unwound)).unwrap();
        let _clients = connect_all(server.local_addr(), 6);
        let handle = server.handle().clone();
        if force {
            std::thread::spawn(move || handle.force());
        } else {
            handle.drain();
        }
        let report = server.join().unwrap();
        adds_up(&report);
        assert_eq!((report.killed, report.forced), (6, force));
        assert_eq!(unwound.load(Ordering::SeqCst), 6);
        hubs.into_iter().for_each(Other::end);
    }
}

#[test]
fn a_server_that_is_dropped_closes_its_port_and_kills_the_handlers_of_all_hubs() {
    let _guard = common::guard();
    let hubs = others(3);
    let (unwound, limit, handle) = (Arc::new(AtomicUsize::new(0)), Limit::new(50), ServerHandle::new());
    let server = bind().limit(&limit).handle(&handle).hubs(handles(&hubs)).start(for_ever(&unwound)).unwrap();
    let addr = server.local_addr();
    let _clients = connect_all(addr, 9);
    drop(server);
    until("all are killed", || unwound.load(Ordering::SeqCst) == 9 && limit.in_use() == 0);
    until("the port is closed", || StdStream::connect(addr).is_err());
    until("they are counted", || handle.counters().killed == 9 && handle.counters().active() == 0);
    assert!(!handle.is_draining(), "other servers of the handle go on");
    hubs.into_iter().for_each(Other::end);
    until("nothing is left", || hub::live_threads() == 0);
}

#[test]
fn what_a_hub_has_not_begun_when_it_ends_goes_to_the_others() {
    let _guard = common::guard();
    for end in [End::Unwinds, End::GivesUp] {
        let mut hubs = others(2);
        hubs.push(Other::start(2, end));
        let limit = Limit::new(100);
        let server = bind().limit(&limit).hubs(handles(&hubs)).start(serve).unwrap();
        // One connection each, then three each, of which the third hub begins none.
        let first = connect_all(server.local_addr(), 3);
        assert_eq!(shares(&first, 3), [1, 1, 1]);
        let go_on = hubs[2].block();
        let streams: Vec<_> = (0..9).map(|_| connect(server.local_addr())).collect();
        until("all have their places", || limit.in_use() == 12);
        go_on.send(()).unwrap();
        let last = hubs.pop().unwrap();
        drop(last.handle);
        let clients: Vec<_> = streams.into_iter().map(Client::of).collect();
        greenling::blocking(move || last.os.join().unwrap());
        assert_eq!(shares(&clients, 3)[2], 0, "it has begun none, and none is lost");
        // The connection that it had is killed, and holds no place any more.
        until("the place is free", || limit.in_use() == 11);
        let next = connect_all(server.local_addr(), 2);
        assert!(next.iter().all(|client| client.hub < 2), "an ended hub gets nothing");
        let report = drain(server);
        assert_eq!((report.lost_hubs, report.accept_error), (1, None), "{report}");
        assert_eq!((report.counters.killed, report.counters.accepted), (1, 14), "{end:?}");
        assert_eq!(limit.in_use(), 0);
        drop(first);
        hubs.into_iter().for_each(Other::end);
    }
}

#[test]
fn without_any_hub_the_server_ends_and_says_so() {
    let _guard = common::guard();
    for end in [End::Unwinds, End::GivesUp] {
        let hubs: Vec<_> = (0..2).map(|number| Other::start(number, end)).collect();
        let (limit, handle) = (Limit::new(100), ServerHandle::new());
        let server = bind().limit(&limit).handle(&handle).hubs(handles(&hubs)).start(serve).unwrap();
        let addr = server.local_addr();
        let _clients = connect_all(addr, 4);
        let blocks: Vec<_> = hubs.iter().map(Other::block).collect();
        let astray: Vec<_> = (0..4).map(|_| connect(addr)).collect();
        until("all have their places", || limit.in_use() == 8);
        blocks.iter().for_each(|block| block.send(()).unwrap());
        for hub in hubs {
            drop(hub.handle);
            greenling::blocking(move || hub.os.join().unwrap());
        }
        let report = server.join().unwrap();
        assert_eq!((report.lost_hubs, report.accept_error), (2, Some(ErrorKind::NotConnected)));
        adds_up(&report);
        assert!(StdStream::connect(addr).is_err());
        let counters = report.counters;
        assert_eq!((counters.accepted, counters.active(), limit.in_use()), (8, 0, 0), "{report:?}");
        assert_eq!((counters.killed, counters.refused, report.turned_away), (4, 4, 4), "{report:?}");
        // No client is left waiting: those that no hub has begun are closed.
        astray.into_iter().for_each(|mut client| assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_))));
    }
}

#[test]
fn a_hub_that_has_ended_before_the_start_serves_nothing() {
    let _guard = common::guard();
    let mut hubs = others(3);
    let ended = hubs.remove(0);
    let handle = ended.handle.clone();
    ended.end();
    let server = bind().hubs([vec![handle], handles(&hubs)].concat()).start(serve).unwrap();
    let clients = connect_all(server.local_addr(), 8);
    assert_eq!(clients.len(), 8);
    let report = drain(server);
    assert_eq!((report.lost_hubs, report.closed_idle), (1, 8));
    hubs.into_iter().for_each(Other::end);
}

#[test]
fn a_handler_that_swallows_kills_is_stuck_and_reported() {
    let _guard = common::guard();
    let hubs = others(2);
    let (go_on, wait) = hub::channel::<()>(None);
    let stubborn = move |mut stream: TcpStream, _| {
        stream.write_all(&[HUB.get()]).unwrap();
        shield(|| _ = wait.recv());
    };
    let limit = Limit::new(9);
    let server = bind().grace(Duration::ZERO).limit(&limit).hubs(handles(&hubs)).start(stubborn).unwrap();
    let _clients = connect_all(server.local_addr(), 3);
    let report = drain(server);
    assert_eq!((report.stuck, report.killed, limit.in_use()), (3, 0, 3));
    drop(go_on);
    until("they end", || limit.in_use() == 0);
    hubs.into_iter().for_each(Other::end);
}

#[test]
fn a_drain_does_not_wait_for_ever_for_a_hub_that_does_not_turn() {
    let _guard = common::guard();
    let hubs = others(2);
    let limit = Limit::new(9);
    let server = bind().grace(Duration::ZERO).limit(&limit).hubs(handles(&hubs)).start(serve).unwrap();
    let clients = connect_all(server.local_addr(), 2);
    let go_on = hubs[1].block();
    let report = drain(server);
    assert_eq!((report.stuck, report.lost_hubs), (1, 0), "{report:?}");
    drop(go_on);
    // When it turns again it ends its part.
    until("it ends", || limit.in_use() == 0);
    drop(clients);
    hubs.into_iter().for_each(Other::end);
    until("nothing is left", || hub::live_threads() == 0);
}

/// How many descriptors the process has; other tests of this binary open and close some at the same time.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn in_every_order_of_ends_nothing_is_left() {
    // In a process of its own, for the count of descriptors.
    let output = common::child("in_every_order_of_ends_nothing_is_left", || {
        let _guard = common::guard();
        // The hub's own descriptors, and those of workers, are made before the first count.
        let _ = hub::handle();
        greenling::blocking(|| ());
        let before = descriptors();
        // Ends of two hubs, the server and the clients, in all orders.
        for order in 0..24 {
            let (mut left, mut ends) = (vec![0, 1, 2, 3], Vec::new());
            let mut rest = order;
            while !left.is_empty() {
                ends.push(left.remove(rest % left.len()));
                rest /= left.len() + 1;
            }
            let mut hubs: Vec<_> = others(2).into_iter().map(Some).collect();
            let named: Vec<_> = hubs.iter().flatten().map(|hub| hub.handle.clone()).collect();
            let limit = Limit::new(100);
            let mut server = Some(bind().limit(&limit).hubs(named).start(serve).unwrap());
            let addr = server.as_ref().unwrap().local_addr();
            let mut clients = Some(connect_all(addr, 4));
            for end in ends {
                match end {
                    2 if order % 2 == 0 => drop(server.take()),
                    2 => drop(server.take().map(|server| adds_up(&server.drain().unwrap()))),
                    3 => drop(clients.take()),
                    hub => hubs[hub].take().unwrap().end(),
                }
            }
            until("no place is taken", || limit.in_use() == 0);
            until("no thread is left", || hub::live_threads() == 0);
            until("no descriptor is left", || descriptors() == before);
        }
    });
    assert!(output.status.success(), "{} {}", output.status, common::stderr(&output));
}

#[test]
fn under_load_with_hubs_that_end_everything_is_counted_once() {
    const CLIENTS: usize = 300;
    let _guard = common::guard();
    let hubs = others(4);
    let (limit, handle) = (Limit::new(20), ServerHandle::new());
    let server = bind().limit(&limit).handle(&handle).hubs(handles(&hubs)).start(serve).unwrap();
    let addr = server.local_addr();
    // Each connection ends in a way that a seed chooses; the server may end it before.
    let seeds = Mutex::new(Random::new());
    let drivers: Vec<_> = (0..2)
        .map(|_| {
            let seed = seeds.lock().unwrap().next();
            std::thread::spawn(move || {
                let threads: Vec<_> = (0..10_u64)
                    .map(|number| {
                        spawn(move || {
                            let mut random = seed.wrapping_add(number);
                            for _ in 0..CLIENTS / 20 {
                                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                                one_visit(addr, random >> 60);
                            }
                        })
                    })
                    .collect();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            })
        })
        .collect();
    // Two hubs end meanwhile, one after the other.
    let mut hubs = hubs.into_iter();
    for (hub, when) in hubs.by_ref().take(2).zip([CLIENTS / 4, CLIENTS / 2]) {
        until("so many were accepted", || handle.counters().accepted >= when as u64);
        hub.end();
    }
    greenling::blocking(move || drivers.into_iter().for_each(|driver| driver.join().unwrap()));
    until("the places are free", || limit.in_use() == 0);
    let report = drain(server);
    let counters = report.counters;
    assert_eq!((report.lost_hubs, counters.accepted, counters.active()), (2, CLIENTS as u64, 0), "{report:?}");
    assert_eq!(handle.counters(), counters);
    hubs.for_each(Other::end);
}

/// One connection, which ends in one of several ways.
fn one_visit(addr: SocketAddr, way: u64) {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    if way == 0 {
        return;
    }
    // A hub that ends may end it first.
    let Ok(()) = stream.read_exact(&mut [0]) else { return };
    for _ in 0..way % 4 {
        if stream.write_all(b"?").and_then(|()| stream.read_exact(&mut [0])).is_err() {
            return;
        }
        yield_now();
    }
    match way {
        1 => drop(stream.write_all(b"p")),
        2 => drop(stream.write_all(b"e")),
        _ => {}
    }
    drop(stream.shutdown(Shutdown::Write));
    let _ = stream.read(&mut [0]);
}
