//! The sockets of a simulation, as `std` and C use them: what patched calls answer for a number that stands for one.
//!
//! ```text
//!   recv(7) --> a simulation on this OS thread, and 7 a simulated socket? --no--> the kernel's file: `stream.rs`
//!                  | yes
//!               another thread may go first, if the schedule says so
//!               attempt -- done --> return
//!                  | EAGAIN: non-blocking? --yes--> EAGAIN
//!               park until the network says that the socket is ready, or the time limit is over
//! ```
//!
//! What a simulated socket has no counterpart of fails: descriptors that go along with a message (EOPNOTSUPP), unknown
//! options (ENOPROTOOPT), other families and types (EAFNOSUPPORT, EPROTONOSUPPORT), `sendfile` and `splice` (EINVAL),
//! `recvmmsg` and `sendmmsg` (ENOSYS), `epoll_ctl` (EPERM, the kernel's answer for a placeholder). Buffer sizes,
//! keep-alive and linger are taken, and change nothing. Where a caller must not let others run, a call that would wait
//! fails with EDEADLK: nothing else could end the wait.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;

use super::gate::{blocking, green, part, simulated};
use crate::pure::network::errno::{Errno, Result as Done};
use crate::pure::network::{Kind, Network, SHUT_READ, SHUT_WRITE, SocketId, bits};
use crate::runtime::reactor::Direction;
use crate::sys::clock::{NEVER, monotonic_ns};
use crate::sys::epoll::Interest;
use crate::sys::raw::{
    AF_INET, AF_INET6, AF_UNIX, EAFNOSUPPORT, EAGAIN, EDEADLK, EINPROGRESS, EINVAL, EOPNOTSUPP, EPROTONOSUPPORT,
    MSG_DONTWAIT, MSG_OOB, MSG_PEEK, MSG_WAITALL, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, iovec, msghdr,
    sockaddr, socklen_t,
};
use crate::sys::virtual_address::Address;
use crate::sys::virtual_calls::{self, Called};

/// The pause before a call is tried again of which no event says when it can go on, in nanoseconds.
const PAUSE: u64 = 1_000_000;

/// The most bytes that one call receives.
const MOST: usize = 1 << 20;

/// Returns the simulated socket with this number; none if the number is the kernel's.
#[inline(always)]
pub(super) fn socket_of(number: RawFd) -> Option<Called> {
    virtual_calls::called(simulated(part::NET)?, number)
}

/// Reports whether a number stands for a simulated socket.
#[inline(always)]
pub(super) fn is_simulated(number: RawFd) -> bool {
    socket_of(number).is_some()
}

/// A call on a simulated socket, which may wait.
struct Call {
    /// The number that the caller knows.
    number: RawFd,
    /// The socket that has the number as the call begins.
    socket: Called,
    /// Whether the call waits to receive, or to send.
    direction: Direction,
    /// Whether it may wait.
    waits: bool,
    /// When the wait is over; none before the first one.
    deadline: Option<u64>,
}

impl Call {
    /// Begins a call.
    ///
    /// # Errors
    /// As [`Green::begin_simulated`](super::gate::Green::begin_simulated).
    fn begin(number: RawFd, socket: Called, direction: Direction, flags: c_int) -> Result<Call, i32> {
        if let Some(green) = green(part::NET) {
            green.begin_simulated()?;
        }
        let waits = flags & MSG_DONTWAIT == 0 && !socket.modes().nonblocking;
        Ok(Call { number, socket, direction, waits, deadline: None })
    }

    /// Returns when the time limit of the socket is over.
    fn deadline(&mut self) -> u64 {
        let modes = self.socket.modes();
        let limit = match self.direction {
            Direction::Read => modes.receive_limit,
            Direction::Write => modes.send_limit,
        };
        let after = |limit| monotonic_ns().saturating_add(limit).min(NEVER - 1);
        *self.deadline.get_or_insert_with(|| limit.map_or(NEVER, after))
    }

    /// Waits until the socket is ready.
    ///
    /// # Errors
    /// EAGAIN when the time is over; EDEADLK if the caller must not let others run; ECANCELED, ETIMEDOUT.
    fn wait(&mut self) -> Result<(), i32> {
        let deadline = self.deadline();
        if deadline <= monotonic_ns() {
            return Err(EAGAIN);
        }
        let green = green(part::NET).ok_or(EDEADLK)?;
        let wanted = (self.socket, self.direction.interest());
        let reason = self.direction.reason(self.number);
        blocking(|| green.wait_simulated(&mut std::iter::once(wanted), reason, deadline))?
    }

