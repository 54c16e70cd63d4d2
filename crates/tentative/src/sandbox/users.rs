//! Mapping user and group ids: a sandbox's ids are the outside's own numbers.
//!
//! Never gives an id that the builder does not have.

use std::{fs, io};

use rustix::process::{Pid, getegid, geteuid};

/// Maps, for a process in a new user namespace, every id that the builder has, each to itself (a privileged builder).
pub(super) fn map_everything(pid: Pid) -> io::Result<()> {
    let pid = pid.as_raw_nonzero();
    for kind in ["uid_map", "gid_map"] {
        let ours = fs::read_to_string(format!("/proc/self/{kind}"))?;
        let identity: String = ours
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (first, _outer, count) = (words.next()?, words.next()?, words.next()?);
                Some(format!("{first} {first} {count}\n"))
            })
            .collect();
        fs::write(format!("/proc/{pid}/{kind}"), identity)?;
    }
    Ok(())
}

/// Maps the ordinary user and his group to themselves, from inside his new user namespace.
pub(super) fn map_own(uid: u32, gid: u32) -> io::Result<()> {
    // Without this the kernel refuses the group map of a user without privileges.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Effective user and group of this process, to be taken before it enters a user namespace.
pub(super) fn own() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}
