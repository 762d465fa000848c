//! Unix sockets: streams and datagrams inside of one host, which arrive at once and are never lost.
//!
//! Each host has names of its own. No file is made for a path. A name is left when its socket is gone, as a file is:
//! connections to it are refused; but `bind` takes it, as if the program had removed the file before.
#![forbid(unsafe_code)]

use super::errno::{Errno, Result};
use super::socket::{Datagram, Socket, State};
use super::{Kind, Name, Network, SHUT_READ, SHUT_WRITE, SocketId, bits};

/// The datagrams that may wait at a socket (net.unix.max_dgram_qlen of Linux, and one more).
const MOST_WAITING: usize = 11;

impl Network {
    /// Gives a Unix socket a name.
    pub(crate) fn bind_unix(&mut self, id: SocketId, mut name: Name) -> Result<()> {
        let socket = self.get(id)?;
        if socket.name != Name::Unnamed || socket.kind.is_internet() {
            return Err(Errno::EINVAL);
        }
        let host = socket.host;
        if name == Name::Unnamed {
            // The kernel gives such a socket an abstract name of five hexadecimal digits.
            let unused = |name: &Name| !self.hosts[host].names.contains_key(name);
            let names = (0..0x10_0000_u32).map(|number| Name::Abstract(format!("{number:05x}").into_bytes()));
            name = { names }.find(unused).ok_or(Errno::EADDRINUSE)?;
        }
        if self.hosts[host].names.get(&name).is_some_and(Option::is_some) {
            return Err(Errno::EADDRINUSE);
        }
        self.hosts[host].names.insert(name.clone(), Some(id));
        let socket = self.get_mut(id)?;
        socket.name = name;
        socket.is_bound = true;
        Ok(())
    }

    /// Returns the socket with a name, of the given type, as seen by another one.
    fn unix_socket(&self, id: SocketId, name: &Name) -> Result<SocketId> {
        let socket = self.get(id)?;
        let found = match self.hosts[socket.host].names.get(name) {
            Some(Some(found)) => *found,
            Some(None) => return Err(Errno::ECONNREFUSED),
            None if matches!(name, Name::Abstract(_)) => return Err(Errno::ECONNREFUSED),
            None => return Err(Errno::ENOENT),
        };
        if self.get(found)?.kind == socket.kind { Ok(found) } else { Err(Errno::EPROTOTYPE) }
    }

    /// Connects a Unix socket to the one with this name. EAGAIN if as many connections wait as the listener allows.
    pub(crate) fn connect_unix(&mut self, id: SocketId, name: &Name) -> Result<()> {
        if *name == Name::Unnamed {
            return Err(Errno::EINVAL);
        }
        let there = self.unix_socket(id, name)?;
        let socket = self.get(id)?;
        if socket.kind == Kind::UnixDatagram {
            let taken = self.get(there)?.other;
            if taken.is_some_and(|taken| taken != id) {
                return Err(Errno::EPERM);
            }
            let socket = self.get_mut(id)?;
            socket.other = Some(there);
            socket.remote_name = name.clone();
            self.note(id);
            return Ok(());
        }
        match socket.state {
            State::Closed if socket.other.is_none() => {}
            State::Listening => return Err(Errno::EINVAL),
            _ => return Err(Errno::EISCONN),
        }
        let own = socket.name.clone();
        let listener = self.get(there)?;
        if listener.state != State::Listening {
            return Err(Errno::ECONNREFUSED);
        }
        if listener.queue.len() > listener.backlog {
            return Err(Errno::EAGAIN);
        }
        let mut child = Socket::new(listener.host, Kind::UnixStream, listener.send_room, listener.receive_room);
        child.handles = 0;
        child.state = State::Open;
        child.other = Some(id);
        child.remote_name = own;
        child.name = name.clone();
        let child = self.sockets.insert(child);
        self.get_mut(there)?.queue.push_back(child);
        let socket = self.get_mut(id)?;
        socket.state = State::Open;
        socket.other = Some(child);
        socket.remote_name = name.clone();
        self.note(id);
        self.note(there);
        Ok(())
    }

