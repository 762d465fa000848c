//! The recorder: what a trace notes of one OS thread, in rings of fixed size.
//!
//! A record has 32 bytes: the time in ticks, the thread, and what happened. The functions here look at a fiber and
//! write; they call no foreign code, allocate nothing and use no thread-local. `traced` says when they are called, and
//! `runtime::trace` makes events for programs out of the records.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, TryReserveError};
use std::panic::Location;

use super::fiber::{Fiber, Held, Holder, Reason};
use crate::pure::event_ring::{EventRing, TextAt, TextRing};
use crate::sys::clock::NEVER;
use crate::sys::ticks::{Moment, Ticker, to_ns};

/// The most different words in reasons, such as "a Condvar"; they come from the crate, which has fewer.
const WORDS: usize = 256;

/// The most bytes of a name, mark or span that are kept.
const MOST_TEXT: u16 = 256;

/// What woke a fiber, or spawned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The thread of which the record has the id.
    Thread,
    /// The descriptor of which the record has the number.
    Descriptor,
    /// One of several descriptors, for which the fiber waited at once.
    Several,
    /// A timer of the fiber.
    Timer,
    /// What another OS thread asked for.
    Remote,
}

/// The kind of a text in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextKind {
    /// The name of the thread.
    Name,
    /// A mark of the program.
    Mark,
    /// The begin of a span of the program.
    Begin,
    /// The end of a span, with the place of the text of its begin.
    End,
}

/// A reason without its words and numbers; see [`Recorder::pack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A reason that has no part that has to be kept elsewhere: the index is that of [`PLAIN`].
    Plain(u8),
    /// `Reason::Join`, with the id of the thread.
    Join,
    /// `Reason::Switch`, with the id of the target.
    Switch,
    /// `Reason::Read`, with the descriptor.
    Read,
    /// `Reason::Write`, with the descriptor.
    Write,
    /// `Reason::Lock`, with its word.
    Lock,
    /// `Reason::Event`, with its word.
    Event,
    /// `Reason::Job`, with its word.
    Job,
    /// `Reason::Remote`, with its word.
    Remote,
    /// `Reason::Held`, with the id of the holder.
    Held(Held),
    /// `Reason::Shared`, with the holder; see [`holder_bits`].
    Shared(Held),
    /// `Reason::Foreign`, with the address.
    #[cfg(feature = "monkey")]
    Foreign(super::fiber::Foreign),
}

/// The reasons that have no parts.
const PLAIN: [Reason; 5] = [Reason::Park, Reason::Sleep, Reason::Scope, Reason::Receive, Reason::Send];

/// What happened to a thread or the hub. `repr(u8)`, because then the size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum What {
    /// The thread was spawned at this place. The cause is in the record that follows.
    Spawn(&'static Location<'static>),
    /// The thread was there already when the trace began.
    Found(&'static Location<'static>),
    /// The thread was made runnable, by the cause with this number.
    Ready(Cause, u64),
    /// The thread got the CPU; so many others were runnable.
    Run(u32),
    /// The thread let others run, and stays runnable.
    Yield,
    /// The thread began to wait.
    Park(Shape, u16, u64),
    /// The thread came to its end.
    End,
    /// The thread was killed by this one; 0 for another OS thread.
    Kill(u64),
    /// The hub began to poll; with `true`, nothing was runnable.
    Poll(bool),
    /// The poll was over.
    Polled,
    /// The wait that the thread has just begun ends at this time of the hub's clock at the latest.
    Deadline(u64),
    /// The entry of the thread in the timer wheel is for this time of the hub's clock.
    Timer(u64),
    /// The entry of the thread was taken out of the timer wheel, and woke nothing.
    NoTimer,
    /// The timer wheel has come to this time of the hub's clock.
    Wheel(u64),
    /// The descriptor was put into the epoll set.
    Registered(i32),
    /// The descriptor was taken out of the epoll set.
    Deregistered(i32),
    /// The descriptor was reported: that it can be read, and that it can be written.
    Event(i32, bool, bool),
    /// A text of `len` bytes at `from`.
    Text(TextKind, u16, u64),
}

/// One record of the ring.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Record {
    /// The time in ticks.
    pub(crate) ticks: u64,
    /// The id of the thread; 0 for the hub.
    pub(crate) thread: u64,
    /// What happened to the thread.
    pub(crate) what: What,
}

/// The size of a record is what makes rings small; so many bytes are promised.
const _: () = assert!(size_of::<Record>() <= 32);

/// What the runtime is doing, as far as wake-ups have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A thread runs, and wakes.
    Thread,
    /// The hub polls: descriptors and timers wake.
    Poll,
    /// The hub carries out what other OS threads ask for.
    Remote,
}

/// The recorder of one OS thread.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// The latest records, in a ring.
    records: EventRing<Record>,
    /// The latest texts of the program.
    text: TextRing,
    /// The words of reasons, which records name by index.
    words: RefCell<Vec<&'static str>>,
    /// What counts the time.
    pub(crate) ticker: Ticker,
    /// The moment at which the recorder was made.
    pub(crate) began: Moment,
    /// The id of the thread that runs, as far as it was noted; 0 for none.
    pub(super) running: Cell<u64>,
    /// What the runtime is doing.
    pub(super) source: Cell<Source>,
    /// The time to which the timer wheel had come when that was noted last.
    wheel: Cell<u64>,
}

