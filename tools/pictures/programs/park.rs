//! A wake-up that is lost, and its cure.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use greenling::thread::{Builder, Thread, current, park, park_timeout};
use greenling::yield_now;

use crate::notes::say;

#[derive(Default)]
struct Shared {
    work: Cell<bool>,
    sleeper: RefCell<Option<Thread>>,
}

impl Shared {
    fn bring_work(&self) {
        self.work.set(true);
        match self.sleeper.take() {
            Some(sleeper) => sleeper.unpark(),
            None => say("finds nothing to wake"),
        }
    }
}

pub(crate) fn run() {
    let shared = Rc::new(Shared::default());
    let seen = shared.clone();
    let careless = Builder::new().name("careless".into()).spawn(move || {
        say("looks: there is no work");
        assert!(!seen.work.get());
        yield_now(); // to write a line of a log, for example
        say("leaves its handle, too late, and parks");
        seen.sleeper.replace(Some(current()));
        park_timeout(Duration::from_secs(1));
        say("slept for a second beside its work");
    });
    yield_now();
    say("brings work");
    shared.bring_work();
    careless.unwrap().join().unwrap();

    shared.work.set(false);
    let seen = shared.clone();
    let careful = Builder::new().name("careful".into()).spawn(move || {
        say("leaves its handle, and looks then");
        seen.sleeper.replace(Some(current()));
        while !seen.work.get() {
            yield_now();
            say("parks, and finds the permit that has come meanwhile");
            park();
        }
        say("has work, and leaves its handle for more");
        seen.work.set(false);
        seen.sleeper.replace(Some(current()));
        while !seen.work.get() {
            say("parks");
            park();
        }
        say("has more work");
    });
    yield_now();
    say("brings work");
    shared.bring_work();
    yield_now();
    say("brings more work");
    shared.bring_work();
    careful.unwrap().join().unwrap();
}
