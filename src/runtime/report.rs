//! Reports: which fiber waits for what, since when, and where it was spawned; and the names in panic messages.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::os::fd::RawFd;
use std::panic;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[cfg(feature = "monkey")]
use super::thread_info::ForeignKind;
use super::thread_info::{
    Descriptor, LockKind, StackInfo, ThreadInfo, ThreadKind, ThreadRef, ThreadState, Threads, TracedTurns, WaitReason,
    circle, write_cycle, write_label,
};
use crate::pure::lock::get_or_init;
#[cfg(feature = "monkey")]
use crate::switch::fiber::Foreign;
use crate::switch::fiber::{Fiber, Held, Holder, Reason};
use crate::switch::root::{MAIN_ID, Root, existing_root};
use crate::switch::stack::Slot;
use crate::switch::state::State;
use crate::switch::wait_node::Link;
use crate::sys::clock::{NEVER, monotonic_ns};
use crate::sys::endpoint::{Endpoint, endpoint};
use crate::sys::virtual_sockets::shown_number;

/// How many fibers ahead a snapshot prefetches control blocks.
const PREFETCH: usize = 16;

/// The number of fibers listed at most in a panic message, which is for reading.
pub(crate) const MAX_LINES: usize = 50;

/// Returns the name of a fiber for reports: `#7 "name"`, or `main`.
pub(crate) fn label(fiber: Fiber) -> String {
    let mut text = String::new();
    let name = fiber.name().or_else(|| given_name(fiber));
    // A `String` takes all that is written.
    let _ = write_label(&mut text, Some(kind_of(fiber)), fiber.id.get(), name.as_deref());
    text
}

/// Returns the name that a fiber without one gets in reports, if it gets one.
fn given_name(fiber: Fiber) -> Option<Arc<str>> {
    let mut found = None;
    if !fiber.is_main()
        && let Some(root) = existing_root()
    {
        root.scheduler().names(&mut |id, name| {
            if id == fiber.id.get() {
                found = Some(Arc::from(name.to_string()));
            }
        });
    }
    found
}

/// Returns the [`label`] of the fiber of this OS thread with this id, for panic messages. The search through all fibers
/// is put off until the label is printed.
#[inline]
pub(crate) fn label_of(id: u64) -> impl fmt::Display {
    LabelOf(id)
}

/// The result of [`label_of`]: the fiber's id.
struct LabelOf(u64);

impl fmt::Display for LabelOf {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut found = format!("#{}, which has ended,", self.0);
        if let Some(root) = existing_root() {
            let mut compare = |fiber: Fiber| {
                if fiber.id.get() == self.0 {
                    found = label(fiber);
                }
            };
            compare(root.main());
            root.for_each_fiber(compare);
        }
        f.write_str(&found)
    }
}

/// Returns what `fiber` waits for. Of the fibers in a list only the first knows which fiber holds the lock.
fn reason_of(fiber: Fiber) -> Reason {
    // Go back to the head of the list.
    let mut first = Link::of(fiber);
    while fiber.is_linked()
        && let Some(before) = first.before()
    {
        first = before;
    }
    let first = first.fiber();
    match (fiber.waits_for(), first.waits_for()) {
        // The holder comes from the head; what is waited for, from the fiber.
        (Reason::Held(what, _), Reason::Held(_, holder)) => Reason::Held(what, holder),
        (reason, _) => reason,
    }
}

/// Returns the label of a thread of any hub. `name` names the threads of this OS thread.
pub(crate) fn holder_label(holder: Holder, name: impl Fn(u64) -> String) -> String {
    match (existing_root().is_some_and(|root| root.has(holder)), holder) {
        (true, _) => name(holder.id),
        (false, Holder { root, id: MAIN_ID }) => format!("main of hub {root}"),
        (false, Holder { root, id }) => format!("#{id} of hub {root}"),
    }
}

/// The fibers of a hub, for which others may wait, as of the moment of a report.
struct Snapshot<'a> {
    /// The root of the fibers.
    root: &'a Root,
    /// Main, and what the root has launched, by ascending id.
    fibers: &'a [Fiber],
    /// The names that fibers without one get in reports, by their ids.
    given_names: HashMap<u64, Arc<str>>,
    /// The fiber that has the CPU; none in a poll.
    running: Option<Fiber>,
    /// How often each fiber got the CPU, and for how many nanoseconds it had it; none while no trace is on.
    turns: Option<HashMap<u64, (u64, u64)>>,
    /// The time, in monotonic nanoseconds.
    now: u64,
    /// Whether the kernel is asked what descriptors are and how deep stacks have been used, some microseconds for each
    /// thread.
    asks_kernel: bool,
}

