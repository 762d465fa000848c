//! The stack-overflow report: SIGSEGV and SIGBUS on an alternate stack.
//!
//! ```text
//!   fault --> kernel --> on_fault, on the alternate stack of the thread
//!                            |
//!                            |-- classify(address) says "mine"  --> write the message to fd 2, abort
//!                            `-- any other                      --> the previous handler: std's,
//!                                                                   the program's, or the default
//! ```
//!
//! An overflow leaves no stack to run a handler on, hence the alternate one. Rust gives one to the main thread and to
//! each thread that Rust starts; a thread started by foreign code has none, and there the kernel kills the process
//! without a message. [`ensure_alt_stack`] helps.
//!
//! `std` reports overflows of its own threads in the same signals. The handler of `std` was installed first, so this
//! file's handler chains to that one, and the report of `std` stays as it is.
//!
//! Invariant sys-signal-1: from the kernel's jump to `on_fault` until the return only async-signal-safe things happen:
//! no lock, no allocation, no thread-local with a destructor (signal-safety(7)). Upheld by `on_fault` and by each
//! `classify`.
//!
//! Invariant sys-signal-2: `HANDLERS` is set before the kernel learns of `on_fault`, and never changes. Upheld by
//! [`install`].
//!
//! Rejected: to install in one step and store what `sigaction` returns as the previous action. A fault in between would
//! find nothing to chain to. Asking first leaves a gap too, in which another thread may install a handler that is then
//! forgotten; but that loses a foreign handler in a race at the start, not a report.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{io, mem, ptr};

use crate::pure::lock::{get_or_init, lock};

use super::cvt;
use super::message::Message;
use super::mmap::{Mapping, page_size};
use super::runtime_syscall::runtime_syscall;
use super::stack_sample;

/// The size of an alternate stack, without what the kernel saves there.
const ALT_STACK_LEN: usize = 64 * 1024;

/// The size of an alternate stack of other code that is kept. Those of AddressSanitizer have as much.
const ENOUGH: usize = 32 * 1024;

/// Reports whether a fault at the address is an overflow that the caller knows, and if so writes the report.
///
/// The function runs inside a signal handler, on a small stack (Invariant sys-signal-1): it reads what other code has
/// prepared, by atomic loads, formats numbers and strings into the `Message`, and does no more.
pub(crate) type Classify = fn(fault_addr: usize, out: &mut Message) -> bool;

/// The state that `on_fault` reads.
struct Handlers {
    /// The `classify` of the first call of [`install`].
    classify: Classify,
    /// The previous action for SIGSEGV.
    segv: libc::sigaction,
    /// The previous action for SIGBUS.
    bus: libc::sigaction,
}

/// The state that [`install`] sets once (Invariant sys-signal-2). A read is one atomic load.
static HANDLERS: OnceLock<Handlers> = OnceLock::new();

/// Handles SIGSEGV and SIGBUS of the whole process from now on. Further calls do nothing: the first `classify` stays.
///
/// On a fault for which `classify` returns true, the process writes the message to fd 2 and aborts. All other faults go
/// to the previous handlers, as these asked for (`SA_SIGINFO`, `sa_mask`, `SA_NODEFER`, `SA_RESETHAND`), except that
/// they run on the alternate stack.
///
/// # Errors
///
/// None on Linux as such; errors that a sandbox makes sigaction(2) return. The next call tries again.
pub(crate) fn install(classify: Classify) -> io::Result<()> {
    /// Whether both handlers are installed. The lock keeps a second caller from returning earlier.
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = lock(&DONE);
    if *done {
        return Ok(());
    }
    // Ask for the previous actions first: see the module's documentation.
    let (segv, bus) = (current_action(libc::SIGSEGV)?, current_action(libc::SIGBUS)?);
    let handlers = get_or_init(&HANDLERS, || Handlers { classify, segv, bus });
    take(libc::SIGSEGV, &handlers.segv)?;
    take(libc::SIGBUS, &handlers.bus)?;
    *done = true;
    Ok(())
}

