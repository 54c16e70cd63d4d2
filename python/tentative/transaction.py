"""``transaction``: the context manager, and the steps that every form of a transaction is made of.

One :class:`Transaction` object exists in two processes for a while. Which one a method runs in is said by ``_state``:
``inside`` is the branch, everything else is the origin. Invariant: whatever the branch did, in the origin the object
ends as ``ended`` with an :class:`Outcome`, and after a rollback no instruction of the block's body has run there.
"""

from __future__ import annotations

import os
import sys
import traceback as tracebacks
from collections.abc import Callable, Iterable, Mapping
from types import FrameType, FunctionType, MethodType, NoneType, TracebackType
from typing import Any, Literal, NoReturn, ParamSpec, TypedDict

from . import _tentative, executable, frames, transport
from .changes import Changes
from .errors import (
    CommitRefused,
    Conflict,
    Crashed,
    Error,
    Exited,
    Finished,
    OutOfMemory,
    RolledBack,
    TimedOut,
)
from .objects import Before, Found, ObjectChanges, find, resolve
from .objects.describe import describe
from .outcome import Outcome
from .report import Containment, Effect, Verdict, containment_from, effects_from, join_arrays, verdict_from

Parameters = ParamSpec("Parameters")
Output = Literal["live", "hold", "capture"]
#: Decides in the origin, from the frozen outcome, whether a commit goes ahead.
Decide = Callable[[Outcome], object]

_LAYERS = ("memory", "threads", "objects", "process", "files", "kin", "world")

_CHILD_AT_THE_END = (
    "tentative: process {} is a child of a transaction's process and has come to the end of its block; it ends here\n"
    "hint: only the process that began a transaction goes on after it; let its children end inside (os._exit)"
)


class Options(TypedDict, total=False):
    """The options of :func:`transaction`, which every form of a transaction takes."""

    allow: Iterable[str]
    output: Output
    timeout: float | None
    memory_limit: int | None
    without: str | Iterable[str]


class MonitorLost(RolledBack):
    """The monitor ended before the commit point."""

    def __str__(self) -> str:
        return "the monitor ended; everything was rolled back"


