//! The hub of the calling OS thread: what a program may ask it and set.
//!
//! A program need not do either: the hub is made on first use, runs inside the blocking calls of main, and ends with
//! the OS thread.

mod channel;
mod metrics;
mod remote;
pub mod sync;

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use channel::{RemoteIntoIter, RemoteIter, RemoteReceiver, RemoteSender, RemoteTryIter, channel};
pub use metrics::{Delays, Metrics, ProcessMetrics, all_metrics, metrics};
pub(crate) use remote::RemoteTask;
pub use remote::{HubHandle, RemoteJoinFuture, RemoteJoinHandle, handle, try_handle};

pub use crate::runtime::all_threads::{HubThreads, ProcessThreads};
pub use crate::runtime::backtraces::{BacktraceGroup, ThreadBacktrace};
pub use crate::runtime::thread_info::{
    Descriptor, ForeignKind, LockKind, StackInfo, ThreadInfo, ThreadKind, ThreadRef, ThreadState, Threads, TracedTurns,
    WaitReason,
};
pub use crate::switch::hooks::Switch;
pub use crate::switch::stack_pool::StackStats;
pub use crate::sys::endpoint::Endpoint;

use crate::runtime::all_threads;
use crate::runtime::backtraces as stacks;
use crate::runtime::hub::{ending, hub};
use crate::runtime::watch_thread;
use crate::switch::pending;
use crate::switch::root::{Root, existing_root, try_root};
use crate::switch::stack::Slot;
use crate::sys::runtime_syscall::runtime_syscall;
use crate::thread::sleep;

/// How long [`shutdown`] waits for destructors of thread-locals that green threads have of their own.
const DESTRUCTORS_TIMEOUT: Duration = Duration::from_secs(1);

/// How often [`shutdown`] looks whether they have ended.
const DESTRUCTORS_INTERVAL: Duration = Duration::from_millis(1);

/// Unwinds every green thread and suspended greenlet of this OS thread, as a kill does, and returns how many could not
/// be unwound because they block again each time they are killed. The hub can be used afterwards.
///
/// Call this at the end of main if destructors of threads that are still suspended matter: a buffer to flush, a child
/// to kill, a file to remove. The end of the OS thread itself, after main has returned, unwinds no thread, since
/// thread-locals that a suspended thread borrows may be gone by then: the end leaks the stacks of such threads, with
/// all that they own ([`StackStats::leaked`]), and closes what is the hub's. When the process ends, the kernel takes
/// the rest.
///
/// Threads spawned by destructors meanwhile never run. A thread that is at its end, and runs the destructors of
/// thread-locals of its [own](crate::thread::Builder::own_thread_locals), is not unwound, but gets one second to end.
///
/// # Panics
/// If called from a green thread instead of main, while main unwinds, or inside [`no_switch`](crate::no_switch). As
/// [`sleep`], if there are such destructors to wait for.
///
/// May switch: yes.
pub fn shutdown() -> usize {
    let Some(root) = try_root() else { return 0 };
    // Only main may let everything else run to its end.
    assert!(root.current().is_main(), "greenling: hub::shutdown must be called by main, not by a green thread");
    assert!(!std::thread::panicking(), "greenling: hub::shutdown cannot run green threads while main unwinds");
    let held = root.current().pending.has(pending::NO_SWITCH);
    assert!(!held, "greenling: hub::shutdown inside `no_switch` would have to let other green threads run");
    let mut left = root.unwind_all();
    // Threads that run the destructors of their own thread-locals cannot be unwound. They get time, and the hub polls.
    let deadline = Instant::now() + DESTRUCTORS_TIMEOUT;
    while left > 0 && root.any_destroys_locals() && Instant::now() < deadline {
        sleep(DESTRUCTORS_INTERVAL);
        left = root.unwind_all();
    }
    left
}

