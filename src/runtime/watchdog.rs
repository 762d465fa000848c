//! The watch: hubs that are held up, what holds them, and what that does.
//!
//! ```text
//!   a hub      |polls|######## one turn ########|polls|          ###: the hub cannot serve anything
//!              |--- futex ---|p|--- futex ---|p|--- futex --     the same, in many turns
//!   the watch  . . . . . . . . ! . . . . . . . . .               looks; adds up turns of 10 ms and more
//!                              '-- held up for the limit, of the last two limits: one report
//! ```
//!
//! The watch looks at what each hub has counted (`counters`): since when the present turn lasts, and the sum of those
//! that are over. So a hub pays nothing, and one that sleeps in epoll_wait is never held up. Only when a report is due
//! is the hub's OS thread disturbed, by one signal (`stack_sample`), which tells the thread that runs and its stack.
//!
//! Main by itself holds up nothing. Whether there are green threads, only the hub knows, so the signal finds that out,
//! too; then the watch asks about this turn once more when it is three times as long, and so on.
//!
//! A machine that has no processor to spare is not the program's fault. What the hub's OS thread has waited for one, by
//! the kernel's count (`os_thread::waited`), is no held-up time; it is read when a long turn is seen first and when a
//! report is due. An OS thread that runs, but has had no processor for long enough to answer the signal, is asked once
//! more later. And a watch that could not look for long tells nothing of the time before: it had no processor itself,
//! or the process was stopped.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::counters::{self, Counters, HELD_UP_FROM, Pulse};
use crate::switch::overflow;
use crate::switch::root::existing_root;
use crate::switch::suspended;
use crate::sys::clock::monotonic_ns;
use crate::sys::message::Message;
use crate::sys::os_thread::{self, Doing};
use crate::sys::signal::write_stderr_within;
use crate::sys::stack_sample::{self, NoSample, Running, Sample};
use crate::sys::symbols::Symbols;

/// The least limit, in nanoseconds: shorter turns count for nothing.
pub(crate) const LEAST_LIMIT: u64 = 2 * HELD_UP_FROM;

/// How many looks there are in one limit.
const LOOKS: u64 = 20;

/// The least time between two looks, in nanoseconds.
const LEAST_INTERVAL: u64 = 5_000_000;

/// The most time between two looks, in nanoseconds.
const MOST_INTERVAL: u64 = 100_000_000;

/// How late a look may be until it counts as the first one, in nanoseconds.
const LATE: u64 = 250_000_000;

/// How long a reader of a standard error that does not block may take for the next part of a report. A look that is
/// late for that counts as the first one.
const WRITE_TIME: Duration = Duration::from_secs(2);

/// The number of frames that a report shows.
const SHOWN_FRAMES: usize = 24;

/// The name of what runs when no fiber does.
const THE_RUNTIME: &str = "the runtime";

/// The names with which frames of the runtime and of `std` begin; at the outer end of a stack they are left out.
const RUNTIME: [&str; 9] =
    ["greenling::", "<greenling::", "corosensei::", "core::", "std::", "<core::", "<alloc::", "__rust", "stack_"];

/// What is known of the hubs.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// The hubs that were there at the latest look.
    hubs: Vec<Watched>,
    /// When the latest look was, in monotonic nanoseconds.
    looked: u64,
    /// Since when the watch looks without a gap: time before that is not counted.
    floor: u64,
}

/// What is known of one hub. Times are monotonic nanoseconds.
#[derive(Debug)]
struct Watched {
    /// The number of the hub.
    hub: u64,
    /// When the present period began; none before the first look.
    began: Option<u64>,
    /// The sum of long turns when the period began.
    base: u64,
    /// How many such turns there were when it began.
    base_turns: u64,
    /// The sum of long turns at the latest look, with the present one.
    total: u64,
    /// When that sum has grown the last time.
    grown: u64,
    /// How long the OS thread had waited for a processor when the period began.
    base_waited: u64,
    /// When the latest long turn began; 0 for none.
    turn_since: u64,
    /// How long the OS thread had waited for a processor when that turn was seen first.
    turn_waited: u64,
    /// A turn that has held up nothing, since main is alone.
    quiet: Quiet,
    /// What was reported and is not over.
    reported: Option<Reported>,
}

