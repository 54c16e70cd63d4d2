//! The plan of covers: what lies over every mounted file system while a transaction runs.
//!
//! Making a plan never mounts anything and changes nothing outside the transaction's own directories: the one in the
//! store, and `.tentative-UID/ID` on other file systems, which the plan names before it makes them. A path that no
//! cover holds is the sandbox's own (`/proc`, `/sys`, `/dev`) or is masked.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::{
    containment::Gap,
    files::{
        attributes,
        basis::{Basis, Mounts},
        draft,
        moment::Moment,
        name, places,
        ways::Way,
    },
    journal::Inode,
    store::{StoreError, Transaction},
};

/// What the caller may do about mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    /// CAP_SYS_ADMIN over the mount namespace: whole file systems are covered.
    Root,
    /// None: mounts are made inside a user namespace, where those of the outside are locked.
    User,
}

impl Privilege {
    /// What this process may do.
    #[must_use]
    pub fn detect() -> Privilege {
        match rustix::thread::capabilities(None) {
            Ok(sets) if sets.effective.contains(CapabilitySet::SYS_ADMIN) => Privilege::Root,
            _ => Privilege::User,
        }
    }
}

/// A directory that was made in an upper directory before the code ran; it is not a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Its path below the cover; empty for the cover's own root.
    #[serde(with = "name::one")]
    pub path: PathBuf,
    /// The mode bits it was given.
    pub mode: u32,
    /// Which directory outside it stands for; plans of earlier versions do not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<Inode>,
}

/// What lies over one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CoverKind {
    /// An overlay.
    Overlay {
        /// The directory below: the covered path itself, or a skeleton of it in the store.
        #[serde(with = "name::one")]
        lower: PathBuf,
        /// The upper directory.
        #[serde(with = "name::one")]
        upper: PathBuf,
        /// The overlay's work directory.
        #[serde(with = "name::one")]
        work: PathBuf,
        /// A directory on the covered mount where changed files can wait to be renamed into place.
        #[serde(with = "name::option")]
        near: Option<PathBuf>,
        /// Directories that were made in `upper` beforehand, parents first.
        ancestors: Vec<Ancestor>,
    },
    /// The same tree, read-only.
    ReadOnly,
    /// A private copy of one file that is a mount point.
    Copy {
        /// The copy.
        #[serde(with = "name::one")]
        copy: PathBuf,
    },
    /// An empty read-only directory: a kernel file system at an unusual place.
    Masked,
    /// An empty private directory: the store, and the transactions' directories on other file systems.
    Hidden,
}

/// One covered path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// The absolute path, outside and inside.
    #[serde(with = "name::one")]
    pub path: PathBuf,
    /// What lies over it.
    pub kind: CoverKind,
    /// `nosuid` of the covered mount, kept by the cover.
    pub no_suid: bool,
    /// `noexec`, likewise.
    pub no_exec: bool,
}

/// The covers of one transaction, in the order in which they are mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// For whom it was made.
    pub privilege: Privilege,
    /// When the transaction began.
    pub begun: Moment,
    /// What is covered, parents before children.
    pub covers: Vec<Cover>,
    /// Directories of this transaction outside the store, removed with it.
    #[serde(with = "name::many")]
    pub places: Vec<PathBuf>,
    /// What is not contained.
    pub gaps: Vec<Gap>,
    /// The directories outside that the upper ones have something of, as they were when the code had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ways: Option<Vec<Way>>,
}

