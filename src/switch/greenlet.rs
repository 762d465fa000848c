//! Greenlets: explicit, symmetric switches with values.
//!
//! ```text
//!                       first switch                return, panic, kill
//!   new --> UNSTARTED ---------------> STARTED ------------------------------> DEAD
//!              |                       (suspended, running, or blocked in the hub)   ^
//!              +---------- throw, kill: the body never runs -------------------------+
//! ```
//!
//! A switch is symmetric: the value comes back from whoever switches to you. The *parent* matters only at death:
//! return value and panic go to the nearest ancestor that lives. The rules are those of Python's greenlet; the
//! documents of this project number them C1 to C27, and the comments below cite the numbers.
//!
//! A greenlet knows nothing of the hub. If its code blocks (`sleep`, a socket), its fiber parks there like any
//! other, and main or whoever else is runnable goes on.
//!
//! * Invariant G1: `status` is STARTED exactly while a fiber exists that runs this greenlet's body; then `fiber`
//!   names it, and that fiber's `greenlet` field holds the body's own reference. Upheld by `start` and `finish`.
//! * Invariant G2: `handles` counts the `Greenlet` values a program can see; the body's own reference is not one.
//! * Invariant G3: between the delivery of a message and the resumption of who gets it no foreign code runs on this
//!   OS thread: it might switch, and the delivered fiber would never get its turn. Upheld by `deliver`, which makes
//!   the receiver RUNNING (a second delivery is refused), by `finish`, which runs destructors first, and by `Drop`.
//!
//! The end of the last handle has four cases; `Drop` decides:
//!
//! | the greenlet then | what happens |
//! |---|---|
//! | is suspended, and the dropper may wait | it is unwound at once, the dropper waits (C18) |
//! | is suspended, and the dropper is itself unwound by a dropper | it is unwound when that one goes on |
//! | is suspended, and the dropper may not wait; or is blocked in the hub | it is unwound at its next turn |
//! | runs | it goes on; at its next switch it passes its value on, and is unwound at its next turn |
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write as _};
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::{Rc, Weak};

use super::cancel::{self, GreenletExit, Killed, NO_VALUE};
use super::extras::{Ending, Life};
use super::fiber::{Fiber, FiberRef, State, attention, drop_quietly};
use super::mailbox::{Arrival, Message, Refusal, deliver, exchange, receive};
use super::root::{Root, existing_root, root, try_root};
use super::stack::{MIN_SHIFT, Slot};

/// A greenlet of the family that exchanges messages of type `M`. A cheap handle: clones mean the same greenlet.
///
/// ```
/// use greenling::Greenlet;
///
/// let double = Greenlet::new(|mut n: u32| {
///     loop {
///         n = Greenlet::switch_to_parent(2 * n);
///     }
/// });
/// assert_eq!(double.switch(4), 8);
/// assert_eq!(double.switch(5), 10);
/// ```
///
/// A handle never leaves its OS thread:
///
/// ```compile_fail,E0277
/// let g = greenling::Greenlet::new(|n: u32| n);
/// std::thread::spawn(move || g.switch(1));
/// ```
///
/// ```
/// // The passing twin: made and used in the same OS thread.
/// std::thread::spawn(|| {
///     let g = greenling::Greenlet::new(|n: u32| n);
///     assert_eq!(g.switch(1), 1);
/// })
/// .join()
/// .unwrap();
/// ```
///
/// Nor can it be shared, and the body is moved in and runs once:
///
/// ```compile_fail,E0277
/// let g = greenling::Greenlet::new(|n: u32| n);
/// std::thread::scope(|s| {
///     s.spawn(|| g.switch(1));
/// });
/// ```
///
/// ```compile_fail,E0382
/// let name = String::from("moved in");
/// let body = move |n: usize| n + name.len();
/// let (a, b) = (greenling::Greenlet::new(body), greenling::Greenlet::new(body));
/// ```
///
/// ```
/// let name = String::from("moved in");
/// let body = move |n: usize| n + name.len();
/// assert_eq!(greenling::Greenlet::new(body).switch(1), 9);
/// ```
///
/// Dropping the last handle of a suspended greenlet unwinds it with [`GreenletExit`] on the spot, and comes back when
/// it has unwound. While the dropper itself unwinds or is in [`no_switch`](crate::no_switch), and for a greenlet that
/// is blocked in the hub, that happens at the greenlet's next turn instead, when somebody waits in the hub. A greenlet
/// that drops its own last handle goes on until it switches away. A handle stored in the greenlet's own body is one
/// that is never dropped: such a greenlet ends with its OS thread. Under `panic = "abort"` nothing can unwind, and
/// what is suspended stays so.
///
/// What a greenlet leaves to an ancestor that cannot take it, because it is blocked in the hub or waits in a switch
/// of another family, goes to the next ancestor; if none can take it, it is dropped.
pub struct Greenlet<M: 'static> {
    /// What all handles share.
    inner: Rc<Inner<M>>,
}

/// A handle that does not keep its greenlet suspended: see [`Greenlet::downgrade`].
pub struct WeakGreenlet<M: 'static> {
    /// The shared part, if it is still there.
    inner: Weak<Inner<M>>,
}

/// A greenlet's body.
type Body<M> = Box<dyn FnOnce(M) -> M>;

/// See the file's picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// No stack yet.
    Unstarted,
    /// Has a fiber.
    Started,
    /// Its body returned, panicked or will never run.
    Dead,
    /// Not a greenlet of this family at all: main, a green thread, or a greenlet of another family that takes part.
    Guest,
}

