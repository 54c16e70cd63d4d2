//! `tentative show`: the whole report of one transaction.

use std::path::Path;

use tentative::program::output::{self, Stream};
use tentative_report::{Detail, json, summary};

use crate::{End, arguments::Show as Arguments, error::CommandError, selection, streams::Streams};

/// Prints the report, or the JSON document.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    let store = selection::open_store(streams)?;
    let id = selection::named_or_latest(&store, arguments.id.as_deref())?;
    let record = store.record(&id)?;
    if arguments.output {
        return print_output(&store.root().join(id.as_str()), streams);
    }
    if arguments.json {
        streams.print(&json::record(&record))?;
        return Ok(End::WELL);
    }
    let state = summary::state(record.state);
    streams.print(&format!("{} {state}\n", streams.out.heading(id.as_str())))?;
    streams.print(&summary::report(&record, Detail::Full, streams.out))?;
    Ok(End::WELL)
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
