//! Descriptors: what the branch has instead of the origin's, and what the origin has after a commit.
//!
//! Everything here runs in a fresh clone or on the private stack: raw system calls only, no allocation.

use rustix::io::Errno;

use super::copies::Stamp;
use crate::raw;

/// What kcmp(2) compares: open files.
pub(crate) const KCMP_FILE: usize = 0;

/// As many descriptors as one transaction can carry over.
pub(crate) const MAX_FDS: usize = 16_384;

/// What the branch does with an inherited descriptor before user code runs.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit {
    /// Shares it: it names nothing that could be changed, or its layer is not contained.
    Share,
    /// Opens its path again inside the sandbox, with the same flags and offset.
    Reopen,
    /// Duplicates another number, as the origin's two numbers share one open file.
    Duplicate,
    /// Duplicates the standard stream `original`, whose output is captured.
    Stream,
    /// Has the private copy whose descriptor is `original`.
    Copy,
    /// The reading end of a pipe that nobody writes to.
    PipeReader,
    /// The writing end of a pipe that nobody reads.
    PipeWriter,
    /// A unix socket without a peer.
    Socket,
    /// Closes it.
    Close,
}

/// One inherited descriptor and what becomes of it in the branch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    /// Its number.
    pub number: i32,
    /// What the branch does with it.
    pub action: Inherit,
    /// NUL-terminated path inside the sandbox, for [`Inherit::Reopen`].
    pub path: *const u8,
    /// Status flags for open(2), `O_CLOEXEC` included.
    pub flags: i32,
    /// Number that it duplicates, for [`Inherit::Duplicate`], [`Inherit::Stream`] and [`Inherit::Copy`].
    pub original: i32,
    /// Offset in bytes, negative where there is none.
    pub offset: i64,
    /// Inode that the reopened file must have, 0 for any.
    pub inode: u64,
}

impl Inherited {
    /// Whether the branch has a pipe of its own at this number.
    #[must_use]
    pub const fn is_pipe(&self) -> bool {
        matches!(self.action, Inherit::PipeReader | Inherit::PipeWriter)
    }
}

/// One descriptor of the origin to be changed by a commit.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FdOp {
    pub(crate) number: i32,
    /// Descriptor to put there; the number itself to leave it; -1 to close it.
    pub(crate) source: i32,
    pub(crate) cloexec: bool,
    /// Offset to set, negative for none.
    pub(crate) offset: i64,
    /// Status flags to set, negative for none.
    pub(crate) status: i32,
    /// Inode of the branch's file or directory, 0 for anything else.
    pub(crate) inode: u64,
}

impl FdOp {
    /// Leaves the descriptor of a number where it is.
    pub(crate) const fn keep(number: i32, cloexec: bool) -> FdOp {
        FdOp { number, source: number, cloexec, offset: -1, status: -1, inode: 0 }
    }
}

/// Whether status flags that fcntl(2) can set differ.
pub(crate) const fn differ_settably(one: i32, other: i32) -> bool {
    let settable = libc::O_APPEND | libc::O_ASYNC | libc::O_DIRECT | libc::O_NOATIME | libc::O_NONBLOCK;
    (one ^ other) & settable != 0
}

/// Flags of an open file that open(2) is given again for another one on the same file.
#[must_use]
pub const fn flags_to_reopen(flags: i32) -> i32 {
    let once_only = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC;
    // A file that was made without a name has the bit of a directory as well.
    let nameless = if flags & libc::O_TMPFILE == libc::O_TMPFILE { libc::O_TMPFILE } else { 0 };
    flags & !(once_only | nameless)
}

/// Writes `prefix PID suffix NUL` into a buffer and returns the used part.
pub(crate) fn proc_path<'a>(buffer: &'a mut [u8; 64], prefix: &[u8], pid: i32, suffix: &[u8]) -> &'a [u8] {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(prefix);
    let mut digits = [0u8; 10];
    let mut index = digits.len();
    let mut rest = pid.unsigned_abs();
    loop {
        index -= 1;
        digits[index] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    put(&digits[index..]);
    put(suffix);
    put(b"\0");
    &buffer[..at]
}

/// Calls `each` with every descriptor of the calling process, but not with the one that it reads them by.
pub(crate) fn each_descriptor(mut each: impl FnMut(i32) -> Result<(), Errno>) -> Result<(), Errno> {
    let fd = open_directory(b"/proc/self/fd\0")?;
    let result = read_numbers(fd, &mut |number| if number == fd as i32 { Ok(()) } else { each(number) });
    let _nothing_to_do = raw::close(fd);
    result
}

