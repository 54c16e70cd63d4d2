//! Layer 6, kin: other processes, signals, IPC objects and terminals of this host.
//!
//! The pid, ipc and uts namespaces contain it; these handlers record what would have reached outside and show the
//! origin's numbers where the kernel would say 0. They never act on a process of the sandbox in the program's place
//! except where its number means another one outside.

mod groups;
mod ipc;
mod signals;
mod terminal;
mod waiting;

pub(crate) use groups::{getpgid, getppid, getsid, setpgid};
pub(crate) use ipc::use_ipc;
pub(crate) use signals::{
    exists_outside, kill, look_at_process, name_of, pidfd_open, reach_process, set_owner, signal_one,
};
pub(crate) use terminal::ioctl;
pub(crate) use waiting::{wait4, waitid};
