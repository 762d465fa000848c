//! Tracing of explicit switches: `settrace` and the events that it reports.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};

use crate::switch::fiber::Fiber;
use crate::switch::root::{Root, TRACES, try_root};

/// The identity of a greenlet, of main or of a green thread in a [`TraceEvent`]; unique on the OS thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GreenletId(pub(super) u64);

/// The kind of switch that a [`TraceEvent`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// A value was passed.
    Switch,
    /// A panic or an exit was passed.
    Throw,
}

/// One explicit switch, as the function given to [`settrace`] sees it: in the target, before the target goes on (C24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// Whether a value or a panic was passed.
    pub kind: TraceKind,
    /// The greenlet that switched, or died.
    pub origin: GreenletId,
    /// The greenlet that runs now.
    pub target: GreenletId,
}

/// The function given to [`settrace`].
type Tracer = Box<dyn FnMut(TraceEvent)>;

thread_local! {
    /// The function given to `settrace`; taken out while running.
    static TRACER: RefCell<Option<Tracer>> = const { RefCell::new(None) };
    /// The number of calls of `settrace`: a function that was replaced while running is not put back.
    static TRACER_VERSION: Cell<u64> = const { Cell::new(0) };
}

/// Calls `tracer` at every explicit switch of this OS thread, or stops doing so; in a thread with thread-locals of its
/// [own](crate::thread::Builder::own_thread_locals) at every switch of the greenlets that share them. Returns the
/// previous function, or `None` if that one makes this call.
///
/// The function runs in the target of the switch, before the target goes on; the first switch into a greenlet and the
/// switch out of a dead one count. Tracing is disabled while the function runs. A function that panics is removed,
/// and the panic goes on in the target. The function may itself switch. When the OS thread is ending there are no
/// switches any more, and nothing is set.
///
/// May switch: no.
pub fn settrace(tracer: Option<Box<dyn FnMut(TraceEvent)>>) -> Option<Box<dyn FnMut(TraceEvent)>> {
    let root = try_root()?;
    let tracing = tracer.is_some();
    let old = TRACER.try_with(|cell| cell.replace(tracer)).ok()?;
    TRACER_VERSION.set(TRACER_VERSION.get() + 1);
    // Other threads with thread-locals of their own may have tracers; what is on then stays on.
    if tracing || !root.has_blocks() {
        root.set_traced(TRACES, tracing);
    }
    old
}

/// Reports the switch that has just arrived in `me` to the tracer.
#[cold]
#[inline(never)]
pub(super) fn trace(root: &Root, me: Fiber) {
    let Ok(Some(mut tracer)) = TRACER.try_with(RefCell::take) else { return };
    // Tracing is off while the tracer runs, so its own switches are not traced.
    let version = TRACER_VERSION.get();
    root.set_traced(TRACES, false);
    let (origin, thrown) = root.origin.get();
    let event = TraceEvent {
        kind: if thrown { TraceKind::Throw } else { TraceKind::Switch },
        origin: GreenletId(origin),
        target: GreenletId(me.id.get()),
    };
    // A tracer that panics stays removed, and the panic is the target's.
    tracer(event);
    // Put the tracer back, unless another one was set meanwhile.
    if TRACER_VERSION.get() == version && TRACER.try_with(|cell| cell.replace(Some(tracer))).is_ok() {
        root.set_traced(TRACES, true);
    }
}
