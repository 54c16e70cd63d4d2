//! Directories that are made in an upper directory beforehand.
//!
//! The root of an overlay has the attributes of its upper directory, so that one is always among them. For an ordinary
//! user there are more: the kernel says EOVERFLOW when it has to copy up a directory whose owner or group the user
//! namespace does not know, and it does that for every parent of a file that is written. Those that are made beforehand
//! belong to the user; where he may not write outside they lose the write bit, so that he may not inside either.

use std::{
    ffi::OsStr,
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, accessat, openat, statat},
    path::Arg,
};

use crate::{
    files::plan::{Ancestor, Privilege},
    journal::Inode,
};

/// How deep directories are looked at that no name leads to.
const LEVELS: usize = 3;
/// How many are looked at in one cover before looking stops: a bound on the time a begin takes.
const LOOKED_AT: usize = 2_000;
/// Bytes of a directory's entries that are read at a time: most are read at once.
const ENTRIES: usize = 8 << 10;

/// The mode that a directory made beforehand gets: for an ordinary user, who owns it, his own bits are what he may do
/// outside.
pub(super) fn mode_inside(directory: &Path, privilege: Privilege) -> u32 {
    let mode = fs::metadata(directory).map_or(0o755, |metadata| metadata.mode() & 0o7777);
    if privilege == Privilege::Root {
        return mode;
    }
    let may = |access| accessat(CWD, directory, access, AtFlags::EACCESS).is_ok();
    let own = [(Access::READ_OK, 0o400), (Access::WRITE_OK, 0o200), (Access::EXEC_OK, 0o100)];
    let others = if may(Access::WRITE_OK) { mode & 0o7077 } else { mode & 0o7055 };
    own.into_iter().filter(|(access, _)| may(*access)).fold(others, |mode, (_, bit)| mode | bit)
}

/// Whether a cover of its own would serve nobody: the user may neither list nor enter the directory, or it is empty and
/// he cannot make anything in it.
pub(super) fn has_no_use(directory: &Path, metadata: &fs::Metadata) -> bool {
    let may = |access| accessat(CWD, directory, access, AtFlags::EACCESS).is_ok();
    if !may(Access::READ_OK) {
        return !may(Access::EXEC_OK);
    }
    let user = User::own();
    metadata.uid() != user.uid
        && !(user.could_write(metadata.uid(), metadata.mode()) && may(Access::WRITE_OK))
        && fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// Whether the user may write to something, or allow it to himself.
pub(super) fn may_change(path: &Path, metadata: &fs::Metadata) -> bool {
    metadata.uid() == User::own().uid || may_write(path)
}

fn may_write(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// The root of the cover over `path`.
pub(super) fn root_of(path: &Path, privilege: Privilege) -> Ancestor {
    Ancestor { path: PathBuf::new(), mode: mode_inside(path, privilege), inode: inode_of(path) }
}

/// None of what is gone by now; there is nothing to cover then.
fn inode_of(directory: &Path) -> Option<Inode> {
    fs::symlink_metadata(directory).ok().map(|found| Inode::of(&found))
}

/// What an ordinary user needs below `root`: the way to the given directories and to the working directory, and those of
/// the first levels that he may write to or that lead to such ones.
pub(super) fn for_user(root: &Path, named: &[PathBuf]) -> Vec<Ancestor> {
    let mut search = Search { found: Vec::new(), budget: LOOKED_AT, user: User::own() };
    for directory in named.iter().cloned().chain(std::env::current_dir()) {
        if let Ok(below) = directory.strip_prefix(root) {
            let mut way = root.to_owned();
            for step in below {
                way.push(step);
                search.note_if_foreign(&way);
            }
        }
    }
    // An unreadable directory ends the look at it, not the begin: nobody can write below what he cannot look up by name
    // here either.
    let _ = open(CWD, root).is_ok_and(|opened| search.look_below(opened.as_fd(), root, LEVELS).is_ok());
    // A directory of his own between two foreign ones has to be there as well.
    let between: Vec<PathBuf> =
        search.found.iter().flat_map(|path| path.ancestors().skip(1)).map(PathBuf::from).collect();
    search.found.extend(between.into_iter().filter(|path| path.starts_with(root) && path != root));
    search.found.sort();
    search.found.dedup();
    let mut ancestors = vec![root_of(root, Privilege::User)];
    ancestors.extend(search.found.into_iter().filter_map(|directory| {
        let path = directory.strip_prefix(root).ok()?.to_owned();
        let (mode, inode) = (mode_inside(&directory, Privilege::User), inode_of(&directory));
        Some(Ancestor { path, mode, inode })
    }));
    ancestors
}

struct Search {
    found: Vec<PathBuf>,
    budget: usize,
    user: User,
}

impl Search {
    /// Notes the directory if its owner or group is not the user's own, so that the kernel could not copy it up.
    fn note_if_foreign(&mut self, directory: &Path) -> bool {
        let foreign = fs::symlink_metadata(directory)
            .is_ok_and(|found| found.is_dir() && self.user.is_foreign(found.uid(), found.gid()));
        if foreign {
            self.found.push(directory.to_owned());
        }
        foreign
    }

    /// Says whether anything below is the user's or writable, noting the foreign directories that lead there. It is what
    /// a begin takes longest for, so that names are looked up from where they are and paths are made only of what is found.
    fn look_below(&mut self, directory: BorrowedFd<'_>, path: &Path, levels: usize) -> io::Result<bool> {
        let mut wanted = false;
        let mut buffer = [MaybeUninit::<u8>::uninit(); ENTRIES];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let may_be_one = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            if !may_be_one || name == c"." || name == c".." {
                continue;
            }
            // What is gone by now is no reason not to look at the others.
            let Ok(there) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                continue;
            }
            if self.budget == 0 {
                return Ok(wanted);
            }
            self.budget -= 1;
            if !self.user.is_foreign(there.st_uid, there.st_gid) {
                wanted = true;
                continue;
            }
            let below = || path.join(OsStr::from_bytes(name.to_bytes()));
            let leads = levels > 1
                && has_directories(&there)
                && open(directory, name)
                    .is_ok_and(|inner| self.look_below(inner.as_fd(), &below(), levels - 1).unwrap_or(false));
            let writable = || self.user.could_write(there.st_uid, there.st_mode) && may_write(&below());
            if leads || writable() {
                self.found.push(below());
                wanted = true;
            }
        }
        Ok(wanted)
    }
}

