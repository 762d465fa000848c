//! The programs that need nobody else: no network, or servers of their own on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Running, example, run};

#[test]
fn spawn_join_runs_one_thread_after_the_other() {
    let ended = run("spawn_join", &[], b"");
    let expected: Vec<String> = (1..=3).flat_map(|t| (0..5).map(move |i| format!("thread {t} {i}"))).collect();
    assert_eq!(ended.lines(), expected);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn sleep_interleave_lets_threads_take_turns() {
    let expected: Vec<String> = (0..5).flat_map(|i| (1..=3).map(move |t| format!("thread {t} {i}"))).collect();
    for delay in ["0", "20ms", "0.01"] {
        let ended = run("sleep_interleave", &["--delay", delay], b"");
        assert_eq!(ended.lines(), expected, "--delay {delay}");
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    }
}

#[test]
fn offload_hash_lets_the_clock_tick_unless_it_hashes_in_place() {
    let offloaded = run("offload_hash", &["--rounds", "500000"], b"");
    let in_place = run("offload_hash", &["--rounds", "500000", "--in-place"], b"");
    for ended in [&offloaded, &in_place] {
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
        assert_eq!(ended.lines().len(), 5);
    }
    assert_eq!(offloaded.lines()[..4], in_place.lines()[..4], "the same hashes");
    assert_eq!(in_place.lines()[4], "0 ticks meanwhile");
    assert_ne!(offloaded.lines()[4], "0 ticks meanwhile");
    // Known values of the first round.
    let one = run("offload_hash", &["--rounds", "1"], b"");
    assert_eq!(one.lines()[0], "1 becomes 89cd31291d2aefa4");
}

#[test]
fn ping_pong_takes_turns() {
    let ended = run("greenlet_ping_pong", &["--rounds", "3", "--delay", "1ms"], b"");
    assert_eq!(ended.lines(), ["---A--", "---B--"].repeat(3));
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn ping_pong_without_delay_says_what_a_switch_costs() {
    for (rounds, printed) in [("1", 1), ("5", 5), ("1000", 5)] {
        let ended = run("greenlet_ping_pong", &["--rounds", rounds, "--delay", "0"], b"");
        let lines = ended.lines();
        assert_eq!(lines[..2 * printed], ["---A--", "---B--"].repeat(printed));
        assert_eq!(lines.len(), 2 * printed + if rounds == "1000" { 2 } else { 1 });
        nanoseconds(lines[lines.len() - 1]);
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    }
    let ended = run("greenlet_ping_pong", &["--rounds", "1200000", "--delay", "0", "--quiet"], b"");
    let lines = ended.lines();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("2400000 switches in "), "{lines:?}");
    nanoseconds(lines[0]);
}

/// The figure of the closing line.
#[track_caller]
fn nanoseconds(line: &str) {
    let figure = line.strip_suffix(" ns per switch").and_then(|line| line.split(' ').next_back());
    let figure: f64 = figure.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    assert!(figure > 0.1, "{line:?}");
}

#[test]
fn ping_pong_sleeps_half_a_second_by_default() {
    let mut child = endless_ping_pong(&[]);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!([lines.next().unwrap(), lines.next().unwrap()], ["---A--", "---B--"]);
    let begin = Instant::now();
    assert_eq!([lines.next().unwrap(), lines.next().unwrap()], ["---A--", "---B--"]);
    // Both sleep after their turn, and one sleep was under way when B's line arrived here.
    assert!(begin.elapsed() > Duration::from_millis(700), "{:?}", begin.elapsed());
}

#[test]
fn ping_pong_goes_on_until_interrupted() {
    let mut child = endless_ping_pong(&["--delay", "10ms"]);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.by_ref().take(20).count(), 20);
    child.signal(libc::SIGINT);
    assert_eq!(child.wait().signal(), Some(libc::SIGINT));
}

#[test]
fn ping_pong_ends_quietly_when_nobody_reads() {
    for delay in ["0", "1ms"] {
        let mut child = endless_ping_pong(&["--delay", delay]);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        assert_eq!(lines.by_ref().take(3).map(Result::unwrap).collect::<Vec<_>>(), ["---A--", "---B--", "---A--"]);
        drop(lines);
        assert_eq!(child.wait().code(), Some(0));
        let mut complaint = String::new();
        std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut complaint).unwrap();
        assert_eq!(complaint, "");
    }
}

