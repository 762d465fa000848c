//! The answers of an agent as tables of texts: what the terminal, the snapshot and their tests show.

use serde_json::Value;

use crate::agent::{clean, clean_lines};

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The names of the columns.
    pub head: &'static [&'static str],
    /// Which columns are numbers, and stand at the right.
    pub right: &'static [bool],
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

/// Returns a time in words of three digits or so.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.1} min", s / 60.0),
        s if s < 86400.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86400.0),
    }
}

/// Returns a size in KiB.
fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}

/// Returns a number, or nothing.
fn number(row: &Value, name: &str) -> String {
    row[name].as_u64().map_or_else(String::new, |number| number.to_string())
}

/// Returns a time, or nothing.
fn seconds(row: &Value, name: &str) -> String {
    row[name].as_f64().map_or_else(String::new, time)
}

/// Returns a text of one line, or nothing.
fn text(row: &Value, name: &str) -> String {
    clean(row[name].as_str().unwrap_or_default())
}

/// Returns a text of several lines, or nothing.
fn texts(row: &Value, name: &str) -> String {
    clean_lines(row[name].as_str().unwrap_or_default())
}

/// Returns the rows of an answer.
pub fn list<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

/// Returns the table of the hubs.
pub fn hubs(answer: &Value) -> Table {
    let rows = list(answer, "hubs").iter().map(|row| {
        let os_thread = match row["name"].as_str() {
            Some(name) => format!("{} {:?}", number(row, "os_thread"), clean(name)),
            None => number(row, "os_thread"),
        };
        let state = if row["answered"] == true { "turns" } else { "busy" };
        vec![
            number(row, "hub"),
            os_thread,
            state.to_owned(),
            number(row, "live"),
            number(row, "runnable"),
            number(row, "waiting"),
            seconds(row, "longest_turn"),
            seconds(row, "held_up"),
        ]
    });
    Table {
        head: &["HUB", "OS THREAD", "STATE", "THREADS", "RUNNABLE", "WAITING", "LONGEST TURN", "HELD UP"],
        right: &[true, false, false, true, true, true, true, true],
        rows: rows.collect(),
    }
}

/// Returns what more is to be said of a hub: what holds it up, and threads that wait for each other.
pub fn hub_details(row: &Value) -> String {
    let held = texts(row, "held");
    let cycle = texts(row, "cycle");
    let mut details = String::new();
    if !held.is_empty() {
        details += &format!("hub {} has not answered: {}\n", number(row, "hub"), held.trim_end());
    }
    if !cycle.is_empty() {
        details += &format!("hub {}: {}\n", number(row, "hub"), cycle.trim());
    }
    details
}

/// Returns the table of the groups.
pub fn groups(answer: &Value) -> Table {
    let rows = list(answer, "groups").iter().map(|row| {
        let count = number(row, "count");
        let all = text(row, "text");
        // A group of one has the text of its thread, without a count.
        let what = all.strip_prefix(&format!("{count} ")).filter(|_| count != "1").unwrap_or(&all);
        vec![count, seconds(row, "most"), what.to_owned()]
    });
    Table { head: &["COUNT", "LONGEST", "WHAT THEY DO"], right: &[true, true, false], rows: rows.collect() }
}

/// Returns the table of the threads. The number of the hub is part of the id if there are several hubs.
pub fn threads(answer: &Value) -> Table {
    let all = list(answer, "threads");
    let several = all.iter().any(|row| row["hub"] != all[0]["hub"]);
    let rows = all.iter().map(|row| {
        let id = if several { format!("{}.{}", row["hub"], row["id"]) } else { number(row, "id") };
        let name = if row["kind"] == "main" { String::from("main") } else { text(row, "name") };
        let killed = if row["killed"] == true { ", to be killed" } else { "" };
        vec![
            id,
            name,
            seconds(row, "waited"),
            row["stack_used"].as_u64().map_or_else(String::new, kib),
            text(row, "does") + killed,
            text(row, "place"),
        ]
    });
    Table {
        head: &["ID", "NAME", "WAITED", "STACK", "WHAT IT DOES", "SPAWNED AT"],
        right: &[true, false, true, true, false, false],
        rows: rows.collect(),
    }
}

/// Returns the table of the stacks: the innermost frame of each.
pub fn stacks(answer: &Value) -> Table {
    let rows = list(answer, "stacks")
        .iter()
        .map(|row| vec![number(row, "count"), number(row, "hub"), innermost(&texts(row, "text"))]);
    Table { head: &["COUNT", "HUB", "INNERMOST FRAME"], right: &[true, true, false], rows: rows.collect() }
}

/// Returns the innermost frame of a stack, with its place.
fn innermost(stack: &str) -> String {
    let mut lines = stack.lines().map(str::trim);
    let frame = lines.next().and_then(|line| line.split_once(": ")).map_or("", |(_, name)| name);
    match lines.next().filter(|line| line.starts_with("at ")) {
        Some(place) => format!("{frame} {place}"),
        None => frame.to_owned(),
    }
}

