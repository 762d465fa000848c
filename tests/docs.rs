//! What the documents say exists, exists: files, functions, constants, commands and quoted lines named in DESIGN.md,
//! the book, its solutions and examination, README.md, their translations and the front page in `src/lib.rs`. (That their code runs
//! is the doctests' job, that a translation is one that of `tests/translation.rs`.)
//!
//! A mention is a span in backquotes of one of these forms, with the path seen from `src/` or from the root:
//!
//! ```text
//! `switch/root.rs`                   the file is there
//! `switch/run_loop.rs: drive`            and defines this function, type, trait, constant or static
//! `switch/budget.rs: BUDGET = 61`     and the constant has this value
//! ```
//!
//! A block that begins with three backquotes and `text switch/root.rs` quotes lines of that file, in their order; how far
//! they are indented does not matter.
//!
//! Each check is a function that returns complaints, and a test shows each of them complaining.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "docs/figures.rs"]
mod figures;
#[path = "../examples/break/patch.rs"]
#[allow(dead_code, reason = "how a test ends is for the example that runs it")]
mod patch;
#[path = "docs/route.rs"]
mod route;
#[path = "docs/solutions.rs"]
mod solutions;

/// The most words that the first reading of a chapter has, without tables and blocks.
const FIRST_READING: usize = 1000;

/// The questions over the book and the steps.
const EXAMINATION: &str = "docs/examination.md";

/// The number of questions there.
const QUESTIONS: usize = 40;

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
fn documents() -> Vec<(String, String)> {
    let front_page = read("src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{line}\n"))
        .collect();
    let others = [
        "CONTRIBUTING.md",
        "DESIGN.md",
        "README.md",
        "README.zh-CN.md",
        "docs/ladder.md",
        "docs/zh-CN/ladder.md",
        "docs/measurements.md",
        EXAMINATION,
    ];
    let chinese = ["docs/zh-CN/book", "docs/zh-CN/steps"].into_iter().flat_map(files_of);
    let solutions = files_of("docs/solutions").into_iter().filter(|file| file.ends_with(".md"));
    let files = chapters().into_iter().chain(steps()).chain(chinese).chain(solutions).chain(others.map(str::to_owned));
    files.map(|file| (file.clone(), read(&file))).chain([("src/lib.rs".to_owned(), front_page)]).collect()
}

/// The chapters of the book, in order.
fn chapters() -> Vec<String> {
    files_of("docs/book")
}

/// The chapters about the programs of `examples/steps`, in order, after a page that lists them. (A test of that package
/// compares them with the programs.)
fn steps() -> Vec<String> {
    let mut files = files_of("docs/steps");
    files.rotate_right(1); // README.md comes last by its name
    files
}

/// The files of a folder, in order.
fn files_of(folder: &str) -> Vec<String> {
    let names = fs::read_dir(root().join(folder)).expect("a folder of documents is readable");
    let mut names: Vec<_> =
        names.map(|entry| format!("{folder}/{}", entry.expect("an entry").file_name().display())).collect();
    names.sort();
    names
}

/// The chapter with this number.
fn chapter(number: u32) -> String {
    let start = format!("docs/book/{number:02}-");
    read(&chapters().into_iter().find(|name| name.starts_with(&start)).expect("the chapter is there"))
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
    let theirs = ["benches/peers", "examples/heavy", "examples/steps", "tests/crates", "tests/storm", "tools"]
        .into_iter()
        .find(|folder| path.starts_with(folder));
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

/// Compares quotations of corosensei with the version that Cargo.lock has, and with its source if `source` has that.
fn check_dependency(text: &str, lock: &str, source: Option<&str>) -> Vec<String> {
    let package = lock.split("[[package]]").find(|package| package.contains("\nname = \"corosensei\"\n"));
    let version = package.and_then(|package| package.split("version = \"").nth(1)?.split('"').next()).unwrap_or("none");
    let mut complaints = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(place) = line.strip_prefix("```asm corosensei-") else { continue };
        let quoted = place.split('/').next().unwrap_or_default();
        if quoted != version {
            complaints.push(format!("corosensei {quoted} is quoted, and Cargo.lock has {version}"));
        }
        let Some(source) = source else { continue };
        let mut source = source.lines();
        for quoted in lines.by_ref().take_while(|line| *line != "```") {
            if !source.any(|line| line.trim() == quoted.trim()) {
                complaints.push(format!("corosensei has no line `{}`, or not there", quoted.trim()));
            }
        }
    }
    complaints
}

