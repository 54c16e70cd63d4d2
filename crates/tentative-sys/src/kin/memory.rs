//! Reading and writing another process's memory (process_vm_readv(2)).
//!
//! Addresses are the other process's and never become pointers here.

use rustix::{io::Errno, process::Pid};

use crate::raw::syscall;

/// Copies from the memory of `pid` at `address`; returns how many bytes came before an unreadable page.
///
/// # Errors
/// What process_vm_readv(2) says.
pub fn read_memory(pid: Pid, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    copy(libc::SYS_process_vm_readv, pid, &local, address, buffer.len())
}

/// Copies to the memory of `pid` at `address`; returns how many bytes went before an unwritable page.
///
/// # Errors
/// What process_vm_writev(2) says.
pub fn write_memory(pid: Pid, address: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    copy(libc::SYS_process_vm_writev, pid, &local, address, bytes.len())
}

fn copy(number: i64, pid: Pid, local: &libc::iovec, address: u64, length: usize) -> Result<usize, Errno> {
    let remote =
        libc::iovec { iov_base: std::ptr::without_provenance_mut(address as usize), iov_len: length };
    let pid = pid.as_raw_nonzero().get() as usize;
    let arguments = [pid, core::ptr::from_ref(local) as usize, 1, (&raw const remote) as usize, 1, 0];
    // SAFETY: the local vector describes a buffer that the two callers hold for the call, writable where it is
    // written; the remote one is the other process's business.
    unsafe { syscall(number, arguments) }
}
