//! Files, shaped like `std::fs`: the calls block an OS thread of the [offload pool](crate::offload), never the hub.
//!
//! ```
//! use std::io::{Read, Seek, Write};
//! use greenling::fs::{self, File};
//!
//! let folder = std::env::temp_dir().join(format!("greenling-doc-{}", std::process::id()));
//! fs::create_dir_all(&folder)?;
//! let mut file = File::options().read(true).write(true).create(true).open(folder.join("a"))?;
//! file.write_all(b"green")?;
//! file.rewind()?;
//! let mut text = String::new();
//! file.read_to_string(&mut text)?;
//! assert_eq!(text, fs::read_to_string(folder.join("a"))?);
//! fs::remove_dir_all(&folder)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A regular file is always "ready" for epoll, and may still wait for a disk or a server. So the reactor is of no use,
//! and each call here is a job, which costs two switches and two hand-overs between OS threads. Prefer few large calls:
//! [`read`], [`write()`], `read_to_end`, a `BufReader` with a large buffer. A file that is surely in memory, read once
//! at the start of a program, may as well be read with `std::fs`.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `File`, its methods; `Read`, `Write`, `Seek` for `File` and `&File` | same | a call reads or writes at most [`MOST`] bytes |
//! | `OpenOptions`, `os::unix::fs::OpenOptionsExt` | same | |
//! | `os::unix::fs::FileExt` | same | |
//! | `read`, `write`, `read_to_string`, `copy`, `metadata`, `rename`, .. | same | |
//! | `read_dir`, `ReadDir`, `DirEntry` | same | |
//! | `DirBuilder`, `os::unix::fs::DirBuilderExt` | same | |
//! | `File::{lock, lock_shared, try_lock, try_lock_shared, unlock}`, [`TryLockError`] | same, also before Rust 1.89 | a waiter tries again after pauses of up to 20 ms, so the order is not the kernel's |
//! | `Metadata`, `FileType`, `Permissions`, `FileTimes` | std's, re-exported | |
//! | `From<File>` for `Stdio` and `OwnedFd`, `IntoRawFd` | same | if an abandoned call still uses the file, a duplicate of the descriptor |
//! | `From<File>` for std's | [`File::try_into_std`] | |
//! | `FromRawFd` | – | an unsafe function: `OwnedFd::from_raw_fd(fd).into()` |
//! | `os::unix::fs::{symlink, chown, fchown, lchown, chroot}` | [`os::unix::fs`](crate::os::unix::fs) | |
//! | `soft_link` | – | deprecated in std: [`symlink`](crate::os::unix::fs::symlink) |
//! | errors | the same | |
//!
//! # Kill and timeout
//!
//! If the caller is killed or times out *before an OS thread has begun the call*, the call does not happen. A call that
//! has begun cannot be stopped: it runs to its end, and its result is dropped. So after a kill in the middle of
//!
//! * a **write**, the bytes of that call may be in the file or not, and may still be written while other threads run;
//!   the position in the file may have moved. `write_all` makes several calls, and may stop between two. Contents that
//!   must be whole or absent are written to another file, which is then [`rename`]d.
//! * a **read**, the bytes that were read are lost, and the position may have moved.
//! * [`remove_dir_all`] or [`copy`], the call goes on to the end.
//!
//! # While the thread unwinds
//!
//! A thread that unwinds cannot wait. Calls that its destructors make run on the spot and block the OS thread, so that
//! a buffer is flushed and a temporary file is removed. The same holds when the OS thread is ending, in the child of a
//! fork, and if no OS thread can be started. Only [`File::lock`] and [`File::lock_shared`] fail then if the file is
//! locked: the holder may be another green thread of this OS thread.
//!
//! # In a simulation
//!
//! The calls work on a [disk in memory](crate::sim#files), one for each host.
//!
//! # Panics
//! As all blocking calls: they unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
//! [`no_switch`](crate::no_switch).

mod builder;
mod dir;
mod file;
pub(crate) mod job;
mod lock;

use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use std::fs::{FileTimes, FileType, Metadata, Permissions};

pub use builder::DirBuilder;
pub use dir::{DirEntry, ReadDir, read_dir};
pub use file::{File, MOST, OpenOptions};
pub use lock::TryLockError;

use crate::sys::simulation::virtual_ns;
use crate::sys::virtual_files;

/// Returns the absolute form of a path, without symbolic links, as [`std::fs::canonicalize`].
///
/// # Errors
/// As [`std::fs::canonicalize`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn canonicalize<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    if job::is_simulated() {
        return virtual_files::canonicalize(path.as_ref());
    }
    job::with_path(path, |path| std::fs::canonicalize(path))
}

/// Makes a directory, as [`std::fs::create_dir`].
///
/// # Errors
/// As [`std::fs::create_dir`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn create_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    if job::is_simulated() {
        return virtual_files::create_dir(path.as_ref(), false, 0o777);
    }
    job::with_path(path, |path| std::fs::create_dir(path))
}

/// Makes a directory and its missing parents, as [`std::fs::create_dir_all`].
///
/// # Errors
/// As [`std::fs::create_dir_all`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn create_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    if job::is_simulated() {
        return virtual_files::create_dir(path.as_ref(), true, 0o777);
    }
    job::with_path(path, |path| std::fs::create_dir_all(path))
}

