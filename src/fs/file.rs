//! An open file: std's, shared with the jobs that use it.
//!
//! The caller's buffer stays with the caller, since a job cannot borrow from a thread that may be killed. So bytes are
//! copied once more than in std. The file stays open until the `File` and the last of its jobs are gone, so an
//! abandoned call never writes into another file that got the same descriptor number.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{FileTimes, Metadata, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::SystemTime;

use super::job;
use crate::sys::simulation::virtual_ns;
use crate::sys::virtual_files::{self, Options};

/// The most bytes that one call of `read` or `write` moves, since the job holds a copy of them.
pub const MOST: usize = 2 * 1024 * 1024;

/// The bytes that a job reads for a copy to something other than a file.
const COPY_CHUNK: usize = 256 * 1024;

/// The bytes that a job copies from file to file. So many may still be copied after a kill.
const FILE_TO_FILE_CHUNK: u64 = 8 * 1024 * 1024;

/// An open file, as [`std::fs::File`]; see [the module](super).
///
/// Unlike a socket, a file belongs to no hub: it may be sent and shared.
pub struct File {
    /// std's file, shared with the jobs that use it.
    inner: Arc<Handle>,
}

/// std's file, which in a simulation stands for a simulated one.
struct Handle(
    /// The file; none once it was taken.
    Option<std::fs::File>,
);

impl Handle {
    /// Returns the file, for a call of std's.
    fn get(&self) -> &std::fs::File {
        match &self.0 {
            Some(file) => file,
            None => unreachable!("only `try_into_std` takes the file, and it consumes the handle"),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            virtual_files::close(file);
        }
    }
}

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// As [`std::fs::File::open`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<File> {
        if job::is_simulated() {
            return File::options().read(true).open_simulated(path.as_ref());
        }
        job::with_path(path, |path| std::fs::File::open(path)).map(File::from)
    }

    /// Opens a file for writing, and makes it empty.
    ///
    /// # Errors
    /// As [`std::fs::File::create`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn create<P: AsRef<Path>>(path: P) -> io::Result<File> {
        if job::is_simulated() {
            return File::options().write(true).create(true).truncate(true).open_simulated(path.as_ref());
        }
        job::with_path(path, |path| std::fs::File::create(path)).map(File::from)
    }

    /// Makes a new file, for reading and writing.
    ///
    /// # Errors
    /// As [`std::fs::File::create_new`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn create_new<P: AsRef<Path>>(path: P) -> io::Result<File> {
        if job::is_simulated() {
            return File::options().read(true).write(true).create_new(true).open_simulated(path.as_ref());
        }
        job::with_path(path, |path| std::fs::File::create_new(path)).map(File::from)
    }

    /// Returns options for opening a file: see [`OpenOptions::new`].
    ///
    /// May switch: no.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Runs `call` as a job.
    fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&std::fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        // The job owns a share, so the file stays open if the caller is killed.
        let file = Arc::clone(&self.inner);
        job::run(move || call(file.get()))
    }

    /// Returns the file that a simulated one hides behind, or is.
    fn std(&self) -> &std::fs::File {
        self.inner.get()
    }

    /// Reads some bytes for a copy; none at the end.
    pub(crate) fn read_chunk(&self) -> io::Result<Vec<u8>> {
        if job::is_simulated() {
            let mut bytes = vec![0; COPY_CHUNK];
            let count = virtual_files::read(self.std(), None, &mut bytes)?;
            bytes.truncate(count);
            return Ok(bytes);
        }
        self.run(|mut file| {
            let mut bytes = vec![0; COPY_CHUNK];
            loop {
                match file.read(&mut bytes) {
                    // A signal came before any byte was read: nothing is lost, so try again.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => {
                        bytes.truncate(read?);
                        return Ok(bytes);
                    }
                }
            }
        })
    }

    /// Copies from the position of this file to the position of `to`, up to the end, and returns the number of bytes.
    /// If the caller is interrupted, the chunk that a job has begun is still copied.
    pub(crate) fn copy_to(&self, to: &File) -> io::Result<u64> {
        let mut total = 0;
        while virtual_ns().is_some() {
            let chunk = self.read_chunk()?;
            if chunk.is_empty() {
                return Ok(total);
            }
            (&mut &*to).write_all(&chunk)?;
            total += chunk.len() as u64;
        }
        loop {
            let to = Arc::clone(&to.inner);
            // For two files, std's `copy` lets the kernel move the bytes.
            match self.run(move |from| io::copy(&mut from.take(FILE_TO_FILE_CHUNK), &mut to.get()))? {
                0 => return Ok(total),
                copied => total += copied,
            }
        }
    }

    /// Waits until contents and metadata are on the disk.
    ///
    /// # Errors
    /// As [`std::fs::File::sync_all`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn sync_all(&self) -> io::Result<()> {
        if job::is_simulated_sync() {
            return virtual_files::sync(self.std());
        }
        self.run(std::fs::File::sync_all)
    }

    /// Waits until the contents are on the disk.
    ///
    /// # Errors
    /// As [`std::fs::File::sync_data`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn sync_data(&self) -> io::Result<()> {
        if job::is_simulated_sync() {
            return virtual_files::sync(self.std());
        }
        self.run(std::fs::File::sync_data)
    }

    /// Cuts the file off, or extends it with zeros.
    ///
    /// # Errors
    /// As [`std::fs::File::set_len`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        if job::is_simulated() {
            return virtual_files::set_len(self.std(), size);
        }
        self.run(move |file| file.set_len(size))
    }

    /// Returns the metadata of the file.
    ///
    /// # Errors
    /// As [`std::fs::File::metadata`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn metadata(&self) -> io::Result<Metadata> {
        if job::is_simulated() {
            return virtual_files::metadata_of(self.std());
        }
        self.run(std::fs::File::metadata)
    }

    /// Changes the permissions of the file.
    ///
    /// # Errors
    /// As [`std::fs::File::set_permissions`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        if job::is_simulated() {
            return virtual_files::set_permissions_of(self.std(), &permissions);
        }
        self.run(move |file| file.set_permissions(permissions))
    }

    /// Changes the times of the file.
    ///
    /// # Errors
    /// As [`std::fs::File::set_times`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        if job::is_simulated() {
            return virtual_files::set_times_of(self.std(), times);
        }
        self.run(move |file| file.set_times(times))
    }

    /// Changes the time of the last modification.
    ///
    /// # Errors
    /// As [`std::fs::File::set_modified`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.set_times(FileTimes::new().set_modified(time))
    }

    /// Makes another descriptor of the same open file. Both share the position.
    ///
    /// # Errors
    /// As [`std::fs::File::try_clone`].
    ///
    /// May switch: no.
    pub fn try_clone(&self) -> io::Result<File> {
        let clone = self.std().try_clone()?;
        virtual_files::duplicated(self.std(), &clone)?;
        Ok(File::from(clone))
    }

    /// Converts into std's file.
    ///
    /// # Errors
    /// The file itself, if a call that was abandoned by a kill or timeout still uses it.
    ///
    /// May switch: no.
    pub fn try_into_std(self) -> Result<std::fs::File, File> {
        let mut handle = Arc::try_unwrap(self.inner).map_err(|inner| File { inner })?;
        match handle.0.take() {
            Some(file) => Ok(file),
            None => unreachable!("a file is taken once"),
        }
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> File {
        File { inner: Arc::new(Handle(Some(file))) }
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> File {
        File::from(std::fs::File::from(fd))
    }
}

/// Returns the descriptor; while an abandoned call still uses it, a duplicate.
///
/// # Panics
/// If an abandoned call still uses the file and there is no descriptor left for a duplicate.
impl From<File> for OwnedFd {
    fn from(file: File) -> OwnedFd {
        match file.try_into_std() {
            Ok(file) => file.into(),
            Err(file) => match file.std().try_clone() {
                Ok(file) => file.into(),
                Err(error) => panic!("greenling: a file that is still in use cannot be duplicated: {error}"),
            },
        }
    }
}

/// Converts as `OwnedFd::from` does.
impl IntoRawFd for File {
    fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }
}

