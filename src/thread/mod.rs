//! Green threads, shaped like `std::thread`.
//!
//! [`spawn`] makes a green thread of the calling OS thread. The new thread runs when the running one blocks, yields or
//! ends, and stays on this OS thread for life. That is why the closure need not be `Send`: `Rc` and `RefCell` just
//! work, and so does `thread_local!` as long as nothing waits inside, see [Limits](#limits). A thread can also have
//! thread-locals of its own, see [Two kinds of threads](#two-kinds-of-threads).
//!
//! ```
//! use greenling::thread;
//!
//! let handle = thread::spawn(|| 6 * 7);
//! assert_eq!(handle.join().unwrap(), 42);
//! ```
//!
//! | std | here | difference |
//! |---|---|---|
//! | `spawn`, `Builder::spawn` | same | no `Send` needed; the closure runs on this OS thread |
//! | `JoinHandle::join` | same | [`JoinError`] says killed or panicked, in place of a bare payload; `?` turns it into one, and into an `io::Error` |
//! | `JoinHandle::thread`, `is_finished` | same | |
//! | – | [`JoinHandle::join_timeout`] | gives the handle back |
//! | – | [`JoinHandle::kill`] | unwinds the thread at its blocking call |
//! | – | `handle.await`: [`JoinFuture`] | in a [`block_on`](crate::block_on) on the same OS thread |
//! | `scope`, `Scope::spawn` | same | a body that panics or is killed kills the threads of its scope |
//! | `current`, `Thread::{id, name, unpark}` | same | the handle is `Send`: any OS thread may `unpark` |
//! | `park`, `park_timeout` | same | |
//! | `sleep`, `sleep_until`, `yield_now` | same | let other green threads run |
//! | `Builder::stack_size` | same | address space; only touched pages cost memory |
//! | a default stack of 2 MiB | 241,664 bytes (236 KiB) on x86-64 | 256 KiB with the guard; [`hub::set_default_stack_size`](crate::hub::set_default_stack_size) sets another; `RUST_MIN_STACK` is not read |
//! | `Builder::name` | same | the OS thread's name, which debuggers and `top` show, stays as it is |
//! | `ThreadId` | same | also ordered |
//! | `JoinHandle` may be dropped | same | the thread goes on |
//! | `Builder::spawn_unchecked` | – | an unsafe function: [`scope`] |
//! | `sleep_ms`, `park_timeout_ms` | – | deprecated in std |
//! | `os::unix::thread::JoinHandleExt` | – | a green thread has no `pthread_t` |
//! | `panicking` | std's, re-exported | a green thread never suspends while it unwinds, unless it has thread-locals of its own, so std's answer is right |
//! | `available_parallelism`, `Result` | std's, re-exported | |
//! | – | [`JoinHandle::on_finish`] | a callback at the end |
//! | – | [`try_scope`], [`TryScope::spawn`] | the first failure ends the scope |
//! | `thread_local!`, `LocalKey` | [`green_local!`](crate::green_local), [`LocalKey`] | each green thread's own; std's are per OS thread, shared by its light green threads |
//! | – | [`Builder::own_thread_locals`] | a thread with its own std thread-locals; `Send` is needed |
//!
//! # Two kinds of threads
//!
//! | | light: [`spawn`] | with thread-locals of its own: [`Builder::own_thread_locals`] |
//! |---|---|---|
//! | is to Rust and to std | a part of the thread that spawned it | a thread |
//! | enters and leaves it | anything | what is `Send`; it borrows what is `Sync` |
//! | std's thread-locals | those of the thread that spawned it | fresh ones, destroyed at its end |
//! | green-local values | inherited, as their keys say | not inherited |
//! | a wait while it unwinds | is refused | is allowed, unless it shares its thread-locals |
//! | the compiler checks | all but one rule, see [Limits](#limits) | all |
//! | where | everywhere | see [`own_thread_locals_supported`] |
//!
//! Take light threads for code that you know: they are smaller and faster, and share without locks. Take threads with
//! their own where crates run that keep thread-locals you do not know of, such as `tracing`, clients of databases or
//! another runtime, and where safety is not to rest on a rule. Both kinds take turns on one OS thread. What a switch, a
//! spawn and a waiting thread of each kind cost is in `docs/measurements.md`.
//!
//! | light | with its own |
//! |---|---|
//! | [`spawn`], [`Builder::spawn`] | [`OwnBuilder::spawn`] |
//! | [`Scope::spawn`] | [`OwnBuilder::spawn_scoped`] |
//! | [`TryScope::spawn`] | [`TryScope::spawn_own`] |
//! | [`Group::spawn`](crate::group::Group::spawn) | [`Group::add`](crate::group::Group::add) |
//! | [`Pool`](crate::group::Pool) | [`Pool::own_thread_locals`](crate::group::Pool::own_thread_locals) |
//! | [`TcpServer::start`](crate::server::TcpServer::start) | [`TcpServer::start_own`](crate::server::TcpServer::start_own) |
//! | [`UdpServer::start`](crate::server::UdpServer::start) | [`UdpServer::start_own`](crate::server::UdpServer::start_own) |
//! | [`HubHandle::spawn`](crate::hub::HubHandle::spawn) | [`HubHandle::spawn_own`](crate::hub::HubHandle::spawn_own) |
//!
//! The mains of [`Hubs`](crate::Hubs) need no such form: each has those of its OS thread.
//!
//! Light threads, greenlets and callbacks that a thread with its own starts share its thread-locals, and outlive it if
//! they like: the last of them destroys the thread-locals. Between these the rule of the limits holds, as between the
//! light threads of main. **A program in which every green thread has thread-locals of its own, and which has no
//! greenlets and no callbacks, cannot reach undefined behaviour from safe code.** The exceptions are the platform's: C
//! code that tells threads apart by the kernel's thread id takes those of one OS thread for the same thread, as a
//! recursive mutex of the C library does.
//!
//! # Order
//!
//! Everything is first come, first served: threads start in the order of their spawns and run in the order in which
//! they became runnable, and of several threads that wait for the same thing the one that came first is woken first. So
//! three threads that print their number and a letter, and yield in between, print `1A 2A 3A 1B 2B 3B`. Threads that
//! the outside world wakes (a timer, the kernel, another OS thread) stand in a queue of their own, which takes turns
//! with this one.
//!
//! # Sharing the CPU
//!
//! Nothing interrupts a thread that computes. But every call of this crate that could have waited lets others run now
//! and then, even if the call need not wait: once the caller has had the CPU for about a millisecond since the hub last
//! polled timers, descriptors and other OS threads, the caller's *share* is used up, and the caller goes to the back of
//! the queue, as by [`yield_now`]. So does a call that asks whether something has come (`try_recv`, `is_finished`, ..),
//! which programs make in loops. A call that gives way like this counts as one that has to wait, wherever the
//! documentation says what such a call does: the call may unwind with a kill or an expired [`timeout`](crate::timeout),
//! and another thread may meet a `RefCell` that is borrowed meanwhile. Inside [`no_switch`](crate::no_switch), and
//! while the caller unwinds, no call gives way.
//!
//! As long as threads make such calls, or yield, a thread that waits for a timer, a packet or another OS thread runs
//! again after at most one slice of another thread, about a millisecond, and the threads that were woken before,
//! however many threads can run. A thread that has moved much through sockets without ever waiting is behind those that
//! move little.
//!
//! For a hub that switches many times in a microsecond, the time is kept by an OS thread, `greenling-monitor`, of
//! which a process has one. The monitor sleeps when no hub is busy in that way.
//!
//! # How a thread ends
//!
//! * The thread returns: [`join`](JoinHandle::join) gives the value.
//! * The thread panics: the panic hook prints the message, with the thread's name and where the thread was spawned, the
//!   joiner gets the payload, and no other thread notices.
//! * The thread is killed ([`kill`](JoinHandle::kill), a scope that unwinds, [`hub::shutdown`](crate::hub::shutdown)):
//!   the thread unwinds like from a panic, but nothing is printed.
//! * The OS thread ends, be it main or another: a suspended thread is given up. Such a thread never runs again, no
//!   destructor on its stack does, and what the thread owns is leaked with the stack
//!   ([`StackStats::leaked`](crate::hub::StackStats::leaked)). To resume the thread would do harm, since thread-locals
//!   that the thread borrows may be gone by then. A closure that never ran and a result that was never taken are
//!   dropped, unless they are those of a scope. `hub::shutdown` at the end of main unwinds all of these threads before;
//!   each main of [`Hubs`](crate::Hubs) ends with it.
//! * A thread with thread-locals of its own destroys them at its end, however it ends, on its own stack and before
//!   joiners are told. A destructor may wait, and no kill or time limit interrupts it; `hub::shutdown` waits a second
//!   for such destructors. With the stack of a thread that is given up its thread-locals are leaked, too.
//! * `process::exit` in a green thread ends the process without unwinding any thread.
//!
//! A thread that unwinds, from a panic or a kill, does not suspend: std counts panics per OS thread, and every thread
//! that ran meanwhile would see `panicking()`. So calls that would have to wait return at once in destructors that run
//! then: `sleep`, `yield_now` and `park` do nothing, `join` and IO return an error, a scope cancels the threads just
//! spawned; a lock without a time limit panics, see [`sync`](crate::sync). Calls that need not wait work as always.
//! A thread that has thread-locals of its own, and does not share them at the moment, may wait: the count of panics is
//! its own. Nothing is raised in it meanwhile.
//!
//! # Limits
//!
//! | what | why | instead |
//! |---|---|---|
//! | code that computes for long | no other thread of this OS thread runs | [`blocking`](crate::blocking), or [`yield_now`] now and then |
//! | blocking calls of std (`std::thread::sleep`, `std::sync::mpsc`, ..) | they block the OS thread | those of this crate, or [`blocking`](crate::blocking) |
//! | a guard of `std::sync::Mutex` held over a blocking call | the next green thread that locks it blocks the OS thread, for ever | [`sync::Mutex`](crate::sync::Mutex); in a `static`, or between OS threads, that of [`hub::sync`](crate::hub::sync) |
//! | the initialiser of a lazy `thread_local!` that waits | another green thread initialises the same key meanwhile; then std drops the value that the other one borrows: undefined behaviour | `const { .. }` initialisers, [`green_local!`](crate::green_local), [`no_switch`](crate::no_switch) in it |
//! | thread-locals used in an order like a stack's (scoped thread-locals, interpreters' locks) | another green thread gets in between: a dangling pointer | [`no_switch`](crate::no_switch) turns that into a panic |
//! | the destructor of a thread-local that waits, or drops the last handle of a suspended greenlet | the hub is still there if it is younger: others run, and may use thread-locals that are gone: undefined behaviour | a destructor that does not; [`hub::shutdown`](crate::hub::shutdown) at the end of main |
//! | C code that calls back into Rust that blocks | a kill or timeout would unwind C frames | [`shield`](crate::shield) around the call |
//! | destructors of threads that are suspended when the OS thread ends | they never run | [`hub::shutdown`](crate::hub::shutdown) at the end of main |
//! | a `#[global_allocator]` that calls blocking functions of this crate | the runtime allocates with its own lists borrowed: undefined behaviour | it must not; this is part of the contract of implementing one |
//! | `fork` | the child has copies of the threads, which never run there; blocking calls fail with an error or panic that says so | `exec`, or fork before the first green thread |
//! | `panic = "abort"` | nothing can unwind | kills answer false, timeouts are an error, `hub::shutdown` unwinds no thread |
//!
//! Three of these, those with thread-locals that are initialised, kept in order or destroyed, are one rule, on which
//! the safety of this crate rests: **nothing that keeps a thread-local in use, or is initialising one, waits.** std
//! lets safe code rely on calls of one OS thread nesting, and a call that waits here lets another stack of that OS
//! thread go on. A plain `KEY.with(|value| ..)` that waits is harmless if `value` was there before and no crate counts
//! the borrows; but the rule gives the answer without a look into the crate. Inside [`no_switch`](crate::no_switch) the
//! rule is enforced: a call that would have to wait panics. A thread with thread-locals of its
//! [own](#two-kinds-of-threads) need not keep the rule.

