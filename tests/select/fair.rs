//! Which arm of a `select!` is taken if several can go on: each as often as the others, wherever it stands, whatever
//! stands before it, before the wait and after. The draws are the same in every run, so the counts are, too.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::{self, OnDrop};
use greenling::channel::{self, Receiver, Sender};
use greenling::sim::{self, advance};
use greenling::sync::{Event, Semaphore, WaitGroup};
use greenling::time::now;
use greenling::{Select, hub, no_switch, select, spawn, yield_now};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Go's TestSelectFairness has as many.
const TRIALS: usize = 10_000;

/// Panics unless each count is what so many draws with equal chances give: within five standard deviations, and by the
/// sum of the squares.
fn assert_uniform(counts: &[usize]) {
    let (trials, kinds) = (counts.iter().sum::<usize>() as f64, counts.len() as f64);
    let expected = trials / kinds;
    let deviation = (expected * (1.0 - 1.0 / kinds)).sqrt();
    let square: f64 = counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    for &count in counts {
        assert!((count as f64 - expected).abs() < 5.0 * deviation, "{counts:?}");
    }
    // Its mean is the degrees of freedom, and its variance twice that.
    let freedom = kinds - 1.0;
    assert!(square < freedom + 5.0 * (2.0 * freedom).sqrt(), "{counts:?}: chi-square {square}");
}

/// A channel that holds enough for all trials.
fn full() -> (Sender<usize>, Receiver<usize>) {
    let ends = channel::unbounded();
    (0..=TRIALS).for_each(|n| ends.0.send(n).unwrap());
    ends
}

/// Counts what `draw` says, many times.
fn count<const KINDS: usize>(mut draw: impl FnMut() -> usize) -> [usize; KINDS] {
    let mut counts = [0; KINDS];
    for _ in 0..TRIALS {
        counts[draw()] += 1;
    }
    counts
}

#[test]
fn idle_arms_in_front_of_ready_ones_change_no_chances() {
    let _guard = common::guard();
    let (a, b) = (full().1, full().1);
    let idle: Vec<_> = (0..14).map(|_| channel::unbounded::<()>()).collect();
    let idle: Vec<_> = idle.iter().map(|(_, receive)| receive).collect();
    assert_uniform(&count::<2>(|| select! { recv(a) -> _ => 0, recv(b) -> _ => 1 }));
    let (a, b) = (full().1, full().1);
    assert_uniform(&count::<2>(|| select! { recv(idle[0]) -> _ => 9, recv(a) -> _ => 0, recv(b) -> _ => 1 }));
    let (a, b) = (full().1, full().1);
    assert_uniform(&count::<2>(|| {
        select! {
            recv(idle[0]) -> _ => 9, recv(idle[1]) -> _ => 9, recv(idle[2]) -> _ => 9,
            recv(a) -> _ => 0,
            recv(b) -> _ => 1,
        }
    }));
    let (a, b) = (full().1, full().1);
    assert_uniform(&count::<2>(|| {
        select! {
            recv(idle[0]) -> _ => 9, recv(idle[1]) -> _ => 9, recv(idle[2]) -> _ => 9, recv(idle[3]) -> _ => 9,
            recv(idle[4]) -> _ => 9, recv(idle[5]) -> _ => 9, recv(idle[6]) -> _ => 9, recv(idle[7]) -> _ => 9,
            recv(idle[8]) -> _ => 9, recv(idle[9]) -> _ => 9, recv(idle[10]) -> _ => 9, recv(idle[11]) -> _ => 9,
            recv(idle[12]) -> _ => 9, recv(idle[13]) -> _ => 9,
            recv(a) -> _ => 0,
            recv(b) -> _ => 1,
        }
    }));
    // Between the two, and around them.
    let (a, b) = (full().1, full().1);
    assert_uniform(&count::<2>(|| {
        select! {
            recv(a) -> _ => 0,
            recv(idle[0]) -> _ => 9, recv(idle[1]) -> _ => 9,
            recv(b) -> _ => 1,
            recv(idle[2]) -> _ => 9,
        }
    }));
    let (a, b) = (full().1, full().1);
    assert_uniform(&count::<2>(|| {
        select! { after(LONG) => 9, recv(idle[0]) -> _ => 9, recv(a) -> _ => 0, recv(b) -> _ => 1, default => 9 }
    }));
}

