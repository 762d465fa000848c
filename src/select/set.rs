//! [`Select`]: the arms of a `select!` in a box each, for sets that are known only when the program runs.
//!
//! ```text
//!   Select    | Box | Box | Box |      one for each arm, in the order in which they were added
//!                |
//!                `--> the arm, as `select!` has it in its frame; what to do with its result
//! ```
//!
//! The wait is that of the macro, in `runtime::choose`. An arm that has not won is as before the wait (choose-1), so
//! the arm stays in the set.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::mpsc::SendError;
use std::time::{Duration, Instant};

use super::pieces::{after, at, until_after, until_at};
use crate::pure::drops::drop_each;
use crate::runtime::choose::{AT_ONCE, AnyArm, FOR_EVER, Order, SelectArm, select_any};
use crate::runtime::select_source::{
    SelectAccept, SelectEnd, SelectReadable, SelectRecv, SelectSend, SelectSendFrom, SelectWait, SelectWritable,
};

/// The name of these waits in reports.
const WHAT: &str = "the first of the arms of a Select";

/// What the arm `A` yields.
type Output<A> = <A as SelectArm>::Output;

/// Several things to wait for, as many as the program finds at run time: [`select!`](crate::select!) without the fixed
/// list.
///
/// Add an arm for each thing, with a closure that makes one type of all results, and wait. The arm that won leaves the
/// set; the others stay for the next wait.
///
/// ```
/// use greenling::{Select, channel, spawn};
///
/// let mut receivers = Vec::new();
/// for n in 1..=100 {
///     let (send, receive) = channel::bounded(1);
///     receivers.push(receive);
///     spawn(move || (0..n).for_each(|value| send.send(value).unwrap()));
/// }
/// let mut select = Select::new();
/// for (index, receiver) in receivers.iter().enumerate() {
///     select.recv(receiver, move |value| (index, value));
/// }
/// let mut count = 0;
/// while !select.is_empty() {
///     let (index, value) = select.select();
///     // A channel that has ended is not added again.
///     if value.is_ok() {
///         count += 1;
///         select.recv(&receivers[index], move |value| (index, value));
///     }
/// }
/// assert_eq!(count, 5050);
/// ```
///
/// The arms are those of `select!`, and take what those take. In place of `join(handle)` there is [`end`](Self::end),
/// after which `handle.join()` need not wait; in place of `tick(interval)`, [`at`](Self::at) with its
/// [`next_tick`](crate::time::Interval::next_tick).
///
/// ```
/// use std::time::Duration;
/// use greenling::{Select, channel, sync::Event};
///
/// enum Next { Stop, Job(u32), Sent }
///
/// let (stop, jobs, answers) = (Event::new(), channel::unbounded(), channel::rendezvous());
/// jobs.0.send(7).unwrap();
/// let mut select = Select::biased();
/// select.wait(&stop, |()| Next::Stop);
/// select.recv(&jobs.1, |job| Next::Job(job.unwrap()));
/// select.send(&answers.0, "done", |sent| { sent.unwrap(); Next::Sent });
/// assert!(matches!(select.select_timeout(Duration::from_secs(1)), Some(Next::Job(7))));
/// assert!(select.try_select().is_none()); // no receiver waits for the answer
/// assert_eq!(select.len(), 2);
/// ```
///
/// # What is promised
///
/// The promises of `select!`: of several arms that can go on each has the same chance, or the arm that was added first
/// wins if the set is [`biased`](Self::biased). One arm goes on, and no other does anything. A waiting set stands in
/// every queue with a place of its own, first come, first served. If a kill or an expired [`timeout`](crate::timeout)
/// ends the wait, no value is lost, and all arms are still there: what an arm was given goes to the next waiter. The
/// one exception is a value of a [`send`](Self::send) that was taken before: that value was sent, and its arm never
/// goes on again.
///
/// The closure runs when no arm stands in any queue any more, so the closure may wait. Values to send that were not
/// sent are dropped with the set; those of [`send_from`](Self::send_from) are in their slots.
///
/// A wait costs memory and time in proportion to the number of arms: all lists are joined and left. There is no limit.
pub struct Select<'a, R> {
    /// The arms, in the order in which they were added.
    arms: Vec<Box<dyn ErasedArm<R> + 'a>>,
    /// The rule for several arms that can go on.
    order: Order,
}

