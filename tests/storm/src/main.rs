//! A storm of locks and channels, seeded: green threads with thread-locals of their own on several hubs, and OS threads
//! beside them, do fifteen kinds of operation on one set of locks and channels of std and of the crates that everybody
//! uses. Each operation checks what must hold.
//!
//! ```text
//!   storm --operations 1000000 --seed 7 --hubs 2 --threads 100 --os-threads 3
//!   lives --lives 1000000
//! ```
//!
//! The first word is the part: `storm`, or `lives`, in which threads that allocate start and end one after the other, and
//! memory may not grow. A watchdog ends the process if nothing happens for half a minute, and says what each kind of
//! operation had done by then.

mod lives;
mod operations;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[cfg(any(feature = "jemalloc", feature = "mimalloc"))]
use greenling::monkey::Allocator;
use greenling::thread::Builder;

use operations::{OPERATIONS, live};
use world::World;

// Both wait in mutexes of C, which must not let others run.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: Allocator<tikv_jemallocator::Jemalloc> = Allocator(tikv_jemallocator::Jemalloc);

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: Allocator<mimalloc::MiMalloc> = Allocator(mimalloc::MiMalloc);

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the command line says.
struct Settings {
    /// Whether to run the lives in place of the storm.
    lives: bool,
    /// The number of operations in all, or of lives.
    count: u64,
    /// The number that all choices follow from, but for what the kernel decides.
    seed: u64,
    /// The number of OS threads with a hub.
    hubs: u64,
    /// The number of green threads on each hub.
    threads: u64,
    /// The number of OS threads that do the same without a hub.
    os_threads: u64,
}

impl Settings {
    /// Reads the command line.
    fn read() -> Result<Settings, lexopt::Error> {
        use lexopt::prelude::*;
        let mut settings = Settings { lives: false, count: 100_000, seed: 1, hubs: 2, threads: 100, os_threads: 3 };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Value(part) if part == "storm" => settings.lives = false,
                Value(part) if part == "lives" => settings.lives = true,
                Long("operations" | "lives") => settings.count = parser.value()?.parse()?,
                Long("seed") => settings.seed = parser.value()?.parse()?,
                Long("hubs") => settings.hubs = parser.value()?.parse()?,
                Long("threads") => settings.threads = parser.value()?.parse()?,
                Long("os-threads") => settings.os_threads = parser.value()?.parse()?,
                other => return Err(other.unexpected()),
            }
        }
        Ok(settings)
    }
}

fn main() -> ExitCode {
    let settings = match Settings::read() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("storm: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = greenling::thread::own_thread_locals_supported() {
        println!("SKIPPED: {error}");
        return ExitCode::SUCCESS;
    }
    patch();
    if settings.lives { lives::run(settings.count) } else { storm(&settings) }
}

/// Patches the C library's blocking calls, and the locks.
#[allow(unsafe_code)]
fn patch() {
    // SAFETY: all that runs here waits only in threads with thread-locals of their own, in mains of hubs, and on OS
    // threads without green threads; none holds a C library's state over a wait.
    unsafe { greenling::monkey::patch_all() }.expect("not patched yet");
    // SAFETY: as above.
    unsafe { greenling::monkey::patch_locks() }.expect("not patched yet");
}

/// Runs the storm, and prints what was done.
fn storm(settings: &Settings) -> ExitCode {
    let begin = Instant::now();
    let world = Arc::new(World::new(settings.count));
    watch(Arc::clone(&world));
    let mut os_threads = Vec::new();
    for number in 0..settings.os_threads {
        let (world, seed) = (Arc::clone(&world), settings.seed + 1_000_000 + number);
        os_threads.push(std::thread::spawn(move || live(&world, seed)));
    }
    for hub in 0..settings.hubs {
        let (world, seed, count) = (Arc::clone(&world), settings.seed + 1000 * hub, settings.threads);
        os_threads.push(std::thread::spawn(move || serve(&world, seed, count)));
    }
    let failed = os_threads.into_iter().map(std::thread::JoinHandle::join).filter(Result::is_err).count();
    let (sent, received) = (world.sent.load(Ordering::SeqCst), world.received.load(Ordering::SeqCst));
    for (done, (name, _)) in world.done.iter().zip(OPERATIONS) {
        println!("{:>10} {name}", done.load(Ordering::Relaxed));
    }
    println!(
        "{} operations, {failed} threads failed, sent {sent}, received {received}, {:.1} s",
        world.total(),
        begin.elapsed().as_secs_f64()
    );
    if failed == 0 && sent == received { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a hub with `count` green threads that have thread-locals of their own.
fn serve(world: &Arc<World>, seed: u64, count: u64) {
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let world = Arc::clone(world);
            Builder::new().own_thread_locals().spawn(move || live(&world, seed + number)).expect("memory for a thread")
        })
        .collect();
    let ended: Vec<_> = threads.into_iter().map(greenling::thread::JoinHandle::join).collect();
    assert!(ended.iter().all(Result::is_ok), "a green thread failed");
}

/// Ends the process when nothing was done for some time.
fn watch(world: Arc<World>) {
    std::thread::spawn(move || {
        let mut before = 0;
        loop {
            std::thread::sleep(PATIENCE);
            let now = world.total();
            if now == before {
                eprintln!("storm: nothing was done for {PATIENCE:?}; so far:");
                for (done, (name, _)) in world.done.iter().zip(OPERATIONS) {
                    eprintln!("{:>10} {name}", done.load(Ordering::Relaxed));
                }
                std::process::exit(3);
            }
            before = now;
        }
    });
}
