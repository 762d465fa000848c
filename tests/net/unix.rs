//! What Unix sockets promise: data, ends, full queues that no event tells of, close, kill, timeouts; and the same
//! results and errors as std's.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net_support::{Log, bounded, note, pattern, same_as_std, settle};
use greenling::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use greenling::{TimeoutError, hub, no_switch, sleep, spawn, timeout, yield_now};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

/// A path that nothing is at; what is there later goes with the value.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Place(std::env::temp_dir().join(format!("greenling-{}-{number}.sock", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Returns an address without a path that no other socket has.
fn abstract_addr() -> SocketAddr {
    SocketAddr::from_abstract_name(Place::new().0.as_os_str().as_encoded_bytes()).unwrap()
}

/// A green stream and std's other end.
fn with_std_peer() -> (UnixStream, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    (ours.into(), theirs)
}

// ---- streams --------------------------------------------------------------------------------------------------------

#[test]
fn an_echo_server_at_a_path_and_at_a_name_returns_what_each_client_sent() {
    bounded(|| {
        let place = Place::new();
        let name = abstract_addr();
        let listeners = [UnixListener::bind(&place.0).unwrap(), UnixListener::bind_addr(&name).unwrap()];
        let servers = listeners.map(|listener| {
            spawn(move || {
                for stream in listener.incoming().take(10) {
                    let stream = stream.unwrap();
                    drop(spawn(move || std::io::copy(&mut &stream, &mut &stream).unwrap()));
                }
            })
        });
        let clients: Vec<_> = (0..20)
            .map(|client| {
                let (path, name) = (place.0.clone(), name.clone());
                spawn(move || {
                    let mut stream = match client % 2 {
                        0 => UnixStream::connect(path).unwrap(),
                        _ => UnixStream::connect_addr(&name).unwrap(),
                    };
                    for round in 0..10 {
                        let sent = pattern(client * 7 + round, 1 + 997 * round);
                        stream.write_all(&sent).unwrap();
                        let mut back = vec![0; sent.len()];
                        stream.read_exact(&mut back).unwrap();
                        assert_eq!(back, sent);
                    }
                })
            })
            .collect();
        for thread in clients.into_iter().chain(servers) {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_slow_reader_loses_nothing() {
    bounded(|| {
        const LEN: usize = 8 << 20;
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let writer = spawn(move || near.write_all(&pattern(0, LEN)).unwrap());
        let (mut got, mut buf) = (Vec::new(), vec![0; 50_000]);
        loop {
            let n = far.read(&mut buf).unwrap();
            if n == 0 {
                break;
            }
            got.extend_from_slice(&buf[..n]);
            if got.len() % 7 == 0 {
                sleep(Duration::from_micros(100));
            }
        }
        assert!(got == pattern(0, LEN));
        writer.join().unwrap();
    });
}

#[test]
fn vectored_io_fills_and_drains_all_buffers() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    assert_eq!(near.write_vectored(&[IoSlice::new(b"one "), IoSlice::new(b"two")]).unwrap(), 7);
    let (mut a, mut b) = ([0; 2], [0; 8]);
    assert_eq!(far.read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]).unwrap(), 7);
    assert_eq!((&a, &b[..5]), (b"on", b"e two".as_slice()));
}

/// A read stops at a message with descriptors whatever follows it: short, and yet not empty.
#[test]
fn a_message_with_descriptors_does_not_hide_what_follows_it() {
    bounded(|| {
        let (mut stream, peer) = with_std_peer();
        stream.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "this registers it");
        stream.set_read_timeout(None).unwrap();
        // cmsghdr: length, SOL_SOCKET, SCM_RIGHTS, the descriptor, padding.
        let mut control = Vec::new();
        control.extend_from_slice(&20_usize.to_ne_bytes());
        for word in [libc::SOL_SOCKET, libc::SCM_RIGHTS, peer.as_raw_fd(), 0] {
            control.extend_from_slice(&word.to_ne_bytes());
        }
        let message = [IoSlice::new(b"fd")];
        let message = socket2::MsgHdr::new().with_buffers(&message).with_control(&control);
        assert_eq!(socket2::SockRef::from(&peer).sendmsg(&message, 0).unwrap(), 2);
        (&peer).write_all(b"more").unwrap();
        settle();
        let mut buf = [0; 100];
        let first = stream.read(&mut buf).unwrap();
        let mut all = first;
        while all < 6 {
            all += timeout(LONG, || stream.read(&mut buf)).unwrap().unwrap();
        }
        assert_eq!((first, all), (2, 6));
    });
}

