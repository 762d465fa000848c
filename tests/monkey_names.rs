//! Lookups of names by C's functions: others run meanwhile, and the answers are those of a plain OS thread.
#![allow(unsafe_code)]

mod common;
#[path = "common/patched.rs"]
mod helpers;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::time::Duration;

use greenling::spawn;
use helpers::{errno, no_other_runs, others_run, patched, set_errno};

unsafe extern "C" {
    fn gethostbyname(name: *const c_char) -> *mut libc::hostent;
    fn gethostbyname2(name: *const c_char, family: c_int) -> *mut libc::hostent;
    fn gethostbyaddr(address: *const c_void, len: libc::socklen_t, kind: c_int) -> *mut libc::hostent;
    fn gethostbyname_r(
        name: *const c_char,
        host: *mut libc::hostent,
        buffer: *mut c_char,
        len: usize,
        result: *mut *mut libc::hostent,
        error: *mut c_int,
    ) -> c_int;
    fn gethostbyname2_r(
        name: *const c_char,
        family: c_int,
        host: *mut libc::hostent,
        buffer: *mut c_char,
        len: usize,
        result: *mut *mut libc::hostent,
        error: *mut c_int,
    ) -> c_int;
    fn gethostbyaddr_r(
        address: *const c_void,
        len: libc::socklen_t,
        kind: c_int,
        host: *mut libc::hostent,
        buffer: *mut c_char,
        room: usize,
        result: *mut *mut libc::hostent,
        error: *mut c_int,
    ) -> c_int;
    fn __h_errno_location() -> *mut c_int;
}

/// What a struct of the C library says: names, family, addresses.
type Answer = (Vec<String>, c_int, Vec<Vec<u8>>);

/// Reads a list of pointers.
fn list(mut at: *mut *mut c_char) -> Vec<*mut c_char> {
    let mut found = Vec::new();
    loop {
        // SAFETY: the list ends with null. The C library does not align the list in the caller's buffer.
        let pointer = unsafe { at.read_unaligned() };
        if pointer.is_null() {
            return found;
        }
        found.push(pointer);
        at = at.wrapping_add(1);
    }
}

/// Reads an answer; none from null.
fn read(host: *mut libc::hostent) -> Option<Answer> {
    // SAFETY: null, or the C library's struct.
    let host = unsafe { host.as_ref() }?;
    // SAFETY: the names are C strings.
    let text = |name: *mut c_char| unsafe { CStr::from_ptr(name) }.to_str().unwrap().to_owned();
    let names = [host.h_name].into_iter().chain(list(host.h_aliases)).map(text).collect();
    // SAFETY: each address has this length.
    let bytes =
        |at: *mut c_char| unsafe { std::slice::from_raw_parts(at.cast::<u8>(), host.h_length as usize) }.to_vec();
    Some((names, host.h_addrtype, list(host.h_addr_list).into_iter().map(bytes).collect()))
}

/// The pointer's answer, and h_errno if there is none.
fn outcome(host: *mut libc::hostent) -> (Option<Answer>, c_int) {
    let answer = read(host);
    // SAFETY: the function has no condition.
    let at = unsafe { __h_errno_location() };
    // SAFETY: the address is good as long as the OS thread runs.
    let error = unsafe { *at };
    let failed = answer.is_none();
    (answer, if failed { error } else { 0 })
}

/// A form with a buffer: the result, the answer and h_errno.
type WithBuffer = (c_int, Option<Answer>, c_int);

/// Calls a form with a buffer of `len` bytes that begin at an odd address.
fn with_buffer(
    len: usize,
    call: impl FnOnce(*mut libc::hostent, *mut c_char, *mut *mut libc::hostent, *mut c_int) -> c_int,
) -> WithBuffer {
    let mut buffer = vec![0x55_u8; len + 1];
    // SAFETY: all zeros is a valid struct.
    let mut host = unsafe { std::mem::zeroed::<libc::hostent>() };
    let (mut result, mut error) = (null_mut(), 0);
    let code = call(&raw mut host, buffer[1..].as_mut_ptr().cast(), &raw mut result, &raw mut error);
    (code, read(result), if result.is_null() { error } else { 0 })
}

/// The answers of the forms without a buffer, of those with one, and of getnameinfo.
type Answers = (Vec<(Option<Answer>, c_int)>, Vec<WithBuffer>, Vec<(c_int, String, String)>);

