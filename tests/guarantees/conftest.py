"""The command under test with a store of its own, and the search for what a test left behind."""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

#: The executable that the wheel put beside the interpreter.
EXECUTABLE = Path(sys.executable).parent / "tentative"


class Command:
    """`tentative` in a cleared environment with a store and a work directory of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.store, self.work = directory / "store", directory / "work"
        self.work.mkdir()
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(directory),
            "TENTATIVE_HOME": str(self.store),
            "LANG": "C.UTF-8",
        }

    def start(self, *arguments, **options):
        """Starts it; the caller waits."""
        return subprocess.Popen(
            [EXECUTABLE, *map(str, arguments)],
            cwd=options.pop("cwd", self.work),
            env=self.environment | options.pop("environment", {}),
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            text=True,
            **options,
        )

    def __call__(self, *arguments, timeout=60, **options):
        """Runs it to its end; returns status, output and errors."""
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{arguments} did not end in {timeout} s\n{out}\n{err}") from None
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def processes(self):
        """The processes that were started with this store: ours, and what ran inside."""
        marker, found = f"TENTATIVE_HOME={self.store}".encode(), []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and marker in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ")))
            except (OSError, ValueError):
                continue
        return found

    def leaks(self, patience=5.0):
        """Processes and mounts that are left, after some seconds for what is on its way out."""
        deadline = time.monotonic() + patience
        while True:
            mounts = [
                line
                for line in Path("/proc/self/mountinfo").read_text().splitlines()
                if str(self.directory) in line
            ]
            left = self.processes() + mounts
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)


@pytest.fixture
def tentative():
    """The command; whatever a test does with it, nothing may be left at its end."""
    directory = Path(tempfile.mkdtemp(prefix="tentative-guarantees-", dir="/var/tmp"))
    command = Command(directory)
    yield command
    left = command.leaks()
    shutil.rmtree(directory, ignore_errors=True)
    assert not left, f"left behind: {left}"
