//! What a TCP connection promises: data, ends, errors, close, kill, timeouts, turns.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net_support::{bounded, pair, pattern, reset, settle, with_std_peer};
use greenling::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use greenling::{TimeoutError, hub, sleep, spawn, timeout, yield_now};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

fn local_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

// ---- data -----------------------------------------------------------------------------------------------------------

#[test]
fn an_echo_server_returns_what_each_client_sent() {
    bounded(|| {
        let (listener, addr) = local_listener();
        let server = spawn(move || {
            for stream in listener.incoming().take(50) {
                let stream = stream.unwrap();
                drop(spawn(move || std::io::copy(&mut &stream, &mut &stream).unwrap()));
            }
        });
        let clients: Vec<_> = (0..50)
            .map(|client| {
                spawn(move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    for round in 0..20 {
                        let sent = pattern(client * 7 + round, 1 + 97 * round);
                        stream.write_all(&sent).unwrap();
                        let mut back = vec![0; sent.len()];
                        stream.read_exact(&mut back).unwrap();
                        assert_eq!(back, sent);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        server.join().unwrap();
    });
}

#[test]
fn one_stream_carries_both_directions_at_once() {
    bounded(|| {
        const LEN: usize = 4 << 20;
        let (near, far) = pair();
        let (near, far) = (Rc::new(near), Rc::new(far));
        let ends: Vec<_> = [near, far]
            .into_iter()
            .flat_map(|end| {
                let reader = Rc::clone(&end);
                let reading = spawn(move || {
                    let mut got = vec![0; LEN];
                    (&*reader).read_exact(&mut got).unwrap();
                    assert_eq!(got, pattern(3, LEN));
                });
                let writing = spawn(move || (&*end).write_all(&pattern(3, LEN)).unwrap());
                [reading, writing]
            })
            .collect();
        for end in ends {
            end.join().unwrap();
        }
    });
}

#[test]
fn a_slow_reader_loses_nothing() {
    bounded(|| {
        let len: usize = if cfg!(debug_assertions) { 64 << 20 } else { 1 << 30 };
        let (mut near, mut far) = pair();
        let writer = spawn(move || {
            let block = pattern(0, 251 * 1024);
            let mut left = len;
            while left > 0 {
                let n = left.min(block.len());
                near.write_all(&block[..n]).unwrap();
                left -= n;
            }
        });
        let expected = pattern(0, 251 + 100_000);
        let (mut buf, mut at, mut reads) = (vec![0; 100_000], 0, 0);
        loop {
            let n = far.read(&mut buf).unwrap();
            if n == 0 {
                break;
            }
            assert_eq!(buf[..n], expected[at % 251..][..n], "at byte {at}");
            at += n;
            reads += 1;
            if reads % 100 == 0 {
                sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(at, len);
        writer.join().unwrap();
    });
}

#[test]
fn peek_leaves_the_bytes_where_they_are() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        let writer = spawn(move || {
            peer.write_all(b"abcd").unwrap();
            peer
        });
        let mut buf = [0; 8];
        assert_eq!(stream.peek(&mut buf[..2]).unwrap(), 2);
        assert_eq!(stream.peek(&mut buf).unwrap(), 4);
        assert_eq!(stream.read(&mut buf).unwrap(), 4);
        assert_eq!(&buf[..4], b"abcd");
        drop(writer.join().unwrap());
        assert_eq!(stream.peek(&mut buf).unwrap(), 0);
    });
}

#[test]
fn vectored_io_fills_and_drains_all_buffers() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        let parts = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
        assert_eq!(stream.write_vectored(&parts).unwrap(), 7);
        let mut seven = [0; 7];
        peer.read_exact(&mut seven).unwrap();
        assert_eq!(&seven, b"one two");
        peer.write_all(b"12345").unwrap();
        let (mut a, mut b) = ([0; 2], [0; 8]);
        assert_eq!(stream.read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]).unwrap(), 5);
        assert_eq!((&a, &b[..3]), (b"12", b"345".as_slice()));
    });
}

