//! How long a program takes to begin and to end, beside what the kernel alone takes for the same.
//!
//! ```text
//! cargo bench --bench lifetime                       all parts
//! cargo bench --bench lifetime -- start              from the start of the process to the first answer
//! cargo bench --bench lifetime -- drain              to the end of a server with 9000 connections, after SIGTERM
//! cargo bench --bench lifetime -- end                to the end of a process with a million parked threads
//! cargo bench --bench lifetime -- --json FILE        the figures as a file, too
//! cargo bench --bench lifetime -- --turns 5          processes of each kind (21; of `end`, a third of that)
//! cargo bench --bench lifetime -- --with go=PROGRAM  one more server for `start` and `drain`, by a program that prints
//!                                                    `listening on ADDR`; its arguments are split at blanks
//! ```
//!
//! Each figure is a process of its own, and the kinds take turns. The process is this program again, in a *role*, so
//! that all of them load the same file; only `--with` is another.
//!
//! | role | is |
//! |---|---|
//! | `green` | `TcpServer`, with a drain on SIGTERM that closes the idle |
//! | `threads` | std, one OS thread a connection; ends by the signal, as its default action |
//! | `kernel` | std, one thread that accepts, answers once and holds the connection; ends by the signal |
//! | `return`, `exit` | parked green threads, of which each is unwound as main returns; or of which none is, by `_exit` |
//! | `pages` | one touched page every 256 KiB, as many as there are threads; ends by `_exit` |
//!
//! `kernel` and `pages` are the floor: what the kernel takes for the sockets and pages whatever the program does. In
//! `drain` and `end` a time is from the signal, or the word on standard input, until the parent has the exit code.

// Signals, exit without destructors, and the memory that a role leaves have no safe counterpart in std.
#![allow(unsafe_code)]

#[path = "results/mod.rs"]
mod results;

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, hint, thread};

use greenling::server::TcpServer;
use greenling::signal::SIGTERM;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Connections in the part `drain`: each is a descriptor of the server and one of this process.
const CONNECTIONS: usize = 9000;

/// Green threads in the part `end`.
const THREADS: usize = 1_000_000;

/// The distance of two stacks, and so of two pages in the role `pages`.
const STRIDE: usize = 256 * 1024;

/// Set in a process that plays a role, to the role's name.
const ROLE: &str = "GREENLING_LIFETIME_ROLE";

const USAGE: &str = "usage: cargo bench --bench lifetime -- [start] [drain] [end]
  --turns N             processes of each kind (21; of `end`, a third of that)
  --connections N       connections in `drain` (9000)
  --threads N           threads in `end` (1000000)
  --with NAME=COMMAND   one more server; COMMAND is split at blanks and must print `listening on ADDR`
  --json FILE           the figures as a file, too";

// ---- the roles ------------------------------------------------------------------------------------------------------

/// Plays a role until its end.
fn play(role: &str) -> Outcome<()> {
    match role {
        "green" => green(),
        "threads" => serve(|stream| drop(thread::spawn(move || while answer(&stream).is_ok_and(|more| more) {}))),
        "kernel" => {
            let mut held = Vec::new();
            serve(|stream| {
                // A connection that is closed before it asks is held like the others.
                let _ = answer(&stream);
                held.push(stream);
            })
        }
        "return" => {
            park();
            Ok(())
        }
        "exit" => {
            park();
            // SAFETY: ends the process, and with it whatever could notice that no destructor ran.
            unsafe { libc::_exit(0) }
        }
        "pages" => pages(),
        _ => Err(format!("there is no role {role}").into()),
    }
}

fn green() -> Outcome<()> {
    let server = TcpServer::bind("127.0.0.1:0")?.drain_on([SIGTERM]);
    announce(server.local_addr()?);
    let report = server.run(|stream, _| {
        let mut buf = [0; 64];
        while let Ok(count @ 1..) = (&stream).read(&mut buf) {
            if (&stream).write_all(&buf[..count]).is_err() {
                break;
            }
        }
    })?;
    hint::black_box(report);
    Ok(())
}

/// Says where the server listens, as all servers here do.
fn announce(addr: SocketAddr) {
    println!("listening on {addr}");
}

/// Accepts for ever, on the one OS thread.
fn serve(mut each: impl FnMut(TcpStream)) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    announce(listener.local_addr()?);
    loop {
        each(listener.accept()?.0);
    }
}

/// Sends back what comes next. Returns false at the end.
fn answer(mut stream: &TcpStream) -> io::Result<bool> {
    let mut buf = [0; 64];
    let count = stream.read(&mut buf)?;
    stream.write_all(&buf[..count])?;
    Ok(count > 0)
}

