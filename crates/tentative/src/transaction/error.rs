//! Why a transaction could not begin, and why a commit was refused.

use std::{
    io,
    os::fd::RawFd,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use tentative_sys::{
    process::descriptors::Inherited,
    transplant::{self, BeginStep, Elsewhere, Identity, Step},
};

use crate::{
    files::conflict::Conflict, layer::Layer, live::protocol::conflicts_from_words, process::gaps::Uncontained,
};

/// Why a transaction could not begin; nothing has happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// Listing the open descriptors failed.
    #[error("cannot list the open descriptors")]
    ListDescriptors(#[source] io::Error),
    /// A descriptor that cannot be contained yet.
    #[error("descriptor {number} is {}, which cannot be contained yet", kind.name())]
    Descriptor {
        /// Its number.
        number: i32,
        /// What it is.
        kind: Uncontained,
    },
    /// A descriptor could not be looked at.
    #[error("cannot inspect descriptor {number}")]
    Inspect {
        /// Its number.
        number: i32,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A deleted file could not be copied.
    #[error("descriptor {number} is a deleted file, and there is no copy of it to be had: {errno}")]
    Copy {
        /// Its number.
        number: i32,
        /// What the kernel said.
        errno: Errno,
    },
    /// A descriptor could not be opened again inside.
    #[error("descriptor {number} cannot be opened again in the sandbox: {}", reopening(*errno))]
    Reopen {
        /// Its number.
        number: i32,
        /// What the kernel said; `ESTALE` when its path names another file now.
        errno: Errno,
    },
    /// The working directory is gone.
    #[error("the working directory cannot be named")]
    Directory(#[source] io::Error),
    /// No `tentative` executable.
    #[error("the executable 'tentative', which serves as the monitor, is not on the search path")]
    NoExecutable,
    /// The monitor could not be started or talked to.
    #[error("cannot start the monitor {}", executable.display())]
    Monitor {
        /// Its executable.
        executable: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The session died before the branch began.
    #[error("the monitor died before the transaction began")]
    Session {
        /// What the socket said.
        source: Errno,
    },
    /// The sandbox is not to be had.
    #[error("{reason}")]
    Sandbox {
        /// The layer that cannot be contained.
        layer: Layer,
        /// Why.
        reason: String,
        /// What helps.
        remedy: String,
    },
    /// No memory for captured output.
    #[error("cannot make room for the captured output: {0}")]
    Output(Errno),
    /// Other threads run.
    #[error("the process has {threads} threads; a transaction needs it to have one")]
    Threads {
        /// How many.
        threads: usize,
    },
    /// Not the main thread.
    #[error("only the main thread can begin a transaction")]
    NotMainThread,
    /// Real, effective and saved ids differ.
    #[error("the process has the ids of several users, so that it may not look at a clone of itself")]
    Ids,
    /// A shared writable mapping.
    #[error("the memory at {address:#x} is shared and writable, so what a branch writes there would escape")]
    SharedMapping {
        /// Where it begins.
        address: usize,
    },
    /// A shared mapping that mprotect(2) can make writable.
    #[error(
        "the memory at {address:#x} is shared and can be made writable, so what a branch writes there would escape"
    )]
    SharedMappingToBe {
        /// Where it begins.
        address: usize,
    },
    /// The process's number is taken in every sandbox.
    #[error("the process is the first of its pid namespace, and so is a sandbox's own init of its")]
    First,
    /// A step of the kernel's.
    #[error("the kernel refused to {}: {errno}", step_name(*step))]
    Kernel {
        /// The step.
        step: BeginStep,
        /// What it said.
        errno: Errno,
    },
}

const fn step_name(step: BeginStep) -> &'static str {
    match step {
        BeginStep::Control => "map the control area",
        BeginStep::Threads => "list the threads",
        BeginStep::MainThread => "name the thread",
        BeginStep::Ids => "look at the clone",
        BeginStep::SharedMapping | BeginStep::SharedMappingToBe => "list the mappings",
        BeginStep::Namespaces => "enter the sandbox",
        BeginStep::Clone => "clone the process",
        BeginStep::Wait => "watch the branch",
        BeginStep::Branch => "set the branch up",
    }
}

impl BeginError {
    /// The layer that cannot be contained.
    #[must_use]
    pub const fn layer(&self) -> Layer {
        match self {
            BeginError::Sandbox { layer, .. } => *layer,
            BeginError::Threads { .. } | BeginError::NotMainThread => Layer::Threads,
            BeginError::SharedMapping { .. }
            | BeginError::SharedMappingToBe { .. }
            | BeginError::Kernel { .. } => Layer::Memory,
            BeginError::NoExecutable
            | BeginError::Monitor { .. }
            | BeginError::Session { .. }
            | BeginError::First => Layer::Kin,
            _ => Layer::Process,
        }
    }

    /// Whether the host had no memory left for it.
    #[must_use]
    pub fn is_for_memory(&self) -> bool {
        self.said() == Some(Errno::NOMEM)
    }

    /// What the kernel said, if it was asked.
    fn said(&self) -> Option<Errno> {
        match self {
            BeginError::Copy { errno, .. }
            | BeginError::Reopen { errno, .. }
            | BeginError::Kernel { errno, .. }
            | BeginError::Output(errno) => Some(*errno),
            BeginError::Inspect { source, .. }
            | BeginError::Monitor { source, .. }
            | BeginError::Session { source } => Some(*source),
            BeginError::ListDescriptors(error) | BeginError::Directory(error) => Errno::from_io_error(error),
            _ => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        if self.said() == Some(Errno::MFILE) {
            return "close some descriptors, or raise the limit on them (ulimit -n)".to_owned();
        }
        match self {
            BeginError::Descriptor { number, .. } => {
                format!("close descriptor {number} before the transaction, or open it inside")
            }
            BeginError::Copy { number, .. } => {
                format!(
                    "close descriptor {number} before the transaction, or make room for a copy of its file"
                )
            }
            BeginError::Reopen { number, .. } => {
                format!("close descriptor {number} before the transaction, or open it inside")
            }
            BeginError::Inspect { .. } => "is /proc mounted?".to_owned(),
            BeginError::Directory(_) => "change to a directory that exists".to_owned(),
            BeginError::NoExecutable | BeginError::Monitor { .. } | BeginError::Session { .. } => {
                "install the package with its executable, or go without the layers that need it: \
                 without={\"files\", \"kin\", \"world\"}"
                    .to_owned()
            }
            BeginError::Sandbox { remedy, .. } => remedy.clone(),
            BeginError::First => {
                "start it below an init (docker run --init), or go without the layers that need a sandbox: \
                 without={\"files\", \"kin\", \"world\"}"
                    .to_owned()
            }
            BeginError::Threads { .. } => {
                "end the other threads first (join them, shut executors down)".to_owned()
            }
            BeginError::NotMainThread => "call it from the main thread".to_owned(),
            BeginError::Ids => {
                "begin it as one user, before or after os.seteuid and os.setegid, or change all ids"
                    .to_owned()
            }
            BeginError::SharedMapping { .. } => {
                "unmap it first (multiprocessing.shared_memory, mmap with MAP_SHARED, SQLite in WAL mode)"
                    .to_owned()
            }
            BeginError::SharedMappingToBe { .. } => {
                "unmap it first, or map it from a file that is open for reading only".to_owned()
            }
            BeginError::Output(_) | BeginError::ListDescriptors(_) | BeginError::Kernel { .. } => {
                "run 'tentative doctor', which tries each part of this and says what is missing".to_owned()
            }
        }
    }
}

impl BeginError {
    /// The transplant's error, with the inherited descriptor that it may be about.
    pub(super) fn of(error: transplant::BeginError, inherited: &[Inherited]) -> BeginError {
        match error.step {
            BeginStep::Threads if error.subject != 0 => BeginError::Threads { threads: error.subject },
            BeginStep::MainThread => BeginError::NotMainThread,
            BeginStep::Ids => BeginError::Ids,
            BeginStep::Clone if error.errno == Errno::EXIST => BeginError::First,
            BeginStep::SharedMapping if error.subject != 0 => {
                BeginError::SharedMapping { address: error.subject }
            }
            BeginStep::SharedMappingToBe => BeginError::SharedMappingToBe { address: error.subject },
            BeginStep::Branch if error.subject < inherited.len() => {
                BeginError::Reopen { number: inherited[error.subject].number, errno: error.errno }
            }
            step => BeginError::Kernel { step, errno: error.errno },
        }
    }
}

/// One reason why a commit was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller is not the branch.
    #[error("{0}")]
    Elsewhere(Elsewhere),
    /// Other threads of the branch run.
    #[error("{}", running(*threads))]
    Threads {
        /// How many, the committing one included.
        threads: usize,
    },
    /// Other threads of the origin run, whose code has run while the branch was frozen.
    #[error("the function that decided has left threads running; join them before it returns")]
    OriginThreads,
    /// A child of the branch runs or was not waited for.
    #[error("child process {pid} runs or was not waited for; wait for it before the commit")]
    Children {
        /// Its process id, as the origin numbers it.
        pid: usize,
    },
    /// The branch is not who the origin is any more.
    #[error("{}", identity(*.0))]
    Identity(Identity),
    /// The branch has left its process group or session.
    #[error("the branch has moved to another process group or session, where the origin cannot follow")]
    Group,
    /// A signal that the branch blocks has come and waits.
    #[error("signal {number} is pending and blocked; let it through, or take it, before the commit")]
    PendingSignal {
        /// Its number.
        number: usize,
    },
    /// A shared mapping that cannot be made in the origin.
    #[error("the shared memory at {address:#x} cannot be mapped in the origin")]
    SharedMapping {
        /// Where it begins.
        address: usize,
    },
    /// A descriptor that cannot be had.
    #[error("descriptor {number} cannot be brought over: {errno}")]
    Descriptor {
        /// Its number.
        number: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// A lock on a file that the origin cannot take.
    #[error(
        "the lock on {} (descriptor {number}) {}",
        path.as_deref().unwrap_or(Path::new("a file")).display(),
        locking(*errno)
    )]
    Lock {
        /// The descriptor's number.
        number: usize,
        /// Its file, where it has a name.
        path: Option<PathBuf>,
        /// What the kernel said.
        errno: Errno,
    },
    /// A descriptor of the branch's at a number that the transaction itself uses in the origin.
    #[error(
        "descriptor {number} has a number that tentative uses in the interpreter that waits; use a lower one"
    )]
    DescriptorTaken {
        /// Its number.
        number: RawFd,
    },
    /// Somebody else wrote into a deleted file that the branch has changed as well.
    #[error("the deleted file at descriptor {number} was changed by somebody else meanwhile")]
    DeletedFileChanged {
        /// Its number.
        number: usize,
    },
    /// A deleted file cannot be written.
    #[error("the deleted file at descriptor {number} cannot be written: {errno}")]
    DeletedFile {
        /// Its number.
        number: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// The working directory cannot be reached.
    #[error("the working directory cannot be reached outside: {0}")]
    Directory(Errno),
    /// More mappings than the kernel allows.
    #[error("the commit needs {0} mappings, more than vm.max_map_count allows")]
    Budget(usize),
    /// The kernel refused a step of staging the memory.
    #[error("the memory cannot be staged ({step:?} at {subject:#x}): {errno}")]
    Memory {
        /// The step.
        step: Step,
        /// Address.
        subject: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// Others changed what it would change.
    #[error("{0}")]
    Conflict(Conflict),
    /// More conflicts than could be told.
    #[error("{0} more paths are in conflict with changes by others")]
    MoreConflicts(usize),
    /// The monitor's reason: a running process, a full disk.
    #[error("{0}")]
    Files(String),
    /// The monitor is gone.
    #[error("the monitor is gone: {0}")]
    MonitorLost(Errno),
}

/// A refused commit; the branch goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("commit refused: {}", reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct CommitRefused {
    /// Why.
    pub reasons: Vec<Refusal>,
}

