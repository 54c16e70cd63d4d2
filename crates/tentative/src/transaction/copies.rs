//! Private copies of the origin's deleted files, made before the clone.
//!
//! A copy has no name and lies where the original does if that can be, so that a file system which can share blocks
//! does. Its times and permissions are the original's. The branch has it with the original's flags and offset.

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        CWD, MemfdFlags, Mode, OFlags, SeekFrom, Timespec, Timestamps, copy_file_range, fchmod, ftruncate,
        futimens, ioctl_ficlone, memfd_create, openat, seek,
    },
    io::{Errno, pread, pwrite},
    time::{ClockId, clock_gettime},
};
use tentative_sys::process::{
    copies::{PrivateCopy, Stamp},
    descriptors::{flags_to_reopen, stamp_of},
};

use super::{BeginError, own::Own};

/// A copy with the descriptors that it needs.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) copy: PrivateCopy,
    pub(super) owned: Vec<Own>,
}

/// Copies the deleted file at a number, which has these flags and this offset; a file that was copied already gets
/// another open file.
pub(super) fn make(number: i32, flags: i32, offset: i64, known: &[PrivateCopy]) -> Result<Made, BeginError> {
    try_make(number, flags, offset, known).map_err(|errno| BeginError::Copy { number, errno })
}

fn try_make(number: i32, flags: i32, offset: i64, known: &[PrivateCopy]) -> Result<Made, Errno> {
    let original = stamp_of(number)?;
    let flags = OFlags::from_bits_retain(flags_to_reopen(flags) as u32);
    let is_it = |copy: &&PrivateCopy| copy.original.file() == original.file();
    if let Some(copied) = known.iter().find(is_it) {
        let open = another(copied.reader, flags, offset)?;
        return Ok(Made {
            copy: PrivateCopy { number, copy: open.number(), offset, ..*copied },
            owned: vec![open],
        });
    }
    let source = reopen(number, OFlags::RDONLY)?;
    let file = nameless(number)?;
    copy(source.as_fd(), file.as_fd(), original.size as u64)?;
    let open = another(file.as_raw_fd(), flags, offset)?;
    fchmod(&file, Mode::from_raw_mode(original.mode & 0o7777))?;
    let fresh = stamp_copy(&file, &original)?;
    let file = Own::new(file)?;
    let copy = PrivateCopy { number, copy: open.number(), reader: file.number(), offset, original, fresh };
    Ok(Made { copy, owned: vec![open, file] })
}

/// A copy of the file at a number, to be read from the same offset; for a program, which could open the original again by
/// its number and write to it.
pub(crate) fn to_read(number: i32, offset: u64) -> Result<OwnedFd, Errno> {
    let source = reopen(number, OFlags::RDONLY)?;
    let file = nameless(number)?;
    match stamp_of(number)?.size as u64 {
        // Files of the kernel's file systems say no size.
        0 => copy_by_hand(source.as_fd(), file.as_fd(), 0, u64::MAX)?,
        size => copy(source.as_fd(), file.as_fd(), size)?,
    }
    let open = reopen(file.as_raw_fd(), OFlags::RDONLY)?;
    seek(&open, SeekFrom::Start(offset))?;
    Ok(open)
}

/// Another open file on a copy, for the branch.
fn another(file: i32, flags: OFlags, offset: i64) -> Result<Own, Errno> {
    let open = reopen(file, flags)?;
    // One that only names its file has no offset.
    let _none = seek(&open, SeekFrom::Start(u64::try_from(offset).unwrap_or(0)));
    Own::new(open)
}

/// Another open file on the file of one of this process's descriptors.
fn reopen(number: i32, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{number}");
    // The name below /proc is a link.
    let flags = flags - OFlags::NOFOLLOW;
    openat(CWD, path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

/// A file without a name: beside the original if that is still a place, else where temporary files are, else in memory.
fn nameless(number: i32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let beside = beside(number).into_iter();
    for directory in beside.chain([std::env::temp_dir(), PathBuf::from("/var/tmp")]) {
        if let Ok(file) = openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR) {
            return Ok(file);
        }
    }
    memfd_create("tentative-copy", MemfdFlags::CLOEXEC)
}

/// The directory that a deleted file was in.
fn beside(number: i32) -> Option<PathBuf> {
    let link = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    let parent = Path::new(OsStr::from_bytes(link.as_os_str().as_bytes())).parent()?;
    Some(parent.to_owned())
}

/// Copies the content, holes as holes.
fn copy(source: BorrowedFd<'_>, target: BorrowedFd<'_>, size: u64) -> Result<(), Errno> {
    if size == 0 || ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        match seek(source, SeekFrom::Data(at)) {
            Ok(start) => at = start,
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(_) => {}
        }
        let stop = seek(source, SeekFrom::Hole(at)).unwrap_or(size).clamp(at, size);
        if stop == at {
            break;
        }
        copy_stretch(source, target, at, stop)?;
        at = stop;
    }
    ftruncate(target, size)
}

fn copy_stretch(source: BorrowedFd<'_>, target: BorrowedFd<'_>, from: u64, to: u64) -> Result<(), Errno> {
    let (mut read, mut written) = (from, from);
    while written < to {
        let rest = usize::try_from(to - written).unwrap_or(usize::MAX);
        match copy_file_range(source, Some(&mut read), target, Some(&mut written), rest) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            // Across some file systems the kernel does not copy by itself.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(source, target, written, to);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_by_hand(source: BorrowedFd<'_>, target: BorrowedFd<'_>, from: u64, to: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = from;
    while at < to {
        let most = buffer.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
        let got = pread(source, &mut buffer[..most], at)?;
        if got == 0 {
            return Ok(());
        }
        let mut written = 0;
        while written < got {
            written += pwrite(target, &buffer[written..got], at + written as u64)?;
        }
        at += got as u64;
    }
    Ok(())
}

/// Gives the copy the original's times, and a time of change that every later change differs from.
fn stamp_copy(file: &OwnedFd, original: &Stamp) -> Result<Stamp, Errno> {
    let time = |[tv_sec, tv_nsec]: [i64; 2]| Timespec { tv_sec, tv_nsec };
    let times =
        Timestamps { last_access: time(original.accessed), last_modification: time(original.modified) };
    futimens(file, &times)?;
    let first = stamp_of(file.as_raw_fd())?;
    futimens(file, &times)?;
    let stamp = stamp_of(file.as_raw_fd())?;
    if stamp.changed == first.changed {
        // Before Linux 6.13 times of change come in ticks of the clock: let this one pass.
        while now() <= stamp.changed {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    Ok(stamp)
}

fn now() -> [i64; 2] {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    [now.tv_sec, now.tv_nsec]
}
