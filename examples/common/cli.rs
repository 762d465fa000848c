//! What the examples share as command-line programs: the arguments, one clear line for what is wrong, and output that
//! waits as long as a program should.
//!
//! ```text
//!   say            the output of a program that does its work and ends     waits for its reader
//!   note, fail     what goes wrong, and the output of `server_models`      waits for a moment, and gives up
//!   log.rs         the output of servers that run on green threads         never waits
//! ```
//!
//! The arguments are in `args.rs`, the output in `output.rs`, and here is what goes wrong.
#![forbid(unsafe_code)]
#![allow(dead_code, unused_imports, reason = "no example needs all of it")]

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, stderr};
use std::time::{Duration, Instant};

mod args;
mod output;

pub(crate) use args::{address, count, duration, no_arguments, text};
pub(crate) use output::{WIDTH, announce, fold, help, note, say, say_exactly};

use output::LAST_WORD;

/// Ends the process with exit code `code`, after one line on standard error that begins with the program's name.
pub(crate) fn fail(code: i32, program: &str, what: impl Display) -> ! {
    note(stderr(), &format!("{program}: {what}\n"), LAST_WORD);
    std::process::exit(code);
}

/// Says on standard error what is wrong, unless the output has no room.
pub(crate) fn complain(program: &str, what: impl Display) {
    note(stderr(), &format!("{program}: {what}\n"), Duration::ZERO);
}

/// Ends the process for a command line that cannot be understood.
pub(crate) fn misused(program: &str, what: impl Display) -> ! {
    fail(2, program, format_args!("{what} (try --help)"))
}

/// Ends the process for an address, as the command line has it, on which it cannot listen; says what to do about it.
pub(crate) fn cannot_listen(program: &str, addr: &str, error: &io::Error) -> ! {
    let (code, cure) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            fail(2, program, format_args!("{addr} is in use; choose another by --addr HOST:PORT"))
        }
        io::ErrorKind::InvalidInput => fail(2, program, format_args!("cannot listen on {addr}: it must be HOST:PORT")),
        io::ErrorKind::PermissionDenied => (2, "; take a port from 1024 up"),
        // The request is fine, but the machine has no more to give.
        _ if is_exhausted(error) => (1, ""),
        _ => (2, ""),
    };
    fail(code, program, format_args!("cannot listen on {addr}: {}{cure}", brief(error)))
}

/// Reports whether descriptors or memory are used up, which may pass.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Reports whether an error of `accept` or `recv_from` says that this socket will never give anything again.
pub(crate) fn is_broken(error: &io::Error) -> bool {
    let never = [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP, libc::EFAULT];
    error.raw_os_error().is_some_and(|code| never.contains(&code))
}

/// How often a failure that repeats itself is reported at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Knows when to report a failure that repeats itself.
#[derive(Default)]
pub(crate) struct Complaints(Cell<Option<Instant>>);

impl Complaints {
    /// Reports whether a failure is to be reported now: the first one, and then one a minute.
    pub(crate) fn are_due(&self) -> bool {
        let due = self.0.get().is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL);
        if due {
            self.0.set(Some(Instant::now()));
        }
        due
    }
}

/// Makes this OS thread's hub, which takes descriptors and memory for a stack. Without one, a program of green threads
/// can do nothing, and ends here.
pub(crate) fn make_hub(program: &str) {
    let tried = greenling::thread::Builder::new().spawn(|| ());
    match tried {
        Ok(thread) => thread.join().expect("it does nothing"),
        Err(error) => fail(1, program, error),
    }
}

/// Ends a program that will need more descriptors than the limit allows, before half of the work is done.
pub(crate) fn take_descriptors(program: &str, count: u64) {
    // A limit that cannot be read is not known to be too low.
    let limit = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
    if limit < count {
        fail(1, program, format_args!("it takes {count} descriptors and may have {limit}: ulimit -n {count}"));
    }
}

/// Returns the words of an error without the number, ` (os error 104)`, for outputs that have no room for the number.
pub(crate) fn brief(error: &io::Error) -> String {
    let words = error.to_string();
    words.split(" (os error").next().unwrap_or(&words).to_owned()
}
