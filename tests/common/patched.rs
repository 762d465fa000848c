//! Helpers of the tests of patched calls: whether others run during a call, and errno.
#![allow(dead_code, unreachable_pub, unsafe_code)] // each test uses some of the helpers

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use greenling::{monkey, spawn, yield_now};

/// Patches everything and guards against hanging.
pub fn patched() -> super::common::Guard {
    // SAFETY: the tests hold nothing over a blocking call that other green threads could disturb.
    unsafe { monkey::patch_all() }.unwrap();
    super::common::guard()
}

/// Starts a green thread that counts the turns, and returns the count.
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
    assert!(ticks.get() > before, "no other thread ran");
    thread.kill();
    let _ = thread.join();
    result
}

/// Runs `f` and checks that no other green thread ran meanwhile.
pub fn no_other_runs<T>(f: impl FnOnce() -> T) -> T {
    let (thread, ticks) = ticker();
    yield_now();
    let before = ticks.get();
    let result = f();
    assert_eq!(ticks.get(), before, "another thread ran");
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

/// Returns the errno of this OS thread.
pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap()
}

/// Sets the errno of this OS thread.
pub fn set_errno(errno: i32) {
    // SAFETY: the function has no condition.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: the address is good as long as the OS thread runs.
    unsafe { *at = errno };
}
