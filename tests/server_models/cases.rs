//! What every model promises, one function each. See `main.rs`.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::Model;
use crate::python;
use crate::support::{PATIENCE, Server, echo, limit_descriptors, noise, reset};

/// How long something must not have happened before that counts as never.
const A_WHILE: Duration = Duration::from_millis(150);

/// Starts a model.
pub(crate) fn start(model: Model, args: &[&str]) -> Server {
    start_with(model, args, |_| {})
}

/// Starts a model, with nothing as its input unless `prepare` says so.
pub(crate) fn start_with(model: Model, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
    if let Some(script) = model.script {
        return python::start(script, args, prepare);
    }
    let hubs: &[&str] = if model.hubs { &["--hubs", "2"] } else { &[] };
    let args = [&["--model", model.name], hubs, args].concat();
    Server::start_program("server_models", &args, |command| {
        command.stdin(Stdio::null());
        prepare(command);
    })
}

/// What the log calls a client.
fn name(client: &TcpStream) -> String {
    client.local_addr().unwrap().to_string()
}

/// Nothing comes in on this connection.
#[track_caller]
fn assert_silent(client: &mut TcpStream) {
    client.set_read_timeout(Some(A_WHILE)).unwrap();
    let error = client.read(&mut [0]).expect_err("an answer, or the end");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// The other side has ended the connection, in whatever way.
fn is_closed(client: &mut TcpStream) -> bool {
    match client.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Waits until `condition` holds.
#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the children of a process, zombies too.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // proc_pid_stat(5): after the name in parentheses, the state and the parent.
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        after_name.split(' ').nth(1).and_then(|id| id.parse().ok()) == Some(parent)
    };
    processes.filter(is_child).collect()
}

/// How many descriptors a process has open.
fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// CPU time that all threads of a process have used, to a hundredth of a second.
fn cpu_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // proc_pid_stat(5): user and system time, in ticks of which USER_HZ = 100 are a second.
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// The documents' session: the first client says 123, the second 345, and each gets its own back.
pub(crate) fn it_answers_two_clients_in_turn(model: Model) {
    let server = start(model, &[]);
    let (mut one, mut two) = (server.connect(), server.connect());
    echo(&mut one, b"123");
    if model.concurrent {
        echo(&mut two, b"345");
        echo(&mut one, b"again");
        echo(&mut two, b"and again");
    } else {
        // By nature: the second waits until the first leaves, and what it said until then is not lost.
        two.write_all(b"345").unwrap();
        assert_silent(&mut two);
        echo(&mut one, b"again");
    }
    let (first, second) = (name(&one), name(&two));
    drop(one);
    server.out.wait_for(&format!("{first} left after 8 bytes: closed by the client"));
    let said = if model.concurrent {
        echo(&mut two, b"still there");
        23
    } else {
        let mut answer = [0; 3];
        two.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"345");
        3
    };
    drop(two);
    server.out.wait_for(&format!("{second} left after {said} bytes: closed by the client"));
    let log = server.out.all();
    assert_eq!(log[0], format!("listening on {}", server.addr));
    // Hubs welcome their clients independently of each other.
    assert!(
        log[1] == format!("{first} connected") || model.hubs && log.contains(&format!("{first} connected")),
        "{log:#?}"
    );
    assert!(log.contains(&format!("{second} connected")) && log.len() == 5, "{log:#?}");
    assert!(server.err.all().is_empty());
}

pub(crate) fn it_thanks_for_every_message(model: Model) {
    let server = start(model, &["--reply", "thanks", "--quiet"]);
    let mut client = server.connect();
    for message in ["a", "a longer one", "\u{4f60}\u{597d}"] {
        client.write_all(message.as_bytes()).unwrap();
        let mut answer = [0; 10];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"thank you!");
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 10]).unwrap(), 0, "thanks for nothing");
    // --quiet: nothing but the first line.
    assert_eq!(server.out.all(), [format!("listening on {}", server.addr)]);
}

