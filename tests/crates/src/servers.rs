//! Real servers, each started by its test in a temporary folder and ended with it.
//!
//! A server listens on a loopback address of this process's own, so that no port that is free when it is looked for is
//! taken by somebody else's connection a moment later. It ends with its test: in order by [`Server`]'s drop; by a
//! signal from the kernel if the OS thread of the test ends in any other way (`setpriv --pdeathsig`).
#![forbid(unsafe_code)]

use std::fs::{File, create_dir_all, read_dir, read_to_string};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

use crate::PAUSE;
use crate::common::free_address;

/// How long a server may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The user for servers that refuse to run as root: `nobody`.
const NOBODY: u32 = 65534;

/// Set where a missing server is a failure, not a reason to skip a test.
const NEEDED: &str = "GREENLING_NEED_SERVERS";

/// Where Debian keeps its PostgreSQL, below a folder for each version.
const POSTGRES: &str = "/usr/lib/postgresql";

/// A server of a test's own.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    child: Child,
    /// The signal that it takes for an order to end at once, without leaving anything behind.
    ending: Signal,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its files; they go with it.
    pub folder: TempDir,
}

impl Server {
    /// A Redis that keeps nothing. `None` if there is none, and the test may be skipped.
    pub fn redis() -> Option<Server> {
        let program = found("redis-server", program_paths("redis-server"))?;
        let (folder, addr) = (folder(), free_address());
        let mut command = bound(Signal::SIGKILL, None);
        command.arg(program).args(["--save", "", "--appendonly", "no", "--bind"]).arg(addr.ip().to_string());
        command.arg("--port").arg(addr.port().to_string()).arg("--dir").arg(folder.path());
        Some(Server::start(command, Signal::SIGKILL, addr, folder))
    }

    /// A MariaDB with no tables, which takes every user for root. It listens on a socket `socket` in its folder as
    /// well.
    pub fn mariadb() -> Option<Server> {
        let program = found("mariadbd", program_paths("mariadbd"))?;
        let (folder, addr) = (folder(), free_address());
        let mut command = bound(Signal::SIGKILL, None);
        command.arg(program).args(["--no-defaults", "--skip-grant-tables", "--innodb-use-native-aio=0"]);
        command.args(["--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--innodb-flush-method=nosync"]);
        if Uid::effective().is_root() {
            command.arg("--user=root"); // it wants to be told
        }
        command.arg(format!("--bind-address={}", addr.ip())).arg(format!("--port={}", addr.port()));
        command.arg(in_folder("--datadir", &folder, "")).arg(in_folder("--socket", &folder, "socket"));
        Some(Server::start(command, Signal::SIGKILL, addr, folder))
    }

    /// A PostgreSQL that trusts every user; its one user is `tester`.
    ///
    /// # Panics
    /// If its folder cannot be set up.
    pub fn postgres() -> Option<Server> {
        let versions = read_dir(POSTGRES).into_iter().flatten().flatten();
        let bin = found("postgres", versions.map(|version| version.path().join("bin/postgres")))?;
        let (folder, addr) = (folder(), free_address());
        let user = Uid::effective().is_root().then_some(NOBODY);
        chown(folder.path(), user, user).expect("a folder of its own");
        let mut initdb = bound(Signal::SIGKILL, user);
        initdb.arg(bin.with_file_name("initdb")).args(["--auth=trust", "--no-sync", "--username=tester", "--pgdata"]);
        let initdb = initdb.arg(folder.path().join("data")).output().expect("initdb");
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        let mut command = bound(Signal::SIGQUIT, user);
        command.arg(bin).arg("-D").arg(folder.path().join("data")).args([
            "-c",
            "fsync=off",
            "-c",
            "max_connections=250",
        ]);
        command.arg("-c").arg(format!("listen_addresses={}", addr.ip())).arg("-p").arg(addr.port().to_string());
        command.arg("-c").arg(in_folder("unix_socket_directories", &folder, ""));
        Some(Server::start(command, Signal::SIGQUIT, addr, folder))
    }

