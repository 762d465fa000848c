//! Shows green threads on all processors: several OS threads, each with a hub, a listener and clients of its own. The
//! kernel spreads new connections over the listeners (SO_REUSEPORT), a connection stays where it was accepted, and the
//! hubs share nothing but the process's table of descriptors, so that there is little to lock. The next rung,
//! `green-patched`, is for code that cannot be changed.
//!
//! ```text
//!                    +--> listener 0 ---> accept, spawn      main, its hub
//!   port --- kernel -+--> listener 1 ---> accept, spawn      OS thread, its hub
//!                    +--> listener 2 ---> accept, spawn      OS thread, its hub
//! ```
//!
//! The price: the kernel spreads by address, not by load. A hub with busy clients has more to do than the others,
//! and no hub helps it.
#![forbid(unsafe_code)]

use std::io;
use std::num::NonZero;
use std::sync::Mutex;

use greenling::Hubs;

use crate::green;
use crate::shared::{Listener, Service};
use crate::{NAME, cli};

/// Serves on several OS threads, of which this is one.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    let hubs = match service.hubs {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        hubs => hubs,
    };
    cli::make_hub(NAME);
    if hubs > 1 {
        // No other server listens on the address; from now on the address is shared with the other hubs.
        listener.share()?;
        // All listen before any of them accepts, so that one that cannot listen is an error of the whole.
        let addr = listener.local_addr()?;
        let others: io::Result<Vec<Listener>> = (1..hubs).map(|_| Listener::bind(addr, true)).collect();
        let others = Mutex::new(others?);
        let running = Hubs::new(hubs - 1).start(move |_| {
            let one = others.lock().ok().and_then(|mut others| others.pop());
            let ended = green::accept(one.expect("one for each"), service);
            // A hub that serves no client is worse than none: the kernel would go on giving clients to that hub.
            ended.unwrap_or_else(|error| cli::fail(1, NAME, format_args!("green-hubs: {error}")));
        })?;
        // The hubs serve as long as the process lives.
        drop(running);
    }
    green::serve(listener, service)
}
