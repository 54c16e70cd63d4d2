//! The command line: `run(args) -> ExitCode`, one file for each verb.
//!
//! Standard output carries what was asked for (lists, diffs, JSON); reports, questions and errors go to standard error.
//! No decision about transactions is made here that the library could make.

#![forbid(unsafe_code)]

pub mod arguments;
mod decision;
mod difference;
mod error;
mod probes;
mod question;
mod selection;
mod streams;
mod values;
mod verbs;

use std::{ffi::OsString, process::ExitCode};

use arguments::{Arguments, Verb};
use error::{CommandError, Kind};
use streams::Streams;

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an exit status.
    Status(u8),
    /// By a signal, as the program did.
    Signal(i32),
}

impl End {
    /// The verb did what it was asked for.
    pub(crate) const WELL: End = End::Status(0);
}

/// Runs the command line (the program's own name first) and returns the exit status of docs/reference/command-line.md.
///
/// If the program that was run was killed by a signal, this does not return: the process ends by the same signal.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let streams = Streams::of_this_process();
    let end = match arguments::parse(arguments.into_iter().collect()) {
        Ok((arguments, policy)) => dispatch(arguments, policy, &streams),
        Err(error) => explain_parse(&error, &streams),
    };
    let end = end.unwrap_or_else(|error| fail(&error, &streams));
    match end {
        End::Status(status) => ExitCode::from(status),
        End::Signal(number) => {
            tentative_sys::ending::end_by_signal(number);
            // Only a number that ends no process comes here; shells name it the same way.
            ExitCode::from(u8::try_from(128 + number).unwrap_or(Kind::Internal.status()))
        }
    }
}

fn dispatch(
    arguments: Arguments,
    policy: tentative::policy::Policy,
    streams: &Streams,
) -> Result<End, CommandError> {
    match arguments.verb {
        Verb::Run(arguments) => verbs::run::run(&arguments, policy, streams),
        Verb::List(arguments) => verbs::list::run(&arguments, streams),
        Verb::Show(arguments) => verbs::show::run(&arguments, streams),
        Verb::Diff(arguments) => verbs::diff::run(&arguments, streams),
        Verb::Commit(arguments) => verbs::commit::run(&arguments, streams),
        Verb::Rollback(arguments) => verbs::rollback::run(&arguments, streams),
        Verb::Recover(arguments) => verbs::recover::run(&arguments, streams),
        Verb::Doctor(arguments) => verbs::doctor::run(&arguments, streams),
        Verb::Pathways(arguments) => verbs::pathways::run(&arguments, streams),
        Verb::Monitor(arguments) => verbs::monitor::run(&arguments),
        Verb::Probe(arguments) => verbs::probe::run(&arguments, streams),
    }
}

/// Says why, and gives the exit status of the kind.
fn fail(error: &CommandError, streams: &Streams) -> End {
    if error.kind == Kind::BrokenPipe {
        // What every other tool does when its reader went away: `tentative list | head -1`.
        return End::Signal(13);
    }
    streams.say(&error.render(streams.err));
    End::Status(error.kind.status())
}

/// Help and version are what was asked for; everything else that the parser says is a wrong command line.
fn explain_parse(error: &clap::Error, streams: &Streams) -> Result<End, CommandError> {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            streams.print(&streams.out_styled(&error.render()))?;
            Ok(End::WELL)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            streams.say(&streams.err_styled(&error.render()));
            Ok(End::Status(Kind::Usage.status()))
        }
        _ => Err(arguments::explain(error)),
    }
}
