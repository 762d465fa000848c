//! Many hubs (docs/book, chapter 10): threads on another hub, channels between hubs, hubs started together, one listener each.
#![forbid(unsafe_code)]

mod common;

use std::cell::Cell;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, TryRecvError, TrySendError};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::{OnDrop, Random, settle};
use greenling::channel::SendTimeoutError;
use greenling::hub::{self, HubHandle, RemoteJoinHandle, RemoteReceiver, RemoteSender, channel};
use greenling::net::{TcpListener, TcpStream};
use greenling::thread::{current, park, spawn, yield_now};
use greenling::{Hubs, no_switch, select, shield, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);

/// An OS thread with a hub that serves its handle's holders until `stop` is dropped.
struct Other {
    handle: HubHandle,
    stop: RemoteSender<()>,
    os: std::thread::JoinHandle<()>,
}

impl Other {
    fn start() -> Other {
        Other::ending_with(|| {})
    }

    /// Its main does `last` at its end.
    fn ending_with(last: impl FnOnce() + Send + 'static) -> Other {
        let (stop, stopped) = channel::<()>(None);
        let (send, receive) = mpsc::channel();
        let os = std::thread::spawn(move || {
            send.send(hub::handle()).unwrap();
            drop(send);
            assert!(stopped.recv().is_err());
            last();
        });
        Other { handle: receive.recv().unwrap(), stop, os }
    }

    fn end(self) {
        drop(self.stop);
        self.os.join().unwrap();
    }
}

/// The message of the panic of `f`.
fn panic_of(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("a panic");
    *payload.downcast::<String>().expect("a message")
}

#[test]
fn handles_and_ends_are_send_and_sync() {
    fn shared<T: Send + Sync + Clone>() {}
    fn sent<T: Send>() {}
    shared::<HubHandle>();
    shared::<RemoteSender<u8>>();
    shared::<RemoteReceiver<u8>>();
    sent::<RemoteJoinHandle<u8>>();
    sent::<greenling::RunningHubs<u8>>();
}

#[test]
fn a_closure_runs_as_a_green_thread_of_the_other_hub() {
    let _guard = common::guard();
    let other = Other::start();
    let os = other.os.thread().id();
    let handle = other.handle.spawn(move || {
        assert_eq!(std::thread::current().id(), os);
        // It may block and spawn like any other.
        let local = Rc::new(6);
        sleep(Duration::from_millis(1));
        spawn(move || *local * 7).join().unwrap()
    });
    assert_eq!(handle.join().unwrap(), 42);
    other.end();
}

#[test]
fn threads_of_one_spawner_start_in_the_order_of_its_spawns() {
    let _guard = common::guard();
    let other = Other::start();
    let (send, receive) = channel(None);
    for n in 0..100 {
        let send = send.clone();
        drop(other.handle.spawn(move || send.send(n).unwrap()));
    }
    drop(send);
    assert!(receive.iter().eq(0..100), "detached, and they ran all the same");
    other.end();
}

#[test]
fn green_threads_of_the_joiner_run_while_it_waits() {
    let _guard = common::guard();
    let other = Other::start();
    let (send, receive) = channel::<()>(None);
    let remote = other.handle.spawn(move || receive.recv().is_ok());
    let local = spawn(move || send.send(()).unwrap());
    assert!(remote.join().unwrap(), "the local thread ran while main was in join");
    local.join().unwrap();
    let handle = other.handle.clone();
    let joined_in_thread = spawn(move || handle.spawn(|| 5).join().unwrap());
    assert_eq!(joined_in_thread.join().unwrap(), 5);
    other.end();
}

#[test]
fn a_handle_can_be_joined_by_an_os_thread_without_a_hub() {
    let _guard = common::guard();
    let other = Other::start();
    let handle = other.handle.spawn(|| 7);
    assert_eq!(std::thread::spawn(move || handle.join().unwrap()).join().unwrap(), 7);
    other.end();
}

#[test]
fn a_panic_reaches_the_joiner_and_no_other_thread() {
    let _guard = common::guard();
    let other = Other::start();
    let bad = other.handle.spawn(|| panic!("out of tea"));
    let good = other.handle.spawn(|| 1);
    let error = bad.join().unwrap_err();
    assert!(error.is_panic() && !error.is_killed() && !error.is_hub_ended());
    assert_eq!(error.panic_message(), Some("out of tea"));
    assert_eq!(good.join().unwrap(), 1);
    other.end();
}

