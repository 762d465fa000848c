//! The reactor: one epoll instance, and for each descriptor its readiness and its waiters.
//!
//! Edge-triggered, one registration for both directions (`IN | OUT | RDHUP | PRI`), made when a call first has to wait:
//! a connection that is served and closed without waiting costs no `epoll_ctl` at all. Readiness is cached in bits
//! that an event sets and a failed or short operation clears:
//!
//! ```text
//!              event IN                    read: EAGAIN, or 0 < n < len on a TCP stream
//!   not ready ----------> READABLE ----------------------------------------------------> not ready
//!              event RDHUP, PRI, HUP, ERR
//!   anything  ----------> sticky: reads (HUP, ERR: writes too) are tried at once from now on
//! ```
//!
//! Sticky, because edge-triggered epoll reports the end of a connection once: if the short-read rule cleared that
//! report away, the end would never be read. RDHUP is not HUP: the peer may still be reading. Only EAGAIN, the
//! kernel's own word, clears a sticky bit. PRI, because a read stops short at urgent data whatever follows them.
//!
//! An event wakes one fiber for each direction, the one that waits longest. The fiber stays in the list until its call
//! is over, and passes the turn on when it leaves, in whatever way. So turns come in order, and a thousand acceptors
//! do not all wake up for one connection.
//!
//! Numbers that patched calls wait for (`watch`) are in the same epoll set. The reactor knows them as sinks of events
//! only: see `EventSink`.
//!
//! * Invariant reactor-1: an event reaches the descriptor for which the event was meant. The epoll token is a slab key
//!   with a generation, removed before the descriptor is closed; an event for a number that was reused meanwhile finds
//!   no entry and is ignored.
//! * Invariant reactor-2: the reactor wakes, and runs no foreign code; its cells are borrowed only inside these
//!   functions.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use crate::pure::slab::{Key, Slab};
use crate::switch::cancel::abort_with;
use crate::switch::recorder::What;
use crate::switch::root::{Root, existing_root};
use crate::switch::wait_list::WaitList;
use crate::sys::epoll::{Epoll, Events, Interest, Ready};
use crate::sys::eventfd::EventFd;
use crate::sys::prefetch::prefetch_read;
use crate::sys::simulation::Simulated;
use crate::sys::socket::EBADF;

/// Events taken at once. Among 1000 busy connections a larger batch saves system calls; above this it saves none.
const BATCH: usize = 1024;

/// How many events ahead the waiter of an event is brought into the cache. Its registration is brought in twice as far
/// ahead.
const PREFETCH_DISTANCE: usize = 3;

/// How often in a row the kernel may have no memory for a wait.
const MAX_FAILURES: u32 = 100;

/// How long the OS thread pauses after such a failure.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// The token of the bell.
const BELL_TOKEN: u64 = u64::MAX;

/// A direction of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Reading, or accepting connections.
    Read,
    /// Writing, or connecting to a peer.
    Write,
}

/// The bits of the readiness in [`Registration::ready`].
mod bits {
    /// A read may succeed.
    pub(super) const READ: u8 = 1;
    /// A write may succeed.
    pub(super) const WRITE: u8 = 2;
    /// A read will not block any more, or a short read does not mean "empty": end of stream, error, urgent data.
    pub(super) const READ_STICKY: u8 = 4;
    /// A write will not block any more: error.
    pub(super) const WRITE_STICKY: u8 = 8;
}

/// What the reactor knows of one descriptor.
#[derive(Debug, Default)]
pub(crate) struct Registration {
    /// The readiness, as [`bits`].
    ready: Cell<u8>,
    /// Fibers that wait until the descriptor can be read, in order.
    readers: WaitList,
    /// Fibers that wait until the descriptor can be written, in order.
    writers: WaitList,
    /// The slab entry while the descriptor is in the epoll set.
    key: Cell<Option<Key>>,
    /// The program closed the descriptor: waiters and later calls get an error.
    closed: Cell<bool>,
    /// The number of the descriptor while it is in the epoll set, for traces.
    number: Cell<RawFd>,
}

