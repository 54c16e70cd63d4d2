//! The system call instruction, without errno, locks or allocation: what the raw wrappers of kin and world stand on.
//!
//! Usable from a task that shares another's memory and thread-local storage, and from a fresh clone.

use core::arch::asm;

use rustix::io::Errno;

/// Makes a system call and turns the kernel's answer into a result.
///
/// # Safety
/// The call with these arguments must be sound for the calling process.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) unsafe fn trap(number: i64, a: [usize; 6]) -> Result<usize, Errno> {
    let answer: isize;
    // SAFETY: the kernel's calling convention, which destroys rax, rcx and r11 only; the caller vouches for the rest.
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
    result(answer)
}

/// Makes a system call and turns the kernel's answer into a result.
///
/// # Safety
/// The call with these arguments must be sound for the calling process.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(crate) unsafe fn trap(number: i64, a: [usize; 6]) -> Result<usize, Errno> {
    let answer: isize;
    // SAFETY: the kernel's calling convention, which destroys x0 only; the caller vouches for the rest.
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
    result(answer)
}

fn result(answer: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&answer) {
        Err(Errno::from_raw_os_error(-answer as i32))
    } else {
        Ok(answer as usize)
    }
}
