//! The stack-overflow report: SIGSEGV and SIGBUS on an alternate stack.
//!
//! ```text
//!   fault --> kernel --> on_fault, on the alternate stack of the thread
//!                            |
//!                            |-- classify(address) says "mine"  --> write the message to fd 2, abort
//!                            `-- any other                      --> what was there before: std's handler,
//!                                                                   the program's, or the default
//! ```
//!
//! An overflow leaves no stack to run a handler on, hence the alternate one. Rust gives one to its main thread and to
//! each thread it starts; a thread started by foreign code has none, and there the kernel kills the process without a
//! word. [`ensure_alt_stack`] helps.
//!
//! `std` reports overflows of its own threads in the same signals. It was there first, so it is what we chain to, and
//! its report stays as it is.
//!
//! Invariant H1: from the kernel's jump to `on_fault` until its end only async-signal-safe things happen: no lock, no
//! allocation, no thread-local with a destructor (signal-safety(7)). `on_fault` upholds it, and whoever writes a
//! `classify` does.
//!
//! Invariant H2: `HANDLERS` is set before the kernel learns of `on_fault`, and never changes. [`install`] upholds it.
//!
//! Rejected: to install in one step and store what `sigaction` returns as the previous action. A fault in between
//! would find nothing to chain to. Asking first leaves a gap too, in which another thread may install a handler that we
//! then forget; but that loses a foreign handler in a race at the start, not a report.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::{fmt, io, mem, ptr};

use super::cvt;
use super::mmap::{Mapping, page_size};

/// Room for one report. An alternate stack of `std` is 8 KiB, and this lies on it.
const MESSAGE_LEN: usize = 1024;

/// What a handler needs on an alternate stack, beside what the kernel puts there.
const ALT_STACK_LEN: usize = 64 * 1024;

/// A text of at most 1 KiB, written without an allocation. What does not fit is cut off.
pub(crate) struct Message {
    /// The text, from the start on.
    text: [u8; MESSAGE_LEN],
    /// How many bytes of `text` are written.
    len: usize,
}

impl Message {
    /// An empty text.
    pub(crate) const fn new() -> Message {
        Message { text: [0; MESSAGE_LEN], len: 0 }
    }

    /// What was written so far.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

impl fmt::Write for Message {
    /// Appends `text`; an error says that its end was cut off.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = &mut self.text[self.len..];
        let fits = text.len().min(free.len());
        free[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?})", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// Says whether a fault at the address is an overflow that the caller knows, and if so writes the report.
///
/// It runs inside a signal handler, on a small stack (Invariant H1): it reads what other code has prepared, by atomic
/// loads, and does no more. In `Message`, only formatting of numbers and strings.
pub(crate) type Classify = fn(fault_addr: usize, out: &mut Message) -> bool;

/// What `on_fault` needs to know.
struct Handlers {
    /// The first caller's judgement.
    classify: Classify,
    /// The action for SIGSEGV before ours.
    segv: libc::sigaction,
    /// The action for SIGBUS before ours.
    bus: libc::sigaction,
}

/// Set once by [`install`] (Invariant H2). Reading it is one atomic load.
static HANDLERS: OnceLock<Handlers> = OnceLock::new();

/// Takes SIGSEGV and SIGBUS for the whole process. Further calls do nothing: the first `classify` stays.
///
/// On a fault for which `classify` returns true, the process writes the message to fd 2 and aborts. All else goes to
/// the handlers that were there, in the way they asked for (`SA_SIGINFO`, `sa_mask`, `SA_NODEFER`, `SA_RESETHAND`),
/// except that they run on the alternate stack.
///
/// # Errors
///
/// None on Linux as such; what a sandbox makes of sigaction(2). The next call tries again.
pub(crate) fn install(classify: Classify) -> io::Result<()> {
    /// Whether both signals are ours. The lock keeps a second caller from returning before that.
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if *done {
        return Ok(());
    }
    let (segv, bus) = (current_action(libc::SIGSEGV)?, current_action(libc::SIGBUS)?);
    let handlers = HANDLERS.get_or_init(|| Handlers { classify, segv, bus });
    take(libc::SIGSEGV, &handlers.segv)?;
    take(libc::SIGBUS, &handlers.bus)?;
    *done = true;
    Ok(())
}

/// What the process does on `signal`.
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
    // The mask and these flags shape the world that the previous handler runs in, so they stay.
    action.sa_flags &= libc::SA_NODEFER | libc::SA_RESTART;
    action.sa_flags |= libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `on_fault` has the signature that SA_SIGINFO asks for, lives for ever, and keeps Invariant H1;
    // Invariant H2: it finds `HANDLERS` set (sigaction(2)).
    cvt(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    Ok(())
}

/// `SIG_DFL` with nothing else.
fn default_action() -> libc::sigaction {
    // SAFETY: all zeros is a valid sigaction: integers, an empty mask, no restorer; and SIG_DFL is 0 (sigaction(2)).
    unsafe { mem::zeroed() }
}

/// The handler.
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // Invariant H2: there always are some.
    let Some(handlers) = HANDLERS.get() else {
        return;
    };
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo that lives until the handler returns (sigaction(2)).
    let details = unsafe { &*info };
    // Codes up to 0 say that someone sent the signal: then there is no address, but a process id in its place.
    let is_fault = details.si_code > 0;
    if is_fault {
        // SAFETY: a SIGSEGV or SIGBUS from the kernel has the address (sigaction(2)).
        let address = unsafe { details.si_addr() }.addr();
        let mut message = Message::new();
        if (handlers.classify)(address, &mut message) {
            report(message.as_bytes());
            // SAFETY: abort has no condition, and is async-signal-safe (signal-safety(7)).
            unsafe { libc::abort() };
        }
    }
    let previous = if signal == libc::SIGBUS { &handlers.bus } else { &handlers.segv };
    match previous.sa_sigaction {
        // The kernel ignores no fault, so to ignore it is the default; a signal that was sent it does ignore.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_IGN | libc::SIG_DFL => {
            reset(signal);
            if !is_fault {
                // It will not come again by itself. Blocked until the handler returns, then deadly.
                // SAFETY: raise takes no pointer, and is async-signal-safe (signal-safety(7)).
                unsafe { libc::raise(signal) };
            }
            // Else the instruction runs again, faults again, and the process dies as if we had never been.
        }
        handler => chain(handler, previous.sa_flags, signal, info, context),
    }
}

