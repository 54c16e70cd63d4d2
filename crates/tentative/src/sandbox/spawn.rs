//! A child of the builder inside the sandbox.
//!
//! The child is the builder's own, so that it can be waited for, stopped and continued like any other. For an ordinary
//! user an intermediate process enters the namespaces, forks it beside itself and ends. Never used with several threads.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, WaitOptions, waitpid},
};
use tentative_sys::kin::{Cloned, Namespaces, clone_beside, clone_into, exit_now, setns_raw};

use super::Sandbox;
use crate::files::plan::Privilege;

/// A process inside.
#[derive(Debug)]
pub struct Spawned {
    /// Its pid, as the builder numbers it.
    pub pid: Pid,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// Why a process could not be put into a sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// No intermediate process.
    #[error("cannot fork")]
    Fork(#[source] Errno),
    /// No pipe to it.
    #[error("cannot make a pipe")]
    Pipe(#[source] Errno),
    /// The namespaces could not be entered, or no process could be made in them.
    #[error("cannot enter the sandbox")]
    Enter(#[source] Errno),
    /// The new process could not be held.
    #[error("cannot hold the new process")]
    Hold(#[source] Errno),
}

impl Sandbox {
    /// Forks this process into the sandbox; `act` runs there, with all capabilities over it, and its result is the
    /// exit status. Neither destructors nor buffers of this process run in the child.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn spawn(&self, act: impl FnOnce() -> i32) -> Result<Spawned, SpawnError> {
        match self.privilege {
            Privilege::Root => self.spawn_directly(act),
            Privilege::User => self.spawn_beside(act),
        }
    }

    /// A privileged builder may make children in a pid namespace that its user namespace owns: one fork less.
    fn spawn_directly(&self, act: impl FnOnce() -> i32) -> Result<Spawned, SpawnError> {
        let own = openat(CWD, "/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(SpawnError::Hold)?;
        let pids = if self.namespaces.contains(Namespaces::PID) { Namespaces::PID } else { Namespaces::NONE };
        let enter = |fd: &OwnedFd, namespaces: Namespaces| match namespaces {
            Namespaces::NONE => Ok(()),
            namespaces => setns_raw(fd.as_raw_fd(), namespaces),
        };
        enter(&self.pidfd, pids).map_err(SpawnError::Enter)?;
        let cloned = clone_into(Namespaces::NONE);
        if let Ok(Cloned::Child) = cloned {
            let entered = enter(&self.pidfd, self.namespaces.except(Namespaces::PID));
            exit_now(match entered {
                Ok(()) => catch_unwind(AssertUnwindSafe(act)).unwrap_or(125),
                Err(_) => 125,
            });
        }
        // Later children are for the builder's own pid namespace again.
        enter(&own, pids).map_err(SpawnError::Enter)?;
        match cloned.map_err(SpawnError::Fork)? {
            Cloned::Parent { pid, pidfd } => Ok(Spawned { pid, pidfd }),
            Cloned::Child => exit_now(125),
        }
    }

    fn spawn_beside(&self, act: impl FnOnce() -> i32) -> Result<Spawned, SpawnError> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(SpawnError::Pipe)?;
        let between = match clone_into(Namespaces::NONE).map_err(SpawnError::Fork)? {
            Cloned::Child => exit_now(enter(self, &writer, act)),
            Cloned::Parent { pid, .. } => pid,
        };
        drop(writer);
        let mut answer = [0u8; 4];
        let length = loop {
            match rustix::io::read(&reader, &mut answer) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        // It has nothing more to do; its status says nothing that the answer does not.
        let _ended = waitpid(Some(between), WaitOptions::empty());
        match (length, i32::from_ne_bytes(answer)) {
            (Ok(4), errno) if errno < 0 => Err(SpawnError::Enter(Errno::from_raw_os_error(-errno))),
            (Ok(4), pid) => {
                let pid = Pid::from_raw(pid).ok_or(SpawnError::Enter(Errno::SRCH))?;
                let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                    .map_err(SpawnError::Hold)?;
                Ok(Spawned { pid, pidfd })
            }
            (Ok(_), _) => Err(SpawnError::Enter(Errno::SRCH)),
            (Err(errno), _) => Err(SpawnError::Enter(errno)),
        }
    }
}

/// In the intermediate process, and in its sibling.
fn enter(sandbox: &Sandbox, writer: &OwnedFd, act: impl FnOnce() -> i32) -> i32 {
    let cloned = setns_raw(sandbox.pidfd.as_raw_fd(), sandbox.namespaces).and_then(|()| clone_beside());
    let answer = match cloned {
        Ok(Cloned::Child) => {
            // A panic must not unwind into the frames of the process that this is a copy of.
            return catch_unwind(AssertUnwindSafe(act)).unwrap_or(125);
        }
        Ok(Cloned::Parent { pid, .. }) => pid.as_raw_nonzero().get(),
        Err(errno) => -errno.raw_os_error(),
    };
    // A builder that is gone needs no answer.
    let _builder_gone = rustix::io::write(writer, &answer.to_ne_bytes());
    0
}
