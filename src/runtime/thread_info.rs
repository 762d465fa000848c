//! What is known of the threads of a hub at one moment, as plain data, and the text that shows it.
//!
//! `report` makes these values from the fibers of a hub; nothing here refers to a fiber any more, so a value may be
//! kept, and sent to other OS threads.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::os::fd::RawFd;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::switch::root::MAIN_ID;
use crate::sys::endpoint::Endpoint;

/// The kinds of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ThreadKind {
    /// The program on the OS thread's own stack.
    Main,
    /// What `spawn` and the like made.
    GreenThread,
    /// A greenlet that has started.
    Greenlet,
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ThreadState {
    /// The thread has the CPU.
    Running,
    /// The thread can run, and waits for its turn.
    Runnable,
    /// The thread waits in a blocking call: see [`ThreadInfo::reason`].
    Waiting,
    /// The thread has switched to another one, and waits until one switches back.
    Switched,
}

/// The kinds of locks that one thread holds while others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockKind {
    /// A lock for one thread at a time.
    Mutex,
    /// A `RwLock`, to be read.
    Read,
    /// A `RwLock`, to be written.
    Write,
    /// The turn of a `Once`.
    Once,
}

/// What of `std` or C a patched call waits for (feature `monkey`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForeignKind {
    /// A lock, channel or park of `std`, or of a crate: whatever waits in a futex.
    Futex,
    /// A mutex of C.
    Mutex,
    /// A condition variable of C.
    Condvar,
    /// A lock of C for readers and writers.
    RwLock,
    /// A semaphore of C.
    Semaphore,
    /// A barrier of C.
    Barrier,
    /// The routine of a `pthread_once`.
    Once,
}

/// A file descriptor, as it was when the report was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Descriptor {
    /// What the program calls it by.
    pub number: RawFd,
    /// What the descriptor is; none if that could not be found out.
    pub endpoint: Option<Endpoint>,
}

impl Descriptor {
    /// Returns what such a descriptor is called, for a line about many of them.
    fn noun(&self) -> &'static str {
        self.endpoint.as_ref().map_or("a descriptor", Endpoint::noun)
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {}", self.number)?;
        self.endpoint.as_ref().map_or(Ok(()), |endpoint| write!(f, " ({endpoint})"))
    }
}

