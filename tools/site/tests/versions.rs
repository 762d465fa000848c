//! The page of versions has every row of every version, in the order of versions; it never joins raw values of two
//! machines; and it says what a machine was busy with. The files of `tests/versions` are small and made up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// A file of `tests/versions`.
fn fixture(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/versions").join(name);
    file.to_str().expect("a plain name").to_owned()
}

/// A place for what a test writes.
fn scratch(name: &str) -> String {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name).to_str().expect("a plain name").to_owned()
}

/// Whether it went well, what was said to standard output, and to standard error.
fn site(words: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_site")).args(words).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// The page of these files: of the bench, without the counted figures.
fn page(name: &str, files: &[&str]) -> (String, String) {
    let page = scratch(name);
    let files: Vec<String> = files.iter().map(|file| fixture(file)).collect();
    let mut words = vec!["versions"];
    words.extend(files.iter().map(String::as_str));
    words.extend(["-o", &page]);
    let (done, said, error) = site(&words);
    assert!(done, "{error}");
    let html = fs::read_to_string(page).expect("the page is written");
    assert!(!html.contains("://") && !html.contains("<script"), "one file, which loads and runs nothing");
    (html.split("<h2 id=counts>").next().expect("a part").to_owned(), said)
}

/// The row of this name.
fn row<'a>(html: &'a str, name: &str) -> &'a str {
    let mark = format!("<tr><td><code>{name}</code>");
    html.lines().find(|line| line.starts_with(&mark)).unwrap_or_else(|| panic!("no row {name} in {html}"))
}

/// The cells of a row that stand below versions.
fn cells(row: &str, versions: usize) -> Vec<&str> {
    let cells: Vec<&str> = row.trim_end_matches("</tr>").split("</td>").filter(|cell| !cell.is_empty()).collect();
    cells[cells.len() - versions..]
        .iter()
        .map(|cell| cell.rsplit_once("<td>").map_or(*cell, |(_, text)| text))
        .collect()
}

#[test]
fn two_versions_are_in_their_order_with_every_row() {
    // The newer one is named first.
    let (html, _) = page("two.html", &["second.json", "first.json"]);
    assert!(html.find("<th>first").expect("a column") < html.find("<th>second ⚠").expect("a column"), "{html}");
    assert_eq!(html.matches("<tr><td><code>").count(), 4, "{html}");
    assert_eq!(cells(row(&html, "plain"), 2), ["10", "8"]);
    // The marked cell varies.
    let yields = ["4 <small>3 ×</small>", "<td class=wide>3 <small>2.25 ×</small>"];
    assert_eq!(cells(row(&html, "yield/<wbr>2"), 2), yields);
    assert!(row(&html, "yield/<wbr>2").contains("<td>-25.0 % <small>×</small></td>"));
    assert!(row(&html, "plain").contains("<td>-20.0 % <small>raw</small></td>"));
    // Ratios and raw values of `yield/2`, raw values of `plain`.
    assert_eq!(html.matches("<polyline").count(), 3, "{html}");
}

#[test]
fn a_row_that_a_version_does_not_have_is_a_dash_and_no_line_crosses_it() {
    let (html, _) = page("missing.html", &["first.json", "second.json"]);
    assert_eq!(cells(row(&html, "gone"), 2), ["7", "–"]);
    assert_eq!(cells(row(&html, "new"), 2), ["–", "5 <small>2 ×</small>"]);
    for name in ["gone", "new"] {
        assert!(!row(&html, name).contains("<polyline"), "{name} is one point");
        assert!(row(&html, name).contains("<td>–</td>"), "{name} has no change");
    }
}

