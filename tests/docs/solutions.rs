//! The numbers of the book: each place that says what breaks without something, and each exercise, has one; each number
//! has its section in `docs/solutions`, and its patch, if it has one, fits the sources. (Whether a patch breaks what it
//! says is for `cargo run --example break -- --all`, which `.ci/run break` runs.)
//!
//! ```text
//!   docs/book/06-..md    ([6.1](../solutions/patches/6.1.patch))    **6.4, the permit**    `break -- --solution 16.1`
//!   docs/solutions/06-..md    ## 6.1 Title of the patch             ## 6.6 An exercise without a patch
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::patch::Patch;
use crate::{assert_none, chapters, read, root, sources, test_files};

/// Returns a number of a chapter, such as `6.1`, that begins `text`.
fn number(chapter: u32, text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].trim_end_matches('.');
    let (of, place) = number.split_once('.')?;
    (of.parse() == Ok(chapter) && place.parse::<u32>().is_ok()).then(|| number.to_owned())
}

/// Returns the numbers that a chapter names: in links to patches, in commands, and in bold, at the head of an exercise.
fn named(chapter: u32, text: &str) -> BTreeSet<String> {
    let marks = ["solutions/patches/", "--example break -- ", "--example break -- --solution "];
    let linked = marks.iter().flat_map(|mark| text.split(mark).skip(1)).filter_map(|rest| number(chapter, rest));
    let bold = text.split("**").skip(1).step_by(2).flat_map(str::split_whitespace);
    linked.chain(bold.filter_map(|word| number(chapter, word))).collect()
}

/// The sections of a page of solutions: number, title and text.
fn sections(chapter: u32, page: &str) -> BTreeMap<String, (&str, &str)> {
    let sections = page.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'));
    let numbered = sections.filter_map(|(head, text)| {
        let (first, title) = head.split_once(' ')?;
        Some((number(chapter, first)?, (title, text)))
    });
    numbered.collect()
}

/// The text with single spaces between its words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Compares the numbers of a chapter with its page of solutions and with the patches.
fn check_numbers(chapter: u32, text: &str, page: &str, patches: &[Patch]) -> Vec<String> {
    let (named, sections) = (named(chapter, text), sections(chapter, page));
    let mut complaints = Vec::new();
    for number in named.iter().filter(|number| !sections.contains_key(*number)) {
        complaints.push(format!("docs/solutions has no section {number}, which chapter {chapter} names"));
    }
    for number in sections.keys().filter(|number| !named.contains(*number)) {
        complaints.push(format!("chapter {chapter} does not name {number}, which has a section in docs/solutions"));
    }
    for patch in patches.iter().filter(|patch| patch.order().0 == chapter) {
        let number = &patch.number;
        let command = if patch.solves { "-- --solution " } else { "-- " };
        let command = format!("`cargo run --example break {command}{number}`");
        let has_all = |(title, text): &(&str, &str)| {
            let text = words(text);
            *title == patch.title && text.contains(&command) && patch.why.iter().all(|why| text.contains(&words(why)))
        };
        match sections.get(number) {
            Some(section) if has_all(section) => {}
            Some(_) => {
                complaints.push(format!("the section {number} lacks the patch's title, its reason, or {command}"))
            }
            None => complaints.push(format!("there is a patch {number}, and no section in docs/solutions")),
        }
    }
    for (number, (_, text)) in &sections {
        let has_patch = patches.iter().any(|patch| patch.number == *number);
        if !has_patch && (text.contains("--example break") || text.trim().is_empty()) {
            complaints.push(format!("the section {number} has no patch, or says nothing"));
        }
    }
    complaints
}

