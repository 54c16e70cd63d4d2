"""``tx.changes``: objects by name, memory by region, and the sentences of ``explain``."""

import gc
import json
import os
import sys
import types

import pytest
import tentative
from tentative.objects import Before, find, gaps, resolve
from tentative.objects.describe import LONGEST, describe


@pytest.fixture
def module():
    """A module of the program's own, with some names."""
    for name in [name for name in sys.modules if name.startswith("xmlrpc")]:
        del sys.modules[name]
    made = types.ModuleType("of_the_test")
    made.__dict__.update(kept=1, number=1000, gone="was here", items=[1, 2])
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def change(module):
    module.number = 2000
    module.number += 1
    module.new = {"a": 1}
    del module.gone
    module.items.append(3)
    module.items = (module.items, 1)
    json.dumps = len
    os.environ["TENTATIVE_TEST"] = "x"
    sys.path.append("somewhere")
    import xmlrpc.server

    return xmlrpc.server


def names(changes):
    return {(each.name, each.kind): (each.before, each.after) for each in changes}


def test_what_a_rolled_back_transaction_changed(memory, module):
    with tentative.transaction(**memory) as tx:
        change(module)
        tx.rollback()
    objects = tx.changes.objects
    found = names(objects)
    assert found["of_the_test.number", "modified"] == ("1000", "2001")
    assert found["of_the_test.new", "created"] == (None, "{'a': 1}")
    assert found["of_the_test.gone", "deleted"] == ("'was here'", None)
    assert found["of_the_test.items", "modified"] == ("[1, 2]", "([1, 2, 3], 1)"), (
        "the old value is the origin's"
    )
    assert found["json.dumps", "modified"] == ("<function json.dumps>", "<function builtins.len>")
    assert found["os.environ.TENTATIVE_TEST", "created"] == (None, "'x'")
    assert found["sys.path.'somewhere'", "created"] == (None, None)
    assert "xmlrpc.server" in objects.imported and ("of_the_test.kept", "modified") not in found
    assert [each.name for each in objects.deleted] == ["of_the_test.gone"]
    assert {each.name for each in objects.rebound} >= {"json.dumps", "of_the_test.number"}
    assert [each.name for each in objects.environ] == ["os.environ.TENTATIVE_TEST"]
    assert [each.name for each in objects.path] == ["sys.path.'somewhere'"]
    assert module.number == 1000 and json.dumps is not len


def test_what_a_committed_transaction_changed(memory, module):
    before = json.dumps
    try:
        with tentative.transaction(**memory) as tx:
            change(module)
    finally:
        json.dumps = before
        os.environ.pop("TENTATIVE_TEST", None)
        sys.path.remove("somewhere")
    found = names(tx.changes.objects)
    assert found["of_the_test.number", "modified"] == ("1000", "2001")
    assert found["of_the_test.gone", "deleted"] == ("'was here'", None)
    assert found["json.dumps", "modified"] == ("<function json.dumps>", "<function builtins.len>")
    assert tx.changes.memory.pages > 10 and tx.changes.memory.bytes == tx.changes.memory.pages * 4096
    assert set(tx.changes.memory.regions) == {"heap", "stack", "file", "anonymous"}


def test_looking_from_inside_and_then_deciding(memory, module):
    dumps = json.dumps  # otherwise the function is gone in the branch, and its name alone is known there
    with tentative.transaction(**memory) as tx:
        change(module)
        text = tx.changes.explain()
        risky = any(each.name == "json.dumps" for each in tx.changes.objects.rebound)
        pages = tx.changes.memory.pages
        if risky:
            tx.rollback((text, pages))
    text, pages = tx.outcome.value
    assert "json.dumps changed: from <function json.dumps> to <function builtins.len>." in text
    assert "of_the_test.gone was deleted: it was 'was here'." in text and pages > 0
    assert "were imported: " in text and "pages of memory" in text
    assert "of_the_test.new is new: {'a': 1}." in tx.changes.explain() and json.dumps is dumps
    counts = {
        kind: sum(each.kind == kind for each in tx.changes) for kind in ("created", "modified", "deleted")
    }
    assert all(f"{count} {kind}" in repr(tx.changes) for kind, count in counts.items())


def test_given_globals_are_looked_at(memory):
    space = {"x": 1, "y": [1]}
    outcome = tentative.exec("x = 5\nz = 6\ndel y", space, commit=False, **memory)
    found = names(outcome.changes.objects)
    assert found["globals.x", "modified"] == ("1", "5") and found["globals.y", "deleted"] == ("[1]", None)
    assert found["globals.z", "created"] == (None, "6") and space["x"] == 1


