//! One simulated socket: what it is bound to, what it has received, what it is about to send, and its readiness.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::errno::Errno;
use super::{HostId, Name, SocketId, bits};

/// The type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP over IPv4, or with `v6` over IPv6.
    Tcp {
        /// Whether the socket is of IPv6.
        v6: bool,
    },
    /// UDP over IPv4, or with `v6` over IPv6.
    Udp {
        /// Whether the socket is of IPv6.
        v6: bool,
    },
    /// A stream of Unix sockets.
    UnixStream,
    /// A Unix socket for datagrams.
    UnixDatagram,
}

impl Kind {
    /// Reports whether the socket is of the internet's families.
    pub(super) fn is_internet(self) -> bool {
        matches!(self, Kind::Tcp { .. } | Kind::Udp { .. })
    }

    /// Reports whether the socket is of IPv6.
    pub(super) fn is_v6(self) -> bool {
        matches!(self, Kind::Tcp { v6: true } | Kind::Udp { v6: true })
    }

    /// Reports whether the socket carries a stream of bytes.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Kind::Tcp { .. } | Kind::UnixStream)
    }
}

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// What was received goes to the program.
    Receive,
    /// What the program has goes out.
    Send,
}

/// The state of a socket. Datagram sockets stay `Closed`, as the kernel's do until they are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected, or not any more.
    Closed,
    /// Takes requests for connections.
    Listening,
    /// Has asked for a connection.
    Connecting,
    /// A connection at the listener's side of which the last packet of the handshake has not come.
    Received,
    /// Connected. Which directions have ended is in `shut`, `fin` and `done`.
    Open,
}

/// How far the end of the outgoing direction of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    /// The direction is open.
    Open,
    /// The program has ended it; bytes are still to be sent.
    Queued,
    /// The last packet is under way.
    Sent,
    /// The last packet has arrived.
    Known,
}

/// What is under way from one end of a stream to the other.
#[derive(Debug)]
pub(super) enum Segment {
    /// The last packet of a handshake.
    Ack,
    /// Bytes of the stream.
    Data(Vec<u8>),
    /// The end of the direction.
    Fin,
    /// The end of the connection.
    Reset,
}

/// The outgoing direction of a TCP connection.
///
/// ```text
///   send --> out ----------> wire ----------> input of the other end
///            (no room there)  (travels, in order)
/// ```
#[derive(Debug)]
pub(super) struct Flow {
    /// Bytes that wait for room at the other end.
    pub(super) out: VecDeque<u8>,
    /// What is under way, with the times of arrival, in order.
    pub(super) wire: VecDeque<(u64, Segment)>,
    /// The bytes in `wire`.
    pub(super) flight: usize,
    /// Whether the arrival of the first segment is an event already.
    pub(super) is_armed: bool,
    /// How often in a row the first segment did not arrive.
    pub(super) attempts: u32,
    /// The end of the direction.
    pub(super) fin: Fin,
    /// The bytes left before the connection is reset on purpose; kept at the end that connected.
    pub(super) budget: Option<u64>,
}

/// A datagram that waits to be received.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    /// The sender, in the internet's families.
    pub(super) from: Option<SocketAddr>,
    /// The sender, of Unix sockets.
    pub(super) name: Name,
    /// The bytes that were sent.
    pub(super) bytes: Vec<u8>,
}

/// A number that the program sets and reads, and on which little depends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setting {
    /// Whether small writes are sent at once (`TCP_NODELAY`), as they always are here.
    NoDelay,
    /// Whether what arrives is acknowledged at once (`TCP_QUICKACK`).
    QuickAck,
    /// The hops that a packet may take (`IP_TTL`).
    Ttl,
    /// Whether it may send to all hosts (`SO_BROADCAST`).
    Broadcast,
    /// Whether its own host gets what it sends to a group (`IP_MULTICAST_LOOP`).
    LoopV4,
    /// The hops that a datagram to a group may take (`IP_MULTICAST_TTL`).
    MulticastTtl,
    /// The same as `LoopV4`, over IPv6 (`IPV6_MULTICAST_LOOP`).
    LoopV6,
}

impl Setting {
    /// Returns the number of a socket that was never told another.
    pub(super) fn initial(self) -> u32 {
        match self {
            Setting::NoDelay | Setting::Broadcast => 0,
            Setting::QuickAck | Setting::LoopV4 | Setting::LoopV6 | Setting::MulticastTtl => 1,
            Setting::Ttl => 64,
        }
    }
}

/// One direction has ended: what arrives is not read any more, or nothing arrives.
pub(crate) const SHUT_READ: u8 = 1;
/// The other direction has ended: nothing is sent any more.
pub(crate) const SHUT_WRITE: u8 = 2;

