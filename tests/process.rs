//! Children: waited for without polling, stopped in time, never a hang and never a zombie that was not promised.
#![allow(unsafe_code)] // to take pidfds away from a process of its own, and to fork

mod child;
mod common;
mod traced;

use std::cell::Cell;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::io::{PipeReader, pipe};
use greenling::process::{Child, Command, Stdio};
use greenling::signal::{SIGKILL, SIGSTOP, SIGTERM};
use greenling::{TimeoutError, hub, no_switch, sleep, spawn, timeout, yield_now};
use traced::{note_thread, traced};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(20);

/// A shell that runs `script`.
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// A child that does not end by itself, and not without this test either.
fn sleeper() -> Child {
    let mut command = Command::new("sleep");
    // Nothing of this process, so that no reader waits for the end of its output if a test fails.
    command.arg("3600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().expect("sleep is everywhere")
}

/// Whether there is such a process, be it a zombie.
fn exists(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}

/// Whether it is a zombie.
fn is_zombie(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Lets green threads run until `done`.
#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < patience, "never: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// Returns a command that writes its id to a pipe and then never ends.
fn announced() -> (Command, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let mut command = shell("echo $$; exec sleep 3600 >/dev/null");
    command.stdout(writer);
    (command, reader)
}

/// What the announced command said.
fn announced_id(mut reader: PipeReader) -> u32 {
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        let mut byte = [0];
        assert_eq!(reader.read(&mut byte).unwrap(), 1);
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap().trim().parse().unwrap()
}

/// Calls a function when a panic drops it.
fn while_panicking(f: impl FnOnce()) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _last = common::OnDrop::new(|| {
            assert!(std::thread::panicking());
            f();
        });
        std::panic::resume_unwind(Box::new("expected"));
    }));
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"expected"));
}

#[test]
fn status_and_output_say_how_it_ended() {
    let _guard = common::guard();
    assert_eq!(shell("exit 3").status().unwrap().code(), Some(3));
    assert_eq!(shell("kill -9 $$").status().unwrap().signal(), Some(SIGKILL));
    let output = shell("echo out; echo err >&2; cat; exit 4").output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
}

#[test]
fn output_leaves_what_was_chosen_and_the_command_can_be_used_again() {
    let _guard = common::guard();
    let mut command = shell("echo out; echo err >&2");
    command.stderr(Stdio::null());
    for _ in 0..2 {
        let output = command.output().unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b""[..]));
    }
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn more_than_a_pipe_holds_on_each_of_two_pipes_is_no_deadlock() {
    let _guard = common::guard();
    // Errors first and then output, and the other way round; a pipe holds 64 KiB.
    for script in [
        "head -c 300000 /dev/zero >&2; head -c 300001 /dev/zero",
        "head -c 300001 /dev/zero; head -c 300000 /dev/zero >&2",
    ] {
        let output = shell(script).output().unwrap();
        assert!(output.status.success());
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_001, 300_000));
    }
}

#[test]
fn a_child_writes_to_what_std_would_let_it_write_to() {
    let _guard = common::guard();
    let path = std::env::temp_dir().join(format!("greenling-child-{}", std::process::id()));
    let file = greenling::fs::File::create(&path).unwrap();
    let second = file.try_clone().unwrap();
    let mut command = shell("echo out; echo err >&2");
    assert!(command.stdout(file).stderr(second).status().unwrap().success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "out\nerr\n");
    fs::remove_file(&path).unwrap();
    // The test's own output, to which nothing is written.
    let mut silent = shell("exit 0");
    silent.stdout(greenling::io::stdout()).stderr(greenling::io::stderr());
    assert!(silent.status().unwrap().success());
}

#[test]
fn errors_are_those_of_std() {
    let _guard = common::guard();
    let folder = std::env::temp_dir();
    let commands: [(&str, &[&str], &Path); 4] = [
        ("greenling-no-such-program", &[], &folder),
        ("sleep", &["\0"], &folder),
        ("sleep", &["0"], Path::new("/no/such/folder")),
        ("/etc/passwd", &[], &folder),
    ];
    for (program, args, folder) in commands {
        let theirs = std::process::Command::new(program).args(args).current_dir(folder).spawn().unwrap_err();
        let mut ours = Command::new(program);
        ours.args(args).current_dir(folder);
        for error in [ours.spawn().map(drop), ours.status().map(drop), ours.output().map(drop)] {
            let error = error.unwrap_err();
            assert_eq!((error.kind(), error.raw_os_error()), (theirs.kind(), theirs.raw_os_error()), "{program}");
        }
    }
}

