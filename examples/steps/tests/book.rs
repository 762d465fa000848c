//! The chapters of `docs/steps` and the programs are one: the differences that a chapter shows make its program of the
//! one before, what it says a program prints the program prints, and what it breaks breaks.
//!
//! ````text
//!   ```diff          lines to keep, to remove and to add, in the order of the file. Before them, what opens the file
//!                    (`//!`) and the old program's main part (below the line PROGRAM) are gone.
//!   ```rust          lines to add: the main part of the program, and all of the first program
//!   ```console       `$ cargo run --bin NAME`, then what it prints; `console x86-64` is for that processor alone
//!   ```diff break    a change that breaks the program of the chapter, and then
//!   ```broken        lines that the broken program prints among others, and in parentheses how it ends
//!   ```diff exercise a change that an exercise asks for, as one may make it, and then
//!   ```exercise      lines that the changed program prints, as above
//! ````

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The line below which each program has its main part.
const PROGRAM: &str = "// ==== The program ====";

/// How long a program may take that ends: much longer than it takes, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a program is watched that is said to wait for ever.
const FOR_EVER: Duration = Duration::from_secs(10);

/// Names the emulator that runs the programs, if they are another processor's.
const EMULATOR: &str = "GREENLING_TEST_EMULATOR";

/// The folder of this package.
fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The programs, in order: number and name.
fn programs() -> Vec<(usize, String)> {
    let entries = fs::read_dir(package()).expect("the package is readable");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("plain names"));
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".rs").filter(|name| name.starts_with("step_")).map(str::to_owned))
        .collect();
    names.sort();
    names.into_iter().map(|name| (name[5..7].parse().expect("a number"), name)).collect()
}

/// The number of the program that one is made of: step 5 is a side path.
fn before(number: usize) -> usize {
    if number == 6 { 4 } else { number - 1 }
}

/// The text of a program.
fn program(name: &str) -> String {
    fs::read_to_string(package().join(format!("{name}.rs"))).expect("the program is readable")
}

/// The chapter about a program.
fn chapter(number: usize) -> String {
    let folder = package().join("../../docs/steps");
    let start = format!("{number:02}-");
    let mut entries =
        fs::read_dir(&folder).expect("docs/steps is readable").map(|entry| entry.expect("an entry").path());
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start));
    fs::read_to_string(entries.find(is_it).expect("each program has a chapter")).expect("a chapter is readable")
}

/// A fenced block: what stands behind the backquotes, and the lines.
type Block<'a> = (&'a str, Vec<&'a str>);

/// The fenced blocks of a chapter.
fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            found.push((kind, lines.by_ref().take_while(|line| *line != "```").collect()));
        }
    }
    found
}

/// Applies differences to a text, in order. Each is made at the first place, from the end of the one before, where its
/// lines that are kept or removed stand, and where all that is made until then is as `fits` wants it.
fn apply(old: &[&str], differences: &[Vec<&str>], fits: impl Fn(&[&str]) -> bool) -> Result<Vec<String>, String> {
    let mut made: Vec<&str> = Vec::new();
    let mut at = 0;
    for lines in differences {
        let without = |mark: char| -> Vec<&str> {
            let kept = lines.iter().filter(|line| !line.starts_with(mark));
            kept.map(|line| line.get(1..).unwrap_or("")).collect()
        };
        let (old_lines, new_lines) = (without('+'), without('-'));
        let places = (at..=old.len()).filter(|start| old[*start..].starts_with(&old_lines));
        let found = places.map(|start| (start, [&made, &old[at..start], &new_lines].concat()));
        let Some((start, with_this)) = found.into_iter().find(|(_, with_this)| fits(with_this)) else {
            return Err(format!("this does not lead from the file before to the program:\n{}", lines.join("\n")));
        };
        made = with_this;
        at = start + old_lines.len();
    }
    made.extend(&old[at..]);
    Ok(made.into_iter().map(str::to_owned).collect())
}

/// The lines of a program without what opens the file.
fn body(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("//!")).collect()
}

/// Complains if the chapter's differences do not make the program of the one before.
fn check_differences(before: &str, chapter: &str, program: &str) -> Result<(), String> {
    let mut old = body(before);
    if let Some(at) = old.iter().position(|line| *line == PROGRAM) {
        old.truncate(at + 1);
    }
    let is_first = old.is_empty();
    let mut differences = Vec::new();
    let mut main_part = Vec::new();
    for (kind, lines) in blocks(chapter) {
        match kind {
            "diff" => differences.push(lines),
            "rust" => main_part.push(lines),
            _ => {}
        }
    }
    let new: Vec<&str> = body(program).into_iter().skip_while(|line| line.is_empty()).collect();
    let mut made = apply(&old, &differences, |made| new.starts_with(made))?;
    // The program has an empty line between two blocks.
    for (index, lines) in main_part.into_iter().enumerate() {
        made.extend((index > 0 || !is_first).then(String::new));
        made.extend(lines.into_iter().map(str::to_owned));
    }
    let differs = made.iter().map(Some).chain([None]).zip(new.iter().map(Some).chain([None]));
    for (made, new) in differs {
        if made.map(|line| &line[..]) != new.copied() {
            return Err(format!("the chapter makes\n  {made:?}\nand the program has\n  {new:?}"));
        }
    }
    Ok(())
}

