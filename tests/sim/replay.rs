//! The same seed gives the same steps, byte for byte: in another process, at other addresses, after other runs.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::sim::{self, Config, Strategy};
use greenling::sync::{Event, Mutex, Semaphore};
use greenling::{channel, select, sleep, spawn, timeout, yield_now};

/// The programs of a child process that prints a digest of their traces.
const PROGRAMS: u64 = 1000;

/// A program that is itself drawn from the seed: some threads, each of which does something with what all share.
fn random_program() {
    let lock = Rc::new(Mutex::new(0_u64));
    let permits = Rc::new(Semaphore::new(1 + (sim::random() % 2) as usize));
    let event = Rc::new(Event::new());
    let (send, receive) = channel::bounded(2);
    let (send2, receive2) = channel::unbounded();
    let threads: Vec<_> = (0..2 + sim::random() % 4)
        .map(|_| {
            let (lock, permits, event) = (Rc::clone(&lock), Rc::clone(&permits), Rc::clone(&event));
            let (send, send2, receive, receive2) = (send.clone(), send2.clone(), receive.clone(), receive2.clone());
            spawn(move || {
                for _ in 0..1 + sim::random() % 5 {
                    match sim::random() % 9 {
                        0 => *lock.lock().unwrap() += 1,
                        1 => drop(permits.acquire()),
                        2 => sleep(Duration::from_micros(sim::random() % 100)),
                        3 => yield_now(),
                        4 => drop(send.try_send(1)),
                        5 => drop(send2.send(2)),
                        6 => {
                            let _ = timeout(Duration::from_millis(1), || event.wait());
                        }
                        7 => event.set(),
                        _ => select! {
                            recv(receive) -> _got => {},
                            recv(receive2) -> _got => {},
                            after(Duration::from_micros(50)) => {},
                        },
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A program on three hosts with bad links between them, drawn from the seed, too.
fn random_conversation() {
    let micros = |most: u64| Duration::from_micros(sim::random() % most);
    sim::network().latency(micros(5000)).jitter(micros(5000)).loss(0.1).duplication(0.2).reordering(0.2);
    sim::network().bandwidth(1_000_000).buffers(3000, 2000);
    for name in ["a", "b", "c"] {
        sim::host(name, || {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    spawn(move || greenling::io::copy(&mut &stream, &mut &stream));
                }
            });
            let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
            let mut buf = [0; 100];
            while let Ok((length, from)) = socket.recv_from(&mut buf) {
                let _ = socket.send_to(&buf[..length], from);
            }
        });
    }
    sleep(Duration::from_micros(1));
    for _ in 0..4 {
        let there = ["a", "b", "c"][(sim::random() % 3) as usize];
        if sim::random().is_multiple_of(2) {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let _ = socket.send_to(&[7; 50], (there, 9));
            let _ = timeout(Duration::from_millis(50), || socket.recv(&mut [0; 100]));
        } else {
            let _ = timeout(Duration::from_secs(5), || {
                let mut stream = TcpStream::connect((there, 80))?;
                stream.write_all(&vec![1; (sim::random() % 9000) as usize])?;
                stream.read(&mut [0; 4000])
            });
        }
        if sim::random().is_multiple_of(4) {
            sim::network().partition("localhost", there);
        }
    }
}

/// Returns the text of the traces of all programs, under both strategies that draw.
fn traces(seeds: impl Iterator<Item = u64>) -> String {
    let mut text = String::new();
    for seed in seeds {
        let strategy = if seed % 2 == 0 { Strategy::Random } else { Strategy::Pct { depth: 3 } };
        let trace = Config::new().strategy(strategy).seed(seed).trace(random_program);
        assert!(!trace.is_empty());
        text.push_str(&trace.to_string());
        if seed % 5 == 0 {
            let trace = Config::new().strategy(strategy).seed(seed).allow_leaks(true).trace(random_conversation);
            assert!(trace.to_string().lines().count() > 8, "{seed}: {trace}");
            text.push_str(&trace.to_string());
        }
    }
    text
}

/// FNV-1a: a digest that no hash seed has a part in.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Not a test by itself: prints what [`the_same_seed_gives_the_same_steps_in_every_environment`] compares.
#[test]
#[ignore = "a child of another test"]
fn prints_a_digest() {
    let text = traces(0..PROGRAMS);
    println!("digest {:016x} of {} bytes", digest(&text), text.len());
}

#[test]
fn the_same_seed_gives_the_same_steps_in_every_environment() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "replay::prints_a_digest", "--nocapture"];
    let mut plain = Command::new(&program);
    plain.args(arguments);
    // Other variables move the stack, and each process has its own hash seed and, unless told otherwise, addresses.
    let mut crowded = Command::new(&program);
    crowded
        .args(arguments)
        .env("SOMETHING", "x".repeat(5000))
        .env("GREENLING_QUANTUM", "off")
        .env("MALLOC_PERTURB_", "85");
    let mut fixed = Command::new("setarch");
    fixed.arg("-R").arg(&program).args(arguments);
    let mut digests = Vec::new();
    let start = |(name, command)| (name, start(command));
    // All at once.
    let children = [("plain", plain), ("crowded", crowded), ("fixed", fixed)].map(start);
    for (name, child) in children {
        match child.and_then(output_of) {
            Some(output) => {
                let line = output.lines().find_map(|line| line.find("digest").map(|at| line[at..].to_owned()));
                digests.push(line.unwrap_or_else(|| panic!("{name}: {output}")));
            }
            None => println!("{name}: cannot be run here"),
        }
    }
    assert!(digests.len() >= 2);
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
    println!("{}", digests[0]);
}

/// Starts `command`; none if it cannot be run.
fn start(mut command: Command) -> Option<Child> {
    command.env_remove("GREENLING_SEED").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()
}

/// Returns what `child` prints; none if it may not do what it is to.
fn output_of(child: Child) -> Option<String> {
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_run_is_the_same_after_other_runs() {
    // The texts of a fresh OS thread, beside those of one that has run all the others before.
    let fresh: Vec<_> = (0..300).map(|seed| Config::new().seed(seed).trace(random_program).to_string()).collect();
    let again: Vec<_> = (0..300).rev().map(|seed| Config::new().seed(seed).trace(random_program).to_string()).collect();
    assert!(fresh.iter().eq(again.iter().rev()));
    let seen = std::sync::Mutex::new(Vec::new());
    let program = || {
        random_program();
        seen.lock().unwrap().push((sim::random(), sim::elapsed()));
    };
    Config::new().schedules(300).check(program).unwrap();
    let many = std::mem::take(&mut *seen.lock().unwrap());
    for seed in 0..300 {
        Config::new().seed(seed).schedules(1).check(program).unwrap();
    }
    assert_eq!(many, *seen.lock().unwrap());
}

#[test]
fn a_failure_is_replayed_by_its_line() {
    let program = std::env::current_exe().unwrap();
    let child = |variable: Option<&str>| {
        let mut command = Command::new(&program);
        command.args(["--ignored", "--exact", "replay::loses_a_wake_up", "--nocapture"]).env_remove("GREENLING_SEED");
        command.env("RUST_BACKTRACE", "0");
        if let Some(seed) = variable {
            command.env("GREENLING_SEED", seed);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    };
    let first = child(None);
    let line = first.lines().find_map(|line| line.trim().strip_prefix("replay: ")).unwrap_or_else(|| panic!("{first}"));
    let (seed, command) = line.split_once(' ').unwrap();
    assert_eq!(command, "cargo test replay::loses_a_wake_up -- --exact");
    let again = child(seed.strip_prefix("GREENLING_SEED="));
    // The same report, from the panic of main on.
    let report = |text: &str| {
        let from = text.find("deadlock: ").unwrap_or_else(|| panic!("{text}"));
        text[from..].lines().take(2).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(report(&first), report(&again));
    // A text that is no schedule is one clear line.
    let bad = child(Some("x17"));
    assert!(bad.contains("GREENLING_SEED: `x17` is no schedule: a schedule is a seed such as 17"), "{bad}");
}

/// The program of [`a_failure_is_replayed_by_its_line`].
#[test]
#[ignore = "fails; a child of another test"]
fn loses_a_wake_up() {
    sim::explore(Config::new(), crate::book::lost_wake_up);
}
