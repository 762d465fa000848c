//! What a debugger must know to find and show green threads: where which field lies, and what numbers mean.
//!
//! ```text
//!   symbol GREENLING_DEBUG          the list              memory of the program
//!   | Descriptor | list ---------> | Record: ROOT  -----> Root: main, TLS pointers
//!   |            | offsets         | Record: CHUNK -----> slots, each with a ControlBlock: id, name, state, reason ..
//!   |            | texts           ...
//! ```
//!
//! Most programs have no type information, only line tables, so a debugger reads raw memory, by the offsets that stand
//! here. glibc exports the like for the debugger's view of threads. `tools/gdb/greenling.py` is the reader. Its class
//! for the table has the fields of [`Descriptor`] in the same order, and refuses another version.
//!
//! The descriptor itself is in `root`, since only there the offsets within a root are known.
#![forbid(unsafe_code)]

use std::mem::{offset_of, size_of};

use super::control_block::{ControlBlock, Coro};
use super::debug_list::List;
use super::stack::{COLOUR_STEP, COLOURS, GUARD};

/// The version of the layout, to be raised at each change of `Descriptor`, of a record or of a text's place.
const VERSION: u32 = 2;

/// The words for each reason, by its number (`reason::Reason`). A word in braces stands for a value that the reason
/// has: `{i32}` 4 bytes after its start, `{held}` and `{foreign}` after 1 byte an index of the tables below; `{id}`,
/// `{str}`, `{hex}` after 8 bytes; `{holder}` there, too: the number of a root, and an id.
const REASONS: [&str; 16] = [
    "is parked, waiting for an unpark",
    "sleeps",
    "waits for the end of #{id}",
    "waits for the threads of its scope",
    "waits in a switch to #{id}",
    "waits until descriptor {i32} can be read",
    "waits until descriptor {i32} can be written",
    "waits for the lock of {str}",
    "waits {held} that #{id} has",
    "waits for a value from a channel",
    "waits for room in a channel",
    "waits for {str}",
    "waits for {str} on another OS thread",
    "waits for {str}",
    "waits {held} that hubs share, of {holder}",
    "waits for {foreign} at {hex}",
];

/// The words for what a thread holds while others wait (`reason::Held`).
const HELD: [&str; 4] = ["for a Mutex", "to read a RwLock", "to write a RwLock", "for a Once"];

/// The words for what a patched call waits for (`reason::Foreign`).
const FOREIGN: [&str; 8] = [
    "a lock or channel of std's, or one like it,",
    "the end of an OS thread",
    "a mutex of C",
    "a condition variable of C",
    "a read-write lock of C",
    "a semaphore of C",
    "a barrier of C",
    "the routine of a pthread_once",
];

/// Where the fields of a root lie.
#[repr(C)]
#[derive(Debug)]
pub(super) struct RootOffsets {
    /// The address of main's control block.
    pub(super) main: u32,
    /// The thread pointer that is loaded, 0 for the OS thread's.
    pub(super) loaded: u32,
    /// The OS thread's thread pointer, 0 if no other was made.
    pub(super) os_pointer: u32,
}

/// Where the fields of a control block lie.
#[repr(C)]
#[derive(Debug)]
struct BlockOffsets {
    /// The coroutine. Of its words that lie in the slot, above the guard, the lower one is the stack pointer of the
    /// suspended fiber, or both are equal, and the fiber has not started.
    coroutine: u32,
    /// The thread pointer of the fiber, 0 for the OS thread's.
    pointer: u32,
    /// The distance down to the parent link, in units of 16 bytes; two bytes.
    link_below: u32,
    /// The state, one byte.
    state: u32,
    /// The place of the spawn: a `&Location`.
    spawned_at: u32,
    /// The number in handles and reports, 8 bytes.
    id: u32,
    /// The name: address and length of an `Arc<str>`, address 0 for none.
    name: u32,
    /// Whether the fiber is a green thread, not a greenlet; one byte.
    green_thread: u32,
    /// The reason of the wait; one byte has its number.
    reason: u32,
    /// When the wait began, in monotonic nanoseconds.
    since: u32,
    /// The id of the greenlet that a SWITCHED fiber switched to.
    partner: u32,
}

/// A field of a control block, for a reader that shows the block whole.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Field {
    /// The name that the field has in `control_block.rs`.
    pub(super) name: &'static str,
    /// The distance from the start of the block, in bytes.
    pub(super) offset: u32,
    /// The size in bytes.
    pub(super) size: u32,
}