#[test]
fn a_panic_names_the_place_of_the_remote_spawn() {
    let output = common::child("a_panic_names_the_place_of_the_remote_spawn", || {
        let other = Other::start();
        let line = line!() + 1;
        let _ = other.handle.spawn(|| panic!("here")).join();
        println!("line {line}.");
        other.end();
    });
    let (out, err) = (common::stdout(&output), common::stderr(&output));
    let line: u32 = out.split("line ").nth(1).unwrap().split('.').next().unwrap().parse().unwrap();
    assert!(err.contains(&format!("spawned at tests/hubs.rs:{line}:")), "{err}");
}

#[test]
fn kill_reaches_over_to_the_other_hub() {
    let _guard = common::guard();
    let other = Other::start();
    let (send, receive) = channel(None);
    let (started, begun) = channel(None);
    let victim = other.handle.spawn(move || {
        let _dropped = OnDrop::new(move || send.try_send(1).unwrap());
        started.send(()).unwrap();
        sleep(HOUR);
    });
    begun.recv().unwrap();
    assert!(!victim.is_finished());
    assert!(victim.kill());
    let error = victim.join().unwrap_err();
    assert!(error.is_killed() && !error.is_hub_ended(), "{error}");
    assert_eq!(receive.recv(), Ok(1), "its destructors ran");
    // Of a thread that has ended: nothing.
    let done = other.handle.spawn(|| 3);
    while !done.is_finished() {
        sleep(Duration::from_millis(1));
    }
    assert!(!done.kill());
    assert_eq!(done.join().unwrap(), 3);
    other.end();
}

#[test]
fn a_thread_killed_before_it_started_never_runs() {
    let _guard = common::guard();
    // This hub is the target: nothing starts before main blocks.
    let here = hub::handle();
    let ran = Arc::new(AtomicBool::new(false));
    let (flag, dropped) = (Arc::clone(&ran), Arc::new(AtomicBool::new(false)));
    let on_drop = OnDrop::new({
        let dropped = Arc::clone(&dropped);
        move || dropped.store(true, Ordering::Relaxed)
    });
    let handle = here.spawn(move || {
        let _on_drop = on_drop;
        flag.store(true, Ordering::Relaxed);
    });
    assert!(handle.kill());
    assert!(handle.join().unwrap_err().is_killed());
    assert!(!ran.load(Ordering::Relaxed) && dropped.load(Ordering::Relaxed));
}

#[test]
fn a_shield_defers_a_remote_kill() {
    let _guard = common::guard();
    let other = Other::start();
    let (started, begun) = channel(None);
    let (go, may_go) = channel::<()>(None);
    let (send, receive) = channel(None);
    let victim = other.handle.spawn(move || {
        shield(|| {
            started.send(()).unwrap();
            may_go.recv().unwrap();
            send.send("finished inside").unwrap();
        });
        sleep(HOUR);
    });
    begun.recv().unwrap();
    victim.kill();
    go.send(()).unwrap();
    assert_eq!(receive.recv(), Ok("finished inside"));
    assert!(victim.join().unwrap_err().is_killed());
    other.end();
}

#[test]
fn a_timeout_around_a_remote_join_lets_the_thread_go_on() {
    let _guard = common::guard();
    let other = Other::start();
    let (go, may_go) = channel::<()>(None);
    let (send, receive) = channel(None);
    let slow = other.handle.spawn(move || {
        may_go.recv().unwrap();
        send.send(9).unwrap();
    });
    assert!(timeout(Duration::from_millis(5), || slow.join()).is_err());
    go.send(()).unwrap();
    assert_eq!(receive.recv(), Ok(9));
    // The joiner's stale registration disturbs nobody.
    assert!(timeout(Duration::from_millis(5), park).is_err());
    other.end();
}

#[test]
fn a_joiner_can_be_killed() {
    let _guard = common::guard();
    let other = Other::start();
    let (go, may_go) = channel::<()>(None);
    let remote = other.handle.spawn(move || may_go.recv().is_err());
    let joiner = spawn(move || remote.join().is_ok());
    settle();
    assert!(joiner.kill());
    assert!(joiner.join().unwrap_err().is_killed());
    drop(go);
    other.end();
}

// ---- the end of a hub -----------------------------------------------------------------------------------------------

#[test]
fn a_spawn_on_a_hub_that_has_ended_is_an_error_at_the_join() {
    let _guard = common::guard();
    let other = Other::start();
    let handle = other.handle.clone();
    other.end();
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let on_drop = OnDrop::new(move || flag.store(true, Ordering::Relaxed));
    let lost = handle.spawn(move || {
        let _on_drop = on_drop;
        unreachable!("nobody runs it");
    });
    assert!(dropped.load(Ordering::Relaxed), "dropped at once, here");
    assert!(lost.is_finished() && !lost.kill());
    let error = lost.join().unwrap_err();
    assert!(error.is_hub_ended() && error.is_killed());
    assert_eq!(error.to_string(), "the green thread never started: its hub has ended");
}

