//! The reactor: one epoll instance, and for each descriptor its readiness and its waiters.
//!
//! Edge-triggered, one registration for both directions (`IN | OUT | RDHUP | PRI`), made when a call first has to wait:
//! a connection that is served and closed without waiting costs no `epoll_ctl` at all. Readiness is cached in bits
//! that an event sets and a failed or short operation clears:
//!
//! ```text
//!              event IN                    read: EAGAIN, or 0 < n < len on a stream socket
//!   not ready ----------> READABLE ----------------------------------------------------> not ready
//!              event RDHUP, PRI, HUP, ERR
//!   anything  ----------> sticky: reads (HUP, ERR: writes too) are tried at once from now on
//! ```
//!
//! Sticky, because edge-triggered epoll tells of the end of a connection once: if the short-read rule cleared that
//! news away, the end would never be read. RDHUP is not HUP: the peer may still be reading. Only EAGAIN, the
//! kernel's own word, clears a sticky bit. PRI, because a read stops short at urgent data whatever follows it.
//!
//! An event wakes one fiber for each direction, who waits longest; it stays in the list until its call is over, and
//! passes the turn on when it leaves, however it leaves. So turns come in order, and a thousand acceptors do not all
//! wake up for one connection.
//!
//! * Invariant E1: an event reaches the descriptor it was meant for. The epoll token is a slab key with a
//!   generation, removed before the descriptor is closed; an event for a number that was reused meanwhile finds
//!   no entry and is ignored.
//! * Invariant E2: the reactor wakes, and runs no foreign code; its cells are borrowed only inside these functions.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
#[cfg(feature = "monkey")]
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

#[cfg(feature = "monkey")]
use super::watch::{Watch, Watches};
use crate::pure::slab::{Key, Slab};
use crate::switch::cancel::abort_with;
use crate::switch::root::{Root, existing_root};
use crate::switch::wait_list::WaitList;
use crate::sys::epoll::{Epoll, Events, Interest, Ready};
use crate::sys::eventfd::EventFd;
use crate::sys::prefetch::prefetch_read;

/// Events taken at once. Among 1000 busy connections a larger batch saves system calls; above this it saves none.
const BATCH: usize = 1024;

/// How many events ahead the waiter of one is brought into the cache, and half as far as its registration.
const AHEAD: usize = 3;

/// The token of the bell.
const BELL: u64 = u64::MAX;

/// A direction of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Reading, accepting.
    Read,
    /// Writing, connecting.
    Write,
}

/// Bits of [`Registration::ready`].
mod bits {
    /// A read may succeed.
    pub(super) const READ: u8 = 1;
    /// A write may succeed.
    pub(super) const WRITE: u8 = 2;
    /// A read will not block any more, or a short one does not mean that it would: end of stream, error, urgent data.
    pub(super) const READ_STICKY: u8 = 4;
    /// A write will not block any more: error.
    pub(super) const WRITE_STICKY: u8 = 8;
}

/// What the reactor knows of one descriptor.
#[derive(Debug, Default)]
pub(crate) struct Registration {
    /// See [`bits`].
    ready: Cell<u8>,
    /// Fibers that wait until it can be read, in order.
    readers: WaitList,
    /// Fibers that wait until it can be written, in order.
    writers: WaitList,
    /// The slab entry while it is in the epoll set.
    key: Cell<Option<Key>>,
    /// The program closed it: waiters and later calls get an error.
    closed: Cell<bool>,
    /// For a number that patched calls wait for: who does. Nothing else here is used then.
    #[cfg(feature = "monkey")]
    watch: Option<Box<Watch>>,
}

impl Registration {
    /// For a number that patched calls wait for.
    #[cfg(feature = "monkey")]
    pub(super) fn of_watch(watch: Watch) -> Registration {
        Registration { watch: Some(Box::new(watch)), ..Registration::default() }
    }

    /// The watch, if it is one's.
    #[cfg(feature = "monkey")]
    pub(super) fn watch(&self) -> Option<&Watch> {
        self.watch.as_deref()
    }

    /// Who waits in this direction.
    pub(crate) fn waiters(&self, direction: Direction) -> &WaitList {
        match direction {
            Direction::Read => &self.readers,
            Direction::Write => &self.writers,
        }
    }

    /// Brings itself into the cache.
    #[inline]
    fn prefetch(&self) {
        let start = std::ptr::from_ref(self).cast::<u8>();
        prefetch_read(start);
        prefetch_read(start.wrapping_add(size_of::<Registration>() - 1));
    }

    /// Brings the reader that an event would wake into the cache.
    #[inline]
    fn prefetch_waiter(&self) {
        if let Some(fiber) = self.readers.first() {
            fiber.prefetch_whole_block();
        }
    }

