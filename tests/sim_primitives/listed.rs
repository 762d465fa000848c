//! The list of all calls that may wait, taken from the sources: each is made in a scenario.

use std::fs;
use std::path::Path;

/// Where the calls are that wait for nothing outside of a hub.
const SOURCES: [&str; 10] =
    ["bridge.rs", "channel", "group", "hub/channel", "hub/sync", "interrupt.rs", "select", "sync", "thread", "time.rs"];

/// The scenarios.
const SCENARIOS: [&str; 5] = [
    include_str!("channels.rs"),
    include_str!("groups.rs"),
    include_str!("locks.rs"),
    include_str!("shared.rs"),
    include_str!("threads.rs"),
];

/// Adds to `found` the names of the functions in `path` of which the documentation says that they may switch.
fn find(path: &Path, found: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            find(&entry.unwrap().path(), found);
        }
        return;
    }
    let text = fs::read_to_string(path).unwrap();
    let mut may_switch = false;
    for line in text.lines().map(str::trim_start) {
        if let Some(text) = line.strip_prefix("/// May switch: ") {
            may_switch = !text.starts_with("no");
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            let name = line.strip_prefix("pub fn ").map(|name| name.split(['(', '<']).next().unwrap());
            found.extend(name.filter(|_| may_switch).map(str::to_owned));
            may_switch = false;
        }
    }
}

/// Reports whether a scenario calls a function of that name, or passes it on.
fn is_called(name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    SCENARIOS.iter().any(|text| {
        text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            before.is_some_and(|c| !is_part(c))
                && !text[..at].ends_with("fn ")
                && text[at + name.len()..].starts_with(['(', ')'])
        })
    })
}

#[test]
fn every_call_that_may_wait_has_a_scenario() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    SOURCES.iter().for_each(|path| find(&source.join(path), &mut found));
    assert!(found.len() > 100, "{} calls", found.len());
    let missing: Vec<_> = found.iter().filter(|name| !is_called(name)).collect();
    assert!(missing.is_empty(), "no scenario calls {missing:?}");
}
