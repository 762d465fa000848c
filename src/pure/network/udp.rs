//! UDP: datagrams that arrive, or not, in any order.
//!
//! A datagram that no socket receives is answered (as by ICMP), and the answer is the error of the sender's next call,
//! if the sender is connected. A receiver without room drops what comes. Broadcasts go to all hosts, datagrams to a
//! group to the sockets that have joined the group, on any host.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::errno::{Errno, Result};
use super::internet::seen_by;
use super::socket::{Datagram, Setting, State};
use super::{Event, HostId, Kind, Mishap, Name, Network, SHUT_READ, SocketId, plain};

/// The bytes of the longest datagram.
const LONGEST: usize = 65507;

/// The bytes that a queued datagram takes beside its content.
const OVERHEAD: usize = 576;

/// A datagram under way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// The socket that sent it.
    sender: SocketId,
    /// The host of the sender.
    home: HostId,
    /// The host that it goes to.
    host: HostId,
    /// The address of the sender.
    from: SocketAddr,
    /// The address that it goes to.
    to: SocketAddr,
    /// The bytes that were sent.
    bytes: Vec<u8>,
}

/// Reports whether datagrams to `ip` are for several receivers.
fn is_for_many(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == Ipv4Addr::BROADCAST
}

impl Network {
    /// Sets the address that datagrams go to and come from.
    pub(super) fn connect_udp(&mut self, id: SocketId, to: SocketAddr) -> Result<()> {
        let socket = self.get(id)?;
        let (host, kind) = (socket.host, socket.kind);
        if to.is_ipv6() && !kind.is_v6() {
            return Err(Errno::EAFNOSUPPORT);
        }
        let to = Network::target(to);
        if to.ip() == Ipv4Addr::BROADCAST && self.setting(id, Setting::Broadcast)? == 0 {
            return Err(Errno::EACCES);
        }
        if !is_for_many(to.ip()) && self.host_at(host, to.ip()).is_none() {
            return Err(Errno::ENETUNREACH);
        }
        self.bind_towards(id, to)?;
        let socket = self.get_mut(id)?;
        socket.remote = Some(seen_by(kind, to));
        socket.state = State::Open;
        Ok(())
    }

    /// Sends a datagram, to `to` or where the socket is connected to.
    pub(crate) fn send_udp(&mut self, id: SocketId, buf: &[u8], to: Option<SocketAddr>) -> Result<usize> {
        let socket = self.get_mut(id)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if buf.len() > LONGEST {
            return Err(Errno::EMSGSIZE);
        }
        let (home, kind) = (socket.host, socket.kind);
        let Some(to) = to.or(socket.remote) else { return Err(Errno::EDESTADDRREQ) };
        if to.is_ipv6() && !kind.is_v6() {
            return Err(Errno::EAFNOSUPPORT);
        }
        if to.port() == 0 {
            return Err(Errno::EINVAL);
        }
        let to = Network::target(to);
        if to.ip() == Ipv4Addr::BROADCAST && self.setting(id, Setting::Broadcast)? == 0 {
            return Err(Errno::EACCES);
        }
        self.bind_any(id)?;
        let local = self.local_addr(id)?;
        let from = if local.ip().is_unspecified() {
            SocketAddr::new(Network::source_for(home, to.ip()), local.port())
        } else {
            plain(local)
        };
        if is_for_many(to.ip()) {
            for host in 0..self.hosts.len() {
                self.dispatch(Packet { sender: id, home, host, from, to, bytes: buf.to_vec() });
            }
        } else {
            let host = self.host_at(home, to.ip()).ok_or(Errno::ENETUNREACH)?;
            self.dispatch(Packet { sender: id, home, host, from, to, bytes: buf.to_vec() });
        }
        self.run_due();
        Ok(buf.len())
    }

    /// Sends a datagram on its way to one host, as often as chance says.
    fn dispatch(&mut self, packet: Packet) {
        let (home, host) = (packet.home, packet.host);
        let conditions = self.conditions(home, host);
        let copies = 1 + usize::from(self.happens(Mishap::Doubled, conditions.duplication));
        for _ in 0..copies {
            let at = self.arrival(home, host, packet.bytes.len());
            let late = self.delay_by_reordering(home, host);
            if self.is_reachable(home, host) && !self.happens(Mishap::Lost, conditions.loss) {
                self.at(at.saturating_add(late), Event::Datagram(Box::new(packet.clone())));
            }
        }
    }

