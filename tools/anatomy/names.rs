//! Names for addresses, so that the page of the next run is the same: distances from what is known to lie there.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::fibers::state_name;
use crate::program::{Program, region};
use crate::tracee::Places;
use crate::words::Xray;

/// How far from the stack pointer main's stack is looked at, in bytes.
const NEAR: u64 = 1 << 16;

/// The parts of memory that the page shows, each in a box of its own.
pub(crate) const BOXES: [&str; 5] =
    ["main's stack", "greenlet's stack", "main's control block", "greenlet's control block", "root"];

/// What names an address or a value.
pub(crate) struct Names<'a> {
    /// The program's own file, with symbols.
    pub(crate) program: &'a Program,
    /// The fields of a control block: offset, size, name.
    fields: Vec<(u64, u64, String)>,
    /// The addresses from which distances are counted.
    places: Places,
    /// Main's stack pointer at the beginning.
    start: u64,
    /// Other addresses, numbered in the order in which they came.
    others: HashMap<u64, usize>,
}

impl<'a> Names<'a> {
    /// Makes the names for a run that begins with main's stack pointer at `start`.
    pub(crate) fn new(xray: &'a Xray, places: Places, start: u64) -> Names<'a> {
        let fields = xray.table.fields.iter().map(|field| (field.offset, field.size, field.name.clone())).collect();
        Names { program: &xray.program, fields, places, start, others: HashMap::new() }
    }

    /// Returns the box in which `address` lies, by its index; none for memory that the page does not show.
    pub(crate) fn box_of(&self, address: u64) -> Option<usize> {
        let Places { low, base, block, main_block, root, root_size } = self.places;
        let is_in = |from: u64, len: u64| (from..from.saturating_add(len)).contains(&address);
        let block_size = self.fields.iter().map(|(offset, size, _)| offset + size).max().unwrap_or(0);
        match address {
            _ if (low..base).contains(&address) => Some(1),
            _ if is_in(self.start - NEAR, 2 * NEAR) => Some(0),
            _ if is_in(main_block, block_size) => Some(2),
            _ if is_in(block, block_size) => Some(3),
            _ if is_in(root, root_size) => Some(4),
            _ => None,
        }
    }

    /// Returns the fields of a control block that have a part in the word at `offset`.
    fn fields_in(&self, offset: u64) -> impl Iterator<Item = &(u64, u64, String)> {
        self.fields.iter().filter(move |(from, size, _)| offset < from + size && *from < offset + 8)
    }

    /// Returns how the word at `address` is printed. One of a control block may be several fields.
    pub(crate) fn word(&mut self, address: u64, value: u64) -> String {
        let block = match self.box_of(address) {
            Some(2) => self.places.main_block,
            Some(3) => self.places.block,
            _ => return self.value(value),
        };
        let offset = address - block;
        let fields: Vec<(u64, u64, String)> = self.fields_in(offset).cloned().collect();
        if fields.len() < 2 {
            return self.value(value);
        }
        let values = fields.iter().map(|(from, size, name)| {
            let field = value >> (8 * (from - offset)) & (u64::MAX >> (64 - 8 * size));
            if name == "state" { state_name(field).to_owned() } else { field.to_string() }
        });
        values.collect::<Vec<_>>().join(", ")
    }

    /// Returns the name of an address in one of the boxes.
    pub(crate) fn place(&self, address: u64) -> Option<String> {
        let in_block = |block: u64| {
            let offset = address - block;
            let names = self.fields_in(offset).map(|(from, _, name)| match offset.checked_sub(*from) {
                None | Some(0) => name.clone(),
                Some(inside) => format!("{name}+{inside}"),
            });
            names.collect::<Vec<_>>().join(", ")
        };
        let Places { base, block, main_block, root, .. } = self.places;
        Some(match self.box_of(address)? {
            0 if address >= self.start => format!("main+{:#x}", address - self.start),
            0 => format!("main-{:#x}", self.start - address),
            1 => format!("base-{:#x}", base - address),
            2 => format!("main.{}", in_block(main_block)),
            3 => format!("greenlet.{}", in_block(block)),
            _ => format!("root+{:#x}", address - root),
        })
    }

    /// Returns the name of a word in its box, of which the title says the rest.
    pub(crate) fn row(&self, address: u64) -> Option<String> {
        let place = self.place(address)?;
        Some(place.trim_start_matches("main.").trim_start_matches("greenlet.").to_owned())
    }

    /// Returns how a value is printed.
    pub(crate) fn value(&mut self, value: u64) -> String {
        if value == self.places.block {
            return "greenlet".to_owned();
        }
        if value == self.places.main_block {
            return "main".to_owned();
        }
        if value == self.places.root {
            return "root".to_owned();
        }
        if let Some(place) = self.place(value) {
            return place;
        }
        if let Some((name, distance)) = self.program.symbol(value) {
            return format!("{}+{distance:#x}", last_part(&name));
        }
        if let Some(offset) = self.program.file_address(value) {
            return format!("data+{offset:#x}");
        }
        if value & (u64::MAX >> 8) == self.places.base {
            return format!("base, {} << 56", value >> 56);
        }
        if region(value).is_some() || (1 << 40..1 << 47).contains(&value) {
            let next = self.others.len() + 1;
            return format!("address {}", self.others.entry(value).or_insert(next));
        }
        match value {
            0..4096 => value.to_string(),
            // Keys of hashes and the like, which are others in each run.
            _ if value >> 47 != 0 && value < u64::MAX << 32 => "a large number".to_owned(),
            _ => format!("{value:#x}"),
        }
    }
}

/// Returns the last part of a function's name that is a name.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit("::").find(|part| !part.starts_with('{')).unwrap_or(name)
}
