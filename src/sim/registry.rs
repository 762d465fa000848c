//! What a run has to give back before its end: values that are tracked, and what is lent out. Each with the place in
//! the program that says so.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::Location;

use crate::pure::drops::drop_quietly;

/// Says what is lent out, if anything is.
pub(super) type Question = Box<dyn Fn() -> Option<String>>;

/// The registry of one OS thread that simulates.
#[derive(Default)]
pub(super) struct Registry {
    /// The types of tracked values, and where they were made, by their numbers.
    values: RefCell<BTreeMap<u64, (&'static str, &'static Location<'static>)>>,
    /// The number that was given out last. Not set back, so that a value of an earlier run is none of a later one.
    last: Cell<u64>,
    /// What is asked at the end, and where that was asked for.
    questions: RefCell<Vec<(Question, &'static Location<'static>)>>,
}

impl Registry {
    /// Notes a value of the type with this `name`. Returns its number.
    pub(super) fn add_value(&self, name: &'static str, made_at: &'static Location<'static>) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.values.borrow_mut().insert(number, (name, made_at));
        number
    }

    /// Notes that a value is there no more.
    pub(super) fn remove_value(&self, number: u64) {
        self.values.borrow_mut().remove(&number);
    }

    /// Adds what is asked at the end.
    pub(super) fn add_question(&self, question: Question, asked_at: &'static Location<'static>) {
        self.questions.borrow_mut().push((question, asked_at));
    }

    /// Forgets everything, for a run that begins.
    pub(super) fn clear(&self) {
        self.values.take();
        self.questions.take().into_iter().for_each(drop_quietly);
    }

    /// Returns a line for each thing that is lent out. Nothing is asked again. The answers are the program's, and must
    /// not wait.
    pub(super) fn take_lent(&self) -> Vec<String> {
        let questions = self.questions.take();
        let lines = questions.iter().filter_map(|(question, asked_at)| {
            let lent = question()?;
            Some(format!("{lent}, to be free at the end since {asked_at}"))
        });
        let lines = lines.collect();
        questions.into_iter().for_each(drop_quietly);
        lines
    }

    /// Returns a line for each value that is left. They are forgotten.
    pub(super) fn take_values(&self) -> Vec<String> {
        let values = self.values.take();
        values.into_values().map(|(name, made_at)| format!("a value of type {name}, made at {made_at}")).collect()
    }
}