/// A line without what differs from run to run: the digits before a unit of time.
fn steady(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_unit = |word: &str| matches!(word.trim_end_matches([',', '.', ')']), "ns" | "ms");
    let is_figure = |index: usize| words.get(index + 1).is_some_and(|word| is_unit(word));
    if (0..words.len()).any(is_figure) {
        let words = words.iter().enumerate();
        words.map(|(index, word)| if is_figure(index) { "#" } else { word }).collect::<Vec<_>>().join(" ")
    } else {
        line.to_owned()
    }
}

/// Runs a program, and kills it when the time is over. Returns what it has printed and how it ended, if it did.
fn run(command: &mut Command, patience: Duration) -> (String, String, Option<ExitStatus>) {
    command.env("RUST_BACKTRACE", "0");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let out = reader(child.stdout.take().expect("it was piped"));
    let err = reader(child.stderr.take().expect("it was piped"));
    let begin = Instant::now();
    let mut status = None;
    while status.is_none() && begin.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(5));
        status = child.try_wait().expect("the child is ours");
    }
    // Neither does anything to a child that has ended.
    child.kill().expect("the child is ours");
    child.wait().expect("the child is ours");
    (out.join().expect("a reader"), err.join().expect("a reader"), status)
}

/// Reads all that a program prints, on an OS thread of its own: a full pipe would stop the program.
fn reader(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).expect("a pipe is readable");
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// The built program with this name. Another processor's is run by the emulator that the environment names.
fn built(folder: &Path, name: &str) -> Command {
    let path = folder.join(name);
    match std::env::var(EMULATOR) {
        Ok(emulator) => {
            let mut words = emulator.split(' ');
            let mut command = Command::new(words.next().expect("a command"));
            command.args(words).arg(path);
            command
        }
        Err(_) => Command::new(path),
    }
}

/// How a program ended, in the words of the chapters.
fn ending(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.signal(), status.code())) {
        None => "(waits for ever)".to_owned(),
        Some((Some(libc::SIGABRT), _)) => "(SIGABRT)".to_owned(),
        Some((Some(libc::SIGSEGV), _)) => "(SIGSEGV)".to_owned(),
        Some((Some(signal), _)) => format!("(signal {signal})"),
        Some((None, code)) => format!("(exit status {})", code.unwrap_or(-1)),
    }
}

/// Complains if a program does not print what its chapter says.
fn check_transcript(name: &str, lines: &[&str]) -> Result<(), String> {
    let folder = Path::new(env!("CARGO_BIN_EXE_step_01_switch")).parent().expect("it lies in a folder");
    let (command, expected) = lines.split_first().ok_or("an empty transcript")?;
    if *command != format!("$ cargo run --bin {name}") {
        return Err(format!("{name}: not the command: {command}"));
    }
    let (printed, said, status) = run(&mut built(folder, name), PATIENCE);
    let steadily = |lines: &mut dyn Iterator<Item = &str>| lines.map(steady).collect::<Vec<_>>();
    if steadily(&mut printed.lines()) != steadily(&mut expected.iter().copied()) {
        return Err(format!("{name} prints\n{printed}\nand the chapter says\n{}\n{said}", expected.join("\n")));
    }
    match ending(status) {
        end if end == "(exit status 0)" => Ok(()),
        end => Err(format!("{name}: {end}\n{said}")),
    }
}

/// Complains if a changed program prints other lines than its chapter says, or ends otherwise.
fn check_changed_run(folder: &Path, name: &str, expected: &[String]) -> Result<(), String> {
    let end = expected.last().ok_or("an empty transcript")?;
    let patience = if end == "(waits for ever)" { FOR_EVER } else { PATIENCE };
    let (printed, said, status) = run(&mut Command::new(folder.join(name)), patience);
    let all = format!("{printed}{said}{}\n", ending(status));
    let mut lines = all.lines();
    match expected.iter().find(|wanted| !lines.any(|line| line == **wanted)) {
        None => Ok(()),
        Some(missing) => Err(format!("the changed {name} does not print, or not there:\n{missing}\nbut\n{all}")),
    }
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n\n"));
}

#[test]
fn the_differences_in_the_chapters_make_the_programs() {
    let mut texts = vec![String::new()];
    let mut complaints = Vec::new();
    for (number, name) in programs() {
        texts.push(program(&name));
        let result = check_differences(&texts[before(number)], &chapter(number), &texts[number]);
        complaints.extend(result.err().map(|error| format!("chapter {number}: {error}")));
    }
    assert_none(&complaints);
}

