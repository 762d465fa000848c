//! Checking: histories against a model, and what a run leaves behind.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::mem::forget;
use std::process::Command;
use std::rc::Rc;

use greenling::net::{TcpListener, TcpStream};
use greenling::os::unix::net::UnixDatagram;
use greenling::sim::{self, Config, FailureKind, FaultKind, Faults, History, Lends, Strategy, Tracked};
use greenling::sync::{Mutex, RwLock, Semaphore};
use greenling::{channel, spawn, yield_now};

const ALL: Strategy = Strategy::Exhaustive { choices: usize::MAX };

/// The calls of a queue.
#[derive(Clone, Debug)]
enum Queue {
    Push(u32),
    Pop,
}

/// A queue as one thread alone has it.
fn queue_model(queue: &mut VecDeque<u32>, call: &Queue) -> Option<u32> {
    match call {
        Queue::Push(value) => {
            queue.push_back(*value);
            None
        }
        Queue::Pop => queue.pop_front(),
    }
}

/// Lets two threads push and one pop, and checks the history.
fn check_queue<Q: 'static>(queue: Q, push: fn(&Q, u32), pop: fn(&Q) -> Option<u32>) {
    let (queue, history) = (Rc::new(queue), History::new());
    let mut threads: Vec<_> = [1, 2]
        .into_iter()
        .map(|first| {
            let (queue, history) = (Rc::clone(&queue), history.clone());
            spawn(move || {
                for value in [first, first + 10] {
                    history.call(Queue::Push(value), || {
                        push(&queue, value);
                        None
                    });
                }
            })
        })
        .collect();
    let theirs = history.clone();
    threads.push(spawn(move || {
        for _ in 0..4 {
            theirs.call(Queue::Pop, || pop(&queue));
            yield_now();
        }
    }));
    // After a kill the others have their promises all the same.
    threads.into_iter().for_each(|thread| drop(thread.join()));
    history.assert(VecDeque::new(), queue_model);
}

/// A channel is a queue.
fn channel_as_queue() {
    let ends = channel::unbounded();
    check_queue(ends, |ends, value| ends.0.send(value).unwrap(), |ends| ends.1.try_recv().ok());
}

/// Two channels, one for odd values: each is a queue, both together are none.
fn two_channels_as_queue() {
    let ends = [channel::unbounded(), channel::unbounded()];
    check_queue(
        ends,
        |ends, value| ends[value as usize % 2].0.send(value).unwrap(),
        |ends| ends.iter().find_map(|(_, receive)| receive.try_recv().ok()),
    );
}

#[test]
fn a_channel_is_linearizable_also_when_threads_are_killed() {
    for strategy in [Strategy::Random, Strategy::Pct { depth: 3 }] {
        Config::new().strategy(strategy).schedules(500).check(channel_as_queue).unwrap();
    }
    for seed in 0..3 {
        let swept = Config::new().seed(seed).check_kills(channel_as_queue).unwrap();
        assert!(swept.schedules() > 3);
    }
    // A kill may come in a push of which the value is there, and in one of which it is not.
    let kills = Faults::new().only(&[FaultKind::Kill]).rate(0.1);
    Config::new().faults(kills).schedules(500).check(channel_as_queue).unwrap();
}

#[test]
fn a_queue_that_is_none_is_found_and_its_history_told() {
    let failure = Config::new().check(two_channels_as_queue).unwrap_err();
    println!("found in schedule {}\n{failure}", failure.schedules());
    assert_eq!(failure.kind(), FailureKind::Panic);
    let text = failure.message();
    assert!(
        text.starts_with("not linearizable: in no order would one thread alone have had these results\n"),
        "{text}"
    );
    assert!(text.contains(" Push(1) -> None, from event "), "{text}");
    assert!(text.contains("\n  the numbers are the longest order that goes, at tests/sim/checking.rs:"), "{text}");
    // The chapter has the first lines.
    let chapter = include_str!("../../docs/book/19-time-and-chance.md");
    assert!(chapter.contains(&text.lines().take(6).collect::<Vec<_>>().join("\n")), "{text}");
}

