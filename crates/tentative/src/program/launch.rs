//! From the fork to the execution of the program.
//!
//! Who this process is: a copy of the runner, inside the sandbox, with one thread, about to become the program. It may
//! allocate; it never returns to the runner's frames and never writes to the runner's files. From the moment the filter
//! is installed it makes no call that the filter asks about, until the runner has the listener.

use std::{
    env,
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
    process::{Resource, Rlimit, chdir, getpid, setpgid, setrlimit},
};
use tentative_sys::{
    kin::{drop_capabilities_raw, reset_signals, send_fd_raw},
    world::{Instruction, install_filter_raw},
};

use crate::monitor::Outer;

use super::{ProgramOptions, inherited::Inherited, output::Held, terminal::Terminal};

/// A step between the fork and the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LaunchStep {
    /// A process group of its own, and the terminal.
    Group,
    /// Standard streams and inherited descriptors.
    Descriptors,
    /// The working directory.
    Directory,
    /// The memory limit.
    Limit,
    /// Giving up capabilities.
    Capabilities,
    /// The filter.
    Filter,
    /// Handing the listener over.
    Listener,
    /// execve(2).
    Execute,
}

impl LaunchStep {
    const ALL: [LaunchStep; 8] = [
        LaunchStep::Group,
        LaunchStep::Descriptors,
        LaunchStep::Directory,
        LaunchStep::Limit,
        LaunchStep::Capabilities,
        LaunchStep::Filter,
        LaunchStep::Listener,
        LaunchStep::Execute,
    ];

    /// What the step does, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LaunchStep::Group => "make a process group",
            LaunchStep::Descriptors => "prepare the descriptors",
            LaunchStep::Directory => "enter the working directory",
            LaunchStep::Limit => "set the memory limit",
            LaunchStep::Capabilities => "give up capabilities",
            LaunchStep::Filter => "install the system call filter",
            LaunchStep::Listener => "hand over the filter's listener",
            LaunchStep::Execute => "execute",
        }
    }
}

/// What the new process needs to become the program.
pub(super) struct Launch<'a> {
    pub(super) options: &'a ProgramOptions,
    pub(super) program: &'a OsString,
    pub(super) directory: &'a Path,
    pub(super) filter: Vec<Instruction>,
    pub(super) id: String,
    pub(super) capabilities: u64,
    pub(super) inherited: &'a Inherited,
    /// The monitor around this transaction, which serves it too.
    pub(super) outer: Option<&'a Outer>,
}

impl Launch<'_> {
    /// Becomes the program; returns the exit status of the process if that fails, after telling the runner.
    pub(super) fn run(&self, runner: &OwnedFd, terminal: Option<&Terminal>, held: Option<&Held>) -> i32 {
        let Err((step, errno)) = self.steps(runner, terminal, held);
        let mut packet = vec![step as u8];
        packet.extend(errno.raw_os_error().to_ne_bytes());
        // A plain write, which the filter lets pass; a runner that is gone needs no answer.
        let _runner_gone = rustix::io::write(runner, &packet);
        127
    }

    fn steps(
        &self,
        runner: &OwnedFd,
        terminal: Option<&Terminal>,
        held: Option<&Held>,
    ) -> Result<std::convert::Infallible, (LaunchStep, Errno)> {
        let at = |step| move |errno| (step, errno);
        setpgid(None, None).map_err(at(LaunchStep::Group))?;
        if let Some(terminal) = terminal {
            terminal.hand_over(getpid());
        }
        if let Some(held) = held {
            held.take_over_streams().map_err(at(LaunchStep::Descriptors))?;
        }
        self.inherited.take_inside().map_err(at(LaunchStep::Descriptors))?;
        // Entering the mount namespace went to its root.
        chdir(self.directory).map_err(at(LaunchStep::Directory))?;
        if let Some(bytes) = self.options.memory_limit {
            let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
            setrlimit(Resource::As, limit).map_err(at(LaunchStep::Limit))?;
        }
        // The runner blocks what it passes on; a mask would outlive the execution.
        reset_signals(true);
        let mut command = Command::new(self.program);
        command.args(&self.options.argv[1..]).env("TENTATIVE_ID", &self.id);
        drop_capabilities_raw(self.capabilities).map_err(at(LaunchStep::Capabilities))?;
        match self.outer {
            // Its filter is there already, and the kernel allows no second listener.
            Some(outer) => outer.join().map_err(at(LaunchStep::Listener))?,
            None => {
                let listener = install_filter_raw(&self.filter).map_err(at(LaunchStep::Filter))?;
                send_fd_raw(runner.as_raw_fd(), listener).map_err(at(LaunchStep::Listener))?;
            }
        }
        // The kernel makes a listener close-on-exec: it does not reach the program.
        let error: io::Error = command.exec();
        let errno = match Errno::from_io_error(&error) {
            Some(Errno::ACCESS) if !self.is_anywhere() => Errno::NOENT,
            errno => errno.unwrap_or(Errno::NOEXEC),
        };
        Err((LaunchStep::Execute, errno))
    }

    /// Whether the program exists: a directory of PATH that may not be searched says EACCES for what is nowhere.
    fn is_anywhere(&self) -> bool {
        let program = Path::new(self.program);
        let named = program.components().count() > 1 || program.is_absolute();
        let path = env::var_os("PATH").unwrap_or_default();
        named || env::split_paths(&path).any(|directory| directory.join(program).exists())
    }
}

/// What the runner learns about the launch: none when the program runs.
pub(super) fn outcome(runner: &OwnedFd) -> Result<Option<(LaunchStep, Errno)>, Errno> {
    let mut packet = [0u8; 5];
    let (length, _) = recv(runner, &mut packet[..], RecvFlags::DONTWAIT)?;
    if length != packet.len() {
        return Ok(None);
    }
    let errno = i32::from_ne_bytes([packet[1], packet[2], packet[3], packet[4]]);
    let step = LaunchStep::ALL.get(usize::from(packet[0])).copied().unwrap_or(LaunchStep::Execute);
    Ok(Some((step, Errno::from_raw_os_error(errno))))
}
