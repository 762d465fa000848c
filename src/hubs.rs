//! Many hubs at once: OS threads that each run a main of their own, and whose ends one can wait for.
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
//! The green threads are unwound before the result is left, so that nothing that could take long or wait for the joiner
//! is left to do for the OS thread when `join` waits for it as std does, without its hub running.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;

use crate::hub::{HubHandle, Shared, shutdown};
use crate::runtime::hub::hub;
use crate::switch::fiber::drop_quietly;
use crate::switch::root::Scheduler as _;
use crate::sys::affinity;
use crate::thread::JoinError;

/// Makes OS threads with a hub each: see [`start`](Self::start).
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
/// What the green threads of one hub have does not leave it, since it need not be `Send`:
///
/// ```compile_fail
/// let shared = std::rc::Rc::new(1);
/// greenling::Hubs::new(2).start(move |_| *shared);
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Hubs {
    /// How many; 0 is one per processor.
    count: usize,
    /// Whether each is bound to a processor.
    pin: bool,
    /// What the OS threads' names begin with.
    name: String,
}

impl Hubs {
    /// `count` hubs, not pinned; 0 means one for each processor that this process may use.
    ///
    /// May switch: no.
    pub fn new(count: usize) -> Hubs {
        Hubs { count, pin: false, name: String::from("hub") }
    }

    /// Whether each hub stays on one processor: the first hub on the first that the caller may use, and so on, and from the
    /// beginning if there are more hubs.
    ///
    /// May switch: no.
    pub fn pin(mut self, pin: bool) -> Hubs {
        self.pin = pin;
        self
    }

    /// The names of the OS threads will be `name-0`, `name-1`, ...; `hub` is the default.
    ///
    /// May switch: no.
    pub fn name(mut self, name: impl Into<String>) -> Hubs {
        self.name = name.into();
        self
    }

    /// Starts the OS threads. Each makes its hub and then, when all are there, calls `main` with its index, which runs
    /// on that OS thread as main, and whose green threads run when it blocks. When it returns or panics, the green
    /// threads that are left are killed, as at the end of any OS thread; the other hubs do not notice.
    ///
    /// # Errors
    /// An OS thread or its hub could not be made, or could not be pinned; then no `main` is called.
    ///
    /// # Panics
    /// If `name` contains a zero byte.
    ///
    /// May switch: no; it waits for the OS threads to be there, some 100 us each.
    #[track_caller]
    pub fn start<F, T>(self, main: F) -> io::Result<RunningHubs<T>>
    where
        F: Fn(usize) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        let processors = affinity::allowed_processors()?;
        let count = match NonZero::new(self.count) {
            Some(count) => count.get(),
            None => thread::available_parallelism().map_or(processors.len(), NonZero::get),
        };
        let main = Arc::new(main);
        let mut hubs = Vec::new();
        let mut gates = Vec::new();
        for index in 0..count {
            let shared = Arc::new(Shared::new(None, Location::caller()));
            let (ready, made) = mpsc::channel();
            let (gate, opened) = mpsc::channel::<()>();
            let pin = self.pin.then(|| processors[index % processors.len()]);
            let (main, result) = (Arc::clone(&main), Arc::clone(&shared));
            let life = move || {
                let made = pin.map_or(Ok(()), affinity::pin_to).and_then(|()| hub());
                let _ = ready.send(made.map(|(_, hub)| HubHandle::new(hub.mail())));
                drop(ready);
                if opened.recv().is_ok() {
                    let outcome = catch_unwind(AssertUnwindSafe(|| main(index)));
                    drop_quietly(main);
                    end();
                    result.settle(outcome.map_err(JoinError::panicked));
                }
            };
            let thread = thread::Builder::new().name(format!("{}-{index}", self.name)).spawn(life)?;
            match made.recv() {
                Ok(handle) => hubs.push(Running { thread, shared, handle: handle? }),
                Err(_) => return Err(io::Error::other("an OS thread ended before it had a hub")),
            }
            gates.push(gate);
        }
        for gate in gates {
            // It waits for it.
            let _ = gate.send(());
        }
        Ok(RunningHubs { hubs })
    }
}

/// A hub's main has returned: nobody is started any more, and who is left is unwound.
fn end() {
    if let Ok((_, hub)) = hub() {
        hub.refuse();
        shutdown();
    }
}

/// One hub that was started.
struct Running<T> {
    /// Its OS thread.
    thread: thread::JoinHandle<()>,
    /// Where its main's result will be.
    shared: Arc<Shared<T>>,
    /// The way to it.
    handle: HubHandle,
}

/// Hubs that run, made by [`Hubs::start`]. If it is dropped, they go on.
///
/// It holds a [`HubHandle`] of each of them, so none of them reports a deadlock before [`join`](Self::join).
#[must_use = "dropping it detaches the hubs: `join` them, or say `drop(hubs)`"]
pub struct RunningHubs<T> {
    /// In the order of their index.
    hubs: Vec<Running<T>>,
}

impl<T: Send + 'static> RunningHubs<T> {
    /// How many there are.
    ///
    /// May switch: no.
    #[allow(clippy::len_without_is_empty, reason = "there is one at least")]
    pub fn len(&self) -> usize {
        self.hubs.len()
    }

    /// A handle of the hub with this index, from 0.
    ///
    /// # Panics
    /// If there is no such hub.
    ///
    /// May switch: no.
    pub fn handle(&self, index: usize) -> HubHandle {
        self.hubs[index].handle.clone()
    }

    /// Waits until all of them have ended, and returns what their mains did, in the order of their index.
    ///
    /// While it waits the caller's own hub runs: it may be called by a green thread as well as by main.
    ///
    /// # Errors
    /// Each element: [`JoinError`], if its main panicked. All elements from the one on at which the caller could not wait,
    /// because it is unwinding or its OS thread is ending; those hubs go on.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller, and panics inside
    /// [`no_switch`](crate::no_switch); the hubs go on.
    ///
    /// May switch: yes.
    pub fn join(self) -> Vec<Result<T, JoinError>> {
        // All handles first: whoever waits for their holders must see that there are none.
        let hubs: Vec<_> = self.hubs.into_iter().map(|Running { thread, shared, .. }| (thread, shared)).collect();
        let wait = |(thread, shared): (thread::JoinHandle<()>, Arc<Shared<T>>)| {
            let outcome = shared.wait("the end of another hub", true);
            if shared.is_settled() {
                // It has only to return, and its panics were caught.
                let _ = thread.join();
            }
            outcome
        };
        hubs.into_iter().map(wait).collect()
    }
}

impl<T> fmt::Debug for RunningHubs<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningHubs").field("len", &self.hubs.len()).finish_non_exhaustive()
    }
}
