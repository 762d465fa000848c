//! Names in comments: invariants, identifiers in backquotes, and tables of files.

use std::collections::{BTreeMap, BTreeSet};

use super::scanner::{Comment, comments_of, is_word, without_comments};
use super::tree::{Tree, assert_complains, assert_none, rust_files, sources, tree};

/// Finds the words in `text` that look like labels, with their positions.
fn labels(text: &str) -> Vec<(usize, &str)> {
    let is_part = |byte: u8| byte == b'-' || is_word(byte);
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|&&byte| is_part(byte)).count();
        if is_label(&text[at..at + length]) {
            found.push((at, &text[at..at + length]));
        }
        at += length.max(1);
    }
    found
}

/// Reports whether `word` looks like `timer-wheel-3`.
fn is_label(word: &str) -> bool {
    let Some((stem, number)) = word.rsplit_once('-') else { return false };
    let lower = |c: char| c.is_ascii_lowercase() || c == '-' || c == '_';
    stem.starts_with(|c: char| c.is_ascii_lowercase())
        && stem.chars().all(lower)
        && !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit())
}

/// Reports whether `word` is one of the rules C1 to C27 of Python's greenlet.
fn is_rule(word: &str) -> bool {
    word.strip_prefix('C').and_then(|number| number.parse().ok()).is_some_and(|number: u32| (1..=27).contains(&number))
}

/// Reports whether `word` looks like `F2`: the form of Python's rules, which say nothing about the file.
fn is_short_label(word: &str) -> bool {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_uppercase());
    word.len() - digits.len() == 1 && (1..=2).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit())
}

/// Returns the label that a comment defines: `Invariant fiber-2: ..`, or in a list `- fiber-2: ..`.
fn definition(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let item = text.strip_prefix("* ").or(text.strip_prefix("- "));
    let bare = item.unwrap_or(text);
    let named = bare.strip_prefix("Invariant ").or(item)?.trim_start_matches("**");
    let (label, _) = named.split_once(':')?;
    let label = label.trim_end_matches("**");
    (is_label(label) || is_short_label(label)).then_some(label)
}

/// Complains about labels of invariants that are defined twice, or cited and not defined, and about labels of the short
/// form, which are Python's rules. The documents are those whose paths begin with one of `folders`.
pub(crate) fn check_labels(tree: &Tree, folders: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut defined: BTreeMap<&str, String> = BTreeMap::new();
    // Definitions.
    for (file, text) in rust_files(tree, &["src/"]) {
        for comment in comments_of(text) {
            let Some(label) = definition(comment.text).filter(|_| comment.mark != "//") else { continue };
            let place = format!("{file}:{}", comment.line);
            if is_short_label(label) && !is_rule(label) {
                // Complained about below, as each citation.
            } else if is_rule(label) {
                complaints.push(format!("{place}: `{label}` should be a name like `fiber-2`"));
            } else if let Some(first) = defined.get(label) {
                complaints.push(format!("{place}: `{label}` is defined in {first} already"));
            } else {
                defined.insert(label, place);
            }
        }
    }
    // Citations. A word counts as one if some label has its stem, or if "invariant" precedes it.
    let stem = |label: &str| label.rsplit_once('-').map(|(stem, _)| stem.to_owned());
    let stems: BTreeSet<String> = defined.keys().filter_map(|label| stem(label)).collect();
    let mut cited = |place: String, text: &str| {
        for word in identifiers(text).filter(|word| is_short_label(word) && !is_rule(word)) {
            complaints.push(format!("{place}: `{word}` should be a name like `fiber-2`"));
        }
        for (at, label) in labels(text) {
            let before = text[..at].trim_end().to_ascii_lowercase();
            let named = before.ends_with("invariant") || before.ends_with("invariants");
            let known = named || stem(label).is_some_and(|stem| stems.contains(&stem));
            if known && !defined.contains_key(label) {
                complaints.push(format!("{place}: `{label}` is not defined"));
            }
        }
    };
    for (file, text) in rust_files(tree, &["src/"]) {
        for Comment { line, text, .. } in comments_of(text) {
            cited(format!("{file}:{line}"), text);
        }
    }
    let documents = tree.iter().filter(|(file, _)| folders.iter().any(|folder| file.starts_with(folder)));
    for (file, text) in documents {
        for (number, line) in text.lines().enumerate() {
            cited(format!("{file}:{}", number + 1), line);
        }
    }
    complaints
}

/// Returns the identifiers in `text`.
fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c == '_' || c.is_alphanumeric())).filter(|word| !word.is_empty())
}

/// Returns the parts of a name in backquotes, if it is a path, a field or a call of such: `Hub::poll()`, `self.queue`.
fn parts(name: &str) -> Option<Vec<&str>> {
    let path = name.strip_suffix("()").unwrap_or(name);
    let word = |part: &str| part.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    let parts: Vec<&str> = path.split("::").flat_map(|part| part.split('.')).collect();
    let only_words = parts.iter().all(|part| word(part) && part.bytes().all(is_word));
    only_words.then_some(parts)
}

