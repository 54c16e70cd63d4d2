//! Applying: taking the steps of a committed journal.
//!
//! Runs after the commit point, in the process that committed or in a later recovery, with the overlays unmounted. Every
//! step can be taken again: what it moved is recognised by its inode. An error leaves the rest to the next recovery.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat,
        chownat, openat, renameat_with, utimensat,
    },
    io::Errno,
};
use tentative_sys::crash;

use crate::{
    files::attributes::{self, Opened},
    journal::{AttributeSet, Inode, Journal, JournalError, Progress, Step},
    store::{Phase, StoreError, Transaction},
};

/// Why the changes could not all be put in place. The transaction stays committed; `recover` goes on with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A directory could not be opened to its owner.
    #[error("cannot open {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The overlay's notes could not be removed from an object.
    #[error("cannot clean {}", path.display())]
    Strip {
        /// The object in the store.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An original could not be moved out of the way.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A new object could not be put in place.
    #[error("cannot put {} in place", path.display())]
    Put {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name could not be made.
    #[error("cannot link {}", path.display())]
    Link {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that keeps its inode could not be written.
    #[error("cannot write {}", path.display())]
    Rewrite {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory could not be written to disk.
    #[error("cannot write directory {} to disk", path.display())]
    Sync {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A transaction whose commit is decided.
#[derive(Debug)]
pub struct Published {
    transaction: Transaction,
    journal: Journal,
    steps: Vec<Step>,
}

/// A transaction whose changes are in place.
#[derive(Debug)]
pub struct Applied {
    transaction: Transaction,
}

impl Published {
    pub(super) fn new(transaction: Transaction, journal: Journal, steps: Vec<Step>) -> Published {
        Published { transaction, journal, steps }
    }

    /// The decided commit in a transaction's directory; the transaction is given back if none is.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn from_journal(transaction: Transaction) -> Result<Result<Published, Transaction>, JournalError> {
        match Journal::read(transaction.dir())? {
            (Progress::Undecided, _) => Ok(Err(transaction)),
            (progress, steps) => {
                let journal = Journal::reopen(transaction.dir())?;
                // What is in place already is others' to change: it is not put there again.
                let steps = if progress == Progress::Applied { Vec::new() } else { steps };
                Ok(Ok(Published { transaction, journal, steps }))
            }
        }
    }

    /// The transaction.
    #[must_use]
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Puts every change in place and writes the directories to disk. The sandbox's mounts must be gone.
    ///
    /// # Errors
    /// See [`ApplyError`]; what was done stays done and recovery does the rest.
    pub fn apply(mut self) -> Result<Applied, ApplyError> {
        crash::point("apply-begin");
        let done = self.journal.done();
        for (number, step) in self.steps.iter().enumerate() {
            if !done.contains(&number) {
                take(step)?;
                crash::point("apply-taken");
                if matches!(step, Step::Rewrite { .. }) {
                    self.journal.took(number)?;
                }
            }
            crash::point("apply-step");
        }
        self.sync()?;
        crash::point("apply-synced");
        self.journal.applied()?;
        self.transaction.remove_beside()?;
        self.transaction.set_phase(&Phase::Committed)?;
        crash::point("apply-done");
        Ok(Applied { transaction: self.transaction })
    }

    fn sync(&self) -> Result<(), ApplyError> {
        let parents: BTreeSet<&Path> = self.steps.iter().filter_map(|step| step.path().parent()).collect();
        for parent in parents {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(CWD, parent, flags, Mode::empty()).and_then(rustix::fs::fsync) {
                // Gone or something else now with this or a later change, or one that the user may enter but not read,
                // which the kernel writes with the next flush of its journal.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {}
                Err(source) => {
                    return Err(ApplyError::Sync { path: parent.to_owned(), source: source.into() });
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

impl Applied {
    /// The transaction.
    #[must_use]
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Removes what the transaction kept, the replaced originals with it.
    ///
    /// # Errors
    /// When something cannot be removed; the next recovery tries again.
    pub fn finish(self) -> Result<(), StoreError> {
        self.transaction.discard()
    }
}

fn take(step: &Step) -> Result<(), ApplyError> {
    match step {
        Step::Open { path } => {
            open_directory(path).map_err(|source| ApplyError::Open { path: path.clone(), source })
        }
        Step::Take { path, aside, inode } | Step::Remove { path, aside, inode } => {
            move_aside(path, aside, *inode)
                .map_err(|source| ApplyError::Remove { path: path.clone(), source })
        }
        Step::Put { staged, path, inode, strip } => {
            if inode_at(staged) != Some(*inode) {
                return Ok(());
            }
            if *strip {
                strip_tree(staged).map_err(|source| ApplyError::Strip { path: staged.clone(), source })?;
                crash::point("apply-stripped");
            }
            put(staged, path).map_err(|source| ApplyError::Put { path: path.clone(), source })
        }
        Step::Link { first, path, aside } => {
            link(first, path, aside).map_err(|source| ApplyError::Link { path: path.clone(), source })
        }
        Step::Rewrite { redo, path, inode, content, attributes, moves } => {
            if *moves && inode_at(path) != Some(*inode) {
                return Ok(());
            }
            rewrite(redo, path, *inode, *content, *attributes)
                .map_err(|source| ApplyError::Rewrite { path: path.clone(), source })
        }
    }
}

fn open_directory(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => {
            fs::set_permissions(path, fs::Permissions::from_mode(there.mode() & 0o7777 | 0o700))
        }
        // A step that was taken before has moved it.
        _ => Ok(()),
    }
}

fn inode_at(path: &Path) -> Option<Inode> {
    fs::symlink_metadata(path).ok().map(|metadata| Inode::of(&metadata))
}

fn move_aside(path: &Path, aside: &Path, inode: Inode) -> io::Result<()> {
    // Once moved, somebody may have made the path anew: that is not ours.
    if inode_at(path) != Some(inode) || inode_at(aside).is_some() {
        return Ok(());
    }
    make_movable(path)?;
    Ok(renameat_with(CWD, path, CWD, aside, RenameFlags::NOREPLACE)?)
}

/// Moving a directory to another parent writes its `..`, for which its owner needs the write bit. A new directory gets
/// its mode back by a later step; an old one is not needed any more.
fn make_movable(path: &Path) -> io::Result<()> {
    let user = rustix::process::geteuid();
    match fs::symlink_metadata(path) {
        Ok(there)
            if there.is_dir()
                && !user.is_root()
                && there.uid() == user.as_raw()
                && there.mode() & 0o200 == 0 =>
        {
            fs::set_permissions(path, fs::Permissions::from_mode(there.mode() & 0o7777 | 0o700))
        }
        _ => Ok(()),
    }
}

/// Exchanges the staged object with what is at the path, or moves it there if nothing is.
fn put(staged: &Path, path: &Path) -> io::Result<()> {
    make_movable(staged)?;
    make_movable(path)?;
    // Who else makes or removes the path between the two calls is met by the other one.
    for _ in 0..100 {
        match renameat_with(CWD, staged, CWD, path, RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => {}
            // A file system without exchange: the original is removed by the rename.
            Err(Errno::INVAL) => return Ok(rustix::fs::renameat(CWD, staged, CWD, path)?),
            result => return Ok(result?),
        }
        match renameat_with(CWD, staged, CWD, path, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return Ok(result?),
        }
    }
    Err(Errno::BUSY.into())
}

fn link(first: &Path, path: &Path, aside: &Path) -> io::Result<()> {
    if inode_at(path).is_some() && inode_at(path) == inode_at(first) {
        return Ok(());
    }
    if inode_at(aside).is_none() {
        fs::hard_link(first, aside)?;
    } else if inode_at(aside) != inode_at(first) {
        // The exchange was made before, and somebody has replaced the path since: that is not ours.
        return Ok(());
    }
    crash::point("apply-linked");
    put(aside, path)
}

fn strip_tree(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        let _opened = Opened::directory(path)?;
        for entry in fs::read_dir(path)? {
            strip_tree(&entry?.path())?;
        }
    }
    if metadata.is_dir() || metadata.is_file() {
        return attributes::opened(path, attributes::strip);
    }
    // Only files and directories can have attributes of the user.
    Ok(())
}

fn rewrite(
    redo: &Path,
    path: &Path,
    inode: Inode,
    content: bool,
    attributes: AttributeSet,
) -> io::Result<()> {
    let there = fs::symlink_metadata(path)?;
    if Inode::of(&there) != inode {
        return Err(Errno::STALE.into());
    }
    if content {
        let source = attributes::opened(redo, attributes::open_unnoticed)?;
        let target = match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::set_permissions(path, fs::Permissions::from_mode(there.mode() & 0o7777 | 0o600))?;
                let opened = File::options().read(true).write(true).open(path);
                fs::set_permissions(path, there.permissions())?;
                opened?
            }
            result => result?,
        };
        crash::point("apply-rewrite");
        attributes::change_content(&source, &target)?;
        crash::point("apply-rewritten");
        target.sync_all()?;
    }
    set_attributes(redo, path, attributes)
}

fn set_attributes(redo: &Path, path: &Path, attributes: AttributeSet) -> io::Result<()> {
    if let Some((owner, group)) = attributes.owner {
        let (owner, group) = (Uid::from_raw(owner), Gid::from_raw(group));
        chownat(CWD, path, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // After the owner: a change of owner takes capabilities and the set-id bits away. Before the mode: it may close the file.
    if attributes.extended {
        attributes::copy_extended(redo, path)?;
    }
    if let Some(mode) = attributes.mode {
        chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    if let Some((seconds, nanoseconds)) = attributes.modified {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
        };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
