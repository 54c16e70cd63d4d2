//! Directories that a test closed are opened again before they are removed, which an ordinary user could not do
//! otherwise.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Opens every directory below a path when it goes out of scope; to be dropped before the owner of the path.
#[derive(Debug)]
pub struct Opened(PathBuf);

impl Opened {
    /// For everything below a directory.
    #[must_use]
    pub fn below(directory: &Path) -> Opened {
        Opened(directory.to_owned())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        open_up(&self.0);
    }
}

/// Gives the owner every right on a directory and on those below it.
pub fn open_up(directory: &Path) {
    // What is somebody else's, or gone, is left to whoever removes the rest.
    let _not_ours = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
