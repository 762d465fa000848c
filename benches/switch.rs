//! What a switch, a yield and a spawn cost, as a ratio to corosensei's raw resume + suspend pair; and what the locks of
//! `hub::sync` cost without contention, as a ratio to std's.
//!
//! Every row alternates with the yardstick, round by round, in one process on one core; value and ratio are medians, so
//! a machine that slows down for a while slows both. `cargo bench --bench switch`; rows can be chosen by the beginning
//! of their names: `cargo bench --bench switch -- yield`. A bar that is missed is printed as MISS; nothing fails.
//!
//! `cargo bench --bench switch -- --curve` prints the curve of a yield instead, from 2 to a million threads, with fewer
//! rounds (`-- --curve yield/1000000` one point of it). `-- --json FILE` writes what it found to a file, too.
//!
//! `limit/yield/N` is a program that touches the cache lines and pages of the yields of N threads, and does nothing else
//! (`limit/mod.rs`). It takes turns with the yields themselves, and says how many times as long they take.
//! `-- --layouts` prints that program alone, with the lines and pages in other places than ours.

#[path = "limit/mod.rs"]
mod limit;
#[path = "results/mod.rs"]
mod results;

use std::collections::VecDeque;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use corosensei::Coroutine;
use greenling::hub::sync as shared;
use greenling::sync::{Mutex, Semaphore};
use greenling::{Greenlet, channel, spawn, thread, timeout, trace, yield_now};
use limit::{Layout, OURS, Stacks};

/// Rounds of each row.
const ROUNDS: usize = 9;

/// Rounds of each point of the curve.
const CURVE_ROUNDS: usize = 3;

/// Numbers of threads on the curve.
const CURVE: [u64; 7] = [2, 10, 100, 1000, 10_000, 100_000, 1_000_000];

/// One row: the name, the greatest cost as a multiple of the yardstick, and how to measure nanoseconds a unit.
struct Row {
    name: &'static str,
    bar: Option<f64>,
    measure: Box<dyn FnMut() -> f64>,
    /// Nanoseconds of the yardstick: the raw pair; for the shared locks, std's.
    yardstick: fn() -> f64,
    /// The name of the row's limit, and nanoseconds of it, for a row that has one.
    limit: Option<Limit>,
}

/// The name of a limit, and how to measure nanoseconds a unit.
type Limit = (&'static str, fn() -> f64);

/// The layouts that `--layouts` compares, with ours first.
const LAYOUTS: [(&str, Layout); 9] = [
    ("as it is", OURS),
    ("no colours", Layout { colours: 1, ..OURS }),
    ("16 page colours", Layout { pages: 16, ..OURS }),
    ("blocks apart, large pages", Layout { apart: true, ..OURS }),
    ("64 KiB stacks", Layout { stride: 64 << 10, ..OURS }),
    ("16 KiB stacks", Layout { stride: 16 << 10, ..OURS }),
    ("260 KiB from top to top", Layout { stride: 260 << 10, ..OURS }),
    ("turns in random order", Layout { shuffled: true, ..OURS }),
    ("random, blocks apart", Layout { shuffled: true, apart: true, ..OURS }),
];

/// Nanoseconds for each thread and turn of what touches the lines of so many yields, in this layout.
fn touches(threads: usize, layout: Layout) -> f64 {
    let mut stacks = Stacks::new(threads, layout).expect("address space and memory");
    stacks.turns((5_000_000 / threads).max(20))
}

/// Prints what the lines of a yield take in each of the layouts, all of them in turns.
fn compare_layouts() {
    for threads in [10, 100, 1000, 10_000, 100_000] {
        println!("-- {threads} threads");
        let mut values = vec![Vec::new(); LAYOUTS.len()];
        for _ in 0..ROUNDS {
            for ((_, layout), values) in LAYOUTS.iter().zip(&mut values) {
                values.push(touches(threads, *layout));
            }
        }
        let ours = median(&mut values[0]);
        for ((name, _), values) in LAYOUTS.iter().zip(&mut values) {
            let value = median(values);
            println!("{name:<26} {value:>9.2}  ns    {:>12.2}", value / ours);
            results::note(&format!("layout/{threads}/{name}"), "ns", values, Some(value / ours));
        }
    }
}

/// Nanoseconds per unit of `f`, which does `units`.
fn time(units: u64, f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_nanos() as f64 / units as f64
}

/// One resume and one suspend of a coroutine that does nothing else.
fn raw_pair() -> f64 {
    const N: u64 = 5_000_000;
    let mut coroutine = Coroutine::new(|yielder: &corosensei::Yielder<(), ()>, ()| {
        for _ in 0..N {
            yielder.suspend(());
        }
    });
    time(N, || {
        for _ in 0..N {
            coroutine.resume(());
        }
        coroutine.resume(());
    })
}

/// `threads` green threads that do nothing but yield; nanoseconds per yield.
fn yields(threads: u64) -> f64 {
    yields_of(threads, |rounds| spawn(move || yield_often(rounds)))
}

/// The same, of threads with thread-locals of their own.
fn own_yields(threads: u64) -> f64 {
    yields_of(threads, |rounds| own(move || yield_often(rounds)))
}

/// Yields `rounds` times.
#[inline(always)]
fn yield_often(rounds: u64) {
    for _ in 0..rounds {
        yield_now();
    }
}

/// Spawns a thread with thread-locals of its own.
fn own<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().own_thread_locals().spawn(body).expect("supported")
}

