//! Files of a simulation: a disk in memory for each host, behind the paths and descriptors that programs use.
//!
//! A simulated file has a descriptor, since a `File` owns one: a placeholder, a duplicate of one descriptor of `/` that
//! can neither be read nor written (`O_PATH`). Its number leads to the file, as that of a simulated socket does to the
//! socket. std's `Metadata` can be made by the kernel only, so that of a simulated file is that of a nameless file in
//! memory which was given the same length, rights and times.
//!
//! * Invariant virtual-2: a number leads to the open file that it was given for. Upheld by `close` before a descriptor
//!   is closed.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{FileTimes, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::fault::{Fault, FaultKind};
use super::file::{FileLock, memory_file};
use super::runtime_syscall::runtime_syscall;
use super::simulation::{Simulated, simulated};
use crate::pure::disk::{Disk, Kind, Lock, OpenId, Stat, Whence};
use crate::pure::network::HostId;
use crate::pure::network::errno::{Errno, Result};

pub(crate) use crate::pure::disk::Options;

/// The rights that what is made does not get.
const UMASK: u32 = 0o022;

/// Returns what stands in for the kernel.
///
/// # Errors
/// Where that is the kernel.
fn inside() -> io::Result<&'static Simulated> {
    simulated().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Calls `f` with the disk of a host.
pub(crate) fn with_disk_of<R>(simulated: &Simulated, host: HostId, f: impl FnOnce(&mut Disk) -> R) -> R {
    let mut files = simulated.files.borrow_mut();
    let now = simulated.time_of_day();
    let disk = files.disks.entry(host).or_insert_with(|| Disk::new(now));
    disk.set_now(now);
    f(disk)
}

/// Calls `f` with the disk of the running thread's host.
fn with_disk<R>(f: impl FnOnce(&mut Disk) -> Result<R>) -> io::Result<R> {
    let simulated = inside()?;
    with_disk_of(simulated, simulated.host(), f).map_err(io::Error::from)
}

/// Returns the bytes of a path.
///
/// # Errors
/// `InvalidInput` if there is a zero byte, as in std.
fn bytes_of(path: &Path) -> io::Result<&[u8]> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "file name contained an unexpected NUL byte"));
    }
    Ok(bytes)
}

/// Returns which of the `possible` faults happens to the calling call, if one does.
fn fault(possible: &[FaultKind]) -> Option<Fault> {
    simulated()?.fault(possible)
}

/// Fails if one of the `possible` faults happens.
fn may_fail(possible: &[FaultKind]) -> io::Result<()> {
    simulated().map_or(Ok(()), |simulated| simulated.may_fail(possible))
}

/// Returns the open file that a descriptor stands for.
///
/// # Errors
/// `Unsupported` for a descriptor of the kernel.
fn open_of(fd: &impl AsFd) -> io::Result<(&'static Simulated, HostId, OpenId)> {
    let simulated = inside()?;
    let found = simulated.files.borrow().numbers.get(&fd.as_fd().as_raw_fd()).copied();
    match found {
        Some((host, id)) => Ok((simulated, host, id)),
        None => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "greenling: a file of the kernel is outside of the simulation",
        )),
    }
}

/// Calls `f` with the open file that a descriptor stands for, and its disk.
fn with_open<R>(fd: &impl AsFd, f: impl FnOnce(&mut Disk, OpenId) -> Result<R>) -> io::Result<R> {
    let (simulated, host, id) = open_of(fd)?;
    with_disk_of(simulated, host, |disk| f(disk, id)).map_err(io::Error::from)
}

/// Opens a file on the disk of the running thread's host, and returns its placeholder.
pub(crate) fn open(path: &Path, options: Options) -> io::Result<OwnedFd> {
    let (simulated, path) = (inside()?, bytes_of(path)?);
    may_fail(&[FaultKind::NoDescriptors])?;
    let host = simulated.host();
    let makes = options.create || options.create_new;
    if makes && with_disk(|disk| Ok(disk.stat(path, true).is_err()))? {
        may_fail(&[FaultKind::NoSpace])?;
    }
    let options = Options { mode: options.mode & !UMASK, ..options };
    let id = with_disk_of(simulated, host, |disk| disk.open(path, options)).map_err(io::Error::from)?;
    let placeholder = simulated.files.borrow_mut().placeholder(host, id);
    if placeholder.is_err() {
        with_disk_of(simulated, host, |disk| disk.close(id));
    }
    placeholder
}

/// Makes `copy`, a duplicate of `fd`, stand for the same simulated open file, if `fd` stands for one.
///
/// # Errors
/// If the simulation has no descriptor for it; then it stands for nothing.
pub(crate) fn duplicated(fd: &impl AsFd, copy: &impl AsFd) -> io::Result<()> {
    let Ok((simulated, host, id)) = open_of(fd) else { return Ok(()) };
    may_fail(&[FaultKind::NoDescriptors])?;
    with_disk_of(simulated, host, |disk| disk.duplicate(id)).map_err(io::Error::from)?;
    simulated.files.borrow_mut().enter(copy.as_fd().as_raw_fd(), host, id);
    Ok(())
}

