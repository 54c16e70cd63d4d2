//! What a transaction changed in the file system, for people and for the verdict.
//!
//! Read from the upper directories, from outside, whether the overlays are mounted or not. Changes nothing.

use std::{
    fs,
    io::{
        self,
        ErrorKind::{NotFound, PermissionDenied},
    },
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{
    change::{Change, ChangeKind},
    files::{attributes, name, plan::Plan, scan},
};

/// One path that a transaction changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The path, as the outside sees it.
    pub path: PathBuf,
    /// How it changed.
    pub kind: ChangeKind,
    /// What was there, in words.
    pub before: Option<String>,
    /// What is there now, in words.
    pub after: Option<String>,
    /// Where the old content is, if the path had one: for a comparison.
    pub old: Option<PathBuf>,
    /// Where the new content is, if it has one.
    pub new: Option<PathBuf>,
    /// The old path of something renamed.
    pub from: Option<PathBuf>,
}

/// Why changes could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// A directory or file of the store, or the one it stands for, could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Everything that was changed: deletions first, then by path.
///
/// # Errors
/// When something cannot be read.
pub fn changes(plan: &Plan) -> Result<Vec<FileChange>, ScanError> {
    Ok(scan::scan(plan)?.changes)
}

impl FileChange {
    /// Makes it the change of something that was at another path before. What else is different about it is said with what
    /// is there now: nobody shall take a changed file for one that was only moved.
    pub(super) fn was_at(&mut self, from: &Path) -> io::Result<()> {
        let replaced = self.before.take();
        self.kind = ChangeKind::Renamed;
        self.from = Some(from.to_owned());
        let old = match fs::symlink_metadata(from) {
            // Somebody removed it meanwhile, which is a conflict; or it lies in a directory that is closed to its owner.
            Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => return Ok(()),
            other => other?,
        };
        let before = words(from, &old);
        if let (Some(after), Some(new)) = (&mut self.after, &self.new) {
            if *after != before {
                after.push_str(&format!(", was {before}"));
            } else if old.is_file() {
                match attributes::same_content(from, new) {
                    Ok(true) => {}
                    Ok(false) => after.push_str(", other content"),
                    Err(error) if error.kind() == PermissionDenied => {
                        after.push_str(", content not compared");
                    }
                    Err(error) => return Err(error),
                }
            }
            if let Some(replaced) = replaced {
                after.push_str(&format!(", in place of {replaced}"));
            }
        }
        self.before = Some(before);
        self.old = Some(from.to_owned());
        Ok(())
    }

    /// The change as records show it.
    #[must_use]
    pub fn to_change(&self) -> Change {
        let before = match &self.from {
            Some(from) => Some(name::shown(from)),
            None => self.before.clone(),
        };
        let before_hex = self.from.as_deref().and_then(name::hex_if_escaped);
        Change { before_hex, ..Change::of_path(&self.path, self.kind, before, self.after.clone()) }
    }
}

impl From<&FileChange> for Change {
    fn from(change: &FileChange) -> Change {
        change.to_change()
    }
}

/// An object in words: `file 0644 1.2 kB`, `symlink to target`, `directory 0755`.
#[must_use]
pub fn words(path: &Path, metadata: &fs::Metadata) -> String {
    let mode = metadata.mode() & 0o7777;
    let kind = metadata.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(path).map(|target| name::shown(&target)).unwrap_or_default();
        format!("symlink to {target}")
    } else if kind.is_dir() {
        format!("directory {mode:04o}")
    } else if kind.is_file() {
        format!("file {mode:04o} {}", size(metadata.len()))
    } else if kind.is_fifo() {
        format!("fifo {mode:04o}")
    } else if kind.is_socket() {
        format!("socket {mode:04o}")
    } else {
        format!("device {mode:04o}")
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // Sizes for people: the rounding of a float does not matter here.
    let mut number = bytes as f64 / 1000.0;
    let mut unit = 0;
    while number >= 999.95 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS[unit])
}

/// A time of modification in UTC, exact: `2026-01-31 23:59:59.000000001`.
fn moment(seconds: i64, nanoseconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since the first of March of the year 0, so that a leap day ends its year; 146,097 make 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + carry;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{nanoseconds:09}")
}

/// What differs besides the content, in words for both sides: nothing when nothing does.
pub(super) fn attribute_words(old: &fs::Metadata, new: &fs::Metadata, extended: bool) -> (String, String) {
    let (mut before, mut after) = (String::new(), String::new());
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        before += &format!(" owner {}:{}", old.uid(), old.gid());
        after += &format!(" owner {}:{}", new.uid(), new.gid());
    }
    if (old.mtime(), old.mtime_nsec()) != (new.mtime(), new.mtime_nsec()) {
        before += &format!(" of {}", moment(old.mtime(), old.mtime_nsec()));
        after += &format!(" of {}", moment(new.mtime(), new.mtime_nsec()));
    }
    if extended {
        after += " other extended attributes";
    }
    (before, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00.000000007"),
            (951_868_799, "2000-02-29 23:59:59.000000007"),
            (1_795_648_184, "2026-11-25 23:09:44.000000007"),
            (-1, "1969-12-31 23:59:59.000000007"),
            (4_107_542_400, "2100-03-01 00:00:00.000000007"),
        ] {
            assert_eq!(moment(seconds, 7), text);
        }
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1_200, "1.2 kB"), (999_960, "1.0 MB"), (5 << 30, "5.4 GB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