#[test]
fn threads_that_are_queued_when_main_returns_never_start_and_their_joiners_hear_of_it() {
    let _guard = common::guard();
    let (ask, asked) = mpsc::channel::<()>();
    let (send, receive) = mpsc::channel();
    let os = std::thread::spawn(move || {
        send.send(hub::handle()).unwrap();
        // Blocks the OS thread, not the green thread: the mail is not read.
        asked.recv().unwrap();
    });
    let handle = receive.recv().unwrap();
    let (started, drops) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let queued: Vec<_> = (0..100)
        .map(|_| {
            let (started, drops) = (Arc::clone(&started), Arc::clone(&drops));
            let on_drop = OnDrop::new(move || {
                drops.fetch_add(1, Ordering::Relaxed);
            });
            handle.spawn(move || {
                let _on_drop = on_drop;
                started.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    ask.send(()).unwrap();
    for thread in queued {
        let error = thread.join().unwrap_err();
        assert!(error.is_hub_ended(), "{error}");
        assert!(error.to_string().contains("never started"), "{error}");
    }
    os.join().unwrap();
    assert_eq!(started.load(Ordering::Relaxed), 0);
    assert_eq!(drops.load(Ordering::Relaxed), 100);
}

#[test]
fn the_joiner_of_a_thread_that_runs_when_its_hub_ends_hears_of_it() {
    let _guard = common::guard();
    // Unwound by a shutdown in main; and given up without one.
    for shut_down in [true, false] {
        let other = Other::ending_with(move || {
            if shut_down {
                assert_eq!(hub::shutdown(), 0);
            }
        });
        let (started, begun) = channel(None);
        let (send, receive) = channel(None);
        let thread = other.handle.spawn(move || {
            let _on_drop = OnDrop::new(move || send.try_send("unwound").unwrap());
            started.send(()).unwrap();
            sleep(HOUR);
        });
        begun.recv().unwrap();
        other.end();
        let error = thread.join().unwrap_err();
        assert!(error.is_killed() && error.to_string().contains("was killed: its hub has ended"), "{error}");
        assert!(error.is_hub_ended(), "{error}");
        assert_eq!(receive.try_recv().is_ok(), shut_down);
    }
}

/// Who is suspended when its hub ends never leaves its place in a line. Whoever stands behind it must not wait for it.
#[test]
fn a_place_in_a_line_is_not_kept_for_a_thread_whose_hub_has_ended() {
    let _guard = common::guard();
    // Whether its turn has come before the end, which its hub does not look at any more.
    for granted in [false, true] {
        for by_select in [false, true] {
            let (send, receive) = channel::<u32>(None);
            let (go, gone) = mpsc::channel::<()>();
            let (ready, begun) = mpsc::channel();
            let theirs = receive.clone();
            let os = std::thread::spawn(move || {
                drop(spawn(move || match by_select {
                    true => select! { recv(theirs) -> _ => () },
                    false => drop(theirs.recv()),
                }));
                (0..3).for_each(|_| yield_now());
                ready.send(()).unwrap();
                // Without its hub: what comes now is not seen.
                gone.recv().unwrap();
            });
            begun.recv().unwrap();
            let second = spawn(move || receive.recv());
            yield_now();
            if granted {
                send.send(7).unwrap();
            }
            go.send(()).unwrap();
            os.join().unwrap();
            if !granted {
                send.send(7).unwrap();
            }
            assert_eq!(second.join().unwrap(), Ok(7), "granted: {granted}, select: {by_select}");
        }
    }
    // The same for those who wait for room.
    let (send, receive) = channel::<u32>(Some(1));
    send.send(0).unwrap();
    let theirs = send.clone();
    std::thread::spawn(move || {
        drop(spawn(move || theirs.send(1)));
        (0..3).for_each(|_| yield_now());
    })
    .join()
    .unwrap();
    let behind = spawn(move || send.send(2));
    settle();
    assert_eq!((receive.recv(), receive.recv()), (Ok(0), Ok(2)), "the value of the one that is gone never comes");
    behind.join().unwrap().unwrap();
}

/// It swallows every kill and is given up, its stack leaked; whoever waits for it must not wait for ever.
#[test]
fn the_joiner_of_a_thread_that_cannot_be_unwound_hears_of_the_end() {
    let _guard = common::guard();
    let other = Other::start();
    let (started, begun) = channel(None);
    let thread = other.handle.spawn(move || {
        started.send(()).unwrap();
        loop {
            let _ = catch_unwind(|| sleep(HOUR));
        }
    });
    begun.recv().unwrap();
    other.end();
    let error = thread.join().unwrap_err();
    assert!(error.is_hub_ended(), "{error}");
}

#[test]
fn a_result_outlives_its_hub_and_the_hub_of_its_spawner() {
    let _guard = common::guard();
    let other = Other::start();
    let handle = other.handle.clone();
    // The source's hub ends first; its handles are used elsewhere.
    let thread = std::thread::spawn(move || {
        spawn(|| ()).join().unwrap();
        handle.spawn(|| vec![1, 2, 3])
    });
    let thread = thread.join().unwrap();
    while !thread.is_finished() {
        sleep(Duration::from_millis(1));
    }
    other.end();
    assert_eq!(thread.join().unwrap(), [1, 2, 3]);
}

#[test]
fn a_source_that_ends_while_it_waits_disturbs_no_other() {
    let _guard = common::guard();
    let other = Other::start();
    let (go, may_go) = channel::<()>(None);
    let (send, receive) = channel(None);
    let handle = other.handle.clone();
    std::thread::spawn(move || {
        let remote = handle.spawn(move || {
            let _ = may_go.recv();
            send.send(4).unwrap();
        });
        // This joiner is unwound by the end of its hub, then the result has nowhere to go.
        drop(spawn(move || remote.join()));
        settle();
    })
    .join()
    .unwrap();
    drop(go);
    assert_eq!(receive.recv(), Ok(4));
    assert_eq!(other.handle.spawn(|| 1).join().unwrap(), 1);
    other.end();
}

#[test]
fn shutdown_unwinds_remote_threads_too_and_the_hub_goes_on() {
    let _guard = common::guard();
    let here = hub::handle();
    let started = here.spawn(|| sleep(HOUR));
    settle();
    sleep(Duration::from_millis(1));
    let queued = here.spawn(|| sleep(HOUR));
    assert_eq!(hub::shutdown(), 0);
    assert!(started.join().unwrap_err().is_hub_ended());
    assert!(queued.join().unwrap_err().is_hub_ended());
    assert_eq!(here.spawn(|| 8).join().unwrap(), 8);
}

/// The end of a hub races with those who spawn on it: every join returns, and each closure is dropped, run or not.
#[test]
fn no_spawn_is_lost_when_the_hub_ends_meanwhile() {
    let _guard = common::guard();
    let mut random = Random::new();
    for _ in 0..300 {
        let (send, receive) = mpsc::channel();
        let lifetime = random.below(200);
        let yields = random.below(20);
        let os = std::thread::spawn(move || {
            for _ in 0..3 {
                send.send(hub::handle()).unwrap();
            }
            for _ in 0..yields {
                sleep(Duration::from_nanos(1));
            }
            for _ in 0..lifetime {
                std::hint::spin_loop();
            }
        });
        let live = Arc::new(AtomicUsize::new(0));
        let spawners: Vec<_> = (0..3)
            .map(|_| {
                let handle = receive.recv().unwrap();
                let live = Arc::clone(&live);
                let pause = random.below(100);
                std::thread::spawn(move || {
                    let (mut ran, mut refused) = (0, 0);
                    for _ in 0..30 {
                        live.fetch_add(1, Ordering::Relaxed);
                        let live = Arc::clone(&live);
                        let on_drop = OnDrop::new(move || {
                            live.fetch_sub(1, Ordering::Relaxed);
                        });
                        let thread = handle.spawn(move || drop(on_drop));
                        for _ in 0..pause {
                            std::hint::spin_loop();
                        }
                        match thread.join() {
                            Ok(()) => ran += 1,
                            Err(error) if error.is_hub_ended() => refused += 1,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    ran + refused
                })
            })
            .collect();
        let all: u32 = spawners.into_iter().map(|spawner| spawner.join().unwrap()).sum();
        os.join().unwrap();
        assert_eq!(all, 90);
        assert_eq!(live.load(Ordering::Relaxed), 0);
    }
}

// ---- deadlocks ------------------------------------------------------------------------------------------------------

#[test]
fn a_hub_that_a_handle_leads_to_is_not_deadlocked_and_a_remote_thread_may_wake_it() {
    let _guard = common::guard();
    let here = hub::handle();
    let main = current();
    let os = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        let woken = here.spawn(move || main.unpark());
        drop(here);
        woken.join().unwrap();
    });
    park();
    os.join().unwrap();
    // With nobody else who could wake main, it is the handle alone that puts the report off.
    thread_local!(static RAN: Cell<bool> = const { Cell::new(false) });
    let here = hub::handle();
    let os = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        here.spawn(|| RAN.set(true)).join().unwrap();
    });
    let text = panic_of(park);
    assert!(text.starts_with("deadlock") && RAN.get(), "too early: {text}");
    os.join().unwrap();
}

#[test]
fn a_deadlock_is_reported_when_the_last_handle_of_the_hub_goes() {
    let _guard = common::guard();
    for pause in [0, 1, 20] {
        let handles = [hub::handle(), hub::handle()];
        let os = handles.map(|handle| {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(pause));
                drop(handle);
            })
        });
        let never = spawn(park);
        let text = panic_of(|| drop(never.join()));
        assert!(text.starts_with("deadlock"), "{text}");
        os.into_iter().for_each(|os| os.join().unwrap());
    }
}