/// What the handles of one greenlet share.
struct Inner<M: 'static> {
    /// For equality, reports and traces; for a guest its fiber's id.
    id: u64,
    /// See [`Status`].
    status: Cell<Status>,
    /// The fiber while STARTED or GUEST.
    fiber: Cell<Option<FiberRef>>,
    /// The body until it starts.
    body: Cell<Option<Body<M>>>,
    /// The first value, between `start` and the body's first instruction.
    first: Cell<Option<M>>,
    /// Who gets the result; none only for a guest, whose parent is nobody.
    parent: RefCell<Option<Greenlet<M>>>,
    /// The value of the latest `kill`, which the parent gets if nobody catches the exit of this number.
    exit_value: Cell<Option<(u64, M)>>,
    /// Who waits for this greenlet to unwind because it dropped the last handle.
    dropper: Cell<Option<FiberRef>>,
    /// The result is nobody's: the last handle was dropped where nobody could wait.
    orphan: Cell<bool>,
    /// Number of visible handles (invariant G2).
    handles: Cell<usize>,
    /// Slot size as a power of two.
    shift: u8,
    /// Where it was made.
    made_at: &'static Location<'static>,
}

/// What a greenlet that died raises in who dropped its last handle, who takes it for what it is. Zero-sized: the box
/// costs no allocation.
struct Unwound;

/// A greenlet without handles that somebody will unwind, of whatever family.
trait Doomed {
    /// Unwinds it, if it is still suspended; the caller is `me`, and waits.
    fn unwind(self: Rc<Self>, root: &Root, me: Fiber);
}

/// What a greenlet is doing; [`Greenlet::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GreenletState {
    /// It has not been switched to yet, and has no stack.
    Unstarted,
    /// It is in a switch to somebody else.
    Suspended,
    /// It waits in a blocking call (or is about to run): the hub, not a switch, will resume it.
    Blocked,
    /// It is the one that asks.
    Running,
    /// It is over.
    Dead,
}

/// Why [`Greenlet::try_switch`] did not switch. The value comes back with the error, nothing is lost.
pub struct SwitchError<M> {
    /// What was to be passed.
    pub value: M,
    /// What went wrong.
    pub kind: SwitchErrorKind,
}

/// The reasons of a [`SwitchError`].
#[derive(Debug)]
#[non_exhaustive]
pub enum SwitchErrorKind {
    /// The target had not started, and there was no memory for its stack. It can be tried again.
    NoStack(io::Error),
    /// The target is blocked in the hub (a `sleep`, a socket, a join); only the hub may resume it.
    Blocked,
    /// The target (main or a green thread) waits in a switch of another family, with another message type.
    OtherFamily,
    /// No ancestor is left that could take the value.
    NoReceiver,
    /// The caller is unwinding, and may not wait.
    Unwinding,
    /// The OS thread is ending.
    ThreadEnding,
}

impl fmt::Display for SwitchErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwitchErrorKind::NoStack(error) => write!(f, "no stack for the greenlet: {error}"),
            SwitchErrorKind::Blocked => f.write_str(
                "the greenlet is blocked in the hub; only a greenlet that waits in a switch can be switched to",
            ),
            SwitchErrorKind::OtherFamily => {
                f.write_str("the target waits in a switch of another family: its messages are of another type")
            }
            SwitchErrorKind::NoReceiver => f.write_str("neither the greenlet nor any of its ancestors is alive"),
            SwitchErrorKind::Unwinding => {
                f.write_str("a thread that is unwinding from a panic or kill cannot switch to a greenlet")
            }
            SwitchErrorKind::ThreadEnding => f.write_str("this OS thread is ending; nothing can switch any more"),
        }
    }
}

impl<M> fmt::Display for SwitchError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl<M> fmt::Debug for SwitchError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwitchError").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<M> std::error::Error for SwitchError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            SwitchErrorKind::NoStack(error) => Some(error),
            _ => None,
        }
    }
}

/// Why [`Greenlet::set_parent`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParentError {
    /// The new parent is the greenlet itself or one of its descendants (C15).
    Cycle,
    /// Main and other guests have no parent, and cannot get one (C14).
    Guest,
}

impl fmt::Display for ParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParentError::Cycle => "a greenlet cannot be its own ancestor",
            ParentError::Guest => "main and green threads have no parent",
        })
    }
}

impl std::error::Error for ParentError {}

/// A greenlet's (or main's, or a green thread's) identity in a [`TraceEvent`]; unique on its OS thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GreenletId(u64);

/// What kind of switch a [`TraceEvent`] tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// A value was passed.
    Switch,
    /// A panic or an exit was passed.
    Throw,
}

/// One explicit switch, as the function given to [`settrace`] sees it: in the target, before it goes on (C24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// Value or throw.
    pub kind: TraceKind,
    /// Who switched, or died.
    pub origin: GreenletId,
    /// Who runs now.
    pub target: GreenletId,
}

/// A trace function.
type Tracer = Box<dyn FnMut(TraceEvent)>;

thread_local! {
    /// The function of `settrace`; taken out while it runs.
    static TRACER: RefCell<Option<Tracer>> = const { RefCell::new(None) };
    /// How often `settrace` was called: a function that was replaced while it ran is not put back.
    static TRACER_VERSION: Cell<u64> = const { Cell::new(0) };
    /// The ids of the greenlets that are being unwound while their dropper waits.
    static BEING_UNWOUND: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// Suspended greenlets whose last handle was dropped by one of those: the dropper of that one sees to them.
    static DOOMED: RefCell<VecDeque<Rc<dyn Doomed>>> = const { RefCell::new(VecDeque::new()) };
}

/// Calls `tracer` at every explicit switch of this OS thread, or stops doing so; returns the previous function, or
/// none if that is the one that is running and calls this.
///
/// The function runs in the target of the switch, before it goes on; the first switch into a greenlet and the
/// switch out of a dead one count. It is disabled while it runs. If it panics it is removed, and the panic goes on
/// in the target. It may itself switch. When the OS thread is ending nothing switches any more, and nothing is set.
///
/// May switch: no.
pub fn settrace(tracer: Option<Box<dyn FnMut(TraceEvent)>>) -> Option<Box<dyn FnMut(TraceEvent)>> {
    let root = try_root()?;
    let tracing = tracer.is_some();
    let old = TRACER.try_with(|cell| cell.replace(tracer)).ok()?;
    TRACER_VERSION.set(TRACER_VERSION.get() + 1);
    root.tracing.set(tracing);
    old
}

