//! Greenlets: generators, the classic program. A generator is a greenlet that switches to its parent with each value;
//! being stackful, it may do so from any depth, and through several levels at once.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::panic::catch_unwind;
use std::rc::Rc;

use greenling::Greenlet;

/// What a generator gives: a value, or nothing more.
type Gen<T> = Greenlet<Option<T>>;

/// The values of a generator, as an iterator.
struct Values<T: 'static>(Gen<T>);

impl<T> Iterator for Values<T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        if self.0.is_dead() {
            return None;
        }
        // The values go to whoever asks, not to whoever made the generator.
        self.0.set_parent(&Gen::current()).unwrap();
        self.0.switch(None)
    }
}

/// A generator of what `body` gives.
fn generate<T: 'static>(body: impl FnOnce() + 'static) -> Values<T> {
    Values(Gen::new(|_| {
        body();
        None
    }))
}

/// Gives a value from within a generator.
fn give<T: 'static>(value: T) {
    Gen::switch_to_parent(Some(value));
}

/// Case 56: generator
#[test]
fn a_generator_and_its_consumer_take_turns() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..3 {
        let inside = seen.clone();
        let g = generate::<i32>(move || {
            for i in 0..5 {
                inside.borrow_mut().push(i + 1);
                give(i);
            }
        });
        g.for_each(|value| seen.borrow_mut().push(value));
    }
    assert_eq!(*seen.borrow(), [1, 0, 2, 1, 3, 2, 4, 3, 5, 4].repeat(3));
}

/// Case 57: layered_genlets
#[test]
fn a_generator_may_give_past_its_consumer() {
    let seen = Rc::new(RefCell::new(Vec::<i32>::new()));
    let log = seen.clone();
    let outer = generate::<i32>(move || {
        // Its values go to `outer`, and the squares through it to `outer`'s consumer.
        let inner = generate::<(u32, i32)>(|| {
            for i in 1..5 {
                give((1u32, i));
                give((2u32, i * i));
            }
        });
        for (level, value) in inner {
            if level == 2 {
                give(value);
            } else {
                log.borrow_mut().push(value);
            }
        }
    });
    outer.for_each(|value| seen.borrow_mut().push(value));
    assert_eq!(*seen.borrow(), [1, 1, 2, 4, 3, 9, 4, 16]);
}

/// The same, without the help of the one between: a switch goes to any greenlet.
#[test]
fn a_generator_may_switch_to_its_consumers_consumer() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    type G = Gen<i32>;
    let outer = G::new(move |_| {
        let inner = G::new(|_| {
            for i in 1..5 {
                G::switch_to_parent(Some(i));
                G::main().switch(Some(i * i));
            }
            None
        });
        // Main answers the squares with a switch to `inner`.
        INNER.set(Some(inner.clone()));
        while let Some(value) = inner.switch(None) {
            log.borrow_mut().push(value);
        }
        None
    });
    thread_local! {
        static INNER: std::cell::Cell<Option<G>> = const { std::cell::Cell::new(None) };
    }
    let mut got = outer.switch(None);
    let inner = INNER.take().unwrap();
    while let Some(value) = got {
        seen.borrow_mut().push(value);
        got = inner.switch(None);
    }
    assert_eq!(*seen.borrow(), [1, 1, 2, 4, 3, 9, 4, 16]);
}

/// All orders of `items`, by a generator for each length.
fn permutations(items: Vec<u8>) -> Values<Vec<u8>> {
    generate(move || {
        if items.len() <= 1 {
            return give(items);
        }
        for &first in &items {
            let rest = items.iter().copied().filter(|&item| item != first).collect();
            for tail in permutations(rest) {
                give([vec![first], tail].concat());
            }
        }
    })
}

/// Case 58: permutations, and zip of two
#[test]
fn recursive_generators_give_every_permutation_once() {
    let all: Vec<_> = permutations(vec![0, 1, 2, 3]).collect();
    let mut sorted = all.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((all.len(), sorted), (24, all));
    let pairs: Vec<_> = permutations(vec![0, 1, 2, 3]).zip(permutations(vec![0, 1, 2])).collect();
    let expected = [
        ([0, 1, 2, 3], [0, 1, 2]),
        ([0, 1, 3, 2], [0, 2, 1]),
        ([0, 2, 1, 3], [1, 0, 2]),
        ([0, 2, 3, 1], [1, 2, 0]),
        ([0, 3, 1, 2], [2, 0, 1]),
        ([0, 3, 2, 1], [2, 1, 0]),
    ];
    assert_eq!(pairs, expected.map(|(a, b)| (a.to_vec(), b.to_vec())));
}

/// Case 59: genlet_simple x3: given by a loop, by a function, by a function of a function
#[test]
fn the_depth_of_the_call_that_gives_does_not_matter() {
    fn nested(value: i32, depth: u32) {
        if depth == 0 { give(value) } else { nested(value, depth - 1) }
    }
    for depth in [0, 1, 20] {
        let values = generate::<i32>(move || (0..5).for_each(|i| nested(i, depth)));
        assert!(values.eq(0..5));
    }
}

/// Case 60: nested_genlets, genlet_bad
#[test]
fn generators_nest_and_giving_outside_of_one_is_an_error() {
    fn countdown(n: u32) -> Values<u32> {
        generate(move || {
            if n > 0 {
                countdown(n - 1).for_each(give);
                give(n);
            }
        })
    }
    assert!(countdown(5).eq(1..=5));
    assert!(catch_unwind(|| give(10)).is_err());
}

#[test]
fn a_generator_that_is_not_used_up_is_unwound() {
    let held = Rc::new(());
    let inside = held.clone();
    let mut values = generate(move || {
        let _held = inside;
        (0..1000).for_each(give);
    });
    assert_eq!((values.next(), values.next()), (Some(0), Some(1)));
    drop(values);
    assert_eq!(Rc::strong_count(&held), 1);
}
