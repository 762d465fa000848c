//! Waiting for another hub: who waits is left behind a lock, and whoever makes it come true sends a letter.
//!
//! ```text
//!   one hub                                      another OS thread
//!   lock; is it so? no: leave a Waiter; unlock   lock; make it so; take the Waiter; unlock
//!   park(Remote)                                 Waiter::wake  ---- Letter::Wake ---->
//!   look again
//! ```
//!
//! No wake-up is lost: the waiter is left under the lock under which it was looked, and a letter that comes before the
//! park waits in the inbox, which is read only after the park. A letter that comes too late, because the wait was
//! unwound, finds a fiber that is gone or waits for something else; or one that waits for another hub again, and looks
//! once more for nothing. So every wait here is a loop.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::hub::{Hub, existing_hub_of};
use super::mail::{Letter, Mail};
use super::park::{Counted, Wake, park};
use crate::switch::cancel::Obstacle;
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::root::{Parcel, Root, existing_root};

/// A lock whose holders do not panic, suspend or run foreign code while they hold it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody who waits, as any OS thread may hold it.
#[derive(Clone)]
pub(crate) struct Waiter {
    /// The way to its hub.
    mail: Arc<Mail>,
    /// Which fiber, for its own OS thread.
    fiber: Parcel,
}

impl Waiter {
    /// `me`, one of `hub`'s.
    pub(crate) fn new(root: &Root, hub: &Hub, me: Fiber) -> Waiter {
        Waiter { mail: Arc::clone(hub.mail()), fiber: root.pack(me) }
    }

    /// Lets it look again: at once on its own OS thread, else by a letter.
    pub(crate) fn wake(&self) {
        if let Some(root) = root_of(&self.mail) {
            if let Some(fiber) = root.open(self.fiber)
                && matches!(fiber.waits_for(), Reason::Remote(_))
            {
                root.wake(fiber);
            }
            return;
        }
        self.mail.send(Letter::Wake(self.fiber));
    }
}

/// The calling OS thread's root, if `mail` is its hub's.
#[inline]
pub(crate) fn root_of(mail: &Arc<Mail>) -> Option<&'static Root> {
    let root = existing_root()?;
    Arc::ptr_eq(existing_hub_of(root)?.mail(), mail).then_some(root)
}

/// Whether this is the mail of the calling OS thread's hub.
pub(crate) fn is_here(mail: &Arc<Mail>) -> bool {
    root_of(mail).is_some()
}

/// Parks until a [`Waiter`] of `me` is woken. With `foreign` somebody outside may do that, and so it is no deadlock.
///
/// # Errors
/// As [`park`].
///
/// # Panics
/// As [`park`].
pub(crate) fn wait(
    root: &Root,
    hub: &Hub,
    me: Fiber,
    what: &'static str,
    foreign: bool,
    deadline: u64,
) -> Result<Wake, Obstacle> {
    let _counted = foreign.then(|| Counted::in_count(&hub.jobs));
    park(root, hub, me, Reason::Remote(what), deadline)
}
