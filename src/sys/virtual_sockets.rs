//! Sockets of a simulation, behind the descriptors that programs hold.
//!
//! A simulated socket has a descriptor, since the types of `net` own one: a placeholder, a duplicate of one open
//! `/dev/null`. Its number leads to the socket:
//!
//! ```text
//!   TcpStream { fd 7 }  --recv(7)-->  numbers: 7 -> socket 3  -->  Network::recv(3)
//!                                              |
//!                                              no entry: the kernel is asked
//! ```
//!
//! So each call of `sys` on a descriptor asks here first, which costs one test of a flag where nothing simulates. A
//! placeholder that leaves the crate (`as_fd`, a conversion into std's type) is no socket to the kernel: calls on it
//! say ENOTSOCK. The simulated socket stays open behind it, and a conversion back finds it again.
//!
//! * Invariant virtual-1: a number leads to the socket that it was given for. Upheld by `close` before a descriptor is
//!   closed, and by `VirtualSockets::enter`, which replaces what was left under a number that the program has closed
//!   by itself.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net as unix;
use std::panic::Location;

use super::fault::FaultKind;
use super::simulation::{Entry, Simulated, simulated};
use crate::pure::network::errno::Result;
use crate::pure::network::{Kind, Name, Network, Outlook, Setting, SocketId, Way};

/// Calls `f` with the network and the socket that `fd` stands for; none if that is a socket of the kernel.
#[inline(always)]
pub(crate) fn with<R>(fd: &impl AsFd, f: impl FnOnce(&mut Network, SocketId) -> Result<R>) -> Option<io::Result<R>> {
    with_in(simulated()?, fd.as_fd().as_raw_fd(), f)
}

/// Does the work of [`with`] in an OS thread that simulates.
#[cold]
#[inline(never)]
fn with_in<R>(
    simulated: &Simulated,
    number: RawFd,
    f: impl FnOnce(&mut Network, SocketId) -> Result<R>,
) -> Option<io::Result<R>> {
    let mut sockets = simulated.sockets.borrow_mut();
    let id = sockets.numbers.get(&number)?.id;
    Some(f(&mut sockets.network, id).map_err(io::Error::from))
}

/// Moves at most `len()` bytes by `f`, which is told how many at most, as [`with`] calls it. What the simulation makes
/// go wrong with a transfer comes first.
#[inline(always)]
pub(crate) fn transfer<R>(
    fd: &impl AsFd,
    way: Way,
    len: impl FnOnce() -> usize,
    f: impl FnOnce(&mut Network, SocketId, usize) -> Result<R>,
) -> Option<io::Result<R>> {
    transfer_in(simulated()?, fd.as_fd().as_raw_fd(), way, len(), f)
}

/// Does the work of [`transfer`] in an OS thread that simulates.
#[cold]
#[inline(never)]
fn transfer_in<R>(
    simulated: &Simulated,
    number: RawFd,
    way: Way,
    len: usize,
    f: impl FnOnce(&mut Network, SocketId, usize) -> Result<R>,
) -> Option<io::Result<R>> {
    let id = simulated.sockets.borrow().numbers.get(&number)?.id;
    let outlook = simulated.sockets.borrow().network.outlook(id, way, len);
    let fault = outlook.and_then(|outlook| Some((simulated.fault(&faults_of(outlook, way))?, outlook.moves)));
    let network = &mut simulated.sockets.borrow_mut().network;
    let most = match fault {
        None => len,
        Some((fault, moves)) if fault.kind == FaultKind::Short => fault.shortened(moves),
        Some((fault, _)) if fault.kind == FaultKind::Reset => {
            network.break_off(id);
            len
        }
        Some((fault, _)) => {
            network.note(id);
            return Some(Err(fault.error()));
        }
    };
    let done = f(network, id, most).map_err(io::Error::from);
    if most < len {
        // The caller takes it that nothing is left, and waits for the next event.
        network.note(id);
    }
    Some(done)
}

/// Returns what can go wrong with a transfer.
fn faults_of(outlook: Outlook, way: Way) -> Vec<FaultKind> {
    let mut possible = Vec::new();
    if outlook.moves > 0 {
        possible.extend([FaultKind::Interrupted, FaultKind::WouldBlock]);
    }
    if outlook.can_be_reset {
        possible.push(FaultKind::Reset);
    }
    match (outlook.is_stream, way) {
        (true, _) if outlook.moves > 1 => possible.push(FaultKind::Short),
        (false, Way::Send) => possible.push(FaultKind::NoMemory),
        _ => {}
    }
    possible
}

