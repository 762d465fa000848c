//! Signals that green threads receive as from a channel.
//!
//! ```text
//!   Signals::new([SIGTERM])      blocks SIGTERM in this OS thread: it stays pending
//!        recv() parks ............ epoll: the signalfd is readable ... takes the signal, returns it
//!        drop                    unblocks SIGTERM, unless it was blocked before or another `Signals` has it
//! ```
//!
//! No handler runs, so the restrictions of signal handlers do not apply. The price is one rule:
//!
//! **Make the `Signals` in main before any other OS thread is started.** OS threads inherit the mask of blocked
//! signals, also those of [`Hubs`](crate::Hubs). A signal to the process goes to any OS thread that has not blocked the
//! signal. If there is such a thread, the signal has the effect there that it would have without this module: SIGTERM
//! ends the process. The OS threads that look up names and do the work of [`fs`](crate::fs) take no signals, whenever
//! they were started; a job of [`blocking`](crate::blocking) has the mask of its caller.
//!
//! Children started with [`process`](crate::process) do not inherit the mask. Those of std's `Command` do, and then
//! only SIGKILL ends them.
//!
//! * Invariant signals-1: a signal is blocked in an OS thread while a `Signals` of that thread waits for the signal.
//!   Upheld by `new`, which counts and blocks, and `drop`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::runtime::arms::ReadyArm;
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::reactor::Direction;
use crate::runtime::select_source::SelectRecv;
use crate::runtime::source::Source;
use crate::switch::root::on_os_thread;
use crate::switch::wait_list::WaitList;
use crate::sys::signalfd::{LAST, SignalFd, SignalSet, Taken, can_wait, number};
use crate::sys::simulation::stay_inside;

/// The time of `alarm(2)` is up.
pub const SIGALRM: i32 = number::ALRM;
/// A child has ended. [`process`](crate::process) works without this signal.
pub const SIGCHLD: i32 = number::CHLD;
/// The process goes on after a stop.
pub const SIGCONT: i32 = number::CONT;
/// The terminal is gone. Daemons read their configuration again.
pub const SIGHUP: i32 = number::HUP;
/// Ctrl-C was pressed: an interrupt.
pub const SIGINT: i32 = number::INT;
/// Ends a process at once. Can be sent, but not received.
pub const SIGKILL: i32 = number::KILL;
/// A write had no reader. Rust programs ignore this signal from the start, and get an error from the write.
pub const SIGPIPE: i32 = number::PIPE;
/// Ctrl-\ was pressed: end, and leave a core file.
pub const SIGQUIT: i32 = number::QUIT;
/// Stops a process at once. Can be sent, but not received.
pub const SIGSTOP: i32 = number::STOP;
/// Asks a process to end; the default of `kill`.
pub const SIGTERM: i32 = number::TERM;
/// Ctrl-Z was pressed: a stop.
pub const SIGTSTP: i32 = number::TSTP;
/// A signal without a meaning, for programs to define.
pub const SIGUSR1: i32 = number::USR1;
/// A signal without a meaning, for programs to define.
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

/// The state of one signal in one OS thread.
#[derive(Clone, Copy)]
struct Blocked {
    /// The number of `Signals` that receive the signal.
    users: u32,
    /// Whether the signal is blocked for those `Signals`, and was not before.
    ours: bool,
}

thread_local! {
    /// The state of each signal, by number.
    static BLOCKED: [Cell<Blocked>; LAST as usize + 1] =
        const { [const { Cell::new(Blocked { users: 0, ours: false }) }; LAST as usize + 1] };
}

/// The signals that a `Signals` has ever blocked in this process, one bit each; bit 0 is signal 1. Bits are never
/// cleared, since OS threads that were started meanwhile have inherited the mask.
static EVER_BLOCKED: AtomicU64 = AtomicU64::new(0);

