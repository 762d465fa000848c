//! The agent's OS threads: one that listens, and one for each client.
//!
//! ```text
//!   start --> "greenling-agent": accepts --> "greenling-agent": greets; reads a line, writes a line, and again
//!             until the process ends         until the client goes, is silent for IDLE, or does not read
//! ```
//!
//! They block, and serve MOST_CLIENTS at once. What a client can hold is bounded: a request of MOST_REQUEST bytes, one
//! answer at a time, of so many rows, and WRITE_TIME for a part of it to be read.
//!
//! The child of a fork has none of these OS threads, and no agent until it asks for one; the socket is its parent's.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::answers::answer;
use super::object::Object;
use super::place::{Place, default_path, listen};
use super::request::{Fault, PROTOCOL, Request};
use super::snapshot::{Eye, ListThreads};
use crate::pure::drops::drop_quietly;
use crate::pure::lock::get_or_init;
use crate::runtime::by_environment;
use crate::sys::fork::watch_forks;
use crate::sys::fork_lock::ForkLock;
use crate::sys::process::at_exit;
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::service_thread;
use crate::sys::socket::{AcceptError, classify_accept_error};

/// The environment variable that asks for the agent: 1, or the path of the socket.
const VARIABLE: &str = "GREENLING_CONSOLE";

/// The name of the OS threads: fifteen bytes, which is what the kernel keeps.
const NAME: &str = "greenling-agent";

/// The most clients at once.
const MOST_CLIENTS: usize = 8;

/// The longest request, in bytes.
const MOST_REQUEST: usize = 4096;

/// For how long a client may ask nothing.
const IDLE: Duration = Duration::from_secs(300);

/// How long a client may take to read the next part of an answer.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// How long the listener rests after an error, such as too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// The size of the stack of an OS thread, in bytes: names of stacks are looked up there.
const STACK: usize = 1024 * 1024;

/// The socket of this process, if there is one. No holder panics or runs foreign code (lock-1).
static PLACE: ForkLock<Option<Place>> = ForkLock::new();

/// What the OS threads of the agent share.
struct Agent {
    /// Looks at the hubs.
    eye: Eye,
    /// The number of clients.
    clients: AtomicUsize,
}

