//! Work on OS threads: overlap, limits, kill before and after the start, panics, teardown, fork, and a storm.
//!
//! That jobs overlap is seen by barriers, which would wait for ever if they did not, and by counts.
#![allow(unsafe_code)] // fork, waitpid, _exit

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use common::{OnDrop, Random};
use greenling::offload::{self, ThreadPool, blocking};
use greenling::{TimeoutError, hub, no_switch, shield, sleep, spawn, timeout, yield_now};

const HOUR: Duration = Duration::from_secs(3600);

/// A pool of `count` OS threads.
fn pool(count: usize) -> ThreadPool {
    ThreadPool::builder().max_threads(count).build()
}

/// Waits until a condition holds, which another OS thread makes true; the guard ends a wait in vain.
#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        sleep(Duration::from_micros(200));
    }
}

/// A job that holds an OS thread of a pool until it is let go.
struct Holder {
    /// Ends the job when dropped.
    go: mpsc::Sender<()>,
    /// Its caller.
    caller: greenling::thread::JoinHandle<u32>,
}

impl Holder {
    /// Takes one of the pool's OS threads.
    fn of(pool: &ThreadPool) -> Holder {
        let (go, wait) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let pool = pool.clone();
        let caller = spawn(move || {
            pool.run(move || {
                begun.send(()).unwrap();
                let _: Result<(), _> = wait.recv();
                1
            })
        });
        yield_now();
        has_begun.recv().unwrap();
        Holder { go, caller }
    }

    /// Lets it go.
    fn end(self) {
        drop(self.go);
        assert_eq!(self.caller.join().unwrap(), 1);
    }
}

#[test]
fn jobs_of_one_hub_run_at_the_same_time_and_others_meanwhile() {
    let _guard = common::guard();
    let (pool, barrier) = (pool(4), Arc::new(Barrier::new(4)));
    let turns = Rc::new(Cell::new(0));
    let seen = Rc::clone(&turns);
    let other = spawn(move || {
        loop {
            seen.set(seen.get() + 1);
            yield_now();
        }
    });
    let jobs: Vec<_> = (0..4)
        .map(|n| {
            let (pool, barrier) = (pool.clone(), Arc::clone(&barrier));
            spawn(move || {
                pool.run(move || {
                    barrier.wait();
                    n
                })
            })
        })
        .collect();
    let results: Vec<u32> = jobs.into_iter().map(|job| job.join().unwrap()).collect();
    assert_eq!(results, [0, 1, 2, 3]);
    assert!(turns.get() > 0, "the hub went on");
    other.kill();
    assert!(other.join().unwrap_err().is_killed());
}

#[test]
fn two_jobs_do_not_count_on_the_same_idle_thread() {
    let _guard = common::guard();
    let pool = ThreadPool::builder().max_threads(4).idle_time(HOUR).build();
    for round in 0..20 {
        // One OS thread, or those of the rounds before, have nothing to do; a job more than that comes at once.
        pool.run(|| ());
        let threads = pool.stats().threads;
        until("all are idle", || pool.stats().idle == threads);
        let count = (threads + 1).min(4);
        let barrier = Arc::new(Barrier::new(count));
        let jobs: Vec<_> = (0..count)
            .map(|_| {
                let (pool, barrier) = (pool.clone(), Arc::clone(&barrier));
                spawn(move || pool.run(move || barrier.wait().is_leader()))
            })
            .collect();
        let leaders = jobs.into_iter().map(|job| job.join().unwrap());
        assert_eq!(leaders.filter(|leader| *leader).count(), 1, "round {round}");
    }
    assert_eq!(pool.stats().threads, 4);
}