#[test]
fn a_producer_is_held_back_by_its_queue_and_every_item_is_taken_once() {
    let ended = run("producer_consumer", &[], b"");
    let lines = ended.lines();
    assert_eq!(lines[..7], ["made 0", "made 1", "made 2", "made 3", "made 4", "a takes 0", "b takes 1"]);
    let taken: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once(" takes ")?.1)).collect();
    assert_eq!(taken, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(lines.len(), 8 + 8 + 3, "{lines:?}");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn an_actor_answers_each_request() {
    let ended = run("actor", &[], b"");
    let expected = ["Ann got 15", "Bob got 15", "Cid got nothing: only 0 left", "balance: 0", "closed with 0"];
    assert_eq!(ended.lines(), expected);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn everybody_in_a_chat_hears_the_others() {
    let mut command = Command::new(example("chat_server"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Running(command.spawn().unwrap());
    let mut greeting = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
    let addr = greeting.trim_end().strip_prefix("chat on ").expect("the address").to_owned();
    let client = |number: u32| {
        let stream = TcpStream::connect(&addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), format!("* you are {number}"));
        (lines, stream)
    };
    let (mut first, mut one) = client(1);
    let (mut second, two) = client(2);
    assert_eq!(first.next().unwrap(), "* 2 comes in");
    let (mut third, mut three) = client(3);
    assert_eq!(first.next().unwrap(), "* 3 comes in");
    assert_eq!(second.next().unwrap(), "* 3 comes in");
    // In two pieces, and two lines in one.
    one.write_all(b"hel").unwrap();
    one.write_all(b"lo\nand more\n").unwrap();
    for lines in [&mut second, &mut third] {
        assert_eq!([lines.next().unwrap(), lines.next().unwrap()], ["1: hello", "1: and more"]);
    }
    drop((second, two));
    assert_eq!(third.next().unwrap(), "* 2 leaves");
    three.write_all(b"bye\n").unwrap();
    assert_eq!([first.next().unwrap(), first.next().unwrap()], ["* 2 leaves", "3: bye"]);
}

fn endless_ping_pong(args: &[&str]) -> Running {
    let mut command = Command::new(example("greenlet_ping_pong"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running(command.spawn().unwrap())
}

#[test]
fn wrong_arguments_get_one_clear_line_and_exit_code_2() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("greenlet_ping_pong", &["--rounds", "0"], "--rounds 0: not a whole number, 1 or more"),
        ("greenlet_ping_pong", &["--rounds", "-3"], "--rounds -3: not a whole number"),
        ("greenlet_ping_pong", &["--rounds", "many"], "--rounds many: not a whole number"),
        ("greenlet_ping_pong", &["--rounds"], "--rounds needs a value"),
        ("greenlet_ping_pong", &["--delay", "-1"], "--delay -1: not a duration"),
        ("greenlet_ping_pong", &["--delay", "soon"], "--delay soon: not a duration"),
        ("greenlet_ping_pong", &["--delay", "1e300"], "--delay 1e300: not a duration"),
        ("greenlet_ping_pong", &["--delay", "inf"], "--delay inf: not a duration"),
        ("greenlet_ping_pong", &["--nonsense"], "--nonsense"),
        ("greenlet_ping_pong", &["--quiet=yes"], "yes"),
        ("sleep_interleave", &["--delay", "NaN"], "--delay NaN: not a duration"),
        ("sleep_interleave", &["stray"], "stray"),
        ("offload_hash", &["--rounds", "0"], "--rounds 0: not a whole number, 1 or more"),
        ("offload_hash", &["stray"], "stray"),
        ("concurrent_fetch", &["--hosts", "256"], "--hosts 256: not a whole number"),
        ("concurrent_fetch", &["--timeout", "never"], "--timeout never: not a duration"),
        ("pool_crawler", &["--limit", "0"], "--limit 0: not a whole number, 1 or more"),
        ("pool_crawler", &["--pages", "-1"], "--pages -1: not a whole number"),
        ("level_or_edge", &["--help"], "it takes no arguments"),
        ("cpu_or_io", &["--tasks", "0"], "--tasks 0: not a whole number, 1 or more"),
        ("cpu_or_io", &["--wait", "long"], "--wait long: not a duration"),
        ("cpu_or_io", &["--below"], "--below needs a value"),
        ("echo_client", &["--adr", "x"], "--adr"),
        ("port_forwarder", &["--addr", "nonsense"], "cannot listen on nonsense"),
        ("port_forwarder", &["--to"], "--to needs a value"),
        ("udp_echo", &["--count", "0"], "--count 0: not a whole number, 1 or more"),
        ("udp_echo", &["--every", "0"], "--every must be more than 0"),
        ("udp_echo", &["--addr", "192.0.2.1:1"], "cannot listen on 192.0.2.1:1"),
        ("echo_server", &["--frobnicate"], "--frobnicate"),
        ("echo_server", &["stray"], "stray"),
        ("echo_server", &["--max-connections", "0"], "--max-connections 0: not a whole number, 1 or more"),
        ("echo_server", &["--max-connections", "9e9"], "--max-connections 9e9: not a whole number"),
        ("echo_server", &["--idle-timeout", "0"], "--idle-timeout must be more than 0"),
        ("echo_server", &["--idle-timeout", "x"], "--idle-timeout x: not a duration"),
        ("echo_server", &["--grace"], "--grace needs a value"),
        ("echo_server", &["--addr", "nonsense"], "cannot listen on nonsense"),
        ("echo_server", &["--addr", "127.0.0.1:99999"], "cannot listen on 127.0.0.1:99999"),
        ("echo_server", &["--addr", "127.0.0.1"], "127.0.0.1: invalid socket address; it must be HOST:PORT"),
        ("echo_server", &["--addr", "192.0.2.1:7007"], "cannot listen on 192.0.2.1:7007"),
    ];
    for (name, args, what) in cases {
        let ended = run(name, args, b"");
        assert_eq!(ended.status.code(), Some(2), "{name} {args:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{name} {args:?}: {ended:?}");
        assert!(ended.stderr.starts_with(&format!("{name}: ")), "{ended:?}");
        assert!(ended.stderr.contains(what), "{name} {args:?}: {ended:?}");
        assert!(ended.stdout.is_empty(), "{name} {args:?}: {ended:?}");
    }
}

#[test]
fn help_names_every_option() {
    let names = [
        "greenlet_ping_pong",
        "sleep_interleave",
        "offload_hash",
        "cpu_or_io",
        "concurrent_fetch",
        "pool_crawler",
        "echo_server",
        "echo_client",
        "port_forwarder",
        "udp_echo",
    ];
    for name in names {
        let ended = run(name, &["--help"], b"");
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.stderr.is_empty(), "{ended:?}");
        let source = std::fs::read_to_string(format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let options: Vec<&str> = source.split("Long(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(options.contains(&"help"), "{options:?}");
        let text = String::from_utf8(ended.stdout).unwrap();
        for option in options.iter().filter(|option| **option != "help") {
            assert!(
                text.matches(&format!("--{option}")).count() >= 2,
                "{name}: no --{option} in usage and list\n{text}"
            );
        }
    }
}

#[test]
fn run_commands_runs_all_at_once_and_ends_the_slow_one() {
    let ended = run("run_commands", &[], b"");
    let lines = ended.lines();
    let expected = [
        "uname -s: exit status: 0, \"Linux\"",
        "sleep 0.2: exit status: 0, \"\"",
        "no-such-program: No such file or directory (os error 2)",
        "sleep 60: killed, since it took longer than 1s",
    ];
    assert_eq!(lines[..4], expected);
    assert!(lines[4].starts_with("4 commands in "), "{lines:?}");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let begin = Instant::now();
    let ended = run("run_commands", &["sleep 0.5"; 20], b"");
    assert_eq!(ended.lines()[..20], ["sleep 0.5: exit status: 0, \"\""; 20]);
    assert!(begin.elapsed() < Duration::from_secs(5), "one after the other would be ten seconds");
}

#[test]
fn run_commands_takes_its_programs_along_when_it_is_interrupted() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut command = Command::new(example("run_commands"));
        let stamp = format!("3600.{}{signal}", std::process::id());
        let args = ["--limit", "3600s", "echo quick", &format!("sleep {stamp}"), "sleep 3601"];
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = Running(command.spawn().unwrap());
        let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        // The first line is printed when all three were started.
        assert_eq!(lines.next().unwrap(), "echo quick: exit status: 0, \"quick\"");
        assert!(runs(&stamp));
        program.signal(signal);
        let rest: Vec<String> = lines.collect();
        assert_eq!(rest[..2], [format!("sleep {stamp}: interrupted"), "sleep 3601: interrupted".to_owned()]);
        assert_eq!(program.wait().code(), Some(130));
        let patience = Instant::now() + crate::support::PATIENCE;
        while runs(&stamp) {
            assert!(Instant::now() < patience, "its programs have not gone with it");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether a process has this argument.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
}

#[test]
fn sleep_interleave_naps_all_at_once() {
    example("sleep_interleave"); // built before the clock starts
    let begin = Instant::now();
    assert!(run("sleep_interleave", &["--delay", "200ms"], b"").status.success());
    let took = begin.elapsed();
    // Five naps of each; fifteen would be three seconds.
    assert!((Duration::from_secs(1)..Duration::from_millis(2900)).contains(&took), "{took:?}");
}

#[test]
fn concurrent_fetch_asks_all_hosts_at_once() {
    example("concurrent_fetch"); // built before the clock starts
    let begin = Instant::now();
    let ended = run("concurrent_fetch", &["--hosts", "8", "--delay", "500ms", "--timeout", "60"], b"");
    let took = begin.elapsed();
    let expected: Vec<String> = (1..=8).map(|n| format!("127.0.0.{n}: HTTP/1.0 200 OK, {n}000 bytes")).collect();
    assert_eq!(ended.lines()[..8], expected);
    assert!(ended.lines()[8].starts_with("all of them together took "), "{ended:?}");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    // One after the other it would be four seconds.
    assert!((Duration::from_millis(500)..Duration::from_millis(3900)).contains(&took), "{took:?}");
}

#[test]
fn concurrent_fetch_does_not_wait_for_hosts_that_are_silent() {
    let args = ["--hosts", "3", "--silent", "1", "--delay", "0", "--timeout", "2"];
    let ended = run("concurrent_fetch", &args, b"");
    let expected = [
        "1 of 3 hosts did not answer in time",
        "127.0.0.1: the green thread was killed",
        "127.0.0.2: HTTP/1.0 200 OK, 2000 bytes",
        "127.0.0.3: HTTP/1.0 200 OK, 3000 bytes",
    ];
    assert_eq!(ended.lines()[..4], expected);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn pool_crawler_finds_every_page_and_keeps_to_its_limit() {
    for (pages, limit, links) in [(1, 5, 1), (63, 5, 125), (40, 1, 79), (100, 64, 199)] {
        let args = ["--pages", &pages.to_string(), "--limit", &limit.to_string(), "--delay", "20ms"];
        let ended = run("pool_crawler", &args, b"");
        assert_eq!(ended.lines()[0], format!("{pages} pages with {links} links"));
        let most = ended.lines()[1].strip_prefix("at most ").and_then(|rest| rest.split(' ').next());
        let most: usize = most.unwrap_or_else(|| panic!("{ended:?}")).parse().unwrap();
        assert!((1..=limit).contains(&most), "--limit {limit}: {most}");
        assert!(limit != 5 || pages == 1 || most > 1, "it was not one after the other");
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    }
}

/// The block of a document that shows what a program prints: the first that begins with `line`.
fn shown(document: &str, line: &str) -> Vec<String> {
    let path = format!("{}/{document}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let begin = text.find(&format!("```text\n{line}")).unwrap_or_else(|| panic!("{document}: no block with {line:?}"));
    text[begin..].lines().skip(1).take_while(|line| *line != "```").map(str::to_owned).collect()
}

#[test]
fn level_or_edge_prints_the_transcript_of_the_documents() {
    let ended = run("level_or_edge", &[], b"");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let first = "reading                                  level  edge";
    for document in ["DESIGN.md", "docs/zh-CN/from-blocking-to-green.md"] {
        assert_eq!(ended.lines(), shown(document, first), "{document}");
    }
}

#[test]
fn cpu_or_io_waits_all_at_once_on_either_kind_of_thread() {
    let ended = run("cpu_or_io", &["--tasks", "40", "--wait", "0.05", "--below", "1000"], b"");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let lines = ended.lines();
    assert_eq!([lines[0], lines[4]], ["40 tasks that wait 50ms", "40 tasks that count the 168 primes below 1000"]);
    assert_eq!(lines.len(), 9, "{lines:#?}");
    let seconds: Vec<f64> =
        lines[1..4].iter().map(|line| line[30..].trim_end_matches(" s").trim().parse().unwrap()).collect();
    // One after the other is two seconds, all at once a twentieth of one.
    assert!(seconds[0] >= 2.0 && seconds[1] < 1.0 && seconds[2] < 1.0, "{lines:#?}");
}
