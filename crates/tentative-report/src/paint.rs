//! Colour, or none: one palette for every text, so that a colour means the same everywhere.

use owo_colors::Style;

use tentative::{change::ChangeKind, effect::Class};

/// What colours mean. Without colour every style is empty and the text is plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    colour: bool,
}

impl Palette {
    /// A palette that leaves the text as it is.
    pub const PLAIN: Palette = Palette { colour: false };
    /// A palette that colours.
    pub const COLOUR: Palette = Palette { colour: true };

    /// Colours or not.
    #[must_use]
    pub const fn new(colour: bool) -> Palette {
        Palette { colour }
    }

    /// Paints a heading.
    #[must_use]
    pub fn heading(self, text: &str) -> String {
        self.paint(text, Style::new().bold())
    }

    /// Paints what is of less interest.
    #[must_use]
    pub fn faint(self, text: &str) -> String {
        self.paint(text, Style::new().dimmed())
    }

    /// Paints what is well.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.paint(text, Style::new().green())
    }

    /// Paints what needs a look.
    #[must_use]
    pub fn warning(self, text: &str) -> String {
        self.paint(text, Style::new().yellow())
    }

    /// Paints what is not well.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.paint(text, Style::new().red().bold())
    }

    /// Paints something to type or to look up: an id, a command.
    #[must_use]
    pub fn literal(self, text: &str) -> String {
        self.paint(text, Style::new().cyan())
    }

    /// Paints the text of a kind of change.
    #[must_use]
    pub fn change(self, kind: ChangeKind, text: &str) -> String {
        let style = match kind {
            ChangeKind::Deleted => Style::new().red(),
            ChangeKind::Created => Style::new().green(),
            ChangeKind::Modified => Style::new().yellow(),
            ChangeKind::Renamed => Style::new().cyan(),
            ChangeKind::Metadata => Style::new().magenta(),
        };
        self.paint(text, style)
    }

    /// Paints the text of a class of effects.
    #[must_use]
    pub fn class(self, class: Class, text: &str) -> String {
        let style = match class {
            Class::Escaped => Style::new().red().bold(),
            Class::Blocked | Class::Compensated => Style::new().yellow(),
            Class::Held => Style::new().cyan(),
            Class::Contained => Style::new().green(),
            Class::Observed | Class::Shown => Style::new(),
        };
        self.paint(text, style)
    }

    /// Paints a line of a diff by its first character.
    #[must_use]
    pub fn diff_line(self, mark: char, text: &str) -> String {
        let style = match mark {
            '+' => Style::new().green(),
            '-' => Style::new().red(),
            '@' => Style::new().cyan(),
            _ => Style::new(),
        };
        self.paint(text, style)
    }

    fn paint(self, text: &str, style: Style) -> String {
        if self.colour && !style.is_plain() { style.style(text).to_string() } else { text.to_owned() }
    }
}
