//! A fiber that gives the CPU away runs the loop for main, inside its own call, until its turn comes (`switch/run_loop.rs`).
//! Nobody notices: turns, ends, kills, panics, stacks are what they are when main's loop runs everybody.
#![forbid(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hint::black_box;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenling::{Greenlet, hub, spawn, thread, timeout, yield_now};

type Log<T> = Rc<RefCell<Vec<T>>>;

/// What a thread of [`turns_are_first_come_first_served_whichever_thread_runs_the_loop`] does in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It lets the others run.
    Yield,
    /// It spawns the next thread that was not spawned yet.
    Spawn,
}

/// The threads of one run: what each does, and how many there are already.
struct Scripts {
    steps: Vec<Vec<Step>>,
    spawned: Cell<usize>,
    log: RefCell<Vec<(usize, usize)>>,
}

impl Scripts {
    /// Runs thread `me`.
    fn run(self: &Rc<Self>, me: usize) {
        for (turn, step) in self.steps[me].iter().enumerate() {
            self.log.borrow_mut().push((me, turn));
            match step {
                Step::Yield => yield_now(),
                Step::Spawn => self.spawn(),
            }
        }
    }

    /// Spawns the next one, if there is one.
    fn spawn(self: &Rc<Self>) {
        let next = self.spawned.get();
        if next < self.steps.len() {
            self.spawned.set(next + 1);
            let scripts = Rc::clone(self);
            drop(spawn(move || scripts.run(next)));
        }
    }

    /// The same with a queue and nothing else.
    fn model(steps: &[Vec<Step>]) -> Vec<(usize, usize)> {
        let (mut log, mut spawned) = (Vec::new(), 1);
        let mut queue = VecDeque::from([(0, 0)]);
        while let Some((me, mut turn)) = queue.pop_front() {
            while let Some(step) = steps[me].get(turn) {
                log.push((me, turn));
                turn += 1;
                match step {
                    Step::Yield => {
                        queue.push_back((me, turn));
                        break;
                    }
                    Step::Spawn if spawned < steps.len() => {
                        queue.push_back((spawned, 0));
                        spawned += 1;
                    }
                    Step::Spawn => {}
                }
            }
        }
        log
    }
}

/// Thread 0 is main, which yields and spawns like everybody; threads end under the loop of others all the time.
#[test]
fn turns_are_first_come_first_served_whichever_thread_runs_the_loop() {
    let _guard = common::guard();
    let mut random = common::Random::new();
    for _ in 0..200 {
        let mut steps: Vec<Vec<Step>> = (0..1 + random.below(20))
            .map(|_| {
                (0..random.below(100)).map(|_| if random.below(4) == 0 { Step::Spawn } else { Step::Yield }).collect()
            })
            .collect();
        // Main sees them out.
        steps[0].insert(0, Step::Spawn);
        steps[0].extend([Step::Yield; 5000]);
        let scripts = Rc::new(Scripts { steps: steps.clone(), spawned: Cell::new(1), log: RefCell::new(Vec::new()) });
        scripts.run(0);
        assert_eq!(Rc::strong_count(&scripts), 1, "all have ended");
        assert_eq!(*scripts.log.borrow(), Scripts::model(&steps));
    }
}

