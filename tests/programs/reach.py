"""Attempts to reach outside, one by name: `reach.py NAME PARAMETERS`. Ends with 0 when the call succeeded, with 1 when it
was refused (the error on standard error), with 77 when this machine has no such thing.
"""

import ctypes
import errno
import json
import os
import socket
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
P = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
BASE = P.get("base", "")
SIGUSR1 = 10


def call(result):
    if result == -1 or result is None:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number, *arguments):
    words = [a if isinstance(a, ctypes._SimpleCData | ctypes.Array) else ctypes.c_long(a) for a in arguments]
    return call(libc.syscall(ctypes.c_long(number), *words))


def stream(family, address):
    with socket.socket(family) as s:
        s.connect(address)


def datagram(how):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        how(s, ("127.0.0.1", P["udp"]))


def connected(s, to):
    s.connect(to)
    s.send(b"x")
    # The answer of a closed port comes with the next call.
    time.sleep(0.01)
    s.send(b"x")


def several(s, to):
    address = to[1].to_bytes(2, "big") + socket.inet_aton(to[0])
    name = ctypes.create_string_buffer((2).to_bytes(2, "little") + address + bytes(8), 16)
    data = ctypes.create_string_buffer(b"x", 1)
    vector = (ctypes.c_ulong * 2)(ctypes.addressof(data), 1)
    header = (ctypes.c_ulong * 8)(ctypes.addressof(name), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0)
    syscall(307, s.fileno(), header, 1, 0)


def to_path():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", f"{BASE}/datagram.sock")


def shared_memory():
    at = call(libc.shmat(call(libc.shmget(P["key"], 4096, 0)), None, 0))
    ctypes.memmove(at, b"reached", 7)


def write_memory():
    data = ctypes.create_string_buffer(b"reached")
    local = (ctypes.c_ulong * 2)(ctypes.addressof(data), 7)
    remote = (ctypes.c_ulong * 2)(P["address"], 7)
    syscall(311, P["victim"], local, 1, remote, 1, 0)


def trace():
    syscall(101, 0x4206, P["victim"], 0, 0)


def limit():
    import resource

    soft, hard = resource.prlimit(P["victim"], resource.RLIMIT_CORE)
    resource.prlimit(P["victim"], resource.RLIMIT_CORE, (4096 if soft != 4096 else 8192, hard))


def affinity():
    there = os.sched_getaffinity(0)
    os.sched_setaffinity(P["victim"], {max(there)} if len(there) > 1 else there)


def queue_signal():
    info = (ctypes.c_int * 32)(SIGUSR1, 0, -1)
    syscall(129, P["victim"], SIGUSR1, info)


def write(name, how):
    with open(f"{BASE}/{name}", how) as file:
        file.write("inside")


def shared_mapping():
    import mmap

    with open(f"{BASE}/shared", "r+b") as file, mmap.mmap(file.fileno(), 6) as memory:
        memory[:] = b"mapped"


def set_clock():
    syscall(227, 0, (ctypes.c_long * 2)(int(time.time()), 500_000_000))


def host_name():
    name = os.uname().nodename
    other = name + "x" if not name.endswith("x") else name[:-1]
    call(libc.sethostname(other.encode(), len(other)))
    # It was reached; the name is put back where it is everybody's.
    call(libc.sethostname(name.encode(), len(name)))


def mount():
    call(libc.mount(b"none", f"{BASE}/tree".encode(), b"tmpfs", 0, None))
    call(libc.umount2(f"{BASE}/tree".encode(), 0))


def key():
    syscall(248, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"tentative-test"), ctypes.c_char_p(b"x"), 1, -2)


def without_waiting():
    import asyncio

    async def connect():
        _reader, writer = await asyncio.open_connection("127.0.0.1", P["tcp"])
        writer.close()
        await writer.wait_closed()

    asyncio.run(connect())


def serve():
    """Takes one connection on a port that nobody outside has."""
    with socket.create_server(("127.0.0.1", P["free"])) as s:
        s.settimeout(5)
        connection, _ = s.accept()
        connection.sendall(b"served")
        connection.close()


