"""``run``, ``exec``, ``attempts``, ``@transactional``, and every way in which code can end."""

import asyncio
import collections
import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest
import tentative
from processes import ran

SHARED = []


def run(options, function, *arguments):
    return tentative.transaction(**options).run(function, *arguments)


def test_run_returns_the_outcome(options):
    SHARED.clear()
    outcome = run(options, lambda value: SHARED.append(value) or value, 3)
    assert (outcome.value, outcome.committed, outcome.result(), SHARED) == (3, True, 3, [3])
    assert outcome.exit_code is None and outcome.duration > 0

    def fails():
        SHARED.append("lost")
        raise LookupError("no")

    outcome = run(options, fails)
    assert not outcome.committed and isinstance(outcome.exception, LookupError) and SHARED == [3]
    with pytest.raises(LookupError):
        outcome.result()


def test_exec_of_source(options):
    space = {"given": [1]}
    outcome = tentative.exec(
        "given.append(2)\nmade = sum(given)\nimport sys\nargs = sys.argv", space, argv=["a"], **options
    )
    assert (
        outcome.committed and space["made"] == 3 and space["given"] == [1, 2] and space["args"] == ["-c", "a"]
    )
    assert outcome.exit_code == 0 and sys.argv[-1] != "a"


def test_exec_uses_the_globals_of_its_caller(options):
    tentative.exec("made_by_exec = 5", **options)
    assert globals().pop("made_by_exec") == 5


def test_exec_of_a_script(options, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nassert __name__ == '__main__'\nname, file, arguments = __name__, __file__, sys.argv\n"
        "class Kept: pass\nkept = Kept()\n"
    )
    space = {"__name__": "mine"}
    outcome = tentative.exec(script, space, argv=["x", "y"], **options)
    assert outcome.committed, outcome.exception
    assert space["arguments"] == [str(script), "x", "y"] and space["file"] == str(script)
    assert (
        space["__name__"] == "mine"
        and "__file__" not in space
        and type(space["kept"]).__module__ == "__main__"
    )


@pytest.mark.parametrize(
    ("code", "status", "committed"),
    (("", 0, True), ("None", 0, True), ("0", 0, True), ("3", 3, False), ("'no'", 1, False)),
)
def test_exec_and_system_exit(options, code, status, committed):
    space = {}
    outcome = tentative.exec(f"x = 1\nimport sys\nsys.exit({code})", space, **options)
    assert (outcome.exit_code, outcome.committed, "x" in space) == (status, committed, committed)
    assert (outcome.exception is None) == committed


def test_exec_of_bad_input(options, tmp_path):
    assert isinstance(tentative.exec("a b", {}, **options).exception, SyntaxError)
    for neither in (b"x = 1", 1, None):
        with pytest.raises(TypeError, match="wants source"):
            tentative.exec(neither, {}, **options)
    assert isinstance(tentative.exec(tmp_path / "missing.py", {}, **options).exception, FileNotFoundError)
    outcome = tentative.exec("raise ValueError('x')", {}, **options)
    assert isinstance(outcome.exception, ValueError) and outcome.exit_code is None


def test_exec_without_commit_and_with_a_decision(options):
    space = {}
    assert not tentative.exec("x = 1", space, commit=False, **options).committed and "x" not in space
    asked = []
    outcome = tentative.exec("x = 1", space, commit=lambda frozen: asked.append(frozen), **options)
    assert not outcome.committed and "x" not in space
    assert [frozen.committed for frozen in asked] == [False]
    outcome = tentative.exec("x = 1", space, commit=lambda frozen: True, **options)
    assert outcome.committed and space["x"] == 1

    def fails(frozen):
        raise RuntimeError("cannot decide")

    outcome = tentative.exec("y = 1", space, commit=fails, **options)
    assert isinstance(outcome.exception, RuntimeError) and not outcome.committed and "y" not in space


