//! The programs that work alone: without a network, or with servers of their own on loopback.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::built::{example, examples};
use crate::support::{Ended, PATIENCE, Running, run};

#[test]
fn spawn_join_runs_one_thread_after_the_other() {
    let ended = run("spawn_join", &[], b"");
    let expected: Vec<String> = (1..=3).flat_map(|t| (0..5).map(move |i| format!("thread {t} {i}"))).collect();
    assert_eq!(ended.lines(), expected);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn trace_echo_writes_both_files_and_says_why_a_client_waited() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trace-echo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let ended = run("trace_echo", &["--folder", folder.to_str().unwrap()], b"");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let lines = ended.lines();
    assert!(lines[0].contains(" \"client ") && lines.iter().any(|line| line.contains("woken by ")), "{ended:?}");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("trace_echo.json")).unwrap()).unwrap();
    let spans = json["traceEvents"].as_array().unwrap().iter().filter(|item| item["ph"] == "b").count();
    assert_eq!(spans, 10 * 20);
    assert!(std::fs::read_to_string(folder.join("trace_echo.html")).unwrap().contains("round 19 of client 9"));
    std::fs::remove_dir_all(&folder).unwrap();
    let ended = run("trace_echo", &["--folder", folder.to_str().unwrap()], b"");
    assert!(ended.stderr.starts_with("trace_echo: No such file") && !ended.status.success(), "{ended:?}");
}

#[test]
fn break_lists_what_can_be_broken_in_the_order_of_the_book() {
    let ended = run("break", &["--list"], b"");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let lines = ended.lines();
    let at = |text: &str| lines.iter().position(|line| *line == text);
    let (first, second) =
        (at("2.1   A fiber resumes the deputy that waits for it"), at("10.1  The bell without a fence"));
    assert!(first.is_some() && first < second, "{ended:?}");
    assert!(at("16.2  solution: A channel on park and unpark") > second, "{ended:?}");
}

