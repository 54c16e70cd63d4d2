//! Which store, and which transaction of it, a verb is about.
//!
//! Opening the store recovers it first, at every start, so that no verb sees what a crash has left half done.

use tentative::{
    record::{Record, State},
    store::{Id, Outcome, Recovered, ResolveError, Store, StoreError, Summary},
};
use tentative_report::{
    json::Recovery,
    listing::{self, Row},
};

use crate::{
    decision,
    error::{CommandError, Kind},
    streams::Streams,
};

/// Opens the user's store and recovers it; says on standard error what that did.
pub(crate) fn open_store(streams: &Streams) -> Result<Store, CommandError> {
    let store = Store::open_default()?;
    match store.recover() {
        Ok(recovered) => {
            for one in recovered {
                let told = recovery(&one);
                streams.say(&format!("{} {}: {}\n", streams.err.warning("recovered"), told.id, told.done));
            }
        }
        // The verb may still work: the trouble may be with one transaction that it is not about.
        Err(error) => {
            let error = CommandError::from(error).context("cannot recover the store");
            streams.say(&error.render(streams.err));
        }
    }
    Ok(store)
}

/// What a recovery did, in words.
pub(crate) fn recovery(recovered: &Recovered) -> Recovery {
    let (state, done) = match &recovered.outcome {
        Outcome::RolledForward { kept } => {
            let finished = "its commit had been interrupted and is finished now";
            (State::Committed, format!("{finished}{}", decision::others_in_words(kept)))
        }
        Outcome::Discarded => {
            (State::RolledBack, "its process had died; discarded, nothing was changed".to_owned())
        }
        Outcome::Kept => {
            (State::Pending, "its process had died after the program ended; it is pending".to_owned())
        }
        Outcome::Torn => (
            State::RolledBack,
            "the machine stopped before its files were on disk; they may be torn, so it was discarded"
                .to_owned(),
        ),
        Outcome::Orphaned { store } => (
            State::RolledBack,
            format!(
                "its store {} is gone; what it had on another file system is removed",
                tentative_report::printable::printable(&store.display().to_string())
            ),
        ),
        Outcome::Stuck { state, reason } => {
            (*state, format!("it cannot be finished yet ({reason}); the next start tries again"))
        }
    };
    Recovery { id: recovered.id.to_string(), state, done }
}

/// The record of a transaction whose code has ended.
pub(crate) fn record(store: &Store, id: &Id) -> Result<Record, CommandError> {
    let runs = || {
        CommandError::usage(format!("{id} is running or in use by another process"))
            .hint("what it did can be shown when its code has ended")
    };
    match store.record(id) {
        Ok(record) if record.state == State::Running => Err(runs()),
        // Made ahead by a live process, or not begun yet.
        Err(StoreError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Err(runs()),
        other => Ok(other?),
    }
}

/// The rows of the table of transactions. What a live process has made ahead is none of them.
pub(crate) fn rows(summaries: &[Summary]) -> Vec<Row> {
    summaries
        .iter()
        .filter(|summary| summary.state != State::Running || !summary.program.is_empty())
        .map(|summary| Row {
            id: summary.id.to_string(),
            state: summary.state,
            program: summary.program.clone(),
            exit_status: summary.exit_status,
            started_ns: summary.started_ns,
            size_bytes: summary.bytes,
            changes: summary.changes as u64,
            effects: summary.effects as u64,
        })
        .collect()
}

/// The wall-clock time, nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The transaction that was named, or the latest pending one.
pub(crate) fn named_or_latest(store: &Store, name: Option<&str>) -> Result<Id, CommandError> {
    if let Some(name) = name {
        return named(store, name);
    }
    pending(store)?.pop().map(|summary| summary.id).ok_or_else(nothing_pending)
}

/// The transaction that was named, or the only pending one; several are listed.
pub(crate) fn named_or_only(
    store: &Store,
    name: Option<&str>,
    streams: &Streams,
) -> Result<Id, CommandError> {
    if let Some(name) = name {
        return named(store, name);
    }
    let mut pending = pending(store)?;
    match (pending.pop(), pending.is_empty()) {
        (None, _) => Err(nothing_pending()),
        (Some(only), true) => Ok(only.id),
        (Some(last), false) => {
            pending.push(last);
            let number = pending.len();
            streams.say(&listing::table(&rows(&pending), now_ns(), streams.err));
            Err(CommandError::usage(format!("{number} transactions are pending; which one?"))
                .hint("name one by its id, or by the first digits of it"))
        }
    }
}

fn named(store: &Store, name: &str) -> Result<Id, CommandError> {
    store.resolve(name).map_err(|error| match error {
        ResolveError::Unknown(_) => CommandError::new(Kind::Usage, error)
            .hint("'tentative list' shows those that are there; what was committed or rolled back is not"),
        ResolveError::Ambiguous { .. } => CommandError::new(Kind::Usage, error).hint("give more digits"),
        ResolveError::Store(error) => error.into(),
        _ => CommandError::new(Kind::Internal, error),
    })
}

fn pending(store: &Store) -> Result<Vec<Summary>, CommandError> {
    let mut list = store.list()?;
    list.retain(|summary| summary.state == State::Pending);
    Ok(list)
}

fn nothing_pending() -> CommandError {
    CommandError::usage("no transaction is pending").hint("'tentative run -- PROGRAM' makes one")
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> CommandError {
        match &error {
            StoreError::NoHome => {
                CommandError::new(Kind::Machine, error).hint("set TENTATIVE_HOME to a directory that you can write to")
            }
            StoreError::Foreign(_) => CommandError::new(Kind::Machine, error)
                .hint("set TENTATIVE_HOME to a directory of your own"),
            StoreError::Format { .. } => CommandError::new(Kind::Machine, error)
                .hint("another version of tentative made it: use that one, or set TENTATIVE_HOME to another directory"),
            StoreError::Busy(_) => {
                CommandError::new(Kind::Usage, error).hint("wait until it has ended; 'tentative list' shows its state")
            }
            StoreError::Committed(_) => CommandError::new(Kind::Refused, error).hint(
                "'tentative recover' finishes it, or says what is in its way; what was decided cannot be rolled back",
            ),
            StoreError::NotPending(_) => CommandError::new(Kind::Usage, error)
                .hint("only a pending transaction can be decided; 'tentative list' shows which are"),
            StoreError::Open { source, .. }
            | StoreError::Read { source, .. }
            | StoreError::Write { source, .. }
            | StoreError::Remove { source, .. }
            | StoreError::Sync { source, .. } => {
                let hint = hint_of(source);
                let error = CommandError::new(Kind::Machine, error);
                match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            }
            _ => CommandError::new(Kind::Internal, error),
        }
    }
}

/// The way out of an error of the file system under the store.
fn hint_of(error: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(
            "the disk is full: free some space ('tentative list' shows what pending transactions take), or set \
             TENTATIVE_HOME to a directory on another one",
        ),
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::NotADirectory
        | ErrorKind::AlreadyExists => Some("set TENTATIVE_HOME to a directory that you can write to"),
        _ => None,
    }
}
