//! Three threads that take turns, and one that is spawned by another.

use greenling::thread::{Builder, JoinHandle};
use greenling::{Greenlet, yield_now};

use crate::notes::{call, say};

#[track_caller]
fn named(name: &str, body: impl FnOnce() + 'static) -> JoinHandle<()> {
    Builder::new().name(name.into()).spawn(body).unwrap()
}

pub(crate) fn run() {
    let ann = named("ann", || {
        for _ in 0..2 {
            yield_now();
        }
    });
    let bob = named("bob", || {
        let child = named("child of bob", || say("is there"));
        yield_now();
        child.join().unwrap();
    });
    let cleo = named("cleo", || {
        // A switch by name goes past the run queue, and past those that stand in it.
        let echo = Greenlet::new(|n: u32| {
            call("the greenlet");
            n + 1
        });
        say("switches to a greenlet by name");
        assert_eq!(echo.switch(41), 42);
        say("has the answer");
    });
    say("lets the others run");
    yield_now();
    for thread in [ann, bob, cleo] {
        thread.join().unwrap();
    }
}
