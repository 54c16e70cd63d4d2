//! What transactions inside a transaction left of their own in its upper directories: their places and their stores.
//!
//! A runner inside is killed with the rest when the program that it serves ends first. What it had made is no change of
//! the program's: it is neither shown nor committed. Only looks.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use crate::{
    files::{attributes, places},
    store,
};

/// Says whether an object in an upper directory is such a directory, or stands for one of the lower tree that is gone.
pub(super) fn is_scaffold(
    upper: &Path,
    new: &fs::Metadata,
    (lower, old): (&Path, Option<&fs::Metadata>),
) -> io::Result<bool> {
    let is_gone = new.file_type().is_char_device() && new.rdev() == 0;
    match old {
        Some(old) if is_gone => is_place(lower, old),
        _ if new.is_dir() && is_store(upper, lower, old) => Ok(true),
        _ => is_place(upper, new),
    }
}

/// A store that was made inside, or one of the outside that was used inside; not one of which a program removed the format.
fn is_store(upper: &Path, lower: &Path, old: Option<&fs::Metadata>) -> bool {
    let was_one = || old.is_some_and(fs::Metadata::is_dir) && store::is_store(lower);
    store::is_store(upper) || (was_one() && fs::symlink_metadata(upper.join("format")).is_err())
}

/// A directory that holds places, by its name and by what is in it.
fn is_place(path: &Path, metadata: &fs::Metadata) -> io::Result<bool> {
    let has_name = path.file_name().is_some_and(places::is_shared_name);
    if !has_name || !metadata.is_dir() || metadata.mode() & 0o077 != 0 {
        return Ok(false);
    }
    match attributes::names_unnoticed(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        names => Ok(names?.iter().all(|name| places::is_name_within(name))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn is_one(path: &Path) -> bool {
        is_scaffold(path, &fs::symlink_metadata(path).unwrap(), (Path::new("/nowhere"), None)).unwrap()
    }

    fn made(path: &Path, mode: u32) {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn places_are_told_by_their_names_and_by_what_is_in_them() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in [".tentative-0", ".tentative-1000"] {
            made(&at(name), 0o700);
            fs::create_dir(at(name).join("0123abcd")).unwrap();
            fs::write(at(name).join("0123abcd.owner"), "").unwrap();
            assert!(is_one(&at(name)), "{name}");
        }
        for name in [".tentative-", ".tentative-x", "x.tentative-0", ".tentative-0x"] {
            made(&at(name), 0o700);
            assert!(!is_one(&at(name)), "{name}");
        }
        fs::write(at(".tentative-0/notes"), "").unwrap();
        assert!(!is_one(&at(".tentative-0")));
        made(&at(".tentative-1"), 0o755);
        assert!(!is_one(&at(".tentative-1")));
        fs::write(at(".tentative-2"), "").unwrap();
        assert!(!is_one(&at(".tentative-2")));
    }

    #[test]
    fn a_store_is_told_by_its_format() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        store::Store::open(&store).unwrap();
        assert!(is_one(&store));
        fs::write(store.join("format"), "another").unwrap();
        assert!(!is_one(&store));
    }
}
