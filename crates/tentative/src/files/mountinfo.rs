//! The mounts of this process's namespace, from `/proc/self/mountinfo`. Never follows a path into an automount.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// One mount that can be reached by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of the mount.
    pub id: u64,
    /// Where it is mounted.
    pub path: PathBuf,
    /// The type of its file system.
    pub file_system: String,
    /// Whether it, or its file system, is read-only.
    pub read_only: bool,
    /// `nosuid`.
    pub no_suid: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// Whether it is mounted on something that is not a directory.
    pub is_file: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounts {
    /// The mounts that can be reached at their path and are not covered by another one, parents first.
    pub visible: Vec<Mount>,
    /// Where anything is mounted, whether it can be reached or not.
    pub points: Vec<PathBuf>,
}

/// Reads the mounts of this namespace.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub fn read() -> io::Result<Mounts> {
    let all = parse(&fs::read("/proc/self/mountinfo")?);
    let mut points: Vec<PathBuf> = all.iter().map(|mount| mount.path.clone()).collect();
    points.sort();
    points.dedup();
    let mut visible: Vec<Mount> = all
        .into_iter()
        .filter_map(|mut mount| {
            let found = look(&mount.path)?;
            mount.is_file = !found.is_directory;
            (found.mount == mount.id).then_some(mount)
        })
        .collect();
    visible.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Mounts { visible, points })
}

/// The number of the mount that `path` is on; none if it cannot be reached.
#[must_use]
pub fn mount_of(path: &Path) -> Option<u64> {
    look(path).map(|found| found.mount)
}

struct Found {
    mount: u64,
    is_directory: bool,
}

fn look(path: &Path) -> Option<Found> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, path, flags, StatxFlags::MNT_ID | StatxFlags::TYPE).ok()?;
    Some(Found { mount: found.stx_mnt_id, is_directory: found.stx_mode & 0o170_000 == 0o040_000 })
}

/// Where anything is mounted, from the text of a `mountinfo`.
pub(crate) fn points(text: &[u8]) -> Vec<PathBuf> {
    parse(text).into_iter().map(|mount| mount.path).collect()
}

pub(crate) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

// 36 35 98:0 /root /mnt/point rw,noatime shared:1 - ext3 /dev/root rw,errors=continue
fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    // Behind the six fields that are always there: a file system says itself what of it is mounted.
    let dash = 6 + fields.get(6..)?.iter().position(|field| *field == b"-")?;
    let flags: Vec<&[u8]> = fields.get(5)?.split(|byte| *byte == b',').collect();
    let super_flags: Vec<&[u8]> = fields.get(dash + 3)?.split(|byte| *byte == b',').collect();
    Some(Mount {
        id: str::from_utf8(fields.first()?).ok()?.parse().ok()?,
        path: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        file_system: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        read_only: flags.contains(&&b"ro"[..]) || super_flags.contains(&&b"ro"[..]),
        no_suid: flags.contains(&&b"nosuid"[..]),
        no_exec: flags.contains(&&b"noexec"[..]),
        is_file: false,
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let digits = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\');
        match digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 4;
            }
            None => {
                plain.push(field[at]);
                at += 1;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_understood() {
        let line =
            br"36 35 98:0 / /mnt/a\040b rw,nosuid,noatime shared:1 master:2 - ext4 /dev/x ro,errors=continue";
        let mount = parse_line(line).unwrap();
        assert_eq!((mount.id, mount.path.as_path()), (36, Path::new("/mnt/a b")));
        assert_eq!((mount.file_system.as_str(), mount.read_only, mount.no_suid), ("ext4", true, true));
        assert!(!mount.no_exec);
        let mount = parse_line(b"36 35 0:9 - /mnt rw,noexec - fuse x ro").unwrap();
        assert_eq!((mount.file_system.as_str(), mount.read_only, mount.no_exec), ("fuse", true, true));
    }

    #[test]
    fn the_root_is_visible() {
        assert!(read().unwrap().visible.iter().any(|mount| mount.path == Path::new("/")));
    }
}
