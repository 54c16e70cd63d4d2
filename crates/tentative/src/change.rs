//! A change: what a commit would apply, in layers 1 to 5.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{files::name, layer::Layer};

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
    /// An absolute path as the origin sees it; bytes that are not UTF-8 and control characters are escaped as
    /// `\xNN`.
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
    /// The bytes of the path in hexadecimal, where the subject is not they.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// The same of the old path, which is `before` of something renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_hex: Option<String>,
}

impl Change {
    /// A change of a file, with the bytes of its path where text does not have them.
    #[must_use]
    pub fn of_path(path: &Path, kind: ChangeKind, before: Option<String>, after: Option<String>) -> Change {
        Change {
            layer: Layer::Files,
            subject: Subject::Path(name::shown(path)),
            kind,
            before,
            after,
            path_hex: name::hex_if_escaped(path),
            before_hex: None,
        }
    }

    /// A change of something that has a name.
    #[must_use]
    pub const fn of_name(
        layer: Layer,
        name: String,
        kind: ChangeKind,
        before: Option<String>,
        after: Option<String>,
    ) -> Change {
        let subject = Subject::Name(name);
        Change { layer, subject, kind, before, after, path_hex: None, before_hex: None }
    }

    /// The exact path of a change of a file; none of other changes.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match (&self.subject, &self.path_hex) {
            (Subject::Name(_), _) => None,
            (Subject::Path(_), Some(hex)) => name::from_hex(hex),
            (Subject::Path(text), None) => Some(PathBuf::from(text)),
        }
    }
}
