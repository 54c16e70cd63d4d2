"""A thousand transactions in a row leave nothing behind: no descriptor, mapping, process or growth."""

import ctypes
import gc
import os
from pathlib import Path

import tentative
from processes import children


def state():
    mappings = [
        line.split()[5:] or ["anonymous"] for line in Path("/proc/self/maps").read_text().splitlines()
    ]
    return sorted(os.listdir("/proc/self/fd")), children(), len(mappings)


def resident_kb():
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def test_a_thousand_transactions_leave_nothing(options):
    numbers = []

    def some(count):
        for number in range(count):
            with tentative.transaction(**options) as tx:
                numbers.append(number)
                if number % 2:
                    tx.rollback(number)
            if number % 100 == 0:
                tentative.exec("import os; os._exit(1)", {}, **options)
                tentative.exec("1/0", {}, **options)

    some(20)
    gc.collect()
    before, size = state(), resident_kb()
    some(1000 if options == {} else 300)
    gc.collect()
    after = state()
    assert after[:2] == before[:2]
    # The heap may grow by a mapping or two on its own account, not by one in each transaction.
    assert abs(after[2] - before[2]) < 20, (before[2], after[2])
    assert resident_kb() - size < 20_000
    assert len(numbers) == (510 if options == {} else 160)


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t) for name in "arena free fast mmap mapped most freed used rest top".split()
    ]


def allocated():
    """Bytes that C and Rust code have allocated and not freed."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _MallInfo
    gc.collect()
    return mallinfo().used


def test_deciding_for_the_rollback_leaves_no_memory_allocated(options):
    def some(count):
        for _ in range(count):
            tentative.exec("x = 1", {}, commit=lambda outcome: False, **options)

    some(10)
    before = allocated()
    some(100)
    assert allocated() - before < 100 * 500
