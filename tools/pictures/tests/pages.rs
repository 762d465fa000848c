//! The pages in `docs/pictures` are those that the program writes, they play forwards and backwards, and what they show
//! at any step can be true: one thread runs, those that can run stand in the queue, nothing waits twice.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Map, Value, json};

/// The folder with the pages, from the folder of this package.
const CHECKED_IN: &str = "../../docs/pictures";

/// The elements around the data.
const BEGIN: &str = "<script type=\"application/json\" id=\"data\">\n";
const END: &str = "\n</script>";

/// The programs, in the order of their chapters.
const NAMES: [&str; 7] = ["hub", "park", "reactor", "timers", "kill", "drain", "select"];

/// The most bytes of a page.
const MOST: usize = 150 * 1024;

/// Runs the program.
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pictures"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Writes all pages to a new folder.
fn written(to: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(to);
    let output = run(&[folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

/// The page of this name in `docs`.
fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHECKED_IN).join(name).with_extension("html");
    fs::read_to_string(file).unwrap()
}

/// The data of a page.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once(BEGIN).expect("the element of the data");
    serde_json::from_str(rest.split_once(END).expect("its end").0).expect("JSON")
}

/// A page without the times of its steps.
fn without_times(page: &str) -> String {
    let mut parts = page.split("\"at\":");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + "\"at\":" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// The state at the start, and after each step.
fn states(data: &Value) -> Vec<Map<String, Value>> {
    let mut states = vec![data["start"].as_object().unwrap().clone()];
    for step in data["steps"].as_array().unwrap() {
        let mut state = states.last().unwrap().clone();
        change(&mut state, step, 1, 2);
        states.push(state);
    }
    states
}

/// Changes a state by a step: each value `from` becomes the value `to`.
fn change(state: &mut Map<String, Value>, step: &Value, from: usize, to: usize) {
    for changed in step["d"].as_array().unwrap() {
        let key = changed[0].as_str().unwrap();
        assert_eq!(state.get(key).unwrap_or(&Value::Null), &changed[from], "{key} before {step}");
        match &changed[to] {
            Value::Null => drop(state.remove(key)),
            value => drop(state.insert(key.to_owned(), value.clone())),
        }
    }
}

/// The ids in a list.
fn ids(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

#[test]
fn the_pages_in_docs_are_what_the_program_writes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHECKED_IN);
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = NAMES.iter().map(|name| format!("{name}.html")).collect();
    assert_eq!(files.collect::<BTreeSet<_>>(), names);
    let folder = written("pages");
    for name in NAMES {
        let (ours, theirs) = (fs::read_to_string(folder.join(name).with_extension("html")).unwrap(), page(name));
        // On the kernel's clock times differ from run to run; the virtual clock is part of what is the same.
        let is_in_life = data(&theirs)["life"] == true;
        let same = if is_in_life { without_times(&ours) == without_times(&theirs) } else { ours == theirs };
        let differ =
            || ours.lines().zip(theirs.lines()).find(|(one, other)| without_times(one) != without_times(other));
        assert!(same, "{name}: write it anew with `cargo run -- {CHECKED_IN}`; {:#?}", differ());
    }
}

#[test]
fn each_page_plays_backwards_to_where_it_began() {
    for name in NAMES {
        let data = data(&page(name));
        let (states, steps) = (states(&data), data["steps"].as_array().unwrap());
        assert!(steps.len() > 25 && states.len() == steps.len() + 1, "{name}");
        let mut state = states.last().unwrap().clone();
        for (step, before) in steps.iter().zip(&states).rev() {
            change(&mut state, step, 2, 1);
            assert_eq!(&state, before, "{name}: {step}");
        }
    }
}

