//! Waiting for any descriptor, by its number: what patched calls do (feature `monkey`).
//!
//! A native socket owns its descriptor, so its registration in epoll can stay, edge-triggered, until the descriptor is
//! closed. A number that comes out of C code may have been closed and given to another file by a call that the hub
//! never saw. The kernel, which finds an entry by number *and* open file, says so when the entry is armed anew. So a
//! wait begins with that:
//!
//! ```text
//!   watch: MOD(number) --ok--------------------> armed; what is ready already is an event, too
//!             | ENOENT: new, or another file now
//!          ADD(number) --ok--------------------> armed
//!             | EBADF, EPERM: the caller's error
//!   event: wakes the first waiter of each direction
//!   drop:  others wait? arm again, for them
//! ```
//!
//! That costs a system call. A socket that is waited for again and again is spared the call: from the second wait on
//! its entry is edge-triggered and stays armed (*persistent*), and what the kernel last answered about the file is
//! *trusted* for as long as `sys/numbers.rs` has seen nothing happen to the number, but in no wait for longer than
//! [`TRUST_WINDOW`]. Then the caller asks everything anew. So a change that the hub does not see costs a moment, and
//! nothing else.
//!
//! ```text
//!   first wait     MOD | ONESHOT                   asked: does the file block, for how long?
//!   second         MOD | EDGE                      asked
//!   later          (nothing) --- event ----------> trusted: two system calls less, and two questions
//!                     `------ TRUST_WINDOW over -> MOD | EDGE, asked; trusted again once waits are short again
//! ```
//!
//! * Invariant watch-1: while a fiber waits in a `Watch`, one of three things holds. The watch is armed; or its event
//!   has come, and one of the fibers that the event woke has not left yet and will arm the watch; or a waiter will arm
//!   the watch when its trust window is over. Upheld by [`Watcher::watch`], the drop of [`Watching`], and the callers
//!   of [`Watcher::watch_trusting`].
//! * Invariant watch-2: a native registration of the same number and file is left alone: such a number is watched by a
//!   duplicate, which is another entry to the kernel. A native registration that comes later takes the number over, and
//!   the fibers that watch it try again.
//! * Invariant watch-3: no answer is trusted unless the stamp of the number is the one from before the kernel was
//!   asked.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::reactor::{Direction, EventSink, Reactor};
use crate::pure::slab::Key;
use crate::switch::fiber::Fiber;
use crate::switch::root::{Root, existing_root};
use crate::sys::epoll::{Interest, Ready, duplicate};
use crate::sys::numbers::{Stamp, note_watcher, stamp};
use crate::sys::raw::is_tcp;
use crate::sys::runtime_syscall::runtime_syscall;

/// How long a wait trusts that nothing has changed, in nanoseconds. A change that the hub does not see is noticed this
/// much late at most: a flag that another process has set, a number that was closed and given out by other means than
/// the C library's functions. Long enough that a busy hub comes round to some thousand connections.
pub(crate) const TRUST_WINDOW: u64 = 50_000_000;

/// A wait shorter than this makes the next one trust. Longer waits ask the kernel first: they have the time, and a wait
/// that trusted would have to be woken in order to ask.
const SHORT_WAIT: u64 = TRUST_WINDOW / 2;

/// Events in a row for which no fiber waited, after which a persistent entry is taken out of the epoll set: something
/// else uses the file.
const MAX_SPURIOUS: u8 = 2;

/// Returns what a persistent entry asks for at least. PRI, because a read stops short at urgent data.
fn persistent_interest() -> Interest {
    Interest::IN | Interest::RDHUP | Interest::PRI | Interest::EDGE
}

/// What a hub knows of one number, and the fibers that wait for it.
#[derive(Debug)]
struct Watch {
    /// The number that is watched.
    fd: RawFd,
    /// The entry in the reactor; none once the watch has ended.
    key: Cell<Option<Key>>,
    /// The waiting fibers and what each waits for, in order. A fiber that polls may be here in several rows.
    waiters: RefCell<Vec<(Fiber, Interest)>>,
    /// An event has come since the watch was armed, or since the first of the present waiters came.
    fired: Cell<bool>,
    /// The number was closed or taken over: the watch is never armed again.
    gone: Cell<bool>,
    /// An earlier wait asks for a persistent entry at the next one, since its caller means to come back.
    persistent_wanted: Cell<bool>,
    /// The events for which the persistent entry is armed; none if the entry is armed for one event at a time.
    persistent: Cell<Option<Interest>>,
    /// The stamp from before the kernel was asked whether the file blocks, and said yes (watch-3).
    verified: Cell<Option<Stamp>>,
    /// Whether waits to read, and waits to write, are short as a rule.
    short_waits: [Cell<bool>; 2],
    /// While persistent: a read that comes up short has left nothing.
    stream: Cell<bool>,
    /// While persistent: a read has left nothing, and no event has come since.
    known_empty: Cell<bool>,
    /// While persistent: an event reported what is reported once, the end or urgent data. The file is never known to be
    /// empty again.
    ended: Cell<bool>,
    /// While persistent: events in a row for which no fiber waited.
    spurious: Cell<u8>,
}

