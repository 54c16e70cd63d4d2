"""Processes of the tests: programs that they run to their end, and this process's children."""

import os
import subprocess
from pathlib import Path


def ran(*command, cwd=None, timeout=120, **variables):
    """Runs a program to its end, apart from the terminal, with variables besides those of this process."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def children():
    """Process ids of this process's children, by the kernel's list."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