/// Returns how many threads the parent wants.
fn threads_wanted() -> usize {
    env::args().skip_while(|argument| argument != "--threads").nth(1).and_then(|n| n.parse().ok()).unwrap_or(THREADS)
}

/// Says that everything is there, and waits for the parent's word.
fn wait_for_the_word() {
    println!("ready");
    // The end of the input is the word, too.
    let _ = io::stdin().read(&mut [0]);
}

fn park() {
    for _ in 0..threads_wanted() {
        drop(greenling::spawn(greenling::thread::park));
    }
    greenling::yield_now();
    assert_eq!(greenling::hub::live_threads(), threads_wanted());
    wait_for_the_word();
}

/// The floor: as many pages as the threads have, as far from each other, and nothing else.
fn pages() -> Outcome<()> {
    let len = threads_wanted() * STRIDE;
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: as the stacks, so that each page is small.
    unsafe { libc::madvise(memory, len, libc::MADV_NOHUGEPAGE) };
    for at in (0..len).step_by(STRIDE) {
        // SAFETY: inside the mapping.
        let page = unsafe { memory.cast::<u8>().add(at) };
        // SAFETY: the page can be written, and nothing else knows it.
        unsafe { page.write_volatile(1) };
    }
    wait_for_the_word();
    // SAFETY: ends the process; nothing here has a destructor.
    unsafe { libc::_exit(0) }
}

// ---- processes ------------------------------------------------------------------------------------------------------

/// How a process of one kind is started.
struct Kind {
    name: String,
    command: Vec<String>,
}

/// A process in a role. Ends with the value.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Kind {
    fn role(name: &str) -> Kind {
        Kind { name: name.to_owned(), command: Vec::new() }
    }

    fn parse(text: &str) -> Outcome<Kind> {
        let (name, command) = text.split_once('=').ok_or("--with wants NAME=COMMAND")?;
        let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if name.is_empty() || command.is_empty() {
            return Err("--with wants NAME=COMMAND".into());
        }
        Ok(Kind { name: name.to_owned(), command })
    }

    fn start(&self, threads: usize) -> Outcome<Process> {
        let mut command = match self.command.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            None => {
                let mut command = Command::new(env::current_exe()?);
                command.args(["--threads", &threads.to_string()]).env(ROLE, &self.name);
                command
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", self.name))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Process { child, input, output })
    }
}

impl Process {
    /// Waits for the line that begins so, and returns the rest of it.
    fn line(&mut self, begin: &str) -> Outcome<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line)? > 0 {
            if let Some(rest) = line.trim_end().strip_prefix(begin) {
                return Ok(rest.trim().to_owned());
            }
            line.clear();
        }
        Err(format!("the process has ended without a line {begin:?}").into())
    }

    /// Waits until the server listens, and returns a connection that has been answered once.
    fn connect(&mut self) -> Outcome<(SocketAddr, TcpStream)> {
        let addr = self.line("listening on ")?.parse()?;
        Ok((addr, ask(addr)?))
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: takes numbers only; the child has not been waited for, so the number is the child's.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Waits for the end. Returns the seconds since `start`.
    fn wait(&mut self, start: Instant) -> Outcome<f64> {
        self.child.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Returns a field of the process's `/proc/PID/status`, in KiB.
    fn status(&self, field: &str) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with(field)).ok_or("no such field")?;
        Ok(line.split_whitespace().nth(1).ok_or("no value")?.parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects, and has one message answered.
fn ask(addr: SocketAddr) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

// ---- the parts ------------------------------------------------------------------------------------------------------

struct Options {
    parts: Vec<String>,
    turns: usize,
    connections: usize,
    threads: usize,
    with: Vec<String>,
}

/// What one process took.
struct Sample {
    /// Seconds.
    took: f64,
    /// KiB of resident memory before the end.
    memory: f64,
}

/// Measures processes of all kinds in turns, and prints a row for each. The last kind is the floor.
fn compare(part: &str, kinds: &[Kind], turns: usize, measure: impl Fn(&Kind) -> Outcome<Sample>) -> Outcome<()> {
    let mut samples: Vec<Vec<Sample>> = kinds.iter().map(|_| Vec::new()).collect();
    for turn in 0..turns {
        for step in 0..kinds.len() {
            // Every second turn goes backwards, so that drift of the machine hits all alike.
            let index = if turn % 2 == 0 { step } else { kinds.len() - 1 - step };
            samples[index].push(measure(&kinds[index])?);
        }
    }
    let figures = |index: usize, of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples[index].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2], values[0], values[values.len() - 1])
    };
    let floor = figures(kinds.len() - 1, |sample| sample.took).0;
    for (index, kind) in kinds.iter().enumerate() {
        let (took, least, most) = figures(index, |sample| sample.took);
        let name = format!("{part}/{}", kind.name);
        let all: Vec<f64> = samples[index].iter().map(|sample| sample.took * 1e3).collect();
        results::note(&name, "ms", &all, Some(took / floor));
        let all: Vec<f64> = samples[index].iter().map(|sample| sample.memory).collect();
        results::note(&format!("{name}, resident"), "KiB", &all, None);
        println!(
            "{:<24} {:>10.2} ms {:>8.2} x  ({:.2} .. {:.2})  {:>10.0} KiB resident",
            name,
            took * 1e3,
            took / floor,
            least * 1e3,
            most * 1e3,
            figures(index, |sample| sample.memory).0
        );
    }
    Ok(())
}