#[test]
fn never_more_jobs_run_than_threads_may_and_the_rest_wait_in_order() {
    let _guard = common::guard();
    let pool = pool(3);
    let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let jobs: Vec<_> = (0..60)
        .map(|_| {
            let (pool, now, peak) = (pool.clone(), Arc::clone(&now), Arc::clone(&peak));
            spawn(move || {
                pool.run(move || {
                    peak.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                    std::thread::sleep(Duration::from_micros(300));
                    now.fetch_sub(1, Ordering::SeqCst);
                })
            })
        })
        .collect();
    yield_now();
    assert_eq!(pool.stats().threads, 3);
    for job in jobs {
        job.join().unwrap();
    }
    assert!((1..=3).contains(&peak.load(Ordering::SeqCst)));
    assert_eq!(pool.stats().completed, 60);
    assert_eq!(pool.stats().queued, 0);
    // One thread: the order of the callers is the order of the jobs.
    let (pool, order) = (ThreadPool::builder().max_threads(1).build(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let holder = Holder::of(&pool);
    let jobs: Vec<_> = (0..10)
        .map(|n| {
            let (pool, order) = (pool.clone(), Arc::clone(&order));
            spawn(move || pool.run(move || order.lock().unwrap().push(n)))
        })
        .collect();
    yield_now();
    assert_eq!(pool.stats().queued, 10);
    holder.end();
    for job in jobs {
        job.join().unwrap();
    }
    assert!(order.lock().unwrap().iter().copied().eq(0..10), "{order:?}");
}

#[test]
fn a_caller_that_is_killed_in_the_queue_takes_its_job_out() {
    let _guard = common::guard();
    let pool = pool(1);
    let holder = Holder::of(&pool);
    let ran = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::new(std::sync::Mutex::new(Vec::new()));
    let callers: Vec<_> = (0..3)
        .map(|n| {
            let (pool, ran, dropped) = (pool.clone(), Arc::clone(&ran), Arc::clone(&dropped));
            spawn(move || {
                let mark = OnDrop::new(move || dropped.lock().unwrap().push((n, std::thread::current().id())));
                pool.run(move || {
                    let _mark = mark;
                    ran.fetch_add(1, Ordering::SeqCst)
                })
            })
        })
        .collect();
    yield_now();
    assert_eq!(pool.stats().queued, 3);
    callers[1].kill();
    yield_now();
    assert_eq!((pool.stats().queued, pool.stats().cancelled), (2, 1), "out of the middle");
    assert_eq!(*dropped.lock().unwrap(), [(1, std::thread::current().id())], "the closure is dropped by the caller");
    holder.end();
    let ends: Vec<bool> = callers.into_iter().map(|caller| caller.join().is_ok()).collect();
    assert_eq!(ends, [true, false, true]);
    assert_eq!(ran.load(Ordering::SeqCst), 2);
}

#[test]
fn a_timeout_takes_the_job_out_too_and_an_outer_one_goes_on() {
    let _guard = common::guard();
    let pool = pool(1);
    let holder = Holder::of(&pool);
    let theirs = pool.clone();
    let result = timeout(HOUR, || {
        assert_eq!(timeout(Duration::from_millis(3), || theirs.run(|| 1)), Err(TimeoutError::Elapsed));
        2
    });
    assert_eq!(result, Ok(2));
    assert_eq!((pool.stats().queued, pool.stats().cancelled), (0, 1));
    holder.end();
}

#[test]
fn the_result_of_a_killed_caller_is_dropped_once_by_its_maker() {
    let _guard = common::guard();
    let pool = pool(1);
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let (dropped, drops) = mpsc::channel();
    let theirs = pool.clone();
    let caller = spawn(move || {
        theirs.run(move || {
            begun.send(std::thread::current().id()).unwrap();
            let _ = wait.recv();
            OnDrop::new(move || dropped.send(std::thread::current().id()).unwrap())
        })
    });
    yield_now();
    let worker = has_begun.recv().unwrap();
    caller.kill();
    assert!(caller.join().map(drop).unwrap_err().is_killed(), "it does not wait for the job");
    assert!(drops.try_recv().is_err(), "the job still runs");
    drop(go);
    assert_eq!(drops.recv().unwrap(), worker);
    assert!(drops.recv().is_err(), "once");
    until("the job is counted", || pool.stats().abandoned == 1);
    assert_eq!(pool.run(|| 5), 5, "the OS thread is free again");
}

#[test]
fn a_result_that_came_before_the_kill_is_dropped_by_the_caller() {
    let _guard = common::guard();
    let pool = pool(1);
    let (go, wait) = mpsc::channel::<()>();
    let (dropped, drops) = mpsc::channel();
    let theirs = pool.clone();
    let caller = spawn(move || {
        theirs.run(move || {
            let _ = wait.recv();
            OnDrop::new(move || dropped.send(std::thread::current().id()).unwrap())
        })
    });
    yield_now();
    drop(go);
    // The hub does not look at its mail meanwhile, so the caller does not run.
    while pool.stats().completed == 0 {
        std::thread::yield_now();
    }
    caller.kill();
    assert!(caller.join().map(drop).unwrap_err().is_killed());
    assert_eq!(drops.try_recv().unwrap(), std::thread::current().id());
    assert!(drops.recv().is_err(), "once");
}

#[test]
fn a_panic_comes_back_with_its_payload_and_spares_the_pool() {
    let _guard = common::guard();
    let pool = pool(1);
    let theirs = pool.clone();
    let error = spawn(move || theirs.run(|| -> () { std::panic::panic_any(42_u32) })).join().unwrap_err();
    assert_eq!(*error.into_panic().downcast::<u32>().unwrap(), 42);
    // In main, too.
    let caught = catch_unwind(AssertUnwindSafe(|| pool.run(|| -> () { panic!("in the job") })));
    assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "in the job");
    assert_eq!(pool.run(|| 1), 1);
    let stats = pool.stats();
    assert_eq!((stats.completed, stats.panicked, stats.threads), (3, 2, 1));
}

#[test]
fn a_panic_without_a_joiner_spares_the_pool_too() {
    let _guard = common::guard();
    /// Panics when it is dropped.
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("a payload whose destructor panics");
        }
    }
    let pool = pool(1);
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let theirs = pool.clone();
    let caller = spawn(move || {
        theirs.run(move || -> () {
            begun.send(()).unwrap();
            let _ = wait.recv();
            std::panic::panic_any(Bad)
        })
    });
    yield_now();
    has_begun.recv().unwrap();
    caller.kill();
    assert!(caller.join().unwrap_err().is_killed());
    drop(go);
    until("the job has ended", || pool.stats().abandoned == 1);
    assert_eq!((pool.run(|| 1), pool.stats().panicked), (1, 1));
}

