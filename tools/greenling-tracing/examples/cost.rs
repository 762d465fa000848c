//! What spans cost, with the plain registry and with spans that follow green threads: `cargo run --release --example cost`,
//! and `-- plain`. The least of several rounds, in nanoseconds.

use std::hint::black_box;
use std::time::Instant;

use greenling::{spawn, yield_now};
use greenling_tracing::GreenSpans;
use tracing::{Span, info_span};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

/// Prints what one of `times` things costs that `f` does, the least of some rounds.
fn cost(what: &str, times: u32, f: impl Fn(u32)) {
    let round = |_| {
        let begin = Instant::now();
        f(times);
        begin.elapsed().as_secs_f64() * 1e9 / f64::from(times)
    };
    println!("{:>8.1} ns  {what}", (0..400).map(round).fold(f64::INFINITY, f64::min));
}

/// Lets two threads take turns, each inside so many spans.
fn turns(depth: u32, times: u32) {
    fn inside(depth: u32, f: &dyn Fn()) {
        match depth {
            0 => f(),
            _ => info_span!("span", depth).in_scope(|| inside(depth - 1, f)),
        }
    }
    let thread = || spawn(move || inside(depth, &|| (0..times / 2).for_each(|_| yield_now())));
    [thread(), thread()].into_iter().for_each(|thread| thread.join().unwrap());
}

fn main() {
    let plain = std::env::args().nth(1).is_some_and(|argument| argument == "plain");
    if plain {
        registry().init();
    } else {
        registry().with(GreenSpans::new()).init();
    }
    println!("{}:", if plain { "the registry" } else { "the registry and GreenSpans" });
    if !plain {
        cost("a switch before any span", 5_000, |times| turns(0, times));
    }
    let outer = info_span!("outer").entered();
    let span = info_span!("inner");
    cost("enter and leave a span", 5_000, |times| (0..times).for_each(|_| span.in_scope(|| ())));
    cost("make, enter, leave and close a span", 5_000, |times| {
        (0..times).for_each(|number| info_span!("span", number).in_scope(|| ()));
    });
    cost("look up the current span", 5_000, |times| (0..times).for_each(|_| drop(black_box(Span::current()))));
    drop(outer);
    for depth in [0, 1, 3] {
        cost(&format!("a switch between threads that are in {depth} spans"), 5_000, |times| turns(depth, times));
    }
}
