//! The site is whole: every page of the repository is on it, every link and mark on it leads somewhere, nothing on it
//! asks the network, and a search finds what a chapter is about. And the page of figures says what is wrong with a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{env, fs};

/// The program.
fn site(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_site")).args(arguments).output().expect("the program starts")
}

/// The folder in which this test writes.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("site")
}

/// The files of the site, by address, built once.
fn built() -> &'static BTreeMap<String, String> {
    static BUILT: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = folder();
        _ = fs::remove_dir_all(&folder);
        let output = site(&["build", folder.to_str().expect("a plain name")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut files = BTreeMap::new();
        walk(&folder, &folder, &mut files);
        files
    })
}

/// The files below a folder, by their paths from `root`.
fn walk(folder: &Path, root: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, root, files);
        } else {
            let text = fs::read_to_string(&path).expect("a file of the site is text");
            files.insert(path.strip_prefix(root).expect("below").to_str().expect("a plain name").to_owned(), text);
        }
    }
}

/// The values of an attribute, in quotation marks or without.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let mark = format!(" {name}=");
    let values = html.match_indices(&mark).filter(|(at, _)| {
        // Inside of a tag: not in the text of a page about HTML, where `<` is written otherwise.
        html[..*at].rfind('<') > html[..*at].rfind('>')
    });
    let values = values.map(|(at, found)| &html[at + found.len()..]);
    values
        .map(|rest| match rest.strip_prefix('"') {
            Some(rest) => rest.split('"').next().unwrap_or_default(),
            None => rest.split([' ', '>']).next().unwrap_or_default(),
        })
        .collect()
}

/// An address without `%` codes.
fn decoded(address: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), address.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let code = address.get(address.len() - after.len()..).and_then(|after| after.get(..2));
        let code = code.filter(|_| first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).expect("an address is text")
}

/// The address of a link on a page.
fn resolved(page: &str, link: &str) -> String {
    let mut folders: Vec<&str> = page.split('/').collect();
    folders.pop();
    for part in link.split('/') {
        match part {
            ".." => _ = folders.pop().expect("not above the site"),
            "." | "" => {}
            part => folders.push(part),
        }
    }
    folders.join("/")
}

/// What is wrong with the links of the pages.
fn check_links(files: &BTreeMap<String, String>) -> Vec<String> {
    let pages = files.iter().filter(|(address, _)| address.ends_with(".html"));
    let marks: BTreeMap<&str, BTreeSet<&str>> =
        pages.clone().map(|(address, html)| (&address[..], attributes(html, "id").into_iter().collect())).collect();
    let mut complaints = Vec::new();
    for (page, html) in pages {
        for link in attributes(html, "href").into_iter().chain(attributes(html, "src")) {
            if link.contains("://") || link.starts_with("mailto:") || link.starts_with("data:") {
                continue;
            }
            let (path, mark) = link.split_once('#').unwrap_or((link, ""));
            let mark = &decoded(mark)[..];
            let target = if path.is_empty() { page.clone() } else { resolved(page, path) };
            if !files.contains_key(&target) {
                complaints.push(format!("{page}: {link} is not there"));
            } else if !mark.is_empty() && !marks.get(&target[..]).is_some_and(|marks| marks.contains(mark)) {
                complaints.push(format!("{page}: {link} has no such mark"));
            }
        }
    }
    complaints
}