#[test]
fn arms_of_all_kinds_have_the_same_chance() {
    let _guard = common::guard();
    let (event, group, semaphore) = (Event::new(), WaitGroup::new(), Semaphore::new(1));
    event.set();
    let (never, over) = (Event::new(), Instant::now());
    let (send, receive) = full();
    let counts = count::<6>(|| {
        select! {
            wait(never) => 9,
            wait(event) => 0,
            wait(group) => 1,
            wait(semaphore) => 2,
            recv(receive) -> _ => 3,
            send(send, 1) -> _ => 4,
            at(over) => 5,
            default => 9,
        }
    });
    assert_uniform(&counts);
}

#[test]
fn all_ready_arms_have_the_same_chance_also_in_a_set() {
    let _guard = common::guard();
    const ARMS: usize = 100;
    let ready: Vec<_> = (0..ARMS).map(|_| Event::new()).collect();
    ready.iter().step_by(3).for_each(Event::set);
    let counts = count::<ARMS>(|| {
        let mut select = Select::new();
        ready.iter().enumerate().for_each(|(n, event)| select.wait(event, move |()| n));
        select.select()
    });
    let (set, idle): (Vec<_>, Vec<_>) = counts.iter().enumerate().partition(|(n, _)| n % 3 == 0);
    assert!(idle.iter().all(|(_, count)| **count == 0), "{idle:?}");
    assert_uniform(&set.into_iter().map(|(_, count)| *count).collect::<Vec<_>>());
}

/// Runs `wait` in a thread of its own, over and over, and `happen` each time it waits. Counts what `wait` says.
fn after_a_wake_up<const KINDS: usize>(wait: impl Fn() -> usize + 'static, happen: impl Fn()) -> [usize; KINDS] {
    let counts = Rc::new(RefCell::new([0; KINDS]));
    let theirs = Rc::clone(&counts);
    let thread = spawn(move || {
        for _ in 0..TRIALS {
            let number = wait();
            theirs.borrow_mut()[number] += 1;
        }
    });
    while !thread.is_finished() {
        yield_now();
        // As one event: what is second must not find that the first has been served.
        no_switch(&happen);
    }
    thread.join().unwrap();
    counts.replace([0; KINDS])
}

#[test]
fn after_a_wake_up_the_choice_is_as_fair_as_before_the_wait() {
    let _guard = common::guard();
    // A broadcast wakes all that wait, and they look: at two of them, beside a channel that stays empty.
    let ends: Vec<_> = (0..2).map(|_| channel::broadcast::<()>(1)).collect();
    let (sends, receivers): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let idle = channel::unbounded::<()>();
    let wait = move || {
        let number = select! {
            recv(idle.1) -> _ => 9,
            after(LONG) => 9,
            recv(receivers[0]) -> _ => 0,
            recv(receivers[1]) -> _ => 1,
        };
        // The other one is read too, so that the next wait is one.
        receivers.iter().for_each(|receiver| _ = receiver.try_recv());
        number
    };
    assert_uniform(&after_a_wake_up::<2>(wait, || sends.iter().for_each(|send| _ = send.send(()))));
}

#[test]
fn ends_of_channels_that_come_together_have_the_same_chance() {
    let _guard = common::guard();
    let ends = Rc::new(RefCell::new(Vec::new()));
    let theirs = Rc::clone(&ends);
    let wait = move || {
        let channels: Vec<_> = (0..4).map(|_| channel::unbounded::<()>()).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        theirs.replace(senders);
        select! {
            recv(receivers[0]) -> _ => 0,
            recv(receivers[1]) -> _ => 1,
            recv(receivers[2]) -> _ => 2,
            recv(receivers[3]) -> _ => 3,
        }
    };
    assert_uniform(&after_a_wake_up::<4>(wait, || drop(ends.take())));
}