/// Fails if the simulation has no descriptor, or no memory, for another socket.
fn may_make(simulated: &Simulated) -> io::Result<()> {
    simulated.may_fail(&[FaultKind::NoDescriptors, FaultKind::NoMemory])
}

/// Reports whether `fd` stands for a simulated socket.
pub(crate) fn is_virtual(fd: &impl AsFd) -> bool {
    with(fd, |_, _| Ok(())).is_some()
}

/// Makes a simulated socket of this type on the host of the running thread, and lets `begin` bind or connect it; none
/// where sockets are the kernel's. If `begin` fails, there is no socket.
#[inline(always)]
pub(crate) fn socket<R>(
    kind: Kind,
    begin: impl FnOnce(&mut Network, SocketId) -> Result<R>,
) -> Option<io::Result<(OwnedFd, R)>> {
    simulated().map(|simulated| socket_in(simulated, kind, begin))
}

/// Does the work of [`socket`] in an OS thread that simulates.
#[cold]
#[inline(never)]
pub(super) fn socket_in<R>(
    simulated: &Simulated,
    kind: Kind,
    begin: impl FnOnce(&mut Network, SocketId) -> Result<R>,
) -> io::Result<(OwnedFd, R)> {
    let host = simulated.host();
    may_make(simulated)?;
    let mut sockets = simulated.sockets.borrow_mut();
    let id = sockets.network.socket(host, kind);
    let made = begin(&mut sockets.network, id).map_err(io::Error::from);
    match made.and_then(|made| Ok((sockets.placeholder(id)?, made))) {
        Ok(made) => Ok(made),
        Err(error) => {
            sockets.network.close(id);
            Err(error)
        }
    }
}

/// Takes a connection that waits at the listener `fd`, and returns its placeholder and what `describe` says of it; none
/// if `fd` is a socket of the kernel.
#[inline(always)]
pub(crate) fn accept<R>(
    fd: &impl AsFd,
    describe: impl FnOnce(&Network, SocketId) -> Result<R>,
) -> Option<io::Result<(OwnedFd, R)>> {
    accept_in(simulated()?, fd.as_fd().as_raw_fd(), describe)
}

/// Does the work of [`accept`] in an OS thread that simulates.
#[cold]
#[inline(never)]
fn accept_in<R>(
    simulated: &Simulated,
    number: RawFd,
    describe: impl FnOnce(&Network, SocketId) -> Result<R>,
) -> Option<io::Result<(OwnedFd, R)>> {
    let listener = simulated.sockets.borrow().numbers.get(&number)?.id;
    // In the order of Linux: a descriptor is needed before there is a look into the queue.
    let mut possible = vec![FaultKind::NoDescriptors, FaultKind::NoMemory];
    if simulated.sockets.borrow().network.has_waiting(listener) {
        possible.extend([FaultKind::Interrupted, FaultKind::WouldBlock]);
    }
    let fault = simulated.fault(&possible);
    let mut sockets = simulated.sockets.borrow_mut();
    if let Some(fault) = fault {
        sockets.network.note(listener);
        return Some(Err(fault.error()));
    }
    let accepted = match sockets.network.accept(listener) {
        Ok(accepted) => accepted,
        Err(errno) => return Some(Err(io::Error::from(errno))),
    };
    let described = describe(&sockets.network, accepted).map_err(io::Error::from);
    Some(match described.and_then(|described| Ok((sockets.placeholder(accepted)?, described))) {
        Ok(made) => Ok(made),
        Err(error) => {
            sockets.network.close(accepted);
            Err(error)
        }
    })
}

/// Makes `copy`, a duplicate of `fd`, stand for the same simulated socket, if `fd` stands for one.
///
/// # Errors
/// If the simulation has no descriptor for it; then it stands for nothing.
#[inline]
pub(crate) fn duplicated(fd: &impl AsFd, copy: &impl AsFd) -> io::Result<()> {
    match simulated() {
        Some(simulated) => duplicated_in(simulated, fd.as_fd().as_raw_fd(), copy.as_fd().as_raw_fd()),
        None => Ok(()),
    }
}

