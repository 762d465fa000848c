//! What all rungs share: the socket calls, the answers, the log, and a client as event loops see it. Nothing here waits
//! for more than one client; how to wait for many is what the rungs are about.
//!
//! | file | has |
//! |---|---|
//! | `service.rs` | what the server does for clients: answers, and the log |
//! | `socket.rs` | the calls on a connection |
//! | `listener.rs` | accepting, also when descriptors are used up |
//! | `client.rs` | a client of an event loop: two flags and a queue |

mod client;
mod listener;
mod service;
mod socket;

pub(crate) use client::{Client, Pumped};
#[cfg(feature = "monkey")]
pub(crate) use listener::wait_after;
pub(crate) use listener::{BACK_OFF, Listener};
pub(crate) use service::{Reply, Service};
pub(crate) use socket::{Socket, check};

/// How much is read at a time. The documents take 1024.
pub(crate) const BUFFER: usize = 16 * 1024;
