//! Who waits on what, since when, spawned where: the deadlock report, and the names in panic messages.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::panic;
use std::sync::Once;

use crate::switch::fiber::{Fiber, Held, Reason, State};
use crate::switch::root::{Root, existing_root};
use crate::switch::wait_node::Link;
use crate::sys::clock::monotonic_ns;

/// Fibers listed at most in a panic message, which is for reading.
pub(crate) const MOST: usize = 50;

/// `#7 "name"`, or `main`.
pub(crate) fn label(fiber: Fiber) -> String {
    let id = fiber.id.get();
    match (fiber.is_main(), fiber.name(), fiber.green_thread.get()) {
        (true, _, _) => String::from("main"),
        (false, Some(name), _) => format!("#{id} \"{name}\""),
        (false, None, true) => format!("#{id}"),
        (false, None, false) => format!("greenlet #{id}"),
    }
}

/// `label` of the fiber of this OS thread with this id, for panic messages. It looks through all fibers, and so not before
/// somebody wants to read it.
#[inline]
pub(crate) fn label_of(id: u64) -> impl fmt::Display {
    LabelOf(id)
}

/// See [`label_of`].
struct LabelOf(u64);

impl fmt::Display for LabelOf {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut found = format!("#{}, which has ended,", self.0);
        if let Some(root) = existing_root() {
            let mut look = |fiber: Fiber| {
                if fiber.id.get() == self.0 {
                    found = label(fiber);
                }
            };
            look(root.main());
            root.for_each_fiber(look);
        }
        f.write_str(&found)
    }
}

/// What `fiber` waits for. Of those in a list only the first knows who has it.
fn reason_of(fiber: Fiber) -> Reason {
    let mut first = Link::of(fiber);
    while fiber.linked.get()
        && let Some(before) = first.before()
    {
        first = before;
    }
    let first = first.fiber();
    match (fiber.waits_for(), first.waits_for()) {
        (Reason::Held(what, _), Reason::Held(_, holder)) => Reason::Held(what, holder),
        (reason, _) => reason,
    }
}

/// What a wait reason is in words. `names` maps ids to labels.
fn words(reason: Reason, names: &HashMap<u64, String>) -> String {
    let name = |id: u64| names.get(&id).cloned().unwrap_or_else(|| format!("#{id}, which has ended"));
    match reason {
        Reason::Park => String::from("is parked, waiting for an unpark"),
        Reason::Sleep => String::from("sleeps"),
        Reason::Join(id) => format!("waits for the end of {}", name(id)),
        Reason::Scope => String::from("waits for the threads of its scope"),
        Reason::Switch(id) => format!("waits in a switch to {}", name(id)),
        Reason::Read(fd) => format!("waits until descriptor {fd} can be read"),
        Reason::Write(fd) => format!("waits until descriptor {fd} can be written"),
        Reason::Lock(what) => format!("waits for the lock of {what}"),
        Reason::Held(Held::Mutex, id) => format!("waits for a Mutex that {} holds", name(id)),
        Reason::Held(Held::Read, 0) => String::from("waits to read a RwLock, behind one that waits to write it"),
        Reason::Held(Held::Read, id) => format!("waits to read a RwLock that {} writes", name(id)),
        Reason::Held(Held::Write, 0) => String::from("waits to write a RwLock that others read"),
        Reason::Held(Held::Write, id) => format!("waits to write a RwLock that {} writes", name(id)),
        Reason::Held(Held::Once, id) => format!("waits for a Once that {} runs", name(id)),
        Reason::Receive => String::from("waits for a value from a channel"),
        Reason::Send => String::from("waits for room in a channel"),
        Reason::Event(what) => format!("waits for {what}"),
        Reason::Job(what) => format!("waits for {what} on another OS thread"),
        Reason::Remote(what) => format!("waits for {what}"),
    }
}

/// What `fiber` does or waits for, since when, and where it was spawned.
fn line(fiber: Fiber, current: Fiber, now: u64, names: &HashMap<u64, String>) -> String {
    let mut text = match fiber.state.get() {
        // Whoever is resumed stays `Ready` for as long as it runs.
        State::Ready | State::Running if fiber == current => format!("{} is running", label(fiber)),
        State::Ready | State::Running => format!("{} can run, and waits for its turn", label(fiber)),
        _ => format!("{} {}", label(fiber), words(reason_of(fiber), names)),
    };
    // An explicit switch is so cheap that noting its time would show; everything that parks notes it.
    if fiber.state.get() == State::Parked {
        let waited = now.saturating_sub(fiber.since.get()) as f64 / 1e9;
        let _ = write!(text, ", for {waited:.1} s");
    }
    if !fiber.is_main() {
        let _ = write!(text, ", spawned at {}", fiber.spawned_at());
    }
    text
}

