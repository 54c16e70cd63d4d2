"""One attempt to change something outside, chosen by name: `attempts.py NAME TARGETS`, where TARGETS is JSON.

Each function is a victim of its own: one way out and nothing else. Run plainly every one of them succeeds; run in a
transaction none of them may. An error that the kernel or the monitor answers ends the program with status 1.
"""

import ctypes
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = {}

# System calls that Python has no function for, on x86-64.
SYS_TGKILL, SYS_RT_SIGQUEUEINFO, SYS_RT_TGSIGQUEUEINFO = 234, 129, 297
SYS_SENDMMSG, SYS_PIDFD_GETFD, SYS_IOPRIO_SET = 307, 438, 251
SYS_PROCESS_VM_WRITEV, SYS_ADD_KEY = 311, 248


def attempt(function):
    """Registers a function under its own name."""
    ATTEMPTS[function.__name__] = function
    return function


def check(result):
    """Raises for a call that said no; returns what it said otherwise."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number, *arguments):
    """A system call with 64-bit arguments."""
    return check(
        libc.syscall(
            ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        )
    )


# Sockets.


@attempt
def tcp_connect(target):
    with socket.create_connection(("127.0.0.1", target["tcp"]), timeout=3) as connection:
        connection.sendall(b"x")


@attempt
def tcp_connect_ipv6(target):
    with socket.create_connection(("::1", target["tcp6"]), timeout=3) as connection:
        connection.sendall(b"x")


@attempt
def tcp_connect_nonblocking(target):
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", target["tcp"]))
        import select

        select.select([], [connection], [], 3)
        connection.send(b"x")


@attempt
def tcp_fast_open(target):
    with socket.socket() as connection:
        connection.settimeout(3)
        connection.sendto(b"x", 0x20000000, ("127.0.0.1", target["tcp"]))


@attempt
def udp_send_to(target):
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", target["udp"]))


@attempt
def udp_connect_and_send(target):
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", target["udp"]))
        sender.send(b"x")


@attempt
def udp_send_message(target):
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendmsg([b"x"], [], 0, ("127.0.0.1", target["udp"]))


@attempt
def udp_send_many(target):
    address = struct.pack(
        "=HH4s8x", socket.AF_INET, socket.htons(target["udp"]), socket.inet_aton("127.0.0.1")
    )
    name, data = ctypes.create_string_buffer(address, 16), ctypes.create_string_buffer(b"x", 1)
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(data), 1), 16)
    header = struct.pack("=QIxxxxQQQQiI", ctypes.addressof(name), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0)
    message = ctypes.create_string_buffer(header + struct.pack("=IxxxxQ", 0, 0)[:8], 64)
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        syscall(SYS_SENDMMSG, sender.fileno(), message, 1, 0)


@attempt
def unix_connect(target):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(target["unix"])
        connection.sendall(b"x")


@attempt
def unix_send_to(target):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", target["unix_datagram"])


@attempt
def unix_abstract_connect(target):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0" + target["abstract"])
        connection.sendall(b"x")


@attempt
def tcp_listen(target):
    """Somebody outside connects to the port that this takes."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", target["free_port"]))
        listener.listen()
        listener.settimeout(2)
        listener.accept()


# Signals and other processes.


@attempt
def kill(target):
    os.kill(target["pid"], signal.SIGUSR1)


@attempt
def kill_group(target):
    os.killpg(target["pgid"], signal.SIGUSR1)


@attempt
def kill_thread(target):
    syscall(SYS_TGKILL, target["pid"], target["pid"], int(signal.SIGUSR1))


@attempt
def kill_by_pidfd(target):
    signal.pidfd_send_signal(os.pidfd_open(target["pid"]), signal.SIGUSR1)


@attempt
def kill_by_proc_directory(target):
    signal.pidfd_send_signal(os.open(f"/proc/{target['pid']}", os.O_DIRECTORY), signal.SIGUSR1)


@attempt
def queue_signal(target):
    info = ctypes.create_string_buffer(
        struct.pack("=iiixxxxiI", int(signal.SIGUSR1), 0, -1, os.getpid(), os.getuid()), 128
    )
    syscall(SYS_RT_SIGQUEUEINFO, target["pid"], int(signal.SIGUSR1), info)


