//! Automatic switching: what makes a blocking call give the CPU to somebody else and get it back.
//!
//! ```text
//! look(may_wait):                      the root loop calls it after 61 resumptions, or when nobody is runnable
//!     take the mail of other OS threads                                inbox
//!     nobody runnable and nothing can ever happen?  report a deadlock  report
//!     epoll_wait(0 while fibers are runnable, else until the next timer)  reactor: wakes, schedules nobody
//!     fire timers that are due                                         hub
//! ```
//!
//! | file | supplies |
//! |---|---|
//! | `reactor` | file descriptor -> readiness bits and waiters; one `epoll_wait` at a time |
//! | `mail` | what other OS threads send: the inbox and the bell (an eventfd) |
//! | `hub` | one per OS thread: reactor, timers, mail; the look above; deadlock detection |
//! | `park` | the only way anything blocks; takes a reason and a deadline |
//! | `source` | one file descriptor of a hub: try, wait, try again |
//! | `choose` | waiting for several things at once |
//! | `remote` | waiting for another hub, and waking whoever does |
//! | `watch` | any descriptor, by its number: asked at each wait, or believed for a moment (feature `monkey`) |
//! | `report` | who waits on what, since when, spawned where |

pub(crate) mod choose;
pub(crate) mod hub;
pub(crate) mod mail;
pub(crate) mod park;
pub(crate) mod reactor;
pub(crate) mod remote;
pub(crate) mod report;
pub(crate) mod source;
#[cfg(feature = "monkey")]
pub(crate) mod watch;
