//! What `echo_server` promises to clients and users.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::built::example;
use crate::support::{PATIENCE, Running, Server, echo, limit_descriptors, noise, on_terminal, run, terminal};

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let ended = run("echo_server", &["--addr", &addr], b"");
    assert_eq!(ended.status.code(), Some(2));
    assert_eq!(ended.stderr, format!("echo_server: {addr} is in use; choose another by --addr HOST:PORT\n"));
    assert!(ended.stdout.is_empty());
}

/// Socket activation: the socket is there before the server and afterwards, so that no client is refused meanwhile.
#[test]
fn a_listener_that_is_passed_outlives_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || {
        let passed = OwnedFd::from(listener.try_clone().unwrap());
        Server::start_with(&["--addr", "127.0.0.1:1"], |command| {
            let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            // The shell makes the listener number 3 and knows the process id, as a service manager does.
            *command = Command::new("sh");
            command
                .args(["-c", "LISTEN_PID=$$ exec \"$@\" 3<&0 0</dev/null", "sh"])
                .arg(example("echo_server"))
                .args(args);
            command.env("LISTEN_FDS", "1").stdin(passed).stdout(Stdio::piped()).stderr(Stdio::piped());
        })
    };
    let mut server = start();
    assert_eq!(server.addr, listener.local_addr().unwrap());
    echo(&mut server.connect(), b"hello");
    server.process.signal(libc::SIGTERM);
    assert_eq!(server.process.wait().code(), Some(0));
    // No server runs now: the connection waits in the queue of the socket.
    let mut waits = server.connect();
    let _next = start();
    echo(&mut waits, b"hello");
}

/// The hubs of a server share the port with each other, by an option that would also let in a second server.
#[test]
fn a_port_that_other_hubs_use_is_in_use() {
    let server = Server::start(&["--hubs", "2"]);
    let addr = server.addr.to_string();
    for hubs in ["1", "2"] {
        let refused = run("echo_server", &["--addr", &addr, "--hubs", hubs], b"");
        assert_eq!(refused.status.code(), Some(2));
        assert_eq!(refused.stderr, format!("echo_server: {addr} is in use; choose another by --addr HOST:PORT\n"));
    }
    // Both hubs still get clients, spread by the ports they come from: each has fallen asleep since.
    let asleep = || -> Vec<u32> {
        let field =
            |status: String| Some(status.split_once("\nvoluntary_ctxt_switches:")?.1.lines().next()?.trim().parse());
        hubs_of(&server).into_iter().map(|status| field(status).unwrap().unwrap()).collect()
    };
    let before = asleep();
    let mut clients: Vec<TcpStream> = (0..64).map(|_| server.connect()).collect();
    assert_eq!(before.len(), 2);
    // On a busy machine a hub may serve all that it has got without falling asleep in between.
    let both = (0..100).any(|_| {
        clients.iter_mut().for_each(|client| echo(client, b"hello"));
        before.iter().zip(asleep()).all(|(before, after)| *before < after)
    });
    assert!(both, "{before:?}, {:?}", asleep());
}

/// Returns the `status` of each OS thread of a server but the monitor's, which starts when a hub was busy for a while.
fn hubs_of(server: &Server) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.process.0.id())).unwrap();
    let status = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    // The kernel keeps fifteen letters of a name.
    status.filter(|status| !status.starts_with("Name:\tgreenling-monit\n")).collect()
}

#[test]
fn without_descriptors_it_serves_its_clients_and_goes_on_later() {
    let server = Server::start_with(&[], |command| {
        command.stdin(Stdio::null());
        limit_descriptors(command, 20);
    });
    let mut clients: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    server.err.wait_for("Too many open files");
    let served = clients.len() - waiting(&mut clients);
    assert!((5..20).contains(&served), "{served} clients are served");
    // Not in a hot loop, and not in silence.
    let (busy, complaints) = (server.run_time(), server.err.all());
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    assert!(complaints[0].contains(&format!("{served} clients are served")), "{complaints:#?}");
    thread::sleep(Duration::from_secs(1));
    let busy = server.run_time() - busy;
    assert!(busy < Duration::from_millis(100), "it used {busy:?} of a second");
    for client in &mut clients[..served] {
        echo(client, b"still served");
    }
    // Descriptors get free: the next in line are let in, a few at a time, until all have been served.
    for (number, mut client) in clients.into_iter().enumerate() {
        if number >= served {
            // The client has asked before.
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"?");
        }
        echo(&mut client, b"at last");
    }
    server.out.wait_for("(0 now)");
    assert_eq!(server.err.all().len(), 1, "{:#?}", server.err.all());
}