/// Why a plan could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The list of mounts could not be read.
    #[error("cannot read the list of mounts")]
    Mounts(#[source] io::Error),
    /// What the covers hold copies of could not be looked at.
    #[error("cannot look at what is to be covered")]
    Basis(#[source] io::Error),
    /// The moment of the begin could not be taken.
    #[error("cannot take the time in {}", path.display())]
    Moment {
        /// The transaction's directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory of the transaction could not be made.
    #[error("cannot prepare {}", path.display())]
    Prepare {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No file system that an overlay can write to was found.
    #[error("no directory for an overlay's changes: {} is on {file_system}, which cannot hold them", path.display())]
    NoUpper {
        /// The store.
        path: PathBuf,
        /// The type of its file system.
        file_system: String,
    },
    /// The plan could not be saved.
    #[error("cannot save the plan")]
    Save(#[source] StoreError),
}

impl Plan {
    /// Makes the plan for everything that is mounted now, saves it with the transaction and makes its directories. What is
    /// saved is enough to remove them; whoever lets the transaction outlive its code saves the plan that is returned.
    ///
    /// # Errors
    /// See [`PlanError`]; the transaction can then only be discarded.
    pub fn make(transaction: &Transaction, privilege: Privilege) -> Result<Plan, PlanError> {
        Plan::make_noting(transaction, privilege, |_| Ok(())).map(|(plan, ())| plan)
    }

    /// Does the same for a transaction that begins later, and says what it was made from.
    ///
    /// # Errors
    /// As [`Plan::make`].
    pub(crate) fn make_ahead(
        transaction: &Transaction,
        privilege: Privilege,
    ) -> Result<(Plan, Basis), PlanError> {
        let mounts = Mounts::watch().map_err(PlanError::Mounts)?;
        Plan::make_noting(transaction, privilege, |plan| Basis::of(plan, mounts).map_err(PlanError::Basis))
    }

    fn make_noting<T>(
        transaction: &Transaction,
        privilege: Privilege,
        note: impl FnOnce(&Plan) -> Result<T, PlanError>,
    ) -> Result<(Plan, T), PlanError> {
        let mut plan = draft::draft(transaction, privilege)?;
        // Saved before anything is made outside the store, so that a crash from here on leaves nothing unnamed.
        transaction.save_plan(&plan).map_err(PlanError::Save)?;
        let noted = note(&plan)?;
        plan.build(transaction)?;
        plan.begun = Moment::now(transaction.dir())
            .map_err(|source| PlanError::Moment { path: transaction.dir().to_owned(), source })?;
        Ok((plan, noted))
    }

    /// Says whether nothing was written through any cover yet. Whether a sandbox can be used again takes more: see `seal`.
    ///
    /// # Errors
    /// When an upper directory cannot be read.
    pub fn is_untouched(&self) -> io::Result<bool> {
        for cover in &self.covers {
            if let CoverKind::Overlay { upper, ancestors, .. } = &cover.kind {
                let mut expected = 0;
                for ancestor in ancestors {
                    let made = fs::symlink_metadata(upper.join(&ancestor.path))?;
                    if made.mode() & 0o7777 != ancestor.mode {
                        return Ok(false);
                    }
                    expected += usize::from(!ancestor.path.as_os_str().is_empty());
                }
                let mut found = 0;
                for ancestor in ancestors {
                    let directory = upper.join(&ancestor.path);
                    found += attributes::opened(&directory, |path| Ok(fs::read_dir(path)?.count()))?;
                }
                if found != expected {
                    return Ok(false);
                }
            }
            if let CoverKind::Copy { copy } = &cover.kind {
                let (ours, theirs) = (fs::metadata(copy)?, fs::metadata(&cover.path)?);
                if (ours.mtime(), ours.mtime_nsec(), ours.len())
                    != (theirs.mtime(), theirs.mtime_nsec(), theirs.len())
                {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The cover that holds `path`: the one with the longest path that is a prefix of it.
    #[must_use]
    pub fn cover_of(&self, path: &Path) -> Option<&Cover> {
        self.covers
            .iter()
            .filter(|cover| path.starts_with(&cover.path))
            .max_by_key(|cover| cover.path.as_os_str().len())
    }

    /// An empty directory in which a new root can be mounted before anybody else needs it: the root's own work
    /// directory, which its overlay has looked up by then. None where the root has no overlay.
    #[must_use]
    pub fn point(&self) -> Option<&Path> {
        let root = self.covers.first().filter(|cover| cover.path == Path::new("/"))?;
        match &root.kind {
            CoverKind::Overlay { work, .. } => Some(work),
            _ => None,
        }
    }

    fn build(&self, transaction: &Transaction) -> Result<(), PlanError> {
        for place in &self.places {
            let lock = places::make(place, transaction.dir())
                .map_err(|source| PlanError::Prepare { path: place.clone(), source })?;
            transaction.hold(lock);
        }
        self.covers.iter().try_for_each(|cover| self.build_cover(cover))
    }

    fn build_cover(&self, cover: &Cover) -> Result<(), PlanError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| PlanError::Prepare { path, source }
        };
        match &cover.kind {
            CoverKind::Overlay { lower, upper, work, ancestors, .. } => {
                if *lower != cover.path {
                    draft::make_skeleton(&cover.path, lower).map_err(failed(lower))?;
                }
                fs::create_dir(upper).map_err(failed(upper))?;
                fs::create_dir(work).map_err(failed(work))?;
                // Children first, so that making one does not touch the times of its finished parent.
                for ancestor in ancestors.iter().filter(|ancestor| !ancestor.path.as_os_str().is_empty()) {
                    fs::create_dir(upper.join(&ancestor.path)).map_err(failed(upper))?;
                }
                for ancestor in ancestors.iter().rev() {
                    let (from, to) = (cover.path.join(&ancestor.path), upper.join(&ancestor.path));
                    match attributes::copy_attributes(&from, &to, ancestor.mode) {
                        // Then there is nothing to cover, which the mounting finds out too.
                        Err(error) if draft::was_removed(&error, &from) => {}
                        result => result.map_err(failed(&to))?,
                    }
                }
            }
            CoverKind::Copy { copy } => {
                attributes::copy_file(&cover.path, copy).map_err(failed(&cover.path))?;
            }
            CoverKind::ReadOnly | CoverKind::Masked | CoverKind::Hidden => {}
        }
        Ok(())
    }
}
