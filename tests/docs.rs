//! What the documents say exists, exists: files, functions, constants, commands and quoted lines named in DESIGN.md,
//! README.md, their translations and the front page in `src/lib.rs`. (That their code runs is the doctests' job, that a
//! translation is one that of `tests/translation.rs`.)
//!
//! A mention is a span in backquotes of one of these forms, with the path seen from `src/` or from the root:
//!
//! ```text
//! `switch/root.rs`                   the file is there
//! `switch/root.rs: drive`            and defines this function, type, trait, constant or static
//! `switch/root.rs: BUDGET = 61`      and the constant has this value
//! ```
//!
//! A block that begins with three backquotes and `text switch/root.rs` quotes lines of that file, in their order; how far
//! they are indented does not matter.
//!
//! Each check is a function that returns complaints, and a test shows each of them complaining.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Rust files below `src/`, named from there.
fn sources() -> Vec<String> {
    fn walk(folder: &Path, from: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("src/ is readable") {
            let path = entry.expect("src/ is readable").path();
            if path.is_dir() {
                walk(&path, from, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(from).expect("below src/");
                found.push(name.to_str().expect("plain names").to_owned());
            }
        }
    }
    let src = root().join("src");
    let mut found = Vec::new();
    walk(&src, &src, &mut found);
    found.sort();
    found
}

/// The documents, by name.
fn documents() -> Vec<(&'static str, String)> {
    let front_page = read("src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{line}\n"))
        .collect();
    let files = ["DESIGN.md", "README.md", "README.zh-CN.md", "docs/zh-CN/from-blocking-to-green.md"];
    files.into_iter().map(|file| (file, read(file))).chain([("src/lib.rs", front_page)]).collect()
}

/// The text without its fenced blocks: those are code, or output.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// What stands between backquotes, line by line.
fn spans(prose: &str) -> impl Iterator<Item = &str> {
    prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The text of a file that is named from `src/` or from the root.
fn named_file(path: &str) -> Option<String> {
    [root().join("src").join(path), root().join(path)].iter().find_map(|path| fs::read_to_string(path).ok())
}

/// Whether `code` defines something of this name.
fn defines(code: &str, name: &str) -> bool {
    ["fn ", "struct ", "enum ", "trait ", "const ", "static ", "type ", "mod "].iter().any(|keyword| {
        code.match_indices(&format!("{keyword}{name}")).any(|(at, found)| {
            let after = code[at + found.len()..].chars().next();
            after.is_none_or(|c| !c.is_alphanumeric() && c != '_')
        })
    })
}

/// Whether this tree is what `cargo package` made, and the file is in a package of its own, which is not put into another.
fn is_left_out(path: &str) -> bool {
    let theirs = ["benches/peers", "tests/crates"].into_iter().find(|folder| path.starts_with(folder));
    theirs.is_some_and(|folder| root().join(".cargo_vcs_info.json").exists() && !root().join(folder).exists())
}

/// Looks every mention up.
fn check_mentions(document: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for span in spans(&prose(text)) {
        let (path, item) = match span.split_once(": ") {
            Some((path, item)) => (path, Some(item)),
            None => (span, None),
        };
        if !path.ends_with(".rs") || path.contains(' ') || is_left_out(path) {
            continue;
        }
        let Some(code) = named_file(path) else {
            complaints.push(format!("{document}: `{path}` is not there"));
            continue;
        };
        let Some(item) = item else { continue };
        let (name, value) = match item.split_once(" = ") {
            Some((name, value)) => (name, Some(value)),
            None => (item, None),
        };
        if !defines(&code, name) {
            complaints.push(format!("{document}: `{path}` defines no `{name}`"));
        } else if let Some(value) = value
            && !code.lines().any(|line| {
                line.contains(&format!("const {name}:")) && line.trim_end().ends_with(&format!("= {value};"))
            })
        {
            complaints.push(format!("{document}: `{name}` in `{path}` is not {value}"));
        }
    }
    complaints
}

/// Looks quoted lines up.
fn check_quotations(document: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(path) = line.strip_prefix("```text ") else { continue };
        let Some(code) = named_file(path) else {
            complaints.push(format!("{document}: a quotation from `{path}`, which is not there"));
            continue;
        };
        let mut code = code.lines();
        for quoted in lines.by_ref().take_while(|line| *line != "```") {
            if !code.any(|line| line.trim() == quoted.trim()) {
                complaints.push(format!("{document}: `{path}` has no line `{}`, or not there", quoted.trim()));
            }
        }
    }
    complaints
}

