//! The file of this program: symbols, lines, and how to unwind each of its functions.
//!
//! Addresses of the process and of the file differ by a distance, where the program was loaded. All functions here take
//! those of the process.
#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;

use addr2line::gimli::{
    BaseAddresses, Dwarf, EhFrame, EhFrameHdr, EndianSlice, FrameDescriptionEntry, LittleEndian, ParsedEhFrameHdr,
    SectionId, UnwindSection,
};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// The bytes of a section.
pub(crate) type Bytes = EndianSlice<'static, LittleEndian>;

/// The file of this program.
pub(crate) struct Program {
    /// Where the file is loaded: an address of the process less the same of the file.
    pub(crate) distance: u64,
    /// Functions and statics: address of the file, size, name; by address.
    symbols: Vec<(u64, u64, String)>,
    /// Where the file has its functions.
    code: Range<u64>,
    /// What finds functions and lines by the DWARF sections of the file.
    lines: addr2line::Context<Bytes>,
    /// Where in `frames` which function is, for a binary search.
    index: ParsedEhFrameHdr<Bytes>,
    /// The tables by which a panic unwinds each function.
    pub(crate) frames: EhFrame<Bytes>,
    /// Where the sections lie that `frames` refers to.
    pub(crate) bases: BaseAddresses,
    /// This file's part of the process.
    own: Vec<(u64, u64)>,
}

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The name of the function, shortened.
    pub(crate) function: String,
    /// The file, as the compiler was given it; empty if the program has no lines for this function.
    pub(crate) file: String,
    /// The number of the line.
    pub(crate) number: u32,
}

impl Place {
    /// Returns file and line, shortened.
    pub(crate) fn line(&self) -> String {
        if self.file.is_empty() {
            return "assembly".to_owned();
        }
        format!("{}:{}", shorter_path(&self.file), self.number)
    }
}

/// Makes an error of what is missing.
fn missing(what: &str) -> io::Error {
    io::Error::other(format!("this program has no {what}"))
}

impl Program {
    /// Reads the file.
    ///
    /// # Errors
    /// If the file cannot be read, or is stripped.
    pub(crate) fn load() -> io::Result<Program> {
        let path = std::env::current_exe()?;
        // For as long as the program runs: all that is read from the file points into it.
        let file: &'static [u8] = std::fs::read(&path)?.leak();
        let file = object::File::parse(file).map_err(io::Error::other)?;
        let section = |name: &str| -> Bytes {
            let data = file.section_by_name(name).and_then(|section| section.data().ok());
            EndianSlice::new(data.unwrap_or(&[]), LittleEndian)
        };
        let dwarf = Dwarf::load(|id: SectionId| Ok::<_, addr2line::gimli::Error>(section(id.name())));
        let lines = dwarf.and_then(addr2line::Context::from_dwarf).map_err(io::Error::other)?;
        let code = file.section_by_name(".text").ok_or_else(|| missing("code"))?;
        let code = code.address()..code.address() + code.size();
        let start = |name| file.section_by_name(name).map_or(0, |section| section.address());
        let bases = BaseAddresses::default().set_eh_frame(start(".eh_frame")).set_text(start(".text"));
        let bases = bases.set_eh_frame_hdr(start(".eh_frame_hdr"));
        let index = EhFrameHdr::from(section(".eh_frame_hdr")).parse(&bases, 8);
        let index = index.map_err(|_| missing("index of unwind tables"))?;
        let frames = EhFrame::from(section(".eh_frame"));
        let is_named = |kind| matches!(kind, SymbolKind::Text | SymbolKind::Data | SymbolKind::Unknown);
        let mut symbols: Vec<(u64, u64, String)> = file
            .symbols()
            .filter(|symbol| symbol.address() != 0 && is_named(symbol.kind()))
            .filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?.to_owned())))
            // On aarch64 `$x` and `$d` say where code and where data begins, and name nothing.
            .filter(|(_, _, name)| !name.starts_with('$'))
            .collect();
        symbols.sort();
        if symbols.is_empty() {
            return Err(missing("symbols: it was stripped"));
        }
        let mappings = mappings()?.into_iter().filter(|(.., name)| *name == path.to_string_lossy());
        let own: Vec<(u64, u64, u64)> = mappings.map(|(from, end, offset, _)| (from, end, offset)).collect();
        let distance = own.first().map(|(from, _, offset)| from.wrapping_sub(*offset));
        // A program that is loaded where it says has the addresses of the process in its file.
        let base = file.relative_address_base();
        let distance = distance.ok_or_else(|| missing("mapping"))?.wrapping_sub(base);
        let own = own.into_iter().map(|(from, end, _)| (from, end)).collect();
        Ok(Program { distance, symbols, code, lines, index, frames, bases, own })
    }

    /// Returns how to unwind the function that has the address `at` of the file.
    pub(crate) fn unwinding(&self, at: u64) -> Option<FrameDescriptionEntry<Bytes>> {
        let (frames, bases) = (&self.frames, &self.bases);
        self.index.table()?.fde_for_address(frames, bases, at, EhFrame::cie_from_offset).ok()
    }

    /// Returns the address in the process of the symbol of which the name has `part` in it.
    pub(crate) fn address_of(&self, part: &str) -> Option<u64> {
        let found = self.symbols.iter().find(|(_, _, name)| name.contains(part));
        found.map(|(address, ..)| address.wrapping_add(self.distance))
    }

    /// Returns the function that has `address`, shortened, and the distance from its start.
    pub(crate) fn symbol(&self, address: u64) -> Option<(String, u64)> {
        let at = self.file_address(address).filter(|at| self.code.contains(at))?;
        let before = self.symbols.partition_point(|(begin, ..)| *begin <= at);
        // Of several at one address, one with a size; assembly may have none.
        let near = self.symbols[..before].iter().rev().take(4);
        let found = near.into_iter().find(|(begin, size, _)| at - begin < (*size).max(1));
        let (begin, _, name) = found.or_else(|| self.symbols[..before].last())?;
        let name = addr2line::demangle_auto(name.into(), None);
        Some((short(&name), at - begin))
    }

    /// Returns the places of the instruction at `address`: the innermost inlined function first, last the function
    /// that its code is in.
    pub(crate) fn places(&self, address: u64) -> Vec<Place> {
        let Some(at) = self.file_address(address) else { return Vec::new() };
        let mut places = Vec::new();
        if let Ok(mut frames) = self.lines.find_frames(at).skip_all_loads() {
            while let Ok(Some(frame)) = frames.next() {
                let function = frame.function.as_ref().and_then(|function| function.demangle().ok());
                let location = frame.location.as_ref();
                let line = location.and_then(|location| Some((location.file?.to_owned(), location.line?)));
                let function = function.map(|name| short(&name));
                let function = function.or_else(|| Some(self.symbol(address)?.0));
                let (file, number) = line.unwrap_or_default();
                places.push(Place { function: function.unwrap_or_default(), file, number });
            }
        }
        if places.is_empty() {
            let name = self.symbol(address).map(|(name, _)| name);
            places.extend(name.map(|function| Place { function, file: String::new(), number: 0 }));
        }
        places
    }

    /// Returns the address in the file of one in the process; none if it is of no instruction and no data of the file.
    pub(crate) fn file_address(&self, address: u64) -> Option<u64> {
        let is_own = self.own.iter().any(|(from, end)| (*from..*end).contains(&address));
        is_own.then(|| address.wrapping_sub(self.distance))
    }
}

