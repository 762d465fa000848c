//! Waiting for several threads: [`wait_any`], with [`join_all`] and [`kill_all`] beside it.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;

use crate::pure::drops::collect_each;
use crate::runtime::hub::hub;
use crate::switch::cancel;
use crate::switch::extras::EndListener;
use crate::sync::Event;
use crate::thread::{JoinError, JoinHandle};

/// Joins all threads of `handles`, and returns the results in the order of the handles.
///
/// # Panics
/// As [`JoinHandle::join`]. If the caller is interrupted, the handles are dropped and the threads go on.
///
/// May switch: yes, unless all have ended.
#[doc(alias = "joinall")]
pub fn join_all<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<Result<T, JoinError>> {
    collect_each(handles.into_iter().map(JoinHandle::join))
}

/// Kills all threads of `handles`, and returns how many were still alive; see [`JoinHandle::kill`]. To wait for their
/// end, use [`join_all`].
///
/// May switch: no.
#[doc(alias = "killall")]
pub fn kill_all<'a, T: 'a>(handles: impl IntoIterator<Item = &'a JoinHandle<T>>) -> usize {
    handles.into_iter().filter(|handle| handle.kill()).count()
}

/// Waits until `count` of the threads have ended, or all if they are fewer, and takes their handles out of `handles`,
/// in the order in which they ended. Those that had ended before the call come first, in the order of `handles`.
///
/// ```
/// use greenling::{group::wait_any, sleep, spawn};
/// use std::time::Duration;
///
/// let mut handles: Vec<_> = [300, 0, 5].map(|ms| spawn(move || {
///     sleep(Duration::from_millis(ms));
///     ms
/// })).into();
/// let quick = wait_any(&mut handles, 2).into_iter().map(|thread| thread.join().unwrap());
/// assert!(quick.eq([0, 5]));
/// assert_eq!(handles.len(), 1); // the slow one
/// ```
///
/// If a kill or a timeout ends the wait, `handles` still has all elements.
///
/// # Panics
/// If the call would have to wait for the calling thread itself. Unwinds with a kill or an expired
/// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
///
/// May switch: yes, unless enough have ended.
#[doc(alias = "iwait")]
pub fn wait_any<T: 'static>(handles: &mut Vec<JoinHandle<T>>, count: usize) -> Vec<JoinHandle<T>> {
    let count = count.min(handles.len());
    let finished = Rc::new(Finished::default());
    // First those that have ended already.
    let mut order: Vec<usize> = (0..handles.len()).filter(|&at| handles[at].has_ended()).take(count).collect();
    if order.len() < count {
        refuse_own_end(handles.len() - count, handles.iter().filter(|handle| !handle.has_ended()));
        // Then, in their order, those that end while all are watched.
        let watched = Watched::new(handles, &finished);
        finished.wait_for(count - order.len());
        drop(watched);
        order.extend(finished.tokens().into_iter().take(count - order.len()));
    }
    // Every wait is over: only now do the handles move.
    let mut slots: Vec<Option<JoinHandle<T>>> = mem::take(handles).into_iter().map(Some).collect();
    let taken = order.into_iter().filter_map(|at| slots[at].take()).collect();
    handles.extend(slots.into_iter().flatten());
    taken
}

/// Panics if the calling thread is among those that are waited for, and more than `spare` of these must end.
pub(super) fn refuse_own_end<'a, T: 'a>(spare: usize, mut running: impl Iterator<Item = &'a JoinHandle<T>>) {
    assert!(spare > 0 || !running.any(JoinHandle::is_current), "a green thread cannot wait for its own end");
}

/// Handles, and a listener for the ends of their threads until the drop.
struct Watched<'a, T> {
    /// The handles. Some of the threads had ended before, and are not watched.
    handles: &'a [JoinHandle<T>],
    /// The listener of the others.
    finished: Rc<dyn EndListener>,
}

impl<'a, T> Watched<'a, T> {
    /// Watches all threads of `handles` that have not ended. The token is the index.
    fn new(handles: &'a [JoinHandle<T>], finished: &Rc<Finished>) -> Watched<'a, T> {
        let watched = Watched { handles, finished: Rc::clone(finished) as Rc<dyn EndListener> };
        for (at, handle) in handles.iter().enumerate() {
            if handle.add_listener(Rc::clone(&watched.finished), at as u64) {
                finished.expect_one();
            }
        }
        watched
    }
}

impl<T> Drop for Watched<'_, T> {
    fn drop(&mut self) {
        for (at, handle) in self.handles.iter().enumerate() {
            handle.remove_listener(&self.finished, at as u64);
        }
        debug_assert_eq!(Rc::strong_count(&self.finished), 2, "only the caller of `wait_any` and this know it");
    }
}

/// Returns why the calling thread may not wait, if so: the thread unwinds, or its OS thread has no hub.
pub(super) fn refusal() -> Option<JoinError> {
    match (cancel::obstacle(), hub()) {
        (Some(obstacle), _) => Some(JoinError::refused(obstacle)),
        (None, Err(error)) => Some(JoinError::refused(error)),
        (None, Ok(_)) => None,
    }
}

/// Reports whether the calling thread may wait.
pub(super) fn may_wait() -> bool {
    refusal().is_none()
}

/// A listener for the ends of the threads that one caller waits for.
#[derive(Debug, Default)]
struct Finished {
    /// The indices of the threads that have ended, in the order of their ends.
    tokens: RefCell<Vec<usize>>,
    /// How many watched threads have not ended.
    left: Cell<usize>,
    /// Set when a thread ends.
    changed: Event,
}

impl EndListener for Finished {
    fn ended(self: Rc<Self>, token: u64) {
        self.tokens.borrow_mut().push(token as usize);
        self.left.set(self.left.get() - 1);
        self.changed.set();
    }
}

impl Finished {
    /// Counts one more watched thread.
    fn expect_one(&self) {
        self.left.set(self.left.get() + 1);
    }

    /// Waits until `count` watched threads have ended, or all if they are fewer. Returns at once if the caller may not
    /// wait.
    ///
    /// # Panics
    /// As `Event::wait`.
    fn wait_for(&self, count: usize) {
        while self.tokens.borrow().len() < count && self.left.get() > 0 && may_wait() {
            self.changed.clear();
            self.changed.wait();
        }
    }

    /// Takes the indices of the threads that have ended, in the order of their ends.
    fn tokens(&self) -> Vec<usize> {
        self.tokens.take()
    }
}
