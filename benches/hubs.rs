//! The cost of crossing from one hub to another, and what a second hub adds.
//!
//! ```text
//! cargo bench --bench hubs                        all rows
//! cargo bench --bench hubs -- cross-hub           rows with a name that begins so
//! cargo bench --bench hubs -- --json FILE         the figures as a file, too
//! ```
//!
//! Each line is: name, value, unit, ratio to corosensei's raw pair of resume and suspend (taken right before and after;
//! `-` where the unit is no time of one operation). Values are medians. The hubs are pinned to one core each.
//!
//! * `cross-hub/wake-latency`: from `Thread::unpark` on one hub until the thread that slept on the other runs; that hub
//!   was idle, so this is an eventfd, an epoll and the kernel's wake-up of an OS thread, which is most of it.
//! * `cross-hub/ping-pong`: a number goes there and back through two channels; both hubs fall asleep in between.
//! * `cross-hub/throughput`: one way through one channel with room for 1024; nanoseconds a value.
//! * `cross-hub/spawn+join`: `HubHandle::spawn` and the join of the handle.
//! * `local/...`: the same work on one hub, and on two at once: CPU time of a unit, then units a second of all hubs
//!   together. The ratio of these rows is that to one hub: if nothing is shared, the CPU time stays, and the rate
//!   doubles, as far as no other program uses the two cores. `local/raw-pair` says how far: its two OS threads share
//!   nothing at all.
//! * `echo/...`: `echo_server --hubs N`, 64-byte requests on 50 connections; the server's CPU per request, then
//!   requests a second. The driver, two OS threads of this process, runs on the same cores, so with two cores the
//!   throughput says little about the server; the CPU per request is the honest figure. The ratio is that to one hub.
//! * `scale/...`: the same work on 1, 2, 4 .. hubs at once, up to the cores of the machine; the ratio is the part of
//!   linear, and a graph of bars follows. `yield` and `spawn+join` share nothing; `echo` and `http` have both ends of
//!   their connections on one hub, so that no driver takes a core, and share the kernel; in `channels` each hub sends to
//!   the next one, and one hub to itself.
//! * `skew/...`: how many of 8 connections the hub with the most has, in mean shares, by the kernel's hash
//!   (SO_REUSEPORT) and with `TcpServer::hubs`. Counts, not times.
//! * `model/...`: what a request costs a hub, and what a connection costs the hub that accepts for others; then what a
//!   small queueing model makes of that for up to 64 cores, with its assumptions. `benches/many-cores` runs the last
//!   three.

// The CPU time of an OS thread has no counterpart in std.
#![allow(unsafe_code)]

#[path = "results/mod.rs"]
mod results;
#[path = "scale/mod.rs"]
mod scale;

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use std::{env, fs};

use corosensei::Coroutine;
use greenling::net::TcpStream;
use greenling::{Hubs, hub, spawn, thread, yield_now};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rounds of each row.
const ROUNDS: usize = 7;

/// Connections of the echo rows.
const CONNECTIONS: usize = 50;

/// Bytes of an echo request.
const MESSAGE: usize = 64;

/// Nanoseconds since `start`, over `units`.
fn each(start: Instant, units: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / units as f64
}

/// `count` times one resume and one suspend of a coroutine that does nothing else.
fn raw_pairs(count: u64) {
    let mut coroutine = Coroutine::new(move |yielder: &corosensei::Yielder<(), ()>, ()| {
        for _ in 1..count {
            yielder.suspend(());
        }
    });
    (0..count).for_each(|_| _ = black_box(coroutine.resume(())));
}

/// Nanoseconds for one of them.
fn raw_pair() -> f64 {
    const N: u64 = 2_000_000;
    let start = Instant::now();
    raw_pairs(N);
    each(start, N)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs `main` on `count` hubs, each on a core of its own.
fn on_hubs<T: Send + 'static>(count: usize, main: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let hubs = Hubs::new(count).pin(true).start(main).expect("hubs");
    hubs.join().into_iter().map(|result| result.expect("a hub that returns")).collect()
}