/// Returns the action of the process on `signal`.
fn current_action(signal: libc::c_int) -> io::Result<libc::sigaction> {
    let mut action = default_action();
    // SAFETY: a null new action only asks; the kernel fills `action`, which outlives the call (sigaction(2)).
    cvt(unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) })?;
    Ok(action)
}

/// Makes `on_fault` the handler of `signal`.
fn take(signal: libc::c_int, previous: &libc::sigaction) -> io::Result<()> {
    let mut action = *previous;
    action.sa_sigaction = on_fault as *const () as usize;
    // The mask and these flags are for the previous handler, which may be called.
    action.sa_flags &= libc::SA_NODEFER | libc::SA_RESTART;
    action.sa_flags |= libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `on_fault` has the signature that SA_SIGINFO asks for, lives for ever, keeps Invariant
    // sys-signal-1, and finds `HANDLERS` set by Invariant sys-signal-2 (sigaction(2)).
    cvt(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    Ok(())
}

/// Returns the action `SIG_DFL`, without flags.
fn default_action() -> libc::sigaction {
    // SAFETY: all zeros is a valid sigaction: integers, an empty mask, no restorer; and SIG_DFL is 0 (sigaction(2)).
    unsafe { mem::zeroed() }
}

/// Handles SIGSEGV and SIGBUS.
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the context of the fault.
    if unsafe { stack_sample::recover(context) } {
        return;
    }
    // Always set, by Invariant sys-signal-2.
    let Some(handlers) = HANDLERS.get() else {
        return;
    };
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo that lives until the handler returns (sigaction(2)).
    let details = unsafe { &*info };
    // Codes up to 0 say that a process sent the signal: then a process id stands in the place of the address.
    let is_fault = details.si_code > 0;
    if is_fault {
        // SAFETY: a SIGSEGV or SIGBUS from the kernel has the address (sigaction(2)).
        let address = unsafe { details.si_addr() }.addr();
        let mut message = Message::new();
        if (handlers.classify)(address, &mut message) {
            write_stderr(message.as_bytes());
            // SAFETY: abort has no condition, and is async-signal-safe (signal-safety(7)).
            unsafe { libc::abort() };
        }
    }
    // Any other fault goes to the previous action.
    let previous = if signal == libc::SIGBUS { &handlers.bus } else { &handlers.segv };
    match previous.sa_sigaction {
        // The kernel ignores a signal that was sent, but takes the default action on a fault.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_IGN | libc::SIG_DFL => {
            reset(signal);
            if !is_fault {
                // A signal that was sent does not come again by itself. Blocked until the handler returns, then fatal.
                // SAFETY: raise takes no pointer, and is async-signal-safe (signal-safety(7)).
                unsafe { libc::raise(signal) };
            }
            // Else the instruction runs again, faults again, and the process dies by the default action.
        }
        handler => chain(handler, previous.sa_flags, signal, info, context),
    }
}

/// Calls the previous handler as the kernel would have.
fn chain(handler: usize, flags: libc::c_int, signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);
    type Plain = extern "C" fn(libc::c_int);

    /// Whether a handler that asked to be called once was called, by signal.
    static USED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

    // The kernel would have reset the action when it called such a handler.
    let is_once = flags & libc::SA_RESETHAND != 0;
    if is_once && USED[usize::from(signal == libc::SIGBUS)].swap(true, Ordering::Relaxed) {
        return reset(signal);
    }
    let handler = ptr::with_exposed_provenance::<()>(handler);
    if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the program installed the handler with SA_SIGINFO, hence with this signature (sigaction(2)).
        let handler = unsafe { mem::transmute::<*const (), WithInfo>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: the same, without SA_SIGINFO.
        let handler = unsafe { mem::transmute::<*const (), Plain>(handler) };
        handler(signal);
    }
}

