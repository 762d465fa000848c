//! `hub::sync`: std's promises, and those of the module's page, between green threads of several hubs and OS threads
//! without one.
#![allow(unsafe_code)] // fork

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::common::{self, OnDrop, settle};
use greenling::hub::sync::{
    Condvar, LazyLock, Mutex, MutexGuard, Once, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore,
    SemaphorePermit, TryLockError,
};
use greenling::hub::{self, HubHandle, RemoteSender, channel};
use greenling::sim::advance;
use greenling::thread::{Builder, JoinHandle, park, spawn, yield_now};
use greenling::{TimeoutError, no_switch, shield, sleep, timeout};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, gettid};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(5);

/// The message of the panic of `f`.
fn panic_of(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_owned(),
    }
}

/// A thread with a name.
fn named<T: 'static>(name: &str, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    Builder::new().name(name.to_owned()).spawn(f).expect("spawn")
}

/// A value that every thread may use, to the end of the process.
fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// An OS thread with a hub that runs what it is sent until `stop` is dropped.
struct Other {
    handle: HubHandle,
    stop: RemoteSender<()>,
    os: std::thread::JoinHandle<()>,
}

impl Other {
    fn start() -> Other {
        let (stop, stopped) = channel::<()>(None);
        let (send, receive) = mpsc::channel();
        let os = std::thread::spawn(move || {
            send.send(hub::handle()).unwrap();
            drop(send);
            assert!(stopped.recv().is_err());
        });
        Other { handle: receive.recv().unwrap(), stop, os }
    }

    /// Runs `f` there and returns its result.
    fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        self.handle.spawn(f).join().expect("it returns")
    }

    /// Starts a green thread there that waits in `f`, and returns when all its hub can do is done.
    fn wait_in<T: 'static>(&self, f: impl FnOnce() -> T + Send + 'static) {
        self.run(move || {
            drop(spawn(f));
            settle();
        });
    }

    fn end(self) {
        drop(self.stop);
        self.os.join().unwrap();
    }
}

/// Starts an OS thread without a hub that waits in `f`. Returns when the kernel says that it sleeps.
fn os_thread_in<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let (send, receive) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        send.send(gettid()).unwrap();
        f()
    });
    let path = format!("/proc/self/task/{}/stat", receive.recv().unwrap());
    while !thread.is_finished() {
        let stat = std::fs::read_to_string(&path).unwrap_or_default();
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S')) {
            break;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    thread
}

// ---- what the compiler sees -----------------------------------------------------------------------------------------

#[test]
fn they_are_send_and_sync_as_stds_and_guards_stay() {
    fn shared<T: Send + Sync>() {}
    fn sync<T: Sync>() {}
    shared::<Mutex<Cell<u8>>>();
    shared::<RwLock<u8>>();
    shared::<OnceLock<u8>>();
    shared::<LazyLock<u8, Box<dyn FnOnce() -> u8 + Send>>>();
    shared::<(Condvar, Once, Semaphore)>();
    shared::<SemaphorePermit<'static>>();
    sync::<MutexGuard<'static, u8>>();
    sync::<RwLockReadGuard<'static, u8>>();
    sync::<RwLockWriteGuard<'static, u8>>();
    // A read guard is covariant, as std's.
    fn _shorter<'a>(guard: RwLockReadGuard<'a, &'static str>) -> RwLockReadGuard<'a, &'a str> {
        guard
    }
}

// One of each, where only what is `const` and `Sync` can stand.
static MUTEX: Mutex<u32> = Mutex::new(1);
static RWLOCK: RwLock<u32> = RwLock::new(2);
static CONDVAR: Condvar = Condvar::new();
static ONCE: Once = Once::new();
static ONCE_LOCK: OnceLock<u32> = OnceLock::new();
static LAZY_LOCK: LazyLock<u32> = LazyLock::new(|| 5);
static SEMAPHORE: Semaphore = Semaphore::bounded(6);

#[test]
fn they_stand_in_statics_and_work_on_os_threads_without_making_a_hub() {
    let out = common::child("shared::they_stand_in_statics_and_work_on_os_threads_without_making_a_hub", || {
        let polls = || {
            let entries = std::fs::read_dir("/proc/self/fd").unwrap();
            let names = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
            names.filter(|name| name.to_string_lossy().contains("eventpoll")).count()
        };
        let held = MUTEX.lock().unwrap();
        let other = os_thread_in(|| {
            *MUTEX.lock().unwrap() += 1;
            CONDVAR.notify_all();
            *RWLOCK.write().unwrap() += 1;
            ONCE.call_once(|| ONCE_LOCK.set(4).unwrap());
            let _permit = SEMAPHORE.acquire();
            *LAZY_LOCK
        });
        let held = CONDVAR.wait_while(held, |value| *value == 1).unwrap();
        assert_eq!((*held, other.join().unwrap()), (2, 5));
        assert_eq!((*RWLOCK.read().unwrap(), *ONCE_LOCK.wait()), (3, 4));
        assert_eq!(SEMAPHORE.available_permits(), 6);
        assert_eq!(polls(), 0, "no thread got a hub");
    });
    assert!(out.status.success(), "{}", common::stderr(&out));
}

/// Lets others run while it is shown.
struct SlowToShow;

impl fmt::Debug for SlowToShow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        settle();
        f.write_str("shown")
    }
}

