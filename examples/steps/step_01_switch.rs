//! Step 1, a switch: one OS thread, two stacks, and the instructions that go from the one to the other.
//!
//! ```text
//!    main's stack                the other stack
//!   |  frames of main |         |  nothing yet    |      high addresses
//!   |  frame of hop   |         |  address: other |
//!   |  six registers  |<- saved |  six zeros      |<- saved
//! ```
//!
//! To switch is to push what a function must keep, to exchange the stack pointer, and to pop the same on the other
//! side.
#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::cell::Cell;
use std::thread::LocalKey;

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

/// The words that a fresh stack has: what `switch` pops, and on x86-64 one more, because a function begins with a stack
/// pointer that is 8 below a multiple of 16.
const FRAME: usize = if cfg!(target_arch = "x86_64") { 8 } else { 20 };

/// Which of these words is the address that `switch` returns to.
const RETURN: usize = if cfg!(target_arch = "x86_64") { 6 } else { 11 };

// ==== The program ====

thread_local! {
    /// The stack pointer of main, while main waits.
    static MAIN: Cell<Sp> = const { Cell::new(std::ptr::null_mut()) };
    /// That of the other stack, while it waits.
    static OTHER: Cell<Sp> = const { Cell::new(std::ptr::null_mut()) };
}

/// Leaves the running stack, which is `from`, for the stack `to`.
fn hop(from: &'static LocalKey<Cell<Sp>>, to: &'static LocalKey<Cell<Sp>>) {
    // SAFETY: main and `other` call this in turns, so `to` is a stack that waits, or the fresh one that main has made.
    unsafe { switch(from.with(Cell::as_ptr), to.get()) }
}

/// Runs on the other stack. Nothing has called this function, so there is nothing to return to.
extern "C" fn other() -> ! {
    for turn in 1.. {
        println!("      other: turn {turn}");
        hop(&OTHER, &MAIN);
    }
    unreachable!()
}

fn main() {
    let mut stack = vec![0_u128; 4096].into_boxed_slice(); // 64 KiB, aligned to 16 bytes as a stack must be
    let top: Sp = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the words are the last ones of `stack`.
    let sp = unsafe { top.sub(FRAME) };
    // SAFETY: as above.
    let return_address = unsafe { sp.add(RETURN) };
    // SAFETY: as above; nothing else uses them.
    unsafe { return_address.write(other as *const () as usize) };
    OTHER.set(sp);
    for turn in 1..=3 {
        println!("main: turn {turn}");
        hop(&MAIN, &OTHER);
    }
    println!("main: done; the other stack waits, and goes with its memory");
}