#[test]
fn ends_and_shutdowns_wake_the_waiters() {
    bounded(|| {
        let (stream, peer) = with_std_peer();
        let stream = Rc::new(stream);
        let reader = {
            let stream = Rc::clone(&stream);
            spawn(move || (&*stream).read(&mut [0; 8]).unwrap())
        };
        settle();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
        (&*stream).write_all(b"still").unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
        assert_eq!((&*stream).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut text = String::new();
        (&peer).read_to_string(&mut text).unwrap();
        assert_eq!(text, "still");
    });
}

#[test]
fn close_wakes_readers_writers_and_acceptors() {
    bounded(|| {
        let (stream, _peer) = with_std_peer();
        let stream = Rc::new(stream);
        let name = abstract_addr();
        let listener = Rc::new(UnixListener::bind_addr(&name).unwrap());
        let waiters: Vec<_> = (0..6)
            .map(|n| {
                let (stream, listener) = (Rc::clone(&stream), Rc::clone(&listener));
                spawn(move || match n {
                    0 | 1 => (&*stream).read_exact(&mut [0; 8]).unwrap_err(),
                    2 | 3 => (&*stream).write_all(&vec![0; 16 << 20]).unwrap_err(),
                    _ => listener.accept().unwrap_err(),
                })
            })
            .collect();
        settle();
        stream.close();
        listener.close();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().kind(), ErrorKind::NotConnected);
        }
        assert_eq!((&*stream).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(stream.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(listener.local_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(UnixStream::connect_addr(&name).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        stream.close();
        listener.close();
    });
}

// ---- full queues ----------------------------------------------------------------------------------------------------

/// Makes a listener with a full queue, and the connections that fill the queue.
fn full_listener(name: &SocketAddr) -> (UnixListener, Vec<std::os::unix::net::UnixStream>) {
    let listener = UnixListener::bind_addr(name).unwrap();
    // Once more with a short queue.
    socket2::SockRef::from(&listener).listen(1).unwrap();
    let name = name.clone();
    let (tell, told) = std::sync::mpsc::channel();
    // std's connect blocks when the queue is full, so an OS thread does it and is left behind.
    std::thread::spawn(move || {
        while let Ok(stream) = std::os::unix::net::UnixStream::connect_addr(&name) {
            if tell.send(stream).is_err() {
                return;
            }
        }
    });
    let queue = [(); 2].map(|()| told.recv().unwrap()).into();
    let another = told.recv_timeout(Duration::from_millis(100));
    assert!(another.is_err(), "the kernel lets in one more than asked");
    (listener, queue)
}

#[test]
fn a_connect_to_a_full_queue_waits_until_there_is_room_and_others_run() {
    bounded(|| {
        let name = abstract_addr();
        let (listener, _queue) = full_listener(&name);
        let ticks = Rc::new(Cell::new(0));
        let count = Rc::clone(&ticks);
        let ticker = spawn(move || -> () {
            loop {
                sleep(Duration::from_millis(1));
                count.set(count.get() + 1);
            }
        });
        let their_name = name.clone();
        let client = spawn(move || UnixStream::connect_addr(&their_name).unwrap().write_all(b"in").unwrap());
        // Others run meanwhile.
        while ticks.get() <= 5 {
            sleep(Duration::from_millis(1));
        }
        assert!(!client.is_finished(), "there is no room");
        // Three of the filler's, and ours somewhere among them.
        let mut texts = Vec::new();
        for _ in 0..4 {
            let (mut stream, _) = timeout(LONG, || listener.accept()).unwrap().unwrap();
            stream.set_read_timeout(Some(10 * SHORT)).unwrap();
            let mut text = [0; 2];
            texts.extend(stream.read_exact(&mut text).is_ok().then_some(text));
        }
        timeout(LONG, || client.join().unwrap()).unwrap();
        assert_eq!(texts, [*b"in"]);
        ticker.kill();
    });
}

#[test]
fn a_connect_to_a_full_queue_can_be_killed_and_limited_and_leaves_nothing() {
    bounded(|| {
        let name = abstract_addr();
        let (_listener, _queue) = full_listener(&name);
        let began = Instant::now();
        let limited = timeout(SHORT, || UnixStream::connect_addr(&name).map(drop));
        assert_eq!(limited.unwrap_err(), TimeoutError::Elapsed);
        assert!(began.elapsed() >= SHORT);
        let victim = spawn(move || UnixStream::connect_addr(&name).map(drop).unwrap());
        settle();
        victim.kill();
        assert!(victim.join().unwrap_err().is_killed());
        assert_eq!(hub::live_threads(), 0);
    });
}

/// Fills the queue of the receiver with that name, and says how many datagrams are in it. One sender cannot: its own
/// buffer is full before, and of that an event tells.
fn fill(name: &SocketAddr) -> usize {
    let mut queued = 0;
    loop {
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        if filler.send_to_addr(b"fill", name).is_err() {
            return queued;
        }
        queued += 1;
        while filler.send_to_addr(b"fill", name).is_ok() {
            queued += 1;
        }
    }
}

#[test]
fn a_datagram_to_a_full_queue_waits_for_room_by_name_and_connected() {
    bounded(|| {
        for connected in [false, true] {
            let name = abstract_addr();
            let receiver = UnixDatagram::bind_addr(&name).unwrap();
            let sender = UnixDatagram::unbound().unwrap();
            if connected {
                sender.connect_addr(&name).unwrap();
            }
            let queued = fill(&name);
            let sent = Rc::new(Cell::new(0_u32));
            let count = Rc::clone(&sent);
            let sending = spawn(move || {
                for number in 0..2000_u32 {
                    let bytes = number.to_ne_bytes();
                    let n = if connected { sender.send(&bytes) } else { sender.send_to_addr(&bytes, &name) };
                    assert_eq!(n.unwrap(), 4);
                    count.set(number + 1);
                }
            });
            settle();
            assert_eq!(sent.get(), 0, "it waits");
            for _ in 0..queued {
                receiver.recv(&mut [0; 8]).unwrap();
            }
            for number in 0..2000_u32 {
                let mut buf = [0; 8];
                assert_eq!(timeout(LONG, || receiver.recv(&mut buf)).unwrap().unwrap(), 4);
                assert_eq!(buf[..4], number.to_ne_bytes(), "none is lost, none comes twice");
            }
            sending.join().unwrap();
        }
    });
}

/// Processor time of this OS thread so far.
fn run_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

/// A refused attempt frees the sender's own buffer, of which an event tells: to wait for that would be a busy loop.
#[test]
fn a_waiter_for_a_full_queue_uses_no_processor() {
    bounded(|| {
        for connected in [false, true] {
            let name = abstract_addr();
            let _receiver = UnixDatagram::bind_addr(&name).unwrap();
            fill(&name);
            let sender = UnixDatagram::unbound().unwrap();
            if connected {
                sender.connect_addr(&name).unwrap();
            }
            let waiter = spawn(move || if connected { sender.send(b"x") } else { sender.send_to_addr(b"x", &name) });
            settle();
            let (before, began) = (run_time(), Instant::now());
            sleep(Duration::from_millis(300));
            let used = run_time() - before;
            assert!(used < began.elapsed() / 5, "{used:?} while waiting, connected: {connected}");
            assert!(!waiter.is_finished());
            waiter.kill();
        }
    });
}

#[test]
fn a_datagram_to_a_full_queue_obeys_timeouts_mode_close_and_kill() {
    bounded(|| {
        let place = Place::new();
        let _receiver = UnixDatagram::bind(&place.0).unwrap();
        let sender = Rc::new(UnixDatagram::unbound().unwrap());
        sender.set_nonblocking(true).unwrap();
        while sender.send_to(b"fill", &place.0).is_ok() {}
        assert_eq!(sender.send_to(b"x", &place.0).unwrap_err().kind(), ErrorKind::WouldBlock);
        sender.set_nonblocking(false).unwrap();
        sender.set_write_timeout(Some(SHORT)).unwrap();
        let began = Instant::now();
        assert_eq!(sender.send_to(b"x", &place.0).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(began.elapsed() >= SHORT);
        sender.set_write_timeout(None).unwrap();
        let waiters = [0, 1].map(|_| {
            let (sender, path) = (Rc::clone(&sender), place.0.clone());
            spawn(move || sender.send_to(b"x", path).unwrap_err().kind())
        });
        settle();
        let [victim, waiter] = waiters;
        victim.kill();
        assert!(victim.join().unwrap_err().is_killed());
        sender.close();
        assert_eq!(timeout(LONG, || waiter.join().unwrap()).unwrap(), ErrorKind::NotConnected);
    });
}

#[test]
fn while_unwinding_a_call_that_would_wait_for_room_is_an_error() {
    bounded(|| {
        struct Tries(SocketAddr, UnixDatagram, SocketAddr, Rc<RefCell<Vec<ErrorKind>>>);
        impl Drop for Tries {
            fn drop(&mut self) {
                let mut results = self.3.borrow_mut();
                results.push(UnixStream::connect_addr(&self.0).unwrap_err().kind());
                results.push(self.1.send_to_addr(b"x", &self.2).unwrap_err().kind());
                results.push(self.1.recv(&mut [0]).unwrap_err().kind());
            }
        }
        let (stream_name, datagram_name) = (abstract_addr(), abstract_addr());
        let (_listener, _queue) = full_listener(&stream_name);
        let _receiver = UnixDatagram::bind_addr(&datagram_name).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender.send_to_addr(b"fill", &datagram_name).is_ok() {}
        sender.set_nonblocking(false).unwrap();
        let results = Rc::new(RefCell::new(Vec::new()));
        let tries = Tries(stream_name, sender, datagram_name, Rc::clone(&results));
        let victim = spawn(move || {
            let _tries = tries;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(victim.join().unwrap_err().is_panic());
        assert_eq!(*results.borrow(), [ErrorKind::Other; 3]);
    });
}

#[test]
#[should_panic(expected = "no_switch")]
fn a_connect_that_must_wait_panics_inside_no_switch() {
    let name = abstract_addr();
    let (_listener, _queue) = full_listener(&name);
    let _ = no_switch(|| UnixStream::connect_addr(&name));
}

// ---- datagrams ------------------------------------------------------------------------------------------------------

#[test]
fn datagrams_come_one_by_one_with_their_sender() {
    bounded(|| {
        let place = Place::new();
        let receiver = UnixDatagram::bind(&place.0).unwrap();
        let name = abstract_addr();
        let sender = UnixDatagram::bind_addr(&name).unwrap();
        let reading = spawn(move || {
            let mut buf = [0; 16];
            let (first, from) = receiver.recv_from(&mut buf).unwrap();
            settle();
            // Both came while no thread waited: a short datagram does not hide the next.
            (
                from.as_abstract_name().map(<[u8]>::to_vec),
                [first, receiver.recv(&mut buf).unwrap(), receiver.recv(&mut buf).unwrap()],
            )
        });
        settle();
        for datagram in [b"one".as_slice(), b"", b"three"] {
            sender.send_to(datagram, &place.0).unwrap();
        }
        let (from, lens) = timeout(LONG, || reading.join().unwrap()).unwrap();
        assert_eq!(from.as_deref(), name.as_abstract_name());
        assert_eq!(lens, [3, 0, 5]);
    });
}

#[test]
fn sockets_go_to_std_and_back() {
    bounded(|| {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(SHORT)).unwrap();
        assert!((&near).read(&mut [0]).is_err(), "this registers it");
        let std = std::os::unix::net::UnixStream::from(near);
        assert_eq!(std.read_timeout().unwrap(), Some(SHORT));
        let mut near = UnixStream::from(OwnedFd::from(std));
        assert_eq!(near.read_timeout().unwrap(), Some(SHORT));
        assert_eq!(near.as_fd().as_raw_fd(), near.as_raw_fd());
        near.set_read_timeout(None).unwrap();
        let writer = spawn(move || (&far).write_all(b"x").unwrap());
        near.read_exact(&mut [0]).unwrap();
        writer.join().unwrap();

        let name = abstract_addr();
        let std = std::os::unix::net::UnixListener::from(UnixListener::bind_addr(&name).unwrap());
        let listener = UnixListener::from(std);
        let client = spawn(move || UnixStream::connect_addr(&name).map(drop).unwrap());
        for stream in (&listener).into_iter().take(1) {
            stream.unwrap();
        }
        client.join().unwrap();

        let (near, far) = UnixDatagram::pair().unwrap();
        let far = UnixDatagram::from(std::os::unix::net::UnixDatagram::from(far));
        let reader = spawn(move || far.recv(&mut [0; 8]).unwrap());
        yield_now();
        near.send(b"dgram").unwrap();
        assert_eq!(reader.join().unwrap(), 5);
    });
}

// ---- as std's -------------------------------------------------------------------------------------------------------

same_as_std!(unix_streams_connect_and_fail_alike, unix, |log| {
    let place = Place::new();
    let path = &place.0;
    note(&mut log, "connect to nothing", net::UnixStream::connect(path).map(drop));
    let listener = net::UnixListener::bind(path).unwrap();
    note(&mut log, "bind in use", net::UnixListener::bind(path).map(drop));
    if !greenling::sim::is_simulated() {
        // A simulation has names and no folders.
        let error = net::UnixListener::bind("no/such/folder/socket").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    note(&mut log, "too long", net::UnixListener::bind("x".repeat(108)).map(drop));
    note(&mut log, "zero byte", net::UnixStream::connect("a\0b").map(drop));
    log.push(net::UnixStream::connect("a\0b").unwrap_err().to_string());
    log.push(net::UnixStream::connect("x".repeat(108)).unwrap_err().to_string());
    note(&mut log, "connect to a datagram socket", {
        let other = Place::new();
        let _datagram = net::UnixDatagram::bind(&other.0).unwrap();
        net::UnixStream::connect(&other.0).map(drop)
    });
    let stream = net::UnixStream::connect(path).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    note(&mut log, "unnamed", Ok((peer.is_unnamed(), stream.local_addr().unwrap().is_unnamed())));
    note(&mut log, "peer", stream.peer_addr().map(|addr| addr.as_pathname() == Some(path.as_path())));
    note(&mut log, "listener", listener.local_addr().map(|addr| addr.as_pathname() == Some(path.as_path())));
    note(&mut log, "write", (&stream).write(b"abc"));
    note(&mut log, "empty read", (&accepted).read(&mut []));
    note(&mut log, "read", (&accepted).read(&mut [0; 8]));
    accepted.set_read_timeout(Some(SHORT)).unwrap();
    note(&mut log, "timed out", (&accepted).read(&mut [0; 8]));
    note(&mut log, "zero timeout", accepted.set_read_timeout(Some(Duration::ZERO)));
    note(&mut log, "timeouts", accepted.read_timeout().and_then(|read| Ok((read, accepted.write_timeout()?))));
    accepted.set_nonblocking(true).unwrap();
    note(&mut log, "non-blocking", (&accepted).read(&mut [0; 8]));
    listener.set_nonblocking(true).unwrap();
    note(&mut log, "non-blocking accept", listener.accept().map(drop));
    note(&mut log, "no error", listener.take_error().map(|error| error.is_none()));
    accepted.set_nonblocking(false).unwrap();
    let clone = accepted.try_clone().unwrap();
    note(&mut log, "clone's", clone.read_timeout());
    note(&mut log, "shutdown", stream.shutdown(Shutdown::Write));
    note(&mut log, "write after shutdown", (&stream).write(b"x"));
    note(&mut log, "end", (&accepted).read(&mut [0; 8]));
    (&stream).flush().unwrap();
    drop((accepted, clone));
    note(&mut log, "end", (&stream).read(&mut [0; 8]));
    note(&mut log, "no error", stream.take_error().map(|error| error.map(|error| error.kind())));
    log.push(format!("{listener:?}").replace(|c: char| c.is_ascii_digit(), ""));
    log.push(format!("{stream:?}").replace(|c: char| c.is_ascii_digit(), ""));
    drop(listener);
    note(&mut log, "refused", net::UnixStream::connect(path).map(drop));
    let (near, far) = net::UnixStream::pair().unwrap();
    (&near).write_all(b"unread").unwrap();
    drop(far);
    note(&mut log, "reset or end", (&near).read(&mut [0; 8]));
    note(&mut log, "broken", (&near).write(b"x"));
});

same_as_std!(unix_datagrams_are_sent_and_refused_alike, unix, |log| {
    let place = Place::new();
    let path = &place.0;
    let sender = net::UnixDatagram::unbound().unwrap();
    note(&mut log, "send unconnected", sender.send(b"x"));
    note(&mut log, "send to nothing", sender.send_to(b"x", path));
    note(&mut log, "zero byte", sender.send_to(b"x", "a\0b"));
    note(&mut log, "connect to nothing", sender.connect(path));
    let receiver = net::UnixDatagram::bind(path).unwrap();
    note(&mut log, "bind in use", net::UnixDatagram::bind(path).map(drop));
    note(&mut log, "send to", sender.send_to(b"abcdef", path));
    let mut buf = [0; 4];
    note(&mut log, "recv from", receiver.recv_from(&mut buf).map(|(n, from)| (n, from.is_unnamed())));
    note(&mut log, "peer unconnected", sender.peer_addr().map(drop));
    note(&mut log, "connect", sender.connect(path));
    note(&mut log, "peer", sender.peer_addr().map(|addr| addr.as_pathname() == Some(path.as_path())));
    note(&mut log, "send", sender.send(b""));
    note(&mut log, "recv", receiver.recv(&mut buf));
    note(&mut log, "too long", sender.send(&vec![0; 4 << 20]));
    receiver.set_read_timeout(Some(SHORT)).unwrap();
    note(&mut log, "timed out", receiver.recv(&mut buf));
    receiver.set_nonblocking(true).unwrap();
    note(&mut log, "non-blocking", receiver.recv_from(&mut buf).map(drop));
    note(&mut log, "shutdown", sender.shutdown(Shutdown::Write));
    note(&mut log, "send after shutdown", sender.send(b"x"));
    note(&mut log, "no error", sender.take_error().map(|error| error.is_none()));
    log.push(format!("{receiver:?}").replace(|c: char| c.is_ascii_digit(), ""));
    let second = net::UnixDatagram::unbound().unwrap();
    second.connect(path).unwrap();
    drop(receiver);
    note(&mut log, "refused", second.send(b"x"));
    note(&mut log, "refused", second.send_to(b"x", path));
});