#[test]
fn the_pictures_of_the_book_are_what_traces_of_its_programs_show() {
    let chapters = [
        ("switch", "docs/book/02-one-switch.md"),
        ("hub", "docs/book/05-the-hub.md"),
        ("park", "docs/book/06-park-and-unpark.md"),
        ("reactor", "docs/book/07-the-reactor.md"),
        ("kill", "docs/book/12-kill-timeouts-and-the-end.md"),
    ];
    for (program, chapter) in chapters {
        let ended = run("book_traces", &[program], b"");
        assert!(ended.status.success() && ended.stderr.is_empty(), "{program}: {ended:?}");
        let lines = ended.lines();
        let book = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(chapter)).unwrap();
        let picture = format!("\n```text\n{}\n```\n", lines.join("\n"));
        assert!(
            lines.len() > 5 && book.contains(&picture),
            "{chapter} has not what `book_traces {program}` prints: {picture}"
        );
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer keeps words of its own on each stack")]
fn xray_prints_the_same_again_and_its_fresh_stack_is_in_the_book() {
    let first = run("xray", &[], b"");
    assert!(first.status.success() && first.stderr.is_empty(), "{first:?}");
    assert_eq!(first.lines(), run("xray", &[], b"").lines());
    let lines = first.lines();
    assert!(lines.iter().any(|line| line.contains("0xc0ffee") && line.ends_with("THE VALUE ON ITS WAY")), "{first:?}");
    let begin = lines.iter().position(|line| line.starts_with("stack, ")).unwrap();
    let end = lines.iter().position(|line| line.contains("bytes below")).unwrap();
    let stack = lines[begin..end].join("\n");
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/book/02-one-switch.md");
    let book = std::fs::read_to_string(book).unwrap();
    // The transcript is one of x86-64.
    assert!(cfg!(not(target_arch = "x86_64")) || book.contains(&stack), "chapter 2 has not: {stack}");
}

#[test]
fn a_quiz_has_an_answer_for_each_seed_and_the_book_has_one_of_them() {
    let quiz = |args: &[&str]| {
        let ended = run("quiz", args, b"");
        assert!(ended.status.success() && ended.stderr.is_empty(), "{args:?}: {ended:?}");
        ended.lines().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut answers = BTreeSet::new();
    for topic in ["wakeup", "wheel", "starvation"] {
        for seed in (0..8).map(|seed| seed.to_string()) {
            let (asked, answered) = (quiz(&[topic, "--seed", &seed]), quiz(&["--answer", topic, "--seed", &seed]));
            let begin = answered.iter().position(|line| line == "Answer").unwrap();
            assert_eq!(answered[..begin - 1], asked, "{topic} {seed}");
            assert!(answered.len() > begin + 3 && asked.last().unwrap().ends_with('?'), "{answered:?}");
            answers.insert(answered[begin + 2].clone());
        }
    }
    assert!(answers.contains("1. Yes.") && answers.contains("1. No."), "{answers:?}");
    let book = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/book/19-time-and-chance.md"));
    let shown = quiz(&["wakeup", "--seed", "3", "--answer"]).join("\n");
    assert!(book.unwrap().contains(&format!("\n```text\n{shown}\n```\n")), "the chapter has not: {shown}");
}

/// Runs an example that the environment tells to write a trace, and returns the trace.
fn trace_of(name: &str, args: &[&str], kind: &str) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.{kind}", std::process::id()));
    let output = Command::new(example(name)).args(args).env("GREENLING_TRACE", &file).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    text
}

#[test]
fn three_examples_write_a_page_and_a_file_of_what_they_did_without_a_change() {
    let programs: [(&str, &[&str]); 3] = [
        ("pool_crawler", &["--delay", "1ms", "--pages", "7"]),
        ("producer_consumer", &[]),
        ("sleep_interleave", &["--delay", "1ms"]),
    ];
    for (name, args) in programs {
        let json: serde_json::Value = serde_json::from_str(&trace_of(name, args, "json")).unwrap();
        let items = json["traceEvents"].as_array().unwrap();
        // Threads run, and are woken.
        assert!(["X", "s", "f", "M"].iter().all(|phase| items.iter().any(|item| item["ph"] == *phase)), "{name}");
        let page = trace_of(name, args, "html");
        let data = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap().1;
        let data = data.split_once("</script>").unwrap().0;
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert!(data.is_object() && page.trim_end().ends_with("</html>"), "{name}");
    }
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
    let ticks = |ended: &Ended| ended.lines()[4].strip_suffix(" ticks meanwhile").unwrap().parse::<u32>().unwrap();
    assert!(ticks(&in_place) <= 4, "one after each of the four, which never wait: {in_place:?}");
    assert!(ticks(&offloaded) > 0);
    // Known values of the first round.
    let one = run("offload_hash", &["--rounds", "1"], b"");
    assert_eq!(one.lines()[0], "1 becomes 89cd31291d2aefa4");
}

#[test]
fn resolve_names_gives_each_name_its_addresses_in_order() {
    let ended = run("resolve_names", &["--at-once", "2", "127.0.0.1", "::1", "localhost", "127.0.0.2"], b"");
    let lines = ended.lines();
    assert_eq!((lines[0], lines[1], lines[3]), ("127.0.0.1: 127.0.0.1", "::1: ::1", "127.0.0.2: 127.0.0.2"));
    assert!(lines[2].starts_with("localhost: ") && lines.len() == 4, "{ended:?}");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    // What is no name fails without being asked for anywhere.
    let impossible = "x".repeat(300);
    let ended = run("resolve_names", &[&impossible, "127.0.0.1"], b"");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.lines()[1], "127.0.0.1: 127.0.0.1");
    assert_eq!(ended.stderr, "resolve_names: 1 of 2 names have no address\n");
}

#[test]
fn every_line_of_a_log_that_hubs_share_is_whole() {
    let path = std::env::temp_dir().join(format!("greenling-log-{}", std::process::id()));
    let name = path.to_str().unwrap();
    let ended = run("log_file", &[name], b"");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ended.lines(), ["900 of 900 lines are whole"], "{ended:?}");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    // Each line is there once, and those of one thread are in the order of the writes.
    for thread in ["main's hub", "another hub"].iter().flat_map(|hub| (0..4).map(move |n| format!("INFO {hub} {n}"))) {
        assert!((0..100).map(|i| format!("{thread}: line {i} end")).eq(lines_of(&text, &thread)), "{thread}");
    }
    assert!((0..100).map(|i| format!("WARN an OS thread: line {i} end")).eq(lines_of(&text, "WARN")));
    assert_eq!(text.lines().count(), 900);
}

/// The lines that begin so.
fn lines_of<'a>(text: &'a str, begin: &str) -> impl Iterator<Item = &'a str> {
    text.lines().filter(move |line| line.starts_with(begin))
}

