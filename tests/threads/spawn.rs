//! Spawning: order, names, ids, isolation of panics, results.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{self, Log};
use greenling::thread::{Builder, current, park, spawn, yield_now};
use greenling::{no_switch, sim, sleep};

/// Design 5.1.
#[test]
fn three_threads_that_yield_interleave_in_the_order_of_their_spawns() {
    let _guard = common::guard();
    let log = Log::default();
    let threads: Vec<_> = (1..=3)
        .map(|number| {
            let log = log.clone();
            spawn(move || {
                log.say(format_args!("{number}A"));
                yield_now();
                log.say(format_args!("{number}B"));
            })
        })
        .collect();
    assert_eq!(log.text(), "", "spawn runs nothing");
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(log.text(), "1A 2A 3A 1B 2B 3B");
}

/// The first gevent program of the seeds: without a pause each thread counts to its end.
#[test]
fn threads_that_never_block_run_one_after_the_other() {
    let _guard = common::guard();
    let log = Log::default();
    let threads = [1, 2, 3].map(|thread| {
        let log = log.clone();
        spawn(move || (0..5).for_each(|i| log.say(format_args!("{thread}:{i}"))))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.text(), "1:0 1:1 1:2 1:3 1:4 2:0 2:1 2:2 2:3 2:4 3:0 3:1 3:2 3:3 3:4");
}

/// The second one: with a sleep after each number they take turns.
#[test]
fn threads_that_sleep_take_turns() {
    let _guard = common::guard();
    common::in_virtual_time(|| {
        let log = Log::default();
        let threads = [1, 2, 3].map(|thread| {
            let log = log.clone();
            spawn(move || {
                for i in 0..5 {
                    log.say(format_args!("{thread}:{i}"));
                    sleep(Duration::from_millis(10));
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(log.text(), "1:0 2:0 3:0 1:1 2:1 3:1 1:2 2:2 3:2 1:3 2:3 3:3 1:4 2:4 3:4");
    });
}

#[test]
fn a_thread_spawned_by_a_thread_goes_to_the_back_of_the_queue() {
    let _guard = common::guard();
    let log = Log::default();
    let inner = log.clone();
    let a = spawn(move || {
        inner.say("a");
        let log = inner.clone();
        let c = spawn(move || log.say("c"));
        inner.say("a-again");
        c.join().unwrap();
    });
    let inner = log.clone();
    let b = spawn(move || inner.say("b"));
    a.join().unwrap();
    b.join().unwrap();
    assert_eq!(log.text(), "a a-again b c");
}

#[test]
fn the_thread_that_is_woken_first_runs_first() {
    let _guard = common::guard();
    let log = Log::default();
    let threads: Vec<_> = (0..5)
        .map(|number| {
            let log = log.clone();
            spawn(move || {
                park();
                log.say(number);
            })
        })
        .collect();
    yield_now();
    for number in [3, 1, 4, 0, 2] {
        threads[number].thread().unpark();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.text(), "3 1 4 0 2");
}

#[test]
fn joiners_go_on_in_the_order_in_which_their_threads_end() {
    let _guard = common::guard();
    let log = Log::default();
    let joiners: Vec<_> = (0..3)
        .map(|number| {
            let thread = spawn(move || (0..3 - number).for_each(|_| yield_now()));
            let log = log.clone();
            spawn(move || {
                thread.join().unwrap();
                log.say(number);
            })
        })
        .collect();
    joiners.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.text(), "2 1 0");
}

#[test]
fn a_result_waits_for_its_joiner() {
    let _guard = common::guard();
    let thread = spawn(|| String::from("done"));
    while !thread.is_finished() {
        yield_now();
    }
    // Joining one that has ended lets no other run.
    let other = spawn(|| ());
    assert_eq!(no_switch(|| thread.join()).unwrap(), "done");
    assert!(!no_switch(|| other.is_finished()));
    other.join().unwrap();
}

#[test]
fn a_detached_thread_goes_on_and_drops_its_own_result() {
    let _guard = common::guard();
    let log = Log::default();
    let mark = log.on_drop("dropped");
    let inner = log.clone();
    drop(spawn(move || {
        yield_now();
        inner.say("ran");
        mark
    }));
    for _ in 0..5 {
        yield_now();
    }
    assert_eq!(log.text(), "ran dropped");
}

#[test]
fn names_and_ids_are_those_of_the_running_thread() {
    let _guard = common::guard();
    let main = current();
    assert_eq!(main.name(), std::thread::current().name());
    let thread =
        Builder::new().name("worker".to_owned()).spawn(|| (current().id(), current().name().map(str::to_owned)));
    let thread = thread.unwrap();
    let handle = thread.thread().clone();
    assert_eq!(handle.name(), Some("worker"));
    let (id, name) = thread.join().unwrap();
    assert_eq!((id, name.as_deref()), (handle.id(), Some("worker")));
    assert_ne!(id, main.id());
    assert_eq!(spawn(|| current().name().map(str::to_owned)).join().unwrap(), None);
    assert_eq!(current().id(), main.id());
}

#[test]
fn an_id_is_never_used_again() {
    let _guard = common::guard();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..1000 {
        // The same stack each time.
        assert!(ids.insert(spawn(|| current().id()).join().unwrap()));
    }
    let elsewhere = std::thread::spawn(|| current().id()).join().unwrap();
    assert!(ids.insert(elsewhere), "nor by another OS thread");
}

#[test]
fn a_panic_reaches_the_joiner_and_no_other_thread() {
    let _guard = common::guard();
    let good = spawn(|| {
        yield_now();
        7
    });
    let bad = spawn(|| -> u32 { panic!("boom {}", std::hint::black_box(1)) });
    let error = bad.join().unwrap_err();
    assert!(error.is_panic() && !error.is_killed());
    assert_eq!(error.panic_message(), Some("boom 1"));
    assert_eq!(error.to_string(), "the green thread panicked: boom 1");
    assert_eq!(error.into_panic().downcast_ref::<String>().unwrap(), "boom 1");
    assert_eq!(good.join().unwrap(), 7);
    let odd = spawn(|| std::panic::panic_any(5_u8)).join().unwrap_err();
    assert_eq!(odd.panic_message(), None);
    assert_eq!(*odd.try_into_panic().unwrap().downcast::<u8>().unwrap(), 5);
}

/// Design 5.7, in a child because of its output.
#[test]
fn a_panic_is_printed_with_the_threads_name_and_where_it_was_spawned() {
    let output = common::child("spawn::a_panic_is_printed_with_the_threads_name_and_where_it_was_spawned", || {
        let thread = Builder::new().name("speaker".to_owned()).spawn(|| panic!("my words")).unwrap();
        assert!(thread.join().unwrap_err().is_panic());
        eprintln!("still here");
    });
    assert!(output.status.success(), "{output:?}");
    let text = common::stderr(&output);
    assert!(text.contains("\"speaker\""), "{text}");
    assert!(text.contains("tests/threads/spawn.rs"), "{text}");
    assert!(text.contains("my words"), "{text}");
    assert!(text.ends_with("still here\n"), "{text}");
}

#[test]
fn a_hook_that_the_program_set_is_called() {
    let output = common::child("spawn::a_hook_that_the_program_set_is_called", || {
        // Before the hub was made, and after.
        std::panic::set_hook(Box::new(|info| {
            println!("early hook: {}", info.payload().downcast_ref::<&str>().unwrap())
        }));
        assert!(spawn(|| panic!("one")).join().is_err());
        let ours = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            println!("late hook");
            ours(info);
        }));
        assert!(spawn(|| panic!("two")).join().is_err());
    });
    assert!(output.status.success(), "{output:?}");
    let text = common::stdout(&output);
    let hooks: Vec<_> = text
        .lines()
        .filter_map(|line| line.find("early hook").or(line.find("late hook")).map(|at| &line[at..]))
        .collect();
    assert_eq!(hooks, ["early hook: one", "late hook", "early hook: two"]);
}

/// Panics when it is dropped.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{}", self.0);
        }
    }
}

