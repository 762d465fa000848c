//! You will see small programs of green threads run, event by event, forwards and backwards: lanes, run queue, epoll
//! set, timer wheel. Each page is made from the trace of a run; `docs/pictures` has them.
//!
//! ```text
//!   programs/   the programs            notes.rs    what they say of themselves, as marks
//!   model.rs    events -> states        words.rs    events -> sentences
//!   page.html   the page, without the data
//! ```
//!
//! A state is what the events up to there have made, and nothing else. All programs but one run in a simulation, in the
//! order of life: their pages are the same each time, to the nanosecond. `reactor` runs on the kernel's epoll: there
//! the times differ.

mod model;
mod notes;
mod programs;
mod words;

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};

use greenling::sim::{Config, Strategy};
use greenling::trace::{self, Trace};
use serde_json::{Value, json};

use programs::{PROGRAMS, Program};

/// The page, and the line in it that the data takes the place of.
const PAGE: &str = include_str!("page.html");
const DATA: &str = "DATA\n";

/// Says `off` if the hub polls after a number of turns, and not after a time.
const QUANTUM: &str = "GREENLING_QUANTUM";

const HELP: &str = "\
Moving pictures from real runs of small programs, as pages of HTML.

usage: pictures FOLDER
       pictures --one NAME

  FOLDER      where NAME.html is written for each program
  --one NAME  writes one page to standard output
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let written = match arguments[..] {
        ["--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ["--one", name] if programs::find(name).is_none() => {
            let names: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
            eprintln!("pictures: there is no program {name}; there are {}", names.join(", "));
            return ExitCode::from(2);
        }
        ["--one", name] => programs::find(name).map_or(Ok(()), one),
        [folder] if !folder.starts_with('-') => all(Path::new(folder)),
        _ => {
            eprintln!("pictures: name one folder (try --help)");
            return ExitCode::from(2);
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pictures: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes all pages, each by a process of its own: ids and hubs begin anew, and time makes no thread give way.
fn all(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for program in PROGRAMS {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.args(["--one", program.name]).env(QUANTUM, "off").output()?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{} has failed: {}", program.name, complaint.trim_end())));
        }
        let (file, page) = (folder.join(program.name).with_extension("html"), String::from_utf8_lossy(&output.stdout));
        // A page of which only the times are others stays as it is.
        let is_same = |old: String| program.in_life && without_times(&old) == without_times(&page);
        if !std::fs::read_to_string(&file).is_ok_and(is_same) {
            std::fs::write(file, page.as_bytes())?;
        }
    }
    Ok(())
}

/// Returns a page without the times of its steps.
fn without_times(page: &str) -> String {
    let mut parts = page.split("\"at\":");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + "\"at\":" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// Writes one page to standard output.
fn one(program: &Program) -> io::Result<()> {
    let page = PAGE.replacen("TITLE", program.title, 1).replacen(DATA, &data(program, &run(program)?), 1);
    io::stdout().write_all(page.as_bytes())
}

/// Runs a program and returns its trace.
fn run(program: &Program) -> io::Result<Trace> {
    let run = program.run;
    let traced = move || {
        trace::start(trace::Options::new())?;
        run();
        trace::stop()
    };
    if program.in_life { traced() } else { Config::new().strategy(Strategy::Fifo).allow_leaks(true).run(traced) }
}

/// Returns the data of a page, a line for each step.
fn data(program: &Program, trace: &Trace) -> String {
    let picture = model::picture(program, trace);
    // The comment of the file is the introduction of the page.
    let first = program.source.lines().take_while(|line| line.starts_with("//!") || line.is_empty()).count();
    let lines: Vec<&str> = program.source.lines().skip(first).collect();
    let head = json!({
        "name": program.name,
        "title": program.title,
        "intro": program.intro,
        "chapter": program.chapter,
        "life": program.in_life,
        "pages": PROGRAMS.iter().map(|program| [program.name, program.title]).collect::<Vec<_>>(),
        "file": format!("tools/pictures/programs/{}.rs", program.name),
        "first": first + 1,
        "source": lines,
        "threads": picture.threads,
        "start": picture.start,
    });
    let steps: Vec<String> = picture.steps.iter().map(Value::to_string).collect();
    let head = head.to_string();
    let text = format!("{},\"steps\":[\n{}\n]}}\n", &head[..head.len() - 1], steps.join(",\n"));
    // Nothing in the data can end the element that it stands in.
    text.replace('<', "\\u003c")
}