    /// Lets a millisecond pass.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    fn pause(&mut self) -> Result<(), i32> {
        let (now, deadline) = (monotonic_ns(), self.deadline());
        if deadline <= now {
            return Err(EAGAIN);
        }
        let green = green(part::NET).ok_or(EDEADLK)?;
        let (until, reason) = (deadline.min(now + PAUSE), self.direction.reason(self.number));
        match blocking(|| green.wait_simulated(&mut std::iter::empty(), reason, until))? {
            Err(EAGAIN) => Ok(()),
            waited => waited,
        }
    }

    /// Repeats `attempt` until its answer is not EAGAIN.
    ///
    /// # Errors
    /// Those of `attempt` and of [`wait`](Self::wait).
    fn until_done<R>(&mut self, mut attempt: impl FnMut(&mut Network, SocketId) -> Done<R>) -> Result<R, i32> {
        let mut is_over = false;
        loop {
            match self.socket.with(&mut attempt) {
                Err(EAGAIN) if self.waits && !is_over => match self.wait() {
                    // What came at the last moment counts.
                    Err(EAGAIN) => is_over = true,
                    waited => waited?,
                },
                answer => return answer,
            }
        }
    }
}

/// Makes a simulated socket, as socket(2) says; none where sockets are the kernel's.
pub(super) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Option<Result<usize, i32>> {
    let simulated = simulated(part::NET)?;
    let make = |(known, flags)| {
        let number = virtual_calls::make(simulated, known)?;
        if flags & SOCK_NONBLOCK != 0
            && let Some(socket) = socket_of(number)
        {
            socket.change(|modes| modes.nonblocking = true);
        }
        Ok(number as usize)
    };
    Some(kind_of(domain, kind, protocol).and_then(make))
}

/// Makes two simulated sockets, as socketpair(2) says; none where sockets are the kernel's.
pub(super) fn pair(domain: c_int, kind: c_int, protocol: c_int) -> Option<Result<[RawFd; 2], i32>> {
    simulated(part::NET)?;
    let make = |(known, flags)| match known {
        Kind::UnixStream | Kind::UnixDatagram => {
            let pair = virtual_calls::make_pair(known)?;
            let sockets = pair.into_iter().filter_map(socket_of);
            sockets.for_each(|socket| socket.change(|modes| modes.nonblocking = flags & SOCK_NONBLOCK != 0));
            Ok(pair)
        }
        Kind::Tcp { .. } | Kind::Udp { .. } => Err(EOPNOTSUPP),
    };
    Some(kind_of(domain, kind, protocol).and_then(make))
}

/// Returns the type of socket that is asked for, and the flags.
fn kind_of(domain: c_int, kind: c_int, protocol: c_int) -> Result<(Kind, c_int), i32> {
    let flags = kind & (SOCK_NONBLOCK | SOCK_CLOEXEC);
    let v6 = domain == AF_INET6;
    // The protocols of the two types, as the kernel numbers them; 0 is the usual one.
    let known = match (domain, kind & !flags, protocol) {
        (AF_INET | AF_INET6, SOCK_STREAM, 0 | 6) => Kind::Tcp { v6 },
        (AF_INET | AF_INET6, SOCK_DGRAM, 0 | 17) => Kind::Udp { v6 },
        (AF_UNIX, SOCK_STREAM, 0) => Kind::UnixStream,
        (AF_UNIX, SOCK_DGRAM, 0) => Kind::UnixDatagram,
        (AF_INET | AF_INET6 | AF_UNIX, ..) => return Err(EPROTONOSUPPORT),
        _ => return Err(EAFNOSUPPORT),
    };
    Ok((known, flags))
}

/// Gives a socket an address.
pub(super) fn bind(socket: Called, address: &Address) -> Result<usize, i32> {
    let shared = socket.modes().reuse_port;
    let bound = socket.with(|network, id| match address {
        Address::Internet(addr) => network.bind(id, *addr, shared),
        Address::Unix(name) => network.bind_unix(id, name.clone()),
    });
    bound.map(|()| 0)
}

