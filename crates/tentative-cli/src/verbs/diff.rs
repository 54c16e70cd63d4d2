//! `tentative diff`: the changes of one transaction, line by line.

use tentative::change::Subject;
use tentative_report::sentences;

use crate::{
    End, arguments::Diff as Arguments, difference, error::CommandError, selection, streams::Streams,
};

/// Prints the differences.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    let store = selection::open_store(streams)?;
    let id = selection::named_or_latest(&store, arguments.id.as_deref())?;
    let record = selection::record(&store, &id)?;
    if let Some(plan) = store.plan(&id)? {
        difference::print(&plan, streams.out, |text| streams.print(text))?;
        streams.say(&difference::what_others_changed(&plan));
    }
    // Changes of other layers have no lines to compare.
    for change in record.changes {
        if matches!(change.subject, Subject::Name(_)) {
            streams.print(&format!("{}\n", sentences::of_change(&change)))?;
        }
    }
    Ok(End::WELL)
}
