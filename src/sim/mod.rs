//! Time and chance under control: a program of green threads runs under a virtual clock, in schedules that a seed
//! gives.
//!
//! One OS thread and one scheduler make a concurrent program a function: of which thread goes on at each choice, and of
//! nothing else, as long as it stays inside. So a failure that needs an unlucky order can be looked for, and once found
//! it can be run again, as often as it takes.
//!
//! ```
//! use greenling::{channel, sim, sleep, spawn, timeout};
//! use std::time::Duration;
//!
//! let waited = sim::run(1, || {
//!     let (send, receive) = channel::unbounded();
//!     spawn(move || {
//!         sleep(Duration::from_secs(3600)); // takes no time
//!         send.send(42).unwrap();
//!     });
//!     assert!(timeout(Duration::from_secs(60), || receive.recv()).is_err());
//!     assert_eq!(receive.recv(), Ok(42));
//!     sim::elapsed()
//! });
//! assert_eq!(waited, Duration::from_secs(3600));
//! ```
//!
//! # A bug, its seed, its replay
//!
//! The thread below looks whether there is work, and then parks. Between the two it waits for a lock, and if the other
//! thread comes at that moment, nothing wakes it any more:
//!
//! ```should_panic
//! use greenling::{sim, spawn, sync::Mutex, thread};
//! use std::{cell::{Cell, RefCell}, rc::Rc};
//!
//! sim::explore(sim::Config::new(), || {
//!     let work = Rc::new(Cell::new(false));
//!     let sleeper = Rc::new(RefCell::new(None));
//!     let log = Rc::new(Mutex::new(Vec::new()));
//!     let (work2, sleeper2, log2) = (work.clone(), sleeper.clone(), log.clone());
//!     spawn(move || {
//!         log2.lock().unwrap().push("work");
//!         work2.set(true);
//!         let sleeping: Option<thread::Thread> = sleeper2.take();
//!         sleeping.map(|thread| thread.unpark());
//!     });
//!     if !work.get() {
//!         log.lock().unwrap().push("nothing to do"); // the other thread may run here
//!         sleeper.replace(Some(thread::current()));
//!         thread::park();
//!     }
//! });
//! ```
//!
//! The report ends with the line that runs exactly this again; chapter 19 of the book follows it step by step:
//!
//! ```text
//! deadlock: nothing is runnable, no timer is set, no descriptor is waited for, and so main would wait for ever
//!   main is parked, waiting for an unpark, for 0.0 s
//!   in schedule 1 (seed 0); shrunk from 1 deviations from the order of life to 1
//!   replay: GREENLING_SEED=0:0.1 cargo test sleeper -- --exact
//! ```
//!
//! # What is under control
//!
//! * *Time.* It stands still while any thread can run, and then jumps to the next timer. It starts at the same moment
//!   in each run. [`sleep`](crate::sleep), [`timeout`](crate::timeout), intervals, `select!` and every limit follow it,
//!   and so does [`time::now`](crate::time::now). `std::time` does not, unless [unmodified code](#unmodified-code) is
//!   taken in: `Instant::now()` is the kernel's clock, and a call that is given such an `Instant` in a simulation
//!   panics with a line that says so. std's `thread::sleep` really sleeps.
//! * *Turns.* Which runnable thread has the next turn is a choice.
//! * *Preemption.* At every call that could have waited but need not (a lock that is free, a send, a receive, an event
//!   that is set, a permit) another thread may have its turn first. Between two such calls nothing else runs, as in
//!   life. A hub in life preempts there, too, once a millisecond is over.
//! * *Arms.* Which ready arm a `select!` takes, unless it is biased.
//! * *Data.* [`random`] and [`choose`].
//! * *Packets.* Whether one is lost, doubled or late, where the [network](#the-network) has a chance of that: a choice
//!   like others, which a [`fault_sweep`] tries, too, and shrinking leaves out. By how much one is late, and what
//!   [`jitter`](Network::jitter) adds, the seed says: a time has too many possibilities for a list.
//!
//! Waiters are served in the order in which they came, as in life; which comes first is a matter of turns. Greenlets
//! that switch explicitly do so. What has a hash seed or an address in it (the order of a `HashMap`, a pointer that is
//! compared) is the program's, as are its statics and its thread-locals: an exploration calls the program many times on
//! one OS thread.
//!
//! # What goes wrong on purpose
//!
//! [`Config::faults`] lets things go wrong that a program has to expect: a wake-up without a reason, a timer that is
//! late, a time limit that is over wherever it is looked at, a spawn without memory, what the kernel may say to a call
//! on a socket, and what may happen to the program's own doubles of the outside world, which ask by [`may_fail`].
//! [`FaultKind`] has the list. Each fault is a choice of the schedule, so the replay line has it, the [`Trace`] says
//! where it was, and shrinking leaves out those that the failure does not need. [`kill_sweep`], [`timeout_sweep`] and
//! [`fault_sweep`] try one at each place in turn.
//!
//! ```
//! use greenling::os::unix::net::UnixStream;
//! use greenling::sim::{Config, FaultKind, Faults};
//! use std::io::{Read, Write};
//!
//! // A program that takes it that a write takes all.
//! let faults = Faults::new().only(&[FaultKind::Short]);
//! let failure = Config::new().faults(faults).check_faults(|| {
//!     let (mut near, mut far) = UnixStream::pair().unwrap();
//!     let _ = near.write(b"hello").unwrap();
//!     drop(near);
//!     let mut text = String::new();
//!     far.read_to_string(&mut text).unwrap();
//!     assert_eq!(text, "hello");
//! });
//! assert!(failure.unwrap_err().trace().to_string().contains("short transfer"));
//! ```
//!
//! # The network
//!
//! [`net`](crate::net), the Unix sockets of [`os::unix::net`](crate::os::unix::net) and the lookup of names talk to a
//! network in memory, with the results and the errors of Linux. A program that binds `127.0.0.1:0` and connects to it
//! runs as it is, on the one host that there is at first, `localhost`. [`host`] makes others, and [`network`] says what
//! lies between them: latency, bandwidth, lost and doubled datagrams, partitions, crashes, resets.
//!
//! ```
//! use greenling::{net::{TcpListener, TcpStream}, sim, timeout};
//! use std::{io::{ErrorKind, Read}, time::Duration};
//!
//! sim::run(1, || {
//!     sim::host("db", || TcpListener::bind("0.0.0.0:5432").unwrap().accept().map(|(stream, _)| {
//!         greenling::sleep(Duration::from_secs(3600)); // and so the listener is gone, and the stream is open
//!         drop(stream);
//!     }));
//!     greenling::sleep(Duration::from_secs(1));
//!     let mut stream = TcpStream::connect("db:5432").unwrap();
//!     greenling::sleep(Duration::from_secs(1)); // until the other side knows of the connection, too
//!     sim::network().partition("localhost", "db");
//!     assert!(timeout(Duration::from_secs(60), || stream.read(&mut [0])).is_err());
//!     assert_eq!(TcpStream::connect("db:5432").unwrap_err().kind(), ErrorKind::TimedOut);
//!     assert_eq!(sim::elapsed().as_secs(), 2 + 60 + 127); // as long as Linux tries
//! });
//! ```
//!
//! A simulated socket has a descriptor, which is a placeholder: to the kernel, and without `monkey` to std after a
//! conversion, it is no socket (`ENOTSOCK`), and a conversion back finds the simulated socket again. Messages with
//! descriptors, urgent data and options beyond those of std's types are not there. A Unix name makes no file, and
//! `bind` takes a name again once its socket is gone.
//!
//! # Unmodified code
//!
//! With the feature `monkey`, after `monkey::patch_all`, a simulation takes in what std and C do:
//!
//! * `Instant`, `SystemTime` (which begins with the year 2000) and `thread::sleep` follow the virtual clock.
//! * Sockets, and the lookup of names, are those of the simulated network: a client of HTTP or of a database runs as it
//!   is, against a server that is written with `std::net` and runs on a [`host`]. What is not there is an error:
//!   `monkey` has the list.
//! * Threads are green if they are spawned by this crate, or by std after `monkey::patch_threads`.
//! * Random bytes come from the seed, and so does the order of a `HashMap`. std seeds that once for each OS thread, so
//!   the runs of an exploration that draw random bytes have an OS thread each. A seed in a static is drawn by the first
//!   run of the process that needs it, and is another one in the replay: give such a value a fixed seed, before the
//!   simulation.
//!
//! # Files
//!
//! [`fs`](crate::fs) works on a disk in memory, one for each [`host`], with the results and the errors of Linux for a
//! user that may do everything. At first there is an empty directory `/tmp`, and a relative path begins at `/`. Each
//! call takes a microsecond of virtual time, and a sync a millisecond. [`Network::crash`] leaves what is durable:
//!
//! * Contents, if `sync_all` or `sync_data` has returned `Ok` since they were written. Of what was written later, the
//!   first pages may be there, in whole, but for one that may be missing.
//! * Names, if their directory was synced (`File::open(directory)?.sync_all()`) since they were made, changed or
//!   removed; a sync of the file does not suffice, as fsync(2) says. Of later changes the first may be there, in order.
//!   A rename is there in whole or not at all.
//! * Nothing that was written before a sync that failed, even if the next one says `Ok`. That is what Linux does.
//!
//! How much is there is a choice of the schedule, and 0 is nothing. [`FaultKind`] has the errors of a disk, and
//! [`Network::disk_space`] its size.
//!
//! ```
//! use greenling::{fs::File, sim, sleep};
//! use std::{io::Write, time::Duration};
//!
//! /// Writes a note on a host that then loses its power, and returns what is there later.
//! fn note(durable: bool) -> String {
//!     sim::host("db", move || {
//!         let mut file = File::create("/note").unwrap();
//!         file.write_all(b"hello").unwrap();
//!         if durable {
//!             file.sync_data().unwrap();
//!             File::open("/").unwrap().sync_all().unwrap();
//!         }
//!     });
//!     sleep(Duration::from_secs(1));
//!     sim::network().crash("db").restart("db");
//!     sim::host("db", || greenling::fs::read_to_string("/note").unwrap_or_default()).join().unwrap()
//! }
//!
//! sim::explore(sim::Config::new(), || assert_eq!(note(true), "hello"));
//! assert!(sim::Config::new().check(|| assert_eq!(note(false), "hello")).is_err());
//! ```
//!
//! A simulated file has a descriptor, which can neither be read nor written outside. Of the metadata, type, length,
//! rights and the times that were set or made by writing are right, and the rest is that of another file. The
//! simulation begins on the first of January 2000. Owners cannot be changed, and a file of the kernel is an error.
//!
//! # What is outside
//!
//! Pipes, signals, processes, jobs on other OS threads and other hubs are an error in a simulation:
//! `io::ErrorKind::Unsupported`, or a panic where a call has no error. Nothing waits for the kernel: a wait that only
//! the outside could end is a deadlock. What does not go through this crate is not seen: files and OS threads of std,
//! and without `monkey` its sockets, are there as ever, and with them chance.
//!
//! # What is a failure
//!
//! [`FailureKind`] has the list. A thread is detached as in std; but when main has returned, the others run until
//! nothing can ever run again, and a thread that is left then has leaked. So has a [`Tracked`] value that was not
//! dropped by then, a socket that is still open (also one that was converted into std's type, which cannot close what
//! is simulated), and what is out of a lock, a semaphore or a channel that was to be [free at the end](free_at_end).
//! The report has the place where each was made or asked for.
//!
//! # What a program can check
//!
//! * What holds at a moment: `assert!`. What holds whenever no thread runs: [`invariant`]. What comes in time:
//!   [`assert_eventually`].
//! * What threads did together: a [`History`] of calls and results, against a model that makes one call at a time.
//! * All that for any input: a property test (of `proptest`, say) calls [`Config::check`] with each input. The
//!   property test shrinks the input, the exploration the schedule; `tests/sim/property.rs` is one.
//!
//! # The environment
//!
//! `GREENLING_SEED=..` makes each [`run`], [`explore`] and [`kill_sweep`] of the process run the [`Schedule`] that it
//! names, and nothing else. Simulations that run inside of another one keep their own.
#![forbid(unsafe_code)]

