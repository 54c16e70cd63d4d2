//! The seal of a plan: everything that code could have changed in its covers, as it was before any ran.
//!
//! Two seals of one plan that are equal say that nothing is there which was not there before: names, owners, modes, times
//! of change of content, extended attributes. A change that was undone to the last of these is none. Only reads.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::files::{
    attributes,
    plan::{CoverKind, Plan},
};

/// What the kernel notes on a directory when somebody looks it up: that it is merged with one below, and that it holds such
/// a one.
const LOOKED_UP: [&[u8]; 2] = [b"impure", b"origin"];

/// What a directory holds and how it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    path: PathBuf,
    looks: Looks,
    entries: Vec<(OsString, Looks)>,
}

/// How an object is, without its contents.
#[derive(Debug, PartialEq, Eq)]
struct Looks {
    inode: (u64, u64),
    mode: u32,
    owner: (u32, u32),
    /// Length and time of change; none of a device, whose times its use changes.
    content: Option<(u64, i64, i64)>,
    /// Extended attributes with their values.
    extended: Vec<(Vec<u8>, Vec<u8>)>,
    /// The overlay's notes, less those of a mere look.
    notes: Vec<Vec<u8>>,
}

impl Plan {
    /// The seal of what is in the covers now; none when they hold something that a look cannot tell from a changed one: a
    /// copy of a file.
    ///
    /// # Errors
    /// When something cannot be looked at.
    pub(crate) fn seal(&self) -> io::Result<Option<Vec<Sealed>>> {
        let mut seal = Vec::new();
        for cover in &self.covers {
            match &cover.kind {
                CoverKind::Overlay { upper, ancestors, .. } => {
                    for ancestor in ancestors {
                        seal.push(directory(&upper.join(&ancestor.path))?);
                    }
                }
                CoverKind::Copy { .. } => return Ok(None),
                CoverKind::ReadOnly | CoverKind::Masked | CoverKind::Hidden => {}
            }
        }
        Ok(Some(seal))
    }
}

/// Seals one directory with what is directly in it.
pub(crate) fn directory(path: &Path) -> io::Result<Sealed> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        entries.push((entry.file_name(), looks(&entry.path())?));
    }
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(Sealed { path: path.to_owned(), looks: looks(path)?, entries })
}

fn looks(path: &Path) -> io::Result<Looks> {
    let metadata = fs::symlink_metadata(path)?;
    let is_device = metadata.rdev() != 0;
    let mut notes = attributes::overlay_notes(path)?;
    notes.retain(|note| !LOOKED_UP.contains(&note.as_slice()));
    Ok(Looks {
        inode: (metadata.dev(), metadata.ino()),
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        content: (!is_device).then(|| (metadata.len(), metadata.mtime(), metadata.mtime_nsec())),
        extended: attributes::extended(path)?,
        notes,
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{XattrFlags, lsetxattr};

    use super::*;

    fn set(path: &Path, name: &str, value: &str) {
        lsetxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
    }

    #[test]
    fn a_value_is_a_change_and_a_look_is_none() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("below")).unwrap();
        set(place.path(), "user.test", "one");
        let before = directory(place.path()).unwrap();
        set(place.path(), "user.overlay.impure", "y");
        set(&place.path().join("below"), "user.overlay.origin", "");
        assert_eq!(directory(place.path()).unwrap(), before);
        set(place.path(), "user.test", "two");
        assert_ne!(directory(place.path()).unwrap(), before);
        set(place.path(), "user.test", "one");
        set(&place.path().join("below"), "user.overlay.opaque", "y");
        assert_ne!(directory(place.path()).unwrap(), before);
    }
}
