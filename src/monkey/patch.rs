//! The functions that patch: which parts are patched, and whether the program is linked so that patching has an effect.
//!
//! ```text
//!   patch_net: make a small call of std --- does the call arrive in this crate's `recv`? --no--> NotLinked
//!                                                  | yes
//!                                              the part's bit is set, for good
//! ```
//!
//! No code in memory is overwritten, and no OS thread is stopped: the crate's functions are linked from the start, and
//! read the bits each time. So a program may patch at any moment, and a call in progress stays as it is.
#![allow(unsafe_code)] // the functions are `unsafe fn`: see the module's contract

use std::fmt;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::gate::{arrives, part, patch, patched, try_allocators};
use super::random::getrandom;
use super::threads::{Choice, NewThread, set_choice};
use super::wait;
use crate::pure::lock::lock;
use crate::runtime::hub::hub;
use crate::sys::allocator::Locks;
use crate::sys::pthread::words;
use crate::thread::own_thread_locals_supported;

/// A group of functions that are patched together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The calls on sockets and pipes: read, write, connect, accept and the like.
    Net,
    /// The calls that sleep or yield; and those that tell the time, in a simulation.
    Sleep,
    /// The lookup of names.
    Dns,
    /// The calls that wait for several descriptors: poll, select, epoll_wait.
    Poll,
    /// The calls that wait for children.
    Process,
    /// The locks of files: flock.
    Files,
    /// Random bytes, in a simulation.
    Random,
    /// The locks and channels of `std` and of crates like it, and C's own. Not a part of [`patch_all`].
    Locks,
    /// The creation of threads. Not a part of [`patch_all`].
    Threads,
}

impl Part {
    /// The parts that [`patch_all`] patches.
    const ALL: [Part; 7] = [Part::Net, Part::Sleep, Part::Dns, Part::Poll, Part::Process, Part::Files, Part::Random];

    /// Returns the bit of this part.
    fn bit(self) -> u32 {
        match self {
            Part::Net => part::NET,
            Part::Sleep => part::SLEEP,
            Part::Dns => part::DNS,
            Part::Poll => part::POLL,
            Part::Process => part::PROCESS,
            Part::Files => part::FILES,
            Part::Random => part::RANDOM,
            Part::Locks => part::LOCKS,
            Part::Threads => part::THREADS,
        }
    }

    /// Returns the C functions of this part.
    fn functions(self) -> &'static [&'static str] {
        match self {
            // Calls that wait for a peer, or for the other end of a pipe.
            Part::Net => &[
                "read",
                "write",
                "readv",
                "writev",
                "recv",
                "recvfrom",
                "recvmsg",
                "send",
                "sendto",
                "sendmsg",
                "accept",
                "accept4",
                "connect",
                "recvmmsg",
                "sendmmsg",
                "sendfile",
                "sendfile64",
                "splice",
                "tee",
            ],
            Part::Sleep => &[
                "nanosleep",
                "clock_nanosleep",
                "usleep",
                "sleep",
                "sched_yield",
                "clock_gettime",
                "gettimeofday",
                "time",
            ],
            Part::Dns => &[
                "getaddrinfo",
                "getnameinfo",
                "gethostbyname",
                "gethostbyname2",
                "gethostbyaddr",
                "gethostbyname_r",
                "gethostbyname2_r",
                "gethostbyaddr_r",
            ],
            Part::Poll => &["poll", "ppoll", "select", "pselect", "epoll_wait", "epoll_pwait", "epoll_pwait2"],
            Part::Process => &["wait", "wait3", "wait4", "waitpid", "waitid"],
            Part::Files => &["flock"],
            Part::Random => &["getrandom", "getentropy"],
            Part::Locks => LOCKS,
            Part::Threads => &[
                "pthread_create",
                "pthread_join",
                "pthread_tryjoin_np",
                "pthread_timedjoin_np",
                "pthread_clockjoin_np",
                "pthread_detach",
                "pthread_exit",
                "pthread_cancel",
                "pthread_setname_np",
                "pthread_getname_np",
                "pthread_getattr_np",
                "prctl",
            ],
        }
    }
}

