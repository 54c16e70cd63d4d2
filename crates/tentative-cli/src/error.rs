//! What a verb can fail with: a kind that is an exit status, a message in lower case, hints on lines of their own.
//!
//! Kinds are few and documented (docs/reference/command-line.md); every error of the library is given one in `From`
//! impls beside the verbs that meet it.

use std::{fmt, io};

use tentative_report::paint::Palette;

/// What kind of failure it was; each is one exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The commit was refused or conflicts; the work is kept.
    Refused,
    /// This machine cannot contain what was asked, or the store cannot be used.
    Machine,
    /// An invariant was broken, or the kernel said what nobody expects.
    Internal,
    /// The command line is wrong, or names a transaction that is not there.
    Usage,
    /// The program is there and cannot be executed.
    NotExecutable,
    /// The program is not there.
    NotFound,
    /// Whoever read our output went away: not worth a message.
    BrokenPipe,
}

impl Kind {
    /// The exit status of the kind.
    pub(crate) const fn status(self) -> u8 {
        match self {
            Kind::Refused => 120,
            Kind::Machine => 122,
            Kind::Internal => 123,
            Kind::Usage => 125,
            Kind::NotExecutable => 126,
            Kind::NotFound => 127,
            Kind::BrokenPipe => 141,
        }
    }
}

/// A failure of a verb.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// What kind it was.
    pub(crate) kind: Kind,
    error: anyhow::Error,
    details: Vec<String>,
    hints: Vec<String>,
}

impl CommandError {
    /// A failure of a kind, with the error or the message.
    pub(crate) fn new(kind: Kind, error: impl Into<anyhow::Error>) -> CommandError {
        CommandError { kind, error: error.into(), details: Vec::new(), hints: Vec::new() }
    }

    /// A failure that has no error of the library behind it.
    pub(crate) fn message(
        kind: Kind,
        message: impl fmt::Display + fmt::Debug + Send + Sync + 'static,
    ) -> CommandError {
        CommandError::new(kind, anyhow::Error::msg(message))
    }

    /// A wrong command line.
    pub(crate) fn usage(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> CommandError {
        CommandError::message(Kind::Usage, message)
    }

    /// Adds one of several things that the message is about.
    #[must_use]
    pub(crate) fn detail(mut self, detail: String) -> CommandError {
        self.details.push(detail);
        self
    }

    /// Adds a hint: what the user can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> CommandError {
        self.hints.push(hint.into());
        self
    }

    /// Adds what was being done, before the message.
    #[must_use]
    pub(crate) fn context(mut self, doing: impl fmt::Display + Send + Sync + 'static) -> CommandError {
        self.error = self.error.context(doing);
        self
    }

    /// The message, its causes and the hints, each line ended by a newline.
    pub(crate) fn render(&self, palette: Palette) -> String {
        let label = if self.kind == Kind::Internal { "internal error:" } else { "error:" };
        let mut text = format!("{} {}\n", palette.bad(label), safe(&self.error.to_string()));
        let mut above = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let cause = cause.to_string();
            // Many errors repeat their source in their own message.
            if !above.contains(&cause) {
                text.push_str(&format!("caused by: {}\n", safe(&cause)));
            }
            above = cause;
        }
        for detail in &self.details {
            text.push_str(&format!("  {}\n", safe(detail)));
        }
        for hint in &self.hints {
            text.push_str(&format!("{} {}\n", palette.literal("hint:"), safe(hint)));
        }
        if self.kind == Kind::Internal {
            text.push_str(&format!("{} please report this\n", palette.literal("hint:")));
        }
        text
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

/// Escapes control characters, but keeps the line breaks of messages that have several lines.
fn safe(text: &str) -> String {
    text.lines().map(tentative_report::printable::printable).collect::<Vec<_>>().join("\n")
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> CommandError {
        let kind = if error.kind() == io::ErrorKind::BrokenPipe { Kind::BrokenPipe } else { Kind::Internal };
        CommandError::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_have_lines_of_their_own() {
        let error = CommandError::usage("no transaction 'x\x1b[2J'").hint("see 'tentative list'");
        assert_eq!(
            error.render(Palette::PLAIN),
            "error: no transaction 'x\\x1b[2J'\nhint: see 'tentative list'\n"
        );
        let error = CommandError::new(Kind::Machine, io::Error::other("no space")).context("cannot write");
        assert_eq!(error.render(Palette::PLAIN), "error: cannot write\ncaused by: no space\n");
    }
}
