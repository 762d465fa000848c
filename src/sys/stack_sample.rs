//! The stack of another OS thread, taken by a signal: which calls it is in, without stopping it for long.
//!
//! ```text
//!   ask: chooses a signal, installs on_sample ----- tgkill ----> the other OS thread, wherever it is
//!        state ASKED                                             on_sample, on the alternate stack: BUSY
//!        waits, at most ANSWER_TIME                                describe: which fiber runs, by the layer above
//!        reads the answer <----------------- DONE ---------------- walk: return addresses into the answer
//!        takes the handler away                                  goes on; a system call is restarted (SA_RESTART)
//! ```
//!
//! The walk is the unwinder's own, `_Unwind_Backtrace`, as in gperftools, folly and pprof. POSIX does not list it, but
//! it allocates nothing, and where the dynamic linker has _dl_find_object (glibc 2.35) it takes no lock; the lock of
//! older ones is recursive. Other ways: Go and the JVM walk with tables of their own compilers; frame pointers are
//! cheapest, but Rust does not keep them; a scan of the stack for return addresses shows calls that are long over. What
//! is left is that the tables may be wrong at the instruction that was interrupted, in assembly say, and send the
//! unwinder to memory that is not there. Such a fault ends the walk and nothing else: `recover` puts the context of
//! the signal in the place of the fault's, and the kernel goes on where the OS thread was interrupted.
//!
//! The signal is a real-time one with the default action that the OS thread has not blocked: if there is none, there
//! is no sample. A signal that was not answered in time may be pending, and would end the process under the default
//! action: then the handler stays, for ever (`KEPT`). When such a signal comes in the end, there may be a question to
//! another OS thread: only the one that is asked answers (`TARGET`).
//!
//! Invariant stack-sample-1: the answer is touched by the OS thread that moved the state from ASKED to BUSY until it
//! stores DONE, and else by the one that has the `Asker`. Upheld by `on_sample`, `recover` and `ask`.
//!
//! Invariant stack-sample-2: from the kernel's jump to `on_sample` until the return only async-signal-safe things
//! happen, as in sys-signal-1; the walk counts as such (above). Upheld by `on_sample` and by each `describe`.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::clock::monotonic_ns;
use super::fork::fork_generation;
use super::message::Message;
use super::os_thread;
use super::process::thread_id;

/// The greatest number of return addresses in a sample.
const MOST_FRAMES: usize = 64;

/// The frames of the handler itself that come first.
const OWN_FRAMES: usize = 16;

/// How much of the alternate stack must be free for a walk, in bytes.
const ROOM: usize = 8 * 1024;

/// How long an answer may take, in nanoseconds: an OS thread that runs answers at once, if it gets a processor.
const ANSWER_TIME: u64 = 500_000_000;

/// How often the asker looks whether the answer is there.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// The states of a sample.
mod state {
    /// Nothing is asked for.
    pub(super) const IDLE: u32 = 0;
    /// A signal is on its way.
    pub(super) const ASKED: u32 = 1;
    /// The handler has begun to answer.
    pub(super) const BUSY: u32 = 2;
    /// The answer is there.
    pub(super) const DONE: u32 = 3;
}

/// What the layer above says of the fiber that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// Whether that is main.
    pub(crate) main: bool,
    /// The number of live fibers, main not counted.
    pub(crate) live: usize,
    /// Where the fiber's stack ends, above: frames beyond are the runtime's. `usize::MAX` for main.
    pub(crate) stack_end: usize,
}

/// Says which fiber of hub `hub` runs on the calling OS thread, of which the stack pointer was this, and writes its
/// name; none if that hub is not here. Runs in a signal handler (Invariant stack-sample-2).
pub(crate) type Describe = fn(hub: u64, stack_pointer: usize, out: &mut Message) -> Option<Running>;

/// What an OS thread was doing when the signal came.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// What runs; none if the hub was not there any more.
    pub(crate) running: Option<Running>,
    /// The name of what runs.
    pub(crate) label: String,
    /// The interrupted instruction, and the calls that led there, each by the address of an instruction inside it.
    pub(crate) frames: Vec<usize>,
}

/// Why there is no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSample {
    /// All real-time signals are in use, or the OS thread has blocked those that are not.
    NoSignal,
    /// The OS thread is gone.
    Gone,
    /// The OS thread did not answer: it sleeps where no signal reaches it, or gets no processor.
    Silent,
}

