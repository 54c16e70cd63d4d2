"""Finds the ``tentative`` executable of this installation, which serves as the monitor.

Never one from ``PATH``: monitor and package must be of one version.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache


@lru_cache(maxsize=1)
def find() -> str | None:
    """The path of the executable that was installed together with this package."""
    # PREFIX/lib/pythonX.Y/site-packages/tentative/executable.py; an editable installation lies elsewhere.
    prefix = os.path.realpath(__file__)
    for _ in range(5):
        prefix = os.path.dirname(prefix)
    for directory in (os.path.join(prefix, "bin"), os.path.join(sys.prefix, "bin")):
        path = os.path.join(directory, "tentative")
        if os.access(path, os.X_OK):
            return path
    return None
