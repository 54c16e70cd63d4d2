//! Room: what the library allocates where address space is limited (`RLIMIT_AS`, `memory_limit`).
//!
//! An allocation that fails ends the process, so whoever begins makes sure of room first. What was reserved and given
//! back stays in the library's own heap, where the program cannot take it and the branch has it too; nothing is written
//! to it. Where no limit is set, nothing is done: one question to the kernel.

use std::{
    hint::black_box,
    sync::{Mutex, PoisonError},
};

use pyo3::{exceptions::PyMemoryError, prelude::*};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What an entry allocates besides what it reserves itself. The heap gives back what it has above 2 MiB, so this and as
/// much again have to be less.
const ROOM: usize = 896 << 10;
/// Address space, bytes, that a limited branch has beyond its limit for what it does to end.
const RESERVE: u64 = 64 << 20;

/// The limits of a branch that has a limit on memory.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// The program's own.
    program: Rlimit,
    /// The transaction's, while the reserve is open.
    closed: Option<Rlimit>,
}

/// Those of the innermost transaction that the process is inside of.
static LIMITS: Mutex<Option<Limits>> = Mutex::new(None);

/// No memory.
pub(crate) fn none_left<T>(_: T) -> PyErr {
    PyMemoryError::new_err(())
}

fn is_there(bytes: usize) -> bool {
    // Without the black box the compiler could leave the allocation out and say that it went well.
    let mut room = Vec::<u8>::new();
    let reserved = room.try_reserve_exact(bytes);
    black_box(&mut room);
    reserved.is_ok()
}

/// Makes sure of room before anything happens.
pub(crate) fn ensure(will_be_limited: bool) -> PyResult<()> {
    let limited = will_be_limited || getrlimit(Resource::As).current.is_some();
    if limited && !is_there(ROOM) { Err(none_left(())) } else { Ok(()) }
}

/// The limits of a branch that is about to begin, if it will have a limit.
pub(crate) fn limits(memory_limit: Option<u64>) -> Option<Limits> {
    memory_limit.map(|_| Limits { program: getrlimit(Resource::As), closed: None })
}

/// Says whose the process is now; returns what it said before.
pub(crate) fn become_one_with(limits: Option<Limits>) -> Option<Limits> {
    std::mem::replace(&mut *LIMITS.lock().unwrap_or_else(PoisonError::into_inner), limits)
}

/// Opens the reserve for the end of a branch that may have used up what it was given. What this library's heap has left
/// says nothing about the interpreter's.
pub(crate) fn open() {
    let mut limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Limits { program, closed: closed @ None }) = &mut *limits else { return };
    let now = getrlimit(Resource::As);
    let Some(current) = now.current else { return };
    let most = current.saturating_add(RESERVE).min(program.current.unwrap_or(u64::MAX));
    if setrlimit(Resource::As, Rlimit { current: Some(most), ..now }).is_ok() {
        *closed = Some(now);
    }
}

/// Closes it again: the branch goes on.
pub(crate) fn close() {
    let mut limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(closed) = limits.as_mut().and_then(|limits| limits.closed.take()) {
        let _was_so_before = setrlimit(Resource::As, closed);
    }
}
