//! What the Rust programs of this package share: which rows there are, how one is timed, how memory is read.
//!
//! ```text
//! PROGRAM rows                 the rows that this peer has, one a line
//! PROGRAM ROW MILLISECONDS     measures for about so long; prints `ROW VALUE UNIT`
//! PROGRAM memory TASKS         parks so many tasks; prints `memory VALUE UNIT TASKS`
//! PROGRAM echo                 prints `listening on ADDR` and serves until killed
//! ```
//!
//! A row that cannot be measured prints `ROW - REASON`. The programs in other languages do the same by the same rules.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, fs};

/// Threads in a batch of the row `spawn-join`.
pub const BATCH: u64 = 1000;

/// Bytes of an echo server's buffer.
pub const BUFFER: usize = 16 * 1024;

/// How many tasks are parked between two looks at the memory.
pub const CHUNK: u64 = 10_000;

/// What a peer can do. Each function does as many units as told, and returns how long they took, with the
/// set-up before and the clearing away after them left out.
#[derive(Clone, Copy, Default)]
pub struct Peer {
    /// So many round trips between two coroutines, by explicit switches.
    pub switch: Option<fn(u64) -> Duration>,
    /// So many threads that each yield so many times.
    pub yields: Option<fn(u64, u64) -> Duration>,
    /// The most threads that `yields` may be asked for, and why; none if there is no limit.
    pub most_threads: Option<(u64, &'static str)>,
    /// So many round trips between two threads that wake each other and wait.
    pub ping_pong: Option<fn(u64) -> Duration>,
    /// So many round trips between two threads that send a number to and fro over two channels.
    pub channel: Option<fn(u64) -> Duration>,
    /// So many batches of [`BATCH`] threads, spawned, then joined.
    pub spawn_join: Option<fn(u64) -> Duration>,
    /// Parks threads until the meter has enough.
    pub memory: Option<fn(&mut Meter)>,
    /// Serves echo for ever.
    pub echo: Option<fn()>,
}

impl Peer {
    /// Does what the command line says.
    pub fn main(self) -> ExitCode {
        let args: Vec<String> = env::args().skip(1).collect();
        let row = args.first().map_or("", String::as_str);
        let number = args.get(1).and_then(|number| number.parse::<u64>().ok()).filter(|&number| number > 0);
        match (row, number) {
            ("rows", _) => self.rows().iter().for_each(|row| println!("{row}")),
            ("echo", _) if self.echo.is_some() => self.echo.expect("just seen")(),
            ("memory", Some(count)) if self.memory.is_some() => {
                let mut meter = Meter::start(count);
                self.memory.expect("just seen")(&mut meter);
                // What is parked stays so until the process ends.
                std::process::exit(i32::from(!meter.print()));
            }
            (row, Some(milliseconds)) => return self.measure(row, Duration::from_millis(milliseconds)),
            _ => {
                eprintln!("usage: PROGRAM rows | ROW MILLISECONDS | memory TASKS | echo");
                return ExitCode::from(2);
            }
        }
        ExitCode::SUCCESS
    }

    fn rows(&self) -> Vec<&'static str> {
        [
            ("switch", self.switch.is_some()),
            ("yield/2", self.yields.is_some()),
            ("yield/1000", self.yields.is_some()),
            ("yield/100000", self.yields.is_some()),
            ("ping-pong", self.ping_pong.is_some()),
            ("channel", self.channel.is_some()),
            ("spawn-join", self.spawn_join.is_some()),
            ("memory", self.memory.is_some()),
            ("echo", self.echo.is_some()),
        ]
        .into_iter()
        .filter_map(|(row, there)| there.then_some(row))
        .collect()
    }

