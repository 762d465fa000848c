//! The book as a site: every page of the repository that is written in Markdown, and the code that it names.
//!
//! ```text
//! site [build [FOLDER]]            writes the site, to target/site; index.html is its first page
//! site figures FILE.. [-o PAGE]    lays what a bench wrote by --json beside the book's figures, as one page
//! site versions [FILE..] [-o PAGE] lays such files of several versions side by side, as one page; without files those
//!                                  of the book, from each of their commits. And counts.txt over its commits
//! ```
//!
//! None of them asks the network for anything, nor does what it writes: styles, scripts and the index for the search
//! lie beside the pages, and a browser opens them from the disk.
#![forbid(unsafe_code)]

mod book;
mod chart;
mod counts;
mod figures;
mod highlight;
mod history;
mod markdown;
mod page;
mod source;
mod versions;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

const USAGE: &str = "usage: site [build [FOLDER]] | site figures FILE.. [-o PAGE] | site versions [FILE..] [-o PAGE]";

/// An error for whoever typed the command: one line.
type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let done = match words[..] {
        [] | ["build"] => build(&root, &root.join("target/site")),
        ["build", folder] => build(&root, Path::new(folder)),
        ["figures", ref files @ ..] if !files.is_empty() => compare(&root, files),
        ["versions", ref files @ ..] => over_versions(&root, files),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("site: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the site, and says where.
fn build(root: &Path, to: &Path) -> Outcome<String> {
    let book = book::Book::of(root)?;
    let files = book.render()?;
    for (path, content) in &files {
        write(&to.join(path), content)?;
    }
    Ok(format!("{} files; open {}", files.len(), absolute(&to.join("index.html")).display()))
}

/// Writes the page with the figures of files beside the book's, and says where.
fn compare(root: &Path, words: &[&str]) -> Outcome<String> {
    let (files, page) = output(root, words, "target/figures.html")?;
    if files.is_empty() {
        return Err(USAGE.to_owned());
    }
    let mut runs = Vec::new();
    for file in files {
        let mine = figures::Run::read(Path::new(file))?;
        // A name that leads out of the folder is none of a bench.
        let book = root.join("docs/figures").join(format!("{}.json", mine.bench.replace('/', "-")));
        let book = if book.exists() { Some(figures::Run::read(&book)?) } else { None };
        runs.push((book, mine));
    }
    write(&page, figures::page(&runs).as_bytes())?;
    let warnings: String = runs.iter().flat_map(|(_, mine)| mine.warnings()).map(|said| format!("{said}\n")).collect();
    Ok(format!("{warnings}open {}", absolute(&page).display()))
}

/// Writes the page with runs over versions, and says where.
fn over_versions(root: &Path, words: &[&str]) -> Outcome<String> {
    let (files, page) = output(root, words, "target/versions.html")?;
    let (html, warnings) = versions::page(root, files)?;
    write(&page, html.as_bytes())?;
    let warnings: String = warnings.iter().map(|said| format!("{said}\n")).collect();
    Ok(format!("{warnings}open {}", absolute(&page).display()))
}

/// The files of a command, and the page that it writes.
fn output<'a>(root: &Path, words: &'a [&'a str], otherwise: &str) -> Outcome<(&'a [&'a str], PathBuf)> {
    let (files, page) = match words {
        [files @ .., "-o", page] => (files, PathBuf::from(page)),
        files => (files, root.join(otherwise)),
    };
    if files.iter().any(|file| file.starts_with('-')) { Err(USAGE.to_owned()) } else { Ok((files, page)) }
}

/// Writes a file, and makes its folder.
fn write(path: &Path, content: &[u8]) -> Outcome<()> {
    let failed = |error| format!("{}: {error}", path.display());
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
    fs::write(path, content).map_err(failed)
}

/// The path as a browser wants it.
fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
