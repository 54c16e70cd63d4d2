//! Commit: stage, the commit point, and the transplant itself.
//!
//! This is the origin on its private stack. Until the commit point every failure is a refusal that the branch is
//! told. After it nothing here can fail; a kernel that refuses all the same ends the process, since half of each
//! is worse than neither.

use rustix::io::Errno;

use super::{
    Entry,
    begin::entry_of,
    control::{Control, Filing, MAX_VMAS, Refusal, Step, WORDS, arrival},
    copies, descriptors, stage,
    stage::EditKind,
    standing,
    talk::{self, Message, op},
    wait,
};
use crate::{
    arch, crash,
    memory::PAGE,
    process::{
        descriptors as fds,
        state::{AllNumbers, renounce_new_privileges},
    },
    raw,
    threads::state::set_mask,
};

const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

/// Commits the frozen branch and continues as it; returns when that is refused, after telling the branch.
pub(super) fn commit(control: &mut Control) {
    const _: () = assert!(MAX_VMAS >= 65_530);
    control.origin.reply.words_len = 0;
    control.origin.reply.refusal = Refusal::default();
    // A commit never drops it: the branch's limit takes its place.
    let _numbers = AllNumbers::allow();
    match stage_all(control) {
        Ok(()) => go_over(control),
        Err(refusal) => {
            stage::abandon(control);
            descriptors::abandon(control);
            if let Some(entry) = entry_of(control) {
                let _gone_monitor_is_seen_by_the_wait =
                    talk::send(entry.monitor, &Message::of(op::ABANDON), None);
            }
            wait::refuse(control, refusal.step, refusal.errno, refusal.subject);
        }
    }
}

/// Memory is staged while the monitor stages the files. Descriptors come after that: reserving room in a deleted file
/// changes it, which must not look like a change by others.
fn stage_all(control: &mut Control) -> Result<(), Refusal> {
    crash::point("stage.begin");
    check_branch(control)?;
    control.origin.filing = Filing::Idle;
    if let Some(entry) = entry_of(control) {
        talk::send(entry.monitor, &Message::of(op::STAGE), None).map_err(lost)?;
        control.origin.filing = Filing::Asked;
    }
    crash::point("stage.files");
    let staged = stage::memory(control);
    // Its refusal says more, and its answer has to be read in any case.
    files_staged(control)?;
    staged?;
    descriptors::stage(control)?;
    crash::point("stage.ready");
    match entry_of(control) {
        // The commit point is the journal's record.
        Some(entry) if control.origin.filing == Filing::Staged => publish(control, entry),
        // It is the return of this function: from there on the origin goes over.
        _ => Ok(()),
    }
}

fn lost(errno: Errno) -> Refusal {
    Refusal { step: Step::Monitor, errno: errno.raw_os_error(), subject: 0 }
}

/// Waits until the monitor has staged the files, once.
fn files_staged(control: &mut Control) -> Result<(), Refusal> {
    if let Some(entry) = entry_of(control)
        && control.origin.filing == Filing::Asked
    {
        match answer(control, entry) {
            Ok(untouched) => {
                control.origin.filing = if untouched == 1 { Filing::Untouched } else { Filing::Staged };
            }
            Err(refusal) => {
                control.origin.filing = Filing::Refused;
                control.origin.filing_refusal = refusal;
            }
        }
    }
    if control.origin.filing == Filing::Refused { Err(control.origin.filing_refusal) } else { Ok(()) }
}

/// The commit point. A monitor that dies here may have passed it: the journal tells. It is opened before, since whoever
/// recovers the store after that death removes it.
fn publish(control: &mut Control, entry: &Entry) -> Result<(), Refusal> {
    let journal = raw::open(&entry.journal, libc::O_RDONLY | libc::O_CLOEXEC).map_err(lost)?;
    let published = talk::send(entry.monitor, &Message::of(op::PUBLISH), None)
        .map_err(lost)
        .and_then(|()| answer(control, entry));
    let decided = match published {
        Err(refusal) if control.origin.reply.words_len == 0 && was_committed(journal) => {
            debug_assert!(refusal.step == Step::Monitor);
            control.origin.reply.refusal = Refusal::default();
            Ok(())
        }
        other => other.map(drop),
    };
    let _own = raw::close(journal);
    decided
}

