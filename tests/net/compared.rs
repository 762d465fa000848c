//! The same program against `std::net` in an OS thread and against `greenling::net` gives the same results and the
//! same kinds of errors; and connections go over from one to the other and back.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use crate::net_support::{Log, bounded, note, same_as_std, settle, with_std_peer};
use greenling::net::{TcpListener, TcpStream};
use greenling::spawn;

const SHORT: Duration = Duration::from_millis(20);

same_as_std!(addresses_are_understood_and_refused_alike, kernel, |log| {
    use net::ToSocketAddrs;
    fn all<A: ToSocketAddrs>(addr: A) -> std::io::Result<Vec<std::net::SocketAddr>> {
        Ok(addr.to_socket_addrs()?.collect())
    }
    for text in [
        "127.0.0.1:80",
        "[::1]:80",
        "[fe80::1%3]:80",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "",
        ":",
        ":80",
        "localhost:80",
        "a b:80",
        "nul\0byte:80",
        "256.0.0.1.:80",
    ] {
        let mut found = all(text).map_err(|error| std::io::Error::from(error.kind()));
        if let Ok(found) = &mut found {
            found.sort();
            found.dedup();
        }
        note(&mut log, text, found);
    }
    note(&mut log, "string", all(String::from("127.0.0.1:1")));
    let text = "127.0.0.1:1";
    note(&mut log, "reference", all::<&&str>(&text));
    note(&mut log, "str and port", all(("127.0.0.1", 2)));
    note(&mut log, "str and port 6", all(("::1", 2)));
    note(&mut log, "string and port", all((String::from("10.0.0.1"), 2)));
    note(&mut log, "ip and port", all((std::net::IpAddr::from([1, 2, 3, 4]), 3)));
    note(&mut log, "ip4 and port", all((std::net::Ipv4Addr::LOCALHOST, 3)));
    note(&mut log, "ip6 and port", all((std::net::Ipv6Addr::LOCALHOST, 3)));
    let list: [std::net::SocketAddr; 2] = ["1.2.3.4:5".parse().unwrap(), "[::1]:6".parse().unwrap()];
    note(&mut log, "list", all(&list[..]));
    note(&mut log, "one", all(list[0]));
    let messages: Vec<_> = ["127.0.0.1", "127.0.0.1:x"].map(|text| all(text).unwrap_err().to_string()).into();
    log.extend(messages);
    let none: &[std::net::SocketAddr] = &[];
    note(&mut log, "bind nowhere", net::TcpListener::bind(none).map(drop));
    note(&mut log, "connect nowhere", net::TcpStream::connect(none).map(drop));
    log.push(net::TcpStream::connect(none).unwrap_err().to_string());
});

same_as_std!(binding_and_connecting_fail_alike, |log| {
    let first = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = first.local_addr().unwrap();
    note(&mut log, "bind in use", net::TcpListener::bind(addr).map(drop));
    note(&mut log, "bind elsewhere", net::TcpListener::bind("192.0.2.1:0").map(drop));
    note(&mut log, "bind text", net::TcpListener::bind("nonsense").map(drop));
    let free = [addr, "127.0.0.1:0".parse().unwrap()];
    note(&mut log, "bind second choice", net::TcpListener::bind(&free[..]).map(drop));
    drop(first);
    note(&mut log, "rebind", net::TcpListener::bind(addr).map(drop));
    note(&mut log, "refused", net::TcpStream::connect(addr).map(drop));
    note(&mut log, "refused in time", net::TcpStream::connect_timeout(&addr, SHORT).map(drop));
    note(&mut log, "zero timeout", net::TcpStream::connect_timeout(&addr, Duration::ZERO).map(drop));
    note(&mut log, "broadcast", net::TcpStream::connect("255.255.255.255:1").map(drop));
    let second = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let choices = [addr, second.local_addr().unwrap()];
    note(&mut log, "connect second choice", net::TcpStream::connect(&choices[..]).map(drop));
});

