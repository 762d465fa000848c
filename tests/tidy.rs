//! What the compiler does not check: where `unsafe` may stand, which file may import which, and what must not be in the
//! tree. Each check is a function from a [`Tree`] to a list of complaints; one test runs it on the real tree, another
//! on a bad snippet, because a check that nobody has seen fail is not a check.
//!
//! The tables come first: they are what changes when a file is added.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The files under `src/` that may hold `unsafe`. Each begins with `#![allow(unsafe_code)]`.
const UNSAFE: &[&str] = &[
    "sys/affinity.rs",
    "sys/clock.rs",
    "sys/epoll.rs",
    "sys/eventfd.rs",
    "sys/file.rs",
    "sys/fork.rs",
    "sys/handlers.rs",
    "sys/inherit.rs",
    "sys/mmap.rs",
    "sys/prefetch.rs",
    "sys/process.rs",
    "sys/raw.rs",
    "sys/signal.rs",
    "sys/signalfd.rs",
    "sys/socket.rs",
    "sys/stack_pointer.rs",
    "sys/testing.rs",
    "sys/unix.rs",
    "io/known.rs",
    "switch/stack.rs",
    "switch/stack_pool.rs",
    "switch/fiber.rs",
    "switch/wait_node.rs",
    "switch/sweep.rs",
    "switch/root.rs",
    "switch/mailbox.rs",
    "switch/packet.rs",
    "thread/scope.rs",
    "monkey/child.rs",
    "monkey/closing.rs",
    "monkey/flock.rs",
    "monkey/futex.rs",
    "monkey/many.rs",
    "monkey/names.rs",
    "monkey/patch.rs",
    "monkey/poll.rs",
    "monkey/setting.rs",
    "monkey/stream.rs",
    "monkey/time.rs",
    "monkey/transfer.rs",
];

/// A file imports lower ranks only. The last column names a *unit*: files of one rank that may import each other, ""
/// for none. An entry that ends in `/` holds for the files below it that have no entry of their own. A `mod.rs`
/// without an entry takes the highest rank in its folder; it may always name its children, and a path through one of
/// its re-exports counts as a path to the file that defines the item.
const RANKS: &[(&str, u32, &str)] = &[
    // The kernel, and data structures that need none. `sys/mod.rs` holds what all of `sys` shares.
    ("sys/", 0, "sys"),
    ("pure/", 0, "pure"),
    // Greenlet-style: explicit switches. Knows of no hub. A fiber holds the list of those that wait for its end.
    ("switch/stack.rs", 1, ""),
    ("switch/stack_pool.rs", 2, ""),
    ("switch/extras.rs", 2, ""),
    ("switch/fiber.rs", 3, "fiber"),
    ("switch/wait_list.rs", 3, "fiber"),
    ("switch/wait_node.rs", 3, "fiber"),
    ("switch/overflow.rs", 4, "root"),
    ("switch/sweep.rs", 4, "root"),
    ("switch/root.rs", 4, "root"),
    ("switch/cancel.rs", 5, ""),
    ("switch/mailbox.rs", 5, ""),
    ("switch/packet.rs", 5, ""),
    ("switch/greenlet.rs", 6, ""),
    // Gevent-style: switches by itself when a call would block.
    ("runtime/mail.rs", 7, ""),
    ("runtime/reactor.rs", 7, "reactor"),
    ("runtime/watch.rs", 7, "reactor"),
    ("runtime/report.rs", 7, ""),
    ("runtime/hub.rs", 8, ""),
    ("runtime/park.rs", 9, ""),
    ("runtime/source.rs", 10, "source"),
    ("runtime/remote.rs", 10, ""),
    ("runtime/choose.rs", 10, "source"),
    // What users call, on park and source alone.
    ("interrupt.rs", 11, ""),
    ("thread/", 11, "thread"),
    ("offload/", 11, "offload"),
    ("hub.rs", 12, "hub"),
    ("hub/", 12, "hub"),
    ("hubs.rs", 13, ""),
    ("io/", 13, "io"),
    ("net/", 12, "net"),
    ("os/", 12, "net"),
    ("fs/", 12, "fs"),
    ("bridge.rs", 12, ""),
    ("sync/", 12, "sync"),
    // One unit with `sync`, whose `mpsc` is a channel with std's names.
    ("channel/", 12, "sync"),
    ("select.rs", 13, ""),
    ("signal.rs", 12, ""),
    ("time.rs", 12, ""),
    ("group/", 13, "group"),
    ("process/", 14, "process"),
    ("monkey/", 15, "monkey"),
    ("server/", 14, "server"),
    ("lib.rs", 99, ""),
];

