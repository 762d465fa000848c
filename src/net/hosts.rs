//! A check whether the C library finds a name on this machine, without asking the network.
//!
//! ```text
//!   /etc/nsswitch.conf    hosts: files dns          the file comes first, and a name that is in it ends the search
//!   /etc/hosts            127.0.0.1  localhost db   the names
//! ```
//!
//! Nothing is resolved here: `getaddrinfo` does that, and decides on order, families and aliases. The check only
//! decides whether the answer of `getaddrinfo` may take seconds. In case of doubt the check says that it may.
//!
//! Source of the rules: nsswitch.conf(5), hosts(5), inet_aton(3), and how glibc reads them. Other C libraries have no
//! `nsswitch.conf` and look into the file first.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

/// The address families that the caller accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// Whether addresses of IPv4 are accepted.
    pub(crate) v4: bool,
    /// Whether addresses of IPv6 are accepted.
    pub(crate) v6: bool,
}

impl Family {
    /// Accepts addresses of both families.
    pub(super) const ANY: Family = Family { v4: true, v6: true };
}

/// Reports whether `host` is found without the network. Reads two small files.
pub(super) fn is_local(host: &str, family: Family) -> bool {
    is_number(host)
        || files_come_first(&text_of("/etc/nsswitch.conf")) && is_listed(&text_of("/etc/hosts"), host, family)
}

/// Returns the text of a file. As for the C library, a missing file is an empty one.
fn text_of(path: impl AsRef<Path>) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Reports whether `host` is an address in one of the notations of inet_aton(3), or of IPv6, also with a scope.
fn is_number(host: &str) -> bool {
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok() || is_dotted(host)
}

/// Reports whether `host` consists of one to four numbers with dots between them, each decimal, octal or hexadecimal.
/// The last number fills the bits that the others leave of the 32.
fn is_dotted(host: &str) -> bool {
    let parts: Vec<Option<u64>> = host.split('.').map(number).collect();
    let Some((last, others)) = parts.split_last() else { return false };
    others.len() <= 3
        && others.iter().all(|part| part.is_some_and(|part| part <= 0xff))
        && last.is_some_and(|part| part < 1 << (8 * (4 - others.len())))
}

/// Parses a number in C's notation.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // `from_str_radix` would accept a sign.
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(digits, radix).ok().filter(|_| is_plain)
}

/// Reports whether `/etc/hosts` is searched first and a name found there ends the search. `text` is the text of
/// `nsswitch.conf`.
fn files_come_first(text: &str) -> bool {
    // Without a line for hosts, the C library searches the file first; of several lines, the last counts.
    let lines = text.lines().map(|line| line.split_once('#').map_or(line, |(line, _)| line).trim());
    let Some(sources) = lines.filter_map(|line| line.strip_prefix("hosts:")).next_back() else { return true };
    let Some(next) = sources.trim_start().strip_prefix("files") else { return false };
    match next.trim_start().strip_prefix('[') {
        // An action for "success" replaces the default one, which is to return.
        Some(action) => !action.split(']').next().is_some_and(|action| action.to_ascii_lowercase().contains("success")),
        None => next.is_empty() || next.starts_with(char::is_whitespace),
    }
}

/// Reports whether `text`, that of `/etc/hosts`, gives `host` an address of a family that `family` accepts.
fn is_listed(text: &str, host: &str, family: Family) -> bool {
    text.lines().any(|line| {
        // A line is an address and its names, up to a comment.
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address = words.next().and_then(|address| address.parse::<IpAddr>().ok());
        let fits = |address: IpAddr| if address.is_ipv4() { family.v4 } else { family.v6 };
        address.is_some_and(fits) && words.any(|name| name.eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts addresses of IPv4 only.
    const V4: Family = Family { v4: true, v6: false };

    /// Accepts addresses of IPv6 only.
    const V6: Family = Family { v4: false, v6: true };

    #[test]
    fn a_name_of_the_hosts_file_is_found_whatever_its_case_and_place() {
        let text =
            "# 1.1.1.1 commented\n127.0.0.1\tlocalhost loopback # alias\n::1 six ip6\nnonsense broken\n\n10.0.0.1 DB";
        for host in ["localhost", "LOCALHOST", "loopback", "db", "six"] {
            assert!(is_listed(text, host, Family::ANY), "{host}");
        }
        for host in ["commented", "alias", "broken", "local", "localhost.", "127.0.0.1", ""] {
            assert!(!is_listed(text, host, Family::ANY), "{host}");
        }
        assert!(is_listed(text, "db", V4) && !is_listed(text, "db", V6));
        assert!(is_listed(text, "six", V6) && !is_listed(text, "six", V4));
    }

    #[test]
    fn the_file_is_the_answer_only_if_it_is_asked_first_and_ends_the_search() {
        for text in [
            "",
            "passwd: files",
            "hosts: files dns",
            "hosts:files",
            "  hosts:\tfiles mdns4_minimal [NOTFOUND=return] dns # comment",
            "hosts: files [NOTFOUND=return] dns",
            "#hosts: dns",
        ] {
            assert!(files_come_first(text), "{text}");
        }
        for text in [
            "hosts: dns files",
            "hosts: mymachines resolve [!UNAVAIL=return] files dns",
            "hosts: files [SUCCESS=merge] dns",
            "hosts: files[success=continue] dns",
            "hosts: filesystem",
            "hosts:",
        ] {
            assert!(!files_come_first(text), "{text}");
        }
    }

    #[test]
    fn numbers_are_known_in_all_notations_of_c() {
        for host in ["127.0.0.1", "127.1", "0x7f.0.0.01", "2130706433", "0", "::1", "fe80::1%lo", "10.0x1ff", "0377.1"]
        {
            assert!(is_number(host), "{host}");
        }
        for host in
            ["", "a", "1.2.3.4.5", "256.1", "127.1.", ".1", "0x", "08", "4294967296", "+1", "1.-1", "fe80::g%lo"]
        {
            assert!(!is_number(host), "{host}");
        }
    }

    #[test]
    fn the_c_library_agrees_that_these_are_numbers() {
        use std::net::ToSocketAddrs;
        for (host, address) in [("127.1", "127.0.0.1:1"), ("0x7f.0.0.01", "127.0.0.1:1"), ("2130706433", "127.0.0.1:1")]
        {
            let found: Vec<_> = (host, 1).to_socket_addrs().unwrap().collect();
            assert_eq!(found, [address.parse().unwrap()], "{host}");
        }
    }
}
