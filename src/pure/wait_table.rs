//! The wait table: threads that wait for an address, as the kernel's futexes do, in order of arrival.
//!
//! ```text
//!   address --hash--> shard: lock | count | head --> node <--> node <--> node <-- tail
//!                                                    a         b         a       address, bits, number, waiter
//!                                                    (each in the frame of the call of `wait` that made it)
//!
//!   waiter: `wait`                               waker: changes the word, then `wake`
//!   1. locks the shard                           1. changes the word
//!   2. links its node, count + 1                 2. fence (SeqCst)
//!   3. fence (SeqCst)                            3. reads the count: 0? nothing waits
//!   4. `validate` reads the word                 4. locks the shard, and takes nodes out of the list
//!      changed? unlinks, Mismatch                5. unlocks, and wakes their waiters
//!   5. unlocks, and parks until taken out
//! ```
//!
//! One shard serves many addresses. A waker scans the list from its head, so the waiters of one address are woken in
//! order of arrival. The lock is a flag that is held for a few instructions: no waiter waits under it, none is woken
//! under it, nothing is allocated or freed, and of the caller's code only `validate` and the move of a `W` run there.
//! It is no lock of `std`, since a lock of `std` that is contended waits in a futex, and that leads here.
//!
//! * Invariant wait-table-1: the links, the number and the waiter of a node are touched only under the lock of the
//!   node's shard. That is the shard of its address, and the address changes only under the locks of both the old and
//!   the new shard. Upheld by `lock_of` and `requeue`.
//! * Invariant wait-table-2: a node that is in a list is in place. Upheld by `wait`: the node lies in its frame, and
//!   `Linked` takes the node out on every way out of that frame. A frame on a stack that is never resumed stays for
//!   ever, and the node with it; `abandon` takes such nodes out. Nothing keeps a pointer to a node past the lock.
//! * Invariant wait-table-3: no wake-up is lost. The fences of waiter and waker have an order, as all SeqCst fences do.
//!   If the waiter's comes first, the waker's step 3 sees the count (or the node was taken out meanwhile), and the
//!   waker's step 4 comes after the waiter's step 5. If the waker's comes first, the waiter's step 4 sees the new word.
//!
//! A node that was taken out is told so under the lock (`taken`), and so a waiter that leaves for another reason learns
//! which of the two it was: no wake-up goes to a waiter that reports another end.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomPinned;
use std::ptr::NonNull;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// How often the lock of a shard is tried before the OS thread pauses: its holder may have lost the processor.
const SPINS: u32 = 100;

/// How many waiters are taken out before the lock is given back to wake them.
const BATCH: usize = 16;

/// The bits of a waiter, or of a wake-up, that match all others.
pub(crate) const ALL: u32 = u32::MAX;

/// A way to wake a waiter, which the waiter leaves in the table.
pub(crate) trait Wake {
    /// Lets the waiter look again. Called by any thread, without a lock.
    fn wake(self);

    /// Lets other OS threads run, since the caller spins for one of them.
    fn pause();
}

/// The end of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// A wake-up took the waiter out.
    Woken,
    /// The word was not as expected; the caller has not waited.
    Mismatch,
    /// The caller's time was over first.
    TimedOut,
}

/// The table; see the picture of the file. `SHARDS` is a power of two.
pub(crate) struct WaitTable<W, const SHARDS: usize> {
    /// The shards, by the hash of an address.
    shards: [Shard<W>; SHARDS],
}

// SAFETY: all that is no atomic is touched under the lock of a shard (wait-table-1), and a waiter may be sent.
unsafe impl<W: Send, const SHARDS: usize> Sync for WaitTable<W, SHARDS> {}

/// A pointer to a node in a list, or none.
type Link<W> = Cell<Option<NonNull<Node<W>>>>;

/// One list, with its lock.
struct Shard<W> {
    /// Whether the lock is taken.
    locked: AtomicBool,
    /// The number of nodes in the list; changed under the lock, read without.
    count: AtomicUsize,
    /// The node that has waited longest.
    head: Link<W>,
    /// The node that came last.
    tail: Link<W>,
    /// The number of the latest node.
    last: Cell<u64>,
}

