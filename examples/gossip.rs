//! You will see a rumour go round among a hundred hosts in a simulated network, stop at a partition, and go on when the
//! partition is over: half an hour of virtual time, in a second or so.
//!
//! Each host sends its numbers once a second to another one, drawn by chance, and gets back what that one knows better.
//! The same seed draws the same hosts and the same delays, and so prints the same lines.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::net::UdpSocket;
use greenling::{sim, sleep, spawn};

#[path = "common/cli.rs"]
mod cli;
#[path = "common/process.rs"]
mod process;

const NAME: &str = "gossip";

const HELP: &str = "\
A hundred hosts that tell each other the news, in a simulated network.

usage: gossip [--seed N] [--hosts N]

  --seed N   which run: 1 by default
  --hosts N  how many hosts: 100 by default
";

/// The port of every host.
const PORT: u16 = 7946;

/// How long a host waits before it tells the next one.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a host knows: the latest number that it has heard of each host.
type News = Rc<RefCell<Vec<u32>>>;

/// Returns the name of a host.
fn name(number: usize) -> String {
    format!("host{number}")
}

/// Takes what is new in a message, and reports whether the sender lacks something.
fn merge(news: &News, message: &[u8]) -> bool {
    let mut lacks = false;
    for (known, told) in news.borrow_mut().iter_mut().zip(message.chunks_exact(4)) {
        let told = u32::from_be_bytes(told.try_into().expect("chunks of four"));
        lacks |= told < *known;
        *known = told.max(*known);
    }
    lacks
}

/// Returns the message that tells everything.
fn message(news: &News) -> Vec<u8> {
    news.borrow().iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Lives the life of a host: one thread listens and answers, one tells.
fn live(number: usize, hosts: usize, news: News) -> std::io::Result<()> {
    let socket = Rc::new(UdpSocket::bind(("0.0.0.0", PORT))?);
    let listener = (socket.clone(), news.clone());
    spawn(move || {
        let (socket, news) = listener;
        let mut buf = vec![0; 4 * hosts];
        while let Ok((length, from)) = socket.recv_from(&mut buf) {
            if merge(&news, &buf[..length]) {
                let _ = socket.send_to(&message(&news), from);
            }
        }
    });
    // Not all in the same moment.
    sleep(INTERVAL * number as u32 / hosts as u32);
    loop {
        let other = (number + 1 + sim::random() as usize % (hosts - 1)) % hosts;
        socket.send_to(&message(&news), (name(other).as_str(), PORT))?;
        sleep(INTERVAL);
    }
}

/// Waits until `count` hosts know the number of the first host, and returns how long that took.
fn spread(all: &[News], number: u32, count: usize) -> Duration {
    let begin = sim::elapsed();
    sim::assert_eventually(Duration::from_secs(600), || {
        all.iter().filter(|news| news.borrow()[0] == number).count() >= count
    });
    sim::elapsed() - begin
}

/// Runs the story, and returns its lines.
fn story(hosts: usize) -> Vec<String> {
    let network = sim::network();
    network.latency(Duration::from_millis(20)).jitter(Duration::from_millis(30)).loss(0.05).duplication(0.02);
    let all: Vec<News> = (0..hosts).map(|_| Rc::new(RefCell::new(vec![0; hosts]))).collect();
    for (number, news) in all.iter().enumerate() {
        let news = news.clone();
        sim::host(&name(number), move || live(number, hosts, news));
    }
    let mut lines = Vec::new();
    sleep(Duration::from_secs(60));
    all[0].borrow_mut()[0] = 1;
    lines.push(format!("all {hosts} hosts know it after {:.1?}", spread(&all, 1, hosts)));
    sleep(Duration::from_secs(600));
    let cut = |cuts: bool| {
        for one in 0..hosts / 2 {
            for other in hosts / 2..hosts {
                if cuts {
                    network.partition(&name(one), &name(other));
                } else {
                    network.heal(&name(one), &name(other));
                }
            }
        }
    };
    cut(true);
    all[0].borrow_mut()[0] = 2;
    let first = spread(&all, 2, hosts / 2);
    sleep(Duration::from_secs(600));
    let reached = all.iter().filter(|news| news.borrow()[0] == 2).count();
    lines.push(format!("cut in halves, one half knows it after {first:.1?}; ten minutes later {reached} hosts do"));
    cut(false);
    lines.push(format!("healed, all know it after {:.1?}", spread(&all, 2, hosts)));
    sleep(Duration::from_secs(1800).saturating_sub(sim::elapsed()));
    lines
}

fn main() {
    let (seed, hosts) = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    // Each simulated socket holds one.
    cli::take_descriptors(NAME, 6 + hosts as u64);
    let begin = Instant::now();
    let config = sim::Config::new().seed(seed).allow_leaks(true).max_turns(u64::MAX);
    let (lines, simulated) = config.run(|| (story(hosts), sim::elapsed()));
    let (took, cpu) = (begin.elapsed(), process::own_cpu());
    for line in lines {
        cli::say(NAME, line);
    }
    let times = simulated.as_secs_f64() / cpu.as_secs_f64().max(0.01);
    cli::say(
        NAME,
        format_args!("{hosts} hosts for {simulated:?}, in {took:.2?}, {cpu:?} of a processor: x {times:.0}"),
    );
}

/// Reads the command line: the seed and the number of hosts.
fn parse() -> Result<(u64, usize), String> {
    use lexopt::prelude::*;
    let (mut seed, mut hosts) = (1, 100_u16);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("seed") => seed = cli::text("--seed", &mut parser)?.parse().map_err(|_| "--seed takes a number")?,
            Long("hosts") => hosts = cli::count("--hosts", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if hosts < 2 {
        return Err("a gossip takes two hosts at least".into());
    }
    Ok((seed, hosts.into()))
}

// Output, on an AMD EPYC that is busy with other things:
//
//     all 100 hosts know it after 8.4s
//     cut in halves, one half knows it after 16.8s; ten minutes later 50 hosts do
//     healed, all know it after 4.2s
//     100 hosts for 1800s, in 1.12s, 380ms of a processor: x 4737
//
// Read next: src/pure/network/mod.rs, for what a datagram meets on its way.
