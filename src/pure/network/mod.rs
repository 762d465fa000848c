//! A network in memory: hosts, links, and sockets that behave as those of Linux.
//!
//! A state machine without a kernel and without a clock: each call is told what time it is (`advance`), and randomness
//! comes from the seed alone, but for the mishaps of packets, if another one decides (`ask_for_mishaps`). Sockets are
//! named by numbers ([`SocketId`]) that are never reused, and calls that would wait say EAGAIN; what has changed since
//! is reported to watchers, as by an edge-triggered epoll.
//!
//! ```text
//!   host "web", 10.0.0.2                     link                      host "db", 10.0.0.3
//!   socket 1   send --> out --> wire  = = latency, loss, cut = =>  input --> recv   socket 2
//!              recv <-- input  <= = = = = = = = = = = = = = = =   wire <-- out <-- send
//!
//!   due:  (time, number) -> event        what arrives when; events of one moment in the order in which they were made
//!   noted: sockets with watchers that are to be told
//! ```
//!
//! States of a stream socket, with what Linux calls them; a direction that ends is not a state but a flag (`shut`,
//! `done`, `Fin`), so that `Open` has six of Linux's:
//!
//! ```text
//!   Closed --listen--> Listening                    a SYN arrives: a new socket, Received (SYN_RECV)
//!     |                                                    | the last packet of the handshake
//!     '--connect--> Connecting (SYN_SENT) -----------> Open (ESTABLISHED, FIN_WAIT_1 and _2, CLOSING, CLOSE_WAIT,
//!                       | refused, timed out             |   LAST_ACK)
//!                       v                                v both directions have ended, or a reset
//!                     Closed <---------------------------'
//! ```
//!
//! What is simpler than in life: acknowledgements take no time and are not lost, a window is known at once at the other
//! end, there is no congestion, and no port stays reserved after the end of its connection.
//!
//! * Invariant network-1: what is reported depends on the calls, their times, the seed and those decisions alone.
//!   Upheld by ordered tables everywhere, and by numbers for sockets that the order of the calls gives.
#![forbid(unsafe_code)]

pub(crate) mod errno;
mod internet;
mod link;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod udp;
mod unix;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use errno::{Errno, Result};
pub(crate) use link::{Conditions, Mishap};
pub(crate) use socket::{Kind, SHUT_READ, SHUT_WRITE, Setting, Way};
use socket::{Socket, State};

use super::random::Random;
use super::slab::{Key, Slab};

/// The number of a host.
pub(crate) type HostId = usize;

/// The number of a socket.
pub(crate) type SocketId = Key;

/// The host of the threads that were given none.
pub(crate) const LOCALHOST: HostId = 0;

/// The first of the ports that are given to sockets that ask for none in particular.
const FIRST_PORT: u16 = 32768;

/// The last of these ports.
const LAST_PORT: u16 = 60999;

/// The bytes of a buffer of a socket, unless the program says otherwise.
const ROOM: usize = 212_992;

/// Readiness, in the bits of poll(2).
pub(crate) mod bits {
    /// A read would not wait.
    pub(crate) const IN: u32 = 1;
    /// A write would not wait.
    pub(crate) const OUT: u32 = 4;
    /// There is an error to report.
    pub(crate) const ERR: u32 = 8;
    /// Both directions have ended.
    pub(crate) const HUP: u32 = 16;
    /// The other side has ended its direction.
    pub(crate) const RDHUP: u32 = 0x2000;
}

/// The name of a Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// A socket that was given no name.
    #[default]
    Unnamed,
    /// A path. No file is there.
    Path(Vec<u8>),
    /// A name without a path.
    Abstract(Vec<u8>),
}

/// What the network knows of one host.
#[derive(Debug)]
struct Host {
    /// The name, under which others find it.
    name: String,
    /// The port that is tried next for a socket that asks for none in particular.
    next_port: u16,
    /// Whether it has crashed: nothing arrives.
    is_down: bool,
    /// The Unix sockets by name; none where the socket is gone and its name is left.
    names: BTreeMap<Name, Option<SocketId>>,
}

