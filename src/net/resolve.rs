//! Name lookups, which have no non-blocking form and so run on OS threads.
//!
//! ```text
//!   lookup ----> local pool: is the name on this machine? --yes--> getaddrinfo there, which asks no server
//!                                |
//!                                no
//!                                v
//!                network pool: getaddrinfo, MAX_LOOKUPS at once, and up to MAX_ABANDONED abandoned ones
//! ```
//!
//! Both pools are apart from that of [`offload`](crate::offload), so that lookups and other jobs do not wait for each
//! other. And there are two, so that a name of `/etc/hosts` does not wait behind a name server that does not answer.
//!
//! As in std, `getaddrinfo` answers, so `/etc/hosts`, `/etc/resolv.conf` and `/etc/nsswitch.conf` keep their meaning. A
//! caller that is killed or times out is free at once. A lookup that has not begun by then never begins; one that has
//! goes on until the C library gives up, the result is dropped, and another OS thread takes the place in the pool.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use super::hosts::{Family, is_local};
use crate::offload::{PerProcess, ThreadPool};
use crate::sys::virtual_sockets;

/// The number of network lookups that run at once. Lookups wait for servers rather than for the CPU.
const MAX_LOOKUPS: usize = 16;

/// The number of abandoned lookups that may go on beside those. Each lookup has a socket open, so the number is below
/// that of the descriptors that a process may have by default.
const MAX_ABANDONED: usize = 240;

/// The number of local lookups that run at once. A local lookup waits for two files only.
const MAX_LOCAL_LOOKUPS: usize = 2;

/// The pool for lookups that may ask the network.
static NETWORK_POOL: PerProcess = PerProcess::new();

/// The pool for lookups that do not.
static LOCAL_POOL: PerProcess = PerProcess::new();

/// The addresses that a lookup found, or its error.
type LookupResult = io::Result<Vec<SocketAddr>>;

/// Returns the pool of network lookups, made on first use.
fn network_pool() -> &'static ThreadPool {
    NETWORK_POOL.get(|| {
        ThreadPool::builder().max_threads(MAX_LOOKUPS).max_abandoned(MAX_ABANDONED).name("greenling-dns").build()
    })
}

/// Returns the pool of local lookups, made on first use.
fn local_pool() -> &'static ThreadPool {
    LOCAL_POOL.get(|| ThreadPool::builder().max_threads(MAX_LOCAL_LOOKUPS).name("greenling-hosts").build())
}

/// Looks up a name; the calling green thread waits, others run.
///
/// # Errors
/// Those of std's lookup; an error if no OS thread could be started, if the caller unwinds, or if the OS thread ends.
pub(super) fn lookup(host: &str, port: u16) -> LookupResult {
    if let Some(found) = virtual_sockets::resolve(host) {
        return found.map(|ips| ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
    }
    // Two copies: one for the check whether the name is local, one for the lookup itself.
    let host = String::from(host);
    let name = host.clone();
    on_lookup_thread(Some((name, Family::ANY)), move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect))?
}

/// Runs any lookup on an OS thread and waits for the result. `name` is the name to look up and the accepted families;
/// none for a lookup that asks no name server.
///
/// # Errors
/// Those of [`lookup`] without the lookup's own, which are in its result.
pub(crate) fn on_lookup_thread<T: Send + 'static>(
    name: Option<(String, Family)>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    // The local pool reads the files, and hands `run` back if the network has to be asked.
    let run_if_local = move || match name {
        Some((host, family)) if !is_local(&host, family) => Err(run),
        _ => Ok(run()),
    };
    match on_thread_of(local_pool(), run_if_local)? {
        Ok(done) => Ok(done),
        Err(run) => on_thread_of(network_pool(), run),
    }
}