#[test]
fn they_have_stds_traits_and_show_themselves_as_stds() {
    let lock: Mutex<i32> = Mutex::default();
    let stds = std::sync::Mutex::new(0);
    assert_eq!(format!("{lock:?}"), format!("{stds:?}"));
    // Std's own words for a locked one have changed over its releases.
    let held = lock.lock().unwrap();
    assert_eq!(format!("{held} {held:?} {lock:?}"), "0 0 Mutex { data: <locked>, poisoned: false, .. }");
    drop(held);
    let unsized_value: &Mutex<[i32]> = &Mutex::from([1, 2]);
    assert_eq!(unsized_value.lock().unwrap().len(), 2);

    let (lock, stds) = (RwLock::from(1), std::sync::RwLock::new(1));
    assert_eq!(format!("{lock:?}"), format!("{stds:?}"));
    let held = lock.write().unwrap();
    assert_eq!(format!("{held} {held:?} {lock:?}"), "1 1 RwLock { data: <locked>, poisoned: false, .. }");
    drop(held);
    assert_eq!(format!("{:?}", Condvar::default()), format!("{:?}", std::sync::Condvar::new()));

    let (ours, stds) = (OnceLock::new(), std::sync::OnceLock::new());
    assert_eq!(format!("{ours:?}"), format!("{stds:?}"));
    let _ = (ours.set(3), stds.set(3));
    assert_eq!(format!("{ours:?}"), format!("{stds:?}"));
    assert_eq!(ours.clone(), OnceLock::from(3));
    let (ours, stds) = (LazyLock::new(|| 7), std::sync::LazyLock::new(|| 7));
    assert_eq!(format!("{ours:?}"), format!("{stds:?}"));
    assert_eq!((*ours, *stds), (7, 7));
    assert_eq!(format!("{ours:?}"), format!("{stds:?}"));
    let mut lazy = LazyLock::new(|| 1);
    assert!(LazyLock::get(&lazy).is_none() && LazyLock::get_mut(&mut lazy).is_none());
    *lazy += 1;
    assert_eq!(LazyLock::get(&lazy), Some(&2));
    assert_eq!(LazyLock::force_mut(&mut lazy), &mut 2);
}

#[test]
fn a_lock_that_is_shown_is_held_until_its_value_was_written() {
    let _guard = common::guard();
    let locks = leaked((Mutex::new(SlowToShow), RwLock::new(SlowToShow)));
    let shows = spawn(|| format!("{:?} {:?}", locks.0, locks.1));
    let locker = spawn(|| {
        drop(locks.0.lock().unwrap());
        drop(locks.1.write().unwrap());
    });
    let text = shows.join().unwrap();
    assert_eq!(text, "Mutex { data: shown, poisoned: false, .. } RwLock { data: shown, poisoned: false, .. }");
    locker.join().unwrap();
}

// ---- several hubs ---------------------------------------------------------------------------------------------------

#[test]
fn waiters_of_all_kinds_are_served_in_the_order_in_which_they_came() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(Vec::new()));
    let (two, three) = (Other::start(), Other::start());
    let held = lock.lock().unwrap();
    let say = |name| move || lock.lock().unwrap().push(name);
    two.wait_in(say("two"));
    let mine = spawn(say("mine"));
    settle();
    three.wait_in(say("three"));
    let plain = os_thread_in(say("plain"));
    two.wait_in(say("two again"));
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    drop(held);
    let last = lock.lock().unwrap();
    assert_eq!(*last, ["two", "mine", "three", "plain", "two again"], "nothing overtook, and main came last");
    drop(last);
    mine.join().unwrap();
    plain.join().unwrap();
    two.end();
    three.end();
}

#[test]
fn nothing_overtakes_a_waiter_that_was_chosen() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(()));
    let held = lock.lock().unwrap();
    let waiter = spawn(|| drop(lock.lock().unwrap()));
    settle();
    drop(held);
    // The waiter has not run, and is the holder.
    assert!(matches!(no_switch(|| lock.try_lock().map(drop)), Err(TryLockError::WouldBlock)));
    drop(lock.lock().unwrap());
    assert!(waiter.is_finished(), "it came first");
}

#[test]
fn while_one_waits_for_another_hub_the_others_of_its_hub_run() {
    let _guard = common::guard();
    let (lock, other) = (leaked(Mutex::new(0)), Other::start());
    let turns = Rc::new(Cell::new(0));
    let seen = Rc::clone(&turns);
    let ticker = spawn(move || {
        for _ in 0..5 {
            sleep(Duration::from_millis(1));
            seen.set(seen.get() + 1);
        }
    });
    other.wait_in(|| {
        let mut held = lock.lock().unwrap();
        sleep(Duration::from_millis(50));
        *held = 1;
    });
    assert_eq!(*lock.lock().unwrap(), 1, "main waited for the other hub's thread");
    ticker.join().unwrap();
    assert_eq!(turns.get(), 5);
    other.end();
}

#[test]
fn waiters_that_are_killed_after_they_were_chosen_pass_the_lock_on() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(0));
    let held = lock.lock().unwrap();
    let threads = [(), (), ()].map(|()| spawn(|| *lock.lock().unwrap() += 1));
    settle();
    let plain = os_thread_in(|| *lock.lock().unwrap() += 1);
    drop(held);
    threads.iter().for_each(|thread| assert!(thread.kill()));
    assert!(threads.into_iter().all(|thread| thread.join().unwrap_err().is_killed()));
    plain.join().unwrap();
    assert_eq!(*lock.lock().unwrap(), 1);
    assert!(!lock.is_poisoned());
}

