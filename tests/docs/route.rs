//! The three afternoons of `docs/steps/README.md`: how long each station takes, counted in the files by a stated pace.
//! So a chapter that grows makes its afternoon longer, and a time that is not so any more fails.
//!
//! ```text
//!   | [chapter 2](../book/02-..md)                      |   its first reading
//!   | [chapter 0](../book/00-..md) up to "The figures"  |   what stands before this heading
//!   | second reading of [chapter 2](../book/02-..md)    |   what stands after its first reading, and its exercises
//!   | [step 1](01-..md) and its exercise                |   without these words, all but the exercise
//!   | exercise of [step 1](01-..md)                     |   the exercise alone
//!   | [the examination](../examination.md)              |   its questions
//!   | `runtime/park.rs: park`, `runtime/park.rs: wake`  |   the heads of these files, and these items
//! ```

use std::collections::BTreeSet;
use std::fs;

use crate::{assert_none, chapters, prose, read, root, spans};

/// The page with the afternoons, its translation, and the two pages that have the sums.
const PAGE: &str = "docs/steps/README.md";
const CHINESE: &str = "docs/zh-CN/steps/README.md";
const FRONT: [&str; 2] = ["README.md", "README.zh-CN.md"];

/// The heading of a chapter below which its second reading begins.
const SECOND: &str = "\n## For a second reading\n";

/// A reader's pace, as the page states it: words and lines of code a minute, minutes for a program that is run, and for
/// a question of the examination.
const WORDS: f64 = 200.0;
const LINES: f64 = 10.0;
const PROGRAM: f64 = 1.0;
const QUESTION: f64 = 3.0;

/// By how many minutes a station may be off before its time is wrong.
const TOLERANCE: u32 = 1;

/// The longest first afternoon, in minutes.
const AFTERNOON: u32 = 240;

/// The words of a line of prose, or of a row of a table.
fn words(line: &str) -> f64 {
    line.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count() as f64
}

/// The text without what is folded.
fn unfolded(text: &str) -> String {
    let parts = text.split("<details>").enumerate();
    parts.map(|(n, part)| if n == 0 { part } else { part.split("</details>").nth(1).unwrap_or_default() }).collect()
}

/// Minutes for a text: words; in code each line that is not empty, in a difference each new one; and each program whose
/// output is shown is run. Pictures and output are read as words, what is folded is not read.
fn reading(text: &str) -> f64 {
    let (mut said, mut lines, mut programs) = (0.0, 0.0, 0.0);
    let mut block: Option<String> = None;
    for line in unfolded(text).lines() {
        let trimmed = line.trim();
        match (&block, trimmed.strip_prefix("```")) {
            (None, Some(kind)) => {
                programs += f64::from(u8::from(kind.starts_with("console")));
                block = Some(kind.to_owned());
            }
            (Some(_), Some(_)) => block = None,
            (Some(kind), None) if kind.starts_with("diff") => {
                let is_new = line.strip_prefix('+').is_some_and(|new| !new.trim().is_empty());
                lines += f64::from(u8::from(is_new));
            }
            (Some(kind), None)
                if ["rust", "asm", "c", "python"].contains(&kind.split([' ', ',']).next().unwrap_or("")) =>
            {
                lines += f64::from(u8::from(!trimmed.is_empty()));
            }
            _ => said += words(line),
        }
    }
    said / WORDS + lines / LINES + programs * PROGRAM
}

/// The minutes that a chapter or step itself gives its exercises: `(ten minutes)` behind what is bold.
fn exercises(text: &str) -> f64 {
    let after_bold = text.split("**").skip(2).step_by(2).chain(text.split("**Exercise").skip(1));
    let said = after_bold.filter_map(|rest| rest.trim_start_matches(['.', ' ']).strip_prefix('('));
    let minutes = said.filter_map(|said| {
        let numbers =
            [("five", 5), ("ten", 10), ("fifteen", 15), ("twenty", 20), ("half an hour", 30), ("an hour", 60)];
        numbers.iter().find(|(word, _)| said.starts_with(word)).map(|(_, minutes)| *minutes)
    });
    minutes.map(f64::from).sum()
}

/// Minutes for an item of a source file: its lines.
fn item(code: &str, name: &str) -> Option<f64> {
    let lines: Vec<&str> = code.lines().collect();
    let begins = |line: &&str| {
        ["fn ", "struct ", "enum "].iter().any(|kind| {
            line.split_once(kind)
                .is_some_and(|(_, rest)| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(['(', '<', ' '])))
                && !line.trim_start().starts_with("//")
        })
    };
    let at = lines.iter().position(begins)?;
    let indent = lines[at].len() - lines[at].trim_start().len();
    let end = format!("{}}}", " ".repeat(indent));
    let length = lines[at..].iter().take_while(|line| **line != end).filter(|line| !line.trim().is_empty()).count();
    Some(length as f64 / LINES)
}

/// Where the links of a cell lead, seen from the root.
fn links(cell: &str) -> Vec<String> {
    let targets = cell.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(|to| to.strip_prefix("../").map_or(format!("docs/steps/{to}"), |up| format!("docs/{up}"))).collect()
}

