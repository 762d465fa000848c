//! What an echo request costs the server, next to a plain C epoll loop driven the same way.
//!
//! ```text
//! cargo bench --bench echo                        CPU per request at 50 and 1000 connections
//! cargo bench --bench echo -- --syscalls          system calls per request, counted by strace
//! cargo bench --bench echo -- --idle 15000        resident memory per idle connection
//! cargo bench --bench echo -- --all               the three of them
//! cargo bench --bench echo -- --json FILE         the figures as a file, too
//! cargo bench --bench echo -- greenling           only rows with this word in their name
//! cargo bench --bench echo -- --with old=./echo_server\ --quiet\ --addr\ 127.0.0.1:0     one more server
//! ```
//!
//! How the CPU figure comes about. Servers run alone on one core, the driver (this process) on another. Each connection
//! has one 64-byte request in flight. A *segment* is some thousand requests to one server; it begins and ends with the
//! server asleep, because only then is the kernel's account of its run time up to date, and a shorter one that is not
//! measured goes before it: otherwise a server measured twice in a row could gain from its own warm caches. A *sweep*
//! is one segment to every server, in an order that is reversed each time, so that drift of the machine hits all alike;
//! its *ratio* is a server's nanoseconds per request over those of the C loop in the same sweep. A *round* is several
//! sweeps over freshly started processes with fresh connections (the same program differs by 1-3 % from start to start:
//! where its pages and the kernel's socket structures fall), and gives the median of its ratios. The result is the
//! median of the rounds, its spread their minimum and maximum.
//!
//! The row `patched` is `std::net` made green by `monkey::patch_all`; its verdict compares it with the native API, by
//! the same rounds. The row `own` is the native API in green threads with thread-locals of their own; its verdict, too,
//! compares it with the native API.
//!
//! The row `limit` is the C server, edge-triggered as ours, which for each request also touches the cache lines and the
//! page that a green thread touches (docs/measurements.md, "Limits"), and does nothing with them. What lies between the
//! C loop and this row is memory; what lies between this row and ours is not.
//!
//! Where the connections of all servers together are more than this process may have descriptors, the servers of a round
//! do not run side by side, but one after the other, each with a fresh driver.
//!
//! The row `c-again` is the C server measured against itself: how far it is from 1.000 is how far to trust the others.

// Epoll, CPU affinity and child-process set-up have no safe counterpart in std.
#![allow(unsafe_code)]

#[path = "results/mod.rs"]
mod results;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The bar: CPU per request over that of the C loop.
const CPU_BAR: f64 = 1.03;
/// Resident KiB per connection that echoed once and then said nothing.
const IDLE_BAR_KIB: f64 = 4.6;
/// System calls per request, `epoll_wait` not counted.
const SYSCALL_BAR: f64 = 2.01;

/// CPU per request of unmodified `std::net` in green threads over that of the native API.
const PATCHED_BAR: f64 = 1.10;

/// CPU per request of green threads with thread-locals of their own over that of light ones.
const OWN_BAR: f64 = 1.06;

const MESSAGE: usize = 64;
const BASELINE: &str = "c";
const SUBJECT: &str = "greenling";
const PATCHED: &str = "patched";
const OWN: &str = "own";
const LIMIT: &str = "limit";

const USAGE: &str = "usage: cargo bench --bench echo -- [OPTION...] [WORD]
  WORD, --only WORD     only rows with WORD in their name (the C loop always runs)
  --cpu                 server CPU per request (this is the default section)
  --syscalls            system calls per request, by name (needs strace)
  --idle [N]            memory of N idle connections (15000)
  --all                 all three sections
  --connections A,B     numbers of connections in the CPU section (50,1000)
  --rounds N            fresh starts of the servers (14)
  --sweeps N            segments per server and round (6)
  --requests N          requests per segment (20000)
  --with NAME=COMMAND   one more server; COMMAND is split at blanks and must print `listening on ADDR`
  --json FILE           the figures as a file, too";

struct Options {
    cpu: bool,
    syscalls: bool,
    idle: Option<usize>,
    connections: Vec<usize>,
    rounds: usize,
    sweeps: usize,
    requests: u64,
    only: Option<String>,
    with: Vec<Contender>,
}

