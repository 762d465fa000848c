//! Greenlets: the end of the process's main thread. Cases 46 and 47, where the test harness cannot go: it runs tests on
//! threads of its own.
//!
//! Without arguments it runs each case in a child and looks at how that ended; a child gets its case by name.
#![forbid(unsafe_code)]

use std::process::Command;

use greenling::Greenlet;

type G = Greenlet<i64>;

/// Prints when it is dropped.
struct Tell(&'static str);

impl Drop for Tell {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

/// Suspended for good, with `depth` more on its stack.
fn suspended(tell: &'static str, depth: u32) -> G {
    let g = G::new(move |_| {
        let _tell = Tell(tell);
        let _child = (depth > 0).then(|| suspended(tell, depth - 1));
        G::main().switch(0)
    });
    g.switch(0);
    g
}

/// A name, what to do, the exit code, and how often the child prints "unwound". Greenlet and CPython unwind what is suspended
/// when the interpreter ends; here main has to say so, since frames may borrow from thread-locals that are gone after it.
type Case = (&'static str, fn(), i32, usize);

/// A main that ends with the time for destructors.
fn shut_down(body: fn()) {
    body();
    assert_eq!(greenling::hub::shutdown(), 0);
}

const CASES: &[Case] = &[
    ("active", || std::mem::forget(suspended("unwound", 0)), 0, 0),
    ("multiple", || (0..10).for_each(|_| std::mem::forget(suspended("unwound", 0))), 0, 0),
    ("dropped", || drop(suspended("unwound", 0)), 0, 1),
    ("active, shut down", || shut_down(|| std::mem::forget(suspended("unwound", 0))), 0, 1),
    ("multiple, shut down", || shut_down(|| (0..10).for_each(|_| std::mem::forget(suspended("unwound", 0)))), 0, 10),
    ("nested, shut down", || shut_down(|| std::mem::forget(suspended("unwound", 1))), 0, 2),
    ("deep, shut down", || shut_down(|| std::mem::forget(suspended("unwound", 10))), 0, 11),
    (
        "main panics",
        || {
            let _g = suspended("unwound", 0);
            panic!("expected: main gives up");
        },
        101,
        0,
    ),
    (
        "exit",
        || {
            std::mem::forget(suspended("other", 0));
            std::process::exit(3);
        },
        3,
        0,
    ),
    (
        "exit in a greenlet",
        || {
            std::mem::forget(suspended("other", 0));
            G::new(|_| std::process::exit(4)).switch(0);
        },
        4,
        0,
    ),
    (
        "asleep",
        || {
            // Blocked in the hub when the process ends.
            let g = G::new(|n| {
                let _tell = Tell("unwound");
                greenling::sleep(std::time::Duration::from_secs(600));
                n
            });
            drop(greenling::spawn(|| G::main().switch(0)));
            g.switch(0);
            std::mem::forget(g);
        },
        0,
        0,
    ),
];

fn main() {
    if let Ok(name) = std::env::var("GREENLING_TEST_CHILD") {
        let (_, body, ..) = CASES.iter().find(|case| case.0 == name).expect("a case of this name");
        return body();
    }
    for (name, _, code, unwound) in CASES {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.env("GREENLING_TEST_CHILD", name).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(*code), "{name}: {output:?}");
        assert_eq!(text.matches("unwound\n").count(), *unwound, "{name}: {output:?}");
        println!("case {name}: ok");
    }
}
