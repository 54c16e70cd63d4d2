"""The outside that attempts try to reach: listeners, a victim process, IPC objects, files. One process, bounded by its
standard input: each line read is answered by one line, the state; at its end everything goes away.
"""

import ctypes
import hashlib
import json
import os
import pathlib
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
BASE = pathlib.Path(tempfile.mkdtemp(prefix="tentative-outside-", dir="/var/tmp"))
KEY = 0x7E000000 | os.getpid() & 0xFFFFFF


def make_files():
    (BASE / "tree" / "below").mkdir(parents=True)
    (BASE / "tree" / "below" / "file").write_text("below")
    for name in ("changed", "removed", "mode", "times", "shared", "linked", "attribute"):
        (BASE / name).write_text("before")


def make_sockets():
    tcp = socket.create_server(("127.0.0.1", 0))
    tcp6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    path = socket.socket(socket.AF_UNIX)
    path.bind(str(BASE / "stream.sock"))
    path.listen()
    datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagram.bind(str(BASE / "datagram.sock"))
    name = socket.socket(socket.AF_UNIX)
    name.bind(f"\0tentative-{os.getpid()}")
    name.listen()
    return {"tcp": tcp, "tcp6": tcp6, "udp": udp, "path": path, "datagram": datagram, "name": name}


VICTIM = """
import ctypes, signal, sys
got = []
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda n, f: got.append(n))
word = ctypes.create_string_buffer(b"before")
print(ctypes.addressof(word), flush=True)
for line in sys.stdin:
    print(got, word.value.decode(), flush=True)
"""


def main():
    make_files()
    sockets = make_sockets()
    for listener in sockets.values():
        listener.setblocking(False)
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    address = int(victim.stdout.readline())
    shared = libc.shmget(KEY, 4096, 0o1000 | 0o600)
    memory = ctypes.c_char * 16
    memory = memory.from_address(libc.shmat(shared, None, 0))
    contacts = dict.fromkeys(sockets, 0)

    def state():
        while ready := select.select(list(sockets.values()), [], [], 0.02)[0]:
            for name, listener in sockets.items():
                if listener in ready:
                    contacts[name] += 1
                    if name in ("udp", "datagram"):
                        listener.recv(100)
                    else:
                        listener.accept()[0].close()
        victim.stdin.write("\n")
        victim.stdin.flush()
        files = hashlib.sha256()
        for path in sorted(BASE.rglob("*")):
            status = path.lstat()
            files.update(
                repr(
                    (str(path), status.st_mode, status.st_size, status.st_mtime_ns, status.st_nlink)
                ).encode()
            )
            if path.is_file() and not path.is_symlink():
                files.update(path.read_bytes())
                files.update(repr([(n, os.getxattr(path, n)) for n in os.listxattr(path)]).encode())
        return {
            "contacts": contacts,
            "victim": victim.stdout.readline(),
            "priority": os.getpriority(os.PRIO_PROCESS, victim.pid),
            "limits": resource.prlimit(victim.pid, resource.RLIMIT_CORE),
            "affinity": sorted(os.sched_getaffinity(victim.pid)),
            "files": files.hexdigest(),
            "shared": memory.raw.hex(),
            "host": os.uname().nodename,
            "mounts": pathlib.Path("/proc/self/mountinfo").read_text().count("\n"),
        }

    os.environ.pop("TENTATIVE_ID", None)
    ports = {name: sockets[name].getsockname()[1] for name in ("tcp", "tcp6", "udp")}
    print(
        json.dumps(
            {
                "base": str(BASE),
                "victim": victim.pid,
                "address": address,
                "key": KEY,
                "pid": os.getpid(),
                **ports,
            }
        )
    )
    sys.stdout.flush()
    try:
        for _ in sys.stdin:
            print(json.dumps(state(), sort_keys=True), flush=True)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        libc.shmctl(shared, 0, None)
        shutil.rmtree(BASE)


main()
