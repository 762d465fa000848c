//! The dynamic linker's list of modules with thread-locals: whether a module came or went since a given moment.
//!
//! ```text
//!   _rtld_global --> | len | next | slot 0 | slot 1 | slot 2 | .. |      a slot: generation, module (or null)
//!                            |
//!                            +--> | len | next | slot len | .. |
//! ```
//!
//! A module that is loaded takes the lowest slot that is free; one that is closed leaves its slot null with a new
//! generation. The elements of the list are never moved or freed (`elf/dl-tls.c`), which is what lets `__tls_get_addr`
//! read them without a lock, and this file as well. So nothing came or went while the slots up to the last one in use,
//! and the first one behind that, are what they were.
//!
//! * Invariant tls-modules-1: the address of a slot that was seen stays readable for ever. Upheld by the dynamic
//!   linker.

#![allow(unsafe_code)]

use super::memory::read;
use super::symbols::Library;
use super::unsupported::Unsupported;

/// Where the list begins, and where the fields of its elements are.
#[derive(Debug)]
pub(super) struct Table {
    /// The address of the pointer to the first element.
    head: usize,
    len: usize,
    next: usize,
    slots: usize,
    slot_size: usize,
    generation: usize,
    module: usize,
}

/// One slot as it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot {
    address: usize,
    generation: usize,
    module: usize,
}

/// The slots in use and the first free one, as they were.
#[derive(Debug)]
pub(super) struct Stamp {
    slots: Vec<Slot>,
    generation: usize,
    module: usize,
    /// If the last element of the list was full: the address of its `next`, which was null.
    end: Option<usize>,
}

impl Table {
    /// Asks the C library where the list begins, and what an element of it looks like.
    pub(super) fn find(library: Library) -> Result<Self, Unsupported> {
        let global = library.variable(c"_rtld_global")?;
        let slots = c"_thread_db_dtv_slotinfo_list_slotinfo";
        let slot_size = library.constant(c"_thread_db_sizeof_dtv_slotinfo")?;
        let array = library.descriptor(slots)?;
        if array.bits as usize != slot_size * 8 {
            return Err(Unsupported::Descriptor(super::symbols::text(slots)));
        }
        Ok(Self {
            head: global + library.word(c"_thread_db_rtld_global__dl_tls_dtv_slotinfo_list")?,
            len: library.word(c"_thread_db_dtv_slotinfo_list_len")?,
            next: library.word(c"_thread_db_dtv_slotinfo_list_next")?,
            slots: array.offset,
            slot_size,
            generation: library.word(c"_thread_db_dtv_slotinfo_gen")?,
            module: library.word(c"_thread_db_dtv_slotinfo_map")?,
        })
    }

    /// Returns the slots as they are now.
    pub(super) fn stamp(&self) -> Stamp {
        let mut slots = Vec::new();
        // SAFETY: Invariant tls-modules-1: the list has an element since the program was started.
        let mut element: usize = unsafe { read(self.head) };
        let mut next = 0;
        while element != 0 {
            // SAFETY: Invariant tls-modules-1.
            let len: usize = unsafe { read(element + self.len) };
            for index in 0..len {
                let address = element + self.slots + index * self.slot_size;
                // SAFETY: Invariant tls-modules-1: `index` is below the length of the element.
                let generation = unsafe { read(address + self.generation) };
                // SAFETY: the same.
                let module = unsafe { read(address + self.module) };
                slots.push(Slot { address, generation, module });
            }
            next = element + self.next;
            // SAFETY: Invariant tls-modules-1.
            element = unsafe { read(next) };
        }
        // Slot 0 is never a module: the numbers of modules begin at 1.
        let used = slots.iter().rposition(|slot| slot.module != 0).unwrap_or(0);
        let full = used + 1 == slots.len();
        slots.truncate(used + 2);
        Stamp { slots, generation: self.generation, module: self.module, end: full.then_some(next) }
    }
}

impl Stamp {
    /// Reports whether the slots are still what they were: no module with thread-locals came or went.
    #[inline]
    pub(super) fn holds(&self) -> bool {
        // SAFETY: Invariant tls-modules-1.
        let grown = |next: usize| unsafe { read::<usize>(next) } != 0;
        let same = |slot: &Slot| {
            // SAFETY: Invariant tls-modules-1.
            let generation: usize = unsafe { read(slot.address + self.generation) };
            // SAFETY: the same.
            let module: usize = unsafe { read(slot.address + self.module) };
            generation == slot.generation && module == slot.module
        };
        self.slots.iter().all(same) && !self.end.is_some_and(grown)
    }

    /// Returns the numbers of the modules that there were.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().enumerate().skip(1).filter(|(_, slot)| slot.module != 0).map(|(number, _)| number)
    }

    /// Reports whether module `number` is the one that `other` had under this number.
    pub(super) fn shares(&self, other: &Self, number: usize) -> bool {
        self.slots.get(number) == other.slots.get(number)
    }
}
