//! Room that a store has set aside, so that what a transaction did can be kept on a disk that is full by then.
//!
//! It lies in the store's gate, which is there for as long as the store is: room of each transaction's own would cost every
//! one of them the allocating and freeing of blocks. Every begin fills it up again. The caller holds the gate's lock. Others
//! may take the room in the moment between its release and its use; then the disk is as full as it was.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{FallocateFlags, fallocate, fstat, ftruncate},
    io::Errno,
};

/// Bytes for one transaction: a record of some hundred changes, twice the phase, and a plan of many covers.
const ROOM: u64 = 128 << 10;
/// Bytes for those that are kept before another one begins.
const SET_ASIDE: u64 = 4 * ROOM;
/// Bytes of a block in what `fstat` says.
const BLOCK: u64 = 512;

/// Sets room aside where some is missing; fails when there is none even for one transaction. A file system that cannot
/// promise room has none.
pub(super) fn fill(gate: impl AsFd) -> io::Result<()> {
    let gate = gate.as_fd();
    let there = fstat(gate)?.st_blocks.unsigned_abs() * BLOCK;
    if there >= SET_ASIDE {
        return Ok(());
    }
    match fallocate(gate, FallocateFlags::empty(), 0, SET_ASIDE) {
        Err(Errno::NOSPC | Errno::DQUOT) => fill_for_one(gate, there),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

/// What could be had of more than is needed is given back, since the code needs room too.
fn fill_for_one(gate: BorrowedFd<'_>, there: u64) -> io::Result<()> {
    ftruncate(gate, there)?;
    if there < ROOM {
        fallocate(gate, FallocateFlags::empty(), 0, ROOM)?;
    }
    Ok(())
}

/// Gives the room of one transaction back to the file system.
pub(super) fn release(gate: impl AsFd) -> io::Result<()> {
    let gate = gate.as_fd();
    let there = fstat(gate)?.st_size.unsigned_abs();
    Ok(ftruncate(gate, there.saturating_sub(ROOM))?)
}

/// Whether an error says that the disk, or the user's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