impl Options {
    fn parse() -> Outcome<Options> {
        use lexopt::prelude::*;
        let mut options = Options {
            cpu: false,
            syscalls: false,
            idle: None,
            connections: vec![50, 1000],
            rounds: 14,
            sweeps: 6,
            requests: 20_000,
            only: None,
            with: Vec::new(),
        };
        // `cargo test` and `cargo run` do not pass --bench.
        let mut under_cargo_bench = false;
        let mut words: Vec<String> = env::args().skip(1).collect();
        results::take_option("echo", &mut words)?;
        let mut parser = lexopt::Parser::from_args(words);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("bench") => under_cargo_bench = true,
                Long("cpu") => options.cpu = true,
                Long("syscalls") => options.syscalls = true,
                Long("idle") => {
                    let number = parser.values().ok().and_then(|mut given| given.next());
                    options.idle = Some(number.map_or(Ok(15_000), |number| number.parse())?);
                }
                Long("all") => {
                    options.cpu = true;
                    options.syscalls = true;
                    options.idle = options.idle.or(Some(15_000));
                }
                Long("connections") => {
                    let list = parser.value()?.string()?;
                    options.connections =
                        list.split(',').map(|number| number.trim().parse()).collect::<Result<_, _>>()?;
                }
                Long("rounds") => options.rounds = parser.value()?.parse()?,
                Long("sweeps") => options.sweeps = parser.value()?.parse()?,
                Long("requests") => options.requests = parser.value()?.parse()?,
                Long("with") => options.with.push(Contender::parse(&parser.value()?.string()?)?),
                Long("only") => options.only = Some(parser.value()?.string()?),
                Value(word) => options.only = Some(word.string()?),
                Long("help") | Short('h') => {
                    println!("{USAGE}");
                    std::process::exit(0);
                }
                other => return Err(other.unexpected().into()),
            }
        }
        // Without a choice, the CPU section alone.
        if !options.syscalls && options.idle.is_none() {
            options.cpu = true;
        }
        if options.rounds * options.sweeps == 0 || options.requests == 0 || options.connections.contains(&0) {
            return Err("rounds, sweeps, requests and connections must be at least 1".into());
        }
        if !under_cargo_bench {
            println!("not under `cargo bench`: a short run to see that everything works, its figures mean nothing");
            options.connections.truncate(1);
            (options.rounds, options.sweeps) = (1, 2);
            options.requests = options.requests.min(2000);
        }
        Ok(options)
    }

    fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|word| row.contains(word.as_str()))
    }
}

fn main() {
    let options = Options::parse().unwrap_or_else(|error| {
        eprintln!("echo: {error}\n{USAGE}");
        std::process::exit(2);
    });
    if let Err(error) = run(&options) {
        eprintln!("echo: {error}");
        std::process::exit(1);
    }
}

fn run(options: &Options) -> Outcome<()> {
    // Servers have one core, this process another.
    raise_fd_limit()?;
    let cores = Cores::choose()?;
    pin(cores.driver)?;
    let contenders = Contender::find_all(options)?;
    if !become_urgent() {
        println!("no privilege for a better nice value: a busy machine will show in the spread");
    }
    let mut verdicts = Vec::new();
    if options.cpu {
        for &connections in &options.connections {
            cpu_section(options, &contenders, &cores, connections, &mut verdicts)?;
        }
    }
    if options.syscalls {
        syscall_section(options, &contenders, &cores, &mut verdicts)?;
    }
    if let Some(connections) = options.idle {
        idle_section(options, &contenders, &cores, connections, &mut verdicts)?;
    }
    if verdicts.is_empty() {
        println!("no verdict: it takes {SUBJECT}, and for CPU the C loop, among the rows");
    }
    // All verdicts together, at the end, where they can be found.
    let missed = verdicts.iter().filter(|verdict| !verdict.met).count();
    for verdict in &verdicts {
        println!("{} {}", if verdict.met { "PASS" } else { "MISS" }, verdict.text);
    }
    if verdicts.len() > 1 {
        println!(
            "{} {} of {} bars met",
            if missed == 0 { "PASS" } else { "MISS" },
            verdicts.len() - missed,
            verdicts.len()
        );
    }
    results::write()?;
    Ok(())
}

/// A bar, and whether the bar was met. A miss does not change the exit code.
struct Verdict {
    met: bool,
    text: String,
}

/// Prints a row: value, unit, ratio, note.
fn print_row(name: &str, value: &str, unit: &str, ratio: &str, note: &str) {
    println!("{name:<30} {value:>7} {unit:<16} {ratio:>7}  {note}");
}

