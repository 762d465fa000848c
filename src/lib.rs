//! Green threads for Linux: greenlet-style switches and gevent-style blocking IO on one epoll reactor per OS thread.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("greenling runs on Linux on x86-64 and aarch64 only: it needs epoll, eventfd and madvise guards");

pub mod hub;
mod interrupt;
pub mod io;
pub mod net;
mod pure;
mod runtime;
mod switch;
mod sys;
pub mod thread;

pub use interrupt::{TimeoutError, no_switch, shield, timeout};
pub use switch::cancel::GreenletExit;
pub use switch::greenlet::{
    Greenlet, GreenletId, GreenletState, ParentError, SwitchError, SwitchErrorKind, TraceEvent, TraceKind,
    WeakGreenlet, settrace,
};
pub use thread::{sleep, spawn, yield_now};
