//! The `mysql` crate, against a real MariaDB.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::thread::sleep;

use greenling::blocking;
use greenling_crates::servers::Server;
use greenling_crates::{MANY, PAUSE, Threads, patched};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Pool, PoolConstraints, PoolOpts};

/// Over TCP.
fn over_tcp(server: &Server) -> OptsBuilder {
    let (ip, port) = (server.addr.ip().to_string(), server.addr.port());
    OptsBuilder::new().ip_or_hostname(Some(ip)).tcp_port(port).prefer_socket(false).user(Some("tester"))
}

/// Over a Unix socket.
fn over_socket(server: &Server) -> OptsBuilder {
    let socket: PathBuf = server.folder.path().join("socket");
    OptsBuilder::new().socket(Some(socket.display().to_string())).user(Some("tester"))
}

/// All wait for a lock that the server gives to one session at a time. Its owner lets go when the server says that all
/// of them are waiting.
fn locked(threads: Threads, server: &Server) -> Vec<String> {
    let ways = [over_tcp(server), over_socket(server)];
    let mut owner = Conn::new(ways[0].clone()).unwrap();
    assert_eq!(owner.query_first("SELECT GET_LOCK('door', 0)").unwrap(), Some(1));
    let opener = threads.spawn(move || {
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'";
        while owner.query_first(waiting).unwrap() != Some(MANY) {
            sleep(PAUSE);
        }
        assert_eq!(owner.query_first("SELECT RELEASE_LOCK('door')").unwrap(), Some(1));
    });
    let values = threads.many(move |number| {
        let mut connection = Conn::new(ways[number % 2].clone()).unwrap();
        assert_eq!(connection.query_first("SELECT GET_LOCK('door', 60)").unwrap(), Some(1));
        assert_eq!(connection.query_first("SELECT RELEASE_LOCK('door')").unwrap(), Some(1));
        let repeat = "SELECT REPEAT(CONCAT(CAST(? AS CHAR), ';'), 10000)";
        connection.exec_first(repeat, (number,)).unwrap().unwrap()
    });
    opener.join();
    values
}

#[test]
fn mysql_sessions_wait_for_each_other_on_a_real_server() {
    let _guard = patched();
    let Some(server) = Server::mariadb() else { return };
    let values = locked(Threads::Green, &server);
    assert_eq!(values, locked(Threads::Os, &server));
    assert_eq!(values[7], "7;".repeat(10_000));
}

/// The pool holds a lock of `std`'s while it connects, and waits for a condition variable when it is empty: a matter
/// for OS threads. What it gives out is used here.
#[test]
fn a_pool_of_mysql_is_asked_on_os_threads() {
    let _guard = patched();
    let Some(server) = Server::mariadb() else { return };
    let limit = PoolOpts::new().with_constraints(PoolConstraints::new(0, 3).unwrap());
    let pool = Pool::new(over_tcp(&server).pool_opts(limit)).unwrap();
    let ids = Threads::Green.many(move |_| {
        let pool = pool.clone();
        let mut connection = blocking(move || pool.get_conn()).unwrap();
        let id: u32 =
            connection.query_first("SELECT CONNECTION_ID() FROM (SELECT SLEEP(0.001)) AS a").unwrap().unwrap();
        id
    });
    let mut distinct = ids;
    distinct.sort_unstable();
    distinct.dedup();
    assert!((1..=3).contains(&distinct.len()), "{distinct:?}");
}
