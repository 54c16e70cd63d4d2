//! The store: one directory for each transaction, and the lock that says whether somebody owns it.
//!
//! A transaction's directory is removed as a whole or kept as a whole. Nothing in it is written in place: documents are
//! replaced by rename. The journal, which decides a commit, is in [`crate::journal`].

mod error;
mod id;
mod recover;
mod spare;
mod transaction;

use std::{
    env, fs,
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FlockOperation, IFlags, Mode, OFlags, flock, ioctl_getflags, ioctl_setflags, openat};

pub use error::{ResolveError, StoreError};
pub use id::Id;
pub use recover::{Outcome, Recovered, sweep};
pub(crate) use transaction::boot_id;
pub use transaction::{Phase, Transaction};

use crate::{
    change::Change,
    files::{changes::changes, plan::Plan, tree},
    journal::{Journal, Progress},
    record::{Record, State},
};

/// The first line of the store's `format` file.
const FORMAT: &str = "tentative store 1\n";
/// The file that is locked while a transaction comes to be; room is set aside in it.
const GATE: &str = "gate";

/// A directory of transactions.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What `list` says about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its id.
    pub id: Id,
    /// Where it is in its life.
    pub state: State,
    /// The program and its arguments.
    pub program: Vec<String>,
    /// Wall-clock start, nanoseconds since 1970.
    pub started_ns: u64,
    /// Bytes that it occupies on disk.
    pub bytes: u64,
    /// How the program ended; none while it runs.
    pub exit_status: Option<i32>,
    /// How many changes a commit would apply.
    pub changes: usize,
    /// How many crossings were recorded, equal ones folded.
    pub effects: usize,
}

impl Store {
    /// Opens the user's store, making it when it is not there: `$TENTATIVE_HOME`, else `/var/lib/tentative` for root,
    /// else `$XDG_STATE_HOME/tentative`, else `~/.local/state/tentative`.
    ///
    /// # Errors
    /// See [`Store::open`]; also when no variable says where a home is.
    pub fn open_default() -> Result<Store, StoreError> {
        Store::open(&default_root().ok_or(StoreError::NoHome)?)
    }

    /// Opens a store, making it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, is of another format, or belongs to somebody else.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let root = fs::canonicalize(path).map_err(failed)?;
        if fs::metadata(&root).map_err(failed)?.uid() != rustix::process::geteuid().as_raw() {
            return Err(StoreError::Foreign(root));
        }
        let format = root.join("format");
        match fs::read_to_string(&format) {
            Ok(text) if text == FORMAT => {}
            Ok(text) if !text.is_empty() => return Err(StoreError::Format { path: root, found: text }),
            Ok(_) => replace(&format, FORMAT.as_bytes(), true).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                spread(&root);
                replace(&format, FORMAT.as_bytes(), true).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(Store { root })
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a transaction, owned by the caller until it is dropped, kept, committed or discarded, and sees that room is set
    /// aside to keep it by.
    ///
    /// # Errors
    /// When its directory cannot be made, or there is no room.
    pub fn create(&self) -> Result<Transaction, StoreError> {
        // Held so that `recover` does not see the directory before its lock is taken.
        let gate = gate(&self.root)?;
        spare::fill(&gate).map_err(|source| StoreError::Write { path: self.root.join(GATE), source })?;
        loop {
            let id = Id::random()?;
            let dir = self.root.join(id.as_str());
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {
                    let lock = try_lock(&dir)?.ok_or_else(|| StoreError::Busy(id.clone()))?;
                    return Ok(Transaction::adopt(id, dir, lock));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(StoreError::Write { path: dir, source }),
            }
        }
    }

    /// The transactions in the store, oldest first; what another process removes meanwhile is left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Summary>, StoreError> {
        let mut list: Vec<Summary> = self.ids()?.into_iter().filter_map(|id| self.summary(id)).collect();
        list.sort_by(|a, b| (a.started_ns, &a.id).cmp(&(b.started_ns, &b.id)));
        Ok(list)
    }

    /// The id that starts with `prefix`.
    ///
    /// # Errors
    /// When none does, or more than one.
    pub fn resolve(&self, prefix: &str) -> Result<Id, ResolveError> {
        let mut found: Vec<Id> =
            self.ids()?.into_iter().filter(|id| id.as_str().starts_with(prefix)).collect();
        match found.len() {
            1 if !prefix.is_empty() => Ok(found.remove(0)),
            0 => Err(ResolveError::Unknown(prefix.to_owned())),
            _ => Err(ResolveError::Ambiguous { prefix: prefix.to_owned(), matches: found }),
        }
    }

    /// Takes ownership of a transaction that is pending.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while somebody else owns it, [`StoreError::Committed`] if its commit
    /// was decided and is not finished, [`StoreError::NotPending`] if it is not pending for another reason.
    pub fn load(&self, id: &Id) -> Result<Transaction, StoreError> {
        let dir = self.root.join(id.as_str());
        let lock = try_lock(&dir)?.ok_or_else(|| StoreError::Busy(id.clone()))?;
        let transaction = Transaction::adopt(id.clone(), dir, lock);
        let decided = Journal::read(transaction.dir()).map_err(StoreError::Journal)?.0 != Progress::Undecided;
        match transaction.phase()? {
            Phase::Pending if !decided => Ok(transaction),
            _ if decided => Err(StoreError::Committed(id.clone())),
            _ => Err(StoreError::NotPending(id.clone())),
        }
    }

