//! Green threads: how one begins, waits, is killed and ends, and what belongs to it. One binary, as each costs a fresh
//! clone most of a second.

#[path = "../common/mod.rs"]
mod common;
mod deadlock;
mod kill;
mod locals;
mod on_finish;
mod parking;
mod scope;
mod spawn;
mod try_scope;
mod unwinding;
