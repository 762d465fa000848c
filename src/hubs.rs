//! [`Hubs`]: OS threads that each run a hub and a main of their own, and the wait for their ends.
//!
//! ```text
//!   start                                        OS thread i
//!     thread per hub -------------------------->   pin, make the hub
//!     wait for all of them  <-- its handle ----    wait for the gate
//!     all there: open the gate ---------------->   run main(i), catch its panic
//!     one failed: drop the gate, return the error  refuse work, unwind its green threads
//!   join                                           leave the result
//!     park until the result, join the OS thread <- end
//! ```
//!
//! The green threads are unwound before the result is left. So when `join` waits for the OS thread as std does, without
//! running its own hub, the OS thread has nothing left to do that could take long or wait for the joiner.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;

use crate::hub::{HubHandle, RemoteTask, shutdown};
use crate::pure::drops::collect_each;
use crate::runtime::hub::hub;
use crate::switch::fiber::drop_quietly;
use crate::switch::root::Scheduler as _;
use crate::sys::affinity;
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::simulation::stay_inside;
use crate::thread::JoinError;

/// A builder of OS threads that have a hub each: see [`start`](Self::start).
///
/// ```
/// use greenling::{Hubs, spawn};
///
/// let hubs = Hubs::new(2).start(|index| {
///     // A program of its own, with its own green threads; nothing is shared.
///     spawn(move || index * 10).join().unwrap()
/// })?;
/// let results: Vec<usize> = hubs.join().into_iter().map(Result::unwrap).collect();
/// assert_eq!(results, [0, 10]);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The green threads of one hub share nothing with another, so what they have need not be `Send`:
///
/// ```compile_fail
/// let shared = std::rc::Rc::new(1);
/// greenling::Hubs::new(2).start(move |_| *shared);
/// ```
///
/// Each main runs on an OS thread of its own and has that one's thread-locals, so nothing has to be asked for. The
/// light green threads of a hub share them; a thread that its main spawns with
/// [`Builder::own_thread_locals`](crate::thread::Builder::own_thread_locals) has others.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Hubs {
    /// The number of hubs; 0 is one per processor.
    count: usize,
    /// Each hub is bound to a processor.
    pin: bool,
    /// The beginning of the OS threads' names.
    name: String,
}

impl Hubs {
    /// Makes a builder of `count` hubs, not pinned; 0 means one for each processor that this process may use.
    ///
    /// May switch: no.
    pub fn new(count: usize) -> Hubs {
        Hubs { count, pin: false, name: String::from("hub") }
    }

    /// Sets whether each hub stays on one processor: the first hub on the first that the caller may use, and so on, and
    /// from the beginning if there are more hubs than processors.
    ///
    /// May switch: no.
    pub fn pin(mut self, pin: bool) -> Hubs {
        self.pin = pin;
        self
    }

    /// Sets the beginning of the OS threads' names, which will be `name-0`, `name-1`, ...; the default is `hub`.
    ///
    /// May switch: no.
    pub fn name(mut self, name: impl Into<String>) -> Hubs {
        self.name = name.into();
        self
    }

