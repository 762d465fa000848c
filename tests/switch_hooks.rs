//! Hooks on switches: that each switch is told, in order and in the right name, and that no hook can do harm.
#![forbid(unsafe_code)]

mod common;

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenling::hub::{self, Switch, SwitchHook};
use greenling::thread::{Builder, current, own_thread_locals_supported, park};
use greenling::{Greenlet, sleep, spawn, timeout, trace, yield_now};

/// The environment variable that is set in the processes of [`alone`].
const QUANTUM: &str = "GREENLING_QUANTUM";

/// Runs `body` in a process of its own in which time makes no thread give way. `name` is the calling test. Returns what
/// that process printed to standard error; nothing inside it.
fn alone(name: &str, body: impl FnOnce()) -> Option<String> {
    if std::env::var_os(QUANTUM).is_some() {
        let _guard = common::guard();
        body();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(QUANTUM, "off");
    let output = common::output_of(command);
    let errors = common::stderr(&output);
    assert!(output.status.success(), "{}{errors}", common::stdout(&output));
    assert!(common::stdout(&output).contains("1 passed"), "no test {name}");
    Some(errors)
}

/// Sets a hook that notes what it is told, as lines.
fn note() -> (SwitchHook, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let hook = hub::on_switch(move |switch| {
        log.lock().unwrap().push(match switch {
            Switch::Leaves { thread, ended: true } => format!("{thread} ends"),
            Switch::Leaves { thread, .. } => format!("{thread} leaves"),
            Switch::Comes { thread, new: true } => format!("{thread} begins"),
            Switch::Comes { thread, .. } => format!("{thread} comes"),
        });
    });
    (hook.unwrap(), seen)
}

#[test]
fn each_switch_is_told_in_its_order() {
    alone("each_switch_is_told_in_its_order", || {
        let (hook, seen) = note();
        let waits = spawn(park);
        let other = waits.thread().clone();
        let yields = spawn(move || {
            yield_now();
            other.unpark();
        });
        yields.join().unwrap();
        waits.join().unwrap();
        drop(hook);
        yield_now();
        let expected = [
            "1 leaves", "2 begins", "2 leaves", "3 begins", "3 leaves", "3 comes", "3 ends", "2 comes", "2 ends",
            "1 comes",
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
    });
}

#[test]
fn explicit_switches_are_told_too() {
    alone("explicit_switches_are_told_too", || {
        let (hook, seen) = note();
        let greenlet = Greenlet::<u32>::new(|first| {
            let me = Greenlet::<u32>::current();
            let second = me.parent().unwrap().switch(first + 1);
            yield_now();
            second + 1
        });
        assert_eq!(greenlet.switch(1), 2);
        assert_eq!(greenlet.switch(3), 4);
        drop(hook);
        let seen = seen.lock().unwrap();
        let kinds: Vec<_> = seen.iter().map(|line| line.split_whitespace().last().unwrap()).collect();
        let turn = ["leaves", "begins", "leaves", "comes", "leaves", "comes", "leaves", "comes", "ends", "comes"];
        assert_eq!(kinds, turn, "{seen:#?}");
    });
}

/// What a hook has been told, checked at each call.
#[derive(Default)]
struct Model {
    running: Option<u64>,
    alive: HashMap<u64, bool>,
    calls: u64,
    begun: u64,
    ended: u64,
}

impl Model {
    fn told(&mut self, switch: Switch) {
        self.calls += 1;
        match switch {
            Switch::Leaves { thread, ended } => {
                assert_eq!(self.running.take(), Some(thread), "it was there");
                self.ended += u64::from(ended);
                self.alive.insert(thread, !ended);
            }
            Switch::Comes { thread, new } => {
                assert_eq!(self.running.replace(thread), None, "two at once");
                self.begun += u64::from(new);
                let before = self.alive.insert(thread, true);
                assert_eq!(before, (!new).then_some(true), "#{thread} is new or was there");
            }
        }
    }
}

#[test]
fn each_thread_begins_and_ends_once_whatever_happens_to_it() {
    alone("each_thread_begins_and_ends_once_whatever_happens_to_it", || {
        const THREADS: u64 = 300;
        let model =
            Arc::new(Mutex::new(Model { running: Some(1), alive: HashMap::from([(1, true)]), ..Model::default() }));
        let told = Arc::clone(&model);
        let hook = hub::on_switch(move |switch| told.lock().unwrap().told(switch)).unwrap();
        let mut threads = Vec::new();
        for number in 0..THREADS {
            let builder = Builder::new();
            let body = move || match number % 6 {
                0 => (0..number % 7).for_each(|_| yield_now()),
                1 => sleep(Duration::from_micros(number)),
                2 => std::panic::resume_unwind(Box::new("on purpose")),
                3 => drop(timeout(Duration::from_micros(50), park)),
                4 => {
                    // A generator that is resumed some times, and then dropped in the middle.
                    let generator = Greenlet::<u64>::new(|mut value| {
                        loop {
                            yield_now();
                            value = Greenlet::<u64>::current().parent().unwrap().switch(value + 1);
                        }
                    });
                    (0..3).for_each(|value| assert_eq!(generator.switch(value), value + 1));
                }
                _ => park(), // and is killed
            };
            let thread = if number % 10 == 9 && own_thread_locals_supported().is_ok() {
                builder.own_thread_locals().spawn(body)
            } else {
                builder.spawn(body)
            };
            threads.push((number, thread.unwrap()));
        }
        yield_now();
        threads.iter().filter(|(number, _)| number % 6 == 5).for_each(|(_, thread)| _ = thread.kill());
        threads.into_iter().for_each(|(_, thread)| drop(thread.join()));
        // And one that `shutdown` unwinds.
        drop(spawn(park));
        yield_now();
        assert_eq!(hub::shutdown(), 0);
        drop(hook);
        let calls = model.lock().unwrap().calls;
        spawn(yield_now).join().unwrap();
        let model = model.lock().unwrap();
        assert_eq!(calls, model.calls, "it is removed");
        assert_eq!(model.running, Some(1));
        assert_eq!(model.begun, THREADS + THREADS / 6 + 1);
        assert_eq!(model.ended, model.begun);
    });
}

thread_local! {
    static MARK: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn a_hook_sees_the_thread_locals_of_the_thread_that_it_is_told_of() {
    alone("a_hook_sees_the_thread_locals_of_the_thread_that_it_is_told_of", || {
        if own_thread_locals_supported().is_err() {
            return;
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let hook = hub::on_switch(move |switch| {
            let (Switch::Leaves { thread, .. } | Switch::Comes { thread, .. }) = switch;
            log.lock().unwrap().push((thread, MARK.get()));
        });
        MARK.set(1);
        let own = Builder::new().own_thread_locals().spawn(|| {
            MARK.set(2);
            // It shares those of its spawner.
            spawn(|| (MARK.set(3), yield_now()).1).join().unwrap();
        });
        own.unwrap().join().unwrap();
        drop(hook);
        assert_eq!(MARK.get(), 1);
        // Fresh ones; at the end of a thread those of the OS thread.
        let expected = [(1, 1), (2, 0), (2, 2), (3, 2), (3, 3), (3, 3), (3, 1), (2, 3), (2, 1), (1, 1)];
        assert_eq!(*seen.lock().unwrap(), expected);
    });
}

#[test]
fn a_hook_runs_in_a_name_of_its_own() {
    alone("a_hook_runs_in_a_name_of_its_own", || {
        let names = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&names);
        let hook = hub::on_switch(move |_| log.lock().unwrap().push(current().name().map(String::from)));
        yield_now();
        drop(hook);
        assert_eq!(*names.lock().unwrap(), [Some("a hook on switches".into()), Some("a hook on switches".into())]);
        assert_eq!((hub::metrics().spawned, hub::live_threads()), (0, 0));
    });
}

#[test]
fn a_hook_that_waits_or_panics_is_removed_and_nothing_is_lost() {
    let errors = alone("a_hook_that_waits_or_panics_is_removed_and_nothing_is_lost", || {
        let calls = Arc::new(AtomicU64::new(0));
        let wait: [fn(); 5] = [
            yield_now,
            park,
            || sleep(Duration::from_secs(100)),
            || _ = Greenlet::<u32>::new(|value| value).switch(1),
            || _ = spawn(|| ()).join(),
        ];
        let mut hooks = Vec::new();
        for wait in wait {
            let dropped = Dropped(Arc::clone(&calls));
            hooks.push(hub::on_switch(move |_| (&dropped, wait()).1).unwrap());
        }
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        hooks.push(hub::on_switch(move |_| _ = counted.fetch_add(1, Ordering::Relaxed)).unwrap());
        let threads: Vec<_> = (0..3_u32).map(|number| spawn(move || (yield_now(), number).1)).collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(results, [0, 1, 2]);
        assert_eq!(calls.load(Ordering::Relaxed), 5, "what the hooks had is dropped");
        assert!(count.load(Ordering::Relaxed) >= 14, "the last one is still there");
        // In an explicit switch as well.
        hooks.push(hub::on_switch(|_| panic!("no good")).unwrap());
        assert_eq!(Greenlet::<u32>::new(|value| value + 1).switch(1), 2);
        drop(hooks);
        while hub::live_threads() > 0 {
            yield_now();
        }
    });
    if let Some(errors) = errors {
        let lines = |text: &str| errors.lines().filter(|line| line.contains(text)).count();
        assert_eq!(lines("a hook on switches must not wait, nor let other green threads run"), 5, "{errors}");
        assert_eq!(lines("no good"), 1, "{errors}");
        assert_eq!(lines("greenling: a hook on switches has panicked; it is removed, and the thread goes on"), 6);
    }
}

/// Counts its drops.
struct Dropped(Arc<AtomicU64>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    static HOOK: Cell<Option<SwitchHook>> = const { Cell::new(None) };
}

#[test]
fn a_hook_may_end_itself_and_set_others() {
    alone("a_hook_may_end_itself_and_set_others", || {
        let (first, second) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counts = (Arc::clone(&first), Arc::clone(&second));
        let hook = hub::on_switch(move |_| {
            counts.0.fetch_add(1, Ordering::Relaxed);
            let count = Arc::clone(&counts.1);
            let other = hub::on_switch(move |_| _ = count.fetch_add(1, Ordering::Relaxed)).unwrap();
            drop(HOOK.replace(Some(other)));
        });
        HOOK.set(Some(hook.unwrap()));
        yield_now();
        drop(HOOK.take());
        yield_now();
        assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (1, 2));
    });
}

#[test]
fn a_trace_and_hooks_do_not_disturb_each_other() {
    alone("a_trace_and_hooks_do_not_disturb_each_other", || {
        let (hook, seen) = note();
        trace::start(trace::Options::new()).unwrap();
        spawn(yield_now).join().unwrap();
        let inside = trace::stop().unwrap();
        spawn(yield_now).join().unwrap();
        drop(hook);
        assert_eq!(seen.lock().unwrap().len(), 12);
        trace::start(trace::Options::new()).unwrap();
        let (hook, _) = note();
        drop(hook);
        spawn(yield_now).join().unwrap();
        let after = trace::stop().unwrap();
        let runs = |trace: &trace::Trace| {
            trace.events().iter().filter(|event| matches!(event.kind, trace::EventKind::Runs { .. })).count()
        };
        assert_eq!((runs(&inside), runs(&after)), (4, 4));
    });
}

#[test]
fn what_a_hook_has_is_dropped_with_the_os_thread() {
    let _guard = common::guard();
    let count = Arc::new(AtomicU64::new(0));
    let dropped = Dropped(Arc::clone(&count));
    std::thread::spawn(move || {
        let hook = hub::on_switch(move |_| _ = &dropped).unwrap();
        std::mem::forget(hook);
        spawn(yield_now).join().unwrap();
    });
    while count.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_panic_of_a_thread_is_its_own_with_a_hook_set() {
    alone("a_panic_of_a_thread_is_its_own_with_a_hook_set", || {
        let (hook, _) = note();
        let thread = spawn(|| {
            yield_now();
            let caught = catch_unwind(AssertUnwindSafe(|| std::panic::resume_unwind(Box::new(1))));
            yield_now();
            caught.is_err()
        });
        assert!(thread.join().unwrap());
        assert!(greenling::no_switch(|| 1) == 1);
        yield_now();
        drop(hook);
    });
}
