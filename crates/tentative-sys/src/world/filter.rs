//! Installing a seccomp filter with a listener.
//!
//! Never decides what the filter says; the pathway table does.

use std::os::fd::RawFd;

use rustix::io::Errno;

use crate::raw::syscall;

/// One instruction of a classic BPF program, as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when true.
    pub jump_true: u8,
    /// Instructions to skip when false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

const _: () = assert!(size_of::<Instruction>() == 8);

/// The program as plain bytes, to be sent to another process.
#[must_use]
pub fn instructions_to_bytes(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.push(instruction.jump_true);
        bytes.push(instruction.jump_false);
        bytes.extend_from_slice(&instruction.operand.to_ne_bytes());
    }
    bytes
}

/// The program that [`instructions_to_bytes`] made plain; an incomplete last instruction is left out.
#[must_use]
pub fn instructions_from_bytes(bytes: &[u8]) -> Vec<Instruction> {
    bytes
        .chunks_exact(8)
        .map(|b| Instruction {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jump_true: b[2],
            jump_false: b[3],
            operand: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect()
}

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

const _: () = assert!(size_of::<Program>() == 16);

const SET_MODE_FILTER: usize = 1;
const NEW_LISTENER: usize = 1 << 3;
/// A fatal signal alone ends the wait for the monitor (Linux 5.19), so that it never acts twice.
const WAIT_KILLABLE_RECV: usize = 1 << 5;

/// Sets no_new_privs, installs the filter for this thread and returns the descriptor of its listener.
///
/// # Errors
/// `EBUSY` when a filter with a listener is there already, else what seccomp(2) says.
pub fn install_filter_raw(program: &[Instruction]) -> Result<RawFd, Errno> {
    let no_new_privileges = libc::PR_SET_NO_NEW_PRIVS as usize;
    // SAFETY: takes numbers only.
    unsafe { syscall(libc::SYS_prctl, [no_new_privileges, 1, 0, 0, 0, 0]) }?;
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = Program { length, instructions: program.as_ptr() };
    let flags = NEW_LISTENER | WAIT_KILLABLE_RECV;
    let arguments = [SET_MODE_FILTER, flags, (&raw const program) as usize, 0, 0, 0];
    // SAFETY: the kernel copies `length` instructions, which the slice holds, and checks them.
    let listener = unsafe { syscall(libc::SYS_seccomp, arguments) }?;
    Ok(listener as RawFd)
}
