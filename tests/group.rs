//! Groups and pools: order, limits, and that nothing is lost when threads panic, are killed, or time out.
#![forbid(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Log, OnDrop, Random, guard, in_virtual_time, settle, stderr};
use greenling::group::{Group, Pool, join_all, kill_all, wait_any};
use greenling::sim::elapsed;
use greenling::thread::{JoinError, JoinHandle, Thread, park, sleep, spawn, yield_now};
use greenling::{TimeoutError, hub, timeout};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

/// Threads that park, and a way to end each.
fn parked(count: u32) -> (Vec<JoinHandle<u32>>, Vec<Thread>) {
    let threads: Vec<_> = (0..count).map(|n| spawn(move || (park(), n).1)).collect();
    let ends = threads.iter().map(|thread| thread.thread().clone()).collect();
    yield_now();
    (threads, ends)
}

fn values(handles: Vec<JoinHandle<u32>>) -> Vec<u32> {
    handles.into_iter().map(|handle| handle.join().unwrap()).collect()
}

fn message<T>(result: Result<T, JoinError>) -> String {
    result.map(drop).unwrap_err().to_string()
}

/// What `f` panicked with, as text.
fn panic_of(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
    payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string())).unwrap()
}

// ---- free functions -------------------------------------------------------------------------------------------------

#[test]
fn join_all_has_all_results_in_the_order_of_the_handles() {
    let _guard = guard();
    let (mut threads, ends) = parked(3);
    threads.push(spawn(|| panic!("the fourth")));
    threads.push(spawn(|| 4));
    threads[1].kill();
    let ender = spawn(move || ends.iter().rev().for_each(Thread::unpark));
    let results = join_all(threads);
    ender.join().unwrap();
    assert_eq!((results[0].as_ref().unwrap(), results[2].as_ref().unwrap()), (&0, &2));
    assert!(results[1].as_ref().unwrap_err().is_killed());
    assert_eq!(results[3].as_ref().unwrap_err().panic_message(), Some("the fourth"));
    assert_eq!(results[4].as_ref().unwrap(), &4);
    assert!(join_all(Vec::<JoinHandle<()>>::new()).is_empty());
}

#[test]
fn wait_any_takes_the_first_in_the_order_in_which_they_end() {
    let _guard = guard();
    let (mut threads, ends) = parked(6);
    let ender = spawn(move || {
        for at in [4, 0, 5, 2] {
            ends[at].unpark();
            yield_now();
        }
        ends
    });
    assert_eq!(values(wait_any(&mut threads, 3)), [4, 0, 5]);
    assert_eq!(threads.len(), 3);
    let ends = ender.join().unwrap();
    yield_now();
    // One has ended before the call.
    ends[3].unpark();
    assert_eq!(values(wait_any(&mut threads, 2)), [2, 3]);
    assert!(wait_any(&mut threads, 0).is_empty());
    ends[1].unpark();
    assert_eq!(values(wait_any(&mut threads, 100)), [1], "all, if they are fewer");
    assert!(wait_any(&mut threads, 1).is_empty() && threads.is_empty());
}

#[test]
fn an_interrupted_wait_any_leaves_all_handles_and_nothing_behind() {
    let _guard = guard();
    let (mut threads, ends) = parked(3);
    ends[1].unpark();
    for _ in 0..100 {
        assert_eq!(timeout(Duration::ZERO, || wait_any(&mut threads, 2).len()), Err(TimeoutError::Elapsed));
        assert_eq!(threads.len(), 3);
    }
    assert!(threads[1].is_finished());
    assert_eq!(values(wait_any(&mut threads, 1)), [1]);
    ends[0].unpark();
    assert_eq!(values(wait_any(&mut threads, 1)), [0]);
    assert_eq!(kill_all(&threads), 1);
    assert_eq!(kill_all(&threads), 1, "it has not run since");
    assert!(join_all(threads).pop().unwrap().unwrap_err().is_killed());
}

