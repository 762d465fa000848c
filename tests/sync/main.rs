//! Locks and signals: `sync`, for the green threads of a hub, and `hub::sync`, for those of several. One binary, as
//! each costs a fresh clone most of a second.

#[path = "../common/mod.rs"]
mod common;
mod locks;
mod shared;
mod signals;