/// A turn of which nothing is asked for a while. Times are monotonic nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Quiet {
    /// When the turn began; 0 for none.
    since: u64,
    /// Until when nothing is asked.
    until: u64,
}

/// A report that waits for its end.
#[derive(Clone, Copy, Debug)]
enum Reported {
    /// One turn, which began at this time.
    Turn(u64),
    /// Turns that were short enough, but many.
    Turns,
}

/// Names what runs in hub `hub`, if that is this OS thread's: see [`stack_sample::Describe`].
fn describe(hub: u64, stack_pointer: usize, out: &mut Message) -> Option<Running> {
    let root = existing_root().filter(|root| root.number() == hub)?;
    let fiber = root.current();
    // In a poll the current fiber is still the one that ran last, which may wait, while the loop runs on another stack:
    // main's, which waits, too, if it is the current one.
    let runs = if fiber.is_main() { fiber.state.get().is_runnable() } else { suspended::has(fiber, stack_pointer) };
    if !runs {
        let _ = out.write_str(THE_RUNTIME);
        return Some(Running { main: false, live: root.live(), stack_end: usize::MAX });
    }
    // The scheduler's names are not asked for: the signal may have interrupted it. An error says that the message is
    // full.
    let _ = overflow::write_label(fiber, out, |_| {});
    let stack_end = if fiber.is_main() { usize::MAX } else { fiber.slot().top() };
    Some(Running { main: fiber.is_main(), live: root.live(), stack_end })
}

/// Returns the time between two looks for this limit.
pub(super) fn interval(limit: u64) -> u64 {
    (limit / LOOKS).clamp(LEAST_INTERVAL, MOST_INTERVAL)
}

/// Returns what holds up hub `hub` on OS thread `os_thread`, as lines: for a hub that does not answer.
pub(super) fn held_by(os_thread: i32, hub: u64) -> String {
    let doing = os_thread::doing(os_thread);
    let sample = stack_sample::ask(os_thread, hub, describe);
    let mut text = String::new();
    describe_holder(&mut text, os_thread, &doing, &sample);
    text
}

impl Watchdog {
    /// Looks at all hubs, and reports those that were held up for `limit`, and those that turn again.
    pub(super) fn look(&mut self, limit: u64) {
        let now = monotonic_ns();
        if now.saturating_sub(self.looked) > 2 * interval(limit) + LATE {
            self.floor = now;
            self.hubs.iter_mut().for_each(|watched| (watched.began, watched.turn_since) = (None, 0));
        }
        let all = counters::all();
        self.hubs.retain(|watched| {
            let is_there = all.iter().any(|counters| counters.hub == watched.hub);
            if !is_there && watched.reported.is_some() {
                write_stderr_within(format!("greenling: hub {} has ended\n", watched.hub).as_bytes(), WRITE_TIME);
            }
            is_there
        });
        for counters in &all {
            let at = match self.hubs.iter().position(|watched| watched.hub == counters.hub) {
                Some(at) => at,
                None => {
                    self.hubs.push(Watched::new(counters.hub, now));
                    self.hubs.len() - 1
                }
            };
            self.hubs[at].look_at(counters, limit, self.floor, monotonic_ns());
        }
        self.looked = monotonic_ns();
    }
}

impl Watched {
    /// Makes the state of a hub that is seen for the first time.
    fn new(hub: u64, now: u64) -> Watched {
        Watched {
            hub,
            began: None,
            base: 0,
            base_turns: 0,
            total: 0,
            grown: now,
            base_waited: 0,
            turn_since: 0,
            turn_waited: 0,
            quiet: Quiet::default(),
            reported: None,
        }
    }

