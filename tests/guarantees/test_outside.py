"""Attempts to reach outside: each is shown to succeed plainly, then nothing outside changes and it is in the record."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attempts import ATTEMPTS
from outside import HERE, Outside

#: The calls that open a file, whichever the C library takes.
OPEN = "open openat"
#: Only root can do these at all.
ROOT_ONLY = {
    "control_group",
    "control_group_by_own_mount",
    "host_name",
    "kernel_setting",
    "kernel_setting_by_own_proc",
    "make_device",
    "mount_file_system",
    "namespace_of_another",
    "open_device",
    "open_device_on_disk",
}
#: These only open what is not there inside, to read it; they come to nothing before they reach for anything.
NOTHING_TO_RECORD = {"kill_by_proc_directory", "namespace_of_another"}
#: These change files of the snapshot, so they are in the record as changes.
CHANGES = {
    "change_mode",
    "change_times",
    "delete_file",
    "map_and_write_file",
    "rename_directory",
    "set_attribute",
    "shared_memory_posix",
    "write_file",
    "write_from_an_orphan",
    "write_through_own_root",
}
#: What the record says of the others: the operation, and what its target names.
EXPECTED = {
    "tcp_connect": ("connect", "tcp 127.0.0.1:{tcp}"),
    "tcp_connect_ipv6": ("connect", "tcp [::1]:{tcp6}"),
    "tcp_connect_nonblocking": ("connect", "tcp 127.0.0.1:{tcp}"),
    "tcp_fast_open": ("sendto", "tcp 127.0.0.1:{tcp}"),
    "udp_send_to": ("sendto", "udp 127.0.0.1:{udp}"),
    "udp_connect_and_send": ("connect", "udp 127.0.0.1:{udp}"),
    "udp_send_message": ("sendmsg", "udp 127.0.0.1:{udp}"),
    "udp_send_many": ("sendmmsg", "udp 127.0.0.1:{udp}"),
    "unix_connect": ("connect", "unix {unix}"),
    "unix_send_to": ("sendto", "unix {unix_datagram}"),
    "unix_abstract_connect": ("connect", "unix @{abstract}"),
    "tcp_listen": ("bind", "tcp 127.0.0.1:{free_port}"),
    "kill": ("kill", "pid {pid}"),
    "kill_group": ("kill", "process group {pgid}"),
    "kill_thread": ("tgkill", "pid {pid}"),
    "kill_by_pidfd": ("pidfd_open", "pid {pid}"),
    "queue_signal": ("rt_sigqueueinfo", "pid {pid}"),
    "queue_signal_to_thread": ("rt_tgsigqueueinfo", "pid {pid}"),
    "signal_by_descriptor_owner": ("fcntl", "pid {pid}"),
    "trace": ("ptrace", "pid {pid}"),
    "write_memory": ("process_vm_writev", "pid {pid}"),
    "write_memory_by_proc": (OPEN, "/proc/{pid}/mem"),
    "take_descriptor": ("pidfd_open", "pid {pid}"),
    "write_descriptor_by_proc": (OPEN, "/proc/{pid}/fd/{pipe_end}"),
    "set_priority": ("setpriority", "pid {pid}"),
    "set_affinity": ("sched_setaffinity", "pid {pid}"),
    "set_io_priority": ("ioprio_set", "pid {pid}"),
    "set_limit": ("prlimit64", "pid {pid}"),
    "set_oom_score": (OPEN, "/proc/{pid}/oom_score_adj"),
    "shared_memory_system_v": ("shmget", "key"),
    "message_queue_system_v": ("msgget", "key"),
    "semaphore_system_v": ("semget", "key"),
    "message_queue_posix": ("mq_open", "message queue {mq_name}"),
    "keyring": ("add_key", "the key rings"),
    "write_file_by_io_uring": ("io_uring_setup", "io_uring"),
    "write_through_root_of_another": (OPEN, "/proc/{pid}/root{file}"),
    "write_through_directory_of_another": (OPEN, "/proc/{pid}/cwd/file"),
    "host_name": ("sethostname", "the host's name"),
    "kernel_setting": (OPEN, "/proc/sys/vm/swappiness"),
    "kernel_setting_by_own_proc": ("mount", "proc in a mount namespace of its own"),
    "control_group": ("mkdir mkdirat", "{control_group}"),
    "control_group_by_own_mount": ("unshare", "a namespace of control groups"),
    "mount_file_system": ("mount", "{directory}"),
    "open_terminal": (OPEN, "{terminal}"),
    "open_device": (OPEN, "{device}"),
    "open_device_on_disk": (OPEN, "{node} (character device 1:11)"),
    "make_device": ("mknod mknodat", "(character device 1:11)"),
}
#: How long something may take to arrive outside.
PATIENCE = 3.0


def command(name, outside):
    """The command line of one attempt."""
    return [sys.executable, str(HERE / "attempts.py"), name, json.dumps(outside.targets)]


def succeeds_plainly(name, outside):
    """Whether the attempt changes anything when it is run without a transaction."""
    before = outside.witness()
    with subprocess.Popen(command(name, outside), stderr=subprocess.DEVNULL) as attempt:
        deadline = time.monotonic() + PATIENCE
        changed = False
        while not changed and time.monotonic() < deadline:
            changed = outside.witness() != before
            time.sleep(0.02)
        attempt.wait(timeout=10)
    outside.restore_files()
    outside.restore_machine()
    return changed


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_changes_nothing_outside_and_is_recorded(name, tentative):
    if name in ROOT_ONLY and os.geteuid() != 0:
        pytest.skip("needs root")
    with Outside() as outside:
        if not succeeds_plainly(name, outside):
            pytest.skip("does not succeed outside on this machine")
    # Afresh, because a counter that a first attempt moved proves nothing about a second.
    with Outside() as outside:
        before = outside.witness()
        report = Path(tentative.work) / "record.json"
        process = tentative.start("run", "--rollback", "--json", report, "--", *command(name, outside))
        while process.poll() is None:
            outside.witness()
            time.sleep(0.02)
        _, errors = process.communicate()
        if name == "write_from_an_orphan":
            time.sleep(0.5)
        assert outside.witness() == before, f"{name} reached outside\n{errors}"
        record = json.loads(report.read_text())
        expected = in_record(name, outside, record)
        assert expected, f"{name} is not in the record\n{json.dumps(record, indent=1)}\n{errors}"


def in_record(name, outside, record):
    """Whether the record says what was tried."""
    if name in NOTHING_TO_RECORD:
        return True
    if name in CHANGES:
        paths = [change.get("path", "") for change in record["changes"]]
        reached = [outside.targets["file"], outside.targets["directory"], str(outside.shared)]
        return any(path.startswith(tuple(reached)) for path in paths)
    operations, target = EXPECTED[name]
    named = target.format(**outside.targets)
    return any(
        effect["class"] in ("blocked", "contained")
        and effect["operation"] in operations.split()
        and named in effect["target"]
        for effect in record["effects"]
    )


def test_at_least_thirty_attempts_are_in_the_record():
    assert set(ATTEMPTS) == CHANGES | set(EXPECTED) | NOTHING_TO_RECORD
    assert len(set(ATTEMPTS) - NOTHING_TO_RECORD) >= 50


#: Ways to a setting of the host that its path does not show at once.
DETOURS = """
exec 2>/dev/null
ln -s /proc/sys/vm link; echo 1 > link/swappiness
cd /proc/sys/vm; echo 1 > overcommit_memory
echo 1 > /proc/self/root/proc/sys/vm/dirty_ratio
echo 1 > /tmp/../proc//sys/vm/./vfs_cache_pressure
"$0" -c "import os; os.chroot('/proc'); os.open('/sys/vm/page-cluster', os.O_WRONLY)"
echo 1 > /proc/self/oom_score_adj; echo 1 > /dev/null; echo 1 > /dev/stdout; echo 1 > /dev/fd/1
"""


def test_detours_to_a_setting_are_in_the_record_and_what_is_ones_own_is_not(tentative):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    settings = "swappiness overcommit_memory dirty_ratio vfs_cache_pressure page-cluster".split()
    before = [Path("/proc/sys/vm", name).read_text() for name in settings]
    report = Path(tentative.work) / "record.json"
    tentative("run", "--rollback", "--json", report, "--", "/bin/sh", "-c", DETOURS, sys.executable)
    assert [Path("/proc/sys/vm", name).read_text() for name in settings] == before
    effects = json.loads(report.read_text())["effects"]
    blocked = {effect["target"] for effect in effects if effect["operation"].startswith("open")}
    assert blocked == {f"/proc/sys/vm/{name}" for name in settings}