/// `threads` threads that yield as often as they are told; nanoseconds per yield.
fn yields_of(threads: u64, spawn: impl Fn(u64) -> thread::JoinHandle<()>) -> f64 {
    let rounds = (5_000_000 / threads).max(20);
    let handles: Vec<_> = (0..threads).map(|_| spawn(rounds)).collect();
    // The first turn maps the stacks.
    yield_now();
    time((rounds - 1) * threads, || {
        for handle in handles {
            handle.join().expect("a thread that only yields");
        }
    })
}

/// Two threads that yield while a trace is on; nanoseconds per yield, each of which is two events.
fn traced_yields() -> f64 {
    traced(|| yields(2))
}

/// Marks of a trace, with a text of 16 bytes; nanoseconds per event.
fn traced_marks() -> f64 {
    const N: u64 = 5_000_000;
    traced(|| time(N, || (0..N).for_each(|_| trace::mark(black_box("request 12345678")))))
}

/// Runs `f` while a trace is on.
fn traced(f: impl FnOnce() -> f64) -> f64 {
    trace::start(trace::Options::new()).expect("no other trace is on");
    let value = f();
    trace::stop().expect("started above");
    value
}

/// Two greenlets that pass a number to each other; nanoseconds per switch.
fn explicit_pair() -> f64 {
    const N: u64 = 5_000_000;
    let main = Greenlet::<u64>::main();
    let echo = Greenlet::new(|mut n: u64| {
        let partner = Greenlet::<u64>::current().parent().expect("made by its partner");
        loop {
            n = partner.switch(n + 1);
        }
    });
    let driver = Greenlet::new(move |first: u64| {
        // The partner's parent is this greenlet, so that the partner's switches come here.
        echo.set_parent(&Greenlet::current()).expect("no cycle");
        let mut n = first;
        let ns = time(2 * N, || {
            for _ in 0..N {
                n = echo.switch(n);
            }
        });
        assert_eq!(n, first + N);
        ns.to_bits()
    });
    let ns = driver.switch(7);
    drop(main);
    f64::from_bits(ns)
}

/// Main and one greenlet; nanoseconds per switch.
fn explicit_with_main() -> f64 {
    const N: u64 = 5_000_000;
    let main = Greenlet::<u64>::main();
    let echo = Greenlet::new(move |mut n: u64| {
        loop {
            n = main.switch(n + 1);
        }
    });
    let mut n = 0;
    time(2 * N, || {
        for _ in 0..N {
            n = echo.switch(n);
        }
    })
}

