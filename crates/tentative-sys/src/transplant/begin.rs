//! Begin: checks, the clone, and where the origin goes from there.
//!
//! From `origin_main` on this is the origin on its private stack: it must not touch memory outside the control
//! area, allocate, lock or use thread-local storage, since the branch's copy of that memory may become its own.

use std::sync::OnceLock;

use rustix::io::Errno;

use super::{
    BeginError, BeginStep, Ended, Entry, Wishes, branch,
    control::{Area, Control, Ending, Plan, arrival},
    wait,
};
use crate::{
    arch, crash,
    process::state::{dumpable, may_look_at_clone, set_dumpable, subreaper},
    raw,
    threads::state::{action, set_mask, timer},
};

const ALL_SIGNALS: u64 = u64::MAX;

/// Refuses hosts that a transaction of this version cannot hold.
pub(super) fn check_host() -> Result<(), BeginError> {
    let refuse = |step, subject| Err(BeginError { step, errno: Errno::NOTSUP, subject });
    let threads =
        count_threads().map_err(|errno| BeginError { step: BeginStep::Threads, errno, subject: 0 })?;
    if threads != 1 {
        return refuse(BeginStep::Threads, threads);
    }
    if raw::getpid() != raw::gettid() {
        return refuse(BeginStep::MainThread, 0);
    }
    if !may_look_at_clone() {
        return refuse(BeginStep::Ids, 0);
    }
    match super::maps_of::first_open() {
        Ok(None) => Ok(()),
        Ok(Some(open)) if open.writable => refuse(BeginStep::SharedMapping, open.address),
        Ok(Some(open)) => refuse(BeginStep::SharedMappingToBe, open.address),
        Err(errno) => Err(BeginError { step: BeginStep::SharedMapping, errno, subject: 0 }),
    }
}

/// How many threads the calling process has: the kernel counts them as links of their directory, which costs less
/// than listing them.
pub(crate) fn count_threads() -> Result<usize, Errno> {
    let links = crate::process::descriptors::links(b"/proc/self/task\0")?;
    Ok(links.saturating_sub(2))
}

/// Writes what both processes need to know into the control area, before anything else happens.
pub(super) fn prepare(control: *mut Control, wishes: &Wishes<'_>) {
    // SAFETY: the area is mapped and zeroed, and zero bytes are valid for all of it.
    let control = unsafe { &mut *control };
    let (rseq, rseq_len) = restartable_sequence();
    let (mut robust_list, mut robust_len) = (0usize, 0usize);
    let (head, length) = ((&raw mut robust_list) as usize, (&raw mut robust_len) as usize);
    // SAFETY: the kernel writes two words.
    let _none_without = unsafe { raw::syscall(libc::SYS_get_robust_list, [0, head, length, 0, 0, 0]) };
    let mut tid_address = 0usize;
    let get_tid_address = 40; // PR_GET_TID_ADDRESS
    let pointer = (&raw mut tid_address) as usize;
    // SAFETY: the kernel writes one word.
    let _none_without = unsafe { raw::syscall(libc::SYS_prctl, [get_tid_address, pointer, 0, 0, 0, 0]) };
    control.plan = Plan {
        timeout_ms: wishes.timeout.map_or(0, |limit| (limit.as_millis() as u64).max(1)),
        memory_limit: wishes.memory_limit.unwrap_or(0),
        address_limit: [0; 2],
        decide: wishes.decide,
        use_marks: !super::maps_of::frames_visible(),
        entry: wishes.entry.map_or(core::ptr::null(), |entry| core::ptr::from_ref(entry).cast::<Entry>()),
        output: wishes.output.unwrap_or([-1; 2]),
        rseq,
        rseq_len,
        robust_list,
        robust_len,
        tid_address,
        saved_mask: 0,
        dumpable: dumpable(),
        subreaper: subreaper(),
        pid: raw::getpid().unwrap_or(0) as i32,
        child_action: action(libc::SIGCHLD as usize),
        timers: [timer(0), timer(1), timer(2)],
    };
    control.plan.saved_mask = set_mask(ALL_SIGNALS);
    control.origin.pidfd = -1;
    control.origin.signalfd = -1;
    control.origin.terminal = -1;
    control.origin.own_pagemap = -1;
    control.origin.branch_pagemap = -1;
    control.origin.directory = -1;
}