/// Tells the tracer of the switch that just arrived in `me`.
#[cold]
#[inline(never)]
fn trace(root: &Root, me: Fiber) {
    let Ok(Some(mut tracer)) = TRACER.try_with(RefCell::take) else { return };
    let version = TRACER_VERSION.get();
    root.tracing.set(false);
    let (origin, thrown) = root.origin.get();
    let event = TraceEvent {
        kind: if thrown { TraceKind::Throw } else { TraceKind::Switch },
        origin: GreenletId(origin),
        target: GreenletId(me.id.get()),
    };
    // If it panics, it stays removed, and the panic is the target's.
    tracer(event);
    if TRACER_VERSION.get() == version && TRACER.try_with(|cell| cell.replace(Some(tracer))).is_ok() {
        root.tracing.set(true);
    }
}

impl<M: 'static> Greenlet<M> {
    /// A greenlet that will run `body` with the value of the first switch; its parent is the running greenlet (C1).
    ///
    /// Nothing runs yet, and no stack is taken. When the OS thread is ending it can be made, but not started.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn new(body: impl FnOnce(M) -> M + 'static) -> Greenlet<M> {
        Self::build(Box::new(body), Self::current(), default_shift())
    }

    /// [`new`](Self::new) with another parent than the running greenlet.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn with_parent(body: impl FnOnce(M) -> M + 'static, parent: &Greenlet<M>) -> Greenlet<M> {
        Self::build(Box::new(body), parent.clone(), default_shift())
    }

    /// [`new`](Self::new) with a stack of at least `stack_size` bytes. It is address space: only the pages that
    /// are touched cost memory.
    ///
    /// Messages lie on the stack. Without optimisation every frame of a switch holds copies of its own, some sixty in
    /// all: a family that exchanges more than a few hundred bytes should box them, or ask for more stack.
    ///
    /// # Panics
    /// If `stack_size` is larger than 4 GiB less the guard.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn with_stack_size(body: impl FnOnce(M) -> M + 'static, stack_size: usize) -> Greenlet<M> {
        let shift = Slot::shift_for(stack_size).expect("a stack of more than 4 GiB");
        Self::build(Box::new(body), Self::current(), shift)
    }

    /// The common part of the constructors.
    #[track_caller]
    fn build(body: Body<M>, parent: Greenlet<M>, shift: u8) -> Greenlet<M> {
        let mut inner = Inner::blank(try_root().map_or(0, Root::fresh_id), Status::Unstarted, Location::caller());
        inner.body = Cell::new(Some(body));
        inner.parent = RefCell::new(Some(parent));
        inner.shift = shift;
        Self::from_inner(Rc::new(inner))
    }

    /// A guest's handle.
    fn guest(fiber: Fiber) -> Greenlet<M> {
        let inner = Inner::blank(fiber.id.get(), Status::Guest, fiber.spawned_at());
        inner.fiber.set(Some(fiber.to_ref()));
        Self::from_inner(Rc::new(inner))
    }

    /// One more visible handle (invariant G2).
    fn from_inner(inner: Rc<Inner<M>>) -> Greenlet<M> {
        inner.handles.set(inner.handles.get() + 1);
        Greenlet { inner }
    }

    /// The running greenlet (C22). Main, a green thread and a greenlet of another family are members as well. When
    /// the OS thread is ending everybody is dead.
    ///
    /// May switch: no.
    #[inline]
    pub fn current() -> Greenlet<M> {
        match try_root() {
            Some(root) => Self::member(root.current()),
            None => Self::gone(),
        }
    }

    /// Passes `value` to the parent of the running greenlet, and returns what somebody passes back: what a generator
    /// does.
    ///
    /// `Greenlet::current().parent().unwrap().switch(value)` does the same, but the handle of itself that it has on its
    /// stack meanwhile counts: dropping all others would not unwind the greenlet.
    ///
    /// # Panics
    /// As [`switch`](Self::switch); and in main and in green threads, which have no parent.
    ///
    /// May switch: yes.
    #[inline]
    #[track_caller]
    pub fn switch_to_parent(value: M) -> M {
        let parent = Self::current().parent();
        match parent {
            Some(parent) => parent.switch(value),
            None => fail(&SwitchErrorKind::NoReceiver),
        }
    }

    /// Main or the running greenlet of an OS thread that is ending: dead.
    #[cold]
    fn gone() -> Greenlet<M> {
        Self::from_inner(Rc::new(Inner::blank(0, Status::Guest, Location::caller())))
    }

    /// The handle of whoever runs on `fiber`.
    #[inline]
    fn member(fiber: Fiber) -> Greenlet<M> {
        match Self::running_in(fiber) {
            Some(inner) => Self::from_inner(inner),
            None => Self::guest(fiber),
        }
    }

    /// Main of this OS thread, as a member of this family; dead when the OS thread is ending.
    ///
    /// May switch: no.
    pub fn main() -> Greenlet<M> {
        match try_root() {
            Some(root) => Self::guest(root.main()),
            None => Self::gone(),
        }
    }

    /// The greenlet of this family whose body `fiber` runs.
    fn running_in(fiber: Fiber) -> Option<Rc<Inner<M>>> {
        let any = fiber.greenlet.take()?;
        fiber.greenlet.set(Some(Rc::clone(&any)));
        any.downcast::<Inner<M>>().ok()
    }

    /// Passes `value` to this greenlet and gives it the CPU; returns what somebody passes back.
    ///
    /// * Not started yet: `value` becomes the argument of its body (C2).
    /// * Suspended: `value` is what its own pending `switch` returns (C3).
    /// * Dead: `value` goes to its first live ancestor (C10); if that is the caller, it is returned at once.
    /// * The caller itself: returned at once (C5).
    ///
    /// # Panics
    /// With a panic that was thrown to the caller, or that killed a child of it (C7). With the message of
    /// [`SwitchErrorKind`] where [`try_switch`](Self::try_switch) gives an error; while unwinding this aborts the
    /// process, since a destructor must not panic then. Inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes.
    #[inline(always)]
    #[track_caller]
    pub fn switch(&self, value: M) -> M {
        match self.try_switch(value) {
            Ok(value) => value,
            Err(error) => fail(&error.kind),
        }
    }

    /// [`switch`](Self::switch) that gives the value back where it cannot switch.
    ///
    /// # Errors
    /// See [`SwitchErrorKind`]. The caller and the target are unharmed.
    ///
    /// # Panics
    /// With what is thrown to the caller, as `switch` does.
    ///
    /// May switch: yes.
    #[inline(always)]
    pub fn try_switch(&self, value: M) -> Result<M, SwitchError<M>> {
        let Some(root) = existing_root() else { return self.switch_slow(value) };
        let me = root.current();
        // The common case, in a few comparisons: nobody unwinds, is to be killed, timed or traced, and the target
        // waits in a switch of this family; then it is neither the caller nor dead.
        if cancel::obstacle().is_none()
            && me.attention.get() == 0
            && !root.tracing.get()
            && let Some(target) = self.inner.fiber.get()
            && let Some(target) = root.resolve(target)
        {
            return match exchange(root, me, target, value) {
                Ok(Arrival::Value(value)) => Ok(value),
                Ok(Arrival::Message(message)) => Ok(received(root, me, message)),
                Ok(Arrival::Nothing) => Ok(self.interrupted(root, me, false)),
                Err(value) => self.switch_slow(value),
            };
        }
        self.switch_slow(value)
    }

    /// `try_switch` in every other case.
    #[inline(never)]
    fn switch_slow(&self, value: M) -> Result<M, SwitchError<M>> {
        let Some(root) = try_root() else { return Err(SwitchError { value, kind: SwitchErrorKind::ThreadEnding }) };
        if cancel::obstacle().is_some() {
            return Err(SwitchError { value, kind: SwitchErrorKind::Unwinding });
        }
        match self.send_from(root, Message::Value(value)) {
            Ok(value) => Ok(value),
            Err((kind, Message::Value(value))) => Err(SwitchError { value, kind }),
            Err((kind, Message::Throw(_))) => fail(&kind),
        }
    }

    /// Raises `payload` in this greenlet, at its pending switch, and gives it the CPU; returns what somebody
    /// passes back (C11). No panic hook is called.
    ///
    /// * Not started yet: its body never runs, it is dead, and the payload goes to its parent (C12).
    /// * Dead: the payload is raised in its first live ancestor (C13).
    ///
    /// # Panics
    /// As [`switch`](Self::switch), and with the payload if it comes back to the caller. Under `panic = "abort"`.
    ///
    /// A payload is a box, nothing else can be thrown:
    ///
    /// ```compile_fail,E0308
    /// greenling::Greenlet::new(|n: u32| n).throw("not a box");
    /// ```
    ///
    /// ```should_panic
    /// greenling::Greenlet::new(|n: u32| n).throw(Box::new("a box"));
    /// ```
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn throw(&self, payload: Box<dyn Any + Send>) -> M {
        self.send(Message::Throw(payload))
    }

    /// Raises [`GreenletExit`] in this greenlet; if it does not catch it, `value` goes to its parent as if it had
    /// returned it (C8). Returns what somebody passes back.
    ///
    /// * Not started yet: its body never runs, and `value` goes to its parent.
    /// * Dead: as `switch` (C13).
    /// * Main or a green thread: the exit is raised there, and `value` is dropped, since they have no parent.
    ///
    /// # Panics
    /// As [`switch`](Self::switch). Under `panic = "abort"`, unless the greenlet is unstarted or dead.
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn kill(&self, value: M) -> M {
        let root = root();
        let me = root.current();
        if cancel::obstacle().is_some() {
            fail(&SwitchErrorKind::Unwinding);
        }
        if me.attention.get() != 0 {
            cancel::before_suspension(root, me);
        }
        match self.inner.status.get() {
            Status::Unstarted => match self.bury_unstarted() {
                Some(parent) => parent.switch(value),
                None => fail(&SwitchErrorKind::NoReceiver),
            },
            Status::Started => {
                // Numbered, so that an exit that was caught does not lend its value to a later one.
                let number = root.fresh_id();
                let older = self.inner.exit_value.replace(Some((number, value)));
                drop_quietly(older);
                self.send(Message::Throw(Box::new(GreenletExit(number))))
            }
            // A guest has no parent that the value could go to.
            Status::Guest if self.fiber(root).is_some() => {
                drop_quietly(value);
                self.send(Message::Throw(Box::new(GreenletExit(NO_VALUE))))
            }
            Status::Guest | Status::Dead => self.switch(value),
        }
    }

    /// Marks an unstarted greenlet dead and drops its body; its parent gets what comes.
    fn bury_unstarted(&self) -> Option<Greenlet<M>> {
        self.inner.status.set(Status::Dead);
        let body = self.inner.body.take();
        let parent = self.inner.parent.borrow().clone();
        drop_quietly(body);
        parent
    }

    /// The common part of `throw` and `kill`.
    #[track_caller]
    fn send(&self, message: Message<M>) -> M {
        if cfg!(panic = "abort") {
            panic!("greenling: Greenlet::throw and kill need panic = \"unwind\"");
        }
        if cancel::obstacle().is_some() {
            fail(&SwitchErrorKind::Unwinding);
        }
        match self.send_from(root(), message) {
            Ok(value) => value,
            Err((kind, message)) => {
                drop_quietly((message, self.inner.exit_value.take()));
                fail(&kind)
            }
        }
    }

    /// Sends a message to whoever takes it, and waits until something arrives for the caller.
    fn send_from(&self, root: &Root, message: Message<M>) -> Result<M, (SwitchErrorKind, Message<M>)> {
        let me = root.current();
        if me.attention.get() != 0 {
            cancel::before_suspension(root, me);
        }
        if root.tracing.get() {
            root.origin.set((me.id.get(), matches!(message, Message::Throw(_))));
        }
        match self.settle(root, me, message) {
            Settled::At(target) => Ok(self.wait(root, me, target)),
            Settled::Here(message) => Ok(open(message)),
            Settled::Nowhere(kind, message) => Err((kind, message)),
        }
    }

    /// Suspends the caller until something arrives for it.
    fn wait(&self, root: &Root, me: Fiber, target: Fiber) -> M {
        let armed = me.attention.get() != 0;
        if armed {
            if me.attention.get() & attention::ABANDONED != 0 {
                Self::leave_if_abandoned(root, me, target);
            }
            root.scheduler().arm(root, me);
        }
        let message = receive::<M>(root, me, Some(target), self.inner.id);
        let scope_due = armed && root.scheduler().disarm(root, me);
        match message {
            Arrival::Value(value) => value,
            Arrival::Message(message) => received(root, me, message),
            Arrival::Nothing => self.interrupted(root, me, scope_due),
        }
    }

    /// A suspended switch was woken by a kill, a timeout or a deadlock report instead of a message; or by nothing
    /// that concerns it, and then it waits on.
    #[cold]
    #[inline(never)]
    fn interrupted(&self, root: &Root, me: Fiber, mut scope_due: bool) -> M {
        loop {
            me.state.set(State::Running);
            cancel::after_suspension(root, me, scope_due);
            let armed = me.attention.get() != 0;
            if armed {
                root.scheduler().arm(root, me);
            }
            let message = receive::<M>(root, me, None, self.inner.id);
            scope_due = armed && root.scheduler().disarm(root, me);
            match message {
                Arrival::Value(value) => return value,
                Arrival::Message(message) => return received(root, me, message),
                Arrival::Nothing => {}
            }
        }
    }

    /// The caller dropped its own last handle and switches away: nobody can ever switch back. `target` has its message
    /// and goes on; the caller is unwound at its next turn. Once: what survives that stays suspended.
    #[cold]
    #[inline(never)]
    fn leave_if_abandoned(root: &Root, me: Fiber, target: Fiber) {
        let Some(inner) = Self::running_in(me) else { return };
        if inner.handles.get() > 0 || inner.orphan.get() || cfg!(panic = "abort") {
            return;
        }
        inner.orphan.set(true);
        drop(inner);
        me.attention.set(me.attention.get() & !attention::ABANDONED);
        me.state.set(State::Ready);
        root.enqueue(me);
        root.transfer(me, target);
        me.state.set(State::Running);
        cancel::raise(Some(me), Box::new(GreenletExit(NO_VALUE)))
    }

    /// Finds who takes `message` when it is sent to this greenlet, and puts it there: C2, C3, C5, C9, C10, C12.
    fn settle(&self, root: &Root, me: Fiber, message: Message<M>) -> Settled<M> {
        let mut at = self.clone();
        loop {
            match at.inner.status.get() {
                Status::Started | Status::Guest => match at.fiber(root) {
                    Some(fiber) if fiber == me => return Settled::Here(message),
                    Some(fiber) => {
                        return match deliver(fiber, message) {
                            Ok(()) => Settled::At(fiber),
                            Err((refusal, message)) => Settled::Nowhere(kind_of(refusal), message),
                        };
                    }
                    // A green thread that has ended counts as dead; everybody's last ancestor is main.
                    None => {
                        let main = Self::main();
                        if main == at {
                            return Settled::Nowhere(SwitchErrorKind::NoReceiver, message);
                        }
                        at = main;
                        continue;
                    }
                },
                Status::Unstarted => match message {
                    Message::Value(value) => match at.start(root, value) {
                        Ok(fiber) => return Settled::At(fiber),
                        Err((error, value)) => {
                            return Settled::Nowhere(SwitchErrorKind::NoStack(error), Message::Value(value));
                        }
                    },
                    // Thrown into an unstarted greenlet: it dies, its parent gets it.
                    Message::Throw(_) => drop(at.bury_unstarted()),
                },
                Status::Dead => {}
            }
            let parent = at.inner.parent.borrow().clone();
            at = match parent {
                Some(parent) => parent,
                None => return Settled::Nowhere(SwitchErrorKind::NoReceiver, message),
            };
        }
    }

    /// Who among this greenlet and its ancestors refused a message: the first that is not dead.
    fn refuser(self) -> Option<Greenlet<M>> {
        let mut at = self;
        while at.inner.status.get() == Status::Dead {
            let parent = at.inner.parent.borrow().clone();
            at = parent?;
        }
        Some(at)
    }

    /// Gives an unstarted greenlet its fiber; it runs when it is resumed. On error nothing changed (C27).
    fn start(&self, root: &Root, first: M) -> Result<Fiber, (io::Error, M)> {
        let inner = Rc::clone(&self.inner);
        self.inner.first.set(Some(first));
        match super::packet::launch_unowned(root, self.inner.shift, self.inner.id, self.inner.made_at, move |fiber| {
            run(inner, fiber)
        }) {
            Ok(fiber) => {
                self.inner.status.set(Status::Started);
                self.inner.fiber.set(Some(fiber.to_ref()));
                fiber.greenlet.set(Some(Rc::clone(&self.inner) as Rc<dyn Any>));
                fiber.state.set(State::Running);
                Ok(fiber)
            }
            Err(error) => {
                let Some(first) = self.inner.first.take() else { unreachable!("set above") };
                Err((error, first))
            }
        }
    }

    /// The fiber, if this greenlet has one that lives.
    #[inline(always)]
    fn fiber(&self, root: &Root) -> Option<Fiber> {
        let fiber = root.resolve(self.inner.fiber.get()?)?;
        (fiber.state.get() != State::Finished).then_some(fiber)
    }

    /// The parent; none for main and other guests (C14). While it is unwound because its last handle was dropped, that
    /// is who dropped it, and the program's choice afterwards (C18).
    ///
    /// May switch: no.
    pub fn parent(&self) -> Option<Greenlet<M>> {
        // C18: while it is unwound because its last handle was dropped, its parent is the dropper.
        match self.inner.dropper.get().and_then(|dropper| try_root()?.resolve(dropper)) {
            Some(dropper) => Some(Self::member(dropper)),
            None => self.inner.parent.borrow().clone(),
        }
    }

    /// Makes `parent` the greenlet that gets this one's result. Allowed in any state (C14).
    ///
    /// It cannot be taken away, nor be of another family:
    ///
    /// ```compile_fail,E0308
    /// let g = greenling::Greenlet::new(|n: u32| n);
    /// g.set_parent(None);
    /// ```
    ///
    /// ```compile_fail,E0308
    /// let g = greenling::Greenlet::new(|n: u32| n);
    /// g.set_parent(&greenling::Greenlet::<String>::main());
    /// ```
    ///
    /// ```
    /// let g = greenling::Greenlet::new(|n: u32| n);
    /// g.set_parent(&greenling::Greenlet::<u32>::main()).unwrap();
    /// ```
    ///
    /// # Errors
    /// If this greenlet is main or another guest, or would become its own ancestor (C15).
    ///
    /// May switch: no.
    pub fn set_parent(&self, parent: &Greenlet<M>) -> Result<(), ParentError> {
        if self.inner.status.get() == Status::Guest {
            return Err(ParentError::Guest);
        }
        let mut at = Some(parent.clone());
        while let Some(ancestor) = at {
            if ancestor == *self {
                return Err(ParentError::Cycle);
            }
            at = ancestor.inner.parent.borrow().clone();
        }
        let old = self.inner.parent.replace(Some(parent.clone()));
        drop(old);
        Ok(())
    }

    /// What it is doing (C21).
    ///
    /// May switch: no.
    pub fn state(&self) -> GreenletState {
        let Some(root) = try_root() else { return GreenletState::Dead };
        match self.inner.status.get() {
            Status::Unstarted => GreenletState::Unstarted,
            Status::Dead => GreenletState::Dead,
            Status::Started | Status::Guest => match self.fiber(root) {
                None => GreenletState::Dead,
                Some(fiber) if fiber == root.current() => GreenletState::Running,
                Some(fiber) if fiber.state.get() == State::Switched => GreenletState::Suspended,
                Some(_) => GreenletState::Blocked,
            },
        }
    }

    /// Started and not dead: what `bool(g)` is in Python (C21).
    ///
    /// May switch: no.
    pub fn is_active(&self) -> bool {
        !matches!(self.state(), GreenletState::Unstarted | GreenletState::Dead)
    }

    /// Finished, or killed before it started (C21).
    ///
    /// May switch: no.
    pub fn is_dead(&self) -> bool {
        self.state() == GreenletState::Dead
    }

    /// Whether this is main.
    ///
    /// May switch: no.
    pub fn is_main(&self) -> bool {
        try_root().is_some_and(|root| self.fiber(root) == Some(root.main()))
    }

    /// Its identity in traces.
    ///
    /// May switch: no.
    pub fn id(&self) -> GreenletId {
        GreenletId(self.inner.id)
    }

    /// Bytes of stack that a suspended greenlet holds between its base and its pending switch; 0 for one that
    /// runs, has not started, is blocked in the hub or is dead.
    ///
    /// May switch: no.
    pub fn stack_in_use(&self) -> usize {
        let Some(fiber) = try_root().and_then(|root| self.fiber(root)) else { return 0 };
        if fiber.state.get() != State::Switched || fiber.is_main() {
            return 0;
        }
        fiber.stack_base() - fiber.mailbox.get().addr()
    }

    /// A handle that does not keep the greenlet from being unwound when all others are gone.
    ///
    /// May switch: no.
    pub fn downgrade(&self) -> WeakGreenlet<M> {
        WeakGreenlet { inner: Rc::downgrade(&self.inner) }
    }

    /// The last handle of a started greenlet is gone: see the table at the head of the file.
    #[cold]
    fn last_handle_dropped(&self, root: &Root, fiber: Fiber) {
        if cfg!(panic = "abort") {
            return;
        }
        let me = root.current();
        let state = fiber.state.get();
        if fiber == me || matches!(state, State::Running | State::Notified) {
            fiber.attention.set(fiber.attention.get() | attention::ABANDONED);
            return;
        }
        let can_wait = cancel::obstacle().is_none() && me.no_switch.get() == 0 && !root.closing();
        if can_wait && state == State::Switched {
            Rc::clone(&self.inner).unwind(root, me);
            while let Ok(Some(doomed)) = DOOMED.try_with(|doomed| doomed.borrow_mut().pop_front()) {
                doomed.unwind(root, me);
            }
            return;
        }
        self.inner.orphan.set(true);
        let id = me.id.get();
        let is_unwound = BEING_UNWOUND.try_with(|ids| ids.borrow().contains(&id)).unwrap_or(false);
        if !is_unwound || state != State::Switched || root.closing() {
            root.kill(fiber);
            return;
        }
        let inner: Rc<dyn Doomed> = Rc::<Inner<M>>::clone(&self.inner);
        if let Err(inner) = push_doomed(inner) {
            root.kill(fiber);
            drop(inner);
        }
    }
}

