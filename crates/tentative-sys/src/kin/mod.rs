//! Layer 6, raw: namespaces, capabilities, processes made without libc, descriptors passed between processes.
//!
//! The functions that end in `_raw` touch no errno, no thread-local storage, no lock and no allocator: they may run
//! in a task that shares the origin's memory.

mod capabilities;
mod clone;
mod descriptors;
mod ending;
mod groups;
mod handshake;
mod identity;
mod memory;
mod signals;
mod terminal;

pub use capabilities::{SANDBOX_ROOT_CAPABILITIES, drop_capabilities_raw};
pub use clone::{
    Cloned, Namespaces, clone_beside, clone_into, has_one_thread, setns_raw, unshare, user_namespace_around,
};
pub use descriptors::{UNRECORDED_SEND, receive_fd, receive_fd_raw, send_fd_raw};
pub use ending::{close_all_but, close_number, duplicate_onto, exit_now, with_number};
pub use groups::{group_of, session_of};
pub use handshake::{HANDSHAKE, ask_monitor, join_monitor};
pub use identity::{FileIdentity, as_file_identity};
pub use memory::{read_memory, write_memory};
pub use signals::SignalQueue;
pub use terminal::{Terminals, become_foreground, foreground_group, ignore_children, reset_signals};
pub(crate) use terminal::{become_foreground_raw, foreground_group_raw};
