//! You will see two greenlets that hand the CPU to each other by name: `---A--` and `---B--`, in turns, without end.
//!
//! ```text
//!   main          A                B
//!    | switch --> print A          .
//!    .            switch --------> print B
//!    .            <--------------- switch
//!    .            sleep, print A   .
//!    .            switch --------> sleep, print B
//!    .            <--------------- switch            and so on
//! ```
//!
//! There is no scheduler: each greenlet names the one that goes on.
//! `cargo run --release --example greenlet_ping_pong -- --help` lists the options.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::{Greenlet, sleep};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "greenlet_ping_pong";

/// Rounds printed before a measurement.
const SHOWN: u64 = 5;

/// Rounds measured at least.
const MEASURED: u64 = 1_000_000;

const HELP: &str = "\
Two greenlets switch to each other: one prints ---A--, the other ---B--.

usage: greenlet_ping_pong [--rounds N] [--delay TIME] [--quiet]

  --rounds N    stop after N rounds, of one A and one B each; without it, go on
                for ever
  --delay TIME  what A and B sleep after each switch: 0, 0.5 (seconds, the
                default), 500ms
  --quiet       print neither A nor B

With --rounds and --delay 0 the last line says how long a switch takes. Printing
takes much longer than switching, so only the first 5 rounds are printed then;
the others are measured, 1000000 of them at least.
";

/// The command line; see [`HELP`].
struct Options {
    rounds: Option<u64>,
    delay: Duration,
    quiet: bool,
}

/// What A and B do: print, switch, sleep.
struct Plan {
    /// The number of rounds.
    rounds: u64,
    /// How many of them, the first ones, are printed.
    shown: u64,
    /// What is slept after each switch.
    delay: Duration,
}

fn main() {
    let options = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    if !options.delay.is_zero() {
        cli::make_hub(NAME); // the hub of this OS thread serves `sleep`
    }
    let rounds = options.rounds.unwrap_or(u64::MAX);
    let measure = options.rounds.is_some() && options.delay.is_zero();
    let shown = match (options.quiet, measure) {
        (true, _) => 0,
        (false, true) => rounds.min(SHOWN),
        (false, false) => rounds,
    };
    // With a delay, or without an end, there is nothing to measure.
    if !measure {
        play(Plan { rounds, shown, delay: options.delay });
        return;
    }
    play(Plan { rounds: shown, shown, delay: Duration::ZERO });
    if shown < rounds && shown > 0 {
        cli::say(NAME, "... and so on, without printing");
    }
    let silent = (rounds - shown).max(MEASURED);
    let begin = Instant::now();
    play(Plan { rounds: silent, shown: 0, delay: Duration::ZERO });
    let took = begin.elapsed();
    // A round is two switches: A to B and back.
    let each = took.as_nanos() as f64 / (2 * silent) as f64;
    cli::say(
        NAME,
        format_args!("{} switches in {:.1} ms: {each:.1} ns per switch", 2 * silent, took.as_secs_f64() * 1e3),
    );
}

/// Plays until all rounds are over.
fn play(plan: Plan) {
    if plan.rounds == 0 {
        return;
    }
    let plan = Rc::new(plan);
    // Each must know the other, so the greenlet that is made first gets the other one's handle later.
    let a: Rc<OnceCell<Greenlet<()>>> = Rc::default();
    let b = Greenlet::new({
        let (plan, a) = (Rc::clone(&plan), Rc::clone(&a));
        move |()| turns("---B--", &plan, a.get().expect("A was made before the first switch to B"))
    });
    // A owns B: when A is through and returns, B unwinds out of its last switch, and main goes on.
    let made = a.set(Greenlet::new(move |()| turns("---A--", &plan, &b)));
    made.expect("it was not set before");
    a.get().expect("just set").switch(());
}

/// Takes the turns of one greenlet.
fn turns(line: &str, plan: &Plan, other: &Greenlet<()>) {
    for round in 0..plan.rounds {
        if round < plan.shown {
            cli::say(NAME, line);
        }
        other.switch(());
        if !plan.delay.is_zero() {
            // Mended: the documents' `time.sleep` stops the OS thread with all its greenlets; and their program has no
            // end. This `sleep` blocks the greenlet alone. A green thread, if there were one, would run meanwhile.
            sleep(plan.delay);
        }
    }
}

fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let mut options = Options { rounds: None, delay: Duration::from_millis(500), quiet: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("rounds") => options.rounds = Some(cli::count("--rounds", &mut parser)?),
            Long("delay") => options.delay = cli::duration("--delay", &mut parser)?,
            Long("quiet") | Short('q') => options.quiet = true,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(options)
}

// Output of `greenlet_ping_pong --rounds 2`, half a second between the rounds:
//
//     ---A--
//     ---B--
//     ---A--
//     ---B--
//
// Read next: src/switch/greenlet/mod.rs, where `switch` puts the value into the other's mailbox and suspends; then
// src/switch/root.rs, the loop that both of them return to.
