//! Green threads, shaped like `std::thread`.
//!
//! [`spawn`] makes a green thread of the calling OS thread; it runs when the running one blocks, yields or ends, and
//! stays on this OS thread for life. That is why the closure need not be `Send`: `Rc`, `RefCell` and `thread_local!`
//! just work.
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
//! | `JoinHandle::join` | same | [`JoinError`] says killed or panicked, in place of a bare payload |
//! | `JoinHandle::thread`, `is_finished` | same | |
//! | – | [`JoinHandle::join_timeout`] | gives the handle back |
//! | – | [`JoinHandle::kill`] | unwinds the thread at its blocking call |
//! | – | `handle.await`: [`JoinFuture`] | in a [`block_on`](crate::block_on) on the same OS thread |
//! | `scope`, `Scope::spawn` | same | a body that panics or is killed kills the threads of its scope |
//! | `current`, `Thread::{id, name, unpark}` | same | the handle is `Send`: any OS thread may `unpark` |
//! | `park`, `park_timeout` | same | |
//! | `sleep`, `sleep_until`, `yield_now` | same | let other green threads run |
//! | `Builder::stack_size` | same | address space; only touched pages cost memory |
//! | `panicking` | `std::thread::panicking` | a green thread never suspends while it unwinds, so std's answer is right |
//! | `available_parallelism` | std's | |
//! | – | [`JoinHandle::on_finish`] | a callback at the end |
//! | – | [`try_scope`], [`TryScope::spawn`] | the first failure ends the scope |
//! | `thread_local!`, `LocalKey` | [`green_local!`](crate::green_local), [`LocalKey`] | each green thread's own; std's are per OS thread, shared by its green threads |
//!
//! # Order
//!
//! Everything is first come, first served: threads start in the order of their spawns, run in the order in which they
//! became runnable, and of several that wait for the same thing the one that came first is woken first. So three
//! threads that print their number and a letter, and yield in between, print `1A 2A 3A 1B 2B 3B`.
//!
//! # How a thread ends
//!
//! * It returns: [`join`](JoinHandle::join) gives the value.
//! * It panics: the panic hook prints the message, with the thread's name and where it was spawned, the joiner gets the
//!   payload, and nobody else notices.
//! * It is killed ([`kill`](JoinHandle::kill), a scope that unwinds, the end of its OS thread): it unwinds like from a
//!   panic, but nothing is printed.
//! * Its OS thread ends, be it main or another: every thread that is suspended is killed, in no particular order, before
//!   the OS thread's memory goes. One that goes on blocking whatever happens is given up after some rounds and leaked, its
//!   stack with it. [`hub::shutdown`](crate::hub::shutdown) does the same earlier.
//! * `process::exit` in a green thread ends the process without unwinding anybody.
//!
//! A thread that unwinds, from a panic or a kill, does not suspend: std counts panics per OS thread, and everybody who ran
//! meanwhile would see `panicking()`. So in destructors that run then, calls that would have to wait return at once:
//! `sleep`, `yield_now` and `park` do nothing, `join` and IO return an error, a scope cancels the threads it just spawned;
//! a lock without a time limit panics, see [`sync`](crate::sync).
//! Calls that need not wait work as always.
//!
//! # Limits
//!
//! | what | why | instead |
//! |---|---|---|
//! | code that computes for long | nobody else on this OS thread runs | [`blocking`](crate::blocking), or [`yield_now`] now and then |
//! | blocking calls of std (`std::thread::sleep`, `std::sync::mpsc`, ..) | they block the OS thread | those of this crate, or [`blocking`](crate::blocking) |
//! | a guard of `std::sync::Mutex` held over a blocking call | the next green thread that locks it blocks the OS thread, for ever | [`sync::Mutex`](crate::sync::Mutex) |
//! | thread-locals used in an order like a stack's (scoped thread-locals, interpreters' locks) | another green thread gets in between | [`no_switch`](crate::no_switch) turns that into a panic |
//! | C code that calls back into Rust that blocks | a kill or timeout would unwind C frames | [`shield`](crate::shield) around the call |
//! | thread-locals used by destructors of threads that are suspended when the OS thread ends | they may be gone by then | [`hub::shutdown`](crate::hub::shutdown) at the end of main |
//! | `fork` | the child has copies of the threads, which never run there; blocking calls fail with an error or panic that says so | `exec`, or fork before the first green thread |
//! | `panic = "abort"` | nothing can unwind | kills answer false, timeouts are an error, threads that are suspended at the end are leaked |

mod future;
mod handle;
mod local;
mod scope;
mod spawn;
mod try_scope;

use std::time::{Duration, Instant};