impl CommitRefused {
    /// The paths that others changed meanwhile, if that is why.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.reasons.iter().filter_map(|reason| match reason {
            Refusal::Conflict(conflict) => Some(conflict),
            _ => None,
        })
    }
}

fn conflict_reasons(words: &str) -> Vec<Refusal> {
    let (conflicts, more) = conflicts_from_words(words);
    let more = (more > 0).then_some(Refusal::MoreConflicts(more));
    conflicts.into_iter().map(Refusal::Conflict).chain(more).collect()
}

impl From<transplant::Refused> for CommitRefused {
    fn from(refused: transplant::Refused) -> CommitRefused {
        let subject = refused.refusal.subject;
        // Some steps refuse by themselves, without the kernel.
        let errno = match refused.refusal.errno {
            0 => Errno::NOTSUP,
            errno => Errno::from_raw_os_error(errno),
        };
        let reasons = match refused.refusal.step {
            Step::Threads => vec![Refusal::Threads { threads: subject }],
            Step::Children => vec![Refusal::Children { pid: subject }],
            Step::Identity => vec![Refusal::Identity(Identity::of_subject(subject))],
            Step::Group => vec![Refusal::Group],
            Step::PendingSignal => vec![Refusal::PendingSignal { number: subject }],
            Step::SharedMapping => vec![Refusal::SharedMapping { address: subject }],
            Step::Descriptor => vec![Refusal::Descriptor { number: subject, errno }],
            Step::Lock => {
                // Whoever is refused has it still.
                let path = std::fs::read_link(format!("/proc/self/fd/{subject}")).ok();
                vec![Refusal::Lock { number: subject, path, errno }]
            }
            Step::DeletedFile if errno == Errno::STALE => {
                vec![Refusal::DeletedFileChanged { number: subject }]
            }
            Step::DeletedFile => vec![Refusal::DeletedFile { number: subject, errno }],
            Step::Directory => vec![Refusal::Directory(errno)],
            Step::Budget => vec![Refusal::Budget(subject)],
            Step::Monitor if refused.words.is_empty() => vec![Refusal::MonitorLost(errno)],
            Step::Monitor if errno == Errno::STALE => conflict_reasons(&refused.words),
            Step::Monitor => refused.words.lines().map(|line| Refusal::Files(line.to_owned())).collect(),
            step => vec![Refusal::Memory { step, subject, errno }],
        };
        CommitRefused { reasons }
    }
}

