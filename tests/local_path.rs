//! What runs on the local path, instruction by instruction. Nothing is shared: a yield, a park, a spawn, an echo execute no
//! instruction that locks the bus. And a wake-up returns through nothing: where each return goes to was to be predicted.
//!
//! ```text
//!   this process (the tracer)                      a fork of it (the tracee)
//!     wait  <------------------------- int3 ------   warmed up
//!     single step, look at the instruction  <---->   the path, one instruction after the other
//!     until it is an int3: let it run on             done
//! ```
//!
//! What a compiler inlines where does not matter to this, nor how the path is reached: every instruction of this program
//! that runs is looked at. Not those of libc: in a process with several OS threads its `recv` and `send` change a word of
//! the calling OS thread's own descriptor with two such instructions each, because they are points at which
//! `pthread_cancel` may strike.
//!
//! A processor predicts where a return goes to by a stack of its own, on which each call leaves its return address. A switch
//! changes the stack that the program returns by, but not that one. So whoever is switched to and then returns from a function
//! that was entered before the switch goes where the processor does not expect it, which costs as much as dozens of
//! instructions. This test keeps such a stack too, and compares. Calls that wait are inlined into their callers for this, and
//! in an optimised build nothing may be left of them to return from.
//!
//! Instructions that lock are those with the prefix `lock`,
//! `xchg` with memory, and the fences, which are what an atomic read-modify-write or a sequentially consistent fence
//! becomes on x86-64.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::asm;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};
use std::ops::Range;
use std::rc::Rc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenling::net::{TcpListener, TcpStream};
use greenling::sync::{Event, Mutex, Semaphore};
use greenling::{channel, sleep, spawn, thread, timeout, yield_now};

/// Exit code of a tracee that may not be traced.
const NOT_ALLOWED: i32 = 77;

/// Most instructions of a path: a few seconds.
const MOST: u64 = 5_000_000;

/// Where the watched part begins and ends.
#[inline(always)]
fn mark() {
    // SAFETY: the tracer waits for this trap and goes on behind it.
    unsafe { asm!("int3", options(nomem, nostack)) };
}

/// What an instruction is to this test.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Locks,
    Mark,
    Call,
    Return,
}

/// No fork while a verdict is spoken: in the middle of a panic, it would copy the lock under which that is printed, and nobody
/// would be there to unlock it.
static VERDICT: RwLock<()> = RwLock::new(());

/// What was met between two marks.
#[derive(Default)]
struct Walk {
    /// Instructions.
    steps: u64,
    /// The addresses of those of this program that lock, relative to `walk`.
    locks: BTreeSet<i64>,
    /// The addresses of returns to somewhere else than behind the last call that was not returned from; as above.
    surprises: BTreeMap<i64, u64>,
}

/// Looks at the first bytes of an instruction. Prefixes come first, so its end need not be known.
fn kind_of(bytes: &[u8; 16]) -> Kind {
    let mut rest = bytes.iter().copied().skip_while(|byte| {
        matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 | 0xf3) || (0x40..=0x4f).contains(byte)
    });
    match (rest.next(), rest.next(), rest.next()) {
        (Some(0xcc), ..) => Kind::Mark,
        (Some(0xe8), ..) => Kind::Call,
        // call by an operand: the digit in the middle of its byte says so.
        (Some(0xff), Some(operand), _) if operand & 0x38 == 0x10 => Kind::Call,
        (Some(0xc2 | 0xc3), ..) => Kind::Return,
        (Some(0xf0), ..) => Kind::Locks,
        // xchg; in its other form both sides are registers.
        (Some(0x86 | 0x87), Some(operands), _) if operands < 0xc0 => Kind::Locks,
        // lfence, mfence, sfence.
        (Some(0x0f), Some(0xae), Some(0xe8..)) => Kind::Locks,
        _ => Kind::Plain,
    }
}

/// One request to the tracee, with its answer.
fn ptrace(request: libc::c_uint, pid: libc::pid_t, address: usize, data: usize) -> i64 {
    // SAFETY: the requests used here pass numbers, and take addresses of the tracee only (ptrace(2)).
    unsafe { libc::ptrace(request, pid, address, data) }
}

/// Waits until the tracee stops or ends; its status.
fn wait(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a live place for the answer (waitpid(2)).
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    status
}