/// Minutes for a station, by the first cell of its row. `text_of` gives the text of a file.
fn station(cell: &str, text_of: &dyn Fn(&str) -> String) -> Result<f64, String> {
    let mut minutes = 0.0;
    for file in links(cell) {
        let text = text_of(&file);
        minutes += if file.ends_with("examination.md") {
            text.matches("\n### ").count() as f64 * QUESTION
        } else if file.starts_with("docs/steps/") {
            let to_read = if cell.starts_with("exercise") { 0.0 } else { reading(&text) };
            to_read + if cell.contains("exercise") { exercises(&text) } else { 0.0 }
        } else if cell.starts_with("second reading") {
            let (first, _) = text.split_once(SECOND).ok_or(format!("{file} has no second reading"))?;
            reading(&text) - reading(first) + exercises(&text)
        } else if let Some(heading) = cell.split('"').nth(1) {
            let (before, after) =
                text.split_once(&format!("\n## {heading}\n")).ok_or(format!("{file} has no heading {heading}"))?;
            reading(if cell.contains(" from ") { after } else { before })
        } else {
            reading(text.split(SECOND).next().unwrap_or_default())
        };
    }
    let mut opened = BTreeSet::new();
    for (file, name) in spans(cell).filter_map(|span| span.split_once(": ")) {
        let code = text_of(&format!("src/{file}"));
        if opened.insert(file) {
            let head: f64 = code.lines().filter_map(|line| line.strip_prefix("//!")).map(words).sum();
            minutes += head / WORDS;
        }
        minutes += item(&code, name).ok_or(format!("{file} has no item {name}"))?;
    }
    Ok(minutes)
}

/// The page with times that are right: those of the stations that are off, and the sums. And what was off, and the sums.
fn timed(page: &str, text_of: &dyn Fn(&str) -> String) -> (String, Vec<String>, Vec<u32>) {
    let (mut text, mut complaints, mut sums) = (String::new(), Vec::new(), Vec::new());
    let (mut sum, mut in_route) = (0, false);
    for line in page.lines() {
        in_route = if line.starts_with("## ") { line == "## Three afternoons" } else { in_route };
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let printed = cells.last().and_then(|cell| cell.trim_matches(['*', ' ', '|']).parse::<u32>().ok());
        let right = match (in_route && line.starts_with("| "), printed) {
            (true, Some(printed)) if cells[0] == "together" => {
                sums.push(sum);
                let right = std::mem::take(&mut sum);
                (printed != right).then_some((printed, right))
            }
            (true, Some(printed)) => {
                let counted = station(cells[0], text_of).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
                let counted = (counted.ceil() as u32).max(1);
                let is_off = printed.abs_diff(counted) > TOLERANCE;
                sum += if is_off { counted } else { printed };
                is_off.then_some((printed, counted))
            }
            _ => None,
        };
        match right {
            Some((printed, right)) => {
                complaints.push(format!("{PAGE}: {right} minutes, and not {printed}: {}", cells[0]));
                let at = line.rfind(&printed.to_string()).expect("it was printed");
                text += &format!("{}{right}{}\n", &line[..at], &line[at + printed.to_string().len()..]);
            }
            None => text += &format!("{line}\n"),
        }
    }
    (text, complaints, sums)
}

/// The minutes of the rows of the afternoons, in a page of either language.
fn minutes_of(page: &str) -> Vec<(usize, u32)> {
    let lines: Vec<&str> = page.lines().collect();
    let begin =
        lines.iter().position(|line| ["## Three afternoons", "## 三个下午"].contains(line)).unwrap_or(lines.len());
    let rows = lines.iter().enumerate().skip(begin).filter(|(_, line)| line.starts_with("| "));
    rows.filter_map(|(at, line)| {
        let cell = line.trim_end_matches([' ', '|']).rsplit('|').next()?;
        Some((at, cell.trim().parse().ok()?))
    })
    .collect()
}

/// The Chinese page with the minutes of the English one.
fn translated(chinese: &str, english: &str) -> String {
    let mut lines: Vec<String> = chinese.lines().map(str::to_owned).collect();
    for ((at, old), (_, new)) in minutes_of(chinese).into_iter().zip(minutes_of(english)) {
        let place = lines[at].rfind(&old.to_string()).expect("it was printed");
        let after = place + old.to_string().len();
        lines[at] = format!("{}{new}{}", &lines[at][..place], &lines[at][after..]);
    }
    lines.join("\n") + "\n"
}

/// A time as the front page prints it: hours and minutes, rounded up to five.
fn clock(minutes: u32) -> String {
    let minutes = minutes.next_multiple_of(5);
    format!("{} h {:02}", minutes / 60, minutes % 60)
}

