//! `tentative commit`: applies the changes of a pending transaction, all or nothing.

use tentative::record::State;
use tentative_report::{changes, json};

use crate::{
    End, arguments::Decide as Arguments, decision, error::CommandError, selection, streams::Streams,
};

/// Commits it and says so.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    let store = selection::open_store(streams)?;
    let id = selection::named_or_only(&store, arguments.id.as_deref(), streams)?;
    let transaction = store.load(&id)?;
    let listed = store.record(&id)?.changes;
    // Held output is not counted.
    let tally = if listed.is_empty() { String::new() } else { format!(": {}", changes::tally(&listed)) };
    match decision::commit(transaction) {
        Ok(kept) => {
            streams.say(&format!("committed {id}{tally}{}\n", decision::others_in_words(&kept)));
            if arguments.json {
                streams.print(&json::decision(id.as_str(), State::Committed, None))?;
            }
            Ok(End::WELL)
        }
        Err(refused) => {
            if arguments.json {
                let state = if refused.transaction.is_some() { State::Pending } else { State::Committing };
                streams.print(&json::decision(id.as_str(), state, Some(&refused.reasons)))?;
            }
            Err(refused.error)
        }
    }
}
