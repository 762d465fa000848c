//! Name lookups: the one thing about sockets that has no non-blocking form, so OS threads do it.
//!
//! They have a pool of their own (see [`offload`](crate::offload)), so that lookups and other jobs do not wait for each
//! other. At most [`MOST`] run at once; one that is stuck, because no server answers, takes one of these places until the C
//! library gives up.
//!
//! `getaddrinfo` is asked, as std does it, so `/etc/hosts`, `/etc/resolv.conf` and `/etc/nsswitch.conf` mean what they
//! always mean. A caller that is killed or times out is free at once: a lookup that has not begun never will, one that has
//! goes on, and its result is dropped.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::offload::{PerProcess, ThreadPool};

/// Lookups at once. They wait for servers rather than for the CPU.
const MOST: usize = 16;

/// The pool.
static POOL: PerProcess = PerProcess::new();

/// What a lookup ends with.
type Found = io::Result<Vec<SocketAddr>>;

/// Makes the pool.
fn pool() -> &'static ThreadPool {
    POOL.get(|| ThreadPool::builder().max_threads(MOST).name("greenling-dns").build())
}

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
    on_lookup_thread(run)?
}

/// Runs any lookup on an OS thread and waits for it.
///
/// # Errors
/// As [`lookup`], but for what the lookup itself says.
pub(crate) fn on_lookup_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    pool().offer("a name lookup", false, run).map_err(|(error, _)| error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::hub::hub;
    use crate::runtime::remote::lock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, Mutex, mpsc};
    use std::thread;
    use std::time::Duration;

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
        assert!(pool().stats().threads <= MOST);
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
        let (begun, has_begun) = mpsc::channel();
        let victim = crate::spawn(|| {
            let result = crate::timeout(Duration::from_millis(200), || {
                on_other_thread(move || {
                    begun.send(()).unwrap();
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
        has_begun.try_recv().expect("a fifth of a second is enough to begin");
        go.send(()).unwrap();
        let _ = is_done.recv();
        crate::sleep(Duration::from_millis(20));
        assert!(!victim.is_finished());
        victim.thread().unpark();
        assert_eq!(victim.join().unwrap(), 7);
    }

    #[test]
    fn stuck_lookups_leave_the_other_places_to_others_and_their_waiters_free() {
        let _alone = lock(&ONE_AT_A_TIME);
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let (begun, has_begun) = mpsc::channel();
        // As if no name server answered.
        let stuck: Vec<_> = (1..MOST)
            .map(|_| {
                let (wait, begun) = (Arc::clone(&wait), begun.clone());
                crate::spawn(move || {
                    on_other_thread(move || {
                        begun.send(()).unwrap();
                        let _ = lock(&wait).recv();
                        found(8)
                    })
                })
            })
            .collect();
        // They hand in their lookups. A lookup that is found before its waiter has begun to wait would not let them.
        crate::yield_now();
        for port in 0..20 {
            assert_eq!(
                on_other_thread(move || found(port)).unwrap(),
                found(port).unwrap(),
                "by the place that is left"
            );
        }
        for _ in &stuck {
            has_begun.recv().unwrap();
        }
        for waiter in stuck {
            waiter.kill();
            assert!(waiter.join().unwrap_err().is_killed(), "it need not wait for the lookup");
        }
        drop(go);
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
