//! aarch64: `svc`, the registers that a C call preserves, and the switch of stacks.
//!
//! Compile-checked only so far: no machine of this kind has run it.

use core::arch::{asm, naked_asm};

/// Signature that the C library registers restartable sequences with (rseq(2)).
pub(crate) const RSEQ_SIGNATURE: u32 = 0xd428_bc00;

/// The registers that survive a C call: a point in the program that [`resume`] continues at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Context {
    sp: u64,
    /// x19 to x30; x30 is where the context continues.
    x: [u64; 12],
    d: [u64; 8],
    fpcr: u64,
}

const _: () = assert!(size_of::<Context>() == 176);

/// Makes a system call and returns the kernel's raw answer, negative error numbers included.
///
/// # Safety
/// The call with these arguments must be sound for the calling process.
#[inline]
pub(crate) unsafe fn syscall6(number: usize, a: [usize; 6]) -> isize {
    let answer: isize;
    // SAFETY: the kernel's calling convention; it destroys no register but x0, and the caller vouches for what the
    // call does to memory.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a[0] as isize => answer,
            in("x1") a[1],
            in("x2") a[2],
            in("x3") a[3],
            in("x4") a[4],
            in("x5") a[5],
            options(nostack),
        );
    }
    answer
}

/// The thread pointer, which names the thread's control block.
#[inline]
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, nomem, preserves_flags)) };
    pointer
}

/// Saves the caller's context and calls `function(argument)` on another stack; returns what [`resume`] passes.
///
/// # Safety
/// `stack_top` must be the 16-byte-aligned end of memory that nothing else uses until `resume`, `context` must be
/// writable, and `resume` must be called at most once in each process that shares this call's frames.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn call_on_stack(
    context: *mut Context,
    stack_top: *mut u8,
    function: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> u64 {
    naked_asm!(
        "mov x9, sp",
        "str x9, [x0]",
        "stp x19, x20, [x0, 8]",
        "stp x21, x22, [x0, 24]",
        "stp x23, x24, [x0, 40]",
        "stp x25, x26, [x0, 56]",
        "stp x27, x28, [x0, 72]",
        "stp x29, x30, [x0, 88]",
        "stp d8, d9, [x0, 104]",
        "stp d10, d11, [x0, 120]",
        "stp d12, d13, [x0, 136]",
        "stp d14, d15, [x0, 152]",
        "mrs x9, fpcr",
        "str x9, [x0, 168]",
        "mov sp, x1",
        "mov x29, xzr",
        "mov x0, x3",
        "blr x2",
        "brk 1",
    )
}

/// Continues where `context` was saved; `call_on_stack` returns `value` there.
///
/// # Safety
/// The stack of `context` must hold what it held when the context was saved.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn resume(context: *const Context, value: u64) -> ! {
    naked_asm!(
        "ldr x9, [x0, 168]",
        "msr fpcr, x9",
        "ldp d8, d9, [x0, 104]",
        "ldp d10, d11, [x0, 120]",
        "ldp d12, d13, [x0, 136]",
        "ldp d14, d15, [x0, 152]",
        "ldp x19, x20, [x0, 8]",
        "ldp x21, x22, [x0, 24]",
        "ldp x23, x24, [x0, 40]",
        "ldp x25, x26, [x0, 56]",
        "ldp x27, x28, [x0, 72]",
        "ldp x29, x30, [x0, 88]",
        "ldr x9, [x0]",
        "mov sp, x9",
        "mov x0, x1",
        "ret",
    )
}

/// Makes a task with `clone(flags)` that runs `function(argument)` on its own stack; returns the kernel's answer.
///
/// # Safety
/// `stack_top` as for [`call_on_stack`]; with `CLONE_VM` the function may touch only what the caller may.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn clone_on_stack(
    flags: usize,
    stack_top: *mut u8,
    function: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> isize {
    naked_asm!(
        "mov x9, x2",
        "mov x10, x3",
        "mov x2, xzr",
        "mov x3, xzr",
        "mov x4, xzr",
        "mov x8, 220",
        "svc 0",
        "cbnz x0, 2f",
        "mov x29, xzr",
        "mov x0, x10",
        "blr x9",
        "brk 1",
        "2:",
        "ret",
    )
}
