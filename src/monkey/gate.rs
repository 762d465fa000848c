//! Who may wait in the hub, and how a wait ends that C code is in the middle of.
//!
//! ```text
//!   recv(..)    [green]  part not patched, no hub here, own call, signal handler, no_switch --> the kernel alone
//!      |
//!   try, without waiting -- done --> [pay] perhaps let others run --> return
//!      | EAGAIN, and the program believes that the file blocks (which is asked before, or after: see `stream.rs`)
//!   [blocking] [wait] park --+-- ready --> try again
//!                            +-- time is over ------------> EAGAIN
//!                            +-- killed ------------------> ECANCELED   \
//!                            +-- `timeout` scope expired -> ETIMEDOUT    > unwinds up to `blocking`, no further
//!                            +-- deadlock ----------------> EDEADLK     /
//! ```
//!
//! * Invariant M2: no unwinding leaves a function that C or `std` calls: they declare it as one that cannot unwind. Upheld
//!   by [`blocking`], in which everything stands that may park.
//! * Invariant M3: a kill that ended a call this way is still due, and is raised by the next call that would wait; native
//!   calls unwind from it.
#![forbid(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::runtime::hub::{Hub, existing_hub_of};
use crate::runtime::park::{Counted, NEVER, Wake, park};
use crate::runtime::reactor::Direction;
use crate::runtime::source::{give_way, spent_credit};
use crate::runtime::watch::{BELIEF, Watching};
use crate::switch::cancel::{ScopeExpired, calm, is_control, obstacle};
use crate::switch::fiber::{Reason, attention};
use crate::switch::root::{Root, existing_root};
use crate::sys::epoll::Interest;
use crate::sys::numbers::Stamp;
use crate::sys::own::is_own;
use crate::sys::raw::{Answer, EAGAIN, ECANCELED, EDEADLK, EINTR, ETIMEDOUT, errno, set_errno};

/// Bits of [`PATCHED`].
pub(super) mod part {
    /// Sockets and pipes.
    pub(crate) const NET: u32 = 1;
    /// Sleeping.
    pub(crate) const SLEEP: u32 = 2;
    /// Names.
    pub(crate) const DNS: u32 = 4;
    /// poll, select, epoll_wait.
    pub(crate) const POLL: u32 = 8;
    /// Waiting for children.
    pub(crate) const PROCESS: u32 = 16;
    /// Locks of files.
    pub(crate) const FILES: u32 = 32;
    /// Not a part: `verify` looks whether calls arrive here at all.
    pub(crate) const PROBE: u32 = 1 << 31;
}

/// What is patched. Relaxed everywhere: it guards no data, and a call that comes while it changes may go either way.
static PATCHED: AtomicU32 = AtomicU32::new(0);

/// Set by a call that arrives while `PROBE` is.
static ARRIVED: AtomicBool = AtomicBool::new(false);

/// Adds parts; says which were there before.
pub(super) fn patch(parts: u32) -> u32 {
    PATCHED.fetch_or(parts, Ordering::Relaxed)
}

/// Which parts are patched.
pub(super) fn patched() -> u32 {
    PATCHED.load(Ordering::Relaxed)
}

/// Whether a call that `probe` makes arrives here. Calls of other OS threads meanwhile can only make it true. One caller at
/// a time.
pub(super) fn arrives(probe: impl FnOnce()) -> bool {
    ARRIVED.store(false, Ordering::Relaxed);
    PATCHED.fetch_or(part::PROBE, Ordering::Relaxed);
    probe();
    PATCHED.fetch_and(!part::PROBE, Ordering::Relaxed);
    ARRIVED.load(Ordering::Relaxed)
}

/// The right to wait in the hub.
#[derive(Clone, Copy)]
pub(super) struct Green {
    /// This OS thread's root.
    root: &'static Root,
    /// Its hub.
    hub: &'static Hub,
}

