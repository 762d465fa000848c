//! Kills: one in a wait, through two scopes, one before the first turn, and one that comes with its parent's.

use std::time::Duration;

use greenling::thread::{Builder, JoinHandle, scope};
use greenling::{sleep, yield_now};

use crate::notes::say;

#[track_caller]
fn named(name: &str, body: impl FnOnce() + 'static) -> JoinHandle<()> {
    Builder::new().name(name.into()).spawn(body).unwrap()
}

struct Guard(&'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        say(self.0);
    }
}

pub(crate) fn run() {
    let asleep = named("asleep", || {
        let _outer = Guard("drops the outer guard");
        {
            let _inner = Guard("drops the inner guard");
            sleep(Duration::from_secs(60));
        }
        say("is never said");
    });
    yield_now();
    say("kills a thread that waits");
    asleep.kill();
    assert!(asleep.join().unwrap_err().is_killed());

    let given = Guard("drops what the thread was given");
    let unborn = named("unborn", move || {
        let _given = given;
        say("is never said");
    });
    say("kills a thread that has had no turn");
    unborn.kill();
    assert!(unborn.join().unwrap_err().is_killed());

    let parent = named("parent", || {
        scope(|scope| {
            let sleeps = || sleep(Duration::from_secs(60));
            Builder::new().name("child".into()).spawn_scoped(scope, sleeps).unwrap();
        });
    });
    yield_now();
    yield_now();
    say("kills a thread that has a child in a scope");
    parent.kill();
    assert!(parent.join().unwrap_err().is_killed());
}
