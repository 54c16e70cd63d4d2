//! The branch: its first acts after the clone, and what it does to ask the origin for something.
//!
//! `start` runs in a fresh clone on the (copied) private stack with all signals blocked; nothing of the program may
//! run before it is done. `freeze…` runs in the branch on its own copy of the private stack.

use rustix::io::Errno;

use super::{
    begin::entry_of,
    control::{Area, Control, Counts, Request, SIZE, arrival, ask},
};
use crate::{
    arch, crash,
    memory::{
        PAGE,
        maps::{self, Table},
        marks,
    },
    process::{
        descriptors::{Inherited, replace_inherited},
        state::{
            AllNumbers, Powers, Root, set_dumpable, set_limit, set_soft_limit, set_subreaper, soft_limit,
        },
    },
    raw,
    threads::state::{Action, set_action, set_mask, set_timer},
};

/// What PR_SET_DUMPABLE is given so that others of the same user may look at a process's memory.
const READABLE: usize = 1;

/// The new process's first acts; continues where `begin` was called.
pub(super) fn start(control: &mut Control) -> ! {
    crash::point("branch.start");
    let _own_group = raw::setpgid(0, 0);
    take_terminal(control);
    register_thread(control);
    redirect_output(control);
    if let Err((index, errno)) = enter(control) {
        fail(control, index, errno);
    }
    for (which, timer) in control.plan.timers.iter().enumerate() {
        if timer.0 != [0; 4] {
            set_timer(which, timer);
        }
    }
    limit_memory(control);
    if control.plan.subreaper != 0 {
        set_subreaper(control.plan.subreaper);
    }
    control.request.began = Powers::of_caller();
    control.request.began_at = Root::of_caller();
    control.request.marks = -1;
    if control.plan.use_marks {
        arm(control);
    }
    crash::point("branch.started");
    set_mask(control.plan.saved_mask);
    // SAFETY: the clone has a copy of the origin's stack as it was when `begin` saved its context.
    unsafe { arch::resume(&raw const control.begin, arrival::INSIDE) }
}

/// Takes the terminal's foreground if the origin had it: by itself, since its code may read before the origin runs again.
fn take_terminal(control: &mut Control) {
    let terminal = core::mem::replace(&mut control.origin.terminal, -1);
    if terminal >= 0 {
        let own = raw::getpgid(0).unwrap_or(0) as i32;
        let _gone_terminal = crate::kin::become_foreground_raw(terminal, own);
        let _own = raw::close(terminal as usize);
    }
}

fn prctl(option: i32, argument: usize) {
    // SAFETY: the options used here set attributes of the calling process.
    let _best_known = unsafe { raw::syscall(libc::SYS_prctl, [option as usize, argument, 0, 0, 0, 0]) };
}

/// Tells the kernel again what it forgot in the clone: the thread's restartable sequences, robust list and tid.
fn register_thread(control: &Control) {
    let plan = &control.plan;
    if plan.rseq != 0 {
        let arguments = [plan.rseq, plan.rseq_len as usize, 0, arch::RSEQ_SIGNATURE as usize, 0, 0];
        // SAFETY: the C library's own area of this thread; a clone without a helper is still registered (EINVAL).
        let _still_registered = unsafe { raw::syscall(libc::SYS_rseq, arguments) };
    }
    if plan.robust_list != 0 {
        // SAFETY: the list head that the C library had registered for this thread.
        let _cannot_fail = unsafe {
            raw::syscall(libc::SYS_set_robust_list, [plan.robust_list, plan.robust_len, 0, 0, 0, 0])
        };
    }
    if plan.tid_address != 0 {
        // SAFETY: the word that the C library had registered for this thread.
        let _cannot_fail =
            unsafe { raw::syscall(libc::SYS_set_tid_address, [plan.tid_address, 0, 0, 0, 0, 0]) };
    }
}