/// A waiter's entry in a list, in the frame of its wait.
struct Node<W> {
    /// The address that is waited for (wait-table-1).
    address: AtomicUsize,
    /// Set when a wake-up took the node out.
    taken: AtomicBool,
    /// The wake-ups that this waiter listens to.
    bits: u32,
    /// Whether the node is in the list.
    listed: Cell<bool>,
    /// The number within the shard, which grows along the list.
    number: Cell<u64>,
    /// The next node of the list.
    next: Link<W>,
    /// The previous node of the list.
    prev: Link<W>,
    /// The way to wake the waiter, while the node is in the list.
    waiter: Cell<Option<W>>,
    /// The node does not move (wait-table-2).
    _pinned: PhantomPinned,
}

/// The lock of a shard, until this is dropped.
struct Locked<'a, W>(&'a Shard<W>);

impl<W> Drop for Locked<'_, W> {
    #[inline]
    fn drop(&mut self) {
        // Release pairs with the Acquire of `lock`: the next holder sees the list as it is.
        self.0.locked.store(false, Ordering::Release);
    }
}

/// A node in the frame of `wait`, which leaves its list when this is dropped.
struct Linked<'a, W: Wake, const SHARDS: usize>(&'a WaitTable<W, SHARDS>, &'a Node<W>);

impl<W: Wake, const SHARDS: usize> Drop for Linked<'_, W, SHARDS> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

impl<W> Shard<W> {
    /// Creates an empty list.
    #[cfg(not(all(test, loom)))]
    const fn new() -> Shard<W> {
        Shard {
            locked: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            head: Cell::new(None),
            tail: Cell::new(None),
            last: Cell::new(0),
        }
    }

    /// Creates an empty list.
    #[cfg(all(test, loom))]
    fn new() -> Shard<W> {
        Shard {
            locked: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            head: Cell::new(None),
            tail: Cell::new(None),
            last: Cell::new(0),
        }
    }

    /// Changes the count; the lock is held.
    #[inline]
    fn change_count(&self, by: isize) {
        // Relaxed: the lock orders the changes; the fence of `wait` makes one visible in time (wait-table-3).
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.wrapping_add_signed(by), Ordering::Relaxed);
    }

    /// Appends a node; the lock is held.
    fn append(&self, node: &Node<W>) {
        self.last.set(self.last.get() + 1);
        node.number.set(self.last.get());
        let (at, before) = (NonNull::from(node), self.tail.replace(Some(NonNull::from(node))));
        node.prev.set(before);
        node.next.set(None);
        node.listed.set(true);
        match before {
            // SAFETY: wait-table-2, under the lock.
            Some(before) => unsafe { before.as_ref() }.next.set(Some(at)),
            None => self.head.set(Some(at)),
        }
        self.change_count(1);
    }

    /// Unlinks a node that is in the list; the lock is held.
    fn unlink(&self, node: &Node<W>) {
        node.listed.set(false);
        let (prev, next) = (node.prev.take(), node.next.take());
        match prev {
            // SAFETY: wait-table-2, under the lock.
            Some(prev) => unsafe { prev.as_ref() }.next.set(next),
            None => self.head.set(next),
        }
        match next {
            // SAFETY: wait-table-2, under the lock.
            Some(next) => unsafe { next.as_ref() }.prev.set(prev),
            None => self.tail.set(prev),
        }
        self.change_count(-1);
    }

    /// Takes a node out for a wake-up, and returns its waiter; the lock is held. The node may be gone as soon as the
    /// lock is free.
    fn take(&self, node: &Node<W>) -> Option<W> {
        self.unlink(node);
        let waiter = node.waiter.take();
        // Release pairs with the Acquire of `is_taken`: the woken thread sees what the waker did before.
        node.taken.store(true, Ordering::Release);
        waiter
    }

    /// Calls `each` with the nodes that wait for `address` and match `bits`, from the first on, until it returns false;
    /// the lock is held. `each` may take the node out.
    fn scan(&self, address: usize, bits: u32, mut each: impl FnMut(&Node<W>) -> bool) {
        let mut at = self.head.get();
        while let Some(node) = at {
            // SAFETY: wait-table-2, under the lock.
            let node = unsafe { node.as_ref() };
            at = node.next.get();
            // Relaxed: the lock is held (wait-table-1).
            if node.address.load(Ordering::Relaxed) == address && node.bits & bits != 0 && !each(node) {
                return;
            }
        }
    }
}

