"""The state before: which object each name is bound to, the entries of ``sys.path`` and ``os.environ``.

It costs some nanoseconds a name, for addresses are noted without touching the objects. Strong references would cost
a copied page each (measured: 1.5 ms before and 4 ms in the branch, at 11,000 names); they are taken for the program's
own modules and the given globals only, where small values are rebound again and again and an address says little.
Even walking through ``sys.modules`` in Python would write to a page for most of the modules (measured: 400 faults).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from .. import _tentative

#: Where modules of others lie.
_LIBRARIES = ("site-packages", "dist-packages")

#: Modules already judged, by name: whether they are the program's own.
_own: dict[str, bool] = {}


def _is_own(name: str, module: Any) -> bool:
    """Judges a module once; what was said is asked no more."""
    top = name.partition(".")[0]
    file = getattr(module, "__dict__", {}).get("__file__") or ""
    foreign = top in sys.stdlib_module_names and name != "__main__"
    known = not (foreign or top in ("tentative", "cloudpickle") or any(part in file for part in _LIBRARIES))
    _own[name] = known
    return known


class Before:
    """The bindings as they were when it was made."""

    def __init__(self, spaces: Iterable[dict[str, Any]] = ()) -> None:
        self.spaces = tuple(spaces)
        self.names = _tentative.Names(sys.modules, self.spaces, _own, _is_own, sys.path, environ())

    def unchanged(self) -> bool:
        """Whether nothing at all is bound differently now."""
        return self.names.unchanged(sys.modules, sys.path, environ())


def environ() -> dict[bytes, bytes]:
    """The environment as Python holds it, undecoded."""
    return os.environ._data  # type: ignore[attr-defined, no-any-return]
