//! Layer 2: threads, registers, signal handlers and masks, timers.

pub mod quiesce;
pub(crate) mod state;
