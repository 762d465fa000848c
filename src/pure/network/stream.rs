//! TCP: connect, accept, send, receive, end; and what arrives meanwhile.
//!
//! The order in which a call looks at data, errors and ends is that of Linux: its functions tcp_recvmsg, tcp_sendmsg,
//! tcp_reset, tcp_close and inet_shutdown.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::errno::{Errno, Result};
use super::internet::seen_by;
use super::link::retry_after;
use super::socket::{Fin, Segment, Socket, State};
use super::{Event, Kind, Network, SHUT_READ, SHUT_WRITE, SocketId, plain};

/// How often a connection is asked for again (tcp_syn_retries of Linux): 127 seconds in all.
const SYN_RETRIES: u32 = 6;

/// The pause before the connection is asked for again, in nanoseconds; then twice as long, and so on.
const SYN_PAUSE: u64 = 1_000_000_000;

/// How often a segment is sent again (tcp_retries2 of Linux, and the last wait): about 15 minutes in all.
const RETRIES: u32 = 16;

/// The bytes of the longest segment.
const SEGMENT: usize = 64 * 1024;

impl Network {
    /// Asks for a connection. Returns whether it is there already; if not, the socket becomes writable when it is, or
    /// has failed. For a socket for datagrams: sets the receiver.
    pub(crate) fn connect(&mut self, id: SocketId, to: SocketAddr) -> Result<bool> {
        let socket = self.get_mut(id)?;
        if let Kind::Udp { .. } = socket.kind {
            return self.connect_udp(id, to).map(|()| true);
        }
        match socket.state {
            State::Connecting => return Err(Errno::EALREADY),
            State::Listening | State::Open | State::Received => return Err(Errno::EISCONN),
            State::Closed => {}
        }
        if to.is_ipv6() && !socket.kind.is_v6() {
            return Err(Errno::EAFNOSUPPORT);
        }
        let to = Network::target(to);
        let host = socket.host;
        let there = if to.ip().is_multicast() { None } else { self.host_at(host, to.ip()) };
        let Some(there) = there else { return Err(Errno::ENETUNREACH) };
        self.bind_towards(id, to)?;
        let budget = self.conditions(host, there).reset_after;
        let socket = self.get_mut(id)?;
        socket.remote = Some(seen_by(socket.kind, to));
        socket.state = State::Connecting;
        socket.shut = 0;
        socket.error = None;
        socket.done = false;
        socket.other = None;
        socket.flow.fin = Fin::Open;
        socket.flow.attempts = 0;
        socket.flow.budget = budget;
        self.syn_retry(id, 0);
        self.run_due();
        let socket = self.get_mut(id)?;
        match socket.error.take() {
            Some(error) => Err(error),
            None => Ok(socket.state == State::Open),
        }
    }

    /// Asks for a connection for the `attempt`th time, from 0 on, or gives up.
    pub(super) fn syn_retry(&mut self, id: SocketId, attempt: u32) {
        let Some(socket) = self.sockets.get(id).filter(|socket| socket.state == State::Connecting) else { return };
        let (host, Some(to)) = (socket.host, socket.remote) else { return };
        if attempt > SYN_RETRIES {
            return self.fail(id, Errno::ETIMEDOUT);
        }
        let Some(there) = self.host_at(host, plain(to).ip()) else { return };
        if self.is_reachable(host, there) && self.delay_by_loss(host, there) == 0 {
            let at = self.arrival(host, there, 0);
            self.at(at, Event::Syn(id));
        }
        self.at(self.now + (SYN_PAUSE << attempt), Event::SynRetry(id, attempt + 1));
    }

