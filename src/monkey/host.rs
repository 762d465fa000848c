//! gethostbyname, gethostbyaddr and their relatives: the older lookups of names, on the OS threads of `dns.rs`.
//!
//! The C library writes the answer, a struct with pointers into a buffer, into memory of the OS thread that looks up.
//! The answer is copied from there ([`Host`]), and laid out anew in the caller's buffer:
//!
//! ```text
//!   OS thread:  hostent -> name, aliases, addresses     --- Host, owned --->   caller's buffer
//!                                                                              | pointers | addresses | strings |
//! ```
//!
//! The forms without a buffer return a struct that the next call overwrites. Here each green thread has one of its own,
//! which is freed at the end of the thread.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, null_mut};

use super::dns::{family_of, on_name_thread, reverse_name};
use super::gate::{green, part, saved_errno};
use crate::net::Family;
use crate::sys::c_library::{self, host_error::NETDB_INTERNAL, hostent, set_host_error};
use crate::sys::raw::{AF_INET, AF_INET6, ECANCELED, ERANGE, errno, set_errno, socklen_t};
use crate::thread::LocalKey;

/// The longest address that is looked up, in bytes: one of IPv6.
const LONGEST_ADDRESS: usize = 16;

/// The size of the first buffer for an answer, in bytes. It grows as needed.
const FIRST_ROOM: usize = 1024;

/// The largest buffer for an answer, in bytes.
const MOST_ROOM: usize = 1024 * 1024;

/// An answer, apart from any buffer.
struct Host {
    /// The name, and the other names.
    names: Vec<CString>,
    /// The family of the addresses.
    family: c_int,
    /// The length of each address.
    len: usize,
    /// The addresses, one after the other.
    addresses: Vec<u8>,
}

/// What a lookup asks for.
enum Question {
    /// The addresses of a name; of any family for none.
    Name(CString, Option<c_int>),
    /// The name of an address of this family.
    Address(Vec<u8>, c_int),
}

/// What the C library has answered.
struct Reply {
    /// The answer, if there is one.
    host: Option<Host>,
    /// The function's result: 0, or an errno.
    code: c_int,
    /// What the C library has left in its h_errno.
    host_error: c_int,
    /// What the C library has left in errno.
    errno: i32,
}

impl Reply {
    /// Makes the reply to a caller, of which the wait was ended by `errno`.
    fn ended(errno: i32) -> Reply {
        Reply { host: None, code: errno, host_error: NETDB_INTERNAL, errno }
    }
}

/// Returns the pointers of a list that ends with null.
///
/// # Safety
/// `list` is null, or points to such a list.
unsafe fn pointers(list: *mut *mut c_char) -> Vec<*mut c_char> {
    let mut found = Vec::new();
    if list.is_null() {
        return found;
    }
    loop {
        // SAFETY: the caller's promise: the end has not been reached.
        let pointer = unsafe { list.wrapping_add(found.len()).read() };
        if pointer.is_null() {
            return found;
        }
        found.push(pointer);
    }
}

impl Host {
    /// Copies an answer of the C library.
    ///
    /// # Safety
    /// The C library has filled `host`.
    unsafe fn copied(host: &hostent) -> Host {
        let mut names = vec![host.h_name];
        // SAFETY: the caller's promise.
        names.extend(unsafe { pointers(host.h_aliases) });
        // SAFETY: each pointer is that of a C string, by the caller's promise.
        let names = names.into_iter().map(|name| unsafe { CStr::from_ptr(name) }.to_owned()).collect();
        let len = usize::try_from(host.h_length).unwrap_or(0);
        // SAFETY: the caller's promise.
        let at = unsafe { pointers(host.h_addr_list) };
        // SAFETY: each pointer is that of an address of this length, by the caller's promise.
        let bytes = |address: *mut c_char| unsafe { std::slice::from_raw_parts(address.cast::<u8>(), len) };
        let addresses = at.into_iter().flat_map(bytes).copied().collect();
        Host { names, family: host.h_addrtype, len, addresses }
    }

