//! A translation says what the original says, as far as a program can tell: the same headings by number, order and
//! level, tables with the same rows and columns, the same code, commands and numbers, whatever stands between
//! backquotes, and the terms of the glossary. And all links lead somewhere.
//!
//! ```text
//!   README.md                README.zh-CN.md
//!   docs/PATH                docs/zh-CN/PATH         whatever is there, but for the pages in `OWN`
//! ```
//!
//! When you change an original, do to the translation what the complaint says, and say the rest in Chinese. What this
//! compares is shape, code and terms, so a changed sentence goes unnoticed here. Code is copied, with its comments
//! translated; what a program prints is copied, with a translation behind `# ` at the end of a line where one is wanted;
//! pictures and tables in text are translated in place. `docs/zh-CN/glossary.md` has the terms, and what is not to be
//! written. Each check is a function that returns complaints, and a test shows each of them complaining.

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

/// The folder of the Chinese pages.
const CHINESE: &str = "docs/zh-CN";

/// The glossary: the terms, and what is not to be written.
const GLOSSARY: &str = "docs/zh-CN/glossary.md";

/// The heads of the programs of `examples/steps`: the pictures and the invariants.
const HEADS: &str = "docs/zh-CN/steps/heads.md";

/// The programs that it is about.
const STEPS: [&str; 8] = [
    "step_01_switch.rs",
    "step_02_fiber.rs",
    "step_03_guard.rs",
    "step_04_queue.rs",
    "step_05_values.rs",
    "step_06_panic.rs",
    "step_07_park.rs",
    "step_08_echo.rs",
];

/// The Chinese pages that have no page as their original.
const OWN: [&str; 2] = [GLOSSARY, HEADS];

/// The first words of lines that are typed, and therefore the same in every language.
const COMMANDS: [&str; 6] = ["$", "cargo", "cd", "nc", "python3", "strace"];

/// The files below a folder.
fn files_below(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(folder)).expect("a folder of documents is readable") {
        let entry = entry.expect("an entry");
        let name = format!("{folder}/{}", entry.file_name().display());
        match entry.path().is_dir() {
            true => files.extend(files_below(&name)),
            false => files.push(name),
        }
    }
    files
}

/// The translations, each with its original: `(original, translation)`.
fn translations() -> Vec<(String, String)> {
    let pages = files_below(CHINESE).into_iter();
    let pages = pages.filter(|page| page.ends_with(".md") && !OWN.contains(&&page[..]));
    let pairs = pages.map(|page| (page.replacen("/zh-CN", "", 1), page));
    pairs.chain([("README.md".to_owned(), "README.zh-CN.md".to_owned())]).collect()
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

/// Whether there is Chinese in a text.
fn has_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

/// Whether there are three English words in a row.
fn has_english(text: &str) -> bool {
    let is_word = |word: &&str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let words: Vec<bool> =
        text.split_whitespace().map(|word| is_word(&word.trim_end_matches([',', '.', ':']))).collect();
    words.windows(3).any(|three| three == [true; 3])
}

/// A line of code, and its comment.
fn split_comment(line: &str) -> (&str, &str) {
    let starts = line.match_indices("//").map(|(at, _)| at);
    let at = starts.filter(|&at| !line[..at].ends_with(':')).min().unwrap_or(line.len());
    line.split_at(at)
}

/// The numbers in a text, in their order.
fn numbers(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()).collect()
}

