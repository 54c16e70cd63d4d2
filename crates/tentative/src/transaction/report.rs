//! What a finished transaction did, and why it ended.

use tentative_sys::transplant::{Counts, Ending};

use crate::{
    change::Change, containment::Containment, effect::Effect, live::protocol::Findings, verdict::Verdict,
};

/// Why a transaction was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The branch asked for it.
    Asked,
    /// The branch ended itself with this status.
    Exited(i32),
    /// This signal ended the branch.
    Crashed(i32),
    /// It ran longer than allowed.
    TimedOut,
    /// The monitor died.
    MonitorLost,
}

impl Cause {
    pub(super) fn of(ending: Ending) -> Cause {
        match ending {
            Ending::Asked => Cause::Asked,
            Ending::Exited(code) => Cause::Exited(code),
            Ending::Killed(signal) => Cause::Crashed(signal),
            Ending::TimedOut => Cause::TimedOut,
            Ending::MonitorLost => Cause::MonitorLost,
        }
    }
}

/// What changed in memory, in pages of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryChanges {
    /// Pages whose content differs.
    pub pages_changed: u64,
    /// Pages in new mappings.
    pub pages_new: u64,
    /// Pages that were dropped.
    pub pages_dropped: u64,
    /// New mappings.
    pub mappings_new: u64,
    /// Mappings that are gone.
    pub mappings_gone: u64,
    /// Changed pages of the program break's heap.
    pub heap: u64,
    /// Changed pages of the main stack.
    pub stack: u64,
    /// Changed pages of private file mappings, which is library data.
    pub file: u64,
    /// Changed pages of anonymous mappings.
    pub anonymous: u64,
}

impl From<Counts> for MemoryChanges {
    fn from(counts: Counts) -> MemoryChanges {
        MemoryChanges {
            pages_changed: counts.pages_changed,
            pages_new: counts.pages_new,
            pages_dropped: counts.pages_dropped,
            mappings_new: counts.mappings_new,
            mappings_gone: counts.mappings_gone,
            heap: counts.heap,
            stack: counts.stack,
            file: counts.file,
            anonymous: counts.anonymous,
        }
    }
}

/// What a finished transaction did.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was or would have been applied.
    pub changes: Vec<Change>,
    /// What crossed the sandbox.
    pub effects: Vec<Effect>,
    /// Was it safe to roll back, to commit?
    pub verdict: Verdict,
    /// How far it was contained.
    pub containment: Containment,
    /// What changed in memory.
    pub memory: MemoryChanges,
    /// What went wrong while the committed files were put in place; `tentative recover` goes on with it.
    pub unfinished: Option<String>,
    /// What it wrote to its standard output, where that was captured.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error, where that was captured.
    pub stderr: Vec<u8>,
}

impl Report {
    pub(super) fn new(
        containment: Containment,
        memory: MemoryChanges,
        findings: Findings,
        (stdout, stderr): (Vec<u8>, Vec<u8>),
    ) -> Report {
        Report {
            verdict: Verdict::judge(&findings.effects, &containment, &findings.conflicts),
            changes: findings.changes,
            effects: findings.effects,
            unfinished: findings.unfinished,
            containment,
            memory,
            stdout,
            stderr,
        }
    }

    /// Adds changes of other layers than files.
    pub(super) fn add_changes(&mut self, changes: Vec<Change>) {
        self.changes.extend(changes);
    }
}
