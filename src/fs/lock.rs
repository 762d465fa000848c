//! The lock of a file, which a waiter tries again after pauses.
//!
//! ```text
//!   lock:  flock(LOCK_NB) ok? return.  taken? sleep 1 ms, 2 ms, 4 ms, .. LONGEST, and try again
//! ```
//!
//! No descriptor becomes ready when a lock becomes free. A job that waits on an OS thread would take the lock even when
//! the caller was killed meanwhile, and could not unlock either: the lock belongs to the open file, and another user of
//! the same open file may hold it rightly by then. So each try is made on the caller's stack and does not wait: at a
//! kill the lock either was taken and reported to the caller, or was not taken. The price is the kernel's order: the
//! first waiter need not be the first to get the lock.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::file::File;
use crate::runtime::caller::Caller;
use crate::runtime::checkpoint::checkpoint;
use crate::runtime::park::Wake;
use crate::switch::fiber::Reason;
use crate::sys::clock::after;
use crate::sys::file::{FileLock, flock};
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::simulation::virtual_ns;
use crate::sys::virtual_files;

/// The length of the first pause.
const SHORTEST: Duration = Duration::from_millis(1);

/// The length of the longest pause.
const LONGEST: Duration = Duration::from_millis(20);

/// The reason why [`File::try_lock`] or [`File::try_lock_shared`] did not lock, as std's `fs::TryLockError`, which Rust
/// has from 1.89 on.
pub enum TryLockError {
    /// The kernel refused the lock for another reason than that the file is locked.
    Error(io::Error),
    /// Another open file, of this process or another, has locked the file.
    WouldBlock,
}

impl fmt::Debug for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::Error(error) => error.fmt(f),
            TryLockError::WouldBlock => f.write_str("WouldBlock"),
        }
    }
}

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::Error(_) => f.write_str("lock acquisition failed due to I/O error"),
            TryLockError::WouldBlock => f.write_str("lock acquisition failed because the operation would block"),
        }
    }
}

impl Error for TryLockError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TryLockError::Error(error) => Some(error),
            TryLockError::WouldBlock => None,
        }
    }
}

impl From<TryLockError> for io::Error {
    fn from(error: TryLockError) -> io::Error {
        match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        }
    }
}

/// Locks as those of std: advisory, owned by the open file, and kept until [`unlock`](File::unlock) or until the last
/// descriptor of the open file is closed. A kill or timeout that interrupts the wait leaves the lock as before.
///
/// ```
/// use std::fs::remove_file;
/// use greenling::{fs::{File, TryLockError}, thread};
///
/// let path = std::env::temp_dir().join(format!("greenling-lock-{}", std::process::id()));
/// let (ours, theirs) = (File::create(&path)?, File::open(&path)?);
/// ours.lock()?;
/// assert!(matches!(theirs.try_lock_shared(), Err(TryLockError::WouldBlock)));
/// let waiting = thread::spawn(move || theirs.lock_shared());
/// thread::yield_now(); // it waits, and others run
/// ours.unlock()?;
/// waiting.join()??;
/// remove_file(path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// On a network file system a try may take a round trip to the server, for which the OS thread is blocked.
impl File {
    /// Locks the file for this open file alone, and waits as long as that takes.
    ///
    /// # Errors
    /// Those of `flock`: `Unsupported` on some file systems, `ENOLCK`. An error also if the file is locked and the
    /// caller must not wait because it unwinds.
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes, if another open file has locked the file.
    pub fn lock(&self) -> io::Result<()> {
        checkpoint();
        wait(|| attempt(self, FileLock::Exclusive))
    }

    /// Locks the file together with all open files that lock by this method, and waits as long as that takes.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes, if another open file has locked the file with [`lock`](Self::lock).
    pub fn lock_shared(&self) -> io::Result<()> {
        checkpoint();
        wait(|| attempt(self, FileLock::Shared))
    }

    /// Locks as [`lock`](Self::lock) does, but does not wait.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if the file is locked; else those of `flock`.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        checkpoint();
        attempt(self, FileLock::Exclusive)
    }

    /// Locks as [`lock_shared`](Self::lock_shared) does, but does not wait.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if the file is locked; else those of `flock`.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    pub fn try_lock_shared(&self) -> Result<(), TryLockError> {
        checkpoint();
        attempt(self, FileLock::Shared)
    }

    /// Unlocks the file. Does nothing if this open file has no lock.
    ///
    /// # Errors
    /// Those of `flock`.
    ///
    /// May switch: no.
    pub fn unlock(&self) -> io::Result<()> {
        Ok(attempt(self, FileLock::None)?)
    }
}

/// Calls flock without waiting, again if a signal interrupts the call.
fn attempt(file: &File, lock: FileLock) -> Result<(), TryLockError> {
    if virtual_ns().is_some() {
        return match virtual_files::lock(file, lock) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(TryLockError::WouldBlock),
            done => done.map_err(TryLockError::Error),
        };
    }
    // The mark keeps a patched flock from parking this thread.
    let _mark = runtime_syscall();
    loop {
        match flock(file.as_fd(), lock) {
            Ok(()) => return Ok(()),
            // A signal does not end the attempt.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(TryLockError::WouldBlock),
            Err(error) => return Err(TryLockError::Error(error)),
        }
    }
}

/// Calls `attempt` after ever longer pauses, until the result is not `WouldBlock`.
fn wait(mut attempt: impl FnMut() -> Result<(), TryLockError>) -> io::Result<()> {
    // Short pauses at first, so that a short critical section costs little; longer ones later, to save CPU time.
    let mut pause = SHORTEST;
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {}
        }
        // Pause, whatever else wakes this thread meanwhile.
        let caller = Caller::current()?;
        let until = after(pause);
        loop {
            match caller.park(Reason::Lock("a file"), until) {
                Ok(Wake::TimedOut) => break,
                Ok(Wake::Woken) => {}
                Err(obstacle) => return Err(obstacle.into()),
            }
        }
        pause = (2 * pause).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for a lock that is free at the `n`th try, and returns the number of tries.
    fn tries_until_free(n: u32) -> u32 {
        let mut tries = 0;
        wait(|| {
            tries += 1;
            if tries < n { Err(TryLockError::WouldBlock) } else { Ok(()) }
        })
        .unwrap();
        tries
    }

    #[test]
    fn a_free_lock_takes_one_try_and_a_taken_one_is_tried_again() {
        assert_eq!(tries_until_free(1), 1);
        assert_eq!(tries_until_free(4), 4);
    }

    #[test]
    fn an_error_ends_the_wait() {
        let error = wait(|| Err(TryLockError::Error(io::ErrorKind::Unsupported.into()))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