/// The area that the C library registered for restartable sequences, if it did.
fn restartable_sequence() -> (usize, u32) {
    static REGISTERED: OnceLock<(isize, u32)> = OnceLock::new();
    let (offset, size) = *REGISTERED.get_or_init(registered_sequence);
    if size == 0 { (0, 0) } else { (arch::thread_pointer().wrapping_add_signed(offset), size) }
}

/// Where the C library says that the area is, from the thread pointer on, and its size; 0 for none.
fn registered_sequence() -> (isize, u32) {
    let symbol = |name: &core::ffi::CStr| {
        // SAFETY: looks a name up; the C library's two rseq symbols are constants after start-up.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    let (offset, size) = (symbol(c"__rseq_offset").cast::<isize>(), symbol(c"__rseq_size").cast::<u32>());
    if offset.is_null() || size.is_null() {
        return (0, 0);
    }
    // SAFETY: glibc exports it as a readable word of this type.
    let offset = unsafe { *offset };
    // SAFETY: as above.
    let size = unsafe { *size };
    // The kernel was given at least the original structure's 32 bytes, whatever part glibc says is in use.
    if size == 0 { (0, 0) } else { (offset, size.max(32)) }
}

/// The origin on its private stack.
pub(super) unsafe extern "C" fn origin_main(argument: *mut u8) -> ! {
    // SAFETY: `begin` passes its own mapped area, which nothing else uses meanwhile.
    let control = unsafe { &mut *argument.cast::<Control>() };
    wait::look_at_terminal(control);
    crash::point("begin.before-clone");
    let made = match entry_of(control) {
        Some(_) => clone_through_helper(control),
        None => clone_directly(),
    };
    match made {
        Ok(0) => branch::start(control),
        Ok(pid) => {
            control.origin.branch = pid as i32;
            crash::point("begin.after-clone");
            if let Err(errno) = wait::prepare(control) {
                wait::end_branch(control);
                fail(control, BeginStep::Wait, errno);
            }
            wait::run(control)
        }
        Err(errno) => {
            let step = control.origin.failed_at;
            fail(control, step, errno)
        }
    }
}

/// The sandbox to enter, if any.
pub(super) fn entry_of(control: &Control) -> Option<&'static Entry> {
    // SAFETY: `begin` stored a reference that its caller keeps alive until `begin` returns; both processes have it.
    unsafe { control.plan.entry.as_ref() }
}

/// Gives up before a branch ran: undoes what begin did and returns the error from `begin`.
fn fail(control: &mut Control, step: BeginStep, errno: Errno) -> ! {
    control.origin.failed_at = step;
    control.origin.errno = errno.raw_os_error();
    wait::release(control);
    set_mask(control.plan.saved_mask);
    // SAFETY: the origin has touched nothing of its stack since `begin` saved its context.
    unsafe { arch::resume(&raw const control.begin, arrival::FAILED) }
}

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const _: () = assert!(size_of::<CloneArguments>() == 88);

fn clone3(arguments: &CloneArguments) -> raw::Answer {
    let pointer = core::ptr::from_ref(arguments) as usize;
    // SAFETY: without CLONE_VM the new process has its own copy of everything and continues here.
    unsafe { raw::syscall(libc::SYS_clone3, [pointer, size_of::<CloneArguments>(), 0, 0, 0, 0]) }
}

/// Without a sandbox one call does it. Exit signal 0: the host's own waiting and SIGCHLD handler never see it.
fn clone_directly() -> raw::Answer {
    clone3(&CloneArguments::default())
}

