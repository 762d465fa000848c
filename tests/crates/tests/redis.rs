//! The `redis` crate's blocking client, against a real Redis.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;

use greenling_crates::servers::Server;
use greenling_crates::{MANY, PAUSE, Threads, patched};

fn connect(addr: SocketAddr) -> redis::Connection {
    redis::Client::open((addr.ip().to_string(), addr.port())).unwrap().get_connection().unwrap()
}

/// All wait in BLPOP, which the server answers after a push. That happens when it says that all of them are there.
fn popped(threads: Threads, addr: SocketAddr) -> Vec<String> {
    let pushed = Arc::new(AtomicBool::new(false));
    let pusher = {
        let pushed = Arc::clone(&pushed);
        threads.spawn(move || {
            let mut connection = connect(addr);
            let all = format!("blocked_clients:{MANY}\r\n");
            while !redis::cmd("INFO").arg("clients").query::<String>(&mut connection).unwrap().contains(&all) {
                sleep(PAUSE);
            }
            pushed.store(true, Ordering::SeqCst);
            for number in 0..MANY {
                let value = format!("{number};").repeat(10_000);
                redis::cmd("RPUSH").arg(number).arg(value).exec(&mut connection).unwrap();
            }
        })
    };
    let values = threads.many(move |number| {
        let (list, value): (usize, String) = redis::cmd("BLPOP").arg(number).arg(0).query(&mut connect(addr)).unwrap();
        assert!(list == number && pushed.load(Ordering::SeqCst));
        value
    });
    pusher.join();
    values
}

#[test]
fn redis_clients_wait_for_each_other_on_a_real_server() {
    let _guard = patched();
    let Some(server) = Server::redis() else { return };
    let values = popped(Threads::Green, server.addr);
    assert_eq!(values, popped(Threads::Os, server.addr));
    assert_eq!(values[7], "7;".repeat(10_000));
}