#[test]
fn try_run_refuses_what_would_have_to_wait_beyond_the_limit() {
    let _guard = common::guard();
    let pool = ThreadPool::builder().max_threads(1).queue_limit(1).build();
    assert_eq!(pool.try_run(|| 1).unwrap(), 1);
    let holder = Holder::of(&pool);
    let theirs = pool.clone();
    let waits = spawn(move || theirs.try_run(|| 2).unwrap());
    yield_now();
    assert_eq!(pool.stats().queued, 1);
    let dropped = Rc::new(Cell::new(false));
    let (send, receive) = mpsc::channel::<()>();
    let error = pool.try_run(move || drop(send)).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(receive.try_recv(), Err(mpsc::TryRecvError::Disconnected), "the closure is dropped");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::WouldBlock);
    // `run` waits its turn all the same.
    let (theirs, mark) = (pool.clone(), Rc::clone(&dropped));
    let patient = spawn(move || mark.set(theirs.run(|| true)));
    yield_now();
    assert_eq!(pool.stats().queued, 2);
    holder.end();
    assert_eq!(waits.join().unwrap(), 2);
    patient.join().unwrap();
    assert!(dropped.get());
    let none = ThreadPool::builder().max_threads(1).queue_limit(0).build();
    assert_eq!(none.try_run(|| 3).unwrap(), 3, "it can begin at once");
    let holder = Holder::of(&none);
    assert!(none.try_run(|| 3).unwrap_err().is_full());
    holder.end();
}

#[test]
fn idle_threads_end_and_new_ones_come() {
    let _guard = common::guard();
    let pool = ThreadPool::builder().max_threads(2).idle_time(Duration::from_millis(20)).build();
    for round in 1..=3 {
        assert_eq!(pool.run(move || round), round);
        until("its OS thread ends", || pool.stats().threads == 0);
        assert_eq!(pool.stats().idle, 0);
    }
    assert_eq!(pool.stats().completed, 3);
}

