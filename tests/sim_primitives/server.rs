//! What the drain of a server promises while the network breaks.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use greenling::net::TcpStream;
use greenling::server::{ServerHandle, TcpServer};
use greenling::{sim, sleep, timeout};

use super::may_be_killed;

/// How long a drain waits for handlers.
const GRACE: Duration = Duration::from_secs(5);

/// Answers requests of four bytes, until the end of the stream.
fn answer(mut stream: TcpStream, _: SocketAddr) -> io::Result<()> {
    let mut request = [0; 4];
    loop {
        match stream.read(&mut request)? {
            0 => return Ok(()),
            len => stream.read_exact(&mut request[len..])?,
        }
        stream.write_all(&request)?;
    }
}

/// Asks again and again until the connection ends, and returns how often there was an answer.
fn ask(pause: Duration) -> io::Result<u32> {
    let mut stream = TcpStream::connect("server:80")?;
    for answers in 0..4 {
        let mut back = [0; 4];
        if stream.write_all(b"ask!").and_then(|()| stream.read_exact(&mut back)).is_err() {
            return Ok(answers);
        }
        assert_eq!(&back, b"ask!");
        sleep(pause);
    }
    Ok(4)
}

/// A duration below `most` milliseconds, drawn from the seed.
fn drawn(most: u64) -> Duration {
    Duration::from_micros(sim::random() % (most * 1000))
}

/// A drain ends in its time and accounts for each connection, whichever client is cut off and comes back or does not;
/// clients that are not cut off get whole answers.
pub(crate) fn drain_under_partitions() {
    let (handle, served) = (ServerHandle::new(), Rc::new(Cell::new(false)));
    let (for_server, served2) = (handle.clone(), Rc::clone(&served));
    let server = sim::host("server", move || {
        let server = TcpServer::bind("0.0.0.0:80").unwrap().grace(GRACE).handle(&for_server);
        served2.set(true);
        server.run(answer)
    });
    sim::assert_eventually(GRACE, || served.get() || may_be_killed());
    let near = sim::host("near", || ask(drawn(5)));
    let cut = sim::host("cut", || timeout(Duration::from_secs(3600), || ask(drawn(5))));
    sleep(drawn(20));
    let network = sim::network();
    network.partition("server", "cut");
    sleep(drawn(10));
    handle.drain();
    let began = sim::elapsed();
    if sim::random().is_multiple_of(2) {
        sleep(drawn(6000));
        network.heal_all();
    }
    if let Ok(report) = server.join() {
        let report = report.unwrap();
        let came = report.active_at_start + report.from_backlog;
        let went = report.finished + report.closed_idle + report.killed + report.stuck + report.turned_away;
        assert!(came == went && report.counters.active() == 0 && report.stuck == 0, "{report:?}");
        assert!(report.took <= GRACE + Duration::from_secs(2), "{report:?}");
        // Unless it began by itself, since the thread that accepts was killed.
        assert!(sim::elapsed() - began >= report.took || may_be_killed(), "{report:?}");
    }
    network.heal_all();
    for client in [near.join().map(Ok), cut.join()] {
        assert!(client.is_ok() || may_be_killed());
    }
}
