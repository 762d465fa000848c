//! The example programs, run as a reader runs them: what they print, how they exit, and what a server promises.
// Child processes with limits, signals and terminals of their own have no safe counterpart in std.
#![allow(unsafe_code)]

#[path = "../common/address.rs"]
mod address;
mod built;
mod client;
mod echo;
mod few;
mod net;
mod output;
#[cfg(feature = "monkey")]
mod patched;
mod programs;
mod server;
mod support;
