//! The words of a stack that waits, each with its meaning.
//!
//! ```text
//!   control block    by the table of fields
//!   base -  8, -16   the first function, the parent link
//!   frames           return addresses and saved registers, by the unwind tables; the mailbox, by the control block
//!   sp ..            what the switch has saved
//!   the rest         locals: the compiler knows which, and this program does not
//!   guard            what cannot be read
//! ```
#![forbid(unsafe_code)]

use std::io;

use crate::fibers::{Fiber, Table};
use crate::memory::{Memory, WORD};
use crate::program::{Place, Program};
use crate::unwind::{ENTRY, Frame, PROCESSOR, Saved, frames};

/// What a word is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The function that corosensei's trampoline jumps to.
    FirstFunction,
    /// Where the stack of the latest resumer was.
    ParentLink {
        /// Whether there was a resumption, which has written it.
        written: bool,
    },
    /// The closure that starts the body, or what is left of it.
    Closure {
        /// Whether it was moved out.
        gone: bool,
    },
    /// Where the first resumption jumps to.
    Trampoline,
    /// Where a function returns to: the places at which the caller goes on, the innermost inlined one first.
    Return(Vec<Place>),
    /// A register of the caller, which is this function.
    Register(&'static str, String),
    /// What the switch has saved: the instruction to go on at.
    GoesOn(Vec<Place>),
    /// What the switch has saved: a register.
    Switch(&'static str),
    /// A word of the place where a value arrives.
    Mailbox,
    /// The value that was sent, and has not been taken.
    Value,
    /// Something of this function's own.
    Local(String),
    /// A word that only keeps others aligned.
    Padding,
}

/// A word of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// The address in this process.
    pub(crate) address: u64,
    /// The 64 bits at this address.
    pub(crate) value: u64,
    /// What the runtime or the compiler has these bits for.
    pub(crate) meaning: Meaning,
}

/// A fiber that was looked at.
pub(crate) struct Look {
    /// The addresses of slot, block and stack.
    pub(crate) fiber: Fiber,
    /// The name of its state at that moment.
    pub(crate) state: &'static str,
    /// The fields of the control block: name, offset, bytes.
    pub(crate) fields: Vec<(String, u64, Vec<u8>)>,
    /// The words in use, from the base down.
    pub(crate) words: Vec<Word>,
    /// The bytes at the low end of the slot that cannot be read, and those above that can.
    pub(crate) guard: (u64, u64),
}

/// What looks: the program's file, its memory, and the table of the runtime.
pub(crate) struct Xray {
    /// The program's own file, with symbols and lines.
    pub(crate) program: Program,
    /// The window to the memory of the process.
    pub(crate) memory: Memory,
    /// What the runtime tells debuggers.
    pub(crate) table: Table,
}

impl Xray {
    /// Opens this process.
    ///
    /// # Errors
    /// If its file or its memory cannot be read.
    pub(crate) fn open() -> io::Result<Xray> {
        let (program, memory) = (Program::load()?, Memory::open()?);
        let table = Table::find(&program, &memory)?;
        Ok(Xray { program, memory, table })
    }

    /// Looks at the youngest fiber of the calling OS thread, which does not run. `sent` is the value that is on its way
    /// to it, if one is.
    ///
    /// # Errors
    /// If there is no fiber.
    pub(crate) fn look(&self, sent: Option<u64>) -> io::Result<Look> {
        let (table, memory) = (&self.table, &self.memory);
        let youngest = table.fibers(memory).pop_last();
        let (_, fiber) = youngest.ok_or_else(|| io::Error::other("there is no fiber"))?;
        let state = table.state(memory, fiber.block);
        let bytes = |offset, size: u64| memory.read(fiber.block + offset, size as usize).unwrap_or_default();
        let fields = table.fields.iter();
        let fields = fields.map(|field| (field.name.clone(), field.offset, bytes(field.offset, field.size)));
        let frames = match fiber.sp {
            Some(sp) if fiber.sp != fiber.initial => frames(&self.program, memory, sp),
            _ => Vec::new(),
        };
        let mut look = Look { state, fields: fields.collect(), words: Vec::new(), guard: self.guard(&fiber), fiber };
        look.words = self.words(&look.fiber, &frames);
        if state == "SWITCHED" || sent.is_some() {
            self.name_mailbox(&mut look, sent);
        }
        Ok(look)
    }