    /// Reads the record of a transaction without owning it.
    ///
    /// # Errors
    /// When it is not there or cannot be understood.
    pub fn record(&self, id: &Id) -> Result<Record, StoreError> {
        let dir = self.root.join(id.as_str());
        transaction::read_document(&dir.join(transaction::RECORD)).map(|record| with_changes(&dir, record))
    }

    /// Reads the plan of covers of a transaction without owning it; none when its files were not contained.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn plan(&self, id: &Id) -> Result<Option<Plan>, StoreError> {
        let path = self.root.join(id.as_str()).join(transaction::PLAN);
        if path.exists() { transaction::read_document(&path).map(Some) } else { Ok(None) }
    }

    fn ids(&self) -> Result<Vec<Id>, StoreError> {
        let failed = |source| StoreError::Read { path: self.root.clone(), source };
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            ids.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        Ok(ids)
    }

    fn summary(&self, id: Id) -> Option<Summary> {
        let dir = self.root.join(id.as_str());
        let phase = transaction::read_phase(&dir).ok()?;
        // What cannot be read is not shown to be decided; the recovery names it.
        let decided = Journal::read(&dir).is_ok_and(|(progress, _)| progress != Progress::Undecided);
        let record: Option<Record> = transaction::read_document(&dir.join(transaction::RECORD)).ok();
        let record = record.map(|record| with_changes(&dir, record));
        let bytes =
            tree::bytes(&dir) + transaction::places(&dir).iter().map(|place| tree::bytes(place)).sum::<u64>();
        Some(Summary {
            id,
            state: match phase.state() {
                State::Pending | State::Running if decided => State::Committing,
                other => other,
            },
            program: record.as_ref().map(|record| record.program.clone()).unwrap_or_default(),
            started_ns: record.as_ref().map_or(0, |record| record.started_ns),
            bytes,
            exit_status: record.as_ref().and_then(|record| record.exit_status),
            changes: record.as_ref().map_or(0, |record| record.changes.len()),
            effects: record.as_ref().map_or(0, |record| record.effects.len()),
        })
    }
}

/// The record with its list of changes. There may have been no room for that; then it is made again from what is kept.
fn with_changes(dir: &Path, record: Record) -> Record {
    if record.state != State::Pending || !record.changes.is_empty() {
        return record;
    }
    // What cannot be looked at now is told by the commit.
    let plan: Option<Plan> = transaction::read_document(&dir.join(transaction::PLAN)).ok();
    let found = plan.and_then(|plan| changes(&plan).ok()).unwrap_or_default();
    Record { changes: found.iter().map(Change::from).collect(), ..record }
}

/// Where the user's store is, whether it is there or not; none when no variable says where a home is.
#[must_use]
pub fn default_root() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = variable("TENTATIVE_HOME") {
        return Some(path);
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/tentative"));
    }
    match variable("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
        Some(state) => Some(state.join("tentative")),
        None => Some(variable("HOME")?.join(".local/state/tentative")),
    }
}

/// Tells the file system that what is below each directory in here has nothing to do with the others.
///
/// ext4 then puts each transaction's files into another group of inodes. Without that every new file of a transaction
/// looks at each inode that was freed in the last five seconds, which is most of the time of a short one. A file system
/// that knows no such hint needs none. Root's transactions make few files: finding an emptier group would take longer.
pub(crate) fn spread(directory: &Path) {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let _only_a_hint = openat(CWD, directory, flags, Mode::empty()).and_then(|directory| {
        let flags = ioctl_getflags(&directory)?;
        ioctl_setflags(&directory, flags | IFlags::TOPDIR)
    });
}

/// Takes the lock of a transaction's directory; none while somebody else has it.
fn try_lock(dir: &Path) -> Result<Option<OwnedFd>, StoreError> {
    let failed = |source: rustix::io::Errno| StoreError::Read { path: dir.to_owned(), source: source.into() };
    let lock = openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Says whether a directory is a store of this format.
pub(crate) fn is_store(path: &Path) -> bool {
    let format = path.join("format");
    fs::symlink_metadata(&format).is_ok_and(|there| there.is_file() && there.len() == FORMAT.len() as u64)
        && fs::read_to_string(&format).is_ok_and(|text| text == FORMAT)
}

/// Takes the lock under which transactions come to be.
fn gate(root: &Path) -> Result<OwnedFd, StoreError> {
    let path = root.join(GATE);
    let failed = |source: rustix::io::Errno| StoreError::Write { path: path.clone(), source: source.into() };
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let gate = openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    flock(&gate, FlockOperation::LockExclusive).map_err(failed)?;
    Ok(gate)
}

/// Replaces a file by rename; `durable` waits until content and name are on disk.
fn replace(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Several processes may make the store at once; each writes its own.
    name.push(format!(".new-{}", std::process::id()));
    let fresh = path.with_file_name(name);
    let mut file = fs::File::create(&fresh)?;
    let written = file.write_all(content).and_then(|()| if durable { file.sync_all() } else { Ok(()) });
    if let Err(error) = written.and_then(|()| fs::rename(&fresh, path)) {
        // On a full disk every block counts.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    if durable && let Some(parent) = path.parent() {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}
