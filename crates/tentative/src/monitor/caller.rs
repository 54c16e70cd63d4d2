//! The thread whose call waits: its memory, its numbers and name, its files.
//!
//! Everything is read afresh for one call; whoever uses it asks afterwards whether the call still waits, since a pid can
//! have been given to somebody else.

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tentative_sys::{kin, world};

/// The longest path that the kernel takes.
const PATH_MAX: usize = 4096;
const PAGE: u64 = 4096;

/// Numbers and name of a calling thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its process, as the monitor numbers it.
    pub process: i32,
    /// Its process, as the sandbox numbers it.
    pub pid: i32,
    /// Itself, as the sandbox numbers it.
    pub tid: i32,
    /// The program's name.
    pub name: String,
    /// Effective (file system) user.
    pub uid: u32,
    /// Effective (file system) group.
    pub gid: u32,
}

/// A thread whose call waits.
#[derive(Debug)]
pub struct Caller {
    tid: i32,
    identity: OnceLock<Identity>,
}

impl Caller {
    /// The thread with this number, as the monitor numbers it.
    #[must_use]
    pub fn new(tid: i32) -> Caller {
        Caller { tid, identity: OnceLock::new() }
    }

    /// The thread, as the monitor numbers it.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Its numbers and name; zeros when it is gone.
    pub fn identity(&self) -> &Identity {
        self.identity.get_or_init(|| read_identity(self.tid).unwrap_or_default())
    }

    /// Copies from its memory; how many bytes could be read.
    pub(crate) fn read(&self, address: u64, buffer: &mut [u8]) -> Option<usize> {
        if buffer.is_empty() {
            return Some(0);
        }
        kin::read_memory(Pid::from_raw(self.tid)?, address, buffer).ok()
    }

    /// Copies to its memory, all or nothing to rely on.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        let written = kin::write_memory(Pid::from_raw(self.tid)?, address, bytes).ok()?;
        (written == bytes.len()).then_some(())
    }

    /// Copies a string that ends with NUL, without the NUL.
    pub(crate) fn read_string(&self, address: u64) -> Option<Vec<u8>> {
        let mut string = Vec::new();
        while string.len() < PATH_MAX {
            // Never past the end of a page: the next one may not be there.
            let at = address.checked_add(string.len() as u64)?;
            let mut piece = vec![0; (PAGE - at % PAGE) as usize];
            let length = self.read(at, &mut piece)?;
            let piece = &piece[..length];
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                string.extend_from_slice(&piece[..end]);
                return Some(string);
            }
            string.extend_from_slice(piece);
        }
        None
    }

    /// A copy of one of its descriptors.
    pub(crate) fn descriptor(&self, fd: RawFd) -> Result<OwnedFd, Errno> {
        let process = Pid::from_raw(self.identity().process).ok_or(Errno::SRCH)?;
        let pidfd = pidfd_open(process, PidfdFlags::empty())?;
        world::descriptor_of(&pidfd, fd)
    }

    /// Whether one of its descriptors is closed by execve(2).
    pub(crate) fn closes_on_exec(&self, fd: RawFd) -> bool {
        let info = read_at(CWD, &format!("/proc/{}/fdinfo/{fd}", self.tid)).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0);
        flags & OFlags::CLOEXEC.bits() != 0
    }

    /// The absolute path, from the sandbox's root, that a path argument names; symbolic links are not followed yet.
    pub(crate) fn absolute(&self, directory: RawFd, path: &[u8]) -> Option<PathBuf> {
        let link = |name: &str| fs::read_link(format!("/proc/{}/{name}", self.tid)).ok();
        let path = Path::new(OsStr::from_bytes(path));
        let base = match (path.is_absolute(), directory) {
            (true, _) => link("root")?,
            (false, CURRENT_DIRECTORY) => link("cwd")?,
            (false, fd) => link(&format!("fd/{fd}"))?,
        };
        let path = path.strip_prefix("/").unwrap_or(path);
        // The empty path is the object itself.
        Some(if path.as_os_str().is_empty() { base } else { base.join(path) })
    }

    /// Whether its root directory is this one, in the mount namespace of `init`.
    pub(crate) fn is_at(&self, root: BorrowedFd<'_>, init: Pid) -> bool {
        let mine = statat(CWD, format!("/proc/{}/root", self.tid), AtFlags::empty());
        let same_root = match (mine, fstat(root)) {
            (Ok(mine), Ok(root)) => (mine.st_dev, mine.st_ino) == (root.st_dev, root.st_ino),
            _ => false,
        };
        let namespaces = (mount_namespace(self.tid), mount_namespace(init.as_raw_nonzero().get()));
        same_root && namespaces.0.is_some() && namespaces.0 == namespaces.1
    }

    /// Its root directory, as far up as the monitor sees it.
    pub(crate) fn root(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/root", self.tid)).ok()
    }

    /// Opens the directory that holds `path` (from the sandbox's root) and gives the last name.
    pub(crate) fn parent_of(root: BorrowedFd<'_>, path: &Path) -> Option<(OwnedFd, PathBuf)> {
        let bytes = path.as_os_str().as_bytes();
        let end = bytes.iter().rposition(|byte| *byte != b'/')? + 1;
        let slash = bytes[..end].iter().rposition(|byte| *byte == b'/')?;
        let name = PathBuf::from(std::ffi::OsString::from_vec(bytes[slash + 1..end].to_vec()));
        let parent = OsStr::from_bytes(if slash == 0 { b"." } else { &bytes[1..slash] });
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat2(root, parent, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
        Some((directory, name))
    }
}

/// The name of a process's mount namespace; none when the process is gone.
pub(super) fn mount_namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

/// The directory descriptor that stands for the working directory.
pub(crate) const CURRENT_DIRECTORY: RawFd = -100;

fn read_identity(tid: i32) -> Option<Identity> {
    let status = read_at(CWD, &format!("/proc/{tid}/status"))?;
    let mut identity = Identity::default();
    for line in status.lines() {
        let Some((field, value)) = line.split_once(':') else { continue };
        let last = value.split_whitespace().next_back();
        match field {
            "Name" => value.trim().clone_into(&mut identity.name),
            "Tgid" => identity.process = last?.parse().ok()?,
            // The innermost number is the sandbox's.
            "NStgid" => identity.pid = last?.parse().ok()?,
            "NSpid" => identity.tid = last?.parse().ok()?,
            // real, effective, saved, file system
            "Uid" => identity.uid = last?.parse().ok()?,
            "Gid" => identity.gid = last?.parse().ok()?,
            _ => {}
        }
    }
    Some(identity)
}

/// Reads a small file, below a directory or absolute.
pub(crate) fn read_at(directory: impl AsFd, path: &str) -> Option<String> {
    let file = openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut content = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match rustix::io::read(&file, &mut piece) {
            Ok(0) => break,
            Ok(length) => content.extend_from_slice(&piece[..length]),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(String::from_utf8_lossy(&content).into_owned())
}

/// Whether `/proc/PID/stat` is of a process that has ended and that nobody has waited for yet.
pub(crate) fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// The fields of `/proc/PID/stat` after the name, the state as 0: parent, group, session, terminal, its group, ...
pub(crate) fn parse_stat(stat: &str) -> Option<Vec<i64>> {
    // The name may hold spaces and brackets; it ends at the last bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect())
}