/// What happens at a time.
#[derive(Debug)]
enum Event {
    /// The first segment on the way from this socket arrives.
    Wire(SocketId),
    /// A request for a connection arrives.
    Syn(SocketId),
    /// The answer to a request arrives at the first socket; the second is the listener's side.
    SynAck(SocketId, SocketId),
    /// A request was not answered in time; the number of the next attempt.
    SynRetry(SocketId, u32),
    /// The word that there is no such connection, or that no socket listens, arrives.
    Reset(SocketId),
    /// A datagram arrives at its host.
    Datagram(Box<udp::Packet>),
    /// The word that no socket received a datagram to this address arrives at its sender.
    Unreachable(SocketId, SocketAddr),
}

/// An event with its time.
#[derive(Debug)]
struct Due {
    /// The time, in nanoseconds.
    at: u64,
    /// The number of the event, which orders events of one moment.
    number: u64,
    /// What is to be done at that time.
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The table of the ports: host, whether TCP, port.
type Ports = BTreeMap<(HostId, bool, u16), Vec<SocketId>>;

/// What a transfer on a socket would come to now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlook {
    /// How many bytes of a stream, or datagrams, would be moved; none if the call would wait, or say what has ended.
    pub(crate) moves: usize,
    /// Whether the socket carries a stream of bytes.
    pub(crate) is_stream: bool,
    /// Whether the caller would be told if the peer had reset the connection.
    pub(crate) can_be_reset: bool,
}

/// All hosts, what lies between them, and their sockets.
pub(crate) struct Network {
    /// The time, in nanoseconds.
    now: u64,
    /// The numbers by which chance decides.
    random: Random,
    /// What decides in their place what happens to packets.
    decide: Option<fn(Mishap, u64) -> bool>,
    /// The hosts, by number.
    hosts: Vec<Host>,
    /// The numbers of the hosts, by name in lower case.
    by_name: BTreeMap<String, HostId>,
    /// The conditions between two hosts, where they are not the usual ones.
    links: BTreeMap<(HostId, HostId), Conditions>,
    /// The conditions between two hosts.
    usual: Conditions,
    /// The conditions inside of a host.
    inside: Conditions,
    /// Which links are cut.
    cuts: BTreeSet<(HostId, HostId)>,
    /// Until when each direction of a link with a bandwidth is busy.
    busy: BTreeMap<(HostId, HostId), u64>,
    /// The sockets of all hosts.
    sockets: Slab<Socket>,
    /// The sockets with a port of their own.
    ports: Ports,
    /// What is going to happen.
    due: BinaryHeap<Reverse<Due>>,
    /// The number of the next event.
    next_number: u64,
    /// The sockets with watchers that are to be told.
    noted: Vec<SocketId>,
    /// The watchers of sockets that were closed, which are to be told as well.
    gone: Vec<u64>,
    /// The bytes that wait to be sent and to be received at most, of sockets that are made from now on.
    rooms: (usize, usize),
}

impl Network {
    /// Makes a network with one host, at a time in nanoseconds.
    pub(crate) fn new(now: u64, seed: u64) -> Network {
        let mut network = Network {
            now,
            random: Random::new(seed),
            decide: None,
            hosts: Vec::new(),
            by_name: BTreeMap::new(),
            links: BTreeMap::new(),
            usual: Conditions::USUAL,
            inside: Conditions { latency: 0, ..Conditions::USUAL },
            cuts: BTreeSet::new(),
            busy: BTreeMap::new(),
            sockets: Slab::new(),
            ports: BTreeMap::new(),
            due: BinaryHeap::new(),
            next_number: 0,
            noted: Vec::new(),
            gone: Vec::new(),
            rooms: (ROOM, ROOM),
        };
        network.add_host("localhost");
        network
    }

    /// Adds a host, or finds the one with that name.
    pub(crate) fn add_host(&mut self, name: &str) -> HostId {
        if let Some(host) = self.host_named(name) {
            return host;
        }
        let host = Host { name: name.to_owned(), next_port: FIRST_PORT, is_down: false, names: BTreeMap::new() };
        self.hosts.push(host);
        let number = self.hosts.len() - 1;
        self.by_name.insert(name.to_ascii_lowercase(), number);
        number
    }

