//! Why this machine refuses something, and the exact command that changes it.
//!
//! Reads what the kernel and the distribution say about their own restrictions; only called after something failed.

use std::{fs, path::Path};

use rustix::io::Errno;

/// What to do when user namespaces, or what is done inside them, are refused.
pub(super) fn user_namespaces(errno: Errno) -> Option<String> {
    if errno == Errno::NOSPC || number("/proc/sys/user/max_user_namespaces") == Some(0) {
        return Some("as root: sysctl -w user.max_user_namespaces=15000".to_owned());
    }
    if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return Some("as root: sysctl -w kernel.unprivileged_userns_clone=1".to_owned());
    }
    if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return Some(
            "AppArmor restricts user namespaces; as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
                .to_owned(),
        );
    }
    container()
}

/// What to do inside a container whose runtime refuses system calls.
pub(super) fn container() -> Option<String> {
    if !is_filtered() && !is_container() {
        return None;
    }
    Some(
        "this container's runtime refuses it; start the container with --security-opt seccomp=unconfined \
         --security-opt apparmor=unconfined --security-opt systempaths=unconfined (docker, podman), or use a runtime \
         class that allows user namespaces"
            .to_owned(),
    )
}

/// Whether a seccomp filter is on this process already.
pub(super) fn is_filtered() -> bool {
    fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2')))
}

fn is_container() -> bool {
    Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists()
}

/// A number in a file of /proc/sys; none where the file is not there.
pub(super) fn number(path: &str) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