    /// Lays the answer out for a buffer at `base` (aligned): the bytes, and where in them the lists and names begin.
    fn image(&self, base: usize) -> (Vec<u8>, [usize; 3]) {
        let count = self.addresses.len().checked_div(self.len).unwrap_or(0);
        let word = size_of::<usize>();
        // Lists of pointers first, each with a null at its end, since these must be aligned.
        let lists = (self.names.len() + count + 1) * word;
        let mut places: Vec<usize> = Vec::new();
        let mut at = base + lists + self.addresses.len();
        for name in &self.names {
            places.push(at);
            at += name.as_bytes_with_nul().len();
        }
        let (name, aliases) = (places[0], &places[1..]);
        let addresses = (0..count).map(|index| base + lists + index * self.len);
        let words = aliases.iter().copied().chain([0]).chain(addresses).chain([0]);
        let mut bytes: Vec<u8> = words.flat_map(usize::to_ne_bytes).collect();
        bytes.extend(&self.addresses);
        self.names.iter().for_each(|name| bytes.extend(name.as_bytes_with_nul()));
        (bytes, [name, base, base + (aliases.len() + 1) * word])
    }

    /// Writes the answer to the caller's struct and buffer. Returns false if the buffer is too small.
    ///
    /// # Safety
    /// monkey-1: `host` may be written, and `len` bytes at `buffer`.
    unsafe fn write(&self, host: *mut hostent, buffer: *mut c_char, len: usize) -> bool {
        // The caller's buffer need not be aligned.
        let skip = buffer.align_offset(align_of::<usize>());
        let begin = buffer.wrapping_add(skip);
        let (bytes, [name, aliases, list]) = self.image(begin.expose_provenance());
        if bytes.len().saturating_add(skip) > len {
            return false;
        }
        // SAFETY: the bytes fit into the caller's buffer (monkey-1), which is not this vector.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), begin, bytes.len()) };
        let made = hostent {
            h_name: ptr::with_exposed_provenance_mut(name),
            h_aliases: ptr::with_exposed_provenance_mut(aliases),
            h_addrtype: self.family,
            h_length: self.len as c_int,
            h_addr_list: ptr::with_exposed_provenance_mut(list),
        };
        // SAFETY: the caller's struct (monkey-1).
        unsafe { host.write(made) };
        true
    }
}

impl Question {
    /// Asks the C library on this OS thread.
    fn ask(&self) -> Reply {
        let mut room = FIRST_ROOM;
        loop {
            let mut buffer = vec![0_u8; room];
            // SAFETY: all zeros is a valid struct: null pointers and numbers.
            let mut host = unsafe { std::mem::zeroed::<hostent>() };
            let (mut result, mut host_error) = (null_mut(), 0);
            let code = self.call(&mut host, &mut buffer, &mut result, &mut host_error);
            let errno = errno();
            if code == ERANGE && room < MOST_ROOM {
                room *= 4;
                continue;
            }
            // SAFETY: the C library has filled the struct, if it says so.
            let host = (code == 0 && !result.is_null()).then(|| unsafe { Host::copied(&host) });
            return Reply { host, code, host_error, errno };
        }
    }

