//! The conditions between two hosts, and what they mean for one packet: when it arrives, and whether it does.
//!
//! ```text
//!   sent at t --> waits until the link is free --> size / bandwidth --> latency + random(0 ..= jitter) --> arrives
//!
//!   lost:        a datagram is gone; a segment of a stream comes later, by the time that a retransmission takes
//!   reordered:   a datagram comes later by up to twice the latency, and at least by a millisecond
//!   duplicated:  a datagram comes twice, each at a time of its own
//!   cut:         nothing arrives; what was under way is gone, and streams try again after pauses
//! ```
//!
//! A host that talks to itself has no delay and loses nothing.
#![forbid(unsafe_code)]

use super::{HostId, Network};

/// The pause before the first retransmission, in nanoseconds; each further one is twice as long, as Linux does.
const FIRST_RETRY: u64 = 200_000_000;

/// The longest pause between two retransmissions, in nanoseconds.
const LONGEST_RETRY: u64 = 120_000_000_000;

/// The shortest delay of a datagram that others are to overtake, in nanoseconds.
const OVERTAKEN: u64 = 1_000_000;

/// The conditions between two hosts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Conditions {
    /// How long a packet travels, in nanoseconds.
    pub(crate) latency: u64,
    /// The most that is added to the latency by chance, in nanoseconds.
    pub(crate) jitter: u64,
    /// Bytes a second in each direction; 0 for no limit.
    pub(crate) bandwidth: u64,
    /// The probability that a packet is lost.
    pub(crate) loss: f64,
    /// The probability that a datagram comes twice.
    pub(crate) duplication: f64,
    /// The probability that a datagram is late, so that others overtake it.
    pub(crate) reordering: f64,
    /// After how many bytes, of both directions together, a connection that begins from now on is reset.
    pub(crate) reset_after: Option<u64>,
}

/// What happens to a packet by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It is gone, or, of a stream, sent once more.
    Lost,
    /// A copy of it comes, too.
    Doubled,
    /// It comes after others that were sent later.
    Late,
}

impl Conditions {
    /// Between sockets of one host.
    const INSIDE: Conditions = Conditions {
        latency: 0,
        jitter: 0,
        bandwidth: 0,
        loss: 0.0,
        duplication: 0.0,
        reordering: 0.0,
        reset_after: None,
    };
    /// Between two hosts of which nothing was said: a millisecond.
    pub(crate) const USUAL: Conditions = Conditions { latency: 1_000_000, ..Conditions::INSIDE };
}

/// Returns two hosts in the order in which the tables have them.
pub(super) fn pair(one: HostId, other: HostId) -> (HostId, HostId) {
    (one.min(other), one.max(other))
}

/// Returns the pause before the retransmission number `attempt`, from 1 on, in nanoseconds.
pub(super) fn retry_after(attempt: u32) -> u64 {
    FIRST_RETRY.checked_shl(attempt - 1).map_or(LONGEST_RETRY, |pause| pause.min(LONGEST_RETRY))
}

impl Network {
    /// Returns the conditions between two hosts.
    pub(crate) fn conditions(&self, one: HostId, other: HostId) -> Conditions {
        if one == other {
            return self.inside;
        }
        self.links.get(&pair(one, other)).copied().unwrap_or(self.usual)
    }

    /// Changes the conditions between two hosts, or with one and the same host twice, inside of each host.
    pub(crate) fn set_conditions(&mut self, one: HostId, other: HostId, conditions: Conditions) {
        if one == other {
            self.inside = conditions;
        } else {
            self.links.insert(pair(one, other), conditions);
        }
    }

    /// Changes the conditions between any two hosts for which there are no others.
    pub(crate) fn set_usual_conditions(&mut self, conditions: Conditions) {
        self.usual = conditions;
    }

    /// Returns the conditions between any two hosts for which there are no others.
    pub(crate) fn usual_conditions(&self) -> Conditions {
        self.usual
    }

    /// Cuts the link between two hosts, or restores it.
    pub(crate) fn set_cut(&mut self, one: HostId, other: HostId, cut: bool) {
        if cut {
            self.cuts.insert(pair(one, other));
        } else {
            self.cuts.remove(&pair(one, other));
        }
    }

    /// Restores the links that were cut.
    pub(crate) fn heal_all(&mut self) {
        self.cuts.clear();
    }

    /// Reports whether packets go from one host to another: the link is there, and the other host runs.
    pub(super) fn is_reachable(&self, from: HostId, to: HostId) -> bool {
        !self.hosts[to].is_down && (self.cuts.is_empty() || !self.cuts.contains(&pair(from, to)))
    }

    /// Decides whether something with this probability happens to a packet. What is certain is no matter of chance.
    pub(super) fn happens(&mut self, mishap: Mishap, probability: f64) -> bool {
        if probability <= 0.0 || probability >= 1.0 {
            return probability > 0.0;
        }
        let chance = (probability * 4_294_967_296.0) as u64;
        match self.decide {
            Some(decide) => decide(mishap, chance),
            None => self.random.next() >> 32 < chance,
        }
    }

    /// Sets what decides from now on what happens to packets: with a chance in parts of 2^32.
    pub(crate) fn ask_for_mishaps(&mut self, decide: fn(Mishap, u64) -> bool) {
        self.decide = Some(decide);
    }

    /// Returns when a packet of `bytes` that is sent now arrives, if it does.
    pub(super) fn arrival(&mut self, from: HostId, to: HostId, bytes: usize) -> u64 {
        let conditions = self.conditions(from, to);
        let mut at = self.now;
        if conditions.bandwidth > 0 {
            let free = self.busy.entry((from, to)).or_insert(0);
            let takes = u128::from(bytes as u64) * 1_000_000_000 / u128::from(conditions.bandwidth);
            at = at.max(*free).saturating_add(u64::try_from(takes).unwrap_or(u64::MAX));
            *free = at;
        }
        at = at.saturating_add(conditions.latency);
        match conditions.jitter {
            0 => at,
            u64::MAX => at.saturating_add(self.random.next()),
            jitter => at.saturating_add(self.random.next() % (jitter + 1)),
        }
    }

    /// Returns by how much losses delay a segment of a stream, which is sent again until it arrives.
    pub(super) fn delay_by_loss(&mut self, from: HostId, to: HostId) -> u64 {
        let loss = self.conditions(from, to).loss;
        let (mut delay, mut attempt) = (0_u64, 0);
        while attempt < 8 && self.happens(Mishap::Lost, loss) {
            attempt += 1;
            delay = delay.saturating_add(retry_after(attempt));
        }
        delay
    }

    /// Returns by how much a datagram is late on purpose.
    pub(super) fn delay_by_reordering(&mut self, from: HostId, to: HostId) -> u64 {
        let conditions = self.conditions(from, to);
        if !self.happens(Mishap::Late, conditions.reordering) {
            return 0;
        }
        let most = conditions.latency.saturating_mul(2).max(OVERTAKEN);
        OVERTAKEN + self.random.next() % most
    }
}
