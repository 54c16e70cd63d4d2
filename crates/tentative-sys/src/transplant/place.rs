//! Where a branch's code runs. Only there is it the branch that asks: the memory in which a branch finds its handle is
//! also that of its children, of the branches of transactions inside, and of its other threads.
//!
//! Invariant: nobody else writes a request. It would be read by no one, or by somebody who waits for something else.

use core::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::raw;

/// How many transactions the calling process is inside of; a commit brings the branch's number, which is taken back.
static LEVEL: AtomicU32 = AtomicU32::new(0);

/// The process and thread that is a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the process numbers itself. That does not tell a branch from one inside it.
    process: usize,
    level: u32,
}

/// Who called, when it was not the branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// The branch of a transaction inside, or a child of it.
    Inner,
    /// A child of the branch.
    Child,
    /// Another thread of the branch.
    Thread,
}

impl Place {
    /// Notes that the calling process has become a branch.
    pub(super) fn enter() -> Place {
        let level = LEVEL.fetch_add(1, Ordering::Relaxed) + 1;
        Place { process: raw::getpid().unwrap_or(0), level }
    }

    /// Notes that the calling process is the origin again, with the branch's memory.
    pub(super) fn leave() {
        LEVEL.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the caller is the branch.
    ///
    /// # Errors
    /// Who it is instead.
    pub fn check(&self) -> Result<(), Elsewhere> {
        if LEVEL.load(Ordering::Relaxed) != self.level {
            return Err(Elsewhere::Inner);
        }
        let process = raw::getpid().unwrap_or(0);
        if process != self.process {
            return Err(Elsewhere::Child);
        }
        // A transaction begins in the first thread.
        if raw::gettid() == Ok(process) { Ok(()) } else { Err(Elsewhere::Thread) }
    }

    /// The same where nothing else may come.
    pub(super) fn require(&self) {
        if let Err(elsewhere) = self.check() {
            panic!("{elsewhere}");
        }
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Elsewhere::Inner => "this is inside another transaction; end that one first",
            Elsewhere::Child => "this is a child of the transaction's process, and only that process can end it or look at it",
            Elsewhere::Thread => {
                "this is another thread than the one that began the transaction, and only that one can end it or look at it"
            }
        })
    }
}

impl core::error::Error for Elsewhere {}
