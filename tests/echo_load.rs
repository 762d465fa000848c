//! The example `echo_load`, against the real server and against bad ones: what it counts, and what it notices.
// Child processes with limits and terminals of their own have no safe counterpart in std.
#![allow(unsafe_code)]

#[path = "common/address.rs"]
mod address;
#[allow(dead_code, reason = "made for the tests of the examples, which need all of it")]
#[path = "examples/built.rs"]
mod built;
#[allow(dead_code, reason = "the same")]
#[path = "examples/support.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use address::free_address;
use built::example;
use support::{Ended, Lines, Running, Server, limit_descriptors, reset, run, terminal};

/// Runs it for programs, and gives the values by name.
struct Values {
    ended: Ended,
}

impl Values {
    fn of(addr: SocketAddr, args: &[&str]) -> Values {
        let addr = addr.to_string();
        let args = [&["--addr", addr.as_str(), "--tsv", "--patience", "30"], args].concat();
        Values { ended: run("echo_load", &args, b"") }
    }

    #[track_caller]
    fn get(&self, name: &str) -> f64 {
        let lines = self.ended.lines();
        let [names, values] = lines[..] else { panic!("{:?}", self.ended.lines()) };
        let place = names.split('\t').position(|other| other == name);
        let value = place.and_then(|place| values.split('\t').nth(place));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {:?}", self.ended.lines()))
    }

    /// There were errors, of this kind only.
    #[track_caller]
    fn assert_failed(&self, kind: &str, count: u64) {
        assert_eq!(self.ended.status.code(), Some(1), "{:?}", self.ended.lines());
        assert_eq!((self.get(kind), self.get("errors")), (count as f64, count as f64), "{:?}", self.ended.lines());
    }

    #[track_caller]
    fn assert_fine(&self) {
        assert!(self.ended.status.success() && self.ended.stderr.is_empty(), "{:?}", self.ended.lines());
        assert_eq!(self.get("errors"), 0.0, "{:?}", self.ended.lines());
    }
}

