//! The origin's wait: signals are forwarded, stops mirrored, requests served, until the branch has ended.
//!
//! This is the origin on its private stack: control area and raw system calls only.

use core::mem::MaybeUninit;

use rustix::io::Errno;

use super::{
    apply,
    begin::entry_of,
    control::{Control, Ending, Origin, Request, Step, arrival, ask},
    fetch, resumption, stage, talk,
};
use crate::{
    arch, crash,
    kin::{become_foreground_raw, foreground_group_raw},
    raw,
    threads::state::{Action, IntervalTimer, set_action, set_mask, set_timer},
};

const SIGNAL_INFO: usize = 128;
const POLLIN: i16 = 1;

#[repr(C)]
struct Poll {
    fd: i32,
    events: i16,
    ready: i16,
}

/// `siginfo_t` of a child: the fields that waitid(2) fills in.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ChildInfo {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    status: i32,
    rest: [i32; 25],
}

const _: () = assert!(size_of::<ChildInfo>() == SIGNAL_INFO);

fn waitid(kind: i32, pid: usize, options: i32) -> Result<ChildInfo, Errno> {
    let mut info = ChildInfo::default();
    let pointer = (&raw mut info) as usize;
    // SAFETY: the kernel fills in one siginfo of the asserted size.
    unsafe { raw::syscall(libc::SYS_waitid, [kind as usize, pid, pointer, options as usize, 0, 0]) }?;
    Ok(info)
}

/// Waits for the end of a child that no other wait sees, and reaps it.
pub(super) fn reap(pid: i32) {
    while let Err(Errno::INTR) = waitid(libc::P_PID as i32, pid as usize, libc::WEXITED | libc::__WALL) {}
}

/// Milliseconds of a clock that only goes forward.
pub(super) fn now_ms() -> u64 {
    let mut time = [0i64; 2];
    let pointer = time.as_mut_ptr() as usize;
    let clock = libc::CLOCK_MONOTONIC as usize;
    // SAFETY: the kernel writes one timespec.
    let _cannot_fail = unsafe { raw::syscall(libc::SYS_clock_gettime, [clock, pointer, 0, 0, 0, 0]) };
    time[0] as u64 * 1000 + time[1] as u64 / 1_000_000
}

