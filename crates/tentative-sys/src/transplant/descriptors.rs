//! The descriptors that the origin needs after a commit: fetched while staging, put in place while applying.
//!
//! This is the origin on its private stack.

use rustix::io::Errno;

use super::{
    Entry, apply,
    begin::entry_of,
    control::{Control, Refusal, Step},
    copies, fetch, locks, wait,
};
use crate::{
    process::descriptors::{
        self as fds, FdOp, Info, Inherit, Inherited, KCMP_FILE, differ_settably, flags_to_reopen, identity,
        info, is_same_open_file, proc_path,
    },
    raw,
};

/// What the kernel adds to the name of a deleted file.
const DELETED: &[u8] = b" (deleted)";

fn failed(number: i32) -> impl Fn(Errno) -> Refusal {
    move |errno| Refusal { step: Step::Descriptor, errno: errno.raw_os_error(), subject: number as usize }
}

/// Fetches the branch's descriptors and its working directory. The origin's own numbers, the branch's and what is fetched
/// must all find room: the caller allows for all numbers.
pub(super) fn stage(control: &mut Control) -> Result<(), Refusal> {
    (control.origin.fd_count, control.origin.copy_count) = (0, 0);
    (control.origin.locked_count, control.origin.lock_count) = (0, 0);
    let branch = control.origin.branch;
    let mut path = [0; 64];
    let branch_fds = proc_path(&mut path, b"/proc/", branch, b"/fd");
    fds::each_number(branch_fds, |number| push(control, FdOp { source: -1, ..FdOp::keep(number, false) }))
        .map_err(failed(-1))?;
    let count = control.origin.fd_count;
    stage_closes(control, count).map_err(failed(-1))?;
    let programs = control.fds[..control.origin.fd_count].iter().map(|it| it.number);
    let highest = programs.filter(|number| !is_ours(control, *number)).max().unwrap_or(2);
    control.origin.fd_base = highest as usize + 1;
    for index in 0..count {
        let number = control.fds[index].number;
        control.fds[index] = if is_ours(control, number) {
            // The origin's stays as it is, output that was captured included.
            FdOp::keep(number, number > 2)
        } else {
            fetch(control, index).map_err(failed(number))?
        };
    }
    copies::stage(control)?;
    stage_directory(control)?;
    locks::stage(control)
}

fn push(control: &mut Control, operation: FdOp) -> Result<(), Errno> {
    *control.fds.get_mut(control.origin.fd_count).ok_or(Errno::MFILE)? = operation;
    control.origin.fd_count += 1;
    Ok(())
}

/// Numbers that belong to the transaction and not to the program.
fn is_ours(control: &Control, number: i32) -> bool {
    let output = control.plan.output;
    entry_of(control).is_some_and(|entry| entry.own.contains(&number))
        || (output[0] >= 0 && [1, 2, output[0], output[1]].contains(&number))
        || (control.plan.use_marks && control.origin.request.marks == number)
}

/// What the program had open and the branch has closed.
fn stage_closes(control: &mut Control, kept: usize) -> Result<(), Errno> {
    let own = wait::descriptors(control).map(|fd| *fd);
    fds::each_descriptor(|number| {
        let known = control.fds[..kept].iter().any(|operation| operation.number == number);
        if known || own.contains(&number) || is_ours(control, number) {
            return Ok(());
        }
        push(control, FdOp { source: -1, ..FdOp::keep(number, false) })
    })
}

