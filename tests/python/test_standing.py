"""What a commit takes over of a process among others, what it refuses by name, and that neither is silent."""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest
import tentative

PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def alone():
    """Runs a test's function in a process of its own, which it may change as it likes."""

    def run(function, *args):
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                function(*args)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return run


def is_subreaper():
    flag = ctypes.c_int()
    libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(flag))
    return flag.value == 1


def standing():
    return os.nice(0), sorted(os.sched_getaffinity(0)), is_subreaper(), libc.personality(0xFFFFFFFF)


def stand_differently():
    os.nice(4)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    libc.personality(0x0040000)


def test_standing_arrives_with_a_commit_and_not_otherwise(options, alone):
    def check():
        before = standing()
        tentative.transaction(**options).run(lambda: (stand_differently(), 1 / 0))
        assert standing() == before
        with tentative.transaction(**options) as tx:
            stand_differently()
            child = subprocess.Popen(["sleep", "60"])
            with pytest.raises(tentative.CommitRefused):
                tx.commit()
            child.kill()
            child.wait()
            tx.rollback()
        assert standing() == before
        with tentative.transaction(**options) as tx:
            stand_differently()
        last = max(before[1])
        assert tx.outcome.committed and standing() == (before[0] + 4, [last], True, before[3] | 0x0040000)

    alone(check)


def test_dropped_privileges_do_not_come_back_silently(options, alone):
    def check():
        with pytest.raises(tentative.CommitRefused, match="other user or group ids"):
            with tentative.transaction(**options):
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
        assert os.getresuid() == (0, 0, 0) == os.getresgid()
        with tentative.transaction(**options) as tx:
            os.seteuid(65534)
            with pytest.raises(tentative.CommitRefused, match="other user or group ids"):
                tx.commit()
            os.seteuid(0)
        assert tx.outcome.committed

    if os.geteuid() == 0:
        alone(check)


def test_another_root_directory_refuses_the_commit(options, alone, tmp_path):
    def check():
        jail = tmp_path / "jail"
        jail.mkdir()
        (jail / "own").touch()
        outside = os.listdir("/")
        with pytest.raises(tentative.CommitRefused, match="changed its root directory"):
            with tentative.transaction(**options):
                os.chroot(jail)
                os.chdir("/")
                assert os.listdir("/") == ["own"]
        assert os.listdir("/") == outside
        with tentative.transaction(**options) as tx:
            back = os.open("/", os.O_RDONLY)
            os.chroot(jail)
            with pytest.raises(tentative.CommitRefused, match="changed its root directory"):
                tx.commit()
            os.fchdir(back)
            os.chroot(".")
            os.close(back)
        assert tx.outcome.committed and os.listdir("/") == outside

    if os.geteuid() == 0:
        alone(check)


def test_a_signal_that_waits_refuses_the_commit(options):
    with tentative.transaction(**options) as tx:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(tentative.CommitRefused, match=f"signal {int(signal.SIGUSR1)} is pending"):
            tx.commit()
        assert signal.sigwait({signal.SIGUSR1}) == signal.SIGUSR1
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    assert tx.outcome.committed


def test_a_signal_that_waited_waits_after_a_rollback(options, alone):
    """Whether it came before or meanwhile, and also if the code took it."""

    def check():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
        os.kill(os.getpid(), signal.SIGUSR1)
        origin, sender = os.getpid(), os.fork()
        if sender == 0:
            signal.sigtimedwait((), 0.3)
            os.kill(origin, signal.SIGUSR2)
            os._exit(0)
        with tentative.transaction(**options, timeout=20) as tx:
            tx.rollback((signal.sigwait({signal.SIGUSR1}), signal.sigwait({signal.SIGUSR2})))
        assert tx.outcome.value == (signal.SIGUSR1, signal.SIGUSR2), tx.outcome
        assert signal.sigpending() == {signal.SIGUSR1, signal.SIGUSR2}
        os.waitpid(sender, 0)

    alone(check)


def test_streams_and_pipes_block_as_before_after_a_rollback(options, alone):
    def check():
        numbers = [*os.pipe(), 1, 2]
        first, second = socket.socketpair()
        numbers += [first.fileno(), second.fileno()]
        os.dup2(numbers[1], 1)
        os.dup2(numbers[1], 2)
        before = [os.get_blocking(number) for number in numbers]

        def changes():
            for number in numbers:
                os.set_blocking(number, False)
            raise KeyError

        outcome = tentative.transaction(**options).run(changes)
        assert isinstance(outcome.exception, KeyError), outcome.exception
        assert [os.get_blocking(number) for number in numbers] == before == [True] * 6

    alone(check)


def test_the_limit_on_descriptors_is_named(options, alone):
    def check():
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        said = []
        while not said or said[-1] is not None:
            try:
                said.append(tentative.transaction(**options).run(int).exception)
            except tentative.Unsupported as error:
                assert "ulimit -n" in str(error) and str(error).count("os error") == 1, error
                said.append(error)
                os.close(taken.pop())
        assert 1 < len(said) < 16, said

    alone(check)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: nobody else makes a pid namespace alone")
