//! What layer 4 refuses at begin: inherited descriptors of kinds that cannot be contained yet.

use std::{
    ffi::OsString,
    io,
    mem::MaybeUninit,
    os::{fd::AsRawFd as _, unix::ffi::OsStringExt as _},
    path::PathBuf,
};

use rustix::fs::{self, FileType, Mode, OFlags, RawDir};
use tentative_sys::process::descriptors::stamp_of;

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
            Open::Uncontained(kind) => kind.name().to_owned(),
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
        // One that another thread has closed meanwhile is none.
        let Ok(target) = fs::readlinkat(&directory, name, Vec::new()) else { continue };
        found.push((number, classify(number, target.into_bytes())));
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
    let Ok(stamp) = stamp_of(number) else { return Open::Uncontained(Uncontained::Unknown) };
    let is_deleted = target.ends_with(b" (deleted)");
    let path = PathBuf::from(OsString::from_vec(target));
    match FileType::from_raw_mode(stamp.mode) {
        FileType::RegularFile if is_deleted => Open::Unlinked,
        FileType::RegularFile | FileType::Directory => Open::Path(path),
        FileType::Fifo => Open::Pipe,
        FileType::CharacterDevice => device_kind(path),
        _ => Open::Uncontained(Uncontained::Device),
    }
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
}
