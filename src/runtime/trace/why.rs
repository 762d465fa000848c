//! Causes in words: why a thread waited, what woke it, and what the waker had waited for before.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::data::Trace;
use super::event::{Wait, Waker};
use super::slices::{Doing, Slice, Thread, ns, slices};

/// The most steps back from a wait.
const MOST_STEPS: usize = 16;

/// One wait of a thread, as [`Trace::waits`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitSpan<'a> {
    /// The number of the hub.
    pub hub: u64,
    /// The id of the thread.
    pub thread: u64,
    /// The begin of the wait, since the begin of the trace.
    pub at: Duration,
    /// How long the thread waited; up to the end of the trace, if it was not woken.
    pub lasted: Duration,
    /// What the thread waited for.
    pub wait: &'a Wait,
    /// What woke the thread; `None` if nothing did before the end of the trace.
    pub woken_by: Option<Waker>,
    /// How long the thread then was runnable, until its turn came.
    pub queued: Duration,
}

impl Trace {
    /// Returns all waits, thread by thread in the order of hubs and ids, each in the order of time.
    ///
    /// ```
    /// use greenling::{sleep, trace};
    /// use std::time::Duration;
    ///
    /// trace::start(trace::Options::new())?;
    /// sleep(Duration::from_millis(1));
    /// let trace = trace::stop()?;
    /// let waits = trace.waits();
    /// let longest = waits.iter().max_by_key(|wait| wait.lasted).unwrap();
    /// let why = trace.why(longest.hub, longest.thread, longest.at);
    /// assert!(why.starts_with("main slept for "), "{why}");
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// May switch: no.
    pub fn waits(&self) -> Vec<WaitSpan<'_>> {
        let mut waits = Vec::new();
        for ((hub, thread), slices) in slices(self) {
            for (number, slice) in slices.iter().enumerate() {
                if let Doing::Waits(wait) = slice.doing {
                    let next = slices.get(number + 1).filter(|next| next.doing == Doing::Runnable);
                    waits.push(WaitSpan {
                        hub,
                        thread,
                        at: Duration::from_nanos(slice.from),
                        lasted: length(slice),
                        wait,
                        woken_by: next.and_then(|next| next.woken_by),
                        queued: next.map(length).unwrap_or_default(),
                    });
                }
            }
        }
        waits
    }

    /// Says why the thread `thread` of the hub `hub` waited at the time `at`, counted from the begin of the trace: what
    /// for, how long, what woke it, and, step by step, what that thread had waited for before. The wording is not
    /// stable.
    ///
    /// ```text
    /// #17 waited for a value from a channel for 3.1 ms, from +9.214 ms to +12.305 ms, then 4.1 µs for its turn;
    ///   woken by #4 at +12.305 ms, which had waited until descriptor 9 can be read for 3.0 ms;
    ///   woken by descriptor 9 at +12.281 ms
    /// ```
    ///
    /// If the thread did not wait then, the text says what it did.
    ///
    /// May switch: no.
    pub fn why(&self, hub: u64, thread: u64, at: Duration) -> String {
        let threads = slices(self);
        let (label, time) = (self.label(hub, thread), Stamp(ns(at)));
        let found = threads.get(&(hub, thread)).and_then(|slices| Some((slices, slice_at(slices, ns(at))?)));
        let Some((slices, number)) = found else { return format!("of {label} at {time} the trace says nothing") };
        let slice = slices[number];
        let (from, to) = (Stamp(slice.from), Stamp(slice.to));
        let wait = match slice.doing {
            Doing::Waits(wait) => wait,
            Doing::Runs => return format!("{label} ran at {time}, from {from} to {to}"),
            Doing::Polls(_) => return format!("{label} polled at {time}, from {from} to {to}"),
            Doing::Runnable => {
                let why = slice.woken_by.map(|by| format!("; made so by {}", self.waker(hub, by))).unwrap_or_default();
                return format!("{label} was runnable at {time}, and waited for its turn from {from} to {to}{why}");
            }
        };
        let mut text = format!("{label} {} for {}, from {from} to {to}", past(wait), Time(slice.to - slice.from));
        let woken = slices.get(number + 1).filter(|next| next.doing == Doing::Runnable);
        match woken {
            Some(next) => _ = write!(text, ", then {} for its turn", Time(next.to - next.from)),
            None if slice.to >= ns(self.duration()) => text.push_str(", the end of the trace; nothing woke it"),
            None => {}
        }
        if let Some((by, at)) = woken.and_then(|next| Some((next.woken_by?, next.from))) {
            self.write_causes(&mut text, &threads, hub, by, at);
        }
        text
    }

    /// Adds what woke a thread at `at`, and what led to that.
    fn write_causes(
        &self,
        text: &mut String,
        threads: &BTreeMap<Thread, Vec<Slice<'_>>>,
        hub: u64,
        mut by: Waker,
        mut at: u64,
    ) {
        for _ in 0..MOST_STEPS {
            let _ = write!(text, ";\n  woken by {} at {}", self.waker(hub, by), Stamp(at));
            // The last wait of the waker that was over then, and what had ended that.
            let Waker::Thread(id) = by else { return };
            let Some(slices) = threads.get(&(hub, id)) else { return };
            let before = slices.partition_point(|slice| slice.to <= at);
            let wait = slices[..before].iter().rposition(|slice| matches!(slice.doing, Doing::Waits(_)));
            let Some(number) = wait else { return };
            let (slice, next) = (slices[number], slices.get(number + 1));
            let Doing::Waits(wait) = slice.doing else { unreachable!("`rposition` found a wait") };
            let _ = write!(text, ", which had {} for {}", perfect(wait), Time(slice.to - slice.from));
            match next.and_then(|next| Some((next.woken_by?, next.from))) {
                Some(cause) => (by, at) = cause,
                None => return,
            }
        }
        text.push_str(";\n  and so on");
    }

    /// Returns what a waker is called.
    fn waker(&self, hub: u64, by: Waker) -> String {
        if let Waker::Thread(id) = by { self.label(hub, id) } else { by.to_string() }
    }
}

