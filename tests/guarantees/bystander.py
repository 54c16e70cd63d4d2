"""A process that others reach for: says where it can be hit, then answers every line with what hit it so far."""

import ctypes
import json
import os
import resource
import select
import signal
import sys

hits = 0


def hit(*_):
    global hits
    hits += 1


signal.signal(signal.SIGUSR1, hit)
libc = ctypes.CDLL(None)
libc.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER, PR_SET_PTRACER_ANY
buffer = ctypes.create_string_buffer(b"as it was", 16)
reader, writer = os.pipe()
os.set_blocking(reader, False)
print(
    json.dumps(
        {"pid": os.getpid(), "pgid": os.getpgrp(), "address": ctypes.addressof(buffer), "pipe_end": writer}
    ),
    flush=True,
)

piped = 0
while sys.stdin.readline():
    while select.select([reader], [], [], 0)[0]:
        piped += len(os.read(reader, 4096))
    state = {
        "signals": hits,
        "memory": buffer.raw.hex(),
        "piped": piped,
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "io_priority": libc.syscall(252, 1, 0),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "oom_score": open("/proc/self/oom_score_adj").read().strip(),
    }
    print(json.dumps(state), flush=True)
