//! Why this process can have no own thread-locals.

#![forbid(unsafe_code)]

use std::{fmt, io};

/// The first condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsupported {
    /// The program was built for another C library, or has the C library inside.
    #[cfg_attr(all(target_env = "gnu", not(target_feature = "crt-static")), allow(dead_code))]
    NotGlibc,
    /// The kernel does not tell that programs may write the FS base.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    NoFsgsbase,
    /// The C library is not among the loaded libraries, under its name.
    NoLibrary,
    /// The C library does not export this.
    Symbol(&'static str),
    /// The C library describes this field in a way that is not understood.
    Descriptor(&'static str),
    /// A fresh OS thread did not look as expected.
    Probe(&'static str),
    /// The test at the start found that this does not work.
    SelfTest(&'static str),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("own thread-locals are not supported: ")?;
        match self {
            Self::NotGlibc => f.write_str("they need the GNU C library as a shared library"),
            Self::NoFsgsbase => f.write_str(
                "the kernel does not offer FSGSBASE (AT_HWCAP2; Linux has it since 5.9, and Valgrind hides it)",
            ),
            Self::NoLibrary => f.write_str("no libc.so.6 is loaded"),
            Self::Symbol(name) => write!(f, "the C library does not export `{name}`"),
            Self::Descriptor(name) => write!(f, "the C library's descriptor `{name}` is not as expected"),
            Self::Probe(what) => write!(f, "a fresh OS thread is not as expected: {what}"),
            Self::SelfTest(step) => write!(f, "the self-test failed: {step}"),
        }
    }
}

impl std::error::Error for Unsupported {}

impl From<&Unsupported> for io::Error {
    fn from(reason: &Unsupported) -> Self {
        Self::new(io::ErrorKind::Unsupported, *reason)
    }
}
