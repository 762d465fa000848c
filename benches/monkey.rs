//! The cost of this crate's `read`, `write` and `recv`, and of its locks, in place of the C library's, where they do not
//! switch: a patched program, on an OS thread without a hub. The locks also in a green thread with thread-locals of its
//! own, where they are free.
//!
//! ```text
//! cargo bench --features monkey --bench monkey                       each call beside the C library's own, in turns
//! cargo bench --features monkey --bench monkey -- --json FILE        the figures as a file, too
//! ```
//!
//! A *turn* is some thousand calls of one of the two, a *round* two turns, in an order that is reversed each time. The
//! difference is the median of the rounds' differences; a machine that is busy with something else shows in the spread.
//! What a patched call costs inside green threads is the row `patched` of `--bench echo`.
#![allow(unsafe_code)] // C functions have no safe form

#[path = "results/mod.rs"]
mod results;

use std::ffi::{CStr, c_int, c_void};
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::mem::transmute;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// What a call may cost more than the C library's, in nanoseconds.
const BAR: f64 = 5.0;

/// A pair of calls on a lock: it is taken, and released.
type Pair = [unsafe extern "C" fn(*mut c_void) -> c_int; 2];

type Read = unsafe extern "C" fn(c_int, *mut c_void, usize) -> isize;
type Send = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;
type Recv = unsafe extern "C" fn(c_int, *mut c_void, usize, c_int) -> isize;

/// The C library's function of this name.
fn original(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null());
    found
}

