"""Transactions for running code: run it in a copy-on-write snapshot, look, then commit or roll back.

    with tentative.transaction() as tx:
        ...                             # commits at the end; rolls back when it raises

    outcome = tentative.run(f, *args)   # the outcome as a value
    outcome = tentative.exec(source)

``tx.changes``, ``tx.effects``, ``tx.verdict`` and ``tx.containment`` say what it did, whether it can be taken back, and
how far it was contained.
"""

from ._tentative import __version__
from .changes import Changes
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
from .forms import attempts, exec, run, transactional
from .outcome import Outcome
from .transaction import Transaction, transaction

__all__ = [
    "Changes",
    "CommitRefused",
    "Conflict",
    "Crashed",
    "Error",
    "Exited",
    "Finished",
    "OutOfMemory",
    "Outcome",
    "RemoteError",
    "RolledBack",
    "TimedOut",
    "Transaction",
    "Unsupported",
    "__version__",
    "attempts",
    "exec",
    "run",
    "transaction",
    "transactional",
]

# What users see in tracebacks and pickles is where they import it from.
for _name in __all__:
    if isinstance(_public := globals()[_name], type):
        _public.__module__ = __name__
del _name, _public