    fn measure(&self, row: &str, budget: Duration) -> ExitCode {
        let threads = row.strip_prefix("yield/").and_then(|threads| threads.parse::<u64>().ok());
        if let (Some(threads), Some((most, why))) = (threads, self.most_threads)
            && threads > most
        {
            // More threads than the peer can have: a row without a figure.
            println!("{row} - {why}");
            return ExitCode::SUCCESS;
        }
        let (ns, unit) = match (row, threads) {
            ("switch", _) if self.switch.is_some() => {
                (settle(budget, 1, self.switch.expect("just seen")), "ns/round-trip")
            }
            ("ping-pong", _) if self.ping_pong.is_some() => {
                (settle(budget, 1, self.ping_pong.expect("just seen")), "ns/round-trip")
            }
            ("channel", _) if self.channel.is_some() => {
                (settle(budget, 1, self.channel.expect("just seen")), "ns/round-trip")
            }
            ("spawn-join", _) if self.spawn_join.is_some() => {
                (settle(budget, BATCH, self.spawn_join.expect("just seen")), "ns/thread")
            }
            (_, Some(threads)) if self.yields.is_some() => {
                let yields = self.yields.expect("just seen");
                (settle(budget, threads, |rounds| yields(threads, rounds)), "ns/yield")
            }
            _ => {
                // A row that the peer has no function for.
                println!("{row} - it has no such thing");
                return ExitCode::SUCCESS;
            }
        };
        println!("{row} {ns:.2} {unit}");
        ExitCode::SUCCESS
    }
}

/// Nanoseconds per unit of `f`, of which one call of `f(n)` does `n * per`. Repeats with more units until they take as
/// long as the budget; the last time counts, those before it warm up. There are at least two.
fn settle(budget: Duration, per: u64, f: impl Fn(u64) -> Duration) -> f64 {
    let mut units = (2000 / per).max(20);
    let mut warm = false;
    loop {
        let took = f(units);
        if warm && took >= budget {
            return took.as_nanos() as f64 / (units * per) as f64;
        }
        warm = true;
        let missing = 1.1 * budget.as_secs_f64() / took.as_secs_f64().max(1e-9);
        if missing > 1.0 {
            units = (units as f64 * missing.clamp(1.5, 16.0)).ceil() as u64;
        }
    }
}

/// Where the threads of a yield row begin together and end together, so that neither their first turn nor their end is
/// measured.
#[derive(Default)]
pub struct Gate {
    /// How many threads have had their first turn.
    arrived: AtomicU64,
    /// Set by the driver when all have.
    open: AtomicBool,
    /// How many are not through yet; meaningful once the gate is open.
    left: AtomicU64,
    /// When the last one got through.
    end: OnceLock<Instant>,
}

impl Gate {
    /// A gate for one run. The gate is never freed: a few bytes, a few times.
    pub fn new() -> &'static Gate {
        Box::leak(Box::default())
    }

    /// Whether so many threads have come; if so, the gate opens now.
    pub fn opens(&self, threads: u64) -> Option<Instant> {
        if self.arrived.load(Relaxed) < threads {
            return None;
        }
        self.left.store(threads, Relaxed);
        let start = Instant::now();
        self.open.store(true, Relaxed);
        Some(start)
    }

    /// From the opening to the last thread's last yield.
    pub fn took(&self, start: Instant) -> Duration {
        *self.end.get().expect("all threads are through") - start
    }

    /// A thread has its first turn.
    pub fn arrive(&self) {
        self.arrived.fetch_add(1, Relaxed);
    }

    /// Whether the rounds may begin.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// A thread has done its rounds.
    pub fn leave(&self) {
        if self.left.fetch_sub(1, Relaxed) == 1 {
            self.end.get_or_init(Instant::now);
        }
    }

    /// Whether all threads have done their rounds.
    pub fn is_left(&self) -> bool {
        self.left.load(Relaxed) == 0
    }
}

