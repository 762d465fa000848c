//! What main and the clients of a run share: the options, the counts, and the events at which all begin and end.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use greenling::sync::{Event, Semaphore, WaitGroup};
use greenling::thread::{self, Thread};
use hdrhistogram::Histogram;

use crate::client::SPREAD;
use crate::failure::Failure;
use crate::options::Options;
use crate::source::Ports;

/// Connecting may take so long, whatever the number of connections.
const CONNECT_LIMIT: Duration = Duration::from_secs(120);

/// The longest latency that is told from a longer one, in nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

/// What main and the clients share. No `RefCell` is borrowed while a thread waits.
pub(crate) struct Run {
    pub(crate) options: Options,
    /// What messages are cut out of.
    pub(crate) pattern: Vec<u8>,
    /// The permits that allow to connect.
    pub(crate) window: Semaphore,
    /// When connecting ends at the latest.
    pub(crate) connect_until: Instant,
    /// The next ports of each source address.
    pub(crate) ports: RefCell<BTreeMap<Ipv4Addr, Ports>>,
    /// Connections that are still to be made.
    pub(crate) connecting: WaitGroup,
    /// Connections that send or are to send their last message.
    pub(crate) working: WaitGroup,
    /// Set when all have connected.
    pub(crate) start: Event,
    /// The time of the start.
    pub(crate) started: Cell<Option<Instant>>,
    /// The warm-up is over: what is due from now on counts.
    pub(crate) begun: Cell<Option<Instant>>,
    /// No client sends any more, but for the silent ones, once.
    pub(crate) over: Event,
    /// The time of the end.
    pub(crate) ended: Cell<Option<Instant>>,
    /// All may close their connections.
    pub(crate) leave: Event,
    /// Connections that were made.
    pub(crate) connected: Cell<usize>,
    /// Connections that could not be made.
    pub(crate) missing: Cell<usize>,
    /// The number of connections that work.
    pub(crate) alive: Cell<usize>,
    /// Messages that came back, before and after the warm-up.
    pub(crate) answers: Cell<u64>,
    /// Messages that may still be sent; `u64::MAX` while they are not counted.
    pub(crate) budget: Cell<u64>,
    /// Messages since the warm-up that get no answer any more: their connection has failed.
    pub(crate) lost: Cell<u64>,
    /// The latencies, in nanoseconds.
    pub(crate) latencies: RefCell<Histogram<u64>>,
    /// Messages that were due before the end and were not sent.
    pub(crate) unsent: Cell<u64>,
    /// How often each of [`Failure::ALL`] came.
    pub(crate) failures: RefCell<[u64; Failure::ALL.len()]>,
    /// The first failure's words.
    pub(crate) first_words: RefCell<Option<String>>,
    /// Waits for the end of the measurement: is woken by the last message of `--requests` and by the last connection
    /// that breaks.
    pub(crate) main: Thread,
}

impl Run {
    /// Returns a run that has not begun. `main` is the thread that calls this.
    pub(crate) fn new(options: Options) -> Run {
        Run {
            pattern: pattern(options.size * options.pipeline + SPREAD),
            window: Semaphore::new(options.in_flight),
            connect_until: Instant::now() + CONNECT_LIMIT,
            ports: RefCell::default(),
            connecting: WaitGroup::new(),
            working: WaitGroup::new(),
            start: Event::new(),
            started: Cell::new(None),
            begun: Cell::new(None),
            over: Event::new(),
            ended: Cell::new(None),
            leave: Event::new(),
            connected: Cell::new(0),
            missing: Cell::new(0),
            alive: Cell::new(0),
            answers: Cell::new(0),
            budget: Cell::new(u64::MAX),
            lost: Cell::new(0),
            // Latencies of up to an hour, each to three digits.
            latencies: RefCell::new(Histogram::new_with_max(HOUR, 3).expect("bounds that it takes")),
            unsent: Cell::new(0),
            failures: RefCell::default(),
            first_words: RefCell::default(),
            main: thread::current(),
            options,
        }
    }

    /// Takes up to `count` messages out of what may be sent: 0 when the run is over.
    #[inline]
    pub(crate) fn take(&self, count: usize) -> usize {
        if self.over.is_set() {
            return 0;
        }
        let budget = self.budget.get();
        if budget == u64::MAX {
            return count;
        }
        let count = budget.min(count as u64);
        self.budget.set(budget - count);
        count as usize
    }

    /// Counts `count` messages that came back and were due at `due`.
    #[inline]
    pub(crate) fn answered(&self, due: Instant, count: usize) {
        self.answers.set(self.answers.get() + count as u64);
        let Some(begun) = self.begun.get() else { return };
        if due < begun {
            return;
        }
        self.latencies.borrow_mut().saturating_record_n(nanoseconds(due.elapsed()), count as u64);
        if self.is_enough() {
            self.main.unpark();
        }
    }

    /// Counts `count` messages that were taken and will never be answered.
    pub(crate) fn missed(&self, count: usize) {
        self.lost.set(self.lost.get() + count as u64);
        if self.is_enough() {
            self.main.unpark();
        }
    }

    /// Reports whether all of `--requests` are back or lost.
    #[inline]
    pub(crate) fn is_enough(&self) -> bool {
        self.options.requests.is_some_and(|requests| self.counted() + self.lost.get() >= requests)
    }

    /// Puts back what was taken for messages that were due at `due`, if that was during the warm-up: they do not count.
    #[inline]
    pub(crate) fn put_back(&self, due: Instant, count: usize) {
        let budget = self.budget.get();
        if budget != u64::MAX && self.begun.get().is_some_and(|begun| due < begun) {
            self.budget.set(budget + count as u64);
        }
    }

    /// Counts `count` messages that were due at `due`, and had waited so long, unsent, when the run ended.
    pub(crate) fn skipped(&self, due: Instant, waited: Duration, count: u64) {
        if self.begun.get().is_some_and(|begun| due >= begun) {
            self.unsent.set(self.unsent.get() + count);
            self.latencies.borrow_mut().saturating_record_n(nanoseconds(waited), count);
        }
    }

    /// Counts a connection that worked and does not any more.
    pub(crate) fn lose(&self, failure: Failure, error: Option<io::Error>) {
        self.alive.set(self.alive.get() - 1);
        if self.alive.get() == 0 {
            self.main.unpark();
        }
        self.fail(failure, error);
    }

    /// Notes what went wrong.
    pub(crate) fn fail(&self, failure: Failure, error: Option<io::Error>) {
        self.failures.borrow_mut()[failure as usize] += 1;
        // For a missing answer the kernel's words would mislead: they are those of a socket that would block.
        if let Some(error) = error.filter(|_| failure != Failure::NoAnswer) {
            self.first_words.borrow_mut().get_or_insert_with(|| error.to_string());
        }
    }

    /// Returns the number of messages counted so far.
    pub(crate) fn counted(&self) -> u64 {
        self.latencies.borrow().len()
    }
}

/// Returns a duration in the form of the histogram.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns `length` bytes that look like nothing.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