/// Returns the length of a slice.
fn length(slice: &Slice<'_>) -> Duration {
    Duration::from_nanos(slice.to - slice.from)
}

/// Returns the number of the slice at this time; of two that meet there, the later one.
fn slice_at(slices: &[Slice<'_>], at: u64) -> Option<usize> {
    let number = slices.partition_point(|slice| slice.from <= at).checked_sub(1)?;
    (at <= slices[number].to).then_some(number)
}

/// Returns a wait in the past tense: "waited for a value from a channel".
fn past(wait: &Wait) -> String {
    match wait.text.split_once(' ') {
        Some(("waits", rest)) => format!("waited {rest}"),
        Some(("is", rest)) => format!("was {rest}"),
        _ if wait.text == "sleeps" => String::from("slept"),
        _ => format!("had this wait: {}", wait.text),
    }
}

/// Returns a wait in the form that follows "had".
fn perfect(wait: &Wait) -> String {
    past(wait).replacen("was ", "been ", 1)
}

/// Nanoseconds that are printed with a unit that fits, to four digits.
struct Time(u64);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, size) = match self.0 {
            0..1_000 => return write!(f, "{} ns", self.0),
            1_000..1_000_000 => ("µs", 1e3),
            1_000_000..1_000_000_000 => ("ms", 1e6),
            _ => ("s", 1e9),
        };
        write!(f, "{:.1} {unit}", self.0 as f64 / size)
    }
}

/// A moment in nanoseconds since the begin of the trace, printed to the microsecond: moments are compared.
struct Stamp(u64);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "+{}.{:03} ms", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_that_fits() {
        let printed = [0, 999, 1_250, 3_100_000, 2_500_000_000].map(|ns| Time(ns).to_string());
        assert_eq!(printed, ["0 ns", "999 ns", "1.2 µs", "3.1 ms", "2.5 s"]);
        assert_eq!([0, 12_305_999].map(|ns| Stamp(ns).to_string()), ["+0.000 ms", "+12.305 ms"]);
    }
}
