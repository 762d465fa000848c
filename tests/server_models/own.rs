//! What one model alone does, and the command line.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::built::example;
use crate::cases::{start, start_with};
use crate::support::{Server, echo, limit_descriptors, run};
use crate::{MODELS, model};

/// A model that is not in the table would not be tested.
#[test]
fn the_list_is_what_is_tested() {
    let ended = run("server_models", &["--list"], b"");
    assert!(ended.status.success());
    let listed: Vec<&str> = ended.lines().iter().map(|line| line.split(' ').next().unwrap()).collect();
    let tested: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
    assert_eq!(listed, tested);
}

#[test]
fn a_wrong_command_line_is_one_clear_line() {
    for (args, complaint) in [
        (&[][..], "--model NAME is missing; --list prints all"),
        (&["--model"], "--model needs a value"),
        (&["--model", "telepathy"], "--model telepathy: there is none; --list prints all"),
        (&["--model", "poll", "--reply", "no"], "--reply no: neither echo nor thanks"),
        (&["--model", "green-hubs", "--hubs", "0"], "--hubs 0: not a whole number, 1 or more"),
    ] {
        let ended = run("server_models", args, b"");
        assert_eq!(ended.status.code(), Some(2), "{args:?}");
        assert_eq!(ended.stderr, format!("server_models: {complaint} (try --help)\n"));
    }
}

/// The help says so too, in every build.
#[test]
fn green_patched_without_its_feature_names_the_feature() {
    let help = run("server_models", &["--help"], b"");
    let lines = help.lines();
    let line = lines.iter().position(|line| line.contains("green-patched and green-threads-patched")).unwrap();
    assert!(lines[line + 1].contains("--features monkey"), "{lines:?}");
    if cfg!(not(feature = "monkey")) {
        for model in ["green-patched", "green-threads-patched"] {
            let ended = run("server_models", &["--model", model], b"");
            assert_eq!(ended.status.code(), Some(2));
            let complaint = format!("{model} needs --features monkey");
            assert_eq!(ended.stderr, format!("server_models: {complaint} (try --help)\n"));
        }
    }
}

#[test]
fn an_address_in_use_is_one_clear_line() {
    let server = start(model("green"), &[]);
    let addr = server.addr.to_string();
    for model in MODELS {
        let ended = run("server_models", &["--model", model.name, "--addr", &addr], b"");
        assert_eq!(ended.status.code(), Some(2), "{}", model.name);
        let line = format!("server_models: {addr} is in use; choose another by --addr HOST:PORT\n");
        assert_eq!(ended.stderr, line);
    }
    // Its hubs share the address with each other, and not with others.
    let server = start(model("green-hubs"), &["--hubs", "2"]);
    let addr = server.addr.to_string();
    for name in ["green", "green-hubs"] {
        let ended = run("server_models", &["--model", name, "--addr", &addr], b"");
        assert_eq!(ended.status.code(), Some(2), "{name}");
        assert!(ended.stderr.contains("is in use"), "{}", ended.stderr);
    }
}

/// Its client took the descriptor that another hub had given up to turn a client away: then the other hub could neither
/// serve nor refuse, and its clients waited for ever.
#[test]
fn a_hub_does_not_take_the_spare_descriptor_of_another() {
    for _ in 0..20 {
        let server = start_with(model("green-hubs"), &["--hubs", "4"], |command| limit_descriptors(command, 40));
        let mut clients: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
        let mut answers = clients.iter_mut().map(|client| {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.write_all(b"hello").and_then(|()| client.read_exact(&mut [0; 5]))
        });
        let neither = answers.find(|answer| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        assert!(neither.is_none(), "neither served nor refused");
    }
}

#[test]
fn they_listen_on_ipv6_too() {
    for &model in MODELS {
        let server = start(model, &["--addr", "[::1]:0"]);
        echo(&mut server.connect(), b"hello");
        server.out.wait_for("[::1]:");
    }
}

#[test]
fn every_file_says_what_it_shows_and_what_the_next_rung_mends() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/server_models");
    for model in MODELS {
        let text = fs::read_to_string(format!("{folder}/{}.rs", model.name.replace('-', "_"))).unwrap();
        let docs: String = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        assert!(docs.starts_with(" Shows "), "{}: {docs}", model.name);
        assert!(docs.contains("next rung") || model.name == MODELS[MODELS.len() - 1].name, "{}: {docs}", model.name);
    }
}