    /// Looks at this hub at `now`, and not at what was before `floor`, both in monotonic nanoseconds.
    fn look_at(&mut self, counters: &Arc<Counters>, limit: u64, floor: u64, now: u64) {
        let pulse = counters.pulse();
        // When the turn is over it counts as a whole, also the part before the floor.
        let (turn, total) = (pulse.turn(now, floor), pulse.held_up + pulse.turn(now, 0));
        if total > self.total {
            self.grown = now;
        }
        self.total = total;
        let waited = || os_thread::waited(counters.os_thread).unwrap_or(0);
        if turn > 0 && self.turn_since != pulse.working_since {
            (self.turn_since, self.turn_waited) = (pulse.working_since, waited());
        }
        match self.reported {
            Some(Reported::Turn(since)) if pulse.working_since != since => {
                let end = if pulse.working_since == 0 { now } else { pulse.working_since };
                self.end(&format!("turns again after {:.1} s", seconds(end.saturating_sub(since))));
            }
            Some(Reported::Turns) if now.saturating_sub(self.grown) > limit / 2 => {
                let [held, all] = [self.held(counters), now - self.began.unwrap_or(now)].map(seconds);
                self.end(&format!("is held up no more: it was for {held:.1} s of the last {all:.1} s"));
            }
            Some(_) => {}
            None => {
                // A new period, if the present one is over and the present turn did not begin in it.
                if self.began.is_none_or(|began| now - began > 2 * limit && turn < limit) {
                    (self.began, self.base, self.base_turns) = (Some(now - turn), total - turn, pulse.held_turns);
                    self.base_waited = if turn > 0 { self.turn_waited } else { waited() };
                }
                // What main did alone in another turn says nothing of this one.
                let is_quiet = pulse.working_since == self.quiet.since && now < self.quiet.until;
                let is_due = total.saturating_sub(self.base) >= limit && turn > 0 && !is_quiet;
                if is_due && self.is_held_up(counters, limit) {
                    self.report(counters, &pulse, turn, limit, now);
                }
            }
        }
    }

    /// Returns for how long the hub was held up in the present period, without what it has waited for a processor.
    fn held(&self, counters: &Counters) -> u64 {
        // Where the kernel does not say, it counts as no wait.
        let waited = os_thread::waited(counters.os_thread).map_or(0, |waited| waited.saturating_sub(self.base_waited));
        self.total.saturating_sub(self.base).saturating_sub(waited)
    }

    /// Reports whether the hub was held up for `limit` in the present period, by turns that are long without the waits
    /// for a processor, on average.
    fn is_held_up(&self, counters: &Counters, limit: u64) -> bool {
        let turns = counters.pulse().held_turns.saturating_sub(self.base_turns);
        self.held(counters) >= limit.max(turns * HELD_UP_FROM)
    }

    /// Writes that what was reported is over.
    fn end(&mut self, what: &str) {
        (self.reported, self.began) = (None, None);
        write_stderr_within(format!("greenling: hub {} {what}\n", self.hub).as_bytes(), WRITE_TIME);
    }

    /// Finds out what holds the hub up at `now`, and writes the report.
    fn report(&mut self, counters: &Arc<Counters>, pulse: &Pulse, turn: u64, limit: u64, now: u64) {
        // What the OS thread does, before the signal interrupts it.
        let doing = os_thread::doing(counters.os_thread);
        let (asked, ran) = (monotonic_ns(), os_thread::ran(counters.os_thread));
        let sample = stack_sample::ask(counters.os_thread, self.hub, describe);
        if counters.pulse().working_since != pulse.working_since {
            // The turn has ended meanwhile, and what was found is of another one.
            return;
        }
        if doing == Doing::Runs && matches!(sample, Err(NoSample::Silent)) {
            let had = os_thread::ran(counters.os_thread).zip(ran).map(|(now, before)| now.saturating_sub(before));
            if had.is_some_and(|had| had < (monotonic_ns() - asked) / 2) {
                // It could run and did not: the wait for a processor counts only when it is over.
                self.quiet = Quiet { since: pulse.working_since, until: monotonic_ns() + limit / 2 };
                return;
            }
        }
        let nothing_held_up = match &sample {
            Err(NoSample::Gone) => true,
            Err(_) => false,
            Ok(sample) => sample.running.is_none_or(|running| running.main && running.live == 0),
        };
        if nothing_held_up {
            self.quiet = Quiet { since: pulse.working_since, until: now + 2 * turn };
            return;
        }
        if !self.is_held_up(counters, limit) {
            // To answer, the OS thread has run: a wait for a processor has ended, and is counted.
            return;
        }
        let mut text = format!("greenling: hub {} ", self.hub);
        if turn >= limit {
            self.reported = Some(Reported::Turn(pulse.working_since));
            let _ = write!(text, "has not turned for {:.1} s: ", seconds(turn));
        } else {
            self.reported = Some(Reported::Turns);
            let [held, all] = [self.held(counters), now - self.began.unwrap_or(now)].map(seconds);
            let turns = pulse.held_turns - self.base_turns + 1;
            let _ = write!(text, "was held up for {held:.1} s of the last {all:.1} s, in {turns} turns; now ");
        }
        describe_holder(&mut text, counters.os_thread, &doing, &sample);
        write_stderr_within(text.as_bytes(), WRITE_TIME);
    }
}

