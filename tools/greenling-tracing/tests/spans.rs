//! Each green thread has its own spans, with layers that know nothing of green threads.

mod support;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use greenling::thread::{Builder, own_thread_locals_supported, park};
use greenling::{Greenlet, Hubs, hub, sleep, spawn, yield_now};
use greenling_tracing::{in_current_span, in_span};
use support::{Random, alone, seen};
use tracing::{info, info_span, instrument};

/// Walks through spans at random, and says at random where it is. Each event has the spans that it should be in as its
/// message.
fn walk(thread: u64, scope: &str, random: &mut Random, depth: u32) {
    for step in 0..random.below(4) {
        pause(random);
        info!("{scope}");
        if depth > 0 {
            let name = format!("{thread}.{depth}.{step}");
            let span = info_span!("step", name);
            let inner = if scope.is_empty() { name.clone() } else { format!("{scope} {name}") };
            if random.below(2) == 0 {
                span.in_scope(|| walk(thread, &inner, random, depth - 1));
            } else {
                // Guards need not be dropped in the order in which they were made.
                let first = span.entered();
                let second = info_span!("step", name = format!("{name}'")).entered();
                walk(thread, &format!("{inner} {name}'"), random, depth - 1);
                pause(random);
                drop(first);
                pause(random);
                // The parent of a span is its parent for ever.
                info!("{inner} {name}'");
                drop(second);
            }
        }
    }
    info!("{scope}");
}

/// Lets others run, or does not.
fn pause(random: &mut Random) {
    match random.below(4) {
        0 => yield_now(),
        1 => sleep(Duration::from_micros(random.below(50))),
        _ => {}
    }
}

