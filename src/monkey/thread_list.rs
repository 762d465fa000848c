//! The green threads that `std` and C take for threads of the C library: each by its `pthread_t`, until it is joined.
//!
//! ```text
//!   LIST   pthread_t --> Pthread | home | identity | state: fate, claim, value, name, hold, joiner |
//!                                   |                 Running --- the end, after its destructors ---> Ended
//!                                   |                         --- its hub ends first -------------> Lost
//!                                   v
//!                                  Home: one for each hub; holds that come back from other OS threads
//! ```
//!
//! The `pthread_t` of a green thread is the address of its TLS block, as `pthread_self` in the thread has it. So the
//! block must not be given to another thread before the first one was joined: the entry has a hold on the block. Only
//! the block's own OS thread may end a hold; a join by another OS thread leaves the hold in the home, for the next
//! creation there.
//!
//! A hub that ends leaves threads behind that never end. A join of one of them fails, in place of waiting for ever.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::gate::{Green, blocking, green, part};
use crate::pure::lock::lock;
use crate::runtime::caller::Caller;
use crate::runtime::park::Counted;
use crate::runtime::remote::Waiter;
use crate::runtime::remote_queue::Work;
use crate::switch::cancel::obstacle;
use crate::switch::extras::EndListener;
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::root::{Root, existing_root};
use crate::switch::tls_pool::BlockHold;
use crate::sys::clock::{NEVER, monotonic_ns};
use crate::sys::raw::{self, EDEADLK, EINVAL, ESRCH, ETIMEDOUT};
use crate::sys::runtime_syscall::runtime_syscall;

/// The reason of a join, for reports.
const REASON: Reason = Reason::Remote("the end of a thread of std or C that is a green thread");

/// The result of a thread that was unwound by a kill: PTHREAD_CANCELED.
pub(super) const CANCELED: usize = usize::MAX;

/// The most bytes of a name for the kernel, with the zero byte.
pub(super) const NAME_SIZE: usize = 16;

/// All green threads that the C library's functions know by number.
static LIST: Mutex<List> = Mutex::new(List { threads: BTreeMap::new(), homes: BTreeMap::new() });

/// What the lock protects.
struct List {
    /// The threads that were neither joined nor, if detached, have ended.
    threads: BTreeMap<usize, Arc<Pthread>>,
    /// The hubs that have made such threads and have not ended, by the numbers of their roots.
    homes: BTreeMap<u64, Arc<Home>>,
}

/// A hub that has made such threads.
pub(super) struct Home {
    /// The number of the hub's root.
    root: u64,
    /// Holds of threads that other OS threads have joined; none once the hub has ended.
    holds: Mutex<Option<Vec<BlockHold>>>,
}

impl Home {
    /// Returns the home of this OS thread's hub, made on first use.
    pub(super) fn here(caller: Caller) -> Arc<Home> {
        let root = caller.root.number();
        let mut list = lock(&LIST);
        if let Some(home) = list.homes.get(&root) {
            return Arc::clone(home);
        }
        let home = Arc::new(Home { root, holds: Mutex::new(Some(Vec::new())) });
        list.homes.insert(root, Arc::clone(&home));
        drop(list);
        // Never removed there: the hub abandons the home when it ends.
        caller.hub.add_remote_work(Arc::clone(&home) as Arc<dyn Work>);
        home
    }

    /// Ends the holds that came back from other OS threads. The caller is on the hub's OS thread.
    pub(super) fn collect(&self, root: &Root) {
        let holds = lock(&self.holds).as_mut().map(std::mem::take);
        for hold in holds.unwrap_or_default() {
            root.end_hold(hold);
        }
    }

    /// Ends a hold, now or at the next [`collect`](Self::collect). If the hub has ended, its blocks are gone.
    fn give_back(&self, hold: BlockHold) {
        match existing_root() {
            Some(root) if self.is_of(root) => root.end_hold(hold),
            _ => {
                if let Some(holds) = &mut *lock(&self.holds) {
                    holds.push(hold);
                }
            }
        }
    }

    /// Reports whether this is the home of the hub with this root.
    fn is_of(&self, root: &Root) -> bool {
        root.number() == self.root
    }
}

impl Work for Home {
    fn start(self: Arc<Self>, _: &'static Root) {
        unreachable!("a home is not posted as work");
    }

    /// Notes that the hub has ended, and with it the threads that have not.
    fn abandon(&self) {
        lock(&self.holds).take();
        let mut list = lock(&LIST);
        list.homes.remove(&self.root);
        let lost: Vec<_> = list.threads.values().filter(|thread| thread.home.root == self.root).cloned().collect();
        drop(list);
        lost.iter().for_each(|thread| thread.end(Fate::Lost));
    }
}

/// What has become of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The thread has not ended.
    Running,
    /// The thread has ended, and its destructors have run.
    Ended,
    /// The hub has ended, and the thread never will.
    Lost,
}