#[test]
fn one_thread_runs_and_the_queue_has_those_that_can_run_and_no_others() {
    for name in NAMES {
        let data = data(&page(name));
        let steps = [json!({})].into_iter().chain(data["steps"].as_array().unwrap().iter().cloned());
        let mut most = 0;
        for (step, state) in steps.zip(states(&data)) {
            let of = |does: &str| {
                let all = state.iter().filter(|(key, value)| key.starts_with("thread ") && value[0] == does);
                all.map(|(key, _)| key["thread ".len()..].parse().unwrap()).collect::<BTreeSet<u64>>()
            };
            let queue = ids(&state["queue"]);
            assert!(of("runs").len() <= 1, "{name}: {step}");
            assert!(of("runs").is_empty() || state["hub"] == "", "{name}: {step}");
            assert_eq!(queue.iter().copied().collect::<BTreeSet<_>>(), of("can run"), "{name}: {step}");
            assert_eq!(queue.len(), of("can run").len(), "{name}, twice in the queue: {step}");
            // The runtime has counted, too.
            assert!(step["others"].as_u64().is_none_or(|others| others == queue.len() as u64), "{name}: {step}");
            for descriptor in state["set"].as_array().unwrap() {
                let waits = [ids(&descriptor[1][0]), ids(&descriptor[1][1])].concat();
                assert!(waits.iter().all(|id| of("waits").contains(id)), "{name}: {step}");
            }
            let ended = of("has ended");
            for entry in state.get("wheel").and_then(|wheel| wheel[2].as_array()).into_iter().flatten() {
                assert!(!ended.contains(&entry[0].as_u64().unwrap()), "{name}: {step}");
                // Invariant wheel-1 of the timer wheel.
                let (level, slot) = (entry[2].as_u64().unwrap() as usize, entry[3].as_u64().unwrap());
                let cursor = state["wheel"][1][level].as_u64().unwrap();
                assert!(slot > cursor || level == 0 && slot == cursor, "{name}: {step}");
            }
            most = most.max(queue.len());
        }
        assert!(most > 0, "{name} shows no queue");
    }
}

/// Each page shows what its chapter is about.
#[test]
fn each_page_has_what_its_chapter_is_about() {
    let told = |name: &str, text: &str| {
        let data = data(&page(name));
        let steps = data["steps"].as_array().unwrap();
        let tells = |step: &&Value| format!("{} {}", step["text"], step["why"]).contains(text);
        assert!(steps.iter().any(|step| tells(&step)), "{name}: {text}");
    };
    told("hub", "past the run queue");
    told("park", "finds nothing to wake");
    told("park", "finds the permit");
    told("park", "main has unparked it");
    told("reactor", "puts the listener into the epoll set");
    told("reactor", "epoll reports: the server's end of 2 can be read");
    told("timers", "longer goes from level 2 to level 1");
    told("timers", "is early enough and stays");
    told("timers", "moves the entry of patient");
    told("select", "the left and the time are taken back");
    told("kill", "drops the inner guard");
    told("kill", "never will");
    told("kill", "parent kills child");
    told("drain", "connects, too late");
    told("drain", "1 idle closed, 1 finished, 0 killed");
}

/// The script of the page itself, without a browser.
#[test]
fn the_script_of_a_page_goes_forwards_and_backwards_as_this_test_does() {
    for name in NAMES {
        let (page, data) = (page(name), data(&page(name)));
        let script =
            page.split_once("// ---- the states").unwrap().1.split_once("// ---- end of the states").unwrap().0;
        let program = format!(
            "//{script}\nconst data = {data}, state = structuredClone(data.start), all = [];\n\
             for (const step of data.steps) forwards(state, step);\nall.push(structuredClone(state));\n\
             for (const step of data.steps.toReversed()) backwards(state, step);\nall.push(state);\n\
             console.log(JSON.stringify(all));"
        );
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("js");
        fs::write(&file, program).unwrap();
        let Ok(output) = Command::new("node").arg(&file).output() else {
            println!("SKIPPED: no node, which runs the script of a page");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(all, json!([states(&data).last(), data["start"]]), "{name}");
    }
}

#[test]
fn a_page_needs_nothing_else_and_is_small() {
    for name in NAMES {
        let page = page(name);
        assert!(page.len() <= MOST, "{name}: {} bytes", page.len());
        for word in ["http:", "https:", "src=", "@import", "url(", "fetch("] {
            assert!(!page.contains(word), "{name}: {word}");
        }
    }
}

#[test]
fn wrong_arguments_get_one_clear_line() {
    for (arguments, complaint) in [
        (&[][..], "pictures: name one folder (try --help)\n"),
        (&["--stray"], "pictures: name one folder (try --help)\n"),
        (
            &["--one", "stray"],
            "pictures: there is no program stray; there are hub, park, reactor, timers, kill, drain, select\n",
        ),
    ] {
        let output = run(arguments);
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(2), complaint));
    }
    let output = run(&["/proc/none"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
}
