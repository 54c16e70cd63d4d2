//! Descriptors that the runner's caller left open for the program.
//!
//! None may let the program act outside: regular files and directories are opened again through the sandbox, deleted files
//! that can be read are copied, pipes are kept for reading, everything else is closed and recorded. The standard streams
//! are the program's own and `shown`, the input too where it can be written to; a directory is no stream, as it leads to
//! everything.

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
    process::gaps::{Uncontained, stream_name},
    transaction::copies::to_read,
};

/// What becomes of one descriptor.
#[derive(Debug)]
enum Fate {
    /// It is opened again by path inside, with these flags, at this offset.
    Reopen { path: PathBuf, flags: OFlags, offset: u64, else_copy: bool },
    /// It is closed; a standard stream is the null device instead, so that the number is in use.
    Close { what: String },
    /// A deleted file that can only be read: a copy. By its number the program could open it again and write to it.
    Copy { copy: OwnedFd, what: String },
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
        // A terminal that is all three is named by what is written to.
        let (input, others): (Vec<_>, Vec<_>) = self.fates.iter().partition(|(fd, _)| *fd == 0);
        for (fd, fate) in others.into_iter().chain(input) {
            let effect = match fate {
                Fate::Reopen { .. } => continue,
                Fate::Copy { .. } if *fd == 0 => continue,
                Fate::Close { what } => {
                    effect(Class::Blocked, Decision::Denied, "inherit", format!("descriptor {fd} ({what})"))
                }
                Fate::Keep { what } | Fate::Copy { what, .. } => {
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
                Fate::Close { .. } => close(*fd)?,
                Fate::Copy { copy, .. } => duplicate_onto(copy, *fd)?,
                Fate::Reopen { path, flags, offset, else_copy } => match reopen(path, *flags, *offset) {
                    Ok(inside) => duplicate_onto(&inside, *fd)?,
                    // It is not there inside: a file of a kernel file system, or behind a mask.
                    Err(_) if *else_copy => match to_read(*fd, *offset) {
                        Ok(copy) => duplicate_onto(&copy, *fd)?,
                        Err(_) => close(*fd)?,
                    },
                    Err(_) => close(*fd)?,
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

fn close(fd: RawFd) -> Result<(), Errno> {
    if fd <= 2
        && let Ok(null) = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
    {
        return duplicate_onto(&null, fd);
    }
    close_number(fd)
}

/// What becomes of a descriptor; none when it stays and nobody needs to know. What cannot be looked at is closed.
fn fate(fd: BorrowedFd<'_>, live: bool) -> Option<Fate> {
    use std::os::fd::AsRawFd as _;
    let number = fd.as_raw_fd();
    if number > 2 && fcntl_getfd(fd).is_ok_and(|flags| flags.contains(FdFlags::CLOEXEC)) {
        return None;
    }
    // Held output has the place of the streams.
    if matches!(number, 1 | 2) && !live {
        return None;
    }
    let link = fs::read_link(format!("/proc/self/fd/{number}"));
    let (Ok(status), Ok(flags), Ok(what)) = (fstat(fd), fcntl_getfl(fd), &link) else {
        let is_long = link.is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::NAMETOOLONG));
        let kind = if is_long { Uncontained::LongPath } else { Uncontained::Unknown };
        return Some(Fate::Close { what: kind.name().to_owned() });
    };
    let words = what.display().to_string();
    if matches!(words.as_str(), "/dev/null" | "/dev/zero" | "/dev/full" | "/dev/random" | "/dev/urandom") {
        return None;
    }
    let kind = FileType::from_raw_mode(status.st_mode);
    let only_reads = flags & OFlags::ACCMODE == OFlags::RDONLY && !flags.contains(OFlags::PATH);
    let shown = || Some(Fate::Shown { what: words.clone(), object: (status.st_dev, status.st_ino) });
    if matches!(number, 1 | 2) && is_stream(kind, flags) {
        return shown();
    }
    let offset = seek(fd, SeekFrom::Current(0)).unwrap_or(0);
    let path = what.is_absolute() && fs::metadata(what).is_ok_and(|there| same(&there, &status));
    match kind {
        FileType::RegularFile | FileType::Directory if path => {
            let kept = OFlags::ACCMODE | OFlags::APPEND | OFlags::NONBLOCK | OFlags::DIRECTORY | OFlags::PATH;
            let else_copy = number == 0 && only_reads && kind == FileType::RegularFile;
            Some(Fate::Reopen { path: what.clone(), flags: flags & kept, offset, else_copy })
        }
        // A socket or a terminal can be written to by that number as well.
        _ if number == 0 && is_stream(kind, flags) && !only_reads => shown(),
        FileType::Directory | FileType::Symlink | FileType::Unknown => Some(Fate::Close { what: words }),
        FileType::RegularFile if only_reads => Some(match to_read(number, offset) {
            Ok(copy) => Fate::Copy { copy, what: words },
            Err(_) => Fate::Close { what: words },
        }),
        _ if number == 0 && only_reads => None,
        FileType::Fifo if only_reads => Some(Fate::Keep { what: words }),
        _ => Some(Fate::Close { what: words }),
    }
}

/// Whether it can be a standard stream that somebody outside sees. A file that cannot be written shows nothing.
fn is_stream(kind: FileType, flags: OFlags) -> bool {
    let may_write = flags & OFlags::ACCMODE != OFlags::RDONLY;
    match kind {
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice => !flags.contains(OFlags::PATH),
        FileType::RegularFile | FileType::BlockDevice => may_write,
        FileType::Directory | FileType::Symlink | FileType::Unknown => false,
    }
}

fn same(path: &fs::Metadata, status: &rustix::fs::Stat) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (path.dev(), path.ino()) == (status.st_dev, status.st_ino)
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
