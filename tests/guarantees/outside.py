"""Everything outside that an attempt may reach for, and a witness of its state that no transaction touches."""

import ctypes
import json
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
IPC_RMID, IPC_CREAT, IPC_EXCL = 0, 0o1000, 0o2000
GETVAL = 12
SYSLOG_READ_ALL, SYSLOG_SIZE = 3, 10
#: How often a tree that changes is looked at again: for some ten seconds.
LOOKS = 1000

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


def check(result):
    """Raises for a call that failed; returns what it said otherwise."""
    if result is None or result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Outside:
    """Sockets that count, a process that is reached for, IPC objects and files. A context manager."""

    def __init__(self):
        self.stack = ExitStack()
        self.targets = {}
        self.listeners, self.datagrams = [], []
        self.received = 0

    def __enter__(self):
        # Not below /tmp: an ordinary user's file there would be a case of its own.
        self.directory = Path(tempfile.mkdtemp(prefix="tentative-outside-", dir="/var/tmp"))
        self.stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        try:
            for step in (self.files, self.sockets, self.bystander, self.system_v, self.posix, self.machine):
                step()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def files(self):
        """A file and a directory with something in it."""
        file, directory = self.directory / "file", self.directory / "directory"
        file.write_text("as it was")
        directory.mkdir()
        (directory / "inner").write_text("inner")
        self.targets |= {"file": str(file), "directory": str(directory)}
        node = self.directory / "node"
        if os.geteuid() == 0 and not node.exists():
            os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 11))
        self.targets["node"] = str(node)

    def restore_files(self):
        """Makes the files as they were, after a run outside changed them."""
        for place in (self.directory / "directory-renamed", self.directory / "directory"):
            subprocess.run(["umount", "-q", str(place)], stderr=subprocess.DEVNULL)
            shutil.rmtree(place, ignore_errors=True)
        (self.directory / "file").unlink(missing_ok=True)
        self.files()

    def sockets(self):
        """Listeners and datagram sockets of every kind that count what arrives, and a terminal."""

        def listen(name, family, address):
            listener = self.stack.enter_context(socket.socket(family))
            listener.setblocking(False)
            listener.bind(address)
            listener.setsockopt(socket.IPPROTO_TCP, 23, 5) if family != socket.AF_UNIX else None
            listener.listen()
            self.listeners.append(listener)
            self.targets[name] = (
                listener.getsockname()[1] if family != socket.AF_UNIX else address.strip("\0")
            )

        listen("tcp", socket.AF_INET, ("127.0.0.1", 0))
        listen("tcp6", socket.AF_INET6, ("::1", 0))
        listen("unix", socket.AF_UNIX, str(self.directory / "stream"))
        listen("abstract", socket.AF_UNIX, f"\0tentative-outside-{os.getpid()}")
        for name, family, address in (
            ("udp", socket.AF_INET, ("127.0.0.1", 0)),
            ("unix_datagram", socket.AF_UNIX, str(self.directory / "datagram")),
        ):
            receiver = self.stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            receiver.setblocking(False)
            receiver.bind(address)
            self.datagrams.append(receiver)
            self.targets[name] = receiver.getsockname()[1] if family == socket.AF_INET else address
        master, terminal = os.openpty()
        for end in (master, terminal):
            self.stack.callback(os.close, end)
        os.set_blocking(master, False)
        self.terminal = master
        self.targets["terminal"] = os.ttyname(terminal)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.targets["free_port"] = probe.getsockname()[1]

    def bystander(self):
        """A process that counts what it is hit by."""
        self.process = subprocess.Popen(
            [sys.executable, HERE / "bystander.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            start_new_session=True,
        )
        self.stack.enter_context(self.process)
        self.stack.callback(self.process.kill)
        self.targets |= json.loads(self.process.stdout.readline())

    def system_v(self):
        """A segment, a queue and a semaphore."""
        key = os.getpid() & 0x7FFFFFF | 0x10000000
        flags = IPC_CREAT | IPC_EXCL | 0o600
        segment = check(libc.shmget(key, 4096, flags))
        self.stack.callback(libc.shmctl, segment, IPC_RMID, None)
        self.segment = check(libc.shmat(segment, None, 0))
        self.stack.callback(libc.shmdt, ctypes.c_void_p(self.segment))
        self.queue = check(libc.msgget(key, flags))
        self.stack.callback(libc.msgctl, self.queue, IPC_RMID, None)
        self.semaphore = check(libc.semget(key, 1, flags))
        self.stack.callback(libc.semctl, self.semaphore, 0, IPC_RMID, 0)
        self.targets |= {"shm_key": key, "msg_key": key, "sem_key": key}

    def posix(self):
        """A message queue and shared memory."""
        name = f"/tentative-outside-{os.getpid()}"
        self.mq = check(libc.mq_open(name.encode(), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600, None))
        self.stack.callback(os.close, self.mq)
        self.stack.callback(libc.mq_unlink, name.encode())
        shared = Path("/dev/shm") / name[1:]
        shared.write_bytes(b"as it was")
        self.stack.callback(shared.unlink)
        self.shared = shared
        self.targets |= {"mq_name": name, "shm_name": name[1:], "key_name": f"tentative-{os.getpid()}"}

    def machine(self):
        """What root may change: named now, made only by the attempts."""
        settings = Path("/proc/sys/vm/swappiness")
        self.swappiness, self.host_name = settings.read_text().strip(), socket.gethostname()
        group = Path(f"/sys/fs/cgroup/unified/tentative-outside-{os.getpid()}")
        self.group = group if group.parent.is_dir() else Path("/sys/fs/cgroup") / group.name
        self.targets |= {
            "device": "/dev/kmsg",
            # Without its end the kernel shows a line only when the next one comes.
            "line": f"tentative-outside-{os.getpid()}-{time.monotonic_ns()}\n",
            "host_name": "changed-name",
            "swappiness": str(int(self.swappiness) - 1),
            "control_group": str(self.group),
        }

    def logged(self):
        """Counts our lines in the kernel's log, for whoever may read it."""
        log = ctypes.create_string_buffer(max(libc.klogctl(SYSLOG_SIZE, None, 0), 1))
        length = libc.klogctl(SYSLOG_READ_ALL, log, len(log))
        return log.raw[: max(length, 0)].count(self.targets["line"].encode())

    def restore_machine(self):
        """Puts the machine's settings back after a run outside."""
        if socket.gethostname() != self.host_name:
            socket.sethostname(self.host_name)
        settings = Path("/proc/sys/vm/swappiness")
        if settings.read_text().strip() != self.swappiness:
            settings.write_text(self.swappiness)
        if self.group.exists():
            self.group.rmdir()
        libc.syscall(250, 3, libc.syscall(249, b"user", self.targets["key_name"].encode(), None, -4))

    def knock(self):
        """Connects to the port that an attempt listens on, as somebody outside would."""
        try:
            socket.create_connection(("127.0.0.1", self.targets["free_port"]), timeout=0.1).close()
            self.received += 1
        except OSError:
            return

    def drain(self):
        """Counts what has arrived at the sockets."""
        while ready := select.select(self.listeners + self.datagrams, [], [], 0)[0]:
            for one in ready:
                if one in self.listeners:
                    one.accept()[0].close()
                else:
                    one.recv(64)
                self.received += 1
        while select.select([self.terminal], [], [], 0)[0]:
            self.received += len(os.read(self.terminal, 64))

    def witness(self):
        """All that an attempt could have changed, as one comparable value."""
        self.knock()
        self.drain()
        self.process.stdin.write("state\n")
        self.process.stdin.flush()
        return {
            "received": self.received,
            "process": json.loads(self.process.stdout.readline()),
            "segment": ctypes.string_at(self.segment, 9),
            "queue": self.queued(),
            "semaphore": libc.semctl(self.semaphore, 0, GETVAL, 0),
            "mq": Path(f"/proc/self/fdinfo/{self.mq}").read_text() and self.mq_length(),
            "shared": self.shared.read_bytes(),
            "key": libc.syscall(249, b"user", self.targets["key_name"].encode(), None, 0) >= 0,
            "files": self.tree(),
            "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
            "host_name": socket.gethostname(),
            "swappiness": Path("/proc/sys/vm/swappiness").read_text(),
            "group": self.group.exists(),
            "logged": self.logged(),
        }

    def queued(self):
        """How many messages the System V queue holds."""
        status = ctypes.create_string_buffer(256)
        check(libc.msgctl(self.queue, 2, status))
        return int.from_bytes(status.raw[80:88], sys.byteorder)

    def mq_length(self):
        """How many messages the POSIX queue holds."""
        attributes = (ctypes.c_long * 8)()
        check(libc.mq_getattr(self.mq, attributes))
        return attributes[3]

    def tree(self):
        """Names, modes, times, attributes and contents below the directory."""
        for _ in range(LOOKS):
            try:
                return self.tree_now()
            except FileNotFoundError as error:
                # An attempt outside changes it while it is looked at.
                gone = error
                time.sleep(0.01)
        raise RuntimeError(f"{self.directory} changed during each of {LOOKS} looks at it") from gone

    def tree_now(self):
        """The same, where nothing goes away meanwhile."""
        found = {}
        for path in sorted(self.directory.rglob("*")):
            about = path.lstat()
            content = path.read_bytes() if path.is_file() else about.st_rdev
            attributes = os.listxattr(path, follow_symlinks=False)
            found[str(path)] = (about.st_mode, about.st_ino, about.st_mtime_ns, attributes, content)
        return found