/// Where the code of a file lies that this process has mapped.
fn code_of(file: &str) -> Vec<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let own = |line: &&str| line.ends_with(file) && line.contains(" r-xp ");
    let range = |line: &str| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        usize::from_str_radix(from, 16).unwrap()..usize::from_str_radix(to, 16).unwrap()
    };
    maps.lines().filter(own).map(range).collect()
}

/// Runs the tracee until it comes to `address`, by a breakpoint of the processor's, which only this OS thread of the
/// tracee meets. Returns false, and nothing has run, if there are no such breakpoints here.
fn run_to(pid: libc::pid_t, address: usize) -> bool {
    let register = |number: usize| std::mem::offset_of!(libc::user, u_debugreg) + 8 * number;
    // Register 7 enables breakpoint 0, whose address is in register 0.
    if ptrace(libc::PTRACE_POKEUSER, pid, register(0), address) != 0
        || ptrace(libc::PTRACE_POKEUSER, pid, register(7), 1) != 0
    {
        return false;
    }
    let mut signal = 0;
    loop {
        ptrace(libc::PTRACE_CONT, pid, 0, signal as usize);
        let status = wait(pid);
        assert!(libc::WIFSTOPPED(status), "the tracee died in the kernel's code: {status:#x}");
        signal = libc::WSTOPSIG(status);
        if signal == libc::SIGTRAP {
            break;
        }
    }
    ptrace(libc::PTRACE_POKEUSER, pid, register(7), 0);
    true
}

/// Tracer and tracee take turns, so one core is enough, and changing between cores would take longer.
fn stay_on_one_core() {
    // SAFETY: a cpu_set_t is a plain bit set; all zeros is the empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call takes nothing (sched_getcpu(3)).
    let core = unsafe { libc::sched_getcpu() };
    // SAFETY: the kernel's number of a core is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(core as usize, &mut set) };
    // SAFETY: `set` is live and the size is its own. A refusal costs time only.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}

/// Puts this OS thread, and what it forks, before all that take turns by fair shares: tracer and tracee hand the core over
/// at each step, and behind a program that computes each of them would wait for milliseconds. A refusal costs time only.
fn become_urgent() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: `priority` is live for the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
}

/// How long a path may take, in seconds: a machine on which nothing is urgent and much else runs takes minutes.
const PATIENCE: u32 = 280;