#[test]
fn a_channel_in_several_arms_goes_on_with_each_of_them_as_often() {
    let _guard = common::guard();
    let ready = full().1;
    assert_uniform(&count::<3>(|| {
        select! { recv(ready) -> _ => 0, recv(ready) -> _ => 1, recv(ready) -> _ => 2 }
    }));
    // A sender takes the receiver out of the line, and with it one of its arms.
    let (send, receive) = channel::unbounded();
    let wait = move || {
        select! {
            recv(receive) -> _ => 0,
            recv(receive) -> _ => 1,
            recv(receive) -> _ => 2,
            recv(receive) -> _ => 3,
        }
    };
    assert_uniform(&after_a_wake_up::<4>(wait, || _ = send.send(())));
    // A receiver takes the sender out, and with it one of its values.
    for capacity in [0, 1] {
        let (send, receive) = channel::bounded(capacity);
        (0..capacity).for_each(|_| send.send(9).unwrap());
        let got = Rc::new(RefCell::new([0; 3]));
        let sent = after_a_wake_up::<3>(
            move || {
                select! {
                    send(send, 0) -> _ => 0,
                    send(send, 1) -> _ => 1,
                    send(send, 2) -> _ => 2,
                }
            },
            || {
                if let Ok(number @ 0..3) = receive.try_recv() {
                    got.borrow_mut()[number] += 1;
                }
            },
        );
        receive.try_iter().for_each(|number| got.borrow_mut()[number] += 1);
        assert_uniform(&sent);
        assert_eq!(*got.borrow(), sent, "with capacity {capacity}");
    }
}

#[test]
fn an_event_and_a_semaphore_in_several_arms_choose_each_of_them_as_often() {
    let _guard = common::guard();
    let event = Rc::new(Event::auto_reset());
    let theirs = Rc::clone(&event);
    let wait = move || select! { wait(theirs) => 0, wait(theirs) => 1 };
    assert_uniform(&after_a_wake_up::<2>(wait, || event.set()));
    let semaphore = Rc::new(Semaphore::new(0));
    let theirs = Rc::clone(&semaphore);
    let wait = move || {
        select! {
            wait(theirs) -> permit => { permit.forget(); 0 }
            wait(theirs) -> permit => { permit.forget(); 1 }
            wait(theirs) -> permit => { permit.forget(); 2 }
        }
    };
    assert_uniform(&after_a_wake_up::<3>(wait, || semaphore.release().unwrap()));
}

#[test]
fn a_channel_between_hubs_in_several_arms_goes_on_with_each_of_them_as_often() {
    let _guard = common::guard();
    let (send, receive) = hub::channel(None);
    let wait = move || select! { recv(receive) -> _ => 0, recv(receive) -> _ => 1, recv(receive) -> _ => 2 };
    assert_uniform(&after_a_wake_up::<3>(wait, || _ = send.send(())));
}

#[test]
fn timers_of_the_same_instant_have_the_same_chance_and_earlier_ones_go_first() {
    let _guard = common::guard();
    let counts = sim::run(1, || {
        let mut counts = [0; 3];
        for _ in 0..300 {
            let soon = now() + Duration::from_micros(100);
            // Two arms of one time are looked at in an order that is drawn.
            let number = select! {
                at(soon + Duration::from_micros(10)) => 2,
                at(soon) => 0,
                at(soon) => 1,
            };
            counts[number] += 1;
        }
        counts
    });
    assert!(counts[0] + counts[1] == 300 && counts[0].min(counts[1]) > 90, "{counts:?}");
}

#[test]
fn what_came_in_time_goes_before_a_timer_that_is_over_as_well() {
    let _guard = common::guard();
    common::in_virtual_time(|| {
        for _ in 0..20 {
            let (send, receive) = channel::broadcast(1);
            let soon = now() + Duration::from_micros(500);
            let thread = spawn(move || select! { at(soon) => false, recv(receive) -> _ => true });
            yield_now();
            send.send(()).unwrap();
            advance(Duration::from_micros(700));
            assert!(thread.join().unwrap(), "it was woken by the value");
        }
    });
}

