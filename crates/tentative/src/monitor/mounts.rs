//! Changes of mounts: possible only in a mount namespace that was made inside, which they cannot leave.

use rustix::io::Errno;

use super::{Call, Outcome, caller::mount_namespace};
use crate::effect::{Class, Decision};

/// Lets the kernel decide in a mount namespace made inside, and refuses in the sandbox's own.
pub(super) fn change_mounts(call: &mut Call<'_>) -> Outcome {
    let theirs = mount_namespace(call.caller.tid());
    let sandbox = mount_namespace(call.scope.init.as_raw_nonzero().get());
    if theirs.is_some() && theirs != sandbox {
        call.noticed.roots_moved = true;
        note_kernels_own(call);
        return Outcome::CONTINUE;
    }
    let target = match call.pathway.name {
        "mount" | "move_mount" => {
            call.read_string(call.word(if call.pathway.name == "mount" { 1 } else { 3 }))
        }
        "umount2" | "pivot_root" => call.read_string(call.word(0)),
        _ => None,
    };
    let target = target.map_or_else(
        || "the sandbox's mounts".to_owned(),
        |path| String::from_utf8_lossy(&path).into_owned(),
    );
    call.blocked(target, Errno::PERM, None);
    Outcome::error(Errno::PERM)
}

/// File systems that show the host's own state; in a mount namespace made inside the kernel allows them read-only or not
/// at all, so this is for the record only. A sandbox made inside mounts its own by the newer calls.
const KERNELS_OWN: [&[u8]; 4] = [b"proc", b"sysfs", b"cgroup", b"cgroup2"];

fn note_kernels_own(call: &mut Call<'_>) {
    if call.pathway.name != "mount" {
        return;
    }
    let kind = call.read_string(call.word(2));
    if let Some(kind) = kind.filter(|kind| KERNELS_OWN.contains(&kind.as_slice())) {
        let target = format!("{} in a mount namespace of its own", String::from_utf8_lossy(&kind));
        call.record(Class::Contained, Decision::Allowed, target, None, None);
    }
}

/// chroot(2): from now on an absolute path may begin elsewhere than at the sandbox's root.
pub(super) fn change_root(call: &mut Call<'_>) -> Outcome {
    call.noticed.roots_moved = true;
    Outcome::CONTINUE
}
