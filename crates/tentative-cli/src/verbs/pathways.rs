//! `tentative pathways`: every system call and what becomes of it.

use tentative::pathways;
use tentative_report::pathways as report;

use crate::{End, arguments::Pathways as Arguments, error::CommandError, streams::Streams};

/// Prints the table, the JSON document or the reference page.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    let table = pathways::table();
    let text = if arguments.json {
        report::document(table)
    } else if arguments.page {
        report::page(table)
    } else {
        report::table(table, streams.out)
    };
    streams.print(&text)?;
    Ok(End::WELL)
}
