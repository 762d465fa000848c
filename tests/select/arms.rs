//! What may stand in a `select!` beside channels of the hub, events, threads and sockets: each arm yields what its call yields,
//! and a loser has taken nothing. (The rules of `select!` itself are in `promises.rs`.)
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::process::Stdio;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{self, Log, Random, settle};
use greenling::hub::{self, RemoteReceiver, RemoteSender};
use greenling::io::{Registered, stdin};
use greenling::process::Command;
use greenling::signal::{SIGUSR1, Signals};
use greenling::sync::{AsyncResult, Event, Semaphore, WaitGroup};
use greenling::time::interval;
use greenling::{blocking, channel, no_switch, select, sleep, spawn, timeout, yield_now};
use nix::sys::signal::{Signal, raise};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(5);

#[test]
fn results_groups_and_permits_can_be_arms() {
    let _guard = common::guard();
    let all = Rc::new((AsyncResult::<u32, String>::new(), WaitGroup::new(), Semaphore::new(0)));
    all.1.add(1);
    let first = {
        let all = Rc::clone(&all);
        move || {
            let (result, group, semaphore) = (&all.0, &all.1, &all.2);
            select! {
                wait(result) -> value => format!("{value:?}"),
                wait(group) => "done".to_owned(),
                wait(semaphore) -> permit => {
                    permit.forget();
                    "permit".to_owned()
                }
            }
        }
    };
    let waiter = spawn(first.clone());
    settle();
    assert!(!waiter.is_finished());
    all.2.release().unwrap();
    assert_eq!(waiter.join().unwrap(), "permit");
    let waiter = spawn(first.clone());
    settle();
    all.1.done();
    assert_eq!(waiter.join().unwrap(), "done");
    all.1.add(1);
    let waiter = spawn(first.clone());
    settle();
    all.0.set_error("late".to_owned()).unwrap();
    assert_eq!(waiter.join().unwrap(), "Err(\"late\")");
    assert_eq!(first(), "Err(\"late\")", "without waiting");
}

#[test]
fn a_permit_that_a_dying_select_was_given_goes_to_the_next() {
    let _guard = common::guard();
    let (semaphore, log) = (Rc::new(Semaphore::new(0)), Log::default());
    let threads: Vec<_> = (0..3)
        .map(|n| {
            let (semaphore, log) = (Rc::clone(&semaphore), log.clone());
            spawn(move || {
                select! {
                    wait(semaphore) -> permit => {
                        log.say(n);
                        permit.forget();
                    }
                    after(LONG) => panic!("too late"),
                }
            })
        })
        .collect();
    settle();
    semaphore.release().unwrap();
    threads[0].kill();
    settle();
    assert_eq!(log.text(), "1");
    semaphore.release().unwrap();
    settle();
    assert_eq!((log.text().as_str(), semaphore.available_permits()), ("1 2", 0));
}

#[test]
fn a_tick_is_taken_only_by_the_arm_that_wins() {
    let _guard = common::guard();
    let mut ticks = interval(SHORT);
    let start = ticks.tick();
    let event = Event::new();
    event.set();
    let won = select! {
        biased;
        wait(event) => "event",
        tick(ticks) => "tick",
    };
    assert_eq!((won, ticks.next_tick()), ("event", start + SHORT));
    event.clear();
    let due = select! {
        wait(event) => None,
        tick(ticks) -> due => Some(due),
    };
    assert_eq!((due, ticks.next_tick() - start), (Some(start + SHORT), 2 * SHORT));
    assert!(Instant::now() >= start + SHORT);
}

#[test]
fn descriptors_of_other_libraries_can_be_arms() {
    let _guard = common::guard();
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let near = Registered::new(near).unwrap();
    let first = || select! { readable(near) -> ready => ready.is_ok(), after(SHORT) => false };
    assert!(!first());
    let writer = spawn(move || {
        far.write_all(b"x").unwrap();
        far
    });
    assert!(first());
    let _far = writer.join().unwrap();
    assert!(select! { writable(near) -> ready => ready.is_ok(), after(LONG) => false });
}

#[test]
fn the_end_of_a_child_is_told_to_all_its_waiters() {
    let _guard = common::guard();
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            let handle = child.handle();
            spawn(move || {
                select! {
                    wait(handle) -> status => status.unwrap().success(),
                    after(LONG) => false,
                }
            })
        })
        .collect();
    assert!(!select! { wait(child) -> _ => true, after(SHORT) => false }, "its input is open");
    drop(child.stdin.take());
    for waiter in waiters {
        assert!(waiter.join().unwrap());
    }
    assert!(select! { wait(child) -> status => status.unwrap().success(), default => false });
}

