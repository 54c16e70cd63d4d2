"""The state before: which object each name is bound to, the entries of ``sys.path`` and ``os.environ``.

It costs some nanoseconds a name, for addresses are noted without touching the objects. Strong references would cost
a copied page each (measured: 1.5 ms before and 4 ms in the branch, at 11,000 names); they are taken for the program's
own modules and the given globals only, where small values are rebound again and again and an address says little.
Even walking through ``sys.modules`` in Python would write to a page for most of the modules (measured: 400 faults).
"""

from __future__ import annotations

import os
import sys
from collections import UserDict
from collections.abc import Iterable
from typing import Any

from .. import _tentative

#: The class of ``os.environ`` while the program has not put something else there.
_ENVIRONMENT = type(os.environ)

#: Where modules of others lie.
_LIBRARIES = ("site-packages", "dist-packages")


def _is_own(name: object, namespace: dict[str, Any]) -> bool:
    """Judges a module by its namespace; none of the module's own code runs: some load themselves then."""
    if type(name) is not str:
        return False
    file = namespace.get("__file__")
    top = name.partition(".")[0]
    foreign = top in sys.stdlib_module_names and name != "__main__"
    installed = type(file) is str and any(part in file for part in _LIBRARIES)
    return not (foreign or top in ("tentative", "cloudpickle") or installed)


class Before:
    """The bindings as they were when it was made."""

    def __init__(self, spaces: Iterable[dict[str, Any]] = ()) -> None:
        self.spaces = tuple(spaces)
        self.names = _tentative.Names(modules(), self.spaces, _is_own, path(), environ())

    def unchanged(self) -> bool:
        """Whether nothing at all is bound differently now."""
        return self.names.unchanged(modules(), path(), environ())


# What a program has put in the place of these is taken for what it has in it, as far as that can be read.


def modules() -> dict[str, Any]:
    """The interpreter's modules by name."""
    return _dictionary(getattr(sys, "modules", None))


def path() -> list[Any]:
    """The entries of ``sys.path``."""
    found = getattr(sys, "path", None)
    return found if type(found) is list else list(found) if type(found) is tuple else []


def environ() -> dict[bytes, bytes]:
    """The environment as Python holds it, undecoded."""
    found = getattr(os, "environ", None)
    if type(found) is _ENVIRONMENT:
        return found._data  # type: ignore[attr-defined, no-any-return]
    encoded = {}
    for name, value in _dictionary(found).items():
        if type(name) is str and type(value) is str:
            encoded[os.fsencode(name)] = os.fsencode(value)
    return encoded


def _dictionary(found: Any) -> dict[Any, Any]:
    if issubclass(type(found), dict):
        return found  # type: ignore[no-any-return]
    return found.data if type(found) is UserDict else {}
