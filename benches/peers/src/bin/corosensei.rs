//! Raw corosensei: what greenling switches stacks with. No scheduler, so only the row `switch` and the memory.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, Yielder};
use greenling_peers::{Meter, Peer};

/// Bytes of a stack: what `Coroutine::new` takes, too.
const STACK: usize = 1024 * 1024;

fn switch(n: u64) -> Duration {
    let mut coroutine = Coroutine::new(move |yielder: &Yielder<u64, u64>, mut value: u64| {
        for _ in 0..n {
            value = yielder.suspend(value + 1);
        }
        value
    });
    let mut value = 7;
    let start = Instant::now();
    for _ in 0..n {
        value = coroutine.resume(value).as_yield().expect("not at its end");
    }
    let took = start.elapsed();
    assert_eq!(value, 7 + n);
    coroutine.resume(value);
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
            let stack = match DefaultStack::new(STACK) {
                Ok(stack) => stack,
                Err(error) => {
                    meter.fail(
                        chunk - made,
                        format_args!("no stack for more: each is two memory mappings, see vm.max_map_count: {error}"),
                    );
                    break;
                }
            };
            let mut coroutine = Coroutine::with_stack(stack, |yielder: &Yielder<(), ()>, ()| yielder.suspend(()));
            coroutine.resume(());
            parked.push(coroutine);
        }
    }
    // Each would be unwound at the end; the process ends instead.
    std::mem::forget(parked);
}

fn main() -> ExitCode {
    Peer { switch: Some(switch), memory: Some(memory), ..Peer::default() }.main()
}