/// Returns the size of a field, for a function that reads it.
const fn size_of_field<T>(_: fn(&ControlBlock) -> &T) -> usize {
    size_of::<T>()
}

/// Makes a table of the fields of a control block.
macro_rules! fields {
    ($($(#[$when:meta])* $name:ident)*) => {
        &[$($(#[$when])* Field {
            name: stringify!($name),
            offset: offset_of!(ControlBlock, $name) as u32,
            size: size_of_field(|block| &block.$name) as u32,
        }),*]
    };
}

/// The fields of a control block, in the order of the source.
const FIELDS: &[Field] = fields! {
    top_of_stack coroutine block frames_below link_below pending state
    payload drop_payload spawned_at id joiners timed_out permit in_wheel killed owned payload_state green_thread borrows
    life shift colour small_payload shields no_switch cancelled linked named awaited io_credit
    reason since #[cfg(feature = "monkey")] frames_at wait_next wait_prev deadline timer_at
    timer scope_deadline mailbox partner mailbox_type greenlet awaiter name extras
};

/// All that a debugger must know.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Descriptor {
    /// What the memory must begin with.
    magic: [u8; 16],
    /// The version of all that follows.
    version: u32,
    /// The size of this descriptor, in bytes.
    size: u32,
    /// Where roots and stacks are found.
    list: List,
    /// The words for reasons.
    reasons: &'static [&'static str],
    /// The words for what is held.
    held: &'static [&'static str],
    /// The words for what patched calls wait for.
    foreign: &'static [&'static str],
    /// The bytes of guard at the start of each slot.
    guard: u32,
    /// The distance between two colours of slots.
    colour_step: u32,
    /// The number of colours.
    colours: u32,
    /// The size of a control block, which ends at the coloured top of a slot.
    block_size: u32,
    /// The size of the coroutine in a control block.
    coroutine_size: u32,
    /// Distances from the address in a ROOT record.
    root: RootOffsets,
    /// Distances from the start of a control block.
    block: BlockOffsets,
    /// All fields of a control block, in the order of the source.
    fields: &'static [Field],
}

impl Descriptor {
    /// Creates the descriptor with an empty list.
    pub(super) const fn new(root: RootOffsets) -> Descriptor {
        Descriptor {
            magic: *b"greenling debug\0",
            version: VERSION,
            size: size_of::<Descriptor>() as u32,
            list: List::new(),
            reasons: &REASONS,
            held: &HELD,
            foreign: &FOREIGN,
            guard: GUARD as u32,
            colour_step: COLOUR_STEP as u32,
            colours: COLOURS as u32,
            block_size: size_of::<ControlBlock>() as u32,
            coroutine_size: size_of::<Coro>() as u32,
            root,
            block: BlockOffsets {
                coroutine: offset_of!(ControlBlock, coroutine) as u32,
                pointer: offset_of!(ControlBlock, block) as u32,
                link_below: offset_of!(ControlBlock, link_below) as u32,
                state: offset_of!(ControlBlock, state) as u32,
                spawned_at: offset_of!(ControlBlock, spawned_at) as u32,
                id: offset_of!(ControlBlock, id) as u32,
                name: offset_of!(ControlBlock, name) as u32,
                green_thread: offset_of!(ControlBlock, green_thread) as u32,
                reason: offset_of!(ControlBlock, reason) as u32,
                since: offset_of!(ControlBlock, since) as u32,
                partner: offset_of!(ControlBlock, partner) as u32,
            },
            fields: FIELDS,
        }
    }

    /// Returns the list of roots and chunks.
    pub(super) fn list(&'static self) -> &'static List {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_field_of_a_control_block() {
        let mut fields: Vec<&Field> = FIELDS.iter().collect();
        fields.sort_by_key(|field| field.offset);
        let ends = fields.iter().map(|field| field.offset + field.size);
        let begins = fields.iter().map(|field| field.offset).chain([size_of::<ControlBlock>() as u32]);
        for (begin, end) in begins.zip([0].into_iter().chain(ends)) {
            // What lies between is padding: less than a word, before a whole word; at the end, less than the alignment
            // of the block.
            let padding = begin.checked_sub(end).expect("no two fields overlap");
            let is_last = begin as usize == size_of::<ControlBlock>();
            assert!(padding < if is_last { 64 } else { 8 }, "{begin}: {padding}");
            assert!(padding == 0 || begin.is_multiple_of(8), "{begin}: {padding}");
        }
    }
}
