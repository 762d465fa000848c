//! What stands in for the kernel in an OS thread that simulates: a virtual clock, a network and disks in memory; and
//! the error of what would leave the simulation.
//!
//! An OS thread that simulates does so from before its hub is made until it ends. Its clock is a cell of the hub, which
//! stands still until the hub moves it. An OS thread that does not simulate has the kernel's clock and the kernel's
//! sockets; for it, one load of a flag that is false in almost every process tells the two apart.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::fault::{Fault, FaultKind};
use super::file::unreadable;
use super::runtime_syscall::runtime_syscall;
use crate::pure::disk::{Disk, OpenId};
use crate::pure::lock::get_or_init;
use crate::pure::network::{HostId, LOCALHOST, Network, SocketId};
#[cfg(feature = "monkey")]
use crate::pure::random::Random;

/// The moment at which each virtual clock starts, in nanoseconds: a hundred years. No machine has run for so long, so
/// a smaller number is one of the kernel's clock.
pub(crate) const START: u64 = 100 * 365 * 24 * 3_600_000_000_000;

/// The time since 1970 at which each simulation begins: the first of January 2000, in UTC.
const EPOCH: u64 = 946_684_800_000_000_000;

/// Whether any OS thread of this process simulates, or did.
static ANY: AtomicBool = AtomicBool::new(false);

/// How a socket waits, as the program has set it.
#[cfg(feature = "monkey")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Modes {
    /// Whether calls fail with EAGAIN in place of waiting.
    pub(crate) nonblocking: bool,
    /// Whether `bind` lets several listeners share the address.
    pub(crate) reuse_port: bool,
    /// How long a call waits to receive, in nanoseconds; for ever if none.
    pub(crate) receive_limit: Option<u64>,
    /// The same for a call that sends or connects.
    pub(crate) send_limit: Option<u64>,
}

/// What the number of a placeholder stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The socket that calls on the number are for.
    pub(super) id: SocketId,
    /// Under which token it is watched.
    pub(super) token: Option<u64>,
    /// The place in the program that made it, if that is known.
    pub(super) made_at: Option<&'static Location<'static>>,
}

/// The network of a simulation, and the numbers of its sockets.
pub(crate) struct VirtualSockets {
    /// The network of the simulation.
    pub(crate) network: Network,
    /// The sockets by the numbers of their placeholders.
    pub(super) numbers: BTreeMap<RawFd, Entry>,
    /// How the sockets wait, by their tokens, where the program has said so.
    #[cfg(feature = "monkey")]
    pub(super) modes: BTreeMap<u64, Modes>,
    /// What each placeholder is a duplicate of, once there is one.
    original: Option<File>,
}

impl VirtualSockets {
    /// Makes a network without sockets, at a time in nanoseconds.
    pub(crate) fn new(now: u64, seed: u64) -> VirtualSockets {
        VirtualSockets {
            network: Network::new(now, seed),
            numbers: BTreeMap::new(),
            #[cfg(feature = "monkey")]
            modes: BTreeMap::new(),
            original: None,
        }
    }

    /// Begins anew. Descriptors that are left of before lead nowhere.
    pub(crate) fn restart(&mut self, now: u64, seed: u64) {
        self.network = Network::new(now, seed);
        self.numbers.clear();
        #[cfg(feature = "monkey")]
        self.modes.clear();
    }

    /// Makes a placeholder for a socket.
    pub(super) fn placeholder(&mut self, id: SocketId) -> io::Result<OwnedFd> {
        // No call of the program: with the feature `monkey`, the program's calls look at the sockets.
        let _own = runtime_syscall();
        let original = match &self.original {
            Some(original) => original,
            None => self.original.insert(File::open("/dev/null")?),
        };
        let fd: OwnedFd = original.try_clone()?.into();
        self.enter(fd.as_raw_fd(), id);
        Ok(fd)
    }

    /// Makes a number lead to a socket.
    pub(super) fn enter(&mut self, number: RawFd, id: SocketId) {
        let entry = Entry { id, token: None, made_at: None };
        if let Some(old) = self.numbers.insert(number, entry) {
            self.network.close(old.id);
        }
    }
}

/// The disks of a simulation, and the numbers of its open files.
#[derive(Default)]
pub(crate) struct VirtualFiles {
    /// The disks that were used, by host.
    pub(super) disks: BTreeMap<HostId, Disk>,
    /// The open files by the numbers of their placeholders, with the hosts of their disks.
    pub(super) numbers: BTreeMap<RawFd, (HostId, OpenId)>,
    /// What each placeholder is a duplicate of, once there is one.
    original: Option<File>,
}

impl VirtualFiles {
    /// Begins anew. Descriptors that are left of before lead nowhere.
    pub(crate) fn restart(&mut self) {
        self.disks.clear();
        self.numbers.clear();
    }

