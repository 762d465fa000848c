//! Addresses and ports of the sockets of the internet's families: which host has which address, and which socket which
//! port.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::errno::{Errno, Result};
use super::socket::{Kind, State};
use super::{FIRST_PORT, HostId, LAST_PORT, Network, SocketId, address_v4, address_v6, plain};

/// Reports whether `bound`, which may be a wildcard, has a part in `addr`, which may be one, too.
fn overlaps(bound: IpAddr, addr: IpAddr) -> bool {
    // The wildcard of IPv6 takes IPv4 as well.
    bound == addr
        || bound.is_unspecified() && (bound.is_ipv6() || addr.is_ipv4())
        || addr.is_unspecified() && (addr.is_ipv6() || bound.is_ipv4())
}

/// Returns the address in the form that a socket of IPv6 sees.
pub(super) fn seen_by(kind: Kind, addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if kind.is_v6() => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        _ => addr,
    }
}

impl Network {
    /// Returns the host that has `ip`, as seen by `from`.
    pub(super) fn host_at(&self, from: HostId, ip: IpAddr) -> Option<HostId> {
        if ip.is_loopback() || ip.is_unspecified() {
            return Some(from);
        }
        let number = match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits().wrapping_sub(address_v4(0).to_bits())),
            IpAddr::V6(ip) => ip.to_bits().wrapping_sub(address_v6(0).to_bits()),
        };
        usize::try_from(number).ok().filter(|&host| host < self.hosts.len())
    }

    /// Returns the address that packets from `host` to `to` come from.
    pub(super) fn source_for(host: HostId, to: IpAddr) -> IpAddr {
        match to {
            IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V4(_) => address_v4(host).into(),
            IpAddr::V6(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V6(_) => address_v6(host).into(),
        }
    }

    /// Returns the address that is meant by one that a program connects or sends to: a wildcard is the host itself.
    pub(super) fn target(addr: SocketAddr) -> SocketAddr {
        match plain(addr) {
            SocketAddr::V4(addr) if addr.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
            SocketAddr::V6(addr) if addr.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, addr.port()).into(),
            addr => addr,
        }
    }

    /// Gives a socket of the internet's families an address; port 0 stands for any.
    pub(crate) fn bind(&mut self, id: SocketId, addr: SocketAddr, reuse_port: bool) -> Result<()> {
        let socket = self.get_mut(id)?;
        socket.reuse_port |= reuse_port;
        if !socket.kind.is_internet() || socket.is_bound {
            return Err(Errno::EINVAL);
        }
        if addr.is_ipv6() != socket.kind.is_v6() {
            return Err(if addr.is_ipv6() { Errno::EAFNOSUPPORT } else { Errno::EINVAL });
        }
        let host = socket.host;
        let ip = addr.ip().to_canonical();
        // A socket for datagrams may be bound to a group.
        let is_group = ip.is_multicast() && !socket.kind.is_stream();
        if !ip.is_unspecified() && !is_group && self.host_at(host, ip) != Some(host) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let port = match addr.port() {
            0 => self.free_port(id, ip)?,
            port if self.is_free(id, SocketAddr::new(ip, port)) => port,
            _ => return Err(Errno::EADDRINUSE),
        };
        self.enter_port(id, SocketAddr::new(addr.ip(), port))
    }

    /// Enters a socket into the table of the ports.
    fn enter_port(&mut self, id: SocketId, addr: SocketAddr) -> Result<()> {
        let socket = self.get_mut(id)?;
        socket.local = Some(addr);
        socket.is_bound = true;
        let key = (socket.host, socket.kind.is_stream(), addr.port());
        self.ports.entry(key).or_default().push(id);
        Ok(())
    }

    /// Gives a socket that has no address yet one with any port, for a wildcard of its family.
    pub(super) fn bind_any(&mut self, id: SocketId) -> Result<()> {
        let socket = self.get(id)?;
        if socket.local.is_some() {
            return Ok(());
        }
        let ip: IpAddr = if socket.kind.is_v6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let port = self.free_port(id, ip)?;
        self.enter_port(id, SocketAddr::new(ip, port))
    }

    /// Reports whether a socket may take an address. Every listener may take one that others have used before it
    /// (`SO_REUSEADDR`), unless one of them listens.
    fn is_free(&self, id: SocketId, addr: SocketAddr) -> bool {
        let Ok(socket) = self.get(id) else { return false };
        let key = (socket.host, socket.kind.is_stream(), addr.port());
        let others = self.ports.get(&key).map_or(&[][..], |list| list);
        others.iter().filter_map(|&other| self.get(other).ok()).all(|other| {
            let local = other.local.map_or(addr.ip(), |local| local.ip().to_canonical());
            let is_shared = other.reuse_port && socket.reuse_port;
            let is_past = socket.kind.is_stream() && other.state != State::Listening && other.remote.is_some();
            is_shared || is_past || !overlaps(local, addr.ip())
        })
    }

    /// Returns a free port. They are given out in turn, so that a port that was just free is not used at once.
    fn free_port(&mut self, id: SocketId, ip: IpAddr) -> Result<u16> {
        let (host, stream) = (self.get(id)?.host, self.get(id)?.kind.is_stream());
        for _ in FIRST_PORT..=LAST_PORT {
            let next = &mut self.hosts[host].next_port;
            let port = *next;
            *next = if port == LAST_PORT { FIRST_PORT } else { port + 1 };
            let is_unused = !self.ports.contains_key(&(host, stream, port));
            if is_unused && self.is_free(id, SocketAddr::new(ip, port)) {
                return Ok(port);
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// Gives a socket that connects to `to` the address that its packets come from.
    pub(super) fn bind_towards(&mut self, id: SocketId, to: SocketAddr) -> Result<()> {
        self.bind_any(id)?;
        let socket = self.get_mut(id)?;
        let source = Network::source_for(socket.host, to.ip());
        if let Some(local) = &mut socket.local
            && local.ip().is_unspecified()
        {
            *local = seen_by(socket.kind, SocketAddr::new(source, local.port()));
        }
        Ok(())
    }

    /// Returns the sockets that packets to `to` of `host` may be for, the most particular ones first.
    pub(super) fn bound_at(&self, host: HostId, stream: bool, to: SocketAddr) -> Vec<SocketId> {
        let list = self.ports.get(&(host, stream, to.port())).map_or(&[][..], |list| list);
        let fits = |id: &SocketId, exact: bool| {
            let local = self.get(*id).ok().and_then(|socket| socket.local).map(|local| local.ip().to_canonical());
            local.is_some_and(|ip| (ip == to.ip()) == exact && overlaps(ip, to.ip()))
        };
        let mut found: Vec<SocketId> = list.iter().copied().filter(|id| fits(id, true)).collect();
        found.extend(list.iter().copied().filter(|id| fits(id, false)));
        found
    }

    /// Returns the address of a socket: a wildcard without a port, if it has none.
    pub(crate) fn local_addr(&self, id: SocketId) -> Result<SocketAddr> {
        let socket = self.get(id)?;
        let none = if socket.kind.is_v6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        Ok(socket.local.unwrap_or(SocketAddr::new(none, 0)))
    }

    /// Returns the address that a connection was accepted from, also if it has ended since.
    pub(crate) fn accepted_from(&self, id: SocketId) -> Result<SocketAddr> {
        self.get(id)?.remote.ok_or(Errno::ENOTCONN)
    }

    /// Returns the address of the other side.
    pub(crate) fn peer_addr(&self, id: SocketId) -> Result<SocketAddr> {
        let socket = self.get(id)?;
        let is_gone = socket.kind.is_stream() && matches!(socket.state, State::Closed | State::Connecting);
        socket.remote.filter(|_| !is_gone).ok_or(Errno::ENOTCONN)
    }
}
