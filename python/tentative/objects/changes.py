"""Compares the bindings now with those before, in the branch, and puts the old values in, in the origin.

Invariant: what is found in the branch (:class:`Found`) is plain text and numbers, so that it crosses a rollback.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import CodeType, FunctionType, ModuleType
from typing import Any, overload

from ..report import Change
from .capture import Before, environ, modules, path
from .describe import describe, name_of

#: Names that the import system and the interpreter rebind by themselves.
_NOISE = frozenset(("__builtins__", "__warningregistry__", "_"))


@dataclass(frozen=True)
class Found:
    """A change as the branch sees it; ``index`` says where the origin finds the old binding."""

    space: str
    kind: str
    name: str | None = None
    before: str | None = None
    after: str | None = None
    index: int | None = None

    def as_change(self) -> Change:
        """The change by its full name."""
        name = self.name if self.name is not None else "(a name that is gone)"
        return Change("objects", f"{self.space}.{name}", self.kind, self.before, self.after)


class ObjectChanges(Sequence[Change]):
    """Changes of layer 3, also by kind: ``imported``, ``bound``, ``rebound``, ``deleted``, ``path``, ``environ``.

    Code that crashed, exited or ran out of time could not tell them: ``known`` is False then, and there are none.
    """

    def __init__(self, found: Sequence[Found] = (), known: bool = True) -> None:
        #: Whether the code came to the point where it tells what it changed, here and in ``changes.process``.
        self.known = known
        self._found = tuple(found)
        self._changes = tuple(each.as_change() for each in found)

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Change]: ...
    def __getitem__(self, index: int | slice) -> Change | Sequence[Change]:
        return self._changes[index]

    def __len__(self) -> int:
        return len(self._changes)

    def __repr__(self) -> str:
        return f"ObjectChanges({list(self._changes)!r})" if self.known else "ObjectChanges(known=False)"

    def _select(self, kind: str) -> list[Change]:
        special = ("sys.modules", "sys.path", "os.environ")
        pairs = zip(self._found, self._changes, strict=True)
        return [change for found, change in pairs if found.kind == kind and found.space not in special]

    @property
    def imported(self) -> list[str]:
        """Names of the modules that were imported."""
        return [
            each.name
            for each in self._found
            if each.space == "sys.modules" and each.kind == "created" and each.name
        ]

    @property
    def bound(self) -> list[Change]:
        """Names that were not there before."""
        return self._select("created")

    @property
    def rebound(self) -> list[Change]:
        """Names that are bound to another object now."""
        return self._select("modified")

    @property
    def deleted(self) -> list[Change]:
        """Names that are gone."""
        return self._select("deleted")

    @property
    def path(self) -> list[Change]:
        """Entries of ``sys.path`` that came or went."""
        return [each.as_change() for each in self._found if each.space == "sys.path"]

    @property
    def environ(self) -> list[Change]:
        """Entries of ``os.environ`` that came, went or changed."""
        return [each.as_change() for each in self._found if each.space == "os.environ"]


def find(before: Before) -> list[Found]:
    """Finds what is bound differently now; to be called in the branch."""
    if before.unchanged():
        return []
    rows = before.names.compare(modules(), before.spaces)
    found = [_found(*row) for row in rows if not _is_noise(*row)]
    found += _entries("sys.path", before.names.path, path())
    found += _environment(before.names.environ, environ())
    return found


def _is_noise(space: str, kind: str, index: int, name: Any, value: Any) -> bool:
    """What comes along with something else: a package's attribute for an imported module, the statement's ``as``."""
    if (type(name) is str and name in _NOISE) or name_of(type(value)) == "tentative.Transaction":
        return True
    is_module = kind == "created" and issubclass(type(value), ModuleType)
    return is_module and modules().get(f"{space}.{name}") is value


def _found(space: str, kind: str, index: int, name: Any, value: Any) -> Found:
    after = describe(value) if kind != "deleted" and space != "sys.modules" else None
    # What crosses a rollback is text: a key can be anything.
    text = name if name is None or type(name) is str else describe(name)
    return Found(space, kind, text, None, after, index if index >= 0 else None)


def _entries(space: str, old: list[Any], new: list[Any]) -> Iterator[Found]:
    if old == new:
        return
    for entry in old:
        if entry not in new:
            yield Found(space, "deleted", describe(entry))
    for entry in new:
        if entry not in old:
            yield Found(space, "created", describe(entry))
    if sorted(map(str, old)) == sorted(map(str, new)):
        yield Found("sys", "modified", "path", describe(old), describe(new))


def _environment(old: dict[bytes, bytes], new: dict[bytes, bytes]) -> Iterator[Found]:
    if old == new:
        return
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        kind = "created" if before is None else "deleted" if after is None else "modified"
        old_text, new_text = (
            None if each is None else describe(os.fsdecode(each)) for each in (before, after)
        )
        yield Found("os.environ", kind, os.fsdecode(name), old_text, new_text)


def resolve(before: Before, found: Sequence[Found]) -> list[Found]:
    """Puts names and values from before into what was found.

    In the origin after a rollback the old bindings are those of now, so every one is known. In the branch, and after a
    commit, only objects that are known to be alive are.
    """
    alive: dict[int, Any] = {}
    resolved = []
    for each in found:
        if each.index is not None:
            old = before.names.old(each.index, modules(), before.spaces)
            if old is not None:
                name = old[0] if type(old[0]) is str else describe(old[0])
                each = replace(each, name=name, before=describe(old[1]), index=None)
            else:
                alive = alive or _alive()
                each = _from_the_living(before, each, alive)
        resolved.append(each)
    return resolved


def _from_the_living(before: Before, each: Found, alive: dict[int, Any]) -> Found:
    assert each.index is not None
    name_at, value_at = before.names.addresses(each.index)
    name = each.name if each.name is not None else alive.get(name_at)
    value = alive.get(value_at)
    # An address can have been given to another object meanwhile: believe functions and classes that name their place.
    place = (each.space, name)
    known = isinstance(value, (FunctionType, type)) and (value.__module__, value.__qualname__) == place
    text = describe(value) if known else None
    return replace(each, name=name if isinstance(name, str) else None, before=text, index=None)


def _alive() -> dict[int, Any]:
    """Objects that are alive for certain: what the collector knows, and the names in their code."""
    found: dict[int, Any] = {}
    frame = sys._getframe()
    codes: list[CodeType] = []
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back  # type: ignore[assignment]
    for each in gc.get_objects():
        found[id(each)] = each
        if isinstance(each, FunctionType):
            codes.append(each.__code__)
    for code in codes:
        for name in code.co_names:
            found[id(name)] = name
        for constant in code.co_consts:
            if isinstance(constant, str):
                found[id(constant)] = constant
    return found
