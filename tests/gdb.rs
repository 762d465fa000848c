//! gdb and lldb, with the scripts `tools/gdb/greenling.py` and `tools/lldb/greenling.py`: green threads of a live process
//! and of a core file, and a program with threads of own thread-locals that goes on as if no debugger had been there.
//!
//! ```text
//!   a test --> gdb --batch --> this program again, with the one test `debuggee`
//!               | break at `breakpoint_here`, source the script, commands, gcore
//!               `--> gdb --batch, with the core file: the same commands
//! ```
//!
//! What is asked is what a program built as usual has: line tables, no types.
#![allow(unsafe_code)]

mod common;

use std::cell::Cell;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use greenling::thread::{Builder, current, own_thread_locals_supported, park};
use greenling::{Greenlet, hub, spawn, yield_now};

/// How long lldb may take, in seconds: it reads all symbols first.
const LLDB_LIMIT: &str = "60";

/// Held by a test that runs a debugger: two at a time would be slow on a busy machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits for the other tests of debuggers, and then watches this one.
fn alone() -> (MutexGuard<'static, ()>, common::Guard) {
    (ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner), common::guard())
}

/// Set for the child that gdb runs.
const ROLE: &str = "GREENLING_GDB_DEBUGGEE";

thread_local! {
    /// What a thread has left here: the OS thread 1, the thread with thread-locals of its own 17.
    static GDB_MARK: Cell<u64> = const { Cell::new(0) };
}

/// Where gdb stops.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn breakpoint_here() {
    black_box(());
}

/// Parks; the frame that a backtrace must have.
#[inline(never)]
fn waits_for_an_unpark(depth: u32) -> u32 {
    if depth == 0 {
        park();
        return black_box(1);
    }
    // Not the last call, so that no frame is reused.
    black_box(waits_for_an_unpark(depth - 1) + 1)
}

/// Leaves a mark in the thread-locals, and parks.
#[inline(never)]
fn waits_with_own_locals() -> u64 {
    GDB_MARK.set(17);
    park();
    black_box(GDB_MARK.get())
}

/// Writes a thread-local; for a breakpoint in a thread that has its own.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn leaves_its_mark(mark: u64) {
    black_box(());
    GDB_MARK.set(mark);
    black_box(());
}

/// Switches away, and is switched to again.
#[inline(never)]
fn waits_in_a_switch() -> i64 {
    black_box(Greenlet::<i64>::main().switch(1)) + 1
}

/// Stops in gdb while another green thread has this one resumed, or main.
#[inline(never)]
fn stops_in_a_green_thread() {
    breakpoint_here();
    black_box(());
}

/// Runs gdb with these commands, on this program or on a core file of it, and returns what it printed. None, with a
/// message, if there is no gdb.
fn gdb(commands: &[&str], core: Option<&Path>) -> Option<String> {
    let script = concat!("source ", env!("CARGO_MANIFEST_DIR"), "/tools/gdb/greenling.py");
    let settings = ["set confirm off", "set width 0", "set pagination off", "set python print-stack full", script];
    let mut command = Command::new("gdb");
    command.args(["-batch", "-nx"]).env(ROLE, "1").env_remove("DEBUGINFOD_URLS");
    for each in settings.iter().chain(commands) {
        command.args(["-ex", each]);
    }
    let program = std::env::current_exe().unwrap();
    match core {
        Some(core) => command.arg(program).arg(core),
        None => command.arg("--args").arg(program).args(["--exact", "debuggee", "--ignored", "--nocapture"]),
    };
    let there = Command::new("gdb").args(["-batch", "-ex", "python print(40 + 2)"]).output();
    if !there.is_ok_and(|output| output.stdout.starts_with(b"42")) {
        assert!(std::env::var_os("GREENLING_NEED_GDB").is_none(), "no gdb, or one without Python");
        eprintln!("skipped: no gdb, or one without Python");
        return None;
    }
    let output = common::output_of(command);
    let printed = common::stdout(&output) + &common::stderr(&output);
    if printed.contains("ptrace: Operation not permitted") || printed.contains("Could not trace the inferior") {
        assert!(std::env::var_os("GREENLING_NEED_GDB").is_none(), "gdb may not trace: {printed}");
        eprintln!("skipped: gdb may not trace");
        return None;
    }
    Some(printed)
}