/// Returns nanoseconds in seconds.
fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

/// Writes what holds a hub up: the thread, what the OS thread does, the stack, and what helps.
fn describe_holder(text: &mut String, os_thread: i32, doing: &Doing, sample: &Result<Sample, NoSample>) {
    let name = os_thread::name(os_thread).map_or(String::new(), |name| format!(" \"{name}\""));
    let _ = match sample {
        Ok(sample) => {
            // The place where it was spawned is in between.
            let comma = if sample.label.contains(',') { "," } else { "" };
            writeln!(text, "{}{comma} has it", sample.label)
        }
        Err(NoSample::NoSignal) => {
            writeln!(text, "a thread has it that cannot be asked: no real-time signal is free and not blocked")
        }
        Err(_) => writeln!(text, "a thread has it that does not answer a signal"),
    };
    let _ = writeln!(text, "  OS thread {os_thread}{name} {doing}");
    if let Ok(sample) = sample {
        write_stack(text, sample);
    }
    let cure = match doing {
        _ if sample.as_ref().is_ok_and(|sample| sample.label == THE_RUNTIME) => {
            "none in the threads: the hub itself is at work, or what it calls, such as an allocator"
        }
        Doing::Runs => "greenling::yield_now() in long computations, or greenling::blocking around them",
        Doing::Calls(libc_number, _) if os_thread::is_futex(*libc_number) => {
            "greenling::sync or hub::sync; threads with Builder::own_thread_locals and monkey::patch_locks; or \
             greenling::blocking around it"
        }
        _ => "the call of the same name in greenling::{net, fs, io, process}; or greenling::blocking around it",
    };
    let _ = writeln!(text, "  cure: {cure}");
}