/// What each thread of a yield row does: `pass!(gate, rounds, yield_now())`. A macro, so that the yield stands in the
/// thread's own body as it would in a program: one frame more to return through, and the processor mispredicts it after
/// each switch.
#[macro_export]
macro_rules! pass {
    ($gate:expr, $rounds:expr, $($yield:tt)+) => {{
        $gate.arrive();
        while !$gate.is_open() {
            $($yield)+;
        }
        for _ in 0..$rounds {
            $($yield)+;
        }
        $gate.leave();
        while !$gate.is_left() {
            $($yield)+;
        }
    }};
}

/// Reads the memory of this process, and says when to stop: when there are enough tasks, or when they take more than
/// a third of what the machine has free.
pub struct Meter {
    /// Tasks to park before the measurement ends.
    wanted: u64,
    /// Tasks parked so far.
    parked: u64,
    /// Bytes before the first one.
    before: u64,
    /// Bytes that the tasks may take.
    most: u64,
    /// Why there are fewer than wanted, if that is so.
    limit: Option<String>,
}

impl Meter {
    fn start(wanted: u64) -> Meter {
        let most = field("/proc/meminfo", "MemAvailable:") / 3;
        Meter { wanted, parked: 0, before: memory(), most, limit: None }
    }

    /// How many to park next, at most [`CHUNK`]; 0 if that is all. All that were asked for before are parked by now.
    pub fn grant(&mut self) -> u64 {
        if memory().saturating_sub(self.before) > self.most {
            self.stop("a third of the free memory is used up");
        }
        if self.limit.is_some() {
            return 0;
        }
        let granted = CHUNK.min(self.wanted - self.parked);
        self.parked += granted;
        granted
    }

    /// Parks no more, for this reason. Of the last chunk `missing` are not there.
    pub fn fail(&mut self, missing: u64, why: impl ToString) {
        self.parked -= missing;
        self.stop(why);
    }

    fn stop(&mut self, why: impl ToString) {
        self.limit.get_or_insert(why.to_string());
    }

    /// Prints the row; false if there is nothing to print.
    fn print(&self) -> bool {
        if self.parked == 0 {
            println!("memory - {}", self.limit.as_deref().unwrap_or("nothing was parked"));
            return false;
        }
        let each = memory().saturating_sub(self.before) as f64 / self.parked as f64;
        let limit = self.limit.as_ref().map_or(String::new(), |limit| format!(" {limit}"));
        println!("memory {each:.0} bytes/task {}{limit}", self.parked);
        true
    }
}

/// Bytes of this process in memory, page tables included.
fn memory() -> u64 {
    field("/proc/self/status", "VmRSS:") + field("/proc/self/status", "VmPTE:")
}

/// A field in kB of a file of `/proc`, in bytes.
fn field(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).expect("proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the field is there");
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).expect("a number of kB") * 1024
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_first_run_never_counts() {
        let warm = Cell::new(false);
        let slow_at_first = |units| Duration::from_nanos(units * if warm.replace(true) { 10 } else { 1_000_000 });
        assert_eq!(settle(Duration::from_millis(1), 1, slow_at_first), 10.0);
    }

    #[test]
    fn the_run_that_counts_fills_the_budget() {
        let budget = Duration::from_millis(5);
        let last = Cell::new(Duration::ZERO);
        let each = settle(budget, 1000, |batches| {
            last.set(Duration::from_nanos(batches * 1000 * 7));
            last.get()
        });
        assert_eq!(each, 7.0);
        assert!(last.get() >= budget, "{last:?}");
    }

    #[test]
    fn a_gate_opens_for_all_and_times_up_to_the_last() {
        let gate = Gate::new();
        gate.arrive();
        assert!(gate.opens(2).is_none());
        gate.arrive();
        let start = gate.opens(2).expect("both are there");
        gate.leave();
        assert!(!gate.is_left());
        std::thread::sleep(Duration::from_millis(2));
        gate.leave();
        assert!(gate.is_left());
        assert!(gate.took(start) >= Duration::from_millis(2));
    }
}
