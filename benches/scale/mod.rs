//! How near to linear: the same work on 1, 2, 4 .. hubs at once, up to the cores of the machine, as a graph; who gets
//! how many of few connections; and what a model makes of the costs for more cores than there are.
#![forbid(unsafe_code)]

pub(crate) mod model;

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use greenling::hub::{self, HubHandle, RemoteReceiver, RemoteSender};
use greenling::net::{TcpListener, TcpStream};
use greenling::server::TcpServer;
use greenling::{Hubs, sleep, spawn};

use self::model::Costs;
use super::{MESSAGE, ROUNDS, cpu_time, median, on_hubs, spawns, yields};

/// Connections of each hub in the rows of sockets.
const PAIRS: usize = 20;

/// Connections of the rows about skew.
const FEW: usize = 8;

/// The width of a bar that is exactly linear.
const BAR: usize = 40;

/// What a client of the HTTP rows sends, and what it gets.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What each hub does; the number is the work of one hub.
type Work = fn(hubs: usize, units: u64) -> f64;

/// The rows: a name, the units of each hub, what does them, and the unit for people.
const WORKS: [(&str, u64, Work); 5] = [
    ("scale/yield", 10_000_000, |hubs, units| at_once(hubs, units, |_, units| yields(units))),
    ("scale/spawn+join", 500_000, |hubs, units| at_once(hubs, units, |_, units| spawns(units))),
    ("scale/channels", 300_000, channels),
    ("scale/echo", 40_000, |hubs, units| at_once(hubs, units, |_, units| sockets(units, &[7; MESSAGE], &[7; MESSAGE]))),
    ("scale/http", 40_000, |hubs, units| at_once(hubs, units, |_, units| sockets(units, REQUEST, RESPONSE))),
];

/// The counts of hubs: 1, 2, 4 .. and the number of cores.
fn counts() -> Vec<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts: Vec<_> =
        std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|n| *n < cores).collect();
    counts.push(cores);
    counts
}

/// Returns the thousands of units a second of all hubs together, each pinned to a core.
fn at_once(hubs: usize, units: u64, work: fn(usize, u64)) -> f64 {
    let gate = Barrier::new(hubs);
    let times = on_hubs(hubs, move |index| {
        work(index, units / 10);
        gate.wait();
        let start = Instant::now();
        work(index, units);
        start.elapsed().as_secs_f64()
    });
    (hubs as u64 * units) as f64 / times.into_iter().fold(0.0, f64::max) / 1e3
}

/// Each hub sends to the next one, in a ring; with one hub, to itself, which crosses nothing: so the graph of this row
/// has its step from one to two.
fn channels(hubs: usize, units: u64) -> f64 {
    let (senders, mut receivers): (Vec<RemoteSender<u64>>, Vec<_>) =
        (0..hubs).map(|_| hub::channel(Some(1024))).unzip();
    let senders = Mutex::new(senders.into_iter().map(Some).collect::<Vec<_>>());
    receivers.rotate_left(1 % hubs);
    let receivers: Mutex<Vec<Option<RemoteReceiver<u64>>>> = Mutex::new(receivers.into_iter().map(Some).collect());
    let gate = Barrier::new(hubs);
    let times = on_hubs(hubs, move |index| {
        let sender = senders.lock().expect("no panic")[index].take().expect("one for each");
        let receiver = receivers.lock().expect("no panic")[index].take().expect("one for each");
        gate.wait();
        let start = Instant::now();
        let sends = spawn(move || (0..units).for_each(|n| sender.send(n).expect("the next hub")));
        (0..units).for_each(|_| _ = receiver.recv().expect("the hub before"));
        sends.join().expect("a thread that returns");
        start.elapsed().as_secs_f64()
    });
    (hubs as u64 * units) as f64 / times.into_iter().fold(0.0, f64::max) / 1e3
}

/// Makes `units` requests over loopback connections, of which the hub has both ends.
fn sockets(units: u64, request: &'static [u8], response: &'static [u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a socket");
    let serve = move |mut stream: TcpStream, _| -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buf = vec![0; request.len()];
        while stream.read_exact(&mut buf).is_ok() {
            // A fixed request has a fixed answer: nothing is parsed, for this is about cores.
            stream.write_all(response)?;
        }
        Ok(())
    };
    let server = TcpServer::new(listener).start(serve).expect("a server");
    let clients = [(); PAIRS].map(|()| {
        spawn(move || {
            let mut stream = TcpStream::connect(addr).expect("it listens");
            stream.set_nodelay(true).expect("a socket");
            let mut buf = vec![0; response.len()];
            for _ in 0..units / PAIRS as u64 {
                stream.write_all(request).expect("a request");
                stream.read_exact(&mut buf).expect("an answer");
            }
        })
    });
    clients.into_iter().for_each(|client| client.join().expect("a client"));
    drop(server.drain());
}

