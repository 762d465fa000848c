//! The entries of a directory, fetched some at a time.
//!
//! ```text
//!   next: batch empty? one job reads up to BATCH entries ---> batch: [a] [b] [c] ..
//!         take the first of the batch
//! ```
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FileType, Metadata, off, with};

/// Entries that one job reads.
const BATCH: usize = 128;

/// The entries of a directory, in no particular order; as [`std::fs::read_dir`].
///
/// ```
/// let names: Vec<_> = greenling::fs::read_dir("/proc/self/task")?.map(|entry| entry.unwrap().file_name()).collect();
/// assert!(!names.is_empty()); // one for each OS thread
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// As [`std::fs::read_dir`].
///
/// # Panics
/// See [the module](super#panics).
///
/// May switch: yes.
pub fn read_dir<P: AsRef<Path>>(path: P) -> io::Result<ReadDir> {
    let entries = with(path, |path| std::fs::read_dir(path))?;
    Ok(ReadDir { entries: Some(entries), batch: VecDeque::new() })
}

/// An iterator over the entries of a directory.
///
/// A call to `next` that is killed or times out may take the rest of the entries with it: then there are no more.
///
/// May switch: `next` does, once for some dozen entries.
pub struct ReadDir {
    /// Where more come from; none at the end.
    entries: Option<std::fs::ReadDir>,
    /// Those that were read and not returned yet.
    batch: VecDeque<io::Result<DirEntry>>,
}

// As std's.
impl UnwindSafe for ReadDir {}
impl RefUnwindSafe for ReadDir {}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<io::Result<DirEntry>> {
        if self.batch.is_empty() {
            let mut entries = self.entries.take()?;
            let read = off(move || {
                let batch: VecDeque<_> = entries.by_ref().take(BATCH).map(|entry| entry.map(DirEntry::new)).collect();
                Ok(((batch.len() == BATCH).then_some(entries), batch))
            });
            match read {
                Ok((entries, batch)) => (self.entries, self.batch) = (entries, batch),
                Err(error) => return Some(Err(error)),
            }
        }
        self.batch.pop_front()
    }
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDir").field("fetched", &self.batch.len()).finish_non_exhaustive()
    }
}

/// An entry of a directory, as [`std::fs::DirEntry`].
pub struct DirEntry {
    /// std's; the jobs that use it hold it, too.
    inner: Arc<std::fs::DirEntry>,
    /// What it is, if the directory said so.
    file_type: Option<FileType>,
}

impl DirEntry {
    /// On an OS thread: an entry that was just read.
    fn new(entry: std::fs::DirEntry) -> DirEntry {
        DirEntry { file_type: entry.file_type().ok(), inner: Arc::new(entry) }
    }

    /// The path of the directory, and the name.
    ///
    /// May switch: no.
    pub fn path(&self) -> PathBuf {
        self.inner.path()
    }

    /// The name.
    ///
    /// May switch: no.
    pub fn file_name(&self) -> OsString {
        self.inner.file_name()
    }

    /// What it is; does not follow symbolic links.
    ///
    /// # Errors
    /// As [`std::fs::DirEntry::file_type`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes, on file systems whose directories do not say, if the first try failed.
    pub fn file_type(&self) -> io::Result<FileType> {
        match self.file_type {
            Some(file_type) => Ok(file_type),
            None => self.run(|entry| entry.file_type()),
        }
    }

    /// What the file system knows of it; does not follow symbolic links.
    ///
    /// # Errors
    /// As [`std::fs::DirEntry::metadata`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.run(|entry| entry.metadata())
    }

    /// A call on an OS thread.
    fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&std::fs::DirEntry) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let entry = Arc::clone(&self.inner);
        off(move || call(&entry))
    }
}

impl DirEntryExt for DirEntry {
    fn ino(&self) -> u64 {
        self.inner.ino()
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DirEntry").field(&self.path()).finish()
    }
}
