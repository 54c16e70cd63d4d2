//! The verbs, one file each.

pub(crate) mod doctor;
pub(crate) mod pathways;
pub(crate) mod probe;
