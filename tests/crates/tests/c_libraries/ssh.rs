//! `ssh2`, against a real sshd: each thread has a session of its own. (Channels of one session fail in OS threads, too: a
//! read of one may take what belongs to another.)

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use greenling_crates::servers::Server;
use greenling_crates::{Threads, Worker, patched_with_locks};
use ssh2::Session;

/// How many sessions there are: a handshake computes for tens of milliseconds, at each end.
const SESSIONS: usize = 10;

/// Who logs in.
fn session(addr: SocketAddr, key: &Path) -> Session {
    let mut session = Session::new().unwrap();
    session.set_tcp_stream(TcpStream::connect(addr).unwrap());
    session.handshake().unwrap();
    session.userauth_pubkey_file("root", None, key, None).unwrap();
    session
}

/// Runs a command, and returns what it prints.
fn output(session: &Session, command: &str) -> String {
    let mut channel = session.channel_session().unwrap();
    channel.exec(command).unwrap();
    let mut text = String::new();
    channel.read_to_string(&mut text).unwrap();
    channel.wait_close().unwrap();
    text
}

/// Each makes a file and waits until all files are there, on the server's side.
fn sessions(threads: Threads, addr: SocketAddr, key: &Path, folder: PathBuf) -> Vec<String> {
    std::fs::create_dir(&folder).unwrap();
    let one = |number| {
        let (key, folder) = (key.to_owned(), folder.display().to_string());
        threads.spawn(move || {
            let here = format!("touch {folder}/{number}; while [ $(ls {folder} | wc -l) -lt {SESSIONS} ]");
            output(&session(addr, &key), &format!("{here}; do sleep 0.01; done; echo {number}"))
        })
    };
    let workers: Vec<_> = (0..SESSIONS).map(one).collect();
    workers.into_iter().map(Worker::join).collect()
}

#[test]
fn ssh2_sessions_overlap() {
    let _guard = patched_with_locks();
    let Some((server, key)) = Server::sshd() else { return };
    let [own, os] = [Threads::Own, Threads::Os]
        .map(|threads| sessions(threads, server.addr, &key, server.folder.path().join(format!("{threads:?}"))));
    assert!(own.iter().cloned().eq((0..SESSIONS).map(|number| format!("{number}\n"))), "{own:?}");
    assert_eq!(own, os);
}