/// What `path` executes between its two marks; `None` if this process may not trace, or is built with AddressSanitizer.
/// The code that the kernel maps into each process is run through: to read the clock, it begins again when the kernel has
/// changed the time meanwhile, and step by step on a busy machine that is always so. With `returns` it looks at them, too, and the hub polls after a number of turns alone: step by step each turn takes
/// milliseconds.
fn walk(path: fn(), returns: bool) -> Option<Walk> {
    if cfg!(feature = "sanitizer") {
        // Its run-time library is part of this program, and counts.
        return None;
    }
    let own = code_of(std::env::current_exe().unwrap().to_str().unwrap());
    let kernels = code_of("[vdso]");
    assert!(own.iter().any(|range| range.contains(&(walk as *const () as usize))));
    stay_on_one_core();
    become_urgent();
    let pid = {
        let _quiet = VERDICT.read();
        // SAFETY: the child uses what fork leaves usable: glibc makes its allocator so, and no test prints meanwhile.
        unsafe { libc::fork() }
    };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: the call takes a number. Should the path wait for ever, this ends the process.
        unsafe { libc::alarm(PATIENCE) };
        if returns {
            // SAFETY: this thread is the only one of the child.
            unsafe { std::env::set_var("GREENLING_QUANTUM", "off") };
        }
        let code = match ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => i32::from(std::panic::catch_unwind(path).is_err()),
            _ => NOT_ALLOWED,
        };
        // SAFETY: ends the process, which is this thread alone.
        unsafe { libc::_exit(code) };
    }
    let rip = std::mem::offset_of!(libc::user_regs_struct, rip);
    let rsp = std::mem::offset_of!(libc::user_regs_struct, rsp);
    let top_of_stack = || {
        let top = ptrace(libc::PTRACE_PEEKUSER, pid, rsp, 0) as usize;
        ptrace(libc::PTRACE_PEEKTEXT, pid, top, 0)
    };
    let (mut known, mut found, mut stepping) = (HashMap::new(), Walk::default(), false);
    let (mut calls, mut called) = (Vec::new(), false);
    loop {
        let status = wait(pid);
        if libc::WIFEXITED(status) {
            if libc::WEXITSTATUS(status) == NOT_ALLOWED {
                return None;
            }
            assert_eq!(libc::WEXITSTATUS(status), 0, "the path panicked");
            assert!(found.steps > 0, "no mark was met");
            return Some(found);
        }
        assert!(libc::WIFSTOPPED(status), "the tracee died: {status:#x}");
        let signal = libc::WSTOPSIG(status);
        if signal != libc::SIGTRAP {
            let request = if stepping { libc::PTRACE_SINGLESTEP } else { libc::PTRACE_CONT };
            ptrace(request, pid, 0, signal as usize);
            continue;
        }
        if !stepping {
            // The first mark, and the processor is behind it.
            ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_EXITKILL as usize);
            stepping = true;
        }
        let mut at = ptrace(libc::PTRACE_PEEKUSER, pid, rip, 0) as usize;
        if std::mem::take(&mut called) {
            calls.push(top_of_stack());
        }
        // At its first instruction, the return address is the top of the stack.
        if kernels.iter().any(|range| range.contains(&at)) {
            let back = top_of_stack() as usize;
            if run_to(pid, back) {
                calls.pop();
                at = back;
            }
        }
        let kind = *known.entry(at).or_insert_with(|| {
            let mut bytes = [0; 16];
            for half in [0, 8] {
                let word = ptrace(libc::PTRACE_PEEKTEXT, pid, at + half, 0);
                bytes[half..half + 8].copy_from_slice(&word.to_ne_bytes());
            }
            kind_of(&bytes)
        });
        if kind == Kind::Mark {
            ptrace(libc::PTRACE_POKEUSER, pid, rip, at + 1);
            ptrace(libc::PTRACE_CONT, pid, 0, 0);
            continue;
        }
        let relative = at as i64 - walk as *const () as i64;
        match kind {
            Kind::Locks if own.iter().any(|range| range.contains(&at)) => {
                found.locks.insert(relative);
            }
            // Each of these costs two more system calls, or four.
            Kind::Call => called = returns,
            // Returns from calls before the mark are not known.
            Kind::Return if returns && calls.pop().is_some_and(|expected| expected != top_of_stack()) => {
                *found.surprises.entry(relative).or_default() += 1;
            }
            _ => {}
        }
        found.steps += 1;
        if found.steps > MOST {
            // SAFETY: the child is ours and not waited for yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            panic!("more than {MOST} instructions");
        }
        ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0);
    }
}

/// Fails if `path` locks.
#[track_caller]
fn assert_shares_nothing(path: fn()) {
    match walk(path, false) {
        None => eprintln!("{SKIPPED}"),
        Some(Walk { steps, locks, .. }) => {
            println!("{steps} instructions, {} of which lock", locks.len());
            let _verdict = VERDICT.write();
            assert!(locks.is_empty(), "instructions that lock, relative to `walk`: {locks:x?}");
        }
    }
}

/// Why there is nothing to see.
const SKIPPED: &str = "skipped: ptrace is not allowed here, or this is a build with AddressSanitizer";

/// Fails if `path` returns to where the processor does not expect it. Where nothing is inlined it does.
#[track_caller]
fn assert_no_surprise(path: fn()) {
    if cfg!(debug_assertions) {
        return;
    }
    match walk(path, true) {
        None => eprintln!("{SKIPPED}"),
        Some(Walk { steps, surprises, .. }) => {
            println!("{steps} instructions");
            let _verdict = VERDICT.write();
            assert!(surprises.is_empty(), "returns that surprise, relative to `walk`, and how often: {surprises:x?}");
        }
    }
}

/// Runs `ping` in one thread a hundred times, of which the last ten are looked at, and `pong` in another one for ever: the
/// process ends with the path. Each of the two must be a closure of its own, or it is called, and returns.
fn take_turns(mut ping: impl FnMut() + 'static, mut pong: impl FnMut() + 'static) {
    let echo = spawn(move || {
        loop {
            pong();
        }
    });
    let driver = spawn(move || {
        for round in 0..100 {
            if round == 90 {
                mark();
            }
            ping();
        }
        mark();
        ping
    });
    let ping = driver.join();
    assert!(ping.is_ok());
    drop(echo);
}

