//! Trees of the store: removed, written to disk and counted. Never leaves the tree through a symbolic link.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use crate::{
    files::attributes::{self, Opened},
    store::StoreError,
};

/// Removes a tree, of which nothing needs to be there.
///
/// # Errors
/// Names what could not be removed.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Remove { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(metadata) if !metadata.is_dir() => fs::remove_file(path).map_err(failed),
        // An empty one, which most are, needs no look into it.
        Ok(_) if fs::remove_dir(path).is_ok() => Ok(()),
        Ok(metadata) => {
            // The kernel makes an overlay's work directory with no permission at all, and code makes what it likes.
            if metadata.mode() & 0o700 != 0o700 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
            }
            for entry in fs::read_dir(path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if entry.file_type().map_err(failed)?.is_dir() {
                    remove(&entry.path())?;
                } else {
                    let path = entry.path();
                    fs::remove_file(&path).map_err(|source| StoreError::Remove { path, source })?;
                }
            }
            fs::remove_dir(path).map_err(failed)
        }
    }
}

/// Writes the regular files and directories of a tree to disk, and nothing else of the file system.
///
/// # Errors
/// Names what could not be written.
pub(crate) fn sync(path: &Path) -> Result<(), StoreError> {
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
            sync(&entry.map_err(failed)?.path())?;
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
