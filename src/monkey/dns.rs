//! getaddrinfo and getnameinfo: names, looked up by the OS threads that also look up names for native sockets.
//!
//! The arguments are copied, since the caller may be killed while an OS thread uses them. The result is a list on the C
//! heap, freed by the last owner: the C caller, or [`AddrList`] if the caller waits no longer.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::net::IpAddr;
use std::ptr::{self, null, null_mut};

use super::gate::{blocking, finish, green, part, saved_errno, simulated};
use crate::net::{Family, on_lookup_thread};
use crate::sys::c_library::{self, NI_NUMERICHOST};
use crate::sys::raw::{
    self, AF_INET, AF_INET6, AI_NUMERICHOST, EAI_NONAME, EAI_SYSTEM, ECANCELED, addrinfo, set_errno, sockaddr,
    socklen_t,
};
use crate::sys::simulation::Simulated;

/// The longest socket address, in bytes (sockaddr(3type)).
const LONGEST_ADDRESS: usize = 128;

/// The most bytes that a name of a host or service is given room for; NI_MAXHOST is 1025.
const MOST_ROOM: usize = 64 * 1024;

/// A list that getaddrinfo made. Dropping the value frees the list.
struct AddrList(*mut addrinfo);

// SAFETY: the list belongs to this value alone, and the C library frees it on any OS thread.
unsafe impl Send for AddrList {}

impl Drop for AddrList {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the list came from getaddrinfo, and this value is the only owner.
            unsafe { raw::freeaddrinfo(self.0) };
        }
    }
}

/// Flags, family, type and protocol of an `addrinfo` that the caller passed.
type Hints = Option<[c_int; 4]>;

/// Looks up a name on this OS thread. Returns the C library's code, errno, and the list.
fn look_up(node: Option<&CStr>, service: Option<&CStr>, hints: Hints) -> (c_int, i32, AddrList) {
    // SAFETY: all zeros is a valid struct: no flags, null pointers.
    let mut wanted = unsafe { std::mem::zeroed::<addrinfo>() };
    if let Some([flags, family, kind, protocol]) = hints {
        wanted.ai_flags = flags;
        wanted.ai_family = family;
        wanted.ai_socktype = kind;
        wanted.ai_protocol = protocol;
    }
    // No hints and hints of zeros mean different things to the C library, hence the null pointer.
    let wanted = if hints.is_some() { ptr::from_ref(&wanted) } else { null() };
    let (node, service) = (node.map_or(null(), CStr::as_ptr), service.map_or(null(), CStr::as_ptr));
    let mut list = null_mut();
    // SAFETY: strings and hints live until the call returns, or are null, which is allowed.
    let code = unsafe { raw::getaddrinfo(node, service, wanted, &raw mut list) };
    // Read errno at once: the next call may change it.
    let errno = raw::errno();
    // After a failure the list is not defined, and must not be freed.
    (code, errno, AddrList(if code == 0 { list } else { null_mut() }))
}

/// Runs `job` on an OS thread that looks up names, while others run here. `name` is as for [`on_lookup_thread`].
///
/// # Errors
/// An errno: the caller was killed or timed out, or no OS thread could be started.
pub(super) fn on_name_thread<T: Send + 'static>(
    name: Option<(String, Family)>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, i32> {
    blocking(|| on_lookup_thread(name, job))?.map_err(|error| error.raw_os_error().unwrap_or(ECANCELED))
}

/// Returns the families that a lookup for `family` accepts.
pub(super) fn family_of(family: c_int) -> Family {
    Family { v4: family != AF_INET6, v6: family != AF_INET }
}

/// Returns the name that stands for the lookup of an address: one that is in no file, so that the lookup takes a place
/// among those that may ask the network.
pub(super) fn reverse_name() -> (String, Family) {
    (String::from("in-addr.arpa"), family_of(0))
}

/// Returns what name servers may be asked for: a name, and addresses of which kind.
fn query_of(node: Option<&CStr>, hints: Hints) -> Option<(String, Family)> {
    let [flags, family, ..] = hints.unwrap_or_default();
    let node = node.filter(|_| flags & AI_NUMERICHOST == 0)?;
    Some((node.to_string_lossy().into_owned(), family_of(family)))
}

/// Copies a C string of the caller, unless the pointer is null.
///
/// # Safety
/// monkey-1.
unsafe fn copied(text: *const c_char) -> Option<CString> {
    // SAFETY: not null, so the pointer is that of the caller's string.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
}

/// Looks up the name of a host of the simulation. The C library makes the list, of the host's address as a number; it
/// asks no server.
///
/// # Safety
/// monkey-1.
unsafe fn look_up_simulated(
    simulated: &Simulated,
    (node, service): (*const c_char, *const c_char),
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: monkey-1.
    let name = unsafe { copied(node) }.map(|name| name.to_string_lossy().into_owned());
    let name = name.filter(|name| name.parse::<IpAddr>().is_err());
    let Some(name) = name else {
        // SAFETY: monkey-1.
        return unsafe { raw::getaddrinfo(node, service, hints, result) };
    };
    let found = simulated.sockets.borrow().network.resolve(&name);
    let address = found.first().and_then(|address| CString::new(address.to_string()).ok());
    let Some(address) = address else { return EAI_NONAME };
    // SAFETY: a string that lives until the call returns; else monkey-1.
    unsafe { raw::getaddrinfo(address.as_ptr(), service, hints, result) }
}