/// Prints a bar: the part of linear, `BAR` characters if all of it.
fn bar(name: &str, hubs: usize, rate: f64, part: f64) {
    let filled = ((part * BAR as f64).round() as usize).min(2 * BAR);
    let bar: String = (0..BAR.max(filled)).map(|at| if at < filled { '#' } else { '.' }).collect();
    println!("  {name:<18} {hubs:>3} hubs {rate:>10.1} k/s {:>4.0} % |{bar}|", part * 100.0);
}

/// Measures the rows of the graph that are wanted. Each ratio is the part of linear: 1 if N hubs do N times as much.
pub(crate) fn graph(wants: impl Fn(&str) -> bool, mut print: impl FnMut(&str, &mut [f64], &str, f64)) {
    let mut bars = Vec::new();
    for (name, units, work) in WORKS.into_iter().filter(|(name, ..)| wants(name)) {
        let mut rates: Vec<(usize, Vec<f64>)> = counts().into_iter().map(|count| (count, Vec::new())).collect();
        // In turns, so that drift of the machine hits all counts.
        for _ in 0..ROUNDS {
            rates.iter_mut().for_each(|(hubs, values)| values.push(work(*hubs, units)));
        }
        let one = median(&mut rates[0].1);
        for (hubs, values) in &mut rates {
            let rate = median(values);
            let part = rate / one / *hubs as f64;
            print(&format!("{name}/{hubs}"), values, "k/s", part);
            bars.push((name, *hubs, rate, part));
        }
    }
    if !bars.is_empty() {
        println!("\nhow near to linear: a full bar is N times the rate of one hub\n");
        bars.into_iter().for_each(|(name, hubs, rate, part)| bar(name, hubs, rate, part));
        println!();
    }
}

/// Returns how many of [`FEW`] connections each of `hubs` listeners gets, by the kernel's hash.
fn by_kernel(hubs: usize) -> Outcome<Vec<usize>> {
    let first = TcpListener::bind_reuse_port("127.0.0.1:0")?;
    let addr = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..hubs {
        listeners.push(TcpListener::bind_reuse_port(addr)?);
    }
    let clients: Vec<_> = (0..FEW).map(|_| StdStream::connect(addr)).collect::<Result<_, _>>()?;
    let mut shares = Vec::new();
    for listener in &listeners {
        listener.set_nonblocking(true)?;
        shares.push(std::iter::from_fn(|| listener.accept().ok()).count());
    }
    drop(clients);
    Ok(shares)
}

/// Hubs that wait until they are dropped.
struct Waiting {
    hubs: greenling::RunningHubs<()>,
    stop: RemoteSender<()>,
}

impl Waiting {
    fn start(count: usize) -> Outcome<Waiting> {
        let (stop, stopped) = hub::channel::<()>(None);
        let hubs = Hubs::new(count).name("skew").start(move |_| _ = stopped.recv())?;
        Ok(Waiting { hubs, stop })
    }

    fn handles(&self) -> Vec<HubHandle> {
        (0..self.hubs.len()).map(|index| self.hubs.handle(index)).collect()
    }

    fn end(self) {
        drop(self.stop);
        drop(self.hubs.join());
    }
}

/// Returns the same for the opt-in: each connection to the hub with the fewest.
fn by_load(hubs: &Waiting) -> Outcome<Vec<usize>> {
    let shares = Arc::new(Mutex::new(std::collections::HashMap::new()));
    let serve = {
        let shares = Arc::clone(&shares);
        move |mut stream: TcpStream, _| {
            *shares.lock().expect("no panic").entry(std::thread::current().id()).or_insert(0) += 1;
            stream.write_all(b"!")?;
            stream.read(&mut [0])
        }
    };
    let server = TcpServer::bind("127.0.0.1:0")?.hubs(hubs.handles()).start(serve)?;
    let mut clients: Vec<_> = (0..FEW).map(|_| TcpStream::connect(server.local_addr())).collect::<Result<_, _>>()?;
    // Each is served, and none ends before.
    clients.iter_mut().try_for_each(|client| client.read_exact(&mut [0]))?;
    drop(clients);
    server.drain()?;
    let mut shares: Vec<usize> = shares.lock().expect("no panic").values().copied().collect();
    shares.resize(hubs.hubs.len(), 0);
    Ok(shares)
}