    /// Returns the name of the function that has this frame.
    fn function(&self, frame: &Frame) -> Option<String> {
        Some(self.program.places(frame.asked()).pop()?.function)
    }

    /// Returns all words of the stack that are in use, from the base down.
    fn words(&self, fiber: &Fiber, frames: &[Frame]) -> Vec<Word> {
        // One that has ended has its two topmost words yet.
        let low = fiber.sp.unwrap_or(fiber.link);
        let word = |index| {
            let address = fiber.base - WORD * index;
            let value = self.memory.word(address).unwrap_or_default();
            Word { address, value, meaning: self.meaning(fiber, frames, address, value) }
        };
        (1..=(fiber.base - low) / WORD).map(word).collect()
    }

    /// Returns what the word at `address` is.
    fn meaning(&self, fiber: &Fiber, frames: &[Frame], address: u64, value: u64) -> Meaning {
        if address == fiber.link {
            return Meaning::ParentLink { written: fiber.sp != fiber.initial };
        }
        if address == fiber.link + WORD {
            return Meaning::FirstFunction;
        }
        let sp = fiber.sp.unwrap_or(fiber.link);
        let index = ((address - sp) / WORD) as usize;
        if frames.is_empty() {
            return match PROCESSOR.fresh.get(index) {
                Some(&ENTRY) => Meaning::Trampoline,
                Some(_) => Meaning::Padding,
                None => Meaning::Closure { gone: false },
            };
        }
        match PROCESSOR.saved.get(index) {
            Some((_, Some(register))) if *register == PROCESSOR.return_address => {
                return Meaning::GoesOn(self.program.places(value));
            }
            Some((name, Some(_))) => return Meaning::Switch(name),
            Some((_, None)) => return Meaning::Padding,
            None => {}
        }
        let Some(depth) = frames.iter().position(|frame| address < frame.end) else {
            return Meaning::Closure { gone: true };
        };
        let frame = &frames[depth];
        let caller = || frames.get(depth + 1).and_then(|frame| self.function(frame));
        match frame.saved.iter().find(|(at, _)| *at == address) {
            Some((_, Saved::ReturnAddress)) => Meaning::Return(self.program.places(value.wrapping_sub(1))),
            Some((_, Saved::Register(name))) => Meaning::Register(name, caller().unwrap_or_else(|| ENTRY.to_owned())),
            None => Meaning::Local(self.function(frame).unwrap_or_default()),
        }
    }

    /// Names the words of the mailbox, and the value in it.
    fn name_mailbox(&self, look: &mut Look, sent: Option<u64>) {
        let mailbox = self.table.value(&self.memory, look.fiber.block, "mailbox");
        // A message is a value, or a panic's payload, which is two words.
        let inside = mailbox..mailbox + 2 * WORD;
        for word in look.words.iter_mut().filter(|word| inside.contains(&word.address)) {
            word.meaning = if Some(word.value) == sent { Meaning::Value } else { Meaning::Mailbox };
        }
    }

    /// Returns how many bytes of the slot cannot be read, from its low end on, and how many can above.
    fn guard(&self, fiber: &Fiber) -> (u64, u64) {
        // A page is 4 KiB or a multiple.
        let pages = (fiber.low..fiber.end).step_by(4096);
        let closed = pages.clone().take_while(|page| self.memory.word(*page).is_none()).count() as u64 * 4096;
        let open = pages.filter(|page| self.memory.word(*page).is_some()).count() as u64 * 4096;
        (closed, open)
    }
}
