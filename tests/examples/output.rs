//! What all examples promise about their outputs: help, complaints, and servers that do not depend on being read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::address::free_address;
use crate::built::{example, examples};
use crate::few;
use crate::support::{Lines, PATIENCE, Running, echo, limit_descriptors, run, terminal};

// ---- arguments ------------------------------------------------------------------------------------------------------

#[test]
fn all_examples_have_help() {
    for name in examples() {
        for option in ["--help", "-h"] {
            let ended = run(&name, &[option], b"");
            assert_eq!(ended.status.code(), Some(0), "{name}: {ended:?}");
            assert!(ended.stderr.is_empty(), "{name}: {ended:?}");
            let text = String::from_utf8(ended.stdout).unwrap();
            assert!(
                text.contains(&format!("\nusage: {}", few::own_name(&name))) && text.ends_with('\n'),
                "{name}: {text}"
            );
        }
    }
}

#[test]
fn all_examples_refuse_what_they_do_not_know() {
    for name in examples() {
        let ended = run(&name, &["--frobnicate"], b"");
        assert_eq!(ended.status.code(), Some(2), "{name}: {ended:?}");
        assert!(ended.stdout.is_empty(), "{name}: {ended:?}");
        let name = few::own_name(&name);
        assert_eq!(ended.stderr, format!("{name}: invalid option '--frobnicate' (try --help)\n"));
    }
}

/// With so few descriptors hardly anything works; a program that does not work says so in a line.
#[test]
fn few_descriptors_are_one_clear_line() {
    few::check_all(&examples(), few::FEWEST..=20);
}

// ---- servers whose output is not read -------------------------------------------------------------------------------

/// A server, how to start the program, and how the server ends when told to: after a drain, or by the signal.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    args: &'static [&'static str],
    drains: bool,
}

const fn case(name: &'static str, args: &'static [&'static str]) -> Case {
    Case { name, args, drains: false }
}

/// Those that answer over TCP with what they get. A drain that has to wait for a client waits half a second.
const ECHO: &[Case] = &[
    Case { drains: true, ..case("echo_server", &["--grace", "500ms"]) },
    Case { drains: true, ..case("echo_server", &["--grace", "500ms", "--hubs", "2"]) },
    #[cfg(feature = "monkey")]
    case("echo_std_patched", &[]),
    case("server_models", &["--model", "process"]),
    case("server_models", &["--model", "thread"]),
    case("server_models", &["--model", "select"]),
    case("server_models", &["--model", "epoll-lt"]),
    case("server_models", &["--model", "epoll-et"]),
    case("server_models", &["--model", "greenlet"]),
    case("server_models", &["--model", "green"]),
    case("server_models", &["--model", "green-hubs", "--hubs", "2"]),
];

/// A running server with an output of ours.
struct Unread {
    process: Running,
    addr: SocketAddr,
    err: Lines,
}

impl Case {
    /// Starts at an address that is known before, since the server cannot say which port it was given.
    fn start(self, out: impl Into<Stdio>) -> Unread {
        let addr = free_address();
        self.start_at(addr, out)
    }

    fn start_at(self, addr: SocketAddr, out: impl Into<Stdio>) -> Unread {
        let mut command = Command::new(example(self.name));
        command.args(self.args).args(["--addr", &addr.to_string()]);
        command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
        let mut process = Running(command.spawn().unwrap());
        let err = Lines::of(process.0.stderr.take().unwrap());
        Unread { process, addr, err }
    }
}

impl Unread {
    /// Waits until the server is there.
    fn connect(&self) -> TcpStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(self.addr) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Serves many clients, each of which is a line or two of the log, beside one that stays.
    fn serve(&self, clients: usize) {
        let mut old = self.connect();
        echo(&mut old, b"before");
        for _ in 0..clients {
            echo(&mut self.connect(), b"hello");
        }
        echo(&mut old, b"after");
    }

    fn stop(&mut self) -> ExitStatus {
        self.process.signal(libc::SIGTERM);
        self.process.wait()
    }
}

#[track_caller]
fn check_end(case: Case, status: ExitStatus) {
    match case.drains {
        true => assert_eq!(status.code(), Some(0), "{} {:?}: {status}", case.name, case.args),
        false => assert_eq!(status.signal(), Some(libc::SIGTERM), "{} {:?}: {status}", case.name, case.args),
    }
}

/// A pipe, as what is read from and what is written to.
fn pipe() -> (File, File) {
    let (reader, writer) = io::pipe().unwrap();
    (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)))
}

/// Sets or clears O_NONBLOCK, which all have that share the open file.
fn set_nonblocking(file: &File, on: bool) {
    // SAFETY: takes numbers only.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: takes numbers only.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) }, 0);
}

