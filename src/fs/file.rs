//! An open file: std's, shared with the job that uses it.
//!
//! The caller's buffer stays with the caller, since a job cannot borrow from a thread that may be killed: bytes are copied
//! once more than std copies them. The file lives until the last of the `File` and its jobs is gone, so a call that was given
//! up never writes into another file that got the same number.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::SystemTime;

use super::{FileTimes, Metadata, Permissions, off, with};

/// Bytes that one call of `read` or `write` moves at most: it has a copy of them.
pub const MOST: usize = 2 * 1024 * 1024;

/// Bytes that a job reads at once for a copy.
const PIECE: usize = 256 * 1024;

/// Bytes that a job copies at once from file to file: so much may still be copied after a kill.
const LARGE_PIECE: u64 = 8 * 1024 * 1024;

/// An open file, as [`std::fs::File`]; see [the module](super).
///
/// Unlike a socket it belongs to no hub: it may be sent and shared.
pub struct File {
    /// The file; the jobs that use it hold it, too.
    inner: Arc<std::fs::File>,
}

impl File {
    /// Opens a file to read it.
    ///
    /// # Errors
    /// As [`std::fs::File::open`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<File> {
        with(path, |path| std::fs::File::open(path)).map(File::from)
    }

    /// Opens a file to write it, empty.
    ///
    /// # Errors
    /// As [`std::fs::File::create`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn create<P: AsRef<Path>>(path: P) -> io::Result<File> {
        with(path, |path| std::fs::File::create(path)).map(File::from)
    }

    /// Makes a file, to read and write it.
    ///
    /// # Errors
    /// As [`std::fs::File::create_new`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn create_new<P: AsRef<Path>>(path: P) -> io::Result<File> {
        with(path, |path| std::fs::File::create_new(path)).map(File::from)
    }

    /// How to open a file: [`OpenOptions::new`].
    ///
    /// May switch: no.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// A call on an OS thread.
    fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&std::fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = Arc::clone(&self.inner);
        off(move || call(&file))
    }

    /// Some of what comes next, for a copy; nothing at the end.
    pub(crate) fn read_piece(&self) -> io::Result<Vec<u8>> {
        self.run(|mut file| {
            let mut bytes = vec![0; PIECE];
            loop {
                match file.read(&mut bytes) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => {
                        bytes.truncate(read?);
                        return Ok(bytes);
                    }
                }
            }
        })
    }

    /// Copies all that comes next to where `to` stands, and returns how many bytes that were. If the caller is interrupted,
    /// the piece that is under way is copied all the same.
    pub(crate) fn copy_to(&self, to: &File) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let to = Arc::clone(&to.inner);
            // std lets the kernel copy between such a reader and such a writer.
            match self.run(move |from| io::copy(&mut from.take(LARGE_PIECE), &mut &*to))? {
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
        self.run(move |file| file.set_len(size))
    }

    /// What the file system knows of it.
    ///
    /// # Errors
    /// As [`std::fs::File::metadata`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.run(std::fs::File::metadata)
    }

    /// Changes its permissions.
    ///
    /// # Errors
    /// As [`std::fs::File::set_permissions`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.run(move |file| file.set_permissions(permissions))
    }

    /// Changes its times.
    ///
    /// # Errors
    /// As [`std::fs::File::set_times`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        self.run(move |file| file.set_times(times))
    }

    /// Changes when it was modified.
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

    /// Another descriptor of the same open file: they share the position.
    ///
    /// # Errors
    /// As [`std::fs::File::try_clone`].
    ///
    /// May switch: no.
    pub fn try_clone(&self) -> io::Result<File> {
        self.inner.try_clone().map(File::from)
    }

    /// std's file.
    ///
    /// # Errors
    /// With the file, if a call that was given up (by a kill or timeout) still uses it.
    ///
    /// May switch: no.
    pub fn try_into_std(self) -> Result<std::fs::File, File> {
        Arc::try_unwrap(self.inner).map_err(|inner| File { inner })
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> File {
        File { inner: Arc::new(file) }
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> File {
        File::from(std::fs::File::from(fd))
    }
}

/// For a child's standard streams. The child gets the open file, as from std's.
///
/// # Panics
/// If a call that was given up still uses the file, and there is no descriptor for a second one.
impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        match file.try_into_std() {
            Ok(file) => file.into(),
            Err(file) => match file.inner.try_clone() {
                Ok(file) => file.into(),
                Err(error) => panic!("greenling: a file for a child's standard stream cannot be duplicated: {error}"),
            },
        }
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not std's, which asks the kernel for the path.
        f.debug_struct("File").field("fd", &self.as_raw_fd()).finish_non_exhaustive()
    }
}

/// Reads up to as many bytes as `buf` has with `read`, which gets a buffer of its own.
fn read_into(
    file: &File,
    buf: &mut [u8],
    read: impl FnOnce(&std::fs::File, &mut [u8]) -> io::Result<usize> + Send + 'static,
) -> io::Result<usize> {
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

impl Read for &File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_into(self, buf, |mut file, bytes| file.read(bytes))
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let (bytes, result) = self.run(|mut file| {
            let mut bytes = Vec::new();
            let result = file.read_to_end(&mut bytes);
            Ok((bytes, result))
        })?;
        buf.extend_from_slice(&bytes);
        result
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        let (text, result) = self.run(|mut file| {
            let mut text = String::new();
            let result = file.read_to_string(&mut text);
            Ok((text, result))
        })?;
        buf.push_str(&text);
        result
    }
}

impl Write for &File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
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

/// Reads and writes at a place of the caller's choice: the position in the file does not matter and does not move, also if
/// the call is given up.
impl FileExt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_into(self, buf, move |file, bytes| file.read_at(bytes, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let bytes = buf[..buf.len().min(MOST)].to_owned();
        self.run(move |file| file.write_at(&bytes, offset))
    }
}

/// How to open a file, as [`std::fs::OpenOptions`].
///
/// ```
/// use greenling::fs::OpenOptions;
///
/// let error = OpenOptions::new().read(true).open("/no/such/file").unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// std's.
    inner: std::fs::OpenOptions,
}

impl OpenOptions {
    /// None is set.
    ///
    /// May switch: no.
    #[allow(clippy::new_without_default, reason = "std's has none")]
    pub fn new() -> OpenOptions {
        OpenOptions { inner: std::fs::OpenOptions::new() }
    }

    /// To read it.
    ///
    /// May switch: no.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.inner.read(read);
        self
    }

    /// To write it.
    ///
    /// May switch: no.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.inner.write(write);
        self
    }

    /// To write at its end.
    ///
    /// May switch: no.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.inner.append(append);
        self
    }

    /// To empty it first.
    ///
    /// May switch: no.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.inner.truncate(truncate);
        self
    }

    /// To make it if it is not there.
    ///
    /// May switch: no.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.inner.create(create);
        self
    }

    /// To make it, and fail if it is there.
    ///
    /// May switch: no.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.inner.create_new(create_new);
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// As [`std::fs::OpenOptions::open`].
    ///
    /// # Panics
    /// See [the module](super#panics).
    ///
    /// May switch: yes.
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        let options = self.inner.clone();
        with(path, move |path| options.open(path)).map(File::from)
    }
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.inner.mode(mode);
        self
    }

    fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.inner.custom_flags(flags);
        self
    }
}
