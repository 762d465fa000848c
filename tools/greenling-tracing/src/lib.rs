//! Spans of [`tracing`] that follow green threads.
//!
//! `tracing` keeps the spans that a thread is in by OS thread. Green threads of one hub share an OS thread: one that waits
//! inside a span would leave that span to the next one. [`GreenSpans`] is a layer that takes the spans of a green thread
//! away while it does not run, and gives them back when it goes on:
//!
//! ```text
//!   A: request{id=1}                       hub::on_switch                              B: request{id=2}
//!   ---------------- A waits --->  exit request{id=1}  enter request{id=2}  ---> B goes on ---------------
//!                                  for each layer, as if A had left it
//! ```
//!
//! So every layer is right, without knowing of it: what `fmt` prints, the filters of `EnvFilter` for what is inside a
//! span, the busy and the idle time of a span. The same happens to the span of a future between two polls.
//!
//! ```
//! use greenling::{spawn, yield_now};
//! use greenling_tracing::GreenSpans;
//! use tracing_subscriber::prelude::*;
//!
//! let lines = tracing_subscriber::fmt::layer();
//! tracing_subscriber::registry().with(GreenSpans::new()).with(lines).init();
//!
//! #[tracing::instrument]
//! fn request(id: u32) {
//!     yield_now(); // others run, in their own spans
//!     tracing::info!("done"); // INFO request{id=1}: done
//! }
//!
//! let threads: Vec<_> = (0..3).map(|id| spawn(move || request(id))).collect();
//! threads.into_iter().for_each(|thread| thread.join().unwrap());
//! ```
//!
//! # What is so
//!
//! * A new thread is in no span. [`in_current_span`] gives it that of its spawner.
//! * A thread that panics or is killed unwinds out of its spans, as out of any scope. One that has ended is in none.
//! * Threads with thread-locals of their own have their own spans with any layer, and with this one.
//! * Each hub of the process is served; OS threads without green threads are as before.
//!
//! # Limits
//!
//! * Set the subscriber for the process ([`set_global_default`](tracing::subscriber::set_global_default), `init`).
//!   [`with_default`](tracing::subscriber::with_default) is a matter of the OS thread: if green threads take turns
//!   inside of it, all of them have the subscriber.
//! * What a layer writes to must not wait: while an event is on its way, `tracing` refuses other ones of the OS thread.
//!   Standard error, files and `tracing_appender` block the OS thread, and do not wait.
//! * An OS thread that enters a span gets what `greenling` keeps for each OS thread, some hundred bytes, though it may
//!   have no green thread. From then on each switch there takes the way of [`hub::on_switch`].

#[cfg(feature = "fmt")]
mod names;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem::{forget, take};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use greenling::hub::{self, Switch};
use tracing::dispatcher::WeakDispatch;
use tracing::{Dispatch, Span, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

#[cfg(feature = "fmt")]
pub use names::WithThreadNames;

/// A layer by which the spans of a subscriber follow green threads; see the crate's documentation.
///
/// It may stand anywhere in the subscriber, without a filter of its own, and once.
#[derive(Clone, Debug, Default)]
pub struct GreenSpans {
    /// The subscriber that the layer is a part of, once it is one.
    subscriber: Arc<OnceLock<WeakDispatch>>,
}

impl GreenSpans {
    /// Returns the layer.
    pub fn new() -> GreenSpans {
        GreenSpans::default()
    }
}

/// A span that a thread is in.
struct Entered {
    /// The subscriber that has the span.
    subscriber: Arc<OnceLock<WeakDispatch>>,
    /// The span.
    id: span::Id,
}

impl Entered {
    /// Calls `f` with the subscriber, if it is still there. A layer that panics, which the panic hook prints, must not
    /// take the hook on switches away: all threads would be in each other's spans from then on.
    fn with_subscriber(&self, f: impl FnOnce(Dispatch, &span::Id)) {
        if let Some(subscriber) = self.subscriber.get().and_then(WeakDispatch::upgrade)
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| f(subscriber, &self.id)))
        {
            // Its destructor might panic, too.
            forget(payload);
        }
    }
}

/// The spans of the green threads that share the calling code's thread-locals.
#[derive(Default)]
struct Spans {
    /// Those of the thread that runs, the outermost first.
    running: Vec<Entered>,
    /// Those of threads that do not run, by the number of the thread. Most threads are in none, and not here.
    waiting: HashMap<u64, Vec<Entered>>,
}