/// Complains about names in backquotes in comments of `src` that the code does not have.
pub(crate) fn check_backquoted(tree: &Tree, foreign: &[&str]) -> Vec<String> {
    // What there is: identifiers and strings of the code (but not of this test), modules, packages.
    let code: Vec<String> = rust_files(tree, &["src/", "tests/", "examples/", "benches/"])
        .filter(|(file, _)| !file.starts_with("tests/tidy"))
        .map(|(_, text)| without_comments(text))
        .collect();
    let mut known: BTreeSet<&str> = code.iter().flat_map(|code| identifiers(code)).collect();
    for (file, text) in tree {
        known.extend(identifiers(file));
        if file.ends_with(".toml") {
            known.extend(identifiers(text));
        }
    }
    let mut unused: BTreeSet<&str> = foreign.iter().copied().collect();
    // Constants of the kernel and the C library: the code need not use each one that a comment explains.
    let constant = |part: &str| {
        part.len() > 3 && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_' || byte.is_ascii_digit())
    };
    let is_file = |name: &str| tree.keys().any(|file| file == name || file.ends_with(&format!("/{name}")));
    let mut complaints = Vec::new();
    for (file, text) in rust_files(tree, &["src/"]) {
        let mut fenced = false;
        for Comment { line, text, .. } in comments_of(text) {
            if text.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced || text.contains("```") {
                continue;
            }
            for name in text.split('`').skip(1).step_by(2) {
                let missing = if name.ends_with(".rs") || name.ends_with(".md") {
                    (!is_file(name)).then_some(name)
                } else {
                    let parts = parts(name).unwrap_or_default();
                    parts.into_iter().find(|part| {
                        unused.remove(part);
                        !known.contains(part) && !constant(part) && !foreign.contains(part)
                    })
                };
                if let Some(missing) = missing {
                    complaints.push(format!("{file}:{line}: `{name}`: there is no `{missing}`"));
                }
            }
        }
    }
    complaints
        .extend(unused.iter().map(|name| format!("`{name}` is in the list of foreign names, but no comment has it")));
    complaints
}

/// Complains about files that the table of their folder leaves out, and about rows without a file. A table of files in
/// a `mod.rs` begins with the heading "file".
pub(crate) fn check_file_tables(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in sources(tree) {
        let Some(folder) = file.strip_suffix("mod.rs") else { continue };
        let rows = comments_of(text);
        let Some(head) = rows.iter().position(|row| row.text.trim_start().starts_with("| file |")) else { continue };
        // The first cell of each row, and the files of the folder.
        let cells = rows[head + 1..].iter().map(|row| row.text.trim_start()).take_while(|row| row.starts_with('|'));
        let named: BTreeSet<&str> =
            cells.filter_map(|row| row.split('`').nth(1)).map(|name| name.trim_end_matches('/')).collect();
        let there: BTreeSet<&str> = sources(tree)
            .filter_map(|(other, _)| other.strip_prefix(folder))
            .filter_map(|below| below.split('/').next())
            .map(|name| name.strip_suffix(".rs").unwrap_or(name))
            .filter(|name| *name != "mod")
            .collect();
        complaints
            .extend(there.difference(&named).map(|name| format!("{file}: the table of files leaves out `{name}`")));
        complaints.extend(
            named.difference(&there).map(|name| format!("{file}: the table of files has `{name}`, which is not there")),
        );
    }
    complaints
}

#[test]
fn complains_about_labels() {
    let bad = tree(&[
        (
            "src/a.rs",
            "//! Invariant a-file-1: first.\n//! * Invariant a-file-2: second, see Invariant b-1.\n// a-file-3, UTF-8\n",
        ),
        (
            "src/b.rs",
            "//! - b-1: one.\n//! - **C2**: a rule. F2.\n// b-1: cited with a colon. Invariant c-4 is not there. x86-64\n",
        ),
        ("src/c.rs", "/// - b-1: again.\n// - b-1: not a definition.\n"),
        ("docs/book/x.md", "a-file-1, a-file-9, glibc-2, C7, C28\n"),
    ]);
    let expected = [
        "b.rs:2: `C2` should",
        "c.rs:1: `b-1` is defined in src/b.rs:1",
        "a.rs:3: `a-file-3`",
        "b.rs:2: `F2` should",
        "b.rs:3: `c-4`",
        "x.md:1: `C28` should",
        "x.md:1: `a-file-9`",
    ];
    assert_complains(&check_labels(&bad, &["docs/book/"]), &expected);
}

#[test]
fn complains_about_backquoted_names() {
    let bad = tree(&[
        (
            "src/a.rs",
            "//! `b.rs`, `gone.rs`, `f()`, `no()`, `Type::field`, `Type::nothing`, `a b`, `EAGAIN`, `longjmp`, `docs/x.md`\n//! ```\n//! `free`\n//! ```\nfn f() -> Type { x.field }\n",
        ),
        ("src/b.rs", "// `lost`\n"),
        ("docs/x.md", "`also free`"),
    ]);
    let expected = ["a.rs:1: `gone.rs`", "`no()`: there is no `no`", "there is no `nothing`", "b.rs:1: `lost`"];
    assert_complains(&check_backquoted(&bad, &["longjmp"]), &expected);
    assert_complains(&check_backquoted(&tree(&[]), &["longjmp"]), &["`longjmp` is in the list"]);
}

#[test]
fn complains_about_file_tables() {
    let bad = tree(&[
        (
            "src/a/mod.rs",
            "//! | file | what |\n//! |---|---|\n//! | `x` | is `z` |\n//! | `gone` | |\n//!\n//! | `other` | |\n",
        ),
        ("src/a/x.rs", ""),
        ("src/a/y.rs", ""),
        ("src/a/w/mod.rs", "//! no table"),
    ]);
    assert_complains(&check_file_tables(&bad), &["leaves out `w`", "leaves out `y`", "has `gone`"]);
    assert_none(&check_file_tables(&tree(&[("src/a/mod.rs", "//! | type | |\n"), ("src/a/x.rs", "")])));
}
