//! The network of a simulation: hosts and names, and what goes wrong between them.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use greenling::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use greenling::os::unix::net::{UnixListener, UnixStream};
use greenling::server::{TcpServer, UdpServer};
use greenling::sim::{self, Config, FailureKind, Strategy};
use greenling::{select, sleep, spawn, timeout};

/// Echoes what each connection sends, on the calling host.
fn echo(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        spawn(move || std::io::copy(&mut &stream, &mut &stream));
    }
}

/// Lets what was spawned before listen.
fn settle() {
    sleep(Duration::from_micros(1));
}

/// Runs `f` in a simulation in which servers may be left at the end.
fn simulate<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    Config::new().allow_leaks(true).seed(1).run(f)
}

#[test]
fn hosts_find_each_other_by_name_and_have_a_loopback_of_their_own() {
    simulate(|| {
        for name in ["one", "two"] {
            sim::host(name, move || {
                let listener = TcpListener::bind("127.0.0.1:80").unwrap();
                let name = sim::current_host_name();
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(name.as_bytes()).unwrap();
            });
        }
        settle();
        assert_eq!(TcpStream::connect("one:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        for name in ["one", "two"] {
            let text = sim::host(name, || {
                let mut text = String::new();
                TcpStream::connect("localhost:80").unwrap().read_to_string(&mut text).unwrap();
                text
            });
            assert_eq!(text.join().unwrap(), name);
        }
        assert_eq!(TcpStream::connect("three:80").unwrap_err().kind(), ErrorKind::Other);
        assert_eq!(TcpStream::connect("192.0.2.1:80").unwrap_err().kind(), ErrorKind::NetworkUnreachable);
        let on = spawn(sim::current_host_name).join().unwrap();
        assert_eq!(on, "localhost");
        let inherited = sim::host("one", || spawn(|| spawn(sim::current_host_name).join().unwrap()).join().unwrap());
        assert_eq!(inherited.join().unwrap(), "one");
    });
}

#[test]
fn latency_and_bandwidth_are_what_was_set_to_the_nanosecond() {
    simulate(|| {
        sim::network().latency(Duration::from_millis(10)).bandwidth(1_000_000);
        sim::host("db", || echo(80));
        settle();
        let begin = sim::elapsed();
        let mut stream = TcpStream::connect("db:80").unwrap();
        assert_eq!(sim::elapsed() - begin, Duration::from_millis(20), "a round trip for the handshake");
        let begin = sim::elapsed();
        stream.write_all(&[7; 1000]).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(sim::elapsed() - begin, Duration::from_millis(22), "a millisecond for 1000 bytes each way");
    });
}

#[test]
fn a_partition_delays_a_stream_and_ends_it_after_a_quarter_of_an_hour() {
    simulate(|| {
        sim::host("db", || echo(80));
        settle();
        let mut stream = TcpStream::connect("db:80").unwrap();
        sim::network().partition("localhost", "db");
        stream.write_all(b"late").unwrap();
        sleep(Duration::from_secs(1));
        let late = timeout(Duration::from_secs(1), || TcpStream::connect("db:80"));
        assert!(late.is_err(), "no answer to a request for a connection");
        sim::network().heal("localhost", "db");
        let mut buf = [0; 4];
        stream.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"late");
        assert!(sim::elapsed() < Duration::from_secs(5));
        sim::network().partition("localhost", "db");
        let begin = sim::elapsed();
        assert_eq!(TcpStream::connect("db:80").unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!((sim::elapsed() - begin).as_secs(), 127);
        let begin = sim::elapsed();
        stream.write_all(b"lost").unwrap();
        assert_eq!(stream.read(&mut buf).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!((sim::elapsed() - begin).as_secs(), 924);
        assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_crash_kills_the_threads_and_leaves_half_open_connections() {
    simulate(|| {
        let server = sim::host("db", || echo(80));
        settle();
        let mut stream = TcpStream::connect("db:80").unwrap();
        stream.write_all(b"ping").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        sim::network().crash("db");
        assert!(server.join().unwrap_err().is_killed());
        let nothing = timeout(Duration::from_secs(3600), || stream.read(&mut [0; 4]));
        assert!(nothing.is_err(), "a reader is not told");
        sim::network().restart("db");
        assert_eq!(TcpStream::connect("db:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        stream.write_all(b"ping").unwrap();
        assert_eq!(stream.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        sim::host("db", || echo(80));
        settle();
        TcpStream::connect("db:80").unwrap();
    });
}

#[test]
fn a_connection_is_reset_at_exactly_the_byte_that_was_said() {
    for bytes in [1, 5, 1000, 100_000] {
        simulate(move || {
            sim::host("db", || {
                let listener = TcpListener::bind("0.0.0.0:80").unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                let error = stream.write_all(&vec![1; 300_000]).and_then(|()| stream.read(&mut [0]).map(drop));
                assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionReset);
            });
            settle();
            sim::network().between("localhost", "db").reset_after(bytes);
            let mut stream = TcpStream::connect("db:80").unwrap();
            let mut read = Vec::new();
            let error = stream.read_to_end(&mut read).unwrap_err();
            assert_eq!((error.kind(), read.len() as u64), (ErrorKind::ConnectionReset, bytes));
        });
    }
}

#[test]
fn a_slow_reader_stops_the_writer_when_the_buffers_are_full() {
    simulate(|| {
        sim::network().buffers(1000, 500);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = near.write(&[1; 100]) {
            written += count;
        }
        assert_eq!(written, 1500);
        near.set_nonblocking(false).unwrap();
        let writer = spawn(move || near.write_all(&[2; 10_000]));
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(read.len(), 11_500);
        assert!(read[..1500].iter().all(|&byte| byte == 1) && read[1500..].iter().all(|&byte| byte == 2));
    });
}

#[test]
fn streams_come_whole_and_in_order_over_a_bad_link() {
    for seed in 0..20 {
        Config::new().allow_leaks(true).seed(seed).run(|| {
            let network = sim::network().jitter(Duration::from_millis(50)).loss(0.3).duplication(0.3).reordering(0.5);
            network.bandwidth(100_000);
            sim::host("db", || echo(80));
            sleep(Duration::from_micros(1));
            let stream = TcpStream::connect("db:80").unwrap();
            let sent: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
            let writer = spawn({
                let (mut half, sent) = (stream.try_clone().unwrap(), sent.clone());
                move || {
                    sent.chunks(777).for_each(|chunk| half.write_all(chunk).unwrap());
                    half.shutdown(Shutdown::Write).unwrap();
                }
            });
            let mut received = Vec::new();
            (&stream).read_to_end(&mut received).unwrap();
            writer.join().unwrap();
            assert!(received == sent, "seed {seed}");
        });
    }
}

#[test]
fn datagrams_are_lost_doubled_and_overtaken_as_often_as_was_said() {
    let (came, twice, early) = simulate(|| {
        let sink = sim::host("sink", || {
            let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut numbers = Vec::new();
            let mut buf = [0; 4];
            while socket.recv(&mut buf).is_ok() {
                numbers.push(u32::from_be_bytes(buf));
            }
            numbers
        });
        sim::network().loss(0.2).duplication(0.1).reordering(0.3);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for number in 0..10_000_u32 {
            socket.send_to(&number.to_be_bytes(), "sink:9").unwrap();
            sleep(Duration::from_micros(100));
        }
        let numbers = sink.join().unwrap();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let early = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
        (sorted.len(), numbers.len() - sorted.len(), early)
    });
    assert!((8100..8500).contains(&came), "{came}: 8200 of 10 000 get through, one copy or another");
    assert!((550..750).contains(&twice), "{twice}: 640 get through twice");
    assert!(early > 1000, "{early}");
}

#[test]
fn arms_timeouts_and_closes_work_as_in_life() {
    simulate(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let client = spawn(move || {
            sleep(Duration::from_secs(60));
            let mut stream = TcpStream::connect(addr).unwrap();
            sleep(Duration::from_secs(60));
            stream.write_all(b"now").unwrap();
            sleep(Duration::from_secs(60));
        });
        let (mut stream, _) = select! {
            accept(&listener) -> accepted => accepted.unwrap(),
            after(Duration::from_secs(3600)) => panic!("no connection"),
        };
        assert_eq!(sim::elapsed().as_secs(), 60);
        stream.set_read_timeout(Some(Duration::from_secs(7))).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(sim::elapsed().as_secs(), 67);
        select! {
            readable(&stream) -> ready => ready.unwrap(),
            after(Duration::from_secs(3600)) => panic!("nothing to read"),
        }
        assert_eq!(sim::elapsed().as_secs(), 120);
        stream.set_read_timeout(None).unwrap();
        assert_eq!(stream.peek(&mut [0; 2]).unwrap(), 2);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), sim::elapsed().as_secs()), ("now", 180));
        client.join().unwrap();
        let clone = listener.try_clone().unwrap();
        let acceptor = spawn(move || clone.accept().map(drop));
        settle();
        listener.close();
        assert!(acceptor.join().unwrap().is_err());
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn unix_names_belong_to_their_host_and_make_no_file() {
    simulate(|| {
        let listener = UnixListener::bind("a.sock").unwrap();
        assert_eq!(UnixListener::bind("a.sock").unwrap_err().kind(), ErrorKind::AddrInUse);
        let there = sim::host("db", || UnixStream::connect("a.sock").unwrap_err().kind());
        assert_eq!(there.join().unwrap(), ErrorKind::NotFound);
        let client = spawn(|| {
            let mut stream = UnixStream::connect("a.sock").unwrap();
            stream.write_all(b"hello").unwrap();
        });
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        client.join().unwrap();
        drop(listener);
        assert_eq!(UnixStream::connect("a.sock").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        UnixListener::bind("a.sock").unwrap();
        assert!(!std::path::Path::new("a.sock").exists());
    });
}

#[test]
fn a_wait_that_no_peer_can_end_is_a_deadlock_with_the_addresses() {
    let program = || {
        let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
        let _ = listener.accept();
    };
    let failure = Config::new().schedules(1).check(program).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Deadlock);
    assert!(
        failure.message().contains("main waits until descriptor 0 (listener 127.0.0.1:7000) can be read"),
        "{failure}"
    );
}

#[test]
fn what_leaves_the_simulation_is_no_socket_and_finds_its_way_back() {
    simulate(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let mut outside = std::net::TcpStream::from(far);
        assert!(outside.read(&mut [0]).is_err());
        near.write_all(b"x").unwrap();
        let mut back = TcpStream::from(outside);
        assert_eq!(back.read(&mut [0; 8]).unwrap(), 1);
        drop(back);
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn servers_serve_and_drain_while_a_link_is_cut() {
    for seed in 0..30 {
        Config::new().allow_leaks(true).seed(seed).run(|| {
            let (tell, told) = greenling::channel::unbounded();
            let server = sim::host("web", move || {
                let server = TcpServer::bind("0.0.0.0:80")
                    .unwrap()
                    .grace(Duration::from_secs(30))
                    .close_idle(false)
                    .start(|stream, _| greenling::io::copy(&mut &stream, &mut &stream).map(drop));
                let server = server.unwrap();
                tell.send(server.handle().clone()).unwrap();
                server.join().unwrap()
            });
            let handle = told.recv().unwrap();
            let clients: Vec<_> = ["near", "far"]
                .into_iter()
                .map(|name| {
                    sim::host(name, || {
                        let mut stream = TcpStream::connect("web:80")?;
                        stream.write_all(&[1; 5000])?;
                        sleep(Duration::from_secs(10));
                        stream.shutdown(Shutdown::Write)?;
                        let mut all = Vec::new();
                        stream.read_to_end(&mut all)?;
                        std::io::Result::Ok(all.len())
                    })
                })
                .collect();
            sleep(Duration::from_secs(5));
            sim::network().partition("far", "web");
            handle.drain();
            let ends: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            let report = server.join().unwrap();
            assert_eq!(ends[0].as_ref().unwrap(), &5000);
            // The end of the far client's stream never came, so the server has killed its handler.
            assert_eq!((report.finished, report.killed, report.active_at_start), (1, 1, 2));
            assert_eq!(report.took, Duration::from_secs(30));
            assert_eq!(ends[1].as_ref().unwrap_err().kind(), ErrorKind::TimedOut);
            assert_eq!(TcpStream::connect("web:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        });
    }
}

#[test]
fn a_server_of_hubs_serves_and_drains() {
    simulate(|| {
        // There is one hub in a simulation: the caller's, which serves as any other does.
        let server = TcpServer::bind("127.0.0.1:0").unwrap().grace(Duration::from_secs(30)).close_idle(false);
        let server = server.hubs([greenling::hub::handle()]);
        let server = server.start(|stream, _| greenling::io::copy(&mut &stream, &mut &stream).map(drop)).unwrap();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let mut stream = TcpStream::connect(server.local_addr()).unwrap();
                stream.write_all(b"x").unwrap();
                assert_eq!(stream.read(&mut [0; 4]).unwrap(), 1);
                stream
            })
            .collect();
        let ends = spawn(|| {
            sleep(Duration::from_secs(10));
            drop(clients);
        });
        let report = server.drain().unwrap();
        ends.join().unwrap();
        assert_eq!((report.active_at_start, report.finished, report.killed), (4, 4, 0));
        assert_eq!(sim::elapsed().as_secs(), 10);
    });
}

#[test]
fn a_server_for_datagrams_answers_and_drains() {
    simulate(|| {
        let server = UdpServer::bind("127.0.0.1:0").unwrap().start(|datagram| {
            sleep(Duration::from_secs(1));
            datagram.reply(datagram.bytes())
        });
        let server = server.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..10 {
            client.send_to(&[number], server.local_addr()).unwrap();
        }
        let mut buf = [0; 4];
        let mut got: Vec<u8> = (0..10).map(|_| client.recv(&mut buf).map(|_| buf[0]).unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, (0..10).collect::<Vec<u8>>());
        assert_eq!(server.drain().unwrap().counters.completed, 10);
        assert_eq!(sim::elapsed().as_secs(), 1);
    });
}

#[test]
fn an_exploration_finds_what_only_a_crash_shows() {
    // The server says that it has stored before it has; a crash in between loses what the client was told is safe.
    let program = || {
        let disk = std::rc::Rc::new(std::cell::Cell::new(false));
        let stored = disk.clone();
        sim::host("db", move || {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"stored").unwrap();
            sleep(Duration::from_millis(2));
            stored.set(true);
        });
        settle();
        let mut answer = [0; 6];
        let read = TcpStream::connect("db:80").and_then(|mut stream| stream.read_exact(&mut answer));
        sleep(Duration::from_micros(500 * sim::choose(4) as u64));
        sim::network().crash("db");
        assert!(read.is_err() || disk.get(), "told, and not stored");
    };
    let failure = Config::new().schedules(100).check(program).unwrap_err();
    assert!(failure.message().contains("told, and not stored"), "{failure}");
}

/// Sends two datagrams, and takes it that what is sent arrives once and in order.
fn takes_it_that_datagrams_arrive() {
    sim::network().loss(0.05).duplication(0.05).reordering(0.05);
    let sink = sim::host("sink", || {
        let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buf = [0; 4];
        std::iter::from_fn(|| socket.recv(&mut buf).ok().map(|_| buf[0])).collect::<Vec<_>>()
    });
    settle();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    (1..=2).for_each(|number| assert_eq!(socket.send_to(&[number; 4], "sink:9").unwrap(), 4));
    let came = sink.join().unwrap();
    assert_eq!(came, [1, 2], "the network is no wire");
}

#[test]
fn what_happens_to_packets_is_found_shrunk_and_swept() {
    let failure = Config::new().check(takes_it_that_datagrams_arrive).unwrap_err();
    println!("{failure}\n{}", failure.trace());
    assert!(failure.message().contains("the network is no wire"), "{failure}");
    assert_eq!(failure.schedule().deviations(), 1, "{failure}");
    assert_eq!(failure.trace().to_string().matches("a packet is ").count(), 1, "{}", failure.trace());
    // The sweep needs no luck, and comes to each: the first datagram is lost or doubled, or the second is.
    let came = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let program = || {
        sim::network().loss(0.05).duplication(0.05);
        let sink = UdpSocket::bind("0.0.0.0:9").unwrap();
        sink.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sender = sim::host("far", || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            (1..=2).for_each(|number| assert_eq!(socket.send_to(&[number; 4], "10.0.0.1:9").unwrap(), 4));
        });
        let mut buf = [0; 4];
        let numbers: Vec<u8> = std::iter::from_fn(|| sink.recv(&mut buf).ok().map(|_| buf[0])).collect();
        sender.join().unwrap();
        came.lock().unwrap().insert(numbers);
    };
    let config = |seed| Config::new().strategy(Strategy::Fifo).seed(seed);
    let calm = (0..).find(|&seed| !config(seed).trace(program).to_string().contains("a packet is ")).unwrap();
    came.lock().unwrap().clear();
    let swept = config(calm).check_faults(program);
    println!("{}", swept.unwrap());
    let came = came.into_inner().unwrap();
    for expected in [&[1, 2][..], &[2], &[1], &[1, 1, 2], &[1, 2, 2]] {
        assert!(came.contains(expected), "{expected:?}: {came:?}");
    }
}

/// Two clients of one server, one of which reads in two threads. Whatever is killed, the others come to an end.
fn conversation() {
    let server = sim::host("web", || {
        let listener = TcpListener::bind("0.0.0.0:80").unwrap();
        let handlers: Vec<_> = (0..2)
            .filter_map(|_| timeout(Duration::from_secs(10), || listener.accept()).ok()?.ok())
            .map(|(stream, _)| spawn(move || std::io::copy(&mut &stream, &mut &stream)))
            .collect();
        handlers.into_iter().for_each(|handler| drop(handler.join()));
    });
    settle();
    let talk = |stream: TcpStream, reader: TcpStream| {
        let reading = spawn(move || (&reader).read(&mut [0; 4]));
        for _ in 0..3 {
            (&stream).write_all(b"abcd")?;
        }
        let first = (&stream).read(&mut [0; 4]);
        stream.shutdown(Shutdown::Write)?;
        drop(reading.join());
        let mut rest = Vec::new();
        (&stream).read_to_end(&mut rest)?;
        first.map(|_| ())
    };
    let clients = [0, 1].map(|_| {
        spawn(move || {
            let stream = TcpStream::connect("web:80")?;
            let reader = stream.try_clone()?;
            talk(stream, reader)
        })
    });
    clients.into_iter().for_each(|client| drop(client.join()));
    drop(server.join());
}

#[test]
fn conversations_end_in_every_schedule_and_after_each_kill() {
    for strategy in [Strategy::Random, Strategy::Pct { depth: 3 }] {
        sim::explore(Config::new().strategy(strategy).schedules(200), conversation);
    }
    let swept = sim::kill_sweep(Config::new().strategy(Strategy::Fifo), conversation);
    assert!(swept.is_complete() && swept.schedules() > 10, "{swept}");
}
