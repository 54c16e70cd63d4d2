"""The other forms of a transaction: ``run``, ``exec``, ``attempts`` and ``@transactional``.

Each is a thin use of :class:`Transaction`; none has a way of its own to begin, commit or roll back.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import io
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .outcome import Outcome
from .transaction import Decide, Options, Parameters, Transaction, globals_of

if TYPE_CHECKING:
    # Only type checkers read it, and they bring it along.
    from typing_extensions import Unpack

Function = TypeVar("Function", bound=Callable[..., Any])

#: What runpy sets for a script.
_SCRIPT_NAMES = ("__name__", "__file__", "__cached__", "__doc__", "__loader__", "__package__", "__spec__")


def run(
    function: Callable[Parameters, object], /, *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Outcome:
    """Runs a function in a transaction: commits if it returns, rolls back if it raises.

    All arguments are the function's. What it raised is in ``outcome.exception``; ``outcome.result()`` returns the value
    or raises. For a transaction with options: ``tentative.transaction(timeout=5).run(function, …)``.
    """
    body = functools.partial(_call, function, args, kwargs)
    return Transaction()._run(body, globals_of(function))


def _call(function: Callable[..., object], args: Sequence[Any], kwargs: dict[str, Any]) -> object:
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        # Raised by the call itself, when no frame of the function's own began.
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            _explain_options(error, kwargs)
        raise


def _explain_options(error: TypeError, kwargs: dict[str, Any]) -> None:
    """Adds a note to an error about an argument that was meant for the transaction."""
    meant = [name for name in Options.__annotations__ if name in kwargs and repr(name) in str(error)]
    if meant and sys.version_info >= (3, 11):
        form = f"tentative.transaction({meant[0]}=…).run(function, …)"
        error.add_note(f"all arguments of tentative.run are the function's; options are given so: {form}")


def exec(
    source_or_path: str | os.PathLike[str],
    globals: dict[str, Any] | None = None,
    *,
    argv: Sequence[str] = (),
    commit: bool | Decide = True,
    **options: Unpack[Options],
) -> Outcome:
    """Executes source text, or the script at a path, in a transaction.

    Args:
        source_or_path: a ``str`` is source; an ``os.PathLike`` a script, run with ``__name__ == "__main__"``.
        globals: the namespace to run in; the caller's if not given.
        argv: the script's arguments; ``sys.argv`` while it runs.
        commit: whether to commit if it ends well. A function is called in the origin with the frozen outcome and
            decides; what it changes itself is gone after the commit.
        options: those of :func:`tentative.transaction`.

    ``SystemExit`` with 0 or None is an ordinary end; other codes roll back. ``outcome.exit_code`` has the code.

    Raises:
        TypeError: it is neither of the two.
    """
    if not isinstance(source_or_path, str | os.PathLike):
        raise TypeError(
            f"exec wants source (a str) or a path (an os.PathLike), not {type(source_or_path).__name__}"
        )
    space = sys._getframe(1).f_globals if globals is None else globals
    if not isinstance(space, dict):
        raise TypeError(f"globals is a dict, not {type(space).__name__}")
    if isinstance(source_or_path, str):
        body = functools.partial(_execute_source, source_or_path, space, argv)
    else:
        body = functools.partial(_execute_script, os.fsdecode(source_or_path), space, argv)
    return Transaction(**options)._run(body, (space,), commit, script=True)


def _execute_source(source: str, space: dict[str, Any], argv: Sequence[str]) -> None:
    before = sys.argv
    if argv:
        sys.argv = ["-c", *argv]
    try:
        builtins.exec(compile(source, "<tentative>", "exec"), space)
    finally:
        sys.argv = before


def _execute_script(path: str, space: dict[str, Any], argv: Sequence[str]) -> None:
    missing = object()
    before, names = sys.argv, {name: space.get(name, missing) for name in _SCRIPT_NAMES}
    sys.argv = [path, *argv]
    try:
        if os.path.isdir(path) or path.endswith((".pyc", ".pyz", ".zip")):
            space.update(runpy.run_path(path, space, "__main__"))
        else:
            with io.open_code(os.path.abspath(path)) as file:
                code = compile(file.read(), path, "exec")
            space.update(dict.fromkeys(_SCRIPT_NAMES), __name__="__main__", __file__=path, __package__="")
            builtins.exec(code, space)
    finally:
        sys.argv = before
        for name, value in names.items():
            if value is missing:
                space.pop(name, None)
            else:
                space[name] = value


class Attempt(Transaction):
    """One attempt of several: a failure is kept instead of raised while others are left."""

    def __init__(self, number: int, is_last: bool, options: Options) -> None:
        super().__init__(**options)
        self.number = number
        self._is_last = is_last

    def _swallows(self, failure: BaseException) -> bool:
        return isinstance(failure, Exception) and not self._is_last


def attempts(number: int, **options: Unpack[Options]) -> Iterator[Attempt]:
    """Gives up to ``number`` transactions, one after another, until one is committed.

    ``for tx in tentative.attempts(3):`` with ``with tx:`` in it; a failed attempt is rolled back, the last failure is
    raised. ``tx.number`` counts from 1.
    """
    if number < 1:
        raise ValueError("attempts wants a positive number")

    def each() -> Iterator[Attempt]:
        for count in range(1, number + 1):
            attempt = Attempt(count, count == number, options)
            yield attempt
            if attempt._outcome is not None and attempt._outcome.committed:
                return

    return each()


@overload
def transactional(function: Function, /) -> Function: ...
@overload
def transactional(**options: Unpack[Options]) -> Callable[[Function], Function]: ...
def transactional(function: Callable[..., Any] | None = None, /, **options: Unpack[Options]) -> Any:
    """Makes a function run in a transaction of its own whenever it is called; options are those of ``transaction``."""
    if function is None:
        return functools.partial(_transactional, options=options)
    return _transactional(function, options=options)


def _transactional(function: Callable[..., Any], options: Options) -> Callable[..., Any]:
    for kind, what in (
        (inspect.iscoroutinefunction, "a coroutine function"),
        (inspect.isgeneratorfunction, "a generator function"),
        (inspect.isasyncgenfunction, "an asynchronous generator function"),
    ):
        if kind(function):
            raise TypeError(f"@transactional wants a function that runs when it is called, not {what}")

    @functools.wraps(function)
    def in_transaction(*args: Any, **kwargs: Any) -> Any:
        return Transaction(**options).run(function, *args, **kwargs).result()

    return in_transaction
