//! The parts of std that only some systems have, shaped like `std::os`.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `os::fd`, `os::unix::{ffi, io}`, `os::linux::fs` | std's, re-exported | |
//! | `os::unix::net` | [`unix::net`] | |
//! | `os::unix::fs::{symlink, chown, fchown, lchown, chroot}` | [`unix::fs`] | each call runs on an OS thread of a pool |
//! | `os::unix::fs::{FileExt, MetadataExt, PermissionsExt, ..}` | std's, re-exported | |
//! | `os::unix::process::CommandExt` | [`unix::process::CommandExt`] | a separate trait, since std's is sealed |
//! | `CommandExt::{pre_exec, before_exec}` | – | unsafe functions: [`Command::as_std_mut`](crate::process::Command::as_std_mut) has them |
//! | `os::unix::process::{ExitStatusExt, parent_id}` | std's, re-exported | |
//! | `os::linux::net::TcpStreamExt` | [`linux::net::TcpStreamExt`] | the same; also before Rust 1.89 |
//! | `os::linux::net::SocketAddrExt` | std's, re-exported | |
//! | `os::unix::prelude` | [`unix::prelude`] | without `JoinHandleExt` |
//! | `os::unix::thread::JoinHandleExt` | – | a green thread has no `pthread_t` |
//! | `os::unix::raw`, `os::linux::raw` | – | deprecated in std |
#![forbid(unsafe_code)]

pub use std::os::{fd, raw};

/// The parts that only Linux has, shaped like [`std::os::linux`].
pub mod linux {
    pub use std::os::linux::fs;

    pub mod net;
}

/// The parts that Unix systems have, shaped like [`std::os::unix`].
pub mod unix {
    pub use std::os::unix::{ffi, io};

    pub mod fs;
    pub mod net;
    pub mod process;

    /// The traits of [`std::os::unix`], with those of this crate in place of std's. There is no `JoinHandleExt`, since
    /// a green thread has no `pthread_t`.
    pub mod prelude {
        pub use super::ffi::{OsStrExt, OsStringExt};
        pub use super::fs::{DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
        pub use super::io::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
        pub use super::process::{CommandExt, ExitStatusExt};
    }
}