/// What the network knows of one socket.
#[derive(Debug)]
pub(super) struct Socket {
    /// The host that it was made on.
    pub(super) host: HostId,
    /// What it carries, and over what.
    pub(super) kind: Kind,
    /// The number of handles of the program; none before `accept`, and none for an orphan.
    pub(super) handles: u32,
    /// Whether the program has closed it, and it lives on to send what is left.
    pub(super) is_orphan: bool,
    /// Whether it listens, connects or is connected.
    pub(super) state: State,
    /// Its own address, once it has one.
    pub(super) local: Option<SocketAddr>,
    /// The address of the other side.
    pub(super) remote: Option<SocketAddr>,
    /// Its own name, of a Unix socket.
    pub(super) name: Name,
    /// The name of the other side, of a Unix socket.
    pub(super) remote_name: Name,
    /// Whether it is in the table of ports or of names.
    pub(super) is_bound: bool,
    /// Whether several listeners may share the address.
    pub(super) reuse_port: bool,
    /// The other end of a connection, or the receiver of a connected Unix datagram socket.
    pub(super) other: Option<SocketId>,
    /// The listener that a connection came from, until the handshake is over.
    pub(super) listener: Option<SocketId>,
    /// Connections that wait for `accept`.
    pub(super) queue: VecDeque<SocketId>,
    /// How many connections may wait.
    pub(super) backlog: usize,
    /// Which directions have ended.
    pub(super) shut: u8,
    /// Whether the other side has ended its direction.
    pub(super) done: bool,
    /// The error that the next call reports.
    pub(super) error: Option<Errno>,
    /// Bytes that were received.
    pub(super) input: VecDeque<u8>,
    /// The outgoing direction of a TCP connection.
    pub(super) flow: Flow,
    /// Datagrams that were received.
    pub(super) datagrams: VecDeque<Datagram>,
    /// The bytes that the datagrams take.
    pub(super) datagram_bytes: usize,
    /// How many bytes may wait to be sent.
    pub(super) send_room: usize,
    /// How many bytes may wait to be received.
    pub(super) receive_room: usize,
    /// Settings other than the initial ones.
    pub(super) settings: BTreeMap<Setting, u32>,
    /// The multicast groups that it has joined.
    pub(super) groups: Vec<IpAddr>,
    /// What is told when the readiness may have changed.
    pub(super) watchers: Vec<u64>,
    /// Whether it is in the list of those with watchers that are to be told.
    pub(super) is_noted: bool,
}

impl Socket {
    /// Makes a socket with one handle.
    pub(super) fn new(host: HostId, kind: Kind, send_room: usize, receive_room: usize) -> Socket {
        Socket {
            host,
            kind,
            handles: 1,
            is_orphan: false,
            state: State::Closed,
            local: None,
            remote: None,
            name: Name::Unnamed,
            remote_name: Name::Unnamed,
            is_bound: false,
            reuse_port: false,
            other: None,
            listener: None,
            queue: VecDeque::new(),
            backlog: 0,
            shut: 0,
            done: false,
            error: None,
            input: VecDeque::new(),
            flow: Flow {
                out: VecDeque::new(),
                wire: VecDeque::new(),
                flight: 0,
                is_armed: false,
                attempts: 0,
                fin: Fin::Open,
                budget: None,
            },
            datagrams: VecDeque::new(),
            datagram_bytes: 0,
            send_room,
            receive_room,
            settings: BTreeMap::new(),
            groups: Vec::new(),
            watchers: Vec::new(),
            is_noted: false,
        }
    }

    /// Returns how many bytes may still be handed in to be sent.
    pub(super) fn free_to_send(&self) -> usize {
        self.send_room.saturating_sub(self.flow.out.len() + self.flow.flight)
    }

    /// Returns how many bytes may still be received.
    pub(super) fn free_to_receive(&self) -> usize {
        self.receive_room.saturating_sub(self.input.len())
    }

    /// Reports whether a poll says that more may be sent: Linux waits until a third of the buffer is free.
    pub(super) fn is_writable(&self) -> bool {
        let free = self.free_to_send();
        free > 0 && free >= self.send_room / 3
    }

    /// Returns the readiness of a TCP socket, as poll(2) has it.
    pub(super) fn tcp_readiness(&self) -> u32 {
        if self.state == State::Listening {
            return if self.queue.is_empty() { 0 } else { bits::IN };
        }
        let mut ready = 0;
        if self.shut == SHUT_READ | SHUT_WRITE || self.state == State::Closed {
            ready |= bits::HUP;
        }
        if self.shut & SHUT_READ != 0 {
            ready |= bits::IN | bits::RDHUP;
        }
        if self.state != State::Connecting {
            if !self.input.is_empty() {
                ready |= bits::IN;
            }
            if self.shut & SHUT_WRITE != 0 || self.is_writable() {
                ready |= bits::OUT;
            }
        }
        if self.error.is_some() {
            ready |= bits::ERR;
        }
        ready
    }

    /// Returns the readiness of a socket for datagrams of the internet's families: they can always be sent.
    pub(super) fn udp_readiness(&self) -> u32 {
        let mut ready = bits::OUT;
        if !self.datagrams.is_empty() {
            ready |= bits::IN;
        }
        if self.error.is_some() {
            ready |= bits::ERR;
        }
        ready
    }

    /// Takes bytes that were received into `buf`; with `peek` they stay.
    pub(super) fn take_input(&mut self, buf: &mut [u8], peek: bool) -> usize {
        let count = buf.len().min(self.input.len());
        let (front, back) = self.input.as_slices();
        let first = count.min(front.len());
        buf[..first].copy_from_slice(&front[..first]);
        buf[first..count].copy_from_slice(&back[..count - first]);
        if !peek {
            self.input.drain(..count);
        }
        count
    }
}
