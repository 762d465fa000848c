//! Signals, received by green threads as from a channel.
//!
//! ```text
//!   Signals::new([SIGTERM])      blocks SIGTERM in this OS thread: it stays pending
//!        recv() parks ............ epoll: the signalfd is readable ... takes the signal, returns it
//!        drop                    unblocks it, unless it was blocked before or another `Signals` still wants it
//! ```
//!
//! No handler runs, so nothing is restricted to what a handler may do. The price is one rule:
//!
//! **Make the `Signals` in main before any other OS thread is started.** Threads inherit what is blocked, those of
//! [`Hubs`](crate::Hubs) too. A signal to the process goes to any OS thread that has not blocked it; if there is one, the
//! signal does there what it would have done without this module: SIGTERM ends the process. The OS threads that look up
//! names and do the work of [`fs`](crate::fs) take no signals, whenever they were started; a job of
//! [`blocking`](crate::blocking) has blocked what its caller had.
//!
//! Children started with [`process`](crate::process) do not inherit it. Those of std's `Command` do: it would take SIGKILL
//! to end them.
//!
//! * Invariant S1: a signal is blocked in an OS thread while a `Signals` of that thread waits for it. Upheld by `new`,
//!   which counts and blocks, and `drop`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::signalfd::{LAST, SignalFd, SignalSet, Taken, can_wait, number};

/// The time of `alarm(2)` is up.
pub const SIGALRM: i32 = number::ALRM;
/// A child has ended. [`process`](crate::process) does not need it.
pub const SIGCHLD: i32 = number::CHLD;
/// Go on after a stop.
pub const SIGCONT: i32 = number::CONT;
/// The terminal is gone; for daemons: read the configuration again.
pub const SIGHUP: i32 = number::HUP;
/// Ctrl-C.
pub const SIGINT: i32 = number::INT;
/// Ends a process without asking. To be sent; cannot be received.
pub const SIGKILL: i32 = number::KILL;
/// A write that nobody will read. Rust programs ignore it from the start, and get an error from the write.
pub const SIGPIPE: i32 = number::PIPE;
/// Ctrl-\: end, and leave a core file.
pub const SIGQUIT: i32 = number::QUIT;
/// Stops a process without asking. To be sent; cannot be received.
pub const SIGSTOP: i32 = number::STOP;
/// Asks a process to end; what `kill` sends.
pub const SIGTERM: i32 = number::TERM;
/// Ctrl-Z.
pub const SIGTSTP: i32 = number::TSTP;
/// For the program to give a meaning.
pub const SIGUSR1: i32 = number::USR1;
/// For the program to give a meaning.
pub const SIGUSR2: i32 = number::USR2;
/// The terminal has another size.
pub const SIGWINCH: i32 = number::WINCH;

/// The names of the signals above.
const NAMES: [(i32, &str); 14] = [
    (SIGALRM, "SIGALRM"),
    (SIGCHLD, "SIGCHLD"),
    (SIGCONT, "SIGCONT"),
    (SIGHUP, "SIGHUP"),
    (SIGINT, "SIGINT"),
    (SIGKILL, "SIGKILL"),
    (SIGPIPE, "SIGPIPE"),
    (SIGQUIT, "SIGQUIT"),
    (SIGSTOP, "SIGSTOP"),
    (SIGTERM, "SIGTERM"),
    (SIGTSTP, "SIGTSTP"),
    (SIGUSR1, "SIGUSR1"),
    (SIGUSR2, "SIGUSR2"),
    (SIGWINCH, "SIGWINCH"),
];

/// What an OS thread keeps of one signal.
#[derive(Clone, Copy)]
struct Blocked {
    /// How many `Signals` wait for it.
    users: u32,
    /// Whether it is blocked because of them, and not by the program itself.
    ours: bool,
}

thread_local! {
    /// By number.
    static BLOCKED: [Cell<Blocked>; LAST as usize + 1] =
        const { [const { Cell::new(Blocked { users: 0, ours: false }) }; LAST as usize + 1] };
}

