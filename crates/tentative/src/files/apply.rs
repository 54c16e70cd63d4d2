//! Applying: taking the steps of a committed journal.
//!
//! Runs after the commit point, in the process that committed or in a later recovery, with the overlays unmounted. An error
//! leaves the rest to the next recovery. How single steps are taken is in `take.rs`.

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, openat, utimensat},
    io::Errno,
};
use tentative_sys::crash;

use crate::{
    files::{
        attributes,
        entry::{self, Entry},
        take::Taking,
    },
    journal::{AttributeSet, Inode, Journal, JournalError, Planned, Progress},
    store::{Phase, StoreError, Transaction, boot_id},
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
    /// A directory is gone, or it is another one by now: nothing was done in it.
    #[error(
        "{} cannot be put in place: {} is not the directory that it was when that was decided; put it back, or make an \
         empty one there if it is gone, and run 'tentative recover'",
        path.display(),
        directory.display()
    )]
    Moved {
        /// The path.
        path: PathBuf,
        /// The directory that is missed.
        directory: PathBuf,
    },
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
    steps: Vec<Planned>,
}

/// A transaction whose changes are in place.
#[derive(Debug)]
pub struct Applied {
    transaction: Transaction,
    kept: Vec<PathBuf>,
}

impl Published {
    pub(super) fn new(transaction: Transaction, journal: Journal, steps: Vec<Planned>) -> Published {
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
        let rebooted = match self.journal.when() {
            Some(when) => when.boot != boot_id()?,
            None => false,
        };
        let (transaction, planned) = (&self.transaction, self.steps.as_slice());
        Taking { transaction, planned, journal: &mut self.journal, rebooted, ours: OnceCell::new() }.all()?;
        self.sync()?;
        crash::point("apply-synced");
        self.journal.applied()?;
        self.transaction.remove_beside()?;
        self.transaction.set_phase(&Phase::Committed)?;
        crash::point("apply-done");
        let kept = self.journal.notes().kept.iter().cloned().collect();
        Ok(Applied { transaction: self.transaction, kept })
    }

    fn sync(&self) -> Result<(), ApplyError> {
        let steps = self.steps.iter().map(|planned| &planned.step);
        let parents: BTreeSet<&Path> = steps.filter_map(|step| step.path().parent()).collect();
        for parent in parents {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let written = entry::hold(parent, OFlags::DIRECTORY).and_then(|held| {
                let directory = openat(&held, ".", flags, Mode::empty())?;
                Ok(rustix::fs::fsync(directory)?)
            });
            match written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
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

    /// Where what others made or wrote meanwhile was put: beside the paths that the commit changed.
    #[must_use]
    pub fn kept(&self) -> &[PathBuf] {
        &self.kept
    }

    /// Removes what the transaction kept, the replaced originals with it.
    ///
    /// # Errors
    /// When something cannot be removed; the next recovery tries again.
    pub fn finish(self) -> Result<(), StoreError> {
        self.transaction.discard()
    }
}

/// Writes content and attributes into an object that keeps its inode.
pub(super) fn write_into(
    redo: &Path,
    entry: &Entry,
    is_meant: impl FnOnce(Inode) -> bool,
    content: bool,
    attributes: AttributeSet,
) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let object = openat(entry.directory(), entry.name(), flags, Mode::empty())?;
    if !is_meant(entry::inode_of(&object)?) {
        return Err(Errno::STALE.into());
    }
    // Whatever becomes of its name meanwhile.
    let held = entry::reach(&object);
    if content {
        let there = fs::metadata(&held)?;
        let source = attributes::opened(redo, attributes::open_unnoticed)?;
        let target = match File::options().read(true).write(true).open(&held) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::set_permissions(&held, fs::Permissions::from_mode(there.mode() & 0o7777 | 0o600))?;
                let opened = File::options().read(true).write(true).open(&held);
                fs::set_permissions(&held, there.permissions())?;
                opened?
            }
            result => result?,
        };
        crash::point("apply-rewrite");
        attributes::change_content(&source, &target)?;
        crash::point("apply-rewritten");
        target.sync_all()?;
    }
    // Redo of what only gets its mode back is the object itself.
    let redo = if redo == entry.path() { entry.reach() } else { redo.to_owned() };
    set_attributes(&redo, &entry.reach(), &object, attributes)
}

fn set_attributes(redo: &Path, path: &Path, object: &OwnedFd, attributes: AttributeSet) -> io::Result<()> {
    if let Some((owner, group)) = attributes.owner {
        let (owner, group) = (Uid::from_raw(owner), Gid::from_raw(group));
        chownat(object, "", Some(owner), Some(group), AtFlags::EMPTY_PATH)?;
    }
    // After the owner: a change of owner takes capabilities and the set-id bits away. Before the mode: it may close the file.
    if attributes.extended {
        attributes::copy_extended(redo, path)?;
    }
    if let Some(mode) = attributes.mode {
        fs::set_permissions(entry::reach(object), fs::Permissions::from_mode(mode))?;
    }
    if let Some((seconds, nanoseconds)) = attributes.modified {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
        };
        utimensat(object, "", &times, AtFlags::EMPTY_PATH)?;
    }
    Ok(())
}
