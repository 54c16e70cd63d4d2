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

#: Only root can do these at all.
ROOT_ONLY = {"host_name", "kernel_setting", "control_group", "mount_file_system", "namespace_of_another"}
#: What these reach for does not exist inside or is the sandbox's: a path below its /proc, /sys or /dev/shm, its
#: loopback, its process numbers. There is no crossing that a record could hold.
NOTHING_TO_RECORD = {
    "control_group",
    "kernel_setting",
    "kill_by_proc_directory",
    "mount_file_system",
    "namespace_of_another",
    "set_oom_score",
    "signal_by_descriptor_owner",
    "tcp_listen",
    "shared_memory_posix",
    "write_descriptor_by_proc",
    "write_memory_by_proc",
    "write_through_directory_of_another",
    "write_through_root_of_another",
}
#: These change files of the snapshot, so they are in the record as changes.
CHANGES = {
    "change_mode",
    "change_times",
    "delete_file",
    "map_and_write_file",
    "rename_directory",
    "set_attribute",
    "write_file",
    "write_from_an_orphan",
    "write_through_own_root",
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
        return any(path.startswith((outside.targets["file"], outside.targets["directory"])) for path in paths)
    return any(effect["class"] in ("blocked", "contained") for effect in record["effects"])


def test_at_least_thirty_attempts_are_in_the_record():
    assert len(set(ATTEMPTS) - NOTHING_TO_RECORD) >= 30