impl<W> Node<W> {
    /// Creates a node that is in no list.
    fn new(address: usize, bits: u32, waiter: W) -> Node<W> {
        Node {
            address: AtomicUsize::new(address),
            taken: AtomicBool::new(false),
            bits,
            listed: Cell::new(false),
            number: Cell::new(0),
            next: Cell::new(None),
            prev: Cell::new(None),
            waiter: Cell::new(Some(waiter)),
            _pinned: PhantomPinned,
        }
    }

    /// Reports whether a wake-up took the node out.
    #[inline]
    fn is_taken(&self) -> bool {
        // Acquire: see `Shard::take`.
        self.taken.load(Ordering::Acquire)
    }
}

/// Waiters that were taken out, to be woken once the lock is free.
struct Batch<W>([Option<W>; BATCH], usize);

impl<W: Wake> Batch<W> {
    /// Creates an empty batch.
    fn new() -> Batch<W> {
        Batch([const { None }; BATCH], 0)
    }

    /// Reports whether there is room for another waiter.
    fn has_room(&self) -> bool {
        self.1 < BATCH
    }

    /// Puts a waiter behind the others.
    fn add(&mut self, waiter: Option<W>) {
        self.0[self.1] = waiter;
        self.1 += 1;
    }

    /// Wakes the waiters in order of arrival.
    fn wake(self) {
        self.0.into_iter().flatten().for_each(W::wake);
    }
}

impl<W: Wake, const SHARDS: usize> WaitTable<W, SHARDS> {
    /// Creates an empty table.
    #[cfg(not(all(test, loom)))]
    pub(crate) const fn new() -> WaitTable<W, SHARDS> {
        assert!(SHARDS.is_power_of_two());
        WaitTable { shards: [const { Shard::new() }; SHARDS] }
    }

    /// Creates an empty table.
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> WaitTable<W, SHARDS> {
        WaitTable { shards: std::array::from_fn(|_| Shard::new()) }
    }