/// Ends what `fd` stands for, if that is a simulated file. To be called before the descriptor is closed (virtual-2).
#[inline]
pub(crate) fn close(fd: &impl AsFd) {
    if let Some(simulated) = simulated() {
        close_in(simulated, fd.as_fd().as_raw_fd());
    }
}

/// Does the work of [`close`] in an OS thread that simulates.
#[cold]
#[inline(never)]
fn close_in(simulated: &Simulated, number: RawFd) {
    let found = simulated.files.borrow_mut().numbers.remove(&number);
    if let Some((host, id)) = found {
        with_disk_of(simulated, host, |disk| disk.close(id));
    }
}

/// Reads from an open file, at its position or at an offset.
pub(crate) fn read(fd: &impl AsFd, at: Option<u64>, buf: &mut [u8]) -> io::Result<usize> {
    let there = with_open(fd, |disk, id| Ok(disk.readable_len(id, at, buf.len())))?;
    let possible = if there > 1 { &[FaultKind::DiskError, FaultKind::Short][..] } else { &[FaultKind::DiskError] };
    let most = match fault(possible) {
        None => buf.len(),
        Some(fault) if fault.kind == FaultKind::Short => fault.shortened(there),
        Some(fault) => return Err(fault.error()),
    };
    with_open(fd, |disk, id| disk.read(id, at, &mut buf[..most]))
}

/// Writes into an open file, at its position or at an offset.
pub(crate) fn write(fd: &impl AsFd, at: Option<u64>, buf: &[u8]) -> io::Result<usize> {
    open_of(fd)?;
    let possible = if buf.len() > 1 { &[FaultKind::NoSpace, FaultKind::Short][..] } else { &[FaultKind::NoSpace] };
    let most = match fault(possible) {
        None => buf.len(),
        Some(fault) if fault.kind == FaultKind::Short => fault.shortened(buf.len()),
        Some(fault) => return Err(fault.error()),
    };
    with_open(fd, |disk, id| disk.write(id, at, &buf[..most]))
}

/// Moves the position of an open file.
pub(crate) fn seek(fd: &impl AsFd, to: io::SeekFrom) -> io::Result<u64> {
    let to = match to {
        io::SeekFrom::Start(at) => Whence::Start(at),
        io::SeekFrom::End(by) => Whence::End(by),
        io::SeekFrom::Current(by) => Whence::Current(by),
    };
    with_open(fd, |disk, id| disk.seek(id, to))
}

/// Cuts an open file off, or extends it.
pub(crate) fn set_len(fd: &impl AsFd, len: u64) -> io::Result<()> {
    with_open(fd, |disk, id| disk.set_len(id, len))
}

/// Makes an open file or directory durable.
pub(crate) fn sync(fd: &impl AsFd) -> io::Result<()> {
    open_of(fd)?;
    let fails = fault(&[FaultKind::DiskError]).is_some();
    with_open(fd, |disk, id| if fails { disk.fail_sync(id) } else { disk.sync(id) })
}

/// Locks an open file, or unlocks it, without waiting.
pub(crate) fn lock(fd: &impl AsFd, lock: FileLock) -> io::Result<()> {
    let lock = match lock {
        FileLock::Exclusive => Lock::Exclusive,
        FileLock::Shared => Lock::Shared,
        FileLock::None => Lock::None,
    };
    with_open(fd, |disk, id| disk.lock(id, lock))
}

/// Returns the metadata of an open file.
pub(crate) fn metadata_of(fd: &impl AsFd) -> io::Result<Metadata> {
    std_metadata(with_open(fd, |disk, id| disk.stat_open(id))?, None)
}

/// Changes the rights of an open file.
pub(crate) fn set_permissions_of(fd: &impl AsFd, permissions: &Permissions) -> io::Result<()> {
    with_open(fd, |disk, id| disk.set_mode_open(id, permissions.mode()))
}

/// Changes the times of an open file.
pub(crate) fn set_times_of(fd: &impl AsFd, times: FileTimes) -> io::Result<()> {
    let nanos = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    };
    let stat = with_open(fd, |disk, id| disk.stat_open(id))?;
    // std keeps to itself which times are in `times`: the kernel is asked what they come to.
    let set = std_metadata(Stat { kind: Kind::File, ..stat }, Some(times))?;
    let (modified, accessed) = (nanos(set.modified()?), nanos(set.accessed()?));
    with_open(fd, |disk, id| disk.set_times(id, modified, accessed))
}