/// Leaves a greenlet to who unwinds the running one; gives it back when the OS thread has no list any more.
fn push_doomed(inner: Rc<dyn Doomed>) -> Result<(), Rc<dyn Doomed>> {
    let mut inner = Some(inner);
    let _ = DOOMED.try_with(|doomed| doomed.borrow_mut().extend(inner.take()));
    inner.map_or(Ok(()), Err)
}

impl<M: 'static> Doomed for Inner<M> {
    fn unwind(self: Rc<Self>, root: &Root, me: Fiber) {
        let Some(fiber) = self.fiber.get().and_then(|fiber| root.resolve(fiber)) else { return };
        if fiber.state.get() != State::Switched || fiber == me {
            // Since it was doomed somebody woke it; as an orphan it is not forgotten.
            root.kill(fiber);
            return;
        }
        if root.tracing.get() {
            root.origin.set((me.id.get(), true));
        }
        if deliver::<M>(fiber, Message::Throw(Box::new(GreenletExit(NO_VALUE)))).is_err() {
            unreachable!("a suspended greenlet of this family takes its messages");
        }
        self.dropper.set(Some(me.to_ref()));
        let _ = BEING_UNWOUND.try_with(|ids| ids.borrow_mut().push(self.id));
        me.since.set(root.clock.get());
        let mut target = Some(fiber);
        let given_up = loop {
            // A kill or timeout of the dropper must wait: the frame it would unwind is a destructor's. Nor does it end
            // the loop with the greenlet's end unseen: the state says so, whoever woke this fiber.
            let message = receive::<M>(root, me, target.take(), self.id);
            me.state.set(State::Running);
            if self.status.get() == Status::Dead || !matches!(message, Arrival::Nothing) {
                drop_quietly(message);
                break None;
            }
            if me.attention.get() & attention::DEADLOCK != 0
                && let Some(report) = root.take_deadlock()
            {
                break Some(report);
            }
        };
        let _ = BEING_UNWOUND.try_with(|ids| ids.borrow_mut().retain(|id| *id != self.id));
        if self.status.get() != Status::Dead {
            self.dropper.set(None);
            if self.handles.get() == 0 {
                self.orphan.set(true);
                let _ = writeln!(
                    io::stderr(),
                    "greenling: a greenlet made at {} survived the drop of its last handle by catching GreenletExit; \
                     it is left to the end of its OS thread{}{}",
                    self.made_at,
                    if given_up.is_some() { ": " } else { "" },
                    given_up.unwrap_or_default(),
                );
            }
        }
        if root.tracing.get() {
            trace(root, me);
        }
    }
}

