//! Programs that may open hardly any descriptors: each works, or says in one line why not.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::built::example;
use crate::support::{Running, check_width, limit_descriptors};

/// How many programs run at the same time. They mostly wait.
const AT_ONCE: usize = 4;

/// Below this limit the loader fails.
pub(crate) const FEWEST: u64 = 4;

/// Runs each program with each limit, several at a time.
pub(crate) fn check_all(programs: &[String], limits: impl Iterator<Item = u64> + Clone) {
    let cases: Vec<(&str, u64)> =
        limits.flat_map(|limit| programs.iter().map(move |name| (&name[..], limit))).collect();
    // The first call may build them.
    programs.iter().for_each(|name| drop(example(name)));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(&(name, limit)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(name, limit, &run_for_a_moment(name, limit));
                }
            });
        }
    });
}

/// Returns the exit status, standard output and standard error. A server ends by the signal.
fn run_for_a_moment(name: &str, limit: u64) -> (ExitStatus, String, String) {
    let args: &[&str] = match name {
        "greenlet_ping_pong" => &["--rounds", "1", "--delay", "1ms"],
        "sleep_interleave" => &["--delay", "1ms"],
        "offload_hash" => &["--rounds", "1"],
        "cpu_or_io" => &["--wait", "1ms", "--below", "10"],
        "concurrent_fetch" => &["--delay", "1ms"],
        "pool_crawler" => &["--delay", "1ms", "--pages", "3"],
        "run_commands" => &["--limit", "100ms"],
        "patched_clients" => &["--clients", "3"],
        "resolve_names" => &["127.0.0.1"],
        "book_traces" => &["park"],
        "break" => &["--list"],
        "gossip" => &["--hosts", "2"],
        "quiz" => &["wakeup", "--answer"],
        "debugging" => &["leak"],
        "trace_echo" => &["--folder", env!("CARGO_TARGET_TMPDIR")],
        "echo_client" | "echo_load" => &["--addr", "127.0.0.1:9"],
        "server_models" => &["--model", "green", "--addr", "127.0.0.1:0"],
        "echo_server"
        | "echo_std_patched"
        | "echo_threads"
        | "echo_threads_patched"
        | "port_forwarder"
        | "udp_echo" => &["--addr", "127.0.0.1:0"],
        _ => &[],
    };
    let mut command = Command::new(example(name));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    limit_descriptors(&mut command, limit);
    let mut child = Running(command.spawn().unwrap());
    let mut out = child.0.stdout.take().unwrap();
    let mut said = Vec::new();
    let mut buf = [0; 4096];
    // The first line of a server says that the server is there.
    while let Ok(count) = out.read(&mut buf) {
        said.extend_from_slice(&buf[..count]);
        if count == 0 || said.starts_with(b"listening on ") || said.starts_with(b"chat on ") {
            break;
        }
    }
    if !said.is_empty() && is_server(name) {
        child.signal(libc::SIGTERM);
    }
    let (status, mut complaints) = (child.wait(), String::new());
    child.0.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    (status, String::from_utf8(said).unwrap(), complaints)
}

/// Returns what a program calls itself: one of them is another to the last byte.
pub(crate) fn own_name(example: &str) -> &str {
    if example == "echo_threads_patched" { "echo_threads" } else { example }
}

/// Reports whether a program ends only when told to.
fn is_server(name: &str) -> bool {
    let std = name.starts_with("echo_std") || name.starts_with("echo_threads");
    std || matches!(name, "chat_server" | "echo_server" | "port_forwarder" | "server_models" | "udp_echo")
}

/// Asserts that a program did its work, or failed with one line that begins with the program's name.
#[track_caller]
fn check(name: &str, limit: u64, (status, said, complaints): &(ExitStatus, String, String)) {
    let what = format!("{name}, {limit} descriptors: {status}, {said:?}, {complaints:?}");
    match (status.code(), status.signal()) {
        // A server may say that there is no descriptor for a client.
        (Some(0), _) | (_, Some(libc::SIGTERM)) => assert!(complaints.lines().count() <= 1, "{what}"),
        (Some(1), _) => {
            assert_eq!(complaints.lines().count(), 1, "{what}");
            assert!(complaints.starts_with(&format!("{}: ", own_name(name))), "{what}");
        }
        _ => panic!("{what}"),
    }
    check_width(complaints.lines().chain(said.lines()));
}
