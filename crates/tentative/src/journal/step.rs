//! The steps of a commit, as the journal keeps them.
//!
//! Each can be told from the file system to be done or not done, so that taking one again changes nothing.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::files::name;

/// Which object on which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// The device number of the file system.
    pub device: u64,
    /// The object's number on it.
    pub number: u64,
}

impl Inode {
    /// That of an object that was looked at.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Inode {
        Inode { device: metadata.dev(), number: metadata.ino() }
    }
}

/// What an object was like when the commit was staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looks {
    /// Which it is.
    pub inode: Inode,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was changed, seconds and nanoseconds.
    pub modified: (i64, i64),
}

impl Looks {
    /// Those of an object that was looked at.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Looks {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Looks { inode: Inode::of(metadata), size: metadata.len(), modified }
    }
}

/// Where a step is taken: what has to be as it was, so that it is not taken somewhere else or over something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// The directory that the step's path is in when its turn comes.
    pub parent: Option<Inode>,
    /// The directory in which the new object waits, or the original is kept.
    pub waits: Option<Inode>,
    /// What is at the path; none if nothing is.
    pub original: Option<Looks>,
    /// What the object that waits can be made from again, where somebody else can remove it.
    #[serde(with = "name::option", default)]
    pub redo: Option<PathBuf>,
}

/// Where a step is taken, as a line of the journal has it: what is as on the line before is left out. Most of a commit's
/// steps are taken in few directories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    parent: Option<Option<Inode>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    waits: Option<Option<Inode>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original: Option<Looks>,
    #[serde(with = "name::option", default, skip_serializing_if = "Option::is_none")]
    redo: Option<PathBuf>,
}

/// What is there, if only that there is nothing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Inode>>, D::Error> {
    Option::<Inode>::deserialize(deserializer).map(Some)
}

impl Line {
    /// What is to be said after the line of another step.
    pub(super) fn after(before: Option<&Ground>, ground: &Ground) -> Line {
        let before = before.cloned().unwrap_or_default();
        Line {
            parent: (ground.parent != before.parent).then_some(ground.parent),
            waits: (ground.waits != before.waits).then_some(ground.waits),
            original: ground.original,
            redo: ground.redo.clone(),
        }
    }

    /// What it says after that line.
    pub(super) fn read(self, before: Option<&Ground>) -> Ground {
        let before = before.cloned().unwrap_or_default();
        Ground {
            parent: self.parent.unwrap_or(before.parent),
            waits: self.waits.unwrap_or(before.waits),
            original: self.original,
            redo: self.redo,
        }
    }
}

/// A step, and where it is taken; journals of version 1 do not say where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The step.
    pub step: Step,
    /// Where it is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ground: Option<Ground>,
}

/// Which attributes an object that keeps its inode gets; what is none stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeSet {
    /// Mode bits.
    pub mode: Option<u32>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Time of modification, seconds and nanoseconds.
    pub modified: Option<(i64, i64)>,
    /// Whether the extended attributes are taken over.
    pub extended: bool,
}

/// One step of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Step {
    /// Gives the owner of a directory, who is not root, the permissions that later steps need. Taken again, it does the
    /// same; a later step sets the mode that the directory is to have.
    Open {
        /// The directory, outside or in the store.
        #[serde(with = "name::one")]
        path: PathBuf,
    },
    /// Moves an original aside that will get another name. Done when `aside` is there.
    Take {
        /// Where it is.
        #[serde(with = "name::one")]
        path: PathBuf,
        /// Where it waits.
        #[serde(with = "name::one")]
        aside: PathBuf,
        /// Which it is.
        inode: Inode,
    },
    /// Moves an original aside that is deleted. Done when `aside` is there.
    Remove {
        /// Where it is.
        #[serde(with = "name::one")]
        path: PathBuf,
        /// Where it is kept.
        #[serde(with = "name::one")]
        aside: PathBuf,
        /// Which it is.
        inode: Inode,
    },
    /// Puts a staged object or tree in place, by exchange if something is there. Done when `staged` is not it any more.
    Put {
        /// Where it waits; afterwards the original is there.
        #[serde(with = "name::one")]
        staged: PathBuf,
        /// Where it goes.
        #[serde(with = "name::one")]
        path: PathBuf,
        /// Which it is.
        inode: Inode,
        /// Whether the overlay's notes are to be removed from it first.
        strip: bool,
    },
    /// Makes `path` another name of `first`, by exchange if something is there. Done when it is.
    Link {
        /// The file.
        #[serde(with = "name::one")]
        first: PathBuf,
        /// The new name.
        #[serde(with = "name::one")]
        path: PathBuf,
        /// Where the name is made; afterwards the original is there.
        #[serde(with = "name::one")]
        aside: PathBuf,
    },
    /// Writes content and attributes into an object that keeps its inode. Taken again, it writes the same.
    Rewrite {
        /// Where the new content and attributes are.
        #[serde(with = "name::one")]
        redo: PathBuf,
        /// The object.
        #[serde(with = "name::one")]
        path: PathBuf,
        /// Which it is.
        inode: Inode,
        /// Whether the content is written.
        content: bool,
        /// Which attributes are.
        attributes: AttributeSet,
        /// Whether a later step moves it away, so that it may not be found when this is taken again.
        moves: bool,
    },
}

impl Step {
    /// The path outside that the step is about.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        match self {
            Step::Open { path }
            | Step::Take { path, .. }
            | Step::Remove { path, .. }
            | Step::Put { path, .. }
            | Step::Link { path, .. }
            | Step::Rewrite { path, .. } => path,
        }
    }
}