#[test]
fn a_thread_that_would_wait_for_itself_panics() {
    let _guard = guard();
    let own: Rc<RefCell<Vec<JoinHandle<String>>>> = Rc::default();
    let theirs = Rc::clone(&own);
    own.borrow_mut().push(spawn(move || {
        let mut handles = theirs.take();
        let message = panic_of(|| drop(wait_any(&mut handles, 1)));
        handles.push(spawn(String::new));
        assert_eq!(wait_any(&mut handles, 1).len(), 1, "the other one is enough");
        message
    }));
    yield_now();
    yield_now();
    let group = Rc::new(Group::new());
    let (inside, seen) = (Rc::clone(&group), Rc::new(RefCell::new(Vec::new())));
    let messages = Rc::clone(&seen);
    group.spawn(move || {
        type Wait = fn(&Group<()>);
        let waits: [Wait; 3] = [|g| drop(g.join_all()), |g| assert!(g.join_timeout(LONG)), |g| drop(g.wait_any(1))];
        for wait in waits {
            messages.borrow_mut().push(panic_of(|| wait(&inside)));
        }
    });
    assert_eq!(group.join_all().len(), 1);
    assert_eq!(*seen.borrow(), ["a green thread cannot wait for its own end"; 3]);
}

// ---- groups ---------------------------------------------------------------------------------------------------------

#[test]
fn a_group_gives_results_in_order_of_finish_or_of_spawn() {
    let _guard = guard();
    let group: Group<u32> = Group::new();
    assert!(group.is_empty() && group.join_all().is_empty() && group.wait_any(5).is_empty());
    let (threads, ends) = parked(4);
    let ids: Vec<_> = threads.into_iter().map(|thread| group.add(thread)).collect();
    assert!(ids.iter().eq(ends.iter().map(Thread::id).collect::<Vec<_>>().iter()));
    let done = spawn(|| 9);
    yield_now();
    group.add(done);
    assert_eq!((group.len(), group.running()), (5, 4));
    assert_eq!(values(group.wait_any(1)), [9], "one that had ended before it came");
    let ender = spawn(move || {
        for at in [2, 0, 3, 1] {
            ends[at].unpark();
            yield_now();
        }
    });
    assert_eq!(values(group.wait_any(2)), [2, 0]);
    assert_eq!(group.len(), 2);
    let rest: Vec<u32> = group.join_all().into_iter().map(Result::unwrap).collect();
    assert_eq!(rest, [1, 3]);
    assert!(group.is_empty());
    ender.join().unwrap();
}

#[test]
fn join_timeout_says_whether_all_have_ended_and_takes_nothing() {
    let _guard = guard();
    in_virtual_time(|| {
        let group = Group::new();
        group.spawn(|| sleep(LONG));
        group.spawn(|| ());
        assert!(!group.join_timeout(SHORT));
        assert_eq!(elapsed(), SHORT);
        assert_eq!((group.len(), group.running()), (2, 1));
        assert_eq!(group.kill_all(), 1);
        assert!(group.join_timeout(LONG));
        assert_eq!((group.len(), group.running()), (2, 0));
        assert_eq!(group.kill_all(), 0);
        let ended: Vec<bool> = group.join_all().into_iter().map(|result| result.is_ok()).collect();
        assert_eq!(ended, [false, true]);
    });
}

#[test]
fn threads_that_come_during_a_join_are_waited_for() {
    let _guard = guard();
    let group = Rc::new(Group::new());
    let inside = Rc::clone(&group);
    group.spawn(move || {
        yield_now();
        inside.spawn(|| (yield_now(), 2).1);
        1
    });
    let results: Vec<u32> = group.join_all().into_iter().map(Result::unwrap).collect();
    assert_eq!(results, [1, 2]);
}

