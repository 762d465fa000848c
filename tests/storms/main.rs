//! Random programs, and storms at one lock or channel. Apart from other tests, since they take all the CPU there is.
//!
//! `GREENLING_SEED=n` repeats a run.

#[path = "../common/mod.rs"]
mod common;
mod random;
mod shared;
mod sync;
