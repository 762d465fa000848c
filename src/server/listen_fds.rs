//! Socket activation: listeners that were opened by the supervisor that started this process.
//!
//! ```text
//!   LISTEN_PID=4711              this is meant for process 4711, not for its children
//!   LISTEN_FDS=2                 descriptors 3 and 4
//!   LISTEN_FDNAMES=http:admin    their names, if they have any
//! ```
//!
//! The protocol is that of systemd's `sd_listen_fds(3)`, which other supervisors speak too. The socket exists before
//! the program and survives its restarts, so no connection is refused meanwhile, and the program needs no right to a
//! low port.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::net::{TcpListener, UdpSocket};
use crate::os::unix::net::UnixListener;
use crate::sys::inherit;
use crate::sys::socket::{SocketKind, socket_kind};

/// The first descriptor that a supervisor passes.
const FIRST: RawFd = 3;

/// The largest count that is believed: by default no process may have as many descriptors.
const MOST: RawFd = 1 << 20;

/// Whether the descriptors were handed out.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Returns the sockets that were passed to this process by the supervisor, in order. The list is empty if there are
/// none, and in every call but the first, since they are handed out once.
///
/// Each descriptor is checked to be open and marked as closed on exec. The variables stay in the environment: to
/// remove them would be an unsafe operation in a process with several OS threads, and children ignore them, since
/// `LISTEN_PID` names another process.
///
/// # Descriptors that were not passed
///
/// The environment may announce descriptors that were not passed: then the same numbers belong to what the program
/// has opened itself. A descriptor that is marked to be closed on exec cannot have come over exec, so that one is
/// refused. Everything that std and this crate open is marked so, and so is what another library has taken of the
/// same announcement. Call this function first in main, before anything opens descriptors without that mark: those
/// cannot be told from passed ones.
///
/// ```
/// use greenling::server::{TcpServer, listen_fds};
///
/// let listener = match listen_fds()?.into_iter().next() {
///     Some(passed) => passed.into_tcp_listener()?,
///     None => greenling::net::TcpListener::bind("127.0.0.1:0")?,
/// };
/// let server = TcpServer::new(listener);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `InvalidData` if `LISTEN_FDS` is not a number, if the count of `LISTEN_FDNAMES` differs, or if a descriptor was
/// not passed but opened by this process; the error of fcntl(2) for a descriptor that is not open. After an error all
/// descriptors are left alone, and the next call tries again.
///
/// May switch: no.
pub fn listen_fds() -> io::Result<Vec<ListenFd>> {
    let announced = Announced {
        pid: env::var_os("LISTEN_PID"),
        count: env::var_os("LISTEN_FDS"),
        names: env::var_os("LISTEN_FDNAMES"),
    };
    let names = announced.names_of(process::id())?;
    // Relaxed: only one caller sees `false`, and nothing else is shared.
    if names.is_empty() || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let taken = inherit::take(FIRST..FIRST + names.len() as RawFd).map_err(|(number, error)| {
        TAKEN.store(false, Ordering::Relaxed);
        io::Error::new(error.kind(), format!("LISTEN_FDS announces descriptor {number}: {error}"))
    })?;
    let with_name = |(fd, name): (OwnedFd, _)| ListenFd { name, kind: socket_kind(fd.as_fd()), fd };
    Ok(taken.into_iter().zip(names).map(with_name).collect())
}

/// The three environment variables.
struct Announced {
    /// `LISTEN_PID`: the process that is meant.
    pid: Option<OsString>,
    /// `LISTEN_FDS`: the number of descriptors.
    count: Option<OsString>,
    /// `LISTEN_FDNAMES`: the names of the descriptors.
    names: Option<OsString>,
}

impl Announced {
    /// Returns a name, or `None`, for each descriptor that is announced to process `me`.
    ///
    /// # Errors
    /// See [`listen_fds`].
    fn names_of(self, me: u32) -> io::Result<Vec<Option<String>>> {
        // What is meant for another process is ignored.
        let for_me = self.pid.as_ref().and_then(|pid| pid.to_str()?.parse().ok()) == Some(me);
        let (true, Some(count)) = (for_me, self.count) else { return Ok(Vec::new()) };
        // The count.
        let number = count.to_str().and_then(|count| count.parse().ok()).filter(|count| (0..=MOST).contains(count));
        let Some(number) = number else {
            return Err(invalid(format!("LISTEN_FDS is {count:?}, not a number of descriptors")));
        };
        // The names, of which an empty one means none; they are optional, but their number must fit.
        let Some(names) = self.names else { return Ok(vec![None; number as usize]) };
        let names = names.to_string_lossy().into_owned();
        let names: Vec<Option<String>> =
            names.split(':').map(|name| Some(name.to_owned()).filter(|name| !name.is_empty())).collect();
        if names.len() != number as usize && !(number == 0 && names == [None]) {
            return Err(invalid(format!("LISTEN_FDNAMES has {} names for {number} descriptors", names.len())));
        }
        Ok(if number == 0 { Vec::new() } else { names })
    }
}