/// All are in line, and have said something, before the server looks: an edge-triggered one gets a single event.
pub(crate) fn it_serves_two_hundred_that_come_at_once(model: Model) {
    let server = start(model, &["--quiet"]);
    server.process.signal(libc::SIGSTOP);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&noise(number as u64, 1000)).unwrap();
    }
    server.process.signal(libc::SIGCONT);
    let check = |number: usize, client: &mut TcpStream| {
        let mut answer = [0; 1000];
        client.read_exact(&mut answer).unwrap();
        assert!(answer == noise(number as u64, 1000)[..], "client {number} got what another one sent");
    };
    if model.concurrent {
        // The last first, and all clients stay until all have been served.
        clients.iter_mut().enumerate().rev().for_each(|(number, client)| check(number, client));
    } else {
        // By nature: each only after the one before has left.
        clients.into_iter().enumerate().for_each(|(number, mut client)| check(number, &mut client));
    }
}

/// The client sends all of it, whether or not the answer is being read.
fn send_in_background(client: &TcpStream, message: &[u8]) -> thread::JoinHandle<()> {
    let (mut client, message) = (client.try_clone().unwrap(), message.to_vec());
    thread::spawn(move || {
        client.write_all(&message).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    })
}

pub(crate) fn it_returns_a_message_larger_than_its_buffer(model: Model) {
    let server = start(model, &[]);
    let mut client = server.connect();
    // Once in pieces of any size, and once more while the connection is known to be good for it.
    for seed in [1, 2] {
        let message = noise(seed, 1 << 20);
        let (mut sender, copy) = (client.try_clone().unwrap(), message.clone());
        let sending = thread::spawn(move || sender.write_all(&copy).unwrap());
        let mut answer = vec![0; message.len()];
        client.read_exact(&mut answer).unwrap();
        sending.join().unwrap();
        assert!(answer == message);
    }
}

pub(crate) fn it_returns_split_writes_as_they_come(model: Model) {
    let server = start(model, &[]);
    let mut client = server.connect();
    client.set_nodelay(true).unwrap();
    for byte in noise(3, 100) {
        echo(&mut client, &[byte]);
    }
    // A character in two pieces.
    echo(&mut client, &"\u{4f60}".as_bytes()[..2]);
    echo(&mut client, &"\u{4f60}".as_bytes()[2..]);
}

pub(crate) fn it_returns_bytes_that_are_no_text(model: Model) {
    let server = start(model, &[]);
    let mut client = server.connect();
    let all: Vec<u8> = (0..=255).collect();
    echo(&mut client, &all);
    echo(&mut client, &[0]);
    echo(&mut client, b"\xff\xfe\r\n\x1a\x04");
}

pub(crate) fn it_answers_all_before_a_half_closed_connection_ends(model: Model) {
    let server = start(model, &[]);
    let message = noise(4, 1 << 20);
    let mut client = server.connect();
    let sending = send_in_background(&client, &message);
    // Let the end arrive, as far as it can, before anything is read.
    thread::sleep(Duration::from_millis(20));
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    sending.join().unwrap();
    assert!(answer == message, "{} of {} bytes", answer.len(), message.len());
    server.out.wait_for(&format!("{} left after {} bytes: closed by the client", name(&client), message.len()));
    // And a client that says nothing at all is let go.
    let mut silent = server.connect();
    silent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
}

pub(crate) fn it_survives_a_reset_in_mid_message(model: Model) {
    let server = start(model, &[]);
    let mut witness = model.concurrent.then(|| server.connect());
    for seed in 0..5 {
        let mut broken = server.connect();
        let broken_name = name(&broken);
        echo(&mut broken, b"well");
        broken.set_nonblocking(true).unwrap();
        // The server is in the middle of reading, or of sending, this.
        let _ = broken.write(&noise(seed, 1 << 20)).unwrap();
        reset(broken);
        server.out.wait_for(&format!("{broken_name} left after "));
        if let Some(witness) = &mut witness {
            echo(witness, b"still there");
        }
    }
    echo(&mut server.connect(), b"and for others");
    assert!(server.err.all().is_empty(), "{:?}", server.err.all());
}

/// More than any connection holds.
static MESSAGE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(5, 64 << 20));