/// Returns what was printed between this heading and the next.
fn part<'a>(printed: &'a str, heading: &str) -> &'a str {
    let marker = format!("== {heading}\n");
    let Some((_, rest)) = printed.split_once(&marker) else { panic!("no {heading:?} in:\n{printed}") };
    rest.split("\n== ").next().unwrap_or(rest)
}

/// Checks that a part has all of these, in this order.
#[track_caller]
fn has(printed: &str, heading: &str, expected: &[&str]) {
    let mut rest = part(printed, heading);
    for each in expected {
        let Some((_, after)) = rest.split_once(each) else {
            panic!("no {each:?}, or not there, in {heading:?}:\n{}", part(printed, heading))
        };
        rest = after;
    }
}

/// Whether this test program has threads with thread-locals of their own.
fn own() -> bool {
    own_thread_locals_supported().is_ok()
}

/// What is asked at the first stop, of the process and of the core file.
const QUESTIONS: &[&str] = &[
    "echo \\n== list\\n",
    "green",
    "echo \\n== reader\\n",
    "green reader bt",
    "echo \\n== by number\\n",
    "green 1.2",
    "bt",
    "up",
    "info registers rip rsp",
    "green",
    "echo \\n== greenlet\\n",
    "green 1.3 bt",
    "echo \\n== elsewhere\\n",
    "green elsewhere bt",
    "echo \\n== own\\n",
    "green own bt",
    "green own tls GDB_MARK",
    "echo \\n== off\\n",
    "green off",
    "bt 2",
    "green tls GDB_MARK",
    "green nothing",
    "green 9.9",
    "green tls NO_SUCH_VARIABLE",
    "echo \\n== main\\n",
    "green main",
    "echo \\n== all\\n",
    "green all bt",
];

/// Checks the answers to [`QUESTIONS`].
fn check_answers(printed: &str) {
    let parked = "is parked, waiting for an unpark";
    has(printed, "list", &["hub 1: OS thread ", "#1.1 main is running\n"]);
    has(printed, "list", &["#1.2 \"reader\" ", parked, ", spawned at tests/gdb.rs:"]);
    has(printed, "list", &["#1.3 greenlet waits in a switch to #1, spawned at tests/gdb.rs:"]);
    has(printed, "list", &["hub 2: OS thread ", "#2.1 main ", "#2.2 \"elsewhere\" ", parked]);
    // Four calls of one function, inside the closure, to the end of the stack and not beyond.
    let function = "waits_for_an_unpark";
    let stack = &["#1 ", function, function, function, function, "debuggee", "stack_init_trampoline"];
    has(printed, "reader", stack);
    assert!(!part(printed, "reader").contains("corrupt"), "{}", part(printed, "reader"));
    has(printed, "by number", &["#1.2 \"reader\"", "#0 ", "breakpoint_here", "#1 ", function, "#2 ", "rip ", "* #1.2"]);
    has(printed, "greenlet", &["waits_in_a_switch"]);
    has(printed, "elsewhere", &[function, "debuggee"]);
    has(printed, "off", &["#0 ", "breakpoint_here", "debuggee", "GDB_MARK = 1\n"]);
    for complaint in [
        "green: there is no green thread nothing; `green` lists them",
        "green: there is no green thread 9.9; `green` lists them",
        "green: no thread-local variable of the program is named NO_SUCH_VARIABLE",
    ] {
        assert!(printed.contains(complaint), "{printed}");
    }
    // Two are main: that of the selected OS thread.
    has(printed, "main", &["breakpoint_here"]);
    has(printed, "all", &["#1.1 main", "debuggee", "#1.2 ", function, "#2.2 ", function]);
    if own() {
        has(printed, "own", &["waits_with_own_locals", "GDB_MARK = 17\n"]);
    }
    assert!(!printed.contains("Traceback"), "{printed}");
}