/// The C functions of [`Part::Locks`].
const LOCKS: &[&str] = &[
    "syscall",
    "sched_yield",
    "pthread_join",
    "pthread_mutex_lock",
    "pthread_mutex_trylock",
    "pthread_mutex_timedlock",
    "pthread_mutex_clocklock",
    "pthread_mutex_unlock",
    "pthread_cond_wait",
    "pthread_cond_timedwait",
    "pthread_cond_clockwait",
    "pthread_cond_signal",
    "pthread_cond_broadcast",
    "pthread_rwlock_rdlock",
    "pthread_rwlock_wrlock",
    "pthread_rwlock_timedrdlock",
    "pthread_rwlock_timedwrlock",
    "pthread_rwlock_clockrdlock",
    "pthread_rwlock_clockwrlock",
    "pthread_rwlock_trywrlock",
    "pthread_rwlock_unlock",
    "sem_wait",
    "sem_timedwait",
    "sem_clockwait",
    "sem_post",
    "pthread_barrier_wait",
    "pthread_once",
];

/// What a call of [`patch_all`] or a similar function has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The parts that the call named.
    parts: Vec<Part>,
    /// The bits of the parts that were patched before.
    before: u32,
}

impl Report {
    /// Returns the parts that are patched now and were not before.
    ///
    /// May switch: no.
    pub fn newly_patched(&self) -> impl Iterator<Item = Part> + '_ {
        self.parts.iter().copied().filter(|part| part.bit() & self.before == 0)
    }

    /// Returns the names of the C functions of the patched parts.
    ///
    /// May switch: no.
    pub fn functions(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.parts.iter().flat_map(|part| part.functions()).copied()
    }
}

/// The reason why nothing was patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatchError {
    /// A call of `std` did not arrive at this crate's function: the program is linked in a way (`std` as a dynamic
    /// library, for one) in which the C library's functions come first.
    NotLinked,
    /// There is no memory to register a handler of forks with, or no OS thread to try the allocator on.
    NoMemory,
    /// The program's allocator takes locks of the C library, which [`patch_locks`] would turn green, and is not
    /// declared as an [`Allocator`](super::Allocator).
    Allocator,
    /// C's `malloc` was replaced (by a library that is linked or preloaded, say) by one that takes locks of the C
    /// library. The calls of C code to it cannot be told apart from others, so it cannot be used together with
    /// [`patch_locks`].
    Malloc,
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PatchError::NotLinked => "the program is linked so that its system calls do not go through greenling",
            PatchError::NoMemory => "there is no memory for a handler of forks, or for an OS thread",
            PatchError::Allocator => {
                "the program's allocator takes locks of the C library: declare it as greenling::monkey::Allocator"
            }
            PatchError::Malloc => "C's malloc was replaced by one that takes locks of the C library",
        })
    }
}

impl std::error::Error for PatchError {}

/// Converts to an error of kind `Unsupported`.
impl From<PatchError> for io::Error {
    fn from(error: PatchError) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, error)
    }
}

/// Held while a probe is made.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Checks that calls of `std` arrive here, by calls that move no data and do not wait.
fn verify() -> Result<(), PatchError> {
    let sleeps = || std::thread::sleep(Duration::from_nanos(1));
    let reads = || {
        if let Ok((mut near, far)) = UnixStream::pair() {
            drop(far);
            let _ = near.read(&mut [0]);
        } else {
            // No descriptors are left for a call; the probe of sleeping counts.
            sleeps();
        }
    };
    let _alone = lock(&ONE_AT_A_TIME);
    if arrives(sleeps) && arrives(reads) { Ok(()) } else { Err(PatchError::NotLinked) }
}

/// Patches `parts`, after a check of the linkage.
fn patch_parts(parts: &[Part]) -> Result<Report, PatchError> {
    // std finds this function where it is, and does not make it a part of the program.
    let _ = std::hint::black_box(getrandom as unsafe extern "C" fn(_, _, _) -> _);
    // Once a part is patched, the linkage is known to be right.
    let bits = parts.iter().fold(0, |bits, part| bits | part.bit());
    let missing = bits & !patched() != 0;
    if missing {
        verify()?;
    }
    Ok(Report { parts: parts.to_vec(), before: patch(bits) })
}

/// Patches all parts but the locks and the threads, in the whole process and for good. May be called at any time and
/// any number of times.
///
/// # Safety
/// See [the module](super): code that runs in green threads must not rely on being alone on its OS thread over a
/// blocking call.
///
/// # Errors
/// [`PatchError::NotLinked`]; nothing is patched then.
///
/// May switch: no.
pub unsafe fn patch_all() -> Result<Report, PatchError> {
    patch_parts(&Part::ALL)
}

