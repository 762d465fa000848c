//! A scanner that knows just enough Rust: comments, quotes, blocks and paths.

/// A stretch of a file that is no code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// From `//` to the end of the line, or from `/*` to `*/`.
    Comment,
    /// A string or a character, with its quotes.
    Quoted,
}

/// Returns the comments and literals of a file in order, as byte ranges.
fn pieces(text: &str) -> Vec<(Piece, usize, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        // What begins here?
        let rest = &bytes[at..];
        let after_word = at > 0 && is_word(bytes[at - 1]);
        let (piece, length) = if rest.starts_with(b"//") {
            (Piece::Comment, rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()))
        } else if rest.starts_with(b"/*") {
            (Piece::Comment, block_comment(rest))
        } else if rest[0] == b'"' {
            (Piece::Quoted, string(rest))
        } else if let Some(length) = (!after_word).then(|| raw_string(rest)).flatten() {
            (Piece::Quoted, length)
        } else if let Some(length) = (rest[0] == b'\'').then(|| character(rest)).flatten() {
            (Piece::Quoted, length)
        } else {
            at += 1;
            continue;
        };
        found.push((piece, at, at + length));
        at += length;
    }
    found
}

/// Blanks the pieces that `drop` names. Line breaks and byte positions stay.
fn blanked(text: &str, drop: impl Fn(Piece) -> bool) -> String {
    let mut code = text.as_bytes().to_vec();
    for (_, from, to) in pieces(text).into_iter().filter(|&(piece, ..)| drop(piece)) {
        for byte in code[from..to].iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
    }
    String::from_utf8(code).expect("only whole literals and comments were replaced, byte by byte")
}

/// Returns the code alone: comments and literals become blanks.
pub(crate) fn code_of(text: &str) -> String {
    blanked(text, |_| true)
}

/// Returns the code with its literals: comments become blanks.
pub(crate) fn without_comments(text: &str) -> String {
    blanked(text, |piece| piece == Piece::Comment)
}

/// A comment that begins with `//`.
pub(crate) struct Comment<'a> {
    /// The line that the comment stands on, counted from 1.
    pub(crate) line: usize,
    /// `//!`, `///` or `//`.
    pub(crate) mark: &'static str,
    /// What follows the mark.
    pub(crate) text: &'a str,
    /// Whether nothing precedes the comment on its line.
    pub(crate) alone: bool,
    /// The columns of the whole line.
    pub(crate) width: usize,
}

/// Returns the line comments of a file in order.
pub(crate) fn comments_of(text: &str) -> Vec<Comment<'_>> {
    let (mut line, mut counted) = (1, 0);
    let mut comments = Vec::new();
    for (_, from, to) in pieces(text).into_iter().filter(|&(piece, ..)| piece == Piece::Comment) {
        line += text[counted..from].matches('\n').count();
        counted = from;
        let comment = &text[from..to];
        let Some(mark) = ["//!", "///", "//"].into_iter().find(|mark| comment.starts_with(mark)) else { continue };
        let start = text[..from].rfind('\n').map_or(0, |at| at + 1);
        let alone = text[start..from].trim().is_empty();
        let width = text[start..to].chars().count();
        comments.push(Comment { line, mark, text: &comment[mark.len()..], alone, width });
    }
    comments
}

/// Reports whether `byte` may stand in an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Returns the length of the block comment at the start of `rest`; block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Returns the length of the string at the start of `rest`.
fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Returns the length of the raw string at the start of `rest`, if there is one: `r"..."`, `br##"..."##`, `cr"..."`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = rest.iter().take_while(|byte| b"bcr".contains(byte)).count();
    let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    if prefix == 0 || rest[prefix - 1] != b'r' || rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let close = [b"\"", &rest[prefix..prefix + hashes]].concat();
    let body = prefix + hashes + 1;
    let end = rest[body..].windows(close.len()).position(|window| window == close)?;
    Some(body + end + close.len())
}

/// Returns the length of the character at the start of `rest`, if there is one: `'x'`, `'\n'`, but no lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return Some(3 + rest[3..].iter().position(|&byte| byte == b'\'')? + 1);
    }
    let width = std::str::from_utf8(&rest[1..rest.len().min(5)])
        .or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]))
        .ok()?
        .chars()
        .next()?
        .len_utf8();
    (rest.get(1 + width) == Some(&b'\'')).then_some(2 + width)
}

/// Returns the positions at which `word` stands as a word of its own.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let bytes = code.as_bytes();
        let end = at + word.len();
        (at == 0 || !is_word(bytes[at - 1])) && !bytes.get(end).is_some_and(|&byte| is_word(byte))
    })
}

