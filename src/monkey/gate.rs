//! The gate of all patched calls: the right to wait in the hub, and the ends of a wait below C code.
//!
//! ```text
//!   recv(..)    [green]  part not patched, no hub, runtime call, signal handler, no_switch --> the kernel alone
//!      |
//!   try, without waiting -- done --> [pay] perhaps let others run --> return
//!      | EAGAIN, and the file is blocking (the kernel is asked before, or after: see `stream.rs`)
//!   [blocking] [wait] park --+-- ready --> try again
//!                            +-- time is over ------------> EAGAIN
//!                            +-- killed ------------------> ECANCELED   \
//!                            +-- `timeout` scope expired -> ETIMEDOUT    > unwinds up to `blocking`, no further
//!                            +-- deadlock ----------------> EDEADLK     /
//! ```
//!
//! * Invariant monkey-2: no unwinding leaves a function that C or `std` calls: they declare these functions as ones
//!   that cannot unwind. Upheld by [`blocking`]: all code that may park runs inside.
//! * Invariant monkey-3: a kill that ended a call this way is still due. The next call that would wait raises the kill
//!   again; native calls unwind.
#![forbid(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::runtime::caller::Caller;
use crate::runtime::checkpoint::{charge, give_way, pay, spend_credit, spent_credit};
use crate::runtime::hub::{Hub, existing_hub};
use crate::runtime::park::{Counted, Wake};
use crate::runtime::reactor::Direction;
use crate::runtime::virtual_wait::VirtualWait;
use crate::runtime::watch::{TRUST_WINDOW, Watching};
use crate::switch::budget::IO_CREDIT;
use crate::switch::cancel::{ScopeExpired, clear_unwinding, is_control, obstacle};
use crate::switch::fiber::Reason;
use crate::switch::pending;
use crate::switch::root::{Root, existing_root};
use crate::sys::allocator;
use crate::sys::clock::NEVER;
use crate::sys::epoll::Interest;
use crate::sys::numbers::{NumberedFile, Stamp};
use crate::sys::raw::{Answer, EAGAIN, EBADF, ECANCELED, EDEADLK, EINTR, ETIMEDOUT, errno, set_errno};
use crate::sys::runtime_syscall::is_runtime_syscall;
use crate::sys::simulation::{self, Simulated};
use crate::sys::virtual_calls::Called;

/// The bits of [`PATCHED`], one for each part.
pub(super) mod part {
    /// The calls on sockets and pipes.
    pub(crate) const NET: u32 = 1;
    /// The calls that sleep.
    pub(crate) const SLEEP: u32 = 2;
    /// The lookup of names.
    pub(crate) const DNS: u32 = 4;
    /// The calls poll, select, epoll_wait.
    pub(crate) const POLL: u32 = 8;
    /// The calls that wait for children.
    pub(crate) const PROCESS: u32 = 16;
    /// The locks of files.
    pub(crate) const FILES: u32 = 32;
    /// The locks of `std` and C.
    pub(crate) const LOCKS: u32 = 64;
    /// The creation of threads.
    pub(crate) const THREADS: u32 = 128;
    /// The calls that return random bytes.
    pub(crate) const RANDOM: u32 = 256;
    /// Not a part: set while the allocator is tried out, so that it is noted which locks it takes.
    pub(crate) const ALLOCATOR: u32 = 1 << 30;
    /// Not a part: set while `verify` checks whether calls arrive here at all.
    pub(crate) const PROBE: u32 = 1 << 31;
}

/// The parts that are patched. Relaxed everywhere: the bits guard no data, and a call during a change may go either
/// way.
static PATCHED: AtomicU32 = AtomicU32::new(0);

/// Whether a call has arrived since `PROBE` was set.
static ARRIVED: AtomicBool = AtomicBool::new(false);

/// Patches `parts`, and returns those that were patched before.
pub(super) fn patch(parts: u32) -> u32 {
    PATCHED.fetch_or(parts, Ordering::Relaxed)
}

/// Returns the parts that are patched.
pub(super) fn patched() -> u32 {
    PATCHED.load(Ordering::Relaxed)
}

/// Reports whether a call that `probe` makes arrives here. A call of another OS thread meanwhile also counts as one.
/// One caller at a time.
pub(super) fn arrives(probe: impl FnOnce()) -> bool {
    ARRIVED.store(false, Ordering::Relaxed);
    PATCHED.fetch_or(part::PROBE, Ordering::Relaxed);
    probe();
    PATCHED.fetch_and(!part::PROBE, Ordering::Relaxed);
    ARRIVED.load(Ordering::Relaxed)
}

