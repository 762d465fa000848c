//! You will see a producer that is faster than its two consumers being held back by a queue of three: it makes 0 to 4 at
//! once, and from then on one item for each that is taken.
//!
//! A green thread that sends into a full channel waits; nobody needs to count, lock or signal anything.
#![forbid(unsafe_code)]

use std::time::Duration;

use greenling::{channel, sleep, thread};

fn main() {
    let (send, receive) = channel::bounded(3);
    thread::scope(|s| {
        for (name, pace) in [("a", 20), ("b", 30)] {
            let receive = receive.clone();
            s.spawn(move || {
                for item in receive {
                    println!("{name} takes {item}");
                    sleep(Duration::from_millis(pace));
                }
                println!("{name} is done");
            });
        }
        // So that the consumers end when the producer does, not when `main` does.
        drop(receive);
        s.spawn(move || {
            for item in 0..8 {
                send.send(item).expect("somebody consumes");
                println!("made {item}");
            }
            println!("nothing more to make");
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
// (The consumers came first and wait, so the first two items are theirs at once and three more fit the queue.)
//
// Read next: src/channel/core.rs, who gets the next value and who may send the next.