/// Sends a line on each, and returns how many got no answer for a while. The answers come later.
fn waiting(clients: &mut [TcpStream]) -> usize {
    let mut waiting = 0;
    for client in clients {
        let patience = if waiting == 0 { Duration::from_secs(2) } else { Duration::from_millis(1) };
        client.set_read_timeout(Some(patience)).unwrap();
        client.write_all(b"?").unwrap();
        // A read with a time limit is not begun again by the kernel when the process was stopped and goes on:
        // signal(7).
        let answer = loop {
            match client.read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => break answer,
            }
        };
        match answer {
            Ok(1) => assert_eq!(waiting, 0, "served out of line"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => waiting += 1,
            other => panic!("{other:?}"),
        }
        client.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    waiting
}

#[test]
fn more_than_max_connections_wait_in_line() {
    let server = Server::start(&["--max-connections", "2"]);
    let mut clients: Vec<TcpStream> = (0..5).map(|_| server.connect()).collect();
    assert_eq!(waiting(&mut clients), 3);
    for left in (0..5).rev() {
        drop(clients.remove(0));
        // A client that waits is let in as soon as another leaves, and gets the answer to what was sent before.
        if left >= 2 {
            let mut answer = [0];
            clients[1].read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"?");
            echo(&mut clients[1], b"my turn");
        }
    }
    server.out.wait_for("(0 now)");
    assert!(!server.out.all().iter().any(|line| line.contains("(3 now)")));
    assert!(server.err.all().is_empty());
}

#[test]
fn a_silent_client_is_closed_after_the_idle_timeout() {
    let server = Server::start(&["--idle-timeout", "3"]);
    let (mut silent, mut talkative) = (server.connect(), server.connect());
    echo(&mut silent, b"hello");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(4500) {
        echo(&mut talkative, b"bla");
        thread::sleep(Duration::from_millis(100));
    }
    server.out.wait_for("echoed 5 bytes, it was silent for too long (1 now)");
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    echo(&mut talkative, b"still there");
}

#[test]
fn a_client_that_takes_nothing_is_closed_after_the_idle_timeout() {
    let server = Server::start(&["--idle-timeout", "2s"]);
    let mut stuck = server.connect();
    let piece = noise(8, 1 << 20);
    // Ends with an error when the server closes the connection.
    while stuck.write_all(&piece).is_ok() {}
    server.out.wait_for("it took nothing for too long (0 now)");
    echo(&mut server.connect(), b"hello");
}

/// A server on a new terminal, and the keyboard.
fn start_on_terminal(args: &[&str]) -> (Server, std::fs::File) {
    let (ours, theirs) = terminal();
    let server = Server::start_with(args, |command| on_terminal(command, &theirs));
    server.out.wait_for("type quit to stop");
    (server, ours)
}

#[test]
fn quit_and_the_end_of_input_on_a_terminal_stop_it() {
    for typed in ["quit\n", "what?\n\n  quit  \n", "\x04"] {
        let (mut server, mut keyboard) = start_on_terminal(&[]);
        keyboard.write_all(typed.as_bytes()).unwrap();
        assert_eq!(server.process.wait().code(), Some(0));
        server.out.wait_for("stopped");
        assert!(server.err.all().is_empty());
    }
}

