//! Servers to ask, and a client that compares every byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, thread};

/// How long a server may be silent before a test gives up: longer than any machine stalls.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that runs, until it is dropped.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts what serves `service` and was written for this package alone, one after the other, and calls `test` with each.
pub fn each(service: &[&str], test: impl Fn(&Server)) {
    let rust = [
        ("greenling", Some(env!("CARGO_BIN_EXE_greenling"))),
        ("std_port", Some(env!("CARGO_BIN_EXE_std_port"))),
        ("threads", Some(env!("CARGO_BIN_EXE_threads"))),
        ("patched", option_env!("CARGO_BIN_EXE_patched").filter(|_| cfg!(feature = "monkey"))),
        ("tokio", Some(env!("CARGO_BIN_EXE_tokio"))),
        ("may", Some(env!("CARGO_BIN_EXE_may"))),
    ];
    for (name, program) in rust {
        if let Some(program) = program {
            test(&start(name, Command::new(program).args(service)));
        }
    }
    if let Some(program) = go() {
        test(&start("go", Command::new(program).args(service).env("GOMAXPROCS", "1")));
    }
    if let Some(python) = gevent() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/server.py");
        test(&start("gevent", Command::new(python).arg(script).args(service)));
    }
}

/// The same for servers whose HTTP is that of a library.
pub fn each_library(test: impl Fn(&Server)) {
    test(&start("hyper", Command::new(env!("CARGO_BIN_EXE_hyper")).arg("hello")));
    if let Some(program) = go() {
        test(&start("net-http", Command::new(program).arg("net-http").env("GOMAXPROCS", "1")));
    }
}

/// Starts a server, and waits until it says where it listens.
fn start(name: &'static str, command: &mut Command) -> Server {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = Vec::new();
    let said = child.stdout.as_mut().unwrap();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        assert_eq!(said.read(&mut byte).unwrap(), 1, "{name} ended");
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{name}: {line}"));
    Server { name, address: address.parse().unwrap(), child }
}

/// The program in Go, built once; none where there is no Go.
fn go() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if !succeeds(Command::new("go").arg("version")) {
            return skipped("go: apt-get install golang-go");
        }
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
        let mut build = Command::new("go");
        build.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".").env("CGO_ENABLED", "0");
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("go"));
        assert!(build.status().unwrap().success());
        Some(program)
    });
    built.as_deref()
}

/// The interpreter that has gevent; none if there is none.
fn gevent() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let python = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        if succeeds(Command::new(&python).args(["-c", "import gevent"])) {
            return Some(python.into());
        }
        skipped("gevent: pip install gevent; set PYTHON if it is in an environment of its own")
    });
    found.as_deref()
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Says what is left out, past the capture of test output.
fn skipped(what: &str) -> Option<PathBuf> {
    let _ = writeln!(io::stderr(), "SKIPPED: {what}");
    None
}

/// A connection to a server.
pub struct Client<'a> {
    server: &'a Server,
    stream: TcpStream,
}

impl<'a> Client<'a> {
    pub fn of(server: &'a Server) -> Client<'a> {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { server, stream }
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_else(|error| panic!("{}: {error}", self.server.name));
    }

    /// Reads so many bytes as are expected, and compares them.
    pub fn hear(&mut self, expected: &[u8], when: &str) {
        let mut heard = Vec::new();
        let read = (&self.stream).take(expected.len() as u64).read_to_end(&mut heard);
        if heard != expected {
            let at = heard.iter().zip(expected).take_while(|(one, other)| one == other).count();
            let near = |bytes: &[u8]| bytes[at.min(bytes.len())..].escape_ascii().to_string();
            let (mut got, mut wanted) = (near(&heard), near(expected));
            got.truncate(200);
            wanted.truncate(200);
            panic!("{}, {when}: from byte {at}, \"{got}\" in place of \"{wanted}\" ({read:?})", self.server.name);
        }
    }

    /// Expects that the server ends the connection, and says nothing before.
    pub fn hear_the_end(&mut self, when: &str) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{}, {when}: said \"{}\"", self.server.name, rest.escape_ascii());
        // A time limit would have passed without an end.
        assert!(!matches!(self.stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock));
    }

    /// Says and hears at once, however much that is.
    pub fn talk(&mut self, bytes: &[u8], expected: &[u8], when: &str) {
        let mut speaker = self.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || speaker.write_all(bytes).unwrap());
            self.hear(expected, when);
        });
    }

    /// Says no more, and expects that the server ends the connection, too.
    pub fn leave(mut self, when: &str) {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self.hear_the_end(when);
    }

    /// Reads one answer of HTTP: its status and its body.
    pub fn hear_http(&mut self) -> (u16, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{}: {error}", self.server.name));
            head.push(byte[0]);
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut answer = httparse::Response::new(&mut headers);
        assert!(answer.parse(&head).unwrap().is_complete());
        let status = answer.code.unwrap();
        let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.map_or(0, |length| str::from_utf8(length.value).unwrap().parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (status, body)
    }
}

