//! SQLite: `rusqlite`, and `diesel` with a pool. Writers wait for each other in SQLite's busy handler, which sleeps.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diesel::r2d2::ConnectionManager;
use diesel::sql_types::BigInt;
use diesel::{RunQueryDsl, SqliteConnection};
use greenling_crates::{Meeting, Threads, patched, patched_with_locks};
use rusqlite::TransactionBehavior;
use tempfile::TempDir;

/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(100);

/// A database with an empty table.
fn database() -> (TempDir, Arc<Path>) {
    let folder = tempfile::tempdir().unwrap();
    let path: Arc<Path> = folder.path().join("data").into();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (n INTEGER)").unwrap();
    (folder, path)
}

/// Each counts the rows, and adds one, in a transaction. The first one holds the database until all are about to ask.
fn by_rusqlite(threads: Threads) -> Vec<i64> {
    let (folder, path) = database();
    let meeting = Arc::new(Meeting::default());
    let mut counts = threads.many(move |number| {
        let mut connection = rusqlite::Connection::open(&path).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
        meeting.come();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        meeting.await_all();
        let count = transaction.query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0)).unwrap();
        transaction.execute("INSERT INTO t VALUES (?)", [number as i64]).unwrap();
        transaction.commit().unwrap();
        count
    });
    drop(folder);
    counts.sort_unstable();
    counts
}

#[test]
fn rusqlite_writers_wait_for_each_other() {
    let _guard = patched();
    let counts = by_rusqlite(Threads::Own);
    assert!(counts.iter().copied().eq(0..counts.len() as i64), "{counts:?}");
    assert_eq!(counts, by_rusqlite(Threads::Green));
    assert_eq!(counts, by_rusqlite(Threads::Os));
}

/// The same with a pool of ten connections.
fn by_diesel(threads: Threads) -> Vec<i64> {
    let (folder, path) = database();
    let manager = ConnectionManager::<SqliteConnection>::new(path.to_str().unwrap());
    let pool = diesel::r2d2::Pool::builder().max_size(10).connection_timeout(PATIENCE).build(manager).unwrap();
    let meeting = Arc::new(Meeting::default());
    let mut counts = threads.many(move |number| {
        meeting.come();
        let mut connection = pool.get().unwrap();
        let pragma = format!("PRAGMA busy_timeout = {}", PATIENCE.as_millis());
        diesel::sql_query(pragma).execute(&mut connection).unwrap();
        diesel::sql_query("PRAGMA synchronous = OFF").execute(&mut connection).unwrap();
        let add = |connection: &mut SqliteConnection| {
            meeting.await_all();
            let count = diesel::dsl::sql::<BigInt>("SELECT COUNT(*) FROM t").get_result(connection)?;
            diesel::sql_query(format!("INSERT INTO t VALUES ({number})")).execute(connection)?;
            diesel::QueryResult::<i64>::Ok(count)
        };
        connection.immediate_transaction(add).unwrap()
    });
    drop(folder);
    counts.sort_unstable();
    counts
}

#[test]
fn diesel_users_wait_for_a_pool_and_for_sqlite() {
    let _guard = patched_with_locks();
    let counts = by_diesel(Threads::Own);
    assert!(counts.iter().copied().eq(0..counts.len() as i64), "{counts:?}");
    assert_eq!(counts, by_diesel(Threads::Os));
}