    /// Connects two Unix sockets with each other.
    pub(crate) fn pair(&mut self, one: SocketId, other: SocketId) -> Result<()> {
        for (id, to) in [(one, other), (other, one)] {
            let socket = self.get_mut(id)?;
            socket.other = Some(to);
            socket.state = State::Open;
        }
        Ok(())
    }

    /// Returns the name of a Unix socket.
    pub(crate) fn local_name(&self, id: SocketId) -> Result<Name> {
        Ok(self.get(id)?.name.clone())
    }

    /// Returns the name of the other side.
    pub(crate) fn peer_name(&self, id: SocketId) -> Result<Name> {
        let socket = self.get(id)?;
        if socket.other.is_none() { Err(Errno::ENOTCONN) } else { Ok(socket.remote_name.clone()) }
    }

    /// Reads from a Unix stream.
    pub(super) fn recv_unix_stream(&mut self, id: SocketId, buf: &mut [u8], peek: bool) -> Result<usize> {
        let socket = self.get_mut(id)?;
        if socket.state == State::Listening || socket.other.is_none() {
            return Err(Errno::EINVAL);
        }
        if socket.input.is_empty() {
            return match socket.error.take() {
                Some(error) => Err(error),
                None if socket.shut & SHUT_READ != 0 => Ok(0),
                None => Err(Errno::EAGAIN),
            };
        }
        let other = socket.other;
        let count = socket.take_input(buf, peek);
        if let Some(other) = other.filter(|_| !peek) {
            self.note(other);
        }
        Ok(count)
    }

    /// Writes to a Unix stream.
    pub(super) fn send_unix_stream(&mut self, id: SocketId, buf: &[u8]) -> Result<usize> {
        let socket = self.get_mut(id)?;
        let Some(other) = socket.other else { return Err(Errno::ENOTCONN) };
        if socket.shut & SHUT_WRITE != 0 {
            return Err(Errno::EPIPE);
        }
        if buf.is_empty() {
            return Ok(0);
        }
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let Some(receiver) = self.sockets.get_mut(other) else { return Err(Errno::EPIPE) };
        if receiver.shut & SHUT_READ != 0 {
            return Err(Errno::EPIPE);
        }
        let count = buf.len().min(receiver.free_to_receive());
        if count == 0 {
            return Err(Errno::EAGAIN);
        }
        receiver.input.extend(&buf[..count]);
        self.note(other);
        Ok(count)
    }

    /// Ends directions of a Unix socket, at both ends.
    pub(super) fn shutdown_unix(&mut self, id: SocketId, how: u8) -> Result<()> {
        let socket = self.get_mut(id)?;
        socket.shut |= how;
        let is_stream = socket.kind == Kind::UnixStream;
        if socket.state == State::Listening && how & SHUT_READ != 0 {
            let queue = std::mem::take(&mut socket.queue);
            queue.into_iter().for_each(|child| self.end_unix_stream(child, true));
        }
        self.note(id);
        let other = self.get(id)?.other;
        if let Some(other) = other.filter(|_| is_stream)
            && let Some(peer) = self.sockets.get_mut(other)
        {
            let mirrored = (if how & SHUT_READ != 0 { SHUT_WRITE } else { 0 })
                | (if how & SHUT_WRITE != 0 { SHUT_READ } else { 0 });
            peer.shut |= mirrored;
            self.note(other);
        }
        Ok(())
    }

    /// Ends a Unix stream or a listener.
    pub(super) fn close_unix_stream(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let queue = std::mem::take(&mut socket.queue);
        queue.into_iter().for_each(|child| self.end_unix_stream(child, true));
        self.end_unix_stream(id, false);
    }

    /// Ends one end of a Unix stream. The other end is told of what was lost.
    fn end_unix_stream(&mut self, id: SocketId, was_refused: bool) {
        let Some(socket) = self.sockets.get(id) else { return };
        let (other, has_lost) = (socket.other, was_refused || !socket.input.is_empty());
        if let Some(other) = other
            && let Some(peer) = self.sockets.get_mut(other)
        {
            peer.shut = SHUT_READ | SHUT_WRITE;
            if has_lost {
                peer.error = Some(Errno::ECONNRESET);
            }
            self.note(other);
        }
        self.remove(id);
    }