#[test]
fn a_lock_timeout_ends_in_time_and_a_release_before_it_is_noticed_wins() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(()));
    let held = lock.lock().unwrap();
    let began = Instant::now();
    assert!(matches!(lock.lock_timeout(SHORT), Err(TryLockError::WouldBlock)));
    assert!(began.elapsed() >= SHORT);
    let began = Instant::now();
    let late = std::thread::spawn(|| matches!(lock.lock_timeout(SHORT), Err(TryLockError::WouldBlock)));
    assert!(late.join().unwrap(), "on an OS thread without a hub too");
    assert!(began.elapsed() >= SHORT);
    drop(held);
    common::in_virtual_time(|| {
        let held = lock.lock().unwrap();
        let waiter = spawn(|| lock.lock_timeout(SHORT).is_ok());
        yield_now();
        advance(2 * SHORT);
        drop(held);
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn waits_that_time_out_leave_nothing_behind() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(()));
    let holder = spawn(|| {
        let _held = lock.lock().unwrap();
        park();
    });
    settle();
    for _ in 0..100 {
        assert!(lock.lock_timeout(Duration::ZERO).is_err());
        assert_eq!(timeout(Duration::ZERO, || drop(lock.lock())), Err(TimeoutError::Elapsed));
    }
    let plain = os_thread_in(|| drop(lock.lock().unwrap()));
    holder.kill();
    assert!(holder.join().is_err());
    plain.join().unwrap();
    assert!(lock.try_lock().is_ok());
}

#[test]
fn a_shielded_wait_ends_with_the_lock() {
    let _guard = common::guard();
    let (lock, other) = (leaked(Mutex::new(0)), Other::start());
    let (go, gone) = channel(None);
    other.wait_in(move || {
        let _held = lock.lock().unwrap();
        gone.recv().unwrap();
    });
    let waiter = spawn(|| {
        shield(|| *lock.lock().unwrap() = 1);
        settle();
    });
    settle();
    waiter.kill();
    settle();
    assert!(!waiter.is_finished());
    go.send(()).unwrap();
    assert!(waiter.join().unwrap_err().is_killed());
    assert_eq!(*lock.lock().unwrap(), 1);
    other.end();
}

// ---- poison ---------------------------------------------------------------------------------------------------------

#[test]
fn a_panic_poisons_and_a_kill_or_timeout_does_not() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(0));
    for dies in ["panic", "kill", "timeout", "panic of an OS thread"] {
        let hold = move || {
            let mut held = lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *held += 1;
            match dies {
                "kill" => park(),
                "timeout" => drop(timeout(SHORT, || {
                    let _held = held;
                    park();
                })),
                _ => std::panic::resume_unwind(Box::new("on purpose")),
            }
        };
        if dies == "panic of an OS thread" {
            assert!(std::thread::spawn(hold).join().is_err());
        } else {
            let thread = spawn(hold);
            settle();
            if dies == "kill" {
                thread.kill();
            }
            let _ = thread.join();
        }
        assert_eq!(lock.is_poisoned(), dies.starts_with("panic"), "{dies}");
        assert_eq!(lock.lock().is_err(), lock.is_poisoned());
        assert_eq!(matches!(lock.try_lock(), Err(TryLockError::Poisoned(_))), lock.is_poisoned());
        lock.clear_poison();
    }
    assert_eq!(*lock.lock().unwrap(), 4);

    let lock = leaked(RwLock::new(()));
    let read = || {
        let _held = lock.read().unwrap();
        std::panic::resume_unwind(Box::new(()));
    };
    assert!(catch_unwind(read).is_err());
    assert!(!lock.is_poisoned(), "a reader's does not");
    let write = || {
        let _held = lock.write().unwrap();
        std::panic::resume_unwind(Box::new(()));
    };
    assert!(std::thread::spawn(write).join().is_err());
    assert!(lock.is_poisoned() && lock.read().is_err() && lock.write().is_err());
}

// ---- what would never end -------------------------------------------------------------------------------------------

#[test]
fn locking_twice_panics_and_names_the_thread() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(()));
    let twice = || {
        let _held = lock.lock().unwrap();
        panic_of(|| drop(lock.lock()))
    };
    assert!(std::thread::spawn(twice).join().unwrap().contains("main locks a Mutex that it holds already"));
    assert!(twice().contains("main locks a Mutex that it holds already"));
    assert!(named("greedy", twice).join().unwrap().contains("\"greedy\" locks a Mutex that it holds already"));
    let rwlock = leaked(RwLock::new(()));
    let _held = rwlock.write().unwrap();
    assert!(panic_of(|| drop(rwlock.read())).contains("that it writes already"));
    assert!(panic_of(|| drop(rwlock.write())).contains("that it writes already"));
    let once = leaked(Once::new());
    assert!(panic_of(|| once.call_once(|| once.call_once(|| ()))).contains("waits inside the closure of a Once"));
}

#[test]
fn a_contended_lock_while_unwinding_panics_and_names_both() {
    let _guard = common::guard();
    let (lock, other) = (leaked(Mutex::new(())), Other::start());
    for foreign in [false, true] {
        let (go, gone) = channel::<()>(None);
        let hold = move || {
            let _held = lock.lock().unwrap();
            let _ = gone.recv();
        };
        if foreign {
            other.wait_in(hold);
        } else {
            drop(named("holder", hold));
            yield_now();
        }
        let said = Rc::new(Cell::new(None));
        let say = Rc::clone(&said);
        let victim = named("victim", move || {
            let _cleanup = OnDrop::new(move || {
                assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
                assert!(matches!(lock.lock_timeout(LONG), Err(TryLockError::WouldBlock)), "as if the time was up");
                say.set(Some(panic_of(|| drop(lock.lock()))));
            });
            park();
        });
        settle();
        victim.kill();
        assert!(victim.join().unwrap_err().is_killed());
        let said = said.take().expect("it was refused");
        assert!(said.contains("\"victim\"") && said.contains("unwinding"), "{said}");
        assert!(said.contains(if foreign { " of hub " } else { "\"holder\"" }), "{said}");
        drop(go);
        drop(lock.lock().unwrap());
    }
    other.end();
}

