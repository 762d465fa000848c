//! The command line: what the load is to be, and every bound that ends a run.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use crate::source::{addresses, local_ports};
use crate::{NAME, cli};

/// The size of the longest messages.
const MOST_BYTES: usize = 64 << 20;

/// The longest time of any part of a run.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The highest rate: beyond it a timetable is no different from "as fast as possible".
const HIGHEST_RATE: f64 = 1e9;

pub(crate) const HELP: &str = "\
Asks an echo server for its echo, over thousands of connections at once, and
says how long the answers took.

usage: echo_load [--addr HOST:PORT] [--connections N] [--idle N] [--size BYTES]
                 [--pipeline K] [--rate R] [--duration TIME] [--requests N]
                 [--warmup TIME] [--patience TIME] [--in-flight N]
                 [--from-addresses A-B] [--server-pid P]... [--step]
                 [--progress] [--json | --tsv]

what is sent
  --addr HOST:PORT      where the server listens: 127.0.0.1:7007 by default
  --connections N       connections that send: 50 by default
  --idle N              more connections, which send once at the beginning and
                        once at the end: 0 by default
  --size BYTES          length of a message: 64 by default
  --pipeline K          messages that are sent at once; the next K follow when
                        all have come back: 1 by default
  --rate R              open loop: R messages a second over all connections, in
                        turn, whatever the answers do; a latency counts from the
                        moment at which the message was due. Without it, closed
                        loop: each connection sends when it has its answer, and
                        a latency counts from the sending
when it ends
  --duration TIME       measure for so long: 5 seconds by default, 60 with
                        --requests; also 500ms
  --requests N          or until N messages have come back
  --warmup TIME         go on for so long before it counts: 1 second by default,
                        0 with --requests
  --patience TIME       an answer that takes longer is an error: 10 seconds by
                        default
how it connects
  --in-flight N         connections that are made at once: 100 by default; one
                        is made when its first echo is back. When so many have
                        failed, no more are tried
  --from-addresses A-B  source addresses to use in turn, such as
                        127.0.0.2-127.0.0.9: from one address to one server
                        there are about 28000 ports
what it says
  --server-pid P        read CPU time, memory and OS threads of this process,
                        too; may be given for several
  --step                wait for a line on standard input when all are
                        connected, and again before they leave
  --progress            tell how it goes, also if standard error is no terminal
  --json, --tsv         one object, or a line of names and a line of values, in
                        place of text

Every byte that comes back is compared. The exit code is 1 if there was any
error: a connection that was refused or lost, an answer that was wrong or did
not come.
";

/// The command line; see [`HELP`].
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) addr: SocketAddr,
    /// The number of connections that send.
    pub(crate) connections: usize,
    /// Connections that are silent.
    pub(crate) idle: usize,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Messages sent at once.
    pub(crate) pipeline: usize,
    /// Messages a second over all connections, in an open loop.
    pub(crate) rate: Option<f64>,
    /// How long to measure at most.
    pub(crate) duration: Duration,
    /// How many messages to measure at most.
    pub(crate) requests: Option<u64>,
    pub(crate) warmup: Duration,
    pub(crate) patience: Duration,
    /// Connections that are made at once.
    pub(crate) in_flight: usize,
    /// Source addresses; none leaves the choice to the kernel.
    pub(crate) from: Option<RangeInclusive<u32>>,
    /// Ports of a source address.
    pub(crate) ports: Range<u16>,
    pub(crate) servers: Vec<u32>,
    pub(crate) step: bool,
    pub(crate) progress: bool,
    pub(crate) format: Format,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Text,
    Json,
    Tsv,
}

