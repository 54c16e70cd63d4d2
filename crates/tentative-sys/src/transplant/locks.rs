//! Locks on files: those that the branch holds are taken again by the origin before the commit point, so that nobody else
//! gets one in between, and let go of when the commit is refused.
//!
//! This is the origin on its private stack. What the branch holds is the kernel's word (`/proc/PID/fdinfo`). Locks of a
//! process (fcntl(2)) go with any descriptor of their file that the process closes, so those are taken only where applying
//! closes none; everything else that cannot be taken exactly refuses.

use rustix::io::Errno;

use super::{
    control::{Control, Refusal, Step},
    descriptors::fresh_number,
    wait,
};
use crate::{
    process::descriptors::{FdOp, KCMP_FILE, identity, read_info},
    raw,
};

/// As many locked descriptors, and as many locks, as one commit takes over.
pub(crate) const MAX_LOCKS: usize = 256;
/// Bytes of what the kernel says about one descriptor.
const TEXT: usize = 4096;

/// Whose a lock is: an open file's, as flock(2) makes it, an open file's on a range, or a process's on a range.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Whole,
    OfFile,
    OfProcess,
}

/// One lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    kind: Kind,
    exclusive: bool,
    start: i64,
    /// Last byte; the largest number for all that follow.
    last: i64,
}

/// What staging did to the origin's descriptor, to be undone.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) enum Done {
    /// Took a lock; what the open file had before, for [`Kind::Whole`].
    Took { fd: i32, lock: Lock, before: Option<Lock> },
    /// Put a descriptor at its number.
    Placed { fd: i32 },
}

/// Notes that a descriptor of the branch's has locks.
pub(super) fn note(control: &mut Control, index: usize) -> Result<(), Errno> {
    *control.locked.get_mut(control.origin.locked_count).ok_or(Errno::NOLCK)? = index as u32;
    control.origin.locked_count += 1;
    Ok(())
}

/// Takes the locks of the descriptors that were noted; everything else is staged by now.
pub(super) fn stage(control: &mut Control) -> Result<(), Refusal> {
    control.origin.lock_count = 0;
    for at in 0..control.origin.locked_count {
        let index = control.locked[at] as usize;
        let number = control.fds[index].number;
        take_all(control, index).map_err(|errno| Refusal {
            step: Step::Lock,
            errno: errno.raw_os_error(),
            subject: number as usize,
        })?;
    }
    Ok(())
}

/// Lets go of what staging took.
pub(super) fn abandon(control: &mut Control) {
    for at in (0..control.origin.lock_count).rev() {
        match control.locks[at] {
            Done::Took { fd, lock, before: None } => {
                let _own = set(fd, &lock, libc::F_UNLCK);
            }
            Done::Took { fd, before: Some(before), .. } => {
                let _was_held = set(fd, &before, kind_of(&before));
            }
            Done::Placed { fd } => {
                let _own = raw::close(fd as usize);
            }
        }
    }
    (control.origin.lock_count, control.origin.locked_count) = (0, 0);
}

fn push(control: &mut Control, done: Done) -> Result<(), Errno> {
    *control.locks.get_mut(control.origin.lock_count).ok_or(Errno::NOLCK)? = done;
    control.origin.lock_count += 1;
    Ok(())
}

fn take_all(control: &mut Control, index: usize) -> Result<(), Errno> {
    let (mut theirs, mut ours) = ([0u8; TEXT], [0u8; TEXT]);
    let operation = control.fds[index];
    let (branch, own) = (control.origin.branch as usize, raw::getpid()?);
    let theirs = read_info(branch as i32, operation.number, &mut theirs)?;
    let same = raw::kcmp(own, branch, KCMP_FILE, operation.source as usize, operation.number as usize);
    // Nothing of ours is locked where nothing was open.
    let ours = read_info(own as i32, operation.source, &mut ours)?;
    for line in theirs.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"lock:")) {
        let lock = parse(line).ok_or(Errno::NOTSUP)?;
        // An open file that both have keeps its own.
        if same != Ok(0) || lock.kind == Kind::OfProcess {
            take(control, index, lock, ours)?;
        }
    }
    Ok(())
}

/// Takes one lock, unless the origin has it; `ours` is what the kernel says about the origin's descriptor.
fn take(control: &mut Control, index: usize, lock: Lock, ours: &[u8]) -> Result<(), Errno> {
    let held = || ours.split(|byte| *byte == b'\n').filter_map(parse).filter(|held| held.kind == lock.kind);
    if held().any(|held| held == lock) {
        return Ok(());
    }
    let before = held().next();
    // Ranges that the origin has there already could not be put back.
    if lock.kind != Kind::Whole && before.is_some() {
        return Err(Errno::NOTSUP);
    }
    if lock.kind == Kind::OfProcess {
        place(control, index)?;
    }
    let fd = control.fds[index].source;
    if let Err(errno) = set(fd, &lock, kind_of(&lock)) {
        // Where files are not contained it is the branch that has it, as a process that has to end first.
        let by_branch = lock.kind == Kind::OfProcess && holder(fd, &lock) == Ok(control.origin.branch);
        return Err(if by_branch { Errno::NOTSUP } else { errno });
    }
    if let Err(errno) = push(control, Done::Took { fd, lock, before }) {
        let _own = set(fd, &lock, libc::F_UNLCK);
        return Err(errno);
    }
    Ok(())
}