/// Later stops: a green thread in which a deputy waits, and one with thread-locals of its own.
fn check_later_stops(printed: &str) {
    has(printed, "inner", &["#1.1 main waits for the end of #", "\"deputy\"", "\"inner\" is running"]);
    has(printed, "inner stack", &["breakpoint_here", "stops_in_a_green_thread"]);
    has(printed, "deputy stack", &["#1 ", "yields_to_others", "debuggee"]);
    // From inside the loop that it runs.
    has(printed, "main stack", &["#1 ", "switch_and_link", "drive", "debuggee"]);
    if own() {
        has(
            printed,
            "stops",
            &["\"stops\" is running", "breakpoint_here", "stops_in_a_green_thread", "GDB_MARK = 23\n"],
        );
        // Sorted by id, and each once.
        let lines = part(printed, "stops").lines();
        let parked =
            lines.filter_map(|line| line.strip_prefix("  #1.")?.split_once(" is parked, waiting for an unpark"));
        let ids: Vec<u32> = parked.filter_map(|(id, _)| id.parse().ok()).collect();
        assert!(ids.len() == 600 && ids.is_sorted_by(|one, other| one < other), "{ids:?}");
        has(printed, "many", &["   600: #1.", ", .. is parked, waiting for an unpark, spawned at tests/gdb.rs:"]);
        has(printed, "stops threads", &["breakpoint_here"]);
    }
}

#[test]
fn gdb_shows_green_threads_of_a_process_and_of_its_core_file_and_changes_nothing() {
    let _alone = alone();
    if cfg!(any(feature = "sanitizer", not(target_arch = "x86_64"))) {
        eprintln!("skipped: tried on x86-64, without AddressSanitizer");
        return;
    }
    let core = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("gdb-{}.core", std::process::id()));
    let save = format!("green gcore {}", core.display());
    let mut commands = vec!["break breakpoint_here", "run"];
    commands.extend(QUESTIONS);
    commands.extend(["echo \\n== core\\n", &save, "continue"]);
    commands.extend(["echo \\n== inner\\n", "green", "echo \\n== inner stack\\n", "green inner bt"]);
    commands.extend(["echo \\n== deputy stack\\n", "green deputy bt", "echo \\n== main stack\\n", "green 1 bt"]);
    // The view goes when the program runs.
    commands.extend(["green deputy", "continue", "echo \\n== stops\\n"]);
    if own() {
        commands.extend(["green list", "bt", "green tls GDB_MARK", "echo \\n== many\\n", "green"]);
        commands.extend(["echo \\n== stops threads\\n", "info threads", "continue"]);
    }
    let Some(printed) = gdb(&commands, None) else { return };
    check_answers(&printed);
    check_later_stops(&printed);
    assert!(printed.contains("debuggee: all is well\n"), "{printed}");
    assert!(printed.contains("exited normally]"), "{printed}");
    let dead = gdb(QUESTIONS, Some(&core));
    let _ = std::fs::remove_file(&core);
    check_answers(&dead.expect("gdb was there"));
}

/// As a person does, without the script: a thread with thread-locals of its own is a thread of another thread pointer, and
/// gdb asks the C library's libthread_db about threads.
#[test]
fn a_program_goes_on_after_gdb_has_stopped_it_in_a_thread_with_thread_locals_of_its_own() {
    let _alone = alone();
    if cfg!(feature = "sanitizer") || !own() {
        eprintln!("skipped: no threads with thread-locals of their own, or AddressSanitizer");
        return;
    }
    let commands = [
        "break leaves_its_mark",
        "run",
        "echo \\n== first\\n",
        "bt",
        "info threads",
        "thread apply all bt 3",
        "next",
        "step",
        "print 6 * 7",
        "finish",
        "echo \\n== second\\n",
        "continue",
    ];
    let Some(printed) = gdb(&commands, None) else { return };
    has(&printed, "first", &["leaves_its_mark", "debuggee", "Thread 0x", "$1 = 42"]);
    assert!(printed.contains("debuggee: all is well\n"), "{printed}");
    assert!(printed.contains("exited normally]"), "{printed}");
}

