//! `tentative rollback`: discards a pending transaction.

use tentative::record::State;
use tentative_report::{json, summary};

use crate::{End, arguments::Decide as Arguments, error::CommandError, selection, streams::Streams};

/// Discards it and says so.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    let store = selection::open_store(streams)?;
    let id = selection::named_or_only(&store, arguments.id.as_deref(), streams)?;
    let transaction = store.load(&id)?;
    // What was kept without one can be discarded all the same.
    let record = transaction.record();
    transaction.discard()?;
    let outside = record.map_or_else(|_| String::new(), |record| format!("; {}", summary::outside(&record)));
    streams.say(&format!("rolled back {id}{outside}\n"));
    if arguments.json {
        streams.print(&json::decision(id.as_str(), State::RolledBack, None))?;
    }
    Ok(End::WELL)
}
