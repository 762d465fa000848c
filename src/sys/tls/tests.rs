//! Tests of blocks: each makes some as the switch layer does, and runs closures in them.
//!
//! * Invariant tls-tests-1: each block is used by the test that made it, on one OS thread at a time, and destroyed at
//!   the end. Upheld by [`Block`].

#![allow(unsafe_code)]

use std::alloc::{alloc, dealloc};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, ptr, thread};

use super::super::testing::in_fork;
use super::errno::{errno, set_errno};
use super::*;

/// A block and its memory.
struct Block {
    layout: &'static Layout,
    memory: *mut u8,
    pointer: usize,
}

impl Block {
    fn new() -> Self {
        let layout = layout().unwrap();
        let size = std::alloc::Layout::from_size_align(layout.block_size(), layout.block_align()).unwrap();
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc(size) };
        // SAFETY: Invariant tls-tests-1; nothing may rest on what the memory had.
        unsafe { memory.write_bytes(0xA5, size.size()) };
        // SAFETY: Invariant tls-tests-1.
        let pointer = unsafe { layout.create(memory, thread_pointer()) }.unwrap();
        Self { layout, memory, pointer }
    }

    fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: Invariant tls-tests-1.
        unsafe { with_thread_pointer(self.pointer, f) }
    }

    fn end(&self) {
        // SAFETY: Invariant tls-tests-1.
        self.run(|| unsafe { self.layout.run_destructors() });
    }

    fn recycle(&self) -> bool {
        // SAFETY: Invariant tls-tests-1.
        unsafe { self.layout.recycle(self.pointer, thread_pointer()) }
    }

    /// Returns the words of the block without the tail and without what differs between blocks: distances instead of
    /// addresses, and no dtv. The part that is left free for libraries is left out.
    fn words(&self) -> Vec<usize> {
        let image = self.layout.image().unwrap();
        let mut words = image.words.clone();
        // SAFETY: Invariant tls-tests-1: the block without what its image leaves out.
        unsafe { memory::copy_out(self.pointer.wrapping_add_signed(image.low), &mut words) };
        let inside = self.pointer.wrapping_add_signed(image.low)..self.pointer + self.layout.after;
        for word in words.iter_mut().filter(|word| inside.contains(word)) {
            *word = word.wrapping_sub(self.pointer);
        }
        let dtv = (self.layout.dtv as isize - self.layout.below as isize - image.low) as usize / 8;
        words[dtv] = 0;
        // A state of random numbers stays with the block.
        if let Some(random) = self.layout.seen.random {
            words[(random - image.low) as usize / 8] = 0;
        }
        // The sequence of a value that there is not means nothing.
        let tables = (self.layout.specific as isize - self.layout.below as isize - image.low) as usize / 8;
        let first = (words[tables] as isize - image.low) as usize / 8;
        for value in words[first..tables].chunks_mut(self.layout.keys.value / 8) {
            if value[self.layout.keys.value_data / 8] == 0 {
                value.fill(0);
            }
        }
        words
    }
}

impl Block {
    /// Overwrites each word that a recycled block gets anew.
    fn spoil(&self) {
        let (image, seen) = (self.layout.image().unwrap(), &self.layout.seen);
        let below = -(self.layout.below as isize);
        // What the block owns, and by which it says that it can be used again.
        let kept = [Some(below.wrapping_add_unsigned(self.layout.dtv)), seen.random, Some(seen.key_flag & -8)];
        for index in image.parts.iter().cloned().flatten() {
            let place = image.low + index as isize * 8;
            if !kept.contains(&Some(place)) {
                // SAFETY: Invariant tls-tests-1: nothing runs in the block before it is made fresh again.
                unsafe { memory::write(self.pointer.wrapping_add_signed(place), 0xEEEE_EEEE_EEEE_EEEE_u64) };
            }
        }
    }

    /// Returns the words that lead to what the C library has allocated for the thread.
    fn owned(&self) -> Vec<usize> {
        let places = self.layout.seen.buffers.iter().chain(&self.layout.seen.dlerror);
        // SAFETY: Invariant tls-tests-1: words of the block.
        places.map(|place| unsafe { memory::read(self.pointer.wrapping_add_signed(*place)) }).collect()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: Invariant tls-tests-1.
        unsafe { self.layout.destroy(self.pointer) };
        let size = std::alloc::Layout::from_size_align(self.layout.block_size(), self.layout.block_align()).unwrap();
        // SAFETY: allocated in `new`.
        unsafe { dealloc(self.memory, size) };
    }
}