    /// Makes a placeholder for an open file.
    pub(super) fn placeholder(&mut self, host: HostId, id: OpenId) -> io::Result<OwnedFd> {
        let original = match &self.original {
            Some(original) => original,
            None => self.original.insert(unreadable()?),
        };
        let fd: OwnedFd = original.try_clone()?.into();
        self.enter(fd.as_raw_fd(), host, id);
        Ok(fd)
    }

    /// Makes a number lead to an open file.
    pub(super) fn enter(&mut self, number: RawFd, host: HostId, id: OpenId) {
        // What was left under a number that the program has closed by itself.
        if let Some((host, old)) = self.numbers.insert(number, (host, id))
            && let Some(disk) = self.disks.get_mut(&host)
        {
            disk.close(old);
        }
    }
}

/// A function that says which of the possible faults happens now, if one does.
type Chance = fn(&[FaultKind]) -> Option<Fault>;

/// What an OS thread that simulates has in place of the kernel.
pub(crate) struct Simulated {
    /// The virtual clock, in nanoseconds.
    pub(crate) clock: Cell<u64>,
    /// The network, and which descriptors stand for which of its sockets.
    pub(crate) sockets: RefCell<VirtualSockets>,
    /// The disks, and which descriptors stand for which of their files.
    pub(crate) files: RefCell<VirtualFiles>,
    /// Says which host the running thread is on.
    host: Cell<fn() -> HostId>,
    /// Says which of the possible faults happens to the running thread now, if one does.
    chance: Cell<Chance>,
    /// Whether the latest call that asked was told to try again.
    is_repeated: Cell<bool>,
    /// The random bytes of patched calls.
    #[cfg(feature = "monkey")]
    random: RefCell<Random>,
    /// Whether the run has drawn some.
    #[cfg(feature = "monkey")]
    drawn: Cell<bool>,
}

impl Simulated {
    /// Makes a clock that is at its start, and a network with one host.
    pub(crate) fn new() -> Simulated {
        let sockets = RefCell::new(VirtualSockets::new(START, 0));
        let (host, chance) = (Cell::new((|| LOCALHOST) as _), Cell::new((|_| None) as Chance));
        let (files, is_repeated) = (RefCell::default(), Cell::new(false));
        Simulated {
            clock: Cell::new(START),
            sockets,
            files,
            host,
            chance,
            is_repeated,
            #[cfg(feature = "monkey")]
            random: RefCell::new(Random::new(0)),
            #[cfg(feature = "monkey")]
            drawn: Cell::new(false),
        }
    }

    /// Begins a run, of which everything random comes from `seed`. The clock is set by the hub.
    pub(crate) fn restart(&self, seed: u64) {
        // Other streams than those of the choices and of the program's own random numbers.
        self.sockets.borrow_mut().restart(START, seed.rotate_left(32));
        #[cfg(feature = "monkey")]
        {
            self.random.replace(Random::new(!seed.rotate_left(16)));
            self.drawn.set(false);
        }
    }

    /// Fills `bytes` at random, as the seed says.
    #[cfg(feature = "monkey")]
    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        self.drawn.set(true);
        let mut random = self.random.borrow_mut();
        for chunk in bytes.chunks_mut(size_of::<u64>()) {
            chunk.copy_from_slice(&random.next().to_ne_bytes()[..chunk.len()]);
        }
    }

    /// Reports whether the run has drawn random bytes. What the code of the run has seeded with them, once for its OS
    /// thread, another run must not find.
    pub(crate) fn has_drawn(&self) -> bool {
        #[cfg(feature = "monkey")]
        return self.drawn.get();
        #[cfg(not(feature = "monkey"))]
        false
    }

    /// Sets what says which host the running thread is on.
    pub(crate) fn ask_for_host(&self, host: fn() -> HostId) {
        self.host.set(host);
    }

    /// Sets what says whether something goes wrong.
    pub(crate) fn ask_for_faults(&self, chance: Chance) {
        self.chance.set(chance);
        self.is_repeated.set(false);
    }

    /// Returns which of the `possible` faults happens to the calling call, if one does. It is not told twice in a row
    /// to try again, so that a loop of tries ends however likely the faults are.
    pub(super) fn fault(&self, possible: &[FaultKind]) -> Option<Fault> {
        let repeats = |kind: FaultKind| matches!(kind, FaultKind::Interrupted | FaultKind::WouldBlock);
        let repeated = self.is_repeated.take();
        let left: Vec<FaultKind> = possible.iter().copied().filter(|kind| !(repeated && repeats(*kind))).collect();
        let fault = if left.is_empty() { None } else { self.chance.get()(&left) };
        self.is_repeated.set(fault.is_some_and(|fault| repeats(fault.kind)));
        fault
    }

    /// Fails if one of the `possible` faults happens to the calling call.
    pub(super) fn may_fail(&self, possible: &[FaultKind]) -> io::Result<()> {
        self.fault(possible).map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// Returns the time of day, in nanoseconds since 1970.
    pub(crate) fn time_of_day(&self) -> u64 {
        EPOCH.saturating_add(self.clock.get().saturating_sub(START))
    }

    /// Returns the host of the running thread.
    pub(crate) fn host(&self) -> HostId {
        self.host.get()()
    }
}

