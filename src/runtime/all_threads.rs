//! What the threads of all hubs of the process do, as data. A hub's fibers can be read by its own OS thread only, so
//! each other hub is asked (`question`), and the caller waits for the answers for a limited time.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::caller::Caller;
use super::hub::existing_hub;
use super::park::Wake;
use super::question::{Answer, Question, WakeCaller};
use super::remote::Waiter;
use super::remote_queue::RemoteQueue;
use super::report;
use super::thread_info::{ThreadInfo, ThreadRef, Threads, circle, introduce, write_cycle, write_hub};
use crate::switch::cancel::obstacle;
use crate::switch::pending;
use crate::switch::root::{Root, existing_root};
use crate::sys::clock::after;
use crate::sys::process::thread_id;

/// What one hub has answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HubThreads {
    /// The number of the hub, unique in the process.
    pub hub: u64,
    /// The kernel's id of the hub's OS thread.
    pub os_thread: u32,
    /// The name of that OS thread, if std knows one.
    pub os_thread_name: Option<Arc<str>>,
    /// The threads of the hub; none if the hub has not answered in time.
    pub threads: Option<Threads>,
    /// The time that the answer took, or that the caller has waited in vain.
    pub waited: Duration,
}

impl fmt::Display for HubThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hub(f, self.hub, self.os_thread, self.os_thread_name.as_deref())?;
        match &self.threads {
            Some(threads) => {
                f.write_str(": ")?;
                threads.fmt(f)
            }
            None => write!(f, " has not answered for {:.1} s", self.waited.as_secs_f64()),
        }
    }
}

/// What the threads of all hubs do: made by [`hub::all_threads`](crate::hub::all_threads). `{}` prints them in groups,
/// `{:#}` one by one, with a heading for each hub.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ProcessThreads {
    /// The hubs, in the order of their numbers.
    pub hubs: Vec<HubThreads>,
    /// Threads of several hubs that wait for each other in a circle, the first again at the end; nothing if there is
    /// no such circle. The hubs answer at different moments, so a circle that is not found twice may have been none.
    pub cycle: Vec<ThreadRef>,
}

impl ProcessThreads {
    /// Makes the value of what the hubs have answered: joins what they know of each other.
    fn new(mut hubs: Vec<HubThreads>) -> ProcessThreads {
        hubs.sort_by_key(|hub| hub.hub);
        introduce(&mut hubs.iter_mut().filter_map(|hub| hub.threads.as_mut()).collect::<Vec<_>>());
        // What each thread waits for, over all hubs.
        let all = || hubs.iter().filter_map(|hub| hub.threads.as_ref()).flatten();
        let of = |info: &ThreadInfo| (info.hub, info.id);
        let next: HashMap<_, _> =
            all().filter_map(|info| info.awaits.as_ref().map(|to| (of(info), (to.hub, to.id)))).collect();
        let cycle = circle(all().map(of), &next);
        // A circle within one hub is in that hub's part.
        let several = cycle.iter().any(|(hub, _)| *hub != cycle[0].0);
        let thread = |key: &(u64, u64)| all().find(|info| of(info) == *key).map(ThreadInfo::to_ref);
        let cycle = if several { cycle.iter().filter_map(thread).collect() } else { Vec::new() };
        ProcessThreads { hubs, cycle }
    }
}

impl fmt::Display for ProcessThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, hub) in self.hubs.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "\n" })?;
            hub.fmt(f)?;
        }
        write_cycle(f, &self.cycle)
    }
}

/// Returns what the threads of the calling OS thread do. With `running`, one of them has the CPU.
pub(crate) fn here(root: &Root, running: bool) -> Threads {
    // The holders of the locks that threads of this hub wait for.
    if let Some(hub) = existing_hub() {
        hub.shared_waits().note_holders();
    }
    report::threads(root, running.then(|| root.current()))
}

/// Returns the caller, if the caller may park.
fn may_park() -> Option<Caller> {
    let hub = existing_hub()?;
    let caller = Caller::new(hub.root(), hub);
    (obstacle().is_none() && !caller.fiber.pending.has(pending::NO_SWITCH)).then_some(caller)
}

/// Parks the caller until all have answered, or until `limit` is over. Unwinds with a kill.
fn park(question: &Question<Threads>, caller: Caller, limit: Duration) {
    let deadline = after(limit);
    while !question.is_complete() {
        match caller.wait_remote("what the threads of other hubs do", deadline) {
            Ok(Wake::Woken) => {}
            Ok(Wake::TimedOut) | Err(_) => return,
        }
    }
}

/// Returns what the threads of all hubs do, as far as the hubs answer within `limit`.
pub(crate) fn all_threads(limit: Duration) -> ProcessThreads {
    // A thread that uses greenlets only has no hub to ask, and a copy in the child of a fork has nothing to tell.
    let mine = existing_root().filter(|root| !root.is_forked()).map(|root| HubThreads {
        hub: root.number(),
        os_thread: thread_id(),
        os_thread_name: root.main().name(),
        threads: Some(here(root, true)),
        waited: Duration::ZERO,
    });
    let own = existing_hub().map(|hub| hub.remote_queue());
    let mut others = RemoteQueue::all();
    others.retain(|queue| own.is_none_or(|own| !Arc::ptr_eq(own, queue)));
    let caller = may_park();
    let wake = caller.map(Waiter::new).map(|waiter| -> WakeCaller { Box::new(move || waiter.wake()) });
    let question = Question::ask(&others, |root| here(root, false), wake);
    match caller {
        Some(caller) => park(&question, caller, limit),
        None => question.block(limit),
    }
    let (answers, waited) = question.end();
    let answered = others.iter().zip(answers).filter_map(|(queue, answer)| match answer {
        Answer::Gone => None,
        Answer::Due => Some(about(queue, None, waited)),
        Answer::Given(threads, waited) => Some(about(queue, Some(threads), waited)),
    });
    ProcessThreads::new(mine.into_iter().chain(answered).collect())
}

/// Makes what is known of the hub with this queue.
fn about(queue: &RemoteQueue, threads: Option<Threads>, waited: Duration) -> HubThreads {
    let owner = queue.owner();
    HubThreads { hub: owner.root, os_thread: owner.tid, os_thread_name: owner.name.clone(), threads, waited }
}
