//! What the servers of streams promise, each of them by the same tests: the same bytes come back, an end goes through a
//! proxy in one direction while the other goes on, a thousand members hear each message, and a member that does not
//! read stops neither the room nor the other members.
//!
//! Each wait has a limit of minutes: a machine that stalls is no failure, and a server that hangs is one in the end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tungstenite::Message;

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(240);

/// A server, killed at the end of the test.
struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(command: &[String], service: &[&str]) -> Server {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .args(service)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim_end().strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("{command:?} {service:?} says {line:?}"));
        Server { child, addr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bytes that are sent: so many that they fill every buffer on the way.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Runs the driver, and returns its figures.
fn load(options: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_load")).args(options).arg("--lines").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{options:?}: {out}{err}");
    out.into_owned()
}

/// Whether a figure has this value.
fn says(figures: &str, line: &str) -> bool {
    figures.lines().any(|figure| figure == line)
}

fn a_driver_over_tls_gets_its_bytes_back(command: &[String]) {
    let server = Server::start(command, &["tls"]);
    let addr = server.addr.to_string();
    let common = ["--addr", &addr, "--connections", "4", "--warmup", "0.01", "--seconds", "0.5", "--grace", "240"];
    // One record, and one that is cut into several.
    for size in ["1", "32768"] {
        let figures = load(&[&["tls-echo", "--rate", "40", "--size", size], &common[..]].concat());
        assert!(says(&figures, "requests 20") && says(&figures, "errors 0"), "{figures}");
    }
}

fn a_proxy_passes_on_bytes_and_ends_in_both_directions(command: &[String]) {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Server::start(command, &["proxy", &upstream.local_addr().unwrap().to_string()]);
    let sent = bytes(3 << 20);
    // The client ends first: the server answers after it has seen the end.
    let client = proxy.connect();
    let (mut server, _) = upstream.accept().unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            (&client).write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} bytes of {} came", received.len(), sent.len());
        s.spawn(|| {
            server.write_all(&sent).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        (&client).read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} bytes of {} came back", received.len(), sent.len());
    });
    // The server ends first: the client goes on speaking.
    let mut client = proxy.connect();
    let (mut server, _) = upstream.accept().unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end of the server");
    client.write_all(b"still here").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"still here");
}

fn a_driver_reaches_its_upstream_through_the_proxy(command: &[String]) {
    let upstream = Server::start(&[env!("CARGO_BIN_EXE_load").to_owned()], &["upstream"]);
    let proxy = Server::start(command, &["proxy", &upstream.addr.to_string()]);
    let addr = proxy.addr.to_string();
    let common = ["--addr", &addr, "--connections", "4", "--warmup", "0.01", "--seconds", "0.5", "--grace", "240"];
    let figures = load(&[&["proxy", "--rate", "100"], &common[..]].concat());
    assert!(says(&figures, "requests 50") && says(&figures, "errors 0"), "{figures}");
}

fn a_thousand_members_get_each_message_once(command: &[String]) {
    let room = Server::start(command, &["chat"]);
    let addr = room.addr.to_string();
    let pace = ["--rate", "20", "--seconds", "0.5", "--warmup", "0.05", "--grace", "240"];
    let figures = load(&[&["chat", "--members", "1000", "--addr", &addr], &pace[..]].concat());
    // The driver fails on a message that comes twice.
    assert!(says(&figures, "deliveries 10000") && says(&figures, "errors 0"), "{figures}");
}

fn a_room_takes_many_speakers_at_once(command: &[String]) {
    let room = Server::start(command, &["chat"]);
    let addr = room.addr.to_string();
    // Sixteen messages of different members are on their way at any moment.
    let pace = ["--rate", "max", "--most", "100", "--seconds", "240", "--warmup", "0.1", "--grace", "240"];
    let figures = load(&[&["chat", "--members", "300", "--addr", &addr], &pace[..]].concat());
    assert!(says(&figures, "deliveries 30000") && says(&figures, "errors 0"), "{figures}");
}