/// The median of many: nanoseconds from an unpark here until the thread runs there.
fn wake_latency() -> f64 {
    const N: usize = 300;
    let (clock, called) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let (tell, told) = hub::channel::<thread::Thread>(Some(1));
    let results = on_hubs(2, move |index| {
        // Never 0, which says that the last call has been heard. Release and Acquire pair with each other, so that two
        // unparks do not melt into one.
        let now = || clock.elapsed().as_nanos() as u64 + 1;
        if index == 0 {
            let mut latencies = Vec::with_capacity(N);
            tell.send(thread::current()).expect("the other hub");
            for _ in 0..N {
                thread::park();
                latencies.push((now() - called.load(Ordering::Acquire)) as f64);
                called.store(0, Ordering::Release);
            }
            return median(&mut latencies);
        }
        let sleeper = told.recv().expect("the other hub");
        for _ in 0..N {
            // Long enough for the other to fall asleep.
            std::thread::sleep(Duration::from_micros(300));
            called.store(now(), Ordering::Release);
            sleeper.unpark();
            while called.load(Ordering::Acquire) != 0 {
                std::thread::yield_now();
            }
        }
        0.0
    });
    results[0]
}

/// Measures a round trip through two channels, in nanoseconds.
fn ping_pong() -> f64 {
    const N: u64 = 10_000;
    let (ping, pinged) = hub::channel(Some(1));
    let (pong, ponged) = hub::channel(Some(1));
    // Each hub has one side; the first one's time counts.
    let results = on_hubs(2, move |index| {
        let start = Instant::now();
        for n in 0..N {
            if index == 0 {
                ping.send(n).expect("the other hub");
                assert_eq!(ponged.recv(), Ok(n));
            } else {
                pong.send(pinged.recv().expect("the other hub")).expect("the other hub");
            }
        }
        each(start, N)
    });
    results[0]
}

/// Measures each value of a stream that goes one way, in nanoseconds.
fn throughput() -> f64 {
    const N: u64 = 1_000_000;
    let (sender, receiver) = hub::channel(Some(1024));
    let results = on_hubs(2, move |index| {
        let start = Instant::now();
        for n in 0..N {
            if index == 0 {
                sender.send(n).expect("the other hub");
            } else {
                assert_eq!(receiver.recv(), Ok(n));
            }
        }
        each(start, N)
    });
    results[1]
}

/// Measures a closure that runs on the other hub, with the result, in nanoseconds.
fn remote_spawn() -> f64 {
    const N: u64 = 10_000;
    let (tell, told) = hub::channel(Some(1));
    let (stop, stopped) = hub::channel::<()>(Some(1));
    let results = on_hubs(2, move |index| {
        // The first hub only lends itself, until the second is done.
        if index == 0 {
            tell.send(hub::handle()).expect("the other hub");
            stopped.recv().expect("the other hub");
            return 0.0;
        }
        let there = told.recv().expect("the other hub");
        let start = Instant::now();
        for n in 0..N {
            assert_eq!(there.spawn(move || n).join().expect("a thread that returns"), n);
        }
        let result = each(start, N);
        stop.send(()).expect("the other hub");
        result
    });
    results[1]
}

/// Returns the CPU time of the calling OS thread in seconds.
fn cpu_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live place for the answer (clock_gettime(2)).
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Returns CPU nanoseconds for a unit of `work`, and millions of units a second, all hubs together.
fn at_once(hubs: usize, units: u64, work: fn(u64)) -> (f64, f64) {
    let gate = Barrier::new(hubs);
    let times = on_hubs(hubs, move |_| {
        work(units / 10);
        gate.wait();
        let (start, cpu) = (Instant::now(), cpu_time());
        work(units);
        (cpu_time() - cpu, start.elapsed().as_secs_f64())
    });
    let all = (hubs as u64 * units) as f64;
    let (cpu, longest) = times.iter().fold((0.0, 0.0_f64), |(sum, most), (cpu, wall)| (sum + cpu, most.max(*wall)));
    (cpu / all * 1e9, all / longest / 1e6)
}

