//! Standard output and error are written green. Each test runs itself again as a child whose outputs it holds.
#![allow(unsafe_code)] // terminals have no counterpart in std

mod net_support;

use std::cell::Cell;
use std::env;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::io::{stderr, stdout};
use greenling::{sleep, spawn};
use net_support::{bounded, settle};

/// Set in a child.
const ROLE: &str = "GREENLING_STDOUT_CHILD";

/// More than a pipe and a terminal keep.
const LINES: usize = 15_000;

/// In a child: runs `body` and ends. Else returns, for the parent's part.
fn child_runs(test: &str, body: fn()) {
    if env::var_os(ROLE).is_some_and(|role| role == test) {
        // The test harness has begun a line.
        println!();
        bounded(body);
        std::process::exit(0);
    }
}

/// Starts this test again as a child.
fn start(test: &str, out: Stdio, err: Stdio) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, test)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap()
}

/// Everything that a child prints, without the lines of the test harness: those before the first that begins with "> ".
fn lines_of(out: impl Read) -> Vec<String> {
    let lines = BufReader::new(out).lines().map_while(Result::ok);
    lines.map(|line| line.trim_end_matches('\r').to_owned()).filter(|line| line.starts_with("> ")).collect()
}

/// Lines as wide as this do not fit into what little room a terminal has in the end.
const WIDE: usize = 250;

/// How long the reader takes.
const STALL: Duration = Duration::from_millis(1000);

/// Writes many lines, while a ticker looks how long it is kept from running.
fn write_many_and_tick(out: &mut impl Write, width: usize) {
    let began = Instant::now();
    let longest = Rc::new(Cell::new(Duration::ZERO));
    let gap = Rc::clone(&longest);
    let ticker = spawn(move || -> () {
        loop {
            let before = Instant::now();
            sleep(Duration::from_millis(1));
            gap.set(gap.get().max(before.elapsed()));
        }
    });
    for number in 0..LINES {
        writeln!(out, "> {number:width$}").unwrap();
    }
    out.flush().unwrap();
    // No other thread runs while a line is made and written, which takes its time on a busy machine, but not as long as
    // the reader.
    sleep(Duration::from_millis(2));
    assert!(began.elapsed() >= STALL / 2, "the reader was to be slow");
    assert!(longest.get() < STALL / 2, "the reader kept the other threads waiting for {:?}", longest.get());
    ticker.kill();
}

/// What [`write_many_and_tick`] writes.
fn many(width: usize) -> impl Iterator<Item = String> {
    (0..LINES).map(move |number| format!("> {number:width$}"))
}

/// Whether the open file behind `fd` is non-blocking.
fn is_nonblocking(fd: i32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_NONBLOCK as u32 != 0
}

#[test]
fn others_run_while_the_reader_of_a_full_pipe_takes_its_time() {
    const TEST: &str = "others_run_while_the_reader_of_a_full_pipe_takes_its_time";
    child_runs(TEST, || {
        write_many_and_tick(&mut stdout(), 1);
        write_many_and_tick(&mut stderr(), 1);
        assert!(!is_nonblocking(1) && !is_nonblocking(2), "others share these");
    });
    let mut child = start(TEST, Stdio::piped(), Stdio::piped());
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::sleep(STALL);
    let out = std::thread::spawn(|| lines_of(out));
    std::thread::sleep(STALL);
    let err = lines_of(err);
    assert!(child.wait().unwrap().success(), "{err:?}");
    assert!(out.join().unwrap().into_iter().eq(many(1)));
    assert!(err.into_iter().eq(many(1)));
}

/// The two sides of a new terminal.
fn terminal() -> (File, OwnedFd) {
    let open = |path: &str| File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).unwrap();
    let ours = open("/dev/ptmx");
    let (unlocked, mut number) = (0, 0);
    // SAFETY: the request reads one integer (TIOCSPTLCK(2const)).
    assert_eq!(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }, 0);
    // SAFETY: the request writes one integer (TIOCGPTN(2const)).
    assert_eq!(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTN, &raw mut number) }, 0);
    (ours, open(&format!("/dev/pts/{number}")).into())
}

#[test]
fn others_run_while_a_terminal_takes_its_time() {
    const TEST: &str = "others_run_while_a_terminal_takes_its_time";
    child_runs(TEST, || {
        assert!(stdout().is_terminal());
        write_many_and_tick(&mut stdout(), WIDE);
        assert!(!is_nonblocking(1), "the shell shares it");
    });
    let (ours, theirs) = terminal();
    let mut child = start(TEST, theirs.into(), Stdio::piped());
    std::thread::sleep(STALL);
    // A terminal with a closed other side ends in an error, after the last line.
    assert!(lines_of(ours).into_iter().eq(many(WIDE)));
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert!(child.wait().unwrap().success(), "{complaint}");
}

#[test]
fn a_kill_in_the_middle_loses_nothing_and_repeats_nothing() {
    const TEST: &str = "a_kill_in_the_middle_loses_nothing_and_repeats_nothing";
    child_runs(TEST, || {
        // The pipe is full after a while; what was accepted by then must come out in the end.
        let accepted = Rc::new(Cell::new(0));
        for round in 0..5 {
            let count = Rc::clone(&accepted);
            let writer = spawn(move || {
                let mut out = stdout().lock();
                // Ends the line that the one before was killed in.
                out.write_all(b"\n").unwrap();
                loop {
                    // It is kept in the buffer: this does not wait.
                    out.write_all(format!("> {}", count.get()).as_bytes()).unwrap();
                    count.set(count.get() + 1);
                    // This does.
                    out.write_all(b"\n").unwrap();
                }
            });
            sleep(Duration::from_millis(20));
            assert!(!writer.is_finished(), "round {round}");
            writer.kill();
            assert!(writer.join().unwrap_err().is_killed());
        }
        let count = accepted.get();
        let mut out = stdout().lock();
        writeln!(out, "\n> end {count}").unwrap();
    });
    let mut child = start(TEST, Stdio::piped(), Stdio::inherit());
    std::thread::sleep(Duration::from_millis(500));
    let mut lines = lines_of(child.stdout.take().unwrap());
    assert!(child.wait().unwrap().success());
    let end = lines.pop().unwrap();
    let count: usize = end.strip_prefix("> end ").unwrap().parse().unwrap();
    let numbers: Vec<usize> = lines.iter().filter_map(|line| line.strip_prefix("> ")?.parse().ok()).collect();
    assert!(count > 1000);
    assert!(numbers.iter().copied().eq(0..count), "{count} accepted, {} came", numbers.len());
}

