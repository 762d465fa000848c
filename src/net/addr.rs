//! Who to connect to or listen on: `ToSocketAddrs`, with names that are looked up without blocking the hub.
//!
//! The implementations are std's, one by one. Literal addresses are parsed and never looked up; everything else goes
//! to [`resolve`](super::resolve), where an OS thread asks the C library and the green thread waits.
#![forbid(unsafe_code)]

use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::option;
use std::slice;
use std::vec;

use super::resolve::lookup;

/// What can be turned into socket addresses, as [`std::net::ToSocketAddrs`], green.
///
/// ```
/// use greenling::net::ToSocketAddrs;
///
/// let literal: Vec<_> = "127.0.0.1:7007".to_socket_addrs()?.collect();
/// assert_eq!(literal, ["127.0.0.1:7007".parse().unwrap()]);
/// assert!(("localhost", 7007).to_socket_addrs()?.all(|addr| addr.ip().is_loopback()));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Names are looked up as std looks them up, `/etc/hosts` included, but by OS threads kept for that, 16 at most at once in the
/// process; literal addresses are not looked up. A lookup has no time limit of its own beside that of the C library:
/// [`timeout`](crate::timeout) ends the wait, and frees the caller at once. The lookup that it waited for goes on, and keeps
/// its OS thread until it ends.
pub trait ToSocketAddrs {
    /// Yields the addresses.
    type Iter: Iterator<Item = SocketAddr>;

    /// The addresses, in the order in which they should be tried.
    ///
    /// # Errors
    /// `InvalidInput` if the text has no port or an impossible one; what the lookup says; an error when the caller
    /// unwinds or its OS thread is ending and the name would have to be looked up.
    ///
    /// # Panics
    /// As every blocking call: unwinds with a kill or an expired [`timeout`](crate::timeout), panics inside
    /// [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if it is a name and not an address.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

impl ToSocketAddrs for SocketAddr {
    type Iter = option::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(Some(*self).into_iter())
    }
}

impl ToSocketAddrs for SocketAddrV4 {
    type Iter = option::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        SocketAddr::V4(*self).to_socket_addrs()
    }
}

impl ToSocketAddrs for SocketAddrV6 {
    type Iter = option::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        SocketAddr::V6(*self).to_socket_addrs()
    }
}

impl ToSocketAddrs for (IpAddr, u16) {
    type Iter = option::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        SocketAddr::from(*self).to_socket_addrs()
    }
}

impl ToSocketAddrs for (Ipv4Addr, u16) {
    type Iter = option::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        SocketAddr::from(*self).to_socket_addrs()
    }
}

impl ToSocketAddrs for (Ipv6Addr, u16) {
    type Iter = option::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        SocketAddr::from(*self).to_socket_addrs()
    }
}

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let (host, port) = *self;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)].into_iter());
        }
        Ok(lookup(host, port)?.into_iter())
    }
}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (self.0.as_str(), self.1).to_socket_addrs()
    }
}

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        if let Ok(addr) = self.parse() {
            return Ok(vec![addr].into_iter());
        }
        let (host, port) = self.rsplit_once(':').ok_or_else(|| invalid("invalid socket address"))?;
        let port = port.parse().map_err(|_| invalid("invalid port value"))?;
        Ok(lookup(host, port)?.into_iter())
    }
}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.as_str().to_socket_addrs()
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = iter::Cloned<slice::Iter<'a, SocketAddr>>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().cloned())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;
    fn to_socket_addrs(&self) -> io::Result<T::Iter> {
        (**self).to_socket_addrs()
    }
}

/// Calls `f` with one address after the other until it succeeds, and returns its last error if it never does.
///
/// # Errors
/// See above; `InvalidInput` if there is no address at all.
pub(super) fn each_addr<A: ToSocketAddrs, T>(
    addr: A,
    mut f: impl FnMut(&SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for addr in addr.to_socket_addrs()? {
        match f(&addr) {
            Ok(result) => return Ok(result),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| invalid("could not resolve to any addresses")))
}

/// What is wrong with an argument, in std's words.
fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
