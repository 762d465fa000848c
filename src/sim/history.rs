//! [`History`]: what was called and what came back, and whether one thread alone could have had the same.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::error::Error;
use std::fmt::{self, Debug, Write};
use std::hash::Hash;
use std::rc::Rc;

use super::world::World;
use crate::pure::linearize::{Order, Span, order};

/// A record of calls that threads make of something they share, with the order in which the calls began and ended.
///
/// What is shared is right if each call has its effect at one moment between its begin and its end: then the results
/// are those of a model that makes one call at a time, in the order of these moments. That is linearizability
/// (Herlihy and Wing, 1990), and [`check`](Self::check) looks for such an order. The model is a state and a function.
///
/// ```
/// use greenling::sim::{self, Config, History};
/// use greenling::{channel, spawn, yield_now};
/// use std::collections::VecDeque;
/// use std::cell::RefCell;
/// use std::rc::Rc;
///
/// #[derive(Clone, Debug)]
/// enum Call { Push(u32), Pop }
///
/// /// A queue that takes the first value and only then looks whether it may.
/// fn pop(queue: &RefCell<VecDeque<u32>>) -> Option<u32> {
///     let first = queue.borrow().front().copied();
///     yield_now(); // another thread takes the same one
///     queue.borrow_mut().pop_front();
///     first
/// }
///
/// let failure = Config::new().check(|| {
///     let (queue, history) = (Rc::new(RefCell::new(VecDeque::new())), History::new());
///     history.call(Call::Push(1), || { queue.borrow_mut().push_back(1); None });
///     history.call(Call::Push(2), || { queue.borrow_mut().push_back(2); None });
///     let threads = [(); 2].map(|()| {
///         let (queue, history) = (queue.clone(), history.clone());
///         spawn(move || history.call(Call::Pop, || pop(&queue)))
///     });
///     threads.map(|thread| thread.join().unwrap());
///     history.assert(VecDeque::new(), |queue, call| match call {
///         Call::Push(value) => { queue.push_back(*value); None }
///         Call::Pop => queue.pop_front(),
///     });
/// });
/// assert!(failure.unwrap_err().message().starts_with("not linearizable"));
/// ```
///
/// A clone is the same record. Outside of a simulation a history works as well, but there nothing looks for unlucky
/// orders.
pub struct History<O, R> {
    /// The calls, in the order in which they began.
    record: Rc<RefCell<Record<O, R>>>,
}

/// What a history has recorded.
struct Record<O, R> {
    /// The calls, in the order in which they began.
    calls: Vec<Call<O, R>>,
    /// The number of begins and ends so far.
    events: u64,
}

/// What is kept of a call that was made.
struct Call<O, R> {
    /// The number of the thread; 0 outside of a simulation.
    thread: u64,
    /// What was called, with its arguments.
    operation: O,
    /// What came back; none if the call never ended.
    result: Option<R>,
    /// Its begin and its end, in events.
    span: Span,
}

impl<O, R> Clone for History<O, R> {
    fn clone(&self) -> History<O, R> {
        History { record: Rc::clone(&self.record) }
    }
}

impl<O, R> Default for History<O, R> {
    fn default() -> History<O, R> {
        History::new()
    }
}

impl<O: Debug, R: Debug> Debug for History<O, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("calls", &self.len()).finish_non_exhaustive()
    }
}

impl<O, R> History<O, R> {
    /// Returns a record without calls.
    ///
    /// May switch: no.
    pub fn new() -> History<O, R> {
        History { record: Rc::new(RefCell::new(Record { calls: Vec::new(), events: 0 })) }
    }

    /// Returns how many calls have begun.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.record.borrow().calls.len()
    }

    /// Reports whether no call has begun.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `f`, which carries `operation` out, and records that with the result. If `f` unwinds, from a kill for
    /// example, the call has never ended: its effect may be there, or not.
    ///
    /// # Panics
    /// With the panics of `f`.
    ///
    /// May switch: if `f` does.
    pub fn call(&self, operation: O, f: impl FnOnce() -> R) -> R
    where
        R: Clone,
    {
        let thread = World::with(|world| world.current_number()).unwrap_or(0);
        let number = {
            let mut record = self.record.borrow_mut();
            let began = record.next_event();
            record.calls.push(Call { thread, operation, result: None, span: Span { began, ended: None } });
            record.calls.len() - 1
        };
        let result = f();
        let copy = result.clone();
        let mut record = self.record.borrow_mut();
        let ended = record.next_event();
        record.calls[number].span.ended = Some(ended);
        record.calls[number].result = Some(copy);
        drop(record);
        result
    }

    /// Looks for an order of the calls in which `model`, from `state` on, gives the results that they had. `model`
    /// carries one operation out in a state, and returns its result; a thread alone.
    ///
    /// # Errors
    /// If there is no such order, or if the history is too large for a search.
    ///
    /// # Panics
    /// With the panics of `model`, and of the comparisons and hashes of state and results.
    ///
    /// May switch: no.
    pub fn check<S>(&self, state: S, model: impl Fn(&mut S, &O) -> R) -> Result<(), NotLinearizable>
    where
        S: Clone + Eq + Hash,
        O: Debug,
        R: Debug + PartialEq,
    {
        let record = self.record.borrow();
        let calls = &record.calls;
        let spans: Vec<_> = calls.iter().map(|call| call.span).collect();
        let found = order(&spans, state, |state, number| {
            let result = model(state, &calls[number].operation);
            calls[number].result.as_ref().is_none_or(|had| *had == result)
        });
        let text = match found {
            Order::Found(_) => return Ok(()),
            Order::None(longest) => record.text(&longest),
            Order::Unknown => {
                format!("undecided: {} calls have too many orders to look for one that is right", calls.len())
            }
        };
        Err(NotLinearizable(text.into()))
    }

    /// Does what [`check`](Self::check) does, for a test.
    ///
    /// # Panics
    /// With the error of [`check`](Self::check), and as that.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn assert<S>(&self, state: S, model: impl Fn(&mut S, &O) -> R)
    where
        S: Clone + Eq + Hash,
        O: Debug,
        R: Debug + PartialEq,
    {
        if let Err(error) = self.check(state, model) {
            panic!("{error}");
        }
    }
}

impl<O, R> Record<O, R> {
    /// Counts an event, and returns its number.
    fn next_event(&mut self) -> u64 {
        self.events += 1;
        self.events - 1
    }

    /// Returns the report of a history without an order: the calls, and how far the best one went.
    fn text(&self, longest: &[usize]) -> String
    where
        O: Debug,
        R: Debug,
    {
        let mut text = String::from("not linearizable: in no order would one thread alone have had these results");
        for (number, call) in self.calls.iter().enumerate() {
            let (began, place) = (call.span.began, longest.iter().position(|taken| *taken == number));
            let place = place.map_or_else(String::new, |place| format!("{}.", place + 1));
            let _ = write!(text, "\n  {place:>4} #{} {:?}", call.thread, call.operation);
            let _ = match (&call.result, call.span.ended) {
                (Some(result), Some(ended)) => write!(text, " -> {result:?}, from event {began} to {ended}"),
                _ => write!(text, " never ended, from event {began}"),
            };
        }
        let _ = write!(text, "\n  the numbers are the longest order that goes");
        text
    }
}

/// The error of a [`History`] that one thread alone could not have had. Its text has the calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable(Box<str>);

impl fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for NotLinearizable {}

/// Returns an error of kind `Other`.
impl From<NotLinearizable> for std::io::Error {
    fn from(error: NotLinearizable) -> std::io::Error {
        std::io::Error::other(error)
    }
}
