//! What only `echo_std_patched` does. The rest of its promises are those of `echo.rs`.
//!
//! It has no options, reads no input, keeps no log and counts nothing. So the promises of `server.rs` that are about those
//! are not for it: limits on connections and on silence, `quit`, the grace for clients when it ends, the counters, several
//! hubs. What it does in their place is what any program of `std` does, and asserted here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use crate::echo::{ECHO_STD_PATCHED, Program};
use crate::support::{PATIENCE, echo, limit_descriptors, run};

#[test]
fn a_port_in_use_is_the_error_of_std_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ended = run(ECHO_STD_PATCHED.name, &[&taken.local_addr().unwrap().to_string()], b"");
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.starts_with("Error: Os { code: 98, kind: AddrInUse"), "{}", ended.stderr);
    assert!(ended.stdout.is_empty());
}

/// There is nobody who would hear the signal and let clients finish.
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
    assert!(TcpStream::connect(server.addr).is_err(), "somebody still listens");
}

/// Its own `thread::sleep` after each failure to accept is what lets the others be served meanwhile.
#[test]
fn without_descriptors_it_serves_who_is_there_and_goes_on_later() {
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
}