mod calls;
mod config;
mod explore;
mod failure;
mod faults;
mod history;
mod left;
mod network;
mod registry;
mod world;

pub use calls::{
    advance, assert_eventually, choose, elapsed, invariant, is_simulated, may_fail, random, seed, transferred,
};
pub use config::{Config, Strategy};
pub use failure::{Explored, Failure, FailureKind, Trace};
pub use faults::Faults;
pub use history::{History, NotLinearizable};
pub use left::{Lends, Tracked, free_at_end};
pub use network::{Link, Network, current_host_name, host, network};

pub use crate::pure::schedule::{ParseScheduleError, Schedule};
pub use crate::sys::fault::FaultKind;

/// Runs `f` under a virtual clock, on an OS thread and a hub of its own, in the schedule that `seed` draws. Returns the
/// result.
///
/// # Panics
/// With the panic of `f`. If the run [fails](FailureKind) in another way. In each case the line that replays the run is
/// on standard error. If an OS thread or a hub could not be made.
///
/// While `f` runs, its turns are not counted, and if it never returns, neither does this; [`Config::max_turns`] sets a
/// bound. Threads that still run a million turns after `f` has returned fail with [`NoEnd`](FailureKind::NoEnd).
///
/// May switch: no; the OS thread waits, until the simulation is over.
#[track_caller]
pub fn run<R: Send>(seed: u64, f: impl FnOnce() -> R + Send) -> R {
    Config::new().max_turns(u64::MAX).seed(seed).run(f)
}