    /// Gives a datagram to the socket that it is for, or to all of them.
    pub(super) fn datagram_arrives(&mut self, packet: Packet) {
        if !self.is_reachable(packet.home, packet.host) {
            return;
        }
        let many = is_for_many(packet.to.ip());
        let to = if many { SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), packet.to.port()) } else { packet.to };
        let found = if many { self.all_at(&packet) } else { self.bound_at(packet.host, false, to) };
        let takes = |id: &SocketId| {
            let remote = self.sockets.get(*id).and_then(|socket| socket.remote);
            remote.is_none_or(|remote| plain(remote) == packet.from)
        };
        let mut receivers: Vec<SocketId> = found.into_iter().filter(takes).collect();
        if !many {
            // A connected socket is the more particular one.
            let connected = |id: &SocketId| self.sockets.get(*id).is_some_and(|socket| socket.remote.is_some());
            let best = receivers.iter().copied().find(connected).or_else(|| receivers.first().copied());
            receivers = best.into_iter().collect();
        }
        if receivers.is_empty() && !many {
            let back = self.arrival(packet.host, packet.home, 0);
            return self.at(back, Event::Unreachable(packet.sender, packet.to));
        }
        for id in receivers {
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            let size = packet.bytes.len() + OVERHEAD;
            if socket.datagram_bytes + size > socket.receive_room.max(size) || socket.shut & SHUT_READ != 0 {
                continue;
            }
            socket.datagram_bytes += size;
            let from = Some(seen_by(socket.kind, packet.from));
            socket.datagrams.push_back(Datagram { from, name: Name::Unnamed, bytes: packet.bytes.clone() });
            self.note(id);
        }
    }

    /// Returns the sockets of a host that a datagram for many is for.
    fn all_at(&self, packet: &Packet) -> Vec<SocketId> {
        let list = self.ports.get(&(packet.host, false, packet.to.port())).map_or(&[][..], |list| list);
        let is_member = |id: &SocketId| {
            let Some(socket) = self.sockets.get(*id) else { return false };
            packet.to.ip() == Ipv4Addr::BROADCAST || socket.groups.contains(&packet.to.ip())
        };
        let loops = self.sockets.get(packet.sender).is_none_or(|socket| {
            let setting = if packet.to.is_ipv6() { Setting::LoopV6 } else { Setting::LoopV4 };
            socket.settings.get(&setting).copied().unwrap_or(1) != 0
        });
        let comes = packet.host != packet.home || loops || packet.to.ip() == Ipv4Addr::BROADCAST;
        list.iter().copied().filter(is_member).filter(|_| comes).collect()
    }

    /// Notes at the sender that no socket has received a datagram to `to`. A socket is told only if it is connected
    /// there.
    pub(super) fn unreachable(&mut self, id: SocketId, to: SocketAddr) {
        if let Some(socket) = self.sockets.get_mut(id)
            && socket.remote.map(plain) == Some(to)
        {
            socket.error = Some(Errno::ECONNREFUSED);
            self.note(id);
        }
    }

    /// Takes a datagram; with `peek` it stays. What does not fit into `buf` is lost.
    pub(super) fn take_datagram(&mut self, id: SocketId, buf: &mut [u8], peek: bool) -> Result<(usize, Datagram)> {
        let socket = self.get_mut(id)?;
        let taken = if peek { socket.datagrams.front().cloned() } else { socket.datagrams.pop_front() };
        let Some(datagram) = taken else {
            return Err(Errno::EAGAIN);
        };
        if !peek {
            let overhead = if matches!(socket.kind, Kind::Udp { .. }) { OVERHEAD } else { 0 };
            socket.datagram_bytes = socket.datagram_bytes.saturating_sub(datagram.bytes.len() + overhead);
        }
        let count = buf.len().min(datagram.bytes.len());
        buf[..count].copy_from_slice(&datagram.bytes[..count]);
        Ok((count, datagram))
    }

    /// Receives a datagram of the internet's families and the address of its sender.
    pub(crate) fn recv_from(&mut self, id: SocketId, buf: &mut [u8], peek: bool) -> Result<(usize, SocketAddr)> {
        let socket = self.get_mut(id)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let (count, datagram) = self.take_datagram(id, buf, peek)?;
        Ok((count, datagram.from.ok_or(Errno::EINVAL)?))
    }

    /// Joins a multicast group, or leaves it.
    pub(crate) fn set_member(&mut self, id: SocketId, group: IpAddr, joins: bool) -> Result<()> {
        let socket = self.get_mut(id)?;
        if !group.is_multicast() {
            return Err(if joins { Errno::EINVAL } else { Errno::EADDRNOTAVAIL });
        }
        let is_member = socket.groups.contains(&group);
        match (joins, is_member) {
            (true, true) => Err(Errno::EADDRINUSE),
            (false, false) => Err(Errno::EADDRNOTAVAIL),
            (true, false) => {
                socket.groups.push(group);
                Ok(())
            }
            (false, true) => {
                socket.groups.retain(|&joined| joined != group);
                Ok(())
            }
        }
    }
}
