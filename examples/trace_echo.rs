//! You will see why the longest wait of a client took so long, step by step; and what all threads did in
//! `trace_echo.html`, a page for a browser, and `trace_echo.json`, for <https://ui.perfetto.dev>.
//!
//! Each client is a green thread, and so is each connection of the server.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::path::PathBuf;

use greenling::fs;
use greenling::net::{TcpListener, TcpStream};
use greenling::thread::Builder;
use greenling::trace::{self, Trace};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "trace_echo";

const HELP: &str = "\
An echo server and ten clients, traced: writes trace_echo.html and .json.

usage: trace_echo [--folder PATH]

  --folder PATH  where the files are written; here by default
";

fn main() {
    let folder = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    if let Err(error) = run().and_then(|trace| report(&trace, folder)) {
        cli::fail(1, NAME, cli::brief(&error));
    }
}

/// Lets ten clients talk to the server, and returns the trace of that.
fn run() -> io::Result<Trace> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    trace::start(trace::Options::new())?;
    let server = Builder::new().name("server".into()).spawn(move || {
        for stream in listener.incoming().take(10).flatten() {
            let echo = move || _ = io::copy(&mut &stream, &mut &stream);
            drop(Builder::new().name("connection".into()).spawn(echo));
        }
    })?;
    let talk = move |number: u32| -> io::Result<()> {
        let mut stream = TcpStream::connect(addr)?;
        for round in 0..20 {
            let _span = trace::span(&format!("round {round} of client {number}"));
            stream.write_all(b"echo")?;
            stream.read_exact(&mut [0; 4])?;
        }
        Ok(())
    };
    let client = |number| Builder::new().name(format!("client {number}")).spawn(move || talk(number));
    let clients: Vec<_> = (0..10).map(client).collect::<io::Result<_>>()?;
    clients.into_iter().try_for_each(|client| client.join().expect("it does not panic"))?;
    server.join().expect("it does not panic");
    trace::stop()
}

/// Writes both files, and says in the terminal what was slowest.
fn report(trace: &Trace, folder: PathBuf) -> io::Result<()> {
    let (mut page, mut json) = (Vec::new(), Vec::new());
    trace.write_html(&mut page)?;
    trace.write_chrome(&mut json)?;
    fs::write(folder.join("trace_echo.html"), page)?;
    fs::write(folder.join("trace_echo.json"), json)?;
    let is_client = |hub, thread| trace.name(hub, thread).is_some_and(|name| name.starts_with("client"));
    let waits = trace.waits().into_iter().filter(|wait| is_client(wait.hub, wait.thread));
    if let Some(longest) = waits.max_by_key(|wait| wait.lasted) {
        cli::say(NAME, cli::fold(&trace.why(longest.hub, longest.thread, longest.at)));
    }
    Ok(())
}

fn parse() -> Result<PathBuf, String> {
    use lexopt::prelude::*;
    let mut folder = PathBuf::new();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("folder") => folder = parser.value().map_err(|error| error.to_string())?.into(),
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(folder)
}