/// The right to wait in the hub, if the caller has it: this part is patched, the OS thread has a hub, and nothing forbids
/// to switch. While the caller unwinds it has it still, and [`Green::wait`] is an error.
#[inline(always)]
pub(super) fn green(part: u32) -> Option<Green> {
    let patched = PATCHED.load(Ordering::Relaxed);
    if patched & (part | part::PROBE) == 0 || patched & part::PROBE == 0 && existing_root().is_none() {
        return None;
    }
    green_slow(part)
}

/// [`green`] in a program that is patched, on an OS thread that has or had a hub.
#[inline(never)]
fn green_slow(part: u32) -> Option<Green> {
    let patched = PATCHED.load(Ordering::Relaxed);
    if patched & part::PROBE != 0 {
        ARRIVED.store(true, Ordering::Relaxed);
    }
    let root = existing_root()?;
    let hub = existing_hub_of(root)?;
    let section = root.current().attention.get() & (attention::NO_SWITCH | attention::FORKED) != 0;
    (patched & part != 0 && !is_own() && !section).then_some(Green { root, hub })
}

/// This OS thread's hub, for calls that wake and never wait.
#[inline]
pub(super) fn hub_here() -> Option<(&'static Root, &'static Hub)> {
    let root = existing_root()?;
    Some((root, existing_hub_of(root)?))
}

/// What a call on a socket waits for.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// The descriptor.
    pub(super) fd: RawFd,
    /// Reading, or writing.
    pub(super) direction: Direction,
    /// For which events.
    pub(super) interest: Interest,
    /// What reports say.
    pub(super) reason: Reason,
}

/// What the kernel was asked before a wait: the file blocks, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// The stamp of the number from before the questions.
    pub(super) before: Stamp,
    /// When the call began to wait, in monotonic nanoseconds.
    pub(super) begin: u64,
    /// Until when the socket lets it wait.
    pub(super) deadline: u64,
}

/// The errno of an error of the kernel's.
fn os_error(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(EINTR)
}

impl Green {
    /// Waits until `fd` is ready for `interest`, or until `deadline` in monotonic nanoseconds. May end early.
    ///
    /// # Errors
    /// EAGAIN at the deadline; ECANCELED if the caller unwinds; what the kernel says of the number.
    ///
    /// # Panics
    /// As [`park`]: call it inside [`blocking`] (M2).
    pub(super) fn wait(self, fd: RawFd, interest: Interest, reason: Reason, deadline: u64) -> Result<(), i32> {
        self.wait_all(&mut std::iter::once((fd, interest)), reason, deadline)
    }

    /// [`wait`](Self::wait) until one of several is ready. Numbers of a kind that cannot be waited for are left out.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); EPERM if there is only one, and it cannot be waited for.
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
        let reactor = self.hub.reactor();
        let watch = |(fd, interest)| reactor.watch(fd, me, interest, false).map_err(os_error);
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
        let _counted = first.is_some().then(|| Counted::in_count(&reactor.waiting));
        self.rest(reason, deadline)
    }

    /// [`wait`](Self::wait) for a socket, whose user will as a rule wait for it again. The kernel has been `asked`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub(super) fn wait_asked(self, target: Target, asked: Asked) -> Result<(), i32> {
        if obstacle().is_some() {
            return Err(ECANCELED);
        }
        let reactor = self.hub.reactor();
        let watching = reactor.watch(target.fd, self.root.current(), target.interest, true).map_err(os_error)?;
        watching.asked(asked.before);
        let _counted = Counted::in_count(&reactor.waiting);
        self.rest(target.reason, asked.deadline)?;
        let span = self.root.clock.get().saturating_sub(asked.begin);
        watching.took(target.direction, span, asked.deadline.saturating_sub(asked.begin));
        Ok(())
    }

    /// The right to wait for `target` without asking; none if too little is known of the number.
    pub(super) fn believe(self, target: Target) -> Option<Believing> {
        let me = self.root.current();
        let watching = self.hub.reactor().watch_believing(target.fd, me, target.interest, target.direction)?;
        Some(Believing { green: self, target, watching })
    }

    /// Parks until `deadline`, when everything is arranged.
    fn rest(self, reason: Reason, deadline: u64) -> Result<(), i32> {
        match park(self.root, self.hub, self.root.current(), reason, deadline) {
            Ok(Wake::Woken) => Ok(()),
            Ok(Wake::TimedOut) => Err(EAGAIN),
            Err(_) => Err(ECANCELED),
        }
    }

    /// Whether there is nothing to read from `fd`, as far as is known. Who must not wait, or would be killed by it, is told
    /// "no": what was known is as old as the last look at epoll, and there may be no next.
    #[inline]
    pub(super) fn is_dry(self, fd: RawFd) -> bool {
        self.hub.reactor().is_dry(fd) && self.root.current().attention.get() == 0 && obstacle().is_none()
    }

    /// A read of `fd` returned `n` bytes, and had room for `len`. Call it before anything else runs.
    #[inline]
    pub(super) fn note_read(self, fd: RawFd, n: usize, len: usize) {
        if n > 0 && n < len {
            self.hub.reactor().note_short_read(fd);
        }
    }

    /// Sleeps until `deadline`. A kill or an expired `timeout` scope ends it early, as does a caller that unwinds.
    pub(super) fn sleep(self, deadline: u64) {
        let doze = || match park(self.root, self.hub, self.root.current(), Reason::Sleep, deadline) {
            Ok(Wake::Woken) => true,
            Ok(Wake::TimedOut) | Err(_) => false,
        };
        while blocking(doze) == Ok(true) {}
    }

    /// Gives way if this call was one too many that need not wait. Call it when the operation is done: its result is safe,
    /// and what is raised meanwhile will be raised again.
    #[inline]
    pub(super) fn pay(self) {
        if spent_credit() {
            let _ = blocking(|| give_way(self.root, self.root.current()));
        }
    }
}