    /// Whether an operation is worth a system call. True before registration: try first, wait second.
    #[inline]
    pub(crate) fn worth_trying(&self, direction: Direction) -> bool {
        let mask = match direction {
            Direction::Read => bits::READ | bits::READ_STICKY,
            Direction::Write => bits::WRITE | bits::WRITE_STICKY,
        };
        self.ready.get() & mask != 0 || self.key.get().is_none()
    }

    /// A short operation: the buffer is empty (or full), but sticky news stays.
    #[inline]
    pub(crate) fn clear(&self, direction: Direction) {
        let mask = match direction {
            Direction::Read => bits::READ,
            Direction::Write => bits::WRITE,
        };
        self.ready.set(self.ready.get() & !mask);
    }

    /// EAGAIN: nothing is there, whatever was said before.
    #[inline]
    pub(crate) fn clear_all(&self, direction: Direction) {
        let mask = match direction {
            Direction::Read => bits::READ | bits::READ_STICKY,
            Direction::Write => bits::WRITE | bits::WRITE_STICKY,
        };
        self.ready.set(self.ready.get() & !mask);
    }

    /// Whether the descriptor is in the epoll set.
    pub(crate) fn is_registered(&self) -> bool {
        self.key.get().is_some()
    }

    /// Whether the program closed it.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Marks it closed and wakes everybody who waits for it.
    pub(crate) fn close(&self, root: Option<&Root>) {
        self.closed.set(true);
        self.ready.set(u8::MAX);
        if let Some(root) = root {
            wake_all(root, &self.readers);
            wake_all(root, &self.writers);
        }
    }

    /// An event came.
    #[inline]
    fn accept(&self, root: &Root, ready: Ready) {
        let mut bits = self.ready.get();
        if ready.any(Ready::IN) {
            bits |= bits::READ;
        }
        if ready.any(Ready::OUT) {
            bits |= bits::WRITE;
        }
        if ready.any(Ready::RDHUP | Ready::PRI) {
            bits |= bits::READ_STICKY;
        }
        if ready.any(Ready::HUP | Ready::ERR) {
            bits |= bits::READ_STICKY | bits::WRITE_STICKY;
        }
        self.ready.set(bits);
        if bits & (bits::READ | bits::READ_STICKY) != 0
            && let Some(first) = self.readers.first()
        {
            root.wake(first);
        }
        if bits & (bits::WRITE | bits::WRITE_STICKY) != 0
            && let Some(first) = self.writers.first()
        {
            root.wake(first);
        }
    }

    /// Somebody left the list of waiters: if there may be more to do, the next one's turn has come.
    #[inline]
    pub(crate) fn pass_on(&self, direction: Direction) {
        if let Some(next) = self.waiters(direction).first()
            && self.worth_trying(direction)
            && let Some(root) = existing_root()
        {
            root.wake(next);
        }
    }
}

/// Wakes all fibers of a list, in order.
fn wake_all(root: &Root, list: &WaitList) {
    while let Some(fiber) = list.pop() {
        root.wake(fiber);
    }
}

/// One hub's epoll instance.
pub(crate) struct Reactor {
    /// The kernel object.
    epoll: Epoll,
    /// Where events are received.
    events: RefCell<Events>,
    /// Registered descriptors, by token.
    registrations: RefCell<Slab<Rc<Registration>>>,
    /// Fibers that wait for any descriptor.
    pub(crate) waiting: Cell<usize>,
    /// What patched calls wait for.
    #[cfg(feature = "monkey")]
    pub(super) watches: Watches,
}