#[test]
fn a_join_handle_may_kill_and_so_it_counts_until_it_is_gone() {
    let _guard = common::guard();
    let here = hub::handle();
    let victim = here.spawn(park);
    drop(here);
    let os = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        victim.kill();
        assert!(victim.join().unwrap_err().is_killed());
    });
    // Main waits for a thread that only the kill can help.
    let text = panic_of(park);
    assert!(text.starts_with("deadlock") && !text.contains("#2"), "the victim was gone: {text}");
    os.join().unwrap();
}

#[test]
fn a_thread_of_the_same_hub_that_never_ends_is_a_deadlock() {
    let _guard = common::guard();
    let here = hub::handle();
    let never = here.spawn(park);
    drop(here);
    let text = panic_of(|| drop(never.join()));
    assert!(
        text.contains("main waits for the end of a green thread that was spawned through a hub's handle"),
        "{text}"
    );
    assert!(text.contains("is parked") && text.contains("spawned at tests/hubs.rs:"), "{text}");
}

#[test]
fn a_waiter_for_another_hub_is_not_deadlocked() {
    let _guard = common::guard();
    let other = Other::start();
    let remote = other.handle.spawn(|| std::thread::sleep(Duration::from_millis(30)));
    remote.join().unwrap();
    let (send, receive) = channel(Some(1));
    let os = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        send.send(1).unwrap();
    });
    assert_eq!(receive.recv(), Ok(1));
    os.join().unwrap();
    other.end();
}

