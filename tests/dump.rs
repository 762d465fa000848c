//! The dump on demand: what all threads of all hubs do, whenever a signal comes, and nothing ends.
//!
//! Each test runs a program in a process of its own (`told`), and sends it the signal when it says that it is ready.
#![allow(unsafe_code)]

mod common;
mod told;

use std::io::Read;
use std::os::fd::FromRawFd;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use greenling::signal::{SIGKILL, SIGQUIT, SIGUSR1};
use greenling::{hub, sleep, spawn, thread};
use nix::libc;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use told::{Program, compute_until, idle_until, told, until_all_wait};

/// Says that the program is ready for the signal.
fn ready() {
    eprintln!("ready");
}

/// Sends a program a signal.
fn send(program: &Program, signal: Signal) {
    kill(Pid::from_raw(program.child.id() as i32), signal).unwrap();
}

/// Tells a program to end, and returns its standard error.
fn end(mut program: Program) -> String {
    program.tell();
    program.end()
}

#[test]
fn the_threads_of_all_hubs_are_dumped_as_often_as_the_signal_comes() {
    let _guard = common::guard();
    let name = "the_threads_of_all_hubs_are_dumped_as_often_as_the_signal_comes";
    let mut program = Program::start(name, &[], || {
        hub::dump_on(SIGQUIT).unwrap();
        // Twice is once.
        hub::dump_on(SIGQUIT).unwrap();
        let parked: Vec<_> = (0..100).map(|_| spawn(thread::park)).collect();
        // All of them are parked by the time the other hub says that the program is ready.
        until_all_wait();
        let os = std::thread::Builder::new().name("second".into()).spawn(|| {
            drop(thread::Builder::new().name("lonely".into()).spawn(thread::park).unwrap());
            until_all_wait();
            ready();
            idle_until(1);
        });
        idle_until(1);
        os.unwrap().join().unwrap();
        drop(parked);
    });
    program.read_to("ready");
    for _ in 0..2 {
        send(&program, Signal::SIGQUIT);
        program.read_to("the threads of 2 hubs");
        program.read_to("hub 1 (OS thread ");
        program.read_to("100 ");
        program.read_to("(OS thread ");
        program.read_to("\"lonely\"");
    }
    let text = end(program);
    assert_eq!(text.matches("\"second\"").count(), 2, "{text}");
    // The hundred have one stack, with what waits in it.
    assert_eq!(text.matches("  stack of #2, #3, #4, #5, #6 and 95 more:\n").count(), 2, "{text}");
    assert!(text.contains("at ./tests/dump.rs:") || text.contains("tests/dump.rs:"), "{text}");
}

#[test]
fn a_hub_that_computes_and_one_in_a_system_call_are_dumped_as_the_watch_sees_them() {
    let _guard = common::guard();
    let name = "a_hub_that_computes_and_one_in_a_system_call_are_dumped_as_the_watch_sees_them";
    let mut program = Program::start(name, &[], || {
        hub::dump_on(SIGQUIT).unwrap();
        let (from, to) = std::io::pipe().unwrap();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(|| {
            let reader = move || {
                // The other hub is there, and this thread of it is on its way into the call.
                tell.send(()).unwrap();
                drop((&from).read(&mut [0]));
            };
            thread::Builder::new().name("reader".into()).spawn(reader).unwrap().join().unwrap();
        });
        let hog = move || {
            told.recv().unwrap();
            ready();
            compute_until(1);
        };
        thread::Builder::new().name("hog".into()).spawn(hog).unwrap().join().unwrap();
        drop(to);
    });
    program.read_to("ready");
    let one = |program: &mut Program| {
        program.read_to("has not answered for");
        program.read_to("OS thread ");
        program.read_to("cure: ");
    };
    // On a busy machine a thread may get no processor in time to answer.
    let mut begin = 0;
    while begin == 0 || program.text[begin..].contains("does not answer a signal") {
        begin = program.text.len();
        send(&program, Signal::SIGQUIT);
        program.read_to("the threads of 2 hubs");
        one(&mut program);
        one(&mut program);
    }
    let text = end(program);
    assert!(text.contains("\"hog\", spawned at tests/dump.rs:") && text.contains("\" runs\n"), "{text}");
    assert!(text.contains("\"reader\"") && text.contains("system call read of descriptor "), "{text}");
    if cfg!(not(feature = "sanitizer")) {
        assert!(text.contains("dump::told::compute_until ("), "{text}");
    }
}

/// A lock that the threads of two hubs share.
static SHARED: hub::sync::Mutex<()> = hub::sync::Mutex::new(());

