//! A property test on top of an exploration: `proptest` draws and shrinks the input, `sim` the schedule.

use std::cell::{Cell, RefCell};
use std::process::Command;
use std::rc::Rc;

use greenling::sim::{Config, Failure};
use greenling::spawn;
use greenling::sync::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

/// What each account has at first.
const AT_FIRST: i64 = 10;

/// Withdraws amounts from accounts, each in a thread of its own, which looks whether there is enough, writes that into
/// a log, and takes the money. Nothing is wrong with that unless another thread has its turn at the log.
fn withdraws(orders: &[(usize, i64)]) {
    let accounts = Rc::new([(); 3].map(|()| Cell::new(AT_FIRST)));
    let log = Rc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = orders
        .iter()
        .map(|&(account, amount)| {
            let (accounts, log) = (Rc::clone(&accounts), Rc::clone(&log));
            spawn(move || {
                if accounts[account].get() >= amount {
                    log.lock().unwrap().push(amount);
                    accounts[account].set(accounts[account].get() - amount);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for account in accounts.iter() {
        assert!(account.get() >= 0, "an account is overdrawn");
    }
}

/// Looks for orders and a schedule that break the program. Returns the smallest ones that were found.
fn broken() -> Option<(Vec<(usize, i64)>, Failure)> {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let latest = RefCell::new(None);
    let orders = prop::collection::vec((0_usize..3, 1_i64..=AT_FIRST), 0..8);
    let found = runner.run(&orders, |orders| match Config::new().schedules(50).check(|| withdraws(&orders)) {
        Ok(_) => Ok(()),
        Err(failure) => {
            let text = failure.to_string();
            // The last one is not the smallest: proptest tries smaller ones that hold. So each is kept with its input.
            latest.replace(Some((orders, failure)));
            Err(TestCaseError::fail(text))
        }
    });
    match found {
        Ok(()) => None,
        Err(TestError::Fail(_, smallest)) => {
            let (orders, failure) = latest.into_inner()?;
            assert_eq!(orders, smallest);
            Some((orders, failure))
        }
        Err(error) => panic!("{error}"),
    }
}

/// Asserts that nothing of `orders` can be left out: two from one account, which has a coin too few.
#[track_caller]
fn assert_smallest(orders: &[(usize, i64)]) {
    assert_eq!(orders.len(), 2, "{orders:?}");
    // Both at once would have to become another one, so it need not be the first.
    assert_eq!(orders[0].0, orders[1].0, "{orders:?}");
    assert_eq!(orders.iter().map(|(_, amount)| amount).sum::<i64>(), AT_FIRST + 1, "{orders:?}");
}

#[test]
fn the_input_is_shrunk_by_proptest_and_the_schedule_by_sim() {
    let (orders, failure) = broken().unwrap();
    println!("{orders:?}\n{failure}\n{}", failure.trace());
    assert_smallest(&orders);
    assert_eq!((failure.schedule().deviations(), failure.trace().preemptions()), (1, 1), "{failure}");
    let chapter = include_str!("../../docs/book/19-time-and-chance.md");
    assert!(chapter.contains(&format!("{orders:?}\n{}\n", failure.message())), "the chapter does not have it");
}

/// Not a test by itself: what [`one_schedule_is_replayed_for_all_inputs`] starts.
#[test]
#[ignore = "fails; a child of another test"]
fn finds_the_overdraft() {
    if let Some((orders, failure)) = broken() {
        panic!("{orders:?}: {failure}");
    }
}

#[test]
fn one_schedule_is_replayed_for_all_inputs() {
    let child = |seed: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "property::finds_the_overdraft", "--nocapture"]);
        command.env_remove("GREENLING_SEED").env("RUST_BACKTRACE", "0");
        if let Some(seed) = seed {
            command.env("GREENLING_SEED", seed);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // The line that has the orders, and the seed of the one that replays.
    let found = |text: &str| {
        let input = text.lines().rfind(|line| line.starts_with("[(")).map(str::to_owned);
        let seed = text.lines().rev().find_map(|line| line.trim().strip_prefix("replay: GREENLING_SEED="));
        let seed = seed.and_then(|seed| seed.split_once(' ')).map(|(seed, _)| seed.to_owned());
        (input.unwrap_or_else(|| panic!("{text}")), seed.unwrap_or_else(|| panic!("{text}")))
    };
    let first = found(&child(None));
    assert!(first.0.contains("an account is overdrawn"), "{first:?}");
    // With the schedule given, proptest has only the input to look for, and finds one of the same size.
    let again = found(&child(Some(&first.1)));
    assert_eq!(again.1, first.1);
    assert_eq!(again.0.matches("), (").count(), 1, "two orders: {again:?}");
}
