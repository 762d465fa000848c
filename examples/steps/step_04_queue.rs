//! Step 4, the run queue: fibers take turns, and none of them names the next.
//!
//! ```text
//!            pop_front                      push_back
//!   main  <------------- | B | C | D | <-------------- A yields
//!     resume                queue
//! ```
//!
//! * Invariant fiber-1: `sp` belongs to a stack that waits, or is null: then the fiber runs, or has ended.
//! * Invariant fiber-2: from its first resumption to its end a fiber is one of its own owners.
//! * Invariant fiber-3: while a fiber runs, its link is the saved stack pointer of the stack that has resumed it.
//! * Invariant stack-1: the mapping is there, and nothing else uses it, as long as its `Stack`.
//! * Invariant fault-1: the handler calls what may be called in a signal handler, and reads what this OS thread has
//!   written.
#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::rc::Rc;

/// A stack pointer: the address of the lowest word that is in use.
type Sp = *mut usize;

/// Saves the registers on the running stack and its stack pointer in `*save`, and goes on with the stack that was left
/// with the stack pointer `to`. Returns when another switch goes back to `*save`.
///
/// To the compiler this is a function like any other. A caller may rely on the registers that the System V ABI makes
/// the callee keep, and on no others: those that hold something were saved by the caller before the call.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn switch(save: *mut Sp, to: Sp) {
    naked_asm!(
        "push rbp",       // The caller's frame pointer. `call` has pushed the return address above it.
        "push rbx",       // Five more registers that a function
        "push r12",       // has to give back as they were:
        "push r13",       // with rbp and rsp these are all
        "push r14",       // that the System V ABI makes
        "push r15",       // the callee keep.
        "mov [rdi], rsp", // *save = the stack pointer. All of this side is in memory now.
        "mov rsp, rsi",   // The switch: from here on the stack is the other one.
        "pop r15",        // The registers of the other side,
        "pop r14",        // in the reverse order,
        "pop r13",        // as its own call
        "pop r12",        // of `switch`
        "pop rbx",        // has pushed them.
        "pop rbp",        // Its frame pointer.
        "ret",            // Pops the address where the other side called `switch`, and goes there.
    )
}

/// The same for the other processor: ten registers, the frame pointer, the return address, the lower halves of eight
/// vector registers.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn switch(save: *mut Sp, to: Sp) {
    naked_asm!(
        "sub sp, sp, #160",         // Room for twenty words.
        "stp x19, x20, [sp, #0]",   // Two registers at a time:
        "stp x21, x22, [sp, #16]",  // ten that a function
        "stp x23, x24, [sp, #32]",  // has to give back
        "stp x25, x26, [sp, #48]",  // as they were,
        "stp x27, x28, [sp, #64]",  // x19 to x28,
        "stp x29, x30, [sp, #80]",  // the frame pointer, and the return address, which `bl` puts into x30,
        "stp d8, d9, [sp, #96]",    // and the lower halves
        "stp d10, d11, [sp, #112]", // of eight vector registers,
        "stp d12, d13, [sp, #128]", // which are the callee's
        "stp d14, d15, [sp, #144]", // to keep as well.
        "mov x9, sp",               // No instruction stores `sp` itself.
        "str x9, [x0]",             // *save = the stack pointer. All of this side is in memory now.
        "mov sp, x1",               // The switch: from here on the stack is the other one.
        "ldp x19, x20, [sp, #0]",   // The registers of the other side,
        "ldp x21, x22, [sp, #16]",  // each from the place
        "ldp x23, x24, [sp, #32]",  // where its own call
        "ldp x25, x26, [sp, #48]",  // of `switch`
        "ldp x27, x28, [sp, #64]",  // has put it,
        "ldp x29, x30, [sp, #80]",  // its frame pointer and return address
        "ldp d8, d9, [sp, #96]",    // among them,
        "ldp d10, d11, [sp, #112]", // and its
        "ldp d12, d13, [sp, #128]", // eight
        "ldp d14, d15, [sp, #144]", // halves.
        "add sp, sp, #160",         // What was kept is not needed any more.
        "ret",                      // Goes to the address in x30: where the other side called `switch`.
    )
}

/// The words that a fresh stack has: what `switch` pops, the link, and one more, so that the link lies at a multiple
/// of 16.
const FRAME: usize = if cfg!(target_arch = "x86_64") { 9 } else { 22 };

/// Which of these words is the address that `switch` returns to.
const RETURN: usize = if cfg!(target_arch = "x86_64") { 6 } else { 11 };

