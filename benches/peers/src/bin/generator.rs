//! The crate generator: the coroutines below may. No scheduler, so only the row `switch` and the memory.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use generator::{Gn, done};
use greenling_peers::{Meter, Peer};

fn switch(n: u64) -> Duration {
    let mut coroutine = Gn::<u64>::new_scoped(move |mut scope| {
        let mut value = 7;
        for _ in 0..n {
            value = scope.yield_(value + 1).expect("a value is sent each time");
        }
        done!();
    });
    let mut value = 7;
    let start = Instant::now();
    for _ in 0..n {
        value = coroutine.send(value);
    }
    let took = start.elapsed();
    assert_eq!(value, 7 + n);
    took
}

fn memory(meter: &mut Meter) {
    let mut parked = Vec::new();
    loop {
        let chunk = meter.grant();
        if chunk == 0 {
            break;
        }
        for made in 0..chunk {
            // This panics when there is no memory for a stack.
            let coroutine = std::panic::catch_unwind(|| {
                let mut coroutine = Gn::<()>::new_scoped(|mut scope| {
                    scope.yield_(());
                    done!();
                });
                coroutine.next();
                coroutine
            });
            match coroutine {
                Ok(coroutine) => parked.push(coroutine),
                Err(_) => {
                    meter.fail(
                        chunk - made,
                        "no stack for more: each is two memory mappings, of which vm.max_map_count allows 65530",
                    );
                    break;
                }
            }
        }
    }
    std::mem::forget(parked);
}

fn main() -> ExitCode {
    Peer { switch: Some(switch), memory: Some(memory), ..Peer::default() }.main()
}
