//! A connection to the agent of a program: finds the socket, greets, asks.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenling::os::unix::net;
use serde_json::Value;

/// The version of the protocol that this program speaks.
const PROTOCOL: u64 = 1;

/// How long an agent may take to accept, and for a greeting.
const GREETING_TIME: Duration = Duration::from_secs(5);

/// How long it may take for an answer: names of stacks take long in a large program.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// The most bytes of an answer.
const MOST_ANSWER: u64 = 64 << 20;

/// The line about a program without an agent.
const NO_AGENT: &str = "start it with GREENLING_CONSOLE=1, or call greenling::hub::console()";

/// What an agent says of itself.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    /// The id of the process.
    pub pid: u64,
    /// The name of the program.
    pub program: String,
    /// The version of greenling in it.
    pub version: String,
}

impl Greeting {
    /// Reads a greeting.
    ///
    /// # Errors
    /// The line is none, or of another version.
    pub fn parse(path: &Path, line: &str) -> Result<Greeting, String> {
        let foreign = || format!("{} is not the console of a greenling program", path.display());
        let greeting: Value = serde_json::from_str(line).map_err(|_| foreign())?;
        if let Some(error) = greeting["error"].as_str() {
            return Err(clean(error));
        }
        match greeting["greenling"].as_u64() {
            Some(PROTOCOL) => {}
            Some(other) => {
                return Err(format!("the program speaks version {other} of the protocol, and this is for {PROTOCOL}"));
            }
            None => return Err(foreign()),
        }
        let text = |name: &str| clean(greeting[name].as_str().unwrap_or("?"));
        Ok(Greeting { pid: greeting["pid"].as_u64().unwrap_or(0), program: text("program"), version: text("version") })
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {}, greenling {})", self.program, self.pid, self.version)
    }
}

/// A connection to an agent.
pub struct Agent {
    /// The socket.
    stream: BufReader<UnixStream>,
    /// What the agent has said of itself.
    pub greeting: Greeting,
}

impl Agent {
    /// Connects to the agent at `path`.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn connect(path: &Path) -> Result<Agent, String> {
        let stream = connect(path).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => format!("the program at {} does not accept: is it stopped?", path.display()),
            ErrorKind::NotFound => format!("{} is not there", path.display()),
            ErrorKind::ConnectionRefused => format!("no program listens at {}", path.display()),
            ErrorKind::PermissionDenied => format!("{} is another user's", path.display()),
            _ => format!("{}: {error}", path.display()),
        })?;
        // Each answer is waited for, and nothing else happens meanwhile: a blocking stream will do.
        let stream = UnixStream::from(stream);
        let set = stream.set_read_timeout(Some(GREETING_TIME)).and(stream.set_write_timeout(Some(GREETING_TIME)));
        set.map_err(|error| error.to_string())?;
        let mut agent = Agent { stream: BufReader::new(stream), greeting: Greeting::default() };
        let line = agent.line().map_err(|error| format!("{} does not greet: {error}", path.display()))?;
        agent.greeting = Greeting::parse(path, &line)?;
        let longer = agent.stream.get_ref().set_read_timeout(Some(ANSWER_TIME));
        longer.map_err(|error| error.to_string())?;
        Ok(agent)
    }

    /// Reads a line.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let read = (&mut self.stream).take(MOST_ANSWER).read_line(&mut line);
        match read.map_err(said)? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the program has closed the connection")),
            _ => Ok(line),
        }
    }

    /// Asks, and returns the answer.
    ///
    /// # Errors
    /// What the agent says is wrong with the request, or what is wrong with the connection.
    pub fn ask(&mut self, request: &Value) -> Result<Value, String> {
        let sent = self.stream.get_mut().write_all(format!("{request}\n").as_bytes());
        let line = sent.and_then(|()| self.line()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => String::from("the program has ended"),
            _ => error.to_string(),
        })?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("no answer, but {error}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(clean(error)),
            None => Ok(answer),
        }
    }
}

/// Connects, or says after a while that the program accepts no connection. A stopped program accepts none, and once its
/// queue is full, connect(2) waits for ever.
///
/// # Errors
/// Those of connect(2); `TimedOut`.
pub(crate) fn connect(path: &Path) -> io::Result<net::UnixStream> {
    greenling::timeout(GREETING_TIME, || net::UnixStream::connect(path)).map_err(|_| ErrorKind::TimedOut)?
}