/// Finds out what the allocators do to C's locks. One caller at a time.
///
/// # Errors
/// Those of [`allocator::try_out`].
pub(super) fn try_allocators() -> std::io::Result<allocator::Locks> {
    PATCHED.fetch_or(part::ALLOCATOR, Ordering::Relaxed);
    let locks = allocator::try_out();
    PATCHED.fetch_and(!part::ALLOCATOR, Ordering::Relaxed);
    locks
}

/// The right to wait in the hub of this OS thread.
#[derive(Clone, Copy)]
pub(super) struct Green {
    /// The root of this OS thread.
    root: &'static Root,
    /// The hub of this OS thread.
    hub: &'static Hub,
}

/// Returns the right to wait in the hub, if the caller has it: the part is patched, the OS thread has a hub, and
/// nothing forbids a switch. A caller that unwinds has the right, but [`Green::wait`] returns an error.
#[inline(always)]
pub(super) fn green(part: u32) -> Option<Green> {
    // The usual cases: not patched, or no root on this OS thread.
    let patched = PATCHED.load(Ordering::Relaxed);
    if patched & (part | part::PROBE) == 0 || patched & part::PROBE == 0 && existing_root().is_none() {
        return None;
    }
    green_slow(part)
}

/// Answers [`green`] in a program that is patched, on an OS thread that has or had a hub.
#[inline(never)]
fn green_slow(part: u32) -> Option<Green> {
    let patched = PATCHED.load(Ordering::Relaxed);
    if patched & part::PROBE != 0 {
        ARRIVED.store(true, Ordering::Relaxed);
    }
    // A hub, and nothing that forbids a switch.
    let hub = existing_hub()?;
    let root = hub.root();
    let section = root.current().pending.has(pending::NO_SWITCH | pending::FORKED);
    (patched & part != 0 && !is_runtime_syscall() && !section).then_some(Green { root, hub })
}

/// Returns what stands in for the kernel in calls of `part`; none for the kernel: the OS thread does not simulate, the
/// part is not patched, or the call is the runtime's.
#[inline(always)]
pub(super) fn simulated(part: u32) -> Option<&'static Simulated> {
    simulation::simulated().filter(|_| is_programs_call(part))
}

/// Answers [`simulated`] in an OS thread that simulates.
#[cold]
#[inline(never)]
fn is_programs_call(part: u32) -> bool {
    patched() & part != 0 && !is_runtime_syscall()
}

/// Returns the hub of this OS thread, for calls that wake and never wait.
#[inline]
pub(super) fn hub_here() -> Option<(&'static Root, &'static Hub)> {
    existing_hub().map(|hub| (hub.root(), hub))
}

/// The event that a call on a socket waits for.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// The file that the call began with.
    pub(super) file: NumberedFile,
    /// The direction of the call.
    pub(super) direction: Direction,
    /// The events of epoll.
    pub(super) interest: Interest,
    /// The reason that reports print.
    pub(super) reason: Reason,
}

/// What the kernel has said before a wait: the file blocks, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Verified {
    /// The stamp of the number from before the kernel was asked.
    pub(super) before: Stamp,
    /// When the call began to wait, in monotonic nanoseconds.
    pub(super) begin: u64,
    /// The time at which the socket ends the wait.
    pub(super) deadline: u64,
}

/// Fails with EBADF if the number of `file` was closed or means another file by now.
fn same(file: NumberedFile) -> Result<(), i32> {
    if file.has_its_number() { Ok(()) } else { Err(EBADF) }
}

/// Returns the errno of an error of the kernel.
fn os_error(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(EINTR)
}

impl Green {
    /// Returns the caller, for a wait.
    #[inline(always)]
    pub(super) fn caller(self) -> Caller {
        Caller::new(self.root, self.hub)
    }

    /// Waits until `file` is ready for `interest`, or until `deadline` in monotonic nanoseconds. May end early. The
    /// caller has taken `file` before its first attempt, so that all attempts are for one file.
    ///
    /// # Errors
    /// EBADF if the number was closed; EAGAIN at the deadline; ECANCELED if the caller unwinds; the errors of the
    /// kernel for the number.
    ///
    /// # Panics
    /// As [`Caller::park`]: call it inside [`blocking`] (monkey-2).
    pub(super) fn wait(self, file: NumberedFile, interest: Interest, reason: Reason, deadline: u64) -> Result<(), i32> {
        if obstacle().is_some() {
            return Err(ECANCELED);
        }
        let me = self.root.current();
        let _watching = self.hub.watcher().watch(file.fd, me, interest, false).map_err(os_error)?;
        // A close from now on wakes the caller: see `numbers::note_watcher`.
        same(file)?;
        let _counted = Counted::in_count(&self.hub.reactor().waiting);
        let waited = self.park_until(reason, deadline);
        same(file)?;
        waited
    }