    /// Returns the host with this name.
    pub(crate) fn host_named(&self, name: &str) -> Option<HostId> {
        self.by_name.get(&name.to_ascii_lowercase()).copied()
    }

    /// Returns the name of a host.
    pub(crate) fn host_name(&self, host: HostId) -> &str {
        self.hosts.get(host).map_or("", |host| &host.name)
    }

    /// Returns the address of a host, in IPv4.
    pub(crate) fn address(&self, host: HostId) -> IpAddr {
        address_v4(host).into()
    }

    /// Returns the addresses of a name, as seen by a host; none if no host has the name.
    pub(crate) fn resolve(&self, name: &str) -> Vec<IpAddr> {
        if name.eq_ignore_ascii_case("localhost") {
            return vec![Ipv4Addr::LOCALHOST.into()];
        }
        self.host_named(name).map(|host| address_v4(host).into()).into_iter().collect()
    }

    /// Sets the bytes that wait to be sent and to be received at most, of sockets that are made from now on.
    pub(crate) fn set_rooms(&mut self, send: usize, receive: usize) {
        self.rooms = (send.max(1), receive.max(1));
    }

    /// Ends a host at once: its sockets are gone, and other hosts are not told.
    pub(crate) fn crash(&mut self, host: HostId) {
        self.hosts[host].is_down = true;
        self.hosts[host].names.clear();
        let all: Vec<SocketId> =
            self.sockets.iter().filter(|(_, socket)| socket.host == host).map(|(id, _)| id).collect();
        for id in all {
            self.remove(id);
        }
    }

    /// Makes a host that has crashed reachable again.
    pub(crate) fn restart(&mut self, host: HostId) {
        self.hosts[host].is_down = false;
    }

    /// Makes a socket with one handle on a host.
    pub(crate) fn socket(&mut self, host: HostId, kind: Kind) -> SocketId {
        self.sockets.insert(Socket::new(host, kind, self.rooms.0, self.rooms.1))
    }

    /// Counts another handle of a socket.
    pub(crate) fn duplicate(&mut self, id: SocketId) -> Result<()> {
        self.get_mut(id)?.handles += 1;
        Ok(())
    }

    /// Closes a handle; with the last one the socket ends.
    pub(crate) fn close(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.handles = socket.handles.saturating_sub(1);
        if socket.handles > 0 {
            return;
        }
        self.gone.append(&mut socket.watchers);
        match socket.kind {
            Kind::Tcp { .. } => self.close_tcp(id),
            Kind::UnixStream => self.close_unix_stream(id),
            Kind::Udp { .. } | Kind::UnixDatagram => self.remove(id),
        }
        self.run_due();
    }

    /// Returns the type of a socket.
    pub(crate) fn kind(&self, id: SocketId) -> Result<Kind> {
        Ok(self.get(id)?.kind)
    }

    /// Returns a small number for a socket, for reports: the same in each run.
    pub(crate) fn number(&self, id: SocketId) -> i32 {
        // The lower half of a token is the number of the slot.
        id.to_token() as u32 as i32
    }

    /// Reports whether a socket listens.
    pub(crate) fn listens(&self, id: SocketId) -> Result<bool> {
        Ok(self.get(id)?.state == State::Listening)
    }

    /// Returns what is known of a socket.
    fn get(&self, id: SocketId) -> Result<&Socket> {
        self.sockets.get(id).ok_or(Errno::EBADF)
    }

    /// Returns a socket, to change it.
    fn get_mut(&mut self, id: SocketId) -> Result<&mut Socket> {
        self.sockets.get_mut(id).ok_or(Errno::EBADF)
    }

    /// Takes the error that a socket has to report.
    pub(crate) fn take_error(&mut self, id: SocketId) -> Result<Option<Errno>> {
        Ok(self.get_mut(id)?.error.take())
    }