/// Returns the line of a byte position, counted from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// Blanks the `#[cfg(..test..)] mod x { .. }` blocks of code that [`code_of`] returned.
pub(crate) fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    for (start, _) in code.match_indices("#[cfg(") {
        let Some(condition) = code[start..].find(']').map(|length| &code[start..start + length]) else {
            continue;
        };
        if words(condition, "test").next().is_none() || condition.contains("not(test") {
            continue;
        }
        // A module with a body follows.
        let rest = &code[start + condition.len() + 1..];
        let Some(open) = rest.find('{') else { continue };
        let between = &rest[..open];
        if words(between, "mod").next().is_none() || between.contains(';') {
            continue;
        }
        let end = start + condition.len() + 1 + block(rest, open);
        let blank: String = code[start..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        if blank.len() == end - start {
            kept.replace_range(start..end, &blank);
        }
    }
    kept
}

/// Returns the position after the brace that closes the one at `open`.
pub(crate) fn block(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Returns the paths that begin at `at`, one for each leaf of a `{..}` tree: `crate::a::{b, c::D}` gives
/// `crate a b` and `crate a c D`. `x as y` ends in `x as y`.
pub(crate) fn paths_at(code: &str, at: usize) -> Vec<Vec<String>> {
    fn tree(code: &str, at: &mut usize, stem: &[String], out: &mut Vec<Vec<String>>) {
        let blanks = |at: &mut usize| *at += code[*at..].len() - code[*at..].trim_start().len();
        let mut path = stem.to_vec();
        loop {
            blanks(at);
            let rest = &code[*at..];
            // A group: each of its members is a leaf or another tree.
            if rest.starts_with('{') {
                *at += 1;
                loop {
                    blanks(at);
                    if code[*at..].is_empty() || code[*at..].starts_with('}') {
                        *at += 1;
                        return;
                    }
                    let before = *at;
                    tree(code, at, &path, out);
                    blanks(at);
                    if code[*at..].starts_with(',') || *at == before {
                        *at += 1;
                    }
                }
            }
            // A name, then perhaps `::` and more.
            let length = if rest.starts_with('*') { 1 } else { rest.bytes().take_while(|&byte| is_word(byte)).count() };
            if length == 0 {
                break;
            }
            path.push(rest[..length].to_owned());
            *at += length;
            let here = *at;
            blanks(at);
            if code[*at..].starts_with("::") {
                *at += 2;
            } else {
                *at = here;
                break;
            }
        }
        // A leaf, perhaps with another name.
        out.push(path);
        let alias = code[*at..].trim_start();
        if let Some(alias) = alias.strip_prefix("as ") {
            let alias = alias.trim_start();
            let length = alias.bytes().take_while(|&byte| is_word(byte)).count();
            *at = code.len() - alias.len() + length;
            out.last_mut().unwrap().extend(["as".to_owned(), alias[..length].to_owned()]);
        }
    }
    let mut out = Vec::new();
    tree(code, &mut at.clone(), &[], &mut out);
    out
}

#[test]
fn scanner_keeps_code_and_blanks_the_rest() {
    let text = r##"let a = "unsafe"; // unsafe
/* unsafe /* nested */ unsafe */ fn f<'a>(c: &'a str) { x('"', '\'', b'\\', 'é', "\"unsafe"); }
let r = r#"unsafe " quote"#; let s = "é"; unsafe {}"##;
    let code = code_of(text);
    assert_eq!(code.len(), text.len());
    let found: Vec<usize> = words(&code, "unsafe").collect();
    assert_eq!(found, [text.rfind("unsafe").unwrap()]);
    assert!(code.contains("fn f<'a>(c: &'a str) { x("));
    assert_eq!(words("unsafe_code un_unsafe", "unsafe").count(), 0);
}

#[test]
fn scanner_leaves_out_test_modules() {
    let code = "a { }\n#[cfg(all(test, not(loom)))]\nmod tests { fn f() { bad } }\n#[cfg(not(test))] mod x { kept }";
    let kept = without_tests(code);
    assert_eq!(kept.len(), code.len());
    assert!(!kept.contains("bad") && kept.contains("kept") && kept.contains("a { }"));
}

#[test]
fn scanner_expands_use_trees() {
    let code = "crate::a::{b, c::{D as E, *}, f::g(x)}, h";
    let paths: Vec<String> = paths_at(code, 0).iter().map(|path| path.join(" ")).collect();
    assert_eq!(paths[..3], ["crate a b", "crate a c D as E", "crate a c *"]);
}

#[test]
fn scanner_finds_comments() {
    let text = "//! head\nlet a = \"// no\"; // tail\n\n    /// doc\n/* block */ fn f() {}\n";
    let found: Vec<_> = comments_of(text)
        .iter()
        .map(|c| format!("{} {} {}{} {}", c.line, c.mark, c.text.trim(), c.alone, c.width))
        .collect();
    assert_eq!(found, ["1 //! headtrue 8", "2 // tailfalse 24", "4 /// doctrue 11"]);
    assert_eq!(without_comments(text).matches("// no").count(), 1);
}
