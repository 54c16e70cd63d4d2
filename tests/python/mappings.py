"""Random programs of mapping calls on a stretch of address space of their own, and a picture of what they leave.

A program is a list of (operation, number) pairs, like those of `model`; the number chooses place, length and kind.
The picture holds, by page, protection, backing and content, but not how the kernel groups pages to mappings.
"""

import ctypes
import hashlib
import mmap
import os
import random

PAGE = mmap.PAGESIZE
#: Where on x86-64 and aarch64 nothing else is mapped.
BASE = 0x1000_0000_0000
PAGES = 256
LONGEST = 24
MAP_FIXED, MREMAP_MAYMOVE, MREMAP_FIXED = 0x10, 1, 2
READ, WRITE = mmap.PROT_READ, mmap.PROT_WRITE
PRIVATE, ANONYMOUS = mmap.MAP_PRIVATE, mmap.MAP_ANONYMOUS
#: MADV_DONTNEED most often: it is how allocators give pages back. 12 and 13 are MERGEABLE and UNMERGEABLE.
ADVICE = (mmap.MADV_DONTNEED, mmap.MADV_DONTNEED, mmap.MADV_FREE, 12, 13)
MAPPING_OPERATIONS = (
    "map",
    "map_file",
    "unmap",
    "protect",
    "advise",
    "remap",
    "write",
    "write",
    "write",
    "read",
)

libc = ctypes.CDLL(None, use_errno=True)
ADDRESS, SIZE, NUMBER = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
libc.mmap.restype, libc.mmap.argtypes = ADDRESS, [ADDRESS, SIZE, NUMBER, NUMBER, NUMBER, ctypes.c_long]
libc.mremap.restype, libc.mremap.argtypes = ADDRESS, [ADDRESS, SIZE, SIZE, NUMBER, ADDRESS]
libc.munmap.argtypes, libc.mprotect.argtypes = [ADDRESS, SIZE], [ADDRESS, SIZE, NUMBER]
libc.madvise.argtypes = [ADDRESS, SIZE, NUMBER]


class Mappings:
    """The stretch, emptied, and a file of random bytes that is longer than any mapping of it."""

    def __init__(self, directory):
        path = directory / "backing"
        path.write_bytes(random.Random(0).randbytes(4 * LONGEST * PAGE))
        self.file = os.open(path, os.O_RDONLY)
        libc.munmap(BASE, PAGES * PAGE)

    def pages(self):
        """(protection, offset in the file or 0) of every page that is mapped."""
        found = {}
        with open("/proc/self/maps") as lines:
            for line in lines:
                span, protection, offset, _, inode = line.split()[:5]
                start, end = (int(number, 16) for number in span.split("-"))
                if start < BASE or start >= BASE + PAGES * PAGE:
                    continue
                for address in range(start, end, PAGE):
                    at = int(offset, 16) + address - start if inode != "0" else 0
                    found[(address - BASE) // PAGE] = (protection, at)
        return found

    def picture(self):
        """What every page is and holds."""
        return {
            page: (kind, digest(page) if kind[0].startswith("r") else None)
            for page, kind in self.pages().items()
        }

    def run(self, program):
        """Runs a program; what the kernel refuses is part of it. Returns how the calls to move ended."""
        return [getattr(self, operation)(random.Random(number)) for operation, number in program]

    def map(self, chance):
        start, length = stretch(chance)
        libc.mmap(start, length, READ | WRITE, PRIVATE | ANONYMOUS | MAP_FIXED, -1, 0)

    def map_file(self, chance):
        start, length = stretch(chance)
        protection = chance.choice((READ, READ | WRITE))
        libc.mmap(start, length, protection, PRIVATE | MAP_FIXED, self.file, chance.randrange(LONGEST) * PAGE)

    def unmap(self, chance):
        libc.munmap(*stretch(chance))

    def protect(self, chance):
        libc.mprotect(*stretch(chance), chance.choice((0, READ, READ | WRITE, READ | WRITE)))

    def advise(self, chance):
        libc.madvise(*stretch(chance), chance.choice(ADVICE))

    def remap(self, chance):
        start, length = stretch(chance)
        target, wanted = stretch(chance)
        return libc.mremap(start, length, wanted, MREMAP_MAYMOVE | MREMAP_FIXED, target)

    def write(self, chance):
        for page in self.within(chance, "w"):
            ctypes.memset(BASE + page * PAGE + chance.randrange(PAGE - 99), chance.randrange(256), 99)

    def read(self, chance):
        for page in self.within(chance, "r"):
            ctypes.string_at(BASE + page * PAGE, 8)

    def within(self, chance, right):
        """Some pages of a stretch on which one has a right."""
        start, length = stretch(chance)
        first, pages = (start - BASE) // PAGE, self.pages()
        chosen = [page for page in range(first, first + length // PAGE) if chance.random() < 0.6]
        return [page for page in chosen if page in pages and right in pages[page][0]]


def stretch(chance):
    """A start and a length, in bytes."""
    return BASE + chance.randrange(PAGES - LONGEST) * PAGE, chance.randrange(1, LONGEST) * PAGE


def digest(page):
    return hashlib.blake2b(ctypes.string_at(BASE + page * PAGE, PAGE), digest_size=8).hexdigest()