    /// An sshd that lets root in with a key, and that key's file. `None` if there is none, or the caller is not root,
    /// and the test may be skipped.
    ///
    /// # Panics
    /// If its keys cannot be made.
    pub fn sshd() -> Option<(Server, PathBuf)> {
        let root = Uid::effective().is_root().then_some(());
        let program = found("sshd for root", root.into_iter().flat_map(|()| program_paths("sshd")))?;
        let (folder, addr) = (folder(), free_address());
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ecdsa", "-m", "PEM", "-N", "", "-f"]).arg(folder.path().join(name));
            assert!(keygen.status().expect("ssh-keygen").success());
        }
        // What it drops its privileges in.
        create_dir_all("/run/sshd").expect("a folder");
        let mut command = bound(Signal::SIGKILL, None);
        command.arg(program).args(["-D", "-e", "-f", "/dev/null", "-o", "StrictModes=no", "-o", "MaxStartups=200"]);
        command.arg("-o").arg(format!("ListenAddress={addr}")).arg("-o").arg(in_folder("HostKey", &folder, "host"));
        command.arg("-o").arg(in_folder("AuthorizedKeysFile", &folder, "user.pub")).args(["-o", "PidFile=none"]);
        let key = folder.path().join("user");
        Some((Server::start(command, Signal::SIGKILL, addr, folder), key))
    }

    /// Starts it, and waits until it listens.
    fn start(mut command: Command, ending: Signal, addr: SocketAddr, folder: TempDir) -> Server {
        let log = folder.path().join("log");
        let out = File::create(&log).expect("a log");
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a descriptor")).stderr(out);
        let child = command.spawn().expect("setpriv");
        let mut server = Server { child, ending, addr, folder };
        let begin = Instant::now();
        while TcpStream::connect(addr).is_err() {
            let over = server.child.try_wait().expect("a child").is_some() || begin.elapsed() > PATIENCE;
            assert!(!over, "{command:?} does not listen: {}", read_to_string(&log).unwrap_or_default());
            sleep(PAUSE);
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut told = None;
        // As long as it has not been waited for, the number is its own.
        while let Ok(None) = self.child.try_wait() {
            match told {
                None => {
                    let _ = kill(Pid::from_raw(self.child.id().cast_signed()), self.ending);
                    told = Some(Instant::now());
                }
                Some(when) if when.elapsed() > PATIENCE => {
                    let _ = self.child.kill();
                }
                Some(_) => {}
            }
            sleep(PAUSE);
        }
    }
}

/// The first of these paths at which there is a file. If there is none, the test is skipped, and says so where
/// everybody reads it.
///
/// # Panics
/// If there is none, and servers are needed.
fn found(name: &str, mut paths: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = paths.find(|path| path.exists());
    if path.is_none() {
        assert!(std::env::var_os(NEEDED).is_none(), "{NEEDED} is set, and there is no {name}");
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // The test harness hides what tests print by the macros.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: there is no {name}");
    }
    path
}

/// Where a program may be.
fn program_paths(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).collect();
    folders.into_iter().map(move |folder| folder.join(name))
}

/// A command, still to be named, that gets a signal when the OS thread ends that starts it; run as `user`, if one is
/// given.
fn bound(signal: Signal, user: Option<u32>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal.as_str().trim_start_matches("SIG")]);
    if let Some(user) = user {
        command.args([format!("--reuid={user}"), format!("--regid={user}")]).arg("--clear-groups");
    }
    command
}

/// A new folder.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("greenling-").tempdir().expect("a temporary folder")
}

/// `option=folder/name`.
fn in_folder(option: &str, folder: &TempDir, name: &str) -> String {
    let path: &Path = folder.path();
    format!("{option}={}", path.join(name).display())
}