/// Adds a line for each of `fibers`; of more than `most`, the number of the others. `all` are those whom they may wait for.
pub(crate) fn lines(root: &Root, text: &mut String, fibers: &[Fiber], all: &[Fiber], most: usize) {
    let names = names_of(all);
    let now = monotonic_ns();
    for fiber in fibers.iter().take(most) {
        let _ = write!(text, "\n  {}", line(*fiber, root.current(), now, &names));
    }
    if fibers.len() > most {
        let _ = write!(text, "\n  and {} more", fibers.len() - most);
    }
}

/// Ids to labels.
fn names_of(fibers: &[Fiber]) -> HashMap<u64, String> {
    fibers.iter().map(|fiber| (fiber.id.get(), label(*fiber))).collect()
}

/// Main, every green thread and every started greenlet, a line each; of more than `most`, the number of the others.
fn list(root: &Root, text: &mut String, most: usize) {
    let mut fibers = vec![root.main()];
    root.for_each_fiber(|fiber| fibers.push(fiber));
    lines(root, text, &fibers, &fibers, most);
    if let Some(cycle) = cycle(&fibers, &names_of(&fibers)) {
        let _ = write!(text, "\n  cycle: {cycle}");
    }
}

/// The report of a deadlock: main waits, and nobody can ever wake it.
pub(crate) fn deadlock(root: &Root) -> String {
    let mut text = String::from(
        "deadlock: nothing is runnable, no timer is set, no descriptor is waited for, and so main would wait for ever",
    );
    list(root, &mut text, MOST);
    text
}

/// The report of what everybody does, for who asks.
pub(crate) fn everybody(root: &Root) -> String {
    let mut text = format!("{} green threads and greenlets, and main", root.live());
    list(root, &mut text, usize::MAX);
    text
}

/// Whom `fiber` waits for, if it is one. In a line for a lock that is who stands before it, and the holder for the first.
fn awaits(fiber: Fiber) -> Option<u64> {
    match (fiber.waits_for(), fiber.wait_prev.get()) {
        (Reason::Join(id) | Reason::Switch(id), _) => Some(id),
        (Reason::Held(Held::Once, id), _) => Some(id),
        (Reason::Held(..), Some(before)) if fiber.linked.get() => Some(before.fiber().id.get()),
        (Reason::Held(_, id), _) if id != 0 => Some(id),
        _ => None,
    }
}

/// Follows who waits for whom until somebody appears twice.
fn cycle(fibers: &[Fiber], names: &HashMap<u64, String>) -> Option<String> {
    let waits: HashMap<u64, u64> = fibers.iter().filter_map(|fiber| Some((fiber.id.get(), awaits(*fiber)?))).collect();
    // Who was passed, on which walk. A walk that meets an earlier one ends as that did.
    let mut passed: HashMap<u64, usize> = HashMap::new();
    for (walk, start) in fibers.iter().enumerate() {
        let mut path = Vec::new();
        let mut at = Some(start.id.get());
        while let Some(id) = at {
            path.push(id);
            match passed.insert(id, walk) {
                None => at = waits.get(&id).copied(),
                Some(earlier) if earlier == walk => {
                    let from = path.iter().position(|passed| *passed == id)?;
                    let labels: Vec<&str> =
                        path[from..].iter().filter_map(|id| names.get(id)).map(String::as_str).collect();
                    return Some(labels.join(" -> "));
                }
                Some(_) => break,
            }
        }
    }
    None
}

/// Makes panic messages name the green thread: the hook in force goes on printing what it prints, after one line of
/// ours. Once per process.
pub(crate) fn name_panics() {
    static ONCE: Once = Once::new();
    if std::thread::panicking() {
        // The hook cannot be changed now; the next hub will.
        return;
    }
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(root) = existing_root()
                && !root.current().is_main()
            {
                let fiber = root.current();
                let kind = if fiber.green_thread.get() { "green thread " } else { "" };
                let line = format!("{kind}{}, spawned at {}:\n", label(fiber), fiber.spawned_at());
                // Not `eprintln!`: a panic in here would end the process.
                let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            }
            previous(info);
        }));
    });
}
