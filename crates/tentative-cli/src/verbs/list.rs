//! `tentative list`: what is in the store, oldest first.

use tentative_report::{json, listing};

use crate::{End, arguments::List as Arguments, error::CommandError, selection, streams::Streams};

/// Prints the table, or the JSON document.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    let store = selection::open_store(streams)?;
    let rows = selection::rows(&store.list()?);
    if arguments.json {
        streams.print(&json::list(&rows))?;
    } else if rows.is_empty() {
        streams.say("nothing is pending\n");
    } else {
        streams.print(&listing::table(&rows, selection::now_ns(), streams.out))?;
    }
    Ok(End::WELL)
}
