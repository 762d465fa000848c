//! Waiting for any descriptor, by its number, for once: what patched calls do (feature `monkey`).
//!
//! A native socket owns its descriptor, so its registration in epoll can stay, edge-triggered, until it is closed. A
//! number that comes out of C code may have been closed and given to another file by a call that we never saw. So
//! nothing is believed here from one wait to the next: each wait arms the number anew, and the kernel, which finds an
//! entry by number *and* open file, says if it is another file now.
//!
//! ```text
//!   watch: MOD(number, ONESHOT) --ok--------------> armed; what is ready already is an event, too
//!             | ENOENT: new, or another file now
//!          ADD(number, ONESHOT) --ok--------------> armed
//!             | EBADF, EPERM: the caller's error
//!   event: wakes the first waiter of each direction; the entry is disarmed by the kernel
//!   drop:  others wait? arm again, for them
//! ```
//!
//! * Invariant V1: while anybody waits in a `Watch`, it is armed, or its event has come and one of those whom it woke has
//!   not left yet and will arm it. Upheld by [`Reactor::watch`] and the drop of [`Watching`].
//! * Invariant V2: a native registration of the same number and file is left alone: such a number is watched by a
//!   duplicate of it, which is another entry to the kernel. A native registration that comes later takes the number
//!   over, and those who watch look again.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::reactor::{Reactor, Registration};
use crate::switch::fiber::Fiber;
use crate::switch::root::{Root, existing_root};
use crate::sys::epoll::{Interest, Ready, duplicate};
use crate::sys::own::own;

/// Who waits for one number.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The number.
    fd: RawFd,
    /// Who waits for what, in order. A fiber that polls may be here in several rows.
    waiters: RefCell<Vec<(Fiber, Interest)>>,
    /// The kernel has disarmed it since it was armed.
    fired: Cell<bool>,
    /// The number was closed or taken over: nobody arms it again.
    gone: Cell<bool>,
}

impl Watch {
    /// An event came: wakes the first waiter of each direction, and everybody if the file is at its end.
    pub(super) fn accept(&self, root: &Root, ready: Ready) {
        self.fired.set(true);
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

    /// What the waiters want, together.
    fn interest(&self) -> Interest {
        self.waiters.borrow().iter().fold(Interest::ONCE, |all, &(_, interest)| all | interest)
    }
}

/// A reactor's watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// By number; kept after the last waiter has left, for the next, until the number is closed.
    by_number: RefCell<HashMap<RawFd, Rc<Registration>>>,
    /// The numbers of native registrations.
    native: RefCell<HashSet<RawFd>>,
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

impl Reactor {
    /// From now on `fiber` is woken once `fd` is ready for `interest`, also if it is so already; perhaps once too often.
    ///
    /// # Errors
    /// EPERM for kinds that epoll refuses; EBADF; ENOMEM, ENOSPC; EMFILE (V2).
    pub(crate) fn watch(&self, fd: RawFd, fiber: Fiber, interest: Interest) -> io::Result<Watching<'_>> {
        if self.watches.native.borrow().contains(&fd) {
            let copy = duplicate(fd)?;
            let mut watching = self.watch(copy.as_raw_fd(), fiber, interest)?;
            watching.duplicate = Some(copy);
            return Ok(watching);
        }
        let registration = self.watch_of(fd);
        let Some(watch) = registration.watch() else { unreachable!("made by `watch_of`") };
        watch.waiters.borrow_mut().push((fiber, interest));
        // From here on the drop undoes it, also if it cannot be armed.
        let watching =
            Watching { reactor: self, registration: Rc::clone(&registration), fiber, interest, duplicate: None };
        self.arm(&registration, watch)?;
        Ok(watching)
    }

    /// The watch of a number, made if there is none.
    fn watch_of(&self, fd: RawFd) -> Rc<Registration> {
        let mut by_number = self.watches.by_number.borrow_mut();
        let make = || {
            let watch = Watch { fd, waiters: RefCell::default(), fired: Cell::new(false), gone: Cell::new(false) };
            self.insert(Registration::of_watch(watch))
        };
        Rc::clone(by_number.entry(fd).or_insert_with(make))
    }

    /// Tells the kernel what the waiters want, once.
    fn arm(&self, registration: &Registration, watch: &Watch) -> io::Result<()> {
        watch.fired.set(false);
        self.arm_number(watch.fd, registration, watch.interest())
    }

    /// `fd` is about to be closed or replaced: whoever waits for it looks again, and then meets the kernel's answer.
    pub(crate) fn forget_number(&self, root: &Root, fd: RawFd) {
        let registration = self.watches.by_number.borrow_mut().remove(&fd);
        if let Some(registration) = registration
            && let Some(watch) = registration.watch()
        {
            watch.gone.set(true);
            watch.wake_all(root);
            self.remove(&registration);
        }
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