pub use crate::switch::extras::Ending;
pub use future::JoinFuture;
pub(crate) use future::wake_quietly;
pub use handle::{Thread, ThreadId};
pub use local::{AccessError, LocalKey};
pub use scope::{Scope, ScopedJoinHandle, scope, try_scope};
pub use spawn::{Builder, JoinError, JoinHandle, spawn};
pub(crate) use spawn::{Outcome, live};
pub use try_scope::{TryJoinHandle, TryScope};

use crate::runtime::hub::hub_of;
use crate::runtime::park::{NEVER, Wake, park as park_fiber, take_permit};
use crate::runtime::source::{after, give_way};
use crate::switch::cancel;
use crate::switch::fiber::{Fiber, Reason};
use crate::sys::clock::monotonic_ns;

use crate::switch::root::{MAIN_ID, Root, existing_root, try_root};

/// A handle of the running green thread (or of main, or of the running greenlet's fiber).
///
/// When the OS thread is ending, the handle has the identity of its main and no name.
///
/// # Panics
/// In the child of a fork.
///
/// May switch: no.
pub fn current() -> Thread {
    let Some(root) = try_root() else { return Thread::of_the_dead(MAIN_ID) };
    match hub_of(root) {
        Ok(hub) => Thread::of(root, root.current(), hub),
        Err(error) => panic!("{error}"),
    }
}

/// Lets every other runnable green thread of this OS thread run first.
///
/// Does nothing while the caller unwinds. On an OS thread that has no green threads it is std's.
///
/// # Panics
/// Unwinds with a pending kill or expired [`timeout`](crate::timeout); panics inside
/// [`no_switch`](crate::no_switch).
///
/// May switch: yes.
#[inline(always)]
pub fn yield_now() {
    // Where nothing green was ever started there is nobody to run, and where all has ended, nobody is left.
    let Some(root) = existing_root() else { return std::thread::yield_now() };
    if cancel::obstacle().is_some() {
        return;
    }
    let me = root.current();
    if me.attention.get() != 0 {
        return yield_slow(root, me);
    }
    root.requeue_current(me);
    let me = root.current();
    if me.attention.get() != 0 {
        cancel::after_suspension(root, me, false);
    }
}

/// `yield_now` with something that asks for attention.
#[cold]
#[inline(never)]
fn yield_slow(root: &Root, me: Fiber) {
    cancel::before_suspension(root, me);
    root.requeue_current(me);
    // Not the root's clock, which may be as old as the last look: time that is over is over at the first yield.
    let scope = me.scope_deadline.get().at;
    cancel::after_suspension(root, me, scope != NEVER && scope <= monotonic_ns());
}

/// Lets at least `duration` pass; other green threads run meanwhile. Never shorter, as a rule some 50 us longer.
///
/// A zero duration is [`yield_now`]. Does nothing while the caller unwinds. When the OS thread is ending it blocks the
/// OS thread, since there is nobody else to run.
///
/// # Panics
/// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in
/// the child of a fork.
///
/// May switch: yes.
#[inline]
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        return yield_now();
    }
    let Some(root) = try_root() else { return std::thread::sleep(duration) };
    if cancel::obstacle().is_some() {
        return;
    }
    match hub_of(root) {
        Ok(hub) => {
            let until = after(duration);
            while let Ok(Wake::Woken) = park_fiber(root, hub, root.current(), Reason::Sleep, until) {}
        }
        Err(error) => panic!("{error}"),
    }
}

/// [`sleep`] until `deadline`. If it has passed, the others that can run have their turn first, so that a loop which is
/// late every time does not keep the OS thread to itself; inside [`no_switch`](crate::no_switch) it returns at once then.
///
/// # Panics
/// As [`sleep`].
///
/// May switch: yes.
pub fn sleep_until(deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        sleep(left);
    } else if let Some(root) = existing_root() {
        give_way(root, root.current());
    }
}

/// Waits until this thread's permit is there, and takes it; see [`Thread::unpark`]. Like std's it may return early, but
/// only while the caller unwinds and when the OS thread is ending.
///
/// # Panics
/// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), in
/// main when nobody is left who could unpark it, and in the child of a fork.
///
/// May switch: yes.
#[inline(always)]
pub fn park() {
    park_until(NEVER);
}

/// [`park`] for at most `timeout`.
///
/// # Panics
/// As [`park`].
///
/// May switch: yes.
pub fn park_timeout(timeout: Duration) {
    park_until(after(timeout));
}

/// [`park`] with a deadline in monotonic nanoseconds.
#[inline(always)]
fn park_until(deadline: u64) {
    let Some(root) = try_root() else { return };
    match take_permit(root, deadline) {
        Ok(_) => {}
        // A destructor must not panic while it unwinds, and parking may end early then.
        Err(_) if cancel::obstacle().is_some() => {}
        Err(error) => panic!("{error}"),
    }
}