impl Watch {
    /// Makes the watch of a number for which no fiber has waited yet.
    fn new(fd: RawFd) -> Watch {
        Watch {
            fd,
            key: Cell::new(None),
            waiters: RefCell::default(),
            fired: Cell::new(false),
            gone: Cell::new(false),
            persistent_wanted: Cell::new(false),
            persistent: Cell::new(None),
            verified: Cell::new(None),
            short_waits: [Cell::new(false), Cell::new(false)],
            stream: Cell::new(false),
            known_empty: Cell::new(false),
            ended: Cell::new(false),
            spurious: Cell::new(0),
        }
    }

    /// Notes an event, and wakes the first waiter of each direction, or all waiters if the file is at its end.
    fn wake_waiters(&self, root: &Root, ready: Ready) {
        self.fired.set(true);
        if ready.any(Ready::IN | Ready::RDHUP | Ready::PRI | Ready::HUP | Ready::ERR) {
            self.known_empty.set(false);
        }
        if ready.any(Ready::RDHUP | Ready::PRI | Ready::HUP | Ready::ERR) {
            self.ended.set(true);
        }
        // The events of a waiter that was woken are spent: what is left may wake a later waiter.
        let at_end = ready.any(Ready::HUP | Ready::ERR);
        let mut left = ready;
        for &(fiber, interest) in &*self.waiters.borrow() {
            if at_end || left.meets(interest) {
                root.inject(fiber);
                left = left.without(interest);
            }
        }
    }

    /// Lets all waiters try again.
    fn wake_all(&self, root: &Root) {
        for &(fiber, _) in &*self.waiters.borrow() {
            root.wake(fiber);
        }
    }

    /// Returns what the waiters want, together, added to `other`.
    fn interest(&self, other: Interest) -> Interest {
        self.waiters.borrow().iter().fold(other, |all, &(_, interest)| all | interest)
    }

    /// Reports whether the entry is persistent, and the kernel's last answers are still trusted (watch-3).
    fn is_trusted(&self) -> bool {
        self.persistent.get().is_some() && self.verified.get() == Some(stamp(self.fd))
    }

    /// Returns whether waits in this direction are short as a rule.
    fn short_waits(&self, direction: Direction) -> &Cell<bool> {
        &self.short_waits[usize::from(direction == Direction::Write)]
    }

    /// Forgets what was known of the file.
    fn invalidate(&self) {
        self.verified.set(None);
        self.known_empty.set(false);
        self.ended.set(false);
    }

    /// Tells the kernel what the waiters want.
    fn arm(&self, reactor: &Reactor) -> io::Result<()> {
        self.fired.set(false);
        self.spurious.set(0);
        // One entry for all waiters: what they want together, once or for good.
        let interest = self.interest(self.persistent.get().unwrap_or(Interest::ONCE));
        let armed = match self.key.get() {
            Some(key) => reactor.arm_number(self.fd, key, interest),
            None => Ok(false),
        };
        match armed {
            Ok(false) => self.persistent.set(self.persistent.get().map(|_| interest)),
            // Another file, or one that is new here: what was known of the last file is not true of this one.
            Ok(true) if self.persistent.get().is_some() => {
                self.invalidate();
                self.stream.set(is_tcp(self.fd));
                self.persistent.set(Some(interest));
            }
            Ok(true) => {}
            Err(error) => {
                self.persistent.set(None);
                self.invalidate();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes a persistent entry out of the epoll set; the next wait puts it back, for one event.
    fn end_persistence(&self, reactor: &Reactor) {
        if self.persistent.take().is_some() {
            self.invalidate();
            self.persistent_wanted.set(false);
            self.spurious.set(0);
            reactor.disarm_number(self.fd);
        }
    }
}

impl EventSink for Watch {
    fn on_event(&self, reactor: &Reactor, root: &Root, ready: Ready) {
        self.wake_waiters(root, ready);
        if self.persistent.get().is_some() && self.waiters.borrow().is_empty() {
            self.spurious.set(self.spurious.get() + 1);
            if self.spurious.get() >= MAX_SPURIOUS {
                self.end_persistence(reactor);
            }
        }
    }
}

/// Spreads numbers over a table. Numbers are small, few, and chosen by the kernel alone.
#[derive(Debug, Default)]
struct FdHasher(u64);

impl Hasher for FdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_i32(i32::from(byte)));
    }

