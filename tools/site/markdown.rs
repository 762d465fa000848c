//! One page of Markdown as HTML: headings that can be linked to, links that lead within the site, code in colours; and
//! its sections, for the search.

use std::collections::BTreeMap;

use pulldown_cmark::{CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::highlight;

/// A page of Markdown, rendered.
pub struct Rendered {
    pub html: String,
    pub sections: Vec<Section>,
}

/// What stands below one heading, as plain text.
#[derive(Default)]
pub struct Section {
    pub anchor: String,
    pub title: String,
    pub text: String,
}

/// Where things lead that a page names.
pub trait Targets {
    /// The address for the address of a link.
    fn link(&self, to: &str) -> Result<String, String>;
    /// The address of a file, or of an item in it, that stands between backquotes.
    fn mention(&self, span: &str) -> Option<String>;
}

/// The mark of a heading, as the hosts of repositories make it: lower case, words joined by dashes.
pub fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The words of events, without their marks.
fn plain<'a>(events: impl Iterator<Item = &'a Event<'a>>) -> String {
    let words = events.map(|event| match event {
        Event::Text(text) | Event::Code(text) => text.to_string(),
        Event::SoftBreak | Event::HardBreak => " ".to_owned(),
        _ => String::new(),
    });
    words.collect()
}

/// Renders a page. The mark of each heading begins with `prefix`.
pub fn render(text: &str, prefix: &str, targets: &dyn Targets) -> Result<Rendered, String> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let events: Vec<Event<'_>> = Parser::new_ext(text, options).collect();
    let mut state =
        State { prefix, targets, out: Vec::new(), used: BTreeMap::new(), sections: vec![Section::default()] };
    let mut links = 0;
    let mut at = 0;
    while at < events.len() {
        links += i32::from(matches!(events[at], Event::Start(Tag::Link { .. })));
        links -= i32::from(matches!(events[at], Event::End(TagEnd::Link)));
        at += state.take(&events[at..], links > 0)?;
    }
    let mut html = String::new();
    pulldown_cmark::html::push_html(&mut html, state.out.into_iter());
    Ok(Rendered { html, sections: state.sections })
}

/// A page that is being rendered.
struct State<'a> {
    prefix: &'a str,
    targets: &'a dyn Targets,
    out: Vec<Event<'a>>,
    /// The marks so far, and how often each: the second heading of a name gets a number.
    used: BTreeMap<String, usize>,
    sections: Vec<Section>,
}

impl<'a> State<'a> {
    /// Takes the first event, or all that belong to it, and returns how many these were.
    fn take(&mut self, events: &[Event<'a>], in_link: bool) -> Result<usize, String> {
        let upto = |end: fn(&TagEnd) -> bool| {
            events.iter().position(|event| matches!(event, Event::End(tag) if end(tag))).expect("it ends")
        };
        match &events[0] {
            Event::Start(Tag::Heading { level, .. }) => {
                let end = upto(|tag| matches!(tag, TagEnd::Heading(_)));
                self.heading(*level, &events[1..end]);
                self.out.extend_from_slice(&events[1..=end]);
                return Ok(end + 1);
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                let end = upto(|tag| matches!(tag, TagEnd::CodeBlock));
                self.block(kind, &plain(events[1..end].iter()));
                return Ok(end + 1);
            }
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let dest_url = CowStr::from(self.targets.link(dest_url)?);
                let (link_type, title, id) = (*link_type, title.clone(), id.clone());
                self.out.push(Event::Start(Tag::Link { link_type, dest_url, title, id }));
            }
            Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
                let dest_url = CowStr::from(self.targets.link(dest_url)?);
                let (link_type, title, id) = (*link_type, title.clone(), id.clone());
                self.out.push(Event::Start(Tag::Image { link_type, dest_url, title, id }));
            }
            Event::Start(Tag::Table(alignment)) => {
                self.out.push(Event::Html("<div class=table>".into()));
                self.out.push(Event::Start(Tag::Table(alignment.clone())));
            }
            Event::End(TagEnd::Table) => {
                self.out.push(Event::End(TagEnd::Table));
                self.out.push(Event::Html("</div>".into()));
            }
            Event::Code(span) => {
                self.say(span);
                match self.targets.mention(span).filter(|_| !in_link) {
                    Some(to) => {
                        let html =
                            format!("<a class=mention href=\"{to}\"><code>{}</code></a>", highlight::escaped(span));
                        self.out.push(Event::InlineHtml(html.into()));
                    }
                    None => self.out.push(Event::Code(span.clone())),
                }
            }
            other => {
                match other {
                    Event::Text(text) => self.say(text),
                    Event::SoftBreak | Event::End(TagEnd::Paragraph | TagEnd::TableCell | TagEnd::Item) => {
                        self.say(" ")
                    }
                    _ => {}
                }
                self.out.push(other.clone());
            }
        }
        Ok(1)
    }

    /// Adds words to the text of the section.
    fn say(&mut self, words: &str) {
        self.sections.last_mut().expect("there is one").text.push_str(words);
    }

    /// Begins a heading, and a section. The end of the heading is an event of its own.
    fn heading(&mut self, level: HeadingLevel, inner: &[Event<'a>]) {
        let title = plain(inner.iter());
        let name = anchor(&title);
        let times = self.used.entry(name.clone()).or_insert(0);
        *times += 1;
        let name = if *times == 1 { name } else { format!("{name}-{}", *times - 1) };
        let id = Some(CowStr::from(format!("{}{name}", self.prefix)));
        self.out.push(Event::Start(Tag::Heading { level, id, classes: Vec::new(), attrs: Vec::new() }));
        self.sections.push(Section { anchor: name, title, text: String::new() });
    }

    /// Adds a block of code.
    fn block(&mut self, kind: &CodeBlockKind<'_>, text: &str) {
        let kind = match kind {
            CodeBlockKind::Fenced(kind) => kind.to_string(),
            CodeBlockKind::Indented => String::new(),
        };
        // The first word is the language; one that names a file quotes it.
        let (language, place) = kind.split_once(' ').unwrap_or((&kind, ""));
        let is_file = place.contains('/') && self.targets.mention(place).is_some();
        let ending = place.rsplit('.').next().filter(|_| is_file);
        let language = ending.unwrap_or(language.split(',').next().unwrap_or_default());
        let head = match self.targets.mention(place).filter(|_| is_file) {
            Some(to) => format!("<a class=place href=\"{to}\">{}</a>", highlight::escaped(place)),
            None => String::new(),
        };
        let html = format!("{head}<pre class=\"{language}\"><code>{}</code></pre>\n", highlight::code(language, text));
        self.say(&format!(" {text} "));
        self.out.push(Event::Html(html.into()));
    }
}