#[cfg(feature = "monkey")]
impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Reactor {
    /// A reactor that wakes up when the bell rings.
    ///
    /// # Errors
    /// Those of epoll_create1(2) and epoll_ctl(2).
    pub(crate) fn new(bell: &EventFd) -> io::Result<Reactor> {
        use std::os::fd::AsFd;
        let epoll = Epoll::new()?;
        epoll.add(bell.as_fd(), BELL, Interest::IN | Interest::EDGE)?;
        Ok(Reactor {
            epoll,
            events: RefCell::new(Events::with_capacity(BATCH)),
            registrations: RefCell::new(Slab::new()),
            waiting: Cell::new(0),
            #[cfg(feature = "monkey")]
            watches: Watches::default(),
        })
    }

    /// Whether any descriptor (other than the bell) is registered.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.registrations.borrow().len() == 0
    }

    /// Puts a descriptor into the epoll set. If it is ready already, the next poll says so.
    ///
    /// # Errors
    /// EPERM for kinds that epoll refuses (regular files, directories), ENOSPC, ENOMEM: epoll_ctl(2).
    pub(crate) fn register(&self, fd: BorrowedFd<'_>, registration: &Rc<Registration>) -> io::Result<()> {
        let mut registrations = self.registrations.borrow_mut();
        let key = registrations.insert(Rc::clone(registration));
        let interest = Interest::IN | Interest::OUT | Interest::RDHUP | Interest::PRI | Interest::EDGE;
        let mut added = self.epoll.add(fd, key.to_token(), interest);
        if added.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            // The set knows a file by its number too. This one was here under the same number, was closed, and lived on in a
            // duplicate that we did not know of.
            let _ = self.epoll.delete(fd);
            added = self.epoll.add(fd, key.to_token(), interest);
        }
        if let Err(error) = added {
            registrations.remove(key);
            return Err(error);
        }
        registration.key.set(Some(key));
        #[cfg(feature = "monkey")]
        {
            drop(registrations);
            if let Some(root) = existing_root() {
                self.take_over_number(root, fd.as_raw_fd());
            }
            self.watches.enter(fd.as_raw_fd());
        }
        Ok(())
    }

    /// Gives a registration a token.
    #[cfg(feature = "monkey")]
    pub(super) fn insert(&self, registration: Registration) -> Rc<Registration> {
        let registration = Rc::new(registration);
        registration.key.set(Some(self.registrations.borrow_mut().insert(Rc::clone(&registration))));
        registration
    }

    /// Takes the token back: later events for it are ignored (E1).
    #[cfg(feature = "monkey")]
    pub(super) fn remove(&self, registration: &Registration) {
        if let Some(key) = registration.key.take() {
            self.registrations.borrow_mut().remove(key);
        }
    }

    /// Asks the kernel for events of a number; whether it was not in the epoll set.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    #[cfg(feature = "monkey")]
    pub(super) fn arm_number(&self, fd: RawFd, registration: &Registration, interest: Interest) -> io::Result<bool> {
        match registration.key.get() {
            Some(key) => self.epoll.rearm(fd, key.to_token(), interest),
            None => Ok(false),
        }
    }

    /// Takes a number out of the epoll set.
    #[cfg(feature = "monkey")]
    pub(super) fn disarm_number(&self, fd: RawFd) {
        // It fails if the number names another file by now, or none. Then the entry went with its file, or is one whose
        // token nobody knows.
        let _ = self.epoll.delete_number(fd);
    }

    /// Forgets a descriptor; later events for it are ignored (E1). With `remove`, it is taken out of the epoll
    /// set; without, closing it will do that, which is true unless the open file is shared with another descriptor.
    pub(crate) fn deregister(&self, fd: BorrowedFd<'_>, registration: &Registration, remove: bool) {
        if let Some(key) = registration.key.take() {
            self.registrations.borrow_mut().remove(key);
            #[cfg(feature = "monkey")]
            self.watches.leave(fd.as_raw_fd());
            if remove {
                // It fails only if the program closed the descriptor behind our back; then it is gone already.
                let _ = self.epoll.delete(fd);
            }
        }
    }

    /// Takes what events there are and wakes their waiters; waits up to `timeout` nanoseconds (`None`: for ever)
    /// for the first one.
    pub(crate) fn poll(&self, root: &Root, timeout: Option<u64>) {
        let mut events = self.events.borrow_mut();
        if let Err(error) = self.epoll.wait(&mut events, timeout) {
            // EINTR is no event; the rest (EBADF, EFAULT, EINVAL) means that somebody closed our descriptor. A panic would
            // unwind main out of waits that must not end early, a scope's for its threads among them.
            abort_with(&format!("greenling: epoll_wait failed, somebody closed the hub's descriptor: {error}"));
        }
        let registrations = self.registrations.borrow();
        // What an event leads to is a chain of cache misses, entry -> registration -> waiter: each link of it is fetched
        // some events ahead.
        let (mut far, mut near) = (events.iter().skip(2 * AHEAD), events.iter().skip(AHEAD));
        for (token, ready) in events.iter() {
            if let Some(registration) = far.next().and_then(|(token, _)| registrations.get(Key::from_token(token))) {
                registration.prefetch();
            }
            if let Some(registration) = near.next().and_then(|(token, _)| registrations.get(Key::from_token(token))) {
                registration.prefetch_waiter();
            }
            // A ring of an edge-triggered eventfd is an event even if the last one was never read.
            if token != BELL
                && let Some(registration) = registrations.get(Key::from_token(token))
            {
                #[cfg(feature = "monkey")]
                if let Some(watch) = registration.watch() {
                    self.accept_watched(root, watch, ready);
                    continue;
                }
                registration.accept(root, ready);
            }
        }
    }
}