    fn write_i32(&mut self, number: i32) {
        // 2^64 by the golden ratio: neighbours end up far apart, in the low bits and in the high ones.
        let mixed = (self.0 ^ u64::from(number.cast_unsigned())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// The numbers that a hub watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// By number; kept after the last waiter has left, for the next, until the number is closed.
    by_number: RefCell<HashMap<RawFd, Rc<Watch>, BuildHasherDefault<FdHasher>>>,
    /// The numbers of native registrations.
    native: RefCell<HashSet<RawFd, BuildHasherDefault<FdHasher>>>,
}

impl Watches {
    /// Notes that `fd` is a native registration's from now on, and ends the watch of the number (watch-2).
    pub(super) fn add_native(&self, reactor: &Reactor, fd: RawFd) {
        if let Some(root) = existing_root() {
            Watcher { reactor, watches: self }.take_over(root, fd);
        }
        self.native.borrow_mut().insert(fd);
    }

    /// Notes that `fd` is no longer a native registration's.
    pub(super) fn remove_native(&self, fd: RawFd) {
        self.native.borrow_mut().remove(&fd);
    }
}

/// The parts of a hub with which patched calls wait for numbers.
#[derive(Clone, Copy)]
pub(crate) struct Watcher<'a> {
    /// The epoll set in which numbers are armed.
    reactor: &'a Reactor,
    /// What is known of each number.
    watches: &'a Watches,
}

impl<'a> Watcher<'a> {
    /// Makes a watcher of one hub's parts.
    pub(super) fn new(reactor: &'a Reactor, watches: &'a Watches) -> Watcher<'a> {
        Watcher { reactor, watches }
    }

    /// Begins a wait: from now on `fiber` is woken once `fd` is ready for `interest`, also if `fd` is ready already;
    /// perhaps once too often. `repeats`: `fd` is a socket, and as a rule its user waits for it again.
    ///
    /// # Errors
    /// EPERM for kinds that epoll refuses; EBADF; ENOMEM, ENOSPC; EMFILE (watch-2).
    pub(crate) fn watch(self, fd: RawFd, fiber: Fiber, interest: Interest, repeats: bool) -> io::Result<Watching<'a>> {
        // A native registration has this number: watch a duplicate (watch-2).
        if self.watches.native.borrow().contains(&fd) {
            let copy = duplicate(fd)?;
            let mut watching = self.watch(copy.as_raw_fd(), fiber, interest, false)?;
            watching.duplicate = Some(copy);
            return Ok(watching);
        }
        let watch = self.watch_of(fd);
        watch.waiters.borrow_mut().push((fiber, interest));
        // From here on the drop takes the waiter out again, also if the watch cannot be armed.
        let watching = Watching { watcher: self, watch, fiber, interest, duplicate: None };
        let watch = &watching.watch;
        // The second wait of a socket makes the entry persistent.
        if repeats && watch.persistent_wanted.replace(true) && watch.persistent.get().is_none() {
            watch.stream.set(is_tcp(fd));
            watch.persistent.set(Some(persistent_interest()));
        }
        watch.arm(self.reactor)?;
        // A close on another OS thread finds this hub by the number.
        if let Some(root) = existing_root() {
            note_watcher(fd, root.number());
        }
        Ok(watching)
    }

    /// Begins a wait as [`watch`](Self::watch), without a system call, if what is known of the number is trusted and
    /// the wait will be short. The caller must not wait longer than [`TRUST_WINDOW`] (watch-1).
    pub(crate) fn watch_trusting(
        self,
        fd: RawFd,
        fiber: Fiber,
        interest: Interest,
        direction: Direction,
    ) -> Option<Watching<'a>> {
        let watch = self.known(fd)?;
        let armed = watch.persistent.get()?;
        if !(interest.is_in(armed) && watch.short_waits(direction).get() && watch.is_trusted()) {
            return None;
        }
        // The entry is armed already: an event that comes from here on counts for this waiter.
        watch.spurious.set(0);
        let mut waiters = watch.waiters.borrow_mut();
        if waiters.is_empty() {
            watch.fired.set(false);
        }
        waiters.push((fiber, interest));
        drop(waiters);
        Some(Watching { watcher: self, watch, fiber, interest, duplicate: None })
    }

    /// Reports whether there is nothing to read, as far as is known.
    #[inline]
    pub(crate) fn is_known_empty(self, fd: RawFd) -> bool {
        self.with_watch(fd, |watch| watch.known_empty.get() && watch.is_trusted())
    }

    /// Notes that a read returned some bytes, but less than it had room for. To be called before anything else runs,
    /// since an event that comes after the read must not be cleared away.
    #[inline]
    pub(crate) fn note_short_read(self, fd: RawFd) {
        self.with_watch(fd, |watch| {
            if watch.stream.get() && watch.is_trusted() {
                watch.known_empty.set(!watch.ended.get());
            }
            true
        });
    }

    /// Returns what `f` finds in the watch of `fd`; false if there is none.
    #[inline]
    fn with_watch(self, fd: RawFd, f: impl FnOnce(&Watch) -> bool) -> bool {
        self.watches.by_number.borrow().get(&fd).is_some_and(|watch| f(watch))
    }

    /// Returns the watch of a number, if there is one.
    fn known(self, fd: RawFd) -> Option<Rc<Watch>> {
        self.watches.by_number.borrow().get(&fd).map(Rc::clone)
    }

    /// Returns the watch of a number, made if there is none.
    fn watch_of(self, fd: RawFd) -> Rc<Watch> {
        let mut by_number = self.watches.by_number.borrow_mut();
        let make = || {
            let watch = Rc::new(Watch::new(fd));
            let sink: Rc<dyn EventSink> = Rc::<Watch>::clone(&watch);
            watch.key.set(Some(self.reactor.insert_sink(sink)));
            watch
        };
        Rc::clone(by_number.entry(fd).or_insert_with(make))
    }

    /// Ends the watch of a number that is about to be closed or replaced: its waiters try again, and then meet the
    /// kernel's answer.
    pub(crate) fn forget_number(self, root: &Root, fd: RawFd) {
        if let Some(watch) = self.take_over(root, fd)
            && watch.persistent.get().is_some()
        {
            // The open file may live on, here or in another process, and would go on to wake this hub.
            self.reactor.disarm_number(fd);
        }
    }

    /// Ends the watch of a number as [`forget_number`](Self::forget_number), but leaves the epoll set alone.
    fn take_over(self, root: &Root, fd: RawFd) -> Option<Rc<Watch>> {
        let watch = self.watches.by_number.borrow_mut().remove(&fd)?;
        // The waiters keep the watch until they leave, and do not arm it any more.
        watch.gone.set(true);
        watch.wake_all(root);
        if let Some(key) = watch.key.take() {
            self.reactor.remove_sink(key);
        }
        Some(watch)
    }

    /// Reports whether the number is watched or was.
    #[inline]
    pub(crate) fn knows_number(self, fd: RawFd) -> bool {
        self.watches.by_number.borrow().contains_key(&fd)
    }
}