    /// Does what a request for a connection leads to where it arrives.
    pub(super) fn syn_arrives(&mut self, from: SocketId) {
        let Some(client) = self.sockets.get(from).filter(|client| client.state == State::Connecting) else { return };
        let (home, Some(local), Some(remote)) = (client.host, client.local, client.remote) else { return };
        let (local, remote, child) = (plain(local), plain(remote), client.other);
        let Some(host) = self.host_at(home, remote.ip()).filter(|&host| self.is_reachable(home, host)) else { return };
        let back = self.arrival(host, home, 0);
        if let Some(child) = child.filter(|&child| self.sockets.get(child).is_some()) {
            // The answer was lost.
            return self.at(back, Event::SynAck(from, child));
        }
        let Some(listener) = self.listener_at(host, remote) else { return self.at(back, Event::Reset(from)) };
        let Some(listening) = self.sockets.get(listener) else { return };
        if listening.queue.len() > listening.backlog {
            return;
        }
        let kind = listening.kind;
        let mut socket = Socket::new(host, kind, listening.send_room, listening.receive_room);
        socket.settings = listening.settings.clone();
        socket.handles = 0;
        socket.state = State::Received;
        socket.local = Some(seen_by(kind, remote));
        socket.remote = Some(seen_by(kind, local));
        socket.listener = Some(listener);
        socket.other = Some(from);
        let child = self.sockets.insert(socket);
        if let Some(client) = self.sockets.get_mut(from) {
            client.other = Some(child);
        }
        self.at(back, Event::SynAck(from, child));
    }

    /// Returns the listener for an address; of several that share it, one by chance.
    fn listener_at(&mut self, host: usize, to: SocketAddr) -> Option<SocketId> {
        let listening = |socket: &Socket| socket.state == State::Listening;
        let all: Vec<SocketId> = self
            .bound_at(host, true, to)
            .into_iter()
            .filter(|&id| self.sockets.get(id).is_some_and(listening))
            .collect();
        let address = |id: SocketId| self.sockets.get(id).and_then(|socket| socket.local);
        let first = address(*all.first()?);
        let best: Vec<SocketId> = all.into_iter().filter(|&id| address(id) == first).collect();
        match best.len() {
            1 => best.first().copied(),
            count => best.get(self.random.below(count as u64) as usize).copied(),
        }
    }

    /// Does what the answer to a request for a connection leads to.
    pub(super) fn syn_ack_arrives(&mut self, to: SocketId, child: SocketId) {
        match self.sockets.get_mut(to) {
            Some(client) if client.state == State::Connecting => client.state = State::Open,
            Some(client) if client.state == State::Open => return,
            // The program has given up.
            _ => return self.reset(child),
        }
        self.note(to);
        self.put_on_wire(to, Segment::Ack);
        self.transmit(to);
    }

    /// Puts a connection, when its handshake is over, into the queue of its listener.
    fn establish(&mut self, child: SocketId) {
        let Some(socket) = self.sockets.get_mut(child) else { return };
        socket.state = State::Open;
        let listener = socket.listener.take();
        match listener.and_then(|listener| self.sockets.get_mut(listener)) {
            Some(listening) if listening.state == State::Listening => {
                listening.queue.push_back(child);
                if let Some(listener) = listener {
                    self.note(listener);
                }
            }
            _ => self.abort(child),
        }
    }

    /// Makes a bound socket listen; up to one more than `backlog` connections may wait.
    pub(crate) fn listen(&mut self, id: SocketId, backlog: usize) -> Result<()> {
        let socket = self.get(id)?;
        match socket.kind {
            Kind::Tcp { .. } => {}
            Kind::UnixStream if socket.is_bound => {}
            Kind::UnixStream => return Err(Errno::EINVAL),
            Kind::Udp { .. } | Kind::UnixDatagram => return Err(Errno::EOPNOTSUPP),
        }
        if !matches!(socket.state, State::Closed | State::Listening) || socket.shut != 0 {
            return Err(Errno::EINVAL);
        }
        if !socket.is_bound {
            self.bind_any(id)?;
        }
        let socket = self.get_mut(id)?;
        socket.state = State::Listening;
        socket.backlog = backlog;
        Ok(())
    }

    /// Takes a connection that waits at a listener.
    pub(crate) fn accept(&mut self, id: SocketId) -> Result<SocketId> {
        let socket = self.get_mut(id)?;
        if !socket.kind.is_stream() {
            return Err(Errno::EOPNOTSUPP);
        }
        if socket.state != State::Listening {
            return Err(Errno::EINVAL);
        }
        let accepted = socket.queue.pop_front().ok_or(Errno::EAGAIN)?;
        self.get_mut(accepted)?.handles = 1;
        Ok(accepted)
    }

