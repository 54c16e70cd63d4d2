"""A program of operations on files with several names, given as JSON; what an operation refuses is no matter."""

import ctypes
import json
import os
import sys

LONG_AGO = 1_000_000_000
EXCHANGE = 2
#: The first are names of one file, the next two of another.
NAMES = ("a", "a2", "d/a3", "b", "b2", "c", "n", "d/n", "e/a3")
libc = ctypes.CDLL(None, use_errno=True)


def write(name, flags, text):
    """Opens, writes and closes."""
    number = os.open(name, os.O_WRONLY | flags, 0o644)
    os.write(number, text.encode())
    os.close(number)


def replace(name, other, number):
    """A new file is renamed over the name."""
    write("t", os.O_CREAT | os.O_EXCL, f"replaced {number}\n")
    os.rename("t", name)


def forge(name, other, number):
    """Another file that looks as the first one did."""
    os.unlink(name)
    write(name, os.O_CREAT | os.O_EXCL, "content\n")
    os.utime(name, (LONG_AGO, LONG_AGO))


def exchange(name, other, number):
    """renameat2(2)."""
    libc.renameat2(-100, name.encode(), -100, other.encode(), EXCHANGE)


def unlink_and_make(name, other, number):
    """As tar does it."""
    os.unlink(name)
    write(name, os.O_CREAT | os.O_EXCL, f"made {number}\n")
    os.utime(name, (LONG_AGO + number, LONG_AGO + number))


def change_mode_by_descriptor(name, other, number):
    """By a descriptor that is open for reading only."""
    descriptor = os.open(name, os.O_RDONLY)
    os.fchmod(descriptor, 0o600 + number % 64)
    os.close(descriptor)


def change_times_by_descriptor(name, other, number):
    """By a descriptor that is open for reading only."""
    descriptor = os.open(name, os.O_RDONLY)
    os.utime(descriptor, (LONG_AGO + number, LONG_AGO + number))
    os.close(descriptor)


OPERATIONS = {
    "append": lambda name, other, number: write(name, os.O_APPEND, f"appended {number}\n"),
    "append or make": lambda name, other, number: write(name, os.O_APPEND | os.O_CREAT, f"{number}\n"),
    "rewrite": lambda name, other, number: write(name, os.O_CREAT | os.O_TRUNC, f"rewritten {number}\n"),
    "truncate": lambda name, other, number: os.truncate(name, number % 9),
    "mode": lambda name, other, number: os.chmod(name, 0o600 + number % 64),
    "mode by descriptor": change_mode_by_descriptor,
    "times by descriptor": change_times_by_descriptor,
    "times": lambda name, other, number: os.utime(name, (LONG_AGO + number, LONG_AGO + number)),
    "touch": lambda name, other, number: os.utime(name),
    "attribute": lambda name, other, number: os.setxattr(name, "user.test", str(number).encode()),
    "unlink": lambda name, other, number: os.unlink(name),
    "rename": lambda name, other, number: os.rename(name, other),
    "exchange": exchange,
    "link": lambda name, other, number: os.link(name, other),
    "replace": replace,
    "make": lambda name, other, number: write(name, os.O_CREAT | os.O_EXCL, f"new {number}\n"),
    "make again": unlink_and_make,
    "forge": forge,
    "rename directory": lambda name, other, number: os.rename("d", "e"),
    "rename directory back": lambda name, other, number: os.rename("e", "d"),
}


def lay_out():
    """What there is in the beginning."""
    os.mkdir("d")
    for name in ("a", "b", "c"):
        write(name, os.O_CREAT, "content\n")
        os.utime(name, (LONG_AGO, LONG_AGO))
    for name, other in (("a", "a2"), ("a", "d/a3"), ("b", "b2")):
        os.link(name, other)


def look(directory):
    """Content and attributes of all files, and which names are of one file."""
    files, same = {}, {}
    for path in sorted(directory.rglob("*")):
        status, name = path.lstat(), str(path.relative_to(directory))
        if path.is_file():
            # The time of a run that is not now.
            modified = int(status.st_mtime) if status.st_mtime < LONG_AGO + 10_000 else "now"
            attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
            files[name] = (path.read_bytes(), status.st_mode, modified, attributes)
            same.setdefault(status.st_ino, []).append(name)
        else:
            files[name] = "directory"
    return files, sorted(same.values())


if __name__ == "__main__":
    for name, one, other, number in json.loads(sys.argv[1]):
        try:
            OPERATIONS[name](NAMES[one], NAMES[other], number)
        except OSError:
            pass