/// Batches of 1000 threads, spawned, then joined; nanoseconds per thread.
fn spawn_join_batches() -> f64 {
    const BATCHES: u64 = 500;
    time(BATCHES * 1000, || {
        let mut handles = Vec::with_capacity(1000);
        for _ in 0..BATCHES {
            handles.extend((0..1000u64).map(|i| spawn(move || i)));
            for handle in handles.drain(..) {
                black_box(handle.join().expect("a thread that returns"));
            }
        }
    })
}

/// Measures one thread at a time, spawned and joined; nanoseconds per thread.
fn spawn_join_single() -> f64 {
    const N: u64 = 500_000;
    time(N, || {
        for i in 0..N {
            black_box(spawn(move || i).join().expect("a thread that returns"));
        }
    })
}

/// Measures two threads that unpark each other; nanoseconds per round trip.
fn park_unpark() -> f64 {
    const N: u64 = 1_000_000;
    let pong: thread::JoinHandle<()> = spawn(|| {
        let ping = loop {
            thread::park();
            if let Some(ping) = PING.take() {
                break ping;
            }
        };
        loop {
            ping.unpark();
            thread::park();
        }
    });
    // Ping gives pong the handle, and both are parked once before the time is taken.
    let pong_thread = pong.thread().clone();
    let ping = spawn(move || {
        PING.set(Some(thread::current()));
        pong_thread.unpark();
        thread::park();
        time(N, || {
            for _ in 0..N {
                pong_thread.unpark();
                thread::park();
            }
        })
    });
    let ns = ping.join().expect("ping");
    // Pong has no end.
    pong.kill();
    let _ = pong.join();
    ns
}

thread_local! {
    /// How ping tells pong the handle of ping.
    static PING: std::cell::Cell<Option<thread::Thread>> = const { std::cell::Cell::new(None) };
}

/// Measures a `timeout` around a call that does not block; nanoseconds per call.
fn timeout_unexpired() -> f64 {
    const N: u64 = 2_000_000;
    time(N, || {
        for i in 0..N {
            black_box(timeout(Duration::from_secs(60), || black_box(i)).expect("in time"));
        }
    })
}

/// Measures a `Mutex` without contention; nanoseconds per lock and unlock.
fn mutex_uncontended() -> f64 {
    const N: u64 = 10_000_000;
    let mutex = Mutex::new(0);
    let ns = time(N, || {
        for _ in 0..N {
            *black_box(&mutex).lock().expect("no thread panics") += 1;
        }
    });
    assert_eq!(mutex.into_inner().expect("no thread panics"), N);
    ns
}

/// Measures a `Semaphore` with a free permit; nanoseconds per acquire and release.
fn semaphore_uncontended() -> f64 {
    const N: u64 = 10_000_000;
    let semaphore = Semaphore::new(1);
    time(N, || {
        for _ in 0..N {
            drop(black_box(black_box(&semaphore).acquire()));
        }
    })
}

/// Measures what a channel puts values into, alone; nanoseconds per push and pop.
fn vec_deque() -> f64 {
    const N: u64 = 10_000_000;
    let mut values = VecDeque::with_capacity(4);
    let ns = time(N, || {
        for i in 0..N {
            black_box(&mut values).push_back(i);
            black_box(black_box(&mut values).pop_front());
        }
    });
    assert!(values.is_empty());
    ns
}

/// Measures a channel with room, used by one thread; nanoseconds per send and receive.
fn channel_uncontended() -> f64 {
    const N: u64 = 10_000_000;
    let (send, receive) = channel::bounded(4);
    time(N, || {
        for i in 0..N {
            black_box(&send).send(i).expect("the receiver is here");
            black_box(black_box(&receive).recv().expect("it was sent"));
        }
    })
}

/// How many threads wait at once in [`waits`].
const WAITERS: u64 = 1000;

/// Measures batches of threads that begin to wait, are woken and end; nanoseconds per thread.
fn waits(wait: fn()) -> f64 {
    const BATCHES: u64 = 200;
    let mut handles = Vec::with_capacity(WAITERS as usize);
    time(BATCHES * WAITERS, || {
        for _ in 0..BATCHES {
            handles.extend((0..WAITERS).map(|_| spawn(wait)));
            yield_now();
            handles.iter().for_each(|handle| handle.thread().unpark());
            handles.drain(..).for_each(|handle| handle.join().expect("a thread that was woken"));
        }
    })
}

