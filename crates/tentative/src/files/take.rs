//! Taking the steps of a committed journal.
//!
//! Every step acts in directories that it holds, and only in those that the journal names: another one in the place of
//! such a directory, or a symbolic link, refuses the step. Nothing of others' is thrown away: what a step finds at its path
//! and the journal does not know goes beside it (see [`super::theirs`]). Every step can be taken again.

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{OFlags, RenameFlags},
    io::Errno,
};
use tentative_sys::crash;

use crate::{
    files::{
        apply::{ApplyError, write_into},
        attributes::{self, Opened},
        entry::{self, Entry},
        stage, theirs, tree,
    },
    journal::{AttributeSet, Ground, Inode, Journal, JournalError, Planned, Step},
    store::{StoreError, Transaction},
};

/// The steps of one commit, being taken.
pub(super) struct Taking<'a> {
    pub(super) transaction: &'a Transaction,
    pub(super) planned: &'a [Planned],
    pub(super) journal: &'a mut Journal,
    /// Whether the machine was started anew since: device numbers can be others then.
    pub(super) rebooted: bool,
    /// Numbers of the objects whose time of change the commit itself moves on, once they are asked for.
    pub(super) ours: OnceCell<BTreeSet<u64>>,
}

/// Why a step could not be taken.
pub(super) enum Trouble {
    Io(io::Error),
    Journal(JournalError),
    Store(StoreError),
    /// The directory is not there any more, or another one is.
    Moved(PathBuf),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Trouble {
        Trouble::Io(error.into())
    }
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Trouble {
        Trouble::Journal(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Store(error)
    }
}

impl Taking<'_> {
    /// Takes those that are not noted as taken.
    pub(super) fn all(mut self) -> Result<(), ApplyError> {
        for number in 0..self.planned.len() {
            if !self.journal.notes().done.contains(&number) {
                self.one(number).map_err(|trouble| explained(&self.planned[number].step, trouble))?;
                crash::point("apply-taken");
                self.journal.took(number)?;
            }
            crash::point("apply-step");
        }
        Ok(())
    }

    fn one(&mut self, number: usize) -> Result<(), Trouble> {
        match &self.planned[number].step {
            Step::Open { path } => Ok(open_directory(path)?),
            Step::Take { aside, inode, .. } => self.move_aside(number, aside, *inode).map(|_| ()),
            Step::Remove { aside, inode, .. } => {
                let kept = self.move_aside(number, aside, *inode)?;
                self.keep_theirs(number, &kept)
            }
            Step::Put { staged, inode, strip, .. } => self.put(number, staged, *inode, *strip),
            Step::Link { first, aside, .. } => self.link(number, first, aside),
            Step::Rewrite { redo, inode, content, attributes, moves, .. } => {
                self.rewrite(number, redo, *inode, *content && !*moves, (*content, *attributes))
            }
        }
    }

    fn ground(&self, number: usize) -> Option<&Ground> {
        self.planned[number].ground.as_ref()
    }

    /// Whether an object is the one that the journal means.
    pub(super) fn same(&self, meant: Inode, found: Inode) -> bool {
        meant.number == found.number && (meant.device == found.device || self.rebooted)
    }

    fn is(&self, meant: Inode, entry: &Entry) -> io::Result<bool> {
        Ok(entry.inode()?.is_some_and(|found| self.same(meant, found)))
    }