    /// Makes the call, with places for the answer.
    fn call(&self, host: &mut hostent, buffer: &mut [u8], result: &mut *mut hostent, error: &mut c_int) -> c_int {
        let (bytes, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        match self {
            Question::Name(name, None) => {
                // SAFETY: c-library-1: a C string, and places of this function's caller.
                unsafe { c_library::gethostbyname_r(name.as_ptr(), host, bytes, len, result, error) }
            }
            Question::Name(name, Some(family)) => {
                // SAFETY: as above.
                unsafe { c_library::gethostbyname2_r(name.as_ptr(), *family, host, bytes, len, result, error) }
            }
            Question::Address(address, kind) => {
                let (at, long) = (address.as_ptr().cast(), address.len() as socklen_t);
                // SAFETY: as above; the address has this length.
                unsafe { c_library::gethostbyaddr_r(at, long, *kind, host, bytes, len, result, error) }
            }
        }
    }

    /// Asks on an OS thread, while others run here.
    fn ask_elsewhere(self) -> Reply {
        let name = match &self {
            Question::Name(name, family) => (name.to_string_lossy().into_owned(), family.map_or(V4, family_of)),
            Question::Address(..) => reverse_name(),
        };
        match on_name_thread(Some(name), move || self.ask()) {
            Ok(reply) => reply,
            Err(errno) => Reply::ended(errno),
        }
    }
}

/// What gethostbyname looks for.
const V4: Family = Family { v4: true, v6: false };

/// The places into which a caller of a form with a buffer has its answer written.
struct Places {
    /// The caller's struct, to be filled.
    host: *mut hostent,
    /// Where the names and addresses go.
    buffer: *mut c_char,
    /// The length of the buffer.
    len: usize,
    /// The pointer to the struct, or null.
    result: *mut *mut hostent,
    /// The caller's own h_errno.
    error: *mut c_int,
}

impl Places {
    /// Asks, and writes the answer. Returns 0 or an errno, as the C library does.
    ///
    /// # Safety
    /// monkey-1.
    unsafe fn fill(&self, question: Question) -> c_int {
        let before = saved_errno();
        let reply = question.ask_elsewhere();
        // SAFETY: monkey-1.
        let fits = reply.host.as_ref().map(|host| unsafe { host.write(self.host, self.buffer, self.len) });
        let (code, host_error, errno) = match fits {
            Some(true) => (0, reply.host_error, before),
            Some(false) => (ERANGE, NETDB_INTERNAL, ERANGE),
            None => (reply.code, reply.host_error, reply.errno),
        };
        let result = if code == 0 && fits.is_some() { self.host } else { null_mut() };
        // SAFETY: monkey-1.
        unsafe { self.result.write(result) };
        // SAFETY: monkey-1.
        unsafe { self.error.write(host_error) };
        set_errno(errno);
        code
    }
}

/// The answer that a green thread's last call without a buffer has returned.
struct Last {
    /// The struct that the caller gets a pointer to.
    host: Box<hostent>,
    /// The bytes that the struct points to; words, so that they are aligned.
    buffer: Vec<usize>,
}

/// The last answer of each green thread.
static LAST: LocalKey<RefCell<Option<Last>>> = LocalKey::__new(RefCell::default, None);

/// Asks, and returns a pointer to a struct that is good until the next call of this green thread.
fn ask_for_pointer(question: Question) -> *mut hostent {
    let before = saved_errno();
    let reply = question.ask_elsewhere();
    let Some(host) = reply.host else {
        set_host_error(reply.host_error);
        set_errno(reply.errno);
        return null_mut();
    };
    // SAFETY: all zeros is a valid struct: null pointers and numbers.
    let mut last = Last { host: Box::new(unsafe { std::mem::zeroed::<hostent>() }), buffer: Vec::new() };
    last.buffer = vec![0; host.image(0).0.len().div_ceil(size_of::<usize>())];
    let (at, len) = (last.buffer.as_mut_ptr().cast(), size_of_val(&*last.buffer));
    // SAFETY: the struct and the buffer are this function's, and the buffer is as long as the image.
    let _ = unsafe { host.write(&raw mut *last.host, at, len) };
    let kept = LAST.try_with(|kept| {
        *kept.borrow_mut() = Some(last);
        kept.borrow_mut().as_mut().map_or(null_mut(), |last| &raw mut *last.host)
    });
    // The values of a green thread are gone while it ends.
    let Ok(pointer) = kept else {
        set_host_error(NETDB_INTERNAL);
        set_errno(ECANCELED);
        return null_mut();
    };
    set_errno(before);
    pointer
}

/// Copies the question for a name.
///
/// # Safety
/// monkey-1.
unsafe fn question_of_name(name: *const c_char, family: Option<c_int>) -> Question {
    // SAFETY: monkey-1.
    let name = unsafe { CStr::from_ptr(name) };
    Question::Name(name.to_owned(), family)
}

/// Copies the question for an address; none if the C library is to refuse it.
///
/// # Safety
/// monkey-1.
unsafe fn question_of_address(address: *const c_void, len: socklen_t, kind: c_int) -> Option<Question> {
    let len = len as usize;
    if len > LONGEST_ADDRESS || !matches!(kind, AF_INET | AF_INET6) {
        return None;
    }
    // SAFETY: monkey-1.
    let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), len) };
    Some(Question::Address(bytes.to_vec(), kind))
}

