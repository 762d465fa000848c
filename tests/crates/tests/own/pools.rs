//! Connection pools with fewer connections than users, against real servers: `r2d2` with `redis`, `postgres` and `mysql`,
//! and `mysql`'s own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use greenling_crates::servers::Server;
use greenling_crates::{PAUSE, Threads, Worker, child, patched_with_locks, stderr, stdout};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, PoolConstraints, PoolOpts};
use postgres::NoTls;

/// How many connections the pools have.
const POOL: u32 = 10;

/// Makes connections for `r2d2`.
struct Make<F>(F);

impl<C: Send + 'static, F: Fn() -> io::Result<C> + Send + Sync + 'static> r2d2::ManageConnection for Make<F> {
    type Connection = C;
    type Error = io::Error;

    fn connect(&self) -> io::Result<C> {
        (self.0)()
    }

    fn is_valid(&self, _: &mut C) -> io::Result<()> {
        Ok(())
    }

    fn has_broken(&self, _: &mut C) -> bool {
        false
    }
}

/// Hands a connection to what it is given.
type Lend<C> = Arc<dyn Fn(&mut dyn FnMut(&mut C)) + Send + Sync>;

/// Makes a pool of `r2d2`'s.
fn r2d2_pool<C: Send + 'static>(connect: impl Fn() -> io::Result<C> + Send + Sync + 'static) -> Lend<C> {
    let pool = r2d2::Pool::builder().max_size(POOL).build(Make(connect)).unwrap();
    Arc::new(move |use_it| use_it(&mut pool.get().unwrap()))
}

/// Lets all use the pool. The first users wait at the server, for `open`, which returns when the server says that as many
/// are waiting as there are connections, and has let them go. Returns what they got.
fn used<C: Send + 'static>(
    threads: Threads,
    lend: &Lend<C>,
    open: impl FnOnce() + Send + 'static,
    ask: fn(&mut C, usize) -> String,
) -> Vec<String> {
    let opener = threads.spawn(open);
    // The most that have had a connection at once. Relaxed: numbers, read when all threads have been joined.
    let counts = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let (lend, by_them) = (Arc::clone(lend), Arc::clone(&counts));
    let values = threads.many(move |number| {
        let mut value = None;
        lend(&mut |connection| {
            let [now, most] = &*by_them;
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            value = Some(ask(connection, number));
            now.fetch_sub(1, Ordering::Relaxed);
        });
        value.unwrap()
    });
    opener.join();
    assert_eq!(counts[1].load(Ordering::Relaxed), POOL as usize);
    values
}

/// Light threads cannot wait in a lock, so the second user blocks the OS thread, and the first with it. The pool gives up
/// after its own time limit; before that the user is told.
#[test]
fn an_exhausted_pool_of_light_threads_is_reported() {
    let out = child("pools::an_exhausted_pool_of_light_threads_is_reported", || {
        let _guard = patched_with_locks();
        let limit = Duration::from_millis(1500);
        let pool = r2d2::Pool::builder().max_size(1).connection_timeout(limit).build(Make(|| Ok(()))).unwrap();
        let user = |_| {
            let pool = pool.clone();
            Threads::Green.spawn(move || pool.get().map(|_connection| sleep(10 * PAUSE)).is_ok())
        };
        let users: Vec<_> = (0..2).map(user).collect();
        let served: Vec<_> = users.into_iter().map(Worker::join).collect();
        println!("{served:?}");
    });
    let said = stderr(&out);
    assert!(stdout(&out).contains("[true, false]"), "{said}");
    assert!(said.contains("has blocked its OS thread for 1.0 s"), "{said}");
}

fn redis_connection(addr: SocketAddr) -> redis::Connection {
    redis::Client::open((addr.ip().to_string(), addr.port())).unwrap().get_connection().unwrap()
}

#[test]
fn r2d2_users_wait_for_connections_to_redis() {
    let _guard = patched_with_locks();
    let Some(server) = Server::redis() else { return };
    let addr = server.addr;
    let ask = |connection: &mut redis::Connection, number| {
        let _: (String, usize) = redis::cmd("BLPOP").arg("door").arg(0).query(connection).unwrap();
        redis::cmd("ECHO").arg(format!("{number};").repeat(10_000)).query(connection).unwrap()
    };
    let open = move || {
        let mut connection = redis_connection(addr);
        let all = format!("blocked_clients:{POOL}\r\n");
        while !redis::cmd("INFO").arg("clients").query::<String>(&mut connection).unwrap().contains(&all) {
            sleep(PAUSE);
        }
        let tokens: Vec<_> = (0..greenling_crates::MANY).collect();
        redis::cmd("RPUSH").arg("door").arg(tokens).exec(&mut connection).unwrap();
    };
    let lend = r2d2_pool(move || Ok(redis_connection(addr)));
    let values = used(Threads::Own, &lend, open, ask);
    assert_eq!(values, used(Threads::Os, &lend, open, ask));
    assert_eq!(values[7], "7;".repeat(10_000));
}

