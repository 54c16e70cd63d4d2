"""Benchmarks of transactions in a live interpreter that holds about 50 MB of small objects, huge pages off.

Prints the raw pairs as JSON lines, from which `tools/bench.py` makes the tables. Both sides of a pair run back to back
in the same process.
"""

from __future__ import annotations

import array
import ctypes
import gc
import json
import multiprocessing
import os
import sys
import time

PR_SET_THP_DISABLE = 41
#: The layers a memory-only transaction goes without.
WITHOUT = ("files", "kin", "world")
IDLE_SECONDS = 0.05
ARRAYS, ARRAY_ITEMS = 100, 1 << 17


def fill() -> list:
    """Makes about 50 MB of small objects: what an interpreter at work looks like."""
    return [(number, str(number), [number], {"n": float(number)}) for number in range(110_000)]


def timed(work) -> float:
    """Milliseconds that something takes."""
    started = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - started) / 1e6


def row(what: str, against: str, at_most: float, pairs: int, ours, theirs, idle: float = 0.0) -> None:
    """Runs both sides in turn, who comes first alternating, and prints the pairs; the first pair only warms up."""
    measured = []
    for number in range(pairs + 1):
        sides = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        times = []
        for side in sides:
            if idle:
                time.sleep(idle)
            times.append(timed(side))
        if number > 0:
            measured.append(times if number % 2 == 0 else times[::-1])
    print(
        json.dumps({"what": what, "against": against, "at_most": at_most, "pairs_ms": measured}), flush=True
    )


def fork() -> None:
    """What rolling back is measured against."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def send_arrays(connection) -> None:
    """The forked child's side of bringing 100 MB back."""
    connection.send([array.array("d", bytes(8 * ARRAY_ITEMS)) for _ in range(ARRAYS)])
    connection.close()


def bring_by_pickling() -> None:
    """A forked child makes the arrays and sends them back."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=send_arrays, args=(there,))
    child.start()
    there.close()
    brought = here.recv()
    child.join()
    assert len(brought) == ARRAYS


def main() -> None:
    """Measures the rows named on the command line, or all of them."""
    pairs, user, chosen = int(sys.argv[1]), os.geteuid() != 0, sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    held = fill()
    gc.collect()
    import tentative

    def rollback(**options) -> None:
        with tentative.transaction(**options) as tx:
            tx.rollback()

    def commit(**options) -> None:
        with tentative.transaction(**options):
            pass

    def bring_by_commit() -> None:
        with tentative.transaction(without=WITHOUT):
            brought = [array.array("d", bytes(8 * ARRAY_ITEMS)) for _ in range(ARRAYS)]
        assert len(brought) == ARRAYS

    def many(work, count: int = 100) -> None:
        for _ in range(count):
            work()

    plain = "os.fork, os._exit, waitpid"
    rows = {
        "memory": lambda: row(
            "begin + rollback, memory only",
            plain,
            2.2 if user else 1.2,
            pairs,
            lambda: rollback(without=WITHOUT),
            fork,
        ),
        "idle": lambda: row(
            "begin + rollback, all layers, after 50 ms", plain, 1.7, pairs, rollback, fork, IDLE_SECONDS
        ),
        "hundred": lambda: row(
            "begin + rollback, all layers, 100 in a row",
            f"100 x {plain}",
            3,
            pairs,
            lambda: many(rollback),
            lambda: many(fork),
        ),
        "commit": lambda: row(
            "begin + commit, all layers, after 50 ms", plain, 2.5, pairs, commit, fork, IDLE_SECONDS
        ),
        "bring": lambda: row(
            "commit of 100 MB in arrays of 1 MB",
            "multiprocessing child sends them",
            0.3,
            pairs,
            bring_by_commit,
            bring_by_pickling,
        ),
    }
    for name, measure in rows.items():
        if chosen and name not in chosen:
            continue
        try:
            measure()
        except tentative.Error as error:
            print(json.dumps({"what": name, "failed": f"{type(error).__name__}: {error}"}), flush=True)
    del held


if __name__ == "__main__":
    main()