    /// Returns the shard of an address. Futexes are aligned, and neighbours go to different shards.
    #[inline]
    fn shard_of(&self, address: usize) -> &Shard<W> {
        // Multiplication by 2^64 divided by the golden ratio spreads the bits to the upper ones.
        let mixed = (address as u64 >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 40) as usize & (SHARDS - 1)]
    }

    /// Takes the lock of a shard.
    #[inline]
    fn lock<'a>(&self, shard: &'a Shard<W>) -> Locked<'a, W> {
        let mut tries = 0;
        // Acquire pairs with the Release of `Locked::drop`.
        while shard.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            tries += 1;
            if cfg!(loom) || tries % SPINS == 0 {
                W::pause();
            } else {
                std::hint::spin_loop();
            }
        }
        Locked(shard)
    }

    /// Locks the shard in which `node` is, or was when it was taken out.
    fn lock_of<'a>(&'a self, node: &Node<W>) -> Locked<'a, W> {
        loop {
            // Relaxed: read again under the lock, under which it stays (wait-table-1).
            let address = node.address.load(Ordering::Relaxed);
            let locked = self.lock(self.shard_of(address));
            if node.address.load(Ordering::Relaxed) == address {
                return locked;
            }
        }
    }

    /// Waits for a wake-up of `address` with one of `bits`.
    ///
    /// `validate` is asked under the lock, once the waiter is in the list, whether the word is still the one that the
    /// caller saw; it does not wait and calls nothing of the table. `park` suspends the caller until `waiter` is woken,
    /// and returns false when the caller's time is over. It may return early, and is called again then. If `park`
    /// unwinds, the waiter leaves the table first.
    pub(crate) fn wait(
        &self,
        address: usize,
        bits: u32,
        waiter: W,
        validate: impl FnOnce() -> bool,
        mut park: impl FnMut() -> bool,
    ) -> Waited {
        let node = Node::new(address, bits, waiter);
        // Dropped after the lock, should `validate` unwind.
        let linked = Linked(self, &node);
        if !self.enter(&node, validate) {
            return Waited::Mismatch;
        }
        while !node.is_taken() && park() {}
        drop(linked);
        // The node is in no list any more, so nothing sets this now.
        if node.is_taken() { Waited::Woken } else { Waited::TimedOut }
    }

    /// Puts a node into the list of its address, if `validate` still says so under the lock.
    fn enter(&self, node: &Node<W>, validate: impl FnOnce() -> bool) -> bool {
        let locked = self.lock_of(node);
        locked.0.append(node);
        // Pairs with the fence in `has_waiters` (wait-table-3).
        fence(Ordering::SeqCst);
        let valid = validate();
        if !valid {
            locked.0.unlink(node);
        }
        valid
    }

    /// Takes `node` out of its list, if it is in one.
    fn leave(&self, node: &Node<W>) {
        if node.is_taken() {
            return;
        }
        let locked = self.lock_of(node);
        if node.listed.get() {
            locked.0.unlink(node);
        }
    }

    /// Reports whether something may wait in the shard of `address`. The caller has changed the word before.
    #[inline]
    pub(crate) fn has_waiters(&self, address: usize) -> bool {
        // Pairs with the fence in `wait` (wait-table-3).
        fence(Ordering::SeqCst);
        // Relaxed: the fence has done the work.
        self.shard_of(address).count.load(Ordering::Relaxed) != 0
    }

    /// Reports as [`has_waiters`](Self::has_waiters) does, for less. The caller has changed the word before by an
    /// atomic operation that reads and writes, outside of Rust; or is the only OS thread that could wait; or a lock
    /// puts the waiter's `wait` before this call, if it is to be found.
    #[cfg(feature = "monkey")]
    #[inline(always)]
    pub(crate) fn has_waiters_after_release(&self, address: usize) -> bool {
        // On x86-64 such an operation is a full barrier to the processor, and takes the fence's place; the compiler
        // moves no load over a call that it cannot look into.
        #[cfg(not(target_arch = "x86_64"))]
        fence(Ordering::SeqCst);
        // Relaxed: the barrier has done the work.
        self.shard_of(address).count.load(Ordering::Relaxed) != 0
    }

    /// Wakes the first `most` waiters for `address` that listen to one of `bits`. Returns how many there were. A
    /// waiter that comes meanwhile is not woken.
    pub(crate) fn wake(&self, address: usize, bits: u32, most: usize) -> usize {
        if !self.has_waiters(address) {
            return 0;
        }
        let shard = self.shard_of(address);
        let (mut woken, mut end) = (0, None);
        loop {
            let (mut batch, locked) = (Batch::new(), self.lock(shard));
            let end = *end.get_or_insert(shard.last.get());
            shard.scan(address, bits, |node| {
                if woken == most || node.number.get() > end || !batch.has_room() {
                    return false;
                }
                woken += 1;
                batch.add(shard.take(node));
                true
            });
            drop(locked);
            let more = !batch.has_room();
            batch.wake();
            if !more {
                return woken;
            }
        }
    }

    /// Wakes the first `wake` waiters for `from`, and makes the next `most` wait for `to` instead, behind those that
    /// wait there. `validate` is asked under the locks, before anything happens; `None` if it returns false. Otherwise
    /// returns how many were woken, and how many were moved.
    pub(crate) fn requeue(
        &self,
        from: usize,
        to: usize,
        wake: usize,
        most: usize,
        validate: impl FnOnce() -> bool,
    ) -> Option<(usize, usize)> {
        let (old, new) = (self.shard_of(from), self.shard_of(to));
        let locks = self.lock_both(old, new);
        if !validate() {
            return None;
        }
        let (mut batch, mut late) = (Batch::new(), 0);
        let (mut woken, mut moved, end) = (0, 0, old.last.get());
        old.scan(from, ALL, |node| {
            if node.number.get() > end || woken == wake && moved == most {
                return false;
            }
            if woken < wake {
                woken += 1;
                // Those for which the batch has no room stay at the head of the list for a moment.
                if batch.has_room() {
                    batch.add(old.take(node))
                } else {
                    late += 1
                }
                return true;
            }
            moved += 1;
            if from != to {
                old.unlink(node);
                // Relaxed: both locks are held (wait-table-1).
                node.address.store(to, Ordering::Relaxed);
                new.append(node);
            }
            true
        });
        drop(locks);
        batch.wake();
        self.wake(from, ALL, late);
        Some((woken, moved))
    }

    /// Locks two shards, or the one; always in the order of their places.
    fn lock_both<'a>(&self, one: &'a Shard<W>, other: &'a Shard<W>) -> (Locked<'a, W>, Option<Locked<'a, W>>) {
        let at = |shard: &Shard<W>| std::ptr::from_ref(shard).addr();
        if at(one) == at(other) {
            return (self.lock(one), None);
        }
        let (first, second) = if at(one) < at(other) { (one, other) } else { (other, one) };
        let first = self.lock(first);
        (first, Some(self.lock(second)))
    }

    /// Takes out all waiters that `is_gone` names: they never run again. Nothing is woken.
    pub(crate) fn abandon(&self, is_gone: impl Fn(&W) -> bool) {
        for shard in &self.shards {
            loop {
                // One at a time, so that no destructor runs under the lock.
                let (mut found, locked) = (None, self.lock(shard));
                let mut at = shard.head.get();
                while let Some(node) = at {
                    // SAFETY: wait-table-2, under the lock.
                    let node = unsafe { node.as_ref() };
                    at = node.next.get();
                    let waiter = node.waiter.take();
                    if waiter.as_ref().is_some_and(&is_gone) {
                        shard.unlink(node);
                        found = waiter;
                        break;
                    }
                    node.waiter.set(waiter);
                }
                drop(locked);
                if found.is_none() {
                    break;
                }
            }
        }
    }

    /// Empties the table without a lock: in the child of a fork, which has one thread, and none of the waiters.
    pub(crate) fn reset(&self) {
        for shard in &self.shards {
            shard.head.set(None);
            shard.tail.set(None);
            // Relaxed: there is no other thread.
            shard.count.store(0, Ordering::Relaxed);
            shard.locked.store(false, Ordering::Relaxed);
        }
    }
}

