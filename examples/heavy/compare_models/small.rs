//! Small measurements that need no server.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use greenling::{Greenlet, spawn, yield_now};

/// How long each measurement takes.
const TIME: Duration = Duration::from_millis(200);

/// Returns how many times a second `turn` can be called.
fn rate(mut turn: impl FnMut()) -> f64 {
    const AT_ONCE: u32 = 1000;
    let (begin, mut turns) = (Instant::now(), 0_u64);
    while begin.elapsed() < TIME {
        for _ in 0..AT_ONCE {
            turn();
        }
        turns += u64::from(AT_ONCE);
    }
    turns as f64 / begin.elapsed().as_secs_f64()
}

/// Returns the switches a second between two greenlets, by hand.
pub(crate) fn switches_per_s() -> f64 {
    let other = Greenlet::new(|mut number: u64| {
        loop {
            number = Greenlet::switch_to_parent(number + 1);
        }
    });
    let mut number = 0;
    // There and back.
    let rate = 2.0 * rate(|| number = other.switch(number));
    black_box(number);
    rate
}

/// Returns the switches a second between two green threads that yield to each other.
pub(crate) fn yields_per_s() -> f64 {
    let other = spawn(|| {
        loop {
            yield_now();
        }
    });
    // Each yield of this thread is followed by one of the other thread.
    let rate = 2.0 * rate(yield_now);
    other.kill();
    drop(other.join());
    rate
}

/// Returns how long a copy of so many bytes takes, in microseconds.
pub(crate) fn copy_us(bytes: usize) -> f64 {
    let (from, mut to) = (vec![1_u8; bytes], vec![0_u8; bytes]);
    1e6 / rate(|| black_box(&mut to[..]).copy_from_slice(black_box(&from)))
}
