//! You will see the addresses of several names, looked up at the same time, each within a time limit.
//!
//! A lookup is a blocking call of the C library, so OS threads make the call; the green threads wait for them as for a
//! socket. A name that takes too long does not hold up the others.
#![forbid(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use greenling::group::Pool;
use greenling::net::ToSocketAddrs;
use greenling::timeout;

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "resolve_names";

const HELP: &str = "\
Looks up the addresses of names, several at the same time.

usage: resolve_names [--at-once N] [--limit TIME] [NAME...]

  --at-once N   lookups at the same time; 10 by default
  --limit TIME  how long each may take: 0.5 (seconds), 2s, 500ms; 2s by default
  NAME          a name or an address; localhost, 127.0.0.1 and ::1 by default
";

struct Options {
    at_once: u16,
    limit: Duration,
    names: Vec<String>,
}

/// Returns the addresses of a name, each once.
fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = (name, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn main() {
    let Options { at_once, limit, names } = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    let pool = Pool::new(at_once.into());
    // In the order of the names: each as soon as its addresses, and those of all names before, are known.
    let found = pool.imap(names.clone(), move |name| timeout(limit, || resolve(&name)));
    let mut failed = 0;
    for (name, found) in names.iter().zip(found) {
        match found.expect("a lookup does not panic") {
            Ok(Ok(addresses)) => {
                let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                cli::say(NAME, format_args!("{name}: {}", addresses.join(", ")));
            }
            Ok(Err(error)) => {
                failed += 1;
                cli::say(NAME, format_args!("{name}: {error}"));
            }
            Err(late) => {
                failed += 1;
                cli::say(NAME, format_args!("{name}: {late}"));
            }
        }
    }
    if failed > 0 {
        cli::fail(1, NAME, format_args!("{failed} of {} names have no address", names.len()));
    }
}

fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let mut options = Options { at_once: 10, limit: Duration::from_secs(2), names: Vec::new() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("at-once") => options.at_once = cli::count("--at-once", &mut parser)?,
            Long("limit") => options.limit = cli::duration("--limit", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            Value(name) => options.names.push(name.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().to_string()),
        }
    }
    // Without names, three that every machine knows.
    if options.names.is_empty() {
        options.names = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    }
    Ok(options)
}

// Output:
//
//     localhost: 127.0.0.1, ::1
//     127.0.0.1: 127.0.0.1
//     ::1: ::1
//
// Read next: src/net/resolve.rs, and which threads make the blocking calls.