    /// Reads what has arrived. 0 is the end, or an empty `buf`; with `peek` the bytes stay.
    pub(crate) fn recv(&mut self, id: SocketId, buf: &mut [u8], peek: bool) -> Result<usize> {
        let socket = self.get_mut(id)?;
        match socket.kind {
            Kind::Tcp { .. } => {}
            Kind::UnixStream => return self.recv_unix_stream(id, buf, peek),
            Kind::Udp { .. } => return self.recv_from(id, buf, peek).map(|(count, _)| count),
            Kind::UnixDatagram => return self.recv_unix_datagram(id, buf, peek).map(|(count, _)| count),
        }
        if socket.state == State::Listening {
            return Err(Errno::ENOTCONN);
        }
        if socket.input.is_empty() {
            return match socket.error {
                _ if socket.done => Ok(0),
                Some(error) => {
                    socket.error = None;
                    Err(error)
                }
                None if socket.shut & SHUT_READ != 0 => Ok(0),
                None if socket.state == State::Closed => Err(Errno::ENOTCONN),
                None => Err(Errno::EAGAIN),
            };
        }
        let count = socket.take_input(buf, peek);
        if let Some(other) = socket.other.filter(|_| !peek && count > 0) {
            // There is room again.
            self.transmit(other);
            self.run_due();
        }
        Ok(count)
    }

    /// Hands in bytes to be sent, and returns how many of them there was room for.
    pub(crate) fn send(&mut self, id: SocketId, buf: &[u8]) -> Result<usize> {
        let socket = self.get_mut(id)?;
        match socket.kind {
            Kind::Tcp { .. } => {}
            Kind::UnixStream => return self.send_unix_stream(id, buf),
            Kind::Udp { .. } => return self.send_udp(id, buf, None),
            Kind::UnixDatagram => return self.send_unix_datagram(id, buf, None),
        }
        if matches!(socket.state, State::Closed | State::Listening) || socket.shut & SHUT_WRITE != 0 {
            return Err(socket.error.take().unwrap_or(Errno::EPIPE));
        }
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.state == State::Connecting {
            return Err(Errno::EAGAIN);
        }
        let count = buf.len().min(socket.free_to_send());
        if count == 0 && !buf.is_empty() {
            return Err(Errno::EAGAIN);
        }
        socket.flow.out.extend(&buf[..count]);
        self.transmit(id);
        self.run_due();
        Ok(count)
    }

    /// Sends what there is room for at the other end, and the end of the direction after the last byte.
    fn transmit(&mut self, id: SocketId) {
        loop {
            let Some(socket) = self.sockets.get(id) else { return };
            if socket.state != State::Open || socket.flow.out.is_empty() {
                break;
            }
            // A socket that is gone answers with a reset.
            let other = socket.other.and_then(|other| self.sockets.get(other));
            let room = other.map_or(SEGMENT, |other| other.free_to_receive().saturating_sub(socket.flow.flight));
            let count = room.min(SEGMENT).min(socket.flow.out.len());
            if count == 0 {
                return;
            }
            let Some(socket) = self.sockets.get_mut(id) else { return };
            let bytes: Vec<u8> = socket.flow.out.drain(..count).collect();
            socket.flow.flight += count;
            self.put_on_wire(id, Segment::Data(bytes));
        }
        if let Some(socket) = self.sockets.get_mut(id)
            && socket.state == State::Open
            && socket.flow.fin == Fin::Queued
        {
            socket.flow.fin = Fin::Sent;
            self.put_on_wire(id, Segment::Fin);
        }
    }

    /// Sends a segment behind those that are under way.
    fn put_on_wire(&mut self, id: SocketId, segment: Segment) {
        let Some(socket) = self.sockets.get(id) else { return };
        let (from, Some(remote)) = (socket.host, socket.remote) else { return };
        let Some(to) = self.host_at(from, plain(remote).ip()) else { return };
        let size = if let Segment::Data(bytes) = &segment { bytes.len() } else { 0 };
        let at = self.arrival(from, to, size).saturating_add(self.delay_by_loss(from, to));
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let at = socket.flow.wire.back().map_or(at, |&(last, _)| at.max(last));
        socket.flow.wire.push_back((at, segment));
        self.arm(id);
    }

