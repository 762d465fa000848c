//! You will see a switch between two stacks, instruction by instruction: the registers, both stacks, and the line of
//! source, before and after each. The page is written to standard output; `docs/anatomy.html` is one.
//!
//! ```text
//!   tracee.rs     the program: main switches to a greenlet, and back
//!   record.rs     single steps, by ptrace and a decoder of instructions
//!   names.rs      names for addresses          source.rs     lines of source
//!   page.html     the page, without the data   examples/xray finds the stacks, names functions and lines
//! ```
//!
//! All that the page says comes from the run. Addresses are distances, so that two runs of one build give the same.
//! The instructions are those of x86-64.

#[allow(dead_code, reason = "the example has more")]
#[path = "../../examples/xray/fibers.rs"]
mod fibers;
#[allow(dead_code, reason = "the example has more")]
#[path = "../../examples/xray/memory.rs"]
mod memory;
mod names;
#[allow(dead_code, reason = "the example has more")]
#[path = "../../examples/xray/program.rs"]
mod program;
mod record;
mod source;
mod tracee;
#[allow(dead_code, reason = "the example has more")]
#[path = "../../examples/xray/unwind.rs"]
mod unwind;
#[allow(dead_code, reason = "the example has more")]
#[path = "../../examples/xray/words.rs"]
mod words;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use names::{BOXES, Names};
use record::{REGISTERS, SP, Step};
use source::Source;
use words::Xray;

/// The page, and the line in it that the data takes the place of.
const PAGE: &str = include_str!("page.html");
const DATA: &str = "DATA";

/// How many bytes of code tell which line of a text an instruction is.
const AHEAD: usize = 64;

const HELP: &str = "\
A switch between two stacks, instruction by instruction, as a page of HTML.

usage: anatomy [--json]

  --json   only the data of the page
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let as_json = match arguments[..] {
        [] => false,
        ["--json"] => true,
        ["--help" | "-h"] => {
            print!("{HELP}");
            return;
        }
        _ => {
            eprintln!("anatomy: {} is not understood (try --help)", arguments.join(" "));
            std::process::exit(2);
        }
    };
    let written = anatomy().and_then(|data| {
        // Nothing in the data can end the element that it stands in.
        let data = data.to_string().replace('<', "\\u003c");
        let page = if as_json { format!("{data}\n") } else { PAGE.replacen(DATA, &data, 1) };
        io::stdout().write_all(page.as_bytes())
    });
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            eprintln!("anatomy: {error}");
            std::process::exit(1);
        }
    }
}

/// Steps through a switch, and returns what is to be seen.
fn anatomy() -> io::Result<Value> {
    let (child, places) = tracee::start()?;
    let recording = record::record(child)?;
    // The child is a fork: its functions, and the table for debuggers, lie where they lie here.
    let xray = Xray::open()?;
    let mut names = Names::new(&xray, places, recording.before[SP]);
    let mut source = Source::default();
    // The rows of each box, the highest address of a stack first.
    let shown = recording.words.iter().filter_map(|(address, value)| Some((names.box_of(*address)?, *address, *value)));
    let mut shown: Vec<(usize, u64, u64)> = shown.collect();
    shown.sort_by_key(|(of, address, _)| (*of, if *of < 2 { u64::MAX - address } else { *address }));
    let rows: BTreeMap<u64, usize> = shown.iter().enumerate().map(|(row, (_, address, _))| (*address, row)).collect();
    let registers: Vec<String> = recording.before.iter().map(|value| names.value(*value)).collect();
    let befores = [recording.before].into_iter().chain(recording.steps.iter().map(|step| step.after));
    let steps = recording.steps.iter().zip(befores);
    let steps = steps.map(|(step, before)| one(step, &before, &xray, &mut names, &mut source, &rows));
    let steps: Vec<Value> = steps.collect();
    let rows: Vec<Value> = shown
        .iter()
        .map(|(of, address, value)| json!([of, names.row(*address), names.word(*address, *value)]))
        .collect();
    Ok(json!({
        "boxes": BOXES,
        "names": REGISTERS,
        "sent": tracee::SENT,
        "registers": registers,
        "rows": rows,
        "steps": steps,
    }))
}

/// Returns what the page has of an instruction that was executed with the registers `before`.
fn one(
    step: &Step,
    before: &[u64; 16],
    xray: &Xray,
    names: &mut Names,
    source: &mut Source,
    rows: &BTreeMap<u64, usize>,
) -> Value {
    let address = step.instruction.ip();
    let places = names.program.places(address);
    let text = record::text(&step.instruction, |target| names.value(target));
    let chain: Vec<String> = places.iter().map(|place| format!("{}, {}", place.function, place.line())).collect();
    // The sources of std need not be on the machine, and its lines say less than the one that calls them.
    let own = places.iter().find(|place| source::is_own(place)).or(places.first());
    let line = own.map(|place| source.line(place));
    // This process has the same code at the same place.
    let following = xray.memory.read(address, AHEAD).map(|code| record::following(&code, address));
    let assembly = places.first().zip(following).and_then(|(place, following)| source.assembly(place, &following));
    let changed: Vec<Value> = (0..REGISTERS.len())
        .filter(|index| before[*index] != step.after[*index])
        .map(|index| json!([index, names.value(step.after[index])]))
        .collect();
    let reads: Vec<usize> = step.reads.iter().filter_map(|word| rows.get(word).copied()).collect();
    let writes = step.writes.iter().filter_map(|(word, value)| Some((*rows.get(word)?, *word, *value)));
    let writes: Vec<Value> = writes.map(|(row, word, value)| json!([row, names.word(word, value)])).collect();
    let bytes: Vec<String> = step.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let as_pair = |line: source::Line| json!([line.place, line.text]);
    json!({
        "at": names.value(address),
        "bytes": bytes.join(" "),
        "text": text,
        "chain": chain,
        "line": line.map(as_pair),
        "assembly": assembly.map(as_pair),
        "registers": changed,
        "reads": reads,
        "writes": writes,
        "sp": rows.get(&step.after[SP]),
    })
}
