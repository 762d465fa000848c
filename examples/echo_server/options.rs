//! The command line.
#![forbid(unsafe_code)]

use std::num::NonZero;
use std::time::Duration;

use crate::cli;

/// The name of the program, with which all messages begin.
pub(crate) const NAME: &str = "echo_server";

/// The largest number of hubs: a larger one is a typing error.
const MOST_HUBS: usize = 1024;

const HELP: &str = "\
Sends back whatever its clients send.

usage: echo_server [--addr HOST:PORT] [--quiet] [--max-connections N]
                   [--idle-timeout TIME] [--grace TIME] [--hubs N]
                   [--reuse-port] [--own-thread-locals]

  --addr HOST:PORT     where to listen: 127.0.0.1:7007 by default; port 0 takes
                       a free one
  --quiet              do not log connections and departures
  --max-connections N  serve N clients at once, over all hubs; others wait in
                       line until one leaves
  --idle-timeout TIME  close connections that neither send nor take anything for
                       so long: 30 (seconds), 500ms
  --grace TIME         how long clients may go on after `quit`: 5 seconds by
                       default
  --hubs N             serve on N OS threads: 1 by default; 0 is one for each
                       processor. The kernel decides which of them gets a client
  --reuse-port         share the address with other processes that do the same:
                       the kernel spreads clients over them
  --own-thread-locals  serve each client in a green thread with thread-locals of
                       its own, as an OS thread has

On a terminal, typing `quit` or Ctrl-D stops it: it accepts no more clients,
goes on serving those that are there, or in line, until they leave or the grace
is over, and ends. SIGTERM does the same, a second one ends the grace; Ctrl-C
ends all at once. Typing `stats`, or SIGUSR1, shows the counters;
Ctrl-\\, or SIGQUIT, shows what each thread does.

Started by socket activation (LISTEN_FDS), it serves the listener that it was
passed, and not --addr.

A client takes a descriptor. All that the hard limit allows are used; see
ulimit -H -n.
";

/// The command line; see [`HELP`].
pub(crate) struct Options {
    pub(crate) addr: String,
    pub(crate) quiet: bool,
    pub(crate) max_connections: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) hubs: usize,
    pub(crate) reuse_port: bool,
    pub(crate) own_thread_locals: bool,
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    // What holds if nothing is said.
    let mut options = Options {
        addr: String::from("127.0.0.1:7007"),
        quiet: false,
        max_connections: usize::MAX,
        idle_timeout: None,
        grace: Duration::from_secs(5),
        hubs: 1,
        reuse_port: false,
        own_thread_locals: false,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("addr") => options.addr = cli::text("--addr", &mut parser)?,
            Long("quiet") | Short('q') => options.quiet = true,
            Long("max-connections") => options.max_connections = cli::count("--max-connections", &mut parser)?,
            Long("idle-timeout") => {
                let limit = cli::duration("--idle-timeout", &mut parser)?;
                if limit.is_zero() {
                    return Err(String::from("--idle-timeout must be more than 0"));
                }
                options.idle_timeout = Some(limit);
            }
            Long("grace") => options.grace = cli::duration("--grace", &mut parser)?,
            Long("hubs") => {
                let hubs = cli::text("--hubs", &mut parser)?;
                options.hubs = match hubs.parse() {
                    Ok(hubs) if hubs <= MOST_HUBS => hubs,
                    _ => return Err(format!("--hubs {hubs}: not a whole number from 0 to {MOST_HUBS}")),
                };
            }
            Long("reuse-port") => options.reuse_port = true,
            Long("own-thread-locals") => options.own_thread_locals = true,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    // 0 stands for as many hubs as there are processors.
    if options.hubs == 0 {
        options.hubs = std::thread::available_parallelism().map_or(1, NonZero::get);
    }
    Ok(options)
}
