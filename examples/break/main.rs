//! You will see why a line of greenling is there: a copy of the crate loses the line, a test runs in the copy, and what
//! fails is shown with the reason. Each place of the book that says what breaks without something has a number.
//!
//! ```text
//!   docs/solutions/patches/6.1.patch   ->  target/break/copy   ->  cargo test   ->  how it ends, what it says, why
//! ```
//!
//! | file | is |
//! |---|---|
//! | `patch.rs` | the patches, and how one is applied |
//! | `copy.rs` | the copy, and what cargo builds of it |
//! | `all.rs` | all patches, many at once |
//! | `trial.rs` | the run of a test, compared with what the patch says |
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod all;
#[path = "../common/cli.rs"]
mod cli;
mod copy;
mod patch;
mod trial;

use copy::Copy;
use patch::{End, Patch};
use trial::complaint;

const NAME: &str = "break";

const HELP: &str = "\
What breaks without a line of greenling: a test in a copy of the crate says it.

usage: break [--solution] NUMBER..
       break --list | --all

  NUMBER      a number of the book, such as 6.1: takes the line away and runs
              the test
  --solution  applies the solution of an exercise, and runs its test
  --list      all numbers, in a line each
  --all       runs all, and fails if one does not end as the book says

The first run compiles the copy, which takes a minute or two.
";

/// What the command line asks for.
enum Task {
    /// A line for each patch.
    List,
    /// Each patch tried, and judged.
    All,
    /// These numbers; breaks, or solutions.
    Some(Vec<String>, bool),
}

fn main() -> ExitCode {
    let task = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let patches = read_patches(root).unwrap_or_else(|what| cli::fail(1, NAME, what));
    if let Task::List = task {
        list(&patches);
        return ExitCode::SUCCESS;
    }
    // A test that ends by a signal leaves no core file.
    let _ = rlimit::Resource::CORE.set(0, 0);
    let copy = Copy::new(root).unwrap_or_else(|error| cli::fail(1, NAME, cli::brief(&error)));
    let wrong = match task {
        Task::Some(numbers, solves) => {
            let find = |number: &String| find(&patches, number, solves).unwrap_or_else(|what| cli::misused(NAME, what));
            let chosen: Vec<&Patch> = numbers.iter().map(find).collect();
            chosen.into_iter().filter(|patch| !show(&copy, patch)).count()
        }
        _ => all::try_all(&copy, &patches),
    };
    if wrong > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn parse() -> Result<Task, String> {
    use lexopt::prelude::*;
    let (mut numbers, mut solves, mut task) = (Vec::new(), false, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("help") | Short('h') => cli::help(NAME, HELP),
            Long("solution") => solves = true,
            Long("list") => task = Some(Task::List),
            Long("all") => task = Some(Task::All),
            Value(number) => numbers.push(number.string().map_err(|error| error.to_string())?),
            other => return Err(other.unexpected().to_string()),
        }
    }
    match task {
        Some(_) if solves || !numbers.is_empty() => Err(String::from("--list and --all stand alone")),
        Some(task) => Ok(task),
        None if numbers.is_empty() => Err(String::from("which number? --list has them all")),
        None => Ok(Task::Some(numbers, solves)),
    }
}

/// Reads all patches, in the order of the book.
fn read_patches(root: &Path) -> Result<Vec<Patch>, String> {
    let folder = root.join("docs/solutions/patches");
    let names = fs::read_dir(&folder).map_err(|error| format!("{}: {}", folder.display(), cli::brief(&error)))?;
    let mut patches = Vec::new();
    for entry in names {
        let entry = entry.map_err(|error| cli::brief(&error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).map_err(|error| format!("{name}: {}", cli::brief(&error)))?;
        patches.push(Patch::parse(&name, &text)?);
    }
    patches.sort_by_key(Patch::order);
    Ok(patches)
}

/// Prints a line for each patch.
fn list(patches: &[Patch]) {
    for patch in patches {
        let what = if patch.solves { "solution: " } else { "" };
        cli::say(NAME, format_args!("{:5} {what}{}", patch.number, patch.title));
    }
}

/// Returns the patch with this number. The error says what is there instead.
fn find<'a>(patches: &'a [Patch], number: &str, solves: bool) -> Result<&'a Patch, String> {
    let mut of_number = patches.iter().filter(|patch| patch.number == number);
    match (of_number.clone().find(|patch| patch.solves == solves), of_number.next()) {
        (Some(patch), _) => Ok(patch),
        (None, Some(_)) if solves => Err(format!("{number} breaks something, and is no exercise with a solution")),
        (None, Some(_)) => Err(format!("{number} is an exercise with a solution: --solution {number}")),
        (None, None) => Err(format!("{number} is no number of the book: --list has them all")),
    }
}

/// Applies patches to the copy, one after the other, and builds their tests. Returns the program of each target.
fn prepare(copy: &Copy, patches: &[&Patch]) -> Result<BTreeMap<String, PathBuf>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut changes = BTreeMap::<String, String>::new();
    for patch in patches {
        let read = |file: &str| changes.get(file).cloned().or_else(|| fs::read_to_string(root.join(file)).ok());
        let more = patch.apply(read)?;
        changes.extend(more);
    }
    copy.sync(&changes).map_err(|error| cli::brief(&error))?;
    copy.build(patches)
}

/// Breaks the copy, and shows what comes of it. Returns whether all was as the patch says.
fn show(copy: &Copy, patch: &Patch) -> bool {
    let line = |text: &str| cli::say_exactly(NAME, text.trim_end());
    line(&format!("{}  {}\n", patch.number, patch.title));
    for changed in patch.diff.lines().filter(|line| !line.starts_with("--- ") && !line.starts_with('\\')) {
        match (changed.strip_prefix("+++ b/"), changed.starts_with("@@")) {
            (Some(file), _) => line(&format!("  {file}")),
            (None, true) => line("  ..."),
            (None, false) => line(&format!("  | {changed}")),
        }
    }
    let what = if patch.target == "lib" { "--lib".to_owned() } else { format!("--test {}", patch.target) };
    line("");
    line(&format!("  cargo test {what} {}", patch.filter));
    let ended = prepare(copy, &[patch]).and_then(|tests| {
        trial::run(patch, &tests[&patch.target], &copy.crate_folder()).map_err(|error| cli::brief(&error))
    });
    let ended = match ended {
        Ok(ended) => ended,
        Err(what) => {
            cli::complain(NAME, what);
            return false;
        }
    };
    line("");
    line(&match ended.end {
        End::Passes => "  it passes".to_owned(),
        End::Fails => "  it fails:".to_owned(),
        End::Hangs => "  it waits, and was ended after ten seconds:".to_owned(),
        End::Signal(name) => format!("  it dies by {name}:"),
    });
    if ended.end != End::Passes {
        trial::telling(&ended.output).into_iter().for_each(|said| line(&format!("  | {said}")));
    }
    for paragraph in &patch.why {
        line("");
        wrap(paragraph).iter().for_each(|text| line(&format!("  {text}")));
    }
    line("");
    match complaint(patch, &ended) {
        None => line(&format!("  As the book says. The copy is in {}.", copy.folder().display())),
        Some(what) => cli::complain(NAME, format_args!("{}: {what}", patch.number)),
    }
    complaint(patch, &ended).is_none()
}

/// Breaks a paragraph into lines.
fn wrap(paragraph: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in paragraph.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].chars().count() + word.chars().count() + 3 > cli::WIDTH {
            lines.push(word.to_owned());
        } else {
            let space = if lines[last].is_empty() { "" } else { " " };
            lines[last] += &format!("{space}{word}");
        }
    }
    lines
}
