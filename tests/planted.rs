//! Bugs that this crate had, planted again in a copy of it: the scenarios of `tests/sim_primitives` find each of them, in
//! as many schedules as chapter 19 of the book says.
//!
//! ```text
//!   src, tests/sim_primitives --copy--> one bug --build--> one scenario runs --> a row of the chapter's table
//! ```
//!
//! The copy is built anew for each bug, which takes seconds: `cargo test --test planted -- --ignored --nocapture`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A bug.
struct Plant {
    /// What it does, as in the table.
    does: &'static str,
    /// The subject of the commit that mended it, or that told of it.
    told_by: &'static str,
    /// The file with the bug.
    file: &'static str,
    /// What is right, and what was wrong instead. The former is there once.
    changes: &'static [(&'static str, &'static str)],
    /// The scenario that finds it.
    scenario: &'static str,
}

/// All bugs.
const PLANTS: [Plant; 6] = [
    Plant {
        does: "a scope waits for its threads after a kill that was due before",
        told_by: "scope: look for a due kill before each wait",
        file: "src/thread/scope.rs",
        changes: &[(
            "Interruption { kill: me.pending.has(pending::KILL), ..Interruption::default() };",
            "Interruption::default();",
        )],
        scenario: "scope with a kill that is due",
    },
    Plant {
        does: "`select!` leaks what it has received if a loser's destructor is killed",
        told_by: "select: hold values so that they end quietly",
        file: "src/select.rs",
        changes: &[
            ("        let won;\n        $crate::select!(@wait", "        let won = $crate::select!(@wait"),
            ("        $won = $crate::__select::Held::new(match", "        $crate::__select::Held::new(match"),
        ],
        scenario: "select that drops",
    },
    Plant {
        does: "an arm of `select!` receives what its own sibling wants to send",
        told_by: "select: let no arm switch or meet its sibling",
        file: "src/channel/ends.rs",
        changes: &[(
            "        if self.waits.get() {\n            // A sender would",
            "        if false {\n            // A sender would",
        )],
        scenario: "select of siblings",
    },
    Plant {
        does: "a task that polls a thread's end too early is never told again",
        told_by: "thread: tell a task again that polled too early",
        file: "src/thread/life.rs",
        changes: &[(
            "    if let Some(waker) = fiber.take_awaiter() {\n        call_back(",
            "    if false && let Some(waker) = fiber.take_awaiter() {\n        call_back(",
        )],
        scenario: "end of an awaited thread",
    },
    Plant {
        does: "a call that has to wait for a lock goes to the back of the run queue first",
        told_by: "sync: let only calls that go on give way first",
        file: "src/sync/mutex.rs",
        changes: &[(
            "        checkpoint_if(|| self.raw.holder.get() == 0);\n        self.raw.lock();",
            "        checkpoint();\n        self.raw.lock();",
        )],
        scenario: "mutex in order",
    },
    Plant {
        does: "a permit is lost with a waiter that had been given it",
        told_by: "tests: add a kill storm to the five properties",
        file: "src/sync/semaphore.rs",
        changes: &[("        if chosen {\n            self.give_back();\n        }", "        let _ = chosen;")],
        scenario: "semaphore that passes on",
    },
];

/// Returns the folder of this crate.
fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the text of a file of this crate.
fn text(path: &str) -> String {
    fs::read_to_string(package().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the text of a file with the bug.
fn broken(plant: &Plant) -> String {
    plant.changes.iter().fold(text(plant.file), |text, (right, wrong)| {
        assert_eq!(text.matches(right).count(), 1, "{}: where is `{right}`?", plant.file);
        text.replace(right, wrong)
    })
}

/// Returns the beginning of the bug's row in the table.
fn row_begin(plant: &Plant) -> String {
    format!("| {} | `{}` |", plant.does, plant.told_by)
}

/// Copies a file or a folder.
fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}

/// Returns the manifest of the copy: what the library needs, and nothing for other tests.
fn manifest() -> String {
    let whole = text("Cargo.toml");
    let section = |name: &str| {
        let begin = whole.find(name).unwrap_or_else(|| panic!("Cargo.toml has no {name}"));
        let length = whole[begin + 1..].find("\n[").map_or(whole.len() - begin, |length| length + 2);
        whole[begin..begin + length].to_owned()
    };
    // Little to write, and only one file changes from bug to bug.
    section("[package]\n")
        + &section("[dependencies]\n")
        + &section("[features]\n")
        + "[workspace]\n[profile.dev]\ndebug = false\n"
}

/// Makes a copy of the crate, and returns its folder.
fn copied() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
    let _ = fs::remove_dir_all(folder.join("src"));
    for path in ["src", "tests/sim_primitives"] {
        copy(&package().join(path), &folder.join(path));
    }
    copy(&package().join("Cargo.lock"), &folder.join("Cargo.lock"));
    fs::write(folder.join("Cargo.toml"), manifest()).unwrap();
    folder
}

/// Runs the scenario in the copy, and returns the columns of its row.
fn columns(folder: &Path, scenario: &str) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--offline", "--quiet", "--test", "sim_primitives", "--target-dir", "target"]);
    cargo.args(["--", "--ignored", "--exact", "a_bug_is_found_soon", "--nocapture"]);
    cargo.env("RUSTFLAGS", "-Awarnings").env("GREENLING_SCENARIO", scenario).env("CARGO_INCREMENTAL", "1");
    let output = cargo.current_dir(folder).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let found = printed.lines().find_map(|line| line.split_once(&format!("found: {scenario} ")));
    let (_, columns) = found.unwrap_or_else(|| panic!("{printed}\n{}", String::from_utf8_lossy(&output.stderr)));
    columns.to_owned()
}

#[test]
fn the_bugs_fit_into_the_sources_and_are_in_the_book() {
    let (chapter, scenarios) = (text("docs/book/19-time-and-chance.md"), text("tests/sim_primitives/main.rs"));
    for plant in &PLANTS {
        assert_ne!(broken(plant), text(plant.file));
        assert!(chapter.contains(&row_begin(plant)), "chapter 19 has no row that begins {}", row_begin(plant));
        assert!(scenarios.contains(&format!("(\"{}\", ", plant.scenario)), "no scenario {}", plant.scenario);
    }
}

#[test]
#[ignore = "builds the crate for each bug"]
fn each_bug_is_found_in_as_many_schedules_as_the_book_says() {
    let folder = copied();
    // The scenarios find nothing where there is nothing.
    let rows: Vec<_> = PLANTS
        .iter()
        .map(|plant| {
            fs::write(folder.join(plant.file), broken(plant)).unwrap();
            let row = format!("{} {} |", row_begin(plant), columns(&folder, plant.scenario));
            fs::write(folder.join(plant.file), text(plant.file)).unwrap();
            println!("{row}");
            row
        })
        .collect();
    let chapter = text("docs/book/19-time-and-chance.md");
    let wrong: Vec<_> = rows.iter().filter(|row| !chapter.contains(row.as_str())).cloned().collect();
    assert!(wrong.is_empty(), "chapter 19 should have:\n{}", wrong.join("\n"));
}
