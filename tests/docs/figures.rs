//! Figures with a way back: what a bench writes by `--json` has a stable form, the book's own figures are files of this
//! form, and a section of the documents that has a measured figure names the command that prints it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{assert_none, chapters, documents, files_of, prose, read, root};

#[path = "../../benches/results/mod.rs"]
#[allow(dead_code, reason = "the benches note and write")]
mod results;

/// The folder of the book's own figures.
const FIGURES: &str = "docs/figures";

/// What a file of figures has, and each row of it. Another form needs another number in `SCHEMA`.
const FIELDS: [&str; 13] = [
    "bench",
    "command",
    "commit",
    "compiler",
    "cores",
    "date",
    "kernel",
    "load",
    "others",
    "processor",
    "rows",
    "schema",
    "steal",
];
const ROW: [&str; 6] = ["high", "low", "median", "name", "unit", "values"];

/// What a row may have besides: the peers' rows have all values.
const MORE: [&str; 2] = ["ratio", "rounds"];

/// The keys of a JSON object.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().map(|of| of.keys().map(String::as_str).collect()).unwrap_or_default();
    keys.sort_unstable();
    keys
}

/// What is wrong with the form of a file of figures.
fn check_form(name: &str, text: &str) -> Vec<String> {
    let Ok(file) = serde_json::from_str::<Value>(text) else { return vec![format!("{name} is no JSON")] };
    let mut complaints = Vec::new();
    if keys(&file) != FIELDS || file["schema"] != results::SCHEMA {
        complaints.push(format!("{name} has the fields {:?}", keys(&file)));
    }
    let rows = file["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        complaints.push(format!("{name} has no rows"));
    }
    for row in rows {
        let is_more = |field: &str| MORE.contains(&field) && (row[field].is_number() || row[field].is_array());
        let fields: Vec<&str> = keys(row).into_iter().filter(|field| !is_more(field)).collect();
        let [low, median, high] = ["low", "median", "high"].map(|field| row[field].as_f64().unwrap_or(f64::NAN));
        if fields != ROW || low > median || median > high || low.is_nan() || median.is_nan() || high.is_nan() {
            complaints.push(format!("{name} has a row {row}"));
        }
    }
    complaints
}

#[test]
fn a_file_of_figures_has_a_stable_form() {
    let row = |name: &str, values: &[f64], ratio| results::Row {
        name: name.to_owned(),
        unit: "ns".to_owned(),
        values: values.to_vec(),
        ratio,
    };
    let machine = results::Machine { load: 0.25, others: 0.0, steal: 0.01 };
    let rows = [row("a \"b\"", &[3.0, 1.0, 2.0, 4.0, 5.0], Some(1.5)), row("c", &[1234567.0], None)];
    let text = results::text("switch", &machine, &rows);
    assert_none(&check_form("it", &text));
    let file: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(file["rows"][0]["name"], "a \"b\"");
    let figures = ["low", "median", "high", "ratio"].map(|field| file["rows"][0][field].as_f64());
    assert_eq!(figures, [Some(2.0), Some(3.0), Some(4.0), Some(1.5)]);
    assert_eq!(file["rows"][1]["median"].as_f64(), Some(1234567.0));
    assert_eq!((file["load"].as_f64(), file["steal"].as_f64()), (Some(0.25), Some(0.01)));
    let mut arguments = ["x", "--json"].map(str::to_owned).to_vec();
    assert_eq!(results::take_option("switch", &mut arguments), Err("--json wants a file".to_owned()));
    let moments = [0, 951_782_400, 1_796_083_200 + 3660].map(results::date);
    assert_eq!(moments, ["1970-01-01 00:00 UTC", "2000-02-29 00:00 UTC", "2026-12-01 01:01 UTC"]);
}

