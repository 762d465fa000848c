//! `echo_client`, against the real server and against bad ones.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::address::free_address;
use crate::built::example;
use crate::support::{Lines, Running, Server, noise, on_terminal, run, terminal};

#[test]
fn lines_come_back_as_they_were() {
    let server = Server::start(&[]);
    let addr = server.addr.to_string();
    let inputs: [&[u8]; 5] = [
        b"123\n345\n",
        "gr\u{fc}\u{df}e \u{4f60}\u{597d}\n".as_bytes(),
        b"no newline at the end",
        b"",
        b"\xff\0\xfe\n",
    ];
    for input in inputs {
        let ended = run("echo_client", &["--addr", &addr], input);
        assert!(ended.status.success(), "{ended:?}");
        assert!(ended.stderr.is_empty(), "{ended:?}");
        // No prompt either: the program is not on a terminal.
        assert_eq!(ended.stdout, input);
    }
}

#[test]
fn a_large_file_comes_back_whole() {
    let server = Server::start(&["--quiet"]);
    let input = noise(1, 20_000_000);
    let ended = run("echo_client", &["--addr", &server.addr.to_string()], &input);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", ended.stderr);
    assert!(ended.stdout == input, "{} of {} bytes, or others", ended.stdout.len(), input.len());
}

#[test]
fn a_port_without_a_listener_is_one_clear_line_and_exit_code_1() {
    let addr = free_address().to_string();
    let ended = run("echo_client", &["--addr", &addr], b"hello\n");
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr, format!("echo_client: nothing listens on {addr}; start echo_server first\n"));
    let ended = run("echo_client", &["--addr", "nonsense"], b"");
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.starts_with("echo_client: cannot connect to nonsense: "), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1);
}

/// Even while the client waits for input.
#[test]
fn a_server_that_goes_away_is_one_clear_line_and_exit_code_1() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(example("echo_client"));
    command.args(["--addr", &listener.local_addr().unwrap().to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = Running(command.spawn().unwrap());
    let _held_open = client.0.stdin.take();
    drop(listener.accept().unwrap());
    assert_eq!(client.wait().code(), Some(1));
    let mut complaint = String::new();
    client.0.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!(complaint, "echo_client: the connection is lost: the server closed the connection\n");
}

/// Also when the input is over already, but answers are missing.
#[test]
fn missing_answers_are_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(&request[..request.len() / 2]).unwrap();
    });
    let ended = run("echo_client", &["--addr", &addr], b"1234567\n");
    server.join().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stdout, b"1234");
    assert_eq!(ended.stderr, "echo_client: the server closed the connection before all answers were in\n");
}

/// `echo_client | head`: the client ends, and the server does not mind.
#[test]
fn answers_that_are_not_read_are_a_quiet_end() {
    let server = Server::start(&[]);
    let mut command = Command::new(example("echo_client"));
    command.args(["--addr", &server.addr.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = Running(command.spawn().unwrap());
    drop(client.0.stdout.take());
    let mut stdin = client.0.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(client.wait().code(), Some(0));
    let mut complaint = String::new();
    client.0.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!(complaint, "");
}

#[test]
fn a_terminal_gets_a_prompt_before_each_line() {
    let server = Server::start(&[]);
    let (ours, theirs) = terminal();
    let mut command = Command::new(example("echo_client"));
    command.args(["--addr", &server.addr.to_string()]);
    on_terminal(&mut command, &theirs);
    command.stdout(theirs.try_clone().unwrap());
    let mut client = Running(command.spawn().unwrap());
    drop((command, theirs));
    let mut keyboard = ours.try_clone().unwrap();
    let screen = Lines::of(ours);
    // What the client said to the first line is on the screen before the second is typed.
    keyboard.write_all(b"123\n").unwrap();
    server.out.wait_for("connected");
    screen.wait_for("123");
    keyboard.write_all(b"345\n").unwrap();
    screen.wait_for("345");
    keyboard.write_all(b"\x04").unwrap();
    assert_eq!(client.wait().code(), Some(0));
    server.out.wait_for("echoed 8 bytes, closed by the client");
    // The last prompt has no end of line, and comes with the end of the terminal.
    let begin = Instant::now();
    while screen.all().join("\n").matches("Input:").count() < 3 && begin.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(10));
    }
    let text = screen.all().join("\n");
    assert!(text.matches("Input:").count() >= 3, "{text}");
    // Once as typed, once as echoed.
    assert_eq!(text.matches("123").count(), 2, "{text}");
}

#[test]
fn the_half_closed_server_side_is_no_reason_to_leave_early() {
    // The server ends the direction only after everything is sent, which is later than the end of input.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        for byte in request {
            stream.write_all(&[byte]).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let ended = run("echo_client", &["--addr", &addr], b"slowly\n");
    server.join().unwrap();
    assert!(ended.status.success() && ended.stdout == b"slowly\n", "{ended:?}");
}
