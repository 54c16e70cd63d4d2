"""Code that leaves the interpreter in a state in which it is hard to tell what it did; run by ``test_endings.py``.

Each is run in a process of its own and has to end where its transaction ends: rolled back by its error, and committed.
"""

import ast
import collections
import functools
import os
import sys
import traceback
import types

import tentative

OPTIONS = ast.literal_eval(sys.argv[1])
STATE = types.SimpleNamespace(number=0)


def place():
    return os.readlink("/proc/self/ns/mnt"), os.getpid()


class Unreadable(type):
    def __getattribute__(self, name):
        raise KeyError(name)


class Proxy:
    """As lazy objects are: whoever asks for its class has it made."""

    asked = 0

    @property
    def __class__(self):
        Proxy.asked += 1
        raise KeyError("asked")


class Loud:
    def __repr__(self):
        raise SystemExit(3)


def environment():
    vars(os)["environ"] = os.environ.copy()


def no_environment():
    vars(os).pop("environ", None)


def paths():
    sys.path = tuple(sys.path)


def no_paths():
    sys.path = None


def no_modules():
    sys.modules = None


def other_modules():
    sys.modules = collections.UserDict(sys.modules)


def key():
    globals()[lambda: 0] = 1


def module_by_number():
    sys.modules[5] = types.ModuleType("five")


def proxy():
    STATE.__dict__["proxy"] = globals()["proxy_of_it"] = Proxy()


def metaclass():
    globals()["of_a_metaclass"] = Unreadable("Made", (), {})()


def partial():
    globals()["partial_of_it"] = functools.partial(print, Loud())


def method():
    globals()["method_of_it"] = Loud().__repr__


def error():
    globals()["error_with_it"] = ValueError(Loud())


SPOILERS = (
    environment,
    no_environment,
    paths,
    no_paths,
    no_modules,
    other_modules,
    key,
    module_by_number,
    proxy,
    metaclass,
    partial,
    method,
    error,
)


def check(spoil):
    outside = place()
    try:
        with tentative.transaction(**OPTIONS) as tx:
            spoil()
            raise ArithmeticError("not by zero")
    except (ArithmeticError, tentative.RemoteError) as error:
        # Where the modules are gone it cannot be told by its own class.
        assert "not by zero" in str(error)
    assert place() == outside and not tx.outcome.committed
    with tentative.transaction(**OPTIONS) as tx:
        spoil()
    assert place() == outside and tx.outcome.committed
    assert tx.changes.objects or spoil is module_by_number, "a key that is no text names no module"
    outcome = tentative.transaction(**OPTIONS).run(spoil)
    assert place() == outside and outcome.committed
    assert Proxy.asked == 0


def main():
    for spoil in SPOILERS:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                check(spoil)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
            raise SystemExit(f"{spoil.__name__} did not end where it has to")


if __name__ == "__main__":
    main()