    /// Holds the directory of a path, which has to be the one that is meant.
    fn enter(&mut self, path: &Path, meant: Option<Inode>) -> Result<Entry, Trouble> {
        let directory = path.parent().unwrap_or(path);
        let entry = match Entry::find(path) {
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
                ) =>
            {
                return Err(Trouble::Moved(directory.to_owned()));
            }
            other => other?,
        };
        let Some(meant) = meant else { return Ok(entry) };
        let found = entry::inode_of(entry.directory())?;
        if self.same(meant, found) || self.journal.notes().adopted.get(directory) == Some(&found) {
            return Ok(entry);
        }
        // Whoever has removed it can make it anew: nothing of anybody's is in it.
        let begun = self.journal.when().map(|when| when.begun);
        if found.device == meant.device && theirs::is_made_anew(&entry::reach(entry.directory()), begun)? {
            self.journal.adopt(directory, found)?;
            return Ok(entry);
        }
        Err(Trouble::Moved(directory.to_owned()))
    }

    /// Holds the directory of a step's path; none if the step has been taken, and a later one has moved that directory.
    pub(super) fn place(&mut self, number: usize) -> Result<Option<Entry>, Trouble> {
        let path = self.planned[number].step.path();
        let parent = self.ground(number).and_then(|ground| ground.parent);
        match self.enter(path, parent) {
            Err(Trouble::Moved(_)) if self.is_below_a_later(number) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Whether a step that has been taken after this one has moved something that this one's path was in.
    fn is_below_a_later(&self, number: usize) -> bool {
        let path = self.planned[number].step.path();
        let object = |path: &Path| Entry::find(path).and_then(|entry| entry.inode()).ok().flatten();
        self.planned[number + 1..].iter().any(|later| {
            let at = later.step.path();
            at != path
                && path.starts_with(at)
                && match &later.step {
                    Step::Put { staged, inode, .. } => {
                        object(staged).is_none_or(|found| !self.same(*inode, found))
                    }
                    Step::Remove { aside, .. } => object(aside).is_some(),
                    _ => false,
                }
        })
    }

    fn move_aside(&mut self, number: usize, aside: &Path, inode: Inode) -> Result<Entry, Trouble> {
        let kept = self.enter(aside, self.ground(number).and_then(|ground| ground.waits))?;
        if kept.look()?.is_some() {
            return Ok(kept);
        }
        // What is there instead is others', who have removed or replaced it themselves.
        if let Some(entry) = self.place(number)?
            && self.is(inode, &entry)?
        {
            make_movable(&entry)?;
            entry.rename(&kept, RenameFlags::NOREPLACE)?;
            crash::point("apply-aside");
        }
        Ok(kept)
    }

    fn put(&mut self, number: usize, staged: &Path, inode: Inode, strip: bool) -> Result<(), Trouble> {
        let waiting = self.enter(staged, self.ground(number).and_then(|ground| ground.waits))?;
        if !self.is(inode, &waiting)? {
            let redo = self.ground(number).and_then(|ground| ground.redo.clone());
            if waiting.look()?.is_some() || redo.is_none() {
                // The original that came out of the exchange.
                return self.keep_theirs(number, &waiting);
            }
            // Others have removed the directory that it waited in, or the file that was to be renamed.
            let Some(entry) = self.place(number)? else { return Ok(()) };
            match redo {
                Some(redo) if !self.is(inode, &entry)? => make_again(&redo, &waiting)?,
                _ => return Ok(()),
            }
        }
        let Some(entry) = self.place(number)? else { return Ok(()) };
        if strip {
            strip_tree(&waiting.reach())?;
            crash::point("apply-stripped");
        }
        self.exchange(number, &waiting, &entry)
    }

    /// Exchanges what waits with what is at the path, or moves it there if nothing is.
    fn exchange(&mut self, number: usize, waiting: &Entry, entry: &Entry) -> Result<(), Trouble> {
        make_movable(waiting)?;
        make_movable(entry)?;
        // Who else makes or removes the path between the two calls is met by the other one.
        for _ in 0..100 {
            match waiting.rename(entry, RenameFlags::EXCHANGE) {
                Err(Errno::NOENT) => {}
                Err(Errno::INVAL) => {
                    // A file system without exchange: the original is removed by the rename.
                    self.keep_theirs(number, entry)?;
                    return Ok(waiting.rename(entry, RenameFlags::empty())?);
                }
                result => {
                    result?;
                    crash::point("apply-exchanged");
                    return self.keep_theirs(number, waiting);
                }
            }
            match waiting.rename(entry, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                result => return Ok(result?),
            }
        }
        Err(Errno::BUSY.into())
    }

    fn link(&mut self, number: usize, first: &Path, aside: &Path) -> Result<(), Trouble> {
        let Some(entry) = self.place(number)? else { return Ok(()) };
        let kept = self.enter(aside, self.ground(number).and_then(|ground| ground.waits))?;
        let from = self.enter(first, None)?;
        let (file, there) = (from.inode()?, entry.inode()?);
        if file.is_some() && file == there {
            return self.keep_theirs(number, &kept);
        }
        if kept.look()?.is_none() {
            match (&file, self.ground(number).and_then(|ground| ground.redo.clone())) {
                // Others have removed the file meanwhile; there is a copy of it.
                (None, Some(redo)) if fs::symlink_metadata(&redo).is_ok() => make_again(&redo, &kept)?,
                _ => from.link(&kept)?,
            }
        } else if kept.inode()? != file {
            // The exchange was made before, and somebody has replaced the path since: that is not ours.
            return self.keep_theirs(number, &kept);
        }
        crash::point("apply-linked");
        self.exchange(number, &kept, &entry)
    }

    fn rewrite(
        &mut self,
        number: usize,
        redo: &Path,
        inode: Inode,
        needed: bool,
        (content, attributes): (bool, AttributeSet),
    ) -> Result<(), Trouble> {
        let entry = match self.place(number) {
            // Nothing but the time of a directory that others have moved.
            Err(Trouble::Moved(_)) if !content && is_only_time(&attributes) => return Ok(()),
            other => other?,
        };
        let Some(entry) = entry else { return Ok(()) };
        if !self.is(inode, &entry)? {
            return if needed { self.write_anew(redo, &entry) } else { Ok(()) };
        }
        if content {
            self.keep_copy(number, redo, &entry)?;
            self.journal.writes(number)?;
        }
        let meant = |found| self.same(inode, found);
        Ok(write_into(redo, &entry, meant, content, attributes)?)
    }

    /// A file that was to keep its inode, and is gone or another one by now: the new one is put there like any other.
    fn write_anew(&mut self, redo: &Path, entry: &Entry) -> Result<(), Trouble> {
        let is_it = |there: &fs::Metadata| {
            there.is_file() && attributes::same_content(redo, &entry.reach()).unwrap_or(false)
        };
        if entry.look()?.is_some_and(|there| is_it(&there)) {
            return Ok(());
        }
        let name = OsString::from(format!(".tentative-{}-anew", self.transaction.id()));
        let fresh = entry.beside(name)?;
        // Named before it is made, so that a crash leaves nothing unnamed.
        self.transaction.note_beside(fresh.path())?;
        for _ in 0..100 {
            make_again(redo, &fresh)?;
            if entry.look()?.is_some() {
                self.put_beside(entry, entry)?;
            }
            match fresh.rename(entry, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::BUSY.into())
    }
}

fn explained(step: &Step, trouble: Trouble) -> ApplyError {
    let path = step.path().to_owned();
    let source = match trouble {
        Trouble::Io(source) => source,
        Trouble::Journal(error) => return error.into(),
        Trouble::Store(error) => return error.into(),
        Trouble::Moved(directory) => return ApplyError::Moved { path, directory },
    };
    match step {
        Step::Open { .. } => ApplyError::Open { path, source },
        Step::Take { .. } | Step::Remove { .. } => ApplyError::Remove { path, source },
        Step::Put { .. } => ApplyError::Put { path, source },
        Step::Link { .. } => ApplyError::Link { path, source },
        Step::Rewrite { .. } => ApplyError::Rewrite { path, source },
    }
}

fn is_only_time(attributes: &AttributeSet) -> bool {
    *attributes == AttributeSet { modified: attributes.modified, ..AttributeSet::default() }
}

/// Makes what waits to be put in place once more, from where it was copied.
fn make_again(redo: &Path, waiting: &Entry) -> Result<(), Trouble> {
    let at = waiting.reach();
    // Half of one, which a crash has left.
    tree::remove(&at)?;
    stage::copy_tree(redo, &at)?;
    tree::sync(&at)?;
    Ok(())
}

fn open_directory(path: &Path) -> io::Result<()> {
    match entry::hold(path, OFlags::DIRECTORY) {
        Ok(held) => {
            let at = entry::reach(&held);
            let mode = fs::metadata(&at)?.mode();
            fs::set_permissions(at, fs::Permissions::from_mode(mode & 0o7777 | 0o700))
        }
        // A step that was taken before has moved it; else the one that needs it says so.
        Err(_) => Ok(()),
    }
}

/// Moving a directory to another parent writes its `..`, for which its owner needs the write bit. A new directory gets
/// its mode back by a later step; an old one is not needed any more.
pub(super) fn make_movable(entry: &Entry) -> io::Result<()> {
    let user = rustix::process::geteuid();
    match entry.look()? {
        Some(there)
            if there.is_dir()
                && !user.is_root()
                && there.uid() == user.as_raw()
                && there.mode() & 0o200 == 0 =>
        {
            let mode = there.mode() & 0o7777 | 0o700;
            fs::set_permissions(entry.reach(), fs::Permissions::from_mode(mode))
        }
        _ => Ok(()),
    }
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
