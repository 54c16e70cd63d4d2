//! The differences of a transaction's files, read from the store and from what is there now.
//!
//! Reads regular files only, never follows a link, and never waits for a FIFO.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use tentative::{
    change::ChangeKind,
    files::{
        attributes::open_unnoticed,
        changes::{FileChange, changes},
        conflict::{Conflict, ConflictKind, conflicts},
        name,
        plan::Plan,
    },
};
use tentative_report::{
    diff::{Side, TEXT_LIMIT, unified},
    paint::Palette,
    printable::printable,
};

use crate::error::{CommandError, Kind};

/// Prints the difference of every changed file, one after the other.
pub(crate) fn print(
    plan: &Plan,
    palette: Palette,
    mut print: impl FnMut(&str) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let changes = changes(plan).map_err(|error| {
        CommandError::new(Kind::Machine, error).hint("the transaction itself is kept; try again, or as root")
    })?;
    for change in &changes {
        print(&one(change, palette)?)?;
    }
    Ok(())
}

/// What has to be known to read the differences where others have changed the same paths meanwhile: what was there before is
/// no more. Each line is ended by a newline; what cannot be compared now is told by the commit.
pub(crate) fn what_others_changed(plan: &Plan) -> String {
    let told = |conflict: &Conflict| match conflict.kind {
        ConflictKind::Changed | ConflictKind::Appeared => Some("it is compared with what is there now"),
        ConflictKind::Vanished => Some("it is compared with nothing"),
        _ => None,
    };
    let conflicts = conflicts(plan, None).unwrap_or_default();
    conflicts
        .iter()
        .filter_map(|conflict| Some((conflict, told(conflict)?)))
        .map(|(conflict, told)| format!("note: {}; {told}\n", printable(&conflict.to_string())))
        .collect()
}

fn one(change: &FileChange, palette: Palette) -> Result<String, CommandError> {
    let path = name::shown(&change.path);
    let from = change.from.as_deref().map(name::shown);
    let cannot_read = |path: &Path| {
        let message = format!("cannot read {}", name::shown(path));
        move |error: io::Error| CommandError::new(Kind::Machine, error).context(message)
    };
    let side = |path: Option<&Path>| match path {
        Some(path) => side(path).map_err(cannot_read(path)),
        None => Ok(Side::Absent),
    };
    let before = side(change.old.as_deref())?;
    let after = side(change.new.as_deref())?;
    let mut text = unified(&path, from.as_deref(), &before, &after, palette);
    if change.kind == ChangeKind::Metadata {
        let words = |words: &Option<String>| words.as_deref().map(|words| printable(words).into_owned());
        let (before, after) = (words(&change.before), words(&change.after));
        text.push_str(&format!("old {}\nnew {}\n", before.unwrap_or_default(), after.unwrap_or_default()));
    }
    Ok(text)
}

/// What is at a path.
fn side(path: &Path) -> io::Result<Side> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        // Somebody removed it meanwhile, which the commit will call a conflict.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Side::Absent),
        Err(error) => return Err(error),
    };
    let mode = metadata.mode() & 0o7777;
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return Ok(Side::Symlink { target: name::shown(&fs::read_link(path)?) });
    }
    if kind.is_dir() {
        return Ok(Side::Directory { mode });
    }
    if kind.is_file() {
        return Ok(Side::File { mode, size: metadata.len(), content: content(path, metadata.len())? });
    }
    let kind = if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    };
    Ok(Side::Other { kind: kind.to_owned(), mode })
}

/// The content of a regular file, unless it is too long to compare.
fn content(path: &Path, size: u64) -> io::Result<Option<Vec<u8>>> {
    if size > TEXT_LIMIT {
        return Ok(None);
    }
    let file = open_unnoticed(path)?;
    let mut bytes = Vec::new();
    // One more than the limit, should it grow while it is read.
    file.take(TEXT_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= TEXT_LIMIT).then_some(bytes))
}