def fetch():
    """Connects to that port until somebody answers."""
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.1", P["free"]), 5) as s:
                answer = s.recv(10)
                break
        except OSError:
            time.sleep(0.05)
    else:
        raise OSError(errno.ECONNREFUSED, "nobody serves")
    assert answer == b"served", answer


def both_sides():
    """A server and a client inside: nothing crosses."""
    with socket.create_server(("127.0.0.1", 0)) as s, socket.create_connection(s.getsockname()) as c:
        c.sendall(b"x")
        assert s.accept()[0].recv(1) == b"x"


def far():
    """An address that no machine has (RFC 5737)."""
    stream(socket.AF_INET, ("192.0.2.1", 80))


ATTEMPTS = {
    "without_waiting": without_waiting,
    "serve": serve,
    "fetch": fetch,
    "both_sides": both_sides,
    "far": far,
    # files
    "create": lambda: write("created", "w"),
    "append": lambda: write("changed", "a"),
    "remove": lambda: os.unlink(f"{BASE}/removed"),
    "mode": lambda: os.chmod(f"{BASE}/mode", 0o751),
    "times": lambda: os.utime(f"{BASE}/times", (1, 1)),
    "attribute": lambda: os.setxattr(f"{BASE}/attribute", "user.tentative", b"x"),
    "rename_directory": lambda: os.rename(f"{BASE}/tree/below", f"{BASE}/tree/moved"),
    "symbolic_link": lambda: os.symlink("changed", f"{BASE}/symbolic"),
    "hard_link": lambda: os.link(f"{BASE}/linked", f"{BASE}/link"),
    "fifo": lambda: os.mkfifo(f"{BASE}/fifo"),
    "shared_mapping": shared_mapping,
    # kin
    "signal": lambda: os.kill(P["victim"], SIGUSR1),
    "signal_0": lambda: os.kill(P["victim"], 0),
    "signal_group": lambda: os.killpg(P["victim"], SIGUSR1),
    "signal_thread": lambda: syscall(234, P["victim"], P["victim"], SIGUSR1),
    "queue_signal": queue_signal,
    "process_descriptor": lambda: os.pidfd_open(P["victim"]),
    "trace": trace,
    "write_memory": write_memory,
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, P["victim"], 5),
    "limit": limit,
    "affinity": affinity,
    "shared_memory": shared_memory,
    "key": key,
    # world
    "tcp": lambda: stream(socket.AF_INET, ("127.0.0.1", P["tcp"])),
    "tcp6": lambda: stream(socket.AF_INET6, ("::1", P["tcp6"])),
    "udp_sendto": lambda: datagram(lambda s, to: s.sendto(b"x", to)),
    "udp_sendmsg": lambda: datagram(lambda s, to: s.sendmsg([b"x"], [], 0, to)),
    "udp_sendmmsg": lambda: datagram(several),
    "udp_connect": lambda: datagram(connected),
    "unix_path": lambda: stream(socket.AF_UNIX, f"{BASE}/stream.sock"),
    "unix_name": lambda: stream(socket.AF_UNIX, f"\0tentative-{P['pid']}"),
    "unix_datagram": to_path,
    "io_uring": lambda: os.close(syscall(425, 4, (ctypes.c_char * 120)())),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM).close(),
    # root
    "packet": lambda: socket.socket(17, socket.SOCK_RAW, 0x300).close(),
    "clock": set_clock,
    "host_name": host_name,
    "device": lambda: os.mknod(f"{BASE}/device", 0o20600, os.makedev(1, 3)),
    "mount": mount,
    "kernel_log": lambda: call(libc.klogctl(10, None, 0)),
    "performance": lambda: os.close(syscall(298, (ctypes.c_uint * 32)(1, 128), -1, 0, -1, 0)),
    "programs_in_kernel": lambda: os.close(syscall(321, 0, (ctypes.c_uint * 18)(2, 4, 4, 1), 72)),
}

try:
    ATTEMPTS[sys.argv[1]]()
except OSError as error:
    print(sys.argv[1], error, file=sys.stderr)
    sys.exit(77 if error.errno in (errno.ENOSYS, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT) else 1)
