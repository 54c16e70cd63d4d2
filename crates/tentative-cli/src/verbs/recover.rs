//! `tentative recover`: finishes commits that were interrupted and discards what cannot be kept.
//!
//! Every other verb does the same before anything else; this one says when there was nothing to do, and also removes what
//! transactions of stores that were deleted by hand have left on other file systems.

use tentative::store::{Outcome, Store, sweep};
use tentative_report::json::{self, Recovery};

use crate::{
    End,
    arguments::Recover as Arguments,
    error::{CommandError, Kind},
    selection,
    streams::Streams,
};

/// Recovers the store and prints what that did.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    let mut done = Store::open_default()?.recover()?;
    done.extend(sweep()?);
    let recovered: Vec<Recovery> = done.iter().map(selection::recovery).collect();
    if arguments.json {
        streams.print(&json::recover(&recovered))?;
    } else if recovered.is_empty() {
        streams.say("nothing to recover\n");
    } else {
        for one in &recovered {
            streams.print(&format!("{}  {}\n", one.id, one.done))?;
        }
    }
    if done.iter().any(|one| matches!(one.outcome, Outcome::Stuck { .. })) {
        return Ok(End::Status(Kind::Refused.status()));
    }
    Ok(End::WELL)
}