/// What a thread waits for. The thread without which it cannot go on is in [`ThreadInfo::awaits`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitReason {
    /// The permit that an unpark gives.
    Park,
    /// The end of a `sleep`.
    Sleep,
    /// The end of another thread.
    Join,
    /// The threads of its scope.
    Scope,
    /// A switch back, after an explicit switch.
    Switch,
    /// A descriptor that can be read.
    Read(Descriptor),
    /// A descriptor that can be written.
    Write(Descriptor),
    /// A lock of [`sync`](crate::sync) or of [`hub::sync`](crate::hub::sync).
    #[non_exhaustive]
    Lock {
        /// The kind of lock.
        kind: LockKind,
        /// Whether the lock is one of `hub::sync`, which the hubs share.
        shared: bool,
    },
    /// The lock of something else: of a file, of standard input.
    LockOf(&'static str),
    /// A value from a channel.
    Receive,
    /// Room in a channel.
    Send,
    /// Something else in this hub, in words that follow "waits for".
    Event(&'static str),
    /// A job on another OS thread, named by what the job does.
    Job(&'static str),
    /// Something that another hub does, in words that follow "waits for".
    Remote(&'static str),
    /// A lock or the like of `std` or C.
    #[non_exhaustive]
    Foreign {
        /// What is waited for.
        kind: ForeignKind,
        /// Where it lies in memory; of a barrier, where the present round does.
        address: usize,
    },
    /// The end of the OS thread with this id; 0 if that is not known.
    OsThread(u32),
}

impl WaitReason {
    /// Returns what waits that go into one line have in common.
    fn class(&self) -> (&'static str, &'static str) {
        match self {
            WaitReason::Park => ("park", ""),
            WaitReason::Sleep => ("sleep", ""),
            WaitReason::Join => ("join", ""),
            WaitReason::Scope => ("scope", ""),
            WaitReason::Switch => ("switch", ""),
            WaitReason::Read(descriptor) => ("read", descriptor.noun()),
            WaitReason::Write(descriptor) => ("write", descriptor.noun()),
            WaitReason::Lock { kind, shared } => {
                let lock = match kind {
                    LockKind::Mutex => "Mutex",
                    LockKind::Read => "read",
                    LockKind::Write => "write",
                    LockKind::Once => "Once",
                };
                (if *shared { "shared lock" } else { "lock" }, lock)
            }
            WaitReason::LockOf(what) => ("lock of", what),
            WaitReason::Receive => ("receive", ""),
            WaitReason::Send => ("send", ""),
            WaitReason::Event(what) => ("event", what),
            WaitReason::Job(what) => ("job", what),
            WaitReason::Remote(what) => ("remote", what),
            WaitReason::Foreign { kind, .. } => ("foreign", foreign_words(*kind)),
            WaitReason::OsThread(_) => ("OS thread", ""),
        }
    }
}

/// Returns what follows "waits", the lock, and what the holder does with the lock.
fn lock_words(kind: LockKind) -> (&'static str, &'static str, &'static str) {
    match kind {
        LockKind::Mutex => ("for", "Mutex", "holds"),
        LockKind::Read => ("to read", "RwLock", "writes"),
        LockKind::Write => ("to write", "RwLock", "writes"),
        LockKind::Once => ("for", "Once", "runs"),
    }
}

/// Returns what follows "waits for".
fn foreign_words(kind: ForeignKind) -> &'static str {
    match kind {
        ForeignKind::Futex => "a lock or channel of std's, or one like it,",
        ForeignKind::Mutex => "a mutex of C",
        ForeignKind::Condvar => "a condition variable of C",
        ForeignKind::RwLock => "a read-write lock of C",
        ForeignKind::Semaphore => "a semaphore of C",
        ForeignKind::Barrier => "a barrier of C",
        ForeignKind::Once => "the routine of a pthread_once",
    }
}

/// A thread that another one waits for. Shown as in reports: `#7 "name"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ThreadRef {
    /// The number of the thread's hub.
    pub hub: u64,
    /// The thread's number there.
    pub id: u64,
    /// The thread's name, if it has one, and is known.
    pub name: Option<Arc<str>>,
    /// The kind of thread; none if the thread has ended, or is one of another hub that was not asked.
    pub kind: Option<ThreadKind>,
    /// Whether this is a thread of another hub than the thread that waits.
    pub elsewhere: bool,
}

impl ThreadRef {
    /// Makes the reference to a thread that is not known, or has ended.
    pub(crate) fn unknown(hub: u64, id: u64, elsewhere: bool) -> ThreadRef {
        ThreadRef { hub, id, name: None, kind: None, elsewhere }
    }
}

impl fmt::Display for ThreadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_label(f, self.kind, self.id, self.name.as_deref())?;
        match (self.elsewhere, self.kind) {
            (true, _) => write!(f, " of hub {}", self.hub),
            (false, None) => f.write_str(", which has ended"),
            (false, Some(_)) => Ok(()),
        }
    }
}

/// Joins what several hubs know of each other: the names and kinds of the threads that a thread of another hub waits
/// for.
pub(super) fn introduce(hubs: &mut [&mut Threads]) {
    let all = || hubs.iter().flat_map(|threads| threads.iter());
    let elsewhere = all().filter_map(|info| info.awaits.as_ref()).filter(|thread| thread.elsewhere);
    let wanted: HashSet<(u64, u64)> = elsewhere.map(|thread| (thread.hub, thread.id)).collect();
    let found = all().filter(|info| wanted.contains(&(info.hub, info.id)));
    let known: HashMap<(u64, u64), ThreadRef> = found.map(|info| ((info.hub, info.id), info.to_ref())).collect();
    for thread in hubs.iter_mut().flat_map(|threads| threads.awaited_mut()).filter(|thread| thread.elsewhere) {
        if let Some(known) = known.get(&(thread.hub, thread.id)) {
            thread.clone_from(known);
        }
    }
}

/// Writes what a hub is called in reports: its number, and its OS thread.
pub(super) fn write_hub(f: &mut impl fmt::Write, hub: u64, os_thread: u32, name: Option<&str>) -> fmt::Result {
    write!(f, "hub {hub} (OS thread {os_thread}")?;
    name.map_or(Ok(()), |name| write!(f, " \"{name}\""))?;
    f.write_str(")")
}

