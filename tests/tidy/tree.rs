//! The files of the repository, as the checks see them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The path from the root of the repository, with `/`, to the text of each file.
pub(crate) type Tree = BTreeMap<String, String>;

/// Reads the repository that this test was compiled in.
pub(crate) fn real_tree() -> Tree {
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
                tree.insert(name, text); // files that are not text are skipped
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

/// Returns the Rust files under `src/`, named from there.
pub(crate) fn sources(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.iter().filter_map(|(name, text)| {
        let name = name.strip_prefix("src/")?;
        name.ends_with(".rs").then_some((name, text.as_str()))
    })
}

/// Returns the Rust files whose paths begin with one of `folders`.
pub(crate) fn rust_files<'a>(tree: &'a Tree, folders: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    tree.iter()
        .filter(move |(name, _)| name.ends_with(".rs") && folders.iter().any(|folder| name.starts_with(folder)))
        .map(|(name, text)| (name.as_str(), text.as_str()))
}

/// Reports whether `file` has modules below it.
pub(crate) fn has_children(tree: &Tree, file: &str) -> bool {
    let folder = file.strip_suffix(".rs").unwrap_or(file);
    file == "lib.rs"
        || file.ends_with("mod.rs")
        || sources(tree).any(|(other, _)| other.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
}

/// Makes a tree of a few files, for a check to complain about.
pub(crate) fn tree(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect()
}

/// Fails unless there are as many complaints as expected texts, and each contains the text.
#[track_caller]
pub(crate) fn assert_complains(complaints: &[String], expected: &[&str]) {
    assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
    for (complaint, expected) in complaints.iter().zip(expected) {
        assert!(complaint.contains(expected), "{complaint:?} does not contain {expected:?}");
    }
}

/// Fails if there are complaints, and prints them.
#[track_caller]
pub(crate) fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