/// Makes ready to wait for the branch.
pub(super) fn prepare(control: &mut Control) -> Result<(), Errno> {
    let branch = control.origin.branch;
    control.origin.started_ms = now_ms();
    control.origin.pidfd = raw::pidfd_open(branch as usize, 0)? as i32;
    let all = u64::MAX;
    let (mask, flags) = ((&raw const all) as usize, (libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as usize);
    // SAFETY: the kernel reads one signal set of 8 bytes.
    let signalfd = unsafe { raw::syscall(libc::SYS_signalfd4, [usize::MAX, mask, 8, flags, 0, 0]) }?;
    control.origin.signalfd = signalfd as i32;
    watch_child_signals(control);
    for (which, timer) in control.plan.timers.iter().enumerate() {
        if timer.0 != [0; 4] {
            set_timer(which, &IntervalTimer::default());
        }
    }
    // It does that first of all. If it has, its code may have moved on since, and is not taken back.
    if raw::getpgid(branch as usize) == raw::getpgid(0) {
        let _already_done_there = raw::setpgid(branch as usize, branch as usize);
    }
    if let Some(entry) = entry_of(control) {
        let mut message = talk::Message::of(talk::op::RUNNING);
        message.a = i64::from(branch);
        talk::send(entry.monitor, &message, None)?;
    }
    Ok(())
}

/// A stop is told by SIGCHLD, which must not be ignored for that.
fn watch_child_signals(control: &Control) {
    let action = control.plan.child_action;
    if action.handler == libc::SIG_IGN || action.flags & libc::SA_NOCLDSTOP as u64 != 0 {
        set_action(libc::SIGCHLD as usize, &Action::default());
    }
}

/// Looks before the clone whether the origin's group has the terminal's foreground, which the branch takes over then.
pub(super) fn look_at_terminal(control: &mut Control) {
    let Ok(terminal) = raw::open(b"/dev/tty\0", libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOCTTY) else {
        return;
    };
    let own = raw::getpgid(0).unwrap_or(0) as i32;
    if foreground_group_raw(terminal as i32) == Ok(own) {
        control.origin.terminal_group = own;
        control.origin.terminal = terminal as i32;
    } else {
        let _own = raw::close(terminal);
    }
}

fn take_terminal_back(control: &Control) {
    if control.origin.terminal >= 0 {
        let _gone_terminal = become_foreground_raw(control.origin.terminal, control.origin.terminal_group);
    }
}

/// Waits, and continues the origin's program when the branch has ended.
pub(super) fn run(control: &mut Control) -> ! {
    loop {
        let remaining = match remaining_ms(control) {
            Some(0) => {
                end_branch(control);
                control.origin.ending = Ending::TimedOut;
                arrive(control, arrival::ENDED)
            }
            Some(left) => i64::try_from(left).unwrap_or(i64::MAX),
            None => -1,
        };
        let monitor = entry_of(control).map_or(-1, |entry| entry.monitor);
        let mut polls = [
            Poll { fd: control.origin.pidfd, events: POLLIN, ready: 0 },
            Poll { fd: control.origin.signalfd, events: POLLIN, ready: 0 },
            // Only the hang-up is of interest.
            Poll { fd: monitor, events: 0, ready: 0 },
        ];
        poll(&mut polls, remaining);
        if polls[0].ready != 0 {
            ended_by_itself(control);
        }
        if polls[2].ready != 0 {
            end_branch(control);
            control.origin.ending = Ending::MonitorLost;
            arrive(control, arrival::ENDED);
        }
        if polls[1].ready != 0 {
            take_signals(control);
        }
    }
}

fn remaining_ms(control: &Control) -> Option<u64> {
    let limit = control.plan.timeout_ms;
    (limit != 0).then(|| limit.saturating_sub(now_ms().saturating_sub(control.origin.started_ms)))
}

fn poll(polls: &mut [Poll; 3], timeout_ms: i64) {
    let time = [timeout_ms / 1000, timeout_ms % 1000 * 1_000_000];
    let timeout = if timeout_ms < 0 { 0 } else { time.as_ptr() as usize };
    let pointer = polls.as_mut_ptr() as usize;
    // SAFETY: the kernel reads and writes three poll structures, and may write what is left into the timespec.
    let _interrupted_or_ready =
        unsafe { raw::syscall(libc::SYS_ppoll, [pointer, polls.len(), timeout, 0, 0, 0]) };
}

fn ended_by_itself(control: &mut Control) -> ! {
    let ended = waitid(libc::P_PID as i32, control.origin.branch as usize, libc::WEXITED | libc::__WALL);
    control.origin.branch = 0;
    control.origin.ending = match ended {
        Ok(info) if info.code == libc::CLD_EXITED => Ending::Exited(info.status),
        Ok(info) if info.status == super::ROLLBACK_SIGNAL => Ending::Asked,
        Ok(info) => Ending::Killed(info.status),
        Err(_) => Ending::Killed(libc::SIGKILL),
    };
    arrive(control, arrival::ENDED)
}

/// Takes the pending signals: a stop of the branch is looked at, everything else is forwarded once.
fn take_signals(control: &mut Control) {
    loop {
        let mut info = MaybeUninit::<[u32; SIGNAL_INFO / 4]>::zeroed();
        let pointer = info.as_mut_ptr() as usize;
        // SAFETY: the kernel writes whole structures of 128 bytes.
        let got = unsafe {
            raw::syscall(libc::SYS_read, [control.origin.signalfd as usize, pointer, SIGNAL_INFO, 0, 0, 0])
        };
        if got != Ok(SIGNAL_INFO) {
            return;
        }
        // SAFETY: zeroed or written by the kernel; every bit pattern is valid.
        let info = unsafe { info.assume_init() };
        let signal = info[0] as usize;
        if signal == libc::SIGCHLD as usize {
            look_at_branch(control);
        } else {
            control.origin.blocked_signals |= (1 << (signal - 1)) & control.plan.saved_mask;
            let _gone_if_failed = raw::pidfd_send_signal(control.origin.pidfd as usize, signal, 0, 0);
        }
    }
}

fn look_at_branch(control: &mut Control) {
    let options = libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG | libc::__WALL;
    let Ok(info) = waitid(libc::P_PID as i32, control.origin.branch as usize, options) else { return };
    if info.pid == 0 || info.code != libc::CLD_STOPPED {
        return;
    }
    match read_request(control) {
        Ok(()) if control.origin.request.kind != ask::NOTHING => serve(control),
        // Another user by now, at whom the origin may not look: nobody would ever answer what it asks for.
        Err(Errno::PERM) if info.status == libc::SIGSTOP => {
            end_branch(control);
            control.origin.payload_lost = true;
            control.origin.ending = Ending::Asked;
            arrive(control, arrival::ENDED)
        }
        _ => mirror_stop(control),
    }
}

/// Copies the branch's request; what it says is the branch's word and is checked where it is used.
fn read_request(control: &mut Control) -> Result<(), Errno> {
    let remote = (&raw const control.request) as usize;
    let local = (&raw mut control.origin.request) as usize;
    let got = fetch::read_memory(control.origin.branch, local, remote, size_of::<Request>())?;
    if got == size_of::<Request>() { Ok(()) } else { Err(Errno::FAULT) }
}

fn serve(control: &mut Control) {
    match control.origin.request.kind {
        ask::COMMIT if control.plan.decide => freeze_for_decision(control),
        ask::COMMIT => apply::commit(control),
        ask::MEASURE => {
            stage::measure(control);
            reply(control, arrival::ANSWERED);
        }
        ask::LOOK => {
            control.origin.reply.found = relay_findings(control).unwrap_or(0);
            reply(control, arrival::ANSWERED);
        }
        ask::ROLLBACK => {
            fetch_payload(control);
            end_branch(control);
            control.origin.ending = Ending::Asked;
            arrive(control, arrival::ENDED)
        }
        _ => {
            end_branch(control);
            control.origin.errno = control.origin.request.errno;
            control.origin.failed_at = super::BeginStep::Branch;
            arrive(control, arrival::FAILED)
        }
    }
}

/// Passes the monitor's findings on to the memory that the branch has made ready; returns their length.
fn relay_findings(control: &Control) -> Result<usize, Errno> {
    let Some(entry) = entry_of(control) else { return Ok(0) };
    talk::send(entry.monitor, &talk::Message::of(talk::op::REPORT), None)?;
    let (message, fd) = talk::receive(entry.monitor)?;
    let length = message.a as usize;
    let (remote, room) = (control.origin.request.payload, control.origin.request.payload_len);
    let Some(fd) = fd else {
        let words = message.words();
        if words.len() <= room {
            let local = words.as_ptr().expose_provenance();
            let _gone_if_failed = fetch::write_memory(control.origin.branch, local, remote, words.len());
        }
        return Ok(words.len());
    };
    if length > 0 && length <= room {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let local = unsafe { raw::mmap(0, length, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) }?;
        let _gone_if_failed = fetch::write_memory(control.origin.branch, local, remote, length);
        // SAFETY: the mapping just made.
        let _own = unsafe { raw::munmap(local, length) };
    }
    raw::close(fd as usize)?;
    Ok(length)
}

/// Lets the origin's program look at the frozen branch.
fn freeze_for_decision(control: &mut Control) -> ! {
    take_terminal_back(control);
    restore_child_signals(control);
    set_mask(control.plan.saved_mask);
    // SAFETY: the context was saved by `begin` or by the last call on the frozen handle, whose frames are intact.
    unsafe { arch::resume(resumption(control), arrival::FROZEN) }
}

/// Writes the reply into the branch's copy and lets the branch go on.
pub(super) fn reply(control: &mut Control, value: u64) {
    control.origin.reply.arrival = value;
    let local = (&raw const control.origin.reply) as usize;
    let remote = (&raw const control.reply) as usize;
    let length = size_of_val(&control.origin.reply);
    let _gone_if_failed = fetch::write_memory(control.origin.branch, local, remote, length);
    let _gone_if_failed = raw::pidfd_send_signal(control.origin.pidfd as usize, libc::SIGCONT as usize, 0, 0);
}

/// The branch was stopped by somebody: stop as well, so that whoever waits for the origin sees it.
fn mirror_stop(control: &mut Control) {
    take_terminal_back(control);
    let own = raw::getpid().unwrap_or(0);
    let _rest_of_the_group = raw::kill(0, libc::SIGTSTP as usize);
    let _until_continued = raw::kill(own, libc::SIGSTOP as usize);
    if control.origin.terminal >= 0
        && foreground_group_raw(control.origin.terminal) == Ok(control.origin.terminal_group)
    {
        let _gone_terminal = become_foreground_raw(control.origin.terminal, control.origin.branch);
    }
    let group = -(control.origin.branch as isize);
    let _gone_if_failed = raw::kill(group as usize, libc::SIGCONT as usize);
}

/// Largest payload that crosses a rollback, bytes.
const MAX_PAYLOAD: usize = 1 << 30;

/// Fetches what the branch hands over into a mapping of the origin's own.
fn fetch_payload(control: &mut Control) {
    let (remote, length) = (control.origin.request.payload, control.origin.request.payload_len);
    control.origin.payload_len = 0;
    if length == 0 {
        return;
    }
    control.origin.payload_lost = true;
    if length > MAX_PAYLOAD {
        return;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let Ok(local) = (unsafe { raw::mmap(0, length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) })
    else {
        return;
    };
    let got = fetch::read_memory(control.origin.branch, local, remote, length);
    control.origin.payload = local;
    control.origin.payload_len = if got == Ok(length) { length } else { 0 };
    control.origin.payload_lost = control.origin.payload_len == 0;
    if control.origin.payload_lost {
        // SAFETY: the mapping just made.
        let _own = unsafe { raw::munmap(local, length) };
    }
}

/// Moves the fetched payload into a vector, if there is memory for that; called after the wait, on the origin's own stack.
pub(super) fn take_payload(origin: &Origin) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if origin.payload_lost || origin.payload_len == 0 {
        return (!origin.payload_lost).then_some(bytes);
    }
    let pointer = core::ptr::with_exposed_provenance::<u8>(origin.payload);
    // SAFETY: `fetch_payload` mapped and filled this many bytes, and nothing else refers to them.
    let fetched = unsafe { core::slice::from_raw_parts(pointer, origin.payload_len) };
    let room = bytes.try_reserve_exact(fetched.len());
    if room.is_ok() {
        bytes.extend_from_slice(fetched);
    }
    // SAFETY: the copy is made, the mapping is this function's to drop.
    let _own = unsafe { raw::munmap(origin.payload, origin.payload_len) };
    room.is_ok().then_some(bytes)
}

/// Kills the branch and reaps it.
pub(super) fn end_branch(control: &mut Control) {
    if control.origin.branch > 0 {
        let _gone_if_failed = raw::kill(control.origin.branch as usize, libc::SIGKILL as usize);
        reap(control.origin.branch);
        control.origin.branch = 0;
    }
}

/// The descriptors that waiting and staging need; -1 for one that is not open.
pub(super) fn descriptors(control: &mut Control) -> [&mut i32; 6] {
    let origin = &mut control.origin;
    [
        &mut origin.pidfd,
        &mut origin.signalfd,
        &mut origin.terminal,
        &mut origin.own_pagemap,
        &mut origin.branch_pagemap,
        &mut origin.directory,
    ]
}

/// Closes what waiting needed.
pub(super) fn release(control: &mut Control) {
    take_terminal_back(control);
    for fd in descriptors(control) {
        if *fd >= 0 {
            let _own = raw::close(*fd as usize);
            *fd = -1;
        }
    }
}

fn restore_child_signals(control: &Control) {
    set_action(libc::SIGCHLD as usize, &control.plan.child_action);
}

/// SIGCHLD is one bit: if a child of the host's own has ended meanwhile, it is raised again.
pub(super) fn raise_missed_child_signal() {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    if waitid(libc::P_ALL as i32, 0, options).is_ok_and(|info| info.pid != 0) {
        let _own = raw::kill(raw::getpid().unwrap_or(0), libc::SIGCHLD as usize);
    }
}

/// Continues the origin's program where it waits for the end of the branch.
pub(super) fn arrive(control: &mut Control, value: u64) -> ! {
    crash::point("rollback.branch-ended");
    release(control);
    let elapsed_us = now_ms().saturating_sub(control.origin.started_ms) as i64 * 1000;
    for (which, timer) in control.plan.timers.iter().enumerate() {
        if timer.0 != [0; 4] {
            set_timer(which, &later(timer, elapsed_us));
        }
    }
    restore_child_signals(control);
    raise_missed_child_signal();
    // Whatever the branch did about them is taken back: they wait for the program as before.
    super::standing::raise(control.origin.blocked_signals);
    set_mask(control.plan.saved_mask);
    // SAFETY: the context was saved by `begin` or by the last call on the frozen handle, whose frames are intact.
    unsafe { arch::resume(resumption(control), value) }
}

/// A timer that was stopped for a while keeps its due time; one that is overdue goes off at once.
pub(super) fn later(timer: &IntervalTimer, elapsed_us: i64) -> IntervalTimer {
    let left = (timer.0[2] * 1_000_000 + timer.0[3] - elapsed_us).max(1);
    IntervalTimer([timer.0[0], timer.0[1], left / 1_000_000, left % 1_000_000])
}

/// Refuses a commit: tells the branch why and lets it go on.
pub(super) fn refuse(control: &mut Control, step: Step, errno: i32, subject: usize) {
    control.origin.reply.refusal = super::control::Refusal { step, errno, subject };
    reply(control, arrival::REFUSED);
}
