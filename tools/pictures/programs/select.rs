//! A wait for several things at once: one wins, and the others are taken back.

use std::time::Duration;

use greenling::thread::{Builder, JoinHandle};
use greenling::{channel, select, sleep};

use crate::notes::say;

#[track_caller]
fn named(name: &str, body: impl FnOnce() + 'static) -> JoinHandle<()> {
    Builder::new().name(name.into()).spawn(body).unwrap()
}

pub(crate) fn run() {
    let (to_left, left) = channel::bounded::<&str>(0);
    let (to_right, right) = channel::bounded::<&str>(0);
    let chooser = named("chooser", move || {
        for _ in 0..3 {
            say("waits for the left, the right, or the time");
            select! {
                recv(left) -> _ => say("took from the left: the right and the time are taken back"),
                recv(right) -> _ => say("took from the right: the left and the time are taken back"),
                after(Duration::from_millis(10)) => say("has waited long enough: both channels are taken back"),
            }
        }
        say("takes what the left still has");
        left.recv().unwrap();
    });
    let sender = named("sender", move || {
        sleep(Duration::from_millis(4));
        say("sends to the right");
        to_right.send("first").unwrap();
        say("sends to the left");
        to_left.send("second").unwrap();
        sleep(Duration::from_millis(30));
        say("sends to the left, where no select waits");
        to_left.send("third").unwrap();
    });
    for thread in [chooser, sender] {
        thread.join().unwrap();
    }
}
