"""The exceptions of this package, all of them, in one tree.

``Error`` is the root. Nothing here knows how a transaction works; the extension module raises these classes too
(``crates/tentative-py/src/errors.rs`` maps the library's errors onto them) and never others of its own.
"""

from __future__ import annotations

import signal as _signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .outcome import Outcome


class Error(Exception):
    """The root of everything that this package raises."""


class RolledBack(Error):
    """The code did not come to its end: the transaction was rolled back for the reason that the subclass names."""

    #: What the transaction did until then; set by the transaction that raises.
    outcome: Outcome | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """For one that leaves a transaction around it: what was done inside is told there, and cannot be pickled."""
        state = {name: value for name, value in self.__dict__.items() if name != "outcome"}
        return type(self), self.args, state


class Crashed(RolledBack):
    """The branch was killed by a signal."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal

    def __str__(self) -> str:
        try:
            name = _signal.Signals(self.signal).name
        except ValueError:
            name = f"signal {self.signal}"
        return f"the code crashed with {name}; everything was rolled back"


class Exited(RolledBack):
    """The branch ended its process (``os._exit``, C's ``exit``) instead of coming to its end."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"the code ended its process with status {self.code}; everything was rolled back"


class TimedOut(RolledBack, TimeoutError):
    """The branch ran longer than its ``timeout``, in seconds."""

    def __init__(self, timeout: float | None = None) -> None:
        super().__init__(timeout)
        self.timeout = timeout

    def __str__(self) -> str:
        limit = "its timeout" if self.timeout is None else f"{self.timeout:g} s"
        return f"the code ran longer than {limit}; everything was rolled back"


class OutOfMemory(RolledBack, MemoryError):
    """The branch ended by a ``MemoryError`` under a ``memory_limit``, in bytes; the cause has the traceback."""

    def __init__(self, memory_limit: int | None = None) -> None:
        super().__init__(memory_limit)
        self.memory_limit = memory_limit

    def __str__(self) -> str:
        limit = "" if self.memory_limit is None else f" of {self.memory_limit:,} bytes"
        return f"the code needed more memory than its memory_limit{limit}; everything was rolled back"


class CommitRefused(Error):
    """A commit that cannot be exact, or that conflicts, was refused; nothing was applied.

    ``reasons`` says why, a sentence each. ``pending_id`` names the kept files (``tentative show``), if any.
    """

    def __init__(self, reasons: Sequence[str], pending_id: str | None = None) -> None:
        super().__init__(reasons, pending_id)
        self.reasons = tuple(reasons)
        self.pending_id = pending_id

    def _forget_what_was_kept(self) -> None:
        """For one that leaves a transaction around it: the files that were kept inside are gone with that one's."""
        self.args = (self.reasons, None, *self.args[2:])
        self.pending_id = None

    def __str__(self) -> str:
        kept = f" (the files are kept as {self.pending_id})" if self.pending_id else ""
        return f"the commit was refused: {'; '.join(self.reasons)}{kept}"


class Conflict(CommitRefused):
    """The commit was refused because others changed, meanwhile, what it would change; ``paths`` names the files."""

    def __init__(
        self, reasons: Sequence[str], pending_id: str | None = None, paths: Sequence[str] = ()
    ) -> None:
        super().__init__(reasons, pending_id)
        self.args = (reasons, pending_id, paths)
        self.paths = tuple(paths)

    def __str__(self) -> str:
        if self.pending_id is None:
            return super().__str__()
        kept = self.pending_id
        return (
            f"{super().__str__()}\n"
            f"hint: 'tentative diff {kept}' shows the work. Where others made what was not there before, remove it and "
            f"run 'tentative commit {kept}'; else do it again on what is there now and run 'tentative rollback {kept}'"
        )


class Unsupported(Error):
    """What was asked for cannot be contained or decided here; ``remedy`` says what to do instead."""

    def __init__(self, layer: str, reason: str, remedy: str | None = None) -> None:
        super().__init__(layer, reason, remedy)
        self.layer = layer
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        hint = f"\nhint: {self.remedy}" if self.remedy else ""
        return f"{self.layer}: {self.reason}{hint}"


class Finished(Error):
    """The transaction has ended; begin another."""


class RemoteError(Error):
    """Stands for an exception of the branch that could not be serialised."""

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        super().__init__(type_name, message, traceback)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"


class RemoteTraceback(Exception):
    """The cause of an exception that crossed a rollback: its traceback in the branch, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text