    /// Starts the OS threads. Each makes its hub and then, when all are there, calls `main` with its index. That call
    /// is the OS thread's main, and the hub's green threads run when it blocks. When `main` returns or panics, the
    /// green threads that are left are unwound, as by [`hub::shutdown`](crate::hub::shutdown); the other hubs do not
    /// notice.
    ///
    /// # Errors
    /// An OS thread or its hub could not be made, or could not be pinned; then no `main` is called.
    ///
    /// # Panics
    /// If `name` contains a zero byte.
    ///
    /// May switch: no; the call waits for the OS threads to be there, some 100 us each.
    #[track_caller]
    pub fn start<F, T>(self, main: F) -> io::Result<RunningHubs<T>>
    where
        F: Fn(usize) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        stay_inside("another hub")?;
        let processors = affinity::allowed_processors()?;
        let count = match NonZero::new(self.count) {
            Some(count) => count.get(),
            None => thread::available_parallelism().map_or(processors.len(), NonZero::get),
        };
        let main = Arc::new(main);
        let mut hubs = Vec::new();
        let mut gates = Vec::new();
        for index in 0..count {
            let task = Arc::new(RemoteTask::new(None, Location::caller()));
            let (ready, made) = mpsc::channel();
            let (gate, opened) = mpsc::channel::<()>();
            let pin = self.pin.then(|| processors[index % processors.len()]);
            let (main, result) = (Arc::clone(&main), Arc::clone(&task));
            // The life of OS thread `index`: report the hub, wait for the gate, run `main`, unwind the rest, leave the
            // result.
            let life = move || {
                let made = pin.map_or(Ok(()), affinity::pin_to).and_then(|()| hub());
                let _ = ready.send(made.map(|(_, hub)| HubHandle::new(hub.remote_queue())));
                drop(ready);
                if opened.recv().is_ok() {
                    let outcome = catch_unwind(AssertUnwindSafe(|| main(index)));
                    drop_quietly(main);
                    end();
                    result.set_outcome(outcome.map_err(JoinError::panicked));
                }
            };
            // Wait for each hub before the next one is started. An error drops all gates, and no `main` is called.
            // With the feature `monkey`, the program may have its own threads made green; not this one.
            let own = runtime_syscall();
            let thread = thread::Builder::new().name(format!("{}-{index}", self.name)).spawn(life)?;
            drop(own);
            match made.recv() {
                Ok(handle) => hubs.push(RunningHub { thread, task, handle: handle? }),
                Err(_) => return Err(io::Error::other("an OS thread ended before it had a hub")),
            }
            gates.push(gate);
        }
        for gate in gates {
            // The OS thread waits for this, so the send cannot fail.
            let _ = gate.send(());
        }
        Ok(RunningHubs { hubs })
    }
}

/// Ends a hub after its main has returned: starts nothing more, and unwinds the green threads that are left.
fn end() {
    if let Ok((_, hub)) = hub() {
        hub.refuse();
        shutdown();
    }
}

/// A hub that was started.
struct RunningHub<T> {
    /// The OS thread of the hub.
    thread: thread::JoinHandle<()>,
    /// The task; its outcome will be the result of the hub's main.
    task: Arc<RemoteTask<T>>,
    /// The way to the hub.
    handle: HubHandle,
}

/// Hubs that run, made by [`Hubs::start`]. When this is dropped, the hubs go on.
///
/// A `RunningHubs` holds a [`HubHandle`] of each hub, so no hub reports a deadlock before [`join`](Self::join).
#[must_use = "dropping it detaches the hubs: `join` them, or say `drop(hubs)`"]
pub struct RunningHubs<T> {
    /// The hubs in the order of their index.
    hubs: Vec<RunningHub<T>>,
}

impl<T: Send + 'static> RunningHubs<T> {
    /// Returns how many hubs there are.
    ///
    /// May switch: no.
    #[allow(clippy::len_without_is_empty, reason = "there is one at least")]
    pub fn len(&self) -> usize {
        self.hubs.len()
    }

    /// Returns a handle of the hub with this index, from 0.
    ///
    /// # Panics
    /// If there is no such hub.
    ///
    /// May switch: no.
    pub fn handle(&self, index: usize) -> HubHandle {
        self.hubs[index].handle.clone()
    }

    /// Waits until all hubs have ended, and returns the results of their mains, in the order of their index.
    ///
    /// The caller's own hub runs meanwhile: a green thread may call this as well as main.
    ///
    /// # Errors
    /// Each element: [`JoinError`], if the main of that hub panicked. All elements from the one on at which the caller
    /// could not wait, because the caller is unwinding or its OS thread is ending; those hubs go on.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller, and panics inside
    /// [`no_switch`](crate::no_switch); the hubs go on.
    ///
    /// May switch: yes.
    pub fn join(self) -> Vec<Result<T, JoinError>> {
        // Drop all handles first: a hub may wait until there are none of another one.
        let hubs: Vec<_> = self.hubs.into_iter().map(|RunningHub { thread, task, .. }| (thread, task)).collect();
        let wait = |(thread, task): (thread::JoinHandle<()>, Arc<RemoteTask<T>>)| {
            let outcome = task.wait("the end of another hub", true);
            if task.is_finished() {
                // The OS thread has only to return, and its panics were caught.
                let _ = thread.join();
            }
            outcome
        };
        collect_each(hubs.into_iter().map(wait))
    }
}

impl<T> fmt::Debug for RunningHubs<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningHubs").field("len", &self.hubs.len()).finish_non_exhaustive()
    }
}
