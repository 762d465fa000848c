//! Stack overflow: a report that names the thread, where it was spawned, its size and the cure; and every other fault
//! goes where it went before. Each overflow happens in a process of its own, with both kinds of guard.
#![allow(unsafe_code)]

mod child;

use std::ffi::c_void;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use greenling::{Greenlet, hub, spawn, thread};

/// Uses up the stack, 256 bytes or so at a time.
#[expect(unconditional_recursion, reason = "it ends at the guard")]
#[inline(never)]
fn overflow(depth: usize) -> usize {
    let frame = black_box([depth; 32]);
    overflow(frame[7] + 1) + frame[9]
}

/// Uses up the stack with frames four times as large as the guard, of which nothing is written.
#[expect(unconditional_recursion, reason = "it ends at the guard")]
#[inline(never)]
fn overflow_in_leaps() -> u8 {
    let mut frame = std::mem::MaybeUninit::<[u8; 65_536]>::uninit();
    black_box(&mut frame);
    overflow_in_leaps().wrapping_add(black_box(&frame).as_ptr().addr() as u8)
}

/// A fault that is no overflow.
fn fault_at_16() {
    let nowhere = std::ptr::without_provenance::<u8>(16);
    // SAFETY: it faults, which is what the test is about: nobody maps page 0.
    black_box(unsafe { nowhere.read_volatile() });
}

/// Says where the next line is, for the parent to compare with the report.
macro_rules! announce {
    () => {
        println!("SPAWN {}:{}:", file!(), line!() + 1)
    };
}

/// The handler of a program that had one before the first green thread.
extern "C" fn exit_42(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo with SA_SIGINFO (sigaction(2)).
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV has an address.
    let address = unsafe { info.si_addr() }.addr();
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(if address == 16 { 42 } else { 1 }) };
}

/// Installs [`exit_42`].
fn install_handler() {
    // SAFETY: all zeros is a valid sigaction.
    let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
    action.sa_sigaction = exit_42 as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) }, 0);
}

/// What a thread does that Rust did not start: it has no alternate stack.
extern "C" fn foreign(_: *mut c_void) -> *mut c_void {
    announce!();
    let thread = spawn(|| overflow(0));
    let _ = thread.join();
    std::ptr::null_mut()
}

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    match role.as_str() {
        "named" => {
            let builder = thread::Builder::new().name("deep diver".into()).stack_size(100_000);
            announce!();
            let diver = builder.spawn(|| overflow(0)).unwrap();
            let _ = diver.join();
        }
        "unnamed" => {
            announce!();
            let thread = spawn(|| overflow(0));
            let _ = thread.join();
        }
        "long name" => {
            let builder = thread::Builder::new().name("ü".repeat(5000));
            announce!();
            let thread = builder.spawn(|| overflow(0)).unwrap();
            let _ = thread.join();
        }
        "greenlet" => {
            announce!();
            let greenlet = Greenlet::new(|n: usize| overflow(n));
            greenlet.switch(0);
        }
        "leaps" => {
            announce!();
            let thread = spawn(overflow_in_leaps);
            let _ = thread.join();
        }
        "reused" => {
            // The slot was used, given back and trimmed: its guard is still there.
            for _ in 0..3 {
                spawn(|| ()).join().unwrap();
                hub::trim_stacks();
            }
            announce!();
            let thread = spawn(|| overflow(0));
            let _ = thread.join();
        }
        "second" => {
            // Among several, the report names the one that overflowed.
            let others: Vec<_> = (0..20).map(|_| spawn(thread::park)).collect();
            announce!();
            let thread = spawn(|| (thread::yield_now(), overflow(0)));
            let _ = thread.join();
            drop(others);
        }
        "locked" => {
            spawn(|| ()).join().unwrap();
            // SAFETY: mlockall takes no pointer. From here on mappings are locked, and the kernel installs no guards.
            if unsafe { libc::mlockall(libc::MCL_FUTURE) } != 0 {
                println!("REFUSED");
                return;
            }
            let builder = thread::Builder::new().stack_size(100_000);
            announce!();
            let thread = builder.spawn(|| overflow(0)).unwrap();
            let _ = thread.join();
        }
        "pthread" => {
            let mut id = 0;
            // SAFETY: `foreign` takes the null it gets; the id is a live place.
            let result = unsafe { libc::pthread_create(&raw mut id, std::ptr::null(), foreign, std::ptr::null_mut()) };
            assert_eq!(result, 0);
            // SAFETY: the thread is ours and joined once.
            unsafe { libc::pthread_join(id, std::ptr::null_mut()) };
        }
        "null" => {
            let _ = spawn(fault_at_16).join();
        }
        "null in a greenlet" => Greenlet::new(|()| fault_at_16()).switch(()),
        "main" => {
            spawn(|| ()).join().unwrap();
            overflow(0);
        }
        "handler, null" => {
            install_handler();
            let _ = spawn(fault_at_16).join();
        }
        "handler, overflow" => {
            install_handler();
            announce!();
            let thread = spawn(|| overflow(0));
            let _ = thread.join();
        }
        other => panic!("no such part: {other}"),
    }
}