@attempt
def queue_signal_to_thread(target):
    info = ctypes.create_string_buffer(
        struct.pack("=iiixxxxiI", int(signal.SIGUSR1), 0, -1, os.getpid(), os.getuid()), 128
    )
    syscall(SYS_RT_TGSIGQUEUEINFO, target["pid"], target["pid"], int(signal.SIGUSR1), info)


@attempt
def signal_by_descriptor_owner(target):
    """The kernel sends the signal when something arrives: F_SETOWN names another process."""
    here, there = socket.socketpair()
    fcntl.fcntl(here, 10, int(signal.SIGUSR1))  # F_SETSIG
    fcntl.fcntl(here, fcntl.F_SETOWN, target["pid"])
    fcntl.fcntl(here, fcntl.F_SETFL, fcntl.fcntl(here, fcntl.F_GETFL) | os.O_ASYNC)
    there.send(b"x")


@attempt
def trace(target):
    check(libc.ptrace(16, target["pid"], 0, 0))  # PTRACE_ATTACH
    os.waitpid(target["pid"], 0x40000000)
    check(libc.ptrace(17, target["pid"], 0, int(signal.SIGUSR1)))  # PTRACE_DETACH with a signal


@attempt
def write_memory(target):
    source = ctypes.create_string_buffer(b"changed", 7)
    local = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(source), 7), 16)
    remote = ctypes.create_string_buffer(struct.pack("=QQ", target["address"], 7), 16)
    syscall(SYS_PROCESS_VM_WRITEV, target["pid"], local, 1, remote, 1, 0)


@attempt
def write_memory_by_proc(target):
    with open(f"/proc/{target['pid']}/mem", "r+b", buffering=0) as memory:
        memory.seek(target["address"])
        memory.write(b"changed")


@attempt
def take_descriptor(target):
    """Takes a descriptor out of another process and writes through it."""
    descriptor = syscall(SYS_PIDFD_GETFD, os.pidfd_open(target["pid"]), target["pipe_end"], 0)
    os.write(descriptor, b"x")


@attempt
def write_descriptor_by_proc(target):
    with open(f"/proc/{target['pid']}/fd/{target['pipe_end']}", "wb", buffering=0) as pipe:
        pipe.write(b"x")


@attempt
def set_priority(target):
    os.setpriority(os.PRIO_PROCESS, target["pid"], os.getpriority(os.PRIO_PROCESS, 0) + 1)


@attempt
def set_affinity(target):
    os.sched_setaffinity(target["pid"], {0})


@attempt
def set_io_priority(target):
    syscall(SYS_IOPRIO_SET, 1, target["pid"], (3 << 13) | 0)


@attempt
def set_limit(target):
    import resource

    hard = resource.prlimit(target["pid"], resource.RLIMIT_NOFILE)[1]
    resource.prlimit(target["pid"], resource.RLIMIT_NOFILE, (64, hard))


@attempt
def set_oom_score(target):
    with open(f"/proc/{target['pid']}/oom_score_adj", "w") as score:
        score.write("500")


# IPC objects of this host.


@attempt
def shared_memory_system_v(target):
    identity = check(libc.shmget(target["shm_key"], 4096, 0o600))
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(identity, None, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "shmat")
    ctypes.memmove(address, b"changed", 7)


@attempt
def message_queue_system_v(target):
    identity = check(libc.msgget(target["msg_key"], 0o600))
    check(libc.msgsnd(identity, ctypes.create_string_buffer(struct.pack("=q4s", 1, b"text"), 12), 4, 0))


@attempt
def semaphore_system_v(target):
    identity = check(libc.semget(target["sem_key"], 1, 0o600))
    check(libc.semop(identity, ctypes.create_string_buffer(struct.pack("=Hhh", 0, 1, 0), 6), 1))


@attempt
def message_queue_posix(target):
    queue = check(libc.mq_open(target["mq_name"].encode(), os.O_WRONLY))
    check(libc.mq_send(queue, b"x", 1, 0))


