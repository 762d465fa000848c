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
//! A regular file is always "ready" for epoll, and may still wait for a disk or a server. So there is no reactor for it, and
//! each call here is a job: it costs two switches and two hand-overs between OS threads. Prefer few large calls:
//! [`read`], [`write()`], `read_to_end`, a `BufReader` with a large buffer. A file that is surely in memory, read once at the
//! start of a program, may as well be read with `std::fs`.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `File`, its methods; `Read`, `Write`, `Seek` for `File` and `&File` | same | a call reads or writes at most [`MOST`] bytes |
//! | `OpenOptions`, `os::unix::fs::OpenOptionsExt` | same | |
//! | `os::unix::fs::FileExt` | same | |
//! | `read`, `write`, `read_to_string`, `copy`, `metadata`, `rename`, .. | same | |
//! | `read_dir`, `ReadDir`, `DirEntry` | same | |
//! | `DirBuilder`, `File::{lock, unlock, ..}` | – | `blocking(move \|\| ..)` around std's |
//! | `Metadata`, `FileType`, `Permissions`, `FileTimes` | std's, re-exported | |
//! | `From<File>` for `Stdio` | same | |
//! | `From<File>` for `OwnedFd`, `IntoRawFd` | [`File::try_into_std`] | a call that was given up may still use it |
//! | errors | the same | |
//!
//! # Kill and timeout
//!
//! A call whose caller is killed or times out *before an OS thread has begun it* does not happen. One that has begun cannot
//! be stopped: it runs to its end, and what it says is dropped. So after a kill in the middle of
//!
//! * a **write**, the bytes of that call may be in the file or not, and may still be written while others do something else;
//!   the position in the file may have moved. `write_all` is a row of calls and may stop between two. What must be whole or
//!   absent is written to another file, which is then [`rename`]d.
//! * a **read**, what was read is lost, and the position may have moved.
//! * [`remove_dir_all`] or [`copy`], it goes on to its end.
//!
//! # While the thread unwinds
//!
//! A thread that unwinds cannot wait. Calls made then, by destructors, are made on the spot and block the OS thread, so that
//! a buffer is flushed and a temporary file is removed. The same holds when the OS thread is ending, in the child of a fork,
//! and if no OS thread can be started.
//!
//! # Panics
//! As all blocking calls: they unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
//! [`no_switch`](crate::no_switch).

mod dir;
mod file;

use std::io;
use std::path::{Path, PathBuf};

pub use std::fs::{FileTimes, FileType, Metadata, Permissions};

pub use dir::{DirEntry, ReadDir, read_dir};
pub use file::{File, MOST, OpenOptions};

use crate::offload::default_pool;

/// Runs a call on an OS thread, or on this one where nobody can wait.
///
/// # Errors
/// Those of `call`.
fn off<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match default_pool().offer("a file operation", false, call) {
        Ok(result) => result,
        Err((_, call)) => call(),
    }
}

/// [`off`] for calls that take a path.
fn with<T: Send + 'static>(
    path: impl AsRef<Path>,
    call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = path.as_ref().to_owned();
    off(move || call(&path))
}

/// [`off`] for calls that take two.
fn with_two<T: Send + 'static>(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    call: impl FnOnce(&Path, &Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    off(move || call(&from, &to))
}

/// The absolute form of a path, without symbolic links. As [`std::fs::canonicalize`].
///
/// # Errors
/// As [`std::fs::canonicalize`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn canonicalize<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    with(path, |path| std::fs::canonicalize(path))
}

/// Makes a directory. As [`std::fs::create_dir`].
///
/// # Errors
/// As [`std::fs::create_dir`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn create_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    with(path, |path| std::fs::create_dir(path))
}

/// Makes a directory and those above it that are missing. As [`std::fs::create_dir_all`].
///
/// # Errors
/// As [`std::fs::create_dir_all`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn create_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    with(path, |path| std::fs::create_dir_all(path))
}

/// Whether something is there; an error if that cannot be told. As [`std::fs::exists`].
///
/// # Errors
/// As [`std::fs::exists`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn exists<P: AsRef<Path>>(path: P) -> io::Result<bool> {
    with(path, |path| std::fs::exists(path))
}

/// What the file system knows of a file; follows symbolic links. As [`std::fs::metadata`].
///
/// # Errors
/// As [`std::fs::metadata`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    with(path, |path| std::fs::metadata(path))
}

/// A whole file as bytes, in one job. As [`std::fs::read`].
///
/// # Errors
/// As [`std::fs::read`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn read<P: AsRef<Path>>(path: P) -> io::Result<Vec<u8>> {
    with(path, |path| std::fs::read(path))
}

/// What a symbolic link points to. As [`std::fs::read_link`].
///
/// # Errors
/// As [`std::fs::read_link`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn read_link<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    with(path, |path| std::fs::read_link(path))
}

/// A whole file as text, in one job. As [`std::fs::read_to_string`].
///
/// # Errors
/// As [`std::fs::read_to_string`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    with(path, |path| std::fs::read_to_string(path))
}

/// Removes an empty directory. As [`std::fs::remove_dir`].
///
/// # Errors
/// As [`std::fs::remove_dir`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn remove_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    with(path, |path| std::fs::remove_dir(path))
}

/// Removes a directory and all in it. As [`std::fs::remove_dir_all`].
///
/// # Errors
/// As [`std::fs::remove_dir_all`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn remove_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    with(path, |path| std::fs::remove_dir_all(path))
}

/// Removes a file. As [`std::fs::remove_file`].
///
/// # Errors
/// As [`std::fs::remove_file`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn remove_file<P: AsRef<Path>>(path: P) -> io::Result<()> {
    with(path, |path| std::fs::remove_file(path))
}

/// [`metadata`] of a symbolic link itself. As [`std::fs::symlink_metadata`].
///
/// # Errors
/// As [`std::fs::symlink_metadata`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn symlink_metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    with(path, |path| std::fs::symlink_metadata(path))
}

/// Copies contents and permissions of a file, and returns how many bytes that were. As [`std::fs::copy`].
///
/// # Errors
/// As [`std::fs::copy`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn copy<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<u64> {
    with_two(from, to, |from, to| std::fs::copy(from, to))
}

/// Gives a file another name. As [`std::fs::hard_link`].
///
/// # Errors
/// As [`std::fs::hard_link`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn hard_link<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    with_two(from, to, |from, to| std::fs::hard_link(from, to))
}

/// Gives a file a new name, in place of what has it. As [`std::fs::rename`].
///
/// # Errors
/// As [`std::fs::rename`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn rename<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    with_two(from, to, |from, to| std::fs::rename(from, to))
}

/// Makes `contents` the contents of a file, in one job. As [`std::fs::write`]; the bytes are copied first.
///
/// # Errors
/// As [`std::fs::write`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    let contents = contents.as_ref().to_owned();
    with(path, move |path| std::fs::write(path, contents))
}

/// Changes the permissions of a file. As [`std::fs::set_permissions`].
///
/// # Errors
/// As [`std::fs::set_permissions`].
///
/// # Panics
/// See [the module](self#panics).
///
/// May switch: yes.
pub fn set_permissions<P: AsRef<Path>>(path: P, permissions: Permissions) -> io::Result<()> {
    with(path, move |path| std::fs::set_permissions(path, permissions))
}
