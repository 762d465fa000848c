//! The program of chapter 19, and what it prints: as the chapter shows it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use greenling::sim::{Config, Strategy};
use greenling::sync::Mutex;
use greenling::{spawn, thread};

/// Looks whether there is work, waits for a lock, and parks: a wake-up that comes in between is lost.
pub(crate) fn lost_wake_up() {
    let work = Rc::new(Cell::new(false));
    let sleeper = Rc::new(RefCell::new(None::<thread::Thread>));
    let log = Rc::new(Mutex::new(Vec::new()));
    let (work2, sleeper2, log2) = (work.clone(), sleeper.clone(), log.clone());
    spawn(move || {
        log2.lock().unwrap().push("work");
        work2.set(true);
        if let Some(thread) = sleeper2.take() {
            thread.unpark();
        }
    });
    if !work.get() {
        log.lock().unwrap().push("nothing to do");
        sleeper.replace(Some(thread::current()));
        thread::park();
    }
}

#[test]
fn what_the_chapter_shows_is_what_is_printed() {
    let failure = Config::new().check(lost_wake_up).unwrap_err();
    let explored = Config::new().strategy(Strategy::Exhaustive { choices: usize::MAX }).check(|| {
        let other = spawn(thread::yield_now);
        thread::yield_now();
        other.join().unwrap();
    });
    let printed = format!("{failure}\n\n{}\n{}\n", failure.trace(), explored.unwrap());
    // In the chapter the program is a test of its own.
    let printed = printed.replace("book::what_the_chapter_shows_is_what_is_printed", "lost_wake_up");
    println!("{printed}");
    let chapter = include_str!("../../docs/book/19-time-and-chance.md");
    for line in printed.lines() {
        assert!(chapter.contains(line.trim_end()), "the chapter does not have: {line}\n{printed}");
    }
}

#[test]
fn the_timeout_of_the_chapter_strikes_as_shown() {
    let failure = Config::new().check_timeouts(crate::faults::loses_a_value_to_a_timeout).unwrap_err();
    let trace = failure.trace().to_string();
    println!("{trace}");
    let chapter = include_str!("../../docs/book/19-time-and-chance.md");
    assert!(trace.contains("fault: timeout"), "{trace}");
    for line in trace.lines() {
        assert!(chapter.contains(line), "the chapter does not have: {line}\n{trace}");
    }
}
