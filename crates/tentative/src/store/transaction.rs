//! One transaction's directory and what is in it.
//!
//! `phase.json` says where it is in its life, and is not there while the code runs; `plan.json`, `record.json` and
//! `effects.jsonl` say what it is; `upperN` and `workN` are the overlays'; `journal` decides a commit. Dropping a [`Transaction`] gives up ownership and removes
//! nothing.

use std::{
    fs,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::process::Pid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tentative_sys::crash;

use super::{Id, StoreError, gate, replace, spare};
use crate::{
    containment::{Containment, Gap},
    effect::Effect,
    files::{
        name,
        plan::{CoverKind, Plan},
        removal, tree, ways,
    },
    layer::Layer,
    record::{Record, State},
};

pub(super) const RECORD: &str = "record.json";
const PHASE: &str = "phase.json";
pub(super) const PLAN: &str = "plan.json";
/// Paths outside the store that staging made, one a line.
const BESIDE: &str = "beside";
const EFFECTS: &str = "effects.jsonl";

/// Where a transaction is in its life, as its directory says; `committing` is said by the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Phase {
    /// The code runs, or its owner has died, or it is being removed: nothing says otherwise.
    Running,
    /// The code has ended and its files are being written to disk.
    Keeping {
        /// The boot in which that began: in another one they may be torn.
        boot: String,
    },
    /// Durable, waiting for the decision.
    Pending,
    /// The changes are in place.
    Committed,
}

impl Phase {
    /// The state that a record shows for it.
    #[must_use]
    pub fn state(&self) -> State {
        match self {
            Phase::Running | Phase::Keeping { .. } => State::Running,
            Phase::Pending => State::Pending,
            Phase::Committed => State::Committed,
        }
    }
}

/// A transaction that this process owns.
#[derive(Debug)]
pub struct Transaction {
    id: Id,
    dir: PathBuf,
    /// Says by its lock that somebody lives who owns the directory.
    lock: OwnedFd,
    /// Likewise, for its directories on other file systems.
    locks: Box<Mutex<Vec<OwnedFd>>>,
    owner: Pid,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // A process that another thread is just starting has the descriptor until it executes something. A fork of the
        // owner that ends does not give the lock up.
        if rustix::process::getpid() == self.owner {
            // Closing would release it too.
            let _ = rustix::fs::flock(&self.lock, rustix::fs::FlockOperation::Unlock);
        }
    }
}

impl Transaction {
    pub(super) fn adopt(id: Id, dir: PathBuf, lock: OwnedFd) -> Transaction {
        Transaction { id, dir, lock, locks: Box::default(), owner: rustix::process::getpid() }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Its directory in the store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The store's directory.
    #[must_use]
    pub fn store_root(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    /// Holds the lock on one of its directories on other file systems as long as it is owned.
    pub(crate) fn hold(&self, lock: OwnedFd) {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
    }

    /// Where it is in its life.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn phase(&self) -> Result<Phase, StoreError> {
        read_phase(&self.dir)
    }

    pub(crate) fn set_phase(&self, phase: &Phase) -> Result<(), StoreError> {
        self.write_document(PHASE, phase, true)
    }

    /// Saves the record. On a disk that is too full for it, it is saved without its lists of changes and effects, and with
    /// a gap that says so: what was changed is in the upper directories, from which [`Store::record`] lists it.
    ///
    /// [`Store::record`]: super::Store::record
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_record(&self, record: &Record) -> Result<(), StoreError> {
        match self.write_document(RECORD, record, false) {
            Err(StoreError::Write { source, .. }) if spare::is_full(&source) => {
                self.write_document(RECORD, &without_lists(record), false)
            }
            other => other,
        }
    }

    /// The record as it was saved last.
    ///
    /// # Errors
    /// When there is none or it cannot be understood.
    pub fn record(&self) -> Result<Record, StoreError> {
        read_document(&self.dir.join(RECORD))
    }

    /// Saves the plan of covers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_plan(&self, plan: &Plan) -> Result<(), StoreError> {
        self.write_document(PLAN, plan, false)
    }

