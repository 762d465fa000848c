//! Waiting for any descriptor, by its number: what patched calls do (feature `monkey`).
//!
//! A native socket owns its descriptor, so its registration in epoll can stay, edge-triggered, until it is closed. A
//! number that comes out of C code may have been closed and given to another file by a call that we never saw. The kernel,
//! which finds an entry by number *and* open file, says so when the entry is armed anew. So a wait begins with that:
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
//! It costs a system call. A socket that is waited for again and again is spared it: from its second wait on its entry is
//! edge-triggered and stays armed (*steady*), and what the last questions answered is *believed* for as long as
//! `sys/numbers.rs` has seen nothing happen to the number, but in no wait for longer than [`BELIEF`]. Then the caller
//! asks everything anew. So what we do not see costs a moment, and nothing else.
//!
//! ```text
//!   first wait     MOD | ONESHOT                   asked: does it block, for how long?
//!   second         MOD | EDGE                      asked
//!   later          (nothing) --- event ----------> believed: two system calls less, and two questions
//!                     `------ BELIEF is over ----> MOD | EDGE, asked; believed again once waits are short again
//! ```
//!
//! * Invariant V1: while anybody waits in a `Watch`, it is armed, or its event has come and one of those whom it woke has
//!   not left yet and will arm it, or whoever waits will arm it when its belief is over. Upheld by [`Reactor::watch`], the
//!   drop of [`Watching`], and those who call [`Reactor::watch_believing`].
//! * Invariant V2: a native registration of the same number and file is left alone: such a number is watched by a
//!   duplicate of it, which is another entry to the kernel. A native registration that comes later takes the number
//!   over, and those who watch look again.
//! * Invariant V3: nothing is believed unless the stamp of the number is the one from before the kernel was asked.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::reactor::{Direction, Reactor, Registration};
use crate::switch::fiber::Fiber;
use crate::switch::root::{Root, existing_root};
use crate::sys::epoll::{Interest, Ready, duplicate};
use crate::sys::numbers::{Stamp, stamp};
use crate::sys::own::own;
use crate::sys::raw::is_tcp;

/// How long a wait goes on in the belief that nothing has changed, in nanoseconds. It is also the time by which something
/// that we did not see may be noticed late: a flag that another process has set, a number that was closed and given out
/// by other means than the C library's functions. Long enough that a busy hub comes round to some thousand connections.
pub(crate) const BELIEF: u64 = 50_000_000;

/// A wait shorter than this makes the next one believe. Longer ones ask before they wait: they have the time, and one that
/// asks afterwards has to be woken for it.
const SHORT: u64 = BELIEF / 2;

/// Events in a row of which nobody wanted to know, after which a steady entry is taken out of the epoll set: somebody else
/// uses the file.
const STRAYS: u8 = 2;

/// What a steady entry asks for at least. PRI, because a read stops short at urgent data.
fn steady_interest() -> Interest {
    Interest::IN | Interest::RDHUP | Interest::PRI | Interest::EDGE
}

/// Who waits for one number.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The number.
    fd: RawFd,
    /// Who waits for what, in order. A fiber that polls may be here in several rows.
    waiters: RefCell<Vec<(Fiber, Interest)>>,
    /// An event has come since it was armed, or since somebody waits.
    fired: Cell<bool>,
    /// The number was closed or taken over: nobody arms it again.
    gone: Cell<bool>,
    /// Somebody who means to come back has waited before.
    used: Cell<bool>,
    /// For what its entry is armed edge-triggered; none if it is armed for one event at a time.
    steady: Cell<Option<Interest>>,
    /// The stamp from before the kernel was asked whether the file blocks, and said yes (V3).
    asked: Cell<Option<Stamp>>,
    /// Whether reads, and whether writes, wait for a short time only.
    short: [Cell<bool>; 2],
    /// While steady: a read that comes up short has left nothing.
    stream: Cell<bool>,
    /// While steady: a read has left nothing, and no event has come since.
    dry: Cell<bool>,
    /// While steady: an event told of what is told once, the end or urgent data. It is never dry again.
    ended: Cell<bool>,
    /// While steady: events in a row for which nobody waited.
    strays: Cell<u8>,
}

