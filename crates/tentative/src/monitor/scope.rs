//! What the monitor knows about a listener's sandbox, and which numbers the origin has outside.
//!
//! Only numbers and descriptors; it never acts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, CWD, Dir, DirEntry, Mode, OFlags, openat, statat},
    io::Errno,
    process::Pid,
};

use serde::{Deserialize, Serialize};

use crate::{files::links::Links, layer::LayerSet, sandbox::Sandbox};

/// The numbers that a process inside is shown where the kernel would say 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its parent.
    pub parent: i32,
    /// Its process group, where a branch is shown the origin's instead of its own.
    pub group: Option<i32>,
    /// Its session.
    pub session: i32,
    /// Its children: they are not the branch's to wait for or to signal.
    pub children: Vec<i32>,
}

/// A listener's sandbox.
#[derive(Debug)]
pub struct Scope {
    /// Init, as the monitor numbers it.
    pub init: Pid,
    /// The program's or branch's first process, as the monitor numbers it; 0 until it is known.
    pub main: i32,
    /// The origin's numbers.
    pub origin: Origin,
    /// Layers that the sandbox goes without.
    pub without: LayerSet,
    /// Keeps files with several names together; none where the kernel does.
    pub(crate) links: Option<Links>,
    root: OwnedFd,
    proc: OwnedFd,
}

impl Scope {
    /// What is known about a sandbox. It holds descriptors of the sandbox's mounts: drop it (or the monitor) before
    /// waiting for them to go.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(sandbox: &Sandbox, origin: Origin, without: LayerSet) -> Result<Scope, Errno> {
        Ok(Scope {
            init: sandbox.init_pid(),
            main: 0,
            origin,
            without,
            links: None,
            root: rustix::io::fcntl_dupfd_cloexec(sandbox.root(), 3)?,
            proc: rustix::io::fcntl_dupfd_cloexec(sandbox.proc(), 3)?,
        })
    }

    /// What is known about a sandbox that somebody else built, by its init.
    pub(super) fn of_init(init: Pid, origin: Origin, without: LayerSet) -> Result<Scope, Errno> {
        let number = init.as_raw_nonzero();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |name: &str| openat(CWD, format!("/proc/{number}/{name}"), flags, Mode::empty());
        Ok(Scope {
            init,
            main: 0,
            origin,
            without,
            links: None,
            root: open("root")?,
            proc: open("root/proc")?,
        })
    }

    /// The sandbox's root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The sandbox's `/proc`.
    pub(crate) fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// Whether the sandbox has a process or thread of this number.
    pub(crate) fn has_process(&self, number: i32) -> bool {
        number > 0 && statat(&self.proc, number.to_string(), AtFlags::empty()).is_ok()
    }

    /// The processes of the sandbox, as it numbers them, init included.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = openat(&self.proc, ".", flags, Mode::empty()) else { return Vec::new() };
        let Ok(entries) = Dir::read_from(&directory) else { return Vec::new() };
        let number = |entry: DirEntry| entry.file_name().to_str().ok()?.parse().ok();
        entries.filter_map(Result::ok).filter_map(number).collect()
    }

    /// Reads a file of the sandbox's `/proc`.
    pub(crate) fn read_proc(&self, path: &str) -> Option<String> {
        super::caller::read_at(self.proc(), path)
    }

    /// Fields of a process's `stat` as the sandbox numbers them, from the state on (field 3 of proc(5)).
    pub(crate) fn stat(&self, number: i32) -> Option<Vec<i64>> {
        super::caller::parse_stat(&self.read_proc(&format!("{number}/stat"))?)
    }
}
