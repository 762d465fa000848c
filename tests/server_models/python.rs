//! The Python programs beside the models: the same promises, and what they print of the documents' mistakes.
//!
//! They need `python3`, or the interpreter that the variable `GREENLING_PYTHON` names; two of them need the packages
//! `greenlet` and `gevent`. What is not there is skipped, and said, unless `GREENLING_NEED_PYTHON` is set.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::{env, fs};

use crate::support::Server;
use crate::{Model, model, models};

/// Where the programs are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/server_models/python");

/// A model in Python as most are.
pub(crate) const fn script(name: &'static str) -> Model {
    Model { script: Some(name), ..model("python") }
}

models! { SCRIPTS;
    blocking: Model { concurrent: false, ..script("01_blocking.py") },
    process: Model { forks: true, ..script("02_process.py") },
    thread: script("03_thread.py"),
    nonblocking: Model { sleeps: false, ..script("04_nonblocking.py") },
    select: script("05_select.py"),
    select_stdin: script("06_select_stdin.py"),
    poll: script("07_poll.py"),
    epoll_lt: script("08_epoll_lt.py"),
    epoll_et: script("09_epoll_et.py"),
    greenlet: script("10_greenlet.py"),
    gevent: script("11_gevent.py"),
}

/// Returns a command that runs Python, and leaves no compiled files in the repository.
fn python() -> Command {
    let mut command = Command::new(env::var_os("GREENLING_PYTHON").unwrap_or_else(|| "python3".into()));
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(FOLDER);
    command
}

/// Whether Python has a module.
fn has(module: &str) -> bool {
    let mut command = python();
    command.args(["-c", &format!("import {module}")]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The modules beside the standard library that the programs need, and that are not there.
static MISSING: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let missing: Vec<&str> = ["sys", "greenlet", "gevent"].into_iter().filter(|module| !has(module)).collect();
    assert!(missing.is_empty() || env::var_os("GREENLING_NEED_PYTHON").is_none(), "Python has no {missing:?}");
    missing
});

/// Whether a model is not in Python, or can run here. Says what is missing.
pub(crate) fn can_run(model: Model) -> bool {
    let Some(script) = model.script else { return true };
    let needed = ["sys", if script == "10_greenlet.py" { "greenlet" } else { "sys" }, "gevent"];
    let needed = &needed[..if script == "11_gevent.py" { 3 } else { 2 }];
    let missing = needed.iter().find(|module| MISSING.contains(module));
    if let Some(module) = missing {
        println!("SKIPPED: {script} needs python3 with the module {module}");
    }
    missing.is_none()
}

/// Starts one of the programs, on a free port unless `args` say where.
pub(crate) fn start(script: &str, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
    let mut command = python();
    command.arg(script).args(args).stdin(Stdio::null());
    if !args.contains(&"--addr") {
        command.args(["--addr", "127.0.0.1:0"]);
    }
    prepare(&mut command);
    Server::of(command)
}

/// A program that is not in the table would not be tested.
#[test]
fn every_rung_in_python_is_tested() {
    let tested: BTreeSet<_> = SCRIPTS.iter().filter_map(|model| model.script.map(str::to_owned)).collect();
    let files = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let rungs: BTreeSet<_> = files.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert_eq!(tested, rungs);
}

/// Runs one of the other programs to its end, with some input; returns what it prints, or `None` if it needs a module
/// that is not there.
fn output(script: &str, args: &[&str], input: &str, module: &str) -> Option<String> {
    if let Some(module) = ["sys", module].into_iter().find(|module| MISSING.contains(module)) {
        println!("SKIPPED: {script} needs python3 with the module {module}");
        return None;
    }
    let mut command = python();
    command.arg(script).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{script}: {}", String::from_utf8_lossy(&ended.stderr));
    Some(String::from_utf8(ended.stdout).unwrap())
}

#[test]
fn the_mistakes_do_what_the_page_says() {
    let Some(printed) = output("mistakes.py", &[], "", "sys") else { return };
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ladder.md")).unwrap();
    let shown = page.split("mistakes.py\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(printed, shown);
}

#[test]
fn two_greenlets_take_turns() {
    if let Some(printed) = output("greenlet_ping_pong.py", &["--rounds", "2"], "", "greenlet") {
        assert_eq!(printed, "---A--\n---B--\n---A--\n---B--\n");
    }
}

#[test]
fn gevent_switches_where_something_waits() {
    let (without, with) =
        (output("gevent_turns.py", &[], "", "gevent"), output("gevent_turns.py", &["--sleep"], "", "gevent"));
    if let (Some(without), Some(with)) = (without, with) {
        assert_eq!(without, "A 0\nA 1\nA 2\nB 0\nB 1\nB 2\nC 0\nC 1\nC 2\n");
        assert_eq!(with, "A 0\nB 0\nC 0\nA 1\nB 1\nC 1\nA 2\nB 2\nC 2\n");
    }
}

#[test]
fn the_client_prints_what_comes_back() {
    if MISSING.contains(&"sys") {
        return;
    }
    let server = start("08_epoll_lt.py", &[], |_| {});
    let long = "x".repeat(100_000);
    let printed = output("echo_client.py", &[&server.addr.to_string()], &format!("123\n\n{long}\n345\n"), "sys");
    assert_eq!(printed.unwrap(), format!("123\n{long}\n345\n"));
}

#[test]
fn the_measurement_prints_a_row_for_each_number_of_idle_clients() {
    let python = python().get_program().to_str().unwrap().to_owned();
    for server in ["02_process.py", "05_select.py"] {
        let args = ["--idle", "0,3", "--requests", "20", "--", &python, server, "--addr", "127.0.0.1:0", "--quiet"];
        let Some(printed) = output("measure.py", &args, "", "sys") else { return };
        let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
        for (row, idle) in rows.iter().zip(["0", "3"]) {
            assert_eq!((row[0], row[1], &row[3..]), (idle, "idle:", &["us", "an", "answer"][..]));
            assert!(row[2].parse::<f64>().unwrap() > 0.0, "{row:?}");
        }
        assert_eq!(rows.len(), 2);
    }
}

#[test]
fn a_wrong_command_line_ends_with_one_clear_line() {
    for (script, args, complaint) in [
        ("05_select.py", &["--addr", "nonsense"][..], "05_select.py: error: nonsense is not HOST:PORT"),
        ("05_select.py", &["--addr", "127.0.0.1:99999"], "05_select.py: error: 127.0.0.1:99999 is not HOST:PORT"),
        ("echo_client.py", &["127.0.0.1:x"], "usage: echo_client.py [HOST:PORT]"),
        (
            "measure.py",
            &["--idle", "x", "true"],
            "measure.py: error: argument --idle: invalid list of numbers value: 'x'",
        ),
    ] {
        if MISSING.contains(&"sys") {
            return;
        }
        let ended = python().arg(script).args(args).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success(), "{script} {args:?}");
        assert_eq!(said.lines().last(), Some(complaint), "{script} {args:?}");
    }
}
