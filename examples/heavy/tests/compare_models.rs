//! The example `compare_models`: a short run of it, what it says of models that cannot do a point, what it leaves
//! behind.
// Child processes with limits and terminals of their own have no safe counterpart in std.
#![allow(unsafe_code)]

#[path = "../../../tests/examples/few.rs"]
mod few;
#[allow(dead_code, reason = "made for the tests of the examples, which need all of it")]
#[path = "../../../tests/examples/support.rs"]
mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use built::example;
use support::{Ended, Lines, PATIENCE, Running, run, terminal};

/// Where cargo has put the programs of this package.
mod built {
    use std::path::{Path, PathBuf};

    /// Returns the path of a program.
    pub(crate) fn example(name: &str) -> PathBuf {
        Path::new(env!("CARGO_BIN_EXE_compare_models")).with_file_name(name)
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("compare_models-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the folder for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The values of a line of the CSV file, by name.
type Line = HashMap<String, String>;

fn lines_of(path: &str) -> Vec<Line> {
    let mut file = csv::Reader::from_path(path).unwrap();
    let names = file.headers().unwrap().clone();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    file.records().map(|record| names.iter().zip(&record.unwrap()).map(owned).collect()).collect()
}

#[track_caller]
fn number(line: &Line, name: &str) -> f64 {
    line[name].parse().unwrap_or_else(|_| panic!("{name} in {line:?}"))
}

/// The text below a claim, after the verdict was checked. Both may take several lines: the claim's begin with two
/// blanks, the figure's with four.
#[track_caller]
fn figure(ended: &Ended, claim: &str, verdict: &str) -> String {
    let lines = ended.lines();
    let at = lines.iter().position(|line| line.trim_start().starts_with(claim)).unwrap_or_else(|| panic!("{lines:#?}"));
    let is_figure = |line: &&&str| line.starts_with("    ");
    let claimed: Vec<&str> = lines[at..].iter().take_while(|line| !is_figure(line)).map(|line| line.trim()).collect();
    let below = lines[at + claimed.len()..].iter().take_while(is_figure).map(|line| line.trim());
    let (claimed, figure) = (claimed.join(" "), below.collect::<Vec<_>>().join(" "));
    assert!(claimed.ends_with(&format!(": {verdict}")), "{claimed}\n{figure}");
    figure
}

#[test]
fn a_short_run_measures_what_it_is_asked_for() {
    let folder = Folder::new("short");
    let (csv, svg) = (folder.file("figures.csv"), folder.file("chart.svg"));
    let models = if cfg!(feature = "monkey") {
        "blocking,process,thread,nonblocking,epoll-lt,green,green-hubs,green-patched,green-threads-patched"
    } else {
        "blocking,process,thread,nonblocking,epoll-lt,green,green-hubs"
    };
    // Of four rounds one is enough that did not fall into a moment in which others had the processors.
    let args = ["--models", models, "--idle", "20,0", "--active", "5", "--duration", "200ms", "--rounds", "4"];
    let ended = run("compare_models", &[&args[..], &["--csv", &csv, "--svg", &svg]].concat(), b"");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", ended.stderr);
    let lines = lines_of(&csv);
    let points: Vec<(&str, &str)> = lines.iter().map(|line| (&line["model"][..], &line["idle"][..])).collect();
    let expected: Vec<(&str, &str)> = models.split(',').flat_map(|model| [(model, "0"), (model, "20")]).collect();
    assert_eq!(points, expected);
    for line in &lines {
        if line["model"] == "blocking" && line["idle"] == "20" {
            assert!(line["why_not"].starts_with("one client at a time: "), "{line:?}");
            assert!(line["why_not"].contains("idle connections 1 got an echo"), "{line:?}");
            continue;
        }
        assert_eq!(line["why_not"], "", "{line:?}");
        for figure in ["answers_per_s", "p50_us", "p99_us", "cpu_us_per_answer", "rss_kib", "pss_kib"] {
            assert!(number(line, figure) > 0.0, "{figure}: {line:?}");
        }
        let active = if line["model"] == "blocking" { 1.0 } else { 5.0 };
        assert_eq!(number(line, "active"), active);
        let (idle, processes, threads) = (number(line, "idle"), number(line, "processes"), number(line, "threads"));
        let expected = match line["model"].as_str() {
            "process" => (1.0 + active + idle, 1.0 + active + idle),
            "thread" => (1.0, 1.0 + active + idle),
            "green-hubs" => (1.0, 2.0),
            _ => (1.0, 1.0),
        };
        // A hub that was busy for a while without a pause has started the monitor.
        let monitor = if line["model"].starts_with("green") && threads > expected.1 { 1.0 } else { 0.0 };
        assert_eq!((processes, threads), (expected.0, expected.1 + monitor), "{line:?}");
        if line["model"] == "process" {
            assert!(number(line, "rss_kib") > number(line, "pss_kib"), "no page is shared: {line:?}");
        }
        let asked_alone = ["epoll-lt", "green", "green-patched", "green-threads-patched"].contains(&&line["model"][..]);
        assert_eq!(!line["cpu_us_per_answer_one_client"].is_empty(), asked_alone, "{line:?}");
    }
    // How busy a server is depends on what else the machine does: a server may have no turn at all while watched.
    let is_busy = |line: &Line| line["model"] == "nonblocking" && number(line, "asleep_cores") > 0.0;
    if !lines.iter().any(is_busy) {
        eventually("busy polling is busy", || {
            let args = ["--models", "nonblocking", "--idle", "0", "--duration", "20ms", "--csv", &csv];
            run("compare_models", &args, b"").status.success() && lines_of(&csv).iter().any(is_busy)
        });
    }
    check_chart(&fs::read_to_string(svg).unwrap(), models);
    assert!(figure(&ended, "coroutines switch", "holds").contains(" million between two green threads"));
    figure(&ended, "select scans", "not measured");
}

/// What a reader must find in the chart; the look is for eyes to judge.
fn check_chart(svg: &str, models: &str) {
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    let texts: Vec<&str> = svg.lines().collect();
    for text in models.split(',').chain(["CPU time of the server for each answer", "Throughput", "MiB (logarithmic)"]) {
        assert!(texts.contains(&text), "no {text:?} in the chart");
    }
    assert!(!texts.contains(&"poll"), "a model that was not measured is in the legend");
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn select_ends_where_its_set_ends_and_the_claims_say_so() {
    let folder = Folder::new("select");
    let csv = folder.file("figures.csv");
    // On a machine that is busy with something else a server may have no turn in a short time, and then its figures are
    // 0.
    let mut times = ["100ms", "400ms", "2s"].into_iter();
    let ended = loop {
        let time = times.next().expect("figures that are not 0");
        let args = ["--models", "select,poll,epoll-lt", "--idle", "0,1100", "--rounds", "1", "--csv", &csv];
        let ended = run("compare_models", &[&args[..], &["--duration", time]].concat(), b"");
        assert!(ended.status.success() && ended.stderr.is_empty(), "{}", ended.stderr);
        let is_zero = |line: &Line| line["why_not"].is_empty() && number(line, "cpu_us_per_answer_one_client") == 0.0;
        if !lines_of(&csv).iter().any(is_zero) {
            break ended;
        }
    };
    let lines = lines_of(&csv);
    let select: Vec<(&str, bool)> = lines
        .iter()
        .filter(|line| line["model"] == "select")
        .map(|line| (&line["idle"][..], line["why_not"].starts_with("FD_SETSIZE is 1024: ")))
        .collect();
    assert_eq!(select, [("0", false), ("900", false), ("1100", true)]);
    let ends = figure(&ended, "select ends at 1024 descriptors", "holds");
    assert!(ends.contains("; poll served 1150 and epoll 1150"), "{ends}");
    let scans = figure(&ended, "select scans linearly", "holds");
    assert!(scans.contains("beside 0 idle connections") && scans.contains("beside 900"), "{scans}");
    figure(&ended, "poll copies", "holds in part");
    let rows: Vec<String> = ended.lines().into_iter().filter(|line| line.starts_with('|')).map(String::from).collect();
    let refused = rows.iter().filter(|line| line.starts_with("| select ") && line.contains(">=1100"));
    assert_eq!(refused.count(), 2, "one in each table: {rows:#?}");
    assert!(rows.iter().all(|line| line.len() <= 80), "wider than a terminal: {rows:#?}");
    let refusal = "select, 1100 idle: FD_SETSIZE is 1024; ";
    assert!(ended.lines().iter().any(|line| line.starts_with(refusal)), "{:#?}", ended.lines());
}

/// All programs of this package that no other tests run.
fn programs() -> Vec<String> {
    let patched = cfg!(feature = "monkey").then_some("patched_clients");
    ["compare_models"].into_iter().chain(patched).map(String::from).collect()
}

#[test]
fn all_programs_have_help_and_refuse_what_they_do_not_know() {
    for name in programs() {
        let ended = run(&name, &["--help"], b"");
        let text = String::from_utf8(ended.stdout).unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{name}: {}", ended.stderr);
        assert!(text.contains(&format!("\nusage: {name}")) && text.ends_with('\n'), "{name}: {text}");
        let ended = run(&name, &["--frobnicate"], b"");
        assert_eq!(ended.status.code(), Some(2), "{name}: {ended:?}");
        assert_eq!(ended.stderr, format!("{name}: invalid option '--frobnicate' (try --help)\n"));
    }
}

/// With more, `compare_models` would begin to measure, for minutes.
#[test]
fn few_descriptors_are_one_clear_line() {
    few::check_all(&programs(), few::FEWEST..=8);
}

#[test]
fn a_wrong_command_line_is_one_clear_line() {
    for (args, complaint) in [
        (&["--models", "poll,telepathy"][..], "--models telepathy: there is no such model"),
        (&["--idle", "1,many"], "--idle many: not a whole number up to 20000"),
        (&["--idle", "20001"], "--idle 20001: not a whole number up to 20000"),
        (&["--active", "0"], "--active 0: not a whole number, 1 or more"),
        (&["--rounds", "0"], "--rounds 0: not a whole number, 1 or more"),
        (&["--rounds", "21"], "--rounds must be 20 at most"),
        (&["--duration", "1ms"], "--duration must be from 20ms to 60s"),
        (&["--csv", "/dev/null/x"], "--csv /dev/null/x: Not a directory (os error 20)"),
        (&["--svg", "/"], "--svg /: Is a directory (os error 21)"),
    ] {
        let ended = run("compare_models", args, b"");
        assert_eq!(ended.status.code(), Some(2), "{args:?}");
        assert_eq!(ended.stderr, format!("compare_models: {complaint} (try --help)\n"));
    }
}

#[test]
fn a_chart_that_cannot_be_written_is_an_error() {
    let args = ["--models", "poll", "--idle", "0", "--duration", "20ms", "--rounds", "1", "--svg", "/dev/full"];
    let ended = run("compare_models", &args, b"");
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr, "compare_models: /dev/full: No space left on device (os error 28)\n");
}

#[test]
fn on_a_terminal_no_line_is_broken_in_a_word() {
    let (ours, theirs) = terminal();
    let mut command = Command::new(example("compare_models"));
    command.args(["--models", "poll,select", "--idle", "0,1", "--duration", "50ms", "--rounds", "1"]);
    command.stdin(Stdio::null()).stdout(theirs).stderr(Stdio::null());
    let mut process = Running(command.spawn().unwrap());
    drop(command);
    let text = Lines::of(ours);
    assert!(process.wait().success());
    text.wait_for("measured in");
    let lines = text.all();
    assert!(lines.iter().all(|line| line.trim_end().chars().count() <= 80), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("  coroutines switch a million times")), "{lines:#?}");
}

#[cfg(not(feature = "monkey"))]
#[test]
fn green_patched_without_its_feature_names_the_feature() {
    let ended = run("compare_models", &["--models", "poll,green-patched"], b"");
    assert_eq!(ended.status.code(), Some(2));
    let complaint = "green-patched needs --features monkey";
    assert_eq!(ended.stderr, format!("compare_models: {complaint} (try --help)\n"));
}

/// `cargo run --example compare_models` builds this one alone.
#[test]
fn a_program_that_is_not_built_is_named() {
    let folder = Folder::new("alone");
    let alone = folder.file("compare_models");
    fs::copy(example("compare_models"), &alone).unwrap();
    let ended = Command::new(&alone).args(["--models", "poll"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let complaint = String::from_utf8(ended.stderr).unwrap();
    assert!(complaint.contains("/server_models: ") && complaint.ends_with("cargo build --release\n"));
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}

/// The processes that a process has started and that have not ended.
fn children(parent: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|&id| state_and_parent(id).is_some_and(|(state, of)| state != "Z" && of == parent)).collect()
}

fn state_and_parent(process: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // proc_pid_stat(5): after the name in parentheses, the state and the parent.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn its_programs_end_with_it_even_when_it_is_killed() {
    let mut command = Command::new(example("compare_models"));
    command.args(["--models", "process", "--duration", "60s"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut process = Running(command.spawn().unwrap());
    let mut programs = Vec::new();
    eventually("a server and a load", || {
        programs = children(process.0.id());
        programs.len() == 2
    });
    // The server is started first, so its id is the lower one.
    let server = programs[0].min(programs[1]);
    let mut guests = Vec::new();
    eventually("the server's own children", || {
        guests = children(server);
        guests.len() == 50
    });
    // SIGKILL leaves no time to clean up: the kernel has to end the programs.
    process.signal(libc::SIGKILL);
    process.wait();
    programs.extend(guests);
    let has_ended = |&id: &u32| state_and_parent(id).is_none_or(|(state, _)| state == "Z");
    eventually("all have ended", || programs.iter().all(has_ended));
}

#[test]
fn a_bar_is_drawn_on_a_terminal() {
    let (ours, theirs) = terminal();
    let mut command = Command::new(example("compare_models"));
    command.args(["--models", "poll", "--idle", "0,1", "--duration", "50ms"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(theirs);
    let mut process = Running(command.spawn().unwrap());
    drop(command);
    let bar = Lines::of(ours);
    assert!(process.wait().success());
    // A carriage return is no end of a line.
    assert!(bar.wait_for("/2 ").contains("poll, "), "{:?}", bar.all());
}

#[test]
fn the_models_are_those_of_the_servers() {
    let list = run("server_models", &["--list"], b"");
    let served: Vec<&str> = list.lines().iter().map(|line| line.split(' ').next().unwrap()).collect();
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("compare_models/model.rs");
    let text = fs::read_to_string(table).unwrap();
    let rows = text.split("const MODELS").nth(1).unwrap();
    let compared: Vec<&str> = rows
        .match_indices("model(\"")
        .filter_map(|(at, found)| rows[at + found.len()..].split('"').next())
        .filter(|name| !name.is_empty())
        .collect();
    // The text has the line in any case.
    let is_there = |name: &&str| cfg!(feature = "monkey") || !name.ends_with("patched");
    assert_eq!(compared.into_iter().filter(is_there).collect::<Vec<_>>(), served);
}