/// Gives a program so many open descriptors that the next one is `next`.
fn occupy_descriptors(command: &mut Command, next: i32) {
    let occupy = move || {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is live for the call.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        limit.rlim_cur = limit.rlim_max.min(4096);
        // SAFETY: `limit` is live for the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        // Over whatever is open here, since that would be closed by exec and leave holes. It includes std's pipe for
        // the news that exec failed; then the test finds no server.
        for fd in 3..next {
            // SAFETY: takes numbers only; the copies stay open over exec.
            if unsafe { libc::dup2(0, fd) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes plain system calls: it takes no lock and allocates nothing after the fork.
    unsafe { command.pre_exec(occupy) };
}

#[test]
fn select_refuses_descriptors_beyond_its_set_and_the_others_do_not() {
    for &model in MODELS.iter().filter(|model| model.concurrent) {
        let server = start_with(model, &[], |command| occupy_descriptors(command, 1010));
        let mut clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
        let mut served = 0;
        for client in &mut clients {
            let name = client.local_addr().unwrap();
            if client.write_all(b"hello").and_then(|()| client.read_exact(&mut [0; 5])).is_ok() {
                served += 1;
            } else {
                let line = server.out.wait_for(&format!("{name} refused: "));
                assert!(line.ends_with("1024 is beyond FD_SETSIZE (1024)"), "{line}");
            }
        }
        if model.name.starts_with("select") {
            assert!((8..14).contains(&served), "{}: {served} of 30 served", model.name);
            // Its number is free again, and fits.
            let gone = clients.remove(0).local_addr().unwrap();
            server.out.wait_for(&format!("{gone} left after "));
            echo(&mut server.connect(), b"hello");
        } else {
            assert_eq!(served, 30, "{}", model.name);
        }
    }
}

/// With a pipe as its input.
fn start_with_input() -> (Server, std::process::ChildStdin) {
    let mut server = start_with(model("select-stdin"), &[], |command| {
        command.stdin(Stdio::piped());
    });
    let input = server.process.0.stdin.take().unwrap();
    (server, input)
}

#[test]
fn a_line_on_standard_input_stops_select_stdin() {
    let (mut server, mut input) = start_with_input();
    let mut client = server.connect();
    echo(&mut client, b"hello");
    // Less than a line does not stop the server.
    input.write_all(b"qu").unwrap();
    echo(&mut client, b"still there");
    input.write_all(b"it\n").unwrap();
    assert_eq!(server.process.wait().code(), Some(0));
    server.out.wait_for("stopped");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_end_of_standard_input_does_not_stop_select_stdin() {
    let (server, input) = start_with_input();
    let mut client = server.connect();
    echo(&mut client, b"hello");
    drop(input);
    echo(&mut client, b"still there");
    // Nor does it make it turn at full speed: `it_sleeps_while_no_message_is_there_or_known_to_come` has no input.
}

#[test]
fn a_log_that_is_not_read_is_no_reason_for_a_server_to_stop() {
    for model in MODELS {
        let mut command = Command::new(example("server_models"));
        command.args(["--model", model.name, "--addr", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = crate::support::Running(command.spawn().unwrap());
        let mut out = process.0.stdout.take().unwrap();
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        drop(out);
        let addr = String::from_utf8(line).unwrap();
        let addr = addr.trim_end().strip_prefix("listening on ").unwrap().to_owned();
        for _ in 0..2 {
            let mut client = std::net::TcpStream::connect(&addr).unwrap();
            client.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
            echo(&mut client, b"hello");
        }
    }
}
