//! What the example `xray` says of words is true: the words are asked by other ways than it has asked.
//!
//! The parts of the example are parts of this test. AddressSanitizer keeps words of its own on each stack, which the
//! example does not know.
#![cfg(not(feature = "sanitizer"))]
#![allow(unsafe_code)]
#![allow(dead_code, reason = "the example has more")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use greenling::{Greenlet, hub};

mod common;
#[path = "../examples/xray/fibers.rs"]
mod fibers;
#[path = "../examples/xray/memory.rs"]
mod memory;
#[path = "../examples/xray/print.rs"]
mod print;
#[path = "../examples/xray/program.rs"]
mod program;
#[path = "../examples/xray/scenes.rs"]
mod scenes;
#[path = "../examples/xray/unwind.rs"]
mod unwind;
#[path = "../examples/xray/words.rs"]
mod words;

use scenes::{SENT, Scene, Shared};
use words::{Look, Meaning, Word, Xray};

/// Opens this process.
fn open() -> Shared {
    Arc::new(Mutex::new(Xray::open().expect("this program has symbols")))
}

/// Returns the one word with this meaning.
#[track_caller]
fn one(look: &Look, meaning: impl Fn(&Meaning) -> bool) -> &Word {
    let mut found = look.words.iter().filter(|word| meaning(&word.meaning));
    let first = found.next().expect("there is such a word");
    assert_eq!(found.next(), None, "there is one such word");
    first
}

/// Returns the name of the function at `address`, which must be its first instruction.
#[track_caller]
fn function_at(xray: &Shared, address: u64) -> String {
    let xray = xray.lock().unwrap_or_else(PoisonError::into_inner);
    let (name, distance) = xray.program.symbol(address).expect("code");
    assert_eq!(distance, 0, "{name}");
    name
}

#[test]
fn a_fresh_stack_is_what_chapter_2_draws() {
    let _guard = common::guard();
    let xray = open();
    let Scene { look, .. } = scenes::fresh(&xray).unwrap();
    // The picture of the chapter, from the base down; aarch64 pads the trampoline's address to four words.
    let chapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/book/02-one-switch.md");
    let chapter = fs::read_to_string(chapter).unwrap();
    let picture = chapter.split("high   | coroutine_func    |").nth(1).expect("the picture of a fresh stack");
    let drawn = picture.lines().take(4).filter_map(|line| line.split('|').nth(1)).map(str::trim);
    let drawn: Vec<&str> = ["coroutine_func"].into_iter().chain(drawn).collect();
    assert_eq!(drawn, ["coroutine_func", "parent link", "closure", "trampoline"]);
    let mut seen: Vec<&str> = Vec::new();
    for word in &look.words {
        let name = match &word.meaning {
            Meaning::FirstFunction => "coroutine_func",
            Meaning::ParentLink { written: false } => "parent link",
            Meaning::Closure { gone: false } => "closure",
            Meaning::Trampoline => "trampoline",
            Meaning::Padding if cfg!(target_arch = "aarch64") => continue,
            other => panic!("a fresh stack has {other:?}"),
        };
        if seen.last() != Some(&name) {
            seen.push(name);
        }
    }
    assert_eq!(seen, drawn);
    // And each of them holds what the picture says.
    let base = look.fiber.base;
    let first = one(&look, |meaning| *meaning == Meaning::FirstFunction);
    assert_eq!(first.address, base - 8);
    assert!(function_at(&xray, first.value).ends_with("coroutine_func"));
    let link = one(&look, |meaning| *meaning == Meaning::ParentLink { written: false });
    assert_eq!(link.address, base - 16);
    let entry = one(&look, |meaning| *meaning == Meaning::Trampoline);
    assert_eq!(function_at(&xray, entry.value), "stack_init_trampoline");
    assert!(look.words.iter().any(|word| word.value == look.fiber.block), "the closure has its fiber");
    assert_eq!(look.fiber.sp, look.fiber.initial);
}

#[test]
fn the_value_on_its_way_is_where_xray_says() {
    let _guard = common::guard();
    let Scene { look, .. } = scenes::value(&open()).unwrap();
    let value = one(&look, |meaning| *meaning == Meaning::Value);
    assert_eq!((value.value, look.state), (SENT, "NOTIFIED"));

    // Another value in its place is what the receiver gets.
    let xray = open();
    let greenlet = Greenlet::new(scenes::waits_in_a_switch);
    assert_eq!(greenlet.switch(1), 2);
    let hook = hub::on_switch(move |switch| {
        if matches!(switch, hub::Switch::Comes { thread: 2.., .. }) {
            let look = xray.lock().unwrap_or_else(PoisonError::into_inner).look(Some(SENT)).expect("a greenlet");
            let place = one(&look, |meaning| *meaning == Meaning::Value).address;
            let memory = fs::OpenOptions::new().write(true).open("/proc/self/mem").expect("memory");
            memory.write_all_at(&41_u64.to_le_bytes(), place).expect("the stack can be written");
        }
    });
    let answer = greenlet.switch(SENT);
    drop(hook);
    assert_eq!(answer, 42);
}

