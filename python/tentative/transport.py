"""What crosses a rollback: a value or an exception, serialised in the branch and read in the origin.

It never serialises what a commit carries over; that arrives as memory. Invariant: an ending can always be packed. What
cannot be serialised becomes a description of itself (``RemoteError``), so that a rollback never fails over its message.
"""

from __future__ import annotations

import gc
import io
import pickle
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from .errors import RemoteError, RemoteTraceback
from .objects.describe import name_of

#: What an unserialisable value, with the traceback of the failed attempt, is told as.
_VALUE = "the value could not be serialised"


@dataclass(frozen=True)
class Ending:
    """How the code in the branch came to its end, when it asked for the rollback itself."""

    value: Any = None
    exception: BaseException | None = None
    #: Whether the exception says that there was no memory, whatever its class.
    out_of_memory: bool = False
    #: Of a script: its exit status.
    exit_code: int | None = None
    #: Why a commit at the end of the block was refused; empty if none was asked for.
    refused: tuple[str, ...] = ()
    #: The paths that the refusal was about, if others changed something meanwhile.
    conflicts: tuple[str, ...] = ()
    #: What the objects layer found; None if there was no memory left to look.
    found: tuple[Any, ...] | None = ()
    #: What changed in the process's own state, the record's JSON.
    process: str = "[]"


def dumps(value: Any) -> tuple[bytes, ...]:
    """Serialises, by value what pickle can only name (lambdas, classes of ``__main__``).

    A class that was there when the transaction began is there in the origin, at the same address, and ``except`` asks
    for that one. So there are two pickles of what has such classes, and the origin reads the first that it can: one
    that names them by address, and one that has them by value, for those that were made since.
    """
    import cloudpickle  # type: ignore[import-untyped]  # in the branch: costs the origin nothing when no rollback carries a value

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        found = False

        def persistent_id(self, obj: Any) -> tuple[int, str, str] | None:
            if not issubclass(type(obj), type) or not _is_by_value(obj):
                return None
            self.found = True
            return id(obj), obj.__module__, obj.__qualname__

    room = io.BytesIO()
    pickler = Pickler(room)
    pickler.dump(value)
    by_address = room.getvalue()
    return (by_address, bytes(cloudpickle.dumps(value))) if pickler.found else (by_address,)


def _is_by_value(kind: type) -> bool:
    """Whether a class is one that no import finds."""
    return kind.__module__ == "__main__" or "<locals>" in kind.__qualname__


def pack(
    value: Any = None,
    exception: BaseException | None = None,
    exit_code: int | None = None,
    refused: tuple[str, ...] = (),
    conflicts: tuple[str, ...] = (),
    found: tuple[Any, ...] | None = (),
    process: str = "[]",
) -> bytes:
    """Packs an ending; value and exception are pickles of their own, so that each can fail alone."""
    parts = {
        "value": _value(value),
        "exception": None if exception is None else _exception(exception),
        "out_of_memory": isinstance(exception, MemoryError),
        "exit_code": exit_code,
        "refused": refused,
        "conflicts": conflicts,
        "found": found,
        "process": process,
    }
    return pickle.dumps(parts)


def pack_failure(exception: BaseException) -> bytes:
    """Packs the end of a branch whose own end failed, by what it failed with; what it changed by name is unknown."""
    return pack(exception=exception, found=None)