/// Writes what a thread is called in reports.
pub(crate) fn write_label(
    f: &mut impl fmt::Write,
    kind: Option<ThreadKind>,
    id: u64,
    name: Option<&str>,
) -> fmt::Result {
    match (kind, name) {
        (Some(ThreadKind::Main), _) => f.write_str("main"),
        // Each hub's main has the same number.
        (None, _) if id == MAIN_ID => f.write_str("main"),
        (_, Some(name)) => write!(f, "#{id} \"{name}\""),
        (Some(ThreadKind::Greenlet), None) => write!(f, "greenlet #{id}"),
        (_, None) => write!(f, "#{id}"),
    }
}

/// The stack of a green thread or greenlet, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct StackInfo {
    /// The bytes of frames that are on the stack now, within some hundred; known of the running thread and of those
    /// that wait in a blocking call.
    pub used: Option<usize>,
    /// How deep the stack has been used, in whole pages, as [`hub::stack_high_water`](crate::hub::stack_high_water)
    /// counts; none if the kernel does not say.
    pub high_water: Option<usize>,
    /// The address space: how deep the stack may be used.
    pub reserved: usize,
}

/// What a thread has had of the CPU, as far back as the events of the trace that is on go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TracedTurns {
    /// How often the thread got the CPU.
    pub turns: u64,
    /// For how long it had the CPU. Time in which the OS thread had no processor counts, too.
    pub ran: Duration,
}

/// What is known of one thread. Shown as one line.
///
/// ```
/// use greenling::hub::{ThreadState, WaitReason, threads};
/// use greenling::{spawn, thread::park, yield_now};
///
/// let parked = spawn(park);
/// yield_now();
/// let all = threads();
/// let info = all.iter().find(|info| info.thread_id() == parked.thread().id()).unwrap();
/// assert_eq!((info.state, &info.reason), (ThreadState::Waiting, &Some(WaitReason::Park)));
/// assert_eq!(info.spawned_at.unwrap().file(), file!());
/// assert!(info.to_string().contains(" is parked, waiting for an unpark, for "));
/// parked.thread().unpark();
/// ```
///
/// Left out is the scope that the thread belongs to. A scope knows its threads, and is all that has to: for a thread to
/// know its scope, each spawn would have to write it down.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// The number of the thread's hub, unique in the process.
    pub hub: u64,
    /// The thread's number there; main's is 1. Numbers are not used again.
    pub id: u64,
    /// The thread's name, if it has one.
    pub name: Option<Arc<str>>,
    /// The kind of thread.
    pub kind: ThreadKind,
    /// What the thread does.
    pub state: ThreadState,
    /// What the thread waits for, if it waits.
    pub reason: Option<WaitReason>,
    /// The thread without which this one cannot go on, if there is exactly one: the holder of the lock, the thread that
    /// is joined, the greenlet that was switched to.
    pub awaits: Option<ThreadRef>,
    /// For how long the thread has waited; none if it does not, or waits in an explicit switch, which is not timed.
    pub waited: Option<Duration>,
    /// How much time is left until the wait ends by itself; none if there is no such time.
    pub wait_left: Option<Duration>,
    /// How much time is left until the [`timeout`](crate::timeout) around the thread's code that ends first.
    pub timeout_left: Option<Duration>,
    /// Whether the thread is to be killed, and has not ended yet.
    pub kill_pending: bool,
    /// Whether the thread has other thread-locals than the OS thread.
    pub own_thread_locals: bool,
    /// The place in the program that spawned the thread, or made the greenlet; none for main.
    pub spawned_at: Option<&'static Location<'static>>,
    /// The stack; none for main, which runs on that of the OS thread.
    pub stack: Option<StackInfo>,
    /// What the thread has had of the CPU, while a [`trace`](crate::trace) of its hub is on.
    pub traced: Option<TracedTurns>,
}

impl ThreadInfo {
    /// Makes a reference to this thread, for a thread of another hub.
    pub(super) fn to_ref(&self) -> ThreadRef {
        ThreadRef { hub: self.hub, id: self.id, name: self.name.clone(), kind: Some(self.kind), elsewhere: true }
    }
}

impl fmt::Display for ThreadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_label(f, Some(self.kind), self.id, self.name.as_deref())?;
        f.write_str(" ")?;
        write_state(f, self, Number::One, Object::Exact)?;
        // What is due, then where the thread comes from.
        if let Some(waited) = self.waited {
            write!(f, ", for {:.1} s", waited.as_secs_f64())?;
        }
        if let Some(left) = self.wait_left {
            write!(f, ", {:.1} s left", left.as_secs_f64())?;
        }
        if self.kill_pending {
            f.write_str(", to be killed")?;
        }
        self.spawned_at.map_or(Ok(()), |place| write!(f, ", spawned at {place}"))
    }
}

