//! What a plan was made from that its covers do not follow: the list of mounts, and what the covers hold copies of.
//!
//! An overlay shows what others go on changing below it. A skeleton, a private copy of a file and a directory that was made
//! beforehand do not, and a mount that is new has no cover. A sandbox that was built ahead is used only while all of this
//! is as it was. Only reads.

use std::{
    ffi::OsString,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{CWD, Mode, OFlags, openat},
    time::Timespec,
};

use crate::files::plan::{CoverKind, Plan};

/// The list of mounts as it was when this was opened.
#[derive(Debug)]
pub(crate) struct Mounts(OwnedFd);

impl Mounts {
    /// Before a plan is made.
    ///
    /// # Errors
    /// When `/proc/self/mountinfo` cannot be opened.
    pub(crate) fn watch() -> io::Result<Mounts> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Mounts(openat(CWD, "/proc/self/mountinfo", flags, Mode::empty())?))
    }

    /// The kernel says once that something was mounted, moved or unmounted since (proc_pid_mounts(5)).
    fn are_as_they_were(&self) -> bool {
        let mut polls = [PollFd::new(&self.0, PollFlags::PRI)];
        let changed = poll(&mut polls, Some(&Timespec::default()));
        changed == Ok(0)
    }
}

/// What a plan was made from.
#[derive(Debug)]
pub(crate) struct Basis {
    mounts: Mounts,
    copied: Vec<Copied>,
}

/// An object outside of which a cover holds a copy.
#[derive(Debug, PartialEq, Eq)]
struct Copied {
    path: PathBuf,
    looks: Option<Looks>,
    /// Of a directory that a skeleton stands for.
    entries: Vec<(OsString, Looks)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Looks {
    inode: (u64, u64),
    mode: u32,
    owner: (u32, u32),
    /// Length and time of change; none of a directory, which has a cover of its own if anything can be in it.
    content: Option<(u64, i64, i64)>,
}

impl Basis {
    /// Looks at what a plan is made from, before anything of it is copied.
    ///
    /// # Errors
    /// When something cannot be looked at.
    pub(crate) fn of(plan: &Plan, mounts: Mounts) -> io::Result<Basis> {
        Ok(Basis { mounts, copied: copied(plan)? })
    }

    /// Whether the plan, which this is the basis of, would be made again as it is.
    pub(crate) fn holds(&self, plan: &Plan) -> bool {
        self.mounts.are_as_they_were() && copied(plan).is_ok_and(|now| now == self.copied)
    }
}

fn copied(plan: &Plan) -> io::Result<Vec<Copied>> {
    let mut all = Vec::new();
    for cover in &plan.covers {
        match &cover.kind {
            CoverKind::Overlay { lower, ancestors, .. } => {
                if *lower != cover.path {
                    all.push(skeleton(&cover.path)?);
                }
                for ancestor in ancestors {
                    all.push(one(cover.path.join(&ancestor.path))?);
                }
            }
            CoverKind::Copy { .. } => all.push(one(cover.path.clone())?),
            CoverKind::ReadOnly | CoverKind::Masked | CoverKind::Hidden => {}
        }
    }
    Ok(all)
}

fn one(path: PathBuf) -> io::Result<Copied> {
    Ok(Copied { looks: looks(&path)?, path, entries: Vec::new() })
}

fn skeleton(path: &Path) -> io::Result<Copied> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // By its path, which shows what is mounted there.
        entries.extend(looks(&entry.path())?.map(|looks| (entry.file_name(), looks)));
    }
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(Copied { path: path.to_owned(), looks: looks(path)?, entries })
}

/// None of what is gone.
fn looks(path: &Path) -> io::Result<Option<Looks>> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let content = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    Ok(Some(Looks {
        inode: (metadata.dev(), metadata.ino()),
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        content: (metadata.is_file() || metadata.is_symlink()).then_some(content),
    }))
}