/// Runs `run` on an OS thread of `pool` and waits for the result.
fn on_thread_of<T: Send + 'static>(pool: &ThreadPool, run: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    pool.offer("a name lookup", false, run).map_err(|(error, _)| error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::lock::lock;
    use crate::runtime::hub::hub;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, Mutex, mpsc};
    use std::thread;
    use std::time::Duration;

    /// Runs `run` as a network lookup.
    fn on_other_thread(run: impl FnOnce() -> LookupResult + Send + 'static) -> LookupResult {
        on_thread_of(network_pool(), run)?
    }

    /// Makes the result of a test's lookup.
    fn found(port: u16) -> LookupResult {
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
    }

    /// Keeps the tests apart, because they share the threads of the process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn lookups_run_at_the_same_time() {
        let _alone = lock(&ONE_AT_A_TIME);
        // Each lookup waits for all the others: if they ran one after the other, none would end.
        let barrier = Arc::new(Barrier::new(MAX_LOOKUPS));
        let waiters: Vec<_> = (0..MAX_LOOKUPS)
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
        let waiters: Vec<_> = (0..4 * MAX_LOOKUPS as u16)
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
        assert!(PEAK.load(Ordering::SeqCst) <= MAX_LOOKUPS);
        assert!(network_pool().stats().threads <= MAX_LOOKUPS);
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
    fn a_lookup_that_ends_after_its_waiter_gave_up_disturbs_no_other() {
        let _alone = lock(&ONE_AT_A_TIME);
        // On a busy machine a lookup may not begin in time, and then a round shows nothing.
        let limits = [50, 500, 5_000, 50_000].map(Duration::from_millis);
        assert!(limits.into_iter().any(lookup_ends_late), "no lookup has begun");
    }

    /// Lets a waiter give its lookup up after `limit`, and the lookup end afterwards. Reports whether it had begun.
    fn lookup_ends_late(limit: Duration) -> bool {
        let (go, wait) = mpsc::channel::<()>();
        let (done, is_done) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let waiter = crate::spawn(move || {
            let result = crate::timeout(limit, || {
                on_other_thread(move || {
                    begun.send(()).unwrap();
                    let _ = wait.recv();
                    drop(done);
                    found(3)
                })
            });
            assert!(matches!(result, Err(crate::TimeoutError::Elapsed)));
            // When the late remote op arrives, this thread waits for something else.
            crate::thread::park();
            7
        });
        while !waiter.is_finished() && hub().unwrap().1.parked.get() == 0 {
            crate::yield_now();
        }
        assert_eq!(hub().unwrap().1.jobs.get(), 0);
        let had_begun = has_begun.try_recv().is_ok();
        // A lookup that has not begun is dropped with its wait.
        assert!(go.send(()).is_ok() || !had_begun);
        let _ = is_done.recv();
        crate::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        waiter.thread().unpark();
        assert_eq!(waiter.join().unwrap(), 7);
        had_begun
    }

    #[test]
    fn stuck_lookups_leave_the_other_places_to_others_and_their_waiters_free() {
        let _alone = lock(&ONE_AT_A_TIME);
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let (begun, has_begun) = mpsc::channel();
        // These lookups stand for those of a name server that does not answer.
        let stuck: Vec<_> = (1..MAX_LOOKUPS)
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
        // Let the threads hand in their lookups: a lookup that ends before its waiter parks would not let them run.
        crate::yield_now();
        for port in 0..20 {
            assert_eq!(
                on_other_thread(move || found(port)).unwrap(),
                found(port).unwrap(),
                "the place that is left serves all"
            );
        }
        for _ in &stuck {
            has_begun.recv().unwrap();
        }
        for waiter in stuck {
            waiter.kill();
            assert!(waiter.join().unwrap_err().is_killed(), "a killed thread does not wait for its lookup");
        }
        drop(go);
        settle();
    }

    /// Waits until the pool has no OS thread above its limit.
    fn settle() {
        while network_pool().stats().threads > MAX_LOOKUPS {
            crate::sleep(Duration::from_millis(1));
        }
    }

    /// Starts `count` lookups that no server answers until the sender is dropped. Returns the sender and the waiters.
    fn unanswered(count: usize) -> (mpsc::Sender<()>, Vec<crate::thread::JoinHandle<LookupResult>>) {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let (begun, has_begun) = mpsc::channel();
        let stuck = (0..count)
            .map(|_| {
                let (wait, begun) = (Arc::clone(&wait), begun.clone());
                let waiter = crate::spawn(move || {
                    on_other_thread(move || {
                        begun.send(()).unwrap();
                        let _ = lock(&wait).recv();
                        found(9)
                    })
                });
                crate::yield_now();
                has_begun.recv().unwrap();
                waiter
            })
            .collect();
        (go, stuck)
    }

    #[test]
    fn a_name_of_this_machine_does_not_wait_behind_the_network() {
        let _alone = lock(&ONE_AT_A_TIME);
        let (go, stuck) = unanswered(MAX_LOOKUPS);
        let before = network_pool().stats();
        for host in ["localhost", "127.1", "0x7f000001"] {
            let all = lookup(host, 5).unwrap();
            assert!(!all.is_empty() && all.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 5), "{host}");
        }
        assert_eq!(network_pool().stats(), before, "the other pool was not asked");
        drop(go);
        assert!(stuck.into_iter().all(|waiter| waiter.join().unwrap().is_ok()));
    }

    #[test]
    fn lookups_that_were_given_up_leave_their_places_to_others_up_to_a_limit() {
        let _alone = lock(&ONE_AT_A_TIME);
        let mut goes = Vec::new();
        for round in 0..=MAX_ABANDONED / MAX_LOOKUPS {
            // The abandoned lookups of earlier rounds take none of the places.
            let (go, stuck) = unanswered(MAX_LOOKUPS);
            goes.push(go);
            assert_eq!(network_pool().stats().running_abandoned, round * MAX_LOOKUPS);
            for waiter in stuck {
                waiter.kill();
                assert!(waiter.join().unwrap_err().is_killed());
            }
        }
        assert_eq!(network_pool().stats().threads, MAX_LOOKUPS + MAX_ABANDONED);
        let late = crate::timeout(Duration::from_millis(5), || on_other_thread(|| found(2)));
        assert!(matches!(late, Err(crate::TimeoutError::Elapsed)), "all places are taken");
        drop(goes);
        assert_eq!(on_other_thread(|| found(3)).unwrap(), found(3).unwrap());
        settle();
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
