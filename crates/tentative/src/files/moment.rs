//! The moment a transaction began, as file timestamps know it.
//!
//! File timestamps come from a coarse clock, so a change just before the begin and one just after it can carry the same
//! time. Since Linux 6.13 a timestamp that somebody has looked at is followed by a finer one, and no later one is
//! smaller: there the moment is taken from such a timestamp and is exact.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// When a transaction began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: i64,
    /// Whether a file timestamp equal to it is later.
    pub exact: bool,
}

impl Moment {
    /// Takes the moment with the help of a directory of the caller's, whose change time it moves on.
    ///
    /// # Errors
    /// When the directory is not there, or is somebody else's.
    pub fn now(directory: &Path) -> io::Result<Moment> {
        let first = fs::symlink_metadata(directory)?;
        fs::set_permissions(directory, first.permissions())?;
        let second = fs::symlink_metadata(directory)?;
        if (first.ctime(), first.ctime_nsec()) != (second.ctime(), second.ctime_nsec()) {
            return Ok(Moment { seconds: second.ctime(), nanoseconds: second.ctime_nsec(), exact: true });
        }
        Ok(Moment::about_now())
    }

    /// Takes the moment from the coarse clock alone.
    #[must_use]
    pub fn about_now() -> Moment {
        let coarse = clock_gettime(ClockId::RealtimeCoarse);
        Moment { seconds: coarse.tv_sec, nanoseconds: coarse.tv_nsec, exact: false }
    }

    /// Says whether the object's change time is later than this moment.
    #[must_use]
    pub fn is_before_change_of(&self, metadata: &fs::Metadata) -> bool {
        let (changed, begun) = ((metadata.ctime(), metadata.ctime_nsec()), (self.seconds, self.nanoseconds));
        changed > begun || (self.exact && changed == begun)
    }

    /// Says whether the object's time of access is later than this moment, or not known to be earlier.
    #[must_use]
    pub fn is_before_access(&self, metadata: &fs::Metadata) -> bool {
        (metadata.atime(), metadata.atime_nsec()) >= (self.seconds, self.nanoseconds)
    }
}
