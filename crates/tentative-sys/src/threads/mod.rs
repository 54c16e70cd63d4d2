//! Layer 2: threads, registers, signal handlers and masks, timers.

pub(crate) mod state;
