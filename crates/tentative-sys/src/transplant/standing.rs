//! What a commit must find unchanged, since the origin cannot take it over: user and group ids, capabilities, filters,
//! the root directory, process group and session, and signals that wait for the code inside.
//!
//! This is the origin on its private stack. Nearly all is the kernel's word on the branch (`/proc/PID/status`), which the
//! branch cannot forge; only the capabilities inside a user namespace of its own, and its root directory, are compared by
//! what the branch says.

use super::{
    begin::entry_of,
    control::{Control, Refusal, Step},
};
use crate::{process::descriptors::proc_path, raw};

/// What of the branch's identity differs; the subject of [`Step::Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// User or group ids, or the supplementary groups.
    Ids,
    /// Capabilities, or what becomes of them (securebits).
    Capabilities,
    /// Filters of system calls.
    Filters,
    /// The root directory, or the mounts that it is among.
    Root,
}

impl Identity {
    /// As the subject of a refusal.
    const fn subject(self) -> usize {
        self as usize
    }

    /// Which one a refusal is about.
    #[must_use]
    pub const fn of_subject(subject: usize) -> Identity {
        match subject {
            0 => Identity::Ids,
            1 => Identity::Capabilities,
            2 => Identity::Filters,
            _ => Identity::Root,
        }
    }
}

const IDS: [&[u8]; 3] = [b"Uid:", b"Gid:", b"Groups:"];
const CAPABILITIES: [&[u8]; 5] = [b"CapInh:", b"CapPrm:", b"CapEff:", b"CapBnd:", b"CapAmb:"];
/// Signals that say what the kernel says again to whoever they are about.
const TOLD_AGAIN: u64 = bit(libc::SIGCHLD) | bit(libc::SIGCONT) | bit(libc::SIGSTOP) | bit(libc::SIGKILL);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Refuses a branch that has become somebody else than the origin is.
pub(super) fn check(control: &mut Control) -> Result<(), Refusal> {
    let filters = entry_of(control).is_some_and(|entry| entry.outer < 0 && !entry.filter.is_empty());
    let contained = entry_of(control).is_some();
    let branch = control.origin.branch;
    let half = control.text.len() / 2;
    let (own, theirs) = control.text.split_at_mut(half);
    let mut path = [0; 64];
    let own = read(b"/proc/self/status\0", own)?;
    let theirs = read(proc_path(&mut path, b"/proc/", branch, b"/status"), theirs)?;
    let same = |names: &[&[u8]]| names.iter().all(|name| field(own, name) == field(theirs, name));
    let count = |status, name| field(status, name).map_or(0, |words| number(words, 10));
    let identity = |what: Identity| Err(Refusal { step: Step::Identity, errno: 0, subject: what.subject() });
    if !same(&IDS) {
        return identity(Identity::Ids);
    }
    let request = &control.origin.request;
    if !request.process.powers.are_those_of(&request.began) || !contained && !same(&CAPABILITIES) {
        return identity(Identity::Capabilities);
    }
    if count(theirs, b"Seccomp_filters:") != count(own, b"Seccomp_filters:") + u64::from(filters) {
        return identity(Identity::Filters);
    }
    if request.process.root != request.began_at {
        return identity(Identity::Root);
    }
    if count(theirs, b"NSpgid:") != branch as u64 || count(theirs, b"NSsid:") != count(own, b"NSsid:") {
        return Err(Refusal { step: Step::Group, errno: 0, subject: 0 });
    }
    let pending = [b"SigPnd:", b"ShdPnd:"].map(|name| field(theirs, name).map_or(0, |it| number(it, 16)));
    let pending = pending[0] | pending[1];
    let blocked = pending & request.threads.mask;
    if blocked != 0 {
        let signal = blocked.trailing_zeros() as usize + 1;
        return Err(Refusal { step: Step::PendingSignal, errno: 0, subject: signal });
    }
    control.origin.missed_signals = pending & !TOLD_AGAIN;
    Ok(())
}

/// What came for the branch while it was stopped comes for the origin instead.
pub(super) fn raise_missed(control: &Control) {
    raise(control.origin.missed_signals);
}

/// Raises each signal of a set.
pub(super) fn raise(signals: u64) {
    let own = raw::getpid().unwrap_or(0);
    for signal in (1..=64).filter(|signal| signals & bit(*signal) != 0) {
        let _own = raw::kill(own, signal as usize);
    }
}

/// A whole file of `/proc`.
fn read<'a>(path: &[u8], room: &'a mut [u8]) -> Result<&'a [u8], Refusal> {
    let refuse = |errno: rustix::io::Errno| Refusal {
        step: Step::Identity,
        errno: errno.raw_os_error(),
        subject: Identity::Ids.subject(),
    };
    let fd = raw::open(path, libc::O_RDONLY | libc::O_CLOEXEC).map_err(refuse)?;
    let mut held = 0;
    let ended = loop {
        match raw::read(fd, &mut room[held..]) {
            Ok(0) => break Ok(()),
            Ok(got) => held += got,
            Err(errno) => break Err(errno),
        }
    };
    let _own = raw::close(fd);
    ended.map_err(refuse)?;
    Ok(&room[..held])
}

/// What follows a name at the beginning of a line.
fn field<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))
}

/// The first number of a field.
fn number(field: &[u8], radix: u32) -> u64 {
    let digits = field.iter().skip_while(|byte| byte.is_ascii_whitespace());
    let digits = digits.map_while(|byte| (*byte as char).to_digit(radix));
    digits.fold(0, |sum, digit| sum.wrapping_mul(radix.into()).wrapping_add(digit.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_by_whole_names() {
        let status = b"Name:\tUid: 7\nUid:\t1000\t1000\nShdPnd:\t0000000000000202\nNSpgid:\t12\t1\n";
        assert_eq!(field(status, b"Uid:"), Some(b"\t1000\t1000".as_slice()));
        assert_eq!(field(status, b"ShdPnd:").map(|words| number(words, 16)), Some(0x202));
        assert_eq!(field(status, b"NSpgid:").map(|words| number(words, 10)), Some(12));
        assert_eq!(field(status, b"NSsid:"), None);
    }
}
