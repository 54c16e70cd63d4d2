//! The record of one transaction, as `show --json` prints it and the store keeps it.

use serde::{Deserialize, Serialize};

use crate::{change::Change, containment::Containment, effect::Effect, verdict::Verdict};

/// Value of `format` in every JSON document of this version.
pub const FORMAT: &str = "tentative/1";

/// Where a transaction is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The code is running.
    Running,
    /// Finished, waiting for the decision.
    Pending,
    /// The commit point is passed, the changes are being put in place.
    Committing,
    /// The changes are in place.
    Committed,
    /// Taken back.
    RolledBack,
}

/// The record of one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Always [`FORMAT`].
    pub format: String,
    /// 8 hexadecimal digits.
    pub id: String,
    /// Where it is in its life.
    pub state: State,
    /// The program and its arguments, or what the host said it is.
    pub program: Vec<String>,
    /// How the program ended: 0 to 255, or 128 + signal; none while it runs.
    pub exit_status: Option<i32>,
    /// Wall-clock start, nanoseconds since 1970.
    pub started_ns: u64,
    /// How long it ran, nanoseconds.
    pub duration_ns: u64,
    /// What a commit would apply.
    pub changes: Vec<Change>,
    /// What crossed the sandbox.
    pub effects: Vec<Effect>,
    /// Safe to roll back, safe to commit?
    pub verdict: Verdict,
    /// How far it was contained.
    pub containment: Containment,
}
