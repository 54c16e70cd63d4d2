//! What layer 4 refuses at begin: inherited descriptors of kinds that cannot be contained yet.

use std::{fs, io, path::PathBuf};

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

/// The open descriptors of this process by number.
///
/// # Errors
/// What listing them said.
pub fn open_descriptors() -> io::Result<Vec<(i32, Open)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // The listing's own descriptor is closed by now.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if target.as_os_str().to_string_lossy().starts_with("/proc/") && target.ends_with("fd") {
            continue;
        }
        found.push((number, classify(&entry.path(), target)));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found)
}

fn classify(link: &std::path::Path, target: PathBuf) -> Open {
    use std::os::unix::fs::FileTypeExt;
    let name = target.as_os_str().to_string_lossy().into_owned();
    if name.starts_with("pipe:") {
        return Open::Pipe;
    }
    if name.starts_with("socket:") {
        return Open::Socket;
    }
    if let Some(kind) = name.strip_prefix("anon_inode:") {
        return Open::Uncontained(anonymous_kind(kind.trim_matches(['[', ']'])));
    }
    if name.starts_with("/memfd:") {
        return Open::Uncontained(Uncontained::Memfd);
    }
    let Ok(metadata) = fs::metadata(link) else { return Open::Uncontained(Uncontained::Unknown) };
    let kind = metadata.file_type();
    if kind.is_file() && name.ends_with(" (deleted)") {
        Open::Unlinked
    } else if kind.is_file() || kind.is_dir() {
        Open::Path(target)
    } else if kind.is_fifo() {
        Open::Pipe
    } else if kind.is_char_device() {
        device_kind(target)
    } else {
        Open::Uncontained(Uncontained::Device)
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
        let file = fs::File::open("/proc/self/exe").unwrap();
        let null = fs::File::open("/dev/null").unwrap();
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