/// Whether a line is about one thread or several.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    /// The line has the words of a single thread.
    One,
    /// The line has a count and the words of several threads.
    Many,
}

/// Whether a line names what is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Object {
    /// The line names the very thing, which all threads of the line wait for.
    Exact,
    /// The threads of the line wait for different things of one kind.
    Kind,
}

/// Writes what threads like `info` do.
fn write_state(f: &mut fmt::Formatter<'_>, info: &ThreadInfo, number: Number, object: Object) -> fmt::Result {
    let many = number == Number::Many;
    match (info.state, &info.reason) {
        (ThreadState::Running, _) => f.write_str(if many { "are running" } else { "is running" }),
        (ThreadState::Runnable, _) if many => f.write_str("can run, and wait for their turns"),
        (ThreadState::Runnable, _) => f.write_str("can run, and waits for its turn"),
        (_, Some(reason)) => write_wait(f, reason, info.awaits.as_ref(), number, object),
        (_, None) => Ok(()),
    }
}

/// What a thread does, in the words of reports: "is running", "waits for a value from a channel".
pub(super) struct StateWords<'a>(pub(super) &'a ThreadInfo);

impl fmt::Display for StateWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_state(f, self.0, Number::One, Object::Exact)
    }
}

/// A wait in the words of reports: what is waited for, and the thread that has it.
pub(crate) struct WaitWords<'a>(pub(crate) &'a WaitReason, pub(crate) Option<&'a ThreadRef>);

impl fmt::Display for WaitWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_wait(f, self.0, self.1, Number::One, Object::Exact)
    }
}

/// Writes what threads wait for.
fn write_wait(
    f: &mut fmt::Formatter<'_>,
    reason: &WaitReason,
    awaits: Option<&ThreadRef>,
    number: Number,
    object: Object,
) -> fmt::Result {
    let many = number == Number::Many;
    match reason {
        WaitReason::Park if many => f.write_str("are parked, waiting for an unpark"),
        WaitReason::Park => f.write_str("is parked, waiting for an unpark"),
        WaitReason::Sleep => f.write_str(if many { "sleep" } else { "sleeps" }),
        reason => {
            f.write_str(if many { "wait " } else { "waits " })?;
            match object {
                Object::Exact => write_object(f, reason, awaits, many),
                Object::Kind => write_kind(f, reason),
            }
        }
    }
}

/// Writes what follows "waits": the very thing that is waited for, and the thread that has it.
fn write_object(
    f: &mut fmt::Formatter<'_>,
    reason: &WaitReason,
    awaits: Option<&ThreadRef>,
    many: bool,
) -> fmt::Result {
    match (reason, awaits) {
        (WaitReason::Join, Some(thread)) => write!(f, "for the end of {thread}"),
        (WaitReason::Switch, Some(thread)) => write!(f, "in a switch to {thread}"),
        (WaitReason::Scope, _) if many => f.write_str("for the threads of their scopes"),
        (WaitReason::Scope, _) => f.write_str("for the threads of its scope"),
        (WaitReason::Read(descriptor), _) => write!(f, "until {descriptor} can be read"),
        (WaitReason::Write(descriptor), _) => write!(f, "until {descriptor} can be written"),
        (WaitReason::Lock { kind, shared }, Some(holder)) => {
            let (words, lock, verb) = lock_words(*kind);
            let shared = if *shared { "shared " } else { "" };
            write!(f, "{words} a {shared}{lock} that {holder} {verb}")
        }
        // No thread is in the way, or several are.
        (WaitReason::Lock { kind: LockKind::Read, shared: false }, None) => {
            f.write_str("to read a RwLock, behind one that waits to write it")
        }
        (WaitReason::Lock { kind: LockKind::Write, shared: false }, None) => {
            f.write_str("to write a RwLock that others read")
        }
        (WaitReason::Lock { kind, shared }, None) => {
            let (words, lock, _) = lock_words(*kind);
            let why = match kind {
                LockKind::Mutex => " that is changing hands",
                LockKind::Read | LockKind::Write => ", behind others",
                LockKind::Once => " to be run",
            };
            write!(f, "{words} a {}{lock}{why}", if *shared { "shared " } else { "" })
        }
        (WaitReason::Foreign { address, .. }, _) => {
            write_kind(f, reason)?;
            write!(f, " at {address:#x}")
        }
        (WaitReason::OsThread(tid), _) => write!(f, "for the end of OS thread {tid}"),
        _ => write_kind(f, reason),
    }
}