/// The pictures in the comments of a source file: their `text` blocks.
fn pictures(code: &str) -> String {
    let comment = |line: &str| {
        let line = line.trim_start();
        ["//!", "///"].iter().find_map(|mark| line.strip_prefix(mark)).map(str::to_owned)
    };
    let mut in_picture = false;
    let mut kept = String::new();
    for line in code.lines() {
        match comment(line) {
            Some(text) if text.trim_start().starts_with("```") => {
                in_picture = !in_picture && text.trim_start().starts_with("```text");
            }
            Some(text) if in_picture => kept.push_str(&(text + "\n")),
            Some(_) => {}
            None => in_picture = false,
        }
    }
    kept
}

/// The words of a text that can be names and nothing else, such as `leave_cpu`.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.trim_matches('_').contains('_') && word.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// Names in the pictures of the sources are names in their code.
fn check_pictures(sources: &[(String, String)]) -> Vec<String> {
    let code = sources.iter().flat_map(|(_, text)| text.lines()).map(|line| line.split("//").next().unwrap_or(line));
    let code: Vec<&str> = code.collect();
    let known: BTreeSet<&str> = code.iter().flat_map(|line| names(line)).collect();
    let mut complaints = Vec::new();
    for (file, text) in sources {
        for name in names(&pictures(text)).filter(|name| !known.contains(name)) {
            complaints.push(format!("{file}: a picture names `{name}`, which is nowhere in the code"));
        }
    }
    complaints
}

/// Where a text cites "design 5.2": the chapters of the book have no sections with numbers.
fn check_citations(file: &str, text: &str) -> Vec<String> {
    let is_citation = |line: &&str| {
        line.match_indices("design ")
            .any(|(at, found)| line[at + found.len()..].starts_with(|c: char| c.is_ascii_digit()))
    };
    text.lines().filter(is_citation).map(|line| format!("{file} cites no chapter: {}", line.trim())).collect()
}

/// The first sentence of a file, without what only a page of rustdoc can show.
fn first_sentence(code: &str) -> String {
    let lines = code.lines().skip_while(|line| !line.starts_with("//! "));
    let paragraph: Vec<&str> = lines.map_while(|line| line.strip_prefix("//! ")).collect();
    let paragraph = paragraph.join(" ");
    let end = paragraph.find(". ").or_else(|| paragraph.find(".")).unwrap_or(paragraph.len());
    let sentence =
        paragraph[..end].trim_end_matches([':', '.']).replace('|', "\\|").replace("[`", "`").replace("`]", "`");
    // A link to an item of the crate keeps its words.
    match (sentence.find('['), sentence.find("](crate::")) {
        (Some(open), Some(close)) => {
            let after = sentence[close..].find(')').map_or(sentence.len(), |len| close + len + 1);
            format!("{}{}{}", &sentence[..open], &sentence[open + 1..close], &sentence[after..])
        }
        _ => sentence,
    }
}

/// `docs/files.md`, as it has to be: each source file with its first sentence, by folder.
fn list_of_files(sources: &[(String, String)]) -> String {
    let folder = |file: &str| file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let mut text =
        "# The files, each in its own words\n\nMade from the first sentence of each file by `tests/docs.rs`; \
                    `GREENLING_WRITE=1 cargo test --test docs` writes it anew.\n"
            .to_owned();
    let folders: BTreeSet<String> = sources.iter().map(|(file, _)| folder(file)).collect();
    for of in folders {
        text += &format!("\n## `src/{of}`\n\n| file | says of itself |\n|---|---|\n");
        for (file, code) in sources.iter().filter(|(file, _)| folder(file) == of) {
            text += &format!("| `{file}` | {} |\n", first_sentence(code));
        }
    }
    text
}