/// The words in Latin letters in a text.
fn latin_words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.len() > 1 && !word.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Compares a block with its original, by the rules at the top. Returns what is wrong.
fn check_block(theirs: &str, ours: &str) -> Option<String> {
    if theirs.lines().count() != ours.lines().count() {
        return Some("another number of lines".to_owned());
    }
    let info = theirs.lines().next().unwrap_or_default();
    let language = info.trim_start_matches('`').split([' ', ',']).next().unwrap_or_default();
    // What names a file quotes it, and is compared with it elsewhere.
    let quotes = info.split(' ').nth(1).is_some_and(|path| path.contains('/'));
    for (their_line, our_line) in theirs.lines().zip(ours.lines()) {
        let (their_code, their_comment) = split_comment(their_line);
        let (our_code, our_comment) = split_comment(our_line);
        let first_word = their_line.split_whitespace().next().unwrap_or_default();
        let same = match language {
            _ if quotes || their_line.starts_with("```") || COMMANDS.contains(&first_word) => their_line == our_line,
            "rust" | "diff" => their_code == our_code && their_comment.is_empty() == our_comment.is_empty(),
            "console" | "broken" | "exercise" => {
                our_line.strip_prefix(their_line).is_some_and(|rest| rest.is_empty() || rest.starts_with("  # "))
            }
            _ => numbers(their_line) == numbers(our_line),
        };
        if !same {
            return Some(format!("`{our_line}` is not the translation of `{their_line}`"));
        }
        if language == "rust" && has_english(their_comment) && !has_chinese(our_comment) {
            return Some(format!("the comment is not translated: `{our_line}`"));
        }
    }
    let foreign = latin_words(ours).find(|word| !latin_words(theirs).any(|their| their == *word));
    if let Some(word) = foreign {
        return Some(format!("the word `{word}` is not there"));
    }
    let is_text = !quotes && matches!(language, "text" | "console" | "");
    let wants_chinese = theirs.lines().any(|line| has_english(line) && !COMMANDS.iter().any(|c| line.starts_with(c)));
    (is_text && wants_chinese && !has_chinese(ours)).then(|| "nothing is translated".to_owned())
}

/// What stands between backquotes, outside of blocks. A span may go over the end of a line.
fn spans(text: &str) -> BTreeSet<String> {
    let mut paragraphs = vec![String::new()];
    for line in text.split("```").step_by(2).flat_map(str::lines) {
        match line.trim() {
            "" => paragraphs.push(String::new()),
            line => {
                let paragraph = paragraphs.last_mut().expect("there is one");
                paragraph.push_str(line);
                paragraph.push(' ');
            }
        }
    }
    let spans = |paragraph: &String| paragraph.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    paragraphs.iter().flat_map(spans).collect()
}

/// Checks that a translation names whatever its original names between backquotes: a sentence that is new there has such
/// a name as a rule.
fn check_spans(original: &str, translation: &str, of: &str) -> Vec<String> {
    let ours = spans(translation);
    let missing = spans(original).into_iter().filter(|span| !ours.contains(span));
    missing.map(|span| format!("`{span}` is in {of}, and not here: a sentence is missing or old")).collect()
}

/// The glossary: rows of the table of terms, and of that of what is not to be written.
struct Glossary {
    /// An English term, and the Chinese ones for it.
    terms: Vec<(String, Vec<String>)>,
    /// What is not to be written, and what is.
    avoided: Vec<(String, String)>,
}

impl Glossary {
    fn of(text: &str) -> Glossary {
        let tables = text.split("\n## ").map(|section| {
            let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|--"));
            let cells = rows.skip(1).map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()));
            cells.map(Iterator::collect::<Vec<String>>).collect::<Vec<_>>()
        });
        let mut tables = tables.filter(|table| !table.is_empty());
        let terms = tables.next().expect("a table of terms");
        let several = |cell: &str| cell.split('、').map(str::to_owned).collect::<Vec<_>>();
        let terms = terms.into_iter().map(|row| (row[0].clone(), several(&row[1]))).collect();
        let avoided = tables.next().expect("a table of what is not to be written");
        let avoided = avoided.into_iter().flat_map(|row| {
            several(&row[0]).into_iter().map(move |avoided| (avoided, row[1].clone())).collect::<Vec<_>>()
        });
        Glossary { terms, avoided: avoided.collect() }
    }
}

