//! What the server does: the counters, shown on SIGUSR1 and on `stats`; and what each green thread waits for, shown on
//! SIGQUIT, which is Ctrl-\ in a terminal.
//!
//! A green thread receives both signals, so the server stays on one OS thread. `hub::dump_on` would show hubs that
//! compute, too, and takes an OS thread for that.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use greenling::hub;
use greenling::signal::{SIGQUIT, SIGUSR1, Signals};

use crate::cli;
use crate::options::NAME;
use crate::service::Service;

/// How long the hubs may take to say what their threads do.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// Holds the signals for [`show_when`].
pub(crate) fn signals() -> Signals {
    Signals::new([SIGUSR1, SIGQUIT]).unwrap_or_else(|error| cli::fail(1, NAME, error))
}

/// Starts a green thread that shows what a signal asks for, whenever one comes.
pub(crate) fn show_when(asked: Signals, service: &Arc<Service>) {
    service.in_background(move |service| {
        for signal in asked.iter().map_while(Result::ok) {
            match signal.number() {
                SIGQUIT => service.complain(hub::all_threads(ANSWER_TIME)),
                _ => show(service),
            }
        }
    });
}

/// Shows the counters of all hubs.
pub(crate) fn show(service: &Service) {
    let now = service.clients.load(Ordering::SeqCst);
    let counters = service.handle.counters();
    service.say(format!(
        "{now} clients now, {} came; left: {} by themselves, {} silent or stuck, {} broken\n\
         {} refused for want of memory; accepting was put off {} times",
        counters.accepted, counters.completed, counters.timed_out, counters.failed, counters.refused, counters.backoffs
    ));
}
