//! The hub: one per OS thread, made on first use; it answers the root loop's question "who can run now?".
//!
//! ```text
//!   look(may_wait)
//!     1. mail            of other OS threads: unparks, finished jobs; work to start
//!     2. poll            nobody runnable: sleep in epoll_wait until the next timer or event
//!                        otherwise: epoll_wait(0), at most every POLL_INTERVAL
//!     3. stacks          memory of stacks that nobody has used for a while goes back; also before the sleep
//!     4. timers          after the poll, so that ready IO beats a timeout that expires in the same turn
//! ```
//!
//! While there is no mail, no descriptor and no timer, the root's loop asks for a look less often (`is_quiet`).
//!
//! Timers are lazy: a fiber has at most one wheel entry, which may be *earlier* than the deadline it waits for. A
//! wait with a timeout stores the deadline in the control block and touches the wheel only if no early enough entry
//! is there; a wait that ends in time stores "none" and leaves the entry where it is. An entry that fires too early
//! is put back at the deadline of the moment. So a server's read timeout costs two stores a request.
//!
//! * Invariant H1: an entry in the wheel names a live fiber whose `timer` field holds its key. Upheld by
//!   `set_deadline`, `fire` and `forget` (called for each fiber that ends with an entry).
//! * Invariant H2: the hub belongs to the thread's `Root` and lives as long. The root hands it out until it is closed, and
//!   in the child of a fork not at all; `hub_of` is an error then.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

use super::mail::{Letter, Mail, Work};
use super::reactor::Reactor;
use super::report;
use crate::pure::slab::{Key, Slab};
use crate::pure::timer_wheel::TimerWheel;
use crate::switch::cancel::{FORKED, abort_with};
use crate::switch::fiber::{Fiber, Reason, State};
use crate::switch::root::{Root, Scheduler, existing_root, try_root};
use crate::sys::clock::monotonic_ns;
use crate::sys::fork;

/// While fibers are runnable, epoll is asked at most this often, in nanoseconds: a yield takes a few, a system call
/// a few hundred, so asking every 61 resumptions would cost as much as the yields themselves.
const POLL_INTERVAL: u64 = 50_000;

/// Timers fired at one look; the rest fires at the next, after the fibers just woken have run.
const FIRE_BATCH: usize = 1024;

/// Pieces of other hubs' work started at one look; the rest is started at the next.
const START_BATCH: usize = 1024;

/// Bytes of the scratch buffer.
const SCRATCH: usize = 64 * 1024;

/// One OS thread's hub.
pub(crate) struct Hub {
    /// Descriptors.
    reactor: Reactor,
    /// Who sleeps, or waits with a timeout.
    timers: RefCell<TimerWheel<Fiber>>,
    /// Fibers whose entry fired, while `fire` looks at them; kept for its memory.
    due: Cell<Vec<Fiber>>,
    /// What other OS threads send. Each `Thread` handle and running job holds a clone.
    mail: Arc<Mail>,
    /// When epoll was last asked, in monotonic nanoseconds.
    polled: Cell<u64>,
    /// Fibers in `thread::park`: a handle in another OS thread may wake them.
    pub(crate) parked: Cell<usize>,
    /// Jobs on other OS threads that will send a letter, and fibers that wait for another hub.
    pub(crate) jobs: Cell<usize>,
    /// Other hubs' work that was started here and has not ended.
    guests: RefCell<Slab<Arc<dyn Work>>>,
    /// The process this hub belongs to, as a count of forks: a child's copy must not be used.
    generation: u32,
    /// The buffer lent to whoever reads without one of its own; made on first use, away while it is lent.
    scratch: Cell<Option<Box<[u8]>>>,
}

/// The hub of this OS thread, made on first use.
///
/// # Errors
/// When the thread is ending, in the child of a fork, or when the kernel refused an epoll instance or an eventfd.
#[inline(always)]
pub(crate) fn hub() -> io::Result<(&'static Root, &'static Hub)> {
    // Two tests on the way that everybody takes; through `try_root` and `hub_of` the results would be tested once more.
    if let Some(root) = existing_root()
        && let Some(hub) = root.scheduler_as()
    {
        return Ok((root, hub));
    }
    hub_slow()
}

