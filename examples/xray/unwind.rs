//! The frames of a stack that waits, by the unwind tables of the program: those that a panic and a debugger go by.
//!
//! ```text
//!   saved sp --> rip, rbx, rbp  --.   the registers with which the fiber will go on
//!                                  v
//!   frame 0: from sp up to its CFA.  The table says, for this rip: CFA = rsp + n, return address at CFA - 8, the
//!            caller's rbx at CFA - 16, ..    --> the registers of frame 1, and so on
//!   last     the trampoline: there the stack begins
//! ```
#![forbid(unsafe_code)]

use addr2line::gimli::{self, CfaRule, EvaluationResult, Location, Register, RegisterRule, StoreOnHeap, UnwindContext};

use crate::memory::Memory;
use crate::program::Program;

/// The numbers that the unwind tables have for registers, and how corosensei leaves a stack that waits.
pub(crate) struct Processor {
    /// The number of the stack pointer.
    sp: Register,
    /// What a return goes to.
    pub(crate) return_address: Register,
    /// The words at the saved stack pointer, the lowest first.
    pub(crate) saved: &'static [(&'static str, Option<Register>)],
    /// The words of a fresh stack at the saved stack pointer, the lowest first.
    pub(crate) fresh: &'static [&'static str],
    /// The names of the registers that a function gives back as they were.
    names: &'static [(Register, &'static str)],
}

/// The word of a fresh stack that is an address to go to.
pub(crate) const ENTRY: &str = "trampoline";

#[cfg(target_arch = "x86_64")]
pub(crate) const PROCESSOR: Processor = {
    use gimli::X86_64 as R;
    Processor {
        sp: R::RSP,
        return_address: R::RA,
        saved: &[("rip", Some(R::RA)), ("rbx", Some(R::RBX)), ("rbp", Some(R::RBP))],
        fresh: &[ENTRY],
        names: &[(R::RBX, "rbx"), (R::RBP, "rbp"), (R::R12, "r12"), (R::R13, "r13"), (R::R14, "r14"), (R::R15, "r15")],
    }
};

#[cfg(target_arch = "aarch64")]
pub(crate) const PROCESSOR: Processor = {
    use gimli::AArch64 as R;
    Processor {
        sp: R::SP,
        return_address: R::X30,
        saved: &[("x19", Some(R::X19)), ("x29", Some(R::X29)), ("pc", Some(R::X30)), ("padding", None)],
        fresh: &["padding", "padding", ENTRY, "padding"],
        names: &[
            (R::X19, "x19"),
            (R::X20, "x20"),
            (R::X21, "x21"),
            (R::X22, "x22"),
            (R::X23, "x23"),
            (R::X24, "x24"),
            (R::X25, "x25"),
            (R::X26, "x26"),
            (R::X27, "x27"),
            (R::X28, "x28"),
            (R::X29, "x29"),
        ],
    }
};

/// A word of a frame that the unwind tables speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// The address at which the caller goes on.
    ReturnAddress,
    /// The caller's value of this register.
    Register(&'static str),
}

/// A frame of a stack that waits.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The instruction at which it goes on.
    pub(crate) pc: u64,
    /// The end: the CFA.
    pub(crate) end: u64,
    /// What it has saved, with the address of each.
    pub(crate) saved: Vec<(u64, Saved)>,
    /// Whether a word of the stack has brought us here: then `pc` is the instruction after a call.
    pub(crate) is_return: bool,
}

impl Frame {
    /// Returns the address by which to ask for the function and the line: one of the call, not of what follows it.
    pub(crate) fn asked(&self) -> u64 {
        self.pc - u64::from(self.is_return)
    }
}

/// The registers that are known at a frame.
type Registers = Vec<(Register, u64)>;

/// Returns the value of a register.
fn value(registers: &Registers, register: Register) -> Option<u64> {
    registers.iter().find(|(known, _)| *known == register).map(|(_, value)| *value)
}

/// Returns the frames of a stack that waits with the stack pointer `sp`, the innermost first. The last one is that of
/// the first function on this stack; the trampoline that has called it is no frame of its own.
pub(crate) fn frames(program: &Program, memory: &Memory, sp: u64) -> Vec<Frame> {
    let mut registers: Registers = vec![(PROCESSOR.sp, sp + 8 * PROCESSOR.saved.len() as u64)];
    for (index, (_, register)) in PROCESSOR.saved.iter().enumerate() {
        let word = memory.word(sp + 8 * index as u64);
        registers.extend(register.zip(word));
    }
    let mut frames: Vec<Frame> = Vec::new();
    // Bounded, should a table lead in a circle.
    while frames.len() < 200 {
        let Some(pc) = value(&registers, PROCESSOR.return_address).filter(|pc| *pc != 0) else { break };
        match step(program, memory, &registers, pc, !frames.is_empty()) {
            Some((frame, callers)) => {
                frames.push(frame);
                registers = callers;
            }
            None => break,
        }
    }
    frames
}

/// Returns the frame of the function that goes on at `pc`, and the registers of its caller; none at the trampoline,
/// and where the tables end.
fn step(program: &Program, memory: &Memory, of: &Registers, pc: u64, is_return: bool) -> Option<(Frame, Registers)> {
    let asked = program.file_address(pc - u64::from(is_return))?;
    let mut context = UnwindContext::<usize, StoreOnHeap>::new();
    let (frames, bases) = (&program.frames, &program.bases);
    let fde = program.unwinding(asked)?;
    // corosensei marks the trampoline like a handler of signals, since it is called on another stack than its caller's.
    if fde.is_signal_trampoline() {
        return None;
    }
    let row = fde.unwind_info_for_address(frames, bases, &mut context, asked).ok()?;
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => value(of, *register)?.wrapping_add_signed(*offset),
        CfaRule::Expression(expression) => {
            let expression = expression.get(frames).ok()?;
            let mut evaluation = expression.evaluation(fde.cie().encoding());
            let mut result = evaluation.evaluate().ok()?;
            loop {
                result = match result {
                    EvaluationResult::Complete => break,
                    EvaluationResult::RequiresRegister { register, .. } => {
                        evaluation.resume_with_register(gimli::Value::Generic(value(of, register)?)).ok()?
                    }
                    EvaluationResult::RequiresMemory { address, .. } => {
                        evaluation.resume_with_memory(gimli::Value::Generic(memory.word(address)?)).ok()?
                    }
                    _ => return None,
                };
            }
            match evaluation.result().first()?.location {
                Location::Address { address } => address,
                _ => return None,
            }
        }
    };
    let mut callers = of.clone();
    callers.retain(|(register, _)| ![PROCESSOR.sp, PROCESSOR.return_address].contains(register));
    callers.push((PROCESSOR.sp, cfa));
    let mut saved = Vec::new();
    for (register, rule) in row.registers() {
        let RegisterRule::Offset(offset) = rule else { continue };
        let at = cfa.wrapping_add_signed(*offset);
        let name = PROCESSOR.names.iter().find(|(known, _)| known == register).map(|(_, name)| *name);
        if *register == PROCESSOR.return_address {
            saved.push((at, Saved::ReturnAddress));
        } else if let Some(name) = name {
            saved.push((at, Saved::Register(name)));
        }
        callers.retain(|(known, _)| known != register);
        callers.push((*register, memory.word(at)?));
    }
    Some((Frame { pc, end: cfa, saved, is_return }, callers))
}