#[test]
fn every_link_and_mark_leads_somewhere() {
    let files = built();
    let links: usize = files.values().map(|html| html.matches(" href=").count()).sum();
    assert!(links > 10_000, "{links}");
    let complaints = check_links(files);
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn complains_about_links() {
    let page =
        "<a id=x href=\"b.html\">b</a> <a href=\"#x\">x</a> <a href=\"#y\">y</a> <a href=\"c/../d/e.html\">e</a>";
    let files = BTreeMap::from([("a.html".to_owned(), page.to_owned()), ("d/e.html".to_owned(), String::new())]);
    assert_eq!(check_links(&files), ["a.html: b.html is not there", "a.html: #y has no such mark"]);
}

#[test]
fn every_page_of_the_repository_is_on_it() {
    let files = built();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut texts = BTreeMap::new();
    walk(&root.join("docs"), &root, &mut texts);
    let index = &files["index.html"];
    let chinese = &files["index.zh-CN.html"];
    let mut pages = 0;
    for path in texts.keys().filter(|path| !path.contains("/patches/")) {
        let address = path.strip_suffix(".md").map_or(path.clone(), |path| format!("{path}.html"));
        let is_kept = [".md", ".html", ".svg"].iter().any(|ending| path.ends_with(ending));
        assert!(files.contains_key(&address) || !is_kept, "{path} is not on the site");
        if path.ends_with(".md") {
            let list = if path.starts_with("docs/zh-CN/") { chinese } else { index };
            assert!(list.contains(&format!("href=\"{address}\"")), "{path} is not on the list of pages");
            pages += 1;
        }
    }
    assert!(pages > 50, "{pages}");
}

#[test]
fn nothing_asks_the_network() {
    for (address, text) in built() {
        // In source pages such words are text.
        let loads = ["src=\"http", "src=\"//", "url(http", "@import", "rel=\"stylesheet\" href=\"http"];
        let found = loads.iter().find(|word| text.contains(**word) && !address.starts_with("source/"));
        assert_eq!(found, None, "{address}");
    }
}

#[test]
fn a_page_leads_to_the_code_that_it_names() {
    let files = built();
    let code = &files["source/src/switch/run_loop.rs.html"];
    let line = code.lines().find(|line| line.contains("</span> drive(")).expect("it is defined");
    let number = attributes(line, "id")[0];
    let link = format!("href=\"../../source/src/switch/run_loop.rs.html#{number}\"");
    assert!(files["docs/steps/README.html"].contains(&link), "{link}");
    assert!(code.contains("<span class=k>fn</span>"), "in colours");
}

#[test]
fn the_index_has_the_lost_wake_up_in_its_chapter() {
    let index = built()["search.js"].trim_start_matches("window.INDEX = ").trim_end().trim_end_matches(';');
    let index: serde_json::Value = serde_json::from_str(index).expect("it is JSON");
    let sections = index.as_array().expect("a list");
    let found = sections.iter().filter(|section| section["x"].as_str().unwrap_or_default().contains("lost wake-up"));
    let pages: BTreeSet<&str> = found.map(|section| section["p"].as_str().expect("an address")).collect();
    assert!(pages.contains("docs/book/06-park-and-unpark.html"), "{pages:?}");
    assert!(sections.len() > 300, "{}", sections.len());
}

/// A browser, if there is one.
fn browser() -> Option<&'static str> {
    let found = ["chromium", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()));
    if found.is_none() {
        assert!(env::var_os("GREENLING_NEED_BROWSER").is_none(), "no browser");
        println!("skipped: no browser here");
    }
    found
}

#[test]
fn a_search_shows_the_chapter_first() {
    let Some(browser) = browser() else { return };
    built();
    let folder = fs::canonicalize(folder()).expect("it was built");
    let profile = folder.with_extension("profile");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=5000"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("--dump-dom")
        .arg(format!("file://{}/index.html?q=lost%20wake-up", folder.display()))
        .output()
        .expect("the browser starts");
    let page = String::from_utf8_lossy(&output.stdout);
    let found = page.split("<div id=\"found\"").nth(1).expect("the list of what was found");
    let first = attributes(found, "href")[0];
    assert!(first.ends_with("docs/book/06-park-and-unpark.html#6-park-and-unpark"), "{first}");
}

/// A file of figures in this test's folder.
fn file_of_figures(name: &str, change: &dyn Fn(String) -> String) -> String {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/figures/switch.json");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, change(fs::read_to_string(book).expect("the book has figures"))).expect("a file is written");
    file.to_str().expect("a plain name").to_owned()
}

#[test]
fn figures_are_laid_beside_the_books_with_a_warning() {
    let busy = file_of_figures("busy.json", &|text| {
        let lines = text.lines().map(|line| if line.contains("\"load\"") { "  \"load\": 31," } else { line });
        lines.collect::<Vec<_>>().join("\n")
    });
    let page = format!("{busy}.html");
    let output = site(&["figures", &busy, "-o", &page]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("busy machine: the load average was 31"), "{said}");
    let html = fs::read_to_string(page).expect("the page is written");
    assert!(html.contains("Yours: busy machine: the load average was 31"));
    let rows = fs::read_to_string(&busy).expect("written above").matches("\"median\"").count();
    assert_eq!((html.matches("<tr><td>").count(), html.matches("<b>1.00</b>").count()), (rows, rows));
}

/// What is said to words that are no command.
const USAGE: &str =
    "site: usage: site [build [FOLDER]] | site figures FILE.. [-o PAGE] | site versions [FILE..] [-o PAGE]\n";

#[test]
fn bad_words_are_one_clear_error() {
    for (words, error) in [
        (&["no"][..], USAGE),
        (&["figures"], USAGE),
        (&["figures", "no/such.json"], "site: no/such.json: No such file or directory (os error 2)\n"),
        (&["build", "/proc/no"], "site: /proc/no/CHANGELOG.html: No such file or directory (os error 2)\n"),
    ] {
        let output = site(words);
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(1), error));
    }
}