mod future;
mod handle;
mod join;
mod join_error;
mod life;
mod local;
mod scope;
mod spawn;
mod try_scope;

use std::time::{Duration, Instant};

pub use std::thread::{Result, available_parallelism, panicking};

pub use crate::switch::extras::Ending;
pub use future::JoinFuture;
pub use handle::{Thread, ThreadId};
pub use join_error::JoinError;
pub(crate) use join_error::Outcome;
pub(crate) use life::{live_apart, wake_quietly};
pub use local::{AccessError, LocalKey};
pub use scope::{Scope, ScopedJoinHandle, scope};
pub(crate) use spawn::HubBound;
pub use spawn::{Builder, JoinHandle, OwnBuilder, own_thread_locals_supported, spawn};
pub use try_scope::{TryJoinHandle, TryScope, try_scope};

use crate::runtime::caller::Caller;
use crate::runtime::checkpoint::{checkpoint_if, give_way};
use crate::runtime::hub::{existing_hub, hub_of, no_hub};
use crate::runtime::park::{Wake, take_permit};
use crate::switch::cancel;
use crate::switch::fiber::{Fiber, Reason};

use crate::switch::root::{MAIN_ID, Root, existing_root, try_root};
use crate::sys::clock::{NEVER, after, left_until, monotonic_ns, monotonic_of};

