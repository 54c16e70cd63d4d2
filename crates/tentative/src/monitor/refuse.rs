//! What the table refuses outright, recorded with what it was aimed at.

use rustix::io::Errno;

use super::{Call, Outcome};

/// Refuses a call with the table's error.
pub(super) fn refuse(call: &mut Call<'_>, errno: Errno) -> Outcome {
    let target = target(call);
    call.blocked(target, errno, None);
    Outcome::error(errno)
}

/// Refuses a device node. The mode is an argument in a register, which cannot change any more.
pub(super) fn device_node(call: &mut Call<'_>) -> Outcome {
    let (path, mode, device) = if call.pathway.name == "mknod" { (0, 1, 2) } else { (1, 2, 3) };
    let path = call.read_string(call.word(path)).unwrap_or_default();
    let kind = if call.int(mode) & 0o170_000 == 0o020_000 { "character" } else { "block" };
    let device = call.word(device);
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let target = format!("{} ({kind} device {major}:{minor})", String::from_utf8_lossy(&path));
    call.blocked(target, Errno::PERM, None);
    Outcome::error(Errno::PERM)
}

/// Refuses a namespace of control groups: whoever owns one can mount the host's. The sandbox's limit on their number
/// refuses those that clone(2) makes.
pub(super) fn control_groups(call: &mut Call<'_>) -> Outcome {
    call.blocked("a namespace of control groups", Errno::PERM, None);
    Outcome::error(Errno::PERM)
}

fn target(call: &Call<'_>) -> String {
    match call.pathway.name {
        "io_uring_setup" | "io_uring_enter" | "io_uring_register" => "io_uring",
        "io_setup" | "io_submit" => "asynchronous input and output",
        "open_by_handle_at" => "a file by its handle",
        "quotactl" | "quotactl_fd" => "disk quotas",
        "vhangup" => "the terminal",
        "add_key" | "request_key" | "keyctl" => "the key rings",
        "settimeofday" | "clock_settime" => "the host's clock",
        "init_module" | "finit_module" | "delete_module" | "create_module" => "kernel modules",
        "kexec_load" | "kexec_file_load" => "another kernel",
        "reboot" => "the machine",
        "swapon" | "swapoff" => "the host's swap space",
        "acct" => "the host's process accounting",
        "bpf" => "programs in the kernel",
        "perf_event_open" => "performance counters",
        "syslog" => "the kernel's log",
        "iopl" | "ioperm" => "the machine's ports",
        "sethostname" | "setdomainname" => "the host's name",
        "unknown" => return unknown(call),
        other => other,
    }
    .to_owned()
}

fn unknown(call: &Call<'_>) -> String {
    let architecture = call.notification.architecture;
    format!("system call {} of architecture {architecture:#x}", call.notification.number)
}