// ---- CPU per request ------------------------------------------------------------------------------------------------

/// What the rounds told about one contender.
#[derive(Default)]
struct Series {
    /// Nanoseconds of server CPU per request, one value per segment of every round.
    cost: Vec<f64>,
    /// Median ratio to the C loop, one value per round.
    ratio: Vec<f64>,
    /// How often the server went to sleep per request, one value per segment.
    sleeps: Vec<f64>,
}

/// Measures the servers' CPU time per request over some connections, and judges the result.
fn cpu_section(
    options: &Options,
    contenders: &[Contender],
    cores: &Cores,
    connections: usize,
    verdicts: &mut Vec<Verdict>,
) -> Outcome<()> {
    let row = |contender: &Contender| format!("echo/{connections}/{}", contender.name);
    // The first contender is always there: the others are compared with it.
    let chosen: Vec<&Contender> = contenders
        .iter()
        .enumerate()
        .filter(|(index, contender)| *index == 0 || options.wants(&row(contender)))
        .map(|(_, contender)| contender)
        .collect();

    println!(
        "\nserver CPU per request, {connections} connections, {MESSAGE} bytes, {} rounds of {} x {} requests",
        options.rounds, options.sweeps, options.requests
    );
    let mut series: Vec<Series> = chosen.iter().map(|_| Series::default()).collect();
    // The driver has a descriptor for each connection, and some others.
    let in_turns = chosen.len() * connections + 100 > fd_limit()?;
    if in_turns {
        println!("these are more connections than descriptors: the servers run one after the other");
    }
    for _ in 0..options.rounds {
        let round = if in_turns { round_in_turns } else { round };
        round(options, &chosen, cores, connections, &mut series)?;
    }
    for (contender, series) in chosen.iter().zip(&series) {
        let ratio = median(&series.ratio);
        results::note(&row(contender), "ns/request", &series.cost, Some(ratio));
        print_row(
            &row(contender),
            &format!("{:.0}", median(&series.cost)),
            "ns/request",
            &format!("{ratio:.3}"),
            &format!(
                "{:.3}..{:.3} (middle half {:.3}..{:.3}), {:.3} sleeps/request",
                quantile(&series.ratio, 0.0),
                quantile(&series.ratio, 1.0),
                quantile(&series.ratio, 0.25),
                quantile(&series.ratio, 0.75),
                median(&series.sleeps),
            ),
        );
        if contender.name == SUBJECT && chosen[0].name == BASELINE {
            verdicts.push(Verdict {
                met: ratio <= CPU_BAR,
                text: format!("{}: {ratio:.3} x the C loop's CPU per request, bar {CPU_BAR}", row(contender)),
            });
        }
    }
    // The native one and its relatives, round by round: all had the same machine in a round.
    let ratios = |name: &str| chosen.iter().position(|contender| contender.name == name).map(|at| &series[at].ratio);
    for (name, bar) in [(PATCHED, PATCHED_BAR), (OWN, OWN_BAR)] {
        let Some((native, other)) = ratios(SUBJECT).zip(ratios(name)) else { continue };
        let by_round: Vec<f64> = native.iter().zip(other).map(|(native, other)| other / native).collect();
        let ratio = median(&by_round);
        verdicts.push(Verdict {
            met: ratio <= bar,
            text: format!(
                "echo/{connections}/{name}: {ratio:.3} x {SUBJECT}'s CPU per request ({:.3}..{:.3}), bar {bar:.2}",
                quantile(&by_round, 0.0),
                quantile(&by_round, 1.0)
            ),
        });
    }
    Ok(())
}

/// Measures one segment, and returns the nanoseconds of server CPU for each request.
fn segment(options: &Options, server: &Server, driver: &mut Driver, series: &mut Series) -> Outcome<f64> {
    // The kernel's account is up to date while the server sleeps.
    server.wait_until_asleep();
    let (time, sleeps) = (server.run_time()?, server.sleeps()?);
    let done = driver.drive(options.requests)? as f64;
    server.wait_until_asleep();
    let cost = (server.run_time()? - time) as f64 / done;
    series.cost.push(cost);
    series.sleeps.push((server.sleeps()? - sleeps) as f64 / done);
    Ok(cost)
}

