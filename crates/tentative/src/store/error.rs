//! What can go wrong with the store.

use std::{io, path::PathBuf};

use super::Id;
use crate::journal::JournalError;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Neither `TENTATIVE_HOME` nor `HOME` is set.
    #[error("no place for the store: neither TENTATIVE_HOME nor HOME is set")]
    NoHome,
    /// The store's directory cannot be made or read.
    #[error("cannot open the store {}", path.display())]
    Open {
        /// The store.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store is another user's.
    #[error("the store {} belongs to another user", .0.display())]
    Foreign(PathBuf),
    /// The store was written by another version.
    #[error("the store {} has an unknown format: {found:?}", path.display())]
    Format {
        /// The store.
        path: PathBuf,
        /// What its `format` file says.
        found: String,
    },
    /// Something in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in it cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in it cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be made durable.
    #[error("cannot write {} to disk", path.display())]
    Sync {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document cannot be understood.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The document.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another process owns the transaction.
    #[error("transaction {0} is running or in use by another process")]
    Busy(Id),
    /// The transaction does not wait for a decision.
    #[error("transaction {0} is not pending")]
    NotPending(Id),
    /// The transaction is committed, and not all of it is in place.
    #[error("transaction {0} is committed already, and not all of it is in place yet")]
    Committed(Id),
    /// Its journal cannot be read.
    #[error(transparent)]
    Journal(JournalError),
    /// The kernel has no random bytes.
    #[error("cannot make an id")]
    Random(#[source] rustix::io::Errno),
}

/// Why a prefix names no transaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// None starts with it.
    #[error("no transaction '{0}'")]
    Unknown(String),
    /// More than one does.
    #[error("'{prefix}' is ambiguous: {}", list(matches))]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// What starts with it.
        matches: Vec<Id>,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn list(ids: &[Id]) -> String {
    ids.iter().map(Id::as_str).collect::<Vec<_>>().join(", ")
}
