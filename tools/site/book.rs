//! Which pages the site has, in which order, and where a link on one of them leads.
//!
//! ```text
//!   README.md                     index.html
//!   README.zh-CN.md               index.zh-CN.html
//!   docs/book/02-one-switch.md    docs/book/02-one-switch.html
//!   docs/anatomy.html             the same, copied
//!   src/sim/mod.rs                source/src/sim/mod.rs.html, a page of lines
//!   tests/crates                  source/tests/crates/index.html, a list
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use crate::markdown::{self, Rendered, Targets};
use crate::page::{self, Frame, Language};
use crate::{Outcome, source};

/// The parts of the site in English: a heading, and the pages below it, by the beginnings of their paths, in order.
const PARTS: [(&str, &[&str]); 5] = [
    ("Begin", &["README.md", "docs/steps/README.md", "docs/ladder.md"]),
    ("The book", &["docs/book/"]),
    ("Built from nothing", &["docs/steps/"]),
    ("Answers", &["docs/examination.md", "docs/solutions/README.md", "docs/solutions/"]),
    ("The project", &["DESIGN.md", "docs/", "CONTRIBUTING.md", "CHANGELOG.md"]),
];

/// The same in Chinese.
const CHINESE: [(&str, &[&str]); 4] = [
    ("开始", &["README.zh-CN.md", "docs/zh-CN/steps/README.md", "docs/zh-CN/ladder.md"]),
    ("书", &["docs/zh-CN/book/"]),
    ("从零构建", &["docs/zh-CN/steps/"]),
    ("术语", &["docs/zh-CN/"]),
];

/// Where the pages of files are.
const SOURCE: &str = "source";

/// All that the site is made of.
pub struct Book {
    /// Each text file of the repository.
    files: BTreeMap<String, String>,
    /// The pages, in order, of both languages.
    pages: Vec<Page>,
}

/// A page.
pub struct Page {
    /// Its file in the repository.
    pub path: String,
    pub title: String,
    pub part: &'static str,
    pub language: Language,
}

/// The address of a page of the site, seen from its root.
pub fn address(path: &str) -> String {
    match path {
        "README.md" => "index.html".to_owned(),
        "README.zh-CN.md" => "index.zh-CN.html".to_owned(),
        path => path.strip_suffix(".md").map_or(path.to_owned(), |path| format!("{path}.html")),
    }
}

/// The address of `to`, seen from the page with the address `from`.
pub fn relative(from: &str, to: &str) -> String {
    format!("{}{to}", "../".repeat(from.matches('/').count()))
}

/// A path that is named from a file, seen from the root.
fn resolved(from: &str, to: &str) -> Option<String> {
    let mut folders: Vec<&str> = from.split('/').collect();
    folders.pop();
    for part in to.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => _ = folders.pop()?,
            part => folders.push(part),
        }
    }
    Some(folders.join("/"))
}

/// The first heading of a page, without marks.
fn title(path: &str, text: &str) -> String {
    let heading = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(path);
    heading.replace('`', "")
}

impl Book {
    /// Reads the repository.
    pub fn of(root: &Path) -> Outcome<Book> {
        let files = source::files(root)?;
        let mut pages: Vec<Page> = Vec::new();
        let parts = CHINESE.iter().map(|part| (Language::Chinese, part));
        let parts = parts.chain(PARTS.iter().map(|part| (Language::English, part)));
        for (language, (part, begins)) in parts {
            for begin in *begins {
                for (path, text) in files.iter().filter(|(path, _)| path.starts_with(begin) && path.ends_with(".md")) {
                    // The English parts come last, and leave the Chinese pages alone.
                    if !pages.iter().any(|page| page.path == *path) {
                        pages.push(Page { path: path.clone(), title: title(path, text), part, language });
                    }
                }
            }
        }
        Ok(Book { files, pages })
    }