/// Threads that keep the hub from falling asleep, where it would tell other OS threads so with a fence.
fn keep_awake() {
    drop(spawn(|| {
        loop {
            yield_now();
        }
    }));
}

#[test]
fn instructions_that_lock_are_told_from_those_that_do_not() {
    let kind = |bytes: &[u8]| {
        let mut all = [0x90; 16];
        all[..bytes.len()].copy_from_slice(bytes);
        kind_of(&all)
    };
    for locks in [
        &[0xf0, 0x48, 0xff, 0x00][..],   // lock incq (%rax)
        &[0x66, 0xf0, 0x0f, 0xb1, 0x0a], // lock cmpxchg %cx,(%rdx)
        &[0x48, 0x87, 0x07],             // xchg %rax,(%rdi)
        &[0x0f, 0xae, 0xf0],             // mfence
        &[0xf0, 0x83, 0x0c, 0x24, 0x00], // lock orl $0,(%rsp): a fence, too
    ] {
        assert!(kind(locks) == Kind::Locks, "{locks:x?}");
    }
    for plain in [&[0x48, 0x87, 0xc7][..], &[0x48, 0x8b, 0x07], &[0x0f, 0xae, 0x38], &[0xff, 0xe0]] {
        assert!(kind(plain) == Kind::Plain, "{plain:x?}");
    }
    for call in [&[0xe8, 0, 0, 0, 0][..], &[0xff, 0xd0], &[0x41, 0xff, 0x55, 0x10], &[0xff, 0x15, 0, 0, 0, 0]] {
        assert!(kind(call) == Kind::Call, "{call:x?}");
    }
    assert!(kind(&[0xc3]) == Kind::Return && kind(&[0xf3, 0xc3]) == Kind::Return);
    assert!(kind(&[0xcc]) == Kind::Mark);
}

#[test]
fn a_path_that_locks_is_found_out() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let found = walk(
        || {
            mark();
            COUNT.fetch_add(1, Ordering::Relaxed);
            mark();
        },
        false,
    );
    if let Some(walk) = found {
        assert_eq!(walk.locks.len(), 1);
    }
}