/// Measures two threads that pass a number to and fro over two channels; nanoseconds per round trip.
fn channel_ping_pong() -> f64 {
    const N: u64 = 1_000_000;
    let (ping, pinged) = channel::bounded(1);
    let (pong, ponged) = channel::bounded(1);
    let echo = spawn(move || {
        while let Ok(n) = pinged.recv() {
            if pong.send(n + 1).is_err() {
                break;
            }
        }
    });
    // The side that counts.
    let driver = spawn(move || {
        let mut n = 0_u64;
        let ns = time(N, || {
            for _ in 0..N {
                ping.send(n).expect("the other side echoes");
                n = ponged.recv().expect("the other side echoes");
            }
        });
        assert_eq!(n, N);
        ns
    });
    let ns = driver.join().expect("no panic");
    echo.join().expect("it ends with its channel");
    ns
}

/// Measures two threads that let each other go on by two semaphores; nanoseconds per round trip.
fn semaphore_ping_pong() -> f64 {
    const N: u64 = 1_000_000;
    let (ping, pong) = (Rc::new(Semaphore::new(0)), Rc::new(Semaphore::new(0)));
    let (pinged, ponged) = (Rc::clone(&ping), Rc::clone(&pong));
    let echo = spawn(move || {
        for _ in 0..N {
            pinged.acquire().forget();
            pong.release().expect("no bound");
        }
    });
    // The side that counts.
    let driver = spawn(move || {
        time(N, || {
            for _ in 0..N {
                ping.release().expect("no bound");
                ponged.acquire().forget();
            }
        })
    });
    let ns = driver.join().expect("no panic");
    echo.join().expect("no panic");
    ns
}

/// Measures two threads that want one `Mutex` and hold it over a yield; nanoseconds per lock, which each time is handed
/// over by the other thread, and per yield.
fn mutex_hand_over() -> f64 {
    const N: u64 = 1_000_000;
    let mutex = Rc::new(Mutex::new(0));
    let both = [Rc::clone(&mutex), Rc::clone(&mutex)].map(|mutex| {
        move || {
            for _ in 0..N {
                let mut guard = mutex.lock().expect("no thread panics");
                *guard += 1;
                yield_now();
            }
        }
    });
    let ns = time(2 * N, || both.map(spawn).into_iter().for_each(|thread| thread.join().expect("no thread panics")));
    assert_eq!(*mutex.lock().expect("no thread panics"), 2 * N);
    ns
}

/// Measures a timer that is put into the wheel and taken out again, among a thousand others: what threads that wait for
/// an hour at most cost more than threads that wait without a limit. Each has a wheel entry of its own until its end.
fn timer_insert_cancel() -> f64 {
    waits(|| thread::park_timeout(Duration::from_secs(3600))) - waits(thread::park)
}

/// Measures a wait with a limit that ends in time, again and again in one thread: the wheel entry is there already.
fn timer_again() -> f64 {
    const N: u64 = 1_000_000;
    let waiter = spawn(|| (0..N).for_each(|_| thread::park_timeout(Duration::from_secs(3600))));
    let handle = waiter.thread().clone();
    yield_now();
    let ns = time(N, || {
        for _ in 0..N {
            handle.unpark();
            yield_now();
        }
    });
    waiter.join().expect("a thread that was woken");
    ns
}

/// Nanoseconds of `f`, which takes a lock and releases the lock.
fn lock_and_unlock(mut f: impl FnMut()) -> f64 {
    const N: u64 = 2_000_000;
    time(N, || (0..N).for_each(|_| f()))
}

/// std's `Mutex`, which the OS thread alone uses.
fn std_mutex() -> f64 {
    let lock = std::sync::Mutex::new(0_u64);
    lock_and_unlock(|| *black_box(&lock).lock().expect("sound") += 1)
}

/// `hub::sync`'s `Mutex`, which one OS thread alone uses.
fn shared_mutex() -> f64 {
    let lock = shared::Mutex::new(0_u64);
    lock_and_unlock(|| *black_box(&lock).lock().expect("sound") += 1)
}

