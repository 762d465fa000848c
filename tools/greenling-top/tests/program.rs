//! `greenling-top` beside a program that runs: what it prints, what it says of what it cannot show, and its page.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// The program under test.
const TOP: &str = env!("CARGO_BIN_EXE_greenling-top");

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Returns a folder of the test's own, for sockets.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("greenling-top-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Starts the example `demo` with an agent, and waits until it is ready.
fn demo(name: &str) -> (Process, PathBuf) {
    let socket = folder(name).join("socket");
    // Cargo builds examples for tests, beside them.
    let program = PathBuf::from(TOP).with_file_name("examples").join("demo");
    let mut command = Command::new(program);
    command.arg("50").env("GREENLING_CONSOLE", &socket).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with(" ready\n"), "{line}");
    (process, socket)
}

/// Runs `greenling-top` to its end.
fn top(arguments: &[&str]) -> Output {
    Command::new(TOP).args(arguments).env_remove("XDG_RUNTIME_DIR").output().unwrap()
}

/// Returns the one line that `greenling-top` says when it fails.
fn error(arguments: &[&str]) -> String {
    let output = top(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && output.stdout.is_empty() && text.lines().count() == 1, "{text}");
    text.trim_end().to_owned()
}

#[test]
fn a_snapshot_has_hubs_groups_threads_and_stacks() {
    let (demo, socket) = demo("once");
    for program in [demo.0.id().to_string(), socket.display().to_string()] {
        // On a busy machine a hub may be late once.
        let text = loop {
            let output = top(&[&program, "--once", "--rows=4"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            if !text.contains("busy") {
                break text;
            }
        };
        let first = format!("demo (process {}, greenling 0.1.0): 2 hubs and 57 threads\n", demo.0.id());
        assert!(text.starts_with(&first), "{text}");
        for part in [
            "HUB  OS THREAD",
            "\"second-0\"",
            "\n== threads that do the same: 4 of ",
            "\n   50  ",
            "are parked, waiting for an unpark, for ",
            "\n    3  ",
            "wait until a Unix connection can be read",
            "\n== threads, the longest waits first: 4 of 57\n",
            "\n50 threads of hub 1:\n   0: demo::idle\n",
        ] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
    }
}

#[test]
fn what_cannot_be_shown_is_said_in_one_line() {
    let folder = folder("errors");
    let path = |name: &str| folder.join(name).display().to_string();
    let at = |name: &str, what: &str| format!("greenling-top: {}{what}", path(name));
    assert_eq!(error(&["4194305", "--once"]), "greenling-top: there is no process 4194305");
    let without =
        "greenling-top: process 1 has no console: start it with GREENLING_CONSOLE=1, or call greenling::hub::console()";
    assert_eq!(error(&["1", "--once"]), without);
    assert_eq!(error(&[&path("nothing"), "--once"]), at("nothing", " is not there"));
    fs::write(path("file"), "").unwrap();
    assert_eq!(error(&[&path("file")]), format!("greenling-top: no program listens at {}", path("file")));
    assert_eq!(error(&["--colour"]), "greenling-top: invalid option '--colour'");
    // Other programs, and those of another time.
    for (name, greeting, expected) in [
        ("smtp", "220 ready\n", at("smtp", " is not the console of a greenling program")),
        ("mute", "", at("mute", " does not greet: the program has closed the connection")),
        (
            "new",
            "{\"greenling\":2}\n",
            "greenling-top: the program speaks version 2 of the protocol, and this is for 1".into(),
        ),
    ] {
        let listener = UnixListener::bind(path(name)).unwrap();
        let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(greeting.as_bytes()));
        assert_eq!(error(&[&path(name), "--once"]), expected);
        server.join().unwrap().unwrap();
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_program_that_accepts_nothing_is_not_waited_for() {
    let folder = folder("stopped");
    let path = folder.join("socket");
    // As of a stopped program: the queue has one place, and that is taken.
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let expected = format!("greenling-top: the program at {} does not accept: is it stopped?", path.display());
    assert_eq!(error(&[path.to_str().unwrap(), "--once"]), expected);
    fs::remove_dir_all(folder).unwrap();
}

/// Requests a path, and returns the answer.
fn get(address: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_page_is_for_those_that_know_its_address() {
    let (demo, socket) = demo("web");
    let mut command = Command::new(TOP);
    let mut web = Process(command.arg(&socket).arg("--web").stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(web.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let (address, path) = line.trim().strip_prefix("http://").unwrap().split_once('/').unwrap();
    let path = format!("/{path}");
    assert!(address.starts_with("127.0.0.1:") && path.len() == 34, "{line}");
    let page = get(address, &path, address);
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<title>greenling-top</title>"), "{page}");
    let ask = format!("{path}ask?%7B%22get%22:%22hubs%22%7D");
    let answer = get(address, &ask, address);
    assert!(answer.contains("{\"of\":{") && answer.contains("\"hubs\":[{\"hub\":1,"), "{answer}");
    assert!(get(address, "/", address).starts_with("HTTP/1.1 404 "));
    assert!(get(address, &ask, "evil.example").starts_with("HTTP/1.1 421 "));
    // The program ends, and the page says so.
    drop(demo);
    let answer = get(address, &ask, address);
    assert!(answer.contains("{\"error\":\"the program does not answer: it may have ended\"}"), "{answer}");
}
