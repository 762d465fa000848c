//! You will see one echo server written fourteen times, from one client at a time to green threads: each file of this
//! folder is a rung of the ladder, and its first lines say what it shows and what the next rung mends.
//!
//! ```text
//!   blocking       one thread, one client at a time          shared/     sockets, answers, the log, and what a
//!   process        fork per client                                       client of an event loop is
//!   thread         OS thread per client                      epoll.rs    the three calls of epoll
//!   nonblocking    one thread asks all clients, all the time
//!   select         the kernel says which are ready, up to 1024 descriptors
//!   select-stdin   the terminal is one descriptor more
//!   poll           any number of descriptors
//!   epoll-lt       the kernel keeps the list
//!   epoll-et       the kernel tells each change once
//!   greenlet       straight-line code again: one greenlet per client, switched by hand
//!   green          nothing by hand: green threads
//!   green-hubs     the same on each of several OS threads: all processors
//!   green-patched  `thread`, by `std` alone, turned green unmodified; with `--features monkey`
//!   green-threads-patched   `thread` itself, with one line before; with `--features monkey`
//! ```
//!
//! All of them do the same as seen from outside: they print `listening on ADDR`, log connections and departures, and
//! send back what they get, or `thank you!` for each piece. `tests/server_models/` runs one list of cases against all.

use std::io;
use std::net::ToSocketAddrs;

#[path = "../common/cli.rs"]
mod cli;

mod blocking;
mod epoll;
mod epoll_et;
mod epoll_lt;
mod green;
mod green_hubs;
#[cfg(feature = "monkey")]
mod green_patched;
#[cfg(feature = "monkey")]
mod green_threads_patched;
mod greenlet;
mod nonblocking;
mod poll;
mod process;
mod select;
mod select_stdin;
mod shared;
mod thread;

use shared::{Listener, Reply, Service};

const NAME: &str = "server_models";

const HELP: &str = "\
One echo server, written once for each model of serving many clients.

usage: server_models --model NAME [--addr HOST:PORT] [--reply echo|thanks]
                     [--hubs N] [--quiet]
       server_models --list

  --model NAME         which one; --list prints all, simplest first.
                       green-patched and green-threads-patched need a build
                       with --features monkey
  --addr HOST:PORT     where to listen: 127.0.0.1:7007 by default; port 0 takes
                       a free one
  --reply echo|thanks  send back what comes in (the default), or `thank you!`
                       for each piece of it
  --hubs N             the OS threads of green-hubs: one for each processor by
                       default; the others have one each
  --quiet              do not log connections and departures

Ctrl-C ends it; select-stdin also ends when a line is typed.
";

/// One way to serve many clients.
struct Model {
    /// The name that `--model` takes.
    name: &'static str,
    /// What `--list` says of the model.
    about: &'static str,
    /// Serves until the process is told to end; only `select-stdin` ever returns `Ok`.
    serve: fn(Listener, Service) -> io::Result<()>,
}

/// The ladder, from the bottom.
const MODELS: &[Model] = &[
    Model { name: "blocking", about: "one client at a time", serve: blocking::serve },
    Model { name: "process", about: "fork per client", serve: process::serve },
    Model { name: "thread", about: "OS thread per client", serve: thread::serve },
    Model { name: "nonblocking", about: "one thread asks all clients, all the time", serve: nonblocking::serve },
    Model { name: "select", about: "select(2), descriptors below 1024", serve: select::serve },
    Model { name: "select-stdin", about: "the same; a line on standard input stops it", serve: select_stdin::serve },
    Model { name: "poll", about: "poll(2), any number of descriptors", serve: poll::serve },
    Model { name: "epoll-lt", about: "epoll(7), level-triggered", serve: epoll_lt::serve },
    Model { name: "epoll-et", about: "epoll(7), edge-triggered", serve: epoll_et::serve },
    Model { name: "greenlet", about: "greenlet per client, switched by hand", serve: greenlet::serve },
    Model { name: "green", about: "green thread per client", serve: green::serve },
    Model { name: "green-hubs", about: "green threads on every processor", serve: green_hubs::serve },
    #[cfg(feature = "monkey")]
    Model { name: "green-patched", about: "std's blocking calls, turned green", serve: green_patched::serve },
    #[cfg(feature = "monkey")]
    Model { name: "green-threads-patched", about: "std's threads, turned green", serve: green_threads_patched::serve },
];

fn main() {
    let (model, addr, service) = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    let listening = addr.to_socket_addrs().and_then(|mut found| {
        let addr = found.next().ok_or_else(|| io::Error::other("the name has no address"))?;
        let listener = Listener::bind(addr, false)?;
        Ok((listener.local_addr()?, listener))
    });
    let (local, listener) = listening.unwrap_or_else(|error| cli::cannot_listen(NAME, &addr, &error));
    cli::announce(format_args!("listening on {local}"));
    match (model.serve)(listener, service) {
        Ok(()) => cli::announce("stopped"),
        Err(error) => cli::fail(1, NAME, format_args!("{}: {error}", model.name)),
    }
}

/// Reads the command line: the model, the address, what to answer.
fn parse() -> Result<(&'static Model, String, Service), String> {
    use lexopt::prelude::*;
    let mut model = None;
    let mut addr = String::from("127.0.0.1:7007");
    let mut service = Service { reply: Reply::Echo, hubs: 0, quiet: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("model") => {
                let name = cli::text("--model", &mut parser)?;
                // A model that this build does not have is named with the feature that is missing.
                let found = MODELS.iter().find(|model| model.name == name);
                model = Some(found.ok_or_else(|| match &name[..] {
                    "green-patched" | "green-threads-patched" => {
                        format!("{name} needs --features monkey")
                    }
                    _ => format!("--model {name}: there is none; --list prints all"),
                })?);
            }
            Long("addr") => addr = cli::text("--addr", &mut parser)?,
            Long("reply") => {
                service.reply = match cli::text("--reply", &mut parser)?.as_str() {
                    "echo" => Reply::Echo,
                    "thanks" => Reply::Thanks,
                    other => return Err(format!("--reply {other}: neither echo nor thanks")),
                }
            }
            Long("hubs") => service.hubs = cli::count("--hubs", &mut parser)?,
            Long("quiet") | Short('q') => service.quiet = true,
            Long("list") => {
                for Model { name, about, .. } in MODELS {
                    cli::say(NAME, format_args!("{name:<21} {about}"));
                }
                std::process::exit(0);
            }
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    let model = model.ok_or("--model NAME is missing; --list prints all")?;
    Ok((model, addr, service))
}

// Output, with two clients of which the second left first:
//
//     listening on 127.0.0.1:7007
//     127.0.0.1:53004 connected
//     127.0.0.1:53006 connected
//     127.0.0.1:53006 left after 4 bytes: closed by the client
//     127.0.0.1:53004 left after 4 bytes: closed by the client
//
// Read next: blocking.rs, and from there one rung after the other; chapter 0 of docs/book explains them.