#[test]
fn a_builder_is_what_std_has() {
    let _guard = common::guard();
    let mut command = shell("echo \"$A-$B-$C-$HOME\"; pwd");
    command.env_clear().env("A", "1").envs([("B", "2"), ("C", "3")]).env_remove("C").current_dir("/");
    assert_eq!(command.get_program(), "sh");
    assert_eq!(command.get_args().count(), 2);
    assert_eq!(command.get_envs().filter(|(_, value)| value.is_some()).count(), 2);
    assert_eq!(command.get_current_dir(), Some(Path::new("/")));
    assert!(format!("{command:?}").contains("\"sh\""));
    // Without PATH the shell has built-ins, and these are.
    assert_eq!(command.output().unwrap().stdout, b"1-2--\n/\n");
    let mut command = shell("echo $0");
    command.as_std_mut().arg0("sh");
    assert!(command.output().unwrap().status.success());
}

#[test]
fn others_run_while_a_child_is_waited_for() {
    let _guard = common::guard();
    let mut child = sleeper();
    let handle = child.handle();
    let turns = Rc::new(Cell::new(0));
    let counted = Rc::clone(&turns);
    let other = spawn(move || {
        for _ in 0..100 {
            counted.set(counted.get() + 1);
            yield_now();
        }
        handle.kill().unwrap();
    });
    assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
    assert_eq!(turns.get(), 100);
    other.join().unwrap();
}

#[test]
fn a_wait_with_a_limit_is_never_early_and_sees_the_end() {
    let _guard = common::guard();
    let mut child = sleeper();
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), None);
    let began = Instant::now();
    assert_eq!(child.wait_timeout(SHORT).unwrap(), None);
    assert!(began.elapsed() >= SHORT);
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    let status = child.wait_timeout(LONG).unwrap().expect("it was killed");
    // As often as one likes.
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), Some(status));
    assert_eq!(child.try_wait().unwrap(), Some(status));
    assert_eq!(child.wait().unwrap(), status);
    child.kill().expect("it has ended, which is no error");
    child.send_signal(SIGTERM).expect("the same");
}

#[test]
fn a_signal_reaches_the_child_and_a_wrong_one_is_refused() {
    let _guard = common::guard();
    let mut child = sleeper();
    child.send_signal(0).expect("0 only asks whether it is there");
    assert_eq!(child.send_signal(1000).unwrap_err().kind(), ErrorKind::InvalidInput);
    child.send_signal(SIGSTOP).unwrap();
    assert_eq!(child.wait_timeout(SHORT).unwrap(), None, "stopped is not ended");
    child.handle().send_signal(SIGTERM).unwrap();
    child.send_signal(greenling::signal::SIGCONT).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
}

#[test]
fn waiting_closes_the_standard_input() {
    let _guard = common::guard();
    let cat = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert!(cat().wait().unwrap().success());
    assert!(cat().wait_timeout(LONG).unwrap().unwrap().success());
    let mut child = cat();
    child.stdin.as_mut().unwrap().write_all(b"meow").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"meow");
}