/// Held by tests that load libraries, or that load none meanwhile.
static LIBRARIES: Mutex<()> = Mutex::new(());

/// Returns the lock of [`LIBRARIES`].
fn libraries() -> std::sync::MutexGuard<'static, ()> {
    LIBRARIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Compiles a library and loads it; `None`, with a message, where there is no C compiler.
fn load(name: &str, source: &str) -> Option<*mut c_void> {
    let folder = std::env::temp_dir().join(format!("greenling-tls-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (code, library) = (folder.join("code.c"), folder.join(format!("lib{name}.so")));
    fs::write(&code, source).unwrap();
    let compiler = if cfg!(target_arch = "x86_64") { "cc" } else { "aarch64-linux-gnu-gcc" };
    let compiled = Command::new(compiler).args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &code]).status();
    let handle = compiled.is_ok_and(|status| status.success()).then(|| open(&library));
    fs::remove_dir_all(&folder).unwrap();
    if handle.is_none() {
        println!("SKIPPED: no C compiler `{compiler}`");
    }
    handle
}

fn open(library: &Path) -> *mut c_void {
    type Open = unsafe extern "C" fn(*const std::ffi::c_char, c_int) -> *mut c_void;
    let name = CString::new(library.to_str().unwrap()).unwrap();
    // The C library's own: with the feature monkey the program's fills blocks by itself.
    let dlopen = symbols::Library::open().unwrap().address(c"dlopen").unwrap().as_ptr();
    // SAFETY: the C library's function of this name has this type (dlopen(3)).
    let dlopen = unsafe { std::mem::transmute::<*mut c_void, Open>(dlopen) };
    // SAFETY: a C string; the library has no constructors.
    let handle = unsafe { dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null());
    handle
}

fn close(handle: *mut c_void) {
    // SAFETY: `open` returned it, and nothing calls the library any more.
    assert_eq!(unsafe { libc::dlclose(handle) }, 0);
}

/// Returns a function without arguments of a library.
fn function(handle: *mut c_void, name: &CStr) -> extern "C" fn() -> c_int {
    // SAFETY: the handle is open and the name a C string (dlsym(3)).
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    assert!(!address.is_null());
    // SAFETY: the test compiled it, with this type.
    unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(address) }
}

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(7) };
    static TEXTS: RefCell<Vec<String>> = RefCell::new(vec![String::from("first")]);
}

#[test]
fn thread_locals_of_two_blocks_are_fresh_and_apart() {
    let blocks = [Block::new(), Block::new()];
    NUMBER.set(1);
    for (index, block) in blocks.iter().enumerate() {
        block.run(|| {
            assert_eq!(NUMBER.replace(100 + index as u64), 7);
            TEXTS.with_borrow_mut(|texts| texts.push(format!("{index}")));
        });
    }
    for (index, block) in blocks.iter().enumerate() {
        block.run(|| {
            assert_eq!(NUMBER.get(), 100 + index as u64);
            TEXTS.with_borrow(|texts| assert_eq!(*texts, ["first".to_owned(), index.to_string()]));
        });
        block.end();
    }
    assert_eq!(NUMBER.get(), 1);
}

#[test]
fn a_panic_is_counted_where_it_goes_on() {
    let block = Block::new();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        block.run(|| std::panic::resume_unwind(Box::new(5)));
    }));
    assert_eq!(*result.unwrap_err().downcast::<i32>().unwrap(), 5);
    assert_eq!(os_pointer(), 0, "the panic goes on under the caller's pointer");
    assert!(!thread::panicking());
    block.run(|| assert!(!thread::panicking()));
    block.end();
}

#[test]
fn the_pointer_of_the_os_thread_is_known_in_a_block_alone() {
    let block = Block::new();
    let os = thread_pointer();
    assert_eq!(os_pointer(), 0);
    assert_eq!(block.run(os_pointer), os);
    thread::spawn(|| assert_eq!(os_pointer(), 0)).join().unwrap();
    block.end();
}