    /// The files of the site, by address.
    pub fn render(&self) -> Outcome<BTreeMap<String, Vec<u8>>> {
        let mut out: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (name, text) in page::STATIC {
            out.insert(name.to_owned(), text.as_bytes().to_vec());
        }
        for language in [Language::English, Language::Chinese] {
            self.render_language(language, &mut out)?;
        }
        for (path, text) in &self.files {
            if path.starts_with("docs/") && (path.ends_with(".html") || path.ends_with(".svg")) {
                out.insert(path.clone(), text.as_bytes().to_vec());
            }
            let address = format!("{SOURCE}/{path}.html");
            let html = source::lines(path, text);
            let frame = Frame { address: &address, title: path, language: Language::English, ..Frame::default() };
            out.insert(address.clone(), frame.page(&html).into_bytes());
        }
        let folders = self
            .files
            .keys()
            .flat_map(|path| path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect::<Vec<_>>());
        for path in folders.collect::<std::collections::BTreeSet<_>>() {
            let address = format!("{SOURCE}/{path}/index.html");
            let html = source::folder(&path, &self.files);
            let frame = Frame { address: &address, title: &path, language: Language::English, ..Frame::default() };
            out.insert(address.clone(), frame.page(&html).into_bytes());
        }
        Ok(out)
    }

    /// The pages of one language, its index for the search, and all of them as one page to print.
    fn render_language(&self, language: Language, out: &mut BTreeMap<String, Vec<u8>>) -> Outcome<()> {
        let pages: Vec<&Page> = self.pages.iter().filter(|page| page.language == language).collect();
        let (mut index, mut whole) = (Vec::new(), String::new());
        for (at, page) in pages.iter().enumerate() {
            let address = address(&page.path);
            let rendered = self.rendered(page, "", Whole::No)?;
            let other = self.counterpart(page).map(|other| self::address(&other));
            let frame = Frame {
                address: &address,
                title: &page.title,
                language,
                before: at.checked_sub(1).map(|at| pages[at]),
                after: pages.get(at + 1).copied(),
                other: other.as_deref(),
                pages: &pages,
            };
            out.insert(address.clone(), frame.page(&rendered.html).into_bytes());
            index.extend(rendered.sections.into_iter().map(|section| {
                serde_json::json!({ "p": address, "a": section.anchor, "c": page.title, "t": section.title,
                                    "x": section.text.split_whitespace().collect::<Vec<_>>().join(" ") })
            }));
            let printed = self.rendered(page, &prefix(&page.path), Whole::Yes(language))?;
            whole += &format!("<section id=\"{}\">{}</section>\n", prefix(&page.path), printed.html);
        }
        let index = serde_json::to_string(&index).expect("texts can be written").replace("</", "<\\/");
        out.insert(language.index().to_owned(), format!("window.INDEX = {index};\n").into_bytes());
        // An answer that is folded cannot be opened on paper.
        let whole = whole.replace("<details>", "<details open>");
        let frame = Frame { address: language.whole(), title: "greenling", language, ..Frame::default() };
        out.insert(language.whole().to_owned(), frame.page(&whole).into_bytes());
        Ok(())
    }

    /// A page's text, rendered.
    fn rendered(&self, page: &Page, prefix: &str, whole: Whole) -> Outcome<Rendered> {
        let address = match whole {
            Whole::No => address(&page.path),
            Whole::Yes(language) => language.whole().to_owned(),
        };
        let place = Place { book: self, page, address, whole };
        markdown::render(&self.files[&page.path], prefix, &place)
    }

    /// The same page in the other language.
    fn counterpart(&self, page: &Page) -> Option<String> {
        let other = match (page.language, &page.path[..]) {
            (Language::English, "README.md") => "README.zh-CN.md".to_owned(),
            (Language::Chinese, "README.zh-CN.md") => "README.md".to_owned(),
            (Language::English, path) => format!("docs/zh-CN/{}", path.strip_prefix("docs/")?),
            (Language::Chinese, path) => path.replacen("docs/zh-CN/", "docs/", 1),
        };
        self.pages.iter().any(|page| page.path == other).then_some(other)
    }

