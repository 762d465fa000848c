//! The events of a trace.
#![forbid(unsafe_code)]

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::thread_info::{ThreadRef, WaitReason};

/// One thing that happened in a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The time since the begin of the trace.
    pub at: Duration,
    /// The number of the hub, unique in the process, as in reports.
    pub hub: u64,
    /// The id of the thread within the hub, as in reports: 1 for main, 0 where the event is the hub's own.
    pub thread: u64,
    /// The thing that happened.
    pub kind: EventKind,
}

/// The kind of an [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The thread was spawned at this place of the program. The `Ready` that follows says by which thread.
    Spawned(&'static Location<'static>),
    /// The thread was there when the trace began; it was spawned at this place. If the thread was waiting, a `Waits`
    /// follows.
    Found(&'static Location<'static>),
    /// The thread was made runnable, and now waits for its turn.
    Ready(Waker),
    /// The thread got the CPU.
    Runs {
        /// The number of other threads that were runnable.
        queue: u32,
    },
    /// The thread let others run, and stays runnable.
    Yields,
    /// The thread began to wait.
    Waits(Arc<Wait>),
    /// The thread came to its end.
    Ended,
    /// The thread is to be unwound, by a kill or because its scope has failed.
    Killed {
        /// The thread that killed it; `None` if that is a thread of another OS thread.
        by: Option<u64>,
    },
    /// The hub began to look for events, timers and what other OS threads ask for.
    PollBegins {
        /// Whether no thread was runnable, so that the hub sleeps until something happens.
        idle: bool,
    },
    /// The hub went on.
    PollEnds,
    /// The wait that the thread has just begun ends at this time at the latest, by a timeout or because a sleep is
    /// over.
    Deadline(Duration),
    /// The entry of the thread in the hub's timer wheel is for this time. It may be earlier than the deadline of the
    /// thread, or be left over of a wait that has ended: the hub moves it, or drops it, when it is due.
    Timer(Duration),
    /// The entry of the thread was taken out of the timer wheel, and woke nothing.
    TimerDropped,
    /// The timer wheel of the hub has come to this time: timers that were due have fired.
    Wheel(Duration),
    /// The thread put this descriptor into the hub's epoll set, because a call on it had to wait for the first time.
    Registered(i32),
    /// The thread took this descriptor out of the epoll set: it was closed, or leaves the hub.
    Deregistered(i32),
    /// The epoll set reported a descriptor in the poll that is about to end. Threads that this woke are `Ready`
    /// already. Descriptors of patched calls are not told.
    Event {
        /// The number of the descriptor.
        fd: i32,
        /// Whether it can be read, at least to learn of an end or an error.
        readable: bool,
        /// Whether it can be written.
        writable: bool,
    },
    /// A mark of the program: [`mark`](crate::trace::mark).
    Mark(Arc<str>),
    /// The begin of a span of the program: [`span`](crate::trace::span).
    SpanBegins {
        /// The text of the span.
        text: Arc<str>,
        /// The number of the span, which its end has, too.
        span: u64,
    },
    /// The end of a span.
    SpanEnds {
        /// The text of the span.
        text: Arc<str>,
        /// The number of the span.
        span: u64,
    },
}

/// What made a thread runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waker {
    /// The thread of the same hub with this id.
    Thread(u64),
    /// A descriptor that became ready: its number, or `None` if the thread waited for several things at once.
    Descriptor(Option<i32>),
    /// A timer: the end of a sleep, a timeout.
    Timer,
    /// Another OS thread: a thread of another hub, the end of a blocking job.
    Remote,
}

impl fmt::Display for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waker::Thread(1) => f.write_str("main"),
            Waker::Thread(id) => write!(f, "#{id}"),
            Waker::Descriptor(Some(fd)) => write!(f, "descriptor {fd}"),
            Waker::Descriptor(None) => f.write_str("a descriptor"),
            Waker::Timer => f.write_str("a timer"),
            Waker::Remote => f.write_str("another OS thread"),
        }
    }
}

/// What a thread waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// The reason, as [`hub::threads`](crate::hub::threads) has it, but for what a descriptor is.
    pub reason: WaitReason,
    /// The thread that is waited for, if there is exactly one.
    pub awaits: Option<ThreadRef>,
    /// The reason in words, as in reports: "waits until descriptor 5 can be read". The wording is not stable.
    pub text: String,
}

impl Wait {
    /// Returns the kind of the wait as one word, for colours and statistics: "park", "sleep", "join", "switch", "io",
    /// "lock", "channel", "event", "work" (of another OS thread) or "foreign".
    ///
    /// May switch: no.
    pub fn kind(&self) -> &'static str {
        match self.reason {
            WaitReason::Park => "park",
            WaitReason::Sleep => "sleep",
            WaitReason::Join | WaitReason::Scope => "join",
            WaitReason::Switch => "switch",
            WaitReason::Read(_) | WaitReason::Write(_) => "io",
            WaitReason::Lock { .. } | WaitReason::LockOf(_) => "lock",
            WaitReason::Receive | WaitReason::Send => "channel",
            WaitReason::Event(_) => "event",
            WaitReason::Job(_) | WaitReason::Remote(_) => "work",
            WaitReason::Foreign { .. } | WaitReason::OsThread(_) => "foreign",
        }
    }
}