/// What `benches/peers/json.awk` makes of a run's facts and values.
fn of_peers(facts: &str, values: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (facts_file, values_file) = (folder.join("facts.tsv"), folder.join("results.tsv"));
    fs::write(&facts_file, facts).expect("a file is written");
    fs::write(&values_file, values).expect("a file is written");
    let program = root().join("benches/peers/json.awk");
    let output = Command::new("awk").args(["-F", "\t", "-f"]).arg(program).arg(facts_file).arg(values_file).output();
    let output = output.expect("there is awk");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

#[test]
fn the_peers_script_writes_that_form_too() {
    let facts = "bench\tpeers\ncommand\tbenches/peers/run \"a\\b\"\ndate\td\ncommit\tc\nprocessor\tp\ncores\t2\n\
                 kernel\t6.1\ncompiler\tr\nload\t0.5\nothers\t0.1\nsteal\t0\n";
    // Round, row, peer, value, what ratios are made of, unit, note. The second round goes backwards.
    let values = "1\tyield/2\tgreenling\t2\t2\tns\t\n1\tyield/2\tgo\t8\t8\tns\t\n2\tyield/2\tgo\t12\t12\tns\t\n\
                  2\tyield/2\tgreenling\t3\t3\tns\t\n3\tyield/2\tgreenling\t40\t40\tns\t\n1\tmemory\tmay\t-\t-\t\tfailed\n\
                  1\techo-cpu/50\tgreenling\t5000\t1.0\tns\t\n1\techo-cpu/50\tgo\t9000\t1.5\tns\twith a note\n";
    let text = of_peers(facts, values);
    assert_none(&check_form("it", &text));
    let file: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&file["command"], &file["load"]), (&Value::from("benches/peers/run \"a\\b\""), &Value::from(0.5)));
    let rows = file["rows"].as_array().expect("rows");
    let said = rows.iter().map(|row| {
        let number = |field: &str| row[field].as_f64().expect("a number");
        (row["name"].as_str().expect("a name"), number("median"), number("ratio"), row["rounds"].to_string())
    });
    let said: Vec<_> = said.collect();
    let expected = [
        ("yield/2/greenling", 3.0, 1.0, "[2,3,40]".to_owned()),
        ("yield/2/go", 10.0, 4.0, "[8,12]".to_owned()),
        ("echo-cpu/50/greenling", 5000.0, 1.0, "[5000]".to_owned()),
        // Not of the values, but of their ratios to the C loop.
        ("echo-cpu/50/go", 9000.0, 1.5, "[9000]".to_owned()),
    ];
    assert_eq!(said, expected);
}

#[test]
fn the_peers_script_finds_a_bad_path_before_it_measures() {
    let script = root().join("benches/peers/run");
    for (words, error) in [
        (&["--json"][..], "--json wants a file"),
        (&["--json", "--quick"], "--json wants a file"),
        (&["--json", "/no/such/folder/a.json"], "--json /no/such/folder/a.json: cannot be written"),
        (&["--json", "/"], "--json /: cannot be written"),
    ] {
        let output = Command::new(&script).args(words).output().expect("there is bash");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = format!("benches/peers/run: {error} (try --help)\n");
        assert_eq!((output.status.code(), said), (Some(2), expected));
    }
}

#[test]
fn the_books_figures_are_files_of_that_form() {
    let mut benches = BTreeSet::new();
    for file in files_of(FIGURES) {
        let text = read(&file);
        assert_none(&check_form(&file, &text));
        let bench = serde_json::from_str::<Value>(&text).expect("JSON")["bench"].as_str().expect("a name").to_owned();
        assert_eq!(file, format!("{FIGURES}/{bench}.json"));
        // A bench of cargo, or a script.
        let programs = [format!("benches/{bench}.rs"), format!("benches/{bench}/run")];
        assert!(programs.iter().any(|program| root().join(program).exists()), "{file}");
        benches.insert(bench);
    }
    assert!(benches.is_superset(&["memory", "switch"].map(str::to_owned).into()), "{benches:?}");
}

#[test]
fn complains_about_forms() {
    assert_eq!(check_form("f", "x"), ["f is no JSON"]);
    assert_eq!(check_form("f", "{}"), ["f has the fields []", "f has no rows"]);
    let machine = results::Machine { load: 0.0, others: 0.0, steal: 0.0 };
    let rows = [results::Row { name: "a".to_owned(), unit: "ns".to_owned(), values: vec![1.0], ratio: None }];
    let text = results::text("switch", &machine, &rows).replace("\"low\": 1.000", "\"low\": 2");
    assert_eq!(check_form("f", &text).len(), 1, "{text}");
}

/// The words by which a section says that its figures have no command. They are for what was measured with a program that
/// is gone, and so they may not become more.
const NO_COMMAND: &str = "o command prints";

/// How many sections may say so.
const WITHOUT: usize = 3;

/// The sections of a document: heading and text. A heading in a block of code is none.
fn sections(text: &str) -> Vec<(String, String)> {
    let mut sections = vec![(String::new(), String::new())];
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if line.starts_with('#') && !fenced {
            sections.push((line.to_owned(), String::new()));
        } else {
            let (_, text) = sections.last_mut().expect("there is one");
            *text += &format!("{line}\n");
        }
    }
    sections
}

/// A text in one line.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The measured figures of a section, outside of code: a number with a unit that is no setting, such as `2.6 ns`.
fn figures(text: &str) -> Vec<String> {
    let text = prose(text).replace('\n', " ");
    let words: Vec<&str> = text.split([' ', '|', '(']).filter(|word| !word.is_empty()).collect();
    let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(['^', '`']);
    let is_decimal = |word: &str| is_number(word) && word.contains('.');
    let pairs = words.windows(2).filter(|pair| {
        let unit = pair[1].trim_end_matches(|c: char| !c.is_alphanumeric() && c != '%');
        match unit {
            "ns" | "us" | "µs" | "nanoseconds" | "microseconds" | "instructions" => is_number(pair[0]),
            "KiB" | "times" | "%" | "x" | "GB/s" => is_decimal(pair[0]),
            _ => false,
        }
    });
    pairs.map(|pair| pair.join(" ")).collect()
}

