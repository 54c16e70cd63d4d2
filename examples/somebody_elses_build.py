"""Somebody else's build script: it does what such scripts do, and a little more than anybody asked for.

It runs in the interpreter of `build_script.py`, whose objects it finds in its globals, or on its own from a shell.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

project = Path(os.environ.get("PROJECT", ".")).resolve()
inside_a_host = "settings" in globals()

# The interpreter: search path, environment, working directory, a function of a standard module.
sys.path.insert(0, str(project / "vendor"))
os.environ["BUILD_FLAGS"] = "-O2 -g"
os.environ.pop("KEEP_ME", None)
os.chdir(project / "source")
plain_dumps = json.dumps
json.dumps = lambda *arguments, **settings: plain_dumps(*arguments, **{**settings, "sort_keys": True})
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
import _lsprof  # noqa: E402, F401  a C extension that nobody has imported yet

# Objects of the host, changed in place.
if inside_a_host:
    settings["targets"].append({"name": "everything", "options": settings["options"]})  # noqa: F821
    settings["options"]["optimise"] = True  # noqa: F821
    drawn = next(numbers)  # noqa: F821
    array *= 2  # noqa: F821
    log.write("built\n")  # noqa: F821
    log.flush()  # noqa: F821
    database.execute("insert into builds values (?, ?)", (2, "somebody else's"))  # noqa: F821
    database.commit()  # noqa: F821

# Files: created, changed, renamed, deleted; directories too.
(project / "build").mkdir()
(project / "build" / "program.o").write_bytes(bytes(range(256)) * 64)
(project / "source" / "main.c").write_text("int main(void) { return 1; }\n")
(project / "source" / "old_name.c").rename(project / "source" / "new_name.c")
(project / "notes.txt").unlink()
shutil.rmtree(project / "cache")
(project / "docs").rename(project / "manual")

# Another process.
subprocess.run(["sh", "-c", "echo linked > program; chmod 755 program"], cwd=project / "build", check=True)

# And what a build has no business with: the network, and a process that is not its own.
reached = []
try:
    with socket.create_connection(("127.0.0.1", int(os.environ["LISTENER_PORT"])), timeout=2) as connection:
        connection.sendall(b"hello")
        reached.append("network")
except OSError:
    pass
try:
    os.kill(int(os.environ["BYSTANDER_PID"]), signal.SIGTERM)
    reached.append("process")
except OSError:
    pass
