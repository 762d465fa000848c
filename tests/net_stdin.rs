//! Standard input is read green. Each test runs itself again as a child whose standard input it holds.

mod net_support;

use std::cell::RefCell;
use std::env;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::io::stdin;
use greenling::{TimeoutError, sleep, spawn, timeout, yield_now};
use net_support::bounded;

/// Set in a child.
const ROLE: &str = "GREENLING_STDIN_CHILD";

/// In a child: runs `body` and ends. Else returns, for the parent's part.
fn child_runs(test: &str, body: fn()) {
    if env::var_os(ROLE).is_some_and(|role| role == test) {
        bounded(body);
        std::process::exit(0);
    }
}

/// Starts this test again as a child.
fn start(test: &str, input: Stdio) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, test)
        .stdin(input)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Feeds a child piece by piece, with time in between, and expects it to be content.
fn feed(test: &str, pieces: &[&str]) {
    let mut child = start(test, Stdio::piped());
    let mut input = child.stdin.take().unwrap();
    for piece in pieces {
        input.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn lines_come_whole_however_they_are_cut_and_others_run_meanwhile() {
    const TEST: &str = "lines_come_whole_however_they_are_cut_and_others_run_meanwhile";
    child_runs(TEST, || {
        let ticks = Rc::new(RefCell::new(0));
        let count = Rc::clone(&ticks);
        let ticker = spawn(move || -> () {
            loop {
                sleep(Duration::from_millis(1));
                *count.borrow_mut() += 1;
            }
        });
        let mut line = String::new();
        assert_eq!(stdin().read_line(&mut line).unwrap(), 6);
        assert_eq!(line, "first\n");
        let rest: Vec<String> = stdin().lines().map(Result::unwrap).collect();
        assert_eq!(rest, ["second", "thi\u{e4}rd", "", "last without end"]);
        assert_eq!(stdin().read_line(&mut line).unwrap(), 0);
        assert!(*ticks.borrow() > 10, "the pipe kept the other threads waiting");
        ticker.kill();
        assert!(ticker.join().is_err());
    });
    feed(TEST, &["fir", "st\nsecond\nth", "i\u{e4}rd\n\n", "last ", "without end"]);
}

/// The shell shares the terminal, and expects it to block.
#[test]
fn a_terminal_is_read_by_lines_and_left_as_it_is() {
    const TEST: &str = "a_terminal_is_read_by_lines_and_left_as_it_is";
    child_runs(TEST, || {
        assert!(stdin().is_terminal());
        let ticks = Rc::new(RefCell::new(0));
        let count = Rc::clone(&ticks);
        let ticker = spawn(move || -> () {
            loop {
                sleep(Duration::from_millis(1));
                *count.borrow_mut() += 1;
            }
        });
        let mut line = String::new();
        assert_eq!((stdin().read_line(&mut line).unwrap(), line.as_str()), (6, "first\n"));
        assert!(*ticks.borrow() > 10, "the terminal kept the other threads waiting");
        let flags = std::fs::read_to_string("/proc/self/fdinfo/0").unwrap();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        assert_eq!(i32::from_str_radix(flags, 8).unwrap() & 0o4000, 0, "O_NONBLOCK");
        assert_eq!(stdin().read_line(&mut line).unwrap(), 0, "Ctrl-D");
        assert_eq!(
            (stdin().read_line(&mut line).unwrap(), line.as_str()),
            (5, "first\nmore\n"),
            "after which it goes on"
        );
        ticker.kill();
        assert!(ticker.join().is_err());
    });
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut ours = File::from(terminal.master);
    let mut child = start(TEST, terminal.slave.into());
    for typed in ["fir", "st\n", "\x04", "more\n"] {
        std::thread::sleep(Duration::from_millis(60));
        ours.write_all(typed.as_bytes()).unwrap();
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_line_that_is_given_up_in_the_middle_is_not_lost() {
    const TEST: &str = "a_line_that_is_given_up_in_the_middle_is_not_lost";
    child_runs(TEST, || {
        // The first half is there, the second comes later.
        let mut line = String::new();
        let mut attempts = 0;
        let n = loop {
            match timeout(Duration::from_millis(5), || stdin().read_line(&mut line)) {
                Err(TimeoutError::Elapsed) => attempts += 1,
                Err(error) => panic!("{error}"),
                Ok(n) => break n.unwrap(),
            }
            assert_eq!(line, "", "nothing is taken before the line is whole");
        };
        assert!(attempts > 1);
        assert_eq!((n, line.as_str()), (11, "two halves\n"));
        let victim = spawn(|| {
            let mut all = String::new();
            stdin().read_to_string(&mut all).unwrap();
        });
        sleep(Duration::from_millis(50));
        victim.kill();
        assert!(victim.join().unwrap_err().is_killed());
        let mut all = String::new();
        stdin().read_to_string(&mut all).unwrap();
        assert_eq!(all, "the rest\n");
    });
    feed(TEST, &["two ha", "lves", "\n", "the ", "", "", "rest\n"]);
}

#[test]
fn several_green_threads_take_turns_in_order() {
    const TEST: &str = "several_green_threads_take_turns_in_order";
    child_runs(TEST, || {
        let log = Rc::new(RefCell::new(Vec::new()));
        let lock = stdin().lock();
        let readers: Vec<_> = (0..4)
            .map(|n| {
                let log = Rc::clone(&log);
                spawn(move || {
                    for _ in 0..2 {
                        let mut line = String::new();
                        stdin().read_line(&mut line).unwrap();
                        log.borrow_mut().push((n, line.trim().to_owned()));
                    }
                })
            })
            .collect();
        // All wait in line. One of them goes away, and no other loses its turn.
        yield_now();
        let mut readers = readers.into_iter();
        let first = readers.next().unwrap();
        let second = readers.next().unwrap();
        second.kill();
        assert!(second.join().unwrap_err().is_killed());
        drop(lock);
        first.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
        let expected = [(0, "a"), (2, "b"), (3, "c"), (0, "d"), (2, "e"), (3, "f")];
        assert_eq!(*log.borrow(), expected.map(|(n, line)| (n, line.to_owned())));
    });
    feed(TEST, &["a\nb\n", "c\nd\ne\nf\n"]);
}

#[test]
fn a_turn_that_a_killed_thread_was_given_goes_to_the_next() {
    const TEST: &str = "a_turn_that_a_killed_thread_was_given_goes_to_the_next";
    child_runs(TEST, || {
        let lock = stdin().lock();
        let readers = [0, 1].map(|_| {
            spawn(|| {
                let mut line = String::new();
                stdin().read_line(&mut line).unwrap();
                line
            })
        });
        yield_now();
        // The first one has the turn now, and is killed before it runs.
        drop(lock);
        let [first, second] = readers;
        first.kill();
        assert!(first.join().unwrap_err().is_killed());
        assert_eq!(second.join().unwrap(), "line\n");
        stdin().read_line(&mut String::new()).unwrap();
    });
    feed(TEST, &["line\nrest\n"]);
}

#[test]
fn the_lock_keeps_others_out_until_it_is_dropped() {
    const TEST: &str = "the_lock_keeps_others_out_until_it_is_dropped";
    child_runs(TEST, || {
        let mut lock = stdin().lock();
        let other = spawn(|| {
            let mut line = String::new();
            stdin().read_line(&mut line).unwrap();
            line
        });
        let mut line = Vec::new();
        lock.read_until(b';', &mut line).unwrap();
        sleep(Duration::from_millis(5));
        let mut three = [0; 3];
        lock.read_exact(&mut three).unwrap();
        assert_eq!((line.as_slice(), &three), (b"mine;".as_slice(), b"and"));
        assert!(!other.is_finished());
        drop(lock);
        assert_eq!(other.join().unwrap(), " yours\n");
        let mut rest = Vec::new();
        stdin().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"rest");
    });
    feed(TEST, &["mine;and", " yours\nrest"]);
}

#[test]
fn a_line_that_is_not_text_is_an_error_and_skipped() {
    const TEST: &str = "a_line_that_is_not_text_is_an_error_and_skipped";
    child_runs(TEST, || {
        let mut line = String::new();
        let error = stdin().read_line(&mut line).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        stdin().read_line(&mut line).unwrap();
        assert_eq!(line, "text\n");
    });
    let mut child = start(TEST, Stdio::piped());
    child.stdin.take().unwrap().write_all(b"\xff\xfe\ntext\n").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_regular_file_is_read_at_once() {
    const TEST: &str = "a_regular_file_is_read_at_once";
    child_runs(TEST, || {
        let lines = greenling::no_switch(|| stdin().lines().map(Result::unwrap).count());
        assert!(lines > 100);
    });
    let mut child = start(TEST, File::open(file!()).unwrap().into());
    assert!(child.wait().unwrap().success());
}

#[test]
fn no_input_at_all_is_the_end() {
    const TEST: &str = "no_input_at_all_is_the_end";
    child_runs(TEST, || {
        assert_eq!(stdin().read_line(&mut String::new()).unwrap(), 0);
        assert!(!stdin().is_terminal());
    });
    assert!(start(TEST, Stdio::null()).wait().unwrap().success());
}

#[test]
fn a_large_input_comes_through_whole() {
    const TEST: &str = "a_large_input_comes_through_whole";
    child_runs(TEST, || {
        let mut sum = 0;
        for (number, line) in stdin().lines().enumerate() {
            assert_eq!(line.unwrap(), format!("line {number}"));
            sum += 1;
        }
        assert_eq!(sum, 200_000);
    });
    let mut child = start(TEST, Stdio::piped());
    let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
    for number in 0..200_000 {
        writeln!(input, "line {number}").unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_mode_of_the_shared_pipe_is_left_alone() {
    const TEST: &str = "the_mode_of_the_shared_pipe_is_left_alone";
    child_runs(TEST, || {
        let mut line = String::new();
        stdin().read_line(&mut line).unwrap();
        let info = std::fs::read_to_string("/proc/self/fdinfo/0").unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        assert_eq!(u32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_NONBLOCK as u32, 0);
    });
    feed(TEST, &["", "x\n"]);
}

#[test]
fn a_terminal_is_read_green() {
    const TEST: &str = "a_terminal_is_read_green";
    child_runs(TEST, || {
        assert!(stdin().is_terminal());
        let start = Instant::now();
        let ticker = spawn(move || sleep(Duration::from_millis(1)));
        let mut line = String::new();
        stdin().read_line(&mut line).unwrap();
        assert!(ticker.is_finished(), "after {:?}", start.elapsed());
        assert_eq!(line, "typed\n");
        std::fs::write(env::var_os("GREENLING_STDIN_MARK").unwrap(), "seen").unwrap();
    });
    // script(1) gives the child a terminal and types what comes in here.
    let mark = env::temp_dir().join(format!("greenling-terminal-{}", std::process::id()));
    let command = format!("{} --exact {TEST} --nocapture", env::current_exe().unwrap().display());
    let script = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env(ROLE, TEST)
        .env("GREENLING_STDIN_MARK", &mark)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let Ok(mut script) = script else {
        println!("skipped: there is no script(1) to make a terminal with");
        return;
    };
    let mut keys = script.stdin.take().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    keys.write_all(b"typed\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let _ = keys.write_all(&[4]);
    drop(keys);
    assert!(script.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "seen");
    std::fs::remove_file(mark).unwrap();
}