#[test]
fn of_several_waiters_the_first_is_served_first_and_a_dead_one_takes_nothing() {
    let _guard = guard();
    let group: Rc<Group<u32>> = Rc::new(Group::new());
    let (threads, ends) = parked(4);
    for thread in threads {
        group.add(thread);
    }
    let log = Log::default();
    let waiters: Vec<_> = [("a", 2), ("b", 1), ("c", 1)]
        .map(|(name, count)| {
            let (group, log) = (Rc::clone(&group), log.clone());
            spawn(move || log.say(format_args!("{name}{:?}", values(group.wait_any(count)))))
        })
        .into();
    yield_now();
    waiters[1].kill();
    for end in &ends[..3] {
        end.unpark();
        (0..3).for_each(|_| yield_now());
    }
    assert_eq!(log.text(), "a[0, 1] c[2]");
    // Who was chosen and is killed before it runs leaves it to the next.
    let late = Rc::clone(&group);
    let dies = spawn(move || late.wait_any(1).len());
    let late = Rc::clone(&group);
    let lives = spawn(move || values(late.wait_any(1)));
    yield_now();
    ends[3].unpark();
    let killer = spawn(move || dies.kill().then_some(dies));
    yield_now();
    drop(killer.join().unwrap());
    assert_eq!(lives.join().unwrap(), [3]);
    drop(waiters);
}

#[test]
fn a_dropped_group_detaches_its_threads_and_drops_their_results() {
    let _guard = guard();
    let log = Log::default();
    let live = hub::live_threads();
    let group = Group::new();
    let (ended, runs) = (log.on_drop("ended"), log.on_drop("runs"));
    group.spawn(move || ended);
    let id = group.spawn(move || (park(), runs).1);
    yield_now();
    assert_eq!(log.text(), "");
    drop(group);
    assert_eq!(log.text(), "ended");
    assert_eq!(hub::live_threads(), live + 1);
    assert_eq!(hub::shutdown(), 0);
    assert_eq!(log.text(), "ended runs");
    let _ = id;
}

#[test]
fn while_unwinding_nothing_waits_and_nothing_hangs() {
    let _guard = guard();
    let group = Rc::new(Group::new());
    group.spawn(|| 1);
    yield_now();
    group.spawn(|| (sleep(LONG), 2).1);
    yield_now();
    let pool = Rc::new(Pool::new(1));
    drop(pool.spawn(|| sleep(LONG)));
    yield_now();
    let finished = Rc::new(Cell::new(false));
    let (g, p, done) = (Rc::clone(&group), Rc::clone(&pool), Rc::clone(&finished));
    let unwinds = catch_unwind(AssertUnwindSafe(|| {
        let _in_destructor = OnDrop::new(move || {
            assert!(!g.join_timeout(LONG) && !p.join_timeout(LONG));
            assert_eq!(values(g.wait_any(2)), [1], "those that have ended");
            assert_eq!(g.wait_any(1).len(), 0);
            let all = g.join_all();
            assert!(message(all.into_iter().next().unwrap()).contains("unwinding"));
            let mut own = vec![spawn(|| 5)];
            assert_eq!(wait_any(&mut own, 1).len(), 0);
            assert!(message(join_all(own).pop().unwrap()).contains("unwinding"));
            assert!(p.try_spawn(|| ()).is_err() && p.spawn_timeout(LONG, || ()).is_err());
            done.set(true);
        });
        resume_unwind(Box::new(()))
    }));
    assert!(unwinds.is_err() && finished.get());
    assert_eq!(hub::shutdown(), 0);
    assert!(pool.is_empty() && pool.free() == 1);
    // With room, jobs can be spawned but not waited for.
    let (p, seen) = (Rc::clone(&pool), Rc::new(Cell::new(0)));
    let results = Rc::clone(&seen);
    let unwinds = catch_unwind(AssertUnwindSafe(|| {
        let _in_destructor = OnDrop::new(move || {
            for result in p.imap([1, 2], |n| n).chain(p.imap_unordered([1, 2], |n| n)).take(9) {
                assert!(message(result).contains("unwinding"));
                results.set(results.get() + 1);
            }
        });
        resume_unwind(Box::new(()))
    }));
    assert!(unwinds.unwrap_err().is::<()>() && seen.get() == 2, "one error each, then nothing");
    pool.join();
}

