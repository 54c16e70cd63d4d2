//! Trees of the store: written to disk and counted. Never leaves the tree through a symbolic link.

pub(crate) use super::removal::remove;

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use rustix::io::Errno;

use crate::{
    files::attributes::{self, Opened},
    store::StoreError,
};

/// Writes the regular files and directories of a tree to disk, and nothing else of the file system, unless the tree is
/// deeper than paths reach.
///
/// # Errors
/// Names what could not be written.
pub(crate) fn sync(path: &Path) -> Result<(), StoreError> {
    match sync_by_path(path) {
        Err(StoreError::Sync { source, .. }) if Errno::from_io_error(&source) == Some(Errno::NAMETOOLONG) => {
            let failed = |source| StoreError::Sync { path: path.to_owned(), source };
            let whole = fs::File::open(path).map_err(failed)?;
            rustix::fs::syncfs(&whole).map_err(|errno| failed(errno.into()))
        }
        other => other,
    }
}

fn sync_by_path(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Sync { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(failed)?,
    };
    if !metadata.is_dir() && !metadata.is_file() {
        return Ok(());
    }
    if metadata.is_dir() {
        let _opened = Opened::directory(path).map_err(failed)?;
        for entry in fs::read_dir(path).map_err(failed)? {
            sync_by_path(&entry.map_err(failed)?.path())?;
        }
        return fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(failed);
    }
    attributes::opened(path, |path| fs::File::open(path)?.sync_all()).map_err(failed)
}

/// Bytes that a tree occupies; what cannot be read counts nothing.
pub(crate) fn bytes(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|entry| bytes(&entry.path())).sum::<u64>()
}