/// Where a message went.
enum Settled<M> {
    /// To this fiber, which must run next.
    At(Fiber),
    /// To the caller itself.
    Here(Message<M>),
    /// Nowhere, for this reason.
    Nowhere(SwitchErrorKind, Message<M>),
}

/// What a refused delivery means to the program.
fn kind_of(refusal: Refusal) -> SwitchErrorKind {
    match refusal {
        Refusal::NotSwitched => SwitchErrorKind::Blocked,
        Refusal::OtherFamily => SwitchErrorKind::OtherFamily,
    }
}

/// The panic of calls that have no error to return.
#[cold]
#[inline(never)]
#[track_caller]
fn fail(kind: &SwitchErrorKind) -> ! {
    panic!("greenling: {kind}")
}

/// What a pending switch does with what arrived.
#[inline(always)]
fn open<M>(message: Message<M>) -> M {
    match message {
        Message::Value(value) => value,
        Message::Throw(payload) => cancel::raise(try_root().map(Root::current), payload),
    }
}

/// A message arrived, and perhaps somebody traces.
fn received<M>(root: &Root, me: Fiber, message: Message<M>) -> M {
    if root.tracing.get() {
        trace(root, me);
    }
    open(message)
}

/// A greenlet's life, on its own stack.
fn run<M: 'static>(inner: Rc<Inner<M>>, fiber: Fiber) {
    let root = root();
    let (body, first) = (inner.body.take(), inner.first.take());
    let mut result = catch_unwind(AssertUnwindSafe(|| {
        let (Some(body), Some(first)) = (body, first) else { unreachable!("a greenlet starts once") };
        if fiber.attention.get() != 0 {
            cancel::before_suspension(root, fiber);
        }
        if root.tracing.get() {
            trace(root, fiber);
        }
        body(first)
    }));
    if fiber.life.get() == Life::WithExtras {
        // A value that a destructor's panic takes the place of is dropped like one that nobody gets.
        fiber.drop_locals(|payload| match result {
            Ok(_) => drop_quietly(mem::replace(&mut result, Err(payload))),
            Err(_) => drop_quietly(payload),
        });
    }
    // Nobody can ask how a greenlet ended.
    drop(fiber.end_with(Ending::Returned));
    finish(root, inner, fiber, result);
}

