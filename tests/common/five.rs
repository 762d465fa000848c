//! Five properties that every blocking call must have, checked for all of them by one harness (gevent.md 5.7).
//!
//! | | property |
//! |---|---|
//! | 1 | its own timeout works: not early, and nothing is left behind |
//! | 2 | an outer `timeout` passes through untouched, and only the one that expired is reported |
//! | 3 | a kill during the wait ends the wait, and takes the waiter out: nobody is woken in its place in vain |
//! | 4 | if the wake-up and a kill or timeout come together, the wake-up is not lost |
//! | 5 | of several waiters, the one that came first is woken first |
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
use greenling::{TimeoutError, hub, timeout};

use super::{Random, hog_until};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Waiters of a storm.
const CROWD: u64 = 1000;

/// What no storm is made over, and why.
const CALM: &[(&str, &str)] = &[
    ("Group::wait_any", "each waiter takes something out of the group, and one wake-up ends one thread"),
    ("Pool::spawn", "who got a place starts a thread there"),
    ("PipeWriter::write", "a wake-up that nobody waits for blocks the OS thread"),
    ("UdpSocket::recv", "the kernel drops datagrams that nobody waits for"),
    ("UnixDatagram::recv", "a wake-up that nobody waits for blocks the OS thread"),
    ("UnixStream::read", "a wake-up that nobody waits for blocks the OS thread, after some hundreds"),
    ("UnixListener::accept", "a wake-up that nobody waits for blocks the OS thread"),
];

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(5);

/// Whom a wake-up reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakes {
    /// One waiter, the one that came first; if nobody waits, the next that comes. (A lock, a channel, a socket.)
    One,
    /// The same, and its call has done its work from then on, also if it is killed before it runs. (A send, when the value
    /// is taken.)
    OneAtOnce,
    /// Everybody who waits and everybody who comes later. (A flag.)
    All,
    /// The one waiter that there can be. (A join.)
    Only,
    /// Nobody: the call ends by itself.
    Nobody,
}

/// A kind of blocking call.
#[derive(Debug)]
pub struct Primitive {
    /// For messages.
    pub name: &'static str,
    /// Whom a wake-up reaches.
    pub wakes: Wakes,
    /// Makes a fresh object with nobody waiting.
    pub make: fn() -> Subject,
}

/// One object to wait for.
#[derive(Clone)]
pub struct Subject {
    /// Blocks until woken.
    wait: Rc<dyn Fn()>,
    /// Blocks until woken, but no longer than this; says whether it was woken. None if there is no such call.
    wait_for: Option<Rc<dyn Fn(Duration) -> bool>>,
    /// Wakes, and does not block.
    wake: Rc<dyn Fn()>,
}

impl Subject {
    /// How to wait and how to wake.
    pub fn new(wait: impl Fn() + 'static, wake: impl Fn() + 'static) -> Subject {
        Subject { wait: Rc::new(wait), wait_for: None, wake: Rc::new(wake) }
    }

    /// How to wait with a timeout of its own; says whether it was woken.
    pub fn or_for(self, wait_for: impl Fn(Duration) -> bool + 'static) -> Subject {
        Subject { wait_for: Some(Rc::new(wait_for)), ..self }
    }

    /// A thread that waits, after the spawn and a few yields.
    fn waiter(&self) -> JoinHandle<()> {
        let wait = Rc::clone(&self.wait);
        let thread = spawn(move || wait());
        settle();
        assert!(!thread.is_finished(), "it waits");
        thread
    }

