//! What the C library exports for debuggers and sanitizers: addresses of its functions, and where its fields are.
//!
//! `libthread_db`, by which gdb finds threads, reads fields of a C library that it was not compiled with. For that the
//! library exports a descriptor for each field, `_thread_db_STRUCT_FIELD`: three 32-bit numbers, the size of an element
//! in bits, the number of elements, and the offset in bytes (`nptl_db/thread_dbP.h`). They are what is relied on here;
//! there are no offsets in the code.
//!
//! * Invariant tls-symbols-1: an address comes from `dlsym` on the handle of the C library itself, which is never
//!   closed; a field has the size that the code reads or writes. Upheld by [`Library`].

#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use super::memory;
use super::unsupported::Unsupported;

/// The bits of a word.
const WORD: u32 = usize::BITS;

/// The C library of the process and what it depends on, the dynamic linker. Its own functions, even where the program
/// or a sanitizer has others of the same names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Library(NonNull<c_void>);

/// What a descriptor says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    /// The bits of one element.
    pub(super) bits: u32,
    /// How many elements there are.
    pub(super) elements: u32,
    /// The offset of the first, in bytes.
    pub(super) offset: usize,
}

impl Library {
    /// Returns the C library.
    pub(super) fn open() -> Result<Self, Unsupported> {
        // SAFETY: a name that is a C string; with RTLD_NOLOAD nothing is loaded and no foreign code runs (dlopen(3)).
        let handle = unsafe { libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        NonNull::new(handle).map(Self).ok_or(Unsupported::NoLibrary)
    }

    /// Returns the address of an exported function or variable.
    pub(super) fn address(self, name: &'static CStr) -> Result<NonNull<c_void>, Unsupported> {
        // SAFETY: Invariant tls-symbols-1: the handle is open, and the name is a C string (dlsym(3)).
        let address = unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) };
        NonNull::new(address).ok_or(Unsupported::Symbol(text(name)))
    }

    /// Returns the address of an exported variable, as a number.
    pub(super) fn variable(self, name: &'static CStr) -> Result<usize, Unsupported> {
        Ok(self.address(name)?.as_ptr().expose_provenance())
    }

    /// Returns the value of an exported 32-bit constant.
    pub(super) fn constant(self, name: &'static CStr) -> Result<usize, Unsupported> {
        let address = self.variable(name)?;
        // SAFETY: Invariant tls-symbols-1: the library's sizes are constants of type uint32_t (nptl_db/db_info.c).
        let value: u32 = unsafe { memory::read(address) };
        Ok(value as usize)
    }

    /// Returns what the descriptor `name` says.
    pub(super) fn descriptor(self, name: &'static CStr) -> Result<Descriptor, Unsupported> {
        let address = self.variable(name)?;
        // SAFETY: Invariant tls-symbols-1: a descriptor is an array of three uint32_t (nptl_db/thread_dbP.h).
        let [bits, elements, offset]: [u32; 3] = unsafe { memory::read(address) };
        Ok(Descriptor { bits, elements, offset: offset as usize })
    }

    /// Returns the offset of the one field `name`, of as many bits.
    pub(super) fn field(self, name: &'static CStr, bits: u32) -> Result<usize, Unsupported> {
        let found = self.descriptor(name)?;
        let aligned = found.offset.is_multiple_of(bits.min(WORD) as usize / 8);
        if found.bits != bits || found.elements != 1 || !aligned {
            return Err(Unsupported::Descriptor(text(name)));
        }
        Ok(found.offset)
    }

    /// Returns the offset of the field `name` that is one word.
    pub(super) fn word(self, name: &'static CStr) -> Result<usize, Unsupported> {
        self.field(name, WORD)
    }

    /// Returns the handle, for functions that take one.
    pub(super) fn handle(self) -> *mut c_void {
        self.0.as_ptr()
    }
}

/// Returns the name as text. The names here are ASCII.
pub(super) fn text(name: &'static CStr) -> &'static str {
    name.to_str().unwrap_or("a symbol")
}