/// A greenlet died: sends its value or panic where it belongs (C6 to C9), and says who runs next.
fn finish<M: 'static>(root: &Root, inner: Rc<Inner<M>>, fiber: Fiber, result: Result<M, Box<dyn Any + Send>>) {
    let mut thrown = result.is_err();
    let mut message = match result {
        Ok(value) => Some(Message::Value(value)),
        // The thread's own end.
        Err(payload) if payload.is::<Killed>() => None,
        Err(payload) => match payload.downcast_ref::<GreenletExit>() {
            None => Some(Message::Throw(payload)),
            Some(exit) => match inner.exit_value.take() {
                Some((number, value)) if number == exit.0 => Some(Message::Value(value)),
                older => {
                    drop_quietly(older);
                    (!inner.is_unwatched(root)).then_some(Message::Throw(payload))
                }
            },
        },
    };
    thrown &= !matches!(message, Some(Message::Value(_)));
    // What nobody gets is dropped while the greenlet still is one, since destructors are foreign code and may switch
    // (G3). A panic was printed by the panic hook when it began.
    loop {
        if let Some(unused) = inner.exit_value.take() {
            drop_quietly(unused);
        } else if message.is_some() && inner.is_unwatched(root) {
            drop_quietly(message.take());
        } else {
            break;
        }
    }
    inner.status.set(Status::Dead);
    inner.fiber.set(None);
    drop(fiber.greenlet.take());
    let id = inner.id;
    let dropper = inner.dropper.take().and_then(|dropper| root.resolve(dropper));
    let parent = message.as_ref().and_then(|_| inner.parent.borrow().clone());
    // May be the last of it, and so drop the last handle of an ancestor that will get nothing.
    drop_quietly(inner);
    if root.tracing.get() {
        root.origin.set((id, thrown));
    }
    let next = if let Some(dropper) = dropper {
        // C18: the result was discarded.
        deliver(dropper, Message::<M>::Throw(Box::new(Unwound))).is_ok().then_some(dropper)
    } else {
        message.and_then(|message| pass_up(root, parent, fiber, message))
    };
    if let Some(next) = next {
        root.set_heir(next);
    }
}

