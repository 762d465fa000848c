//! The program that is stepped through: main and a greenlet that has been switched to before, so that the switch takes
//! its usual way.
//!
//! ```text
//!   parent                                child
//!     fork ---------------------------->  ptrace(TRACEME)
//!     wait                                a greenlet, and a first switch to it
//!     read the addresses  <-- pipe -----  where its stack and its control block are
//!     wait  <--------------- int3 ------  marks the beginning
//!     single steps                        main switches to the greenlet, which switches back
//!     the end  <------------ int3 ------  marks the end
//! ```
#![allow(unsafe_code)]

use std::arch::asm;
use std::fs::File;
use std::io::{self, Read, Write};

use greenling::Greenlet;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};

use crate::words::Xray;

/// The number that main sends to the greenlet.
pub(crate) const SENT: u64 = 41;

/// Where things lie in the child, by address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// The lowest address of the greenlet's slot.
    pub(crate) low: u64,
    /// The end of the greenlet's stack.
    pub(crate) base: u64,
    /// The control block of the greenlet.
    pub(crate) block: u64,
    /// The control block of main.
    pub(crate) main_block: u64,
    /// The root of the OS thread.
    pub(crate) root: u64,
    /// The size of the root, as the allocator has it.
    pub(crate) root_size: u64,
}

/// Stops this process for its tracer.
#[inline(always)]
fn mark() {
    // SAFETY: the tracer waits for this trap and goes on behind it.
    unsafe { asm!("int3", options(nomem, nostack)) };
}

/// Answers with one more than it gets.
#[inline(never)]
fn pong(first: u64) -> u64 {
    // Made once: it is an allocation.
    let main = Greenlet::<u64>::main();
    let mut n = first;
    loop {
        n = main.switch(n + 1);
    }
}

/// Switches to the greenlet between two marks.
#[inline(never)]
fn ping(greenlet: &Greenlet<u64>) -> u64 {
    mark();
    let n = greenlet.switch(SENT);
    mark();
    n
}

/// Starts the child, and returns it with its places when it has stopped at the first mark.
///
/// # Errors
/// If the machine does not let a process trace its child, and if the child cannot look at itself.
pub(crate) fn start() -> io::Result<(Pid, Places)> {
    let (out, inward) = pipe()?;
    // SAFETY: this process has one OS thread, so the child may do whatever it could (fork(2)).
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(out);
            let status = match run(&mut File::from(inward)) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("anatomy: {error}");
                    1
                }
            };
            std::process::exit(status);
        }
        ForkResult::Parent { child } => {
            drop(inward);
            match waitpid(child, None)? {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
                other => return Err(io::Error::other(format!("the program to trace did not stop: {other:?}"))),
            }
            // The pipe holds all of it, and ends: the child writes before it stops, and keeps its end open.
            let mut bytes = [0; 48];
            File::from(out).read_exact(&mut bytes)?;
            let [low, base, block, main_block, root, root_size] =
                std::array::from_fn(|index| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * index + byte])));
            Ok((child, Places { low, base, block, main_block, root, root_size }))
        }
    }
}

/// The child: gets ready, says where things are, and makes the switch.
fn run(out: &mut File) -> io::Result<()> {
    ptrace::traceme()?;
    let greenlet = Greenlet::new(pong);
    assert_eq!(greenlet.switch(1), 2);
    let xray = Xray::open()?;
    let fiber = xray.look(None)?.fiber;
    let (root, main_block) =
        xray.table.root(&xray.memory).ok_or_else(|| io::Error::other("this OS thread has no hub"))?;
    // glibc notes the size of a block in the word before it, with flags in its three lowest bits.
    let root_size = xray.memory.word(root - 8).unwrap_or_default() & !7;
    for place in [fiber.low, fiber.base, fiber.block, main_block, root, root_size] {
        out.write_all(&place.to_le_bytes())?;
    }
    assert_eq!(ping(&greenlet), SENT + 1);
    Ok(())
}
