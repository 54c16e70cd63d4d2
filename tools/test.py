"""Runs every test, Rust and Python: as root, and again as an ordinary user made for it.

Started as an ordinary user it runs everything but the tests that need root, which skip themselves. Every skipped
test must be named with its reason in tests/allowed-skips.txt; in CI (CI=true) another skip is a failure, and so is a
second run that could not be made.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import environment
import ordinary_user
from environment import ROOT, say

#: Tests run with the crash points compiled in; the installed package has none.
FEATURES = ("--features", "tentative-cli/crash-points")
ALLOWED = ROOT / "tests" / "allowed-skips.txt"
PYTHON_TESTS = ("tests/python", "tests/guarantees")
#: `--only` words that choose tests by name instead of by language: how nextest and how others choose them.
TOPICS = {
    "crash": ("test(/crash|kill|step/) | binary(/crash|kill/)", ("crash", "kill", "step"), "crash or kill"),
    "model": ("test(model)", ("model",), "model"),
}


@dataclass
class Suite:
    """What was built once and is run for each user."""

    only: str | None
    python: Path | None = None
    nextest: Path | None = None
    binaries: list[tuple[Path, Path]] = field(default_factory=list)
    described: Path | None = None


def output(*command: str) -> str:
    """Runs a build step and returns what it printed; its failure ends ours."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}")
    return done.stdout


def build_rust(suite: Suite, scratch: Path) -> None:
    """Builds the Rust tests and notes where their binaries are."""
    if shutil.which("cargo") is None:
        sys.exit("error: no cargo on the path\nhint: install a Rust toolchain, 1.88 or newer")
    say("building the Rust tests")
    nextest = shutil.which("cargo-nextest")
    if nextest is not None:
        suite.nextest, suite.described = Path(nextest), scratch
        listed = ["cargo", "nextest", "list", "--workspace", *FEATURES, "--list-type=binaries-only"]
        (scratch / "binaries.json").write_text(output(*listed, "--message-format=json"))
        (scratch / "cargo.json").write_text(output("cargo", "metadata", "--format-version=1", *FEATURES))
        return
    built = output("cargo", "test", "--workspace", *FEATURES, "--no-run", "--message-format=json")
    for line in built.splitlines():
        message = json.loads(line)
        if message.get("executable") and message.get("profile", {}).get("test"):
            manifest = Path(message["manifest_path"])
            suite.binaries.append((Path(message["executable"]), manifest.parent))


def rust_commands(suite: Suite) -> list[tuple[list[str], Path]]:
    """The commands that run the Rust tests, each with its directory; none of them needs cargo."""
    if suite.nextest is not None:
        command = [str(suite.nextest), "nextest", "run", "--no-fail-fast", "--no-tests=pass"]
        command += [f"--binaries-metadata={suite.described}/binaries.json"]
        command += [f"--cargo-metadata={suite.described}/cargo.json"]
        command += ["-E", TOPICS[suite.only][0]] if suite.only in TOPICS else []
        return [(command, ROOT)]
    names = TOPICS[suite.only][1] if suite.only in TOPICS else ()
    return [([str(binary), "--test-threads=1", *names], where) for binary, where in suite.binaries]


def python_commands(suite: Suite) -> list[tuple[list[str], Path]]:
    """The command that runs the Python tests."""
    present = [path for path in PYTHON_TESTS if any((ROOT / path).glob("**/test_*.py"))]
    if suite.python is None or not present:
        return []
    command = [str(suite.python), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "record_skips", "--durations=5", *present]
    command += ["-k", TOPICS[suite.only][2]] if suite.only in TOPICS else []
    return [(command, ROOT)]


def run_as_is(command: list[str], cwd: Path, variables: dict[str, str]) -> int:
    """Runs a command as who we are."""
    return subprocess.run(command, cwd=cwd, env={**os.environ, **variables}).returncode


