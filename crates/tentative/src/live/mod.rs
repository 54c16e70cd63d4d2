//! The monitor of live processes: one keeper for each origin, one session process for each transaction.
//!
//! The origin starts the keeper on first use; it shares no memory with the origin and ends with it. The keeper forks
//! sessions, one of them ahead of time, so that the next transaction finds its sandbox built. A session builds the
//! sandbox, serves the filter's notifications, and stages and commits the files. Nobody but the session touches its
//! transaction's directory in the store, and whoever dies is noticed by the end of a socket.

mod files;
mod keeper;
pub mod protocol;
mod session;
mod sockets;

use std::os::fd::OwnedFd;

/// Runs the keeper on the socket that the origin handed over; returns when the origin is gone.
pub fn serve(link: OwnedFd) {
    keeper::run(link);
}
