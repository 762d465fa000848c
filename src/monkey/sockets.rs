//! bind, listen, shutdown, getsockname, getpeername and getsockopt: the calls on sockets that never wait.
//!
//! They go to the kernel as they are, but for a simulated socket (`simulated.rs`), of which they are answered here;
//! so are fcntl, ioctl and setsockopt (`setting.rs`).
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use super::gate::{finish, pass, saved_errno};
use super::simulated::{self, NO_SUCH_OPTION, socket_of};
use crate::pure::network::{Kind, Network, Setting};
use crate::sys::raw::{
    self, AF_INET, AF_INET6, AF_UNIX, Answer, EINVAL, SO_RCVTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO, SO_SNDTIMEO_NEW,
    SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, option, sockaddr, socklen_t, timeval,
};
use crate::sys::virtual_address::Address;
use crate::sys::virtual_calls::Called;

/// Stands in for bind(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    let Some(socket) = socket_of(fd) else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::bind(fd, addr, len) }) as c_int;
    };
    let before = saved_errno();
    // SAFETY: monkey-1.
    let address = unsafe { simulated::read_address(addr, len) };
    finish(before, address.and_then(|address| simulated::bind(socket, &address))) as c_int
}

/// Stands in for listen(2).
///
/// # Safety
/// None in the sense of C: the function takes numbers.
#[unsafe(no_mangle)]
pub(super) extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    let Some(socket) = socket_of(fd) else { return pass(raw::listen(fd, backlog)) as c_int };
    let before = saved_errno();
    // A negative one is as many as there can be.
    let most = if backlog < 0 { 4096 } else { backlog as usize };
    finish(before, socket.with(|network, id| network.listen(id, most)).map(|()| 0)) as c_int
}

/// Stands in for shutdown(2).
///
/// # Safety
/// As [`listen`].
#[unsafe(no_mangle)]
pub(super) extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    let Some(socket) = socket_of(fd) else { return pass(raw::shutdown(fd, how)) as c_int };
    let before = saved_errno();
    finish(before, simulated::shutdown(socket, how)) as c_int
}

/// Writes an address to the caller's place.
///
/// # Safety
/// monkey-1.
unsafe fn hand_over(address: Result<Address, i32>, addr: *mut sockaddr, room: *mut socklen_t) -> c_int {
    let before = saved_errno();
    let answer = address.map(|address| {
        // SAFETY: monkey-1.
        unsafe { simulated::write_address(Some(&address), addr, room) };
        0
    });
    finish(before, answer) as c_int
}

/// Stands in for getsockname(2).
///
/// # Safety
/// As [`bind`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getsockname(fd: c_int, addr: *mut sockaddr, room: *mut socklen_t) -> c_int {
    match socket_of(fd) {
        // SAFETY: monkey-1.
        Some(socket) => unsafe { hand_over(simulated::own(socket), addr, room) },
        // SAFETY: monkey-1.
        None => pass(unsafe { raw::getsockname(fd, addr, room) }) as c_int,
    }
}

/// Stands in for getpeername(2).
///
/// # Safety
/// As [`bind`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getpeername(fd: c_int, addr: *mut sockaddr, room: *mut socklen_t) -> c_int {
    match socket_of(fd) {
        // SAFETY: monkey-1.
        Some(socket) => unsafe { hand_over(simulated::peer(socket), addr, room) },
        // SAFETY: monkey-1.
        None => pass(unsafe { raw::getpeername(fd, addr, room) }) as c_int,
    }
}

/// Stands in for getsockopt(2).
///
/// # Safety
/// As [`bind`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let Some(socket) = socket_of(fd) else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::getsockopt(fd, level, name, value, len) }) as c_int;
    };
    let before = saved_errno();
    let answer = read_option(socket, level, name).map(|bytes| {
        // SAFETY: null, or the caller's length.
        if let Some(len) = unsafe { len.as_mut() } {
            *len = (*len).min(bytes.len() as socklen_t);
            // SAFETY: monkey-1: room for as many bytes.
            unsafe { value.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), *len as usize) };
        }
        0
    });
    finish(before, answer) as c_int
}

/// Returns the setting that an option is, if it is one of the network's.
fn setting_of(level: c_int, name: c_int) -> Option<Setting> {
    Some(match (level, name) {
        option::NO_DELAY => Setting::NoDelay,
        option::QUICK_ACK => Setting::QuickAck,
        option::BROADCAST => Setting::Broadcast,
        option::TTL => Setting::Ttl,
        option::LOOP_V4 => Setting::LoopV4,
        option::LOOP_V6 => Setting::LoopV6,
        option::MULTICAST_TTL => Setting::MulticastTtl,
        _ => return None,
    })
}