/// Makes the file a standard stream of a child. The child gets the open file, as with std's type.
///
/// # Panics
/// As `OwnedFd::from`.
impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        OwnedFd::from(file).into()
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.std().as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.std().as_raw_fd()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // std's `Debug` asks the kernel for the path, which may block.
        f.debug_struct("File").field("fd", &self.as_raw_fd()).finish_non_exhaustive()
    }
}

/// Lets `read` fill another buffer in a job, and copies the bytes to `buf`.
fn read_into(
    file: &File,
    buf: &mut [u8],
    read: impl FnOnce(&std::fs::File, &mut [u8]) -> io::Result<usize> + Send + 'static,
) -> io::Result<usize> {
    // The job cannot borrow `buf`: the caller may be killed and `buf` gone before the job ends.
    let len = buf.len().min(MOST);
    let bytes = file.run(move |file| {
        let mut bytes = vec![0; len];
        let n = read(file, &mut bytes)?;
        bytes.truncate(n);
        Ok(bytes)
    })?;
    buf[..bytes.len()].copy_from_slice(&bytes);
    Ok(bytes.len())
}

/// Reads a simulated file up to its end. The bytes before an error count.
fn read_chunks(file: &File, buf: &mut Vec<u8>) -> io::Result<usize> {
    let mut total = 0;
    loop {
        let chunk = file.read_chunk()?;
        if chunk.is_empty() {
            return Ok(total);
        }
        buf.extend_from_slice(&chunk);
        total += chunk.len();
    }
}