/// Returns the metadata that std has for what is known of a file; with `times`, after these were set. Of a directory
/// and a symbolic link only the type is right.
fn std_metadata(stat: Stat, times: Option<FileTimes>) -> io::Result<Metadata> {
    let _mark = runtime_syscall();
    match stat.kind {
        Kind::Dir => return std::fs::metadata("/"),
        Kind::Link => return std::fs::symlink_metadata("/proc/self/exe"),
        Kind::File => {}
    }
    let file = memory_file()?;
    let time = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    file.set_len(stat.len)?;
    file.set_permissions(Permissions::from_mode(stat.mode))?;
    file.set_times(FileTimes::new().set_modified(time(stat.modified)).set_accessed(time(stat.accessed)))?;
    times.map_or(Ok(()), |times| file.set_times(times))?;
    file.metadata()
}

/// Returns the metadata of what is at a path; with `follow`, of what a symbolic link leads to.
pub(crate) fn metadata(path: &Path, follow: bool) -> io::Result<Metadata> {
    let path = bytes_of(path)?;
    std_metadata(with_disk(|disk| disk.stat(path, follow))?, None)
}

/// Reports whether there is something at a path.
pub(crate) fn exists(path: &Path) -> io::Result<bool> {
    let path = bytes_of(path)?;
    with_disk(|disk| match disk.stat(path, true) {
        Err(Errno::ENOENT) => Ok(false),
        found => found.map(|_| true),
    })
}

/// Returns a path without symbolic links.
pub(crate) fn canonicalize(path: &Path) -> io::Result<PathBuf> {
    let path = bytes_of(path)?;
    with_disk(|disk| disk.canonicalize(path)).map(|path| PathBuf::from(OsString::from_vec(path)))
}

/// Makes a directory, with `recursive` also those above.
pub(crate) fn create_dir(path: &Path, recursive: bool, mode: u32) -> io::Result<()> {
    may_fail(&[FaultKind::NoSpace])?;
    let make = |path: &Path| bytes_of(path).and_then(|path| with_disk(|disk| disk.make_dir(path, mode & !UMASK)));
    if !recursive {
        return make(path);
    }
    // As in std.
    if path == Path::new("") {
        return Ok(());
    }
    let is_dir = || {
        let path = bytes_of(path)?;
        with_disk(|disk| Ok(disk.stat(path, true)?.kind == Kind::Dir))
    };
    let made = match make(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().ok_or_else(|| io::Error::other("failed to create whole tree"))?;
            create_dir(parent, true, mode)?;
            make(path)
        }
        made => made,
    };
    made.or_else(|error| if is_dir().unwrap_or(false) { Ok(()) } else { Err(error) })
}

/// Removes an empty directory.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    let path = bytes_of(path)?;
    with_disk(|disk| disk.remove_dir(path))
}

/// Removes a directory with all that is in it.
pub(crate) fn remove_dir_all(path: &Path) -> io::Result<()> {
    let path = bytes_of(path)?;
    with_disk(|disk| match disk.stat(path, false)?.kind {
        Kind::Link => disk.remove_file(path),
        Kind::File => Err(Errno::ENOTDIR),
        Kind::Dir => remove_all(disk, path),
    })
}

/// Removes a directory with all that is in it from `disk`.
fn remove_all(disk: &mut Disk, path: &[u8]) -> Result<()> {
    for (name, stat) in disk.read_dir(path)? {
        let below = [path, b"/", &name].concat();
        if stat.kind == Kind::Dir { remove_all(disk, &below)? } else { disk.remove_file(&below)? }
    }
    disk.remove_dir(path)
}

/// Removes a name of a file or of a symbolic link.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    let path = bytes_of(path)?;
    with_disk(|disk| disk.remove_file(path))
}

/// Gives a file another name, in place of the old one.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (bytes_of(from)?, bytes_of(to)?);
    with_disk(|disk| disk.rename(from, to))
}

/// Gives a file one name more.
pub(crate) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (bytes_of(from)?, bytes_of(to)?);
    with_disk(|disk| disk.link(from, to))
}

/// Makes a symbolic link.
pub(crate) fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    let (target, link) = (bytes_of(target)?, bytes_of(link)?);
    with_disk(|disk| disk.symlink(target, link))
}

/// Returns the path that a symbolic link stands for.
pub(crate) fn read_link(path: &Path) -> io::Result<PathBuf> {
    let path = bytes_of(path)?;
    with_disk(|disk| disk.read_link(path)).map(|path| PathBuf::from(OsString::from_vec(path)))
}

/// Returns the names in a directory, with the numbers of their nodes.
pub(crate) fn read_dir(path: &Path) -> io::Result<Vec<(OsString, u64)>> {
    let path = bytes_of(path)?;
    let names = with_disk(|disk| disk.read_dir(path))?;
    Ok(names.into_iter().map(|(name, stat)| (OsString::from_vec(name), stat.ino)).collect())
}

/// Changes the rights of what is at a path.
pub(crate) fn set_permissions(path: &Path, permissions: &Permissions) -> io::Result<()> {
    let path = bytes_of(path)?;
    with_disk(|disk| disk.set_mode(path, permissions.mode()))
}