fn postgres_connection(addr: SocketAddr) -> io::Result<postgres::Client> {
    let config = format!("host={} port={} user=tester dbname=postgres", addr.ip(), addr.port());
    postgres::Client::connect(&config, NoTls).map_err(io::Error::other)
}

/// Waits for a lock that the opener has at first, and returns many of the number.
fn ask_postgres(client: &mut postgres::Client, number: usize) -> String {
    let mut transaction = client.transaction().unwrap();
    transaction.execute("SELECT pg_advisory_xact_lock_shared(1)", &[]).unwrap();
    let row = transaction.query_one("SELECT repeat($1::text || ';', 10000)", &[&number.to_string()]).unwrap();
    transaction.commit().unwrap();
    row.get(0)
}

/// Takes the lock, and returns what waits until `many` wait for it, and gives it back.
fn postgres_door(addr: SocketAddr, many: usize) -> impl FnOnce() + Send + 'static {
    let mut client = postgres_connection(addr).unwrap();
    client.execute("SELECT pg_advisory_lock(1)", &[]).unwrap();
    move || {
        let waiting = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        while client.query_one(waiting, &[]).unwrap().get::<_, i64>(0) < many as i64 {
            sleep(PAUSE);
        }
        client.execute("SELECT pg_advisory_unlock(1)", &[]).unwrap();
    }
}

/// A server that has started.
fn postgres_server() -> Option<Server> {
    let server = Server::postgres()?;
    while postgres_connection(server.addr).is_err() {
        sleep(PAUSE);
    }
    Some(server)
}

#[test]
fn postgres_clients_overlap_without_a_pool() {
    let _guard = patched_with_locks();
    let Some(server) = postgres_server() else { return };
    let addr = server.addr;
    let [own, os] = [Threads::Own, Threads::Os].map(|threads| {
        let opener = threads.spawn(postgres_door(addr, greenling_crates::MANY));
        let values = threads.many(move |number| ask_postgres(&mut postgres_connection(addr).unwrap(), number));
        opener.join();
        values
    });
    assert_eq!(own, os);
    assert_eq!(own[7], "7;".repeat(10_000));
}

#[test]
fn r2d2_users_wait_for_connections_to_postgres() {
    let _guard = patched_with_locks();
    let Some(server) = postgres_server() else { return };
    let addr = server.addr;
    let lend = r2d2_pool(move || postgres_connection(addr));
    let values = used(Threads::Own, &lend, postgres_door(addr, POOL as usize), ask_postgres);
    assert_eq!(values, used(Threads::Os, &lend, postgres_door(addr, POOL as usize), ask_postgres));
    assert_eq!(values[7], "7;".repeat(10_000));
}

fn mysql_options(addr: SocketAddr) -> OptsBuilder {
    let ip = Some(addr.ip().to_string());
    OptsBuilder::new().ip_or_hostname(ip).tcp_port(addr.port()).prefer_socket(false).user(Some("tester"))
}

/// Waits for a lock that the opener has at first, and returns many of the number.
fn ask_mysql(connection: &mut impl Queryable, number: usize) -> String {
    assert_eq!(connection.query_first("SELECT GET_LOCK('door', 60)").unwrap(), Some(1));
    assert_eq!(connection.query_first("SELECT RELEASE_LOCK('door')").unwrap(), Some(1));
    connection.exec_first("SELECT REPEAT(CONCAT(CAST(? AS CHAR), ';'), 10000)", (number,)).unwrap().unwrap()
}

/// Takes the lock, and returns what waits until as many wait for it as there are connections, and gives it back.
fn mysql_door(addr: SocketAddr) -> impl FnOnce() + Send + 'static {
    let mut owner = Conn::new(mysql_options(addr)).unwrap();
    assert_eq!(owner.query_first("SELECT GET_LOCK('door', 0)").unwrap(), Some(1));
    move || {
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'";
        while owner.query_first(waiting).unwrap() != Some(POOL) {
            sleep(PAUSE);
        }
        assert_eq!(owner.query_first("SELECT RELEASE_LOCK('door')").unwrap(), Some(1));
    }
}

#[test]
fn r2d2_users_and_mysql_users_wait_for_connections_to_mariadb() {
    let _guard = patched_with_locks();
    let Some(server) = Server::mariadb() else { return };
    let addr = server.addr;
    let by_r2d2 = r2d2_pool(move || Conn::new(mysql_options(addr)).map_err(io::Error::other));
    let values = used(Threads::Own, &by_r2d2, mysql_door(addr), ask_mysql);
    assert_eq!(values, used(Threads::Os, &by_r2d2, mysql_door(addr), ask_mysql));
    assert_eq!(values[7], "7;".repeat(10_000));
    // mysql's own pool.
    let limit = PoolOpts::new().with_constraints(PoolConstraints::new(0, POOL as usize).unwrap());
    let pool = mysql::Pool::new(mysql_options(addr).pool_opts(limit)).unwrap();
    let own: Lend<mysql::PooledConn> = Arc::new(move |use_it| use_it(&mut pool.get_conn().unwrap()));
    for threads in [Threads::Own, Threads::Os] {
        assert_eq!(used(threads, &own, mysql_door(addr), ask_mysql), values);
    }
}
