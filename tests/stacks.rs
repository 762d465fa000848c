//! What stacks promise: sizes, memory, limits; and that closures and results of every shape survive on them.
#![allow(unsafe_code)]

mod child;

use std::cell::Cell;
use std::fs;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::{Greenlet, hub, spawn, thread};

/// The size of a slot for a thread that asks for nothing.
const SLOT: usize = 256 * 1024;

/// How much larger than usual the stacks of these tests are: AddressSanitizer makes frames several times as large.
const ROOM: usize = if cfg!(feature = "sanitizer") { 8 } else { 1 };

/// Uses `bytes` of stack, and little more, touching each page. Says how many it used.
fn dig(bytes: usize) -> usize {
    #[inline(never)]
    fn dig_from(start: usize, bytes: usize) -> usize {
        let frame = black_box([1_u8; 512]);
        let used = start.saturating_sub((&raw const frame).addr());
        if used >= bytes { used } else { dig_from(start, bytes).min(used + bytes * usize::from(frame[7])) }
    }
    let here = 0_u8;
    dig_from((&raw const here).addr(), bytes)
}

/// Pages of 4 KiB (or what this machine has) from `low` to `low + SLOT` that are in memory.
fn resident_pages(low: usize) -> usize {
    let mut pages = [0_u8; SLOT / 4096];
    // SAFETY: the range is a stack slot, mapped as a whole, and has at most as many pages as the answer has bytes.
    let result = unsafe { libc::mincore(std::ptr::with_exposed_provenance_mut(low), SLOT, pages.as_mut_ptr()) };
    assert_eq!(result, 0);
    pages.iter().map(|page| usize::from(page & 1)).sum()
}

/// The size of a page.
fn page_size() -> usize {
    // SAFETY: sysconf takes no pointer.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap()
}

/// Resident bytes of this process.
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * page_size()
}

/// Page faults of this OS thread that needed no disk.
fn faults() -> i64 {
    // SAFETY: all zeros is a place for getrusage to fill.
    let mut usage = unsafe { std::mem::zeroed::<libc::rusage>() };
    // SAFETY: `usage` is a live place (getrusage(2)).
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_minflt
}

/// Whether `bytes` of memory are to be had; says so if not.
fn has_memory(bytes: usize) -> bool {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find(|line| line.starts_with("MemAvailable")).unwrap();
    let free = line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024;
    if free < bytes {
        eprintln!("skipped: needs {bytes} bytes of memory, {free} are free");
    }
    free >= bytes
}

/// Spawns and joins `count` threads that are all there at once.
fn burst(count: usize) {
    let threads: Vec<_> = (0..count).map(|n| spawn(move || n)).collect();
    thread::yield_now();
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), n);
    }
}

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    match role.as_str() {
        "exhaust" => exhaust(),
        "crowd" => crowd(),
        "plateau" => plateau(),
        other => panic!("no such part: {other}"),
    }
}

#[test]
fn a_thread_has_the_stack_it_asked_for() {
    for size in [1_usize, 40_000, 100_000, 1 << 20, 16 << 20] {
        let used = size.saturating_sub(24 * 1024);
        let builder = thread::Builder::new().stack_size(size);
        assert!(builder.spawn(move || dig(used)).unwrap().join().unwrap() >= used);
        assert!(Greenlet::with_stack_size(dig, size).switch(used) >= used);
    }
}

#[test]
fn the_default_size_holds_for_what_is_spawned_afterwards() {
    let before = hub::default_stack_size();
    assert!(before > 128 * 1024 && before < SLOT);
    hub::set_default_stack_size(2 << 20).unwrap();
    assert!(hub::default_stack_size() >= 2 << 20);
    assert!(spawn(|| dig(2_000_000)).join().unwrap() > 0);
    assert!(Greenlet::new(dig).switch(2_000_000) > 0);
}

