//! Staging: everything that can go wrong with a commit is found here, before anything outside the store changes.
//!
//! Staging decides the steps, checks conflicts and permissions, copies what has to cross file systems, writes it all to
//! disk and then writes the intent into the journal. The upper directories are not touched: the overlays may still be
//! mounted, and after [`Staged::abandon`] the code may go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        Access, AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, XattrFlags, accessat, lsetxattr,
        openat, statx,
    },
    io::Errno,
};
use tentative_sys::{
    crash,
    files::lease::{OpenElsewhere, is_open_elsewhere},
};

use crate::{
    files::{
        apply::Published,
        attributes::{self, Opened},
        changes::ScanError,
        conflict::{self, Conflict},
        ground,
        plan::{Cover, CoverKind, Plan},
        scan::{self, Deed, Operation, Scan},
        tree,
    },
    journal::{AttributeSet, Inode, Journal, JournalError, Planned, Step, When},
    store::{Phase, StoreError, Transaction, boot_id},
};

/// Why a transaction's files could not be staged. It is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The changes could not be found.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// Somebody else changed something that this would change.
    #[error("{}", count(.0))]
    Conflicts(Vec<Conflict>),
    /// There are names that no path reaches.
    #[error("{} is nested deeper than a path can name, so it cannot be put in place", path.display())]
    TooDeep {
        /// The last directory that a path reaches.
        path: PathBuf,
    },
    /// Nobody may change it.
    #[error("{} is immutable, or can only be appended to (lsattr(1))", path.display())]
    Protected {
        /// The file or directory.
        path: PathBuf,
    },
    /// Its file system does not keep what it got.
    #[error("{} cannot have the extended attribute {name}", path.display())]
    Attribute {
        /// The file or directory.
        path: PathBuf,
        /// The attribute.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The user may not do outside what was done inside.
    #[error("no permission to change {}", path.display())]
    Permission {
        /// The path.
        path: PathBuf,
    },
    /// The file system has too little room.
    #[error("{} has {free} bytes free, the commit needs {needed}", path.display())]
    Room {
        /// A path on the file system.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// A copy on the target's file system could not be made.
    #[error("cannot stage {}", path.display())]
    Copy {
        /// The path that it is for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object that is to be changed could not be looked at.
    #[error("cannot look at {}", path.display())]
    Look {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The intent could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

fn count(conflicts: &[Conflict]) -> String {
    let by_others = !conflicts.iter().all(|conflict| conflict.kind.is_of_names());
    let what = if by_others { "in conflict with changes by others" } else { "not to be merged" };
    match conflicts {
        [only] => format!("{} is {what}", only.path.display()),
        [first, ..] => format!("{} and {} more are {what}", first.path.display(), conflicts.len() - 1),
        [] => format!("nothing is {what}"),
    }
}

/// How to stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageOptions {
    /// The process that began the transaction and waits: its own locks are no conflict.
    pub origin: Option<i32>,
}

/// A transaction whose files are ready to be put in place.
#[derive(Debug)]
pub struct Staged {
    transaction: Transaction,
    journal: Journal,
    steps: Vec<Planned>,
    plan: Option<Plan>,
}

/// Stages a transaction's files; the overlays must be idle.
///
/// # Errors
/// See [`StageError`]; the transaction is given back as it was.
pub fn stage(transaction: Transaction, options: StageOptions) -> Result<Staged, (Transaction, StageError)> {
    match prepare(&transaction, options) {
        Ok((journal, steps, plan)) => Ok(Staged { transaction, journal, steps, plan }),
        Err(error) => {
            // The first error is the one to tell; what is left here goes with the transaction.
            let _ = withdraw(&transaction);
            Err((transaction, error))
        }
    }
}

impl Staged {
    /// The transaction.
    #[must_use]
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// What will be done.
    #[must_use]
    pub fn steps(&self) -> &[Planned] {
        &self.steps
    }

    /// Writes the commit record: **the** commit point. From here on the changes will be put in place, by
    /// [`Published::apply`] or by the next recovery.
    ///
    /// # Errors
    /// When the record cannot be written; whether it was is for `recover` to find out.
    pub fn publish(mut self) -> Result<Published, JournalError> {
        self.journal.commit()?;
        Ok(Published::new(self.transaction, self.journal, self.steps))
    }

    /// Gives the transaction back as it was before staging.
    ///
    /// # Errors
    /// When the intent cannot be removed.
    pub fn abandon(self) -> Result<Transaction, StageError> {
        withdraw(&self.transaction)?;
        Ok(self.transaction)
    }

    /// Opens the object that `path` will name when the changes are in place.
    ///
    /// # Errors
    /// `ENOENT` for a path that will not be there, and what opening can fail with.
    pub fn open_committed(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let mut target = path.to_owned();
        for planned in &self.steps {
            match &planned.step {
                Step::Put { staged, path: at, .. } => {
                    if let Ok(below) = path.strip_prefix(at) {
                        target =
                            if below.as_os_str().is_empty() { staged.clone() } else { staged.join(below) };
                    }
                }
                Step::Link { first, path: at, .. } if at == path => return self.open_committed(first, flags),
                Step::Remove { path: at, .. } if path.starts_with(at) => {
                    return Err(Errno::NOENT.into());
                }
                _ => {}
            }
        }
        // A file that keeps its inode and gets its content later is opened where it is; one that was taken aside too.
        for planned in &self.steps {
            if let Step::Take { aside, path: at, .. } = &planned.step
                && *aside == target
            {
                target.clone_from(at);
            }
        }
        let private = self.plan.as_ref().and_then(|plan| plan.cover_of(path)).map(|cover| &cover.kind);
        if matches!(private, Some(CoverKind::Hidden | CoverKind::Masked)) {
            return Err(Errno::NOENT.into());
        }
        Ok(openat(CWD, &target, flags | OFlags::CLOEXEC, Mode::empty())?)
    }
}

/// Removes what staging made: copies near the targets and beside them, then the intent.
pub(crate) fn withdraw(transaction: &Transaction) -> Result<(), StageError> {
    if transaction.has_plan() {
        for near in transaction.plan()?.covers.iter().filter_map(near) {
            tree::remove(near)?;
        }
    }
    crash::point("withdraw-near");
    transaction.remove_beside()?;
    crash::point("withdraw-removed");
    Journal::forget(transaction.dir())?;
    Ok(())
}

fn near(cover: &Cover) -> Option<&Path> {
    match &cover.kind {
        CoverKind::Overlay { near, .. } => near.as_deref(),
        _ => None,
    }
}

type Prepared = (Journal, Vec<Planned>, Option<Plan>);

fn prepare(transaction: &Transaction, options: StageOptions) -> Result<Prepared, StageError> {
    crash::point("stage-begin");
    if !transaction.has_plan() {
        return Ok((intend(transaction, None, &[])?, Vec::new(), None));
    }
    let plan = transaction.plan()?;
    let scan = scan::scan(&plan)?;
    if let Some(path) = scan.too_deep.first() {
        return Err(StageError::TooDeep { path: path.clone() });
    }
    let mut conflicts = conflict::of_scan(&plan, &scan, options.origin)?;
    if let Ok(record) = transaction.record() {
        let vanished = conflict::vanished_since(&record, &scan);
        let known: BTreeSet<PathBuf> = conflicts.iter().map(|conflict| conflict.path.clone()).collect();
        conflicts.extend(vanished.into_iter().filter(|conflict| !known.contains(&conflict.path)));
    }
    if !conflicts.is_empty() {
        return Err(StageError::Conflicts(conflicts));
    }
    crash::point("stage-checked");
    scan.scaffolds.iter().try_for_each(|scaffold| tree::remove(scaffold))?;
    let (opened, used) = open_used(&scan)?;
    let mut staging = Staging {
        transaction,
        plan: &plan,
        number: 0,
        steps: Steps::default(),
        growth: Vec::new(),
        closed: BTreeMap::new(),
        redos: BTreeMap::new(),
        opened,
    };
    for operation in &scan.operations {
        staging.operation(operation)?;
    }
    staging.check_room()?;
    let closed = std::mem::take(&mut staging.closed);
    let steps = std::mem::take(&mut staging.steps).in_order(&used, closed);
    let steps = ground::of_steps(steps, &staging.redos)?;
    drop(staging);
    // Pending ones are on disk already.
    if transaction.phase()? != Phase::Pending {
        for upper in plan.covers.iter().filter_map(upper) {
            tree::sync(upper)?;
        }
    }
    for near in plan.covers.iter().filter_map(near).collect::<BTreeSet<_>>() {
        tree::sync(near)?;
    }
    crash::point("stage-synced");
    let when = When { boot: boot_id()?, begun: plan.begun };
    Ok((intend(transaction, Some(&when), &steps)?, steps, Some(plan)))
}

/// Writes the intent; on a disk that is full by now, in the room that the store has set aside.
fn intend(
    transaction: &Transaction,
    when: Option<&When>,
    steps: &[Planned],
) -> Result<Journal, JournalError> {
    fn source(error: &JournalError) -> Option<&io::Error> {
        match error {
            JournalError::Write { source, .. } => Some(source),
            _ => None,
        }
    }
    let intend = || Journal::intend(transaction.dir(), transaction.id().as_str(), when, steps);
    transaction.with_room(intend, source)
}

/// Opens the closed upper directories for the time of staging; those that hold something a commit uses.
fn open_used(scan: &Scan) -> Result<(Vec<Opened>, Vec<PathBuf>), StageError> {
    let used = |directory: &&PathBuf| {
        scan.operations
            .iter()
            .any(|operation| operation.upper.starts_with(directory) && operation.upper != **directory)
    };
    let used: Vec<PathBuf> = scan.closed.iter().filter(used).cloned().collect();
    let open = |path: &PathBuf| {
        Opened::directory(path).map_err(|source| StageError::Look { path: path.clone(), source })
    };
    // Parents before children: a closed one hides what is below.
    Ok((used.iter().map(open).collect::<Result<_, _>>()?, used))
}

fn upper(cover: &Cover) -> Option<&Path> {
    match &cover.kind {
        CoverKind::Overlay { upper, .. } => Some(upper),
        CoverKind::Copy { copy } => Some(copy),
        _ => None,
    }
}

/// The steps by kind; their order is what makes taking them again safe.
#[derive(Default)]
struct Steps {
    hidden: Vec<Step>,
    take: Vec<Step>,
    remove: Vec<Step>,
    put: Vec<Step>,
    link: Vec<Step>,
    rewrite: Vec<Step>,
    times: Vec<Step>,
}

impl Steps {
    /// `used` are closed directories of the store, `closed` those of the outside with their modes.
    fn in_order(mut self, used: &[PathBuf], closed: BTreeMap<PathBuf, (u32, Inode)>) -> Vec<Step> {
        // What is taken aside to live on under another name is not removed.
        let taken: BTreeSet<PathBuf> = self.take.iter().map(|step| step.path().to_owned()).collect();
        self.remove.retain(|step| !taken.contains(step.path()));
        let open = used.iter().chain(closed.keys()).map(|path| Step::Open { path: path.clone() }).collect();
        let mut last = [self.rewrite, self.times].concat();
        for (path, (mode, inode)) in closed {
            let mut closes = false;
            for step in last.iter_mut().filter(|step| *step.path() == path) {
                if let Step::Rewrite { attributes, .. } = step {
                    attributes.mode.get_or_insert(mode);
                    closes = true;
                }
            }
            if !closes {
                let attributes = AttributeSet { mode: Some(mode), ..AttributeSet::default() };
                let redo = path.clone();
                last.push(Step::Rewrite { redo, path, inode, content: false, attributes, moves: false });
            }
        }
        // Children first: closing a directory, or setting its times, comes after what happens in it.
        last.sort_by_key(|step| std::cmp::Reverse(step.path().components().count()));
        [open, self.hidden, self.take, self.remove, self.put, self.link, last].concat()
    }
}

struct Staging<'a> {
    transaction: &'a Transaction,
    plan: &'a Plan,
    number: usize,
    steps: Steps,
    /// Where files grow in place, and by how many bytes.
    growth: Vec<(PathBuf, u64)>,
    /// The user's own directories of the outside that are closed to him, with their modes: the code opened them.
    closed: BTreeMap<PathBuf, (u32, Inode)>,
    /// For what waits where others could remove it: what it can be made from again.
    redos: BTreeMap<PathBuf, PathBuf>,
    /// Closed directories of the store, open as long as this lives.
    opened: Vec<Opened>,
}

impl Staging<'_> {
    fn operation(&mut self, operation: &Operation) -> Result<(), StageError> {
        crash::point("stage-operation");
        match &operation.deed {
            Deed::Remove => self.remove(operation),
            Deed::Place { renamed_from: Some(from), in_tree: true } => {
                self.keep_renamed(operation, from).map(|_| ())
            }
            Deed::Place { renamed_from, .. } => self.place(operation, renamed_from.as_deref()),
            Deed::Update { content } => self.update(operation, *content),
            Deed::UpdateHidden => {
                // Removing one of several names makes the kernel keep a copy too, with nothing new in it.
                let content = !attributes::same_content(&operation.path, &operation.upper)
                    .map_err(|source| StageError::Look { path: operation.path.clone(), source })?;
                let step = self.rewrite(operation, content, true)?;
                if !matches!(&step, Step::Rewrite { content: false, attributes, .. } if *attributes == AttributeSet::default())
                {
                    self.steps.hidden.push(step);
                }
                Ok(())
            }
            Deed::Link { first } => {
                self.may_change_entry(&operation.path)?;
                let aside = self.aside(operation)?;
                self.redos.insert(aside.clone(), operation.upper.clone());
                let (first, path) = (first.clone(), operation.path.clone());
                self.steps.link.push(Step::Link { first, path, aside });
                Ok(())
            }
            Deed::Times => {
                let there = look(&operation.path)?;
                // Only the owner may set times; for others the directory keeps the time of the commit.
                let own = there.uid() == rustix::process::geteuid().as_raw()
                    || rustix::process::geteuid().is_root();
                let may = own && refuse_protected(&operation.path).is_ok();
                if may && !self.plan.begun.is_before_change_of(&there) {
                    let mut step = self.rewrite(operation, false, false)?;
                    if let Step::Rewrite { attributes, .. } = &mut step {
                        // The same as before, perhaps: putting something in place outside changes it.
                        let upper = look(&operation.upper)?;
                        attributes.modified = Some((upper.mtime(), upper.mtime_nsec()));
                    }
                    self.steps.times.push(step);
                }
                Ok(())
            }
        }
    }

    fn remove(&mut self, operation: &Operation) -> Result<(), StageError> {
        self.may_change_entry(&operation.path)?;
        let there = look(&operation.path)?;
        may_move(&operation.path, &there)?;
        let aside = self.aside(operation)?;
        let inode = Inode::of(&there);
        self.steps.remove.push(Step::Remove { path: operation.path.clone(), aside, inode });
        Ok(())
    }

    fn place(&mut self, operation: &Operation, renamed_from: Option<&Path>) -> Result<(), StageError> {
        let path = &operation.path;
        self.may_change_entry(path)?;
        if let Ok(there) = fs::symlink_metadata(path) {
            may_move(path, &there)?;
        }
        if let Some(from) = renamed_from
            && self.keep_renamed(operation, from)?
        {
            return Ok(());
        }
        let staged = self.staged(operation)?;
        let strip = staged == operation.upper;
        let new = look(&staged)?;
        let inode = Inode::of(&new);
        if new.is_dir() && new.mode() & 0o200 == 0 && !rustix::process::geteuid().is_root() {
            // It has to be opened to be moved.
            let attributes = AttributeSet { mode: Some(new.mode() & 0o7777), ..AttributeSet::default() };
            let (redo, path) = (path.clone(), path.clone());
            self.steps.rewrite.push(Step::Rewrite {
                redo,
                path,
                inode,
                content: false,
                attributes,
                moves: false,
            });
        }
        self.steps.put.push(Step::Put { staged, path: path.clone(), inode, strip });
        Ok(())
    }

    /// A renamed file that somebody could tell from a copy of it: it has other names, or is open.
    fn keep_renamed(&mut self, operation: &Operation, from: &Path) -> Result<bool, StageError> {
        let there = look(from)?;
        let kept = there.is_file() && (there.nlink() > 1 || open_elsewhere(from) != OpenElsewhere::No);
        let same_mount = look(&self.plan.covers[operation.cover].path)?.dev() == there.dev();
        if !kept || !same_mount || self.may_change_entry(from).is_err() {
            return Ok(false);
        }
        let aside = self.aside(operation)?;
        if !matches!(operation.deed, Deed::Place { in_tree: true, .. }) {
            self.redos.insert(aside.clone(), operation.upper.clone());
        }
        let inode = Inode::of(&there);
        self.steps.take.push(Step::Take { path: from.to_owned(), aside: aside.clone(), inode });
        self.steps.put.push(Step::Put {
            staged: aside.clone(),
            path: operation.path.clone(),
            inode,
            strip: false,
        });
        let content = !attributes::same_content(from, &operation.upper)
            .map_err(|source| StageError::Look { path: operation.upper.clone(), source })?;
        let attributes = differing(from, &operation.upper, content)?;
        if content || attributes != AttributeSet::default() {
            // The copy that came with the tree is exchanged for the original.
            let in_tree = matches!(operation.deed, Deed::Place { in_tree: true, .. });
            let redo = if in_tree { aside } else { operation.upper.clone() };
            let path = operation.path.clone();
            self.steps.rewrite.push(Step::Rewrite { redo, path, inode, content, attributes, moves: false });
        }
        Ok(true)
    }

    fn update(&mut self, operation: &Operation, content: bool) -> Result<(), StageError> {
        let there = look(&operation.path)?;
        let is_file_mount = self.plan.covers.iter().any(|cover| cover.path == operation.path);
        let in_place = !content
            || is_file_mount
            || there.nlink() > 1
            || there.uid() != look(&operation.upper)?.uid()
            || open_elsewhere(&operation.path) != OpenElsewhere::No
            || self.may_change_entry(&operation.path).is_err();
        // A running program cannot be written to; whoever replaces it outside has to rename too.
        if in_place && !(content && is_running(&operation.path)) {
            let step = self.rewrite(operation, content, false)?;
            self.steps.rewrite.push(step);
            return Ok(());
        }
        self.place(operation, None)
    }

    fn rewrite(&mut self, operation: &Operation, content: bool, moves: bool) -> Result<Step, StageError> {
        refuse_protected(&operation.path)?;
        let (there, new) = (look(&operation.path)?, look(&operation.upper)?);
        let own = there.uid() == rustix::process::geteuid().as_raw() || rustix::process::geteuid().is_root();
        if content {
            let writable = accessat(CWD, &operation.path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
            if !writable && !own {
                return Err(StageError::Permission { path: operation.path.clone() });
            }
            self.growth.push((operation.path.clone(), growth(&there, &new)));
        }
        let seen = operation.lower.as_deref().unwrap_or(&operation.path);
        let mut attributes = differing(seen, &operation.upper, content)?;
        if attributes.extended {
            refuse_unknown(&operation.path, &operation.upper)?;
        }
        if let Some(mode) = self.opened.iter().find_map(|opened| opened.mode_of(&operation.upper)) {
            // It is open only for the time of staging.
            attributes.mode = (mode != there.mode() & 0o7777).then_some(mode);
        }
        if content {
            // Writing sets it to now.
            attributes.modified = Some((new.mtime(), new.mtime_nsec()));
        }
        if !own {
            // Writing to somebody else's file sets its times by itself; the rest is not his to change.
            if attributes.mode.is_some()
                || attributes.owner.is_some()
                || (!content && attributes.modified.is_some())
            {
                return Err(StageError::Permission { path: operation.path.clone() });
            }
            attributes.modified = None;
            attributes.extended = false;
        }
        let (redo, path, inode) = (operation.upper.clone(), operation.path.clone(), Inode::of(&there));
        Ok(Step::Rewrite { redo, path, inode, content, attributes, moves })
    }

    /// Where the new object waits on the target's own file system: where it is, or a copy.
    fn staged(&mut self, operation: &Operation) -> Result<PathBuf, StageError> {
        let near = near(&self.plan.covers[operation.cover]).map(Path::to_owned);
        if near.as_deref().and_then(Path::parent).is_some_and(|base| operation.upper.starts_with(base)) {
            return Ok(operation.upper.clone());
        }
        let copy = self.aside(operation)?;
        copy_tree(&operation.upper, &copy)
            .map_err(|source| StageError::Copy { path: operation.path.clone(), source })?;
        tree::sync(&copy)?;
        if near.is_none() {
            self.redos.insert(copy.clone(), operation.upper.clone());
        }
        Ok(copy)
    }

    /// A fresh path on the target's own mount: in the transaction's directory there, or beside the target.
    fn aside(&mut self, operation: &Operation) -> Result<PathBuf, StageError> {
        self.number += 1;
        match near(&self.plan.covers[operation.cover]) {
            Some(near) => {
                fs::create_dir_all(near)
                    .map_err(|source| StageError::Copy { path: near.to_owned(), source })?;
                Ok(near.join(self.number.to_string()))
            }
            None => {
                let name = format!(".tentative-{}-{}", self.transaction.id(), self.number);
                let beside = operation.path.with_file_name(name);
                // Named before it is made, so that a crash leaves nothing unnamed.
                self.transaction.note_beside(&beside)?;
                Ok(beside)
            }
        }
    }

    /// Says whether the user may make, replace or remove the entry `path` of its directory.
    fn may_change_entry(&mut self, path: &Path) -> Result<(), StageError> {
        let refused = || StageError::Permission { path: path.to_owned() };
        let parent = path.parent().ok_or_else(refused)?;
        for protected in [parent, path] {
            refuse_protected(protected)?;
        }
        let Ok(directory) = fs::symlink_metadata(parent) else {
            // It is made by this commit too.
            return Ok(());
        };
        let user = rustix::process::geteuid();
        if accessat(CWD, parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_err() {
            if directory.uid() != user.as_raw() {
                return Err(refused());
            }
            let mode = directory.mode() & 0o7777;
            self.closed.entry(parent.to_owned()).or_insert((mode, Inode::of(&directory)));
        }
        if directory.mode() & 0o1000 == 0 || user.is_root() || directory.uid() == user.as_raw() {
            return Ok(());
        }
        match fs::symlink_metadata(path) {
            Ok(there) if there.uid() != user.as_raw() => Err(refused()),
            _ => Ok(()),
        }
    }

    fn check_room(&self) -> Result<(), StageError> {
        let mut needed: Vec<(u64, PathBuf, u64)> = Vec::new();
        for (path, bytes) in &self.growth {
            let device = look(path)?.dev();
            match needed.iter_mut().find(|(other, ..)| *other == device) {
                Some((.., sum)) => *sum += bytes,
                None => needed.push((device, path.clone(), *bytes)),
            }
        }
        for (_, path, needed) in needed {
            let room = rustix::fs::statvfs(&path)
                .map_err(|source| StageError::Look { path: path.clone(), source: source.into() })?;
            let free = room.f_bavail.saturating_mul(room.f_frsize);
            // A file system without a size (ramfs) reports no blocks at all.
            if room.f_blocks > 0 && needed > free {
                return Err(StageError::Room { path, free, needed });
            }
        }
        Ok(())
    }
}

fn look(path: &Path) -> Result<fs::Metadata, StageError> {
    fs::symlink_metadata(path).map_err(|source| StageError::Look { path: path.to_owned(), source })
}

/// Moving a directory to another parent writes its `..`.
fn may_move(path: &Path, there: &fs::Metadata) -> Result<(), StageError> {
    let own = there.uid() == rustix::process::geteuid().as_raw();
    if there.is_dir() && !own && accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_err() {
        return Err(StageError::Permission { path: path.to_owned() });
    }
    Ok(())
}

/// Whether somebody has the file open. An ordinary user cannot find out for a file that he does not own.
fn open_elsewhere(path: &Path) -> OpenElsewhere {
    match openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW,
        Mode::empty(),
    ) {
        Ok(file) => is_open_elsewhere(file),
        Err(_) => OpenElsewhere::Unknown,
    }
}

fn is_running(path: &Path) -> bool {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    openat(CWD, path, flags, Mode::empty()).is_err_and(|error| error == Errno::TXTBSY)
}

/// What nobody may change, root neither, is found out here and not in the middle of a commit.
fn refuse_protected(path: &Path) -> Result<(), StageError> {
    const PROTECTED: StatxAttributes = StatxAttributes::IMMUTABLE.union(StatxAttributes::APPEND);
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) if found.stx_attributes.intersects(PROTECTED) => {
            Err(StageError::Protected { path: path.to_owned() })
        }
        // What is not there is nobody's.
        _ => Ok(()),
    }
}

