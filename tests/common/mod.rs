//! Helpers of the integration tests: a guard against hanging, children, seeds, a log, and the properties of blocking
//! calls.
//!
//! ```text
//!   let _guard = common::guard();              a test that hangs ends the process with its name, after two minutes
//!   let out = common::child("name", || ..);    runs this test's closure in a process of its own
//!   let mut random = common::Random::new();    prints its seed; GREENLING_SEED=n repeats a run
//!   common::five_properties(&PRIMITIVE);       see `five`
//! ```
#![forbid(unsafe_code)]
#![allow(dead_code, unreachable_pub)] // each test uses some of the helpers

mod address;
mod five;

use std::cell::RefCell;
use std::fmt::Display;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use greenling::sim;

#[allow(unused_imports)]
pub use address::free_address;
#[allow(unused_imports)]
pub use five::{Primitive, Subject, Wakes, due_properties, five_properties};

/// How long a test may take before the test counts as hanging.
const TEST_LIMIT: Duration = Duration::from_secs(300);

/// The guard of a running test: see [`guard`].
#[derive(Debug)]
pub struct Guard {
    /// The sender, of which the drop tells the watcher that the test is over.
    _over: mpsc::Sender<()>,
}

/// Aborts the process if the test hangs, until the returned value is dropped.
pub fn guard() -> Guard {
    let (over, watcher) = mpsc::channel::<()>();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if watcher.recv_timeout(TEST_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    Guard { _over: over }
}

/// Runs `f` in virtual time, in the order of life: a wait takes no time and ends at its moment, also on a slow machine.
/// For tests of waits, not of the kernel's clock, nor of threads that compute meanwhile.
pub fn in_virtual_time<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    sim::Config::new().strategy(sim::Strategy::Fifo).max_turns(u64::MAX).allow_leaks(true).run(f)
}

/// The environment variable that names the test which a child runs.
const ROLE: &str = "GREENLING_TEST_CHILD";

/// The environment variable with the command that runs programs for another processor: see `.ci/run`.
const EMULATOR: &str = "GREENLING_TEST_EMULATOR";

/// Runs `body` in a process of its own, which runs the test `name` only, and returns the output and the exit status.
/// `name` must be the calling test, with its module if it is in one. A child that takes too long is killed, and the
/// test fails.
///
/// The body does not run in the main thread: libtest starts each test in a thread.
pub fn child(name: &str, body: impl FnOnce()) -> Output {
    if std::env::var_os(ROLE).is_some_and(|role| role == name) {
        body();
        std::process::exit(0);
    }
    let program = std::env::current_exe().expect("the path of the test binary");
    // An emulator may have to run the child as well.
    let emulator = std::env::var(EMULATOR).unwrap_or_default();
    let mut command = match emulator.split_whitespace().collect::<Vec<_>>()[..] {
        [] => Command::new(program),
        [emulator, ref arguments @ ..] => {
            let mut command = Command::new(emulator);
            command.args(arguments).arg(program);
            command
        }
    };
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, name);
    let output = output_of(command);
    // A child with no test to run would succeed.
    assert!(String::from_utf8_lossy(&output.stdout).contains("running 1 test\n"), "no test {name}: {output:?}");
    output
}

/// Lets all runnable threads run. A single `yield_now` may be too little: a thread gives way after each call that could
/// have waited if the share of the CPU is used up.
pub fn settle() {
    (0..10).for_each(|_| greenling::thread::yield_now());
}

/// Runs a command to the end, and kills a command that hangs.
pub fn output_of(mut command: Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a child");
    // Read in other threads, so that a child that prints much does not wait for a full pipe.
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let out = std::thread::spawn(move || std::io::read_to_string(out));
    let err = std::thread::spawn(move || std::io::read_to_string(err));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if began.elapsed() > TEST_LIMIT {
            child.kill().expect("kill");
            panic!("the child {command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |handle: std::thread::JoinHandle<std::io::Result<String>>| {
        handle.join().expect("a reader").expect("text").into_bytes()
    };
    Output { status, stdout: text(out), stderr: text(err) }
}

/// Returns the standard error of a child, as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the standard output of a child, as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A log of events, in order.
#[derive(Clone, Debug, Default)]
pub struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    /// Appends an event to the log.
    pub fn say(&self, event: impl Display) {
        self.0.borrow_mut().push(event.to_string());
    }

    /// Returns all events so far, with blanks in between.
    pub fn text(&self) -> String {
        self.0.borrow().join(" ")
    }

    /// Returns all events so far, sorted. A send may give way, so the events that threads log after their sends may
    /// come in any order.
    pub fn sorted(&self) -> String {
        let mut events = self.0.borrow().clone();
        events.sort();
        events.join(" ")
    }

    /// Makes a value that appends an event when dropped.
    pub fn on_drop(&self, event: impl Display) -> OnDrop<Box<dyn FnOnce()>> {
        let (log, event) = (self.clone(), event.to_string());
        OnDrop::new(Box::new(move || log.say(event)))
    }
}

/// A value that calls a function when dropped.
#[derive(Debug)]
pub struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    /// Makes a value that calls `f` when dropped.
    pub fn new(f: F) -> Self {
        OnDrop(Some(f))
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

/// A generator of random numbers (splitmix64) that prints the seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Makes a generator with the seed `GREENLING_SEED`, or one from the clock.
    pub fn new() -> Random {
        let seed = match std::env::var("GREENLING_SEED") {
            Ok(seed) => seed.parse().expect("GREENLING_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64),
        };
        println!("GREENLING_SEED={seed}");
        Random(seed)
    }

    /// Makes the generator with this seed.
    pub fn of(seed: u64) -> Random {
        Random(seed)
    }

    /// Makes another generator, for another thread.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }

    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Repeats `round` until it returns something. A round returns `None` if the machine let this process stand still for
/// so long that the round does not say anything.
pub fn undisturbed<R>(mut round: impl FnMut() -> Option<R>) -> R {
    (0..1000).find_map(|_| round()).expect("one of a thousand rounds without a stall")
}

/// Spins until `until`, without letting any other green thread run.
pub fn hog_until(until: Instant) {
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}