/// Writes what follows "wait", where the threads wait for different things of one kind.
fn write_kind(f: &mut fmt::Formatter<'_>, reason: &WaitReason) -> fmt::Result {
    match reason {
        WaitReason::Park => f.write_str("for an unpark"),
        WaitReason::Sleep => f.write_str("for the end of a sleep"),
        WaitReason::Join => f.write_str("for the end of others"),
        WaitReason::Scope => f.write_str("for the threads of their scopes"),
        WaitReason::Switch => f.write_str("in switches to others"),
        WaitReason::Read(descriptor) => write!(f, "until {} can be read", descriptor.noun()),
        WaitReason::Write(descriptor) => write!(f, "until {} can be written", descriptor.noun()),
        WaitReason::Lock { kind, shared } => {
            let (words, lock, _) = lock_words(*kind);
            write!(f, "{words} a {}{lock}", if *shared { "shared " } else { "" })
        }
        WaitReason::LockOf(what) => write!(f, "for the lock of {what}"),
        WaitReason::Receive => f.write_str("for a value from a channel"),
        WaitReason::Send => f.write_str("for room in a channel"),
        WaitReason::Event(what) | WaitReason::Remote(what) => write!(f, "for {what}"),
        WaitReason::Job(what) => write!(f, "for {what} on another OS thread"),
        WaitReason::Foreign { kind, .. } => write!(f, "for {}", foreign_words(*kind)),
        WaitReason::OsThread(_) => f.write_str("for the ends of OS threads"),
    }
}

/// The threads of a hub at one moment: main first, then the others in the order of their numbers. Made by
/// [`hub::threads`](crate::hub::threads). A slice of [`ThreadInfo`], as far as reading goes.
///
/// `{}` shows threads that do the same in one line for all: those in the same state, that wait for the same kind of
/// thing and were spawned at the same place. `{:#}` shows each.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    /// Main, and then by number.
    list: Vec<ThreadInfo>,
    /// The threads that wait for each other in a circle.
    cycle: Vec<ThreadRef>,
}

impl Threads {
    /// Makes a value of what was found out.
    pub(crate) fn new(list: Vec<ThreadInfo>, cycle: Vec<ThreadRef>) -> Threads {
        Threads { list, cycle }
    }

    /// Returns the threads that others wait for, so that more can be said of them.
    fn awaited_mut(&mut self) -> impl Iterator<Item = &mut ThreadRef> {
        self.list.iter_mut().filter_map(|info| info.awaits.as_mut())
    }

    /// Returns the threads that wait for each other in a circle, the first again at the end; nothing if there is no
    /// such circle. Of several circles, one.
    ///
    /// May switch: no.
    pub fn cycle(&self) -> &[ThreadRef] {
        &self.cycle
    }
}

impl Deref for Threads {
    type Target = [ThreadInfo];

    fn deref(&self) -> &[ThreadInfo] {
        &self.list
    }
}

impl IntoIterator for Threads {
    type Item = ThreadInfo;
    type IntoIter = std::vec::IntoIter<ThreadInfo>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Threads {
    type Item = &'a ThreadInfo;
    type IntoIter = std::slice::Iter<'a, ThreadInfo>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No main: the OS thread is ending, and nothing is left.
        if self.list.is_empty() {
            return Ok(());
        }
        let main = self.list.iter().filter(|info| info.kind == ThreadKind::Main).count();
        write!(f, "{} green threads and greenlets, and main", self.list.len() - main)?;
        if f.alternate() {
            self.list.iter().try_for_each(|info| write!(f, "\n  {info}"))?;
        } else {
            groups(&self.list).iter().try_for_each(|group| write!(f, "\n  {group}"))?;
        }
        write_cycle(f, &self.cycle)
    }
}

/// Returns a circle in `next`, which says what each waits for, the first again at the end; nothing if there is none.
/// Follows the waits of all of `starts` until one appears twice.
pub(crate) fn circle<K: Copy + Eq + Hash>(starts: impl Iterator<Item = K>, next: &HashMap<K, K>) -> Vec<K> {
    if next.is_empty() {
        return Vec::new();
    }
    // Those that were passed, and on which walk. A walk that meets an earlier one ends as that did.
    let mut passed: HashMap<K, usize> = HashMap::new();
    for (walk, start) in starts.filter(|start| next.contains_key(start)).enumerate() {
        let mut path = Vec::new();
        let mut at = Some(start);
        while let Some(id) = at {
            path.push(id);
            match passed.insert(id, walk) {
                None => at = next.get(&id).copied(),
                Some(earlier) if earlier == walk => {
                    let from = path.iter().position(|passed| *passed == id).unwrap_or(0);
                    return path.split_off(from);
                }
                Some(_) => break,
            }
        }
    }
    Vec::new()
}

