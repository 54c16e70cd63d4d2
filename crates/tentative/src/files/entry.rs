//! An entry of a directory of the outside that is held while something is done with it.
//!
//! Whoever may write to a directory on the way can put a symbolic link there, or another directory, between two calls that
//! name the same path. So a directory is looked up once, never through a symbolic link, and what is done in it goes by its
//! descriptor. Paths of mounts, of the store and of what lies below them hold no symbolic links, so none is missed.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, fstat, linkat, openat2, renameat_with},
    io::Errno,
};

use crate::journal::Inode;

/// How often a rename elsewhere on the machine may come between while the kernel looks a path up.
const ATTEMPTS: usize = 100;

/// A name in a directory that is held.
#[derive(Debug)]
pub(super) struct Entry {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

/// Opens the object at an absolute path, to name it and not to read it, without following any symbolic link.
///
/// # Errors
/// `ELOOP` if one is there, and what a look-up can fail with.
pub(super) fn hold(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match openat2(CWD, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// A path by which a held object is reached whatever becomes of its names.
pub(super) fn reach(held: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

/// Which object a descriptor holds.
pub(super) fn inode_of(held: &OwnedFd) -> io::Result<Inode> {
    let found = fstat(held)?;
    Ok(Inode { device: found.st_dev, number: found.st_ino })
}

impl Entry {
    /// Holds the directory that `path` is in.
    pub(super) fn find(path: &Path) -> io::Result<Entry> {
        // The root itself is in no directory.
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (parent, name),
            _ => (path, OsStr::new(".")),
        };
        let directory = hold(parent, OFlags::DIRECTORY)?;
        Ok(Entry { directory, name: name.to_owned(), path: path.to_owned() })
    }

    /// Another name in the same directory.
    pub(super) fn beside(&self, name: OsString) -> io::Result<Entry> {
        let path = self.path.with_file_name(&name);
        Ok(Entry { directory: self.directory.try_clone()?, name, path })
    }

    /// Its path as the journal has it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its name.
    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// The directory.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// A path that leads to it through the descriptor.
    pub(super) fn reach(&self) -> PathBuf {
        reach(&self.directory).join(&self.name)
    }

    /// What is there, a symbolic link as itself; none if nothing is.
    pub(super) fn look(&self) -> io::Result<Option<fs::Metadata>> {
        match fs::symlink_metadata(self.reach()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Which object is there.
    pub(super) fn inode(&self) -> io::Result<Option<Inode>> {
        Ok(self.look()?.map(|there| Inode::of(&there)))
    }

    /// Moves what is here to there.
    pub(super) fn rename(&self, to: &Entry, flags: RenameFlags) -> Result<(), Errno> {
        renameat_with(&self.directory, &self.name, &to.directory, &to.name, flags)
    }

    /// Makes `to` another name of the file here.
    pub(super) fn link(&self, to: &Entry) -> Result<(), Errno> {
        linkat(&self.directory, &self.name, &to.directory, &to.name, AtFlags::empty())
    }
}