#[test]
fn quit_lets_clients_finish_but_accepts_no_other() {
    let (mut server, mut keyboard) = start_on_terminal(&["--grace", "60"]);
    let (mut one, mut two) = (server.connect(), server.connect());
    echo(&mut one, b"hello");
    echo(&mut two, b"hello");
    keyboard.write_all(b"quit\n").unwrap();
    server.out.wait_for("stopping: waiting up to 60s for clients to leave (2 now)");
    assert_eq!(TcpStream::connect(server.addr).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    echo(&mut one, b"still there");
    drop(one);
    server.out.wait_for("echoed 16 bytes, closed by the client (1 now)");
    echo(&mut two, &noise(9, 100_000));
    drop(two);
    assert_eq!(server.process.wait().code(), Some(0));
    server.out.wait_for("stopped");
}

#[test]
fn quit_closes_the_connections_that_are_left_after_the_grace() {
    let (mut server, mut keyboard) = start_on_terminal(&["--grace", "300ms"]);
    let mut idle = server.connect();
    echo(&mut idle, b"hello");
    let mut stuck = server.connect();
    stuck.set_nonblocking(true).unwrap();
    let piece = noise(10, 1 << 20);
    while stuck.write(&piece).is_ok() {}
    server.out.wait_for("(2 now)");
    keyboard.write_all(b"quit\n").unwrap();
    assert_eq!(server.process.wait().code(), Some(0));
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    server.out.wait_for("stopped");
    let log = server.out.all();
    assert_eq!(log.iter().filter(|line| line.contains("closed since the server stops")).count(), 2, "{log:#?}");
    assert!(server.err.all().is_empty(), "{:#?}", server.err.all());
}

/// Also while the server waits for room, or for descriptors.
#[test]
fn quit_is_heard_while_no_client_can_be_accepted() {
    let (mut server, mut keyboard) = start_on_terminal(&["--max-connections", "1"]);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    echo(&mut clients[0], b"hello");
    keyboard.write_all(b"quit\n").unwrap();
    server.out.wait_for("(1 now)");
    server.out.wait_for("stopping");
    drop(clients);
    assert_eq!(server.process.wait().code(), Some(0));
}

/// Waits until the server does not listen any more. Connections that still get into the queue meanwhile are served.
fn wait_until_refused(addr: std::net::SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(addr).is_ok() {
        assert!(Instant::now() < deadline, "the port stays open");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_term_signal_drains_and_a_second_one_ends_the_grace() {
    for hubs in ["1", "2"] {
        let mut server = Server::start(&["--grace", "60", "--hubs", hubs]);
        let (mut one, mut two) = (server.connect(), server.connect());
        echo(&mut one, b"hello");
        echo(&mut two, b"hello");
        server.process.signal(libc::SIGTERM);
        server.out.wait_for("stopping: waiting up to 60s for clients to leave (2 now)");
        // The listener is closed, and the clients of before are served on.
        wait_until_refused(server.addr);
        echo(&mut one, b"still there");
        drop(one);
        server.out.wait_for("echoed 16 bytes, closed by the client");
        server.process.signal(libc::SIGTERM);
        assert_eq!(server.process.wait().code(), Some(0));
        assert_eq!(two.read(&mut [0]).unwrap(), 0);
        server.out.wait_for("echoed 5 bytes, closed since the server stops");
        server.out.wait_for("stopped");
    }
}

#[test]
fn the_counters_are_shown_on_a_signal_and_on_the_terminal() {
    let (server, mut keyboard) = start_on_terminal(&["--quiet", "--hubs", "2"]);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    keyboard.write_all(b"stats\n").unwrap();
    server.out.wait_for("3 clients now, 3 came; left: 0 by themselves, 0 silent or stuck, 0 broken");
    server.out.wait_for("0 refused for want of memory; accepting was put off 0 times");
    clients[0].shutdown(Shutdown::Write).unwrap();
    assert_eq!(clients[0].read(&mut [0]).unwrap(), 0);
    // A client's place is given back a moment after the connection was closed, perhaps on another OS thread: ask
    // until then.
    let deadline = Instant::now() + PATIENCE;
    while !server.out.all().iter().any(|line| line.starts_with("2 clients now, 3 came; left: 1 by themselves")) {
        assert!(Instant::now() < deadline, "{:#?}", server.out.all());
        server.process.signal(libc::SIGUSR1);
        thread::sleep(Duration::from_millis(10));
    }
    echo(&mut clients[1], b"still served");
}

#[test]
fn a_quit_signal_shows_what_all_threads_do_and_ends_nothing() {
    let (server, _keyboard) = start_on_terminal(&["--quiet", "--hubs", "2"]);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    server.process.signal(libc::SIGQUIT);
    server.err.wait_for_wide("hub 1 (OS thread ");
    server.err.wait_for_wide("hub 2 (OS thread ");
    server.err.wait_for_wide(" can be read, for ");
    clients.iter_mut().for_each(|client| echo(client, b"still served"));
}

#[test]
fn quiet_logs_nothing() {
    let (mut server, mut keyboard) = start_on_terminal(&["--quiet"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    drop(client);
    keyboard.write_all(b"quit\n").unwrap();
    assert_eq!(server.process.wait().code(), Some(0));
    server.out.wait_for("stopped");
    assert_eq!(server.out.all().len(), 4, "{:#?}", server.out.all());
}

#[test]
fn a_log_that_is_not_read_harms_no_client() {
    let mut command = Command::new(example("echo_server"));
    let addr = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    command.args(["--addr", &addr.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Running(command.spawn().unwrap());
    // From now on each line of the log fails.
    drop(server.0.stdout.take());
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..3 {
        let mut client = loop {
            match TcpStream::connect(addr) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        echo(&mut client, b"hello");
    }
    assert!(server.0.try_wait().unwrap().is_none());
}

/// Unoptimised frames are larger; what counts is the release build.
#[cfg(not(debug_assertions))]
#[test]
fn an_idle_client_costs_one_page() {
    for args in [&["--quiet"][..], &[]] {
        let server = Server::start(args);
        let grow = |count: usize, clients: &mut Vec<TcpStream>| {
            for _ in 0..count {
                let mut client = server.connect();
                echo(&mut client, b"hello");
                clients.push(client);
            }
            server.resident_kib()
        };
        let mut clients = Vec::new();
        // The first hundred also pay for what all clients share.
        let few = grow(100, &mut clients);
        let many = grow(400, &mut clients);
        let each = (many - few) as f64 / 400.0;
        assert!(each < 5.5, "{each} KiB for each idle client, with {args:?}");
    }
}

// ---- several hubs ---------------------------------------------------------------------------------------------------

/// Three hubs, so that a client is as a rule not served where the terminal is.
#[test]
fn several_hubs_serve_one_port_and_quit_reaches_all_of_them() {
    let (mut server, mut keyboard) = start_on_terminal(&["--hubs", "3"]);
    let mut clients: Vec<TcpStream> = (0..60).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        echo(client, &noise(number as u64, 1000));
    }
    server.out.wait_for("(60 now)");
    keyboard.write_all(b"quit\n").unwrap();
    server.out.wait_for("for clients to leave (60 now)");
    echo(&mut clients[59], b"still served");
    drop(clients);
    assert_eq!(server.process.wait().code(), Some(0));
    server.out.wait_for("(0 now)");
    assert!(server.err.all().is_empty(), "{:#?}", server.err.all());
}

#[test]
fn the_limit_on_connections_holds_over_all_hubs() {
    let server = Server::start(&["--hubs", "3", "--max-connections", "2"]);
    let mut clients: Vec<TcpStream> = (0..12).map(|_| server.connect()).collect();
    // Which clients are served depends on the hub that accepts first; their number does not.
    for left in (2..=12).rev() {
        let deadline = Instant::now() + PATIENCE;
        let served = loop {
            let served = served(&mut clients);
            if served.len() == 2 {
                break served;
            }
            assert!(Instant::now() < deadline, "{} of {left} are served", served.len());
        };
        // A client that is served leaves, and another one gets in, whichever queue that one waits in.
        drop(clients.remove(served[0]));
        if left == 2 {
            break;
        }
    }
    drop(clients);
    server.out.wait_for("(0 now)");
    assert!(!server.out.all().iter().any(|line| line.contains("(3 now)")));
    assert!(server.err.all().is_empty());
}

/// Which clients get an answer.
fn served(clients: &mut [TcpStream]) -> Vec<usize> {
    let mut served = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        client.set_nonblocking(false).unwrap();
        client.write_all(b"?").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        if client.read(&mut [0; 64]).is_ok_and(|n| n > 0) {
            served.push(number);
        }
    }
    served
}

#[test]
fn after_the_grace_several_hubs_close_the_connections_that_are_left() {
    let (mut server, mut keyboard) = start_on_terminal(&["--hubs", "2", "--grace", "200ms"]);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    keyboard.write_all(b"quit\n").unwrap();
    for client in &mut clients {
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
    assert_eq!(server.process.wait().code(), Some(0));
    server.out.wait_for("stopped");
    let closed = server.out.all().iter().filter(|line| line.contains("closed since the server stops")).count();
    assert_eq!(closed, 20);
}

/// Two processes on one port, if both say so.
#[test]
fn servers_share_a_port_if_all_of_them_do() {
    let one = Server::start(&["--reuse-port"]);
    let addr = one.addr.to_string();
    let two = Server::start(&["--reuse-port", "--addr", &addr]);
    assert_eq!(one.addr, two.addr);
    let refused = run("echo_server", &["--addr", &addr], b"");
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("is in use"), "{refused:?}");
    // The kernel spreads them by the ports they come from.
    let mut clients: Vec<TcpStream> = (0..64).map(|_| one.connect()).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    one.out.wait_for("connected");
    two.out.wait_for("connected");
}

#[test]
fn clients_in_threads_with_thread_locals_of_their_own_get_their_bytes_on_two_hubs() {
    let mut server = Server::start(&["--own-thread-locals", "--hubs", "2", "--grace", "200ms"]);
    let mut clients: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| echo(client, b"hello"));
    }
    // A client that leaves, and one that the stop sends away.
    clients.truncate(1);
    server.out.wait_for("echoed 15 bytes");
    server.process.signal(libc::SIGTERM);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn zero_hubs_are_one_per_processor() {
    let server = Server::start(&["--hubs", "0", "--quiet"]);
    let mut clients: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    assert_eq!(hubs_of(&server).len(), thread::available_parallelism().unwrap().get());
    let wrong = run("echo_server", &["--hubs", "many"], b"");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stderr.contains("--hubs many: not a whole number"), "{}", wrong.stderr);
}
