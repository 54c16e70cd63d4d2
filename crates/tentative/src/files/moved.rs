//! Directories that were renamed. Inside, one is moved file by file, so what was in it is known to have another path now,
//! and of the directory itself only that one went and another one came.
//!
//! For people alone: a commit takes the one away and puts the other in place.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use crate::{
    change::ChangeKind,
    files::{
        changes::{FileChange, ScanError},
        scan,
    },
};

/// Tells a directory that went and one that came as one that was renamed, where something of the one is in the other by
/// the same name.
pub(super) fn directories(changes: &mut Vec<FileChange>) -> Result<(), ScanError> {
    let gone = directories_that(changes, ChangeKind::Deleted);
    let mut came = directories_that(changes, ChangeKind::Created);
    let mut pairs: Vec<(PathBuf, PathBuf)> =
        changes.iter().filter_map(|change| around(change.from.as_deref()?, &change.path)).collect();
    let mut moved: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    while let Some((from, to)) = pairs.pop() {
        if !gone.contains_key(&from) || moved.contains_key(&from) {
            continue;
        }
        let Some(index) = came.remove(&to) else { continue };
        changes[index].was_at(&from).map_err(scan::read(&from))?;
        pairs.extend(around(&from, &to));
        moved.insert(from, to);
    }
    // An empty one went along with the one that it is in; of two, the outer one comes first.
    for from in gone.into_keys() {
        let beside = from.parent().and_then(|above| moved.get(above));
        let Some(to) = beside.zip(from.file_name()).map(|(above, name)| above.join(name)) else { continue };
        if let (false, Some(index)) = (moved.contains_key(&from), came.remove(&to)) {
            changes[index].was_at(&from).map_err(scan::read(&from))?;
            moved.insert(from, to);
        }
    }
    changes.retain(|change| change.kind != ChangeKind::Deleted || !moved.contains_key(&change.path));
    Ok(())
}

/// The directories that two paths with the same last name are in.
fn around(from: &Path, to: &Path) -> Option<(PathBuf, PathBuf)> {
    let named = |path: &Path| path.file_name().map(OsStr::to_owned);
    (named(from) == named(to)).then(|| Some((from.parent()?.to_owned(), to.parent()?.to_owned())))?
}

fn directories_that(changes: &[FileChange], kind: ChangeKind) -> BTreeMap<PathBuf, usize> {
    let is_directory = |change: &FileChange| {
        let words = if kind == ChangeKind::Deleted { &change.before } else { &change.after };
        change.kind == kind && words.as_deref().is_some_and(|words| words.starts_with("directory"))
    };
    let of_kind = changes.iter().enumerate().filter(|(_, change)| is_directory(change));
    of_kind.map(|(index, change)| (change.path.clone(), index)).collect()
}
