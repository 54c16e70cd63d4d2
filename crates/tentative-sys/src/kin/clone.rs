//! New processes in new namespaces, and entering namespaces that exist.
//!
//! Never used in a process with several threads: the copy would hold locks that nobody releases.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::{io::Errno, process::Pid};

use crate::raw::syscall;

/// Kinds of namespaces, as clone(2) and setns(2) take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(u32);

impl Namespaces {
    /// None.
    pub const NONE: Namespaces = Namespaces(0);
    /// User and group ids, capabilities.
    pub const USER: Namespaces = Namespaces(libc::CLONE_NEWUSER as u32);
    /// Mounts.
    pub const MOUNT: Namespaces = Namespaces(libc::CLONE_NEWNS as u32);
    /// Process ids.
    pub const PID: Namespaces = Namespaces(libc::CLONE_NEWPID as u32);
    /// System V and POSIX message queues, shared memory.
    pub const IPC: Namespaces = Namespaces(libc::CLONE_NEWIPC as u32);
    /// Host name.
    pub const UTS: Namespaces = Namespaces(libc::CLONE_NEWUTS as u32);
    /// Network.
    pub const NET: Namespaces = Namespaces(libc::CLONE_NEWNET as u32);
    /// Control groups.
    pub const CGROUP: Namespaces = Namespaces(libc::CLONE_NEWCGROUP as u32);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 | other.0)
    }

    /// The set without those of another one.
    #[must_use]
    pub const fn except(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 & !other.0)
    }

    /// Whether all of `other` is in the set.
    #[must_use]
    pub const fn contains(self, other: Namespaces) -> bool {
        self.0 & other.0 == other.0
    }

    /// The kernel's bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// What [`clone_into`] returns, twice.
#[derive(Debug)]
pub enum Cloned {
    /// In the new process.
    Child,
    /// In the caller: the new process as the caller numbers it, and a descriptor for it.
    Parent {
        /// Its pid.
        pid: Pid,
        /// Its pidfd.
        pidfd: OwnedFd,
    },
}

/// Whether this process has one thread and shares its memory with no other process.
#[must_use]
pub fn has_one_thread() -> bool {
    // unshare(CLONE_THREAD) changes nothing and succeeds exactly then; a container that forbids unshare(2) altogether
    // says EPERM, and has no namespaces for us either.
    // SAFETY: takes a number only.
    let answer = unsafe { syscall(libc::SYS_unshare, [libc::CLONE_THREAD as usize, 0, 0, 0, 0, 0]) };
    answer != Err(Errno::INVAL)
}

/// Forks into new namespaces; SIGCHLD on its end. Returns in both processes, like fork(2).
///
/// # Errors
/// `EDEADLK` when this process has several threads, else what clone(2) says.
pub fn clone_into(namespaces: Namespaces) -> Result<Cloned, Errno> {
    copy(namespaces.0 as usize | libc::SIGCHLD as usize)
}

/// Forks a sibling: a child of this process's parent, in the namespaces that this process has entered.
///
/// The pid in [`Cloned::Parent`] is as this process's pid namespace numbers it.
///
/// # Errors
/// `EDEADLK` when this process has several threads, else what clone(2) says.
pub fn clone_beside() -> Result<Cloned, Errno> {
    copy(libc::CLONE_PARENT as usize | libc::SIGCHLD as usize)
}

fn copy(flags: usize) -> Result<Cloned, Errno> {
    if !has_one_thread() {
        return Err(Errno::DEADLK);
    }
    let mut pidfd: RawFd = -1;
    let flags = flags | libc::CLONE_PIDFD as usize;
    let arguments = clone_arguments(flags, (&raw mut pidfd) as usize);
    // SAFETY: without CLONE_VM and with the only thread copied, the child's memory is a consistent copy; the kernel
    // writes one int at the parent-tid argument for CLONE_PIDFD, which lives here.
    let pid = unsafe { syscall(libc::SYS_clone, arguments) }?;
    match Pid::from_raw(pid as i32) {
        None => Ok(Cloned::Child),
        Some(pid) => {
            // SAFETY: the kernel has just made this descriptor for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
    }
}

/// The argument order of clone(2) is the architecture's: flags, stack, parent tid.
fn clone_arguments(flags: usize, parent_tid: usize) -> [usize; 6] {
    [flags, 0, parent_tid, 0, 0, 0]
}

/// Enters the namespaces of a process (by its pidfd) or one namespace (by its own descriptor).
///
/// # Errors
/// What setns(2) says.
pub fn setns_raw(fd: RawFd, namespaces: Namespaces) -> Result<(), Errno> {
    // SAFETY: setns(2) takes numbers only.
    unsafe { syscall(libc::SYS_setns, [fd as usize, namespaces.0 as usize, 0, 0, 0, 0]) }?;
    Ok(())
}

/// The user namespace around one (`ioctl_ns(2)`).
///
/// # Errors
/// `EPERM` when it is outside of this process's own.
pub fn user_namespace_around(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const NS_GET_PARENT: usize = 0xb702;
    let number = namespace.as_raw_fd() as usize;
    // SAFETY: the command takes no argument and answers with a new descriptor.
    let fd = unsafe { syscall(libc::SYS_ioctl, [number, NS_GET_PARENT, 0, 0, 0, 0]) }?;
    // SAFETY: the kernel has just made this descriptor for us, and closes it on execution.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Moves this process into new namespaces (a new pid namespace is for its children).
///
/// # Errors
/// What unshare(2) says.
pub fn unshare(namespaces: Namespaces) -> Result<(), Errno> {
    // SAFETY: takes a number only; the set has no flag that unshares memory or descriptors.
    unsafe { syscall(libc::SYS_unshare, [namespaces.0 as usize, 0, 0, 0, 0, 0]) }?;
    Ok(())
}
