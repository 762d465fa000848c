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
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};

use super::cancel::{self, GreenletExit, Killed};
use super::fiber::{Fiber, FiberRef, State, attention, drop_quietly};
use super::mailbox::{Message, Refusal, deliver, exchange, receive};
use super::root::{Root, existing_root, root, try_root};
use super::stack::Slot;

/// A greenlet of the family that exchanges messages of type `M`. A cheap handle: clones mean the same greenlet.
///
/// ```
/// use greenling::Greenlet;
///
/// let double = Greenlet::new(|mut n: u32| {
///     loop {
///         n = Greenlet::<u32>::current().parent().unwrap().switch(2 * n);
///     }
/// });
/// assert_eq!(double.switch(4), 8);
/// assert_eq!(double.switch(5), 10);
/// ```
///
/// A handle never leaves its OS thread:
///
/// ```compile_fail
/// let g = greenling::Greenlet::new(|n: u32| n);
/// std::thread::spawn(move || g.switch(1));
/// ```
///
/// Dropping the last handle of a suspended greenlet unwinds it with [`GreenletExit`] on the spot. A handle stored
/// in the greenlet's own body is one that is never dropped: such a greenlet ends with its OS thread.
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
    /// The value of `kill`, which the parent gets if nobody catches the exit.
    exit_value: Cell<Option<M>>,
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

/// What the dropper of a last handle waits for.
struct Unwound;

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
}

/// Calls `tracer` at every explicit switch of this OS thread, or stops doing so; returns the previous function.
///
/// The function runs in the target of the switch, before it goes on; the first switch into a greenlet and the
/// switch out of a dead one count. It is disabled while it runs. If it panics it is removed, and the panic goes on
/// in the target. It may itself switch.
///
/// # Panics
/// When the OS thread is ending.
///
/// May switch: no.
pub fn settrace(tracer: Option<Box<dyn FnMut(TraceEvent)>>) -> Option<Box<dyn FnMut(TraceEvent)>> {
    root().tracing.set(tracer.is_some());
    TRACER.with(|cell| cell.replace(tracer))
}

/// Tells the tracer of the switch that just arrived in `me`.
#[cold]
#[inline(never)]
fn trace(root: &Root, me: Fiber) {
    let Some(mut tracer) = TRACER.with(RefCell::take) else { return };
    root.tracing.set(false);
    let (origin, thrown) = root.origin.get();
    let event = TraceEvent {
        kind: if thrown { TraceKind::Throw } else { TraceKind::Switch },
        origin: GreenletId(origin),
        target: GreenletId(me.id.get()),
    };
    // If it panics, it stays removed, and the panic is the target's.
    tracer(event);
    TRACER.with(|cell| {
        let mut slot = cell.borrow_mut();
        if slot.is_none() {
            *slot = Some(tracer);
        }
    });
    root.tracing.set(true);
}

