"""``with tentative.transaction()``: commit, rollback, and which process goes on with what."""

import contextlib
import itertools
import os
import sys
import types

import pytest
import tentative

STATE = {"list": [1], "number": 1}
#: Every way to go without some of the layers that can be gone without.
LAYERS = ("files", "kin", "world")
SUBSETS = [subset for size in range(4) for subset in itertools.combinations(LAYERS, size)]


def test_commits_at_the_end_of_the_block(options):
    alias, pid = STATE["list"], os.getpid()
    alias[:] = [1]
    with tentative.transaction(**options) as tx:
        alias.append(2)
        new = object()
    assert STATE["list"] is alias and alias == [1, 2]
    assert os.getpid() == pid and isinstance(new, object)
    assert tx.outcome.committed and tx.outcome.exception is None


def test_rolls_back_and_raises_again(options):
    alias = STATE["list"]
    alias[:] = [1]
    with pytest.raises(KeyError) as caught:
        with tentative.transaction(**options) as tx:
            alias.append(2)
            raise KeyError("gone")
    assert alias == [1] and caught.value.args == ("gone",)
    assert type(caught.value.__cause__).__name__ == "RemoteTraceback"
    assert 'raise KeyError("gone")' in str(caught.value.__cause__)
    assert not tx.outcome.committed and tx.outcome.exception is caught.value


def test_rollback_hands_a_value_over_and_goes_on_after_the_block(options):
    steps = ["before"]
    with tentative.transaction(**options) as tx:
        steps.append("inside")
        tx.rollback({"answer": 42, "function": lambda: 43})
        steps.append("never")
    steps.append("after")
    assert steps == ["before", "after"]
    assert tx.outcome.value["answer"] == 42 and tx.outcome.value["function"]() == 43
    assert tx.outcome.exception is None and not tx.outcome.committed


def test_commit_in_the_middle_leaves_the_rest_outside(options):
    numbers = []
    with pytest.raises(ZeroDivisionError) as caught:
        with tentative.transaction(**options) as tx:
            numbers.append(1)
            tx.commit()
            numbers.append(2)
            raise ZeroDivisionError
    assert numbers == [1, 2] and tx.outcome.committed
    assert caught.value.__cause__ is None, "it was raised in the origin itself"


def test_a_finished_transaction_says_so(options):
    with tentative.transaction(**options) as tx:
        tx.commit()
        with pytest.raises(tentative.Finished):
            tx.commit()
        with pytest.raises(tentative.Finished):
            tx.rollback()
    with pytest.raises(tentative.Finished):
        with tx:
            raise AssertionError
    with tentative.transaction(**options) as tx:
        tx.rollback()
    with pytest.raises(tentative.Finished):
        tx.rollback()
    with pytest.raises(tentative.Finished, match="begin another"):
        tx.run(len, ())


def test_a_transaction_that_has_not_begun_says_so():
    tx = tentative.transaction()
    for ask in (tx.commit, tx.rollback, lambda: tx.outcome, lambda: tx.changes, lambda: tx.verdict):
        with pytest.raises(tentative.Error, match="not (begun|ended)"):
            ask()


@pytest.mark.parametrize(
    "options",
    (
        {"without": "file"},
        {"output": "loud"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"memory_limit": -1},
    ),
)
def test_bad_options_are_refused_at_once(options):
    with pytest.raises(ValueError):
        tentative.transaction(**options)


def test_an_unknown_rule_is_refused_before_anything_runs(options):
    with pytest.raises(ValueError, match="kinds: net, listen, unix, device, signal"):
        with tentative.transaction(allow=["netz:example.org"], **options):
            raise AssertionError
    with pytest.raises(ValueError, match="would match less than it says"):
        with tentative.transaction(allow=["net:*.example.org"], **options):
            raise AssertionError


def test_other_ways_to_enter_are_refused(options):
    with (
        contextlib.ExitStack() as stack,
        pytest.raises(tentative.Unsupported, match="with statement") as caught,
    ):
        stack.enter_context(tentative.transaction(**options))
    assert caught.value.layer == "objects" and "tentative.run" in caught.value.remedy


def test_nested_blocks(options, memory):
    log = []
    with tentative.transaction(**options) as outer:
        log.append("outer")
        with tentative.transaction(**memory) as inner:
            log.append("lost")
            inner.rollback("value of the inner")
        log.append(inner.outcome.value)
        with tentative.transaction(**memory):
            log.append("kept")
    assert log == ["outer", "value of the inner", "kept"] and outer.outcome.committed


def test_inside_a_generator_and_a_coroutine(options):
    def generate():
        yield "before"
        with tentative.transaction(**options) as tx:
            yield "inside"
            tx.rollback()
        yield "after"

    assert list(generate()) == ["before", "after"]

    async def coroutine():
        with tentative.transaction(**options) as tx:
            tx.rollback(5)
        return tx.outcome.value

    running = coroutine()
    with pytest.raises(StopIteration) as stop:
        running.send(None)
    assert stop.value.value == 5