/// Runs `role` with both kinds of guard and gives what it left to `check`.
fn each_guard(role: &str, check: impl Fn(&Output)) {
    if cfg!(feature = "sanitizer") {
        // AddressSanitizer handles SIGSEGV itself, makes frames several times as large, and stops at its own report.
        eprintln!("skipped: a stack overflow under AddressSanitizer is AddressSanitizer's");
        return;
    }
    for guard in child::guards() {
        check(&child::run(role, guard));
    }
}

/// Checks that the process ended with the report of an overflow, which begins with `who` and then names the place that
/// the child announced, the size and the cure.
fn assert_reported(output: &Output, who: &str, size: usize, cure: &str) {
    let (out, err) = (child::out(output), child::err(output));
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{out}\n{err}");
    let (_, rest) = out.split_once("SPAWN ").expect("an announcement");
    let place = rest.lines().next().expect("a line");
    let report = err.lines().find(|line| line.contains("has overflowed")).expect("a report");
    assert!(report.starts_with(who), "{report}");
    assert!(report.contains(&format!(", spawned at {place}")), "{report}\nbut it was spawned at {place}");
    assert!(report.ends_with(&format!(" has overflowed its stack of {size} bytes")), "{report}");
    assert!(err.contains(&format!("give it a larger one: {cure}")), "{err}");
}

/// The cure for green threads.
const BUILDER: &str = "greenling::thread::Builder::new().stack_size(bytes), or greenling::hub::set_default_stack_size";

/// What a slot of this many bytes leaves to the stack.
fn stack_of(slot: usize) -> usize {
    slot - 4096 - if cfg!(target_arch = "aarch64") { 65_536 } else { 16_384 }
}

#[test]
fn the_overflow_of_a_named_thread_is_reported_with_place_size_and_cure() {
    let slot = if cfg!(target_arch = "aarch64") { 262_144 } else { 131_072 };
    each_guard("named", |output| {
        let id = "green thread #2 \"deep diver\", spawned at";
        assert_reported(output, id, stack_of(slot), BUILDER);
    });
}

#[test]
fn the_overflow_of_an_unnamed_thread_is_reported_by_its_number() {
    each_guard("unnamed", |output| {
        assert_reported(output, "green thread #2, spawned at", stack_of(262_144), BUILDER);
    });
}

#[test]
fn a_name_that_does_not_fit_is_cut_and_the_rest_is_there() {
    each_guard("long name", |output| {
        let who = format!("green thread #2 \"{}..\", spawned at", "ü".repeat(64));
        assert_reported(output, &who, stack_of(262_144), BUILDER);
    });
}

#[test]
fn the_overflow_of_a_greenlet_is_reported_in_a_program_without_a_hub() {
    each_guard("greenlet", |output| {
        assert_reported(output, "greenlet #2, spawned at", stack_of(262_144), "greenling::Greenlet::with_stack_size");
    });
}

#[test]
fn a_frame_larger_than_the_guard_does_not_jump_over_it() {
    each_guard("leaps", |output| {
        assert_reported(output, "green thread #2, spawned at", stack_of(262_144), BUILDER);
    });
}

#[test]
fn a_reused_stack_still_has_its_guard() {
    each_guard("reused", |output| {
        assert_reported(output, "green thread #5, spawned at", stack_of(262_144), BUILDER);
    });
}

#[test]
fn the_report_names_the_thread_that_overflowed() {
    each_guard("second", |output| {
        assert_reported(output, "green thread #22, spawned at", stack_of(262_144), BUILDER);
    });
}

#[test]
fn locked_memory_gets_the_other_kind_of_guard() {
    if cfg!(feature = "sanitizer") {
        eprintln!("skipped: AddressSanitizer ignores mlockall");
        return;
    }
    let slot = if cfg!(target_arch = "aarch64") { 262_144 } else { 131_072 };
    let output = child::run("locked", "");
    if child::out(&output).contains("REFUSED") {
        eprintln!("skipped: this user may not lock memory");
        return;
    }
    assert_reported(&output, "green thread #3, spawned at", stack_of(slot), BUILDER);
}

#[test]
fn an_overflow_on_a_thread_that_rust_did_not_start_is_reported() {
    each_guard("pthread", |output| {
        assert_reported(output, "green thread #2, spawned at", stack_of(262_144), BUILDER);
    });
}

#[test]
fn a_fault_that_is_no_overflow_kills_as_if_we_had_not_looked() {
    for role in ["null", "null in a greenlet"] {
        each_guard(role, |output| {
            assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{}", child::err(output));
            assert!(!child::err(output).contains("overflowed"), "{}", child::err(output));
        });
    }
}

#[test]
fn the_overflow_of_main_is_left_to_std() {
    each_guard("main", |output| {
        let err = child::err(output);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{err}");
        assert!(err.contains("thread '") && err.contains("has overflowed its stack"), "{err}");
        assert!(!err.contains("green"), "{err}");
    });
}

#[test]
fn a_handler_that_was_there_before_gets_what_is_not_ours() {
    each_guard("handler, null", |output| {
        assert_eq!(output.status.code(), Some(42), "{}", child::err(output));
    });
    each_guard("handler, overflow", |output| {
        assert_reported(output, "green thread #2, spawned at", stack_of(262_144), BUILDER);
    });
}