def test_a_class_without_a_module_is_told(memory):
    # `type` takes the module from the name of the code that calls it, and this code has none.
    outcome = tentative.exec("C = type('C', (), {})\nx = C()", {}, **memory)
    assert [(change.name, change.after) for change in outcome.changes.objects] == [
        ("globals.C", "<class C>"),
        ("globals.x", "<C object>"),
    ]


def test_nothing_changed(memory):
    outcome = tentative.transaction(**memory).run(lambda: tentative)
    assert list(outcome.changes.objects) == [] and not outcome.changes
    space = {}
    outcome = tentative.exec("x = 1", space, without="objects,files,kin,world")
    assert list(outcome.changes.objects) == [] and space["x"] == 1, "without the layer nothing is compared"


def test_modules_can_go_and_be_replaced(memory, module):
    with tentative.transaction(**memory) as tx:
        del sys.modules["of_the_test"]
        sys.modules["json.scanner"] = types.ModuleType("json.scanner")
        tx.rollback()
    found = names(tx.changes.objects)
    assert ("sys.modules.of_the_test", "deleted") in found and (
        "sys.modules.json.scanner",
        "modified",
    ) in found


def test_a_crash_takes_the_list_along(memory, module):
    outcome = tentative.transaction(**memory).run(lambda: (change(module), os._exit(1)))
    assert list(outcome.changes.objects) == [] and "crashes" in " ".join(gaps.GAPS)


def test_finding_without_a_transaction(module):
    before = Before()
    assert before.unchanged() and find(before) == []
    module.number, module.other = 5, 6
    found = resolve(before, find(before))
    assert {(each.name, each.kind, each.before, each.after) for each in found} == {
        ("number", "modified", "1000", "5"),
        ("other", "created", None, "6"),
    }


class Loud:
    def __repr__(self):
        raise AssertionError("the repr of a class written in Python was called")


@pytest.mark.parametrize(
    ("value", "text"),
    (
        (Loud(), "<test_objects.Loud object>"),
        ([Loud()], "[<test_objects.Loud object>]"),
        ({"k": Loud()}, "{'k': <test_objects.Loud object>}"),
        (Loud, "<class test_objects.Loud>"),
        (len, "<function builtins.len>"),
        (json, "<module 'json'>"),
        (10**100, f"<int of {(10**100).bit_length()} bits>"),
        (b"x" * 100, "b'xxxxxxxxxxxxxxxxxxxx'... (100 bytes)"),
        (object(), "<object object>"),
        (1.5, "1.5"),
        (None, "None"),
        ("a\nb", r"'a\nb'"),
    ),
)
def test_descriptions_run_no_code_of_the_object(value, text):
    assert describe(value) == text


def test_a_collector_that_rebinds_names_does_no_harm(module):
    """Its callbacks run while the state before is noted, where nobody holds what a name was bound to."""

    def rebind(phase, info):
        module.number = float(len(phase)) + 0.5

    gc.callbacks.append(rebind)
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(40):
            before = Before()
            module.number = [None]
            junk = [float(n) + 0.25 for n in range(50)]
            (number,) = (each for each in resolve(before, find(before)) if each.name == "number")
            assert number.kind == "modified" and (number.before is None or number.before.endswith(".5")), junk
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(rebind)


def test_descriptions_are_short():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    circle = []
    circle.append(circle)
    for value in (
        list(range(10**6)),
        "x" * 10**6,
        deep,
        circle,
        {n: "y" * 1000 for n in range(100)},
        bytearray(10**7),
    ):
        assert len(describe(value)) <= LONGEST


def test_process_state_crosses_a_rollback(options, tmp_path):
    with tentative.transaction(**options) as tx:
        os.chdir(tmp_path)
        os.umask(0o027)
        tx.rollback()
    changed = {change.name: change.after for change in tx.changes.process}
    assert changed == {"cwd": str(tmp_path), "umask": "0027"}
    assert "umask changed" in tx.changes.explain() and tx.changes.objects.known


def test_what_a_crash_changed_by_name_is_unknown_and_not_nothing(options):
    def crash():
        os.environ["TENTATIVE_TEST"] = "changed"
        os._exit(3)

    changes = tentative.transaction(**options).run(crash).changes
    assert not changes.objects.known and len(changes.objects) == 0
    assert "not known" in changes.explain()
