//! The builder of directories, as std's.
#![forbid(unsafe_code)]

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::job;
use crate::sys::virtual_files;

/// A builder of directories, as [`std::fs::DirBuilder`].
///
/// ```
/// use greenling::fs::{self, DirBuilder};
///
/// let folder = std::env::temp_dir().join(format!("greenling-builder-{}", std::process::id()));
/// DirBuilder::new().recursive(true).create(folder.join("a/b"))?;
/// assert!(fs::metadata(folder.join("a/b"))?.is_dir());
/// fs::remove_dir_all(folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `create`"]
pub struct DirBuilder {
    /// Whether to make missing parents. Kept here, since std's builder has no getter.
    recursive: bool,
    /// The access rights, before the umask of the process applies.
    mode: u32,
}

impl DirBuilder {
    /// Returns a builder that makes only the last directory of a path, with the rights 0o777 less the umask of the
    /// process.
    ///
    /// May switch: no.
    #[allow(clippy::new_without_default, reason = "std's has none")]
    pub fn new() -> DirBuilder {
        DirBuilder { recursive: false, mode: 0o777 }
    }

    /// Chooses whether to make missing parents as well, with the same rights. With `true`, a directory that exists
    /// already is no error.
    ///
    /// May switch: no.
    pub fn recursive(&mut self, recursive: bool) -> &mut Self {
        self.recursive = recursive;
        self
    }

    /// Makes the directory.
    ///
    /// # Errors
    /// As [`std::fs::DirBuilder::create`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let (recursive, mode) = (self.recursive, self.mode);
        if job::is_simulated() {
            return virtual_files::create_dir(path.as_ref(), recursive, mode);
        }
        job::with_path(path, move |path| std::fs::DirBuilder::new().recursive(recursive).mode(mode).create(path))
    }
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }
}
