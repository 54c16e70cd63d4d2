//! What `doctor` tries: one mechanism a probe, found out by using it, never from a version or a configuration file.
//!
//! A probe runs in a process of its own (`tentative probe NAME`), since most change their process for good. Files that
//! say why something is refused are read only after it was refused, to find the remedy.

mod filter;
mod memory;
mod mounts;
mod namespaces;
mod processes;
mod remedy;
mod store;

use std::path::Path;

use rustix::io::Errno;
pub(crate) use store::remove_scratch;

/// How much depends on a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The default containment cannot be had without it.
    Required,
    /// Without it something is slower or narrower.
    Optional,
}

/// One mechanism to try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// A short name that stays the same.
    pub(crate) name: &'static str,
    /// What is tried, in words.
    pub(crate) title: &'static str,
    /// How much depends on it.
    pub(crate) need: Need,
    /// Tries it, in a process of its own, given the store's directory.
    pub(crate) attempt: fn(&Path) -> Result<String, Failure>,
}

/// Why a mechanism is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What happened.
    pub(crate) found: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl Failure {
    /// A step that the kernel refused.
    fn step(doing: &str, errno: Errno) -> Failure {
        let reason = tentative_report::units::errno(errno.raw_os_error());
        Failure { found: format!("{doing}: {reason}"), remedy: None }
    }

    /// Adds the remedy.
    fn remedy(mut self, remedy: impl Into<String>) -> Failure {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Every probe, in the order in which `doctor` prints them.
pub(crate) const ALL: &[Probe] = &[
    namespaces::USER,
    namespaces::MOUNT,
    namespaces::PID,
    namespaces::IPC,
    namespaces::UTS,
    namespaces::NET,
    namespaces::CGROUP,
    mounts::MOUNT_API,
    mounts::OVERLAY,
    store::PLACE,
    store::EXCHANGE,
    store::LEFTOVERS,
    filter::LISTENER,
    processes::SET_TID,
    processes::GET_FD,
    processes::READ_MEMORY,
    memory::WRITE_PROTECTION,
    memory::FRAME_NUMBERS,
];

/// The probe of a name.
pub(crate) fn by_name(name: &str) -> Option<&'static Probe> {
    ALL.iter().find(|probe| probe.name == name)
}

/// The name under which a probe process only waits, for probes that need a second process.
pub(crate) const PAUSE: &str = "pause";
