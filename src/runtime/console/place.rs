//! The socket of the console: where it lies, and whether what lies there may be replaced.
//!
//! ```text
//!   GREENLING_CONSOLE=1 -----> $XDG_RUNTIME_DIR/greenling/PID.sock   the folder: mode 0700, of this user
//!     without that variable -> /tmp/greenling-UID/PID.sock
//!   GREENLING_CONSOLE=PATH --> PATH                                  in a folder that is there
//! ```
//!
//! A process that is killed leaves its socket. So a socket that refuses connections is replaced, and those of processes
//! that are gone are removed from the folder when the next one makes a socket there.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Error, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use crate::sys::process::effective_user;
use crate::sys::unix::{bind_and_listen, connect, stream_socket};

/// The environment variable that names the folder for what lives as long as a user is logged in.
const RUNTIME_FOLDER: &str = "XDG_RUNTIME_DIR";

/// The socket of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The path of the socket.
    pub(super) path: PathBuf,
    /// The device and the number of the file, by which another one in its place is told.
    file: (u64, u64),
}

impl Place {
    /// Removes the socket, unless another file has its place.
    pub(super) fn remove(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.file) {
            // There is nothing to do about an error: the next process replaces the socket.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns by what a file is told from others.
fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Returns the path for the socket of this process, and makes its folder.
///
/// # Errors
/// The folder cannot be made, is another user's, or is open to others.
pub(super) fn default_path() -> io::Result<PathBuf> {
    let user = effective_user();
    let folder = match env::var_os(RUNTIME_FOLDER).filter(|folder| Path::new(folder).is_absolute()) {
        Some(folder) => Path::new(&folder).join("greenling"),
        None => PathBuf::from(format!("/tmp/greenling-{user}")),
    };
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(about(&folder, &error.to_string(), error));
        }
        _ => {}
    }
    // Another user may have made the folder in /tmp, or a link, to see what goes there.
    let found = fs::symlink_metadata(&folder)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        let refused = Error::from(ErrorKind::PermissionDenied);
        return Err(about(&folder, "is not a folder that only this user may enter", refused));
    }
    sweep(&folder);
    Ok(folder.join(format!("{}.sock", std::process::id())))
}

/// Makes an error that names a file.
fn about(path: &Path, what: &str, error: Error) -> Error {
    Error::new(error.kind(), format!("{}: {what}", path.display()))
}

/// Removes the sockets of processes that are gone.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.as_bytes().strip_suffix(b".sock");
        let is_gone = |process: &[u8]| !Path::new("/proc").join(OsStr::from_bytes(process)).exists();
        let is_number = |process: &[u8]| process.iter().all(u8::is_ascii_digit) && !process.is_empty();
        // A process of another container may be there without being visible here, but answers.
        if process.is_some_and(|process| is_number(process) && is_gone(process)) && is_stale(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Reports whether a socket is that of no process. Does not wait for a process that is stopped, or that has forked with
/// the socket and does not accept: its queue may be full.
fn is_stale(path: &Path) -> bool {
    let connects = || connect(stream_socket()?.as_fd(), &SocketAddr::from_pathname(path)?);
    connects().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Listens at `path`, where only this user may connect.
///
/// # Errors
/// `AlreadyExists` if a file lies there that is no socket; `AddrInUse` if another process listens there; those of
/// bind(2).
pub(super) fn listen(path: &Path) -> io::Result<(UnixListener, Place)> {
    let failed = |error: Error| about(path, &error.to_string(), error);
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(about(path, "is a file, and not a socket", ErrorKind::AlreadyExists.into()));
        }
        Ok(_) if is_stale(path) => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(about(path, "another program listens there", ErrorKind::AddrInUse.into())),
        Err(_) => {}
    }
    let bound = |socket: OwnedFd| {
        // The file gets the mode that the socket has (`bind_and_listen`), so that there is no moment without it.
        let socket = File::from(socket);
        socket.set_permissions(Permissions::from_mode(0o600))?;
        bind_and_listen(socket.as_fd(), &SocketAddr::from_pathname(path)?)?;
        let listener = UnixListener::from(OwnedFd::from(socket));
        listener.set_nonblocking(false)?;
        Ok(listener)
    };
    let listener = stream_socket().and_then(bound).map_err(failed)?;
    let file = identity(&fs::symlink_metadata(path).map_err(failed)?);
    Ok((listener, Place { path: path.to_owned(), file }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_which_the_queue_is_full_is_in_use_and_nothing_waits_for_it() {
        let path = env::temp_dir().join(format!("greenling-place-{}", std::process::id()));
        drop(fs::remove_file(&path));
        let (listener, _) = listen(&path).unwrap();
        let address = SocketAddr::from_pathname(&path).unwrap();
        let mut queue = Vec::new();
        let error = loop {
            let socket = stream_socket().unwrap();
            match connect(socket.as_fd(), &address) {
                Ok(()) => queue.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(listen(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        // Without its process the socket is replaced.
        drop((listener, queue));
        let (_listener, second) = listen(&path).unwrap();
        let socket = stream_socket().unwrap();
        connect(socket.as_fd(), &address).unwrap();
        second.remove();
        assert!(!path.exists());
    }
}