/// Returns [`EVER_BLOCKED`], if any signal was: in children these signals must be unblocked.
pub(crate) fn ever_blocked() -> Option<&'static AtomicU64> {
    // Relaxed: this OS thread has blocked a signal itself, or was started by one that had.
    (EVER_BLOCKED.load(Ordering::Relaxed) != 0).then_some(&EVER_BLOCKED)
}

/// A set of signals that are received, and not delivered, until this value is dropped.
///
/// ```standalone_crate
/// use greenling::{process::Command, signal::{SIGTERM, SIGUSR1, Signals}};
///
/// let signals = Signals::new([SIGUSR1, SIGTERM])?;
/// let me = std::process::id().to_string();
/// assert!(Command::new("kill").args(["-s", "USR1", &me]).status()?.success());
/// let signal = signals.recv()?; // the signal came before this call, and was not lost
/// assert_eq!((signal.number(), signal.to_string()), (SIGUSR1, "SIGUSR1".to_owned()));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// * A signal that comes before `recv` stays pending. Several signals of one kind become one meanwhile, as everywhere
///   in Unix (those from `SIGRTMIN` on are counted).
/// * Several green threads may wait; the longest waiter gets the first signal. Of several `Signals` for one signal, in
///   one OS thread or many, one gets the signal.
/// * When the last `Signals` for a signal is dropped, a pending signal has its default effect.
/// * A `Signals` stays on its OS thread.
///
/// # Errors of the calls that wait
/// `Other` when the call would have to wait but the caller unwinds from a panic or kill, or the OS thread is ending.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. No signal is lost: a call that has taken one returns it.
#[derive(Debug)]
pub struct Signals {
    /// The signalfd, and the green threads that wait for signals.
    source: Source<SignalFd>,
    /// The numbers of the signals, each once.
    numbers: Box<[i32]>,
}

impl Signals {
    /// Blocks these signals, so that from now on they stay pending until they are received.
    ///
    /// # Errors
    /// `InvalidInput` for an empty list, for a number that is no signal, for SIGKILL and SIGSTOP, and for signals that
    /// say that the program is at fault, such as SIGSEGV. `EMFILE`, `ENFILE`.
    ///
    /// May switch: no.
    pub fn new(numbers: impl IntoIterator<Item = i32>) -> io::Result<Signals> {
        stay_inside("a signal")?;
        // Check the list before anything changes.
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
        // Block only once there is a descriptor, then count.
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
        Ok(Signals { source: Source::new(fd), numbers: numbers.into() })
    }

    /// Waits for a signal and returns it.
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

    /// Waits as [`recv`](Self::recv) does, but at most for `limit`; none if there was no signal by then.
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

    /// Returns a signal that is pending already, if there is one.
    ///
    /// # Errors
    /// None that the kernel documents.
    ///
    /// May switch: no.
    pub fn try_recv(&self) -> io::Result<Option<Signal>> {
        none_in_time(self.source.get().take().map(|taken| Signal { taken }))
    }

    /// Returns an endless iterator over [`recv`](Self::recv).
    ///
    /// May switch: no, but `next` of the iterator does.
    pub fn iter(&self) -> Iter<'_> {
        Iter { signals: self }
    }

    /// Waits for a signal, with a limit or without.
    fn receive(&self, limit: Option<Duration>) -> io::Result<Signal> {
        let taken = self.source.run(Direction::Read, limit, &mut SignalFd::take)?;
        Ok(Signal { taken })
    }
}

impl SelectRecv for Signals {
    type Arm<'s>
        = SignalArm<'s>
    where
        Self: 's;