// ---- channels -------------------------------------------------------------------------------------------------------

#[test]
fn values_arrive_in_order_and_the_end_comes_after_the_last() {
    let _guard = common::guard();
    let (send, receive) = channel(None);
    let second = send.clone();
    for n in 0..5 {
        send.send(n).unwrap();
    }
    drop(send);
    second.send(5).unwrap();
    drop(second);
    assert!(receive.iter().eq(0..6));
    assert!(receive.recv().is_err());
    assert_eq!(receive.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(receive.recv_timeout(HOUR), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn a_full_channel_makes_the_sender_wait_and_the_others_run() {
    let _guard = common::guard();
    let (send, receive) = channel(Some(2));
    let log = common::Log::default();
    let sender_log = log.clone();
    let sender = spawn(move || {
        for n in 0..4 {
            send.send(n).unwrap();
            sender_log.say(format!("+{n}"));
        }
    });
    settle();
    assert_eq!(log.text(), "+0 +1");
    assert_eq!(receive.recv(), Ok(0));
    settle();
    assert_eq!(log.text(), "+0 +1 +2");
    assert!(receive.iter().eq(1..4));
    sender.join().unwrap();
}

#[test]
fn trying_says_full_and_empty_and_closed() {
    let _guard = common::guard();
    let (send, receive) = channel(Some(1));
    assert_eq!(receive.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(receive.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    send.try_send(1).unwrap();
    assert_eq!(send.try_send(2), Err(TrySendError::Full(2)));
    assert_eq!(receive.try_recv(), Ok(1));
    drop(receive);
    assert_eq!(send.try_send(3), Err(TrySendError::Disconnected(3)));
    assert_eq!(send.send(4).unwrap_err().0, 4);
}

#[test]
fn the_last_receiver_takes_the_values_with_it_and_wakes_the_senders() {
    let _guard = common::guard();
    let (send, receive) = channel(Some(1));
    let value = Arc::new(());
    send.send(Arc::clone(&value)).unwrap();
    let second = Arc::clone(&value);
    let waiting = spawn(move || send.send(second).is_err());
    settle();
    drop(receive);
    assert!(waiting.join().unwrap());
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn the_last_sender_wakes_all_receivers() {
    let _guard = common::guard();
    let (send, receive) = channel::<u8>(None);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let receive = receive.clone();
            spawn(move || receive.recv().is_err())
        })
        .collect();
    settle();
    std::thread::spawn(move || drop(send)).join().unwrap();
    for receiver in waiting {
        assert!(receiver.join().unwrap());
    }
}

#[test]
fn receivers_take_turns_in_the_order_in_which_they_came() {
    let _guard = common::guard();
    let (send, receive) = channel(None);
    let log = common::Log::default();
    let waiting: Vec<_> = (0..3)
        .map(|n| {
            let (receive, log) = (receive.clone(), log.clone());
            spawn(move || {
                let value = receive.recv().unwrap();
                log.say(format!("{n}:{value}"));
            })
        })
        .collect();
    settle();
    send.send('a').unwrap();
    assert_eq!(receive.try_recv(), Err(TryRecvError::Empty), "it is promised to who waits");
    send.send('b').unwrap();
    send.send('c').unwrap();
    for receiver in waiting {
        receiver.join().unwrap();
    }
    assert_eq!(log.text(), "0:a 1:b 2:c");
}

#[test]
fn a_killed_receiver_passes_its_turn_on() {
    let _guard = common::guard();
    let (send, receive) = channel(None);
    let [first, second] = [receive.clone(), receive].map(|receive| spawn(move || receive.recv()));
    settle();
    no_switch(|| send.send(1)).unwrap();
    // It was woken, and is killed before it takes the value.
    assert!(first.kill());
    assert!(first.join().unwrap_err().is_killed());
    assert_eq!(second.join().unwrap(), Ok(1));
}

#[test]
fn a_killed_sender_passes_its_turn_on() {
    let _guard = common::guard();
    let (send, receive) = channel(Some(1));
    send.send(0).unwrap();
    let [first, second] = [(send.clone(), 1), (send, 2)].map(|(send, n)| spawn(move || send.send(n).is_ok()));
    settle();
    assert_eq!(receive.recv(), Ok(0));
    assert!(first.kill());
    assert!(first.join().unwrap_err().is_killed());
    assert!(second.join().unwrap());
    assert_eq!(receive.recv(), Ok(2));
    assert!(receive.recv().is_err());
}

#[test]
fn a_value_that_is_there_beats_the_time_that_is_over() {
    let _guard = common::guard();
    let limit = Duration::from_millis(5);
    let got = common::undisturbed(|| {
        let (send, receive) = channel(None);
        let begin = Instant::now();
        let receiver = spawn(move || receive.recv_timeout(limit));
        settle();
        let waits = begin.elapsed() < limit;
        common::hog_until(begin + 4 * limit);
        let _ = send.send(1);
        let got = receiver.join().unwrap();
        waits.then_some(got)
    });
    assert_eq!(got, Ok(1));
}

#[test]
fn a_closed_channel_gives_what_is_in_it_and_takes_nothing() {
    let _guard = common::guard();
    let (send, receive) = channel(Some(2));
    assert_eq!((send.len(), send.capacity(), receive.is_empty(), send.is_open()), (0, Some(2), true, true));
    send.send(1).unwrap();
    send.send(2).unwrap();
    assert_eq!(send.send_timeout(3, Duration::from_millis(1)), Err(SendTimeoutError::Timeout(3)));
    let (waiting, closer) = (send.clone(), receive.clone());
    let full = spawn(move || waiting.send(4));
    settle();
    let os = std::thread::spawn(move || closer.close());
    assert_eq!(full.join().unwrap().unwrap_err().0, 4, "who waits is told");
    os.join().unwrap();
    assert_eq!(send.try_send(5), Err(TrySendError::Disconnected(5)));
    assert_eq!(send.send_timeout(6, HOUR), Err(SendTimeoutError::Disconnected(6)));
    assert!(!receive.is_open() && receive.try_iter().eq([1, 2]) && receive.into_iter().next().is_none());
    assert!(send.send(7).is_err());
    // And with a receiver that waits, and a destructor that uses the channel.
    let (send, receive) = channel::<Arc<()>>(None);
    assert_eq!(send.capacity(), None);
    let value = Arc::new(());
    send.send(Arc::clone(&value)).unwrap();
    send.close_and_discard();
    assert_eq!((Arc::strong_count(&value), receive.recv().is_err()), (1, true));
    let (send, receive) = channel::<u8>(None);
    let waits = spawn(move || receive.recv());
    settle();
    send.close();
    assert!(waits.join().unwrap().is_err());
}

#[test]
fn a_limited_wait_of_a_caller_that_unwinds_times_out_at_once() {
    let _guard = common::guard();
    let (send, receive) = channel::<u8>(Some(1));
    let said = Rc::new(Cell::new(None));
    let theirs = Rc::clone(&said);
    let victim = spawn(move || {
        let _late = OnDrop::new(move || theirs.set(Some(receive.recv_timeout(HOUR))));
        park();
    });
    settle();
    victim.kill();
    assert!(victim.join().unwrap_err().is_killed());
    assert_eq!(said.take(), Some(Err(RecvTimeoutError::Timeout)), "the sender is still there");
    drop(send);
}

#[test]
#[should_panic(expected = "room for a value")]
fn a_channel_without_room_is_refused() {
    drop(channel::<u8>(Some(0)));
}

/// Several OS threads, each with green threads that send and receive in random steps; some are killed on the way. No
/// value is lost or doubled, and nobody sleeps over a value.
#[test]
fn no_wake_up_is_lost_between_hubs() {
    let _guard = common::guard();
    let mut random = Random::new();
    for _ in 0..10 {
        let capacity = [None, Some(1), Some(1 + random.below(8) as usize)][random.below(3) as usize];
        let (send, receive) = channel(capacity);
        let messages = 400;
        let senders: Vec<_> = (0..2_u64)
            .map(|os| {
                let (send, mut random) = (send.clone(), random.fork());
                std::thread::spawn(move || {
                    let threads: Vec<_> = (0..3_u64)
                        .map(|thread| {
                            let (send, mut random) = (send.clone(), random.fork());
                            spawn(move || {
                                for n in 0..messages {
                                    send.send((os * 3 + thread) * messages + n).unwrap();
                                    if random.below(4) == 0 {
                                        yield_now();
                                    }
                                }
                            })
                        })
                        .collect();
                    drop(send);
                    for thread in threads {
                        // A spurious wake-up now and then.
                        if random.below(2) == 0 {
                            thread.thread().unpark();
                        }
                        thread.join().unwrap();
                    }
                })
            })
            .collect();
        drop(send);
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                let (receive, mut random) = (receive.clone(), random.fork());
                std::thread::spawn(move || {
                    let threads: Vec<_> = (0..3)
                        .map(|_| {
                            let (receive, mut random) = (receive.clone(), random.fork());
                            spawn(move || {
                                let mut got = Vec::new();
                                loop {
                                    // Waits that are given up again and again.
                                    let patience = Duration::from_micros(random.below(50));
                                    let value = match random.below(3) {
                                        0 => receive.recv().map_err(|_| RecvTimeoutError::Disconnected),
                                        _ => receive.recv_timeout(patience),
                                    };
                                    match value {
                                        Ok(value) => got.push(value),
                                        Err(RecvTimeoutError::Timeout) => {}
                                        Err(RecvTimeoutError::Disconnected) => return got,
                                    }
                                }
                            })
                        })
                        .collect();
                    drop(receive);
                    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<u64>>()
                })
            })
            .collect();
        drop(receive);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let mut all: Vec<u64> = receivers.into_iter().flat_map(|receiver| receiver.join().unwrap()).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..6 * messages));
    }
}

