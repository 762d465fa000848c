//! What stands behind a proxy: a server that sends back what it gets, and ends when its client has ended.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::{Engine, Link};
use crate::timetable::SECOND;

/// The number of the listener.
const LISTENER: usize = usize::MAX - 1;

/// Listens, says where, and serves until the time is up.
pub(crate) fn run(addr: SocketAddr, life: Duration) -> io::Result<()> {
    let mut engine = Engine::new()?;
    let mut listener = mio::net::TcpListener::bind(addr)?;
    engine.watch_listener(&mut listener, LISTENER)?;
    println!("listening on {}", listener.local_addr()?);
    let end = engine.now() + (life.as_secs_f64() * SECOND as f64) as u64;
    let (mut links, mut free, mut happened) = (HashMap::new(), 0, Vec::new());
    let mut scratch = vec![0; 64 * 1024];
    while engine.now() < end {
        engine.wait(Some(end), &mut happened)?;
        for &number in &happened {
            if number == LISTENER {
                accept(&listener, &engine, &mut links, &mut free)?;
            } else if links.get_mut(&number).is_some_and(|link| !serve(link, &mut scratch)) {
                links.remove(&number);
            }
        }
    }
    Ok(())
}

/// Takes all clients that have come. One that is gone again is no trouble; without descriptors there is no going on.
fn accept(
    listener: &mio::net::TcpListener,
    engine: &Engine,
    links: &mut HashMap<usize, Link>,
    free: &mut usize,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((tcp, _)) => {
                let mut link = Link::accepted(tcp)?;
                engine.watch(&mut link, *free)?;
                links.insert(*free, link);
                *free += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends back what has come. False if the connection is over.
fn serve(link: &mut Link, scratch: &mut [u8]) -> bool {
    let Ok(goes_on) = link.receive(scratch) else { return false };
    let bytes = std::mem::take(&mut link.input);
    if link.send(&bytes).is_err() {
        return false;
    }
    // The room for the next bytes is that of these.
    link.input = bytes;
    link.input.clear();
    if !goes_on && link.is_flushed() {
        let _ = link.finish();
        return false;
    }
    true
}