/// The commands that a text names, in spans and in blocks.
fn commands(text: &str) -> Vec<String> {
    let begins = ["cargo bench", "cargo run", "cargo test", "benches/peers/run", "benches/servers/run", "benches/c10k"];
    let is_command = |span: &str| begins.iter().any(|begin| span.starts_with(begin));
    let spans = prose(text).replace('\n', " ");
    let spans = spans.split('`').skip(1).step_by(2).map(str::to_owned);
    let lines = text.lines().map(|line| line.trim().trim_start_matches("$ ").to_owned());
    let named = spans.chain(lines).map(|span| joined(&span));
    named
        .map(|span| span.trim_start_matches("GREENLING_CONSOLE=1 ").to_owned())
        .filter(|span| is_command(span))
        .collect()
}

/// Sections with measured figures and neither a command nor the words that there is none.
fn check_ways_back(document: &str, text: &str) -> Vec<String> {
    let sections = sections(text).into_iter().filter(|(heading, text)| {
        // Questions ask about what was said above.
        heading != "## Questions" && !joined(text).contains(NO_COMMAND) && commands(text).is_empty()
    });
    let without = sections.map(|(heading, text)| (heading, figures(&text))).filter(|(_, figures)| !figures.is_empty());
    without.map(|(heading, figures)| format!("{document}: {heading}: no command prints {figures:?}")).collect()
}

/// Rows, parts and options that a command names, and that its bench does not have. `code_of` gives the code of a bench.
fn check_rows(document: &str, text: &str, code_of: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut complaints = Vec::new();
    for command in commands(text) {
        let mut words = command.split(' ').skip_while(|word| *word != "--bench").skip(1);
        let Some(bench) = words.next() else { continue };
        let code = code_of(bench);
        let mut words = words.skip_while(|word| *word != "--").skip(1);
        while let Some(word) = words.next() {
            let is_there = match word.strip_prefix("--") {
                Some("json") => words.next().is_some() && code.contains("results::take_option"),
                Some(option) => code.contains(&format!("\"{option}\"")) || code.contains(&format!("\"{word}\"")),
                // What a value is, no code can say.
                None => {
                    word.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase())
                        || word.contains('=')
                        || code.contains(&format!("\"{word}"))
                }
            };
            if !is_there {
                complaints.push(format!("{document}: `{command}`: benches/{bench}.rs has no {word}"));
            }
        }
    }
    complaints
}

#[test]
fn figures_have_a_way_back() {
    let of_the_book =
        chapters().into_iter().chain(["DESIGN.md", "docs/measurements.md", "README.md"].map(str::to_owned));
    let texts: Vec<(String, String)> = of_the_book.map(|file| (file.clone(), read(&file))).collect();
    let complaints: Vec<String> = texts.iter().flat_map(|(file, text)| check_ways_back(file, text)).collect();
    assert_none(&complaints);
    let all = texts.iter().flat_map(|(_, text)| sections(text));
    let (mut with, mut without) = (0, 0);
    for (_, text) in all {
        with += usize::from(!figures(&text).is_empty());
        without += joined(&text).matches(NO_COMMAND).count();
    }
    assert!(with > 15 && without <= WITHOUT, "{with} sections with figures, {without} without a command");
}

#[test]
fn the_commands_of_benches_name_rows_that_exist() {
    let code = |bench: &str| read(&format!("benches/{bench}.rs"));
    let complaints: Vec<String> =
        documents().iter().flat_map(|(document, text)| check_rows(document, text, &code)).collect();
    assert_none(&complaints);
}

#[test]
fn complains_about_figures_without_a_way_back() {
    let text = "# A\n\nIt takes 2.6 ns.\n\n## B\n\n| a | 3.1 times |\n\n```text\n9 ns\n# no heading, 7 ns\n```\n\n## C\n\n\
                2 ns (`cargo bench\n--bench b`)\n\n## D\n\n16 KiB, 2^14 ns, 50 ms\n\n## E\n\n5 us; no command prints it.\n\n\
                ## Questions\n\n9 ns?\n";
    let expected = ["d: # A: no command prints [\"2.6 ns.\"]", "d: ## B: no command prints [\"3.1 times\"]"];
    assert_eq!(check_ways_back("d", text), expected);
    let code = |_: &str| "\"yield/2\", Long(\"idle\"), \"--curve\"".to_owned();
    let rows = |command: &str| check_rows("d", &format!("`{command}`"), &code).len();
    assert_eq!(rows("cargo bench --bench b -- yield --idle 5 --curve FILE"), 0);
    assert_eq!(rows("cargo bench --bench b -- yeld --iddle --json f"), 3);
}