/// The call panics, and a panic in a destructor that runs during a panic ends the process: no hang.
#[test]
fn a_full_pool_ends_a_process_whose_destructor_would_wait_for_it() {
    let _guard = guard();
    let output = common::child("a_full_pool_ends_a_process_whose_destructor_would_wait_for_it", || {
        let pool = Pool::new(1);
        drop(pool.spawn(|| sleep(LONG)));
        let _in_destructor = OnDrop::new(move || drop(pool.spawn(|| ())));
        panic!("the cause");
    });
    assert!(!output.status.success());
    assert!(stderr(&output).contains("cannot wait for a permit"), "{}", stderr(&output));
}

/// Kept in a thread-local, whose destructor runs before the hub's end, or after it: then nobody is left to be unwound, and who
/// was suspended keeps its slot.
struct AtTheEnd(Group<()>, Pool, std::sync::mpsc::Sender<(bool, bool, usize)>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.kill_all();
        self.1.kill_all();
        let killed = self.0.join_all().into_iter().all(|end| end.is_err());
        self.2.send((killed && self.0.wait_any(1).is_empty(), self.1.join_timeout(LONG), self.1.free())).unwrap();
    }
}

#[test]
fn a_group_and_a_pool_may_outlive_their_hub() {
    let _guard = guard();
    thread_local!(static KEPT: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) });
    for hub_first in [true, false] {
        let (send, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if hub_first {
                hub::live_threads(); // makes it
                yield_now();
            }
            KEPT.set(None);
            let (group, pool) = (Group::new(), Pool::new(2));
            group.spawn(park);
            drop(pool.spawn(park));
            yield_now();
            KEPT.set(Some(AtTheEnd(group, pool, send)));
        })
        .join()
        .unwrap();
        let expected = if hub_first { (true, true, 2) } else { (true, false, 1) };
        assert_eq!(said.recv(), Ok(expected), "hub first: {hub_first}");
    }
}

// ---- pools ----------------------------------------------------------------------------------------------------------

/// Counts how many run, and the most at a time.
#[derive(Clone, Default)]
struct Gauge(Rc<(Cell<usize>, Cell<usize>)>);

impl Gauge {
    fn enter(&self) -> OnDrop<Box<dyn FnOnce()>> {
        let (now, most) = &*self.0;
        now.set(now.get() + 1);
        most.set(most.get().max(now.get()));
        let gauge = self.clone();
        OnDrop::new(Box::new(move || gauge.0.0.set(gauge.0.0.get() - 1)))
    }

    fn most(&self) -> usize {
        assert_eq!(self.0.0.get(), 0, "all have left");
        self.0.1.get()
    }
}

#[test]
fn a_pool_runs_as_many_as_it_has_slots_in_order() {
    let _guard = guard();
    let (pool, gauge, log) = (Pool::new(3), Gauge::default(), Log::default());
    assert_eq!((pool.capacity(), pool.free(), pool.len()), (3, 3, 0));
    for n in 0..8 {
        let (gauge, log) = (gauge.clone(), log.clone());
        drop(pool.spawn(move || {
            let _inside = gauge.enter();
            log.say(n);
            settle();
        }));
    }
    assert!(!pool.is_empty());
    pool.join();
    assert_eq!((pool.free(), pool.len(), gauge.most()), (3, 0, 3));
    assert_eq!(log.text(), "0 1 2 3 4 5 6 7");
}

#[test]
fn the_first_waiter_for_a_slot_gets_it_first() {
    let _guard = guard();
    let (pool, log) = (Rc::new(Pool::new(1)), Log::default());
    let first = pool.spawn(park);
    let spawners: Vec<_> = (0..4)
        .map(|n| {
            let (pool, log) = (Rc::clone(&pool), log.clone());
            spawn(move || drop(pool.spawn(move || log.say(n))))
        })
        .collect();
    yield_now();
    assert!(pool.try_spawn(|| ()).is_err());
    spawners[1].kill();
    first.thread().unpark();
    spawners.into_iter().for_each(|spawner| drop(spawner.join()));
    pool.join();
    assert_eq!((log.text().as_str(), pool.free()), ("0 2 3", 1));
}