/// Decides where the origin gets its descriptor for one of the branch's, which is the list's `index`th.
fn fetch(control: &mut Control, index: usize) -> Result<FdOp, Errno> {
    let number = control.fds[index].number;
    let branch = control.origin.branch;
    let Info { flags, position, is_locked } = info(branch, number)?;
    if is_locked {
        locks::note(control, index)?;
    }
    let cloexec = flags & libc::O_CLOEXEC != 0;
    let keep = FdOp::keep(number, cloexec);
    let own = raw::getpid()?;
    if raw::kcmp(own, branch as usize, KCMP_FILE, number as usize, number as usize) == Ok(0) {
        return Ok(keep);
    }
    let got = raw::pidfd_getfd(control.origin.pidfd as usize, number as usize, 0)?;
    if let Some(entry) = entry_of(control) {
        if let Some(copy) = copies::find(entry, got)? {
            let operation = copies::fetch(control, &copy, got, FdOp { offset: position, ..keep }, flags);
            raw::close(got)?;
            return operation;
        }
        let (_, inode, mode) = identity(got)?;
        let planned = inherited(control, entry, number);
        if planned.is_some_and(|(planned, installed)| planned.action == Inherit::Stream && installed == inode)
        {
            // The origin's stays as it is; what was written is the caller's to look at.
            raw::close(got)?;
            return Ok(keep);
        }
        let on_disk = matches!(mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR);
        let keep = FdOp { inode: if on_disk { inode } else { 0 }, ..keep };
        if let Some(shared) = shared_open_file(control, index, keep)? {
            raw::close(got)?;
            return Ok(shared);
        }
        match planned {
            Some((planned, installed))
                if installed == inode
                    && planned.action != Inherit::Share
                    && !(on_disk && was_opened_again(control, index, inode, planned.flags ^ flags)?) =>
            {
                if mode & libc::S_IFMT == libc::S_IFREG && is_deleted(control, number)? {
                    copies::stage_deleted_inside(control, number, got)?;
                }
                raw::close(got)?;
                let status = if on_disk && differ_settably(flags, planned.flags) { flags } else { -1 };
                return Ok(FdOp { offset: if on_disk { position } else { -1 }, status, ..keep });
            }
            _ if on_disk => {
                if let Some(source) = reopened(control, entry, number, flags)? {
                    raw::close(got)?;
                    return Ok(FdOp { source: high(control, source)?, offset: position, ..keep });
                }
            }
            _ => {}
        }
    }
    Ok(FdOp { source: high(control, got)?, ..keep })
}

/// Whether the branch has the same open file at another number that comes earlier in the list: then so shall the
/// origin, which `wanted` is for.
fn shared_open_file(control: &Control, index: usize, wanted: FdOp) -> Result<Option<FdOp>, Errno> {
    let branch = control.origin.branch as usize;
    let Some(other) = same_open_file(branch, &control.fds[..index], wanted) else { return Ok(None) };
    let own = raw::getpid()?;
    if other.source == other.number && is_same_open_file(own, wanted.number, other.number) {
        return Ok(Some(wanted));
    }
    let source = fresh_number(control, other.source as usize)?;
    Ok(Some(FdOp { source, ..wanted }))
}

/// The first of some descriptors that in a process is the same open file as another.
fn same_open_file(pid: usize, among: &[FdOp], one: FdOp) -> Option<FdOp> {
    let is_it = |it: &&FdOp| it.inode == one.inode && is_same_open_file(pid, one.number, it.number);
    if one.inode == 0 { None } else { among.iter().find(is_it).copied() }
}

/// Whether the branch closed an inherited file and opened it anew at the same number, as far as one can tell: for
/// something else (`differences` of flags), or apart from a number that it came together with.
fn was_opened_again(control: &Control, index: usize, inode: u64, differences: i32) -> Result<bool, Errno> {
    let own = raw::getpid()?;
    let number = control.fds[index].number;
    // In the branch none of these is the same open file, or it would be shared.
    let parted =
        |it: &FdOp| it.source == it.number && it.inode == inode && is_same_open_file(own, number, it.number);
    let access = libc::O_ACCMODE | libc::O_PATH | libc::O_DIRECTORY;
    Ok(differences & access != 0 || control.fds[..index].iter().any(parted))
}

/// What was planned for an inherited number, and the inode that the branch says it installed there.
fn inherited(control: &Control, entry: &Entry, number: i32) -> Option<(Inherited, u64)> {
    for index in 0..entry.inherited_len {
        // SAFETY: the array has this many elements and outlives begin in the origin.
        let element = unsafe { entry.inherited.add(index) };
        // SAFETY: as above.
        let planned = unsafe { *element };
        if planned.number == number {
            let mut installed = 0u64;
            let remote = (&raw const control.installed[index]) as usize;
            let local = (&raw mut installed) as usize;
            let got = fetch::read_memory(control.origin.branch, local, remote, size_of::<u64>());
            return (got == Ok(size_of::<u64>())).then_some((planned, installed));
        }
    }
    None
}

