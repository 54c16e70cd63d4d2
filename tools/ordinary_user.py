"""An ordinary user for the length of a test run, who can read this repository wherever it was cloned.

The user is made with useradd and removed with everything that is his. A clone below a directory that is closed to
others (`/root`, a temporary directory) is shown to him at its own path by bind mounts in a private mount namespace:
nothing is copied, and no mode of anything outside that namespace is changed.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
CLONE_NEWNS = 0x00020000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
#: Where the programs of administration are that the path of root need not have, as in a container.
ADMINISTRATION = "/usr/local/sbin:/usr/sbin:/sbin"

libc = ctypes.CDLL(None, use_errno=True)


def program(name: str) -> str | None:
    """Where a program of administration is, if it is installed."""
    return shutil.which(name) or shutil.which(name, path=ADMINISTRATION)


def check(result: int, what: str) -> None:
    """Raises for a failed call of libc."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    check(
        libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, data and data.encode()),
        f"mount {source} on {target}",
    )


def is_closed(directory: Path) -> bool:
    """Whether others may not walk through a directory."""
    return not directory.stat().st_mode & stat.S_IXOTH


def outermost_closed(path: Path) -> Path | None:
    """The first directory on the way to a path, itself included, that others may not enter."""
    for directory in [*reversed(path.parents), path]:
        if directory.is_dir() and is_closed(directory):
            return directory
    return None


def open_paths(paths: list[Path]) -> None:
    """Shows paths below closed directories to everybody, in the mount namespace of this process only."""
    by_directory: dict[Path, list[Path]] = {}
    for path in paths:
        closed = outermost_closed(path)
        if closed == path:
            by_directory.setdefault(closed, []).extend(path.iterdir())
        elif closed is not None:
            by_directory.setdefault(closed, []).append(path)
    for directory, below in by_directory.items():
        reveal(directory, below)


def reveal(directory: Path, below: list[Path]) -> None:
    """Replaces a closed directory by an open, empty one that has only what is needed below it."""
    opened = [(path, os.open(path, os.O_PATH | os.O_NOFOLLOW)) for path in sorted(set(below))]
    mount("tmpfs", str(directory), "tmpfs", 0, "mode=0755,size=1m")
    for path, descriptor in opened:
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(os.readlink("", dir_fd=descriptor))
        elif stat.S_ISDIR(os.fstat(descriptor).st_mode):
            path.mkdir(parents=True, exist_ok=True)
            mount(f"/proc/self/fd/{descriptor}", str(path), None, MS_BIND | MS_REC)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            mount(f"/proc/self/fd/{descriptor}", str(path), None, MS_BIND)
        os.close(descriptor)


def interpreters() -> Path:
    """What an ordinary user must see to run the Python that runs us, with its siblings of other versions if they
    are kept beside it the way pyenv does."""
    prefix = Path(sys.base_prefix)
    return prefix.parent if prefix.parent.name == "versions" else prefix


class OrdinaryUser:
    """A user made for this run, with a home directory of his own."""

    def __init__(self, name: str, needed: list[Path]) -> None:
        self.entry = pwd.getpwnam(name)
        self.home = Path(self.entry.pw_dir)
        self.needed = needed

    def environment(self) -> dict[str, str]:
        """What he finds in his environment: nothing of ours but the path of programs and CI."""
        mine = {
            "HOME": str(self.home),
            "USER": self.entry.pw_name,
            "LOGNAME": self.entry.pw_name,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        # OPENBLAS_*: some processors need them for right results.
        for name in ("CI", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            if name in os.environ:
                mine[name] = os.environ[name]
        return mine

    def become(self) -> None:
        """In a forked child: shows him what is needed and gives up root for good."""
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        check(libc.unshare(CLONE_NEWNS), "unshare")
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        open_paths(self.needed)
        os.umask(0o022)
        os.initgroups(self.entry.pw_name, self.entry.pw_gid)
        os.setgid(self.entry.pw_gid)
        os.setuid(self.entry.pw_uid)

    def run(self, command: list[str], cwd: Path, environment: dict[str, str]) -> int:
        """Runs a command as him; returns its exit status."""
        child = os.fork()
        if child == 0:
            # Forked child of a process with one thread: it may use everything, and never returns.
            try:
                self.become()
                os.chdir(cwd)
                os.execvpe(command[0], command, {**self.environment(), **environment})
            except OSError as error:
                print(f"error: as {self.entry.pw_name}: {error}", file=sys.stderr, flush=True)
            os._exit(127)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def left_files(self) -> list[Path]:
        """What is his outside his home, less what pytest keeps for looking at."""
        return [path for path in self.everything_outside() if not path.name.startswith("pytest-of-")]

    def everything_outside(self) -> list[Path]:
        """What is his in the directories where everybody may write, places of transactions included."""
        found = []
        for directory in ("/tmp", "/dev/shm"):
            found += [path for path in Path(directory).iterdir() if path.lstat().st_uid == self.entry.pw_uid]
        return sorted(found)

    def left_processes(self, seconds: float = 20.0) -> list[int]:
        """The pids of those that stay when those that are just ending had time to."""
        end = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.2)
        return left

    def processes(self) -> list[int]:
        """The pids of all processes that are his."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and entry.stat().st_uid == self.entry.pw_uid:
                    found.append(int(entry.name))
            except FileNotFoundError:
                continue
        return found


@contextmanager
def ordinary_user(needed: list[Path]) -> Iterator[OrdinaryUser]:
    """Makes the user, and removes him with his processes and directories afterwards."""
    name = f"tentative-{os.getpid()}"
    home = Path("/var/tmp") / name
    # A number that nobody else on this machine is likely to use, so that two runs never see each other's files.
    number = 20_000 + os.getpid() % 40_000
    subprocess.run(
        [
            program("useradd"),
            "--uid",
            str(number),
            "--create-home",
            "--home-dir",
            home,
            "--shell",
            "/bin/sh",
            name,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    user = OrdinaryUser(name, [path.resolve() for path in needed])
    try:
        home.chmod(0o755)
        # Somebody else's file in /tmp, which he may not remove: a test wants one.
        with tempfile.NamedTemporaryFile(prefix="of-somebody-else-", dir="/tmp") as file:
            os.chmod(file.name, 0o644)
            yield user
    finally:
        # Sandboxes that are just going remove what they have.
        user.left_processes(5)
        deadline = time.monotonic() + 5
        while (left := user.processes()) and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        # The next user gets the same number and should not be blamed for these.
        for path in user.everything_outside():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        subprocess.run([program("userdel"), "--force", name], check=True, stderr=subprocess.DEVNULL)
        shutil.rmtree(home, ignore_errors=True)
