//! What groups and pools promise.

use std::cell::Cell;
use std::rc::Rc;

use greenling::group::{self, Group, Pool};
use greenling::sync::WaitGroup;
use greenling::{sleep, spawn, thread, yield_now};

use super::{Count, SOON, TICK, join_all, may_be_killed, threads};

/// A pool never has more threads than it may, and a group ends with all of its own.
pub(crate) fn group_and_pool() {
    let most = Rc::new(Cell::new(0));
    let inside = Rc::new(Cell::new(0_u32));
    let pool = Pool::new(2);
    let waits = Rc::new(WaitGroup::new());
    let handles: Vec<_> = (0..4)
        .map(|_| {
            let (most, inside) = (Rc::clone(&most), Rc::clone(&inside));
            pool.spawn(move || {
                let _count = Count::of(&inside);
                most.set(most.get().max(inside.get()));
                yield_now();
            })
        })
        .collect();
    join_all(handles);
    assert!(most.get() <= 2 && inside.get() == 0);
    let group = Group::new();
    for _ in 0..3 {
        let waits = Rc::clone(&waits);
        group.spawn(move || {
            yield_now();
            drop(waits);
        });
    }
    drop(group.join_all());
    assert_eq!(Rc::strong_count(&waits), 1);
}

/// A group gives each result once, in the order of the ends, or all of them.
pub(crate) fn group_gives_each_result_once() {
    let group = Rc::new(Group::new());
    for number in 0..3_u32 {
        group.spawn(move || (sleep(TICK * number), number).1);
    }
    group.add(spawn(|| 3));
    let group2 = Rc::clone(&group);
    let takers = threads(2, move |_| {
        let ended = group2.wait_any(1).pop().map(|thread| thread.join());
        (group2.join_timeout(TICK), ended).1
    });
    let mut got: Vec<_> = join_all(takers).into_iter().flatten().chain(group.join_all()).flatten().collect();
    let count = got.len();
    got.sort_unstable();
    got.dedup();
    assert!(got.len() == count && count >= 2 && group.is_empty(), "{got:?}");
}

/// Threads that are waited for together: all, the first, and those that are killed.
pub(crate) fn many_at_once() {
    let mut all = threads(3, |number| (sleep(TICK * number as u32), number).1);
    let first = group::wait_any(&mut all, 1);
    assert_eq!(first.len(), 1);
    let first = first.into_iter().map(|thread| thread.join());
    all.push(spawn(|| (sleep(SOON), 9).1));
    group::kill_all(&all[all.len() - 1..]);
    let got: Vec<_> = first.chain(group::join_all(all)).flatten().collect();
    assert!(got.is_sorted() && got.len() >= 2 && got.len() <= 3, "{got:?}");
}

/// A caller waits for a slot as long as it may, and what a pool has taken it runs.
pub(crate) fn pool_with_limits() {
    let pool = Rc::new(Pool::new(1));
    let ran = Rc::new(Cell::new(0));
    let (pool2, ran2) = (Rc::clone(&pool), Rc::clone(&ran));
    let callers = threads(4, move |number| {
        let ran = Rc::clone(&ran2);
        let job = move || {
            sleep(TICK);
            ran.set(ran.get() + 1);
        };
        match number {
            0 => pool2.spawn(job).join().is_ok(),
            1 => pool2.try_spawn(job).is_ok_and(|thread| thread.join().is_ok()),
            2 => pool2.spawn_timeout(TICK, job).is_ok_and(|thread| thread.join().is_ok()),
            _ => (pool2.apply(job), true).1,
        }
    });
    let taken = callers.into_iter().filter_map(|caller| caller.join().ok()).filter(|is_taken| *is_taken).count();
    while !pool.join_timeout(TICK) {}
    pool.join();
    assert!(ran.get() >= taken && pool.free() == 1, "{} {taken}", ran.get());
    assert_eq!(pool.kill_all(), 0);
}

/// The results of jobs for items come in the order of the items, or as they are there, each once.
pub(crate) fn pool_maps() {
    let maps = threads(3, |number| {
        let pool = Pool::new(2);
        let job = |n: u32| (sleep(TICK * (3 - n)), n).1;
        match number {
            0 => pool.map(0..3, job),
            1 => pool.imap(0..3, job).flatten().collect(),
            _ => {
                let mut got: Vec<_> = pool.imap_unordered(0..3, job).flatten().collect();
                got.sort_unstable();
                got
            }
        }
    });
    for map in maps {
        // A job that was killed is a panic of `map`, and missing in the others.
        let got = map.join();
        assert!(got.is_ok_and(|got| got == [0, 1, 2]) || may_be_killed());
    }
}

/// Threads with thread-locals of their own in a pool, where they are supported.
pub(crate) fn pool_of_own_threads() {
    if thread::own_thread_locals_supported().is_err() {
        return;
    }
    let caller = spawn(|| {
        let pool = Pool::new(1).own_thread_locals().unwrap();
        let first = pool.spawn(|| sleep(TICK));
        assert!(pool.try_spawn(|| ()).is_err() && pool.spawn_timeout(TICK / 2, || ()).is_err());
        assert_eq!(pool.apply(yield_now), ());
        let sums = (pool.map(0..2, |n| n + 1), pool.imap(0..2, |n| n + 1), pool.imap_unordered(0..2, |n| n + 1));
        let counts = (sums.0.len(), sums.1.flatten().count(), sums.2.flatten().count());
        (first.join().is_ok(), pool.join(), pool.join_timeout(TICK), counts)
    });
    assert!(caller.join().is_ok_and(|ended| ended == (true, (), true, (2, 2, 2))) || may_be_killed());
}
