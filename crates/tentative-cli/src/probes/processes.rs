//! Processes: a child with a chosen pid, descriptors and memory of a child, id maps for more than one's own ids.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    thread::UnshareFlags,
};
use tentative_sys::probe::{child_with_pid, enter_namespaces};

use super::{Failure, Need, Probe, namespaces::enter_user_namespace, remedy};

/// clone3 with `set_tid`.
pub(super) const SET_TID: Probe = Probe {
    name: "clone3-set-tid",
    title: "clone3 with a chosen pid",
    need: Need::Required,
    attempt: |_| {
        enter_user_namespace()?;
        enter_namespaces(UnshareFlags::NEWPID)
            .map_err(|errno| Failure::step("enter a pid namespace", errno))?;
        // The first process of the namespace is its init; the one with the chosen pid comes second.
        let _init = Paused::start()?;
        child_with_pid(4711)
            .map_err(|errno| with_container(Failure::step("make a child with pid 4711", errno)))?;
        Ok("a child got the pid 4711".to_owned())
    },
};

/// pidfd_open and pidfd_getfd on a child.
pub(super) const GET_FD: Probe = Probe {
    name: "pidfd-getfd",
    title: "pidfd_getfd on a child",
    need: Need::Required,
    attempt: |_| {
        let child = Paused::start()?;
        let pidfd = pidfd_open(child.pid()?, PidfdFlags::empty())
            .map_err(|errno| with_container(Failure::step("open a pidfd", errno)))?;
        pidfd_getfd(&pidfd, 1, PidfdGetfdFlags::empty())
            .map_err(|errno| not_traceable(Failure::step("fetch a descriptor", errno)))?;
        Ok("a descriptor was fetched from a child".to_owned())
    },
};

/// Permission to look into a child, as debuggers have it.
pub(super) const READ_MEMORY: Probe = Probe {
    name: "ptrace-permission",
    title: "permission to read a child's memory",
    need: Need::Required,
    attempt: |_| {
        let child = Paused::start()?;
        let path = format!("/proc/{}/mem", child.0.id());
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.0.id()))
            .map_err(|error| not_traceable(step("read its maps", &error)))?;
        let start = maps.split('-').next().and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0);
        let memory =
            std::fs::File::open(path).map_err(|error| not_traceable(step("open its memory", &error)))?;
        let mut bytes = [0_u8; 4];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, start)
            .map_err(|error| not_traceable(step("read its memory", &error)))?;
        Ok("a child's memory was read".to_owned())
    },
};

/// A child that waits until it is no longer needed.
struct Paused(Child);

impl Paused {
    fn start() -> Result<Paused, Failure> {
        let child = Command::new("/proc/self/exe")
            .args(["probe", super::PAUSE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| step("start a child", &error))?;
        let mut paused = Paused(child);
        // Its first byte says that it has been executed: before, it is a copy of this process.
        let mut byte = [0_u8; 1];
        if let Some(output) = paused.0.stdout.as_mut() {
            output.read_exact(&mut byte).map_err(|error| step("start a child", &error))?;
        }
        Ok(paused)
    }

    fn pid(&self) -> Result<Pid, Failure> {
        i32::try_from(self.0.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| Failure { found: "the child has no pid".to_owned(), remedy: None })
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn not_traceable(failure: Failure) -> Failure {
    match remedy::number("/proc/sys/kernel/yama/ptrace_scope") {
        Some(2 | 3) => {
            failure.remedy("as root: sysctl -w kernel.yama.ptrace_scope=1 (3 needs a restart first)")
        }
        _ => with_container(failure),
    }
}

fn with_container(failure: Failure) -> Failure {
    match remedy::container() {
        Some(remedy) => failure.remedy(remedy),
        None => failure,
    }
}

fn step(doing: &str, error: &std::io::Error) -> Failure {
    Failure::step(doing, Errno::from_io_error(error).unwrap_or(Errno::IO))
}
