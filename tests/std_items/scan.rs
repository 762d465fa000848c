//! Reads the sources of std, and lists what is stable in them: items, methods, and the traits that types implement.
//!
//! It knows just enough Rust for files in rustfmt's style in which each public item has its stability written before
//! it: `#[stable(feature = "..", since = "..")]` or `#[unstable(..)]`. What macros make is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module of std, as programs name it without `std::`, and the files or folders below `library/std/src/` it comes
/// from.
pub(crate) struct Module {
    pub(crate) path: &'static str,
    pub(crate) files: &'static [&'static str],
}

/// A name such as `net::TcpStream::connect` or `net::TcpStream: Read`, and the release since which it is stable.
pub(crate) type Found = BTreeMap<String, String>;

/// What is stable in these modules. An implementation is listed for a type of theirs, whose name is in `own`.
pub(crate) fn stable(library: &Path, modules: &[Module], own: &BTreeSet<String>) -> Found {
    let mut found = Found::new();
    for module in modules {
        for file in module.files {
            for text in texts(&library.join("std/src").join(file)) {
                let code = code_of(&text);
                let mut scan = Scan { module: module.path, text: &text, own, found: &mut found };
                scan.items(&code, 0, code.len(), &Inside::Module);
            }
        }
    }
    found
}

/// The text of a file, or of all files in a folder that are not tests.
fn texts(path: &Path) -> Vec<String> {
    if path.is_dir() {
        let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.is_file() && !file.ends_with("tests.rs") && !file.ends_with("test.rs"));
        files.sort();
        return files.iter().flat_map(|file| texts(file)).collect();
    }
    vec![fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))]
}

/// What the items that are read are inside of.
enum Inside {
    Module,
    /// `impl Name` or `trait Name`.
    Type(String),
}

/// One file.
struct Scan<'a> {
    module: &'static str,
    /// With comments and strings, for the attributes.
    text: &'a str,
    own: &'a BTreeSet<String>,
    found: &'a mut Found,
}

impl Scan<'_> {
    /// The items between two positions of `code`, at depth 0.
    fn items(&mut self, code: &str, from: usize, to: usize, inside: &Inside) {
        let mut at = from;
        let mut attributes: Vec<String> = Vec::new();
        while at < to {
            let rest = &code[at..to];
            let blanks = rest.len() - rest.trim_start().len();
            if blanks > 0 {
                at += blanks;
                continue;
            }
            if rest.starts_with('#') {
                let open = at + rest.find('[').unwrap_or(0);
                let end = closing(code, open);
                // `#![..]` says something of the whole file.
                if !rest.starts_with("#!") {
                    attributes.push(self.text[open..end].to_owned());
                }
                at = end;
                continue;
            }
            let (header, end) = header_and_end(code, at, to);
            self.item(code, header, end, &attributes, inside);
            attributes.clear();
            at = end;
        }
    }

    /// One item: its header is `code[header.0..header.1]`, its body what follows up to `end`.
    fn item(&mut self, code: &str, header: (usize, usize), end: usize, attributes: &[String], inside: &Inside) {
        let text = code[header.0..header.1].trim();
        let since = since(attributes);
        let body = (header.1 + 1, end.saturating_sub(1).max(header.1 + 1));
        let words: Vec<&str> = text.split_whitespace().collect();
        let is_for_tests = attributes.iter().any(|attribute| attribute.starts_with("[cfg(test)]"));
        if is_for_tests || words.is_empty() {
            return;
        }
        if words[0] == "impl" || words[0].starts_with("impl<") || text.starts_with("unsafe impl") {
            if let Some((of_trait, of_type)) = impl_parts(text) {
                match of_trait {
                    None => self.items(code, body.0, body.1, &Inside::Type(base(&of_type).to_owned())),
                    Some(of_trait) => self.implementation(&of_trait, &of_type, &since),
                }
            }
            return;
        }
        let in_trait = matches!(inside, Inside::Type(_)) && !text.starts_with("pub");
        let Some(since) = since else { return };
        if text.starts_with("pub use") {
            for name in used(text) {
                self.add(name, &since);
            }
            return;
        }
        if !(text.starts_with("pub ") || in_trait || text.starts_with("macro_rules!")) {
            return;
        }
        let Some(kind) = words.iter().position(|word| {
            ["fn", "struct", "enum", "trait", "type", "const", "static", "macro", "mod", "union"].contains(word)
        }) else {
            return;
        };
        // `const fn f` is a function.
        let kind = if words[kind] == "const" && words[kind..].contains(&"fn") {
            words.iter().position(|word| *word == "fn").unwrap_or(kind)
        } else {
            kind
        };
        let Some(name) = words.get(kind + 1).map(|word| identifier(word)) else { return };
        match inside {
            Inside::Type(of) => {
                let name = format!("{of}::{name}");
                self.add(name, &since);
            }
            Inside::Module => {
                self.add(name.to_owned(), &since);
                let derived = attributes.iter().filter_map(|attribute| attribute.strip_prefix("[derive("));
                for of_trait in derived.flat_map(|list| list.trim_end_matches([']', ')']).split(',')) {
                    self.implementation(of_trait.trim(), name, &Some(since.clone()));
                }
                if words[kind] == "trait" {
                    self.items(code, body.0, body.1, &Inside::Type(name.to_owned()));
                }
            }
        }
    }

    fn add(&mut self, name: String, since: &str) {
        self.found.entry(format!("{}::{name}", self.module)).or_insert_with(|| since.to_owned());
    }

    /// `impl of_trait for of_type`, if one of the two names a type of which this is asked.
    fn implementation(&mut self, of_trait: &str, of_type: &str, since: &Option<String>) {
        let ours = |name: &str| self.own.contains(base(name));
        let argument = of_trait.split_once('<').map_or("", |(_, rest)| rest.trim_end_matches('>'));
        let unsaid = ["Send", "Sync", "Sealed", "StructuralPartialEq", "Drop"];
        if !(ours(of_type) || ours(argument)) || unsaid.contains(&base(of_trait)) || of_trait.starts_with('!') {
            return;
        }
        let Some(since) = since else { return };
        self.add(format!("{}: {}", plain(of_type), plain(of_trait)), since);
    }
}