/// Through a helper that shares the origin's memory, enters the sandbox and makes the branch there as the
/// origin's child, so that the page tables are copied once.
fn clone_through_helper(control: &mut Control) -> raw::Answer {
    // One past the end of the array is inside the area.
    let top = (&raw mut control.helper_stack).wrapping_add(1).cast::<u8>();
    control.origin.errno = 0;
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK) as usize;
    // SAFETY: the helper has a stack of its own, and the origin sleeps in vfork until it is gone.
    let helper =
        unsafe { arch::clone_on_stack(flags, top, helper_main, core::ptr::from_mut(control).cast()) };
    if helper < 0 {
        control.origin.failed_at = BeginStep::Clone;
        return Err(Errno::from_raw_os_error(-helper as i32));
    }
    wait::reap(helper as i32);
    // The namespaces that the helper entered made the shared memory undumpable.
    restore_dumpable(control);
    // SAFETY: the helper wrote it through shared memory before it ended.
    let errno = unsafe { core::ptr::read_volatile(&raw const control.origin.errno) };
    // SAFETY: as above.
    let branch = unsafe { core::ptr::read_volatile(&raw const control.origin.branch) };
    if errno != 0 { Err(Errno::from_raw_os_error(errno)) } else { Ok(branch as usize) }
}

/// Lets the origin read the branch again: entering a user namespace took that away.
pub(super) fn restore_dumpable(control: &Control) {
    set_dumpable(control.plan.dumpable);
}

/// The helper: it shares the origin's memory while the origin sleeps, has its own copy of the descriptors, and may
/// touch the control area only.
unsafe extern "C" fn helper_main(argument: *mut u8) -> ! {
    // SAFETY: the origin passes its control area and sleeps.
    let control = unsafe { &mut *argument.cast::<Control>() };
    match helper_steps(control) {
        Ok(0) => branch::start(control),
        Ok(pid) => control.origin.branch = pid as i32,
        Err(errno) => control.origin.errno = errno.raw_os_error(),
    }
    raw::exit_group(0)
}

fn helper_steps(control: &mut Control) -> raw::Answer {
    let Some(entry) = entry_of(control) else { return Err(Errno::INVAL) };
    control.origin.failed_at = BeginStep::Namespaces;
    // SAFETY: changes the helper's own namespaces only.
    unsafe { raw::syscall(libc::SYS_setns, [entry.init as usize, entry.namespaces as usize, 0, 0, 0, 0]) }?;
    restore_dumpable(control);
    control.origin.failed_at = BeginStep::Clone;
    let pid = control.plan.pid;
    let arguments = CloneArguments {
        flags: libc::CLONE_PARENT as u64,
        set_tid: if entry.same_pid { (&raw const pid) as u64 } else { 0 },
        set_tid_size: u64::from(entry.same_pid),
        ..CloneArguments::default()
    };
    clone3(&arguments)
}

/// Reads why begin failed, in the origin after it.
pub(super) fn failure(area: &Area) -> BeginError {
    // SAFETY: the area is mapped, and the origin is back on its own stack.
    let origin = unsafe { &(*area.pointer()).origin };
    BeginError {
        step: origin.failed_at,
        errno: Errno::from_raw_os_error(origin.errno),
        subject: origin.request.index as usize,
    }
}

/// Takes what the branch handed over, in the origin after its end.
pub(super) fn ended(area: &Area) -> Ended {
    // SAFETY: the area is mapped, and the origin is back on its own stack.
    let origin = unsafe { &(*area.pointer()).origin };
    let payload = if origin.ending == Ending::Asked { wait::take_payload(origin) } else { None };
    Ended { ending: origin.ending, payload }
}

/// The origin on its private stack again, told to commit the frozen branch.
pub(super) unsafe extern "C" fn commit_frozen(argument: *mut u8) -> ! {
    // SAFETY: the frozen handle passes its own mapped area.
    let control = unsafe { &mut *argument.cast::<Control>() };
    control.origin.ran = true;
    set_mask(ALL_SIGNALS);
    super::apply::commit(control);
    // Refused: the branch was told and goes on; wait for what it does next.
    wait::run(control)
}

/// The origin on its private stack again, told to roll the frozen branch back.
pub(super) unsafe extern "C" fn drop_frozen(argument: *mut u8) -> ! {
    // SAFETY: the frozen handle passes its own mapped area.
    let control = unsafe { &mut *argument.cast::<Control>() };
    control.origin.ran = true;
    set_mask(ALL_SIGNALS);
    wait::end_branch(control);
    control.origin.ending = Ending::Asked;
    wait::arrive(control, arrival::ENDED)
}
