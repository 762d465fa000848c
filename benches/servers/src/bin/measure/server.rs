//! The servers: which there are, and one that runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use crate::options::Options;

/// How long a connection may be without an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that is installed.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The program and its first arguments, pinned.
    begin: Vec<String>,
}

impl Kind {
    /// The command for a service, if the server has it.
    pub(crate) fn command(&self, service: &str, folder: &str) -> Option<Vec<String>> {
        let mut command = self.begin.clone();
        match (self.name, service) {
            ("hyper" | "net-http", "kv" | "files") => return None,
            ("net-http", _) => command.push("net-http".to_owned()),
            (_, "files") => command.extend(["files".to_owned(), folder.to_owned()]),
            (_, service) => command.push(service.to_owned()),
        }
        Some(command)
    }
}

/// Returns the servers that are wanted and there, and what is missing, with the line that installs it.
pub(crate) fn installed(options: &Options) -> (Vec<Kind>, Vec<String>) {
    let target = env::var("GREENLING_SERVERS").unwrap_or_else(|_| "target/servers".to_owned());
    let python = env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let (mut kinds, mut missing) = (Vec::new(), Vec::new());
    let mut known = Vec::new();
    let mut add = |name: &'static str, program: &str, argument: Option<&str>, is_there: bool, line: &str| {
        known.push(name);
        if !options.wants_server(name) {
            return;
        }
        if !is_there {
            missing.push(format!("{name}: {line}"));
            return;
        }
        let mut begin = ["taskset", "-c", &options.core.to_string(), program].map(str::to_owned).to_vec();
        begin.extend(argument.map(str::to_owned));
        kinds.push(Kind { name, begin });
    };
    for name in ["greenling", "std_port", "patched", "threads", "tokio", "hyper", "may"] {
        let program = format!("{target}/release/{name}");
        add(name, &program, None, Path::new(&program).exists(), "benches/servers/run builds it");
    }
    // What is not Rust.
    let go = format!("{target}/go");
    for name in ["go", "net-http"] {
        add(name, &go, None, Path::new(&go).exists(), "apt-get install golang-go");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/server.py");
    let has_gevent = Command::new(&python).args(["-c", "import gevent"]).stderr(Stdio::null()).status();
    let has_gevent = has_gevent.is_ok_and(|status| status.success());
    add("gevent", &python, Some(script), has_gevent, "pip install gevent; set PYTHON to its interpreter");
    missing.extend(options.named().iter().filter(|name| !known.contains(&name.as_str())).map(|name| {
        // A misspelt name would leave its column out, after half an hour.
        format!("{name}: there is no such server; there are {}", known.join(", "))
    }));
    (kinds, missing)
}

/// A server that runs until it is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a server, and waits until it listens.
    pub(crate) fn start(command: &[String]) -> Result<Running, String> {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", command[0]))?;
        let mut line = String::new();
        let said = child.stdout.take().expect("a pipe");
        let mut server = Running { child, port: 0 };
        BufReader::new(said).read_line(&mut line).map_err(|error| error.to_string())?;
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        server.port = port.ok_or("does not listen")?;
        Ok(server)
    }

    /// The CPU time of the process so far.
    pub(crate) fn cpu(&self) -> Result<Duration, String> {
        // After the name, which may have blanks: utime and stime are the words 12 and 13, in 1/100 s.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).map_err(|error| error.to_string())?;
        let words = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        if ticks.len() == 2 { Ok(Duration::from_millis(10 * (ticks[0] + ticks[1]))) } else { Err("ended".to_owned()) }
    }

    /// Bytes in memory, page tables included.
    fn memory(&self) -> Result<f64, String> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).map_err(|error| error.to_string())?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        Ok(1024.0 * (field("VmRSS:") + field("VmPTE:")))
    }

    /// The memory by which the process grows for each of so many connections that were answered once and then say
    /// nothing.
    pub(crate) fn idle(&self, connections: usize) -> Result<f64, String> {
        // What the first connection needs, all need once.
        let _first = self.answered()?;
        let before = self.memory()?;
        let all: Result<Vec<_>, _> = (0..connections).map(|_| self.answered()).collect();
        let all = all?;
        let grown = self.memory()? - before;
        Ok(grown / all.len() as f64)
    }

    /// A connection over which hello was said once.
    fn answered(&self) -> Result<TcpStream, String> {
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            let mut answer = [0; 1024];
            let mut length = 0;
            while !answer[..length].ends_with(b"world!") {
                match stream.read(&mut answer[length..])? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    more => length += more,
                }
            }
            Ok(stream)
        };
        ask().map_err(|error: std::io::Error| format!("a connection: {error}"))
    }
}