#[test]
fn a_size_that_no_stack_can_have_is_an_error() {
    let error = hub::set_default_stack_size(usize::MAX).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let builder = thread::Builder::new().stack_size(5 << 30);
    assert_eq!(builder.spawn(|| ()).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn the_high_water_mark_is_the_deepest_use_until_a_trim() {
    let shallow = spawn(|| hub::stack_high_water().unwrap()).join().unwrap();
    assert!(shallow <= 32 * 1024 || page_size() > 4096, "{shallow}");
    let deep = spawn(|| {
        dig(100_000);
        hub::stack_high_water().unwrap()
    });
    let deep = deep.join().unwrap();
    assert!((100_000..200_000).contains(&deep) || cfg!(feature = "sanitizer"), "{deep}");
    // The same stack; its mark stays until its pages go.
    assert!(spawn(|| hub::stack_high_water().unwrap()).join().unwrap() >= 100_000);
    hub::trim_stacks();
    assert_eq!(spawn(|| hub::stack_high_water().unwrap()).join().unwrap(), shallow);
    assert!(hub::stack_high_water().is_err(), "main has no stack of ours");
}

#[test]
fn an_idle_thread_keeps_one_page() {
    // Frames of an unoptimised build are larger, and at the last colours they take a second page.
    let most = if cfg!(debug_assertions) { 2 } else { 1 };
    if cfg!(feature = "sanitizer") {
        eprintln!("skipped: AddressSanitizer makes frames larger");
        return;
    }
    // Two rounds through all sixteen colours.
    let lows = Rc::new(Cell::new(Vec::new()));
    let threads: Vec<_> = (0..32)
        .map(|_| {
            let lows = Rc::clone(&lows);
            spawn(move || {
                let here = 0_u8;
                let mut list = lows.take();
                list.push((&raw const here).expose_provenance() & !(SLOT - 1));
                lows.set(list);
                thread::park();
            })
        })
        .collect();
    thread::yield_now();
    let lows = lows.take();
    assert_eq!(lows.len(), 32);
    let pages: Vec<usize> = lows.iter().map(|low| resident_pages(*low)).collect();
    assert!(pages.iter().all(|pages| (1..=most).contains(pages)), "{pages:?}");
    threads.iter().for_each(|thread| thread.thread().unpark());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn threads_that_come_and_go_in_bursts_cost_no_page_faults() {
    burst(20_000);
    let before = faults();
    for _ in 0..4 {
        burst(20_000);
    }
    let each = (faults() - before) / 4;
    assert!(each < 2000, "{each} page faults for 20000 threads");
}

#[test]
fn any_number_of_threads_takes_the_stacks_of_those_that_are_there_at_once() {
    let batches = if cfg!(debug_assertions) { 100 } else { 1000 };
    burst(1000);
    let (made, before) = (hub::stack_stats().made, faults());
    (0..batches).for_each(|_| burst(1000));
    assert_eq!((hub::stack_stats().made, made), (1000, 1000));
    let pages = faults() - before;
    assert!(pages < 10 * batches || cfg!(feature = "sanitizer"), "{pages} new pages for {batches}000 threads");
}

/// The lowest address of the stack slot that the caller runs on.
fn own_slot() -> usize {
    let here = 0_u8;
    (&raw const here).expose_provenance() & !(SLOT - 1)
}

/// Most pages that a parked thread may keep: those that it uses, those that the sweep leaves as a margin, and the larger
/// frames of unoptimised builds.
const SWEPT: usize = 6;

/// Times the OS thread `number` gave the CPU away because it waited.
fn waits_of(number: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/self/task/{number}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn an_idle_hub_takes_back_the_stack_of_a_deep_call_and_then_sleeps() {
    let (tell, told) = std::sync::mpsc::channel();
    let hub = std::thread::spawn(move || {
        let number = fs::read_link("/proc/thread-self").unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let slots = Rc::new(Cell::new(Vec::new()));
        let threads: Vec<_> = (0..300)
            .map(|n| {
                let slots = Rc::clone(&slots);
                spawn(move || {
                    let mut list = slots.take();
                    list.push(own_slot());
                    slots.set(list);
                    dig(200_000);
                    thread::park();
                    n
                })
            })
            .collect();
        thread::yield_now();
        tell.send((number, slots.take(), threads.iter().map(|t| t.thread().clone()).collect::<Vec<_>>())).unwrap();
        for (n, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), n);
        }
    });
    let (number, slots, threads) = told.recv().unwrap();
    let pages = || slots.iter().map(|low| resident_pages(*low)).collect::<Vec<_>>();
    assert!(pages().iter().all(|pages| *pages >= 200_000 / page_size()), "{:?}", pages());
    let start = Instant::now();
    while pages().iter().any(|pages| *pages > SWEPT) {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", pages());
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("given back after {:?}: {:?}", start.elapsed(), &pages()[..16]);
    // From now on the hub has nothing to do; it may take a moment to see that.
    let quiet = |start: Instant| loop {
        let before = waits_of(&number);
        std::thread::sleep(Duration::from_millis(2500));
        if waits_of(&number) == before {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the hub wakes up again and again");
    };
    quiet(Instant::now());
    threads.iter().for_each(thread::Thread::unpark);
    hub.join().unwrap();
}

#[test]
fn a_thread_that_was_deep_when_it_was_looked_at_is_looked_at_again() {
    let slot = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&slot);
    /// Waits with `bytes` of frames above it, from `start` on.
    #[inline(never)]
    fn wait_deep(start: usize, bytes: usize) -> u8 {
        let frame = black_box([7_u8; 512]);
        if start - (&raw const frame).addr() < bytes {
            return black_box(wait_deep(start, bytes)) + frame[9] - 7;
        }
        thread::park();
        frame[9]
    }
    let thread = spawn(move || {
        theirs.set(own_slot());
        let here = 0_u8;
        assert_eq!(wait_deep((&raw const here).addr(), 100_000), 7);
        thread::park();
    });
    greenling::sleep(Duration::from_millis(4000));
    let deep = resident_pages(slot.get());
    assert!(deep >= 100_000 / page_size(), "{deep}: what it stands on was taken");
    // It touches nothing new: only that it was put off says that there is something to take.
    thread.thread().unpark();
    let start = Instant::now();
    while resident_pages(slot.get()) > SWEPT {
        assert!(start.elapsed() < Duration::from_secs(60), "{} pages", resident_pages(slot.get()));
        greenling::sleep(Duration::from_millis(100));
    }
    thread.thread().unpark();
    thread.join().unwrap();
}

/// Fills a local array of `N` bytes, makes a deep call, waits in `wait`, and checks the array.
#[inline(always)]
fn hold<const N: usize>(seed: u8, wait: impl FnOnce()) {
    let mut local = [0_u8; N];
    walk(&mut local, seed, |byte, expected| *byte = expected);
    dig(100_000);
    wait();
    walk(&mut local, seed, |byte, expected| assert_eq!(*byte, expected));
}

/// Spawns threads that hold arrays of all sizes while they are in the blocking call `wait`.
fn hold_all<W: FnOnce() + Clone + 'static>(wait: &W) -> Vec<thread::JoinHandle<()>> {
    /// One of them, with the blocking call in the same frame as the array, if the compiler can.
    fn one<const N: usize, W: FnOnce() + Clone + 'static>(wait: &W, seed: u8) -> thread::JoinHandle<()> {
        let wait = wait.clone();
        let builder = thread::Builder::new().stack_size(ROOM * (1 << 20));
        builder.spawn(move || hold::<N>(seed, wait)).unwrap()
    }
    vec![
        one::<1, W>(wait, 1),
        one::<4000, W>(wait, 2),
        one::<16_000, W>(wait, 3),
        one::<33_333, W>(wait, 4),
        one::<100_000, W>(wait, 5),
        one::<150_000, W>(wait, 6),
    ]
}

#[test]
fn no_byte_that_a_waiting_thread_needs_is_taken() {
    use std::io::{Read, Write};
    let gate = Rc::new(greenling::sync::Event::new());
    let mutex = Rc::new(greenling::sync::Mutex::new(()));
    let listener = greenling::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, receiver) = hub::channel::<u8>(None);
    let guard = mutex.lock().unwrap();
    let event = Rc::clone(&gate);
    let mut threads = hold_all(&move || event.wait());
    let until = Instant::now() + Duration::from_millis(300);
    threads.extend(hold_all(&move || greenling::thread::sleep_until(until)));
    let lock = Rc::clone(&mutex);
    threads.extend(hold_all(&move || drop(lock.lock().unwrap())));
    threads.extend(hold_all(&thread::park));
    let parked: Vec<_> = threads[18..].iter().map(|thread| thread.thread().clone()).collect();
    threads.extend(hold_all(&move || {
        let mut stream = greenling::net::TcpStream::connect(addr).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 3);
    }));
    threads.extend(hold_all(&move || assert_eq!(receiver.recv().unwrap(), 9)));
    let join = Rc::clone(&gate);
    threads.extend(hold_all(&move || {
        let gate = Rc::clone(&join);
        spawn(move || gate.wait()).join().unwrap();
    }));
    let count = threads.len();
    let mut streams: Vec<_> = (0..6).map(|_| listener.accept().unwrap().0).collect();
    for _ in 0..10 {
        thread::yield_now();
        hub::trim_stacks();
    }
    gate.set();
    drop(guard);
    parked.iter().for_each(thread::Thread::unpark);
    streams.iter_mut().for_each(|stream| assert_eq!(stream.write(b"abc").unwrap(), 3));
    (0..6).for_each(|_| sender.send(9).unwrap());
    for thread in threads {
        thread.join().unwrap();
        hub::trim_stacks();
    }
    assert_eq!(count, 42);
}

