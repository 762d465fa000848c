//! Properties that every blocking call must have, checked for all calls by one harness: five, and two about what is due
//! when the call begins.
//!
//! | | property |
//! |---|---|
//! | 1 | the call's timeout works: not early, and nothing is left behind |
//! | 2 | an outer `timeout` passes through untouched, and only the one that expired is reported |
//! | 3 | a kill during the wait ends the wait and removes the waiter, so that no wake-up is wasted |
//! | 4 | if the wake-up and a kill or timeout come together, the wake-up is not lost |
//! | 5 | of several waiters, the one that came first is woken first |
//! | 6 | a kill that is due when the call begins, after a `shield` or because the program swallowed it, is raised at once |
//! | 7 | an outer `timeout` that is over when the call begins is raised at once, too |
//! | storm | of a thousand waiters, killed, timed out and woken at random, all end; no wake-up is lost, no thread is left |
//!
//! A new primitive plugs in with a `Primitive`: how to make a fresh one, how to wait, and how to wake.
//!
//! ```ignore
//! const SEMAPHORE: Primitive = Primitive {
//!     name: "semaphore",
//!     wakes: Wakes::One,
//!     make: || {
//!         let semaphore = Rc::new(Semaphore::new(0));
//!         let (a, b, c) = (semaphore.clone(), semaphore.clone(), semaphore);
//!         Subject::new(move || a.acquire(), move || c.release()).or_for(move |limit| b.try_acquire_for(limit))
//!     },
//! };
//! five_properties(&SEMAPHORE);
//! ```

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::thread::{JoinHandle, sleep, spawn, yield_now};
use greenling::{TimeoutError, hub, no_switch, shield, timeout, timeout_at};

use super::{Random, hog_until};

/// A time that never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// The number of waiters in a storm.
const CROWD: u64 = 1000;

/// The primitives that have no storm, and why.
const CALM: &[(&str, &str)] = &[
    ("Group::wait_any", "each waiter takes something out of the group, and one wake-up ends one thread"),
    ("Pool::spawn", "the waiter that gets a slot starts a thread there"),
    ("PipeWriter::write", "a wake-up without a waiter blocks the OS thread"),
    ("UdpSocket::recv", "the kernel drops datagrams that no call reads"),
    ("UnixDatagram::recv", "a wake-up without a waiter blocks the OS thread"),
    ("UnixStream::read", "a wake-up without a waiter blocks the OS thread, after some hundreds"),
    ("UnixListener::accept", "a wake-up without a waiter blocks the OS thread"),
];

/// A time that a test can wait for.
const SHORT: Duration = Duration::from_millis(5);

/// The waiters that a wake-up reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakes {
    /// The waiter that came first; without waiters, the next one. (A lock, a channel, a socket.)
    One,
    /// The waiter that came first. The call has succeeded from then on, even if the waiter is killed before it
    /// runs. (A send, when the value is taken.)
    OneAtOnce,
    /// All waiters, and all later ones. (A flag.)
    All,
    /// The only waiter that there can be. (A join.)
    Only,
    /// No waiter: the call ends by itself.
    None,
}

/// A blocking call, and how to wake the waiter.
#[derive(Debug)]
pub struct Primitive {
    /// The name in messages.
    pub name: &'static str,
    /// The waiters that a wake-up reaches.
    pub wakes: Wakes,
    /// Makes a fresh object without waiters.
    pub make: fn() -> Subject,
}

/// An object to wait for.
#[derive(Clone)]
pub struct Subject {
    /// The call that blocks until woken.
    wait: Rc<dyn Fn()>,
    /// The call that blocks until woken or for a time, and reports whether woken. None if there is no such call.
    wait_for: Option<Rc<dyn Fn(Duration) -> bool>>,
    /// The call that wakes, and does not block.
    wake: Rc<dyn Fn()>,
}

impl Subject {
    /// Makes an object from a call that waits and one that wakes.
    pub fn new(wait: impl Fn() + 'static, wake: impl Fn() + 'static) -> Subject {
        Subject { wait: Rc::new(wait), wait_for: None, wake: Rc::new(wake) }
    }

    /// Adds a call that waits with a timeout and reports whether woken.
    pub fn or_for(self, wait_for: impl Fn(Duration) -> bool + 'static) -> Subject {
        Subject { wait_for: Some(Rc::new(wait_for)), ..self }
    }

