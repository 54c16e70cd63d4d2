//! `tentative show`: the whole report of one transaction.

use std::path::Path;

use tentative::{
    files::conflict::conflicts,
    program::output::{self, Stream},
    record::{Record, State},
    store::{Id, Store},
    verdict::Verdict,
};
use tentative_report::{Detail, json, summary};

use crate::{End, arguments::Show as Arguments, error::CommandError, selection, streams::Streams};

/// Prints the report, or the JSON document.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    let store = selection::open_store(streams)?;
    let id = selection::named_or_latest(&store, arguments.id.as_deref())?;
    let record = selection::record(&store, &id)?;
    if arguments.output {
        return print_output(&store.root().join(id.as_str()), streams);
    }
    let record = judged_now(&store, &id, record)?;
    if arguments.json {
        streams.print(&json::record(&record))?;
        return Ok(End::WELL);
    }
    let state = summary::state(record.state);
    streams.print(&format!("{} {state}\n", streams.out.heading(id.as_str())))?;
    streams.print(&summary::report(&record, Detail::Full, streams.out))?;
    Ok(End::WELL)
}

/// The record with the verdict of now: others may have changed since what a commit would change.
fn judged_now(store: &Store, id: &Id, record: Record) -> Result<Record, CommandError> {
    let Some(plan) = store.plan(id)?.filter(|_| record.state == State::Pending && !record.changes.is_empty())
    else {
        return Ok(record);
    };
    // What cannot be compared now is told by the commit.
    let Ok(conflicts) = conflicts(&plan, None) else { return Ok(record) };
    let conflicts: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
    let verdict = Verdict::judge(&record.effects, &record.containment, &conflicts);
    Ok(Record { verdict, ..record })
}

/// Prints held output, each piece on the stream that it was written to.
fn print_output(directory: &Path, streams: &Streams) -> Result<End, CommandError> {
    for (stream, piece) in output::read(directory)? {
        match stream {
            Stream::Output => streams.print_bytes(&piece)?,
            Stream::Error => streams.say_bytes(&piece),
        }
    }
    Ok(End::WELL)
}
