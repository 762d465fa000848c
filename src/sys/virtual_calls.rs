//! Sockets of a simulation by their numbers, for patched calls: what is a simulated socket, its mode, and its time
//! limits.
//!
//! The placeholder of a simulated socket is one open file for all of them (`virtual_sockets.rs`), so whether a socket
//! blocks, and for how long, is kept here, for all numbers of a socket together. A native socket never blocks, and does
//! not look here.
#![forbid(unsafe_code)]

use std::os::fd::{IntoRawFd, RawFd};

use super::simulation::{Modes, Simulated};
use super::virtual_sockets;
use crate::pure::network::errno::Result as Done;
use crate::pure::network::{Kind, Network, SocketId};

/// A simulated socket that a call is about. It stays the same socket if its number is closed meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Called {
    /// The simulation that the socket is a part of.
    simulated: &'static Simulated,
    /// The number of the socket in the network.
    id: SocketId,
}

/// Returns the simulated socket with this number; none if that is a file of the kernel, or not open.
pub(crate) fn called(simulated: &'static Simulated, number: RawFd) -> Option<Called> {
    // Within a call on the network itself, no call is the program's.
    let id = simulated.sockets.try_borrow().ok()?.numbers.get(&number)?.id;
    Some(Called { simulated, id })
}

/// Makes a simulated socket on the host of the running thread, and returns its number.
///
/// # Errors
/// The errno of a process without descriptors.
pub(crate) fn make(simulated: &'static Simulated, kind: Kind) -> Result<RawFd, i32> {
    let made = virtual_sockets::socket_in(simulated, kind, |_, _| Ok(()));
    made.map(|(fd, ())| fd.into_raw_fd()).map_err(errno_of)
}

/// Makes two simulated Unix sockets that are connected to each other.
///
/// # Errors
/// As [`make`].
pub(crate) fn make_pair(kind: Kind) -> Result<[RawFd; 2], i32> {
    match virtual_sockets::pair(kind) {
        Some(Ok((one, other))) => Ok([one.into_raw_fd(), other.into_raw_fd()]),
        Some(Err(error)) => Err(errno_of(error)),
        None => Err(libc::EOPNOTSUPP),
    }
}

/// Returns the errno of an error.
fn errno_of(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

impl Called {
    /// Calls `f` with the network and the socket.
    ///
    /// # Errors
    /// Those of `f`.
    pub(crate) fn with<R>(self, f: impl FnOnce(&mut Network, SocketId) -> Done<R>) -> Result<R, i32> {
        f(&mut self.simulated.sockets.borrow_mut().network, self.id).map_err(|errno| errno.0)
    }

    /// Takes a connection that waits at this listener, and returns its number and its socket.
    ///
    /// # Errors
    /// EAGAIN if none waits; EINVAL if this is no listener; EMFILE.
    pub(crate) fn accept(self) -> Result<(RawFd, Called), i32> {
        let mut sockets = self.simulated.sockets.borrow_mut();
        let id = sockets.network.accept(self.id).map_err(|errno| errno.0)?;
        match sockets.placeholder(id) {
            Ok(fd) => Ok((fd.into_raw_fd(), Called { simulated: self.simulated, id })),
            Err(error) => {
                sockets.network.close(id);
                Err(errno_of(error))
            }
        }
    }

    /// Returns the modes of the socket.
    pub(crate) fn modes(self) -> Modes {
        self.simulated.sockets.borrow().modes.get(&self.id.to_token()).copied().unwrap_or_default()
    }

    /// Changes the modes of the socket.
    pub(crate) fn change(self, change: impl FnOnce(&mut Modes)) {
        change(self.simulated.sockets.borrow_mut().modes.entry(self.id.to_token()).or_default());
    }

    /// Returns the readiness of the socket, in the bits of poll(2).
    pub(crate) fn readiness(self) -> u32 {
        self.simulated.sockets.borrow().network.readiness(self.id)
    }

    /// Tells `token` from now on when the readiness may have changed, and once for what it is now.
    pub(crate) fn watch(self, token: u64) {
        // One that is gone has nothing to tell, and the next attempt says so.
        let _ = self.with(|network, id| network.watch(id, token));
    }

    /// Ends what [`watch`](Self::watch) began.
    pub(crate) fn unwatch(self, token: u64) {
        let _ = self.with(|network, id| {
            network.unwatch(id, token);
            Ok(())
        });
    }
}
