//! Comparing upper objects with those that they stand for: in what they differ, and which were changed apart.
//!
//! Only reads. Times of access, and those of a directory's entries, are no difference.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    change::ChangeKind,
    files::{
        attributes,
        changes::ScanError,
        scan::{look, read},
    },
};

/// Finds files that were changed through several of their names, which were apart inside.
pub(super) fn parted(mut copies: Vec<Held>) -> Result<Vec<PathBuf>, ScanError> {
    let mut parted = Vec::new();
    copies.sort_by(|a, b| a.handle.cmp(&b.handle));
    for names in copies.chunk_by(|a, b| a.handle == b.handle).filter(|names| names.len() > 1) {
        let mut changed = Vec::new();
        for name in names {
            if name.is_changed()? {
                changed.push(name.path.clone());
            }
        }
        if changed.len() > 1 {
            parted.append(&mut changed);
        }
    }
    Ok(parted)
}

/// A copy of a file with several names.
pub(super) struct Held {
    /// Which file.
    pub(super) handle: Vec<u8>,
    /// The name that it was copied by.
    pub(super) path: PathBuf,
    /// The file.
    pub(super) lower: PathBuf,
    /// The copy.
    pub(super) at: PathBuf,
}

impl Held {
    fn is_changed(&self) -> Result<bool, ScanError> {
        let (Some(old), Some(new)) = (look(&self.lower)?, look(&self.at)?) else { return Ok(true) };
        Ok(differences((&self.lower, &old), (&self.at, &new))? != Differences::None)
    }
}

/// Compares an object with the one that it was.
pub(super) fn differences(
    (lower, old): (&Path, &fs::Metadata),
    (upper, new): (&Path, &fs::Metadata),
) -> Result<Differences, ScanError> {
    let same = if new.is_file() {
        old.len() == new.len() && attributes::same_content(lower, upper).unwrap_or(false)
    } else if new.is_symlink() {
        fs::read_link(lower).map_err(read(lower))? == fs::read_link(upper).map_err(read(upper))?
    } else {
        old.rdev() == new.rdev()
    };
    if !same {
        return Ok(Differences::Content);
    }
    let attributes_of = |metadata: &fs::Metadata| {
        (metadata.mode(), metadata.uid(), metadata.gid(), metadata.mtime(), metadata.mtime_nsec())
    };
    let same = attributes_of(old) == attributes_of(new)
        && attributes::extended(lower).map_err(read(lower))?
            == attributes::extended_in_store(upper).map_err(read(upper))?;
    Ok(if same { Differences::None } else { Differences::Attributes })
}

/// In what two objects differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Differences {
    /// In nothing that is looked at.
    None,
    /// In attributes only.
    Attributes,
    /// In content.
    Content,
}

impl Differences {
    /// What to call it.
    pub(super) fn kind(self) -> ChangeKind {
        if self == Differences::Content { ChangeKind::Modified } else { ChangeKind::Metadata }
    }
}