/// Returns the servers, with the floor at the end.
fn servers(options: &Options) -> Outcome<Vec<Kind>> {
    let mut kinds = vec![Kind::role("green"), Kind::role("threads")];
    for text in &options.with {
        kinds.push(Kind::parse(text)?);
    }
    kinds.push(Kind::role("kernel"));
    Ok(kinds)
}

/// From the start of a process to the first answer.
fn start(options: &Options) -> Outcome<()> {
    println!("\nfrom the start of the process to the first answer, {} processes of each", options.turns);
    compare("start", &servers(options)?, options.turns, |kind| {
        let start = Instant::now();
        let mut process = kind.start(0)?;
        let _stream = process.connect()?;
        Ok(Sample { took: start.elapsed().as_secs_f64(), memory: process.status("VmRSS:")? })
    })
}

/// From SIGTERM to the end of a server with many connections.
fn drain(options: &Options) -> Outcome<()> {
    let count = options.connections;
    println!("\nfrom SIGTERM to the end, with {count} connections, {} processes of each", options.turns);
    compare("drain", &servers(options)?, options.turns, |kind| {
        let mut process = kind.start(0)?;
        let (addr, first) = process.connect()?;
        let mut streams = vec![first];
        while streams.len() < count {
            streams.push(ask(addr)?);
        }
        let memory = process.status("VmRSS:")?;
        let start = Instant::now();
        process.signal(libc::SIGTERM);
        Ok(Sample { took: process.wait(start)?, memory })
    })
}

/// To the end of a process with many parked threads.
fn end(options: &Options) -> Outcome<()> {
    let turns = options.turns.div_ceil(3);
    println!("\nto the end, with {} parked threads, {turns} processes of each", options.threads);
    compare("end", &["return", "exit", "pages"].map(Kind::role), turns, |kind| {
        let mut process = kind.start(options.threads)?;
        process.line("ready")?;
        let memory = process.status("VmRSS:")?;
        let start = Instant::now();
        drop(process.input.take());
        Ok(Sample { took: process.wait(start)?, memory })
    })
}

/// Returns what the command line says.
fn arguments() -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options =
        Options { parts: Vec::new(), turns: 21, connections: CONNECTIONS, threads: THREADS, with: Vec::new() };
    let mut words: Vec<String> = env::args().skip(1).collect();
    results::take_option("lifetime", &mut words)?;
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("bench") => {}
            Long("turns") => options.turns = parser.value()?.parse()?,
            Long("connections") => options.connections = parser.value()?.parse()?,
            Long("threads") => options.threads = parser.value()?.parse()?,
            Long("with") => options.with.push(parser.value()?.string()?),
            Long("help") | Short('h') => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            Value(part) if ["start", "drain", "end"].iter().any(|known| part == *known) => {
                options.parts.push(part.string()?);
            }
            Value(part) => return Err(format!("there is no part {}", part.to_string_lossy()).into()),
            other => return Err(other.unexpected()),
        }
    }
    if options.turns == 0 || options.connections == 0 || options.threads == 0 {
        return Err("a count must be at least 1".into());
    }
    Ok(options)
}

fn main() -> ExitCode {
    if let Ok(role) = env::var(ROLE) {
        return match play(&role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("lifetime, role {role}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let options = match arguments() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    for (name, part) in [("start", start as fn(&Options) -> Outcome<()>), ("drain", drain), ("end", end)] {
        if !options.parts.is_empty() && !options.parts.iter().any(|wanted| wanted == name) {
            continue;
        }
        if let Err(error) = part(&options) {
            eprintln!("lifetime, {name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    if let Err(error) = results::write() {
        eprintln!("lifetime: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
