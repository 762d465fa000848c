//! Simulations: virtual time, schedules that a seed gives, exploration, replay, shrinking, sweeps, faults on purpose.
#![forbid(unsafe_code)]

#[path = "sim/book.rs"]
mod book;
#[path = "sim/checking.rs"]
mod checking;
#[path = "sim/edges.rs"]
mod edges;
#[path = "sim/explore.rs"]
mod explore;
#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/files.rs"]
mod files;
#[path = "sim/net_faults.rs"]
mod net_faults;
#[path = "sim/network.rs"]
mod network;
#[path = "sim/outside.rs"]
mod outside;
#[path = "sim/property.rs"]
mod property;
#[path = "sim/replay.rs"]
mod replay;
#[path = "sim/time.rs"]
mod time;
