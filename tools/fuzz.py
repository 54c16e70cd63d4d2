"""Runs the fuzzers in `fuzz/` one after the other, each for a while, and prints what each measured.

The properties are in the crates and are checked by unit tests with a few inputs as well; here libFuzzer looks for the
inputs that they do not hold for. What it learns is kept in `fuzz/corpus`. Ends with 1 when a fuzzer found something:
the input stays in `fuzz/artifacts`, and the command that repeats it is printed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import environment
from environment import ROOT, say

FUZZ = ROOT / "fuzz"
TOOL = ROOT / ".tools" / "cargo-fuzz"
#: The version that this was written for.
VERSION = "0.13.2"
#: No sanitizer: everything that is fuzzed is safe code, and without one a stable toolchain is enough.
SANITIZER = "--sanitizer=none"
#: A hang, a leak and a parser that takes too much memory are findings, too. Properties need no longer inputs.
LIMITS = ("-timeout=10", "-rss_limit_mb=1024", "-malloc_limit_mb=256", "-max_len=4096")
STATUS = re.compile(r"^#(\d+)\s.*\bcov: (\d+)", re.MULTILINE)
NEW = re.compile(r"^stat::new_units_added:\s+(\d+)", re.MULTILINE)
NOISE = re.compile(r"#\d+\t|INFO: |\s*NEW_FUNC|\s*$")
WRITTEN = re.compile(r"Test unit written to (\S+)")


@dataclass
class Measured:
    """What one fuzzer did."""

    target: str
    runs: int
    coverage: int
    new: str
    result: str

    def line(self) -> str:
        """A row of the table."""
        return f"{self.target:12}{self.runs:>12,}{self.coverage:>10}{self.new:>8}  {self.result}"


def prepare() -> Path:
    """Installs cargo-fuzz into `.tools` unless it is there; returns the command."""
    command = TOOL / "bin" / "cargo-fuzz"
    if shutil.which("cargo") is None:
        sys.exit("error: no cargo on the path\nhint: install a Rust toolchain, 1.88 or newer")
    if command.exists():
        return command
    say(f"INSTALLING cargo-fuzz {VERSION} into {TOOL.relative_to(ROOT)}; this takes minutes, once")
    environment.run("cargo", "install", "cargo-fuzz", "--version", VERSION, "--locked", "--root", TOOL)
    return command


def targets() -> list[str]:
    """The fuzzers there are."""
    return sorted(path.stem for path in (FUZZ / "fuzz_targets").glob("*.rs"))


def fuzz(command: Path, target: str, seconds: int) -> Measured:
    """Runs one fuzzer; prints its own words when it found something or could not run."""
    corpus = FUZZ / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    places = [str(corpus), str(FUZZ / "seeds" / target)]
    limits = [*LIMITS, f"-max_total_time={seconds}", "-print_final_stats=1"]
    run = [str(command), "run", SANITIZER, target, *places, "--", *limits]
    variables = {**os.environ, "RUST_BACKTRACE": "0"}
    done = subprocess.run(run, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True, errors="replace")
    seen = STATUS.findall(done.stderr)
    new = NEW.search(done.stderr)
    runs, coverage = (int(number) for number in seen[-1]) if seen else (0, 0)
    if done.returncode == 0:
        return Measured(target, runs, coverage, new[1] if new else "-", "held")
    # What went wrong, and not how the fuzzer got there.
    told = [line for line in done.stderr.splitlines() if not NOISE.match(line)]
    print("\n".join(told[-60:]), flush=True)
    written = WRITTEN.search(done.stderr)
    result = f"FOUND {name(written[1])}" if written else f"FAILED with {done.returncode}"
    if written:
        print(f"repeat: {name(command)} run {SANITIZER} {target} {name(written[1])}", flush=True)
    return Measured(target, runs, coverage, new[1] if new else "-", result)


def name(path: str | Path) -> str:
    """A path as somebody in the repository types it."""
    return os.path.relpath(path, ROOT)


def main() -> None:
    """Builds, runs, prints; ends with 1 when a property does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long each fuzzer runs")
    parser.add_argument("--only", choices=targets(), help="one fuzzer")
    options = parser.parse_args()
    command = prepare()
    chosen = [options.only] if options.only else targets()
    say("building the fuzzers")
    environment.run(command, "build", SANITIZER, *([options.only] if options.only else []))
    say(f"{len(chosen)} fuzzers, {options.seconds} s each")
    measured = []
    for target in chosen:
        measured.append(fuzz(command, target, options.seconds))
        print(measured[-1].line(), flush=True)
    print(f"\n{'target':12}{'runs':>12}{'coverage':>10}{'new':>8}  result")
    for row in measured:
        print(row.line())
    sys.exit(0 if all(row.result == "held" for row in measured) else 1)


if __name__ == "__main__":
    main()