impl Recorder {
    /// Makes a recorder for at least `events` records and `text` bytes.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn new(events: usize, text: usize) -> Result<Recorder, TryReserveError> {
        let ticker = Ticker::find();
        let began = ticker.moment();
        let blank = Record { ticks: 0, thread: 0, what: What::Polled };
        let mut words = Vec::new();
        words.try_reserve_exact(WORDS)?;
        Ok(Recorder {
            records: EventRing::new(events, blank)?,
            text: TextRing::new(text)?,
            words: RefCell::new(words),
            ticker,
            began,
            running: Cell::new(0),
            source: Cell::new(Source::Thread),
            wheel: Cell::new(began.1),
        })
    }

    /// Notes that something happened to a thread, now.
    #[inline(always)]
    pub(crate) fn note(&self, thread: u64, what: What) {
        self.note_at(self.ticker.now(), thread, what);
    }

    /// Notes that something happened to a thread at `ticks`.
    #[inline(always)]
    pub(super) fn note_at(&self, ticks: u64, thread: u64, what: What) {
        self.records.push(Record { ticks, thread, what });
    }

    /// Notes a text of the program, or a name. Returns where the text lies.
    pub(crate) fn note_text(&self, thread: u64, kind: TextKind, text: &str) -> TextAt {
        let at = self.text.push(text, MOST_TEXT);
        self.note(thread, What::Text(kind, at.len, at.from));
        at
    }

    /// Notes the place at which a fiber was spawned, and its name if it has one.
    pub(super) fn note_fiber(&self, fiber: Fiber, what: What) {
        let id = fiber.id.get();
        self.note(id, what);
        fiber.with_name(|name| name.map(|name| self.note_text(id, TextKind::Name, name)));
    }

    /// Notes the deadline of `fiber`, which has begun to wait, and its entry in the timer wheel, which is at the time
    /// `wheel`.
    #[inline]
    pub(super) fn note_timers(&self, ticks: u64, fiber: Fiber, wheel: impl FnOnce() -> u64) {
        if !fiber.in_wheel.get() {
            return;
        }
        self.note_wheel(ticks, wheel());
        let (id, deadline) = (fiber.id.get(), fiber.deadline.get());
        if deadline != NEVER {
            self.note_at(ticks, id, What::Deadline(deadline));
        }
        self.note_at(ticks, id, What::Timer(fiber.timer_at.get()));
    }

    /// Notes that the timer wheel has come to the time `at`, unless that is known.
    pub(super) fn note_wheel(&self, ticks: u64, at: u64) {
        if at > self.wheel.get() {
            self.wheel.set(at);
            self.note_at(ticks, 0, What::Wheel(at));
        }
    }

    /// Returns the cause of a wake-up of `fiber`, or of its spawn, as a record has it.
    #[inline]
    pub(super) fn cause(&self, fiber: Fiber) -> What {
        match (self.source.get(), fiber.reason.get()) {
            (Source::Thread, _) => What::Ready(Cause::Thread, self.running.get()),
            (Source::Remote, _) => What::Ready(Cause::Remote, 0),
            (Source::Poll, _) if fiber.timed_out.get() => What::Ready(Cause::Timer, 0),
            // No bits are lost: the sign is extended, and cut off again.
            (Source::Poll, Reason::Read(fd) | Reason::Write(fd)) => What::Ready(Cause::Descriptor, fd as u64),
            (Source::Poll, _) => What::Ready(Cause::Several, 0),
        }
    }

    /// Returns the records that are left, the oldest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.records.iter()
    }

    /// Returns how often each thread got the CPU, and for how many nanoseconds it had it, as far as there are records:
    /// by the ids of the threads.
    pub(crate) fn turns(&self) -> HashMap<u64, (u64, u64)> {
        let (mut turns, mut running) = (HashMap::<u64, (u64, u64)>::new(), None);
        let now = self.ticker.moment();
        let leave = |running: Option<(u64, u64)>, at: u64, turns: &mut HashMap<u64, (u64, u64)>| {
            if let Some((thread, since)) = running {
                let ran = to_ns(at, self.began, now).saturating_sub(to_ns(since, self.began, now));
                turns.entry(thread).or_default().1 += ran;
            }
        };
        for record in self.records() {
            match record.what {
                What::Run(_) => {
                    leave(running.replace((record.thread, record.ticks)), record.ticks, &mut turns);
                    turns.entry(record.thread).or_default().0 += 1;
                }
                What::Yield | What::Park(..) | What::End => leave(running.take(), record.ticks, &mut turns),
                _ => {}
            }
        }
        leave(running, now.0, &mut turns);
        turns
    }

    /// Returns how many records were overwritten.
    pub(crate) fn lost(&self) -> u64 {
        self.records.lost()
    }

    /// Returns a text, unless it was overwritten.
    pub(crate) fn text(&self, len: u16, from: u64) -> Option<String> {
        self.text.get(TextAt { from, len })
    }

    /// Takes a reason apart for a record. A shared lock's holder loses the high bits of its numbers.
    #[inline]
    pub(super) fn pack(&self, reason: Reason) -> What {
        let (shape, word, number) = match reason {
            Reason::Park => (Shape::Plain(0), "", 0),
            Reason::Sleep => (Shape::Plain(1), "", 0),
            Reason::Scope => (Shape::Plain(2), "", 0),
            Reason::Receive => (Shape::Plain(3), "", 0),
            Reason::Send => (Shape::Plain(4), "", 0),
            Reason::Join(id) => (Shape::Join, "", id),
            Reason::Switch(id) => (Shape::Switch, "", id),
            // As in `cause`.
            Reason::Read(fd) => (Shape::Read, "", fd as u64),
            Reason::Write(fd) => (Shape::Write, "", fd as u64),
            Reason::Lock(what) => (Shape::Lock, what, 0),
            Reason::Event(what) => (Shape::Event, what, 0),
            Reason::Job(what) => (Shape::Job, what, 0),
            Reason::Remote(what) => (Shape::Remote, what, 0),
            Reason::Held(held, id) => (Shape::Held(held), "", id),
            Reason::Shared(held, holder) => (Shape::Shared(held), "", holder_bits(holder)),
            #[cfg(feature = "monkey")]
            Reason::Foreign(what, at) => (Shape::Foreign(what), "", at as u64),
        };
        let word = if word.is_empty() { 0 } else { self.index_of(word) };
        What::Park(shape, word, number)
    }

    /// Returns the index of a word, which is added if it is new.
    fn index_of(&self, word: &'static str) -> u16 {
        let mut words = self.words.borrow_mut();
        // Words are compared by address: two copies of one word do no harm.
        let found = words.iter().position(|known| std::ptr::eq(*known, word));
        let index = found.unwrap_or_else(|| {
            // The vector has its memory (`new`).
            if words.len() < WORDS {
                words.push(word);
            }
            words.len() - 1
        });
        // No bits are lost: there are `WORDS` at most.
        index as u16
    }

    /// Puts a reason together that `pack` took apart.
    pub(crate) fn unpack(&self, shape: Shape, word: u16, number: u64) -> Reason {
        let word = self.words.borrow().get(usize::from(word)).copied().unwrap_or("something");
        match shape {
            Shape::Plain(index) => PLAIN[usize::from(index)],
            Shape::Join => Reason::Join(number),
            Shape::Switch => Reason::Switch(number),
            Shape::Read => Reason::Read(number as i32),
            Shape::Write => Reason::Write(number as i32),
            Shape::Lock => Reason::Lock(word),
            Shape::Event => Reason::Event(word),
            Shape::Job => Reason::Job(word),
            Shape::Remote => Reason::Remote(word),
            Shape::Held(held) => Reason::Held(held, number),
            Shape::Shared(held) => Reason::Shared(held, bits_holder(number)),
            #[cfg(feature = "monkey")]
            Shape::Foreign(what) => Reason::Foreign(what, number as usize),
        }
    }
}

