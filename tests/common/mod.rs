//! What the integration tests share: a guard against hanging, children, seeds, a log, and the five properties.
//!
//! ```text
//!   let _guard = common::guard();              a test that hangs ends the process with its name, after two minutes
//!   let out = common::child("name", || ..);    runs this test's closure in a process of its own
//!   let mut random = common::Random::new();    prints its seed; GREENLING_SEED=n repeats a run
//!   common::five_properties(&PRIMITIVE);       see `five`
//! ```
#![forbid(unsafe_code)]
#![allow(dead_code, unreachable_pub)] // each test uses a part of it

mod five;

use std::cell::RefCell;
use std::fmt::Display;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[allow(unused_imports)]
pub use five::{Primitive, Subject, Wakes, five_properties};

/// How long a test may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// See [`guard`].
#[derive(Debug)]
pub struct Guard {
    /// Closed by the drop, which tells the watcher that the test is over.
    _over: mpsc::Sender<()>,
}

/// Until the returned value is dropped, a hanging test aborts the process instead of hanging for ever.
pub fn guard() -> Guard {
    let (over, watcher) = mpsc::channel::<()>();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if watcher.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    Guard { _over: over }
}

/// Names, in the environment of a child, the test that it runs.
const ROLE: &str = "GREENLING_TEST_CHILD";

/// Runs `body` in a process of its own, which runs the test `name` only, and returns what it printed and how it ended.
/// `name` must be the calling test. A child that takes too long is killed, and the test fails.
///
/// The body runs in the main thread of nobody: libtest starts it in a thread, as it does every test.
pub fn child(name: &str, body: impl FnOnce()) -> Output {
    if std::env::var_os(ROLE).is_some_and(|role| role == name) {
        body();
        std::process::exit(0);
    }
    let mut command = Command::new(std::env::current_exe().expect("the path of the test binary"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, name);
    output_of(command)
}

/// Runs a command to its end, but not for ever.
pub fn output_of(mut command: Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a child");
    // Read on the side, so that a child that prints much is not held up by a full pipe.
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let out = std::thread::spawn(move || std::io::read_to_string(out));
    let err = std::thread::spawn(move || std::io::read_to_string(err));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if began.elapsed() > PATIENCE {
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

/// Standard error of a child, as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output of a child, as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What happened, in order.
#[derive(Clone, Debug, Default)]
pub struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    /// Notes an event.
    pub fn say(&self, event: impl Display) {
        self.0.borrow_mut().push(event.to_string());
    }

    /// All events so far, with blanks between them.
    pub fn text(&self) -> String {
        self.0.borrow().join(" ")
    }

    /// Notes an event when it is dropped.
    pub fn on_drop(&self, event: impl Display) -> OnDrop<Box<dyn FnOnce()>> {
        let (log, event) = (self.clone(), event.to_string());
        OnDrop::new(Box::new(move || log.say(event)))
    }
}

/// Calls a function when it is dropped.
#[derive(Debug)]
pub struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    /// Will call `f`.
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

/// A generator of random numbers (splitmix64) whose seed is printed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A new one; its seed is that of `GREENLING_SEED`, or of the clock.
    pub fn new() -> Random {
        let seed = match std::env::var("GREENLING_SEED") {
            Ok(seed) => seed.parse().expect("GREENLING_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64),
        };
        println!("GREENLING_SEED={seed}");
        Random(seed)
    }

    /// The one with this seed.
    pub fn of(seed: u64) -> Random {
        Random(seed)
    }

    /// Another one, for another thread.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Computes until `until`, without letting any other green thread run.
pub fn hog_until(until: Instant) {
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}