/// Runs `f` in many schedules, until one fails. `f` is called for each.
///
/// # Panics
/// If a schedule fails: with the [`Failure`], which has the line that replays it. As [`Config::check`].
///
/// May switch: no; the OS thread waits.
#[track_caller]
pub fn explore(config: Config, f: impl Fn() + Sync) -> Explored {
    match config.check(f) {
        Ok(explored) => explored,
        Err(failure) => panic!("{failure}"),
    }
}

/// Runs `f` once for each suspension of a thread other than main, and kills the thread there: a scenario that holds in
/// all of them loses nothing to a kill. `f` is to take it that any one of its threads was killed.
///
/// ```
/// use greenling::{sim, spawn, sync::Mutex};
/// use std::rc::Rc;
///
/// let swept = sim::kill_sweep(sim::Config::new().strategy(sim::Strategy::Fifo), || {
///     let lock = Rc::new(Mutex::new(0));
///     let threads: Vec<_> = (0..3).map(|_| {
///         let lock = lock.clone();
///         spawn(move || {
///             let mut held = lock.lock().unwrap();
///             greenling::yield_now();
///             *held += 1;
///         })
///     }).collect();
///     let ended = threads.into_iter().map(|thread| thread.join()).filter(Result::is_ok).count();
///     assert_eq!(*lock.lock().unwrap(), ended); // the lock is free, and each thread that ended has counted
/// });
/// assert!(swept.is_complete());
/// ```
///
/// # Panics
/// As [`explore`].
///
/// May switch: no; the OS thread waits.
#[track_caller]
pub fn kill_sweep(config: Config, f: impl Fn() + Sync) -> Explored {
    match config.check_kills(f) {
        Ok(explored) => explored,
        Err(failure) => panic!("{failure}"),
    }
}

