//! Deleted files: what the branch has written into its private copies goes back into the origin's own open files.
//!
//! This is the origin on its private stack. Staging opens what it needs and reserves the room; the files are written
//! after the commit point, by whole clone where the file system can, else only where the contents differ. Whoever
//! else holds such a file sees it change piece by piece then.

use rustix::io::Errno;

use super::{
    Entry,
    begin::entry_of,
    control::{Control, ENTRIES, Refusal, Step},
    descriptors::{fresh_number, high},
};
use crate::{
    process::{
        copies::{PrivateCopy, Stamp},
        descriptors::{
            FdOp, differ_settably, flags_to_reopen, identity, info, is_same_open_file, proc_path, stamp,
        },
    },
    raw,
};

const FICLONE: usize = 0x4004_9409;
/// Bytes that are compared at a time.
const CHUNK: usize = ENTRIES * 8;

/// A file of the origin's that a commit writes.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct WriteBack {
    /// The origin's file, open for writing.
    target: i32,
    /// Where its new content is read.
    source: i32,
    /// Whether the source is closed afterwards.
    fetched: bool,
    before: Stamp,
    after: Stamp,
}

/// Sets the times of a descriptor's file.
fn set_times(fd: i32, stamp: &Stamp) {
    let times = [stamp.accessed, stamp.modified];
    let arguments = [fd as usize, 0, times.as_ptr() as usize, 0, 0, 0];
    // SAFETY: the kernel reads two timespecs; without a path it is about the descriptor itself.
    let _only_times = unsafe { raw::syscall(libc::SYS_utimensat, arguments) };
}

/// Calls `each` with start and end of every stretch of a file that has content, then puts its offset back.
fn each_stretch(
    fd: i32,
    size: i64,
    mut each: impl FnMut(usize, usize) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let (fd, size) = (fd as usize, size as usize);
    let offset = raw::lseek(fd, 0, libc::SEEK_CUR as usize)?;
    let mut at = 0;
    let mut result = Ok(());
    while at < size && result.is_ok() {
        let start = match raw::lseek(fd, at, libc::SEEK_DATA as usize) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => {
                result = Err(errno);
                break;
            }
        };
        at = raw::lseek(fd, start, libc::SEEK_HOLE as usize).unwrap_or(size).min(size);
        result = each(start, at);
    }
    raw::lseek(fd, offset, libc::SEEK_SET as usize)?;
    result
}

fn each_copy(entry: &Entry) -> impl Iterator<Item = PrivateCopy> {
    let (first, count) = (entry.copies, entry.copies_len);
    (0..count).map(move |index| {
        // SAFETY: the array has this many elements and outlives begin in the origin.
        let element = unsafe { first.add(index) };
        // SAFETY: as above.
        unsafe { *element }
    })
}

/// The private copy that a descriptor is on, if it is on one: the one whose open file it is, if it is any's.
pub(super) fn find(entry: &Entry, got: usize) -> Result<Option<PrivateCopy>, Errno> {
    if entry.copies_len == 0 {
        return Ok(None);
    }
    let it = stamp(got)?;
    let is_it = |copy: &PrivateCopy| copy.fresh.file() == it.file();
    let own = raw::getpid()?;
    let shared = |copy: &PrivateCopy| is_it(copy) && is_same_open_file(own, got as i32, copy.copy);
    Ok(each_copy(entry).find(shared).or_else(|| each_copy(entry).find(is_it)))
}

/// What stands for a descriptor of the branch's on a private copy: the origin's open file that the copy was made of,
/// or another one on the same file. `wanted` has the number and the branch's offset.
pub(super) fn fetch(
    control: &Control,
    copy: &PrivateCopy,
    got: usize,
    wanted: FdOp,
    flags: i32,
) -> Result<FdOp, Errno> {
    let own = raw::getpid()?;
    if !is_same_open_file(own, got as i32, copy.copy) {
        let mut path = [0; 64];
        let path = proc_path(&mut path, b"/proc/self/fd/", copy.number, b"");
        let flags = flags_to_reopen(flags) & !libc::O_NOFOLLOW;
        let source = raw::open(path, flags | libc::O_CLOEXEC)?;
        return Ok(FdOp { source: high(control, source)?, ..wanted });
    }
    let before = info(own as i32, copy.number)?.flags;
    let status = if differ_settably(before, flags) { flags } else { -1 };
    // Others may read on in the origin's open file; where the branch did not move, they decide.
    let stayed = wanted.offset == copy.offset && !control.origin.ran;
    let offset = if stayed { -1 } else { wanted.offset };
    if is_same_open_file(own, wanted.number, copy.number) {
        return Ok(FdOp { offset, status, ..wanted });
    }
    let source = fresh_number(control, copy.number as usize)?;
    Ok(FdOp { source, offset, status, ..wanted })
}

