//! `tentative probe NAME` (hidden): one probe of `doctor` in a process of its own.
//!
//! Standard output carries the result as one JSON object; the process changes itself for good and ends.

use std::io::Read;

use serde_json::json;
use tentative::store::{StoreError, default_root};

use crate::{
    End,
    arguments::Probe as Arguments,
    error::CommandError,
    probes::{self, Failure},
    streams::Streams,
};

/// Runs the probe.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    if arguments.name == probes::PAUSE {
        return pause(streams);
    }
    let probe = probes::by_name(&arguments.name)
        .ok_or_else(|| CommandError::usage(format!("no probe is called '{}'", arguments.name)))?;
    let document = match (probe.attempt)(&default_root().ok_or(StoreError::NoHome)?) {
        Ok(found) => json!({ "works": true, "found": found, "remedy": null }),
        Err(Failure { found, remedy }) => json!({ "works": false, "found": found, "remedy": remedy }),
    };
    streams.print(&document.to_string())?;
    Ok(End::WELL)
}

/// Says that it runs and waits until standard input ends, which it does when the probe that needs it ends.
fn pause(streams: &Streams) -> Result<End, CommandError> {
    streams.print("p")?;
    std::io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(End::WELL)
}