/// Returns an error in words that say what did not come.
fn said(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "no answer comes"),
        _ => error,
    }
}

/// Returns the path of the socket that an argument means: a path, or the id of a process.
///
/// # Errors
/// One line that says where a socket was looked for, and how there would be one.
pub fn find(argument: &str) -> Result<PathBuf, String> {
    let Ok(pid) = argument.parse::<u32>() else { return Ok(PathBuf::from(argument)) };
    let Ok(process) = fs::metadata(format!("/proc/{pid}")) else { return Err(format!("there is no process {pid}")) };
    let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let candidates = candidates(pid, process.uid(), &variables);
    candidates
        .iter()
        .find(|path| path.exists())
        .cloned()
        .ok_or_else(|| format!("process {pid} has no console: {NO_AGENT}"))
}

/// Returns the paths where the socket of a process may be, by its environment and its user.
fn candidates(pid: u32, user: u32, environment: &[u8]) -> Vec<PathBuf> {
    let variable = |name: &str| {
        let mut entries = environment.split(|byte| *byte == 0);
        let value = entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(value)))
    };
    let given = variable("GREENLING_CONSOLE").filter(|path| path.is_absolute());
    let folders = variable("XDG_RUNTIME_DIR").into_iter().chain([PathBuf::from(format!("/run/user/{user}"))]);
    let folders =
        folders.map(|folder| folder.join("greenling")).chain([PathBuf::from(format!("/tmp/greenling-{user}"))]);
    given.into_iter().chain(folders.map(|folder| folder.join(format!("{pid}.sock")))).collect()
}

/// Returns the sockets of this user's programs, where they lie if nothing else was said.
pub fn all() -> Vec<PathBuf> {
    let user = fs::metadata("/proc/self").map_or(0, |process| process.uid());
    let mut found = Vec::new();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let folders =
        [runtime.map(|folder| folder.join("greenling")), Some(PathBuf::from(format!("/tmp/greenling-{user}")))];
    for folder in folders.into_iter().flatten() {
        found.extend(fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    found.sort();
    found
}

/// Returns a text without control characters, which would change the terminal: names are the program's. A line stays
/// one line: a name that has a line feed in it must not look like a row of its own.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Returns a text of several lines, each of them as [`clean`] has it.
pub fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_of_others_and_of_other_versions_are_told_in_one_line() {
        let path = Path::new("/x");
        let error = |line| Greeting::parse(path, line).unwrap_err();
        for foreign in ["", "220 smtp ready", "{}", "[1]", "{\"greenling\":\"1\"}"] {
            assert_eq!(error(foreign), "/x is not the console of a greenling program", "{foreign}");
        }
        assert_eq!(error("{\"greenling\":2}"), "the program speaks version 2 of the protocol, and this is for 1");
        assert_eq!(error("{\"error\":\"there are too many clients\"}"), "there are too many clients");
        assert_eq!(error("{\"error\":\"\\u001b]0;x\\u0007\\u009b2J\"}"), "\u{fffd}]0;x\u{fffd}\u{fffd}2J");
        let greeting =
            Greeting::parse(path, r#"{"greenling":1,"version":"1.2","pid":7,"program":"a\u001bb"}"#).unwrap();
        assert_eq!(greeting.to_string(), "a\u{fffd}b (process 7, greenling 1.2)");
    }

    #[test]
    fn a_socket_is_looked_for_where_the_process_has_it() {
        let environment = b"A=b\0XDG_RUNTIME_DIR=/run/x\0GREENLING_CONSOLE=/srv/c.sock\0";
        let paths =
            ["/srv/c.sock", "/run/x/greenling/7.sock", "/run/user/1/greenling/7.sock", "/tmp/greenling-1/7.sock"];
        assert_eq!(candidates(7, 1, environment), paths.map(PathBuf::from));
        assert_eq!(
            candidates(7, 1, b"GREENLING_CONSOLE=1\0"),
            paths[2..].iter().map(PathBuf::from).collect::<Vec<_>>()
        );
    }
}