/// Calls the handler that was there before, as the kernel would have.
fn chain(handler: usize, flags: libc::c_int, signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);
    type Plain = extern "C" fn(libc::c_int);

    /// Whether a handler that asked to be called once was, by signal.
    static USED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

    // The kernel would have forgotten such a handler when it called it.
    let is_once = flags & libc::SA_RESETHAND != 0;
    if is_once && USED[usize::from(signal == libc::SIGBUS)].swap(true, Ordering::Relaxed) {
        return reset(signal);
    }
    let handler = ptr::with_exposed_provenance::<()>(handler);
    if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: whoever installed the handler with SA_SIGINFO promised the kernel this signature (sigaction(2)).
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

/// Writes all of `text` to fd 2, or as much of it as goes.
fn report(mut text: &[u8]) {
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

/// The alternate stack of one thread, if [`ensure_alt_stack`] had to make it. Dropping it takes it away.
///
/// Invariant A1: while the value lives, the kernel may run a handler on the mapping. So it is unmapped only after the
/// thread has let go of it: Drop upholds it, on the same thread, since a `Mapping` is not `Send`.
#[derive(Debug)]
pub(crate) struct AltStack(
    /// A guard page, and the stack above it. `None` if the thread had one already.
    Option<Mapping>,
);

/// Sees to it that this thread has a stack to run fault handlers on. Keep the result while the thread may overflow.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn ensure_alt_stack() -> io::Result<AltStack> {
    if current_alt_stack()?.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(AltStack(None));
    }
    // Beside that, what the kernel saves of the registers: some KiB. It says 0 where it does not know.
    // SAFETY: getauxval takes no pointer (getauxval(3)).
    let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    let page = page_size();
    let mapping = Mapping::reserve(page + ALT_STACK_LEN + frame)?;
    // SAFETY: the mapping is new: nobody uses it, and the handler's stack begins above the guard.
    unsafe { mapping.guard_as_usual(0, page) }.map_err(|(_, error)| error)?;
    // SAFETY: the mapping is longer than a page.
    let base = unsafe { mapping.base().add(page) };
    let stack = libc::stack_t { ss_sp: base.as_ptr().cast(), ss_flags: 0, ss_size: mapping.len() - page };
    // SAFETY: Invariant A1: the memory is ours and stays mapped as long as the kernel knows it (sigaltstack(2)).
    cvt(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) })?;
    Ok(AltStack(Some(mapping)))
}

/// The alternate stack of this thread.
fn current_alt_stack() -> io::Result<libc::stack_t> {
    let mut stack = no_stack();
    // SAFETY: a null new stack only asks; the kernel fills `stack`, which outlives the call (sigaltstack(2)).
    cvt(unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) })?;
    Ok(stack)
}

