"""A short repr that runs no code of the object's own class and never fails.

Objects are described in the origin too, outside of any containment, and may be of any size. Invariant: no ``__repr__``
written in Python is called, and the text has at most ``LONGEST`` characters.
"""

from __future__ import annotations

import reprlib
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

LONGEST = 160

#: Bytes up to which an object of a class written in C is asked for its repr.
_LARGEST = 64 * 1024


class _Short(reprlib.Repr):
    """Looks into the plain containers only, a few levels deep and a few items wide."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 6
        self.maxstring = self.maxother = self.maxlong = 80

    def repr1(self, x: Any, level: int) -> str:
        kind = type(x)
        if kind in (list, tuple, dict, set, frozenset, str):
            return super().repr1(x, level)
        return _atom(x, kind)


def _atom(value: Any, kind: type) -> str:
    if kind is int:
        return repr(value) if abs(value) < 1 << 200 else f"<int of {value.bit_length()} bits>"
    if kind is FunctionType or kind is BuiltinFunctionType:
        return f"<function {value.__module__}.{value.__qualname__}>"
    if kind is ModuleType:
        return f"<module {object.__getattribute__(value, '__dict__').get('__name__')!r}>"
    if isinstance(value, type):
        return f"<class {_name(value)}>"
    if kind in (bytes, bytearray):
        return repr(value) if len(value) <= 40 else f"{value[:20]!r}... ({len(value)} bytes)"
    method: Any = next(base.__dict__["__repr__"] for base in kind.__mro__ if "__repr__" in base.__dict__)
    if (
        isinstance(method, FunctionType)
        or method is object.__repr__
        or sys.getsizeof(value, _LARGEST) >= _LARGEST
    ):
        return f"<{_name(kind)} object>"
    return repr(value)


def _name(kind: type) -> str:
    module = type.__getattribute__(kind, "__module__")
    name = type.__getattribute__(kind, "__qualname__")
    return str(name) if module == "builtins" else f"{module}.{name}"


def describe(value: Any) -> str:
    """Describes an object in at most ``LONGEST`` characters."""
    try:
        text = " ".join(_Short().repr(value).split())
    except Exception as error:
        return f"<{_name(type(value))} object, no repr: {type(error).__name__}>"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