/// Whether a journal, which is read from where it was opened, has a whole commit record. No path in it can look like one:
/// there are no bare quotation marks in the text of a document.
fn was_committed(journal: usize) -> bool {
    const RECORD: &[u8] = b"{\"entry\":\"commit\"}\n";
    let mut text = [0u8; 4096];
    let mut held = 0;
    while let Ok(got @ 1..) = raw::read(journal, &mut text[held..]) {
        held += got;
        if text[..held].windows(RECORD.len()).any(|window| window == RECORD) {
            return true;
        }
        // What may be the beginning of it.
        let rest = held.min(RECORD.len() - 1);
        text.copy_within(held - rest..held, 0);
        held = rest;
    }
    false
}

/// Waits for an answer and returns its number; a refusal's words go to the branch.
fn answer(control: &mut Control, entry: &Entry) -> Result<i64, Refusal> {
    let (answer, _) = talk::receive(entry.monitor).map_err(lost)?;
    if answer.op == op::DONE {
        return Ok(answer.a);
    }
    let length = answer.words().len().min(WORDS);
    control.origin.reply.words[..length].copy_from_slice(answer.words());
    control.origin.reply.words_len = length as u32;
    Err(Refusal { step: Step::Monitor, errno: answer.a as i32, subject: 0 })
}

/// Opens a path as it will be after the commit, through the monitor.
pub(super) fn open_committed(
    control: &mut Control,
    entry: &Entry,
    path: &[u8],
    flags: i32,
) -> Result<usize, Errno> {
    files_staged(control).map_err(|_| Errno::CANCELED)?;
    talk::send(entry.monitor, &Message::with_words(op::OPEN, i64::from(flags), path), None)?;
    let (answer, fd) = talk::receive(entry.monitor)?;
    match fd {
        Some(fd) if answer.op == op::DONE => Ok(fd as usize),
        _ => Err(Errno::from_raw_os_error((answer.a as i32).max(1))),
    }
}

/// What a commit refuses: threads and children of the branch, and one that is somebody else by now.
fn check_branch(control: &mut Control) -> Result<(), Refusal> {
    let refuse = |step, subject| Err(Refusal { step, errno: 0, subject });
    let pid = control.origin.branch;
    let mut path = [0; 64];
    let mut threads = 0;
    let counted = fds::each_number(fds::proc_path(&mut path, b"/proc/", pid, b"/task"), |_| {
        threads += 1;
        Ok(())
    });
    if counted.is_err() || threads != 1 {
        return refuse(Step::Threads, threads);
    }
    if let Some(child) = first_child(pid) {
        return refuse(Step::Children, child);
    }
    standing::check(control)
}

/// A child of the branch, running or not waited for.
fn first_child(pid: i32) -> Option<usize> {
    let mut path = [0; 64];
    let mut suffix = [0; 64];
    let middle = fds::proc_path(&mut suffix, b"/task/", pid, b"/children");
    let path = fds::proc_path(&mut path, b"/proc/", pid, &middle[..middle.len() - 1]);
    let fd = raw::open(path, libc::O_RDONLY | libc::O_CLOEXEC).ok()?;
    let mut text = [0u8; 64];
    let got = raw::read(fd, &mut text);
    let _own = raw::close(fd);
    let digits = text[..got.ok()?].iter().take_while(|byte| byte.is_ascii_digit());
    let child = digits.fold(0usize, |sum, byte| sum * 10 + usize::from(byte - b'0'));
    (child != 0).then_some(child)
}