def test_a_decision_that_leaves_a_thread_running_rolls_back(options):
    """The commit would take its stack from under it."""
    stop = threading.Event()
    threads = []

    def decides(frozen):
        threads.append(threading.Thread(target=stop.wait))
        threads[-1].start()
        return True

    space = {}
    outcome = tentative.exec("x = 1", space, commit=decides, **options)
    stop.set()
    threads[0].join()
    assert isinstance(outcome.exception, tentative.CommitRefused), outcome
    assert "threads" in str(outcome.exception) and not space

    def ends_its_own(frozen):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        return True

    assert tentative.exec("x = 1", space, commit=ends_its_own, **options).committed and space["x"] == 1


def test_given_globals_are_as_before_after_a_rollback(options):
    space = {}
    assert isinstance(tentative.exec("1 / 0", space, **options).exception, ZeroDivisionError)
    assert space == {}
    for wrong in (types.MappingProxyType({}), collections.ChainMap(), 5):
        with pytest.raises(TypeError, match=f"globals is a dict, not {type(wrong).__name__}"):
            tentative.exec("1", wrong, **options)


def test_no_code_of_what_is_called_runs_outside(memory):
    class Proxy:
        def __getattr__(self, name):
            asked.append(name)
            return self

        def __call__(self):
            return 5

    asked = []
    assert tentative.transaction(**memory).run(Proxy()).value == 5
    assert asked == []


@pytest.mark.parametrize("spoil", ("del sys.argv", "sys.argv = [1, '\\ud800']", "sys.executable = None"))
def test_whatever_the_command_line_has_become_it_begins(spoil):
    program = f"import sys, tentative; {spoil}; assert tentative.run(int).committed"
    subprocess.run([sys.executable, "-c", program, b"\xff"], check=True, timeout=60)


def test_attempts_end_with_the_first_commit(options):
    numbers, kept = [], []
    for tx in tentative.attempts(5, **options):
        numbers.append(tx.number)
        with tx:
            kept.append(tx.number)
            if tx.number < 3:
                raise OSError(tx.number)
    assert numbers == [1, 2, 3] and kept == [3]


def test_attempts_raise_the_last_failure(options):
    numbers = []
    with pytest.raises(OSError, match="2"):
        for tx in tentative.attempts(2, **options):
            numbers.append(tx.number)
            with tx:
                raise OSError(tx.number)
    assert numbers == [1, 2]
    with pytest.raises(ValueError):
        tentative.attempts(0)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc", "/proc/self/exe", "/dev/no-such-device"])
def test_a_device_rule_that_names_no_device_is_refused(path):
    with pytest.raises(ValueError, match=f"'{path}' is "), tentative.transaction(allow=(f"device:{path}",)):
        raise AssertionError("it began")


def test_attempts_do_not_hold_an_interrupt_back(options):
    with pytest.raises(KeyboardInterrupt):
        for tx in tentative.attempts(2, **options):
            with tx:
                raise KeyboardInterrupt


def test_transactional(options):
    SHARED.clear()

    @tentative.transactional(**options)
    def add(value, fail=False):
        """Adds."""
        SHARED.append(value)
        if fail:
            raise ValueError(value)
        return len(SHARED)

    assert add(1) == 1 and add.__doc__ == "Adds."
    with pytest.raises(ValueError):
        add(2, fail=True)
    assert SHARED == [1]
    with pytest.raises(TypeError, match="coroutine"):
        tentative.transactional(asyncio.sleep)


def crash():
    import ctypes

    ctypes.string_at(0)


def recurse():
    return recurse()


def recurse_in_c():
    # repr of a list that deep needs more C stack than there is, or raises RecursionError.
    deep = []
    for _ in range(10**6):
        deep = [deep]
    return repr(deep)


ENDINGS = (
    (crash, tentative.Crashed, "SIGSEGV"),
    (os.abort, tentative.Crashed, "SIGABRT"),
    (lambda: os.kill(os.getpid(), signal.SIGTERM), tentative.Crashed, "SIGTERM"),
    (lambda: os._exit(7), tentative.Exited, "status 7"),
    (recurse, RecursionError, "maximum recursion depth"),
    (lambda: sys.exit("bye"), SystemExit, "bye"),
    (lambda: os.execv("/bin/sh", ["sh", "-c", "exit 4"]), tentative.Exited, "status 4"),
)


