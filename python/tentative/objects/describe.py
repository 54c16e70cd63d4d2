"""A short repr that runs no code of the object's own class and never fails.

Objects are described in the origin too, outside of any containment, and may be of any size. Invariant: no ``__repr__``
written in Python is called, and the text has at most ``LONGEST`` characters.
"""

from __future__ import annotations

import reprlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

LONGEST = 160

#: Classes whose repr asks nobody but the object itself, by their full names: nothing is imported to know them.
_PLAIN = frozenset(
    ("NoneType", "bool", "float", "complex", "range", "ellipsis", "NotImplementedType", "re.Pattern")
    + ("decimal.Decimal", "datetime.date", "datetime.timedelta", "datetime.timezone")
)
#: Those whose repr asks a time zone, which can be of any class.
_WITH_ZONE = frozenset(("datetime.datetime", "datetime.time"))
_CONTAINERS = (list, tuple, dict, set, frozenset, str, deque, array)

#: Bytes up to which an array is asked for its repr.
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
        if kind in _CONTAINERS:
            return super().repr1(x, level)
        if issubclass(kind, BaseException) and _is_of_c(kind):
            return name_of(kind) + self.repr1(BaseException.args.__get__(x), level)  # type: ignore[attr-defined]
        return _atom(x, kind)

    # The library's own would sort: that is comparing, which is the items' code.

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        pairs = (f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}" for key, value in x.items())
        return self._in_braces(pairs, len(x), level)

    def repr_set(self, x: set[Any], level: int) -> str:
        return self._in_braces(self._each(x, level), len(x), level) if x else "set()"

    def repr_frozenset(self, x: frozenset[Any], level: int) -> str:
        return f"frozenset({self._in_braces(self._each(x, level), len(x), level)})" if x else "frozenset()"

    def _each(self, items: Iterable[Any], level: int) -> Iterable[str]:
        first = list(islice(items, 1000))
        plain = all(type(item) is str for item in first) or all(type(item) is int for item in first)
        return (self.repr1(item, level - 1) for item in (sorted(first) if plain else first))

    def _in_braces(self, texts: Iterable[str], count: int, level: int) -> str:
        shown = list(islice(texts, self.maxdict)) if level > 0 else []
        return "{" + ", ".join([*shown, *(["..."] if count > len(shown) else [])]) + "}"


def _atom(value: Any, kind: type) -> str:
    if kind is int:
        return repr(value) if abs(value) < 1 << 200 else f"<int of {value.bit_length()} bits>"
    if kind is FunctionType or kind is BuiltinFunctionType:
        return f"<function {_word(value.__module__)}.{value.__qualname__}>"
    if kind is MethodType:
        function = value.__func__
        return (
            f"<bound method {function.__qualname__}>" if type(function) is FunctionType else "<bound method>"
        )
    if kind is ModuleType:
        return f"<module {object.__getattribute__(value, '__dict__').get('__name__')!r}>"
    if issubclass(kind, type):
        return f"<class {name_of(value)}>"
    if kind in (bytes, bytearray):
        return repr(value) if len(value) <= 40 else f"{value[:20]!r}... ({len(value)} bytes)"
    name = name_of(kind)
    if name in _PLAIN and _is_of_c(kind):
        return repr(value)
    if name in _WITH_ZONE and (value.tzinfo is None or name_of(type(value.tzinfo)) in _PLAIN):
        return repr(value)
    if name == "numpy.ndarray" and value.dtype.kind in "biufcSUmM" and value.nbytes < _LARGEST:
        return repr(value)
    return f"<{name} object>"


def _is_of_c(kind: type) -> bool:
    """Whether a class's repr is not written in Python."""
    spaces = [_SPACE_OF(base) for base in _BASES_OF(kind)]
    method = next(space["__repr__"] for space in spaces if "__repr__" in space)
    return not isinstance(method, FunctionType)


# Asked of `type` itself: a class of the program's can have its own way of looking up what it has.
_SPACE_OF: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__
_BASES_OF: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_MODULE_OF: Callable[[type], Any] = type.__dict__["__module__"].__get__
_QUALIFIED_NAME_OF: Callable[[type], str] = type.__dict__["__qualname__"].__get__


def name_of(kind: type) -> str:
    """A class's full name, without asking it."""
    try:
        module = _MODULE_OF(kind)
    except AttributeError:
        # It has none where `type` was called from code without a name.
        module = "builtins"
    name = _QUALIFIED_NAME_OF(kind)
    return name if module == "builtins" else f"{_word(module)}.{name}"


def _word(name: Any) -> str:
    """A module's name, which can be any object."""
    return name if type(name) is str else "?"


def describe(value: Any) -> str:
    """Describes an object in at most ``LONGEST`` characters."""
    try:
        text = " ".join(_Short().repr(value).split())
    except Exception as error:
        return f"<{name_of(type(value))} object, no repr: {type(error).__name__}>"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