#[test]
fn a_full_pool_gives_the_closure_back() {
    let _guard = guard();
    let pool = Pool::new(1);
    let busy = pool.spawn(park);
    let began = Instant::now();
    let kept = Rc::new(5);
    let theirs = Rc::clone(&kept);
    let full = pool.try_spawn(move || *theirs).unwrap_err();
    assert_eq!(full.to_string(), "the pool is full");
    let full = pool.spawn_timeout(SHORT, full.0).unwrap_err();
    assert!(began.elapsed() >= SHORT);
    busy.thread().unpark();
    let handle = pool.spawn_timeout(LONG, full.0).unwrap();
    assert_eq!(handle.join().unwrap(), 5);
    assert_eq!(timeout(SHORT, || pool.join()), Ok(()));
}

#[test]
#[should_panic(expected = "a pool needs room for at least one green thread")]
fn a_pool_without_room_is_refused() {
    Pool::new(0);
}

#[test]
fn a_slot_comes_back_whatever_becomes_of_the_thread() {
    let _guard = guard();
    let pool = Pool::new(4);
    let panics = pool.spawn(|| panic!("on purpose"));
    let (killed, never, returns) = (pool.spawn(park), pool.spawn(|| unreachable!()), pool.spawn(|| ()));
    never.kill();
    yield_now();
    killed.kill();
    assert!(
        join_all([panics, killed, never, returns]).into_iter().map(|end| end.is_ok()).eq([false, false, false, true])
    );
    assert_eq!((pool.free(), pool.len()), (4, 0));
    // No stack: the spawn panics.
    let too_large = catch_unwind(AssertUnwindSafe(|| drop(pool.spawn(|| [0_u8; 1 << 20]))));
    assert!(too_large.is_err());
    assert_eq!((pool.free(), pool.len(), timeout(LONG, || pool.join())), (4, 0, Ok(())));
    let handles: Vec<_> = (0..4).map(|_| pool.spawn(park)).collect();
    assert_eq!((pool.kill_all(), pool.free()), (4, 0));
    pool.join();
    assert!(join_all(handles).into_iter().all(|end| end.unwrap_err().is_killed()));
    assert_eq!((pool.free(), pool.kill_all()), (4, 0));
}

#[test]
fn map_is_ordered_and_asks_for_items_when_there_is_room() {
    let _guard = guard();
    let (pool, gauge, log) = (Pool::new(2), Gauge::default(), Log::default());
    let (inside, asked) = (gauge.clone(), log.clone());
    let items = (0..6_u64).inspect(move |n| asked.say(format_args!("?{n}")));
    let ends = log.clone();
    let squares = pool.map(items, move |n| {
        let _inside = inside.enter();
        (0..6 - n).for_each(|_| yield_now());
        ends.say(n);
        n * n
    });
    assert_eq!((squares, gauge.most()), (vec![0, 1, 4, 9, 16, 25], 2));
    assert_eq!(log.text(), "?0 ?1 1 0 ?2 ?3 3 2 ?4 ?5 5 4");
    assert!(pool.map(Vec::<u32>::new(), |n| n).is_empty());
}

#[test]
fn a_panic_in_a_map_comes_once_after_all_others_have_run() {
    let _guard = guard();
    let (pool, ran) = (Pool::new(2), Rc::new(Cell::new(0)));
    let count = Rc::clone(&ran);
    let message = panic_of(|| {
        pool.map(0..10, move |n| {
            yield_now();
            count.set(count.get() + 1);
            assert!(n % 4 != 2, "item {n} fails");
        });
    });
    assert_eq!((message.as_str(), ran.get(), pool.free()), ("item 2 fails", 10, 2));
    let message = panic_of(|| drop(pool.map(0..3, |_| park())));
    assert!(message.starts_with("deadlock"), "{message}");
    pool.kill_all();
    pool.join();
    let killed = Rc::new(Pool::new(2));
    let killer = Rc::clone(&killed);
    drop(spawn(move || (yield_now(), killer.kill_all())));
    assert!(panic_of(|| drop(killed.map(0..2, |_| park()))).contains("was killed"));
}