/// Takes a line of `/proc/self/maps` apart: first address, end, offset in the file, name.
fn mapping(line: &str) -> Option<(u64, u64, u64, String)> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut words = line.split_ascii_whitespace();
    let (from, end) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let name = words.skip(2).collect::<Vec<_>>().join(" ");
    Some((number(from)?, number(end)?, number(offset)?, name))
}

/// Returns what lies where in the process: first address, end, offset in a file, name.
fn mappings() -> io::Result<Vec<(u64, u64, u64, String)>> {
    Ok(std::fs::read_to_string("/proc/self/maps")?.lines().filter_map(mapping).collect())
}

/// Returns what lies at `address` outside of the program's file and of any stack of a fiber, in a word or two.
pub(crate) fn region(address: u64) -> Option<&'static str> {
    let mappings = mappings().ok()?;
    let (.., name) = mappings.iter().find(|(from, end, ..)| (*from..*end).contains(&address))?;
    Some(match &name[..] {
        "[heap]" => "on the heap",
        "[stack]" => "on main's stack",
        name if name.starts_with('/') => "in a library",
        _ => "in other memory",
    })
}

/// The most characters of a name of a function.
const NAME: usize = 40;

/// Shortens a name of a function: no types in angle brackets, and of the path as much of its end as there is room for.
pub(crate) fn short(name: &str) -> String {
    let mut depth = 0_usize;
    let mut plain = String::new();
    let mut before = ' ';
    for letter in name.chars() {
        match letter {
            // `<T as Trait>::f` is left out as well, but for the name of the function.
            '<' => depth += 1,
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
        before = letter;
    }
    let mut words: Vec<&str> = plain.split("::").filter(|word| !word.is_empty()).collect();
    // The hash of the older scheme of names.
    if words.last().is_some_and(|word| word.len() == 17 && word.starts_with('h')) {
        words.pop();
    }
    let mut length = 0;
    let kept = words.iter().rev().take_while(|word| {
        length += word.len() + 2;
        length <= NAME
    });
    let from = words.len() - kept.count().max(1).min(words.len());
    words[from..].join("::")
}

/// Returns the folder of the repository. These lines are also part of a package inside of it.
pub(crate) fn repository() -> &'static str {
    let package = env!("CARGO_MANIFEST_DIR");
    package.strip_suffix("/tools/anatomy").unwrap_or(package)
}

/// Shortens the path of a file: of this repository from its root on, of another crate from its own folder on.
fn shorter_path(path: &str) -> String {
    let inner = path.strip_prefix(repository()).and_then(|inner| inner.strip_prefix('/'));
    if let Some(inner) = inner {
        return inner.to_owned();
    }
    let from = path.rfind("/src/").and_then(|src| path[..src].rfind('/')).map_or(0, |slash| slash + 1);
    path[from..].to_owned()
}