    /// Sends a datagram to the Unix socket with this name, or to the one that the socket is connected to. EAGAIN if
    /// there is no room.
    pub(crate) fn send_unix_datagram(&mut self, id: SocketId, buf: &[u8], to: Option<&Name>) -> Result<usize> {
        let socket = self.get_mut(id)?;
        if buf.len() > socket.send_room {
            return Err(Errno::EMSGSIZE);
        }
        if socket.shut & SHUT_WRITE != 0 {
            return Err(Errno::EPIPE);
        }
        let name = socket.name.clone();
        let there = match to {
            Some(to) => self.unix_socket(id, to)?,
            None => socket.other.ok_or(Errno::ENOTCONN)?,
        };
        let Some(receiver) = self.sockets.get_mut(there) else {
            // The receiver is gone, and so is the connection.
            let socket = self.get_mut(id)?;
            socket.other = None;
            return Err(Errno::ECONNREFUSED);
        };
        if receiver.other.is_some_and(|taken| taken != id) {
            return Err(Errno::EPERM);
        }
        if receiver.shut & SHUT_READ != 0 {
            return Err(Errno::EPIPE);
        }
        if receiver.datagrams.len() >= MOST_WAITING {
            return Err(Errno::EAGAIN);
        }
        receiver.datagrams.push_back(Datagram { from: None, name, bytes: buf.to_vec() });
        receiver.datagram_bytes += buf.len();
        self.note(there);
        Ok(buf.len())
    }

    /// Receives a datagram and the name of its sender.
    pub(crate) fn recv_unix_datagram(&mut self, id: SocketId, buf: &mut [u8], peek: bool) -> Result<(usize, Name)> {
        let is_shut = self.get(id)?.shut & SHUT_READ != 0;
        match self.take_datagram(id, buf, peek) {
            Err(Errno::EAGAIN) if is_shut => Ok((0, Name::Unnamed)),
            Err(error) => Err(error),
            Ok((count, datagram)) => {
                // Those that are connected to this socket have room again.
                let waiting: Vec<SocketId> = if peek {
                    Vec::new()
                } else {
                    self.sockets.iter().filter(|(_, socket)| socket.other == Some(id)).map(|(id, _)| id).collect()
                };
                waiting.into_iter().for_each(|sender| self.note(sender));
                Ok((count, datagram.name))
            }
        }
    }

    /// Returns the readiness of a Unix socket.
    pub(super) fn unix_readiness(&self, socket: &Socket) -> u32 {
        if socket.state == State::Listening {
            let ended = if socket.shut & SHUT_READ != 0 { bits::IN | bits::RDHUP | bits::HUP } else { 0 };
            return ended | if socket.queue.is_empty() { 0 } else { bits::IN };
        }
        let mut ready = 0;
        if socket.shut == SHUT_READ | SHUT_WRITE {
            ready |= bits::HUP;
        }
        if socket.shut & SHUT_READ != 0 {
            ready |= bits::IN | bits::RDHUP;
        }
        if !socket.input.is_empty() || !socket.datagrams.is_empty() {
            ready |= bits::IN;
        }
        let receiver = socket.other.and_then(|other| self.sockets.get(other));
        let has_room = match socket.kind {
            Kind::UnixStream => receiver.is_none_or(|peer| peer.free_to_receive() * 3 >= peer.receive_room),
            _ => receiver.is_none_or(|peer| peer.datagrams.len() < MOST_WAITING),
        };
        if has_room || socket.shut & SHUT_WRITE != 0 {
            ready |= bits::OUT;
        }
        if socket.kind == Kind::UnixStream && socket.other.is_none() {
            ready |= bits::HUP;
        }
        if socket.error.is_some() {
            ready |= bits::ERR;
        }
        ready
    }
}