def test_the_first_process_of_a_namespace_is_refused_by_name(everything):
    program = (
        "import tentative\ntry:\n tentative.run(int)\nexcept tentative.Unsupported as error:\n print(error)\n"
        "print(tentative.transaction(without='files,kin,world').run(int).committed)"
    )
    first = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", program]
    told = subprocess.run(first, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout
    assert "first of its pid namespace" in told and "--init" in told and told.endswith("True\n"), told


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: nobody else has the ids of another user")
def test_who_has_the_ids_of_several_users_is_refused_by_name(memory, alone):
    """He may not look at his own clone: nobody would answer what it asks for."""

    def check():
        os.seteuid(65534)
        with pytest.raises(tentative.Unsupported, match="ids of several users"):
            tentative.transaction(**memory).run(int)
        os.seteuid(0)
        assert tentative.transaction(**memory).run(int).committed

    alone(check)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: nobody else has the ids of another user")
def test_code_that_nobody_may_look_at_any_more_does_not_hang(memory, alone):
    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    def without_power_to_look():
        header, data = Header(0x2008_0522, 0), (ctypes.c_uint32 * 6)()
        libc.capget(ctypes.byref(header), data)
        for index in range(3):
            data[index] &= ~(1 << 19)  # CAP_SYS_PTRACE
        assert libc.capset(ctypes.byref(header), data) == 0

    def check():
        without_power_to_look()

        def becomes_another():
            os.seteuid(65534)

        outcome = tentative.transaction(**memory, timeout=30).run(becomes_another)
        assert "could not be handed over" in str(outcome.exception) and not outcome.committed, outcome
        assert not outcome.changes.objects.known and os.geteuid() == 0

    alone(check)


def locked_for_others(path):
    """Whether another process can lock a file, by each kind of lock."""
    script = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\nfor lock in fcntl.flock, fcntl.lockf:\n"
        " try: lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n except OSError: print('held')"
    )
    return subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("when", ("before", "inside"))
def test_locks_are_held_after_a_commit_and_not_after_a_rollback(everything, tmp_path, when):
    path = tmp_path / "locked"
    path.write_text("")
    for how in ("commit", "rollback"):
        file = open(path, "r+") if when == "before" else None
        with tentative.transaction() as tx:
            file = file or open(path, "r+")
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.lockf(file, fcntl.LOCK_EX)
            getattr(tx, how)()
        if how == "commit":
            assert locked_for_others(path) == ["held", "held"]
        assert tx.outcome.committed == (how == "commit")
        if file is not None:
            file.close()
        assert locked_for_others(path) == ["free", "free"]


def test_with_memory_alone_a_lock_of_the_process_refuses_the_commit(memory, tmp_path):
    path = tmp_path / "locked"
    with open(path, "w+") as file:
        with tentative.transaction(**memory) as tx:
            fcntl.lockf(file, fcntl.LOCK_EX)
            with pytest.raises(tentative.CommitRefused, match=f"the lock on {path}.*let it go before"):
                tx.commit()
            fcntl.lockf(file, fcntl.LOCK_UN)
            fcntl.flock(file, fcntl.LOCK_EX)
        assert tx.outcome.committed and locked_for_others(path) == ["held", "free"]


def test_a_database_that_is_locked_inside_stays_locked(everything, tmp_path):
    import sqlite3

    path = tmp_path / "database"
    known = sqlite3.connect(path, isolation_level=None)
    known.execute("create table numbers (number)")
    with tentative.transaction() as tx:
        known.execute("begin immediate")
        known.execute("insert into numbers values (1)")
    assert tx.outcome.committed
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('begin immediate')"
            done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
            raise sqlite3.OperationalError(done.stderr)
        known.execute("commit")
        assert other.execute("select number from numbers").fetchall() == [(1,)]
    finally:
        known.close()
        other.close()


def test_a_socket_that_listens_inside_refuses_the_commit(everything):
    with pytest.raises(tentative.CommitRefused, match=r"socket \d+ \(tcp 127.0.0.1:\d+, listening\) belongs"):
        with tentative.transaction():
            server = socket.create_server(("127.0.0.1", 0))
    with tentative.transaction() as tx:
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        for open_socket in (server, client, accepted):
            with pytest.raises(tentative.CommitRefused, match="close it before the commit"):
                tx.commit()
            open_socket.close()
        one, other = socket.socketpair()
    assert tx.outcome.committed
    one.sendall(b"text")
    assert other.recv(10) == b"text"
    one.close()
    other.close()


def test_a_group_of_its_own_is_refused_where_it_could_not_arrive(alone):
    def check():
        assert os.getpgrp() != os.getpid()
        with tentative.transaction() as tx:
            for make in (lambda: os.setpgid(0, 0), os.setpgrp, lambda: os.setpgid(os.getpid(), os.getpid())):
                with pytest.raises(PermissionError):
                    make()
            subprocess.run(["true"], preexec_fn=os.setpgrp, check=True)
        assert tx.outcome.committed
        (blocked,) = [effect for effect in tx.effects if effect.operation == "setpgid"]
        assert blocked.effect_class == "blocked" and blocked.count == 3 and "do it before" in blocked.hint
        os.setpgid(0, 0)
        with tentative.transaction() as tx:
            os.setpgid(0, 0)
        assert tx.outcome.committed and os.getpgrp() == os.getpid()

    alone(check)
