//! Unmodified code in a simulation: std's clocks, random bytes and sockets are those of the simulation.
#![allow(unsafe_code)]

mod child;
mod common;
#[path = "common/patched.rs"]
mod helpers;

#[path = "monkey_sim/clock.rs"]
mod clock;
#[path = "monkey_sim/random.rs"]
mod random;
#[path = "monkey_sim/sockets.rs"]
mod sockets;

/// The parts of tests that have a process to themselves.
#[test]
fn child() {
    match child::role().as_deref() {
        None => {}
        Some("random") => random::in_child(),
        Some(role) => panic!("no part is called {role}"),
    }
}
