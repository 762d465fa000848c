//! Futures: waited for by green threads, and green threads waited for by tasks of other executors.
#![forbid(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::{OnDrop, Random};
use futures_lite::future::{or, yield_now as async_yield, zip};
use greenling::hub::{self, channel};
use greenling::thread::{JoinHandle, park};
use greenling::{TimeoutError, block_on, no_switch, sleep, spawn, timeout, yield_now};

const HOUR: Duration = Duration::from_secs(3600);

/// A flag to await, set from any OS thread.
#[derive(Clone, Default)]
struct Flag(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Flag {
    /// Sets it, and wakes who waits.
    fn set(&self) {
        let wakers = {
            let mut inside = self.0.lock().unwrap();
            inside.0 = true;
            std::mem::take(&mut inside.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wakes who waits, for nothing.
    fn disturb(&self) {
        let wakers = self.0.lock().unwrap().1.clone();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ready once it is set.
    async fn wait(&self) {
        poll_fn(|cx| {
            let mut inside = self.0.lock().unwrap();
            if inside.0 {
                return Poll::Ready(());
            }
            inside.1.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[test]
fn a_future_that_is_ready_needs_no_switch() {
    let _guard = common::guard();
    assert_eq!(no_switch(|| block_on(ready(1))), 1);
    assert_eq!(no_switch(|| block_on(async { 2 })), 2);
}

#[test]
fn others_run_while_a_future_is_waited_for() {
    let _guard = common::guard();
    let flag = Flag::default();
    let theirs = flag.clone();
    let setter = spawn(move || {
        yield_now();
        theirs.set();
    });
    block_on(flag.wait());
    setter.join().unwrap();
}

#[test]
fn a_wake_up_from_another_os_thread_is_not_lost() {
    let _guard = common::guard();
    let (to, from) = mpsc::channel::<Flag>();
    let setter = std::thread::spawn(move || from.iter().for_each(|flag| flag.set()));
    let mut random = Random::new();
    for _ in 0..3000 {
        let flag = Flag::default();
        to.send(flag.clone()).unwrap();
        // Set before the first poll, between poll and park, or later.
        for _ in 0..random.below(3000) {
            std::hint::spin_loop();
        }
        block_on(flag.wait());
    }
    drop(to);
    setter.join().unwrap();
}

#[test]
fn a_wake_up_during_the_poll_is_not_lost() {
    let _guard = common::guard();
    let polls = Cell::new(0);
    block_on(poll_fn(|cx| {
        polls.set(polls.get() + 1);
        cx.waker().wake_by_ref();
        if polls.get() == 100 { Poll::Ready(()) } else { Poll::Pending }
    }));
    assert_eq!(polls.get(), 100);
    // From another OS thread, which has finished before the poll returns.
    let polls = Cell::new(0);
    block_on(poll_fn(|cx| {
        let waker = cx.waker().clone();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        polls.set(polls.get() + 1);
        if polls.get() == 10 { Poll::Ready(()) } else { Poll::Pending }
    }));
    assert_eq!(polls.get(), 10);
}

#[test]
fn a_future_that_wakes_itself_lets_others_run() {
    let _guard = common::guard();
    let log = common::Log::default();
    let theirs = log.clone();
    let other = spawn(move || {
        for n in 0..3 {
            theirs.say(format!("b{n}"));
            yield_now();
        }
    });
    block_on(async {
        for n in 0..3 {
            log.say(format!("a{n}"));
            async_yield().await;
        }
    });
    other.join().unwrap();
    assert_eq!(log.text(), "a0 b0 a1 b1 a2 b2");
}

#[test]
fn a_future_is_polled_only_when_it_was_woken() {
    let _guard = common::guard();
    let (flag, polls) = (Flag::default(), Rc::new(Cell::new(0)));
    let (theirs, count) = (flag.clone(), Rc::clone(&polls));
    let waiter = spawn(move || {
        let mut wait = Box::pin(theirs.wait());
        block_on(poll_fn(|cx| {
            count.set(count.get() + 1);
            wait.as_mut().poll(cx)
        }))
    });
    yield_now();
    assert_eq!(polls.get(), 1);
    waiter.thread().unpark();
    yield_now();
    assert_eq!(polls.get(), 1, "an unpark is somebody else's");
    flag.disturb();
    yield_now();
    assert_eq!(polls.get(), 2);
    flag.set();
    waiter.join().unwrap();
    assert_eq!(polls.get(), 3);
    flag.disturb();
}

#[test]
fn a_kill_drops_the_future_on_its_own_stack() {
    let _guard = common::guard();
    let (flag, dropped) = (Flag::default(), Rc::new(Cell::new(false)));
    let (theirs, mark) = (flag.clone(), Rc::clone(&dropped));
    let waiter = spawn(move || {
        let me = greenling::thread::current().id();
        block_on(async {
            let _mark = OnDrop::new(|| mark.set(greenling::thread::current().id() == me));
            theirs.wait().await;
        })
    });
    yield_now();
    waiter.kill();
    assert!(waiter.join().unwrap_err().is_killed());
    assert!(dropped.get());
    // Late wake-ups find nobody.
    flag.set();
    yield_now();
}

#[test]
fn a_timeout_drops_the_future_and_its_late_waker_disturbs_no_thread() {
    let _guard = common::guard();
    let (flag, dropped) = (Flag::default(), Rc::new(Cell::new(false)));
    let (theirs, mark) = (flag.clone(), Rc::clone(&dropped));
    let result = timeout(Duration::from_millis(3), || {
        block_on(async {
            let _mark = OnDrop::new(|| mark.set(true));
            theirs.wait().await;
        })
    });
    assert_eq!(result, Err(TimeoutError::Elapsed));
    assert!(dropped.get());
    let second = Flag::default();
    let (late, later) = (flag, second.clone());
    let other = spawn(move || {
        late.set();
        yield_now();
        later.set();
    });
    block_on(second.wait());
    other.join().unwrap();
}

#[test]
fn the_panic_of_a_future_comes_out_of_block_on() {
    let _guard = common::guard();
    let waiter = spawn(|| {
        block_on(async {
            async_yield().await;
            panic!("in the future")
        })
    });
    let error: greenling::thread::JoinHandle<()> = waiter;
    assert_eq!(error.join().unwrap_err().panic_message(), Some("in the future"));
}

#[test]
fn block_on_nests_and_a_future_may_block() {
    let _guard = common::guard();
    let flag = Flag::default();
    let theirs = flag.clone();
    let setter = spawn(move || {
        sleep(Duration::from_millis(1));
        theirs.set();
    });
    let answer = block_on(async {
        sleep(Duration::from_micros(100));
        block_on(flag.wait());
        flag.wait().await;
        42
    });
    assert_eq!(answer, 42);
    setter.join().unwrap();
}

#[test]
fn a_future_without_a_waker_is_a_deadlock() {
    let _guard = common::guard();
    let caught = catch_unwind(AssertUnwindSafe(|| block_on(pending::<()>())));
    let report = *caught.unwrap_err().downcast::<String>().unwrap();
    assert!(report.starts_with("deadlock") && report.contains("waits for a future"), "{report}");
}

#[test]
fn a_future_without_a_waker_left_is_a_deadlock() {
    let _guard = common::guard();
    let report = |drops: fn(Waker)| {
        let polls = Cell::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            block_on(poll_fn(|cx| {
                polls.set(polls.get() + 1);
                if polls.get() == 1 {
                    drops(cx.waker().clone());
                }
                Poll::<()>::Pending
            }))
        }));
        (*caught.unwrap_err().downcast::<String>().unwrap(), polls.get())
    };
    let by_a_green_thread = |waker: Waker| {
        drop(spawn(move || {
            sleep(Duration::from_millis(1));
            drop(waker);
        }));
    };
    let by_an_os_thread = |waker: Waker| {
        drop(std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(waker);
        }));
    };
    for drops in [by_a_green_thread, by_an_os_thread] {
        let (text, polls) = report(drops);
        assert!(text.starts_with("deadlock") && text.contains("main waits for a future"), "{text}");
        assert_eq!(polls, 2, "once more, for a wake-up just before");
    }
}

#[test]
fn a_waker_that_is_consumed_or_outlives_its_call_leaves_nothing_behind() {
    let _guard = common::guard();
    let kept = Rc::new(RefCell::new(Vec::new()));
    for round in 0..4 {
        let theirs = Rc::clone(&kept);
        let mut rounds = 0;
        let waiter = spawn(move || {
            block_on(poll_fn(move |cx| {
                rounds += 1;
                theirs.borrow_mut().push(cx.waker().clone());
                if rounds > 3 { Poll::Ready(()) } else { Poll::Pending }
            }));
        });
        for _ in 0..3 {
            yield_now();
            // The last clone, consumed; in odd rounds another one stays.
            let waker = kept.borrow_mut().pop().unwrap();
            if round % 2 == 1 {
                kept.borrow_mut().push(waker.clone());
            }
            waker.wake();
        }
        waiter.join().unwrap();
        kept.take().into_iter().for_each(Waker::wake); // too late
    }
    let endless = spawn(|| block_on(pending::<()>()));
    yield_now();
    assert!(endless.kill() && endless.join().unwrap_err().is_killed());
}

#[test]
fn a_future_is_waited_for_in_no_switch_not_at_all() {
    let _guard = common::guard();
    let caught = catch_unwind(AssertUnwindSafe(|| no_switch(|| block_on(pending::<()>()))));
    assert!(caught.unwrap_err().downcast_ref::<&str>().unwrap().contains("no_switch"));
}

#[test]
fn a_thread_that_unwinds_gets_a_panic_unless_the_future_is_ready() {
    let _guard = common::guard();
    let seen = Rc::new(RefCell::new(String::new()));
    let theirs = Rc::clone(&seen);
    let waiter = spawn(move || {
        let _in_drop = OnDrop::new(|| {
            assert_eq!(block_on(ready(1)), 1);
            let caught = catch_unwind(AssertUnwindSafe(|| block_on(async_yield())));
            *theirs.borrow_mut() = *caught.unwrap_err().downcast::<String>().unwrap();
        });
        park();
    });
    yield_now();
    waiter.kill();
    assert!(waiter.join().unwrap_err().is_killed());
    assert!(seen.borrow().contains("cannot wait for a future"), "{}", seen.borrow());
}

#[test]
fn block_on_works_while_the_os_thread_ends() {
    let _guard = common::guard();
    /// What is done in a destructor.
    type Late = OnDrop<Box<dyn FnOnce()>>;
    thread_local! {
        /// Waits in its destructor.
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    let flag = Flag::default();
    let (theirs, (done, is_done)) = (flag.clone(), mpsc::channel());
    let os_thread = std::thread::spawn(move || {
        LATE.set(Some(OnDrop::new(Box::new(move || {
            block_on(theirs.wait());
            done.send(()).unwrap();
        }))));
        yield_now();
    });
    std::thread::sleep(Duration::from_millis(5));
    flag.set();
    is_done.recv().unwrap();
    os_thread.join().unwrap();
}

#[test]
fn a_poll_allocates_nothing_of_its_own() {
    let _guard = common::guard();
    // Every waker that a poll hands out is the same one.
    let first = RefCell::new(None::<Waker>);
    let polls = Cell::new(0);
    block_on(poll_fn(|cx| {
        let mut first = first.borrow_mut();
        let first = first.get_or_insert_with(|| cx.waker().clone());
        assert!(first.will_wake(cx.waker()));
        polls.set(polls.get() + 1);
        cx.waker().wake_by_ref();
        if polls.get() < 10 { Poll::Pending } else { Poll::Ready(()) }
    }));
}

#[test]
fn green_threads_and_tasks_of_tokio_talk_over_its_channels() {
    let _guard = common::guard();
    let (to_tokio, mut requests) = tokio::sync::mpsc::channel::<(u32, tokio::sync::oneshot::Sender<u32>)>(2);
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async move {
            let mut served = 0;
            while let Some((n, answer)) = requests.recv().await {
                if n % 7 == 0 {
                    tokio::time::sleep(Duration::from_micros(50)).await;
                }
                let _ = answer.send(n * n);
                served += 1;
            }
            served
        })
    });
    let clients: Vec<_> = (0..100)
        .map(|n| {
            let to_tokio = to_tokio.clone();
            spawn(move || {
                block_on(async {
                    let (send, receive) = tokio::sync::oneshot::channel();
                    to_tokio.send((n, send)).await.unwrap();
                    assert_eq!(receive.await.unwrap(), n * n);
                })
            })
        })
        .collect();
    drop(to_tokio);
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(greenling::blocking(move || server.join().unwrap()), 100);
}

#[test]
fn a_join_handle_is_awaited_on_its_own_hub() {
    let _guard = common::guard();
    let threads: Vec<JoinHandle<u32>> = (0..3)
        .map(|n| {
            spawn(move || {
                for _ in 0..3 - n {
                    yield_now();
                }
                n
            })
        })
        .collect();
    let sum = block_on(async {
        let mut sum = 0;
        for thread in threads {
            sum += thread.await.unwrap();
        }
        sum
    });
    assert_eq!(sum, 3);
    // Two at once, and the first of two.
    let [a, b] = [1, 2].map(|n| spawn(move || n).into_future());
    assert_eq!(
        block_on(async {
            let (a, b) = zip(a, b).await;
            a.unwrap() + b.unwrap()
        }),
        3
    );
    let slow = spawn(park).into_future();
    let fast = spawn(yield_now).into_future();
    block_on(or(slow, fast)).unwrap();
}

#[test]
fn an_awaited_thread_that_panics_or_is_killed_says_so() {
    let _guard = common::guard();
    let error = block_on(spawn(|| -> () { panic!("awaited") })).unwrap_err();
    assert_eq!(error.panic_message(), Some("awaited"));
    let victim = spawn(park);
    let thread = victim.thread().clone();
    let killer = spawn(move || {
        yield_now();
        thread.unpark();
    });
    block_on(victim).unwrap();
    killer.join().unwrap();
    // Before it started.
    let unborn = spawn(|| 1);
    unborn.kill();
    assert!(block_on(unborn).unwrap_err().is_killed());
}

#[test]
fn a_future_of_a_thread_that_was_polled_may_be_dropped() {
    let _guard = common::guard();
    let finished = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&finished);
    let thread = spawn(move || {
        yield_now();
        theirs.set(true);
    });
    let woken = Arc::new(AtomicUsize::new(0));
    /// Counts.
    struct Count(Arc<AtomicUsize>);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let waker = Waker::from(Arc::new(Count(Arc::clone(&woken))));
    let mut future = thread.into_future();
    for _ in 0..2 {
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(future);
    for _ in 0..5 {
        yield_now();
    }
    assert!(finished.get(), "it went on, detached");
    assert_eq!(woken.load(Ordering::SeqCst), 0, "nobody awaits it any more");
    // Not dropped: one wake-up, and then the outcome, once.
    let mut future = spawn(|| 5).into_future();
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
    yield_now();
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert!(matches!(Pin::new(&mut future).poll(&mut cx), Poll::Ready(Ok(5))));
    assert!(matches!(Pin::new(&mut future).poll(&mut cx), Poll::Ready(Err(_))));
}

#[test]
fn a_waker_that_panics_harms_no_other() {
    let _guard = common::guard();
    /// Panics.
    struct Bad;
    impl std::task::Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker");
        }
    }
    let waker = Waker::from(Arc::new(Bad));
    let mut future = spawn(|| 5).into_future();
    assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
    yield_now();
    assert_eq!(block_on(future).unwrap(), 5);
}