/// Runs lldb with its script and these commands, on the debuggee or on a core file; no command may fail. None, and a line
/// that says so, where there is no lldb with Python, none that may start a process, or a very busy machine.
fn lldb(commands: &[&str], core: Option<&Path>) -> Option<String> {
    let path = lldb_modules()?;
    let mut command = Command::new("timeout");
    command
        .args([LLDB_LIMIT, "lldb", "--batch", "--no-lldbinit"])
        .env(ROLE, "1")
        .env_remove("DEBUGINFOD_URLS")
        .envs(path);
    let script = concat!("command script import ", env!("CARGO_MANIFEST_DIR"), "/tools/lldb/greenling.py");
    for each in [script].iter().chain(commands) {
        command.args(["-o", each]);
    }
    if let Some(core) = core {
        command.arg("--core").arg(core);
    }
    command.arg("--").arg(std::env::current_exe().unwrap());
    if core.is_none() {
        command.args(["--exact", "debuggee", "--ignored", "--nocapture"]);
    }
    let output = common::output_of(command);
    if output.status.code() == Some(124) {
        eprintln!("skipped: lldb took more than {LLDB_LIMIT} s");
        return None;
    }
    let printed = common::stdout(&output) + &common::stderr(&output);
    if ["process launch failed", "personality", "Operation not permitted"].iter().any(|text| printed.contains(text)) {
        eprintln!("skipped: lldb may not start a process");
        return None;
    }
    Some(printed)
}

/// Returns the variable by which lldb finds its Python modules: none where it finds them by itself. Debian's does not.
fn lldb_modules() -> Option<Option<(&'static str, PathBuf)>> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places = vec![None];
    for llvm in entries(Path::new("/usr/lib")) {
        let modules = entries(&llvm.join("lib")).map(|python| python.join("dist-packages"));
        places.extend(
            modules.filter(|path| path.join("lldb/__init__.py").exists()).map(|path| Some(("PYTHONPATH", path))),
        );
    }
    let works = |place: &Option<(&'static str, PathBuf)>| {
        let mut command = Command::new("lldb");
        command.args(["--batch", "--no-lldbinit", "-o", "script print(40 + 2)"]).envs(place.clone());
        command.output().is_ok_and(|output| output.stdout.split(|byte| *byte == b'\n').any(|line| line == b"42"))
    };
    let found = places.into_iter().find(works);
    if found.is_none() {
        eprintln!("skipped: no lldb, or one without Python");
    }
    found
}

/// What lldb is asked at the first stop, of the process and of the core file.
const LLDB_QUESTIONS: &[&str] = &[
    "script print('\\n== list')",
    "green",
    "script print('\\n== reader')",
    "green reader bt",
    "script print('\\n== by number')",
    "green 1.2",
    "thread list",
    "green",
    "script print('\\n== greenlet')",
    "green 1.3 bt",
    "script print('\\n== elsewhere')",
    "green elsewhere bt",
    "script print('\\n== off')",
    "green off",
    "thread list",
    "bt 3",
    "script print('\\n== all')",
    "green all bt",
    "green all",
    "script print('\\n== threads')",
    "thread list",
    "green off",
];

/// Checks the answers to [`LLDB_QUESTIONS`].
fn check_lldb_answers(printed: &str) {
    let (parked, function) = ("is parked, waiting for an unpark", "waits_for_an_unpark");
    has(printed, "list", &["hub 1: OS thread ", "#1.1 main is running\n"]);
    has(
        printed,
        "list",
        &["#1.2 \"reader\" ", parked, ", spawned at tests/gdb.rs:", "#1.3 greenlet waits in a switch"],
    );
    has(printed, "list", &["hub 2: OS thread ", "#2.1 main ", "#2.2 \"elsewhere\" ", parked]);
    // Each call of the function is a frame, and the stack ends where the runtime began it.
    has(printed, "reader", &[function, function, function, function, "debuggee", "stack_init_trampoline"]);
    has(printed, "by number", &["#1.2 \"reader\" ", parked, "tid = 4294967298, ", "* #1.2 "]);
    has(printed, "greenlet", &["waits_in_a_switch"]);
    has(printed, "elsewhere", &[function, "debuggee"]);
    has(printed, "off", &["breakpoint_here"]);
    assert!(!part(printed, "off").contains("tid = 42949"), "{}", part(printed, "off"));
    has(printed, "all", &["#1.1 main is running", "breakpoint_here", "#1.2 ", function, "#2.2 ", function]);
    has(printed, "threads", &["tid = 4294967298, ", "tid = 4294967299, ", "tid = 8589934594, "]);
    assert!(!printed.contains("Traceback"), "{printed}");
}