/// What the handler leaves.
struct Answer {
    running: Option<Running>,
    label: Message,
    frames: [usize; MOST_FRAMES],
    len: usize,
}

/// The place of the answer (Invariant stack-sample-1).
struct Place(UnsafeCell<Answer>);

// SAFETY: Invariant stack-sample-1: one OS thread at a time touches it, and the state's Release and Acquire hand it on.
unsafe impl Sync for Place {}

/// The place of all answers, one after the other.
static ANSWER: Place =
    Place(UnsafeCell::new(Answer { running: None, label: Message::new(), frames: [0; MOST_FRAMES], len: 0 }));

/// Which step the sample is at.
static STATE: AtomicU32 = AtomicU32::new(state::IDLE);

/// The OS thread that is asked.
static TARGET: AtomicI32 = AtomicI32::new(0);

/// The signal that it is asked by.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// The hub that is asked for.
static HUB: AtomicU64 = AtomicU64::new(0);

/// The function that names what runs, as a [`Describe`].
static DESCRIBE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// The OS thread that walks, 0 for none.
static WALKER: AtomicI32 = AtomicI32::new(0);

/// The context of the signal under which it walks.
static INTERRUPTED: AtomicPtr<libc::ucontext_t> = AtomicPtr::new(ptr::null_mut());

/// The errno of what was interrupted.
static ERRNO: AtomicI32 = AtomicI32::new(0);

/// The signals that were not answered in time once, a bit for each: their handlers stay. Relaxed: one asker at a time.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// The asker, as one more than its process's count of forks; 0 while a sample may be taken.
static ASKER: AtomicU32 = AtomicU32::new(0);

/// The last asker, as in [`ASKER`]. Relaxed: only the asker touches it.
static LAST_ASKER: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    /// Calls `trace` for each frame of the running stack, up to the first result that is not 0.
    fn _Unwind_Backtrace(trace: extern "C" fn(*mut c_void, *mut c_void) -> c_int, data: *mut c_void) -> c_int;
    /// Returns the instruction of a frame, and stores whether it is to be executed next, and is no return address.
    fn _Unwind_GetIPInfo(context: *mut c_void, before: *mut c_int) -> usize;
    /// Returns the stack pointer of the caller of a frame.
    fn _Unwind_GetCFA(context: *mut c_void) -> usize;
}

/// The state of a walk.
struct Walk<'a> {
    /// Where the addresses go.
    answer: &'a mut Answer,
    /// The instruction that was interrupted.
    pc: usize,
    /// Whether the walk has passed it: before come the frames of the handler.
    inside: bool,
    /// The number of frames of the handler.
    own: usize,
    /// Where the fiber's stack ends.
    stack_end: usize,
}