/// Held by the test that sets the user 400 times: the C library writes into each thread then, as often as no program
/// does while it starts.
static SETUID: Mutex<()> = Mutex::new(());

/// Its neighbours in the C library's list of threads change, and so does the kernel's word of the processor.
#[test]
fn the_probe_sees_the_same_beside_threads_that_start_and_end() {
    let _alone = SETUID.lock().unwrap_or_else(PoisonError::into_inner);
    // All but the words that are each thread's own.
    let places = |layout: &Layout| {
        let seen = &layout.seen;
        let words = (&seen.libc, &seen.relative, &seen.malloc, seen.key_flag, seen.ctype);
        format!("{:?}", (words, &seen.buffers, seen.dlerror, seen.resolver, seen.random, seen.stack))
    };
    let wanted = places(layout().unwrap());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    thread::spawn(thread::yield_now).join().unwrap();
                }
            });
        }
        let seen: Vec<_> = (0..300).map(|_| Layout::find().map(|layout| places(&layout))).collect();
        stop.store(true, Ordering::Relaxed);
        for seen in seen {
            assert_eq!(seen.unwrap(), wanted);
        }
    });
}

#[test]
fn a_block_is_its_own_std_thread() {
    let block = Block::new();
    let outside = thread::current().id();
    let inside = block.run(|| {
        assert_ne!(thread::current().id(), outside);
        assert_eq!(thread::current().name(), None);
        thread::current().id()
    });
    assert_eq!(thread::current().id(), outside);
    assert_eq!(block.run(|| thread::current().id()), inside);
    block.end();
    assert!(block.recycle());
    block.run(|| assert_ne!(thread::current().id(), inside));
    block.end();
}

/// Leaves as many traces in a thread as there are places for.
fn leave_traces() {
    NUMBER.set(3);
    TEXTS.set(vec![String::from("trace")]);
    let map: HashMap<u32, u32> = (0..10).map(|number| (number, number)).collect();
    black_box(map);
    for number in [123_456, 234_567] {
        // SAFETY: any number may be asked for (strerror(3)).
        unsafe { libc::strerror(number) };
        // SAFETY: any number may be asked for (strsignal(3)).
        unsafe { libc::strsignal(number) };
    }
    // SAFETY: no such library: an error that nothing asks for (dlopen(3)).
    unsafe { libc::dlopen(c"/nothing/here.so".as_ptr(), libc::RTLD_NOW) };
    let mut found = ptr::null_mut();
    // SAFETY: a name, no service, no hints, and a place for the list (getaddrinfo(3)).
    if unsafe { libc::getaddrinfo(c"localhost".as_ptr(), ptr::null(), ptr::null(), &raw mut found) } == 0 {
        // SAFETY: the list of that call.
        unsafe { libc::freeaddrinfo(found) };
    }
    // SAFETY: a locale is made, used and given back (newlocale(3)).
    let locale = unsafe { libc::newlocale(libc::LC_ALL_MASK, c"C.UTF-8".as_ptr(), ptr::null_mut()) };
    if !locale.is_null() {
        // SAFETY: the same. Stays the thread's; leaked, as the next thread must not find a freed one.
        unsafe { libc::uselocale(locale) };
    }
    let mut keys = [0; 90];
    for key in &mut keys {
        // SAFETY: a place for the key.
        assert_eq!(unsafe { libc::pthread_key_create(key, None) }, 0);
        // SAFETY: the key was made above.
        assert_eq!(unsafe { libc::pthread_setspecific(*key, ptr::without_provenance(1)) }, 0);
    }
    for key in keys {
        // SAFETY: made above; values may be left (pthread_key_delete(3)).
        assert_eq!(unsafe { libc::pthread_key_delete(key) }, 0);
    }
    set_errno(77);
}

#[test]
fn a_block_made_fresh_again_is_as_a_new_one_to_the_last_word() {
    let _libraries = libraries();
    let block = Block::new();
    for round in 0..3 {
        assert_eq!(block.words(), Block::new().words(), "round {round}");
        block.run(leave_traces);
        let differing = block.words().iter().zip(Block::new().words()).filter(|(a, b)| *a != b).count();
        assert!(differing > 5, "the traces are to be seen: {differing}");
        block.end();
        if round == 1 {
            block.spoil();
        }
        assert!(block.recycle());
    }
}