/// Returns an error about what was announced.
fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A descriptor that was passed by the supervisor.
#[derive(Debug)]
pub struct ListenFd {
    /// The name that the supervisor gave.
    name: Option<String>,
    /// The kind of the socket; `None` for a descriptor that is no socket.
    kind: Option<SocketKind>,
    /// The descriptor that was passed.
    fd: OwnedFd,
}

impl ListenFd {
    /// Returns the name that the supervisor gave, `FileDescriptorName=` in systemd.
    ///
    /// May switch: no.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Converts the descriptor into a TCP listener. A [`TcpServer`](super::TcpServer) that drains leaves the socket
    /// listening, for the next process; [`close`](TcpListener::close) does not.
    ///
    /// # Errors
    /// `InvalidInput` if the descriptor is no TCP listener; then it is closed.
    ///
    /// May switch: no.
    pub fn into_tcp_listener(self) -> io::Result<TcpListener> {
        let fd = self.only_if("a TCP listener", |kind| kind.internet && kind.stream && kind.listens)?;
        Ok(TcpListener::of_passed_socket(fd))
    }

    /// Converts the descriptor into a UDP socket.
    ///
    /// # Errors
    /// `InvalidInput` if the descriptor is no UDP socket; it is closed then.
    ///
    /// May switch: no.
    pub fn into_udp_socket(self) -> io::Result<UdpSocket> {
        let fd = self.only_if("a UDP socket", |kind| kind.internet && kind.datagram)?;
        Ok(UdpSocket::from(net::UdpSocket::from(fd)))
    }

    /// Converts the descriptor into a listener on a Unix socket.
    ///
    /// # Errors
    /// `InvalidInput` if the descriptor is no such listener; it is closed then.
    ///
    /// May switch: no.
    pub fn into_unix_listener(self) -> io::Result<UnixListener> {
        let fd = self.only_if("a Unix listener", |kind| kind.unix && kind.stream && kind.listens)?;
        Ok(UnixListener::from(std::os::unix::net::UnixListener::from(fd)))
    }

    /// Returns the descriptor if `fits` accepts its kind, or an error that names `what` was wanted.
    fn only_if(self, what: &'static str, fits: impl FnOnce(SocketKind) -> bool) -> io::Result<OwnedFd> {
        if self.kind.is_some_and(fits) {
            return Ok(self.fd);
        }
        let error = WrongKind { name: self.name, kind: self.kind, what };
        Err(io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

impl AsFd for ListenFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<ListenFd> for OwnedFd {
    fn from(passed: ListenFd) -> OwnedFd {
        passed.fd
    }
}

/// The error for a descriptor of another kind than the wanted one.
#[derive(Debug)]
struct WrongKind {
    /// The name of the descriptor.
    name: Option<String>,
    /// The kind of the descriptor.
    kind: Option<SocketKind>,
    /// The kind that was wanted.
    what: &'static str,
}

impl fmt::Display for WrongKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("without a name");
        write!(f, "the descriptor {name} that was passed is not {}, but ", self.what)?;
        match self.kind {
            None => f.write_str("no socket"),
            Some(SocketKind { unix: true, stream: true, listens: true, .. }) => f.write_str("a Unix listener"),
            Some(SocketKind { unix: true, .. }) => f.write_str("a Unix socket of another kind"),
            Some(SocketKind { internet: true, datagram: true, .. }) => f.write_str("a UDP socket"),
            Some(SocketKind { internet: true, stream: true, listens: false, .. }) => {
                f.write_str("a TCP socket that does not listen")
            }
            Some(SocketKind { internet: true, stream: true, .. }) => f.write_str("a TCP listener"),
            Some(_) => f.write_str("another kind of socket"),
        }
    }
}

impl std::error::Error for WrongKind {}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pid: &str, count: &str, names: Option<&str>) -> Result<Vec<Option<String>>, String> {
        let announced =
            Announced { pid: Some(pid.into()), count: Some(count.into()), names: names.map(OsString::from) };
        announced.names_of(7).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_announced_to_another_process_is_ignored() {
        assert_eq!(names("8", "2", None), Ok(vec![]));
        assert_eq!(names("eight", "2", None), Ok(vec![]));
        let nothing = Announced { pid: None, count: Some("2".into()), names: None };
        assert!(nothing.names_of(7).unwrap().is_empty());
        let nothing = Announced { pid: Some("7".into()), count: None, names: None };
        assert!(nothing.names_of(7).unwrap().is_empty());
    }

    #[test]
    fn names_are_given_in_order() {
        assert_eq!(names("7", "2", None), Ok(vec![None, None]));
        assert_eq!(names("7", "2", Some("http:")), Ok(vec![Some("http".to_owned()), None]));
        assert_eq!(names("7", "0", None), Ok(vec![]));
        assert_eq!(names("7", "0", Some("")), Ok(vec![]));
    }

    #[test]
    fn nonsense_is_an_error() {
        for count in ["", "two", "-1", "99999999999", "1048577"] {
            assert!(names("7", count, None).unwrap_err().contains("LISTEN_FDS"), "{count}");
        }
        assert_eq!(names("7", "2", Some("http")).unwrap_err(), "LISTEN_FDNAMES has 1 names for 2 descriptors");
        assert!(names("7", "0", Some("http")).is_err());
    }
}