#[test]
fn more_buffers_than_the_kernel_takes_do_not_look_like_a_short_read() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        // Registers the stream: a read that waits.
        let waker = spawn(move || {
            peer.write_all(b"x").unwrap();
            peer
        });
        stream.read_exact(&mut [0]).unwrap();
        let mut peer = waker.join().unwrap();
        peer.write_all(&pattern(0, 3000)).unwrap();
        settle();
        let mut bytes = [0; 3000];
        let mut bufs: Vec<_> = bytes.chunks_mut(1).map(IoSliceMut::new).collect();
        let first = stream.read_vectored(&mut bufs).unwrap();
        assert!(first < 3000, "std takes 1024 buffers at most");
        // The rest is there, and no event will tell of it again.
        let rest = timeout(LONG, || stream.read_exact(&mut [0; 3000][first..]));
        rest.unwrap().unwrap();
    });
}

#[test]
fn data_that_comes_while_a_reader_gives_way_is_not_lost() {
    bounded(|| {
        // Between a turn of main and the next turn of the reader there are more turns than the runtime takes without a
        // look at epoll, and they last long enough.
        let stop = Rc::new(Cell::new(false));
        let spinners: Vec<_> = (0..70)
            .map(|_| {
                let stop = Rc::clone(&stop);
                spawn(move || {
                    while !stop.get() {
                        let start = Instant::now();
                        while start.elapsed() < Duration::from_micros(2) {}
                        yield_now();
                    }
                })
            })
            .collect();
        // One of these numbers of full reads is the one after which the reader gives way at its short read.
        for full in 120..136 {
            let (mut stream, mut peer) = with_std_peer();
            stream.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
            assert!(stream.read(&mut [0]).is_err(), "this registers it");
            stream.set_read_timeout(None).unwrap();
            let before = full * 100 + 50;
            peer.write_all(&pattern(0, before)).unwrap();
            settle();
            let read = Rc::new(Cell::new(0));
            let count = Rc::clone(&read);
            let reader = spawn(move || {
                while let Ok(n @ 1..) = stream.read(&mut [0; 100]) {
                    count.set(count.get() + n);
                }
            });
            yield_now();
            peer.write_all(b"z").unwrap();
            let start = Instant::now();
            while read.get() <= before {
                assert!(start.elapsed() < LONG, "the byte after {full} full reads and a short one was never seen");
                yield_now();
            }
            drop(peer);
            reader.join().unwrap();
        }
        stop.set(true);
        for spinner in spinners {
            spinner.join().unwrap();
        }
    });
}

// ---- read_with ------------------------------------------------------------------------------------------------------

#[test]
fn read_with_lends_what_came_and_an_empty_slice_at_the_end() {
    bounded(|| {
        let (stream, mut peer) = with_std_peer();
        let writer = spawn(move || peer.write_all(b"lent").unwrap());
        assert_eq!(stream.read_with(<[u8]>::to_vec).unwrap(), b"lent");
        assert!(stream.read_with(<[u8]>::is_empty).unwrap());
        writer.join().unwrap();
    });
}

#[test]
fn read_with_inside_read_with_and_beside_it_get_buffers_of_their_own() {
    bounded(|| {
        let (outer, mut outer_peer) = with_std_peer();
        let (inner, mut inner_peer) = with_std_peer();
        let (beside, mut beside_peer) = with_std_peer();
        outer_peer.write_all(b"outer").unwrap();
        beside_peer.write_all(b"beside").unwrap();
        let other = spawn(move || {
            let got = beside.read_with(<[u8]>::to_vec).unwrap();
            inner_peer.write_all(b"inner").unwrap();
            got
        });
        let seen = outer
            .read_with(|bytes| {
                // Waits for `other`, which lends meanwhile.
                let nested = inner.read_with(<[u8]>::to_vec).unwrap();
                (bytes.to_vec(), nested)
            })
            .unwrap();
        assert_eq!(seen, (b"outer".to_vec(), b"inner".to_vec()));
        assert_eq!(other.join().unwrap(), b"beside");
    });
}