/// Gives `signal` its default action.
fn reset(signal: libc::c_int) {
    let action = default_action();
    // SAFETY: the default action is valid, and sigaction is async-signal-safe (signal-safety(7)).
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}

/// Writes `text` to fd 2, up to the first error.
pub(crate) fn write_stderr(mut text: &[u8]) {
    while !text.is_empty() {
        // SAFETY: the kernel reads at most `text.len()` bytes of `text`; write is async-signal-safe (signal-safety(7)).
        // Fd 2 is closed or not: a report that goes nowhere is no worse than none.
        match super::cvt_len(unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) }) {
            Ok(0) => return,
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Writes `text` to fd 2, up to the first error. If the open file does not block and is full, waits for room at most
/// for `patience` each time. Not for signal handlers.
pub(crate) fn write_stderr_within(mut text: &[u8], patience: Duration) {
    let _mark = runtime_syscall();
    while !text.is_empty() {
        // SAFETY: as in `write_stderr`.
        match super::cvt_len(unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) }) {
            Ok(0) => return,
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && has_room(patience) => {}
            Err(_) => return,
        }
    }
}

/// Waits until fd 2 takes bytes, or has an error to tell; returns false if `patience` is over first.
fn has_room(patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut entry = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
        let millis = c_int::try_from(left.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the kernel reads and writes one entry, which lives until the call returns (poll(2)).
        match cvt(unsafe { libc::poll(&raw mut entry, 1, millis) }) {
            Ok(ready) => return ready > 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// The alternate stack of one thread, if [`ensure_alt_stack`] had to make one. Dropping the value removes the stack.
///
/// Invariant sys-signal-3: while the value lives, the kernel may run a handler on the mapping. So the mapping is
/// unmapped only after the thread has no such alternate stack any more. Upheld by Drop, on the same thread, since a
/// `Mapping` is not `Send`.
#[derive(Debug)]
pub(crate) struct AltStack(
    /// A guard page, and the stack above; and what the thread had before. `None` if that was large enough.
    Option<(Mapping, libc::stack_t)>,
);

/// Gives this thread a stack to run fault handlers on, if it has none, or one of a few KiB as `std`'s are: the walk of
/// `stack_sample` needs more. Keep the result while the thread may overflow.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn ensure_alt_stack() -> io::Result<AltStack> {
    let before = current_alt_stack()?;
    if before.ss_flags & libc::SS_DISABLE == 0 && before.ss_size >= ENOUGH {
        return Ok(AltStack(None));
    }
    // Beside that, room for the registers that the kernel saves: some KiB, or 0 where the kernel does not say.
    // SAFETY: getauxval takes no pointer (getauxval(3)).
    let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    let page = page_size();
    let mapping = Mapping::reserve(page + ALT_STACK_LEN + frame)?;
    // SAFETY: the mapping is new: nothing uses the page, and the handler's stack begins above the guard.
    unsafe { mapping.guard_as_usual(0, page) }.map_err(|(_, error)| error)?;
    // SAFETY: the mapping is longer than a page.
    let base = unsafe { mapping.base().add(page) };
    let stack = libc::stack_t { ss_sp: base.as_ptr().cast(), ss_flags: 0, ss_size: mapping.len() - page };
    // SAFETY: Invariant sys-signal-3: the memory stays mapped as long as the kernel knows the address (sigaltstack(2)).
    cvt(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) })?;
    Ok(AltStack(Some((mapping, before))))
}

/// Returns the alternate stack of this thread.
fn current_alt_stack() -> io::Result<libc::stack_t> {
    let mut stack = no_stack();
    // SAFETY: a null new stack only asks; the kernel fills `stack`, which outlives the call (sigaltstack(2)).
    cvt(unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) })?;
    Ok(stack)
}