/// std's `RwLock`, locked to read.
fn std_read() -> f64 {
    let lock = std::sync::RwLock::new(0_u64);
    lock_and_unlock(|| _ = black_box(*black_box(&lock).read().expect("sound")))
}

/// `hub::sync`'s `RwLock`, locked to read.
fn shared_read() -> f64 {
    let lock = shared::RwLock::new(0_u64);
    lock_and_unlock(|| _ = black_box(*black_box(&lock).read().expect("sound")))
}

/// std's `RwLock`, locked to write.
fn std_write() -> f64 {
    let lock = std::sync::RwLock::new(0_u64);
    lock_and_unlock(|| *black_box(&lock).write().expect("sound") += 1)
}

/// `hub::sync`'s `RwLock`, locked to write.
fn shared_write() -> f64 {
    let lock = shared::RwLock::new(0_u64);
    lock_and_unlock(|| *black_box(&lock).write().expect("sound") += 1)
}

/// std's `OnceLock`, which is full.
fn std_once_lock() -> f64 {
    let lock = std::sync::OnceLock::from(1_u64);
    lock_and_unlock(|| _ = black_box(black_box(&lock).get_or_init(|| 2)))
}

/// `hub::sync`'s `OnceLock`, which is full.
fn shared_once_lock() -> f64 {
    let lock = shared::OnceLock::from(1_u64);
    lock_and_unlock(|| _ = black_box(black_box(&lock).get_or_init(|| 2)))
}

/// Spawns and joins one thread with thread-locals of its own at a time; nanoseconds per thread.
fn own_spawn_join() -> f64 {
    const N: u64 = 500_000;
    time(N, || {
        for i in 0..N {
            black_box(own(move || i).join().expect("a thread that returns"));
        }
    })
}

/// Returns the median of `values`.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the limit of a row, if there is one.
fn limit_of(row: &str) -> Option<Limit> {
    match row {
        "yield/1000" => Some(("limit/yield/1000", || touches(1000, OURS))),
        "yield/100000" => Some(("limit/yield/100000", || touches(100_000, OURS))),
        _ => None,
    }
}

impl Row {
    /// Reports whether the name of the row, or that of its limit, begins so.
    fn is_named(&self, begin: &str) -> bool {
        self.name.starts_with(begin) || self.limit.is_some_and(|(name, _)| name.starts_with(begin))
    }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = results::take_option("switch", &mut arguments) {
        eprintln!("switch: {error}");
        std::process::exit(2);
    }
    let wanted: Vec<String> = arguments.iter().filter(|arg| !arg.starts_with("--")).cloned().collect();
    // First the rows with the raw pair as their yardstick, then those with a lock of std's.
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |name, bar, measure: Box<dyn FnMut() -> f64>| {
        rows.push(Row { name, bar, measure, yardstick: raw_pair, limit: None })
    };
    row("switch/greenlets", Some(2.0), Box::new(explicit_pair));
    row("switch/with-main", Some(2.0), Box::new(explicit_with_main));
    row("yield/2", Some(2.5), Box::new(|| yields(2)));
    row("yield/1000", Some(4.0), Box::new(|| yields(1000)));
    row("yield/100000", None, Box::new(|| yields(100_000)));
    row("spawn+join/batch", Some(20.0), Box::new(spawn_join_batches));
    row("spawn+join/single", None, Box::new(spawn_join_single));
    row("park+unpark/round-trip", None, Box::new(park_unpark));
    row("sleep/insert+cancel", None, Box::new(timer_insert_cancel));
    row("sleep/again", None, Box::new(timer_again));
    row("timeout/unexpired", None, Box::new(timeout_unexpired));
    row("mutex/uncontended", None, Box::new(mutex_uncontended));
    row("semaphore/uncontended", None, Box::new(semaphore_uncontended));
    row("mutex/hand-over", None, Box::new(mutex_hand_over));
    row("semaphore/ping-pong", None, Box::new(semaphore_ping_pong));
    row("vecdeque/push+pop", None, Box::new(vec_deque));
    row("channel/uncontended", None, Box::new(channel_uncontended));
    row("channel/ping-pong", Some(12.0), Box::new(channel_ping_pong));
    row("traced yield/2", None, Box::new(traced_yields));
    row("traced mark", None, Box::new(traced_marks));
    if thread::own_thread_locals_supported().is_ok() {
        // 20 and 80 ns on the machine of docs/measurements.md.
        row("own yield/2", None, Box::new(|| own_yields(2)));
        row("own yield/100", Some(9.0), Box::new(|| own_yields(100)));
        row("own yield/10000", None, Box::new(|| own_yields(10_000)));
        row("own spawn+join/single", Some(36.0), Box::new(own_spawn_join));
    }
    let mut beside = |name, yardstick, measure: fn() -> f64| {
        rows.push(Row { name, bar: Some(3.0), measure: Box::new(measure), yardstick, limit: None });
    };
    beside("shared mutex/uncontended", std_mutex, shared_mutex);
    beside("shared rwlock/read", std_read, shared_read);
    beside("shared rwlock/write", std_write, shared_write);
    beside("shared once/get", std_once_lock, shared_once_lock);