#[test]
fn raw_values_of_two_machines_are_never_joined_and_ratios_are() {
    let (html, _) = page("machines.html", &["first.json", "other.json"]);
    assert!(html.contains("Machine <b class=m0>A</b>: Quick &lt;1&gt;, 2 cores, Linux 6.1"), "{html}");
    assert!(html.contains("Machine <b class=m1>B</b>: Slow 2, 2 cores, Linux 6.1"), "{html}");
    // Nothing can be said of a row that has no ratio.
    let plain = row(&html, "plain");
    assert!(!plain.contains("<polyline") && plain.contains("<td>–</td>"), "{plain}");
    assert!(plain.contains("<circle class=\"m0\"") && plain.contains("<circle class=\"m1\""), "{plain}");
    let yields = row(&html, "yield/<wbr>2");
    assert_eq!(yields.matches("<polyline class=ratio").count(), 1, "{yields}");
    assert_eq!(yields.matches("<polyline").count(), 1, "{yields}");
    assert!(yields.contains("-10.0 % <small>×</small>"), "{yields}");
    // With a second run of the first machine there is a line for that machine.
    let (html, _) = page("three.html", &["first.json", "other.json", "second.json"]);
    let plain = row(&html, "plain");
    assert_eq!((plain.matches("<polyline class=m0").count(), plain.matches("<polyline").count()), (1, 1), "{plain}");
}

#[test]
fn a_busy_machine_is_warned_of_in_the_output_and_on_the_page() {
    let (html, said) = page("busy.html", &["first.json", "second.json"]);
    assert!(said.contains("switch second: busy machine: the load average was 9 on 2 cores\n"), "{said}");
    assert!(!said.contains("switch first"), "{said}");
    assert_eq!(html.matches("<p class=warning>⚠ busy machine: the load average was 9 on 2 cores").count(), 1, "{html}");
    assert!(html.contains("⚠ 1 of 3 rows vary by more than 10 %"), "{html}");
    // Ratio and raw value of two rows, the raw one of a third.
    assert_eq!(html.matches(" busy\"").count(), 5, "hollow points: {html}");
}

#[test]
fn one_version_is_a_table_without_charts() {
    let (html, _) = page("one.html", &["first.json"]);
    assert!(!html.contains("<svg") && html.matches("<tr><td><code>").count() == 3, "{html}");
}

#[test]
fn the_books_own_runs_need_no_files() {
    let page = scratch("book.html");
    let (done, said, error) = site(&["versions", "-o", &page]);
    assert!(done && said.ends_with("book.html\n"), "{error}");
    let html = fs::read_to_string(page).expect("the page is written");
    for name in
        ["<h2 id=\"bench-switch\">", "<code>yield/<wbr>1000</code>", "<h2 id=counts>", "<code>yield-1000</code>"]
    {
        assert!(html.contains(name), "{name}");
    }
    // Each row of the newest run, whatever the history has.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/figures");
    for entry in fs::read_dir(folder).expect("the book has figures").flatten() {
        let text = fs::read_to_string(entry.path()).expect("it is text");
        let file: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        for row in file["rows"].as_array().expect("rows") {
            let name = row["name"].as_str().expect("a name").replace('/', "/<wbr>");
            assert!(html.contains(&format!("<tr><td><code>{name}</code>")), "{name} is not on the page");
        }
    }
}

#[test]
fn a_broken_file_is_one_clear_error_and_no_page() {
    let (broken, page) = (scratch("broken.json"), scratch("none.html"));
    let good = fixture("first.json");
    _ = fs::remove_file(&page);
    let text = fs::read_to_string(&good).expect("it is there");
    for (text, error) in [
        (text.replace("\"schema\": 1", "\"schema\": 9"), "this is no file of figures, or not of the form 1"),
        (text.replace("\"median\"", "\"middle\""), "there is no number \"median\""),
        ("{".to_owned(), "EOF while parsing an object at line 1 column 1"),
    ] {
        fs::write(&broken, text).expect("a file is written");
        let said = site(&["versions", &good, &broken, "-o", &page]);
        assert_eq!(said, (false, String::new(), format!("site: {broken}: {error}\n")));
        assert!(!Path::new(&page).exists());
    }
    let said = site(&["versions", "no/such.json", "-o", &page]);
    assert_eq!(said.2, "site: no/such.json: No such file or directory (os error 2)\n");
    assert!(site(&["versions", "-x"]).2.starts_with("site: usage: "));
}
