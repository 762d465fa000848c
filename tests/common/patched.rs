//! What the tests of patched calls share: who runs meanwhile, and errno.
#![allow(dead_code, unreachable_pub, unsafe_code)] // each test uses a part of it

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use greenling::{monkey, spawn, yield_now};

/// Patches everything and guards against hanging.
pub fn patched() -> super::common::Guard {
    // SAFETY: the tests hold nothing over a blocking call that minds other green threads.
    unsafe { monkey::patch_all() }.unwrap();
    super::common::guard()
}

/// Counts how often it ran until it is told to stop.
fn ticker() -> (greenling::thread::JoinHandle<()>, Rc<Cell<u32>>) {
    let ticks = Rc::new(Cell::new(0));
    let mine = Rc::clone(&ticks);
    let thread = spawn(move || {
        while mine.get() < u32::MAX / 2 {
            mine.set(mine.get() + 1);
            greenling::sleep(Duration::from_micros(100));
        }
    });
    (thread, ticks)
}

/// Runs `f` and checks that a ticker ran meanwhile.
pub fn others_run<T>(f: impl FnOnce() -> T) -> T {
    let (thread, ticks) = ticker();
    yield_now();
    let before = ticks.get();
    let result = f();
    assert!(ticks.get() > before, "nobody else ran");
    thread.kill();
    let _ = thread.join();
    result
}

/// Runs `f` and checks that nobody else ran meanwhile.
pub fn nobody_runs<T>(f: impl FnOnce() -> T) -> T {
    let (thread, ticks) = ticker();
    yield_now();
    let before = ticks.get();
    let result = f();
    assert_eq!(ticks.get(), before, "somebody else ran");
    thread.kill();
    let _ = thread.join();
    result
}

/// Calls `f` on a green thread, a little later.
pub fn later(f: impl FnOnce() + 'static) -> greenling::thread::JoinHandle<()> {
    spawn(|| {
        greenling::sleep(Duration::from_millis(5));
        f();
    })
}

/// The errno of this OS thread.
pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap()
}

/// Sets it.
pub fn set_errno(errno: i32) {
    // SAFETY: it needs nothing.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: the address is good as long as the OS thread runs.
    unsafe { *at = errno };
}
