"""The extension module: thin, without decisions of its own; the package is its only user."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn

from typing_extensions import Self

__version__: str
#: The means by which a ``memory_limit`` is kept, as the record names it.
MEMORY_LIMIT_BY: str

class Names:
    """Which object each name is bound to, noted and compared by address."""

    def __init__(
        self,
        modules: dict[str, Any],
        given: Sequence[dict[str, Any]],
        judge: Callable[[object, dict[str, Any]], bool],
        path: list[str],
        environ: dict[bytes, bytes],
        by_version: bool = True,
    ) -> None: ...
    @property
    def path(self) -> list[str]: ...
    @property
    def environ(self) -> dict[bytes, bytes]: ...
    def unchanged(self, modules: dict[str, Any], path: list[str], environ: dict[bytes, bytes]) -> bool: ...
    def compare(
        self, modules: dict[str, Any], given: Sequence[dict[str, Any]]
    ) -> list[tuple[str, str, int, Any, Any]]: ...
    def addresses(self, index: int) -> tuple[int, int]: ...
    def old(
        self, index: int, modules: dict[str, Any], given: Sequence[dict[str, Any]]
    ) -> tuple[Any, Any] | None: ...
    def __len__(self) -> int: ...

class Report:
    """What a transaction did, as JSON in the names of the record."""

    changes: str
    effects: str
    verdict: str
    containment: str
    memory: list[tuple[str, int]]
    stdout: bytes
    stderr: bytes

class Guard:
    """What a transaction is besides its steps: in the branch these end by ending it, or not at all."""

    def __init__(self, *arguments: object, **options: object) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool: ...
    def _guarded(self, function: Callable[..., Any], *arguments: Any) -> Any: ...

class Branch:
    """The handle on a transaction, in the branch; for anybody else its methods raise Error."""

    is_in_child: bool

    def commit(self, owner: Guard) -> None: ...
    def make_room(self) -> None: ...
    def rollback(self, payload: bytes) -> NoReturn: ...
    def report(self) -> Report: ...
    def process(self) -> str: ...
    def memory(self) -> list[tuple[str, int]]: ...

class Frozen:
    """The handle on a branch that asks for its commit, in the origin."""

    def report(self) -> Report: ...
    def duration(self) -> float: ...
    def may_commit(self) -> None: ...
    def commit(self) -> Frozen | Ended: ...
    def rollback(self) -> Ended: ...

class Ended:
    """A transaction that was rolled back, seen in the origin."""

    cause: tuple[str, int | None]
    payload: bytes | None
    report: Report
    duration: float

    def keep_files(self) -> str: ...
    def release(self) -> None: ...

class Committed:
    """A transaction that was committed, seen in the origin after it."""

    report: Report
    duration: float

def begin(
    owner: Guard,
    *,
    without: Sequence[str],
    allow: Sequence[str],
    output: str,
    timeout: float | None,
    memory_limit: int | None,
    decide: bool,
    executable: str | None,
    program: Sequence[str],
) -> Branch | Frozen | Ended: ...
