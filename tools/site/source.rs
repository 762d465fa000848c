//! The files of the repository as pages: each line has its number and its mark, each folder a list.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Outcome;
use crate::highlight;

/// Folders that are not the project's text.
const LEFT_OUT: [&str; 3] = ["target", ".git", "node_modules"];

/// The files of the repository that are text, by path, with their content; and what else there is, by path.
pub fn files(root: &Path) -> Outcome<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder)).map_err(|error| format!("{folder}: {error}"))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !LEFT_OUT.contains(&&name[..]) => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    // What is no text is not shown.
                    if let Ok(text) = fs::read_to_string(entry.path()) {
                        found.insert(path, text);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// The line on which `code` defines something of this name.
pub fn line_of(code: &str, name: &str) -> Option<usize> {
    let kinds = ["fn ", "struct ", "enum ", "trait ", "const ", "static ", "type ", "mod ", "macro_rules! "];
    let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let defines = |line: &str| {
        !line.trim_start().starts_with("//")
            && kinds.iter().any(|kind| {
                line.match_indices(kind).any(|(at, _)| line[at + kind.len()..].strip_prefix(name).is_some_and(is_end))
            })
    };
    code.lines().position(defines).map(|at| at + 1)
}

/// A file's lines, each with its mark.
pub fn lines(path: &str, text: &str) -> String {
    let ending = path.rsplit(['.', '/']).next().unwrap_or_default();
    let html = highlight::code(ending, text.trim_end_matches('\n'));
    let lines = html.split('\n').zip(1..).map(|(line, n)| format!("<a id=L{n} href=#L{n}>{n}</a>{line}\n"));
    format!(
        "<h1>{}</h1>\n<pre class=\"file {ending}\"><code>{}</code></pre>\n",
        highlight::escaped(path),
        lines.collect::<String>()
    )
}

/// What a folder has, as a list.
pub fn folder(path: &str, files: &BTreeMap<String, String>) -> String {
    let mut entries: Vec<String> = Vec::new();
    for file in files.keys() {
        let Some(rest) = file.strip_prefix(&format!("{path}/")) else { continue };
        let entry = rest.split_once('/').map_or(format!("{rest}.html"), |(folder, _)| format!("{folder}/index.html"));
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    let items = entries.iter().map(|entry| {
        let name = entry
            .strip_suffix("/index.html")
            .map_or(entry.trim_end_matches(".html").to_owned(), |name| format!("{name}/"));
        format!("<li><a href=\"{entry}\">{}</a></li>\n", highlight::escaped(&name))
    });
    format!("<h1>{}</h1>\n<ul>\n{}</ul>\n", highlight::escaped(path), items.collect::<String>())
}