/// Notes a frame. A callback of the unwinder's: 0 goes on, and anything else ends the walk.
extern "C" fn note_frame(context: *mut c_void, walk: *mut c_void) -> c_int {
    // SAFETY: `walk` passes its own struct, which nothing else uses meanwhile.
    let walk = unsafe { &mut *walk.cast::<Walk<'_>>() };
    let mut before = 0;
    // SAFETY: the unwinder's frame, and room for one int.
    let pc = unsafe { _Unwind_GetIPInfo(context, &raw mut before) };
    if !walk.inside {
        walk.inside = pc == walk.pc && before != 0;
        walk.own += 1;
        // The interrupted instruction was noted already.
        return c_int::from(walk.own > OWN_FRAMES);
    }
    if pc == 0 || walk.answer.len == MOST_FRAMES {
        return 1;
    }
    // A return address is behind the call; the call itself may be the last instruction of its line.
    walk.answer.frames[walk.answer.len] = if before != 0 { pc } else { pc - 1 };
    walk.answer.len += 1;
    // SAFETY: the unwinder's frame.
    let above = unsafe { _Unwind_GetCFA(context) };
    c_int::from(above >= walk.stack_end)
}

/// Returns the instruction that a signal has interrupted, and the stack pointer there.
fn interrupted_at(context: &libc::ucontext_t) -> (usize, usize) {
    let registers = &context.uc_mcontext;
    #[cfg(target_arch = "x86_64")]
    let [pc, sp] = [libc::REG_RIP, libc::REG_RSP].map(|register| registers.gregs[register as usize] as usize);
    #[cfg(target_arch = "aarch64")]
    let [pc, sp] = [registers.pc, registers.sp].map(|register| register as usize);
    (pc, sp)
}

/// Handles the signal: names what runs, and walks its stack.
extern "C" fn on_sample(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // A signal that comes too late finds no question, or another one. Relaxed: an OS thread that is asked sees that it
    // is, since the question came before the signal.
    if (TARGET.load(Ordering::Relaxed), SIGNAL.load(Ordering::Relaxed)) != (this_thread(), signal) {
        return;
    }
    // Acquire: pairs with the Release in `ask`, so the question is visible.
    let began = STATE.compare_exchange(state::ASKED, state::BUSY, Ordering::AcqRel, Ordering::Relaxed);
    if began.is_err() {
        return;
    }
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: with SA_SIGINFO the kernel passes the context, which lives until the handler returns (sigaction(2)).
    let interrupted = unsafe { &*context };
    // SAFETY: Invariant stack-sample-1: the state is BUSY, by this OS thread.
    let answer = unsafe { &mut *ANSWER.0.get() };
    answer.label = Message::new();
    // SAFETY: `ask` has stored a function of this type.
    let describe = unsafe { mem::transmute::<*mut c_void, Describe>(DESCRIBE.load(Ordering::Relaxed)) };
    let (pc, sp) = interrupted_at(interrupted);
    answer.running = describe(HUB.load(Ordering::Relaxed), sp, &mut answer.label);
    (answer.frames[0], answer.len) = (pc, 1);
    // How much room is left, on the alternate stack: the stack of a fiber may have none.
    let free = (&raw const pc).addr().wrapping_sub(interrupted.uc_stack.ss_sp.addr());
    let on_alternate = interrupted.uc_stack.ss_flags & libc::SS_DISABLE == 0 && free < interrupted.uc_stack.ss_size;
    if let Some(running) = answer.running
        && on_alternate
        && free >= ROOM
    {
        ERRNO.store(errno(), Ordering::Relaxed);
        INTERRUPTED.store(context, Ordering::Relaxed);
        // A fault from here on is `recover`'s. The handler of faults runs on this OS thread: order is all it needs.
        WALKER.store(this_thread(), Ordering::Release);
        let mut walk = Walk { answer, pc, inside: false, own: 0, stack_end: running.stack_end };
        // SAFETY: the callback takes what is passed to it (Invariant stack-sample-2).
        unsafe { _Unwind_Backtrace(note_frame, (&raw mut walk).cast()) };
        WALKER.store(0, Ordering::Release);
        set_errno(ERRNO.load(Ordering::Relaxed));
    }
    // Release: the answer is the asker's again.
    STATE.store(state::DONE, Ordering::Release);
}

/// Ends a walk of this OS thread that has met a fault: the OS thread goes on where the signal has interrupted it.
/// Returns false for any other fault. Runs in a handler of SIGSEGV and SIGBUS.
///
/// # Safety
/// `context` is the third argument of that handler.
pub(super) unsafe fn recover(context: *mut c_void) -> bool {
    let walker = WALKER.load(Ordering::Acquire);
    if walker == 0 || walker != this_thread() {
        return false;
    }
    // SAFETY: the caller's promise (sigaction(2)); the handler is the only user of the struct.
    let fault = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // SAFETY: the context of the signal's handler, which was left for good by the fault, and lies further up the
    // alternate stack, as what it refers to does.
    let signal = unsafe { &*INTERRUPTED.load(Ordering::Relaxed) };
    fault.uc_mcontext = signal.uc_mcontext;
    // The kernel's struct ends behind the first word of the signal mask.
    // SAFETY: a set of signals is larger than a word, and aligned as one.
    let mask = unsafe { (&raw const signal.uc_sigmask).cast::<u64>().read() };
    // SAFETY: as above.
    unsafe { (&raw mut fault.uc_sigmask).cast::<u64>().write(mask) };
    set_errno(ERRNO.load(Ordering::Relaxed));
    WALKER.store(0, Ordering::Release);
    // Release: what was noted so far is the asker's.
    STATE.store(state::DONE, Ordering::Release);
    true
}

/// The right to ask, until this is dropped.
struct Asker;

impl Asker {
    /// Waits for the right. That of a parent process, which was forked in the middle, means nothing in the child.
    fn wait() -> Asker {
        let mine = fork_generation().wrapping_add(1).max(1);
        let mut holder = 0;
        // Acquire: pairs with the Release of the drop, so the state is as the last asker has left it.
        while let Err(other) = ASKER.compare_exchange(holder, mine, Ordering::Acquire, Ordering::Relaxed) {
            holder = if other == mine { 0 } else { other };
            std::thread::sleep(LOOK_INTERVAL);
        }
        if LAST_ASKER.swap(mine, Ordering::Relaxed) != mine {
            // No OS thread of the parent is here to answer what it was asked.
            STATE.store(state::IDLE, Ordering::Relaxed);
        }
        Asker
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        ASKER.store(0, Ordering::Release);
    }
}

/// Asks OS thread `thread` of this process what it does: `describe` names what runs in hub `hub`.
pub(crate) fn ask(thread: i32, hub: u64, describe: Describe) -> Result<Sample, NoSample> {
    let _asker = Asker::wait();
    // An answer that came too late is for no asker any more. Acquire: pairs with the Release of its handler.
    let _ = STATE.compare_exchange(state::DONE, state::IDLE, Ordering::Acquire, Ordering::Relaxed);
    if STATE.load(Ordering::Acquire) != state::IDLE {
        // A handler has begun and was not seen to end yet.
        return Err(NoSample::Silent);
    }
    // The first walk of a process may look up symbols and load tables: not in the handler.
    prepare();
    let signal = take_signal(thread)?;
    TARGET.store(thread, Ordering::Relaxed);
    SIGNAL.store(signal, Ordering::Relaxed);
    HUB.store(hub, Ordering::Relaxed);
    DESCRIBE.store(describe as *mut c_void, Ordering::Relaxed);
    // Release: pairs with the Acquire in `on_sample`.
    STATE.store(state::ASKED, Ordering::Release);
    if !send(thread, signal) {
        // A signal from before may have been answered in the last moment.
        STATE.store(state::IDLE, Ordering::Relaxed);
        give_back(signal);
        return Err(NoSample::Gone);
    }
    if !is_answered() {
        KEPT.fetch_or(bit(signal), Ordering::Relaxed);
        return Err(NoSample::Silent);
    }
    // SAFETY: Invariant stack-sample-1: the state is DONE, and this is the asker.
    let answer = unsafe { &*ANSWER.0.get() };
    let sample = Sample {
        running: answer.running,
        label: String::from_utf8_lossy(answer.label.as_bytes()).into_owned(),
        frames: answer.frames[..answer.len].to_vec(),
    };
    STATE.store(state::IDLE, Ordering::Relaxed);
    give_back(signal);
    Ok(sample)
}

/// Waits for the answer. Returns false if the question was withdrawn, and if its handler does not end.
fn is_answered() -> bool {
    let began = monotonic_ns();
    // Acquire: pairs with the Release of the handler, so the answer is visible.
    while STATE.load(Ordering::Acquire) != state::DONE {
        let waited = monotonic_ns() - began;
        if waited > ANSWER_TIME {
            // A handler that has begun is waited for as long again.
            let back = STATE.compare_exchange(state::ASKED, state::IDLE, Ordering::Relaxed, Ordering::Relaxed);
            if back.is_ok() || back == Err(state::BUSY) && waited > 2 * ANSWER_TIME {
                return false;
            }
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    true
}

/// Returns the bit of a signal in a set.
fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Walks the stack of the caller, for what the unwinder does only once.
fn prepare() {
    extern "C" fn stop(_: *mut c_void, _: *mut c_void) -> c_int {
        1
    }
    // SAFETY: the callback uses neither argument.
    unsafe { _Unwind_Backtrace(stop, ptr::null_mut()) };
}

/// Chooses a signal that nothing uses and that `thread` has not blocked, and installs the handler.
fn take_signal(thread: i32) -> Result<c_int, NoSample> {
    let blocked = os_thread::blocked_signals(thread).ok_or(NoSample::Gone)?;
    let is_open = |signal: &c_int| blocked & bit(*signal) == 0;
    // From the end: programs count from the start.
    let mut signals = (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().filter(is_open);
    // The handler of a signal that was not answered once is still there.
    let kept = KEPT.load(Ordering::Relaxed);
    if let Some(signal) = signals.clone().find(|signal| kept & bit(*signal) != 0 && is_ours(*signal)) {
        return Ok(signal);
    }
    let free = |signal: &c_int| action(*signal, None).is_some_and(|old| is_default(&old));
    let signal = signals.find(free).ok_or(NoSample::NoSignal)?;
    let mut new = blank_action();
    new.sa_sigaction = on_sample as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the set is valid; the call fills it (sigfillset(3)).
    unsafe { libc::sigfillset(&raw mut new.sa_mask) };
    for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
        // SAFETY: a set that was filled above (sigdelset(3)).
        unsafe { libc::sigdelset(&raw mut new.sa_mask, fault) };
    }
    action(signal, Some(&new)).map(|_| signal).ok_or(NoSample::NoSignal)
}

/// Restores the default action of a signal that cannot be pending, unless the program has a handler for it by now.
fn give_back(signal: c_int) {
    if is_ours(signal) && KEPT.load(Ordering::Relaxed) & bit(signal) == 0 {
        action(signal, Some(&blank_action()));
    }
}

/// Reports whether the handler of `signal` is this file's.
fn is_ours(signal: c_int) -> bool {
    let ours = on_sample as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
    action(signal, None).is_some_and(|action| action.sa_sigaction == ours)
}

/// Reports whether `action` is the default one.
fn is_default(action: &libc::sigaction) -> bool {
    action.sa_sigaction == libc::SIG_DFL
}

/// Returns the default action, without flags.
fn blank_action() -> libc::sigaction {
    // SAFETY: all zeros is a valid sigaction: integers, an empty mask, no restorer; and SIG_DFL is 0 (sigaction(2)).
    unsafe { mem::zeroed() }
}

/// Sets the action of the process on `signal`, or only asks; returns the one before, unless the kernel refuses. Not
/// through the program's own `sigaction`, which with the feature `monkey` puts a mark around handlers.
fn action(signal: c_int, new: Option<&libc::sigaction>) -> Option<libc::sigaction> {
    #[cfg(feature = "monkey")]
    use super::raw::sigaction;
    #[cfg(not(feature = "monkey"))]
    use libc::sigaction;
    let mut old = blank_action();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: null or a caller's struct, and a local; the handler keeps Invariant stack-sample-2 (sigaction(2)).
    let result = unsafe { sigaction(signal, new, &raw mut old) };
    (result == 0).then_some(old)
}

/// Sends `signal` to OS thread `thread`. Returns false if it is gone.
fn send(thread: i32, signal: c_int) -> bool {
    // SAFETY: the call takes three integers (tgkill(2)).
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id() as c_int, thread, signal) == 0 }
}

/// Returns the number of this OS thread.
fn this_thread() -> i32 {
    thread_id().cast_signed()
}

/// Returns the errno of this OS thread.
fn errno() -> c_int {
    // SAFETY: the function returns the address of this OS thread's errno, and has no condition.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: that address is good as long as the OS thread runs.
    unsafe { *at }
}

/// Sets the errno of this OS thread.
fn set_errno(errno: c_int) {
    // SAFETY: as in `errno`.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: as in `errno`; nothing holds a reference to it.
    unsafe { *at = errno };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

    use super::super::signal;
    use super::*;
    use std::fmt::Write;

    /// Says that a fiber with many words on its stack runs.
    fn some_fiber(hub: u64, _: usize, out: &mut Message) -> Option<Running> {
        let _ = write!(out, "fiber of {hub}");
        Some(Running { main: false, live: 3, stack_end: usize::MAX })
    }

    /// Keeps the tests apart, which look at handlers of the process.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, again if the machine is too busy for an answer in time.
    fn ask_patiently(thread: i32) -> Result<Sample, NoSample> {
        let mut answers = std::iter::repeat_with(|| ask(thread, 7, some_fiber)).take(20);
        answers.find(|answer| !matches!(answer, Err(NoSample::Silent))).unwrap_or(Err(NoSample::Silent))
    }

    /// Ends what spins, also if a test panics.
    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Runs `f` with the number of an OS thread that spins in `spin` until `f` has returned.
    fn with_spinner<R>(spin: impl FnOnce(&AtomicBool) + Send, f: impl FnOnce(i32) -> R) -> R {
        signal::install(|_, _| false).unwrap();
        let stop = AtomicBool::new(false);
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _stack = signal::ensure_alt_stack().unwrap();
                tell.send(this_thread()).unwrap();
                spin(&stop);
            });
            let _stop = Stop(&stop);
            f(told.recv().unwrap())
        })
    }

    /// Spins, in a function with a name.
    #[inline(never)]
    fn spin_here(stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_sample_has_the_callers_of_what_runs_and_leaves_no_handler() {
        let _alone = alone();
        let near = |frame: &usize| frame.wrapping_sub(spin_here as *const () as usize) < 4096;
        let shows_all =
            |sample: &Sample| cfg!(feature = "sanitizer") || sample.frames.len() > 3 && sample.frames.iter().any(near);
        let has_handler = |signal: c_int| is_ours(signal) && KEPT.load(Ordering::Relaxed) & bit(signal) == 0;
        let samples = with_spinner(spin_here, |thread| {
            let mut samples = Vec::new();
            // The first may find the thread on its way to the function.
            while samples.len() < 1000 && !samples.last().is_some_and(shows_all) {
                samples.push(ask_patiently(thread).unwrap());
                assert!(!(libc::SIGRTMIN()..=libc::SIGRTMAX()).any(has_handler));
            }
            samples
        });
        for sample in &samples {
            assert_eq!((sample.label.as_str(), sample.running.map(|running| running.live)), ("fiber of 7", Some(3)));
        }
        assert!(samples.last().is_some_and(shows_all), "{:?}", samples.last());
    }

    #[test]
    fn a_thread_that_is_gone_or_takes_no_signals_is_told_from_others() {
        let _alone = alone();
        let gone = std::thread::spawn(this_thread).join().unwrap();
        // A join may return a moment before the kernel has forgotten the thread.
        while os_thread::blocked_signals(gone).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(ask(gone, 1, some_fiber).unwrap_err(), NoSample::Gone);
        let deaf = |stop: &AtomicBool| {
            let _blocked = super::super::signalfd::SignalSet::all().unwrap().block_only().unwrap();
            spin_here(stop);
        };
        let answer = with_spinner(deaf, |thread| {
            // Not before it has blocked them.
            while os_thread::blocked_signals(thread).is_some_and(|blocked| blocked & bit(libc::SIGTERM) == 0) {
                std::thread::yield_now();
            }
            ask(thread, 1, some_fiber)
        });
        assert_eq!(answer.unwrap_err(), NoSample::NoSignal);
    }

    #[test]
    fn a_signal_that_comes_late_ends_nothing_and_answers_for_no_other_thread() {
        let _alone = alone();
        // A signal was sent, and there was no answer in time.
        let signal = take_signal(this_thread()).unwrap();
        KEPT.fetch_or(bit(signal), Ordering::Relaxed);
        let late = |stop: &AtomicBool| {
            let all = super::super::signalfd::SignalSet::all().unwrap();
            let blocked = all.block_only().unwrap();
            spin_here(stop);
            // Here it comes.
            drop(blocked);
        };
        let sample = with_spinner(late, |other| {
            while os_thread::blocked_signals(other).is_some_and(|blocked| blocked & bit(signal) == 0) {
                std::thread::yield_now();
            }
            assert!(send(other, signal));
            let sample = with_spinner(spin_here, |thread| ask_patiently(thread).unwrap());
            assert!(is_ours(signal), "the handler must stay: the signal is pending");
            sample
        });
        assert_eq!(sample.label, "fiber of 7");
        // Nothing is pending any more.
        KEPT.fetch_and(!bit(signal), Ordering::Relaxed);
        give_back(signal);
    }

    #[test]
    fn an_answer_that_comes_late_spoils_no_later_one() {
        let _alone = alone();
        let sample = with_spinner(spin_here, |thread| {
            drop(ask_patiently(thread).unwrap());
            STATE.store(state::DONE, Ordering::Release);
            ask_patiently(thread)
        });
        assert_eq!(sample.unwrap().label, "fiber of 7");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_walk_that_faults_ends_and_the_thread_goes_on() {
        /// Spins until the byte at `stop` is set. Its tables say that the caller's frame is at `nowhere`.
        #[unsafe(naked)]
        unsafe extern "C" fn spin(nowhere: usize, stop: *const u8) {
            std::arch::naked_asm!(
                ".cfi_startproc",
                ".cfi_def_cfa rdi, 0",
                "2:",
                "pause",
                "cmp byte ptr [rsi], 0",
                "je 2b",
                "ret",
                ".cfi_endproc"
            );
        }
        let misled = |stop: &AtomicBool| {
            set_errno(77);
            // SAFETY: the byte lives until the call returns, and other threads set it whole.
            unsafe { spin(4096, stop.as_ptr().cast()) };
            assert_eq!(errno(), 77);
        };
        let _alone = alone();
        for _ in 0..10 {
            let sample = with_spinner(misled, |thread| ask_patiently(thread).unwrap());
            assert!(!sample.frames.is_empty(), "{sample:?}");
        }
    }
}