impl Watch {
    /// Of a number that nobody has waited for yet.
    fn new(fd: RawFd) -> Watch {
        Watch {
            fd,
            waiters: RefCell::default(),
            fired: Cell::new(false),
            gone: Cell::new(false),
            used: Cell::new(false),
            steady: Cell::new(None),
            asked: Cell::new(None),
            short: [Cell::new(false), Cell::new(false)],
            stream: Cell::new(false),
            dry: Cell::new(false),
            ended: Cell::new(false),
            strays: Cell::new(0),
        }
    }

    /// An event came: wakes the first waiter of each direction, and everybody if the file is at its end.
    fn accept(&self, root: &Root, ready: Ready) {
        self.fired.set(true);
        if ready.any(Ready::IN | Ready::RDHUP | Ready::PRI | Ready::HUP | Ready::ERR) {
            self.dry.set(false);
        }
        if ready.any(Ready::RDHUP | Ready::PRI | Ready::HUP | Ready::ERR) {
            self.ended.set(true);
        }
        let everybody = ready.any(Ready::HUP | Ready::ERR);
        let mut left = ready;
        for &(fiber, interest) in &*self.waiters.borrow() {
            if everybody || left.meets(interest) {
                root.wake(fiber);
                left = left.without(interest);
            }
        }
    }

    /// Lets all look again.
    fn wake_all(&self, root: &Root) {
        for &(fiber, _) in &*self.waiters.borrow() {
            root.wake(fiber);
        }
    }

    /// What the waiters want, together, added to `other`.
    fn interest(&self, other: Interest) -> Interest {
        self.waiters.borrow().iter().fold(other, |all, &(_, interest)| all | interest)
    }

    /// Whether it is steady, and what the last questions answered is still believed (V3).
    fn is_believed(&self) -> bool {
        self.steady.get().is_some() && self.asked.get() == Some(stamp(self.fd))
    }

    /// Whether a wait of this kind is short as a rule.
    fn short(&self, direction: Direction) -> &Cell<bool> {
        &self.short[usize::from(direction == Direction::Write)]
    }

    /// Nothing is known of the file any more.
    fn doubt(&self) {
        self.asked.set(None);
        self.dry.set(false);
        self.ended.set(false);
    }
}

/// Spreads numbers over a table. They are small, few, and nobody's choice but the kernel's.
#[derive(Debug, Default)]
struct ByNumber(
    /// The hash.
    u64,
);

impl Hasher for ByNumber {
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

/// A reactor's watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// By number; kept after the last waiter has left, for the next, until the number is closed.
    by_number: RefCell<HashMap<RawFd, Rc<Registration>, BuildHasherDefault<ByNumber>>>,
    /// The numbers of native registrations.
    native: RefCell<HashSet<RawFd, BuildHasherDefault<ByNumber>>>,
}

impl Watches {
    /// `fd` is a native registration's from now on.
    pub(super) fn enter(&self, fd: RawFd) {
        self.native.borrow_mut().insert(fd);
    }

    /// It is no longer.
    pub(super) fn leave(&self, fd: RawFd) {
        self.native.borrow_mut().remove(&fd);
    }
}

/// A fiber's wait for a number; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watching<'a> {
    /// Where.
    reactor: &'a Reactor,
    /// For what.
    registration: Rc<Registration>,
    /// Who.
    fiber: Fiber,
    /// For what events.
    interest: Interest,
    /// The number watched, if it is a duplicate made for this wait (V2).
    duplicate: Option<OwnedFd>,
}