/// A member with a socket that is not read goes on being sent to, until its queue is full.
fn a_member_that_does_not_read_is_thrown_out_and_the_room_goes_on(command: &[String]) {
    let room = Server::start(command, &["chat"]);
    let member = || tungstenite::client("ws://localhost/chat", room.connect()).unwrap().0;
    let mut sleeper = member();
    let (mut speaker, mut hearer) = (member(), member());
    // All three are in once each has had an answer of the room.
    for socket in [&mut sleeper, &mut speaker, &mut hearer] {
        socket.send(Message::Ping(b"in?"[..].into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong(b"in?"[..].into()));
    }
    // Far more than the kernel and a queue keep for a member. The two that read get all of it.
    let message = Message::binary(bytes(64 * 1024));
    for number in 0..600 {
        speaker.send(message.clone()).unwrap();
        for socket in [&mut speaker, &mut hearer] {
            assert!(socket.read().unwrap() == message, "message {number}");
        }
    }
    // The third gets what was under way, and then the end: not all.
    let heard = std::iter::from_fn(|| sleeper.read().ok()).count();
    assert!(heard < 600, "the sleeper was sent all messages");
    // A farewell is answered.
    hearer.close(None).unwrap();
    let end = loop {
        if let Err(error) = hearer.read() {
            break error;
        }
    };
    assert!(matches!(end, tungstenite::Error::ConnectionClosed), "{end:?}");
}

/// The tests of a server, as a module.
macro_rules! server {
    ($name:ident, $command:expr, $($test:ident)*) => {
        mod $name {
            $(
                #[test]
                fn $test() {
                    let Some(command) = $command else { return };
                    super::$test(&command);
                }
            )*
        }
    };
    ($name:ident, $command:expr) => {
        server!($name, $command,
            a_driver_over_tls_gets_its_bytes_back
            a_proxy_passes_on_bytes_and_ends_in_both_directions
            a_driver_reaches_its_upstream_through_the_proxy
            a_thousand_members_get_each_message_once
            a_room_takes_many_speakers_at_once
            a_member_that_does_not_read_is_thrown_out_and_the_room_goes_on
        );
    };
}

/// A program of this package.
macro_rules! program {
    ($name:literal) => {
        Some(vec![env!(concat!("CARGO_BIN_EXE_", $name)).to_owned()])
    };
}

server!(threads, program!("streams_threads"));
server!(std_port, program!("streams_std_port"));
#[cfg(feature = "monkey")]
server!(patched, program!("streams_patched"));
server!(greenling, program!("streams_greenling"));
server!(tokio, program!("streams_tokio"));
server!(may, program!("streams_may"));
server!(go, super::go());
server!(gevent, super::gevent(),
    a_driver_over_tls_gets_its_bytes_back
    a_proxy_passes_on_bytes_and_ends_in_both_directions
    a_driver_reaches_its_upstream_through_the_proxy
);

/// Says that a peer is not there, which is no failure.
fn skip(peer: &str, help: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: no {peer} ({help})");
}

/// Builds the Go program, if there is Go.
fn go() -> Option<Vec<String>> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("streams_go");
        let build = Command::new("go")
            .args(["build", "-buildvcs=false", "-o"])
            .arg(&out)
            .arg("./streams")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("go"))
            .env("CGO_ENABLED", "0")
            .output();
        match build {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                skip("Go", "apt-get install golang-go");
                None
            }
            build => {
                let build = build.unwrap();
                assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
                Some(out)
            }
        }
    });
    built.as_ref().map(|path| vec![path.to_string_lossy().into_owned()])
}

/// The Python program, if there are gevent and openssl.
fn gevent() -> Option<Vec<String>> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let there = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
    };
    if !there(&python, &["-c", "import gevent"]) || !there("openssl", &["version"]) {
        skip("gevent", "pip install gevent, apt-get install openssl");
        return None;
    }
    Some(vec![python, concat!(env!("CARGO_MANIFEST_DIR"), "/python/streams.py").to_owned()])
}
