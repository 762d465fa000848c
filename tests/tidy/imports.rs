//! The imports of each file: ranks, and circles.

use std::collections::{BTreeMap, BTreeSet};

use super::scanner::{block, code_of, is_word, line_of, paths_at, without_tests, words};
use super::tree::{Tree, assert_complains, assert_none, has_children, sources, tree};

/// One path in the code of a file that leads to another file.
struct Import {
    /// The file that imports.
    file: String,
    /// The line of the path.
    line: usize,
    /// The path as the code has it.
    path: String,
    /// The file that defines what the path names, or nothing if the path leaves the crate.
    target: Option<String>,
}

/// Returns the path of the module that `file` defines: `switch fiber` for `switch/fiber.rs`.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let stem = stem.strip_suffix("/mod").unwrap_or(if stem == "lib" { "" } else { stem });
    stem.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Returns the file that defines `module`.
fn file_of(tree: &Tree, module: &[String]) -> Option<String> {
    let stem = module.join("/");
    let candidates =
        if stem.is_empty() { vec!["lib.rs".to_owned()] } else { vec![format!("{stem}.rs"), format!("{stem}/mod.rs")] };
    candidates.into_iter().find(|file| tree.contains_key(&format!("src/{file}")))
}

/// Returns the file that defines the item of a path from the crate root, through re-exports of parent modules.
fn resolve(tree: &Tree, path: &[String], fuel: u32) -> String {
    let length = (0..=path.len()).rev().find(|&length| file_of(tree, &path[..length]).is_some()).unwrap_or(0);
    let module = &path[..length];
    let file = file_of(tree, module).unwrap_or_else(|| "lib.rs".to_owned());
    let Some(item) = path.get(length).filter(|_| fuel > 0 && has_children(tree, &file)) else {
        return file;
    };
    // A re-export by this file leads to the child that defines the item.
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

/// Makes `path` absolute. `inline` counts the `mod x { .. }` blocks around the path: `super` leaves these first.
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

/// Returns the rank of `file`, and the entry that says so.
fn rank_of(tree: &Tree, ranks: &[(&'static str, u32)], file: &str) -> Option<(u32, &'static str)> {
    let own = ranks.iter().find(|(entry, ..)| *entry == file);
    let folder = || {
        ranks
            .iter()
            .filter(|(entry, ..)| entry.ends_with('/') && file.starts_with(entry))
            .max_by_key(|(entry, ..)| entry.len())
    };
    if let Some(&(entry, rank)) = own.or_else(folder) {
        return Some((rank, entry));
    }
    // A `mod.rs` without an entry: the highest rank below.
    let folder = file.strip_suffix("mod.rs")?;
    let ranks_below = sources(tree)
        .filter(|(other, _)| *other != file && other.starts_with(folder))
        .filter_map(|(other, _)| rank_of(tree, ranks, other));
    Some((ranks_below.map(|(rank, _)| rank).max()?, ""))
}

/// Returns the positions in `code` at which a path begins that leads through the crate.
fn path_starts(code: &str) -> Vec<usize> {
    let mut starts: Vec<usize> = ["crate", "super", "self"]
        .iter()
        .flat_map(|word| words(code, word))
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
    starts
}

/// Returns the imports of `file`, except those of its own items and of modules below it.
fn imports_of(tree: &Tree, file: &str, text: &str) -> Vec<Import> {
    let module = module_of(file);
    let code = without_tests(&code_of(text));
    // The `mod x { .. }` blocks of the file.
    let inline: Vec<(usize, usize)> = words(&code, "mod")
        .filter_map(|at| {
            let open = at + code[at..].find(['{', ';'])?;
            code[open..].starts_with('{').then(|| (open, block(&code, open)))
        })
        .collect();
    let mut imports = Vec::new();
    for at in path_starts(&code) {
        let depth = inline.iter().filter(|(open, end)| (*open..*end).contains(&at)).count();
        for path in paths_at(&code, at) {
            if depth > 0 && path[0] == "self" {
                continue; // stays inside the block
            }
            // The file at the other end, unless it is this one or a child.
            let absolute = from_root(&module, depth, &path);
            let target = absolute.as_ref().map(|absolute| resolve(tree, absolute, 8));
            if let (Some(absolute), Some(target)) = (&absolute, &target) {
                let to_child = has_children(tree, file)
                    && absolute.len() > module.len()
                    && absolute.starts_with(&module)
                    && module_of(target).starts_with(&module);
                if target == file || to_child {
                    continue;
                }
            }
            imports.push(Import { file: file.to_owned(), line: line_of(&code, at), path: path.join("::"), target });
        }
    }
    imports
}

/// Complains about files without a rank, and imports that do not go down.
pub(crate) fn check_imports(tree: &Tree, ranks: &[(&'static str, u32)], circles: &[&[&str]]) -> Vec<String> {
    let in_circle =
        |one: &str, other: &str| circles.iter().any(|circle| circle.contains(&one) && circle.contains(&other));
    let mut complaints = Vec::new();
    for (file, text) in sources(tree) {
        let Some((rank, entry)) = rank_of(tree, ranks, file) else {
            complaints.push(format!("{file}: has no rank"));
            continue;
        };
        for Import { file, line, path, target } in imports_of(tree, file, text) {
            let Some(target) = target else {
                complaints.push(format!("{file}:{line}: `{path}` leaves the crate"));
                continue;
            };
            match rank_of(tree, ranks, &target) {
                Some((below, _)) if below < rank => {}
                // Of one folder, or of one circle.
                Some((_, same)) if same == entry && entry.ends_with('/') => {}
                Some(_) if in_circle(file.as_str(), &target) => {}
                Some((other, _)) => {
                    complaints.push(format!("{file}:{line}: rank {rank} imports `{path}` from {target}, rank {other}"))
                }
                None => {} // complained about at the file itself
            }
        }
    }
    complaints
}

/// Returns the folder or file at the top of `src/` that `file` belongs to: `hub` for `hub.rs` and `hub/sync/mutex.rs`.
fn top_of(file: &str) -> &str {
    let top = file.split('/').next().unwrap_or(file);
    top.strip_suffix(".rs").unwrap_or(top)
}

/// Returns the nodes that can be reached from `start`.
fn reach<'a>(edges: &'a BTreeMap<String, BTreeSet<String>>, start: &str) -> BTreeSet<&'a str> {
    let (mut found, mut todo) = (BTreeSet::new(), vec![start]);
    while let Some(from) = todo.pop() {
        for to in edges.get(from).into_iter().flatten() {
            if found.insert(to.as_str()) {
                todo.push(to);
            }
        }
    }
    found
}

/// Returns the circles of a graph: the largest sets of nodes that all reach each other.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<&str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|from| (from.as_str(), reach(edges, from))).collect();
    let back = |from: &str, to: &str| reached.get(to).is_some_and(|reached| reached.contains(from));
    reached
        .iter()
        .map(|(from, to)| to.iter().copied().filter(|to| back(from, to)).collect::<Vec<_>>())
        .filter(|circle| circle.len() > 1)
        .collect()
}

/// Complains about circles of files, and of folders at the top of `src/`, that `declared` does not name, and about
/// declared ones that are gone.
pub(crate) fn check_circles(tree: &Tree, declared: &[&[&str]]) -> Vec<String> {
    // The edges between files, and between folders.
    let (mut files, mut folders) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
    for (file, text) in sources(tree) {
        for Import { file, target, .. } in imports_of(tree, file, text) {
            let Some(target) = target else { continue };
            if top_of(&file) != top_of(&target) {
                folders.entry(top_of(&file).to_owned()).or_default().insert(top_of(&target).to_owned());
            }
            files.entry(file).or_default().insert(target);
        }
    }
    // What differs from the declared circles.
    let found: BTreeSet<Vec<&str>> = circles(&files).into_iter().chain(circles(&folders)).collect();
    let declared: BTreeSet<Vec<&str>> = declared.iter().map(|circle| circle.to_vec()).collect();
    let new = found.difference(&declared).map(|circle| format!("a circle of imports: {}", circle.join(", ")));
    let gone = declared.difference(&found).map(|circle| format!("no circle any more: {}", circle.join(", ")));
    new.chain(gone).collect()
}

#[test]
fn complains_about_imports() {
    const RANKS: &[(&str, u32)] =
        &[("low/", 0), ("mid/a.rs", 1), ("mid/b.rs", 1), ("mid/c.rs", 2), ("mid/d.rs", 2), ("lib.rs", 9)];
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
            ("src/mid/d.rs", "//! .\n"),
        ]);
        files.insert(format!("src/{file}"), text.to_owned());
        check_imports(&files, RANKS, &[&["mid/a.rs", "mid/b.rs"]])
    };
    // Allowed: down, in one circle or folder, in one file, through a re-export, out of an inline module, a visibility.
    assert_none(&with("mid/c.rs", "use crate::{low::x::X, mid::{a, b}, mid::Ay, mid::Sea}; use super::b::B;"));
    assert_none(&with("mid/a.rs", "use super::b; use crate::mid::a::Own; pub(in crate::mid) fn f() {}"));
    assert_none(&with("low/x.rs", "mod inner { use super::Thing; } fn f() { self::g(); \"crate::mid::c\"; }"));
    // Not allowed.
    assert_complains(&with("low/x.rs", "use crate::mid::a::Ay;"), &["low/x.rs:1: rank 0 imports `crate::mid::a::Ay`"]);
    assert_none(&with("low/x.rs", "use super::y;"));
    assert_complains(&with("mid/c.rs", "use super::d;"), &["from mid/d.rs"]);
    assert_complains(&with("mid/c.rs", "mod inner { use super::super::d; }"), &["from mid/d.rs"]);
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
fn complains_about_circles() {
    let mut files = tree(&[
        ("src/lib.rs", "//! .\nmod a; mod b;"),
        ("src/a/mod.rs", "//! .\nmod x; mod y; pub(crate) use x::X;"),
        ("src/a/x.rs", "use super::y::Y;"),
        ("src/a/y.rs", "use super::X; use crate::b::B;"),
        ("src/b.rs", "// use crate::a::X;"),
    ]);
    assert_none(&check_circles(&files, &[&["a/x.rs", "a/y.rs"]]));
    assert_complains(&check_circles(&files, &[]), &["a circle of imports: a/x.rs, a/y.rs"]);
    assert_complains(&check_circles(&files, &[&["a/x.rs", "a/y.rs"], &["a", "b"]]), &["no circle any more: a, b"]);
    files.insert("src/b.rs".to_owned(), "mod inner { use crate::a::z::Z; }".to_owned());
    files.insert("src/a/z.rs".to_owned(), String::new());
    assert_complains(&check_circles(&files, &[&["a/x.rs", "a/y.rs"]]), &["a circle of imports: a, b"]);
}
