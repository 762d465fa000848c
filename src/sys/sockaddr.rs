//! Conversion of internet addresses to the kernel's byte layout and back, without unsafe code.
//!
//! ```text
//!   sockaddr_in   0 family  2 port  4 address (4)                                       16 long
//!   sockaddr_in6  0 family  2 port  4 flow info  8 address (16)  24 scope id            28 long
//! ```
//!
//! The family, the flow info and the scope id are in the machine's order, the port in the network's; an address is
//! plain bytes. The kernel copies the bytes in and out, so they need no type of their own; the assertions below check
//! the offsets against the structs of `libc`.

#![forbid(unsafe_code)]

use std::io;
use std::mem::{offset_of, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The size of the longer of the two structs, in bytes.
pub(super) const MAX_LEN: usize = 28;
/// The size of the shorter struct, in bytes.
const V4_LEN: usize = 16;

const _: () = {
    use libc::{sockaddr_in, sockaddr_in6};
    assert!(size_of::<sockaddr_in>() == V4_LEN && size_of::<sockaddr_in6>() == MAX_LEN);
    assert!(offset_of!(sockaddr_in, sin_family) == 0 && offset_of!(sockaddr_in6, sin6_family) == 0);
    assert!(offset_of!(sockaddr_in, sin_port) == 2 && offset_of!(sockaddr_in6, sin6_port) == 2);
    assert!(offset_of!(sockaddr_in, sin_addr) == 4 && offset_of!(sockaddr_in6, sin6_flowinfo) == 4);
    assert!(offset_of!(sockaddr_in6, sin6_addr) == 8 && offset_of!(sockaddr_in6, sin6_scope_id) == 24);
};

/// An address as the kernel reads or writes it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct RawAddr {
    /// A `sockaddr_in` or `sockaddr_in6`; zeros where nothing was written.
    pub(super) bytes: [u8; MAX_LEN],
    /// The number of bytes that count. At most `MAX_LEN`, except after a call that had a longer address to report.
    pub(super) len: libc::socklen_t,
}

impl RawAddr {
    /// Makes room for the kernel to write an address into.
    pub(super) fn room() -> RawAddr {
        RawAddr { bytes: [0; MAX_LEN], len: MAX_LEN as libc::socklen_t }
    }

    /// Converts to an address of `std`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the address is of another family, with the message of `std`.
    pub(super) fn to_std(self) -> io::Result<SocketAddr> {
        // The family says how long the struct must be.
        let len = self.len as usize;
        let family = i32::from(u16::from_ne_bytes(self.array(0)));
        let port = u16::from_be_bytes(self.array(2));
        match family {
            libc::AF_INET if len >= V4_LEN => {
                let ip = Ipv4Addr::from(self.array::<4>(4));
                Ok(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 if len >= MAX_LEN => {
                let ip = Ipv6Addr::from(self.array::<16>(8));
                let (flow, scope) = (u32::from_ne_bytes(self.array(4)), u32::from_ne_bytes(self.array(24)));
                Ok(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "invalid argument")),
        }
    }

    /// Returns the `N` bytes from `at` on.
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.bytes[at + i])
    }
}

impl From<&SocketAddr> for RawAddr {
    fn from(addr: &SocketAddr) -> RawAddr {
        // The family and the port are at the same place in both structs.
        let mut bytes = [0; MAX_LEN];
        bytes[..2].copy_from_slice(&(family(addr) as libc::sa_family_t).to_ne_bytes());
        bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        let len = match addr {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                V4_LEN
            }
            SocketAddr::V6(v6) => {
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..].copy_from_slice(&v6.scope_id().to_ne_bytes());
                MAX_LEN
            }
        };
        RawAddr { bytes, len: len as libc::socklen_t }
    }
}

/// Returns the family of a socket that talks to `addr`.
pub(super) fn family(addr: &SocketAddr) -> libc::c_int {
    match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_way_there_and_back() {
        let v6 = Ipv6Addr::new(0xfe80, 1, 2, 3, 4, 5, 6, 0xff01);
        let all: [SocketAddr; 4] = [
            "127.0.0.1:80".parse().unwrap(),
            "255.254.253.252:65535".parse().unwrap(),
            "[::1]:8080".parse().unwrap(),
            SocketAddrV6::new(v6, 0x1234, 0x0005_6789, 7).into(),
        ];
        for addr in all {
            assert_eq!(RawAddr::from(&addr).to_std().unwrap(), addr);
        }
    }

    #[test]
    fn the_bytes_are_the_kernels() {
        let raw = RawAddr::from(&"1.2.3.4:258".parse().unwrap());
        let family = (libc::AF_INET as u16).to_ne_bytes();
        assert_eq!(raw.bytes[..8], [family[0], family[1], 1, 2, 1, 2, 3, 4]);
        assert_eq!(raw.len, 16);
    }

    #[test]
    fn other_families_and_cut_addresses_are_errors() {
        let mut unix = RawAddr::room();
        unix.bytes[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        assert_eq!(unix.to_std().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        for whole in ["1.2.3.4:5", "[::1]:5"] {
            let mut cut = RawAddr::from(&whole.parse().unwrap());
            cut.len -= 1;
            assert_eq!(cut.to_std().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