/// Makes `count` yields in two threads.
fn yields(count: u64) {
    let threads = [(); 2].map(|()| spawn(move || (0..count / 2).for_each(|_| yield_now())));
    threads.into_iter().for_each(|thread| thread.join().expect("a thread that only yields"));
}

/// Makes `count` spawns and joins.
fn spawns(count: u64) {
    let mut handles = Vec::with_capacity(1000);
    for _ in 0..count / 1000 {
        handles.extend((0..1000_u64).map(|n| spawn(move || n)));
        handles.drain(..).for_each(|thread| drop(black_box(thread.join())));
    }
}

/// A running echo server. Dropping it ends the process.
struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    /// `echo_server --hubs N`, built first.
    fn start(hubs: usize) -> Outcome<Server> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target directory")?;
        let status = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--release", "--example", "echo_server", "--target-dir"])
            .arg(target)
            .status()?;
        if !status.success() {
            return Err("the echo server cannot be built".into());
        }
        let mut command = Command::new(target.join("release/examples/echo_server"));
        command.args(["--quiet", "--addr", "127.0.0.1:0", "--hubs", &hubs.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("no standard output")?;
        // From here on a failure drops `server` and with it the process.
        let mut server = Server { child, addr: SocketAddr::from(([0; 4], 0)) };
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next().transpose()? {
            if let Some((_, rest)) = line.split_once("listening on ") {
                let addr = rest.split_whitespace().next().unwrap_or_default();
                server.addr = addr.trim_end_matches(|c: char| !c.is_ascii_digit()).parse()?;
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(server);
            }
        }
        Err("the echo server ended before it listened".into())
    }

    /// Nanoseconds on a CPU so far, all OS threads of the process.
    fn run_time(&self) -> Outcome<u64> {
        // The kernel adds the last slice when the OS thread goes to sleep.
        std::thread::sleep(Duration::from_millis(5));
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split_whitespace().next().ok_or("empty schedstat")?.parse::<u64>()?;
        }
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // fails only if the child has ended already
        let _ = self.child.wait();
    }
}

/// Sends `requests` requests on each of the connections, from two OS threads with a hub each.
fn drive(addr: SocketAddr, requests: u64) {
    let one = move || {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let mut bytes = [7_u8; MESSAGE];
        for _ in 0..requests {
            stream.write_all(&bytes).expect("a request");
            stream.read_exact(&mut bytes).expect("a reply");
        }
    };
    // One driver alone could not keep two hubs busy.
    let drivers = [(); 2].map(|()| {
        std::thread::spawn(move || {
            let clients: Vec<_> = (0..CONNECTIONS / 2).map(|_| spawn(one)).collect();
            clients.into_iter().for_each(|client| client.join().expect("a client"));
        })
    });
    drivers.into_iter().for_each(|driver| driver.join().expect("a driver"));
}

/// Returns the CPU time per request, in ns, and the requests a second of the echo server with `hubs` hubs, in each round.
fn echo(hubs: usize) -> Outcome<(Vec<f64>, Vec<f64>)> {
    const REQUESTS: u64 = 2000;
    let server = Server::start(hubs)?;
    drive(server.addr, REQUESTS / 10);
    let (mut cpu, mut rate) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (before, start) = (server.run_time()?, Instant::now());
        drive(server.addr, REQUESTS);
        let total = CONNECTIONS as u64 * REQUESTS;
        rate.push(total as f64 / start.elapsed().as_secs_f64());
        cpu.push((server.run_time()? - before) as f64 / total as f64);
    }
    Ok((cpu, rate))
}