impl Registration {
    /// Returns the fibers that wait in this direction.
    pub(crate) fn waiters(&self, direction: Direction) -> &WaitList {
        match direction {
            Direction::Read => &self.readers,
            Direction::Write => &self.writers,
        }
    }

    /// Brings the registration into the cache.
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

    /// Reports whether an operation is worth a system call. True before registration: try first, wait second.
    #[inline]
    pub(crate) fn worth_trying(&self, direction: Direction) -> bool {
        let mask = match direction {
            Direction::Read => bits::READ | bits::READ_STICKY,
            Direction::Write => bits::WRITE | bits::WRITE_STICKY,
        };
        self.ready.get() & mask != 0 || self.key.get().is_none()
    }

    /// Notes a short operation: the kernel's buffer is empty (or full), but sticky bits stay.
    #[inline]
    pub(crate) fn clear(&self, direction: Direction) {
        let mask = match direction {
            Direction::Read => bits::READ,
            Direction::Write => bits::WRITE,
        };
        self.ready.set(self.ready.get() & !mask);
    }

    /// Notes EAGAIN: nothing is there, whatever an event said before.
    #[inline]
    pub(crate) fn clear_all(&self, direction: Direction) {
        let mask = match direction {
            Direction::Read => bits::READ | bits::READ_STICKY,
            Direction::Write => bits::WRITE | bits::WRITE_STICKY,
        };
        self.ready.set(self.ready.get() & !mask);
    }

    /// Reports whether the descriptor is in the epoll set.
    pub(crate) fn is_registered(&self) -> bool {
        self.key.get().is_some()
    }

    /// Reports whether the program closed the descriptor.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Marks the descriptor closed and wakes all waiting fibers.
    pub(crate) fn close(&self, root: Option<&Root>) {
        self.closed.set(true);
        self.ready.set(u8::MAX);
        if let Some(root) = root {
            wake_all(root, &self.readers);
            wake_all(root, &self.writers);
        }
    }

    /// Notes what an event says, and wakes the first waiter of each direction that is ready.
    #[inline]
    fn on_event(&self, root: &Root, ready: Ready) {
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
        // Only the longest waiter of each direction: it wakes the next one if there is more to do.
        if bits & (bits::READ | bits::READ_STICKY) != 0
            && let Some(first) = self.readers.first()
        {
            root.inject(first);
        }
        if bits & (bits::WRITE | bits::WRITE_STICKY) != 0
            && let Some(first) = self.writers.first()
        {
            root.inject(first);
        }
    }

    /// Wakes the next waiter, after one has left the list, if there may be more to do.
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

/// Pauses after a failed wait if the next one may succeed, or ends the process. A panic would unwind main out of waits
/// that must not end early, a scope's for its threads among them.
#[cold]
#[inline(never)]
fn after_failure(error: &io::Error, failures: u32) {
    // epoll_wait(2) does not name ENOMEM, but a kernel without memory says so, and a debugger can inject the error.
    if error.kind() == io::ErrorKind::OutOfMemory && failures < MAX_FAILURES {
        return std::thread::sleep(FAILURE_PAUSE);
    }
    let gone = error.raw_os_error() == Some(EBADF) || error.kind() == io::ErrorKind::InvalidInput;
    let what = if gone { "the hub's descriptor was closed, or names another file now" } else { "the hub cannot go on" };
    abort_with(&format!("greenling: epoll_wait failed, {what}: {error}"));
}

/// What takes the events of a token that is no [`Registration`]'s.
#[cfg(feature = "monkey")]
pub(super) trait EventSink {
    /// Takes an event. Wakes, and runs no foreign code (reactor-2).
    fn on_event(&self, reactor: &Reactor, root: &Root, ready: Ready);
}

/// What a token of the epoll set stands for.
enum Entry {
    /// A descriptor that belongs to a `Source`.
    Owned(Rc<Registration>),
    /// A number that patched calls wait for.
    #[cfg(feature = "monkey")]
    ByNumber(Rc<dyn EventSink>),
}

impl Entry {
    /// Brings what takes the events into the cache.
    #[inline]
    fn prefetch(&self) {
        match self {
            Entry::Owned(registration) => registration.prefetch(),
            #[cfg(feature = "monkey")]
            Entry::ByNumber(sink) => prefetch_read(Rc::as_ptr(sink).cast()),
        }
    }