#[test]
fn an_os_thread_without_a_hub_waits_while_it_unwinds_as_with_stds() {
    let _guard = common::guard();
    let (mutex, changed) = leaked((Mutex::new(0), Condvar::new()));
    let held = mutex.lock().unwrap();
    let unwinds = os_thread_in(|| {
        let _cleanup = OnDrop::new(|| {
            let held = mutex.lock().unwrap();
            *changed.wait_while(held, |value| *value == 0).unwrap() += 1;
        });
        std::panic::resume_unwind(Box::new(()));
    });
    drop(held);
    *mutex.lock().unwrap() = 1;
    changed.notify_one();
    assert!(unwinds.join().is_err());
    assert_eq!(*mutex.lock().unwrap(), 2);
}

#[test]
fn inside_no_switch_only_a_wait_panics() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(1));
    assert_eq!(no_switch(|| *lock.lock().unwrap()), 1);
    let holder = spawn(|| {
        let _held = lock.lock().unwrap();
        park();
    });
    settle();
    assert!(panic_of(|| no_switch(|| drop(lock.lock()))).contains("no_switch"));
    holder.kill();
    drop(lock.lock().unwrap());
}

#[test]
fn a_deadlock_within_a_hub_is_reported_with_holders_and_cycle() {
    let _guard = common::guard();
    let (one, two) = leaked((Mutex::new(()), Mutex::new(())));
    let philosopher = |name: &str, first: &'static Mutex<()>, second: &'static Mutex<()>| {
        named(name, move || {
            let _first = first.lock().unwrap();
            yield_now();
            let _second = second.lock().unwrap();
        })
    };
    let kant = philosopher("kant", one, two);
    let hume = philosopher("hume", two, one);
    settle();
    let behind = named("behind", move || drop(one.lock().unwrap()));
    let text = panic_of(|| drop(behind.join()));
    let says = |name: &str, holder: &str| {
        let (name, holder) = (format!("\"{name}\" waits for a shared Mutex that #"), format!("\"{holder}\" holds"));
        text.lines().any(|line| line.contains(&name) && line.contains(&holder))
    };
    assert!(says("kant", "hume") && says("hume", "kant") && says("behind", "kant"), "{text}");
    let cycle = text.lines().find(|line| line.contains("cycle:")).unwrap_or_else(|| panic!("no cycle: {text}"));
    assert!(cycle.contains("\"kant\"") && cycle.contains("\"hume\""), "{cycle}");
    assert!(kant.kill());
    hume.join().unwrap();
}

#[test]
fn what_a_forgotten_guard_holds_is_a_deadlock_that_main_is_told_of() {
    let _guard = common::guard();
    let (mutex, rwlock, once) = leaked((Mutex::new(()), RwLock::new(()), Once::new()));
    spawn(|| std::mem::forget((mutex.lock().unwrap(), rwlock.write().unwrap()))).join().unwrap();
    assert!(panic_of(|| drop(mutex.lock())).contains("main waits for a shared Mutex that #2, which has ended holds"));
    assert!(panic_of(|| drop(rwlock.read())).contains("main waits to read a shared RwLock that #2, which has ended"));
    drop(named("initialiser", || once.call_once(park)));
    settle();
    let text = panic_of(|| once.call_once(|| ()));
    assert!(text.contains("main waits for a shared Once that #") && text.contains("\"initialiser\" runs"), "{text}");
}

#[test]
fn a_wait_for_another_hub_is_no_deadlock_and_the_report_names_the_holder() {
    let _guard = common::guard();
    let (lock, other) = (leaked(Mutex::new(())), Other::start());
    let (go, gone) = channel::<()>(None);
    other.wait_in(move || {
        let _held = lock.lock().unwrap();
        let _ = gone.recv();
    });
    let waiter = named("waiter", || drop(lock.lock().unwrap()));
    settle();
    let report = hub::report();
    let line = report.lines().find(|line| line.contains("\"waiter\" waits for a shared Mutex that #"));
    assert!(line.is_some_and(|line| line.contains(" of hub ")), "{report}");
    // The sender must not count as something that may wake this hub, so it goes to an OS thread without one.
    let opens = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(go);
    });
    waiter.join().unwrap();
    opens.join().unwrap();
    // Held in this hub, and passed on to the other and back: each report is of the moment.
    let mine = named("mine", || {
        let _held = lock.lock().unwrap();
        park();
    });
    let waiter = named("waiter", || drop(lock.lock().unwrap()));
    settle();
    let report = hub::report();
    assert!(
        report.contains("\"waiter\" waits for a shared Mutex that #") && report.contains("\"mine\" holds"),
        "{report}"
    );
    mine.thread().unpark();
    waiter.join().unwrap();
    other.end();
}