#[test]
fn a_hundred_children_at_once_are_one_wait_each() {
    let _guard = common::guard();
    let began = Instant::now();
    let threads: Vec<_> = (0..100)
        .map(|number| {
            spawn(move || {
                let output = shell(&format!("read line; echo {number}; exit {}", number % 7));
                let mut command = output;
                let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
                yield_now(); // all are started before the first may end
                let stdin = child.stdin.take().unwrap();
                (&stdin).write_all(b"go\n").unwrap();
                child.wait_with_output().unwrap()
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let output = thread.join().unwrap();
        assert_eq!(output.status.code(), Some(number as i32 % 7));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{number}\n"));
    }
    println!("100 children: {:?}", began.elapsed());
}

#[test]
fn all_waiters_get_the_same_answer_in_order() {
    let _guard = common::guard();
    let mut child = sleeper();
    let log = common::Log::default();
    let threads: Vec<_> = (0..5)
        .map(|number| {
            let (handle, log) = (child.handle(), log.clone());
            spawn(move || {
                let status = handle.wait().unwrap();
                log.say(number);
                status
            })
        })
        .collect();
    sleep(Duration::from_millis(1));
    threads[1].kill();
    child.kill().unwrap();
    let status = child.wait().unwrap();
    for (number, thread) in threads.into_iter().enumerate() {
        match thread.join() {
            Ok(theirs) => assert_eq!(theirs, status),
            Err(error) => assert!(number == 1 && error.is_killed()),
        }
    }
    assert_eq!(log.text(), "0 2 3 4");
}

#[test]
fn a_wait_that_is_killed_or_timed_out_leaves_the_child_alone() {
    let _guard = common::guard();
    let mut child = sleeper();
    let handle = child.handle();
    let waiter = spawn(move || handle.wait().map(drop).unwrap());
    sleep(Duration::from_millis(1));
    waiter.kill();
    assert!(waiter.join().unwrap_err().is_killed());
    assert_eq!(timeout(SHORT, || child.wait().map(drop).unwrap()), Err(TimeoutError::Elapsed));
    assert_eq!(child.try_wait().unwrap(), None);
    child.send_signal(SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
}

/// A thousand wait for one child, some with a limit, some are killed, in an order that the seed decides.
#[test]
fn a_storm_of_kills_and_limits_costs_no_other_its_answer() {
    let _guard = common::guard();
    let mut random = common::Random::new();
    let threads_before = hub::live_threads();
    let mut child = sleeper();
    let answers = Rc::new(Cell::new(0));
    let mut threads = Vec::new();
    for _ in 0..1000 {
        let (handle, answers) = (child.handle(), Rc::clone(&answers));
        let limit = (random.below(3) == 0).then(|| Duration::from_micros(random.below(5_000)));
        let thread = spawn(move || {
            let status = match limit {
                Some(limit) => handle.wait_timeout(limit).unwrap(),
                None => Some(handle.wait().unwrap()),
            };
            assert!(status.is_none_or(|status| status.signal() == Some(SIGKILL)));
            answers.set(answers.get() + usize::from(status.is_some()));
        });
        threads.push((thread, limit.is_some()));
    }
    yield_now();
    let mut left = 0;
    for (at, (thread, limited)) in threads.iter().enumerate() {
        let killed = random.below(4) == 0 && thread.kill();
        left += usize::from(!killed && !limited);
        if at == 500 {
            child.kill().unwrap();
        }
        if random.below(50) == 0 {
            sleep(Duration::from_micros(random.below(500)));
        }
    }
    for (thread, _) in threads {
        assert!(thread.join().map_or_else(|error| error.is_killed(), |()| true));
    }
    // Those that were killed after the answer had come count too.
    assert!(answers.get() >= left, "{} answers for {left} threads that waited to the end", answers.get());
    assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
    assert_eq!(hub::live_threads(), threads_before);
}

#[test]
fn a_wait_does_not_suspend_inside_no_switch() {
    let _guard = common::guard();
    let mut child = sleeper();
    let result = catch_unwind(AssertUnwindSafe(|| no_switch(|| child.wait().map(drop))));
    assert!(result.is_err());
    child.kill().unwrap();
    child.wait().unwrap();
    no_switch(|| child.wait()).expect("that it ended is known");
}

#[test]
fn a_destructor_that_waits_while_unwinding_gets_an_error() {
    let _guard = common::guard();
    let mut child = sleeper();
    while_panicking(|| {
        assert_eq!(child.wait().unwrap_err().kind(), ErrorKind::Other);
        assert_eq!(child.wait_timeout(LONG).unwrap_err().kind(), ErrorKind::Other);
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
    });
    assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
    while_panicking(|| assert!(child.wait().is_ok(), "nothing to wait for"));
    // The child of a call that cannot wait is killed, and no zombie.
    let (mut command, reader) = announced();
    while_panicking(|| assert!(command.status().is_err()));
    drop(command);
    let mut text = String::new();
    let mut reader = reader;
    reader.read_to_string(&mut text).expect("the pipe ends, whether or not the shell came to write its id");
    if let Ok(id) = text.trim().parse() {
        until("it is gone", || !exists(id));
    }
    while_panicking(|| assert!(Command::new("sleep").arg("3600").output().is_err()));
    yield_now();
}

#[test]
fn output_and_status_that_are_interrupted_kill_their_child() {
    let _guard = common::guard();
    let threads_before = hub::live_threads();
    for captured in [false, true] {
        for limited in [false, true] {
            let (mut command, reader) = announced();
            let caller = spawn(move || {
                let call = || if captured { command.output().map(drop) } else { command.status().map(drop) };
                let _ = timeout(if limited { LONG } else { Duration::MAX }, call);
            });
            let id = announced_id(reader);
            assert!(exists(id) && !is_zombie(id));
            caller.kill();
            assert!(caller.join().unwrap_err().is_killed());
            until("it is gone and no zombie", || !exists(id));
        }
    }
    until("its helpers have ended", || hub::live_threads() == threads_before);
    assert_eq!(
        timeout(SHORT, || Command::new("sleep").arg("3600").status().map(drop)).unwrap_err(),
        TimeoutError::Elapsed
    );
}

#[test]
fn dropped_it_goes_on_unless_it_is_to_be_killed() {
    let _guard = common::guard();
    let child = Command::new("sleep").arg("3600").spawn().unwrap();
    let handle = child.handle();
    drop(child);
    assert_eq!(handle.wait_timeout(SHORT).unwrap(), None);
    handle.kill().unwrap();
    assert_eq!(handle.wait().unwrap().signal(), Some(SIGKILL));

    let child = sleeper();
    let (id, handle) = (child.id(), child.handle());
    let watcher = spawn(move || handle.wait().unwrap().signal());
    yield_now();
    drop(child);
    assert_eq!(watcher.join().unwrap(), Some(SIGKILL));
    until("nothing is left of it", || !exists(id));
}

#[test]
fn kill_on_drop_leaves_no_zombie_however_it_comes_to_the_drop() {
    let _guard = common::guard();
    // In a destructor during a panic.
    let child = sleeper();
    let id = child.id();
    while_panicking(move || drop(child));
    until("nothing is left of it", || !exists(id));
    // Inside `no_switch`.
    let child = sleeper();
    let id = child.id();
    no_switch(move || drop(child));
    until("nothing is left of it", || !exists(id));
    // The reaper is killed before it has started, by the end of the hub: the drop waits.
    let child = sleeper();
    let id = child.id();
    drop(child);
    hub::shutdown();
    assert!(!exists(id));
    // At the end of an OS thread: its main has one, and the reaper never starts; and so has a thread that waits for it,
    // and that has to be unwound while main is there.
    let ids = std::thread::spawn(|| {
        let child = sleeper();
        let other = sleeper();
        let ids = [child.id(), other.id()];
        drop(spawn(move || {
            let mut other = other;
            other.wait().map(drop)
        }));
        yield_now();
        assert_eq!(hub::shutdown(), 0);
        drop(child);
        ids
    });
    for id in ids.join().unwrap() {
        assert!(!exists(id), "the OS thread has ended");
    }
    // In a destructor of a thread-local, when the hub is gone.
    let id = std::thread::spawn(|| {
        thread_local! {
            static LAST: std::cell::RefCell<Option<Child>> = const { std::cell::RefCell::new(None) };
        }
        LAST.with(|last| *last.borrow_mut() = Some(sleeper()));
        yield_now();
        LAST.with(|last| last.borrow().as_ref().unwrap().id())
    });
    let id = id.join().unwrap();
    assert!(!exists(id), "the OS thread has ended");
}

#[test]
fn an_os_thread_that_ends_takes_its_waiters_out_and_leaves_the_child_alone() {
    let _guard = common::guard();
    let id = std::thread::spawn(|| {
        let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
        let id = child.id();
        drop(spawn(move || child.wait().map(drop)));
        yield_now();
        id
    });
    let id = id.join().unwrap();
    assert!(exists(id) && !is_zombie(id));
    // SAFETY: kill and waitpid take integers and a null pointer; the child is ours and not waited for (kill(2)).
    assert_eq!(unsafe { libc::kill(id as i32, SIGKILL) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::waitpid(id as i32, std::ptr::null_mut(), 0) }, id as i32);
}

/// Whether descriptor `fd` of process `id` is non-blocking.
fn is_nonblocking(id: u32, fd: i32) -> bool {
    let info = fs::read_to_string(format!("/proc/{id}/fdinfo/{fd}")).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_NONBLOCK != 0
}

#[test]
fn our_ends_are_nonblocking_and_the_childs_are_not() {
    use std::os::fd::AsRawFd;
    let _guard = common::guard();
    let me = std::process::id();
    let mut command = shell("echo ready; cat");
    command.kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    for fd in 0..3 {
        assert!(!is_nonblocking(child.id(), fd), "the child's {fd}");
    }
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for fd in [stdin.as_raw_fd(), stdout.as_raw_fd(), child.stderr.as_ref().unwrap().as_raw_fd()] {
        assert!(is_nonblocking(me, fd));
    }
    // Ends that are handed to another child are made blocking.
    let (reader, writer) = pipe().unwrap();
    assert!(is_nonblocking(me, reader.as_raw_fd()) && is_nonblocking(me, writer.as_raw_fd()));
    let mut second = Command::new("cat").stdin(stdout).stdout(writer).kill_on_drop(true).spawn().unwrap();
    let mut third = Command::new("cat").stdin(reader).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    for child in [&second, &third] {
        assert!(!is_nonblocking(child.id(), 0) && !is_nonblocking(child.id(), 1));
    }
    // And it is a pipeline: cat | cat | cat.
    (&stdin).write_all(b"through all three").unwrap();
    drop(stdin);
    let mut text = String::new();
    third.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "through all three");
    for child in [&mut child, &mut second, &mut third] {
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_child_that_std_started_can_be_taken_over() {
    let _guard = common::guard();
    let mut std = std::process::Command::new("cat");
    let mut child = Child::from(std.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut stdout = child.stdout.take().unwrap();
    let reader = spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    yield_now();
    child.stdin.take().unwrap().write_all(b"green").unwrap();
    assert_eq!(reader.join().unwrap(), "green");
    assert!(child.wait().unwrap().success());
}

/// Set in a child: the file into which it writes the number of its hub's OS thread.
const TRACED: &str = "GREENLING_PROCESS_TRACED";

#[test]
fn waiting_for_children_makes_no_polling() {
    const TEST: &str = "waiting_for_children_makes_no_polling";
    const CHILDREN: usize = 10;
    if let Some(file) = std::env::var_os(TRACED) {
        note_thread(&file);
        let threads: Vec<_> = (0..CHILDREN)
            .map(|_| spawn(|| assert!(Command::new("sleep").arg("0.5").status().unwrap().success())))
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        std::process::exit(0);
    }
    let _guard = common::guard();
    let Some(trace) = traced(TEST, TRACED) else { return };
    let count = |names: &[&str]| trace.count(names);
    let asked = count(&["wait4", "waitid", "waitpid"]);
    let waits = count(&["epoll_wait", "epoll_pwait", "epoll_pwait2"]);
    println!("{CHILDREN} children: asked {asked} times, {waits} waits, {} pidfds", count(&["pidfd_open"]));
    assert_eq!(count(&["pidfd_open"]), CHILDREN);
    // Before the pidfd is made, before the wait, and after it; once more if a tracer still had it.
    assert!(asked <= 4 * CHILDREN, "asked {asked} times");
    assert!(waits <= 6 * CHILDREN, "{waits} waits");
    assert!(!trace.lines.iter().any(|line| line.contains("rt_sigaction(SIGCHLD")), "no handler of SIGCHLD");
}

// ---- in processes of their own --------------------------------------------------------------------------------------

/// Runs as a role of `child` below, not for ever.
fn in_a_process(role: &str) {
    let _guard = common::guard();
    let output = child::run(role, "");
    assert!(output.status.success(), "{}\n{}\n{}", output.status, child::out(&output), child::err(&output));
    assert!(child::out(&output).contains("all well"), "it ran");
}

#[test]
fn a_kernel_without_pidfds_is_a_clear_error_and_the_child_is_still_there() {
    in_a_process("no pidfds");
}

#[test]
fn a_program_that_ignores_sigchld_gets_the_error_of_std() {
    in_a_process("sigchld ignored");
}

#[test]
fn a_wait_without_descriptors_fails_and_can_be_repeated() {
    in_a_process("no descriptors");
}

#[test]
fn a_fork_does_not_kill_its_parents_children() {
    in_a_process("fork");
}

/// Makes pidfd_open say ENOSYS in this OS thread and those it starts, as a kernel before 5.3 does.
fn forbid_pidfds() {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    // The number of the call is the first word of what the filter sees.
    let mut filter = [
        libc::sock_filter { code: load, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: jump, jt: 0, jf: 1, k: libc::SYS_pidfd_open as u32 },
        libc::sock_filter { code: give, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 },
        libc::sock_filter { code: give, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: this option takes integers (PR_SET_NO_NEW_PRIVS(2const)).
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the kernel reads the program and its instructions, which live until the call returns
    // (PR_SET_SECCOMP(2const)).
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Sets how many descriptors may be open; returns how many before.
fn limit_descriptors(count: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the limit, which lives until the call returns (getrlimit(2)).
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let before = std::mem::replace(&mut limit.rlim_cur, count);
    // SAFETY: the kernel reads the limit, which lives until the call returns (setrlimit(2)).
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    before
}

/// Does nothing unless this process was started by one of the tests above.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let _guard = common::guard();
    match role.as_str() {
        "no pidfds" => {
            forbid_pidfds();
            let mut child = sleeper();
            for _ in 0..2 {
                let error = child.wait().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(error.to_string().contains("pidfd_open"), "{error}");
            }
            assert_eq!(child.try_wait().unwrap(), None);
            child.kill().unwrap();
            until("it has ended", || child.handle().try_wait().unwrap().is_some());
            assert!(child.wait().is_ok());
            // The drop that kills waits by itself.
            let child = sleeper();
            let id = child.id();
            drop(child);
            until("nothing is left of it", || !exists(id));
            assert_eq!(Command::new("sleep").arg("3600").status().unwrap_err().kind(), ErrorKind::Unsupported);
            // Its output has come to the end, but it has not.
            assert_eq!(shell("exec sleep 3600 >&- 2>&-").output().unwrap_err().kind(), ErrorKind::Unsupported);
        }
        "sigchld ignored" => {
            // SAFETY: SIG_IGN is an action for SIGCHLD (signal(2)).
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            let theirs = std::process::Command::new("true").spawn().unwrap().wait().unwrap_err();
            assert_eq!(theirs.raw_os_error(), Some(libc::ECHILD));
            assert_eq!(Command::new("true").status().unwrap_err().raw_os_error(), Some(libc::ECHILD));
            let mut late = Command::new("sleep").arg("0.1").spawn().unwrap();
            assert_eq!(late.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
            assert!(late.try_wait().is_err() && late.send_signal(SIGTERM).is_err());
        }
        "no descriptors" => {
            let mut child = sleeper();
            sleep(Duration::from_millis(1)); // the hub has its own
            let before = limit_descriptors(3);
            assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(libc::EMFILE));
            limit_descriptors(before);
            assert_eq!(child.wait_timeout(SHORT).unwrap(), None);
            child.kill().unwrap();
            child.wait().unwrap();
        }
        "fork" => {
            let child = sleeper();
            let handle = child.handle();
            // SAFETY: the copy drops one value, which asks for its own id and nothing else, and ends (fork(2)).
            let copy = unsafe { libc::fork() };
            if copy == 0 {
                drop(child);
                // SAFETY: it ends the copy at once (_exit(2)).
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: the kernel fills the status, which lives until the call returns (waitpid(2)).
            assert_eq!(unsafe { libc::waitpid(copy, &raw mut status, 0) }, copy);
            assert_eq!(status, 0);
            assert_eq!(handle.wait_timeout(SHORT).unwrap(), None, "it goes on");
            drop(child);
            assert_eq!(handle.wait().unwrap().signal(), Some(SIGKILL));
        }
        other => panic!("what is {other:?}?"),
    }
    println!("all well");
}