/// Design 5.7: foreign code that the runtime runs.
#[test]
fn destructors_of_closures_results_and_payloads_may_panic() {
    let _guard = common::guard();
    // A result that nobody takes.
    drop(spawn(|| Bomb("result of a detached thread")));
    yield_now();
    // A result whose handle goes after the end: the panic is the dropper's.
    let thread = spawn(|| Bomb("result of a finished thread"));
    while !thread.is_finished() {
        yield_now();
    }
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(thread))).unwrap_err();
    assert_eq!(*payload.downcast::<String>().unwrap(), "result of a finished thread");
    // A payload that nobody takes.
    drop(spawn(|| std::panic::panic_any(Bomb("payload"))));
    yield_now();
    // A closure that is killed before it starts.
    let bomb = Bomb("closure");
    let thread = spawn(move || drop(bomb));
    thread.kill();
    assert!(thread.join().unwrap_err().is_killed());
    // What a closure captured and dropped at its end.
    let bomb = Bomb("capture");
    let thread = spawn(move || {
        let _bomb = bomb;
    });
    assert_eq!(thread.join().unwrap_err().panic_message(), Some("capture"));
    assert_eq!(spawn(|| 1).join().unwrap(), 1, "the hub lives");
}

#[test]
fn destructors_of_closures_and_results_may_spawn_and_block() {
    let _guard = common::guard();
    let log = Log::default();
    let busy = |name: &'static str| {
        let log = log.clone();
        common::OnDrop::new(move || {
            let inner = log.clone();
            spawn(move || inner.say(format_args!("{name}-spawned"))).join().unwrap();
            sleep(Duration::from_millis(1));
            log.say(format_args!("{name}-slept"));
        })
    };
    let result = busy("result");
    drop(spawn(move || result));
    let taken = busy("taken");
    let thread = spawn(move || taken);
    drop(thread.join().unwrap());
    let closure = busy("closure");
    spawn(move || drop(closure)).join().unwrap();
    sleep(Duration::from_millis(20));
    for event in ["result-slept", "taken-spawned", "taken-slept", "closure-spawned", "closure-slept"] {
        assert!(log.text().contains(event), "{event} in {}", log.text());
    }
}

