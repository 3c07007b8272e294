//! Which instruction of a function a uprobe goes on, and what `_start` passes on.
//!
//! The kernel runs the probed instruction for the task. It emulates a few (`nop`, `push` of a
//! register, near relative `call`, `jmp` and conditional jumps: `branch_setup_xol_ops` and
//! `push_setup_xol_ops` of arch/x86/kernel/uprobes.c); all others it single-steps, which costs
//! fifteen times as much. Only forms that every supported kernel emulates count: multi-byte
//! nops came with 6.16, and prefixed ones are refused by some.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

/// Instructions and bytes walked from the wanted one: a probe there is some nanoseconds late.
const MAX_INSTRUCTIONS: usize = 24;
const MAX_BYTES: u64 = 96;

/// What must hold at the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nothing beyond having got there.
    Nothing,
    /// The first argument is still in `rdi`.
    FirstArgument,
}

/// The first instruction at or after the start of `code` that the kernel emulates and that is
/// passed exactly when the start is; as a distance in bytes.
///
/// The walk ends at anything that may not fall through or may take long (a call through a
/// pointer, a system call, a return), at an instruction that other code of the function jumps
/// to, and, if asked, where `rdi` is overwritten.
pub(super) fn emulated(code: &[u8], address: u64, keep: Keep) -> Option<u64> {
    let targets = targets(code, address);
    let mut info = InstructionInfoFactory::new();
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    for _ in 0..MAX_INSTRUCTIONS {
        if !decoder.can_decode() {
            return None;
        }
        decoder.decode_out(&mut instruction);
        let at = instruction.ip() - address;
        if instruction.is_invalid() || at >= MAX_BYTES {
            return None;
        }
        if at > 0 && targets.contains(&instruction.ip()) {
            return None;
        }
        let start = usize::try_from(at).ok()?;
        if is_emulated(code.get(start..start + instruction.len())?) {
            return Some(at);
        }
        let falls_through = instruction.flow_control() == FlowControl::Next
            && !matches!(
                instruction.mnemonic(),
                Mnemonic::Syscall | Mnemonic::Sysenter
            )
            && !instruction.has_rep_prefix()
            && !instruction.has_repne_prefix();
        if !falls_through {
            return None;
        }
        if keep == Keep::FirstArgument && writes_rdi(&mut info, &instruction) {
            return None;
        }
    }
    None
}

/// Whether every supported kernel emulates the instruction with these bytes.
fn is_emulated(bytes: &[u8]) -> bool {
    match bytes {
        // nop; push r64; push r8..r15; jmp rel8; jcc rel8
        [0x90 | 0x50..=0x57]
        | [0x41, 0x50..=0x57]
        | [0xeb | 0x70..=0x7f, _]
        // call rel32; jmp rel32; jcc rel32
        | [0xe8 | 0xe9, _, _, _, _]
        | [0x0f, 0x80..=0x8f, _, _, _, _] => true,
        _ => false,
    }
}

/// Addresses within reach of the walk that the function's own code jumps to.
fn targets(code: &[u8], address: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for instruction in &mut Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
        if instruction.op0_kind() == OpKind::NearBranch64 {
            let target = instruction.near_branch_target();
            if target > address && target - address < MAX_BYTES {
                found.push(target);
            }
        }
    }
    found
}

fn writes_rdi(info: &mut InstructionInfoFactory, instruction: &Instruction) -> bool {
    info.info(instruction).used_registers().iter().any(|used| {
        used.register().full_register() == Register::RDI
            && !matches!(
                used.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            )
    })
}

/// The constant that straight-line code from `address` has in `rdi` when it first calls or
/// jumps away: in glibc's `_start` that is the address of `main`.
pub(super) fn first_argument(code: &[u8], address: u64) -> Option<Argument> {
    let mut info = InstructionInfoFactory::new();
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut argument = None;
    for instruction in decoder.iter().take(MAX_INSTRUCTIONS) {
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::Call | FlowControl::UnconditionalBranch => {
                return argument.or(Some(Argument::Unknown(instruction.near_branch_target())));
            }
            FlowControl::IndirectCall | FlowControl::IndirectBranch => return argument,
            _ => return None,
        }
        if writes_rdi(&mut info, &instruction) {
            argument = constant(&instruction);
        }
    }
    None
}

/// What is known of a value from the code alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// The value itself.
    Value(u64),
    /// The value is stored at this address.
    At(u64),
    /// Nothing, but the code goes on at this address.
    Unknown(u64),
}

fn constant(instruction: &Instruction) -> Option<Argument> {
    if instruction.is_ip_rel_memory_operand() {
        let address = instruction.ip_rel_memory_address();
        return match instruction.mnemonic() {
            Mnemonic::Lea => Some(Argument::Value(address)),
            Mnemonic::Mov => Some(Argument::At(address)),
            _ => None,
        };
    }
    let plain = matches!(
        instruction.op1_kind(),
        OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64
    );
    (instruction.mnemonic() == Mnemonic::Mov && plain)
        .then(|| Argument::Value(instruction.immediate(1)))
}

/// Whether the first call of the code is of the function that it got as its first argument.
pub(super) fn calls_first_argument(code: &[u8], address: u64) -> bool {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE)
        .iter()
        .take(MAX_INSTRUCTIONS)
        .find(|instruction| instruction.flow_control() != FlowControl::Next)
        .is_some_and(|instruction| {
            instruction.flow_control() == FlowControl::IndirectCall
                && instruction.op0_kind() == OpKind::Register
                && instruction.op0_register() == Register::RDI
        })
}

/// Addresses that the code takes as constants, in order: functions that it passes on are
/// among them.
pub(super) fn addresses_taken(code: &[u8], address: u64) -> Vec<u64> {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE)
        .iter()
        .filter_map(|instruction| match constant(&instruction) {
            Some(Argument::Value(address)) => Some(address),
            _ => None,
        })
        .collect()
}
