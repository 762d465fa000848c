//! Lost wake-ups: a thread looks whether there is work and parks, another one makes work and wakes it. The steps come
//! in a drawn order. The answer is from all schedules of the program.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use greenling::sim::{Config, Strategy};
use greenling::sync::Mutex;
use greenling::{sim, spawn, thread};

use crate::Quiz;
use crate::draw::Draw;

/// A step of one of the two threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Looks whether there is work; if there is, the rest is left out.
    Look,
    /// Takes the lock of the log, writes a line, and lets it go: the only step at which the other thread may go first.
    Log,
    /// Leaves a handle where the other thread will find it.
    Leave,
    /// Waits to be woken.
    Park,
    /// Says that there is work.
    Make,
    /// Takes the handle, if there is one, and unparks its thread.
    Wake,
}

use Step::{Leave, Log, Look, Make, Park, Wake};

/// What the thread that waits may do.
const SLEEPERS: [&[Step]; 8] = [
    &[Look, Log, Leave, Park],
    &[Leave, Look, Log, Park],
    &[Log, Look, Leave, Park],
    &[Look, Leave, Log, Park],
    &[Leave, Log, Look, Park],
    &[Look, Log, Log, Leave, Park],
    &[Log, Look, Log, Leave, Park],
    &[Log, Leave, Look, Log, Park],
];

/// What the thread that wakes may do.
const WAKERS: [&[Step]; 5] =
    [&[Log, Make, Wake], &[Make, Log, Wake], &[Make, Wake, Log], &[Wake, Log, Make], &[Log, Make, Log, Wake]];

/// A program: both threads, and whether the sleeper looks again when it was woken.
#[derive(Clone, Copy)]
struct Program {
    sleeper: &'static [Step],
    waker: &'static [Step],
    looks_again: bool,
}

/// What the two threads share.
#[derive(Default)]
struct Shared {
    work: Cell<bool>,
    handle: RefCell<Option<thread::Thread>>,
    log: Mutex<u32>,
}

/// Draws a program, and asks about it.
pub(crate) fn quiz(mut draw: Draw) -> Quiz {
    let program =
        Program { sleeper: draw.one_of(&SLEEPERS), waker: draw.one_of(&WAKERS), looks_again: draw.below(2) == 0 };
    let mut question = String::from("`work`, `handle` and the lock `log` are shared by two threads of one hub.\n\n");
    question += &program.text();
    question += "\nOnly a lock lets the other thread go first, or a park.\n\n\
        1. Can the sleeper sleep for ever?\n\
        2. In how many of all schedules does it?\n\
        3. In the shortest, where does another thread go first than in life?\n";
    Quiz { question, answer: Box::new(move || program.answer()) }
}

impl Program {
    /// Returns the program as a text, with numbered lines.
    fn text(&self) -> String {
        let (mut text, mut number, mut indent) = (String::from("     the sleeper, main\n"), 0, 0);
        for step in self.sleeper {
            let line = match step {
                Look if self.looks_again => "while !work.get() {",
                Look => "if !work.get() {",
                Log => "log.lock().unwrap().push(\"..\");",
                Leave => "handle.replace(Some(thread::current()));",
                _ => "thread::park();",
            };
            number += 1;
            let _ = writeln!(text, "{number:4} {:indent$}{line}", "");
            indent += if *step == Look { 4 } else { 0 };
        }
        text += "     }\n     the waker, spawned before\n";
        for step in self.waker {
            let line = match step {
                Log => "log.lock().unwrap().push(\"..\");",
                Make => "work.set(true);",
                _ => "if let Some(thread) = handle.take() { thread.unpark() }",
            };
            number += 1;
            let _ = writeln!(text, "{number:4} {line}");
        }
        text
    }