#[test]
fn signals_are_received_beside_other_things() {
    let _guard = common::guard();
    let signals = Signals::new([SIGUSR1]).unwrap();
    let (send, receive) = channel::unbounded();
    let next = || {
        select! {
            biased;
            recv(receive) -> value => value.unwrap(),
            recv(signals) -> signal => signal.unwrap().number(),
            after(SHORT) => 0,
        }
    };
    raise(Signal::SIGUSR1).unwrap();
    send.send(-1).unwrap();
    assert_eq!((next(), next(), next()), (-1, SIGUSR1, 0), "the loser had taken no signal");
    let late = spawn(|| raise(Signal::SIGUSR1).unwrap());
    assert_eq!(select! { recv(signals) -> signal => signal.unwrap().number(), after(LONG) => 0 }, SIGUSR1);
    late.join().unwrap();
}

#[test]
fn input_is_waited_for_beside_other_things() {
    let _guard = common::guard();
    const ROLE: &str = "GREENLING_SELECT_STDIN";
    const NAME: &str = "arms::input_is_waited_for_beside_other_things";
    if std::env::var_os(ROLE).is_some() {
        let mut input = stdin().lock();
        let mut lines = Vec::new();
        let mut pauses = 0;
        loop {
            select! {
                readable(input) -> ready => {
                    ready.unwrap();
                    let mut line = String::new();
                    if input.read_line(&mut line).unwrap() == 0 {
                        break;
                    }
                    lines.push(line);
                }
                after(Duration::from_millis(20)) => pauses += 1,
            }
        }
        assert_eq!(lines, ["one\n", "two\n", "three"], "also what was in the buffer");
        assert!(pauses > 0, "it waited for the second piece");
        std::process::exit(0);
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(ROLE, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    input.write_all(b"three").unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn threads_of_both_kinds_of_scopes_can_be_joined_in_a_select() {
    let _guard = common::guard();
    let sum = greenling::thread::scope(|s| {
        let one = s.spawn(|| 1);
        select! { join(one) -> result => result.unwrap(), after(LONG) => 0 }
    });
    let failed = greenling::thread::try_scope(|s| {
        let two = s.spawn(|| Ok(2));
        let sum = sum + select! { join(two) -> result => result.unwrap(), after(LONG) => 0 };
        let never = s.spawn(move || {
            sleep(SHORT);
            Err::<(), _>(sum)
        });
        select! { end(never) => unreachable!("the failure interrupts the body"), after(LONG) => Ok(()) }
    });
    assert_eq!(failed, Err(3));
}

// ---- between hubs ---------------------------------------------------------------------------------------------------

#[test]
fn values_come_from_and_go_to_other_os_threads() {
    let _guard = common::guard();
    let (send, receive) = hub::channel::<u32>(None);
    let (back, answers) = hub::channel::<u32>(Some(1));
    let stop = Event::new();
    let os = std::thread::spawn(move || {
        for n in 0..100 {
            send.send(n).unwrap();
        }
        drop(send);
        answers.iter().sum::<u32>()
    });
    let mut pending = None;
    loop {
        select! {
            wait(stop) => panic!("never set"),
            send_from(back, pending) -> sent => sent.unwrap(),
            recv(receive) -> value => match value {
                Ok(value) => {
                    if let Some(earlier) = pending.replace(value) {
                        back.send(earlier).unwrap();
                    }
                }
                Err(_) => break,
            }
        }
    }
    if let Some(last) = pending {
        back.send(last).unwrap();
    }
    drop(back);
    assert_eq!(blocking(move || os.join().unwrap()), 4950);
}

#[test]
fn a_select_has_a_place_in_the_line_of_a_channel_between_hubs() {
    let _guard = common::guard();
    let (send, receive) = hub::channel::<u32>(None);
    let log = Log::default();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let (receive, log) = (receive.clone(), log.clone());
            spawn(move || {
                let value = match n % 2 {
                    0 => receive.recv(),
                    _ => select! { recv(receive) -> value => value, after(LONG) => panic!("too late") },
                };
                log.say(format!("{n}:{}", value.unwrap()));
            })
        })
        .collect();
    settle();
    // The turn of one that dies goes to the next, also after it has come.
    no_switch(|| (0..2).for_each(|n| send.send(n).unwrap()));
    threads[1].kill();
    settle();
    assert_eq!(log.text(), "0:0 2:1");
    send.send(2).unwrap();
    settle();
    assert_eq!(log.text(), "0:0 2:1 3:2");
}

#[test]
fn losers_leave_the_lines_of_a_channel_between_hubs() {
    let _guard = common::guard();
    let (send, receive) = hub::channel::<u32>(Some(1));
    let event = Event::auto_reset();
    for _ in 0..3 {
        event.set();
        select! { biased; wait(event) => (), recv(receive) -> _ => panic!("nothing was sent") }
        assert!(!select! { recv(receive) -> _ => true, after(Duration::from_millis(1)) => false });
    }
    send.send(1).unwrap();
    assert_eq!(receive.try_recv(), Ok(1), "no other waiter is before it in the queue");
    send.send(2).unwrap();
    assert!(!select! { send(send, 3) -> _ => true, after(Duration::from_millis(1)) => false });
    assert_eq!(receive.recv(), Ok(2));
    send.try_send(4).expect("no other waiter is before it in the queue");
    let mut slot = Some(5);
    assert!(!select! { send_from(send, slot) -> _ => true, after(Duration::from_millis(1)) => false });
    assert_eq!(slot, Some(5), "the value is back");
    drop(receive);
    let refused = select! { send_from(send, slot) -> sent => sent.unwrap_err().0, after(LONG) => 0 };
    assert_eq!((refused, slot), (5, None));
}

#[test]
fn a_thread_of_another_hub_can_be_joined_in_a_select() {
    let _guard = common::guard();
    let (stop, stopped) = hub::channel::<()>(None);
    let (send, receive) = std::sync::mpsc::channel();
    let os = std::thread::spawn(move || {
        send.send(hub::handle()).unwrap();
        drop(send);
        let _ = stopped.recv();
    });
    let there = receive.recv().unwrap();
    let (go, gone) = hub::channel::<u32>(None);
    let thread = there.spawn(move || gone.recv().unwrap());
    assert!(!select! { end(thread) => true, after(SHORT) => false });
    let shared = &thread;
    greenling::thread::scope(|s| {
        // Several may wait for the end of one.
        let ends: Vec<_> = (0..3).map(|_| s.spawn(|| select! { end(shared) => true, after(LONG) => false })).collect();
        settle();
        go.send(7).unwrap();
        assert!(ends.into_iter().all(|end| end.join().unwrap()));
    });
    assert_eq!(select! { join(thread) -> result => result.unwrap(), after(LONG) => 0 }, 7);
    drop((stop, there));
    os.join().unwrap();
}

/// Three hubs that send and receive through `select!`s with other arms, of which some are killed and some time out. Each value
/// arrives once.
#[test]
fn no_value_is_lost_or_doubled_by_selects_between_hubs() {
    let _guard = common::guard();
    const HUBS: usize = 3;
    const EACH: usize = 400;
    let seed = Random::new().below(1 << 30);
    let (send, receive) = hub::channel::<usize>(Some(4));
    let (sent, got) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(BTreeSet::new())));
    let over = Arc::new(AtomicBool::new(false));
    let hubs: Vec<_> = (0..HUBS)
        .map(|hub| {
            let (send, receive, sent, got) = (send.clone(), receive.clone(), Arc::clone(&sent), Arc::clone(&got));
            let over = Arc::clone(&over);
            std::thread::spawn(move || one_hub(hub, seed, EACH, &send, receive, &sent, &got, &over))
        })
        .collect();
    drop((send, receive));
    for hub in hubs {
        blocking(move || hub.join().unwrap());
    }
    assert_eq!(got.lock().unwrap().len(), sent.load(Ordering::SeqCst));
    assert_eq!(sent.load(Ordering::SeqCst), HUBS * EACH);
}