    /// Makes the arrival of the first segment on the way an event.
    fn arm(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(id)
            && let Some(&(at, _)) = socket.flow.wire.front()
            && !socket.flow.is_armed
        {
            socket.flow.is_armed = true;
            self.at(at, Event::Wire(id));
        }
    }

    /// Does what the first segment on the way from `id` leads to, if it arrives.
    pub(super) fn wire_arrives(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.flow.is_armed = false;
        let (from, Some(remote)) = (socket.host, socket.remote) else { return };
        let is_there = self.host_at(from, plain(remote).ip()).is_some_and(|to| self.is_reachable(from, to));
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let Some((at, _)) = socket.flow.wire.front_mut() else { return };
        if *at > self.now {
            return self.arm(id);
        }
        if !is_there {
            socket.flow.attempts += 1;
            if socket.flow.attempts > RETRIES {
                return self.fail(id, Errno::ETIMEDOUT);
            }
            *at = self.now.saturating_add(retry_after(socket.flow.attempts));
            return self.arm(id);
        }
        socket.flow.attempts = 0;
        let Some((_, segment)) = socket.flow.wire.pop_front() else { return };
        match segment {
            Segment::Ack => {}
            Segment::Data(bytes) => {
                socket.flow.flight -= bytes.len();
                let has_room = socket.is_writable();
                self.data_arrives(id, bytes);
                if has_room {
                    self.note(id);
                }
            }
            Segment::Fin => self.fin_arrives(id),
            Segment::Reset => {
                if let Some(other) = socket.other {
                    self.reset(other);
                }
                self.remove(id);
            }
        }
        // Whatever comes first ends the handshake.
        if let Some(other) = self.sockets.get(id).and_then(|socket| socket.other)
            && self.sockets.get(other).is_some_and(|other| other.state == State::Received)
        {
            self.establish(other);
        }
        self.arm(id);
    }

    /// Hands bytes from `id` to the other end, or resets the connection.
    fn data_arrives(&mut self, id: SocketId, mut bytes: Vec<u8>) {
        let Some(other) = self.sockets.get(id).and_then(|socket| socket.other) else { return };
        let is_over = self.spend_budget(id, other, &mut bytes);
        let Some(receiver) = self.sockets.get_mut(other) else { return self.answer_reset(id) };
        let is_deaf = receiver.shut & SHUT_READ != 0 && receiver.flow.fin != Fin::Open;
        if receiver.state == State::Closed {
            return self.answer_reset(id);
        }
        if is_deaf {
            // The program can never read this.
            self.reset(other);
            return self.answer_reset(id);
        }
        receiver.input.extend(bytes);
        self.note(other);
        if is_over {
            self.reset(id);
            self.reset(other);
        }
    }

    /// Counts bytes of a connection that is to be reset after some; shortens `bytes` to those that still arrive.
    fn spend_budget(&mut self, id: SocketId, other: SocketId, bytes: &mut Vec<u8>) -> bool {
        for end in [id, other] {
            if let Some(left) = self.sockets.get_mut(end).and_then(|socket| socket.flow.budget.as_mut()) {
                let is_over = *left <= bytes.len() as u64;
                if is_over {
                    bytes.truncate(*left as usize);
                }
                *left -= bytes.len() as u64;
                return is_over;
            }
        }
        false
    }

    /// Answers to `id` that there is no such connection.
    fn answer_reset(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        let (to, Some(remote)) = (socket.host, socket.remote) else { return };
        let Some(from) = self.host_at(to, plain(remote).ip()) else { return };
        let at = self.arrival(from, to, 0);
        self.at(at, Event::Reset(id));
    }

    /// Ends the direction from `id` at the other end.
    fn fin_arrives(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.flow.fin = Fin::Known;
        let other = socket.other;
        if let Some(other) = other
            && let Some(receiver) = self.sockets.get_mut(other)
            && receiver.state != State::Closed
        {
            receiver.done = true;
            receiver.shut |= SHUT_READ;
            self.note(other);
            if self.sockets.get(other).is_some_and(|receiver| receiver.state == State::Received) {
                self.establish(other);
            }
            self.end_if_over(other);
        }
        self.end_if_over(id);
    }

    /// Ends a connection of which both directions have ended, or the handle is closed and the peer knows.
    fn end_if_over(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.flow.fin != Fin::Known {
            return;
        }
        if socket.is_orphan {
            self.remove(id);
        } else if socket.done {
            socket.state = State::Closed;
            socket.shut = SHUT_READ | SHUT_WRITE;
            self.unbind(id);
            self.note(id);
        }
    }