/// A false alarm would be a panic in main. The lock goes to and fro between two hubs, whose only wakers are each other.
#[test]
fn a_lock_that_changes_hands_between_hubs_is_never_taken_for_a_deadlock() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(0));
    let mains = [(), ()].map(|()| {
        std::thread::spawn(move || {
            let threads = [(), ()].map(|()| {
                spawn(move || {
                    for _ in 0..2000 {
                        *lock.lock().unwrap() += 1;
                    }
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        })
    });
    mains.into_iter().for_each(|main| main.join().unwrap());
    assert_eq!(*lock.lock().unwrap(), 8000);
}

// ---- the end --------------------------------------------------------------------------------------------------------

#[test]
fn what_waits_when_its_os_thread_ends_takes_nothing_with_it() {
    let _guard = common::guard();
    let (mutex, changed, semaphore) = leaked((Mutex::new(0), Condvar::new(), Semaphore::new(0)));
    let held = mutex.lock().unwrap();
    let other = Other::start();
    // One that a kill unwinds, and for each kind one that swallows every kill: its stack is leaked, in its wait.
    other.wait_in(|| drop(mutex.lock()));
    other.wait_in(|| while catch_unwind(|| drop(mutex.lock())).is_err() {});
    other.wait_in(|| while catch_unwind(|| drop(semaphore.acquire())).is_err() {});
    other.end();
    drop(held);
    drop(mutex.try_lock().expect("nothing else waits"));
    semaphore.release().unwrap();
    assert!(semaphore.try_acquire().is_some());
    // Notifications, too, go on to the next.
    let other = Other::start();
    other.wait_in(|| {
        while catch_unwind(|| drop(changed.wait_while(mutex.lock().unwrap(), |value| *value == 0))).is_err() {}
    });
    let next = os_thread_in(|| drop(changed.wait_while(mutex.lock().unwrap(), |value| *value == 0)));
    other.end();
    *mutex.lock().unwrap() = 1;
    changed.notify_one();
    next.join().unwrap();
}

/// The letter that says "it is yours" lies in the inbox of a hub that ends without reading it.
#[test]
fn what_a_waiter_was_handed_as_its_os_thread_ended_goes_to_the_next() {
    let _guard = common::guard();
    for round in 0..50 {
        let lock = leaked(Mutex::new(0));
        let held = lock.lock().unwrap();
        let (ready, begin) = mpsc::channel();
        let os = std::thread::spawn(move || {
            // It swallows the kills of the teardown, and so cannot be unwound.
            drop(spawn(|| while catch_unwind(|| drop(lock.lock())).is_err() {}));
            yield_now();
            ready.send(()).unwrap();
        });
        begin.recv().unwrap();
        for _ in 0..round * 20 {
            std::hint::spin_loop();
        }
        drop(held);
        os.join().unwrap();
        drop(lock.lock().unwrap());
    }
}

/// Runs when it is dropped.
type Last = OnDrop<Box<dyn FnOnce()>>;

thread_local! {
    /// Runs when its OS thread ends, before or after the hub.
    static AT_END: RefCell<Option<Last>> = const { RefCell::new(None) };
}

#[test]
fn destructors_of_thread_locals_lock_and_wait() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(0));
    for hub_first in [false, true] {
        let held = lock.lock().unwrap();
        let ends = os_thread_in(move || {
            let at_end = || AT_END.set(Some(OnDrop::new(Box::new(|| *lock.lock().unwrap() += 1))));
            if hub_first {
                spawn(|| ()).join().unwrap();
                at_end();
            } else {
                at_end();
                spawn(|| ()).join().unwrap();
            }
        });
        drop(held);
        ends.join().unwrap();
    }
    assert_eq!(*lock.lock().unwrap(), 2);
}

#[test]
fn a_destructor_of_a_thread_local_is_told_that_a_leaked_thread_of_its_own_holds_the_lock() {
    let _guard = common::guard();
    let lock = leaked(Mutex::new(()));
    let (send, receive) = mpsc::channel();
    let os = std::thread::spawn(move || {
        AT_END.set(Some(OnDrop::new(Box::new(move || send.send(panic_of(|| drop(lock.lock()))).unwrap()))));
        drop(spawn(|| {
            let _held = lock.lock().unwrap();
            while catch_unwind(park).is_err() {}
        }));
        settle();
    });
    os.join().unwrap();
    let said = receive.recv().unwrap();
    assert!(said.contains("never lets go"), "{said}");
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)), "it stays locked");
}

#[test]
fn threads_that_wait_for_a_holder_that_is_gone_are_told() {
    let _guard = common::guard();
    let (mutex, rwlock, once) = leaked((Mutex::new(()), RwLock::new(()), Once::new()));
    let wait = |number| match number {
        0 => drop(mutex.lock()),
        1 => drop(rwlock.read()),
        2 => drop(rwlock.write()),
        _ => once.call_once(|| ()),
    };
    let other = Other::start();
    // It swallows every kill, so it is leaked with its OS thread, and holds all three for ever.
    other.wait_in(|| {
        let _held = (mutex.lock().unwrap(), rwlock.write().unwrap());
        once.call_once(|| while catch_unwind(park).is_err() {});
    });
    // Those that wait already: a green thread, an OS thread without a hub, and one with a time limit.
    let all = [0, 1, 2, 3];
    let green = all.map(|number| spawn(move || panic_of(|| wait(number))));
    settle();
    let plain = all.map(|number| os_thread_in(move || panic_of(|| wait(number))));
    let limited = spawn(|| matches!(mutex.lock_timeout(LONG), Err(TryLockError::WouldBlock)));
    settle();
    other.end();
    assert!(limited.join().unwrap(), "as if the time was up");
    let said = green.map(|thread| thread.join().unwrap()).into_iter().chain(plain.map(|thread| thread.join().unwrap()));
    // And those that come later.
    for said in said.chain(all.map(|number| panic_of(|| wait(number)))) {
        assert!(said.contains(" of hub ") && said.contains("never lets go"), "{said}");
    }
    assert!(mutex.try_lock().is_err() && rwlock.try_read().is_err() && !once.is_completed());
}