/// Lets others run in its `wake`.
struct Slow(AtomicBool);

impl Wake for Slow {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        (0..3).for_each(|_| yield_now());
    }
}

#[test]
fn a_task_that_polls_while_its_waker_waits_is_told_again() {
    let _guard = common::guard();
    let thread = spawn(|| {
        yield_now();
        7
    });
    let slow = Arc::new(Slow(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&slow));
    let mut context = Context::from_waker(&waker);
    let mut end = pin!(thread.into_future());
    let mut polls = 0;
    let answer = loop {
        polls += 1;
        if let Poll::Ready(answer) = end.as_mut().poll(&mut context) {
            break answer;
        }
        // Who is not told does not poll.
        let told = (0..1000).any(|_| {
            yield_now();
            slow.0.swap(false, Ordering::SeqCst)
        });
        assert!(told, "after poll {polls}");
    };
    assert_eq!((answer.unwrap(), polls), (7, 3));
}

#[test]
fn a_thread_that_awaits_itself_panics() {
    let _guard = common::guard();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let theirs = Rc::clone(&own);
    let thread = spawn(move || {
        let me = theirs.borrow_mut().take().unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| block_on(me)));
        assert!(caught.is_err());
    });
    let watched = thread.thread().clone();
    *own.borrow_mut() = Some(thread);
    for _ in 0..3 {
        yield_now();
    }
    assert!(own.borrow().is_none());
    drop(watched);
}