/// Delivers what a dead greenlet left to the nearest of its ancestors, from `parent` on, that can take it.
fn pass_up<M: 'static>(root: &Root, mut at: Option<Greenlet<M>>, me: Fiber, mut message: Message<M>) -> Option<Fiber> {
    while let Some(ancestor) = at {
        message = match ancestor.settle(root, me, message) {
            Settled::At(fiber) => return Some(fiber),
            // C9: an error while starting an ancestor goes to the next one; the ancestor can still start (C27).
            Settled::Nowhere(SwitchErrorKind::NoStack(error), value) => {
                drop_quietly(value);
                Message::Throw(Box::new(format!("no stack for a greenlet's parent: {error}")))
            }
            // The dying fiber itself, as a guest: not alive enough.
            Settled::Here(message) | Settled::Nowhere(_, message) => message,
        };
        at = ancestor.refuser().and_then(|refuser| refuser.inner.parent.borrow().clone());
    }
    drop_quietly(message);
    None
}

/// The slot size of greenlets that ask for none.
fn default_shift() -> u8 {
    try_root().map_or(MIN_SHIFT, |root| root.default_shift.get())
}

impl<M> Inner<M> {
    /// Without a body, a fiber, a parent.
    fn blank(id: u64, status: Status, made_at: &'static Location<'static>) -> Inner<M> {
        Inner {
            id,
            status: Cell::new(status),
            fiber: Cell::new(None),
            body: Cell::new(None),
            first: Cell::new(None),
            parent: RefCell::new(None),
            exit_value: Cell::new(None),
            dropper: Cell::new(None),
            orphan: Cell::new(false),
            handles: Cell::new(0),
            shift: MIN_SHIFT,
            made_at,
        }
    }