    /// Brings the fiber that an event would wake into the cache, if that fiber is cheap to find.
    #[inline]
    fn prefetch_waiter(&self) {
        match self {
            Entry::Owned(registration) => registration.prefetch_waiter(),
            #[cfg(feature = "monkey")]
            Entry::ByNumber(_) => {}
        }
    }
}

/// Notes an event of a descriptor, for a trace.
fn note_event(root: &Root, entry: Option<&Entry>, ready: Ready) {
    if let Some(Entry::Owned(registration)) = entry {
        let readable = ready.any(Ready::IN | Ready::RDHUP | Ready::HUP | Ready::ERR);
        let writable = ready.any(Ready::OUT | Ready::HUP | Ready::ERR);
        root.note_descriptor(What::Event(registration.number.get(), readable, writable));
    }
}

/// One hub's epoll instance.
pub(crate) struct Reactor {
    /// The epoll instance of the kernel.
    epoll: Epoll,
    /// Where events are received.
    events: RefCell<Events>,
    /// What is in the epoll set, by token.
    entries: RefCell<Slab<Entry>>,
    /// The number of fibers that wait for any descriptor.
    pub(crate) waiting: Cell<usize>,
}

impl Reactor {
    /// Makes a reactor that wakes up when the bell rings.
    ///
    /// # Errors
    /// Those of epoll_create1(2) and epoll_ctl(2).
    pub(crate) fn new(bell: &EventFd) -> io::Result<Reactor> {
        use std::os::fd::AsFd;
        let epoll = Epoll::new()?;
        epoll.add(bell.as_fd(), BELL_TOKEN, Interest::IN | Interest::EDGE)?;
        Ok(Reactor {
            epoll,
            events: RefCell::new(Events::with_capacity(BATCH)),
            entries: RefCell::new(Slab::new()),
            waiting: Cell::new(0),
        })
    }

    /// Reports whether nothing but the bell is registered.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.borrow().len() == 0
    }