/// Calls `each` with every number in a `/proc/PID/task` directory, or in the `/proc/PID/fd` of another process.
pub(crate) fn each_number(path: &[u8], mut each: impl FnMut(i32) -> Result<(), Errno>) -> Result<(), Errno> {
    let fd = open_directory(path)?;
    let result = read_numbers(fd, &mut each);
    let _nothing_to_do = raw::close(fd);
    result
}

fn open_directory(path: &[u8]) -> raw::Answer {
    raw::open(path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
}

fn read_numbers(fd: usize, each: &mut impl FnMut(i32) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut buffer = [0u64; 512];
    loop {
        let pointer = buffer.as_mut_ptr() as usize;
        // SAFETY: the kernel writes at most the buffer's length.
        let got =
            unsafe { raw::syscall(libc::SYS_getdents64, [fd, pointer, size_of_val(&buffer), 0, 0, 0]) }?;
        if got == 0 {
            return Ok(());
        }
        let mut at = 0;
        while at < got {
            let byte = |offset: usize| (buffer[offset / 8] >> (8 * (offset % 8))) as u8;
            let length = usize::from(byte(at + 16)) | usize::from(byte(at + 17)) << 8;
            let (mut number, mut digits) = (0i32, 0);
            let mut name = at + 19;
            while byte(name).is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(i32::from(byte(name) - b'0'));
                digits += 1;
                name += 1;
            }
            if digits > 0 {
                each(number)?;
            }
            at += length;
        }
    }
}

/// `struct stat`'s device, inode and mode of a descriptor.
pub(crate) fn identity(fd: usize) -> Result<(u64, u64, u32), Errno> {
    stamp(fd).map(|stamp| (stamp.device, stamp.inode, stamp.mode))
}

/// How many links a path has.
pub(crate) fn links(path_with_nul: &[u8]) -> Result<usize, Errno> {
    let mut stat = core::mem::MaybeUninit::<libc::stat>::zeroed();
    let (directory, path) = (libc::AT_FDCWD as isize as usize, path_with_nul.as_ptr() as usize);
    let arguments = [directory, path, stat.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: the path is NUL-terminated, and the kernel fills in one structure of its own layout, which the C library
    // shares on 64 bits.
    unsafe { raw::syscall(libc::SYS_newfstatat, arguments) }?;
    // SAFETY: zeroed bytes are a valid value, and the kernel wrote a valid one.
    Ok(unsafe { stat.assume_init() }.st_nlink as usize)
}

/// What a descriptor's file is like now.
pub(crate) fn stamp(fd: usize) -> Result<Stamp, Errno> {
    let mut stat = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills in one structure of its own layout, which the C library shares on 64 bits.
    unsafe { raw::syscall(libc::SYS_fstat, [fd, stat.as_mut_ptr() as usize, 0, 0, 0, 0]) }?;
    // SAFETY: zeroed bytes are a valid value, and the kernel wrote a valid one.
    let stat = unsafe { stat.assume_init() };
    Ok(Stamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size,
        mode: stat.st_mode,
        accessed: [stat.st_atime, stat.st_atime_nsec],
        modified: [stat.st_mtime, stat.st_mtime_nsec],
        changed: [stat.st_ctime, stat.st_ctime_nsec],
    })
}

/// Replaces the inherited descriptors as planned; on failure says which entry it was.
///
/// `installed` gets the inode number of what stands at each entry's number, 0 where that is still the origin's.
pub(crate) fn replace_inherited(plan: &[Inherited], installed: &mut [u64]) -> Result<(), (usize, Errno)> {
    if plan.len() > installed.len() {
        return Err((installed.len(), Errno::MFILE));
    }
    for (index, (entry, installed)) in plan.iter().zip(installed).enumerate() {
        *installed = replace(entry).map_err(|errno| (index, errno))?;
    }
    Ok(())
}