#[test]
fn lines_of_several_threads_stay_whole_and_turns_are_in_order() {
    const TEST: &str = "lines_of_several_threads_stay_whole_and_turns_are_in_order";
    child_runs(TEST, || {
        /// Is written in pieces, and waits and writes itself in between.
        struct Slow(usize);
        impl fmt::Display for Slow {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "> {} ", self.0)?;
                sleep(Duration::from_millis(1));
                // The holder of the lock may lock again.
                stdout().write_all(b"inner ").map_err(|_| fmt::Error)?;
                write!(f, "{}", self.0)
            }
        }
        let writers: Vec<_> =
            (0..8).map(|number| spawn(move || writeln!(stdout(), "{}", Slow(number)).unwrap())).collect();
        let victim = spawn(|| writeln!(stdout(), "> never").unwrap());
        let last = spawn(|| writeln!(stdout(), "> last").unwrap());
        greenling::yield_now();
        victim.kill();
        for writer in writers {
            writer.join().unwrap();
        }
        last.join().unwrap();
    });
    let mut child = start(TEST, Stdio::piped(), Stdio::inherit());
    let lines = lines_of(child.stdout.take().unwrap());
    assert!(child.wait().unwrap().success());
    let expected = (0..8).map(|number| format!("> {number} inner {number}")).chain(["> last".to_owned()]);
    assert!(lines.iter().cloned().eq(expected), "{lines:?}");
}

#[test]
fn what_is_no_whole_line_comes_out_at_the_end_of_the_os_thread() {
    const TEST: &str = "what_is_no_whole_line_comes_out_at_the_end_of_the_os_thread";
    child_runs(TEST, || {
        std::thread::spawn(|| write!(stdout(), "\n> of a thread").unwrap()).join().unwrap();
        stdout().write_all(b"\n> of").unwrap();
        stdout().write_all(b" main").unwrap();
    });
    let mut child = start(TEST, Stdio::piped(), Stdio::inherit());
    let lines = lines_of(child.stdout.take().unwrap());
    assert!(child.wait().unwrap().success());
    assert_eq!(lines, ["> of a thread", "> of main"]);
}

#[test]
fn the_file_that_takes_the_place_of_standard_output_gets_what_comes_then() {
    const TEST: &str = "the_file_that_takes_the_place_of_standard_output_gets_what_comes_then";
    child_runs(TEST, || {
        writeln!(stdout(), "> to the pipe").unwrap();
        let path = env::temp_dir().join(format!("greenling-stdout-{}", std::process::id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        // SAFETY: dup2 touches no memory; std's handle of 1 does not mind what it is.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), 1) }, 1);
        let large = "x".repeat(100_000);
        writeln!(stdout(), "> to the file {large}").unwrap();
        use std::io::Seek;
        file.rewind().unwrap();
        assert_eq!(std::io::read_to_string(&mut file).unwrap(), format!("> to the file {large}\n"));
        // SAFETY: close touches no memory.
        assert_eq!(unsafe { libc::close(1) }, 0);
        writeln!(stdout(), "> unread").unwrap();
        stdout().flush().unwrap();
    });
    let mut child = start(TEST, Stdio::piped(), Stdio::inherit());
    let lines = lines_of(child.stdout.take().unwrap());
    assert!(child.wait().unwrap().success());
    assert_eq!(lines, ["> to the pipe"]);
}

#[test]
fn a_closed_reader_is_an_error_and_while_unwinding_so_is_a_wait() {
    const TEST: &str = "a_closed_reader_is_an_error_and_while_unwinding_so_is_a_wait";
    child_runs(TEST, || {
        struct Tries;
        impl Drop for Tries {
            fn drop(&mut self) {
                // Another thread has the lock and waits for room.
                assert_eq!(stdout().write_all(b"x").unwrap_err().kind(), std::io::ErrorKind::Other);
                // This one needs not wait.
                stderr().write_all(b"> farewell\n").unwrap();
            }
        }
        let writer = spawn(|| stdout().write_all(&vec![b'\n'; 1 << 20]).unwrap_err().kind());
        settle();
        let victim = spawn(|| {
            let _tries = Tries;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(victim.join().unwrap_err().is_panic());
        assert_eq!(writer.join().unwrap(), std::io::ErrorKind::BrokenPipe);
        assert_eq!(writeln!(stdout(), "x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        stderr().write_all(b"> the end\n").unwrap();
    });
    let mut child = start(TEST, Stdio::piped(), Stdio::piped());
    let err = BufReader::new(child.stderr.take().unwrap());
    let mut told = Vec::new();
    for line in err.lines().map_while(Result::ok) {
        told.push(line);
        if told.last().is_some_and(|line| line == "> farewell") {
            drop(child.stdout.take());
        }
    }
    assert!(child.wait().unwrap().success(), "{told:?}");
    assert!(told.iter().any(|line| line == "> the end"), "{told:?}");
}