/// The middle of `values`, and of the lower and the upper half.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// Measures a call beside the original, prints the row, and returns whether the bar is met.
fn row(name: &str, calls: u32, rounds: usize, patched: &dyn Fn() -> isize, original: &dyn Fn() -> isize) -> bool {
    let turn = |call: &dyn Fn() -> isize| {
        let begin = Instant::now();
        for _ in 0..calls {
            assert_eq!(black_box(call()), 1);
        }
        begin.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    let (mut ours, mut theirs, mut more) = (Vec::new(), Vec::new(), Vec::new());
    // In turns, each first in every other round.
    for round in 0..rounds {
        let (a, b) = if round % 2 == 0 {
            let a = turn(patched);
            (a, turn(original))
        } else {
            let b = turn(original);
            (turn(patched), b)
        };
        ours.push(a);
        theirs.push(b);
        more.push(a - b);
    }
    let [low, middle, high] = quartiles(&mut more);
    results::note(name, "ns", &ours, None);
    results::note(&format!("{name}, the C library's"), "ns", &theirs, None);
    results::note(&format!("{name}, more"), "ns", &more, None);
    let (ours, theirs) = (quartiles(&mut ours)[1], quartiles(&mut theirs)[1]);
    println!(
        "{name:<16} {ours:>7.1} ns  the C library's {theirs:>7.1} ns  more: {middle:>5.1} ns (middle half {low:.1}..{high:.1})"
    );
    middle <= BAR
}

fn measure(calls: u32, rounds: usize) -> bool {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").expect("/dev/null");
    let zero = OpenOptions::new().read(true).open("/dev/zero").expect("/dev/zero");
    let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
    far.write_all(b"x").expect("room for a byte");
    let (null, zero, near) = (null.as_raw_fd(), zero.as_raw_fd(), near.as_raw_fd());
    // SAFETY: the C library's function of this name has this type.
    let read = unsafe { transmute::<*mut c_void, Read>(original(c"read")) };
    // SAFETY: as above.
    let write = unsafe { transmute::<*mut c_void, Send>(original(c"write")) };
    // SAFETY: as above.
    let recv = unsafe { transmute::<*mut c_void, Recv>(original(c"recv")) };
    let reading = |read: Read| {
        move || {
            let mut byte = 0_u8;
            // SAFETY: there is room for a byte.
            unsafe { read(zero, (&raw mut byte).cast(), 1) }
        }
    };
    let writing = |write: Send| {
        move || {
            let byte = 0_u8;
            // SAFETY: there is a byte.
            unsafe { write(null, (&raw const byte).cast(), 1) }
        }
    };
    let peeking = |recv: Recv| {
        move || {
            let mut byte = 0_u8;
            // SAFETY: there is room for a byte.
            unsafe { recv(near, (&raw mut byte).cast(), 1, libc::MSG_PEEK) }
        }
    };
    // Through pointers, as the originals are called.
    let (my_read, my_write, my_recv) = black_box((libc::read as Read, libc::write as Send, libc::recv as Recv));
    let met = [
        row("outside/read", calls, rounds, &reading(my_read), &reading(read)),
        row("outside/write", calls, rounds, &writing(my_write), &writing(write)),
        row("outside/recv", calls, rounds, &peeking(my_recv), &peeking(recv)),
    ];
    met.iter().all(|&met| met)
}

/// Measures pairs of calls on free locks, of an OS thread without a hub or of a green thread.
fn measure_locks(place: &str, calls: u32, rounds: usize) -> bool {
    /// A lock of C, large enough for each kind: all zeros is a free one, but for the semaphore.
    #[repr(align(16))]
    struct Lock([u32; 16]);
    let pair = |names: [&CStr; 2]| {
        // SAFETY: the C library's functions of these names have this type, but for the type of the lock.
        names
            .map(|name| unsafe { transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(original(name)) })
    };
    // The program's own, by their names.
    let own = |names: [&CStr; 2]| {
        names.map(|name| {
            // SAFETY: the name is a C string.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            // SAFETY: as above.
            unsafe { transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(found) }
        })
    };
    let mut met = true;
    for (name, first, [take, release]) in [
        ("mutex", 0, [c"pthread_mutex_lock", c"pthread_mutex_unlock"]),
        ("recursive", 0, [c"pthread_mutex_lock", c"pthread_mutex_unlock"]),
        ("reader", 0, [c"pthread_rwlock_rdlock", c"pthread_rwlock_unlock"]),
        ("writer", 0, [c"pthread_rwlock_wrlock", c"pthread_rwlock_unlock"]),
        ("semaphore", 1, [c"sem_wait", c"sem_post"]),
        ("signal", 0, [c"pthread_cond_signal", c"pthread_cond_broadcast"]),
    ] {
        let mut lock = Lock([0; 16]);
        lock.0[0] = first;
        // The kind of a recursive mutex, as in `PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP`.
        lock.0[4] = u32::from(name == "recursive");
        let at = (&raw mut lock).cast::<c_void>();
        let run = |pair: Pair| {
            // SAFETY: a lock of the kind that the calls want.
            move || isize::from(pair.map(|call| unsafe { call(at) }) == [0, 0])
        };
        let (ours, theirs) = black_box((own([take, release]), pair([take, release])));
        met &= row(&format!("{place}/{name}"), calls, rounds, &run(ours), &run(theirs));
    }
    met
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    results::take_option("monkey", &mut arguments).unwrap_or_else(|error| {
        eprintln!("monkey: {error}");
        std::process::exit(2);
    });
    let short = !arguments.iter().any(|arg| arg == "--bench");
    if short {
        println!("not under `cargo bench`: a short run to see that everything works, its figures mean nothing");
    }
    // SAFETY: no green threads run in this program.
    unsafe { greenling::monkey::patch_all() }.expect("linked to be patched");
    let (calls, rounds) = if short { (100, 3) } else { (5000, 400) };
    let met = std::thread::spawn(move || measure(calls, rounds)).join().expect("the thread ends well");
    // SAFETY: as above.
    unsafe { greenling::monkey::patch_locks() }.expect("linked to be patched");
    let outside = std::thread::spawn(move || measure_locks("outside", calls, rounds)).join().expect("it ends well");
    println!("{} each pair on an OS thread at most {BAR} ns more", if outside { "PASS" } else { "MISS" });
    if greenling::thread::own_thread_locals_supported().is_ok() {
        let green = greenling::thread::Builder::new().own_thread_locals();
        let green = green.spawn(move || measure_locks("green", calls, rounds)).expect("a thread");
        green.join().expect("the thread ends well");
    }
    println!("{} each at most {BAR} ns more than the C library's", if met { "PASS" } else { "MISS" });
    results::write().expect("the file can be written");
}