fn replace(entry: &Inherited) -> Result<u64, Errno> {
    let number = entry.number as usize;
    let cloexec = (entry.flags & libc::O_CLOEXEC) as usize;
    let fresh = match entry.action {
        Inherit::Share => return Ok(0),
        Inherit::Close => return raw::close(number).map(|_| 0),
        Inherit::Duplicate | Inherit::Stream | Inherit::Copy => {
            raw::dup3(entry.original as usize, number, cloexec)?;
            return identity(number).map(|(_, inode, _)| inode);
        }
        Inherit::Reopen => reopen(entry)?,
        Inherit::PipeReader => one_of(libc::SYS_pipe2, [0, 0, 0], 0)?,
        Inherit::PipeWriter => one_of(libc::SYS_pipe2, [0, 0, 0], 1)?,
        Inherit::Socket => {
            one_of(libc::SYS_socketpair, [libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0], 0)?
        }
    };
    let (_, inode, _) = identity(fresh)?;
    raw::dup3(fresh, number, cloexec)?;
    raw::close(fresh)?;
    if entry.offset > 0 {
        raw::lseek(number, entry.offset as usize, libc::SEEK_SET as usize)?;
    }
    Ok(inode)
}

fn reopen(entry: &Inherited) -> Result<usize, Errno> {
    let flags = flags_to_reopen(entry.flags) | libc::O_NOCTTY;
    let directory = libc::AT_FDCWD as isize as usize;
    let path = entry.path as usize;
    // SAFETY: the origin made the NUL-terminated path before the clone, and the branch has its own copy of it.
    let fd = unsafe { raw::syscall(libc::SYS_openat, [directory, path, flags as usize, 0, 0, 0]) }?;
    if entry.inode != 0 && identity(fd)?.1 != entry.inode {
        return Err(Errno::STALE);
    }
    Ok(fd)
}

/// Makes a pair of descriptors, keeps one end and closes the other.
fn one_of(call: i64, leading: [usize; 3], keep: usize) -> Result<usize, Errno> {
    let mut pair = [0i32; 2];
    let pointer = pair.as_mut_ptr() as usize;
    let arguments = if call == libc::SYS_pipe2 {
        [pointer, 0, 0, 0, 0, 0]
    } else {
        [leading[0], leading[1], leading[2], pointer, 0, 0]
    };
    // SAFETY: the kernel writes two descriptor numbers.
    unsafe { raw::syscall(call, arguments) }?;
    raw::close(pair[1 - keep] as usize)?;
    Ok(pair[keep] as usize)
}

/// Opens what the kernel says about a number in a process.
fn open_info(pid: i32, number: i32) -> raw::Answer {
    let mut path = [0u8; 64];
    let mut suffix = [0u8; 64];
    let suffix = proc_path(&mut suffix, b"/fdinfo/", number, b"");
    let path = proc_path(&mut path, b"/proc/", pid, &suffix[..suffix.len() - 1]);
    raw::open(path, libc::O_RDONLY | libc::O_CLOEXEC)
}

/// All that the kernel says about a number in a process; what has no room is refused.
pub(crate) fn read_info(pid: i32, number: i32, text: &mut [u8]) -> Result<&[u8], Errno> {
    let fd = open_info(pid, number)?;
    let mut held = 0;
    let ended = loop {
        match raw::read(fd, &mut text[held..]) {
            Ok(0) if held == text.len() => break Err(Errno::OVERFLOW),
            Ok(0) => break Ok(()),
            Ok(got) => held += got,
            Err(errno) => break Err(errno),
        }
    };
    raw::close(fd)?;
    ended.map(|()| &text[..held])
}

/// Flags and position of an open file, and whether there are locks on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info {
    /// Status flags, `O_CLOEXEC` included.
    pub(crate) flags: i32,
    pub(crate) position: i64,
    pub(crate) is_locked: bool,
}

/// Reads that of a number in a process.
pub(crate) fn info(pid: i32, number: i32) -> Result<Info, Errno> {
    let fd = open_info(pid, number)?;
    let mut text = [0u8; 256];
    let got = raw::read(fd, &mut text);
    raw::close(fd)?;
    let text = &text[..got?];
    let field = |name: &[u8], radix: i64| {
        let at = text.windows(name.len()).position(|window| window == name)?;
        let digits = text[at + name.len()..].iter().skip_while(|byte| byte.is_ascii_whitespace());
        Some(
            digits
                .take_while(|byte| byte.is_ascii_digit())
                .fold(0i64, |sum, byte| sum * radix + i64::from(byte - b'0')),
        )
    };
    let position = field(b"pos:", 10).ok_or(Errno::PROTO)?;
    let flags = field(b"flags:", 8).ok_or(Errno::PROTO)?;
    let is_locked = text.windows(6).any(|window| window == b"\nlock:");
    Ok(Info { flags: flags as i32, position, is_locked })
}