    /// Whether the result is nobody's: the last handle was dropped, or everything ends.
    fn is_unwatched(&self, root: &Root) -> bool {
        self.dropper.get().is_some() || (self.orphan.get() && self.handles.get() == 0) || root.closing()
    }
}

impl<M: 'static> Drop for Inner<M> {
    /// A row of ancestors that only this one keeps goes one by one, not by recursion.
    fn drop(&mut self) {
        let mut next = self.parent.get_mut().take();
        while let Some(ancestor) = next {
            let last = Rc::strong_count(&ancestor.inner) == 1;
            next = if last { ancestor.inner.parent.take() } else { None };
        }
    }
}

impl<M: 'static> Clone for Greenlet<M> {
    #[inline]
    fn clone(&self) -> Self {
        Self::from_inner(Rc::clone(&self.inner))
    }
}

impl<M: 'static> Drop for Greenlet<M> {
    #[inline]
    fn drop(&mut self) {
        let handles = self.inner.handles.get() - 1;
        self.inner.handles.set(handles);
        if handles == 0
            && self.inner.status.get() == Status::Started
            && let Some(root) = try_root()
            && let Some(fiber) = self.fiber(root)
        {
            self.last_handle_dropped(root, fiber);
        }
    }
}

impl<M: 'static> PartialEq for Greenlet<M> {
    fn eq(&self, other: &Self) -> bool {
        self.inner.id == other.inner.id
    }
}

impl<M: 'static> Eq for Greenlet<M> {}

impl<M: 'static> fmt::Debug for Greenlet<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.state() {
            GreenletState::Unstarted => "pending",
            GreenletState::Suspended => "suspended",
            GreenletState::Blocked => "blocked",
            GreenletState::Running => "current",
            GreenletState::Dead => "dead",
        };
        let main = if self.is_main() { " main" } else { "" };
        write!(f, "Greenlet#{}({word}{main}, made at {})", self.inner.id, self.inner.made_at)
    }
}

impl<M: 'static> WeakGreenlet<M> {
    /// The greenlet, if another handle still exists. A greenlet that is being unwound because its last handle was
    /// dropped cannot be upgraded any more.
    ///
    /// May switch: no.
    pub fn upgrade(&self) -> Option<Greenlet<M>> {
        let inner = self.inner.upgrade()?;
        (inner.handles.get() > 0).then(|| Greenlet::from_inner(inner))
    }
}

impl<M: 'static> Clone for WeakGreenlet<M> {
    fn clone(&self) -> Self {
        WeakGreenlet { inner: Weak::clone(&self.inner) }
    }
}

impl<M: 'static> fmt::Debug for WeakGreenlet<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upgrade() {
            Some(greenlet) => write!(f, "Weak({greenlet:?})"),
            None => f.write_str("Weak(gone)"),
        }
    }
}