    // The curve has rows of its own.
    let curve = arguments.iter().any(|arg| arg == "--curve");
    let rounds = if curve { CURVE_ROUNDS } else { ROUNDS };
    if curve {
        rows.clear();
        for threads in CURVE {
            let name: &'static str = Box::leak(format!("yield/{threads}").into_boxed_str());
            let measure = Box::new(move || yields(threads));
            rows.push(Row { name, bar: None, measure, yardstick: raw_pair, limit: None });
        }
    }
    for row in &mut rows {
        row.limit = limit_of(row.name);
    }
    // A name that no row begins with is a typing error.
    let known = ["--bench", "--curve", "--layouts"];
    let option = arguments.iter().find(|arg| arg.starts_with("--") && !known.contains(&arg.as_str())).cloned();
    let unknown = option.or(wanted.iter().find(|name| !rows.iter().any(|row| row.is_named(name))).cloned());
    if let Some(unknown) = unknown {
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        eprintln!(
            "switch: nothing begins with {unknown}; there are --curve, --layouts, --json FILE, and the rows {}",
            names.join(", ")
        );
        std::process::exit(2);
    }
    println!("{:<24} {:>9}  unit  {:>12}  bar", "name", "value", "ratio");
    if arguments.iter().any(|arg| arg == "--layouts") {
        compare_layouts();
        rows.clear();
    }
    let mut raw: Vec<f64> = (0..rounds).map(|_| raw_pair()).collect();
    println!("{:<24} {:>9.2}  ns    {:>12.2}", "raw pair", median(&mut raw), 1.0);
    results::note("raw pair", "ns", &raw, Some(1.0));
    for mut row in rows {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| row.is_named(wanted)) {
            continue;
        }
        let (mut values, mut ratios) = (Vec::new(), Vec::new());
        let (mut limits, mut above) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let before = (row.yardstick)();
            let value = (row.measure)();
            let after = (row.yardstick)();
            values.push(value);
            ratios.push(value / ((before + after) / 2.0));
            if let Some((_, measure)) = row.limit {
                let limit = measure();
                limits.push(limit);
                above.push(value / limit);
            }
        }
        let ratio = median(&mut ratios);
        let verdict = match row.bar {
            None => String::from("-"),
            Some(bar) if ratio <= bar => format!("<= {bar:.1}  PASS"),
            Some(bar) => format!("<= {bar:.1}  MISS"),
        };
        println!("{:<24} {:>9.2}  ns    {ratio:>12.2}  {verdict}", row.name, median(&mut values));
        results::note(row.name, "ns", &values, Some(ratio));
        if let Some((name, _)) = row.limit {
            let (limit, above) = (median(&mut limits), median(&mut above));
            println!("{name:<24} {limit:>9.2}  ns    {:>12}  {} is {above:.2} x this", "", row.name);
            results::note(name, "ns", &limits, None);
        }
    }
    if let Err(error) = results::write() {
        eprintln!("switch: {error}");
        std::process::exit(1);
    }
}