/// The bits of a record that hold the id of a thread of another hub; the rest hold the number of its root.
const ID_BITS: u32 = 44;

/// Returns a holder as one word: the low bits of both of its numbers.
fn holder_bits(holder: Holder) -> u64 {
    holder.root << ID_BITS | holder.id & ((1 << ID_BITS) - 1)
}

/// Returns the holder of such a word.
fn bits_holder(bits: u64) -> Holder {
    Holder { root: bits >> ID_BITS, id: bits & ((1 << ID_BITS) - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_comes_back_as_it_was() {
        let recorder = Recorder::new(16, 16).unwrap();
        let mut reasons = Vec::from(PLAIN);
        reasons.extend([7, u64::MAX].map(Reason::Join));
        reasons.extend([Reason::Switch(9), Reason::Read(-1), Reason::Write(i32::MAX), Reason::Lock("a")]);
        reasons.extend([Reason::Event("b"), Reason::Job("c"), Reason::Remote("a"), Reason::Held(Held::Read, 3)]);
        reasons.push(Reason::Shared(Held::Once, Holder { root: 5, id: (1 << ID_BITS) - 1 }));
        #[cfg(feature = "monkey")]
        reasons.push(Reason::Foreign(crate::switch::fiber::Foreign::Futex, usize::MAX));
        for reason in reasons {
            let What::Park(shape, word, number) = recorder.pack(reason) else { panic!("{reason:?}") };
            assert_eq!(recorder.unpack(shape, word, number), reason);
        }
    }

    #[test]
    fn more_words_than_there_is_room_for_do_no_harm() {
        let recorder = Recorder::new(16, 16).unwrap();
        for number in 0..WORDS + 10 {
            let word: &'static str = Box::leak(format!("word {number}").into_boxed_str());
            recorder.pack(Reason::Event(word));
        }
        assert_eq!(recorder.words.borrow().len(), WORDS);
    }
}
