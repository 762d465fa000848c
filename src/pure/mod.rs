//! Data structures without kernel, clock, stacks or threads of their own: plain Rust that Miri and loom can run.
//!
//! What the files of this layer promise to the layers above:
//!
//! | file | holds | tells its caller, who decides |
//! |---|---|---|
//! | `run_queue` | who runs next, in order of arrival | the next one, and the ones behind it (to prefetch) |
//! | `timer_wheel` | who is to be woken when | who is due at the time it is *told*, how long one may sleep |
//! | `slab` | values under keys that are never reused | whether a key still means what it meant |
//! | `bell` | whether the hub sleeps | whether the one who pushed must ring |
//! | `inbox` | what other OS threads left for the hub | whether to write to the eventfd |
//!
//! Nothing here allocates in the steady state (the inbox excepted: one block for every 31 messages), nothing here
//! blocks, and no file imports another one of the crate, except that `inbox` is built on `bell`.

#![forbid(unsafe_code)]

pub(crate) mod bell;
pub(crate) mod inbox;
pub(crate) mod run_queue;
pub(crate) mod slab;
#[cfg(test)]
pub(crate) mod test_random;
pub(crate) mod timer_wheel;