    /// Waits as [`wait`](Self::wait) does, until one of several descriptors is ready. Ignores descriptors that epoll
    /// cannot watch. A number that is closed meanwhile ends the wait.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), but for EBADF; EPERM if there is only one descriptor, and epoll cannot watch that.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub(super) fn wait_all(
        self,
        fds: &mut dyn Iterator<Item = (RawFd, Interest)>,
        reason: Reason,
        deadline: u64,
    ) -> Result<(), i32> {
        if obstacle().is_some() {
            return Err(ECANCELED);
        }
        let me = self.root.current();
        let watcher = self.hub.watcher();
        let watch = |(fd, interest)| watcher.watch(fd, me, interest, false).map_err(os_error);
        // The first descriptor apart: most calls have only one, and need no allocation.
        let (first, mut others) = match fds.next() {
            Some(first) => (Some(watch(first)), Vec::new()),
            None => (None, Vec::new()),
        };
        others.extend(fds.map(watch));
        if let Some(Err(error)) = first
            && others.is_empty()
        {
            return Err(error);
        }
        let _counted = first.is_some().then(|| Counted::in_count(&self.hub.reactor().waiting));
        self.park_until(reason, deadline)
    }

    /// Waits until `is_over`, which is asked at the beginning and then each time that `fd` is readable. Nothing else
    /// ends the wait.
    ///
    /// # Errors
    /// Those of the kernel for the number; the wait is not over then.
    pub(super) fn wait_uninterrupted(
        self,
        fd: &OwnedFd,
        reason: Reason,
        is_over: &mut dyn FnMut() -> bool,
    ) -> std::io::Result<()> {
        loop {
            // A watch is good for one wake-up: another OS thread may have closed an earlier file of this number, and
            // told this hub only now, which ends the watch.
            let _watching = self.hub.watcher().watch(fd.as_raw_fd(), self.root.current(), Interest::IN, false)?;
            if is_over() {
                return Ok(());
            }
            let _counted = Counted::in_count(&self.hub.reactor().waiting);
            self.caller().park_uninterrupted(reason, NEVER);
        }
    }

    /// Waits as [`wait`](Self::wait) does, until one of several simulated sockets is ready.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), but for those of the kernel.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub(super) fn wait_simulated(
        self,
        sockets: &mut dyn Iterator<Item = (Called, Interest)>,
        reason: Reason,
        deadline: u64,
    ) -> Result<(), i32> {
        if obstacle().is_some() {
            return Err(ECANCELED);
        }
        let (hub, me) = (self.hub, self.root.current());
        let waits: Vec<_> = sockets.map(|(socket, interest)| VirtualWait::new(hub, socket, me, interest)).collect();
        let _counted = (!waits.is_empty()).then(|| Counted::in_count(&hub.reactor().waiting));
        self.park_until(reason, deadline)
    }

    /// Lets others go first, if the schedule of the simulation says so, before a call on a simulated socket.
    ///
    /// # Errors
    /// ECANCELED or ETIMEDOUT, if the caller was killed or timed out.
    pub(super) fn begin_simulated(self) -> Result<(), i32> {
        blocking(spend_credit)
    }

    /// Waits as [`wait`](Self::wait) does, for a socket, on which the program will as a rule wait again. The kernel has
    /// confirmed that the file blocks.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub(super) fn wait_verified(self, target: Target, asked: Verified) -> Result<(), i32> {
        if obstacle().is_some() {
            return Err(ECANCELED);
        }
        // Arm the number, tell the reactor that the kernel was asked, and park.
        let watcher = self.hub.watcher();
        let watching = watcher.watch(target.file.fd, self.root.current(), target.interest, true).map_err(os_error)?;
        watching.note_verified(asked.before);
        same(target.file)?;
        let _counted = Counted::in_count(&self.hub.reactor().waiting);
        let waited = self.park_until(target.reason, asked.deadline);
        same(target.file)?;
        waited?;
        // How long it took decides whether the next wait trusts what is known.
        let span = self.root.clock.get().saturating_sub(asked.begin);
        watching.note_duration(target.direction, span, asked.deadline.saturating_sub(asked.begin));
        Ok(())
    }

    /// Returns the right to wait for `target` without asking the kernel; none if too little is known of the number.
    pub(super) fn trust(self, target: Target) -> Option<TrustedWait> {
        let me = self.root.current();
        let watching = self.hub.watcher().watch_trusting(target.file.fd, me, target.interest, target.direction)?;
        Some(TrustedWait { green: self, target, watching })
    }

    /// Parks until a wake or `deadline`. The events are arranged before.
    fn park_until(self, reason: Reason, deadline: u64) -> Result<(), i32> {
        let caller = self.caller();
        let woken = caller.park(reason, deadline);
        caller.fiber.io_credit.set(IO_CREDIT);
        match woken {
            Ok(Wake::Woken) => Ok(()),
            Ok(Wake::TimedOut) => Err(EAGAIN),
            Err(_) => Err(ECANCELED),
        }
    }

    /// Reports whether the queue of `fd` is known to be empty. Returns false to a caller that must not wait or would be
    /// killed by the wait: the knowledge is as old as the last poll, and the caller may never poll again.
    #[inline]
    pub(super) fn is_known_empty(self, fd: RawFd) -> bool {
        self.hub.watcher().is_known_empty(fd) && !self.root.current().pending.any() && obstacle().is_none()
    }

    /// Records that a read of `fd` returned `n` bytes and had room for `len`. Call this before anything else runs.
    #[inline]
    pub(super) fn note_read(self, fd: RawFd, n: usize, len: usize) {
        if n > 0 && n < len {
            self.hub.watcher().note_short_read(fd);
        }
    }

    /// Sleeps until `deadline`. A kill, an expired `timeout` scope and an unwinding caller end the sleep early.
    pub(super) fn sleep(self, deadline: u64) {
        let sleep_once = || match self.caller().park(Reason::Sleep, deadline) {
            Ok(Wake::Woken) => true,
            Ok(Wake::TimedOut) | Err(_) => false,
        };
        while blocking(sleep_once) == Ok(true) {}
    }

    /// Charges a call that ends with `answer`, and gives way if the caller's credit is spent. Call this when the
    /// operation is done: the result is safe, and a kill that is raised meanwhile stays due.
    #[inline]
    pub(super) fn pay(self, answer: Answer) -> Answer {
        // Results that are no number of bytes are small.
        charge(answer.unwrap_or(0));
        if spent_credit() {
            let _ = blocking(|| pay(self.root, self.root.current()));
        }
        answer
    }

    /// Reports whether no other green thread can run now.
    pub(super) fn is_alone(self) -> bool {
        self.root.runnable() == 0
    }

    /// Lets other runnable green threads go first. A kill or an expired `timeout` scope stays due.
    pub(super) fn give_way(self) {
        let _ = blocking(|| give_way(self.root, self.root.current()));
    }
}