thread_local! {
    /// What this OS thread has in place of the kernel, or this green thread's own thread-locals; `None` for the kernel.
    /// Has no destructor, so it can always be read.
    static SIMULATED: Cell<Option<&'static Simulated>> = const { Cell::new(None) };
}

/// Makes `simulated` what the code under the loaded thread pointer has from now on; `None` for the kernel.
pub(crate) fn follow(simulated: Option<&'static Simulated>) {
    if simulated.is_some() {
        // Relaxed: this OS thread sees its own store, and others have no virtual clock to find.
        ANY.store(true, Ordering::Relaxed);
    }
    SIMULATED.set(simulated);
}

/// Returns what stands in for the kernel; `None` where that is the kernel.
#[inline(always)]
pub(crate) fn simulated() -> Option<&'static Simulated> {
    // Relaxed: as in `follow`.
    if ANY.load(Ordering::Relaxed) { simulated_here() } else { None }
}

/// Does the work of [`simulated`] in a process that simulates, or did.
#[cold]
#[inline(never)]
fn simulated_here() -> Option<&'static Simulated> {
    SIMULATED.get()
}

/// Returns the time of the virtual clock, in nanoseconds; `None` where the kernel's clock is read.
#[inline(always)]
pub(crate) fn virtual_ns() -> Option<u64> {
    simulated().map(|simulated| simulated.clock.get())
}

/// Returns the error of a call that would leave the simulation; `what` names what it asks for. None outside.
///
/// # Errors
/// `Unsupported`, in a simulation.
pub(crate) fn stay_inside(what: &str) -> io::Result<()> {
    if virtual_ns().is_none() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("greenling: {what} is outside of the simulation")))
}

/// Returns the `Instant` that stands for [`START`] in this process: where std's calls arrive in this crate, the one
/// that std makes at that time of a virtual clock.
fn anchor() -> Instant {
    static ANCHOR: OnceLock<Instant> = OnceLock::new();
    *get_or_init(&ANCHOR, || {
        #[cfg(feature = "monkey")]
        if let Some(start) = stds_start() {
            return start;
        }
        // A hundred years after a moment of now: the kernel's clock will not come near.
        Instant::now() + Duration::from_nanos(START)
    })
}

#[cfg(feature = "monkey")]
thread_local! {
    /// Whether the next reading of a clock by std has the answer [`START`].
    static ASKS_FOR_START: Cell<bool> = const { Cell::new(false) };
}

/// Returns what std makes of the time [`START`] of its clock; none if it does not read that through this crate.
#[cfg(feature = "monkey")]
fn stds_start() -> Option<Instant> {
    // So that the reading looks here. Relaxed: as in `follow`.
    ANY.store(true, Ordering::Relaxed);
    ASKS_FOR_START.set(true);
    let now = Instant::now();
    (!ASKS_FOR_START.take()).then_some(now)
}

/// Returns the time to which a clock is to be, if the reading is for [`anchor`].
#[cfg(feature = "monkey")]
#[inline(always)]
pub(crate) fn take_asked_start() -> Option<u64> {
    // Relaxed: as in `follow`.
    (ANY.load(Ordering::Relaxed) && ASKS_FOR_START.take()).then_some(START)
}

/// Returns the `Instant` of a virtual time.
pub(crate) fn instant_of(ns: u64) -> Instant {
    anchor() + Duration::from_nanos(ns.saturating_sub(START))
}

/// Converts a point in time to virtual nanoseconds. `None` for a point of the kernel's clock.
pub(crate) fn virtual_of(at: Instant) -> Option<u64> {
    // The years before the anchor belong to the kernel's clock, but for what a program has subtracted.
    const MARGIN: Duration = Duration::from_nanos(START / 2);
    // The farthest points in time are beyond the range of both.
    let Some(late) = at.checked_add(MARGIN) else { return Some(u64::MAX) };
    let since = late.checked_duration_since(anchor())?;
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    Some(nanos.saturating_add(START - START / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_time_is_an_instant_and_back() {
        for ns in [START, START + 1, START + 3_600_000_000_000, START * 2] {
            assert_eq!(virtual_of(instant_of(ns)), Some(ns));
        }
        assert_eq!(virtual_of(instant_of(START) - Duration::from_secs(1)), Some(START - 1_000_000_000));
        assert_eq!(virtual_of(Instant::now() + Duration::from_secs(3600)), None);
    }

    #[test]
    fn the_kernels_clock_is_read_where_nothing_simulates() {
        assert_eq!(virtual_ns(), None);
        assert!(stay_inside("a socket").is_ok());
        std::thread::spawn(|| {
            follow(Some(Box::leak(Box::new(Simulated::new()))));
            assert_eq!(virtual_ns(), Some(START));
            let error = stay_inside("a socket").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            follow(None);
            assert_eq!(virtual_ns(), None);
        })
        .join()
        .unwrap();
    }
}
