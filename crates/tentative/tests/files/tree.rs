//! What a tree looks like, for comparing two of them. Changes nothing.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// A tree in words.
pub(crate) type Look = BTreeMap<PathBuf, String>;

/// A time of change before this was set by somebody, seconds since 1970.
const LONG_AGO: i64 = 1_100_000_000;

/// Every object below a directory in words: type, mode, owner, size, content, names, attributes, and the time of change if
/// that is long ago.
pub(crate) fn look(root: &Path) -> Look {
    let mut looked = BTreeMap::new();
    let mut names = HashMap::new();
    below(root, Path::new(""), &mut looked, &mut names);
    looked
}

fn below(root: &Path, path: &Path, looked: &mut Look, names: &mut HashMap<(u64, u64), PathBuf>) {
    let here = root.join(path);
    let metadata = fs::symlink_metadata(&here).unwrap();
    let mut words =
        format!("{:?} {:o} {}:{}", metadata.file_type(), metadata.mode(), metadata.uid(), metadata.gid());
    if metadata.mtime() < LONG_AGO {
        words += &format!(" of {}", metadata.mtime());
    }
    let needed = if metadata.is_dir() { 0o500 } else { 0o400 };
    let closed = !metadata.is_symlink() && metadata.mode() & needed != needed;
    if closed {
        fs::set_permissions(&here, fs::Permissions::from_mode(metadata.mode() & 0o7777 | 0o500)).unwrap();
    }
    if metadata.is_file() {
        let content = fs::read(&here).unwrap_or_default();
        let start = String::from_utf8_lossy(&content[..content.len().min(60)]).into_owned();
        words += &format!(" {} bytes {start:?}", content.len());
    }
    if metadata.is_symlink() {
        words += &format!(" {:?}", fs::read_link(&here).unwrap());
    }
    if !metadata.is_dir() {
        let first = names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.to_owned());
        words += &format!(" {} names, first {}", metadata.nlink(), first.display());
    }
    let mut list = [0_u8; 4096];
    let length = rustix::fs::llistxattr(&here, &mut list[..]).unwrap_or(0);
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = [0_u8; 256];
        let name = String::from_utf8_lossy(name).into_owned();
        let length = rustix::fs::lgetxattr(&here, &*name, &mut value[..]).unwrap();
        words += &format!(" {name}={:?}", String::from_utf8_lossy(&value[..length]));
    }
    looked.insert(path.to_owned(), words);
    if metadata.is_dir() {
        let mut entries: Vec<_> =
            fs::read_dir(&here).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        entries.sort();
        for name in entries {
            below(root, &path.join(name), looked, names);
        }
    }
    if closed {
        fs::set_permissions(&here, metadata.permissions()).unwrap();
    }
}

/// The lines in which two trees differ.
pub(crate) fn differences(
    ours: &BTreeMap<PathBuf, String>,
    theirs: &BTreeMap<PathBuf, String>,
) -> Vec<String> {
    let paths: std::collections::BTreeSet<&PathBuf> = ours.keys().chain(theirs.keys()).collect();
    paths
        .into_iter()
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| format!("{}: {:?} should be {:?}", path.display(), ours.get(path), theirs.get(path)))
        .collect()
}