/// Sets the bytes of stack for threads and greenlets of this OS thread that ask for no size, from now on.
///
/// # Errors
/// `InvalidInput` above 4 GiB.
///
/// May switch: no.
pub fn set_default_stack_size(bytes: usize) -> io::Result<()> {
    let shift = Slot::shift_for(bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a stack of more than 4 GiB"))?;
    hub()?.0.default_shift.set(shift);
    Ok(())
}

/// Returns how many bytes of stack a thread gets that asks for no size: 241,664 (236 KiB) on x86-64, 192,512 (188 KiB)
/// on aarch64, unless [`set_default_stack_size`] was called. With its guard that is 256 KiB of address space. Returns 0
/// when the OS thread is ending, since there are no threads any more.
///
/// ```
/// # #[cfg(target_arch = "x86_64")]
/// assert_eq!(greenling::hub::default_stack_size(), 241_664);
/// ```
///
/// May switch: no.
pub fn default_stack_size() -> usize {
    try_root().map_or(0, |root| Slot::stack_size(root.default_shift.get()))
}

/// Returns the counters of this OS thread's stacks; all of them are 0 when the OS thread is ending and the stacks are
/// gone.
///
/// May switch: no.
pub fn stack_stats() -> StackStats {
    try_root().map_or_else(StackStats::default, Root::stack_stats)
}

/// Returns how deep the running green thread's stack has been used, in bytes, in whole pages: by this thread and by
/// threads that used the same stack before, since the stack's pages last went back to the kernel. Pages go back when a
/// thread waits for long.
///
/// # Errors
/// For main, which runs on the OS thread's stack; what mincore(2) says; when the OS thread is ending.
///
/// May switch: no.
pub fn stack_high_water() -> io::Result<usize> {
    let root = try_root().ok_or_else(ending)?;
    let me = root.current();
    if me.is_main() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "main runs on the OS thread's own stack"));
    }
    root.high_water(me)
}

/// Returns to the kernel, at once, the memory of all stacks that no thread uses, and what earlier deep calls have left
/// in the stacks of threads that are waiting.
///
/// The hub does both by itself. With what deep calls have left: a few seconds after a thread began to wait, if the
/// kernel counts page faults (`ru_minflt` of getrusage(2)); threads and greenlets that wait in an explicit switch keep
/// their pages. With unused stacks: all but 64 of each size that were not used for a second, while main waits in a
/// blocking call. What a deep call has left in a stack that is used again goes back after some ten thousand spawns. A
/// program that uses greenlets only has no hub, and calls this.
///
/// May switch: no.
pub fn trim_stacks() {
    if let Some(root) = try_root() {
        root.trim_stacks();
    }
}

/// Returns how many green threads and started greenlets of this OS thread have not ended; main is not counted.
///
/// May switch: no.
pub fn live_threads() -> usize {
    try_root().map_or(0, Root::live)
}

/// Returns what each thread of this OS thread does: main, every green thread and every started greenlet. The threads
/// are data of the moment, which may be kept and sent away; `{}` prints them in groups, `{:#}` one by one. Empty when
/// the OS thread is ending.
///
/// With 100 000 threads the call takes some hundred milliseconds, most of them to ask the kernel for the addresses of
/// their descriptors and the depth of their stacks. Between calls it costs nothing.
///
/// ```
/// use greenling::{hub::threads, spawn, thread::park, yield_now};
///
/// let parked: Vec<_> = (0..1000).map(|_| spawn(park)).collect();
/// yield_now();
/// let text = threads().to_string();
/// assert!(text.starts_with("1000 green threads and greenlets, and main\n  main is running\n"));
/// assert!(text.contains("\n  1000 are parked, waiting for an unpark, for "));
/// parked.iter().for_each(|thread| thread.thread().unpark());
/// ```
///
/// May switch: no.
pub fn threads() -> Threads {
    try_root().map_or_else(Threads::default, |root| all_threads::here(root, true))
}