#[test]
fn a_trim_takes_what_parked_and_finished_threads_do_not_need() {
    let slots = Rc::new(Cell::new(Vec::new()));
    let deep = |park: bool| {
        let slots = Rc::clone(&slots);
        spawn(move || {
            let mut list = slots.take();
            list.push(own_slot());
            slots.set(list);
            dig(200_000);
            if park {
                thread::park();
            }
            [7_u8; 100]
        })
    };
    let (parked, finished) = (deep(true), deep(false));
    thread::yield_now();
    let slots = slots.take();
    let pages = || slots.iter().map(|low| resident_pages(*low)).collect::<Vec<_>>();
    assert!(pages().iter().all(|pages| *pages >= 200_000 / page_size()), "{:?}", pages());
    hub::trim_stacks();
    assert!(pages().iter().all(|pages| *pages <= SWEPT), "{:?}", pages());
    parked.thread().unpark();
    assert_eq!((parked.join().unwrap(), finished.join().unwrap()), ([7; 100], [7; 100]));
}

/// Parks threads until there is no guard for another one.
fn exhaust() {
    let mut threads = Vec::with_capacity(100_000);
    let error = loop {
        let builder = thread::Builder::new().stack_size(40_000);
        let number = threads.len();
        match builder.spawn(move || (thread::park(), number).1) {
            Ok(thread) => threads.push(thread),
            Err(error) => break error,
        }
        assert!(threads.len() < 100_000, "vm.max_map_count is not the default");
        if number % 1000 == 0 {
            thread::yield_now();
        }
    };
    println!("COUNT {}", threads.len());
    println!("ERROR {error}");
    assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
    // Nothing is lost: another attempt fails the same way, all threads end, and their stacks serve again.
    assert!(thread::Builder::new().stack_size(40_000).spawn(|| ()).is_err());
    let made = hub::stack_stats().made;
    assert_eq!((made, hub::stack_stats().in_use), (threads.len(), threads.len()));
    threads.iter().for_each(|thread| thread.thread().unpark());
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), number);
    }
    let again: Vec<_> = (0..made).map(|_| thread::Builder::new().stack_size(40_000).spawn(|| ()).unwrap()).collect();
    again.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(hub::stack_stats().made, made);
}

