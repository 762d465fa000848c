//! A question to several hubs, each of which answers on its own OS thread: what their threads do.
//!
//! ```text
//!   the caller                                     each hub
//!   one Question, and for each hub an Ask
//!   post ------------------ Ask -----------------> start, in a poll: the answer
//!   block, or park as the caller knows how to <--- put down under the question's lock; the last one wakes the caller
//!   end: takes the answers that there are
//! ```
//!
//! A hub that computes, or is stuck in a system call, does not poll, and so does not answer. It finds the `Ask` later,
//! sees that the question is over, and does nothing.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::remote_queue::{RemoteQueue, Work};
use crate::pure::lock::lock;
use crate::switch::root::Root;
use crate::sys::runtime_syscall::runtime_syscall;

/// The state of one hub's answer.
pub(super) enum Answer<T> {
    /// The hub has not answered.
    Due,
    /// The hub has ended meanwhile.
    Gone,
    /// The hub has answered, after this time.
    Given(T, Duration),
}

/// Wakes a caller that is parked.
pub(super) type WakeCaller = Box<dyn Fn() + Send + Sync>;

/// A question to several hubs, which share it with the caller.
pub(super) struct Question<T> {
    /// The answers, by the place of the hub. No holder panics or runs foreign code (lock-1).
    answers: Mutex<Vec<Answer<T>>>,
    /// The hubs that are about to answer. Changed with the lock of `answers` held.
    begun: AtomicUsize,
    /// Wakes a caller that blocks its OS thread.
    answered: Condvar,
    /// Called at the last answer, if the caller parks.
    wake: Option<WakeCaller>,
    /// When the question was asked.
    asked: Instant,
}