/// What the program wants of a thread's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Nothing yet: the thread may be joined or detached.
    Joinable,
    /// A join is under way.
    Joining,
    /// Nothing: the thread was detached.
    Detached,
}

/// The stack of a thread: the lowest address, above the guard, and the length.
#[derive(Clone, Copy, Debug)]
pub(super) struct StackRange {
    /// The lowest address that may be used.
    pub(super) low: usize,
    /// The number of bytes from there.
    pub(super) len: usize,
}

impl StackRange {
    /// Returns the stack of a fiber that is not main.
    pub(super) fn of(fiber: Fiber) -> StackRange {
        let slot = fiber.slot();
        // What the runtime keeps at the top counts: the stack pointer is below.
        let top = slot.end() & !15;
        StackRange { low: slot.stack_low(), len: top - slot.stack_low() }
    }
}

/// What is known of a thread once it was launched.
struct Identity {
    /// What `pthread_self` returns in the thread.
    number: usize,
    /// The bounds for `pthread_getattr_np`.
    stack: StackRange,
}

/// A green thread that `pthread_create` made.
pub(super) struct Pthread {
    /// The hub of the thread.
    home: Arc<Home>,
    /// Empty until the thread was launched.
    identity: OnceLock<Identity>,
    /// What the thread, its joiner and its hub change.
    state: Mutex<State>,
    /// Wakes a joiner that is an OS thread without a hub.
    ended: Condvar,
}

/// The part of a [`Pthread`] behind the lock.
struct State {
    /// What has become of the thread.
    fate: Fate,
    /// What the program wants of the end.
    claim: Claim,
    /// What the start routine returned.
    value: usize,
    /// The name that the kernel would keep, if the program gave one.
    name: Option<[u8; NAME_SIZE]>,
    /// The hold on the TLS block, from the launch until the join.
    hold: Option<BlockHold>,
    /// The green thread that joins.
    joiner: Option<Waiter>,
}

impl Pthread {
    /// Makes the entry of a thread that is about to be launched on `home`.
    pub(super) fn new(home: Arc<Home>, detached: bool) -> Arc<Pthread> {
        let claim = if detached { Claim::Detached } else { Claim::Joinable };
        let state = State { fate: Fate::Running, claim, value: CANCELED, name: None, hold: None, joiner: None };
        Arc::new(Pthread { home, identity: OnceLock::new(), state: Mutex::new(state), ended: Condvar::new() })
    }

    /// Enters a thread that was launched as `fiber` and has not run. Returns its number.
    pub(super) fn enlist(self: &Arc<Self>, root: &Root, fiber: Fiber) -> usize {
        let (hold, number) = root.hold_block_of(fiber);
        lock(&self.state).hold = Some(hold);
        let _ = self.identity.set(Identity { number, stack: StackRange::of(fiber) });
        // An entry of a hub that has ended may have had the same address.
        lock(&LIST).threads.insert(number, Arc::clone(self));
        number
    }

    /// Reports whether the thread was launched.
    pub(super) fn is_launched(&self) -> bool {
        self.identity.get().is_some()
    }

    /// Returns the bounds of the stack, once the thread was launched.
    pub(super) fn stack(&self) -> Option<StackRange> {
        self.identity.get().map(|identity| identity.stack)
    }

    /// Reports whether the thread was detached.
    pub(super) fn is_detached(&self) -> bool {
        lock(&self.state).claim == Claim::Detached
    }

    /// Notes what the start routine returned.
    pub(super) fn set_value(&self, value: usize) {
        lock(&self.state).value = value;
    }

    /// Returns the name, if the program gave one.
    pub(super) fn name(&self) -> Option<[u8; NAME_SIZE]> {
        lock(&self.state).name
    }

    /// Gives the thread a name.
    pub(super) fn set_name(&self, name: [u8; NAME_SIZE]) {
        lock(&self.state).name = Some(name);
    }

    /// Takes the thread off the list, and ends the hold on its block: nothing knows the number any more.
    fn forget(self: &Arc<Self>) {
        if let Some(identity) = self.identity.get() {
            let mut list = lock(&LIST);
            if list.threads.get(&identity.number).is_some_and(|entry| Arc::ptr_eq(entry, self)) {
                list.threads.remove(&identity.number);
            }
        }
        let hold = lock(&self.state).hold.take();
        if let Some(hold) = hold {
            self.home.give_back(hold);
        }
    }

    /// Notes the end, and tells the joiner.
    fn end(self: &Arc<Self>, fate: Fate) {
        let mut state = lock(&self.state);
        if state.fate != Fate::Running {
            return;
        }
        state.fate = fate;
        let (joiner, detached) = (state.joiner.take(), state.claim == Claim::Detached);
        drop(state);
        if detached {
            self.forget();
        }
        self.ended.notify_all();
        if let Some(joiner) = joiner {
            joiner.wake();
        }
    }

