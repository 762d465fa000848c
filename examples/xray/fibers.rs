//! The fibers of this process, found as a debugger finds them: by the table GREENLING_DEBUG and the memory it leads to.
//!
//! `src/switch/debugger.rs` has the table, with its fields in the order in which they are read here.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use crate::memory::{Memory, WORD};
use crate::program::Program;

/// The version of the table that this program reads.
const VERSION: u32 = 2;

/// The kinds of records of the table: the root of an OS thread, and stacks.
const ROOT: u64 = 2;
const CHUNK: u64 = 3;

/// The states by their numbers (`src/switch/state.rs`).
const STATES: [&str; 8] = ["UNUSED", "POOLED", "RUNNABLE", "DELIVERED", "PARKED", "SWITCHED", "FINISHED", "NOTIFIED"];

/// Returns the name of the state with this number.
pub(crate) fn state_name(number: u64) -> &'static str {
    STATES.get(number as usize).copied().unwrap_or("?")
}

/// A field of a control block.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// The name in `src/switch/control_block.rs`.
    pub(crate) name: String,
    /// The distance from the start of the block, in bytes.
    pub(crate) offset: u64,
    /// The size in bytes.
    pub(crate) size: u64,
}

/// What the table says.
pub(crate) struct Table {
    /// Where the first record of what there is stands.
    list: u64,
    /// The bytes of guard at the start of each slot.
    pub(crate) guard: u64,
    /// The distance between two colours.
    colour_step: u64,
    /// The number of colours.
    colours: u64,
    /// The size of a control block.
    pub(crate) block_size: u64,
    /// The size of the coroutine in it.
    coroutine_size: u64,
    /// How far the address of main's control block is from the start of a root.
    root_main: u64,
    /// The fields of a control block.
    pub(crate) fields: Vec<Field>,
}

/// A fiber that does not run.
#[derive(Clone, Debug)]
pub(crate) struct Fiber {
    /// The lowest address of its slot, the guard's.
    pub(crate) low: u64,
    /// The end of its slot.
    pub(crate) end: u64,
    /// The address of its control block.
    pub(crate) block: u64,
    /// The address of its parent link.
    pub(crate) link: u64,
    /// The end of its stack.
    pub(crate) base: u64,
    /// Its saved stack pointer; none of one that has ended.
    pub(crate) sp: Option<u64>,
    /// The stack pointer that it began with.
    pub(crate) initial: Option<u64>,
}

impl Table {
    /// Reads the table of this process.
    ///
    /// # Errors
    /// If there is none, or one of another version.
    pub(crate) fn find(program: &Program, memory: &Memory) -> io::Result<Table> {
        let at = program.address_of("GREENLING_DEBUG").ok_or_else(|| io::Error::other("no symbol GREENLING_DEBUG"))?;
        Table::read(memory, at).ok_or_else(|| io::Error::other(format!("no table of version {VERSION}")))
    }

    /// Reads the table at `at`.
    fn read(memory: &Memory, at: u64) -> Option<Table> {
        let is_known = memory.read(at, 16)? == *b"greenling debug\0" && memory.half(at + 16)? == VERSION;
        // Behind magic, version and size: the list, three tables of texts, then numbers.
        let number = |index: u64| Some(u64::from(memory.half(at + 80 + 4 * index)?));
        let (fields, count) = (memory.word(at + 160)?, memory.word(at + 168)?);
        let field = |index: u64| {
            // A text of two words, and two numbers of four bytes.
            let at = fields + 24 * index;
            let (offset, size) = (memory.half(at + 16)?, memory.half(at + 20)?);
            Some(Field { name: memory.text(at)?, offset: offset.into(), size: size.into() })
        };
        is_known.then_some(Table {
            list: at + 24,
            guard: number(0)?,
            colour_step: number(1)?,
            colours: number(2)?,
            block_size: number(3)?,
            coroutine_size: number(4)?,
            root_main: number(5)?,
            fields: (0..count).map(field).collect::<Option<_>>()?,
        })
    }

