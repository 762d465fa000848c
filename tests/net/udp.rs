//! What a UDP socket promises: datagrams one by one, readiness that a short one does not end, errors, close, kill,
//! timeouts; and the same results and errors as std's.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::address::free_address;
use crate::net_support::{Log, bounded, note, same_as_std, settle};
use greenling::net::UdpSocket;
use greenling::{TimeoutError, hub, no_switch, spawn, timeout, yield_now};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

/// A green socket and std's, connected to each other.
fn with_std_peer() -> (UdpSocket, std::net::UdpSocket) {
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.connect(socket.local_addr().unwrap()).unwrap();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    (socket, peer)
}

// ---- data -----------------------------------------------------------------------------------------------------------

#[test]
fn an_echo_server_answers_each_client() {
    bounded(|| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = server.local_addr().unwrap();
        let echo = spawn(move || -> () {
            let mut buf = [0; 2000];
            loop {
                let (len, from) = server.recv_from(&mut buf).unwrap();
                assert_eq!(server.send_to(&buf[..len], from).unwrap(), len);
            }
        });
        let clients: Vec<_> = (0..20_u8)
            .map(|number| {
                spawn(move || {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    socket.connect(addr).unwrap();
                    for len in [0, 1, 20, 1500] {
                        let sent = vec![number; len];
                        assert_eq!(socket.send(&sent).unwrap(), len);
                        let mut buf = [0; 2000];
                        let got = timeout(LONG, || socket.recv(&mut buf)).unwrap().unwrap();
                        assert_eq!(buf[..got], sent);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        echo.kill();
    });
}

/// The short-read rule of streams would wait for an event that has been and gone.
#[test]
fn a_datagram_shorter_than_the_buffer_does_not_hide_the_next() {
    bounded(|| {
        let (socket, peer) = with_std_peer();
        let reader = spawn(move || {
            let mut buf = [0; 100];
            let first = socket.recv(&mut buf).unwrap();
            // Two more come meanwhile, told by an event that no thread waits for.
            settle();
            [first, socket.recv(&mut buf).unwrap(), socket.recv(&mut buf).unwrap()]
        });
        settle();
        for datagram in [b"one".as_slice(), b"", b"three"] {
            peer.send(datagram).unwrap();
        }
        assert_eq!(timeout(LONG, || reader.join().unwrap()).unwrap(), [3, 0, 5]);
    });
}

#[test]
fn what_is_longer_than_the_buffer_is_cut_off() {
    bounded(|| {
        let (socket, peer) = with_std_peer();
        peer.send(b"long datagram").unwrap();
        peer.send(b"next").unwrap();
        let mut buf = [0; 4];
        assert_eq!(socket.recv(&mut buf).unwrap(), 4);
        assert_eq!(&buf, b"long");
        assert_eq!(socket.recv(&mut buf).unwrap(), 4);
        assert_eq!(&buf, b"next");
    });
}

#[test]
fn a_peek_leaves_the_datagram_and_waits_for_one() {
    bounded(|| {
        let (socket, peer) = with_std_peer();
        let from = peer.local_addr().unwrap();
        let sender = spawn(move || {
            peer.send(b"abc").unwrap();
            peer
        });
        let mut buf = [0; 8];
        assert_eq!(socket.peek(&mut buf).unwrap(), 3);
        assert_eq!(socket.peek_from(&mut buf).unwrap(), (3, from));
        assert_eq!(socket.recv_from(&mut buf).unwrap(), (3, from));
        drop(sender.join().unwrap());
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.peek(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn receivers_get_their_datagrams_in_the_order_in_which_they_came() {
    bounded(|| {
        let (socket, peer) = with_std_peer();
        let socket = Rc::new(socket);
        let log = Rc::new(RefCell::new(Vec::new()));
        let receivers: Vec<_> = (0..10_u8)
            .map(|number| {
                let (socket, log) = (Rc::clone(&socket), Rc::clone(&log));
                spawn(move || {
                    let mut buf = [0; 1];
                    socket.recv(&mut buf).unwrap();
                    log.borrow_mut().push((number, buf[0]));
                })
            })
            .collect();
        settle();
        for number in 0..10 {
            peer.send(&[number]).unwrap();
        }
        for receiver in receivers {
            receiver.join().unwrap();
        }
        assert!(log.borrow().iter().copied().eq((0..10).map(|n| (n, n))), "{:?}", log.borrow());
    });
}

#[test]
fn a_multicast_datagram_comes_back_over_loopback() {
    bounded(|| {
        let group = "239.255.77.7".parse().unwrap();
        let loopback = "127.0.0.1".parse().unwrap();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.join_multicast_v4(&group, &loopback).unwrap();
        let port = socket.local_addr().unwrap().port();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&sender).set_multicast_if_v4(&loopback).unwrap();
        sender.set_multicast_loop_v4(true).unwrap();
        sender.set_multicast_ttl_v4(0).unwrap();
        sender.send_to(b"all", (group, port)).unwrap();
        let mut buf = [0; 8];
        assert_eq!(timeout(LONG, || socket.recv(&mut buf)).unwrap().unwrap(), 3);
        socket.leave_multicast_v4(&group, &loopback).unwrap();
        assert!(socket.leave_multicast_v4(&group, &loopback).is_err(), "it has left");
    });
}

// ---- errors, close, kill, timeouts ----------------------------------------------------------------------------------

#[test]
fn a_datagram_without_a_receiver_wakes_the_waiter_with_an_error() {
    bounded(|| {
        let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.connect(free_address()).unwrap();
        let waiter = {
            let socket = Rc::clone(&socket);
            spawn(move || socket.recv(&mut [0; 8]).unwrap_err().kind())
        };
        settle();
        socket.send(b"x").unwrap();
        assert_eq!(timeout(LONG, || waiter.join().unwrap()).unwrap(), ErrorKind::ConnectionRefused);
        // It was told, and the socket goes on.
        socket.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_timeout_is_not_early_and_the_datagram_that_comes_later_is_there() {
    bounded(|| {
        let (socket, peer) = with_std_peer();
        socket.set_read_timeout(Some(SHORT)).unwrap();
        let began = Instant::now();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(began.elapsed() >= SHORT);
        peer.send(b"late").unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 4);
        socket.set_read_timeout(None).unwrap();
        assert_eq!(timeout(SHORT, || socket.recv(&mut [0; 8]).map(drop)).unwrap_err(), TimeoutError::Elapsed);
    });
}

#[test]
fn close_wakes_the_waiters_and_leaves_clones_alone() {
    bounded(|| {
        let (socket, peer) = with_std_peer();
        let clone = socket.try_clone().unwrap();
        let socket = Rc::new(socket);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let socket = Rc::clone(&socket);
                spawn(move || socket.recv_from(&mut [0; 8]).unwrap_err().kind())
            })
            .collect();
        settle();
        socket.close();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), ErrorKind::NotConnected);
        }
        socket.close();
        let closed = [
            socket.send(b"x").map(drop),
            socket.send_to(b"x", free_address()).map(drop),
            socket.recv(&mut [0]).map(drop),
            socket.peek(&mut [0]).map(drop),
            socket.local_addr().map(drop),
            socket.try_clone().map(drop),
            socket.connect(free_address()),
        ];
        for result in closed {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::NotConnected);
        }
        peer.send(b"clone").unwrap();
        assert_eq!(timeout(LONG, || clone.recv(&mut [0; 8])).unwrap().unwrap(), 5);
    });
}

#[test]
fn two_handles_of_one_socket_are_both_woken() {
    bounded(|| {
        let (socket, peer) = with_std_peer();
        let clone = socket.try_clone().unwrap();
        let readers = [socket, clone].map(|socket| spawn(move || socket.recv(&mut [0; 8]).unwrap()));
        settle();
        peer.send(b"one").unwrap();
        settle();
        peer.send(b"two").unwrap();
        for reader in readers {
            assert_eq!(timeout(LONG, || reader.join().unwrap()).unwrap(), 3);
        }
    });
}

#[test]
fn a_killed_receiver_leaves_the_datagram_to_the_next() {
    bounded(|| {
        let (socket, peer) = with_std_peer();
        let socket = Rc::new(socket);
        let readers = [0, 1].map(|_| {
            let socket = Rc::clone(&socket);
            spawn(move || socket.recv(&mut [0; 8]).unwrap())
        });
        settle();
        let [first, second] = readers;
        peer.send(b"x").unwrap();
        first.kill();
        assert!(first.join().unwrap_err().is_killed());
        assert_eq!(timeout(LONG, || second.join().unwrap()).unwrap(), 1);
        assert_eq!(hub::live_threads(), 0);
    });
}

#[test]
fn while_unwinding_a_receive_that_would_wait_is_an_error() {
    bounded(|| {
        struct Tries(UdpSocket, std::net::UdpSocket, Rc<RefCell<Vec<Result<usize, ErrorKind>>>>);
        impl Drop for Tries {
            fn drop(&mut self) {
                let note = |result: std::io::Result<usize>| {
                    self.2.borrow_mut().push(result.map_err(|error| error.kind()));
                };
                note(self.0.recv(&mut [0; 8]));
                note(self.0.send(b"bye"));
                self.1.send(b"here").unwrap();
                note(self.0.recv(&mut [0; 8]));
            }
        }
        let (socket, peer) = with_std_peer();
        let results = Rc::new(RefCell::new(Vec::new()));
        let tries = Tries(socket, peer, Rc::clone(&results));
        let victim = spawn(move || {
            let _tries = tries;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(victim.join().unwrap_err().is_panic());
        assert_eq!(*results.borrow(), [Err(ErrorKind::Other), Ok(3), Ok(4)]);
    });
}

#[test]
#[should_panic(expected = "no_switch")]
fn a_receive_that_must_wait_panics_inside_no_switch() {
    let (socket, _peer) = with_std_peer();
    let _ = no_switch(|| socket.recv(&mut [0; 8]));
}

#[test]
fn a_socket_goes_to_std_and_back_with_its_timeouts() {
    bounded(|| {
        let (socket, peer) = with_std_peer();
        socket.set_read_timeout(Some(SHORT)).unwrap();
        assert!(socket.recv(&mut [0; 8]).is_err(), "this registers it");
        let std = std::net::UdpSocket::from(socket);
        assert_eq!(std.read_timeout().unwrap(), Some(SHORT));
        assert_eq!(std.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        std.set_write_timeout(Some(2 * SHORT)).unwrap();
        let socket = UdpSocket::from(std);
        assert_eq!(socket.read_timeout().unwrap(), Some(SHORT));
        assert_eq!(socket.write_timeout().unwrap(), Some(2 * SHORT));
        assert_eq!(socket.as_fd().as_raw_fd(), socket.as_raw_fd());
        let socket = UdpSocket::from(OwnedFd::from(socket));
        let reader = spawn(move || socket.recv(&mut [0; 8]).unwrap());
        yield_now();
        peer.send(b"back").unwrap();
        assert_eq!(reader.join().unwrap(), 4);
    });
}

// ---- as std's -------------------------------------------------------------------------------------------------------

same_as_std!(udp_binds_sends_and_fails_alike, |log| {
    let first = net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = first.local_addr().unwrap();
    let none: &[std::net::SocketAddr] = &[];
    note(&mut log, "bind in use", net::UdpSocket::bind(addr).map(drop));
    note(&mut log, "bind elsewhere", net::UdpSocket::bind("192.0.2.1:0").map(drop));
    note(&mut log, "bind text", net::UdpSocket::bind("nonsense").map(drop));
    note(&mut log, "bind nowhere", net::UdpSocket::bind(none).map(drop));
    let choices = [addr, "127.0.0.1:0".parse().unwrap()];
    note(&mut log, "bind second choice", net::UdpSocket::bind(&choices[..]).map(drop));
    note(&mut log, "send unconnected", first.send(b"x"));
    note(&mut log, "peer unconnected", first.peer_addr());
    note(&mut log, "send nowhere", first.send_to(b"x", none));
    log.push(first.send_to(b"x", none).unwrap_err().to_string());
    note(&mut log, "connect nowhere", first.connect(none));
    note(&mut log, "too long", first.send_to(&vec![0; 70_000], addr));
    note(&mut log, "broadcast not allowed", first.send_to(b"x", "255.255.255.255:9"));
    note(&mut log, "other family", first.send_to(b"x", "[::1]:9"));
    note(&mut log, "send empty", first.send_to(b"", addr));
    note(&mut log, "recv empty", first.recv_from(&mut [0; 4]).map(|(len, from)| (len, from == addr)));
    note(&mut log, "connect to itself", first.connect(addr));
    note(&mut log, "send", first.send(b"abcdef"));
    let mut buf = [0; 4];
    note(&mut log, "peek", first.peek(&mut buf));
    note(&mut log, "peek from", first.peek_from(&mut buf).map(|(len, from)| (len, from == addr)));
    note(&mut log, "recv cut off", first.recv(&mut buf));
    first.set_read_timeout(Some(SHORT)).unwrap();
    note(&mut log, "timed out", first.recv(&mut buf));
    note(&mut log, "timed out peek", first.peek_from(&mut buf));
    first.set_nonblocking(true).unwrap();
    note(&mut log, "non-blocking", first.recv(&mut buf));
    note(&mut log, "non-blocking", first.recv_from(&mut buf));
    first.set_nonblocking(false).unwrap();
    let gone = free_address();
    note(&mut log, "connect to an unused address", first.connect(gone));
    note(&mut log, "send to an unused address", first.send(b"x"));
    std::thread::sleep(Duration::from_millis(5));
    note(&mut log, "refused", first.recv(&mut buf));
    note(&mut log, "timed out", first.recv(&mut buf));
    note(&mut log, "send to an unused address", first.send(b"x"));
    std::thread::sleep(Duration::from_millis(5));
    note(&mut log, "taken", first.take_error().map(|error| error.map(|error| error.kind())));
    note(&mut log, "once", first.take_error().map(|error| error.map(|error| error.kind())));
});

same_as_std!(udp_options_are_kept_alike, |log| {
    let socket = net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let six = net::UdpSocket::bind("[::1]:0").unwrap();
    note(&mut log, "broadcast", socket.broadcast());
    note(&mut log, "set broadcast", socket.set_broadcast(true).and_then(|()| socket.broadcast()));
    note(&mut log, "ttl", socket.ttl());
    note(&mut log, "set ttl", socket.set_ttl(9).and_then(|()| socket.ttl()));
    note(&mut log, "set bad ttl", socket.set_ttl(1000));
    note(&mut log, "loop", socket.multicast_loop_v4());
    note(&mut log, "set loop", socket.set_multicast_loop_v4(false).and_then(|()| socket.multicast_loop_v4()));
    note(&mut log, "multicast ttl", socket.multicast_ttl_v4());
    note(&mut log, "set", socket.set_multicast_ttl_v4(3).and_then(|()| socket.multicast_ttl_v4()));
    note(&mut log, "loop 6", six.multicast_loop_v6());
    note(&mut log, "set loop 6", six.set_multicast_loop_v6(false).and_then(|()| six.multicast_loop_v6()));
    let (any, one) = ("0.0.0.0".parse().unwrap(), "127.0.0.1".parse().unwrap());
    note(&mut log, "join no group", socket.join_multicast_v4(&one, &any));
    note(&mut log, "leave", socket.leave_multicast_v4(&"239.1.2.3".parse().unwrap(), &one));
    note(&mut log, "join no group 6", six.join_multicast_v6(&"::1".parse().unwrap(), 0));
    note(&mut log, "leave 6", six.leave_multicast_v6(&"ff02::17".parse().unwrap(), 1));
    note(&mut log, "zero timeout", socket.set_read_timeout(Some(Duration::ZERO)));
    note(&mut log, "set timeout", socket.set_write_timeout(Some(Duration::from_secs(3))));
    note(&mut log, "timeouts", socket.read_timeout().and_then(|read| Ok((read, socket.write_timeout()?))));
    let clone = socket.try_clone().unwrap();
    note(&mut log, "clone's", clone.write_timeout());
    note(&mut log, "no error", socket.take_error().map(|error| error.is_none()));
    log.push(format!("{socket:?}").replace(|c: char| c.is_ascii_digit(), ""));
});
