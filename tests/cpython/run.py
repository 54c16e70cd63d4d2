"""Runs modules of CPython's own test suite plainly and inside a committing transaction, and compares every result.

    run.py [--few] [--without LAYER,…] [MODULE…]

Ends with 1 if any test ended differently. Interpreters without the `test` package are told so, loudly.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ONE = Path(__file__).with_name("one.py")

#: Containers, generators, classes, numbers, text, io, os, imports, C extensions, memory, processes.
MODULES = """
test_abc test_array test_ast test_base64 test_binascii test_bisect test_bool test_bytes test_call test_cmath
test_codecs test_collections test_complex test_contextlib test_copy test_coroutines test_csv test_ctypes test_datetime
test_decimal test_defaultdict test_deque test_descr test_dict test_dictviews test_enum test_enumerate test_exceptions
test_file test_float test_format test_fractions test_functools test_gc test_generators test_genericpath test_getattr
test_glob test_grammar test_hashlib test_heapq test_import test_importlib test_inspect test_int test_io test_iter
test_itertools test_json test_list test_long test_marshal test_math test_memoryview test_mmap test_operator test_os
test_pathlib test_pickle test_posix test_pprint test_property test_random test_range test_re test_scope test_set
test_shutil test_slice test_sort test_sqlite3 test_statistics test_string test_struct test_structseq
test_subprocess test_super test_tempfile test_textwrap test_time test_traceback test_tuple test_typing test_types
test_userdict test_weakref test_with test_zipfile test_zlib
""".split()

#: A quick part of them, for `make test`.
FEW = "test_dict test_generators test_json test_mmap test_weakref test_struct test_file test_bytes".split()


def run(name: str, mode: str, without: str) -> tuple[dict[str, str] | None, str]:
    """Runs a module in a process and a directory of its own; how each test ended, and what it said."""
    with tempfile.TemporaryDirectory(prefix="tentative-cpython-") as directory:
        environment = {**os.environ, "PYTHONHASHSEED": "1", "TMPDIR": directory}
        command = [sys.executable, "-I", str(ONE), name, mode, without]
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


def compare(name: str, without: str) -> tuple[str, bool]:
    """Runs a module both ways; a line about it, and whether both are the same."""
    plainly, said = run(name, "plainly", without)
    if plainly is None:
        return f"{name}: cannot be run plainly: {said.splitlines()[-1] if said else ''}", True
    if not plainly or all(how.startswith("skipped") for how in plainly.values()):
        return f"{name}: not run: {next(iter(plainly.values()), 'it has no tests')}", True
    inside, said = run(name, "inside", without)
    if inside is None:
        return f"{name}: DIFFERENT: {said}", False
    wrong = [
        f"{test} ({how} plainly, {inside.get(test)} inside)"
        for test, how in plainly.items()
        if inside.get(test) != how
    ]
    if not wrong:
        return f"{name}: {len(plainly)} tests, the same", True
    lines = [line for line in said.splitlines() if any(test.split()[0] in line for test in wrong)]
    return "\n    ".join(
        [f"{name}: DIFFERENT in {len(wrong)} of {len(plainly)}:", *wrong[:10], *lines[:10]]
    ), False


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
    passed, failed, missing = [], [], []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, (line, well) in zip(
            names, pool.map(lambda name: compare(name, arguments.without), names), strict=True
        ):
            print(line, flush=True)
            kind = failed if not well else passed if line.endswith("the same") else missing
            kind.append(name)
    print(
        f"{len(passed)} modules the same, {len(failed)} different, {len(missing)} not comparable: {' '.join(missing)}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
