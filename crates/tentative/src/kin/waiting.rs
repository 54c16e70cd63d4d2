//! Waiting for children: the origin's are not the branch's, and the kernel would say that there are none.
//!
//! ECHILD would make `Popen.poll()` believe that a child ended well; "it is still running" and EDEADLK do not.

use rustix::io::Errno;

use super::groups::is_main;
use crate::monitor::{Call, Outcome};

const NO_HANG: i32 = 1;
const PARENT: usize = 1;
/// Size of siginfo_t.
const SIGINFO: usize = 128;

/// wait4(2).
pub(crate) fn wait4(call: &mut Call<'_>) -> Outcome {
    if !is_the_origins(call, call.int(0)) {
        return Outcome::CONTINUE;
    }
    answer(call, call.int(0), call.int(2))
}

/// waitid(2).
pub(crate) fn waitid(call: &mut Call<'_>) -> Outcome {
    const ALL: i32 = 0;
    const PID: i32 = 1;
    let target = match call.int(0) {
        ALL => -1,
        PID => call.int(1),
        // Groups and pidfds are the sandbox's own.
        _ => return Outcome::CONTINUE,
    };
    if !is_the_origins(call, target) {
        return Outcome::CONTINUE;
    }
    if call.int(3) & NO_HANG != 0 && call.word(2) != 0 {
        // No child has changed: its number in the answer is 0.
        call.caller.write(call.word(2), &[0; SIGINFO]);
    }
    answer(call, target, call.int(3))
}

/// Whether the call waits for a child of the origin's and for none of the branch's own.
fn is_the_origins(call: &Call<'_>, target: i32) -> bool {
    if call.scope.origin.children.is_empty() || !is_main(call) {
        return false;
    }
    match target {
        -1 => !has_children(call),
        target => {
            target > 0 && call.scope.origin.children.contains(&target) && !call.scope.has_process(target)
        }
    }
}

fn has_children(call: &Call<'_>) -> bool {
    let parent = i64::from(call.caller.identity().pid);
    let parent_of = |pid: i32| call.scope.stat(pid).and_then(|fields| fields.get(PARENT).copied());
    call.scope.processes().into_iter().any(|pid| parent_of(pid) == Some(parent))
}

fn answer(call: &mut Call<'_>, target: i32, options: i32) -> Outcome {
    if options & NO_HANG != 0 {
        return Outcome::value(0);
    }
    let target = if target == -1 { "children of the origin".to_owned() } else { format!("pid {target}") };
    call.blocked(target, Errno::DEADLK, None);
    Outcome::error(Errno::DEADLK)
}
