//! An effect: one recorded use of a pathway that crosses the sandbox.

use serde::{Deserialize, Serialize};

use crate::layer::Layer;

/// How far an effect reached and whether it can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// It stayed inside the sandbox.
    Contained,
    /// It only read something outside.
    Observed,
    /// It waits for the commit.
    Held,
    /// Somebody outside saw it (terminal output).
    Shown,
    /// It happened outside and has a registered undo.
    Compensated,
    /// It happened outside and cannot be taken back.
    Escaped,
    /// It would have escaped and was refused.
    Blocked,
}

impl Class {
    /// The class's name as users read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Class::Contained => "contained",
            Class::Observed => "observed",
            Class::Held => "held",
            Class::Shown => "shown",
            Class::Compensated => "compensated",
            Class::Escaped => "escaped",
            Class::Blocked => "blocked",
        }
    }
}

/// What the policy said about a crossing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It was let through.
    Allowed,
    /// It was refused.
    Denied,
}

/// One frame of the Python stack that made a crossing, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Source file as the interpreter names it.
    pub file: String,
    /// Line number, from 1.
    pub line: u32,
    /// Function name.
    pub function: String,
}

/// One recorded use of a pathway that crosses the sandbox; equal ones are folded into one with a count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Number of the effect in its transaction, from 1.
    pub id: u64,
    /// Layer it belongs to.
    pub layer: Layer,
    /// How far it reached.
    pub class: Class,
    /// The operation, by the name of its system call (`connect`, `kill`).
    pub operation: String,
    /// What it was aimed at, decoded (`tcp 127.0.0.1:5432`, `pid 4711`, `/dev/kvm`).
    pub target: String,
    /// Process that made it, as the sandbox numbers it.
    pub pid: i32,
    /// Thread that made it, as the sandbox numbers it.
    pub tid: i32,
    /// The program's name (`/proc/PID/comm`).
    pub program: String,
    /// Wall-clock time of the first one, nanoseconds since 1970.
    pub time_ns: u64,
    /// What the policy said.
    pub decision: Decision,
    /// The error number that the program got, if it got one.
    pub errno: Option<i32>,
    /// How many equal ones were folded into this one.
    pub count: u64,
    /// The Python stack that made it, where it was read.
    #[serde(rename = "where")]
    pub stack: Option<Vec<Frame>>,
    /// A sentence that helps, for example the option that allows it. Not part of equality of folded effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Puts effects that are numbered from 1 before others, whose numbers then go on from there.
pub fn put_first(first: &[Effect], others: &mut Vec<Effect>) {
    for effect in others.iter_mut() {
        effect.id += first.len() as u64;
    }
    others.splice(..0, first.iter().cloned());
}