/// Returns the backtrace of the thread of this OS thread with this id, as [`ThreadInfo::id`] has it: the frames of
/// main, of a green thread or of a greenlet, from the call in which it waits. None if there is no such thread, and if
/// it has not begun to run.
///
/// The thread does not run for this, and nothing of it changes: its frames are read where they are. There is no cost
/// but of the call: some microseconds, and what it takes to look up names and lines when the backtrace is printed.
///
/// ```
/// use greenling::{hub, thread::Builder, thread::park, yield_now};
///
/// let waiting = Builder::new().name("waiting".into()).spawn(|| park())?;
/// yield_now();
/// let info = hub::threads().iter().find(|info| info.name.as_deref() == Some("waiting")).unwrap().clone();
/// let backtrace = hub::backtrace(info.id).unwrap();
/// assert!(backtrace.to_string().contains("closure")); // what waits in `park`, and the line
/// waiting.thread().unpark();
/// # std::io::Result::Ok(())
/// ```
///
/// May switch: no.
pub fn backtrace(id: u64) -> Option<ThreadBacktrace> {
    stacks::of_thread(try_root()?, id)
}

/// Returns the backtraces of all threads of this OS thread that have begun, those of threads with the same one
/// together: the largest group first, and within a group the ids ascending. Empty when the OS thread is ending.
///
/// Two backtraces are the same if their innermost 256 return addresses are. The stacks of 10 000 threads take some
/// ten milliseconds; names and lines are looked up once for each group, when it is printed. As [`backtrace`], this
/// changes nothing.
///
/// May switch: no.
pub fn backtraces() -> Vec<BacktraceGroup> {
    try_root().map_or_else(Vec::new, stacks::of_all)
}

/// Returns what the threads of all hubs of the process do. Each other hub is asked, and answers when it polls; for its
/// threads that is a pause as long as a call of [`threads`]. A hub that has not answered when `limit` is over is listed
/// without its threads: it computes, or its OS thread is in a system call, `std::thread::sleep` or `join` say. Usable
/// from any OS thread.
///
/// A green thread waits parked. An OS thread without a hub blocks, and so does a caller that must not switch, in an
/// unwinding or inside [`no_switch`](crate::no_switch).
///
/// ```
/// use greenling::{Hubs, hub, thread::park};
/// use std::time::Duration;
///
/// let hubs = Hubs::new(1).name("worker").start(|_| park())?;
/// let all = hub::all_threads(Duration::from_millis(100));
/// assert!(all.to_string().contains(" \"worker-0\") has not answered for ") // the machine is very busy
///     || all.to_string().contains(" \"worker-0\"): 0 green threads and greenlets, and main\n  main "));
/// # drop(hubs);
/// # std::io::Result::Ok(())
/// ```
///
/// # Panics
/// Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller.
///
/// May switch: yes.
pub fn all_threads(limit: Duration) -> ProcessThreads {
    all_threads::all_threads(limit)
}

/// Writes what the threads of all hubs of the process do to standard error, whenever `signal` comes, and goes on: with
/// SIGQUIT, by Ctrl-\ in a terminal. Each hub lists its threads in groups, as [`threads`] does, and their stacks, as
/// [`backtraces`] does. A hub that does not answer within half a second, because a thread computes or a call blocks the
/// OS thread, is shown as [`watch`] would report it. The variable `GREENLING_DUMP=QUIT` of the environment (or `USR1`,
/// `USR2`, `HUP`) does the same without a change of the program.
///
/// ```standalone_crate
/// greenling::hub::dump_on(greenling::signal::SIGQUIT)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The signal has a handler then, with `SA_RESTART`, and an OS thread that writes. A signal that every OS thread has
/// blocked asks for nothing; nor does one in the child of a fork, until the child calls this. There is no way back.
///
/// # Errors
/// `InvalidInput` for a signal that cannot be caught, or that says that the program is at fault; `AlreadyExists` if the
/// program has a handler for it; no OS thread can be started; no descriptor is left.
///
/// May switch: no.
pub fn dump_on(signal: i32) -> io::Result<()> {
    crate::runtime::hub::dump_on(signal)
}