/// Returns a handle of the running green thread (or of main, or of the running greenlet's fiber).
///
/// When the OS thread is ending, the handle has the identity of its main and no name.
///
/// # Panics
/// In the child of a fork.
///
/// May switch: no.
#[doc(alias = "getcurrent")]
pub fn current() -> Thread {
    let Some(root) = try_root() else { return Thread::of_finished(MAIN_ID) };
    match hub_of(root) {
        Ok(hub) => Thread::of(root, root.current(), hub),
        Err(error) => no_hub(&error),
    }
}

/// Returns a handle of the running green thread, as [`current`] does, on an OS thread that has a hub. Other than
/// `current` the call makes no hub where there is none, and never panics: for what any code of the program may call,
/// such as a logger.
///
/// ```
/// use greenling::thread::{Builder, try_current};
///
/// let name = || try_current().and_then(|thread| thread.name().map(String::from));
/// assert_eq!(name(), None); // no hub yet
/// let worker = Builder::new().name("worker".into()).spawn(name)?;
/// assert_eq!(worker.join().unwrap().as_deref(), Some("worker"));
/// # std::io::Result::Ok(())
/// ```
///
/// May switch: no.
pub fn try_current() -> Option<Thread> {
    existing_hub().map(|hub| Thread::of(hub.root(), hub.root().current(), hub))
}