/// Runs one round of servers that cannot all be connected at once: one after the other, the next time in reverse.
fn round_in_turns(
    options: &Options,
    chosen: &[&Contender],
    cores: &Cores,
    connections: usize,
    series: &mut [Series],
) -> Outcome<()> {
    let odd_round = series[0].ratio.len() % 2 == 1;
    let mut costs = vec![0.0; chosen.len()];
    for step in 0..chosen.len() {
        let index = if odd_round { chosen.len() - 1 - step } else { step };
        let server = Server::start(chosen[index], cores)?;
        let mut driver = Driver::connect(server.addr, connections)?;
        driver.drive(options.requests / 2)?;
        let segments: Outcome<Vec<f64>> =
            (0..options.sweeps).map(|_| segment(options, &server, &mut driver, &mut series[index])).collect();
        costs[index] = median(&segments?);
    }
    for (series, cost) in series.iter_mut().zip(&costs) {
        series.ratio.push(cost / costs[0]);
    }
    Ok(())
}

/// Runs one round: fresh processes, then sweeps in alternating order. The others are compared with the first contender.
fn round(
    options: &Options,
    chosen: &[&Contender],
    cores: &Cores,
    connections: usize,
    series: &mut [Series],
) -> Outcome<()> {
    let mut pairs = Vec::new();
    let odd_round = series[0].ratio.len() % 2 == 1;
    for step in 0..chosen.len() {
        // The first server finds the tidier kernel heap: take turns.
        let index = if odd_round { chosen.len() - 1 - step } else { step };
        let server = Server::start(chosen[index], cores)?;
        let mut driver = Driver::connect(server.addr, connections)?;
        driver.drive(options.requests / 2)?;
        server.wait_until_asleep();
        pairs.push((server, driver));
    }
    if odd_round {
        pairs.reverse();
    }
    let at_start: Vec<(u64, u64)> =
        pairs.iter().map(|(server, _)| Ok((server.run_time()?, server.ticks()?))).collect::<Outcome<_>>()?;

    let mut ratios = vec![Vec::new(); chosen.len()];
    for sweep in 0..options.sweeps {
        let mut costs = vec![0.0; chosen.len()];
        for step in 0..chosen.len() {
            let index = if sweep % 2 == 0 { step } else { chosen.len() - 1 - step };
            let (server, driver) = &mut pairs[index];
            // Not measured: brings the caches back from the server before, whichever that was.
            driver.drive(options.requests / 5)?;
            costs[index] = segment(options, server, driver, &mut series[index])?;
        }
        for (index, cost) in costs.iter().enumerate() {
            ratios[index].push(cost / costs[0]);
        }
    }
    for (index, ratios) in ratios.iter().enumerate() {
        series[index].ratio.push(median(ratios));
        let (server, _) = &pairs[index];
        let by_schedstat = server.run_time()? - at_start[index].0;
        let by_ticks = server.ticks()? - at_start[index].1;
        if by_schedstat.abs_diff(by_ticks) > by_schedstat / 50 + 30_000_000 {
            println!(
                "{}: schedstat says {} ms, utime + stime {} ms: do not trust this round",
                chosen[index].name,
                by_schedstat / 1_000_000,
                by_ticks / 1_000_000
            );
        }
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this share of the values lies, interpolated.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

// ---- system calls per request ---------------------------------------------------------------------------------------

/// Runs each server twice under strace, with different numbers of requests: the difference of the two counts has no
/// start-up, no accept and no registration inside.
fn syscall_section(
    options: &Options,
    contenders: &[Contender],
    cores: &Cores,
    verdicts: &mut Vec<Verdict>,
) -> Outcome<()> {
    const CONNECTIONS: usize = 50;
    const SHORT: u64 = 2_000;
    const LONG: u64 = 12_000;

    println!(
        "\nsystem calls per request, {CONNECTIONS} connections (slowed by strace, so a wait returns a large batch)"
    );
    if Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: no strace here");
        return Ok(());
    }
    // One run under strace: the calls, by name.
    let count = |contender: &Contender, requests: u64| -> Outcome<BTreeMap<String, Calls>> {
        let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join("strace.txt");
        let traced = contender.under_strace(&report);
        let server = Server::start(&traced, cores)?;
        let mut driver = Driver::connect(server.addr, CONNECTIONS)?;
        driver.drive(requests)?;
        server.kill_traced()?;
        Ok(parse_strace(&fs::read_to_string(report)?))
    };
    for contender in contenders.iter().filter(|contender| contender.name != "c-again") {
        let row = format!("syscalls/{}", contender.name);
        if contender.name != BASELINE && !options.wants(&row) {
            continue;
        }
        let short = count(contender, SHORT)?;
        let mut without_wait = 0.0;
        for (name, long) in count(contender, LONG)? {
            let short = short.get(&name).copied().unwrap_or_default();
            let each = |long: u64, short: u64| (long as f64 - short as f64) / (LONG - SHORT) as f64;
            let calls = each(long.made, short.made);
            // Waits are shared by all connections that are ready, and strace makes batches larger.
            if !name.starts_with("epoll_") || name == "epoll_ctl" {
                without_wait += calls;
            }
            if calls.abs() >= 0.0005 {
                let failed = each(long.failed, short.failed);
                let note = if failed.abs() < 0.0005 { String::new() } else { format!("{failed:.3} of them failed") };
                print_row(&format!("{row}/{name}"), &format!("{calls:.3}"), "calls/request", "", &note);
                results::note(&format!("{row}/{name}"), "calls/request", &[calls], None);
            }
        }
        if contender.name == SUBJECT {
            verdicts.push(Verdict {
                met: without_wait <= SYSCALL_BAR,
                text: format!("{row}: {without_wait:.3} calls per request besides epoll_wait, bar {SYSCALL_BAR}"),
            });
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Calls {
    made: u64,
    failed: u64,
}

/// Lines look like `47.10  0.000812  4  200  3 recvfrom`, the number of failed calls left out when it is 0.
fn parse_strace(report: &str) -> BTreeMap<String, Calls> {
    let mut calls = BTreeMap::new();
    for line in report.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[share, _, _, made, .., name] = &words[..] else {
            continue;
        };
        if let (Ok(_), Ok(made)) = (share.parse::<f64>(), made.parse()) {
            let failed = if words.len() == 6 { words[4].parse().unwrap_or(0) } else { 0 };
            if name != "total" {
                calls.insert(name.to_owned(), Calls { made, failed });
            }
        }
    }
    calls
}

// ---- memory of idle connections -------------------------------------------------------------------------------------

/// Measures what an idle connection takes of each server's memory, and whether an idle server sleeps.
fn idle_section(
    options: &Options,
    contenders: &[Contender],
    cores: &Cores,
    connections: usize,
    verdicts: &mut Vec<Verdict>,
) -> Outcome<()> {
    println!("\nresident memory of the server per connection, {connections} of them, idle after one echo each");
    let ports = free_ports()?;
    if connections + 500 > ports {
        return Err(format!("only {ports} ports in net.ipv4.ip_local_port_range for {connections} connections").into());
    }
    for contender in contenders.iter().filter(|contender| contender.name != "c-again") {
        let row = format!("idle/{}", contender.name);
        if contender.name != BASELINE && !options.wants(&row) {
            continue;
        }
        let server = Server::start(contender, cores)?;
        drop(Driver::connect(server.addr, 1)?);
        server.wait_until_asleep();
        // After a first connection, so that what is made once does not count.
        let before = server.resident_kib()?;
        let driver = Driver::connect(server.addr, connections)?;
        server.wait_until_asleep();
        let each = (server.resident_kib()? as f64 - before as f64) / connections as f64;
        // A second in which nothing is sent.
        let wakeups = server.sleeps()?;
        thread::sleep(Duration::from_secs(1));
        let wakeups = server.sleeps()? - wakeups;
        drop(driver);
        results::note(&row, "KiB/connection", &[each], None);
        print_row(
            &row,
            &format!("{each:.2}"),
            "KiB/connection",
            "",
            &format!("woke {wakeups} times in one idle second; {before} KiB at the start"),
        );
        if contender.name == SUBJECT {
            verdicts.push(Verdict {
                met: each <= IDLE_BAR_KIB,
                text: format!("{row}: {each:.2} KiB per idle connection, bar {IDLE_BAR_KIB}"),
            });
            verdicts.push(Verdict {
                met: wakeups == 0,
                text: format!("{row}: woke {wakeups} times in one idle second, bar 0"),
            });
        }
    }
    Ok(())
}

/// Returns how many ports the kernel chooses from.
fn free_ports() -> Outcome<usize> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ends = range.split_whitespace().map(str::parse::<usize>);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(last - first + 1),
        _ => Err(format!("cannot read the port range in {range:?}").into()),
    }
}

// ---- the servers ----------------------------------------------------------------------------------------------------

/// A server program that can be started.
#[derive(Clone)]
struct Contender {
    name: String,
    command: Vec<String>,
}

impl Contender {
    fn new(name: &str, program: &Path, args: &[&str]) -> Contender {
        let program = program.display().to_string();
        Contender {
            name: name.to_owned(),
            command: std::iter::once(program).chain(args.iter().map(|&arg| arg.to_owned())).collect(),
        }
    }

    fn parse(text: &str) -> Outcome<Contender> {
        match text.split_once('=') {
            Some((name, command)) if !name.is_empty() && !command.trim().is_empty() => Ok(Contender {
                name: name.to_owned(),
                command: command.split_whitespace().map(str::to_owned).collect(),
            }),
            _ => Err(format!("--with wants NAME=COMMAND, not {text:?}").into()),
        }
    }

    /// Builds all servers. The C server comes first: the others are compared with the first one.
    fn find_all(options: &Options) -> Outcome<Vec<Contender>> {
        let mut found = Vec::new();
        match build_c_server() {
            Ok(program) => {
                found.push(Contender::new(BASELINE, &program, &[]));
                found.push(Contender::new("c-again", &program, &[]));
                found.push(Contender::new("c-edge", &program, &["-e"]));
                found.push(Contender::new(LIMIT, &program, &["-e", "-t"]));
            }
            Err(error) => println!("no C server ({error}): its rows are skipped and ratios are to the first row"),
        }
        match build_example("echo_std_patched", &["--features", "monkey"]) {
            Ok(program) => found.push(Contender::new(PATCHED, &program, &["127.0.0.1:0"])),
            Err(error) => println!("no echo_std_patched ({error}): its rows are skipped"),
        }
        match build_example("echo_server", &[]) {
            Ok(program) => {
                let options = ["--quiet", "--addr", "127.0.0.1:0"];
                found.push(Contender::new(SUBJECT, &program, &options));
                let own = [&options[..], &["--own-thread-locals"]].concat();
                found.push(Contender::new(OWN, &program, &own));
            }
            Err(error) => println!("no echo_server ({error}): its rows are skipped"),
        }
        // Those of the command line come last.
        found.extend(options.with.iter().cloned());
        if found.is_empty() { Err("no server to measure".into()) } else { Ok(found) }
    }

    fn under_strace(&self, report: &Path) -> Contender {
        let strace = ["strace", "-f", "-c", "-o"].map(str::to_owned);
        let report = report.display().to_string();
        let command = strace.into_iter().chain([report]).chain(self.command.iter().cloned()).collect();
        Contender { name: self.name.clone(), command }
    }
}

fn build_c_server() -> Outcome<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/c/epoll_echo.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("epoll_echo");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&compiler)
        .args(["-O2", "-o"])
        .args([&program, &source])
        .status()
        .map_err(|error| format!("{compiler}: {error}"))?;
    if status.success() { Ok(program) } else { Err(format!("{compiler}: {status}").into()) }
}

