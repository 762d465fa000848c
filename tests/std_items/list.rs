//! The list: what is stable in the modules of std that the crate mirrors, and what there is of it here. Each row is
//! compiled.
//!
//! ```text
//!   same!        a type of std's, re-exported          values!      a function or constant
//!   traits!      a trait of std's, re-exported         own!         a type of the crate's, with its methods
//!   own_trait!   a trait of the crate's                implements!  the traits that a type implements
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::io::{BufRead, Read, Seek, Write};
use std::iter::FusedIterator;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::process::Stdio;

use crate::scan::plain;

/// For type parameters: values, closures, paths.
type T = i32;
type F = fn() -> T;
type P = &'static str;
type InScope = for<'scope> fn(&'scope greenling::thread::Scope<'scope, 'static>);

/// What is in the list.
#[derive(Default)]
pub(crate) struct Rows {
    /// Names as `scan` has them, without those below.
    pub(crate) there: BTreeSet<String>,
    /// Types and traits that are std's own, so that all that belongs to them is there.
    pub(crate) same: BTreeSet<String>,
}

/// A name without blanks: `stringify!` puts some.
fn close(words: &str) -> String {
    words.chars().filter(|c| !c.is_whitespace()).collect()
}

impl Rows {
    fn add(&mut self, name: &str) {
        self.there.insert(close(name));
    }

    fn add_same(&mut self, module: &str, name: &str) {
        self.same.insert(format!("{}::{name}", close(module)));
    }

    fn add_implementation(&mut self, module: &str, of_type: &str, of_trait: &str) {
        self.there.insert(format!("{module}::{}: {}", plain(&close(of_type)), plain(&close(of_trait))));
    }
}

macro_rules! same {
    ($rows:ident, $($module:ident)::+: $($name:ident $(<$($argument:tt),*>)?),*) => {{
        use {greenling::$($module)::+ as here, std::$($module)::+ as there};
        let module = stringify!($($module)::+);
        $(
            // Compiles only if both are one type.
            let _: fn(there::$name $(<$($argument),*>)?) -> here::$name $(<$($argument),*>)? = |same| same;
            $rows.add_same(module, stringify!($name));
        )*
    }};
}

macro_rules! traits {
    ($rows:ident, $($module:ident)::+: $($name:ident),*) => {{
        use greenling::$($module)::+ as here;
        let module = stringify!($($module)::+);
        $({
            #[allow(unused_imports)]
            use here::$name as _;
            $rows.add_same(module, stringify!($name));
        })*
    }};
}

macro_rules! values {
    ($rows:ident, $($module:ident)::+: $($name:ident $(::<$($argument:ty),*>)?),*) => {{
        use greenling::$($module)::+ as here;
        let module = stringify!($($module)::+);
        $(
            let _ = here::$name $(::<$($argument),*>)?;
            $rows.add(&format!("{module}::{}", stringify!($name)));
        )*
    }};
}

macro_rules! own {
    ($rows:ident, $($path:ident)::+ $([$($of:tt)*])? $(: $($method:ident $(::<$($argument:ty),*>)?),*)?) => {
        own!(
            @type $rows, [greenling::$($path)::+ $(<$($of)*>)?], stringify!($($path)::+)
            $(, $($method $(::<$($argument),*>)?),*)?
        );
    };
    (@type $rows:ident, [$type:ty], $name:expr $(, $($method:ident $(::<$($argument:ty),*>)?),*)?) => {
        let _: Option<$type> = None;
        $rows.add($name);
        $($(
            let _ = <$type>::$method $(::<$($argument),*>)?;
            $rows.add(&format!("{}::{}", $name, stringify!($method)));
        )*)?
    };
}

macro_rules! own_trait {
    ($rows:ident, $($path:ident)::+ for $type:ty: $($method:ident $(::<$($argument:ty),*>)?),*) => {{
        use greenling::$($path)::+ as Here;
        let name = stringify!($($path)::+);
        $rows.add(name);
        $(
            let _ = <$type as Here>::$method $(::<$($argument),*>)?;
            $rows.add(&format!("{name}::{}", stringify!($method)));
        )*
    }};
}

macro_rules! implements {
    ($rows:ident, $module:literal: $($type:ty: $($of_trait:path),*;)*) => {$($({
        fn check<Type: $of_trait>() {}
        let _ = check::<$type>;
        $rows.add_implementation($module, stringify!($type), stringify!($of_trait));
    })*)*};
}