impl<T: Send + 'static> Question<T> {
    /// Makes a question to `hubs` hubs.
    fn new(hubs: usize, wake: Option<WakeCaller>) -> Arc<Question<T>> {
        let answers = Mutex::new((0..hubs).map(|_| Answer::Due).collect());
        Arc::new(Question {
            answers,
            begun: AtomicUsize::new(0),
            answered: Condvar::new(),
            wake,
            asked: Instant::now(),
        })
    }

    /// Asks `hubs`, each of which calls `describe` in its next poll, where no fiber has the CPU. The last answer calls
    /// `wake`.
    pub(super) fn ask(
        hubs: &[Arc<RemoteQueue>],
        describe: impl Fn(&'static Root) -> T + Clone + Send + Sync + 'static,
        wake: Option<WakeCaller>,
    ) -> Arc<Question<T>> {
        Question::pose(hubs, describe, wake, false)
    }

    /// As [`Question::ask`], but a hub calls `describe` also when the question is over: for what must be done.
    pub(super) fn ask_even_late(
        hubs: &[Arc<RemoteQueue>],
        describe: impl Fn(&'static Root) -> T + Clone + Send + Sync + 'static,
        wake: Option<WakeCaller>,
    ) -> Arc<Question<T>> {
        Question::pose(hubs, describe, wake, true)
    }

    /// Posts a question to each hub.
    fn pose(
        hubs: &[Arc<RemoteQueue>],
        describe: impl Fn(&'static Root) -> T + Clone + Send + Sync + 'static,
        wake: Option<WakeCaller>,
        even_late: bool,
    ) -> Arc<Question<T>> {
        let question = Question::new(hubs.len(), wake);
        for (place, hub) in hubs.iter().enumerate() {
            let describe = describe.clone();
            hub.post(Arc::new(Ask { question: Arc::clone(&question), place, describe, even_late }));
        }
        question
    }

    /// Notes the answer of the hub at this place; the last one wakes the caller.
    fn answer(&self, place: usize, answer: Answer<T>) {
        let mut answers = lock(&self.answers);
        // The caller has taken the answers if its time was over; then this one is dropped, behind the lock.
        let late = match answers.get_mut(place) {
            Some(place) => {
                *place = answer;
                None
            }
            None => Some(answer),
        };
        let complete = is_complete(&answers);
        drop(answers);
        if complete && late.is_none() {
            self.answered.notify_all();
            if let Some(wake) = &self.wake {
                wake();
            }
        }
    }

    /// Reports whether there is nothing to wait for any more.
    pub(super) fn is_complete(&self) -> bool {
        is_complete(&lock(&self.answers))
    }

    /// Blocks the OS thread until all have answered, or until `limit` is over.
    pub(super) fn block(&self, limit: Duration) {
        // With the feature `monkey` the wait must not let other green threads run.
        let _mark = runtime_syscall();
        let due = |answers: &mut Vec<Answer<T>>| !is_complete(answers);
        let answers = self.answered.wait_timeout_while(lock(&self.answers), limit, due);
        drop(answers.unwrap_or_else(PoisonError::into_inner));
    }

    /// As [`block`](Self::block), but hubs that have begun to answer by then may take `more` to end.
    pub(super) fn block_for_begun(&self, limit: Duration, more: Duration) {
        self.block(limit);
        let _mark = runtime_syscall();
        // Relaxed: changed under the lock that is held here.
        let begun = |_: &mut Vec<Answer<T>>| self.begun.load(Ordering::Relaxed) > 0;
        let answers = self.answered.wait_timeout_while(lock(&self.answers), more, begun);
        drop(answers.unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the question, and returns the answers in the order of the hubs, and the time since it was asked. A later
    /// answer finds no place any more.
    pub(super) fn end(&self) -> (Vec<Answer<T>>, Duration) {
        (std::mem::take(&mut *lock(&self.answers)), self.asked.elapsed())
    }
}

/// A hub that is about to answer. Dropped behind the answer, or by a panic in its place.
struct Begun<'a, T>(&'a Question<T>);

impl<T> Drop for Begun<'_, T> {
    fn drop(&mut self) {
        let answers = lock(&self.0.answers);
        // Relaxed: changed under the lock.
        self.0.begun.fetch_sub(1, Ordering::Relaxed);
        drop(answers);
        self.0.answered.notify_all();
    }
}

/// Reports whether no answer is due any more.
fn is_complete<T>(answers: &[Answer<T>]) -> bool {
    !answers.iter().any(|answer| matches!(answer, Answer::Due))
}

/// The question, as work of one hub.
struct Ask<T, F> {
    /// What is shared with the caller.
    question: Arc<Question<T>>,
    /// The place of the hub among those that were asked.
    place: usize,
    /// Makes the answer, in a poll of the hub.
    describe: F,
    /// Whether `describe` is called although the question is over.
    even_late: bool,
}

impl<T: Send + 'static, F: Fn(&'static Root) -> T + Send + Sync> Work for Ask<T, F> {
    /// Answers, unless the question is over; makes no fiber.
    fn start(self: Arc<Self>, root: &'static Root) {
        // A hub that was held up for long may find many questions, and an answer takes time.
        let question = &*self.question;
        let answers = lock(&question.answers);
        if !self.even_late && self.place >= answers.len() {
            return;
        }
        // Relaxed: changed under the lock.
        question.begun.fetch_add(1, Ordering::Relaxed);
        drop(answers);
        let _begun = Begun(question);
        let given = (self.describe)(root);
        question.answer(self.place, Answer::Given(given, question.asked.elapsed()));
    }

    fn abandon(&self) {
        self.question.answer(self.place, Answer::Gone);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::sleep;

    use super::*;
    use crate::switch::root::root;

    #[test]
    fn an_answer_that_has_begun_is_waited_for() {
        // Says that it has begun, and ends when it is told: by then the first limit, which is none, is over.
        let (begin, begun) = mpsc::channel();
        let (end, told) = mpsc::channel();
        let told = Mutex::new(told);
        let describe = move |_: &'static Root| {
            begin.send(()).unwrap();
            lock(&told).recv().unwrap();
        };
        let question = Question::new(2, None);
        let ask = Arc::new(Ask { question: Arc::clone(&question), place: 0, describe, even_late: false });
        std::thread::scope(|scope| {
            scope.spawn(|| Arc::clone(&ask).start(root()));
            begun.recv().unwrap();
            scope.spawn(|| {
                sleep(Duration::from_millis(20));
                end.send(()).unwrap();
            });
            question.block_for_begun(Duration::ZERO, Duration::from_secs(60));
        });
        // The other hub has not begun, and is not waited for.
        assert!(matches!(question.end().0[..], [Answer::Given(..), Answer::Due]));
    }

    #[test]
    fn a_hub_does_no_work_for_a_question_that_is_over() {
        static ANSWERED: AtomicUsize = AtomicUsize::new(0);
        let describe = |_: &'static Root| ANSWERED.fetch_add(1, Ordering::Relaxed);
        let question = Question::new(1, None);
        let ask = Arc::new(Ask { question: Arc::clone(&question), place: 0, describe, even_late: false });
        Arc::clone(&ask).start(root());
        assert!(matches!(question.end().0[..], [Answer::Given(..)]));
        for _ in 0..60 {
            Arc::clone(&ask).start(root());
        }
        assert_eq!(ANSWERED.load(Ordering::Relaxed), 1);
    }
}
