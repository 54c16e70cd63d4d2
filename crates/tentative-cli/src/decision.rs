//! Carrying out a decision: putting the changes of a transaction in place, or discarding them.
//!
//! A refused commit gives the transaction back as it was; whoever asked keeps it. Nothing is asked here.

use std::path::PathBuf;

use tentative::{
    files::{
        conflict::{Conflict, ConflictKind},
        stage::{StageError, StageOptions, stage},
    },
    program::output,
    store::{Id, Transaction},
    verdict::Judgement,
};
use tentative_report::printable::printable;

use crate::error::{CommandError, Kind};

/// How many conflicts an error lists.
const LISTED: usize = 20;

/// A commit that was refused: the transaction as it was, and why.
pub(crate) struct Refused {
    /// The transaction; none if it is past the point where it could be given back.
    pub(crate) transaction: Option<Transaction>,
    /// Why, for people.
    pub(crate) error: CommandError,
    /// Why, for programs.
    pub(crate) reasons: Judgement,
}

/// Commits a transaction whose sandbox is gone; returns where what others made at the last moment was put.
pub(crate) fn commit(transaction: Transaction) -> Result<Vec<PathBuf>, Box<Refused>> {
    let id = transaction.id().clone();
    let staged = match stage(transaction, StageOptions::default()) {
        Ok(staged) => staged,
        Err((transaction, error)) => {
            let reasons = Judgement::from_reasons(reasons(&error));
            let error = explain(error, &id);
            return Err(Box::new(Refused { transaction: Some(transaction), error, reasons }));
        }
    };
    let unfinished = |error: CommandError| {
        let reasons = Judgement::from_reasons(vec![error.to_string()]);
        let error = error.hint("it is finished by the next start, or by 'tentative recover'");
        Box::new(Refused { transaction: None, error, reasons })
    };
    let published = staged.publish().map_err(|error| {
        unfinished(
            CommandError::new(Kind::Refused, error).context(format!("cannot say whether {id} was committed")),
        )
    })?;
    // Past the commit point: from here on the changes will be in place, now or later.
    let applied = published.apply().map_err(|error| {
        unfinished(
            CommandError::new(Kind::Refused, error)
                .context(format!("{id} is committed, but not all is in place")),
        )
    })?;
    // The program's output is part of what was decided; a reader that went away changes nothing about the files.
    if let Err(error) = output::deliver(applied.transaction().dir())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(unfinished(CommandError::from(error).context("cannot deliver the held output")));
    }
    let kept = applied.kept().to_vec();
    applied.finish().map(|()| kept).map_err(|error| {
        unfinished(
            CommandError::from(error).context(format!("{id} is committed, but its remains are still there")),
        )
    })
}

/// What is told of things that others made or wrote after a commit was decided; empty when there are none.
pub(crate) fn others_in_words(kept: &[PathBuf]) -> String {
    if kept.is_empty() {
        return String::new();
    }
    let paths: Vec<String> =
        kept.iter().map(|path| printable(&path.display().to_string()).into_owned()).collect();
    format!("; what others made there meanwhile is kept as {}", paths.join(", "))
}

fn reasons(error: &StageError) -> Vec<String> {
    match error {
        StageError::Conflicts(conflicts) => conflicts.iter().map(ToString::to_string).collect(),
        other => vec![other.to_string()],
    }
}

/// What can be done about conflicts. A file's time of change cannot be put back, nor can a file that was removed be the
/// same one again: this work can then no more be committed, though done again.
fn way_out_of(conflicts: &[Conflict], id: &Id) -> String {
    let any = |kinds: fn(ConflictKind) -> bool| conflicts.iter().any(|conflict| kinds(conflict.kind));
    if any(|kind| matches!(kind, ConflictKind::Changed | ConflictKind::Vanished)) {
        return format!(
            "run it again to have it on top of what others did; 'tentative diff {id}' shows what this run did, \
             'tentative rollback {id}' discards it"
        );
    }
    if any(ConflictKind::is_of_names) {
        return format!(
            "run it again as root, who has no such conflicts, or such that it changes each file through one of its names; \
             'tentative diff {id}' shows what this run did, 'tentative rollback {id}' discards it"
        );
    }
    let made = any(|kind| kind == ConflictKind::Appeared).then_some("move away what others made");
    let replaced =
        any(|kind| kind == ConflictKind::Replaced).then_some("put the directories back that others moved");
    let locked =
        any(|kind| matches!(kind, ConflictKind::Locked(_))).then_some("wait until the locks are released");
    let first: Vec<&str> = made.into_iter().chain(replaced).chain(locked).collect();
    format!("{} and commit again, or roll back", first.join(", "))
}

fn explain(error: StageError, id: &Id) -> CommandError {
    let way_out = match &error {
        StageError::Conflicts(conflicts) => way_out_of(conflicts, id),
        StageError::Permission { .. } => "commit as a user who may change it".to_owned(),
        StageError::Protected { .. } => "take that away (chattr -i -a) and commit again".to_owned(),
        StageError::Attribute { .. } => {
            format!("run it again without setting that, or roll back; 'tentative diff {id}' shows the rest")
        }
        StageError::Room { .. } => "free some space on that file system and commit again".to_owned(),
        StageError::TooDeep { .. } => format!("'tentative rollback {id}' discards it"),
        _ => "once the cause is gone, commit again".to_owned(),
    };
    let details: Vec<String> = match &error {
        StageError::Conflicts(conflicts) => {
            let mut details: Vec<String> = conflicts
                .iter()
                .take(LISTED)
                .map(|conflict| printable(&conflict.to_string()).into_owned())
                .collect();
            if conflicts.len() > LISTED {
                details.push(format!("… and {} more", conflicts.len() - LISTED));
            }
            details
        }
        _ => Vec::new(),
    };
    let error = CommandError::new(Kind::Refused, error)
        .context(format!("{id} cannot be committed; nothing was changed"));
    details.into_iter().fold(error, CommandError::detail).hint(format!("the work is kept as {id}; {way_out}"))
}