#[test]
fn a_thousand_threads_that_switch_at_random_are_each_in_their_own_spans() {
    alone("a_thousand_threads_that_switch_at_random_are_each_in_their_own_spans", || {
        let mut random = Random::new();
        let outer = info_span!("step", name = "main").entered();
        let own = own_thread_locals_supported().is_ok();
        let threads = (0..1000).map(|number| {
            let mut random = random.fork();
            let builder = Builder::new();
            let body = move || walk(number, "", &mut random, 4);
            if own && number % 10 == 0 { builder.own_thread_locals().spawn(body) } else { builder.spawn(body) }.unwrap()
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        info!("main");
        drop(outer);
        let seen = seen();
        assert!(seen.events.len() > 5000, "{}", seen.events.len());
        for event in &seen.events {
            assert_eq!(event.scope.join(" "), event.message);
        }
        assert_eq!(seen.made, seen.closed, "each span is closed once");
        assert_eq!(seen.entered, seen.left);
    });
}

#[test]
fn without_the_layer_spans_are_mixed_up() {
    support::alone_without_layer("without_the_layer_spans_are_mixed_up", || {
        let threads = (0..2_u64).map(|number| {
            spawn(move || info_span!("step", name = number).in_scope(|| (yield_now(), info!("{number}")).1))
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        let wrong = seen().events.iter().any(|event| event.scope.join(" ") != event.message);
        assert!(wrong, "what the other tests look for");
    });
}

#[instrument]
fn request(name: u64) -> u64 {
    sleep(Duration::from_millis(name % 7));
    info!("{name}");
    let part = part(name);
    info!("{name}");
    part
}

#[instrument]
fn part(name: u64) -> u64 {
    (0..name % 3).for_each(|_| yield_now());
    info!("{name} {name}");
    name
}

#[test]
fn instrumented_functions_may_wait() {
    alone("instrumented_functions_may_wait", || {
        let threads: Vec<_> = (0..5000).map(|name| spawn(move || request(name))).collect();
        let sum: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 4999 * 5000 / 2);
        let seen = seen();
        assert_eq!(seen.events.len(), 15000);
        seen.events.iter().for_each(|event| assert_eq!(event.scope.join(" "), event.message));
        assert_eq!((seen.made, seen.closed), (10000, 10000));
    });
}

#[test]
fn a_new_thread_is_in_no_span_unless_it_is_told() {
    alone("a_new_thread_is_in_no_span_unless_it_is_told", || {
        let span = info_span!("step", name = "outer").entered();
        let none = spawn(|| (yield_now(), info!("")).1);
        let current = spawn(in_current_span(|| (yield_now(), info!("outer")).1));
        let other =
            spawn(in_span(info_span!(parent: None, "step", name = "other"), || (yield_now(), info!("other")).1));
        // The span goes on as long as the thread.
        drop(span);
        info!("");
        for thread in [none, current, other] {
            thread.join().unwrap();
        }
        let seen = seen();
        assert_eq!(seen.events.len(), 4);
        seen.events.iter().for_each(|event| assert_eq!(event.scope.join(" "), event.message));
        assert_eq!((seen.made, seen.closed), (2, 2));
    });
}

#[test]
fn a_thread_that_is_killed_or_panics_leaves_its_spans() {
    alone("a_thread_that_is_killed_or_panics_leaves_its_spans", || {
        let killed = spawn(|| request_that(park));
        let panics = spawn(|| request_that(|| resume_unwind(Box::new(1))));
        let catches = spawn(|| {
            assert!(catch_unwind(AssertUnwindSafe(|| request_that(|| resume_unwind(Box::new(1))))).is_err());
            yield_now();
            info!("");
        });
        let forgets = spawn(|| {
            std::mem::forget(info_span!("step", name = "forgotten").entered());
            yield_now();
            info!("forgotten");
        });
        let waits = spawn(|| info_span!("step", name = "waits").in_scope(|| (park(), info!("waits")).1));
        let unwound = spawn(|| request_that(park));
        yield_now();
        assert!(killed.kill());
        assert!(killed.join().is_err() && panics.join().is_err());
        catches.join().unwrap();
        forgets.join().unwrap();
        waits.thread().unpark();
        waits.join().unwrap();
        info!("");
        drop(unwound);
        assert_eq!(hub::shutdown(), 0);
        info!("");
        let seen = seen();
        assert_eq!(seen.events.len(), 5);
        seen.events.iter().for_each(|event| assert_eq!(event.scope.join(" "), event.message));
        // That of the forgotten guard is never closed, but it is left.
        assert_eq!((seen.made, seen.closed), (6, 5));
        assert_eq!(seen.entered, seen.left);
    });
}

/// Does something inside a span.
fn request_that(f: impl FnOnce()) {
    info_span!("step", name = "request").in_scope(|| (yield_now(), f()).1);
}

#[test]
fn greenlets_have_their_own_spans() {
    alone("greenlets_have_their_own_spans", || {
        let generator = Greenlet::<u32>::new(|mut value| {
            // No handle of the generator itself, which would keep it.
            let parent = Greenlet::<u32>::current().parent().unwrap();
            loop {
                let span = info_span!("step", name = "generator").entered();
                info!("generator");
                value = parent.switch(value + 1);
                info!("generator");
                drop(span);
            }
        });
        let span = info_span!("step", name = "main").entered();
        for value in 0..3 {
            assert_eq!(generator.switch(value), value + 1);
            info!("main");
        }
        drop(generator);
        info!("main");
        drop(span);
        let seen = seen();
        assert_eq!(seen.events.len(), 9);
        seen.events.iter().for_each(|event| assert_eq!(event.scope.join(" "), event.message));
        assert_eq!((seen.made, seen.entered), (seen.closed, seen.left));
    });
}

#[test]
fn each_hub_has_its_threads_in_their_spans_and_other_os_threads_are_as_before() {
    alone("each_hub_has_its_threads_in_their_spans_and_other_os_threads_are_as_before", || {
        let hubs = Hubs::new(3).start(|number| {
            let mut random = Random::of(number as u64);
            let threads = (0..100).map(|thread| {
                let mut random = random.fork();
                spawn(move || walk(thread + 1000 * number as u64, "", &mut random, 2))
            });
            threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        });
        let plain = std::thread::spawn(|| {
            let _outer = info_span!("step", name = "plain").entered();
            info_span!("step", name = "inner").in_scope(|| info!("plain inner"));
            info!("plain");
        });
        hubs.unwrap().join().into_iter().for_each(Result::unwrap);
        plain.join().unwrap();
        let seen = seen();
        assert!(seen.events.len() > 500);
        seen.events.iter().for_each(|event| assert_eq!(event.scope.join(" "), event.message));
        assert_eq!((seen.made, seen.entered), (seen.closed, seen.left));
        let threads: HashSet<_> = seen.events.iter().map(|event| &event.os_thread).collect();
        assert!(threads.len() > 3, "{threads:?}");
    });
}