/// Forks; the child runs `body` and its result is its exit code, 99 if it panics.
fn forked(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the tests that call this run in a process of their own (`common::child`), whose other threads only wait.
    let child = match unsafe { nix::unistd::fork() }.expect("a child") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => std::process::exit(catch_unwind(AssertUnwindSafe(body)).unwrap_or(99)),
    };
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_child_of_a_fork_is_refused_and_the_parent_goes_on() {
    let out = common::child("shared::the_child_of_a_fork_is_refused_and_the_parent_goes_on", || {
        let (held_here, free) = leaked((Mutex::new(0), Mutex::new(0)));
        let holder = spawn(|| {
            let _held = held_here.lock().unwrap();
            park();
        });
        settle();
        let waiter = spawn(|| *held_here.lock().unwrap() += 1);
        settle();
        let code = forked(|| {
            *free.lock().unwrap() += 1;
            assert!(matches!(held_here.try_lock(), Err(TryLockError::WouldBlock)));
            assert!(matches!(held_here.lock_timeout(LONG), Err(TryLockError::WouldBlock)));
            let said = panic_of(|| drop(held_here.lock()));
            assert!(said.contains("forked"), "{said}");
            42
        });
        assert_eq!(code, 42);
        // The holder itself forks, with others in the queue, and the child lets go of its copy.
        let code = spawn(|| {
            let held = free.lock().unwrap();
            let waiter = spawn(|| *free.lock().unwrap() += 1);
            yield_now();
            let code = forked(move || {
                drop(held);
                43
            });
            assert!(!no_switch(|| waiter.is_finished()));
            code
        });
        assert_eq!(code.join().unwrap(), 43);
        holder.kill();
        waiter.join().unwrap();
        assert_eq!((*held_here.lock().unwrap(), *free.lock().unwrap()), (1, 1));
    });
    assert!(out.status.success(), "{}", common::stderr(&out));
}

// ---- RwLock ---------------------------------------------------------------------------------------------------------

#[test]
fn readers_in_a_row_go_in_together_and_stand_behind_a_writer() {
    let _guard = common::guard();
    let (lock, inside) = leaked((RwLock::new(0), AtomicUsize::new(0)));
    let other = Other::start();
    let held = lock.read().unwrap();
    assert!(lock.try_read().is_ok() && lock.try_write().is_err());
    other.wait_in(|| *lock.write().unwrap() += 1);
    assert!(lock.try_read().is_err(), "a writer waits");
    let read = || {
        let value = lock.read().unwrap();
        inside.fetch_add(1, Ordering::SeqCst);
        while inside.load(Ordering::SeqCst) < 3 {
            sleep(Duration::from_micros(100));
        }
        *value
    };
    let (mine, plain) = (spawn(read), os_thread_in(read));
    settle();
    other.wait_in(read);
    assert_eq!(inside.load(Ordering::SeqCst), 0);
    drop(held);
    assert_eq!((mine.join().unwrap(), plain.join().unwrap()), (1, 1), "after the writer, and all three at once");
    drop(lock.write().unwrap());
    other.end();
}

#[test]
fn a_writer_that_gives_up_lets_the_readers_behind_it_in() {
    let _guard = common::guard();
    let lock = leaked(RwLock::new(()));
    let held = lock.read().unwrap();
    let writer = spawn(|| drop(lock.write()));
    settle();
    let readers = [spawn(|| drop(lock.read().unwrap())), spawn(|| drop(lock.read().unwrap()))];
    settle();
    assert!(!readers[0].is_finished());
    writer.kill();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    drop(held);
    assert!(lock.try_write().is_ok());
}

#[test]
fn a_writer_that_becomes_a_reader_lets_no_writer_in_between() {
    let _guard = common::guard();
    let lock = leaked(RwLock::new(0));
    let held = lock.write().unwrap();
    let reader = spawn(|| *lock.read().unwrap());
    let writer = spawn(|| *lock.write().unwrap() += 1);
    settle();
    let held = RwLockWriteGuard::downgrade(held);
    assert_eq!(reader.join().unwrap(), 0);
    settle();
    assert!(!writer.is_finished());
    assert_eq!(*held, 0);
    drop(held);
    writer.join().unwrap();
    assert_eq!(*lock.read().unwrap(), 1);
}

// ---- Condvar --------------------------------------------------------------------------------------------------------

#[test]
fn notifications_reach_waiters_of_all_kinds_in_order() {
    let _guard = common::guard();
    let (lock, changed) = leaked((Mutex::new(Vec::new()), Condvar::new()));
    changed.notify_one();
    changed.notify_all();
    let other = Other::start();
    let wait = |name| {
        move || {
            let held = lock.lock().unwrap();
            changed.wait(held).unwrap().push(name);
        }
    };
    let mine = spawn(wait("mine"));
    settle();
    other.wait_in(wait("other"));
    let plain = os_thread_in(wait("plain"));
    let last = spawn(wait("last"));
    settle();
    let said = |count: usize| {
        while lock.lock().unwrap().len() < count {
            sleep(Duration::from_micros(100));
        }
        lock.lock().unwrap().clone()
    };
    for count in 1..=3 {
        changed.notify_one();
        assert_eq!(said(count), ["mine", "other", "plain"][..count]);
    }
    assert!(!last.is_finished());
    changed.notify_all();
    last.join().unwrap();
    mine.join().unwrap();
    plain.join().unwrap();
    other.end();
}