/// Writes lines until there is no room for a byte.
fn fill(pipe: &mut File) {
    set_nonblocking(pipe, true);
    for piece in [&b".\n"[..], b"\n"] {
        while pipe.write(piece).is_ok() {}
    }
    set_nonblocking(pipe, false);
}

/// Checks all cases at the same time: they mostly wait, each for one server. Says which ones failed.
fn at_once(cases: &[Case], check: impl Fn(Case) + Sync) {
    let check = &check;
    let failed: Vec<&Case> = thread::scope(|scope| {
        let running: Vec<_> = cases.iter().map(|&case| scope.spawn(move || check(case))).collect();
        cases.iter().zip(running).filter_map(|(case, running)| running.join().is_err().then_some(case)).collect()
    });
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn an_output_that_is_not_read_stops_no_client_and_no_end() {
    at_once(ECHO, |case| {
        let (reader, mut writer) = pipe();
        fill(&mut writer);
        let mut server = case.start(writer);
        server.serve(40);
        let old = server.connect();
        check_end(case, server.stop());
        drop((old, reader));
    });
}

/// The room of a terminal's queue ends in the middle of a line, unlike a pipe's.
#[test]
fn a_terminal_that_is_not_read_stops_no_client_and_no_end() {
    at_once(ECHO, |case| {
        let (ours, theirs) = terminal();
        let mut server = case.start(theirs);
        server.serve(300);
        let old = server.connect();
        check_end(case, server.stop());
        drop((old, ours));
    });
}

#[test]
fn a_server_whose_error_output_is_not_read_either_goes_on() {
    let (_reader, mut writer) = pipe();
    fill(&mut writer);
    let addr = free_address();
    let mut command = Command::new(example("echo_server"));
    command.args(["--addr", &addr.to_string()]).stdin(Stdio::null());
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    limit_descriptors(&mut command, 20);
    let process = Running(command.spawn().unwrap());
    // Their last copies here: the program has inherited its own.
    drop(command);
    let mut server = Unread { process, addr, err: Lines::of(io::empty()) };
    let clients: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    // Some of them have to wait, which is complained of.
    let mut first = clients.into_iter().next().unwrap();
    echo(&mut first, b"hello");
    drop(first);
    server.serve(5);
    assert_eq!(server.stop().code(), Some(0));
}

/// As a shared terminal is, when another program has made the terminal non-blocking.
#[test]
fn a_log_whose_output_does_not_block_waits_and_goes_on() {
    for &case in &ECHO[..2] {
        let (mut reader, mut writer) = pipe();
        fill(&mut writer);
        set_nonblocking(&writer, true);
        let mut server = case.start(writer);
        server.serve(100);
        let text = read_until(&mut reader, "(0 now)");
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        assert_eq!((count(" connected ("), count(" left: ")), (101, 101), "{text}");
        assert_eq!(count("missing"), 0);
        server.serve(1);
        read_until(&mut reader, "(0 now)");
        check_end(case, server.stop());
        read_until(&mut reader, "stopped");
    }
}

/// What comes, up to the last line that contains `what`.
#[track_caller]
fn read_until(reader: &mut File, what: &str) -> String {
    let (mut text, mut buf) = (String::new(), [0; 65536]);
    let deadline = Instant::now() + PATIENCE;
    set_nonblocking(reader, true);
    while !text.lines().any(|line| line.contains(what)) {
        assert!(Instant::now() < deadline, "no line with {what:?}: {text}");
        match reader.read(&mut buf) {
            Ok(0) => panic!("the log has ended without {what:?}: {text}"),
            Ok(count) => text.push_str(&String::from_utf8_lossy(&buf[..count])),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    text
}

/// The queue of a log is bounded: lines that find no room are counted, and the count is written in their place.
#[test]
fn a_log_says_how_many_lines_it_has_dropped() {
    const SENT: usize = 12_000;
    let (mut reader, mut writer) = pipe();
    fill(&mut writer);
    let addr = free_address();
    let mut server = case("udp_echo", &["--every", "1000"]).start_at(addr, writer);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket.connect(addr).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut answered = 0;
    while answered < SENT {
        assert!(Instant::now() < deadline, "{answered} answers");
        // Refused while the server is not there yet.
        if socket.send(b"x").is_ok() && socket.recv(&mut [0; 8]).is_ok() {
            answered += 1;
        }
    }
    let text = read_until(&mut reader, "are missing here)");
    let missing =
        text.lines().find_map(|line| line.strip_prefix('(')?.strip_suffix(" lines of the log are missing here)"));
    let missing: usize = missing.unwrap().parse().unwrap();
    let written = text.lines().filter(|line| line.contains(" sent 1 bytes")).count();
    // Answers that were late were counted by the server and not here.
    assert!(missing > 0 && written + missing >= SENT, "{written} written, {missing} missing");
    socket.send(b"x").unwrap();
    read_until(&mut reader, " sent 1 bytes");
    assert_eq!(server.stop().signal(), Some(libc::SIGTERM));
}

#[test]
fn a_server_that_ends_by_itself_gives_up_what_is_not_read() {
    let (_reader, mut writer) = pipe();
    fill(&mut writer);
    let addr = free_address();
    let mut server = case("udp_echo", &["--count", "3"]).start_at(addr, writer);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while server.process.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        let _ = socket.send_to(b"x", addr);
        let _ = socket.recv(&mut [0; 8]);
    }
    assert_eq!(server.process.wait().code(), Some(0));
}

/// A full disk, and a reader that has gone: the log ends or loses lines, the server does not.
#[test]
fn an_output_that_fails_ends_no_server() {
    for &case in ECHO {
        let (reader, broken) = pipe();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        for out in [full, broken] {
            let mut server = case.start(out);
            server.serve(10);
            check_end(case, server.stop());
            assert!(server.err.all().is_empty(), "{:?}", server.err.all());
        }
    }
}

/// A disk that was full for a while: what could not be written is counted, whole lines follow.
#[test]
fn a_log_goes_on_when_its_output_does() {
    if !Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|ended| ended.success())
    {
        eprintln!("SKIPPED: no strace here");
        return;
    }
    let path = std::env::temp_dir().join(format!("greenling-log-{}", std::process::id()));
    let out = File::create(&path).unwrap();
    let addr = free_address();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=write", "-P"]).arg(&path);
    command.args(["-e", "inject=write:error=ENOSPC:when=2..4"]).arg(example("echo_server"));
    command.args(["--addr", &addr.to_string(), "--grace", "0"]);
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    let mut process = Running(command.spawn().unwrap());
    let err = Lines::of(process.0.stderr.take().unwrap());
    let mut server = Unread { process, addr, err };
    // strace leaves the program behind when strace ends.
    let traced = Traced(server.process.0.id());
    let text = || std::fs::read_to_string(&path).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !text().contains("are missing here)") {
        assert!(Instant::now() < deadline, "{}", text());
        server.serve(1);
    }
    let text = text();
    std::fs::remove_file(&path).unwrap();
    assert!(text.starts_with(&format!("listening on {addr}\n")), "{text}");
    let (lost, after) = text.split_once(" lines of the log are missing here)\n").unwrap();
    let lost: u32 = lost.rsplit('(').next().unwrap().parse().unwrap();
    assert!(lost >= 3 && after.lines().all(|line| line.contains(" now)")), "{text}");
    drop(traced);
    assert_eq!(server.process.wait().code(), Some(0));
    assert!(server.err.all().is_empty(), "{:?}", server.err.all());
}

/// Ends, on drop, the program that a strace has started.
struct Traced(u32);

impl Drop for Traced {
    fn drop(&mut self) {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0)).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            // SAFETY: takes numbers only; strace has not waited for the child yet, so the number is the child's.
            unsafe { libc::kill(child, libc::SIGTERM) };
        }
    }
}