#[test]
fn a_state_of_random_numbers_stays_with_the_block() {
    let block = Block::new();
    let Some(random) = block.layout.seen.random else {
        println!("SKIPPED: random numbers are made in the kernel");
        return;
    };
    let draw = || {
        let mut byte = 0_u8;
        // SAFETY: a place of one byte (getrandom(2)).
        assert_eq!(block.run(|| unsafe { libc::getrandom((&raw mut byte).cast(), 1, 0) }), 1);
        // SAFETY: Invariant tls-tests-1: a word of the block.
        unsafe { memory::read::<usize>(block.pointer.wrapping_add_signed(random)) }
    };
    let state = draw();
    assert_ne!(state, 0);
    block.end();
    assert!(block.recycle());
    assert_eq!(draw(), state);
    block.end();
}

/// Returns how many bytes more are allocated after some hundred threads, each of which has allocated and ended.
fn left_behind() -> usize {
    let block = Block::new();
    // SAFETY: the function takes nothing (mallinfo(3)).
    let allocated = || unsafe { libc::mallinfo2() };
    let mut after = Vec::new();
    for _ in 0..400 {
        block.run(|| {
            NUMBER.set(1);
            TEXTS.set(vec!["x".repeat(3000)]);
            // SAFETY: any number may be asked for.
            unsafe { libc::strerror(123_456) };
            // SAFETY: any number may be asked for.
            unsafe { libc::strsignal(123_456) };
            // SAFETY: no such library.
            unsafe { libc::dlopen(c"/nothing/here.so".as_ptr(), libc::RTLD_NOW) };
        });
        assert!(block.owned().iter().all(|word| *word != 0), "{:x?}", block.owned());
        block.end();
        assert!(block.owned().iter().all(|word| *word == 0), "{:x?}", block.owned());
        assert!(block.recycle());
        drop(Block::new());
        after.push(allocated().uordblks);
    }
    let (early, late) = (after[50..150].iter().min().unwrap(), after[300..].iter().min().unwrap());
    late.saturating_sub(*early)
}

#[test]
fn a_thread_that_ends_leaves_no_memory_behind() {
    let _libraries = libraries();
    // Other tests allocate meanwhile, but not for ever; a leak of one buffer by each thread would be 450 000 bytes or
    // more each time.
    let left = [(); 5].map(|()| left_behind());
    assert!(left.iter().any(|left| *left < 200_000), "{left:?}");
}

#[test]
fn malloc_is_the_os_threads() {
    thread::spawn(|| {
        let block = Block::new();
        let comes_back = |size: usize| {
            // SAFETY: any size may be asked for.
            let allocate = || unsafe { libc::malloc(size) };
            let outside = allocate();
            // SAFETY: allocated above.
            block.run(|| unsafe { libc::free(outside) });
            let again = allocate();
            // SAFETY: allocated above.
            unsafe { libc::free(again) };
            again.addr() == outside.addr()
        };
        // The cache gives what it got last. It may be full of one size, by what other tests have freed; a cache that is
        // not shared gives it never.
        let came_back = (100..1000).step_by(100).any(comes_back);
        assert!(came_back || cfg!(feature = "sanitizer"));
        block.end();
    })
    .join()
    .unwrap();
}

/// What destructors did, in order.
static LOG: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
/// The keys of [`values`].
static KEYS: Mutex<Vec<libc::pthread_key_t>> = Mutex::new(Vec::new());

/// Notes a value; sets the next smaller one again, for a value of several rounds.
unsafe extern "C" fn note(value: *mut c_void) {
    let (key, rounds) = (value.addr() / 100, value.addr() % 100);
    LOG.lock().unwrap().push((key, rounds));
    if rounds > 1 {
        let keys = KEYS.lock().unwrap();
        // SAFETY: the key lives.
        unsafe { libc::pthread_setspecific(keys[key], ptr::without_provenance(value.addr() - 1)) };
    }
}

/// Sets a value of each key; some destructors are to run in several rounds, one in more than there are.
fn values(count: usize) {
    for (index, key) in KEYS.lock().unwrap().iter().enumerate().take(count) {
        let rounds = match index {
            5 => 3,
            70 => 2,
            6 | 71 => 9,
            _ => 1,
        };
        // SAFETY: the key lives.
        unsafe { libc::pthread_setspecific(*key, ptr::without_provenance(index * 100 + rounds)) };
    }
}