#[test]
fn a_notification_of_one_that_dies_goes_to_the_next() {
    let _guard = common::guard();
    let (lock, changed) = leaked((Mutex::new(0), Condvar::new()));
    let wait = || {
        let held = lock.lock().unwrap();
        *changed.wait(held).unwrap() += 1;
    };
    // Killed after it was chosen, and killed while it waits for the lock again.
    for waits_for_lock in [false, true] {
        let (first, next) = (spawn(wait), os_thread_in(|| ()));
        next.join().unwrap();
        settle();
        let next = os_thread_in(wait);
        let held = waits_for_lock.then(|| lock.lock().unwrap());
        changed.notify_one();
        if waits_for_lock {
            settle();
        }
        first.kill();
        settle();
        drop(held);
        assert!(first.join().unwrap_err().is_killed());
        next.join().unwrap();
    }
    assert_eq!(*lock.lock().unwrap(), 2);
}

/// The notifier takes the lock in the moment in which the waiter lets it go, round after round.
#[test]
fn no_notification_falls_between_the_unlock_and_the_wait() {
    let _guard = common::guard();
    const ROUNDS: u32 = 20_000;
    let (lock, changed) = leaked((Mutex::new(0), Condvar::new()));
    let notifier = std::thread::spawn(|| {
        for round in 0..ROUNDS {
            loop {
                let Ok(mut held) = lock.try_lock() else { continue };
                if *held == 2 * round + 1 {
                    *held += 1;
                    drop(held);
                    changed.notify_one();
                    break;
                }
                drop(held);
                std::thread::yield_now();
            }
        }
    });
    for round in 0..ROUNDS {
        let mut held = lock.lock().unwrap();
        *held += 1;
        drop(changed.wait_while(held, |value| *value == 2 * round + 1).unwrap());
    }
    notifier.join().unwrap();
}

/// The initialiser returns in the moment in which another thread begins to wait for it, round after round.
#[test]
fn no_end_of_an_initialiser_is_missed() {
    let _guard = common::guard();
    const ROUNDS: usize = 1000;
    let (onces, step) = leaked(((0..ROUNDS).map(|_| Once::new()).collect::<Vec<_>>(), AtomicUsize::new(0)));
    let until = |number| {
        while step.load(Ordering::SeqCst) < number {
            std::thread::yield_now();
        }
    };
    let initialiser = std::thread::spawn(move || {
        for (round, once) in onces.iter().enumerate() {
            once.call_once(|| {
                step.store(2 * round + 1, Ordering::SeqCst);
                until(2 * round + 2);
                (0..round % 64).for_each(|_| std::hint::spin_loop());
            });
        }
    });
    for (round, once) in onces.iter().enumerate() {
        until(2 * round + 1);
        step.store(2 * round + 2, Ordering::SeqCst);
        once.call_once(|| unreachable!("the other one is at it"));
    }
    initialiser.join().unwrap();
}

#[test]
fn a_condvar_wait_has_stds_timeouts_and_unwinds_without_the_lock() {
    let _guard = common::guard();
    let (lock, changed) = leaked((Mutex::new(0), Condvar::new()));
    let limited = || {
        let began = Instant::now();
        let (held, result) = changed.wait_timeout(lock.lock().unwrap(), SHORT).unwrap();
        assert!(result.timed_out() && began.elapsed() >= SHORT);
        let (held, result) = changed.wait_timeout_while(held, SHORT, |_| true).unwrap();
        assert!(result.timed_out());
        let (_held, result) = changed.wait_timeout_while(held, SHORT, |_| false).unwrap();
        assert!(!result.timed_out());
    };
    limited();
    std::thread::spawn(limited).join().unwrap();
    let waiter = spawn(|| drop(changed.wait(lock.lock().unwrap())));
    settle();
    waiter.kill();
    assert!(waiter.join().unwrap_err().is_killed());
    assert!(lock.try_lock().is_ok());
    // While unwinding: panics with the lock still held, or is over at once.
    let dies = spawn(|| {
        let _cleanup = OnDrop::new(|| {
            let held = lock.lock().unwrap();
            let (held, result) = changed.wait_timeout(held, LONG).unwrap();
            assert!(result.timed_out());
            let said = panic_of(|| drop(changed.wait(held)));
            assert!(said.contains("unwinding"), "{said}");
            *lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
        });
        park();
    });
    settle();
    dies.kill();
    assert!(dies.join().unwrap_err().is_killed());
    assert_eq!(*lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), 1);
}

// ---- Once, OnceLock, LazyLock ---------------------------------------------------------------------------------------

#[test]
fn one_thread_of_all_hubs_initialises_and_the_others_wait() {
    let _guard = common::guard();
    let (cell, runs) = leaked((OnceLock::new(), AtomicU32::new(0)));
    let ask = || {
        *cell.get_or_init(|| {
            sleep(SHORT);
            runs.fetch_add(1, Ordering::SeqCst) + 7
        })
    };
    let others = [(), ()].map(|()| Other::start());
    let plain = std::thread::spawn(|| *cell.wait());
    let threads: Vec<_> = (0..10).map(|number| others[number % 2].handle.spawn(ask)).collect();
    assert_eq!(ask(), 7);
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 7));
    assert_eq!(plain.join().unwrap(), 7);
    assert_eq!(cell.set(8), Err(8));
    others.into_iter().for_each(Other::end);
}