fn build_example(name: &str, more: &[&str]) -> Outcome<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target directory")?;
    let example = root.join("examples").join(name);
    if !example.with_extension("rs").exists() && !example.join("main.rs").exists() {
        return Err(format!("the example {name} is not there").into());
    }
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--example", name, "--target-dir"])
        .arg(target)
        .args(more)
        .status()?;
    if status.success() { Ok(target.join("release/examples").join(name)) } else { Err(status.to_string().into()) }
}

/// A running server. Dropping it kills the process.
struct Server {
    child: Child,
    addr: SocketAddr,
    /// Held open: a server may take the end of the input for "stop".
    _stdin: Option<ChildStdin>,
}

impl Server {
    fn start(contender: &Contender, cores: &Cores) -> Outcome<Server> {
        let core = cores.server;
        let mut command = Command::new(&contender.command[0]);
        command.args(&contender.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: the closure makes two plain system calls: it takes no lock and allocates nothing after the fork.
        unsafe {
            command.pre_exec(move || {
                die_with_parent()?;
                pin(core)
            });
        }
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", contender.command[0]))?;
        let stdin = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        // From here on a failure drops `server` and with it the process.
        let mut server = Server { child, addr: SocketAddr::from(([0; 4], 0)), _stdin: stdin };
        let mut line = String::new();
        while output.read_line(&mut line)? > 0 {
            if let Some((_, rest)) = line.split_once("listening on ") {
                let addr = rest.split_whitespace().next().unwrap_or_default();
                server.addr = addr.trim_end_matches(|c: char| !c.is_ascii_digit()).parse()?;
                break;
            }
            line.clear();
        }
        if server.addr.port() == 0 {
            return Err(format!("{} ended without the line `listening on ADDR`", contender.name).into());
        }
        // A chatty server must not block on a full pipe.
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        Ok(server)
    }

    fn proc_file(&self, name: &str) -> Outcome<String> {
        let path = format!("/proc/{}/{name}", self.child.id());
        Ok(fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?)
    }

    /// The fields of `/proc/PID/stat` from the state on (field 3 of proc(5) is number 0 here): the name before may hold
    /// blanks.
    fn stat(&self) -> Outcome<Vec<String>> {
        let stat = self.proc_file("stat")?;
        let (_, rest) = stat.rsplit_once(") ").ok_or("odd /proc/PID/stat")?;
        Ok(rest.split_whitespace().map(str::to_owned).collect())
    }

    /// Nanoseconds on a CPU so far, all threads. Exact only while they sleep.
    fn run_time(&self) -> Outcome<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split_whitespace().next().ok_or("empty schedstat")?.parse::<u64>()?;
        }
        Ok(sum)
    }

    /// The same by the older account, in whole clock ticks.
    fn ticks(&self) -> Outcome<u64> {
        let stat = self.stat()?;
        // SAFETY: sysconf reads no memory of ours.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.unsigned_abs();
        Ok((stat[11].parse::<u64>()? + stat[12].parse::<u64>()?) * (1_000_000_000 / per_second))
    }

    /// How often the server gave up the CPU by itself.
    fn sleeps(&self) -> Outcome<u64> {
        self.status("voluntary_ctxt_switches:")
    }

    fn resident_kib(&self) -> Outcome<u64> {
        self.status("VmRSS:")
    }

    fn status(&self, key: &str) -> Outcome<u64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line in /proc/PID/status")?;
        Ok(line.split_whitespace().next().ok_or("empty line in /proc/PID/status")?.parse()?)
    }

    /// The last replies are out, but the server may still be on its way back to epoll_wait. Gives up after a while:
    /// then the server is one that never sleeps.
    fn wait_until_asleep(&self) {
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(1));
            if self.stat().is_ok_and(|stat| stat[0] == "S") {
                return;
            }
        }
    }

    /// `child` is strace: kills the traced process and waits for the report.
    fn kill_traced(mut self) -> Outcome<()> {
        let children = self.proc_file(&format!("task/{}/children", self.child.id()))?;
        for pid in children.split_whitespace() {
            // SAFETY: kill touches no memory; the pid is a child of our own strace, which has not reaped it.
            unsafe { libc::kill(pid.parse()?, libc::SIGKILL) };
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // fails only if the child has ended already
        let _ = self.child.wait();
    }
}