impl Watching<'_> {
    /// Whether the file blocks was asked, and it does; `before` is the number's stamp from before the question.
    pub(crate) fn asked(&self, before: Stamp) {
        if let Some(watch) = self.registration.watch().filter(|_| self.duplicate.is_none()) {
            watch.asked.set(Some(before));
        }
    }

    /// The wait took `span` nanoseconds, and would have taken at most `limit`. Both short enough: the next one believes.
    pub(crate) fn took(&self, direction: Direction, span: u64, limit: u64) {
        if let Some(watch) = self.registration.watch() {
            watch.short(direction).set(span < SHORT && limit >= BELIEF);
        }
    }
}

impl Reactor {
    /// From now on `fiber` is woken once `fd` is ready for `interest`, also if it is so already; perhaps once too often.
    /// `returns`: it is a socket, and as a rule its user waits for it again.
    ///
    /// # Errors
    /// EPERM for kinds that epoll refuses; EBADF; ENOMEM, ENOSPC; EMFILE (V2).
    pub(crate) fn watch(&self, fd: RawFd, fiber: Fiber, interest: Interest, returns: bool) -> io::Result<Watching<'_>> {
        if self.watches.native.borrow().contains(&fd) {
            let copy = duplicate(fd)?;
            let mut watching = self.watch(copy.as_raw_fd(), fiber, interest, false)?;
            watching.duplicate = Some(copy);
            return Ok(watching);
        }
        let registration = self.watch_of(fd);
        let Some(watch) = registration.watch() else { unreachable!("made by `watch_of`") };
        watch.waiters.borrow_mut().push((fiber, interest));
        // From here on the drop undoes it, also if it cannot be armed.
        let watching =
            Watching { reactor: self, registration: Rc::clone(&registration), fiber, interest, duplicate: None };
        if returns && watch.used.replace(true) && watch.steady.get().is_none() {
            watch.stream.set(is_tcp(fd));
            watch.steady.set(Some(steady_interest()));
        }
        self.arm(&registration, watch)?;
        Ok(watching)
    }

    /// As [`watch`](Self::watch), without a system call, if what is known of the number is believed and the wait will be
    /// short. Who waits so must not wait longer than [`BELIEF`] (V1).
    pub(crate) fn watch_believing(
        &self,
        fd: RawFd,
        fiber: Fiber,
        interest: Interest,
        direction: Direction,
    ) -> Option<Watching<'_>> {
        let registration = self.known(fd)?;
        let watch = registration.watch()?;
        let armed = watch.steady.get()?;
        if !(interest.is_in(armed) && watch.short(direction).get() && watch.is_believed()) {
            return None;
        }
        watch.strays.set(0);
        let mut waiters = watch.waiters.borrow_mut();
        if waiters.is_empty() {
            watch.fired.set(false);
        }
        waiters.push((fiber, interest));
        drop(waiters);
        Some(Watching { reactor: self, registration, fiber, interest, duplicate: None })
    }

    /// Whether there is nothing to read, as far as is known.
    #[inline]
    pub(crate) fn is_dry(&self, fd: RawFd) -> bool {
        self.with_watch(fd, |watch| watch.dry.get() && watch.is_believed())
    }

    /// A read returned some bytes, but less than it had room for. Call it before anything else runs, since an event that
    /// comes after the read must not be cleared away.
    #[inline]
    pub(crate) fn note_short_read(&self, fd: RawFd) {
        self.with_watch(fd, |watch| {
            if watch.stream.get() && watch.is_believed() {
                watch.dry.set(!watch.ended.get());
            }
            true
        });
    }

    /// What `look` finds in the watch of `fd`; false if there is none.
    #[inline]
    fn with_watch(&self, fd: RawFd, look: impl FnOnce(&Watch) -> bool) -> bool {
        self.watches.by_number.borrow().get(&fd).and_then(|registration| registration.watch()).is_some_and(look)
    }

    /// The watch of a number, if there is one.
    fn known(&self, fd: RawFd) -> Option<Rc<Registration>> {
        self.watches.by_number.borrow().get(&fd).map(Rc::clone)
    }

    /// An event for a watch came.
    pub(super) fn accept_watched(&self, root: &Root, watch: &Watch, ready: Ready) {
        watch.accept(root, ready);
        if watch.steady.get().is_some() && watch.waiters.borrow().is_empty() {
            watch.strays.set(watch.strays.get() + 1);
            if watch.strays.get() >= STRAYS {
                self.unsettle(watch);
            }
        }
    }

    /// A steady entry is taken out of the epoll set; the next wait puts it back, for one event.
    fn unsettle(&self, watch: &Watch) {
        if watch.steady.take().is_some() {
            watch.doubt();
            watch.used.set(false);
            watch.strays.set(0);
            self.disarm_number(watch.fd);
        }
    }

    /// The watch of a number, made if there is none.
    fn watch_of(&self, fd: RawFd) -> Rc<Registration> {
        let mut by_number = self.watches.by_number.borrow_mut();
        let make = || self.insert(Registration::of_watch(Watch::new(fd)));
        Rc::clone(by_number.entry(fd).or_insert_with(make))
    }

    /// Tells the kernel what the waiters want.
    fn arm(&self, registration: &Registration, watch: &Watch) -> io::Result<()> {
        watch.fired.set(false);
        watch.strays.set(0);
        let interest = watch.interest(watch.steady.get().unwrap_or(Interest::ONCE));
        match self.arm_number(watch.fd, registration, interest) {
            Ok(false) => watch.steady.set(watch.steady.get().map(|_| interest)),
            // Another file, or one that is new here: nothing that was known of the last is true of it.
            Ok(true) if watch.steady.get().is_some() => {
                watch.doubt();
                watch.stream.set(is_tcp(watch.fd));
                watch.steady.set(Some(interest));
            }
            Ok(true) => {}
            Err(error) => {
                watch.steady.set(None);
                watch.doubt();
                return Err(error);
            }
        }
        Ok(())
    }

    /// `fd` is about to be closed or replaced: whoever waits for it looks again, and then meets the kernel's answer.
    pub(crate) fn forget_number(&self, root: &Root, fd: RawFd) {
        if let Some(registration) = self.take_over_number(root, fd)
            && registration.watch().is_some_and(|watch| watch.steady.get().is_some())
        {
            // The open file may live on, here or in another process, and would go on to wake this hub.
            self.disarm_number(fd);
        }
    }

    /// [`forget_number`](Self::forget_number), for whoever has its own entry in the epoll set now.
    pub(super) fn take_over_number(&self, root: &Root, fd: RawFd) -> Option<Rc<Registration>> {
        let registration = self.watches.by_number.borrow_mut().remove(&fd)?;
        if let Some(watch) = registration.watch() {
            watch.gone.set(true);
            watch.wake_all(root);
            self.remove(&registration);
        }
        Some(registration)
    }

    /// Whether any number is watched or was.
    #[inline]
    pub(crate) fn knows_number(&self, fd: RawFd) -> bool {
        self.watches.by_number.borrow().contains_key(&fd)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let Some(watch) = self.registration.watch() else { return };
        let others = {
            let mut waiters = watch.waiters.borrow_mut();
            if let Some(at) = waiters.iter().position(|&waiter| waiter == (self.fiber, self.interest)) {
                waiters.remove(at);
            }
            !waiters.is_empty()
        };
        if others
            && watch.fired.get()
            && !watch.gone.get()
            && self.reactor.arm(&self.registration, watch).is_err()
            && let Some(root) = existing_root()
        {
            watch.wake_all(root);
        }
        if let Some(copy) = self.duplicate.take() {
            if let Some(root) = existing_root() {
                self.reactor.forget_number(root, copy.as_raw_fd());
            }
            let _own = own();
            drop(copy);
        }
    }
}
