//! What a descriptor is, by its number: the addresses of a socket, the path of a file; for reports.
//!
//! A report names a descriptor by the number that a thread waits for. With the feature `monkey` the program may have
//! closed that number meanwhile, so nothing here is an `OwnedFd` or a `BorrowedFd`: the kernel is asked for a number,
//! and answers EBADF if that is not open.
//!
//! * Invariant endpoint-1: the length passed with a buffer is the buffer's. The kernel writes no more than that, and
//!   reports a longer address by its length alone. Upheld by `name_of`.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fmt;
use std::fs;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::sockaddr::{MAX_LEN, RawAddr};
use super::virtual_sockets;
use crate::pure::network::{self, Kind};

/// The size of the longest address that is shown: a `sockaddr_un`, in bytes.
const ROOM: usize = size_of::<libc::sockaddr_un>();

/// The bytes before the path of a Unix address.
const PATH: usize = 2;

/// What a descriptor was when a report was made. Shown as `tcp 127.0.0.1:80 <-> 127.0.0.1:51000`,
/// `listener 127.0.0.1:80`, `unix /run/a.sock <-> unnamed`, `pipe:[1234]`, `/dev/tty`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A connection, or a socket that may become one.
    #[non_exhaustive]
    Tcp {
        /// The socket's own address.
        local: SocketAddr,
        /// The address of the other side; none before the connection is there, and after the other side has reset it.
        peer: Option<SocketAddr>,
    },
    /// A TCP socket that listens, with its address.
    TcpListener(SocketAddr),
    /// A socket for datagrams.
    #[non_exhaustive]
    Udp {
        /// The socket's own address.
        local: SocketAddr,
        /// The address that the socket is connected to.
        peer: Option<SocketAddr>,
    },
    /// A Unix socket. A name is a path, `@` and an abstract name, or empty.
    #[non_exhaustive]
    Unix {
        /// The socket's own name.
        local: String,
        /// The name of the other side, if there is one.
        peer: Option<String>,
    },
    /// A Unix socket that listens, with its name.
    UnixListener(String),
    /// Anything else: a path, or what the kernel calls the file, such as `pipe:[1234]` and `anon_inode:[eventfd]`.
    File(String),
}

impl Endpoint {
    /// Returns what such a descriptor is called, for a line about many of them.
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Endpoint::Tcp { peer: Some(_), .. } => "a connection",
            Endpoint::Tcp { .. } => "a TCP socket",
            Endpoint::TcpListener(_) => "a TCP listener",
            Endpoint::Udp { .. } => "a UDP socket",
            Endpoint::Unix { peer: Some(_), .. } => "a Unix connection",
            Endpoint::Unix { .. } => "a Unix socket",
            Endpoint::UnixListener(_) => "a Unix listener",
            Endpoint::File(name) if name.starts_with("pipe:") => "a pipe",
            Endpoint::File(_) => "a file",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unix = |name: &str| if name.is_empty() { String::from("unnamed") } else { name.to_owned() };
        match self {
            Endpoint::Tcp { local, peer: Some(peer) } => write!(f, "tcp {local} <-> {peer}"),
            Endpoint::Tcp { local, peer: None } => write!(f, "tcp {local}"),
            Endpoint::TcpListener(local) => write!(f, "listener {local}"),
            Endpoint::Udp { local, peer: Some(peer) } => write!(f, "udp {local} <-> {peer}"),
            Endpoint::Udp { local, peer: None } => write!(f, "udp {local}"),
            Endpoint::Unix { local, peer: Some(peer) } => write!(f, "unix {} <-> {}", unix(local), unix(peer)),
            Endpoint::Unix { local, peer: None } => write!(f, "unix {}", unix(local)),
            Endpoint::UnixListener(local) => write!(f, "listener {}", unix(local)),
            Endpoint::File(name) => f.write_str(name),
        }
    }
}

/// An address as the kernel wrote it.
struct Name {
    /// The address; zeros where nothing was written.
    bytes: [u8; ROOM],
    /// The number of bytes that count.
    len: usize,
}

impl Name {
    /// Returns the family of the address; an unconnected socket of some families has none.
    fn family(&self) -> c_int {
        c_int::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]]))
    }

    /// Returns the address, if that is one of the internet's.
    fn internet(&self) -> Option<SocketAddr> {
        let mut bytes = [0; MAX_LEN];
        bytes.copy_from_slice(&self.bytes[..MAX_LEN]);
        RawAddr { bytes, len: self.len as libc::socklen_t }.to_std().ok()
    }

    /// Returns the name of a Unix socket, as [`Endpoint::Unix`] shows names.
    fn unix(&self) -> String {
        match &self.bytes[PATH..self.len.max(PATH)] {
            [0, name @ ..] if !name.is_empty() => format!("@{}", String::from_utf8_lossy(name)),
            // As a rule the length includes the zero behind a path.
            path => String::from_utf8_lossy(path.split(|byte| *byte == 0).next().unwrap_or(path)).into_owned(),
        }
    }
}

/// A call that writes an address of a socket: getsockname(2) or getpeername(2).
type AddressCall = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int;