/// Runs `body` on another OS thread with a channel to this hub, which serves it until it is done.
fn elsewhere<T: Send + 'static>(body: impl FnOnce(hub::HubHandle) -> T + Send + 'static) -> T {
    let here = hub::handle();
    let (send, receive) = channel::<T>(None);
    let os_thread = std::thread::spawn(move || {
        let _ = send.send(body(here));
    });
    let result = receive.recv().unwrap();
    greenling::blocking(move || os_thread.join().unwrap());
    result
}

#[test]
fn a_remote_handle_is_awaited_by_tokio() {
    let _guard = common::guard();
    let sum = elsewhere(|there| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async move {
            let tasks: Vec<_> = (0..50)
                .map(|n| {
                    let thread = there.spawn(move || {
                        if n % 3 == 0 {
                            sleep(Duration::from_micros(200));
                        }
                        n
                    });
                    tokio::spawn(thread.into_future())
                })
                .collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.unwrap().unwrap();
            }
            sum
        })
    });
    assert_eq!(sum, (0..50).sum::<u32>());
}

#[test]
fn a_remote_handle_is_awaited_by_any_executor_and_by_block_on() {
    let _guard = common::guard();
    assert_eq!(elsewhere(|there| futures_lite::future::block_on(there.spawn(|| 1).into_future()).unwrap()), 1);
    assert_eq!(elsewhere(|there| block_on(there.spawn(|| 2)).unwrap()), 2);
    // On its own hub.
    assert_eq!(block_on(hub::handle().spawn(|| 3)).unwrap(), 3);
    let error = elsewhere(|there| {
        let thread = there.spawn(|| -> u32 { panic!("over there") });
        futures_lite::future::block_on(thread.into_future()).unwrap_err()
    });
    assert_eq!(error.panic_message(), Some("over there"));
}