/// The front page with these sums: the times in the table that is marked, one a row.
fn front(page: &str, sums: &[u32]) -> String {
    let Some((before, after)) = page.split_once("\n<!-- afternoons -->\n") else { return String::new() };
    let mut sums = sums.iter();
    let mut is_over = false;
    let lines = after.lines().map(|line| {
        is_over |= !line.starts_with('|');
        match line.trim_end_matches([' ', '|']).rsplit_once("| ") {
            Some((row, time)) if !is_over && time.contains(" h ") => {
                sums.next().map_or(String::from("| a row too many |"), |sum| format!("{row}| {} |", clock(*sum)))
            }
            _ => line.to_owned(),
        }
    });
    let after: Vec<String> = lines.collect();
    format!("{before}\n<!-- afternoons -->\n{}\n", after.join("\n"))
}

#[test]
fn the_afternoons_take_as_long_as_they_say() {
    let (right, complaints, sums) = timed(&read(PAGE), &read);
    let mut pages = vec![(PAGE, right.clone()), (CHINESE, translated(&read(CHINESE), &right))];
    pages.extend(FRONT.map(|page| (page, front(&read(page), &sums))));
    if std::env::var_os("GREENLING_WRITE").is_some() {
        for (page, text) in &pages {
            fs::write(root().join(page), text).expect("the page is written");
        }
    } else {
        assert_none(&complaints);
    }
    for (page, text) in pages {
        assert!(text == read(page), "{page} has other times: GREENLING_WRITE=1 cargo test --test docs");
    }
    assert_eq!(sums.len(), 4, "three afternoons, and what is left");
    assert!(sums[0] <= AFTERNOON, "the first afternoon takes {} minutes", sums[0]);
    assert_eq!(minutes_of(&read(PAGE)).len(), minutes_of(&read(CHINESE)).len());
}

#[test]
fn the_afternoons_have_every_chapter_and_step() {
    let page = read(PAGE);
    let route = page.split("\n## Three afternoons\n").nth(1).expect("the route is there");
    let rows = route.lines().filter(|line| line.starts_with("| "));
    let (second, first): (Vec<&str>, Vec<&str>) = rows.partition(|row| row.starts_with("| second reading"));
    let named = |rows: &[&str]| -> BTreeSet<String> { rows.iter().flat_map(|row| links(row)).collect() };
    let all: BTreeSet<String> = chapters().into_iter().chain(crate::steps().into_iter().skip(1)).collect();
    assert_eq!(all.difference(&named(&first)).collect::<Vec<_>>(), [""; 0]);
    let chapters: BTreeSet<String> = chapters().into_iter().skip(1).collect();
    assert_eq!(chapters.difference(&named(&second)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_pace_on_the_page_is_the_one_that_is_counted_with() {
    let page = prose(&read(PAGE)).replace('\n', " ");
    for said in [
        format!("{WORDS} words a minute"),
        format!("{LINES} new lines of code a minute"),
        format!("{PROGRAM} minute for each program"),
        format!("{QUESTION} minutes for a question of the examination"),
    ] {
        assert!(page.contains(&said), "{PAGE} does not say: {said}");
    }
}

#[test]
fn complains_about_times() {
    let long = "word ".repeat(1000);
    let text_of = |file: &str| match file {
        "docs/book/a.md" => {
            format!("# A\n\n{long}\n\n## Here\n\n## For a second reading\n\n- **1.1, x** (ten minutes).")
        }
        "docs/steps/s.md" => {
            "```diff\n+a\n+\n-b\n c\n```\n\n**Exercise (five minutes).** x\n<details>\ny\n</details>".to_owned()
        }
        "docs/examination.md" => "\n### 1\n\n### 2\n".to_owned(),
        _ => format!("//! {long}\nfn f() {{\n{}}}\n", "    x;\n".repeat(49)),
    };
    let minutes = |cell: &str| station(cell, &text_of).map(|minutes| (minutes * 10.0).round() / 10.0);
    assert_eq!(minutes("[a](../book/a.md)"), Ok(5.0));
    assert_eq!(minutes("[a](../book/a.md) up to \"Here\""), Ok(5.0));
    assert_eq!(minutes("second reading of [a](../book/a.md)"), Ok(10.0));
    assert_eq!(minutes("[s](s.md)"), Ok(0.1));
    assert_eq!(minutes("[s](s.md) and its exercise"), Ok(5.1));
    assert_eq!(minutes("exercise of [s](s.md)"), Ok(5.0));
    assert_eq!(minutes("[e](../examination.md)"), Ok(6.0));
    assert_eq!(minutes("`x.rs: f`"), Ok(10.0));
    assert_eq!(minutes("`x.rs: g`"), Err("x.rs has no item g".to_owned()));
    let page = "## Three afternoons\n| [a](../book/a.md) | x | 9 |\n| together | | 9 |\n";
    let (right, complaints, sums) = timed(page, &text_of);
    assert_eq!(right, page.replace('9', "6"));
    assert_eq!((complaints.len(), &sums[..]), (2, &[6][..]));
    assert_eq!(
        translated("## 三个下午\n| a | x | 9 |\n| b | | 9 |\n", &right),
        "## 三个下午\n| a | x | 6 |\n| b | | 6 |\n"
    );
    let page = "x\n<!-- afternoons -->\n| a | time |\n|---|---|\n| one | 0 h 00 |\n\n| no | 0 h 00 |\n";
    assert_eq!(front(page, &[61]), page.replacen("0 h 00", "1 h 05", 1));
}
