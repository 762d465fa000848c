//! The console's agent: what another program learns over the socket, and what it cannot do.
//!
//! Each test runs a program in a process of its own, which says when it is ready (`told`), and asks its agent. Waits are
//! for answers and never for times; a client that gets none fails after a minute.
#![allow(unsafe_code)]

mod common;
mod told;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenling::{hub, sleep, spawn, thread, trace};
use nix::libc;
use nix::unistd::ForkResult;
use serde_json::Value;
use told::{Program, compute_until, idle_until, told, until_all_wait};

/// Says that the program is ready.
fn ready() {
    eprintln!("ready");
}

/// A folder of a test, which only this user may enter.
struct Folder(PathBuf);

impl Folder {
    /// Makes an empty folder.
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("greenling-console-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Folder(path)
    }

    /// Returns the path of a socket in it.
    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Starts `program` as the test `name` with a variable in its environment, and waits until it is ready.
fn start_with(name: &str, variables: &[(&str, &Path)], program: fn()) -> Program {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.to_str().unwrap())).collect();
    let mut program = Program::start(name, &variables, program);
    program.read_to("ready");
    program
}

/// Starts `program` with an agent that the environment asks for, and waits until it is ready.
fn start_with_agent(name: &str, folder: &Folder, program: fn()) -> Program {
    start_with(name, &[("GREENLING_CONSOLE", &folder.socket())], program)
}

/// Tells a program to end, and returns its standard error.
fn end(mut program: Program) -> String {
    program.tell();
    program.end()
}