/// Stands in for getaddrinfo(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    if let Some(simulated) = simulated(part::DNS) {
        // SAFETY: monkey-1.
        return unsafe { look_up_simulated(simulated, (node, service), hints, result) };
    }
    let Some(_green) = green(part::DNS) else {
        // SAFETY: monkey-1.
        return unsafe { raw::getaddrinfo(node, service, hints, result) };
    };
    // Copy the arguments.
    let before = saved_errno();
    // SAFETY: monkey-1.
    let node = unsafe { copied(node) };
    // SAFETY: monkey-1.
    let service = unsafe { copied(service) };
    // SAFETY: null, or the caller's hints.
    let hints =
        unsafe { hints.as_ref() }.map(|hints| [hints.ai_flags, hints.ai_family, hints.ai_socktype, hints.ai_protocol]);
    let name = query_of(node.as_deref(), hints);
    let job = move || look_up(node.as_deref(), service.as_deref(), hints);
    // Look up elsewhere, and hand over the list, the C library's code or the errno.
    match on_name_thread(name, job) {
        Ok((0, _, mut found)) => {
            let list = std::mem::replace(&mut found.0, null_mut());
            // SAFETY: monkey-1: the caller's place for the list, which belongs to the caller from now on.
            unsafe { result.write(list) };
            finish(before, Ok(0));
            0
        }
        Ok((code, errno, _)) => {
            set_errno(if code == EAI_SYSTEM { errno } else { before });
            code
        }
        Err(errno) => {
            set_errno(errno);
            EAI_SYSTEM
        }
    }
}

/// The question that getnameinfo asks, in memory of its own.
struct NameQuery {
    /// The bytes of the socket address.
    address: Vec<u8>,
    /// Room for the name of the host.
    host: Vec<u8>,
    /// Room for the name of the service.
    service: Vec<u8>,
    /// What the names are to look like.
    flags: c_int,
}

impl NameQuery {
    /// Asks on this OS thread. Returns the C library's code, errno, and the query with the answers.
    fn ask(mut self) -> (c_int, i32, NameQuery) {
        /// Returns a buffer for the C library; null if there is no room.
        fn place(room: &mut [u8]) -> (*mut c_char, socklen_t) {
            let at = if room.is_empty() { null_mut() } else { room.as_mut_ptr().cast() };
            (at, room.len() as socklen_t)
        }
        let (address, len) = (self.address.as_ptr().cast(), self.address.len() as socklen_t);
        let ((host, host_len), (service, service_len)) = (place(&mut self.host), place(&mut self.service));
        // SAFETY: c-library-1: the address and the rooms are this value's, with their lengths.
        let code = unsafe { c_library::getnameinfo(address, len, host, host_len, service, service_len, self.flags) };
        (code, raw::errno(), self)
    }
}

/// Copies a string of `from` with the zero at its end to the caller's place, unless that is null.
///
/// # Safety
/// monkey-1: `to` is null, or as many bytes as `from` has may be written there.
unsafe fn hand_over(from: &[u8], to: *mut c_char) {
    let Ok(text) = CStr::from_bytes_until_nul(from) else { return };
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), to, text.count_bytes() + 1) };
    }
}

/// Stands in for getnameinfo(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getnameinfo(
    address: *const sockaddr,
    len: socklen_t,
    host: *mut c_char,
    host_len: socklen_t,
    service: *mut c_char,
    service_len: socklen_t,
    flags: c_int,
) -> c_int {
    // Without the name of a host only a file is read; and what is refused is for the C library to refuse.
    let [host_room, service_room] =
        [(host, host_len), (service, service_len)].map(|(at, len)| if at.is_null() { 0 } else { len as usize });
    let asks = flags & NI_NUMERICHOST == 0 && host_room > 0 && !address.is_null() && len as usize <= LONGEST_ADDRESS;
    let Some(_green) = green(part::DNS).filter(|_| asks) else {
        // SAFETY: monkey-1.
        return unsafe { c_library::getnameinfo(address, len, host, host_len, service, service_len, flags) };
    };
    // Copy the arguments.
    let before = saved_errno();
    // SAFETY: monkey-1.
    let address = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), len as usize) }.to_vec();
    let [host_room, service_room] = [host_room, service_room].map(|room| vec![0; room.min(MOST_ROOM)]);
    let query = NameQuery { address, host: host_room, service: service_room, flags };
    // Look up elsewhere, and hand over the names, or the code.
    match on_name_thread(Some(reverse_name()), move || query.ask()) {
        Ok((0, _, answer)) => {
            // SAFETY: monkey-1.
            unsafe { hand_over(&answer.host, host) };
            // SAFETY: monkey-1.
            unsafe { hand_over(&answer.service, service) };
            set_errno(before);
            0
        }
        Ok((code, errno, _)) => {
            set_errno(if code == EAI_SYSTEM { errno } else { before });
            code
        }
        Err(errno) => {
            set_errno(errno);
            EAI_SYSTEM
        }
    }
}
