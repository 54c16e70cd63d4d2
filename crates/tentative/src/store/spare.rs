//! Room that is set aside when a transaction begins, so that what it did can be kept on a disk that is full by then.
//!
//! It lies beyond the end of the plan, which is written first of all and lasts until the end: a file of its own would
//! cost every transaction the making and removing of one more. Others may take the room in the moment between its
//! release and its use; then the disk is as full as it was.

use std::{fs, io, path::Path};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// Bytes: a record of some hundred changes, twice the phase, and a plan of many covers.
const ROOM: u64 = 128 << 10;

/// Sets the room aside beyond the end of a file. A file system that cannot promise room has none.
pub(super) fn reserve(file: &Path) -> io::Result<()> {
    reserve_some(file, ROOM)
}

/// Sets aside again what is left of it.
pub(super) fn reserve_what_is_left(file: &Path) {
    let mut room = ROOM / 2;
    while room >= ROOM / 32 && reserve_some(file, room).is_err() {
        room /= 2;
    }
}

fn reserve_some(file: &Path, room: u64) -> io::Result<()> {
    let file = fs::File::options().write(true).open(file)?;
    let end = file.metadata()?.len();
    match fallocate(&file, FallocateFlags::KEEP_SIZE, end, room) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

/// Gives the room back.
pub(super) fn release(file: &Path) -> io::Result<()> {
    let file = match fs::File::options().write(true).open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    file.set_len(file.metadata()?.len())
}

/// Whether an error says that the disk, or the user's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