#[test]
fn a_thread_cannot_join_itself() {
    let _guard = common::guard();
    let own: Rc<RefCell<Option<greenling::thread::JoinHandle<()>>>> = Rc::default();
    let inner = Rc::clone(&own);
    *own.borrow_mut() = Some(spawn(move || {
        let me = inner.borrow_mut().take().unwrap();
        let _ = me.join();
    }));
    yield_now();
    yield_now();
    assert!(own.borrow().is_none());
    assert_eq!(greenling::hub::live_threads(), 0, "it panicked instead of waiting for ever");
}

#[test]
fn a_join_with_a_limit_gives_the_handle_back_or_the_result() {
    let _guard = common::guard();
    let short = Duration::from_millis(2);
    let thread = spawn(|| {
        park();
        7
    });
    let unpark = thread.thread().clone();
    let thread = thread.join_timeout(short).expect_err("it is parked");
    let thread = thread.join_timeout(Duration::ZERO).expect_err("it is parked");
    unpark.unpark();
    assert_eq!(thread.join_timeout(Duration::MAX).expect("it ends").unwrap(), 7);
    let ended = spawn(|| 8);
    yield_now();
    assert_eq!(no_switch(|| ended.join_timeout(Duration::ZERO)).expect("without waiting").unwrap(), 8);
    // Both in one turn: the end wins.
    common::in_virtual_time(move || {
        let thread = spawn(move || sleep(short));
        let joiner = spawn(move || thread.join_timeout(short).is_ok());
        yield_now();
        sim::advance(5 * short);
        assert!(joiner.join().unwrap());
    });
    // A joiner that is killed leaves the line; one that unwinds has its handle at once.
    let thread = spawn(park);
    let unpark = thread.thread().clone();
    let joiner = spawn(move || thread.join_timeout(Duration::MAX).is_ok());
    yield_now();
    joiner.kill();
    assert!(joiner.join().unwrap_err().is_killed());
    unpark.unpark();
    let back = Rc::new(Cell::new(None));
    let theirs = Rc::clone(&back);
    let unwinds = spawn(move || {
        let sleeper = spawn(park);
        let _late = common::OnDrop::new(move || theirs.set(Some(sleeper.join_timeout(Duration::MAX))));
        std::panic::resume_unwind(Box::new("down"));
    });
    assert!(unwinds.join().map(|never: ()| never).unwrap_err().is_panic());
    let sleeper = back.take().unwrap().expect_err("it did not wait");
    assert!(sleeper.kill() && sleeper.join().unwrap_err().is_killed());
}

