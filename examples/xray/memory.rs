//! Memory of this process, read by the kernel: an address that faults is an answer here, not a fault.
//!
//! ```text
//!   read --> write(pipe, address, n) --> the bytes are in the pipe --> read(pipe) --> bytes
//!                     '--> EFAULT: nothing can be read there, as in a guard
//! ```
//!
//! So a stack that waits is looked at from outside, as a debugger does it, and no reference to its memory is made.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

/// The bytes that are asked for at once: a pipe has room for them.
const AT_ONCE: usize = 4096;

/// The size of a word.
pub(crate) const WORD: u64 = 8;

/// The window to the memory of this process.
pub(crate) struct Memory {
    /// The end that bytes come out of.
    out: File,
    /// The end that the kernel copies them into.
    inward: OwnedFd,
}

impl Memory {
    /// Opens the window.
    ///
    /// # Errors
    /// If there is no room for two more descriptors.
    pub(crate) fn open() -> std::io::Result<Memory> {
        let (out, inward) = nix::unistd::pipe()?;
        Ok(Memory { out: File::from(out), inward })
    }

    /// Returns `len` bytes from `address` on; none if a part of them cannot be read.
    pub(crate) fn read(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        for (index, part) in bytes.chunks_mut(AT_ONCE).enumerate() {
            let from = address + (index * AT_ONCE) as u64;
            // By its number: a sanitizer looks at what the function `write` is given, and forbids parts of it.
            // SAFETY: write(2) takes any address, and answers EFAULT for one that cannot be read.
            let copied = unsafe { libc::syscall(libc::SYS_write, self.inward.as_raw_fd(), from, part.len()) };
            let copied = Errno::result(copied).unwrap_or(0) as usize;
            // A part that was copied has to leave the pipe again.
            (&self.out).read_exact(&mut part[..copied]).ok()?;
            if copied < part.len() {
                return None;
            }
        }
        Some(bytes)
    }

    /// Returns the word at `address`; none if it cannot be read.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.read(address, 8)?.try_into().ok()?))
    }

    /// Returns the 4 bytes at `address` as a number; none if they cannot be read.
    pub(crate) fn half(&self, address: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.read(address, 4)?.try_into().ok()?))
    }

    /// Returns the text that a `&str` at `address` is.
    pub(crate) fn text(&self, address: u64) -> Option<String> {
        let (at, len) = (self.word(address)?, self.word(address + WORD)?);
        String::from_utf8(self.read(at, usize::try_from(len).ok().filter(|len| *len < AT_ONCE)?)?).ok()
    }
}