    /// Gives up the right to join. The thread goes on.
    ///
    /// # Errors
    /// EINVAL if the thread was detached, or is being joined.
    pub(super) fn detach(self: &Arc<Self>) -> Result<(), c_int> {
        let mut state = lock(&self.state);
        if state.claim != Claim::Joinable {
            return Err(EINVAL);
        }
        state.claim = Claim::Detached;
        let over = state.fate != Fate::Running;
        drop(state);
        if over {
            self.forget();
        }
        Ok(())
    }

    /// Waits for the end, until `deadline` in monotonic nanoseconds, and returns what the start routine returned. A
    /// kill or an expired `timeout` scope of the caller is raised by its next blocking call.
    ///
    /// # Errors
    /// EINVAL if the thread was detached, or is being joined; EDEADLK if the caller is the thread, or the thread cannot
    /// run before the call returns, or never; ESRCH if its hub ended first; ETIMEDOUT.
    pub(super) fn join(self: &Arc<Self>, is_caller: bool, deadline: u64) -> Result<usize, c_int> {
        let mut state = lock(&self.state);
        match state.claim {
            _ if is_caller => return Err(EDEADLK),
            Claim::Joining | Claim::Detached => return Err(EINVAL),
            Claim::Joinable => state.claim = Claim::Joining,
        }
        drop(state);
        let waited = self.wait(deadline);
        let mut state = lock(&self.state);
        state.joiner = None;
        if let Err(error) = waited {
            state.claim = Claim::Joinable;
            return Err(error);
        }
        let (fate, value) = (state.fate, state.value);
        drop(state);
        self.forget();
        if fate == Fate::Lost { Err(ESRCH) } else { Ok(value) }
    }

    /// Waits for the end, in the hub or in the kernel.
    fn wait(&self, deadline: u64) -> Result<(), c_int> {
        if lock(&self.state).fate != Fate::Running {
            return Ok(());
        }
        match green(part::THREADS).filter(|_| obstacle().is_none()) {
            Some(green) => self.wait_in_hub(green, deadline),
            // The thread could not run meanwhile.
            None if existing_root().is_some_and(|root| self.home.is_of(root)) => Err(EDEADLK),
            None => self.wait_in_kernel(deadline),
        }
    }

    /// Parks the caller until the end. Nothing but the end and the deadline ends the wait, since neither `std` nor C
    /// expects anything else: a kill stays due.
    fn wait_in_hub(&self, green: Green, deadline: u64) -> Result<(), c_int> {
        let caller = green.caller();
        // If the thread is another hub's, something outside this hub ends the wait.
        let _counted = (!self.home.is_of(caller.root)).then(|| Counted::in_count(&caller.hub.jobs));
        loop {
            // Leave the waiter under the lock under which the fate is read.
            let mut state = lock(&self.state);
            if state.fate != Fate::Running {
                return Ok(());
            }
            if deadline != NEVER && monotonic_ns() >= deadline {
                return Err(ETIMEDOUT);
            }
            state.joiner = Some(Waiter::new(caller));
            drop(state);
            let interruption = blocking(|| caller.park_uninterrupted(REASON, deadline))?;
            if interruption.deadlock
                && let Some(report) = caller.root.take_deadlock()
            {
                raw::write_stderr(report.as_bytes());
                raw::write_stderr(b"\n");
                return Err(EDEADLK);
            }
        }
    }

    /// Blocks the OS thread, which has no hub or must not switch, until the end.
    fn wait_in_kernel(&self, deadline: u64) -> Result<(), c_int> {
        // The wait of this lock must not lead to the hub.
        let _own = runtime_syscall();
        let mut state = lock(&self.state);
        while state.fate == Fate::Running {
            if deadline == NEVER {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = deadline.saturating_sub(monotonic_ns());
            if left == 0 {
                return Err(ETIMEDOUT);
            }
            let waited = self.ended.wait_timeout(state, Duration::from_nanos(left));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Returns what tells the entry of the end of its fiber.
    pub(super) fn listener(self: &Arc<Self>) -> Rc<dyn EndListener> {
        Rc::new(AtEnd(Arc::clone(self)))
    }
}

/// Tells an entry of the end of its fiber.
struct AtEnd(Arc<Pthread>);

impl EndListener for AtEnd {
    fn ended(self: Rc<Self>, _: u64) {
        self.0.end(Fate::Ended);
    }
}

/// Returns the green thread with this number, if there is one.
pub(super) fn find(number: usize) -> Option<Arc<Pthread>> {
    lock(&LIST).threads.get(&number).cloned()
}

/// Removes an entry that a hub which has ended left behind: an OS thread has this number now.
pub(super) fn forget_number(number: usize) {
    lock(&LIST).threads.remove(&number);
}
