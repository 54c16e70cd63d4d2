//! x86-64: `syscall`, the registers that a C call preserves, and the switch of stacks.

use core::arch::{asm, naked_asm};

/// Signature that the C library registers restartable sequences with (rseq(2)).
pub(crate) const RSEQ_SIGNATURE: u32 = 0x5305_3053;

/// The registers that survive a C call: a point in the program that [`resume`] continues at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Context {
    rsp: u64,
    rip: u64,
    rbx: u64,
    rbp: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    mxcsr: u32,
    x87_control: u16,
    reserved: u16,
}

const _: () = assert!(size_of::<Context>() == 72);

/// Makes a system call and returns the kernel's raw answer, negative error numbers included.
///
/// # Safety
/// The call with these arguments must be sound for the calling process.
#[inline]
pub(crate) unsafe fn syscall6(number: usize, a: [usize; 6]) -> isize {
    let answer: isize;
    // SAFETY: the kernel's calling convention; rcx and r11 are the only registers that it destroys besides rax,
    // and the caller vouches for what the call does to memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a[0],
            in("rsi") a[1],
            in("rdx") a[2],
            in("r10") a[3],
            in("r8") a[4],
            in("r9") a[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// The thread pointer, which names the thread's control block.
#[inline]
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the x86-64 ABI keeps a pointer to the thread control block in its own first word.
    unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags)) };
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
        "lea rax, [rsp + 8]",
        "mov [rdi], rax",
        "mov rax, [rsp]",
        "mov [rdi + 8], rax",
        "mov [rdi + 16], rbx",
        "mov [rdi + 24], rbp",
        "mov [rdi + 32], r12",
        "mov [rdi + 40], r13",
        "mov [rdi + 48], r14",
        "mov [rdi + 56], r15",
        "stmxcsr [rdi + 64]",
        "fnstcw [rdi + 68]",
        "mov rsp, rsi",
        "xor ebp, ebp",
        "mov rdi, rcx",
        "call rdx",
        "ud2",
    )
}

/// Continues where `context` was saved; `call_on_stack` returns `value` there.
///
/// # Safety
/// The stack of `context` must hold what it held when the context was saved.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn resume(context: *const Context, value: u64) -> ! {
    naked_asm!(
        "ldmxcsr [rdi + 64]",
        "fldcw [rdi + 68]",
        "mov rbx, [rdi + 16]",
        "mov rbp, [rdi + 24]",
        "mov r12, [rdi + 32]",
        "mov r13, [rdi + 40]",
        "mov r14, [rdi + 48]",
        "mov r15, [rdi + 56]",
        "mov rsp, [rdi]",
        "mov rax, rsi",
        "jmp qword ptr [rdi + 8]",
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
    // r12 and r13 survive the system call in both tasks; the new one starts with an empty stack.
    naked_asm!(
        "push r12",
        "push r13",
        "mov r12, rdx",
        "mov r13, rcx",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, 56",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r13",
        "call r12",
        "ud2",
        "2:",
        "pop r13",
        "pop r12",
        "ret",
    )
}
