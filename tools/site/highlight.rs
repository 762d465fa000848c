//! Code with the kinds of its words marked: comments, strings, keywords, numbers, types. Enough for a reader, and far
//! from a parser.

/// What distinguishes a language.
struct Language {
    /// What begins a comment to the end of the line.
    line: &'static str,
    /// Whether `/* */` is a comment.
    blocks: bool,
    /// Whether `'` begins a string. Otherwise it quotes one character, or begins a lifetime.
    single: bool,
    keywords: &'static str,
}

const RUST: &str = "as async await break const continue crate dyn else enum extern false fn for if impl in let loop \
                    match mod move mut pub ref return self static struct super trait true type unsafe use where while";
const C: &str = "auto break case char class const continue default do double else enum extern float for goto if int \
                 long namespace new register return short signed sizeof static struct switch template typedef union \
                 unsigned using void volatile while func go package import var chan defer select range";
const PYTHON: &str = "and as assert async await break class continue def del elif else except False finally for from \
                      global if import in is lambda None nonlocal not or pass raise return True try while with yield";
const SHELL: &str = "case do done elif else esac fi for function if in local return then while";
const SCRIPT: &str = "const let var function return if else for while new of in class null true false switch case";

/// The language of a file ending or of a block.
fn language(kind: &str) -> Option<Language> {
    let (line, blocks, single, keywords) = match kind {
        "rust" | "rs" | "diff" | "patch" => ("//", true, false, RUST),
        "c" | "h" | "cpp" | "go" => ("//", true, false, C),
        "js" | "html" | "css" => ("//", true, true, SCRIPT),
        "python" | "py" => ("#", false, true, PYTHON),
        "sh" | "run" => ("#", false, true, SHELL),
        "toml" | "lock" => ("#", false, true, "true false"),
        "asm" => ("//", true, false, ""),
        _ => return None,
    };
    Some(Language { line, blocks, single, keywords })
}

/// A text as HTML has it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Code as HTML, by the language of its block or its file ending.
pub fn code(kind: &str, text: &str) -> String {
    match kind {
        "diff" | "patch" => text.split('\n').map(difference).collect::<Vec<_>>().join("\n"),
        "console" => text.split('\n').map(typed).collect::<Vec<_>>().join("\n"),
        kind => match language(kind) {
            Some(language) => words(&language, text),
            None => escaped(text),
        },
    }
}

/// A line of a difference.
fn difference(line: &str) -> String {
    let (mark, rest) = line.split_at(line.chars().next().map_or(0, char::len_utf8));
    let language = language("rust").expect("it is known");
    match mark {
        "+" => format!("<span class=add>+{}</span>", words(&language, rest)),
        "-" => format!("<span class=del>-{}</span>", words(&language, rest)),
        mark => format!("{}{}", escaped(mark), words(&language, rest)),
    }
}

/// A line of a session: what is typed, or what is printed.
fn typed(line: &str) -> String {
    match line.starts_with("$ ") {
        true => format!("<b>{}</b>", escaped(line)),
        false => escaped(line),
    }
}

/// The length of what begins a text, and its kind, if it has one.
fn token(language: &Language, rest: &str, after_word: bool) -> (usize, &'static str) {
    let first = rest.chars().next().expect("there is a character");
    let to = |end: Option<usize>, more: usize| end.map_or(rest.len(), |at| at + more);
    if rest.starts_with(language.line) {
        return (to(rest.find('\n'), 0), "c");
    }
    if language.blocks && rest.starts_with("/*") {
        return (to(rest.find("*/"), 2), "c");
    }
    if let Some(raw) = rest.strip_prefix('r').map(|rest| rest.trim_start_matches('#'))
        && !after_word
        && language.keywords == RUST
        && raw.starts_with('"')
    {
        let hashes = rest.len() - 1 - raw.len();
        let end = format!("\"{}", "#".repeat(hashes));
        let begin = hashes + 2;
        return (to(rest[begin..].find(&end).map(|at| at + begin), end.len()), "s");
    }
    if first == '"' || (first == '\'' && language.single) {
        return (string(rest, first), "s");
    }
    if first == '\'' {
        // A character has its end after one character, or after an escape.
        let mut inner = rest[1..].char_indices();
        let end = match inner.next() {
            Some((_, '\\')) => rest.get(3..).and_then(|rest| rest.find('\'')).map(|at| at + 4),
            Some((at, c)) if rest[1 + at + c.len_utf8()..].starts_with('\'') => Some(2 + at + c.len_utf8()),
            _ => None,
        };
        return end.map_or((1, ""), |end| (end, "s"));
    }
    if first.is_alphanumeric() || first == '_' {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = &rest[..end];
        let kind = if first.is_ascii_digit() {
            "n"
        } else if language.keywords.split(' ').any(|keyword| keyword == word) {
            "k"
        } else if first.is_uppercase() {
            "t"
        } else {
            ""
        };
        return (end, kind);
    }
    (first.len_utf8(), "")
}

/// The length of a string that begins and ends with this mark.
fn string(rest: &str, mark: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == mark => return at + 1,
            '\n' if mark == '\'' => return 1,
            _ => {}
        }
    }
    rest.len()
}

/// The words of some code, with their kinds. A span that goes over lines is closed and opened again at each.
fn words(language: &Language, text: &str) -> String {
    let (mut html, mut rest, mut after_word) = (String::new(), text, false);
    while !rest.is_empty() {
        let (length, kind) = token(language, rest, after_word);
        let (token, after) = rest.split_at(length);
        after_word = token.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        match kind {
            "" => html += &escaped(token),
            kind => {
                let lines: Vec<String> =
                    token.split('\n').map(|line| format!("<span class={kind}>{}</span>", escaped(line))).collect();
                html += &lines.join("\n");
            }
        }
        rest = after;
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_kinds() {
        assert_eq!(
            code("rust", "let x = 'a'; // b"),
            "<span class=k>let</span> x = <span class=s>'a'</span>; <span class=c>// b</span>"
        );
        assert_eq!(code("rust", "&'a str"), "&amp;'a str");
        assert_eq!(
            code("rust", r##"r#"a"b"# 1"##),
            "<span class=s>r#&quot;a&quot;b&quot;#</span> <span class=n>1</span>"
        );
        assert_eq!(code("rust", r"'\'' '\n'"), r"<span class=s>'\''</span> <span class=s>'\n'</span>");
        assert_eq!(code("diff", "+a\n-b\n"), "<span class=add>+a</span>\n<span class=del>-b</span>\n");
        assert_eq!(code("text", "<a>"), "&lt;a&gt;");
        assert_eq!(
            code("py", "\"\"\"a\nb\"\"\""),
            "<span class=s>&quot;&quot;</span><span class=s>&quot;a</span>\n<span class=s>b&quot;</span><span class=s>&quot;&quot;</span>"
        );
    }

    #[test]
    fn no_text_is_lost_or_stops_it() {
        for text in ["'", "'\\", "\"", "r#\"", "/*", "é'é'", "'é", "r", "\\", "'\n"] {
            for kind in ["rust", "py", "c", "sh", "diff", "console"] {
                let html = code(kind, text);
                let plain: String =
                    html.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
                assert_eq!(plain, escaped(text), "{kind} {text:?}");
            }
        }
    }
}
