//! The example `patched_clients`, as a reader runs it.
#![forbid(unsafe_code)]

use std::process::{Command, Output};

use greenling_crates::servers::Server;
use greenling_crates::{output_of, stderr, stdout};

/// Runs the example, which is built first: that may take longer than it may run.
fn example(args: &[&str]) -> Output {
    let cargo = |what| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/heavy"));
        command.args([what, "--quiet", "--locked", "--features", "monkey", "--bin", "patched_clients"]);
        command
    };
    assert!(cargo("build").status().unwrap().success(), "the example does not build");
    let mut command = cargo("run");
    command.arg("--").args(args);
    output_of(command)
}

/// What it printed, without the lines that depend on the machine.
fn answers(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(output));
    let text = stdout(output);
    text.lines().filter(|line| !line.contains("took")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn patched_clients_asks_for_all_pages_at_once() {
    let expected = "ureq: 300 answers, 1800 bytes, 300 at the same time\n";
    assert_eq!(answers(&example(&["--clients", "300"])), expected);
}

#[test]
fn patched_clients_asks_a_redis_as_well() {
    let Some(server) = Server::redis() else { return };
    let said = answers(&example(&["--clients", "20", "--redis", &server.addr.to_string()]));
    let [pages, pings] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert_eq!(pages, "ureq: 20 answers, 120 bytes, 20 at the same time");
    // A Redis answers so fast that the first may have its answer before the last has asked.
    let most = pings.strip_prefix("redis: 20 answers, 80 bytes, ").and_then(|rest| rest.split_once(' '));
    let most: u32 = most.expect("how many at the same time").0.parse().expect("a number");
    assert!((2..=20).contains(&most), "{pings}");
}

#[test]
fn patched_clients_says_in_one_line_what_is_wrong() {
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--clients", "0"], 2, "--clients 0: not a whole number, 1 or more"),
        (&["--redis"], 2, "--redis needs a value"),
        (&["one", "two"], 2, "two"),
        (&["http://127.0.0.1:1/"], 1, "ureq: io: Connection refused"),
    ];
    for (args, code, what) in cases {
        let output = example(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.starts_with("patched_clients: ") && said.contains(what), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
