"""Random programs of Python operations, and a picture of the state that they leave.

A program is a list of (operation, number) pairs. Each operation works on a `World`, whose picture holds values,
aliases and the state of generators, modules, files and the environment, by value so that two worlds can be compared.
"""

import importlib
import os
import pickle
import sys
from pathlib import Path

MODULES = (
    "xml.sax.saxutils",
    "_lsprof",
    "colorsys",
    "_bisect",
    "sndhdr",
    "mailcap",
    "wave",
    "_crypt",
    "this_is_missing",
)


def counting(start):
    while True:
        got = yield start
        start += 1 if got is None else got


class Thing:
    """A class whose instances refer to one another."""

    def __init__(self, label):
        self.label, self.link, self.seen = label, None, 0


class World:
    """All state that a program can reach."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.containers = [[], {}, set(), []]
        self.containers[3] = self.containers[0]
        self.things = [Thing(n) for n in range(3)]
        self.generators = [counting(0)]
        self.closures = []
        self.classes = [Thing]
        self.blobs = [bytearray(b"start")]

    def picture(self):
        """The state by value; identities only as "the same object as number n"."""
        numbers = {}

        def look(value):
            if isinstance(value, list | dict | set | Thing | bytearray):
                known = numbers.get(id(value))
                if known is not None:
                    return f"same as {known}"
                numbers[id(value)] = len(numbers)
            if isinstance(value, list):
                return [look(each) for each in value]
            if isinstance(value, dict):
                return {str(key): look(each) for key, each in value.items()}
            if isinstance(value, set):
                return sorted(map(str, value))
            if isinstance(value, Thing):
                return [type(value).__name__, value.label, look(value.link), value.seen]
            if isinstance(value, bytearray):
                return (len(value), bytes(value[:8]), bytes(value[-8:]))
            return value

        return {
            "containers": look(self.containers),
            "things": look(self.things),
            "generators": [each.gi_frame.f_locals["start"] for each in self.generators],
            "closures": [each() for each in self.closures],
            "classes": [(each.__name__, getattr(each, "extra", None)) for each in self.classes],
            "blobs": look(self.blobs),
            "modules": [name for name in MODULES if name in sys.modules],
            "environment": {key: value for key, value in os.environ.items() if key.startswith("MODEL_")},
            "files": {each.name: each.read_bytes() for each in sorted(self.directory.iterdir())},
            "directory": os.getcwd(),
        }


def append(world, n):
    world.containers[0].append(n)


def alias(world, n):
    world.containers[1][n % 5] = world.containers[n % 4]


def nest(world, n):
    world.containers[0].append([n, world.things[n % len(world.things)]])


def clear(world, n):
    world.containers[n % 3].clear()


def add_to_set(world, n):
    world.containers[2].update({n, str(n), (n, n)})


def link(world, n):
    things = world.things
    things[n % len(things)].link = things[(n // 3) % len(things)]


def make_thing(world, n):
    world.things.append(world.classes[n % len(world.classes)](n))


def drop_thing(world, n):
    if len(world.things) > 1:
        del world.things[n % len(world.things)]


def step_generator(world, n):
    next(world.generators[n % len(world.generators)])


def send_generator(world, n):
    generator = world.generators[n % len(world.generators)]
    next(generator)
    generator.send(n)


def make_generator(world, n):
    world.generators.append(counting(n))
    next(world.generators[-1])


def make_closure(world, n):
    cell = world.containers[n % 4]
    world.closures.append(lambda: (n, len(cell)))


def make_class(world, n):
    base = world.classes[n % len(world.classes)]
    world.classes.append(type(f"Made{n}", (base,), {"extra": n}))


def change_class(world, n):
    world.classes[n % len(world.classes)].extra = n


def grow(world, n):
    world.blobs.append(bytearray([n % 256]) * (n * 1000))


def shrink(world, n):
    del world.blobs[n % len(world.blobs)][: n * 500]


def drop_blob(world, n):
    if len(world.blobs) > 1:
        del world.blobs[n % len(world.blobs)]


def write_blob(world, n):
    blob = world.blobs[n % len(world.blobs)]
    if blob:
        blob[n % len(blob)] = n % 256


def load(world, n):
    try:
        importlib.import_module(MODULES[n % len(MODULES)])
    except ImportError:
        pass


def set_environment(world, n):
    os.environ[f"MODEL_{n % 4}"] = str(n)


def unset_environment(world, n):
    os.environ.pop(f"MODEL_{n % 4}", None)


def pickle_round_trip(world, n):
    world.things.append(pickle.loads(pickle.dumps(Thing(n))))


def write_file(world, n):
    (world.directory / f"file{n % 4}").write_bytes(bytes([n % 256]) * (n % 50))


def append_file(world, n):
    with open(world.directory / f"file{n % 4}", "ab") as file:
        file.write(str(n).encode())


def remove_file(world, n):
    (world.directory / f"file{n % 4}").unlink(missing_ok=True)


def rename_file(world, n):
    source = world.directory / f"file{n % 4}"
    if source.exists():
        source.rename(world.directory / f"file{(n + 1) % 4}")


MEMORY_OPERATIONS = (
    append, alias, nest, clear, add_to_set, link, make_thing, drop_thing, step_generator, send_generator,
    make_generator, make_closure, make_class, change_class, grow, shrink, drop_blob, write_blob, load,
    set_environment, unset_environment, pickle_round_trip,
)  # fmt: skip
FILE_OPERATIONS = (write_file, append_file, remove_file, rename_file)


def run(world, program):
    """Runs a program."""
    for operation, number in program:
        operation(world, number)