    /// Gives a setting of a socket another value.
    pub(crate) fn set(&mut self, id: SocketId, setting: Setting, value: u32) -> Result<()> {
        let socket = self.get_mut(id)?;
        match setting {
            Setting::NoDelay | Setting::QuickAck if !matches!(socket.kind, Kind::Tcp { .. }) => Err(Errno::EOPNOTSUPP),
            _ if !socket.kind.is_internet() => Err(Errno::EOPNOTSUPP),
            Setting::LoopV6 if !socket.kind.is_v6() => Err(Errno::ENOPROTOOPT),
            Setting::Ttl if !(1..=255).contains(&value) => Err(Errno::EINVAL),
            Setting::MulticastTtl if value > 255 => Err(Errno::EINVAL),
            _ => {
                socket.settings.insert(setting, value);
                Ok(())
            }
        }
    }

    /// Returns the value of a setting of a socket.
    pub(crate) fn setting(&self, id: SocketId, setting: Setting) -> Result<u32> {
        let socket = self.get(id)?;
        match setting {
            Setting::NoDelay | Setting::QuickAck if !matches!(socket.kind, Kind::Tcp { .. }) => Err(Errno::EOPNOTSUPP),
            _ if !socket.kind.is_internet() => Err(Errno::EOPNOTSUPP),
            Setting::LoopV6 if !socket.kind.is_v6() => Err(Errno::ENOPROTOOPT),
            _ => Ok(socket.settings.get(&setting).copied().unwrap_or(setting.initial())),
        }
    }

    /// Returns the readiness of a socket, in `bits`; all of them for one that is gone.
    pub(crate) fn readiness(&self, id: SocketId) -> u32 {
        let Some(socket) = self.sockets.get(id) else { return bits::IN | bits::OUT | bits::ERR | bits::HUP };
        match socket.kind {
            Kind::Tcp { .. } => socket.tcp_readiness(),
            Kind::Udp { .. } => socket.udp_readiness(),
            Kind::UnixStream | Kind::UnixDatagram => self.unix_readiness(socket),
        }
    }

    /// Returns what a call that moves at most `len` bytes would come to now.
    pub(crate) fn outlook(&self, id: SocketId, way: Way, len: usize) -> Option<Outlook> {
        let socket = self.sockets.get(id)?;
        let is_open = socket.state == State::Open && socket.error.is_none();
        let moves = match (socket.kind, way) {
            (Kind::Tcp { .. }, Way::Send) if is_open && socket.shut & SHUT_WRITE == 0 => len.min(socket.free_to_send()),
            (Kind::UnixStream, Way::Send) if is_open && socket.shut & SHUT_WRITE == 0 => {
                let other = socket.other.and_then(|other| self.sockets.get(other));
                other.map_or(0, |other| len.min(other.free_to_receive()))
            }
            (Kind::Tcp { .. } | Kind::UnixStream, Way::Send) => 0,
            (Kind::Tcp { .. } | Kind::UnixStream, Way::Receive) => len.min(socket.input.len()),
            (Kind::Udp { .. } | Kind::UnixDatagram, Way::Send) => 1,
            (Kind::Udp { .. } | Kind::UnixDatagram, Way::Receive) => usize::from(!socket.datagrams.is_empty()),
        };
        // A reader that knows of the end is not told of a reset.
        let can_be_reset = matches!(socket.kind, Kind::Tcp { .. }) && is_open && (way == Way::Send || !socket.done);
        Some(Outlook { moves, is_stream: socket.kind.is_stream(), can_be_reset })
    }

    /// Tells `token` from now on when the readiness of a socket may have changed, and once for what it is now.
    pub(crate) fn watch(&mut self, id: SocketId, token: u64) -> Result<()> {
        let socket = self.get_mut(id)?;
        if !socket.watchers.contains(&token) {
            socket.watchers.push(token);
        }
        self.note(id);
        Ok(())
    }