/// All questions that need no network.
fn answers() -> Answers {
    let names = ["localhost", "127.1", "127.0.0.1", "a name with blanks"].map(|name| CString::new(name).unwrap());
    let (v4, v6) = ([127_u8, 0, 0, 1], std::net::Ipv6Addr::LOCALHOST.octets());
    let (mut plain, mut buffered) = (Vec::new(), Vec::new());
    for name in &names {
        let at = name.as_ptr();
        // SAFETY: here and below: C strings, addresses with their lengths, and the places of `with_buffer`.
        plain.push(outcome(unsafe { gethostbyname(at) }));
        // SAFETY: as above.
        plain.push(outcome(unsafe { gethostbyname2(at, libc::AF_INET6) }));
        // A buffer that is too small for nothing is refused by the C library, and not here.
        let small = name.to_bytes() != b"a name with blanks";
        for len in [4000, 8].into_iter().take(1 + usize::from(small)) {
            // SAFETY: as above.
            buffered.push(with_buffer(len, |host, buffer, result, error| unsafe {
                gethostbyname_r(at, host, buffer, len, result, error)
            }));
            // SAFETY: as above.
            buffered.push(with_buffer(len, |host, buffer, result, error| unsafe {
                gethostbyname2_r(at, libc::AF_INET, host, buffer, len, result, error)
            }));
        }
    }
    for (address, kind) in [(&v4[..], libc::AF_INET), (&v6[..], libc::AF_INET6), (&v4[..3], libc::AF_INET)] {
        let (at, len) = (address.as_ptr().cast(), address.len() as libc::socklen_t);
        // SAFETY: as above.
        plain.push(outcome(unsafe { gethostbyaddr(at, len, kind) }));
        // SAFETY: as above.
        buffered.push(with_buffer(4000, |host, buffer, result, error| unsafe {
            gethostbyaddr_r(at, len, kind, host, buffer, 4000, result, error)
        }));
    }
    let infos = [0, libc::NI_NUMERICHOST, libc::NI_NUMERICHOST | libc::NI_NUMERICSERV, libc::NI_NUMERICSERV]
        .into_iter()
        .flat_map(|flags| [(100, 100), (2, 100), (100, 2), (0, 100), (100, 0)].map(|rooms| info(rooms, flags)))
        .collect();
    (plain, buffered, infos)
}

/// getnameinfo of this machine, port 80, with room for so many bytes.
fn info(rooms: (usize, usize), flags: c_int) -> (c_int, String, String) {
    // SAFETY: all zeros is a valid address.
    let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_in>() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_port = 80_u16.to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    let (mut host, mut service) = (vec![0_u8; rooms.0], vec![0_u8; rooms.1]);
    let at = |room: &mut Vec<u8>| if room.is_empty() { null_mut() } else { room.as_mut_ptr().cast::<c_char>() };
    let (host_at, service_at) = (at(&mut host), at(&mut service));
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address and the rooms live until the call returns.
    let code = unsafe {
        let (host_len, service_len) = (rooms.0 as libc::socklen_t, rooms.1 as libc::socklen_t);
        libc::getnameinfo((&raw const address).cast(), len, host_at, host_len, service_at, service_len, flags)
    };
    let text =
        |room: &[u8]| CStr::from_bytes_until_nul(room).map_or(String::new(), |text| text.to_string_lossy().into());
    if code == 0 { (0, text(&host), text(&service)) } else { (code, String::new(), String::new()) }
}

#[test]
fn names_of_hosts_are_as_in_a_plain_os_thread() {
    let _guard = patched();
    let expected = std::thread::spawn(answers).join().unwrap();
    assert_eq!(others_run(answers), expected, "main");
    let thread = spawn(answers);
    assert_eq!(thread.join().unwrap(), expected, "a green thread");
    let (plain, buffered, infos) = &expected;
    assert_eq!(plain[0].0.as_ref().unwrap().2, [[127, 0, 0, 1]], "they meant what they should");
    assert!(buffered.iter().any(|answer| answer.0 == libc::ERANGE), "one buffer was too small");
    assert!(infos.iter().any(|answer| answer.0 == 0) && infos.iter().any(|answer| answer.0 != 0));
}

#[test]
fn a_number_asks_no_other_thread() {
    let _guard = patched();
    let numbers = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
    let expected = (0, String::from("127.0.0.1"), String::from("80"));
    assert_eq!(no_other_runs(|| info((100, 100), numbers)), expected);
}

#[test]
fn each_green_thread_keeps_its_last_answer() {
    let _guard = patched();
    let [first, second] = ["127.0.0.1", "127.0.0.2"].map(|name| {
        spawn(move || {
            let name = CString::new(name).unwrap();
            // SAFETY: a C string.
            let host = unsafe { gethostbyname(name.as_ptr()) };
            greenling::sleep(Duration::from_millis(20));
            read(host).unwrap().2
        })
    });
    assert_eq!(first.join().unwrap(), [[127, 0, 0, 1]]);
    assert_eq!(second.join().unwrap(), [[127, 0, 0, 2]]);
}

#[test]
fn errno_is_kept_over_a_lookup_that_succeeds() {
    let _guard = patched();
    spawn(|| ()).join().unwrap();
    set_errno(77);
    let answer = info((100, 100), 0);
    assert_eq!(errno(), 77);
    assert_eq!(answer.0, 0);
    // SAFETY: a null address is the C library's to refuse.
    let refused = unsafe { libc::getnameinfo(null(), 0, null_mut(), 0, null_mut(), 0, 0) };
    assert_ne!(refused, 0);
}