/// Sends until neither side takes anything any more, or all is sent; returns how much that was.
fn fill(client: &mut TcpStream, message: &[u8]) -> usize {
    client.set_nonblocking(true).unwrap();
    let (mut sent, mut full_since) = (0, Instant::now());
    while sent < message.len() && full_since.elapsed() < A_WHILE {
        match client.write(&message[sent..]) {
            Ok(count) => {
                sent += count;
                full_since = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
    client.set_nonblocking(false).unwrap();
    sent
}

/// Its memory stays bounded, others are served, and when it does read, late, nothing is missing.
pub(crate) fn it_bounds_what_it_keeps_for_a_client_that_never_reads(model: Model) {
    let server = start(model, &[]);
    let mut stuck = server.connect();
    echo(&mut stuck, b"before");
    let before = server.resident_kib();
    let sent = fill(&mut stuck, &MESSAGE);
    assert!(sent < MESSAGE.len(), "the server has read all of {sent} bytes");
    // A debug build, its first large message: some pages are touched for the first time.
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB more for one client that does not read");
    let mut other = server.connect();
    if model.concurrent {
        echo(&mut other, b"meanwhile");
        if model.sleeps {
            let cpu = cpu_time(server.process.0.id());
            thread::sleep(A_WHILE);
            let cpu = cpu_time(server.process.0.id()) - cpu;
            assert!(cpu <= A_WHILE / 3, "{cpu:?} of CPU time in {A_WHILE:?} for a client that does not read");
        }
    } else {
        // By nature.
        other.write_all(b"meanwhile").unwrap();
        assert_silent(&mut other);
    }
    let answer = rest_of(&mut stuck, sent);
    assert!(answer == MESSAGE[..sent], "what was read late differs");
    if !model.concurrent {
        drop(stuck);
        let mut answer = [0; 9];
        other.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"meanwhile");
    }
}

/// Reads `count` bytes after having ended its own side, and then the end.
fn rest_of(client: &mut TcpStream, count: usize) -> Vec<u8> {
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::with_capacity(count);
    client.read_to_end(&mut answer).unwrap();
    answer
}

/// Bytes that the kernel has for one end of a connection.
struct Queues {
    /// Sent, and not acknowledged.
    sent: usize,
    /// Received, and not read.
    received: usize,
}

/// The kernel's queues of a connection: those of its `local` end, and those of the other.
fn queues(local: SocketAddr, peer: SocketAddr) -> [Queues; 2] {
    // proc_pid_net(5): addresses in hexadecimal as they lie in memory, then the state and both queues.
    let name = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), addr.port()),
        IpAddr::V6(_) => panic!("{addr}: not in this table"),
    };
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    [(local, peer), (peer, local)].map(|(one, other)| {
        let ends = format!(" {} {} ", name(one), name(other));
        let row = table.lines().find(|row| row.contains(&ends)).unwrap_or_else(|| panic!("no{ends}in {table}"));
        let (sent, received) = row.split_whitespace().nth(4).unwrap().split_once(':').unwrap();
        let number = |hex| usize::from_str_radix(hex, 16).unwrap();
        Queues { sent: number(sent), received: number(received) }
    })
}

/// The client ends its side at a moment when the server has read all there was, and could not yet send all of it.
pub(crate) fn it_sends_what_it_kept_to_a_client_that_has_ended(model: Model) {
    let server = start(model, &[]);
    // A receive buffer of a fixed size: what the connection holds when it is full is the same the second time.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(208 * 1024).unwrap();
    socket.connect(&server.addr.into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let addr = client.local_addr().unwrap();
    let full = fill(&mut client, &MESSAGE);
    let [ours, its] = queues(addr, server.addr);
    let on_its_way_back = its.sent + ours.received;
    client.read_exact(&mut vec![0; full]).unwrap();

    // What is in no queue of the kernel, and stays so, is kept by the server.
    let is_kept = |sent: usize| {
        (0..3).all(|_| {
            thread::sleep(Duration::from_millis(2));
            let [ours, its] = queues(addr, server.addr);
            sent > ours.sent + its.received + its.sent + ours.received
        })
    };
    let mut sent = fill(&mut client, &MESSAGE[..on_its_way_back]);
    while !is_kept(sent) {
        sent += fill(&mut client, &MESSAGE[sent..sent + 16 * 1024]);
    }
    client.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(30));
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer == MESSAGE[..sent], "{} of {sent} bytes", answer.len());
}

