//! What `echo_server` promises, and as well those that say the same with `std`: `echo_threads`, which is `std` alone,
//! and with the feature `monkey` `echo_std_patched` and `echo_threads_patched`. One function per promise, which takes the
//! program. The macro below makes a test of each, for each program.
//!
//! What only one of them has is in `server.rs`, and in `patched.rs`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::built::example;
use crate::support::{
    Lines, PATIENCE, Running, Server, echo, limit_descriptors, noise, on_terminal, reset, run, terminal,
};

/// An echo server.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    /// The name of the example.
    pub(crate) name: &'static str,
    /// The server logs connections and departures. The programs of `std` print the address, and nothing else.
    logs: bool,
    /// The server has an OS thread for each connection.
    has_os_threads: bool,
}

const ECHO_SERVER: Program = Program { name: "echo_server", logs: true, has_os_threads: false };

/// The program before it is patched.
const ECHO_THREADS: Program = Program { name: "echo_threads", logs: false, has_os_threads: true };

#[cfg(feature = "monkey")]
pub(crate) const ECHO_STD_PATCHED: Program = Program { name: "echo_std_patched", logs: false, has_os_threads: false };

#[cfg(feature = "monkey")]
const ECHO_THREADS_PATCHED: Program = Program { name: "echo_threads_patched", logs: false, has_os_threads: false };

impl Program {
    /// The arguments that tell the program where to listen.
    fn args(self, addr: &str) -> Vec<&str> {
        // The others have no options.
        if self.logs { vec!["--addr", addr] } else { vec![addr] }
    }

    /// Starts the program on a free port, without any input.
    pub(crate) fn start(self) -> Server {
        self.start_with("127.0.0.1:0", Program::no_input)
    }

    pub(crate) fn start_with(self, addr: &str, prepare: impl FnOnce(&mut Command)) -> Server {
        Server::start_exactly(self.name, &self.args(addr), prepare)
    }

    pub(crate) fn no_input(command: &mut Command) {
        command.stdin(Stdio::null());
    }

    /// Waits for a line of the log, if the program has a log.
    fn wait_for(self, server: &Server, what: &str) {
        if self.logs {
            server.out.wait_for(what);
        }
    }
}

/// Makes a module of tests for each program.
macro_rules! programs {
    ($($(#[$attribute:meta])? $module:ident: $program:expr,)*) => {
        $($(#[$attribute])? mod $module { programs!(@cases $program;
            two_clients_take_turns
            two_hundred_clients_at_once
            a_message_larger_than_any_buffer
            split_writes_lose_and_join_nothing
            binary_data_comes_back_unchanged
            a_half_closed_client_gets_all_its_data
            a_reset_in_mid_message_harms_no_other
            a_client_that_never_reads_harms_no_other_and_loses_nothing
            a_very_long_stream_passes_while_others_are_served
            a_restart_on_the_same_port_works_at_once
            names_and_ipv6_addresses_work
            the_end_of_input_elsewhere_does_not_stop_it
            in_the_background_of_a_terminal_it_goes_on_serving
            an_interrupt_ends_it_at_once
            ten_thousand_connections_are_served
        ); })*
    };
    (@cases $program:expr; $($case:ident)*) => {
        $(#[test]
        fn $case() {
            crate::echo::$case($program);
        })*
    };
}

programs! {
    echo_server: crate::echo::ECHO_SERVER,
    #[cfg(feature = "monkey")] echo_std_patched: crate::echo::ECHO_STD_PATCHED,
    echo_threads: crate::echo::ECHO_THREADS,
    #[cfg(feature = "monkey")] echo_threads_patched: crate::echo::ECHO_THREADS_PATCHED,
}

/// How many descriptors a server has open.
fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.process.0.id())).unwrap().count()
}