/// Measures the rows about skew: the most that one hub has, over the mean, with few connections.
pub(crate) fn skews(mut print: impl FnMut(&str, &mut [f64], &str, f64)) -> Outcome<()> {
    for count in [2, 4, 8] {
        let (mut kernel, mut load) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            kernel.push(model::skew(&by_kernel(count)?));
        }
        let hubs = Waiting::start(count)?;
        for _ in 0..20 {
            load.push(model::skew(&by_load(&hubs)?));
        }
        hubs.end();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let (by_kernel, by_load) = (mean(&kernel), mean(&load));
        println!("skew: {FEW} connections, {count} hubs; the most that a hub has, in mean shares");
        println!("  SO_REUSEPORT       {by_kernel:.2} on average, {:.2} at worst, of 200", worst(&kernel));
        println!("  TcpServer::hubs    {by_load:.2} on average, {:.2} at worst, of 20", worst(&load));
        print(&format!("skew/reuse-port/{count}"), &mut kernel, "x mean", by_kernel);
        print(&format!("skew/least/{count}"), &mut load, "x mean", by_load);
    }
    Ok(())
}

/// Measures the CPU of a connection on the hub that accepts, in seconds: accept, hand-over, and nothing else.
fn hand_over() -> Outcome<f64> {
    const CONNECTIONS: usize = 2000;
    let hubs = Waiting::start(1)?;
    // The hub that accepts is one of its own, so that the clients' CPU is not in the figure.
    let (tell, told) = hub::channel(Some(1));
    let handles = hubs.handles();
    let front = std::thread::spawn(move || {
        let server = TcpServer::bind("127.0.0.1:0").expect("a free port").hubs(handles);
        let addr = server.local_addr().expect("a socket");
        let server = server.start(|_stream, _peer| ()).expect("a server");
        let before = cpu_time();
        tell.send((addr, server.handle().clone())).expect("the driver");
        let report = server.join().expect("no panic");
        (cpu_time() - before) / report.counters.accepted.max(1) as f64
    });
    let (addr, handle) = told.recv()?;
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(addr)?;
        // The other side closes.
        let _ = stream.read(&mut [0]);
    }
    handle.drain();
    let cost = greenling::blocking(move || front.join()).map_err(|_| "the hub that accepts has panicked")?;
    hubs.end();
    Ok(cost)
}

/// Measures the CPU of an echo request on the server's hub, in seconds: the clients are on another OS thread.
fn request() -> Outcome<f64> {
    const REQUESTS: u64 = 1000;
    let (tell, told) = hub::channel::<(SocketAddr, greenling::server::ServerHandle)>(Some(1));
    let served = std::thread::spawn(move || {
        let server = TcpServer::bind("127.0.0.1:0").expect("a free port");
        let server = server.start(|stream: TcpStream, _| io::copy(&mut &stream, &mut &stream)).expect("a server");
        let before = cpu_time();
        tell.send((server.local_addr(), server.handle().clone())).expect("the driver");
        drop(server.join());
        (cpu_time() - before) / (PAIRS as u64 * REQUESTS) as f64
    });
    let (addr, handle) = told.recv()?;
    let clients = [(); PAIRS].map(|()| {
        spawn(move || {
            let mut stream = TcpStream::connect(addr)?;
            for _ in 0..REQUESTS {
                stream.write_all(&[7; MESSAGE])?;
                stream.read_exact(&mut [0; MESSAGE])?;
            }
            Ok::<(), io::Error>(())
        })
    });
    for client in clients {
        client.join()??;
    }
    // The last ends of streams are no requests.
    sleep(Duration::from_millis(10));
    handle.drain();
    greenling::blocking(move || served.join()).map_err(|_| "the server has panicked".into())
}

/// Measures the costs, and prints what the model makes of them.
pub(crate) fn simulate(mut print: impl FnMut(&str, &mut [f64], &str, f64)) -> Outcome<()> {
    let (mut requests, mut hand_overs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        requests.push(request()? * 1e9);
        hand_overs.push(hand_over()? * 1e9);
    }
    let costs = Costs { request: median(&mut requests) / 1e9, hand_over: median(&mut hand_overs) / 1e9 };
    print("model/request", &mut requests, "ns", 1.0);
    print("model/hand-over", &mut hand_overs, "ns", costs.hand_over / costs.request);
    println!("\na model of more cores than there are. It assumes that");
    model::ASSUMPTIONS.iter().for_each(|line| println!("  - {line}"));
    println!("At most {:.0} new connections a second can be handed over.\n", model::most_accepts(costs));
    println!("                          times the rate of one hub");
    println!("connections  think   hubs     SO_REUSEPORT  TcpServer::hubs  largest share by hash");
    for (each, busy) in [(2, 0.0), (8, 0.0), (8, 4.0), (64, 32.0)] {
        for hubs in [1, 2, 4, 8, 16, 32, 64] {
            let told = model::predict(hubs, each * hubs, costs, busy * costs.request);
            println!(
                "{:>11} {:>4.0} us {:>6} {:>16.1} {:>16.1} {:>16.2} x mean",
                each * hubs,
                busy * costs.request * 1e6,
                told.hubs,
                told.hashed,
                told.least,
                told.skew
            );
        }
    }
    Ok(())
}