    /// Ends what `watch` began.
    pub(crate) fn unwatch(&mut self, id: SocketId, token: u64) {
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.watchers.retain(|&watcher| watcher != token);
        }
    }

    /// Notes that the readiness of a socket may have changed.
    pub(crate) fn note(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(id)
            && !socket.is_noted
            && !socket.watchers.is_empty()
        {
            socket.is_noted = true;
            self.noted.push(id);
        }
    }

    /// Takes what watchers are to be told: token and readiness, in the order of the changes.
    pub(crate) fn take_changes(&mut self) -> Vec<(u64, u32)> {
        let all = bits::IN | bits::OUT | bits::ERR | bits::HUP;
        let mut changes: Vec<_> = self.gone.drain(..).map(|token| (token, all)).collect();
        for id in std::mem::take(&mut self.noted) {
            let ready = self.readiness(id);
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.is_noted = false;
                if ready != 0 {
                    changes.extend(socket.watchers.iter().map(|&token| (token, ready)));
                }
            }
        }
        changes
    }

    /// Reports whether a watcher is to be told of something.
    pub(crate) fn has_changes(&self) -> bool {
        !self.noted.is_empty() || !self.gone.is_empty()
    }

    /// Returns the time of the next event, in nanoseconds.
    pub(crate) fn next_event(&mut self) -> Option<u64> {
        while let Some(Reverse(next)) = self.due.peek() {
            // A retry that is not needed must not make time pass.
            let is_stale = match next.event {
                Event::SynRetry(id, _) => self.sockets.get(id).is_none_or(|socket| socket.state != State::Connecting),
                Event::Wire(id) => match self.sockets.get_mut(id) {
                    Some(socket) if socket.flow.wire.is_empty() => {
                        socket.flow.is_armed = false;
                        true
                    }
                    socket => socket.is_none(),
                },
                _ => false,
            };
            if !is_stale {
                return Some(next.at);
            }
            self.due.pop();
        }
        None
    }

    /// Moves the time on, and does what is due by then.
    pub(crate) fn advance(&mut self, now: u64) {
        // What an event leads to counts from its own time.
        while let Some(at) = self.due.peek().map(|Reverse(next)| next.at).filter(|&at| at <= now) {
            self.now = self.now.max(at);
            self.run_due();
        }
        self.now = self.now.max(now);
    }

    /// Makes an event happen at a time.
    fn at(&mut self, at: u64, event: Event) {
        let number = self.next_number;
        self.next_number += 1;
        self.due.push(Reverse(Due { at, number, event }));
    }

    /// Does what is due.
    fn run_due(&mut self) {
        while self.due.peek().is_some_and(|Reverse(next)| next.at <= self.now) {
            let Some(Reverse(due)) = self.due.pop() else { return };
            match due.event {
                Event::Wire(id) => self.wire_arrives(id),
                Event::Syn(from) => self.syn_arrives(from),
                Event::SynAck(to, child) => self.syn_ack_arrives(to, child),
                Event::SynRetry(id, attempt) => self.syn_retry(id, attempt),
                Event::Reset(to) => self.reset(to),
                Event::Datagram(packet) => self.datagram_arrives(*packet),
                Event::Unreachable(id, to) => self.unreachable(id, to),
            }
        }
    }

    /// Takes a socket out of all tables.
    fn remove(&mut self, id: SocketId) {
        self.unbind(id);
        if let Some(socket) = self.sockets.remove(id)
            && let Some(name) = self.hosts[socket.host].names.get_mut(&socket.name)
            && *name == Some(id)
        {
            // The name stays, as a file does; the next `bind` takes it.
            *name = None;
        }
    }

    /// Takes a socket out of the table of the ports.
    fn unbind(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let Some(local) = socket.local.filter(|_| std::mem::take(&mut socket.is_bound)) else { return };
        let key = (socket.host, socket.kind.is_stream(), local.port());
        if let Some(list) = self.ports.get_mut(&key) {
            list.retain(|&other| other != id);
            if list.is_empty() {
                self.ports.remove(&key);
            }
        }
    }
}

/// Returns the address of a host in IPv4: 10.0.0.1 and so on.
fn address_v4(host: HostId) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0001 + host as u32)
}

/// Returns the address of a host in IPv6: fd00::1 and so on.
fn address_v6(host: HostId) -> Ipv6Addr {
    Ipv6Addr::from_bits((0xfd00 << 112) + 1 + host as u128)
}

/// Returns the address without the wrapping that IPv6 puts around one of IPv4.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
