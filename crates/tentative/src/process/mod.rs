//! Layer 4: environment, working directory, umask, limits, descriptors and offsets.

pub mod changes;
pub mod gaps;