same_as_std!(options_are_kept_alike, |log| {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    assert_eq!(peer, stream.local_addr().unwrap());
    assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    assert_eq!(accepted.peer_addr().unwrap(), peer);
    note(&mut log, "nodelay", stream.nodelay());
    note(&mut log, "set nodelay", stream.set_nodelay(true));
    note(&mut log, "nodelay", stream.nodelay());
    note(&mut log, "ttl", stream.ttl());
    note(&mut log, "set ttl", stream.set_ttl(9));
    note(&mut log, "ttl", stream.ttl());
    note(&mut log, "set bad ttl", stream.set_ttl(1000));
    note(&mut log, "listener ttl", listener.set_ttl(11).and_then(|()| listener.ttl()));
    note(&mut log, "read timeout", stream.read_timeout());
    note(&mut log, "zero read timeout", stream.set_read_timeout(Some(Duration::ZERO)));
    note(&mut log, "zero write timeout", stream.set_write_timeout(Some(Duration::ZERO)));
    log.push(stream.set_read_timeout(Some(Duration::ZERO)).unwrap_err().to_string());
    note(&mut log, "set read timeout", stream.set_read_timeout(Some(Duration::from_secs(2))));
    note(&mut log, "set write timeout", stream.set_write_timeout(Some(Duration::from_secs(3))));
    note(&mut log, "timeouts", stream.read_timeout().and_then(|read| Ok((read, stream.write_timeout()?))));
    let clone = stream.try_clone().unwrap();
    note(&mut log, "clone's", clone.read_timeout().and_then(|read| Ok((read, clone.write_timeout()?))));
    note(&mut log, "unset by clone", clone.set_read_timeout(None));
    note(&mut log, "timeouts", stream.read_timeout().and_then(|read| Ok((read, stream.write_timeout()?))));
    note(&mut log, "no error", stream.take_error().map(|error| error.is_none()));
    note(&mut log, "no error", listener.take_error().map(|error| error.is_none()));
    log.push(format!("{stream:?}").replace(|c: char| c.is_ascii_digit(), ""));
    log.push(format!("{listener:?}").replace(|c: char| c.is_ascii_digit(), ""));
    log.push(format!("{:?}", listener.incoming()).replace(|c: char| c.is_ascii_digit(), ""));
});

same_as_std!(reads_and_writes_end_alike, |log| {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let mut buf = [0; 8];
    note(&mut log, "empty write", near.write(b""));
    note(&mut log, "write", near.write(b"abc"));
    note(&mut log, "empty read", far.read(&mut []));
    note(&mut log, "peek", far.peek(&mut buf));
    note(&mut log, "read", far.read(&mut buf));
    note(&mut log, "flush", near.flush());
    far.set_read_timeout(Some(SHORT)).unwrap();
    note(&mut log, "timed out", far.read(&mut buf));
    note(&mut log, "timed out peek", far.peek(&mut buf));
    far.set_nonblocking(true).unwrap();
    note(&mut log, "non-blocking", far.read(&mut buf));
    listener.set_nonblocking(true).unwrap();
    note(&mut log, "non-blocking accept", listener.accept().map(drop));
    note(&mut log, "non-blocking incoming", listener.incoming().next().unwrap().map(drop));
    far.set_nonblocking(false).unwrap();
    note(&mut log, "shutdown", near.shutdown(net::Shutdown::Write));
    note(&mut log, "write after shutdown", near.write(b"x"));
    note(&mut log, "end", far.read(&mut buf));
    note(&mut log, "end again", far.read(&mut buf));
    note(&mut log, "shutdown of the other", far.shutdown(net::Shutdown::Both));
    note(&mut log, "end", near.read(&mut buf));
    note(&mut log, "shutdown of nothing", near.shutdown(net::Shutdown::Both));
    note(&mut log, "peer of nothing", near.peer_addr());
});

same_as_std!(a_reset_shows_alike, |log| {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    // What was not read makes the close a reset.
    near.write_all(b"x").unwrap();
    drop(far);
    std::thread::sleep(Duration::from_millis(5));
    note(&mut log, "read", near.read(&mut [0; 8]));
    note(&mut log, "read again", near.read(&mut [0; 8]));
    note(&mut log, "write", near.write(b"x"));
    note(&mut log, "peer", near.peer_addr());
});

same_as_std!(a_reset_is_taken_as_an_error_alike, |log| {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    // What was not read makes the close a reset.
    near.write_all(b"x").unwrap();
    drop(far);
    std::thread::sleep(Duration::from_millis(5));
    note(&mut log, "error", near.take_error().map(|error| error.map(|error| error.kind())));
    note(&mut log, "once", near.take_error().map(|error| error.map(|error| error.kind())));
});