impl<'a> Snapshot<'a> {
    /// Begins a report, for which `fibers` are all that there are, by ascending id.
    fn new(root: &'a Root, fibers: &'a [Fiber], running: Option<Fiber>) -> Snapshot<'a> {
        let mut given_names = HashMap::new();
        root.scheduler().names(&mut |id, name| {
            given_names.insert(id, Arc::from(name.to_string()));
        });
        let turns = root.with_recorder(|recorder| recorder.turns());
        Snapshot { root, fibers, given_names, running, turns, now: monotonic_ns(), asks_kernel: true }
    }

    /// Returns how long it is until `at`, a deadline; none if there is no deadline.
    fn left(&self, at: u64) -> Option<Duration> {
        (at != NEVER).then(|| Duration::from_nanos(at.saturating_sub(self.now)))
    }

    /// Returns the name of `fiber`.
    fn name(&self, fiber: Fiber) -> Option<Arc<str>> {
        fiber.name().or_else(|| self.given_names.get(&fiber.id.get()).cloned())
    }

    /// Returns a reference to the fiber with this id.
    fn thread(&self, id: u64) -> ThreadRef {
        let mut thread = ThreadRef::unknown(self.root.number(), id, false);
        if let Ok(at) = self.fibers.binary_search_by_key(&id, |fiber| fiber.id.get()) {
            let fiber = self.fibers[at];
            thread.name = self.name(fiber);
            thread.kind = Some(kind_of(fiber));
        }
        thread
    }

    /// Returns a reference to a thread of any hub; none for no thread.
    fn holder(&self, holder: Holder) -> Option<ThreadRef> {
        match holder {
            Holder::UNKNOWN => None,
            _ if self.root.has(holder) => Some(self.thread(holder.id)),
            Holder { root, id } => Some(ThreadRef::unknown(root, id, true)),
        }
    }

    /// Returns what is known of all fibers.
    fn all(&self) -> Vec<ThreadInfo> {
        let mut list = Vec::with_capacity(self.fibers.len());
        for (index, fiber) in self.fibers.iter().enumerate() {
            // With thousands of fibers no block is in the cache, and most of the time would be waits for memory.
            if let Some(later) = self.fibers.get(index + PREFETCH) {
                later.prefetch_whole_block();
            }
            list.push(self.info(*fiber));
        }
        list
    }

    /// Returns what is known of `fiber`.
    fn info(&self, fiber: Fiber) -> ThreadInfo {
        let state = match fiber.state.get() {
            State::Parked => ThreadState::Waiting,
            State::Switched => ThreadState::Switched,
            _ if self.running == Some(fiber) => ThreadState::Running,
            _ => ThreadState::Runnable,
        };
        let parked = state == ThreadState::Waiting;
        let waits = parked || state == ThreadState::Switched;
        let (reason, awaits) = if waits { self.reason(reason_of(fiber)) } else { (None, None) };
        ThreadInfo {
            hub: self.root.number(),
            id: fiber.id.get(),
            name: self.name(fiber),
            kind: kind_of(fiber),
            state,
            reason,
            awaits,
            // An explicit switch is so cheap that noting the time would show; every park notes the time.
            waited: parked.then(|| Duration::from_nanos(self.now.saturating_sub(fiber.since.get()))),
            wait_left: self.left(fiber.deadline.get()).filter(|_| parked),
            timeout_left: self.left(fiber.scope_deadline.get().at),
            kill_pending: fiber.killed.get() || fiber.cancelled.get() > 0,
            own_thread_locals: fiber.has_block(),
            spawned_at: (!fiber.is_main()).then(|| fiber.spawned_at()),
            stack: self.stack(fiber, state),
            traced: self.turns.as_ref().map(|turns| {
                let (turns, ran) = turns.get(&fiber.id.get()).copied().unwrap_or_default();
                TracedTurns { turns, ran: Duration::from_nanos(ran) }
            }),
        }
    }

    /// Returns what is known of the stack of `fiber`; none for main.
    fn stack(&self, fiber: Fiber, state: ThreadState) -> Option<StackInfo> {
        if fiber.is_main() {
            return None;
        }
        Some(StackInfo {
            used: match state {
                ThreadState::Running => Some(fiber.stack_used_now()),
                ThreadState::Waiting => Some(fiber.stack_used()),
                // An explicit switch does not note where the frames end, nor does each yield.
                ThreadState::Switched | ThreadState::Runnable => None,
            },
            high_water: self.asks_kernel.then(|| self.root.high_water(fiber).ok()).flatten(),
            reserved: Slot::stack_size(fiber.slot().shift),
        })
    }

    /// Returns a wait reason for programs, and the thread that is waited for, if there is exactly one.
    fn reason(&self, reason: Reason) -> (Option<WaitReason>, Option<ThreadRef>) {
        let ask = |number| self.asks_kernel.then(|| endpoint(number)).flatten();
        let (reason, awaits) = wait_reason(reason, self.root.number(), ask, |holder| self.holder(holder));
        (Some(reason), awaits)
    }
}