def run_suite(suite: Suite, who: str, run, scratch: Path) -> bool:
    """Runs all tests in the name of somebody, then looks at the skipped ones; returns whether all is well."""
    log = scratch / f"skips-{who}"
    log.touch()
    log.chmod(0o666)
    variables = {
        "TENTATIVE_SKIP_LOG": str(log),
        "PYTHONPATH": str(ROOT / "tools"),
        "INSTA_UPDATE": "no",
        "INSTA_WORKSPACE_ROOT": str(ROOT),
    }
    if suite.only in TOPICS:
        variables["TENTATIVE_THOROUGH"] = "1"
    well = True
    for command, cwd in rust_commands(suite) if suite.only != "python" else []:
        say(f"Rust tests as {who}: {Path(command[0]).name}")
        well &= run(command, cwd, variables) == 0
    for command, cwd in python_commands(suite) if suite.only != "rust" else []:
        say(f"Python tests as {who}")
        # pytest ends with 5 when a topic has no test in Python.
        well &= run(command, cwd, variables) in ((0, 5) if suite.only in TOPICS else (0,))
    return judge_skips(log, who) and well


def allowed_skips() -> list[tuple[str, str, str]]:
    """The list of allowed skips: who, test and reason, the last two as patterns."""
    lines = [line.split("#")[0].strip() for line in ALLOWED.read_text().splitlines()]
    return [tuple(line.split(None, 2)) for line in lines if line]


def judge_skips(log: Path, who: str) -> bool:
    """Prints every skipped test; returns False if one is not on the list and this is CI."""
    skipped = sorted({tuple(line.split("\t", 1)) for line in log.read_text().splitlines()})
    kind = "root" if who == "root" else "user"
    unexpected = []
    for test, reason in skipped:
        named = any(
            on in (kind, "any") and fnmatch.fnmatch(test, name) and fnmatch.fnmatch(reason, why)
            for on, name, why in allowed_skips()
        )
        print(f"skipped as {who}: {test}: {reason}{'' if named else '  <-- NOT ALLOWED'}", flush=True)
        if not named:
            unexpected.append(test)
    if unexpected:
        say(f"{len(unexpected)} skipped tests are not on {ALLOWED.relative_to(ROOT)}")
    return not unexpected or os.environ.get("CI") != "true"


def second_run(suite: Suite, scratch: Path) -> bool:
    """Runs everything again as an ordinary user; without useradd that is a failure in CI, said loudly elsewhere."""
    if ordinary_user.program("useradd") is None:
        say("NO SECOND RUN: there is no useradd to make an ordinary user with")
        return os.environ.get("CI") != "true"
    needed = [ROOT, scratch, ordinary_user.interpreters(), *([suite.nextest] if suite.nextest else [])]
    with ordinary_user.ordinary_user(needed) as user:
        well = run_suite(suite, user.entry.pw_name, user.run, scratch)
        left = user.left_processes()
        if left:
            say(f"processes left behind by the tests of the ordinary user: {left}")
        rest = user.left_files()
        if rest:
            say("left behind by the tests of the ordinary user:")
            subprocess.run(["ls", "-lAR", "--", *rest])
        return well and not left and not rest


def mounts() -> int:
    """How many mounts this mount namespace has."""
    return len(Path("/proc/self/mountinfo").read_text().splitlines())


def main() -> None:
    """Builds once, runs for each user, ends with 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("rust", "python", *TOPICS), help="a part of the tests")
    parser.add_argument("--as-is", action="store_true", help="no second run")
    options = parser.parse_args()
    os.umask(0o022)
    suite = Suite(options.only)
    with tempfile.TemporaryDirectory(prefix="tentative-tests-", dir="/var/tmp") as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)
        if options.only != "rust":
            suite.python = environment.prepare_package()
        if options.only != "python":
            build_rust(suite, scratch)
        before = mounts()
        who = "root" if os.geteuid() == 0 else "ordinary user"
        well = run_suite(suite, who, run_as_is, scratch)
        if os.geteuid() == 0 and not options.as_is:
            well &= second_run(suite, scratch)
        if mounts() != before:
            say(f"the tests left mounts behind: {mounts() - before}")
            well = False
    say("all is well" if well else "something FAILED")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