#[test]
fn an_error_of_a_join_fits_where_errors_are_shared() {
    fn shared<T: std::error::Error + Send + Sync + std::panic::UnwindSafe + 'static>(error: T) -> String {
        let error: Box<dyn std::error::Error + Send + Sync> = error.into();
        std::io::Error::other(error).to_string()
    }
    let _guard = common::guard();
    let error = spawn(|| std::panic::resume_unwind(Box::new(String::from("owned")))).join().map(|never: ()| never);
    assert_eq!(error.unwrap_err().panic_message(), Some("owned"));
    let error = spawn(|| std::panic::resume_unwind(Box::new("static"))).join().map(|never: ()| never).unwrap_err();
    assert_eq!(shared(error), "the green thread panicked: static");
    // A payload that is neither, and not `Sync`, comes back as it was.
    let error = spawn(|| std::panic::resume_unwind(Box::new(Cell::new(3)))).join().map(|never: ()| never).unwrap_err();
    assert_eq!((error.is_panic(), error.panic_message()), (true, None));
    assert_eq!(error.into_panic().downcast::<Cell<i32>>().unwrap().get(), 3);
}

#[test]
fn rc_and_refcell_are_shared_without_send() {
    let _guard = common::guard();
    let sum = Rc::new(Cell::new(0));
    let threads: Vec<_> = (1..=100)
        .map(|n| {
            let sum = Rc::clone(&sum);
            spawn(move || {
                yield_now();
                sum.set(sum.get() + n);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(sum.get(), 5050);
    assert_eq!(Rc::strong_count(&sum), 1);
}

#[test]
fn large_closures_and_results_travel_whole() {
    let _guard = common::guard();
    let big = [7_u8; 5_000];
    let thread = spawn(move || {
        yield_now();
        big
    });
    assert!(thread.join().unwrap().iter().all(|byte| *byte == 7));
    let error = spawn_result_of_a_quarter().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let roomy = Builder::new().stack_size(8 << 20).spawn(|| [1_u8; 100_000]).unwrap();
    assert_eq!(roomy.join().unwrap().len(), 100_000);
    // The largest one, and one that is larger, on a stack with room for the copies that moving them makes.
    let builder = || Builder::new().stack_size(64 << 20);
    let joiner = builder().spawn(move || {
        let largest = builder().spawn(|| (yield_now(), [2_u8; 500_000]).1).unwrap();
        assert_eq!(largest.join().unwrap()[499_999], 2);
        let larger = builder().spawn(|| [3_u8; 600_000]);
        assert_eq!(larger.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    });
    joiner.unwrap().join().unwrap();
    assert!(Builder::new().stack_size(usize::MAX).spawn(|| ()).is_err());
}

/// A thread whose result does not fit a default stack.
fn spawn_result_of_a_quarter() -> std::io::Result<greenling::thread::JoinHandle<[u8; 100_000]>> {
    Builder::new().spawn(|| [0; 100_000])
}

#[test]
fn hubs_of_several_os_threads_do_not_meet() {
    let _guard = common::guard();
    let os: Vec<_> = (0..4_u64)
        .map(|number| {
            std::thread::spawn(move || {
                let threads: Vec<_> = (0..100)
                    .map(|n| {
                        spawn(move || {
                            yield_now();
                            number * 1000 + n
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
            })
        })
        .collect();
    for (number, os) in os.into_iter().enumerate() {
        assert_eq!(os.join().unwrap(), number as u64 * 100_000 + 4950);
    }
}
