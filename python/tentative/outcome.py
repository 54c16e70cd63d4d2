"""``Outcome``: how a transaction ended and what it did.

Whatever costs something to work out is worked out when it is asked for, and by ``repr`` only when that is printed.
"""

# No postponed annotations: they are looked up in the module that the class says it is of, which is the package.

import reprlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .changes import Changes
from .objects import ObjectChanges
from .report import Containment, Effect, Verdict

#: Characters of a value or an exception in an outcome's own repr.
_WIDTH = 80


def _no_changes() -> Changes:
    counts: Mapping[str, int] = {}
    return Changes(lambda: "[]", lambda: counts, ObjectChanges)


@dataclass(repr=False)
class Outcome:
    """How a transaction ended and what it did."""

    #: What the function returned, or what was given to ``rollback``.
    value: Any = None
    #: What was raised, or the reason (``Crashed``, ``TimedOut``, ``CommitRefused``, …) why nothing came of it.
    exception: BaseException | None = None
    #: Of a script: what it gave to ``sys.exit``, 0 if it came to its end; None if it did not.
    exit_code: int | None = None
    #: Whether its changes are in the origin now.
    committed: bool = False
    changes: Changes = field(default_factory=_no_changes)
    #: What crossed the sandbox, and what was shown; read from the record when it is first asked for.
    effects: tuple[Effect, ...] = ()
    verdict: Verdict = field(default_factory=Verdict)
    containment: Containment = field(default_factory=Containment)
    #: What was written, with ``output="capture"``.
    stdout: bytes = b""
    stderr: bytes = b""
    #: Seconds from begin to end.
    duration: float = 0.0
    #: The means by which the ``memory_limit`` was kept; None if there was none.
    memory_limit_by: str | None = None
    _effects: tuple[Effect, ...] | Callable[[], tuple[Effect, ...]] = field(
        default=(), init=False, compare=False
    )
    #: Whether this is what a function looks at that decides about the commit.
    _frozen: bool = field(default=False, init=False, compare=False)

    def result(self) -> Any:
        """Returns the value, or raises the exception, as ``concurrent.futures`` does."""
        if self.exception is not None:
            raise self.exception
        return self.value

    def set_effects_source(self, source: Callable[[], tuple[Effect, ...]]) -> None:
        """Says where ``effects`` come from when they are asked for."""
        self._effects = source

    def __repr__(self) -> str:
        told = ["not decided" if self._frozen else "committed" if self.committed else "rolled back"]
        shown = {"value": self.value, "exception": self.exception, "exit_code": self.exit_code or None}
        told += [f"{name}={_short(value)}" for name, value in shown.items() if value is not None]
        told.append(self.changes.count_in_words())
        classes = Counter(effect.effect_class for effect in self.effects for _ in range(effect.count))
        told += [f"{count} {name}" for name, count in classes.items()]
        return f"<Outcome {', '.join(told)}>"


def _read_effects(outcome: Outcome) -> tuple[Effect, ...]:
    if callable(outcome._effects):
        outcome._effects = outcome._effects()
    return outcome._effects


def _set_effects(outcome: Outcome, effects: tuple[Effect, ...]) -> None:
    outcome._effects = effects


# The field stays one for construction and comparison; most outcomes are never asked for it.
Outcome.effects = property(_read_effects, _set_effects)  # type: ignore[assignment]


def _short(value: object) -> str:
    """A value's repr, shortened in its middle; one that fails is said to."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = _WIDTH
    return shortened.repr(value)
