//! Removing trees that code which nobody has read has made: of any depth, with any permissions. Never leaves a tree through
//! a symbolic link.

use std::{
    ffi::CStr,
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, chmodat, fchmod, fstat, openat,
        renameat_with, unlinkat,
    },
    io::Errno,
    path::Arg,
};

use crate::store::StoreError;

/// Each level holds a descriptor and some stack. What lies deeper is moved to the top of its tree, and is not deep there.
const LEVELS: usize = 32;
/// Bytes of a directory's entries that are read at a time.
const ENTRIES: usize = 2 << 10;
/// Removes a tree, of which nothing needs to be there.
///
/// # Errors
/// Names what could not be removed.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    Removal::default()
        .tree(path)
        .map_err(|failed| StoreError::Remove { path: failed.path, source: io::Error::from(failed.errno) })
}

/// Removes what an overlay has when nothing was written, by the names that its directories have: that is faster than
/// looking for them. Whatever is left is somebody else's to remove.
pub(crate) fn remove_unwritten(upper: &Path, work: &Path) {
    let kernels = work.join("work");
    let (incompat, volatile) = (kernels.join("incompat"), kernels.join("incompat/volatile"));
    // The kernel makes them with no permission at all.
    if !rustix::process::geteuid().is_root() {
        for directory in [&kernels, &incompat, &volatile] {
            let _left = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
        }
    }
    let _left = fs::remove_file(volatile.join("dirty"));
    for directory in [&volatile, &incompat, &kernels, &work.join("index"), work, upper] {
        let _left = fs::remove_dir(directory);
    }
}

/// The removal of one tree.
#[derive(Default)]
struct Removal {
    /// How many directories were moved to its top.
    moved: u64,
}

/// Where in a tree the removal is.
struct At<'a> {
    directory: BorrowedFd<'a>,
    top: BorrowedFd<'a>,
    level: usize,
    /// For errors only.
    path: &'a mut PathBuf,
}

impl At<'_> {
    fn failed(&self, errno: Errno) -> Failed {
        Failed { path: self.path.clone(), errno }
    }
}

/// What could not be removed, and why.
struct Failed {
    path: PathBuf,
    errno: Errno,
}

impl Removal {
    fn tree(&mut self, path: &Path) -> Result<(), Failed> {
        let failed = |errno| Failed { path: path.to_owned(), errno };
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR) => return unlinkat(CWD, path, AtFlags::empty()).map_err(failed),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        loop {
            let top = open(CWD, path).map_err(failed)?;
            let mut below = path.to_owned();
            let top = top.as_fd();
            self.empty(&mut At { directory: top, top, level: 0, path: &mut below })?;
            match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
                // Something was moved here from below.
                Err(Errno::NOTEMPTY | Errno::EXIST) if self.moved > 0 => {}
                other => return other.map_err(failed),
            }
        }
    }

    /// Removes everything in a directory.
    fn empty(&mut self, at: &mut At<'_>) -> Result<(), Failed> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); ENTRIES];
        let mut entries = RawDir::new(at.directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| at.failed(errno))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            at.path.push(name.to_string_lossy().as_ref());
            self.entry(at, name, entry.file_type())?;
            at.path.pop();
        }
        Ok(())
    }

    fn entry(&mut self, at: &mut At<'_>, name: &CStr, kind: FileType) -> Result<(), Failed> {
        let first = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match unlinkat(at.directory, name, first) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // A file system that does not say in its listing what it is.
            Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(at.failed(errno)),
        }
        self.directory(at, name)
    }

    fn directory(&mut self, at: &mut At<'_>, name: &CStr) -> Result<(), Failed> {
        let directory = open(at.directory, name).map_err(|errno| at.failed(errno))?;
        if at.level == LEVELS {
            return self.move_up(at, name).map_err(|errno| at.failed(errno));
        }
        let (top, level) = (at.top, at.level + 1);
        self.empty(&mut At { directory: directory.as_fd(), top, level, path: at.path })?;
        unlinkat(at.directory, name, AtFlags::REMOVEDIR).map_err(|errno| at.failed(errno))
    }

    fn move_up(&mut self, at: &At<'_>, name: &CStr) -> rustix::io::Result<()> {
        loop {
            self.moved += 1;
            let fresh = format!("deep-{}", self.moved);
            match renameat_with(at.directory, name, at.top, fresh, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }
}

/// Opens a directory so that it can be read and emptied. The kernel makes an overlay's work directory with no permission
/// at all, and code makes what it likes.
fn open(directory: BorrowedFd<'_>, name: impl Arg + Copy) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match openat(directory, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(directory, name, Mode::RWXU, AtFlags::empty())?;
            openat(directory, name, flags, Mode::empty())
        }
        other => other,
    }?;
    if Mode::from_raw_mode(fstat(&opened)?.st_mode) & Mode::RWXU != Mode::RWXU {
        fchmod(&opened, Mode::RWXU)?;
    }
    Ok(opened)
}
