"""A live interpreter runs somebody else's build script, looks at what it did, takes it back, then commits it.

    build_script.py [--sabotage LAYER] [--without LAYER,…]

Four proofs, each by a separate process that knows nothing of the run (witness.py): after the rollback nothing is
different; after the commit everything is as after a plain run in another process, except that the objects are the same
ones as before and nobody outside noticed; and the same two for the script run from the shell. `--sabotage` changes
something of a layer behind each proof's back: whichever layer it is, all four have to fail.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import tentative

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "somebody_elses_build.py"
SAME_PROCESS = ("pid", "started")
LAYERS = ("memory", "threads", "objects", "process", "files", "kin", "world")


def count() -> Iterator[int]:
    """An open generator, somewhere in its middle."""
    number = 0
    while True:
        number += 1
        yield number


class Project:
    """A directory with sources, and the interpreter's state around it."""

    def __init__(self, directory: Path, bystander: Bystander) -> None:
        self.directory = directory
        self.bystander = bystander
        for name in ("source", "docs", "cache"):
            (directory / name).mkdir(parents=True)
        (directory / "source" / "main.c").write_text("int main(void) { return 0; }\n")
        (directory / "source" / "old_name.c").write_text("/* renamed by the build */\n")
        (directory / "docs" / "guide.md").write_text("# Guide\n")
        (directory / "cache" / "entry").write_text("stale\n")
        (directory / "notes.txt").write_text("do not delete\n")
        options: dict[str, Any] = {"optimise": False}
        self.state: dict[str, Any] = {
            "settings": {"options": options, "targets": [{"name": "library", "options": options}]},
            "numbers": count(),
            "array": numpy.arange(1000, dtype="float64"),
            "log": open(directory / "build.log", "w"),
            "database": sqlite3.connect(directory / "builds.db"),
        }
        next(self.state["numbers"])
        self.state["log"].write("started\n")
        self.state["log"].flush()
        self.state["database"].execute("create table builds (number integer, who text)")
        self.state["database"].execute("insert into builds values (1, 'ours')")
        self.state["database"].commit()
        os.environ.update(
            PROJECT=str(directory),
            KEEP_ME="kept",
            LISTENER_PORT=str(bystander.port),
            BYSTANDER_PID=str(bystander.process.pid),
        )
        os.chdir(directory)

    def tell(self) -> dict[str, Any]:
        """What only this process can tell: values, aliases and identities of its objects."""
        state = self.state
        settings, array = state["settings"], state["array"]
        environment = dict(os.environ)
        for name in ("LISTENER_PORT", "BYSTANDER_PID", "PROJECT", "OLDPWD", "PWD"):
            environment.pop(name, None)
        return {
            "settings": settings,
            "one object": [target["options"] is settings["options"] for target in settings["targets"]],
            "array": [float(array.sum()), array.shape, str(array.dtype)],
            "generator at": state["numbers"].gi_frame.f_locals["number"],
            "log at": state["log"].tell(),
            "environment": environment,
            "search path": [entry.replace(str(self.directory), "") for entry in sys.path],
            "json": json.dumps({"b": 1, "a": 2}),
            "C extension": "_lsprof" in sys.modules,
            "SIGUSR1": str(signal.getsignal(signal.SIGUSR1)),
            "identities": {name: id(value) for name, value in state.items()}
            | {"options": id(settings["options"])},
        }

    def look(self) -> dict[str, Any]:
        """Asks a separate process to look."""
        command = [
            sys.executable,
            "-I",
            str(HERE / "witness.py"),
            "look",
            str(self.directory),
            str(os.getpid()),
        ]
        command += [str(self.bystander.process.pid), str(self.bystander.counter)]
        done = subprocess.run(
            command, input=json.dumps(self.tell()), stdout=subprocess.PIPE, text=True, check=True
        )
        return dict(json.loads(done.stdout))

    def sabotage(self, layer: str | None) -> None:
        """Changes something of a layer, as a rollback or commit that does not work would."""
        settings = self.state["settings"]
        if layer == "memory":
            self.state["array"][7] += 1
        elif layer == "threads":
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        elif layer == "objects":
            settings["options"] = dict(settings["options"])
        elif layer == "process":
            os.chdir("/")
        elif layer == "files":
            with open(self.directory / "source" / "main.c", "a") as file:
                file.write("// sabotage\n")
        elif layer == "kin":
            self.bystander.process.kill()
            self.bystander.process.wait()
        elif layer == "world":
            self.bystander.connect()


class Bystander:
    """The process outside that must notice nothing."""

    def __init__(self, counter: Path) -> None:
        self.counter = counter
        counter.touch()
        command = [sys.executable, "-I", str(HERE / "bystander.py"), str(counter)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.process.stdout.close()

    def connect(self) -> None:
        """Connects for real, and waits until it was counted."""
        import socket

        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.recv(1)

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two looks differ, in words."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        return [
            each for name in names for each in differences(one.get(name), other.get(name), f"{where}/{name}")
        ]
    return [] if one == other else [f"{where}: {one!r} is not {other!r}"]


def proof(name: str, expected: Any, found: Any) -> bool:
    """Prints whether a proof holds."""
    wrong = differences(expected, found)
    print(f"{'PROVED' if not wrong else 'NOT PROVED'}: {name}", flush=True)
    for line in wrong[:8]:
        print(f"    {line[:200]}", flush=True)
    return not wrong


def without_identity(look: dict[str, Any]) -> dict[str, Any]:
    """A look without what differs between two processes that did the same, and without what is outside of both."""
    told = {name: value for name, value in look["told"].items() if name != "identities"}
    kept = {name: value for name, value in look["process"].items() if name not in SAME_PROCESS}
    return {**look, "told": told, "process": kept, "bystander alive": None, "connections": None}