#[test]
fn imap_yields_each_result_in_its_place_and_imap_unordered_as_they_end() {
    let _guard = guard();
    let pool = Pool::new(3);
    let job = |n: u32| {
        (0..10 - n).for_each(|_| yield_now());
        assert!(n != 3, "item 3 fails");
        n
    };
    let show = |result: Result<u32, JoinError>| result.map_or_else(|error| error.to_string(), |n| n.to_string());
    let ordered: Vec<String> = pool.imap(1..6, job).map(show).collect();
    assert_eq!(ordered, ["1", "2", "the green thread panicked: item 3 fails", "4", "5"]);
    let mut unordered: Vec<String> = pool.imap_unordered(1..6, job).map(show).collect();
    assert_ne!(unordered, ordered);
    unordered.sort();
    assert_eq!(unordered, ["1", "2", "4", "5", "the green thread panicked: item 3 fails"]);
    assert_eq!(pool.free(), 3);
}

#[test]
fn imaps_do_not_run_ahead_of_their_consumer() {
    let _guard = guard();
    let pool = Pool::new(3);
    for unordered in [false, true] {
        let (asked, taken) = (Rc::new(Cell::new(0)), Cell::new(0));
        let count = Rc::clone(&asked);
        let items = (0..20).inspect(move |_| count.set(count.get() + 1));
        let mut results: Box<dyn Iterator<Item = Result<u32, JoinError>>> =
            if unordered { Box::new(pool.imap_unordered(items, |n| n)) } else { Box::new(pool.imap(items, |n| n)) };
        assert_eq!(asked.get(), 0, "lazy");
        for result in results.by_ref() {
            result.unwrap();
            taken.set(taken.get() + 1);
            (0..10).for_each(|_| yield_now());
            assert!(asked.get() <= taken.get() + 3, "{} asked, {} taken", asked.get(), taken.get());
        }
        assert_eq!((taken.get(), asked.get(), results.next().is_none()), (20, 20, true));
    }
}

#[test]
fn an_interrupted_imap_loses_no_result() {
    let _guard = guard();
    let pool = Pool::new(2);
    for unordered in [false, true] {
        let job = |n: u32| (sleep(Duration::from_millis(20)), n).1;
        let mut results: Box<dyn Iterator<Item = Result<u32, JoinError>>> =
            if unordered { Box::new(pool.imap_unordered(0..4, job)) } else { Box::new(pool.imap(0..4, job)) };
        let mut seen = Vec::new();
        loop {
            match timeout(Duration::from_millis(1), || results.next()) {
                Ok(Some(result)) => seen.push(result.unwrap()),
                Ok(None) => break,
                Err(_) => {}
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3]);
    }
}

#[test]
fn a_dropped_imap_starts_nothing_new() {
    let _guard = guard();
    let (pool, ran) = (Pool::new(2), Rc::new(Cell::new(0)));
    for unordered in [false, true] {
        ran.set(0);
        let count = Rc::clone(&ran);
        let job = move |_| (yield_now(), count.set(count.get() + 1)).1;
        if unordered {
            pool.imap_unordered(0..10, job).next().unwrap().unwrap();
        } else {
            pool.imap(0..10, job).next().unwrap().unwrap();
        }
        pool.join();
        assert_eq!(ran.get(), 2);
    }
}

#[test]
fn a_job_may_use_its_own_pool_even_if_it_is_full() {
    let _guard = guard();
    let pool = Rc::new(Pool::new(1));
    let inner = Rc::clone(&pool);
    let nested = pool.apply(move || {
        let ordered: Vec<u32> = inner.imap(0..3, |n| n + 1).map(Result::unwrap).collect();
        let unordered: Vec<u32> = inner.imap_unordered(0..3, |n| n + 2).map(Result::unwrap).collect();
        let mapped = inner.map(0..3, |n| n + 3);
        assert_eq!(panic_of(|| inner.map(0..3, |n| assert!(n != 1, "inside")).clear()), "inside");
        (inner.apply(|| 10), mapped, ordered, unordered)
    });
    assert_eq!(nested, (10, vec![3, 4, 5], vec![1, 2, 3], vec![2, 3, 4]));
    let inner = Rc::clone(&pool);
    assert!(panic_of(|| pool.apply(move || inner.join())).contains("cannot wait for the end of all its threads"));
    assert_eq!(panic_of(|| pool.apply(|| panic!("a job"))), "a job");
    assert_eq!(pool.free(), 1);
}