/// An attribute that the target's file system does not know: replacing one that is not there changes nothing, and tells.
fn refuse_unknown(path: &Path, upper: &Path) -> Result<(), StageError> {
    let failed = |source| StageError::Look { path: path.to_owned(), source };
    let had = attributes::extended(path).map_err(failed)?;
    let has = attributes::extended_in_store(upper).map_err(failed)?;
    for (name, value) in has.iter().filter(|(name, _)| had.iter().all(|(other, _)| other != name)) {
        let text = OsStr::from_bytes(name);
        if let Err(errno @ (Errno::NOTSUP | Errno::INVAL)) = lsetxattr(path, text, value, XattrFlags::REPLACE)
        {
            let name = text.display().to_string();
            return Err(StageError::Attribute { path: path.to_owned(), name, source: errno.into() });
        }
    }
    Ok(())
}

/// How much room more a file takes when it gets the content of another, bytes: longer, or where there were holes.
fn growth(there: &fs::Metadata, new: &fs::Metadata) -> u64 {
    let (before, after) = (there.blocks() * 512, new.blocks() * 512);
    let longer = new.len().saturating_sub(there.len());
    after.saturating_sub(before).max(longer.min(after))
}

/// The attributes in which the object at `new` differs from the one at `old`, and those that writing `content` or giving it
/// to another owner takes away.
fn differing(old: &Path, new: &Path, content: bool) -> Result<AttributeSet, StageError> {
    const CAPABILITIES: &[u8] = b"security.capability";
    const SET_ID: u32 = 0o6000;
    let failed = |path: &Path, source| StageError::Look { path: path.to_owned(), source };
    let had = attributes::extended(old).map_err(|source| failed(old, source))?;
    let has = attributes::extended_in_store(new).map_err(|source| failed(new, source))?;
    let (old, new) = (look(old)?, look(new)?);
    let owner = ((old.uid(), old.gid()) != (new.uid(), new.gid())).then_some((new.uid(), new.gid()));
    let lost = content || owner.is_some();
    let extended = had != has || lost && has.iter().any(|(name, _)| name == CAPABILITIES);
    let sets = old.mode() != new.mode() || lost && new.mode() & SET_ID != 0;
    let mode = (!new.is_symlink() && sets).then_some(new.mode() & 0o7777);
    let modified = ((old.mtime(), old.mtime_nsec()) != (new.mtime(), new.mtime_nsec()))
        .then_some((new.mtime(), new.mtime_nsec()));
    Ok(AttributeSet { mode, owner, modified, extended })
}

/// Copies an object or a tree to another file system. Names of one file become names of one file there.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let mut links = std::collections::HashMap::new();
    copy_into(from, to, &mut links)
}

fn copy_into(
    from: &Path,
    to: &Path,
    links: &mut std::collections::HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_dir() {
        fs::create_dir(to)?;
        let opened = Opened::directory(from)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_into(&from.join(&name), &to.join(&name), links)?;
        }
        drop(opened);
        return attributes::copy_all(from, to);
    }
    if metadata.nlink() > 1 {
        if let Some(first) = links.get(&(metadata.dev(), metadata.ino())) {
            return fs::hard_link(first, to);
        }
        links.insert((metadata.dev(), metadata.ino()), to.to_owned());
    }
    attributes::copy_object(from, to)
}