@pytest.mark.parametrize(("function", "kind", "text"), ENDINGS)
def test_every_ending_is_an_outcome(options, function, kind, text):
    SHARED.clear()
    outcome = run(options, lambda: (SHARED.append(1), function()))
    assert type(outcome.exception) is kind and text in str(outcome.exception)
    assert SHARED == [] and not outcome.committed
    if isinstance(outcome.exception, tentative.RolledBack):
        assert outcome.exception.outcome is outcome


def test_deep_recursion_in_c_is_an_outcome(options):
    outcome = run(options, recurse_in_c)
    assert isinstance(outcome.exception, RecursionError | tentative.Crashed | MemoryError)


def test_crashed_carries_its_signal(options):
    assert run(options, crash).exception.signal == signal.SIGSEGV
    assert run(options, lambda: os._exit(9)).exception.code == 9


@pytest.mark.parametrize(
    "hang", ("while True: pass", "import time; time.sleep(60)", "import signal; signal.pause()")
)
def test_a_timeout_ends_what_hangs(options, hang):
    started = time.monotonic()
    outcome = tentative.exec(hang, {}, timeout=0.2, **options)
    assert isinstance(outcome.exception, tentative.TimedOut) and isinstance(outcome.exception, TimeoutError)
    assert time.monotonic() - started < 10 and "0.2 s" in str(outcome.exception)


def test_a_timeout_in_a_block_is_raised(options):
    with pytest.raises(tentative.TimedOut):
        with tentative.transaction(timeout=0.2, **options):
            time.sleep(60)


def test_a_memory_limit(options):
    outcome = tentative.exec("x = bytearray(1 << 30)", {}, memory_limit=64 << 20, **options)
    assert type(outcome.exception) is tentative.OutOfMemory and isinstance(outcome.exception, MemoryError)
    assert "67,108,864 bytes" in str(outcome.exception) and "MemoryError" in str(outcome.exception.__cause__)
    assert outcome.exception.outcome is outcome and outcome.memory_limit_by == "RLIMIT_AS, for each process"
    outcome = tentative.exec("x = bytearray(1 << 20)", {}, memory_limit=64 << 20, **options)
    assert outcome.committed and outcome.memory_limit_by == "RLIMIT_AS, for each process"


def test_a_memory_error_without_a_limit_stays_one(options):
    outcome = tentative.exec("raise MemoryError('mine')", {}, **options)
    assert type(outcome.exception) is MemoryError and str(outcome.exception) == "mine"
    assert outcome.memory_limit_by is None


#: Takes everything that there is, down to the smallest objects.
TAKE_ALL = """
taken, size = [], 1 << 24
while size > 16:
    try:
        taken.append(bytearray(size))
    except MemoryError:
        size //= 2
while True:
    taken.append([])
"""


def test_no_memory_at_all_is_still_told(options):
    outcome = tentative.exec(TAKE_ALL, {}, memory_limit=64 << 20, **options)
    assert type(outcome.exception) is tentative.OutOfMemory
    assert "MemoryError" in str(outcome.exception.__cause__) and outcome.changes.objects.known
    with pytest.raises(MemoryError):
        with tentative.transaction(memory_limit=64 << 20, **options):
            exec(TAKE_ALL, {})


#: The same, and goes on: ends well with much to say about itself.
TAKE_ALL_AND_END_WELL = f"""
for number in range(3000):
    globals()[f"name{{number}}"] = number
try:
    exec({TAKE_ALL!r})
except MemoryError:
    pass
"""


def test_code_that_used_all_memory_and_ends_well_is_committed(options):
    namespace = {}
    outcome = tentative.exec(TAKE_ALL_AND_END_WELL, namespace, memory_limit=64 << 20, **options)
    assert outcome.committed and outcome.exception is None, outcome.exception and outcome.exception.__cause__
    assert namespace["name2999"] == 2999 and len(outcome.changes.objects) >= 3000


