"""Formatting, clippy, ruff, and the rules of this house that no other linter knows.

Every rule is a function that yields complaints; all of them run, and any complaint makes the result a failure.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import environment
from environment import ROOT, say

LONGEST_FILE = 800
LONGEST_SUBJECT = 60
SUBJECT = re.compile(r"^[a-z0-9][a-z0-9_./-]*: \S.*[^.\s]$")
#: Places of one person's machine, which say nothing to anybody else; `/home/me` is that of the examples.
MACHINE_PATH = re.compile(r"(?<![\w.}])(/root/|/work/|/home/(?!me/)[a-z]+/)")
WAIVER = re.compile(r"#!?\[allow\(")
#: Commits that were published before this rule was checked; history is not rewritten for them.
EXCUSED_COMMITS = ("fcfd952", "64bcd5b", "9572836", "d5ea071", "b9eed69")
#: The files of the extension module that may contain unsafe code; ARCHITECTURE.md says why.
UNSAFE_OF_THE_EXTENSION = ("guard.rs", "interpreter.rs", "names.rs", "versions.rs")
#: The one crate that may contain unsafe code.
UNSAFE_CRATE = "crates/tentative-sys/"
TEST_NAME = re.compile(r"`((?:crates|tests|python|examples)/[\w./-]+)::([\w:]+)`")
PROMISE = re.compile(r"^### (G\d+)\b", re.MULTILINE)


def files(*patterns: str) -> list[Path]:
    """The files of the repository that match, committed or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def name(path: Path) -> str:
    """A path as the repository knows it."""
    return str(path.relative_to(ROOT))


def file_lengths() -> Iterator[str]:
    """No source file is longer than a reader can keep in mind."""
    for path in files("*.rs", "*.py"):
        length = len(path.read_text().splitlines())
        if length > LONGEST_FILE:
            yield f"{name(path)}: {length} lines, at most {LONGEST_FILE}"


def headers() -> Iterator[str]:
    """Every source file opens with what it is."""
    for path in files("*.rs"):
        if not path.read_text().startswith("//! "):
            yield f"{name(path)}: does not open with //!"
    for path in files("*.py"):
        text = path.read_text().lstrip()
        text = text.split("\n", 1)[1] if text.startswith("#!") else text
        if text.strip() and not re.match(r'[rR]?"""', text.lstrip()):
            yield f"{name(path)}: does not open with a docstring"


def waivers() -> Iterator[str]:
    """Lints are waived with #[expect(…, reason)], never with a blanket allow."""
    for path in files("crates/*.rs"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if WAIVER.search(line) and "macro" not in line:
                yield f"{name(path)}:{number}: allow instead of expect"


def unsafe_code() -> Iterator[str]:
    """Every crate but the one for kernel mechanisms forbids unsafe code; the extension module's macros need it."""
    for path in files("crates/*/src/lib.rs"):
        here = name(path)
        if here.startswith((UNSAFE_CRATE, "crates/tentative-py/")):
            continue
        if "#![forbid(unsafe_code)]" not in path.read_text():
            yield f"{here}: does not forbid unsafe code"
    for path in sorted((ROOT / "crates" / "tentative-py" / "src").glob("**/*.rs")):
        if path.name not in UNSAFE_OF_THE_EXTENSION and "unsafe {" in path.read_text():
            yield f"{path.relative_to(ROOT)}: unsafe code of the extension module is in {UNSAFE_OF_THE_EXTENSION}"


def machine_paths() -> Iterator[str]:
    """Nothing in the repository names a place of somebody's machine."""
    for path in files("*.rs", "*.py", "*.md", "*.toml", "*.txt", "*.tsv", "Makefile", ".ci/run"):
        if path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if MACHINE_PATH.search(line) and "machine-path: ok" not in line:
                yield f"{name(path)}:{number}: names a place of one machine"


def commit_subjects() -> Iterator[str]:
    """`topic: imperative phrase`, at most 60 characters."""
    command = ["git", "log", "--no-merges", "--format=%h %s"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        commit, _, subject = line.partition(" ")
        if commit.startswith(EXCUSED_COMMITS):
            continue
        if len(subject) > LONGEST_SUBJECT:
            yield f"commit {commit}: subject has {len(subject)} characters: {subject}"
        if not SUBJECT.match(subject):
            yield f"commit {commit}: subject is not `topic: phrase`: {subject}"


def guarantees() -> Iterator[str]:
    """Every promise names a test, and every test it names exists."""
    document = ROOT / "GUARANTEES.md"
    promised, _, _ = document.read_text().partition("\n## What no test here can show")
    parts = PROMISE.split(promised)
    seen: set[str] = set()
    if len(parts) < 2:
        yield "GUARANTEES.md: promises nothing"
    for identity, text in zip(parts[1::2], parts[2::2], strict=True):
        if identity in seen:
            yield f"GUARANTEES.md: {identity} is there twice"
        seen.add(identity)
        tests = TEST_NAME.findall(text)
        if not tests:
            yield f"GUARANTEES.md: {identity} names no test"
        for file, test in tests:
            path = ROOT / file
            function = test.split("::")[-1]
            if not path.is_file() or not re.search(rf"\b(fn|def) {function}\b", path.read_text()):
                yield f"GUARANTEES.md: {identity} names {file}::{test}, which does not exist"


RULES: tuple[Callable[[], Iterator[str]], ...] = (
    file_lengths,
    headers,
    waivers,
    unsafe_code,
    machine_paths,
    commit_subjects,
    guarantees,
)


def main() -> None:
    """Runs everything, ends with 1 when anything complained."""
    tools = environment.prepare_tools()
    ruff = tools / "ruff"
    steps = (
        ["cargo", "fmt", "--all", "--check"],
        # A workspace of its own, which is not built here.
        ["cargo", "fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"],
        ["cargo", "clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"],
        ["cargo", "clippy", "-q", "--workspace", "--all-targets"]
        + ["--features", "tentative-cli/crash-points", "--", "-D", "warnings"],
        # Links in the documentation that lead nowhere.
        ["make", "-s", "docs"],
        [str(ruff), "check", "-q", "."],
        [str(ruff), "format", "-q", "--check", "."],
        [str(tools / "mypy"), "--no-error-summary"],
    )
    well = True
    for step in steps:
        say(" ".join(Path(word).name if "/" in word else word for word in step))
        well &= subprocess.run(step, cwd=ROOT).returncode == 0
    say("house rules")
    for rule in RULES:
        for complaint in rule():
            print(f"{rule.__name__}: {complaint}", flush=True)
            well = False
    say("lint is clean" if well else "lint FAILED")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
