//! Layer 7, raw: the system call filter, its notifications, and the sandbox's own loopback.

mod filter;
mod loopback;
mod notify;
mod socket;

pub use filter::{Instruction, install_filter_raw, instructions_from_bytes, instructions_to_bytes};
pub use loopback::loopback_up;
pub use notify::{
    Answer, Notification, add_fd, add_new_fd, is_waiting, receive, respond, wake_up_synchronously,
};
pub use socket::{SocketOption, copy_socket_options, descriptor_of, network_of};
