"""Shared memory that a transaction begins with: refused where code inside could write to it, accepted elsewhere."""

import ctypes
import mmap
import os

import pytest
import tentative

READ, WRITE = mmap.PROT_READ, mmap.PROT_WRITE
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
libc.mprotect.argtypes = libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def protection(address):
    """The protection of the mapping at an address, as the kernel lists it."""
    with open("/proc/self/maps") as maps:
        (flags,) = [line.split()[1] for line in maps if line.startswith(f"{address:x}-")]
    return flags


def mapped(flags, allowed, descriptor=-1):
    address = libc.mmap(None, mmap.PAGESIZE, allowed, flags, descriptor, 0)
    assert address not in (None, ctypes.c_void_p(-1).value)
    return address


@pytest.mark.parametrize("allowed", (0, READ))
@pytest.mark.parametrize("kind", ("file", "anonymous", "memfd"))
def test_shared_memory_that_can_be_made_writable_is_refused(options, tmp_path, kind, allowed):
    descriptor, flags = -1, mmap.MAP_SHARED
    if kind == "anonymous":
        flags |= mmap.MAP_ANONYMOUS
    else:
        path = tmp_path / "file"
        path.write_bytes(b"o" * mmap.PAGESIZE)
        descriptor = os.memfd_create("own") if kind == "memfd" else os.open(path, os.O_RDWR)
        os.truncate(descriptor, mmap.PAGESIZE)
    address = mapped(flags, allowed, descriptor)
    if descriptor >= 0:
        os.close(descriptor)
    before = protection(address)
    try:
        with pytest.raises(tentative.Unsupported, match=f"{address:#x} is shared and can be made writable"):
            with tentative.transaction(**options):
                libc.mprotect(address, mmap.PAGESIZE, READ | WRITE)
                ctypes.memset(address, ord("x"), 4)
        assert protection(address) == before and before.endswith("s")
        if allowed:
            assert b"x" not in ctypes.string_at(address, mmap.PAGESIZE)
        libc.mprotect(address, mmap.PAGESIZE, READ | WRITE)
        with pytest.raises(tentative.Unsupported, match=f"{address:#x} is shared and writable"):
            tentative.transaction(**options).run(int)
    finally:
        libc.munmap(address, mmap.PAGESIZE, 0)
    assert tentative.transaction(**options).run(int).committed


def test_a_file_mapped_for_reading_is_refused_where_it_was_opened_for_writing(options, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"o" * 10)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as shared:
        with pytest.raises(tentative.Unsupported, match="can be made writable"):
            with tentative.transaction(**options):
                pass
        assert shared[:] == b"o" * 10


def test_a_file_mapped_from_one_opened_for_reading_is_accepted(options, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"o" * 10)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as shared:
        with tentative.transaction(**options) as tx:
            seen = shared[:]
        assert tx.outcome.committed and seen == shared[:] == b"o" * 10
        executable = mapped(mmap.MAP_SHARED, READ | mmap.PROT_EXEC, file.fileno())
        try:
            assert tentative.transaction(**options).run(int).committed
        finally:
            libc.munmap(executable, mmap.PAGESIZE, 0)
