//! Names of the functions that addresses of this process lie in, for reports: from the symbol table of the program's
//! file, and from the dynamic linker for shared libraries. Where this crate is part of a shared library, a Python
//! extension say, that library is meant by the program.
//!
//! ```text
//!   address --> dladdr: which file, loaded where?
//!                 the program  --> its file: .symtab, .strtab --> demangle --> server::handle
//!                 a library    --> its exported symbol               ------------->  read (libc.so.6)
//!                 no symbol    ------------------------------------------------->    server+0x1b2c4
//! ```
//!
//! There are no lines and no inlined calls, which would take a reader of DWARF: the report shows the addresses for
//! `addr2line` as well. A stripped program has addresses only.
//!
//! Invariant symbols-1: what `dladdr` stores are strings of loaded files, which stay while they are read here: the
//! program and the C library are never unloaded, and what a stack returns to must not be either.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The largest table that is read, in bytes: programs have tables of a few megabytes.
const MOST_BYTES: u64 = 256 << 20;

/// A function of the program: its address in the file, its size, and where its name begins.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    size: u64,
    name: usize,
}

/// The functions of the program.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    /// The functions, by address.
    symbols: Vec<Symbol>,
    /// Their names, each with a zero at its end.
    names: Vec<u8>,
    /// Whether addresses in the file are those of the process.
    fixed: bool,
}

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The function, if its name is known.
    pub(crate) function: Option<String>,
    /// The name of the file, without its folder.
    pub(crate) file: String,
    /// The address in the file.
    pub(crate) offset: u64,
    /// Whether the file is the program, or the shared library that this crate is part of.
    pub(crate) program: bool,
}

impl Symbols {
    /// Reads the table of the program; an empty one if there is none.
    pub(crate) fn of_program() -> Symbols {
        let file = file_with(program_base as *const ()).and_then(|path| File::open(path).ok());
        file.and_then(|file| read_symbols(&file)).unwrap_or_default()
    }

    /// Returns the name of the function at `offset` of the file.
    fn name(&self, offset: u64) -> Option<String> {
        let at = self.symbols.partition_point(|symbol| symbol.address <= offset).checked_sub(1)?;
        let symbol = self.symbols[at];
        let name = CStr::from_bytes_until_nul(self.names.get(symbol.name..)?).ok()?.to_str().ok()?;
        (offset - symbol.address < symbol.size.max(1)).then(|| demangle(name))
    }

    /// Returns what is known of `address`; none if no loaded file has it.
    pub(crate) fn place(&self, address: usize) -> Option<Place> {
        let info = object_at(std::ptr::without_provenance(address))?;
        let file = string(info.dli_fname)?;
        let base = info.dli_fbase.addr();
        let program = base == program_base();
        let offset = if program && self.fixed { address } else { address.wrapping_sub(base) } as u64;
        let function = if program { self.name(offset) } else { string(info.dli_sname) };
        let file = Path::new(&file).file_name().map_or(file.clone(), |name| name.to_string_lossy().into_owned());
        Some(Place { function, file, offset, program })
    }
}

/// Returns a copy of a string of the dynamic linker; none for null.
fn string(at: *const c_char) -> Option<String> {
    if at.is_null() {
        return None;
    }
    // SAFETY: Invariant symbols-1.
    Some(unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned())
}