/// Reports whether an option is taken, and changes nothing here: sizes of buffers, keep-alive, linger and the like.
fn is_without_effect(level: c_int, name: c_int) -> bool {
    option::WITHOUT_EFFECT.contains(&(level, name))
}

/// Returns the bytes of an option of a simulated socket.
fn read_option(socket: Called, level: c_int, name: c_int) -> Result<Vec<u8>, i32> {
    let kind = socket.with(|network, id| network.kind(id))?;
    let number = |number: c_int| Ok(number.to_ne_bytes().to_vec());
    if let Some(setting) = setting_of(level, name) {
        return number(socket.with(|network, id| network.setting(id, setting))? as c_int);
    }
    let limit = |limit: Option<u64>| {
        let span = raw::span(limit.unwrap_or(0));
        Ok([span.tv_sec.to_ne_bytes(), (span.tv_nsec / 1000).to_ne_bytes()].concat())
    };
    match (level, name) {
        option::ERROR => number(socket.with(Network::take_error)?.map_or(0, |error| error.0)),
        option::TYPE => number(if kind.is_stream() { SOCK_STREAM } else { SOCK_DGRAM }),
        option::LISTENS => number(socket.with(|network, id| network.listens(id))?.into()),
        option::DOMAIN => number(match kind {
            Kind::Tcp { v6: true } | Kind::Udp { v6: true } => AF_INET6,
            Kind::Tcp { .. } | Kind::Udp { .. } => AF_INET,
            Kind::UnixStream | Kind::UnixDatagram => AF_UNIX,
        }),
        option::PROTOCOL => number(match kind {
            Kind::Tcp { .. } => 6,
            Kind::Udp { .. } => 17,
            Kind::UnixStream | Kind::UnixDatagram => 0,
        }),
        (SOL_SOCKET, SO_RCVTIMEO | SO_RCVTIMEO_NEW) => limit(socket.modes().receive_limit),
        (SOL_SOCKET, SO_SNDTIMEO | SO_SNDTIMEO_NEW) => limit(socket.modes().send_limit),
        _ if is_without_effect(level, name) => Ok(vec![0; 2 * size_of::<c_int>()]),
        _ => Err(NO_SUCH_OPTION),
    }
}

/// Sets an option of a simulated socket, to what the bytes say.
pub(super) fn set_option(socket: Called, level: c_int, name: c_int, bytes: &[u8]) -> Answer {
    let number = bytes.first_chunk().map(|bytes| c_int::from_ne_bytes(*bytes));
    if let Some(setting) = setting_of(level, name) {
        // Some of them may be one byte.
        let value = number.or_else(|| bytes.first().map(|byte| (*byte).into())).ok_or(EINVAL)?;
        return socket.with(|network, id| network.set(id, setting, value as u32)).map(|()| 0);
    }
    match (level, name) {
        (SOL_SOCKET, SO_RCVTIMEO | SO_RCVTIMEO_NEW) => {
            let limit = span_of(bytes)?;
            socket.change(|modes| modes.receive_limit = limit);
        }
        (SOL_SOCKET, SO_SNDTIMEO | SO_SNDTIMEO_NEW) => {
            let limit = span_of(bytes)?;
            socket.change(|modes| modes.send_limit = limit);
        }
        option::REUSE_PORT => {
            let on = number.ok_or(EINVAL)? != 0;
            socket.change(|modes| modes.reuse_port = on);
        }
        _ if is_without_effect(level, name) => {}
        _ => return Err(NO_SUCH_OPTION),
    }
    Ok(0)
}

/// Returns the nanoseconds of a `timeval`; none for one of zero, which is no limit.
fn span_of(bytes: &[u8]) -> Result<Option<u64>, i32> {
    let (halves, _) = bytes.as_chunks::<8>();
    let [seconds, micros, ..] = halves else { return Err(EINVAL) };
    let limit = timeval { tv_sec: i64::from_ne_bytes(*seconds), tv_usec: i64::from_ne_bytes(*micros) };
    let whole = u64::try_from(limit.tv_sec).map_err(|_| raw::EDOM)?.saturating_mul(1_000_000_000);
    let part = u64::try_from(limit.tv_usec).ok().filter(|micros| *micros < 1_000_000).ok_or(raw::EDOM)?;
    let nanos = whole.saturating_add(part * 1000);
    Ok((nanos > 0).then_some(nanos))
}