/// A server that gets each message of 64 bytes whole. `answer(connection, message, stream, bytes)` counts both from 0
/// and returns whether it goes on.
fn bad_server(
    answer: impl Fn(usize, usize, &mut TcpStream, &mut [u8; 64]) -> bool + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = std::sync::Arc::new(answer);
    thread::spawn(move || {
        for (connection, stream) in listener.incoming().enumerate() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let mut bytes = [0; 64];
                for message in 0.. {
                    if stream.read_exact(&mut bytes).is_err() {
                        return;
                    }
                    if !answer(connection, message, &mut stream, &mut bytes) {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// Sends it back.
fn good(stream: &mut TcpStream, bytes: &[u8; 64]) -> bool {
    stream.write_all(bytes).is_ok()
}

#[test]
fn as_many_messages_as_asked_for_are_sent_and_counted() {
    let server = Server::start(&[]);
    for (connections, pipeline) in [(7, 1), (3, 16), (200, 1)] {
        let (connections, pipeline) = (connections.to_string(), pipeline.to_string());
        let args = ["--requests", "1000", "--size", "100", "--connections", &connections, "--pipeline", &pipeline];
        let values = Values::of(server.addr, &args);
        values.assert_fine();
        assert_eq!((values.get("answers"), values.get("measured"), values.get("unsent")), (1000.0, 1000.0, 0.0));
        assert_eq!(values.get("alive").to_string(), connections);
        let quantiles = ["p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"].map(|name| values.get(name));
        assert!(quantiles.is_sorted() && quantiles[0] > 0.0, "{quantiles:?}");
    }
    // And one more from each when it connected.
    let total = 100 * (3 * 1000 + 7 + 3 + 200);
    server.out.wait_for("(200 now)");
    let echoed = || -> u64 {
        let log = server.out.all();
        let numbers =
            log.iter().filter_map(|line| line.split("echoed ").nth(1)?.split(' ').next()?.parse::<u64>().ok());
        numbers.sum()
    };
    for _ in 0..2000 {
        if echoed() == total {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} bytes in place of {total}", echoed());
}

#[test]
fn messages_larger_than_all_buffers_get_through() {
    let server = Server::start(&["--quiet"]);
    let args = ["--requests", "40", "--size", "2000000", "--pipeline", "4", "--connections", "2"];
    let values = Values::of(server.addr, &args);
    values.assert_fine();
    assert_eq!(values.get("answers"), 40.0);
}

#[test]
fn an_open_loop_sends_at_its_rate() {
    let server = Server::start(&["--quiet"]);
    let args = ["--rate", "1000", "--connections", "20", "--duration", "1", "--warmup", "100ms"];
    let values = Values::of(server.addr, &args);
    values.assert_fine();
    // A noisy machine may be behind at the end, or come to the end late, and is never ahead.
    let (due, most) = (values.get("measured"), 1000.0 * values.get("seconds").max(1.0) + 100.0);
    assert!((900.0..=most).contains(&due), "{:?}", values.ended.lines());
}

#[test]
fn what_the_warm_up_leaves_behind_is_not_counted_among_the_messages_asked_for() {
    // It is behind its timetable when the warm-up ends, and has to send what was due before, too.
    let addr = bad_server(|_, message, stream, bytes| {
        if message == 10 {
            thread::sleep(Duration::from_millis(700));
        }
        good(stream, bytes)
    });
    let args = ["--connections", "1", "--rate", "100", "--warmup", "500ms", "--requests", "50", "--duration", "50"];
    let values = Values::of(addr, &args);
    values.assert_fine();
    assert_eq!(values.get("measured"), 50.0);
    assert!(values.get("answers") > 50.0 && values.get("seconds") < 25.0, "{:?}", values.ended.lines());
}

/// The server stops once, for a second. A client that waits for an answer before it asks again asks nothing meanwhile.
#[test]
fn only_an_open_loop_notices_all_that_a_pause_delays() {
    let pauses_at_20 = || {
        bad_server(|_, message, stream, bytes| {
            if message == 20 {
                thread::sleep(Duration::from_secs(1));
            }
            good(stream, bytes)
        })
    };
    let args = ["--connections", "1", "--rate", "100", "--requests", "200"];
    let open = Values::of(pauses_at_20(), &args);
    open.assert_fine();
    // 20 in time, then some 100 that were due during the pause: the tenth part of them waited 0.9 s.
    assert!(open.get("max_us") > 900e3 && open.get("p90_us") > 500e3, "{:?}", open.ended.lines());
    let closed = Values::of(pauses_at_20(), &["--connections", "1", "--requests", "200"]);
    closed.assert_fine();
    assert!(closed.get("max_us") > 900e3 && closed.get("p90_us") < 500e3, "{:?}", closed.ended.lines());
}

#[test]
fn what_was_due_before_the_end_and_not_sent_counts() {
    let addr = bad_server(|_, message, stream, bytes| {
        if message == 5 {
            thread::sleep(Duration::from_millis(1500));
        }
        good(stream, bytes)
    });
    let values = Values::of(addr, &["--connections", "1", "--rate", "100", "--duration", "1", "--warmup", "0"]);
    values.assert_fine();
    let unsent = values.get("unsent");
    // The end comes later on a machine that stands still, and more is due by then.
    let due = 100.0 * values.get("seconds").max(1.0);
    assert!((50.0..=due).contains(&unsent), "{:?}", values.ended.lines());
    // All that were due, one of them answered after the end.
    assert_eq!(values.get("measured"), values.get("answers") + unsent + 1.0, "{:?}", values.ended.lines());
    assert!(values.get("p50_us") > 200e3, "{:?}", values.ended.lines());
}

#[test]
fn a_wrong_byte_is_noticed() {
    let addr = bad_server(|connection, message, stream, bytes| {
        bytes[63] ^= u8::from(connection == 1 && message == 7);
        good(stream, bytes)
    });
    let values = Values::of(addr, &["--connections", "3", "--requests", "300"]);
    values.assert_failed("wrong_bytes", 1);
    assert_eq!(values.get("alive"), 2.0);
    // The one with the wrong byte is no answer.
    assert_eq!(values.get("answers"), 299.0);
}

#[test]
fn an_answer_too_many_is_noticed() {
    let addr = bad_server(|_, message, stream, bytes| good(stream, bytes) && (message != 3 || good(stream, bytes)));
    Values::of(addr, &["--connections", "1", "--requests", "100"]).assert_failed("wrong_bytes", 1);
}

#[test]
fn lost_connections_are_counted_by_kind_and_the_others_go_on() {
    let closes =
        bad_server(|connection, message, stream, bytes| (connection != 2 || message < 9) && good(stream, bytes));
    let values = Values::of(closes, &["--connections", "4", "--requests", "1000"]);
    values.assert_failed("closed", 1);
    assert_eq!(values.get("alive"), 3.0);
    let resets = bad_server(|connection, message, stream, bytes| {
        if connection == 0 && message == 3 {
            reset(stream.try_clone().unwrap());
            return false;
        }
        good(stream, bytes)
    });
    Values::of(resets, &["--connections", "4", "--requests", "1000"]).assert_failed("reset", 1);
}

#[test]
fn a_run_ends_early_when_no_client_is_left() {
    let addr = bad_server(|_, message, stream, bytes| message < 3 && good(stream, bytes));
    let values = Values::of(addr, &["--connections", "5", "--duration", "50", "--warmup", "0"]);
    values.assert_failed("closed", 5);
    assert!(values.get("seconds") < 25.0, "{:?}", values.ended.lines());
}

#[test]
fn an_answer_that_does_not_come_is_waited_for_as_long_as_the_patience_lasts() {
    let args = ["--connections", "2", "--patience", "300ms", "--duration", "20"];
    let silent = bad_server(|_, message, stream, bytes| message >= 4 || good(stream, bytes));
    Values::of(silent, &args).assert_failed("no_answer", 2);
}

/// A server that accepts clients and does not serve them, as if out of descriptors, is not asked a thousand times.
#[test]
fn connecting_is_given_up_when_as_many_have_failed_as_may_be_in_flight() {
    let addr = bad_server(|_, _, _, _| true).to_string();
    let args = ["--addr", &addr, "--connections", "1000", "--in-flight", "10", "--patience", "300ms"];
    let ended = run("echo_load", &args, b"");
    assert_eq!(ended.status.code(), Some(1));
    let kinds = ended.stderr.split(['(', ')']).nth(1).unwrap_or_default().to_owned();
    let count = |kind: &str| kinds.split(", ").find_map(|part| part.strip_suffix(kind)?.trim().parse::<u32>().ok());
    let (no_answer, not_connected) = (count("no answer").unwrap(), count("not connected").unwrap());
    assert_eq!(no_answer + not_connected, 1000, "{ended:?}");
    assert!((10..100).contains(&no_answer), "{ended:?}");
}

/// Nothing tells that a silent connection is dead, but that it is asked.
#[test]
fn silent_connections_are_asked_once_more_at_the_end() {
    let addr = bad_server(|connection, message, stream, bytes| {
        let silent = message == 1 && connection == 5;
        !silent && good(stream, bytes)
    });
    // The first two send; connections are made in order with one in flight.
    let args = ["--connections", "2", "--idle", "10", "--in-flight", "1", "--duration", "100ms", "--warmup", "0"];
    let values = Values::of(addr, &args);
    values.assert_failed("closed", 1);
    assert_eq!((values.get("connected"), values.get("alive")), (12.0, 11.0));
}

#[test]
fn source_addresses_are_taken_in_turn() {
    let server = Server::start(&[]);
    let args = ["--connections", "6", "--requests", "6", "--from-addresses", "127.0.0.2-127.0.0.4"];
    Values::of(server.addr, &args).assert_fine();
    let log = server.out.all().join("\n");
    for source in ["127.0.0.2:", "127.0.0.3:", "127.0.0.4:"] {
        let came = log.lines().filter(|line| line.starts_with(source) && line.contains("connected")).count();
        assert_eq!(came, 2, "{log}");
    }
}

#[test]
fn the_server_is_looked_at_while_all_are_connected() {
    let server = Server::start(&["--quiet"]);
    let pid = server.process.0.id().to_string();
    let args = ["--connections", "10", "--idle", "990", "--requests", "10000", "--server-pid", &pid];
    let values = Values::of(server.addr, &args);
    values.assert_fine();
    // The hub's OS thread, and the monitor's once the hub was busy for a while without a pause.
    assert!([1.0, 2.0].contains(&values.get("server_threads")), "{:?}", values.ended.lines());
    assert_eq!(values.get("alive"), 1000.0);
    // A connection is a page at least, and its stack is little more.
    let each = values.get("server_rss_kib_per_connection");
    let most = if cfg!(feature = "sanitizer") { f64::MAX } else { 40.0 };
    assert!((3.5..most).contains(&each), "{:?}", values.ended.lines());
    assert!(values.get("server_cpu_us_per_answer") > 0.0, "{:?}", values.ended.lines());
    let ended = run("echo_load", &["--addr", &server.addr.to_string(), "--server-pid", "4194305"], b"");
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr, "echo_load: there is no process 4194305, which --server-pid names\n");
}

#[test]
fn a_port_without_a_listener_is_one_clear_line_and_exit_code_1() {
    let addr = free_address().to_string();
    let ended = run("echo_load", &["--addr", &addr], b"");
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr, format!("echo_load: nothing listens on {addr}; start echo_server first\n"));
    assert!(ended.stdout.is_empty());
}

#[test]
fn too_few_descriptors_are_one_clear_line() {
    let mut command = Command::new(example("echo_load"));
    command.args(["--connections", "500"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    limit_descriptors(&mut command, 100);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "echo_load: it takes 510 descriptors and may have 100: ulimit -n 510\n");
}

#[test]
fn wrong_arguments_are_one_clear_line_and_exit_code_2() {
    let wrong: [&[&str]; 9] = [
        &["--connections", "0"],
        &["--rate", "-1"],
        &["--rate", "fast"],
        &["--duration", "0"],
        &["--patience", "1e15"],
        &["--size", "64", "--pipeline", "100000000"],
        &["--from-addresses", "127.0.0.9-127.0.0.2"],
        &["--addr", "nonsense"],
        &["--no-such-thing"],
    ];
    for args in wrong {
        let ended = run("echo_load", args, b"");
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {ended:?}");
        assert!(ended.stderr.starts_with("echo_load: ") && ended.stderr.lines().count() == 1, "{args:?}: {ended:?}");
    }
}

#[test]
fn steps_wait_for_a_line() {
    let server = Server::start(&["--quiet"]);
    let mut command = Command::new(example("echo_load"));
    command.args(["--addr", &server.addr.to_string(), "--connections", "3", "--requests", "30", "--step"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut load = Running(command.spawn().unwrap());
    let out = Lines::of(load.0.stdout.take().unwrap());
    let mut stdin = load.0.stdin.take().unwrap();
    out.wait_for("connected 3");
    assert_eq!(out.all(), ["connected 3"]);
    stdin.write_all(b"\n").unwrap();
    out.wait_for("done 3");
    assert_eq!(out.all(), ["connected 3", "done 3"]);
    // It does not leave before it is told to.
    thread::sleep(Duration::from_millis(50));
    assert!(load.0.try_wait().unwrap().is_none());
    drop(stdin);
    out.wait_for("3 of 3 alive, no errors");
    assert_eq!(load.wait().code(), Some(0));
}

#[test]
fn progress_is_for_terminals_and_on_request() {
    let server = Server::start(&["--quiet"]);
    let addr = server.addr.to_string();
    let args = ["--addr", &addr, "--connections", "2", "--duration", "1500ms", "--warmup", "0"];
    let quiet = run("echo_load", &["--addr", &addr, "--requests", "10"], b"");
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:?}");
    let told = run("echo_load", &[&args[..], &["--progress"]].concat(), b"");
    assert!(told.stderr.contains(" answers/s, p99 ") && told.stderr.contains("2 of 2 alive\n"), "{told:?}");
    let (ours, theirs) = terminal();
    let mut command = Command::new(example("echo_load"));
    command.args(["--addr", &addr, "--duration", "700ms"]).args(["--warmup", "0", "--connections", "2"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(theirs);
    let mut load = Running(command.spawn().unwrap());
    drop(command);
    let screen = Lines::of(ours);
    assert_eq!(load.wait().code(), Some(0));
    // One line, drawn again and again, and wiped off at the end: it ends with the terminal.
    let line = screen.wait_for(" answers/s, p99 ");
    assert!(line.contains("\r") && line.ends_with("\r\x1b[K"), "{line:?}");
}

#[test]
fn the_text_says_all_that_matters() {
    let server = Server::start(&["--quiet"]);
    let pid = server.process.0.id().to_string();
    let addr = server.addr.to_string();
    let args = ["--addr", &addr, "--connections", "2", "--idle", "1", "--requests", "50", "--server-pid", &pid];
    let ended = run("echo_load", &args, b"");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let lines = ended.lines();
    assert_eq!(lines[0], format!("{addr}, 2 connections and 1 silent ones, 64 bytes, closed loop"));
    let beginnings =
        ["  answers     50 in ", "  latency     p50 ", "  server      ", "  memory      ", "  client      "];
    for (line, beginning) in lines[1..].iter().zip(beginnings) {
        assert!(line.starts_with(beginning), "{lines:#?}");
    }
    assert_eq!(lines[6], "  connections 3 of 3 alive, no errors");
    // It depends on what else the machine does.
    assert!(lines[7..].iter().all(|line| line.starts_with("  note        the machine is busy: ")), "{lines:#?}");
    let json = run("echo_load", &["--addr", &addr, "--requests", "5", "--json"], b"");
    let [json] = json.lines()[..] else { panic!("{json:?}") };
    assert!(json.starts_with("{\"connections\": 50, \"idle\": 0,") && json.ends_with('}'), "{json}");
    assert!(json.contains("\"rate\": null,") && json.contains("\"answers\": 5,"), "{json}");
}