/// Writes the calls that a stack is made of, the innermost first.
fn write_stack(text: &mut String, sample: &Sample) {
    let symbols = Symbols::of_program();
    let places: Vec<_> = sample.frames.iter().map(|frame| symbols.place(*frame)).collect();
    let is_runtime = |place: &Option<crate::sys::symbols::Place>| {
        let name = place.as_ref().and_then(|place| place.function.as_deref());
        name.is_some_and(|name| RUNTIME.iter().any(|prefix| name.starts_with(prefix)))
    };
    // What lies around the program's own calls says nothing, at the outer end.
    let end = places.iter().rposition(|place| !is_runtime(place)).map_or(places.len(), |at| at + 1);
    let mut addresses = String::new();
    for (frame, place) in sample.frames.iter().zip(&places).take(end.min(SHOWN_FRAMES)) {
        let _ = match place {
            None => writeln!(text, "    {frame:#x}"),
            Some(place) => {
                if place.program {
                    let _ = write!(addresses, " {:#x}", place.offset);
                }
                let function = place.function.as_deref().unwrap_or("?");
                writeln!(text, "    {function} ({}+{:#x})", place.file, place.offset)
            }
        };
    }
    if end > SHOWN_FRAMES {
        let _ = writeln!(text, "    and {} more", end - SHOWN_FRAMES);
    }
    if !addresses.is_empty() {
        let program = std::env::current_exe().unwrap_or_default();
        let _ = writeln!(text, "  lines: addr2line -Cfipe {}{addresses}", program.display());
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::Gauges;
    use super::*;
    use crate::switch::greenlet::Greenlet;
    use crate::switch::root::root;
    use crate::sys::stack_pointer::stack_pointer;

    #[test]
    fn looks_are_frequent_for_short_limits_and_never_rarer_than_ten_a_second() {
        let second = 1_000_000_000;
        assert_eq!([LEAST_LIMIT, second, 60 * second].map(interval), [LEAST_INTERVAL, 50_000_000, MOST_INTERVAL]);
    }

    #[test]
    fn a_fiber_is_named_only_while_its_own_stack_is_in_use() {
        let says = |stack_pointer| {
            let mut out = Message::new();
            let running = describe(root().number(), stack_pointer, &mut out).expect("this hub");
            (String::from_utf8_lossy(out.as_bytes()).into_owned(), running.main, running.stack_end)
        };
        let the_runtime = (String::from("the runtime"), false, usize::MAX);
        let on_main = stack_pointer();
        assert_eq!(says(on_main), (String::from("main"), true, usize::MAX));
        let greenlet = Greenlet::new(move |_| {
            // And as in the loop of a main that waits.
            vec![says(stack_pointer()), says(on_main), root().as_main(|| says(on_main))]
        });
        let said = greenlet.switch(Vec::new());
        assert!(said[0].0.starts_with("greenlet #") && said[0].2 < usize::MAX, "{said:?}");
        assert_eq!(said[1..], [the_runtime.clone(), the_runtime]);
    }

    #[test]
    fn of_a_turn_that_began_before_the_floor_only_the_rest_is_counted() {
        const SECOND: u64 = 1_000_000_000;
        let counters = Counters::enlist(u64::MAX - 2, 0);
        counters.copy_from(1, &Gauges { live: 1, ..Gauges::default() });
        let mut watched = Watched::new(counters.hub, 0);
        // The watch had no processor from 1 s to 9 s. The limit is never reached.
        counters.begin_turn(SECOND);
        watched.look_at(&counters, u64::MAX / 4, 9 * SECOND, 9 * SECOND + 2 * HELD_UP_FROM);
        assert_eq!(watched.total - watched.base, 2 * HELD_UP_FROM);
        counters.note_turn(SECOND, 9 * SECOND + 3 * HELD_UP_FROM);
        counters.begin_turn(9 * SECOND + 3 * HELD_UP_FROM);
        watched.look_at(&counters, u64::MAX / 4, 9 * SECOND, 10 * SECOND);
        assert_eq!(watched.total - watched.base, SECOND, "not more than the time since the floor");
        counters.end();
    }

    #[test]
    fn a_turn_in_which_main_was_alone_keeps_the_watch_from_no_later_turn() {
        const HOUR: u64 = 3_600_000_000_000;
        // The question goes to this OS thread, and the answer is that no green thread is there.
        let counters = Counters::enlist(u64::MAX - 1, 0);
        let mut watched = Watched::new(counters.hub, 0);
        let turn = monotonic_ns() + HOUR;
        let mut look = |since: u64, now: u64| {
            counters.begin_turn(since);
            watched.look_at(&counters, LEAST_LIMIT, 0, now);
            (watched.quiet.since, watched.quiet.until)
        };
        let first = look(turn, turn + HOUR);
        assert_eq!(first, (turn, turn + 3 * HOUR), "asked");
        assert_eq!(look(turn, turn + 2 * HOUR), first, "not asked");
        assert_eq!(look(turn, turn + 4 * HOUR), (turn, turn + 12 * HOUR), "asked once more");
        let next = turn + 5 * HOUR;
        assert_eq!(look(next, next + HOUR), (next, next + 3 * HOUR), "asked of another turn");
        counters.end();
    }
}
