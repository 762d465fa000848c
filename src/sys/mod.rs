//! The kernel seam: the only files that name `libc`. Nothing of the crate is imported here.
