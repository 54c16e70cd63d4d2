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

use rustix::fs::llistxattr;

use crate::files::plan::{CoverKind, Plan};

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
    /// The list of names as the kernel gives it.
    extended: Vec<u8>,
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
    let mut names = vec![0; 4096];
    let length = match llistxattr(path, names.as_mut_slice()) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    names.truncate(length);
    Ok(Looks {
        inode: (metadata.dev(), metadata.ino()),
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        content: (!is_device).then(|| (metadata.len(), metadata.mtime(), metadata.mtime_nsec())),
        extended: names,
    })
}