/// Connects a socket, and waits for the outcome if the socket blocks.
pub(super) fn connect(number: RawFd, socket: Called, address: &Address) -> Result<usize, i32> {
    let mut call = Call::begin(number, socket, Direction::Write, 0)?;
    let addr = match address {
        Address::Internet(addr) => *addr,
        Address::Unix(name) => loop {
            match socket.with(|network, id| network.connect_unix(id, name)) {
                // As many wait as the listener allows, and no event says when that changes.
                Err(EAGAIN) if call.waits => call.pause()?,
                answer => return answer.map(|()| 0),
            }
        },
    };
    if socket.with(|network, id| network.connect(id, addr))? {
        return Ok(0);
    }
    if !call.waits {
        return Err(EINPROGRESS);
    }
    // Writable, or at its end: the error of the socket has the outcome.
    while socket.readiness() == 0 {
        match call.wait() {
            // The error of connect when the time is over; the connection goes on.
            Err(EAGAIN) => return Err(EINPROGRESS),
            waited => waited?,
        }
    }
    match socket.with(|network, id| network.take_error(id))? {
        None => Ok(0),
        Some(error) => Err(error.0),
    }
}

/// Takes a connection, and returns its number and the address of the other side.
pub(super) fn accept(number: RawFd, socket: Called, flags: c_int) -> Result<(RawFd, Option<Address>), i32> {
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(EINVAL);
    }
    let mut call = Call::begin(number, socket, Direction::Read, 0)?;
    let mut is_over = false;
    let (number, accepted) = loop {
        match socket.accept() {
            Err(EAGAIN) if call.waits && !is_over => match call.wait() {
                Err(EAGAIN) => is_over = true,
                waited => waited?,
            },
            answer => break answer?,
        }
    };
    accepted.change(|modes| modes.nonblocking = flags & SOCK_NONBLOCK != 0);
    Ok((number, peer(accepted).ok()))
}

/// Returns the address of a socket.
pub(super) fn own(socket: Called) -> Result<Address, i32> {
    socket.with(|network, id| match network.kind(id)? {
        Kind::Tcp { .. } | Kind::Udp { .. } => network.local_addr(id).map(Address::Internet),
        Kind::UnixStream | Kind::UnixDatagram => network.local_name(id).map(Address::Unix),
    })
}

/// Returns the address of the other side.
pub(super) fn peer(socket: Called) -> Result<Address, i32> {
    socket.with(|network, id| match network.kind(id)? {
        Kind::Tcp { .. } => network.accepted_from(id).and(network.peer_addr(id)).map(Address::Internet),
        Kind::Udp { .. } => network.peer_addr(id).map(Address::Internet),
        Kind::UnixStream | Kind::UnixDatagram => network.peer_name(id).map(Address::Unix),
    })
}

/// Ends directions of a socket.
pub(super) fn shutdown(socket: Called, how: c_int) -> Result<usize, i32> {
    let how = match how {
        0 => SHUT_READ,
        1 => SHUT_WRITE,
        2 => SHUT_READ | SHUT_WRITE,
        _ => return Err(EINVAL),
    };
    socket.with(|network, id| network.shutdown(id, how)).map(|()| 0)
}

/// Receives up to `room` bytes, and the address of the sender of a datagram.
pub(super) fn receive(
    number: RawFd,
    socket: Called,
    room: usize,
    flags: c_int,
) -> Result<(Vec<u8>, Option<Address>), i32> {
    if flags & MSG_OOB != 0 {
        return Err(EINVAL);
    }
    let peek = flags & MSG_PEEK != 0;
    let mut call = Call::begin(number, socket, Direction::Read, flags)?;
    let kind = socket.with(|network, id| network.kind(id))?;
    let mut bytes = vec![0; room.min(MOST)];
    let (mut count, from) = call.until_done(|network, id| match kind {
        Kind::Tcp { .. } | Kind::UnixStream => Ok((network.recv(id, &mut bytes, peek)?, None)),
        Kind::Udp { .. } => network.recv_from(id, &mut bytes, peek).map(|(n, from)| (n, Some(Address::Internet(from)))),
        Kind::UnixDatagram => {
            network.recv_unix_datagram(id, &mut bytes, peek).map(|(n, name)| (n, Some(Address::Unix(name))))
        }
    })?;
    // All of it, if that is asked for; what has come is not lost to an error.
    while flags & MSG_WAITALL != 0 && kind.is_stream() && !peek && count > 0 && count < bytes.len() {
        match call.until_done(|network, id| network.recv(id, &mut bytes[count..], false)) {
            Ok(0) | Err(_) => break,
            Ok(more) => count += more,
        }
    }
    bytes.truncate(count);
    Ok((bytes, from))
}

