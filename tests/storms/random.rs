//! Random programs: green threads that do anything at any time, and at the end nothing may be left.
//!
//! ```text
//!   round = a seed -> an OS thread -> some actors, each doing random steps, until the steps of the round are used up
//!           -> shutdown, with what the actors share there or about to go; then the end of the OS thread
//!           -> every token that was made was dropped, once; no thread lives, no stack is in use
//! ```
//!
//! The choices come from the seed, the times do not: a seed that fails may have to be run several times.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::common;
use greenling::net::{TcpListener, TcpStream};
use greenling::thread::{self, JoinHandle, Thread, spawn, yield_now};
use greenling::{Greenlet, hub, no_switch, shield, sleep, timeout};

/// How long the test goes on making rounds.
const SPAN: Duration = Duration::from_secs(4);

/// Steps of one round.
const STEPS: u32 = 3_000;

/// Threads that may live at once.
const CROWD: usize = 300;

/// What all rounds made and dropped.
#[derive(Debug, Default)]
struct Tally {
    /// Tokens that exist now; never below zero.
    alive: AtomicI64,
    /// Tokens ever made.
    made: AtomicU64,
}

/// Something that must be dropped once.
#[derive(Debug)]
struct Token {
    /// Where it counts.
    tally: Arc<Tally>,
    /// Cleared by its drop.
    whole: Cell<bool>,
}

impl Token {
    /// A new one.
    fn new(tally: &Arc<Tally>) -> Token {
        tally.alive.fetch_add(1, Ordering::Relaxed);
        tally.made.fetch_add(1, Ordering::Relaxed);
        Token { tally: Arc::clone(tally), whole: Cell::new(true) }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.whole.replace(false) || self.tally.alive.fetch_sub(1, Ordering::Relaxed) < 1 {
            eprintln!("a token was dropped twice");
            std::process::abort();
        }
    }
}

