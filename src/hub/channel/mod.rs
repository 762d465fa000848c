//! A channel between hubs: any OS thread may hold an end.

mod arms;
mod ends;
mod iter;
mod state;

pub use ends::{RemoteReceiver, RemoteSender, channel};
pub use iter::{RemoteIntoIter, RemoteIter, RemoteTryIter};