/// Stands in for gethostbyname(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn gethostbyname(name: *const c_char) -> *mut hostent {
    if green(part::DNS).is_none() {
        // SAFETY: monkey-1.
        return unsafe { c_library::gethostbyname(name) };
    }
    // SAFETY: monkey-1.
    ask_for_pointer(unsafe { question_of_name(name, None) })
}

/// Stands in for gethostbyname2(3).
///
/// # Safety
/// As [`gethostbyname`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    if green(part::DNS).is_none() {
        // SAFETY: monkey-1.
        return unsafe { c_library::gethostbyname2(name, family) };
    }
    // SAFETY: monkey-1.
    ask_for_pointer(unsafe { question_of_name(name, Some(family)) })
}

/// Stands in for gethostbyaddr(3).
///
/// # Safety
/// As [`gethostbyname`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn gethostbyaddr(address: *const c_void, len: socklen_t, kind: c_int) -> *mut hostent {
    // SAFETY: monkey-1.
    let question = green(part::DNS).and_then(|_| unsafe { question_of_address(address, len, kind) });
    match question {
        Some(question) => ask_for_pointer(question),
        // SAFETY: monkey-1.
        None => unsafe { c_library::gethostbyaddr(address, len, kind) },
    }
}

/// Stands in for gethostbyname_r(3).
///
/// # Safety
/// As [`gethostbyname`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn gethostbyname_r(
    name: *const c_char,
    host: *mut hostent,
    buffer: *mut c_char,
    len: usize,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    if green(part::DNS).is_none() {
        // SAFETY: monkey-1.
        return unsafe { c_library::gethostbyname_r(name, host, buffer, len, result, error) };
    }
    // SAFETY: monkey-1.
    let question = unsafe { question_of_name(name, None) };
    // SAFETY: monkey-1.
    unsafe { Places { host, buffer, len, result, error }.fill(question) }
}

/// Stands in for gethostbyname2_r(3).
///
/// # Safety
/// As [`gethostbyname`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    host: *mut hostent,
    buffer: *mut c_char,
    len: usize,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    if green(part::DNS).is_none() {
        // SAFETY: monkey-1.
        return unsafe { c_library::gethostbyname2_r(name, family, host, buffer, len, result, error) };
    }
    // SAFETY: monkey-1.
    let question = unsafe { question_of_name(name, Some(family)) };
    // SAFETY: monkey-1.
    unsafe { Places { host, buffer, len, result, error }.fill(question) }
}

/// Stands in for gethostbyaddr_r(3).
///
/// # Safety
/// As [`gethostbyname`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn gethostbyaddr_r(
    address: *const c_void,
    len: socklen_t,
    kind: c_int,
    host: *mut hostent,
    buffer: *mut c_char,
    room: usize,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: monkey-1.
    let question = green(part::DNS).and_then(|_| unsafe { question_of_address(address, len, kind) });
    match question {
        // SAFETY: monkey-1.
        Some(question) => unsafe { Places { host, buffer, len: room, result, error }.fill(question) },
        // SAFETY: monkey-1.
        None => unsafe { c_library::gethostbyaddr_r(address, len, kind, host, buffer, room, result, error) },
    }
}