#[test]
fn biased_takes_the_first_in_all_these_cases() {
    let _guard = common::guard();
    let (a, b, idle) = (full().1, full().1, channel::unbounded::<usize>());
    let counts = count::<2>(|| {
        select! { biased; recv(idle.1) -> _ => 9, recv(a) -> _ => 0, recv(b) -> _ => 1 }
    });
    assert_eq!(counts, [TRIALS, 0]);
    // After a wake-up.
    let ends: Vec<_> = (0..3).map(|_| channel::broadcast::<()>(1)).collect();
    let (sends, receivers): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let wait = move || {
        let number = select! {
            biased;
            after(LONG) => 9,
            recv(receivers[2]) -> _ => 0,
            recv(receivers[0]) -> _ => 1,
            recv(receivers[1]) -> _ => 2,
        };
        no_switch(|| receivers.iter().for_each(|receiver| _ = receiver.try_recv()));
        number
    };
    let counts = after_a_wake_up::<3>(wait, || no_switch(|| sends.iter().for_each(|send| _ = send.send(()))));
    assert_eq!(counts, [TRIALS, 0, 0]);
    // One channel in several arms, on both sides.
    let (send, receive) = channel::unbounded();
    let wait = move || select! { biased; recv(receive) -> _ => 0, recv(receive) -> _ => 1, recv(receive) -> _ => 2 };
    assert_eq!(after_a_wake_up::<3>(wait, || _ = send.send(())), [TRIALS, 0, 0]);
    let (send, receive) = channel::rendezvous();
    let wait = move || select! { biased; send(send, 0) -> _ => 0, send(send, 1) -> _ => 1 };
    assert_eq!(after_a_wake_up::<2>(wait, || _ = receive.try_recv()), [TRIALS, 0]);
    let (send, receive) = hub::channel(None);
    let wait = move || select! { biased; recv(receive) -> _ => 0, recv(receive) -> _ => 1 };
    assert_eq!(after_a_wake_up::<2>(wait, || _ = send.send(())), [TRIALS, 0]);
    // In a set the first is the one that was added first.
    let (ready, event) = (full().1, Event::new());
    let counts = count::<2>(|| {
        let mut select = Select::biased();
        select.wait(&event, |()| 9);
        select.recv(&ready, |_| 0);
        select.recv(&ready, |_| 1);
        select.select()
    });
    assert_eq!(counts, [TRIALS, 0]);
}

/// The rule for different channels that a sender each finds a receiver in: a sender is told at once that its value is
/// taken.
#[test]
fn the_arm_that_is_chosen_first_stays_chosen() {
    let _guard = common::guard();
    let (first, second) = (channel::rendezvous(), channel::rendezvous());
    let (sends, receivers) = ((first.0, second.0), (first.1, second.1));
    let wait = move || {
        select! {
            recv(receivers.0) -> number => number.unwrap(),
            recv(receivers.1) -> number => number.unwrap(),
        }
    };
    let counts = after_a_wake_up::<2>(wait, || {
        let (sent, refused) = no_switch(|| (sends.1.try_send(1), sends.0.try_send(0)));
        assert!(sent.is_err() || refused.is_err(), "one receiver takes one value");
    });
    assert_eq!(counts, [0, TRIALS]);
}

#[test]
fn a_select_that_may_not_wait_is_fair_too() {
    let _guard = common::guard();
    let (a, b) = (full().1, full().1);
    let counts = Rc::new(RefCell::new([0; 2]));
    let theirs = Rc::clone(&counts);
    let thread = spawn(move || {
        let _late = OnDrop::new(move || {
            let idle = channel::unbounded::<usize>();
            *theirs.borrow_mut() =
                count::<2>(|| select! { recv(idle.1) -> _ => 9, recv(a) -> _ => 0, recv(b) -> _ => 1 });
        });
        std::panic::resume_unwind(Box::new("down"));
    });
    assert!(thread.join().is_err());
    assert_uniform(&*counts.borrow());
}