/// Bits of all signals that a `Signals` has ever blocked in this process; bit 0 is signal 1. Never cleared, since OS
/// threads that were started meanwhile have inherited it.
static EVER_BLOCKED: AtomicU64 = AtomicU64::new(0);

/// [`EVER_BLOCKED`], if any was: children must have them unblocked.
pub(crate) fn ever_blocked() -> Option<&'static AtomicU64> {
    // Relaxed: this OS thread has blocked one itself, or one that did had started it.
    (EVER_BLOCKED.load(Ordering::Relaxed) != 0).then_some(&EVER_BLOCKED)
}

/// Signals to receive, until it is dropped.
///
/// ```standalone_crate
/// use greenling::{process::Command, signal::{SIGTERM, SIGUSR1, Signals}};
///
/// let signals = Signals::new([SIGUSR1, SIGTERM])?;
/// let me = std::process::id().to_string();
/// assert!(Command::new("kill").args(["-s", "USR1", &me]).status()?.success());
/// let signal = signals.recv()?; // it came before the call, and was not lost
/// assert_eq!((signal.number(), signal.to_string()), (SIGUSR1, "SIGUSR1".to_owned()));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// * A signal that comes before `recv` waits for it. Several of one kind that come meanwhile melt into one, as
///   everywhere in Unix (those from `SIGRTMIN` on are counted).
/// * Several green threads may wait; the one that came first gets the first signal. If there are several `Signals` for one
///   signal, in one OS thread or many, one of them gets it.
/// * When the last `Signals` for it is dropped, a signal that nobody received does what it does by default.
/// * It stays on its OS thread.
///
/// # Errors of the calls that wait
/// `Other` when the call would have to wait but the caller unwinds from a panic or kill, or its OS thread is ending.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. No signal is lost by that.
#[derive(Debug)]
pub struct Signals {
    /// The signalfd.
    source: Source<SignalFd>,
    /// Which, each once.
    numbers: Box<[i32]>,
}

impl Signals {
    /// From now on these signals wait to be received, in place of what they did before.
    ///
    /// # Errors
    /// `InvalidInput` for an empty list, for a number that is no signal, for SIGKILL and SIGSTOP, and for signals that say
    /// that the program is at fault, such as SIGSEGV. `EMFILE`, `ENFILE`.
    ///
    /// May switch: no.
    pub fn new(numbers: impl IntoIterator<Item = i32>) -> io::Result<Signals> {
        let mut numbers: Vec<i32> = numbers.into_iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        if let Some(bad) = numbers.iter().find(|number| !can_wait(**number)) {
            let what = format!("{} cannot be received", Name(*bad));
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if numbers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no signal to receive"));
        }
        let set = SignalSet::new(&numbers)?;
        let fd = SignalFd::new(&set)?;
        let before = set.block()?;
        for &number in &numbers {
            let blocked = blocked(number);
            let users = blocked.users + 1;
            let ours = if blocked.users == 0 { !before.contains(number) } else { blocked.ours };
            if ours {
                // Relaxed: see `ever_blocked`.
                EVER_BLOCKED.fetch_or(1 << (number - 1), Ordering::Relaxed);
            }
            set_blocked(number, Blocked { users, ours });
        }
        Ok(Signals { source: Source::new(fd, false, false), numbers: numbers.into() })
    }

    /// Waits for a signal.
    ///
    /// # Errors
    /// See [`Signals`].
    ///
    /// # Panics
    /// See [`Signals`].
    ///
    /// May switch: yes.
    pub fn recv(&self) -> io::Result<Signal> {
        self.receive(None)
    }

    /// [`recv`](Self::recv), but no longer than `limit`; none if there was no signal by then.
    ///
    /// # Errors
    /// See [`Signals`].
    ///
    /// # Panics
    /// See [`Signals`].
    ///
    /// May switch: yes.
    pub fn recv_timeout(&self, limit: Duration) -> io::Result<Option<Signal>> {
        none_in_time(self.receive(Some(limit)))
    }

