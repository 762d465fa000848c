//! Where connections come from: source addresses, and the ports of each.
#![forbid(unsafe_code)]

use std::iter::{Cycle, Skip};
use std::net::Ipv4Addr;
use std::ops::{Range, RangeInclusive};

use crate::options::Options;

impl Options {
    /// Returns the source address of a connection, if the kernel is not to choose one.
    pub(crate) fn source(&self, index: usize) -> Option<Ipv4Addr> {
        let from = self.from.as_ref()?;
        let count = (from.end() - from.start()) as usize + 1;
        Some(Ipv4Addr::from(from.start() + (index % count) as u32))
    }

    /// Returns the ports of one source address, again and again. Each process begins somewhere else: those that the
    /// process before has used are blocked for a minute.
    pub(crate) fn ports(&self) -> Ports {
        let place = std::process::id() as usize * 7919 % self.ports.len();
        self.ports.clone().cycle().skip(place)
    }
}

/// An endless row of ports; see [`Options::ports`].
pub(crate) type Ports = Skip<Cycle<Range<u16>>>;

/// Returns the ports that the kernel would choose from.
pub(crate) fn local_ports() -> Range<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first < last => first..last,
        _ => 32768..60999,
    }
}

/// Reads `A` or `A-B`.
pub(crate) fn addresses(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<Ipv4Addr>(), last.trim().parse::<Ipv4Addr>()) {
        (Ok(first), Ok(last)) if first <= last => Ok(u32::from(first)..=u32::from(last)),
        _ => Err(format!("--from-addresses {text}: not IPv4 A-B")),
    }
}