/// How to tell the kernel that there is none.
fn no_stack() -> libc::stack_t {
    libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let Some(mapping) = self.0.take() else { return };
        let is_ours = |stack: libc::stack_t| mapping.contains(stack.ss_sp.addr());
        match current_alt_stack().map(is_ours) {
            // Someone has put another in its place, which stays.
            Ok(false) => {}
            Ok(true) => {
                let none = no_stack();
                // SAFETY: to have no alternate stack is always valid (sigaltstack(2)).
                if cvt(unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) }).is_err() {
                    // We are running on it (EPERM), so it must stay mapped (Invariant A1).
                    mapping.leak();
                }
            }
            // Not known, so it stays mapped (Invariant A1).
            Err(_) => mapping.leak(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mmap::guard_kind;
    use super::super::testing::in_new_process;
    use super::*;
    use std::fmt::Write;
    use std::hint::black_box;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Output;
    use std::sync::atomic::AtomicUsize;

    /// Where the page lies that `mine` calls a guard of ours.
    static GUARD: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Knows the page at `GUARD`.
    fn mine(address: usize, out: &mut Message) -> bool {
        let inside = address.wrapping_sub(GUARD.load(Ordering::Relaxed)) < page_size();
        if inside {
            let name = "worker";
            let _ = writeln!(out, "green thread '{name}' #{} overflowed its stack of {} KiB", 7, 256);
        }
        inside
    }

    /// A mapping that nobody will unmap, with a guard at its start.
    fn guarded(len: usize) -> usize {
        let mapping = Mapping::reserve(len).unwrap();
        // SAFETY: only the tests know the mapping, and they go to the guard to fault.
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

    /// Uses up the stack.
    #[expect(unconditional_recursion, reason = "it ends at the guard")]
    fn overflow(depth: usize) -> usize {
        let frame = black_box([depth; 64]);
        overflow(frame[7] + 1) + frame[9]
    }

    /// What the process wrote to fd 2.
    fn stderr(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Whether our report came.
    fn is_reported(output: &Output) -> bool {
        stderr(output).contains("green thread 'worker' #7 overflowed its stack of 256 KiB\n")
    }

    /// Sets the action of SIGSEGV before ours.
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
        report(b"noted\n");
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
            install(|_, _| false).unwrap(); // The first judgement stays.
            poke(base + 100);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", stderr(&output));
        assert!(is_reported(&output));
    }

    #[test]
    fn any_other_fault_kills_as_if_nobody_had_looked() {
        if cfg!(feature = "sanitizer") {
            // AddressSanitizer was there first, and what is chained to it ends in its own report.
            return;
        }
        let output = in_new_process("sys::signal::tests::any_other_fault_kills_as_if_nobody_had_looked", || {
            install(mine).unwrap();
            poke(0x1230);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
        assert!(!is_reported(&output));
    }

    #[test]
    fn std_still_reports_the_overflow_of_its_own_threads() {
        if cfg!(feature = "sanitizer") {
            // AddressSanitizer was there first, and what is chained to it ends in its own report.
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
            send_segv(); // Sent and ignored: the process goes on, to a fault that nobody can ignore.
            report(b"still here\n");
            poke(0x1230);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
        assert!(stderr(&output).contains("still here"));
    }

    #[test]
    fn a_sent_signal_is_no_fault_and_still_kills() {
        let output = in_new_process("sys::signal::tests::a_sent_signal_is_no_fault_and_still_kills", || {
            set_segv(libc::SIG_DFL, 0);
            // Would call anything its own, were it asked.
            install(|_, _| true).unwrap();
            send_segv();
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
    }

    /// Runs `body` on a thread that Rust knows nothing of, with a stack of `len` bytes from `base` on.
    fn on_foreign_thread(base: usize, len: usize, body: extern "C" fn(*mut c_void) -> *mut c_void) {
        // SAFETY: all zeros is a place for pthread_attr_init to fill.
        let mut attr = unsafe { mem::zeroed::<libc::pthread_attr_t>() };
        // SAFETY: `attr` is a live place.
        assert_eq!(unsafe { libc::pthread_attr_init(&raw mut attr) }, 0);
        // SAFETY: the tests pass a leaked mapping, which nobody else uses.
        let result = unsafe { libc::pthread_attr_setstack(&raw mut attr, ptr::with_exposed_provenance_mut(base), len) };
        assert_eq!(result, 0);
        let mut thread = 0;
        // SAFETY: `attr` is initialised, and `body` takes the null it gets.
        let result = unsafe { libc::pthread_create(&raw mut thread, &raw const attr, body, ptr::null_mut()) };
        assert_eq!(result, 0);
        // SAFETY: the thread is ours and joined once.
        assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
    }

    /// A thread without an alternate stack gets one that goes again; a thread with one keeps it.
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
            // AddressSanitizer gives one to every thread.
            return;
        }
        on_foreign_thread(guarded(1 << 20), 1 << 20, comes_and_goes);
    }

    #[test]
    fn a_rust_thread_keeps_its_own() {
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
