//! Backtraces of threads that wait: the frames that are the program's, of every kind of thread and wait, and nothing of
//! a thread changes by a look at it.
#![forbid(unsafe_code)]

mod common;

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::hub::{self, ThreadInfo, backtrace, backtraces, threads};
use greenling::thread::{Builder, JoinHandle, own_thread_locals_supported, park};
use greenling::{Greenlet, sleep, spawn, timeout, yield_now};

/// Calls itself `depth` times, then `wait`.
#[inline(never)]
fn waits_deep(depth: u32, wait: &dyn Fn()) -> u32 {
    if depth == 0 {
        wait();
        return black_box(1);
    }
    black_box(waits_deep(depth - 1, wait) + 1)
}

/// Parks. What is called is not called last, so that the frame stays.
#[inline(never)]
fn waits_for_an_unpark() -> u32 {
    black_box(waits_deep(2, &|| park()))
}

/// Returns what the hub knows of the thread with this name.
fn info(name: &str) -> ThreadInfo {
    threads().iter().find(|info| info.name.as_deref() == Some(name)).expect("a thread with the name").clone()
}

/// Spawns a thread with a name.
fn named<T: 'static>(name: &str, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    Builder::new().name(name.into()).spawn(f).unwrap()
}

/// Returns the text of the thread with this name.
fn text(name: &str) -> String {
    backtrace(info(name).id).expect("it has begun").to_string()
}

/// Counts the frames whose function has this in its name.
fn count(text: &str, part: &str) -> usize {
    text.lines().filter(|line| !line.trim().starts_with("at ") && line.contains(part)).count()
}

#[test]
fn the_frames_of_a_thread_are_those_of_the_program_from_the_wait_to_its_closure() {
    let _guard = common::guard();
    let parked = named("parked", waits_for_an_unpark);
    yield_now();
    let text = text("parked");
    let first = text.lines().next().unwrap();
    assert!(first.contains("closure") && text.lines().nth(1).unwrap().contains("tests/backtraces.rs"), "{text}");
    assert_eq!(count(&text, "waits_deep"), 3, "{text}");
    assert_eq!(count(&text, "waits_for_an_unpark"), 1, "{text}");
    let last = text.lines().rfind(|line| line.trim().starts_with("at ")).unwrap();
    assert!(last.contains("tests/backtraces.rs"), "{text}");
    // All frames: the runtime's too, to the first of the stack.
    let all = format!("{:#}", backtrace(info("parked").id).unwrap());
    assert!(all.contains("src/runtime/park.rs") && all.contains("corosensei"), "{all}");
    parked.thread().unpark();
    assert_eq!(parked.join().unwrap(), 3);
}

