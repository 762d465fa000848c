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

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::runtime::hub::hub;
use crate::runtime::mail::{Letter, Mail};
use crate::runtime::park::{NEVER, park};
use crate::switch::fiber::Reason;
use crate::switch::root::Parcel;

/// Lookups at once. They wait for servers rather than for the CPU.
const MOST: usize = 16;

/// How long a thread waits for another job before it ends.
const IDLE: Duration = Duration::from_secs(5);

/// What is looked up.
struct Job {
    /// The name.
    host: String,
    /// Copied into each address.
    port: u16,
    /// Where the result goes.
    answer: Arc<Answer>,
    /// The way to the waiter's hub.
    mail: Arc<Mail>,
    /// Who waits, for its own OS thread.
    waiter: Parcel,
}

/// Shared by the green thread and the OS thread; holds the result from the moment it is there.
struct Answer(Mutex<Option<io::Result<Vec<SocketAddr>>>>);

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

/// A lock whose holders do not panic while they hold it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks up a name; the running green thread waits, others run.
///
/// # Errors
/// What std says; that no OS thread could be started; an error when the caller unwinds or its OS thread is ending.
pub(super) fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (root, hub) = hub()?;
    let me = root.current();
    let answer = Arc::new(Answer(Mutex::new(None)));
    hub.jobs.set(hub.jobs.get() + 1);
    let _counted = Counted(&hub.jobs);
    submit(Job {
        host: String::from(host),
        port,
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

/// Counts a job of the hub, also if a kill unwinds its waiter.
struct Counted<'a>(&'a Cell<usize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
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
            let result = (job.host.as_str(), job.port).to_socket_addrs().map(Iterator::collect);
            *lock(&job.answer.0) = Some(result);
            job.mail.send(Letter::Wake(job.waiter));
            drop(job);
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
