//! getaddrinfo: names, looked up by the OS threads that look up names for native sockets, too.
//!
//! The arguments are copied, since the caller may be killed while an OS thread uses them. What was found is a list on the C
//! heap, freed by whoever holds it last: the C caller, or, if nobody waits for it any more, [`Found`].
//!
//! Invariant M1 holds here as in `stream.rs`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, null, null_mut};

use super::gate::{blocking, entry, finish, green, part};
use crate::net::on_lookup_thread;
use crate::sys::raw::{self, EAI_SYSTEM, ECANCELED, addrinfo, set_errno};

/// A list that getaddrinfo made; freed when dropped.
struct Found(*mut addrinfo);

// SAFETY: the list belongs to this value alone, and the C library frees it on any OS thread.
unsafe impl Send for Found {}

impl Drop for Found {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it came from getaddrinfo, and nobody else has it.
            unsafe { raw::freeaddrinfo(self.0) };
        }
    }
}

/// What a lookup is made of, and then its result.
type Hints = Option<[c_int; 4]>;

/// Looks up on this OS thread; the C library's code, errno, and the list.
fn look_up(node: Option<&CStr>, service: Option<&CStr>, hints: Hints) -> (c_int, i32, Found) {
    // SAFETY: all zeros is a valid struct: no flags, null pointers.
    let mut wanted = unsafe { std::mem::zeroed::<addrinfo>() };
    if let Some([flags, family, kind, protocol]) = hints {
        wanted.ai_flags = flags;
        wanted.ai_family = family;
        wanted.ai_socktype = kind;
        wanted.ai_protocol = protocol;
    }
    let wanted = if hints.is_some() { ptr::from_ref(&wanted) } else { null() };
    let (node, service) = (node.map_or(null(), CStr::as_ptr), service.map_or(null(), CStr::as_ptr));
    let mut list = null_mut();
    // SAFETY: strings and hints live until the call returns, or are null, which is allowed.
    let code = unsafe { raw::getaddrinfo(node, service, wanted, &raw mut list) };
    let errno = raw::errno();
    (code, errno, Found(if code == 0 { list } else { null_mut() }))
}

/// A C string of the caller's, copied.
///
/// # Safety
/// M1.
unsafe fn copied(text: *const c_char) -> Option<CString> {
    // SAFETY: not null, so it is the caller's string.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
}

/// getaddrinfo(3).
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
    let Some(_green) = green(part::DNS) else {
        // SAFETY: M1.
        return unsafe { raw::getaddrinfo(node, service, hints, result) };
    };
    let before = entry();
    // SAFETY: M1.
    let node = unsafe { copied(node) };
    // SAFETY: M1.
    let service = unsafe { copied(service) };
    // SAFETY: null, or the caller's hints.
    let hints =
        unsafe { hints.as_ref() }.map(|hints| [hints.ai_flags, hints.ai_family, hints.ai_socktype, hints.ai_protocol]);
    let job = move || look_up(node.as_deref(), service.as_deref(), hints);
    match blocking(|| on_lookup_thread(job)) {
        Ok(Ok((0, _, mut found))) => {
            let list = std::mem::replace(&mut found.0, null_mut());
            // SAFETY: M1: where the caller wants the list, which is the caller's from now on.
            unsafe { result.write(list) };
            finish(before, Ok(0));
            0
        }
        Ok(Ok((code, errno, _))) => {
            set_errno(if code == EAI_SYSTEM { errno } else { before });
            code
        }
        Ok(Err(error)) => {
            set_errno(error.raw_os_error().unwrap_or(ECANCELED));
            EAI_SYSTEM
        }
        Err(errno) => {
            set_errno(errno);
            EAI_SYSTEM
        }
    }
}
