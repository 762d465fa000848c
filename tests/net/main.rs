//! Sockets and names. One binary, as each costs a fresh clone most of a second; `net_signals.rs` and `net_stdin.rs`,
//! which change signal handlers and standard input, are binaries of their own.

#[path = "../common/address.rs"]
mod address;
mod compared;
mod fuzz;
mod names;
#[path = "../net_support/mod.rs"]
mod net_support;
mod syscalls;
mod tcp;
#[path = "../traced/mod.rs"]
mod traced;
mod udp;
mod unix;
