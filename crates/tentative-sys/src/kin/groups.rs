//! Process groups and sessions by number.
//!
//! The calls of rustix expect a number above 0 here. The kernel says 0 for a group or session whose leader is in an
//! outer pid namespace, as it is in a container whose first process did not make a session.

use rustix::io::Errno;

use crate::raw;

/// The group of a process, of the caller for 0; 0 when an outer pid namespace numbers it.
///
/// # Errors
/// What getpgid(2) says.
pub fn group_of(pid: i32) -> Result<i32, Errno> {
    raw::getpgid(pid as usize).map(|group| group as i32)
}

/// The session of a process, of the caller for 0; 0 when an outer pid namespace numbers it.
///
/// # Errors
/// What getsid(2) says.
pub fn session_of(pid: i32) -> Result<i32, Errno> {
    raw::getsid(pid as usize).map(|session| session as i32)
}
