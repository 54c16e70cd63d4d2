//! System calls without errno, locks or allocation: for code on the private stack and in a fresh clone.
//!
//! Every function keeps the kernel's name and argument order and returns the kernel's answer; the manual page of
//! that name in section 2 says the rest.

use rustix::io::Errno;

use crate::arch::syscall6;

/// The kernel's answer, or the error number.
pub(crate) type Answer = Result<usize, Errno>;

fn answer(raw: isize) -> Answer {
    if raw < 0 && raw > -4096 { Err(Errno::from_raw_os_error(-raw as i32)) } else { Ok(raw as usize) }
}

/// Makes a system call.
///
/// # Safety
/// The call with these arguments must be sound for the calling process.
pub(crate) unsafe fn syscall(number: i64, arguments: [usize; 6]) -> Answer {
    // SAFETY: passed on to the caller.
    answer(unsafe { syscall6(number as usize, arguments) })
}

macro_rules! harmless {
    ($($(#[$doc:meta])* $name:ident = $number:ident ($($argument:ident),*);)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name($($argument: usize),*) -> Answer {
            let given: &[usize] = &[$($argument),*];
            let mut all = [0; 6];
            all[..given.len()].copy_from_slice(given);
            // SAFETY: this call neither reads nor writes this process's memory and gives away nothing it owns.
            answer(unsafe { syscall6(libc::$number as usize, all) })
        }
    )*};
}

harmless! {
    /// Closes a descriptor by number; the caller owns it.
    close = SYS_close(fd);
    /// Sets the program break.
    brk = SYS_brk(address);
    /// Duplicates a descriptor onto a number.
    dup3 = SYS_dup3(from, to, flags);
    /// Descriptor and status flags.
    fcntl = SYS_fcntl(fd, command, argument);
    /// Reads or sets a file offset.
    lseek = SYS_lseek(fd, offset, whence);
    /// Sets a file's length.
    ftruncate = SYS_ftruncate(fd, length);
    /// Allocates or deallocates a file's blocks.
    fallocate = SYS_fallocate(fd, mode, offset, length);
    /// Sets a file's permissions.
    fchmod = SYS_fchmod(fd, mode);
    /// Changes the working directory.
    fchdir = SYS_fchdir(fd);
    /// Sets the file mode mask.
    umask = SYS_umask(mask);
    /// Locks an open file as a whole.
    flock = SYS_flock(fd, operation);
    /// The process's own id.
    getpid = SYS_getpid();
    /// The thread's own id.
    gettid = SYS_gettid();
    /// Puts a process into a group.
    setpgid = SYS_setpgid(pid, group);
    /// The group of a process.
    getpgid = SYS_getpgid(pid);
    /// The session of a process.
    getsid = SYS_getsid(pid);
    /// Signals a process.
    kill = SYS_kill(pid, signal);
    /// Signals a process by descriptor.
    pidfd_send_signal = SYS_pidfd_send_signal(pidfd, signal, info, flags);
    /// A descriptor for a process.
    pidfd_open = SYS_pidfd_open(pid, flags);
    /// Copies a descriptor out of another process.
    pidfd_getfd = SYS_pidfd_getfd(pidfd, fd, flags);
    /// Whether two processes share a kernel object.
    kcmp = SYS_kcmp(pid_a, pid_b, kind, a, b);
}

/// Ends the process.
pub(crate) fn exit_group(status: i32) -> ! {
    loop {
        // SAFETY: does not return.
        let _never = unsafe { syscall(libc::SYS_exit_group, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Opens a path that ends with a NUL byte.
pub(crate) fn open(path: &[u8], flags: i32) -> Answer {
    debug_assert!(path.last() == Some(&0));
    let directory = libc::AT_FDCWD as isize as usize;
    // SAFETY: the path is NUL-terminated and only read.
    unsafe { syscall(libc::SYS_openat, [directory, path.as_ptr() as usize, flags as usize, 0, 0, 0]) }
}

/// Reads into a buffer.
pub(crate) fn read(fd: usize, buffer: &mut [u8]) -> Answer {
    // SAFETY: the buffer is writable for its whole length.
    unsafe { syscall(libc::SYS_read, [fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0]) }
}

/// Reads page-map entries or other 64-bit words at an offset in bytes.
pub(crate) fn pread_words(fd: usize, words: &mut [u64], offset: usize) -> Answer {
    let bytes = size_of_val(words);
    // SAFETY: the words are writable for their whole length, and any bit pattern is one.
    unsafe { syscall(libc::SYS_pread64, [fd, words.as_mut_ptr() as usize, bytes, offset, 0, 0]) }
}

/// Writes 64-bit words at an offset in bytes: the first `bytes` of them.
pub(crate) fn pwrite_words(fd: usize, words: &[u64], bytes: usize, offset: usize) -> Answer {
    let bytes = bytes.min(size_of_val(words));
    // SAFETY: the words are readable for that length.
    unsafe { syscall(libc::SYS_pwrite64, [fd, words.as_ptr() as usize, bytes, offset, 0, 0]) }
}

/// Maps memory.
///
/// # Safety
/// With MAP_FIXED nothing that is in use may lie in the range.
pub(crate) unsafe fn mmap(
    address: usize,
    length: usize,
    protection: i32,
    flags: i32,
    fd: i32,
    offset: usize,
) -> Answer {
    let fd = fd as isize as usize;
    // SAFETY: passed on to the caller.
    unsafe { syscall(libc::SYS_mmap, [address, length, protection as usize, flags as usize, fd, offset]) }
}

/// Unmaps memory.
///
/// # Safety
/// Nothing may use the range afterwards.
pub(crate) unsafe fn munmap(address: usize, length: usize) -> Answer {
    // SAFETY: passed on to the caller.
    unsafe { syscall(libc::SYS_munmap, [address, length, 0, 0, 0, 0]) }
}

/// Changes the protection of memory.
///
/// # Safety
/// Nobody may rely on the protection that goes away.
pub(crate) unsafe fn mprotect(address: usize, length: usize, protection: i32) -> Answer {
    // SAFETY: passed on to the caller.
    unsafe { syscall(libc::SYS_mprotect, [address, length, protection as usize, 0, 0, 0]) }
}

/// Moves a mapping onto another address.
///
/// # Safety
/// Nothing that is in use may lie at the target, and nothing may use the source afterwards.
pub(crate) unsafe fn mremap_fixed(from: usize, length: usize, to: usize) -> Answer {
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as usize;
    // SAFETY: passed on to the caller.
    unsafe { syscall(libc::SYS_mremap, [from, length, length, flags, to, 0]) }
}

/// Advises the kernel about memory.
///
/// # Safety
/// For advice that drops pages nothing may rely on their content.
pub(crate) unsafe fn madvise(address: usize, length: usize, advice: i32) -> Answer {
    // SAFETY: passed on to the caller.
    unsafe { syscall(libc::SYS_madvise, [address, length, advice as usize, 0, 0, 0]) }
}
