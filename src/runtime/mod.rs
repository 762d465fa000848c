//! Automatic switching: a blocking call gives the CPU to other green threads, and gets it back when it can go on.
//!
//! ```text
//! Hub::poll(may_wait):       called by the run loop when a poll is due (`switch/budget.rs`), or nothing is runnable
//!     take the remote ops of other OS threads                              remote_queue
//!     nothing runnable, and nothing can ever happen?  report a deadlock    report
//!     epoll_wait(0 while fibers are runnable, else until the next timer)   reactor: wakes, and schedules nothing
//!     fire the timers that are due                                         timers
//! ```
//!
//! | file | supplies |
//! |---|---|
//! | `reactor` | file descriptor -> readiness bits and waiters; one `epoll_wait` at a time |
//! | `remote_queue` | what other OS threads send: the inbox, work, and the bell (an eventfd) |
//! | `timers` | the deadlines of one hub's fibers, in a timer wheel |
//! | `monitor` | the OS thread that keeps time for hubs with short slices |
//! | `counters` | what a hub has counted, where other OS threads can read it |
//! | `question` | a question to several hubs, each of which answers in a poll |
//! | `by_environment` | does once what a variable of the environment asks for |
//! | `dump` | what the threads of all hubs do, on standard error, when a signal comes |
//! | `console` | the agent, which tells another program what the threads of all hubs do |
//! | `watchdog` | which hubs are held up, and by what |
//! | `watch_thread` | the OS thread that looks at the hubs |
//! | `hub` | one per OS thread: reactor, timers, remote queue; the poll above; deadlock detection |
//! | `caller` | the running fiber, with the root and the hub that it waits in |
//! | `park` | the only way in which a call blocks; takes a reason and a deadline |
//! | `checkpoint` | where a thread gives way although no call has to wait |
//! | `source` | one file descriptor of a hub: try, wait, try again |
//! | `choose` | waiting for several things at once |
//! | `arms` | what `choose` waits for: a point in time, a descriptor that becomes ready |
//! | `select_source` | what the arms of a `select!` can wait for |
//! | `remote` | waiting for another hub, and waking a fiber that does |
//! | `all_threads` | what the threads of all hubs do: each hub is asked |
//! | `ended` | hubs that ended and left threads suspended, for the threads that wait for one of those |
//! | `shared_waits` | waits of a hub's fibers in queues that other hubs share |
//! | `faults` | whether a call fails on purpose now, in a simulation |
//! | `foreign_waits` | how many fibers of a hub wait in locks of `std` or C (feature `monkey`) |
//! | `virtual_wait` | waits of patched calls for simulated sockets (feature `monkey`) |
//! | `watch` | any descriptor, by its number: armed at each wait, or trusted for a moment (feature `monkey`) |
//! | `thread_info` | what is known of the threads of a hub at one moment, as data and as text |
//! | `trace` | makes the events of a trace of what the recorder has; traces that the environment asks for |
//! | `backtraces` | where in the program threads wait, the same ones together |
//! | `report` | which fiber waits for what, since when, and where it was spawned |

pub(crate) mod all_threads;
pub(crate) mod arms;
pub(crate) mod backtraces;
mod by_environment;
pub(crate) mod caller;
pub(crate) mod checkpoint;
pub(crate) mod choose;
pub(crate) mod console;
pub(crate) mod counters;
mod dump;
pub(crate) mod ended;
pub(crate) mod faults;
#[cfg(feature = "monkey")]
pub(crate) mod foreign_waits;
pub(crate) mod hub;
pub(crate) mod monitor;
pub(crate) mod park;
mod question;
pub(crate) mod reactor;
pub(crate) mod remote;
pub(crate) mod remote_queue;
pub(crate) mod report;
pub(crate) mod select_source;
pub(crate) mod shared_waits;
pub(crate) mod source;
pub(crate) mod thread_info;
mod timers;
pub(crate) mod trace;
#[cfg(feature = "monkey")]
pub(crate) mod virtual_wait;
#[cfg(feature = "monkey")]
pub(crate) mod watch;
pub(crate) mod watch_thread;
mod watchdog;