/// Whether applying closes a descriptor on a file with this device, inode and mode.
pub(super) fn closes(control: &Control, file: (u64, u64, u32)) -> bool {
    let written = &control.write_backs[..control.origin.copy_count];
    written.iter().any(|it| [it.target, it.source].iter().any(|fd| identity(*fd as usize) == Ok(file)))
}

/// Notes which of the origin's files are to be written, opens them and reserves their room.
pub(super) fn stage(control: &mut Control) -> Result<(), Refusal> {
    let Some(entry) = entry_of(control) else { return Ok(()) };
    for copy in each_copy(entry) {
        // Several open files on one copy follow each other or not; the file is written once.
        let written = &control.write_backs[..control.origin.copy_count];
        if written.iter().any(|it| it.source == copy.reader) {
            continue;
        }
        stage_one(control, &copy).map_err(|errno| Refusal {
            step: Step::DeletedFile,
            errno: errno.raw_os_error(),
            subject: copy.number as usize,
        })?;
    }
    Ok(())
}

fn stage_one(control: &mut Control, copy: &PrivateCopy) -> Result<(), Errno> {
    let after = stamp(copy.reader as usize)?;
    let before = stamp(copy.number as usize)?;
    let moved_on = (before.size, before.modified) != (copy.original.size, copy.original.modified);
    let decided = control.origin.ran;
    if after == (Stamp { accessed: after.accessed, ..copy.fresh }) && !(moved_on && decided) {
        return Ok(());
    }
    // What the origin's own program did while it decided is gone after the commit.
    if moved_on && !decided {
        return Err(Errno::STALE);
    }
    let target = open_target(control, copy.number)?;
    note(control, WriteBack { target, source: copy.reader, fetched: false, before, after })
}

/// A file that the origin has open by its path and the branch has deleted: what the branch wrote into it before goes
/// to the origin's open file, since no path of the commit brings it.
pub(super) fn stage_deleted_inside(control: &mut Control, number: i32, got: usize) -> Result<(), Errno> {
    let (before, after) = (stamp(number as usize)?, stamp(got)?);
    let staged = &control.write_backs[..control.origin.copy_count];
    let is_it = |it: &WriteBack| it.before.file() == before.file();
    if (before.size, before.modified) == (after.size, after.modified) || staged.iter().any(is_it) {
        return Ok(());
    }
    let mut path = [0; 64];
    let path = proc_path(&mut path, b"/proc/self/fd/", got as i32, b"");
    let source = high(control, raw::open(path, libc::O_RDONLY | libc::O_CLOEXEC)?)?;
    let target = match open_target(control, number) {
        Ok(target) => target,
        Err(errno) => {
            raw::close(source as usize)?;
            return Err(errno);
        }
    };
    note(control, WriteBack { target, source, fetched: true, before, after })
}

/// Adds a file to those that are written, and reserves its room.
fn note(control: &mut Control, it: WriteBack) -> Result<(), Errno> {
    let (target, source, size) = (it.target, it.source, it.after.size);
    let slot = control.origin.copy_count;
    *control.write_backs.get_mut(slot).ok_or(Errno::MFILE)? = it;
    control.origin.copy_count = slot + 1;
    each_stretch(source, size, |start, end| {
        let mode = libc::FALLOC_FL_KEEP_SIZE as usize;
        match raw::fallocate(target as usize, mode, start, end - start) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => other.map(drop),
        }
    })
}

/// A second open file on the origin's, for writing anywhere in it.
fn open_target(control: &Control, number: i32) -> Result<i32, Errno> {
    let mut path = [0; 64];
    let path = proc_path(&mut path, b"/proc/self/fd/", number, b"");
    match raw::open(path, libc::O_RDWR | libc::O_CLOEXEC) {
        Ok(fd) => high(control, fd),
        Err(errno) => {
            // Its permissions have changed since; the open file itself may still do.
            let flags = info(raw::getpid()? as i32, number)?.flags;
            if flags & (libc::O_ACCMODE | libc::O_APPEND) != libc::O_RDWR {
                return Err(errno);
            }
            fresh_number(control, number as usize)
        }
    }
}