/// Lets every other runnable green thread of this OS thread run first.
///
/// Does nothing while the caller unwinds. On an OS thread that has no green threads this is std's `yield_now`.
///
/// # Panics
/// Unwinds with a pending kill or expired [`timeout`](crate::timeout); panics inside
/// [`no_switch`](crate::no_switch).
///
/// May switch: yes.
#[doc(alias = "idle")]
#[inline(always)]
pub fn yield_now() {
    // No root: no green thread was ever started on this OS thread, or all have ended.
    let Some(root) = existing_root() else { return std::thread::yield_now() };
    if cancel::obstacle().is_some() {
        return;
    }
    // The common case has no flag set, before or after the turn of the others.
    let me = root.current();
    if me.pending.any() {
        return yield_slow(root, me);
    }
    root.requeue_current(me);
    let me = root.current();
    if me.pending.any() {
        cancel::after_suspension(root, me, false);
    }
}

/// Yields for a thread that has pending flags set.
#[cold]
#[inline(never)]
fn yield_slow(root: &Root, me: Fiber) {
    cancel::before_suspension(root, me);
    root.requeue_current(me);
    // The root's clock may be as old as the last poll. With the real time, a deadline that has passed is noticed at the
    // first yield.
    let scope = me.scope_deadline.get().at;
    cancel::after_suspension(root, me, scope != NEVER && scope <= monotonic_ns());
}

