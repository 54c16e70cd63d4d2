//! The command line: `run(args) -> ExitCode`, one file for each verb.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Runs the command line and returns the exit status of INTERFACE's table.
#[must_use]
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