/// No descriptor, no zombie, no entry in a list that would be looked through for ever.
pub(crate) fn it_forgets_clients_that_left(model: Model) {
    let server = start(model, &[]);
    let id = server.process.0.id();
    echo(&mut server.connect(), b"first");
    eventually("the first one is forgotten", || children(id).is_empty() && server.out.all().len() == 3);
    let before = descriptors(id);
    let mut clients = Vec::new();
    for number in 0..30 {
        let mut client = server.connect();
        echo(&mut client, b"hello");
        match number % 3 {
            0 => drop(client),
            1 => reset(client),
            _ if model.concurrent => clients.push(client),
            _ => {}
        }
    }
    for client in &mut clients {
        echo(client, b"and on");
    }
    drop(clients);
    eventually("all are forgotten", || {
        server.out.all().iter().filter(|line| line.contains(" left after ")).count() == 31
            && descriptors(id) == before
            && children(id).is_empty()
    });
}

pub(crate) fn it_refuses_a_client_without_descriptor_and_goes_on(model: Model) {
    let server = start_with(model, &[], |command| limit_descriptors(command, 24));
    if !model.concurrent {
        // By nature it has one client, and one descriptor for it.
        return (0..40).for_each(|_| echo(&mut server.connect(), b"hello"));
    }
    let mut clients: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    let mut served = Vec::new();
    for mut client in clients.drain(..) {
        // A client that was turned away cannot always be written to.
        let answered = client.write_all(b"hello").and_then(|()| client.read_exact(&mut [0; 5]));
        match answered {
            Ok(()) => served.push(client),
            Err(error) => {
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                    ),
                    "{error}"
                );
                server.out.wait_for(&format!("{} refused: ", name(&client)));
            }
        }
    }
    if model.forks {
        assert_eq!(served.len(), 40, "a process per client has descriptors for all");
    } else {
        assert!((10..24).contains(&served.len()), "{} of 40 served with 24 descriptors", served.len());
    }
    for client in &mut served {
        echo(client, b"still there");
    }
    // There is room again when one leaves.
    let gone = name(&served.pop().unwrap());
    server.out.wait_for(&format!("{gone} left after "));
    eventually("a client in place of the one that left", || {
        let mut client = server.connect();
        client.write_all(b"me").and_then(|()| client.read_exact(&mut [0; 2])).is_ok()
    });
}

pub(crate) fn it_ends_on_sigterm_and_sigint_with_all_its_clients(model: Model) {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = start(model, &[]);
        let mut clients = [server.connect(), server.connect()];
        let served = if model.concurrent { 2 } else { 1 };
        clients[..served].iter_mut().for_each(|client| echo(client, b"hello"));
        server.process.signal(signal);
        assert_eq!(server.process.wait().signal(), Some(signal));
        assert!(clients.iter_mut().all(is_closed), "a client of a server that has ended is still connected");
        assert!(TcpStream::connect(server.addr).is_err(), "the port is still open");
        assert!(server.err.all().is_empty());
    }
}

pub(crate) fn it_starts_again_at_once_on_the_same_port(model: Model) {
    // Connections of other tests never have this address, so that none of them can take the port meanwhile.
    let mut server = start(model, &["--addr", "127.0.0.3:0"]);
    let addr = server.addr.to_string();
    for _ in 0..3 {
        let mut client = server.connect();
        echo(&mut client, b"hello");
        // The server is the first to close: its side of the connection is the one that lingers.
        server.process.signal(libc::SIGTERM);
        server.process.wait();
        server = start(model, &["--addr", &addr]);
        assert!(is_closed(&mut client));
        assert_eq!(server.addr.to_string(), addr);
        echo(&mut server.connect(), b"hello");
    }
}

pub(crate) fn it_sleeps_while_no_message_is_there_or_known_to_come(model: Model) {
    let server = start(model, &[]);
    let mut idle = server.connect();
    echo(&mut idle, b"hello");
    let id = server.process.0.id();
    let before = cpu_time(id);
    if model.sleeps {
        thread::sleep(2 * A_WHILE);
        let used = cpu_time(id) - before;
        assert!(used <= Duration::from_millis(30), "{used:?} of CPU time for nothing");
    } else {
        // By nature.
        eventually("busy polling is busy", || cpu_time(id) - before >= Duration::from_millis(200));
    }
    echo(&mut idle, b"still there");
}
