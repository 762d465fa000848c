//! The dump: what the threads of all hubs do, on standard error, whenever a signal comes.
//!
//! ```text
//!   signal --> dump_signal: wakes --> the OS thread that dumps
//!                                       asks each hub ----------------> answers in its next poll: its threads
//!                                       ANSWER_TIME over, not begun:
//!                                         what the watch can see of it  (a signal to the hub's OS thread)
//!                                       writes it all
//! ```
//!
//! The OS thread is one of its own, and not the monitor, since a reader of standard error that is slow would stop the
//! ticks of all hubs.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::io;
use std::panic::catch_unwind;
use std::sync::OnceLock;
use std::time::Duration;

use super::backtraces::BacktraceGroup;
use super::by_environment;
use super::question::{Answer, Question};
use super::remote_queue::RemoteQueue;
use super::thread_info::{Threads, introduce, write_hub};
use super::watchdog::held_by;
use crate::pure::drops::drop_quietly;
use crate::switch::root::Root;
use crate::sys::dump_signal;
use crate::sys::fork::watch_forks;
use crate::sys::fork_lock::ForkLock;
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::service_thread;
use crate::sys::signal::write_stderr_within;
use crate::sys::signalfd::number;

/// How long the hubs may take to begin their answers.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// How long those that have begun may take to end them: stacks are slow to name, the more on a busy machine.
const DESCRIBE_TIME: Duration = Duration::from_secs(20);

/// How long a reader of a standard error that does not block may take for the next part of a dump.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// The environment variable that names the signal that asks for a dump.
const DUMP_VARIABLE: &str = "GREENLING_DUMP";

/// The signals that the variable may name: those that programs leave free.
const NAMES: [(&str, i32); 4] =
    [("QUIT", number::QUIT), ("USR1", number::USR1), ("USR2", number::USR2), ("HUP", number::HUP)];

/// The number of different stacks of a hub that are shown at most.
const MOST_STACKS: usize = 50;

/// The number of threads that are named before a stack.
const MOST_IDS: usize = 5;

/// What the threads of one hub do, as its OS thread has found out; texts are made of this elsewhere.
pub(super) struct Described {
    /// What `hub::threads` returns there.
    pub(super) threads: Threads,
    /// What `hub::backtraces` returns there.
    pub(super) stacks: Vec<BacktraceGroup>,
}

/// Says what the threads of a root do. Called by its OS thread, in a poll.
pub(super) type Describe = fn(&'static Root) -> Described;

/// Whether the OS thread runs in this process. No holder panics or runs foreign code (lock-1).
static RUNS: ForkLock<bool> = ForkLock::new();

/// Dumps from now on whenever `signal` comes.
///
/// # Errors
/// No OS thread can be started; those of [`dump_signal::ask_on`].
pub(super) fn dump_on(signal: i32, describe: Describe) -> io::Result<()> {
    let _mark = runtime_syscall();
    watch_forks()?;
    let mut runs = RUNS.lock();
    if !*runs {
        dump_signal::forget();
        service_thread::start("greenling-dump", None, move || run(describe))?;
        *runs = true;
    }
    drop(runs);
    dump_signal::ask_on(signal)
}

/// Dumps on the signal that the environment names, if it names one; once per process. A name that is none is complained
/// of.
pub(super) fn dump_by_environment(describe: Describe) {
    static DONE: OnceLock<()> = OnceLock::new();
    by_environment::once(&DONE, DUMP_VARIABLE, |text| {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, signal)) => dump_on(*signal, describe).map_err(|error| error.to_string()),
            None => Err(String::from("not one of QUIT, USR1, USR2 and HUP")),
        }
    });
}

/// Dumps whenever the signal has come.
fn run(describe: Describe) -> ! {
    loop {
        dump_signal::wait();
        // A panic would end the OS thread; then this dump is dropped.
        let done = catch_unwind(|| write_stderr_within(dump(describe).as_bytes(), WRITE_TIME));
        drop_quietly(done);
    }
}

/// Returns what the threads of all hubs do.
fn dump(describe: Describe) -> String {
    let mut queues = RemoteQueue::all();
    queues.sort_by_key(|queue| queue.owner().root);
    let question = Question::ask(&queues, describe, None);
    question.block_for_begun(ANSWER_TIME, DESCRIBE_TIME);
    let (mut answers, waited) = question.end();
    let given = answers.iter_mut().filter_map(|answer| match answer {
        Answer::Given(described, _) => Some(&mut described.threads),
        _ => None,
    });
    introduce(&mut given.collect::<Vec<_>>());
    let mut text = format!("greenling: the threads of {} hubs of process {}\n", queues.len(), std::process::id());
    for (queue, answer) in queues.iter().zip(answers) {
        let owner = queue.owner();
        let _ = write_hub(&mut text, owner.root, owner.tid, owner.name.as_deref());
        let _ = match answer {
            Answer::Given(described, _) => write!(text, ": {}\n{}", described.threads, stacks(&described.stacks)),
            Answer::Gone => writeln!(text, " has ended"),
            Answer::Due => {
                let held = held_by(owner.tid.cast_signed(), owner.root);
                write!(text, " has not answered for {:.1} s: {held}", waited.as_secs_f64())
            }
        };
    }
    text
}

/// Returns the stacks of one hub, each behind the threads that have it.
fn stacks(groups: &[BacktraceGroup]) -> String {
    let mut text = String::new();
    for group in groups.iter().take(MOST_STACKS) {
        let ids: Vec<String> = group.threads.iter().take(MOST_IDS).map(|id| format!("#{id}")).collect();
        let more = group.threads.len() - ids.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(text, "  stack of {}{more}:", ids.join(", "));
        for line in group.backtrace.to_string().lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    if groups.len() > MOST_STACKS {
        let _ = writeln!(text, "  and {} more kinds of stacks", groups.len() - MOST_STACKS);
    }
    text
}
