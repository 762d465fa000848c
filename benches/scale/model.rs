//! A small model of many cores: what a server of N hubs does with C connections, from costs that were measured on few.
//!
//! Each hub is one server with one queue, and each connection is a client that thinks, asks, and waits for the answer: a
//! closed queueing network with a known exact solution (mean value analysis; Reiser and Lavenberg, 1980). What is
//! assumed is said by [`ASSUMPTIONS`], and printed with each result.
#![forbid(unsafe_code)]

/// What the model takes for granted.
pub(crate) const ASSUMPTIONS: [&str; 5] = [
    "each hub has a core of its own, and a request costs the same CPU on each, whatever the number of hubs;",
    "hubs share nothing while they serve: no memory bandwidth, no cache, no lock of the kernel, no network card;",
    "clients and their machine cost nothing, and think for a time of exponential distribution;",
    "SO_REUSEPORT puts each connection on a hub with equal chances, and a connection stays there;",
    "with the opt-in one hub accepts: a new connection costs that hub the hand-over that was measured.",
];

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// Seconds of CPU that a request costs a hub.
    pub(crate) request: f64,
    /// Seconds of CPU that the accepting hub has to spend on a connection: accept(2), and the hand-over.
    pub(crate) hand_over: f64,
}

/// Returns the requests a second of one hub with so many connections, each of which thinks for `think` seconds between
/// the answer and the next request; `service` is the CPU of a request.
pub(crate) fn rate_of_hub(connections: usize, service: f64, think: f64) -> f64 {
    let (mut queue, mut rate) = (0.0, 0.0);
    for present in 1..=connections {
        // A connection that arrives finds what a network with one connection less has on average.
        let response = service * (1.0 + queue);
        rate = present as f64 / (think + response);
        queue = rate * response;
    }
    rate
}

/// Returns the requests a second of all hubs together.
pub(crate) fn rate(shares: &[usize], service: f64, think: f64) -> f64 {
    shares.iter().map(|share| rate_of_hub(*share, service, think)).sum()
}

/// Returns the shares of `hubs` hubs if each connection goes to the hub with the fewest.
pub(crate) fn least(connections: usize, hubs: usize) -> Vec<usize> {
    (0..hubs).map(|hub| connections / hubs + usize::from(hub < connections % hubs)).collect()
}

/// Returns the shares of `hubs` hubs if each connection goes to any with equal chances; `random` is the state of the
/// generator.
pub(crate) fn hashed(connections: usize, hubs: usize, random: &mut u64) -> Vec<usize> {
    let mut shares = vec![0; hubs];
    for _ in 0..connections {
        // SplitMix64.
        *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        shares[((mixed ^ (mixed >> 31)) % hubs as u64) as usize] += 1;
    }
    shares
}

/// Returns the largest share, in mean shares.
pub(crate) fn skew(shares: &[usize]) -> f64 {
    let all: usize = shares.iter().sum();
    let most = shares.iter().copied().max().unwrap_or(0);
    if all == 0 { 1.0 } else { (most * shares.len()) as f64 / all as f64 }
}

/// What the model says of one number of hubs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prediction {
    /// The number of hubs, and of cores.
    pub(crate) hubs: usize,
    /// Times the rate of one hub with as many connections, spread by a hash; the mean of many draws.
    pub(crate) hashed: f64,
    /// The same, with each connection on the hub with the fewest.
    pub(crate) least: f64,
    /// The largest share of a hub by a hash, in mean shares; the mean of the same draws.
    pub(crate) skew: f64,
}

/// Returns what `hubs` hubs do with `connections` connections that think for `think` seconds.
pub(crate) fn predict(hubs: usize, connections: usize, costs: Costs, think: f64) -> Prediction {
    const DRAWS: usize = 1000;
    let one = rate_of_hub(connections, costs.request, think);
    let mut random = 1;
    let (mut by_hash, mut skews) = (0.0, 0.0);
    for _ in 0..DRAWS {
        let shares = hashed(connections, hubs, &mut random);
        by_hash += rate(&shares, costs.request, think) / DRAWS as f64;
        skews += skew(&shares) / DRAWS as f64;
    }
    let least = rate(&least(connections, hubs), costs.request, think);
    Prediction { hubs, hashed: by_hash / one, least: least / one, skew: skews }
}

/// Returns how many connections a second the hub that accepts can hand over at most.
pub(crate) fn most_accepts(costs: Costs) -> f64 {
    1.0 / costs.hand_over
}
