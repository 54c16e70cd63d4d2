//! Pure functions from the record of a transaction to what people and programs read: text with optional colour, JSON
//! documents, unified diffs, sentences.
//!
//! Nothing here reads a file, the clock, the environment or the terminal: the same record always gives the same
//! text. Whatever a program could have chosen itself (paths, names, targets) is escaped before it reaches a terminal.

#![forbid(unsafe_code)]

pub mod changes;
pub mod diff;
pub mod effects;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod json;
pub mod listing;
pub mod paint;
pub mod pathways;
pub mod printable;
pub mod sentences;
pub mod summary;
pub mod units;
pub mod verdict;

/// How much a text shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What fits a screen: long lists end with a count, of every kind of change separately, so that no deletion hides
    /// behind additions.
    Brief,
    /// Everything.
    Full,
}
