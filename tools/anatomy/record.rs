//! Single steps: what each instruction is, what it reads and writes, and the registers after it.
//!
//! Which words an instruction touches, its own encoding says. The first access to a word finds the value that the word
//! has had from the beginning, since every write is seen.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction, InstructionInfoFactory, IntelFormatter, OpAccess, Register,
};
use libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// The most instructions that a switch and its way back may have; a debug build has thousands.
const MOST: usize = 20_000;

/// The instruction that marks the end.
const MARK: u8 = 0xcc;

/// The size of a word.
const WORD: u64 = 8;

/// The names of the registers, in the order of `values_of`.
pub(crate) const REGISTERS: [&str; 16] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// Where the stack pointer is among the registers.
pub(crate) const SP: usize = 7;

/// An instruction that was executed.
pub(crate) struct Step {
    /// What the decoder has made of the bytes.
    pub(crate) instruction: Instruction,
    /// The machine code, as it lies in memory.
    pub(crate) bytes: Vec<u8>,
    /// The registers after it.
    pub(crate) after: [u64; 16],
    /// The words that it has read.
    pub(crate) reads: Vec<u64>,
    /// The words that it has written, with what they hold now.
    pub(crate) writes: Vec<(u64, u64)>,
}

/// What was seen between the marks.
pub(crate) struct Recording {
    /// The registers at the beginning.
    pub(crate) before: [u64; 16],
    /// The instructions, in the order of their execution.
    pub(crate) steps: Vec<Step>,
    /// The words that were touched, each with its value at the beginning.
    pub(crate) words: BTreeMap<u64, u64>,
}

/// Returns the registers in their order.
fn values_of(r: &user_regs_struct) -> [u64; 16] {
    [r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]
}

/// Returns the value of a register by the name that the decoder has for it.
fn value_of(registers: &user_regs_struct, register: Register) -> u64 {
    match register {
        Register::FS => registers.fs_base,
        Register::GS => registers.gs_base,
        Register::RIP => registers.rip,
        _ => {
            let name = format!("{:?}", register.full_register()).to_lowercase();
            REGISTERS.iter().position(|known| *known == name).map_or(0, |index| values_of(registers)[index])
        }
    }
}

/// The memory of the program that is stepped through.
struct Memory(File);

impl Memory {
    /// Returns the word at `address`.
    fn word(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, address)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Steps through the program, which has stopped at the first mark, until the second one, and ends it.
///
/// # Errors
/// If the program ends or is stopped by something else, or does not come to the mark.
pub(crate) fn record(pid: Pid) -> io::Result<Recording> {
    let memory = Memory(File::open(format!("/proc/{pid}/mem"))?);
    let mut registers = ptrace::getregs(pid)?;
    let mut recording = Recording { before: values_of(&registers), steps: Vec::new(), words: BTreeMap::new() };
    loop {
        let mut bytes = [0; 15];
        memory.0.read_exact_at(&mut bytes, registers.rip)?;
        if bytes[0] == MARK {
            ptrace::kill(pid)?;
            waitpid(pid, None)?;
            return Ok(recording);
        }
        if recording.steps.len() == MOST {
            ptrace::kill(pid)?;
            return Err(io::Error::other(format!("no end after {MOST} instructions")));
        }
        let instruction = Decoder::with_ip(64, &bytes, registers.rip, DecoderOptions::NONE).decode();
        let (reads, written) = accesses(&instruction, &registers);
        for word in reads.iter().chain(&written) {
            if !recording.words.contains_key(word) {
                recording.words.insert(*word, memory.word(*word)?);
            }
        }
        ptrace::step(pid, None)?;
        match waitpid(pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            other => return Err(io::Error::other(format!("the program did not stop after a step: {other:?}"))),
        }
        registers = ptrace::getregs(pid)?;
        let writes = written.into_iter().map(|word| Ok((word, memory.word(word)?)));
        let writes = writes.collect::<io::Result<_>>()?;
        // The word at the stack pointer is shown, touched or not.
        let at_sp = memory.word(registers.rsp)?;
        recording.words.entry(registers.rsp).or_insert(at_sp);
        let bytes = bytes[..instruction.len()].to_vec();
        recording.steps.push(Step { instruction, bytes, after: values_of(&registers), reads, writes });
    }
}

/// Returns the words that an instruction reads, and those that it writes.
fn accesses(instruction: &Instruction, registers: &user_regs_struct) -> (Vec<u64>, Vec<u64>) {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    let mut factory = InstructionInfoFactory::new();
    for used in factory.info(instruction).used_memory() {
        let Some(address) = used.virtual_address(0, |register, _, _| Some(value_of(registers, register))) else {
            continue;
        };
        let end = address + (used.memory_size().size() as u64).max(1);
        let words = (address / WORD..=(end - 1) / WORD).map(|word| word * WORD);
        if matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
        {
            reads.extend(words.clone());
        }
        if matches!(
            used.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        ) {
            writes.extend(words);
        }
    }
    (reads, writes)
}

/// Returns an instruction as text. `name` names the target of a jump or a call.
pub(crate) fn text(instruction: &Instruction, name: impl FnOnce(u64) -> String) -> String {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_rip_relative_addresses(true);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_space_after_operand_separator(true);
    let mut text = String::new();
    if instruction.near_branch_target() != 0 {
        formatter.format_mnemonic(instruction, &mut text);
        return format!("{text} {}", name(instruction.near_branch_target()));
    }
    formatter.format(instruction, &mut text);
    text
}

/// Returns the instructions of `code`, which lies at `address`, as text.
pub(crate) fn following(code: &[u8], address: u64) -> Vec<String> {
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    decoder.into_iter().map(|instruction| text(&instruction, |target| format!("{target:#x}"))).collect()
}
