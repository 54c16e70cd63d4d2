"""``_tentative.Names``: which bindings changed, told by the versions of dictionaries and by their items alike."""

import gc
import os
import sys
import types

import pytest
from tentative import _tentative


def note(modules, by_version, given=(), path=None, environ=None):
    """The names of some modules, of which those named ``own…`` are the program's."""
    judge = lambda name, module: name.startswith("own")  # noqa: E731
    path = sys.path if path is None else path
    environ = os.environ._data if environ is None else environ
    names = _tentative.Names(modules, list(given), judge, path, environ, by_version=by_version)
    return names, lambda: names.unchanged(modules, path, environ)


def module(name, **bindings):
    made = types.ModuleType(name)
    made.__dict__.update(bindings)
    return made


@pytest.fixture
def modules():
    return {name: module(name, number=1, text="a", items=[]) for name in ("library", "other", "own", "owned")}


def rebind(modules):
    modules["library"].number = 2


def create(modules):
    modules["library"].new = None


def delete(modules):
    del modules["library"].text


def clear(modules):
    vars(modules["library"]).clear()


def update(modules):
    vars(modules["library"]).update(number=3)


def pop_and_put_back_elsewhere(modules):
    vars(modules["library"])["text"] = vars(modules["library"]).pop("text")


def rebind_in_a_global_statement(modules):
    exec("def change():\n    global number\n    number = 4\nchange()", vars(modules["library"]))


def rebind_own(modules):
    modules["own"].number = 2


def remove_a_module(modules):
    del modules["other"]


def add_a_module(modules):
    modules["more"] = module("more")


def replace_a_module(modules):
    modules["library"] = module("library", **vars(modules["library"]))


CHANGES = (
    rebind,
    create,
    delete,
    clear,
    update,
    pop_and_put_back_elsewhere,
    rebind_in_a_global_statement,
    rebind_own,
    remove_a_module,
    add_a_module,
    replace_a_module,
)


@pytest.mark.parametrize("by_version", [True, False])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_of_a_binding_is_seen(modules, change, by_version):
    _, unchanged = note(modules, by_version)
    assert unchanged()
    change(modules)
    assert not unchanged()
    # What was noted for the last transaction is not taken for what is noted now.
    _, unchanged = note(modules, by_version)
    assert unchanged()


@pytest.mark.parametrize("by_version", [True, False])
def test_looking_and_changing_objects_in_place_is_no_change(modules, by_version):
    names, unchanged = note(modules, by_version)
    modules["library"].items.append(modules["library"].number)
    dict(vars(modules["library"])), list(modules), gc.collect()
    assert unchanged() and names.compare(modules, []) == []


@pytest.mark.parametrize("by_version", [True, False])
def test_a_module_at_the_address_of_a_dropped_one_is_another(modules, by_version):
    """Its dictionary lies elsewhere, and the old one's memory may be anything by now."""
    _, unchanged = note(modules, by_version)
    address = id(modules["library"])
    for _ in range(1000):
        bindings = dict(vars(modules["library"]))
        del modules["library"]
        others = {"other": modules.pop("other"), "own": modules.pop("own"), "owned": modules.pop("owned")}
        modules["library"] = types.ModuleType("library")
        modules.update(others)
        if id(modules["library"]) == address:
            break
        vars(modules["library"]).update(bindings, number=5)
    vars(modules["library"]).update(bindings, number=5)
    assert not unchanged()
    names, unchanged = note(modules, by_version)
    assert unchanged() and names.compare(modules, []) == []


@pytest.mark.parametrize("by_version", [True, False])
def test_a_librarys_globals_can_be_given_in_between(modules, by_version):
    """A function of a library's is run: its module is kept for that time and is the library's again later."""
    for given in ((), (vars(modules["library"]),), (), (vars(modules["library"]), {"apart": 1})):
        names, unchanged = note(modules, by_version, given)
        assert unchanged() and len(names) == sum(len(vars(each)) for each in modules.values()) + (
            len(given) == 2
        )
        vars(modules["library"])["number"] = object()
        assert not unchanged()
        assert [(row[0], row[1], row[3]) for row in names.compare(modules, list(given))] == [
            ("library", "modified", "number")
        ]


@pytest.mark.parametrize("by_version", [True, False])
def test_the_path_and_the_environment_are_looked_at(modules, by_version):
    path, environ = ["a", "b"], {b"NAME": b"value"}
    _, unchanged = note(modules, by_version, path=path, environ=environ)
    environ[b"NAME"] = b"other"
    assert not unchanged()
    _, unchanged = note(modules, by_version, path=path, environ=environ)
    path[1] = "c"
    assert not unchanged()


@pytest.mark.parametrize("by_version", (True, False))
def test_what_is_no_module_is_told_among_the_modules(modules, by_version):
    """None keeps a name from being imported; a module can put any object in its own place."""
    modules.update(blocked=None, proxy=object(), going=object())
    names, unchanged = note(modules, by_version)
    assert unchanged() and names.compare(modules, []) == []
    del modules["going"]
    modules.update(new=None, other=object(), proxy=object(), blocked=module("blocked"))
    told = {row[3]: row[1] for row in names.compare(modules, [])}
    assert told == {
        "new": "created",
        "other": "modified",
        "proxy": "modified",
        "blocked": "modified",
        "going": "deleted",
    }
