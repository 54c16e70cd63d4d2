//! Descriptors that the runner's caller left open for the program.
//!
//! None may let the program act outside: regular files and directories are opened again through the sandbox, pipes are
//! kept for reading, everything else is closed and recorded. The standard streams are the program's own and `shown`.

use std::{
    fs,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, SeekFrom, fcntl_getfl, fstat, openat, seek},
    io::{Errno, FdFlags, fcntl_getfd},
};
use tentative_sys::kin::{close_number, duplicate_onto, with_number};

use crate::{
    effect::{Class, Decision, Effect},
    layer::Layer,
    monitor::{Log, now_ns},
};

/// What becomes of one descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It is opened again by path inside, with these flags, at this offset.
    Reopen { path: PathBuf, flags: OFlags, offset: u64 },
    /// It is closed.
    Close { what: String },
    /// It stays: it can only be read from, or it is a harmless device.
    Keep { what: String },
    /// A standard stream that somebody outside sees.
    Shown { what: String, object: (u64, u64) },
}

/// What becomes of every descriptor.
#[derive(Debug)]
pub(super) struct Inherited {
    fates: Vec<(RawFd, Fate)>,
}

impl Inherited {
    /// Looks at the descriptors that will survive execve(2); held output is not shown.
    pub(super) fn look(live: bool) -> Inherited {
        let entries =
            fs::read_dir("/proc/self/fd").map(|entries| entries.filter_map(Result::ok).collect::<Vec<_>>());
        let numbers = entries.unwrap_or_default().into_iter();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
        let mut fates: Vec<(RawFd, Fate)> =
            numbers.filter_map(|fd| Some((fd, with_number(fd, |fd| fate(fd, live))??))).collect();
        fates.sort_by_key(|(fd, _)| *fd);
        Inherited { fates }
    }

    /// Records what is shown, kept and closed.
    pub(super) fn record(&self, log: &mut Log) {
        let mut shown: Vec<(u64, u64)> = Vec::new();
        for (fd, fate) in &self.fates {
            let effect = match fate {
                Fate::Reopen { .. } => continue,
                Fate::Close { what } => {
                    effect(Class::Blocked, Decision::Denied, "inherit", format!("descriptor {fd} ({what})"))
                }
                Fate::Keep { what } => {
                    effect(Class::Observed, Decision::Allowed, "inherit", format!("descriptor {fd} ({what})"))
                }
                Fate::Shown { what, object } => {
                    if shown.contains(object) {
                        continue;
                    }
                    shown.push(*object);
                    effect(
                        Class::Shown,
                        Decision::Allowed,
                        "inherit",
                        format!("{} ({what})", stream_name(*fd)),
                    )
                }
            };
            log.add(effect);
        }
    }

    /// In the new process, inside: opens again what can be, closes what must not be there.
    pub(super) fn take_inside(&self) -> Result<(), Errno> {
        for (fd, fate) in &self.fates {
            match fate {
                Fate::Keep { .. } | Fate::Shown { .. } => {}
                Fate::Close { .. } => close_number(*fd)?,
                Fate::Reopen { path, flags, offset } => match reopen(path, *flags, *offset) {
                    Ok(inside) => duplicate_onto(&inside, *fd)?,
                    // It is not there inside: a file of a kernel file system, or behind a mask.
                    Err(_) if *fd <= 2 => {}
                    Err(_) => close_number(*fd)?,
                },
            }
        }
        Ok(())
    }
}

fn reopen(path: &Path, flags: OFlags, offset: u64) -> Result<OwnedFd, Errno> {
    let inside = openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&inside)?.st_mode) == FileType::RegularFile {
        seek(&inside, SeekFrom::Start(offset))?;
    }
    Ok(inside)
}

fn fate(fd: BorrowedFd<'_>, live: bool) -> Option<Fate> {
    use std::os::fd::AsRawFd as _;
    let number = fd.as_raw_fd();
    if number > 2 && fcntl_getfd(fd).ok()?.contains(FdFlags::CLOEXEC) {
        return None;
    }
    let status = fstat(fd).ok()?;
    let flags = fcntl_getfl(fd).ok()?;
    let kind = FileType::from_raw_mode(status.st_mode);
    let what = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    let path = what.is_absolute() && fs::metadata(&what).is_ok_and(|there| same(&there, &status));
    let words = what.display().to_string();
    let harmless =
        matches!(words.as_str(), "/dev/null" | "/dev/zero" | "/dev/full" | "/dev/random" | "/dev/urandom");
    let output = matches!(number, 1 | 2);
    if harmless {
        return None;
    }
    if output {
        let object = (status.st_dev, status.st_ino);
        return live.then_some(Fate::Shown { what: words, object });
    }
    match kind {
        FileType::RegularFile | FileType::Directory if path => {
            let kept = OFlags::ACCMODE | OFlags::APPEND | OFlags::NONBLOCK | OFlags::DIRECTORY | OFlags::PATH;
            let offset = seek(fd, SeekFrom::Current(0)).unwrap_or(0);
            Some(Fate::Reopen { path: what, flags: flags & kept, offset })
        }
        _ if number == 0 => None,
        FileType::Fifo | FileType::RegularFile if flags & OFlags::ACCMODE == OFlags::RDONLY => {
            Some(Fate::Keep { what: words })
        }
        _ => Some(Fate::Close { what: words }),
    }
}

fn same(path: &fs::Metadata, status: &rustix::fs::Stat) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (path.dev(), path.ino()) == (status.st_dev, status.st_ino)
}

const fn stream_name(fd: RawFd) -> &'static str {
    match fd {
        1 => "standard output",
        _ => "standard error",
    }
}

/// An effect of the runner itself, before the program runs.
pub(super) fn effect(class: Class, decision: Decision, operation: &str, target: String) -> Effect {
    Effect {
        id: 0,
        layer: Layer::Process,
        class,
        operation: operation.to_owned(),
        target,
        pid: 0,
        tid: 0,
        program: "tentative".to_owned(),
        time_ns: now_ns(),
        decision,
        errno: None,
        count: 1,
        stack: None,
        hint: None,
    }
}
