//! Sockets of std in a simulation: they are the simulated network's, and wait in virtual time.

use std::io::{ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use greenling::sim::{self, Config, FailureKind};
use greenling::{sleep, spawn};

use crate::helpers::patched;

const SECOND: Duration = Duration::from_secs(1);

/// Starts a server of std on the host `name`, which sends back what comes on each of `count` connections.
fn echo(name: &str, count: usize) -> greenling::thread::JoinHandle<()> {
    let listening = std::rc::Rc::new(greenling::sync::Event::new());
    let tell = std::rc::Rc::clone(&listening);
    let server = sim::host(name, move || {
        let listener = TcpListener::bind("0.0.0.0:7").unwrap();
        tell.set();
        for _ in 0..count {
            let (stream, _) = listener.accept().unwrap();
            spawn(move || drop(std::io::copy(&mut &stream, &mut &stream)));
        }
    });
    listening.wait();
    server
}

#[test]
fn streams_of_std_talk_between_hosts() {
    let _guard = patched();
    sim::run(1, || {
        let server = echo("echo", 2);
        let mut stream = TcpStream::connect("echo:7").unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), sim::network().address("echo"));
        assert_eq!(stream.local_addr().unwrap().ip(), sim::network().address("localhost"));
        stream.set_nodelay(true).unwrap();
        assert!(stream.nodelay().unwrap());
        stream.write_all(b"hello").unwrap();
        let mut buf = [0; 5];
        assert_eq!((stream.peek(&mut buf).unwrap() > 0, stream.read_exact(&mut buf).is_ok()), (true, true));
        assert_eq!(&buf, b"hello");
        // More than fits into the buffers, and both halves of a clone.
        let whole: Vec<u8> = (0..2_000_000_u32).map(|n| n as u8).collect();
        let (mut writer, text) = (stream.try_clone().unwrap(), whole.clone());
        let writes = spawn(move || {
            writer.write_all(&text).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == whole);
        writes.join().unwrap();
        let addr = "echo:7".to_socket_addrs().unwrap().next().unwrap();
        drop(TcpStream::connect_timeout(&addr, SECOND).unwrap());
        server.join().unwrap();
        // A millisecond for each way, and for nothing else.
        assert!(sim::elapsed() < SECOND, "{:?}", sim::elapsed());
    });
}

#[test]
fn a_time_limit_on_a_silent_host_takes_virtual_time_only() {
    let _guard = patched();
    let begin = Instant::now();
    let limit = 3600 * SECOND;
    sim::run(1, || {
        sim::host("silent", move || {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            let held = listener.accept().unwrap();
            std::thread::sleep(2 * limit);
            drop(held);
        });
        std::thread::sleep(SECOND);
        let mut stream = TcpStream::connect("silent:80").unwrap();
        stream.set_read_timeout(Some(limit)).unwrap();
        assert_eq!(stream.read_timeout().unwrap(), Some(limit));
        let asked = Instant::now();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(asked.elapsed(), limit);
        // One that does not block says so at once.
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(asked.elapsed(), limit);
    });
    assert!(begin.elapsed() < limit);
}

#[test]
fn errors_are_those_of_linux() {
    let _guard = patched();
    sim::run(1, || {
        let server = echo("echo", 1);
        assert_eq!(TcpStream::connect("echo:8").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(TcpStream::connect("nowhere:7").is_err());
        let listener = TcpListener::bind("127.0.0.1:80").unwrap();
        assert_eq!(TcpListener::bind("127.0.0.1:80").unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        drop(TcpListener::bind("127.0.0.1:80").unwrap());
        let mut stream = TcpStream::connect("echo:7").unwrap();
        server.join().unwrap();
        sim::network().crash("echo").restart("echo");
        stream.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        sim::network().partition("localhost", "echo");
        let addr = (Ipv4Addr::new(10, 0, 0, 2), 7).into();
        assert_eq!(TcpStream::connect_timeout(&addr, SECOND).unwrap_err().kind(), ErrorKind::TimedOut);
        let asked = Instant::now();
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(asked.elapsed(), 127 * SECOND);
    });
}

#[test]
fn datagrams_and_unix_sockets_of_std_are_simulated() {
    let _guard = patched();
    sim::run(1, || {
        let server = sim::host("udp", || {
            let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
            let mut buf = [0; 9];
            let (len, from) = socket.recv_from(&mut buf).unwrap();
            socket.send_to(&buf[..len], from).unwrap();
        });
        sleep(SECOND);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"datagram", "udp:9").unwrap();
        let mut buf = [0; 9];
        let (len, from) = socket.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..len], from.ip()), (&b"datagram"[..], sim::network().address("udp")));
        server.join().unwrap();
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.write_all(b"pair").unwrap();
        other.read_exact(&mut buf[..4]).unwrap();
        drop(one);
        assert_eq!(other.read(&mut buf).unwrap(), 0);
        let listener = UnixListener::bind("/simulated/name").unwrap();
        let client = UnixStream::connect("/simulated/name").unwrap();
        let (accepted, _) = listener.accept().unwrap();
        (&accepted).write_all(b"unix").unwrap();
        (&client).read_exact(&mut buf[..4]).unwrap();
        let (one, other) = UnixDatagram::pair().unwrap();
        one.send(b"two").unwrap();
        assert_eq!(other.recv(&mut buf).unwrap(), 3);
        assert!(!std::path::Path::new("/simulated").exists());
    });
}