/// All of it.
pub(crate) fn rows() -> Rows {
    let rows = &mut Rows::default();
    fs(rows);
    io(rows);
    net(rows);
    os_fd(rows);
    os_linux_net(rows);
    os_unix_fs(rows);
    os_unix_net(rows);
    os_unix_process(rows);
    process(rows);
    sync(rows);
    sync_mpsc(rows);
    thread(rows);
    time(rows);
    std::mem::take(rows)
}

/// `std::fs`.
fn fs(rows: &mut Rows) {
    same!(rows, fs: FileTimes, FileType, Metadata, Permissions);
    values!(rows, fs: canonicalize::<P>, copy::<P, P>, create_dir::<P>, create_dir_all::<P>, exists::<P>,
        hard_link::<P, P>, metadata::<P>, read::<P>, read_dir::<P>, read_link::<P>, read_to_string::<P>,
        remove_dir::<P>, remove_dir_all::<P>, remove_file::<P>, rename::<P, P>, set_permissions::<P>,
        symlink_metadata::<P>, write::<P, P>);
    own!(rows, fs::DirBuilder: create::<P>, new, recursive);
    own!(rows, fs::DirEntry: file_name, file_type, metadata, path);
    own!(rows, fs::File: create::<P>, create_new::<P>, lock, lock_shared, metadata, open::<P>, options, set_len,
        set_modified, set_permissions, set_times, sync_all, sync_data, try_clone, try_lock, try_lock_shared, unlock);
    own!(rows, fs::OpenOptions: append, create, create_new, new, open::<P>, read, truncate, write);
    own!(rows, fs::ReadDir);
    own!(rows, fs::TryLockError);
    implements!(rows, "fs":
        &greenling::fs::File: Read, Seek, Write;
        greenling::fs::DirBuilder: Debug;
        greenling::fs::DirEntry: Debug;
        std::io::Error: From<greenling::fs::TryLockError>;
        greenling::fs::File: Debug, Read, Seek, Write;
        greenling::fs::OpenOptions: Clone, Debug;
        greenling::fs::ReadDir: Debug, Iterator;
        greenling::fs::TryLockError: Debug, Display, Error;
    );
}