/// Waits until `condition` holds, for at most `PATIENCE`.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn two_clients_take_turns(program: Program) {
    let server = program.start();
    let (mut one, mut two) = (server.connect(), server.connect());
    // Both are served in turn, although neither has left.
    echo(&mut one, b"123\n");
    echo(&mut two, b"345\n");
    echo(&mut one, b"again\n");
    echo(&mut two, b"and again\n");
    let names = [&one, &two].map(|stream| stream.local_addr().unwrap().to_string());
    // One leaves: the other is served on, and the log has both.
    drop(one);
    program.wait_for(&server, &format!("{} left: echoed 10 bytes, closed by the client (1 now)", names[0]));
    echo(&mut two, b"still there\n");
    drop(two);
    program.wait_for(&server, &format!("{} left: echoed 26 bytes, closed by the client (0 now)", names[1]));
    let log = server.out.all();
    assert_eq!(log[0], format!("listening on {}", server.addr));
    if program.logs {
        assert_eq!(log[1], format!("try: nc 127.0.0.1 {}", server.addr.port()));
        assert_eq!(log[2..4], [format!("{} connected (1 now)", names[0]), format!("{} connected (2 now)", names[1])]);
    } else {
        assert_eq!(log.len(), 1, "{log:#?}");
    }
    assert!(server.err.all().is_empty());
}

pub(crate) fn two_hundred_clients_at_once(program: Program) {
    let server = program.start();
    let mut first = server.connect();
    echo(&mut first, b"hello");
    // With the hub's own, which are there now, and the first client's.
    let before = descriptors(&server);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&noise(number as u64, 1000)).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate().rev() {
        let mut answer = [0; 1000];
        client.read_exact(&mut answer).unwrap();
        assert!(answer == noise(number as u64, 1000)[..], "client {number} got what another one sent");
    }
    program.wait_for(&server, "(200 now)");
    drop(clients);
    eventually("all are forgotten", || descriptors(&server) == before);
}

pub(crate) fn a_message_larger_than_any_buffer(program: Program) {
    let server = program.start();
    // The client writes all bytes before the first read, from another thread.
    let message = noise(2, 32 * 1024 * 1024);
    let mut client = server.connect();
    let mut writing = client.try_clone().unwrap();
    let copy = message.clone();
    let writer = thread::spawn(move || writing.write_all(&copy).unwrap());
    let mut answer = vec![0; message.len()];
    client.read_exact(&mut answer).unwrap();
    writer.join().unwrap();
    assert!(answer == message);
}

pub(crate) fn split_writes_lose_and_join_nothing(program: Program) {
    let server = program.start();
    let mut client = server.connect();
    client.set_nodelay(true).unwrap();
    for byte in noise(3, 300) {
        echo(&mut client, &[byte]);
    }
    for piece in "\u{4f60}\u{597d}".as_bytes().chunks(2) {
        client.write_all(piece).unwrap();
    }
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, "\u{4f60}\u{597d}".as_bytes());
}

pub(crate) fn binary_data_comes_back_unchanged(program: Program) {
    let server = program.start();
    let mut client = server.connect();
    let all: Vec<u8> = (0..=255).collect();
    echo(&mut client, &all);
    echo(&mut client, &[0; 100]);
    echo(&mut client, &noise(4, 100_000));
}

pub(crate) fn a_half_closed_client_gets_all_its_data(program: Program) {
    let server = program.start();
    for len in [1, 100_000, 8_000_000] {
        let message = noise(5, len);
        let mut client = server.connect();
        let mut writing = client.try_clone().unwrap();
        let copy = message.clone();
        // Another thread writes, since neither side could go on with all buffers full.
        let writer = thread::spawn(move || {
            writing.write_all(&copy).unwrap();
            writing.shutdown(Shutdown::Write).unwrap();
        });
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        writer.join().unwrap();
        assert!(answer == message, "{} of {len} bytes", answer.len());
        program.wait_for(&server, &format!("echoed {len} bytes, closed by the client"));
    }
}

