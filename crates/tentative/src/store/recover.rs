//! Recovery: what to do with the directories of transactions whose owner is gone.
//!
//! A journal with a commit record is rolled forward. A durable pending transaction is kept. Everything else is discarded,
//! and what a power loss may have torn is named. Transactions that somebody owns are left alone.

use std::path::PathBuf;

use crate::files::{apply::Published, places, stage};

use super::{Id, Phase, Store, StoreError, Transaction, transaction::boot_id, try_lock};

/// What was done with one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its commit was carried to the end.
    RolledForward,
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
    /// Its commit could not be carried to the end; it waits for the next recovery.
    Stuck {
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
                let _gate = self.gate()?;
                match try_lock(&dir) {
                    Ok(Some(lock)) => Transaction::adopt(id.clone(), dir, lock),
                    // Owned by somebody, or removed meanwhile.
                    Ok(None) | Err(StoreError::Read { .. }) => continue,
                    Err(error) => return Err(error),
                }
            };
            if let Some(outcome) = recover_one(owned)? {
                recovered.push(Recovered { id, outcome });
            }
        }
        Ok(recovered)
    }
}

fn recover_one(transaction: Transaction) -> Result<Option<Outcome>, StoreError> {
    let mut transaction = match Published::from_journal(transaction) {
        Ok(Ok(published)) => return Ok(Some(roll_forward(published))),
        Ok(Err(transaction)) => transaction,
        Err(error) => return Ok(Some(Outcome::Stuck { reason: error.to_string() })),
    };
    match transaction.phase() {
        Ok(Phase::Pending) => {
            // Staging that did not get to the commit point.
            Ok(stage::withdraw(&transaction).err().map(|error| Outcome::Stuck { reason: chain(&error) }))
        }
        Ok(Phase::Keeping { boot }) if boot == boot_id()? => {
            transaction.keep()?;
            Ok(Some(Outcome::Kept))
        }
        Ok(Phase::Keeping { .. }) => transaction.discard().map(|()| Some(Outcome::Torn)),
        Ok(Phase::Committed) => transaction.discard().map(|()| Some(Outcome::RolledForward)),
        Ok(Phase::Running) | Err(_) => transaction.discard().map(|()| Some(Outcome::Discarded)),
    }
}

fn roll_forward(published: Published) -> Outcome {
    let done = published
        .apply()
        .map_err(|error| chain(&error))
        .and_then(|applied| applied.finish().map_err(|error| chain(&error)));
    match done {
        Ok(()) => Outcome::RolledForward,
        Err(reason) => Outcome::Stuck { reason },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
