//! Addresses of this process's own on loopback, for a server that cannot say which port it was given, and for what
//! must refuse.
//!
//! A port that was free a moment ago may be another's now: of another test's listener, or of a client's end of a
//! connection, which the kernel takes from the same range; a client may even be connected to itself. All of 127.0.0.0/8
//! is loopback, so the number of the process becomes a part of the address, and ports are dealt out in order.
#![allow(dead_code, unreachable_pub, reason = "each test uses some of the helpers")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

/// Returns an address at which nothing listens, nothing has listened, and no other test will.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    // Below the ports that the kernel gives to clients. Relaxed: nothing else is told by the number.
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_768, "a process of tests has 22 768 addresses");
    SocketAddr::from((own_ip(), port))
}

/// Returns this process's own address: 127.64.0.0 and the 22 bits that a process number has.
fn own_ip() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + (high & 63), middle, low)
}