/// Takes its place in the sandbox; on failure says at which descriptor, or their number for anything else.
fn enter(control: &mut Control) -> Result<(), (usize, Errno)> {
    let Some(entry) = entry_of(control) else {
        die_with_origin();
        return Ok(());
    };
    let count = entry.inherited_len;
    let elsewhere = |errno| (count, errno);
    if entry.namespaces_of_branch != 0 {
        let arguments = [entry.init as usize, entry.namespaces_of_branch as usize, 0, 0, 0, 0];
        // SAFETY: changes this new process's own namespaces.
        unsafe { raw::syscall(libc::SYS_setns, arguments) }.map_err(elsewhere)?;
        super::begin::restore_dumpable(control);
    }
    // Only now: entering a user namespace takes the death signal away.
    die_with_origin();
    if !entry.directory.is_empty() {
        let path = entry.directory.as_ptr() as usize;
        // SAFETY: the caller of begin made the NUL-terminated path, and the clone has its own copy.
        unsafe { raw::syscall(libc::SYS_chdir, [path, 0, 0, 0, 0, 0]) }.map_err(elsewhere)?;
    }
    if count != 0 {
        // SAFETY: the caller of begin made this array, and the clone has its own copy of it.
        let inherited: &[Inherited] = unsafe { core::slice::from_raw_parts(entry.inherited, count) };
        let _numbers = AllNumbers::allow();
        replace_inherited(inherited, &mut control.installed)?;
    }
    crate::kin::drop_capabilities_raw(entry.capabilities).map_err(elsewhere)?;
    if entry.outer >= 0 {
        crate::kin::join_monitor(entry.outer).map_err(elsewhere)?;
    } else if !entry.filter.is_empty() {
        let listener = crate::world::install_filter_raw(&entry.filter).map_err(elsewhere)?;
        crate::kin::send_fd_raw(entry.monitor, listener).map_err(elsewhere)?;
        raw::close(listener as usize).map_err(elsewhere)?;
    }
    // Nothing of the transaction's own stays within the program's reach.
    for number in &entry.own {
        let _closed_already = raw::close(*number as usize);
    }
    Ok(())
}

/// From here on the origin's end is the branch's.
fn die_with_origin() {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize);
}

/// Captured or held output goes where the origin wants it.
fn redirect_output(control: &Control) {
    for (number, source) in [1, 2].into_iter().zip(control.plan.output) {
        if source >= 0 {
            let _open_by_contract = raw::dup3(source as usize, number, 0);
        }
    }
    for source in control.plan.output {
        if source >= 0 {
            let _second_may_be_the_first = raw::close(source as usize);
        }
    }
}

/// Reports that the branch could not be set up, and waits to be ended.
fn fail(control: &mut Control, index: usize, errno: Errno) -> ! {
    control.request.kind = ask::SETUP_FAILED;
    control.request.index = index as u32;
    control.request.errno = errno.raw_os_error();
    loop {
        stop();
    }
}

/// Stops the whole process; the origin waits for that.
fn stop() {
    signal_self(libc::SIGSTOP as usize);
}

/// Signals this process, by the name that a task has for itself where the kernel knows one (6.14): the filter lets
/// that call through, while kill(2) goes to the monitor and back first (measured: 0.14 ms).
fn signal_self(signal: usize) {
    const PIDFD_SELF_THREAD: isize = -10_000;
    if raw::pidfd_send_signal(PIDFD_SELF_THREAD as usize, signal, 0, 0).is_err() {
        let _cannot_fail = raw::kill(raw::getpid().unwrap_or(0), signal);
    }
}

/// Limits what the branch may add to the address space it starts with; a lower limit of the program's own stays.
fn limit_memory(control: &mut Control) {
    if control.plan.memory_limit != 0 {
        let most = address_space().unwrap_or(0).saturating_add(control.plan.memory_limit);
        let most = most.min(soft_limit(libc::RLIMIT_AS as usize));
        control.plan.address_limit = set_soft_limit(libc::RLIMIT_AS as usize, most);
    }
}

/// Bytes of address space in use.
fn address_space() -> Result<u64, Errno> {
    let fd = raw::open(b"/proc/self/statm\0", libc::O_RDONLY | libc::O_CLOEXEC)?;
    let mut text = [0u8; 128];
    let got = raw::read(fd, &mut text);
    raw::close(fd)?;
    let digits = text[..got?].iter().take_while(|byte| byte.is_ascii_digit());
    Ok(digits.fold(0u64, |sum, byte| sum * 10 + u64::from(byte - b'0')) * PAGE as u64)
}