/// Lets another program of this user look at the threads of this process while it runs, and returns the path of the
/// Unix socket for that: `$XDG_RUNTIME_DIR/greenling/PID.sock`, or `/tmp/greenling-UID/PID.sock` where that variable is
/// not set. `greenling-top PID` shows them in a terminal or a browser: hubs, threads in groups and one by one, their
/// stacks, counters, and a trace of some seconds. The variable `GREENLING_CONSOLE=1` of the environment does the same
/// without a change of the program; `GREENLING_CONSOLE=PATH` with a path that has a `/` in it, as [`console_at`].
///
/// ```standalone_crate
/// let path = greenling::hub::console()?;
/// println!("greenling-top {}", path.display());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The socket has the mode 0600, in a folder of mode 0700. A client can change nothing, but a trace slows the hubs down
/// a little while it is on. An OS thread waits for clients, and there is one more for each of them, eight at most. Hubs
/// are asked when a client asks, and only then; each answers when it polls. A hub that does not, because a thread
/// computes or a call blocks the OS thread, is shown as [`watch`] would report it. The protocol is lines of JSON:
/// `docs/console.md`.
///
/// The socket is removed when the process exits, but not when a signal ends it; then the next process with an agent in
/// the same folder does that. A second call returns the same path. In the child of a fork there is no agent until it
/// calls this.
///
/// # Errors
/// `PermissionDenied` if the folder in `/tmp` is another user's, or open to others; `AddrInUse` if another process
/// listens at that path; no OS thread can be started; no descriptor is left.
///
/// May switch: no.
pub fn console() -> io::Result<PathBuf> {
    crate::runtime::hub::start_console(None)
}

/// Does the same as [`console`], with a socket at `path`, in a folder that is there. A socket that a dead process has
/// left there is replaced.
///
/// # Errors
/// `AlreadyExists` if `path` is a file and not a socket, or if this process has an agent elsewhere; `InvalidInput` for
/// a path of more than 107 bytes; otherwise those of [`console`].
///
/// May switch: no.
pub fn console_at(path: impl AsRef<Path>) -> io::Result<()> {
    crate::runtime::hub::start_console(Some(path.as_ref())).map(drop)
}

/// Reports, from now on, hubs of this process that are held up: by a thread that computes, or by a call that blocks the
/// OS thread. A hub that could not serve its threads for `limit`, in one turn or in many of 10 ms and more within twice
/// the time, is reported once on standard error, and once more when that is over. A `limit` of zero ends the watch, and
/// another one takes the place of the first. The variable `GREENLING_WATCH=1s` of the environment does the same without
/// a change of the program (`500ms`, `1s`, `2m`); this call overrides it.
///
/// ```text
/// greenling: hub 1 has not turned for 1.0 s: green thread #7 "worker", spawned at src/main.rs:12:5, has it
///   OS thread 4711 "main" is in system call read of descriptor 5 (pipe:[1234])
///     read (libc.so.6+0xfb210)
///     server::load (server+0x1b2c4)
///   lines: addr2line -Cfipe /usr/bin/server 0x1b2c4
///   cure: the call of the same name in greenling::{net, fs, io, process}; or greenling::blocking around it
/// greenling: hub 1 turns again after 2.3 s
/// ```
///
/// While the watch is on, the hubs also count for how long threads that can run wait for the CPU ([`Delays`]), which
/// makes a wake-up some nanoseconds slower.
///
/// The OS thread `greenling-watch` looks at the hubs, some times in each `limit`, and costs them nothing. For a stack,
/// it sends the OS thread of the hub one real-time signal that nothing uses, with a handler that restarts system calls
/// (`SA_RESTART`) and that is taken away afterwards; the few calls that no handler restarts, such as nanosleep(2) and
/// poll(2), return `EINTR` once. A hub that waits for events is not held up, nor is one on which main alone lives, nor
/// one that waits for a processor, where the kernel counts that (`/proc/self/schedstat`). In the child of a fork the
/// watch is off until it is asked for.
///
/// # Errors
/// `InvalidInput` for a limit of less than 20 ms; no OS thread can be started.
///
/// May switch: no.
pub fn watch(limit: Duration) -> io::Result<()> {
    let _own = runtime_syscall();
    let Some(limit) = watch_thread::limit_of(limit) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a watch with a limit of less than 20 ms"));
    };
    watch_thread::set_limit(limit)
}