impl Read for &File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if job::is_simulated() {
            let len = buf.len().min(MOST);
            return virtual_files::read(self.std(), None, &mut buf[..len]);
        }
        read_into(self, buf, |mut file, bytes| file.read(bytes))
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        if virtual_ns().is_some() {
            return read_chunks(self, buf);
        }
        let (bytes, result) = self.run(|mut file| {
            let mut bytes = Vec::new();
            let result = file.read_to_end(&mut bytes);
            Ok((bytes, result))
        })?;
        // As in std, the bytes before an error count.
        buf.extend_from_slice(&bytes);
        result
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        if virtual_ns().is_some() {
            let mut bytes = Vec::new();
            let read = read_chunks(self, &mut bytes);
            let error = || io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
            return match std::str::from_utf8(&bytes) {
                Ok(text) => {
                    buf.push_str(text);
                    read
                }
                Err(_) => read.and_then(|_| Err(error())),
            };
        }
        let (text, result) = self.run(|mut file| {
            let mut text = String::new();
            let result = file.read_to_string(&mut text);
            Ok((text, result))
        })?;
        // As in std, the text before an error counts.
        buf.push_str(&text);
        result
    }
}

impl Write for &File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if job::is_simulated() {
            return virtual_files::write(self.std(), None, &buf[..buf.len().min(MOST)]);
        }
        // A copy, since the job cannot borrow `buf`.
        let bytes = buf[..buf.len().min(MOST)].to_owned();
        self.run(move |mut file| file.write(&bytes))
    }

    /// Does nothing, as std's: a file has no buffer. See [`sync_all`](File::sync_all).
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if job::is_simulated() {
            return virtual_files::seek(self.std(), to);
        }
        self.run(move |mut file| file.seek(to))
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buf)
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}

/// Reads and writes at an offset of the caller's choice. The position in the file does not matter and does not move,
/// even if the call is abandoned.
impl FileExt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if job::is_simulated() {
            let len = buf.len().min(MOST);
            return virtual_files::read(self.std(), Some(offset), &mut buf[..len]);
        }
        read_into(self, buf, move |file, bytes| file.read_at(bytes, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        if job::is_simulated() {
            return virtual_files::write(self.std(), Some(offset), &buf[..buf.len().min(MOST)]);
        }
        let bytes = buf[..buf.len().min(MOST)].to_owned();
        self.run(move |file| file.write_at(&bytes, offset))
    }
}

/// Options for opening a file, as [`std::fs::OpenOptions`].
///
/// ```
/// use greenling::fs::OpenOptions;
///
/// let error = OpenOptions::new().read(true).open("/no/such/file").unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// std's options, cloned for each job.
    inner: std::fs::OpenOptions,
    /// The same, since std's have no getters.
    simulated: Options,
}

impl OpenOptions {
    /// Returns options of which none is set.
    ///
    /// May switch: no.
    #[allow(clippy::new_without_default, reason = "std's has none")]
    pub fn new() -> OpenOptions {
        OpenOptions { inner: std::fs::OpenOptions::new(), simulated: Options { mode: 0o666, ..Options::default() } }
    }

    /// Sets whether the file is opened for reading.
    ///
    /// May switch: no.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.inner.read(read);
        self.simulated.read = read;
        self
    }

    /// Sets whether the file is opened for writing.
    ///
    /// May switch: no.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.inner.write(write);
        self.simulated.write = write;
        self
    }

    /// Sets whether each write goes to the end of the file.
    ///
    /// May switch: no.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.inner.append(append);
        self.simulated.append = append;
        self
    }

    /// Sets whether the file is made empty first.
    ///
    /// May switch: no.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.inner.truncate(truncate);
        self.simulated.truncate = truncate;
        self
    }

    /// Sets whether a missing file is made.
    ///
    /// May switch: no.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.inner.create(create);
        self.simulated.create = create;
        self
    }

    /// Sets whether the file is made, and an existing one is an error.
    ///
    /// May switch: no.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.inner.create_new(create_new);
        self.simulated.create_new = create_new;
        self
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    /// As [`std::fs::OpenOptions::open`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        if job::is_simulated() {
            return self.open_simulated(path.as_ref());
        }
        let options = self.inner.clone();
        job::with_path(path, move |path| options.open(path)).map(File::from)
    }

    /// Opens a simulated file.
    fn open_simulated(&self, path: &Path) -> io::Result<File> {
        virtual_files::open(path, self.simulated).map(File::from)
    }
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.inner.mode(mode);
        self.simulated.mode = mode;
        self
    }

    fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.inner.custom_flags(flags);
        self
    }
}