/// Writes the line of a circle of threads that wait for each other, if there is one.
pub(crate) fn write_cycle(f: &mut impl fmt::Write, cycle: &[ThreadRef]) -> fmt::Result {
    if cycle.is_empty() {
        return Ok(());
    }
    f.write_str("\n  cycle: ")?;
    for (i, thread) in cycle.iter().enumerate() {
        write!(f, "{}{thread}", if i == 0 { "" } else { " -> " })?;
    }
    Ok(())
}

/// Threads that do the same.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    /// The first thread, in the order of the list.
    pub(super) first: &'a ThreadInfo,
    /// The last thread, in the order of the list.
    pub(super) last: &'a ThreadInfo,
    /// The number of threads.
    pub(super) count: usize,
    /// Whether all wait for the very same thing.
    object: Object,
    /// The shortest and the longest wait, of those that are timed.
    pub(super) waited: Option<(Duration, Duration)>,
    /// The number of threads that are to be killed.
    pub(super) killed: usize,
}

impl<'a> Group<'a> {
    /// Makes a group of one.
    fn of(first: &'a ThreadInfo) -> Group<'a> {
        let killed = usize::from(first.kill_pending);
        let waited = first.waited.map(|waited| (waited, waited));
        Group { first, last: first, count: 1, object: Object::Exact, waited, killed }
    }

    /// Returns the group as it is shown if `first`, of which more is known, takes the place of the first thread.
    pub(super) fn with_first<'b>(&self, first: &'b ThreadInfo) -> Group<'b>
    where
        'a: 'b,
    {
        Group { first, ..*self }
    }

    /// Counts `other`, which has the same key.
    fn add(&mut self, other: &'a ThreadInfo) {
        self.last = other;
        self.count += 1;
        self.killed += usize::from(other.kill_pending);
        if (&self.first.reason, &self.first.awaits) != (&other.reason, &other.awaits) {
            self.object = Object::Kind;
        }
        if let Some(waited) = other.waited {
            let (least, most) = self.waited.unwrap_or((waited, waited));
            self.waited = Some((least.min(waited), most.max(waited)));
        }
    }
}

impl fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 1 {
            return self.first.fmt(f);
        }
        write!(f, "{} ", self.count)?;
        write_state(f, self.first, Number::Many, self.object)?;
        if let Some((least, most)) = self.waited {
            write!(f, ", for {:.1} to {:.1} s", least.as_secs_f64(), most.as_secs_f64())?;
        }
        if self.killed > 0 {
            write!(f, ", {} to be killed", self.killed)?;
        }
        self.first.spawned_at.map_or(Ok(()), |place| write!(f, ", spawned at {place}"))
    }
}

/// What threads of one group have in common: the state, the kind of wait, and the place where they were spawned. None
/// for main, which stands for itself.
pub(super) type GroupKey = Option<(ThreadState, Option<(&'static str, &'static str)>, SpawnSite)>;

/// A place where threads were spawned, as a part of a key: the hash is of the line and not of the path, for there are
/// many threads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SpawnSite(&'static Location<'static>);

impl Hash for SpawnSite {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.0.line(), self.0.column()).hash(hasher);
    }
}

/// Returns the key of the group of a thread.
pub(super) fn group_key(info: &ThreadInfo) -> GroupKey {
    info.spawned_at.map(|place| (info.state, info.reason.as_ref().map(WaitReason::class), SpawnSite(place)))
}

/// Returns the groups of `list`: main, and then the largest groups first.
pub(super) fn groups<'a>(list: impl IntoIterator<Item = &'a ThreadInfo>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut found = HashMap::new();
    for info in list {
        let key = group_key(info);
        let next = groups.len();
        let at = key.map_or(next, |key| *found.entry(key).or_insert(next));
        match groups.get_mut(at) {
            Some(group) => group.add(info),
            None => groups.push(Group::of(info)),
        }
    }
    // The sort is stable, so groups of one size stay in the order of their first threads.
    groups.sort_by_key(|group| (group.first.kind != ThreadKind::Main, std::cmp::Reverse(group.count)));
    groups
}
