//! What only some systems have, shaped like `std::os`: [`unix::net`], the sockets that have a path in place of a port.
#![forbid(unsafe_code)]

/// What Unix systems have, shaped like [`std::os::unix`].
pub mod unix {
    pub mod net;
}