/// Runs `f` once for each thing that can [go wrong](Faults), and lets that go wrong: a scenario that holds in all of
/// these runs stands any one of them.
///
/// ```
/// use greenling::sim::{self, Config, FaultKind, Faults};
/// use greenling::thread::Builder;
///
/// let faults = Faults::new().only(&[FaultKind::Spawn]);
/// let swept = sim::fault_sweep(Config::new().faults(faults), || {
///     let threads: Vec<_> = (0..3).filter_map(|_| Builder::new().spawn(|| ()).ok()).collect();
///     assert!(threads.len() >= 2);
///     threads.into_iter().for_each(|thread| thread.join().unwrap());
/// });
/// assert_eq!(swept.schedules(), 1 + 3 * 2); // nothing, or one of three, in one of two ways
/// ```
///
/// # Panics
/// As [`explore`].
///
/// May switch: no; the OS thread waits.
#[track_caller]
pub fn fault_sweep(config: Config, f: impl Fn() + Sync) -> Explored {
    match config.check_faults(f) {
        Ok(explored) => explored,
        Err(failure) => panic!("{failure}"),
    }
}

/// Runs `f` once for each suspension of a thread that has a time limit, and lets the time be over there: a scenario
/// that holds in all of these runs loses nothing to a timeout, wherever it strikes.
///
/// ```
/// use greenling::{channel, sim, spawn, timeout};
/// use std::time::Duration;
///
/// let swept = sim::timeout_sweep(sim::Config::new(), || {
///     let (send, receive) = channel::bounded(1);
///     let sender = spawn(move || (0..3).for_each(|number| send.send(number).unwrap()));
///     let mut got = Vec::new();
///     while got.len() < 3 {
///         // A time limit takes a value or leaves it.
///         got.extend(timeout(Duration::from_secs(1), || receive.recv().unwrap()));
///     }
///     assert_eq!(got, [0, 1, 2]);
///     sender.join().unwrap();
/// });
/// assert!(swept.is_complete());
/// ```
///
/// # Panics
/// As [`explore`].
///
/// May switch: no; the OS thread waits.
#[track_caller]
pub fn timeout_sweep(config: Config, f: impl Fn() + Sync) -> Explored {
    match config.check_timeouts(f) {
        Ok(explored) => explored,
        Err(failure) => panic!("{failure}"),
    }
}