    /// Runs the program once, and returns whether the sleeper slept for longer than `limit`; for ever if there is none.
    fn run(&self, limit: Option<Duration>) -> bool {
        let shared = Rc::new(Shared::default());
        let (others, waker) = (Rc::clone(&shared), self.waker);
        spawn(move || waker.iter().for_each(|step| others.step(*step, None)));
        let looks = self.sleeper.iter().position(|step| *step == Look).expect("each sleeper looks");
        self.sleeper[..looks].iter().for_each(|step| shared.step(*step, limit));
        while !shared.work.get() {
            self.sleeper[looks + 1..].iter().for_each(|step| shared.step(*step, limit));
            if !self.looks_again || limit.is_some_and(|limit| sim::elapsed() >= limit) {
                break;
            }
        }
        limit.is_some_and(|limit| sim::elapsed() >= limit)
    }

    /// Runs the program in all schedules, and in the shortest one that fails.
    fn answer(&self) -> String {
        let all = Config::new().strategy(Strategy::Exhaustive { choices: usize::MAX }).schedules(100_000);
        let lost = AtomicU64::new(0);
        let explored = all.check(|| {
            lost.fetch_add(u64::from(self.run(Some(Duration::from_secs(1)))), Ordering::Relaxed);
        });
        let explored = explored.expect("the sleeper gives up in time");
        assert!(explored.is_complete(), "the program is small");
        let (lost, schedules) = (lost.into_inner(), explored.schedules());
        let Err(failure) = all.check(|| assert!(!self.run(None))) else {
            return format!(
                "1. No.\n2. In none of {schedules}, and there are no others.\n3. None.\n\n{}",
                self.reason(false)
            );
        };
        let (deviations, trace) = (failure.schedule().deviations(), failure.trace());
        format!(
            "1. Yes.\n2. In {lost} of {schedules}.\n3. {} {}, schedule {}. #1 is main:\n\n{trace}\n{}",
            if deviations == 0 { "That of life, with".to_owned() } else { format!("With {deviations}") },
            if deviations == 1 { "turn out of order" } else { "turns out of order" },
            failure.schedule(),
            self.reason(true),
        )
    }

    /// Returns why the wake-up can be lost, or cannot.
    fn reason(&self, is_lost: bool) -> String {
        let line = |steps: &[Step], step| steps.iter().position(|other| *other == step).expect("it is there");
        let (look, leave) = (line(self.sleeper, Look), line(self.sleeper, Leave));
        let first = self.sleeper.len();
        let (make, wake) = (first + line(self.waker, Make), first + line(self.waker, Wake));
        let gap = (look < leave).then(|| self.sleeper[look..leave].iter().position(|step| *step == Log)).flatten();
        let [look_line, leave_line, make_line, wake_line] = [look, leave, make, wake].map(|at| at + 1);
        match (is_lost, gap) {
            (true, Some(gap)) => format!(
                "The waker may run at line {}, between the look in line {look_line} and line {leave_line}, which \
                 leaves the handle: it finds none.",
                look + gap + 1
            ),
            (true, None) => format!(
                "Line {wake_line} wakes before line {make_line} makes the work that the sleeper looks for, and no other \
                 wake-up follows."
            ),
            (false, _) if wake < make => format!(
                "Line {wake_line} wakes before line {make_line} makes work, but it finds the handle in each schedule, \
                 and the sleeper looks no more."
            ),
            (false, _) if look < leave => format!(
                "Nothing runs between the look in line {look_line} and line {leave_line}, which leaves the handle; \
                 and an unpark ends also a park that comes later."
            ),
            (false, _) => format!(
                "The handle is left in line {leave_line}, before the look in line {look_line}: a waker that makes \
                 work after the look finds it, and an unpark ends also a park that comes later."
            ),
        }
    }
}

impl Shared {
    /// Does one step. A park ends after `limit`, if there is one.
    fn step(&self, step: Step, limit: Option<Duration>) {
        match (step, limit) {
            (Look, _) => unreachable!("the look is where the program branches"),
            (Log, _) => *self.log.lock().unwrap() += 1,
            (Leave, _) => drop(self.handle.replace(Some(thread::current()))),
            (Park, Some(limit)) => thread::park_timeout(limit),
            (Park, None) => thread::park(),
            (Make, _) => self.work.set(true),
            (Wake, _) => {
                if let Some(thread) = self.handle.take() {
                    thread.unpark();
                }
            }
        }
    }
}
