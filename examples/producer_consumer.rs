//! You will see a producer that is faster than its two consumers being held back by a queue of three: the producer
//! makes 0 to 4 at once, and from then on one item for each that is taken.
//!
//! A green thread that sends into a full channel waits; the program need not count, lock or signal anything.
#![forbid(unsafe_code)]

use std::time::Duration;

use greenling::{channel, sleep, thread};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "producer_consumer";

const HELP: &str = "\
A fast producer is held back by two slower consumers.

usage: producer_consumer
";

fn main() {
    cli::no_arguments(NAME, HELP);
    cli::make_hub(NAME);
    let (send, receive) = channel::bounded(3);
    thread::scope(|s| {
        for (name, pace) in [("a", 20), ("b", 30)] {
            let receive = receive.clone();
            s.spawn(move || {
                for item in receive {
                    cli::say(NAME, format_args!("{name} takes {item}"));
                    sleep(Duration::from_millis(pace));
                }
                cli::say(NAME, format_args!("{name} is done"));
            });
        }
        // The consumers are to end when the producer does, not when `main` does.
        drop(receive);
        s.spawn(move || {
            for item in 0..8 {
                send.send(item).expect("a consumer is there");
                cli::say(NAME, format_args!("made {item}"));
            }
            cli::say(NAME, "nothing more to make");
        });
    });
}

// Output:
//
//     made 0
//     made 1
//     made 2
//     made 3
//     made 4
//     a takes 0
//     b takes 1
//     a takes 2
//     made 5
//     ...
//     nothing more to make
//     b takes 5
//     a takes 6
//     a takes 7
//     b is done
//     a is done
//
// (The consumers came first and wait, so they get the first two items at once, and three more fit the queue.)
//
// Read next: src/channel/core.rs, which receiver gets the next value and which sender may send the next.
