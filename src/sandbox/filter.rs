//! Nix's seccomp rules as a classic BPF program (Nix spec §4.9).
//!
//! All calls are allowed but two kinds. Modes with set-user-id or set-group-id are refused with
//! EPERM: the store must never hold such a file, not even before it is made canonical. Setting
//! extended attributes is answered ENOTSUP, as on a file system that has none: they are lost in an
//! archive, so nothing may come to depend on them.
//!
//! A filter sees call numbers, which differ by architecture: one block for each that a builder may
//! use. x32 calls come as `x86_64` with one more bit in the number.

use libc::sock_filter;

/// What the filter knows of an architecture.
struct Calls {
    /// `AUDIT_ARCH_…` of `linux/audit.h`.
    architecture: u32,
    /// Calls that take a mode: number and the mode's argument.
    modes: &'static [(u32, u32)],
    /// Calls that set extended attributes.
    attributes: &'static [u32],
}

/// A machine runs programs of its own word size and of the half.
#[cfg(target_arch = "x86_64")]
const CALLS: [Calls; 2] = [
    Calls {
        architecture: 0xc000_003e, // x86_64: chmod, fchmod, fchmodat, fchmodat2
        modes: &[(90, 1), (91, 1), (268, 2), (452, 2)],
        attributes: &[188, 189, 190, 463],
    },
    Calls {
        architecture: 0x4000_0003, // i386
        modes: &[(15, 1), (94, 1), (306, 2), (452, 2)],
        attributes: &[226, 227, 228, 463],
    },
];
#[cfg(target_arch = "aarch64")]
const CALLS: [Calls; 2] = [
    Calls {
        architecture: 0xc000_00b7, // aarch64, which has no chmod
        modes: &[(52, 1), (53, 2), (452, 2)],
        attributes: &[5, 6, 7, 463],
    },
    Calls {
        architecture: 0x4000_0028, // arm
        modes: &[(15, 1), (94, 1), (333, 2), (452, 2)],
        attributes: &[226, 227, 228, 463],
    },
];

/// The bit that makes an `x86_64` call an x32 one.
const X32: u32 = 0x4000_0000;
const SET_IDS: u32 = libc::S_ISUID | libc::S_ISGID;

/// Offsets in `struct seccomp_data`; an argument's low half comes first on all of them.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The program.
pub(super) fn nix() -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    for calls in &CALLS {
        let block = block(calls);
        program.push(unless_equal(calls.architecture, block.len()));
        program.extend(block);
    }
    program.push(ALLOW);
    program
}

fn block(calls: &Calls) -> Vec<sock_filter> {
    // Masking x32's bit is harmless elsewhere: no number is that large.
    let mut block = vec![
        load(NUMBER),
        instruction(libc::BPF_ALU | libc::BPF_AND, !X32),
    ];
    for (number, argument) in calls.modes {
        block.push(unless_equal(*number, 4));
        block.push(load(ARGUMENTS + 8 * argument));
        block.push(sock_filter {
            jf: 1,
            ..instruction(libc::BPF_JMP | libc::BPF_JSET, SET_IDS)
        });
        block.push(refuse(libc::EPERM));
        block.push(ALLOW);
    }
    for number in calls.attributes {
        block.push(unless_equal(*number, 1));
        block.push(refuse(libc::ENOTSUP));
    }
    block.push(ALLOW);
    block
}

const ALLOW: sock_filter = instruction(libc::BPF_RET, libc::SECCOMP_RET_ALLOW);

const fn refuse(error: i32) -> sock_filter {
    instruction(
        libc::BPF_RET,
        libc::SECCOMP_RET_ERRNO | error.cast_unsigned(),
    )
}

const fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// Skips what follows unless the accumulator has the value.
fn unless_equal(value: u32, skipped: usize) -> sock_filter {
    let skipped = u8::try_from(skipped).expect("a block has some thirty instructions");
    sock_filter {
        jf: skipped,
        ..instruction(libc::BPF_JMP | libc::BPF_JEQ, value)
    }
}

/// An instruction with a constant operand; `BPF_K` is 0.
#[expect(
    clippy::cast_possible_truncation,
    reason = "operation codes have eight bits"
)]
const fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}