    /// One wait that must be over soon, since somebody has woken or does so now.
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

/// Lets everybody who is runnable run, and those whom they make runnable, and the hub look at its descriptors.
fn settle() {
    for _ in 0..10 {
        yield_now();
    }
    sleep(Duration::from_micros(100));
    for _ in 0..10 {
        yield_now();
    }
}

/// One property.
type Check = fn(&Primitive);

/// Checks all that apply; a message names the primitive and the property.
///
/// # Panics
/// If one of them does not hold.
pub fn five_properties(primitive: &Primitive) {
    let properties: [(&str, Check); 7] = [
        ("1: its own timeout works", own_timeout),
        ("2: an outer timeout passes through", outer_timeout),
        ("3: a kill takes the waiter out", kill),
        ("4: a wake-up and a kill together lose nothing", wake_and_kill),
        ("4: a wake-up and a timeout together lose nothing", wake_and_timeout),
        ("5: first come, first served", fifo),
        ("storm: kills and timeouts at random lose nothing", storm),
    ];
    let me = greenling::thread::current();
    for (property, check) in properties {
        // In a thread of its own, so that what one leaves behind does not disturb the next.
        let result = catch_unwind(AssertUnwindSafe(|| check(primitive)));
        assert!(result.is_ok(), "{} does not have property {property}", primitive.name);
        settle();
        assert_eq!(greenling::thread::current().id(), me.id());
    }
}

/// After whatever happened to other waiters: who comes now is woken by one wake-up.
fn still_works(primitive: &Primitive, subject: &Subject) {
    match primitive.wakes {
        Wakes::Nobody | Wakes::Only => {}
        Wakes::One | Wakes::OneAtOnce | Wakes::All => {
            let fresh = subject.waiter();
            (subject.wake)();
            settle();
            assert!(fresh.is_finished(), "a fresh waiter is woken by one wake-up");
            fresh.join().expect("it waited undisturbed");
        }
    }
}

/// Property 1.
fn own_timeout(primitive: &Primitive) {
    let subject = (primitive.make)();
    let Some(wait_for) = subject.wait_for.clone() else { return };
    let began = Instant::now();
    assert!(!wait_for(SHORT), "nobody woke it");
    assert!(began.elapsed() >= SHORT, "not early: {:?}", began.elapsed());
    assert!(!wait_for(Duration::ZERO), "no time at all");
    still_works(primitive, &subject);
    if primitive.wakes != Wakes::Nobody {
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

/// Property 2.
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
    // The other way round: the outer one expires, and the inner one must not catch it.
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
        // Its own timeout is not an outer one's.
        assert_eq!(timeout(LONG, || wait_for(SHORT)), Ok(false));
        assert_eq!(timeout(SHORT, || wait_for(LONG)), Err(TimeoutError::Elapsed));
    }
}

/// Property 3.
fn kill(primitive: &Primitive) {
    let subject = (primitive.make)();
    let thread = subject.waiter();
    assert!(thread.kill(), "it was alive");
    assert!(thread.join().expect_err("killed").is_killed());
    still_works(primitive, &subject);
    if matches!(primitive.wakes, Wakes::One | Wakes::OneAtOnce) {
        // In the middle of the line.
        let threads = [subject.waiter(), subject.waiter(), subject.waiter()];
        threads[1].kill();
        settle();
        (subject.wake)();
        (subject.wake)();
        settle();
        assert!(threads.iter().all(JoinHandle::is_finished), "the dead one took nobody's wake-up");
    }
}

/// Property 4, for kills.
fn wake_and_kill(primitive: &Primitive) {
    if primitive.wakes == Wakes::Nobody {
        return;
    }
    for wake_first in [true, false] {
        let subject = (primitive.make)();
        let first = subject.waiter();
        let second = (primitive.wakes != Wakes::Only).then(|| subject.waiter());
        if wake_first {
            (subject.wake)();
        }
        first.kill();
        if !wake_first {
            (subject.wake)();
        }
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

/// Property 4, for timeouts.
fn wake_and_timeout(primitive: &Primitive) {
    if !matches!(primitive.wakes, Wakes::One | Wakes::OneAtOnce | Wakes::All) {
        return;
    }
    // The call's own timeout, then an outer one; woken when the time is over already but nobody has looked.
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

/// Property 5.
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
    // Only as long as it takes them to begin to wait: those that wait by yielding go round and round.
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

/// A waiter that waits as long as it takes, or with a timeout of its own, or inside of one. Counts itself if it was woken.
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

/// The storm: many waiters. Whoever is not killed or timed out is woken in the end. The seed is printed; see `Random`.
fn storm(primitive: &Primitive) {
    match primitive.wakes {
        // One waiter is no storm, and a send that counts although it was killed cannot be counted.
        Wakes::Only | Wakes::OneAtOnce => return,
        Wakes::One | Wakes::All | Wakes::Nobody => {}
    }
    if CALM.iter().any(|&(name, _)| name == primitive.name) {
        return;
    }
    let mut random = Random::new();
    let subject = (primitive.make)();
    // Whether wake-ups that nobody waits for add up: then they can be counted to the last one.
    let adds_up = primitive.wakes == Wakes::One && {
        (subject.wake)();
        (subject.wake)();
        !subject.waits_in_vain() && {
            let wait = Rc::clone(&subject.wait);
            timeout(10 * SHORT, || wait()).is_ok()
        }
    };
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
    if primitive.wakes == Wakes::Nobody {
        threads.iter().for_each(|thread| _ = thread.kill());
    }
    // One after the other, since a wake-up may be for one who waits now.
    let mut left = 3 * CROWD;
    while threads.iter().any(|thread| !thread.is_finished()) {
        assert!(left > 0, "{} waiters are left, and no wake-up reaches them", threads.len());
        (subject.wake)();
        wakes += 1;
        left -= 1;
        settle();
        threads.retain(|thread| !thread.is_finished());
    }
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
    if primitive.wakes != Wakes::Nobody {
        (subject.wake)();
        assert!(!subject.waits_in_vain(), "it still works");
    }
}