thread_local! {
    static SPANS: RefCell<Spans> = RefCell::default();
    /// Whether the hub calls `follow` at each switch.
    static HOOKED: Cell<bool> = const { Cell::new(false) };
    /// Whether `follow` is at work: what it enters and leaves is noted already.
    static FOLLOWING: Cell<bool> = const { Cell::new(false) };
}

/// Calls `f` with the spans; does nothing when they are destroyed already, since the OS thread ends.
fn with_spans(f: impl FnOnce(&mut Spans)) {
    let _ = SPANS.try_with(|spans| f(&mut spans.borrow_mut()));
}

impl<S: Subscriber> Layer<S> for GreenSpans {
    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        let _ = self.subscriber.set(subscriber.downgrade());
    }

    fn on_enter(&self, id: &span::Id, _: Context<'_, S>) {
        if FOLLOWING.get() {
            return;
        }
        if !HOOKED.replace(true) {
            // The hook stays as long as the OS thread. There is none where nothing switches any more.
            let _ = hub::on_switch(follow).map(forget);
        }
        with_spans(|spans| {
            spans.running.push(Entered { subscriber: Arc::clone(&self.subscriber), id: id.clone() });
        });
    }

    fn on_exit(&self, id: &span::Id, _: Context<'_, S>) {
        if FOLLOWING.get() {
            return;
        }
        with_spans(|spans| {
            let is_it = |entered: &Entered| entered.id == *id && Arc::ptr_eq(&entered.subscriber, &self.subscriber);
            // Guards may be dropped in any order.
            if let Some(index) = spans.running.iter().rposition(is_it) {
                spans.running.remove(index);
            }
        });
    }
}

/// Takes the spans of the thread that leaves away, and gives those of the thread that comes back. The hook on switches:
/// it runs with the thread-locals of that thread.
fn follow(switch: Switch) {
    // Threads with thread-locals of their own need no hook of their own.
    HOOKED.set(true);
    FOLLOWING.set(true);
    match switch {
        Switch::Leaves { thread, ended } => leave(thread, ended),
        Switch::Comes { thread, .. } => come(thread),
    }
    FOLLOWING.set(false);
}

/// Leaves the spans of `thread`, the innermost first.
fn leave(thread: u64, ended: bool) {
    let mut spans = Vec::new();
    with_spans(|all| spans = take(&mut all.running));
    if spans.is_empty() {
        return;
    }
    spans.iter().rev().for_each(|entered| entered.with_subscriber(|subscriber, id| subscriber.exit(id)));
    // One that has ended in a span, because its guard was forgotten, is in it no more.
    if !ended {
        with_spans(|all| _ = all.waiting.insert(thread, spans));
    }
}

/// Enters the spans of `thread` again, the outermost first.
fn come(thread: u64) {
    let mut spans = Vec::new();
    with_spans(|all| {
        if !all.waiting.is_empty() {
            spans = all.waiting.remove(&thread).unwrap_or_default();
        }
    });
    if spans.is_empty() {
        return;
    }
    spans.iter().for_each(|entered| entered.with_subscriber(|subscriber, id| subscriber.enter(id)));
    with_spans(|all| all.running = spans);
}

/// Returns `f` as a function that runs in `span`, for a thread that is spawned.
///
/// ```
/// let span = tracing::info_span!("upload", file = "a.txt");
/// greenling::spawn(greenling_tracing::in_span(span, || tracing::info!("begins"))).join().unwrap();
/// ```
pub fn in_span<T>(span: Span, f: impl FnOnce() -> T) -> impl FnOnce() -> T {
    move || span.in_scope(f)
}

/// Returns `f` as a function that runs in the span that the caller is in, for a thread that is spawned. The span is not
/// over before the thread has ended.
///
/// ```
/// #[tracing::instrument]
/// fn request(id: u32) {
///     let part = greenling::spawn(greenling_tracing::in_current_span(|| tracing::info!("a part of the request")));
///     part.join().unwrap();
/// }
/// ```
pub fn in_current_span<T>(f: impl FnOnce() -> T) -> impl FnOnce() -> T {
    in_span(Span::current(), f)
}
