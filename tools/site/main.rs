//! The book as a site: every page of the repository that is written in Markdown, and the code that it names.
//!
//! ```text
//! site [build [FOLDER]]            writes the site, to target/site; index.html is its first page
//! site figures FILE.. [-o PAGE]    lays what a bench wrote by --json beside the book's figures, as one page
//! ```
//!
//! Neither asks the network for anything, and neither does what it writes: styles, scripts and the index for the search
//! lie beside the pages, and a browser opens them from the disk.
#![forbid(unsafe_code)]

mod book;
mod figures;
mod highlight;
mod markdown;
mod page;
mod source;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

const USAGE: &str = "usage: site [build [FOLDER]] | site figures FILE.. [-o PAGE]";

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
    let (files, page) = match words {
        [files @ .., "-o", page] if !files.is_empty() => (files, PathBuf::from(page)),
        files => (files, root.join("target/figures.html")),
    };
    let mut runs = Vec::new();
    for file in files {
        let mine = figures::Run::read(Path::new(file))?;
        let book = figures::Run::read(&root.join(format!("docs/figures/{}.json", mine.bench)))
            .map_err(|error| format!("the book has no figures to compare with: {error}"))?;
        runs.push((book, mine));
    }
    write(&page, figures::page(&runs).as_bytes())?;
    let warnings: String = runs.iter().flat_map(|(_, mine)| mine.warnings()).map(|said| format!("{said}\n")).collect();
    Ok(format!("{warnings}open {}", absolute(&page).display()))
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
