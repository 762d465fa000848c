//! Signals to a whole process, where the test harness cannot go: its own OS threads would take them.
//!
//! Without arguments it runs each case in a child and looks at how that ended; a child gets its case by name.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use greenling::signal::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1, Signals, ctrl_c};
use greenling::{Hubs, process, sleep, spawn, yield_now};

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a signal to process `id` with the program made for it.
fn send(id: u32, signal: &str) {
    let status = process::Command::new("kill").args(["-s", signal, &id.to_string()]).status();
    assert!(status.unwrap().success());
}

/// Sends a signal to this process.
fn to_myself(signal: &str) {
    send(std::process::id(), signal);
}

/// Of a child: tells the parent to go on.
fn ready() {
    println!("ready");
}

/// A name, what the child does, the signals that it is sent, one for each `ready`, and how it ends: with a code, or
/// by a signal.
type Case = (&'static str, fn(), &'static [&'static str], Result<i32, i32>);

const CASES: &[Case] = &[
    (
        "before the call",
        || {
            let signals = Signals::new([SIGTERM]).unwrap();
            to_myself("TERM");
            let signal = signals.recv().unwrap();
            assert_eq!((signal.number(), signals.try_recv().unwrap()), (SIGTERM, None));
            assert_ne!(signal.sender(), Some(std::process::id()), "it was the kill program");
        },
        &[],
        Ok(0),
    ),
    (
        "while it waits",
        || {
            let signals = Signals::new([SIGTERM]).unwrap();
            let waiter = spawn(move || signals.recv().unwrap().number());
            yield_now();
            ready();
            assert_eq!(waiter.join().unwrap(), SIGTERM);
        },
        &["TERM"],
        Ok(0),
    ),
    (
        "while others compute",
        || {
            let signals = Signals::new([SIGTERM]).unwrap();
            let waiter = spawn(move || signals.recv().unwrap());
            ready();
            while !waiter.is_finished() {
                yield_now();
            }
        },
        &["TERM"],
        Ok(0),
    ),
    (
        "os threads started later",
        || {
            let signals = Signals::new([SIGTERM, SIGUSR1]).unwrap();
            let other = std::thread::spawn(std::thread::park);
            let _hubs = Hubs::new(2).start(|_| sleep(PATIENCE)).unwrap();
            for signal in [SIGTERM, SIGUSR1, SIGTERM] {
                ready();
                assert_eq!(signals.recv().unwrap().number(), signal);
            }
            other.thread().unpark();
            other.join().unwrap();
            // Without waiting for the hubs.
            std::process::exit(0);
        },
        &["TERM", "USR1", "TERM"],
        Ok(0),
    ),
    (
        "os threads started before",
        || {
            let (began, begun) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                began.send(()).unwrap();
                std::thread::park();
            });
            begun.recv().unwrap();
            let signals = Signals::new([SIGTERM]).unwrap();
            ready();
            signals.recv().unwrap();
        },
        &["TERM"],
        Err(SIGTERM),
    ),
    (
        "os threads of the pools started before",
        || {
            // Idle now: one of files and jobs, one of names.
            greenling::fs::metadata("/").unwrap();
            greenling::net::TcpListener::bind("localhost:0").unwrap();
            let signals = Signals::new([SIGTERM]).unwrap();
            ready();
            assert_eq!(signals.recv().unwrap().number(), SIGTERM);
            // A job that is asked for now does not take it either, and the pool's thread is as before when it is done.
            let job = spawn(|| {
                greenling::blocking(|| {
                    ready();
                    std::thread::sleep(Duration::from_millis(50));
                })
            });
            assert_eq!(signals.recv().unwrap().number(), SIGTERM);
            job.join().unwrap();
            ready();
            assert_eq!(signals.recv().unwrap().number(), SIGTERM);
        },
        &["TERM", "TERM", "TERM"],
        Ok(0),
    ),
    (
        "a job of a caller that has blocked nothing",
        || {
            greenling::blocking(|| {
                // What a child of std's inherits.
                let mask = Command::new("grep").args(["SigBlk", "/proc/self/status"]).output().unwrap().stdout;
                assert_eq!(String::from_utf8_lossy(&mask).trim(), "SigBlk:\t0000000000000000");
                ready();
                std::thread::sleep(PATIENCE);
            });
        },
        &["TERM"],
        Err(SIGTERM),
    ),
    (
        "the end of a child",
        || {
            let signals = Signals::new([SIGCHLD]).unwrap();
            let mut child = process::Command::new("true").spawn().unwrap();
            let signal = signals.recv().unwrap();
            assert_eq!((signal.number(), signal.sender()), (SIGCHLD, Some(child.id())));
            assert!(child.wait().unwrap().success(), "and the wait does not depend on it");
        },
        &[],
        Ok(0),
    ),
    (
        "never received",
        || {
            let signals = Signals::new([SIGTERM]).unwrap();
            to_myself("TERM");
            drop(signals);
            unreachable!("it was pending");
        },
        &[],
        Err(SIGTERM),
    ),
    (
        "ctrl-c, once",
        || {
            let other = spawn(|| {
                yield_now();
                ready();
            });
            ctrl_c().unwrap();
            other.join().unwrap();
        },
        &["INT"],
        Ok(0),
    ),
    (
        "ctrl-c, twice",
        || {
            drop(spawn(ready));
            ctrl_c().unwrap();
            ready();
            std::thread::sleep(PATIENCE);
        },
        &["INT", "INT"],
        Err(SIGINT),
    ),
];

/// Waits for a line, and reads no further.
fn line(out: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line
}

/// Runs one case in a process of its own.
fn run(name: &str, signals: &[&str]) -> ExitStatus {
    let mut child =
        Command::new(std::env::current_exe().unwrap()).arg(name).stdout(Stdio::piped()).spawn().expect("a child");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for signal in signals {
        assert_eq!(line(&mut out), "ready\n", "{name}");
        send(child.id(), signal);
    }
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{name} hangs");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "{name}");
    status
}

fn main() {
    let wanted = std::env::args().nth(1);
    if let Some((_, body, ..)) = CASES.iter().find(|(name, ..)| Some(*name) == wanted.as_deref()) {
        body();
        return;
    }
    for (name, _, signals, end) in CASES {
        let status = run(name, signals);
        let ended = status.code().ok_or_else(|| status.signal().unwrap_or_default());
        assert_eq!(ended, *end, "{name}: {status}");
        println!("case {name} ... ok");
    }
    println!("{} cases passed", CASES.len());
}
