"""The core of the Python API in one plain program, for each interpreter version that the machine has.

Run by ``test_versions.py`` with the installed package on the path; prints ``ok`` or fails with a traceback.
"""

import os
import sys

import tentative

MEMORY = {"without": ("files", "kin", "world")}
COUNTER = 0
STATE = {"list": [1], "generator": (number for number in range(10)), "object": object()}


def fails():
    STATE["list"].append("lost")
    raise LookupError("no")


def commit_is_exact():
    alias, pid, identity = STATE["list"], os.getpid(), id(STATE["object"])
    with tentative.transaction(**MEMORY) as tx:
        alias.append(2)
        next(STATE["generator"])
        import decimal
        import sqlite3

        made = [decimal.Decimal(1) / 3, sqlite3.sqlite_version, bytearray(5_000_000)]
        made.append(made)
        closure = (lambda cell: lambda: cell)(made)
    assert tx.outcome.committed and STATE["list"] is alias == [1, 2] and os.getpid() == pid
    assert next(STATE["generator"]) == 1 and id(STATE["object"]) == identity
    assert closure() is made[3] is made and len(made[2]) == 5_000_000
    assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)


def rollback_leaves_nothing():
    alias = STATE["list"]
    before = list(alias), sorted(sys.modules), dict(os.environ), list(sys.path)
    with tentative.transaction(**MEMORY) as tx:
        alias.clear()
        next(STATE["generator"])
        import xmlrpc.client

        os.environ["NEW"] = xmlrpc.client.__name__
        sys.path.append("nowhere")
        tx.rollback({"value": 1})
    assert tx.outcome.value == {"value": 1}
    assert before == (list(alias), sorted(sys.modules), dict(os.environ), list(sys.path))
    assert "xmlrpc.client" in tx.changes.objects.imported
    assert next(STATE["generator"]) == 2


def every_ending():
    tx = tentative.transaction(**MEMORY)
    assert isinstance(tx.run(fails).exception, LookupError) and "lost" not in STATE["list"]
    outcome = tentative.exec("import ctypes; ctypes.string_at(0)", {}, **MEMORY)
    assert outcome.exception.signal == 11
    assert tentative.exec("import os; os._exit(3)", {}, **MEMORY).exception.code == 3
    assert isinstance(
        tentative.exec("while True: pass", {}, timeout=0.2, **MEMORY).exception, tentative.TimedOut
    )
    assert tentative.exec("import sys; sys.exit(4)", {}, **MEMORY).exit_code == 4
    try:
        with tentative.transaction(**MEMORY):
            fails()
    except LookupError as error:
        assert "core_cases.py" in str(error.__cause__)
    else:
        raise AssertionError


def forms():
    numbers = []
    for tx in tentative.attempts(3, **MEMORY):
        numbers.append(tx.number)
        with tx:
            assert tx.number == 2
    assert numbers == [1, 2]
    space = {}
    assert tentative.exec("x = 1", space, commit=lambda frozen: True, **MEMORY).committed and space["x"] == 1
    assert (
        not tentative.exec("x = 2", space, commit=lambda frozen: False, **MEMORY).committed
        and space["x"] == 1
    )


def names_are_told():
    """Each by instructions that have run often enough to be specialised, on a module of the library's."""
    global COUNTER
    import colorsys

    def store():
        for number in range(2000):
            colorsys.ONE_THIRD = float(number)

    for _ in range(20):
        with tentative.transaction(**MEMORY) as tx:
            tx.rollback()
        assert not tx.changes.objects, tx.changes.objects
        store()
        with tentative.transaction(**MEMORY) as tx:
            colorsys.ONE_THIRD = 0.5
        assert [each.name for each in tx.changes.objects] == ["colorsys.ONE_THIRD"], tx.changes.objects
        with tentative.transaction(**MEMORY) as tx:
            store()
            COUNTER += 1
            tx.rollback()
        told = sorted((each.name, each.before) for each in tx.changes.objects)
        assert told == [("__main__.COUNTER", "0"), ("colorsys.ONE_THIRD", "0.5")], told


def again_and_again():
    for number in range(100):
        with tentative.transaction(**MEMORY) as tx:
            STATE["list"].append(number)
            if number % 2:
                tx.rollback()
    assert STATE["list"][-50:] == list(range(0, 100, 2))


if __name__ == "__main__":
    for case in (
        commit_is_exact,
        rollback_leaves_nothing,
        every_ending,
        forms,
        names_are_told,
        again_and_again,
    ):
        case()
    print("ok")
