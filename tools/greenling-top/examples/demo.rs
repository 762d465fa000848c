//! A program to look at: so many threads that wait for different things, some that work, and a second hub.
//!
//! `GREENLING_CONSOLE=1 cargo run --example demo -- 10000`; then `greenling-top PID`. Ends with its standard input.

use std::io::{self, Read, Write};
use std::time::Duration;

use greenling::hub::{ThreadInfo, ThreadKind, ThreadState};
use greenling::os::unix::net::UnixStream;
use greenling::thread::{Builder, park};
use greenling::{Hubs, hub, sleep, spawn};

/// Waits for a request that never comes.
#[inline(never)]
fn serve(mut connection: &UnixStream) {
    let mut request = [0; 64];
    while connection.read(&mut request).is_ok_and(|read| read > 0) {}
}

/// Waits for an unpark that never comes.
#[inline(never)]
fn idle() {
    park();
    std::hint::black_box(());
}

/// Works a little, again and again.
fn tick(pause: Duration) {
    loop {
        sleep(pause);
    }
}

/// Reports whether there are so many threads, and each of them waits, but for main, which asks.
fn all_wait(threads: usize) -> bool {
    let all = hub::all_threads(Duration::from_secs(1));
    let mut rows = all.hubs.iter().filter_map(|hub| hub.threads.as_ref()).flatten();
    let waits = |info: &ThreadInfo| info.kind == ThreadKind::Main || info.state == ThreadState::Waiting;
    rows.clone().count() == threads && rows.all(waits)
}

fn main() -> io::Result<()> {
    let threads = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(100);
    let (server, client) = UnixStream::pair()?;
    for number in 0..3 {
        let server = server.try_clone()?;
        Builder::new().name(format!("connection {number}")).spawn(move || serve(&server))?;
    }
    (0..threads).for_each(|_| drop(spawn(idle)));
    Builder::new().name("ticker".into()).spawn(|| tick(Duration::from_millis(100)))?;
    let second = Hubs::new(1).name("second").start(|_| {
        let lonely = Builder::new().name("lonely".into()).spawn(park);
        lonely.map(|thread| drop(thread.join()))
    })?;
    // Also the two mains, the connections, the ticker and the lonely one.
    while !all_wait(threads + 7) {
        sleep(Duration::from_millis(1));
    }
    println!("{} ready", std::process::id());
    io::stdout().flush()?;
    greenling::io::stdin().read_to_end(&mut Vec::new())?;
    drop(client);
    // The thread of the second hub waits for ever, and so its end would be a deadlock.
    std::mem::forget(second);
    std::process::exit(0);
}