/// Does the work of [`duplicated`] in an OS thread that simulates.
#[cold]
#[inline(never)]
fn duplicated_in(simulated: &Simulated, number: RawFd, copy: RawFd) -> io::Result<()> {
    let Some(Entry { id, .. }) = simulated.sockets.borrow().numbers.get(&number).copied() else { return Ok(()) };
    simulated.may_fail(&[FaultKind::NoDescriptors])?;
    let mut sockets = simulated.sockets.borrow_mut();
    if sockets.network.duplicate(id).is_ok() {
        sockets.enter(copy, id);
    }
    Ok(())
}

/// Notes the place in the program that made `fd`, for the report of what is left, if `fd` stands for a simulated
/// socket.
#[inline]
pub(crate) fn made_at(fd: &impl AsFd, place: &'static Location<'static>) {
    if let Some(simulated) = simulated() {
        made_at_in(simulated, fd.as_fd().as_raw_fd(), place);
    }
}

/// Does the work of [`made_at`] in an OS thread that simulates.
#[cold]
#[inline(never)]
fn made_at_in(simulated: &Simulated, number: RawFd, place: &'static Location<'static>) {
    if let Some(entry) = simulated.sockets.borrow_mut().numbers.get_mut(&number) {
        entry.made_at = Some(place);
    }
}

/// Returns the numbers of the sockets that are open, in an order that is the same in each run, with the places that
/// made them. What a crash has ended is not open.
pub(crate) fn left(simulated: &Simulated) -> Vec<(RawFd, Option<&'static Location<'static>>)> {
    let sockets = simulated.sockets.borrow();
    let is_open = |entry: &Entry| sockets.network.kind(entry.id).is_ok();
    let mut left: Vec<_> = sockets.numbers.iter().filter(|(_, entry)| is_open(entry)).collect();
    // The numbers of descriptors are not the same in each run.
    left.sort_by_key(|(_, entry)| (entry.id.to_token(), entry.made_at));
    left.into_iter().map(|(number, entry)| (*number, entry.made_at)).collect()
}

/// Ends what `fd` stands for, if that is a simulated socket. To be called before the descriptor is closed (virtual-1).
#[inline]
pub(crate) fn close(fd: &impl AsFd) {
    if let Some(simulated) = simulated() {
        close_in(simulated, fd.as_fd().as_raw_fd());
    }
}

/// Does the work of [`close`] in an OS thread that simulates.
#[cold]
#[inline(never)]
fn close_in(simulated: &Simulated, number: RawFd) {
    // In the middle of a call no socket is dropped; a program that ends may drop one anywhere.
    let Ok(mut sockets) = simulated.sockets.try_borrow_mut() else { return };
    if let Some(Entry { id, token, .. }) = sockets.numbers.remove(&number) {
        if let Some(token) = token {
            sockets.network.unwatch(id, token);
        }
        sockets.network.close(id);
        #[cfg(feature = "monkey")]
        if !sockets.numbers.values().any(|entry| entry.id == id) {
            sockets.modes.remove(&id.to_token());
        }
    }
}

/// Ends what a number stands for, if that is a simulated socket. To be called before the number is closed (virtual-1).
#[cfg(feature = "monkey")]
#[inline]
pub(crate) fn close_number(number: RawFd) {
    if let Some(simulated) = simulated() {
        close_in(simulated, number);
    }
}

/// Does the work of [`duplicated_number`] in an OS thread that simulates.
#[cfg(feature = "monkey")]
#[cold]
#[inline(never)]
fn duplicated_number_in(simulated: &Simulated, number: RawFd, copy: RawFd) {
    let mut sockets = simulated.sockets.borrow_mut();
    if let Some(Entry { id, .. }) = sockets.numbers.get(&number).copied()
        && sockets.network.duplicate(id).is_ok()
    {
        sockets.enter(copy, id);
    }
}

/// Makes a number stand for the same simulated socket as another one, if that stands for one.
#[cfg(feature = "monkey")]
#[inline]
pub(crate) fn duplicated_number(number: RawFd, copy: RawFd) {
    if let Some(simulated) = simulated() {
        duplicated_number_in(simulated, number, copy);
    }
}

/// Tells `token` from now on of changes of the simulated socket that `fd` stands for; none for one of the kernel.
#[inline]
pub(super) fn watch(fd: &impl AsFd, token: u64) -> Option<io::Result<()>> {
    let simulated = simulated()?;
    let number = fd.as_fd().as_raw_fd();
    let watched = with_in(simulated, number, |network, id| network.watch(id, token))?;
    if let Some(entry) = simulated.sockets.borrow_mut().numbers.get_mut(&number) {
        entry.token = Some(token);
    }
    Some(watched)
}