#[test]
fn a_thread_of_another_hub_that_is_waited_for_is_named() {
    let _guard = common::guard();
    let name = "a_thread_of_another_hub_that_is_waited_for_is_named";
    let mut program = Program::start(name, &[], || {
        hub::dump_on(SIGQUIT).unwrap();
        let (tell, told) = mpsc::channel();
        let os = std::thread::spawn(move || {
            let keep = move || {
                let _held = SHARED.lock().unwrap();
                tell.send(()).unwrap();
                idle_until(1);
            };
            thread::Builder::new().name("keeper".into()).spawn(keep).unwrap().join().unwrap();
        });
        told.recv().unwrap();
        let ask = || drop(SHARED.lock().unwrap());
        let asker = thread::Builder::new().name("asker".into()).spawn(ask).unwrap();
        until_all_wait();
        ready();
        idle_until(1);
        asker.join().unwrap();
        os.join().unwrap();
    });
    program.read_to("ready");
    send(&program, Signal::SIGQUIT);
    program.read_to("the threads of 2 hubs");
    program.read_to("\"asker\" waits for a shared Mutex that #2 \"keeper\" of hub ");
    end(program);
}

/// Makes a hub, and lets it turn until the program is told to end.
fn turn_until_told() {
    sleep(Duration::from_millis(1));
    ready();
    idle_until(1);
}

#[test]
fn the_environment_names_the_signal() {
    let _guard = common::guard();
    for value in ["QUIT", "SIGQUIT"] {
        let mut program =
            Program::start("the_environment_names_the_signal", &[("GREENLING_DUMP", value)], turn_until_told);
        program.read_to("ready");
        send(&program, Signal::SIGQUIT);
        program.read_to("the threads of 1 hubs");
        end(program);
    }
}

#[test]
fn a_bad_name_in_the_environment_is_one_line() {
    let _guard = common::guard();
    for value in ["KILL", "quit", "3", ""] {
        let name = "a_bad_name_in_the_environment_is_one_line";
        let mut program = Program::start(name, &[("GREENLING_DUMP", value)], turn_until_told);
        program.read_to("ready");
        let line = format!("greenling: GREENLING_DUMP={value}: not one of QUIT, USR1, USR2 and HUP\nready\n");
        assert_eq!(end(program), line);
    }
}

#[test]
fn a_program_that_closes_what_it_does_not_know_is_dumped_and_no_file_of_its_own_is_touched() {
    let _guard = common::guard();
    let name = "a_program_that_closes_what_it_does_not_know_is_dumped_and_no_file_of_its_own_is_touched";
    let mut program = Program::start(name, &[], || {
        hub::dump_on(SIGQUIT).unwrap();
        // As daemons do. There is no hub so far.
        for fd in 3..100 {
            // SAFETY: nothing here uses one of them.
            unsafe { libc::close(fd) };
        }
        // SAFETY: the name lives until the call returns.
        let number = |_| unsafe { libc::memfd_create(c"mine".as_ptr(), 0) };
        // SAFETY: the kernel has just made the descriptor, which has no other owner.
        let file = |fd| unsafe { std::fs::File::from_raw_fd(fd) };
        let files: Vec<_> = (0..97).map(number).map(file).collect();
        sleep(Duration::from_millis(1));
        ready();
        idle_until(1);
        files.iter().for_each(|file| assert_eq!(file.metadata().unwrap().len(), 0));
    });
    program.read_to("ready");
    for _ in 0..2 {
        send(&program, Signal::SIGQUIT);
        program.read_to("the threads of 1 hubs");
    }
    end(program);
}

#[test]
fn the_child_of_a_fork_dumps_itself_alone_once_it_has_asked_for_that() {
    let _guard = common::guard();
    let name = "the_child_of_a_fork_dumps_itself_alone_once_it_has_asked_for_that";
    let mut program = Program::start(name, &[], || {
        hub::dump_on(SIGQUIT).unwrap();
        // SAFETY: as in `forked_hub`.
        match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Parent { child } => {
                while !told(1) {
                    std::thread::sleep(Duration::from_millis(2));
                }
                kill(child, Signal::SIGKILL).unwrap();
                waitpid(child, None).unwrap();
            }
            ForkResult::Child => {
                nix::unistd::alarm::set(60);
                // So far no OS thread of this process dumps, and the parent's must not.
                raise(Signal::SIGQUIT).unwrap();
                hub::dump_on(SIGQUIT).unwrap();
                sleep(Duration::from_millis(1));
                raise(Signal::SIGQUIT).unwrap();
                loop {
                    sleep(Duration::from_millis(2));
                }
            }
        }
    });
    program.read_to("the threads of 1 hubs of process ");
    program.read_to("hub ");
    let parent = format!("of process {}\n", program.child.id());
    let text = end(program);
    assert!(!text.contains(&parent) && text.matches("the threads of ").count() == 1, "{text}");
}