/// Status flags (`O_CLOEXEC` included) and offset of one of this process's descriptors; 0 where there is no offset.
///
/// # Errors
/// What fcntl(2) said.
pub fn flags_and_offset(number: i32) -> Result<(i32, i64), Errno> {
    let fd = number as usize;
    let status = raw::fcntl(fd, libc::F_GETFL as usize, 0)? as i32;
    let closes = raw::fcntl(fd, libc::F_GETFD as usize, 0)? as i32 & libc::FD_CLOEXEC != 0;
    let offset = raw::lseek(fd, 0, libc::SEEK_CUR as usize).unwrap_or(0);
    Ok((if closes { status | libc::O_CLOEXEC } else { status }, offset as i64))
}

/// What one of this process's descriptors is like now.
///
/// # Errors
/// What fstat(2) said.
pub fn stamp_of(number: i32) -> Result<Stamp, Errno> {
    stamp(number as usize)
}

/// Inode number of a regular file by descriptor; none for anything else, whose number an overlay may change.
#[must_use]
pub fn inode_of(number: i32) -> Option<u64> {
    let (_, inode, mode) = identity(number as usize).ok()?;
    (mode & libc::S_IFMT == libc::S_IFREG).then_some(inode)
}

/// Whether this process has a descriptor of that number.
#[must_use]
pub fn is_open(number: i32) -> bool {
    raw::fcntl(number as usize, libc::F_GETFD as usize, 0).is_ok()
}

/// Whether two of this process's descriptors share one open file, and so an offset.
#[must_use]
pub fn same_open_file(one: i32, other: i32) -> bool {
    raw::getpid().is_ok_and(|own| is_same_open_file(own, one, other))
}

/// The same of two descriptors of any process that this one may look at.
pub(crate) fn is_same_open_file(pid: usize, one: i32, other: i32) -> bool {
    raw::kcmp(pid, pid, KCMP_FILE, one as usize, other as usize) == Ok(0)
}

/// Puts the staged descriptors at their numbers; nothing here can fail but for a number above the limit, which
/// staging has ruled out.
pub(crate) fn apply(operations: &[FdOp]) {
    for operation in operations {
        let number = operation.number as usize;
        if operation.source < 0 {
            let _gone_either_way = raw::close(number);
            continue;
        }
        if operation.source != operation.number {
            let flags = if operation.cloexec { libc::O_CLOEXEC as usize } else { 0 };
            let _staged = raw::dup3(operation.source as usize, number, flags);
        } else {
            let flags = if operation.cloexec { libc::FD_CLOEXEC as usize } else { 0 };
            let _own = raw::fcntl(number, libc::F_SETFD as usize, flags);
        }
        if operation.offset >= 0 {
            let _seekable = raw::lseek(number, operation.offset as usize, libc::SEEK_SET as usize);
        }
        if operation.status >= 0 {
            let _settable = raw::fcntl(number, libc::F_SETFL as usize, operation.status as usize);
        }
    }
    release(operations);
}

/// Closes the staged descriptors.
pub(crate) fn release(operations: &[FdOp]) {
    for operation in operations {
        if operation.source >= 0 && operation.source != operation.number {
            let _own = raw::close(operation.source as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_descriptors_are_complete() {
        let mut ours = Vec::new();
        each_descriptor(|number| {
            ours.push(number);
            Ok(())
        })
        .unwrap();
        assert!(ours.contains(&0) || ours.contains(&1) || ours.contains(&2));
    }

    #[test]
    fn info_reads_flags_and_position() {
        use std::{io::Seek, os::fd::AsRawFd};
        let mut file = tempfile();
        file.seek(std::io::SeekFrom::Start(5)).unwrap();
        let Info { flags, position, .. } = info(std::process::id() as i32, file.as_raw_fd()).unwrap();
        assert_eq!(position, 5);
        assert_ne!(flags & libc::O_CLOEXEC, 0);
    }

    fn tempfile() -> std::fs::File {
        use std::os::fd::FromRawFd;
        let fd = rustix::fs::memfd_create("descriptors", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        // SAFETY: the descriptor was just made and is owned by nobody else.
        unsafe { std::fs::File::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(fd)) }
    }
}
