//! You will see what lies around the thread pointers of two OS threads: equal offsets, other addresses.
//!
//! ```text
//!   x86-64     room .. | libc.so.6 | the program | struct pthread      the thread pointer is the start of the struct
//!   aarch64    struct pthread | dtv's address | the program | libc.so.6 | .. room      it is the struct's end
//! ```
//!
//! What lies where in `struct pthread` is told by the descriptors that glibc exports for debuggers: size in bits,
//! number of elements, offset. Another C library has none; then the table has the modules only.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "thread_locals";

const HELP: &str = "\
What lies around the thread pointer of two OS threads.

usage: thread_locals
";

thread_local!(static MINE: Cell<u64> = const { Cell::new(0) });

/// One line of the table: offset from the thread pointer, size, what it is, and where it is or what it holds.
struct Row(Option<isize>, usize, String, String);

/// Returns the line for what lies at `address` in the thread with the thread pointer `tp`.
fn row(tp: usize, address: usize, size: usize, what: &str, holds: Option<String>) -> Row {
    let holds = holds.map_or(format!("{address:#x}"), |holds| format!("= {holds}"));
    Row(Some(address.wrapping_sub(tp).cast_signed()), size, what.to_owned(), holds)
}

/// The thread-locals of one loaded file: number, address in this thread (0: not there yet), size, name of the file.
struct Module(usize, usize, usize, String);

/// Returns the thread pointer of this OS thread.
fn thread_pointer() -> usize {
    let tp: usize;
    // SAFETY: one read; the first word at the thread pointer is its own address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) tp)
    };
    // SAFETY: one read of a register.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) tp)
    };
    tp
}

/// Adds the thread-locals of one file, if it has any, to the list behind `list`.
unsafe extern "C" fn add_module(info: *mut libc::dl_phdr_info, _size: usize, list: *mut c_void) -> c_int {
    // SAFETY: the C library passes a description that is whole during the call.
    let info = unsafe { &*info };
    // SAFETY: it passes on what `modules` gave to it, which nothing else uses meanwhile.
    let list = unsafe { &mut *list.cast::<Vec<Module>>() };
    // SAFETY: the headers of a loaded file stay mapped as long as the file is loaded.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    // SAFETY: the name is a C string.
    let path = unsafe { CStr::from_ptr(info.dlpi_name) }.to_string_lossy();
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("the program").to_owned();
    if let Some(tls) = headers.iter().find(|header| header.p_type == libc::PT_TLS) {
        list.push(Module(info.dlpi_tls_modid, info.dlpi_tls_data as usize, tls.p_memsz as usize, name));
    }
    0
}

/// Returns the loaded files with thread-locals, in the order of their numbers.
fn modules() -> Vec<Module> {
    let mut list: Vec<Module> = Vec::new();
    // SAFETY: `add_module` takes the list as what it is.
    unsafe { libc::dl_iterate_phdr(Some(add_module), (&raw mut list).cast()) };
    list.sort_by_key(|module| module.0);
    list
}

/// Returns a number of 32 bits that the C library exports, or the one `at` places after it.
fn exported(symbol: &CStr, at: usize) -> Option<usize> {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) }.cast::<u32>();
    // SAFETY: the symbols asked for are constants: numbers, and arrays of three numbers.
    (!found.is_null()).then(|| unsafe { found.wrapping_add(at).read() } as usize)
}

/// Returns the word at `address`, which must be mapped.
unsafe fn word(address: usize) -> usize {
    // SAFETY: the caller vouches for the address.
    unsafe { (address as *const usize).read_volatile() }
}

/// Adds what glibc keeps of this thread: `struct pthread`, and the dtv, which has an entry for each module.
fn add_thread(rows: &mut Vec<Row>, tp: usize, modules: &[Module]) -> Option<()> {
    let size = exported(c"_thread_db_sizeof_pthread", 0)?;
    let dtv_at = exported(c"_thread_db_pthread_dtvp", 2)?;
    let tid_at = exported(c"_thread_db_pthread_tid", 2)?;
    let start = if cfg!(target_arch = "aarch64") { tp - size } else { tp };
    // SAFETY: the word lies in the structure, or right behind it.
    let dtv = unsafe { word(start + dtv_at) };
    // SAFETY: this one lies in the structure.
    let tid = unsafe { word(start + tid_at) } as u32;
    rows.push(row(tp, start, size, "struct pthread", None));
    rows.push(row(tp, start + dtv_at, 8, "  address of the dtv", Some(format!("{dtv:#x}"))));
    rows.push(row(tp, start + tid_at, 4, "  the kernel's thread id", Some(tid.to_string())));
    let entry = exported(c"_thread_db_dtv_dtv", 0)? / 8;
    for Module(number, _, _, name) in modules {
        // SAFETY: a thread's dtv has entries for the modules that were there when the thread began.
        let value = unsafe { word(dtv + number * entry) };
        rows.push(Row(None, entry, format!("dtv[{number}], {name}"), format!("= {value:#x}")));
    }
    Some(())
}

/// Returns the table for the calling OS thread, after it has set its own thread-locals.
fn walk(mine: u64, no_such_file: &str) -> Vec<Row> {
    MINE.set(mine);
    assert!(std::fs::File::open(no_such_file).is_err());
    // SAFETY: it returns an address.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: this thread's errno, which lives as long as the thread.
    let value = unsafe { errno.read() };
    let (tp, local, modules) = (thread_pointer(), 0_u8, modules());
    let present = modules.iter().filter(|module| module.1 != 0);
    let mut rows: Vec<Row> = present.map(|Module(_, at, size, name)| row(tp, *at, *size, name, None)).collect();
    rows.push(row(tp, errno as usize, 4, "  errno", Some(value.to_string())));
    rows.push(row(tp, MINE.with(Cell::as_ptr) as usize, 8, "  MINE", Some(MINE.get().to_string())));
    let _ = add_thread(&mut rows, tp, &modules);
    rows.sort_by_key(|row| (row.0.is_none(), row.0));
    let head = [("the thread pointer", 8, tp), ("a byte on the stack", 1, (&raw const local) as usize)];
    rows.splice(..0, head.map(|(what, size, address)| Row(None, size, what.to_owned(), format!("{address:#x}"))));
    rows
}

fn main() {
    cli::no_arguments(NAME, HELP);
    let here = walk(1, "/nowhere");
    let there = std::thread::spawn(|| walk(2, "/dev/null/below")).join().expect("it does not panic");
    cli::say(NAME, format_args!("{:>8} {:>5}  {:<27} {:<16} {}", "offset", "size", "what", "in main", "in another"));
    for (here, there) in here.iter().zip(&there) {
        assert_eq!((here.0, &here.2), (there.0, &there.2), "the same things at the same offsets");
        let offset = here.0.map_or(String::new(), |offset| format!("{offset:+}"));
        cli::say(NAME, format_args!("{offset:>8} {:>5}  {:<27} {:<16} {}", here.1, here.2, here.3, there.3));
    }
}

// Chapter 17 of docs/book shows a run and says what is seen in it.
