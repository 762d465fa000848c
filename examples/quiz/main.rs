//! You will be asked what a small program does, and can let it answer by itself: questions drawn from a seed, each seed
//! another one, about lost wake-ups, the timer wheel and starvation.
//!
//! ```text
//!   seed --> Draw --> a program, and the question             printed
//!                        |
//!                        '--> the program runs: --answer      under `sim`, in all schedules, some, or that of life;
//!                                                             the wheel is the runtime's own
//! ```
//!
//! No answer is written down here: each is what came out of a run.
#![forbid(unsafe_code)]

use std::env;
use std::panic::{self, AssertUnwindSafe};

#[path = "../common/cli.rs"]
mod cli;
mod draw;
mod starvation;
mod wakeup;
mod wheel;

/// The runtime's timer wheel, which needs nothing else of the crate.
#[path = "../../src/pure/timer_wheel.rs"]
#[allow(dead_code, reason = "the questions need only a part of it")]
mod timer_wheel;

use draw::Draw;

const NAME: &str = "quiz";

const HELP: &str = "\
Questions about small programs, drawn from a seed, and their answers, from runs.

usage: quiz wakeup|wheel|starvation [--seed N] [--answer]

  wakeup      can this program sleep for ever? (chapters 6 and 19)
  wheel       where do these timers lie, and when do they fire? (chapter 8)
  starvation  how long does the last thread wait for the lock? (chapter 6)

  --seed N    which question, 0 or more (1)
  --answer    the answer, too
  --help      this text
";

/// A question and its answer.
struct Quiz {
    /// The program, and what is asked of it.
    question: String,
    /// Runs the program, and makes the answer of what came out.
    answer: Box<dyn FnOnce() -> String>,
}

/// What the command line asks for.
struct Options {
    /// Makes the question from a seed.
    topic: fn(Draw) -> Quiz,
    /// The seed of the question.
    seed: u64,
    /// Whether the answer is printed.
    answer: bool,
}

fn main() {
    let options = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    if env::var_os("GREENLING_SEED").is_some() {
        // Each run would be of that schedule.
        cli::misused(NAME, "GREENLING_SEED is set, and so no other schedule can be run");
    }
    let quiz = (options.topic)(Draw::new(options.seed));
    cli::say(NAME, quiz.question.trim_end());
    if options.answer {
        cli::say(NAME, format!("\nAnswer\n\n{}", answer(quiz).trim_end()));
    }
}

/// Lets the program answer. Without a descriptor for a hub there is no simulation, which says so by a panic.
fn answer(quiz: Quiz) -> String {
    panic::set_hook(Box::new(|_| ()));
    match panic::catch_unwind(AssertUnwindSafe(quiz.answer)) {
        Ok(answer) => answer,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map_or("the program panicked", String::as_str);
            cli::fail(1, NAME, text)
        }
    }
}

/// Reads the command line.
fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let (mut topic, mut seed, mut answer) = (None, 1, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("seed") => {
                let text = cli::text("--seed", &mut parser)?;
                seed = text.parse().map_err(|_| format!("--seed {text}: not a whole number below 2^64"))?;
            }
            Long("answer") => answer = true,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            Value(value) if topic.is_none() => {
                let known: fn(Draw) -> Quiz = match value.to_string_lossy().as_ref() {
                    "wakeup" => wakeup::quiz,
                    "wheel" => wheel::quiz,
                    "starvation" => starvation::quiz,
                    other => return Err(format!("{other} is none of wakeup, wheel, starvation")),
                };
                topic = Some(known);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    let topic = topic.ok_or("which topic? wakeup, wheel or starvation")?;
    Ok(Options { topic, seed, answer })
}