#[test]
fn the_programs_print_what_the_chapters_say() {
    let mut complaints = Vec::new();
    let mut transcripts = 0;
    for (number, name) in programs() {
        let chapter = chapter(number);
        let here = |kind: &str| kind == "console" || kind == "console x86-64" && cfg!(target_arch = "x86_64");
        let texts: Vec<Block> = blocks(&chapter).into_iter().filter(|(kind, _)| kind.starts_with("console")).collect();
        assert!(!texts.is_empty(), "chapter {number} shows no run");
        // The emulator does not start what a program starts.
        if std::env::var_os(EMULATOR).is_some() && program(&name).contains("current_exe") {
            continue;
        }
        for (_, lines) in texts.iter().filter(|(kind, _)| here(kind)) {
            complaints.extend(check_transcript(&name, lines).err());
            transcripts += 1;
        }
    }
    assert!(transcripts > 0);
    assert_none(&complaints);
}

/// Compiles the programs with the changes of one kind that their chapters have, in a folder of this name, and runs
/// them: they print the lines of the other kind. `must_have` says which chapters have such a change.
fn check_changed(name: &str, change: &str, lines: &str, must_have: impl Fn(usize) -> bool) {
    if cfg!(not(target_arch = "x86_64")) {
        return; // Some change an instruction.
    }
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&copy).expect("a folder for the copy");
    for file in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(package().join(file), copy.join(file)).expect("a copy");
    }
    let mut complaints = Vec::new();
    let mut expected = Vec::new();
    for (number, name) in programs() {
        let (chapter, text) = (chapter(number), program(&name));
        let of_kind = |wanted: &str| {
            blocks(&chapter).into_iter().filter(|(kind, _)| *kind == wanted).map(|(_, lines)| lines).collect::<Vec<_>>()
        };
        let changes = of_kind(change);
        assert!(!changes.is_empty() || !must_have(number), "chapter {number} has no \"{change}\"");
        match apply(&text.lines().collect::<Vec<_>>(), &changes, |_| true) {
            Ok(lines) => {
                fs::write(copy.join(format!("{name}.rs")), lines.join("\n") + "\n").expect("a changed program")
            }
            Err(error) => complaints.push(format!("chapter {number}, {change}: {error}")),
        }
        let said = of_kind(lines).concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
        expected.extend((!changes.is_empty()).then_some((name, said)));
    }
    assert_none(&complaints);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--quiet", "--bins", "--target-dir", "target"]).current_dir(&copy);
    let (_, said, status) = run(cargo.env("RUSTFLAGS", "-Awarnings"), 5 * PATIENCE);
    assert_eq!(ending(status), "(exit status 0)", "{said}");
    let folder = copy.join("target/debug");
    // At the same time: some of them wait.
    std::thread::scope(|scope| {
        let checks = expected.iter().map(|(name, lines)| scope.spawn(|| check_changed_run(&folder, name, lines)));
        let checks: Vec<_> = checks.collect();
        complaints.extend(checks.into_iter().filter_map(|check| check.join().expect("a check").err()));
    });
    assert_none(&complaints);
}

#[test]
fn the_changes_in_the_chapters_break_the_programs() {
    check_changed("broken", "diff break", "broken", |_| true);
}

#[test]
fn the_exercises_that_are_shown_print_what_the_chapters_say() {
    check_changed("exercises", "diff exercise", "exercise", |number| number >= 4 && number != 6);
}

// ---- each check complains -------------------------------------------------------------------------------------------

#[test]
fn complains_about_differences() {
    let before = format!("//! Old.\na\nb\nc\n{PROGRAM}\nold main\n");
    let program = format!("//! New.\na\nB\nc\nd\n{PROGRAM}\n\nnew main\n");
    let chapter = "```diff\n a\n-b\n+B\n```\n```diff\n c\n+d\n```\n```rust\nnew main\n```\n";
    assert_eq!(check_differences(&before, chapter, &program), Ok(()));
    let not_there = "this does not lead from the file before to the program:\n a\n-x\n+B";
    assert_eq!(check_differences(&before, &chapter.replace("-b", "-x"), &program), Err(not_there.to_owned()));
    let other = check_differences(&before, &chapter.replace("+d", "+e"), &program);
    assert!(other.is_err_and(|error| error.ends_with("to the program:\n c\n+e")));
    let shorter = check_differences(&before, &chapter.replace("new main\n", ""), &program);
    assert!(shorter.is_err_and(|error| error.ends_with("has\n  Some(\"new main\")")));
}

#[test]
fn complains_about_transcripts() {
    let wrong = check_transcript("step_01_switch", &["$ cargo run --bin step_01_switch", "nothing like it"]);
    assert!(wrong.is_err_and(|error| error.starts_with("step_01_switch prints\nmain: turn 1\n")));
    assert!(check_transcript("step_01_switch", &["$ cargo run"]).is_err());
    assert_eq!(steady("a hop:  12.5 ns, 3 times"), steady("a hop: 7 ns, 3 times"));
    assert_ne!(steady("3 times"), steady("4 times"));
}
