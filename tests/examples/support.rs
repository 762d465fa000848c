//! Starts, watches and ends example programs. Nothing here waits for more than `PATIENCE`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::built::example;

/// How long anything may take before that counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a line of an example's output may be.
const WIDTH: usize = 80;

/// Complains of lines that a terminal would break, unless nothing can break the line.
#[track_caller]
pub(crate) fn check_width<'a>(lines: impl IntoIterator<Item = &'a str>) {
    for line in lines {
        // What a terminal shows of the line: progress begins the line again, and clears the rest.
        let shown = line.rsplit('\r').next().unwrap_or(line).replace("\x1b[K", "");
        let is_one_word = shown.split(' ').any(|word| word.chars().count() > WIDTH);
        assert!(shown.chars().count() <= WIDTH || is_one_word, "longer than {WIDTH} columns: {line:?}");
    }
}

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn lines(&self) -> Vec<&str> {
        str::from_utf8(&self.stdout).unwrap().lines().collect()
    }
}

/// Runs an example to the end, and checks the width of the lines.
pub(crate) fn run(name: &str, args: &[&str], input: &[u8]) -> Ended {
    let mut command = Command::new(example(name));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Running(command.spawn().unwrap());
    let mut stdin = child.0.stdin.take().unwrap();
    let input = input.to_vec();
    // The program may end without reading all input.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = read_all(child.0.stdout.take().unwrap());
    let stderr = read_all(child.0.stderr.take().unwrap());
    let status = child.wait();
    feeder.join().unwrap();
    let (stdout, stderr) = (stdout.join().unwrap(), String::from_utf8(stderr.join().unwrap()).unwrap());
    check_width(stderr.lines());
    // What was typed, or what is for other programs, may be of any length.
    if name != "echo_client" && !args.iter().any(|arg| ["--json", "--tsv"].contains(arg)) {
        check_width(String::from_utf8_lossy(&stdout).lines());
    }
    Ended { status, stdout, stderr }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// A child process; ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Waits for the end of the child.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the program has not ended for {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: kill touches no memory; the child has not been waited for, so the id is still the child's.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if the child has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines that come in while the test goes on.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    shared: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Lines {
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let also = lines.clone();
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            loop {
                let mut line = Vec::new();
                // A terminal with the other side closed says EIO, perhaps after a last piece without an end of line.
                let read = pipe.read_until(b'\n', &mut line);
                if !line.is_empty() {
                    let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                    also.shared.0.lock().unwrap().push(line);
                    also.shared.1.notify_all();
                }
                if !read.is_ok_and(|n| n > 0) {
                    return;
                }
            }
        });
        lines
    }

    /// Waits for a line that contains `what`, and returns it.
    pub(crate) fn wait_for(&self, what: &str) -> String {
        let line = self.wait_for_wide(what);
        check_width([&line[..]]);
        line
    }

    /// Waits as `wait_for` does, for a line of a report of the crate's, which may be wider than a terminal.
    pub(crate) fn wait_for_wide(&self, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.shared.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(what)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line with {what:?} among {lines:#?}");
            lines = self.shared.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub(crate) fn all(&self) -> Vec<String> {
        let lines = self.shared.0.lock().unwrap().clone();
        check_width(lines.iter().map(String::as_str));
        lines
    }
}

/// A running `echo_server`, or another server that prints the address.
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) addr: SocketAddr,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

impl Server {
    /// Starts `echo_server` on a free port, without any input.
    pub(crate) fn start(args: &[&str]) -> Server {
        Server::start_with(args, |command| {
            command.stdin(Stdio::null());
        })
    }

    pub(crate) fn start_with(args: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
        Server::start_program("echo_server", args, prepare)
    }

    pub(crate) fn start_program(name: &str, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
        let addr: &[&str] = if args.contains(&"--addr") { &[] } else { &["--addr", "127.0.0.1:0"] };
        Server::start_exactly(name, &[addr, args].concat(), prepare)
    }

    /// Starts a server with these arguments and no others, one of which says where to listen.
    pub(crate) fn start_exactly(name: &str, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
        let mut command = Command::new(example(name));
        command.args(args);
        prepare(&mut command);
        Server::of(command)
    }

    /// Starts a server by a command that says where to listen.
    pub(crate) fn of(mut command: Command) -> Server {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Running(command.spawn().unwrap());
        // The child has its own copies of whatever `prepare` gave it.
        drop(command);
        let out = Lines::of(process.0.stdout.take().unwrap());
        let err = Lines::of(process.0.stderr.take().unwrap());
        let line = out.wait_for("listening on ");
        let addr = line.strip_prefix("listening on ").unwrap().parse().unwrap();
        Server { process, addr, out, err }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Returns the CPU time used so far.
    pub(crate) fn run_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", self.process.0.id())).unwrap();
        Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
    }
}

/// Sends `message` and reads the echo.
#[track_caller]
pub(crate) fn echo(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).unwrap();
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == message, "the echo of {} bytes differs", message.len());
}

/// `len` bytes that look like nothing, all values among them, a different sequence for each seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Opens a pseudo terminal; returns our side, the program's side.
pub(crate) fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both numbers are live for the call; null means: no name, default settings and size.
    let result = unsafe { libc::openpty(&mut ours, &mut theirs, none, none.cast(), none.cast()) };
    assert_eq!(result, 0, "openpty: {}", io::Error::last_os_error());
    // Otherwise a program started by another test meanwhile would keep the terminal open.
    for fd in [ours, theirs] {
        // SAFETY: this request takes a number and touches no memory.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
    }
    // SAFETY: just opened, and owned by nothing else.
    let ours = unsafe { File::from_raw_fd(ours) };
    // SAFETY: the same.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    (ours, theirs)
}

/// Gives a program `theirs` as standard input and as the controlling terminal, as a shell in a new window does.
pub(crate) fn on_terminal(command: &mut Command, theirs: &OwnedFd) {
    command.stdin(theirs.try_clone().unwrap());
    let fd = theirs.as_raw_fd();
    let take_terminal = move || {
        // SAFETY: setsid(2) takes no arguments, and the child is not a group leader.
        let session = unsafe { libc::setsid() };
        // SAFETY: the descriptor is open in the child, a terminal, and stays open for the call.
        if session < 0 || unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: the closure makes two plain system calls: it takes no lock and allocates nothing after the fork.
    unsafe { command.pre_exec(take_terminal) };
}

/// Lets a program open `count` descriptors at most.
pub(crate) fn limit_descriptors(command: &mut Command, count: u64) {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    // SAFETY: `limit` is the closure's own copy, and live for the call.
    let lower = move || match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the closure makes one plain system call: it takes no lock and allocates nothing after the fork.
    unsafe { command.pre_exec(lower) };
}

/// Closes a connection with a reset in place of an orderly end.
pub(crate) fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: `linger` is live for the call, and `len` is its size.
    let result = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len)
    };
    assert_eq!(result, 0);
}
