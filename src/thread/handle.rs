//! A handle of a green thread that any OS thread may hold.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use crate::runtime::hub::{Hub, existing_hub_of};
use crate::runtime::mail::{Letter, Mail};
use crate::switch::fiber::{Fiber, FiberRef};
use crate::switch::root::{Parcel, Root, existing_root};

/// A green thread's identity: unique in the process, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadId {
    /// Its hub.
    hub: u64,
    /// Its number there.
    number: u64,
}

impl ThreadId {
    /// That of a fiber of the calling OS thread.
    pub(super) fn here(fiber: FiberRef) -> ThreadId {
        let (hub, number) = Parcel::of_the_dead(fiber.id()).identity();
        ThreadId { hub, number }
    }
}

impl fmt::Debug for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadId({}.{})", self.hub, self.number)
    }
}

/// A handle of a green thread: its name, its id, and a way to [`unpark`](Self::unpark) it from anywhere.
///
/// While such a handle exists, a hub whose threads are all parked does not call that a deadlock: the handle's holder
/// may still unpark one.
pub struct Thread {
    /// The way to its hub; none if the hub is gone already.
    mail: Option<Arc<Mail>>,
    /// Which fiber, for its own OS thread.
    fiber: Parcel,
    /// Its name.
    name: Option<Arc<str>>,
}

impl Thread {
    /// The handle of `fiber`, which is one of `hub`'s.
    pub(super) fn of(root: &Root, fiber: Fiber, hub: &Hub) -> Thread {
        hub.mail().add_handle();
        Thread { mail: Some(Arc::clone(hub.mail())), fiber: root.pack(fiber), name: fiber.name() }
    }

    /// The handle of a thread of this OS thread whose hub is gone: there is nobody left to unpark.
    pub(super) fn of_the_dead(id: u64) -> Thread {
        Thread { mail: None, fiber: Parcel::of_the_dead(id), name: None }
    }

    /// Its identity.
    ///
    /// May switch: no.
    pub fn id(&self) -> ThreadId {
        let (hub, number) = self.fiber.identity();
        ThreadId { hub, number }
    }

    /// Its name, if it has one.
    ///
    /// May switch: no.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Gives the thread its permit: its current or next [`park`](super::park) returns. Does nothing if it has ended.
    ///
    /// Any OS thread may call this. Within one OS thread it takes effect at once; from another one it is a letter to
    /// the thread's hub, which is woken if it sleeps. What the caller wrote before happens before the park returns.
    ///
    /// May switch: no.
    #[inline]
    pub fn unpark(&self) {
        if let Some(root) = existing_root()
            && root.packed(self.fiber)
            && existing_hub_of(root).is_some()
        {
            if let Some(fiber) = root.open(self.fiber) {
                root.give_permit(fiber);
            }
        } else if let Some(mail) = &self.mail {
            send_permit(mail, self.fiber);
        }
    }
}

/// `unpark` from another OS thread.
#[cold]
#[inline(never)]
fn send_permit(mail: &Mail, fiber: Parcel) {
    mail.send(Letter::Unpark(fiber));
}

impl Clone for Thread {
    fn clone(&self) -> Thread {
        if let Some(mail) = &self.mail {
            mail.add_handle();
        }
        Thread { mail: self.mail.clone(), fiber: self.fiber, name: self.name.clone() }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(mail) = &self.mail {
            mail.drop_handle();
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}
