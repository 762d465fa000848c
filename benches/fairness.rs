//! How long events wait while others are busy, beside tokio's current-thread runtime in the same run.
//!
//! ```text
//! cargo bench --bench fairness                        all sections
//! cargo bench --bench fairness -- sleep bulk          only these: sleep, flood, bulk
//! cargo bench --bench fairness -- --json FILE         the figures as a file, too
//! cargo bench --bench fairness -- --with old=./echo_server\ --quiet\ --addr\ 127.0.0.1:0     one more server
//! ```
//!
//! * `sleep`: a sleep of 300 ms beside threads that compute for a while and yield, over and over. Printed: when it
//!   ended.
//! * `flood`: an echo server, 4 clients that write as fast as they can and read all answers, and another that sends one
//!   byte and waits for it, again and again. Printed: its round trips.
//! * `bulk`: the same with 20 and 100 such clients and 10 honest ones, which send messages of up to 4 KiB. Printed:
//!   their round trips, and what the bulk clients moved.
//!
//! Servers run on one core, one at a time, and the clients (this process) on another. Each section is several rounds
//! over all servers, in turns; a figure is the median of its rounds. A bar that is missed is printed as MISS; nothing
//! fails.

#[path = "results/mod.rs"]
mod results;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rounds of each section.
const ROUNDS: usize = 5;
/// How long one server is loaded in one round.
const LOADED: Duration = Duration::from_millis(2500);
/// What is not measured at the beginning of a round.
const WARM_UP: Duration = Duration::from_millis(500);
/// What a bulk client writes at once.
const PIECE: usize = 256 * 1024;
/// Honest clients in the section `bulk`.
const HONEST: usize = 10;
/// The first argument of this program for tokio's echo server; the second is the size of the buffers.
const TOKIO_ROLE: &str = "--serve-tokio";

/// By when the sleep must have ended, beside so many threads with slices of so many milliseconds.
const SLEEP_BARS: [(usize, u64, f64); 2] = [(1, 200, 520.0), (4, 10, 350.0)];
/// The longest round trip beside flooding clients, in milliseconds.
const WORST_BAR: f64 = 20.0;
/// The least throughput beside that of a server named `old`.
const THROUGHPUT_BAR: f64 = 0.97;

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(TOKIO_ROLE) {
        let buffer = args.next().and_then(|size| size.parse().ok()).expect("a size");
        return serve_with_tokio(buffer);
    }
    if let Err(error) = run() {
        eprintln!("fairness: {error}");
        std::process::exit(1);
    }
}

