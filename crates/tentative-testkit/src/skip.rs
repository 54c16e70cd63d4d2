//! Loud skips: a test that cannot run here says so on standard error and in the harness's log.
//!
//! The harness compares the log with `tests/allowed-skips.txt` and fails in CI when a skip is not named there, so a
//! skip never passes for a success.

use std::{env, fs::OpenOptions, io::Write};

/// Variable that names the file to which the harness wants skips written, one a line: test, tab, reason.
pub const LOG: &str = "TENTATIVE_SKIP_LOG";

/// Records that a test did not run. Used by [`require!`](crate::require).
///
/// # Panics
///
/// When the harness named a log that cannot be written: a skip must not get lost.
pub fn record(test: &str, reason: &str) {
    let line = format!("{test}\t{reason}\n");
    eprint_loud(&line);
    let Some(log) = env::var_os(LOG) else { return };
    let mut file =
        OpenOptions::new().append(true).create(true).open(log).expect("the skip log can be opened");
    file.write_all(line.as_bytes()).expect("the skip log can be written");
}

/// Says it where a person sees it, also under a test runner that captures printed lines.
fn eprint_loud(line: &str) {
    let written = std::io::stderr().write_all(format!("SKIPPED {line}").as_bytes());
    // Without a standard error only the log is left, and that one is checked.
    drop(written);
}

/// Ends the test loudly unless the machine has the given [`Feature`](crate::Feature)s.
#[macro_export]
macro_rules! require {
    ($($feature:expr),+ $(,)?) => {
        $(if let Err(reason) = $feature.available() {
            let thread = ::std::thread::current();
            let binary = module_path!().split("::").next().unwrap_or_default();
            let test = format!("{binary}::{}", thread.name().unwrap_or("main"));
            $crate::skip::record(&test, &reason.to_string());
            return;
        })+
    };
}
