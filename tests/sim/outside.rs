//! What would leave a simulation: one clear error, and never a real wait.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use greenling::sim::{self, Config, FailureKind};
use greenling::{Hubs, fs, process, signal};

/// Returns the error of what is refused, which must say why.
#[track_caller]
fn refused<T>(result: io::Result<T>) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let text = error.to_string();
    assert!(text.contains("outside of the simulation") && text.lines().count() == 1, "{text}");
}

#[test]
fn what_is_outside_is_one_clear_error() {
    sim::run(1, || {
        refused(greenling::io::pipe());
        let file = fs::File::from(std::fs::File::open("/dev/null").unwrap());
        refused(file.metadata());
        refused(fs::File::from(std::fs::File::open("/dev/null").unwrap()).sync_all());
        refused(greenling::os::unix::fs::chown("/tmp", None, None));
        refused(process::Command::new("true").spawn());
        refused(process::Command::new("true").output());
        refused(process::Command::new("true").status());
        refused(signal::Signals::new([signal::SIGHUP]));
        refused(Hubs::new(1).start(|_| ()));
    });
}

#[test]
fn a_job_on_another_os_thread_panics_with_the_reason() {
    let failure = Config::new().schedules(1).check(|| greenling::blocking(|| ())).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Panic);
    assert!(failure.message().contains("a job on another OS thread is outside of the simulation"), "{failure}");
}

#[test]
fn a_time_of_the_kernels_clock_panics_with_the_reason() {
    let at = Instant::now() + Duration::from_secs(3600);
    let failure = Config::new().schedules(1).check(move || greenling::time::sleep_until(at)).unwrap_err();
    assert!(failure.message().contains("use `greenling::time::now()`"), "{failure}");
}

#[test]
fn a_wait_for_another_hub_is_a_deadlock_and_not_a_wait() {
    let program = || {
        let (_send, receive) = greenling::hub::channel::<()>(None);
        let _ = receive.recv();
    };
    let failure = Config::new().schedules(1).check(program).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Deadlock);
}
