//! Layer 4: environment, working directory, umask, limits, descriptors and offsets.

pub mod changes;
pub mod gaps;
pub mod place;

/// The means by which a limit on memory is kept, as results name it. A child has the limit of the process that made it.
pub const MEMORY_LIMIT_BY: &str = "RLIMIT_AS, for each process";