#[test]
fn poll_and_select_wait_for_simulated_sockets() {
    let _guard = patched();
    sim::run(1, || {
        let (near, far) = UnixStream::pair().unwrap();
        let mut entry = libc::pollfd { fd: near.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        assert_eq!(unsafe { libc::poll(&raw mut entry, 1, 1000) }, 0);
        assert_eq!(sim::elapsed(), SECOND);
        let writes = spawn(move || {
            sleep(SECOND);
            (&far).write_all(b"x").unwrap();
            sleep(SECOND);
        });
        // SAFETY: as above.
        assert_eq!(unsafe { libc::poll(&raw mut entry, 1, -1) }, 1);
        assert_eq!((entry.revents, sim::elapsed()), (libc::POLLIN, 2 * SECOND));
        // SAFETY: all zeros is the empty set.
        let mut set = unsafe { std::mem::zeroed::<libc::fd_set>() };
        // SAFETY: the set is a local, and the number below FD_SETSIZE.
        unsafe { libc::FD_SET(near.as_raw_fd(), &raw mut set) };
        let none = std::ptr::null_mut();
        // SAFETY: a set and null pointers.
        let found = unsafe { libc::select(near.as_raw_fd() + 1, &raw mut set, none, none, std::ptr::null_mut()) };
        assert_eq!(found, 1);
        writes.join().unwrap();
    });
}

#[test]
fn a_close_ends_the_wait_of_another_thread() {
    let _guard = patched();
    sim::run(1, || {
        let socket = ManuallyDrop::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let number = socket.as_raw_fd();
        let waits = spawn(move || socket.recv(&mut [0]).unwrap_err().raw_os_error());
        sleep(SECOND);
        // SAFETY: the number is the socket's, which does not close it.
        assert_eq!(unsafe { libc::close(number) }, 0);
        assert_eq!(waits.join().unwrap(), Some(libc::EBADF));
    });
}

#[test]
fn what_is_not_simulated_is_a_clear_errno() {
    let _guard = patched();
    sim::run(1, || {
        // SAFETY: the function takes numbers.
        let socket = |domain, kind| unsafe { libc::socket(domain, kind, 0) };
        let error = || std::io::Error::last_os_error().raw_os_error();
        assert_eq!((socket(libc::AF_NETLINK, libc::SOCK_RAW), error()), (-1, Some(libc::EAFNOSUPPORT)));
        assert_eq!((socket(libc::AF_INET, libc::SOCK_RAW), error()), (-1, Some(libc::EPROTONOSUPPORT)));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = udp.as_raw_fd();
        // SAFETY: no offset.
        assert_eq!(unsafe { libc::sendfile(other, other, std::ptr::null_mut(), 1) }, -1);
        assert_eq!(error(), Some(libc::EINVAL));
        // A wait that must not let others run could never end.
        let waited = greenling::no_switch(|| udp.recv(&mut [0]));
        assert_eq!(waited.unwrap_err().raw_os_error(), Some(libc::EDEADLK));
    });
    // Outside, the same calls are the kernel's.
    drop(TcpListener::bind("127.0.0.1:0").unwrap());
    assert!(TcpStream::connect("echo:7").is_err());
}

#[test]
fn a_wait_that_nothing_can_end_is_a_deadlock() {
    let _guard = patched();
    let program = || drop(TcpListener::bind("127.0.0.1:0").unwrap().accept());
    let failure = Config::new().schedules(1).check(program).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Deadlock);
    assert!(failure.message().contains("waits until descriptor"), "{failure}");
}

#[test]
fn sockets_of_std_and_of_this_crate_talk_to_each_other_and_become_each_other() {
    let _guard = patched();
    sim::run(1, || {
        let server = echo("echo", 1);
        let stream = greenling::net::TcpStream::connect("echo:7").unwrap();
        (&stream).write_all(b"one").unwrap();
        let mut buf = [0; 3];
        (&stream).read_exact(&mut buf).unwrap();
        let mut std_stream = std::net::TcpStream::from(stream);
        std_stream.write_all(b"two").unwrap();
        std_stream.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"two");
        server.join().unwrap();
    });
}