#[test]
fn a_remote_future_ends_when_its_hub_does() {
    let _guard = common::guard();
    let (send, receive) = mpsc::channel();
    let os_thread = std::thread::spawn(move || {
        send.send(hub::handle().spawn(|| sleep(HOUR))).unwrap();
        yield_now();
    });
    let future = receive.recv().unwrap().into_future();
    let error = futures_lite::future::block_on(future).unwrap_err();
    assert!(error.is_hub_ended(), "{error}");
    os_thread.join().unwrap();
}

#[test]
fn what_may_be_sent_can_be_and_what_may_not_cannot() {
    fn sendable<T: Send>() {}
    sendable::<hub::RemoteJoinFuture<u32>>();
    fn unpin<T: Unpin>() {}
    unpin::<hub::RemoteJoinFuture<std::marker::PhantomPinned>>();
    unpin::<greenling::thread::JoinFuture<std::marker::PhantomPinned>>();
}

/// A thousand waiters, woken from two OS threads, killed and timed out at random: nobody hangs, every future is dropped.
#[test]
fn futures_survive_a_storm() {
    let _guard = common::guard();
    const WAITERS: usize = 1000;
    let mut random = Random::new();
    let dropped = Rc::new(Cell::new(0));
    let before = hub::live_threads();
    let flags: Vec<Flag> = (0..WAITERS).map(|_| Flag::default()).collect();
    let setters: Vec<_> = (0..2)
        .map(|setter| {
            let (mut flags, mut random) = (flags.clone(), random.fork());
            std::thread::spawn(move || {
                while !flags.is_empty() {
                    let flag = flags.swap_remove(random.below(flags.len() as u64) as usize);
                    if random.below(2) == 0 {
                        flag.disturb()
                    } else {
                        flag.set()
                    }
                    if random.below(50) == 0 {
                        std::thread::sleep(Duration::from_micros(random.below(100) * (setter + 1)));
                    }
                }
            })
        })
        .collect();
    let waiters: Vec<_> = flags
        .iter()
        .map(|flag| {
            let (flag, dropped, mut random) = (flag.clone(), Rc::clone(&dropped), random.fork());
            spawn(move || {
                let wait = || {
                    let _mark = OnDrop::new(|| dropped.set(dropped.get() + 1));
                    block_on(async { flag.wait().await })
                };
                if random.below(4) == 0 {
                    let _: Result<(), _> = timeout(Duration::from_micros(random.below(5000)), wait);
                } else {
                    wait();
                }
            })
        })
        .collect();
    for _ in 0..WAITERS / 3 {
        waiters[random.below(WAITERS as u64) as usize].kill();
        if random.below(10) == 0 {
            yield_now();
        }
    }
    greenling::blocking(move || setters.into_iter().for_each(|setter| setter.join().unwrap()));
    // Those that were only disturbed.
    flags.iter().for_each(Flag::set);
    let mut killed = 0;
    for waiter in waiters {
        killed += usize::from(waiter.join().is_err_and(|error| error.is_killed()));
    }
    assert!(killed > 0);
    assert_eq!(hub::live_threads(), before);
    assert!(dropped.get() + killed >= WAITERS, "{} {killed}", dropped.get());
    for flag in flags {
        let inside = flag.0.lock().unwrap();
        assert!(inside.1.is_empty());
    }
}
