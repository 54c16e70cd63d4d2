"""Skips the body of a ``with`` block: how a transaction that was rolled back goes on *after* its block.

In the origin ``__enter__`` returns into the middle of the caller's ``with`` statement although the body must not run.
The way out is the interpreter's own: a trace function on the caller's frame binds the ``as`` target and then raises
inside the statement's protected range. So ``__exit__`` is called, puts the former tracer back, and swallows the
exception or raises another in its place.

It never changes code objects or lines. Invariant: not one instruction of the body runs, and :meth:`Skip.undo` leaves
tracer and frame as they were. Where the interpreter traces nothing, as in a trace function and so at a debugger's
prompt, there is no such way, and ``__enter__`` raises instead. A target that is an item, an attribute or a tuple
belongs to the statement, not to the body, and is bound by its own instructions, unless it has jumps or the body opens
with ``try``: then it stays unbound.
"""

from __future__ import annotations

import dis
import sys
from types import CodeType, FrameType
from typing import Any

from .errors import Unsupported

#: The instructions that call ``__enter__``: in 3.10, and from 3.11 to 3.13.
_WITH_ENTRY = frozenset(("SETUP_WITH", "BEFORE_WITH"))

_REMEDY = (
    "write it as a with statement of its own: `with tentative.transaction() as tx:`, or use tentative.run(f)"
)


class BodySkipped(BaseException):
    """Travels from the caller's frame to ``__exit__``; no code outside this package ever sees it."""


def nothing_is_traced() -> Unsupported:
    """What a rolled back block raises that cannot be left in any other way."""
    reason = "the block was rolled back, and nothing leads on after it in a trace function or at a debugger's prompt"
    return Unsupported("objects", reason, "use tentative.run(f) there")


def require_with_statement(frame: FrameType) -> None:
    """Refuses a caller that did not reach ``__enter__`` by a ``with`` statement of its own.

    ``ExitStack.enter_context`` and direct calls of ``__enter__`` have no block that could be skipped.

    Raises:
        Unsupported: naming the layer, the reason and the way out.
    """
    if frame.f_lasti >= 0 and _instruction(frame.f_code, frame.f_lasti)[0] in _WITH_ENTRY:
        return
    name = frame.f_code.co_name
    reason = f"the transaction was entered by a call in {name}(), not by a with statement"
    raise Unsupported("objects", reason, _REMEDY)


def _instruction(code: CodeType, position: int) -> tuple[str, int]:
    """Name and argument of the instruction at a position, which may be that of its EXTENDED_ARG prefix (3.10) or not.

    ``co_code`` shows the plain instructions, whatever debuggers or the specialiser put in their place.
    """
    bytecode = code.co_code
    argument = 0
    start = position
    while start >= 2 and dis.opname[bytecode[start - 2]] == "EXTENDED_ARG":
        start -= 2
    while dis.opname[bytecode[start]] == "EXTENDED_ARG" or start < position:
        argument = (argument | bytecode[start + 1]) << 8
        start += 2
    return dis.opname[bytecode[start]], argument | bytecode[start + 1]


def _stored_name(code: CodeType, name: str, argument: int) -> tuple[str, bool] | None:
    """The variable that a store instruction binds, and whether it is a global; None for other instructions."""
    if name in ("STORE_NAME", "STORE_GLOBAL"):
        return code.co_names[argument], name == "STORE_GLOBAL"
    if name == "STORE_FAST":
        return code.co_varnames[argument], False
    if name.startswith("STORE_FAST_"):  # 3.13: two instructions in one, the first has the upper four bits
        return code.co_varnames[argument >> 4], False
    if name == "STORE_DEREF":
        cells = code.co_cellvars
        if sys.version_info >= (3, 11):
            own = code.co_varnames
            return (own + tuple(cell for cell in cells if cell not in own) + code.co_freevars)[
                argument
            ], False
        return (cells + code.co_freevars)[argument], False
    return None


