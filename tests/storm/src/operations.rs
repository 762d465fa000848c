//! The fifteen kinds of operation. Each ends by itself, whatever the other threads do: what it receives it has sent.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use crossbeam_channel::select;

use crate::world::World;

/// An operation, by name.
type Operation = (&'static str, fn(&World, &mut Random));

/// All kinds.
pub(crate) const OPERATIONS: [Operation; 15] = [
    ("std mutex, held over a wait", std_mutex),
    ("std rwlock, read", std_read),
    ("std rwlock, write", std_write),
    ("parking_lot mutex, notify", parking_mutex),
    ("parking_lot condvar, with a timeout", parking_condvar),
    ("parking_lot rwlock, read", parking_read),
    ("parking_lot rwlock, write", parking_write),
    ("semaphore of mutex and condvar", semaphore),
    ("crossbeam channel", crossbeam),
    ("flume channel", flume),
    ("crossbeam select, both sides", meeting),
    ("spawn, mpsc, join of an OS thread", os_thread),
    ("rayon join", rayon),
    ("thread-locals over waits", thread_locals),
    ("park, barrier, identity", identity),
];

thread_local! {
    /// What this thread has pushed.
    static PUSHED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// How many guards of the mutex this thread has.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// A generator of numbers, by Marsaglia.
pub(crate) struct Random {
    /// The state, never 0.
    state: u64,
    /// What it was made from, which tells threads apart.
    seed: u64,
}

impl Random {
    /// Returns a number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) % limit
    }

    /// Waits a little, gives way, or does neither.
    fn nap(&mut self) {
        match self.below(4) {
            0 => thread::sleep(Duration::from_micros(self.below(100))),
            1 => thread::yield_now(),
            _ => {}
        }
    }
}

/// Lives until no operation is left.
pub(crate) fn live(world: &World, seed: u64) {
    let mut random = Random { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, seed };
    let id = thread::current().id();
    while world.take() {
        let kind = random.below(OPERATIONS.len() as u64) as usize;
        OPERATIONS[kind].1(world, &mut random);
        assert_eq!(thread::current().id(), id, "a thread stays what it is");
        world.done[kind].fetch_add(1, Ordering::Relaxed);
    }
}

fn std_mutex(world: &World, random: &mut Random) {
    let mut map = world.map.lock().expect("no thread fails");
    HELD.set(HELD.get() + 1);
    let key = random.below(64);
    map.insert(key, vec![key as u8; 40]);
    random.nap();
    assert_eq!((HELD.get(), map[&key][39]), (1, key as u8), "one thread at a time");
    HELD.set(0);
}

fn std_read(world: &World, random: &mut Random) {
    let pair = world.pair.read().expect("no thread fails");
    let first = pair.0;
    random.nap();
    assert_eq!((first, first), *pair, "no writer while there is a reader");
}

fn std_write(world: &World, random: &mut Random) {
    let mut pair = world.pair.write().expect("no thread fails");
    pair.0 += 1;
    random.nap();
    pair.1 += 1;
    assert_eq!(pair.0, pair.1, "one writer at a time");
}

fn parking_mutex(world: &World, random: &mut Random) {
    let mut pair = world.parking.lock();
    pair.0 += 1;
    random.nap();
    pair.1 += 1;
    assert_eq!(pair.0, pair.1);
    world.changed.notify_one();
}

fn parking_condvar(world: &World, _: &mut Random) {
    let mut pair = world.parking.lock();
    world.changed.wait_for(&mut pair, Duration::from_micros(300));
    assert_eq!(pair.0, pair.1);
}

fn parking_read(world: &World, random: &mut Random) {
    let pair = world.parking_pair.read();
    let first = pair.0;
    random.nap();
    assert_eq!((first, first), *pair);
}

fn parking_write(world: &World, random: &mut Random) {
    let mut pair = world.parking_pair.write();
    pair.0 += 1;
    random.nap();
    pair.1 += 1;
}

fn semaphore(world: &World, random: &mut Random) {
    let (units, freed) = &world.units;
    let mut left = freed.wait_while(units.lock().expect("no thread fails"), |left| *left == 0).expect("the same");
    *left -= 1;
    drop(left);
    random.nap();
    let mut left = units.lock().expect("the same");
    *left += 1;
    assert!(*left <= 3, "three units");
    freed.notify_one();
}

fn crossbeam(world: &World, random: &mut Random) {
    world.sent.fetch_add(7, Ordering::SeqCst);
    world.crossbeam.0.send(7).expect("the receiver lives");
    random.nap();
    world.received.fetch_add(world.crossbeam.1.recv().expect("the sender lives"), Ordering::SeqCst);
}

fn flume(world: &World, random: &mut Random) {
    world.sent.fetch_add(9, Ordering::SeqCst);
    world.flume.0.send(9).expect("the receiver lives");
    random.nap();
    world.received.fetch_add(world.flume.1.recv().expect("the sender lives"), Ordering::SeqCst);
}

fn meeting(world: &World, _: &mut Random) {
    select! {
        send(world.meeting.0, 1) -> sent => sent.expect("the receiver lives"),
        recv(world.meeting.1) -> received => assert_eq!(received, Ok(1)),
        default(Duration::from_micros(200)) => {}
    }
}

fn os_thread(_: &World, _: &mut Random) {
    let (sender, receiver) = mpsc::channel();
    let spawned = thread::Builder::new().stack_size(64 * 1024).spawn(move || sender.send(5).expect("it waits"));
    let other = spawned.expect("memory for an OS thread");
    assert_eq!(receiver.recv(), Ok(5));
    other.join().expect("it only sends");
}

fn rayon(_: &World, random: &mut Random) {
    let seed = random.seed;
    assert_eq!(rayon::join(|| seed, || seed + 1), (seed, seed + 1));
}

fn thread_locals(_: &World, random: &mut Random) {
    PUSHED.with_borrow_mut(|pushed| {
        pushed.push(random.seed);
        random.nap();
        assert!(pushed.iter().all(|seed| *seed == random.seed), "another thread's");
        if pushed.len() > 50 {
            pushed.clear();
        }
    });
}

fn identity(_: &World, _: &mut Random) {
    Barrier::new(1).wait();
    thread::current().unpark();
    thread::park();
}