/// Returns the label of an invariant that a line of a doc comment defines: `Invariant fiber-2: ..`, or in a list
/// `- fiber-2: ..`.
fn defined_invariant(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let text = line.strip_prefix("//!").or(line.strip_prefix("///"))?.trim_start();
    let item = text.strip_prefix("* ").or(text.strip_prefix("- "));
    let named = item.unwrap_or(text).strip_prefix("Invariant ").or(item)?;
    let (label, _) = named.split_once(':')?;
    let (stem, number) = label.rsplit_once('-')?;
    let is_stem = !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    (is_stem && number.parse::<u32>().is_ok()).then_some(label)
}

/// Compares the tables of invariants in DESIGN.md with what the files define.
fn check_invariants(design: &str, sources: &[(String, String)]) -> Vec<String> {
    let tables = design.split("\n## The invariants, by file\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = tables.unwrap_or_default().lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let listed: BTreeSet<(&str, &str)> = rows
        .flat_map(|(file, rest)| {
            rest.split('|').next().unwrap_or_default().split(',').map(move |name| (file, name.trim()))
        })
        .collect();
    let defined: BTreeSet<(&str, &str)> = sources
        .iter()
        .flat_map(|(file, code)| code.lines().filter_map(move |line| Some((&file[..], defined_invariant(line)?))))
        .collect();
    let missing = defined.difference(&listed).map(|(file, name)| format!("DESIGN.md: no {name} of `{file}`"));
    let stale = listed.difference(&defined).map(|(file, name)| format!("DESIGN.md: `{file}` defines no {name}"));
    missing.chain(stale).collect()
}

/// Checks that a chapter is cut into two readings, exercises and questions, and that the first reading takes ten minutes.
fn check_readings(chapter: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let Some((first, second)) = text.split_once("\n## For a second reading\n") else {
        return vec![format!("{chapter}: no second reading")];
    };
    let is_text = |line: &&str| !line.starts_with('|');
    let words = prose(first).lines().filter(is_text).flat_map(str::split_whitespace).count();
    if words > FIRST_READING {
        complaints.push(format!("{chapter}: {words} words in the first reading"));
    }
    let after: Vec<&str> = second.lines().filter(|line| line.starts_with("## ")).collect();
    if !["## Exercises", "## Questions"].ends_with(&after) {
        complaints.push(format!("{chapter}: the exercises and the questions come last, not {after:?}"));
    }
    complaints
}

/// The first column of chapter 11 is the set of files that allow unsafe code.
fn check_unsafe_inventory(inventory: &str, allowing: &BTreeSet<String>) -> Vec<String> {
    let listed: BTreeSet<String> = inventory
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .map(str::to_owned)
        .collect();
    let missing = allowing.difference(&listed).map(|file| format!("chapter 11: no row for `{file}`"));
    let stale = listed.difference(allowing).map(|file| format!("chapter 11: `{file}` is not unsafe"));
    missing.chain(stale).collect()
}

/// Tests that chapter 11 names exist in the file of their row or in `tests/`.
fn check_named_tests(inventory: &str, everything: &str) -> Vec<String> {
    let rows = inventory.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit("| ").next())
        .flat_map(spans)
        .filter(|name| name.matches('_').count() >= 3 && !defines(everything, name))
        .map(|name| format!("chapter 11: no test `{name}`"))
        .collect()
}

/// Crates that `tests/crates` needs to try others.
const HELPERS: [&str; 2] = ["rcgen", "tokio"];

