"""Every way to write a with statement, under every kind of tracer, with a context manager that always skips.

A program of its own, run by each interpreter version that the machine has (``test_skip.py``): prints ``ok`` or fails.
It knows no transaction: what is shown is that not one bytecode of a body runs and that tracers go on.
"""

import importlib.util
import sys
import types
from pathlib import Path


def load_package():
    """The package's Python files, without the extension module, which is built for one interpreter's environment."""
    root = Path(__file__).resolve().parents[2] / "python" / "tentative"
    package = types.ModuleType("tentative")
    package.__path__ = [str(root)]
    sys.modules["tentative"] = package
    for name in ("errors", "frames"):
        spec = importlib.util.spec_from_file_location(f"tentative.{name}", root / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return sys.modules["tentative.frames"], sys.modules["tentative.errors"]


frames, errors = load_package()
ran = []


class RolledBack:
    """Enters and leaves like a transaction whose branch was rolled back."""

    def __init__(self, raises=None, gives=None):
        self.raises, self.gives = raises, gives

    def __enter__(self):
        frame = sys._getframe(1)
        frames.require_with_statement(frame)
        self.skip = frames.Skip(frame, self if self.gives is None else self.gives)
        assert self.skip.arm()
        return self if self.gives is None else self.gives

    def __exit__(self, kind, exception, traceback):
        self.skip.undo()
        assert kind in (frames.BodySkipped, None), (kind, exception)
        if self.raises is not None:
            try:
                raise self.raises
            finally:
                self.raises.__context__ = None
        return True


class Recorder(dict):
    pass


def block():
    with RolledBack() as tx:
        ran.append(tx)
    return "after"


def one_line():
    with RolledBack(): ran.append("one line")  # fmt: skip  # noqa: E701
    return "after"


def one_line_with_name():
    other = 1
    with RolledBack() as tx: other += ran.append(other)  # fmt: skip  # noqa: E701
    assert isinstance(tx, RolledBack)
    return "after"


def as_closure_variable():
    with RolledBack() as tx:
        ran.append(tx)
    return (lambda: isinstance(tx, RolledBack) and "after")()


def as_nonlocal():
    tx = None

    def inner(argument):
        nonlocal tx
        keep = lambda: argument  # noqa: E731
        with RolledBack() as tx:
            ran.append(keep)
        return isinstance(tx, RolledBack) and "after"

    return inner(1)


def as_argument(tx=None):
    assert (lambda: tx)() is None  # a cell that is an argument too
    with RolledBack() as tx:
        ran.append(tx)
    return isinstance(tx, RolledBack) and "after"


def as_global():
    global bound
    with RolledBack() as bound:
        ran.append(bound)
    return isinstance(bound, RolledBack) and "after"


def as_item():
    target = Recorder()
    with RolledBack() as target["k"]:
        ran.append("as item")
    return isinstance(target["k"], RolledBack) and "after"


def as_item_empty_body():
    target = Recorder()
    with RolledBack() as target["k"]: pass  # fmt: skip  # noqa: E701
    return isinstance(target["k"], RolledBack) and "after"


def as_item_before_try():
    target = Recorder()
    with RolledBack() as target["k"]:
        try:
            ran.append("as item")
        except BaseException:
            ran.append("caught")
    # From 3.11 on nothing can be raised between the target and the try: the target stays unbound.
    assert bool(target) == (sys.version_info < (3, 11))
    return "after"


def as_name_before_try():
    with RolledBack() as tx:
        try:
            ran.append("as name")
        except BaseException:
            ran.append("caught")
    return isinstance(tx, RolledBack) and "after"


def as_tuple():
    with RolledBack(gives=(1, (2, 3))) as (left, (*middle, right)):
        ran.append((left, right))
    assert (left, middle, right) == (1, [2], 3)
    return "after"


def as_attribute():
    class Owner:
        name = None

    owner = Owner()
    with RolledBack() as owner.name:
        ran.append("as attribute")
    return isinstance(owner.name, RolledBack) and "after"


def as_computed():
    target = [None] * 9
    for index in range(4):
        with RolledBack() as target[(lambda number: number * 2)(index)]:
            ran.append("as computed")
        with RolledBack() as target[5 if index else 7]:
            ran.append("as conditional: stays unbound")
    assert [isinstance(each, RolledBack) for each in target[:8]] == [1, 0, 1, 0, 1, 0, 1, 0]
    return "after"


# fmt: off
def over_lines():
    target = Recorder()
    with RolledBack(
    ) as target[
        str(1)
    ]:
        ran.append(1)
    return list(target) == ["1"] and "after"
# fmt: on


def generator():
    yield 1
    with RolledBack():
        yield 2
    yield 3


async def coroutine():
    with RolledBack() as tx:
        ran.append(tx)
    return "after"


async def asynchronous_generator():
    yield 1
    with RolledBack():
        yield 2
    yield 3


def several():
    log = []

    class Other:
        def __enter__(self):
            log.append("enter")

        def __exit__(self, *reason):
            log.append(reason[0])

    with Other(), RolledBack() as tx, Other():
        ran.append(tx)
    assert log == ["enter", None], log
    return "after"


def nested():
    with RolledBack():
        with RolledBack():
            ran.append("inner")
        ran.append("outer")
    return "after"


def another_exception():
    boom = ValueError("boom")
    try:
        with RolledBack(raises=boom):
            ran.append("raising")
    except ValueError as error:
        assert error is boom and error.__context__ is None, error.__context__
        return "after"


def loops():
    rounds = 0
    for _ in range(50):
        with RolledBack():
            continue
        rounds += 1
    while rounds < 60:
        with RolledBack():
            break
        rounds += 1
    assert rounds == 60, rounds
    return "after"


def in_finally():
    try:
        raise KeyError
    except KeyError:
        with RolledBack():
            ran.append("in except")
    finally:
        with RolledBack():
            ran.append("in finally")
    return "after"


def many_constants():
    # More than 256 names and constants: the instructions carry EXTENDED_ARG.
    source = "def f(manager, d):\n" + "".join(f"    v{i} = {i}.5\n" for i in range(300))
    source += "    with manager() as d.attribute_beyond:\n" + "".join(
        f"        d.a{i} = v{i}\n" for i in range(300)
    )
    source += "    return 'after'\n"
    space = {}
    exec(source, space)

    class Target:
        def __setattr__(self, name, value):
            names.append(name)

    names = []
    result = space["f"](RolledBack, Target())
    assert names == ["attribute_beyond"], names
    return result


def many_names():
    # The name's number does not fit a byte either.
    source = "def f(manager, ran):\n" + "".join(f"    v{i} = {i}\n" for i in range(300))
    source += "    with manager() as beyond:\n        ran.append(1)\n    return beyond and 'after'\n"
    space = {}
    exec(source, space)
    return space["f"](RolledBack, ran)


class InClass:
    with RolledBack():
        ran.append("class body")
    value = "after"


def drive(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine waited")


async def gather():
    return [item async for item in asynchronous_generator()]


PLAIN = (
    block,
    one_line,
    one_line_with_name,
    as_closure_variable,
    as_nonlocal,
    as_argument,
    as_global,
    as_item,
    as_item_empty_body,
    as_item_before_try,
    as_name_before_try,
    as_tuple,
    as_attribute,
    as_computed,
    over_lines,
    several,
    nested,
    another_exception,
    loops,
    in_finally,
    many_constants,
    many_names,
)


def run_all():
    for case in PLAIN:
        assert case() == "after", case.__name__
        assert not ran, (case.__name__, ran)
    assert list(generator()) == [1, 3]
    assert drive(coroutine()) == "after"
    assert drive(gather()) == [1, 3]
    assert InClass.value == "after"
    space = {"RolledBack": RolledBack, "ran": ran}
    exec("with RolledBack() as tx: ran.append(1)\nend = 'after'", space)
    assert space["end"] == "after" and isinstance(space["tx"], RolledBack)
    assert not ran, ran


def under_no_tracer():
    run_all()
    assert sys.gettrace() is None


def under_a_global_tracer():
    def tracer(frame, event, argument):
        return None

    sys.settrace(tracer)
    run_all()
    found = sys.gettrace()
    sys.settrace(None)
    assert found is tracer


def under_a_local_tracer():
    """A tracer that follows every line sees the lines of each case but none of a body, and goes on after it."""
    seen = []

    def tracer(frame, event, argument):
        if frame.f_code is block.__code__ or frame.f_code is nested.__code__:
            seen.append((frame.f_code.co_name, event, frame.f_lineno - frame.f_code.co_firstlineno))
        return tracer

    sys.settrace(tracer)
    run_all()
    sys.settrace(None)
    lines = [line for name, event, line in seen if name == "block" and event == "line"]
    assert 2 not in lines and lines[0] == 1 and lines[-1] == 3, seen
    assert ("block", "return", 3) in seen, seen
    lines = [line for name, event, line in seen if name == "nested" and event == "line"]
    assert not {2, 3, 4} & set(lines) and lines[-1] == 5, seen


def under_an_opcode_tracer():
    def tracer(frame, event, argument):
        if frame.f_code is block.__code__:
            frame.f_trace_opcodes = True
            settings.append((frame.f_trace_lines, frame.f_trace_opcodes, event))
        return tracer

    settings = []
    sys.settrace(tracer)
    run_all()
    sys.settrace(None)
    assert [event for _, _, event in settings].count("opcode") > 4
    assert settings[-1][2] == "return"


def under_profile():
    names = []
    sys.setprofile(lambda frame, event, argument: names.append(event))
    run_all()
    sys.setprofile(None)
    assert "call" in names


def under_monitoring():
    """sys.monitoring's tools (3.12 and later) see no line of a body either."""
    if not hasattr(sys, "monitoring"):
        return
    tool, lines = sys.monitoring.DEBUGGER_ID, []
    sys.monitoring.use_tool_id(tool, "test")

    def on_line(code, line):
        if code is block.__code__:
            lines.append(line - code.co_firstlineno)

    sys.monitoring.register_callback(tool, sys.monitoring.events.LINE, on_line)
    sys.monitoring.set_events(tool, sys.monitoring.events.LINE)
    run_all()
    sys.monitoring.set_events(tool, 0)
    sys.monitoring.free_tool_id(tool)
    assert 2 not in lines and lines[-1] == 3, lines


def under_pdb():
    """pdb steps over a rolled back block to the line after it, and its breakpoints go on working."""
    import io
    import pdb

    out = io.StringIO()
    commands = io.StringIO("break block\ncontinue\nnext\nnext\nnext\ncontinue\n")
    debugger = pdb.Pdb(stdin=commands, stdout=out, nosigint=True, readrc=False)
    debugger.use_rawinput = False
    debugger.prompt = ""
    debugger.runcall(outer_of_block)
    text = out.getvalue()
    assert "ran.append(tx)" not in text, text
    assert 'return "after"' in text, text
    assert not ran


def outer_of_block():
    return block()


def refuses_other_ways():
    import contextlib

    def enters_by_call():
        manager = RolledBack()
        manager.__enter__()

    def enters_by_stack():
        with contextlib.ExitStack() as stack:
            stack.enter_context(RolledBack())

    @contextlib.contextmanager
    def wrapped():
        with contextlib.ExitStack() as stack:
            yield stack.enter_context(RolledBack())

    def enters_wrapped():
        with wrapped():
            pass

    for case in (enters_by_call, enters_by_stack, enters_wrapped):
        try:
            case()
        except errors.Unsupported as error:
            assert "with tentative.transaction()" in error.remedy
        else:
            raise AssertionError(case.__name__)


def with_warm_code():
    """After the adaptive interpreter (3.11 and later) has specialised the code."""
    for _ in range(200):
        run_all()


CASES = (
    under_no_tracer,
    under_a_global_tracer,
    under_a_local_tracer,
    under_an_opcode_tracer,
    under_profile,
    under_monitoring,
    under_pdb,
    refuses_other_ways,
    with_warm_code,
    under_a_local_tracer,
)

if __name__ == "__main__":
    for each in CASES:
        print(each.__name__, file=sys.stderr)
        each()
        assert not ran, (each.__name__, ran)
    print("ok")