/// Suspends the caller for at least `duration`, as a rule some 50 us longer; other green threads run meanwhile.
///
/// A zero duration is [`yield_now`]. Does nothing while the caller unwinds. When the OS thread is ending, the call
/// blocks the OS thread, since no other thread could run.
///
/// # Panics
/// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), in the
/// child of a fork, and if this is the first call on the OS thread that needs a hub and there are no descriptors for
/// one: two, for an epoll instance and what wakes it. ([`Builder::spawn`] and
/// [`hub::try_handle`](crate::hub::try_handle) make the hub, too, and return that as an error.)
///
/// May switch: yes.
#[doc(alias = "sleep_ms")]
#[inline]
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        return yield_now();
    }
    let Some(root) = try_root() else { return std::thread::sleep(duration) };
    sleep_to(root, || after(duration));
}

/// Sleeps until the monotonic nanosecond that `until` returns.
#[inline]
fn sleep_to(root: &'static Root, until: impl FnOnce() -> u64) {
    // A thread that unwinds cannot park.
    if cancel::obstacle().is_some() {
        return;
    }
    match Caller::of(root) {
        Ok(caller) => {
            let until = until();
            // Only the deadline or a kill ends the sleep; other wake-ups do not.
            while let Ok(Wake::Woken) = caller.park(Reason::Sleep, until) {}
        }
        Err(error) => no_hub(&error),
    }
}

/// Sleeps until `deadline`. If `deadline` has passed, the other runnable threads have their turn first, so that a loop
/// which is late every time does not keep the OS thread to itself; inside [`no_switch`](crate::no_switch) the call then
/// returns at once.
///
/// # Panics
/// As [`sleep`].
///
/// May switch: yes.
pub fn sleep_until(deadline: Instant) {
    let left = left_until(deadline);
    if left.is_zero() {
        return existing_root().map_or((), |root| give_way(root, root.current()));
    }
    match try_root() {
        Some(root) => sleep_to(root, || monotonic_of(deadline).min(NEVER - 1)),
        None => std::thread::sleep(left),
    }
}

/// Waits until the permit of the calling thread is there, and takes the permit; see [`Thread::unpark`]. Like std's, the
/// call may return early, but only while the caller unwinds and when the OS thread is ending.
///
/// # Panics
/// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), in
/// main when nothing is left that could unpark it, and in the child of a fork.
///
/// May switch: yes.
#[inline(always)]
pub fn park() {
    park_until(NEVER);
}

/// Waits for the permit as [`park`] does, but for at most `timeout`.
///
/// # Panics
/// As [`park`].
///
/// May switch: yes.
#[doc(alias = "park_timeout_ms")]
pub fn park_timeout(timeout: Duration) {
    park_until(after(timeout));
}

/// Parks until `deadline`, in monotonic nanoseconds.
#[inline(always)]
fn park_until(deadline: u64) {
    let Some(root) = try_root() else { return };
    checkpoint_if(|| root.current().permit.get());
    match take_permit(root, deadline) {
        Ok(_) => {}
        // Parking may end early while a destructor unwinds, and a panic would abort there.
        Err(_) if cancel::obstacle().is_some() => {}
        Err(error) => no_hub(&error),
    }
}
