//! The page in `docs/` is one that the program writes: the same page around the data, and in the data the same switch.
//! What the compiler makes of Rust differs from one version to the next; corosensei's assembly does not.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The file, from the folder of this package.
const CHECKED_IN: &str = "../../docs/anatomy.html";

/// The elements around the data.
const BEGIN: &str = "<script type=\"application/json\" id=\"data\">\n";
const END: &str = "\n</script>";

/// Runs the program, and returns what it prints; none if this machine does not let it trace.
fn run(arguments: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_anatomy")).args(arguments).stdin(Stdio::null()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("EPERM") {
        println!("SKIPPED: {complaint}");
        return None;
    }
    assert!(output.status.success(), "{complaint}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Takes a page apart: what is before the data, the data, what is behind.
fn parts(page: &str) -> (&str, Value, &str) {
    let (before, rest) = page.split_once(BEGIN).expect("the element of the data");
    let (data, after) = rest.split_once(END).expect("its end");
    (before, serde_json::from_str(data).expect("JSON"), after)
}

/// The page in `docs/`.
fn checked_in() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(CHECKED_IN)).unwrap()
}

/// The instructions of corosensei's assembly in the order of their execution: file, line and text.
fn assembly(data: &Value) -> Vec<(&str, &str)> {
    let steps = data["steps"].as_array().unwrap().iter();
    let lines = steps.filter_map(|step| step["assembly"].as_array());
    lines.map(|line| (line[0].as_str().unwrap(), line[1].as_str().unwrap())).collect()
}

/// The text of the instructions of corosensei's assembly.
const SWITCHES: [&str; 16] = [
    // Main resumes the greenlet,
    "push rbx",
    "call [rdx]",
    // which goes on at label 2.
    "push rbp",
    "mov [rsi - 16], rsp",
    "lea rsp, [rdx + 8]",
    "pop rbx",
    "pop rbp",
    // The greenlet suspends,
    "push rbp",
    "push rbx",
    "lea rax, [rip + 2f]",
    "push rax",
    "mov rsi, rsp",
    "mov rsp, [rdx]",
    "pop rbp",
    "ret",
    // and main goes on behind its call.
    "pop rbx",
];

#[test]
fn the_page_in_docs_is_what_the_program_writes() {
    let Some(written) = run(&[]) else { return };
    let (page, (before, data, after)) = (checked_in(), parts(&written));
    let (its_before, its_data, its_after) = parts(&page);
    assert!((before, after) == (its_before, its_after), "write it anew: cargo run --release > {CHECKED_IN}");
    assert_eq!(assembly(&data), assembly(&its_data), "write it anew: cargo run --release > {CHECKED_IN}");
    for name in ["boxes", "names", "sent"] {
        assert_eq!(data[name], its_data[name], "{name}");
    }
}

#[test]
fn a_switch_and_its_way_back_are_the_instructions_of_chapter_2() {
    let Some(data) = run(&["--json"]) else { return };
    let data: Value = serde_json::from_str(&data).unwrap();
    let text: Vec<&str> = assembly(&data).into_iter().map(|(_, text)| text).collect();
    assert_eq!(text, SWITCHES);
}

#[test]
fn the_stack_changes_twice_and_the_value_comes_through_the_mailbox() {
    let Some(data) = run(&["--json"]) else { return };
    let data: Value = serde_json::from_str(&data).unwrap();
    let sp = data["names"].as_array().unwrap().iter().position(|name| name == "rsp").unwrap();
    let rows = data["rows"].as_array().unwrap();
    let is_greenlets = |value: &Value| value.as_str().unwrap().starts_with("base");
    let (mut changes, mut on_greenlet) = (Vec::new(), is_greenlets(&data["registers"][sp]));
    let (mut sent, mut answered) = (None, None);
    for step in data["steps"].as_array().unwrap() {
        for change in step["registers"].as_array().unwrap().iter().filter(|change| change[0] == sp) {
            if is_greenlets(&change[1]) != on_greenlet {
                on_greenlet = !on_greenlet;
                changes.push(step["text"].as_str().unwrap());
            }
        }
        for written in step["writes"].as_array().unwrap() {
            let name = &rows[written[0].as_u64().unwrap() as usize];
            match written[1].as_str().unwrap() {
                "41" if sent.is_none() => sent = Some((name[0].clone(), on_greenlet)),
                "42" if answered.is_none() => answered = Some((name[0].clone(), on_greenlet)),
                _ => {}
            }
        }
    }
    assert_eq!(changes, ["lea rsp, [rdx+8]", "mov rsp, [rdx]"]);
    if !cfg!(debug_assertions) {
        // Written into the other one's stack by the sender, on its own. A debug build has more copies of it.
        assert_eq!((sent, answered), (Some((1.into(), false)), Some((0.into(), true))));
    }
}

#[test]
fn two_runs_write_the_same_page() {
    assert_eq!(run(&[]), run(&[]));
}

#[test]
fn the_page_needs_nothing_else() {
    let page = checked_in();
    for word in ["http:", "https:", "src=", "href=", "@import", "url(", "fetch("] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn wrong_arguments_get_one_clear_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_anatomy")).arg("stray").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "anatomy: stray is not understood (try --help)\n");
}