#[test]
fn a_panic_inside_read_with_takes_no_buffer_away() {
    bounded(|| {
        let (stream, mut peer) = with_std_peer();
        peer.write_all(b"first").unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| stream.read_with(|_| std::panic::resume_unwind(Box::new(1)))));
        assert!(caught.is_err());
        peer.write_all(b"second").unwrap();
        assert_eq!(stream.read_with(<[u8]>::to_vec).unwrap(), b"second");
    });
}

// ---- ends and errors ------------------------------------------------------------------------------------------------

#[test]
fn the_peers_half_close_ends_reads_and_leaves_writes() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        let closer = spawn(move || {
            peer.shutdown(Shutdown::Write).unwrap();
            peer
        });
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        peer = closer.join().unwrap();
        stream.write_all(b"still").unwrap();
        let mut buf = [0; 5];
        peer.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"still");
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn our_half_close_ends_writes_and_leaves_reads() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let answer = spawn(move || peer.write_all(b"answer").unwrap());
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        answer.join().unwrap();
    });
}

#[test]
fn a_shutdown_wakes_the_waiter_of_that_direction() {
    bounded(|| {
        let (stream, _peer) = with_std_peer();
        let stream = Rc::new(stream);
        let reader = {
            let stream = Rc::clone(&stream);
            spawn(move || (&*stream).read(&mut [0; 8]))
        };
        settle();
        stream.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    });
}

#[test]
fn a_reset_wakes_the_waiter() {
    bounded(|| {
        let (mut stream, peer) = with_std_peer();
        let reader = spawn(move || stream.read(&mut [0; 8]));
        settle();
        reset(peer);
        assert_eq!(reader.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_without_a_waiter_is_seen_by_the_next_call() {
    bounded(|| {
        for registered in [false, true] {
            for call in ["read", "write", "peek", "read_with"] {
                let (mut stream, mut peer) = with_std_peer();
                if registered {
                    let writer = spawn(move || {
                        peer.write_all(b"x").unwrap();
                        peer
                    });
                    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
                    peer = writer.join().unwrap();
                }
                reset(peer);
                settle();
                let result = match call {
                    "read" => stream.read(&mut [0; 8]),
                    "write" => stream.write(b"x"),
                    "peek" => stream.peek(&mut [0; 8]),
                    _ => stream.read_with(<[u8]>::len),
                };
                assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset, "{call}, registered: {registered}");
                assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "the error is told once, then it is the end");
                assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            }
        }
    });
}

#[test]
fn the_end_after_a_short_read_is_seen() {
    bounded(|| {
        let (mut stream, peer) = with_std_peer();
        let reader = spawn(move || {
            let mut buf = [0; 100];
            let first = stream.read(&mut buf).unwrap();
            // The event of the end comes while no thread waits, and will not come again.
            settle();
            (first, stream.read(&mut buf).unwrap())
        });
        settle();
        (&peer).write_all(b"short").unwrap();
        yield_now();
        drop(peer);
        assert_eq!(reader.join().unwrap(), (5, 0));
    });
}

#[test]
fn data_and_end_that_come_together_are_both_seen() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        let reader = spawn(move || {
            let mut buf = [0; 100];
            (stream.read(&mut buf).unwrap(), stream.read(&mut buf).unwrap(), stream.read(&mut buf).unwrap())
        });
        settle();
        peer.write_all(b"last words").unwrap();
        drop(peer);
        assert_eq!(reader.join().unwrap(), (10, 0, 0));
    });
}

