//! Layer 4: environment, working directory, umask, limits, descriptors and offsets.

pub mod copies;
pub mod descriptors;
pub mod detached;
pub mod offsets;
pub mod state;
