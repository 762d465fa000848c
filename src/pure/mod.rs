//! Data structures without kernel, clock, stacks or threads of their own: plain Rust that Miri and loom can run.
//!
//! What the files of this layer promise to the layers above:
//!
//! | file | holds | tells the caller, which decides |
//! |---|---|---|
//! | `run_queue` | the fibers that run next, in order of arrival | the next one, and the ones behind (to prefetch) |
//! | `timer_wheel` | fibers with the times at which to wake them | which are due at the time that it is *told*, how long one may sleep |
//! | `schedule` | the choices of a simulated hub | which thread goes on, of those that it is *told* |
//! | `random` | the state of a generator of random numbers | the next number |
//! | `linearize` | what a search has seen | an order of calls that a model explains, or that there is none |
//! | `disk` | names and contents of a simulated disk | what a call finds, and what a crash leaves |
//! | `network` | hosts, links and sockets of a simulation | what has arrived by the time that it is *told*, and when more will |
//! | `slab` | values under keys that are never reused | whether a key still means what it meant |
//! | `bell` | whether the hub sleeps | whether the pusher must ring |
//! | `preempt` | whether the running thread should let others run | go on, give way, or read the clock |
//! | `event_ring` | the latest events of a trace, and texts | how many were overwritten |
//! | `histogram` | how many times fell between which bounds | one OS thread adds, any reads |
//! | `drops` | nothing: drops the values that it is given | |
//! | `lock` | a mutex, without its poison | |
//! | `inbox` | what other OS threads left for the hub | whether to write to the eventfd |
//! | `turns` | units of a lock, and the threads that wait for them | which waiter has got them |
//! | `wait_table` | threads that wait for an address | how a wait has ended |
//! | `test_random` | the state of a generator of random numbers, for tests | the next number |
//!
//! Nothing here allocates in the steady state (the inbox excepted: one block for every 31 messages; and `turns`, a
//! place for each wait; and `network` and `disk`), nothing here blocks but for a lock that is held for a few
//! instructions, and no file imports another one of the crate, except that `inbox` is built on `bell`, `inbox` and
//! `turns` on `lock`, `schedule` on `random`, `network` on `random` and `slab`, and `disk` on the errors of `network`.

pub(crate) mod bell;
pub(crate) mod disk;
pub(crate) mod drops;
pub(crate) mod event_ring;
pub(crate) mod histogram;
pub(crate) mod inbox;
pub(crate) mod linearize;
pub(crate) mod lock;
pub(crate) mod network;
pub(crate) mod preempt;
pub(crate) mod random;
pub(crate) mod run_queue;
pub(crate) mod schedule;
pub(crate) mod slab;
#[cfg(test)]
pub(crate) mod test_random;
pub(crate) mod timer_wheel;
pub(crate) mod turns;
#[cfg(any(test, feature = "monkey"))]
pub(crate) mod wait_table;
