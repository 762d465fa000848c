//! The hub of the calling OS thread, as far as a program may look at it and change it.
//!
//! Nobody has to: the hub is made on first use, runs inside the blocking calls of main, and ends with the OS thread.
#![forbid(unsafe_code)]

mod channel;
mod remote;

use std::io;

pub use channel::{RemoteIter, RemoteReceiver, RemoteSender, channel};
pub(crate) use remote::Shared;
pub use remote::{HubHandle, RemoteJoinFuture, RemoteJoinHandle, handle};

pub use crate::switch::stack_pool::StackStats;

use crate::runtime::hub::hub;
use crate::runtime::report::everybody;
use crate::switch::root::{root, try_root};
use crate::switch::stack::Slot;

/// Unwinds every green thread and suspended greenlet of this OS thread, as a kill does, and returns how many could not
/// be unwound because they block again each time they are killed. The hub can be used afterwards.
///
/// The end of the OS thread does the same, after main has returned. Call this at the end of main if destructors of threads
/// that are still suspended use thread-locals, which may be gone later, or to learn whether all of them could be unwound:
/// those that cannot keep their stacks for ever ([`StackStats::leaked`]).
///
/// Threads spawned by destructors meanwhile never run.
///
/// # Panics
/// If called from a green thread instead of main, or while main unwinds.
///
/// May switch: yes.
pub fn shutdown() -> usize {
    let Some(root) = try_root() else { return 0 };
    assert!(root.current().is_main(), "greenling: hub::shutdown must be called by main, not by a green thread");
    assert!(!std::thread::panicking(), "greenling: hub::shutdown cannot run green threads while main unwinds");
    root.unwind_all()
}

/// Bytes of stack for threads and greenlets of this OS thread that ask for no size, from now on.
///
/// # Errors
/// `InvalidInput` above 4 GiB.
///
/// May switch: no.
pub fn set_default_stack_size(bytes: usize) -> io::Result<()> {
    let shift = Slot::shift_for(bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a stack of more than 4 GiB"))?;
    hub()?.0.default_shift.set(shift);
    Ok(())
}

/// Bytes of stack that a thread gets that asks for no size.
///
/// May switch: no.
pub fn default_stack_size() -> usize {
    Slot::stack_size(root().default_shift.get())
}

/// Counters of this OS thread's stacks.
///
/// May switch: no.
pub fn stack_stats() -> StackStats {
    root().stack_stats()
}

/// How deep the running green thread's stack has been used, in bytes, in whole pages: its own high-water mark and that
/// of threads that used the same stack before, since its pages last went back. They go back when it waits for long.
///
/// # Errors
/// For main, whose stack is the OS thread's; or what mincore(2) says.
///
/// May switch: no.
pub fn stack_high_water() -> io::Result<usize> {
    let root = root();
    let me = root.current();
    if me.is_main() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "main runs on the OS thread's own stack"));
    }
    root.high_water(me)
}

/// Returns the memory of all stacks that nobody uses to the kernel, at once, and what earlier deep calls have left in the
/// stacks of threads that are waiting.
///
/// The second, too, the hub does by itself, a few seconds after a thread began to wait, if the kernel counts page faults
/// (`ru_minflt` of getrusage(2)). Threads and greenlets that wait in an explicit switch keep their pages.
///
/// The hub does so by itself with stacks that were not used for a second, all but 64 of each size, while main waits in a
/// blocking call. What a deep call has left in a stack that is used again goes back after some ten thousand spawns.
/// A program that uses greenlets only has no hub, and calls this.
///
/// May switch: no.
pub fn trim_stacks() {
    root().trim_stacks();
}

/// Green threads and started greenlets of this OS thread that have not ended; main is not counted.
///
/// May switch: no.
pub fn live_threads() -> usize {
    root().live()
}

/// Who does what: a line for main, for every green thread and every started greenlet of this OS thread, with its name, what
/// it waits for and for how long, where it was spawned, and the cycle, if some wait for each other. For logs and debuggers;
/// its words are not stable. (`print_run_info` of gevent.)
///
/// ```
/// let reader = greenling::thread::Builder::new().name("reader".into()).spawn(greenling::thread::park)?;
/// greenling::yield_now();
/// let report = greenling::hub::report();
/// assert!(report.contains("#2 \"reader\" is parked, waiting for an unpark, for 0.0 s, spawned at "));
/// reader.thread().unpark();
/// # std::io::Result::Ok(())
/// ```
///
/// May switch: no.
pub fn report() -> String {
    everybody(root())
}