    /// Starts a thread that waits, and lets the wait begin.
    fn waiter(&self) -> JoinHandle<()> {
        let wait = Rc::clone(&self.wait);
        let thread = spawn(move || wait());
        settle();
        assert!(!thread.is_finished(), "it waits");
        thread
    }

    /// Waits once, and reports whether no wake-up has come within a long time.
    fn waits_in_vain(&self) -> bool {
        let wait = Rc::clone(&self.wait);
        timeout(Duration::from_secs(20), || wait()).is_err()
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").finish_non_exhaustive()
    }
}

/// Lets all runnable threads run, those that they make runnable, and lets the hub poll the descriptors.
fn settle() {
    super::settle();
    sleep(Duration::from_micros(100));
    super::settle();
}

/// A function that checks one property.
type Check = fn(&Primitive);

/// Checks all properties that apply; a message names the primitive and the property.
///
/// # Panics
/// If a property does not hold.
pub fn five_properties(primitive: &Primitive) {
    let properties: [(&str, Check); 9] = [
        ("1: its own timeout works", own_timeout),
        ("2: an outer timeout passes through", outer_timeout),
        ("3: a kill takes the waiter out", kill),
        ("4: a wake-up and a kill together lose nothing", wake_and_kill),
        ("4: a wake-up and a timeout together lose nothing", wake_and_timeout),
        ("5: first come, first served", fifo),
        ("6: a kill that is due is raised at once", due_kill),
        ("7: a time limit that is over is raised at once", due_timeout),
        ("storm: kills and timeouts at random lose nothing", storm),
    ];
    let me = greenling::thread::current();
    for (property, check) in properties {
        // In another thread, so that what one leaves behind does not disturb the next.
        let result = catch_unwind(AssertUnwindSafe(|| check(primitive)));
        assert!(result.is_ok(), "{} does not have property {property}", primitive.name);
        settle();
        assert_eq!(greenling::thread::current().id(), me.id());
    }
}

/// Checks properties 6 and 7 for a call that has no wake-up: `make` gives a fresh object.
///
/// # Panics
/// If a property does not hold.
pub fn due_properties(name: &'static str, make: fn() -> Subject) {
    let primitive = Primitive { name, wakes: Wakes::None, make };
    for (property, check) in [("6", due_kill as Check), ("7", due_timeout)] {
        let result = catch_unwind(AssertUnwindSafe(|| check(&primitive)));
        assert!(result.is_ok(), "{name} does not have property {property}");
        settle();
    }
}

/// Checks that a new waiter is woken by one wake-up, whatever happened to other waiters.
fn still_works(primitive: &Primitive, subject: &Subject) {
    match primitive.wakes {
        Wakes::None | Wakes::Only => {}
        Wakes::One | Wakes::OneAtOnce | Wakes::All => {
            let fresh = subject.waiter();
            (subject.wake)();
            settle();
            assert!(fresh.is_finished(), "a fresh waiter is woken by one wake-up");
            fresh.join().expect("it waited undisturbed");
        }
    }
}

/// Checks property 1: the timeout of the call.
fn own_timeout(primitive: &Primitive) {
    let subject = (primitive.make)();
    let Some(wait_for) = subject.wait_for.clone() else { return };
    let began = Instant::now();
    assert!(!wait_for(SHORT), "there was no wake-up");
    assert!(began.elapsed() >= SHORT, "not early: {:?}", began.elapsed());
    assert!(!wait_for(Duration::ZERO), "no time at all");
    still_works(primitive, &subject);
    // With a longer timeout, the wake-up comes first.
    if primitive.wakes != Wakes::None {
        let subject = (primitive.make)();
        let wait_for = subject.wait_for.clone().expect("as before");
        let woken = Rc::new(Cell::new(false));
        let seen = Rc::clone(&woken);
        let thread = spawn(move || seen.set(wait_for(LONG)));
        settle();
        (subject.wake)();
        thread.join().expect("no panic");
        assert!(woken.get(), "the wake-up came before the timeout");
    }
}

