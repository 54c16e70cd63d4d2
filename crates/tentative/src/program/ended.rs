//! How a program ended, what it changed and whether it is safe to take that back or to keep it.
//!
//! Saves the record; decides nothing.

use std::time::Duration;

use super::{
    ProgramOptions, RunError,
    inherited::effect,
    output::{self, Stream},
};
use crate::{
    containment::{Containment, Gap},
    effect::{Class, Decision, Effect},
    files::{
        changes::{FileChange, changes},
        conflict::conflicts,
        plan::Plan,
    },
    layer::Layer,
    monitor::Log,
    process::MEMORY_LIMIT_BY,
    record::{FORMAT, Record, State},
    store::Transaction,
    verdict::Verdict,
};

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It exited with this status.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
}

impl How {
    /// The status as a shell shows it: 128 and the signal's number for a signal.
    #[must_use]
    pub const fn status(self) -> i32 {
        match self {
            How::Exited(code) => code,
            How::Signalled(signal) => 128 + signal,
        }
    }
}

/// A program that was run tentatively.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub how: How,
    /// Whether that was because its time was over.
    pub timed_out: bool,
    /// The means that limited its memory, if a limit was asked for.
    pub memory_limit_by: Option<&'static str>,
    /// Whether it ran inside another transaction, with which it goes.
    pub is_inside: bool,
    /// What it did; saved with the transaction if there is something to decide.
    pub record: Record,
}

/// What is known when the sandbox is gone.
pub(super) struct Done {
    pub(super) how: How,
    pub(super) timed_out: bool,
    pub(super) is_inside: bool,
    pub(super) started_ns: u64,
    pub(super) duration: Duration,
    pub(super) effects: Vec<Effect>,
    pub(super) found: Found,
}

/// What lies in the upper directories, and what others changed meanwhile.
pub(super) struct Found {
    changes: Vec<FileChange>,
    conflicting: Vec<String>,
}

/// Looks at the changes; nobody inside may still be able to make one.
pub(super) fn look(plan: Option<&Plan>) -> Result<Found, RunError> {
    let changes = plan.map(changes).transpose().map_err(RunError::Changes)?.unwrap_or_default();
    let conflicting = match (plan, changes.is_empty()) {
        (Some(plan), false) => conflicts(plan, None).map_err(RunError::Changes)?,
        _ => Vec::new(),
    };
    Ok(Found { changes, conflicting: conflicting.iter().map(ToString::to_string).collect() })
}

/// What a list of transactions shows while the program runs.
pub(super) fn running(options: &ProgramOptions, transaction: &Transaction, started_ns: u64) -> Record {
    let containment = Containment::Full;
    Record {
        format: FORMAT.to_owned(),
        id: transaction.id().to_string(),
        state: State::Running,
        program: words(options),
        exit_status: None,
        started_ns,
        duration_ns: 0,
        changes: Vec::new(),
        effects: Vec::new(),
        verdict: Verdict::judge(&[], &containment, &[]),
        containment,
    }
}

fn words(options: &ProgramOptions) -> Vec<String> {
    options.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Judges, and saves record and plan if there is something to decide.
pub(super) fn conclude(
    done: Done,
    options: &ProgramOptions,
    transaction: &Transaction,
    plan: Option<&Plan>,
) -> Result<Ended, RunError> {
    let containment = Containment::from_gaps(gaps(options, plan));
    let held = held(transaction)?;
    let record = Record {
        format: FORMAT.to_owned(),
        id: transaction.id().to_string(),
        state: State::Pending,
        program: words(options),
        exit_status: Some(done.how.status()),
        started_ns: done.started_ns,
        duration_ns: u64::try_from(done.duration.as_nanos()).unwrap_or(u64::MAX),
        changes: done.found.changes.iter().map(FileChange::to_change).collect(),
        verdict: Verdict::judge(&done.effects, &containment, &done.found.conflicting),
        effects: numbered(done.effects, held),
        containment,
    };
    if !record.changes.is_empty() || output::is_there(transaction.dir()) {
        transaction.save_record(&record)?;
        plan.map_or(Ok(()), |plan| transaction.save_plan(plan))?;
    }
    let memory_limit_by = options.memory_limit.map(|_| MEMORY_LIMIT_BY);
    let Done { how, timed_out, is_inside, .. } = done;
    Ok(Ended { how, timed_out, memory_limit_by, is_inside, record })
}

/// Output that waits for the commit, as effects.
fn held(transaction: &Transaction) -> Result<Vec<Effect>, RunError> {
    let pieces = output::read(transaction.dir()).map_err(RunError::Hold)?;
    let length = |wanted: Stream| -> usize {
        pieces.iter().filter(|(stream, _)| *stream == wanted).map(|(_, piece)| piece.len()).sum()
    };
    let streams = [(Stream::Output, "standard output"), (Stream::Error, "standard error")];
    let streams =
        streams.into_iter().map(|(stream, name)| (name, length(stream))).filter(|(_, length)| *length > 0);
    Ok(streams
        .map(|(name, length)| Effect {
            hint: Some(format!("'tentative show --output {}' prints what is held", transaction.id())),
            ..effect(Class::Held, Decision::Allowed, "write", format!("{name} ({length} bytes)"))
        })
        .collect())
}

/// More effects after those of the log, numbered on.
fn numbered(mut effects: Vec<Effect>, more: Vec<Effect>) -> Vec<Effect> {
    let next = effects.iter().map(|effect| effect.id).max().unwrap_or(0) + 1;
    effects.extend((next..).zip(more).map(|(id, effect)| Effect { id, ..effect }));
    effects
}

fn gaps(options: &ProgramOptions, plan: Option<&Plan>) -> Vec<Gap> {
    let without = options.without.iter().map(Gap::without);
    without.chain(plan.map(|plan| plan.gaps.clone()).unwrap_or_default()).collect()
}

/// Records that processes outlived the program and were ended with it.
pub(super) fn record_leftovers(log: &mut Log, count: usize) {
    let target = if count == 1 {
        "1 process left running".to_owned()
    } else {
        format!("{count} processes left running")
    };
    let mut effect = effect(Class::Contained, Decision::Denied, "exit", target);
    effect.layer = Layer::Kin;
    log.add(effect);
}