#[test]
fn a_forwarder_and_a_chat_go_on_unread() {
    let backend = ECHO[0].start(Stdio::null());
    backend.serve(1);
    let to = backend.addr.to_string();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let stuck = || {
        let (reader, mut writer) = pipe();
        fill(&mut writer);
        // Open as long as the test runs: not read, but readable.
        std::mem::forget(reader);
        writer
    };
    for out in [full as fn() -> File, stuck] {
        let addr = free_address();
        let mut command = Command::new(example("port_forwarder"));
        command.args(["--addr", &addr.to_string(), "--to", &to]).stdout(out()).stderr(out()).stdin(Stdio::null());
        let process = Running(command.spawn().unwrap());
        let mut proxy = Unread { process, addr, err: Lines::of(io::empty()) };
        proxy.serve(40);
        assert_eq!(proxy.stop().signal(), Some(libc::SIGTERM));

        let addr = free_address();
        let mut command = Command::new(example("chat_server"));
        command.args(["--addr", &addr.to_string()]).stdout(out()).stderr(out()).stdin(Stdio::null());
        let process = Running(command.spawn().unwrap());
        let mut chat = Unread { process, addr, err: Lines::of(io::empty()) };
        let mut stays = chat.connect();
        for number in 0..40 {
            // Too long a line ends the client with a complaint.
            let mut rude = chat.connect();
            rude.write_all(&[b'x'; 2000]).unwrap();
            let mut said = String::new();
            let _ = rude.read_to_string(&mut said);
            assert!(said.starts_with(&format!("* you are {}\n", number + 2)), "{said}");
        }
        stays.write_all(b"hello\n").unwrap();
        let mut heard = [0; 8];
        stays.read_exact(&mut heard).unwrap();
        assert_eq!(chat.stop().signal(), Some(libc::SIGTERM));
    }
}

