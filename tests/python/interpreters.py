"""Finds one CPython of each supported minor version on this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.10", "3.11", "3.12", "3.13")


def _candidates(version):
    yield sys.executable
    found = shutil.which(f"python{version}")
    if found:
        yield found
    # An ordinary user cannot see root's versions directory; PYENV_ROOT may name a readable one.
    for root in (os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv", Path(sys.base_prefix).parent.parent):
        if root:
            try:
                yield from sorted(str(p) for p in Path(root).glob(f"versions/{version}.*/bin/python"))
            except OSError:
                continue


def find(version):
    """The path of an interpreter that really is of that version, or None."""
    for candidate in _candidates(version):
        try:
            command = [candidate, "-c", "import sys, sqlite3; print('%d.%d' % sys.version_info[:2])"]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=30
            )
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None
