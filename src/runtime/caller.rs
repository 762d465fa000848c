//! The caller of a blocking call: the running fiber, with the root and the hub that it waits in.
#![forbid(unsafe_code)]

use std::io;

use super::hub::{Hub, hub, hub_of};
use crate::switch::fiber::Fiber;
use crate::switch::root::Root;

/// The running fiber, with the root and the hub of its OS thread: all that a wait needs. The files `park` and `remote`
/// add the ways to wait.
///
/// A `Caller` is kept on the caller's own stack only, and so the fiber outlives the value (fiber-1). Inlining takes the
/// value apart again: on a hot path the three parts are three registers.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    /// The root of the OS thread.
    pub(crate) root: &'static Root,
    /// The hub of the OS thread.
    pub(crate) hub: &'static Hub,
    /// The fiber that makes the call.
    pub(crate) fiber: Fiber,
}

impl Caller {
    /// Returns the caller, and makes the hub on first use.
    ///
    /// # Errors
    /// As [`hub`].
    #[inline(always)]
    pub(crate) fn current() -> io::Result<Caller> {
        hub().map(|(root, hub)| Caller::new(root, hub))
    }

    /// Returns the caller on the OS thread of `root`, and makes the hub on first use.
    ///
    /// # Errors
    /// As [`hub_of`].
    #[inline(always)]
    pub(crate) fn of(root: &'static Root) -> io::Result<Caller> {
        hub_of(root).map(|hub| Caller::new(root, hub))
    }

    /// Returns the caller on the OS thread of `root` and `hub`.
    #[inline(always)]
    pub(crate) fn new(root: &'static Root, hub: &'static Hub) -> Caller {
        Caller { root, hub, fiber: root.current() }
    }
}