pub(crate) fn a_reset_in_mid_message_harms_no_other(program: Program) {
    let server = program.start();
    let mut calm = server.connect();
    echo(&mut calm, b"before");
    for round in 0..20 {
        let mut rude = server.connect();
        // Some of them with answers that are not read.
        rude.write_all(&noise(round, 10_000 * round as usize)).unwrap();
        reset(rude);
        echo(&mut calm, b"meanwhile");
    }
    program.wait_for(&server, "Connection reset by peer");
    program.wait_for(&server, "(1 now)");
    echo(&mut calm, b"after");
}

pub(crate) fn a_client_that_never_reads_harms_no_other_and_loses_nothing(program: Program) {
    let server = program.start();
    let mut stuck = server.connect();
    let mut others = [server.connect(), server.connect()];
    for other in &mut others {
        echo(other, b"before");
    }
    let before = server.resident_kib();
    let message = noise(6, 64 * 1024 * 1024);
    stuck.set_nonblocking(true).unwrap();
    let (mut sent, mut full_since) = (0, Instant::now());
    // Until both directions are full, and stay so.
    while full_since.elapsed() < Duration::from_millis(300) {
        match stuck.write(&message[sent..]) {
            Ok(n) => {
                assert!(n > 0, "the server has buffered {} MB", sent >> 20);
                sent += n;
                full_since = Instant::now();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                for other in &mut others {
                    echo(other, b"meanwhile");
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB more for one stuck client");
    stuck.set_nonblocking(false).unwrap();
    let mut answer = vec![0; sent];
    stuck.read_exact(&mut answer).unwrap();
    assert!(answer == message[..sent]);
    echo(&mut stuck, b"after");
}

pub(crate) fn a_very_long_stream_passes_while_others_are_served(program: Program) {
    let total: usize = if cfg!(debug_assertions) { 64 << 20 } else { 1 << 30 };
    let server = program.start();
    let mut big = server.connect();
    let mut small = server.connect();
    let piece = noise(7, 1 << 20);
    let mut writing = big.try_clone().unwrap();
    let copy = piece.clone();
    let writer = thread::spawn(move || {
        for _ in 0..total / copy.len() {
            writing.write_all(&copy).unwrap();
        }
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut answer = vec![0; piece.len()];
    for number in 0..total / piece.len() {
        big.read_exact(&mut answer).unwrap();
        assert!(answer == piece, "MiB number {number} differs");
        // A client with a short message has a turn in between.
        if number % 16 == 0 {
            echo(&mut small, b"meanwhile");
        }
    }
    assert_eq!(big.read(&mut answer).unwrap(), 0);
    writer.join().unwrap();
    program.wait_for(&server, &format!("echoed {total} bytes, closed by the client"));
    // Only what is under way lies in memory.
    assert!(server.resident_kib() < 32 * 1024, "{} KiB", server.resident_kib());
}

pub(crate) fn a_restart_on_the_same_port_works_at_once(program: Program) {
    let mut server = program.start();
    let addr = server.addr.to_string();
    for _ in 0..3 {
        let mut client = server.connect();
        echo(&mut client, b"hello");
        // The server closes first, so the server's side of the connection lingers in the kernel.
        server.process.signal(libc::SIGINT);
        server.process.wait();
        server = program.start_with(&addr, Program::no_input);
        assert_eq!(server.addr.to_string(), addr);
    }
    echo(&mut server.connect(), b"hello");
}

pub(crate) fn names_and_ipv6_addresses_work(program: Program) {
    let server = program.start_with("localhost:0", Program::no_input);
    assert!(server.addr.ip().is_loopback());
    echo(&mut server.connect(), b"hello");
    if TcpListener::bind("[::1]:0").is_ok() {
        let server = program.start_with("[::1]:0", Program::no_input);
        echo(&mut server.connect(), b"hello");
        program.wait_for(&server, &format!("try: nc ::1 {}", server.addr.port()));
    }
}

pub(crate) fn the_end_of_input_elsewhere_does_not_stop_it(program: Program) {
    for stdin in [Stdio::null as fn() -> Stdio, Stdio::piped] {
        let mut server = program.start_with("127.0.0.1:0", |command| {
            command.stdin(stdin());
        });
        drop(server.process.0.stdin.take());
        echo(&mut server.connect(), b"hello");
        thread::sleep(Duration::from_millis(200));
        echo(&mut server.connect(), b"hello");
        assert!(server.process.0.try_wait().unwrap().is_none());
        assert!(!server.out.all().iter().any(|line| line.contains("quit")));
    }
}

/// The program and `&` in a shell: what is typed there is not for the server, and must not make the kernel
/// stop the server.
pub(crate) fn in_the_background_of_a_terminal_it_goes_on_serving(program: Program) {
    let (mut keyboard, theirs) = terminal();
    let mut command = Command::new("sh");
    // With job control the program is a process group in the background, and the shell reads the terminal.
    command.args(["-c", "set -m; \"$0\" \"$@\" & echo \"pid $!\"; read line; kill $!; wait"]);
    command.arg(example(program.name)).args(program.args("127.0.0.1:0")).stdout(Stdio::piped()).stderr(Stdio::null());
    on_terminal(&mut command, &theirs);
    let mut shell = Running(command.spawn().unwrap());
    drop((command, theirs));
    let out = Lines::of(shell.0.stdout.take().unwrap());
    let line = out.wait_for("listening on ");
    let mut client = TcpStream::connect(line.strip_prefix("listening on ").unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    keyboard.write_all(b"half a line").unwrap();
    echo(&mut client, b"hello");
    // A program that read the terminal from the background would be stopped by now.
    thread::sleep(Duration::from_millis(200));
    echo(&mut client, b"hello again");
    // The line ends: the shell reads the line, and ends the program, which need not wait for a client.
    drop(client);
    keyboard.write_all(b"\n").unwrap();
    shell.wait();
    assert!(!out.all().iter().any(|line| line.contains("quit")));
}

pub(crate) fn an_interrupt_ends_it_at_once(program: Program) {
    let mut server = program.start();
    let mut client = server.connect();
    echo(&mut client, b"hello");
    server.process.signal(libc::SIGINT);
    assert_eq!(server.process.wait().signal(), Some(libc::SIGINT));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

/// Each of them is answered at the beginning and again at the end, and in between all are there: by one OS thread, or, if
/// the program has not been patched, by ten thousand.
pub(crate) fn ten_thousand_connections_are_served(program: Program) {
    let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
    // The server has them all, and so has the load.
    let count = 10_000.min(hard - 100);
    let server = program.start_with("127.0.0.1:0", |command| {
        Program::no_input(command);
        limit_descriptors(command, hard);
    });
    let (addr, id) = (server.addr.to_string(), server.process.0.id().to_string());
    let idle = (count - 50).to_string();
    let args = ["--addr", &addr, "--connections", "50", "--idle", &idle, "--requests", "2000", "--server-pid", &id];
    // From other addresses, so that other tests do not run out of ports.
    let ended = run("echo_load", &[&args[..], &["--from-addresses", "127.0.0.2-127.0.0.21", "--tsv"]].concat(), b"");
    assert!(ended.status.success(), "{ended:?}");
    let [names, values] = ended.lines()[..] else { panic!("{ended:?}") };
    let report: HashMap<&str, &str> = names.split('\t').zip(values.split('\t')).collect();
    assert_eq!(report["errors"], "0", "{report:#?}");
    // A hub that was busy for a while without a pause has started the monitor.
    let expected = if program.has_os_threads { count + 1..=count + 1 } else { 1..=2 };
    assert!(expected.contains(&report["server_threads"].parse().unwrap()), "{report:#?}");
    assert!(server.err.all().is_empty(), "{:#?}", server.err.all());
}
