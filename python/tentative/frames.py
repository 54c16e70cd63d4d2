"""Skips the body of a ``with`` block: how a transaction that was rolled back goes on *after* its block.

In the origin ``__enter__`` returns into the middle of the caller's ``with`` statement although the body must not run.
The way out is the interpreter's own: a trace function on the caller's frame that raises at the next instruction, which
is the first one that the statement's exception table covers (the store of ``as``, or the pop when there is none). So
``__exit__`` is called at once, puts the former tracer back, and swallows the exception or raises another in its place.

It never changes code objects or frames' lines. Invariant: between :func:`skip_body` and :meth:`Skip.undo` no bytecode
of the caller's frame has run, and afterwards tracer and frame have the settings that they had before.
"""

from __future__ import annotations

import dis
import sys
from types import FrameType
from typing import Any

from .errors import Unsupported

#: The instructions that call ``__enter__``: in 3.10, and from 3.11 to 3.13.
_WITH_ENTRY = frozenset(("SETUP_WITH", "BEFORE_WITH"))

_REMEDY = (
    "write it as a with statement of its own: `with tentative.transaction() as tx:`, or use tentative.run(f)"
)


class BodySkipped(BaseException):
    """Travels from the caller's frame to ``__exit__``; no code outside this package ever sees it."""


def require_with_statement(frame: FrameType) -> None:
    """Refuses a caller that did not reach ``__enter__`` by a ``with`` statement of its own.

    ``ExitStack.enter_context`` and direct calls of ``__enter__`` have no block that could be skipped.

    Raises:
        Unsupported: naming the layer, the reason and the way out.
    """
    if _is_with_entry(frame):
        return
    name = frame.f_code.co_name
    raise Unsupported(
        "objects", f"the transaction was entered by a call in {name}(), not by a with statement", _REMEDY
    )


def _is_with_entry(frame: FrameType) -> bool:
    code = frame.f_code.co_code
    position = frame.f_lasti
    if not 0 <= position < len(code):
        return False
    # Up to 3.10 the position is that of the prefix, where the instruction has one.
    while dis.opname[code[position]] == "EXTENDED_ARG":
        position += 2
    # Instrumented code (coverage on 3.12, debuggers) shows the plain instruction in co_code, not the replaced one.
    return dis.opname[code[position]] in _WITH_ENTRY


class Skip:
    """The settings that the skip replaced, and the way back to them."""

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame
        self._tracer = sys.gettrace()
        self._local = frame.f_trace
        self._lines = frame.f_trace_lines
        self._opcodes = frame.f_trace_opcodes
        self.exception = BodySkipped("the body of a rolled back transaction was skipped")

    def undo(self) -> None:
        """Puts the tracer and the frame's settings back."""
        sys.settrace(None)
        frame = self._frame
        frame.f_trace_opcodes = self._opcodes
        frame.f_trace_lines = self._lines
        frame.f_trace = self._local
        sys.settrace(self._tracer)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame is not self._frame:
            return None
        raise self.exception

    def arm(self) -> None:
        """Makes the next instruction of the frame raise."""
        frame = self._frame
        frame.f_trace = self._trace
        # 3.12 asks for instruction events in settrace, if some frame wants them by then; 3.13 asks for them when the
        # frame's setting changes, and under a profiler forgets them if tracing was off by then.
        sys.settrace(self._ignore)
        frame.f_trace_opcodes = True
        sys.settrace(self._ignore)

    @staticmethod
    def _ignore(frame: FrameType, event: str, argument: Any) -> None:
        """The global tracer: frames that start meanwhile (our own) are not traced."""


def skip_body(frame: FrameType) -> Skip:
    """Makes the caller's frame leave its ``with`` block at its next instruction, through ``__exit__``."""
    skip = Skip(frame)
    skip.arm()
    return skip