class _Told:
    """The account of an outcome, read from the report of the library and what the branch said of itself."""

    def __init__(self, report: _tentative.Report, objects: ObjectChanges | None, process: str) -> None:
        self._report = report
        self._objects = objects
        self._process = process

    def tell(self, name: str) -> Any:
        """The value of an outcome's field."""
        report = self._report
        tellers: dict[str, Callable[[], Any]] = {
            "changes": self._changes,
            "effects": lambda: effects_from(report.effects),
            "verdict": lambda: verdict_from(report.verdict),
            "containment": lambda: containment_from(report.containment),
            "stdout": lambda: report.stdout,
            "stderr": lambda: report.stderr,
        }
        return tellers[name]()

    def _changes(self) -> Changes:
        report, process = self._report, self._process
        objects = ObjectChanges() if self._objects is None else self._objects
        return Changes(
            lambda: join_arrays(report.changes, process), lambda: dict(report.memory), lambda: objects
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> _Told:
        """Itself: nothing of it changes."""
        return self


class Transaction(_tentative.Guard):
    """A transaction: use it in a ``with`` statement, or call its :meth:`run`."""

    #: What the guard ends a branch with whose own end failed.
    _pack_failure = staticmethod(transport.pack_failure)
    _UNTOLD = transport.UNTOLD

    #: Which attempt this is, from 1 (``tentative.attempts``).
    number: int = 1

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        output: Output = "live",
        timeout: float | None = None,
        memory_limit: int | None = None,
        without: str | Iterable[str] = (),
    ) -> None:
        if isinstance(allow, str):
            allow = (allow,)
        if isinstance(without, str):
            without = [word for word in without.split(",") if word]
        if timeout is not None and not hasattr(timeout, "__float__"):
            raise TypeError(f"timeout is a number of seconds, not {type(timeout).__name__}")
        if memory_limit is not None and not hasattr(memory_limit, "__index__"):
            raise TypeError(f"memory_limit is a number of bytes, not {type(memory_limit).__name__}")
        if timeout is not None and not timeout > 0:
            raise ValueError("timeout must be a positive number of seconds")
        if memory_limit is not None and memory_limit <= 0:
            raise ValueError("memory_limit must be a positive number of bytes")
        if output not in ("live", "hold", "capture"):
            raise ValueError(f"output is 'live', 'hold' or 'capture', not {output!r}")
        self._without = frozenset(without)
        unknown = sorted(self._without.difference(_LAYERS))
        if unknown:
            raise ValueError(f"unknown layer {unknown[0]!r} (layers: {', '.join(_LAYERS)})")
        self._allow = [str(rule) for rule in allow]
        self._output = output
        self._timeout = timeout
        self._memory_limit = memory_limit
        self._state: Literal["new", "inside", "ended"] = "new"
        #: Set by the extension module, so that no signal handler can come between: where the transaction has got to.
        self._branch: _tentative.Branch | None = None
        self._ended: _tentative.Ended | None = None
        self._committed: _tentative.Committed | None = None
        #: What the branch found by name, for the outcome of a commit.
        self._known: ObjectChanges | None = None
        self._before: Before | None = None
        #: Whether the origin was asked about the commit.
        self._was_frozen = False
        self._skip: frames.Skip | None = None
        self._outcome: Outcome | None = None
        #: In the origin: what the end of the block, or `run`, has to raise.
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        self._settle()
        state = {"new": "not begun", "inside": "inside"}.get(self._state)
        if state is None:
            state = "committed" if self.outcome.committed else "rolled back"
        return f"<{type(self).__name__}: {state}>"

    # What it did.

    @property
    def outcome(self) -> Outcome:
        """How it ended.

        Raises:
            Error: it has not ended yet.
        """
        self._settle()
        if self._outcome is None:
            begun = "ended yet" if self._state == "inside" else "begun"
            raise Error(f"the transaction has not {begun}: there is no outcome")
        return self._outcome

    @property
    def changes(self) -> Changes:
        """What it changed; inside the transaction, so far."""
        if not self._is_inside():
            return self.outcome.changes
        branch = self._inside()
        found: list[Found] = []

        def objects() -> ObjectChanges:
            assert self._before is not None
            found[:] = find(self._before)
            return ObjectChanges(resolve(self._before, found))

        return Changes(lambda: branch.report().changes, lambda: dict(branch.memory()), objects)

    @property
    def effects(self) -> tuple[Effect, ...]:
        """What crossed the sandbox; inside the transaction, so far."""
        if not self._is_inside():
            return self.outcome.effects
        return effects_from(self._inside().report().effects)

    @property
    def verdict(self) -> Verdict:
        """Whether rolling back restores everything and a commit is exact; inside the transaction, so far."""
        if not self._is_inside():
            return self.outcome.verdict
        return verdict_from(self._inside().report().verdict)

    @property
    def containment(self) -> Containment:
        """How far it is contained: ``full``, or ``partial`` with the gaps; inside the transaction, so far."""
        if not self._is_inside():
            return self.outcome.containment
        return containment_from(self._inside().report().containment)

    # What the code inside can ask for.

    def commit(self) -> None:
        """Commits now and returns in the origin: the rest of the block runs outside the transaction.

        Raises:
            CommitRefused: the commit cannot be exact; the branch goes on and can try again or roll back.
            Finished: the transaction has ended.
            Error: this is inside another transaction, another thread or a child process; nothing has happened.
        """
        self._commit()

    def rollback(self, value: Any = None) -> NoReturn:
        """Rolls back and never returns; the origin goes on after the block, with the value in ``outcome.value``.

        Raises:
            Finished: the transaction has ended.
            Error: this is inside another transaction, another thread or a child process; nothing has happened.
        """
        self._roll_back(value=value)

    # The with statement.

    def _enter(self) -> Transaction:
        frame = sys._getframe(1)
        if self._state == "new":
            frames.require_with_statement(frame)
        if not self._begin((frame.f_globals,)):
            self._skip_body(frame)
        return self

    def _skip_body(self, frame: FrameType) -> None:
        """Makes the caller's frame leave its block, or raises what the block has to."""
        self._skip = skip = frames.Skip(frame, self)
        try:
            if skip.arm():
                return
            raise self._failure or frames.nothing_is_traced()
        except BaseException:
            # A signal handler can have raised, too. `__exit__` is not called then, and the trap would spring later.
            self._skip = None
            skip.undo()
            raise

    def _exit(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._is_inside():
            self._keep_child_inside(exception)
            if exception is not None:
                self._roll_back(exception=exception)
            self._commit_or_roll_back()
            return False
        if self._skip is None:
            return False  # committed in the middle of the block: what happened since is the origin's own
        self._skip.undo()
        self._skip = None
        failure, self._failure = self._failure, None
        if failure is None or self._swallows(failure):
            # What a signal handler or the `as` target raised meanwhile is the program's.
            return isinstance(exception, (frames.BodySkipped, NoneType))
        cause, context = failure.__cause__, failure.__context__
        try:
            raise failure
        finally:
            # The exception that skipped the body is no part of the story.
            failure.__cause__, failure.__context__ = cause, context
            del failure

    def _swallows(self, failure: BaseException) -> bool:
        return False

    # Running a function.

    def run(
        self,
        function: Callable[Parameters, object],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Outcome:
        """Runs a function in this transaction; commits if it returns, rolls back if it raises."""
        return self._run(lambda: function(*args, **kwargs), globals_of(function))

    def _run(
        self,
        function: Callable[[], Any],
        spaces: Iterable[dict[str, Any]],
        decide: Decide | bool = True,
        script: bool = False,
    ) -> Outcome:
        """Runs a function; a script may end by ``SystemExit``, whose exit status says whether it ended well."""
        outcome: Outcome = self._guarded(self._run_guarded, function, spaces, decide, script)
        return outcome

    def _run_guarded(
        self,
        function: Callable[[], Any],
        spaces: Iterable[dict[str, Any]],
        decide: Decide | bool,
        script: bool,
    ) -> Outcome:
        if not self._begin(spaces, decide if callable(decide) else None):
            self._failure = None
            return self.outcome
        value = None
        exit_code = 0 if script else None
        try:
            value = function()
            self._make_room()
            self._keep_child_inside(None)
        except BaseException as exception:
            self._keep_child_inside(exception)
            if script:
                exit_code = _exit_status(exception)
            if exit_code != 0:
                self._roll_back(exception=exception, exit_code=exit_code)
        if not decide:
            self._roll_back(value=value, exit_code=exit_code)
        self._commit_or_roll_back(value)
        outcome = self.outcome
        outcome.value, outcome.exit_code = value, exit_code
        return outcome

    # The steps.

    def _begin(self, spaces: Iterable[dict[str, Any]], decide: Decide | None = None) -> bool:
        """Begins; True in the branch, False in the origin once the transaction has been rolled back."""
        if self._state != "new":
            raise Finished("a transaction can be used once; begin another with tentative.transaction()")
        monitor = executable.find()
        if "objects" not in self._without:
            self._before = Before(spaces)
        begun = _tentative.begin(
            self,
            without=sorted(self._without),
            allow=self._allow,
            output=self._output,
            timeout=self._timeout,
            memory_limit=self._memory_limit,
            decide=decide is not None,
            executable=monitor,
            program=_command_line(),
        )
        # Two processes come here.
        if isinstance(begun, _tentative.Branch):
            self._state = "inside"
            return True
        while isinstance(begun, _tentative.Frozen):
            self._was_frozen = True
            assert decide is not None
            begun = self._decide(begun, decide)
        assert isinstance(begun, _tentative.Ended)
        self._ended = begun
        self._settle()
        return False

    def _decide(
        self, frozen: _tentative.Frozen, decide: Decide
    ) -> _tentative.Branch | _tentative.Frozen | _tentative.Ended:
        """In the origin: asks whether the frozen branch may commit. If so, its ``commit`` goes on, not this."""
        # Names are compared by the code that is being judged, so they are not known here.
        outcome = self._told(frozen.report(), frozen.duration(), ObjectChanges(known=False))
        outcome._frozen = True
        try:
            wanted = decide(outcome)
            if wanted:
                frozen.may_commit()
        except BaseException as error:
            self._ended = ended = frozen.rollback()
            self._settle()
            self.outcome.exception = error
            return ended
        return frozen.commit() if wanted else frozen.rollback()

    def _make_room(self) -> None:
        """Before all steps of an end: the code may have left no memory for them."""
        if self._branch is not None:
            self._branch.make_room()

    def _commit(self) -> None:
        self._make_room()
        branch = self._inside()
        self._known = self._found_objects()
        try:
            branch.commit(self)
        except CommitRefused as refused:
            refused.__traceback__ = None
            raise
        # This is the origin, with the branch's memory.
        self._settle()

    def _find(self) -> tuple[Found, ...] | None:
        """What changed by name; None where what the program has done to the interpreter makes that unknown."""
        try:
            return () if self._before is None else tuple(find(self._before))
        except MemoryError:
            raise
        except Exception:
            return None

    def _found_objects(self) -> ObjectChanges | None:
        """What a commit brings by name, if anything."""
        found = self._find()
        if not found or self._before is None:
            return ObjectChanges(known=False) if found is None else None
        return ObjectChanges(resolve(self._before, found))

    def _commit_or_roll_back(self, value: Any = None) -> None:
        """Commits at the end of a block; a refusal rolls back and is raised in the origin."""
        try:
            self._commit()
        except CommitRefused as refused:
            reasons = refused.reasons
            conflicts = refused.paths if isinstance(refused, Conflict) else ()
        else:
            return
        self._roll_back(value=value, refused=reasons, conflicts=conflicts)

    def _roll_back(
        self,
        value: Any = None,
        exception: BaseException | None = None,
        exit_code: int | None = None,
        refused: tuple[str, ...] = (),
        conflicts: tuple[str, ...] = (),
    ) -> NoReturn:
        branch = self._inside()
        # First of all: what follows needs memory, of which there may be none left.
        branch.make_room()
        try:
            found = self._find()
            process = branch.process()
            nothing = value is None and exception is None and exit_code is None and not refused
            if nothing and found == () and process == "[]":
                payload = b""
            else:
                payload = transport.pack(value, exception, exit_code, refused, conflicts, found, process)
        except MemoryError:
            payload = transport.WITHOUT_MEMORY
        branch.rollback(payload)

    def _is_inside(self) -> bool:
        self._settle()
        return self._state == "inside"

    def _inside(self) -> _tentative.Branch:
        self._settle()
        if self._state == "ended":
            raise Finished("this transaction has ended; begin another with tentative.transaction()")
        if self._branch is None:
            raise Error("the transaction has not begun: use it in a with statement, or its run method")
        return self._branch

    def _keep_child_inside(self, exception: BaseException | None) -> None:
        """Ends a child of the branch that comes to the end of the block: what comes after it is not the child's to run.

        A child that exits (``sys.exit``) gets the status that it asked for, as it would without a transaction.
        """
        if self._branch is None or not self._branch.is_in_child:
            return
        status = None if exception is None else _exit_status(exception)
        try:
            if status is None:
                if exception is not None:
                    tracebacks.print_exception(type(exception), exception, exception.__traceback__)
                print(_CHILD_AT_THE_END.format(os.getpid()), file=sys.stderr)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        finally:
            # Whatever the streams are like, the child ends here.
            os._exit(1 if status is None else status)

    # The end, in the origin.

    def _settle(self) -> None:
        """Takes the end in; done once more when a signal handler has raised in the middle of it."""
        if self._state == "ended":
            return
        if self._committed is not None:
            committed = self._committed
            outcome = self._told(committed.report, committed.duration, self._known)
            outcome.committed = True
            self._end(outcome)
        elif self._ended is not None:
            self._end_rolled_back(self._ended)

    def _end_rolled_back(self, ended: _tentative.Ended) -> None:
        cause, number = ended.cause
        ending = _ending(ended) if cause == "asked" else None
        if ending is not None:
            outcome = self._end_told(ended, ending)
        elif cause == "asked" and not self._was_frozen:
            outcome = self._told(ended.report, ended.duration)
        else:
            outcome = self._told(ended.report, ended.duration, ObjectChanges(known=False))
            outcome.exception = None if cause == "asked" else self._reason(cause, number)
        ended.release()
        self._failure = outcome.exception
        if isinstance(outcome.exception, RolledBack):
            outcome.exception.outcome = outcome
        self._end(outcome)

    def _end_told(self, ended: _tentative.Ended, ending: transport.Ending) -> Outcome:
        """The outcome of a branch that had something to say about its end."""
        objects = None
        if ending.found is None:
            objects = ObjectChanges(known=False)
        elif self._before is not None:
            objects = ObjectChanges(resolve(self._before, ending.found))
        outcome = self._told(ended.report, ended.duration, objects, ending.process)
        outcome.value, outcome.exit_code = ending.value, ending.exit_code
        outcome.exception = ending.exception
        if isinstance(outcome.exception, CommitRefused) and "files" not in self._without:
            outcome.exception._forget_what_was_kept()
        if ending.out_of_memory and self._memory_limit is not None:
            outcome.exception = OutOfMemory(self._memory_limit)
            outcome.exception.__cause__ = ending.exception and ending.exception.__cause__
        if ending.refused:
            kept = self._keep_files(ended)
            outcome.exception = (
                Conflict(ending.refused, kept, ending.conflicts)
                if ending.conflicts
                else CommitRefused(ending.refused, kept)
            )
        return outcome

    def _keep_files(self, ended: _tentative.Ended) -> str | None:
        """The id under which the files of a refused commit stay pending; None if there are none."""
        if "files" in self._without:
            return None
        try:
            return ended.keep_files()
        except RuntimeError:
            return None

    def _reason(self, cause: str, number: int | None) -> BaseException:
        reasons: Mapping[str, Callable[[], RolledBack]] = {
            "crashed": lambda: Crashed(number or 0),
            "exited": lambda: Exited(number or 0),
            "timed out": lambda: TimedOut(self._timeout),
            "monitor lost": MonitorLost,
        }
        return reasons[cause]()

    def _told(
        self,
        report: _tentative.Report,
        duration: float,
        objects: ObjectChanges | None = None,
        process: str = "[]",
    ) -> Outcome:
        limited_by = None if self._memory_limit is None else _tentative.MEMORY_LIMIT_BY
        return Outcome.told_by(_Told(report, objects, process), duration, limited_by)

    def _end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._branch = self._before = self._known = None
        # The last of it: what comes before can be done again.
        self._state = "ended"
        # Whoever was the branch is waited for now.
        self._committed = self._ended = None


def globals_of(function: object) -> tuple[dict[str, Any], ...]:
    """The globals of a function or method; nobody else is asked, whose own code would run outside of everything."""
    while type(function) is MethodType:
        function = function.__func__
    return (function.__globals__,) if type(function) is FunctionType else ()


def _command_line() -> list[str]:
    """What this process runs, for the record. A program can have put anything there, and words need not be text."""
    words = getattr(sys, "argv", None)
    words = [sys.executable, *(words if isinstance(words, (list, tuple)) else ())]
    texts = (word if isinstance(word, str) else describe(word) for word in words)
    return [text.encode("utf-8", "backslashreplace").decode() for text in texts]


def _ending(ended: _tentative.Ended) -> transport.Ending | None:
    """What the branch had to say about its end; None if that was nothing."""
    try:
        payload = ended.payload
        if payload is not None:
            return transport.unpack(payload) if payload else None
    except MemoryError:
        pass
    return transport.unpack(transport.LOST)


def _exit_status(exception: BaseException) -> int | None:
    """The exit status of a script that ended by ``SystemExit``, as the interpreter would give it; else None."""
    if not isinstance(exception, SystemExit):
        return None
    code = exception.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def transaction(
    *,
    allow: Iterable[str] = (),
    output: Output = "live",
    timeout: float | None = None,
    memory_limit: int | None = None,
    without: str | Iterable[str] = (),
) -> Transaction:
    """Makes a transaction for a ``with`` statement; it commits at the block's end and rolls back if the block raises.

    Args:
        allow: crossings to let through, in the words of ``tentative run --allow`` (``net:example.org:443``).
        output: ``live`` shows output as it comes, ``hold`` delivers it at the commit, ``capture`` puts it into
            ``outcome.stdout`` and ``outcome.stderr``.
        timeout: seconds after which it is rolled back.
        memory_limit: bytes of address space that the code may add.
        without: names of layers to go without; the result then says ``containment: partial``.
    """
    return Transaction(
        allow=allow, output=output, timeout=timeout, memory_limit=memory_limit, without=without
    )