    /// The plan of covers as it was saved last.
    ///
    /// # Errors
    /// When there is none (files were not contained) or it cannot be understood.
    pub fn plan(&self) -> Result<Plan, StoreError> {
        read_document(&self.dir.join(PLAN))
    }

    /// Says whether it has a plan: without the file layer there is none.
    #[must_use]
    pub fn has_plan(&self) -> bool {
        self.dir.join(PLAN).exists()
    }

    /// Appends effects to the record of effects.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add_effects(&self, effects: &[Effect]) -> Result<(), StoreError> {
        let path = self.dir.join(EFFECTS);
        let mut lines = Vec::new();
        for effect in effects {
            serde_json::to_writer(&mut lines, effect)
                .map_err(|source| StoreError::Damaged { path: path.clone(), source })?;
            lines.push(b'\n');
        }
        let failed = |source| StoreError::Write { path: path.clone(), source };
        let mut file = fs::File::options().create(true).append(true).open(&path).map_err(failed)?;
        file.write_all(&lines).map_err(failed)
    }

    /// The effects that were appended.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn effects(&self) -> Result<Vec<Effect>, StoreError> {
        let path = self.dir.join(EFFECTS);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StoreError::Read { path, source }),
        };
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line)
                    .map_err(|source| StoreError::Damaged { path: path.clone(), source })
            })
            .collect()
    }

    /// Makes it pending: its files are written to disk, then it is marked. The sandbox's mounts must be gone or idle.
    ///
    /// # Errors
    /// When something cannot be written; it is then still as it was.
    pub fn keep(&mut self) -> Result<(), StoreError> {
        crash::point("keep-begin");
        self.remember_ways();
        match self.set_phase(&Phase::Keeping { boot: boot_id()? }) {
            // It is durable already, and the commit that was refused since has left it as it was.
            Err(StoreError::Write { source, .. })
                if spare::is_full(&source) && self.phase().is_ok_and(|phase| phase == Phase::Pending) =>
            {
                return Ok(());
            }
            other => other?,
        }
        crash::point("keep-marked");
        for directory in [&self.dir].into_iter().chain(&places(&self.dir)) {
            tree::sync(directory)?;
            crash::point("keep-synced");
        }
        self.clear_volatile()?;
        self.set_phase(&Phase::Pending)?;
        crash::point("keep-done");
        Ok(())
    }

    /// Others may move directories while it waits. Without this the commit judges by times, and refuses more.
    fn remember_ways(&self) {
        if let Ok(mut plan) = self.plan()
            && plan.ways.is_none()
            && let Ok(ways) = ways::remember(&plan)
        {
            plan.ways = Some(ways);
            let _less_exact = self.save_plan(&plan);
        }
    }

    /// Takes the mark off that keeps an upper directory from being mounted again: its files are on disk now.
    fn clear_volatile(&self) -> Result<(), StoreError> {
        let covers = self.has_plan().then(|| self.plan()).transpose()?.map(|plan| plan.covers);
        for cover in covers.into_iter().flatten() {
            let CoverKind::Overlay { work, .. } = cover.kind else { continue };
            // The kernel's own directory, where the mark is too; a mount makes it anew.
            tree::remove(&work.join("work"))?;
        }
        Ok(())
    }

    /// Removes everything that it has: in the store and on other file systems.
    ///
    /// # Errors
    /// When something cannot be removed; `recover` tries again.
    pub fn discard(self) -> Result<(), StoreError> {
        self.remove()
    }

    pub(crate) fn remove(&self) -> Result<(), StoreError> {
        crash::point("discard-begin");
        if self.phase().is_ok_and(|phase| !matches!(phase, Phase::Running | Phase::Committed)) {
            self.forget_phase()?;
        }
        self.remove_beside()?;
        let plan = read_document::<Plan>(&self.dir.join(PLAN)).ok();
        for cover in plan.iter().flat_map(|plan| &plan.covers) {
            if let CoverKind::Overlay { upper, work, .. } = &cover.kind {
                removal::remove_unwritten(upper, work);
            }
        }
        for place in plan.into_iter().flat_map(|plan| plan.places) {
            crate::files::places::remove(&place)?;
            crash::point("discard-place");
        }
        tree::remove(&self.dir)?;
        crash::point("discard-done");
        Ok(())
    }

    /// What is half removed must not look pending after a crash. The phase is taken away and not written anew, since
    /// that works on a full disk, too; without one, `recover` discards.
    fn forget_phase(&self) -> Result<(), StoreError> {
        let path = self.dir.join(PHASE);
        fs::remove_file(&path)
            .and_then(|()| fs::File::open(&self.dir)?.sync_all())
            .map_err(|source| StoreError::Remove { path, source })
    }

    /// Notes a path beside a target, outside the store, that this transaction is going to make.
    pub(crate) fn note_beside(&self, path: &Path) -> Result<(), StoreError> {
        let list = self.dir.join(BESIDE);
        let line = format!("{}\n", name::kept(path));
        let note = || {
            let mut file = fs::File::options().create(true).append(true).open(&list)?;
            let before = file.metadata()?.len();
            if let Err(error) = file.write_all(line.as_bytes()) {
                // A torn line would take the next one with it.
                file.set_len(before)?;
                return Err(error);
            }
            file.sync_data()
        };
        self.with_room(note, |error| Some(error))
            .map_err(|source| StoreError::Write { path: list.clone(), source })
    }

    /// Removes what is at the noted paths.
    pub(crate) fn remove_beside(&self) -> Result<(), StoreError> {
        let list = self.dir.join(BESIDE);
        let text = match fs::read_to_string(&list) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(StoreError::Read { path: list, source }),
        };
        // A last line without its end was torn before anything was made.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            if let Some(path) = name::unkept(line) {
                tree::remove(&path)?;
            }
        }
        fs::remove_file(&list).map_err(|source| StoreError::Remove { path: list, source })
    }

    fn write_document<T: Serialize>(
        &self,
        name: &str,
        document: &T,
        durable: bool,
    ) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        let text = serde_json::to_vec(document)
            .map_err(|source| StoreError::Damaged { path: path.clone(), source })?;
        self.with_room(|| replace(&path, &text, durable), |error| Some(error))
            .map_err(|source| StoreError::Write { path, source })
    }

    /// Writes something into the store; where the disk is full, once more in the room that was set aside for that.
    pub(crate) fn with_room<T, E>(
        &self,
        write: impl Fn() -> Result<T, E>,
        source: impl Fn(&E) -> Option<&io::Error>,
    ) -> Result<T, E> {
        match write() {
            Err(error) if source(&error).is_some_and(spare::is_full) => {
                match gate(self.store_root()).map(spare::release) {
                    Ok(Ok(())) => write(),
                    // There is no other room: the first error is the one to tell.
                    _ => Err(error),
                }
            }
            other => other,
        }
    }
}

