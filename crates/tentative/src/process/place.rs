//! The working directory, by a path that leads back to it.

use std::{env, fs, io, os::unix::fs::MetadataExt as _, path::PathBuf};

/// The working directory's path. A sandbox is entered by it, so it has to lead where this process is: it does not when
/// something was mounted over the directory since.
///
/// # Errors
/// When there is none.
pub fn working_directory() -> io::Result<PathBuf> {
    let path = env::current_dir()?;
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    if identity(fs::metadata(".")?) == identity(fs::metadata(&path)?) {
        Ok(path)
    } else {
        Err(io::Error::other(format!("another directory is mounted over {}", path.display())))
    }
}
