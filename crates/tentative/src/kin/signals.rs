//! Signals: inside they are the kernel's business; to pids outside they are refused, recorded, or sent if allowed.

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, kill_process_group, test_kill_process, test_kill_process_group},
};
use tentative_sys::kin::group_of;

use crate::{
    effect::{Class, Decision},
    monitor::{Call, Outcome},
    policy::Action,
    world::hint,
};

/// kill(2): a process, the caller's group (0), everything (-1), or a group.
pub(crate) fn kill(call: &mut Call<'_>) -> Outcome {
    match call.int(0) {
        // Groups are made inside, and the pid namespace bounds "everything".
        0 | -1 => Outcome::CONTINUE,
        target if target > 0 => to_process(call, target, call.int(1)),
        target => to_group(call, target.saturating_neg()),
    }
}

/// tkill(2), tgkill(2) and their queueing siblings: one thread or process; the signal is the argument after the ids.
pub(crate) fn signal_one(call: &mut Call<'_>, last_id: usize) -> Outcome {
    to_process(call, call.int(last_id), call.int(last_id + 1))
}

/// pidfd_open(2): through it a process could be signalled and looked into.
pub(crate) fn pidfd_open(call: &mut Call<'_>) -> Outcome {
    let target = call.int(0);
    if call.scope.has_process(target) || !exists_outside(target) {
        return Outcome::CONTINUE;
    }
    call.blocked(format!("pid {target}{}", name_of(target)), Errno::PERM, None);
    Outcome::error(Errno::PERM)
}

/// A call that names a process to look into or to set something of: one outside is not there, as the kernel says too.
pub(crate) fn reach_process(call: &mut Call<'_>, argument: usize) -> Outcome {
    let target = call.int(argument);
    let by_user = call.pathway.name == "setpriority" && call.int(0) == 2;
    if target <= 0 || by_user || call.scope.has_process(target) || !exists_outside(target) {
        return Outcome::CONTINUE;
    }
    let described = format!("pid {target}{}", name_of(target));
    call.blocked(described, Errno::SRCH, None);
    Outcome::error(Errno::SRCH)
}

/// fcntl(2) that names who is signalled when something arrives; the kernel says itself that a process outside is not there.
pub(crate) fn set_owner(call: &mut Call<'_>) -> Outcome {
    const SET_OWNER: i32 = 8;
    const BY_GROUP: i32 = 2;
    let owner = if call.int(1) == SET_OWNER {
        call.int(2)
    } else {
        // `struct f_owner_ex`: what the number is of, and the number.
        let Some(bytes) = call.read(call.word(2), 8) else { return Outcome::CONTINUE };
        let word =
            |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(i32::from_ne_bytes);
        let (Some(kind), Some(number)) = (word(0), word(4)) else { return Outcome::CONTINUE };
        if kind == BY_GROUP { number.saturating_neg() } else { number }
    };
    let number = owner.saturating_abs();
    let outside = match owner < 0 {
        true => {
            !has_group(call, number)
                && Pid::from_raw(number)
                    .is_some_and(|group| test_kill_process_group(group) != Err(Errno::SRCH))
        }
        false => !call.scope.has_process(number) && exists_outside(number),
    };
    if outside {
        let what = if owner < 0 { "process group" } else { "pid" };
        let name = if owner < 0 { String::new() } else { name_of(number) };
        call.blocked(format!("{what} {number}{name}, owner of a descriptor"), Errno::SRCH, None);
    }
    Outcome::CONTINUE
}

/// A call that only reads how a process runs: one outside is there and not the caller's to look at.
///
/// getppid(2) shows the origin's parent, so programs ask about it and take "no such process" for a broken system.
pub(crate) fn look_at_process(call: &mut Call<'_>, argument: usize) -> Outcome {
    let target = call.int(argument);
    let by_group_or_user = match call.pathway.name {
        "getpriority" => call.int(0) != 0,
        "ioprio_get" => call.int(0) != 1,
        _ => false,
    };
    if by_group_or_user || call.scope.has_process(target) || !exists_outside(target) {
        return Outcome::CONTINUE;
    }
    let described = format!("pid {target}{}", name_of(target));
    call.record(Class::Observed, Decision::Denied, described, Some(Errno::PERM), None);
    Outcome::error(Errno::PERM)
}

fn to_process(call: &mut Call<'_>, target: i32, signal: i32) -> Outcome {
    if target <= 0 || call.scope.has_process(target) || !exists_outside(target) {
        return Outcome::CONTINUE;
    }
    let allowed = call.rules.signal(target);
    let hint = hint(allowed, || format!("--allow signal:{target}"));
    let name = name_of(target);
    if signal == 0 {
        // Only asks whether it is there; "not permitted" says that it is.
        let target = format!("pid {target}{name}");
        call.record(Class::Observed, Decision::Denied, target, Some(Errno::PERM), None);
        return Outcome::error(Errno::PERM);
    }
    let described = format!("pid {target}{name}, signal {signal}");
    if allowed != Some(Action::Allow) {
        call.blocked(described, Errno::PERM, hint);
        return Outcome::error(Errno::PERM);
    }
    let sent = match (Pid::from_raw(target), Signal::from_named_raw(signal)) {
        (Some(pid), Some(signal)) => kill_process(pid, signal),
        _ => Err(Errno::INVAL),
    };
    call.escaped(described, sent.err());
    sent.map_or_else(Outcome::error, |()| Outcome::value(0))
}

fn to_group(call: &mut Call<'_>, group: i32) -> Outcome {
    if call.scope.origin.group == Some(group) && !has_group(call, group) {
        return to_own_group(call);
    }
    let outside =
        Pid::from_raw(group).is_some_and(|group| test_kill_process_group(group) != Err(Errno::SRCH));
    if has_group(call, group) || !outside {
        return Outcome::CONTINUE;
    }
    call.blocked(format!("process group {group}, signal {}", call.int(1)), Errno::PERM, None);
    Outcome::error(Errno::PERM)
}

/// The origin's group stands for the branch's own, which has another number.
fn to_own_group(call: &Call<'_>) -> Outcome {
    let main = Pid::from_raw(call.scope.main);
    let group = main.and_then(|_| group_of(call.scope.main).ok()).and_then(Pid::from_raw);
    let Some(group) = group else { return Outcome::error(Errno::SRCH) };
    let sent = match Signal::from_named_raw(call.int(1)) {
        Some(signal) => kill_process_group(group, signal),
        None if call.int(1) == 0 => Ok(()),
        None => Err(Errno::INVAL),
    };
    sent.map_or_else(Outcome::error, |()| Outcome::value(0))
}

/// Whether the sandbox has a process of this group, as it numbers them.
fn has_group(call: &Call<'_>, group: i32) -> bool {
    const GROUP: usize = 2;
    let in_group = |pid: i32| {
        call.scope.stat(pid).and_then(|fields| fields.get(GROUP).copied()) == Some(i64::from(group))
    };
    in_group(group) || call.scope.processes().into_iter().any(in_group)
}

/// Whether the host has a process of this number.
pub(crate) fn exists_outside(target: i32) -> bool {
    Pid::from_raw(target).is_some_and(|pid| target > 0 && test_kill_process(pid) != Err(Errno::SRCH))
}

/// The name of a process outside, in brackets.
pub(crate) fn name_of(target: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{target}/comm")).unwrap_or_default();
    if name.is_empty() { name } else { format!(" ({})", name.trim()) }
}