/// Returns the address that `call` has for the descriptor; none if the call fails.
fn name_of(call: AddressCall, number: RawFd) -> Option<Name> {
    let mut name = Name { bytes: [0; ROOM], len: 0 };
    let mut len = ROOM as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `bytes` has (endpoint-1), and checks the number
    // (getsockname(2), getpeername(2)).
    let result = unsafe { call(number, name.bytes.as_mut_ptr().cast(), &raw mut len) };
    name.len = (len as usize).min(ROOM);
    (result == 0).then_some(name)
}

/// Returns an integer option of a socket; none if the call fails.
fn option(number: RawFd, option: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `value` has (endpoint-1), and checks the number
    // (getsockopt(2)).
    let result = unsafe { libc::getsockopt(number, libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len) };
    (result == 0).then_some(value)
}

/// Returns what the descriptor with this number is now; none if the number is not open, or `/proc` is not there to say.
pub(crate) fn endpoint(number: RawFd) -> Option<Endpoint> {
    if let Some(described) = simulated_socket(number) {
        return described;
    }
    socket(number).or_else(|| {
        let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        Some(Endpoint::File(target.to_string_lossy().into_owned()))
    })
}

/// Does the work of [`endpoint`] for simulated sockets; none for a descriptor of the kernel.
fn simulated_socket(number: RawFd) -> Option<Option<Endpoint>> {
    let shown = |name: network::Name| match name {
        network::Name::Unnamed => String::new(),
        network::Name::Path(path) => String::from_utf8_lossy(&path).into_owned(),
        network::Name::Abstract(name) => format!("@{}", String::from_utf8_lossy(&name)),
    };
    let described = virtual_sockets::with_number(number, |network, id| {
        let (kind, listens) = (network.kind(id)?, network.listens(id)?);
        Ok(match kind {
            Kind::Tcp { .. } if listens => Endpoint::TcpListener(network.local_addr(id)?),
            Kind::Tcp { .. } => Endpoint::Tcp { local: network.local_addr(id)?, peer: network.peer_addr(id).ok() },
            Kind::Udp { .. } => Endpoint::Udp { local: network.local_addr(id)?, peer: network.peer_addr(id).ok() },
            Kind::UnixStream if listens => Endpoint::UnixListener(shown(network.local_name(id)?)),
            Kind::UnixStream | Kind::UnixDatagram => {
                Endpoint::Unix { local: shown(network.local_name(id)?), peer: network.peer_name(id).ok().map(shown) }
            }
        })
    });
    described.map(std::result::Result::ok)
}

/// Does the work of [`endpoint`] for sockets of the internet's families and of Unix.
fn socket(number: RawFd) -> Option<Endpoint> {
    let own = name_of(libc::getsockname, number)?;
    let stream = option(number, libc::SO_TYPE)? == libc::SOCK_STREAM;
    let other = name_of(libc::getpeername, number);
    let listens = || option(number, libc::SO_ACCEPTCONN).is_some_and(|listens| listens != 0);
    if own.family() == libc::AF_UNIX {
        return Some(match other {
            Some(other) => Endpoint::Unix { local: own.unix(), peer: Some(other.unix()) },
            None if listens() => Endpoint::UnixListener(own.unix()),
            None => Endpoint::Unix { local: own.unix(), peer: None },
        });
    }
    let local = own.internet()?;
    let peer = other.and_then(|other| other.internet());
    Some(match (stream, peer) {
        (false, peer) => Endpoint::Udp { local, peer },
        (true, None) if listens() => Endpoint::TcpListener(local),
        (true, peer) => Endpoint::Tcp { local, peer },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    /// Returns what is shown of a descriptor.
    fn shown(file: &impl AsRawFd) -> String {
        endpoint(file.as_raw_fd()).unwrap().to_string()
    }

    #[test]
    fn sockets_of_the_internet_show_both_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(shown(&listener), format!("listener {addr}"));
        let client = TcpStream::connect(addr).unwrap();
        let own = client.local_addr().unwrap();
        assert_eq!(shown(&client), format!("tcp {own} <-> {addr}"));
        let (server, _) = listener.accept().unwrap();
        assert_eq!(shown(&server), format!("tcp {addr} <-> {own}"));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(shown(&udp), format!("udp {}", udp.local_addr().unwrap()));
        udp.connect(addr).unwrap();
        assert_eq!(shown(&udp), format!("udp {} <-> {addr}", udp.local_addr().unwrap()));
    }

    #[test]
    fn other_descriptors_show_what_the_kernel_calls_them() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(shown(&one), "unix unnamed <-> unnamed");
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(shown(&reader).starts_with("pipe:["), "{}", shown(&reader));
        assert_eq!(endpoint(reader.as_raw_fd()).unwrap().noun(), "a pipe");
        assert_eq!(shown(&fs::File::open("/dev/null").unwrap()), "/dev/null");
    }

    #[test]
    fn a_number_that_is_not_open_is_nothing() {
        // Numbers of this size are not given out by a test that opens a few files.
        assert_eq!(endpoint(1 << 30), None);
        assert_eq!(endpoint(-1), None);
    }
}