#[test]
fn threads_in_each_kind_of_wait_have_a_backtrace() {
    let _guard = common::guard();
    let sleeper = named("sleeper", || waits_deep(0, &|| sleep(Duration::from_secs(3600))));
    let limited = named("limited", || {
        let never = timeout(Duration::from_secs(3600), || waits_deep(0, &|| park()));
        assert!(never.is_ok());
    });
    let joined = named("joined", || waits_deep(0, &|| drop(spawn(park).join())));
    let yields = named("yields", || waits_deep(0, &|| yield_now()));
    let (_writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    let waits = named("reads", move || waits_deep(0, &|| drop(greenling::io::wait_readable(&reader))));
    let unstarted = named("unstarted", || ());
    assert!(backtrace(info("unstarted").id).is_none());
    unstarted.join().unwrap();
    for name in ["sleeper", "limited", "joined", "reads"] {
        assert_eq!(count(&text(name), "waits_deep"), 1, "{name}");
    }
    for handle in [&sleeper, &joined, &waits] {
        handle.kill();
    }
    limited.thread().unpark();
    limited.join().unwrap();
    yields.join().unwrap();
    assert_eq!(hub::shutdown(), 0);
}

#[test]
fn greenlets_main_and_the_thread_that_asks_have_theirs() {
    let _guard = common::guard();
    let inner =
        Greenlet::<i64>::new(|_| i64::from(waits_deep(1, &|| assert_eq!(Greenlet::<i64>::main().switch(7), 0))));
    assert_eq!(inner.switch(0), 7);
    let greenlet = threads().iter().find(|info| info.name.is_none() && info.id != 1).unwrap().id;
    assert_eq!(count(&backtrace(greenlet).unwrap().to_string(), "waits_deep"), 2);
    assert_eq!(inner.switch(0), 2);
    // From a thread that main has resumed; then from one that a deputy has.
    let seen = Rc::new(RefCell::new(Vec::new()));
    for nested in [false, true] {
        let seen = seen.clone();
        let asks = move || {
            let text = |name: &str| text(name);
            let main = backtrace(1).unwrap().to_string();
            assert_eq!(count(&main, "joins_in_main"), 1, "{main}");
            seen.borrow_mut().push((text("asker"), nested.then(|| text("deputy"))));
        };
        let outer = named(if nested { "deputy" } else { "asker" }, move || {
            if nested {
                let asker = named("asker", move || waits_deep(3, &asks));
                waits_deep(4, &|| yield_now());
                asker.join().unwrap();
            } else {
                waits_deep(3, &asks);
            }
        });
        joins_in_main(outer);
    }
    let seen = seen.borrow();
    assert_eq!(seen.len(), 2);
    for (asker, deputy) in &*seen {
        assert_eq!(count(asker, "waits_deep"), 4, "{asker}");
        assert_eq!(count(asker, "joins_in_main"), 0, "the frames of what has resumed it:\n{asker}");
        if let Some(deputy) = deputy {
            assert_eq!(count(deputy, "waits_deep"), 5, "{deputy}");
        }
    }
}

/// Joins; a frame of main's to be found.
#[inline(never)]
fn joins_in_main(handle: JoinHandle<()>) {
    handle.join().unwrap();
    black_box(());
}

#[test]
fn a_thread_with_thread_locals_of_its_own_and_one_at_the_end_of_its_stack_have_theirs() {
    let _guard = common::guard();
    /// Uses the stack until little is left, and parks there.
    #[inline(never)]
    fn uses_stack(left: usize) -> u8 {
        let page = black_box([1_u8; 1024]);
        if left == 0 {
            park();
            return page[0];
        }
        black_box(uses_stack(left - 1)) ^ page[1]
    }
    let own = own_thread_locals_supported().ok().map(|()| {
        let own = Builder::new().name("own".into()).own_thread_locals();
        own.spawn(waits_for_an_unpark).unwrap()
    });
    // The smallest stack has 44 KiB on x86-64, and most of it is used. A look needs nothing of it.
    // Frames of AddressSanitizer are large.
    let depth = if cfg!(feature = "sanitizer") { 2 } else { 10 };
    let deep = Builder::new().name("deep".into()).stack_size(1).spawn(move || uses_stack(depth)).unwrap();
    yield_now();
    if let Some(own) = own {
        assert_eq!(count(&text("own"), "waits_deep"), 3);
        own.thread().unpark();
        own.join().unwrap();
    }
    assert_eq!(count(&text("deep"), "uses_stack"), depth + 1);
    deep.thread().unpark();
    deep.join().unwrap();
}

#[test]
fn a_look_changes_nothing_of_a_thread() {
    let _guard = common::guard();
    let order = Rc::new(RefCell::new(Vec::new()));
    let handles: Vec<_> = (0..10)
        .map(|number| {
            let order = order.clone();
            spawn(move || {
                for _ in 0..3 {
                    yield_now();
                    order.borrow_mut().push(number);
                }
                if number % 2 == 0 {
                    park()
                } else {
                    sleep(Duration::from_millis(20))
                }
                order.borrow_mut().push(number);
            })
        })
        .collect();
    // Killed, but not yet woken: the kill is not raised by a look.
    let killed = named("killed", waits_for_an_unpark);
    yield_now();
    let plain = |info: &ThreadInfo| (info.id, info.state, info.reason.clone(), info.kill_pending);
    killed.kill();
    let before: Vec<_> = threads().iter().map(plain).collect();
    for _ in 0..20 {
        assert!(!backtraces().is_empty());
    }
    assert_eq!(threads().iter().map(plain).collect::<Vec<_>>(), before);
    assert!(info("killed").kill_pending);
    assert!(killed.join().is_err());
    for _ in 0..10 {
        backtraces();
        yield_now();
    }
    handles.iter().for_each(|handle| handle.thread().unpark());
    for handle in handles {
        backtraces();
        handle.join().unwrap();
    }
    assert_eq!(order.borrow().len(), 40);
}

#[test]
fn looks_amid_switches_of_all_kinds_find_each_thread_where_it_is() {
    let _guard = common::guard();
    let random = Rc::new(RefCell::new(common::Random::new()));
    let looks = Rc::new(RefCell::new(0_usize));
    let actors: Vec<_> = (0..30)
        .map(|_| {
            let (random, looks) = (random.clone(), looks.clone());
            spawn(move || {
                for _ in 0..40 {
                    let choice = random.borrow_mut().below(6);
                    match choice {
                        0 => yield_now(),
                        1 => sleep(Duration::from_micros(50)),
                        2 => assert_eq!(spawn(|| waits_deep(2, &yield_now)).join().unwrap(), 3),
                        3 => {
                            let inner = Greenlet::<u32>::new(|_| {
                                assert!(!backtraces().is_empty());
                                waits_deep(3, &yield_now)
                            });
                            assert_eq!(inner.switch(0), 4);
                        }
                        _ => {
                            let groups = backtraces();
                            let begun: usize = groups.iter().map(|group| group.threads.len()).sum();
                            assert!(begun >= 2, "main and the one that asks");
                            // Walks end at the base of each stack, main's at the start of its OS thread.
                            let all = format!("{:#}", groups[groups.len() - 1].backtrace);
                            assert!(count(&all, "stack_init_trampoline") <= 1, "{all}");
                            *looks.borrow_mut() += 1;
                        }
                    }
                }
            })
        })
        .collect();
    actors.into_iter().for_each(|actor| actor.join().unwrap());
    assert!(*looks.borrow() > 100, "{}", looks.borrow());
}

#[test]
fn ten_thousand_threads_are_grouped_by_their_backtraces_in_two_seconds() {
    let _guard = common::guard();
    let parked: Vec<_> = (0..9000).map(|_| spawn(waits_for_an_unpark)).collect();
    let sleeping: Vec<_> = (0..1000).map(|_| spawn(|| sleep(Duration::from_secs(3600)))).collect();
    yield_now();
    common::settle();
    let begun = Instant::now();
    let groups = backtraces();
    let texts: Vec<String> = groups.iter().map(|group| group.backtrace.to_string()).collect();
    let took = begun.elapsed();
    println!("{} groups of 10 001 threads, printed, in {took:?}", groups.len());
    let sizes: Vec<usize> = groups.iter().map(|group| group.threads.len()).collect();
    assert_eq!(sizes, [9000, 1000, 1], "{texts:?}");
    assert!(groups[0].threads.is_sorted());
    assert_eq!(count(&texts[0], "waits_for_an_unpark"), 1, "{}", texts[0]);
    assert_eq!(groups[2].threads, [1]);
    // The bar is for a quiet machine; a loaded one may take some times as long.
    assert!(took < Duration::from_secs(20), "{took:?}");
    parked.iter().for_each(|handle| handle.thread().unpark());
    assert!(sleeping.iter().all(JoinHandle::kill));
    assert!(parked.into_iter().all(|handle| handle.join().unwrap() == 3));
    assert_eq!(hub::shutdown(), 0);
}

#[test]
fn no_such_thread_has_no_backtrace() {
    let _guard = common::guard();
    assert!(backtrace(0).is_none() && backtrace(u64::MAX).is_none());
    let ended = spawn(|| ());
    yield_now();
    let id = threads().iter().find(|info| info.id != 1).map(|info| info.id);
    assert!(id.is_none_or(|id| backtrace(id).is_none() || id > 1));
    ended.join().unwrap();
    // Main's own, without any thread.
    assert!(backtrace(1).unwrap().to_string().contains("no_such_thread_has_no_backtrace"));
}
