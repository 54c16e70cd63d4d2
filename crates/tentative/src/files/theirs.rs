//! What others made, replaced or wrote at a path after a commit was decided and before it was in place.
//!
//! It is never thrown away and never in the way: it is put beside the path, as `NAME.tentative-ID-theirs`, and whoever
//! finishes the commit tells of it. It is told from the originals by inode, size and time of modification, and below a
//! directory by times of change; what somebody hides from those is not seen.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use rustix::{fs::RenameFlags, io::Errno};
use tentative_sys::crash;

use crate::{
    files::{
        attributes::{self, Opened},
        entry::Entry,
        moment::Moment,
        take::{Taking, Trouble, make_movable},
    },
    journal::{Inode, Looks, Step},
};

/// The longest name of a file.
const LONGEST_NAME: usize = 255;
/// How many directories one that was made anew may have below it.
const LOOKED_AT: usize = 1_000;

impl Taking<'_> {
    /// Puts what is at `from`, where a step has kept the original, beside the step's path if it is not the original.
    pub(super) fn keep_theirs(&mut self, number: usize, from: &Entry) -> Result<(), Trouble> {
        let Some(ground) = self.planned[number].ground.clone() else { return Ok(()) };
        let Some(there) = from.look()? else { return Ok(()) };
        if self.is_original(&there, ground.original, from)? {
            return Ok(());
        }
        match self.place(number)? {
            Some(entry) => self.put_beside(from, &entry),
            None => Err(Trouble::Moved(self.planned[number].step.path().to_owned())),
        }
    }

    fn is_original(&self, there: &fs::Metadata, meant: Option<Looks>, at: &Entry) -> io::Result<bool> {
        let (Some(meant), found) = (meant, Looks::of(there)) else { return Ok(false) };
        if !self.same(meant.inode, found.inode) {
            return Ok(false);
        }
        let Some(when) = self.journal.when() else { return Ok(true) };
        if there.is_dir() {
            return is_untouched(&at.reach(), &when.begun, self.ours.get_or_init(|| self.all_ours()));
        }
        Ok((meant.size, meant.modified) == (found.size, found.modified) || self.writes_to(meant.inode))
    }

    fn writes_to(&self, inode: Inode) -> bool {
        let mut steps = self.planned.iter().map(|planned| &planned.step);
        steps.any(|step| matches!(step, Step::Rewrite { inode: other, .. } if *other == inode))
    }

    /// Objects whose time of change the commit itself moves on.
    fn all_ours(&self) -> BTreeSet<u64> {
        let inodes = self.planned.iter().flat_map(|planned| {
            let own = match &planned.step {
                Step::Take { inode, .. }
                | Step::Remove { inode, .. }
                | Step::Put { inode, .. }
                | Step::Rewrite { inode, .. } => Some(*inode),
                Step::Open { .. } | Step::Link { .. } => None,
            };
            let ground = planned.ground.iter();
            let grounds = ground.flat_map(|ground| [ground.parent, ground.original.map(|looks| looks.inode)]);
            own.into_iter().chain(grounds.flatten())
        });
        inodes.map(|inode| inode.number).collect()
    }

    /// Moves what is at `from` beside `entry`, under a name that says whose it is.
    pub(super) fn put_beside(&mut self, from: &Entry, entry: &Entry) -> Result<(), Trouble> {
        make_movable(from)?;
        self.beside(entry, |to| match from.rename(to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL) if to.look()?.is_none() => {
                // A file system that cannot refuse to replace.
                Ok(from.rename(to, RenameFlags::empty())?)
            }
            other => Ok(other?),
        })
    }

    /// Keeps a copy of a file that is going to be written into, if others wrote into it since the commit was staged.
    pub(super) fn keep_copy(&mut self, number: usize, redo: &Path, entry: &Entry) -> Result<(), Trouble> {
        let meant = self.planned[number].ground.as_ref().and_then(|ground| ground.original);
        let (Some(meant), Some(there)) = (meant, entry.look()?) else { return Ok(()) };
        let found = Looks::of(&there);
        if (meant.size, meant.modified) == (found.size, found.modified) {
            return Ok(());
        }
        let begins = !self.planned[..number].iter().any(|before| {
            matches!(before.step, Step::Rewrite { inode, content: true, .. } if inode == meant.inode)
        });
        // Half old and half new after a crash, but no longer than either.
        let is_theirs = (begins && !self.journal.notes().writing.contains(&number))
            || found.size > meant.size.max(fs::symlink_metadata(redo)?.len());
        if is_theirs {
            self.beside(entry, |to| attributes::copy_object(&entry.reach(), &to.reach()))?;
        }
        Ok(())
    }

    fn beside(&mut self, entry: &Entry, make: impl Fn(&Entry) -> io::Result<()>) -> Result<(), Trouble> {
        for number in 1.. {
            let to = entry.beside(name(entry, self.transaction.id().as_str(), number))?;
            match make(&to) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other?;
                    crash::point("apply-kept");
                    self.journal.kept(to.path())?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn name(entry: &Entry, id: &str, number: usize) -> OsString {
    let again = if number > 1 { format!("-{number}") } else { String::new() };
    let end = format!(".tentative-{id}-theirs{again}");
    let mut name = entry.name().to_owned();
    if name.as_bytes().len() + end.len() > LONGEST_NAME {
        name.clear();
    }
    name.push(end);
    name
}

/// Whether nobody has made, moved or written anything in a tree since, but for the objects that are ours.
fn is_untouched(directory: &Path, begun: &Moment, ours: &BTreeSet<u64>) -> io::Result<bool> {
    let opened = Opened::directory(directory);
    let entries = match opened.and_then(|opened| Ok((fs::read_dir(directory)?, opened))) {
        // What its owner lets nobody see was not looked at before either.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(true),
        other => other?,
    };
    for entry in entries.0 {
        let path = entry?.path();
        let there = fs::symlink_metadata(&path)?;
        let is_ours = ours.contains(&Inode::of(&there).number);
        if begun.is_before_change_of(&there) && !is_ours {
            return Ok(false);
        }
        if there.is_dir() && !is_untouched(&path, begun, ours)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a directory was made after a transaction began, and nothing is in it but such directories.
pub(super) fn is_made_anew(directory: &Path, begun: Option<Moment>) -> io::Result<bool> {
    let Some(begun) = begun else { return Ok(false) };
    is_new_and_empty(directory, &begun, &mut LOOKED_AT.clone())
}

fn is_new_and_empty(directory: &Path, begun: &Moment, budget: &mut usize) -> io::Result<bool> {
    let began = UNIX_EPOCH
        + Duration::new(begun.seconds.try_into().unwrap_or(0), begun.nanoseconds.try_into().unwrap_or(0));
    // A file system that does not know when leaves it at being empty.
    if fs::metadata(directory)?.created().is_ok_and(|born| born < began) || *budget == 0 {
        return Ok(false);
    }
    *budget -= 1;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || !is_new_and_empty(&entry.path(), begun, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}
