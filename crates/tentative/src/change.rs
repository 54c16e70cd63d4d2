//! A change: what a commit would apply, in layers 1 to 5.

use serde::{Deserialize, Serialize};

use crate::layer::Layer;

/// What was done to the thing that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was there before and is gone.
    Deleted,
    /// It was not there before.
    Created,
    /// Its content differs.
    Modified,
    /// It has another name now; `before` holds the old one.
    Renamed,
    /// Only mode, owner, times or attributes differ.
    Metadata,
}

/// What a change is about: a path of layer 5, or a name of the other layers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// An absolute path as the origin sees it; bytes that are not UTF-8 are escaped as `\xNN`.
    Path(String),
    /// A name, for example `environ.PATH` or `cwd`.
    Name(String),
}

/// One thing that a commit would apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The layer it belongs to.
    pub layer: Layer,
    /// What changed.
    #[serde(flatten)]
    pub subject: Subject,
    /// How it changed.
    pub kind: ChangeKind,
    /// The state before, in words (`file 0644 1.2 kB`, a repr, an old path), where there was one.
    pub before: Option<String>,
    /// The state after, where there is one.
    pub after: Option<String>,
}
