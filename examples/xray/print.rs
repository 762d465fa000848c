//! A look at a fiber, as lines: the control block, the stack from its base down, the guard.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::fibers::Fiber;
use crate::program::{Place, region};
use crate::words::{Look, Meaning, Word, Xray};

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Addresses and values as they are, not as distances.
    pub(crate) absolute: bool,
    /// Every local and every field.
    pub(crate) all: bool,
}

/// The longest run of locals of one function that is printed word by word without `all`.
const FEW: usize = 3;

/// The fields of a control block that are printed without `all`, each with a word about it.
const FIELDS: [(&str, &str); 11] = [
    ("top_of_stack", "see the stack"),
    ("block", "TLS block; 0: the OS thread's"),
    ("frames_below", "depth of frames at its park"),
    ("link_below", "depth of the link, / 16"),
    ("payload", "address of closure or result"),
    ("id", "its number"),
    ("payload_state", "1 closure, 2 result"),
    ("green_thread", "0 if a greenlet"),
    ("small_payload", "place of a small one"),
    ("mailbox", "where a value arrives"),
    ("mailbox_type", "of this type"),
];

/// The columns of a line in front of the meaning.
const MEANING: usize = 39;

/// Puts a line together: place, value, meaning.
fn line(text: &mut String, place: &str, value: &str, meaning: &str) {
    let front = format!("  {place:<12} {value}");
    if front.len() >= MEANING || front.len().max(MEANING) + meaning.len() > 80 {
        let _ = writeln!(text, "{front}");
        let _ = writeln!(text, "      {meaning}");
    } else {
        let _ = writeln!(text, "{front:<MEANING$}{meaning}");
    }
}

impl Xray {
    /// Returns an address as it is printed: relative to what is known to be there.
    fn address(&self, fiber: &Fiber, address: u64, options: Options) -> String {
        match address {
            _ if options.absolute => format!("{address:#x}"),
            _ if address == fiber.block || (fiber.base..fiber.end).contains(&address) => {
                format!("block+{:#05x}", address - fiber.block)
            }
            _ if (fiber.low..fiber.base).contains(&address) => format!("base-{:#06x}", fiber.base - address),
            _ => self.value(fiber, address, options),
        }
    }

    /// Returns a value as it is printed: an address by what lies there, and others as numbers.
    fn value(&self, fiber: &Fiber, value: u64, options: Options) -> String {
        if value < 4096 {
            return value.to_string();
        }
        if options.absolute {
            return format!("{value:#x}");
        }
        if (fiber.low..fiber.end).contains(&value) {
            return self.address(fiber, value, options);
        }
        if let Some((name, distance)) = self.program.symbol(value) {
            let name = name.rsplit("::").find(|part| !part.starts_with('{')).unwrap_or(&name);
            let name: String = name.chars().take(18).collect();
            return format!("{name}+{distance:#x}");
        }
        if self.program.file_address(value).is_some() {
            return "in static data".to_owned();
        }
        if value & (u64::MAX >> 8) == fiber.base {
            return format!("base, {} << 56", value >> 56);
        }
        // Other numbers of this size that are no addresses are rare.
        let is_address = (1 << 40..1 << 47).contains(&value);
        let unknown = || if is_address { "an address".to_owned() } else { format!("{value:#x}") };
        region(value).map_or_else(unknown, str::to_owned)
    }