/// Checks that a translation has the terms of those that its original has, and nothing that is not to be written.
fn check_terms(glossary: &Glossary, original: &str, translation: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let prose = |text: &str| text.split("```").step_by(2).collect::<String>();
    let without_code = |text: String| text.split('`').step_by(2).collect::<Vec<_>>().join("_").to_lowercase();
    let (original, prose) = (without_code(prose(original)), prose(translation));
    for (term, chinese) in &glossary.terms {
        let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || "_-`:/.(".contains(c));
        let is_used = original.match_indices(&term[..]).any(|(at, _)| {
            let after = original[at + term.len()..].trim_start_matches('s').chars().next();
            !is_letter(original[..at].chars().next_back())
                && !after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        if is_used && !chinese.iter().any(|chinese| prose.contains(chinese)) {
            complaints
                .push(format!("`{term}` is {} here, says the glossary, and that is nowhere", chinese.join(" or ")));
        }
    }
    for (avoided, better) in &glossary.avoided {
        if let Some(line) = translation.lines().find(|line| line.contains(&avoided[..])) {
            complaints.push(format!("\u{201c}{avoided}\u{201d}, better \u{201c}{better}\u{201d}: {line}"));
        }
    }
    complaints
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
    if theirs.blocks.len() != ours.blocks.len() {
        complaints.push(format!(
            "{} code blocks, and {} in {of}: copy those over that are new, and remove those that are gone",
            ours.blocks.len(),
            theirs.blocks.len()
        ));
    }
    complaints.extend(theirs.blocks.iter().zip(&ours.blocks).filter_map(|(theirs, ours)| {
        let complaint = check_block(theirs, ours)?;
        Some(format!("{complaint}, in this block of {of}:\n{theirs}```\nwhich is here:\n{ours}```"))
    }));
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
fn a_translation_has_the_shape_and_the_code_of_its_original() {
    let pairs = translations();
    assert!(pairs.len() > 10, "{pairs:?}");
    let complaints = pairs.into_iter().flat_map(|(original, translation)| {
        let (theirs, ours) = (read(&original), read(&translation));
        let complaints = check_translation(&theirs, &ours, &original).into_iter();
        complaints
            .chain(check_spans(&theirs, &ours, &original))
            .map(move |complaint| format!("{translation}: {complaint}"))
    });
    assert_none(&complaints.collect::<Vec<_>>());
}

#[test]
fn a_translation_has_the_terms_of_the_glossary() {
    let glossary = Glossary::of(&read(GLOSSARY));
    assert!(glossary.terms.len() > 30 && glossary.avoided.len() > 10, "the glossary is not what it was");
    let complaints = translations().into_iter().flat_map(|(original, translation)| {
        let complaints = check_terms(&glossary, &read(&original), &read(&translation));
        complaints.into_iter().map(move |complaint| format!("{translation}: {complaint}"))
    });
    assert_none(&complaints.collect::<Vec<_>>());
}

#[test]
fn the_chinese_chart_differs_from_the_chart_in_its_labels_only() {
    let (theirs, ours) = (read("docs/compare_models.svg"), read("docs/zh-CN/compare_models.svg"));
    assert_eq!(theirs.lines().count(), ours.lines().count());
    for (their_line, our_line) in theirs.lines().zip(ours.lines()) {
        assert!(their_line == our_line || has_chinese(our_line), "`{our_line}` in place of `{their_line}`");
    }
    assert!(!ours.lines().any(has_english), "a label is not translated");
}

/// The names of the invariants in a text.
fn invariants(text: &str) -> BTreeSet<&str> {
    text.split("* Invariant ").skip(1).filter_map(|rest| rest.split(':').next()).collect()
}

#[test]
fn the_heads_of_the_steps_are_translated() {
    let heads = read(HEADS);
    for name in STEPS {
        let section = heads.split("\n## ").find(|section| section.contains(&format!("/{name}`")));
        let section = section.unwrap_or_else(|| panic!("{HEADS} has no section about {name}"));
        let code = read(&format!("examples/steps/{name}"));
        let head: Vec<&str> = code.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let head = head.join("\n");
        let picture = |text: &str| {
            let lines = text.split("```").nth(1).expect("a picture").lines();
            lines.filter(|line| !line.trim().is_empty()).count()
        };
        assert_eq!(picture(section), picture(&head), "{HEADS}: the picture of {name}");
        let names = invariants(&head).into_iter();
        let missing: Vec<&str> = names.filter(|name| !section.contains(&format!("{name}："))).collect();
        assert!(missing.is_empty(), "{HEADS}: {name} has the invariants {missing:?}");
    }
}

#[test]
fn links_lead_somewhere() {
    let folders = ["docs/book", "docs/steps", "docs/solutions", CHINESE].into_iter().flat_map(files_below);
    let chapters = folders.filter(|file| file.ends_with(".md"));
    let others = ["README.md", "README.zh-CN.md", "DESIGN.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let below = ["docs/files.md", "docs/ladder.md", "docs/measurements.md", "docs/examination.md"];
    let others = others.into_iter().chain(below).map(str::to_owned);
    for document in chapters.chain(others) {
        assert_none(&check_links(&root(), &document, &read(&document)));
    }
    let translation = read("README.zh-CN.md");
    assert!(Shape::of(&translation).links.contains(&"docs/zh-CN/steps/README.md"));
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
fn complains_about_blocks_that_differ() {
    let complaint = said(&ORIGINAL.replace("a = 1", "a = 2"));
    assert!(complaint.starts_with("`let a = 2;` is not the translation of `let a = 1;`"), "{complaint}");
    assert!(said(&ORIGINAL.replace("```text", "```rust")).contains("is not the translation of `"), "{complaint}");
    assert!(said(&ORIGINAL.replace("# hidden\n", "")).starts_with("another number of lines"));
    assert!(said(&ORIGINAL.replace("```text\nshown\n```\n", "")).starts_with("1 code blocks, and 2 in O"));
}

/// What is said of a block in place of another.
fn said_of_block(theirs: &str, ours: &str) -> Option<String> {
    check_block(theirs, ours)
}

#[test]
fn code_is_copied_and_comments_are_translated() {
    let theirs = "```rust\nlet a = \"http://x\"; // the first of them\n";
    assert_eq!(said_of_block(theirs, "```rust\nlet a = \"http://x\"; // 第一个\n"), None);
    assert!(said_of_block(theirs, theirs).unwrap().starts_with("the comment is not translated"));
    assert!(said_of_block(theirs, "```rust\nlet a = \"http://y\"; // 第一个\n").is_some());
    assert!(said_of_block(theirs, "```rust\nlet a = \"http://x\";\n").is_some());
    let quoted = "```text examples/a.rs\nlet a = 1; // one of them\n";
    assert_eq!(said_of_block(quoted, quoted), None);
    assert!(said_of_block(quoted, &quoted.replace("one of them", "其中之一")).is_some());
}

#[test]
fn output_is_copied_and_explained() {
    let theirs = "```console\n$ cargo run\nit has ended: true\n";
    assert_eq!(said_of_block(theirs, "```console\n$ cargo run\nit has ended: true  # 结束了：是\n"), None);
    assert_eq!(said_of_block(theirs, theirs).unwrap(), "nothing is translated");
    assert!(said_of_block(theirs, "```console\n$ cargo run\n结束了\n").is_some());
    assert!(said_of_block(theirs, "```console\n$ cargo test\nit has ended: true  # 是\n").is_some());
}

#[test]
fn pictures_are_translated_in_place() {
    let theirs = "```text\ncargo run one\n  select   the kernel is asked 3 times\n";
    assert_eq!(said_of_block(theirs, "```text\ncargo run one\n  select   问内核 3 次\n"), None);
    assert!(said_of_block(theirs, "```text\ncargo run one\n  select   问内核 4 次\n").is_some());
    assert!(said_of_block(theirs, "```text\ncargo run 一\n  select   问内核 3 次\n").is_some());
    let foreign = said_of_block(theirs, "```text\ncargo run one\n  poll   问内核 3 次\n").unwrap();
    assert_eq!(foreign, "the word `poll` is not there");
}

#[test]
fn complains_about_names_that_are_missing() {
    let original = "It has `a` and `b\nc`.\n\n```text\n`d`\n```\n";
    assert!(check_spans(original, "有 `b c`，也有 `a`。", "O").is_empty());
    let complaints = check_spans(original, "有 `a`。", "O");
    assert_eq!(complaints, ["`b c` is in O, and not here: a sentence is missing or old"]);
}

#[test]
fn complains_about_terms() {
    let glossary = Glossary::of(
        "# G\n\n## 术语\n\n| English | 中文 |\n|---|---|\n| green thread | 绿色线程 |\n| stack | 栈、堆栈 |\n\n\
         ## 不写\n\n| 不写 | 写作 |\n|---|---|\n| 价钱、付账 | 开销 |\n",
    );
    let said = |original, translation| check_terms(&glossary, original, translation).join("\n");
    assert_eq!(said("Green threads have stacks.", "绿色线程有堆栈。"), "");
    assert_eq!(said("`stack.rs`, `stack`, stacked, and unstack.", "无。"), "");
    assert!(said("A stack.", "一个线程。").starts_with("`stack` is 栈 or 堆栈 here"));
    assert!(said("```text\nstack\n```", "一个线程。").is_empty());
    assert_eq!(said("A cost.", "由它付账"), "\u{201c}付账\u{201d}, better \u{201c}开销\u{201d}: 由它付账");
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