/// A token whose destructor blocks, or tries to.
struct Sticky(#[expect(dead_code, reason = "dropped")] Token);

impl Drop for Sticky {
    fn drop(&mut self) {
        sleep(Duration::from_micros(20));
        yield_now();
        thread::park_timeout(Duration::from_micros(20));
    }
}

/// What the actors of a round share.
struct World {
    /// The round's choices.
    random: RefCell<common::Random>,
    /// Steps left.
    steps: Cell<u32>,
    /// Tokens.
    tally: Arc<Tally>,
    /// Handles that anybody may join, kill or drop.
    handles: RefCell<Vec<JoinHandle<Token>>>,
    /// Whom anybody may unpark.
    threads: RefCell<Vec<Thread>>,
    /// Greenlets that anybody may switch to or drop.
    greenlets: RefCell<Vec<Greenlet<u64>>>,
    /// The OS thread that unparks from outside.
    outside: mpsc::Sender<Thread>,
    /// Where connections come from.
    listener: TcpListener,
}

impl World {
    /// A number less than `limit`.
    fn below(&self, limit: u64) -> u64 {
        self.random.borrow_mut().below(limit)
    }

    /// A short time, sometimes none.
    fn moment(&self) -> Duration {
        Duration::from_micros(self.below(4) * self.below(100))
    }

    /// One of `list`, taken out.
    fn pick<T>(&self, list: &RefCell<Vec<T>>) -> Option<T> {
        let len = list.borrow().len() as u64;
        (len > 0).then(|| list.borrow_mut().swap_remove(self.below(len) as usize))
    }

    /// A token.
    fn token(&self) -> Token {
        Token::new(&self.tally)
    }
}

/// Random steps, at most `most`.
fn act(world: &Rc<World>, depth: u32, most: u64) {
    let _frame = world.token();
    for _ in 0..world.below(most) {
        let Some(left) = world.steps.get().checked_sub(1) else { return };
        world.steps.set(left);
        step(world, depth);
    }
}

/// One random step. Nothing of the world is borrowed while it blocks or drops.
fn step(world: &Rc<World>, depth: u32) {
    match world.below(25) {
        0..3 => yield_now(),
        3 => sleep(world.moment()),
        4..7 if hub::live_threads() < CROWD => {
            let (inner, token) = (Rc::clone(world), world.token());
            let handle = spawn(move || {
                act(&inner, depth + 1, 12);
                token
            });
            if world.below(4) > 0 {
                world.handles.borrow_mut().push(handle);
            }
        }
        7 => drop(world.pick(&world.handles).map(JoinHandle::join)),
        8 => {
            let handle = world.pick(&world.handles);
            handle.iter().for_each(|handle| _ = handle.kill());
        }
        9 => {
            world.threads.borrow_mut().push(thread::current());
            thread::park_timeout(world.moment());
        }
        10 => world.pick(&world.threads).iter().for_each(Thread::unpark),
        11 => world.pick(&world.threads).into_iter().for_each(|thread| world.outside.send(thread).unwrap()),
        12 if depth < 8 => drop(timeout(world.moment(), || act(world, depth + 1, 6))),
        13 if depth < 8 => shield(|| act(world, depth + 1, 4)),
        14 if depth < 8 && hub::live_threads() < CROWD => {
            let borrowed = world.token();
            thread::scope(|s| {
                for _ in 0..world.below(4) {
                    let handle = s.spawn(|| {
                        act(world, depth + 1, 6);
                        assert!(borrowed.whole.get());
                        world.token()
                    });
                    match world.below(4) {
                        0 => _ = handle.kill(),
                        1 => drop(handle.join()),
                        _ => {}
                    }
                }
                if world.below(8) == 0 {
                    resume_unwind(Box::new(world.token().whole.get()));
                }
            });
            assert!(borrowed.whole.get());
        }
        15 if hub::live_threads() < CROWD => {
            // Weak, or the list of the unstarted ones would keep itself alive.
            let (inner, token) = (Rc::downgrade(world), world.token());
            let greenlet = Greenlet::new(move |first: u64| {
                let (_token, Some(inner)) = (token, inner.upgrade()) else { return first };
                let mut sum = first;
                for _ in 0..inner.below(5) {
                    act(&inner, depth + 1, 3);
                    let Some(parent) = Greenlet::<u64>::current().parent() else { return sum };
                    sum += parent.try_switch(sum).unwrap_or(0);
                }
                sum
            });
            if world.below(2) == 0 {
                greenlet.switch(1);
            }
            world.greenlets.borrow_mut().push(greenlet);
        }
        16 | 17 => {
            if let Some(greenlet) = world.pick(&world.greenlets) {
                drop(greenlet.try_switch(1));
                if world.below(2) == 0 {
                    world.greenlets.borrow_mut().push(greenlet);
                }
            }
        }
        18 => drop(world.pick(&world.greenlets)),
        19 => drop(Sticky(world.token())),
        20 => {
            let _while_it_unwinds = Sticky(world.token());
            if world.below(6) == 0 {
                resume_unwind(Box::new(world.token()));
            }
        }
        21 => drop(catch_unwind(AssertUnwindSafe(|| act(world, depth + 1, 3)))),
        22 | 23 if hub::live_threads() < CROWD => talk(world),
        24 if world.below(10) == 0 => hub::trim_stacks(),
        _ => no_switch(|| drop(world.token())),
    }
}

/// A connection whose two ends are used by several threads.
fn talk(world: &Rc<World>) {
    let Ok(near) = TcpStream::connect(world.listener.local_addr().unwrap()) else { return };
    let Ok((far, _)) = world.listener.accept() else { return };
    far.set_read_timeout(Some(Duration::from_micros(1 + world.below(300)))).unwrap();
    let far = Rc::new(far);
    for _ in 0..world.below(3) {
        let (far, token) = (Rc::clone(&far), world.token());
        let reader = spawn(move || {
            let mut bytes = [0; 8];
            while (&*far).read(&mut bytes).is_ok_and(|n| n > 0) {}
            token
        });
        world.handles.borrow_mut().push(reader);
    }
    for _ in 0..world.below(4) {
        let len = world.below(32) as usize;
        if (&near).write_all(&[7; 32][..len]).is_err() {
            return;
        }
        yield_now();
    }
    match world.below(4) {
        0 => far.close(),
        1 => drop(timeout(world.moment(), || (&near).read(&mut [0]))),
        2 => drop(far.read_with(<[u8]>::len)),
        _ => {}
    }
}

/// One round, in an OS thread of its own.
fn round(seed: common::Random, tally: &Arc<Tally>, shut_down: bool) {
    let mut seed = seed;
    let (outside, letters) = mpsc::channel::<Thread>();
    let unparker = std::thread::spawn(move || letters.iter().for_each(|thread| thread.unpark()));
    let inner = Arc::clone(tally);
    let main = std::thread::spawn(move || {
        let steps = 1 + seed.below(u64::from(STEPS)) as u32;
        let world = Rc::new(World {
            random: RefCell::new(seed),
            steps: Cell::new(steps),
            tally: inner,
            handles: RefCell::default(),
            threads: RefCell::default(),
            greenlets: RefCell::default(),
            outside,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        });
        let mut idle = 0;
        while world.steps.get() > 0 && idle < 50 {
            let before = world.steps.get();
            let actor = Rc::clone(&world);
            drop(spawn(move || act(&actor, 0, 200)));
            sleep(Duration::from_micros(300));
            idle = if world.steps.get() == before { idle + 1 } else { 0 };
        }
        world.steps.set(0);
        if shut_down {
            assert_eq!(hub::shutdown(), 0);
            world.handles.take();
            world.greenlets.take();
            world.threads.take();
            // What those left behind.
            assert_eq!(hub::shutdown(), 0);
            assert_eq!((hub::live_threads(), hub::stack_stats().in_use), (0, 0));
        } else {
            // What is ready and was not taken is left to the end of the OS thread.
            assert_eq!(hub::shutdown(), 0);
            drop(world);
            assert_eq!(hub::shutdown(), 0);
        }
    });
    main.join().unwrap();
    unparker.join().unwrap();
}

#[test]
fn whatever_green_threads_do_nothing_is_left_at_the_end() {
    let _guard = common::guard();
    let mut random = common::Random::new();
    let tally = Arc::new(Tally::default());
    let until = Instant::now() + SPAN;
    let mut rounds = 0;
    while rounds < 2 || Instant::now() < until {
        round(random.fork(), &tally, rounds % 2 == 0);
        assert_eq!(tally.alive.load(Ordering::Relaxed), 0, "tokens left after round {rounds}");
        rounds += 1;
    }
    println!("{rounds} rounds, {} tokens", tally.made.load(Ordering::Relaxed));
}
