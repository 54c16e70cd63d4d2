"""Transactions for running code: run it in a copy-on-write snapshot, look, then commit or roll back."""

from ._tentative import __version__
from .errors import (
    CommitRefused,
    Conflict,
    Crashed,
    Error,
    Exited,
    Finished,
    OutOfMemory,
    RemoteError,
    RolledBack,
    TimedOut,
    Unsupported,
)

__all__ = [
    "CommitRefused",
    "Conflict",
    "Crashed",
    "Error",
    "Exited",
    "Finished",
    "OutOfMemory",
    "RemoteError",
    "RolledBack",
    "TimedOut",
    "Unsupported",
    "__version__",
]
