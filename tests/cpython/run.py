"""Runs modules of CPython's own test suite plainly and inside a committing transaction, and compares every result.

    run.py [--few] [--without LAYER,…] [MODULE…]

Differences by design are listed in expected.txt, each with its reason. Ends with 1 if any other test ended differently,
or if of the whole list fewer modules than `WANTED` were the same in every test. Interpreters without the `test` package
are told so, loudly.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ONE = Path(__file__).with_name("one.py")
EXPECTED = Path(__file__).with_name("expected.txt")

#: Of the whole list, so many modules have to be the same in every test.
WANTED = 60

#: Containers, generators, classes, numbers, text, io, os, imports, C extensions, memory, processes. The slowest come
#: first, so that none of them is left at the end for one processor alone.
MODULES = """
test_subprocess test_io test_importlib test_zipfile test_pickle test_decimal test_re test_os test_tempfile
test_statistics
test_abc test_array test_ast test_base64 test_binascii test_bisect test_bool test_bytes test_call test_cmath
test_codecs test_collections test_complex test_contextlib test_copy test_coroutines test_csv test_ctypes test_datetime
test_defaultdict test_deque test_descr test_dict test_dictviews test_enum test_enumerate test_exceptions
test_file test_float test_format test_fractions test_functools test_gc test_generators test_genericpath
test_glob test_grammar test_hashlib test_heapq test_import test_inspect test_int test_iter
test_itertools test_json test_list test_long test_marshal test_math test_memoryview test_mmap test_operator
test_pathlib test_posix test_pprint test_property test_random test_range test_scope test_set
test_shutil test_slice test_sort test_sqlite3 test_string test_struct test_structseq
test_super test_textwrap test_time test_traceback test_tuple test_typing test_types
test_userdict test_weakref test_with test_zlib
""".split()

#: A quick part of them, for `make test`.
FEW = "test_dict test_generators test_json test_mmap test_weakref test_struct test_file test_bytes".split()

#: What a module was called before.
FORMERLY = {"test_sqlite3": "test_sqlite"}


@dataclass(frozen=True)
class Difference:
    """A test that ends differently by design."""

    layer: str
    test: str
    plainly: str
    inside: str
    reason: str


def expected(without: str) -> dict[str, Difference]:
    """The differences by design for who we are, with these layers not contained."""
    me = "root" if os.geteuid() == 0 else "user"
    found = {}
    for line in EXPECTED.read_text().splitlines():
        if line and not line.startswith("#"):
            who, *rest = line.split(None, 5)
            difference = Difference(*rest)
            if who in (me, "any"):
                found[difference.test] = difference
    return found


def run(name: str, mode: str, without: str, unwanted: list[str]) -> tuple[dict[str, str] | None, str]:
    """Runs a module in a process and a directory of its own; how each test ended, and what it said."""
    with tempfile.TemporaryDirectory(prefix="tentative-cpython-") as directory:
        environment = {**os.environ, "PYTHONHASHSEED": "1", "TMPDIR": directory}
        command = [sys.executable, "-I", str(ONE), name, mode, without, *unwanted]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=600,
                cwd=directory,
                env=environment,
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            return None, "took longer than 600 s"
    try:
        return json.loads(done.stdout.splitlines()[-1]), done.stderr
    except (ValueError, IndexError):
        return None, f"ended with {done.returncode}: {done.stderr[-600:]}"


def compare(name: str, without: str) -> tuple[str, str]:
    """Runs a module both ways; a line about it, and whether it is the "same", the same as "expected", "different" or
    "missing"."""
    known = expected(without)
    contained = {test: each for test, each in known.items() if each.layer not in without.split(",")}
    harmful = [test for test, each in known.items() if each.plainly == "-"]
    plainly, said = run(name, "plainly", without, harmful)
    if plainly is None and name in FORMERLY:
        return compare(FORMERLY[name], without)
    if plainly is None:
        return f"{name}: cannot be run plainly: {said.splitlines()[-1] if said else ''}", "missing"
    if not plainly or all(how.startswith("skipped") for how in plainly.values()):
        return f"{name}: not run: {next(iter(plainly.values()), 'it has no tests')}", "missing"
    inside, said = run(name, "inside", without, [test for test in harmful if test not in contained])
    if inside is None:
        return f"{name}: DIFFERENT: {said}", "different"
    wrong, by_design = [], []
    for test in sorted({*plainly, *inside}):
        before, after = plainly.get(test, "-"), inside.get(test, "-")
        listed = contained.get(test)
        if before == after:
            continue
        line = f"{test} ({before} plainly, {after} inside)"
        if listed is not None and (before, after) == (listed.plainly, listed.inside):
            by_design.append(f"{line}: {listed.reason}")
        else:
            wrong.append(line)
    if not wrong and not by_design:
        return f"{name}: {len(plainly)} tests, the same", "same"
    if not wrong:
        head = f"{name}: {len(plainly)} tests, the same but for {len(by_design)} by design:"
        return "\n    ".join([head, *by_design]), "expected"
    lines = [line for line in said.splitlines() if any(test.split()[0] in line for test in wrong)]
    head = f"{name}: DIFFERENT in {len(wrong)} of {len(plainly)}:"
    return "\n    ".join([head, *wrong[:10], *lines[:10]]), "different"


def main() -> int:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--few", action="store_true", help="a quick part of the list")
    parser.add_argument("--without", default="", help="layers to go without")
    parser.add_argument("modules", nargs="*")
    arguments = parser.parse_args()
    # Isolated, as each run is: a `test` of somebody's PYTHONPATH is not CPython's.
    check = [sys.executable, "-I", "-c", "import test.test_dict"]
    if subprocess.run(check, stderr=subprocess.DEVNULL).returncode != 0:
        print(f"NOT RUN: {sys.executable} came without CPython's test suite")
        return 0
    names = arguments.modules or (FEW if arguments.few else MODULES)
    results: dict[str, list[str]] = {"same": [], "expected": [], "different": [], "missing": []}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, (line, how) in zip(
            names, pool.map(lambda name: compare(name, arguments.without), names), strict=True
        ):
            print(line, flush=True)
            results[how].append(name)
    same, by_design, different, missing = results.values()
    contained = f"without {arguments.without}" if arguments.without else "fully contained"
    print(
        f"CPython {sys.version.split()[0]}, {contained}: {len(same)} modules the same, {len(by_design)} the same but "
        f"for what is by design, {len(different)} different, {len(missing)} not comparable: {' '.join(missing)}"
    )
    too_few = names is MODULES and len(same) < WANTED
    if too_few:
        print(f"fewer than {WANTED} modules are the same")
    return 1 if different or too_few else 0


if __name__ == "__main__":
    sys.exit(main())
