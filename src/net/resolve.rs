//! Name lookups: the one thing about sockets that has no non-blocking form, so OS threads do it.
//!
//! ```text
//!   green thread                 QUEUE (one per process)              OS thread "greenling-dns"
//!   lookup: job ---------------> [job, job, ..] --------------------> getaddrinfo, as std calls it
//!           park(Job)                                                        |
//!           take the answer <--- Answer (shared by the two) <----------------'
//!                      ^-------- Letter::Wake through the hub's mail
//! ```
//!
//! * At most [`MOST`] threads at once, started one by one as jobs come; the rest of the jobs wait in order. A thread
//!   without a job ends after [`IDLE`].
//! * A green thread that is killed while it waits only lets go of the answer; the lookup itself cannot be stopped, and
//!   its result is dropped by whoever is last.
//! * Invariant D1: `threads` counts the threads that will look into `jobs` again before they end, `idle` those of them
//!   that wait for `WORK`. Upheld by `submit` and `work`, under the lock.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::runtime::hub::hub;
use crate::runtime::mail::{Letter, Mail};
use crate::runtime::park::{Counted, NEVER, park};
use crate::runtime::remote::lock;
use crate::switch::cancel;
use crate::switch::fiber::Reason;
use crate::switch::root::Parcel;

/// Lookups at once. They wait for servers rather than for the CPU.
const MOST: usize = 16;

/// How long a thread waits for another job before it ends.
const IDLE: Duration = Duration::from_secs(5);

/// What a lookup ends with.
type Found = io::Result<Vec<SocketAddr>>;

/// A lookup.
struct Job {
    /// Does it; blocks.
    run: Box<dyn FnOnce() -> Found + Send>,
    /// Where the result goes.
    answer: Arc<Answer>,
    /// The way to the waiter's hub.
    mail: Arc<Mail>,
    /// Who waits, for its own OS thread.
    waiter: Parcel,
}

/// Shared by the green thread and the OS thread; holds the result from the moment it is there.
struct Answer(Mutex<Option<Found>>);

/// All lookups of the process.
struct Queue {
    /// Not begun.
    jobs: VecDeque<Job>,
    /// Running threads (D1).
    threads: usize,
    /// Those without a job (D1).
    idle: usize,
}

/// See [`Queue`].
static QUEUE: Mutex<Queue> = Mutex::new(Queue { jobs: VecDeque::new(), threads: 0, idle: 0 });

/// Rung once for each job that an idle thread should take.
static WORK: Condvar = Condvar::new();

/// Looks up a name; the running green thread waits, others run.
///
/// # Errors
/// What std says; that no OS thread could be started; an error when the caller unwinds or its OS thread is ending.
pub(super) fn lookup(host: &str, port: u16) -> Found {
    let host = String::from(host);
    on_other_thread(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect))
}

/// Runs `run` on an OS thread and waits for it.
fn on_other_thread(run: impl FnOnce() -> Found + Send + 'static) -> Found {
    let (root, hub) = hub()?;
    if let Some(obstacle) = cancel::obstacle() {
        return Err(io::Error::other(obstacle.to_string()));
    }
    let me = root.current();
    let answer = Arc::new(Answer(Mutex::new(None)));
    let _counted = Counted::in_count(&hub.jobs);
    submit(Job {
        run: Box::new(run),
        answer: Arc::clone(&answer),
        mail: Arc::clone(hub.mail()),
        waiter: root.pack(me),
    })?;
    loop {
        // The letter follows the answer, so a wake-up between this look and the park finds the park.
        if let Some(result) = lock(&answer.0).take() {
            return result;
        }
        park(root, hub, me, Reason::Job("a name lookup"), NEVER)
            .map_err(|obstacle| io::Error::other(obstacle.to_string()))?;
    }
}

/// Hands a job to an idle thread, to a new one, or to the next that is done.
fn submit(job: Job) -> io::Result<()> {
    let mut queue = lock(&QUEUE);
    queue.jobs.push_back(job);
    if queue.jobs.len() <= queue.idle {
        WORK.notify_one();
    } else if queue.threads < MOST {
        match thread::Builder::new().name(String::from("greenling-dns")).spawn(work) {
            Ok(_) => queue.threads += 1,
            Err(error) if queue.threads == 0 => {
                queue.jobs.pop_back();
                return Err(error);
            }
            // The threads there are will come to it.
            Err(_) => {}
        }
    }
    Ok(())
}

