//! Random bytes: the seed of a run determines them, in any process.

use std::collections::{HashMap, HashSet};
use std::ffi::{c_int, c_void};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use greenling::sim::{self, Config};
use greenling::spawn;

use crate::child;
use crate::helpers::patched;

unsafe extern "C" {
    fn getentropy(place: *mut c_void, len: usize) -> c_int;
}

/// Draws bytes by each of the calls.
fn draw() -> [u8; 60] {
    let mut bytes = [0; 60];
    let [one, two, three] = [0, 20, 40].map(|at: usize| bytes.as_mut_ptr().wrapping_add(at).cast::<c_void>());
    // SAFETY: room for 20 bytes, and again below.
    assert_eq!(unsafe { libc::getrandom(one, 20, 0) }, 20);
    // SAFETY: as above.
    assert_eq!(unsafe { getentropy(two, 20) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::syscall(libc::SYS_getrandom, three, 20, 0) }, 20);
    bytes
}

/// Returns the order in which a map of std has its keys, of main and of a green thread, and what a hash is.
fn orders() -> (Vec<u32>, Vec<u32>, u64) {
    let order = || (0..20).map(|key| (key, ())).collect::<HashMap<_, _>>().into_keys().collect();
    (order(), spawn(order).join().unwrap(), RandomState::new().hash_one(1))
}

#[test]
fn random_bytes_are_the_seeds() {
    let _guard = patched();
    let of = |seed| sim::run(seed, draw);
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    let [one, two, three] = [0, 20, 40].map(|at| of(1)[at..at + 20].to_vec());
    assert_eq!(HashSet::from([one, two, three, vec![0; 20]]).len(), 4);
    assert_ne!(draw(), draw(), "outside they are the kernel's");
    let mut long = [0_u8; 257];
    // SAFETY: a place for the bytes; so many are refused.
    assert_eq!(unsafe { getentropy(long.as_mut_ptr().cast(), long.len()) }, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EIO));
}

#[test]
fn maps_of_std_have_an_order_that_the_seed_gives() {
    let _guard = patched();
    assert_eq!(sim::run(1, orders), sim::run(1, orders));
    assert_ne!(sim::run(1, orders), sim::run(2, orders));
}

#[test]
fn each_run_of_an_exploration_has_the_order_that_its_replay_has() {
    let _guard = patched();
    let all = Mutex::new(Vec::new());
    let keep = || all.lock().unwrap().push((sim::seed().unwrap(), orders()));
    sim::explore(Config::new().schedules(5), keep);
    let all = all.into_inner().unwrap();
    assert_eq!(all.len(), 5);
    for (seed, order) in all {
        assert_eq!(sim::run(seed, orders), order, "seed {seed}");
    }
}

/// Returns all that runs of one seed have drawn.
fn shown() -> String {
    format!("<{:?} {:?}>", sim::run(7, orders), sim::run(7, draw))
}

/// The part of a child.
pub(crate) fn in_child() {
    let _guard = patched();
    println!("{}", shown());
}

#[test]
fn a_fresh_process_has_the_same_bytes_and_the_same_order() {
    let _guard = patched();
    let expected = shown();
    // It is the same although this process has drawn from the kernel.
    let _ = RandomState::new();
    assert_eq!(expected, shown());
    let text = child::succeeds("random", "");
    assert!(text.contains(&expected), "{text}");
}