/// A sender whose values all arrive, and receivers that come and go.
#[allow(clippy::too_many_arguments)]
fn one_hub(
    hub: usize,
    seed: u64,
    each: usize,
    send: &RemoteSender<usize>,
    receive: RemoteReceiver<usize>,
    sent: &AtomicUsize,
    got: &Arc<Mutex<BTreeSet<usize>>>,
    over: &AtomicBool,
) {
    let random = Rc::new(RefCell::new(seed.wrapping_add(hub as u64) | 1));
    let below = move |limit: u64| {
        let mut state = random.borrow_mut();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 20) % limit
    };
    let done = Rc::new(Cell::new(false));
    let finished = Rc::clone(&done);
    let receivers = spawn({
        let (receive, got, below) = (receive, Arc::clone(got), below.clone());
        move || {
            while !finished.get() {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        let (receive, got) = (receive.clone(), Arc::clone(&got));
                        let limit = Duration::from_micros(below(400));
                        spawn(move || {
                            select! {
                                recv(receive) -> value => if let Ok(value) = value {
                                    assert!(got.lock().unwrap().insert(value), "{value} came twice");
                                },
                                after(limit) => (),
                            }
                        })
                    })
                    .collect();
                yield_now();
                threads[below(4) as usize].kill();
                for thread in threads {
                    let _ = thread.join();
                }
            }
        }
    });
    for n in 0..each {
        let mut value = Some(hub * each + n);
        while value.is_some() {
            let limit = Duration::from_micros(below(200));
            // A timeout of the whole select! and one of an arm.
            let _ = timeout(Duration::from_micros(50 + below(400)), || {
                select! {
                    send_from(send, value) -> outcome => outcome.unwrap(),
                    after(limit) => (),
                }
            });
        }
        sent.fetch_add(1, Ordering::SeqCst);
    }
    let until = Instant::now() + Duration::from_secs(30);
    while !over.load(Ordering::SeqCst) && Instant::now() < until {
        sleep(Duration::from_millis(1));
        if got.lock().unwrap().len() == 3 * each {
            over.store(true, Ordering::SeqCst);
        }
    }
    done.set(true);
    receivers.join().unwrap();
}
