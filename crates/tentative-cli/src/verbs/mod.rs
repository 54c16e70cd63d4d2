//! The verbs, one file each.

pub(crate) mod commit;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod list;
pub(crate) mod monitor;
pub(crate) mod pathways;
pub(crate) mod probe;
pub(crate) mod recover;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod show;