/// Sends bytes: all of them on a stream that blocks.
pub(super) fn send(
    number: RawFd,
    socket: Called,
    bytes: &[u8],
    flags: c_int,
    to: Option<&Address>,
) -> Result<usize, i32> {
    let mut call = Call::begin(number, socket, Direction::Write, flags)?;
    let kind = socket.with(|network, id| network.kind(id))?;
    match to {
        Some(Address::Internet(to)) if matches!(kind, Kind::Udp { .. }) => {
            return call.until_done(|network, id| network.send_udp(id, bytes, Some(*to)));
        }
        Some(Address::Unix(to)) if kind == Kind::UnixDatagram => {
            return call.until_done(|network, id| network.send_unix_datagram(id, bytes, Some(to)));
        }
        Some(_) if !kind.is_stream() => return Err(EAFNOSUPPORT),
        _ => {}
    }
    let mut done = 0;
    loop {
        match call.until_done(|network, id| network.send(id, &bytes[done..])) {
            Ok(sent) => done += sent,
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        }
        if !kind.is_stream() || done >= bytes.len() {
            return Ok(done);
        }
    }
}

/// Returns how many bytes can be received at once.
pub(super) fn waiting(socket: Called) -> Result<usize, i32> {
    let mut bytes = vec![0; MOST];
    match socket.with(|network, id| network.recv(id, &mut bytes, true)) {
        Err(EAGAIN) => Ok(0),
        answer => answer,
    }
}

/// Returns the readiness of a socket that poll(2) reports to one that asks for `events`.
pub(super) fn ready(socket: Called, events: i16) -> i16 {
    let asked = u32::from(events.cast_unsigned()) | bits::ERR | bits::HUP;
    (socket.readiness() & asked) as i16
}

/// Returns what to wait for at a number, if that is a simulated socket.
pub(super) fn wanted(number: RawFd, events: i16) -> Option<(Called, Interest)> {
    Some((socket_of(number)?, Interest::of_poll_bits(events)))
}

/// Returns the error of a setting that is not there.
pub(super) const NO_SUCH_OPTION: i32 = Errno::ENOPROTOOPT.0;

/// Reads an address that the C caller has passed.
///
/// # Errors
/// As [`Address::parse`].
///
/// # Safety
/// monkey-1: `len` bytes lie there.
pub(super) unsafe fn read_address(place: *const sockaddr, len: socklen_t) -> Result<Address, i32> {
    if place.is_null() {
        return Err(EINVAL);
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(place.cast::<u8>(), len as usize) };
    Address::parse(bytes)
}

/// Writes an address to the place of the C caller, unless that is null: as much as there is room for, and the whole
/// length.
///
/// # Safety
/// monkey-1.
pub(super) unsafe fn write_address(address: Option<&Address>, place: *mut sockaddr, room: *mut socklen_t) {
    // SAFETY: null, or the caller's length.
    let Some(room) = (unsafe { room.as_mut() }).filter(|_| !place.is_null()) else { return };
    let bytes = address.map(Address::to_bytes).unwrap_or_default();
    let count = bytes.len().min(*room as usize);
    *room = bytes.len() as socklen_t;
    // SAFETY: the caller has room for so many bytes.
    unsafe { place.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), count) };
}

/// Returns the bytes of the buffers of the C caller, one after the other.
///
/// # Safety
/// monkey-1: `count` buffers lie at `list`.
pub(super) unsafe fn gathered(list: *const iovec, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 0..count {
        // SAFETY: the caller's promise.
        let buffer = unsafe { list.wrapping_add(at).read() };
        if buffer.iov_len > 0 {
            // SAFETY: the caller's promise: so many bytes lie there.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(buffer.iov_base.cast(), buffer.iov_len) });
        }
    }
    bytes
}

/// Returns how many bytes fit into the buffers of the C caller.
///
/// # Safety
/// As [`gathered`].
pub(super) unsafe fn room_of(list: *const iovec, count: usize) -> usize {
    // SAFETY: the caller's promise.
    (0..count).map(|at| unsafe { list.wrapping_add(at).read() }.iov_len).fold(0, usize::saturating_add)
}