/// Returns a wait reason of a fiber of the hub `hub` for programs, and the thread that is waited for, if there is
/// exactly one. `endpoint` says what a descriptor is, and `thread` what a thread of any hub is called.
pub(crate) fn wait_reason(
    reason: Reason,
    hub: u64,
    endpoint: impl Fn(RawFd) -> Option<Endpoint>,
    thread: impl Fn(Holder) -> Option<ThreadRef>,
) -> (WaitReason, Option<ThreadRef>) {
    let descriptor = |number| Descriptor { number: shown_number(number), endpoint: endpoint(number) };
    let mut awaits = None;
    let mut of_hub = |id| awaits = thread(Holder { root: hub, id });
    let reason = match reason {
        Reason::Park => WaitReason::Park,
        Reason::Sleep => WaitReason::Sleep,
        Reason::Join(id) => {
            of_hub(id);
            WaitReason::Join
        }
        Reason::Scope => WaitReason::Scope,
        Reason::Switch(id) => {
            of_hub(id);
            WaitReason::Switch
        }
        Reason::Read(fd) => WaitReason::Read(descriptor(fd)),
        Reason::Write(fd) => WaitReason::Write(descriptor(fd)),
        Reason::Lock(what) => WaitReason::LockOf(what),
        // Locks of this hub. The id is that of the holder; 0 where several fibers or another waiter are in the way.
        Reason::Held(held, id) => {
            if id != 0 {
                of_hub(id);
            }
            WaitReason::Lock { kind: lock_kind(held), shared: false }
        }
        // Locks that several hubs share: the holder is a thread of any of them.
        Reason::Shared(held, holder) => {
            awaits = thread(holder);
            WaitReason::Lock { kind: lock_kind(held), shared: true }
        }
        Reason::Receive => WaitReason::Receive,
        Reason::Send => WaitReason::Send,
        Reason::Event(what) => WaitReason::Event(what),
        Reason::Job(what) => WaitReason::Job(what),
        Reason::Remote(what) => WaitReason::Remote(what),
        #[cfg(feature = "monkey")]
        Reason::Foreign(what, address) => foreign(what, address),
    };
    (reason, awaits)
}

/// Returns the kind of a fiber, for programs.
fn kind_of(fiber: Fiber) -> ThreadKind {
    match (fiber.is_main(), fiber.green_thread.get()) {
        (true, _) => ThreadKind::Main,
        (false, true) => ThreadKind::GreenThread,
        (false, false) => ThreadKind::Greenlet,
    }
}

/// Returns the kind of a lock, for programs.
fn lock_kind(held: Held) -> LockKind {
    match held {
        Held::Mutex => LockKind::Mutex,
        Held::Read => LockKind::Read,
        Held::Write => LockKind::Write,
        Held::Once => LockKind::Once,
    }
}

/// Returns a wait of a patched call, for programs.
#[cfg(feature = "monkey")]
fn foreign(what: Foreign, address: usize) -> WaitReason {
    let kind = match what {
        Foreign::Futex => ForeignKind::Futex,
        Foreign::Mutex => ForeignKind::Mutex,
        Foreign::Condvar => ForeignKind::Condvar,
        Foreign::Rwlock => ForeignKind::RwLock,
        Foreign::Semaphore => ForeignKind::Semaphore,
        Foreign::Barrier => ForeignKind::Barrier,
        Foreign::Once => ForeignKind::Once,
        // The address is the kernel's number of the OS thread.
        Foreign::Thread => return WaitReason::OsThread(address as u32),
    };
    WaitReason::Foreign { kind, address }
}