    /// Does what a reset leads to where it arrives.
    pub(super) fn reset(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        let error = match socket.state {
            State::Closed | State::Listening => return,
            State::Connecting => Errno::ECONNREFUSED,
            // The peer has ended its direction, and this side has not.
            State::Open if socket.done && socket.flow.fin == Fin::Open => Errno::EPIPE,
            State::Open | State::Received => Errno::ECONNRESET,
        };
        self.fail(id, error);
    }

    /// Resets a connection at both ends at once.
    pub(crate) fn break_off(&mut self, id: SocketId) {
        if let Some(other) = self.sockets.get(id).and_then(|socket| socket.other) {
            self.reset(other);
        }
        self.reset(id);
    }

    /// Returns whether a connection waits at a listener.
    pub(crate) fn has_waiting(&self, id: SocketId) -> bool {
        self.sockets.get(id).is_some_and(|socket| !socket.queue.is_empty())
    }

    /// Ends a connection with an error. What has arrived can still be read.
    fn fail(&mut self, id: SocketId, error: Errno) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        // No program will ever ask for the error of a socket that it has closed, or that no listener has yet.
        if socket.is_orphan || socket.listener.is_some() {
            return self.remove(id);
        }
        socket.error = Some(error);
        socket.state = State::Closed;
        socket.shut = SHUT_READ | SHUT_WRITE;
        socket.flow.out.clear();
        socket.flow.wire.clear();
        socket.flow.flight = 0;
        self.unbind(id);
        self.note(id);
    }

    /// Ends one direction, or both.
    pub(crate) fn shutdown(&mut self, id: SocketId, how: u8) -> Result<()> {
        let socket = self.get_mut(id)?;
        match socket.kind {
            Kind::Tcp { .. } => {}
            Kind::UnixStream | Kind::UnixDatagram => return self.shutdown_unix(id, how),
            Kind::Udp { .. } if socket.remote.is_some() => {
                socket.shut |= how;
                return Ok(());
            }
            Kind::Udp { .. } => return Err(Errno::ENOTCONN),
        }
        match socket.state {
            State::Closed => {
                socket.shut |= how;
                self.note(id);
                return Err(Errno::ENOTCONN);
            }
            State::Listening if how & SHUT_READ == 0 => {}
            State::Listening => self.stop_listening(id),
            State::Connecting => {
                socket.state = State::Closed;
                self.unbind(id);
            }
            State::Open | State::Received => {
                socket.shut |= how;
                if how & SHUT_WRITE != 0 && socket.flow.fin == Fin::Open {
                    socket.flow.fin = Fin::Queued;
                    self.transmit(id);
                }
            }
        }
        self.note(id);
        self.run_due();
        Ok(())
    }

    /// Resets the connections that wait at a listener, and takes no more.
    fn stop_listening(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.state = State::Closed;
        let queue = std::mem::take(&mut socket.queue);
        self.unbind(id);
        for child in queue {
            self.abort(child);
        }
    }

    /// Ends a connection by a reset, which comes behind what is under way.
    fn abort(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if !matches!(socket.state, State::Open | State::Received) {
            return self.remove(id);
        }
        socket.state = State::Closed;
        socket.is_orphan = true;
        socket.flow.out.clear();
        socket.input.clear();
        self.unbind(id);
        self.put_on_wire(id, Segment::Reset);
    }

    /// Ends a TCP socket without a handle. It lives on until what it has to send has arrived.
    pub(super) fn close_tcp(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        match socket.state {
            State::Listening => {
                self.stop_listening(id);
                self.remove(id);
            }
            State::Closed | State::Connecting => self.remove(id),
            // What was not read is lost, and the peer is told.
            _ if !socket.input.is_empty() => self.abort(id),
            State::Open | State::Received => {
                socket.shut = SHUT_READ | SHUT_WRITE;
                socket.is_orphan = true;
                if socket.flow.fin == Fin::Open {
                    socket.flow.fin = Fin::Queued;
                    self.transmit(id);
                }
                self.end_if_over(id);
            }
        }
    }
}