#[test]
fn a_yield_shares_nothing() {
    assert_shares_nothing(|| {
        let threads = [(); 3].map(|()| spawn(|| (0..300).for_each(|_| yield_now())));
        (0..100).for_each(|_| yield_now());
        mark();
        // Four turns each: more than `BUDGET` (61), so that the hub polls once.
        (0..17).for_each(|_| yield_now());
        mark();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn park_and_unpark_share_nothing() {
    assert_shares_nothing(|| {
        let partner = spawn(|| (0..82).for_each(|_| thread::park()));
        let handle = partner.thread().clone();
        let round = || {
            handle.unpark();
            yield_now();
        };
        (0..50).for_each(|_| round());
        mark();
        // Two turns each: more than `BUDGET`.
        (0..32).for_each(|_| round());
        mark();
        partner.join().unwrap();
    });
}

#[test]
fn spawn_and_join_share_nothing() {
    assert_shares_nothing(|| {
        let batch = || {
            let threads = [1, 2, 3, 4].map(|n| spawn(move || n * 2));
            threads.into_iter().for_each(|thread| assert!(thread.join().unwrap() > 0));
        };
        (0..8).for_each(|_| batch());
        mark();
        (0..4).for_each(|_| batch());
        mark();
    });
}

#[test]
fn locks_and_time_limits_share_nothing() {
    assert_shares_nothing(|| {
        keep_awake();
        let (mutex, semaphore) = (Rc::new(Mutex::new(0)), Rc::new(Semaphore::new(1)));
        let (theirs, permits) = (Rc::clone(&mutex), Rc::clone(&semaphore));
        let work = move |mutex: &Mutex<u64>, semaphore: &Semaphore| {
            for _ in 0..5 {
                let mut count = mutex.lock().unwrap();
                // The other one waits for the lock meanwhile.
                yield_now();
                *count += 1;
                drop(count);
                drop(semaphore.acquire());
                timeout(std::time::Duration::from_secs(60), yield_now).unwrap();
            }
        };
        let partner = spawn(move || (0..3).for_each(|_| work(&theirs, &permits)));
        work(&mutex, &semaphore);
        sleep(std::time::Duration::from_micros(100));
        mark();
        work(&mutex, &semaphore);
        sleep(std::time::Duration::from_micros(100));
        mark();
        partner.join().unwrap();
    });
}

#[test]
fn an_echo_shares_nothing() {
    assert_shares_nothing(|| {
        keep_awake();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let server = spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(n @ 1..) = stream.read(&mut bytes) {
                stream.write_all(&bytes[..n]).unwrap();
            }
        });
        let mut request = || {
            client.write_all(b"request").unwrap();
            client.read_exact(&mut [0; 7]).unwrap();
        };
        (0..20).for_each(|_| request());
        mark();
        (0..3).for_each(|_| request());
        mark();
        drop(client);
        server.join().unwrap();
    });
}

#[test]
fn a_return_through_a_frame_from_before_the_switch_is_found_out() {
    #[inline(never)]
    fn receive(from: &channel::Receiver<i32>) -> i32 {
        std::hint::black_box(from.recv().unwrap())
    }
    let found = walk(
        || {
            let (ping, pinged) = channel::bounded(1);
            let (pong, ponged) = channel::bounded(1);
            take_turns(
                move || {
                    ping.send(1).unwrap();
                    receive(&ponged);
                },
                move || pong.send(receive(&pinged)).unwrap(),
            );
        },
        true,
    );
    if let Some(walk) = found {
        assert!(!walk.surprises.is_empty());
    }
}

#[test]
fn an_unparked_thread_returns_through_nothing() {
    assert_no_surprise(|| {
        // Each learns by a channel who the other is.
        let (tell, told) = channel::bounded(2);
        let (mut other, mut partner) = (None, None);
        let (tell_too, told_too) = (tell.clone(), told.clone());
        take_turns(
            move || {
                let other = other.get_or_insert_with(|| {
                    tell.send(thread::current()).unwrap();
                    yield_now();
                    told.recv().unwrap()
                });
                thread::Thread::unpark(other);
                thread::park();
            },
            move || {
                let partner = partner.get_or_insert_with(|| {
                    let partner = told_too.recv().unwrap();
                    tell_too.send(thread::current()).unwrap();
                    partner
                });
                thread::park();
                thread::Thread::unpark(partner);
            },
        );
    });
}

#[test]
fn a_receiver_returns_through_nothing() {
    assert_no_surprise(|| {
        let (ping, pinged) = channel::bounded(1);
        let (pong, ponged) = channel::rendezvous();
        take_turns(
            move || {
                ping.send(1).unwrap();
                assert_eq!(ponged.recv(), Ok(2));
            },
            move || pong.send(pinged.recv().unwrap() + 1).unwrap(),
        );
    });
}

#[test]
fn a_sender_returns_through_nothing() {
    assert_no_surprise(|| {
        // Of a capacity of one, so that the sender waits for room each time.
        let (send, receive) = channel::bounded(1);
        take_turns(move || send.send(1).unwrap(), move || assert_eq!(receive.recv(), Ok(1)));
    });
}

/// Holds one, then the other, while others want them.
#[inline(always)]
fn hold_both(mutex: &Mutex<u64>, semaphore: &Semaphore) {
    let mut guard = mutex.lock().unwrap();
    yield_now();
    *guard += 1;
    drop(guard);
    let permit = semaphore.acquire();
    yield_now();
    drop(permit);
}

#[test]
fn a_waiter_that_is_handed_a_lock_or_a_permit_returns_through_nothing() {
    assert_no_surprise(|| {
        let (mutex, semaphore) = (Rc::new(Mutex::new(0)), Rc::new(Semaphore::new(1)));
        let (theirs, permits) = (Rc::clone(&mutex), Rc::clone(&semaphore));
        take_turns(move || hold_both(&mutex, &semaphore), move || hold_both(&theirs, &permits));
    });
}

#[test]
fn a_waiter_for_an_event_returns_through_nothing() {
    assert_no_surprise(|| {
        let (ping, pong) = (Rc::new(Event::auto_reset()), Rc::new(Event::auto_reset()));
        let (pinged, ponged) = (Rc::clone(&ping), Rc::clone(&pong));
        take_turns(
            move || {
                ping.set();
                ponged.wait();
            },
            move || {
                pinged.wait();
                pong.set();
            },
        );
    });
}
