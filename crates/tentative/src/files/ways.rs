//! The directories on the way to what was changed: whether each is the one that it was.
//!
//! Only looks. A directory that others put in another one's place has entries of its own, with old times, which a commit
//! would take for those that the code saw. Exact are the kernel's note of which directory was copied up, the identity of a
//! directory that was made in an upper directory beforehand, and what was remembered when the code had ended. An ordinary
//! user's overlay has no such note; while his code runs times have to do.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{
        attributes,
        changes::ScanError,
        identity::{self, Origin},
        moment::Moment,
        name,
        plan::{Ancestor, Cover, CoverKind, Plan},
        scan::{look, read},
    },
    journal::Inode,
};

/// A directory that is partly in an upper directory, in which a commit would change something.
#[derive(Clone, Debug)]
pub(crate) struct Merged {
    /// Outside.
    pub(crate) path: PathBuf,
    /// Which it was, if it was made beforehand.
    inode: Option<Inode>,
    /// What the kernel noted when it copied it up.
    origin: Origin,
    /// The time of access that it had then, seconds and nanoseconds.
    accessed: (i64, i64),
}

impl Merged {
    /// What is known of the directory at `path` of which the overlay has `upper`, which can be reached.
    pub(super) fn of(
        path: PathBuf,
        (upper, new): (&Path, &fs::Metadata),
        inode: Option<Inode>,
    ) -> Result<Merged, ScanError> {
        let origin = identity::origin(upper).map_err(read(upper))?;
        Ok(Merged { path, inode, origin, accessed: accessed(new) })
    }
}

fn born(metadata: &fs::Metadata) -> Option<(u64, u32)> {
    let since = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((since.as_secs(), since.subsec_nanos()))
}

fn accessed(metadata: &fs::Metadata) -> (i64, i64) {
    (metadata.atime(), metadata.atime_nsec())
}

/// A directory as it was when the code had ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Outside.
    #[serde(with = "name::one")]
    pub path: PathBuf,
    /// Which it was.
    pub inode: Inode,
    /// When it was made, seconds and nanoseconds, where its file system knows: numbers are used again.
    pub born: Option<(u64, u32)>,
    /// Whether it was another one by then than at the beginning, as far as can be told.
    pub replaced: bool,
}

/// Remembers the directories that the upper ones have something of, sorted by path.
///
/// # Errors
/// When something cannot be looked at.
pub(crate) fn remember(plan: &Plan) -> Result<Vec<Way>, ScanError> {
    let mut found = Vec::new();
    for cover in &plan.covers {
        if let CoverKind::Overlay { upper, ancestors, .. } = &cover.kind {
            merged(plan, (cover, upper, ancestors), Path::new(""), &mut found)?;
        }
    }
    let way = |directory: Merged| {
        let there = look(&directory.path)?.filter(fs::Metadata::is_dir);
        let Some(there) = there else { return Ok(None) };
        let replaced = is_replaced(plan, &directory, &there)?;
        let (inode, born) = (Inode::of(&there), born(&there));
        Ok(Some(Way { path: directory.path, inode, born, replaced }))
    };
    let ways: Result<Vec<Way>, ScanError> =
        found.into_iter().filter_map(|directory| way(directory).transpose()).collect();
    ways.map(|mut ways| {
        ways.sort_by(|one, other| one.path.cmp(&other.path));
        ways
    })
}

/// Finds what a cover has of directories that are there outside too, from one of them down.
fn merged(
    plan: &Plan,
    (cover, upper, ancestors): (&Cover, &Path, &[Ancestor]),
    below: &Path,
    found: &mut Vec<Merged>,
) -> Result<(), ScanError> {
    let (path, here) = (outside(&cover.path, below), upper.join(below));
    let Some(new) = look(&here)?.filter(fs::Metadata::is_dir) else { return Ok(()) };
    if look(&path)?.is_none_or(|there| !there.is_dir()) {
        return Ok(());
    }
    let is_covered = |path: &Path| plan.covers.iter().any(|other| other.path == path);
    let inode = ancestors.iter().find(|ancestor| ancestor.path == below).and_then(|ancestor| ancestor.inode);
    found.push(Merged::of(path.clone(), (&here, &new), inode)?);
    let _opened = attributes::Opened::directory(&here).map_err(read(&here))?;
    for name in attributes::names_unnoticed(&here).map_err(read(&here))? {
        if !is_covered(&path.join(&name)) {
            merged(plan, (cover, upper, ancestors), &below.join(name), found)?;
        }
    }
    Ok(())
}

fn outside(cover: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { cover.to_owned() } else { cover.join(below) }
}

/// The directories in which a commit would change something, and which are not those that they were.
pub(super) fn replaced<'a>(plan: &Plan, merged: &'a [Merged]) -> Result<Vec<&'a Path>, ScanError> {
    let mut found = Vec::new();
    for directory in merged {
        // What is gone is a conflict of its own.
        let Some(there) = look(&directory.path)?.filter(fs::Metadata::is_dir) else { continue };
        if is_replaced(plan, directory, &there)? {
            found.push(directory.path.as_path());
        }
    }
    Ok(found)
}

fn is_replaced(plan: &Plan, merged: &Merged, there: &fs::Metadata) -> Result<bool, ScanError> {
    let now = Inode::of(there);
    if let Some(inode) = merged.inode {
        let began = (plan.begun.seconds.cast_unsigned(), plan.begun.nanoseconds.try_into().unwrap_or(0));
        return Ok(inode != now || born(there).is_some_and(|born| born > began));
    }
    if let Origin::Known(noted) = &merged.origin
        && let Some(handle) = identity::handle(&merged.path).map_err(read(&merged.path))?
    {
        return Ok(*noted != handle);
    }
    let ways = plan.ways.as_deref().unwrap_or_default();
    if let Ok(at) = ways.binary_search_by(|way| way.path.cmp(&merged.path)) {
        let way = &ways[at];
        return Ok(way.replaced || (way.inode, way.born) != (now, born(there)));
    }
    looks_replaced(&plan.begun, merged, there)
}

/// Moving a directory changes it and the one that it is in. So do others who only make entries in both, which changes the
/// content of the directory too. Whoever lists it sets its time of access, which the overlay has copied, to one after the
/// beginning: an older one that is another is that of another directory.
fn looks_replaced(begun: &Moment, merged: &Merged, there: &fs::Metadata) -> Result<bool, ScanError> {
    let parent = merged.path.parent().map(look).transpose()?.flatten();
    if !begun.is_before_change_of(there) || !parent.is_some_and(|parent| begun.is_before_change_of(&parent)) {
        return Ok(false);
    }
    let only_entries = (there.mtime(), there.mtime_nsec()) == (there.ctime(), there.ctime_nsec());
    let other_access = merged.accessed != accessed(there) && !begun.is_before_access(there);
    Ok(!only_entries || other_access)
}
