//! What a program in a simulation can ask: where it is, what time it is, for a number, and that something holds.
#![forbid(unsafe_code)]

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::world::{World, elapsed as world_elapsed};
use crate::runtime::faults;
use crate::runtime::hub::existing_hub;
use crate::sys::clock;
use crate::sys::fault::FaultKind;
use crate::thread::sleep;

/// Reports whether the calling code runs in a simulation.
///
/// May switch: no.
pub fn is_simulated() -> bool {
    World::with(|_| ()).is_some()
}

/// Returns how much virtual time has passed since the begin of the run; zero outside of a simulation.
///
/// May switch: no.
pub fn elapsed() -> Duration {
    World::with(|_| world_elapsed()).unwrap_or_default()
}

/// Lets virtual time pass as if the calling thread computed for so long: no other thread runs meanwhile, and what is
/// due by then happens when the caller gives way. Without it a thread takes no time at all, however long it computes.
///
/// ```
/// use greenling::{sim, spawn, thread, timeout};
/// use std::time::Duration;
///
/// const MS: Duration = Duration::from_millis(1);
///
/// sim::Config::new().strategy(sim::Strategy::Fifo).run(|| {
///     let waits = spawn(|| timeout(4 * MS, thread::park));
///     thread::yield_now();
///     sim::advance(8 * MS);
///     // The time limit has passed, but was not noticed yet: the wake-up comes first.
///     waits.thread().unpark();
///     assert_eq!(waits.join().unwrap(), Ok(()));
/// });
/// ```
///
/// # Panics
/// Outside of a simulation.
///
/// May switch: no.
#[track_caller]
pub fn advance(duration: Duration) {
    let Some(hub) = existing_hub().filter(|_| is_simulated()) else { return inside(None) };
    hub.advance(clock::after(duration));
}

/// Returns the seed of the run; none outside of a simulation.
///
/// May switch: no.
pub fn seed() -> Option<u64> {
    World::with(|world| world.seed())
}

/// Returns 64 random bits, from a stream that the seed alone determines: for the program's data. A shrunk schedule
/// keeps the seed, and so the data.
///
/// # Panics
/// Outside of a simulation.
///
/// May switch: no.
#[track_caller]
pub fn random() -> u64 {
    inside(World::with(|world| world.random()))
}

/// Chooses a number below `count`, as a choice of the schedule: an exhaustive exploration tries them all, and shrinking
/// prefers 0.
///
/// ```
/// use greenling::sim::{self, Config, Strategy};
///
/// let all = Config::new().strategy(Strategy::Exhaustive { choices: usize::MAX });
/// let explored = all.check(|| assert!(sim::choose(2) + sim::choose(3) < 4)).unwrap();
/// assert_eq!(explored.schedules(), 6);
/// ```
///
/// # Panics
/// Outside of a simulation; if `count` is 0 or 2^32 or more.
///
/// May switch: no.
#[track_caller]
pub fn choose(count: usize) -> usize {
    assert!(count > 0 && u32::try_from(count).is_ok(), "a choice of {count} possibilities");
    inside(World::with(|world| world.choose_number(count)))
}

/// Fails if the calling code is to fail now, in one of the `possible` ways: for what a program has in place of the
/// outside world in its tests, a disk or a service of its own. Which of the kinds can happen at all, and how often, is
/// set by [`Config::faults`](super::Config::faults). Does nothing outside of a simulation.
///
/// ```
/// use greenling::sim::{self, Config, FaultKind, Faults};
/// use std::io;
///
/// /// A disk in memory, which a test can make fail.
/// fn write(disk: &mut Vec<u8>, bytes: &[u8]) -> io::Result<usize> {
///     sim::may_fail(&[FaultKind::Interrupted, FaultKind::NoMemory])?;
///     let moved = sim::transferred(bytes.len());
///     disk.extend(&bytes[..moved]);
///     Ok(moved)
/// }
///
/// // A caller that takes it that all is written at once is found out.
/// let swept = Config::new().faults(Faults::new().only(&[FaultKind::Short])).check_faults(|| {
///     let mut disk = Vec::new();
///     write(&mut disk, b"all of it").unwrap();
///     assert_eq!(disk, b"all of it");
/// });
/// assert!(swept.is_err());
/// ```
///
/// # Errors
/// That of the fault: [`FaultKind`] has the list.
///
/// May switch: no.
pub fn may_fail(possible: &[FaultKind]) -> io::Result<()> {
    faults::may_fail(possible)
}

/// Returns how many of `len` bytes a read or write of the calling code is to move: all of them, or fewer if it is to be
/// [short](FaultKind::Short) now, and then at least one. As [`may_fail`].
///
/// May switch: no.
pub fn transferred(len: usize) -> usize {
    faults::transferred(len)
}

/// Checks `f` whenever no thread runs, that is, between any two turns, until the run ends. `f` says that something does
/// not hold by a panic. It must not wait.
///
/// ```
/// use greenling::{sim, spawn};
/// use std::{cell::Cell, rc::Rc};
///
/// sim::run(1, || {
///     let (left, right) = (Rc::new(Cell::new(5)), Rc::new(Cell::new(5)));
///     let (l, r) = (left.clone(), right.clone());
///     sim::invariant(move || assert_eq!(l.get() + r.get(), 10));
///     spawn(move || {
///         left.set(left.get() - 3);
///         right.set(right.get() + 3); // no turn ends between the two
///         greenling::yield_now();
///     });
/// });
/// ```
///
/// # Panics
/// Outside of a simulation.
///
/// May switch: no.
#[track_caller]
pub fn invariant(f: impl Fn() + 'static) {
    inside(World::with(|world| world.add_invariant(Rc::new(f))))
}

/// Waits until `f` is true, for at most `limit`. In a simulation the time is virtual, so the limit may be long.
///
/// ```
/// use greenling::{sim, sleep, spawn};
/// use std::{cell::Cell, rc::Rc, time::Duration};
///
/// sim::run(1, || {
///     let done = Rc::new(Cell::new(false));
///     let flag = done.clone();
///     spawn(move || (sleep(Duration::from_secs(60)), flag.set(true)));
///     sim::assert_eventually(Duration::from_secs(3600), || done.get());
/// });
/// ```
///
/// # Panics
/// If `f` is still false after `limit`; as [`sleep`].
///
/// May switch: yes.
#[track_caller]
pub fn assert_eventually(limit: Duration, mut f: impl FnMut() -> bool) {
    let end = clock::after(limit);
    let mut pause = Duration::from_micros(1);
    while !f() {
        assert!(clock::monotonic_ns() < end, "it did not become true in {limit:?}");
        let left = Duration::from_nanos(end.saturating_sub(clock::monotonic_ns()));
        sleep(pause.min(left));
        // Long waits need few looks, and are seen at most twice as late as they are long.
        pause *= 2;
    }
}

/// Returns what a simulation has answered.
#[track_caller]
pub(super) fn inside<T>(answer: Option<T>) -> T {
    match answer {
        Some(answer) => answer,
        None => panic!("greenling: this call is for a simulation: see `sim::run`"),
    }
}
