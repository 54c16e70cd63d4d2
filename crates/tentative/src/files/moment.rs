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

/// Seconds since 1970, and nanoseconds.
type Time = (i64, i64);

/// Changes an object and returns its change time, which looking at it makes the kernel tell from the next.
fn change(object: &Path) -> io::Result<Time> {
    fs::set_permissions(object, fs::symlink_metadata(object)?.permissions())?;
    let metadata = fs::symlink_metadata(object)?;
    Ok((metadata.ctime(), metadata.ctime_nsec()))
}

/// What the coarse clock says.
fn coarse() -> Time {
    let coarse = clock_gettime(ClockId::RealtimeCoarse);
    (coarse.tv_sec, coarse.tv_nsec)
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
        Moment::found(|| change(directory), coarse)
    }

    /// Takes the moment with the help of something that can be changed, which gives its new change time, and of the
    /// coarse clock.
    fn found(
        mut change: impl FnMut() -> io::Result<Time>,
        mut coarse: impl FnMut() -> Time,
    ) -> io::Result<Moment> {
        let mut before = change()?;
        for _ in 0..ATTEMPTS {
            let after = change()?;
            // A change gets the coarse time, or the last finer one that anybody got, where that tells it from the last
            // of the same object; only else one of its own. So the one before must have come at the same tick.
            if before >= coarse() && after > before {
                return Ok(Moment { seconds: after.0, nanoseconds: after.1, exact: true });
            }
            before = after;
        }
        Ok(Moment::about(coarse()))
    }

    /// Takes the moment from the coarse clock alone.
    #[must_use]
    pub fn about_now() -> Moment {
        Moment::about(coarse())
    }

    fn about((seconds, nanoseconds): Time) -> Moment {
        Moment { seconds, nanoseconds, exact: false }
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
    use std::cell::Cell;

    use super::*;

    const TICK: i64 = 4_000_000;

    /// The moment where the coarse clock ticks before each of so many looks at it, and where a change at the same tick as
    /// the last one gets a time that is `finer` by so much; and how many changes that took.
    fn where_it_ticks(ticks: usize, finer: i64) -> (Moment, usize) {
        let (clock, looks, changes) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let mut last = -1;
        let coarse = || {
            if looks.get() < ticks {
                looks.set(looks.get() + 1);
                clock.set(clock.get() + TICK);
            }
            (0, clock.get())
        };
        let change = || {
            changes.set(changes.get() + 1);
            last = if last < clock.get() { clock.get() } else { last + finer };
            Ok((0, last))
        };
        (Moment::found(change, coarse).unwrap(), changes.get())
    }

    #[test]
    fn it_is_exact_as_soon_as_two_changes_fall_between_ticks() {
        assert_eq!(where_it_ticks(0, 1), (Moment { seconds: 0, nanoseconds: 1, exact: true }, 2));
        for ticks in 1..ATTEMPTS - 1 {
            // The first change after the last tick has the tick's own time, and the next one a time of its own.
            let nanoseconds = i64::try_from(ticks).unwrap() * TICK + 1;
            assert_eq!(
                where_it_ticks(ticks, 1),
                (Moment { seconds: 0, nanoseconds, exact: true }, ticks + 3)
            );
        }
    }

    #[test]
    fn after_four_attempts_with_ticks_it_is_what_the_coarse_clock_says() {
        let (moment, changes) = where_it_ticks(usize::MAX, 1);
        let looks = i64::try_from(ATTEMPTS).unwrap() + 1;
        assert_eq!(moment, Moment { seconds: 0, nanoseconds: looks * TICK, exact: false });
        assert_eq!(changes, ATTEMPTS + 1);
        // The last attempt's first change came before the last tick.
        assert!(!where_it_ticks(ATTEMPTS - 1, 1).0.exact);
    }

    #[test]
    fn without_finer_times_it_is_what_the_coarse_clock_says() {
        for ticks in 0..=ATTEMPTS {
            let (moment, _) = where_it_ticks(ticks, 0);
            assert_eq!((moment.exact, moment.nanoseconds), (false, i64::try_from(ticks).unwrap() * TICK));
        }
    }

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