@attempt
def shared_memory_posix(target):
    with open(f"/dev/shm/{target['shm_name']}", "r+b") as file, mmap.mmap(file.fileno(), 7) as memory:
        memory[:] = b"changed"


@attempt
def keyring(target):
    description = target["key_name"].encode()
    syscall(SYS_ADD_KEY, ctypes.c_char_p(b"user"), ctypes.c_char_p(description), ctypes.c_char_p(b"x"), 1, -4)


# Files.


@attempt
def write_file(target):
    with open(target["file"], "w") as file:
        file.write("changed")


@attempt
def write_file_by_io_uring(target):
    """Only sets a ring up: what it could then do would pass no filter."""
    syscall(425, 1, ctypes.create_string_buffer(120))
    with open(target["file"], "w") as file:
        file.write("changed")


@attempt
def map_and_write_file(target):
    with open(target["file"], "r+b") as file, mmap.mmap(file.fileno(), 4) as memory:
        memory[:4] = b"MMAP"


@attempt
def delete_file(target):
    os.unlink(target["file"])


@attempt
def rename_directory(target):
    os.rename(target["directory"], target["directory"] + "-renamed")


@attempt
def change_mode(target):
    os.chmod(target["file"], 0o600)


@attempt
def change_times(target):
    os.utime(target["file"], (1, 1))


@attempt
def set_attribute(target):
    os.setxattr(target["file"], "user.reached", b"x")


@attempt
def write_through_own_root(target):
    with open("/proc/self/root" + target["file"], "w") as file:
        file.write("changed")


@attempt
def write_through_root_of_another(target):
    with open(f"/proc/{target['pid']}/root" + target["file"], "w") as file:
        file.write("changed")


@attempt
def write_through_directory_of_another(target):
    with open(f"/proc/{target['pid']}/cwd/" + os.path.basename(target["file"]), "w") as file:
        file.write("changed")


@attempt
def write_from_an_orphan(target):
    """A daemon that outlives the program."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            write_file(target)
        os._exit(0)
    os.wait()
    time.sleep(0.5)


@attempt
def open_terminal(target):
    with open(target["terminal"], "w") as terminal:
        terminal.write("x")


# The machine, which only root may change.


@attempt
def host_name(target):
    socket.sethostname(target["host_name"])


@attempt
def kernel_setting(target):
    with open("/proc/sys/vm/swappiness", "w") as setting:
        setting.write(target["swappiness"])


@attempt
def control_group(target):
    os.mkdir(target["control_group"])


def in_namespaces(flags, script):
    """Runs a shell script in namespaces of its own, as root of them."""
    subprocess.run(["unshare", "-Urm", *flags, "sh", "-ec", script], check=True)


@attempt
def kernel_setting_by_own_proc(target):
    """A fresh /proc has none of the sandbox's read-only covers, and root is root of the host there."""
    in_namespaces(["-pf", "--mount-proc"], f"echo {target['swappiness']} > /proc/sys/vm/swappiness")


@attempt
def control_group_by_own_mount(target):
    """Whoever owns a namespace of control groups can mount the host's."""
    name, place = os.path.basename(target["control_group"]), target["directory"]
    in_namespaces(["-C"], f"mount -t cgroup2 none {place}; mkdir {place}/{name}")


@attempt
def open_device(target):
    with open(target["device"], "w") as device:
        device.write(target["line"])


@attempt
def open_device_on_disk(target):
    with open(target["node"], "w") as device:
        device.write(target["line"])


@attempt
def make_device(target):
    """Another name for the same device, where nobody looks for one."""
    path = target["directory"] + "/device"
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 11))
    with open(path, "w") as device:
        device.write(target["line"])


@attempt
def mount_file_system(target):
    check(libc.mount(b"tmpfs", target["directory"].encode(), b"tmpfs", 0, None))


@attempt
def namespace_of_another(target):
    namespace = os.open(f"/proc/{target['pid']}/ns/mnt", os.O_RDONLY)
    check(libc.setns(namespace, 0))
    write_file(target)


if __name__ == "__main__":
    try:
        ATTEMPTS[sys.argv[1]](json.loads(sys.argv[2]))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        sys.exit(1)
