//! Traces: start and stop, the events that the recorder's records are, and what is made of them for people and viewers.
//!
//! | file | supplies |
//! |---|---|
//! | `event` | the events, as programs see them |
//! | `data` | the events of one hub or several |
//! | `slices` | the same as slices of time: runs, waits, is runnable |
//! | `json` | strings in JSON |
//! | `chrome` | the file that Perfetto and Chrome open |
//! | `page` | the page that browsers open |
//! | `why` | why a thread waited, in words |
//! | `session` | start and stop; the trace that the environment asks for |

mod chrome;
pub(crate) mod data;
pub(crate) mod event;
pub(in crate::runtime) mod json;
mod page;
pub(crate) mod session;
mod slices;
pub(crate) mod why;