#[test]
fn lldb_shows_green_threads_of_a_process_and_changes_nothing() {
    let _alone = alone();
    if cfg!(any(feature = "sanitizer", not(target_arch = "x86_64"))) {
        eprintln!("skipped: tried on x86-64, without AddressSanitizer");
        return;
    }
    let mut commands = vec!["breakpoint set --name breakpoint_here", "run"];
    commands.extend(LLDB_QUESTIONS);
    commands.extend(["continue", "script print('\\n== inner')", "green", "green deputy bt", "continue"]);
    if own() {
        commands.push("continue");
    }
    let Some(printed) = lldb(&commands, None) else { return };
    check_lldb_answers(&printed);
    has(
        &printed,
        "inner",
        &["#1.1 main waits for the end of #", "\"inner\" is running", "yields_to_others", "debuggee"],
    );
    assert!(printed.contains("debuggee: all is well"), "{printed}");
    assert!(printed.contains("exited with status = 0"), "{printed}");
}

/// Only gdb can write a core file here.
#[test]
fn lldb_shows_green_threads_of_a_core_file() {
    let _alone = alone();
    if cfg!(any(feature = "sanitizer", not(target_arch = "x86_64"))) || lldb_modules().is_none() {
        eprintln!("skipped: no lldb, or not tried there");
        return;
    }
    let core = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("lldb-{}.core", std::process::id()));
    if gdb(&["break breakpoint_here", "run", &format!("green gcore {}", core.display()), "kill"], None).is_some() {
        let printed = lldb(LLDB_QUESTIONS, Some(&core));
        let _ = std::fs::remove_file(&core);
        printed.iter().for_each(|printed| check_lldb_answers(printed));
    }
}

#[test]
#[ignore = "run by gdb"]
fn debuggee() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    GDB_MARK.set(1);
    let reader = Builder::new().name("reader".into()).spawn(|| waits_for_an_unpark(3)).unwrap();
    let greenlet = Greenlet::<i64>::new(|_| waits_in_a_switch());
    assert_eq!(greenlet.switch(0), 1);
    let own = own_thread_locals_supported()
        .ok()
        .map(|()| Builder::new().name("own".into()).own_thread_locals().spawn(waits_with_own_locals).unwrap());
    // A hub on another OS thread.
    let (tell, told) = mpsc::channel();
    let elsewhere = std::thread::spawn(move || {
        let waiting = Builder::new().name("elsewhere".into()).spawn(|| waits_for_an_unpark(0)).unwrap();
        yield_now();
        tell.send(current()).unwrap();
        park();
        waiting.thread().unpark();
        waiting.join().unwrap()
    });
    let other_main = told.recv().unwrap();
    yield_now();
    breakpoint_here();
    // In a thread that a deputy has resumed: two yields, of which the second is from inside the first's loop.
    let deputy = Builder::new().name("deputy".into()).spawn(|| {
        let inner = Builder::new().name("inner".into()).spawn(stops_in_a_green_thread).unwrap();
        yields_to_others();
        inner.join().unwrap();
    });
    deputy.unwrap().join().unwrap();
    // More than one chunk of stacks.
    let many: Vec<_> = (0..600).map(|_| spawn(park)).collect();
    yield_now();
    if let Some(own) = own {
        let stops = Builder::new().name("stops".into()).own_thread_locals().spawn(|| {
            leaves_its_mark(23);
            stops_in_a_green_thread();
            GDB_MARK.get()
        });
        assert_eq!(stops.unwrap().join().unwrap(), 23);
        own.thread().unpark();
        assert_eq!(own.join().unwrap(), 17);
    }
    many.iter().for_each(|thread| thread.thread().unpark());
    many.into_iter().for_each(|thread| thread.join().unwrap());
    reader.thread().unpark();
    assert_eq!(reader.join().unwrap(), 4);
    assert_eq!(greenlet.switch(5), 6);
    assert_eq!(spawn(|| GDB_MARK.get()).join().unwrap(), 1);
    other_main.unpark();
    assert_eq!(elsewhere.join().unwrap(), 1);
    assert_eq!(hub::live_threads(), 0);
    println!("debuggee: all is well");
}

/// Lets others run.
#[inline(never)]
fn yields_to_others() {
    yield_now();
    black_box(());
}
