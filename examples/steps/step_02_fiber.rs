//! Step 2, a fiber: what lies on a fresh stack, how a closure begins there, and how it ends.
//!
//! ```text
//!    fresh                      waiting
//!   | (unused)       | <- top  | (unused)        |      high addresses
//!   | link           |         | link            |      saved sp of the stack that has resumed the fiber
//!   | return: entry  |         | frames          |      of the closure, down to `suspend`
//!   | the fiber, 0 ..| <- sp   | return, saved ..| <- sp
//! ```
//!
//! * Invariant fiber-1: `sp` belongs to a stack that waits, or is null: then the fiber runs, or has ended.
//! * Invariant fiber-2: from its first resumption to its end a fiber is one of its own owners.
//! * Invariant fiber-3: while a fiber runs, its link is the saved stack pointer of the stack that has resumed it.
#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::cell::{Cell, UnsafeCell};
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

/// The memory of a stack.
struct Stack(Box<[UnsafeCell<u128>]>);

impl Stack {
    /// Makes a stack of 64 KiB, all zero. Elements of 16 bytes, because a stack is aligned so.
    fn new() -> Stack {
        Stack((0..4096).map(|_| UnsafeCell::new(0)).collect())
    }

    /// Returns the end of the stack, where it begins to grow downwards.
    fn top(&self) -> Sp {
        self.0.as_ptr_range().end.cast::<usize>().cast_mut()
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

thread_local! {
    /// The fiber that runs on this OS thread; null while main does.
    static CURRENT: Cell<*const Fiber> = const { Cell::new(ptr::null()) };
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

// ==== The program ====

/// What the words of a fresh stack are for, the lowest first.
#[cfg(target_arch = "x86_64")]
const NAMES: &str = "r15 r14 r13 r12 rbx rbp return-address link unused";
#[cfg(target_arch = "aarch64")]
const NAMES: &str =
    "x19 x20 x21 x22 x23 x24 x25 x26 x27 x28 x29 return-address d8 d9 d10 d11 d12 d13 d14 d15 link unused";

/// Prints the words of a fresh stack, the highest first.
fn print_fresh(fiber: &Rc<Fiber>) {
    let sp = fiber.sp.get();
    let names: Vec<&str> = NAMES.split(' ').collect();
    for (index, name) in names.into_iter().enumerate().rev() {
        // SAFETY: fiber-1: nothing runs on this stack; the word is one of the last FRAME.
        let word = unsafe { *sp.wrapping_add(index) };
        let word = match word {
            0 => "0".to_owned(),
            _ if word == entry as *const () as usize => "entry".to_owned(),
            _ if word == Rc::as_ptr(fiber) as usize => "the fiber".to_owned(),
            _ => format!("{word:#x}"),
        };
        println!("  top - {:3}  {name:14}  {word}", (FRAME - index) * 8);
    }
}

fn main() {
    let fiber = Fiber::new(|| {
        println!("fiber: one");
        suspend();
        println!("fiber: two");
    });
    println!("a fresh stack:");
    print_fresh(&fiber);
    println!("main: resume");
    fiber.resume();
    let used = fiber.stack.top() as usize - fiber.sp.get() as usize;
    println!("main: the fiber waits, more of its stack is in use: {}", used > FRAME * 8);
    println!("main: resume");
    fiber.resume();
    println!("main: it has ended: {}, owners: {}", fiber.has_ended(), Rc::strong_count(&fiber));
}
