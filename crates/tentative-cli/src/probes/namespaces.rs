//! Namespaces: each kind is entered for real, inside a new user namespace as a sandbox does it.

use std::{fs, path::Path};

use rustix::{
    io::Errno,
    process::{getgid, getuid},
    thread::UnshareFlags,
};
use tentative::sandbox::may_have_control_groups;
use tentative_sys::probe::enter_namespaces;

use super::{Failure, Need, Probe, remedy};

/// User namespaces, with the capabilities that they give.
pub(super) const USER: Probe = Probe {
    name: "user-namespace",
    title: "user namespace with capabilities inside",
    need: Need::Required,
    attempt: |_| {
        enter_user_namespace()?;
        // Some distributions let everybody enter a user namespace and then refuse the capabilities in it.
        enter_namespaces(UnshareFlags::NEWUTS)
            .map_err(|errno| without_user_namespace("use capabilities in a user namespace", errno))?;
        let kind = if getuid().is_root() { "root's whole range of ids" } else { "your own id" };
        Ok(format!("maps {kind}"))
    },
};

/// Mount namespaces.
pub(super) const MOUNT: Probe =
    namespace("mount-namespace", "mount namespace", |_| enter(UnshareFlags::NEWNS));
/// Pid namespaces.
pub(super) const PID: Probe = namespace("pid-namespace", "pid namespace", |_| enter(UnshareFlags::NEWPID));
/// IPC namespaces.
pub(super) const IPC: Probe = namespace("ipc-namespace", "ipc namespace", |_| enter(UnshareFlags::NEWIPC));
/// Host name namespaces.
pub(super) const UTS: Probe =
    namespace("uts-namespace", "host name namespace", |_| enter(UnshareFlags::NEWUTS));
/// Network namespaces.
pub(super) const NET: Probe =
    namespace("net-namespace", "network namespace", |_| enter(UnshareFlags::NEWNET));
/// Cgroup namespaces.
pub(super) const CGROUP: Probe =
    namespace("cgroup-namespace", "cgroup namespace", |_| match may_have_control_groups() {
        true => enter(UnshareFlags::NEWCGROUP),
        false => Ok("not needed: nobody may make one here, which is what it is for".to_owned()),
    });

const fn namespace(
    name: &'static str,
    title: &'static str,
    attempt: fn(&Path) -> Result<String, Failure>,
) -> Probe {
    Probe { name, title, need: Need::Required, attempt }
}

/// Enters a new user namespace as a sandbox does: the caller's own ids are mapped to themselves, root's whole range.
pub(super) fn enter_user_namespace() -> Result<(), Failure> {
    let (uid, gid) = (getuid(), getgid());
    enter_namespaces(UnshareFlags::NEWUSER).map_err(|errno| without_user_namespace("enter it", errno))?;
    if uid.is_root() {
        // Root of the namespace above must write the map of the whole range from outside: a sandbox has a monitor
        // for that. Mapping itself is enough to use the capabilities.
        return map_ids(0, 0);
    }
    map_ids(uid.as_raw(), gid.as_raw())
}

fn map_ids(uid: u32, gid: u32) -> Result<(), Failure> {
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {uid} 1")),
        ("/proc/self/gid_map", format!("{gid} {gid} 1")),
    ] {
        fs::write(file, text).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            without_user_namespace("map ids in it", errno)
        })?;
    }
    Ok(())
}

fn enter(flags: UnshareFlags) -> Result<String, Failure> {
    enter_user_namespace()?;
    enter_namespaces(flags).map_err(|errno| {
        let failure = Failure::step("enter it", errno);
        match errno {
            Errno::INVAL => failure.remedy("this kernel was built without it: use a distribution's kernel"),
            Errno::NOSPC => failure.remedy("as root: raise the limits in /proc/sys/user/max_*_namespaces"),
            _ => match remedy::container() {
                Some(remedy) => failure.remedy(remedy),
                None => failure,
            },
        }
    })?;
    Ok("entered".to_owned())
}

fn without_user_namespace(doing: &str, errno: Errno) -> Failure {
    let failure = Failure::step(doing, errno);
    match remedy::user_namespaces(errno) {
        Some(remedy) => failure.remedy(remedy),
        None => failure,
    }
}