#[test]
fn the_threads_of_a_pool_end_when_its_last_handle_is_dropped() {
    let _guard = common::guard();
    let (ended, end) = mpsc::channel::<()>();
    thread_local! {
        /// Dropped at the end of the OS thread.
        static AT_END: Cell<Option<mpsc::Sender<()>>> = const { Cell::new(None) };
    }
    let pool = ThreadPool::builder().max_threads(1).idle_time(HOUR).build();
    pool.run(move || AT_END.set(Some(ended)));
    let other = pool.clone();
    drop(pool);
    assert_eq!(end.try_recv(), Err(mpsc::TryRecvError::Empty));
    drop(other);
    assert_eq!(end.recv_timeout(Duration::from_secs(60)), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn a_job_may_use_its_own_pool() {
    let _guard = common::guard();
    let pool = pool(1);
    let theirs = pool.clone();
    let names = pool.run(move || {
        let outer = std::thread::current().id();
        (outer, theirs.run(|| std::thread::current().id()))
    });
    assert_eq!(names.0, names.1, "in place: the only OS thread is taken by the outer one");
    // And block green.
    assert_eq!(pool.run(|| spawn(|| 7).join().unwrap()), 7);
}

#[test]
fn a_kill_that_is_due_comes_before_the_job() {
    let _guard = common::guard();
    let ran = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&ran);
    let caller = spawn(move || {
        shield(yield_now);
        shield(|| blocking(|| ()));
        blocking(move || theirs.fetch_add(1, Ordering::SeqCst))
    });
    yield_now();
    caller.kill();
    assert!(caller.join().unwrap_err().is_killed());
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[test]
fn inside_no_switch_it_panics_and_the_job_does_not_run() {
    let _guard = common::guard();
    let ran = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&ran);
    let caught = catch_unwind(|| no_switch(|| blocking(move || theirs.fetch_add(1, Ordering::SeqCst))));
    let message = caught.unwrap_err();
    assert!(message.downcast_ref::<&str>().is_some_and(|text| text.contains("no_switch")));
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[test]
fn a_thread_that_unwinds_is_refused() {
    let _guard = common::guard();
    let pool = pool(1);
    let (send, receive) = mpsc::channel();
    let theirs = pool.clone();
    let caller = spawn(move || {
        let _in_drop = OnDrop::new(|| {
            let error = theirs.try_run(|| ()).unwrap_err();
            send.send(error.to_string()).unwrap();
            let caught = catch_unwind(AssertUnwindSafe(|| theirs.run(|| ())));
            let message = *caught.unwrap_err().downcast::<String>().unwrap();
            send.send(message).unwrap();
        });
        greenling::thread::park();
    });
    yield_now();
    caller.kill();
    assert!(caller.join().unwrap_err().is_killed());
    let texts: Vec<String> = receive.iter().collect();
    assert!(texts.iter().all(|text| text.contains("unwinding")) && texts.len() == 2, "{texts:?}");
    assert!(texts[1].contains("tests/offload.rs"), "the message says where: {}", texts[1]);
    assert_eq!(pool.stats().threads, 0);
}

#[test]
fn a_waiting_job_is_no_deadlock() {
    let _guard = common::guard();
    let caller = spawn(|| {
        blocking(|| {
            std::thread::sleep(Duration::from_millis(20));
            1
        })
    });
    assert_eq!(caller.join().unwrap(), 1);
    // But once nobody waits for one, it is found.
    let never = spawn(greenling::thread::park);
    let caught = catch_unwind(AssertUnwindSafe(|| never.join()));
    let report = *caught.unwrap_err().downcast::<String>().unwrap();
    assert!(report.starts_with("deadlock"), "{report}");
}

#[test]
fn hubs_share_a_pool() {
    let _guard = common::guard();
    let (pool, barrier) = (pool(3), Arc::new(Barrier::new(3)));
    let hubs: Vec<_> = (0..3)
        .map(|n| {
            let (pool, barrier) = (pool.clone(), Arc::clone(&barrier));
            std::thread::spawn(move || {
                let job = spawn(move || {
                    pool.run(move || {
                        barrier.wait();
                        n
                    })
                });
                job.join().unwrap()
            })
        })
        .collect();
    let results: Vec<i32> = hubs.into_iter().map(|hub| hub.join().unwrap()).collect();
    assert_eq!(results, [0, 1, 2]);
}

#[test]
fn a_hub_ends_while_its_jobs_run() {
    let _guard = common::guard();
    let pool = pool(2);
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let (dropped, drops) = mpsc::channel();
    let theirs = pool.clone();
    std::thread::spawn(move || {
        drop(spawn(move || {
            theirs.run(move || {
                begun.send(()).unwrap();
                let _ = wait.recv();
                OnDrop::new(move || dropped.send(()).unwrap())
            })
        }));
        yield_now();
        has_begun.recv().unwrap();
    })
    .join()
    .unwrap();
    drop(go);
    drops.recv().unwrap();
    until("the job has ended", || pool.stats().abandoned == 1);
    let stats = pool.stats();
    assert_eq!((stats.running, stats.running_abandoned), (0, 0));
    // Nothing left the job, so its OS thread was not replaced, and takes the next one.
    assert_eq!(pool.run(|| 7), 7);
    assert_eq!(pool.stats().threads, 1);
}

/// Abandons `count` jobs of a pool, all of which run until the returned sender is dropped. The pool must have room for them.
fn abandon(pool: &ThreadPool, count: usize) -> mpsc::Sender<()> {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let (begun, has_begun) = mpsc::channel();
    for _ in 0..count {
        let (theirs, wait, begun) = (pool.clone(), Arc::clone(&wait), begun.clone());
        let caller = spawn(move || {
            theirs.run(move || {
                begun.send(()).unwrap();
                // Those behind the first wait for its lock.
                let _ = wait.lock().map(|wait| wait.recv());
            })
        });
        yield_now();
        has_begun.recv().unwrap();
        caller.kill();
        assert!(caller.join().unwrap_err().is_killed());
    }
    go
}

#[test]
fn abandoned_jobs_are_replaced_and_their_threads_go_when_they_end() {
    let _guard = common::guard();
    let pool = ThreadPool::builder().max_threads(2).idle_time(HOUR).build();
    let go = abandon(&pool, 20);
    let stats = pool.stats();
    assert_eq!((stats.running, stats.running_abandoned, stats.abandoned), (20, 20, 0));
    // As many as before run at the same time, and not more.
    let holders = [Holder::of(&pool), Holder::of(&pool)];
    assert_eq!((pool.stats().threads, pool.stats().running), (22, 22));
    let third = pool.clone();
    let third = spawn(move || third.run(|| 3));
    yield_now();
    assert_eq!((pool.stats().queued, pool.stats().threads), (1, 22));
    holders.into_iter().for_each(Holder::end);
    assert_eq!(third.join().unwrap(), 3);
    drop(go);
    until("all have ended", || pool.stats().abandoned == 20);
    until("the threads above the limit have ended", || pool.stats().threads == 2);
    assert_eq!((pool.stats().running, pool.stats().running_abandoned), (0, 0));
    assert_eq!(pool.run(|| 4), 4);
}

#[test]
fn a_waiter_gets_the_thread_that_replaces_an_abandoned_one() {
    let _guard = common::guard();
    let pool = pool(1);
    let holder = Holder::of(&pool);
    let theirs = pool.clone();
    let waits = spawn(move || theirs.run(|| 7));
    yield_now();
    assert_eq!(pool.stats().queued, 1);
    holder.caller.kill();
    assert_eq!(waits.join().unwrap(), 7, "the job before it has not ended");
    assert_eq!(pool.stats().running_abandoned, 1);
    drop(holder.go);
}

#[test]
fn beyond_the_limit_abandoned_jobs_keep_their_places_until_they_end() {
    let _guard = common::guard();
    let pool = ThreadPool::builder().max_threads(2).max_abandoned(3).queue_limit(0).build();
    let go = abandon(&pool, 5);
    let stats = pool.stats();
    assert_eq!((stats.threads, stats.running_abandoned), (5, 5), "all places and all replacements are taken");
    assert!(pool.try_run(|| ()).unwrap_err().is_full());
    assert_eq!(timeout(Duration::from_millis(5), || pool.run(|| ())), Err(TimeoutError::Elapsed));
    let theirs = pool.clone();
    let waits = spawn(move || theirs.run(|| 6));
    yield_now();
    assert_eq!(pool.stats().queued, 1);
    drop(go);
    assert_eq!(waits.join().unwrap(), 6);
    until("the threads above the limit have ended", || pool.stats().threads <= 2);
}

#[test]
fn with_a_limit_of_none_a_pool_of_one_runs_one_job_at_a_time() {
    let _guard = common::guard();
    let pool = ThreadPool::builder().max_threads(1).max_abandoned(0).build();
    let go = abandon(&pool, 1);
    let theirs = pool.clone();
    let waits = spawn(move || theirs.run(|| 8));
    sleep(Duration::from_millis(2));
    assert_eq!((pool.stats().threads, pool.stats().queued), (1, 1));
    drop(go);
    assert_eq!(waits.join().unwrap(), 8);
}

/// One that was not begun when its caller's hub ended never is, and its closure is dropped.
#[test]
fn a_job_that_waits_in_the_queue_when_its_hub_ends_is_dropped() {
    let _guard = common::guard();
    let pool = pool(1);
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let (dropped, drops) = mpsc::channel();
    let busy = pool.clone();
    let first = spawn(move || {
        busy.run(move || {
            begun.send(()).unwrap();
            wait.recv().is_err()
        })
    });
    yield_now();
    has_begun.recv().unwrap();
    let theirs = pool.clone();
    std::thread::spawn(move || {
        let mark = OnDrop::new(move || dropped.send(()).unwrap());
        drop(spawn(move || {
            theirs.run(move || {
                std::mem::forget(mark);
                unreachable!("nobody waits for it any more")
            })
        }));
        yield_now();
    })
    .join()
    .unwrap();
    drop(go);
    drops.recv().unwrap();
    assert!(first.join().unwrap());
    until("it is counted", || pool.stats().cancelled == 1);
    assert_eq!(pool.run(|| 5), 5);
}

#[test]
fn a_process_exits_while_a_job_is_stuck() {
    let _guard = common::guard();
    let output = common::child("a_process_exits_while_a_job_is_stuck", || {
        let (begun, has_begun) = mpsc::channel();
        drop(spawn(|| {
            blocking(move || {
                begun.send(()).unwrap();
                std::thread::sleep(HOUR);
            })
        }));
        yield_now();
        has_begun.recv().unwrap();
    });
    assert!(output.status.success(), "{output:?}");
}

/// Runs `body` in a forked child; its exit code.
fn forked(body: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child calls `body`, which the tests keep to what works after a fork, and ends by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let well = catch_unwind(AssertUnwindSafe(body)).unwrap_or(false);
        // SAFETY: nothing of the parent's is to be flushed or unwound here.
        unsafe { libc::_exit(i32::from(!well)) };
    }
    let mut status = 0;
    // SAFETY: our own child, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}

#[test]
fn the_child_of_a_fork_gets_an_error_and_its_new_threads_a_pool() {
    let output = common::child("the_child_of_a_fork_gets_an_error_and_its_new_threads_a_pool", || {
        let own = pool(1);
        assert_eq!((blocking(|| 1), own.run(|| 2)), (1, 2));
        let code = forked(|| {
            let error = own.try_run(|| 3).unwrap_err();
            assert!(error.to_string().contains("forked"), "{error}");
            // The OS thread that forked has no hub, but files need none.
            assert_eq!(greenling::fs::read_to_string("/proc/self/comm").unwrap().lines().count(), 1);
            std::thread::spawn(move || {
                // A new one makes one. Its pool of before the fork has no OS threads here.
                let error = own.try_run(|| 4).unwrap_err();
                assert!(error.to_string().contains("forked"), "{error}");
                assert_eq!(blocking(|| 5), 5);
                assert_eq!(offload::default_pool().stats().threads, 1);
            })
            .join()
            .is_ok()
        });
        assert_eq!(code, 0);
        assert_eq!(blocking(|| 6), 6, "the parent goes on");
    });
    assert!(output.status.success(), "{}", common::stderr(&output));
}

#[test]
fn the_default_pool_can_be_set_once() {
    let output = common::child("the_default_pool_can_be_set_once", || {
        offload::set_default_pool(ThreadPool::builder().max_threads(1).name("mine").build()).unwrap();
        assert_eq!(blocking(|| std::thread::current().name().map(String::from)).as_deref(), Some("mine"));
        assert!(offload::set_default_pool(ThreadPool::new()).is_err());
    });
    assert!(output.status.success(), "{}", common::stderr(&output));
}

#[test]
fn main_may_be_a_caller_without_any_green_thread() {
    let _guard = common::guard();
    std::thread::spawn(|| assert_eq!(blocking(|| 6 * 7), 42)).join().unwrap();
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert!(catch_unwind(|| ThreadPool::builder().max_threads(0)).is_err());
    assert!(catch_unwind(|| ThreadPool::builder().name("a\0b")).is_err());
    let debug = format!("{:?}", pool(3));
    assert!(debug.contains("max_threads: 3"), "{debug}");
}

/// A thousand callers, killed and timed out at random: each job has run, was cancelled or was abandoned, each closure and
/// each result was dropped once, and the pool is empty.
#[test]
fn a_pool_survives_a_storm() {
    let _guard = common::guard();
    const CALLERS: usize = 1000;
    let mut random = Random::new();
    let pool = pool(4);
    let before = hub::live_threads();
    let (made, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let ran = Arc::new(AtomicUsize::new(0));
    // No job ends before some callers are killed: a machine that stands still would run all jobs meanwhile.
    let gate = Arc::new(std::sync::RwLock::new(()));
    let theirs = Arc::clone(&gate);
    let mut shut = Some(gate.write().unwrap());
    let token = {
        let (made, gone) = (Arc::clone(&made), Arc::clone(&gone));
        move || {
            made.fetch_add(1, Ordering::SeqCst);
            let gone = Arc::clone(&gone);
            OnDrop::new(move || {
                gone.fetch_add(1, Ordering::SeqCst);
            })
        }
    };
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| {
            let (pool, ran, token, mut random) = (pool.clone(), Arc::clone(&ran), token.clone(), random.fork());
            let gate = Arc::clone(&theirs);
            spawn(move || {
                let (captured, result) = (token(), token.clone());
                let pause = Duration::from_micros(random.below(100));
                let panics = random.below(50) == 0;
                let job = move || {
                    let _captured = captured;
                    ran.fetch_add(1, Ordering::SeqCst);
                    drop(gate.read().unwrap());
                    std::thread::sleep(pause);
                    if panics {
                        // Quiet, and a panic all the same.
                        std::panic::resume_unwind(Box::new(n));
                    }
                    (n, result())
                };
                if random.below(4) == 0 {
                    timeout(Duration::from_micros(random.below(20_000)), || pool.run(job)).map(|(n, _)| n).ok()
                } else {
                    Some(pool.run(job).0)
                }
            })
        })
        .collect();
    let mut kills = 0;
    while callers.iter().any(|caller| !caller.is_finished()) {
        if kills < CALLERS / 2 {
            kills += 1;
            callers[random.below(CALLERS as u64) as usize].kill();
        }
        if kills == CALLERS / 10 {
            drop(shut.take());
        }
        if random.below(20) == 0 {
            sleep(Duration::from_micros(random.below(300)));
        } else {
            yield_now();
        }
    }
    let (mut returned, mut timed_out, mut killed, mut panicked) = (0, 0, 0, 0);
    for (number, caller) in callers.into_iter().enumerate() {
        match caller.join() {
            Ok(Some(n)) => {
                assert_eq!(n, number, "everybody got its own result");
                returned += 1;
            }
            Ok(None) => timed_out += 1,
            Err(error) if error.is_killed() => killed += 1,
            Err(error) => {
                assert_eq!(*error.into_panic().downcast::<usize>().unwrap(), number, "and its own panic");
                panicked += 1;
            }
        }
    }
    assert!(returned > 0 && timed_out + killed > 0, "{returned} {timed_out} {killed} {panicked}");
    until("all jobs have ended", || pool.stats().running == 0);
    let stats = pool.stats();
    assert_eq!(stats.queued, 0);
    assert_eq!((stats.completed + stats.abandoned) as usize, ran.load(Ordering::SeqCst));
    assert!(stats.completed as usize >= returned + panicked, "{stats:?}");
    assert!(stats.cancelled as usize + ran.load(Ordering::SeqCst) <= CALLERS, "{stats:?}");
    assert_eq!(hub::live_threads(), before);
    until("everything is dropped", || made.load(Ordering::SeqCst) == gone.load(Ordering::SeqCst));
}
