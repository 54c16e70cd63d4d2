//! How far a transaction was contained: a value that the caller sees, never a log line.

use serde::{Deserialize, Serialize};

use crate::layer::Layer;

/// One thing that was not contained, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The layer with the gap.
    pub layer: Layer,
    /// Why, and what it means.
    pub reason: String,
}

/// Why a layer that was asked to be gone without is not contained.
const ASKED: &str = "asked for without it";

impl Gap {
    /// A whole layer that was gone without, as asked.
    #[must_use]
    pub fn without(layer: Layer) -> Gap {
        Gap { layer, reason: ASKED.to_owned() }
    }
}

/// How far a transaction was contained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "extent", rename_all = "lowercase")]
pub enum Containment {
    /// Every layer was contained.
    Full,
    /// Some were not; here is which.
    Partial {
        /// What was not contained.
        gaps: Vec<Gap>,
    },
}

impl Containment {
    /// Full without gaps, partial with them.
    #[must_use]
    pub fn from_gaps(gaps: Vec<Gap>) -> Containment {
        if gaps.is_empty() { Containment::Full } else { Containment::Partial { gaps } }
    }

    /// Whether a layer was gone without, so that nothing is known about it.
    #[must_use]
    pub fn is_without(&self, layer: Layer) -> bool {
        self.gaps().contains(&Gap::without(layer))
    }

    /// The gaps, none when full.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        match self {
            Containment::Full => &[],
            Containment::Partial { gaps } => gaps,
        }
    }
}
