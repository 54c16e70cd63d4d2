//! Interleaved pairs of durations, printed as one line of JSON for each row.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Result;

/// One row of the table: what is compared with what, and how large the ratio may be.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What is measured.
    pub what: &'static str,
    /// What it is divided by.
    pub against: &'static str,
    /// The bar for the ratio.
    pub at_most: f64,
}

/// Runs both sides in turn and prints the pairs in milliseconds. The first pair only warms up and is dropped.
///
/// # Errors
///
/// The first failure of either side: a benchmark of something that fails says nothing.
pub fn print(
    row: Row,
    pairs: usize,
    mut ours: impl FnMut() -> Result<Duration>,
    mut theirs: impl FnMut() -> Result<Duration>,
) -> Result<()> {
    let mut measured = Vec::with_capacity(pairs);
    for number in 0..=pairs {
        // Who comes first changes, so that neither always finds the caches warm.
        let (a, b) = if number % 2 == 0 {
            let first = ours()?;
            (first, theirs()?)
        } else {
            let first = theirs()?;
            (ours()?, first)
        };
        if number > 0 {
            measured.push([a.as_secs_f64() * 1e3, b.as_secs_f64() * 1e3]);
        }
    }
    let line = serde_json::json!({
        "what": row.what, "against": row.against, "at_most": row.at_most, "pairs_ms": measured,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// How long something takes that returns a result.
///
/// # Errors
///
/// What it returned.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}