/// Returns the value that says that there is no alternate stack.
fn no_stack() -> libc::stack_t {
    libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let Some((mapping, before)) = self.0.take() else { return };
        let is_ours = |stack: libc::stack_t| mapping.contains(stack.ss_sp.addr());
        match current_alt_stack().map(is_ours) {
            // Other code has installed another stack, which stays.
            Ok(false) => {}
            Ok(true) => {
                // Code that takes the stack of before away has told the kernel, and then `ours` is not there now.
                let before = if before.ss_flags & libc::SS_DISABLE == 0 { before } else { no_stack() };
                // SAFETY: to have none is always valid, and the one before is there as long as its owner has not
                // changed what the kernel knows (sigaltstack(2)).
                if cvt(unsafe { libc::sigaltstack(&raw const before, ptr::null_mut()) }).is_err() {
                    // The thread runs on that stack (EPERM), so the stack must stay mapped (Invariant sys-signal-3).
                    mapping.leak();
                }
            }
            // The kernel does not say, so the mapping stays (Invariant sys-signal-3).
            Err(_) => mapping.leak(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::MESSAGE_LEN;
    use super::super::mmap::guard_kind;
    use super::super::testing::in_new_process;
    use super::*;
    use std::fmt::Write;
    use std::hint::black_box;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Output;
    use std::sync::atomic::AtomicUsize;

    /// The address of the page that `mine` takes for a guard.
    static GUARD: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Reports whether the address is in the page at `GUARD`.
    fn mine(address: usize, out: &mut Message) -> bool {
        let inside = address.wrapping_sub(GUARD.load(Ordering::Relaxed)) < page_size();
        if inside {
            let name = "worker";
            let _ = writeln!(out, "green thread '{name}' #{} overflowed its stack of {} KiB", 7, 256);
        }
        inside
    }

    /// Makes a mapping that is never unmapped, with a guard at the start.
    fn guarded(len: usize) -> usize {
        let mapping = Mapping::reserve(len).unwrap();
        // SAFETY: only the tests know the mapping, and they touch the guard to fault.
        unsafe { mapping.guard(0, page_size(), guard_kind()) }.unwrap();
        let base = mapping.base().as_ptr().expose_provenance();
        mapping.leak();
        base
    }

    /// Writes to an address, to fault there.
    fn poke(address: usize) {
        let byte = ptr::with_exposed_provenance_mut::<u8>(address);
        // SAFETY: the address is in a guard page of `guarded` or in none, so the write ends in the handler.
        unsafe { byte.write_volatile(1) };
    }

    /// Recurses until the stack overflows.
    #[expect(unconditional_recursion, reason = "it ends at the guard")]
    fn overflow(depth: usize) -> usize {
        let frame = black_box([depth; 64]);
        overflow(frame[7] + 1) + frame[9]
    }

    /// Returns the bytes that the process wrote to fd 2.
    fn stderr(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Reports whether the report of this file came.
    fn is_reported(output: &Output) -> bool {
        stderr(output).contains("green thread 'worker' #7 overflowed its stack of 256 KiB\n")
    }

    /// Sets the action of SIGSEGV that comes before this file's.
    fn set_segv(handler: usize, flags: libc::c_int) {
        let mut action = default_action();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        // SAFETY: the tests pass SIG_DFL, SIG_IGN or a function of the signature that `flags` names (sigaction(2)).
        cvt(unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()) }).unwrap();
    }

    /// Ends the process with 42 after a handler with three arguments got what a fault at 0x1230 brings.
    extern "C" fn exit_42(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: `info` is what the kernel passed.
        let details = unsafe { &*info };
        // SAFETY: the signal is from the kernel.
        let address = unsafe { details.si_addr() }.addr();
        let is_right = signal == libc::SIGSEGV && address == 0x1230 && !context.is_null();
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(if is_right { 42 } else { 1 }) };
    }

    /// Ends the process with 43 after a handler with one argument got the signal.
    extern "C" fn exit_43(signal: libc::c_int) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(if signal == libc::SIGSEGV { 43 } else { 1 }) };
    }

    /// Returns from the first call; so the fault comes again, and by the default action.
    extern "C" fn note_and_return(_: libc::c_int) {
        write_stderr(b"noted\n");
    }

    /// Sends SIGSEGV to this thread.
    fn send_segv() {
        // SAFETY: raise takes no pointer.
        cvt(unsafe { libc::raise(libc::SIGSEGV) }).unwrap();
    }

    #[test]
    fn a_message_is_cut_at_its_end_and_says_so() {
        let mut message = Message::new();
        write!(message, "{}", 12).unwrap();
        assert_eq!(message.as_bytes(), b"12");
        assert!(write!(message, "{:2000}", 1).is_err());
        assert_eq!(message.as_bytes().len(), MESSAGE_LEN);
        assert!(message.write_str("x").is_err());
        assert!(message.write_str("").is_ok());
    }

    #[test]
    fn a_known_fault_is_reported_and_aborts() {
        let output = in_new_process("sys::signal::tests::a_known_fault_is_reported_and_aborts", || {
            let base = guarded(4 * page_size());
            GUARD.store(base, Ordering::Relaxed);
            install(mine).unwrap();
            install(|_, _| false).unwrap(); // The first `classify` stays.
            poke(base + 100);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", stderr(&output));
        assert!(is_reported(&output));
    }

    #[test]
    fn any_other_fault_kills_as_without_the_handler() {
        if cfg!(feature = "sanitizer") {
            // AddressSanitizer was installed first, and a fault that is chained to it ends in the sanitizer's report.
            return;
        }
        let output = in_new_process("sys::signal::tests::any_other_fault_kills_as_without_the_handler", || {
            install(mine).unwrap();
            poke(0x1230);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
        assert!(!is_reported(&output));
    }

    #[test]
    fn std_still_reports_the_overflow_of_its_own_threads() {
        if cfg!(feature = "sanitizer") {
            // AddressSanitizer was installed first, and a fault that is chained to it ends in the sanitizer's report.
            return;
        }
        let output = in_new_process("sys::signal::tests::std_still_reports_the_overflow_of_its_own_threads", || {
            install(mine).unwrap();
            let thread = std::thread::Builder::new().name("rusty".into()).stack_size(64 * 1024);
            let _ = thread.spawn(|| overflow(0)).unwrap().join();
        });
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", stderr(&output));
        assert!(stderr(&output).contains("rusty") && stderr(&output).contains("has overflowed its stack"));
    }

    #[test]
    fn a_handler_with_details_gets_them_unchanged() {
        let output = in_new_process("sys::signal::tests::a_handler_with_details_gets_them_unchanged", || {
            set_segv(exit_42 as *const () as usize, libc::SA_SIGINFO);
            install(mine).unwrap();
            poke(0x1230);
        });
        assert_eq!(output.status.code(), Some(42));
    }

    #[test]
    fn a_plain_handler_gets_the_signal() {
        let output = in_new_process("sys::signal::tests::a_plain_handler_gets_the_signal", || {
            set_segv(exit_43 as *const () as usize, 0);
            install(mine).unwrap();
            poke(0x1230);
        });
        assert_eq!(output.status.code(), Some(43));
    }

    #[test]
    fn a_handler_for_one_fault_gets_one() {
        let output = in_new_process("sys::signal::tests::a_handler_for_one_fault_gets_one", || {
            set_segv(note_and_return as *const () as usize, libc::SA_RESETHAND);
            install(mine).unwrap();
            poke(0x1230);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
        assert_eq!(stderr(&output).matches("noted\n").count(), 1);
    }

    #[test]
    fn a_default_or_ignored_fault_kills() {
        let output = in_new_process("sys::signal::tests::a_default_or_ignored_fault_kills", || {
            set_segv(libc::SIG_IGN, 0);
            install(mine).unwrap();
            send_segv(); // Sent and ignored: the process goes on, to a fault that cannot be ignored.
            write_stderr(b"still here\n");
            poke(0x1230);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
        assert!(stderr(&output).contains("still here"));
    }

    #[test]
    fn a_sent_signal_is_no_fault_and_still_kills() {
        let output = in_new_process("sys::signal::tests::a_sent_signal_is_no_fault_and_still_kills", || {
            set_segv(libc::SIG_DFL, 0);
            // A `classify` that would accept any address, if it were called.
            install(|_, _| true).unwrap();
            send_segv();
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
    }

    /// Runs `body` on a thread that Rust did not start, with a stack of `len` bytes from `base` on.
    fn on_foreign_thread(base: usize, len: usize, body: extern "C" fn(*mut c_void) -> *mut c_void) {
        // SAFETY: all zeros is a valid struct, which pthread_attr_init fills.
        let mut attr = unsafe { mem::zeroed::<libc::pthread_attr_t>() };
        // SAFETY: `attr` lives until the call returns.
        assert_eq!(unsafe { libc::pthread_attr_init(&raw mut attr) }, 0);
        // SAFETY: the tests pass a leaked mapping, which nothing else uses.
        let result = unsafe { libc::pthread_attr_setstack(&raw mut attr, ptr::with_exposed_provenance_mut(base), len) };
        assert_eq!(result, 0);
        let mut thread = 0;
        // SAFETY: `attr` is initialised, and `body` accepts the null argument.
        let result = unsafe { libc::pthread_create(&raw mut thread, &raw const attr, body, ptr::null_mut()) };
        assert_eq!(result, 0);
        // SAFETY: this test has started the thread and joins it once.
        assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
    }

    /// Checks that a thread without an alternate stack gets one that goes again, and a thread with one keeps that.
    extern "C" fn comes_and_goes(_: *mut c_void) -> *mut c_void {
        let is_disabled = || current_alt_stack().unwrap().ss_flags & libc::SS_DISABLE != 0;
        assert!(is_disabled());
        let ours = ensure_alt_stack().unwrap();
        assert!(ours.0.is_some() && !is_disabled());
        assert!(current_alt_stack().unwrap().ss_size >= ALT_STACK_LEN);
        let second = ensure_alt_stack().unwrap();
        assert!(second.0.is_none());
        drop(second);
        assert!(!is_disabled());
        drop(ours);
        assert!(is_disabled());
        ptr::null_mut()
    }

    /// Overflows the stack of a foreign thread.
    extern "C" fn overflows(_: *mut c_void) -> *mut c_void {
        let _keep = ensure_alt_stack().unwrap();
        ptr::without_provenance_mut(overflow(0))
    }

    #[test]
    fn a_foreign_thread_has_an_alternate_stack_as_long_as_it_keeps_it() {
        if cfg!(feature = "sanitizer") {
            // AddressSanitizer gives an alternate stack to every thread.
            return;
        }
        on_foreign_thread(guarded(1 << 20), 1 << 20, comes_and_goes);
    }

    #[test]
    fn a_rust_thread_has_its_own_again() {
        std::thread::spawn(|| {
            let before = current_alt_stack().unwrap();
            drop(ensure_alt_stack().unwrap());
            let after = current_alt_stack().unwrap();
            assert_eq!((before.ss_sp, before.ss_flags), (after.ss_sp, after.ss_flags));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_overflow_of_a_foreign_thread_is_reported() {
        let output = in_new_process("sys::signal::tests::the_overflow_of_a_foreign_thread_is_reported", || {
            let base = guarded(1 << 20);
            GUARD.store(base, Ordering::Relaxed);
            install(mine).unwrap();
            on_foreign_thread(base, 1 << 20, overflows);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", stderr(&output));
        assert!(is_reported(&output));
    }
}