    /// Puts a descriptor into the epoll set. The next poll reports a descriptor that is ready already.
    ///
    /// # Errors
    /// EPERM for kinds that epoll refuses (regular files, directories), ENOSPC, ENOMEM: epoll_ctl(2).
    pub(super) fn register(&self, fd: BorrowedFd<'_>, registration: &Rc<Registration>) -> io::Result<()> {
        let mut entries = self.entries.borrow_mut();
        let key = entries.insert(Entry::Owned(Rc::clone(registration)));
        let interest = Interest::IN | Interest::OUT | Interest::RDHUP | Interest::PRI | Interest::EDGE;
        let mut added = self.epoll.add(fd, key.to_token(), interest);
        if added.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            // The set names a file by its number too. This file was in the set under the same number, that number was
            // closed, and the file lived on in a duplicate of which the hub did not know.
            let _ = self.epoll.delete(fd);
            added = self.epoll.add(fd, key.to_token(), interest);
        }
        if let Err(error) = added {
            entries.remove(key);
            return Err(error);
        }
        registration.key.set(Some(key));
        registration.number.set(fd.as_raw_fd());
        Ok(())
    }

    /// Forgets a descriptor; later events are ignored (reactor-1). With `shared`, the open file may have other
    /// descriptors, and is taken out of the epoll set; else the close of this descriptor takes it out.
    pub(super) fn deregister(&self, fd: BorrowedFd<'_>, registration: &Registration, shared: bool) {
        if let Some(key) = registration.key.take() {
            self.entries.borrow_mut().remove(key);
            if shared {
                // Fails only if the program closed the descriptor behind our back; then it is gone already.
                let _ = self.epoll.delete(fd);
            }
        }
    }

    /// Takes what events there are and wakes their waiters; waits up to `timeout` nanoseconds (`None`: for ever)
    /// for the first one. Returns how many there were, the bell's included.
    pub(crate) fn poll(&self, root: &Root, timeout: Option<u64>) -> usize {
        let mut events = self.events.borrow_mut();
        let mut failures = 0;
        while let Err(error) = self.epoll.wait(&mut events, timeout) {
            failures += 1;
            after_failure(&error, failures);
        }
        let entries = self.entries.borrow();
        let entry_of = |token| entries.get(Key::from_token(token));
        // What an event leads to is a chain of cache misses, entry -> registration -> waiter: each link of the chain is
        // fetched some events ahead.
        let (mut far, mut near) = (events.iter().skip(2 * PREFETCH_DISTANCE), events.iter().skip(PREFETCH_DISTANCE));
        for (token, ready) in events.iter() {
            if let Some(entry) = far.next().and_then(|(token, _)| entry_of(token)) {
                entry.prefetch();
            }
            if let Some(entry) = near.next().and_then(|(token, _)| entry_of(token)) {
                entry.prefetch_waiter();
            }
            // The bell is never read: a ring of an edge-triggered eventfd is an event all the same.
            if token != BELL_TOKEN
                && let Some(entry) = entry_of(token)
            {
                match entry {
                    Entry::Owned(registration) => registration.on_event(root, ready),
                    #[cfg(feature = "monkey")]
                    Entry::ByNumber(sink) => sink.on_event(self, root, ready),
                }
            }
        }
        events.iter().len()
    }

    /// Notes the events that the last wait has taken, for a trace. Those of patched calls are not noted.
    #[cold]
    pub(super) fn note_events(&self, root: &Root) {
        let (events, entries) = (self.events.borrow(), self.entries.borrow());
        events.iter().for_each(|(token, ready)| note_event(root, entries.get(Key::from_token(token)), ready));
    }

    /// Lets the network of a simulation come to the time of its clock, and wakes the waiters of what has become ready.
    #[cold]
    pub(crate) fn take_simulated(&self, root: &Root, simulated: &Simulated) {
        let changes = {
            let mut sockets = simulated.sockets.borrow_mut();
            sockets.network.advance(simulated.clock.get());
            sockets.network.take_changes()
        };
        let entries = self.entries.borrow();
        if root.is_recording() {
            let all = changes.iter().map(|(token, bits)| (entries.get(Key::from_token(*token)), *bits));
            all.for_each(|(entry, bits)| note_event(root, entry, Ready::of_virtual(bits)));
        }
        for (token, bits) in changes {
            match entries.get(Key::from_token(token)) {
                Some(Entry::Owned(registration)) => registration.on_event(root, Ready::of_virtual(bits)),
                #[cfg(feature = "monkey")]
                Some(Entry::ByNumber(sink)) => sink.on_event(self, root, Ready::of_virtual(bits)),
                None => {}
            }
        }
    }
}

/// Numbers that belong to the program: the caller says which entry is meant.
#[cfg(feature = "monkey")]
impl Reactor {
    /// Gives a sink of events a token.
    pub(super) fn insert_sink(&self, sink: Rc<dyn EventSink>) -> Key {
        self.entries.borrow_mut().insert(Entry::ByNumber(sink))
    }

    /// Takes the token back: later events are ignored (reactor-1).
    pub(super) fn remove_sink(&self, key: Key) {
        self.entries.borrow_mut().remove(key);
    }

    /// Asks the kernel for events of a number. Returns whether the number was not in the epoll set.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn arm_number(&self, fd: RawFd, key: Key, interest: Interest) -> io::Result<bool> {
        self.epoll.rearm(fd, key.to_token(), interest)
    }

    /// Takes a number out of the epoll set.
    pub(super) fn disarm_number(&self, fd: RawFd) {
        // Fails if the number names another file by now, or none. Then the entry went with its file, or has a token
        // that names nothing.
        let _ = self.epoll.delete_number(fd);
    }
}