impl Options {
    /// Returns the number of all connections.
    pub(crate) fn clients(&self) -> usize {
        self.connections + self.idle
    }
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let mut addr = String::from("127.0.0.1:7007");
    let (mut duration, mut warmup) = (None, None);
    let mut options = Options {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        connections: 50,
        idle: 0,
        size: 64,
        pipeline: 1,
        rate: None,
        duration: Duration::ZERO,
        requests: None,
        warmup: Duration::ZERO,
        patience: Duration::from_secs(10),
        in_flight: 100,
        from: None,
        ports: local_ports(),
        servers: Vec::new(),
        step: false,
        progress: false,
        format: Format::Text,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("addr") => addr = cli::text("--addr", &mut parser)?,
            Long("connections") | Short('c') => options.connections = cli::count("--connections", &mut parser)?,
            Long("idle") => options.idle = number("--idle", &mut parser)?,
            Long("size") => options.size = cli::count("--size", &mut parser)?,
            Long("pipeline") => options.pipeline = cli::count("--pipeline", &mut parser)?,
            Long("rate") => {
                let text = cli::text("--rate", &mut parser)?;
                options.rate = match text.parse::<f64>() {
                    Ok(rate) if rate > 0.0 && rate <= HIGHEST_RATE => Some(rate),
                    _ => return Err(format!("--rate {text}: not a number above 0, up to {HIGHEST_RATE}")),
                };
            }
            Long("duration") => duration = Some(time("--duration", &mut parser)?),
            Long("requests") => options.requests = Some(cli::count("--requests", &mut parser)?),
            Long("warmup") => warmup = Some(part("--warmup", &mut parser)?),
            Long("patience") => options.patience = time("--patience", &mut parser)?,
            Long("in-flight") => options.in_flight = cli::count("--in-flight", &mut parser)?,
            Long("from-addresses") => options.from = Some(addresses(&cli::text("--from-addresses", &mut parser)?)?),
            Long("server-pid") => options.servers.push(cli::count("--server-pid", &mut parser)?),
            Long("step") => options.step = true,
            Long("progress") => options.progress = true,
            Long("json") => options.format = Format::Json,
            Long("tsv") => options.format = Format::Tsv,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    // What was not said depends on what ends the run.
    let by_count = options.requests.is_some();
    options.duration = duration.unwrap_or(Duration::from_secs(if by_count { 60 } else { 5 }));
    options.warmup = warmup.unwrap_or(Duration::from_secs(if by_count { 0 } else { 1 }));
    // A typing error is stopped here, before memory is.
    if options.size.saturating_mul(options.pipeline) > MOST_BYTES {
        return Err(format!("--size times --pipeline is more than {MOST_BYTES} bytes"));
    }
    if options.clients() > 1 << 20 {
        return Err(String::from("more than a million connections"));
    }
    // Whether the address is one is known only now.
    let found = addr.to_socket_addrs().map_err(|error| format!("--addr {addr}: {error}"))?;
    options.addr = found.into_iter().next().ok_or_else(|| format!("--addr {addr}: no such host"))?;
    if options.from.is_some() && !options.addr.is_ipv4() {
        return Err(format!("--from-addresses takes IPv4, not {addr}"));
    }
    Ok(options)
}

/// Reads the value of an option that is a whole number, 0 allowed.
fn number(option: &str, parser: &mut lexopt::Parser) -> Result<usize, String> {
    let value = cli::text(option, parser)?;
    value.parse().map_err(|_| format!("{option} {value}: not a whole number"))
}

/// Reads a duration above 0.
fn time(option: &str, parser: &mut lexopt::Parser) -> Result<Duration, String> {
    match part(option, parser)? {
        Duration::ZERO => Err(format!("{option} must be more than 0")),
        time => Ok(time),
    }
}

/// Reads a duration that is not too long.
fn part(option: &str, parser: &mut lexopt::Parser) -> Result<Duration, String> {
    match cli::duration(option, parser)? {
        time if time <= LONGEST => Ok(time),
        _ => Err(format!("{option} is more than a day")),
    }
}

/// Makes room for the descriptors that the connections take, or ends the process and says how many those are.
pub(crate) fn make_room(options: &Options) {
    // Standard streams, epoll, eventfd, a file of /proc.
    let needed = options.clients() as u64 + 10;
    let limit = rlimit::increase_nofile_limit(needed).unwrap_or(u64::MAX);
    if limit < needed {
        cli::take_descriptors(NAME, needed);
    }
}