/// Ends what [`watch`] began; none for a socket of the kernel.
#[inline]
pub(super) fn unwatch(fd: &impl AsFd) -> Option<io::Result<()>> {
    let simulated = simulated()?;
    let number = fd.as_fd().as_raw_fd();
    let token = simulated.sockets.borrow_mut().numbers.get_mut(&number)?.token.take();
    with_in(simulated, number, |network, id| {
        token.into_iter().for_each(|token| network.unwatch(id, token));
        Ok(())
    })
}

/// Returns the number by which a report names the descriptor with this number: one that is the same in each run.
pub(crate) fn shown_number(number: RawFd) -> RawFd {
    let shown = |network: &mut Network, id| Ok(network.number(id));
    simulated().and_then(|simulated| with_in(simulated, number, shown)?.ok()).unwrap_or(number)
}

/// Returns what [`with`] does for the descriptor with this number, for reports.
pub(super) fn with_number<R>(
    number: RawFd,
    f: impl FnOnce(&mut Network, SocketId) -> Result<R>,
) -> Option<io::Result<R>> {
    with_in(simulated()?, number, f)
}

/// Sets a number of a simulated socket; none for one of the kernel.
#[inline(always)]
pub(crate) fn set(fd: &impl AsFd, setting: Setting, value: u32) -> Option<io::Result<()>> {
    with(fd, |network, id| network.set(id, setting, value))
}

/// Reads a number of a simulated socket; none for one of the kernel.
#[inline(always)]
pub(crate) fn setting(fd: &impl AsFd, setting: Setting) -> Option<io::Result<u32>> {
    with(fd, |network, id| network.setting(id, setting))
}

/// Reads a switch of a simulated socket; none for one of the kernel.
#[inline(always)]
pub(crate) fn is_set(fd: &impl AsFd, setting: Setting) -> Option<io::Result<bool>> {
    with(fd, |network, id| Ok(network.setting(id, setting)? != 0))
}

/// Makes a simulated socket join a multicast group, or leave it; none for one of the kernel.
pub(crate) fn set_member(fd: &impl AsFd, group: IpAddr, joins: bool) -> Option<io::Result<()>> {
    with(fd, |network, id| network.set_member(id, group, joins))
}

/// Ends directions of a simulated socket; none for one of the kernel.
pub(crate) fn shutdown(fd: &impl AsFd, how: std::net::Shutdown) -> Option<io::Result<()>> {
    use crate::pure::network::{SHUT_READ, SHUT_WRITE};
    let how = match how {
        std::net::Shutdown::Read => SHUT_READ,
        std::net::Shutdown::Write => SHUT_WRITE,
        std::net::Shutdown::Both => SHUT_READ | SHUT_WRITE,
    };
    with(fd, |network, id| network.shutdown(id, how))
}

/// Takes the error of a simulated socket; none for a socket of the kernel.
pub(crate) fn take_error(fd: &impl AsFd) -> Option<io::Result<Option<io::Error>>> {
    with(fd, |network, id| network.take_error(id)).map(|taken| Ok(taken?.map(io::Error::from)))
}

/// Returns the own address of a simulated socket; none for one of the kernel.
pub(crate) fn local_addr(fd: &impl AsFd) -> Option<io::Result<SocketAddr>> {
    with(fd, |network, id| network.local_addr(id))
}

/// Returns the address of the other side of a simulated socket; none for one of the kernel.
pub(crate) fn peer_addr(fd: &impl AsFd) -> Option<io::Result<SocketAddr>> {
    with(fd, |network, id| network.peer_addr(id))
}

/// Returns the own name of a simulated Unix socket; none for one of the kernel.
pub(crate) fn local_name(fd: &impl AsFd) -> Option<io::Result<unix::SocketAddr>> {
    with(fd, |network, id| network.local_name(id)).map(|name| std_name(&name?))
}

/// Returns the name of the other side of a simulated Unix socket; none for one of the kernel.
pub(crate) fn peer_name(fd: &impl AsFd) -> Option<io::Result<unix::SocketAddr>> {
    with(fd, |network, id| network.peer_name(id)).map(|name| std_name(&name?))
}

/// Converts a name into std's type.
pub(crate) fn std_name(name: &Name) -> io::Result<unix::SocketAddr> {
    match name {
        // A path of no length is how std's type says that there is no name.
        Name::Unnamed => unix::SocketAddr::from_pathname(""),
        Name::Path(path) => unix::SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
        Name::Abstract(name) => unix::SocketAddr::from_abstract_name(name),
    }
}

