//! What layer 4 refuses at begin: inherited descriptors of kinds that cannot be contained yet.

use std::{
    ffi::OsString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, FileType, Mode, OFlags, RawDir, Stat},
    io::Errno,
};
use tentative_sys::{
    kin::with_number,
    process::descriptors::{flags_and_offset, stamp_of},
};

/// A kind of descriptor that a transaction cannot hold yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncontained {
    /// An epoll set.
    Epoll,
    /// An event counter.
    EventFd,
    /// A timer.
    TimerFd,
    /// A signal queue.
    SignalFd,
    /// An inotify queue.
    Inotify,
    /// A fanotify queue.
    Fanotify,
    /// A process.
    PidFd,
    /// An io_uring instance.
    IoUring,
    /// Anonymous memory as a file.
    Memfd,
    /// A device.
    Device,
    /// A file or directory whose path the kernel cannot say.
    LongPath,
    /// A file whose opened name is gone, while other names of it live.
    NameGone,
    /// Something that has no name here.
    Unknown,
}

impl Uncontained {
    /// What users call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Uncontained::Epoll => "an epoll set",
            Uncontained::EventFd => "an eventfd",
            Uncontained::TimerFd => "a timerfd",
            Uncontained::SignalFd => "a signalfd",
            Uncontained::Inotify => "an inotify queue",
            Uncontained::Fanotify => "a fanotify queue",
            Uncontained::PidFd => "a pidfd",
            Uncontained::IoUring => "an io_uring instance",
            Uncontained::Memfd => "a memfd",
            Uncontained::Device => "a device",
            Uncontained::LongPath => "a file whose path is too long",
            Uncontained::NameGone => "a file that was opened under a name that is gone, but has others",
            Uncontained::Unknown => "of an unknown kind",
        }
    }
}

/// An open descriptor of this process, by what a transaction does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// A regular file or a directory that has this path.
    Path(PathBuf),
    /// A regular file without a path.
    Unlinked,
    /// A regular file or a directory that no path leads to, though it has names.
    Unnamed(Uncontained),
    /// A pipe or FIFO.
    Pipe,
    /// A socket.
    Socket,
    /// A terminal, by its path.
    Terminal(PathBuf),
    /// A device without state: `/dev/null` and its like.
    Harmless,
    /// Cannot be contained yet.
    Uncontained(Uncontained),
}

impl Open {
    /// The descriptor in words, for a report.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Open::Path(path) => path.display().to_string(),
            Open::Unlinked => "a deleted file".to_owned(),
            Open::Pipe => "a pipe".to_owned(),
            Open::Socket => "a socket".to_owned(),
            // Its name may be another one inside.
            Open::Terminal(_) => "a terminal".to_owned(),
            Open::Harmless => "a harmless device".to_owned(),
            Open::Unnamed(kind) | Open::Uncontained(kind) => kind.name().to_owned(),
        }
    }
}

/// The open descriptors of this process by number. Every transaction asks twice, so each costs one short look-up.
///
/// # Errors
/// What listing them said.
pub fn open_descriptors() -> io::Result<Vec<(i32, Open)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = fs::open("/proc/self/fd", flags, Mode::empty())?;
    let mut room = [MaybeUninit::uninit(); 4096];
    let mut listing = RawDir::new(&directory, &mut room);
    let mut found = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = entry.file_name();
        let Some(number) = name.to_str().ok().and_then(|name| name.parse().ok()) else { continue };
        if number == directory.as_raw_fd() {
            continue;
        }
        let open = match fs::readlinkat(&directory, name, Vec::new()) {
            Ok(target) => classify(number, target.into_bytes()),
            // One that another thread has closed meanwhile is none.
            Err(Errno::NOENT) => continue,
            Err(errno) => classify_without_path(number, errno),
        };
        found.push((number, open));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found)
}

/// What a descriptor is, by what its link in `/proc` says.
fn classify(number: i32, target: Vec<u8>) -> Open {
    if target.starts_with(b"pipe:") {
        return Open::Pipe;
    }
    if target.starts_with(b"socket:") {
        return Open::Socket;
    }
    if let Some(kind) = target.strip_prefix(b"anon_inode:") {
        return Open::Uncontained(anonymous_kind(String::from_utf8_lossy(kind).trim_matches(['[', ']'])));
    }
    if target.starts_with(b"/memfd:") {
        return Open::Uncontained(Uncontained::Memfd);
    }
    let Some(status) = status_of(number) else { return Open::Uncontained(Uncontained::Unknown) };
    let is_marked = target.ends_with(b" (deleted)");
    let path = PathBuf::from(OsString::from_vec(target));
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile if is_marked => marked(number, path, &status),
        FileType::RegularFile | FileType::Directory => Open::Path(path),
        FileType::Fifo => Open::Pipe,
        FileType::CharacterDevice => device_kind(path),
        _ => Open::Uncontained(Uncontained::Device),
    }
}

