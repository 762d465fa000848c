//! Channels of std and of crates, both ends in threads of one kind.

use std::sync::{Arc, mpsc};

use greenling_crates::{MANY, Meeting, Threads, patched_with_locks};

/// Two ends of a channel, as closures.
type Ends = (Box<dyn Fn(usize) + Send>, Box<dyn Fn() -> usize + Send>);

/// Makes the two ends of a channel.
macro_rules! ends {
    ($channel:expr) => {
        || -> Ends {
            let (sender, receiver) = $channel;
            (Box::new(move |n| sender.send(n).unwrap()), Box::new(move || receiver.recv().unwrap()))
        }
    };
}

/// How often each pair says something and is answered.
const ROUNDS: usize = 20;

/// Lets all wait for a message at once, which comes when all are there; and each then talks to a partner of its own.
fn talks(threads: Threads, channel: fn() -> Ends) -> Vec<usize> {
    let meeting = Arc::new(Meeting::default());
    threads.many(move |number| {
        let ((ask, asked), (answer, answered)) = (channel(), channel());
        let all_wait = Arc::clone(&meeting);
        let partner = threads.spawn(move || {
            all_wait.await_all();
            answer(0);
            (0..ROUNDS).for_each(|_| answer(asked() * 2));
        });
        meeting.come();
        let mut sum = answered();
        for round in 0..ROUNDS {
            ask(number + round);
            sum += answered();
        }
        partner.join();
        sum
    })
}

/// Checks that they talk as on OS threads.
fn carries(channel: fn() -> Ends) {
    let _guard = patched_with_locks();
    let sums = talks(Threads::Own, channel);
    assert_eq!(sums, talks(Threads::Os, channel));
    assert_eq!(sums[7], (7..7 + ROUNDS).map(|n| n * 2).sum::<usize>());
}

#[test]
fn std_channels_carry_between_threads_of_one_os_thread() {
    carries(ends!(mpsc::channel()));
    carries(ends!(mpsc::sync_channel(1)));
    carries(ends!(mpsc::sync_channel(0)));
}

#[test]
fn crossbeam_channels_carry_between_threads_of_one_os_thread() {
    carries(ends!(crossbeam_channel::unbounded()));
    carries(ends!(crossbeam_channel::bounded(1)));
    carries(ends!(crossbeam_channel::bounded(0)));
}

#[test]
fn flume_channels_carry_between_threads_of_one_os_thread() {
    carries(ends!(flume::unbounded()));
    carries(ends!(flume::bounded(1)));
    carries(ends!(flume::bounded(0)));
}

/// All wait in `select!` for one of two channels; the one with the message has it.
#[test]
fn crossbeam_select_waits_for_one_of_two() {
    let _guard = patched_with_locks();
    for threads in [Threads::Own, Threads::Os] {
        let meeting = Arc::new(Meeting::default());
        let numbers = threads.many(move |number| {
            let [(to_left, left), (to_right, right)] = [crossbeam_channel::bounded(0), crossbeam_channel::bounded(0)];
            let all_wait = Arc::clone(&meeting);
            let partner = threads.spawn(move || {
                all_wait.await_all();
                let way = if number % 2 == 0 { &to_left } else { &to_right };
                way.send(number).unwrap();
                (to_left, to_right)
            });
            meeting.come();
            let got = crossbeam_channel::select! {
                recv(left) -> value => ("left", value.unwrap()),
                recv(right) -> value => ("right", value.unwrap()),
            };
            partner.join();
            got
        });
        let expected = (0..MANY).map(|number| (if number % 2 == 0 { "left" } else { "right" }, number));
        assert!(numbers.iter().copied().eq(expected), "{numbers:?}");
    }
}