/// A descriptor on the committed inode of a path that the branch has open; none for an unlinked file.
fn reopened(control: &mut Control, entry: &Entry, number: i32, flags: i32) -> Result<Option<usize>, Errno> {
    let mut path = [0u8; 2048];
    let length = link(control.origin.branch, b"/fd/", Some(number), &mut path)?;
    if path[..length].ends_with(DELETED) {
        return Ok(None);
    }
    let flags = flags_to_reopen(flags) | libc::O_CLOEXEC;
    apply::open_committed(control, entry, &path[..length], flags).map(Some)
}

/// Whether the branch has deleted the file that it has at a number.
fn is_deleted(control: &Control, number: i32) -> Result<bool, Errno> {
    let mut path = [0u8; 2048];
    let length = link(control.origin.branch, b"/fd/", Some(number), &mut path)?;
    Ok(path[..length].ends_with(DELETED))
}

/// Reads a link of the branch's in `/proc`.
fn link(pid: i32, name: &[u8], number: Option<i32>, path: &mut [u8]) -> Result<usize, Errno> {
    let (mut head, mut tail) = ([0; 64], [0; 64]);
    let tail = match number {
        Some(number) => proc_path(&mut tail, name, number, b""),
        None => {
            tail[..name.len()].copy_from_slice(name);
            &tail[..=name.len()]
        }
    };
    let link = proc_path(&mut head, b"/proc/", pid, &tail[..tail.len() - 1]);
    let directory = libc::AT_FDCWD as isize as usize;
    let arguments = [directory, link.as_ptr() as usize, path.as_mut_ptr() as usize, path.len(), 0, 0];
    // SAFETY: the link's name is NUL-terminated, and the kernel writes at most the buffer's length.
    let length = unsafe { raw::syscall(libc::SYS_readlinkat, arguments) }?;
    if length == path.len() { Err(Errno::NAMETOOLONG) } else { Ok(length) }
}

/// Moves a fetched descriptor to a number that neither process uses.
pub(super) fn high(control: &Control, fd: usize) -> Result<i32, Errno> {
    let moved = fresh_number(control, fd);
    raw::close(fd)?;
    moved
}

/// Duplicates a descriptor onto a number that neither process uses: above the program's, or in a gap where the limit
/// leaves no room there.
pub(super) fn fresh_number(control: &Control, fd: usize) -> Result<i32, Errno> {
    let duplicate = |from: usize| raw::fcntl(fd, libc::F_DUPFD_CLOEXEC as usize, from);
    match duplicate(control.origin.fd_base) {
        Err(Errno::INVAL | Errno::MFILE) => {}
        other => return other.map(|number| number as i32),
    }
    let mut from = 0;
    loop {
        let number = duplicate(from)?;
        if control.fds[..control.origin.fd_count].iter().all(|it| it.number as usize != number) {
            return Ok(number as i32);
        }
        raw::close(number)?;
        from = number + 1;
    }
}

fn stage_directory(control: &mut Control) -> Result<(), Refusal> {
    let refuse = |errno: Errno| Refusal { step: Step::Directory, errno: errno.raw_os_error(), subject: 0 };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let fd = match entry_of(control) {
        Some(entry) => {
            let (mut own, mut path) = ([0u8; 2048], [0u8; 2048]);
            let length = link(control.origin.branch, b"/cwd", None, &mut path).map_err(refuse)?;
            let own_pid = raw::getpid().unwrap_or(0) as i32;
            let own_length = link(own_pid, b"/cwd", None, &mut own).map_err(refuse)?;
            if own[..own_length] == path[..length] {
                return Ok(());
            }
            apply::open_committed(control, entry, &path[..length], flags).map_err(refuse)?
        }
        None => {
            let mut path = [0; 64];
            let link = proc_path(&mut path, b"/proc/", control.origin.branch, b"/cwd");
            raw::open(link, flags).map_err(refuse)?
        }
    };
    control.origin.directory = high(control, fd).map_err(refuse)?;
    Ok(())
}

/// Puts the descriptors in place, while all numbers are allowed; the branch's limit comes after.
pub(super) fn apply(control: &Control) {
    fds::apply(&control.fds[..control.origin.fd_count]);
}

/// Closes what staging fetched.
pub(super) fn abandon(control: &mut Control) {
    locks::abandon(control);
    fds::release(&control.fds[..control.origin.fd_count]);
    control.origin.fd_count = 0;
    copies::abandon(control);
    if control.origin.directory >= 0 {
        let _own = raw::close(control.origin.directory as usize);
        control.origin.directory = -1;
    }
}