#[test]
fn messages_go_back_and_forth_between_two_hubs() {
    let _guard = common::guard();
    let (there, from_here) = channel(Some(1));
    let (back, from_there) = channel(Some(1));
    let other = Other::start();
    let echo = other.handle.spawn(move || {
        for n in &from_here {
            back.send(n + 1).unwrap();
        }
    });
    for n in 0..2000_u64 {
        there.send(n).unwrap();
        assert_eq!(from_there.recv(), Ok(n + 1));
    }
    drop(there);
    echo.join().unwrap();
    other.end();
}

// ---- many hubs ------------------------------------------------------------------------------------------------------

#[test]
fn each_hub_returns_what_its_main_did_whatever_becomes_of_the_others() {
    let _guard = common::guard();
    let hubs = Hubs::new(4).name("worker").start(|index| {
        assert_eq!(std::thread::current().name(), Some(format!("worker-{index}").as_str()));
        match index {
            0 => sleep(Duration::from_millis(5)),
            1 => panic!("one of four"),
            2 => drop(spawn(|| sleep(HOUR))),
            // Nobody left who could wake it.
            _ => park(),
        }
        index
    });
    let results = hubs.unwrap().join();
    assert_eq!(results.len(), 4);
    assert_eq!(*results[0].as_ref().unwrap(), 0);
    assert_eq!(results[1].as_ref().unwrap_err().panic_message(), Some("one of four"));
    assert_eq!(*results[2].as_ref().unwrap(), 2);
    assert!(results[3].as_ref().unwrap_err().panic_message().unwrap().starts_with("deadlock"));
}