/// Checks property 2: an outer `timeout`.
fn outer_timeout(primitive: &Primitive) {
    for outer in [None, Some(LONG)] {
        let subject = (primitive.make)();
        let (wait, waiting) = (Rc::clone(&subject.wait), subject.clone());
        let limited = move || {
            let began = Instant::now();
            assert_eq!(timeout(SHORT, || wait()), Err(TimeoutError::Elapsed));
            assert!(began.elapsed() >= SHORT, "not early: {:?}", began.elapsed());
        };
        match outer {
            None => limited(),
            Some(outer) => assert_eq!(timeout(outer, limited), Ok(()), "only the inner one expired"),
        }
        still_works(primitive, &waiting);
    }
    // The other way round: the outer timeout expires, and the inner one must not catch that.
    let subject = (primitive.make)();
    let wait = Rc::clone(&subject.wait);
    let after_inner = Cell::new(false);
    let result = timeout(SHORT, || {
        let _ = timeout(LONG, || wait());
        after_inner.set(true);
    });
    assert_eq!(result, Err(TimeoutError::Elapsed));
    assert!(!after_inner.get(), "the inner timeout swallowed the outer one's");
    still_works(primitive, &subject);
    if let Some(wait_for) = (primitive.make)().wait_for {
        // The timeout of the call is not taken for an outer one.
        assert_eq!(timeout(LONG, || wait_for(SHORT)), Ok(false));
        assert_eq!(timeout(SHORT, || wait_for(LONG)), Err(TimeoutError::Elapsed));
    }
}

/// Checks property 3: a kill during the wait.
fn kill(primitive: &Primitive) {
    let subject = (primitive.make)();
    let thread = subject.waiter();
    assert!(thread.kill(), "it was alive");
    assert!(thread.join().expect_err("killed").is_killed());
    still_works(primitive, &subject);
    if matches!(primitive.wakes, Wakes::One | Wakes::OneAtOnce) {
        // In the middle of the queue.
        let threads = [subject.waiter(), subject.waiter(), subject.waiter()];
        threads[1].kill();
        settle();
        (subject.wake)();
        (subject.wake)();
        settle();
        assert!(threads.iter().all(JoinHandle::is_finished), "the dead one took no wake-up");
    }
}

/// Checks property 4 for kills.
fn wake_and_kill(primitive: &Primitive) {
    if primitive.wakes == Wakes::None {
        return;
    }
    for wake_first in [true, false] {
        let subject = (primitive.make)();
        let first = subject.waiter();
        let second = (primitive.wakes != Wakes::Only).then(|| subject.waiter());
        // At once, so that the first has no turn in between.
        no_switch(|| {
            if wake_first {
                (subject.wake)();
            }
            first.kill();
            if !wake_first {
                (subject.wake)();
            }
        });
        settle();
        assert!(first.is_finished(), "woken and killed, it ends");
        let took_it = first.join().is_ok() || primitive.wakes == Wakes::OneAtOnce;
        if let Some(second) = second {
            if took_it && matches!(primitive.wakes, Wakes::One | Wakes::OneAtOnce) {
                assert!(!second.is_finished(), "one wake-up for one waiter");
                (subject.wake)();
                settle();
            }
            assert!(second.is_finished(), "the first was killed (wake first: {wake_first}), so the second is woken");
        }
    }
}

/// Checks property 4 for timeouts.
fn wake_and_timeout(primitive: &Primitive) {
    if !matches!(primitive.wakes, Wakes::One | Wakes::OneAtOnce | Wakes::All) {
        return;
    }
    // The timeout of the call, then an outer one; woken when the time is over but no poll has noticed.
    for own in [true, false] {
        for hog_first in [true, false] {
            let subject = (primitive.make)();
            let (wait, wait_for) = (Rc::clone(&subject.wait), subject.wait_for.clone());
            if own && wait_for.is_none() {
                continue;
            }
            let thread = spawn(move || match wait_for {
                Some(wait_for) if own => wait_for(SHORT),
                _ => timeout(SHORT, || wait()).is_ok(),
            });
            yield_now();
            let over = Instant::now() + 2 * SHORT;
            if hog_first {
                hog_until(over);
            }
            (subject.wake)();
            if !hog_first {
                hog_until(over);
            }
            let got = thread.join().expect("no panic");
            let used_up = !own && primitive.wakes == Wakes::OneAtOnce;
            if !got && !used_up || primitive.wakes == Wakes::All {
                assert!(!subject.waits_in_vain(), "the wake-up that it did not get is still there");
            }
        }
    }
}