/// Returns the stack of a row, or of an answer.
pub fn stack(row: &Value) -> String {
    texts(row, "text")
}

/// Returns the table of the counters: a row for each, a column for each hub.
pub fn metrics(answer: &Value) -> Table {
    let hubs = list(answer, "metrics");
    let names = [
        "live",
        "runnable",
        "runnable_max",
        "spawned",
        "polls",
        "epoll_calls",
        "epoll_events",
        "timers",
        "timers_fired",
        "remote_ops",
        "stacks_in_use",
        "stacks_warm",
        "stacks_cold",
        "stacks_made",
    ];
    let times = ["longest_turn", "held_up", "age"];
    let total = |name: &str| hubs.iter().filter_map(|hub| hub[name].as_u64()).sum::<u64>().to_string();
    let each = |name: &'static str, show: fn(&Value, &str) -> String, all: String| {
        let hubs = hubs.iter().map(|hub| format!("{:<12}", show(hub, name))).collect::<String>();
        vec![name.replace('_', " "), all, hubs.trim_end().to_owned()]
    };
    let most = |name: &str| time(hubs.iter().filter_map(|hub| hub[name].as_f64()).fold(0.0, f64::max));
    let rows = names.iter().map(|name| each(name, number, total(name)));
    let rows = rows.chain(times.iter().map(|name| each(name, seconds, most(name))));
    Table { head: &["COUNTER", "ALL HUBS", "HUB BY HUB"], right: &[false, true, false], rows: rows.collect() }
}

/// Returns the table of the latest events of a trace, the last one first.
pub fn events(answer: &Value) -> Table {
    let rows = list(answer, "latest").iter().rev().map(|row| {
        let at = format!("+{:.3} ms", row["at"].as_f64().unwrap_or(0.0) * 1e3);
        vec![at, number(row, "hub"), text(row, "thread"), text(row, "does")]
    });
    Table { head: &["AT", "HUB", "THREAD", "EVENT"], right: &[true, true, false, false], rows: rows.collect() }
}

/// Returns a table as lines of text, of which the last column may be as long as it is.
pub fn lines(table: &Table) -> String {
    let mut widths: Vec<usize> = table.head.iter().map(|name| name.chars().count()).collect();
    for row in &table.rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head: Vec<String> = table.head.iter().map(|name| (*name).to_owned()).collect();
    let mut lines = String::new();
    for row in [&head].into_iter().chain(&table.rows) {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(&widths).zip(table.right) {
            let cell = if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line += &cell;
            line += "  ";
        }
        lines += line.trim_end();
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        assert_eq!(
            [0.0, 0.0351, 1.25, 90.0, 5400.0, 180_000.0].map(time),
            ["0 ms", "35 ms", "1.2 s", "1.5 min", "1.5 h", "2.1 d"]
        );
    }

    #[test]
    fn columns_of_numbers_stand_at_the_right() {
        let answer = serde_json::json!({"groups": [
            {"count": 8990, "most": 812.0, "text": "8990 wait until a connection can be read"},
            {"count": 1, "text": "main is running\u{1b}[2J"},
        ]});
        let expected = "COUNT   LONGEST  WHAT THEY DO\n 8990  13.5 min  wait until a connection can be read\n    1            main is running\u{fffd}[2J\n";
        assert_eq!(lines(&groups(&answer)), expected);
    }

    #[test]
    fn a_name_with_a_line_feed_makes_no_row_of_its_own() {
        let row = serde_json::json!({"id": 7, "name": "a\n 8  main", "does": "x\r\ny", "place": "p\n"});
        let table = threads(&serde_json::json!({"threads": [row]}));
        assert_eq!(lines(&table).lines().count(), 2, "{table:?}");
        assert_eq!(table.rows[0][1], "a\u{fffd} 8  main");
        // What has several lines keeps them.
        assert_eq!(stack(&serde_json::json!({"text": "0: a\n1: b\u{1b}\n"})), "0: a\n1: b\u{fffd}\n");
    }

    #[test]
    fn answers_without_what_is_expected_are_empty_tables() {
        for table in [hubs, groups, threads, stacks, events] {
            for odd in [serde_json::json!({}), serde_json::json!([]), serde_json::json!({"hubs": 7, "threads": null})] {
                assert!(table(&odd).rows.is_empty());
            }
            let rows = serde_json::json!([null, 7, {}]);
            let odd =
                serde_json::json!({"hubs": rows, "groups": rows, "threads": rows, "stacks": rows, "latest": rows});
            assert_eq!(table(&odd).rows.len(), 3);
        }
    }

    #[test]
    fn a_stack_is_named_by_its_innermost_frame() {
        assert_eq!(
            innermost("   0: server::read\n             at src/main.rs:7:9\n   1: x\n"),
            "server::read at src/main.rs:7:9"
        );
        assert_eq!(innermost("   0: server::read\n   1: x\n"), "server::read");
        assert_eq!(innermost(""), "");
    }
}