#[test]
fn connection_pool_makes_no_more_connections_than_allowed() {
    for (clients, connections, made) in [("20", "3", 3), ("2", "5", 2), ("7", "1", 1)] {
        let args = ["--clients", clients, "--connections", connections, "--delay", "2ms"];
        let ended = run("connection_pool", &args, b"");
        let answers = format!("{clients} questions, {clients} right answers");
        assert_eq!(ended.lines(), [answers, format!("{made} connections")]);
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    }
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
fn ping_pong_ends_quietly_when_its_output_is_closed() {
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
    let made: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("made ")).collect();
    assert_eq!(made, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    let before_the_third = &lines[..lines.iter().position(|line| line.ends_with(" takes 2")).unwrap()];
    assert!(!before_the_third.contains(&"made 5"), "two were taken and three fit the queue: {lines:?}");
    let taken: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once(" takes ")?.1)).collect();
    assert_eq!(taken, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(lines.len(), 8 + 8 + 3, "{lines:?}");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn an_actor_answers_each_request() {
    let ended = run("actor", &[], b"");
    let lines = ended.lines();
    // All deposit before one asks, unless the machine stands still for a millisecond: then that client's turn is over.
    let (mut names, mut said): (Vec<_>, Vec<_>) = lines[..3].iter().filter_map(|line| line.split_once(' ')).unzip();
    names.sort_unstable();
    said.sort_unstable();
    assert_eq!(names, ["Ann", "Bob", "Cid"], "{lines:?}");
    assert_eq!(said, ["got 15", "got 15", "got nothing: only 0 left"], "{lines:?}");
    assert_eq!(lines[3..], ["balance: 0", "closed with 0"]);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn all_members_of_a_chat_hear_the_others() {
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
    // No line came in pieces: a piece that is not sent yet is lost with a connection that the server ends.
    assert!(packets(&one) <= 5, "{} packets for five lines", packets(&one));
}

/// Returns how many packets with data a stream has received: 0 if the kernel does not count them.
fn packets(stream: &TcpStream) -> u32 {
    // SAFETY: plain numbers, for which all bytes of zero are a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the kernel writes `length` bytes at most to a live variable of that size.
    let done = unsafe { libc::getsockopt(stream.as_raw_fd(), level, name, (&raw mut info).cast(), &raw mut length) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    info.tcpi_data_segs_in
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
        ("debugging", &["gremlin"], "gremlin is none of deadlock, hog, leak, slow"),
        ("debugging", &[], "which fault? deadlock, hog, leak or slow"),
        ("debugging", &["hog", "leak"], "leak"),
        ("trace_echo", &["--folder"], "--folder"),
        ("gossip", &["--seed", "x"], "--seed takes a number"),
        ("gossip", &["--hosts", "1"], "a gossip takes two hosts at least"),
        ("book_traces", &[], "which picture? switch, hub, park, reactor or kill"),
        ("xray", &["stray"], "stray is none of fresh, parked, switched, value, ended, own"),
        ("xray", &["--every"], "--every"),
        ("book_traces", &["spark"], "spark is none of switch, hub, park, reactor, kill"),
        ("quiz", &[], "which topic? wakeup, wheel or starvation"),
        ("quiz", &["sleep"], "sleep is none of wakeup, wheel, starvation"),
        ("quiz", &["wheel", "--seed", "-1"], "--seed -1: not a whole number below 2^64"),
        ("quiz", &["wheel", "wakeup"], "wakeup"),
        ("break", &[], "which number? --list has them all"),
        ("break", &["6.99"], "6.99 is no number of the book: --list has them all"),
        ("break", &["--solution", "6.1"], "6.1 breaks something, and is no exercise with a solution"),
        ("break", &["16.1"], "16.1 is an exercise with a solution: --solution 16.1"),
        ("break", &["--list", "6.1"], "--list and --all stand alone"),
        ("trace_echo", &["stray"], "stray"),
        ("offload_hash", &["--rounds", "0"], "--rounds 0: not a whole number, 1 or more"),
        ("offload_hash", &["stray"], "stray"),
        ("concurrent_fetch", &["--hosts", "256"], "--hosts 256: not a whole number"),
        ("concurrent_fetch", &["--timeout", "never"], "--timeout never: not a duration"),
        ("pool_crawler", &["--limit", "0"], "--limit 0: not a whole number, 1 or more"),
        ("pool_crawler", &["--pages", "-1"], "--pages -1: not a whole number"),
        ("level_or_edge", &["stray"], "stray"),
        ("thread_locals", &["stray"], "stray"),
        ("chat_server", &["stray"], "cannot listen on stray"),
        ("chat_server", &["--addr"], "--addr needs a value"),
        ("cpu_or_io", &["--tasks", "0"], "--tasks 0: not a whole number, 1 or more"),
        ("cpu_or_io", &["--wait", "long"], "--wait long: not a duration"),
        ("cpu_or_io", &["--below"], "--below needs a value"),
        ("echo_client", &["--adr", "x"], "--adr"),
        ("port_forwarder", &["--addr", "nonsense"], "cannot listen on nonsense"),
        ("port_forwarder", &["--to"], "--to needs a value"),
        ("resolve_names", &["--at-once", "0"], "--at-once 0: not a whole number, 1 or more"),
        ("resolve_names", &["--limit", "short"], "--limit short: not a duration"),
        ("connection_pool", &["--connections", "0"], "--connections 0: not a whole number, 1 or more"),
        ("connection_pool", &["stray"], "stray"),
        ("log_file", &["--lines"], "invalid option '--lines'"),
        ("log_file", &["a", "b"], "it takes one FILE"),
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
        ("echo_server", &["--addr", "127.0.0.1"], "cannot listen on 127.0.0.1: it must be HOST:PORT"),
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
    for name in examples() {
        let path = [format!("{name}.rs"), format!("{name}/options.rs"), format!("{name}/main.rs")]
            .map(|file| format!("{}/examples/{file}", env!("CARGO_MANIFEST_DIR")));
        let source = path.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap();
        if !source.contains("Long(\"") {
            continue;
        }
        let ended = run(&name, &["--help"], b"");
        // The options are taken from the source, so that a new one cannot be forgotten here.
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
    // One after the other would take four seconds.
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
    let document = "docs/book/00-from-blocking-to-green.md";
    assert_eq!(ended.lines(), shown(document, first), "{document}");
}

/// One line of what `thread_locals` prints: the offset, the size, the name, and what the two threads have.
struct Walked {
    offset: Option<i64>,
    size: i64,
    what: String,
    have: [String; 2],
}

impl Walked {
    fn of(line: &str) -> Walked {
        let column = |from: usize, to: usize| line[from..to.min(line.len())].trim().to_owned();
        let have = [column(44, 60), column(61, 80)];
        Walked {
            offset: column(0, 8).parse().ok(),
            size: column(9, 14).parse().unwrap(),
            what: column(16, 43),
            have: have.map(|have| have.trim_start_matches("= ").to_owned()),
        }
    }

    /// What each thread has, as an address.
    fn addresses(&self) -> [i64; 2] {
        self.have.each_ref().map(|have| i64::from_str_radix(have.strip_prefix("0x").unwrap(), 16).unwrap())
    }
}

#[test]
fn thread_locals_lie_at_the_same_offsets_in_two_threads() {
    let ended = run("thread_locals", &[], b"");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let lines: Vec<Walked> = ended.lines()[1..].iter().map(|line| Walked::of(line)).collect();
    let find = |what: &str| lines.iter().find(|line| line.what == what);
    let line = |what: &str| find(what).unwrap_or_else(|| panic!("no {what}: {:#?}", ended.lines()));
    let pointers = line("the thread pointer").addresses();
    assert_ne!(pointers[0], pointers[1]);
    // What has an address is where the offset says, in both threads.
    for module in lines.iter().filter(|line| line.offset.is_some() && line.have[0].starts_with("0x")) {
        if module.what != "address of the dtv" {
            assert_eq!(module.addresses(), pointers.map(|tp| tp + module.offset.unwrap()), "{}", module.what);
        }
    }
    // Each thread has its own value, inside of the module that has the variable.
    for (what, values, of) in [("MINE", ["1", "2"], "the program"), ("errno", ["2", "20"], "libc.so.6")] {
        let variable = line(what);
        assert_eq!(variable.have, values);
        if let Some(module) = find(of) {
            let inside = variable.offset.unwrap() - module.offset.unwrap();
            assert!((0..=module.size - variable.size).contains(&inside), "{what}: {:#?}", ended.lines());
        }
    }
    if cfg!(target_env = "gnu") {
        let ids = &line("the kernel's thread id").have;
        assert!(ids[0] != ids[1] && ids.iter().all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{ids:?}");
        for entry in lines.iter().filter(|line| line.what.starts_with("dtv[")) {
            let (_, module) = entry.what.split_once(", ").unwrap();
            assert_eq!(entry.addresses(), line(module).addresses(), "{}", entry.what);
        }
    }
}

#[test]
fn thread_locals_prints_the_lines_of_the_book() {
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) || cfg!(feature = "sanitizer") {
        return;
    }
    let names = |lines: &[String]| -> Vec<String> { lines.iter().map(|line| Walked::of(line).what).collect() };
    let printed: Vec<String> = run("thread_locals", &[], b"").lines().iter().map(|line| line.to_string()).collect();
    let book = shown("docs/book/17-what-is-a-thread.md", &printed[0]);
    assert_eq!(names(&printed[1..]), names(&book[1..]));
}

/// Returns a line of a transcript without what differs from run to run: times, addresses, and ids of OS threads.
fn without_figures(line: &str) -> String {
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        let figure = word.contains(|c: char| c.is_ascii_digit()) && !word.starts_with('#') && !word.contains(".rs:");
        words.push(if figure && word != "1000" { "N" } else { word });
    }
    // Units follow the figures, and lines are cut by length.
    let units = ["ns", "µs", "ms", "s"];
    words.retain(|word| !units.contains(&word.trim_end_matches([',', ';'])));
    words.join(" ")
}

/// Runs the program with this fault, and returns the first line of the book that is not in the output, and the output.
/// There may be other lines in between.
fn missing_line(fault: &str, begin: &str) -> Option<(String, String)> {
    // Reports, which have lines of any length, are on standard error.
    let ended = Command::new(example("debugging")).arg(fault).stdin(Stdio::null()).output().unwrap();
    let printed = [&ended.stderr, &ended.stdout].map(|bytes| without_figures(str::from_utf8(bytes).unwrap())).join(" ");
    let mut rest = &printed[..];
    for line in shown("docs/book/18-debugging.md", begin) {
        let line = without_figures(&line);
        let Some(at) = rest.find(&line) else { return Some((line, printed)) };
        rest = &rest[at + line.len()..];
    }
    None
}

/// Checks that the program shows the lines of the book for this fault. On a machine that has no processor to spare the
/// watch may see no second of computing, and then the program is run again.
fn check_transcript(fault: &str, begin: &str) {
    let mut tries = std::iter::repeat_with(|| missing_line(fault, begin)).take(10);
    let first = tries.next().unwrap();
    assert!(first.is_none() || tries.any(|missing| missing.is_none()), "{fault}: {first:?}");
}

#[test]
fn debugging_prints_the_transcripts_of_the_book() {
    check_transcript("deadlock", "deadlock: nothing");
    check_transcript("hog", "greenling: hub 1");
    check_transcript("leak", "1000 green threads");
    check_transcript("slow", "#4");
}

#[test]
fn gossip_is_told_faster_than_life_and_the_same_again() {
    // What is measured is a build with optimizations; the other one would take a minute where others build, too.
    let hosts = if cfg!(debug_assertions) { 10 } else { 100 };
    let ended = run("gossip", &["--seed", "7", "--hosts", &hosts.to_string()], b"");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let lines = ended.lines();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert!(lines[1].ends_with(&format!("ten minutes later {} hosts do", hosts / 2)), "{lines:#?}");
    println!("{}", lines[3]);
    // Of processor time, so that it does not matter what else runs on the machine.
    let times: u64 = lines[3].rsplit_once(" x ").unwrap().1.parse().unwrap();
    assert!(cfg!(debug_assertions) || times >= 1000, "{lines:#?}");
    let (few, again) = (["--seed", "8", "--hosts", "10"], ["--hosts", "10", "--seed", "8"]);
    assert_eq!(run("gossip", &few, b"").lines()[..3], run("gossip", &again, b"").lines()[..3]);
}

#[test]
fn cpu_or_io_waits_all_at_once_on_either_kind_of_thread() {
    let ended = run("cpu_or_io", &["--tasks", "40", "--wait", "0.05", "--below", "1000"], b"");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let lines = ended.lines();
    let (lines, busy): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| !line.contains("the machine is busy"));
    assert!(busy.len() <= 1, "{busy:?}");
    assert_eq!([lines[0], lines[4]], ["40 tasks that wait 50ms", "40 tasks that count the 168 primes below 1000"]);
    assert_eq!(lines.len(), 9, "{lines:#?}");
    let seconds: Vec<f64> =
        lines[1..4].iter().map(|line| line[30..].trim_end_matches(" s").trim().parse().unwrap()).collect();
    // One after the other is two seconds, all at once a twentieth of one.
    assert!(seconds[0] >= 2.0 && seconds[1] < 1.0 && seconds[2] < 1.0, "{lines:#?}");
}
