//! The moment a transaction began, as file timestamps know it.
//!
//! File timestamps come from a coarse clock, so a change just before the begin and one just after it can carry the same
//! time. Since Linux 6.13 a timestamp that somebody has looked at is followed by a finer one, and no later one is
//! smaller: there the moment is taken from such a timestamp and is exact.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Two changes are enough unless the clock ticks between them.
const ATTEMPTS: usize = 4;

/// Changes an object and returns its change time, which looking at it makes the kernel tell from the next.
fn change(object: &Path) -> io::Result<(i64, i64)> {
    fs::set_permissions(object, fs::symlink_metadata(object)?.permissions())?;
    let metadata = fs::symlink_metadata(object)?;
    Ok((metadata.ctime(), metadata.ctime_nsec()))
}

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
        let mut before = change(directory)?;
        for _ in 0..ATTEMPTS {
            let after = change(directory)?;
            let coarse = Moment::about_now();
            let coarse = (coarse.seconds, coarse.nanoseconds);
            // A change gets the coarse time, or the last finer one that anybody got, where that tells it from the last
            // of the same object; only else one of its own. So the one before must have come at the same tick.
            if before >= coarse && after > before {
                return Ok(Moment { seconds: after.0, nanoseconds: after.1, exact: true });
            }
            before = after;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_between_a_change_before_and_a_change_after() {
        let scratch = tempfile::tempdir().unwrap();
        let (others, file) = (scratch.path().join("others"), scratch.path().join("file"));
        fs::write(&others, "").unwrap();
        for round in 0..500 {
            // Now and then somebody gets a finer time, which coarse ones are not smaller than from then on.
            if round % 3 != 0 {
                change(&others).unwrap();
                change(&others).unwrap();
            }
            fs::write(&file, "before").unwrap();
            let moment = Moment::now(scratch.path()).unwrap();
            if moment.exact {
                assert!(
                    !moment.is_before_change_of(&fs::symlink_metadata(&file).unwrap()),
                    "before, {round}"
                );
            }
            fs::write(&file, "after").unwrap();
            if moment.exact {
                assert!(moment.is_before_change_of(&fs::symlink_metadata(&file).unwrap()), "after, {round}");
            }
        }
    }
}
