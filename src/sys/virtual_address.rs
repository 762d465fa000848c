//! Addresses of simulated sockets in the kernel's byte layout: what patched calls are given and return.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::sockaddr::{MAX_LEN, RawAddr};
use crate::pure::network::Name;

/// The offset of the name in a `sockaddr_un`.
const PATH: usize = 2;

/// The address of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// One of the internet's families.
    Internet(SocketAddr),
    /// The name of a Unix socket.
    Unix(Name),
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// EINVAL if it is too short, EAFNOSUPPORT if it is of another family.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Address, i32> {
        let Some((family, rest)) = bytes.split_first_chunk::<PATH>() else { return Err(libc::EINVAL) };
        if i32::from(u16::from_ne_bytes(*family)) != libc::AF_UNIX {
            let mut raw = RawAddr::room();
            let len = bytes.len().min(MAX_LEN);
            raw.bytes[..len].copy_from_slice(&bytes[..len]);
            raw.len = len as libc::socklen_t;
            return raw.to_std().map(Address::Internet).map_err(|_| libc::EAFNOSUPPORT);
        }
        Ok(Address::Unix(match rest {
            [] => Name::Unnamed,
            [0, name @ ..] => Name::Abstract(name.to_vec()),
            path => Name::Path(path.split(|byte| *byte == 0).next().unwrap_or(path).to_vec()),
        }))
    }

    /// Returns the bytes of the address.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let name = match self {
            Address::Internet(addr) => {
                let raw = RawAddr::from(addr);
                return raw.bytes[..raw.len as usize].to_vec();
            }
            Address::Unix(name) => name,
        };
        let mut bytes = (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes().to_vec();
        match name {
            Name::Unnamed => {}
            Name::Path(path) => bytes.extend(path.iter().copied().chain([0])),
            Name::Abstract(name) => bytes.extend([0].into_iter().chain(name.iter().copied())),
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_bytes_and_back() {
        let internet = ["10.0.0.2:80", "[fd00::2]:81"].map(|text| Address::Internet(text.parse().unwrap()));
        let names = [Name::Unnamed, Name::Path(b"/a/path".into()), Name::Abstract(b"name\0x".into())];
        for address in internet.into_iter().chain(names.map(Address::Unix)) {
            assert_eq!(Address::parse(&address.to_bytes()), Ok(address));
        }
        assert_eq!(Address::parse(&[0]), Err(libc::EINVAL));
        assert_eq!(Address::parse(&[0xff, 0xff, 0, 0]), Err(libc::EAFNOSUPPORT));
    }
}