/// Returns what the dynamic linker knows of the loaded file with this address; none if no file has it.
fn object_at(address: *const ()) -> Option<libc::Dl_info> {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: the function takes any address and fills the struct if it returns another number than 0 (dladdr(3)).
    if unsafe { libc::dladdr(address.cast::<c_void>(), info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: filled by the call.
    Some(unsafe { info.assume_init() })
}

/// Returns where the file is loaded that this function is in: the program as a rule, and else the shared library that
/// this crate is part of.
fn program_base() -> usize {
    object_at(program_base as *const ()).map_or(0, |info| info.dli_fbase.addr())
}

/// Returns the path of the loaded file with this address.
fn file_with(address: *const ()) -> Option<PathBuf> {
    let info = object_at(address)?;
    // The kernel says where the headers of the executable are. Of that file the linker knows the first argument of the
    // process, which may be anything.
    // SAFETY: getauxval takes no pointer (getauxval(3)).
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    let executable = object_at(std::ptr::without_provenance(headers as usize));
    if executable.is_none_or(|executable| executable.dli_fbase == info.dli_fbase) {
        return Some(PathBuf::from("/proc/self/exe"));
    }
    string(info.dli_fname).map(PathBuf::from)
}

/// Returns `N` bytes of `bytes` from `at` on.
fn bytes<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Reads `len` bytes of `file` from `at` on.
fn read_at(file: &File, at: u64, len: u64) -> Option<Vec<u8>> {
    if len > MOST_BYTES {
        return None;
    }
    let mut buffer = vec![0; len as usize];
    file.read_exact_at(&mut buffer, at).ok()?;
    Some(buffer)
}

/// Reads the table of functions of an ELF file of 64 bits (elf(5)); none if it has none.
fn read_symbols(file: &File) -> Option<Symbols> {
    /// The type of a section with the symbols of a linker.
    const SYMTAB: u32 = 2;
    /// The type of a file that is loaded where it says.
    const EXEC: u16 = 2;
    /// The type of a symbol that is a function.
    const FUNCTION: u8 = 2;
    let header = read_at(file, 0, 64)?;
    let number = |bytes_: &[u8], at| bytes(bytes_, at).map(u64::from_le_bytes);
    let half = |bytes_: &[u8], at| bytes(bytes_, at).map(u16::from_le_bytes);
    let word = |bytes_: &[u8], at| bytes(bytes_, at).map(u32::from_le_bytes);
    if header.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let (start, each, count) = (number(&header, 40)?, half(&header, 58)? as usize, half(&header, 60)? as usize);
    let sections = read_at(file, start, (each * count) as u64)?;
    let section = |index: usize| sections.get(index * each..(index + 1) * each);
    let table = (0..count).filter_map(section).find(|section| word(section, 4) == Some(SYMTAB))?;
    let names = section(word(table, 40)? as usize)?;
    let names = read_at(file, number(names, 24)?, number(names, 32)?)?;
    let table = read_at(file, number(table, 24)?, number(table, 32)?)?;
    let symbol = |entry: &[u8]| {
        let (address, size) = (number(entry, 8)?, number(entry, 16)?);
        let is_function = entry[4] & 15 == FUNCTION && address != 0;
        is_function.then_some(Symbol { address, size, name: word(entry, 0)? as usize })
    };
    let mut symbols: Vec<Symbol> = table.chunks_exact(24).filter_map(symbol).collect();
    symbols.sort_unstable_by_key(|symbol| symbol.address);
    Some(Symbols { symbols, names, fixed: half(&header, 16)? == EXEC })
}

/// Returns a name as it stands in the source, for the names of Rust's older scheme; the words of a name of the newer
/// one (v0), in their order; others as they are.
fn demangle(name: &str) -> String {
    parts(name).or_else(|| words(name)).unwrap_or_else(|| name.to_owned())
}

/// Returns the words of a name of the newer scheme. What lies between them, types and references to earlier parts, is
/// left out: enough to find the function.
fn words(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix("_R")?;
    let mut words: Vec<&str> = Vec::new();
    while let Some(first) = rest.chars().next() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let skipped = match first {
            _ if digits > 0 => {
                // A length, an underscore if the word begins with a digit or one, and so many bytes.
                let len: usize = rest[..digits].parse().ok()?;
                let begin = digits + usize::from(rest[digits..].starts_with('_'));
                words.extend(rest.get(begin..begin + len).filter(|word| !word.is_empty()));
                begin + len
            }
            // Numbers of base 62, up to an underscore.
            's' | 'B' => rest.find('_')? + 1,
            'N' => 2,
            _ => first.len_utf8(),
        };
        rest = rest.get(skipped..)?;
    }
    (!words.is_empty()).then(|| words.join("::"))
}

/// Does the work of [`demangle`]; none if the name is not of that scheme.
fn parts(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix("_ZN")?;
    let mut text = String::new();
    while !rest.starts_with('E') {
        // A length and so many bytes.
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let len: usize = rest[..digits].parse().ok()?;
        let part = rest.get(digits..digits + len)?;
        rest = rest.get(digits + len..)?;
        let is_hash = rest.starts_with('E') && len == 17 && part.starts_with('h');
        if !is_hash {
            if !text.is_empty() {
                text.push_str("::");
            }
            text.push_str(&unescaped(part));
        }
    }
    Some(text)
}

/// Returns a part of a name without the escapes of that scheme.
fn unescaped(part: &str) -> String {
    let escapes =
        [("$LT$", "<"), ("$GT$", ">"), ("$u20$", " "), ("$u7b$", "{"), ("$u7d$", "}"), ("$C$", ","), ("$RF$", "&")];
    let more =
        [("$LP$", "("), ("$RP$", ")"), ("$BP$", "*"), ("$u5b$", "["), ("$u5d$", "]"), ("$u27$", "'"), ("..", "::")];
    let part = if part.starts_with("_$") { &part[1..] } else { part };
    escapes.iter().chain(&more).fold(part.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_older_scheme_become_readable_and_others_stay() {
        let name = "_ZN6server6handle28_$u7b$$u7b$closure$u7d$$u7d$17h97655b005894ba69E";
        assert_eq!(demangle(name), "server::handle::{{closure}}");
        let name = "_ZN42_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE";
        assert_eq!(demangle(name), "<&T as core::fmt::Debug>::fmt");
        for name in ["main", "_ZN", "_ZN5", "_ZN9short", "_ZNxE", "_R", "memcpy"] {
            assert_eq!(demangle(name), name);
        }
    }

    #[test]
    fn the_words_of_a_name_of_the_newer_scheme_are_found() {
        let name = "_RNvMNtNtNtNtCsjrHSEGnQ3l9_3std3sys4sync7condvar5futexNtB2_7Condvar21wait_optional_timeout";
        assert_eq!(demangle(name), "std::sys::sync::condvar::futex::Condvar::wait_optional_timeout");
        assert_eq!(demangle("_RNvC6server4main"), "server::main");
        assert_eq!(demangle("_RNvC6server99main"), "_RNvC6server99main");
    }

    #[test]
    fn the_table_is_that_of_the_file_with_the_address_and_not_always_the_executables() {
        assert_eq!(file_with(file_with as *const ()).expect("this program"), Path::new("/proc/self/exe"));
        let library = file_with(libc::getpid as *const ()).expect("the C library");
        if object_at(libc::getpid as *const ()).is_some_and(|info| info.dli_fbase.addr() != program_base()) {
            assert!(library.is_absolute() && library.to_string_lossy().contains("libc"), "{library:?}");
        }
        assert_eq!(file_with(std::ptr::without_provenance(8)), None);
    }

    #[test]
    fn a_function_of_the_program_and_one_of_the_c_library_have_names() {
        let symbols = Symbols::of_program();
        let place = symbols.place(Symbols::of_program as *const () as usize + 1).expect("a loaded file");
        assert!(place.program, "{place:?}");
        // A stripped program has none.
        if let Some(name) = place.function {
            assert!(name.contains("of_program"), "{name}");
        }
        assert_eq!(symbols.place(8), None);
    }
}
