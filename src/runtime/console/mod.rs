//! The console's agent: what the threads of this process do, for another program that asks over a Unix socket.
//!
//! ```text
//!   greenling-top                     the agent's OS threads                     the hubs
//!   connect ------------------------> greets
//!   {"get":"threads","limit":50} ---> parse (request)
//!                                     asks, at most 4 times a second ----------> in a poll: what their threads do
//!   {"threads":[..],"total":9000} <-- filters, sorts, cuts out a page (answers)
//! ```
//!
//! `docs/console.md` has the protocol.
//!
//! | file | supplies |
//! |---|---|
//! | `request` | a request, read from a line |
//! | `object` | an object of JSON that is being written |
//! | `place` | the socket: where it lies, and whether what lies there may be replaced |
//! | `snapshot` | what the threads of all hubs did a moment ago |
//! | `answers` | the answer to a request |
//! | `tracing` | a trace of all hubs for a while |
//! | `agent` | the OS threads: the listener, and one for each client |

pub(crate) mod agent;
mod answers;
mod object;
mod place;
mod request;
mod snapshot;
mod tracing;