/// Parks below so many calls of itself.
#[inline(never)]
fn park_below(calls: usize) {
    if calls == 0 {
        thread::park();
    } else {
        park_below(calls - 1);
    }
    std::hint::black_box(calls);
}

#[test]
fn a_long_dump_is_whole_on_a_pipe_that_is_slow_and_does_not_block() {
    let _guard = common::guard();
    let name = "a_long_dump_is_whole_on_a_pipe_that_is_slow_and_does_not_block";
    let mut program = Program::start(name, &[], || {
        hub::dump_on(SIGQUIT).unwrap();
        let parked: Vec<_> = (0..40).map(|calls| spawn(move || park_below(calls))).collect();
        // One that has not begun has no stack to show.
        until_all_wait();
        ready();
        for (command, value) in [(libc::F_SETPIPE_SZ, 4096), (libc::F_SETFL, libc::O_WRONLY | libc::O_NONBLOCK)] {
            // SAFETY: both calls take an integer (fcntl(2)).
            assert_ne!(unsafe { libc::fcntl(2, command, value) }, -1);
        }
        idle_until(1);
        drop(parked);
    });
    program.read_to("ready");
    send(&program, Signal::SIGQUIT);
    for _ in 0..40 {
        program.read_to("  stack of #");
    }
    let text = end(program);
    assert!((2..42).all(|id| text.contains(&format!("  stack of #{id}:\n"))), "{text}");
}

#[test]
fn a_fork_while_the_lists_of_hubs_are_in_use_leaves_the_child_all_its_hubs() {
    let _guard = common::guard();
    let name = "a_fork_while_the_lists_of_hubs_are_in_use_leaves_the_child_all_its_hubs";
    let output = common::child(name, || {
        let stop = AtomicBool::new(false);
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            // A hub, so that forks are watched, and there is something on the lists. What a process makes only once is
            // made by the time it tells: a fork meanwhile would leave the child waiting for that.
            let stop = &stop;
            scope.spawn(move || {
                spawn(|| ()).join().unwrap();
                drop((hub::all_metrics(), hub::all_threads(Duration::ZERO)));
                tell.send(()).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    drop((hub::all_metrics(), hub::all_threads(Duration::ZERO)));
                }
            });
            told.recv().unwrap();
            let ill = (0..200).map(|_| forked_hub()).find(|status| !matches!(status, WaitStatus::Exited(_, 0)));
            stop.store(true, Ordering::Relaxed);
            assert_eq!(ill, None);
        });
    });
    assert!(output.status.success(), "{}", common::stderr(&output));
}

/// Returns how a child of a fork ends that makes a hub, and asks for it. One that hangs is killed.
fn forked_hub() -> WaitStatus {
    // SAFETY: glibc makes its allocator such that the child can use it, and so does this crate with its locks.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        ForkResult::Child => {
            nix::unistd::alarm::set(20);
            let all_is_well = || {
                let asks = || (hub::all_metrics().hubs.len(), hub::all_threads(Duration::ZERO).hubs.len());
                spawn(asks).join().is_ok_and(|asked| asked == (1, 1))
            };
            let well = catch_unwind(all_is_well).unwrap_or(false);
            // SAFETY: nothing of the parent's is to be flushed or unwound here.
            unsafe { libc::_exit(i32::from(!well)) }
        }
    }
}

#[test]
fn signals_that_cannot_ask_or_are_in_use_are_refused() {
    let _guard = common::guard();
    let output = common::child("signals_that_cannot_ask_or_are_in_use_are_refused", || {
        for signal in [SIGKILL, 11, 0, -1, 99] {
            assert_eq!(hub::dump_on(signal).unwrap_err().kind(), std::io::ErrorKind::InvalidInput, "{signal}");
        }
        extern "C" fn nothing(_: i32) {}
        // SAFETY: the handler does nothing.
        unsafe { nix::sys::signal::signal(Signal::SIGUSR1, nix::sys::signal::SigHandler::Handler(nothing)) }.unwrap();
        assert_eq!(hub::dump_on(SIGUSR1).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    });
    assert!(output.status.success(), "{}", common::stderr(&output));
}
