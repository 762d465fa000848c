//! The command line.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use lexopt::prelude::*;

use crate::server::Server;
use crate::wire::Protocol;

/// What `--help` says.
pub(crate) const HELP: &str = "\
Asks a server of this machine on a timetable, and counts each answer from the
moment at which its request was due.

usage: load http|resp|echo|proxy|tls-echo|chat --addr ADDR:PORT [OPTION]...
       load upstream [--addr ADDR:PORT] [--seconds N]

  --rate N|max       requests (chat: messages) a second, over all connections;
                     max, as by itself: as fast as the answers come, and the
                     latencies are then from sending, not from a timetable
  --connections N    connections, in chat members: 50 (chat: 1000)
  --seconds N        how long (5; upstream: 3600)
  --warmup N         how long before, uncounted (1)
  --grace N          how long to wait for the last answers (5)
  --most N           the most requests of a run (10000000)
  --size N           bytes of a message: echo, proxy, tls-echo, chat (64)
  --path PATH        http: what is asked for (/)
  --key KEY          resp: what is asked for (key)
  --server-pid PID   also prints CPU a request and memory a connection of it
  --lines            one figure a line, for scripts

upstream sends back what it gets: it stands behind a proxy.
The end is 0 if all requests were answered, 1 if not, 2 if misused.
";

/// What to drive.
#[derive(Debug)]
pub(crate) enum Mode {
    /// Requests and answers.
    Requests(Protocol),
    /// A chat room.
    Chat,
    /// The server behind a proxy.
    Upstream,
}

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) addr: SocketAddr,
    /// Requests a second; none is as fast as answers come.
    pub(crate) rate: Option<f64>,
    pub(crate) connections: usize,
    pub(crate) seconds: f64,
    pub(crate) warmup: f64,
    pub(crate) grace: f64,
    pub(crate) most: u64,
    pub(crate) size: usize,
    pub(crate) tls: bool,
    pub(crate) server: Option<Server>,
    pub(crate) lines: bool,
}

impl Plan {
    /// Returns how long an upstream lives.
    pub(crate) fn life(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// What the options say before they are put together.
#[derive(Default)]
struct Given {
    mode: Option<String>,
    addr: Option<SocketAddr>,
    rate: Option<f64>,
    connections: Option<usize>,
    seconds: Option<f64>,
    warmup: Option<f64>,
    grace: Option<f64>,
    most: Option<u64>,
    size: Option<usize>,
    path: Option<String>,
    key: Option<String>,
    server: Option<Server>,
    lines: bool,
}

/// Reads the command line; `None` if only help was asked for.
///
/// # Errors
/// A sentence about what is wrong.
pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Option<Plan>, String> {
    let mut given = Given::default();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Value(mode) if given.mode.is_none() => given.mode = Some(mode.to_string_lossy().into_owned()),
            Long("help") | Short('h') => return Ok(None),
            arg => option(&mut given, arg_name(&arg)?, &mut parser).map_err(|error| error.to_string())?,
        }
    }
    plan(given).map(Some)
}

fn arg_name(arg: &lexopt::Arg<'_>) -> Result<String, String> {
    match arg {
        Long(name) => Ok((*name).to_owned()),
        other => Err(format!("what is {other:?}?")),
    }
}

fn option(given: &mut Given, name: String, parser: &mut lexopt::Parser) -> Result<(), lexopt::Error> {
    match name.as_str() {
        "addr" => given.addr = Some(parser.value()?.parse()?),
        "rate" => {
            let value = parser.value()?;
            given.rate = if value == "max" { None } else { Some(above_zero(value.parse()?)?) };
        }
        "connections" | "members" => given.connections = Some(parser.value()?.parse()?),
        "seconds" => given.seconds = Some(above_zero(parser.value()?.parse()?)?),
        "warmup" => given.warmup = Some(above_zero(parser.value()?.parse()?)?),
        "grace" => given.grace = Some(above_zero(parser.value()?.parse()?)?),
        "most" => given.most = Some(parser.value()?.parse()?),
        "size" => given.size = Some(parser.value()?.parse()?),
        "path" => given.path = Some(parser.value()?.string()?),
        "key" => given.key = Some(parser.value()?.string()?),
        "server-pid" => {
            let pid = parser.value()?.parse()?;
            given.server = Some(Server::new(pid).map_err(|error| format!("process {pid}: {error}"))?);
        }
        "lines" => given.lines = true,
        _ => return Err(format!("there is no option --{name}").into()),
    }
    Ok(())
}

fn above_zero(number: f64) -> Result<f64, lexopt::Error> {
    // An hour, or a hundred million a second, is more than any run needs.
    if number > 0.0 && number <= 1e8 { Ok(number) } else { Err(format!("{number} is not above zero").into()) }
}

/// Puts together what the options say, with defaults for the others.
fn plan(given: Given) -> Result<Plan, String> {
    let name = given.mode.ok_or("what is to be driven?")?;
    let size = given.size.unwrap_or(64);
    let mode = match name.as_str() {
        "http" => Mode::Requests(Protocol::Http(given.path.unwrap_or_else(|| "/".to_owned()))),
        "resp" => Mode::Requests(Protocol::Resp(given.key.unwrap_or_else(|| "key".to_owned()))),
        "echo" | "proxy" | "tls-echo" => Mode::Requests(Protocol::Echo(size)),
        "chat" => Mode::Chat,
        "upstream" => Mode::Upstream,
        other => return Err(format!("there is no {other}")),
    };
    let upstream = matches!(mode, Mode::Upstream);
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let addr = given.addr.or(upstream.then_some(anywhere)).ok_or("where is the server? (--addr)")?;
    // Load is for one's own machine.
    if !addr.ip().is_loopback() {
        return Err(format!("{addr} is not an address of this machine's loopback"));
    }
    let connections = given.connections.unwrap_or(if name == "chat" { 1000 } else { 50 });
    let most = given.most.unwrap_or(10_000_000);
    if connections == 0 || most == 0 || size == 0 || size > 32 * 1024 {
        return Err("connections, most and size are at least 1, and size at most 32768".to_owned());
    }
    Ok(Plan {
        mode,
        addr,
        rate: given.rate,
        connections,
        seconds: given.seconds.unwrap_or(if upstream { 3600.0 } else { 5.0 }),
        warmup: given.warmup.unwrap_or(1.0),
        grace: given.grace.unwrap_or(5.0),
        most,
        size,
        tls: name == "tls-echo",
        server: given.server,
        lines: given.lines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Option<Plan>, String> {
        parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn options_are_read_and_the_others_have_defaults() {
        let plan = of("tls-echo --addr 127.0.0.1:7 --rate 1000 --connections 3 --size 100 --lines").unwrap().unwrap();
        assert!(plan.tls && plan.lines);
        assert_eq!((plan.rate, plan.connections), (Some(1000.0), 3));
        assert!(matches!(plan.mode, Mode::Requests(Protocol::Echo(100))));
        let plan = of("chat --addr 127.0.0.1:7 --rate max").unwrap().unwrap();
        assert_eq!((plan.rate, plan.connections), (None, 1000));
        assert!(of("--help").unwrap().is_none());
    }

    #[test]
    fn misuse_is_told() {
        for line in [
            "",
            "http",
            "ftp --addr 127.0.0.1:7",
            "http --addr 192.0.2.1:80",
            "http --addr 127.0.0.1:7 --rate 0",
            "http --addr 127.0.0.1:7 --rate -5",
            "http --addr 127.0.0.1:7 --connections 0",
            "http --addr 127.0.0.1:7 --colour red",
            "http --addr 127.0.0.1:7 --server-pid 0x7",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}
