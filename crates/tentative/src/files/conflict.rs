//! Conflicts: paths that somebody else changed, made, removed or locked since the transaction began.
//!
//! Only looks. A change by others shows as a change time after the begin; see [`super::moment`] for how exact that is.

use std::{
    collections::BTreeSet,
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use tentative_sys::files::lock::{self, Holder};

use crate::{
    change::{Change, ChangeKind},
    files::{
        attributes,
        changes::{FileChange, ScanError},
        name,
        plan::Plan,
        scan::{self, Deed, Operation, Scan, look},
        ways,
    },
    record::Record,
};

/// What somebody else did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConflictKind {
    /// Changed it, or made it anew.
    Changed,
    /// Removed it, or the directory it is in.
    Vanished,
    /// Put another directory there, in which a commit would change something.
    Replaced,
    /// Made it where nothing was.
    Appeared,
    /// Holds a lock on it: the process, where the kernel names it.
    Locked(Option<i32>),
    /// Nobody did anything: there are names in it that no path reaches.
    Deep,
    /// It is one of several names of a file that was changed through more than one of them inside, where an ordinary
    /// user's overlay keeps them apart.
    Parted,
    /// It is one of several names of a file, and it cannot be told whether that file was changed, or replaced.
    Unclear,
}

impl ConflictKind {
    /// Whether nobody else did anything: it is about names of one file.
    #[must_use]
    pub const fn is_of_names(self) -> bool {
        matches!(self, ConflictKind::Parted | ConflictKind::Unclear)
    }
}

/// One path that cannot be committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The path.
    #[serde(with = "name::one")]
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ConflictKind,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = name::shown(&self.path);
        match self.kind {
            ConflictKind::Changed => write!(f, "{path} was changed by others meanwhile"),
            ConflictKind::Vanished => write!(f, "{path} was removed by others meanwhile"),
            ConflictKind::Replaced => write!(f, "{path} is another directory than at the beginning"),
            ConflictKind::Appeared => write!(f, "{path} was made by others meanwhile"),
            ConflictKind::Locked(Some(pid)) => write!(f, "{path} is locked by process {pid}"),
            ConflictKind::Locked(None) => write!(f, "{path} is locked by another process"),
            ConflictKind::Deep => write!(f, "{path} is nested deeper than a path can name"),
            ConflictKind::Parted => write!(
                f,
                "{path} was changed inside, and so was another name of the same file, apart from it"
            ),
            ConflictKind::Unclear => {
                write!(f, "{path} has other names, and it cannot be told whether it was changed or replaced")
            }
        }
    }
}

/// The conflicts of everything that a commit would change now. Locks of the process `origin` do not count.
///
/// # Errors
/// When something cannot be read.
pub fn conflicts(plan: &Plan, origin: Option<i32>) -> Result<Vec<Conflict>, ScanError> {
    of_scan(plan, &scan::scan(plan)?, origin)
}