/// Past the commit point: the origin becomes the branch.
fn go_over(control: &mut Control) -> ! {
    crash::point("apply.begin");
    // First: pages that only the origin maps any more are cheaper to write.
    let _already_gone = raw::kill(control.origin.branch as usize, libc::SIGKILL as usize);
    if let Some(entry) = entry_of(control) {
        // Its answer, with what it found, is read when the origin may allocate again.
        let _recover_does_it_otherwise = talk::send(entry.monitor, &Message::of(op::APPLY), None);
    }
    apply_edits(control, &[EditKind::Unmap, EditKind::Move, EditKind::Drop, EditKind::Unguard]);
    crash::point("apply.mapped");
    copy_runs(control);
    crash::point("apply.copied");
    apply_edits(control, &[EditKind::Protect, EditKind::Guard, EditKind::Nothing]);
    if control.origin.request.program_break < control.origin.old_break {
        let _shrinks = raw::brk(control.origin.request.program_break);
    }
    control.origin.request.threads.apply();
    if copies::apply(control).is_err() {
        give_up(b"a deleted file");
    }
    crash::point("apply.state");
    if control.origin.filing == Filing::Staged {
        // The sandbox cannot go before the branch is reaped, and the files are put in place when it is gone.
        wait::reap(control.origin.branch);
        control.origin.branch = 0;
    }
    if control.origin.directory >= 0 {
        let _staged = raw::fchdir(control.origin.directory as usize);
    }
    wait::release(control);
    descriptors::apply(control);
    control.origin.request.process.apply();
    let request = &control.origin.request;
    if request.process.powers.no_new_privileges != request.began.no_new_privileges {
        renounce_new_privileges();
    }
    wait::raise_missed_child_signal();
    standing::raise_missed(control);
    crash::point("apply.end");
    set_mask(control.origin.request.threads.mask);
    // SAFETY: the origin's memory is the branch's now, the stack of this context included.
    unsafe { arch::resume(&raw const control.origin.request.context, arrival::COMMITTED) }
}

/// Ends the process: half of each memory is worse than neither.
fn give_up(what: &[u8]) -> ! {
    let text = [b"tentative: the kernel refused to apply a commit: ".as_slice(), what, b"\n"];
    for part in text {
        // SAFETY: writes bytes of this program to its standard error.
        let _last_words =
            unsafe { raw::syscall(libc::SYS_write, [2, part.as_ptr() as usize, part.len(), 0, 0, 0]) };
    }
    let _own = raw::kill(raw::getpid().unwrap_or(0), libc::SIGKILL as usize);
    raw::exit_group(123)
}

fn apply_edits(control: &mut Control, kinds: &[EditKind]) {
    for index in 0..control.origin.edit_count {
        let edit = control.edits[index];
        if !kinds.contains(&edit.kind) {
            continue;
        }
        let (start, length) = (edit.start, edit.length);
        let done = match edit.kind {
            // SAFETY: the branch has no such mapping; what used it is gone with the origin's old memory.
            EditKind::Unmap => unsafe { raw::munmap(start, length) },
            // SAFETY: staging made the source, and the branch has this mapping at the target.
            EditKind::Move => unsafe { raw::mremap_fixed(edit.scratch, length, start) },
            // SAFETY: the branch has this protection there.
            EditKind::Protect => unsafe { raw::mprotect(start, length, edit.protection) },
            // SAFETY: the branch has no content there.
            EditKind::Drop => unsafe { raw::madvise(start, length, libc::MADV_DONTNEED) },
            // SAFETY: the branch has a guard there.
            EditKind::Guard => unsafe { raw::madvise(start, length, MADV_GUARD_INSTALL) },
            // SAFETY: the branch has no guard there.
            EditKind::Unguard => unsafe { raw::madvise(start, length, MADV_GUARD_REMOVE) },
            // SAFETY: the scratch memory is staging's own and was copied out.
            EditKind::Nothing if edit.scratch != 0 => unsafe { raw::munmap(edit.scratch, length) },
            EditKind::Nothing | EditKind::Made => Ok(0),
        };
        if done.is_err() {
            give_up(b"mappings");
        }
    }
}

/// Copies the staged pages to their places.
fn copy_runs(control: &Control) {
    for run in &control.runs[..control.origin.run_count] {
        let writable = run.protection & libc::PROT_WRITE != 0;
        let opened = run.protection | libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: whatever may run there keeps its permission; writing is added for the copy.
        if !writable && unsafe { raw::mprotect(run.address, run.length, opened) }.is_err() {
            give_up(b"protection");
        }
        let from = core::ptr::with_exposed_provenance::<u64>(run.scratch);
        let to = core::ptr::with_exposed_provenance_mut::<u64>(run.address);
        debug_assert!(run.length % PAGE == 0);
        // SAFETY: both ranges are mapped, writable and apart; the target is memory of the program that is to hold
        // exactly these bytes, and nothing of the program runs.
        unsafe { core::ptr::copy_nonoverlapping(from, to, run.length / 8) };
        // SAFETY: puts the protection back.
        if !writable && unsafe { raw::mprotect(run.address, run.length, run.protection) }.is_err() {
            give_up(b"protection");
        }
    }
}
