//! How comments are written: the part that can be counted. And how long functions are.

use std::collections::BTreeMap;

use super::scanner::{block, code_of, comments_of, line_of, words};
use super::tree::{Tree, assert_complains, assert_none, rust_files, tree};

/// The folders of which comments are read.
pub(crate) const READ: &[&str] = &["src/", "examples/", "tests/common/"];

/// The documents in which words for people are complained about, too.
const DOCUMENTS: &[&str] = &["DESIGN.md", "README.md", "docs/book/", "docs/examination.md"];

/// Words for people. Threads, fibers, callers and wakers are *it*, "the waiter", "the caller".
const PEOPLE: &[&str] =
    &["who", "whose", "whom", "whoever", "somebody", "nobody", "everybody", "anybody", "someone", "everyone", "anyone"];

/// The longest line that holds a comment, in columns. Rows of tables and addresses of pages may be longer.
const COLUMNS: usize = 120;

/// A doc comment of one line with fewer words repeats the name of its item.
const LEAST_WORDS: usize = 4;

/// The most lines of code in one function.
const MOST_LINES: usize = 70;

/// The kinds of complaint that an allow-list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A word for people.
    Person,
    /// A line that is too long.
    Width,
    /// A doc comment that is too short.
    Short,
}

/// What is wrong: the kind, the line, and what to say.
type Fault = (Kind, usize, String);

/// Finds words for people in one line.
fn people(line: usize, text: &str) -> impl Iterator<Item = Fault> {
    text.split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| PEOPLE.contains(&word.to_ascii_lowercase().as_str()))
        .map(move |word| (Kind::Person, line, format!("`{word}` is for people")))
}

/// Finds what is wrong with the comments of one file.
fn faults(text: &str) -> Vec<Fault> {
    let comments = comments_of(text);
    let mut faults = Vec::new();
    for (at, comment) in comments.iter().enumerate() {
        faults.extend(people(comment.line, comment.text));
        // Long lines.
        let table = comment.text.trim_start().starts_with('|');
        if comment.width > COLUMNS && !table && !comment.text.contains("://") {
            faults.push((Kind::Width, comment.line, format!("{} columns", comment.width)));
        }
        // Doc comments of one line that say too little.
        let doc_on = |other: Option<&super::scanner::Comment>, line: usize| {
            other.is_some_and(|other| other.mark == "///" && other.alone && other.line == line)
        };
        let single = !doc_on(at.checked_sub(1).and_then(|at| comments.get(at)), comment.line.wrapping_sub(1))
            && !doc_on(comments.get(at + 1), comment.line + 1);
        if comment.mark == "///" && single && comment.text.split_whitespace().count() < LEAST_WORDS {
            faults.push((Kind::Short, comment.line, format!("`///{}` says no more than the name", comment.text)));
        }
    }
    faults
}

/// Complains about words for people, long lines and short doc comments in comments, unless a file has as many as
/// `allowed` says.
pub(crate) fn check_prose(tree: &Tree, allowed: &[(&str, [usize; 3])]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut left: BTreeMap<&str, [usize; 3]> = allowed.iter().copied().collect();
    let code = rust_files(tree, READ).map(|(file, text)| (file, faults(text)));
    let documents = tree
        .iter()
        .filter(|(file, _)| file.ends_with(".md") && DOCUMENTS.iter().any(|folder| file.starts_with(folder)))
        .map(|(file, text)| {
            (file.as_str(), text.lines().zip(1..).flat_map(|(text, line)| people(line, text)).collect())
        });
    for (file, faults) in code.chain(documents) {
        // Each kind against the number that is allowed.
        let allowed = left.remove(file).unwrap_or_default();
        for (kind, allowed) in [Kind::Person, Kind::Width, Kind::Short].into_iter().zip(allowed) {
            let found: Vec<_> = faults.iter().filter(|fault| fault.0 == kind).collect();
            if found.len() > allowed {
                complaints.extend(found.iter().map(|(_, line, what)| format!("{file}:{line}: {what}")));
            } else if found.len() < allowed {
                complaints.push(format!("{file}: {kind:?}: {allowed} are allowed and {} left", found.len()));
            }
        }
    }
    complaints.extend(left.keys().map(|file| format!("{file}: in the list of what is allowed, but not in the tree")));
    complaints
}

/// Complains about functions with more than [`MOST_LINES`] lines of code.
pub(crate) fn check_function_length(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in rust_files(tree, READ) {
        let code = code_of(text);
        for at in words(&code, "fn") {
            // A type like `fn(u32)` has no name, a declaration no body.
            let name: String =
                code[at + 2..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(open) = (!name.is_empty()).then(|| body_of(&code[at..])).flatten() else { continue };
            let end = block(&code, at + open);
            let length = text[at..end].lines().filter(|line| is_code(line)).count();
            if length > MOST_LINES {
                complaints.push(format!("{file}:{}: `{name}` has {length} lines of code", line_of(&code, at)));
            }
        }
    }
    complaints
}

/// Reports whether `line` is neither blank nor a comment.
fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}

/// Returns the position of the brace that opens the body of the function at the start of `code`, if it has one.
fn body_of(code: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

#[test]
fn complains_about_prose() {
    let long = format!("// {}\n", "a ".repeat(60));
    let text =
        format!("//! Whoever reads.\n{long}/// Short one.\nfn f() {{}} // nobody's\n/// Not short: two\n/// lines.\n");
    let table = format!("//! | {}\n/// a `whom`\n/// b\nconst WHO: &str = \"who\";\n/// Its name.\n", "a ".repeat(60));
    let bad = tree(&[
        ("src/a.rs", &text),
        ("examples/b.rs", &table),
        ("tests/c.rs", "// who"),
        ("docs/book/d.md", "\nwhom\n"),
    ]);
    let expected = [
        "b.rs:2: `whom`",
        "b.rs:5: `/// Its name.`",
        "a.rs:1: `Whoever`",
        "a.rs:4: `nobody`",
        "a.rs:2: 123",
        "a.rs:3: `/// Short",
        "d.md:2: `whom`",
    ];
    assert_complains(&check_prose(&bad, &[]), &expected);
    assert_none(&check_prose(
        &bad,
        &[("src/a.rs", [2, 1, 1]), ("examples/b.rs", [1, 0, 1]), ("docs/book/d.md", [1, 0, 0])],
    ));
    let allowed: &[(&str, [usize; 3])] = &[
        ("src/a.rs", [2, 2, 1]),
        ("examples/b.rs", [1, 0, 1]),
        ("docs/book/d.md", [1, 0, 0]),
        ("src/no.rs", [1, 0, 0]),
    ];
    assert_complains(&check_prose(&bad, allowed), &["a.rs: Width: 2 are allowed and 1 left", "no.rs: in the list"]);
}

#[test]
fn complains_about_long_functions() {
    let body = |lines: usize| "    g();\n    // a step\n\n".repeat(lines);
    let text =
        format!("fn short(a: [u8; 2]) {{\n{}}}\nfn declared(f: fn(u8));\nfn long() {{\n{}}}\n", body(68), body(69));
    assert_complains(&check_function_length(&tree(&[("src/a.rs", &text)])), &["`long` has 71 lines"]);
}
