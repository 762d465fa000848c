//! Timers, time limits and intervals. One binary, as each costs a fresh clone most of a second.

#[path = "../common/mod.rs"]
mod common;
mod intervals;
mod timeouts;
mod timers;
