//! Sleeps on several levels of the timer wheel, a cascade, and a timeout that does not fire.

use std::time::Duration;

use greenling::thread::{Builder, JoinHandle, park};
use greenling::{sleep, timeout};

use crate::notes::say;

#[track_caller]
fn named(name: &str, body: impl FnOnce() + 'static) -> JoinHandle<()> {
    Builder::new().name(name.into()).spawn(body).unwrap()
}

pub(crate) fn run() {
    let short = named("short", || sleep(Duration::from_micros(200)));
    let middle = named("middle", || sleep(Duration::from_millis(9)));
    let long = named("long", || sleep(Duration::from_millis(120)));
    let longer = named("longer", || sleep(Duration::from_millis(121)));
    let patient = named("patient", move || {
        say("parks, within a limit of five seconds");
        timeout(Duration::from_secs(5), park).unwrap();
        say("was woken in time, and the entry of the limit stays");
        sleep(Duration::from_secs(6));
    });
    for thread in [short, middle] {
        thread.join().unwrap();
    }
    patient.thread().unpark();
    for thread in [long, longer, patient] {
        thread.join().unwrap();
    }
}