#[test]
fn an_empty_mailbox_is_where_the_control_block_says() {
    let _guard = common::guard();
    let Scene { look, .. } = scenes::switched(&open()).unwrap();
    assert_eq!(look.state, "SWITCHED");
    let mailbox: Vec<u64> =
        look.words.iter().filter(|word| word.meaning == Meaning::Mailbox).map(|word| word.address).collect();
    let (_, _, field) = look.fields.iter().find(|(name, ..)| name == "mailbox").unwrap();
    let field = u64::from_le_bytes(field[..].try_into().unwrap());
    assert_eq!(mailbox, [field + 8, field]);
    assert!(!look.words.iter().any(|word| word.meaning == Meaning::Value));
}

/// Returns the last part of a function's name; of a closure, of which DWARF has a number, that it is one.
fn last_part(name: &str) -> &str {
    let last = name.rsplit("::").next().unwrap_or(name);
    if last.starts_with("{closure") || last.starts_with("{{closure") { "closure" } else { last }
}

#[test]
fn each_return_address_is_in_the_function_that_is_named() {
    let _guard = common::guard();
    let xray = open();
    let cases: [(Scene, usize, &str); 2] = [
        (scenes::parked(&xray).unwrap(), scenes::waits_for_an_unpark as *const () as usize, "waits_for_an_unpark"),
        (scenes::switched(&xray).unwrap(), scenes::waits_in_a_switch as *const () as usize, "waits_in_a_switch"),
    ];
    for (Scene { look, .. }, function, name) in cases {
        let mut is_met = false;
        for word in &look.words {
            let (places, at) = match &word.meaning {
                Meaning::Return(places) => (places, word.value - 1),
                Meaning::GoesOn(places) => (places, word.value),
                _ => continue,
            };
            // The lines come from DWARF, this from the table of symbols.
            let named = &places.last().expect("a place").function;
            let found = xray.lock().unwrap_or_else(PoisonError::into_inner).program.symbol(at);
            let (symbol, distance) = found.expect("code");
            assert_eq!(last_part(named), last_part(&symbol), "{named}, {symbol}");
            if named.ends_with(name) {
                assert_eq!(at - distance, function as u64, "{name}");
                is_met = true;
            }
        }
        assert!(is_met, "{name} has a frame");
        // The tables lead to the very beginning of the stack.
        let last = look.words.iter().find_map(|word| match &word.meaning {
            Meaning::Return(places) => Some(&places.last()?.function),
            _ => None,
        });
        assert_eq!(last.map(String::as_str), Some("stack_init_trampoline"));
    }
}

#[test]
fn the_registers_of_the_switch_are_the_lowest_words() {
    let _guard = common::guard();
    let Scene { look, .. } = scenes::parked(&open()).unwrap();
    let lowest: Vec<&Meaning> = look.words.iter().rev().take(3).map(|word| &word.meaning).collect();
    if cfg!(target_arch = "x86_64") {
        assert!(matches!(lowest[..], [Meaning::GoesOn(_), Meaning::Switch("rbx"), Meaning::Switch("rbp")]));
    } else {
        assert!(matches!(lowest[..], [Meaning::Switch("x19"), Meaning::Switch("x29"), Meaning::GoesOn(_)]));
    }
}

#[test]
fn a_guard_cannot_be_read_and_the_rest_of_a_slot_can() {
    let _guard = common::guard();
    let Scene { look, .. } = scenes::parked(&open()).unwrap();
    let guard = if cfg!(target_arch = "aarch64") { 64 * 1024 } else { 16 * 1024 };
    assert_eq!(look.guard, (guard, look.fiber.end - look.fiber.low - guard));
}

#[test]
fn a_thread_that_has_ended_has_its_result_and_no_stack() {
    let _guard = common::guard();
    let Scene { look, .. } = scenes::ended(&open()).unwrap();
    assert_eq!((look.state, look.words.len(), look.fiber.sp), ("FINISHED", 2, None));
    let (_, _, payload) = look.fields.iter().find(|(name, ..)| name == "small_payload").unwrap();
    assert!(payload.chunks(8).any(|word| word == SENT.to_le_bytes()), "{payload:x?}");
}

#[test]
fn own_thread_locals_are_found_by_the_thread_pointer_in_the_control_block() {
    let _guard = common::guard();
    if let Err(reason) = greenling::thread::own_thread_locals_supported() {
        println!("SKIPPED: {reason}");
        return;
    }
    let Scene { beside, .. } = scenes::own(&open()).unwrap();
    assert!(beside.contains(", and holds 17\n") && beside.contains("address: true, and holds 1\n"), "{beside}");
}