#[test]
fn running_out_of_mappings_is_a_clear_error_and_loses_nothing() {
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    if limit.trim() != "65530" || cfg!(feature = "sanitizer") {
        eprintln!("skipped: vm.max_map_count is {}, the test is for 65530 and no sanitizer", limit.trim());
        return;
    }
    let out = child::succeeds("exhaust", "protect");
    let count: usize = out.split_once("COUNT ").unwrap().1.lines().next().unwrap().parse().unwrap();
    assert!((30_000..33_000).contains(&count), "{out}");
    assert!(out.contains("vm.max_map_count") && out.contains("6.13"), "{out}");
}

/// Parks 200 000 threads at once.
fn crowd() {
    const COUNT: usize = 200_000;
    let threads: Vec<_> = (0..COUNT).map(|n| spawn(move || (thread::park(), n).1)).collect();
    thread::yield_now();
    assert_eq!(hub::live_threads(), COUNT);
    assert_eq!(hub::stack_stats().in_use, COUNT);
    let maps = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    println!("MAPS {maps}");
    threads.iter().for_each(|thread| thread.thread().unpark());
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), number);
    }
    assert_eq!(hub::live_threads(), 0);
}

#[test]
fn two_hundred_thousand_threads_park_at_once_and_take_few_mappings() {
    if !child::has_install() {
        eprintln!("skipped: this kernel is older than 6.13, each guard takes two of vm.max_map_count mappings");
        return;
    }
    if !has_memory(4 << 30) {
        return;
    }
    let out = child::succeeds("crowd", "install");
    let maps: usize = out.split_once("MAPS ").unwrap().1.lines().next().unwrap().parse().unwrap();
    assert!(maps < 1000 || cfg!(feature = "sanitizer"), "{maps} mappings");
}