/// Every interleaving with at most `PREEMPTIONS` preemptions, with every reordering that loom knows of:
/// `RUSTFLAGS="--cfg loom" cargo test --lib pure::wait_table --release`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::AtomicU32;
    use loom::sync::{Condvar, Mutex};
    // Not loom's: see `bell`.
    use std::sync::Arc;

    /// How often per run loom takes the processor from a thread that could go on.
    const PREEMPTIONS: usize = 3;

    /// A thread that sleeps until it is woken.
    #[derive(Clone)]
    struct Sleeper(Arc<(Mutex<bool>, Condvar)>);

    impl Sleeper {
        fn new() -> Sleeper {
            Sleeper(Arc::new((Mutex::new(false), Condvar::new())))
        }

        fn sleep(&self) -> bool {
            let mut woken = self.0.0.lock().unwrap();
            while !*woken {
                woken = self.0.1.wait(woken).unwrap();
            }
            *woken = false;
            true
        }
    }

    impl Wake for Sleeper {
        fn wake(self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }

        fn pause() {
            loom::thread::yield_now();
        }
    }

    type Table = WaitTable<Sleeper, 2>;

    /// Runs `body` in all interleavings.
    fn check(body: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(body);
    }

    /// Two addresses in different shards, and one more in the shard of the first.
    fn addresses(table: &Table) -> [usize; 3] {
        let place = |address| std::ptr::from_ref(table.shard_of(address));
        let first = 4096;
        let other = (first..).step_by(4).find(|at| place(*at) != place(first)).unwrap();
        let same = (first + 4..).step_by(4).find(|at| place(*at) == place(first)).unwrap();
        [first, other, same]
    }

    /// Waits as `wait` does for a word that is 0, with or without the fence. Leaks the node: while loom reports a
    /// deadlock, no destructor may use an atomic.
    fn wait_by_hand(table: &Table, address: usize, word: &AtomicU32, fenced: bool) {
        let sleeper = Sleeper::new();
        let node = Box::leak(Box::new(Node::new(address, ALL, sleeper.clone())));
        let locked = table.lock_of(node);
        locked.0.append(node);
        if fenced {
            fence(Ordering::SeqCst);
        }
        let valid = word.load(Ordering::Relaxed) == 0;
        if !valid {
            locked.0.unlink(node);
        }
        drop(locked);
        while valid && !node.is_taken() {
            sleeper.sleep();
        }
    }

    /// `has_waiters` without its fence.
    fn wake_wrongly(table: &Table, address: usize) {
        if table.shard_of(address).count.load(Ordering::Relaxed) != 0 {
            table.wake(address, ALL, 1);
        }
    }

    /// A waiter for a word that is 0, and a waker that makes it 1. Loom reports a lost wake-up as a deadlock.
    fn exchange(
        wait: impl Fn(&Table, usize, &AtomicU32) + Send + Sync + 'static,
        wake: impl Fn(&Table, usize) + Send + Sync + 'static,
    ) {
        let (wait, wake) = (Arc::new(wait), Arc::new(wake));
        check(move || {
            let shared: &'static _ = Box::leak(Box::new((Table::new(), AtomicU32::new(0))));
            let wait = Arc::clone(&wait);
            let waiter = loom::thread::spawn(move || wait(&shared.0, 4096, &shared.1));
            shared.1.store(1, Ordering::Relaxed);
            wake(&shared.0, 4096);
            waiter.join().unwrap();
        });
    }

    /// Waits for a word that is 0.
    fn wait_rightly(table: &Table, address: usize, word: &AtomicU32) {
        let sleeper = Sleeper::new();
        table.wait(address, ALL, sleeper.clone(), || word.load(Ordering::Relaxed) == 0, || sleeper.sleep());
    }

    #[test]
    fn no_wake_up_is_lost() {
        exchange(wait_rightly, |table, address| {
            table.wake(address, ALL, 1);
        });
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn without_the_fence_of_the_waiter_a_wake_up_is_lost() {
        exchange(
            |table, address, word| wait_by_hand(table, address, word, false),
            |table, address| {
                table.wake(address, ALL, 1);
            },
        );
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn without_the_fence_of_the_waker_a_wake_up_is_lost() {
        exchange(|table, address, word| wait_by_hand(table, address, word, true), wake_wrongly);
    }

    #[test]
    fn a_waiter_whose_time_is_over_and_its_waker_agree_on_the_end() {
        check(|| {
            let table: &'static Table = Box::leak(Box::new(Table::new()));
            let waiter = loom::thread::spawn(move || {
                let mut patience = 1;
                table.wait(
                    4096,
                    ALL,
                    Sleeper::new(),
                    || true,
                    || {
                        patience -= 1;
                        loom::thread::yield_now();
                        patience >= 0
                    },
                )
            });
            let woken = table.wake(4096, ALL, 1);
            let waited = waiter.join().unwrap();
            assert_eq!(waited, if woken == 1 { Waited::Woken } else { Waited::TimedOut });
            assert!(!table.has_waiters(4096));
        });
    }

    /// A waiter that is moved to `to` while it leaves or is woken there.
    fn moved(pick: usize) {
        check(move || {
            let table: &'static Table = Box::leak(Box::new(Table::new()));
            let from = addresses(table)[0];
            let to = addresses(table)[pick];
            let waiter = loom::thread::spawn(move || {
                table.wait(
                    from,
                    ALL,
                    Sleeper::new(),
                    || true,
                    || {
                        loom::thread::yield_now();
                        false
                    },
                )
            });
            let mover = loom::thread::spawn(move || table.requeue(from, to, 0, 1, || true).unwrap().1);
            let woken = table.wake(to, ALL, 1);
            let (waited, moved) = (waiter.join().unwrap(), mover.join().unwrap());
            assert_eq!(waited, if woken == 1 { Waited::Woken } else { Waited::TimedOut });
            assert!(woken <= moved);
            assert!(!table.has_waiters(from) && !table.has_waiters(to));
        });
    }

    #[test]
    fn a_waiter_that_is_moved_to_another_shard_leaves_that_one() {
        moved(1);
    }

    #[test]
    fn a_waiter_that_is_moved_within_its_shard_leaves_it() {
        moved(2);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::pure::test_random::Random;
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    /// A waiter that sends its number when it is woken.
    struct Bell(Sender<u32>, u32);

    impl Wake for Bell {
        fn wake(self) {
            let _ = self.0.send(self.1);
        }

        fn pause() {
            std::thread::yield_now();
        }
    }

    type Table = WaitTable<Bell, 4>;

    /// Runs `body` while one waiter for each of `waits` (address, bits) waits, in this order. Returns how they ended.
    fn with_waiters(table: &Table, waits: &[(usize, u32)], body: impl FnOnce(&Receiver<u32>)) -> Vec<Waited> {
        let (send, woken) = channel();
        let mut ends = vec![Waited::Mismatch; waits.len()];
        wait_for_each(table, &mut waits.iter().zip(0..), &send, &mut ends, || body(&woken));
        ends
    }

    /// Puts the next waiter into the table, and the others while it waits: all of them on this thread.
    fn wait_for_each(
        table: &Table,
        waits: &mut dyn Iterator<Item = (&(usize, u32), u32)>,
        send: &Sender<u32>,
        ends: &mut [Waited],
        body: impl FnOnce(),
    ) {
        let Some((&(address, bits), number)) = waits.next() else { return body() };
        let mut body: Option<Box<dyn FnOnce() + '_>> = Some(Box::new(body));
        let end = table.wait(
            address,
            bits,
            Bell(send.clone(), number),
            || true,
            || {
                wait_for_each(table, waits, send, ends, body.take().unwrap());
                false
            },
        );
        ends[number as usize] = end;
    }

    /// The numbers that were woken.
    fn all(woken: &Receiver<u32>) -> Vec<u32> {
        woken.try_iter().collect()
    }

    #[test]
    fn waiters_of_an_address_are_woken_in_order_of_arrival() {
        let table = Table::new();
        let ends = with_waiters(&table, &[(8, ALL), (12, ALL), (8, ALL), (8, ALL)], |woken| {
            assert_eq!(table.wake(8, ALL, 2), 2);
            assert_eq!(all(woken), [0, 2]);
            assert_eq!(table.wake(16, ALL, 9), 0);
            assert_eq!(table.wake(8, ALL, 9), 1);
            assert_eq!(table.wake(8, ALL, 9), 0);
            assert_eq!(all(woken), [3]);
        });
        assert_eq!(ends, [Waited::Woken, Waited::TimedOut, Waited::Woken, Waited::Woken]);
        assert!((0..1000).all(|at| !table.has_waiters(4 * at)));
    }

    #[test]
    fn bits_choose_among_waiters() {
        let table = Table::new();
        with_waiters(&table, &[(8, 1), (8, 2), (8, 6)], |woken| {
            assert_eq!(table.wake(8, 8, 9), 0);
            assert_eq!(table.wake(8, 2, 9), 2);
            assert_eq!(all(woken), [1, 2]);
        });
    }

    #[test]
    fn a_word_that_changed_is_a_mismatch_and_nothing_waits() {
        let table = Table::new();
        let end = table.wait(8, ALL, Bell(channel().0, 0), || false, || unreachable!("it does not wait"));
        assert_eq!((end, table.has_waiters(8)), (Waited::Mismatch, false));
    }

    #[test]
    fn more_waiters_than_a_batch_are_all_woken_in_order() {
        let table = Table::new();
        let many = BATCH * 3 + 1;
        with_waiters(&table, &vec![(8, ALL); many], |woken| {
            assert_eq!(table.wake(8, ALL, usize::MAX), many);
            assert!(all(woken).into_iter().eq(0..many as u32));
        });
        with_waiters(&table, &vec![(8, ALL); many], |woken| {
            assert_eq!(table.requeue(8, 12, many - 1, 5, || true), Some((many - 1, 1)));
            assert!(all(woken).into_iter().eq(0..many as u32 - 1));
            assert_eq!(table.wake(12, ALL, 9), 1);
        });
    }

    #[test]
    fn waiters_are_moved_behind_those_that_wait_there() {
        // All pairs of addresses, in one shard and in two.
        for to in (4..64).step_by(4).filter(|to| *to != 8) {
            let table = Table::new();
            let ends = with_waiters(&table, &[(8, ALL), (to, ALL), (8, ALL), (8, 2), (8, ALL)], |woken| {
                assert_eq!(table.requeue(8, to, 1, 2, || false), None);
                assert_eq!(table.requeue(8, to, 1, 2, || true), Some((1, 2)));
                assert_eq!(all(woken), [0]);
                assert_eq!(table.wake(8, ALL, 9), 1);
                assert_eq!(all(woken), [4]);
                assert_eq!(table.wake(to, ALL, 9), 3);
                assert_eq!(all(woken), [1, 2, 3]);
                assert_eq!(table.requeue(8, 8, 1, 1, || true), Some((0, 0)));
            });
            assert_eq!(ends, [Waited::Woken; 5]);
            assert!(!table.has_waiters(8) && !table.has_waiters(to));
        }
    }

    #[test]
    fn a_waiter_that_unwinds_leaves_the_table() {
        let table = Table::new();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            table.wait(8, ALL, Bell(channel().0, 0), || true, || std::panic::resume_unwind(Box::new(())));
        }));
        assert!(unwound.is_err() && !table.has_waiters(8));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            table.wait(8, ALL, Bell(channel().0, 0), || std::panic::resume_unwind(Box::new(())), || true);
        }));
        assert!(unwound.is_err() && !table.has_waiters(8));
        assert_eq!(table.wake(8, ALL, 1), 0);
    }

    #[test]
    fn abandoned_waiters_take_no_wake_up() {
        let table = Table::new();
        with_waiters(&table, &[(8, ALL), (8, ALL), (12, ALL)], |woken| {
            table.abandon(|waiter| waiter.1 != 1);
            assert!(!table.has_waiters(12));
            assert_eq!(table.wake(8, ALL, 1), 1);
            assert_eq!(all(woken), [1]);
        });
        with_waiters(&table, &[(8, ALL)], |_| {
            table.reset();
            assert!(!table.has_waiters(8));
        });
    }

    #[test]
    fn no_wake_up_is_lost_between_threads_that_wait_move_and_leave() {
        let (threads, rounds) = if cfg!(miri) { (3, 30) } else { (4, 20_000) };
        let table = Table::new();
        let words: Vec<AtomicU32> = (0..6).map(|_| AtomicU32::new(0)).collect();
        let at = |word: &AtomicU32| std::ptr::from_ref(word).addr();
        let mut random = Random::new();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let choices: Vec<u64> = (0..64).map(|_| random.next()).collect();
                let (table, words) = (&table, &words);
                scope.spawn(move || {
                    for round in 0..rounds {
                        let choice = choices[round % 64].rotate_left(round as u32 / 64);
                        let (word, other) = (&words[choice as usize % 6], &words[(choice >> 8) as usize % 6]);
                        // A lock: 0 free, 1 taken, 2 taken and waited for. Some wait with little patience.
                        let patient = choice >> 16 & 3 != 0;
                        let mut had = word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
                        while !had {
                            had = word.swap(2, Ordering::Acquire) == 0;
                            if had {
                                break;
                            }
                            let (send, woken) = channel();
                            let limit = Duration::from_secs(if patient { 60 } else { 0 });
                            let end = table.wait(
                                at(word),
                                ALL,
                                Bell(send, 0),
                                || word.load(Ordering::Relaxed) == 2,
                                || woken.recv_timeout(limit).is_ok(),
                            );
                            assert!(!patient || end != Waited::TimedOut, "a wake-up was lost");
                            if !patient && end == Waited::TimedOut {
                                std::thread::yield_now();
                            }
                        }
                        // Moves that move nothing, in all shards.
                        table.requeue(at(word), at(word), 0, 1, || true);
                        table.requeue(at(other) + 1, at(word), 1, 1, || true);
                        if word.swap(0, Ordering::Release) == 2 {
                            table.wake(at(word), ALL, 1);
                        }
                    }
                });
            }
        });
        assert!(words.iter().all(|word| !table.has_waiters(at(word))));
    }
}