/// The release in the attribute `stable`; none without one.
fn since(attributes: &[String]) -> Option<String> {
    let stable = attributes.iter().find(|attribute| attribute.starts_with("[stable("))?;
    let (_, release) = stable.split_once("since = \"")?;
    Some(release.split('"').next().unwrap_or("").to_owned())
}

/// The header of the item at `at`, up to its `{` or `;`, and where the item ends.
fn header_and_end(code: &str, at: usize, to: usize) -> ((usize, usize), usize) {
    let mut depth = 0_i32;
    let is_use = code[at..].starts_with("pub use") || code[at..].starts_with("use ");
    let mut here = at;
    while here < to {
        match code.as_bytes()[here] {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 && !is_use => return ((at, here), closing(code, here)),
            b';' if depth == 0 => return ((at, here), here + 1),
            _ => {}
        }
        here += 1;
    }
    ((at, to), to)
}

/// The position after the bracket that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// `impl<..> Trait for Type where ..` in two parts, or `impl<..> Type` in one.
fn impl_parts(header: &str) -> Option<(Option<String>, String)> {
    let rest = header.split_once("impl")?.1;
    let rest = if rest.starts_with('<') { &rest[angle(rest)..] } else { rest };
    let rest = rest.split(" where").next()?.split("\nwhere").next()?.trim();
    let rest = rest.strip_prefix("const ").unwrap_or(rest);
    Some(match rest.split_once(" for ") {
        Some((of_trait, of_type)) => (Some(of_trait.trim().to_owned()), of_type.trim().to_owned()),
        None => (None, rest.to_owned()),
    })
}

/// The length of `<..>` that `text` begins with.
fn angle(text: &str) -> usize {
    let mut depth = 0;
    let mut before = b' ';
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if before != b'-' => depth -= 1,
            _ => {}
        }
        before = byte;
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// The last name of a path, without `&`, lifetimes and generics.
fn base(name: &str) -> &str {
    let name = name.trim_start_matches('&').trim_start();
    let name = name.strip_prefix('\'').and_then(|name| name.split_once(' ')).map_or(name, |(_, name)| name);
    let name = name.strip_prefix("mut ").unwrap_or(name);
    let path = &name[..name.find(['<', ' ', '(']).unwrap_or(name.len())];
    path.rsplit("::").next().unwrap_or(path)
}

/// A type or trait as it is listed: last names, without lifetimes and blanks.
pub(crate) fn plain(name: &str) -> String {
    let reference = if name.starts_with('&') { "&" } else { "" };
    match name.split_once('<') {
        Some((_, arguments)) => {
            let arguments = &arguments[..arguments.rfind('>').unwrap_or(arguments.len())];
            let kept: Vec<String> =
                arguments.split(',').map(str::trim).filter(|argument| !argument.starts_with('\'')).map(plain).collect();
            match kept.is_empty() || !name.contains("From<") && !name.contains("Into<") {
                true => format!("{reference}{}", base(name)),
                false => format!("{reference}{}<{}>", base(name), kept.join(", ")),
            }
        }
        None => format!("{reference}{}", base(name)),
    }
}

/// The names that a `pub use` brings.
fn used(text: &str) -> Vec<String> {
    let list = match text.split_once('{') {
        Some((_, list)) => list.trim_end_matches('}'),
        None => text.rsplit("::").next().unwrap_or(text),
    };
    list.split(',').map(str::trim).filter(|name| !name.is_empty() && !name.ends_with('*')).map(last_of_use).collect()
}

/// `c` of `a::b as c`, or `b` of `a::b`.
fn last_of_use(name: &str) -> String {
    let name = name.split_once(" as ").map_or(name, |(_, alias)| alias);
    name.rsplit("::").next().unwrap_or(name).to_owned()
}

/// The identifier that `word` begins with.
fn identifier(word: &str) -> &str {
    &word[..word.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(word.len())]
}

/// The code alone: comments, strings and characters become blanks. Positions stay.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            rest.windows(2).position(|two| two == b"*/").map_or(rest.len(), |end| end + 2)
        } else if rest[0] == b'"' {
            let mut end = 1;
            while end < rest.len() && rest[end] != b'"' {
                end += if rest[end] == b'\\' { 2 } else { 1 };
            }
            (end + 1).min(rest.len())
        } else if rest[0] == b'\'' && rest.get(1) == Some(&b'\\') {
            rest.iter().skip(3).position(|&byte| byte == b'\'').map_or(1, |end| end + 4)
        } else if rest[0] == b'\'' && rest.get(2) == Some(&b'\'') {
            3
        } else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    String::from_utf8(code).expect("only whole literals and comments were replaced")
}
