//! The entries of a directory, fetched in batches.
//!
//! ```text
//!   next: batch empty? one job reads up to BATCH entries ---> batch: [a] [b] [c] ..
//!         take the first of the batch
//! ```
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::{FileType, Metadata};
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::job;
use crate::sys::virtual_files;

/// The number of entries that one job reads.
const BATCH: usize = 128;

/// Returns the entries of a directory, in no particular order, as [`std::fs::read_dir`].
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
    if job::is_simulated() {
        let (path, batch) = (path.as_ref(), virtual_files::read_dir(path.as_ref())?);
        let entry = |(name, ino)| Ok(DirEntry { inner: Inner::Simulated(path.join(name), ino), file_type: None });
        return Ok(ReadDir { entries: None, batch: batch.into_iter().map(entry).collect() });
    }
    let entries = job::with_path(path, |path| std::fs::read_dir(path))?;
    Ok(ReadDir { entries: Some(entries), batch: VecDeque::new() })
}

/// An iterator over the entries of a directory.
///
/// If a call to `next` is killed or times out, the rest of the entries may be lost, and the iterator ends.
///
/// May switch: `next` does, once per 128 entries.
pub struct ReadDir {
    /// std's iterator, for the next batch; none at the end.
    entries: Option<std::fs::ReadDir>,
    /// The entries that were read and not returned yet.
    batch: VecDeque<io::Result<DirEntry>>,
}

// As std's type.
impl UnwindSafe for ReadDir {}
impl RefUnwindSafe for ReadDir {}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<io::Result<DirEntry>> {
        if self.batch.is_empty() {
            // The job owns the iterator meanwhile, so an abandoned call loses the rest of the entries.
            let mut entries = self.entries.take()?;
            let read = job::run(move || {
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
    /// What it is of.
    inner: Inner,
    /// The type of the file, if the directory says it.
    file_type: Option<FileType>,
}

/// What an entry is of.
enum Inner {
    /// std's entry, shared with the jobs that use it.
    Std(Arc<std::fs::DirEntry>),
    /// The path of one on a simulated disk, and the number of the node.
    Simulated(PathBuf, u64),
}

impl DirEntry {
    /// Makes an entry of one that was just read. Called on an OS thread of the pool.
    fn new(entry: std::fs::DirEntry) -> DirEntry {
        DirEntry { file_type: entry.file_type().ok(), inner: Inner::Std(Arc::new(entry)) }
    }

    /// Returns the path of the directory, with the name.
    ///
    /// May switch: no.
    pub fn path(&self) -> PathBuf {
        match &self.inner {
            Inner::Std(entry) => entry.path(),
            Inner::Simulated(path, _) => path.clone(),
        }
    }

    /// Returns the name without the directory.
    ///
    /// May switch: no.
    pub fn file_name(&self) -> OsString {
        match &self.inner {
            Inner::Std(entry) => entry.file_name(),
            Inner::Simulated(path, _) => path.file_name().unwrap_or_default().to_owned(),
        }
    }

    /// Returns the type of the file. Does not follow symbolic links.
    ///
    /// # Errors
    /// As [`std::fs::DirEntry::file_type`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes, if the file system does not keep types in directories and the first try failed.
    pub fn file_type(&self) -> io::Result<FileType> {
        // The job that read the entry has asked already; only if that failed is there another job.
        match self.file_type {
            Some(file_type) => Ok(file_type),
            None => Ok(self.metadata()?.file_type()),
        }
    }

    /// Returns the metadata of the file. Does not follow symbolic links.
    ///
    /// # Errors
    /// As [`std::fs::DirEntry::metadata`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn metadata(&self) -> io::Result<Metadata> {
        match &self.inner {
            Inner::Std(entry) => {
                let entry = Arc::clone(entry);
                job::run(move || entry.metadata())
            }
            Inner::Simulated(path, _) => {
                job::is_simulated();
                virtual_files::metadata(path, false)
            }
        }
    }
}

impl DirEntryExt for DirEntry {
    fn ino(&self) -> u64 {
        match &self.inner {
            Inner::Std(entry) => entry.ino(),
            Inner::Simulated(_, ino) => *ino,
        }
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DirEntry").field(&self.path()).finish()
    }
}