// ---- the driver -----------------------------------------------------------------------------------------------------

/// A closed loop: each connection sends the next request when the reply to the last one is complete.
struct Driver {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Makes each request differ from the last one on the connection, so that a repeated reply is noticed.
    serial: u64,
}

struct Connection {
    stream: TcpStream,
    request: [u8; MESSAGE],
    /// How much of the reply has come.
    received: usize,
}

impl Connection {
    fn send(&mut self, serial: u64) -> io::Result<()> {
        self.request[..8].copy_from_slice(&serial.to_ne_bytes());
        self.received = 0;
        match self.stream.write(&self.request)? {
            MESSAGE => Ok(()),
            _ => Err(io::Error::other("a request did not fit into an empty socket")),
        }
    }
}

impl Driver {
    /// Opens the connections one after the other, with one echo on each before the next is begun: a server that
    /// accepts slowly never overflows the backlog.
    fn connect(addr: SocketAddr, count: usize) -> Outcome<Driver> {
        // SAFETY: epoll_create1 touches no memory of ours.
        let epoll = cvt(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just opened and is owned by nothing else.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut driver = Driver { epoll, connections: Vec::with_capacity(count), serial: 0 };
        for index in 0..count {
            let stream = TcpStream::connect(addr).map_err(|error| format!("connection {index}: {error}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            // The first echo: now the server has accepted the connection.
            let mut connection = Connection { stream, request: [b'.'; MESSAGE], received: 0 };
            let mut reply = [0; MESSAGE];
            connection.send(index as u64)?;
            connection
                .stream
                .read_exact(&mut reply)
                .map_err(|error| format!("first echo on connection {index}: {error}"))?;
            if reply != connection.request {
                return Err(format!("wrong first echo on connection {index}").into());
            }
            connection.stream.set_nonblocking(true)?;
            let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: index as u64 };
            let (epoll, fd) = (driver.epoll.as_raw_fd(), connection.stream.as_raw_fd());
            // SAFETY: `event` is live for the call; both descriptors are open.
            cvt(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) })?;
            driver.connections.push(connection);
        }
        Ok(driver)
    }