/// A regular file with the mark of a deleted one, which can also be the end of its name.
fn marked(number: i32, path: PathBuf, status: &Stat) -> Open {
    if status.st_nlink == 0 {
        Open::Unlinked
    } else if leads_to(&path, number).is_ok() {
        Open::Path(path)
    } else if flags_and_offset(number).is_ok_and(|(flags, _)| !may_write(flags)) {
        // What is only read can be read from a copy.
        Open::Unlinked
    } else {
        Open::Unnamed(Uncontained::NameGone)
    }
}

/// What a descriptor is whose link cannot be read: never nothing, as the branch would then share it.
fn classify_without_path(number: i32, errno: Errno) -> Open {
    let kind = status_of(number).map(|status| FileType::from_raw_mode(status.st_mode));
    match (kind, errno) {
        (Some(FileType::RegularFile | FileType::Directory), Errno::NAMETOOLONG) => {
            Open::Unnamed(Uncontained::LongPath)
        }
        _ => Open::Uncontained(Uncontained::Unknown),
    }
}

fn status_of(number: i32) -> Option<Stat> {
    with_number(number, |open| fs::fstat(open).ok())?
}

/// Looks whether a path leads to the file or directory that is open at a number. It leads elsewhere when something was
/// mounted over it, and that of a deleted one when another one has the mark of a deletion as its name.
pub(crate) fn leads_to(path: &Path, number: i32) -> Result<(), Errno> {
    let open = stamp_of(number)?;
    let named = fs::lstat(path)?;
    if (named.st_dev, named.st_ino) == open.file() { Ok(()) } else { Err(Errno::STALE) }
}

/// What a standard stream is called.
pub(crate) const fn stream_name(number: RawFd) -> &'static str {
    match number {
        0 => "standard input",
        1 => "standard output",
        _ => "standard error",
    }
}

/// Whether an open file with these flags can be written to.
#[must_use]
pub const fn may_write(flags: i32) -> bool {
    // O_ACCMODE; 0 is read-only, also of what only names its file.
    flags & 3 != 0
}

fn anonymous_kind(kind: &str) -> Uncontained {
    match kind {
        "eventpoll" => Uncontained::Epoll,
        "eventfd" => Uncontained::EventFd,
        "timerfd" => Uncontained::TimerFd,
        "signalfd" => Uncontained::SignalFd,
        "inotify" | "inotify]" => Uncontained::Inotify,
        "fanotify" => Uncontained::Fanotify,
        "pidfd" => Uncontained::PidFd,
        "io_uring" => Uncontained::IoUring,
        _ => Uncontained::Unknown,
    }
}

fn device_kind(path: PathBuf) -> Open {
    match path.to_str().unwrap_or_default() {
        "/dev/null" | "/dev/zero" | "/dev/full" | "/dev/random" | "/dev/urandom" => Open::Harmless,
        "/dev/tty" | "/dev/console" => Open::Terminal(path),
        name if name.starts_with("/dev/pts/") || name.starts_with("/dev/tty") => Open::Terminal(path),
        _ => Open::Uncontained(Uncontained::Device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_has_a_kind() {
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let all = open_descriptors().unwrap();
        let kind = |fd: &dyn std::os::fd::AsRawFd| {
            all.iter().find(|(number, _)| *number == fd.as_raw_fd()).map(|(_, open)| open.clone()).unwrap()
        };
        assert_eq!(kind(&epoll), Open::Uncontained(Uncontained::Epoll));
        assert_eq!(kind(&reader), Open::Pipe);
        assert!(matches!(kind(&file), Open::Path(_)));
        assert_eq!(kind(&null), Open::Harmless);
    }

    #[test]
    fn the_mark_of_a_deleted_file_can_be_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log (deleted)");
        let other = directory.path().join("other");
        let written = std::fs::File::create(&path).unwrap();
        let read = std::fs::File::open(&path).unwrap();
        let kind = |file: &std::fs::File| {
            let target = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
            classify(file.as_raw_fd(), target.into_os_string().into_vec())
        };
        assert_eq!((kind(&written), kind(&read)), (Open::Path(path.clone()), Open::Path(path.clone())));
        std::fs::hard_link(&path, &other).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((kind(&written), kind(&read)), (Open::Unnamed(Uncontained::NameGone), Open::Unlinked));
        std::fs::remove_file(&other).unwrap();
        assert_eq!(kind(&written), Open::Unlinked);
    }
}
