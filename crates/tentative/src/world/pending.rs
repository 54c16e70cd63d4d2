//! Calls whose answer comes later: a connection on its way, a helper at work.
//!
//! The monitor goes on serving others meanwhile.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    net::sockopt::socket_error,
    process::{Pid, WaitId, WaitIdOptions, waitid},
    time::Timespec,
};
use tentative_sys::world::{Answer, add_fd};

use crate::monitor::ListenerId;

/// What is waited for.
#[derive(Debug)]
pub(crate) enum Wait {
    /// A connection; the socket then takes the place of the program's.
    Connection {
        /// The program's descriptor.
        target: RawFd,
        /// Whether that is closed on exec.
        close_on_exec: bool,
    },
    /// A helper that writes an error number (or 0) and ends.
    Helper(Pid),
}

/// A call whose answer comes later.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) listener: ListenerId,
    /// Id of the waiting call.
    pub(crate) call: u64,
    /// What becomes ready.
    pub(crate) socket: OwnedFd,
    pub(crate) wait: Wait,
}

impl Pending {
    /// What the socket is polled for.
    pub(crate) fn interest(&self) -> PollFlags {
        match self.wait {
            Wait::Connection { .. } => PollFlags::OUT,
            Wait::Helper(_) => PollFlags::IN,
        }
    }

    /// The answer, if it is ready.
    pub(crate) fn finish(&self, listener: impl AsFd) -> Result<Option<Answer>, Errno> {
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), self.interest())];
        match poll(&mut fds, Some(&Timespec::default())) {
            Err(Errno::INTR) => return Ok(None),
            Err(error) => return Err(error),
            Ok(0) => return Ok(None),
            Ok(_) => {}
        }
        let done = match self.wait {
            Wait::Connection { target, close_on_exec } => {
                socket_error(&self.socket).and_then(|error| error).and_then(|()| {
                    let flags = fcntl_getfl(&self.socket)?;
                    fcntl_setfl(&self.socket, flags - OFlags::NONBLOCK)?;
                    add_fd(listener, self.call, self.socket.as_fd(), target, close_on_exec)
                })
            }
            Wait::Helper(helper) => self.helper_result(helper),
        };
        Ok(Some(done.map_or_else(Answer::Error, |()| Answer::Value(0))))
    }

    fn helper_result(&self, helper: Pid) -> Result<(), Errno> {
        let mut answer = [0u8; 4];
        let length = rustix::io::read(&self.socket, &mut answer);
        // It has written its answer or died; either way it must not stay a zombie.
        let _reaped = waitid(WaitId::Pid(helper), WaitIdOptions::EXITED);
        match (length, i32::from_ne_bytes(answer)) {
            (Ok(4), 0) => Ok(()),
            (Ok(4), errno) => Err(Errno::from_raw_os_error(errno)),
            _ => Err(Errno::IO),
        }
    }
}