def _handler(code: CodeType, position: int) -> int | None:
    """Where the exception table sends an exception at that position (from 3.11 on).

    The format is that of Objects/exception_handling_notes.txt: four numbers an entry, six bits a byte.
    """
    table = iter(code.co_exceptiontable)  # type: ignore[attr-defined,unused-ignore]

    def number(first: int) -> int:
        value = first & 63
        while first & 64:
            first = next(table)
            value = value << 6 | first & 63
        return value

    for first in table:
        start, length, target = number(first) * 2, number(next(table)) * 2, number(next(table)) * 2
        number(next(table))
        if start <= position < start + length:
            return target
    return None


def _end_of_target(code: CodeType, first: int) -> int | None:
    """Where the body starts after an ``as`` target of several instructions (an item, an attribute, a tuple).

    Found by counting what they leave on the stack. None if the target has jumps, or if nothing that is raised at the
    body's start would come to ``__exit__``, as when it opens with a ``try`` (from 3.11 on).
    """
    bytecode = code.co_code
    position, depth, argument = first, 0, 0
    while depth >= 0:
        opcode = bytecode[position]
        argument |= bytecode[position + 1]
        if opcode in dis.hasjrel or opcode in dis.hasjabs:
            return None
        position += 2
        if dis.opname[opcode] == "EXTENDED_ARG":
            argument <<= 8
            continue
        depth += dis.stack_effect(opcode, argument if opcode >= dis.HAVE_ARGUMENT else None)
        argument = 0
    while dis.opname[bytecode[position]] == "CACHE":
        position += 2
    if sys.version_info >= (3, 11) and dis.opname[bytecode[position]] == "NOP":
        return position if _handler(code, position) == _handler(code, first) else None
    return position


class Skip:
    """A body that is being skipped: the settings that were replaced, and the way back to them."""

    def __init__(self, frame: FrameType, value: Any) -> None:
        self._frame = frame
        self._value = value
        self._tracer = sys.gettrace()
        self._local = frame.f_trace
        self._lines = frame.f_trace_lines
        self._opcodes = frame.f_trace_opcodes
        # Where the body starts, once the `as` target's own instructions have begun to run.
        self._body: int | None = None
        self._is_traced = False

    def arm(self) -> bool:
        """Makes the frame raise before the first instruction of its body; False if nothing is traced where it is."""
        frame = self._frame
        frame.f_trace_lines = False
        frame.f_trace = self._trace
        # 3.12 asks for instruction events in settrace, if some frame wants them by then; 3.13 asks for them when the
        # frame's setting changes, and under a profiler forgets them if tracing was off by then.
        sys.settrace(self._ignore)
        frame.f_trace_opcodes = True
        sys.settrace(self._ignore)
        (lambda: None)()  # a frame that starts: the interpreter tells it where it tells any
        return self._is_traced

    def undo(self) -> None:
        """Puts the tracer and the frame's settings back."""
        sys.settrace(None)
        frame = self._frame
        frame.f_trace_opcodes = self._opcodes
        frame.f_trace_lines = self._lines
        frame.f_trace = self._local
        sys.settrace(self._tracer)

    def _ignore(self, frame: FrameType, event: str, argument: Any) -> None:
        """The global tracer: frames that start meanwhile (our own, a target's) are not traced."""
        self._is_traced = True

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event != "opcode":
            return self._trace
        code, position = frame.f_code, frame.f_lasti
        if self._body is None:
            self._body = self._bind(frame, *_instruction(code, position))
            self._first = position
        elif self._body <= position:
            # An empty body has no instruction of its own: what follows is the statement's ordinary way out.
            if sys.version_info < (3, 11) or _handler(code, position) == _handler(code, self._first):
                raise BodySkipped
            frame.f_trace_opcodes = False
            return None
        return self._trace

    def _bind(self, frame: FrameType, name: str, operand: int) -> int:
        """Binds the target if it is a name; leaves the block unless the target's own instructions have to run."""
        code = frame.f_code
        target = _stored_name(code, name, operand)
        if target is not None:
            # What a trace function writes into f_locals reaches the frame's variables when it returns.
            (frame.f_globals if target[1] else frame.f_locals)[target[0]] = self._value
            raise BodySkipped
        body = None if name == "POP_TOP" else _end_of_target(code, frame.f_lasti)
        if body is None:
            raise BodySkipped
        return body
