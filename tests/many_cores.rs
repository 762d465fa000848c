//! The model of many cores (`benches/scale/model.rs`): where the answer is known, it gives that answer.
#![forbid(unsafe_code)]

#[path = "../benches/scale/model.rs"]
mod model;

use model::{Costs, hashed, least, most_accepts, predict, rate, rate_of_hub, skew};

/// Equal within a millionth.
#[track_caller]
fn same(one: f64, other: f64) {
    assert!((one - other).abs() < 1e-6 * other.abs().max(1.0), "{one} is not {other}");
}

#[test]
fn one_hub_does_what_theory_says() {
    // Nothing to do; one client, which never waits; and without pauses a hub that is never idle.
    same(rate_of_hub(0, 2.0, 5.0), 0.0);
    same(rate_of_hub(1, 2.0, 6.0), 1.0 / 8.0);
    for clients in 1..50 {
        same(rate_of_hub(clients, 2.0, 0.0), 0.5);
    }
    // Two clients: the second waits for half of what the first has, on average.
    let queue = 2.0 / 8.0;
    same(rate_of_hub(2, 2.0, 6.0), 2.0 / (6.0 + 2.0 * (1.0 + queue)));
    // Never more than the hub can do, nor than the clients ask for.
    for clients in 1..200 {
        let rate = rate_of_hub(clients, 1.0, 30.0);
        assert!(rate < 1.0 + 1e-9 && rate < clients as f64 / 31.0 + 1e-9);
    }
}

#[test]
fn shares_are_those_of_the_two_ways() {
    assert_eq!(least(8, 3), [3, 3, 2]);
    assert_eq!(least(30, 3), [10, 10, 10]);
    let mut random = 7;
    let shares = hashed(100_000, 4, &mut random);
    assert_eq!(shares.iter().sum::<usize>(), 100_000);
    assert!(shares.iter().all(|share| (24_000..26_000).contains(share)), "{shares:?}");
    same(skew(&[4, 2, 2]), 1.5);
    same(skew(&[0, 0]), 1.0);
}

#[test]
fn a_hub_without_a_connection_is_what_few_connections_lose() {
    // Without pauses each hub that has a connection is busy: the rate is the number of those.
    same(rate(&[3, 0, 1, 0], 0.5, 0.0), 4.0);
    let costs = Costs { request: 1e-5, hand_over: 1e-5 };
    let told = predict(4, 8, costs, 0.0);
    same(told.least, 4.0);
    // The chance that a hub has none of 8 is (3/4)^8.
    let busy = 4.0 * (1.0 - 0.75_f64.powi(8));
    assert!((told.hashed - busy).abs() < 0.05, "{} is not {busy}", told.hashed);
    assert!(told.skew > 1.5 && told.hubs == 4);
    same(most_accepts(costs), 1e5);
    assert!(!model::ASSUMPTIONS.is_empty());
}
