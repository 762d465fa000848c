//! The clocks: what std and C read, and how long they sleep.

use std::ffi::c_int;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use greenling::{monkey, sim, spawn};

use crate::helpers::patched;

/// The begin of the year 2000, in seconds since 1970.
const BEGIN: u64 = 946_684_800;

const HOUR: Duration = Duration::from_secs(3600);

/// Reads a clock of C.
fn read(clock: c_int) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the time.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut now) }, 0);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[test]
fn stds_clocks_and_sleeps_are_virtual() {
    let _guard = patched();
    let before = Instant::now();
    sim::run(1, || {
        let (instant, time) = (Instant::now(), SystemTime::now());
        assert_eq!(time.duration_since(UNIX_EPOCH).unwrap(), Duration::from_secs(BEGIN));
        assert_eq!(instant, greenling::time::now());
        std::thread::sleep(HOUR);
        assert_eq!((instant.elapsed(), time.elapsed().unwrap(), sim::elapsed()), (HOUR, HOUR, HOUR));
        // This crate's calls take what std's `Instant::now` returns.
        greenling::time::sleep_until(Instant::now() + HOUR);
        assert_eq!(instant.elapsed(), 2 * HOUR);
        assert_eq!(instant.elapsed(), sim::elapsed());
    });
    assert!(before.elapsed() < HOUR, "outside the clock is the kernel's");
    assert!(before < Instant::now() && SystemTime::now() > UNIX_EPOCH + Duration::from_secs(BEGIN));
}

#[test]
fn sleeps_of_std_and_of_this_crate_end_in_the_order_of_their_times() {
    let _guard = patched();
    sim::run(1, || {
        let (send, receive) = greenling::channel::unbounded();
        for hours in [3, 1, 4, 2] {
            let send = send.clone();
            spawn(move || {
                if hours % 2 == 0 {
                    std::thread::sleep(hours * HOUR)
                } else {
                    greenling::sleep(hours * HOUR)
                }
                send.send((hours, sim::elapsed())).unwrap();
            });
        }
        drop(send);
        assert_eq!(receive.iter().collect::<Vec<_>>(), [1, 2, 3, 4].map(|hours| (hours, hours * HOUR)));
    });
}

#[test]
fn all_clocks_but_those_of_the_cpu_move_together() {
    let _guard = patched();
    let outside = read(libc::CLOCK_PROCESS_CPUTIME_ID);
    sim::run(1, || {
        let monotonic =
            [libc::CLOCK_MONOTONIC, libc::CLOCK_MONOTONIC_RAW, libc::CLOCK_MONOTONIC_COARSE, libc::CLOCK_BOOTTIME];
        let of_day = [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_TAI];
        let cpu = read(libc::CLOCK_PROCESS_CPUTIME_ID);
        assert!(outside <= cpu && cpu < HOUR);
        let [first, ..] = monotonic.map(read);
        // SAFETY: the function takes a number.
        assert_eq!(unsafe { libc::sleep(3599) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::usleep(999_000) }, 0);
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(monotonic.map(read), [first + HOUR; 4]);
        assert_eq!(of_day.map(read), [Duration::from_secs(BEGIN) + HOUR; 3]);
        // SAFETY: null asks for no place.
        assert_eq!(unsafe { libc::time(null_mut()) } as u64, BEGIN + 3600);
        let mut now = libc::timeval { tv_sec: 0, tv_usec: 1 };
        // SAFETY: a place for the time, and none for a zone.
        assert_eq!(unsafe { libc::gettimeofday(&raw mut now, null_mut()) }, 0);
        assert_eq!((now.tv_sec as u64, now.tv_usec), (BEGIN + 3600, 0));
    });
}

/// Sleeps until a moment of a clock of C.
fn sleep_until(clock: c_int, at: Duration) -> c_int {
    let at = libc::timespec { tv_sec: at.as_secs() as libc::time_t, tv_nsec: at.subsec_nanos().into() };
    // SAFETY: a moment, and no place for the rest.
    unsafe { libc::clock_nanosleep(clock, libc::TIMER_ABSTIME, &raw const at, null_mut()) }
}

#[test]
fn a_sleep_until_a_moment_ends_at_that_moment_of_its_clock() {
    let _guard = patched();
    sim::run(1, || {
        for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
            let end = read(clock) + HOUR;
            assert_eq!((sleep_until(clock, end), read(clock)), (0, end));
            // What is over is not waited for.
            assert_eq!((sleep_until(clock, end - HOUR), read(clock)), (0, end));
        }
        let wrong = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
        // SAFETY: a span, and no place for the rest.
        let refused = unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const wrong, null_mut()) };
        assert_eq!(refused, libc::EINVAL);
        // SAFETY: null pointers are refused.
        assert_ne!(unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, null(), null_mut()) }, 0);
    });
}

#[test]
fn a_sleep_that_lets_no_others_run_lets_time_pass() {
    let _guard = patched();
    sim::run(1, || {
        let other = spawn(|| assert_eq!(sim::elapsed(), HOUR));
        greenling::no_switch(|| std::thread::sleep(HOUR));
        assert_eq!(sim::elapsed(), HOUR);
        other.join().unwrap();
    });
}

#[test]
fn a_condition_of_std_that_never_comes_true_takes_virtual_time_and_no_other() {
    let _guard = patched();
    sim::run(1, || {
        let (lock, condition) = (std::sync::Mutex::new(()), std::sync::Condvar::new());
        let (_held, result) = condition.wait_timeout(lock.lock().unwrap(), HOUR).unwrap();
        assert!(result.timed_out());
        std::thread::park_timeout(HOUR);
        assert_eq!(sim::elapsed(), 2 * HOUR);
    });
}

#[test]
fn time_limits_of_poll_and_select_are_virtual() {
    let _guard = patched();
    sim::run(1, || {
        // SAFETY: no descriptors, and a limit.
        assert_eq!(unsafe { libc::poll(null_mut(), 0, 3_600_000) }, 0);
        assert_eq!(sim::elapsed(), HOUR);
        let mut limit = libc::timeval { tv_sec: 3600, tv_usec: 0 };
        // SAFETY: no sets, and a limit.
        assert_eq!(unsafe { libc::select(0, null_mut(), null_mut(), null_mut(), &raw mut limit) }, 0);
        assert_eq!(sim::elapsed(), 2 * HOUR);
    });
}

/// The runtime's own calls, and those of other OS threads.
#[test]
fn other_os_threads_and_life_after_the_simulation_have_the_kernels_clock() {
    let _guard = patched();
    assert!(monkey::is_patched(monkey::Part::Sleep) && monkey::is_patched(monkey::Part::Random));
    let year = Duration::from_secs(365 * 24 * 3600);
    sim::run(1, || {
        assert!(Instant::now().checked_sub(99 * year).is_some(), "a hundred years after the begin");
        let other = std::thread::spawn(Instant::now).join().unwrap();
        assert!(Instant::now() - other > 90 * year);
    });
    let (mut near, _far) = UnixStream::pair().unwrap();
    let limit = Duration::from_millis(2);
    near.set_read_timeout(Some(limit)).unwrap();
    let begin = Instant::now();
    near.read(&mut [0]).unwrap_err();
    assert!(begin.elapsed() >= limit);
}
