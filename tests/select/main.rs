//! Waiting for the first of several things: `select!` and `Select`. One binary, as each costs a fresh clone most of a
//! second.

mod arms;
#[path = "../common/mod.rs"]
mod common;
mod fair;
mod promises;
mod set;
mod syntax;