/// The threads that keep a commit from going on; the committing one is among their number.
fn running(threads: usize) -> String {
    match threads.saturating_sub(1) {
        0 => "the other threads cannot be counted".to_owned(),
        1 => "1 other thread runs; join it before the commit".to_owned(),
        others => format!("{others} other threads run; join them before the commit"),
    }
}

fn locking(errno: Errno) -> String {
    match errno {
        Errno::AGAIN | Errno::ACCESS => {
            "is held by somebody else outside; let it go before the commit, or try again later".to_owned()
        }
        Errno::NOTSUP => {
            "cannot be taken again in the interpreter that waits; let it go before the commit".to_owned()
        }
        errno => format!("cannot be taken outside: {errno}"),
    }
}

const fn identity(what: Identity) -> &'static str {
    match what {
        Identity::Ids => "the branch has other user or group ids, which the origin cannot take over",
        Identity::Capabilities => "the branch has other capabilities, which the origin cannot take over",
        Identity::Filters => "the branch has filtered its system calls, which the origin cannot take over",
        Identity::Root => {
            "the code changed its root directory or mount namespace, which the origin cannot take over"
        }
    }
}

/// Why a descriptor cannot be opened again.
fn reopening(errno: Errno) -> String {
    match errno {
        Errno::STALE => {
            "its path names another file there: it was replaced, or something is mounted over it".to_owned()
        }
        // An ordinary user's cover of a directory in which something is mounted has no copies of large files.
        Errno::ROFS => "it is shown read-only there: something is mounted beside it".to_owned(),
        _ => errno.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_threads_counts_the_other_ones() {
        let words = |threads| Refusal::Threads { threads }.to_string();
        assert_eq!(words(2), "1 other thread runs; join it before the commit");
        assert_eq!(words(3), "2 other threads run; join them before the commit");
        assert_eq!(words(0), "the other threads cannot be counted");
    }
}