#[test]
fn destructors_of_pthread_keys_run_as_in_an_os_thread() {
    const COUNT: usize = 120;
    for _ in 0..COUNT {
        let mut key = 0;
        // SAFETY: a place for the key.
        assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(note)) }, 0);
        KEYS.lock().unwrap().push(key);
    }
    for count in [1, 20, COUNT] {
        thread::spawn(move || values(count)).join().unwrap();
        let expected = std::mem::take(&mut *LOG.lock().unwrap());
        assert!(expected.len() >= count);
        let block = Block::new();
        block.run(|| values(count));
        block.end();
        assert_eq!(std::mem::take(&mut *LOG.lock().unwrap()), expected);
        assert!(block.recycle());
        block.run(|| {
            for key in KEYS.lock().unwrap().iter() {
                // SAFETY: the key lives.
                assert!(unsafe { libc::pthread_getspecific(*key) }.is_null());
            }
        });
    }
    for key in KEYS.lock().unwrap().drain(..) {
        // SAFETY: made above.
        unsafe { libc::pthread_key_delete(key) };
    }
}

#[test]
fn a_deleted_keys_values_are_not_the_next_keys() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C" fn call(_: *mut c_void) {
        // Relaxed: one OS thread.
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    let block = Block::new();
    let mut key = 0;
    // SAFETY: a place for the key.
    unsafe { libc::pthread_key_create(&raw mut key, Some(call)) };
    // SAFETY: the key lives.
    block.run(|| unsafe { libc::pthread_setspecific(key, ptr::without_provenance(1)) });
    // SAFETY: the key was made above.
    unsafe { libc::pthread_key_delete(key) };
    block.end();
    // Relaxed: one OS thread.
    assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    assert!(block.recycle());
}

#[test]
fn destructors_find_and_make_thread_locals() {
    thread_local! {
        static OUTER: Outer = const { Outer };
        static INNER: Inner = const { Inner };
    }
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    struct Outer;
    struct Inner;
    impl Drop for Outer {
        fn drop(&mut self) {
            assert_eq!(NUMBER.get(), 44);
            INNER.with(|_| ());
            // Relaxed: one OS thread.
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }
    impl Drop for Inner {
        fn drop(&mut self) {
            // Relaxed: one OS thread.
            ENDED.fetch_add(10, Ordering::Relaxed);
        }
    }
    let block = Block::new();
    block.run(|| {
        NUMBER.set(44);
        OUTER.with(|_| ());
    });
    block.end();
    // Relaxed: one OS thread.
    assert_eq!(ENDED.load(Ordering::Relaxed), 11);
}

#[test]
fn a_stack_is_told_to_those_who_ask_c() {
    let block = Block::new();
    // SAFETY: the block lives; nothing uses what it is told here as a stack.
    unsafe { block.layout.set_stack(block.pointer, 0x10_0000, 0x8000) };
    let (low, size) = block.run(|| {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: the function takes nothing.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: a place for the attributes (pthread_getattr_np(3)).
        assert_eq!(unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) }, 0);
        let (mut low, mut size) = (ptr::null_mut(), 0);
        // SAFETY: the attributes were filled.
        assert_eq!(unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut size) }, 0);
        // SAFETY: the same.
        unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
        (low.addr(), size)
    });
    assert_eq!((low, size), (0x10_0000, 0x8000));
    block.end();
}

