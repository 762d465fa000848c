//! Waits of patched calls for simulated sockets (feature `monkey`).
//!
//! Each wait registers with the network for as long as it lasts, and is told at once of what is ready already. Nothing
//! is armed and nothing is trusted, as it is for files of the kernel (`watch.rs`): in a simulation no time is lost.
#![forbid(unsafe_code)]

use std::rc::Rc;

use super::hub::Hub;
use super::reactor::{EventSink, Reactor};
use crate::pure::slab::Key;
use crate::switch::fiber::Fiber;
use crate::switch::root::Root;
use crate::sys::epoll::{Interest, Ready};
use crate::sys::virtual_calls::Called;

/// A fiber that waits, and what for.
struct Waiter {
    /// The fiber that an event wakes.
    fiber: Fiber,
    /// The events that wake it, beside an error and an end.
    interest: Interest,
}

impl EventSink for Waiter {
    fn on_event(&self, _: &Reactor, root: &Root, ready: Ready) {
        if ready.meets(self.interest) || ready.any(Ready::ERR | Ready::HUP) {
            root.inject(self.fiber);
        }
    }
}

/// The wait of a fiber for a simulated socket; it ends when this is dropped.
pub(crate) struct VirtualWait {
    /// The hub of the fiber.
    hub: &'static Hub,
    /// The socket that is watched.
    socket: Called,
    /// The waiter's entry in the reactor.
    key: Key,
}

impl VirtualWait {
    /// Begins a wait: from now on `fiber` is woken once `socket` is ready for `interest`, also if it is ready already.
    pub(crate) fn new(hub: &'static Hub, socket: Called, fiber: Fiber, interest: Interest) -> VirtualWait {
        let key = hub.reactor().insert_sink(Rc::new(Waiter { fiber, interest }));
        socket.watch(key.to_token());
        VirtualWait { hub, socket, key }
    }
}

impl Drop for VirtualWait {
    fn drop(&mut self) {
        self.socket.unwatch(self.key.to_token());
        self.hub.reactor().remove_sink(self.key);
    }
}
