//! Dropping values of the program with destructors that may panic.
//!
//! ```text
//!   drop_quietly   one value                         a panic ends here, after the panic hook has printed it
//!   drop_safely    one value                         a panic goes on; ends here only if it would be an abort
//!   Held           one value that a frame holds      as `drop_safely`
//!   drop_each      many, as a collection drops them  the first panic goes on, the others end here: two would abort
//!   Each           an iterator over such             what is left of it goes by `drop_each`
//!   collect_each   many that are being made          if the making panics, those that are there go by `drop_each`
//! ```
#![forbid(unsafe_code)]

use std::borrow::{Borrow, BorrowMut};
use std::mem::{forget, take};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::panicking;

/// Drops a value with a destructor that may panic. The panic hook has then printed the panic, and no caller is left to
/// be told.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Dropping a payload may panic too.
        forget(payload);
    }
}

/// Drops a value; quietly if the caller unwinds, where a panic would be an abort.
pub(crate) fn drop_safely<T>(value: T) {
    if panicking() { drop_quietly(value) } else { drop(value) }
}

/// Drops values in their order, each once. The first panic goes on when all values are gone, unless the caller unwinds
/// already.
pub(crate) fn drop_each<T>(values: impl Iterator<Item = T>) {
    /// The values that are left; dropped also when a destructor has panicked.
    struct Rest<I: Iterator>(I);

    impl<I: Iterator> Drop for Rest<I> {
        fn drop(&mut self) {
            self.0.by_ref().for_each(drop_quietly);
        }
    }

    let mut rest = Rest(values);
    while !panicking()
        && let Some(value) = rest.0.next()
    {
        drop(value);
    }
}

/// A value that is dropped by `drop_safely`, unless it was taken out.
#[derive(Debug)]
pub struct Held<T>(Option<T>);

impl<T> Held<T> {
    /// Creates a guard that holds `value`.
    pub fn new(value: T) -> Held<T> {
        Held(Some(value))
    }

    /// Takes the value out.
    pub fn into_inner(mut self) -> T {
        match self.0.take() {
            Some(value) => value,
            None => unreachable!("the value was taken out before"),
        }
    }
}

impl<T> Borrow<Option<T>> for Held<T> {
    fn borrow(&self) -> &Option<T> {
        &self.0
    }
}

impl<T> BorrowMut<Option<T>> for Held<T> {
    fn borrow_mut(&mut self) -> &mut Option<T> {
        &mut self.0
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        drop_safely(self.0.take());
    }
}

/// An iterator that drops what it has not yielded by [`drop_each`].
pub(crate) struct Each<I: Iterator>(pub(crate) I);

impl<I: Iterator> Iterator for Each<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.0.next()
    }
}

impl<I: Iterator> Drop for Each<I> {
    fn drop(&mut self) {
        drop_each(self.0.by_ref());
    }
}

/// Collects values as `collect` does. If the iterator panics, the values that it has made are dropped by
/// [`drop_each`].
pub(crate) fn collect_each<T>(values: impl Iterator<Item = T>) -> Vec<T> {
    /// The values that have been made.
    struct Done<T>(Vec<T>);

    impl<T> Drop for Done<T> {
        fn drop(&mut self) {
            drop_each(self.0.drain(..));
        }
    }

    let mut done = Done(Vec::new());
    values.for_each(|value| done.0.push(value));
    take(&mut done.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::panic::resume_unwind;

    /// Notes its end, and panics if it is odd.
    struct Odd<'a>(u32, &'a RefCell<Vec<u32>>);

    impl Drop for Odd<'_> {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0);
            if self.0 % 2 == 1 {
                resume_unwind(Box::new(self.0));
            }
        }
    }

    /// What `f` panicked with.
    fn panic_of(f: impl FnOnce()) -> Option<u32> {
        let payload = catch_unwind(AssertUnwindSafe(f)).err()?;
        Some(*payload.downcast::<u32>().expect("a number"))
    }

    #[test]
    fn the_first_panic_goes_on_and_every_value_is_dropped_once() {
        let ends = RefCell::default();
        assert_eq!(panic_of(|| drop_each((0..6).map(|n| Odd(n, &ends)))), Some(1));
        assert_eq!(ends.take(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(panic_of(|| drop_each([0, 2].map(|n| Odd(n, &ends)).into_iter())), None);
        assert_eq!(ends.take(), [0, 2]);
        assert_eq!(panic_of(|| drop_quietly(Odd(1, &ends))), None);
        assert_eq!(ends.take(), [1]);
    }

    #[test]
    fn while_the_caller_unwinds_no_panic_goes_on() {
        struct Late<'a>(&'a RefCell<Vec<u32>>);
        impl Drop for Late<'_> {
            fn drop(&mut self) {
                drop_each((1..4).map(|n| Odd(n, self.0)));
                drop_safely(Odd(5, self.0));
                drop(Held::new(Odd(7, self.0)));
            }
        }
        let ends = RefCell::default();
        let unwind = || {
            let _late = Late(&ends);
            resume_unwind(Box::new(7_u32));
        };
        assert_eq!(panic_of(unwind), Some(7));
        assert_eq!(ends.take(), [1, 2, 3, 5, 7]);
    }

    #[test]
    fn what_was_collected_before_a_panic_is_dropped_without_an_abort() {
        let ends = RefCell::default();
        let collect = || {
            let made = (0..).map(|n| if n < 4 { Odd(n, &ends) } else { resume_unwind(Box::new(9_u32)) });
            collect_each(made);
        };
        assert_eq!(panic_of(collect), Some(9));
        assert_eq!(ends.take(), [0, 1, 2, 3]);
        let given = Vec::from_iter((0..6).map(|n| Odd(n, &ends)));
        fn fail(odd: Odd<'_>) -> Odd<'_> {
            if odd.0 < 2 { odd } else { resume_unwind(Box::new(9_u32)) }
        }
        assert_eq!(panic_of(|| drop(collect_each(Each(given.into_iter()).map(fail)))), Some(9));
        assert_eq!(ends.take(), [2, 3, 4, 5, 0, 1]);
        assert_eq!(collect_each([1, 2].into_iter()), [1, 2]);
    }
}
