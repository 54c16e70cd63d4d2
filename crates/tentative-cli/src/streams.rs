//! The standard streams of the command, and whether they are coloured.
//!
//! Standard output is only for what a verb was asked to print. A message that cannot be written to standard error is
//! dropped: there is nobody left to tell.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use clap::builder::StyledStr;
use tentative_report::paint::Palette;

use crate::error::CommandError;

/// The streams of the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// Colours of standard output.
    pub(crate) out: Palette,
    /// Colours of standard error.
    pub(crate) err: Palette,
}

impl Streams {
    /// The process's own streams: coloured on terminals, unless `NO_COLOR` and its like say otherwise.
    pub(crate) fn of_this_process() -> Streams {
        let coloured = |choice: ColorChoice| Palette::new(!matches!(choice, ColorChoice::Never));
        Streams {
            out: coloured(AutoStream::choice(&io::stdout())),
            err: coloured(AutoStream::choice(&io::stderr())),
        }
    }

    /// Prints what was asked for.
    pub(crate) fn print(&self, text: &str) -> Result<(), CommandError> {
        self.print_bytes(text.as_bytes())
    }

    /// Prints what was asked for, byte for byte.
    pub(crate) fn print_bytes(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }

    /// Writes to standard error.
    pub(crate) fn say(&self, text: &str) {
        self.say_bytes(text.as_bytes());
    }

    /// Writes to standard error, byte for byte.
    pub(crate) fn say_bytes(&self, bytes: &[u8]) {
        let mut stderr = io::stderr().lock();
        // Nobody is left to be told when this fails.
        let _ = stderr.write_all(bytes);
        let _ = stderr.flush();
    }

    /// A text of the parser, for standard output.
    pub(crate) fn out_styled(&self, text: &StyledStr) -> String {
        styled(text, self.out)
    }

    /// A text of the parser, for standard error.
    pub(crate) fn err_styled(&self, text: &StyledStr) -> String {
        styled(text, self.err)
    }

    /// Whether standard error leads to a person.
    pub(crate) fn error_is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }
}

fn styled(text: &StyledStr, palette: Palette) -> String {
    if palette == Palette::COLOUR { text.ansi().to_string() } else { text.to_string() }
}
