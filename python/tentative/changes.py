"""``tx.changes``: what a transaction changed, layer by layer; worked out when it is asked for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from .report import Change, read_changes

if TYPE_CHECKING:
    from .objects import ObjectChanges

PAGE = 4096


class MemoryChanges(Mapping[str, int]):
    """Counts of what changed in memory, in pages; ``.pages`` and ``.bytes`` are their sum."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = dict(counts)

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return f"MemoryChanges({self._counts!r})"

    @property
    def pages(self) -> int:
        """Pages that differ, came or went."""
        return sum(self._counts.get(name, 0) for name in ("pages_changed", "pages_new", "pages_dropped"))

    @property
    def bytes(self) -> int:
        """The same in bytes."""
        return self.pages * PAGE

    @property
    def regions(self) -> dict[str, int]:
        """Changed pages by region: ``heap``, ``stack``, ``file`` (library data) and ``anonymous``."""
        return {name: self._counts.get(name, 0) for name in ("heap", "stack", "file", "anonymous")}


class Changes:
    """The changes of one transaction; iterating gives those that have a name, deletions first."""

    def __init__(
        self,
        record: Callable[[], str],
        memory: Callable[[], Mapping[str, int]],
        objects: Callable[[], ObjectChanges],
    ) -> None:
        self._record_source = record
        self._memory_source = memory
        self._objects_source = objects
        self._record: tuple[Change, ...] | None = None
        self._memory: MemoryChanges | None = None
        self._objects: ObjectChanges | None = None

    def _recorded(self) -> tuple[Change, ...]:
        if self._record is None:
            self._record = read_changes(json.loads(self._record_source()))
        return self._record

    @property
    def files(self) -> tuple[Change, ...]:
        """Paths that were created, modified, renamed, deleted."""
        return tuple(change for change in self._recorded() if change.layer == "files")

    @property
    def process(self) -> tuple[Change, ...]:
        """Working directory, umask, limits, descriptors and the like; nothing if ``objects.known`` is False."""
        return tuple(change for change in self._recorded() if change.layer in ("process", "threads"))

    @property
    def objects(self) -> ObjectChanges:
        """Modules imported and names bound, rebound and deleted."""
        if self._objects is None:
            self._objects = self._objects_source()
        return self._objects

    @property
    def memory(self) -> MemoryChanges:
        """Pages and bytes by region."""
        if self._memory is None:
            self._memory = MemoryChanges(self._memory_source())
        return self._memory

    def __iter__(self) -> Iterator[Change]:
        every = [*self._recorded(), *self.objects]
        return iter(sorted(every, key=lambda change: change.kind != "deleted"))

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def count_in_words(self) -> str:
        """How many there are, for a line that has more to say."""
        count = len(self._recorded()) + len(self.objects)
        told = f"{count or 'no'} change{'s' if count != 1 else ''}"
        if self.objects.known:
            return told
        return f"{told} and others not known" if count else "changes not known"

    def __repr__(self) -> str:
        counts = Counter(change.kind for change in self)
        told = [f"{count} {kind}" for kind, count in counts.items()]
        if not self.objects.known:
            told.append("more not known" if told else "not known")
        return f"Changes({', '.join(told) or 'none'})"

    def explain(self) -> str:
        """Says in sentences what changed."""
        sentences = [*map(_sentence, self.files), *map(_sentence, self.process)]
        imported = self.objects.imported
        if imported:
            shown = ", ".join(imported[:8]) + (f" and {len(imported) - 8} more" if len(imported) > 8 else "")
            sentences.append(
                f"{len(imported)} module{'s were' if len(imported) > 1 else ' was'} imported: {shown}."
            )
        unloaded = [
            each for each in self.objects if each.name.startswith("sys.modules.") and each.kind != "created"
        ]
        named = (*self.objects.deleted, *self.objects.rebound, *self.objects.bound)
        sentences += map(_sentence, (*unloaded, *named, *self.objects.path, *self.objects.environ))
        memory = self.memory
        if memory.pages:
            regions = ", ".join(f"{count} in {name}" for name, count in memory.regions.items() if count)
            place = f" ({regions})" if regions else ""
            sentences.append(f"{memory.pages} pages of memory, {memory.bytes:,} bytes, differ{place}.")
        if not self.objects.known:
            sentences.append(
                "What changed by name, and in the process's own state, is not known: the code could not be asked."
            )
        return "\n".join(sentences) or "Nothing changed."


def _sentence(change: Change) -> str:
    return f"{change}."