impl<M: 'static> Greenlet<M> {
    /// A greenlet that will run `body` with the value of the first switch; its parent is the running greenlet (C1).
    ///
    /// Nothing runs yet, and no stack is taken.
    ///
    /// # Panics
    /// When the OS thread is ending.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn new(body: impl FnOnce(M) -> M + 'static) -> Greenlet<M> {
        Self::build(Box::new(body), Self::current(), root().default_shift.get())
    }

    /// [`new`](Self::new) with another parent than the running greenlet.
    ///
    /// # Panics
    /// When the OS thread is ending.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn with_parent(body: impl FnOnce(M) -> M + 'static, parent: &Greenlet<M>) -> Greenlet<M> {
        Self::build(Box::new(body), parent.clone(), root().default_shift.get())
    }

    /// [`new`](Self::new) with a stack of at least `stack_size` bytes. It is address space: only the pages that
    /// are touched cost memory.
    ///
    /// # Panics
    /// If `stack_size` is larger than 4 GiB less the guard, or when the OS thread is ending.
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
        Self::from_inner(Rc::new(Inner {
            id: root().fresh_id(),
            status: Cell::new(Status::Unstarted),
            fiber: Cell::new(None),
            body: Cell::new(Some(body)),
            first: Cell::new(None),
            parent: RefCell::new(Some(parent)),
            exit_value: Cell::new(None),
            dropper: Cell::new(None),
            orphan: Cell::new(false),
            handles: Cell::new(0),
            shift,
            made_at: Location::caller(),
        }))
    }

    /// A guest's handle.
    fn guest(fiber: Fiber) -> Greenlet<M> {
        Self::from_inner(Rc::new(Inner {
            id: fiber.id.get(),
            status: Cell::new(Status::Guest),
            fiber: Cell::new(Some(fiber.to_ref())),
            body: Cell::new(None),
            first: Cell::new(None),
            parent: RefCell::new(None),
            exit_value: Cell::new(None),
            dropper: Cell::new(None),
            orphan: Cell::new(false),
            handles: Cell::new(0),
            shift: 0,
            made_at: fiber.spawned_at(),
        }))
    }

    /// One more visible handle (invariant G2).
    fn from_inner(inner: Rc<Inner<M>>) -> Greenlet<M> {
        inner.handles.set(inner.handles.get() + 1);
        Greenlet { inner }
    }

    /// The running greenlet (C22). Main, a green thread and a greenlet of another family are members as well.
    ///
    /// # Panics
    /// When the OS thread is ending.
    ///
    /// May switch: no.
    #[inline]
    pub fn current() -> Greenlet<M> {
        let me = root().current();
        match Self::running_in(me) {
            Some(inner) => Self::from_inner(inner),
            None => Self::guest(me),
        }
    }

    /// Main of this OS thread, as a member of this family.
    ///
    /// # Panics
    /// When the OS thread is ending.
    ///
    /// May switch: no.
    pub fn main() -> Greenlet<M> {
        Self::guest(root().main())
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
                Ok(Some(Message::Value(value))) if !root.tracing.get() => Ok(value),
                Ok(message) => Ok(arrived(root, me, message, false)),
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
    /// As [`switch`](Self::switch), and with the payload if it comes back to the caller.
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
    ///
    /// # Panics
    /// As [`switch`](Self::switch).
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn kill(&self, value: M) -> M {
        match self.inner.status.get() {
            Status::Unstarted => {
                let parent = self.bury_unstarted();
                match parent {
                    Some(parent) => parent.switch(value),
                    None => fail(&SwitchErrorKind::NoReceiver),
                }
            }
            Status::Dead => self.switch(value),
            Status::Started | Status::Guest => {
                self.inner.exit_value.set(Some(value));
                self.send(Message::Throw(Box::new(GreenletExit(()))))
            }
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
        if cancel::obstacle().is_some() {
            fail(&SwitchErrorKind::Unwinding);
        }
        match self.send_from(root(), message) {
            Ok(value) => value,
            Err((kind, _)) => fail(&kind),
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
            root.scheduler().arm(root, me);
        }
        let message = receive::<M>(root, me, Some(target), self.inner.id);
        let scope_due = armed && root.scheduler().disarm(root, me);
        arrived(root, me, message, scope_due)
    }

    /// Finds who takes `message` when it is sent to this greenlet, and puts it there: C2, C3, C5, C9, C10, C12.
    fn settle(&self, root: &Root, me: Fiber, mut message: Message<M>) -> Settled<M> {
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
            message = match message {
                // An exit that nobody was there to catch is the value it carries, if it carries one.
                Message::Throw(payload) if payload.is::<GreenletExit>() => match self.inner.exit_value.take() {
                    Some(value) => Message::Value(value),
                    None => Message::Throw(payload),
                },
                message => message,
            };
        }
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

    /// The parent; none for main and other guests (C14).
    ///
    /// May switch: no.
    pub fn parent(&self) -> Option<Greenlet<M>> {
        self.inner.parent.borrow().clone()
    }

    /// Makes `parent` the greenlet that gets this one's result. Allowed in any state (C14).
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
            at = ancestor.parent();
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

    /// The last handle is gone while the greenlet is suspended: unwinds it (C18).
    ///
    /// The caller waits until it has unwound. Where nobody may wait (the dropper unwinds, is in `no_switch` or in
    /// the thread's teardown) or the greenlet is blocked in the hub, the unwinding happens at its next turn.
    #[cold]
    fn last_handle_dropped(&self, root: &Root, fiber: Fiber) {
        let me = root.current();
        if fiber == me || cfg!(panic = "abort") {
            // Under `panic = "abort"` nothing can unwind: the stack stays as it is until the OS thread ends.
            return;
        }
        let can_wait = cancel::obstacle().is_none() && me.no_switch.get() == 0 && !root.closing();
        if !can_wait || fiber.state.get() != State::Switched {
            self.inner.orphan.set(true);
            root.kill(fiber);
            return;
        }
        self.inner.dropper.set(Some(me.to_ref()));
        if root.tracing.get() {
            root.origin.set((me.id.get(), true));
        }
        if deliver::<M>(fiber, Message::Throw(Box::new(GreenletExit(())))).is_err() {
            unreachable!("a suspended greenlet of this family takes its messages");
        }
        let mut target = Some(fiber);
        // A kill or timeout of the dropper must wait: the frame it would unwind is a destructor's.
        while receive::<Unwound>(root, me, target.take(), self.inner.id).is_none() {
            if me.attention.get() & attention::DEADLOCK != 0 {
                // It caught the exit and blocks, and nobody can wake it. A destructor must not panic.
                eprintln!("greenling: {}", root.take_deadlock().unwrap_or_default());
                self.inner.dropper.set(None);
                self.inner.orphan.set(true);
                break;
            }
        }
        if self.inner.status.get() != Status::Dead {
            eprintln!(
                "greenling: a greenlet made at {} survived the drop of its last handle by catching GreenletExit; \
                 it stays suspended until its OS thread ends",
                self.inner.made_at
            );
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
        Message::Throw(payload) => resume_unwind(payload),
    }
}

/// A suspended switch goes on: with a message, or because a kill, a timeout or a deadlock report woke it.
#[cold]
#[inline(never)]
fn arrived<M>(root: &Root, me: Fiber, message: Option<Message<M>>, scope_due: bool) -> M {
    match message {
        Some(message) => {
            if root.tracing.get() {
                trace(root, me);
            }
            open(message)
        }
        None => {
            me.state.set(State::Running);
            cancel::after_suspension(root, me, scope_due);
            unreachable!("a switch ends with a message or an interruption")
        }
    }
}

/// A greenlet's life, on its own stack.
fn run<M: 'static>(inner: Rc<Inner<M>>, fiber: Fiber) {
    let root = root();
    let (body, first) = (inner.body.take(), inner.first.take());
    let result = catch_unwind(AssertUnwindSafe(|| {
        let (Some(body), Some(first)) = (body, first) else { unreachable!("a greenlet starts once") };
        if fiber.attention.get() != 0 {
            cancel::before_suspension(root, fiber);
        }
        if root.tracing.get() {
            trace(root, fiber);
        }
        body(first)
    }));
    finish(root, inner, fiber, result);
}

/// A greenlet died: sends its value or panic where it belongs (C6 to C9), and says who runs next.
fn finish<M: 'static>(root: &Root, inner: Rc<Inner<M>>, fiber: Fiber, result: Result<M, Box<dyn Any + Send>>) {
    let mut thrown = result.is_err();
    let message = match result {
        Ok(value) => Some(Message::Value(value)),
        Err(payload) if payload.is::<GreenletExit>() => match inner.exit_value.take() {
            Some(value) => Some(Message::Value(value)),
            None if inner.orphan.get() || inner.dropper_waits() || root.closing() => None,
            None => Some(Message::Throw(payload)),
        },
        // The thread's own end.
        Err(payload) if payload.is::<Killed>() => None,
        Err(payload) => Some(Message::Throw(payload)),
    };
    thrown &= matches!(message, Some(Message::Throw(_))) || message.is_none();
    if root.tracing.get() {
        root.origin.set((inner.id, thrown));
    }
    inner.status.set(Status::Dead);
    inner.fiber.set(None);
    fiber.greenlet.set(None);
    let dropper = inner.dropper.take().and_then(|dropper| root.resolve(dropper));
    let next = if let Some(dropper) = dropper {
        // C18: the result is discarded; a panic was printed by the panic hook when it began.
        drop_quietly(message);
        deliver(dropper, Message::Value(Unwound)).is_ok().then_some(dropper)
    } else if inner.orphan.get() || root.closing() {
        drop_quietly(message);
        None
    } else {
        message.and_then(|message| pass_up(root, &inner, fiber, message))
    };
    // Its destructors (the parent handle, an exit value nobody wanted) are foreign code, and still run here.
    drop_quietly(inner);
    if let Some(next) = next {
        root.set_heir(next);
    }
}

/// Delivers what a dead greenlet left to the nearest ancestor that can take it.
fn pass_up<M: 'static>(root: &Root, inner: &Rc<Inner<M>>, me: Fiber, mut message: Message<M>) -> Option<Fiber> {
    let mut at = inner.parent.borrow().clone();
    while let Some(ancestor) = at {
        message = match ancestor.settle(root, me, message) {
            Settled::At(fiber) => return Some(fiber),
            Settled::Here(_) => unreachable!("a dead greenlet is nobody's live ancestor"),
            // C9: an error while starting an ancestor goes to the next one.
            Settled::Nowhere(SwitchErrorKind::NoStack(error), value) => {
                drop_quietly(value);
                ancestor.inner.status.set(Status::Dead);
                Message::Throw(Box::new(format!("no stack for a greenlet's parent: {error}")))
            }
            Settled::Nowhere(_, message) => message,
        };
        at = ancestor.parent();
    }
    drop_quietly(message);
    None
}

impl<M> Inner<M> {
    /// Whether somebody waits for this greenlet's unwinding.
    fn dropper_waits(&self) -> bool {
        self.dropper.get().is_some()
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