#[test]
fn after_both_ends_were_closed_reads_end_and_writes_fail() {
    bounded(|| {
        let (stream, peer) = with_std_peer();
        let stream = Rc::new(stream);
        let reader = {
            let stream = Rc::clone(&stream);
            spawn(move || (&*stream).read(&mut [0; 8]).unwrap())
        };
        settle();
        stream.shutdown(Shutdown::Write).unwrap();
        drop(peer);
        assert_eq!(reader.join().unwrap(), 0);
        settle();
        assert_eq!((&*stream).read(&mut [0; 8]).unwrap(), 0);
        assert_eq!((&*stream).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_connection_that_is_refused_says_so() {
    bounded(|| {
        let (listener, addr) = local_listener();
        drop(listener);
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(TcpStream::connect_timeout(&addr, LONG).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

/// Makes a listener with a full queue: the kernel drops further SYNs, so to connect takes for ever.
fn full_listener() -> (std::net::TcpListener, SocketAddr, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let addr = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    loop {
        match TcpStream::connect_timeout(&addr, Duration::from_millis(100)) {
            Ok(stream) => queue.push(stream),
            // There is room for one. A connection that was not made in time was one on a slow machine.
            Err(_) if queue.is_empty() => (),
            Err(_) => break,
        }
        assert!(queue.len() < 20, "the queue never gets full");
    }
    (listener, addr, queue)
}

#[test]
fn a_connect_that_takes_too_long_times_out() {
    bounded(|| {
        let (_listener, addr, _queue) = full_listener();
        let start = Instant::now();
        assert_eq!(TcpStream::connect_timeout(&addr, SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= SHORT);
        let outer = timeout(SHORT, || TcpStream::connect(addr).map(drop));
        assert_eq!(outer.unwrap_err(), TimeoutError::Elapsed);
    });
}

// ---- close ----------------------------------------------------------------------------------------------------------

#[test]
fn close_wakes_readers_and_writers_with_an_error() {
    bounded(|| {
        let (stream, _peer) = with_std_peer();
        let stream = Rc::new(stream);
        let waiters: Vec<_> = (0..4)
            .map(|n| {
                let stream = Rc::clone(&stream);
                spawn(move || match n {
                    0 | 1 => (&*stream).read_exact(&mut [0; 8]).unwrap_err(),
                    _ => (&*stream).write_all(&vec![0; 64 << 20]).unwrap_err(),
                })
            })
            .collect();
        settle();
        stream.close();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().kind(), ErrorKind::NotConnected);
        }
        assert_eq!((&*stream).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!((&*stream).write(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(stream.peek(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(stream.read_with(|_| ()).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(stream.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(stream.try_clone().unwrap_err().kind(), ErrorKind::NotConnected);
        stream.close();
    });
}

#[test]
fn close_is_remembered_where_no_hub_was_ever_needed() {
    bounded(|| {
        let (stream, mut peer) = with_std_peer();
        stream.close();
        assert_eq!((&stream).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn a_closed_listener_wakes_acceptors_and_frees_its_port() {
    bounded(|| {
        let (listener, addr) = local_listener();
        let listener = Rc::new(listener);
        let acceptors: Vec<_> = (0..3)
            .map(|_| {
                let listener = Rc::clone(&listener);
                spawn(move || listener.accept().unwrap_err().kind())
            })
            .collect();
        settle();
        listener.close();
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let again = TcpListener::bind(addr).unwrap();
        for acceptor in acceptors {
            assert_eq!(acceptor.join().unwrap(), ErrorKind::NotConnected);
        }
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(listener.local_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        drop(TcpStream::connect(addr).unwrap());
        again.accept().unwrap();
    });
}

#[test]
fn a_reused_descriptor_number_gets_no_event_of_its_predecessor() {
    bounded(|| {
        let mut reused = 0;
        for _ in 0..200 {
            let (mut old, mut old_peer) = with_std_peer();
            // Registers it.
            old.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
            assert_eq!(old.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            // A duplicate that the stream knows nothing of keeps the old registration alive in the kernel.
            let duplicate = old.as_fd().try_clone_to_owned().unwrap();
            let (new, mut new_peer) = {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let number = old.as_raw_fd();
                old_peer.write_all(b"stale").unwrap();
                drop(old);
                let accepted = listener.accept().unwrap().0;
                reused += usize::from(accepted.as_raw_fd() == number);
                (TcpStream::from(accepted), peer)
            };
            let reader = spawn(move || {
                let mut buf = [0; 16];
                let n = (&new).read(&mut buf).unwrap();
                (buf[..n].to_vec(), new)
            });
            yield_now();
            old_peer.write_all(b"stale").unwrap();
            drop(old_peer);
            yield_now();
            new_peer.write_all(b"fresh").unwrap();
            let (got, _new) = reader.join().unwrap();
            assert_eq!(got, b"fresh");
            drop(duplicate);
        }
        assert!(reused > 0, "no number was ever used again");
    });
}

#[test]
fn a_descriptor_that_is_no_socket_is_an_error() {
    bounded(|| {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let mut stream = TcpStream::from(std::os::fd::OwnedFd::from(file));
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(stream.write(b"x").unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let listener = TcpListener::from(std::os::fd::OwnedFd::from(file));
        assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    });
}

// ---- timeouts and modes ---------------------------------------------------------------------------------------------

#[test]
fn a_read_timeout_is_would_block_never_early_and_loses_no_data() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        stream.set_read_timeout(Some(SHORT)).unwrap();
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert!(start.elapsed() >= SHORT);
        }
        assert_eq!(stream.peek(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(stream.read_with(<[u8]>::len).unwrap_err().kind(), ErrorKind::WouldBlock);
        peer.write_all(b"late").unwrap();
        let mut buf = [0; 8];
        stream.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(stream.read(&mut buf).unwrap(), 4);
        assert_eq!(&buf[..4], b"late");
    });
}

#[test]
fn a_write_timeout_loses_and_repeats_no_data() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        stream.set_write_timeout(Some(SHORT)).unwrap();
        let mut sent = 0;
        let error = loop {
            match stream.write(&pattern(sent, 100_000)) {
                Ok(n) => sent += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        drop(stream);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let all = reader.join().unwrap();
        assert_eq!(all.len(), sent);
        assert_eq!(all, pattern(0, sent));
    });
}

#[test]
fn the_timeout_that_is_due_first_ends_the_read_and_only_its_owner_sees_it() {
    bounded(|| {
        let (mut stream, _peer) = with_std_peer();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let outer = timeout(SHORT, || stream.read(&mut [0; 8]).map(drop));
        assert_eq!(outer.unwrap_err(), TimeoutError::Elapsed);
        stream.set_read_timeout(Some(SHORT)).unwrap();
        let inner = timeout(LONG, || stream.read(&mut [0; 8]).unwrap_err().kind());
        assert_eq!(inner, Ok(ErrorKind::WouldBlock));
    });
}

#[test]
fn ready_io_beats_a_timeout_that_is_due_in_the_same_turn() {
    bounded(|| {
        for scope in [false, true] {
            let (mut stream, mut peer) = with_std_peer();
            let reader = spawn(move || {
                let mut buf = [0; 8];
                if scope {
                    timeout(SHORT, || stream.read(&mut buf).unwrap()).map_err(|_| ErrorKind::TimedOut)
                } else {
                    stream.set_read_timeout(Some(SHORT)).unwrap();
                    stream.read(&mut buf).map_err(|error| error.kind())
                }
            });
            // The reader waits; then no thread polls until both have happened.
            yield_now();
            std::thread::sleep(2 * SHORT);
            peer.write_all(b"in time").unwrap();
            assert_eq!(reader.join().unwrap(), Ok(7), "scope: {scope}");
        }
    });
}

#[test]
fn clones_share_timeouts_and_mode_and_outlive_each_other() {
    bounded(|| {
        let (stream, mut peer) = with_std_peer();
        let mut clone = stream.try_clone().unwrap();
        stream.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(clone.read_timeout().unwrap(), Some(SHORT));
        clone.set_write_timeout(Some(LONG)).unwrap();
        assert_eq!(stream.write_timeout().unwrap(), Some(LONG));
        assert_eq!(clone.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.set_read_timeout(None).unwrap();
        stream.set_nonblocking(true).unwrap();
        assert_eq!(clone.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        clone.set_nonblocking(false).unwrap();
        drop(stream);
        let writer = spawn(move || peer.write_all(b"on").unwrap());
        assert_eq!(clone.read(&mut [0; 8]).unwrap(), 2);
        writer.join().unwrap();
        let (listener, addr) = local_listener();
        let second = listener.try_clone().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(second.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(listener);
        second.set_nonblocking(false).unwrap();
        let client = spawn(move || TcpStream::connect(addr).unwrap());
        second.accept().unwrap();
        client.join().unwrap();
    });
}

#[test]
fn two_clones_can_wait_at_once_and_each_byte_goes_to_one() {
    bounded(|| {
        let (stream, mut peer) = with_std_peer();
        let clone = stream.try_clone().unwrap();
        let total = Rc::new(Cell::new(0));
        let readers: Vec<_> = [stream, clone]
            .into_iter()
            .map(|mut end| {
                let total = Rc::clone(&total);
                spawn(move || {
                    while let Ok(n @ 1..) = end.read(&mut [0; 8]) {
                        total.set(total.get() + n);
                    }
                })
            })
            .collect();
        for _ in 0..100 {
            peer.write_all(b"12345").unwrap();
            yield_now();
        }
        drop(peer);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(total.get(), 500);
    });
}

#[test]
fn a_nonblocking_stream_never_parks_and_sees_data_without_a_turn_of_the_hub() {
    bounded(|| {
        let (mut stream, mut peer) = with_std_peer();
        stream.set_nonblocking(true).unwrap();
        greenling::no_switch(|| {
            assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(stream.peek(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            peer.write_all(b"now").unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 3);
            while stream.write(&[0; 4096]).is_ok() {}
        });
    });
}

// ---- turns ----------------------------------------------------------------------------------------------------------

#[test]
fn acceptors_get_connections_in_the_order_in_which_they_began_to_wait() {
    bounded(|| {
        let (listener, addr) = local_listener();
        let listener = Rc::new(listener);
        let log = Rc::new(RefCell::new(Vec::new()));
        let acceptors: Vec<_> = (0..3)
            .map(|n| {
                let (listener, log) = (Rc::clone(&listener), Rc::clone(&log));
                spawn(move || {
                    for _ in 0..3 {
                        let accepted = listener.accept().unwrap();
                        log.borrow_mut().push(n);
                        drop(accepted);
                    }
                })
            })
            .collect();
        settle();
        for _ in 0..9 {
            drop(TcpStream::connect(addr).unwrap());
            settle();
        }
        for acceptor in acceptors {
            acceptor.join().unwrap();
        }
        assert_eq!(*log.borrow(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    });
}

#[test]
fn connections_that_come_together_go_to_different_acceptors() {
    bounded(|| {
        let (listener, addr) = local_listener();
        let listener = Rc::new(listener);
        let acceptors: Vec<_> = (0..3)
            .map(|_| {
                let listener = Rc::clone(&listener);
                spawn(move || listener.accept().unwrap().1)
            })
            .collect();
        settle();
        // No turn of the hub in between, so that one event tells of all three.
        let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        for (acceptor, client) in acceptors.into_iter().zip(&clients) {
            assert_eq!(acceptor.join().unwrap(), client.local_addr().unwrap());
        }
    });
}

#[test]
fn a_chatty_socket_starves_no_thread_whatever_scope_it_runs_in() {
    bounded(|| {
        for in_scope in [false, true] {
            let (chatty, mut chatty_peer) = with_std_peer();
            chatty_peer.write_all(b"always there").unwrap();
            let chatty = spawn(move || {
                // Succeeds at once, for ever.
                let talk = || -> () {
                    loop {
                        chatty.peek(&mut [0; 4]).unwrap();
                    }
                };
                if in_scope { timeout(LONG, talk).unwrap() } else { talk() }
            });
            let spinner = spawn(|| -> () {
                loop {
                    yield_now();
                }
            });
            let (mut near, far) = pair();
            let echo = spawn(move || std::io::copy(&mut &far, &mut &far));
            for round in 0..50_u8 {
                near.write_all(&[round]).unwrap();
                let mut back = [0];
                near.read_exact(&mut back).unwrap();
                assert_eq!(back, [round]);
            }
            for _ in 0..5 {
                sleep(Duration::from_millis(1));
            }
            drop(near);
            echo.join().unwrap().unwrap();
            chatty.kill();
            assert!(chatty.join().unwrap_err().is_killed(), "IO that always succeeds still lets a kill through");
            spinner.kill();
            assert!(spinner.join().is_err());
        }
    });
}

#[test]
fn a_chatty_socket_is_ended_by_its_timeout() {
    bounded(|| {
        let (chatty, mut chatty_peer) = with_std_peer();
        chatty_peer.write_all(b"always there").unwrap();
        let ended = timeout(SHORT, || -> () {
            loop {
                chatty.peek(&mut [0; 4]).unwrap();
            }
        });
        assert_eq!(ended.unwrap_err(), TimeoutError::Elapsed);
    });
}

// ---- kill and unwinding ---------------------------------------------------------------------------------------------

#[test]
fn a_killed_reader_leaves_the_stream_usable() {
    bounded(|| {
        let (stream, mut peer) = with_std_peer();
        let stream = Rc::new(stream);
        for call in 0..3 {
            let reader = {
                let stream = Rc::clone(&stream);
                spawn(move || match call {
                    0 => (&*stream).read(&mut [0; 8]).unwrap(),
                    1 => stream.peek(&mut [0; 8]).unwrap(),
                    _ => stream.read_with(<[u8]>::len).unwrap(),
                })
            };
            settle();
            // The data comes first, the kill second: whichever wins, no data may be lost.
            reader.kill();
            peer.write_all(b"kept").unwrap();
            assert!(reader.join().unwrap_err().is_killed());
            assert_eq!(stream.read_with(<[u8]>::to_vec).unwrap(), b"kept");
        }
        assert_eq!(hub::live_threads(), 0);
    });
}

#[test]
fn data_a_killed_reader_was_woken_for_goes_to_the_next() {
    bounded(|| {
        let (stream, mut peer) = with_std_peer();
        let stream = Rc::new(stream);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let stream = Rc::clone(&stream);
                spawn(move || stream.read_with(<[u8]>::to_vec).unwrap())
            })
            .collect();
        settle();
        peer.write_all(b"one").unwrap();
        let mut readers = readers.into_iter();
        let (first, second) = (readers.next().unwrap(), readers.next().unwrap());
        first.kill();
        assert!(first.join().unwrap_err().is_killed());
        assert_eq!(second.join().unwrap(), b"one");
    });
}

#[test]
fn a_killed_writer_leaves_the_stream_usable() {
    bounded(|| {
        let (stream, peer) = with_std_peer();
        let stream = Rc::new(stream);
        let writer = {
            let stream = Rc::clone(&stream);
            spawn(move || (&*stream).write_all(&vec![7; 64 << 20]).unwrap())
        };
        settle();
        writer.kill();
        assert!(writer.join().unwrap_err().is_killed());
        let drain = std::thread::spawn(move || {
            let (mut peer, mut all) = (peer, Vec::new());
            peer.read_to_end(&mut all).unwrap();
            all
        });
        (&*stream).write_all(b"end").unwrap();
        drop(stream);
        let all = drain.join().unwrap();
        assert!(all.ends_with(b"\x07end"));
        assert_eq!(hub::live_threads(), 0);
    });
}

#[test]
fn a_killed_acceptor_leaves_the_listener_usable() {
    bounded(|| {
        let (listener, addr) = local_listener();
        let listener = Rc::new(listener);
        let acceptor = {
            let listener = Rc::clone(&listener);
            spawn(move || listener.accept().map(drop).unwrap())
        };
        settle();
        let client = std::net::TcpStream::connect(addr).unwrap();
        acceptor.kill();
        assert!(acceptor.join().unwrap_err().is_killed());
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
    });
}

#[test]
fn a_killed_connect_leaves_no_descriptor_behind() {
    bounded(|| {
        let (_listener, addr, _queue) = full_listener();
        let sockets = || {
            let port = format!(":{:04X} ", addr.port());
            let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
            // Remote address of a socket in SYN_SENT.
            table.lines().filter(|line| line.contains(&format!("{port}02 "))).count()
        };
        let before = sockets();
        let victims: Vec<_> = (0..5).map(|_| spawn(move || TcpStream::connect(addr).map(drop).unwrap())).collect();
        settle();
        assert_eq!(sockets(), before + 5);
        for victim in victims {
            victim.kill();
            assert!(victim.join().unwrap_err().is_killed());
        }
        assert_eq!(sockets(), before);
        assert_eq!(hub::live_threads(), 0);
    });
}

/// Tries all calls when it is dropped.
struct Tries {
    /// Nothing can be read from it.
    silent: TcpStream,
    /// Something can.
    ready: TcpStream,
    listener: TcpListener,
    results: Rc<RefCell<Vec<Result<usize, ErrorKind>>>>,
}

impl Drop for Tries {
    fn drop(&mut self) {
        let refused = [
            (&self.silent).read(&mut [0; 8]),
            self.silent.peek(&mut [0; 8]),
            self.silent.read_with(<[u8]>::len),
            self.listener.accept().map(|_| 0),
            TcpStream::connect(self.listener.local_addr().unwrap()).map(|_| 0),
            (&self.ready).read(&mut [0; 8]),
            (&self.ready).write(b"bye"),
        ];
        self.results.borrow_mut().extend(refused.map(|result| result.map_err(|error| error.kind())));
    }
}

#[test]
fn while_unwinding_a_call_that_would_wait_is_an_error_and_others_work() {
    bounded(|| {
        let results = Rc::new(RefCell::new(Vec::new()));
        let (silent, _silent_peer) = with_std_peer();
        let (ready, mut ready_peer) = with_std_peer();
        ready_peer.write_all(b"here").unwrap();
        let tries = Tries { silent, ready, listener: local_listener().0, results: Rc::clone(&results) };
        let victim = spawn(move || {
            let _tries = tries;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(victim.join().unwrap_err().is_panic());
        let refused = Err(ErrorKind::Other);
        assert_eq!(*results.borrow(), [refused, refused, refused, refused, refused, Ok(4), Ok(3)]);
        let mut bye = [0; 3];
        ready_peer.read_exact(&mut bye).unwrap();
        assert_eq!(&bye, b"bye");
    });
}

#[test]
fn a_call_in_a_destructor_of_the_ending_os_thread_is_an_error() {
    bounded(|| {
        struct Last(TcpStream, TcpStream, std::sync::mpsc::Sender<(ErrorKind, usize)>);
        impl Drop for Last {
            fn drop(&mut self) {
                let silent = (&self.0).read(&mut [0; 8]).unwrap_err().kind();
                let ready = (&self.1).read(&mut [0; 8]).unwrap();
                self.2.send((silent, ready)).unwrap();
            }
        }
        thread_local!(static LAST: RefCell<Option<Last>> = const { RefCell::new(None) });
        let (tell, told) = std::sync::mpsc::channel();
        let (silent, _silent_peer) = with_std_peer();
        let (ready, mut ready_peer) = with_std_peer();
        ready_peer.write_all(b"12").unwrap();
        let (silent, ready) = (std::net::TcpStream::from(silent), std::net::TcpStream::from(ready));
        let thread = std::thread::spawn(move || {
            // Registered before the hub's own destructor, so it runs after it.
            LAST.with(|last| *last.borrow_mut() = Some(Last(silent.into(), ready.into(), tell)));
            yield_now();
            sleep(Duration::from_millis(1));
        });
        thread.join().unwrap();
        assert_eq!(told.recv().unwrap(), (ErrorKind::Other, 2));
    });
}

#[test]
fn streams_of_two_hubs_talk_to_each_other() {
    bounded(|| {
        let (listener, addr) = local_listener();
        let client = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(b"over").unwrap();
            let mut back = [0; 4];
            stream.read_exact(&mut back).unwrap();
            back
        });
        let (stream, _) = listener.accept().unwrap();
        let server = spawn(move || stream.read_with(|bytes| (&stream).write_all(bytes)).unwrap());
        server.join().unwrap().unwrap();
        assert_eq!(&client.join().unwrap(), b"over");
    });
}
