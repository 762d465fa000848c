//! Reasons: what a fiber waits for, as reports print it.
//!
//! A debugger reads reasons from memory, so their layouts are fixed (`repr`), and `debugger` has words for each.
#![forbid(unsafe_code)]

/// A reason to wait. Each reason has one place in the runtime that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    /// A call of `thread::park`.
    Park,
    /// A call of `sleep`.
    Sleep,
    /// The end of the green thread with this id.
    Join(u64),
    /// The end of all threads of a scope.
    Scope,
    /// An explicit switch; the id is that of the greenlet that was switched to.
    Switch(u64),
    /// Readability of a file descriptor.
    Read(i32),
    /// Writability of a file descriptor.
    Write(i32),
    /// A lock, with the name of the value that the lock protects.
    Lock(&'static str),
    /// Something that one fiber has at a time, and the id of the holder; 0 if several readers are holders. In a list
    /// of waiters only the id of the first is kept up to date; the others wait behind that waiter.
    Held(Held, u64),
    /// A value from a channel.
    Receive,
    /// Room in a channel.
    Send,
    /// An event, in words that follow "waits for"; for a `Condvar`, [`NOTIFICATION`].
    Event(&'static str),
    /// A job on an OS thread, named by what the job does.
    Job(&'static str),
    /// The work of another hub, named by what the work is.
    Remote(&'static str),
    /// A lock of `hub::sync`, and the thread that holds the lock; brought up to date for reports
    /// (`runtime::shared_waits: note_holders`).
    Shared(Held, Holder),
    /// Something of `std` or C that patched calls wait for, and the address that the wait is for.
    #[cfg(feature = "monkey")]
    Foreign(Foreign, usize),
}

/// What the waiter of a `Condvar` waits for.
pub(crate) const NOTIFICATION: &str = "a Condvar to be notified";

/// What a patched call that waits for an address waits for.
#[cfg(feature = "monkey")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Foreign {
    /// A futex: a lock, channel or park of `std` or of a crate.
    Futex,
    /// The end of an OS thread; the address is the kernel's number of that thread, or 0.
    Thread,
    /// A mutex of C.
    Mutex,
    /// A condition variable of C.
    Condvar,
    /// A lock of C for readers and writers.
    Rwlock,
    /// A semaphore of C.
    Semaphore,
    /// A barrier of C.
    Barrier,
    /// A routine that another thread runs, for `pthread_once`.
    Once,
}

impl Reason {
    /// Reports whether a remote op from another OS thread ends the wait, or the same op made on this OS thread.
    #[inline]
    pub(crate) fn is_remote(self) -> bool {
        #[cfg(feature = "monkey")]
        if matches!(self, Reason::Foreign(..)) {
            return true;
        }
        matches!(self, Reason::Job(_) | Reason::Remote(_) | Reason::Shared(..))
    }
}

/// A thread, named by the number of a root and an id there: unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Holder {
    /// The number of the root; 0 for no thread, or for one that is not known.
    pub(crate) root: u64,
    /// The id of the thread within that root.
    pub(crate) id: u64,
}

impl Holder {
    /// No thread, or one that is not known.
    pub(crate) const UNKNOWN: Holder = Holder { root: 0, id: 0 };
}

/// The kind of thing that a fiber holds while others wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Held {
    /// A `sync::Mutex`, or a mutex of `hub::sync`.
    Mutex,
    /// A `sync::RwLock`; the waiter wants to read.
    Read,
    /// A `sync::RwLock`; the waiter wants to write.
    Write,
    /// The turn of a `sync::Once`.
    Once,
}
