//! The switches: which parts are patched, and whether the program is linked so that patching does anything.
//!
//! ```text
//!   patch_net: ask std for something small --- does it arrive in our `recv`? --no--> NotLinked
//!                                                  | yes
//!                                              the part's bit is set, for good
//! ```
//!
//! Nothing is written over in memory, and no OS thread is stopped: our functions are in place from the start, and look at
//! the bits each time. So patching may come at any moment, and a call that is under way stays as it is.
#![allow(unsafe_code)] // the functions are `unsafe fn`: see the module's contract

use std::fmt;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

use super::gate::{arrives, part, patch, patched};
use crate::runtime::remote::lock;

/// A part of what can be patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// Sockets and pipes.
    Net,
    /// Sleeping.
    Sleep,
    /// Names.
    Dns,
    /// poll, select, epoll_wait.
    Poll,
    /// Waiting for children.
    Process,
    /// Locks of files.
    Files,
}

impl Part {
    /// All of them.
    const ALL: [Part; 6] = [Part::Net, Part::Sleep, Part::Dns, Part::Poll, Part::Process, Part::Files];

    /// Its bit.
    fn bit(self) -> u32 {
        match self {
            Part::Net => part::NET,
            Part::Sleep => part::SLEEP,
            Part::Dns => part::DNS,
            Part::Poll => part::POLL,
            Part::Process => part::PROCESS,
            Part::Files => part::FILES,
        }
    }

    /// The C functions that it consists of.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Part::Net => &[
                "read",
                "write",
                "readv",
                "writev",
                "recv",
                "recvfrom",
                "recvmsg",
                "send",
                "sendto",
                "sendmsg",
                "accept",
                "accept4",
                "connect",
                "recvmmsg",
                "sendmmsg",
                "sendfile",
                "sendfile64",
                "splice",
                "tee",
            ],
            Part::Sleep => &["nanosleep", "clock_nanosleep", "usleep", "sleep"],
            Part::Dns => &["getaddrinfo"],
            Part::Poll => &["poll", "ppoll", "select", "pselect", "epoll_wait", "epoll_pwait", "epoll_pwait2"],
            Part::Process => &["wait", "wait3", "wait4", "waitpid", "waitid"],
            Part::Files => &["flock"],
        }
    }
}

/// What a call of [`patch_all`] or its like has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it was asked for.
    parts: Vec<Part>,
    /// Those of them that were patched before.
    before: u32,
}

impl Report {
    /// The parts that are patched now and were not before.
    ///
    /// May switch: no.
    pub fn newly_patched(&self) -> impl Iterator<Item = Part> + '_ {
        self.parts.iter().copied().filter(|part| part.bit() & self.before == 0)
    }

    /// The names of the C functions that the patched parts consist of.
    ///
    /// May switch: no.
    pub fn functions(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.parts.iter().flat_map(|part| part.functions()).copied()
    }
}

/// Why nothing was patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatchError {
    /// A call of `std`'s did not arrive at this crate's function: the program is linked in a way (`std` as a dynamic
    /// library, for one) in which the C library's come first.
    NotLinked,
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the program is linked so that its system calls do not go through greenling")
    }
}

impl std::error::Error for PatchError {}

/// Whether calls of `std` arrive here at all: one that moves no data and does not wait.
fn verify() -> Result<(), PatchError> {
    let sleeps = || std::thread::sleep(Duration::from_nanos(1));
    let reads = || {
        if let Ok((mut near, far)) = UnixStream::pair() {
            drop(far);
            let _ = near.read(&mut [0]);
        } else {
            // No descriptors are left to ask with; sleeping was asked.
            sleeps();
        }
    };
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = lock(&ONE_AT_A_TIME);
    if arrives(sleeps) && arrives(reads) { Ok(()) } else { Err(PatchError::NotLinked) }
}

/// Patches `parts`.
fn patch_parts(parts: &[Part]) -> Result<Report, PatchError> {
    let bits = parts.iter().fold(0, |bits, part| bits | part.bit());
    let missing = bits & !patched() != 0;
    if missing {
        verify()?;
    }
    Ok(Report { parts: parts.to_vec(), before: patch(bits) })
}

/// Patches everything, in the whole process and for good. May be called at any time and any number of times.
///
/// # Safety
/// See [the module](super): code that runs in green threads must not rely on being alone on its OS thread over a blocking
/// call.
///
/// # Errors
/// [`PatchError::NotLinked`]; nothing is patched then.
///
/// May switch: no.
pub unsafe fn patch_all() -> Result<Report, PatchError> {
    patch_parts(&Part::ALL)
}

/// Patches reading, writing, connecting and accepting.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_net() -> Result<Report, PatchError> {
    patch_parts(&[Part::Net])
}

/// Patches sleeping.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_sleep() -> Result<Report, PatchError> {
    patch_parts(&[Part::Sleep])
}

/// Patches the lookup of names.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_dns() -> Result<Report, PatchError> {
    patch_parts(&[Part::Dns])
}

/// Patches waiting for several descriptors.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_poll() -> Result<Report, PatchError> {
    patch_parts(&[Part::Poll])
}

/// Patches waiting for children.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_process() -> Result<Report, PatchError> {
    patch_parts(&[Part::Process])
}

/// Patches locks of files.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_files() -> Result<Report, PatchError> {
    patch_parts(&[Part::Files])
}

/// Whether `part` is patched.
///
/// May switch: no.
pub fn is_patched(part: Part) -> bool {
    patched() & part.bit() != 0
}