#[test]
fn hubs_can_be_started_and_joined_by_a_green_thread_while_others_run() {
    let _guard = common::guard();
    let (go, may_go) = channel::<()>(None);
    let joiner = spawn(move || Hubs::new(2).start(move |index| (index, may_go.recv().is_err())).unwrap().join());
    settle();
    // Main runs although the hubs have not ended: only it can end them.
    drop(go);
    let results: Vec<_> = joiner.join().unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(results, [(0, true), (1, true)]);
}

#[test]
fn zero_hubs_are_one_per_processor_and_pinned_ones_have_one_each() {
    let _guard = common::guard();
    let hubs = Hubs::new(0).pin(true).start(|_| {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        line.trim().to_owned()
    });
    let hubs = hubs.unwrap();
    assert_eq!(hubs.len(), std::thread::available_parallelism().unwrap().get());
    for result in hubs.join() {
        let processors = result.unwrap();
        assert!(processors.parse::<usize>().is_ok(), "more than one: {processors}");
    }
}

#[test]
fn four_hubs_take_a_thousand_remote_threads_each() {
    let _guard = common::guard();
    let (stop, stopped) = channel::<()>(None);
    let hubs = Hubs::new(4).start(move |_| assert!(stopped.recv().is_err())).unwrap();
    let threads: Vec<Vec<_>> = (0..4)
        .map(|hub| {
            let handle = hubs.handle(hub);
            let spawn = |n| {
                handle.spawn(move || {
                    yield_now();
                    (hub, n, std::thread::current().name().map(str::to_owned))
                })
            };
            (0..1000).map(spawn).collect()
        })
        .collect();
    for (hub, threads) in threads.into_iter().enumerate() {
        for (n, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), (hub, n, Some(format!("hub-{hub}"))));
        }
    }
    drop(stop);
    assert!(hubs.join().iter().all(Result::is_ok));
}