/// Which of them becomes the register that `entry` reads: rbx, or x19.
const ARGUMENT: usize = if cfg!(target_arch = "x86_64") { 4 } else { 0 };

/// How far below the top of a stack the link lies, in words.
const LINK: usize = 2;

/// The first instructions on every fiber's stack: makes an argument of the register that `switch` has loaded.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn entry() -> ! {
    naked_asm!(
        "mov rdi, rbx", // The first argument of `fiber_main`.
        "call {main}",  // Pushes a return address, as a function expects.
        "ud2",          // Never reached: `fiber_main` does not return.
        main = sym fiber_main,
    )
}

/// The same for the other processor.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn entry() -> ! {
    naked_asm!(
        "mov x0, x19",
        "bl {main}",
        "brk #1",
        main = sym fiber_main,
    )
}

/// The first function on every fiber's stack: runs the closure, and leaves for good.
extern "C" fn fiber_main(fiber: *const Fiber) -> ! {
    // SAFETY: fiber-2: the fiber is its own owner until `resume` has seen its end.
    let fiber = unsafe { &*fiber };
    let body = fiber.body.take().expect("a fresh fiber has its closure");
    body();
    // `sp` stays null: nothing resumes this stack any more.
    let mut nowhere = ptr::null_mut();
    // SAFETY: fiber-3: the link is a stack that waits.
    unsafe { switch(&mut nowhere, fiber.stack.resumer()) };
    unreachable!("a fiber that has ended is not resumed")
}

/// The bytes of a stack that can be used.
const SIZE: usize = 192 * 1024;

/// The bytes below them that cannot: a page at least, and pages have 64 KiB on some machines.
const GUARD: usize = 64 * 1024;

/// The memory of a stack, of which `low` is the lowest address.
struct Stack {
    low: *mut c_void,
}

impl Stack {
    /// Maps a stack, all zero and aligned to a page. The kernel finds memory for a page when the page is touched.
    fn new() -> Stack {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let low = unsafe { libc::mmap(ptr::null_mut(), GUARD + SIZE, access, flags, -1, 0) };
        assert_ne!(low, libc::MAP_FAILED, "no memory for a stack");
        // SAFETY: stack-1: the lowest part of the new mapping.
        let result = unsafe { libc::mprotect(low, GUARD, libc::PROT_NONE) };
        assert_eq!(result, 0, "no guard for a stack");
        Stack { low }
    }

    /// Returns the end of the stack, where it begins to grow downwards.
    fn top(&self) -> Sp {
        self.low.wrapping_byte_add(GUARD + SIZE).cast()
    }

    /// Reports whether an address lies in the guard.
    fn is_guard(&self, address: *mut c_void) -> bool {
        (self.low..self.low.wrapping_byte_add(GUARD)).contains(&address)
    }

    /// Returns where the link is.
    fn link(&self) -> *mut Sp {
        self.top().wrapping_sub(LINK).cast()
    }

    /// Returns the stack pointer of the stack that has resumed the fiber of this one.
    fn resumer(&self) -> Sp {
        // SAFETY: the word is in this memory, aligned, and of this OS thread.
        unsafe { *self.link() }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: stack-1: the whole mapping. No fiber with frames on it is dropped (fiber-2).
        unsafe { libc::munmap(self.low, GUARD + SIZE) };
    }
}

thread_local! {
    /// The fiber that runs on this OS thread; null while main does.
    static CURRENT: Cell<*const Fiber> = const { Cell::new(ptr::null()) };
    /// The fibers that could run, in the order of their turns.
    static QUEUE: RefCell<VecDeque<Rc<Fiber>>> = const { RefCell::new(VecDeque::new()) };
}

/// A closure with a stack of its own.
struct Fiber {
    /// The stack pointer, as fiber-1 says.
    sp: Cell<Sp>,
    /// What it will run; none from its beginning on.
    body: Cell<Option<Box<dyn FnOnce()>>>,
    /// Whether it was resumed ever.
    has_begun: Cell<bool>,
    stack: Stack,
}

impl Fiber {
    /// Makes a fiber, which begins at its first resumption.
    fn new(body: impl FnOnce() + 'static) -> Rc<Fiber> {
        let stack = Stack::new();
        let sp = stack.top().wrapping_sub(FRAME);
        let body: Box<dyn FnOnce()> = Box::new(body);
        let (sp, body) = (Cell::new(sp), Cell::new(Some(body)));
        let fiber = Rc::new(Fiber { sp, body, has_begun: Cell::new(false), stack });
        let sp = fiber.sp.get();
        // SAFETY: one of the last FRAME words of a fresh stack, which nothing else uses.
        unsafe { *sp.wrapping_add(RETURN) = entry as *const () as usize };
        // SAFETY: as above.
        unsafe { *sp.wrapping_add(ARGUMENT) = Rc::as_ptr(&fiber) as usize };
        fiber
    }