/// Calls `hook`, from now on and until the result is dropped, at each switch of this OS thread: when a green thread, a
/// greenlet or main leaves the CPU, and when one comes. For what follows threads around: spans of a tracing library,
/// counters, the time that each thread had.
///
/// ```
/// use greenling::{hub, hub::Switch, spawn, yield_now};
/// use std::sync::{Arc, Mutex};
///
/// let seen = Arc::new(Mutex::new(Vec::new()));
/// let log = Arc::clone(&seen);
/// let hook = hub::on_switch(move |switch| log.lock().unwrap().push(switch))?;
/// let worker = spawn(yield_now); // #2, as main is #1
/// worker.join().unwrap();
/// drop(hook);
/// assert_eq!(*seen.lock().unwrap(), [
///     Switch::Leaves { thread: 1, ended: false }, // main waits in `join`
///     Switch::Comes { thread: 2, new: true },
///     Switch::Leaves { thread: 2, ended: false }, // the yield
///     Switch::Comes { thread: 2, new: false },
///     Switch::Leaves { thread: 2, ended: true },
///     Switch::Comes { thread: 1, new: false },
/// ]);
/// # std::io::Result::Ok(())
/// ```
///
/// `Leaves` and `Comes` take turns; the first call is the `Leaves` of the thread that has set the first hook. A thread
/// that lets others run when there are none leaves and comes. Several hooks are called in the order in which they were
/// set.
///
/// The thread-locals in the hook are those of the thread that it is told of, also of a thread with thread-locals of
/// its [own](crate::thread::Builder::own_thread_locals); hence `Send`. Of such a thread that has ended nothing is left:
/// then they are the OS thread's. Green-local values and [`thread::current`](crate::thread::current) are not those of
/// the thread: a hook runs in a name of its own. Its stack is main's, and at an explicit switch that of the caller.
///
/// The hook must not wait: a call that would have to panics, as inside [`no_switch`](crate::no_switch). It may spawn,
/// wake and kill. A hook that panics is removed: the panic hook prints the panic, a line on standard error says that
/// the hook is gone, and the threads go on as if nothing had happened.
///
/// While no hook is set, switches and yields execute not one instruction for it. While one is, each turn goes through
/// the loop on main's stack, and takes some 100 ns longer, and the hook's own time. With a hub for each OS thread, each
/// has its own hooks. In the child of a fork there are none.
///
/// # Errors
/// When the OS thread is ending, and in the child of a fork.
///
/// May switch: no.
pub fn on_switch(hook: impl FnMut(Switch) + Send + 'static) -> io::Result<SwitchHook> {
    let number = try_root().ok_or_else(ending)?.add_hook(Box::new(hook));
    let number = number.ok_or_else(|| io::Error::other("no hook on switches in the child of a fork"))?;
    Ok(SwitchHook { number, not_send: PhantomData })
}

/// A hook on switches, which is removed when this is dropped; see [`on_switch`].
///
/// May switch: no function of this does.
#[derive(Debug)]
#[must_use = "the hook is removed when this is dropped"]
pub struct SwitchHook {
    /// The number of the hook.
    number: u64,
    /// A hook belongs to the OS thread that has set it.
    not_send: PhantomData<Rc<()>>,
}

impl Drop for SwitchHook {
    fn drop(&mut self) {
        if let Some(root) = existing_root() {
            root.remove_hook(self.number);
        }
    }
}

/// Returns a report of all threads: a line for main, for every green thread and every started greenlet of this OS
/// thread, with the name, what the thread waits for and for how long, where it was spawned, and the cycle, if some wait
/// for each other. The text is that of [`threads`] as `{:#}`. For logs and debuggers; the wording is not stable. Empty
/// when the OS thread is ending. (`print_run_info` of gevent.)
///
/// ```
/// let reader = greenling::thread::Builder::new().name("reader".into()).spawn(greenling::thread::park)?;
/// greenling::yield_now();
/// let report = greenling::hub::report();
/// assert!(report.contains("#2 \"reader\" is parked, waiting for an unpark, for "));
/// reader.thread().unpark();
/// # std::io::Result::Ok(())
/// ```
///
/// May switch: no.
#[doc(alias = "print_run_info")]
pub fn report() -> String {
    format!("{:#}", threads())
}