#[test]
fn signals_find_a_whole_block_at_any_instruction() {
    static HITS: AtomicU32 = AtomicU32::new(0);
    static WRONG: AtomicU32 = AtomicU32::new(0);
    extern "C" fn hit(_: c_int) {
        let kept = errno();
        let number = NUMBER.get();
        // The number goes with the thread: 1 outside, 7 and more in the blocks.
        let wrong = if os_pointer() == 0 { number != 1 } else { number < 7 };
        // SAFETY: the function takes nothing; it may set errno, which is given back.
        unsafe { libc::getppid() };
        // Relaxed: numbers for the test, which reads them at the end.
        WRONG.fetch_add(u32::from(wrong), Ordering::Relaxed);
        HITS.fetch_add(1, Ordering::Relaxed);
        set_errno(kept);
    }
    let signal = libc::SIGRTMIN() + 5;
    // SAFETY: an async-signal-safe handler for a signal that no other test uses (sigaction(2)).
    unsafe { libc::signal(signal, hit as *const () as libc::sighandler_t) };
    NUMBER.set(1);
    let blocks = [Block::new(), Block::new()];
    let done = AtomicBool::new(false);
    // SAFETY: the function takes nothing.
    let target = unsafe { libc::pthread_self() } as usize;
    thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            // Relaxed: the count is read again and again.
            while HITS.load(Ordering::Relaxed) < 60_000 && begin.elapsed() < Duration::from_secs(20) {
                // SAFETY: the target waits for this thread before it ends (pthread_kill(3)).
                unsafe { libc::pthread_kill(target as libc::pthread_t, signal) };
            }
            // Release: pairs with the Acquire below.
            done.store(true, Ordering::Release);
        });
        let mut rounds = 0_u64;
        // Acquire: pairs with the Release above.
        while !done.load(Ordering::Acquire) {
            for (index, block) in blocks.iter().enumerate() {
                block.run(|| {
                    assert_eq!(NUMBER.replace(10 + index as u64), if rounds == 0 { 7 } else { 10 + index as u64 });
                    let text = black_box(format!("{rounds}"));
                    assert_eq!(text, rounds.to_string());
                });
            }
            rounds += 1;
        }
    });
    // Relaxed: the sender has ended.
    let (hits, wrong) = (HITS.load(Ordering::Relaxed), WRONG.load(Ordering::Relaxed));
    println!("{hits} signals");
    assert!(hits >= 1000, "{hits} signals only");
    assert_eq!(wrong, 0);
    // SAFETY: no signal of this number comes any more.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
    blocks.iter().for_each(Block::end);
}

#[test]
fn setuid_in_a_block_and_beside_one_comes_to_an_end() {
    let _alone = SETUID.lock().unwrap_or_else(PoisonError::into_inner);
    let done = AtomicBool::new(false);
    // SAFETY: the functions take nothing.
    let (user, group) = (unsafe { libc::getuid() }, unsafe { libc::getgid() });
    let change = || {
        // SAFETY: sets what is already so (setgid(2)).
        let group = unsafe { libc::setgid(group) };
        // SAFETY: the same (setuid(2)).
        group | unsafe { libc::setuid(user) }
    };
    let begin = Instant::now();
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            let block = Block::new();
            let mut rounds = 0;
            // Acquire: pairs with the Release below.
            while !done.load(Ordering::Acquire) {
                block.run(|| (0..1000).for_each(|number| NUMBER.set(black_box(number))));
                rounds += 1;
            }
            block.end();
            rounds
        });
        let block = Block::new();
        for _ in 0..200 {
            assert_eq!(block.run(change), 0, "in a block");
            assert_eq!(change(), 0, "beside one");
        }
        block.end();
        // Release: pairs with the Acquire above.
        done.store(true, Ordering::Release);
        println!("{} rounds beside it", running.join().unwrap());
    });
    println!("1000 calls in {:?}", begin.elapsed());
}

#[test]
fn a_fork_in_a_block_is_one_of_its_os_thread() {
    let block = Block::new();
    NUMBER.set(5);
    let marks = [0x5A5A_u64; 64];
    for _ in 0..5 {
        let status = block.run(|| {
            NUMBER.set(70);
            in_fork(|| {
                // SAFETY: takes a number; the signal ends a child that hangs (alarm(2)).
                unsafe { libc::alarm(30) };
                // What the C library knows of this OS thread is right: others can be started, with stacks of their own.
                // Two conditions of this test's binary: no other thread held a lock of malloc, which fork sees to, and
                // none of std's.
                let others: Vec<_> = (0..8).map(|_| thread::spawn(|| black_box([1_u8; 100_000])[77])).collect();
                let sum: usize = others.into_iter().map(|other| usize::from(other.join().unwrap())).sum();
                let own = NUMBER.get() == 70 && os_pointer() != 0;
                // SAFETY: the functions take nothing.
                let numbers = (unsafe { libc::getpid() }, unsafe { libc::gettid() });
                i32::from(sum == 8 && own && numbers.0 == numbers.1 && lock_owner() == numbers.1) * 7
            })
        });
        assert_eq!(status.code(), Some(7), "{status}");
        assert_eq!(black_box(marks), [0x5A5A_u64; 64]);
        block.run(|| assert_eq!(NUMBER.get(), 70));
        // SAFETY: the function takes nothing.
        assert_eq!(block.run(lock_owner), unsafe { libc::gettid() });
    }
    assert_eq!(NUMBER.get(), 5);
    block.end();
}