/// Two mass spawns, then peace.
fn plateau() {
    let nothing = resident_bytes();
    burst(100_000);
    let (first, made) = (resident_bytes() - nothing, hub::stack_stats().made);
    burst(100_000);
    let (second, stats) = (resident_bytes() - nothing, hub::stack_stats());
    assert_eq!((stats.made, stats.in_use, made), (100_000, 0, 100_000));
    assert!(second < first + first / 20, "first {first}, second {second}");
    // The hub gives the memory back while main sleeps.
    let start = Instant::now();
    while hub::stack_stats().warm > 64 {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", hub::stack_stats());
        greenling::sleep(Duration::from_millis(50));
    }
    let peace = resident_bytes().saturating_sub(nothing);
    println!("first {first}, second {second}, in peace {peace}, after {:?}", start.elapsed());
    assert!(peace < second / 4, "{peace} of {second} bytes are still there");
    hub::trim_stacks();
    assert_eq!(hub::stack_stats().warm, 0);
}

#[test]
fn memory_reaches_a_plateau_and_goes_back_in_peace() {
    if cfg!(feature = "sanitizer") {
        eprintln!("skipped: AddressSanitizer keeps memory of its own");
    } else if has_memory(2 << 30) {
        println!("{}", child::succeeds("plateau", ""));
    }
}

/// Counts the drops of what it lies in.
#[derive(Clone)]
struct Counter(Rc<Cell<usize>>);

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Something of any size and alignment.
trait Load: 'static {
    /// With a pattern made from `seed` inside.
    fn new(seed: u8, counter: &Counter) -> Self;
    /// Checks pattern and alignment.
    fn check(&mut self, seed: u8);
}

/// Calls `visit` with each byte and what it is to be in the pattern of `seed`.
#[inline(never)]
fn walk(bytes: &mut [u8], seed: u8, visit: fn(&mut u8, u8)) {
    let mut next = seed;
    for byte in bytes {
        visit(byte, next);
        next = next.wrapping_mul(31).wrapping_add(7);
    }
}