/// A fiber's wait for a number; the wait ends when this is dropped.
pub(crate) struct Watching<'a> {
    /// The parts of the hub.
    watcher: Watcher<'a>,
    /// The watch in which the fiber waits.
    watch: Rc<Watch>,
    /// The fiber that waits.
    fiber: Fiber,
    /// The events for which it waits.
    interest: Interest,
    /// The number watched, if it is a duplicate made for this wait (watch-2).
    duplicate: Option<OwnedFd>,
}

impl Watching<'_> {
    /// Notes that the kernel was asked whether the file blocks, and said yes; `before` is the number's stamp from
    /// before the question.
    pub(crate) fn note_verified(&self, before: Stamp) {
        if self.duplicate.is_none() {
            self.watch.verified.set(Some(before));
        }
    }

    /// Notes that the wait took `span` nanoseconds, and would have taken at most `limit`. The next wait trusts if this
    /// one was short, and not because its limit is.
    pub(crate) fn note_duration(&self, direction: Direction, span: u64, limit: u64) {
        self.watch.short_waits(direction).set(span < SHORT_WAIT && limit >= TRUST_WINDOW);
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let (reactor, watch) = (self.watcher.reactor, &self.watch);
        // Leave the list.
        let others = {
            let mut waiters = watch.waiters.borrow_mut();
            if let Some(at) = waiters.iter().position(|&waiter| waiter == (self.fiber, self.interest)) {
                waiters.remove(at);
            }
            !waiters.is_empty()
        };
        // The event that woke this fiber was the last: arm the watch again for the others (watch-1).
        if others
            && watch.fired.get()
            && !watch.gone.get()
            && watch.arm(reactor).is_err()
            && let Some(root) = existing_root()
        {
            watch.wake_all(root);
        }
        // Close the duplicate; the watch of its number ends with this wait.
        if let Some(copy) = self.duplicate.take() {
            if let Some(root) = existing_root() {
                self.watcher.forget_number(root, copy.as_raw_fd());
            }
            let _own = runtime_syscall();
            drop(copy);
        }
    }
}
