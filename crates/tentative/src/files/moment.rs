//! The moment a transaction began, as file timestamps know it.
//!
//! File timestamps come from a coarse clock, so a change just before the begin and one just after it can carry the same
//! time. Since Linux 6.13 a timestamp that somebody has looked at is followed by a finer one, and no later one is
//! smaller: there the moment is taken from such a timestamp and is exact.

use std::{fs, io, os::unix::fs::MetadataExt as _, os::unix::fs::PermissionsExt as _, path::Path};

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
    /// Takes the moment with the help of a scratch file that it makes and removes in `directory`.
    ///
    /// # Errors
    /// When the scratch file cannot be made.
    pub fn now(directory: &Path) -> io::Result<Moment> {
        let scratch = directory.join("moment");
        fs::write(&scratch, b"")?;
        let first = fs::symlink_metadata(&scratch)?;
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o600))?;
        let second = fs::symlink_metadata(&scratch)?;
        fs::remove_file(&scratch)?;
        if (first.ctime(), first.ctime_nsec()) != (second.ctime(), second.ctime_nsec()) {
            return Ok(Moment { seconds: second.ctime(), nanoseconds: second.ctime_nsec(), exact: true });
        }
        let coarse = clock_gettime(ClockId::RealtimeCoarse);
        Ok(Moment { seconds: coarse.tv_sec, nanoseconds: coarse.tv_nsec, exact: false })
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