#: Says how a transaction ends that begins with so much room on top, and that the next one goes well.
LIMITED = """
import resource, sys, tentative
options, room, again = eval(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "again"
if again:
    tentative.transaction(**options).run(int)
before = resource.getrlimit(resource.RLIMIT_AS)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + room, before[1]))
inside = False
try:
    with tentative.transaction(**options):
        inside = True
except MemoryError:
    told = "MemoryError"
else:
    told = "committed"
resource.setrlimit(resource.RLIMIT_AS, before)
print(told, inside, tentative.transaction(**options).run(int).committed)
"""


@pytest.mark.parametrize("again", ("first", "again"))
@pytest.mark.parametrize("room", (1 << 12, 1 << 16, 1 << 18, 1 << 20, 1 << 22))
def test_no_room_to_begin_is_a_memory_error(options, room, again):
    done = ran(sys.executable, "-c", LIMITED, repr(options), str(room), again)
    assert done.stdout == "MemoryError False True\n", done.stdout + done.stderr


def test_no_memory_and_no_reserve_is_still_rolled_back():
    """Where the program itself has a limit on address space, rolling back can be given nothing: it may crash."""
    program = (
        "import resource, tentative\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, [used + (256 << 20)] * 2)\n"
        f"outcome = tentative.exec({TAKE_ALL!r}, {{}}, memory_limit=1 << 30, without='files,kin,world')\n"
        "print(type(outcome.exception).__name__, outcome.committed)\n"
    )
    done = ran(sys.executable, "-c", program)
    assert done.stdout in ("OutOfMemory False\n", "Crashed False\n"), done.stdout + done.stderr


def test_a_kill_is_nothing_but_a_kill(options):
    outcome = tentative.exec("import os; os.kill(os.getpid(), 9)", {}, memory_limit=1 << 30, **options)
    assert type(outcome.exception) is tentative.Crashed and outcome.exception.signal == 9


def test_an_option_given_to_run_is_explained():
    exception = tentative.run(lambda value: value, 1, timeout=5).exception
    assert type(exception) is TypeError
    if sys.version_info >= (3, 11):  # the first in which exceptions have notes
        assert "tentative.transaction(timeout=…).run(" in exception.__notes__[0]

    def inner():
        (lambda: 0)(timeout=5)

    for function, arguments in ((inner, {}), (lambda: 0, {"other": 1})):
        exception = tentative.run(function, **arguments).exception
        assert type(exception) is TypeError and not hasattr(exception, "__notes__")
    assert tentative.run(lambda timeout: timeout, timeout=5).value == 5


def test_an_interrupt_reaches_the_branch(options):
    """Ctrl-C while a transaction runs interrupts its code, which may clean up and raises in the origin."""
    log = []
    # A shell starts what runs in the background with it ignored, which Python leaves as it is.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sender = os.fork()
    if sender == 0:
        time.sleep(0.3)
        os.kill(os.getppid(), signal.SIGINT)
        os._exit(0)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            with tentative.transaction(**options):
                try:
                    time.sleep(30)
                except KeyboardInterrupt:
                    log.append("lost with the branch")
                    raise
    finally:
        os.waitpid(sender, 0)
        signal.signal(signal.SIGINT, before)
    assert log == [] and "time.sleep(30)" in str(caught.value.__cause__)


def test_output_appears_once(options, tmp_path):
    program, without = tmp_path / "program.py", options.get("without", ())
    program.write_text(
        "import sys, ctypes, tentative\nlibc = ctypes.CDLL(None)\nprint('python before', end=' ')\n"
        "libc.printf(b'c before ')\n"
        f"with tentative.transaction(without={without!r}) as tx:\n"
        "    print('python inside', end=' ')\n    libc.printf(b'c inside ')\n    tx.rollback()\n"
        f"with tentative.transaction(without={without!r}) as tx:\n    print('committed', end=' ')\n"
        "print('after')\n"
    )
    done = ran(sys.executable, program)
    assert done.returncode == 0, done.stderr
    for part in ("python before", "c before", "python inside", "c inside", "committed", "after"):
        assert done.stdout.count(part) == 1, done.stdout
