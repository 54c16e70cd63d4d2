//! The verdict: is it safe to roll back, is it safe to commit, and why (not).

use serde::{Deserialize, Serialize};

use crate::{
    containment::Containment,
    effect::{Class, Effect},
};

/// One half of a verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Whether it is safe.
    pub safe: bool,
    /// Why not; empty when safe.
    pub reasons: Vec<String>,
}

impl Judgement {
    /// Safe exactly when there is no reason against it.
    #[must_use]
    pub fn from_reasons(reasons: Vec<String>) -> Judgement {
        Judgement { safe: reasons.is_empty(), reasons }
    }
}

/// Whether rolling back restores everything, and whether committing is exact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Safe to roll back: nothing escaped without compensation.
    pub rollback: Judgement,
    /// Safe to commit: nothing conflicts, no layer has a gap.
    pub commit: Judgement,
}

impl Verdict {
    /// Judges a transaction from its effects, its containment and the conflicts that were found.
    #[must_use]
    pub fn judge(effects: &[Effect], containment: &Containment, conflicts: &[String]) -> Verdict {
        let mut rollback: Vec<String> = effects
            .iter()
            .filter(|effect| effect.class == Class::Escaped)
            .map(|effect| format!("{} {} escaped (effect {})", effect.operation, effect.target, effect.id))
            .collect();
        rollback.extend(
            containment.gaps().iter().map(|gap| format!("{} not contained: {}", gap.layer, gap.reason)),
        );
        Verdict {
            rollback: Judgement::from_reasons(rollback),
            commit: Judgement::from_reasons(conflicts.to_vec()),
        }
    }
}