/// The tables of what turns green name tests of `tests/crates` and crates that it tries, and all that it tries.
fn check_turns_green(readme: &str, manifest: &str, tests: &str) -> Vec<String> {
    let section = readme.split("\n## What turns green\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = section.unwrap_or_default().lines().filter(|line| line.starts_with('|'));
    let cells: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let shown_by = cells.iter().filter_map(|cells| cells.last()).flat_map(|cell| spans(cell));
    let gone = shown_by.filter(|name| name.contains('_') && !defines(tests, name));
    let gone = gone.map(|name| format!("README.md: no test `{name}`"));
    // The crates that are tried: what is optional, and what only tests use.
    let lines = manifest.lines().skip_while(|line| !line.starts_with("[dependencies]"));
    let parts: Vec<&str> = lines.filter(|line| line.starts_with('[') || line.contains(" = ")).collect();
    let mut for_tests = false;
    let mut tried = BTreeSet::new();
    for line in parts.into_iter().take_while(|line| !line.starts_with("[[") && !line.starts_with("[profile")) {
        for_tests |= line.starts_with("[dev-");
        if let Some((name, how)) = line.split_once(" = ")
            && (for_tests || how.contains("optional"))
        {
            tried.insert(name);
        }
    }
    let named: BTreeSet<&str> =
        cells.iter().filter(|cells| cells.len() == 4).flat_map(|cells| spans(cells[1])).collect();
    let unknown = named.difference(&tried).map(|name| format!("README.md: `{name}` is not tried"));
    let missing = tried.iter().filter(|name| !named.contains(*name) && !HELPERS.contains(name));
    gone.chain(unknown).chain(missing.map(|name| format!("README.md: no row for `{name}`"))).collect()
}

/// `--example NAME`, `--bench NAME` and, for the examples in a package of their own, `--bin NAME` name files, or folders
/// with a `main.rs`.
fn check_commands(document: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == '`').collect();
    for pair in words.windows(2) {
        let folder = match pair[0] {
            "--example" => "examples",
            "--bench" => "benches",
            "--bin" if pair[1].starts_with("step_") && !is_left_out("examples/steps") => "examples/steps",
            "--bin" if !pair[1].starts_with("step_") && !is_left_out("examples/heavy") => "examples/heavy",
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

/// The last step of `docs/steps` names each file of the runtime's folders. A folder in a folder is named by its `mod.rs`.
fn check_steps(last: &str, sources: &[String]) -> Vec<String> {
    let of_the_runtime = |file: &&String| {
        let folders: Vec<&str> = file.split('/').collect();
        let is_inner = folders.len() == 3 && file.ends_with("/mod.rs");
        let is_greenlet = folders.get(1) == Some(&"greenlet");
        matches!(folders[0], "pure" | "switch" | "runtime" | "thread")
            && (folders.len() == 2 || is_inner || is_greenlet)
    };
    let named: BTreeSet<&str> = spans(last).map(|span| span.split(": ").next().unwrap_or(span)).collect();
    let missing = sources.iter().filter(of_the_runtime).filter(|file| !named.contains(&file[..]));
    missing.map(|file| format!("the table at the end of the last step has no `{file}`")).collect()
}

/// Checks that the questions are numbered, that each has one answer of three to six sentences and a place, with a link
/// to a chapter and an item of a source file, and that the places lead to all `chapters`. (That the items are there is
/// for `check_mentions`, that the links lead somewhere for `tests/translation.rs`.)
fn check_examination(text: &str, chapters: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut asked = BTreeSet::new();
    let questions: Vec<&str> = text.split("\n### ").skip(1).collect();
    if questions.len() != QUESTIONS {
        complaints.push(format!("{} questions, not {QUESTIONS}", questions.len()));
    }
    for (number, question) in (1..).zip(questions) {
        let question = question.split("\n## ").next().unwrap_or(question);
        let title = question.lines().next().unwrap_or_default();
        if !title.starts_with(&format!("{number}. ")) || !title.ends_with('?') {
            complaints.push(format!("question {number} is \"{title}\""));
        }
        let rest = question.split_once("\n<details><summary>Answer</summary>\n\n").map(|(_, rest)| rest);
        let Some((answer, place)) = rest.and_then(|rest| rest.split_once("\n\n</details>\n\n*Place:* ")) else {
            complaints.push(format!("question {number} has no answer with a place"));
            continue;
        };
        let sentences = answer.split_whitespace().filter(|word| word.ends_with(['.', '?'])).count();
        if !(3..=6).contains(&sentences) {
            complaints.push(format!("the answer to question {number} has {sentences} sentences"));
        }
        let links: Vec<String> = place
            .split("](")
            .skip(1)
            .filter_map(|link| Some(format!("docs/{}", link.split_once(')')?.0)))
            .filter(|file| chapters.contains(file))
            .collect();
        if links.is_empty() || !spans(place).any(|span| span.contains(".rs: ")) {
            complaints.push(format!("the place of question {number} has no chapter or no item"));
        }
        asked.extend(links);
    }
    let missing = chapters.iter().filter(|chapter| !asked.contains(*chapter));
    complaints.extend(missing.map(|chapter| format!("no question is about {chapter}")));
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

/// Which files of the table in chapter 0 do not say `Mended`, though something was wrong in the program they come from.
fn check_mended(design: &str, text_of: impl Fn(&str) -> String) -> Vec<String> {
    let table = design.split("\n## The documents' programs\n").nth(1).and_then(|rest| rest.split("\n## ").next());
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
fn the_quoted_instructions_are_those_of_the_dependency() {
    let text = chapter(2);
    assert!(text.contains("\n```asm corosensei-"));
    // Cargo keeps the sources of crates below its home, in a folder for each registry.
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let file = "corosensei-0.3.4/src/arch/x86_64.rs";
    let source = registries.into_iter().flatten().flatten().find_map(|registry| {
        let path = registry.path().join(file);
        fs::read_to_string(path).ok()
    });
    let Ok(lock) = fs::read_to_string(root().join("Cargo.lock")) else { return };
    assert_none(&check_dependency(&text, &lock, source.as_deref()));
}

#[test]
fn complains_about_the_dependency() {
    let lock = "[[package]]\nname = \"a\"\nversion = \"2\"\n[[package]]\nname = \"corosensei\"\nversion = \"1\"\n";
    let text = "```asm corosensei-1/x.rs\n  \"ret\",\n```\n";
    assert_eq!(check_dependency(text, lock, Some("\"ret\",\n")), [""; 0]);
    assert_eq!(check_dependency(text, lock, None), [""; 0]);
    assert_eq!(check_dependency(text, lock, Some("\"jmp\",\n")), ["corosensei has no line `\"ret\",`, or not there"]);
    let newer = lock.replace("\"1\"", "\"3\"");
    assert_eq!(check_dependency(text, &newer, None), ["corosensei 1 is quoted, and Cargo.lock has 3"]);
}

#[test]
fn the_pictures_in_the_sources_name_what_exists() {
    let sources: Vec<_> = sources().into_iter().map(|file| (file.clone(), read(&format!("src/{file}")))).collect();
    let named: usize = sources.iter().map(|(_, text)| names(&pictures(text)).count()).sum();
    assert!(named >= 20, "{named} names");
    assert_none(&check_pictures(&sources));
}

/// The files of the integration tests: those in `tests/`, and those in its folders.
fn test_files() -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).expect("a folder is readable").map(|entry| entry.expect("an entry").path()).collect()
    };
    let (folders, files): (Vec<_>, Vec<_>) = list(&root().join("tests")).into_iter().partition(|path| path.is_dir());
    let inner = folders.iter().flat_map(|folder| list(folder));
    files.into_iter().chain(inner).filter(|path| path.extension().is_some_and(|rs| rs == "rs")).collect()
}

#[test]
fn the_tests_cite_chapters_that_exist() {
    // This file has examples of what is wrong.
    let tests = test_files().into_iter().filter(|path| !path.ends_with("docs.rs"));
    let complaints = tests.flat_map(|path| {
        let text = fs::read_to_string(&path).expect("a test is readable");
        check_citations(&path.display().to_string(), &text)
    });
    assert_none(&complaints.collect::<Vec<_>>());
}

#[test]
fn the_list_of_files_is_made_of_their_first_sentences() {
    let sources: Vec<_> = sources().into_iter().map(|file| (file.clone(), read(&format!("src/{file}")))).collect();
    assert!(sources.len() > 30, "{}", sources.len());
    let list = list_of_files(&sources);
    if std::env::var_os("GREENLING_WRITE").is_some() {
        fs::write(root().join("docs/files.md"), &list).expect("docs/files.md is written");
    }
    let write = "GREENLING_WRITE=1 cargo test --test docs";
    assert!(list == read("docs/files.md"), "docs/files.md is not what the files say of themselves: {write}");
}

#[test]
fn the_tables_of_invariants_are_complete() {
    let sources: Vec<_> = sources().into_iter().map(|file| (file.clone(), read(&format!("src/{file}")))).collect();
    assert_none(&check_invariants(&read("DESIGN.md"), &sources));
}

#[test]
fn chapters_are_cut_into_two_readings() {
    // Chapter 0 is one reading.
    let complaints: Vec<String> =
        chapters().iter().skip(1).flat_map(|chapter| check_readings(chapter, &read(chapter))).collect();
    assert_none(&complaints);
}

#[test]
fn the_unsafe_inventory_is_complete() {
    let allows = |file: &String| read(&format!("src/{file}")).contains("\n#![allow(unsafe_code)]");
    let allowing = sources().into_iter().filter(allows).collect();
    assert_none(&check_unsafe_inventory(&chapter(11), &allowing));
}

#[test]
fn the_tests_that_the_inventory_names_exist() {
    let tests = test_files().into_iter().map(|path| fs::read_to_string(path).expect("a test is readable"));
    let sources = sources().into_iter().map(|file| read(&format!("src/{file}")));
    let everything: String = sources.chain(tests).collect();
    assert_none(&check_named_tests(&chapter(11), &everything));
}

#[test]
fn what_turns_green_was_tried() {
    if is_left_out("tests/crates") {
        return;
    }
    let list = |folder: PathBuf| {
        fs::read_dir(folder).expect("a folder is readable").map(|entry| entry.expect("an entry").path())
    };
    let text = |path: PathBuf| match path.is_dir() {
        true => list(path).map(|path| fs::read_to_string(path).expect("a test is readable")).collect(),
        false => fs::read_to_string(path).expect("a test is readable"),
    };
    let tests: String = list(root().join("tests/crates/tests")).map(text).collect();
    assert_none(&check_turns_green(&read("README.md"), &read("tests/crates/Cargo.toml"), &tests));
}

#[test]
fn the_commands_in_the_documents_exist() {
    let complaints: Vec<String> =
        documents().iter().flat_map(|(document, text)| check_commands(document, text)).collect();
    assert_none(&complaints);
}

#[test]
fn what_was_mended_is_said_where_it_is_mended() {
    let design = chapter(0);
    assert_none(&check_mended(&design, read));
    let asked = std::cell::Cell::new(0);
    check_mended(&design, |_| {
        asked.set(asked.get() + 1);
        String::new()
    });
    assert!(asked.get() >= 15, "{}", asked.get());
}

#[test]
fn the_last_step_says_what_each_file_is_for() {
    let last = steps().pop().expect("there are steps");
    let complaints = check_steps(&read(&last), &sources());
    if !complaints.is_empty() && std::env::var_os("GREENLING_WRITE").is_some() {
        // A row to be taken apart: each file belongs to a step, or to what is said of the others.
        let files = complaints.iter().filter_map(|line| line.split(' ').next_back()).collect::<Vec<_>>();
        let table = format!("{}| new | {} |\n", read(&last), files.join(", "));
        fs::write(root().join(&last), table).expect("the last step is written");
    }
    let complaints = check_steps(&read(&last), &sources());
    assert!(complaints.is_empty(), "\n{}\nGREENLING_WRITE=1 cargo test --test docs\n", complaints.join("\n"));
}

#[test]
fn the_examination_asks_about_every_chapter() {
    let mut steps = steps();
    assert!(steps.remove(0).ends_with("README.md"));
    let chapters: Vec<String> = chapters().into_iter().chain(steps).collect();
    assert_none(&check_examination(&read(EXAMINATION), &chapters));
}

#[test]
fn the_readme_says_how_to_test() {
    assert_eq!(test_command(&read("README.md")), Some("cargo test"));
}

#[test]
fn contributing_names_every_step_in_order() {
    let steps = |text: &str, begin: &str, end: char| -> Vec<String> {
        let rest = text.split_once(begin).expect(begin).1;
        rest[..rest.find(end).unwrap()].split_whitespace().map(str::to_owned).collect()
    };
    let run = steps(&read(".ci/run"), "\nsteps=(", ')');
    assert_eq!(steps(&read("CONTRIBUTING.md"), "The steps: `", '`'), run);
}

// ---- each check complains -------------------------------------------------------------------------------------------

#[test]
fn complains_about_mentions() {
    let text = "`nowhere.rs`, `lib.rs`, `switch/run_loop.rs: drive`, `switch/run_loop.rs: driv`,\n\
                `switch/budget.rs: BUDGET = 61`, `switch/budget.rs: BUDGET = 6`, `not a file.rs`\n\
                ```text\n`also_nowhere.rs`\n```\n";
    let complaints = check_mentions("D", text);
    let expected = [
        "D: `nowhere.rs` is not there",
        "D: `switch/run_loop.rs` defines no `driv`",
        "D: `BUDGET` in `switch/budget.rs` is not 6",
    ];
    assert_eq!(complaints, expected);
}

#[test]
fn complains_about_pictures_and_citations() {
    let file = "//! Prose has any_name.\n//!\n//! ```text\n//!   gone_name --> kept_name, Words\n//! ```\n//! ```\n\
                //! let code_name = 1;\n//! ```\nfn kept_name() {} // gone_name\n";
    let expected = ["f.rs: a picture names `gone_name`, which is nowhere in the code"];
    assert_eq!(check_pictures(&[("f.rs".to_owned(), file.to_owned())]), expected);
    let text = "//! One (design 5.2): it.\n//! DESIGN.md, chapter 12\n";
    assert_eq!(check_citations("t.rs", "//! by design of 5\n"), [""; 0]);
    assert_eq!(check_citations("t.rs", text), ["t.rs cites no chapter: //! One (design 5.2): it."]);
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
fn the_list_of_files_has_their_first_sentences() {
    let code = |text: &str| format!("// A licence.\n{text}\n//!\n//! More.\n");
    assert_eq!(first_sentence(&code("//! Runs a | b. Or\n//! not.")), "Runs a \\| b");
    assert_eq!(first_sentence(&code("//! Two\n//! lines:")), "Two lines");
    let sources = [("a.rs", "//! One."), ("b/c.rs", "//! Two.")].map(|(file, text)| (file.to_owned(), code(text)));
    let list = list_of_files(&sources);
    assert!(list.ends_with(
        "\n## `src/`\n\n| file | says of itself |\n|---|---|\n| `a.rs` | One |\n\
         \n## `src/b`\n\n| file | says of itself |\n|---|---|\n| `b/c.rs` | Two |\n"
    ));
}

#[test]
fn complains_about_the_tables_of_invariants() {
    let code = "//! * Invariant one-1: x.\n//! - two-one-2: y\n/// Invariant two-one-3: z\n// Invariant no-1: a comment.\n//! One-1: no\n";
    let design = "\n## The invariants, by file\n\n| `a.rs` | one-1, two-one-2, four-4 | all |\n\n## Next\n| `a.rs` | two-one-3 | x |\n";
    let complaints = check_invariants(design, &[("a.rs".to_owned(), code.to_owned())]);
    assert_eq!(complaints, ["DESIGN.md: no two-one-3 of `a.rs`", "DESIGN.md: `a.rs` defines no four-4"]);
}

#[test]
fn complains_about_readings() {
    assert_eq!(check_readings("c.md", "# C\n\nText.\n"), ["c.md: no second reading"]);
    let long =
        format!("# C\n\n{}\n\n## For a second reading\n\n## Exercises\n\n## More\n", "word ".repeat(FIRST_READING));
    let expected = [
        "c.md: 1002 words in the first reading",
        "c.md: the exercises and the questions come last, not [\"## Exercises\", \"## More\"]",
    ];
    assert_eq!(check_readings("c.md", &long), expected);
    assert_eq!(
        check_readings("c.md", "# C\n\n## For a second reading\n\n### A\n\n## Exercises\n\n## Questions\n"),
        [""; 0]
    );
}

#[test]
fn complains_about_the_inventory() {
    let design = "\n## 11. Unsafe\n| `a.rs` | x |\n| `b.rs` | y | `a_test_that_is_gone`, `a_test_that_is_there` |\n";
    let allowing = BTreeSet::from(["b.rs".to_owned(), "c.rs".to_owned()]);
    let complaints = check_unsafe_inventory(design, &allowing);
    assert_eq!(complaints, ["chapter 11: no row for `c.rs`", "chapter 11: `a.rs` is not unsafe"]);
    let complaints = check_named_tests(design, "fn a_test_that_is_there() {}");
    assert_eq!(complaints, ["chapter 11: no test `a_test_that_is_gone`"]);
}

#[test]
fn complains_about_what_is_said_to_turn_green() {
    let readme = "\n## What turns green\n| x | crates | any | shown by |\n|---|---|---|---|\n\
                  | y | `one`, `two` | any | `a_test` `a_test_that_is_gone` |\n| what | happens | `no_such` |\n\n## Next\n";
    let manifest =
        "[dependencies]\nbase = \"1\"\none = { optional = true }\n[dev-dependencies]\nrcgen = \"1\"\nthree = \"1\"\n";
    let said = check_turns_green(readme, manifest, "fn a_test() {}");
    let [gone, no_such, unknown, missing] = &said[..] else { panic!("{said:?}") };
    assert_eq!(gone, "README.md: no test `a_test_that_is_gone`");
    assert_eq!(no_such, "README.md: no test `no_such`");
    assert_eq!((&unknown[..], &missing[..]), ("README.md: `two` is not tried", "README.md: no row for `three`"));
}

#[test]
fn complains_about_what_is_not_said_to_be_mended() {
    let design = "\n## The documents' programs\n\n| text | its program | here | what was wrong in it |\n|---|---|---|---|\n\
                  | a | b | `one.rs`, `two.rs` | all |\n| | c | `three.rs` | – |\n\n## Next\n| | d | `four.rs` | all |\n";
    let text_of = |file: &str| String::from(if file == "one.rs" { "// Mended: it" } else { "" });
    assert_eq!(check_mended(design, text_of), ["two.rs does not say what is mended in it"]);
}

#[test]
fn complains_about_files_that_no_step_is_about() {
    let sources =
        ["pure/a.rs", "pure/b.rs", "switch/c/mod.rs", "switch/c/d.rs", "net/e.rs", "lib.rs"].map(str::to_owned);
    let complaints = check_steps("| 1 | `pure/a.rs: item` |\n", &sources);
    let expected = ["pure/b.rs", "switch/c/mod.rs"];
    assert_eq!(complaints, expected.map(|file| format!("the table at the end of the last step has no `{file}`")));
}

#[test]
fn complains_about_an_examination() {
    let chapters = ["docs/book/a.md", "docs/steps/b.md"].map(str::to_owned);
    let question = |number: usize| {
        format!(
            "\n### {number}. Why?\n\n<details><summary>Answer</summary>\n\nOne. Two.\nThree.\n\n</details>\n\n\
             *Place:* [a](book/a.md), [b](steps/b.md),\n`lib.rs: x`\n"
        )
    };
    let whole: String = (1..=QUESTIONS).map(question).collect();
    assert_eq!(check_examination(&whole, &chapters), [""; 0]);
    let more = [&chapters[..], &["docs/book/c.md".to_owned()]].concat();
    assert_eq!(check_examination(&whole, &more), ["no question is about docs/book/c.md"]);
    let worse = [
        (question(1), "\n### 1. Because.\n".to_owned() + question(1).split_once("?\n").expect("a title").1),
        (question(2), question(2).replace("</details>", "")),
        (question(3), question(3).replace(" Two.\nThree.", "")),
        (question(4), question(4).replace("lib.rs: x", "lib.rs")),
        (question(40), "\n".to_owned()),
    ];
    let worse = worse.iter().fold(whole, |text, (from, to)| text.replacen(from, to, 1));
    let expected = [
        "39 questions, not 40",
        "question 1 is \"1. Because.\"",
        "question 2 has no answer with a place",
        "the answer to question 3 has 1 sentences",
        "the place of question 4 has no chapter or no item",
    ];
    assert_eq!(check_examination(&worse, &chapters), expected);
}

#[test]
fn complains_about_commands() {
    let complaints = check_commands("D", "run `cargo run --example nothing_like_it`.");
    assert_eq!(complaints, ["D: there is no examples/nothing_like_it.rs"]);
    assert_eq!(test_command("<!-- test-command -->\n```text\ncargo test\n```\n"), Some("cargo test"));
    assert_eq!(test_command("```text\ncargo test\n```\n"), None);
}