/// `hub`, when there is none that can be used.
#[cold]
#[inline(never)]
fn hub_slow() -> io::Result<(&'static Root, &'static Hub)> {
    let root = try_root().ok_or_else(ending)?;
    Ok((root, hub_of(root)?))
}

/// The hub that belongs to `root`, made on first use.
///
/// # Errors
/// As [`hub`].
#[inline(always)]
pub(crate) fn hub_of(root: &'static Root) -> io::Result<&'static Hub> {
    match root.scheduler_as() {
        Some(hub) => Ok(hub),
        None => hub_of_slow(root),
    }
}

/// `hub_of`, when there is no hub that can be used.
#[cold]
#[inline(never)]
fn hub_of_slow(root: &'static Root) -> io::Result<&'static Hub> {
    if !root.has_scheduler() {
        return create(root);
    }
    Err(if root.is_forked() { io::Error::other(FORKED) } else { ending() })
}

/// The usable hub of `root`, if there is one.
#[inline(always)]
pub(crate) fn existing_hub_of(root: &'static Root) -> Option<&'static Hub> {
    root.scheduler_as()
}

/// The error of calls on a thread whose hub is gone.
#[cold]
pub(crate) fn ending() -> io::Error {
    io::Error::other("greenling: this OS thread is ending and its hub is gone")
}

/// Makes the hub.
#[cold]
fn create(root: &'static Root) -> io::Result<&'static Hub> {
    fork::in_children(crate::switch::root::after_fork_in_child);
    fork::watch_forks()?;
    report::name_panics();
    let mail = Arc::new(Mail::new()?);
    let hub = Hub {
        reactor: Reactor::new(mail.bell())?,
        timers: RefCell::new(TimerWheel::new(monotonic_ns())),
        due: Cell::new(Vec::new()),
        mail,
        polled: Cell::new(0),
        parked: Cell::new(0),
        jobs: Cell::new(0),
        guests: RefCell::new(Slab::new()),
        generation: fork::fork_generation(),
        scratch: Cell::new(None),
    };
    root.set_scheduler(Box::new(hub));
    match root.scheduler_as() {
        Some(hub) => Ok(hub),
        None => unreachable!("nobody else sets a scheduler"),
    }
}

impl Hub {
    /// Whether this is a copy in the child of a fork.
    fn is_forked(&self) -> bool {
        self.generation != fork::fork_generation()
    }

    /// Descriptors.
    #[inline]
    pub(crate) fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// A way for other OS threads to send letters.
    pub(crate) fn mail(&self) -> &Arc<Mail> {
        &self.mail
    }

    /// Other hubs' work was started here: if the hub ends first, it is abandoned.
    pub(crate) fn add_guest(&self, work: Arc<dyn Work>) -> Key {
        self.guests.borrow_mut().insert(work)
    }

    /// It has ended. Nobody's destructor runs, as long as the caller holds it too.
    pub(crate) fn remove_guest(&self, key: Key) {
        let guest = self.guests.borrow_mut().remove(key);
        drop(guest);
    }

    /// Takes the scratch buffer out of its place, or makes one: while it is lent, the next caller gets another.
    #[inline]
    pub(crate) fn take_scratch(&self) -> Box<[u8]> {
        self.scratch.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice())
    }

    /// Puts a scratch buffer back. One is kept.
    #[inline]
    pub(crate) fn return_scratch(&self, buffer: Box<[u8]>) {
        self.scratch.set(Some(buffer));
    }

    /// From now on a timer will wake `fiber` at `at` (monotonic nanoseconds) at the latest.
    #[inline]
    pub(crate) fn set_deadline(&self, fiber: Fiber, at: u64) {
        fiber.deadline.set(at);
        if at < fiber.timer_at.get() {
            self.insert(fiber, at);
        }
    }

    /// Puts `fiber` into the wheel, in place of a later entry (H1).
    fn insert(&self, fiber: Fiber, at: u64) {
        let mut timers = self.timers.borrow_mut();
        if let Some(old) = fiber.timer.get() {
            timers.cancel(old);
        }
        fiber.timer.set(Some(timers.insert(at, fiber)));
        fiber.in_wheel.set(true);
        fiber.timer_at.set(at);
    }

    /// Wakes fibers whose deadline has come, in its order; puts back those whose deadline has moved. At most
    /// `FIRE_BATCH`.
    fn fire(&self, root: &Root, now: u64) {
        let mut due = self.due.take();
        self.timers.borrow_mut().advance(now, FIRE_BATCH, &mut |fiber, _| due.push(fiber));
        let mut moved = 0;
        for &fiber in &due {
            let was = fiber.timer_at.replace(u64::MAX);
            fiber.timer.set(None);
            fiber.in_wheel.set(false);
            moved += u32::from(fiber.deadline.get() != was);
        }
        // An entry is in order of when it fired; a deadline that has moved and is over as well belongs further back.
        if moved > 0 && !due.is_sorted_by_key(|fiber| fiber.deadline.get()) {
            due.sort_by_key(|fiber| fiber.deadline.get());
        }
        for fiber in due.drain(..) {
            let deadline = fiber.deadline.get();
            if deadline == u64::MAX {
                continue;
            }
            if deadline > now {
                self.insert(fiber, deadline);
            } else if matches!(fiber.state.get(), State::Parked | State::Switched) {
                // Only a fiber that nothing else has woken timed out: ready IO wins.
                fiber.timed_out.set(true);
                root.wake(fiber);
            }
        }
        self.due.set(due);
    }

    /// Whether `fire` may find somebody: then the poll must not be skipped, or a timeout would beat ready IO.
    fn timer_is_due(&self, now: u64) -> bool {
        self.timers.borrow().next_wakeup().is_some_and(|at| at <= now)
    }

    /// Opens the letters.
    fn read_mail(&self, root: &'static Root) {
        while let Some(letter) = self.mail.take() {
            match letter {
                Letter::Unpark(parcel) => {
                    if let Some(fiber) = root.open(parcel) {
                        root.give_permit(fiber);
                    }
                }
                Letter::Wake(parcel) => {
                    // Whose wait was unwound meanwhile waits for something else now, and must not be disturbed.
                    if let Some(fiber) = root.open(parcel)
                        && matches!(fiber.waits_for(), Reason::Job(_) | Reason::Remote(_))
                    {
                        root.wake(fiber);
                    }
                }
                Letter::Kill(parcel) => {
                    if let Some(fiber) = root.open(parcel) {
                        root.kill(fiber);
                    }
                }
            }
        }
        for _ in 0..START_BATCH {
            let Some(work) = self.mail.take_work() else { return };
            work.start(root);
        }
    }

    /// Nobody is runnable: sleeps until something happens, or says that nothing ever can.
    fn sleep(&self, root: &'static Root) {
        if !self.mail.prepare_to_sleep() {
            return;
        }
        // Asked after `prepare_to_sleep`: who drops the last handle from now on rings, and it is asked again.
        let can_be_woken = self.can_be_woken();
        if !can_be_woken {
            self.drop_stale_timers();
        }
        let next = self.timers.borrow().next_wakeup();
        if next.is_none() && !can_be_woken {
            self.mail.woke();
            // A letter whose sender dropped the last handle after `prepare_to_sleep` is still a wake-up.
            if !self.mail.has_mail() {
                root.deadlock(report::deadlock(root));
            }
            return;
        }
        // Stacks that nobody uses are given back in steps, for which an idle hub wakes up a few times.
        let wakeup = [next, root.tend_stacks_at()].into_iter().flatten().min();
        let timeout = wakeup.map(|at| at.saturating_sub(monotonic_ns()));
        self.reactor.poll(root, timeout);
        self.mail.woke();
    }

    /// Takes out the entries of waits that are over, up to the first that somebody waits for: only timers can wake
    /// anybody here, and one that is left over must not hide a deadlock.
    fn drop_stale_timers(&self) {
        loop {
            let Some(fiber) = self.timers.borrow().first() else { return };
            let deadline = fiber.deadline.get();
            if deadline == fiber.timer_at.get() {
                return;
            }
            self.forget(fiber);
            if deadline != u64::MAX {
                self.insert(fiber, deadline);
            }
        }
    }

    /// Whether anything but a timer may still wake a fiber of this hub.
    fn can_be_woken(&self) -> bool {
        // Only `thread::park` listens to `Thread` handles; what another hub starts here may wake anybody.
        self.reactor.waiting.get() > 0
            || self.jobs.get() > 0
            || (self.parked.get() > 0 && self.mail.has_handles())
            || self.mail.has_posters()
    }
}

impl Scheduler for Hub {
    fn look(&self, root: &Root, may_wait: bool) {
        // The root that asks is this thread's, and lives as long as the thread switches (R1).
        let Some(root) = try_root().filter(|mine| std::ptr::eq(*mine, root)) else { return };
        if self.is_forked() {
            // A forked child in a wait that cannot be interrupted: epoll would steal its parent's events.
            abort_with(&FORKED);
        }
        if self.mail.has_mail() {
            self.read_mail(root);
        }
        let mut now = monotonic_ns();
        if may_wait && root.runnable() == 0 {
            root.tend_stacks(now);
            self.sleep(root);
            if self.mail.has_mail() {
                self.read_mail(root);
            }
            now = monotonic_ns();
            self.polled.set(now);
        } else if !self.reactor.is_empty() && (now - self.polled.get() >= POLL_INTERVAL || self.timer_is_due(now)) {
            self.reactor.poll(root, Some(0));
            self.polled.set(now);
        }
        root.clock.set(now);
        root.tend_stacks(now);
        if !self.timers.borrow().is_empty() {
            self.fire(root, now);
        }
        root.note_activity();
    }

    fn is_quiet(&self) -> bool {
        !self.is_forked() && !self.mail.has_mail() && self.reactor.is_empty() && self.timers.borrow().is_empty()
    }

    fn arm(&self, _: &Root, fiber: Fiber) {
        let at = fiber.scope_deadline.get().at;
        if at != u64::MAX {
            self.set_deadline(fiber, at);
        }
    }

    fn disarm(&self, root: &Root, fiber: Fiber) -> bool {
        fiber.deadline.set(u64::MAX);
        fiber.timed_out.take() && fiber.scope_deadline.get().at <= root.clock.get()
    }

    fn forget(&self, fiber: Fiber) {
        if let Some(key) = fiber.timer.take() {
            self.timers.borrow_mut().cancel(key);
        }
        fiber.in_wheel.set(false);
        fiber.timer_at.set(u64::MAX);
    }

    fn collect(&self, root: &Root) {
        let Some(root) = try_root().filter(|mine| std::ptr::eq(*mine, root)) else { return };
        while let Some(work) = self.mail.take_work() {
            work.start(root);
        }
    }

    fn refuse(&self) {
        self.mail.refuse();
        if cfg!(panic = "abort") {
            // It cannot be started and unwound.
            while let Some(work) = self.mail.take_work() {
                work.abandon();
            }
        }
    }

    fn close(&self) {
        self.mail.close();
        if self.is_forked() {
            // In a child, whoever waits for guests is not there; and a lock may be held for ever.
            return;
        }
        // Those that could not be unwound. Their joiners must not wait for ever.
        loop {
            let mut guests = self.guests.borrow_mut();
            let Some((key, _)) = guests.iter().next() else { return };
            let guest = guests.remove(key);
            drop(guests);
            if let Some(guest) = guest {
                guest.abandon();
            }
        }
    }
}