/// Whether the kernel's socket is non-blocking: what `fcntl` would say, read without it.
fn is_nonblocking(fd: &impl AsRawFd) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_NONBLOCK as u32 != 0
}

#[test]
fn a_stream_goes_to_std_and_back_with_its_data_mode_and_timeouts() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        assert!(is_nonblocking(&stream));
        // Registered, with data in flight.
        let writer = spawn(move || {
            peer.write_all(b"abcdef").unwrap();
            peer
        });
        let mut buf = [0; 2];
        stream.read_exact(&mut buf).unwrap();
        let mut peer = writer.join().unwrap();
        stream.set_read_timeout(Some(SHORT)).unwrap();

        let mut std = std::net::TcpStream::from(stream);
        assert!(!is_nonblocking(&std));
        assert_eq!(std.read_timeout().unwrap(), Some(SHORT));
        assert_eq!(std.write_timeout().unwrap(), None);
        std.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"cd");
        std.set_write_timeout(Some(2 * SHORT)).unwrap();

        let mut stream = TcpStream::from(std);
        assert!(is_nonblocking(&stream));
        assert_eq!(stream.read_timeout().unwrap(), Some(SHORT));
        assert_eq!(stream.write_timeout().unwrap(), Some(2 * SHORT));
        stream.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"ef");
        assert_eq!(stream.read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.set_read_timeout(None).unwrap();
        stream.set_nonblocking(true).unwrap();

        // As a plain descriptor, in the mode the program asked for.
        let fd = OwnedFd::from(stream);
        assert!(is_nonblocking(&fd));
        let std = std::net::TcpStream::from(fd);
        assert_eq!(std.read_timeout().unwrap(), None);
        let mut stream = TcpStream::from(OwnedFd::from(std));
        let writer = spawn(move || {
            peer.write_all(b"gh").unwrap();
            peer
        });
        stream.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"gh");
        drop(writer.join().unwrap());
    });
}

#[test]
fn a_listener_goes_to_std_and_back() {
    bounded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(is_nonblocking(&listener));
        let acceptor = spawn(move || {
            listener.accept().unwrap();
            listener
        });
        settle();
        let _first = TcpStream::connect(addr).unwrap();
        let std = std::net::TcpListener::from(acceptor.join().unwrap());
        assert!(!is_nonblocking(&std));
        let _second = std::net::TcpStream::connect(addr).unwrap();
        assert!(!is_nonblocking(&std.accept().unwrap().0));
        let listener = TcpListener::from(std);
        assert!(is_nonblocking(&listener));
        let _third = std::net::TcpStream::connect(addr).unwrap();
        assert!(is_nonblocking(&listener.accept().unwrap().0));
        let fd = OwnedFd::from(listener);
        assert!(!is_nonblocking(&fd));
        assert_eq!(TcpListener::from(fd).local_addr().unwrap(), addr);
    });
}

#[test]
fn a_stream_that_went_away_leaves_no_registration() {
    bounded(|| {
        let (stream, mut peer) = with_std_peer();
        stream.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
        assert!((&stream).read(&mut [0]).is_err());
        assert!(epoll_entries().contains(&stream.as_raw_fd()));
        let raw = stream.into_raw_fd();
        assert!(!epoll_entries().contains(&raw));
        peer.write_all(b"x").unwrap();
        settle();
    });

    /// Returns the descriptors in this OS thread's epoll set, without that of the bell.
    fn epoll_entries() -> Vec<i32> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fdinfo").unwrap() {
            let Ok(info) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
            all.extend(info.lines().filter_map(|line| {
                let line = line.strip_prefix("tfd:")?;
                line.split_whitespace().next()?.parse::<i32>().ok()
            }));
        }
        all
    }
}

#[test]
fn a_raw_number_and_a_borrowed_descriptor_are_the_sockets_own() {
    let (stream, _peer) = with_std_peer();
    assert_eq!(stream.as_fd().as_raw_fd(), stream.as_raw_fd());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(listener.as_fd().as_raw_fd(), listener.as_raw_fd());
}