/// A row's name, and what measures the row in nanoseconds.
type Crossing = (&'static str, fn() -> f64);

/// A row's name, how many units are done, and what does them.
type LocalWork = (&'static str, u64, fn(u64));

/// Prints a row, and notes it for the file: the name, the median of the values with its unit, and the ratio.
fn print(name: &str, values: &mut [f64], unit: &str, ratio: f64) {
    let value = median(values);
    results::note(name, unit, values, Some(ratio));
    println!("{name:<28} {value:>12.1} {unit:<8} {ratio:>12.2}");
}

/// What words after `--` choose from.
const NAMES: [&str; 15] = [
    "cross-hub/wake-latency",
    "cross-hub/ping-pong",
    "cross-hub/throughput",
    "cross-hub/spawn+join",
    "local/raw-pair",
    "local/yield",
    "local/spawn+join",
    "echo",
    "scale/yield",
    "scale/spawn+join",
    "scale/channels",
    "scale/echo",
    "scale/http",
    "skew",
    "model",
];

fn main() -> Outcome<()> {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    results::take_option("hubs", &mut arguments)?;
    let wanted: Vec<String> = arguments.iter().filter(|arg| !arg.starts_with("--")).cloned().collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted.as_str()));
    // A name that no row begins with is a typing error.
    let unknown = arguments.into_iter().find(|arg| {
        arg != "--bench" && (arg.starts_with("--") || !NAMES.iter().any(|name| name.starts_with(arg.as_str())))
    });
    if let Some(unknown) = unknown {
        eprintln!("hubs: nothing begins with {unknown}; there are the rows {}", NAMES.join(", "));
        std::process::exit(2);
    }
    println!("{:<28} {:>12} {:<8} {:>12}", "name", "value", "unit", "ratio-to-raw");
    let crossings: [Crossing; 4] = [
        ("cross-hub/wake-latency", wake_latency),
        ("cross-hub/ping-pong", ping_pong),
        ("cross-hub/throughput", throughput),
        ("cross-hub/spawn+join", remote_spawn),
    ];
    for (name, measure) in crossings.into_iter().filter(|(name, _)| wants(name)) {
        let (mut values, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            // The yardstick before and after, so that drift of the machine hits both.
            let before = raw_pair();
            values.push(measure());
            ratios.push(values[values.len() - 1] / ((before + raw_pair()) / 2.0));
        }
        print(name, &mut values, "ns", median(&mut ratios));
    }
    let works: [LocalWork; 3] = [
        ("local/raw-pair", 20_000_000, raw_pairs),
        ("local/yield", 20_000_000, yields),
        ("local/spawn+join", 2_000_000, spawns),
    ];
    // The same work on one hub, and on two at once.
    for (name, units, work) in works.into_iter().filter(|(name, ..)| wants(name)) {
        let (mut cpu, mut rate) = ([vec![], vec![], vec![]], [vec![], vec![], vec![]]);
        for _ in 0..ROUNDS {
            let (one, two) = (at_once(1, units, work), at_once(2, units, work));
            for (list, value) in cpu.iter_mut().zip([one.0, two.0, two.0 / one.0]) {
                list.push(value);
            }
            for (list, value) in rate.iter_mut().zip([one.1, two.1, two.1 / one.1]) {
                list.push(value);
            }
        }
        let ([one, two, ratio], [slow, fast, gain]) = (&mut cpu, &mut rate);
        print(&format!("{name}/cpu, 1 hub"), one, "ns", 1.0);
        print(&format!("{name}/cpu, 2 hubs"), two, "ns", median(ratio));
        print(&format!("{name}/rate, 1 hub"), slow, "M/s", 1.0);
        print(&format!("{name}/rate, 2 hubs"), fast, "M/s", median(gain));
    }
    if wants("echo") {
        let ((mut one, mut slow), (mut two, mut fast)) = (echo(1)?, echo(2)?);
        let (cost, gain) = (median(&mut two) / median(&mut one), median(&mut fast) / median(&mut slow));
        print("echo/cpu, 1 hub", &mut one, "ns", 1.0);
        print("echo/cpu, 2 hubs", &mut two, "ns", cost);
        print("echo/rate, 1 hub", &mut slow, "1/s", 1.0);
        print("echo/rate, 2 hubs", &mut fast, "1/s", gain);
    }
    scale::graph(wants, print);
    if wants("skew") {
        scale::skews(print)?;
    }
    if wants("model") {
        scale::simulate(print)?;
    }
    results::write()?;
    Ok(())
}