#[test]
fn hubs_spawn_on_each_other() {
    let _guard = common::guard();
    let (stop, stopped) = channel::<()>(None);
    let hubs = Hubs::new(2).start(move |_| assert!(stopped.recv().is_err())).unwrap();
    let (a, b) = (hubs.handle(0), hubs.handle(1));
    fn bounce(n: u32, to: HubHandle, back: HubHandle) -> u32 {
        if n == 0 {
            return 0;
        }
        1 + to
            .spawn({
                let to = to.clone();
                move || bounce(n - 1, back, to)
            })
            .join()
            .unwrap()
    }
    assert_eq!(bounce(100, a, b), 100);
    drop(stop);
    assert!(hubs.join().iter().all(Result::is_ok));
}

#[test]
fn listeners_of_several_hubs_share_a_port_and_all_connections_are_served() {
    let _guard = common::guard();
    let first = TcpListener::bind_reuse_port("127.0.0.1:0").unwrap();
    let addr = first.local_addr().unwrap();
    assert!(TcpListener::bind(addr).is_err(), "not without the option");
    let (stop, stopped) = channel::<()>(None);
    let hubs = Hubs::new(3).start(move |_| {
        let listener = TcpListener::bind_reuse_port(addr).unwrap();
        let listener = Rc::new(listener);
        let accepting = Rc::clone(&listener);
        let acceptor = spawn(move || {
            let mut served = 0;
            while let Ok((mut stream, _)) = accepting.accept() {
                served += 1;
                drop(spawn(move || {
                    let mut byte = [0];
                    while stream.read(&mut byte).unwrap() == 1 {
                        stream.write_all(&byte).unwrap();
                    }
                }));
            }
            served
        });
        assert!(stopped.recv().is_err());
        listener.close();
        acceptor.join().unwrap()
    });
    let hubs = hubs.unwrap();
    // Those whose handshake this one took are reset by its end.
    first.close();
    drop(first);
    let mut echoed = 0;
    while echoed < 60 {
        let Ok(mut stream) = TcpStream::connect(addr) else {
            // The hubs may not listen yet.
            sleep(Duration::from_millis(1));
            continue;
        };
        let mut byte = [7];
        if stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok() {
            echoed += 1;
        }
    }
    drop(stop);
    let served: u32 = hubs.join().into_iter().map(Result::unwrap).sum();
    assert!(served >= 60);
}
