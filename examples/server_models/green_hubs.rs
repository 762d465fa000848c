//! Shows green threads on all processors: several OS threads, each with a hub, a listener and clients of its own. The
//! kernel spreads new connections over the listeners (SO_REUSEPORT), a connection stays where it was accepted, and the
//! hubs share nothing, so that there is nothing to lock. The next rung, `green-patched`, is for code that cannot be changed.
//!
//! ```text
//!                    +--> listener 0 ---> accept, spawn      main, its hub
//!   port --- kernel -+--> listener 1 ---> accept, spawn      OS thread, its hub
//!                    +--> listener 2 ---> accept, spawn      OS thread, its hub
//! ```
//!
//! The price: the kernel spreads by address, not by load. A hub whose clients ask for more than the others' is busier,
//! and nobody helps it.
#![forbid(unsafe_code)]

use std::io;
use std::num::NonZero;
use std::sync::Mutex;

use greenling::Hubs;
use greenling::net::TcpListener;

use crate::green;
use crate::shared::{Listener, Service};

/// Serves on several OS threads, of which this is one.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    let hubs = match service.hubs {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        hubs => hubs,
    };
    if hubs > 1 {
        // The address is ours, so that nobody else listens there; from now on it is shared.
        listener.share()?;
        // All listen before anybody accepts, so that one that cannot is an error of the whole.
        let addr = listener.local_addr()?;
        let others: io::Result<Vec<Listener>> = (1..hubs).map(|_| Listener::bind(addr, true)).collect();
        let others = Mutex::new(others?.into_iter().map(Listener::into_fd).collect::<Vec<_>>());
        let running = Hubs::new(hubs - 1).start(move |_| {
            let one = others.lock().ok().and_then(|mut others| others.pop());
            green::accept(&TcpListener::from(one.expect("one for each")), service)
        })?;
        // They serve as long as the process lives.
        drop(running);
    }
    green::serve(listener, service)
}