/// An arm with an erased type, and what to do with its result.
trait ErasedArm<R> {
    /// Returns the arm, for the wait.
    fn arm(&self) -> AnyArm<'_>;

    /// Takes the result of an arm that has won, and makes of it what the set yields.
    fn finish(self: Box<Self>) -> R;
}

/// The only implementation of [`ErasedArm`].
struct ArmAndThen<A, F> {
    arm: A,
    /// Makes of the arm's result what the set yields.
    then: F,
}

impl<A: SelectArm, F: FnOnce(A::Output) -> R, R> ErasedArm<R> for ArmAndThen<A, F> {
    fn arm(&self) -> AnyArm<'_> {
        self.arm.erase()
    }

    fn finish(self: Box<Self>) -> R {
        let ArmAndThen { arm, then } = *self;
        then(arm.finish())
    }
}

impl<'a, R> Select<'a, R> {
    /// Creates a set without arms, in which each arm that can go on has the same chance.
    ///
    /// May switch: no.
    pub fn new() -> Select<'a, R> {
        Select { arms: Vec::new(), order: Order::Fair }
    }

    /// Creates a set without arms, in which the arm that was added first wins if several can go on.
    ///
    /// May switch: no.
    pub fn biased() -> Select<'a, R> {
        Select { arms: Vec::new(), order: Order::Biased }
    }

    /// Returns the number of arms.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.arms.len()
    }

    /// Reports whether the set has no arms.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.arms.is_empty()
    }

    fn add<A: SelectArm + 'a>(&mut self, arm: A, then: impl FnOnce(A::Output) -> R + 'a) {
        self.arms.push(Box::new(ArmAndThen { arm, then }));
    }

    /// Adds an arm that receives, from a receiver of any kind or [`Signals`](crate::signal::Signals). `then` gets what
    /// `recv` returns.
    ///
    /// May switch: no.
    pub fn recv<S: SelectRecv>(&mut self, receiver: &'a S, then: impl FnOnce(Output<S::Arm<'a>>) -> R + 'a) {
        self.add(receiver.select_recv(), then);
    }

    /// Adds an arm that sends `value`. `then` gets what `send` returns.
    ///
    /// May switch: no.
    pub fn send<S: SelectSend>(
        &mut self,
        sender: &'a S,
        value: S::Value,
        then: impl FnOnce(Result<(), SendError<S::Value>>) -> R + 'a,
    ) where
        S::Value: 'a,
    {
        self.add(sender.select_send(value), then);
    }

    /// Adds an arm that sends what is in `slot`, and leaves the value there if the arm does not win. An arm with `None`
    /// in the slot never goes on. `then` gets what `send` returns.
    ///
    /// May switch: no.
    pub fn send_from<S: SelectSendFrom>(
        &mut self,
        sender: &'a S,
        slot: &'a mut Option<S::Value>,
        then: impl FnOnce(Result<(), SendError<S::Value>>) -> R + 'a,
    ) {
        self.add(sender.select_send_from(slot), then);
    }

    /// Adds an arm that waits for the end of a thread.
    ///
    /// May switch: no.
    pub fn end<S: SelectEnd>(&mut self, handle: &'a S, then: impl FnOnce(Output<S::Arm<'a>>) -> R + 'a) {
        self.add(handle.select_end(), then);
    }

    /// Adds an arm that waits for an [`Event`](crate::sync::Event), a [`WaitGroup`](crate::sync::WaitGroup), an
    /// [`AsyncResult`](crate::sync::AsyncResult), a permit of a [`Semaphore`](crate::sync::Semaphore), or the end of a
    /// [`Child`](crate::process::Child). `then` gets what `select!` yields.
    ///
    /// May switch: no.
    pub fn wait<S: SelectWait>(&mut self, source: &'a S, then: impl FnOnce(Output<S::Arm<'a>>) -> R + 'a) {
        self.add(source.select_wait(), then);
    }

    /// Adds an arm that goes on when `limit` is over, counted from now: an arm like the others. A time limit for one
    /// wait is [`select_timeout`](Self::select_timeout).
    ///
    /// May switch: no.
    pub fn after(&mut self, limit: Duration, then: impl FnOnce() -> R + 'a) {
        self.add(after(limit), |()| then());
    }

    /// Adds an arm that goes on at `instant`, or at once if that has passed.
    ///
    /// May switch: no.
    pub fn at(&mut self, instant: Instant, then: impl FnOnce() -> R + 'a) {
        self.add(at(instant), |()| then());
    }

    /// Adds an arm that goes on when a read would not wait. `then` gets an error if the descriptor was closed, or
    /// cannot be waited for.
    ///
    /// May switch: no.
    pub fn readable<S: SelectReadable>(&mut self, source: &'a S, then: impl FnOnce(Output<S::Arm<'a>>) -> R + 'a) {
        self.add(source.select_readable(), then);
    }

    /// Adds an arm that goes on when a write would not wait; as [`readable`](Self::readable).
    ///
    /// May switch: no.
    pub fn writable<S: SelectWritable>(&mut self, source: &'a S, then: impl FnOnce(Output<S::Arm<'a>>) -> R + 'a) {
        self.add(source.select_writable(), then);
    }

    /// Adds an arm that accepts a connection. `then` gets what `accept` returns.
    ///
    /// May switch: no.
    pub fn accept<S: SelectAccept>(&mut self, listener: &'a S, then: impl FnOnce(Output<S::Arm<'a>>) -> R + 'a) {
        self.add(listener.select_accept(), then);
    }

    /// Waits until an arm can go on, and returns what the arm's closure makes of the result. The arm leaves the set.
    ///
    /// # Panics
    /// If the set is empty, since nothing could end the wait. If the call has to wait: unwinds with a kill or an
    /// expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock. A
    /// caller that unwinds cannot wait: a timer goes off at once, and without a timer that is a panic. If a thread
    /// waits for its own end.
    ///
    /// May switch: yes, unless an arm can go on at once.
    #[track_caller]
    pub fn select(&mut self) -> R {
        assert!(!self.is_empty(), "greenling: a Select without arms would wait for ever");
        // Without a time limit an arm must win.
        match self.until(FOR_EVER) {
            Some(result) => result,
            None => unreachable!("it waits until an arm has won"),
        }
    }

    /// [`select`](Self::select)s if an arm can go on without waiting. Otherwise returns `None`, and all arms are still
    /// there.
    ///
    /// May switch: no, unless the closure does.
    pub fn try_select(&mut self) -> Option<R> {
        self.until(AT_ONCE)
    }

    /// [`select`](Self::select)s, but waits no longer than `limit`: then returns `None`, and all arms are still there.
    /// An arm that can go on when the time is over wins. An empty set waits for the whole time; a caller that unwinds
    /// does not wait at all.
    ///
    /// # Panics
    /// As [`select`](Self::select), but for the empty set and the caller that unwinds.
    ///
    /// May switch: yes, unless an arm can go on at once or `limit` is zero.
    pub fn select_timeout(&mut self, limit: Duration) -> Option<R> {
        self.until(until_after(limit))
    }

    /// [`select_timeout`](Self::select_timeout) with the time at which the wait ends.
    ///
    /// # Panics
    /// As [`select_timeout`](Self::select_timeout).
    ///
    /// May switch: yes, unless an arm can go on at once or `deadline` has passed.
    pub fn select_deadline(&mut self, deadline: Instant) -> Option<R> {
        self.until(until_at(deadline))
    }

    /// Waits until `until`, in monotonic nanoseconds, and returns what the winning arm yields.
    fn until(&mut self, until: u64) -> Option<R> {
        let arms: Vec<_> = self.arms.iter().map(|arm| arm.arm()).collect();
        // The arms are erased for the wait; the winner's box leaves the set.
        let number = select_any(&arms, self.order, until, WHAT)?;
        // Not `swap_remove`: a biased set keeps its order.
        Some(self.arms.remove(number).finish())
    }
}

impl<R> Default for Select<'_, R> {
    fn default() -> Self {
        Select::new()
    }
}

impl<R> Drop for Select<'_, R> {
    fn drop(&mut self) {
        // Values that were not sent may panic in their destructors: all are dropped all the same.
        drop_each(self.arms.drain(..));
    }
}

impl<R> fmt::Debug for Select<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select").field("order", &self.order).field("len", &self.len()).finish_non_exhaustive()
    }
}