#[test]
fn the_next_initialiser_takes_over_from_one_that_is_killed_or_panics() {
    let _guard = common::guard();
    for killed in [true, false] {
        let (cell, other) = (leaked(OnceLock::new()), Other::start());
        let first = spawn(move || {
            cell.get_or_init(|| {
                yield_now();
                sleep(if killed { LONG } else { Duration::ZERO });
                std::panic::resume_unwind(Box::new(()))
            });
        });
        settle();
        let waits = other.handle.spawn(|| *cell.get_or_init(|| 2));
        settle();
        if killed {
            first.kill();
        }
        assert!(first.join().is_err());
        assert_eq!(waits.join().unwrap(), 2);
        other.end();
    }
}

#[test]
fn a_once_is_poisoned_by_a_panic_and_not_by_a_kill() {
    let _guard = common::guard();
    let once = leaked(Once::new());
    let thread = spawn(|| once.call_once(park));
    settle();
    thread.kill();
    assert!(thread.join().is_err());
    assert!(!once.is_completed());
    let panics = || once.call_once(|| std::panic::resume_unwind(Box::new(())));
    assert!(std::thread::spawn(panics).join().is_err());
    for call in [|once: &Once| once.call_once(|| ()), |once: &Once| once.wait()] {
        assert!(panic_of(|| call(once)).contains("Once instance has previously been poisoned"));
    }
    let waits = os_thread_in(|| once.wait_force());
    once.call_once_force(|state| assert!(state.is_poisoned()));
    waits.join().unwrap();
    assert!(once.is_completed());
}

#[test]
fn a_lazy_lock_is_made_once_even_if_its_maker_is_killed() {
    let _guard = common::guard();
    static MADE: AtomicU32 = AtomicU32::new(0);
    static LAZY: LazyLock<u32> = LazyLock::new(|| {
        sleep(SHORT);
        MADE.fetch_add(1, Ordering::SeqCst) + 1
    });
    let maker = spawn(|| {
        let _ = *LAZY;
        settle();
    });
    settle();
    let plain = std::thread::spawn(|| *LAZY);
    maker.kill();
    assert!(maker.join().unwrap_err().is_killed());
    assert_eq!((plain.join().unwrap(), *LAZY), (1, 1));
    static BAD: LazyLock<u32> = LazyLock::new(|| std::panic::resume_unwind(Box::new(())));
    assert!(std::thread::spawn(|| *BAD).join().is_err());
    assert!(panic_of(|| assert_eq!(*BAD, 0)).contains("LazyLock instance has previously been poisoned"));
}

// ---- Semaphore ------------------------------------------------------------------------------------------------------

#[test]
fn permits_are_counted_over_hubs_and_may_be_carried_to_another() {
    let _guard = common::guard();
    let (semaphore, other) = (leaked(Semaphore::bounded(2)), Other::start());
    let permit = semaphore.acquire();
    other.run(move || {
        assert_eq!(semaphore.available_permits(), 1);
        drop(permit);
    });
    assert_eq!(semaphore.available_permits(), 2);
    assert!(semaphore.release().is_err(), "there are two");
    semaphore.acquire().forget();
    let last = semaphore.try_acquire().expect("one is left");
    assert!(semaphore.acquire_timeout(SHORT).is_none());
    let waits = os_thread_in(|| drop(semaphore.acquire()));
    assert!(semaphore.try_acquire().is_none());
    semaphore.release().unwrap();
    waits.join().unwrap();
    assert_eq!(semaphore.available_permits(), 1);
    drop(last);
    assert_eq!(semaphore.available_permits(), 2);
    assert!(panic_of(|| drop(Semaphore::new(Semaphore::MAX_PERMITS + 1))).contains("MAX_PERMITS"));
}

/// A kill that is due when the call begins, and a time limit that has passed.
#[test]
fn a_kill_or_timeout_that_is_due_is_seen_by_a_wait() {
    let _guard = common::guard();
    let (mutex, rwlock, semaphore, once) = leaked((Mutex::new(()), RwLock::new(()), Semaphore::new(0), Once::new()));
    let (go, gone) = channel::<()>(None);
    let other = Other::start();
    other.wait_in(move || {
        let _held = (mutex.lock().unwrap(), rwlock.write().unwrap());
        once.call_once(|| assert!(gone.recv().is_err()));
    });
    let waits: [fn(&Each); 5] = [
        |each| drop(each.0.lock()),
        |each| drop(each.1.read()),
        |each| drop(each.1.write()),
        |each| drop(each.2.acquire()),
        |each| each.3.call_once(|| ()),
    ];
    type Each = (&'static Mutex<()>, &'static RwLock<()>, &'static Semaphore, &'static Once);
    let each: &'static Each = leaked((mutex, rwlock, semaphore, once));
    for wait in waits {
        let reached = Arc::new(AtomicBool::new(false));
        let say = Arc::clone(&reached);
        let thread = spawn(move || {
            shield(|| sleep(SHORT));
            wait(each);
            say.store(true, Ordering::SeqCst);
        });
        settle();
        thread.kill();
        assert!(thread.join().unwrap_err().is_killed());
        assert!(!reached.load(Ordering::SeqCst));
        let began = timeout(SHORT, || {
            common::hog_until(Instant::now() + 2 * SHORT);
            wait(each);
        });
        assert_eq!(began, Err(TimeoutError::Elapsed));
    }
    drop(go);
    drop(mutex.lock().unwrap());
    other.end();
}
