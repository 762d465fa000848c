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
//! | – | [`JoinHandle::kill`] | unwinds the thread at its blocking call |
//! | `scope`, `Scope::spawn` | same | a body that panics or is killed kills the threads of its scope |
//! | `current`, `Thread::{id, name, unpark}` | same | the handle is `Send`: any OS thread may `unpark` |
//! | `park`, `park_timeout` | same | |
//! | `sleep`, `sleep_until`, `yield_now` | same | let other green threads run |
//! | `Builder::stack_size` | same | address space; only touched pages cost memory |
//! | `panicking` | `std::thread::panicking` | a green thread never suspends while it unwinds, so std's answer is right |
//! | `available_parallelism` | std's | |
//! | `LocalKey` | std's `thread_local!` is per OS thread | shared by its green threads |

mod handle;
mod scope;
mod spawn;

use std::time::{Duration, Instant};

pub use handle::{Thread, ThreadId};
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use spawn::{Builder, JoinError, JoinHandle, spawn};

use crate::runtime::hub::hub;
use crate::runtime::park::{NEVER, Wake, park as park_fiber, take_permit};
use crate::runtime::source::after;
use crate::switch::cancel;
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::root::{Root, root, try_root};

/// A handle of the running green thread (or of main, or of the running greenlet's fiber).
///
/// # Panics
/// When the OS thread is ending, or in the child of a fork.
///
/// May switch: no.
pub fn current() -> Thread {
    match hub() {
        Ok((root, hub)) => Thread::of(root, root.current(), hub),
        Err(error) => panic!("{error}"),
    }
}

/// Lets every other runnable green thread of this OS thread run first.
///
/// Does nothing while the caller unwinds.
///
/// # Panics
/// Unwinds with a pending kill or expired [`timeout`](crate::timeout); panics inside
/// [`no_switch`](crate::no_switch).
///
/// May switch: yes.
#[inline(always)]
pub fn yield_now() {
    let Some(root) = try_root() else { return std::thread::yield_now() };
    if cancel::obstacle().is_some() {
        return;
    }
    let me = root.current();
    if me.attention.get() != 0 {
        return yield_slow(root, me);
    }
    root.requeue_current(me);
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
    cancel::after_suspension(root, me, me.scope_deadline.get().at <= root.clock.get());
}

/// Lets at least `duration` pass; other green threads run meanwhile. Never shorter, as a rule some 50 us longer.
///
/// A zero duration is [`yield_now`]. Does nothing while the caller unwinds. When the OS thread is ending it blocks the
/// OS thread, since there is nobody else to run.
///
/// # Panics
/// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
///
/// May switch: yes.
#[inline]
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        return yield_now();
    }
    if try_root().is_none() {
        return std::thread::sleep(duration);
    }
    match hub() {
        Ok((root, hub)) => {
            let until = after(duration);
            while let Ok(Wake::Woken) = park_fiber(root, hub, root.current(), Reason::Sleep, until) {}
        }
        Err(error) => panic!("{error}"),
    }
}

/// [`sleep`] until `deadline`; returns at once if it has passed.
///
/// # Panics
/// As [`sleep`].
///
/// May switch: yes.
pub fn sleep_until(deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        sleep(left);
    }
}

/// Waits until this thread's permit is there, and takes it; see [`Thread::unpark`]. Like std's it may return early, but
/// only while the caller unwinds.
///
/// # Panics
/// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), in
/// main when nobody is left who could unpark it, and when the OS thread is ending.
///
/// May switch: yes.
#[inline(always)]
pub fn park() {
    if let Err(error) = take_permit(root(), NEVER) {
        panic!("{error}");
    }
}

/// [`park`] for at most `timeout`.
///
/// # Panics
/// As [`park`].
///
/// May switch: yes.
pub fn park_timeout(timeout: Duration) {
    if let Err(error) = take_permit(root(), after(timeout)) {
        panic!("{error}");
    }
}