    /// Returns what a word of corosensei's coroutine is.
    fn of_coroutine(&self, fiber: &Fiber, offset: u64, value: u64) -> &'static str {
        let is_last = offset + 8 == self.table.field("coroutine").offset + self.table.field("coroutine").size;
        match value {
            _ if is_last => "saved stack pointer",
            _ if Some(value) == fiber.initial => "first stack pointer",
            _ if value & (u64::MAX >> 8) == fiber.base => "base, and size of the slot",
            _ if self.program.symbol(value).is_some() => "drops a closure never run",
            _ => "",
        }
    }

    /// Returns the lines of a look.
    pub(crate) fn lines(&self, look: &Look, options: Options) -> String {
        let mut text = String::new();
        let fiber = &look.fiber;
        let _ = writeln!(text, "control block");
        for (name, offset, bytes) in &look.fields {
            for (index, word) in bytes.chunks(8).enumerate() {
                let (offset, value) = (offset + 8 * index as u64, number(word));
                let meaning = match FIELDS.iter().find(|(known, _)| known == name) {
                    Some(_) if index > 0 => name.clone(),
                    Some((_, meaning)) => format!("{name}: {meaning}"),
                    None if name == "state" => format!("state: {}", look.state),
                    None if name == "coroutine" => format!("coroutine: {}", self.of_coroutine(fiber, offset, value)),
                    None if options.all => name.clone(),
                    None => continue,
                };
                let place = format!("block+{offset:#05x}");
                let place = if options.absolute { format!("{:#x}", fiber.block + offset) } else { place };
                line(&mut text, &place, &self.value(fiber, value, options), &meaning);
            }
        }
        let used = look.words.last().map_or(0, |last| fiber.base - last.address);
        let _ = writeln!(text, "stack, {used} bytes in use, from its base down");
        self.stack(&mut text, look, options);
        let below = look.words.last().map_or(fiber.base, |last| last.address) - fiber.low - look.guard.0;
        let _ = writeln!(text, "  {below} bytes below are not in use");
        let _ = writeln!(
            text,
            "guard, the lowest {} bytes of the slot: not to be read\n  {} bytes above can be",
            look.guard.0, look.guard.1
        );
        text
    }

    /// Returns the address of a word of the stack as it is printed.
    fn place(&self, look: &Look, word: &Word, options: Options) -> String {
        if options.absolute {
            return format!("{:#x}", word.address);
        }
        format!("base-{:#06x}", look.fiber.base - word.address)
    }

    /// Adds the words of the stack. A longer run of locals is one line, unless all are wanted.
    fn stack(&self, text: &mut String, look: &Look, options: Options) {
        let mut rest = &look.words[..];
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|word| word.meaning == first.meaning).count();
            let is_run = matches!(first.meaning, Meaning::Local(_) | Meaning::Closure { gone: true });
            if is_run && same > FEW && !options.all {
                let last = self.place(look, &rest[same - 1], options);
                let first_place = self.place(look, first, options);
                line(text, &first_place, &format!("to {last}"), &format!("{same} words: {}", said(first)[0]));
                rest = &rest[same..];
                continue;
            }
            let place = self.place(look, first, options);
            let mut meaning = said(first).into_iter();
            line(text, &place, &self.value(&look.fiber, first.value, options), &meaning.next().unwrap_or_default());
            for more in meaning {
                let _ = writeln!(text, "      {more}");
            }
            rest = &rest[1..];
        }
    }
}

/// Returns the number that these bytes are.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Returns where the code goes on, in lines.
fn goes_on(places: &[Place]) -> Vec<String> {
    let one = |place: &Place| format!("{}, {}", place.function, place.line());
    match places {
        [] => vec!["unknown code".to_owned()],
        [only] => vec![one(only)],
        [inner, .., outer] => vec![one(outer), format!("inlined: {}", one(inner))],
    }
}

/// Returns what a word is, in lines of which the first one stands beside it.
fn said(word: &Word) -> Vec<String> {
    let with_places = |first: &str, places: &[Place]| {
        let mut lines = vec![first.to_owned()];
        lines.extend(goes_on(places));
        lines
    };
    match &word.meaning {
        Meaning::FirstFunction => vec!["coroutine_func, read once".to_owned()],
        Meaning::ParentLink { written: false } => vec!["parent link, not written yet".to_owned()],
        Meaning::ParentLink { written: true } => vec!["parent link, by its latest resumer".to_owned()],
        Meaning::Closure { gone: false } => vec!["closure of launch, or padding".to_owned()],
        Meaning::Closure { gone: true } => vec!["was the closure of launch".to_owned()],
        Meaning::Trampoline => vec!["trampoline: the first resumption".to_owned()],
        Meaning::Return(places) => with_places("return address", places),
        Meaning::Register(name, of) => vec![format!("{name} of {of}")],
        Meaning::GoesOn(places) => with_places("the switch: goes on here (label 2)", places),
        Meaning::Switch(name) => vec![format!("the switch: {name}")],
        Meaning::Mailbox => vec!["mailbox".to_owned()],
        Meaning::Value => vec!["MAILBOX: THE VALUE ON ITS WAY".to_owned()],
        Meaning::Local(function) => vec![format!("local of {function}")],
        Meaning::Padding => vec!["padding".to_owned()],
    }
}
