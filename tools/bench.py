"""Prints tables of ratios: what a transaction costs, against fork, bubblewrap and a bare overlay mount.

Every row is the median of the ratios of interleaved pairs of one run, with the interval that holds the true median
in 95 % of runs (from order statistics, so nothing is assumed about the distribution). A bar is met when the lower
end of the interval is below it. Started as root everything runs in a mount namespace with four file systems, and runs
again as an ordinary user.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import environment
import ordinary_user
from environment import ROOT, say

LIVE = ROOT / "crates" / "tentative-bench" / "live.py"
RELEASE = ROOT / "target" / "release"
#: Where the fixture mounts its further file systems; with `/` and `/dev/shm` they are four.
FURTHER = ("/mnt", "/srv")
#: What the fixture leaves of the machine's own mounts.
KEPT = ("/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm")


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median: the widest ranks whose binomial tails hold at most 2.5 % each."""
    ordered, count = sorted(ratios), len(ratios)
    tail, rank = 0.0, 0
    for below in range(count // 2):
        tail += math.comb(count, below) / 2**count
        if tail > 0.025:
            break
        rank = below + 1
    return (ordered[rank - 1], ordered[count - rank]) if rank else (ordered[0], ordered[-1])


def table(who: str, lines: Iterable[str]) -> bool:
    """Prints a table from JSON lines of pairs; returns whether every bar was met."""
    print(
        f"\n{who}\n{'':46}{'ours ms':>10}{'theirs ms':>11}{'ratio':>8}  {'95 % interval':15}{'bar':>5}  against"
    )
    met = True
    for line in lines:
        row = json.loads(line)
        if "failed" in row:
            print(f"{row['what']:46}{'failed':>10}  {row['failed']}", flush=True)
            met = False
            continue
        ours, theirs = zip(*row["pairs_ms"], strict=True)
        ratios = [a / b for a, b in row["pairs_ms"]]
        low, high = interval(ratios)
        good = low < row["at_most"]
        met &= good
        print(
            f"{row['what']:46}{statistics.median(ours):10.2f}{statistics.median(theirs):11.2f}"
            f"{statistics.median(ratios):8.2f}  {f'{low:.2f} to {high:.2f}':15}{row['at_most']:5}"
            f"  {row['against']}{'' if good else '   <-- not met'}",
            flush=True,
        )
    return met


def lines_of(command: list[str], variables: dict[str, str]) -> Iterable[str]:
    """What a benchmark prints, line by line; its failure becomes a row of its own."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}, cwd="/"
    ) as running:
        yield from running.stdout
    if running.returncode != 0:
        yield json.dumps({"what": Path(command[-1]).name, "failed": f"ended with {running.returncode}"})


def lines_as(
    user: ordinary_user.OrdinaryUser, command: list[str], variables: dict[str, str]
) -> Iterable[str]:
    """The same as the ordinary user."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # Forked child of a process with one thread; never returns.
        os.dup2(write, 1)
        os.close(read)
        variables = {"TENTATIVE_HOME": str(user.home / "store"), **variables}
        os._exit(user.run(command, Path("/"), variables) & 0xFF)
    os.close(write)
    with open(read, encoding="utf-8") as lines:
        yield from lines
    _, status = os.waitpid(child, 0)
    if status != 0:
        yield json.dumps(
            {"what": Path(command[0]).name, "failed": f"ended with {os.waitstatus_to_exitcode(status)}"}
        )


def four_file_systems() -> None:
    """Moves this process into a mount namespace with four file systems (`/`, `/dev/shm` and two of ours) beside the
    kernel's interfaces. Root only."""
    ordinary_user.check(ordinary_user.libc.unshare(ordinary_user.CLONE_NEWNS), "unshare")
    ordinary_user.mount("none", "/", None, ordinary_user.MS_REC | ordinary_user.MS_PRIVATE)
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted(set(mounted) - set(KEPT), key=len, reverse=True):
        # A mount below one that is gone already is gone with it.
        ordinary_user.libc.umount2(place.encode(), ordinary_user.MNT_DETACH)
    for place in FURTHER:
        Path(place).mkdir(exist_ok=True)
        ordinary_user.mount("tmpfs", place, "tmpfs", 0, "mode=0755")


def prepare() -> tuple[Path, Path]:
    """Builds everything with optimisation and sees to bubblewrap; returns the Python and the bench binary."""
    if shutil.which("bwrap") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment.run("apt-get", "update", "-qq")
        environment.run("apt-get", "install", "-y", "-qq", "bubblewrap")
    python = environment.prepare_package()
    environment.run("cargo", "build", "-q", "--release", "-p", "tentative-bench", "-p", "tentative-cli")
    return python, RELEASE / "tentative-bench"


def main() -> None:
    """Measures and prints; ends with 1 when a bar was not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--only", choices=("live", "commands"))
    parser.add_argument("--row", help="one row by its short name")
    options = parser.parse_args()
    if options.pairs < 30:
        print("fewer than 30 pairs: for looking, not for judging")
    os.umask(0o022)
    python, bench = prepare()
    rows = [options.row] if options.row else []
    root = os.geteuid() == 0
    if root:
        four_file_systems()
    else:
        say("without root: on the mounts of this machine, and no second table")
    met = True
    if options.only != "commands":
        live = [str(python), "-B", str(LIVE), str(options.pairs), *rows]
        met &= table("live transactions, as root" if root else "live transactions", lines_of(live, {}))
        if root:
            with ordinary_user.ordinary_user([ROOT, ordinary_user.interpreters()]) as user:
                met &= table("live transactions, as an ordinary user", lines_as(user, live, {}))
    if options.only != "live":
        commands = [str(bench), "commands", str(RELEASE / "tentative"), str(options.pairs), *rows]
        plain = {"BENCH_PYTHON": str(python.resolve())}
        met &= table("whole commands, as root" if root else "whole commands", lines_of(commands, plain))
        if root:
            with ordinary_user.ordinary_user([ROOT, ordinary_user.interpreters()]) as user:
                met &= table("whole commands, as an ordinary user", lines_as(user, commands, plain))
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