    /// The file that a span names, from `src/` or from the root, and its text.
    fn named(&self, path: &str) -> Option<(String, &str)> {
        let places = [format!("src/{path}"), path.to_owned()];
        places.into_iter().find_map(|path| self.files.get(&path).map(|text| (path.clone(), &text[..])))
    }
}

/// The prefix of the marks of a page in the page of all pages.
fn prefix(path: &str) -> String {
    path.trim_end_matches(".md").replace(['/', '.'], "-") + "--"
}

/// Whether a page is rendered into the page of all pages of its language.
#[derive(Clone, Copy)]
enum Whole {
    No,
    Yes(Language),
}

/// A page while it is rendered: what its links are seen from.
struct Place<'a> {
    book: &'a Book,
    page: &'a Page,
    address: String,
    whole: Whole,
}

impl Place<'_> {
    /// The address of a page, and of a mark on it.
    fn page(&self, path: &str, mark: &str) -> String {
        let hash = |mark: &str| if mark.is_empty() { String::new() } else { format!("#{mark}") };
        match self.whole {
            Whole::Yes(language)
                if self.book.pages.iter().any(|page| page.path == path && page.language == language) =>
            {
                format!("#{}{mark}", prefix(path))
            }
            _ if path == self.page.path => hash(mark),
            _ => relative(&self.address, &address(path)) + &hash(mark),
        }
    }
}

impl Targets for Place<'_> {
    fn link(&self, to: &str) -> Result<String, String> {
        if to.contains("://") || to.starts_with("mailto:") {
            return Ok(to.to_owned());
        }
        let (path, mark) = to.split_once('#').unwrap_or((to, ""));
        let lost = || format!("{}: the link to {to} leads nowhere", self.page.path);
        let path =
            if path.is_empty() { self.page.path.clone() } else { resolved(&self.page.path, path).ok_or_else(lost)? };
        let is_page = |path: &str| self.book.pages.iter().any(|page| page.path == path);
        if is_page(&path) {
            return Ok(self.page(&path, mark));
        }
        let folder = format!("{path}/");
        // A folder of pages is its first page, or the one that lists them.
        let first = self.book.pages.iter().find(|page| page.path.starts_with(&folder));
        if let Some(first) = first {
            let list = format!("{folder}README.md");
            return Ok(self.page(if is_page(&list) { &list } else { &first.path }, ""));
        }
        if path.starts_with("docs/")
            && (path.ends_with(".html") || path.ends_with(".svg"))
            && self.book.files.contains_key(&path)
        {
            return Ok(relative(&self.address, &path));
        }
        let hash = if mark.is_empty() { String::new() } else { format!("#{mark}") };
        if self.book.files.contains_key(&path) {
            return Ok(relative(&self.address, &format!("{SOURCE}/{path}.html")) + &hash);
        }
        match self.book.files.keys().any(|file| file.starts_with(&folder)) {
            true => Ok(relative(&self.address, &format!("{SOURCE}/{path}/index.html"))),
            false => Err(lost()),
        }
    }

    fn mention(&self, span: &str) -> Option<String> {
        let (path, item) = span.split_once(": ").map_or((span, None), |(path, item)| (path, Some(item)));
        // A file of the root is a word as often as a name.
        let (file, text) = Some(path)
            .filter(|path| path.contains('.') || path.contains('/'))
            .and_then(|path| self.book.named(path))?;
        let name = item.and_then(|item| item.split(" = ").next());
        let line = name.map_or(Some(None), |name| source::line_of(text, name).map(Some))?;
        let mark = line.map_or(String::new(), |line| format!("#L{line}"));
        Some(relative(&self.address, &format!("{SOURCE}/{file}.html")) + &mark)
    }
}
