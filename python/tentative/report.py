"""What a transaction did, in the words of the record: changes, effects, verdict, containment.

Plain values, read from the JSON of the library's record, whose names they keep. Nothing here looks at live state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any


@dataclass(frozen=True)
class Change:
    """One thing that a commit applies: in which layer, on what, from what to what."""

    layer: str
    #: A path (files) or a name (``cwd``, ``environ.PATH``, ``json.dumps``).
    name: str
    #: ``created``, ``modified``, ``deleted``, ``renamed`` or ``metadata``.
    kind: str
    before: str | None = None
    after: str | None = None
    #: The bytes of the path in hexadecimal, where ``name`` is not they: names of files may have any bytes.
    path_hex: str | None = None
    #: The same of the old path, which is ``before`` of something renamed.
    before_hex: str | None = None

    @property
    def path(self) -> str | None:
        """The exact path, as ``os.fsdecode`` has it, for changes of the files layer."""
        if self.layer != "files":
            return None
        return self.name if self.path_hex is None else os.fsdecode(bytes.fromhex(self.path_hex))

    def __str__(self) -> str:
        """The change as a sentence, without its full stop."""
        if self.kind == "renamed":
            # What was there before is the old path.
            return f"{self.name} was renamed from {self.before}"
        words = {
            "created": f"{self.name} is new",
            "modified": f"{self.name} changed",
            "deleted": f"{self.name} was deleted",
            "metadata": f"{self.name} changed in mode, owner, times or attributes",
        }[self.kind]
        if self.before != self.after and None not in (self.before, self.after):
            return f"{words}: from {self.before} to {self.after}"
        value = self.before if self.after is None else self.after
        if value is None:
            return words
        return f"{words}: it was {value}" if self.kind == "deleted" else f"{words}: {value}"


@dataclass(frozen=True)
class Frame:
    """One frame of the Python stack that made a crossing."""

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Effect:
    """One recorded crossing of the sandbox; ``count`` equal ones are folded into one."""

    id: int
    layer: str
    #: ``contained``, ``observed``, ``held``, ``shown``, ``compensated``, ``escaped`` or ``blocked``.
    effect_class: str
    operation: str
    target: str
    pid: int
    tid: int
    program: str
    time_ns: int
    decision: str
    errno: int | None = None
    count: int = 1
    where: tuple[Frame, ...] | None = None
    hint: str | None = None

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return (
            f"{self.layer}: {self.operation} {self.target} by {self.program} was {self.effect_class}{times}"
        )


@dataclass(frozen=True)
class Judgement:
    """One half of a verdict; true when safe."""

    safe: bool
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.safe


@dataclass(frozen=True)
class Verdict:
    """Whether rolling back restores everything, and whether a commit is exact."""

    rollback: Judgement = field(default_factory=lambda: Judgement(True))
    commit: Judgement = field(default_factory=lambda: Judgement(True))


@dataclass(frozen=True)
class Gap:
    """Something that was not contained, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Containment:
    """How far the transaction was contained: ``full``, or ``partial`` with its gaps."""

    extent: str = "full"
    gaps: tuple[Gap, ...] = ()

    def __str__(self) -> str:
        return self.extent


def read_changes(document: Iterable[Mapping[str, Any]]) -> tuple[Change, ...]:
    """Reads the record's changes."""
    return tuple(
        Change(
            each["layer"],
            each.get("path") or each["name"],
            each["kind"],
            each.get("before"),
            each.get("after"),
            each.get("path_hex"),
            each.get("before_hex"),
        )
        for each in document
    )


def read_effects(document: Iterable[Mapping[str, Any]]) -> tuple[Effect, ...]:
    """Reads the record's effects; ``class``, a word of Python's own, becomes ``effect_class``."""
    effects = []
    for each in document:
        fields = dict(each)
        where = fields.pop("where", None)
        frames = None if where is None else tuple(Frame(**frame) for frame in where)
        effects.append(Effect(effect_class=fields.pop("class"), where=frames, **fields))
    return tuple(effects)


@lru_cache(maxsize=8)
def verdict_from(text: str) -> Verdict:
    """Reads the record's verdict from its JSON; most transactions have the same."""
    return read_verdict(json.loads(text))


@lru_cache(maxsize=8)
def containment_from(text: str) -> Containment:
    """Reads the record's containment from its JSON; most transactions have the same."""
    return read_containment(json.loads(text))


def effects_from(text: str) -> tuple[Effect, ...]:
    """Reads the record's effects from their JSON; most transactions have none."""
    return () if text == "[]" else read_effects(json.loads(text))


def read_verdict(document: Mapping[str, Any]) -> Verdict:
    """Reads the record's verdict."""
    halves = (
        Judgement(document[half]["safe"], tuple(document[half]["reasons"])) for half in ("rollback", "commit")
    )
    return Verdict(*halves)


def read_containment(document: Mapping[str, Any]) -> Containment:
    """Reads the record's containment."""
    return Containment(document["extent"], tuple(Gap(**gap) for gap in document.get("gaps", ())))


def join_arrays(one: str, other: str) -> str:
    """Two JSON arrays as one."""
    if one == "[]" or other == "[]":
        return other if one == "[]" else one
    return f"{one[:-1]},{other[1:]}"