/// Crates that only one folder may name.
const FENCED_CRATES: &[(&str, &str)] = &[("libc", "sys/"), ("corosensei", "switch/")];

/// Traces of the machine a file was written on. Split, so that this file passes its own check.
const DENIED: &[&str] =
    &[concat!("/ro", "ot/"), concat!("/tmp/", "wt"), concat!("/ho", "me/"), concat!("/work/", "shared")];

// ---- the tree -------------------------------------------------------------------------------------------------------

/// Path from the root of the repository, with `/`, to the text of the file.
type Tree = BTreeMap<String, String>;

fn real_tree() -> Tree {
    fn walk(folder: &Path, root: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.ends_with("target") || name == ".git" || name == "Cargo.lock" {
                continue;
            }
            if path.is_dir() {
                walk(&path, root, tree);
            } else if let Ok(text) = fs::read_to_string(&path) {
                tree.insert(name, text); // a file that is not text is none of ours to read
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

/// The Rust files under `src/`, named from there.
fn sources(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.iter().filter_map(|(name, text)| {
        let name = name.strip_prefix("src/")?;
        name.ends_with(".rs").then_some((name, text.as_str()))
    })
}

/// A file that has modules below it.
fn has_children(tree: &Tree, file: &str) -> bool {
    let folder = file.strip_suffix(".rs").unwrap_or(file);
    file == "lib.rs"
        || file.ends_with("mod.rs")
        || sources(tree).any(|(other, _)| other.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
}

// ---- a scanner that knows just enough Rust --------------------------------------------------------------------------

/// The code alone: comments, and what is between quotes, become blanks. Line breaks and byte positions stay.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut blank = |from: usize, to: usize| {
        for byte in &mut code[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_word = at > 0 && is_word(bytes[at - 1]);
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + block_comment(rest)
        } else if rest[0] == b'"' {
            at + string(rest)
        } else if let Some(length) = (!after_word).then(|| raw_string(rest)).flatten() {
            at + length
        } else if let Some(length) = (rest[0] == b'\'').then(|| character(rest)).flatten() {
            at + length
        } else {
            at += 1;
            continue;
        };
        blank(at, end);
        at = end;
    }
    String::from_utf8(code).expect("only whole literals and comments were replaced, byte by byte")
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

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

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `r"..."`, `br##"..."##` and `cr"..."`.
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

/// `'x'`, `'\n'`, but no lifetime.
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

/// Where `word` stands as a word of its own.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let bytes = code.as_bytes();
        let end = at + word.len();
        (at == 0 || !is_word(bytes[at - 1])) && !bytes.get(end).is_some_and(|&byte| is_word(byte))
    })
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// Blanks the `#[cfg(..test..)] mod x { .. }` blocks of a file that went through [`code_of`].
fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    for (start, _) in code.match_indices("#[cfg(") {
        let Some(condition) = code[start..].find(']').map(|length| &code[start..start + length]) else {
            continue;
        };
        if words(condition, "test").next().is_none() || condition.contains("not(test") {
            continue;
        }
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

/// The position after the brace that closes the one at `open`.
fn block(code: &str, open: usize) -> usize {
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

/// The paths that begin with the path prefix at `at`, one for each leaf of a `{..}` tree: `crate::a::{b, c::D}` gives
/// `crate a b` and `crate a c D`. `x as y` ends in `x as y`.
fn paths_at(code: &str, at: usize) -> Vec<Vec<String>> {
    fn tree(code: &str, at: &mut usize, stem: &[String], out: &mut Vec<Vec<String>>) {
        let blanks = |at: &mut usize| *at += code[*at..].len() - code[*at..].trim_start().len();
        let mut path = stem.to_vec();
        loop {
            blanks(at);
            let rest = &code[*at..];
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

// ---- modules and files ----------------------------------------------------------------------------------------------

/// `switch/fiber.rs` is the module `switch fiber`.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let stem = stem.strip_suffix("/mod").unwrap_or(if stem == "lib" { "" } else { stem });
    stem.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn file_of(tree: &Tree, module: &[String]) -> Option<String> {
    let stem = module.join("/");
    let candidates =
        if stem.is_empty() { vec!["lib.rs".to_owned()] } else { vec![format!("{stem}.rs"), format!("{stem}/mod.rs")] };
    candidates.into_iter().find(|file| tree.contains_key(&format!("src/{file}")))
}

/// The file that defines what the path (from the crate root) names, through re-exports of parent modules.
fn resolve(tree: &Tree, path: &[String], fuel: u32) -> String {
    let length = (0..=path.len()).rev().find(|&length| file_of(tree, &path[..length]).is_some()).unwrap_or(0);
    let module = &path[..length];
    let file = file_of(tree, module).unwrap_or_else(|| "lib.rs".to_owned());
    let Some(item) = path.get(length).filter(|_| fuel > 0 && has_children(tree, &file)) else {
        return file;
    };
    let code = without_tests(&code_of(&tree[&format!("src/{file}")]));
    for at in words(&code, "use") {
        for mut used in paths_at(&code, at + "use".len()) {
            let name = used.last().cloned().unwrap_or_default();
            if used.len() > 2 && used[used.len() - 2] == "as" {
                used.truncate(used.len() - 2);
            }
            let Some(from_root) = from_root(module, 0, &used) else {
                continue;
            };
            let to_child = from_root.len() > length && file_of(tree, &from_root[..length + 1]).is_some();
            if name == *item && to_child && from_root.starts_with(module) {
                return resolve(tree, &from_root, fuel - 1);
            }
        }
    }
    file
}

/// Makes a path absolute. `inline` counts the `mod x { .. }` blocks around it: `super` leaves these first.
fn from_root(module: &[String], inline: usize, path: &[String]) -> Option<Vec<String>> {
    let rest = |skip: usize| path[skip..].iter().cloned();
    match path.first()?.as_str() {
        "crate" => Some(rest(1).collect()),
        "super" => {
            let supers = path.iter().take_while(|name| *name == "super").count();
            let up = supers.saturating_sub(inline);
            let stem = &module[..module.len().checked_sub(up)?];
            Some(stem.iter().cloned().chain(rest(supers)).collect())
        }
        "self" => Some(module.iter().cloned().chain(rest(1)).collect()),
        _ => Some(module.iter().cloned().chain(rest(0)).collect()),
    }
}

/// Rank and unit.
fn rank_of(tree: &Tree, ranks: &[(&str, u32, &'static str)], file: &str) -> Option<(u32, &'static str)> {
    let own = ranks.iter().find(|(entry, ..)| *entry == file);
    let folder = || {
        ranks
            .iter()
            .filter(|(entry, ..)| entry.ends_with('/') && file.starts_with(entry))
            .max_by_key(|(entry, ..)| entry.len())
    };
    if let Some(&(_, rank, unit)) = own.or_else(folder) {
        return Some((rank, unit));
    }
    let folder = file.strip_suffix("mod.rs")?;
    let ranks_below = sources(tree)
        .filter(|(other, _)| *other != file && other.starts_with(folder))
        .filter_map(|(other, _)| rank_of(tree, ranks, other));
    Some((ranks_below.map(|(rank, _)| rank).max()?, ""))
}

// ---- the checks -----------------------------------------------------------------------------------------------------

fn check_first_line(tree: &Tree) -> Vec<String> {
    sources(tree)
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(file, _)| format!("{file}: does not begin with `//!`"))
        .collect()
}

fn check_unsafe(tree: &Tree, allowed: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in sources(tree) {
        let code = code_of(text);
        let found: Vec<usize> = words(&code, "unsafe").collect();
        let forbids = code.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]");
        if allowed.contains(&file) {
            if found.is_empty() {
                complaints.push(format!("{file}: is listed, but holds no `unsafe`: take it off the list"));
            }
            if has_children(tree, file) {
                complaints.push(format!("{file}: has modules below it, which its `allow` would reach"));
            }
            continue;
        }
        for at in found {
            complaints.push(format!("{file}:{}: `unsafe` in a file that is not listed", line_of(text, at)));
        }
        // In a file with modules below it, `forbid` would bind these as well.
        if !forbids && !has_children(tree, file) {
            complaints.push(format!("{file}: `#![forbid(unsafe_code)]` is missing"));
        }
        if words(&code, "unsafe_code").any(|at| code[..at].trim_end().ends_with("allow(")) {
            complaints.push(format!("{file}: allows unsafe code but is not listed"));
        }
    }
    complaints
}

fn check_imports(tree: &Tree, ranks: &[(&str, u32, &'static str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in sources(tree) {
        let Some((rank, unit)) = rank_of(tree, ranks, file) else {
            complaints.push(format!("{file}: has no rank"));
            continue;
        };
        let module = module_of(file);
        let code = without_tests(&code_of(text));
        let inline: Vec<(usize, usize)> = words(&code, "mod")
            .filter_map(|at| {
                let open = at + code[at..].find(['{', ';'])?;
                code[open..].starts_with('{').then(|| (open, block(&code, open)))
            })
            .collect();
        let mut starts: Vec<usize> = ["crate", "super", "self"]
            .iter()
            .flat_map(|word| words(&code, word))
            .filter(|&at| {
                let before = code[..at].trim_end();
                let inside_path = before.ends_with("::");
                let visibility = before.ends_with("(in") || before.ends_with("( in");
                let path = code[at..].trim_start_matches(|c: char| is_word(c as u8)).trim_start().starts_with("::");
                // `$crate::name!` is an exported macro: these are at the root, whichever file defines them.
                let whole = code[at..].trim_start_matches(|c: char| c == ':' || is_word(c as u8));
                let exported_macro = before.ends_with('$') && whole.starts_with('!');
                path && !inside_path && !visibility && !exported_macro
            })
            .collect();
        starts.sort_unstable();
        for at in starts {
            let depth = inline.iter().filter(|(open, end)| (*open..*end).contains(&at)).count();
            for path in paths_at(&code, at) {
                let line = line_of(&code, at);
                if depth > 0 && path[0] == "self" {
                    continue; // stays inside the block
                }
                let Some(absolute) = from_root(&module, depth, &path) else {
                    complaints.push(format!("{file}:{line}: `{}` leaves the crate", path.join("::")));
                    continue;
                };
                let imported = resolve(tree, &absolute, 8);
                let to_child = has_children(tree, file) && absolute.len() > module.len() && {
                    absolute.starts_with(&module) && module_of(&imported).starts_with(&module)
                };
                if imported == file || to_child {
                    continue;
                }
                match rank_of(tree, ranks, &imported) {
                    Some((below, _)) if below < rank => {}
                    Some((same, its_unit)) if same == rank && !unit.is_empty() && unit == its_unit => {}
                    Some((other, _)) => complaints.push(format!(
                        "{file}:{line}: rank {rank} imports `{}` from {imported}, rank {other}",
                        path.join("::")
                    )),
                    None => {} // complained about at the file itself
                }
            }
        }
    }
    complaints
}

fn check_fenced_crates(tree: &Tree, fences: &[(&str, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in sources(tree) {
        let code = without_tests(&code_of(text));
        for (name, folder) in fences {
            if file.starts_with(folder) {
                continue;
            }
            for at in words(&code, name) {
                complaints.push(format!("{file}:{}: names `{name}`, which only {folder} may", line_of(text, at)));
            }
        }
    }
    complaints
}

fn check_denied_words(tree: &Tree, denied: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in tree {
        for (number, line) in text.lines().enumerate() {
            for word in denied.iter().filter(|word| line.contains(**word)) {
                complaints.push(format!("{file}:{}: `{word}`", number + 1));
            }
        }
    }
    complaints
}

fn check_leftovers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in sources(tree) {
        for (number, line) in text.lines().enumerate() {
            for word in ["TODO", "FIXME", "XXX"] {
                if words(line, word).next().is_some() {
                    complaints.push(format!("{file}:{}: {word}", number + 1));
                }
            }
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            let comment = comment.trim();
            let code_begins = ["let ", "fn ", "pub ", "use ", "if ", "for ", "return", "println!", "dbg!", "eprintln!"]
                .iter()
                .any(|word| comment.starts_with(word));
            if code_begins && (comment.ends_with(';') || comment.ends_with('{')) {
                complaints.push(format!("{file}:{}: code in a comment", number + 1));
            }
        }
    }
    complaints
}

/// The list in `lib.rs` below the heading "Reading order" names files in backquotes, from `src/` or from the root.
fn check_reading_order(tree: &Tree) -> Vec<String> {
    let Some(lib) = tree.get("src/lib.rs") else {
        return vec!["lib.rs: is not there".to_owned()];
    };
    let mut complaints = Vec::new();
    let mut inside = false;
    for (number, line) in lib.lines().enumerate() {
        let Some(doc) = line.strip_prefix("//!") else {
            break;
        };
        if doc.trim_start().starts_with('#') {
            inside = doc.to_lowercase().contains("reading order");
            continue;
        }
        for name in doc.split('`').skip(1).step_by(2).filter(|_| inside) {
            let is_file = [".rs", ".md", ".toml"].iter().any(|ending| name.ends_with(ending));
            let is_folder = name.ends_with('/');
            let exists = tree.keys().any(|file| {
                let below = file.strip_prefix("src/").unwrap_or(file);
                if is_folder {
                    file.starts_with(name) || below.starts_with(name)
                } else {
                    file == name || below == name
                }
            });
            if (is_file || is_folder) && !exists {
                complaints.push(format!("lib.rs:{}: the reading order names `{name}`, which is not there", number + 1));
            }
        }
    }
    complaints
}

fn check_table_entries(tree: &Tree) -> Vec<String> {
    let entries = RANKS.iter().map(|(entry, ..)| entry).chain(UNSAFE);
    entries
        .filter(|entry| {
            !sources(tree).any(|(file, _)| file == **entry || (entry.ends_with('/') && file.starts_with(**entry)))
        })
        .map(|entry| format!("{entry}: in a table of this test, but not in src/"))
        .collect()
}

// ---- the checks on the real tree ------------------------------------------------------------------------------------

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The other tests would all pass on an empty tree.
#[test]
fn the_tree_is_read() {
    let tree = real_tree();
    for file in ["Cargo.toml", ".ci/run", "src/lib.rs", "src/sys/mod.rs", "tests/tidy.rs"] {
        assert!(tree.contains_key(file), "{file} was not read");
    }
}

#[test]
fn every_file_opens_with_what_it_is() {
    assert_none(&check_first_line(&real_tree()));
}

#[test]
fn unsafe_stands_in_listed_files_only() {
    assert_none(&check_unsafe(&real_tree(), UNSAFE));
}

#[test]
fn imports_go_downwards() {
    assert_none(&check_imports(&real_tree(), RANKS));
}

#[test]
fn fenced_crates_stay_in_their_folder() {
    assert_none(&check_fenced_crates(&real_tree(), FENCED_CRATES));
}

#[test]
fn no_trace_of_a_machine() {
    assert_none(&check_denied_words(&real_tree(), DENIED));
}

#[test]
fn no_leftovers() {
    assert_none(&check_leftovers(&real_tree()));
}

#[test]
fn reading_order_names_files_that_exist() {
    assert_none(&check_reading_order(&real_tree()));
}

#[test]
fn tables_name_files_that_exist() {
    assert_none(&check_table_entries(&real_tree()));
}

// ---- the checks on bad snippets -------------------------------------------------------------------------------------

fn tree(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect()
}

#[track_caller]
fn assert_complains(complaints: &[String], expected: &[&str]) {
    assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
    for (complaint, expected) in complaints.iter().zip(expected) {
        assert!(complaint.contains(expected), "{complaint:?} does not contain {expected:?}");
    }
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
fn complains_about_a_first_line() {
    let bad = tree(&[("src/a.rs", "//! Good.\n"), ("src/b.rs", "// bad\n"), ("tests/c.rs", "free")]);
    assert_complains(&check_first_line(&bad), &["b.rs: does not begin"]);
}

#[test]
fn complains_about_unsafe() {
    let bad = tree(&[
        ("src/lib.rs", "//! Fine without forbid. unsafe\n"),
        ("src/sys/mod.rs", "//! Not fine.\nfn f() { unsafe { g() } }\n"),
        ("src/sys/empty.rs", "//! Listed for nothing.\n"),
        ("src/sys/good.rs", "//! Listed.\n#![allow(unsafe_code)]\nunsafe fn f() {}\n"),
        ("src/free.rs", "//! Not listed.\n#![allow(unsafe_code)]\nconst A: &str = \"unsafe\";\n"),
        ("src/tame.rs", "//! Tame.\n#![forbid(unsafe_code)]\n"),
    ]);
    assert_complains(
        &check_unsafe(&bad, &["sys/empty.rs", "sys/good.rs"]),
        &["free.rs: `#![forbid", "free.rs: allows", "sys/empty.rs: is listed, but", "sys/mod.rs:2: `unsafe` in"],
    );
}

#[test]
fn complains_about_imports() {
    const RANKS: &[(&str, u32, &str)] =
        &[("low/", 0, ""), ("mid/a.rs", 1, "pair"), ("mid/b.rs", 1, "pair"), ("mid/c.rs", 2, ""), ("lib.rs", 9, "")];
    let with = |file: &str, text: &str| {
        let mut files = tree(&[
            ("src/lib.rs", "//! .\nmod low; mod mid;\npub use mid::Cee;\npub use crate::low::x::X;"),
            ("src/low/mod.rs", "//! .\npub mod x; pub mod y;"),
            ("src/low/x.rs", "//! .\n"),
            ("src/low/y.rs", "//! .\n"),
            ("src/mid/mod.rs", "//! .\npub use self::a::Ay;\npub(crate) use c::{Cee as Sea, Cee};"),
            ("src/mid/a.rs", "//! use crate::mid::c;\n#[cfg(test)]\nmod tests { use crate::mid::c; use super::*; }"),
            ("src/mid/b.rs", "//! .\n"),
            ("src/mid/c.rs", "//! .\n"),
        ]);
        files.insert(format!("src/{file}"), text.to_owned());
        check_imports(&files, RANKS)
    };
    // Allowed: down, the same unit, the own file, through a re-export, out of an inline module, a visibility.
    assert_none(&with("mid/c.rs", "use crate::{low::x::X, mid::{a, b}, mid::Ay, mid::Sea}; use super::b::B;"));
    assert_none(&with("mid/a.rs", "use super::b; use crate::mid::a::Own; pub(in crate::mid) fn f() {}"));
    assert_none(&with("low/x.rs", "mod inner { use super::Thing; } fn f() { self::g(); \"crate::mid::c\"; }"));
    // Not allowed.
    assert_complains(&with("low/x.rs", "use crate::low::y::Y;"), &["low/x.rs:1: rank 0 imports `crate::low::y::Y`"]);
    assert_complains(&with("low/x.rs", "use super::y;"), &["from low/y.rs"]);
    assert_complains(&with("low/x.rs", "mod inner { use super::super::y; }"), &["from low/y.rs"]);
    assert_complains(&with("low/x.rs", "fn f() {\n let x = crate :: mid::a::g(); }"), &["low/x.rs:2: rank 0"]);
    assert_complains(&with("mid/a.rs", "use crate::{low::x, mid::c::C};"), &["from mid/c.rs, rank 2"]);
    assert_complains(&with("mid/a.rs", "use crate::mid::{Ay, Sea};"), &["from mid/c.rs, rank 2"]);
    assert_complains(&with("mid/a.rs", "use crate::Cee;"), &["from mid/c.rs, rank 2"]);
    assert_complains(&with("mid/a.rs", "crate::in_lib_itself();"), &["from lib.rs, rank 9"]);
    assert_complains(&with("low/x.rs", "$crate::mine!(a); $crate::mid::a::g(1)"), &["low/x.rs:1: rank 0"]);
    assert_complains(&with("low/mod.rs", "//! .\nuse crate::mid::a::f;"), &["low/mod.rs:2: rank 0"]);
    assert_complains(&with("stray.rs", "//! .\n"), &["stray.rs: has no rank"]);
}

#[test]
fn complains_about_fenced_crates() {
    let bad = tree(&[("src/sys/a.rs", "use libc::c_int;"), ("src/b.rs", "// libc\nfn f() { libc::getpid(); }")]);
    assert_complains(&check_fenced_crates(&bad, &[("libc", "sys/")]), &["b.rs:2: names `libc`"]);
}

#[test]
fn complains_about_denied_words() {
    let bad = tree(&[("README.md", "fine\nsee /secret/place\n")]);
    assert_complains(&check_denied_words(&bad, &["/secret/"]), &["README.md:2"]);
    assert_complains(&check_denied_words(&tree(&[("a", concat!("/ro", "ot/x"))]), DENIED), &["a:1"]);
}

#[test]
fn complains_about_leftovers() {
    let bad = tree(&[(
        "src/a.rs",
        "// TODO: more\n/// XXX\nlet a = 1; // let b = 2;\n    // fn f() {\n// let us see;  a sentence\n/// let doc = 1;\n// TODOs",
    )]);
    assert_complains(&check_leftovers(&bad), &["a.rs:1: TODO", "a.rs:2: XXX", "a.rs:3: code", "a.rs:4: code"]);
}

#[test]
fn complains_about_the_reading_order() {
    let text = "//! `gone.rs` is free here.\n//! # Reading order\n//! 1. `a.rs`, `b/`\n//! 2. `gone.rs`, `Type`, `no/`\n//! # Next\n//! `x.rs`\n";
    let bad = tree(&[("src/lib.rs", text), ("src/a.rs", ""), ("src/b/mod.rs", "")]);
    assert_complains(&check_reading_order(&bad), &["lib.rs:4: the reading order names `gone.rs`", "`no/`"]);
}

#[test]
fn complains_about_table_entries() {
    assert_eq!(check_table_entries(&tree(&[])).len(), RANKS.len() + UNSAFE.len());
}
