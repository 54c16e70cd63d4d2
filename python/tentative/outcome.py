"""``Outcome``: how a transaction ended and what it did.

Whatever costs something to work out is worked out when it is asked for, and by ``repr`` only when that is printed.
"""

# No postponed annotations: they are looked up in the module that the class says it is of, which is the package.

import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .changes import Changes
from .objects import ObjectChanges
from .report import Containment, Effect, Verdict

#: Characters of a value or an exception in an outcome's own repr.
_WIDTH = 80


def _no_changes() -> Changes:
    counts: Mapping[str, int] = {}
    return Changes(lambda: "[]", lambda: counts, ObjectChanges)


class Account(Protocol):
    """What a transaction did, told piece by piece when it is asked for; most outcomes are asked for little of it."""

    def tell(self, name: str) -> Any:
        """The value of the field of that name."""


#: The fields that an account tells.
_TOLD = ("changes", "effects", "verdict", "containment", "stdout", "stderr")


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
    #: What crossed the sandbox, and what was shown.
    effects: tuple[Effect, ...] = field(default_factory=tuple)
    verdict: Verdict = field(default_factory=Verdict)
    containment: Containment = field(default_factory=Containment)
    #: What was written, with ``output="capture"``.
    stdout: bytes = field(default_factory=bytes)
    stderr: bytes = field(default_factory=bytes)
    #: Seconds from begin to end.
    duration: float = 0.0
    #: The means by which the ``memory_limit`` was kept; None if there was none.
    memory_limit_by: str | None = None
    #: Who tells the fields that are not set.
    _account: Account | None = field(default=None, init=False, compare=False)
    #: Whether this is what a function looks at that decides about the commit.
    _frozen: bool = field(default=False, init=False, compare=False)

    @classmethod
    def told_by(cls, account: Account, duration: float, memory_limit_by: str | None) -> "Outcome":
        """Makes an outcome whose changes, effects and so on are those of an account."""
        # Not by the constructor, which would set what the account is to tell.
        outcome = cls.__new__(cls)
        outcome._account = account
        outcome.duration = duration
        outcome.memory_limit_by = memory_limit_by
        return outcome

    def __getattr__(self, name: str) -> Any:
        account = self._account
        if account is None or name not in _TOLD:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = account.tell(name)
        setattr(self, name, value)
        return value

    def result(self) -> Any:
        """Returns the value, or raises the exception, as ``concurrent.futures`` does."""
        if self.exception is not None:
            raise self.exception
        return self.value

    def __repr__(self) -> str:
        told = ["not decided" if self._frozen else "committed" if self.committed else "rolled back"]
        shown = {"value": self.value, "exception": self.exception, "exit_code": self.exit_code or None}
        told += [f"{name}={_short(value)}" for name, value in shown.items() if value is not None]
        told.append(self.changes.count_in_words())
        classes = Counter(effect.effect_class for effect in self.effects for _ in range(effect.count))
        told += [f"{count} {name}" for name, count in classes.items()]
        return f"<Outcome {', '.join(told)}>"


def _short(value: object) -> str:
    """A value's repr, shortened in its middle; one that fails is said to."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = _WIDTH
    return shortened.repr(value)