class _Reader(pickle.Unpickler):
    """Reads without importing the program's modules: their code would run in the origin, outside of everything."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        top = module_name.partition(".")[0]
        if module_name not in sys.modules and top != "cloudpickle" and top not in sys.stdlib_module_names:
            raise pickle.UnpicklingError(f"{module_name} is not imported in the origin")
        return super().find_class(module_name, global_name)

    def persistent_load(self, pid: Any) -> type:
        address, *name = pid
        for each in gc.get_objects():
            if id(each) == address and issubclass(type(each), type):
                if [each.__module__, each.__qualname__] == name:
                    return each  # type: ignore[no-any-return]
                break
        raise pickle.UnpicklingError(f"{'.'.join(name)} is a class of the transaction's own")


def _read(pickles: Sequence[bytes]) -> Any:
    """Reads the first pickle that can be read."""
    for pickled in pickles[:-1]:
        try:
            return _Reader(io.BytesIO(pickled)).load()
        except Exception:
            continue
    return _Reader(io.BytesIO(pickles[-1])).load()


def unpack(payload: bytes) -> Ending:
    """Reads an ending in the origin; what cannot be read there becomes a ``RemoteError`` too."""
    parts = _read((payload,))
    exception = None if parts["exception"] is None else _load_exception(*parts["exception"])
    value = None
    if parts["value"] is not None:
        try:
            value = _read(parts["value"])
        except BaseException as error:
            value = RemoteError(type(error).__name__, f"{_VALUE}: {_text(error)}", traceback.format_exc())
    return Ending(
        value,
        exception,
        parts["out_of_memory"],
        parts["exit_code"],
        tuple(parts["refused"]),
        tuple(parts["conflicts"]),
        None if parts["found"] is None else tuple(parts["found"]),
        parts["process"],
    )


def _value(value: Any) -> tuple[bytes, ...] | None:
    if value is None:
        return None
    try:
        return dumps(value)
    except BaseException as error:
        stand_in = RemoteError(name_of(type(value)), f"{_VALUE}: {_text(error)}", traceback.format_exc())
        return (pickle.dumps(stand_in),)


def _exception(exception: BaseException) -> tuple[tuple[bytes, ...] | None, str, str, str]:
    """The exception's pickle if it survives one, and always its type, message and traceback in words."""
    try:
        where = _from_the_code_on(exception.__traceback__)
        told = "".join(traceback.format_exception(type(exception), exception, where))
    except BaseException as error:
        told = f"(its traceback could not be formatted: {type(error).__name__})"
    try:
        pickled: tuple[bytes, ...] | None = dumps(exception)
        # An __init__ that wants more than .args pickles well and fails when it is read.
        _read(pickled or ())
    except BaseException:
        pickled = None
    return pickled, name_of(type(exception)), _text(exception), told


def _from_the_code_on(where: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this package that led to the code."""
    package = __name__.partition(".")[0]
    while where is not None:
        module = where.tb_frame.f_globals.get("__name__")
        if not isinstance(module, str) or module.partition(".")[0] != package:
            break
        where = where.tb_next
    return where


def _load_exception(pickled: Sequence[bytes] | None, name: str, message: str, told: str) -> BaseException:
    exception: BaseException | None = None
    if pickled is not None:
        try:
            exception = _read(pickled)
        except BaseException:
            exception = None
    if not isinstance(exception, BaseException):
        exception = RemoteError(name, message, told)
    exception.__cause__ = RemoteTraceback(f'\n"""\n{told}"""')
    return exception


def _text(thing: BaseException) -> str:
    try:
        return str(thing)
    except BaseException as error:
        return f"(no text: {type(error).__name__})"


def _in_words(exception: BaseException, out_of_memory: bool) -> bytes:
    """An ending that says no more than an exception without a place."""
    name, words = name_of(type(exception)), str(exception)
    parts = {
        "value": None,
        "exception": ((pickle.dumps(exception),), name, words, f"{name}: {words}\n"),
        "out_of_memory": out_of_memory,
        "exit_code": None,
        "refused": (),
        "conflicts": (),
        "found": None,
        "process": "[]",
    }
    return pickle.dumps(parts)


# Packed ahead of the time when they cannot be.

#: The ending of code after which no memory is left to pack another.
WITHOUT_MEMORY = _in_words(MemoryError("there was no memory left to tell where"), True)
#: The ending of code whose own could not be fetched.
LOST = _in_words(
    RuntimeError(
        "what the code ended with could not be handed over: it is too large, or its process another user's"
    ),
    False,
)
#: The ending of code after which nothing can be packed, whatever it did to the interpreter.
UNTOLD = _in_words(
    RuntimeError("the code left the interpreter in a state in which it could not tell how it ended"), False
)