/// Converts a name of std's type.
pub(crate) fn name_of(addr: &unix::SocketAddr) -> Name {
    if let Some(path) = addr.as_pathname() {
        return Name::Path(path.as_os_str().as_bytes().to_vec());
    }
    addr.as_abstract_name().map_or(Name::Unnamed, |name| Name::Abstract(name.to_vec()))
}

/// Returns the addresses of a name in a simulation; none where the kernel's network is used.
///
/// # Errors
/// If no host has the name, as the C library says it.
#[inline]
pub(crate) fn resolve(name: &str) -> Option<io::Result<Vec<IpAddr>>> {
    if name.contains('\0') {
        // As in std.
        return simulated().map(|_| Err(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let found = simulated()?.sockets.borrow().network.resolve(name);
    Some(if found.is_empty() {
        Err(io::Error::other("failed to lookup address information: Name or service not known"))
    } else {
        Ok(found)
    })
}

/// Makes two simulated Unix sockets that are connected to each other; none where sockets are the kernel's.
pub(crate) fn pair(kind: Kind) -> Option<io::Result<(OwnedFd, OwnedFd)>> {
    let (one, near) = match socket(kind, |_, id| Ok(id))? {
        Ok(made) => made,
        Err(error) => return Some(Err(error)),
    };
    let other = socket(kind, |network, far| network.pair(near, far))?;
    Some(match other {
        Ok((other, ())) => Ok((one, other)),
        Err(error) => {
            close(&one);
            Err(error)
        }
    })
}

/// Writes a simulated socket as std writes one of the kernel; none for one of the kernel.
pub(crate) fn fmt(fd: &impl AsFd, name: &str, f: &mut fmt::Formatter<'_>) -> Option<fmt::Result> {
    let number = shown_number(fd.as_fd().as_raw_fd());
    let described = with(fd, |network, id| {
        Ok(match network.kind(id)? {
            Kind::Tcp { .. } | Kind::Udp { .. } => (network.local_addr(id).ok(), network.peer_addr(id).ok(), None),
            Kind::UnixStream | Kind::UnixDatagram => {
                (None, None, Some((network.local_name(id), network.peer_name(id))))
            }
        })
    })?;
    let mut text = f.debug_struct(name);
    // In the order and the words of std.
    let is_internet = !matches!(&described, Ok((_, _, Some(_))));
    if !is_internet {
        text.field("fd", &format_args!("FileDesc(OwnedFd {{ fd: {number} }})"));
    }
    if let Ok((local, peer, names)) = described {
        local.map(|addr| text.field("addr", &addr));
        peer.map(|peer| text.field("peer", &peer));
        if let Some((local, peer)) = names {
            local.ok().and_then(|name| std_name(&name).ok()).map(|name| text.field("local", &name));
            peer.ok().and_then(|name| std_name(&name).ok()).map(|name| text.field("peer", &name));
        }
    }
    if is_internet {
        text.field("fd", &number);
    }
    Some(text.finish())
}

#[cfg(test)]
mod tests {
    use crate::pure::network::errno::Errno;

    #[test]
    fn the_numbers_of_errors_are_those_of_the_c_library() {
        let numbers = [
            libc::EPERM,
            libc::ENOENT,
            libc::EIO,
            libc::EBADF,
            libc::EAGAIN,
            libc::EACCES,
            libc::EBUSY,
            libc::EEXIST,
            libc::ENOTDIR,
            libc::EISDIR,
            libc::EINVAL,
            libc::ENOSPC,
            libc::EPIPE,
            libc::ENAMETOOLONG,
            libc::ENOTEMPTY,
            libc::ELOOP,
            libc::EDESTADDRREQ,
            libc::EMSGSIZE,
            libc::EPROTOTYPE,
            libc::ENOPROTOOPT,
            libc::EOPNOTSUPP,
            libc::EAFNOSUPPORT,
            libc::EADDRINUSE,
            libc::EADDRNOTAVAIL,
            libc::ENETUNREACH,
            libc::ECONNRESET,
            libc::EISCONN,
            libc::ENOTCONN,
            libc::ETIMEDOUT,
            libc::ECONNREFUSED,
            libc::EALREADY,
        ];
        let known: Vec<i32> = Errno::ALL.iter().map(|errno| errno.0).collect();
        assert_eq!(known, numbers);
    }
}