/// Checks that a chapter ends with five questions that have answers.
fn check_questions(chapter: &str, text: &str) -> Vec<String> {
    let Some((_, questions)) = text.split_once("\n## Questions\n") else {
        return vec![format!("{chapter}: no questions")];
    };
    let mut complaints = Vec::new();
    let mut rest = questions;
    for number in 1..=5 {
        let begin = format!("\n**{number}. ");
        let question =
            rest.strip_prefix(&begin).and_then(|rest| rest.split_once("**\n\n<details><summary>Answer</summary>\n\n"));
        let parts = question.and_then(|(question, rest)| Some((question, rest.split_once("\n\n</details>\n")?)));
        match parts {
            Some((question, (answer, left))) if question.ends_with('?') && !answer.contains("<details>") => rest = left,
            _ => {
                complaints.push(format!("{chapter}: no question {number} with its answer"));
                return complaints;
            }
        }
    }
    if !rest.trim().is_empty() {
        complaints.push(format!("{chapter}: something comes after the questions"));
    }
    complaints
}

/// The patches.
fn patches() -> Vec<Patch> {
    let folder = root().join("docs/solutions/patches");
    let names = fs::read_dir(folder).expect("the folder of patches").map(|entry| entry.expect("an entry").file_name());
    let parse = |name: String| {
        let text = read(&format!("docs/solutions/patches/{name}"));
        Patch::parse(&name, &text).unwrap_or_else(|error| panic!("{error}"))
    };
    names.map(|name| parse(name.into_string().expect("plain names"))).collect()
}

/// The number of a chapter by its name, `docs/book/06-park-and-unpark.md`.
fn chapter_number(name: &str) -> u32 {
    name["docs/book/".len()..].split('-').next().and_then(|digits| digits.parse().ok()).expect("a number")
}

#[test]
fn each_number_of_the_book_has_a_solution_and_each_solution_a_number() {
    let patches = patches();
    assert!(patches.len() > 60, "{}", patches.len());
    let mut complaints = Vec::new();
    for name in chapters() {
        let chapter = chapter_number(&name);
        let page = fs::read_to_string(root().join(name.replace("/book/", "/solutions/"))).unwrap_or_default();
        complaints.extend(check_numbers(chapter, &read(&name), &page, &patches));
    }
    assert_none(&complaints);
}

#[test]
fn each_patch_fits_the_sources() {
    let text = |file: &str| fs::read_to_string(root().join(file)).ok();
    let complaints = patches().iter().filter_map(|patch| patch.apply(text).err()).collect::<Vec<_>>();
    assert_none(&complaints);
}

/// Complains about tests that a patch names and that neither `tests`, all the code there is, nor the patch has.
fn check_tests(patches: &[Patch], tests: &str) -> Vec<String> {
    let name = |patch: &Patch| patch.filter.rsplit("::").next().map(str::to_owned).filter(|name| !name.is_empty());
    let is_there =
        |patch: &Patch, name: &str| [tests, &patch.diff].iter().any(|text| text.contains(&format!("fn {name}(")));
    let missing = patches.iter().filter_map(|patch| Some((patch, name(patch)?)));
    let missing = missing.filter(|(patch, name)| !is_there(patch, name));
    missing.map(|(patch, name)| format!("the patch {} runs {name}, which is nowhere", patch.number)).collect()
}

#[test]
fn each_test_that_a_patch_runs_is_there() {
    let tests = test_files().into_iter().map(|path| fs::read_to_string(path).expect("a test is readable"));
    let sources = sources().into_iter().map(|file| read(&format!("src/{file}")));
    assert_none(&check_tests(&patches(), &sources.chain(tests).collect::<String>()));
}

#[test]
fn each_chapter_ends_with_five_questions() {
    assert_none(&chapters().iter().flat_map(|name| check_questions(name, &read(name))).collect::<Vec<_>>());
}

#[test]
fn each_paragraph_of_the_book_about_what_breaks_has_a_number() {
    let mut complaints = Vec::new();
    for name in chapters() {
        for paragraph in read(&name).split("\n\n").filter(|paragraph| paragraph.starts_with("**What breaks without")) {
            let is_a_table = paragraph.ends_with(':');
            if !is_a_table && !paragraph.contains("(../solutions/patches/") {
                complaints.push(format!("{name}: no number in \"{}\"", paragraph.lines().next().unwrap_or_default()));
            }
        }
    }
    assert_none(&complaints);
}

// ---- each check complains -------------------------------------------------------------------------------------------