/// Returns main, every green thread and every started greenlet, in the order of their ids.
fn all_fibers(root: &Root) -> Vec<Fiber> {
    // Each control block is a page of its own: it is read once for its id, and not in each comparison of the sort.
    let mut fibers = vec![(root.main().id.get(), root.main())];
    root.for_each_fiber(|fiber| fibers.push((fiber.id.get(), fiber)));
    fibers.sort_unstable_by_key(|(id, _)| *id);
    fibers.into_iter().map(|(_, fiber)| fiber).collect()
}

/// Returns what all fibers of this OS thread do. `running` is the fiber that has the CPU, if one has.
pub(crate) fn threads(root: &Root, running: Option<Fiber>) -> Threads {
    let fibers = all_fibers(root);
    let snapshot = Snapshot::new(root, &fibers, running);
    Threads::new(snapshot.all(), cycle(&fibers, &snapshot))
}

/// Returns what all fibers of this OS thread do, in a poll, where none has the CPU. The kernel is asked nothing, so no
/// descriptor says what it is, and no stack how deep it has been used.
pub(super) fn brief_threads(root: &Root) -> Threads {
    let fibers = all_fibers(root);
    let snapshot = Snapshot { asks_kernel: false, ..Snapshot::new(root, &fibers, None) };
    Threads::new(snapshot.all(), cycle(&fibers, &snapshot))
}

/// Adds a line for each of `fibers`; of more than `most`, the number of the others. `all` are the fibers for which
/// these may wait, by ascending id.
pub(crate) fn lines(root: &Root, text: &mut String, fibers: &[Fiber], all: &[Fiber], most: usize) {
    let snapshot = Snapshot::new(root, all, Some(root.current()));
    for fiber in fibers.iter().take(most) {
        let _ = write!(text, "\n  {}", snapshot.info(*fiber));
    }
    if fibers.len() > most {
        let _ = write!(text, "\n  and {} more", fibers.len() - most);
    }
}

/// Returns the report of a deadlock: main waits, and nothing can ever wake main.
pub(crate) fn deadlock(root: &Root) -> String {
    let mut text = String::from(
        "deadlock: nothing is runnable, no timer is set, no descriptor is waited for, and so main would wait for ever",
    );
    let fibers = all_fibers(root);
    lines(root, &mut text, &fibers, &fibers, MAX_LINES);
    let _ = write_cycle(&mut text, &cycle(&fibers, &Snapshot::new(root, &fibers, None)));
    text
}

/// Returns the fiber for which `fiber` waits, if there is exactly one. In the queue of a lock that is the fiber before
/// it, and the holder for the first.
fn awaits(fiber: Fiber) -> Option<u64> {
    match (fiber.waits_for(), fiber.wait_prev.get()) {
        (Reason::Join(id) | Reason::Switch(id), _) => Some(id),
        (Reason::Held(Held::Once, id), _) => Some(id),
        (Reason::Shared(_, holder), _) if existing_root().is_some_and(|root| root.has(holder)) => Some(holder.id),
        (Reason::Held(..), Some(before)) if fiber.is_linked() => Some(before.fiber().id.get()),
        (Reason::Held(_, id), _) if id != 0 => Some(id),
        _ => None,
    }
}

/// Returns a cycle of fibers that wait for each other, if there is one.
fn cycle(fibers: &[Fiber], snapshot: &Snapshot<'_>) -> Vec<ThreadRef> {
    let waits: HashMap<u64, u64> = fibers.iter().filter_map(|fiber| Some((fiber.id.get(), awaits(*fiber)?))).collect();
    let ids = fibers.iter().map(|fiber| fiber.id.get());
    circle(ids, &waits).into_iter().map(|id| snapshot.thread(id)).collect()
}

/// Makes panic messages name the green thread: the hook in force prints what it prints, after one line of ours. Once
/// per process.
pub(crate) fn name_panics() {
    static DONE: OnceLock<()> = OnceLock::new();
    if std::thread::panicking() {
        // The hook cannot be changed now; the next hub will.
        return;
    }
    get_or_init(&DONE, || {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Of the many runs of an exploration, those that fail say so in its report.
            if existing_root().and_then(|root| root.simulation()).is_some_and(|simulation| simulation.notes_panic(info))
            {
                return;
            }
            if let Some(root) = existing_root()
                && !root.current().is_main()
            {
                let fiber = root.current();
                let kind = if fiber.green_thread.get() { "green thread " } else { "" };
                let line = format!("{kind}{}, spawned at {}:\n", label(fiber), fiber.spawned_at());
                // Not `eprintln!`: a panic in this hook would end the process.
                let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            }
            previous(info);
        }));
    });
}