    /// Makes about `requests` requests, at most 20 seconds long, and returns how many were answered. Nothing is in
    /// flight before and after.
    fn drive(&mut self, requests: u64) -> Outcome<u64> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1024];
        let mut buffer = [0; 4 * MESSAGE];
        let mut in_flight = 0;
        let mut answered = 0;
        let mut unsent = requests.max(self.connections.len() as u64);
        for connection in &mut self.connections {
            self.serial += 1;
            connection.send(self.serial)?;
            in_flight += 1;
            unsent -= 1;
        }
        while in_flight > 0 {
            let (epoll, capacity) = (self.epoll.as_raw_fd(), events.len() as i32);
            // SAFETY: `events` is live and has room for `capacity` entries.
            let ready = match cvt(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), capacity, 10_000) }) {
                Ok(0) => return Err("the server has not answered for 10 seconds".into()),
                Ok(ready) => ready as usize,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if Instant::now() > deadline {
                unsent = 0;
            }
            for event in &events[..ready] {
                let connection = &mut self.connections[event.u64 as usize];
                // One read per event is enough: more than one reply cannot be there.
                let length = match connection.stream.read(&mut buffer) {
                    Ok(0) => return Err("the server closed a connection".into()),
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                };
                let received = connection.received;
                if connection.request.get(received..received + length) != Some(&buffer[..length]) {
                    return Err("the reply differs from the request".into());
                }
                connection.received += length;
                if connection.received == MESSAGE {
                    answered += 1;
                    if unsent > 0 {
                        unsent -= 1;
                        self.serial += 1;
                        connection.send(self.serial)?;
                    } else {
                        in_flight -= 1;
                    }
                }
            }
        }
        Ok(answered)
    }
}

