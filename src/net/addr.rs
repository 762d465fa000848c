//! Addresses to connect to or listen on: `ToSocketAddrs`, which looks up names without blocking the hub.
//!
//! The implementations are those of std, one by one. Literal addresses are parsed and never looked up; all other text
//! goes to [`resolve`](super::resolve), where an OS thread asks the C library and the green thread waits.
#![forbid(unsafe_code)]

use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::option;
use std::slice;
use std::vec;

use super::resolve::lookup;

/// A value that can be turned into socket addresses, as with [`std::net::ToSocketAddrs`].
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
/// Names are looked up as in std, `/etc/hosts` included, but on OS threads kept for lookups. The C library alone limits
/// the time of a lookup: [`timeout`](crate::timeout) ends the wait, and frees the caller at once.
///
/// At most 16 lookups of the process ask the network at once; more callers wait, in order. A lookup goes on until the C
/// library gives up, also when the caller was killed or timed out; but then another lookup gets the place. Once 240
/// abandoned lookups go on like this, further ones keep their places among the 16. Names that `/etc/hosts` has (where
/// `/etc/nsswitch.conf` puts this file first) and numbers such as `127.1` wait for no lookup that asks the network.
pub trait ToSocketAddrs {
    /// The iterator over the addresses.
    type Iter: Iterator<Item = SocketAddr>;

    /// Returns the addresses, in the order in which they should be tried.
    ///
    /// # Errors
    /// `InvalidInput` if the text has no port or an impossible one; the errors of the lookup; an error if the name has
    /// to be looked up while the caller unwinds or its OS thread is ending.
    ///
    /// # Panics
    /// As every blocking call: unwinds with a kill or an expired [`timeout`](crate::timeout), panics inside
    /// [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, for a name; no, for an address.
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

/// Calls `f` with one address after the other until one call succeeds.
///
/// # Errors
/// The error of the last call if none succeeds; `InvalidInput` if there is no address at all.
pub(super) fn each_addr<A: ToSocketAddrs, T>(
    addr: A,
    mut f: impl FnMut(&SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for addr in addr.to_socket_addrs()? {
        match f(&addr) {
            Ok(result) => return Ok(result),
            // The next address may do better; the last error is reported, as std does.
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| invalid("could not resolve to any addresses")))
}

/// Makes the error for a bad argument, with std's message.
fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
