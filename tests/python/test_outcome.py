"""``Outcome`` and its parts as a person reads them: reprs, sentences, tracebacks, names, and what was shown."""

import os
import pickle
import pty
import subprocess
import sys
import threading
import traceback

import pytest
import tentative
from processes import ran
from tentative.report import Change

#: Tells on a private descriptor what was shown, with nothing of its own on the standard streams.
SHOWN = """
import os, sys, tentative
teller = os.fdopen(int(sys.argv[1]), "w")
for options in ({"without": ("files", "kin", "world")}, {}):
    for output in ("live", "hold", "capture"):
        with tentative.transaction(output=output, **options) as tx:
            print("printed")
            seen = [effect.target for effect in tx.effects]
            tx.rollback(seen)
        outcome = tx.outcome
        assert outcome.value == [effect.target for effect in outcome.effects], outcome.value
        assert bool(outcome.verdict.rollback) == (not options)
        for effect in outcome.effects:
            assert (effect.layer, effect.operation, effect.decision) == ("process", "inherit", "allowed")
            print(output, effect.id, effect.effect_class, effect.target, file=teller)
"""


def shown(stdout, stderr, stdin=subprocess.DEVNULL):
    """The lines that the program tells when these are its standard streams, each for both kinds of transaction."""
    told, teller = os.pipe()
    command = [sys.executable, "-c", SHOWN, str(teller)]
    done = subprocess.run(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=[teller])
    os.close(teller)
    with open(told) as lines:
        found = lines.read().splitlines()
    assert done.returncode == 0, found
    assert found[: len(found) // 2] == found[len(found) // 2 :]
    return found[: len(found) // 2]


def test_live_output_is_an_effect_for_each_stream(tmp_path):
    with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
        assert shown(out, err) == [
            f"live 1 shown standard output ({tmp_path / 'out'})",
            f"live 2 shown standard error ({tmp_path / 'err'})",
        ]
        assert shown(out, out) == [f"live 1 shown standard output ({tmp_path / 'out'})"]
        assert shown(subprocess.DEVNULL, err) == [f"live 1 shown standard error ({tmp_path / 'err'})"]
    assert shown(subprocess.DEVNULL, subprocess.DEVNULL) == []


def test_live_output_on_a_terminal_is_an_effect():
    controller, terminal = pty.openpty()
    try:
        name = os.ttyname(terminal)
        assert shown(terminal, terminal) == [f"live 1 shown standard output ({name})"]
        # As input it can be written to as well, also when output is not shown.
        assert shown(terminal, terminal, terminal) == [
            f"live 1 shown standard output ({name})",
            f"hold 1 shown standard input ({name})",
            f"capture 1 shown standard input ({name})",
        ]
    finally:
        os.close(controller)
        os.close(terminal)


def test_what_was_shown_is_in_the_record_of_kept_files(everything, tmp_path):
    program = (
        "import threading, tentative\n"
        "try:\n"
        "    with tentative.transaction():\n"
        "        open('made', 'w').close()\n"
        "        threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "except tentative.CommitRefused as refused:\n"
        "    print(refused.pending_id)\n"
    )
    done = ran(sys.executable, "-c", program, cwd=tmp_path)
    kept = done.stdout.strip()
    executable = os.path.join(os.path.dirname(sys.executable), "tentative")
    told = ran(executable, "show", kept)
    assert "shown" in told.stdout and "standard output (" in told.stdout, told.stdout + done.stderr
    assert ran(executable, "rollback", kept).returncode == 0


def test_a_refused_commit_that_changed_no_file_keeps_nothing(everything):
    store = os.environ["TENTATIVE_HOME"]

    def records():
        return [
            name for name in os.listdir(store) if os.path.exists(os.path.join(store, name, "record.json"))
        ]

    before = records()
    with pytest.raises(tentative.CommitRefused) as caught:
        with tentative.transaction():
            threading.Thread(target=threading.Event().wait, daemon=True).start()
    assert caught.value.pending_id is None and "kept" not in str(caught.value)
    assert records() == before


def test_an_outcome_shows_itself_in_a_line(options):
    run = tentative.transaction(**options).run
    assert repr(run(lambda: 5)).startswith("<Outcome committed, value=5, no changes")

    def fails():
        os.environ["TENTATIVE_TEST"] = "changed"
        raise ValueError("x")

    outcome = tentative.transaction(**options).run(fails)
    assert repr(outcome).startswith("<Outcome rolled back, exception=ValueError('x'), 1 change")
    outcome = tentative.transaction(**options).run(lambda: os._exit(3))
    assert repr(outcome).startswith("<Outcome rolled back, exception=Exited(3), changes not known")
    assert repr(outcome.changes) == "Changes(not known)"
    outcome = tentative.transaction(**options).run(lambda: "long " * 1000)
    assert len(repr(outcome)) < 200
    told = []
    tentative.exec("x = 1", {}, commit=lambda frozen: told.append(repr(frozen)), **options)
    assert told[0].startswith("<Outcome not decided, changes not known")


def test_files_are_known_after_a_crash_and_counted(everything, tmp_path):
    outcome = tentative.run(lambda: ((tmp_path / "made").touch(), os._exit(3)))
    assert repr(outcome.changes) == "Changes(1 created, more not known)"
    assert "1 change and others not known" in repr(outcome)


def test_an_outcome_counts_what_crossed(everything):
    def asks_for_a_stranger():
        for _ in range(2):
            with pytest.raises(OSError):
                os.kill(os.getppid(), 0)

    assert ", 2 observed" in repr(tentative.run(asks_for_a_stranger))


def test_outcomes_are_equal_by_their_fields(memory):
    assert tentative.Outcome(value=1, changes=None) == tentative.Outcome(value=1, changes=None)
    assert tentative.Outcome(changes=None) != tentative.Outcome(changes=None, committed=True)
    effects = ("an effect",)
    outcome = tentative.Outcome(effects=effects, changes=None)
    assert outcome.effects is effects and outcome != tentative.Outcome(changes=None)


def test_a_transaction_says_where_it_is(options):
    tx = tentative.transaction(**options)
    assert repr(tx) == "<Transaction: not begun>"
    with tx:
        inside = repr(tx)
    assert (inside, repr(tx)) == ("<Transaction: inside>", "<Transaction: committed>")
    with tentative.transaction(**options) as tx:
        tx.rollback()
    assert repr(tx) == "<Transaction: rolled back>"


def test_every_kind_of_change_is_a_sentence():
    def told(kind, before=None, after=None):
        return str(Change("files", "/new", kind, before, after))

    assert told("created", None, "file") == "/new is new: file"
    assert told("modified", "1", "2") == "/new changed: from 1 to 2"
    assert told("modified", "file 1 B", "file 1 B") == "/new changed: file 1 B"
    assert told("deleted", "file") == "/new was deleted: it was file"
    assert told("deleted") == "/new was deleted"
    assert told("renamed", "/old", "file") == "/new was renamed from /old"
    assert told("metadata", "0644", "0600") == (
        "/new changed in mode, owner, times or attributes: from 0644 to 0600"
    )


def test_a_path_is_exact_whatever_bytes_it_has(everything, tmp_path):
    names = ["plain", "a\\x0ab", "a\nb", "a\udcffb", "a\\xffb"]
    outcome = tentative.run(lambda: ([(tmp_path / name).touch() for name in names], 1 / 0))
    assert {change.path for change in outcome.changes.files} == {str(tmp_path / name) for name in names}


def test_a_renamed_file_is_explained_by_its_old_path(everything, tmp_path):
    (tmp_path / "old").write_text("text")
    outcome = tentative.run(lambda: ((tmp_path / "old").rename(tmp_path / "new"), 1 / 0))
    assert outcome.changes.explain() == f"{tmp_path / 'new'} was renamed from {tmp_path / 'old'}."


def test_who_decides_sees_the_files(everything, tmp_path):
    source = f"open({str(tmp_path / 'made')!r}, 'w').close()"
    seen = []

    def no_files(frozen):
        seen.append([change.name for change in frozen.changes.files])
        assert not frozen.changes.objects.known and frozen.duration > 0
        return not frozen.changes.files

    assert not tentative.exec(source, {}, commit=no_files).committed
    assert seen == [[str(tmp_path / "made")]] and not (tmp_path / "made").exists()


def test_a_traceback_begins_with_the_code(options, tmp_path):
    def fails():
        raise LookupError("on purpose")

    script = tmp_path / "script.py"
    script.write_text("raise LookupError('on purpose')\n")
    with pytest.raises(LookupError) as caught:
        with tentative.transaction(**options):
            fails()
    for exception in (
        tentative.transaction(**options).run(fails).exception,
        tentative.exec("raise LookupError('on purpose')", {}, **options).exception,
        tentative.exec(script, {}, **options).exception,
        caught.value,
    ):
        text = str(exception.__cause__)
        assert "on purpose" in text and os.path.join("tentative", "") not in text, text


def test_public_classes_are_named_as_they_are_imported():
    for name in tentative.__all__:
        public = getattr(tentative, name)
        if isinstance(public, type):
            assert (public.__module__, public.__qualname__) == ("tentative", name)
            assert pickle.loads(pickle.dumps(public)) is public
    told = traceback.format_exception_only(tentative.Exited, tentative.Exited(3))
    assert told[0].startswith("tentative.Exited: ")
    refused = pickle.loads(pickle.dumps(tentative.Conflict(["a"], "id", ["/a"])))
    assert (refused.reasons, refused.pending_id, refused.paths) == (("a",), "id", ("/a",))
