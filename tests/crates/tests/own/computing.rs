//! Waiting for OS threads: `rayon`, `threadpool`, `std::thread`. What computes stays on OS threads; the green threads
//! that wait for it let each other run, which is why all of them get to ask.

use std::sync::{Arc, mpsc};

use greenling_crates::{MANY, Meeting, Threads, patched_with_locks};
use rayon::prelude::*;

/// Checks that all ask at once, and get what OS threads get.
fn alike(ask: impl Fn(usize, &Meeting) -> usize + Clone + Send + 'static) -> Vec<usize> {
    let _guard = patched_with_locks();
    let all = |threads: Threads| {
        let (meeting, ask) = (Arc::new(Meeting::default()), ask.clone());
        threads.many(move |number| ask(number, &meeting))
    };
    let got = all(Threads::Own);
    assert_eq!(got, all(Threads::Os));
    got
}

#[test]
fn rayon_pools_are_waited_for() {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(MANY).build().unwrap());
    let got = alike(move |number, meeting| {
        pool.install(|| {
            meeting.wait(); // each on an OS thread of the pool
            number * 2
        })
    });
    assert_eq!(got[7], 14);
}

#[test]
fn rayon_iterators_joins_and_scopes_give_what_they_give_on_os_threads() {
    let got = alike(|number, meeting| {
        meeting.come();
        let sum: usize = (0..1000 + number).into_par_iter().map(|n| n * n).sum();
        let (more, less) = rayon::join(|| number + 1, || number.wrapping_sub(1));
        let (sender, receiver) = mpsc::channel();
        rayon::scope(|scope| {
            for part in 0..3 {
                let sender = sender.clone();
                scope.spawn(move |_| sender.send(part * number).unwrap());
            }
        });
        drop(sender);
        meeting.await_all();
        sum.wrapping_add(more * 10).wrapping_add(less).wrapping_add(receiver.iter().sum())
    });
    let squares: usize = (0..1007).map(|n: usize| n * n).sum();
    assert_eq!(got[7], squares + 80 + 6 + 21);
}

#[test]
fn a_threadpool_is_waited_for_over_channels() {
    let pool = Arc::new(std::sync::Mutex::new(threadpool::ThreadPool::new(MANY)));
    let meetings = [(); 2].map(|()| Arc::new(Meeting::default()));
    let _guard = patched_with_locks();
    let [own, os] = [(Threads::Own, &meetings[0]), (Threads::Os, &meetings[1])].map(|(threads, meeting)| {
        let (pool, meeting) = (Arc::clone(&pool), Arc::clone(meeting));
        threads.many(move |number| {
            let ((sender, receiver), meeting) = (mpsc::channel(), Arc::clone(&meeting));
            pool.lock().unwrap().execute(move || {
                meeting.wait();
                sender.send(number * 3).unwrap();
            });
            receiver.recv().unwrap()
        })
    });
    assert_eq!(own, os);
    assert_eq!(own[7], 21);
}

#[test]
fn os_threads_are_joined_and_scopes_end() {
    let got = alike(|number, meeting| {
        let squared = std::thread::spawn(move || number * number).join().unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                meeting.wait();
                number
            });
            thread.join().unwrap() + squared
        })
    });
    assert_eq!(got[7], 56);
}
