//! What only `echo_std_patched` does. The other promises are those of `echo.rs`.
//!
//! The program has no options but the address, reads no input, keeps no log and counts nothing. So the promises of
//! `server.rs` that are about those do not apply: limits on connections and on silence, `quit`, the grace for
//! clients at the end, the counters, several hubs. What happens in their place is what any program of `std` does, and
//! asserted here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::echo::{ECHO_STD_PATCHED, Program};
use crate::output::sockets_of;
use crate::support::{PATIENCE, echo, limit_descriptors, run};

#[test]
fn a_port_in_use_is_the_error_of_std_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ended = run(ECHO_STD_PATCHED.name, &[&taken.local_addr().unwrap().to_string()], b"");
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.starts_with("Error: Os { code: 98, kind: AddrInUse"), "{}", ended.stderr);
    assert!(ended.stdout.is_empty());
}

/// Nothing in the program hears the signal and lets clients finish.
#[test]
fn a_term_signal_ends_it_at_once() {
    let mut server = ECHO_STD_PATCHED.start();
    let mut clients = [server.connect(), server.connect()];
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    server.process.signal(libc::SIGTERM);
    assert_eq!(server.process.wait().signal(), Some(libc::SIGTERM));
    for client in &mut clients {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    assert!(TcpStream::connect(server.addr).is_err(), "the port is still open");
}

/// The program's own `thread::sleep` after each failure to accept is what lets the others be served meanwhile.
#[test]
fn without_descriptors_it_serves_its_clients_and_goes_on_later() {
    let server = ECHO_STD_PATCHED.start_with("127.0.0.1:0", |command| {
        Program::no_input(command);
        limit_descriptors(command, 20);
    });
    let mut clients: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"?").unwrap();
    }
    assert!(server.err.wait_for("accept: ").contains("Too many open files"));
    // In the order in which they came, until one has to wait.
    let is_served = |mut client: &TcpStream| {
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        client.read(&mut [0]).is_ok_and(|count| count == 1)
    };
    let served = clients.iter().take_while(|client| is_served(client)).count();
    assert!((5..20).contains(&served), "{served} clients are served");
    let busy = server.run_time();
    thread::sleep(Duration::from_secs(1));
    let busy = server.run_time() - busy;
    assert!(busy < Duration::from_millis(200), "it used {busy:?} of a second");
    for client in &mut clients[..served] {
        echo(client, b"still served");
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        if number >= served {
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"?");
        }
        echo(&mut client, b"at last");
    }
    // The server has tried a hundred times a second.
    assert_eq!(server.err.all().len(), 1, "it complains once a minute: {:#?}", server.err.all());
}

/// An answer of several segments is not held back until the client has acknowledged the first one.
#[test]
fn its_connections_do_not_wait_for_more_to_send() {
    let server = ECHO_STD_PATCHED.start();
    let mut client = server.connect();
    echo(&mut client, b"hello");
    let connections = || sockets_of(&server.process).into_iter().filter(|fd| SockRef::from(fd).peer_addr().is_ok());
    let Some(connection) = connections().next() else {
        eprintln!("SKIPPED: no pidfd_getfd(2) here");
        return;
    };
    assert!(SockRef::from(&connection).tcp_nodelay().unwrap());
}
