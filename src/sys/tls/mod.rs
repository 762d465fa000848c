//! Own thread-locals: blocks of thread-local storage for green threads, made as the C library makes an OS thread's.
//!
//! What a program calls the current thread is one register, the thread pointer. It points to a block:
//!
//! ```text
//!   thread pointer --> | struct pthread: number, keys, robust locks, dtv .. |      on x86-64
//!                      | thread-locals of the program and its libraries     |
//! ```
//!
//! An OS thread with a second block and the register set to it is, for all code that asks, another thread. This layer
//! makes such blocks, makes them fresh again, ends them, and runs destructors; which thread runs in which is the
//! business of the layers above.
//!
//! | file | has |
//! |---|---|
//! | `pointer` | the register |
//! | `errno` | the running thread's |
//! | `memory` | words at addresses that are numbers |
//! | `symbols` | what the C library and the dynamic linker export |
//! | `modules` | whether modules came or went |
//! | `probe` | a fresh OS thread, photographed |
//! | `develop` | what the photographs show |
//! | `layout` | where everything lies |
//! | `image` | the bytes of a fresh block |
//! | `make_image` | how these come about |
//! | `block` | one block's life |
//! | `live` | all blocks |
//! | `destructors` | the end of a thread |
//! | `guards` | setuid and fork |
//! | `self_test` | the test at the start |
//! | `tests` | the others |
//! | `unsupported` | the reasons |
//!
//! Everything is found out once in a process, on first use, and tested there. Where it does not work there is a reason
//! and an error, never a thread without them.

use std::sync::OnceLock;

use crate::pure::lock::get_or_init;

mod block;
mod destructors;
mod develop;
mod errno;
mod guards;
mod image;
mod layout;
mod live;
mod make_image;
mod memory;
mod modules;
mod pointer;
mod probe;
mod self_test;
mod symbols;
#[cfg(all(test, target_env = "gnu"))]
mod tests;
mod unsupported;

pub(crate) use block::os_pointer;
pub(crate) use layout::Layout;
pub(crate) use pointer::{set_thread_pointer, thread_pointer, with_thread_pointer};
pub(crate) use unsupported::Unsupported;

static LAYOUT: OnceLock<Result<Layout, Unsupported>> = OnceLock::new();

/// Returns the layout of this process, which the first call finds out: it starts an OS thread for a moment and takes
/// less than a millisecond.
///
/// # Errors
///
/// The reason why this process can have no own thread-locals.
pub(crate) fn layout() -> Result<&'static Layout, &'static Unsupported> {
    get_or_init(&LAYOUT, find).as_ref()
}

/// Writes the first values of modules that were loaded just now into all blocks; see [`Layout::fill`]. To be called by
/// what loads a library, before anything can use the library.
///
/// # Errors
///
/// `ENOMEM`; the blocks are as they were.
pub(crate) fn fill() -> std::io::Result<()> {
    match LAYOUT.get() {
        Some(Ok(layout)) => layout.fill().map(drop),
        _ => Ok(()),
    }
}

#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
fn find() -> Result<Layout, Unsupported> {
    pointer::is_writable()?;
    let layout = Layout::find()?;
    guards::guard_setxid()?;
    guards::guard_fork()?;
    layout.publish();
    self_test::run(&layout)?;
    Ok(layout)
}

#[cfg(not(all(target_env = "gnu", not(target_feature = "crt-static"))))]
fn find() -> Result<Layout, Unsupported> {
    Err(Unsupported::NotGlibc)
}
