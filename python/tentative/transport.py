"""What crosses a rollback: a value or an exception, serialised in the branch and read in the origin.

It never serialises what a commit carries over; that arrives as memory. Invariant: an ending can always be packed. What
cannot be serialised becomes a description of itself (``RemoteError``), so that a rollback never fails over its message.
"""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import Any

from .errors import RemoteError, RemoteTraceback

#: What an unserialisable value, with the traceback of the failed attempt, is told as.
_VALUE = "the value could not be serialised"


@dataclass(frozen=True)
class Ending:
    """How the code in the branch came to its end, when it asked for the rollback itself."""

    value: Any = None
    exception: BaseException | None = None
    #: Why a commit at the end of the block was refused; empty if none was asked for.
    refused: tuple[str, ...] = ()
    #: The refusal was about changes made by others.
    conflict: bool = False
    #: Functions of ``on_rollback`` as serialised when registered, in that order.
    callbacks: tuple[bytes, ...] = ()


def dumps(value: Any) -> bytes:
    """Serialises by value what pickle can only name (lambdas, classes of ``__main__``)."""
    import cloudpickle  # in the branch: costs the origin nothing when no rollback carries a value

    return bytes(cloudpickle.dumps(value))


def pack(
    value: Any = None,
    exception: BaseException | None = None,
    refused: tuple[str, ...] = (),
    conflict: bool = False,
    callbacks: tuple[bytes, ...] = (),
) -> bytes:
    """Packs an ending; value and exception are pickles of their own, so that each can fail alone."""
    parts = {
        "value": _value(value),
        "exception": None if exception is None else _exception(exception),
        "refused": refused,
        "conflict": conflict,
        "callbacks": callbacks,
    }
    return pickle.dumps(parts)


def unpack(payload: bytes) -> Ending:
    """Reads an ending in the origin; what cannot be read there becomes a ``RemoteError`` too."""
    parts = pickle.loads(payload)
    exception = None if parts["exception"] is None else _load_exception(*parts["exception"])
    value = None
    if parts["value"] is not None:
        try:
            value = pickle.loads(parts["value"])
        except BaseException as error:
            value = RemoteError(type(error).__name__, f"{_VALUE}: {_text(error)}", traceback.format_exc())
    return Ending(value, exception, tuple(parts["refused"]), parts["conflict"], tuple(parts["callbacks"]))


def _value(value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        return dumps(value)
    except BaseException as error:
        stand_in = RemoteError(_name(type(value)), f"{_VALUE}: {_text(error)}", traceback.format_exc())
        return pickle.dumps(stand_in)


def _exception(exception: BaseException) -> tuple[bytes | None, str, str, str]:
    """The exception's pickle if it survives one, and always its type, message and traceback in words."""
    try:
        told = "".join(traceback.format_exception(type(exception), exception, exception.__traceback__))
    except BaseException as error:
        told = f"(its traceback could not be formatted: {type(error).__name__})"
    try:
        pickled: bytes | None = dumps(exception)
        # An __init__ that wants more than .args pickles well and fails when it is read.
        pickle.loads(pickled or b"")
    except BaseException:
        pickled = None
    return pickled, _name(type(exception)), _text(exception), told


def _load_exception(pickled: bytes | None, name: str, message: str, told: str) -> BaseException:
    exception: BaseException | None = None
    if pickled is not None:
        try:
            exception = pickle.loads(pickled)
        except BaseException:
            exception = None
    if not isinstance(exception, BaseException):
        exception = RemoteError(name, message, told)
    exception.__cause__ = RemoteTraceback(f'\n"""\n{told}"""')
    return exception


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(thing: BaseException) -> str:
    try:
        return str(thing)
    except BaseException as error:
        return f"(no text: {type(error).__name__})"
