//! Takes the examples out of the documentation of std's sources, and makes them examples of this package.
//!
//! ```text
//!   library/std/src/net/tcp.rs                    OUT_DIR/examples.rs
//!   /// ```no_run                                 /// ```no_run
//!   /// use std::net::TcpStream;         ---->    /// use std_examples::net::TcpStream;
//!   /// ..                                        /// ..
//! ```
//!
//! In this package `net` and the other modules that the crate mirrors are greenling's, and all else is std's: see
//! `lib.rs`. An example in `EXCEPT` is expected to fail in the way that stands there, so that one which has begun to
//! work is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

#[path = "except.rs"]
mod except;
use except::{EXCEPT, Fails};

/// Files and folders below `library/std/src/` whose examples are taken.
const FILES: &[&str] = &[
    "fs.rs",
    "io/copy.rs",
    "io/pipe.rs",
    "io/stdio.rs",
    "net",
    "os/fd",
    "os/linux/net.rs",
    "os/net/linux_ext",
    "os/unix/fs.rs",
    "os/unix/net",
    "os/unix/process.rs",
    "os/unix/thread.rs",
    "process.rs",
    "sync/barrier.rs",
    "sync/lazy_lock.rs",
    "sync/mod.rs",
    "sync/mpsc.rs",
    "sync/once.rs",
    "sync/once_lock.rs",
    "sync/poison.rs",
    "sync/poison",
    "thread",
    "time.rs",
];

/// An example.
struct Example {
    /// The file, the name of the item that it documents, and its number there: `net/tcp.rs: connect 2`.
    name: String,
    /// The words behind the opening fence.
    words: String,
    code: Vec<String>,
}

/// The folder `library` of the sources of std, if they are installed.
fn library() -> Option<PathBuf> {
    let output = Command::new(env::var_os("RUSTC")?).args(["--print", "sysroot"]).output().ok()?;
    let library = Path::new(String::from_utf8(output.stdout).ok()?.trim()).join("lib/rustlib/src/rust/library/std/src");
    library.join("lib.rs").is_file().then_some(library)
}

/// The file, or the files of the folder that are not tests.
fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.is_file() && !file.ends_with("tests.rs") && !file.ends_with("test.rs"));
    files.sort();
    files
}

/// The name of the item that a line begins, if it begins one.
fn item(line: &str) -> Option<&str> {
    let mut words = line.trim().split(|c: char| !(c == '_' || c.is_alphanumeric())).filter(|word| !word.is_empty());
    let kinds = ["fn", "struct", "enum", "trait", "type", "const", "static", "macro_rules", "mod", "impl", "use"];
    while let Some(word) = words.next() {
        if word == "const" && line.contains(" fn ") {
            continue;
        }
        if kinds.contains(&word) {
            return words.next();
        }
    }
    None
}

/// The examples of a file.
fn examples(file: &str, text: &str) -> Vec<Example> {
    let mut found = Vec::new();
    // Those whose item is not reached yet.
    let mut waiting: Vec<Example> = Vec::new();
    let mut open: Option<(Example, bool)> = None;
    let mut counts = BTreeMap::<String, u32>::new();
    let mut name = |item: &str| {
        let count = counts.entry(item.to_owned()).or_default();
        *count += 1;
        format!("{file}: {item} {count}")
    };
    for line in text.lines() {
        // A fence may stand in an attribute, `#[cfg_attr(unix, doc = "```no_run")]`, with one to be ignored for other
        // systems.
        let line = match line.split_once("doc = \"```") {
            Some((_, rest)) if rest.starts_with("ignore") => continue,
            Some((_, rest)) => format!("///```{}", rest.split('"').next().unwrap_or("")),
            None => line.trim().to_owned(),
        };
        let (of_module, doc) = match (line.strip_prefix("///"), line.strip_prefix("//!")) {
            (Some(doc), _) => (false, doc),
            (None, Some(doc)) => (true, doc),
            (None, None) => {
                if !waiting.is_empty()
                    && !line.starts_with('#')
                    && let Some(item) = item(&line)
                {
                    for mut example in waiting.drain(..) {
                        example.name = name(item);
                        found.push(example);
                    }
                }
                continue;
            }
        };
        let doc = doc.strip_prefix(' ').unwrap_or(doc);
        match (doc.trim_start().strip_prefix("```"), &mut open) {
            (Some(words), None) => {
                let words = words.trim().to_owned();
                open = Some((Example { name: String::new(), words, code: Vec::new() }, of_module));
            }
            (Some(_), open) => match open.take() {
                Some((mut example, true)) => {
                    example.name = name("module");
                    found.push(example);
                }
                Some((example, false)) => waiting.push(example),
                None => {}
            },
            (None, Some((example, _))) => example.code.push(doc.to_owned()),
            (None, None) => {}
        }
    }
    found
}

/// Whether rustdoc of a stable release runs or compiles it.
fn counts(example: &Example) -> bool {
    let rust = |word: &str| {
        ["rust", "no_run", "should_panic", "compile_fail"].contains(&word)
            || word.starts_with("edition")
            || word.starts_with("E0")
    };
    let words = || example.words.split([',', ' ']).filter(|word| !word.is_empty());
    words().all(rust) && !example.code.iter().any(|line| line.trim_start_matches(['#', ' ']).starts_with("![feature("))
}

/// The text with `std::` replaced.
fn replaced(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("std::") {
        let (before, after) = rest.split_at(at);
        let inside_word = before.ends_with(|c: char| c == '_' || c.is_alphanumeric());
        out.push_str(before);
        out.push_str(if inside_word { "std::" } else { "std_examples::" });
        rest = &after["std::".len()..];
    }
    out + rest
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=except.rs");
    let library = library();
    let mut text = String::new();
    let (mut all, mut fail) = (0, 0);
    let mut unused: BTreeSet<&str> = EXCEPT.iter().flat_map(|group| group.examples).copied().collect();
    for example in library.iter().flat_map(|library| {
        FILES.iter().flat_map(|name| files(&library.join(name))).flat_map(move |path| {
            let file = path.strip_prefix(library).unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            examples(&file, &text)
        })
    }) {
        if !counts(&example) {
            continue;
        }
        all += 1;
        unused.remove(example.name.as_str());
        let group = EXCEPT.iter().find(|group| group.examples.contains(&example.name.as_str()));
        fail += u32::from(group.is_some());
        let words = match group.map(|group| group.fails) {
            None => example.words.as_str(),
            Some(Fails::ToCompile) => "compile_fail",
            Some(Fails::ToRun) => "should_panic",
        };
        let name: String = example.name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        text += &format!("/// `{}`\n///\n/// ```{words}\n", example.name);
        for line in &example.code {
            text += &format!("/// {}\n", replaced(line));
        }
        text += &format!("/// ```\npub mod {name} {{}}\n");
    }
    assert!(library.is_none() || unused.is_empty(), "in except.rs, but not in std: {unused:#?}");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    fs::write(out.join("examples.rs"), text).unwrap();
    let reasons: String =
        EXCEPT.iter().map(|group| format!("({:?}, {}), ", group.reason, group.examples.len())).collect();
    let counts = format!(
        "/// Examples, and those that are expected to fail.\npub const COUNTS: (u32, u32) = ({all}, {fail});\n\
         /// Why, and how many for that reason.\npub const REASONS: &[(&str, u32)] = &[{reasons}];\n"
    );
    fs::write(out.join("counts.rs"), counts).unwrap();
}
