//! The network by itself: each test is told the time, and looks at the sockets of both sides.
#![forbid(unsafe_code)]

use super::errno::Errno;
use super::*;

/// The nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

/// Makes a network with two further hosts, 1 and 2.
fn network() -> Network {
    let mut network = Network::new(0, 7);
    assert_eq!((network.add_host("web"), network.add_host("db")), (1, 2));
    network
}

/// Makes a listener on port 80 of a host.
fn listener(network: &mut Network, host: HostId) -> SocketId {
    let id = network.socket(host, Kind::Tcp { v6: false });
    network.bind(id, "0.0.0.0:80".parse().unwrap(), false).unwrap();
    network.listen(id, 16).unwrap();
    id
}

/// Connects host 1 to port 80 of host 2, and returns both ends.
fn connected(network: &mut Network) -> (SocketId, SocketId) {
    let server = listener(network, 2);
    let client = network.socket(1, Kind::Tcp { v6: false });
    assert_eq!(network.connect(client, "10.0.0.3:80".parse().unwrap()), Ok(false));
    settle(network);
    assert_eq!(network.take_error(client), Ok(None));
    (client, network.accept(server).unwrap())
}

/// Lets everything happen that is under way.
fn settle(network: &mut Network) {
    while let Some(at) = network.next_event() {
        network.advance(at);
    }
}

#[test]
fn a_connection_takes_a_round_trip_and_is_accepted_half_a_trip_later() {
    let mut network = network();
    let server = listener(&mut network, 2);
    let client = network.socket(1, Kind::Tcp { v6: false });
    assert_eq!(network.connect(client, "10.0.0.3:80".parse().unwrap()), Ok(false));
    assert_eq!(network.readiness(client), 0);
    network.advance(2 * MS - 1);
    assert_eq!(network.readiness(client), 0);
    network.advance(2 * MS);
    assert_eq!(network.readiness(client), bits::OUT);
    assert_eq!(network.accept(server), Err(Errno::EAGAIN));
    network.advance(3 * MS);
    let accepted = network.accept(server).unwrap();
    assert_eq!(network.peer_addr(accepted), network.local_addr(client));
    assert_eq!(network.peer_addr(client).unwrap().to_string(), "10.0.0.3:80");
    assert_eq!(network.next_event(), None, "the timer of the request is not needed any more");
}

#[test]
fn the_end_of_each_direction_is_seen_after_the_data() {
    let mut network = network();
    let (client, server) = connected(&mut network);
    assert_eq!(network.send(client, b"last"), Ok(4));
    network.shutdown(client, SHUT_WRITE).unwrap();
    assert_eq!(network.send(client, b"x"), Err(Errno::EPIPE));
    settle(&mut network);
    let mut buf = [0; 8];
    assert_eq!(network.recv(server, &mut buf, true), Ok(4));
    assert_eq!(network.recv(server, &mut buf, false), Ok(4));
    assert_eq!(network.recv(server, &mut buf, false), Ok(0));
    assert_eq!(network.recv(client, &mut buf, false), Err(Errno::EAGAIN));
    assert_eq!(network.send(server, b"answer"), Ok(6));
    network.close(server);
    settle(&mut network);
    assert_eq!(network.recv(client, &mut buf, false), Ok(6));
    assert_eq!(network.recv(client, &mut buf, false), Ok(0));
    assert_eq!(network.peer_addr(client), Err(Errno::ENOTCONN));
    assert_eq!(network.shutdown(client, SHUT_WRITE), Err(Errno::ENOTCONN));
}

#[test]
fn a_write_to_a_closed_socket_breaks_and_a_close_with_unread_data_resets() {
    let mut network = network();
    let (client, server) = connected(&mut network);
    network.close(server);
    settle(&mut network);
    assert_eq!(network.send(client, b"first"), Ok(5), "the peer may still read");
    settle(&mut network);
    assert_eq!(network.send(client, b"second"), Err(Errno::EPIPE));
    network.close(client);

    let mut network = self::network();
    let (client, server) = connected(&mut network);
    network.send(client, b"unread").unwrap();
    network.send(server, b"data").unwrap();
    settle(&mut network);
    network.close(server);
    settle(&mut network);
    let mut buf = [0; 8];
    assert_eq!(network.recv(client, &mut buf, false), Ok(4), "what came before the reset");
    assert_eq!(network.recv(client, &mut buf, false), Err(Errno::ECONNRESET));
    assert_eq!(network.recv(client, &mut buf, false), Ok(0));
    assert_eq!(network.send(client, b"x"), Err(Errno::EPIPE));
}

#[test]
fn a_watcher_is_told_of_each_change_and_of_nothing_else() {
    let mut network = network();
    let (client, server) = connected(&mut network);
    network.watch(server, 42).unwrap();
    assert_eq!(network.take_changes(), [(42, bits::OUT)]);
    assert!(!network.has_changes());
    network.send(client, b"x").unwrap();
    assert!(!network.has_changes(), "it is under way");
    settle(&mut network);
    assert_eq!(network.take_changes(), [(42, bits::IN | bits::OUT)]);
    network.unwatch(server, 42);
    network.close(client);
    settle(&mut network);
    assert!(network.take_changes().is_empty());
}

#[test]
fn closed_sockets_leave_nothing_behind() {
    let mut network = network();
    for _ in 0..100 {
        let server = listener(&mut network, 2);
        let client = network.socket(1, Kind::Tcp { v6: false });
        let _ = network.connect(client, "10.0.0.3:80".parse().unwrap());
        settle(&mut network);
        let accepted = network.accept(server).unwrap();
        network.send(client, b"unread").unwrap();
        let late = network.socket(1, Kind::Tcp { v6: false });
        let _ = network.connect(late, "10.0.0.3:80".parse().unwrap());
        for id in [server, client, accepted, late] {
            network.close(id);
        }
        settle(&mut network);
        assert_eq!((network.sockets.len(), network.ports.len()), (0, 0));
    }
}

/// Returns what happens in a network with much chance in it, as text.
fn story(seed: u64) -> String {
    let mut network = Network::new(0, seed);
    network.add_host("web");
    network.set_usual_conditions(Conditions {
        jitter: 5 * MS,
        loss: 0.2,
        duplication: 0.2,
        reordering: 0.2,
        ..Conditions::USUAL
    });
    let ids = [0, 1].map(|host| {
        let id = network.socket(host, Kind::Udp { v6: false });
        network.bind(id, "0.0.0.0:9".parse().unwrap(), false).unwrap();
        id
    });
    let mut story = String::new();
    for number in 0..100_u8 {
        network.send_udp(ids[0], &[number], Some("10.0.0.2:9".parse().unwrap())).unwrap();
    }
    while let Some(at) = network.next_event() {
        network.advance(at);
        let mut buf = [0; 1];
        while let Ok((_, from)) = network.recv_from(ids[1], &mut buf, false) {
            story += &format!("{at} {from} {}\n", buf[0]);
        }
    }
    story
}

#[test]
fn the_same_seed_gives_the_same_story_and_another_seed_another() {
    for seed in 0..20 {
        assert_eq!(story(seed), story(seed));
        assert_ne!(story(seed), story(seed + 1));
    }
}