/// The rows of the table of files in chapter 0.
fn reading_order(design: &str) -> BTreeSet<String> {
    let chapter = design.split("\n## ").find(|chapter| chapter.starts_with("0.")).unwrap_or_default();
    chapter
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// Every source file has its line in chapter 0.
fn check_reading_order(design: &str, sources: &[String]) -> Vec<String> {
    let listed = reading_order(design);
    let missing = |file: &&String| !listed.contains(*file);
    sources.iter().filter(missing).map(|file| format!("DESIGN.md, chapter 0: no line for `{file}`")).collect()
}

/// The first column of chapter 11 is the set of files that allow unsafe code.
fn check_unsafe_inventory(design: &str, allowing: &BTreeSet<String>) -> Vec<String> {
    let chapter = design.split("\n## ").find(|chapter| chapter.starts_with("11.")).unwrap_or_default();
    let listed: BTreeSet<String> = chapter
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .map(str::to_owned)
        .collect();
    let missing = allowing.difference(&listed).map(|file| format!("DESIGN.md, chapter 11: no row for `{file}`"));
    let stale = listed.difference(allowing).map(|file| format!("DESIGN.md, chapter 11: `{file}` is not unsafe"));
    missing.chain(stale).collect()
}

/// Tests that chapter 11 names exist in the file of their row or in `tests/`.
fn check_named_tests(design: &str, everything: &str) -> Vec<String> {
    let chapter = design.split("\n## ").find(|chapter| chapter.starts_with("11.")).unwrap_or_default();
    let rows = chapter.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit("| ").next())
        .flat_map(spans)
        .filter(|name| name.matches('_').count() >= 3 && !defines(everything, name))
        .map(|name| format!("DESIGN.md, chapter 11: no test `{name}`"))
        .collect()
}

/// `--example NAME` and `--bench NAME` name files, or folders with a `main.rs`.
fn check_commands(document: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == '`').collect();
    for pair in words.windows(2) {
        let folder = match pair[0] {
            "--example" => "examples",
            "--bench" => "benches",
            _ => continue,
        };
        let name = pair[1].trim_end_matches(['.', ',', ';']);
        if ![format!("{name}.rs"), format!("{name}/main.rs")].iter().any(|file| root().join(folder).join(file).exists())
        {
            complaints.push(format!("{document}: there is no {folder}/{name}.rs"));
        }
    }
    complaints
}

/// The command below the marker in the README: the line that the checks run.
fn test_command(readme: &str) -> Option<&str> {
    let mut lines = readme.lines().skip_while(|line| *line != "<!-- test-command -->").skip(1);
    if !lines.next()?.starts_with("```") {
        return None;
    }
    lines.next()
}

