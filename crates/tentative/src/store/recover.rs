//! Recovery: what to do with the directories of transactions whose owner is gone.
//!
//! A journal with a commit record is rolled forward. A durable pending transaction is kept. Everything else is discarded,
//! and what a power loss may have torn is named. Transactions that somebody owns are left alone.

use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::{
    files::{apply::Published, places, stage},
    record::State,
};

use super::{
    Id, Phase, Store, StoreError, Transaction, gate,
    transaction::{boot_id, read_phase},
    try_lock,
};

/// What was done with one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its commit was carried to the end.
    RolledForward {
        /// Where what others made or wrote at its paths meanwhile was put.
        kept: Vec<PathBuf>,
    },
    /// It was running when its owner died, and is gone.
    Discarded,
    /// It was being kept when its owner died; it is pending now.
    Kept,
    /// It was being kept when the machine stopped: its files may be torn, so it is gone.
    Torn,
    /// Its store was deleted by hand; what it had on another file system is gone now.
    Orphaned {
        /// Where its store was.
        store: PathBuf,
    },
    /// What was to be done with it could not be carried to the end; it waits for the next recovery.
    Stuck {
        /// Where it is in its life meanwhile.
        state: State,
        /// Why.
        reason: String,
    },
}

/// One transaction that was recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its id.
    pub id: Id,
    /// What was done.
    pub outcome: Outcome,
}

/// Removes what transactions of deleted stores have left on other file systems.
///
/// # Errors
/// When the list of mounts cannot be read or something cannot be removed.
pub fn sweep() -> Result<Vec<Recovered>, StoreError> {
    let path = PathBuf::from("/proc/self/mountinfo");
    let mut swept = Vec::new();
    for orphan in places::orphans().map_err(|source| StoreError::Read { path, source })? {
        let removed = places::remove_orphan(&orphan)?;
        // It may have had several.
        if removed && swept.last().is_none_or(|last: &Recovered| last.id != orphan.id) {
            swept.push(Recovered { id: orphan.id, outcome: Outcome::Orphaned { store: orphan.store } });
        }
    }
    Ok(swept)
}

impl Store {
    /// Finishes or removes what processes that died have left.
    ///
    /// # Errors
    /// When the store cannot be read or something cannot be removed.
    pub fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        let mut recovered = Vec::new();
        for id in self.ids()? {
            let dir = self.root.join(id.as_str());
            let owned = {
                let _gate = gate(&self.root)?;
                match try_lock(&dir) {
                    Ok(Some(lock)) => Transaction::adopt(id.clone(), dir, lock),
                    // Owned by somebody, or removed meanwhile.
                    Ok(None) | Err(StoreError::Read { .. }) => continue,
                    Err(error) => return Err(error),
                }
            };
            // What cannot be helped now keeps nobody from the others.
            let outcome = recover_one(owned).unwrap_or_else(|error| {
                let state =
                    read_phase(&self.root.join(id.as_str())).map_or(State::Running, |phase| phase.state());
                Some(Outcome::Stuck { state, reason: chain(&error) })
            });
            recovered.extend(outcome.map(|outcome| Recovered { id, outcome }));
        }
        Ok(recovered)
    }
}

fn recover_one(transaction: Transaction) -> Result<Option<Outcome>, StoreError> {
    let mut transaction = match Published::from_journal(transaction) {
        Ok(Ok(published)) => return Ok(Some(roll_forward(published))),
        Ok(Err(transaction)) => transaction,
        Err(error) => return Ok(Some(stuck(State::Committing, &error))),
    };
    match transaction.phase() {
        Ok(Phase::Pending) => {
            // Staging that did not get to the commit point.
            Ok(stage::withdraw(&transaction).err().map(|error| stuck(State::Pending, &error)))
        }
        Ok(Phase::Keeping { boot }) if boot == boot_id()? => {
            transaction.keep()?;
            Ok(Some(Outcome::Kept))
        }
        Ok(Phase::Keeping { .. }) => transaction.discard().map(|()| Some(Outcome::Torn)),
        Ok(Phase::Committed) => {
            transaction.discard().map(|()| Some(Outcome::RolledForward { kept: Vec::new() }))
        }
        Ok(Phase::Running) | Err(_) => {
            end_what_runs(transaction.id());
            transaction.discard().map(|()| Some(Outcome::Discarded))
        }
    }
}

/// Ends the processes of a transaction whose runner was killed. Without the layer `kin` no pid namespace has ended them;
/// they are told by the id in their environment, which one that has cleared it does not have.
fn end_what_runs(id: &Id) {
    let wanted = format!("TENTATIVE_ID={id}");
    // One that is just starting another is found with it in the next round.
    for _ in 0..100 {
        let mut ended = 0;
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        for pid in numbers.filter_map(Pid::from_raw).filter(|pid| *pid != getpid()) {
            // The descriptor first, so that the number cannot become somebody else's meanwhile.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
            let environment = std::fs::read(path).unwrap_or_default();
            let is_inside = environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes());
            if is_inside && pidfd_send_signal(&process, Signal::KILL).is_ok() {
                ended += 1;
            }
        }
        if ended == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn roll_forward(published: Published) -> Outcome {
    let done = published.apply().map_err(|error| chain(&error)).and_then(|applied| {
        let kept = applied.kept().to_vec();
        applied.finish().map(|()| kept).map_err(|error| chain(&error))
    });
    match done {
        Ok(kept) => Outcome::RolledForward { kept },
        Err(reason) => Outcome::Stuck { state: State::Committing, reason },
    }
}

fn stuck(state: State, error: &dyn std::error::Error) -> Outcome {
    Outcome::Stuck { state, reason: chain(error) }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