def test_an_exception_class_of_a_module_that_only_the_branch_imported(options, tmp_path, monkeypatch):
    """Its module's code must not run in the origin: the exception arrives as a description of itself."""
    (tmp_path / "only_inside.py").write_text("class Boom(Exception): pass\nraised = Boom('text')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(tentative.RemoteError) as caught:
        with tentative.transaction(**options):
            import only_inside

            raise only_inside.raised
    assert "only_inside" not in sys.modules
    assert (caught.value.type_name, caught.value.message) == ("only_inside.Boom", "text")
    assert "raise only_inside.raised" in caught.value.traceback


def test_what_cannot_be_serialised_is_described(options):
    class Awkward(Exception):
        def __init__(self, one, two):
            super().__init__("only one")
            self.lock = sys._getframe()

    with pytest.raises(tentative.RemoteError, match="Awkward: only one"):
        with tentative.transaction(**options):
            raise Awkward(1, 2)
    with tentative.transaction(**options) as tx:
        tx.rollback(sys._getframe())
    assert isinstance(tx.outcome.value, tentative.RemoteError) and "frame" in tx.outcome.value.type_name


@pytest.mark.parametrize("kind", (KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration))
def test_special_exceptions_keep_their_class(options, kind):
    def block():
        with tentative.transaction(**options):
            raise kind("why")

    with pytest.raises(kind) as caught:
        block()
    assert caught.value.args == ("why",)


def test_the_context_of_an_exception_is_not_ours(options):
    with pytest.raises(ValueError) as caught:
        with tentative.transaction(**options):
            raise ValueError
    seen, current = [], caught.value
    while current is not None:
        seen.append(type(current).__name__)
        current = current.__context__ if current.__cause__ is None else current.__cause__
    assert seen == ["ValueError", "RemoteTraceback"]


def test_a_tracer_goes_on(options):
    events = []

    def tracer(frame, event, argument):
        if frame.f_code is traced.__code__:
            events.append((event, frame.f_lineno - frame.f_code.co_firstlineno))
        return tracer

    def traced():
        with tentative.transaction(**options) as tx:
            tx.rollback()
        return tx

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        traced()
        found = sys.gettrace()
    finally:
        sys.settrace(before)
    assert found is tracer
    assert ("line", 2) not in events and ("line", 3) in events


def test_at_the_top_of_a_module(options):
    module = types.ModuleType("example")
    module.options = options
    source = "import tentative\nwith tentative.transaction(**options) as tx: here = 1; tx.rollback(here)\nend = 1\n"
    exec(source, module.__dict__)
    assert module.tx.outcome.value == 1 and not hasattr(module, "here") and module.end == 1


def test_only_the_main_thread_may_begin(options):
    import threading

    found = []

    def other():
        try:
            tentative.transaction(**options).run(lambda: None)
        except tentative.Unsupported as error:
            found.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found and found[0].layer == "threads" and found[0].remedy


def test_a_commit_while_a_thread_runs_is_refused_and_the_branch_goes_on(options):
    import threading

    with tentative.transaction(**options) as tx:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        second = threading.Thread(target=stop.wait)
        second.start()
        with pytest.raises(tentative.CommitRefused, match="2 other threads run; join them before the commit"):
            tx.commit()
        stop.set()
        second.join()
        thread.join()
        stop.clear()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        with pytest.raises(tentative.CommitRefused) as caught:
            tx.commit()
        stop.set()
        thread.join()
    assert tx.outcome.committed
    assert caught.value.reasons == ("1 other thread runs; join it before the commit",)


def test_a_refused_commit_at_the_end_is_raised_in_the_origin(options):
    marker = []
    with pytest.raises(tentative.CommitRefused) as caught:
        with tentative.transaction(**options) as tx:
            import threading

            marker.append("lost")
            threading.Thread(target=threading.Event().wait, daemon=True).start()
    assert marker == [] and caught.value.reasons and not tx.outcome.committed
    assert tx.outcome.exception is caught.value


def test_a_child_that_was_not_waited_for_refuses_the_commit(options):
    import subprocess

    with tentative.transaction(**options) as tx:
        child = subprocess.Popen(["sleep", "30"])
        with pytest.raises(tentative.CommitRefused, match="wait for it"):
            tx.commit()
        child.kill()
        child.wait()
    assert tx.outcome.committed and child.returncode == -9


@pytest.mark.parametrize("without", SUBSETS, ids="-".join)
def test_whatever_it_goes_without_it_is_where_it_was(without, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def inside():
        with open("made", "w") as file:
            file.write("inside")
        return os.getcwd(), os.listdir()

    outcome = tentative.transaction(without=without).run(inside)
    assert outcome.value == (str(tmp_path), ["made"]) and outcome.committed
    assert (tmp_path / "made").read_text() == "inside" and os.getcwd() == str(tmp_path)
    assert not [change for change in outcome.changes.process if change.name == "cwd"]
    assert outcome.containment.extent == ("partial" if without else "full")


def test_containment_is_told_inside_too(options):
    with tentative.transaction(**options) as tx:
        gaps = [gap.layer for gap in tx.containment.gaps]
    assert sorted(gaps) == sorted(options.get("without", ())), gaps
    assert tx.containment == tx.outcome.containment
