//! What the threads of all hubs did a moment ago: one look for all requests of that moment.
//!
//! A refresh of a client takes several requests, and each of them would make every hub list its threads. So a look is
//! kept for [`FRESH`], and dropped with the last client, since that of a hundred thousand threads takes some tens of
//! MiB.
//!
//! ```text
//!   a hub that polls ---------> answers: its threads
//!   a hub that does not ------> not within ANSWER_TIME: what the watch sees of it (`watchdog`)
//!   the same at the next look -> not asked, as long as it has not polled: no wait, and no question too many
//! ```
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::pure::lock::lock;
use crate::runtime::counters::{self, Figures};
use crate::runtime::question::{Answer, Question};
use crate::runtime::remote_queue::{Owner, RemoteQueue};
use crate::runtime::thread_info::{Descriptor, ThreadInfo, Threads, WaitReason};
use crate::runtime::watchdog::held_by;
use crate::switch::root::Root;
use crate::sys::endpoint::endpoint;

/// For how long a look is good enough for the next request.
const FRESH: Duration = Duration::from_millis(250);

/// How long the hubs may take to answer.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// Lists the threads of a root. Called by its OS thread, in a poll.
pub(crate) type ListThreads = fn(&'static Root) -> Threads;

/// What is known of one hub.
pub(super) struct HubView {
    /// The OS thread of the hub.
    pub(super) owner: Owner,
    /// What the hub has counted; none for one that is ending.
    pub(super) figures: Option<Figures>,
    /// The threads, or what holds the hub up.
    pub(super) threads: Result<Threads, String>,
}

/// What was known of all hubs at one moment.
pub(super) struct Snapshot {
    /// The moment of the look.
    pub(super) taken: Instant,
    /// The hubs, by number.
    pub(super) hubs: Vec<HubView>,
}

impl Snapshot {
    /// Returns the threads of one hub, or of all.
    pub(super) fn threads(&self, hub: Option<u64>) -> impl Iterator<Item = &ThreadInfo> {
        let asked = self.hubs.iter().filter(move |view| hub.is_none_or(|hub| hub == view.owner.root));
        asked.filter_map(|view| view.threads.as_ref().ok()).flatten()
    }
}

/// The eye of the agent: takes snapshots, and keeps the latest one.
pub(super) struct Eye {
    /// Lists the threads of a hub.
    list_threads: ListThreads,
    /// What was seen last. No holder panics or runs foreign code (lock-1).
    seen: Mutex<Seen>,
}

/// What the eye has seen last.
#[derive(Default)]
struct Seen {
    /// The latest snapshot, if one is kept.
    latest: Option<Arc<Snapshot>>,
    /// The hubs that have not answered, and how often they had polled when they were asked.
    silent: HashMap<u64, u64>,
}

impl Eye {
    /// Makes an eye that has seen nothing.
    pub(super) fn new(list_threads: ListThreads) -> Eye {
        Eye { list_threads, seen: Mutex::default() }
    }

    /// Returns what the threads of all hubs do, or did within the last [`FRESH`] unless that is too old.
    pub(super) fn look(&self, fresh: bool) -> Arc<Snapshot> {
        let mut seen = lock(&self.seen);
        if let Some(latest) = &seen.latest
            && !fresh
            && latest.taken.elapsed() < FRESH
        {
            return Arc::clone(latest);
        }
        // First, so that there are never two.
        seen.latest = None;
        let taken = Arc::new(take(self.list_threads, &mut seen.silent));
        seen.latest = Some(Arc::clone(&taken));
        taken
    }

    /// Forgets what was seen.
    pub(super) fn forget(&self) {
        lock(&self.seen).latest = None;
    }
}

/// Returns the hubs, by number, or the one of this number.
pub(super) fn hubs(number: Option<u64>) -> Vec<Arc<RemoteQueue>> {
    let mut hubs = RemoteQueue::all();
    hubs.retain(|hub| number.is_none_or(|number| hub.owner().root == number));
    hubs.sort_by_key(|hub| hub.owner().root);
    hubs
}

/// Asks all hubs what their threads do.
fn take(list_threads: ListThreads, silent: &mut HashMap<u64, u64>) -> Snapshot {
    let counted: HashMap<u64, Figures> =
        counters::all().iter().map(|counters| (counters.hub, counters.figures())).collect();
    let polls = |hub: u64| counted.get(&hub).map(|figures| figures.polls);
    // One that has not polled since it was asked has that question before it still.
    let is_silent = |hub: &Arc<RemoteQueue>| {
        let hub = hub.owner().root;
        silent.get(&hub).is_some_and(|before| polls(hub) == Some(*before))
    };
    let (quiet, asked): (Vec<_>, Vec<_>) = hubs(None).into_iter().partition(is_silent);
    let question = Question::ask(&asked, list_threads, None);
    question.block(ANSWER_TIME);
    let (answers, _) = question.end();
    let due = quiet.into_iter().map(|hub| (hub, Answer::Due));
    let mut views: Vec<HubView> = Vec::new();
    silent.clear();
    for (hub, answer) in asked.into_iter().zip(answers).chain(due) {
        let owner = hub.owner().clone();
        let threads = match answer {
            Answer::Given(threads, _) => Ok(threads),
            Answer::Gone => continue,
            Answer::Due => {
                silent.insert(owner.root, polls(owner.root).unwrap_or(0));
                Err(held_by(owner.tid.cast_signed(), owner.root))
            }
        };
        let figures = counted.get(&owner.root).copied();
        views.push(HubView { owner, figures, threads });
    }
    views.sort_by_key(|view| view.owner.root);
    Snapshot { taken: Instant::now(), hubs: views }
}

/// Returns what is known of a thread, with what the descriptor is that it waits for. The hubs do not look that up: it
/// takes some microseconds for each, and only a few are shown.
pub(super) fn with_endpoint(info: &ThreadInfo) -> ThreadInfo {
    let mut info = info.clone();
    if let Some(WaitReason::Read(descriptor) | WaitReason::Write(descriptor)) = &mut info.reason {
        *descriptor = Descriptor { number: descriptor.number, endpoint: endpoint(descriptor.number) };
    }
    info
}