pub(super) fn of_scan(plan: &Plan, scan: &Scan, origin: Option<i32>) -> Result<Vec<Conflict>, ScanError> {
    let locks = Locks { whole: whole_file_locks(), origin };
    let mut found = Vec::new();
    for (paths, kind) in [
        (&scan.vanished, ConflictKind::Vanished),
        (&scan.too_deep, ConflictKind::Deep),
        (&scan.parted, ConflictKind::Parted),
        (&scan.unclear, ConflictKind::Unclear),
    ] {
        found.extend(paths.iter().map(|path| Conflict { path: path.clone(), kind }));
    }
    for path in ways::replaced(plan, &scan.merged)? {
        found.push(Conflict { path: path.to_owned(), kind: ConflictKind::Replaced });
    }
    for operation in &scan.operations {
        of_operation(plan, &locks, operation, &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    Ok(found)
}

/// What the record says was changed, and what looks new by now: it was there when the program ended and somebody removed
/// it since. An ordinary user's overlay leaves no note of the original that would say so.
pub(super) fn vanished_since(record: &Record, scan: &Scan) -> Vec<Conflict> {
    let was_there = |change: &Change| matches!(change.kind, ChangeKind::Modified | ChangeKind::Metadata);
    let recorded: BTreeSet<PathBuf> =
        record.changes.iter().filter(|change| was_there(change)).filter_map(Change::path).collect();
    let looks_new = |change: &&FileChange| matches!(change.kind, ChangeKind::Created | ChangeKind::Renamed);
    scan.changes
        .iter()
        .filter(looks_new)
        .filter(|change| recorded.contains(&change.path))
        .map(|change| Conflict { path: change.path.clone(), kind: ConflictKind::Vanished })
        .collect()
}

fn of_operation(
    plan: &Plan,
    locks: &Locks,
    operation: &Operation,
    found: &mut Vec<Conflict>,
) -> Result<(), ScanError> {
    let path = operation.path.as_path();
    let mut add = |path: &Path, kind| found.push(Conflict { path: path.to_owned(), kind });
    if operation.deed == Deed::Times {
        return Ok(());
    }
    if let Some(parent) = path.parent()
        && look(parent)?.is_none()
        && !matches!(operation.deed, Deed::Link { .. } | Deed::Place { in_tree: true, .. })
    {
        add(parent, ConflictKind::Vanished);
    }
    let Some(there) = look(path)? else {
        if matches!(operation.deed, Deed::Update { .. }) {
            add(path, ConflictKind::Vanished);
        }
        return Ok(());
    };
    if plan.begun.is_before_change_of(&there) && !is_only_entries(operation, &there)? {
        let copied = attributes::overlay_note(&operation.upper, "origin").is_ok_and(|note| note.is_some());
        let appeared = matches!(operation.deed, Deed::Place { .. }) && !copied && !is_older(plan, &there);
        add(path, if appeared { ConflictKind::Appeared } else { ConflictKind::Changed });
        return Ok(());
    }
    if there.is_dir() && matches!(operation.deed, Deed::Remove | Deed::Place { .. }) {
        return in_tree(plan, locks, path, found);
    }
    if let Some(kind) = locks.on(path, &there) {
        add(path, kind);
    }
    Ok(())
}

/// A directory whose attributes are set also has a new change time when others made entries in it, which does not matter.
fn is_only_entries(operation: &Operation, there: &fs::Metadata) -> Result<bool, ScanError> {
    if !there.is_dir() || !matches!(operation.deed, Deed::Update { .. }) {
        return Ok(false);
    }
    Ok((there.mtime(), there.mtime_nsec()) == (there.ctime(), there.ctime_nsec()))
}

fn is_older(plan: &Plan, there: &fs::Metadata) -> bool {
    match there.created() {
        Ok(born) => born.duration_since(std::time::UNIX_EPOCH).is_ok_and(|born| {
            (born.as_secs().cast_signed(), i64::from(born.subsec_nanos()))
                < (plan.begun.seconds, plan.begun.nanoseconds)
        }),
        Err(_) => true,
    }
}

fn in_tree(plan: &Plan, locks: &Locks, directory: &Path, found: &mut Vec<Conflict>) -> Result<(), ScanError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // Staging refuses to move what cannot be read.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
        Err(source) => return Err(ScanError::Read { path: directory.to_owned(), source }),
    };
    for entry in entries {
        let entry = entry.map_err(|source| ScanError::Read { path: directory.to_owned(), source })?;
        let path = entry.path();
        let Some(there) = look(&path)? else { continue };
        if plan.begun.is_before_change_of(&there) {
            let kind = if is_older(plan, &there) { ConflictKind::Changed } else { ConflictKind::Appeared };
            found.push(Conflict { path, kind });
        } else if there.is_dir() {
            in_tree(plan, locks, &path, found)?;
        } else if let Some(kind) = locks.on(&path, &there) {
            found.push(Conflict { path, kind });
        }
    }
    Ok(())
}

struct Locks {
    /// Device major, minor and inode of files under `flock(2)`, with the owner.
    whole: BTreeSet<(u32, u32, u64, i32)>,
    origin: Option<i32>,
}

impl Locks {
    fn on(&self, path: &Path, there: &fs::Metadata) -> Option<ConflictKind> {
        if !there.is_file() {
            return None;
        }
        let key = (rustix::fs::major(there.dev()), rustix::fs::minor(there.dev()), there.ino());
        let held = self.whole.range((key.0, key.1, key.2, i32::MIN)..=(key.0, key.1, key.2, i32::MAX));
        for (.., pid) in held {
            if Some(*pid) != self.origin {
                return Some(ConflictKind::Locked((*pid > 0).then_some(*pid)));
            }
        }
        // A file that cannot be opened has no lock that could be asked for; staging will say that it cannot be opened.
        let file =
            openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
        match lock::holder(&file).ok()?? {
            Holder::Process(pid) if Some(pid) == self.origin => None,
            Holder::Process(pid) => Some(ConflictKind::Locked(Some(pid))),
            Holder::Unknown => Some(ConflictKind::Locked(None)),
        }
    }
}

/// `flock(2)` locks cannot be asked for without taking them; the kernel's list has them.
fn whole_file_locks() -> BTreeSet<(u32, u32, u64, i32)> {
    // Without /proc/locks these locks are not seen: the others are.
    let text = fs::read_to_string("/proc/locks").unwrap_or_default();
    text.lines().filter_map(parse_lock).collect()
}

// 1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF
pub(crate) fn parse_lock(line: &str) -> Option<(u32, u32, u64, i32)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    let mut place = fields.next()?.split(':');
    let major = u32::from_str_radix(place.next()?, 16).ok()?;
    let minor = u32::from_str_radix(place.next()?, 16).ok()?;
    Some((major, minor, place.next()?.parse().ok()?, pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_of_locks_is_understood() {
        let line = "1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF";
        assert_eq!(parse_lock(line), Some((0xfe, 0, 131, 1234)));
        assert_eq!(parse_lock("2: POSIX  ADVISORY  READ 12 fe:00:131 0 EOF"), None);
        assert_eq!(parse_lock(""), None);
    }
}