/// A lock that looks and then takes, with a call in between that could wait.
struct BadLock {
    held: Cell<bool>,
    log: Mutex<u32>,
}

/// Counts with `add`, in two threads, and checks that no two got the same number.
fn check_counter<C: 'static>(counter: C, add: fn(&C) -> u32) {
    let (counter, history) = (Rc::new(counter), History::new());
    let threads = [(); 2].map(|()| {
        let (counter, history) = (Rc::clone(&counter), history.clone());
        spawn(move || (0..2).for_each(|_| assert!(history.call("add", || add(&counter)) > 0)))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    history.assert(0, |count, _| {
        *count += 1;
        *count
    });
}

#[test]
fn a_lock_makes_a_counter_linearizable_and_a_bad_one_does_not() {
    let good = || {
        check_counter(Mutex::new(0), |lock| {
            let mut held = lock.lock().unwrap();
            yield_now();
            *held += 1;
            *held
        });
    };
    Config::new().schedules(500).check(good).unwrap();
    let bad = || {
        check_counter((BadLock { held: Cell::new(false), log: Mutex::new(0) }, Cell::new(0)), |(lock, count)| {
            while lock.held.get() {
                yield_now();
            }
            *lock.log.lock().unwrap() += 1;
            lock.held.set(true);
            let seen = count.get();
            yield_now();
            count.set(seen + 1);
            lock.held.set(false);
            seen + 1
        });
    };
    let failure = Config::new().check(bad).unwrap_err();
    assert!(failure.message().starts_with("not linearizable"), "{failure}");
    assert!(failure.schedule().deviations() <= 2, "{failure}");
}

/// The calls of a map: what is there for a key, made if there is nothing.
#[derive(Clone, Debug)]
struct GetOrInsert(&'static str, u32);

/// Asks for one key in each of two threads, with `get`, and checks the history.
fn check_map(get: fn(&RwLock<BTreeMap<&'static str, u32>>, &'static str, u32) -> u32) {
    let (map, history) = (Rc::new(RwLock::new(BTreeMap::new())), History::new());
    let threads = [1, 2].map(|value| {
        let (map, history) = (Rc::clone(&map), history.clone());
        spawn(move || {
            for key in ["a", "b"] {
                history.call(GetOrInsert(key, value), || get(&map, key, value));
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    history.assert(BTreeMap::new(), |map, GetOrInsert(key, value)| *map.entry(*key).or_insert(*value));
}

#[test]
fn a_map_is_checked_in_all_schedules() {
    let explored = Config::new().strategy(ALL).schedules(50_000).check(|| {
        check_map(|map, key, value| *map.write().unwrap().entry(key).or_insert(value));
    });
    assert!(explored.unwrap().is_complete());
    let failure = Config::new().strategy(ALL).check(|| {
        // Looks, gives the lock back, and inserts: two threads both find nothing.
        check_map(|map, key, value| {
            if let Some(found) = map.read().unwrap().get(key) {
                return *found;
            }
            map.write().unwrap().insert(key, value);
            value
        });
    });
    assert!(failure.unwrap_err().message().starts_with("not linearizable"));
}

#[test]
fn a_history_too_large_for_a_search_says_so() {
    let history = History::new();
    // Calls that never end, as those of killed threads.
    for value in 0..24 {
        let call = || -> Option<u32> { std::panic::resume_unwind(Box::new("killed")) };
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history.call(Queue::Push(value), call)));
    }
    history.call(Queue::Pop, || Some(99));
    let error = history.check(VecDeque::new(), queue_model).unwrap_err().to_string();
    assert_eq!(error, "undecided: 25 calls have too many orders to look for one that is right");
}

/// Leaves a value behind, which keeps itself.
fn leaves_a_value() {
    let kept = Rc::new(RefCell::new(None));
    let value = (Tracked::new(String::from("kept")), Rc::clone(&kept));
    kept.replace(Some(Box::new(value) as Box<dyn std::any::Any>));
}

/// Leaves a lock held and a permit out, the holder of which is gone.
fn leaves_a_lock_and_a_permit() {
    let (lock, permits) = (Rc::new(Mutex::new(0)), Rc::new(Semaphore::new(3)));
    sim::free_at_end(&lock);
    sim::free_at_end(&permits);
    spawn(move || {
        forget(lock.lock());
        forget(permits.acquire());
        forget((lock, permits));
    });
}

/// A pool of the program's own.
struct Connections(Cell<usize>);

impl Lends for Connections {
    fn lent(&self) -> Option<String> {
        (self.0.get() > 0).then(|| format!("a pool of which {} connections are out", self.0.get()))
    }
}

#[test]
fn what_a_run_leaves_behind_is_told_with_its_place() {
    let failure = Config::new().check(leaves_a_value).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Leak);
    let text = failure.message();
    assert!(text.starts_with("leak: main has returned, and something is left\n  a value of type "), "{text}");
    assert!(text.contains("String, made at tests/sim/checking.rs:"), "{text}");

    let failure = Config::new().check(leaves_a_lock_and_a_permit).unwrap_err();
    let text = failure.message();
    let lock = "\n  a Mutex that is held, to be free at the end since tests/sim/checking.rs:";
    let permit = "\n  a Semaphore of which 1 permits are out, to be free at the end since tests/sim/checking.rs:";
    assert!(text.contains(lock) && text.contains(permit), "{text}");
    Config::new().allow_leaks(true).check(leaves_a_lock_and_a_permit).unwrap();

    let failure = Config::new().check(|| {
        let (_send, receive) = channel::unbounded();
        _send.send(Tracked::new(1)).unwrap();
        let (receive, map) = (Rc::new(receive), Rc::new(RwLock::new(())));
        sim::free_at_end(&receive);
        sim::free_at_end(&map);
        let pool = Rc::new(Connections(Cell::new(2)));
        sim::free_at_end(&pool);
        // A thread that waits for ever holds a lock for ever; its values go with it.
        drop(spawn(move || {
            let _all = (Tracked::new(2), map.read().unwrap());
            forget((Rc::clone(&receive), Rc::clone(&pool)));
            greenling::thread::park();
        }));
    });
    let failure = failure.unwrap_err();
    let text = failure.message();
    println!("{text}");
    assert!(text.starts_with("leak: main has returned, and threads are left that can never end\n"), "{text}");
    for line in [
        "\n  an RwLock that is held, to be free",
        "\n  a channel with 1 values, to be free",
        "\n  a pool of which 2 connections are out, to be free",
        "\n  a value of type i32, made at",
    ] {
        assert_eq!(text.matches(line).count(), 1, "{line}: {text}");
    }
}

#[test]
fn what_comes_back_is_no_leak_and_a_leak_is_that_of_its_run() {
    let runs = std::sync::Mutex::new(0);
    Config::new()
        .schedules(50)
        .check(|| {
            let permits = Rc::new(Semaphore::new(1));
            sim::free_at_end(&permits);
            let (send, receive) = channel::bounded(1);
            let sender = spawn(move || (0..3).for_each(|value| send.send(Tracked::new(value)).unwrap()));
            let taken = receive.recv().unwrap();
            assert_eq!((*taken, taken.into_inner()), (0, 0));
            // The rest goes with the channel.
            drop(receive);
            let _ = sender.join();
            drop(permits.acquire());
            *runs.lock().unwrap() += 1;
        })
        .unwrap();
    assert_eq!(runs.into_inner().unwrap(), 50);
    // Each run forgets one, and none is counted again.
    let failure = Config::new().shrink(false).check(|| forget(Tracked::new(1))).unwrap_err();
    assert_eq!(failure.message().lines().count(), 2, "{failure}");
    // Outside of a simulation it is a value.
    assert_eq!(*Tracked::new(5), 5);
}

/// Leaves sockets open, of which no thread has a handle any more.
fn leaves_sockets() {
    let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
    let near = TcpStream::connect("127.0.0.1:7000").unwrap();
    let (far, _) = listener.accept().unwrap();
    forget((near, far.try_clone().unwrap()));
    forget(UnixDatagram::bind("log").unwrap());
    // What a thread has that waits for ever goes with it.
    drop(spawn(move || listener.accept().map(drop)));
}

#[test]
fn a_socket_that_is_left_open_is_told_with_the_place_that_made_it() {
    let failure = Config::new().check(leaves_sockets).unwrap_err();
    println!("{failure}");
    assert_eq!(failure.kind(), FailureKind::Leak);
    for line in [
        "\n  an open socket: tcp 127.0.0.1:32768 <-> 127.0.0.1:7000, made at tests/sim/checking.rs:",
        "\n  an open socket: tcp 127.0.0.1:7000 <-> 127.0.0.1:32768, made at tests/sim/checking.rs:",
        "\n  an open socket: unix log, made at tests/sim/checking.rs:",
    ] {
        assert_eq!(failure.message().matches(line).count(), 1, "{line}: {failure}");
    }
    assert_eq!(failure.message().matches("an open socket").count(), 3, "{failure}");
    Config::new().allow_leaks(true).check(leaves_sockets).unwrap();
    // Each run leaves its own, and what goes in time is no leak; nor is what a crash has ended.
    let accepts = || {
        let db = sim::host("db", || {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            forget(listener.accept().unwrap());
        });
        while TcpStream::connect("db:80").is_err() {}
        db.join().unwrap();
    };
    let failure = Config::new().shrink(false).check(accepts).unwrap_err();
    assert_eq!(failure.message().lines().count(), 2, "{failure}");
    Config::new().schedules(20).check(|| (accepts(), sim::network().crash("db")).0).unwrap();
}

/// Not a test by itself: [`each_finding_is_replayed_by_its_line`] starts it, with the number of a finding.
#[test]
#[ignore = "fails; a child of another test"]
fn has_a_finding() {
    let number: usize = std::env::var("GREENLING_TEST_FINDING").unwrap().parse().unwrap();
    let finding = [two_channels_as_queue, leaves_a_value, leaves_a_lock_and_a_permit, leaves_sockets][number];
    sim::explore(Config::new(), finding);
}

#[test]
fn each_finding_is_replayed_by_its_line() {
    let child = |number: usize, seed: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "checking::has_a_finding", "--nocapture"]).env_remove("GREENLING_SEED");
        command.env("RUST_BACKTRACE", "0").env("GREENLING_TEST_FINDING", number.to_string());
        if let Some(seed) = seed {
            command.env("GREENLING_SEED", seed);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{number} with {seed:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (number, begin) in
        ["not linearizable: ", "leak: main has returned, and something", "leak: main", "leak: main"].iter().enumerate()
    {
        let first = child(number, None);
        let line = first.lines().find_map(|line| line.trim().strip_prefix("replay: GREENLING_SEED="));
        let (seed, command) = line.and_then(|line| line.split_once(' ')).unwrap_or_else(|| panic!("{first}"));
        assert_eq!(command, "cargo test checking::has_a_finding -- --exact");
        // The whole report, up to the line that says in which schedule it was found.
        let report = |text: &str| {
            // A replay prints the panic first.
            let from = text.rfind(begin).unwrap_or_else(|| panic!("{number}: {text}"));
            text[from..].lines().take_while(|line| !line.contains("in schedule ")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(report(&first), report(&child(number, Some(seed))));
    }
}