/// Returns the number that owns a lock which the calling thread takes.
fn lock_owner() -> c_int {
    let mut mutex = libc::PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    let mutex = &raw mut mutex;
    // SAFETY: a mutex that was initialised and is used by this thread only.
    unsafe { libc::pthread_mutex_lock(mutex) };
    // SAFETY: the third number of a mutex is the owner's (bits/struct_mutex.h).
    let [_, _, owner] = unsafe { mutex.cast::<[c_int; 3]>().read() };
    // SAFETY: locked above.
    unsafe { libc::pthread_mutex_unlock(mutex) };
    owner
}

#[test]
fn a_fork_that_fails_says_why_in_the_block() {
    let block = Block::new();
    set_errno(1);
    let error = block.run(|| {
        set_errno(0);
        // The handlers, and between them a system call that fails as the C library's does.
        guards::before_fork();
        set_errno(libc::EAGAIN);
        guards::after_fork();
        errno()
    });
    assert_eq!((error, errno()), (libc::EAGAIN, 1));
    block.end();
}

#[test]
fn a_command_of_std_runs_from_a_block() {
    use std::os::unix::process::CommandExt;
    let block = Block::new();
    block.run(|| {
        assert!(Command::new("true").status().unwrap().success());
        let output = Command::new("echo").arg("said").output().unwrap();
        assert_eq!(output.stdout, b"said\n");
        let mut forked = Command::new("true");
        // SAFETY: the closure does nothing.
        unsafe { forked.pre_exec(|| Ok(())) };
        assert!(forked.status().unwrap().success());
        // The emulator of the other processor lets such a child live.
        if cfg!(target_arch = "x86_64") {
            assert_eq!(Command::new("/nothing/here").status().unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    });
    block.end();
}

#[test]
fn a_library_that_comes_later_has_fresh_thread_locals() {
    let _libraries = libraries();
    let there = Block::new();
    // Large, so that it is not put into what blocks have free.
    let source = "__thread int counter = 500, more[5000]; int next(void) { return ++counter + more[77]; }";
    let Some(handle) = load("general", source) else { return };
    let next = function(handle, c"next");
    let new = Block::new();
    for (block, name) in [(&there, "there"), (&new, "new")] {
        assert_eq!(block.run(|| [next(), next()]), [501, 502], "{name}");
    }
    assert_eq!(next(), 501);
    assert_eq!(there.run(|| next()), 503);
    there.end();
    assert!(!there.recycle(), "made before the library came");
    new.end();
    assert!(!new.recycle(), "has thread-locals that were allocated");
    let other = Block::new();
    other.end();
    assert!(other.recycle(), "has not used the library");
    assert_eq!(other.run(|| next()), 501);
    drop(other);
    drop(new);
    close(handle);
    let last = Block::new();
    last.end();
    assert!(last.recycle());
}

/// With the feature monkey, dlopen fills blocks in, also when another test calls it.
const OTHERS_FILL: bool = cfg!(feature = "monkey");

/// Fills the blocks in for the library that has just come.
fn fill(layout: &Layout) {
    let filled = layout.fill().unwrap();
    assert!(filled == 1 || filled == 0 && OTHERS_FILL, "{filled}");
}

/// Loads a library of which the thread-locals lie in what blocks have free, and looks at blocks made before and after.
fn fill_in(name: &str, source: &str) {
    let _libraries = libraries();
    let (there, unused) = (Block::new(), Block::new());
    let Some(handle) = load(name, source) else { return };
    let next = function(handle, c"next");
    assert!(!there.recycle() || OTHERS_FILL, "made before the library came");
    fill(there.layout);
    assert_eq!(there.layout.fill().unwrap(), 0);
    assert_eq!(there.run(|| [next(), next()]), [4001, 4002]);
    assert_eq!(Block::new().run(|| next()), 4001);
    assert_eq!(next(), 4001);
    there.end();
    assert!(there.recycle());
    assert_eq!(there.run(|| next()), 4001);
    drop(there);
    close(handle);
    assert!(!unused.recycle(), "was filled in for a library that has gone");
}

#[test]
fn a_library_with_initial_exec_thread_locals_is_filled_in() {
    let model = "__attribute__((tls_model(\"initial-exec\")))";
    fill_in("initial", &format!("static __thread long counter {model} = 4000; int next(void) {{ return ++counter; }}"));
}

/// The odd size puts the next module at an address that is no multiple of a word.
#[test]
fn two_libraries_lie_side_by_side() {
    let model = "__attribute__((tls_model(\"initial-exec\")))";
    let source = |first: i32| {
        format!(
            "static __thread int counter {model} = {first}; static __thread char pad[5] {model} = \"abcd\";
            int next(void) {{ return ++counter + (pad[3] != 'd'); }}"
        )
    };
    let _libraries = libraries();
    let there = Block::new();
    let Some(first) = load("first", &source(100)) else { return };
    fill(there.layout);
    let one = function(first, c"next");
    assert_eq!(there.run(|| one()), 101);
    let Some(second) = load("second", &source(200)) else { return };
    fill(there.layout);
    let two = function(second, c"next");
    assert_eq!(there.run(|| [one(), two(), two(), one()]), [102, 201, 202, 103]);
    drop(there);
    close(second);
    close(first);
}

#[test]
fn each_reason_is_a_sentence_and_an_error_of_its_kind() {
    let error = io::Error::from(&Unsupported::NoFsgsbase);
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("Valgrind hides it"), "{error}");
}

/// Run by `.ci/run glibc`, under Valgrind.
#[test]
#[ignore = "for Valgrind"]
fn valgrind_is_told_why() {
    assert_eq!(layout().err(), Some(&Unsupported::NoFsgsbase));
}

/// Run by `.ci/run glibc`, with each C library: a process of its own, because it looks at the memory of the process.
#[test]
#[ignore = "alone in its process"]
fn a_million_threads_take_no_more_memory_than_ten_thousand() {
    let resident = || {
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
    };
    let mut block = Block::new();
    let mut early = 0;
    for round in 0..1_000_000 {
        block.run(|| {
            NUMBER.set(1);
            TEXTS.set(vec!["x".repeat(100)]);
            let map: HashMap<u32, u32> = HashMap::from([(1, 2)]);
            black_box(map);
            if round % 16 == 0 {
                // SAFETY: any number may be asked for.
                unsafe { libc::strerror(123_456) };
            }
        });
        block.end();
        assert!(block.recycle());
        if round % 64 == 0 {
            block = Block::new();
        }
        if round == 10_000 {
            early = resident();
        }
    }
    let late = resident();
    println!("{early} KiB after 10 000 threads, {late} KiB after 1 000 000");
    assert!(late < early + 300, "{early} KiB, then {late}");
}

#[test]
#[ignore = "figures, for people"]
fn costs() {
    let begin = Instant::now();
    let block = Block::new();
    println!("first layout and block: {:?}, of {} bytes", begin.elapsed(), block.layout.block_size());
    let time = |name: &str, count: u32, f: &mut dyn FnMut()| {
        let mut best = f64::MAX;
        for _ in 0..7 {
            let begin = Instant::now();
            for _ in 0..count {
                f();
            }
            best = best.min(begin.elapsed().as_nanos() as f64 / f64::from(count));
        }
        println!("{name}: {best:.1} ns");
    };
    time("recycle", 300_000, &mut || assert!(block.recycle()));
    time("create + destroy, with memory", 50_000, &mut || drop(Block::new()));
    // SAFETY: Invariant tls-tests-1.
    block.run(|| time("destructors, none", 1_000_000, &mut || unsafe { block.layout.run_destructors() }));
    time("with_thread_pointer", 1_000_000, &mut || block.run(|| ()));
    time("os_pointer", 1_000_000, &mut || assert_eq!(os_pointer(), 0));
    let many: Vec<Block> = (0..1000).map(|_| Block::new()).collect();
    let mut next = 0;
    time("recycle, 1000 in turn", 300_000, &mut || {
        assert!(many[next].recycle());
        next = (next + 1) % many.len();
    });
}