fn open(directory: BorrowedFd<'_>, name: impl Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// A directory with two names (its own and `.`) has none below it, where the file system counts them; others say 1.
fn has_directories(there: &Stat) -> bool {
    there.st_nlink != 2
}

struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn own() -> User {
        User { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    fn is_foreign(&self, uid: u32, gid: u32) -> bool {
        uid != self.uid || gid != self.gid
    }

    /// Whether it is worth asking the kernel: without a write bit for group or others nobody but the owner may write,
    /// since the group's bits bound what an access list can give.
    fn could_write(&self, uid: u32, mode: u32) -> bool {
        uid == self.uid || mode & 0o022 != 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn made(root: &Path, path: &str, mode: u32) {
        fs::create_dir_all(root.join(path)).unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What somebody finds who owns nothing there.
    fn found(root: &Path, budget: usize) -> (bool, Vec<String>) {
        let nobody = User { uid: u32::MAX - 1, gid: u32::MAX - 1 };
        let mut search = Search { found: Vec::new(), budget, user: nobody };
        let wanted = search.look_below(open(CWD, root).unwrap().as_fd(), root, LEVELS).unwrap();
        let below = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        let mut found: Vec<String> = search.found.iter().map(below).collect();
        found.sort();
        (wanted, found)
    }

    #[test]
    fn what_is_writable_is_found_with_what_leads_there() {
        let place = tempfile::tempdir().unwrap();
        for (path, mode) in [
            ("one/two/three", 0o777),
            ("one/other", 0o755),
            ("deep/1/2", 0o755),
            ("deep/1/2/3", 0o777),
            ("shared", 0o1777),
            ("closed", 0o755),
        ] {
            made(place.path(), path, mode);
        }
        fs::write(place.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("shared", place.path().join("link")).unwrap();
        let expected = ["one", "one/two", "one/two/three", "shared"].map(str::to_owned).to_vec();
        assert_eq!(found(place.path(), LOOKED_AT), (true, expected));
        assert_eq!(found(&place.path().join("closed"), LOOKED_AT), (false, Vec::new()));
    }

    #[test]
    fn a_directory_of_many_names_is_read_to_its_end() {
        let place = tempfile::tempdir().unwrap();
        for number in 0..1_000 {
            fs::write(place.path().join(format!("{number:0>60}")), "").unwrap();
        }
        for number in 0..20 {
            made(place.path(), &format!("shared-{number}"), 0o777);
        }
        assert_eq!(found(place.path(), LOOKED_AT).1.len(), 20);
        assert_eq!(found(place.path(), 5).1.len(), 5);
        assert_eq!(found(place.path(), 0), (false, Vec::new()));
    }

    #[test]
    fn ones_own_is_wanted_and_not_noted() {
        let place = tempfile::tempdir().unwrap();
        made(place.path(), "mine/below", 0o755);
        let mut search = Search { found: Vec::new(), budget: LOOKED_AT, user: User::own() };
        let opened = open(CWD, place.path()).unwrap();
        assert!(search.look_below(opened.as_fd(), place.path(), LEVELS).unwrap());
        assert_eq!(search.found, Vec::<PathBuf>::new());
    }
}