/// A patch for tests.
fn patch(name: &str, diff: &str) -> Patch {
    let text = format!("A title\n\nRun: lib a::b\nEnds: fails\n\nBecause.\n\n{diff}");
    Patch::parse(name, &text).unwrap()
}

const DIFF: &str = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n@@ -9 +9 @@\n-nine\n+9\n";

#[test]
fn complains_about_numbers() {
    let text = "x ([6.1](../solutions/patches/6.1.patch)) **6.2, two** `--example break -- --solution 6.3` 6.4 7.1";
    let page = "# P\n\n## 6.1 A title\n\n`cargo run --example break -- 6.1`\n\nBecause.\n\n## 6.2 T\n\nt\n\n\
                ## 6.3 A title\n\n`cargo run --example break -- --solution 6.3`\n\nBecause.\n";
    let patches = [patch("6.1.patch", DIFF), patch("6.3.solution.patch", DIFF)];
    assert_eq!(check_numbers(6, text, page, &patches), [""; 0]);
    let other = page.replace("## 6.2 T\n\nt", "## 6.5 T\n\nt").replace("6.1 A", "6.1 No");
    let expected = [
        "docs/solutions has no section 6.2, which chapter 6 names",
        "chapter 6 does not name 6.5, which has a section in docs/solutions",
        "the section 6.1 lacks the patch's title, its reason, or `cargo run --example break -- 6.1`",
    ];
    assert_eq!(check_numbers(6, text, &other, &patches), expected);
    let alone = check_numbers(6, "", "", &patches[..1]);
    assert_eq!(alone, ["there is a patch 6.1, and no section in docs/solutions"]);
    let silent = check_numbers(6, "**6.2**", "\n## 6.2 T\n\n", &[]);
    assert_eq!(silent, ["the section 6.2 has no patch, or says nothing"]);
}

#[test]
fn complains_about_patches() {
    let old = "zero\none\ntwo\nthree\nnine\n".to_owned();
    let patch = patch("6.1.patch", DIFF);
    let changed = patch.apply(|_| Some(old.clone())).unwrap();
    assert_eq!(changed["f"], "zero\none\n2\nthree\n9\n");
    let error = patch.apply(|_| Some(old.replace("nine", "ten"))).unwrap_err();
    assert_eq!(error, "6.1 does not fit f any more: these lines are not there\nnine");
    assert!(patch.apply(|_| None).is_err());
    assert_eq!(check_tests(std::slice::from_ref(&patch), "fn bc("), ["the patch 6.1 runs b, which is nowhere"]);
    assert_eq!(check_tests(&[patch], "fn b() {}"), [""; 0]);
    let parse = |name, text| Patch::parse(name, text).unwrap_err();
    assert_eq!(parse("a.txt", ""), "a.txt: no patch by its name");
    assert_eq!(parse("6.1.patch", "T\n\nRun: lib\n\nx\n"), "6.1.patch: there is no diff in it");
    assert_eq!(parse("6.1.patch", "T\n\nEnds: fails\n\nx\n\n--- a/f\n"), "6.1.patch: no line \"Run:\"");
    let ends = parse("6.1.patch", "T\n\nRun: lib\nEnds: well\n\nx\n\n--- a/f\n");
    assert_eq!(ends, "6.1.patch: \"Ends: well\" is none of the ways to end");
    assert_eq!(parse("6.1.patch", "T\n\nRun: lib\nEnds: fails\n\n--- a/f\n"), "6.1.patch: it does not say why");
}

#[test]
fn complains_about_questions() {
    let question =
        |number: usize| format!("\n**{number}. Why?**\n\n<details><summary>Answer</summary>\n\nSo.\n\n</details>\n");
    let whole = format!("# C\n\n## Questions\n{}", (1..=5).map(question).collect::<String>());
    assert_eq!(check_questions("c", &whole), [""; 0]);
    assert_eq!(check_questions("c", "# C\n"), ["c: no questions"]);
    assert_eq!(check_questions("c", &whole.replace("3. Why?", "3. Why.")), ["c: no question 3 with its answer"]);
    assert_eq!(check_questions("c", &(whole + "\nMore.\n")), ["c: something comes after the questions"]);
}