/// Three rings of greenlets, each in a thread of its own, that pass a number round; now and then one yields, and then the
/// other rings go on in the middle of this one's.
#[test]
fn rings_of_greenlets_in_several_threads_do_not_mix() {
    let _guard = common::guard();
    const MEMBERS: usize = 5;
    const ROUNDS: u64 = 300;
    let ring = |name: u64| {
        let turns: Log<u64> = Rc::default();
        let members: Rc<RefCell<Vec<Greenlet<u64>>>> = Rc::default();
        for me in 0..MEMBERS {
            let (members_too, turns) = (Rc::clone(&members), Rc::clone(&turns));
            let member = Greenlet::new(move |mut left: u64| {
                let next = members_too.borrow()[(me + 1) % MEMBERS].clone();
                while left > 0 {
                    turns.borrow_mut().push(left);
                    if left.is_multiple_of(3 + name) {
                        yield_now();
                    }
                    left = next.switch(left - 1);
                }
                members_too.borrow_mut().clear();
                0
            });
            members.borrow_mut().push(member);
        }
        let first = members.borrow()[0].clone();
        assert_eq!(first.switch(ROUNDS), 0);
        assert!(turns.borrow().iter().copied().eq((1..=ROUNDS).rev()));
    };
    let threads: Vec<_> = (0..3).map(|name| spawn(move || ring(name))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// The first thread parks and so runs the second, which kills it.
#[test]
fn a_deputy_is_killed_by_the_threads_that_it_runs() {
    let _guard = common::guard();
    struct Note(Log<&'static str>);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.borrow_mut().push("unwound");
        }
    }
    let log: Log<&'static str> = Rc::default();
    let note = Note(Rc::clone(&log));
    let victim = spawn(move || {
        note.0.borrow_mut().push("parks");
        let _note = note;
        thread::park();
        unreachable!("nobody unparks it");
    });
    let theirs = Rc::clone(&log);
    let killer = spawn(move || {
        assert!(victim.kill());
        theirs.borrow_mut().push("killed");
        yield_now();
        theirs.borrow_mut().push("later");
        assert!(victim.join().unwrap_err().is_killed());
    });
    killer.join().unwrap();
    assert_eq!(*log.borrow(), ["parks", "killed", "unwound", "later"]);
}

/// The same with a time limit: those whom it runs never stop, but for a moment.
#[test]
fn a_timeout_reaches_the_thread_that_runs_the_loop() {
    let _guard = common::guard();
    let stop = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&stop);
    let limited = spawn(move || {
        let ended = timeout(Duration::from_millis(5), thread::park).is_err();
        theirs.set(true);
        ended
    });
    let yielders: Vec<_> = (0..3)
        .map(|_| {
            let stop = Rc::clone(&stop);
            spawn(move || {
                while !stop.get() {
                    yield_now();
                }
            })
        })
        .collect();
    assert!(limited.join().unwrap());
    yielders.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Who is resumed by a deputy ends there, whatever way it ends, and the deputy's own frames are as they were.
#[test]
fn an_end_under_a_deputy_is_that_threads_own() {
    let _guard = common::guard();
    let before = hub::stack_stats().in_use;
    let deputy = spawn(|| {
        let mine = black_box([7_u64; 64]);
        let returns = spawn(|| 42);
        let unwinds = spawn(|| resume_unwind(Box::new("unwound")));
        let detached = spawn(|| ());
        drop(detached);
        let greenlet = Greenlet::new(|n: u32| n + 1);
        for _ in 0..3 {
            yield_now();
        }
        assert_eq!(greenlet.switch(1), 2);
        assert_eq!(returns.join().unwrap(), 42);
        assert_eq!(unwinds.join().map(|()| 0).unwrap_err().panic_message(), Some("unwound"));
        assert_eq!(mine, [7; 64]);
    });
    deputy.join().unwrap();
    assert_eq!(hub::stack_stats().in_use, before, "every stack came back");
}

/// A deputy that is parked has frames below those of its park: they are not taken for unused.
#[test]
fn a_parked_deputy_keeps_the_frames_of_its_loop() {
    let _guard = common::guard();
    for depth in 0..40 {
        fn park_below(frames: usize) -> u64 {
            let mine = black_box([frames as u64; 37]);
            if frames == 0 {
                thread::park();
            } else {
                assert_eq!(park_below(frames - 1), frames as u64 - 1);
            }
            black_box(mine)[frames % 37]
        }
        let deputy = spawn(move || assert_eq!(park_below(depth), depth as u64));
        let handle = deputy.thread().clone();
        let other = spawn(move || {
            hub::trim_stacks();
            yield_now();
            handle.unpark();
        });
        other.join().unwrap();
        deputy.join().unwrap();
    }
}

/// Between two looks of a hub that has nothing but threads that yield lie many resumptions, but not if there is mail.
#[test]
fn remote_ops_are_read_soon_in_a_hub_where_all_only_yield() {
    let _guard = common::guard();
    for _ in 0..20 {
        let (sent, arrived) = (Arc::new(AtomicBool::new(false)), Rc::new(Cell::new(false)));
        let theirs = Rc::clone(&arrived);
        let parked = spawn(move || {
            thread::park();
            theirs.set(true);
        });
        let handle = parked.thread().clone();
        let yielders: Vec<_> = (0..2)
            .map(|_| {
                let (sent, arrived) = (Arc::clone(&sent), Rc::clone(&arrived));
                spawn(move || {
                    let mut turns = 0;
                    while !arrived.get() {
                        // Acquire: after this the letter is in the mail, since the sender's Release came after it.
                        turns += u32::from(sent.load(Ordering::Acquire));
                        yield_now();
                    }
                    turns
                })
            })
            .collect();
        let os = std::thread::spawn(move || {
            handle.unpark();
            sent.store(true, Ordering::Release);
        });
        for yielder in yielders {
            let turns = yielder.join().unwrap();
            assert!(turns <= 62, "{turns} turns");
        }
        parked.join().unwrap();
        os.join().unwrap();
    }
}
