//! Nothing is shared on the local path: a yield, a park, a spawn, an echo execute no instruction that locks the bus.
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
//! Instructions that lock are those with the prefix `lock`,
//! `xchg` with memory, and the fences, which are what an atomic read-modify-write or a sequentially consistent fence
//! becomes on x86-64.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::asm;
use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenling::net::{TcpListener, TcpStream};
use greenling::sync::{Mutex, Semaphore};
use greenling::{sleep, spawn, thread, timeout, yield_now};

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
}

/// Looks at the first bytes of an instruction. Prefixes come first, so its end need not be known.
fn kind_of(bytes: &[u8; 16]) -> Kind {
    let mut rest = bytes.iter().copied().skip_while(|byte| {
        matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 | 0xf3) || (0x40..=0x4f).contains(byte)
    });
    match (rest.next(), rest.next(), rest.next()) {
        (Some(0xcc), ..) => Kind::Mark,
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

/// Where the code of this program lies.
fn own_code() -> Vec<Range<usize>> {
    let program = std::env::current_exe().unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let own = |line: &&str| line.ends_with(program.to_str().unwrap()) && line.contains(" r-xp ");
    let range = |line: &str| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        usize::from_str_radix(from, 16).unwrap()..usize::from_str_radix(to, 16).unwrap()
    };
    maps.lines().filter(own).map(range).collect()
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

/// The number of instructions that `path` executes between its two marks, and the addresses of those of this program that
/// lock, relative to this function; `None` if this process may not trace, or is built with AddressSanitizer.
fn locks_of(path: fn()) -> Option<(u64, BTreeSet<i64>)> {
    if cfg!(feature = "sanitizer") {
        // Its run-time library is part of this program, and counts.
        return None;
    }
    let own = own_code();
    assert!(own.iter().any(|range| range.contains(&(locks_of as *const () as usize))));
    stay_on_one_core();
    // SAFETY: the child uses what fork leaves usable: glibc makes its allocator so, and this test holds no lock.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: the call takes a number. Should the path wait for ever, this ends the process.
        unsafe { libc::alarm(60) };
        let code = match ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => i32::from(std::panic::catch_unwind(path).is_err()),
            _ => NOT_ALLOWED,
        };
        // SAFETY: ends the process, which is this thread alone.
        unsafe { libc::_exit(code) };
    }
    let rip = std::mem::offset_of!(libc::user_regs_struct, rip);
    let (mut known, mut locks, mut steps, mut stepping) = (HashMap::new(), BTreeSet::new(), 0, false);
    loop {
        let status = wait(pid);
        if libc::WIFEXITED(status) {
            if libc::WEXITSTATUS(status) == NOT_ALLOWED {
                return None;
            }
            assert_eq!(libc::WEXITSTATUS(status), 0, "the path panicked");
            assert!(steps > 0, "no mark was met");
            return Some((steps, locks));
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
        let at = ptrace(libc::PTRACE_PEEKUSER, pid, rip, 0) as usize;
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
        if kind == Kind::Locks && own.iter().any(|range| range.contains(&at)) {
            locks.insert(at as i64 - locks_of as *const () as i64);
        }
        steps += 1;
        if steps > MOST {
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
    match locks_of(path) {
        None => eprintln!("skipped: ptrace is not allowed here, or this is a build with AddressSanitizer"),
        Some((steps, locks)) => {
            println!("{steps} instructions, {} of which lock", locks.len());
            assert!(locks.is_empty(), "instructions that lock, relative to `locks_of`: {locks:x?}");
        }
    }
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
    for plain in [&[0x48, 0x87, 0xc7][..], &[0x48, 0x8b, 0x07], &[0x0f, 0xae, 0x38], &[0xc3]] {
        assert!(kind(plain) == Kind::Plain, "{plain:x?}");
    }
    assert!(kind(&[0xcc]) == Kind::Mark);
}

#[test]
fn a_path_that_locks_is_found_out() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let found = locks_of(|| {
        mark();
        COUNT.fetch_add(1, Ordering::Relaxed);
        mark();
    });
    if let Some((_, locks)) = found {
        assert_eq!(locks.len(), 1);
    }
}

#[test]
fn a_yield_shares_nothing() {
    assert_shares_nothing(|| {
        let threads = [(); 3].map(|()| spawn(|| (0..300).for_each(|_| yield_now())));
        (0..100).for_each(|_| yield_now());
        mark();
        (0..25).for_each(|_| yield_now());
        mark();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn park_and_unpark_share_nothing() {
    assert_shares_nothing(|| {
        let partner = spawn(|| (0..85).for_each(|_| thread::park()));
        let handle = partner.thread().clone();
        let round = || {
            handle.unpark();
            yield_now();
        };
        (0..50).for_each(|_| round());
        mark();
        (0..35).for_each(|_| round());
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
        (0..8).for_each(|_| batch());
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
