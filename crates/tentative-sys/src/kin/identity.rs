//! Acting on files as somebody else for a moment (setfsuid(2)).
//!
//! Used by the monitor when it does an operation in a program's place: the program's permissions decide.

use crate::raw::syscall;

/// User and group that file permissions are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Effective user id of the program, as this process's user namespace numbers it.
    pub uid: u32,
    /// Effective group id of the program.
    pub gid: u32,
}

/// Runs `act` with the file permissions of somebody else and takes its own back.
///
/// Where this process may not become them (an ordinary user acting for himself) the identity stays, and the kernel
/// checks against this process's own.
pub fn as_file_identity<R>(identity: FileIdentity, act: impl FnOnce() -> R) -> R {
    let gid = set(libc::SYS_setfsgid, identity.gid);
    let uid = set(libc::SYS_setfsuid, identity.uid);
    let result = act();
    set(libc::SYS_setfsuid, uid);
    set(libc::SYS_setfsgid, gid);
    result
}

/// Sets one id and returns the one before; the call has no error.
fn set(number: i64, id: u32) -> u32 {
    // SAFETY: takes a number only, and concerns this thread's file permissions.
    unsafe { syscall(number, [id as usize, 0, 0, 0, 0, 0]) }.map_or(id, |before| before as u32)
}
