//! The timer wheel: where timers lie, and when they fire. The order comes from the runtime's own wheel.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::Quiz;
use crate::draw::Draw;
use crate::timer_wheel::TimerWheel;

/// The length of a tick in nanoseconds, as a power of two.
const TICK_BITS: u32 = 14;

/// The number of slots of a level.
const SLOTS: u64 = 64;

/// The digits that are shown: enough for each tick here.
const DIGITS: u32 = 3;

/// A timer of the question.
struct Timer {
    name: char,
    /// When it is due, in ticks.
    tick: u64,
    /// How far into its tick it is due, in nanoseconds.
    offset: u64,
    /// Whether it is cancelled before time goes on.
    cancelled: bool,
}

impl Timer {
    /// Returns when the timer is due, in nanoseconds.
    fn deadline(&self) -> u64 {
        (self.tick << TICK_BITS) + self.offset
    }
}

/// Draws a program, and asks about it.
pub(crate) fn quiz(mut draw: Draw) -> Quiz {
    let cursor = draw.below(SLOTS) * SLOTS * SLOTS + draw.below(SLOTS) * SLOTS + draw.below(SLOTS);
    let timers = timers(&mut draw, cursor);
    // Far enough that some fire, and not all.
    let to = cursor + 1 + draw.below(3 * SLOTS);
    let mut question = format!(
        "A timer wheel, in ticks of 16 us, with {SLOTS} slots a level. The cursor is at tick {cursor}. These are inserted, \
         in this order:\n\n"
    );
    for timer in &timers {
        let late = if timer.offset > 0 { format!(" and {} ns", timer.offset) } else { String::new() };
        let _ = writeln!(question, "  {}  for tick {}{late}", timer.name, timer.tick);
    }
    let cancelled = timers.iter().find(|timer| timer.cancelled).expect("one is");
    let _ = write!(
        question,
        "\nThen {} is cancelled.\n\n\
         1. On which level does each of the others lie, and in which slot?\n\
         2. Until when may the hub sleep?\n\
         3. The hub looks at the end of tick {to}. Which timers fire, in which order?\n\
         4. Where do those lie that are left?\n",
        cancelled.name
    );
    Quiz { question, answer: Box::new(move || answer(&timers, cursor, to)) }
}

/// Draws the timers: one that is overdue, two for one tick, and some farther away.
fn timers(draw: &mut Draw, cursor: u64) -> Vec<Timer> {
    let shared = cursor + 1 + draw.below(SLOTS);
    let mut ticks = vec![
        (shared, 1 + draw.below(16_000)),
        (cursor + 1 + draw.below(2 * SLOTS), 0),
        (cursor + SLOTS + draw.below(20 * SLOTS), 0),
        (shared, 0),
        (cursor + SLOTS * SLOTS + draw.below(4 * SLOTS * SLOTS), 0),
        (cursor.saturating_sub(draw.below(100)), 0),
    ];
    for left in (1..ticks.len()).rev() {
        ticks.swap(left, draw.below(left as u64 + 1) as usize);
    }
    let cancelled = draw.below(ticks.len() as u64) as usize;
    let named = ('a'..).zip(ticks).enumerate();
    named.map(|(at, (name, (tick, offset)))| Timer { name, tick, offset, cancelled: at == cancelled }).collect()
}

/// Returns the digits of a tick to the base 64.
fn digits(tick: u64) -> String {
    let digits: Vec<_> = (0..DIGITS).rev().map(|digit| (tick / SLOTS.pow(digit) % SLOTS).to_string()).collect();
    format!("({})", digits.join(" "))
}

/// Returns the level and the slot of a timer for `tick`: that of the first digit in which it differs from the cursor.
fn place(tick: u64, cursor: u64) -> (u32, u64) {
    // An overdue timer counts as belonging to the tick of the cursor.
    let tick = tick.max(cursor);
    let level = (tick ^ cursor).checked_ilog2().map_or(0, |bit| bit / SLOTS.ilog2());
    (level, tick / SLOTS.pow(level) % SLOTS)
}

/// Lets the wheel of the runtime answer.
fn answer(timers: &[Timer], cursor: u64, to: u64) -> String {
    let mut wheel = TimerWheel::new(cursor << TICK_BITS);
    let keys: Vec<_> = timers.iter().map(|timer| wheel.insert(timer.deadline(), timer.name)).collect();
    for (timer, key) in timers.iter().zip(keys) {
        if timer.cancelled {
            assert_eq!(wheel.cancel(key), Some(timer.name));
        }
    }
    let places = |names: &dyn Fn(char) -> bool, cursor: u64| {
        let mut text = String::new();
        for timer in timers.iter().filter(|timer| !timer.cancelled && names(timer.name)) {
            let (level, slot) = place(timer.tick, cursor);
            let _ = writeln!(text, "     {}  {:<12} level {level}, slot {slot}", timer.name, digits(timer.tick));
        }
        text
    };
    let mut text = format!("1.   the cursor is {}\n{}", digits(cursor), places(&|_| true, cursor));
    let until = wheel.next_wakeup().expect("some are left");
    let _ = match (until >> TICK_BITS).checked_sub(cursor) {
        Some(0) | None => writeln!(text, "2.   not at all: one is due"),
        Some(ticks) => writeln!(text, "2.   for {ticks} ticks, until tick {}", until >> TICK_BITS),
    };
    let mut fired = Vec::new();
    wheel.advance(((to + 1) << TICK_BITS) - 1, usize::MAX, &mut |name, _| fired.push(name));
    let order: Vec<_> = fired.iter().map(char::to_string).collect();
    let order = if order.is_empty() { "none".to_owned() } else { order.join(", ") };
    let _ = writeln!(text, "3.   {order}");
    let left = places(&|name| !fired.contains(&name), to);
    assert_eq!(left.lines().count(), wheel.len(), "what has not fired is in the wheel");
    let left = if left.is_empty() { "     none is left\n" } else { &left };
    let _ = write!(text, "4.   the cursor is {}\n{left}", digits(to));
    text
}
