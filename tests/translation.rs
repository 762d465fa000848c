//! A translation says what the original says, as far as a program can tell: the same code blocks, the same headings by
//! number, order and level, tables with the same rows and columns, the same links. And all links lead somewhere.
//!
//! ```text
//!   README.md                README.zh-CN.md
//!   DESIGN.md, chapter 17    docs/zh-CN/from-blocking-to-green.md
//! ```
//!
//! When you change an original: copy changed code blocks over as they are, and say the rest in Chinese. What this compares
//! is its shape, so a changed sentence goes unnoticed here. Each check is a function that returns complaints, and a test
//! shows each of them complaining.

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

/// The chapter of DESIGN.md that is translated.
const CHAPTER: &str = "17. ";

/// A chapter, from its heading to the next one's.
fn chapter<'a>(design: &'a str, number: &str) -> &'a str {
    let begin = design.find(&format!("\n## {number}")).expect("the chapter is there") + 1;
    let len = design[begin + 1..].find("\n## ").map_or(design.len() - begin, |len| len + 2);
    &design[begin..begin + len]
}

/// What the shape of a document is made of.
#[derive(Default)]
struct Shape<'a> {
    /// The level of each heading, and its text.
    headings: Vec<(usize, &'a str)>,
    /// Fenced blocks, with their first lines.
    blocks: Vec<String>,
    /// Number of columns of each row, for each table, and the table's first line.
    tables: Vec<(Vec<usize>, &'a str)>,
    /// Where links lead.
    links: Vec<&'a str>,
}

impl<'a> Shape<'a> {
    fn of(text: &'a str) -> Shape<'a> {
        let mut shape = Shape::default();
        let mut in_table = false;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("```") {
                let mut block = format!("{line}\n");
                for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                    block.push_str(line);
                    block.push('\n');
                }
                shape.blocks.push(block);
            } else if let Some((marks, title)) = line.split_once(' ')
                && !marks.is_empty()
                && marks.bytes().all(|byte| byte == b'#')
            {
                shape.headings.push((marks.len(), title));
            } else if line.starts_with('|') {
                if !in_table {
                    shape.tables.push((Vec::new(), line));
                }
                let columns = line.replace("\\|", "").matches('|').count() - 1;
                shape.tables.last_mut().expect("just begun").0.push(columns);
            }
            in_table = line.starts_with('|');
            shape.links.extend(line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
        }
        shape
    }
}

/// Compares a translation with its original. The one may be nested deeper in its document than the other, by as much
/// as their first headings are.
fn check_translation(original: &str, translation: &str, of: &str) -> Vec<String> {
    let (theirs, ours) = (Shape::of(original), Shape::of(translation));
    let mut complaints = Vec::new();
    let levels = |shape: &Shape| -> Vec<usize> {
        let first = shape.headings.first().map_or(0, |heading| heading.0);
        shape.headings.iter().map(|(level, _)| level - first.min(*level)).collect()
    };
    if levels(&theirs) != levels(&ours) {
        complaints.push(format!(
            "the headings differ from those of {of}, in number or level: translate the sections that are new, and \
             remove those that are gone.\n  there: {:#?}\n  here: {:#?}",
            theirs.headings, ours.headings
        ));
    }
    for block in theirs.blocks.iter().filter(|block| !ours.blocks.contains(block)) {
        complaints.push(format!("a code block of {of} is missing or differs: copy it over as it is:\n{block}```"));
    }
    for block in ours.blocks.iter().filter(|block| !theirs.blocks.contains(block)) {
        complaints.push(format!("a code block is not in {of} (any more): remove or replace it:\n{block}```"));
    }
    if complaints.is_empty() && theirs.blocks != ours.blocks {
        complaints.push(format!("the code blocks stand in another order than in {of}"));
    }
    if theirs.tables.len() != ours.tables.len() {
        complaints.push(format!("{} tables, and {} in {of}", ours.tables.len(), theirs.tables.len()));
    }
    for ((theirs, head), (ours, _)) in theirs.tables.iter().zip(&ours.tables) {
        if theirs != ours {
            complaints.push(format!(
                "the table that begins with `{head}` in {of} has {} rows there and {} here, or rows with other columns: \
                 translate the rows that are new",
                theirs.len(),
                ours.len()
            ));
        }
    }
    complaints
}

/// The mark that a heading gets on a page: lower case, words joined by dashes.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Follows the links of a document to files and headings. Those to other sites are not followed.
fn check_links(root: &Path, document: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for link in Shape::of(text).links.into_iter().filter(|link| !link.contains("://")) {
        let (path, mark) = link.split_once('#').unwrap_or((link, ""));
        let target = match path {
            "" => Some(text.to_owned()),
            path => {
                let path = root.join(document).parent().expect("it lies in a folder").join(path);
                // A folder is fine, and has no headings.
                fs::read_to_string(&path).ok().or_else(|| path.is_dir().then(String::new))
            }
        };
        let Some(target) = target else {
            complaints.push(format!("{document}: the link to {link} leads nowhere"));
            continue;
        };
        if !mark.is_empty() && !Shape::of(&target).headings.iter().any(|(_, title)| anchor(title) == mark) {
            complaints.push(format!("{document}: the link to {link} leads to no heading"));
        }
    }
    complaints
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_chinese_readme_has_the_shape_of_the_readme() {
    assert_none(&check_translation(&read("README.md"), &read("README.zh-CN.md"), "README.md"));
}

#[test]
fn the_chinese_chapter_has_the_shape_of_the_chapter() {
    let design = read("DESIGN.md");
    let translation = read("docs/zh-CN/from-blocking-to-green.md");
    assert_none(&check_translation(chapter(&design, CHAPTER), &translation, "chapter 17 of DESIGN.md"));
}

#[test]
fn links_lead_somewhere() {
    for document in
        ["README.md", "README.zh-CN.md", "docs/zh-CN/from-blocking-to-green.md", "DESIGN.md", "CHANGELOG.md"]
    {
        assert_none(&check_links(&root(), document, &read(document)));
    }
    let translation = read("README.zh-CN.md");
    assert!(Shape::of(&translation).links.contains(&"docs/zh-CN/from-blocking-to-green.md"));
    assert!(Shape::of(&read("README.md")).links.contains(&"README.zh-CN.md"));
}

// ---- each check complains -------------------------------------------------------------------------------------------

/// An original for the tests below.
const ORIGINAL: &str = "# One\n\nText.\n\n```rust\nlet a = 1;\n# hidden\n```\n\n## Two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n\
                        ```text\nshown\n```\n";

/// What is said of a translation of it.
fn said(translation: &str) -> String {
    check_translation(ORIGINAL, translation, "O").join("\n")
}

#[test]
fn a_translation_that_is_one_is_left_alone() {
    let same = ORIGINAL.replace("Two", "二").replace("Text", "文").replace("| a | b |", "| 甲 | 乙 \\| 丙 |");
    assert_eq!(said(&same), "");
    // One level deeper throughout, as a chapter is in its document.
    assert_eq!(said(&same.replace("## ", "### ").replace("# One", "## One")), "");
}

#[test]
fn complains_about_code_that_differs() {
    let complaint = said(&ORIGINAL.replace("a = 1", "a = 2"));
    assert!(complaint.contains("missing or differs: copy it over as it is:\n```rust\nlet a = 1;\n"), "{complaint}");
    assert!(complaint.contains("not in O (any more): remove or replace it:\n```rust\nlet a = 2;\n"), "{complaint}");
    let complaint = said(&ORIGINAL.replace("```text", "```rust"));
    assert!(complaint.contains("copy it over as it is:\n```text\nshown\n"), "{complaint}");
    let swapped = ORIGINAL.replace("let a = 1;\n# hidden", "?").replace("shown", "let a = 1;\n# hidden");
    let swapped = swapped.replace("```rust", "```").replace("```text", "```rust").replace("```\n?", "```text\nshown");
    assert_eq!(said(&swapped), "the code blocks stand in another order than in O");
}

#[test]
fn complains_about_headings_and_tables() {
    let complaint = said(&ORIGINAL.replace("## Two\n", ""));
    assert!(complaint.starts_with("the headings differ from those of O"), "{complaint}");
    assert!(said(&ORIGINAL.replace("## Two", "### Two")).starts_with("the headings differ"));
    let complaint = said(&ORIGINAL.replace("| 1 | 2 |\n", ""));
    assert!(
        complaint.starts_with("the table that begins with `| a | b |` in O has 3 rows there and 2 here"),
        "{complaint}"
    );
    assert!(said(&ORIGINAL.replace("| 1 | 2 |", "| 1 |")).starts_with("the table that begins with"));
    let complaint = said(&ORIGINAL.replace("| a | b |\n|---|---|\n| 1 | 2 |\n", ""));
    assert_eq!(complaint, "0 tables, and 1 in O");
}

#[test]
fn complains_about_links() {
    let text = "# A b, `c`\n[1](README.md) [2](nowhere.md) [3](#a-b-c) [4](#d) [5](https://example.org) [6](src)\n\
                [7](README.md#nowhere)\n";
    let expected = [
        "D.md: the link to nowhere.md leads nowhere",
        "D.md: the link to #d leads to no heading",
        "D.md: the link to README.md#nowhere leads to no heading",
    ];
    assert_eq!(check_links(&root(), "D.md", text), expected);
}

#[test]
fn a_chapter_ends_where_the_next_begins() {
    let design = "# D\n\n## 1. A\na\n\n### sub\n\n## 17. B\nb\n\n## 18. C\n";
    assert_eq!(chapter(design, "17. "), "## 17. B\nb\n\n");
    assert_eq!(chapter(design, "18. "), "## 18. C\n");
}
