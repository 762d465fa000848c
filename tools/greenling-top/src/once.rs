//! The snapshot as plain text: for scripts, for bug reports, and for tests.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::agent::{Agent, clean_lines};
use crate::rows::{self, list};

/// The rows of each part.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The groups, and the threads that have waited longest.
    pub rows: u64,
    /// The stacks that most threads have.
    pub stacks: u64,
}

/// Returns what the threads of a program do, as text.
///
/// # Errors
/// What the agent says, or the connection.
pub fn snapshot(agent: &mut Agent, most: Rows) -> Result<String, String> {
    let hubs = agent.ask(&json!({"get": "hubs"}))?;
    let groups = agent.ask(&json!({"get": "groups", "limit": most.rows}))?;
    let threads = agent.ask(&json!({"get": "threads", "sort": "waited", "limit": most.rows}))?;
    let stacks = agent.ask(&json!({"get": "stacks", "limit": most.stacks}))?;
    let mut text = format!("{}: {} and {}\n\n", agent.greeting, counted(list(&hubs, "hubs").len() as u64, "hub"), {
        counted(groups["threads"].as_u64().unwrap_or(0), "thread")
    });
    text += &rows::lines(&rows::hubs(&hubs));
    list(&hubs, "hubs").iter().for_each(|hub| text += &rows::hub_details(hub));
    text += &silent([&hubs, &groups, &threads, &stacks]);
    for (title, answer, name, table) in [
        ("threads that do the same", &groups, "groups", rows::groups(&groups)),
        ("threads, the longest waits first", &threads, "threads", rows::threads(&threads)),
    ] {
        let _ = write!(text, "\n== {title}: {}\n{}", of(answer, name), rows::lines(&table));
    }
    let _ = write!(text, "\n== stacks: {}\n", of(&stacks, "stacks"));
    for row in list(&stacks, "stacks") {
        let threads = counted(row["count"].as_u64().unwrap_or(0), "thread");
        let _ = writeln!(text, "{threads} of hub {}:\n{}", row["hub"], rows::stack(row).trim_end());
    }
    // The tables are clean; the rest of what an agent may say is not.
    Ok(clean_lines(&text))
}

/// Returns a line about hubs that are missing in some part, since they have not answered in time.
fn silent(answers: [&Value; 4]) -> String {
    let hubs: BTreeSet<u64> =
        answers.iter().flat_map(|answer| list(answer, "silent")).filter_map(Value::as_u64).collect();
    if hubs.is_empty() {
        return String::new();
    }
    let hubs: Vec<String> = hubs.iter().map(u64::to_string).collect();
    format!("busy, and not in all parts: hub {}\n", hubs.join(", "))
}

/// Returns how many of how many rows there are.
fn of(answer: &Value, name: &str) -> String {
    format!("{} of {}", list(answer, name).len(), answer["total"])
}

/// Returns a number of things.
pub fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hubs_that_are_missing_in_some_part_are_named_once() {
        let [none, one, two] = [json!({"silent": []}), json!({"silent": [7, 2]}), json!({"silent": [2]})];
        assert_eq!(silent([&none, &json!({}), &none, &json!(null)]), "");
        assert_eq!(silent([&none, &one, &two, &none]), "busy, and not in all parts: hub 2, 7\n");
    }
}