/// Reports whether a path exists, as [`std::fs::exists`]; an error if that cannot be told.
///
/// # Errors
/// As [`std::fs::exists`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn exists<P: AsRef<Path>>(path: P) -> io::Result<bool> {
    if job::is_simulated() {
        return virtual_files::exists(path.as_ref());
    }
    job::with_path(path, |path| std::fs::exists(path))
}

/// Returns the metadata of a file, as [`std::fs::metadata`]. Follows symbolic links.
///
/// # Errors
/// As [`std::fs::metadata`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    if job::is_simulated() {
        return virtual_files::metadata(path.as_ref(), true);
    }
    job::with_path(path, |path| std::fs::metadata(path))
}

/// Reads a whole file as bytes, in one job, as [`std::fs::read`].
///
/// # Errors
/// As [`std::fs::read`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn read<P: AsRef<Path>>(path: P) -> io::Result<Vec<u8>> {
    if virtual_ns().is_some() {
        let (mut file, mut bytes) = (File::open(path)?, Vec::new());
        return file.read_to_end(&mut bytes).map(|_| bytes);
    }
    job::with_path(path, |path| std::fs::read(path))
}

/// Returns the path that a symbolic link points to, as [`std::fs::read_link`].
///
/// # Errors
/// As [`std::fs::read_link`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn read_link<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    if job::is_simulated() {
        return virtual_files::read_link(path.as_ref());
    }
    job::with_path(path, |path| std::fs::read_link(path))
}

/// Reads a whole file as text, in one job, as [`std::fs::read_to_string`].
///
/// # Errors
/// As [`std::fs::read_to_string`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    if virtual_ns().is_some() {
        let (mut file, mut text) = (File::open(path)?, String::new());
        return file.read_to_string(&mut text).map(|_| text);
    }
    job::with_path(path, |path| std::fs::read_to_string(path))
}

/// Removes an empty directory, as [`std::fs::remove_dir`].
///
/// # Errors
/// As [`std::fs::remove_dir`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn remove_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    if job::is_simulated() {
        return virtual_files::remove_dir(path.as_ref());
    }
    job::with_path(path, |path| std::fs::remove_dir(path))
}

/// Removes a directory with its contents, as [`std::fs::remove_dir_all`].
///
/// # Errors
/// As [`std::fs::remove_dir_all`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn remove_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    if job::is_simulated() {
        return virtual_files::remove_dir_all(path.as_ref());
    }
    job::with_path(path, |path| std::fs::remove_dir_all(path))
}

/// Removes a file, as [`std::fs::remove_file`].
///
/// # Errors
/// As [`std::fs::remove_file`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn remove_file<P: AsRef<Path>>(path: P) -> io::Result<()> {
    if job::is_simulated() {
        return virtual_files::remove_file(path.as_ref());
    }
    job::with_path(path, |path| std::fs::remove_file(path))
}

/// Returns the metadata of a symbolic link itself, as [`std::fs::symlink_metadata`].
///
/// # Errors
/// As [`std::fs::symlink_metadata`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn symlink_metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    if job::is_simulated() {
        return virtual_files::metadata(path.as_ref(), false);
    }
    job::with_path(path, |path| std::fs::symlink_metadata(path))
}

/// Copies contents and permissions of a file, as [`std::fs::copy`]. Returns the number of bytes.
///
/// # Errors
/// As [`std::fs::copy`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn copy<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<u64> {
    if virtual_ns().is_some() {
        return copy_simulated(from.as_ref(), to.as_ref());
    }
    job::with_two_paths(from, to, |from, to| std::fs::copy(from, to))
}

/// Gives a file a second name, as [`std::fs::hard_link`].
///
/// # Errors
/// As [`std::fs::hard_link`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn hard_link<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    if job::is_simulated() {
        return virtual_files::hard_link(from.as_ref(), to.as_ref());
    }
    job::with_two_paths(from, to, |from, to| std::fs::hard_link(from, to))
}

/// Gives a file a new name, as [`std::fs::rename`]. A file that has the new name is replaced.
///
/// # Errors
/// As [`std::fs::rename`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn rename<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    if job::is_simulated() {
        return virtual_files::rename(from.as_ref(), to.as_ref());
    }
    job::with_two_paths(from, to, |from, to| std::fs::rename(from, to))
}

/// Makes `contents` the contents of a file, in one job, as [`std::fs::write`]. The bytes are copied first.
///
/// # Errors
/// As [`std::fs::write`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    if virtual_ns().is_some() {
        return File::create(path)?.write_all(contents.as_ref());
    }
    let contents = contents.as_ref().to_owned();
    job::with_path(path, move |path| std::fs::write(path, contents))
}

/// Changes the permissions of a file, as [`std::fs::set_permissions`].
///
/// # Errors
/// As [`std::fs::set_permissions`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn set_permissions<P: AsRef<Path>>(path: P, permissions: Permissions) -> io::Result<()> {
    if job::is_simulated() {
        return virtual_files::set_permissions(path.as_ref(), &permissions);
    }
    job::with_path(path, move |path| std::fs::set_permissions(path, permissions))
}

/// Copies a simulated file, as std copies one of the kernel.
fn copy_simulated(from: &Path, to: &Path) -> io::Result<u64> {
    let from = File::open(from)?;
    let (is_file, permissions) = from.metadata().map(|metadata| (metadata.is_file(), metadata.permissions()))?;
    if !is_file {
        let text = "the source path is neither a regular file nor a symlink to a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let to = File::options().write(true).create(true).truncate(true).mode(permissions.mode()).open(to)?;
    to.set_permissions(permissions)?;
    from.copy_to(&to)
}