// ---- the kernel -----------------------------------------------------------------------------------------------------

/// Which core runs what. With one core they take turns: the figure is still the server's own time, but noisier.
struct Cores {
    server: usize,
    driver: usize,
}

impl Cores {
    fn choose() -> Outcome<Cores> {
        // SAFETY: a cpu_set_t is a plain bit set; all zeros is the empty one.
        let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `allowed` is live and the size is right.
        cvt(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut allowed) })?;
        let mut cores = (0..libc::CPU_SETSIZE as usize).filter(|&core| {
            // SAFETY: `core` is below CPU_SETSIZE.
            unsafe { libc::CPU_ISSET(core, &allowed) }
        });
        let server = cores.next().ok_or("no core to run on")?;
        let driver = cores.next().unwrap_or_else(|| {
            println!("only one core: server and driver share it, and the figures are rough");
            server
        });
        Ok(Cores { server, driver })
    }
}

/// Keeps the calling thread, and what it will start, on one core. Called between fork and exec, too.
fn pin(core: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t is a plain bit set; all zeros is the empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` came from a set of the same size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is live and the size is right.
    cvt(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })?;
    Ok(())
}

/// Goes before everything else on the machine, with the servers started from now on. False without the privilege: then
/// a busy machine shows in the spread.
fn become_urgent() -> bool {
    // SAFETY: setpriority touches no memory.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) == 0 }
}

/// An interrupted benchmark leaves no server behind.
fn die_with_parent() -> io::Result<()> {
    // SAFETY: this request takes a number and touches no memory.
    cvt(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    Ok(())
}

/// How many files this process may open.
fn fd_limit() -> io::Result<usize> {
    Ok(usize::try_from(rlimit()?.rlim_cur).unwrap_or(usize::MAX))
}

/// The limits of descriptors, soft and hard.
fn rlimit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live for the call.
    cvt(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok(limit)
}

/// The driver and the children may open as many files as the hard limit allows.
fn raise_fd_limit() -> io::Result<()> {
    let mut limit = rlimit()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is live for the call.
    cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(())
}

fn cvt(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