/// The right to wait for a socket without asking the kernel.
pub(super) struct TrustedWait {
    /// The right to wait in the hub.
    green: Green,
    /// The event to wait for.
    target: Target,
    /// The registration as a waiter.
    watching: Watching<'static>,
}

impl TrustedWait {
    /// Waits as [`Green::wait_verified`] does, until [`TRUST_WINDOW`] after `begin` at most.
    ///
    /// # Errors
    /// As [`Green::wait`]; EAGAIN when it is time to ask the kernel.
    ///
    /// # Panics
    /// As [`Green::wait`].
    pub(super) fn wait(self, begin: u64) -> Result<(), i32> {
        if obstacle().is_some() {
            return Err(ECANCELED);
        }
        same(self.target.file)?;
        let _counted = Counted::in_count(&self.green.hub.reactor().waiting);
        let result = self.green.park_until(self.target.reason, begin.saturating_add(TRUST_WINDOW));
        if result == Err(EAGAIN) {
            self.watching.note_duration(self.target.direction, TRUST_WINDOW, NEVER);
        }
        same(self.target.file)?;
        result
    }
}

/// Runs code that may park, and turns an unwinding into an errno (monkey-2).
pub(super) fn blocking<R>(f: impl FnOnce() -> R) -> Result<R, i32> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        if let Some(root) = existing_root() {
            clear_unwinding(root.current());
        }
        let errno = match &payload {
            payload if payload.is::<ScopeExpired>() => ETIMEDOUT,
            payload if is_control(&**payload) => ECANCELED,
            // The only other payload is the report of a deadlock, which the panic hook has printed.
            _ => EDEADLK,
        };
        // All of these are types of the runtime, of which the drop does not panic.
        drop(payload);
        errno
    })
}

/// Converts `answer` to the result of a function that reports by errno. On success, restores the errno `before`.
#[inline]
pub(super) fn finish(before: i32, answer: Answer) -> isize {
    match answer {
        Ok(value) => {
            // The runtime's own system calls may have changed errno meanwhile; a success must not.
            set_errno(before);
            value as isize
        }
        Err(error) => {
            set_errno(error);
            -1
        }
    }
}

/// Converts `answer` as [`finish`] does, for calls that went to the kernel as they came: on success errno is unchanged.
#[inline(always)]
pub(super) fn pass(answer: Answer) -> isize {
    match answer {
        Ok(value) => value as isize,
        Err(error) => refuse(error) as isize,
    }
}

/// Sets errno to `error`, and returns -1.
#[cold]
#[inline(never)]
pub(super) fn refuse(error: i32) -> c_int {
    set_errno(error);
    -1
}

/// Returns the errno at the entry of a call.
#[inline]
pub(super) fn saved_errno() -> i32 {
    errno()
}
