//! The functions that Unix systems have for files, shaped like `std::os::unix::fs`. Each call runs as those of
//! [`fs`](crate::fs) do.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

pub use std::os::unix::fs::{
    DirBuilderExt, DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};

use crate::fs::job;
use crate::sys::virtual_files;

/// Makes `link` a symbolic link to `original`, as [`std::os::unix::fs::symlink`].
///
/// ```
/// use greenling::{fs, os::unix::fs::symlink};
///
/// let link = std::env::temp_dir().join(format!("greenling-link-{}", std::process::id()));
/// symlink("/no/such/file", &link)?;
/// assert_eq!(fs::read_link(&link)?.to_str(), Some("/no/such/file"));
/// fs::remove_file(link)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// As [`std::os::unix::fs::symlink`].
///
/// # Panics
/// See [`fs`](crate::fs#panics).
///
/// May switch: yes.
#[doc(alias = "soft_link")]
pub fn symlink<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    if job::is_simulated() {
        return virtual_files::symlink(original.as_ref(), link.as_ref());
    }
    job::with_two_paths(original, link, |original, link| std::os::unix::fs::symlink(original, link))
}

/// Changes the owner and the group of a file, as [`std::os::unix::fs::chown`]. `None` leaves the owner or the group.
///
/// # Errors
/// As [`std::os::unix::fs::chown`].
///
/// # Panics
/// See [`fs`](crate::fs#panics).
///
/// May switch: yes.
pub fn chown<P: AsRef<Path>>(path: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    job::with_path(path, move |path| std::os::unix::fs::chown(path, uid, gid))
}

/// Changes the owner and the group of an open file, as [`std::os::unix::fs::fchown`].
///
/// # Errors
/// As [`std::os::unix::fs::fchown`], and `EMFILE`: the call has a descriptor of its own.
///
/// # Panics
/// See [`fs`](crate::fs#panics).
///
/// May switch: yes.
pub fn fchown<F: AsFd>(fd: F, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    // If the caller is killed, its descriptor may be closed before the call begins: the job has a duplicate.
    let fd = fd.as_fd().try_clone_to_owned()?;
    job::run(move || std::os::unix::fs::fchown(fd, uid, gid))
}

/// Changes the owner and the group of a symbolic link itself, as [`std::os::unix::fs::lchown`].
///
/// # Errors
/// As [`std::os::unix::fs::lchown`].
///
/// # Panics
/// See [`fs`](crate::fs#panics).
///
/// May switch: yes.
pub fn lchown<P: AsRef<Path>>(path: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    job::with_path(path, move |path| std::os::unix::fs::lchown(path, uid, gid))
}

/// Changes the root directory of the process, as [`std::os::unix::fs::chroot`].
///
/// # Errors
/// As [`std::os::unix::fs::chroot`].
///
/// # Panics
/// See [`fs`](crate::fs#panics).
///
/// May switch: yes.
pub fn chroot<P: AsRef<Path>>(dir: P) -> io::Result<()> {
    job::with_path(dir, |dir| std::os::unix::fs::chroot(dir))
}