/// Makes a type of `$bytes` bytes and a counter, aligned to `$align`, and runs `check_shape` on it.
macro_rules! shapes {
    ($counter:expr; $($align:literal: $($bytes:literal)*;)*) => {$($({
        #[repr(align($align))]
        struct Shape([u8; $bytes], #[expect(dead_code, reason = "it counts its drop")] Counter);
        impl Load for Shape {
            fn new(seed: u8, counter: &Counter) -> Shape {
                let mut shape = Shape([0; $bytes], counter.clone());
                walk(&mut shape.0, seed, |byte, expected| *byte = expected);
                shape
            }
            fn check(&mut self, seed: u8) {
                assert!((&raw const *self).addr().is_multiple_of($align), "{} bytes aligned to {}", $bytes, $align);
                walk(&mut self.0, seed, |byte, expected| assert_eq!(*byte, expected));
            }
        }
        check_shape::<Shape>($counter);
    })*)*};
}

// A type of closure is compiled once per shape, with all that a thread needs for it: each is used for several ways.

/// A thread's closure: `value` is capture and result.
fn returns<T>(value: T) -> impl FnOnce() -> T {
    move || value
}

/// [`returns`], after a wait.
fn parks<T>(value: T) -> impl FnOnce() -> T {
    move || {
        thread::park();
        value
    }
}

/// A greenlet's closure.
fn checks<T: Load>(mut value: T) -> impl FnOnce(u8) -> u8 {
    move |n| {
        value.check(n);
        n
    }
}

/// Sends a `T` through a thread as capture and result, in every way a thread can end, and counts the drops.
#[inline(never)]
fn check_shape<T: Load>(drops: &Counter) {
    let expect = |ways: &str, count: usize| {
        assert_eq!(drops.0.replace(0), count, "{ways}, {} bytes", size_of::<T>());
    };
    // An unoptimised build copies a value from frame to frame, two dozen times.
    let least = if size_of::<T>() <= 512 { 40_000 } else { 400_000 };
    for size in [least * ROOM, 1_000_000 * ROOM] {
        let builder = || thread::Builder::new().stack_size(size);
        let (mut first, mut second) = (T::new(1, drops), T::new(2, drops));
        let swap = move || {
            first.check(1);
            let _first = first;
            thread::yield_now();
            second.check(2);
            second
        };
        let thread = builder().spawn(swap).unwrap();
        thread.join().unwrap().check(2);
        expect("joined", 2);

        let detached = builder().spawn(returns(T::new(3, drops))).unwrap();
        drop(detached);
        burst(1);
        expect("detached", 1);

        let unjoined = builder().spawn(returns(T::new(4, drops))).unwrap();
        burst(1);
        assert!(unjoined.is_finished());
        drop(unjoined);
        expect("finished, never joined", 1);

        let killed = builder().spawn(returns(T::new(5, drops))).unwrap();
        killed.kill();
        assert!(killed.join().err().unwrap().is_killed());
        expect("killed before it started", 1);

        let parked = builder().spawn(parks(T::new(6, drops))).unwrap();
        thread::yield_now();
        parked.kill();
        assert!(parked.join().is_err());
        expect("killed while parked", 1);

        let (mut first, second) = (T::new(7, drops), T::new(8, drops));
        let mut borrowed = thread::scope(|scope| {
            scope.spawn(|| first.check(7));
            scope.spawn(returns(second)).join().unwrap()
        });
        borrowed.check(8);
        drop((first, borrowed));
        expect("scoped", 2);
    }
    let run = checks(T::new(9, drops));
    assert_eq!(Greenlet::with_stack_size(run, 1_000_000 * ROOM).switch(9), 9);
    expect("greenlet", 1);
    drop(Greenlet::new(checks(T::new(10, drops))));
    expect("greenlet that never ran", 1);
    std::thread::spawn(end_with::<T> as fn()).join().unwrap();
}

/// The end of an OS thread: one thread is parked, one is finished and kept.
fn end_with<T: Load>() {
    let drops = Counter(Rc::default());
    let (count, first, second) = (Rc::clone(&drops.0), T::new(11, &drops), T::new(12, &drops));
    hub::set_default_stack_size(1_000_000 * ROOM).unwrap();
    let finished = spawn(returns(first));
    let parked = spawn(parks(second));
    thread::yield_now();
    hub::shutdown();
    assert_eq!(count.get(), 1, "the parked one was unwound");
    drop((finished, parked));
    assert_eq!(count.get(), 2);
}

#[test]
fn closures_and_results_of_every_size_and_alignment_are_moved_whole_and_dropped_once() {
    let drops = Counter(Rc::default());
    hub::set_default_stack_size(1_000_000 * ROOM).unwrap();
    shapes! { &drops;
        1: 0 1 7 16 17 100 999 1000 1015 1016 1017 1024 1025 2048 4096 5000;
        2: 0 1000;
        8: 0 9 1000 5000;
        16: 0 1 1008 5000;
        32: 1 1000;
        64: 0 1 960;
        128: 1 1000;
        256: 0 1 768 5000;
        4096: 0 5000;
    }
}

#[test]
fn a_closure_of_any_alignment_can_be_spawned_or_is_an_error() {
    #[repr(align(65_536))]
    struct Wide(u8);
    let builder = || thread::Builder::new().stack_size(ROOM << 20);
    let wide = Wide(7);
    let thread = builder().spawn(move || ((&raw const wide).addr() % 65_536, wide.0)).unwrap();
    assert_eq!(thread.join().unwrap(), (0, 7));
    // Nothing to store, and yet no place for it.
    #[repr(align(65_536))]
    struct Nothing;
    let nothing = Nothing;
    let small = thread::Builder::new().stack_size(40_000);
    let error = small.spawn(move || size_of_val::<Nothing>(&nothing)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_closure_larger_than_its_slot_has_room_for_can_be_spawned() {
    let large = [7_u8; 300_000];
    // An unoptimised build copies it from frame to frame.
    let builder = thread::Builder::new().stack_size(ROOM * (8 << 20));
    assert_eq!(builder.spawn(move || large[299_999]).unwrap().join().unwrap(), 7);
}

#[test]
fn a_result_too_large_for_the_stack_is_an_error_and_drops_the_closure() {
    let drops = Counter(Rc::default());
    let inside = drops.clone();
    let builder = thread::Builder::new().stack_size(40_000);
    let error = builder.spawn(move || (inside, [0_u8; 40_000]).1).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(drops.0.get(), 1);
    assert_eq!(hub::stack_stats().in_use, 0);
}