    fn select_recv(&self) -> SignalArm<'_> {
        // Spending CPU credit may switch, so that happens before the arm has a result or a place in a wait list.
        self.source.spend_credit();
        SignalArm { signals: self, ready: ReadyArm::new(&self.source, Direction::Read), result: Cell::new(None) }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Unblock the signals that were blocked for this value and have no other user.
        let mut free = Vec::new();
        for &number in &self.numbers {
            let before = blocked(number);
            set_blocked(number, Blocked { users: before.users - 1, ..before });
            if before.users == 1 && before.ours {
                free.push(number);
            }
        }
        // Neither call fails for signals that could be blocked.
        let _ = SignalSet::new(&free).and_then(|set| set.unblock());
    }
}

/// Returns the state of a signal in this OS thread.
fn blocked(number: i32) -> Blocked {
    on_os_thread(|| BLOCKED.with(|blocked| blocked[number as usize].get()))
}

/// Changes the state of a signal in this OS thread.
fn set_blocked(number: i32, to: Blocked) {
    on_os_thread(|| BLOCKED.with(|blocked| blocked[number as usize].set(to)));
}

/// Turns `WouldBlock` into none.
fn none_in_time(result: io::Result<Signal>) -> io::Result<Option<Signal>> {
    match result {
        Ok(signal) => Ok(Some(signal)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// The endless iterator over signals that [`Signals::iter`] returns.
#[derive(Debug)]
pub struct Iter<'a> {
    /// The set that the signals come from.
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

/// The arm of a `select!` that receives a signal.
#[doc(hidden)]
pub struct SignalArm<'a> {
    /// The set that the signal comes from.
    signals: &'a Signals,
    /// The arm that waits until a signal is pending.
    ready: ReadyArm<'a>,
    /// The signal, for the owner of the arm.
    result: Cell<Option<io::Result<Signal>>>,
}

impl SelectArm for SignalArm<'_> {
    type Output = io::Result<Signal>;

    fn finish(self) -> io::Result<Signal> {
        match self.result.take() {
            Some(result) => result,
            // The wait failed before there was anything to receive.
            None => match self.ready.finish() {
                Err(error) => Err(error),
                Ok(()) => self.signals.recv(),
            },
        }
    }
}

impl Arm for SignalArm<'_> {
    fn try_select(&self) -> bool {
        if !self.ready.try_select() {
            return false;
        }
        match self.signals.source.get().take() {
            // Another `Signals` was faster.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready.not_ready();
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.try_select(),
            taken => self.result.set(Some(taken.map(|taken| Signal { taken }))),
        }
        true
    }

    fn register(&self, id: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        self.ready.register(id)
    }

    fn accept(&self) {
        self.ready.accept();
    }

    fn unregister(&self, end: ArmEnd) {
        self.ready.unregister(end);
    }

    fn is_descriptor(&self) -> bool {
        true
    }
}

impl fmt::Debug for SignalArm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalArm").finish_non_exhaustive()
    }
}

/// A signal that was received. `Display` shows the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What the kernel says of the signal.
    taken: Taken,
}

impl Signal {
    /// Returns the number, such as [`SIGTERM`].
    ///
    /// May switch: no.
    pub fn number(&self) -> i32 {
        self.taken.number
    }

    /// Returns the process that sent the signal, or the child that ended; none if the kernel sent the signal, as for
    /// Ctrl-C.
    ///
    /// May switch: no.
    pub fn sender(&self) -> Option<u32> {
        Some(self.taken.pid).filter(|pid| *pid != 0)
    }

    /// Returns the user that sent the signal; none if the kernel sent the signal.
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

/// The number of a signal, which shows as the name if there is one.
struct Name(i32);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Waits for Ctrl-C (SIGINT), which does not end the process meanwhile. A second Ctrl-C afterwards does, as always.
///
/// The wait for the signal begins with the call. A program that must not miss a Ctrl-C between two calls, or that has
/// more than one OS thread, makes a [`Signals`] when it starts.
///
/// ```
/// use std::time::Duration;
/// use greenling::{signal, timeout};
///
/// let pressed = timeout(Duration::from_millis(5), signal::ctrl_c);
/// assert!(pressed.is_err()); // there was no Ctrl-C
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