// ---- servers that cannot go on --------------------------------------------------------------------------------------

/// The sockets of another process, as descriptors of this one. None of them if this process must not take any.
pub(crate) fn sockets_of(process: &Running) -> Vec<OwnedFd> {
    let id = process.0.id();
    // SAFETY: takes numbers only.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    if pidfd < 0 {
        return Vec::new();
    }
    // SAFETY: just opened, and owned by nothing else.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
    let copy = |number: i32| {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
        // SAFETY: just opened, and owned by nothing else.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
    };
    (3..20).filter_map(copy).filter(|fd| SockRef::from(fd).r#type().is_ok()).collect()
}

fn is_listener(socket: &OwnedFd) -> bool {
    SockRef::from(socket).is_listener().unwrap_or(false)
}

/// `accept` says EINVAL from now on.
fn break_listener(listener: &OwnedFd) {
    SockRef::from(listener).shutdown(Shutdown::Both).unwrap();
}

#[test]
fn a_server_whose_listener_breaks_says_so_and_fails() {
    let others = [case("port_forwarder", &[]), case("chat_server", &[])];
    for case in ECHO.iter().copied().chain(others) {
        let (mut reader, writer) = pipe();
        let mut server = case.start(writer);
        let mut old = server.connect();
        if ECHO.iter().any(|echo| echo.name == case.name) {
            echo(&mut old, b"hello");
        }
        let Some(listener) = sockets_of(&server.process).into_iter().find(is_listener) else {
            eprintln!("SKIPPED: no pidfd_getfd(2) here");
            return;
        };
        break_listener(&listener);
        if case.drains {
            // A client that is there may finish.
            echo(&mut old, b"still there");
        }
        drop(old);
        // A rung that waits in accept notices the broken listener only when called again.
        let _ = TcpStream::connect(server.addr);
        let what = format!("{} {:?}", case.name, case.args);
        assert_eq!(server.process.wait().code(), Some(1), "{what}: {:?}", server.err.all());
        drop(listener);
        let line = server.err.wait_for(case.name);
        assert!(line.starts_with(&format!("{}: ", case.name)), "{what}: {line}");
        // A server may also say that the client has left.
        let lines = server.err.all().into_iter().filter(|line| !line.contains(": client "));
        assert_eq!(lines.count(), 1, "{what}: {:?}", server.err.all());
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        assert!(!log.contains("stopped"), "{what}: {log}");
    }
}

/// No memory for another stack costs the one client that came, and is said once.
#[test]
fn without_memory_for_a_stack_the_others_are_served() {
    if cfg!(feature = "sanitizer") {
        eprintln!("skipped: AddressSanitizer reserves more address space than the limit");
        return;
    }
    let cases = [
        case("chat_server", &[]),
        #[cfg(feature = "monkey")]
        case("echo_std_patched", &[]),
        case("port_forwarder", &["--to", "127.0.0.1:9"]),
        case("echo_server", &["--grace", "500ms"]),
    ];
    at_once(&cases, |case| {
        let addr = free_address();
        let mut command = Command::new(example(case.name));
        command.args(case.args).args(["--addr", &addr.to_string()]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        limit_memory(&mut command, 80 << 20);
        let mut process = Running(command.spawn().unwrap());
        let out = Lines::of(process.0.stdout.take().unwrap());
        let err = Lines::of(process.0.stderr.take().unwrap());
        let mut server = Unread { process, addr, err };
        // The first client comes while there is memory; the stacks of the others take more than is left.
        let mut first = server.connect();
        let clients: Vec<TcpStream> = (0..600).map(|_| server.connect()).collect();
        thread::sleep(Duration::from_millis(200));
        assert!(server.process.0.try_wait().unwrap().is_none(), "{}: {:?}", case.name, server.err.all());
        match case.name {
            "chat_server" => {
                first.write_all(b"hello\n").unwrap();
                let mut greeting = [0; 11];
                first.read_exact(&mut greeting).unwrap();
                assert_eq!(&greeting, b"* you are 1");
                server.err.wait_for("cannot let clients in: Cannot allocate memory");
            }
            "port_forwarder" => drop(out.wait_for("dropped: nothing listens on 127.0.0.1:9")),
            _ => echo(&mut first, b"still served"),
        }
        assert!(server.err.all().len() <= 1, "{:#?}", server.err.all());
        drop(clients);
        server.stop();
    });
}

/// Lets a program map `bytes` at most.
fn limit_memory(command: &mut Command, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: `limit` is the closure's own copy, and live for the call.
    let lower = move || match unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the closure makes one plain system call: it takes no lock and allocates nothing after the fork.
    unsafe { command.pre_exec(lower) };
}