/// Write-protects the private writable memory; what fails is copied by a commit and nothing else.
fn arm(control: &mut Control) {
    let Ok(fd) = marks::open() else { return };
    // High, out of the program's way, also where it has lowered its limit. Whoever closes it takes the marks off, which
    // costs copies only.
    let high = soft_limit(libc::RLIMIT_NOFILE as usize).saturating_sub(32).min(1000);
    let fd = match raw::fcntl(fd, libc::F_DUPFD_CLOEXEC as usize, high as usize) {
        Ok(high) => {
            let _own = raw::close(fd);
            high
        }
        Err(_) => fd,
    };
    let Ok(pagemap) = raw::open(b"/proc/self/pagemap\0", libc::O_RDONLY | libc::O_CLOEXEC) else { return };
    let start = Area::start(control);
    let own = &mut control.own_vmas;
    let mut table = Table { vmas: own, text: &mut control.text };
    if let Ok(count) = maps::read(b"/proc/self/maps\0", &mut table) {
        for vma in &control.own_vmas[..count] {
            if marks::watches(vma) && (vma.end <= start || vma.start >= start + SIZE) {
                let _copied_if_not = marks::arm(fd, pagemap, vma);
            }
        }
    }
    let _own = raw::close(pagemap);
    control.request.marks = fd as i32;
}

/// Captures layers 2 and 4 where the origin will read them.
fn capture(request: &mut Request, mask: u64) {
    request.threads.capture_into(mask);
    request.process.capture_into();
    request.program_break = raw::brk(0).unwrap_or(0);
}

/// Stops until the origin has replied, with all signals blocked; returns the [`arrival`].
fn freeze(control: &mut Control, kind: u32) -> u64 {
    control.reply.arrival = 0;
    let mask = set_mask(u64::MAX);
    let limited = control.plan.memory_limit != 0;
    let address_limit = if limited {
        // The limit is the transaction's, not the program's: the origin must not inherit it.
        let current = set_soft_limit(libc::RLIMIT_AS as usize, u64::MAX);
        set_limit(libc::RLIMIT_AS as usize, &control.plan.address_limit);
        current
    } else {
        [0; 2]
    };
    let stopped_ms = super::wait::now_ms();
    capture(&mut control.request, mask);
    let dumpable = control.request.process.dumpable;
    if dumpable != READABLE {
        // The origin has to read this process, for as long as it is stopped here.
        set_dumpable(READABLE);
    }
    // The origin trusts the request once the process is stopped, so it is written last.
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    control.request.kind = kind;
    crash::point("branch.frozen");
    let value = loop {
        stop();
        // SAFETY: the origin writes it from outside while this process is stopped.
        let value = unsafe { core::ptr::read_volatile(&raw const control.reply.arrival) };
        // Somebody else may continue the process: stop again.
        if value != 0 {
            break value;
        }
    };
    control.request.kind = ask::NOTHING;
    let elapsed_us = super::wait::now_ms().saturating_sub(stopped_ms) as i64 * 1000;
    for (which, timer) in control.request.threads.timers.iter().enumerate() {
        if timer.0 != [0; 4] {
            set_timer(which, &super::wait::later(timer, elapsed_us));
        }
    }
    if dumpable != READABLE {
        set_dumpable(dumpable);
    }
    if limited {
        set_limit(libc::RLIMIT_AS as usize, &address_limit);
    }
    set_mask(mask);
    value
}

/// The branch on its private stack, asking for its commit; comes back only when that is refused.
pub(super) unsafe extern "C" fn freeze_for_commit(argument: *mut u8) -> ! {
    // SAFETY: the branch passes its own area.
    let control = unsafe { &mut *argument.cast::<Control>() };
    control.request.context = control.commit;
    let value = freeze(control, ask::COMMIT);
    // SAFETY: the caller's stack is untouched since `commit` saved its context.
    unsafe { arch::resume(&raw const control.commit, value) }
}

/// Asks the origin to compare both memories.
pub(super) fn measure(control: &mut Control) -> Counts {
    freeze(control, ask::MEASURE);
    control.reply.counts
}

/// Fetches the monitor's findings; returns their length, which may be more than there is room for.
pub(super) fn look(control: &mut Control, room: &mut [u8]) -> usize {
    control.request.payload = room.as_mut_ptr() as usize;
    control.request.payload_len = room.len();
    control.reply.found = 0;
    freeze(control, ask::LOOK);
    control.reply.found
}

/// Ends the branch by a signal that nothing else ends it by: the short way when there is nothing to hand over.
fn end_by_signal() {
    let signal = super::ROLLBACK_SIGNAL as usize;
    set_action(signal, &Action::default());
    set_mask(!(1 << (signal - 1)));
    signal_self(signal);
}

/// Asks for the rollback and is ended.
pub(super) fn roll_back(control: &mut Control, payload: &[u8]) -> ! {
    crash::point("branch.rollback");
    if payload.is_empty() {
        end_by_signal();
    }
    control.request.payload = payload.as_ptr() as usize;
    control.request.payload_len = payload.len();
    loop {
        freeze(control, ask::ROLLBACK);
    }
}