const fn kind_of(lock: &Lock) -> i32 {
    if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK }
}

/// Makes sure that applying closes no descriptor on this one's file: puts it at its number now, if that is free.
fn place(control: &mut Control, index: usize) -> Result<(), Errno> {
    let operation = control.fds[index];
    if operation.source != operation.number {
        make_room(control, operation.number)?;
        if raw::fcntl(operation.number as usize, libc::F_GETFD as usize, 0).is_ok() {
            return Err(Errno::NOTSUP);
        }
        push(control, Done::Placed { fd: operation.number })?;
        raw::dup3(operation.source as usize, operation.number as usize, libc::O_CLOEXEC as usize)?;
        raw::close(operation.source as usize)?;
        control.fds[index].source = operation.number;
    }
    let file = identity(operation.number as usize)?;
    let closes = |it: &FdOp| {
        let closed = if it.source < 0 { it.number } else { it.source };
        it.source != it.number && [closed, it.number].iter().any(|fd| identity(*fd as usize) == Ok(file))
    };
    let closed = control.fds[..control.origin.fd_count].iter().any(closes);
    if closed || super::copies::closes(control, file) { Err(Errno::NOTSUP) } else { Ok(()) }
}

/// Moves a descriptor by which the origin waits out of the way, if it has that number.
fn make_room(control: &mut Control, number: i32) -> Result<(), Errno> {
    let taken = |control: &mut Control| wait::descriptors(control).into_iter().any(|fd| *fd == number);
    if !taken(control) {
        return Ok(());
    }
    let moved = fresh_number(control, number as usize)?;
    for fd in wait::descriptors(control) {
        if *fd == number {
            *fd = moved;
        }
    }
    raw::close(number as usize).map(drop)
}

/// Takes a lock or lets go of it, without waiting.
fn set(fd: i32, lock: &Lock, kind: i32) -> Result<(), Errno> {
    if lock.kind == Kind::Whole {
        let operation = match kind {
            libc::F_WRLCK => libc::LOCK_EX,
            libc::F_RDLCK => libc::LOCK_SH,
            _ => libc::LOCK_UN,
        };
        return raw::flock(fd as usize, (operation | libc::LOCK_NB) as usize).map(drop);
    }
    let range = range_of(lock, kind);
    let command = if lock.kind == Kind::OfFile { libc::F_OFD_SETLK } else { libc::F_SETLK };
    raw::fcntl(fd as usize, command as usize, (&raw const range) as usize).map(drop)
}

/// The process that keeps the caller from a lock.
fn holder(fd: i32, lock: &Lock) -> Result<i32, Errno> {
    let mut range = range_of(lock, kind_of(lock));
    raw::fcntl(fd as usize, libc::F_GETLK as usize, (&raw mut range) as usize)?;
    Ok(range.l_pid)
}

const fn range_of(lock: &Lock, kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: lock.start,
        l_len: if lock.last == i64::MAX { 0 } else { lock.last - lock.start + 1 },
        l_pid: 0,
    }
}

/// A lock in `fdinfo`; none of another kind of line, a lease, or one that only waits.
///
/// `lock: 1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF`
fn parse(line: &[u8]) -> Option<Lock> {
    let line = line.strip_prefix(b"lock:")?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).skip(1);
    let kind = match words.next()? {
        b"FLOCK" => Kind::Whole,
        b"OFDLCK" => Kind::OfFile,
        b"POSIX" => Kind::OfProcess,
        _ => return None,
    };
    let exclusive = match words.nth(1)? {
        b"WRITE" => true,
        b"READ" => false,
        _ => return None,
    };
    let number = |word: &[u8]| {
        word.iter().try_fold(0i64, |sum, byte| {
            let digit = (*byte as char).to_digit(10)?;
            sum.checked_mul(10)?.checked_add(digit.into())
        })
    };
    let start = number(words.nth(2)?)?;
    let last = match words.next()? {
        b"EOF" => i64::MAX,
        word => number(word)?,
    };
    (last >= start).then_some(Lock { kind, exclusive, start, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_told_by_kind_and_range() {
        let lock = |kind, exclusive, start, last| Some(Lock { kind, exclusive, start, last });
        let line = b"lock:\t1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF".as_slice();
        assert_eq!(parse(line), lock(Kind::Whole, true, 0, i64::MAX));
        let line = b"lock:\t12: POSIX  ADVISORY  READ 1234 fe:00:131 1073741826 1073742335".as_slice();
        assert_eq!(parse(line), lock(Kind::OfProcess, false, 1_073_741_826, 1_073_742_335));
        let line = b"lock:\t2: OFDLCK ADVISORY  WRITE -1 fe:00:131 7 7".as_slice();
        assert_eq!(parse(line), lock(Kind::OfFile, true, 7, 7));
        assert_eq!(parse(b"lock:\t3: LEASE  ACTIVE    READ 1234 fe:00:131 0 EOF"), None);
        assert_eq!(parse(b"lock:\t4: POSIX  ADVISORY  READ 1234 fe:00:131 9 1"), None);
        assert_eq!(parse(b"pos:\t0"), None);
    }
}