/// Spreads bytes over the buffers of the C caller, which have room for them.
///
/// # Safety
/// As [`gathered`].
pub(super) unsafe fn spread(mut bytes: &[u8], list: *const iovec, count: usize) {
    for at in 0..count {
        // SAFETY: the caller's promise.
        let buffer = unsafe { list.wrapping_add(at).read() };
        let (now, later) = bytes.split_at(bytes.len().min(buffer.iov_len));
        // SAFETY: the caller's promise: room for so many bytes.
        unsafe { buffer.iov_base.cast::<u8>().copy_from_nonoverlapping(now.as_ptr(), now.len()) };
        bytes = later;
    }
}

/// Reads as readv(2) does.
///
/// # Safety
/// As [`gathered`].
pub(super) unsafe fn read_list(number: RawFd, socket: Called, list: *const iovec, count: usize) -> Result<usize, i32> {
    // SAFETY: the caller's promise.
    let room = unsafe { room_of(list, count) };
    let (bytes, _) = receive(number, socket, room, 0)?;
    // SAFETY: the caller's promise.
    unsafe { spread(&bytes, list, count) };
    Ok(bytes.len())
}

/// Receives as recvfrom(2) does.
///
/// # Safety
/// monkey-1.
pub(super) unsafe fn receive_into(
    number: RawFd,
    socket: Called,
    (place, len): (*mut c_void, usize),
    flags: c_int,
    (address, room): (*mut sockaddr, *mut socklen_t),
) -> Result<usize, i32> {
    let (bytes, from) = receive(number, socket, len, flags)?;
    // SAFETY: monkey-1: room for so many bytes.
    unsafe { place.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    // SAFETY: monkey-1.
    unsafe { write_address(from.as_ref(), address, room) };
    Ok(bytes.len())
}

/// Receives as recvmsg(2) does. Nothing comes along with a message.
///
/// # Safety
/// monkey-1.
pub(super) unsafe fn receive_message(
    number: RawFd,
    socket: Called,
    message: *mut msghdr,
    flags: c_int,
) -> Result<usize, i32> {
    // SAFETY: the caller's header.
    let message = unsafe { &mut *message };
    let (list, count) = (message.msg_iov, message.msg_iovlen as _);
    // SAFETY: monkey-1.
    let room = unsafe { room_of(list, count) };
    let (bytes, from) = receive(number, socket, room, flags)?;
    // SAFETY: monkey-1.
    unsafe { spread(&bytes, list, count) };
    // SAFETY: monkey-1.
    unsafe { write_address(from.as_ref(), message.msg_name.cast(), &raw mut message.msg_namelen) };
    (message.msg_controllen, message.msg_flags) = (0, 0);
    Ok(bytes.len())
}

/// Sends the bytes of the C caller.
///
/// # Safety
/// monkey-1.
pub(super) unsafe fn send_from(
    number: RawFd,
    socket: Called,
    (place, len): (*const c_void, usize),
    flags: c_int,
    (address, address_len): (*const sockaddr, socklen_t),
) -> Result<usize, i32> {
    // SAFETY: monkey-1.
    let to = if address.is_null() { None } else { Some(unsafe { read_address(address, address_len) }?) };
    // SAFETY: monkey-1: so many bytes lie there.
    let bytes = if len == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(place.cast::<u8>(), len) } };
    send(number, socket, bytes, flags, to.as_ref())
}

/// Sends as sendmsg(2) does.
///
/// # Safety
/// monkey-1.
pub(super) unsafe fn send_message(
    number: RawFd,
    socket: Called,
    message: *const msghdr,
    flags: c_int,
) -> Result<usize, i32> {
    // SAFETY: the caller's header.
    let message = unsafe { &*message };
    if message.msg_controllen > 0 {
        return Err(EOPNOTSUPP);
    }
    // SAFETY: monkey-1.
    let bytes = unsafe { gathered(message.msg_iov, message.msg_iovlen as _) };
    let (place, len) = (message.msg_name.cast(), message.msg_namelen);
    // SAFETY: monkey-1.
    unsafe { send_from(number, socket, (bytes.as_ptr().cast(), bytes.len()), flags, (place, len)) }
}
