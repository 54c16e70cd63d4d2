"""``Outcome``: how a transaction ended and what it did."""

# No postponed annotations: they are looked up in the module that the class says it is of, which is the package.

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .changes import Changes
from .objects import ObjectChanges
from .report import Containment, Effect, Verdict


def _no_changes() -> Changes:
    counts: Mapping[str, int] = {}
    return Changes(lambda: "[]", lambda: counts, ObjectChanges)


@dataclass
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

    def result(self) -> Any:
        """Returns the value, or raises the exception, as ``concurrent.futures`` does."""
        if self.exception is not None:
            raise self.exception
        return self.value
