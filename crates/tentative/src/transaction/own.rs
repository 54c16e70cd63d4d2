//! Descriptors of the transaction's own: the program does not see them, a branch does not have them.
//!
//! They lie at high numbers, out of the program's way. A branch closes them before its code runs; the values that it
//! has copies of then name nothing, so only the process that made one closes it.

use std::{
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tentative_sys::process::descriptors::is_open;

use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Resource, getrlimit},
};

/// How deep in transactions this process is: a branch is one deeper than its origin, whose pid it has.
static DEPTH: AtomicU32 = AtomicU32::new(0);
/// The numbers of all descriptors of this kind, each with the depth of the process that made it.
static NUMBERS: Mutex<Vec<(RawFd, u32)>> = Mutex::new(Vec::new());
/// Those of the origin's that this branch does not have, with the branch's depth: free for its program to take.
static CLOSED: Mutex<Vec<(RawFd, u32)>> = Mutex::new(Vec::new());

/// Which process something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pid: u32,
    depth: u32,
}

impl Owner {
    /// The calling process.
    pub(super) fn this() -> Owner {
        Owner { pid: std::process::id(), depth: depth() }
    }
}

/// How deep in transactions the calling process is.
pub(super) fn depth() -> u32 {
    DEPTH.load(Ordering::Relaxed)
}

/// Notes that this process is a branch now, with this descriptor for its write-protection marks.
pub(super) fn enter_branch(marks: Option<RawFd>) {
    let depth = DEPTH.fetch_add(1, Ordering::Relaxed) + 1;
    let mut registry = registry();
    let closed = registry.iter().filter(|(number, _)| !is_open(*number)).map(|(number, _)| (*number, depth));
    CLOSED.lock().unwrap_or_else(PoisonError::into_inner).extend(closed);
    registry.extend(marks.map(|number| (number, depth)));
}

/// Notes that this process is the origin again, with the branch's memory.
pub(super) fn leave_branch(marks: Option<RawFd>) {
    let depth = DEPTH.fetch_sub(1, Ordering::Relaxed);
    CLOSED.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, below)| *below < depth);
    registry().retain(|known| Some(*known) != marks.map(|number| (number, depth)));
}

fn registry() -> MutexGuard<'static, Vec<(RawFd, u32)>> {
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The numbers of all descriptors of this kind, those of outer transactions included.
pub(super) fn numbers() -> Vec<RawFd> {
    registry().iter().map(|(number, _)| *number).collect()
}

/// A number that the origin uses for itself and at which the branch's program has a descriptor: it cannot have both.
pub(super) fn number_in_use_by_the_program() -> Option<RawFd> {
    let (registry, depth) = (registry(), depth());
    let closed = CLOSED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut of_outer = closed.iter().filter(|(_, below)| *below == depth).map(|(number, _)| *number);
    of_outer.find(|number| is_open(*number) && !registry.contains(&(*number, depth)))
}

/// Where the numbers begin: below the soft limit, where select(2) and small tables still reach, and in the upper half
/// of few numbers, so that the program has the lower one.
fn lowest() -> RawFd {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1024).min(1024);
    (limit - limit.min(256) / 2) as RawFd
}

/// A descriptor of the transaction's own.
#[derive(Debug)]
pub(super) struct Own {
    /// Present until the drop.
    fd: Option<OwnedFd>,
    number: RawFd,
    owner: Owner,
}

impl Own {
    /// Moves a descriptor out of the program's way.
    pub(super) fn new(fd: OwnedFd) -> Result<Own, Errno> {
        let fd = fcntl_dupfd_cloexec(&fd, lowest())?;
        let number = fd.as_raw_fd();
        registry().push((number, depth()));
        Ok(Own { fd: Some(fd), number, owner: Owner::this() })
    }

    pub(super) fn number(&self) -> RawFd {
        self.number
    }

    pub(super) fn owner(&self) -> Owner {
        self.owner
    }
}

impl AsFd for Own {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("only the drop takes it").as_fd()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.owner == Owner::this() {
            registry().retain(|known| *known != (self.number, self.owner.depth));
        } else {
            // In a branch of the owner's: the number is the program's by now, or nobody's.
            std::mem::forget(self.fd.take());
        }
    }
}
