//! The transaction of a live process: begin, and one of commit and rollback.
//!
//! `begin` returns twice, like fork: [`Begun::Inside`] in the branch, and [`Begun::Ended`] in the origin when the
//! branch was rolled back. After a commit it is [`Branch::commit`] that returns, in the origin, whose memory is then
//! the branch's. The caller flushes its buffers and runs its fork handlers around `begin`; this module knows no
//! interpreter.

mod error;
mod report;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

pub use error::{BeginError, CommitRefused, Refusal};
pub use report::{Cause, MemoryChanges, Report};
use tentative_sys::{
    process::offsets::Offsets,
    transplant::{self, Wishes},
};

use crate::{
    containment::{Containment, Gap},
    layer::{Layer, LayerSet},
    policy::Policy,
    process::gaps::{Open, open_descriptors},
};

/// What becomes of output on the standard streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Shown as it comes.
    #[default]
    Live,
    /// Kept with the transaction and delivered by its commit.
    Hold,
    /// Returned to the caller.
    Capture,
}

/// What a transaction wants.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Layers that are not to be contained.
    pub without: LayerSet,
    /// Rolls back when the branch runs longer.
    pub timeout: Option<Duration>,
    /// Bytes of address space that the branch may add.
    pub memory_limit: Option<u64>,
    /// Crossings that are let through.
    pub policy: Policy,
    /// What becomes of output.
    pub output: Output,
    /// Returns [`Begun::Frozen`] in the origin before a commit.
    pub decide: bool,
    /// The `tentative` executable, which serves as the monitor.
    pub executable: Option<PathBuf>,
    /// What `show` and `list` say that ran.
    pub program: Vec<String>,
}

/// Where `begin` returned.
#[derive(Debug)]
pub enum Begun {
    /// In the branch.
    Inside(Branch),
    /// In the origin: the branch asks for its commit and waits.
    Frozen(Frozen),
    /// In the origin: rolled back.
    Ended(Ended),
}

/// The branch's handle.
#[derive(Debug)]
pub struct Branch {
    inner: transplant::Branch,
    containment: Containment,
    started: Instant,
}

/// The origin's handle on a branch that asks for its commit.
#[derive(Debug)]
pub struct Frozen {
    inner: transplant::Frozen,
    after: Afterwards,
}

/// A transaction that was rolled back, seen in the origin.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub cause: Cause,
    /// What the branch handed over.
    pub payload: Option<Vec<u8>>,
    /// What it did.
    pub report: Box<Report>,
    /// How long it ran.
    pub duration: Duration,
}

/// A transaction that was committed, seen in the origin after it.
#[derive(Debug)]
pub struct Committed {
    /// What it did.
    pub report: Box<Report>,
    /// How long it ran.
    pub duration: Duration,
}

/// What the origin needs when the branch has ended.
#[derive(Debug)]
struct Afterwards {
    offsets: Offsets,
    containment: Containment,
    started: Instant,
    memory_limit: bool,
}

/// Begins a transaction.
///
/// # Errors
/// What cannot be contained, before anything has happened.
pub fn begin(options: &Options) -> Result<Begun, BeginError> {
    check_descriptors()?;
    let containment = Containment::from_gaps(options.without.iter().map(gap_without).collect());
    let after = Afterwards {
        offsets: Offsets::capture(),
        containment: containment.clone(),
        started: Instant::now(),
        memory_limit: options.memory_limit.is_some(),
    };
    let wishes = Wishes {
        timeout: options.timeout,
        memory_limit: options.memory_limit,
        decide: options.decide,
        entry: None,
    };
    Ok(match transplant::begin(&wishes)? {
        transplant::Begun::Inside(inner) => {
            Begun::Inside(Branch { inner, containment, started: after.started })
        }
        transplant::Begun::Frozen(inner) => Begun::Frozen(Frozen { inner, after }),
        transplant::Begun::Ended(ended) => Begun::Ended(after.ended(ended)),
    })
}

fn gap_without(layer: Layer) -> Gap {
    Gap { layer, reason: format!("asked for without {layer}") }
}

fn check_descriptors() -> Result<(), BeginError> {
    for (number, open) in open_descriptors().map_err(BeginError::ListDescriptors)? {
        if let Open::Uncontained(kind) = open {
            return Err(BeginError::Descriptor { number, kind });
        }
    }
    Ok(())
}

impl Branch {
    /// Commits: on `Ok` the caller is the origin process with the branch's memory.
    ///
    /// # Errors
    /// The reasons; the caller is still the branch and goes on.
    pub fn commit(&mut self) -> Result<Committed, CommitRefused> {
        let committed = self.inner.commit()?;
        Ok(Committed {
            report: Box::new(Report::new(self.containment.clone(), committed.counts.into())),
            duration: self.started.elapsed(),
        })
    }

    /// Ends the branch; `begin` returns in the origin with the payload.
    pub fn rollback(&mut self, payload: &[u8]) -> ! {
        self.inner.rollback(payload)
    }

    /// What the branch has changed in memory so far.
    pub fn memory_changes(&mut self) -> MemoryChanges {
        self.inner.measure().into()
    }
}

impl Frozen {
    /// Commits; returns only when that is refused and the branch has gone on to something else.
    #[must_use]
    pub fn commit(self) -> Begun {
        match self.inner.commit() {
            transplant::Begun::Frozen(inner) => Begun::Frozen(Frozen { inner, after: self.after }),
            transplant::Begun::Ended(ended) => Begun::Ended(self.after.ended(ended)),
            transplant::Begun::Inside(_) => unreachable!("only begin returns in the branch"),
        }
    }

    /// Rolls back.
    #[must_use]
    pub fn rollback(self) -> Ended {
        let ended = self.inner.rollback();
        self.after.ended(ended)
    }

    /// How far the branch is contained.
    #[must_use]
    pub fn containment(&self) -> &Containment {
        &self.after.containment
    }
}

impl Afterwards {
    fn ended(self, ended: transplant::Ended) -> Ended {
        self.offsets.restore();
        Ended {
            cause: Cause::of(ended.ending, self.memory_limit),
            payload: ended.payload,
            report: Box::new(Report::new(self.containment, MemoryChanges::default())),
            duration: self.started.elapsed(),
        }
    }
}