/// The right to wait for a socket without asking the kernel anything.
pub(super) struct Believing {
    /// Who waits.
    green: Green,
    /// For what.
    target: Target,
    /// Its place among those who wait.
    watching: Watching<'static>,
}

impl Believing {
    /// As [`Green::wait_asked`], for [`BELIEF`] from `begin` at most.
    ///
    /// # Errors
    /// As [`Green::wait`]; EAGAIN when it is time to ask.
    ///
    /// # Panics
    /// As [`Green::wait`].
    pub(super) fn wait(self, begin: u64) -> Result<(), i32> {
        if obstacle().is_some() {
            return Err(ECANCELED);
        }
        let _counted = Counted::in_count(&self.green.hub.reactor().waiting);
        let result = self.green.rest(self.target.reason, begin.saturating_add(BELIEF));
        if result == Err(EAGAIN) {
            self.watching.took(self.target.direction, BELIEF, NEVER);
        }
        result
    }
}

/// Runs what may park, and turns an unwinding into an errno (M2).
pub(super) fn blocking<R>(f: impl FnOnce() -> R) -> Result<R, i32> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        if let Some(root) = existing_root() {
            calm(root.current());
        }
        let errno = match &payload {
            payload if payload.is::<ScopeExpired>() => ETIMEDOUT,
            payload if is_control(&**payload) => ECANCELED,
            // What is left is the report of a deadlock, which the panic hook has printed.
            _ => EDEADLK,
        };
        // All of these are the runtime's own types, whose drop does not panic.
        drop(payload);
        errno
    })
}

/// What a function returns that reports by errno. On success errno is left as the caller had it.
#[inline]
pub(super) fn finish(before: i32, answer: Answer) -> isize {
    match answer {
        Ok(value) => {
            set_errno(before);
            value as isize
        }
        Err(error) => {
            set_errno(error);
            -1
        }
    }
}

/// [`finish`] for calls that went to the kernel as they came, and with them errno, unless there is an error.
#[inline(always)]
pub(super) fn pass(answer: Answer) -> isize {
    match answer {
        Ok(value) => value as isize,
        Err(error) => refuse(error) as isize,
    }
}

/// What a function returns that fails with `error`.
#[cold]
#[inline(never)]
pub(super) fn refuse(error: i32) -> c_int {
    set_errno(error);
    -1
}

/// The errno at the entry of a call.
#[inline]
pub(super) fn entry() -> i32 {
    errno()
}
