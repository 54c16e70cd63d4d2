//! Ending what is inside when no pid namespace does: without the layer `kin`.
//!
//! Init does this when its builder has ended, killed or not. What is inside is told by its user namespace, which a process
//! can leave only for one inside it: neither a session of its own, nor another parent, nor a cleared environment hides it.
//! Nothing else is ever signalled: each process is held by a descriptor before it is looked at.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    thread::sleep,
    time::Duration,
};

use rustix::{
    fs::{Dir, Mode, OFlags, fstat, openat},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal, setsid},
};
use tentative_sys::kin::user_namespace_around;

use crate::monitor::{is_zombie, read_at};

/// How deep the kernel nests user namespaces.
const DEEPEST: usize = 33;
/// Between two looks at those that are just ending.
const PAUSE: Duration = Duration::from_millis(2);
/// A process that the kernel keeps from ending (a dead disk) is not waited for longer.
const PATIENCE: usize = 5000;

/// Keeps away from what ends the builder: its terminal, its group, its death signal.
pub(super) fn detach() -> Result<(), Errno> {
    setsid()?;
    rustix::process::set_parent_process_death_signal(None)
}

/// Kills everything in this process's user namespace, and waits until it is gone.
pub(super) fn end_all(proc: &OwnedFd) {
    let Some(own) = namespace_of(proc, "self") else { return };
    for _ in 0..PATIENCE {
        if !kill_round(proc, own) {
            return;
        }
        sleep(PAUSE);
    }
}

/// Whether there was anybody.
fn kill_round(proc: &OwnedFd, own: (u64, u64)) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(proc, ".", flags, Mode::empty()) else { return false };
    let Ok(entries) = Dir::read_from(&directory) else { return false };
    let mut found = false;
    for entry in entries.filter_map(Result::ok) {
        let number = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw).filter(|pid| *pid != getpid()) else { continue };
        let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if is_inside(proc, pid, own) {
            found = true;
            // It ends by itself.
            let _ending = pidfd_send_signal(&held, Signal::KILL);
        }
    }
    found
}

fn is_inside(proc: &OwnedFd, pid: Pid, own: (u64, u64)) -> bool {
    let name = pid.as_raw_nonzero().to_string();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    // Of others' processes the kernel does not say.
    let Ok(mut namespace) = openat(proc, format!("{name}/ns/user"), flags, Mode::empty()) else {
        return false;
    };
    for _ in 0..DEEPEST {
        match fstat(&namespace) {
            Ok(status) if (status.st_dev, status.st_ino) == own => {
                // One that nobody has waited for yet is gone as far as it can go.
                return read_at(proc, &format!("{name}/stat")).is_some_and(|stat| !is_zombie(&stat));
            }
            Ok(_) => {}
            Err(_) => return false,
        }
        match user_namespace_around(namespace.as_fd()) {
            Ok(around) => namespace = around,
            Err(_) => return false,
        }
    }
    false
}

fn namespace_of(proc: &OwnedFd, name: &str) -> Option<(u64, u64)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = openat(proc, format!("{name}/ns/user"), flags, Mode::empty()).ok()?;
    let status = fstat(&namespace).ok()?;
    Some((status.st_dev, status.st_ino))
}
