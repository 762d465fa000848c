//! What is around the text of each page: the list of pages, the search, the way to the other language, to the pages
//! before and after.

use crate::book::{self, Page};
use crate::highlight::escaped;

/// The files that all pages share.
pub const STATIC: [(&str, &str); 2] = [("site.css", include_str!("site.css")), ("site.js", include_str!("site.js"))];

/// A language of the site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    English,
    Chinese,
}

impl Language {
    /// The file with the index for the search.
    pub fn index(self) -> &'static str {
        match self {
            Language::English => "search.js",
            Language::Chinese => "search.zh-CN.js",
        }
    }

    /// The page of all pages.
    pub fn whole(self) -> &'static str {
        match self {
            Language::English => "print.html",
            Language::Chinese => "print.zh-CN.html",
        }
    }

    /// The language as a browser names it, the name of the other one, and what the controls are called.
    fn words(self) -> [&'static str; 6] {
        match self {
            Language::English => ["en", "中文", "Pages", "Search (press /)", "Light or dark", "Print"],
            Language::Chinese => ["zh-CN", "English", "目录", "搜索（按 /）", "浅色或深色", "打印"],
        }
    }
}

/// A page without its text.
#[derive(Default)]
pub struct Frame<'a> {
    pub address: &'a str,
    pub title: &'a str,
    pub language: Language,
    pub before: Option<&'a Page>,
    pub after: Option<&'a Page>,
    /// The address of the same page in the other language.
    pub other: Option<&'a str>,
    /// The pages of the language; none for a page of a file, which has no list.
    pub pages: &'a [&'a Page],
}

impl Frame<'_> {
    /// The page around this text.
    pub fn page(&self, html: &str) -> String {
        let to = |address: &str| book::relative(self.address, address);
        let [code, other, pages, search, theme, print] = self.language.words();
        let (css, js, index) = (to("site.css"), to("site.js"), to(self.language.index()));
        let (top, whole) = (to(self.home()), to(self.language.whole()));
        let switch = to(self.other.unwrap_or(match self.language {
            Language::English => "index.zh-CN.html",
            Language::Chinese => "index.html",
        }));
        let title = escaped(self.title);
        let (list, way) = (self.list(), self.way());
        let menu = if list.is_empty() { String::new() } else { format!("<button id=menu>{pages}</button>") };
        format!(
            "<!DOCTYPE html>\n<html lang=\"{code}\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <link rel=\"stylesheet\" href=\"{css}\">\n<script src=\"{js}\" defer data-index=\"{index}\" \
             data-root=\"{root}\"></script>\n</head>\n<body>\n<header>{menu}<a href=\"{top}\">greenling</a>\n\
             <input id=search type=search placeholder=\"{search}\" aria-label=\"{search}\" autocomplete=off>\n\
             <a href=\"{switch}\">{other}</a><a class=print href=\"{whole}\">{print}</a>\
             <button id=theme title=\"{theme}\" aria-label=\"{theme}\">◐</button></header>\n\
             <div id=found hidden></div>\n{list}\n<main>\n{html}\n{way}\n</main>\n</body>\n</html>\n",
            root = to(""),
        )
    }

    /// The first page of the language.
    fn home(&self) -> &'static str {
        match self.language {
            Language::English => "index.html",
            Language::Chinese => "index.zh-CN.html",
        }
    }

    /// The list of pages, by part.
    fn list(&self) -> String {
        if self.pages.is_empty() {
            return String::new();
        }
        let (mut html, mut part) = (String::from("<nav>"), "");
        for page in self.pages {
            if page.part != part {
                part = page.part;
                html += &format!("<h2>{part}</h2>\n");
            }
            let address = book::address(&page.path);
            let here = if address == self.address { " aria-current=page" } else { "" };
            let to = book::relative(self.address, &address);
            html += &format!("<a href=\"{to}\"{here}>{}</a>\n", escaped(&page.title));
        }
        html + "</nav>"
    }

    /// The ways to the pages before and after.
    fn way(&self) -> String {
        let link = |page: Option<&Page>, id: &str, before: &str, after: &str| {
            page.map_or(String::from("<span></span>"), |page| {
                let to = book::relative(self.address, &book::address(&page.path));
                format!("<a id={id} href=\"{to}\">{before}{}{after}</a>", escaped(&page.title))
            })
        };
        if self.before.is_none() && self.after.is_none() {
            return String::new();
        }
        format!("<footer>{}{}</footer>", link(self.before, "before", "← ", ""), link(self.after, "after", "", " →"))
    }
}