/// `std::io`.
fn io(rows: &mut Rows) {
    traits!(rows, io: IsTerminal);
    values!(rows, io: copy::<std::io::Empty, std::io::Sink>, pipe, stderr, stdin, stdout);
    own!(rows, io::PipeReader: try_clone);
    own!(rows, io::PipeWriter: try_clone);
    own!(rows, io::Stderr: lock);
    own!(rows, io::StderrLock['static]);
    own!(rows, io::Stdin: lines, lock, read_line);
    own!(rows, io::StdinLock['static]);
    own!(rows, io::Stdout: lock);
    own!(rows, io::StdoutLock['static]);
    implements!(rows, "io":
        &greenling::io::PipeReader: Read;
        &greenling::io::PipeWriter: Write;
        &greenling::io::Stderr: Write;
        &greenling::io::Stdin: Read;
        &greenling::io::Stdout: Write;
        greenling::io::PipeReader: Debug, Read;
        greenling::io::PipeWriter: Debug, Write;
        greenling::io::Stderr: Debug, RefUnwindSafe, UnwindSafe, Write;
        greenling::io::StderrLock<'static>: Debug, RefUnwindSafe, UnwindSafe, Write;
        greenling::io::Stdin: Debug, Read;
        greenling::io::StdinLock<'static>: BufRead, Debug, Read;
        greenling::io::Stdout: Debug, RefUnwindSafe, UnwindSafe, Write;
        greenling::io::StdoutLock<'static>: Debug, RefUnwindSafe, UnwindSafe, Write;
    );
}

/// `std::net`.
fn net(rows: &mut Rows) {
    own_trait!(rows, net::ToSocketAddrs for P: to_socket_addrs);
    let _: Option<<P as greenling::net::ToSocketAddrs>::Iter> = None;
    rows.add("net::ToSocketAddrs::Iter");
    same!(rows, net: AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6);
    own!(rows, net::Incoming['static]);
    own!(rows, net::TcpListener: accept, bind::<P>, incoming, local_addr, set_nonblocking, set_ttl, take_error,
        try_clone, ttl);
    own!(rows, net::TcpStream: connect::<P>, connect_timeout, local_addr, nodelay, peek, peer_addr, read_timeout,
        set_nodelay, set_nonblocking, set_read_timeout, set_ttl, set_write_timeout, shutdown, take_error, try_clone,
        ttl, write_timeout);
    own!(rows, net::UdpSocket: bind::<P>, broadcast, connect::<P>, join_multicast_v4, join_multicast_v6,
        leave_multicast_v4, leave_multicast_v6, local_addr, multicast_loop_v4, multicast_loop_v6, multicast_ttl_v4,
        peek, peek_from, peer_addr, read_timeout, recv, recv_from, send, send_to::<P>, set_broadcast,
        set_multicast_loop_v4, set_multicast_loop_v6, set_multicast_ttl_v4, set_nonblocking, set_read_timeout, set_ttl,
        set_write_timeout, take_error, try_clone, ttl, write_timeout);
    implements!(rows, "net":
        &greenling::net::TcpStream: Read, Write;
        greenling::net::Incoming<'static>: Debug, FusedIterator, Iterator;
        greenling::net::TcpListener: Debug;
        greenling::net::TcpStream: Debug, Read, Write;
        greenling::net::UdpSocket: Debug;
    );
}

/// `std::os::fd`.
fn os_fd(rows: &mut Rows) {
    same!(rows, os::fd: BorrowedFd, OwnedFd, RawFd);
    traits!(rows, os::fd: AsFd, AsRawFd, FromRawFd, IntoRawFd);
    implements!(rows, "os::fd":
        greenling::fs::File: AsFd, AsRawFd, From<OwnedFd>, IntoRawFd;
        greenling::io::PipeReader: AsFd, AsRawFd, From<OwnedFd>, IntoRawFd;
        greenling::io::PipeWriter: AsFd, AsRawFd, From<OwnedFd>, IntoRawFd;
        greenling::io::Stderr: AsFd, AsRawFd;
        greenling::io::StderrLock<'static>: AsFd, AsRawFd;
        greenling::io::Stdin: AsFd, AsRawFd;
        greenling::io::StdinLock<'static>: AsFd, AsRawFd;
        greenling::io::Stdout: AsFd, AsRawFd;
        greenling::io::StdoutLock<'static>: AsFd, AsRawFd;
        greenling::net::TcpListener: AsFd, From<OwnedFd>;
        greenling::net::TcpStream: AsFd, From<OwnedFd>;
        greenling::net::UdpSocket: AsFd, From<OwnedFd>;
    );
}

/// `std::os::linux::net`.
fn os_linux_net(rows: &mut Rows) {
    own_trait!(rows, os::linux::net::TcpStreamExt for greenling::net::TcpStream: quickack, set_quickack);
    traits!(rows, os::linux::net: SocketAddrExt);
    implements!(rows, "os::linux::net":
        greenling::net::TcpStream: greenling::os::linux::net::TcpStreamExt;
    );
}

/// `std::os::unix::fs`.
fn os_unix_fs(rows: &mut Rows) {
    traits!(rows, os::unix::fs: DirBuilderExt, DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt,
        PermissionsExt);
    values!(rows, os::unix::fs: chown::<P>, chroot::<P>, fchown::<std::fs::File>, lchown::<P>, symlink::<P, P>);
    implements!(rows, "os::unix::fs":
        greenling::fs::DirBuilder: greenling::os::unix::fs::DirBuilderExt;
        greenling::fs::DirEntry: greenling::os::unix::fs::DirEntryExt;
        greenling::fs::File: greenling::os::unix::fs::FileExt;
        greenling::fs::OpenOptions: greenling::os::unix::fs::OpenOptionsExt;
    );
}

/// `std::os::unix::net`.
fn os_unix_net(rows: &mut Rows) {
    same!(rows, os::unix::net: SocketAddr);
    own!(rows, os::unix::net::Incoming['static]);
    own!(rows, os::unix::net::UnixDatagram: bind::<P>, bind_addr, connect::<P>, connect_addr, local_addr, pair,
        peer_addr, read_timeout, recv, recv_from, send, send_to::<P>, send_to_addr, set_nonblocking, set_read_timeout,
        set_write_timeout, shutdown, take_error, try_clone, unbound, write_timeout);
    own!(rows, os::unix::net::UnixListener: accept, bind::<P>, bind_addr, incoming, local_addr, set_nonblocking,
        take_error, try_clone);
    own!(rows, os::unix::net::UnixStream: connect::<P>, connect_addr, local_addr, pair, peer_addr, read_timeout,
        set_nonblocking, set_read_timeout, set_write_timeout, shutdown, take_error, try_clone, write_timeout);
    implements!(rows, "os::unix::net":
        &greenling::os::unix::net::UnixListener: IntoIterator;
        &greenling::os::unix::net::UnixStream: Read, Write;
        greenling::os::unix::net::Incoming<'static>: Debug, Iterator;
        std::os::fd::OwnedFd: From<greenling::os::unix::net::UnixDatagram>,
            From<greenling::os::unix::net::UnixListener>, From<greenling::os::unix::net::UnixStream>;
        greenling::os::unix::net::UnixDatagram: AsFd, AsRawFd, Debug, From<OwnedFd>, IntoRawFd;
        greenling::os::unix::net::UnixListener: AsFd, AsRawFd, Debug, From<OwnedFd>, IntoRawFd;
        greenling::os::unix::net::UnixStream: AsFd, AsRawFd, Debug, From<OwnedFd>, IntoRawFd, Read, Write;
    );
}

/// `std::os::unix::process`.
fn os_unix_process(rows: &mut Rows) {
    own_trait!(rows, os::unix::process::CommandExt for greenling::process::Command:
        arg0::<P>, exec, gid, process_group, uid);
    traits!(rows, os::unix::process: ExitStatusExt);
    values!(rows, os::unix::process: parent_id);
    implements!(rows, "os::unix::process":
        greenling::process::ChildStderr: AsFd, AsRawFd, From<OwnedFd>, IntoRawFd;
        greenling::process::ChildStdin: AsFd, AsRawFd, From<OwnedFd>, IntoRawFd;
        greenling::process::ChildStdout: AsFd, AsRawFd, From<OwnedFd>, IntoRawFd;
        greenling::process::Command: greenling::os::unix::process::CommandExt;
        std::os::fd::OwnedFd: From<greenling::process::ChildStderr>, From<greenling::process::ChildStdin>,
            From<greenling::process::ChildStdout>;
    );
}

/// `std::process`.
fn process(rows: &mut Rows) {
    same!(rows, process: CommandArgs<'static>, CommandEnvs<'static>, ExitCode, ExitStatus, Output, Stdio);
    traits!(rows, process: Termination);
    values!(rows, process: abort, exit, id);
    own!(rows, process::Child: id, kill, try_wait, wait, wait_with_output);
    own!(rows, process::ChildStderr);
    own!(rows, process::ChildStdin);
    own!(rows, process::ChildStdout);
    own!(rows, process::Command: arg::<P>, args::<[P; 1], P>, current_dir::<P>, env::<P, P>, env_clear,
        env_remove::<P>, envs::<[(P, P); 1], P, P>, get_args, get_current_dir, get_envs, get_program, new::<P>, output,
        spawn, status, stderr::<Stdio>, stdin::<Stdio>, stdout::<Stdio>);
    implements!(rows, "process":
        &greenling::process::ChildStdin: Write;
        greenling::process::Child: Debug;
        greenling::process::ChildStderr: Debug, Read;
        greenling::process::ChildStdin: Debug, Write;
        greenling::process::ChildStdout: Debug, Read;
        greenling::process::Command: Debug;
    );
}

/// `std::sync`.
fn sync(rows: &mut Rows) {
    let _ = greenling::sync::atomic::AtomicBool::new;
    rows.add("sync::atomic");
    same!(rows, sync: Arc<T>, LockResult<T>, PoisonError<T>, TryLockError<T>, TryLockResult<T>, Weak<T>);
    own!(rows, sync::Barrier: new, wait);
    own!(rows, sync::BarrierWaitResult: is_leader);
    own!(rows, sync::Condvar: new, notify_all, notify_one, wait::<T>, wait_timeout::<T>, wait_timeout_while::<T,
        fn(&mut T) -> bool>, wait_while::<T, fn(&mut T) -> bool>);
    own!(rows, sync::LazyLock[T, F]: force, force_mut, get, get_mut, new);
    own!(rows, sync::Mutex[T]: clear_poison, get_mut, into_inner, is_poisoned, lock, new, try_lock);
    own!(rows, sync::MutexGuard['static, T]);
    own!(rows, sync::Once: call_once::<fn()>, call_once_force::<fn(&greenling::sync::OnceState)>, is_completed, new,
        wait, wait_force);
    own!(rows, sync::OnceLock[T]: get, get_mut, get_or_init::<F>, into_inner, new, set, take, wait);
    own!(rows, sync::OnceState: is_poisoned);
    own!(rows, sync::RwLock[T]: clear_poison, get_mut, into_inner, is_poisoned, new, read, try_read, try_write,
        write);
    own!(rows, sync::RwLockReadGuard['static, T]);
    own!(rows, sync::RwLockWriteGuard['static, T]: downgrade);
    own!(rows, sync::WaitTimeoutResult: timed_out);
    implements!(rows, "sync":
        greenling::sync::Barrier: Debug, RefUnwindSafe;
        greenling::sync::BarrierWaitResult: Debug;
        greenling::sync::Condvar: Debug, Default;
        greenling::sync::LazyLock<T, F>: Debug, Default, From<T>, Deref, DerefMut, RefUnwindSafe, UnwindSafe;
        greenling::sync::Mutex<T>: Debug, Default, From<T>;
        greenling::sync::MutexGuard<'static, T>: Debug, Deref, DerefMut, Display;
        greenling::sync::Once: Debug, RefUnwindSafe, UnwindSafe;
        greenling::sync::OnceLock<T>: Clone, Debug, Default, Eq, From<T>, PartialEq, RefUnwindSafe, UnwindSafe;
        greenling::sync::OnceState: Debug;
        greenling::sync::RwLock<T>: Debug, Default, From<T>;
        greenling::sync::RwLockReadGuard<'static, T>: Debug, Deref, Display;
        greenling::sync::RwLockWriteGuard<'static, T>: Debug, Deref, DerefMut, Display;
        greenling::sync::WaitTimeoutResult: Clone, Copy, Debug, Eq, PartialEq;
    );
}

/// `std::sync::mpsc`.
fn sync_mpsc(rows: &mut Rows) {
    same!(rows, sync::mpsc: RecvError, RecvTimeoutError, SendError<T>, TryRecvError, TrySendError<T>);
    values!(rows, sync::mpsc: channel::<T>, sync_channel::<T>);
    own!(rows, sync::mpsc::IntoIter[T]);
    own!(rows, sync::mpsc::Iter['static, T]);
    own!(rows, sync::mpsc::Receiver[T]: iter, recv, recv_timeout, try_iter, try_recv);
    own!(rows, sync::mpsc::Sender[T]: send);
    own!(rows, sync::mpsc::SyncSender[T]: send, try_send);
    own!(rows, sync::mpsc::TryIter['static, T]);
    implements!(rows, "sync::mpsc":
        &greenling::sync::mpsc::Receiver<T>: IntoIterator;
        greenling::sync::mpsc::IntoIter<T>: Debug, Iterator;
        greenling::sync::mpsc::Iter<'static, T>: Debug, Iterator;
        greenling::sync::mpsc::Receiver<T>: Debug, IntoIterator;
        greenling::sync::mpsc::Sender<T>: Clone, Debug;
        greenling::sync::mpsc::SyncSender<T>: Clone, Debug;
        greenling::sync::mpsc::TryIter<'static, T>: Debug, Iterator;
    );
}

/// `std::thread`.
fn thread(rows: &mut Rows) {
    same!(rows, thread: Result<T>);
    values!(rows, thread: available_parallelism, current, panicking, park, park_timeout, scope::<InScope, ()>,
        sleep, spawn::<F, T>, yield_now);
    own!(rows, thread::AccessError);
    own!(rows, thread::Builder: name, new, spawn::<F, T>, spawn_scoped::<F, T>, stack_size);
    own!(rows, thread::JoinHandle[T]: is_finished, join, thread);
    own!(rows, thread::LocalKey[Cell<T>]:
        get, replace, set, take, try_with::<fn(&Cell<T>), ()>, with::<fn(&Cell<T>), ()>);
    own!(rows, thread::LocalKey[RefCell<T>]:
        replace, set, take, with_borrow::<fn(&T), ()>, with_borrow_mut::<fn(&mut T), ()>);
    own!(rows, thread::Scope['static, 'static]: spawn::<F, T>);
    own!(rows, thread::ScopedJoinHandle['static, T]: is_finished, join, thread);
    own!(rows, thread::Thread: id, name, unpark);
    own!(rows, thread::ThreadId);
    implements!(rows, "thread":
        greenling::thread::AccessError: Clone, Copy, Debug, Display, Eq, Error, PartialEq;
        greenling::thread::Builder: Debug;
        greenling::thread::JoinHandle<T>: Debug;
        greenling::thread::LocalKey<T>: Debug;
        greenling::thread::Scope<'static, 'static>: Debug;
        greenling::thread::ScopedJoinHandle<'static, T>: Debug;
        greenling::thread::Thread: Clone, Debug;
        greenling::thread::ThreadId: Clone, Copy, Debug, Eq, Hash, PartialEq;
    );
}

/// `std::time`.
fn time(rows: &mut Rows) {
    same!(rows, time: Duration, Instant, SystemTime, SystemTimeError, TryFromFloatSecsError);
    values!(rows, time: UNIX_EPOCH);
}