/// Starts the agent, if there is none in this process, at `path` or where a client looks first. Returns the path.
///
/// # Errors
/// `AlreadyExists` if there is an agent at another path; those of [`listen`] and [`default_path`]; no OS thread can be
/// started.
pub(crate) fn start(path: Option<&Path>, list_threads: ListThreads) -> io::Result<PathBuf> {
    let _mark = runtime_syscall();
    watch_forks()?;
    let mut place = PLACE.lock();
    if let Some(place) = &*place {
        if path.is_some_and(|path| path != place.path) {
            let text = format!("the console of this process is at {}", place.path.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        return Ok(place.path.clone());
    }
    let path = path.map_or_else(default_path, |path| Ok(path.to_owned()))?;
    remove_at_exit()?;
    let (listener, made) = listen(&path)?;
    let agent = Arc::new(Agent { eye: Eye::new(list_threads), clients: AtomicUsize::new(0) });
    if let Err(error) = service_thread::start(NAME, Some(STACK), move || accept(listener, &agent)) {
        made.remove();
        return Err(error);
    }
    *place = Some(made);
    Ok(path)
}

/// Starts the agent if the environment says so; once per process. A value that is neither is complained of.
pub(in crate::runtime) fn start_by_environment(list_threads: ListThreads) {
    static DONE: OnceLock<()> = OnceLock::new();
    by_environment::once(&DONE, VARIABLE, |text| {
        let started = match text {
            "" | "0" => return Ok(()),
            "1" => start(None, list_threads),
            path if path.contains('/') => start(Some(Path::new(path)), list_threads),
            _ => return Err(String::from("neither 1 nor a path with a / in it")),
        };
        started.map(drop).map_err(|error| error.to_string())
    });
}

/// Has the socket removed when the process exits. Once per process, and its children inherit that.
fn remove_at_exit() -> io::Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    extern "C" fn remove() {
        // A copy in the child of a fork has another lock, without a place.
        let removed = catch_unwind(|| PLACE.lock().take().iter().for_each(Place::remove));
        drop_quietly(removed);
    }
    if DONE.get().is_none() {
        at_exit(remove)?;
        get_or_init(&DONE, || ());
    }
    Ok(())
}

/// Accepts clients until the process ends.
fn accept(listener: UnixListener, agent: &Arc<Agent>) {
    // With the feature `monkey`, no call of this OS thread is the program's.
    let _own = runtime_syscall();
    // Never closed: if this ends, the number is no longer the agent's, and may be that of another file.
    let listener = ManuallyDrop::new(listener);
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            // The program has closed the descriptor, as daemons do with all that they do not know.
            Err(error) if classify_accept_error(&error) == AcceptError::Listener => break,
            // A program that has no descriptor left may have one again.
            Err(_) => {
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        // Relaxed: a count, which guards nothing else.
        if agent.clients.fetch_add(1, Ordering::Relaxed) >= MOST_CLIENTS {
            agent.clients.fetch_sub(1, Ordering::Relaxed);
            refuse(client, "there are too many clients");
            continue;
        }
        let (shared, failed) = (Arc::clone(agent), client.try_clone());
        let serve = move || {
            let _own = runtime_syscall();
            drop_quietly(catch_unwind(AssertUnwindSafe(|| serve(&client, &shared.eye))));
            // A copy of the descriptor in the child of a fork must not keep the connection open.
            let _ = client.shutdown(Shutdown::Both);
            if shared.clients.fetch_sub(1, Ordering::Relaxed) == 1 {
                shared.eye.forget();
            }
        };
        if service_thread::start(NAME, Some(STACK), serve).is_err() {
            agent.clients.fetch_sub(1, Ordering::Relaxed);
            if let Ok(client) = failed {
                refuse(client, "no OS thread can be started");
            }
        }
    }
    // The descriptor is gone, and with it the way to the agent.
    PLACE.lock().take().iter().for_each(Place::remove);
}

/// Tells a client why there is no answer.
fn refuse(mut client: UnixStream, why: &str) {
    // A line fits into the socket's buffer; if not, the client has not read what was there before.
    let _ = client.set_nonblocking(true);
    let _ = client.write_all((error_line(why) + "\n").as_bytes());
}

/// Returns an answer that says what is wrong.
fn error_line(why: &str) -> String {
    Object::new().text("error", why).end()
}

/// Greets a client, and answers until it goes, or says what is no request.
fn serve(client: &UnixStream, eye: &Eye) -> io::Result<()> {
    client.set_read_timeout(Some(IDLE))?;
    client.set_write_timeout(Some(WRITE_TIME))?;
    write_line(client, greeting())?;
    let mut lines = Lines { client, bytes: Vec::new() };
    loop {
        let line = match lines.next()? {
            Line::Whole(line) => line,
            Line::End => return Ok(()),
            Line::TooLong => {
                let why = format!("a request has {MOST_REQUEST} bytes at most");
                return write_line(client, error_line(&why));
            }
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        match std::str::from_utf8(&line).map_err(|_| Fault::NoRequest).and_then(Request::parse) {
            Ok(request) => write_line(client, answer(&request, eye).unwrap_or_else(|why| error_line(&why)))?,
            Err(Fault::Field(why)) => write_line(client, error_line(&why))?,
            Err(Fault::NoRequest) => {
                let why = "this is the console of greenling: a request is a line like {\"get\":\"hubs\"}";
                return write_line(client, error_line(why));
            }
        }
    }
}

/// Returns the first line that a client gets.
fn greeting() -> String {
    let program = env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
    Object::new()
        .raw("greenling", PROTOCOL)
        .text("version", env!("CARGO_PKG_VERSION"))
        .raw("pid", std::process::id())
        .text("program", name.as_deref().unwrap_or("?"))
        .end()
}

/// Writes a line to a client.
fn write_line(mut client: &UnixStream, mut line: String) -> io::Result<()> {
    line.push('\n');
    client.write_all(line.as_bytes())
}

/// What comes next from a client.
enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// More than a request may have, and no end of a line.
    TooLong,
    /// The client is gone.
    End,
}

/// The lines that a client sends.
struct Lines<'a> {
    /// The connection to the client.
    client: &'a UnixStream,
    /// Bytes that have come and were not returned: one request at most, and what one read brings.
    bytes: Vec<u8>,
}

impl Lines<'_> {
    /// Returns the next line.
    ///
    /// # Errors
    /// Those of the connection; `WouldBlock` if nothing comes for [`IDLE`].
    fn next(&mut self) -> io::Result<Line> {
        let mut part = [0; MOST_REQUEST];
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                if end > MOST_REQUEST {
                    return Ok(Line::TooLong);
                }
                let rest = self.bytes.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.bytes, rest);
                line.pop();
                return Ok(Line::Whole(line));
            }
            if self.bytes.len() > MOST_REQUEST {
                return Ok(Line::TooLong);
            }
            let mut client = self.client;
            match client.read(&mut part) {
                Ok(0) => return Ok(Line::End),
                Ok(read) => self.bytes.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
