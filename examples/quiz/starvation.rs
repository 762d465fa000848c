//! Starvation: threads that queue for a lock, and one that tries. The answer is from the order of life and from a
//! thousand others.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use greenling::sim::{self, Config, Strategy};
use greenling::sync::Mutex;
use greenling::thread::JoinHandle;
use greenling::{spawn, yield_now};

use crate::Quiz;
use crate::draw::Draw;

/// The number of schedules besides that of life.
const SCHEDULES: u64 = 1000;

/// A program: some threads that use a lock again and again, and one that needs it once.
#[derive(Clone, Copy)]
struct Program {
    /// The number of threads that use the lock again and again.
    workers: usize,
    /// How often each of them does.
    rounds: usize,
    /// Whether they let others run when they have let the lock go.
    pauses: bool,
}

/// Draws a program, and asks about it.
pub(crate) fn quiz(mut draw: Draw) -> Quiz {
    let program =
        Program { workers: 1 + draw.below(3) as usize, rounds: 3 + draw.below(3) as usize, pauses: draw.below(2) == 0 };
    let names: Vec<_> = ('a'..).take(program.workers).map(String::from).collect();
    let (threads, each) = match program.workers {
        1 => ("A thread", "does this"),
        2 => ("Two threads", "each do this"),
        _ => ("Three threads", "each do this"),
    };
    let question = format!(
        "{threads}, {}, {each} {} times:\n\n\
         \x20   let held = lock.lock().unwrap();\n    yield_now();\n    drop(held);\n{}\n\
         The last one, z, is spawned after them, and needs the lock once:\n\n\
         \x20   while lock.try_lock().is_err() {{\n        yield_now();\n    }}\n\n\
         1. In which order do they get the lock, in life?\n\
         2. How many have it before z, in the worst of {SCHEDULES} random schedules?\n\
         3. And in which order in life, if z waits by `lock.lock()`?\n",
        names.join(", "),
        program.rounds,
        if program.pauses { "    yield_now();\n" } else { "" },
    );
    Quiz { question, answer: Box::new(move || program.answer()) }
}

impl Program {
    /// Runs the program, and returns which thread had the lock, in order. The last thread tries, or waits.
    fn run(&self, waits: bool) -> String {
        let (lock, order) = (Rc::new(Mutex::new(())), Rc::new(RefCell::new(String::new())));
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        for name in ('a'..).take(self.workers) {
            let (lock, order, Program { rounds, pauses, .. }) = (Rc::clone(&lock), Rc::clone(&order), *self);
            threads.push(spawn(move || {
                for _ in 0..rounds {
                    let held = lock.lock().unwrap();
                    order.borrow_mut().push(name);
                    yield_now();
                    drop(held);
                    if pauses {
                        yield_now();
                    }
                }
            }));
        }
        let order2 = Rc::clone(&order);
        threads.push(spawn(move || {
            let held = if waits {
                lock.lock().unwrap()
            } else {
                loop {
                    match lock.try_lock() {
                        Ok(held) => break held,
                        Err(_) => yield_now(),
                    }
                }
            };
            order2.borrow_mut().push('z');
            drop(held);
        }));
        threads.into_iter().for_each(|thread| thread.join().expect("it returns"));
        order.take()
    }

    /// Returns the order of life.
    fn in_life(&self, waits: bool) -> String {
        Config::new().strategy(Strategy::Fifo).run(|| self.run(waits))
    }

    /// Returns how many had the lock before the last thread, which tries, in the worst of many schedules.
    fn worst(&self) -> u64 {
        let worst = AtomicU64::new(0);
        let config = Config::new().schedules(SCHEDULES).progress(false);
        sim::explore(config, || {
            let order = self.run(false);
            worst.fetch_max(order.find('z').expect("it ends") as u64, Ordering::Relaxed);
        });
        worst.into_inner()
    }

    /// Runs the program in both forms.
    fn answer(&self) -> String {
        let (tries, waits) = (self.in_life(false), self.in_life(true));
        let spaced = |order: &str| order.chars().map(String::from).collect::<Vec<_>>().join(" ");
        let total = self.workers * self.rounds;
        let before = tries.find('z').expect("it ends");
        let why = match (before == total, self.workers) {
            (true, 2..) => {
                "A lock that is let go belongs to the first that waits, at once, so it is never free while threads \
                 queue: the one that only tries starves until they have done."
            }
            (true, _) => "The lock is free only while no other thread runs: the one that tries never finds it so.",
            (false, _) => "The lock is free while its only user pauses, and the one that tries comes just then.",
        };
        format!(
            "1. {}\n2. {} of {total}\n3. {}\n\n{why} One that waits is served in its turn.\n",
            spaced(&tries),
            self.worst(),
            spaced(&waits),
        )
    }
}
