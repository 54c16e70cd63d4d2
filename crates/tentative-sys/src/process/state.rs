//! The attributes of a process that live in the kernel: captured in the branch, applied in the origin.

use crate::raw;

const LIMITS: usize = 16;
const NAME: usize = 16;

/// Attributes that a commit carries over, and those that it must find unchanged.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessState {
    pub(crate) umask: u32,
    pub(crate) limits: [[u64; 2]; LIMITS],
    pub(crate) name: [u8; NAME],
    /// Real, effective and saved user and group ids.
    pub(crate) ids: [u32; 6],
    pub(crate) no_new_privileges: u32,
}

fn limit(which: usize, new: Option<&[u64; 2]>) -> [u64; 2] {
    let mut old = [0; 2];
    let new = new.map_or(0, |pair| core::ptr::from_ref(pair) as usize);
    let pointer = (&raw mut old) as usize;
    // SAFETY: the kernel reads and writes one pair each.
    let _unknown_limits_stay_zero =
        unsafe { raw::syscall(libc::SYS_prlimit64, [0, which, new, pointer, 0, 0]) };
    old
}

/// A soft limit of the calling process.
pub(crate) fn soft_limit(which: usize) -> u64 {
    limit(which, None)[0]
}

/// Lowers or raises a soft limit of the calling process; returns the old pair.
pub(crate) fn set_soft_limit(which: usize, soft: u64) -> [u64; 2] {
    let old = limit(which, None);
    limit(which, Some(&[soft.min(old[1]), old[1]]));
    old
}

/// Sets a limit of the calling process.
pub(crate) fn set_limit(which: usize, pair: &[u64; 2]) {
    limit(which, Some(pair));
}

/// As many numbers of descriptors as the hard limit allows, until it is dropped. Raw system calls only, so whoever may
/// not allocate or fail may hold it; whoever never drops it has to set a limit of its own.
#[must_use]
pub(crate) struct AllNumbers {
    before: [u64; 2],
}

impl AllNumbers {
    /// Raises the calling process's limit: the program may have lowered it below numbers that it has.
    pub(crate) fn allow() -> AllNumbers {
        AllNumbers { before: set_soft_limit(libc::RLIMIT_NOFILE as usize, u64::MAX) }
    }
}

impl Drop for AllNumbers {
    fn drop(&mut self) {
        set_limit(libc::RLIMIT_NOFILE as usize, &self.before);
    }
}

/// The file mode mask of the calling process, read by setting it for an instant; none while other threads run, which
/// could make a file meanwhile.
#[must_use]
pub fn umask() -> Option<u32> {
    if crate::transplant::count_threads() != Ok(1) {
        return None;
    }
    let signals = crate::threads::state::set_mask(u64::MAX);
    let mask = raw::umask(0o777).unwrap_or(0);
    let _cannot_fail = raw::umask(mask);
    crate::threads::state::set_mask(signals);
    Some(mask as u32)
}

impl ProcessState {
    /// Captures the calling process.
    pub(crate) fn capture_into(&mut self) {
        self.umask = raw::umask(0).unwrap_or(0) as u32;
        let _cannot_fail = raw::umask(self.umask as usize);
        for (which, slot) in self.limits.iter_mut().enumerate() {
            *slot = limit(which, None);
        }
        let name = self.name.as_mut_ptr() as usize;
        // SAFETY: the kernel writes 16 bytes.
        let _cannot_fail =
            unsafe { raw::syscall(libc::SYS_prctl, [libc::PR_GET_NAME as usize, name, 0, 0, 0, 0]) };
        for (index, call) in [libc::SYS_getresuid, libc::SYS_getresgid].into_iter().enumerate() {
            let base = self.ids[3 * index..].as_mut_ptr() as usize;
            // SAFETY: the kernel writes three words.
            let _cannot_fail = unsafe { raw::syscall(call, [base, base + 4, base + 8, 0, 0, 0]) };
        }
    }

    /// Makes the calling process's attributes these, where they differ; ids are compared elsewhere.
    pub(crate) fn apply(&self) {
        let _cannot_fail = raw::umask(self.umask as usize);
        for (which, wanted) in self.limits.iter().enumerate() {
            if limit(which, None) != *wanted {
                limit(which, Some(wanted));
            }
        }
        let name = self.name.as_ptr() as usize;
        // SAFETY: the kernel reads a NUL-terminated name of at most 16 bytes.
        let _cannot_fail =
            unsafe { raw::syscall(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name, 0, 0, 0, 0]) };
    }
}