/// Requests, and what is answered.
pub struct Script {
    /// A request and its answer, which say whether the bytes before the cut were read.
    pub anchor: (&'static [u8], Vec<u8>),
    /// Requests with their answers, which leave the service as they found it.
    pub lines: Vec<(Vec<u8>, Vec<u8>)>,
    /// Requests after which the connection ends.
    pub last: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Script {
    /// All requests and all answers.
    fn whole(&self) -> (Vec<u8>, Vec<u8>) {
        let requests = self.lines.iter().flat_map(|(request, _)| request).copied().collect();
        let answers = self.lines.iter().flat_map(|(_, answer)| answer).copied().collect();
        (requests, answers)
    }

    /// One request after the other.
    pub fn one_by_one(&self, server: &Server) {
        let mut client = Client::of(server);
        for (request, answer) in &self.lines {
            client.say(request);
            client.hear(answer, &format!("asked {}", request.escape_ascii()));
        }
        client.leave("after all");
        for (request, answer) in &self.last {
            let mut client = Client::of(server);
            client.say(request);
            let mut when = format!("asked {}", request.escape_ascii());
            when.truncate(200);
            client.hear(answer, &when);
            client.hear_the_end(&when);
        }
    }

    /// All requests in two pieces, cut at every byte; and each byte alone.
    pub fn cut_everywhere(&self, server: &Server) {
        let (requests, answers) = self.whole();
        let (anchor, anchored) = &self.anchor;
        let mut client = Client::of(server);
        for at in 1..requests.len() {
            // The answer to the anchor says that what came with it was read.
            client.say(&[anchor, &requests[..at]].concat());
            client.hear(anchored, &format!("anchor before the cut at {at}"));
            client.say(&requests[at..]);
            client.hear(&answers, &format!("cut at {at}"));
        }
        let mut speaker = client.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || requests.iter().for_each(|byte| speaker.write_all(&[*byte]).unwrap()));
            client.hear(&answers, "byte by byte");
        });
        client.leave("after all cuts");
    }

    /// All requests at once, many times over.
    pub fn pipelined(&self, server: &Server) {
        let (requests, answers) = self.whole();
        let times = (200_000 / requests.len()).min(4_000_000 / answers.len());
        let mut client = Client::of(server);
        client.talk(&requests.repeat(times), &answers.repeat(times), "at once");
        client.leave("after requests at once");
    }

    /// Many connections, each of which has said half before any says the rest.
    pub fn many(&self, server: &Server, connections: usize) {
        let (request, answer) = &self.lines[0];
        let mut clients: Vec<_> = (0..connections).map(|_| Client::of(server)).collect();
        for round in 0..3 {
            let (one, other) = request.split_at(request.len() / 2 + round);
            clients.iter_mut().for_each(|client| client.say(one));
            clients.iter_mut().for_each(|client| client.say(other));
            clients.iter_mut().for_each(|client| client.hear(answer, "one of many"));
        }
        clients.into_iter().for_each(|client| client.leave("one of many"));
    }
}
