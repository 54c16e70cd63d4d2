"""The same random program, run plainly and in transactions, leaves the same state; taken back, the state before."""

import os
import sys

import hypothesis
import tentative
from hypothesis import strategies
from mappings import MAPPING_OPERATIONS, Mappings
from model import FILE_OPERATIONS, MEMORY_OPERATIONS, MODULES, World, run

THOROUGH = bool(os.environ.get("TENTATIVE_THOROUGH"))


def programs(operations):
    step = strategies.tuples(strategies.sampled_from(operations), strategies.integers(0, 200))
    return strategies.lists(step, min_size=1, max_size=30)


SETTINGS = hypothesis.settings(
    max_examples=300 if THOROUGH else 40,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def in_a_child(work):
    """Gives what the work returns, in a process of its own, so that no two runs share modules or an environment."""
    import pickle

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            with open(writer, "wb") as pipe:
                pickle.dump(work(), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, "the process failed"
    return pickle.loads(data)


def fresh(directory, prelude):
    for name in MODULES:
        sys.modules.pop(name, None)
    for entry in directory.iterdir():
        entry.unlink()
    world = World(directory)
    run(world, prelude)
    return world


def check(directory, options, prelude, program):
    """Compares the three ways of running one program after the same prelude."""

    def plainly():
        world = fresh(directory, prelude)
        before = world.picture()
        run(world, program)
        return before, world.picture()

    def transacted():
        world = fresh(directory, prelude)
        with tentative.transaction(**options) as tx:
            run(world, program)
            tx.rollback()
        taken_back = world.picture()
        with tentative.transaction(**options) as tx:
            run(world, program)
        assert tx.outcome.committed
        return taken_back, world.picture()

    before, after = in_a_child(plainly)
    taken_back, committed = in_a_child(transacted)
    assert taken_back == before, "a rollback leaves the state before"
    assert committed == after, "a commit leaves the state of a plain run"


def test_memory_model(memory, tmp_path):
    @SETTINGS
    @hypothesis.given(programs(MEMORY_OPERATIONS), programs(MEMORY_OPERATIONS))
    def property_of_programs(prelude, program):
        check(tmp_path, memory, prelude, program)

    property_of_programs()


def test_files_model(everything, tmp_path):
    @SETTINGS
    @hypothesis.given(
        programs(MEMORY_OPERATIONS + FILE_OPERATIONS), programs(MEMORY_OPERATIONS + FILE_OPERATIONS)
    )
    def property_of_programs(prelude, program):
        check(tmp_path, everything, prelude, program)

    property_of_programs()


def check_mappings(directory, options, prelude, program):
    """Like `check`, and compares with what the branch itself saw at its end."""

    def plainly():
        mappings = Mappings(directory)
        mappings.run(prelude)
        return mappings.run(program), mappings.picture()

    def transacted():
        mappings = Mappings(directory)
        mappings.run(prelude)
        before = mappings.picture()
        with tentative.transaction(**options) as tx:
            mappings.run(program)
            tx.rollback()
        assert mappings.picture() == before, "a rollback leaves the mappings before"
        with tentative.transaction(**options):
            answers = mappings.run(program)
            inside = mappings.picture()
        assert mappings.picture() == inside, "a commit leaves the mappings of the branch"
        return answers, inside

    plain_answers, after = in_a_child(plainly)
    answers, committed = in_a_child(transacted)
    # Two mappings that the kernel joins outside can stay two inside, and mremap(2) takes one at a time.
    if answers == plain_answers:
        assert committed == after, "a commit leaves the mappings of a plain run"


def test_mappings_model(memory, tmp_path):
    calls = strategies.tuples(strategies.sampled_from(MAPPING_OPERATIONS), strategies.integers(0, 2**32))

    @SETTINGS
    @hypothesis.given(strategies.lists(calls, max_size=25), strategies.lists(calls, min_size=1, max_size=25))
    def property_of_programs(prelude, program):
        check_mappings(tmp_path, memory, prelude, program)

    property_of_programs()


def test_the_model_notices_a_difference(tmp_path):
    """The picture would show a transaction that does nothing, or that cannot take anything back."""
    one, other = World(tmp_path), World(tmp_path)
    run(other, [(MEMORY_OPERATIONS[0], 1)])
    assert one.picture() != other.picture()