#[test]
fn a_spawn_that_no_thread_can_make_room_for_is_a_deadlock_with_a_report() {
    let _guard = guard();
    let pool = Pool::new(1);
    drop(pool.spawn(park));
    let report = panic_of(|| drop(pool.spawn(|| ())));
    assert!(report.starts_with("deadlock") && report.contains("permit"), "{report}");
}

/// A thousand spawners and a thousand jobs, killed and timed out at random: no slot is lost, none is used twice.
#[test]
fn a_kill_storm_loses_no_slot() {
    let _guard = guard();
    let mut random = Random::new();
    let live = hub::live_threads();
    let (pool, gauge) = (Rc::new(Pool::new(7)), Gauge::default());
    let (ran, jobs) = (Rc::new(Cell::new(0_u32)), Rc::new(RefCell::new(Vec::new())));
    let spawners: Vec<_> = (0..1000)
        .map(|_| {
            let (pool, gauge, ran, jobs) = (Rc::clone(&pool), gauge.clone(), Rc::clone(&ran), Rc::clone(&jobs));
            let mut random = random.fork();
            spawn(move || {
                let (rounds, way) = (random.below(6), random.below(4));
                let job = move || {
                    let _inside = gauge.enter();
                    (0..rounds).for_each(|_| yield_now());
                    ran.set(ran.get() + 1);
                    if rounds == 5 {
                        resume_unwind(Box::new("some panic")); // without printing it some hundred times
                    }
                };
                let limit = Duration::from_micros(random.below(3000));
                let handle = match way {
                    0 => pool.spawn_timeout(limit, job).ok(),
                    1 => timeout(limit, || pool.spawn(job)).ok(),
                    _ => Some(pool.spawn(job)),
                };
                jobs.borrow_mut().extend(handle);
            })
        })
        .collect();
    let mut killed = 0;
    while !spawners.iter().all(JoinHandle::is_finished) {
        for _ in 0..random.below(20) {
            spawners[random.below(1000) as usize].kill();
            let victim = jobs.borrow().get(random.below(1000) as usize).map(JoinHandle::kill);
            killed += u32::from(victim == Some(true));
        }
        assert!(pool.len() <= 7 && pool.free() <= 7);
        yield_now();
    }
    pool.join();
    assert_eq!((pool.free(), pool.len()), (7, 0));
    assert!(gauge.most() == 7 && ran.get() > 0, "{} ran, {killed} killed", ran.get());
    drop((spawners, jobs.take()));
    assert_eq!(hub::live_threads(), live);
    assert_eq!(pool.map(0..100, |n| n).len(), 100, "as good as new");
}

/// The same for a group: whoever waits and whoever is waited for may be killed, and each result is seen once.
#[test]
fn a_kill_storm_loses_no_result() {
    let _guard = guard();
    let mut random = Random::new();
    let group: Rc<Group<u32>> = Rc::new(Group::new());
    for n in 0..1000 {
        let rounds = random.below(50);
        group.spawn(move || ((0..rounds).for_each(|_| yield_now()), n).1);
    }
    let seen = Rc::new(RefCell::new(Vec::new()));
    let collectors: Vec<_> = (0..100)
        .map(|_| {
            let (group, seen) = (Rc::clone(&group), Rc::clone(&seen));
            let count = 1 + random.below(5) as usize;
            spawn(move || {
                loop {
                    let some = group.wait_any(count);
                    if some.is_empty() {
                        return;
                    }
                    seen.borrow_mut().extend(some.into_iter().map(|handle| handle.join().unwrap()));
                }
            })
        })
        .collect();
    for _ in 0..60 {
        collectors[random.below(100) as usize].kill();
        yield_now();
    }
    let rest = group.join_all();
    collectors.into_iter().for_each(|collector| drop(collector.join()));
    let mut seen = seen.take();
    seen.extend(rest.into_iter().map(Result::unwrap));
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..1000));
}