/// Checks property 5: the order of wake-ups.
fn fifo(primitive: &Primitive) {
    if !matches!(primitive.wakes, Wakes::One | Wakes::OneAtOnce | Wakes::All) {
        return;
    }
    let subject = (primitive.make)();
    let order = Rc::new(RefCell::new(Vec::new()));
    let threads: Vec<_> = (0..10)
        .map(|number| {
            let (wait, order) = (Rc::clone(&subject.wait), Rc::clone(&order));
            spawn(move || {
                wait();
                order.borrow_mut().push(number);
            })
        })
        .collect();
    // Only until all have begun to wait: threads that wait by yielding run again and again.
    for _ in 0..10 {
        yield_now();
    }
    for _ in &threads {
        (subject.wake)();
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert!(order.borrow().iter().copied().eq(0..10), "{:?}", order.borrow());
}

/// A way in which a kill is due before a call: runs in the thread, until `go` is set after the kill.
type Due = fn(go: &Cell<bool>);

/// Keeps the kill due by a shield.
fn shielded(go: &Cell<bool>) {
    shield(|| {
        while !go.get() {
            yield_now();
        }
    });
}

/// Lets the kill be raised, and swallows the unwinding.
fn swallowed(_: &Cell<bool>) {
    let raised = catch_unwind(|| sleep(LONG));
    assert!(raised.is_err(), "it is killed there");
}

/// Swallows the kill, then passes through a shield.
fn swallowed_and_shielded(go: &Cell<bool>) {
    swallowed(go);
    shield(yield_now);
}

/// Checks property 6: a kill that is due.
fn due_kill(primitive: &Primitive) {
    let ways: [(&str, Due); 3] = [("shielded", shielded), ("swallowed", swallowed), ("both", swallowed_and_shielded)];
    for (way, due) in ways {
        // Also with the timeout of the call, and when the wake-up is there already.
        for (own, woken) in [(false, false), (true, false), (false, true)] {
            if woken && !matches!(primitive.wakes, Wakes::One | Wakes::All) {
                continue;
            }
            let subject = (primitive.make)();
            let (wait, wait_for) = (Rc::clone(&subject.wait), subject.wait_for.clone());
            if own && wait_for.is_none() {
                continue;
            }
            let (go, begun, ended) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
            let (theirs, begins, ends) = (Rc::clone(&go), Rc::clone(&begun), Rc::clone(&ended));
            let thread = spawn(move || {
                due(&theirs);
                begins.set(true);
                match wait_for {
                    Some(wait_for) if own => _ = wait_for(LONG),
                    _ => wait(),
                }
                ends.set(true);
            });
            yield_now();
            if woken {
                (subject.wake)();
            }
            assert!(thread.kill(), "it was alive");
            go.set(true);
            settle();
            assert!(begun.get(), "the call has begun");
            assert!(thread.is_finished(), "the kill was due ({way}), and the call waits");
            assert!(woken || !ended.get(), "the call had nothing to return");
            assert_eq!(thread.join().is_ok(), ended.get());
            if woken && (!ended.get() || primitive.wakes == Wakes::All) {
                assert!(!subject.waits_in_vain(), "the wake-up that it did not get is still there");
            } else {
                still_works(primitive, &subject);
            }
        }
    }
}

/// A function that makes a call inside a time limit that is over when the call begins.
type Limited = fn(&dyn Fn()) -> Result<(), TimeoutError>;

/// Checks property 7: an outer `timeout` that is over.
fn due_timeout(primitive: &Primitive) {
    let over: [Limited; 4] = [
        |wait| timeout(Duration::ZERO, wait),
        |wait| timeout_at(Instant::now() - SHORT, wait),
        |wait| {
            timeout(SHORT, || {
                hog_until(Instant::now() + 2 * SHORT);
                wait();
            })
        },
        |wait| timeout(LONG, || timeout(Duration::ZERO, wait)).expect("only the inner one is over"),
    ];
    for limited in over {
        for own in [false, true] {
            let subject = (primitive.make)();
            let (wait, wait_for) = (Rc::clone(&subject.wait), subject.wait_for.clone());
            let call: Box<dyn Fn()> = match wait_for {
                Some(wait_for) if own => Box::new(move || _ = wait_for(LONG)),
                None if own => continue,
                _ => Box::new(move || wait()),
            };
            assert_eq!(limited(&call), Err(TimeoutError::Elapsed));
            still_works(primitive, &subject);
        }
        // In a thread, beside another thread that is always runnable.
        let subject = (primitive.make)();
        let wait = Rc::clone(&subject.wait);
        let stop = Rc::new(Cell::new(false));
        let stopped = Rc::clone(&stop);
        let other = spawn(move || {
            while !stopped.get() {
                yield_now();
            }
        });
        assert_eq!(spawn(move || limited(&|| wait())).join().expect("no panic"), Err(TimeoutError::Elapsed));
        stop.set(true);
        other.join().expect("it only yields");
        still_works(primitive, &subject);
    }
}

/// Starts a waiter that waits without limit, with the timeout of the call, or inside a `timeout`. Adds one to `woken`
/// when woken.
fn stormy_waiter(subject: &Subject, random: &mut Random, woken: &Rc<Cell<u64>>) -> JoinHandle<()> {
    let (wait, wait_for, woken) = (Rc::clone(&subject.wait), subject.wait_for.clone(), Rc::clone(woken));
    let (style, limit) = (random.below(3), Duration::from_micros(random.below(3000)));
    spawn(move || {
        let got = match (style, wait_for) {
            (0, Some(wait_for)) => wait_for(limit),
            (1, _) => timeout(limit, || wait()).is_ok(),
            _ => {
                wait();
                true
            }
        };
        woken.set(woken.get() + u64::from(got));
    })
}

/// Makes the storm: many waiters, of which all that are not killed or timed out are woken in the end. Prints the seed;
/// see `Random`.
fn storm(primitive: &Primitive) {
    match primitive.wakes {
        // One waiter is no storm, and a send that counts although killed cannot be counted.
        Wakes::Only | Wakes::OneAtOnce => return,
        Wakes::One | Wakes::All | Wakes::None => {}
    }
    if CALM.iter().any(|&(name, _)| name == primitive.name) {
        return;
    }
    let mut random = Random::new();
    let subject = (primitive.make)();
    // Whether wake-ups without waiters add up: then each one can be counted.
    let adds_up = primitive.wakes == Wakes::One && {
        (subject.wake)();
        (subject.wake)();
        !subject.waits_in_vain() && {
            let wait = Rc::clone(&subject.wait);
            timeout(10 * SHORT, || wait()).is_ok()
        }
    };
    // A thousand waiters, and as many random events.
    let live = hub::live_threads();
    let (woken, mut wakes) = (Rc::new(Cell::new(0)), 0);
    let mut threads: Vec<_> = (0..CROWD).map(|_| stormy_waiter(&subject, &mut random, &woken)).collect();
    for _ in 0..CROWD {
        match random.below(8) {
            0..=2 if primitive.wakes != Wakes::All => {
                (subject.wake)();
                wakes += 1;
            }
            0..=4 => _ = threads[random.below(CROWD) as usize].kill(),
            5 => sleep(Duration::from_micros(random.below(100))),
            6 => hog_until(Instant::now() + Duration::from_micros(random.below(50))),
            _ => yield_now(),
        }
    }
    if primitive.wakes == Wakes::None {
        threads.iter().for_each(|thread| _ = thread.kill());
    }
    // One after the other, since a wake-up may be for a waiter that waits now.
    let mut left = 3 * CROWD;
    while threads.iter().any(|thread| !thread.is_finished()) {
        assert!(left > 0, "{} waiters are left, and no wake-up reaches them", threads.len());
        (subject.wake)();
        wakes += 1;
        left -= 1;
        settle();
        threads.retain(|thread| !thread.is_finished());
    }
    // Nothing is left, and no wake-up was lost.
    drop(threads);
    settle();
    assert_eq!(hub::live_threads(), live, "no thread is left");
    if adds_up {
        let woken = woken.get();
        assert!(woken <= wakes, "{woken} waits were over, after {wakes} wake-ups");
        for left in 0..wakes - woken {
            assert!(!subject.waits_in_vain(), "of {wakes} wake-ups {woken} were used, and only {left} are left");
        }
        if let Some(wait_for) = &subject.wait_for {
            assert!(!wait_for(Duration::ZERO), "more waits than wake-ups");
        }
    }
    if primitive.wakes != Wakes::None {
        (subject.wake)();
        assert!(!subject.waits_in_vain(), "it still works");
    }
}