    /// A signal that has come already, if there is one.
    ///
    /// # Errors
    /// None that the kernel documents.
    ///
    /// May switch: no.
    pub fn try_recv(&self) -> io::Result<Option<Signal>> {
        none_in_time(self.source.get().take().map(|taken| Signal { taken }))
    }

    /// Receives one signal after the other; waits for each, and never ends.
    ///
    /// May switch: no; its `next` does.
    pub fn iter(&self) -> Iter<'_> {
        Iter { signals: self }
    }

    /// `recv`, with a limit or none.
    fn receive(&self, limit: Option<Duration>) -> io::Result<Signal> {
        let taken = self.source.run(Direction::Read, limit, &mut SignalFd::take)?;
        Ok(Signal { taken })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let mut free = Vec::new();
        for &number in &self.numbers {
            let before = blocked(number);
            set_blocked(number, Blocked { users: before.users - 1, ..before });
            if before.users == 1 && before.ours {
                free.push(number);
            }
        }
        // Neither fails for signals that could be blocked.
        let _ = SignalSet::new(&free).and_then(|set| set.unblock());
    }
}

/// What this OS thread keeps of a signal.
fn blocked(number: i32) -> Blocked {
    BLOCKED.with(|blocked| blocked[number as usize].get())
}

/// Changes it.
fn set_blocked(number: i32, to: Blocked) {
    BLOCKED.with(|blocked| blocked[number as usize].set(to));
}

/// None in place of `WouldBlock`.
fn none_in_time(result: io::Result<Signal>) -> io::Result<Option<Signal>> {
    match result {
        Ok(signal) => Ok(Some(signal)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// The signals of a [`Signals`], one after the other.
#[derive(Debug)]
pub struct Iter<'a> {
    /// Where they come from.
    signals: &'a Signals,
}

/// May switch: yes. See [`Signals`] for errors and panics.
impl Iterator for Iter<'_> {
    type Item = io::Result<Signal>;

    fn next(&mut self) -> Option<io::Result<Signal>> {
        Some(self.signals.recv())
    }
}

impl<'a> IntoIterator for &'a Signals {
    type Item = io::Result<Signal>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// A signal that was received. Its `Display` is the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// As the kernel told it.
    taken: Taken,
}

impl Signal {
    /// Which one: [`SIGTERM`], ..
    ///
    /// May switch: no.
    pub fn number(&self) -> i32 {
        self.taken.number
    }

    /// The process that sent it, or the child that ended; none if it was the kernel, as for Ctrl-C.
    ///
    /// May switch: no.
    pub fn sender(&self) -> Option<u32> {
        Some(self.taken.pid).filter(|pid| *pid != 0)
    }

    /// The user who sent it; none if it was the kernel.
    ///
    /// May switch: no.
    pub fn user(&self) -> Option<u32> {
        self.sender().map(|_| self.taken.uid)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Name(self.number()).fmt(f)
    }
}

/// Shows the name of a signal, or its number.
struct Name(i32);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Waits for Ctrl-C (SIGINT), which does not end the process meanwhile. A second one afterwards does, as always.
///
/// It begins to wait for the signal when it is called. A program that must not miss one in between, or that has more
/// than one OS thread, makes a [`Signals`] at its beginning.
///
/// ```
/// use std::time::Duration;
/// use greenling::{signal, timeout};
///
/// let pressed = timeout(Duration::from_millis(5), signal::ctrl_c);
/// assert!(pressed.is_err()); // nobody did
/// ```
///
/// # Errors
/// Those of [`Signals::new`] and [`Signals::recv`].
///
/// # Panics
/// See [`Signals`].
///
/// May switch: yes.
pub fn ctrl_c() -> io::Result<()> {
    Signals::new([SIGINT])?.recv()?;
    Ok(())
}