def apart_from_a_plain_run(look: dict[str, Any], reached: list[str]) -> dict[str, Any]:
    """What a plain run in another process cannot show: which objects and which process it is, and who noticed."""
    return {
        "identities": look["told"]["identities"],
        "process": {name: look["process"][name] for name in SAME_PROCESS},
        "bystander alive": look["bystander alive"],
        "connections": look["connections"],
        "reached": reached,
    }


def plainly(scratch: Path) -> dict[str, Any]:
    """The script run plainly in another process, on a project of its own: what a commit has to look like."""
    done = subprocess.run(
        [sys.executable, __file__, "--plainly", str(scratch)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd="/",
    )
    return dict(json.loads(done.stdout))


def run_plainly(scratch: Path) -> None:
    """The other process of :func:`plainly`."""
    bystander = Bystander(scratch / "plain-connections")
    try:
        project = Project(scratch / "plain", bystander)
        space: dict[str, Any] = {**project.state, "__name__": "__main__", "__file__": str(SCRIPT)}
        before, sys.argv = sys.argv, [str(SCRIPT)]
        exec(compile(SCRIPT.read_text(), str(SCRIPT), "exec"), space)
        sys.argv = before
        assert sorted(space["reached"]) == ["network", "process"], "outside of a transaction it reaches both"
        print(json.dumps(without_identity(project.look())))
    finally:
        bystander.end()


def show(outcome: tentative.Outcome) -> None:
    """Prints changes, effects and verdict."""
    print("changes:")
    for line in outcome.changes.explain().splitlines():
        print(f"    {line}")
    print("effects:")
    for effect in outcome.effects:
        print(f"    {effect}")
    safe = {True: "safe", False: "NOT safe"}
    print(
        f"verdict: {safe[bool(outcome.verdict.rollback)]} to roll back, {safe[bool(outcome.verdict.commit)]} to commit"
    )
    print(f"containment: {outcome.containment}", flush=True)


def in_the_interpreter(
    project: Project, expected: dict[str, Any], options: dict[str, Any], sabotage: str | None
) -> bool:
    """Rolls the script back, then commits it; returns whether both proofs hold."""
    before = project.look()
    print("\n== somebody else's build script, tentatively ==", flush=True)
    outcome = tentative.exec(SCRIPT, dict(project.state), commit=False, **options)
    show(outcome)
    if outcome.exception is not None:
        raise outcome.exception
    project.sabotage(sabotage)
    well = proof("after the rollback nothing is different", before, project.look())

    print("\n== again, and committed ==", flush=True)
    space = dict(project.state)
    outcome = tentative.exec(SCRIPT, space, **options)
    outcome.result()
    project.sabotage(sabotage)
    after = project.look()
    # A plain run reaches the network and the bystander; a transaction must not.
    wanted = apart_from_a_plain_run(before, reached=[])
    found = apart_from_a_plain_run(after, space["reached"])
    name = "after the commit everything is as after a plain run, in the same objects, unnoticed outside"
    return proof(name, {**expected, "apart": wanted}, {**without_identity(after), "apart": found}) and well


def from_the_shell(scratch: Path, bystander: Bystander, sabotage: str | None) -> bool:
    """The same script as a program of its own, with the `tentative` command."""
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    project = Project(scratch / "shell", bystander)
    command = [str(Path(sys.executable).with_name("tentative")), "run"]
    script = ["--", sys.executable, str(SCRIPT)]
    before = project.look()
    print("\n== from the shell: tentative run --rollback ==", flush=True)
    subprocess.run([*command, "--rollback", *script], check=True)
    project.sabotage(sabotage)
    well = proof("after the shell's rollback nothing is different", before, project.look())
    print("\n== from the shell: tentative run --commit ==", flush=True)
    subprocess.run([*command, "--commit", *script], check=True)
    project.sabotage(sabotage)
    after = project.look()
    found = after["files"]
    changed = {
        name for name in found.keys() | before["files"].keys() if found.get(name) != before["files"].get(name)
    }
    wanted = {"build", "build/program", "build/program.o", "cache", "cache/entry", "docs", "docs/guide.md"}
    wanted |= {
        "manual",
        "manual/guide.md",
        "notes.txt",
        "source/main.c",
        "source/new_name.c",
        "source/old_name.c",
    }
    rest = {name: before[name] for name in before if name != "files"}
    return (
        proof(
            "after the shell's commit the files have changed, and nothing else",
            {"changed": sorted(wanted), "main.c": "int main(void) { return 1; }\n", **rest},
            {
                "changed": sorted(changed),
                "main.c": (project.directory / "source" / "main.c").read_text(),
                **{name: after[name] for name in rest},
            },
        )
        and well
    )


def main() -> int:
    """Runs everything; 0 if every proof holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sabotage", choices=LAYERS, metavar="LAYER", help=f"one of {', '.join(LAYERS)}")
    parser.add_argument(
        "--without", default="", help="layers to go without, where this machine cannot contain them"
    )
    parser.add_argument("--plainly", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plainly:
        run_plainly(arguments.plainly)
        return 0
    scratch = Path(tempfile.mkdtemp(prefix="tentative-example-"))
    bystander = Bystander(scratch / "connections")
    try:
        expected = plainly(scratch)
        project = Project(scratch / "project", bystander)
        well = in_the_interpreter(project, expected, {"without": arguments.without}, arguments.sabotage)
        if bystander.process.poll() is not None:
            bystander = Bystander(scratch / "connections")
        well &= from_the_shell(scratch, bystander, arguments.sabotage)
    finally:
        os.chdir("/")
        bystander.end()
        shutil.rmtree(scratch)
    print("\nall proofs hold" if well else "\na proof FAILED", flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