/// Patches reading, writing, connecting and accepting.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_net() -> Result<Report, PatchError> {
    patch_parts(&[Part::Net])
}

/// Patches the calls that sleep or yield, and those that tell the time, which is virtual in a
/// [simulation](crate::sim).
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_sleep() -> Result<Report, PatchError> {
    patch_parts(&[Part::Sleep])
}

/// Patches the lookup of names.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_dns() -> Result<Report, PatchError> {
    patch_parts(&[Part::Dns])
}

/// Patches the calls that wait for several descriptors.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_poll() -> Result<Report, PatchError> {
    patch_parts(&[Part::Poll])
}

/// Patches the calls that wait for children.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_process() -> Result<Report, PatchError> {
    patch_parts(&[Part::Process])
}

/// Patches the locks of files.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_files() -> Result<Report, PatchError> {
    patch_parts(&[Part::Files])
}

/// Patches the calls that return random bytes: in a [simulation](crate::sim) they come from its seed. Elsewhere nothing
/// changes.
///
/// # Safety
/// As [`patch_all`].
///
/// # Errors
/// As [`patch_all`].
///
/// May switch: no.
pub unsafe fn patch_random() -> Result<Report, PatchError> {
    patch_parts(&[Part::Random])
}

/// Patches the locks and channels of `std`, and of crates that wait as `std` does: parking_lot, crossbeam, flume,
/// once_cell, rayon and the like; and C's own: mutexes, condition variables, read-write locks, semaphores, barriers and
/// `pthread_once`. A green thread with thread-locals of its own
/// ([`Builder::own_thread_locals`](crate::thread::Builder::own_thread_locals)) that waits for one lets other green
/// threads run, and so does the main of an OS thread with a hub. A part of its own: [`patch_all`] leaves it out.
///
/// Locks are shared with all OS threads as before, and each may wake the other's waiters. A green thread that shares
/// thread-locals with others blocks the OS thread as before: see [the module](super#locks-of-std).
///
/// A kill or an expired `timeout` scope does not end such a wait; it is raised by the next blocking call after the lock
/// was had. [`hub::shutdown`](crate::hub::shutdown) gives up a thread that waits for a lock, as it gives up any other
/// thread that does not end.
///
/// An allocator must not wait in the hub: the runtime allocates, too. One with locks, as jemalloc and mimalloc have,
/// must be declared as an [`Allocator`](super::Allocator). The first call tries the allocator out on an OS thread, and
/// refuses if it takes one of C's own locks without that. Locks of `std` in an allocator are not seen; such a program
/// may stand still. glibc's own allocator waits in nothing that is patched.
///
/// # Safety
/// As [`patch_all`], for all code that waits for such a lock, or that yields the OS thread (`sched_yield`) while it
/// spins for one.
///
/// # Errors
/// Those of [`patch_all`], and all others of [`PatchError`]; nothing is patched then.
///
/// May switch: no.
pub unsafe fn patch_locks() -> Result<Report, PatchError> {
    prepare_locks()?;
    patch_parts(&[Part::Locks])
}

/// Makes all ready for the first green wait for a lock, unless that was done: the allocator, and what the waits need.
fn prepare_locks() -> Result<(), PatchError> {
    if is_patched(Part::Locks) {
        return Ok(());
    }
    wait::prepare().map_err(|_| PatchError::NoMemory)?;
    // Before the first lock that asks: an allocator may have locks, and this allocates.
    let _ = words();
    let _alone = lock(&ONE_AT_A_TIME);
    let locks = try_allocators().map_err(|_| PatchError::NoMemory)?;
    match locks {
        Locks { rust: true, .. } => Err(PatchError::Allocator),
        Locks { c: true, .. } => Err(PatchError::Malloc),
        Locks { .. } => Ok(()),
    }
}