/// A client of an agent.
struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects, and reads the greeting.
    fn new(path: &Path) -> Client {
        let mut client = Client::silent(path);
        let greeting = client.line();
        assert_eq!(greeting["greenling"], 1, "{greeting}");
        client
    }

    /// Connects, and reads nothing.
    fn silent(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client(BufReader::new(stream))
    }

    /// Reads a line.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Sends bytes.
    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Sends a request, and returns the answer.
    fn ask_once(&mut self, request: &str) -> Value {
        self.send(request.as_bytes());
        self.send(b"\n");
        self.line()
    }

    /// Sends a request until all hubs have answered in time, which on a busy machine they may not.
    fn ask(&mut self, request: &str) -> Value {
        loop {
            let answer = self.ask_once(request);
            let is_late = answer["silent"].as_array().is_some_and(|silent| !silent.is_empty())
                || answer["error"].as_str().is_some_and(|error| error.ends_with("busy"));
            if !is_late {
                return answer;
            }
        }
    }

    /// Sends a request, and returns the rows of the answer.
    fn rows(&mut self, request: &str, name: &str) -> Vec<Value> {
        let answer = self.ask(request);
        answer[name].as_array().unwrap_or_else(|| panic!("{request}: {answer}")).clone()
    }

    /// Sends a request, and returns what the agent says is wrong.
    fn error(&mut self, request: &str) -> String {
        let answer = self.ask_once(request);
        answer["error"].as_str().unwrap_or_else(|| panic!("{request}: {answer}")).to_owned()
    }

    /// Asserts that the agent closes the connection, and sends nothing more.
    fn assert_closed(&mut self) {
        let mut rest = Vec::new();
        // What was sent and not read makes an error of the end.
        match self.0.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// Parks, in a function with a name.
#[inline(never)]
fn wait_for_nothing() {
    thread::park();
    std::hint::black_box(());
}

#[test]
fn hubs_groups_threads_stacks_and_counters_are_told() {
    let _guard = common::guard();
    let folder = Folder::new("told");
    let program = start_with_agent("hubs_groups_threads_stacks_and_counters_are_told", &folder, || {
        let parked: Vec<_> = (0..100).map(|_| spawn(wait_for_nothing)).collect();
        let (one, other) = greenling::os::unix::net::UnixStream::pair().unwrap();
        let read = move || (&one).read(&mut [0]).unwrap();
        let reader = thread::Builder::new().name("reader".into()).spawn(read).unwrap();
        until_all_wait();
        ready();
        idle_until(1);
        drop((parked, reader, other));
    });
    let mut client = Client::silent(&folder.socket());
    let greeting = client.line();
    assert_eq!(greeting["pid"], program.child.id());
    assert!(greeting["program"].as_str().unwrap().starts_with("console"), "{greeting}");
    let hubs = client.rows(r#"{"get":"hubs"}"#, "hubs");
    assert_eq!((hubs.len(), &hubs[0]["answered"], &hubs[0]["waiting"]), (1, &true.into(), &101.into()), "{hubs:?}");
    // One line for the hundred, and the way from it to its threads.
    let answer = client.ask(r#"{"get":"groups"}"#);
    assert_eq!((&answer["threads"], &answer["total"]), (&102.into(), &3.into()), "{answer}");
    let group = &answer["groups"][0];
    let text = group["text"].as_str().unwrap();
    assert!(text.starts_with("100 are parked, waiting for an unpark, for ") && text.contains("console.rs:"), "{text}");
    let request = format!(r#"{{"get":"threads","group":{},"limit":10}}"#, group["key"]);
    let answer = client.ask(&request);
    assert_eq!((&answer["total"], answer["threads"].as_array().unwrap().len()), (&100.into(), 10), "{answer}");
    // What a descriptor is.
    let reader = &client.rows(r#"{"get":"threads","filter":"READER"}"#, "threads")[0];
    assert!(reader["does"].as_str().unwrap().contains("(unix unnamed <-> unnamed) can be read"), "{reader}");
    assert_eq!((&reader["state"], &reader["kind"]), (&"waiting".into(), &"green thread".into()));
    let groups = client.rows(r#"{"get":"groups","filter":"unix"}"#, "groups");
    assert_eq!(groups[0]["count"], 1, "{groups:?}");
    // Stacks: of all, and of one.
    let stacks = client.ask(r#"{"get":"stacks","limit":1}"#);
    let (stack, total) = (&stacks["stacks"][0], &stacks["total"]);
    assert_eq!((&stack["count"], total), (&100.into(), &3.into()), "{stacks}");
    assert_eq!(stack["threads"].as_array().unwrap().len(), 20);
    let text = stack["text"].as_str().unwrap();
    assert!(text.contains("wait_for_nothing") || cfg!(feature = "sanitizer"), "{text}");
    let request = format!(r#"{{"get":"stack","hub":{},"id":{}}}"#, hubs[0]["hub"], stack["threads"][0]);
    assert_eq!(client.ask(&request)["text"].as_str().unwrap(), text);
    let answer = client.ask(&format!(r#"{{"get":"stack","hub":{},"id":4000}}"#, hubs[0]["hub"]));
    assert!(answer["error"].as_str().unwrap().ends_with("has no thread #4000 that has begun"), "{answer}");
    assert_eq!(client.error(r#"{"get":"stack","hub":9999,"id":1}"#), "there is no hub 9999");
    // Counters.
    let counters = &client.rows(r#"{"get":"metrics"}"#, "metrics")[0];
    assert_eq!((&counters["spawned"], &counters["live"]), (&101.into(), &101.into()), "{counters}");
    end(program);
}

#[test]
fn pages_have_all_threads_and_no_page_has_too_many() {
    let _guard = common::guard();
    let folder = Folder::new("pages");
    let program = start_with_agent("pages_have_all_threads_and_no_page_has_too_many", &folder, || {
        let named = |number| thread::Builder::new().name(format!("worker {number}")).spawn(thread::park).unwrap();
        let parked: Vec<_> = (0..3000).map(named).collect();
        until_all_wait();
        ready();
        idle_until(1);
        drop(parked);
    });
    let mut client = Client::new(&folder.socket());
    let mut ids = Vec::new();
    for offset in [0, 1000, 2000, 3000] {
        // More than a page may have.
        let answer = client.ask(&format!(r#"{{"get":"threads","offset":{offset},"limit":1000000}}"#));
        assert_eq!(answer["total"], 3001);
        let rows = answer["threads"].as_array().unwrap();
        assert_eq!(rows.len(), if offset == 3000 { 1 } else { 1000 });
        ids.extend(rows.iter().map(|row| row["id"].as_u64().unwrap()));
    }
    assert!(ids.is_sorted() && ids.len() == 3001 && ids[0] == 1);
    for beyond in ["3001", "8000000000000000"] {
        assert!(client.rows(&format!(r#"{{"get":"threads","offset":{beyond}}}"#), "threads").is_empty());
    }
    assert!(client.rows(r#"{"get":"threads","limit":0}"#, "threads").is_empty());
    let answer = client.ask(r#"{"get":"threads","filter":"worker 29","sort":"waited"}"#);
    // 29, 290 to 299, 2900 to 2999.
    assert_eq!(answer["total"], 111);
    let waited: Vec<f64> =
        answer["threads"].as_array().unwrap().iter().map(|row| row["waited"].as_f64().unwrap()).collect();
    assert!(waited.is_sorted_by(|one, next| one >= next) && waited.len() == 100);
    let first = |request: &str, client: &mut Client| client.rows(request, "threads")[0]["name"].clone();
    assert_eq!(first(r#"{"get":"threads","sort":"name","filter":"worker"}"#, &mut client), "worker 0");
    assert_eq!(first(r#"{"get":"threads","reverse":true}"#, &mut client), "worker 2999");
    let error = client.error(r#"{"get":"threads","sort":"beauty"}"#);
    assert!(error.starts_with("threads cannot be sorted by \"beauty\", but by id, waited"), "{error}");
    end(program);
}

/// A program that does nothing.
fn idle() {
    // The first call that waits makes the hub.
    sleep(Duration::from_millis(1));
    ready();
    idle_until(1);
}

#[test]
fn a_wrong_request_is_answered_with_one_line_and_other_protocols_with_the_end() {
    let _guard = common::guard();
    let folder = Folder::new("wrong");
    let name = "a_wrong_request_is_answered_with_one_line_and_other_protocols_with_the_end";
    let program = start_with_agent(name, &folder, idle);
    let mut client = Client::new(&folder.socket());
    // These leave the connection as it is.
    for (request, part) in [
        (r#"{"get":"passwords"}"#, "there is no \"passwords\" to get; there are hubs, groups, threads"),
        (r#"{}"#, "the field \"get\" is missing"),
        (r#"{"get":"hubs","greenling":2}"#, "speaks version 1 of the protocol only"),
        (r#"{"get":"hubs","depth":2}"#, "there is no field \"depth\""),
        (r#"{"get":7}"#, "the value of the field \"get\" is of another type"),
        (r#"{"get":"stack"}"#, "give its \"hub\" and its \"id\""),
        (r#"{"get":"groups","sort":"x"}"#, "groups cannot be sorted by \"x\""),
        (r#"{"get":"trace","form":"film"}"#, "a trace has no form \"film\""),
        (r#"{"get":"trace","hub":77}"#, "nothing was traced: there is no such hub"),
    ] {
        let error = client.error(request);
        assert!(error.contains(part), "{request}: {error}");
    }
    assert_eq!(client.rows(r#"{"greenling":1,"get":"hubs"}"#, "hubs").len(), 1);
    // Blank lines are nothing, and several requests may come at once.
    client.send(b"\n \r\n{\"get\":\"hubs\"}\r\n{\"get\":\"metrics\"}\n");
    assert!(client.line()["hubs"].is_array() && client.line()["metrics"].is_array());
    // These end it.
    for garbage in
        [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"\x16\x03\x01\xff\xfe\n", b"[1]\n", b"{\"get\"\n"]
    {
        let mut client = Client::new(&folder.socket());
        client.send(garbage);
        let answer = client.line();
        let error = answer["error"].as_str().unwrap();
        assert_eq!(error, "this is the console of greenling: a request is a line like {\"get\":\"hubs\"}");
        client.assert_closed();
    }
    let mut client = Client::new(&folder.socket());
    client.send(&[b'{'; 4097]);
    assert_eq!(client.line()["error"], "a request has 4096 bytes at most");
    client.assert_closed();
    // A request without its end.
    let mut client = Client::new(&folder.socket());
    client.send(b"{\"get\":");
    client.0.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    client.assert_closed();
    end(program);
}

#[test]
fn only_the_user_may_connect_and_the_socket_goes_with_the_process() {
    let _guard = common::guard();
    let name = "only_the_user_may_connect_and_the_socket_goes_with_the_process";
    let folder = Folder::new("mode");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let program = start_with(name, &[("XDG_RUNTIME_DIR", &folder.0)], || {
        let path = hub::console().unwrap();
        // Twice is once.
        assert_eq!(hub::console().unwrap(), path);
        hub::console_at(&path).unwrap();
        let error = hub::console_at(path.with_extension("other")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        idle();
    });
    let path = folder.0.join(format!("greenling/{}.sock", program.child.id()));
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(Client::new(&path).rows(r#"{"get":"hubs"}"#, "hubs").len(), 1);
    end(program);
    assert!(!path.exists());
    // A folder that others may enter is refused.
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let variables: [(&str, &Path); 2] = [("XDG_RUNTIME_DIR", &folder.0), ("GREENLING_CONSOLE", Path::new("1"))];
    let refused = start_with("a_bad_value_in_the_environment_is_one_line", &variables, idle);
    let text = end(refused);
    assert!(text.contains("greenling: GREENLING_CONSOLE=1: ") && text.contains("only this user may enter\n"), "{text}");
}

#[test]
fn a_bad_value_in_the_environment_is_one_line() {
    let _guard = common::guard();
    let name = "a_bad_value_in_the_environment_is_one_line";
    for (value, line) in [
        ("yes", "greenling: GREENLING_CONSOLE=yes: neither 1 nor a path with a / in it\n"),
        ("0", ""),
        ("", ""),
        ("/no/such/folder", "greenling: GREENLING_CONSOLE=/no/such/folder: /no/such/folder: No such file or directory"),
    ] {
        let program = start_with(name, &[("GREENLING_CONSOLE", Path::new(value))], idle);
        let text = end(program);
        assert!(text.starts_with(line) && text.lines().count() == 1 + usize::from(!line.is_empty()), "{text}");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_what_is_in_use_or_no_socket_is_not() {
    let _guard = common::guard();
    let name = "a_stale_socket_is_replaced_and_what_is_in_use_or_no_socket_is_not";
    let folder = Folder::new("stale");
    let path = folder.socket();
    let role = std::env::var_os("GREENLING_TEST_TOLD").is_some();
    // A socket without a process.
    if !role {
        drop(UnixListener::bind(&path).unwrap());
    }
    let mut program = start_with(name, &[("GREENLING_CONSOLE", &path)], idle);
    Client::new(&path).ask(r#"{"get":"hubs"}"#);
    // One that is in use.
    let second = start_with(name, &[("GREENLING_CONSOLE", &path)], idle);
    let text = end(second);
    assert!(text.contains(": another program listens there\n"), "{text}");
    Client::new(&path).ask(r#"{"get":"hubs"}"#);
    // One that was killed leaves its socket, which the next one replaces; and so do those in the common folder.
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    assert!(path.exists());
    let common = folder.0.join("greenling");
    fs::DirBuilder::new().mode(0o700).create(&common).unwrap();
    // No process has so great a number (proc(5)).
    let left = common.join("4194305.sock");
    drop(UnixListener::bind(&left).unwrap());
    let variables: [(&str, &Path); 2] = [("XDG_RUNTIME_DIR", &folder.0), ("GREENLING_CONSOLE", Path::new("1"))];
    let third = start_with(name, &variables, idle);
    assert!(!left.exists());
    end(third);
    let fourth = start_with(name, &[("GREENLING_CONSOLE", &path)], idle);
    Client::new(&path).ask(r#"{"get":"hubs"}"#);
    // The place is given to another file: that is not this process's to remove.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    end(fourth);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    // What is no socket is not touched.
    let fifth = start_with(name, &[("GREENLING_CONSOLE", &path)], idle);
    let text = end(fifth);
    assert!(text.contains(": is a file, and not a socket\n"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_client_that_hangs_or_never_reads_holds_up_no_other() {
    let _guard = common::guard();
    let folder = Folder::new("hang");
    let program = start_with_agent("a_client_that_hangs_or_never_reads_holds_up_no_other", &folder, || {
        let parked: Vec<_> = (0..1000).map(|_| spawn(thread::park)).collect();
        until_all_wait();
        ready();
        idle_until(1);
        drop(parked);
    });
    let path = folder.socket();
    // One says nothing, another one half a request, a third one asks without end and never reads.
    let _silent = Client::new(&path);
    let mut half = Client::new(&path);
    half.send(b"{\"get\":");
    let greedy = Client::new(&path);
    let mut greedy = greedy.0.into_inner();
    greedy.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while sent < 1 << 20 {
        match greedy.write(&b"{\"get\":\"threads\",\"limit\":1000}\n".repeat(100)) {
            Ok(written) => sent += written,
            // The agent has stopped to read, since its answers are not read; or has closed the connection, if this
            // process did not run for seconds.
            Err(error) => {
                use std::io::ErrorKind::{BrokenPipe, ConnectionReset, WouldBlock};
                assert!(matches!(error.kind(), WouldBlock | BrokenPipe | ConnectionReset), "{error}");
                break;
            }
        }
    }
    assert!(sent < 1 << 20, "the agent takes whatever comes");
    let mut others: Vec<Client> = (0..5).map(|_| Client::new(&path)).collect();
    for client in &mut others {
        assert_eq!(client.ask(r#"{"get":"threads"}"#)["total"], 1001);
    }
    // There are eight now, unless the greedy one is gone already.
    let refused = (0..2).any(|_| {
        let mut one = Client::silent(&path);
        let line = one.line();
        let is_error = line["error"] == "there are too many clients";
        others.push(one);
        is_error
    });
    assert!(refused);
    // Those that go make room.
    drop(others);
    let mut line = Client::silent(&path).line();
    while line["greenling"] != 1 {
        assert_eq!(line["error"], "there are too many clients");
        line = Client::silent(&path).line();
    }
    end(program);
}

#[test]
fn a_busy_hub_is_said_to_be_busy_with_what_holds_it_up() {
    let _guard = common::guard();
    let folder = Folder::new("busy");
    let name = "a_busy_hub_is_said_to_be_busy_with_what_holds_it_up";
    let mut program = start_with_agent(name, &folder, || {
        sleep(Duration::from_millis(1));
        let hog = || {
            ready();
            compute_until(1);
        };
        thread::Builder::new().name("hog".into()).spawn(hog).unwrap().join().unwrap();
        idle_until(2);
    });
    let mut client = Client::new(&folder.socket());
    // The second time it is not even asked.
    for _ in 0..2 {
        let held = loop {
            let hub = &client.ask_once(r#"{"get":"hubs","fresh":true}"#)["hubs"][0];
            assert_eq!(hub["answered"], false, "{hub}");
            let held = hub["held"].as_str().unwrap().to_owned();
            // On a busy machine the thread may get no processor in time.
            if !held.contains("does not answer a signal") {
                break held;
            }
        };
        assert!(held.contains("\"hog\", spawned at tests/console.rs:") && held.contains("\" runs\n"), "{held}");
    }
    let answer = client.ask_once(r#"{"get":"threads","fresh":true}"#);
    assert_eq!((&answer["total"], &answer["silent"][0]), (&0.into(), &1.into()), "{answer}");
    let error = client.error(r#"{"get":"stack","hub":1,"id":1}"#);
    assert_eq!(error, "hub 1 has not answered: it is busy");
    // A hub that turns again answers again.
    program.tell();
    assert_eq!(client.rows(r#"{"get":"hubs","fresh":true}"#, "hubs")[0]["answered"], true);
    assert_eq!(client.ask(r#"{"get":"threads","fresh":true}"#)["total"], 1);
    end(program);
}

#[test]
fn a_trace_is_told_as_events_and_as_a_page_and_is_off_afterwards() {
    let _guard = common::guard();
    let folder = Folder::new("trace");
    let name = "a_trace_is_told_as_events_and_as_a_page_and_is_off_afterwards";
    let mut program = start_with_agent(name, &folder, || {
        sleep(Duration::from_millis(1));
        ready();
        idle_until(1);
        assert!(!trace::is_on());
        trace::start(trace::Options::new()).unwrap();
        ready();
        idle_until(2);
        // A trace of the program stays the program's.
        trace::stop().unwrap();
    });
    let mut client = Client::new(&folder.socket());
    // The program wakes each few milliseconds, but on a busy machine perhaps not within one trace.
    let answer = loop {
        let answer = client.ask(r#"{"get":"trace","ms":100,"limit":5}"#);
        if answer["events"].as_u64().unwrap() > 10 {
            break answer;
        }
    };
    let latest = answer["latest"].as_array().unwrap();
    assert_eq!((latest.len(), &answer["missing"]), (5, &Value::Array(Vec::new())), "{answer}");
    assert!(answer["summary"].as_str().unwrap().contains(" events of 1 hub in "), "{answer}");
    assert!(latest.iter().all(|event| event["does"].is_string() && event["at"].is_number()), "{answer}");
    let page = client.ask(r#"{"get":"trace","ms":1,"form":"page"}"#);
    assert!(page["file"].as_str().unwrap().starts_with("<!DOCTYPE html>"));
    let chrome = client.ask(r#"{"get":"trace","ms":1,"form":"chrome"}"#);
    serde_json::from_str::<Value>(chrome["file"].as_str().unwrap()).unwrap();
    program.tell();
    program.read_to("ready");
    let error = client.ask(r#"{"get":"trace","ms":1}"#)["error"].clone();
    assert_eq!(error, "nothing was traced: a trace of this hub is on already");
    end(program);
}

#[test]
fn a_trace_that_a_busy_hub_does_not_end_in_time_ends_later() {
    let _guard = common::guard();
    let folder = Folder::new("late");
    let mut program = start_with_agent("a_trace_that_a_busy_hub_does_not_end_in_time_ends_later", &folder, || {
        sleep(Duration::from_millis(1));
        ready();
        while !trace::is_on() && !told(1) {
            sleep(Duration::from_millis(1));
        }
        compute_until(1);
        while trace::is_on() {
            sleep(Duration::from_millis(1));
        }
        idle_until(2);
    });
    let mut client = Client::new(&folder.socket());
    // The program may come to see the trace only when it is over.
    let answer = loop {
        let answer = client.ask_once(r#"{"get":"trace","ms":300}"#);
        if answer["error"].is_string() {
            break answer;
        }
    };
    assert_eq!(answer["error"], "nothing was traced: the hub is busy");
    program.tell();
    end(program);
}

#[test]
fn a_hub_that_has_ended_is_not_listed() {
    let _guard = common::guard();
    let folder = Folder::new("ended");
    let mut program = start_with_agent("a_hub_that_has_ended_is_not_listed", &folder, || {
        // First, so that the other hub is not the only one when it is ready.
        sleep(Duration::from_millis(1));
        let other = std::thread::Builder::new().name("second".into()).spawn(|| {
            sleep(Duration::from_millis(1));
            idle();
        });
        idle_until(1);
        other.unwrap().join().unwrap();
        ready();
        idle_until(2);
    });
    let mut client = Client::new(&folder.socket());
    let names = |hubs: Vec<Value>| hubs.iter().filter(|hub| hub["name"] == "second").count();
    assert_eq!(names(client.rows(r#"{"get":"hubs","fresh":true}"#, "hubs")), 1);
    assert_eq!(client.rows(r#"{"get":"metrics"}"#, "metrics").len(), 2);
    program.tell();
    program.read_to("ready");
    assert_eq!(names(client.rows(r#"{"get":"hubs","fresh":true}"#, "hubs")), 0);
    assert_eq!(client.rows(r#"{"get":"hubs","fresh":true}"#, "hubs").len(), 1);
    end(program);
}

/// Makes an agent for this process, the child of a fork, and asks it.
fn asks_for_itself() {
    let path = PathBuf::from(std::env::var_os("GREENLING_TEST_CHILD_SOCKET").unwrap());
    hub::console_at(&path).unwrap();
    // A hub of its own, on another OS thread: that of the parent is lost.
    let asks = move || {
        let mut client = Client::new(&path);
        spawn(|| ()).join().unwrap();
        let asked = std::thread::spawn(move || client.rows(r#"{"get":"hubs"}"#, "hubs").len());
        while !asked.is_finished() {
            sleep(Duration::from_millis(1));
        }
        assert_eq!(asked.join().unwrap(), 1);
    };
    std::thread::spawn(asks).join().unwrap();
}

#[test]
fn the_child_of_a_fork_has_no_agent_until_it_asks_and_leaves_the_parents_socket() {
    let _guard = common::guard();
    let folder = Folder::new("fork");
    let name = "the_child_of_a_fork_has_no_agent_until_it_asks_and_leaves_the_parents_socket";
    let own = folder.0.join("child");
    let variables = [("GREENLING_CONSOLE", &*folder.socket()), ("GREENLING_TEST_CHILD_SOCKET", &*own)];
    let program = start_with(name, &variables, || {
        sleep(Duration::from_millis(1));
        for asks in [false, true] {
            // SAFETY: glibc makes its allocator such that the child can use it, and so does this crate with its locks.
            match unsafe { nix::unistd::fork() }.unwrap() {
                ForkResult::Parent { child } => {
                    let status = nix::sys::wait::waitpid(child, None).unwrap();
                    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
                }
                ForkResult::Child => {
                    nix::unistd::alarm::set(60);
                    // A panic must not end this OS thread alone.
                    let well = !asks || std::panic::catch_unwind(asks_for_itself).is_ok();
                    // By `exit`, so that what is registered for the end runs.
                    std::process::exit(i32::from(!well));
                }
            }
        }
        ready();
        idle_until(1);
    });
    assert!(!own.exists());
    let mut client = Client::new(&folder.socket());
    assert_eq!(client.rows(r#"{"get":"hubs"}"#, "hubs").len(), 1);
    end(program);
    assert!(!folder.socket().exists());
}

#[test]
fn a_program_that_closes_what_it_does_not_know_loses_the_agent_and_no_file_of_its_own() {
    let _guard = common::guard();
    let folder = Folder::new("closed");
    let name = "a_program_that_closes_what_it_does_not_know_loses_the_agent_and_no_file_of_its_own";
    let path = folder.socket();
    let program = start_with(name, &[("GREENLING_TEST_CHILD_SOCKET", &path)], || {
        hub::console_at(std::env::var_os("GREENLING_TEST_CHILD_SOCKET").unwrap()).unwrap();
        // As daemons do. There is no hub so far.
        for fd in 3..100 {
            // SAFETY: close takes an integer; nothing in this process uses these descriptors but the agent.
            unsafe { libc::close(fd) };
        }
        let files: Vec<_> = (3..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        ready();
        while !told(1) {
            std::thread::sleep(Duration::from_millis(2));
        }
        files.iter().for_each(|file| assert!(file.metadata().is_ok()));
    });
    // The call that waits for a client has the socket still, but no later one.
    drop(UnixStream::connect(&path));
    while path.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    end(program);
}

#[test]
fn a_client_learns_of_the_end_of_the_agent_although_a_child_has_a_copy_of_the_connection() {
    let _guard = common::guard();
    let folder = Folder::new("copy");
    let name = "a_client_learns_of_the_end_of_the_agent_although_a_child_has_a_copy_of_the_connection";
    let program = start_with_agent(name, &folder, || {
        sleep(Duration::from_millis(1));
        ready();
        idle_until(1);
        // SAFETY: as above; the child does nothing but sleep.
        match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Parent { .. } => {
                ready();
                idle_until(2);
            }
            ForkResult::Child => {
                let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
                // The child must not keep the test's pipes open.
                for fd in 0..3 {
                    // SAFETY: both numbers are open.
                    unsafe { libc::dup2(null.as_raw_fd(), fd) };
                }
                std::thread::sleep(Duration::from_secs(3));
                // SAFETY: nothing of the parent's is to be flushed or unwound here.
                unsafe { libc::_exit(0) }
            }
        }
    });
    let mut client = Client::new(&folder.socket());
    let mut program = program;
    program.tell();
    program.read_to("ready");
    client.send(b"bye\n");
    assert!(client.line()["error"].is_string());
    client.assert_closed();
    end(program);
}