    /// Returns the field with this name.
    pub(crate) fn field(&self, name: &str) -> &Field {
        let found = self.fields.iter().find(|field| field.name == name);
        found.unwrap_or_else(|| unreachable!("a control block has no field {name}"))
    }

    /// Returns the value of a field of at most a word.
    pub(crate) fn value(&self, memory: &Memory, block: u64, name: &str) -> u64 {
        let field = self.field(name);
        let bytes = memory.read(block + field.offset, field.size.min(WORD) as usize).unwrap_or_default();
        bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Returns the name of the state of the fiber with this control block.
    pub(crate) fn state(&self, memory: &Memory, block: u64) -> &'static str {
        state_name(self.value(memory, block, "state"))
    }

    /// Returns the values of all records of this kind.
    fn records(&self, memory: &Memory, kind: u64) -> Vec<[u64; 4]> {
        let (mut found, mut record) = (Vec::new(), memory.word(self.list).unwrap_or_default());
        while record != 0 {
            let word = |index: u64| memory.word(record + WORD * index).unwrap_or_default();
            if word(1) == kind {
                found.push([word(2), word(3), word(4), word(5)]);
            }
            record = word(0);
        }
        found
    }

    /// Returns the root of the calling OS thread: where it lies, and its number.
    fn own_root(&self, memory: &Memory) -> Option<[u64; 2]> {
        let thread = nix::unistd::gettid().as_raw() as u64;
        let roots = self.records(memory, ROOT).into_iter();
        roots.filter(|[.., of, _]| *of == thread).map(|[root, number, ..]| [root, number]).next()
    }

    /// Returns where the root of the calling OS thread lies, and main's control block.
    pub(crate) fn root(&self, memory: &Memory) -> Option<(u64, u64)> {
        let [root, _] = self.own_root(memory)?;
        Some((root, memory.word(root + self.root_main)?))
    }

    /// Returns the fibers of the calling OS thread, without main, by id.
    pub(crate) fn fibers(&self, memory: &Memory) -> BTreeMap<u64, Fiber> {
        let mut found = BTreeMap::new();
        let Some([_, number]) = self.own_root(memory) else { return found };
        let own = self.records(memory, CHUNK).into_iter().filter(|[_, root, ..]| *root == number);
        for (start, shift, index) in own.flat_map(|[start, _, shift, used]| (0..used).map(move |i| (start, shift, i))) {
            let low = start + (index << shift);
            let end = low + (1 << shift);
            let block = end - index % self.colours * self.colour_step - self.block_size;
            if !["UNUSED", "POOLED"].contains(&self.state(memory, block)) {
                found.insert(self.value(memory, block, "id"), self.at(memory, low, end, block));
            }
        }
        found
    }

    /// Returns the fiber with this control block.
    fn at(&self, memory: &Memory, low: u64, end: u64, block: u64) -> Fiber {
        let coroutine = block + self.field("coroutine").offset;
        let words = (0..self.coroutine_size / WORD).filter_map(|index| memory.word(coroutine + WORD * index));
        // Of the words of the coroutine that lie on its stack, the lower one is the saved stack pointer, the higher one
        // what it began with. The other words are the stack itself, and what drops the closure of one that never began.
        let mut inside: Vec<u64> = words.filter(|word| (low + self.guard..block + 16).contains(word)).collect();
        inside.sort_unstable();
        let (sp, initial) = match inside[..] {
            [sp, initial] => (Some(sp), Some(initial)),
            [initial] => (None, Some(initial)),
            _ => (None, None),
        };
        // One that has not begun has not noted yet how far below the block its stack begins: a large payload lies
        // between the two, and a small one inside the block.
        let link = match self.value(memory, block, "payload") {
            _ if sp != initial => block - 16 * self.value(memory, block, "link_below"),
            payload => payload.min(block + 16) - 16,
        };
        Fiber { low, end, block, link, base: link + 16, sp, initial }
    }
}
