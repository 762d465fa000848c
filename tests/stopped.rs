//! Ready IO beats a timer, also after the process was stopped: by SIGSTOP, Ctrl-Z, a debugger, a freezer.
//!
//! ```text
//!   test     starts a child, stops it ---- sends to all that it waits for ---- the time limits pass ---- lets it go on
//!   child    waits for a dozen things,        (stopped)                                                     all have come
//!            each with a time limit
//! ```
//!
//! signal(7): a process that is continued finds its epoll_wait interrupted, although no handler ran.
#![forbid(unsafe_code)]

mod common;

use std::cell::RefCell;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::os::unix::net::{UnixDatagram, UnixListener};
use greenling::process;
use greenling::{select, spawn, timeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Set in the child.
const ROLE: &str = "GREENLING_STOPPED_CHILD";

/// The time limit of each wait. The process is stopped long before, and goes on after it.
const LIMIT: Duration = Duration::from_millis(1500);

/// The waits of the child, by name. The first of them need a connection of the test's each.
const STREAMS: [&str; 5] = ["read_timeout", "timeout", "select after", "read_with", "timeout_at"];

/// Waits for everything at once. Prints where it can be reached, and in the end what has not come.
fn wait_for_everything() {
    let (late, mut threads) = (Rc::new(RefCell::new(Vec::new())), Vec::new());
    let mut wait = |name: &'static str, f: Box<dyn FnOnce() -> bool>| {
        let late = Rc::clone(&late);
        threads.push(spawn(move || {
            if !f() {
                late.borrow_mut().push(name);
            }
        }));
    };
    let folder = env::temp_dir().join(format!("greenling-stopped-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (stream_path, datagram_path) = (folder.join("stream"), folder.join("datagram"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let streams_addr = listener.local_addr().unwrap();
    let acceptor = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(&stream_path).unwrap();
    let datagrams = UnixDatagram::bind(&datagram_path).unwrap();
    // Not one that ends with its input, which a wait closes.
    let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
    println!("\n{streams_addr} {} {}", acceptor.local_addr().unwrap(), udp.local_addr().unwrap());
    println!("{}", folder.display());
    println!("{}", child.id());
    let [mut limited, mut in_timeout, selected, lent, mut at] =
        STREAMS.map(|_| listener.accept().expect("the test connects").0);
    let begin = Instant::now();
    limited.set_read_timeout(Some(LIMIT)).unwrap();
    wait(STREAMS[0], Box::new(move || limited.read(&mut [0]).is_ok_and(|n| n == 1)));
    wait(STREAMS[1], Box::new(move || timeout(LIMIT, || in_timeout.read(&mut [0])).is_ok_and(|read| read.is_ok())));
    wait(STREAMS[2], Box::new(move || select! { readable(selected) -> ready => ready.is_ok(), after(LIMIT) => false }));
    lent.set_read_timeout(Some(LIMIT)).unwrap();
    wait(STREAMS[3], Box::new(move || lent.read_with(|bytes| bytes.len()).is_ok_and(|n| n == 1)));
    let in_time = move || greenling::timeout_at(begin + LIMIT, || at.read(&mut [0])).is_ok_and(|read| read.is_ok());
    wait(STREAMS[4], Box::new(in_time));
    wait("accept", Box::new(move || timeout(LIMIT, || acceptor.accept()).is_ok_and(|accepted| accepted.is_ok())));
    udp.set_read_timeout(Some(LIMIT)).unwrap();
    wait("udp", Box::new(move || udp.recv(&mut [0]).is_ok()));
    wait("unix accept", Box::new(move || timeout(LIMIT, || unix.accept()).is_ok_and(|accepted| accepted.is_ok())));
    datagrams.set_read_timeout(Some(LIMIT)).unwrap();
    wait("unix datagram", Box::new(move || datagrams.recv(&mut [0]).is_ok()));
    wait("child", Box::new(move || child.wait_timeout(LIMIT).is_ok_and(|status| status.is_some())));
    let read_line = || greenling::io::stdin().read_line(&mut String::new());
    wait("standard input", Box::new(move || timeout(LIMIT, read_line).is_ok_and(|read| read.is_ok_and(|n| n > 0))));
    // They all wait before the test is told that it may stop the process.
    greenling::yield_now();
    println!("waiting");
    for thread in threads {
        thread.join().unwrap();
    }
    std::fs::remove_dir_all(folder).unwrap();
    println!("late: {}", late.borrow().join(", "));
}

#[test]
fn what_came_while_the_process_was_stopped_beats_its_time_limit() {
    const TEST: &str = "what_came_while_the_process_was_stopped_beats_its_time_limit";
    let _guard = common::guard();
    if env::var_os(ROLE).is_some() {
        wait_for_everything();
        std::process::exit(0);
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]).env(ROLE, "1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.by_ref().find(|line| line.starts_with("127.")).expect("where it listens");
    let addrs: Vec<SocketAddr> = line.split(' ').map(|addr| addr.parse().unwrap()).collect();
    let (folder, grandchild) = (lines.next().unwrap(), lines.next().unwrap());
    let streams = STREAMS.map(|_| std::net::TcpStream::connect(addrs[0]).unwrap());
    assert_eq!(lines.next().unwrap(), "waiting");
    let began = Instant::now();

    kill(pid, Signal::SIGSTOP).unwrap();
    for mut stream in &streams {
        stream.write_all(b"x").unwrap();
    }
    let _accepted = std::net::TcpStream::connect(addrs[1]).unwrap();
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", addrs[2]).unwrap();
    let _unix = std::os::unix::net::UnixStream::connect(format!("{folder}/stream")).unwrap();
    std::os::unix::net::UnixDatagram::unbound().unwrap().send_to(b"x", format!("{folder}/datagram")).unwrap();
    kill(Pid::from_raw(grandchild.parse().unwrap()), Signal::SIGKILL).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"line\n").unwrap();
    let stopped_in_time = began.elapsed() < LIMIT;
    std::thread::sleep(LIMIT + LIMIT / 4);
    kill(pid, Signal::SIGCONT).unwrap();

    let late = lines.find(|line| line.starts_with("late:")).expect("it ends");
    assert!(child.wait().unwrap().success());
    // Else the machine was so busy that nothing is shown.
    assert!(late == "late: " || !stopped_in_time, "{late}");
}

/// The same without a stop: nothing has looked at the descriptors since the time was over, because a thread computed.
#[test]
fn what_came_while_another_thread_computed_beats_its_time_limit() {
    let _guard = common::guard();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let limit = Duration::from_millis(20);
    let read = common::undisturbed(|| {
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(limit)).unwrap();
        let begin = Instant::now();
        let reader = spawn(move || stream.read(&mut [0]));
        greenling::yield_now();
        client.write_all(b"x").unwrap();
        let is_in_time = begin.elapsed() < limit;
        common::hog_until(begin + 3 * limit);
        let read = reader.join().unwrap();
        is_in_time.then_some(read)
    });
    assert_eq!(read.unwrap(), 1);
}
