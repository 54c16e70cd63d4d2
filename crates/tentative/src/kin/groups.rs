//! Parent, group and session: where the kernel would say 0, because they are outside, the origin's numbers are shown.

use rustix::io::Errno;

use crate::monitor::{Call, Outcome};

const GROUP: usize = 2;
const SESSION: usize = 3;

/// getppid(2).
pub(crate) fn getppid(call: &mut Call<'_>) -> Outcome {
    if is_main(call) { Outcome::value(call.scope.origin.parent.into()) } else { Outcome::CONTINUE }
}

/// getpgrp(2) and getpgid(2).
pub(crate) fn getpgid(call: &mut Call<'_>, of: i32) -> Outcome {
    let (Some(shown), true) = (call.scope.origin.group, of >= 0) else { return Outcome::CONTINUE };
    let of = if of == 0 { call.caller.identity().pid } else { of };
    match (field(call, of, GROUP), own_group(call)) {
        (Some(theirs), Some(ours)) if theirs == ours => Outcome::value(shown.into()),
        _ => Outcome::CONTINUE,
    }
}

/// getsid(2).
pub(crate) fn getsid(call: &mut Call<'_>) -> Outcome {
    let of = call.int(0);
    let of = if of == 0 { call.caller.identity().pid } else { of };
    match field(call, of, SESSION) {
        // The session's leader is outside.
        Some(0) => Outcome::value(call.scope.origin.session.into()),
        _ => Outcome::CONTINUE,
    }
}

/// setpgid(2): joining the origin's group means staying in the branch's. A branch leads a group already, so that making one
/// would do nothing here, and leave the origin where it is.
pub(crate) fn setpgid(call: &mut Call<'_>) -> Outcome {
    let (Some(shown), of, wanted) = (call.scope.origin.group, call.int(0), call.int(1)) else {
        return Outcome::CONTINUE;
    };
    let own = call.caller.identity().pid;
    if is_main(call) && [0, own].contains(&of) && [0, own].contains(&wanted) && shown != own {
        let hint = "the group of a live process cannot be changed in a transaction: do it before";
        call.blocked(format!("process {own}"), Errno::PERM, Some(hint.to_owned()));
        return Outcome::error(Errno::PERM);
    }
    if shown == 0 || wanted != shown || call.scope.has_process(shown) {
        return Outcome::CONTINUE;
    }
    let of = if of == 0 { call.caller.identity().pid } else { of };
    if field(call, of, GROUP) == own_group(call) {
        return Outcome::value(0);
    }
    call.blocked(format!("process group {shown}"), Errno::PERM, None);
    Outcome::error(Errno::PERM)
}

/// Whether the caller is the program's or branch's first process.
pub(super) fn is_main(call: &Call<'_>) -> bool {
    call.scope.main != 0 && call.caller.identity().process == call.scope.main
}

/// The branch's own group, as the sandbox numbers it.
pub(super) fn own_group(call: &Call<'_>) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", call.scope.main)).ok()?;
    let groups = status.lines().find_map(|line| line.strip_prefix("NSpgid:"))?;
    groups.split_whitespace().next_back()?.parse().ok()
}

fn field(call: &Call<'_>, pid: i32, field: usize) -> Option<i64> {
    call.scope.stat(pid)?.get(field).copied()
}