fn without_lists(record: &Record) -> Record {
    let effects = record.effects.len();
    let reason = format!(
        "the disk was full: the list of {effects} effects could not be kept, the changes themselves are"
    );
    let mut gaps = record.containment.gaps().to_vec();
    gaps.push(Gap { layer: Layer::Files, reason });
    Record {
        changes: Vec::new(),
        effects: Vec::new(),
        containment: Containment::from_gaps(gaps),
        ..record.clone()
    }
}

pub(super) fn read_document<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let text = fs::read(path).map_err(|source| StoreError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| StoreError::Damaged { path: path.to_owned(), source })
}

pub(super) fn read_phase(dir: &Path) -> Result<Phase, StoreError> {
    match read_document(&dir.join(PHASE)) {
        Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound && dir.is_dir() => {
            Ok(Phase::Running)
        }
        other => other,
    }
}

/// The directories outside the store that the transaction in `dir` has; none when its plan is not there.
pub(super) fn places(dir: &Path) -> Vec<PathBuf> {
    read_document::<Plan>(&dir.join(PLAN)).map(|plan| plan.places).unwrap_or_default()
}

/// The kernel's name of this boot.
pub(crate) fn boot_id() -> Result<String, StoreError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text =
        fs::read_to_string(path).map_err(|source| StoreError::Read { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}