    /// Runs the fiber until it suspends or ends.
    fn resume(self: &Rc<Fiber>) {
        let sp = self.sp.replace(ptr::null_mut());
        assert!(!sp.is_null(), "the fiber runs, or has ended");
        if !self.has_begun.replace(true) {
            mem::forget(Rc::clone(self)); // fiber-2
        }
        let before = CURRENT.replace(Rc::as_ptr(self));
        // SAFETY: fiber-1 for `sp`; this side's stack pointer becomes the link, which is fiber-3.
        unsafe { switch(self.stack.link(), sp) };
        CURRENT.set(before);
        if self.has_ended() {
            // SAFETY: fiber-2: the owner that was forgotten above.
            unsafe { Rc::decrement_strong_count(Rc::as_ptr(self)) };
        }
    }

    /// Reports whether the fiber has ended. (It does not run: it would have to ask itself.)
    fn has_ended(&self) -> bool {
        self.sp.get().is_null()
    }
}

/// Returns the running fiber.
fn current() -> Rc<Fiber> {
    let fiber = CURRENT.get();
    assert!(!fiber.is_null(), "main is no fiber");
    // SAFETY: fiber-2: the running fiber has an owner, itself.
    unsafe { Rc::increment_strong_count(fiber) };
    // SAFETY: the owner that was just added.
    unsafe { Rc::from_raw(fiber) }
}

/// Goes back to the stack that has resumed the running fiber. Returns when the fiber is resumed again.
fn suspend() {
    let fiber = current();
    // SAFETY: fiber-3.
    unsafe { switch(fiber.sp.as_ptr(), fiber.stack.resumer()) }
}

/// Puts a fiber at the end of the queue.
fn enqueue(fiber: Rc<Fiber>) {
    QUEUE.with_borrow_mut(|queue| queue.push_back(fiber));
}

/// Makes a fiber that runs in its turn.
fn spawn(body: impl FnOnce() + 'static) {
    enqueue(Fiber::new(body));
}

/// Lets all others run that could, then goes on.
fn yield_now() {
    enqueue(current());
    suspend();
}

/// Runs the fibers in turns until the queue is empty.
fn run() {
    while let Some(fiber) = QUEUE.with_borrow_mut(VecDeque::pop_front) {
        fiber.resume();
    }
}

/// Handles a fault: says so if a fiber has overflowed its stack, and leaves every other fault to the kernel.
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, _registers: *mut c_void) {
    // SAFETY: fault-1: the kernel passes a description of the fault.
    let info = unsafe { &*info };
    // SAFETY: fault-1: that of a fault has an address.
    let address = unsafe { info.si_addr() };
    // SAFETY: fault-1, fiber-2: the running fiber is there, if one runs.
    let fiber = unsafe { CURRENT.get().as_ref() };
    if fiber.is_some_and(|fiber| fiber.stack.is_guard(address)) {
        let text = "a fiber has overflowed its stack\n";
        // SAFETY: fault-1: write(2), with a text that is there.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        // SAFETY: fault-1: abort(3) may be called in a handler.
        unsafe { libc::abort() };
    }
    // SAFETY: fault-1. The instruction faults again when the handler returns, and then ends the process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Handles faults from now on, on a stack of the handler's own: the one that has overflowed has no room for it.
fn watch_for_overflows() {
    let stack = Box::leak(vec![0_u8; 64 * 1024].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the memory was leaked: it stays, and nothing else uses it.
    let result = unsafe { libc::sigaltstack(&stack, ptr::null_mut()) };
    assert_eq!(result, 0, "no stack for the handler of faults");
    // SAFETY: for this struct, zeros are valid: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: fault-1; the handler takes the three arguments that SA_SIGINFO promises.
        let result = unsafe { libc::sigaction(signal, &action, ptr::null_mut()) };
        assert_eq!(result, 0, "no handler of faults");
    }
}

// ==== The program ====

/// Prints a line in each of three turns.
fn three_lines(name: &str) {
    for line in 1..=3 {
        println!("{name}: line {line}");
        yield_now();
    }
}

fn main() {
    watch_for_overflows();
    spawn(|| three_lines("A"));
    spawn(|| {
        spawn(|| println!("C: spawned by B, and last in the queue"));
        three_lines("B");
    });
    run();
    println!("main: the queue is empty");
}