fn run() -> Outcome<()> {
    let (mut sections, mut others, mut quick) = (Vec::new(), Vec::new(), true);
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    results::take_option("fairness", &mut words)?;
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(arg) = parser.next()? {
        use lexopt::prelude::*;
        match arg {
            Long("bench") => quick = false,
            Long("with") => {
                let text = parser.value()?.string()?;
                let (name, command) = text.split_once('=').ok_or("--with wants NAME=COMMAND")?;
                let words = command.split_whitespace().map(str::to_owned).collect();
                others.push(Contender { name: name.to_owned(), command: words });
            }
            Value(word) if ["sleep", "flood", "bulk"].iter().any(|known| word == **known) => {
                sections.push(word.string()?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    // The sections, each on the cores that are needed.
    let rounds = if quick { 1 } else { ROUNDS };
    if quick {
        println!("not under `cargo bench`: one round, to see that everything works");
    }
    let wants = |name: &str| sections.is_empty() || sections.iter().any(|section| section == name);
    let cores = Cores::choose()?;
    println!("{:<34} {:>8} {:>8} {:>8} {:>8}", "ms", "median", "90 %", "99 %", "worst");
    if wants("sleep") {
        pin(cores.server)?;
        sleep_section(rounds);
    }
    pin(cores.driver)?;
    let mut contenders = vec![
        Contender { name: "greenling".into(), command: echo_server()? },
        Contender { name: "tokio 16 KiB".into(), command: tokio_server(16)? },
        Contender { name: "tokio 64 KiB".into(), command: tokio_server(64)? },
    ];
    contenders.extend(others);
    if wants("flood") {
        flood_section(&contenders, cores, rounds)?;
    }
    if wants("bulk") {
        bulk_section(&contenders, cores, rounds, 20)?;
        bulk_section(&contenders, cores, rounds, 100)?;
    }
    results::write()?;
    Ok(())
}

/// Prints whether a bar was met.
fn verdict(met: bool, text: &str) {
    println!("{} {text}", if met { "PASS" } else { "MISS" });
}

/// Returns the median of `values`.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// ---- sleep ----------------------------------------------------------------------------------------------------------

/// Measures sleeps beside threads that compute.
fn sleep_section(rounds: usize) {
    for (threads, slice, bar) in SLEEP_BARS {
        let slice = Duration::from_millis(slice);
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (0..rounds).map(|_| (sleep_of_greenling(threads, slice), sleep_of_tokio(threads, slice))).unzip();
        let row = format!("sleep/300 beside {threads} x {} ms", slice.as_millis());
        results::note(&format!("{row}, greenling"), "ms", &ours, None);
        results::note(&format!("{row}, tokio"), "ms", &theirs, None);
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{row:<34} {ours:>8.1}   greenling\n{row:<34} {theirs:>8.1}   tokio");
        verdict(ours <= bar, &format!("{row}: ended after {ours:.1} ms, bar {bar}"));
    }
}

/// Computes for so long.
fn burn(span: Duration) {
    let until = Instant::now() + span;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// Returns how long a sleep of 300 ms took beside busy green threads, in milliseconds.
fn sleep_of_greenling(threads: usize, slice: Duration) -> f64 {
    let stop = std::rc::Rc::new(std::cell::Cell::new(false));
    let begin = Instant::now();
    let busy: Vec<_> = (0..threads)
        .map(|_| {
            let stop = std::rc::Rc::clone(&stop);
            greenling::spawn(move || {
                while !stop.get() && begin.elapsed() < Duration::from_secs(20) {
                    burn(slice);
                    greenling::yield_now();
                }
            })
        })
        .collect();
    // The wait that is measured; the timer is due while others compute.
    greenling::sleep(Duration::from_millis(300));
    let ended = begin.elapsed();
    stop.set(true);
    busy.into_iter().for_each(|thread| thread.join().expect("it only computes"));
    ended.as_secs_f64() * 1e3
}

/// Returns the same of tokio's current-thread runtime.
fn sleep_of_tokio(threads: usize, slice: Duration) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let stop = std::rc::Rc::new(std::cell::Cell::new(false));
        let begin = Instant::now();
        let busy: Vec<_> = (0..threads)
            .map(|_| {
                let stop = std::rc::Rc::clone(&stop);
                tokio::task::spawn_local(async move {
                    while !stop.get() && begin.elapsed() < Duration::from_secs(20) {
                        burn(slice);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        // The wait that is measured.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let ended = begin.elapsed();
        stop.set(true);
        for task in busy {
            task.await.expect("it only computes");
        }
        ended.as_secs_f64() * 1e3
    })
}

// ---- echo -----------------------------------------------------------------------------------------------------------

/// Measures small requests beside clients that flood the server.
fn flood_section(contenders: &[Contender], cores: Cores, rounds: usize) -> Outcome<()> {
    let figures = measure(contenders, cores, rounds, 4, 1, 1)?;
    for (contender, figures) in contenders.iter().zip(&figures) {
        figures.print(&format!("flood/4 {}", contender.name));
    }
    let (ours, theirs) = (&figures[0], figures[1].median.min(figures[2].median));
    verdict(ours.median <= theirs, &format!("flood/4: median {:.2} ms, tokio's {theirs:.2}", ours.median));
    verdict(ours.worst <= WORST_BAR, &format!("flood/4: worst {:.1} ms, bar {WORST_BAR}", ours.worst));
    Ok(())
}

fn bulk_section(contenders: &[Contender], cores: Cores, rounds: usize, clients: usize) -> Outcome<()> {
    let figures = measure(contenders, cores, rounds, clients, HONEST, 4096)?;
    for (contender, figures) in contenders.iter().zip(&figures) {
        figures.print(&format!("bulk/{clients} {}", contender.name));
    }
    let (ours, theirs) = (&figures[0], figures[1].median);
    let text = format!("bulk/{clients}: p50 {:.2} ms, tokio's with 16 KiB {theirs:.2}", ours.median);
    verdict(ours.median <= theirs, &text);
    if let Some(at) = contenders.iter().position(|contender| contender.name == "old") {
        let ratio = ours.bytes / figures[at].bytes;
        verdict(
            ratio >= THROUGHPUT_BAR,
            &format!("bulk/{clients}: {ratio:.3} x the old throughput, bar {THROUGHPUT_BAR}"),
        );
    }
    Ok(())
}

/// Round trips in milliseconds, and gigabytes per second that the bulk clients moved; medians of the rounds.
struct Figures {
    median: f64,
    ninety: f64,
    ninety_nine: f64,
    worst: f64,
    bytes: f64,
}

impl Figures {
    /// Prints a row, and notes its figures for the file.
    fn print(&self, row: &str) {
        let Figures { median, ninety, ninety_nine, worst, bytes } = self;
        for (name, value) in [("median", median), ("90 %", ninety), ("99 %", ninety_nine), ("worst", worst)] {
            results::note(&format!("{row}, {name}"), "ms", &[*value], None);
        }
        results::note(&format!("{row}, moved"), "GB/s", &[*bytes], None);
        println!("{row:<34} {median:>8.2} {ninety:>8.2} {ninety_nine:>8.2} {worst:>8.1}   {bytes:.2} GB/s");
    }
}

/// Loads each server in turns, and returns the figures of each.
fn measure(
    contenders: &[Contender],
    cores: Cores,
    rounds: usize,
    bulk: usize,
    honest: usize,
    longest: usize,
) -> Outcome<Vec<Figures>> {
    let mut all: Vec<Vec<(Vec<f64>, f64)>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for step in 0..contenders.len() {
            // In turns, and every other round backwards: drift of the machine hits all alike.
            let at = if round % 2 == 0 { step } else { contenders.len() - 1 - step };
            let server = Server::start(&contenders[at], cores)?;
            all[at].push(load(server.addr, bulk, honest, longest)?);
        }
    }
    // Each figure is the median of the rounds.
    let figures = |rounds: Vec<(Vec<f64>, f64)>| {
        let at = |quantile: f64| {
            median(rounds.iter().map(|(trips, _)| trips[((trips.len() - 1) as f64 * quantile) as usize]).collect())
        };
        let bytes = median(rounds.iter().map(|round| round.1).collect());
        Figures { median: at(0.5), ninety: at(0.9), ninety_nine: at(0.99), worst: at(1.0), bytes }
    };
    Ok(all.into_iter().map(figures).collect())
}

/// Returns the sorted round trips of the honest clients, and what the bulk clients moved each second, in one round.
fn load(addr: SocketAddr, bulk: usize, honest: usize, longest: usize) -> Outcome<(Vec<f64>, f64)> {
    let (stop, moved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut streams = Vec::new();
    let mut threads = Vec::new();
    // A bulk client is two OS threads: one writes without pause, one reads and counts.
    for _ in 0..bulk {
        let stream = TcpStream::connect(addr)?;
        let (mut writer, mut reader) = (stream.try_clone()?, stream.try_clone()?);
        streams.push(stream);
        let theirs = Arc::clone(&moved);
        threads.push(thread::spawn(move || {
            let piece = vec![b'x'; PIECE];
            while writer.write_all(&piece).is_ok() {}
        }));
        threads.push(thread::spawn(move || {
            let mut room = vec![0; PIECE];
            while let Ok(len @ 1..) = reader.read(&mut room) {
                theirs.fetch_add(len as u64, Ordering::Relaxed);
            }
        }));
    }
    thread::sleep(WARM_UP);
    let (before, begin) = (moved.load(Ordering::Relaxed), Instant::now());
    // The honest clients come when the server is busy.
    let clients: Vec<_> = (0..honest)
        .map(|number| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || ask(addr, number, longest, &stop).map_err(|error| error.to_string()))
        })
        .collect();
    thread::sleep(LOADED - WARM_UP);
    stop.store(true, Ordering::Relaxed);
    let rate = (moved.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64() / 1e9;
    let mut trips = Vec::new();
    for client in clients {
        trips.extend(client.join().expect("no panic")?);
    }
    // Now the bulk clients' calls fail, and their threads end.
    for stream in streams {
        stream.shutdown(Shutdown::Both)?;
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    trips.sort_by(f64::total_cmp);
    if trips.is_empty() {
        return Err("an honest client had no answer at all".into());
    }
    Ok((trips, rate))
}

/// Runs an honest client, and returns the round trips in milliseconds.
fn ask(addr: SocketAddr, number: usize, longest: usize, stop: &AtomicBool) -> Outcome<Vec<f64>> {
    // The client must not wait for the bulk clients' share of the core: the server is to be measured.
    become_urgent();
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let (mut trips, mut len) = (Vec::new(), 1 + number * 397 % longest);
    let mut room = vec![0; longest];
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        stream.write_all(&vec![b'p'; len])?;
        stream.read_exact(&mut room[..len])?;
        trips.push(begin.elapsed().as_secs_f64() * 1e3);
        len = 1 + (len * 31 + 7) % longest;
        thread::sleep(Duration::from_millis(2));
    }
    Ok(trips)
}

// ---- servers --------------------------------------------------------------------------------------------------------

/// A server to measure: the program.
struct Contender {
    name: String,
    command: Vec<String>,
}

/// The example, built as a user builds it.
fn echo_server() -> Outcome<Vec<String>> {
    let build = ["build", "--release", "--quiet", "--example", "echo_server", "--message-format", "json"];
    let output = Command::new(env!("CARGO")).args(build).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let program = text.lines().filter_map(|line| line.split_once("\"executable\":\"")).next_back();
    let program = program.and_then(|(_, rest)| rest.split('"').next()).ok_or("echo_server was not built")?;
    Ok([program, "--quiet", "--addr", "127.0.0.1:0"].map(str::to_owned).into())
}

fn tokio_server(kib: usize) -> Outcome<Vec<String>> {
    let program = std::env::current_exe()?.display().to_string();
    Ok(vec![program, TOKIO_ROLE.to_owned(), (kib * 1024).to_string()])
}

fn serve_with_tokio(buffer: usize) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("listening on {}", listener.local_addr().expect("it is bound"));
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                // The same settings as `echo_server` has.
                let _ = stream.set_nodelay(true);
                let mut bytes = vec![0; buffer];
                while let Ok(len @ 1..) = stream.read(&mut bytes).await {
                    if stream.write_all(&bytes[..len]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// A running server; killed when dropped.
struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(contender: &Contender, cores: Cores) -> Outcome<Server> {
        let (program, args) = contender.command.split_first().ok_or("--with wants NAME=COMMAND")?;
        // The server inherits the core.
        pin(cores.server)?;
        let child = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        pin(cores.driver)?;
        let mut child = child.map_err(|error| format!("{program}: {error}"))?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let line = BufReader::new(stdout).lines().next().ok_or("it said nothing")??;
        let addr =
            line.split_whitespace().filter_map(|word| word.trim_end_matches([',', '.', ';']).parse().ok()).next();
        Ok(Server { child, addr: addr.ok_or_else(|| format!("no address in {line:?}"))? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where servers and clients run.
#[derive(Clone, Copy)]
struct Cores {
    server: usize,
    driver: usize,
}

impl Cores {
    fn choose() -> Outcome<Cores> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
        let server = cores.next().ok_or("no core to run on")?;
        let driver = cores.next().unwrap_or(server);
        if driver == server {
            println!("only one core: server and clients share it, and the figures are rough");
        }
        Ok(Cores { server, driver })
    }
}

/// Puts the calling thread before all others of the core, if allowed.
fn become_urgent() {
    // SAFETY: setpriority touches no memory.
    #[allow(unsafe_code)]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, -20)
    };
}

/// Keeps the calling thread, and what it will start, on one core.
fn pin(core: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