/// An OS thread's life.
fn work() {
    let mut queue = lock(&QUEUE);
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            let Job { run, answer, mail, waiter } = job;
            let found = run();
            *lock(&answer.0) = Some(found);
            mail.send(Letter::Wake(waiter));
            drop((answer, mail));
            queue = lock(&QUEUE);
            continue;
        }
        queue.idle += 1;
        let (woken, waited) = WORK.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
        queue = woken;
        queue.idle -= 1;
        if waited.timed_out() && queue.jobs.is_empty() {
            queue.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    /// What a test's lookup finds.
    fn found(port: u16) -> Found {
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
    }

    /// The tests share the process's threads; this keeps them apart.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn lookups_run_at_the_same_time() {
        let _alone = lock(&ONE_AT_A_TIME);
        // Each waits for all the others: one after the other, they would never end.
        let barrier = Arc::new(Barrier::new(MOST));
        let waiters: Vec<_> = (0..MOST)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                crate::spawn(move || {
                    on_other_thread(move || {
                        barrier.wait();
                        found(1)
                    })
                })
            })
            .collect();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().unwrap(), found(1).unwrap());
        }
    }

    #[test]
    fn lookups_beyond_the_limit_wait_their_turn_and_all_end() {
        let _alone = lock(&ONE_AT_A_TIME);
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static PEAK: AtomicUsize = AtomicUsize::new(0);
        let waiters: Vec<_> = (0..4 * MOST as u16)
            .map(|port| {
                crate::spawn(move || {
                    on_other_thread(move || {
                        PEAK.fetch_max(1 + NOW.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(2));
                        NOW.fetch_sub(1, Ordering::SeqCst);
                        found(port)
                    })
                })
            })
            .collect();
        for (port, waiter) in (0..).zip(waiters) {
            assert_eq!(waiter.join().unwrap().unwrap(), found(port).unwrap());
        }
        assert!(PEAK.load(Ordering::SeqCst) <= MOST);
        assert!(lock(&QUEUE).threads <= MOST);
    }

    #[test]
    fn others_run_while_a_lookup_takes_its_time() {
        let _alone = lock(&ONE_AT_A_TIME);
        let (go, wait) = mpsc::channel::<()>();
        let waiter = crate::spawn(|| {
            on_other_thread(move || {
                let _ = wait.recv();
                found(2)
            })
        });
        crate::sleep(Duration::from_millis(1));
        let other = crate::spawn(move || go.send(()).unwrap());
        other.join().unwrap();
        assert_eq!(waiter.join().unwrap().unwrap(), found(2).unwrap());
    }

    #[test]
    fn a_lookup_whose_waiter_was_killed_disturbs_nobody() {
        let _alone = lock(&ONE_AT_A_TIME);
        let (go, wait) = mpsc::channel::<()>();
        let (done, is_done) = mpsc::channel::<()>();
        let victim = crate::spawn(|| {
            let result = crate::timeout(Duration::from_millis(1), || {
                on_other_thread(move || {
                    let _ = wait.recv();
                    drop(done);
                    found(3)
                })
            });
            assert!(matches!(result, Err(crate::TimeoutError::Elapsed)));
            // The late letter finds a thread that waits for something else.
            crate::thread::park();
            7
        });
        while !victim.is_finished() && hub().unwrap().1.parked.get() == 0 {
            crate::yield_now();
        }
        assert_eq!(hub().unwrap().1.jobs.get(), 0);
        go.send(()).unwrap();
        let _ = is_done.recv();
        crate::sleep(Duration::from_millis(20));
        assert!(!victim.is_finished());
        victim.thread().unpark();
        assert_eq!(victim.join().unwrap(), 7);
    }

    #[test]
    fn a_waiting_lookup_is_no_deadlock() {
        let _alone = lock(&ONE_AT_A_TIME);
        let result = on_other_thread(|| {
            thread::sleep(Duration::from_millis(20));
            found(4)
        });
        assert_eq!(result.unwrap(), found(4).unwrap());
    }

    #[test]
    fn two_hubs_look_up_at_the_same_time() {
        let _alone = lock(&ONE_AT_A_TIME);
        let barrier = Arc::new(Barrier::new(2));
        let hubs: Vec<_> = (5..7)
            .map(|port| {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    on_other_thread(move || {
                        barrier.wait();
                        found(port)
                    })
                })
            })
            .collect();
        for (port, hub) in (5..).zip(hubs) {
            assert_eq!(hub.join().unwrap().unwrap(), found(port).unwrap());
        }
    }
}
