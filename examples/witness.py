"""Looks at a project's directory and at processes from outside; knows nothing of transactions.

    witness.py look DIRECTORY PID BYSTANDER_PID COUNTER_FILE < told.json

prints what it sees as JSON: every file's kind, mode and hash, the working directory and open files of the process, who
is alive, how many connections the listener counted, the rows of the database as another connection reads them. What
only the process itself can tell (values and identities of its objects) is taken from its standard input.
"""

import hashlib
import json
import os
import sqlite3
import sys
from pathlib import Path


def files(directory: Path) -> dict[str, str]:
    """Every path below a directory with its kind, mode and content's hash."""
    seen = {}
    for path in sorted(directory.rglob("*")):
        name, status = str(path.relative_to(directory)), path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""
        # SQLite's file holds counters of its own; its rows are looked at instead.
        content = "" if path.suffix == ".db" else content
        seen[name] = f"{status.st_mode:o} {content}"
    return seen


def process(pid: int, directory: Path) -> dict[str, object]:
    """What the kernel tells of a process: directory, open files of the project and their offsets, signals ignored."""
    base = Path(f"/proc/{pid}")
    opened = {}
    for entry in sorted((base / "fd").iterdir()):
        target = os.readlink(entry)
        if target.startswith(str(directory)):
            info = (base / "fdinfo" / entry.name).read_text()
            position = next(line.split()[1] for line in info.splitlines() if line.startswith("pos:"))
            opened[target.removeprefix(str(directory))] = "" if target.endswith(".db") else position
    status = (base / "status").read_text().splitlines()
    ignored = next(line.split()[1] for line in status if line.startswith("SigIgn:"))
    started = (base / "stat").read_text().rpartition(")")[2].split()[19]
    where = os.readlink(base / "cwd").removeprefix(str(directory))
    return {
        "directory": where,
        "open files": opened,
        "ignored signals": ignored,
        "pid": pid,
        "started": started,
    }


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def rows(directory: Path) -> list[list[object]]:
    """The database's rows, read through a connection of this process."""
    connection = sqlite3.connect(f"file:{directory / 'builds.db'}?mode=ro", uri=True)
    try:
        return [list(row) for row in connection.execute("select * from builds order by number")]
    finally:
        connection.close()


def main() -> None:
    """Prints what is seen."""
    directory, pid, bystander, counter = (
        Path(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        Path(sys.argv[5]),
    )
    seen = {
        "files": files(directory),
        "process": process(pid, directory),
        "database": rows(directory),
        "bystander alive": alive(bystander),
        "connections": len(counter.read_bytes()),
        "told": json.load(sys.stdin),
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