/// Patches the creation of threads: `std::thread::spawn`, and `pthread_create` of the C library, make green threads of
/// the calling hub with [thread-locals of their own](crate::thread::Builder::own_thread_locals). A part of its own:
/// [`patch_all`] leaves it out. The calling OS thread gets a hub, if it has none.
///
/// `choose` is asked for each thread, on the thread that creates it; a later call replaces it. It may start OS threads,
/// but not wait; if it panics, it has chosen an OS thread. Pools that compute belong on OS threads:
///
/// ```
/// use greenling::monkey::{self, Choice};
/// use std::cell::Cell;
///
/// thread_local!(static COMPUTES: Cell<bool> = const { Cell::new(false) });
///
/// # if greenling::thread::own_thread_locals_supported().is_err() { return Ok(()); }
/// let choose = |_: &_| if COMPUTES.get() { Choice::OsThread } else { Choice::Green };
/// // SAFETY: nothing in this program holds thread-locals or locks of its OS thread over a blocking call.
/// unsafe { monkey::patch_threads(choose) }?;
///
/// let green = std::thread::spawn(|| greenling::hub::live_threads()); // itself
/// assert_eq!(green.join().unwrap(), 1);
/// COMPUTES.set(true); // while a pool is made
/// let os_thread = std::thread::spawn(|| (0..1000_u64).sum::<u64>());
/// COMPUTES.set(false);
/// assert_eq!(os_thread.join().unwrap(), 499_500);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `std::thread::park`, `std::thread::scope`, channels and locks wait for other threads, so programs as a rule call
/// [`patch_locks`], too: without that, such a wait blocks the hub. `join` does not wait for a lock.
///
/// `pthread_create` is not told which line calls it, so reports show a line of this crate as the place where such a
/// thread was spawned. What tells the threads apart is the name that `std::thread::Builder` gives.
///
/// What is a green thread, and what is not, [the module](super#threads) says.
///
/// # Safety
/// As [`patch_all`], for all code that runs in threads which become green. A pthread id of such a thread is good until
/// the thread was joined, or detached and ended, as the C library's are.
///
/// # Errors
/// `Unsupported` where a green thread cannot have thread-locals of its own, with the reason, and
/// [`PatchError::NotLinked`]; the errors of [`hub::try_handle`](crate::hub::try_handle). Nothing is patched then.
///
/// May switch: no.
pub unsafe fn patch_threads(choose: impl Fn(&NewThread) -> Choice + Send + Sync + 'static) -> io::Result<Report> {
    own_thread_locals_supported()?;
    hub()?;
    if patched() & part::THREADS == 0 && !arrives_thread() {
        return Err(PatchError::NotLinked.into());
    }
    set_choice(Arc::new(choose));
    Ok(patch_parts(&[Part::Threads])?)
}

/// Patches every part that there is: [`patch_all`], [`patch_locks`] and [`patch_threads`]. With this line at its
/// beginning, a program that is written with the threads, sockets, locks and channels of `std` runs on one OS thread,
/// but for the threads for which `choose` says [`Choice::OsThread`].
///
/// ```
/// use greenling::monkey::{Choice, patch_everything};
/// use std::sync::mpsc;
/// use std::thread;
///
/// # if greenling::thread::own_thread_locals_supported().is_err() { return Ok(()); }
/// // SAFETY: nothing in this program holds thread-locals or locks of its OS thread over a blocking call.
/// unsafe { patch_everything(|_| Choice::Green) }?;
///
/// let (send, receive) = mpsc::channel();
/// let threads: Vec<_> = (0..1000)
///     .map(|n| {
///         let send = send.clone();
///         thread::spawn(move || send.send(n).unwrap())
///     })
///     .collect();
/// drop(send);
/// assert_eq!(receive.iter().sum::<u32>(), 499_500);
/// threads.into_iter().for_each(|thread| thread.join().unwrap());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Safety
/// As each of the three.
///
/// # Errors
/// Those of [`patch_threads`] and [`patch_locks`]; nothing is patched then.
///
/// May switch: no.
pub unsafe fn patch_everything(choose: impl Fn(&NewThread) -> Choice + Send + Sync + 'static) -> io::Result<Report> {
    // What can be missing first.
    prepare_locks()?;
    // SAFETY: the caller's promise.
    unsafe { patch_threads(choose) }?;
    Ok(patch_parts(&[&Part::ALL[..], &[Part::Locks, Part::Threads]].concat())?)
}

/// Reports whether the creation of a thread arrives here, by an OS thread that does nothing. If there can be none, it
/// has arrived all the same.
fn arrives_thread() -> bool {
    let _alone = lock(&ONE_AT_A_TIME);
    arrives(|| {
        let _ = std::thread::Builder::new().spawn(|| ()).map(std::thread::JoinHandle::join);
    })
}

/// Reports whether `part` is patched.
///
/// May switch: no.
pub fn is_patched(part: Part) -> bool {
    patched() & part.bit() != 0
}