/// Writes the files. Their room is reserved, so only a broken disk fails here.
pub(super) fn apply(control: &mut Control) -> Result<(), Errno> {
    for index in 0..control.origin.copy_count {
        let it = control.write_backs[index];
        write_back(control, &it)?;
        if it.after.mode != it.before.mode {
            raw::fchmod(it.target as usize, (it.after.mode & 0o7777) as usize)?;
        }
        set_times(it.target, &it.after);
        release(&it);
    }
    control.origin.copy_count = 0;
    Ok(())
}

fn release(it: &WriteBack) {
    let _own = raw::close(it.target as usize);
    if it.fetched {
        let _own = raw::close(it.source as usize);
    }
}

fn write_back(control: &mut Control, it: &WriteBack) -> Result<(), Errno> {
    let (target, source, size) = (it.target as usize, it.source as usize, it.after.size as usize);
    // SAFETY: the request takes a descriptor by value.
    let cloned = unsafe { raw::syscall(libc::SYS_ioctl, [target, FICLONE, source, 0, 0, 0]) };
    if cloned.is_err() {
        let mut end = 0;
        each_stretch(it.source, it.after.size, |start, stop| {
            clear(control, target, end, start)?;
            end = stop;
            write_stretch(control, target, source, start, stop)
        })?;
        clear(control, target, end, size)?;
    }
    // Last, so that nobody reads an end that is not yet written.
    if stamp(target)?.size != it.after.size { raw::ftruncate(target, size).map(drop) } else { Ok(()) }
}

/// Writes what differs between two offsets.
fn write_stretch(
    control: &mut Control,
    target: usize,
    source: usize,
    start: usize,
    stop: usize,
) -> Result<(), Errno> {
    let mut at = start;
    while at < stop {
        let most = (stop - at).min(CHUNK);
        let (new, old) = (&mut control.entries_branch, &mut control.entries_own);
        let got = raw::pread_words(source, &mut new[..most.div_ceil(8)], at)?.min(most);
        if got == 0 {
            return Ok(());
        }
        let had = raw::pread_words(target, &mut old[..most.div_ceil(8)], at)?;
        if had < got || !same_bytes(new, old, got) {
            let mut written = 0;
            while written < got {
                // A short write of a reserved stretch goes on from where it stopped, at a whole word.
                let done = raw::pwrite_words(target, &new[written / 8..], got - written, at + written)?;
                let whole = if written + done < got { done / 8 * 8 } else { done };
                if whole == 0 {
                    return Err(Errno::IO);
                }
                written += whole;
            }
        }
        at += got;
    }
    Ok(())
}

fn same_bytes(one: &[u64], other: &[u64], bytes: usize) -> bool {
    let (whole, rest) = (bytes / 8, bytes % 8);
    let mask = (1u64 << (8 * rest)) - 1;
    one[..whole] == other[..whole] && (rest == 0 || (one[whole] ^ other[whole]).to_le() & mask == 0)
}

/// Makes a hole of what lies between two offsets of a file that may have content there.
fn clear(control: &mut Control, target: usize, start: usize, stop: usize) -> Result<(), Errno> {
    let stop = stop.min(stamp(target)?.size as usize);
    if start >= stop {
        return Ok(());
    }
    let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;
    match raw::fallocate(target, mode, start, stop - start) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        other => return other.map(drop),
    }
    control.entries_branch.fill(0);
    let mut at = start;
    while at < stop {
        at += match raw::pwrite_words(target, &control.entries_branch, (stop - at).min(CHUNK), at)? {
            0 => return Err(Errno::IO),
            done => done,
        };
    }
    Ok(())
}

/// Lets go of the files, and of the room that was reserved in them.
pub(super) fn abandon(control: &mut Control) {
    for it in &control.write_backs[..control.origin.copy_count] {
        let _room_is_given_back_with_the_file = raw::ftruncate(it.target as usize, it.before.size as usize);
        set_times(it.target, &it.before);
        release(it);
    }
    control.origin.copy_count = 0;
}