/// Which files of the table in chapter 17 do not say `Mended`, though something was wrong in the program they come from.
fn check_mended(design: &str, text_of: impl Fn(&str) -> String) -> Vec<String> {
    let table = design.split("\n### The documents' programs\n").nth(1).and_then(|rest| rest.split("\n### ").next());
    let rows = table.unwrap_or_default().lines().filter(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let wrong = cells.filter(|cells| cells.len() == 6 && cells[4] != "–");
    let files = wrong.flat_map(|cells| cells[3].split('`').skip(1).step_by(2).collect::<Vec<_>>());
    let silent = files.filter(|file| !text_of(file).contains("// Mended"));
    silent.map(|file| format!("{file} does not say what is mended in it")).collect()
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn what_the_documents_name_exists() {
    let complaints: Vec<String> =
        documents().iter().flat_map(|(document, text)| check_mentions(document, text)).collect();
    assert_none(&complaints);
}

#[test]
fn what_the_documents_quote_is_there() {
    let complaints: Vec<String> =
        documents().iter().flat_map(|(document, text)| check_quotations(document, text)).collect();
    assert_none(&complaints);
    let quotations = documents().iter().map(|(_, text)| text.matches("\n```text examples/").count()).sum::<usize>();
    assert!(quotations >= 20, "{quotations}");
}

#[test]
fn every_source_file_is_in_the_reading_order() {
    let sources = sources();
    assert!(sources.len() > 30, "{sources:?}");
    assert_none(&check_reading_order(&read("DESIGN.md"), &sources));
}

#[test]
fn the_unsafe_inventory_is_complete() {
    let allows = |file: &String| read(&format!("src/{file}")).contains("\n#![allow(unsafe_code)]");
    let allowing = sources().into_iter().filter(allows).collect();
    assert_none(&check_unsafe_inventory(&read("DESIGN.md"), &allowing));
}

#[test]
fn the_tests_that_the_inventory_names_exist() {
    let tests = fs::read_dir(root().join("tests")).expect("tests/ is readable");
    let tests = tests.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let sources = sources().into_iter().map(|file| read(&format!("src/{file}")));
    let everything: String = sources.chain(tests).collect();
    assert_none(&check_named_tests(&read("DESIGN.md"), &everything));
}

#[test]
fn the_commands_in_the_documents_exist() {
    let complaints: Vec<String> =
        documents().iter().flat_map(|(document, text)| check_commands(document, text)).collect();
    assert_none(&complaints);
}

#[test]
fn what_was_mended_is_said_where_it_is_mended() {
    let design = read("DESIGN.md");
    assert_none(&check_mended(&design, read));
    let asked = std::cell::Cell::new(0);
    check_mended(&design, |_| {
        asked.set(asked.get() + 1);
        String::new()
    });
    assert!(asked.get() >= 15, "{}", asked.get());
}

#[test]
fn the_readme_says_how_to_test() {
    assert_eq!(test_command(&read("README.md")), Some("cargo test"));
}

// ---- each check complains -------------------------------------------------------------------------------------------

#[test]
fn complains_about_mentions() {
    let text = "`nowhere.rs`, `lib.rs`, `switch/root.rs: drive`, `switch/root.rs: driv`,\n\
                `switch/root.rs: BUDGET = 61`, `switch/root.rs: BUDGET = 6`, `not a file.rs`\n\
                ```text\n`also_nowhere.rs`\n```\n";
    let complaints = check_mentions("D", text);
    let expected = [
        "D: `nowhere.rs` is not there",
        "D: `switch/root.rs` defines no `driv`",
        "D: `BUDGET` in `switch/root.rs` is not 6",
    ];
    assert_eq!(complaints, expected);
}

#[test]
fn complains_about_quotations() {
    let text = "```text tests/docs.rs\n    use std::fs;\nuse std::collections::BTreeSet;\n```\n\
                ```text nowhere.rs\nx\n```\n```text\nfree\n```\n```text tests/docs.rs\nuse std::fs;\n```\n";
    let expected = [
        "D: `tests/docs.rs` has no line `use std::collections::BTreeSet;`, or not there",
        "D: a quotation from `nowhere.rs`, which is not there",
    ];
    assert_eq!(check_quotations("D", text), expected);
}

#[test]
fn complains_about_the_reading_order() {
    let design = "\n## 0. How\n| `a.rs` | one |\n\n## 1. What\n| `b.rs` | elsewhere |\n";
    let sources = ["a.rs".to_owned(), "b.rs".to_owned()];
    assert_eq!(check_reading_order(design, &sources), ["DESIGN.md, chapter 0: no line for `b.rs`"]);
}

#[test]
fn complains_about_the_inventory() {
    let design = "\n## 11. Unsafe\n| `a.rs` | x |\n| `b.rs` | y | `a_test_that_is_gone`, `a_test_that_is_there` |\n";
    let allowing = BTreeSet::from(["b.rs".to_owned(), "c.rs".to_owned()]);
    let complaints = check_unsafe_inventory(design, &allowing);
    assert_eq!(complaints, ["DESIGN.md, chapter 11: no row for `c.rs`", "DESIGN.md, chapter 11: `a.rs` is not unsafe"]);
    let complaints = check_named_tests(design, "fn a_test_that_is_there() {}");
    assert_eq!(complaints, ["DESIGN.md, chapter 11: no test `a_test_that_is_gone`"]);
}

#[test]
fn complains_about_what_is_not_said_to_be_mended() {
    let design = "\n### The documents' programs\n\n| text | its program | here | what was wrong in it |\n|---|---|---|---|\n\
                  | a | b | `one.rs`, `two.rs` | all |\n| | c | `three.rs` | – |\n\n### Next\n| | d | `four.rs` | all |\n";
    let text_of = |file: &str| String::from(if file == "one.rs" { "// Mended: it" } else { "" });
    assert_eq!(check_mended(design, text_of), ["two.rs does not say what is mended in it"]);
}

#[test]
fn complains_about_commands() {
    let complaints = check_commands("D", "run `cargo run --example nothing_like_it`.");
    assert_eq!(complaints, ["D: there is no examples/nothing_like_it.rs"]);
    assert_eq!(test_command("<!-- test-command -->\n```text\ncargo test\n```\n"), Some("cargo test"));
    assert_eq!(test_command("```text\ncargo test\n```\n"), None);
}
